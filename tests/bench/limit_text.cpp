// W8 and W9 without anything but their matrix products and one pass of the optimizer over all parameters, by OpenBLAS
// or by the library's own generated code. A product that the state before the first place, zeros, would be multiplied
// in is left out; products that wait for each other in the network (an LSTM's steps) are made one after the other.
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#include <cblas.h>
#ifdef BENCH_OWN_PRODUCTS
#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/products/dots.hpp>
#include <chainrule/framework/products/scheme.hpp>
#endif

#include "buffer.hpp"
#include "limit.hpp"
#include "limit_updates.hpp"
#include "parallel.hpp"

namespace bench {

namespace {

// So many products of one size, whose operands follow each other in memory.
struct Group {
  int m, n, k;
  bool transpose_a = false;
  bool transpose_b = false;
  std::int64_t times = 1;
  bool shares_b = false;  // all have one right operand
  bool at_once = false;   // none waits for another

  [[nodiscard]] std::int64_t size_a() const { return std::int64_t{m} * k; }
  [[nodiscard]] std::int64_t size_b() const { return std::int64_t{k} * n; }
  [[nodiscard]] std::int64_t size_c() const { return std::int64_t{m} * n; }
  [[nodiscard]] int lda() const { return transpose_a ? m : k; }
  [[nodiscard]] int ldb() const { return transpose_b ? k : n; }
};

// A linear layer of this many rows: forward, its weights' gradient, its input's.
void add_linear(std::vector<Group>& all, int rows, int in, int out) {
  all.push_back({rows, out, in});
  all.push_back({in, out, rows, true, false});
  all.push_back({rows, in, out, false, true});
}

std::vector<Group> groups(const std::string& workload) {
  const auto sizes = text(workload);
  const int batch = static_cast<int>(network(workload).batch);
  const int places = static_cast<int>(sizes.places);
  const int rows = batch * places;
  const int width = static_cast<int>(sizes.width);
  std::vector<Group> all;
  for (std::int64_t i = 0; i < sizes.layers; ++i) {
    if (workload == "W8") {
      add_linear(all, rows, width, 4 * width);
      all.push_back({batch, 4 * width, width, false, false, places - 1, true});
      all.push_back({width, 4 * width, rows - batch, true, false});
      all.push_back({batch, width, 4 * width, false, true, places - 1, true});
      continue;
    }
    add_linear(all, rows, width, 3 * width);
    add_linear(all, rows, width, width);
    add_linear(all, rows, width, 4 * width);
    add_linear(all, rows, 4 * width, width);
    const std::int64_t heads = batch * sizes.heads;
    const int part = width / static_cast<int>(sizes.heads);
    for (int twice = 0; twice < 2; ++twice) {
      all.push_back({places, places, part, false, true, heads, false, true});   // scores; the gradient of weights
      all.push_back({places, part, places, false, false, heads, false, true});  // attended; the gradient of queries
      all.push_back({places, part, places, true, false, heads, false, true});   // the gradients of values, of keys
    }
  }
  add_linear(all, rows, width, static_cast<int>(sizes.vocabulary));
  return all;
}

using Multiply = std::function<void(const float* a, const float* b, float* c, std::int64_t times)>;

Multiply by_openblas(const Group& g) {
  return [g](const float* a, const float* b, float* c, std::int64_t times) {
    for (std::int64_t i = 0; i < times; ++i)
      cblas_sgemm(CblasRowMajor, g.transpose_a ? CblasTrans : CblasNoTrans, g.transpose_b ? CblasTrans : CblasNoTrans,
                  g.m, g.n, g.k, 1, a + i * g.size_a(), g.lda(), b + (g.shares_b ? 0 : i * g.size_b()), g.ldb(), 0,
                  c + i * g.size_c(), g.n);
  };
}

#ifdef BENCH_OWN_PRODUCTS
Multiply by_own_code(const Group& g) {
  namespace products = chainrule::products;
  const products::Product p{.transpose_a = g.transpose_a,
                            .transpose_b = g.transpose_b,
                            .m = g.m,
                            .n = g.n,
                            .k = g.k,
                            .lda = g.lda(),
                            .ldb = g.ldb(),
                            .ldc = g.n};
  const auto set = chainrule::kernels::generated_set();
  if (!set) throw std::runtime_error("no products are generated on this machine");
  const auto scheme = std::make_shared<const products::Scheme>(p, chainrule::float32, *set);
  const auto workspace = std::make_shared<Buffer>(scheme->workspace() / sizeof(float) + 1);
  chainrule::detail::reserve_scratch(scheme->scratch());
  return [g, scheme, workspace](const float* a, const float* b, float* c, std::int64_t times) {
    const auto one = [&](std::size_t i, void* own) {
      const auto at = static_cast<std::int64_t>(i);
      scheme->run_alone(a + at * g.size_a(), b + (g.shares_b ? 0 : at * g.size_b()), c + at * g.size_c(),
                        own ? own : workspace->data());
    };
    if (g.at_once) return chainrule::detail::parallel_for(static_cast<std::size_t>(times), one);
    for (std::int64_t i = 0; i < times; ++i)
      scheme->run(a + i * g.size_a(), b + (g.shares_b ? 0 : i * g.size_b()), c + i * g.size_c(), workspace->data());
  };
}
#endif

Multiply multiply(const Group& group, bool own_code) {
#ifdef BENCH_OWN_PRODUCTS
  if (own_code) return by_own_code(group);
#endif
  if (own_code) throw std::runtime_error("the library generates no code here");
  return by_openblas(group);
}

class Products final : public Run {
 public:
  explicit Products(const Settings& settings) : settings_(settings), groups_(groups(settings.workload)) {
#ifdef BENCH_OWN_PRODUCTS
    chainrule::set_num_threads(settings.threads);
#endif
    for (const Group& g : groups_) {
      Operands of{Buffer(static_cast<std::size_t>(g.times * g.size_a())),
                  Buffer(static_cast<std::size_t>((g.shares_b ? 1 : g.times) * g.size_b())),
                  Buffer(static_cast<std::size_t>(g.times * g.size_c())), multiply(g, settings.own_products)};
      fill(of.a.data(), static_cast<std::int64_t>(of.a.size()), stream_x, 1);
      fill(of.b.data(), static_cast<std::int64_t>(of.b.size()), stream_y, 1);
      operands_.push_back(std::move(of));
    }
    std::int64_t size = 0;
    for (const auto& parameter : parameters(settings.workload)) size += parameter.size();
    for (Buffer* of : {&w_, &g_, &v_, &s_}) *of = Buffer(static_cast<std::size_t>(size));
  }

  double step() override {
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      Operands& of = operands_[i];
      // A batch is shared out where the products themselves are too small for that.
      if (groups_[i].at_once && !settings_.own_products) {
        parallel_for(groups_[i].times, settings_.threads, [&](std::int64_t begin, std::int64_t end, int) {
          const Group& g = groups_[i];
          of.run(of.a.data() + begin * g.size_a(), of.b.data() + begin * g.size_b(), of.c.data() + begin * g.size_c(),
                 end - begin);
        });
      } else {
        of.run(of.a.data(), of.b.data(), of.c.data(), groups_[i].times);
      }
    }
    ++steps_;
    parallel_for(static_cast<std::int64_t>(w_.size()), settings_.threads,
                 [&](std::int64_t begin, std::int64_t end, int) {
                   if (settings_.workload == "W9") {
                     adam(w_.data(), v_.data(), s_.data(), g_.data(), begin, end, steps_);
                   } else {
                     descent(w_.data(), g_.data(), begin, end);
                   }
                 });
    return operands_.back().c[0];
  }

  void gradients(Sink& /*sink*/) override { throw std::logic_error("a limit of bare products has no results"); }
  void weights(Sink& /*sink*/) override { throw std::logic_error("a limit of bare products has no results"); }

 private:
  struct Operands {
    Buffer a, b, c;
    Multiply run;
  };

  Settings settings_;
  std::vector<Group> groups_;
  std::vector<Operands> operands_;
  Buffer w_, g_, v_, s_;
  int steps_ = 0;
};

}  // namespace

std::unique_ptr<Run> bare_products_of_text(const Settings& settings) { return std::make_unique<Products>(settings); }

}  // namespace bench
