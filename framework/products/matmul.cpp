#include <chainrule/framework/products/matmul.hpp>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/products/blas.hpp>
#include <chainrule/framework/products/dots.hpp>
#include <chainrule/framework/products/scheme.hpp>
#include <chainrule/framework/products/tiny.hpp>

namespace chainrule::products {

namespace {

// The product of the last two axes.
Product product_of(const KernelCall& call) {
  const auto narrow = [&](std::int64_t extent) {
    if (extent > std::numeric_limits<int>::max())
      throw Error(call.at, call.op, fmt::format("requires extents below 2^31, got {}", extent));
    return extent;
  };
  const auto stride = [&](const Dims& shape) { return std::max<std::int64_t>(1, narrow(shape.back())); };
  const Dims& a = call.inputs[0].shape;
  const Dims& b = call.inputs[1].shape;
  const Dims& c = call.output.shape;
  Product p;
  p.transpose_a = call.attributes.get<bool>("transpose_a");
  p.transpose_b = call.attributes.get<bool>("transpose_b");
  p.m = narrow(c[c.rank() - 2]);
  p.n = narrow(c.back());
  p.k = narrow(a[a.rank() - (p.transpose_a ? 2 : 1)]);
  p.lda = stride(a);
  p.ldb = stride(b);
  p.ldc = stride(c);
  return p;
}

double flops(const Product& p) {
  return 2 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
}

// make(scheme) with what computes the product here: dots, generated code, or OpenBLAS.
template <class F>
KernelRun with_scheme(const Product& p, bool by_dots, DType dtype, F make) {
  const auto shared = [&]<class S>(S scheme) { return make(std::make_shared<const S>(std::move(scheme))); };
  if (by_dots) return shared(Dots(p, dtype));
  if (const auto set = kernels::generated_set()) {
    std::optional<Scheme> scheme;
    std::optional<Tiny> tiny;
    try {
      if (Tiny::serves(p, dtype, *set)) {
        tiny.emplace(p, dtype, *set);
      } else {
        scheme.emplace(p, dtype, *set);
      }
    } catch (const std::runtime_error&) {  // no memory for code: the system may have begun to refuse it
    }
    if (tiny) return shared(std::move(*tiny));
    if (scheme) return shared(std::move(*scheme));
  }
  return visit_floating(dtype, [&]<class T>(T) -> KernelRun { return shared(BlasScheme<T>(p)); });
}

// Workers have memory of their own for what a scheme needs.
template <class S>
void reserve(const S& scheme, KernelCall& call) {
  call.workspace = scheme.workspace();
  detail::reserve_scratch(scheme.scratch());
}

// ---- batches

// The axes over which products are repeated, and how far it is along them from one matrix of an operand to the next.
struct Batch {
  Dims shape;
  Dims a;
  Dims b;
};

Batch batch_of(const KernelCall& call) {
  const Dims& c = call.output.shape;
  Batch batch;
  for (std::size_t i = 0; i + 2 < c.rank(); ++i) batch.shape.push_back(c[i]);
  const auto strides = [&](const Dims& operand) {
    Dims own;
    for (std::size_t i = 0; i + 2 < operand.rank(); ++i) own.push_back(operand[i]);
    Dims out = broadcast_strides(own, batch.shape);
    for (std::int64_t& stride : out) stride *= operand[operand.rank() - 2] * operand.back();
    return out;
  };
  batch.a = strides(call.inputs[0].shape);
  batch.b = strides(call.inputs[1].shape);
  return batch;
}

// Whether `extent` products that follow each other are made one: of all their rows, where they share the right operand
// and the left ones lie row after row; or of all their columns, where they are of one row, share the left operand and
// the right ones lie column after column.
bool fold(Product& p, std::int64_t extent, bool share_a, bool share_b) {
  const auto fits = [&](std::int64_t side) { return side * extent <= std::numeric_limits<int>::max(); };
  // A matrix of one row or column lies as its transpose does.
  const bool rows = !p.transpose_a || p.m == 1 || p.k == 1;
  const bool columns = p.transpose_b || p.n == 1 || p.k == 1;
  if (share_b && rows && fits(p.m)) {
    p.transpose_a = false;
    p.lda = std::max<std::int64_t>(1, p.k);
    p.m *= extent;
    return true;
  }
  if (share_a && p.m == 1 && columns && fits(p.n)) {
    p.transpose_b = true;
    p.ldb = std::max<std::int64_t>(1, p.k);
    p.n *= extent;
    p.ldc = std::max<std::int64_t>(1, p.n);
    return true;
  }
  return false;
}

// Whether a product is computed by dots, which follows from the sizes of one matrix, whatever the batch.
bool is_by_dots(const Product& one) { return kernels::generated_set() && Dots::serves(one); }

// The same along the last axes of a batch, as long as it goes.
void fold(Product& p, Batch& batch) {
  while (!batch.shape.empty()) {
    const std::size_t last = batch.shape.rank() - 1;
    if (!fold(p, batch.shape[last], batch.a[last] == 0, batch.b[last] == 0)) return;
    Dims others;
    for (std::size_t i = 0; i < last; ++i) others.push_back(batch.shape[i]);
    batch.shape = others;
  }
}

// Where the matrices of an operand begin.
std::vector<std::int64_t> starts(const Dims& batch, const Dims& strides) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < count(batch); ++i) {
    std::int64_t rest = i;
    std::int64_t start = 0;
    for (std::size_t axis = batch.rank(); axis-- > 0;) {
      start += rest % batch[axis] * strides[axis];
      rest /= batch[axis];
    }
    out.push_back(start);
  }
  return out;
}

// Multiplications from which the products of a batch are shared out.
constexpr double worth_sharing = 2'000'000;

// Products that follow each other in C, one a matrix of A and B.
template <class S>
KernelRun run_batch(std::shared_ptr<const S> scheme, const Product& p, const Batch& batch, std::size_t element) {
  // Bytes from the beginning.
  const auto in_bytes = [&](std::vector<std::int64_t> of) {
    for (std::int64_t& start : of) start *= static_cast<std::int64_t>(element);
    return of;
  };
  const std::int64_t matrix = p.m * p.n * static_cast<std::int64_t>(element);
  const bool shared = flops(p) / 2 * static_cast<double>(count(batch.shape)) >= worth_sharing;
  return [scheme, matrix, shared, starts_a = in_bytes(starts(batch.shape, batch.a)),
          starts_b = in_bytes(starts(batch.shape, batch.b))](const KernelBuffers& buffers) {
    const auto one = [&](std::size_t i, void* own) {
      scheme->run_alone(static_cast<const char*>(buffers.inputs[0]) + starts_a[i],
                        static_cast<const char*>(buffers.inputs[1]) + starts_b[i],
                        static_cast<char*>(buffers.output) + static_cast<std::int64_t>(i) * matrix,
                        own ? own : buffers.workspace);
    };
    if (shared) {
      detail::parallel_for(starts_a.size(), one);
    } else {
      for (std::size_t i = 0; i < starts_a.size(); ++i) one(i, nullptr);
    }
  };
}

KernelRun make_matmul(KernelCall& call) {
  Product p = product_of(call);
  Batch batch = batch_of(call);
  const bool by_dots = is_by_dots(p);
  fold(p, batch);
  call.flops = flops(p) * static_cast<double>(count(batch.shape));
  const std::size_t element = size_of(call.output.dtype);
  const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * element;
  if (bytes == 0 || p.k == 0)  // sums of nothing
    return [bytes](const KernelBuffers& buffers) {
      if (bytes > 0) std::memset(buffers.output, 0, bytes);
    };
  return with_scheme(p, by_dots, call.output.dtype, [&](const auto& scheme) -> KernelRun {
    reserve(*scheme, call);
    if (count(batch.shape) > 1) return run_batch(scheme, p, batch, element);
    return [scheme](const KernelBuffers& buffers) {
      scheme->run(buffers.inputs[0], buffers.inputs[1], buffers.output, buffers.workspace);
    };
  });
}

KernelRun make_accumulate(KernelCall& call) {
  Product p = product_of(call);
  p.alpha = call.attributes.number("alpha");
  p.adds = true;
  call.flops = flops(p);
  const std::size_t bytes = static_cast<std::size_t>(p.m * p.n) * size_of(call.output.dtype);
  const auto begin = [bytes](const KernelBuffers& buffers) {
    if (bytes > 0 && buffers.inputs[accumulated] != buffers.output)
      std::memcpy(buffers.output, buffers.inputs[accumulated], bytes);
  };
  if (bytes == 0 || p.k == 0) return begin;
  return with_scheme(p, is_by_dots(p), call.output.dtype, [&](const auto& scheme) -> KernelRun {
    reserve(*scheme, call);
    return [scheme, begin](const KernelBuffers& buffers) {
      begin(buffers);
      scheme->run(buffers.inputs[0], buffers.inputs[1], buffers.output, buffers.workspace);
    };
  });
}

}  // namespace

const Op& accumulate_op() {
  static const Op op = [] {
    Op made;
    made.name = "accumulate";
    made.doc = "c + alpha a b.";
    made.attributes = {{"transpose_a", false}, {"transpose_b", false}, {"alpha", 1.0}};
    made.shape = [](const OpCall& call) { return call.type(accumulated); };
    made.forward.dtypes = Forward::Dtypes::one_floating;
    made.forward.adds_to = accumulated;
    made.forward.kernel = make_accumulate;
    return made;
  }();
  return op;
}

std::optional<Product> generated_product(const KernelCall& call) {
  Product p = product_of(call);
  Batch batch = batch_of(call);
  if (is_by_dots(p)) return {};
  fold(p, batch);
  if (count(batch.shape) != 1 || count(call.output.shape) == 0 || p.k == 0 || !kernels::generated_set()) return {};
  return p;
}

Forward matmul() {
  Forward forward;
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.kernel = make_matmul;
  return forward;
}

}  // namespace chainrule::products
