// A fused group that follows a product block by block of its rows.
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/kernels/machine_code.hpp>

#include "catch.hpp"

namespace cr = chainrule;

namespace {

cr::Array numbers(cr::DType dtype, const cr::Dims& shape, double scale) {
  cr::Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) {
    const double x = scale * (static_cast<double>((i * 7919) % 2003) / 1001 - 1);
    if (dtype == cr::float32) {
      out.data<float>()[i] = static_cast<float>(x);
    } else {
      out.data<double>()[i] = x;
    }
  }
  return out;
}

struct Threads {
  explicit Threads(int n) { cr::set_num_threads(n); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;
  ~Threads() { cr::set_num_threads(before); }
  int before = cr::num_threads();
};

// Where products are generated code.
bool can_ride() { return cr::kernels::generated_set().has_value(); }

bool rides(const cr::Program& program) { return program.explain().find("matmul with fused") != std::string::npos; }

// What three runs of a request leave: the outputs of the last, and all variables.
struct Left {
  std::vector<cr::Array> arrays;
  bool rode = false;
};

struct Model {
  cr::Graph graph;
  cr::Values inputs;
  std::vector<cr::Array> feeds;
  cr::Values outputs;
  cr::Values products;  // which, as outputs too, are not ridden on
  cr::Updates updates;
};

Left run(const Model& model, bool with_products, int threads) {
  const Threads scope(threads);
  cr::State state(model.graph);
  std::uint32_t stream = 1;
  for (const cr::Value& p : model.graph.parameters())
    state.set(p, numbers(p.dtype(), state[p].shape(), 0.5 / static_cast<double>(++stream)));
  cr::Request request{.outputs = model.outputs, .updates = model.updates};
  if (with_products) request.outputs.insert(request.outputs.end(), model.products.begin(), model.products.end());
  cr::Program program(state, request);
  std::vector<cr::Feed> feeds;
  for (std::size_t i = 0; i < model.inputs.size(); ++i) feeds.emplace_back(model.inputs[i], model.feeds[i]);
  Left left;
  for (int step = 0; step < 3; ++step) {
    const auto results = program.run(feeds);
    if (step < 2) continue;
    for (std::size_t i = 0; i < model.outputs.size(); ++i) left.arrays.push_back(results[i]);
  }
  left.rode = rides(program);
  for (const cr::Value& p : model.graph.parameters()) left.arrays.push_back(state[p]);
  return left;
}

// With every number of threads what a program computes that keeps the products, and so cannot do it.
void check(const Model& model) {
  const Left expected = run(model, true, 1);
  CHECK_FALSE(expected.rode);
  for (const int threads : {1, 2, 3, 16, 64}) {
    INFO(threads << " threads");
    const Left left = run(model, false, threads);
    CHECK(left.rode == can_ride());
    REQUIRE(left.arrays.size() == expected.arrays.size());
    for (std::size_t i = 0; i < left.arrays.size(); ++i) CHECK(left.arrays[i].identical(expected.arrays[i]));
  }
}

}  // namespace

TEST_CASE("a weight's update follows its gradient") {
  const cr::DType dtype = GENERATE(cr::float32, cr::float64);
  const bool adam = GENERATE(false, true);
  // 391 = 12 blocks of 32 and one of 7, or the like.
  const std::int64_t rows = GENERATE(256, 391);
  Model model{cr::Graph({.dtype = dtype}), {}, {}, {}, {}, {}};
  const auto x = model.graph.input("x", {96, rows});
  const auto y = model.graph.input("y", {96, 272});
  const auto w = model.graph.parameter("w", cr::zeros({rows, 272}));
  const auto loss = cr::mean_squared_error(cr::matmul(x, w), y) + 1e-3 * cr::l2({w});
  model.inputs = {x, y};
  model.feeds = {numbers(dtype, {96, rows}, 1), numbers(dtype, {96, 272}, 2)};
  model.outputs = {loss};
  model.updates = adam ? cr::optim::Adam{.learning_rate = 0.01}.minimize(loss)
                       : cr::optim::HeavyBall{.learning_rate = 0.01, .momentum = 0.9}.minimize(loss);
  const Left one = run(model, false, 1);
  CHECK(one.rode == can_ride());
  for (const int threads : {2, 3, 16, 64}) {
    INFO(threads << " threads");
    const Left left = run(model, false, threads);
    CHECK(left.rode == can_ride());
    for (std::size_t i = 0; i < left.arrays.size(); ++i) CHECK(left.arrays[i].identical(one.arrays[i]));
  }
}

TEST_CASE("what follows a product has the bits that it has after the whole product") {
  const cr::DType dtype = GENERATE(cr::float32, cr::float64);
  const int transposes = GENERATE(0, 1, 2, 3);
  const std::int64_t m = GENERATE(200, 333);
  constexpr std::int64_t n = 330;
  constexpr std::int64_t k = 70;
  Model model{cr::Graph({.dtype = dtype}), {}, {}, {}, {}, {}};
  const cr::Dims left = (transposes & 1) != 0 ? cr::Dims{k, m} : cr::Dims{m, k};
  const cr::Dims right = (transposes & 2) != 0 ? cr::Dims{n, k} : cr::Dims{k, n};
  const auto a = model.graph.input("a", {left[0], left[1]});
  const auto b = model.graph.input("b", {right[0], right[1]});
  const auto row = model.graph.input("row", {n});
  const auto column = model.graph.input("column", {m, 1});
  const auto product =
      cr::matmul((transposes & 1) != 0 ? cr::transpose(a) : a, (transposes & 2) != 0 ? cr::transpose(b) : b);
  model.inputs = {a, b, row, column};
  model.feeds = {numbers(dtype, left, 1), numbers(dtype, right, 1), numbers(dtype, {n}, 1), numbers(dtype, {m, 1}, 1)};
  model.products = {product};
  const std::string kind = GENERATE("elementwise", "broadcast", "columns", "rows", "all");
  INFO(kind);
  const auto y = cr::relu(kind == "elementwise" ? product * 3.0 : product * column + row);
  if (kind == "columns") {
    model.outputs = {y, cr::sum(y, {0})};
  } else if (kind == "rows") {
    model.outputs = {cr::sum(y, {1})};
  } else if (kind == "all") {
    model.outputs = {cr::sum(y)};
  } else {
    model.outputs = {y};
  }
  check(model);
}

TEST_CASE("a group does not overwrite what the product behind it has yet to read") {
  const cr::DType dtype = GENERATE(cr::float32, cr::float64);
  Model model{cr::Graph({.dtype = dtype}), {}, {}, {}, {}, {}};
  const auto a = model.graph.input("a", {256, 256});
  const auto w = model.graph.parameter("w", cr::zeros({256, 256}));
  const auto product = cr::matmul(a, w);
  model.inputs = {a};
  model.feeds = {numbers(dtype, {256, 256}, 0.1)};
  model.products = {product};
  model.outputs = {cr::sum(w)};
  model.updates = {{w, w - 0.1 * cr::relu(product)}};
  check(model);
}
