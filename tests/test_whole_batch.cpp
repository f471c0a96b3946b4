// L-BFGS and Newton's method with conjugate gradients, on functions whose minima are known.
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

namespace {

// Rosenbrock's valley in n dimensions, whose only minimum near is at ones.
Value rosenbrock(Value x) {
  const std::int64_t n = x.shape()[0].extent();
  const Value head = slice(x, 0, {0, n - 1});
  const Value tail = slice(x, 0, {1, n});
  return sum(100.0 * square(tail - square(head)) + square(1.0 - head));
}

Array begin_of_valley(std::int64_t n) {
  Array x(float64, {n});
  for (std::int64_t i = 0; i < n; ++i) x.set(i, i % 2 == 0 ? -1.2 : 1);
  return x;
}

}  // namespace

TEST_CASE("both find the end of Rosenbrock's valley") {
  for (const std::int64_t n : {2, 10, 50}) {
    for (const bool newton : {false, true}) {
      INFO((newton ? "newton_cg" : "lbfgs") << " in " << n << " dimensions");
      Graph graph;
      const Value x = graph.parameter("x", begin_of_valley(n));
      State state(graph);
      std::int64_t heard = 0;
      double last = std::numeric_limits<double>::infinity();
      const optim::WholeBatchOptions options{
          .gradient_tolerance = 1e-8, .cost_tolerance = 0, .after_iteration = [&](const auto& iteration) {
            CHECK(iteration.iteration == heard++);
            CHECK(iteration.cost < last);
            last = iteration.cost;
          }};
      const Value loss = rosenbrock(x);
      const auto found =
          newton ? optim::newton_cg(state, loss, {x}, {}, options) : optim::lbfgs(state, loss, {x}, {}, options);
      CHECK(found.ended == optim::Ended::gradient);
      CHECK(found.converged());
      CHECK(found.gradient <= 1e-8);
      CHECK(found.iterations == heard);
      CHECK(found.evaluations >= found.iterations);
      CHECK((found.products > 0) == newton);
      CHECK(found.iterations < 10 * n + 80);
      for (std::int64_t i = 0; i < n; ++i) CHECK(state[x][i] == Approx(1).epsilon(1e-7));
      CHECK(state.step() == 0);
    }
  }
}

TEMPLATE_TEST_CASE("a regression of all data at once has the numbers of the normal equations", "", float, double) {
  Graph graph({.dtype = dtype_of<TestType>()});
  const Value x = graph.input("x", {graph.dimension("n"), 1});
  const Value y = graph.input("y", {graph.dimension("n"), 1});
  const Value w = graph.parameter("w", zeros({1, 1}));
  const Value b = graph.parameter("b", zeros({1}));
  const Value loss = mean(square(matmul(x, w) + b - y));
  // The line through (0, 1), (1, 3), (2, 2), (3, 5): slope 1.1, 1.1 at 0.
  const Array xs({{0.0}, {1.0}, {2.0}, {3.0}});
  const Array ys({{1.0}, {3.0}, {2.0}, {5.0}});
  for (const bool newton : {false, true}) {
    State state(graph);
    const auto found = newton ? optim::newton_cg(state, loss, {w, b}, {{x, xs}, {y, ys}})
                              : optim::lbfgs(state, loss, {w, b}, {{x, xs}, {y, ys}});
    INFO(found.why);
    CHECK(found.cost == Approx(0.675).epsilon(1e-6));
    CHECK(state[w].item() == Approx(1.1).epsilon(1e-3));
    CHECK(state[b][0] == Approx(1.1).epsilon(1e-3));
  }
}

TEST_CASE("a minimizer says why it ended, and leaves the best numbers") {
  Graph graph;
  const Value x = graph.parameter("x", begin_of_valley(2));
  const Value loss = rosenbrock(x);
  State state(graph);
  const double before = 24.2;  // at (-1.2, 1)
  const auto few = optim::lbfgs(state, loss, {x}, {}, {.iterations = 3});
  CHECK(few.ended == optim::Ended::iterations);
  CHECK(!few.converged());
  CHECK(few.why == "3 iterations were made");
  CHECK(few.cost < before);
  Program read(state, {.outputs = {loss}});
  CHECK(read.run().scalar() == few.cost);
  const auto stopped =
      optim::lbfgs(state, loss, {x}, {}, {.after_iteration = [](auto& iteration) { iteration.stop = true; }});
  CHECK(stopped.ended == optim::Ended::stopped);
  CHECK(stopped.iterations == 1);
  const auto coarse = optim::lbfgs(state, loss, {x}, {}, {.cost_tolerance = 10});
  CHECK(coarse.ended == optim::Ended::cost);
  CHECK_THAT(coarse.why, ContainsSubstring("the cost changed by "));
  CHECK(optim::lbfgs(state, loss, {x}, {}, {.iterations = 0}).iterations == 0);

  // A cost that falls along the gradient nowhere: the derivative of relu is right of the kink, the minimum at it.
  Graph kink;
  const Value v = kink.parameter("v", Array({0.0}));
  State at_kink(kink);
  const auto none = optim::lbfgs(at_kink, sum(abs(v) + 0.5 * v), {v});
  CHECK(none.ended == optim::Ended::no_lower_cost);
  CHECK(at_kink[v][0] == 0);

  Graph infinite;
  const Value u = infinite.parameter("u", Array({-1.0}));
  State at_infinity(infinite);
  const auto not_finite = optim::lbfgs(at_infinity, sum(log(u)), {u});
  CHECK(not_finite.ended == optim::Ended::not_finite);
  CHECK(at_infinity[u][0] == -1);
}

TEST_CASE("a search steps back from where the cost is not finite") {
  // -log x + x, whose minimum is at 1: a first step from 10 goes below 0.
  for (const bool newton : {false, true}) {
    Graph graph;
    const Value x = graph.parameter("x", Array({10.0}));
    State state(graph);
    const Value loss = sum(20.0 * x - log(x));
    const auto found = newton ? optim::newton_cg(state, loss, {x}) : optim::lbfgs(state, loss, {x});
    INFO(found.why);
    CHECK(found.converged());
    CHECK(state[x][0] == Approx(0.05).epsilon(1e-4));
  }
}

TEST_CASE("what minimizers refuse leaves the graph and the State") {
  Graph graph;
  const Value x = graph.parameter("x", begin_of_valley(2));
  const Value input = graph.input("input", {2});
  const Value loss = rosenbrock(x);
  const Value other = sum(input);
  State state(graph);
  const std::string before = graph.to_string();
  const auto refuse = [](const std::function<void()>& f, int line, const std::string& message) {
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
  };
  using namespace optim;
  refuse([&] { lbfgs(state, Value{}, {x}); }, __LINE__, "lbfgs: requires a loss, got an empty Value");
  refuse([&] { lbfgs(state, loss, {}); }, __LINE__, "lbfgs: requires at least one parameter, got none");
  refuse([&] { lbfgs(state, other, {x}); }, __LINE__, "lbfgs: ");
  refuse([&] { lbfgs(state, x, {x}); }, __LINE__, "lbfgs: requires a scalar loss, got ");
  refuse([&] { lbfgs(state, loss, {x, x}); }, __LINE__, "lbfgs: requires each parameter once, got x twice");
  refuse([&] { newton_cg(state, loss, {x}, {}, {.iterations = -1}); }, __LINE__,
         "newton_cg: requires 0 iterations or more, got -1");
  refuse([&] { lbfgs(state, loss, {x}, {}, {.curvature = 1}); }, __LINE__,
         "lbfgs: requires 0 < decrease < curvature < 1, got 0.0001 and 1");
  refuse([&] { lbfgs(state, loss, {x}, {}, {.history = 0}); }, __LINE__,
         "lbfgs: requires a history of at least one step, got 0");
  CHECK(graph.to_string() == before);
  // In the middle of a search, too, the State gets back what it had.
  const Value fed = loss + 0.0 * other;
  refuse([&] { lbfgs(state, fed, {x}); }, __LINE__, "requires a feed for input 'input'");
  CHECK(state[x][0] == -1.2);
  CHECK(state[x][1] == 1);
}
