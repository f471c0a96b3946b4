// The product is computed block by block of its rows, each into the same memory, and the group's chunks that read the
// block follow at once: so the product's result passes through the second-level cache alone. (A weight's gradient and
// its update: the gradient is as large as the weight, its making takes little memory.) Blocks are what threads share.
//
// Where they would be too few for the threads that there are, the product is computed whole, and then the group. All
// that has the same bits either way: those of a product do not depend on how it is cut, those of a group follow from
// its chunks.
#include <chainrule/framework/fused/riding.hpp>

#include <algorithm>
#include <stdexcept>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/framework/products/matmul.hpp>
#include <chainrule/framework/products/scheme.hpp>

namespace chainrule::detail {

namespace {

// A smaller result is in the cache anyway. A larger right operand would be read from farther away for each block.
constexpr std::int64_t smallest_result = 262'144;
constexpr std::int64_t largest_right_operand = 524'288;
constexpr std::int64_t largest_block = 393'216;
constexpr std::int64_t rows_wished = 32;
constexpr std::int64_t rows_wished_of_packed = 128;  // so that packing anew for each block does not count
constexpr std::int64_t fewest_blocks = 4;
// Only for a program on more threads than this there is memory for all of the product.
constexpr std::int64_t blocks_for_all_threads = 32;

constexpr std::size_t lines(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

std::optional<products::Product> product_of(const GraphData& graph, NodeId id, const Sizes& sizes) {
  const Attributes attributes = evaluate_attributes(graph.node(id).attributes, sizes);
  return products::generated_product(call_of(graph, id, sizes, attributes));
}

class RidingStep {
 public:
  RidingStep(const GraphData& graph, NodeId node, const FusedGroup& group, const Sizes& sizes)
      : p_(*product_of(graph, node, sizes)),
        dtype_(graph.node(node).type.dtype),
        element_(static_cast<std::int64_t>(size_of(dtype_))),
        inputs_(group.inputs.size()),
        group_(make_chunked_group(graph, group, sizes)),
        whole_(make_kernel_step(graph, node, sizes)) {
    while (group.inputs[result_] != node) ++result_;
    choose_blocks();
    layout();
    reserve_scratch(own_bytes_);
  }

  [[nodiscard]] std::size_t workspace() const {
    return partials_at_ + lines(group_->partial_bytes()) + (keeps_all_ ? bytes_of_rows(p_.m) : 0);
  }
  [[nodiscard]] std::int64_t tile() const { return group_->tile(); }
  [[nodiscard]] double flops() const { return whole_.flops; }
  [[nodiscard]] std::string describe() const {
    return fmt::format(
        "{}; {}",
        rows_ == p_.m ? std::string("the product, then the group") : fmt::format("in blocks of {} rows", rows_),
        group_->describe());
  }

  void run(const StepBuffers& buffers) const {
    const int threads = num_threads();
    if (rows_ < p_.m && (threads == 1 || blocks() >= threads || !keeps_all_)) {
      run_blocks(buffers, threads);
    } else {
      run_one_after_the_other(buffers);
    }
    group_->finish(buffers, partials(buffers));
  }

 private:
  [[nodiscard]] products::Scheme scheme(std::int64_t rows) const {
    products::Product part = p_;
    part.m = rows;
    return {part, dtype_, *kernels::generated_set()};
  }
  [[nodiscard]] std::size_t bytes_of_rows(std::int64_t rows) const {
    return lines(static_cast<std::size_t>(rows * p_.n * element_));
  }
  [[nodiscard]] std::int64_t blocks() const { return (p_.m + rows_ - 1) / rows_; }

  // ---- made once

  // Blocks are whole chunks, and these have whole rows of the result; else there is one block. So there is where no
  // code can be made for blocks any more.
  void choose_blocks() {
    rows_ = p_.m;
    const std::int64_t elements = group_->elements_of_chunk();
    if (elements % p_.n == 0) {
      const std::int64_t rows_of_chunk = elements / p_.n;
      if (take_blocks((rows_wished + rows_of_chunk - 1) / rows_of_chunk, rows_of_chunk) && block_->packs()) {
        const std::int64_t most = std::min(
            {rows_wished_of_packed, p_.m / fewest_blocks, largest_block / std::max<std::int64_t>(1, p_.n * element_)});
        if (const std::int64_t chunks = most / rows_of_chunk; chunks > chunks_of_block_)
          take_blocks(chunks, rows_of_chunk);
      }
    }
    keeps_all_ = blocks() < blocks_for_all_threads;
  }

  bool take_blocks(std::int64_t chunks, std::int64_t rows_of_chunk) {
    const std::int64_t rows = chunks * rows_of_chunk;
    if (rows * fewest_blocks > p_.m || rows * p_.n * element_ > largest_block || !make_schemes(rows)) return false;
    rows_ = rows;
    chunks_of_block_ = chunks;
    return true;
  }

  bool make_schemes(std::int64_t rows) {
    try {
      products::Scheme block = scheme(rows);
      std::optional<products::Scheme> last;
      if (p_.m % rows != 0) last = scheme(p_.m % rows);
      block_ = std::move(block);
      last_ = std::move(last);
    } catch (const std::runtime_error&) {
      return false;
    }
    return true;
  }

  // Memory of a thread's own: the addresses of inputs, the group's scratch memory, the product's, and a block.
  void layout() {
    scratch_at_ = lines(inputs_ * sizeof(void*));
    product_at_ = scratch_at_ + lines(group_->scratch_bytes());
    own_bytes_ = block_at_ = product_at_;
    if (rows_ < p_.m) {
      block_at_ += lines(std::max(block_->scratch(), last_ ? last_->scratch() : 0));
      own_bytes_ = block_at_ + bytes_of_rows(rows_);
    }
    partials_at_ = lines(std::max(own_bytes_, keeps_all_ ? whole_.workspace : 0));
  }

  // ---- run

  [[nodiscard]] char* partials(const StepBuffers& buffers) const {
    return static_cast<char*>(buffers.workspace) + partials_at_;
  }
  // What the group is told: that the result begins so many bytes before where its block lies.
  [[nodiscard]] StepBuffers with_result(const StepBuffers& buffers, char* own, const char* block,
                                        std::int64_t bytes_before) const {
    auto** inputs = reinterpret_cast<const void**>(own);
    std::copy_n(buffers.inputs, inputs_, inputs);
    inputs[result_] = reinterpret_cast<const void*>(reinterpret_cast<std::intptr_t>(block) - bytes_before);
    StepBuffers out = buffers;
    out.inputs = inputs;
    return out;
  }

  void run_blocks(const StepBuffers& buffers, int threads) const {
    const auto run = [&](std::size_t block, void* scratch) {
      run_block(buffers, static_cast<std::int64_t>(block), static_cast<char*>(scratch ? scratch : buffers.workspace));
    };
    const auto n = static_cast<std::size_t>(blocks());
    if (threads > 1) {
      parallel_for(n, run);
    } else {
      for (std::size_t block = 0; block < n; ++block) run(block, nullptr);
    }
  }

  void run_block(const StepBuffers& buffers, std::int64_t block, char* own) const {
    const std::int64_t row = block * rows_;
    const bool full = row + rows_ <= p_.m;
    char* result = own + block_at_;
    (full ? *block_ : *last_)
        .run_alone(static_cast<const char*>(buffers.inputs[inputs_]) + row * (p_.transpose_a ? 1 : p_.lda) * element_,
                   buffers.inputs[inputs_ + 1], result, own + product_at_);
    const StepBuffers of_group = with_result(buffers, own, result, row * p_.n * element_);
    const std::int64_t end = std::min((block + 1) * chunks_of_block_, group_->chunks());
    for (std::int64_t chunk = block * chunks_of_block_; chunk < end; ++chunk)
      group_->run_chunk(of_group, chunk, own + scratch_at_, partials(buffers));
  }

  void run_one_after_the_other(const StepBuffers& buffers) const {
    auto* workspace = static_cast<char*>(buffers.workspace);
    char* result = partials(buffers) + lines(group_->partial_bytes());
    void* const outputs[] = {result};
    whole_.run({buffers.inputs + inputs_, outputs, workspace});
    parallel_for(static_cast<std::size_t>(group_->chunks()), [&](std::size_t chunk, void* scratch) {
      char* own = scratch ? static_cast<char*>(scratch) : workspace;
      group_->run_chunk(with_result(buffers, own, result, 0), static_cast<std::int64_t>(chunk), own + scratch_at_,
                        partials(buffers));
    });
  }

  products::Product p_;
  DType dtype_;
  std::int64_t element_;
  std::size_t inputs_;  // of the group
  std::shared_ptr<const ChunkedGroup> group_;
  Step whole_;
  std::optional<products::Scheme> block_;
  std::optional<products::Scheme> last_;  // of the last block, if that has fewer rows
  std::size_t result_ = 0;                // the number of the group's input that is the product
  std::int64_t rows_ = 0;                 // of a block
  std::int64_t chunks_of_block_ = 0;
  bool keeps_all_ = false;
  std::size_t scratch_at_ = 0;
  std::size_t product_at_ = 0;
  std::size_t block_at_ = 0;
  std::size_t own_bytes_ = 0;
  std::size_t partials_at_ = 0;
};

}  // namespace

bool worth_riding(const GraphData& graph, NodeId product, const Sizes& sizes) {
  static const Op* const matmul = find_op("matmul");
  if (graph.node(product).op != matmul) return false;
  const auto element = static_cast<std::int64_t>(size_of(graph.node(product).type.dtype));
  if (count(evaluate(graph.node(product).type.shape, sizes)) * element < smallest_result) return false;
  const std::optional<products::Product> p = product_of(graph, product, sizes);
  return p && p->k * p->n * element <= largest_right_operand && p->m >= fewest_blocks * rows_wished;
}

Step make_riding_step(const GraphData& graph, NodeId product, const FusedGroup& group, const Sizes& sizes) {
  auto step = std::make_shared<const RidingStep>(graph, product, group, sizes);
  return {StepRun::of<&RidingStep::run>(step), step->workspace(), step->flops(), step->tile()};
}

std::string describe_riding_step(const GraphData& graph, NodeId product, const FusedGroup& group, const Sizes& sizes) {
  return RidingStep(graph, product, group, sizes).describe();
}

}  // namespace chainrule::detail
