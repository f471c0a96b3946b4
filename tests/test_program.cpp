#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

namespace {

// 0.1, 0.2, ... of a shape, so that no two elements are alike.
Array counted(const Dims& shape, DType dtype = float64) {
  Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, 0.1 * static_cast<double>(i + 1));
  return out;
}

Array random(const Dims& shape, std::uint64_t seed, DType dtype = float64) {
  return uniform(to_shape(shape), -1, 1).draw(float64, seed, 0).astype(dtype);
}

Array labels_of(std::int64_t n, std::int64_t classes) {
  Array out(int64, {n});
  for (std::int64_t i = 0; i < n; ++i) out.set(i, static_cast<double>(i % classes));
  return out;
}

// The numbers of all variables of a State, and its counters.
struct Snapshot {
  std::vector<Array> variables;
  std::int64_t step = 0;
  std::int64_t epoch = 0;

  Snapshot(const State& state, const std::vector<std::string>& names) : step(state.step()), epoch(state.epoch()) {
    for (const auto& name : names) variables.push_back(state.get(name));
  }
  friend bool operator==(const Snapshot& a, const Snapshot& b) {
    if (a.step != b.step || a.epoch != b.epoch || a.variables.size() != b.variables.size()) return false;
    for (std::size_t i = 0; i < a.variables.size(); ++i)
      if (!a.variables[i].identical(b.variables[i])) return false;
    return true;
  }
};

bool same_bits(const Array& a, const Array& b) { return a.identical(b); }

// All of it made and run before main() is called, and, as a linker is given this file first, before the library's
// globals would be made in their turn.
struct BeforeMain {
  Graph graph;
  Value x = graph.input("x", {2, 2});
  Value w = graph.parameter("w", ones({2, 2}));
  Value y = sum(softmax(matmul(relu(x), w)) * 2.0 + where(x > 0.0, x, -x));
  State state{graph};
  Program program{state, {.outputs = {y}, .updates = optim::GradientDescent{.learning_rate = 1.0}.minimize(y)}};
  double result = program.run({{x, Array({{1.0, -2.0}, {3.0, 0.0}})}}).scalar();
  std::size_t ops = registry().size();
};
BeforeMain before_main;

}  // namespace

// ---- results

TEST_CASE("a run gives its outputs in order and by value") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto w = graph.parameter("w", Array({1.0, 2.0, 3.0}));
  const auto y = x * w;
  const auto total = sum(y);
  State state(graph);
  Program program(state, {.outputs = {y, total, y, x, w}});

  const Results results = program.run({{x, counted({2, 3})}});
  REQUIRE(results.size() == 5);
  CHECK(allclose(results[0], Array({{0.1, 0.4, 0.9}, {0.4, 1.0, 1.8}}), 1e-15, 0));
  CHECK(results.scalar(total) == Approx(4.6));
  CHECK(results.scalar(1) == results[total].item());
  CHECK(same_bits(results[2], results[0]));
  CHECK(same_bits(results[3], counted({2, 3})));
  CHECK(same_bits(results[w], Array({1.0, 2.0, 3.0})));
  CHECK(&results[y] == &results[0]);

  const int line = __LINE__ + 1;
  const Error out_of_range = error_of([&] { static_cast<void>(results.at(5)); });
  CHECK_THAT(out_of_range.what(), ContainsSubstring("results: requires an index below 5, got 5"));
  CHECK(out_of_range.location().line == line);
  const auto other = sum(x);
  CHECK_THROWS_WITH(results.at(other),
                    ContainsSubstring("requires an output of the program, got sum at test_program.cpp:"));
  CHECK_THROWS_WITH(results.at(Value{}), ContainsSubstring("got an empty Value"));
  CHECK_THROWS_WITH(results.scalar(y), ContainsSubstring("scalar() requires one element, got shape {2, 3}"));
}

TEST_CASE("inputs, constants, counters and reshapes of them can be outputs") {
  Graph graph;
  const auto x = graph.input("x", {2, 2});
  const auto w = graph.parameter("w", Array({1.0, 2.0}));
  const auto c = graph.constant(Array({5.0, 6.0}));
  State state(graph);
  Program program(state, {.outputs = {reshape(x, {4}), reshape(w, {2, 1}), c, graph.step(), graph.epoch()}});
  state.set_epoch(7);
  const Array fed({{1.0, 2.0}, {3.0, 4.0}});
  const Results results = program.run({{x, fed}});
  CHECK(same_bits(results[0], fed.reshape({4})));
  CHECK(same_bits(results[1], Array({1.0, 2.0}).reshape({2, 1})));
  CHECK(same_bits(results[2], Array({5.0, 6.0})));
  CHECK(results[3].dtype() == int64);
  CHECK(results.scalar(3) == 0);
  CHECK(results.scalar(4) == 7);
}

TEMPLATE_TEST_CASE("the last, smaller mini-batch just runs", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  Graph graph({.dtype = dtype});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 3});
  const auto w = graph.parameter("w", Array({{1.0, -2.0}, {0.5, 0.25}, {-1.0, 3.0}}));
  const auto y = relu(matmul(x, w));
  const auto loss = mean(square(y));
  State state(graph);
  Program program(state, {.outputs = {y, loss}});
  CHECK(program.memory().steps == 0);

  const Array weights = state[w].astype(float64);
  for (const std::int64_t m : {4, 4, 1, 130, 4, 1}) {
    const Array fed = random({m, 3}, static_cast<std::uint64_t>(m), dtype);
    const Results results = program.run({{x, fed}});
    REQUIRE(results[0].shape() == Dims{m, 2});
    REQUIRE(results[0].dtype() == dtype);
    double squares = 0;
    for (std::int64_t i = 0; i < m; ++i) {
      for (std::int64_t j = 0; j < 2; ++j) {
        double z = 0;
        for (std::int64_t k = 0; k < 3; ++k) z += fed(i, k) * weights(k, j);
        z = std::max(z, 0.0);
        REQUIRE(results[0](i, j) == Approx(z).epsilon(1e-6).margin(1e-6));
        squares += z * z;
      }
    }
    CHECK(results.scalar(loss) == Approx(squares / static_cast<double>(2 * m)).epsilon(1e-6));
    CHECK(program.memory().steps > 0);
  }
}

// ---- feeds

TEST_CASE("feeds: by name, in any order, of many kinds") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch});
  const auto y = graph.input("a name that is longer than a short string", {batch});
  const auto rate = graph.input("rate", {});
  State state(graph);
  Program program(state, {.outputs = {x * 2.0 + y * rate}});
  const std::string name = "a name that is longer than a short string";
  const Array one({1.0, 2.0, 3.0});
  const std::vector<double> two = {4.0, 5.0, 6.0};
  const Array expected({4.0, 6.5, 9.0});
  const auto check = [&](const Results& results) { CHECK(same_bits(results[0], expected)); };
  check(program.run({{x, one}, {y, two}, {rate, 0.5}}));
  check(program.run({{y, two}, {rate, 0.5F}, {x, one}}));
  check(program.run({{name, two}, {"rate", 0.5}, {"x", one}}));
  check(program.run({{x, Array({1.0, 2.0, 3.0})}, {y, std::vector<double>{4.0, 5.0, 6.0}}, {rate, Array(0.5)}}));
  const std::vector<Feed> feeds = {{x, one}, {y, two}, {rate, 0.5}};
  check(program.run(feeds));
}

TEST_CASE("a number that is fed takes the input's dtype") {
  Graph graph({.dtype = float32});
  const auto a = graph.input("a", {});
  const auto n = graph.input("n", {}, int64);
  const auto d = graph.input("d", {}, float64);
  const auto flag = graph.input("flag", {}, boolean);
  State state(graph);
  Program program(state, {.outputs = {a, n, d, flag}});
  const Results results = program.run({{a, 0.1}, {n, 3}, {d, 2}, {flag, true}});
  CHECK(*results[0].data<float>() == 0.1F);
  CHECK(*results[1].data<std::int64_t>() == 3);
  CHECK(*results[2].data<double>() == 2.0);
  CHECK(*results[3].data<bool>());
  // Another run with numbers of other types reads these, not what was fed before.
  const Results again = program.run({{a, 2}, {n, std::int64_t{1} << 40}, {d, 0.25F}, {flag, 0}});
  CHECK(*again[0].data<float>() == 2.0F);
  CHECK(*again[1].data<std::int64_t>() == std::int64_t{1} << 40);
  CHECK(*again[2].data<double>() == 0.25);
  CHECK(!*again[3].data<bool>());
}

TEST_CASE("a whole number that is fed keeps all of its digits") {
  Graph graph;
  const auto n = graph.input("n", {}, int64);
  State state(graph);
  Program program(state, {.outputs = {n}});
  constexpr std::int64_t wide = (std::int64_t{1} << 53) + 1;  // not a double
  CHECK(*program.run({{n, wide}})[0].data<std::int64_t>() == wide);
  for (const double fraction : {0.5, 1e300, -1e19, std::nan("")})
    CHECK_THROWS_WITH(program.run({{n, fraction}}), ContainsSubstring("requires int64 {} for input 'n'"));
  CHECK(program.run({{n, -3.0}}).scalar() == -3);
}

TEST_CASE("what an array held when it was fed is what counts, and it is not copied before the run") {
  Graph graph;
  const auto x = graph.input("x", {2});
  State state(graph);
  Program program(state, {.outputs = {x + 1.0}});
  Array fed({1.0, 2.0});
  const std::vector<Feed> feeds = {{x, fed}};
  CHECK(same_bits(program.run(feeds)[0], Array({2.0, 3.0})));
  fed.set(0, 10);
  CHECK(same_bits(program.run(feeds)[0], Array({11.0, 3.0})));
}

TEST_CASE("only inputs that the outputs need must be fed; others may be") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch});
  const auto y = graph.input("y", {batch});
  const auto mask = graph.input("mask", {batch}, boolean);
  const auto h = dropout(x, mask, {.keep = 0.5});
  const auto loss = mean_squared_error(h, y);
  State state(graph);
  Program train(state, {.outputs = {loss}});
  Program predict(state, {.outputs = {h}, .mode = Mode::inference});
  CHECK(train.inputs() == Values{x, y, mask});
  CHECK(predict.inputs() == Values{x});
  const Array a({1.0, 2.0});
  CHECK(same_bits(predict.run({{x, a}})[0], a));
  CHECK(same_bits(predict.run({{x, a}, {y, a}})[0], a));
}

// ---- errors of a run

TEST_CASE("a wrong feed is a clear error that changes nothing") {
  Graph graph;
  Graph other;
  const auto batch = graph.dimension("batch");
  const auto x_line = __LINE__ + 1;
  const auto x = graph.input("x", {batch, 3});
  const auto y = graph.input("y", {batch, 1});
  const auto fixed = graph.input("fixed", {2});
  const auto stranger = other.input("x", {2});
  const auto w = graph.parameter("w", counted({3, 1}));
  const auto loss = mean_squared_error(matmul(x, w), y) + 0.0 * sum(fixed);
  State state(graph);
  Program program(state, {.outputs = {loss}, .updates = optim::Adam{}.minimize(loss)});
  const std::vector<std::string> names = {"w", "w/adam/v", "w/adam/s", "adam/t"};

  const Array good_x = random({4, 3}, 1);
  const Array good_y = random({4, 1}, 2);
  const Array two({1.0, 2.0});
  const std::string here = "(test_program.cpp:" + std::to_string(x_line) + ")";
  program.run({{x, good_x}, {y, good_y}, {fixed, two}});

  struct Case {
    std::vector<Feed> feeds;
    std::string message;
  };
  const auto later = graph.input("later", {2});
  const std::vector<Case> cases = {
      {{{x, good_x}, {y, good_y}}, "run: requires a feed for input 'fixed', float64 {2} (test_program.cpp:"},
      {{}, "run: requires a feed for input 'x', float64 {batch, 3} " + here + ", got none"},
      {{{"z", good_x}, {y, good_y}, {fixed, two}}, "has no input, parameter or variable 'z'; it has x, y, fixed"},
      {{{w, good_x}}, "run: requires feeds of inputs, got one of w"},
      {{{loss, 1.0}}, "run: requires feeds of inputs, got one of add at test_program.cpp:"},
      {{{stranger, two}}, "run: requires feeds of inputs of the program's graph, got 'x' of another"},
      {{{Value{}, two}}, "run: requires feeds of inputs, got one of an empty Value"},
      {{{later, two}}, "got 'later', which was added to the graph after the program was compiled"},
      {{{x, good_x}, {y, good_y}, {fixed, two}, {x, good_x}}, "run: requires one feed for each input, got two for 'x'"},
      {{{x, good_x}, {"x", good_x}}, "run: requires one feed for each input, got two for 'x'"},
      {{{x, Array(float32, {4, 2})}},
       "run: requires float64 {batch, 3} for input 'x' " + here + ", got float32 {4, 2}"},
      {{{x, random({4, 2}, 1)}}, "requires float64 {batch, 3} for input 'x' " + here + ", got float64 {4, 2}"},
      {{{x, random({3}, 1)}}, "requires float64 {batch, 3} for input 'x' " + here + ", got float64 {3}"},
      {{{x, random({1, 4, 3}, 1)}}, "got float64 {1, 4, 3}"},
      {{{x, 1.0}}, "requires float64 {batch, 3} for input 'x' " + here + ", got float64 {}"},
      {{{x, good_x}, {fixed, two}, {y, random({5, 1}, 1)}}, "got float64 {5, 1}: batch is 4 in another input"},
      {{{x, Array(float64, {0, 3})}}, "got float64 {0, 3}: batch must be at least 1, an empty batch has no mean"},
  };
  for (const Case& wrong : cases) {
    INFO(wrong.message);
    const Snapshot before(state, names);
    const int line = __LINE__ + 1;
    const Error error = error_of([&] { program.run(wrong.feeds); });
    CHECK_THAT(error.what(), ContainsSubstring(wrong.message));
    CHECK(error.location().line == line);
    CHECK_THAT(error.location().to_string(), ContainsSubstring("test_program.cpp"));
    CHECK(Snapshot(state, names) == before);
    // The program still runs, and as one does that saw no error.
    State twin = state;
    Program fresh(twin, {.outputs = {loss}, .updates = {{w, w - 0.1 * gradients(loss, {w})[0]}}});
    const double expected = fresh.run({{x, good_x}, {y, good_y}, {fixed, two}}).scalar();
    CHECK(program.run({{x, good_x}, {y, good_y}, {fixed, two}}).scalar() == Approx(expected).epsilon(1e-12));
    CHECK(state.step() == before.step + 1);
  }
}

TEST_CASE("extents that are computed from others are checked") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n});
  const auto next = graph.input("next", {n + 1});
  const auto y = slice(next, 0, {.start = 1}) - x;
  const int sliced = __LINE__ + 1;
  const auto tail = slice(x, 0, {.start = 2});
  State state(graph);
  Program program(state, {.outputs = {y}});
  CHECK(same_bits(program.run({{x, Array({1.0, 2.0})}, {next, Array({0.0, 1.0, 3.0})}})[0], Array({0.0, 1.0})));
  CHECK(same_bits(program.run({{next, Array({0.0, 1.0, 3.0})}, {x, Array({1.0, 2.0})}})[0], Array({0.0, 1.0})));
  const int line = __LINE__ + 1;
  const Error error = error_of([&] { program.run({{x, Array({1.0, 2.0})}, {next, Array({0.0, 1.0})}}); });
  CHECK_THAT(error.what(), ContainsSubstring("run: requires {n+1} for input 'next', got {2} (n=2)"));
  CHECK(error.location().line == line);

  SECTION("a size that follows from no feed") {
    Program only(state, {.outputs = {next * 2.0}});
    const int at = __LINE__ + 1;
    const Error unknown = error_of([&] { only.run({{next, Array({1.0, 2.0})}}); });
    CHECK_THAT(unknown.what(), ContainsSubstring("requires a feed for input 'x', float64 {n}"));
    CHECK_THAT(unknown.what(), ContainsSubstring("the size of 'n' follows from no other"));
    CHECK(unknown.location().line == at);
  }
  SECTION("an extent below 0") {
    Program cut(state, {.outputs = {tail}});
    CHECK(same_bits(cut.run({{x, Array({1.0, 2.0, 3.0})}})[0], std::vector{3.0}));
    const int at = __LINE__ + 1;
    const Error negative = error_of([&] { cut.run({{x, std::vector{1.0}}}); });
    CHECK_THAT(negative.what(), ContainsSubstring("slice at test_program.cpp:" + std::to_string(sliced) +
                                                  ": requires n-2 to be 0 or more, got -1 (n=1)"));
    CHECK(negative.location().line == at);
    CHECK(same_bits(cut.run({{x, Array({1.0, 2.0, 3.0})}})[0], std::vector{3.0}));
  }
}

// ---- errors of a request

TEST_CASE("a wrong request is a clear error at the program's line") {
  Graph graph;
  Graph other;
  const auto x = graph.input("x", {2});
  const auto w = graph.parameter("w", zeros({2}));
  const auto n = graph.variable("n", Array(std::int64_t{0}));
  const auto stranger = other.parameter("w", zeros({2}));
  State state(graph);
  const auto require = [&](const Request& request, const std::string& message) {
    INFO(message);
    const int line = __LINE__ + 1;
    const Error error = error_of([&] { Program(state, request); });
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
  };
  require({}, "program: requires an output or an update, got neither");
  require({.outputs = {Value{}}}, "program: requires outputs of the State's graph, got an empty Value");
  require({.outputs = {stranger}}, "program: requires outputs of the State's graph, got w of another graph");
  require({.updates = {{stranger, stranger}}}, "requires variables of the State's graph, got w of another graph");
  require({.updates = {{w, stranger}}}, "requires update expressions of the State's graph, got w of another graph");
  require({.updates = {{w, Value{}}}}, "requires update expressions of the State's graph, got an empty Value");
  require({.updates = {{x, w}}}, "requires updates of parameters and variables, got one of x");
  require({.updates = {{w, x}, {w, w}}}, "requires one update of each variable, got two of 'w'");
  require({.updates = {{w, sum(x)}}}, "requires float64 {2} for 'w', got float64 {}");
  require({.updates = {{w, cast(x, float32)}}}, "requires float64 {2} for 'w', got float32 {2}");
  require({.updates = {{n, cast(sum(x), float64)}}}, "requires int64 {} for 'n', got float64 {}");
  // The counters are the State's own.
  require({.updates = {{graph.step(), graph.step() + 2}}}, "that the State does not count itself, got one of 'step'");
  require({.updates = {{graph.epoch(), graph.epoch() + 1}}},
          "that the State does not count itself, got one of 'epoch'");
}

// ---- updates and the State

TEST_CASE("only programs with updates count steps") {
  Graph graph;
  const auto w = graph.parameter("w", Array(1.0));
  State state(graph);
  Program look(state, {.outputs = {w * 3.0, graph.step()}});
  Program move(state, {.outputs = {graph.step()}, .updates = {{w, w * 2.0}}});
  for (int i = 0; i < 3; ++i) {
    CHECK(look.run().scalar(1) == i);
    CHECK(state.step() == i);
    CHECK(move.run().scalar() == i);  // the count before this run
    CHECK(state[w].item() == std::ldexp(1.0, i + 1));
    CHECK(look.run().scalar(0) == 3 * std::ldexp(1.0, i + 1));
  }
}

TEST_CASE("several programs share one State, and copies do not") {
  Graph graph;
  const auto x = graph.input("x", {3});
  const auto w = graph.parameter("w", Array({1.0, 2.0, 3.0}));
  const auto loss = sum(square(w * x));
  State state(graph);
  Program train(state, {.outputs = {loss}, .updates = optim::GradientDescent{.learning_rate = 0.1}.minimize(loss)});
  Program predict(state, {.outputs = {w * x}, .mode = Mode::inference});
  const Array ones_fed({1.0, 1.0, 1.0});
  State before = state;
  train.run({{x, ones_fed}});
  CHECK(allclose(state[w], Array({0.8, 1.6, 2.4}), 1e-15));
  CHECK(same_bits(predict.run({{x, ones_fed}})[0], state[w]));
  CHECK(same_bits(before[w], Array({1.0, 2.0, 3.0})));
  CHECK(before.step() == 0);
  Program of_copy(before, {.outputs = {w}});
  CHECK(same_bits(of_copy.run()[0], Array({1.0, 2.0, 3.0})));

  SECTION("a State outlived by its program") {
    auto program = [&] {
      State mine = state;
      return Program(mine, {.outputs = {w}});
    }();
    CHECK(allclose(program.run()[0], Array({0.8, 1.6, 2.4}), 1e-15));
  }
  SECTION("numbers that are assigned reach the programs") {
    state.set_epoch(4);
    before.set_epoch(2);
    state = before;
    CHECK(state.step() == 0);
    CHECK(state.epoch() == 2);
    CHECK(same_bits(predict.run({{x, ones_fed}})[0], Array({1.0, 2.0, 3.0})));
    train.run({{x, ones_fed}});
    CHECK(allclose(state[w], Array({0.8, 1.6, 2.4}), 1e-15));
    CHECK(same_bits(before[w], Array({1.0, 2.0, 3.0})));
  }
  SECTION("so do numbers that are set, and a reset") {
    state.set(w, Array({5.0, 6.0, 7.0}));
    CHECK(same_bits(predict.run({{x, ones_fed}})[0], Array({5.0, 6.0, 7.0})));
    state.set_step(5);
    state.set_epoch(6);
    state.reset();
    CHECK(state.step() == 0);
    CHECK(state.epoch() == 0);
    CHECK(same_bits(predict.run({{x, ones_fed}})[0], Array({1.0, 2.0, 3.0})));
  }
}

TEST_CASE("State: get, set and their errors") {
  Graph graph({.seed = 3});
  Graph other;
  const auto x = graph.input("x", {2});
  const auto w = graph.parameter("w", uniform({2, 3}));
  const auto n = graph.variable("n", integers({4}, 0, 100));
  const auto stranger = other.parameter("w", zeros({2, 3}));
  State state(graph);

  CHECK(state["w"].identical(state.get(w)));
  CHECK(state["w"].shape() == Dims{2, 3});
  CHECK(state["n"].dtype() == int64);
  // Initial numbers follow from the graph's seed and the variable alone.
  CHECK(State(graph)["w"].identical(state["w"]));

  state.set(w, Array(float32, {2, 3}));
  CHECK(same_bits(state[w], Array(float64, {2, 3})));
  state.set("n", Array(std::vector<std::int64_t>{1, 2, 3, 4}));
  CHECK(state[n][3] == 4);
  // A variable that the graph got since: there, too.
  const auto slot = graph.variable("slot", Array({1.0, 2.0}));
  CHECK(same_bits(state[slot], Array({1.0, 2.0})));

  const auto require = [](const std::function<void()>& f, int line, const std::string& message) {
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(message));
    CHECK(error.location().line == line);
  };
  require([&] { static_cast<void>(state.get(x)); }, __LINE__, "state: requires a parameter or variable, got x");
  require([&] { static_cast<void>(state.get("v")); }, __LINE__, "has no input, parameter or variable 'v'");
  require([&] { static_cast<void>(state.get(stranger)); }, __LINE__,
          "requires a parameter or variable of this State's");
  require([&] { static_cast<void>(state.get(Value{})); }, __LINE__, "requires a parameter or variable of this State's");
  const Array turned(float64, {3, 2});
  require([&] { state.set(w, turned); }, __LINE__, "state: requires float64 {2, 3} for 'w', got float64 {3, 2}");
  require([&] { state.set(w, Array(int64, {2, 3})); }, __LINE__, "requires float64 {2, 3} for 'w', got int64 {2, 3}");
  require([&] { state.set("n", Array(float64, {4})); }, __LINE__, "requires int64 {4} for 'n', got float64 {4}");
  CHECK(same_bits(state[w], Array(float64, {2, 3})));

  state.set(graph.step(), Array(std::int64_t{9}));
  CHECK(state.step() == 9);
}

TEST_CASE("a step and an epoch that are set are what a run reads") {
  Graph graph;
  const auto w = graph.parameter("w", Array(0.0));
  const auto both = cast(graph.step(), float64) + 100.0 * cast(graph.epoch(), float64);
  State state(graph);
  Program program(state, {.outputs = {both}, .updates = {{w, w + 1.0}}});
  state.set_step(7);
  state.set_epoch(2);
  CHECK(program.run().scalar() == 207);
  CHECK(program.run().scalar() == 208);
  CHECK(state[graph.step()].item() == 9);
  CHECK(state[graph.epoch()].item() == 2);
  const State copy = state;
  CHECK(copy.step() == 9);
  CHECK(copy.epoch() == 2);
}

TEST_CASE("an epoch that a State was told before the graph asked for it") {
  Graph graph;
  State state(graph);
  state.set_epoch(3);
  state.set_step(5);
  Program program(state, {.outputs = {graph.epoch(), graph.step()}});
  CHECK(program.run().scalar(0) == 3);
  CHECK(program.run().scalar(1) == 5);
}

// ---- dropout

TEST_CASE("dropout: one mask in both directions, new in each updating run") {
  constexpr double keep = 0.75;
  Graph graph({.seed = 11});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 40});
  const auto y = dropout(x, {.keep = keep});
  const auto c = graph.input("c", {batch, 40});
  const auto dx = gradients(sum(y * c), {x})[0];
  const auto other = dropout(x, {.keep = keep});
  const auto w = graph.parameter("w", Array(0.0));
  State state(graph);
  Program look(state, {.outputs = {y, dx, other}});
  Program move(state, {.outputs = {y}, .updates = {{w, w + 1.0}}});
  Program predict(state, {.outputs = {y, dx}, .mode = Mode::inference});
  const Array fed = counted({50, 40});
  const Array factors = random({50, 40}, 5);

  const auto mask_of = [&](const Array& dropped) {
    std::vector<bool> mask;
    for (std::int64_t i = 0; i < dropped.size(); ++i) {
      mask.push_back(dropped[i] != 0);
      REQUIRE(dropped[i] == (mask.back() ? Approx(fed[i] / keep).epsilon(1e-15) : Approx(0.0).margin(0)));
    }
    return mask;
  };

  const Results results = look.run({{x, fed}, {c, factors}});
  const auto mask = mask_of(results[y]);
  for (std::int64_t i = 0; i < fed.size(); ++i)
    REQUIRE(results[dx][i] ==
            (mask[static_cast<std::size_t>(i)] ? Approx(factors[i] / keep).epsilon(1e-15) : Approx(0.0).margin(0)));
  const auto kept = std::count(mask.begin(), mask.end(), true);
  CHECK(std::abs(static_cast<double>(kept) / 2000 - keep) < 0.04);  // four standard deviations
  CHECK(mask_of(results[other]) != mask);
  // Without updates the same again, whatever the program.
  CHECK(mask_of(look.run({{x, fed}, {c, factors}})[y]) == mask);
  CHECK(mask_of(move.run({{x, fed}})[0]) == mask);
  // Now the step has moved on.
  const auto second = mask_of(look.run({{x, fed}, {c, factors}})[y]);
  CHECK(second != mask);
  CHECK(mask_of(move.run({{x, fed}})[0]) == second);
  const auto third = mask_of(move.run({{x, fed}})[0]);
  CHECK(third != second);
  CHECK(third != mask);
  state.set_step(0);
  CHECK(mask_of(look.run({{x, fed}, {c, factors}})[y]) == mask);

  const Results plain = predict.run({{x, fed}, {c, factors}});
  CHECK(same_bits(plain[0], fed));
  CHECK(same_bits(plain[1], factors));

  SECTION("a smaller batch has the beginning of the mask") {
    Array few(float64, {7, 40});
    std::memcpy(few.raw(), fed.raw(), few.bytes());
    Array few_factors(float64, {7, 40});
    const auto first = mask_of(look.run({{x, few}, {c, few_factors}})[y]);
    CHECK(std::equal(first.begin(), first.end(), mask.begin()));
  }
  SECTION("another seed, another mask") {
    Graph second_graph({.seed = 12});
    const auto x2 = second_graph.input("x", {50, 40});
    const auto y2 = dropout(x2, {.keep = keep});
    State second_state(second_graph);
    Program program(second_state, {.outputs = {y2}});
    CHECK(mask_of(program.run({{x2, fed}})[0]) != mask);
  }
}

TEMPLATE_TEST_CASE("dropout: keep = 1, float32, and a mask of the user's", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", {3, 5});
  const auto flags = graph.input("flags", {3, 5}, boolean);
  const auto row = graph.input("row", {5});
  const auto all = dropout(x, {.keep = 1});
  const auto half = dropout(x, {.keep = 0.5});
  const auto by_flags = dropout(x, flags, {.keep = 0.5});
  const auto by_row = dropout(x, row, {.keep = 0.8});
  const auto gradient = gradients(sum(square(by_flags)), {x})[0];
  State state(graph);
  Program program(state, {.outputs = {all, half, by_flags, by_row, gradient}});
  Program predict(state, {.outputs = {by_flags}, .mode = Mode::inference});
  const Array fed = counted({3, 5}, dtype);
  Array mask(boolean, {3, 5});
  for (const std::int64_t i : {0, 3, 4, 9, 14}) mask.set(i, 1);
  const Array columns = Array({1.0, 0.0, 0.0, 1.0, 1.0}).astype(dtype);
  const Results r = program.run({{x, fed}, {flags, mask}, {row, columns}});
  CHECK(same_bits(r[0], fed));
  for (std::int64_t i = 0; i < 15; ++i) {
    CHECK((r[1][i] == 0 || r[1][i] == fed[i] * 2));
    CHECK(r[2][i] == mask[i] * fed[i] * 2);
    CHECK(r[3][i] == Approx(columns[i % 5] * fed[i] / 0.8).epsilon(1e-6));
    CHECK(r[4][i] == Approx(mask[i] * 8 * fed[i]).epsilon(1e-6));
  }
  CHECK(same_bits(predict.run({{x, fed}})[0], fed));
}

// ---- batch normalization

namespace {

// The statistics of each feature over all other axes, in double, by the definition.
struct BatchMoments {
  std::vector<double> mean, biased, unbiased;
};

std::size_t feature_of(const Dims& shape, std::size_t axis, std::int64_t flat) {
  std::int64_t inner = 1;
  for (std::size_t i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  return static_cast<std::size_t>(flat / inner % shape[axis]);
}

BatchMoments moments_of(const Array& x, std::size_t axis) {
  const auto features = static_cast<std::size_t>(x.shape()[axis]);
  const double n = static_cast<double>(x.size()) / static_cast<double>(features);
  BatchMoments m{std::vector<double>(features), std::vector<double>(features), std::vector<double>(features)};
  for (std::int64_t i = 0; i < x.size(); ++i) m.mean[feature_of(x.shape(), axis, i)] += x[i] / n;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const std::size_t f = feature_of(x.shape(), axis, i);
    m.biased[f] += (x[i] - m.mean[f]) * (x[i] - m.mean[f]) / n;
  }
  for (std::size_t f = 0; f < features; ++f) m.unbiased[f] = n > 1 ? m.biased[f] * n / (n - 1) : 0;
  return m;
}

}  // namespace

TEST_CASE("batch_norm: hand-computed numbers") {
  // Feature 0 is 1, 2, 3, 6: mean 3, biased variance 3.5, unbiased 14 / 3. Feature 1 is constant.
  Graph graph;
  const auto x = graph.input("x", {4, 2});
  const auto gamma = graph.parameter("gamma", Array({2.0, 1.0}));
  const auto beta = graph.parameter("beta", Array({0.5, -1.0}));
  const auto mean = graph.variable("mean", zeros({2}));
  const auto variance = graph.variable("variance", ones({2}));
  const auto y = batch_norm(x, gamma, beta, mean, variance, {.axis = 1, .momentum = 0.1, .epsilon = 0.5});
  State state(graph);
  Program train(state, {.outputs = {y}, .updates = {{gamma, gamma}}});
  Program predict(state, {.outputs = {y}, .mode = Mode::inference});
  const Array fed({{1.0, 5.0}, {2.0, 5.0}, {3.0, 5.0}, {6.0, 5.0}});
  // sqrt(3.5 + 0.5) = 2, so that the first column is x - 3 + 0.5.
  CHECK(allclose(train.run({{x, fed}})[0], Array({{-1.5, -1.0}, {-0.5, -1.0}, {0.5, -1.0}, {3.5, -1.0}}), 0, 1e-15));
  CHECK(allclose(state[mean], Array({0.3, 0.5}), 1e-15, 0));
  CHECK(allclose(state[variance], Array({0.9 + 14.0 / 30, 0.9}), 1e-15, 0));
  train.run({{x, fed}});
  CHECK(allclose(state[mean], Array({0.57, 0.95}), 1e-15, 0));
  CHECK(allclose(state[variance], Array({0.81 + 0.19 * 14 / 3, 0.81}), 1e-15, 0));
  const double scale = 2 / std::sqrt(0.81 + 0.19 * 14 / 3 + 0.5);
  CHECK(predict.run({{x, fed}})[0](3, 0) == Approx((6 - 0.57) * scale + 0.5).epsilon(1e-14));
  CHECK(predict.run({{x, fed}})[0](3, 1) == Approx((5 - 0.95) / std::sqrt(1.31) - 1).epsilon(1e-14));
}

TEMPLATE_TEST_CASE("batch_norm: PyTorch's conventions on any axis", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const double eps = dtype == float32 ? 2e-5 : 1e-12;
  struct Layout {
    Dims shape;
    std::int64_t axis;
  };
  const auto layout = GENERATE(Layout{{6, 3}, 1}, Layout{{6, 3}, -1}, Layout{{3, 7}, 0}, Layout{{2, 3, 2, 4}, 1},
                               Layout{{4, 5, 3}, 2}, Layout{{3, 200}, 0}, Layout{{2, 3, 150}, 1});
  const auto axis = static_cast<std::size_t>(layout.axis < 0 ? layout.axis + 2 : layout.axis);
  const std::int64_t features = layout.shape[axis];
  INFO("shape " << to_string(layout.shape) << " axis " << layout.axis);
  constexpr double momentum = 0.3;
  constexpr double epsilon = 1e-3;

  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", to_shape(layout.shape));
  const auto gamma = graph.parameter("gamma", uniform({features}, 0.5, 2));
  const auto beta = graph.parameter("beta", uniform({features}, -1, 1));
  const auto mean = graph.variable("mean", uniform({features}, -1, 1));
  const auto variance = graph.variable("variance", uniform({features}, 0.5, 2));
  const auto y =
      batch_norm(x, gamma, beta, mean, variance, {.axis = layout.axis, .momentum = momentum, .epsilon = epsilon});
  const auto dx = gradients(sum(square(y)), {x})[0];
  State state(graph);
  Program train(state, {.outputs = {y}, .updates = {{beta, beta}}});
  Program evaluate(state, {.outputs = {y}});  // training mode, no updates
  Program other(state, {.outputs = {sum(x)}, .updates = {{beta, beta}}});
  Program predict(state, {.outputs = {y, dx}, .mode = Mode::inference});
  Program tune(state, {.outputs = {y}, .updates = {{beta, beta}}, .mode = Mode::inference});

  Array running_mean = state[mean].astype(float64);
  Array running_variance = state[variance].astype(float64);
  const Array g = state[gamma].astype(float64);
  const Array b = state[beta].astype(float64);
  for (std::uint64_t run = 0; run < 3; ++run) {
    const Array fed = random(layout.shape, run, dtype);
    const BatchMoments m = moments_of(fed, axis);
    const auto check = [&](const Array& got) {
      for (std::int64_t i = 0; i < fed.size(); ++i) {
        const std::size_t f = feature_of(layout.shape, axis, i);
        const auto at = static_cast<std::int64_t>(f);
        REQUIRE(
            got[i] ==
            Approx((fed[i] - m.mean[f]) / std::sqrt(m.biased[f] + epsilon) * g[at] + b[at]).epsilon(eps).margin(eps));
      }
    };
    check(evaluate.run({{x, fed}})[0]);
    other.run({{x, fed}});
    tune.run({{x, fed}});
    // What does not train on the batch leaves the running averages alone.
    for (std::int64_t f = 0; f < features; ++f) {
      REQUIRE(state[mean][f] == Approx(running_mean[f]).epsilon(eps).margin(eps));
      REQUIRE(state[variance][f] == Approx(running_variance[f]).epsilon(eps));
    }
    check(train.run({{x, fed}})[0]);
    for (std::int64_t f = 0; f < features; ++f) {
      const auto k = static_cast<std::size_t>(f);
      running_mean.set(f, (1 - momentum) * running_mean[f] + momentum * m.mean[k]);
      running_variance.set(f, (1 - momentum) * running_variance[f] + momentum * m.unbiased[k]);
      REQUIRE(state[mean][f] == Approx(running_mean[f]).epsilon(eps).margin(eps));
      REQUIRE(state[variance][f] == Approx(running_variance[f]).epsilon(eps));
    }
    const Results inferred = predict.run({{x, fed}});
    for (std::int64_t i = 0; i < fed.size(); ++i) {
      const auto f = static_cast<std::int64_t>(feature_of(layout.shape, axis, i));
      const double slope = g[f] / std::sqrt(running_variance[f] + epsilon);
      const double expected = (fed[i] - running_mean[f]) * slope + b[f];
      REQUIRE(inferred[0][i] == Approx(expected).epsilon(eps).margin(eps));
      REQUIRE(inferred[1][i] == Approx(2 * expected * slope).epsilon(eps).margin(10 * eps));
    }
  }
}

TEST_CASE("batch_norm of a single example: its own mean, no variance") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 2});
  const auto y = nn::batch_norm(x, {.momentum = 0.5});
  State state(graph);
  Program train(state, {.outputs = {y}, .updates = {{graph.find("batch_norm/gamma"), graph.find("batch_norm/gamma")}}});
  CHECK(same_bits(train.run({{x, Array({{3.0, -4.0}, {3.0, -4.0}})}})[0], Array(float64, {2, 2})));
  state.reset();
  const Array one = Array({3.0, -4.0}).reshape({1, 2});
  CHECK(same_bits(train.run({{x, one}})[0], Array(float64, {1, 2})));
  CHECK(same_bits(state["batch_norm/mean"], Array({1.5, -2.0})));
  CHECK(same_bits(state["batch_norm/variance"], Array({0.5, 0.5})));
}

TEST_CASE("running averages that the request updates itself are the request's") {
  Graph graph;
  const auto x = graph.input("x", {4, 2});
  const auto y = nn::batch_norm(x);
  const auto mean = graph.find("batch_norm/mean");
  State state(graph);
  Program train(state, {.outputs = {y}, .updates = {{mean, mean + 1.0}}});
  train.run({{x, random({4, 2}, 1)}});
  CHECK(same_bits(state[mean], Array({1.0, 1.0})));
  CHECK(!same_bits(state["batch_norm/variance"], Array({1.0, 1.0})));
}

// ---- several updates of one variable

TEST_CASE("two batch norms of the same statistics: one batch after the other") {
  Graph graph;
  const auto u = graph.constant(Array({{1.0}, {3.0}}));
  const auto v = graph.constant(Array({{10.0}, {30.0}}));
  const auto gamma = graph.parameter("gamma", ones({1}));
  const auto beta = graph.parameter("beta", zeros({1}));
  const auto mean = graph.variable("mean", zeros({1}));
  const auto variance = graph.variable("variance", ones({1}));
  const auto a = batch_norm(u, gamma, beta, mean, variance);
  const auto b = batch_norm(v, gamma, beta, mean, variance);
  State state(graph);
  Program both(state, {.outputs = {a, b}, .updates = {{beta, beta}}});
  both.run();
  // means 2 and 20; unbiased variances 2 and 200
  CHECK(state[mean][0] == Approx(0.9 * (0.1 * 2) + 0.1 * 20).epsilon(1e-15));
  CHECK(state[variance][0] == Approx(0.9 * (0.9 + 0.1 * 2) + 0.1 * 200).epsilon(1e-15));
  // Only what a program computes is followed, and a run begins with what the one before left.
  State own(graph);
  Program second(own, {.outputs = {b}, .updates = {{beta, beta}}});
  second.run();
  CHECK(own[mean][0] == Approx(0.1 * 20).epsilon(1e-15));
  second.run();
  CHECK(own[mean][0] == Approx(0.9 * 2 + 0.1 * 20).epsilon(1e-15));
}

TEST_CASE("a batch norm over time follows each step, and computes none of them again") {
  Graph graph;
  const auto x = graph.input("x", {4, 3});
  const auto gamma = graph.parameter("gamma", ones({3}));
  const auto beta = graph.parameter("beta", zeros({3}));
  const auto mean = graph.variable("mean", zeros({3}));
  const auto variance = graph.variable("variance", ones({3}));
  constexpr int steps = 5;
  std::vector<Value> norms;
  Value h = x;
  for (int t = 0; t < steps; ++t) norms.push_back(h = batch_norm(square(h) + 1.0, gamma, beta, mean, variance));
  State state(graph);
  Values inputs;
  for (int t = 0; t < steps; ++t) inputs.push_back(square(t == 0 ? x : norms[static_cast<std::size_t>(t) - 1]) + 1.0);
  Program train(state, {.outputs = inputs, .updates = {{beta, beta}}});
  const Array at = random({4, 3}, 3);
  Program all(state, {.outputs = {h}, .updates = {{beta, beta}}});
  const Results batches = train.run({{x, at}});
  std::vector<double> expected(3, 0.0);
  for (const double share : {0.1})
    for (std::size_t t = 0; t < batches.size(); ++t)
      for (std::int64_t j = 0; j < 3; ++j) {
        double of_batch = 0;
        for (std::int64_t i = 0; i < 4; ++i) of_batch += batches[t](i, j) / 4;
        auto& e = expected[static_cast<std::size_t>(j)];
        e = (1 - share) * e + share * of_batch;
      }
  state.set(mean, Array({0.0, 0.0, 0.0}));
  all.run({{x, at}});
  for (std::int64_t j = 0; j < 3; ++j)
    CHECK(state[mean][j] == Approx(expected[static_cast<std::size_t>(j)]).epsilon(1e-14));
}

TEST_CASE("attached updates of one variable are applied in the order in which they were attached") {
  Graph graph;
  const auto x = graph.input("x", {});
  const auto v = graph.variable("v", Array(5.0));
  const auto w = graph.variable("w", Array(1.0));
  const auto y = x * v;
  const auto z = x + v;
  graph.update_with(y, v, 2.0 * v);
  graph.update_with(z, v, v + x);
  graph.update_with(z, w, w + v);  // another variable's reads v from before
  graph.update_with(y, v, v * v);
  State state(graph);
  Program train(state, {.outputs = {y, z}, .updates = {{graph.variable("n", Array(0.0)), x}}});
  const Results r = train.run({{x, 3.0}});
  CHECK(r.scalar(0) == 15);
  CHECK(r.scalar(1) == 8);
  CHECK(state[v][0] == (2 * 5 + 3) * (2 * 5 + 3));
  CHECK(state[w][0] == 6);
  // A result that is an update's expression reads the value from before.
  State again(graph);
  const auto doubled = graph.find("v") * 2.0;
  Program shown(again, {.outputs = {y, z, doubled}, .updates = {{w, w}}});
  const Results s = shown.run({{x, 3.0}});
  CHECK(s.scalar(2) == 10);
  CHECK(again[v][0] == 169);
}

TEST_CASE("batch_norm with statistics that are given") {
  Graph graph;
  const auto x = graph.input("x", {2, 1});
  const auto gamma = graph.constant(Array({2.0}));
  const auto beta = graph.constant(Array({1.0}));
  const auto mean = graph.input("mean", {1});
  const auto variance = graph.constant(Array({4.0}));
  const auto y = batch_norm(x, gamma, beta, mean, variance, {.epsilon = 1e-30});
  State state(graph);
  Program inference(state, {.outputs = {y}, .mode = Mode::inference});
  CHECK(inference.run({{x, Array({{5.0}, {3.0}})}, {mean, Array({3.0})}})[0].identical(Array({{3.0}, {1.0}})));
  CHECK_THROWS_WITH(batch_norm(x, gamma, beta, graph.variable("m", zeros({1})), variance),
                    ContainsSubstring("batch_norm: requires variables for both running statistics, or for neither, "
                                      "got variable and constant") &&
                        ContainsSubstring("test_program.cpp:"));
  CHECK_FALSE(graph.has("m_2"));
}

// ---- the same run, the same bits

TEMPLATE_TEST_CASE("training twice gives the same bits", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const auto train = [&](std::uint64_t seed) {
    Graph graph({.dtype = dtype, .seed = seed});
    const auto batch = graph.dimension("batch");
    const auto x = graph.input("x", {batch, 9});
    const auto labels = graph.input("labels", {batch}, int64);
    auto h = x;
    for (const std::size_t units : {33U, 17U}) h = dropout(relu(nn::batch_norm(nn::dense(h, units))), {.keep = 0.8});
    const auto loss = softmax_cross_entropy(nn::dense(h, 4), labels);
    State state(graph);
    Program program(state, {.outputs = {loss}, .updates = optim::Adam{}.minimize(loss)});
    std::vector<double> losses;
    for (std::uint64_t i = 0; i < 6; ++i) {
      const std::int64_t m = i % 3 == 2 ? 11 : 40;
      losses.push_back(program.run({{x, random({m, 9}, i, dtype)}, {labels, labels_of(m, 4)}}).scalar());
    }
    std::vector<Array> parameters;
    for (const Value p : graph.parameters()) parameters.push_back(state[p]);
    return std::pair(losses, parameters);
  };
  const auto first = train(1);
  const auto second = train(1);
  CHECK(first.first == second.first);
  REQUIRE(first.second.size() == second.second.size());
  for (std::size_t i = 0; i < first.second.size(); ++i) CHECK(same_bits(first.second[i], second.second[i]));
  CHECK(train(2).first != first.first);
}

TEST_CASE("a program can be moved") {
  Graph graph;
  const auto w = graph.parameter("w", Array(1.0));
  State state(graph);
  Program first(state, {.outputs = {w + 1.0}});
  Program second = std::move(first);
  CHECK(second.run().scalar() == 2);
  Program third(state, {.outputs = {w + 2.0}});
  second = std::move(third);
  CHECK(second.run().scalar() == 3);
}

TEST_CASE("profile: calls, time, work and place of each step since it was started") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 3});
  const auto w = graph.parameter("w", full({3, 2}, 0.5));
  const Location line{"net.cpp", 7};
  const auto y = relu(matmul(x, w, line), line);
  State state(graph);
  Program program(state, {.outputs = {mean(y)}});
  CHECK(program.profile().steps.empty());
  program.run({{x, counted({4, 3})}});
  CHECK(program.profile().steps.empty());
  program.start_profile();
  for (int i = 0; i < 3; ++i) program.run({{x, counted({4, 3})}});
  program.run({{x, counted({5, 3})}});  // a plan of its own
  const Profile profile = program.profile();
  std::vector<Profile::Step> products;
  for (const auto& step : profile.steps)
    if (step.title.find("matmul") == 0) products.push_back(step);
  REQUIRE(products.size() == 2);
  CHECK(products[0].title == "matmul  float64 {4, 2}");
  CHECK(products[0].calls == 3);
  CHECK(products[1].calls == 1);
  CHECK(products[0].flops == 2 * 4 * 3 * 2);
  CHECK(products[0].bytes == 8 * (4 * 3 + 3 * 2 + 4 * 2));
  CHECK(products[0].location.to_string() == "net.cpp:7");
  CHECK(products[0].seconds > 0);
  CHECK(profile.seconds() >= products[0].seconds + products[1].seconds);
  CHECK_THAT(profile.to_string(), ContainsSubstring("matmul  float64 {4, 2}  (net.cpp:7)"));
  program.start_profile();
  CHECK(program.profile().steps[0].calls == 0);
}

// ---- feeds that the run writes

TEST_CASE("what a run writes it may be fed") {
  Graph graph;
  const auto h = graph.input("h", {2});
  const auto c = graph.input("c", {2});

  SECTION("its last results, crosswise: Fibonacci") {
    State state(graph);
    Program program(state, {.outputs = {h + c, h}});
    Results r = program.run({{h, Array({1.0, 1.0})}, {c, Array({0.0, 0.0})}});
    for (int t = 1; t < 10; ++t) r = program.run({{h, r[0]}, {c, r[1]}});
    CHECK(same_bits(r[0], Array({89.0, 89.0})));
    CHECK(same_bits(r[1], Array({55.0, 55.0})));
    r = program.run({{h, r[1]}, {c, r[0]}});
    CHECK(same_bits(r[0], Array({144.0, 144.0})));
    CHECK(same_bits(r[1], Array({55.0, 55.0})));
  }
  SECTION("one result as two feeds, of which one is the result itself") {
    State state(graph);
    Program program(state, {.outputs = {h - 2.0 * c, c, h}});
    Results r = program.run({{h, Array({5.0, 7.0})}, {c, Array({1.0, 2.0})}});
    CHECK(same_bits(r[0], Array({3.0, 3.0})));
    r = program.run({{h, r[1]}, {c, r[0]}});
    CHECK(same_bits(r[0], Array({-5.0, -4.0})));
    CHECK(same_bits(r[1], Array({3.0, 3.0})));
    CHECK(same_bits(r[2], Array({1.0, 2.0})));
  }
  SECTION("a variable that it updates") {
    const auto w = graph.parameter("w", Array({1.0, 2.0}));
    State state(graph);
    // In place, by a copy, and both at once where two change places.
    const auto v = graph.variable("v", Array({10.0, 20.0}));
    Program program(state, {.outputs = {h - w, c}, .updates = {{w, w + sum(h) + 0.0 * c}}});
    const Results r = program.run({{h, state[w]}, {c, state[w]}});
    CHECK(same_bits(r[0], Array({0.0, 0.0})));
    CHECK(same_bits(r[1], Array({1.0, 2.0})));
    CHECK(same_bits(state[w], Array({4.0, 5.0})));
    Program swap(state, {.outputs = {h + 1.0}, .updates = {{w, h}, {v, c}}});
    const Results s = swap.run({{h, state[v]}, {c, state[w]}});
    CHECK(same_bits(state[w], Array({10.0, 20.0})));
    CHECK(same_bits(state[v], Array({4.0, 5.0})));
    CHECK(same_bits(s[0], Array({11.0, 21.0})));
  }
  SECTION("of a matrix, whose rows change places") {
    const auto x = graph.input("x", {5, 3});
    State state(graph);
    Program program(state, {.outputs = {concat({slice(x, 0, {.start = 1}), slice(x, 0, {.stop = 1})}, 0)}});
    const Array numbers = counted({5, 3});
    Results r = program.run({{x, numbers}});
    for (int t = 1; t < 5; ++t) r = program.run({{x, r[0]}});
    CHECK(same_bits(r[0], numbers));
  }
  SECTION("of sizes whose plan goes") {
    // Sum by sum: 1, 1 2, 1 3 3, ...: each run appends the sum of what there is.
    const auto x = graph.input("x", {graph.dimension("n")});
    State state(graph);
    Program program(state, {.outputs = {concat({x, sum(x, 0, true)}, 0)}, .plan_memory = 0});
    Results r = program.run({{x, Array({1.0})}});
    for (int t = 0; t < 6; ++t) r = program.run({{x, r[0]}});
    CHECK(same_bits(r[0], Array({1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0})));
  }
}

// ---- plans of many sizes

TEST_CASE("plans that come and go share an arena") {
  // A value that depends on sizes alone, computed when the arena changes hands, beside one of each run.
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 4});
  const auto w = graph.parameter("w", counted({4, 4}));
  const auto y = tanh(matmul(x, w)) * n + sum(x) / n;
  const std::size_t plan_memory = GENERATE(std::size_t{0}, std::size_t{1} << 16, std::size_t{64} << 20);
  State state(graph);
  Program program(state, {.outputs = {y, sum(matmul(y, transpose(y)))}, .plan_memory = plan_memory});
  std::vector<std::array<Array, 2>> right;
  const auto rows = [](std::int64_t count) { return random({count, 4}, static_cast<std::uint64_t>(count)); };
  for (std::int64_t count = 1; count <= 12; ++count) {
    Program fresh(state, {.outputs = program.outputs()});
    const Results r = fresh.run({{x, rows(count)}});
    right.push_back({r[0], r[1]});
  }
  const auto check = [&](std::int64_t count) {
    const Results r = program.run({{x, rows(count)}});
    CHECK(same_bits(r[0], right[static_cast<std::size_t>(count - 1)][0]));
    CHECK(same_bits(r[1], right[static_cast<std::size_t>(count - 1)][1]));
  };
  // The largest first and last, so that the arena is as it was, or grows and moves; each once and twice in turn.
  for (std::int64_t count = 12; count > 0; --count) check(count);
  for (std::int64_t count = 1; count <= 12; ++count) check(count);
  for (std::int64_t count = 1; count <= 12; ++count) check(count % 5 + 1), check(count), check(count), check(3);
  program.clear();
  for (std::int64_t count = 1; count <= 12; ++count) check(count), check(13 - count);
}

TEST_CASE("plans: how many are kept") {
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("n")});
  State state(graph);
  const auto plans = [](const Program& program) {
    const std::string text = program.explain();
    std::size_t count = 0;
    for (std::size_t at = text.find("plan for"); at != std::string::npos; at = text.find("plan for", at + 1)) ++count;
    return count;
  };
  const auto run = [&](Program& program, std::int64_t n) { program.run({{x, counted({n})}}); };
  Program all(state, {.outputs = {x * 2.0}});
  for (std::int64_t n = 1; n <= 20; ++n) run(all, n);
  CHECK(plans(all) == 20);
  Program two(state, {.outputs = {x * 2.0}, .plan_memory = 0});
  for (std::int64_t n = 1; n <= 20; ++n) run(two, n);
  CHECK(plans(two) == 2);
  CHECK_THAT(two.explain(), ContainsSubstring("plan for n=19") && ContainsSubstring("plan for n=20"));
  // The least recently used goes: 19 was used last but one.
  run(two, 19);
  run(two, 5);
  CHECK_THAT(two.explain(), ContainsSubstring("plan for n=19") && ContainsSubstring("plan for n=5"));
  two.clear();
  CHECK(plans(two) == 0);
  CHECK(two.memory().arena_bytes == 0);
  run(two, 3);
  CHECK(plans(two) == 1);
}

// ---- sizes

TEST_CASE("inputs() lists what gives a size that only a shape uses") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto q = graph.input("q", {n, 2});
  const auto other = graph.input("other", {n});
  const auto x = graph.input("x", {3});
  const auto wide = broadcast_to(x, {n, 3});
  State state(graph);
  Program program(state, {.outputs = {wide}});
  CHECK(program.inputs() == Values{q, x});
  CHECK(same_bits(program.run({{q, Array(float64, {2, 2})}, {x, Array({1.0, 2.0, 3.0})}})[0],
                  Array({{1.0, 2.0, 3.0}, {1.0, 2.0, 3.0}})));
  // Another one of that size does as well.
  CHECK(same_bits(program.run({{other, Array({0.0})}, {x, Array({1.0, 2.0, 3.0})}})[0],
                  Array({1.0, 2.0, 3.0}).reshape({1, 3})));
  const int line = __LINE__ + 1;
  const Error error = error_of([&] { program.run({{x, Array({1.0, 2.0, 3.0})}}); });
  CHECK_THAT(error.what(), ContainsSubstring("requires a feed for input 'q', float64 {n, 2}"));
  CHECK(error.location().line == line);
  // A size that only a number uses: the mean's divisor.
  Program scaled(state, {.outputs = {x * n}});
  CHECK(scaled.inputs() == Values{q, x});
  CHECK_THAT(scaled.explain(), !ContainsSubstring("plan for"));
  CHECK(scaled.run({{q, Array(float64, {5, 2})}, {x, Array({1.0, 2.0, 3.0})}})[0][2] == 15.0);
  // One that an input has whose numbers are read is no other's.
  Program plain(state, {.outputs = {other * n}});
  CHECK(plain.inputs() == Values{other});
}

TEST_CASE("a size that follows from nothing is an error that names whose it is") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {3});
  int line = __LINE__ + 1;
  const Error parameter = error_of([&] { graph.parameter("weights", normal({n, 3})); });
  CHECK_THAT(parameter.what(),
             ContainsSubstring("parameter: requires extents that are numbers for 'weights', got {n, 3}"));
  CHECK(parameter.location().line == line);
  line = __LINE__ + 1;
  const Error variable = error_of([&] { graph.variable("mean", zeros({n}), int64); });
  CHECK_THAT(variable.what(), ContainsSubstring("variable: requires extents that are numbers for 'mean', got {n}"));
  CHECK(variable.location().line == line);
  CHECK_THAT(error_of([&] { graph.variable("all", ones({-1, 2})); }).what(), ContainsSubstring("got {-1, 2}"));
  CHECK_THAT(error_of([&] { static_cast<void>(Array(zeros({n}))); }).what(),
             ContainsSubstring("requires extents that are numbers, got {n}"));
  CHECK(graph.size() == 1);
  CHECK_FALSE(graph.has("weights"));

  const int used = __LINE__ + 1;
  const auto wide = broadcast_to(x, {n, 3});
  State state(graph);
  line = __LINE__ + 1;
  const Error program = error_of([&] { Program(state, {.outputs = {wide}}); });
  CHECK_THAT(program.what(), ContainsSubstring("program: requires an input with the dimension 'n', which the size of "
                                               "broadcast_to needs (test_program.cpp:" +
                                               std::to_string(used)));
  CHECK(program.location().line == line);
}

TEST_CASE("a graph of static storage") {
  // Each row of the softmax adds up to 1: 2 * 2 + (1 + 2 + 3 + 0).
  CHECK(before_main.result == Approx(10));
  CHECK(before_main.ops == registry().size());
  CHECK(before_main.program.run({{"x", Array({{1.0, 1.0}, {1.0, 1.0}})}}).scalar() == Approx(8));
  CHECK(before_main.state.step() == 2);
}

TEST_CASE("a result of one element in the memory of an operand is written when that was read") {
  // The slope of `chosen` in `total` is the flag itself as a number, which exists before `chosen` is computed.
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto flag = equal(graph.input("a", {}), 1.0);
  const auto total = sum(x);
  const auto chosen = where(flag, total, 7.0);
  const auto slope = gradients(chosen, {x})[0];
  State state(graph);
  Program program(state, {.outputs = {slope, chosen}});
  const auto results = program.run({{x, Array({20.0, 3.0})}, {"a", 1.0}});
  CHECK(results[chosen].item() == 23);
  CHECK(results[slope].identical(Array({1.0, 1.0})));
}
