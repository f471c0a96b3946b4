#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/fused/generate.hpp>
#include <chainrule/framework/plan/plan.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using detail::Buffer;

namespace {

// Whether some step finds two buffers in use that share a byte.
bool any_overlap(const std::vector<Buffer>& buffers) {
  std::vector<const Buffer*> order;
  for (const Buffer& b : buffers)
    if (b.bytes > 0) order.push_back(&b);
  std::sort(order.begin(), order.end(), [](const Buffer* a, const Buffer* b) { return a->offset < b->offset; });
  for (std::size_t i = 0; i < order.size(); ++i)
    for (std::size_t k = i + 1; k < order.size() && order[k]->offset < order[i]->offset + order[i]->bytes; ++k)
      if (order[i]->first <= order[k]->last && order[k]->first <= order[i]->last) return true;
  return false;
}

std::size_t end_of(const std::vector<Buffer>& buffers) {
  std::size_t end = 0;
  for (const Buffer& b : buffers) end = std::max(end, b.offset + b.bytes);
  return end;
}

// The bytes in use in each step, added up one by one.
std::size_t busiest(const std::vector<Buffer>& buffers) {
  std::size_t steps = 0;
  for (const Buffer& b : buffers) steps = std::max(steps, b.last + 1);
  std::vector<std::size_t> use(steps, 0);
  for (const Buffer& b : buffers)
    for (std::size_t s = b.first; s <= b.last; ++s) use[s] += b.bytes;
  return use.empty() ? 0 : *std::max_element(use.begin(), use.end());
}

std::vector<std::string> lines_with(const std::string& text, const std::string& start) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (line.rfind(start, 0) == 0) out.push_back(line);
  return out;
}

// The plan of the last sizes, as explain() prints it.
std::string last_plan(const Program& program) {
  const std::string text = program.explain();
  const auto at = text.rfind("plan for ");
  return at == std::string::npos ? "" : text.substr(at);
}

Array random(const Dims& shape, std::uint64_t seed) { return uniform(to_shape(shape), -1, 1).draw(float64, seed, 0); }

Array labels_of(std::int64_t n, std::int64_t classes) {
  Array out(int64, {n});
  for (std::int64_t i = 0; i < n; ++i) out.set(i, static_cast<double>(i % classes));
  return out;
}

}  // namespace

// ---- the arena

TEST_CASE("buffers in use at the same time lie apart") {
  std::mt19937 random_bits(7);
  const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_bits); };
  for (int trial = 0; trial < 300; ++trial) {
    // Many lives, few or many at once, of equal and of very different sizes.
    const std::size_t count = trial % 50 == 49 ? 4000 : 1 + below(120);
    const std::size_t steps = 1 + below(2 * count);
    const std::size_t longest = 1 + below(steps);
    const std::size_t sizes = 1 + below(trial % 2 == 0 ? 4 : 5000);
    std::vector<Buffer> buffers;
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t first = below(steps);
      buffers.push_back({64 * (1 + below(sizes)), first, first + below(longest), 0});
    }
    const std::vector<Buffer> asked = buffers;
    const std::size_t arena = detail::place_buffers(buffers);
    REQUIRE(buffers.size() == asked.size());
    for (std::size_t i = 0; i < count; ++i) {
      REQUIRE(buffers[i].bytes == asked[i].bytes);
      REQUIRE(buffers[i].first == asked[i].first);
      REQUIRE(buffers[i].last == asked[i].last);
      REQUIRE(buffers[i].offset % 64 == 0);
    }
    REQUIRE_FALSE(any_overlap(buffers));
    REQUIRE(arena == end_of(buffers));
    REQUIRE(detail::largest_overlap(buffers) == busiest(buffers));
    REQUIRE(arena >= detail::largest_overlap(buffers));
    // Lives and sizes at random are harder than a network's, where there are thousands.
    REQUIRE(static_cast<double>(arena) <=
            (count <= 120 ? 1.08 : 1.12) * static_cast<double>(detail::largest_overlap(buffers)));
    std::size_t all = 0;
    for (const Buffer& b : buffers) all += b.bytes;
    REQUIRE(arena <= all);
  }
}

TEST_CASE("an arena for none, one, and a chain of buffers") {
  std::vector<Buffer> none;
  CHECK(detail::place_buffers(none) == 0);
  CHECK(detail::largest_overlap(none) == 0);
  std::vector<Buffer> one = {{128, 3, 3, 0}};
  CHECK(detail::place_buffers(one) == 128);
  CHECK(one[0].offset == 0);
  // Each is read by the next one's step: two at a time.
  std::vector<Buffer> chain;
  for (std::size_t i = 0; i < 20; ++i) chain.push_back({64, i, i + 1, 0});
  CHECK(detail::place_buffers(chain) == 128);
  CHECK(detail::largest_overlap(chain) == 128);
}

namespace {

struct Network {
  std::vector<std::size_t> units;
  bool batch_norm = false;
  double keep = 1;
  DType dtype = float64;
};

struct Built {
  Graph graph;
  Value x, labels, loss;
};

Built build(const Network& network) {
  Graph graph({.dtype = network.dtype});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 20});
  const auto labels = graph.input("labels", {batch}, int64);
  auto h = x;
  for (const std::size_t units : network.units) {
    h = nn::dense(h, units);
    if (network.batch_norm) h = nn::batch_norm(h);
    h = relu(h);
    if (network.keep < 1) h = dropout(h, {.keep = network.keep});
  }
  const auto loss = softmax_cross_entropy(nn::dense(h, 10), labels);
  return {graph, x, labels, loss};
}

}  // namespace

TEST_CASE("the arena of a network is within 1.05 of its lower bound") {
  const auto network = GENERATE(Network{{5, 2}}, Network{{64}}, Network{{64, 64, 64}, false, 1, float32},
                                Network{{512, 256, 128, 64}, false, 0.5}, Network{{30, 40, 50}, true},
                                Network{{100, 100}, true, 0.8, float32}, Network{{256, 128, 64, 32, 16, 8}, true, 0.9},
                                Network{{8, 16, 32, 64, 128, 256}, true, 0.9, float32});
  const Built built = build(network);
  State state(built.graph);
  const auto optimizer = GENERATE(0, 1, 2);
  const Updates updates = optimizer == 0   ? optim::GradientDescent{}.minimize(built.loss)
                          : optimizer == 1 ? optim::Momentum{}.minimize(built.loss)
                                           : optim::Adam{}.minimize(built.loss);
  Program train(state, {.outputs = {built.loss}, .updates = updates});
  Program predict(state, {.outputs = {built.loss}, .mode = Mode::inference});
  for (const std::int64_t m : {64, 7, 1, 300}) {
    const Array x = random({m, 20}, 1).astype(network.dtype);
    for (Program* program : {&train, &predict}) {
      program->run({{built.x, x}, {built.labels, labels_of(m, 10)}});
      const auto memory = program->memory();
      CHECK(memory.lower_bound > 0);
      CHECK(memory.arena_bytes >= memory.lower_bound);
      CHECK(static_cast<double>(memory.arena_bytes) <= 1.05 * static_cast<double>(memory.lower_bound));
    }
  }
}

TEST_CASE("the arenas of random networks are within 1.05 of their lower bounds") {
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random_bits(seed);
    const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_bits); };
    const std::size_t layers = seed % 20 == 19 ? 150 : 1 + below(14);
    const std::size_t widths = below(3);
    const bool batch_norm = below(2) == 0;
    const bool drop = below(2) == 0;
    Graph graph({.dtype = below(2) == 0 ? float32 : float64});
    const auto batch = graph.dimension("batch");
    const auto x = graph.input("x", {batch, 20});
    const auto labels = graph.input("labels", {batch}, int64);
    Values earlier;
    Value h = x;
    for (std::size_t i = 0; i < layers; ++i) {
      h = nn::dense(h, widths == 0 ? 64 : widths == 1 ? std::size_t{8} << below(6) : 1 + below(300));
      if (batch_norm) h = nn::batch_norm(h);
      h = below(2) == 0 ? relu(h) : tanh(h);
      if (drop) h = dropout(h, {.keep = 0.8});
      if (earlier.empty()) {
      } else if (const Value skipped = earlier[earlier.size() - 1 - below(std::min<std::size_t>(8, earlier.size()))];
                 skipped.shape() == h.shape()) {
        h = h + skipped;
      } else if (below(4) == 0) {
        h = concat({h, skipped}, 1);
      }
      earlier.push_back(h);
    }
    const Value loss = softmax_cross_entropy(nn::dense(h, 10), labels);
    State state(graph);
    Program look(state, {.outputs = {loss}});
    Program slopes(state, {.outputs = gradients(loss, graph.parameters())});
    Program train(state,
                  {.outputs = {loss},
                   .updates = seed % 2 == 0 ? optim::GradientDescent{}.minimize(loss) : optim::Adam{}.minimize(loss)});
    for (const std::int64_t m : {64, 7})
      for (Program* program : {&look, &slopes, &train}) {
        program->run({{x, random({m, 20}, 1).astype(graph.dtype())}, {labels, labels_of(m, 10)}});
        const auto memory = program->memory();
        CHECK(static_cast<double>(memory.arena_bytes) <= 1.05 * static_cast<double>(memory.lower_bound));
      }
  }
}

// ---- the order of steps

TEST_CASE("a recurrent network whose inputs are all projected first needs no more memory than step by step") {
  const auto build = [](bool first) {
    Graph graph({.seed = 2});
    const auto wx = graph.parameter("wx", uniform({20, 64}, -0.2, 0.2));
    const auto wh = graph.parameter("wh", uniform({64, 64}, -0.2, 0.2));
    Values inputs;
    Values projected;
    for (int t = 0; t < 30; ++t) inputs.push_back(graph.input("x" + std::to_string(t), {32, 20}));
    for (int t = 0; first && t < 30; ++t) projected.push_back(matmul(inputs[static_cast<std::size_t>(t)], wx));
    auto h = graph.constant(Array(float64, {32, 64}));
    for (std::size_t t = 0; t < 30; ++t) h = tanh((first ? projected[t] : matmul(inputs[t], wx)) + matmul(h, wh));
    return std::pair(graph, mean(square(h)));
  };
  const auto run = [&](bool first, bool train) {
    const auto [graph, loss] = build(first);
    State state(graph);
    Request request{.outputs = {loss}};
    if (train) request.updates = optim::GradientDescent{}.minimize(loss);
    Program program(state, request);
    std::vector<Feed> feeds;
    for (const Value x : program.inputs()) feeds.emplace_back(x, random({32, 20}, x.id()));
    program.run(feeds);
    return program.memory();
  };
  const auto early = run(true, false);
  const auto late = run(false, false);
  CHECK(early.lower_bound <= late.lower_bound);
  CHECK(early.arena_bytes <= 4 * 32 * 64 * sizeof(double));
  CHECK(static_cast<double>(run(true, true).lower_bound) <= 1.02 * static_cast<double>(run(false, true).lower_bound));
}

// ---- gradients of slices

TEST_CASE("the gradients of all slices of an array take the memory of one array") {
  const auto symbolic = GENERATE(false, true);
  for (const std::int64_t steps : {25, 50, 100, 200}) {
    INFO(steps << " slices");
    Graph graph;
    const std::int64_t batch = 8;
    const std::int64_t units = 16;
    const Dimension rows = symbolic ? graph.dimension("batch") : Dimension(batch);
    const auto x = graph.input("x", {rows, steps, units});
    const auto w = graph.parameter("w", normal({units, units}));
    const auto h = matmul(x, w);
    auto s = graph.input("s", {rows, units});
    for (std::int64_t t = 0; t < steps; ++t) s = tanh(s + reshape(slice(h, 1, {t, t + 1}), {rows, units}));
    State state(graph);
    Program program(state, {.outputs = gradients(sum(s), {w})});
    program.run({{x, random({batch, steps, units}, 1)}, {"s", random({batch, units}, 2)}});
    const auto array = static_cast<std::size_t>(batch * steps * units) * sizeof(double);
    CHECK(program.memory().arena_bytes < 5 * array / 2);  // what the forward pass keeps, and the gradient
    CHECK(program.memory().steps < 5 * static_cast<std::size_t>(steps));
  }
}

TEST_CASE(
    "second derivatives through slices, and slices of what is laid out anew for each, take memory in proportion") {
  const auto arena = [](std::int64_t steps, int kind) {
    Graph graph;
    const std::int64_t batch = 8;
    const std::int64_t units = 16;
    const auto h = graph.parameter("h", uniform({batch, steps, units}, -1, 1));
    Value loss = graph.constant(0.0, float64);
    for (std::int64_t t = 0; t < steps; ++t) {
      const Value part = kind == 0   ? slice(h, 1, {t, t + 1})
                         : kind == 1 ? slice(transpose(h, {1, 0, 2}), 0, {t, t + 1})
                         : kind == 2 ? slice(reshape(h, {batch, steps * units}), 1, {t * units, t * units + units})
                                     : slice(slice(h, 1, {t, t + 1}), 2, {1, 5});
      loss = loss + sum(tanh(part) * static_cast<double>(t));
    }
    const auto v = graph.input("v", {batch, steps, units});
    const Values wanted = kind == 0 ? hvp(loss, {h}, {v}) : gradients(loss, {h});
    State state(graph);
    Program program(state, {.outputs = wanted});
    const Array got = program.run({{v, random({batch, steps, units}, 3)}})[0];
    const Array hs = state[h];
    const Array vs = random({batch, steps, units}, 3);
    for (std::int64_t i = 0; i < got.size(); ++i) {
      const std::int64_t t = i / units % steps;
      const double y = std::tanh(hs[i]);
      const bool read = kind != 3 || (i % units >= 1 && i % units < 5);
      const double expected = !read       ? 0
                              : kind == 0 ? static_cast<double>(t) * -2 * y * (1 - y * y) * vs[i]
                                          : static_cast<double>(t) * (1 - y * y);
      REQUIRE(got[i] == Approx(expected).epsilon(1e-10).margin(1e-12));
    }
    return program.memory().arena_bytes;
  };
  for (const int kind : {0, 1, 2, 3}) {
    INFO("kind " << kind);
    const std::size_t array = 8 * 16 * sizeof(double);
    CHECK(arena(20, kind) < 20 * array * 7 / 2);
    CHECK(arena(160, kind) < 160 * array * 7 / 2);
  }
}

TEST_CASE("the gradient of slices that are known before any run") {
  // d/dx of what is linear in x: made once, and in one place as well.
  Graph graph;
  const auto x = graph.parameter("x", ones({100, 64}));
  Value loss = graph.constant(0.0, float64);
  for (std::int64_t t = 0; t < 100; ++t) loss = loss + sum(slice(x, 0, {t, t + 1})) * static_cast<double>(t);
  State state(graph);
  Program program(state, {.outputs = gradients(loss, {x})});
  const Array got = program.run()[0];
  for (std::int64_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == static_cast<double>(i / 64));
  CHECK(program.memory().arena_bytes < std::size_t{3} * 100 * 64 * sizeof(double));
}

TEST_CASE("overlapping, strided and partial slices, mixed with what else reads the array") {
  const std::int64_t n = 12;
  const std::int64_t m = 3;
  Graph graph;
  const auto symbolic = GENERATE(false, true);
  const auto x = graph.input("x", {symbolic ? graph.dimension("n") : Dimension(n), m});
  // sum of (i + 1) x_i^3 over some rows i, as many times as they are listed.
  std::vector<std::vector<std::int64_t>> rows;
  Values parts;
  const auto add_rows = [&](Value part, const std::vector<std::int64_t>& listed) {
    parts.push_back(part);
    rows.push_back(listed);
  };
  add_rows(slice(x, 0, {1, {}}), {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  add_rows(slice(x, 0, {{}, -2}), {0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
  add_rows(x, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  if (!symbolic) {
    add_rows(slice(x, 0, {.step = 3}), {0, 3, 6, 9});
    add_rows(slice(x, 0, {.start = 10, .stop = 2, .step = -2}), {10, 8, 6, 4});
    add_rows(slice(x, 0, {5, 5}), {});
    add_rows(slice(slice(x, 0, {2, 9}), 0, {.step = -1}), {8, 7, 6, 5, 4, 3, 2});
  }
  Value loss = graph.constant(0.0, float64);
  std::vector<double> factor(static_cast<std::size_t>(n), 0);
  for (std::size_t p = 0; p < parts.size(); ++p) {
    loss = loss + sum(parts[p] * parts[p] * parts[p]) * static_cast<double>(p + 1);
    for (const std::int64_t i : rows[p]) factor[static_cast<std::size_t>(i)] += static_cast<double>(p + 1);
  }
  const auto d = gradients(loss, {x})[0];
  const auto v = graph.input("v", x.shape());
  const auto second = hvp(loss, {x}, {v})[0];
  const auto third = gradients(sum(second * second), {x})[0];
  State state(graph);
  Program program(state, {.outputs = {d, second, third}});
  const Array xs = random({n, m}, 3);
  const Array vs = random({n, m}, 4);
  const Results got = program.run({{x, xs}, {v, vs}});
  for (std::int64_t i = 0; i < n * m; ++i) {
    const double f = factor[static_cast<std::size_t>(i / m)];
    REQUIRE(got[0][i] == Approx(3 * f * xs[i] * xs[i]).epsilon(1e-13));
    REQUIRE(got[1][i] == Approx(6 * f * xs[i] * vs[i]).epsilon(1e-13));
    REQUIRE(got[2][i] == Approx(72 * f * f * xs[i] * vs[i] * vs[i]).epsilon(1e-13));
  }
}

TEST_CASE("what a slice's gradient is added to is not overwritten where it is read again") {
  // dy goes on to x and y unchanged; x has a slice's gradient besides.
  Graph graph;
  const auto x = graph.variable("x", Array({1.0, 2.0, 3.0, 4.0}));
  const auto y = graph.variable("y", Array({5.0, 6.0, 7.0, 8.0}));
  const auto total = x + y;
  const auto loss = sum(total * total) / 2.0 + sum(slice(x, 0, {1, 3}) * 10.0);
  const auto d = gradients(loss, {x, y, total});
  State state(graph);
  Program program(state, {.outputs = {d[1], d[0], d[2]}, .updates = {{x, d[0]}, {y, y + slice(x, 0, {.step = -1})}}});
  const Results got = program.run();
  CHECK(got[0].identical(Array({6.0, 8.0, 10.0, 12.0})));
  CHECK(got[1].identical(Array({6.0, 18.0, 20.0, 12.0})));
  CHECK(got[2].identical(Array({6.0, 8.0, 10.0, 12.0})));
  CHECK(state[x].identical(Array({6.0, 18.0, 20.0, 12.0})));
  CHECK(state[y].identical(Array({9.0, 9.0, 9.0, 9.0})));
}

// ---- products of a batch

TEST_CASE("a weight that every matrix of a batch meets: one product, and one for its gradient") {
  const auto symbolic = GENERATE(false, true);
  const auto transposed = GENERATE(false, true);
  struct Case {
    Dims x;
    Dims w;
  };
  for (const Case& of : {Case{{6, 4, 5}, {5, 3}}, Case{{6, 1, 5}, {5, 3}}, Case{{2, 3, 4, 5}, {5, 3}},
                         Case{{2, 3, 4, 5}, {1, 5, 3}}, Case{{2, 3, 4, 5}, {2, 1, 5, 3}}, Case{{2, 3, 4, 5}, {3, 5, 3}},
                         Case{{3, 4, 5}, {2, 1, 5, 3}}, Case{{1, 4, 5}, {2, 5, 3}}, Case{{6, 0, 5}, {5, 3}}}) {
    INFO(to_string(of.x) << " x " << to_string(of.w));
    Graph graph;
    Shape shape = to_shape(of.x);
    if (symbolic && of.x[0] == 6) shape[0] = graph.dimension("batch");
    if (symbolic && of.x[0] == 6 && of.x[1] > 0) shape[1] = graph.dimension("time");
    Dims stored = of.w;
    if (transposed) std::swap(stored[stored.rank() - 1], stored[stored.rank() - 2]);
    const auto x = graph.input("x", shape);
    const auto w = graph.parameter("w", uniform(to_shape(stored), -1, 1));
    Axes swap;
    for (std::size_t i = 0; i < stored.rank(); ++i) swap.push_back(static_cast<std::int64_t>(i));
    std::swap(swap[swap.size() - 1], swap[swap.size() - 2]);
    const auto y = matmul(x, transposed ? transpose(w, swap) : w);
    const auto d = gradients(sum(y * y) / 2.0, {x, w});
    State state(graph);
    Program program(state, {.outputs = {y, d[0], d[1]}});
    const Array xs = random(of.x, 7);
    const Results got = program.run({{x, xs}});
    // By loops over every element of the batch.
    Dims batch;
    for (std::size_t i = 0; i + 2 < y.rank(); ++i) batch.push_back(got[0].shape()[i]);
    const auto starts = [&](const Dims& operand, std::int64_t at) {
      Dims own;
      for (std::size_t i = 0; i + 2 < operand.rank(); ++i) own.push_back(operand[i]);
      const Dims strides = broadcast_strides(own, batch);
      std::int64_t start = 0;
      for (std::size_t axis = batch.rank(); axis-- > 0; at /= batch[axis]) start += at % batch[axis] * strides[axis];
      return start * operand[operand.rank() - 1] * operand[operand.rank() - 2];
    };
    const std::int64_t rows = of.x[of.x.rank() - 2];
    const auto weight = [&](std::int64_t start, std::int64_t k, std::int64_t j) {
      return start + (transposed ? j * 5 + k : k * 3 + j);
    };
    const Array flat = state[w];
    std::vector<double> dx(static_cast<std::size_t>(xs.size()), 0);
    std::vector<double> dw(static_cast<std::size_t>(flat.size()), 0);
    for (std::int64_t b = 0; b < count(batch); ++b)
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < 3; ++j) {
          const std::int64_t from_x = starts(of.x, b) + i * 5;
          const std::int64_t from_w = starts(of.w, b);
          double sum = 0;
          for (std::int64_t k = 0; k < 5; ++k) sum += xs[from_x + k] * flat[weight(from_w, k, j)];
          REQUIRE(got[0][(b * rows + i) * 3 + j] == Approx(sum).epsilon(1e-12).margin(1e-13));
          for (std::int64_t k = 0; k < 5; ++k) {
            dx[static_cast<std::size_t>(from_x + k)] += sum * flat[weight(from_w, k, j)];
            dw[static_cast<std::size_t>(weight(from_w, k, j))] += sum * xs[from_x + k];
          }
        }
    for (std::size_t i = 0; i < dx.size(); ++i)
      REQUIRE(got[1][static_cast<std::int64_t>(i)] == Approx(dx[i]).epsilon(1e-12).margin(1e-13));
    for (std::size_t i = 0; i < dw.size(); ++i)
      REQUIRE(got[2][static_cast<std::int64_t>(i)] == Approx(dw[i]).epsilon(1e-12).margin(1e-13));
  }
}

TEST_CASE("a weight's gradient needs no memory for each matrix of a batch") {
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("batch"), 2, 8});
  const auto w = graph.parameter("w", uniform({8, 128}, -1, 1));
  const auto loss = sum(square(matmul(x, w)));
  State state(graph);
  Program program(state, {.outputs = gradients(loss, {w})});
  program.run({{x, random({64, 2, 8}, 1)}});
  CHECK(program.memory().arena_bytes < 65 * 2 * 128 * sizeof(double));  // the product, not 64 gradients of 8 x 128
  CHECK(lines_with(last_plan(program), "step").size() == 3);            // two products and what is between them
}

TEST_CASE("branches that are built side by side run one after the other") {
  Graph graph;
  const auto x = graph.input("x", {64, 32});
  Values queries, keys, values, weights, out;
  const auto weight = [&] { return graph.parameter(graph.unique_name("w"), uniform({32, 8}, -1, 1)); };
  for (int head = 0; head < 8; ++head) {
    queries.push_back(matmul(x, weight()));
    keys.push_back(matmul(x, weight()));
    values.push_back(matmul(x, weight()));
  }
  for (std::size_t i = 0; i < 8; ++i) weights.push_back(softmax(matmul(queries[i], transpose(keys[i]))));
  for (std::size_t i = 0; i < 8; ++i) out.push_back(matmul(weights[i], values[i]));
  State state(graph);
  Program program(state, {.outputs = {concat(out, 1)}});
  program.run({{x, random({64, 32}, 1)}});
  // One head's scores, twice where softmax does not overwrite them, and what the eight leave.
  const std::size_t scores = 64 * 64 * sizeof(double);
  CHECK(program.memory().lower_bound <= 2 * scores + 12 * 64 * 8 * sizeof(double));
  CHECK(program.memory().lower_bound >= scores);
}

TEST_CASE("parameters and slots are updated in place, without copies") {
  const Built built = build({{30, 20}, true, 0.8});
  State state(built.graph);
  Program train(state, {.outputs = {built.loss}, .updates = optim::Adam{}.minimize(built.loss)});
  train.run({{built.x, random({16, 20}, 1)}, {built.labels, labels_of(16, 10)}});
  CHECK(lines_with(last_plan(train), "copy ").empty());
}

TEST_CASE("steps that are alike are made once, and those that are not are their own") {
  static int made = 0;
  static const Op& tripled = register_op({
      .name = "test_plan_tripled",
      .doc = "3 x.",
      .shape = same_shape,
      .forward =
          [] {
            Forward forward;
            forward.kernel = [](KernelCall& call) -> KernelRun {
              ++made;
              return [n = count(call.output.shape)](const KernelBuffers& b) {
                for (std::int64_t i = 0; i < n; ++i)
                  static_cast<double*>(b.output)[i] = 3 * static_cast<const double*>(b.inputs[0])[i];
              };
            };
            return forward;
          }(),
      .gradient = [](const Node&, Value dy) -> Values { return {3.0 * dy}; },
      .samples = {{.inputs = {uniform({2})}}},
  });
  Graph graph;
  const auto x = graph.input("x", {2, 2});
  const auto v = graph.input("v", {3});
  Values outputs;
  Value h = x;
  for (int layer = 0; layer < 5; ++layer) h = apply(tripled, {sin(h)}, {}, Location{"net.cpp", 1});
  outputs.push_back(h);
  outputs.push_back(apply(tripled, {v}, {}, Location{"net.cpp", 1}));
  // Each differs from the others in one thing: a number, an attribute, the order of operands, a shape, a dtype.
  for (const double number : {2.0, 3.0}) outputs.push_back(matmul(x, x - number));
  for (const double slope : {0.1, 0.2}) outputs.push_back(matmul(x, leaky_relu(x, slope)));
  outputs.push_back(matmul(x, transpose(x)));
  outputs.push_back(matmul(x, 2.0 - x));
  outputs.push_back(sum(matmul(x, x), {0}));
  outputs.push_back(sum(matmul(x, x), {1}));
  outputs.push_back(v - 2.0);
  outputs.push_back(cast(x, float32) - 2.0);
  State state(graph);
  Program program(state, {.outputs = outputs});
  const Array xs{{-1.0, 2.0}, {0.5, -3.0}};
  const Array vs{1.0, 2.0, 4.0};
  const auto results = program.run({{x, xs}, {v, vs}});
  CHECK(made == 2);  // for {2, 2} and for {3}
  // Each again in a program of its own, where no other step is like it.
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    Program alone(state, {.outputs = {outputs[i]}});
    Values needed = alone.inputs();
    CHECK(results[i].identical(needed[0] == x ? alone.run({{x, xs}})[0] : alone.run({{v, vs}})[0]));
  }
}

TEST_CASE("updates by products are made in place, from the values before the run") {
  const auto check = [](std::int64_t rows, std::int64_t columns, std::int64_t terms, DType dtype) {
    CAPTURE(rows, columns, terms, name(dtype));
    Graph graph({.dtype = dtype});
    const auto n = graph.dimension("n");
    const auto x = graph.input("x", {n, rows});
    const auto y = graph.input("y", {n, columns});
    const auto w = graph.parameter("w", uniform({rows, columns}, -1, 1));
    State state(graph);
    const auto gradient = matmul(transpose(x), y);
    Program train(state, {.outputs = {sum(matmul(x, w))}, .updates = {{w, w - 0.25 * gradient}}});
    Program product(state, {.outputs = {gradient, sum(matmul(x, w))}});
    const Array xs = uniform({terms, rows}, -1, 1).draw(dtype, 1, 0);
    const Array ys = uniform({terms, columns}, -1, 1).draw(dtype, 2, 0);
    for (int step = 0; step < 2; ++step) {
      const Array before = state[w];
      const auto wanted = product.run({{x, xs}, {y, ys}});
      const double loss = wanted.scalar(1);
      const Array after = before - wanted[0] * Array::full(dtype, Dims{}, 0.25);
      CHECK(train.run({{x, xs}, {y, ys}}).scalar(0) == loss);
      CHECK(allclose(state[w], after, dtype == float32 ? 1e-4 : 1e-12, dtype == float32 ? 1e-4 : 1e-12));
    }
    const std::string plan = last_plan(train);
    CHECK_THAT(plan, ContainsSubstring(": accumulate  "));
    CHECK(lines_with(plan, "copy").empty());
  };
  for (const DType dtype : {float32, float64}) {
    check(64, 64, 32, dtype);
    check(16, 67, 3, dtype);
    check(300, 260, 5, dtype);   // made beside and added
    check(520, 500, 70, dtype);  // in parts
  }
}

TEST_CASE("products are added to copies of what is still to be read") {
  Graph graph;
  const auto w = graph.parameter("w", uniform({64, 64}, -1, 1));
  const auto v = graph.parameter("v", uniform({64, 64}, -1, 1));
  State state(graph);
  const Array w0 = state[w];
  const Array v0 = state[v];
  const auto product = [](const Array& a, const Array& b) {
    Graph g;
    const auto x = g.input("x", {64, 64});
    const auto y = g.input("y", {64, 64});
    State s(g);
    return Array(Program(s, {.outputs = {matmul(x, y)}}).run({{x, a}, {y, b}})[0]);
  };
  SECTION("a variable that is an operand of the product") {
    Program(state, {.outputs = {}, .updates = {{w, w - matmul(w, v)}}}).run();
    CHECK(allclose(state[w], w0 - product(w0, v0), 1e-12, 1e-12));
  }
  SECTION("two that add to each other") {
    Program(state, {.outputs = {}, .updates = {{w, v + matmul(w, w)}, {v, w + matmul(v, v)}}}).run();
    CHECK(allclose(state[w], v0 + product(w0, w0), 1e-12, 1e-12));
    CHECK(allclose(state[v], w0 + product(v0, v0), 1e-12, 1e-12));
  }
  SECTION("two that each read the other") {
    Program(state, {.outputs = {}, .updates = {{w, w - matmul(v, v)}, {v, v - matmul(w, w)}}}).run();
    CHECK(allclose(state[w], w0 - product(v0, v0), 1e-12, 1e-12));
    CHECK(allclose(state[v], v0 - product(w0, w0), 1e-12, 1e-12));
  }
  SECTION("an output and no update") {
    const Array made = Program(state, {.outputs = {w - matmul(v, v), w}}).run()[0];
    CHECK(allclose(made, w0 - product(v0, v0), 1e-12, 1e-12));
    CHECK(state[w].identical(w0));
  }
  SECTION("an update that is an output too, and one whose old value is") {
    const auto next = w - matmul(v, v);
    Program program(state, {.outputs = {next, v}, .updates = {{w, next}, {v, v - matmul(w, w)}}});
    const auto results = program.run();
    CHECK(allclose(results[0], w0 - product(v0, v0), 1e-12, 1e-12));
    CHECK(results[1].identical(v0));
    CHECK(state[w].identical(results[0]));
    CHECK(allclose(state[v], v0 - product(w0, w0), 1e-12, 1e-12));
  }
  SECTION("sums of products, in one buffer") {
    Program program(state, {.outputs = {exp(0.01 * (matmul(w, v) + matmul(v, w) - matmul(w, w) + matmul(v, v)))}});
    const Array sum = product(w0, v0) + product(v0, w0) - product(w0, w0) + product(v0, v0);
    const Array made = program.run()[0];
    for (std::int64_t i = 0; i < made.size(); ++i) CHECK(std::abs(made[i] - std::exp(0.01 * sum[i])) < 1e-12);
    CHECK(program.memory().arena_bytes < std::size_t{2} * 64 * 64 * 8);
  }
}

TEST_CASE("explain() prints the plan") {
  const Built built = build({{30, 20}, true, 0.8});
  State state(built.graph);
  Program train(state, {.outputs = {built.loss}, .updates = optim::Adam{}.minimize(built.loss)});
  CHECK(last_plan(train).empty());  // the batch's size is not known yet
  CHECK_THAT(train.explain(), ContainsSubstring("after fuse_elementwise"));
  train.run({{built.x, random({16, 20}, 1)}, {built.labels, labels_of(16, 10)}});
  train.run({{built.x, random({5, 20}, 1)}, {built.labels, labels_of(5, 10)}});
  const std::string all = train.explain();
  CHECK_THAT(all, ContainsSubstring("plan for batch=16\n"));
  CHECK_THAT(all, ContainsSubstring("plan for batch=5\n"));
  const std::string plan = last_plan(train);
  const auto memory = train.memory();
  CHECK(lines_with(plan, "step ").size() == memory.steps);
  CHECK_FALSE(lines_with(plan, "step 0, once: extent").empty());  // the number of examples, known with the sizes
  CHECK_THAT(plan, ContainsSubstring(": fused "));
  CHECK_THAT(plan, ContainsSubstring(": matmul  float64 {5, 30}\n"));
  CHECK_THAT(plan, ContainsSubstring(" instructions, "));
  CHECK_THAT(plan, ContainsSubstring(" of up to "));
  CHECK_THAT(plan, ContainsSubstring("    reads x, dense/weight\n    writes ["));
  CHECK_THAT(plan, ContainsSubstring("    workspace ["));
  CHECK_THAT(plan, ContainsSubstring("output 0"));

  // What the lines say of the buffers holds together.
  std::vector<Buffer> buffers;
  for (const std::string& line : lines_with(plan, "buffer ")) {
    std::size_t number = 0;
    Buffer b;
    REQUIRE(std::sscanf(line.c_str(), "buffer %zu: %zu bytes at %zu, steps %zu to %zu", &number, &b.bytes, &b.offset,
                        &b.first, &b.last) == 5);
    CHECK(number == buffers.size());
    buffers.push_back(b);
  }
  CHECK(buffers.size() > 5);
  CHECK_FALSE(any_overlap(buffers));
  std::size_t arena = 0;
  std::size_t bound = 0;
  double ratio = 0;
  REQUIRE(lines_with(plan, "arena: ").size() == 1);
  REQUIRE(std::sscanf(lines_with(plan, "arena: ")[0].c_str(), "arena: %zu bytes, lower bound %zu bytes, ratio %lf",
                      &arena, &bound, &ratio) == 3);
  CHECK(arena == memory.arena_bytes);
  CHECK(arena == end_of(buffers));
  CHECK(bound == memory.lower_bound);
  CHECK(bound == busiest(buffers));
  CHECK(ratio == Approx(static_cast<double>(arena) / static_cast<double>(bound)).margin(0.0006));
}

TEST_CASE("explain() of fixed sizes needs no run") {
  Graph graph;
  const auto x = graph.input("x", {4, 3});
  const auto w = graph.parameter("w", ones({3, 2}));
  const auto v = graph.variable("v", zeros({4, 2}));
  const auto y = matmul(x, w);
  State state(graph);
  Program program(state, {.outputs = {relu(y + 1.0), y}, .updates = {{v, y}}});
  // Generated code keeps the sum in a register; otherwise it is a tile of the workspace.
  const std::string plan = last_plan(program);
  const bool generated = detail::can_generate();
  const auto code = plan.find(" bytes of generated code");
  REQUIRE((code != std::string::npos) == generated);
  const auto comma = plan.rfind(", ", code);
  const std::string bytes = generated ? "64" : "128";
  CHECK((generated ? std::string(plan).erase(comma, code + std::strlen(" bytes of generated code") - comma) : plan) ==
        "plan for fixed sizes\n"
        "step 0: matmul  float64 {4, 2}\n"
        "    reads x, w\n"
        "    writes output 1\n"
        "step 1: fused add relu  float64 {4, 2}\n"
        "    2 instructions, 1 tile of up to 8\n"
        "    reads output 1\n"
        "    writes output 0\n"
        "    workspace [0+" +
            bytes +
            "]\n"
            "copy output 1 to v, 64 bytes\n"
            "buffer 0: " +
            bytes +
            " bytes at 0, steps 1 to 1\n"
            "arena: " +
            bytes + " bytes, lower bound " + bytes + " bytes, ratio 1.000\n");
}

// ---- updates: simultaneous, though made in place

namespace {

struct Pair {
  Graph graph;
  Value a = graph.parameter("a", Array({{1.0, 2.0}, {3.0, 4.0}}));
  Value b = graph.parameter("b", Array({{10.0, 20.0}, {30.0, 40.0}}));
  State state{graph};
  Array old_a = state[a];
  Array old_b = state[b];
};

}  // namespace

TEST_CASE_METHOD(Pair, "two variables change places") {
  Program program(state, {.updates = {{a, b}, {b, a}}});
  program.run();
  CHECK(state[a].identical(old_b));
  CHECK(state[b].identical(old_a));
  program.run();
  CHECK(state[a].identical(old_a));
  CHECK(state[b].identical(old_b));
}

TEST_CASE_METHOD(Pair, "three variables go round, with outputs of their old values") {
  const Value c = graph.variable("c", Array({{-1.0, -2.0}, {-3.0, -4.0}}));
  Program program(state, {.outputs = {a, b, c, a + b}, .updates = {{a, b}, {b, c}, {c, a}}});
  const Array old_c = state[c];
  const Results results = program.run();
  CHECK(results[0].identical(old_a));
  CHECK(results[1].identical(old_b));
  CHECK(results[2].identical(old_c));
  CHECK(results[3].identical(old_a + old_b));
  CHECK(state[a].identical(old_b));
  CHECK(state[b].identical(old_c));
  CHECK(state[c].identical(old_a));
}

TEST_CASE_METHOD(Pair, "two variables change places by way of ops") {
  Program program(state, {.updates = {{a, b * 2.0}, {b, a + 1.0}}});
  program.run();
  CHECK(state[a].identical(old_b * 2.0));
  CHECK(state[b].identical(old_a + 1.0));
}

TEST_CASE_METHOD(Pair, "an update reads another updated variable as it was") {
  Program program(state, {.outputs = {a + 0.5, b}, .updates = {{a, a * 10.0}, {b, a + b}}});
  for (int i = 0; i < 3; ++i) {
    const Array before_a = state[a];
    const Array before_b = state[b];
    const Results results = program.run();
    CHECK(results[0].identical(before_a + 0.5));
    CHECK(results[1].identical(before_b));
    CHECK(state[a].identical(before_a * 10.0));
    CHECK(state[b].identical(before_a + before_b));
  }
}

TEST_CASE_METHOD(Pair, "an update that only some other step reads in another layout") {
  // b's new value reads a transposed and by a product; a's is made in place.
  Program program(state, {.outputs = {transpose(a), sum(a, 0)},
                          .updates = {{a, a - 1.0}, {b, matmul(a, transpose(a)) + transpose(a)}}});
  const Results results = program.run();
  CHECK(results[0].identical(old_a.transpose()));
  CHECK(results[1].identical(Array({4.0, 6.0})));
  CHECK(state[a].identical(old_a - 1.0));
  CHECK(state[b].identical(Array({{6.0, 14.0}, {13.0, 29.0}})));
}

TEST_CASE_METHOD(Pair, "an update that reads its own variable in another place than it writes") {
  Program program(state,
                  {.updates = {{a, a + sum(a, 0)}, {b, b + transpose(b) + reshape(reshape(b, {4}) * 2.0, {2, 2})}}});
  program.run();
  CHECK(state[a].identical(Array({{5.0, 8.0}, {7.0, 10.0}})));
  CHECK(state[b].identical(Array({{40.0, 90.0}, {110.0, 160.0}})));
}

TEST_CASE("an update that spreads its own variable") {
  // Every element is written from element 0 or 1 of what is overwritten.
  Graph graph;
  const auto v = graph.variable("v", Array({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}}));
  State state(graph);
  Program program(state, {.updates = {{v, v * 0.0 + slice(v, 0, {.start = 0, .stop = 1})}}});
  program.run();
  CHECK(state[v].identical(Array({{1.0, 2.0}, {1.0, 2.0}, {1.0, 2.0}})));
  // A square read as itself and as its flat reversal.
  const auto w = graph.variable("w", Array({1.0, 2.0, 3.0, 4.0}));
  Program reverse(state, {.updates = {{w, slice(w, 0, {.step = -1})}}});
  reverse.run();
  CHECK(state[w].identical(Array({4.0, 3.0, 2.0, 1.0})));
  Program both(state, {.updates = {{w, w + slice(w, 0, {.step = -1}) * 10.0}}});
  both.run();
  CHECK(state[w].identical(Array({14.0, 23.0, 32.0, 41.0})));
}

TEST_CASE_METHOD(Pair, "one expression for two variables, and for an output") {
  const auto both = a * b;
  SECTION("two variables") {
    Program program(state, {.updates = {{a, both}, {b, both}}});
    program.run();
    CHECK(state[a].identical(old_a * old_b));
    CHECK(state[b].identical(old_a * old_b));
  }
  SECTION("and an output of it") {
    Program program(state, {.outputs = {both, a}, .updates = {{b, both}, {a, both}}});
    const Results results = program.run();
    CHECK(results[0].identical(old_a * old_b));
    CHECK(results[1].identical(old_a));
    CHECK(state[a].identical(old_a * old_b));
    CHECK(state[b].identical(old_a * old_b));
  }
}

TEST_CASE_METHOD(Pair, "updates from inputs, constants and themselves") {
  const auto x = graph.input("x", {2, 2});
  const auto c = graph.constant(Array({{5.0, 6.0}, {7.0, 8.0}}));
  const auto e = graph.variable("e", zeros({2, 2}));
  const auto n = graph.variable("n", Array(std::int64_t{3}));
  const auto flag = graph.variable("flag", Array(false));
  Program program(state, {.outputs = {x, e}, .updates = {{a, x}, {b, c}, {e, e}, {n, n * 2 + 1}, {flag, n > 5}}});
  const Array fed({{0.5, 0.25}, {-1.0, 2.0}});
  const Results results = program.run({{x, fed}});
  CHECK(results[0].identical(fed));
  CHECK(results[1].identical(Array(float64, {2, 2})));
  CHECK(state[a].identical(fed));
  CHECK(state[b].identical(Array({{5.0, 6.0}, {7.0, 8.0}})));
  CHECK(state[e].identical(Array(float64, {2, 2})));
  CHECK(state[n].item() == 7);
  CHECK(state[flag].item() == 0);
  program.run({{x, fed}});
  CHECK(state[flag].item() == 1);
}

TEST_CASE_METHOD(Pair, "reshaped views of updated variables") {
  const auto flat = graph.variable("flat", zeros({4}));
  const auto column = graph.variable("column", zeros({4, 1}));
  Program program(state, {.outputs = {reshape(a, {4})},
                          .updates = {{flat, reshape(a, {4})},
                                      {column, reshape(a + b, {4, 1})},
                                      {a, reshape(flat, {2, 2})},
                                      {b, reshape(reshape(b, {4}) + flat, {2, 2})}}});
  for (int i = 0; i < 3; ++i) {
    const Array before_a = state[a];
    const Array before_b = state[b];
    const Array before_flat = state[flat];
    const Results results = program.run();
    CHECK(results[0].identical(before_a.reshape({4})));
    CHECK(state[flat].identical(before_a.reshape({4})));
    CHECK(state[column].identical((before_a + before_b).reshape({4, 1})));
    CHECK(state[a].identical(before_flat.reshape({2, 2})));
    CHECK(state[b].identical((before_b.reshape({4}) + before_flat).reshape({2, 2})));
  }
}

TEST_CASE("random updates are simultaneous") {
  // Expressions of five variables, an input and each other; what the updates leave is compared with what a program
  // without updates says that the expressions are.
  for (std::uint32_t seed = 0; seed < 400; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random_bits(seed);
    const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_bits); };
    Graph graph({.seed = seed});
    const auto x = graph.input("x", {3, 3});
    Values variables;
    for (int i = 0; i < 5; ++i)
      variables.push_back(graph.variable(std::string(1, static_cast<char>('a' + i)), uniform({3, 3}, -1, 1)));
    Values pool = variables;
    pool.push_back(x);
    const auto any = [&] { return pool[below(pool.size())]; };
    const std::size_t nodes = below(14);
    for (std::size_t i = 0; i < nodes; ++i) {
      const Value p = any();
      const Value q = any();
      switch (below(9)) {
        case 0: pool.push_back(p + q); break;
        case 1: pool.push_back(p * q); break;
        case 2: pool.push_back(tanh(p - q)); break;
        case 3: pool.push_back(transpose(p)); break;
        case 4: pool.push_back(matmul(p, q)); break;
        case 5: pool.push_back(p * sum(q, 0)); break;
        case 6: pool.push_back(reshape(reshape(p, {9}) - reshape(transpose(q), {9}), {3, 3})); break;
        case 7: pool.push_back(slice(p, 0, {.step = -1}) + q); break;
        default: pool.push_back(relu(p) + broadcast_to(slice(q, 1, {.start = 1, .stop = 2}), {3, 3})); break;
      }
    }
    Updates updates;
    Values outputs;
    Values expressions;
    for (const Value v : variables) {
      if (below(4) == 0) continue;
      updates.push_back({v, any()});
      expressions.push_back(updates.back().expression);
    }
    for (std::size_t i = below(4); i > 0; --i) outputs.push_back(any());
    if (updates.empty()) continue;
    State state(graph);
    Values all = outputs;
    all.insert(all.end(), expressions.begin(), expressions.end());
    Program look(state, {.outputs = all});
    Program move(state, {.outputs = outputs, .updates = updates});
    for (std::uint64_t run = 0; run < 2; ++run) {
      const Array fed = random({3, 3}, seed + 1000 * run);
      const Results expected = look.run({{x, fed}});
      std::vector<Array> old;
      for (const Value v : variables) old.push_back(state[v]);
      const Results results = move.run({{x, fed}});
      for (std::size_t i = 0; i < outputs.size(); ++i) REQUIRE(allclose(results[i], expected[i], 1e-12, 1e-12));
      for (std::size_t v = 0; v < variables.size(); ++v) {
        const auto at =
            std::find_if(updates.begin(), updates.end(), [&](const Update& u) { return u.variable == variables[v]; });
        const Array& wanted =
            at == updates.end() ? old[v] : expected[outputs.size() + static_cast<std::size_t>(at - updates.begin())];
        REQUIRE(allclose(state[variables[v]], wanted, 1e-12, 1e-12));
      }
    }
  }
}

// ---- steps that may throw

TEST_CASE("an index out of range leaves the State as it was, to the bit") {
  const Built built = build({{12, 8}, true, 0.8});
  Graph graph = built.graph;
  // Updates that have nothing to do with the labels could be written before these are looked at.
  const auto runs = graph.variable("runs", Array(0.0));
  const auto total = graph.variable("total", zeros({20}));
  State state(graph);
  Updates updates = optim::Adam{}.minimize(built.loss);
  updates.push_back({runs, runs + 1.0});
  updates.push_back({total, total + sum(built.x, 0)});
  Program train(state, {.outputs = {built.loss}, .updates = updates});
  const std::vector<std::string> names = [&] {
    std::vector<std::string> out;
    for (const auto& variable : graph.data()->leaves->variables) out.push_back(variable.name);
    return out;
  }();
  CHECK(names.size() > 20);
  const Array x = random({6, 20}, 1);
  const Array good = labels_of(6, 10);
  train.run({{built.x, x}, {built.labels, good}});

  for (const double wrong : {10.0, -1.0, 1e15}) {
    Array labels = good;
    labels.set(5, wrong);
    std::vector<Array> before;
    for (const auto& name : names) before.push_back(state.get(name));
    const std::int64_t step = state.step();
    CHECK_THROWS_WITH(train.run({{built.x, x}, {built.labels, labels}}),
                      ContainsSubstring("class_elements: requires class indices from 0 to 9, got ") &&
                          ContainsSubstring(" at element 5"));
    CHECK(state.step() == step);
    for (std::size_t i = 0; i < names.size(); ++i) {
      INFO(names[i]);
      CHECK(state.get(names[i]).identical(before[i]));
    }
    // And then goes on as if nothing had been.
    State copy = state;
    Program twin(copy, {.outputs = {built.loss}, .updates = updates});
    const double loss = train.run({{built.x, x}, {built.labels, good}}).scalar();
    CHECK(twin.run({{built.x, x}, {built.labels, good}}).scalar() == loss);
    for (const auto& name : names) {
      INFO(name);
      CHECK(state.get(name).identical(copy.get(name)));
    }
  }
}

TEST_CASE("indices that follow from an updated variable") {
  Graph graph;
  const auto index = graph.variable("index", Array(std::vector<std::int64_t>{0, 1}));
  const auto count = graph.variable("count", zeros({2, 3}));
  State state(graph);
  Program program(state, {.updates = {{index, index + 1}, {count, count + one_hot(index, 3, float64)}}});
  program.run();
  program.run();
  CHECK(state[index].identical(Array(std::vector<std::int64_t>{2, 3})));
  const Array before = state[count];
  CHECK_THROWS_WITH(program.run(), ContainsSubstring("got 3 at element {1}"));
  CHECK(state[index].identical(Array(std::vector<std::int64_t>{2, 3})));
  CHECK(state[count].identical(before));
  CHECK(state.step() == 2);
}

TEST_CASE("indices that follow from what a variable becomes") {
  // The step that may throw needs what another writes in place, and must come before anything is written.
  Graph graph;
  const auto index = graph.variable("index", Array(std::vector<std::int64_t>{0, 1}));
  const auto next = index + 1;
  const auto hot = one_hot(next, 3, float64);
  const auto count = graph.variable("count", zeros({2, 3}));
  State state(graph);
  Program program(state, {.outputs = {hot}, .updates = {{index, next}, {count, count + hot}}});
  CHECK(program.run()[0].identical(Array({{0.0, 1.0, 0.0}, {0.0, 0.0, 1.0}})));
  const Array before = state[count];
  CHECK_THROWS_WITH(program.run(), ContainsSubstring("got 3 at element {1}"));
  CHECK(state[index].identical(Array(std::vector<std::int64_t>{1, 2})));
  CHECK(state[count].identical(before));
  CHECK(state.step() == 1);
}
