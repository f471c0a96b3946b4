#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

namespace {

// An error by its message and line, after which the graph prints as before.
void require_refusal(const Graph& graph, const std::function<void()>& f, int line, const std::string& message) {
  INFO(message);
  const std::string before = graph.to_string();
  const Error error = error_of(f);
  CHECK_THAT(error.what(), ContainsSubstring(message));
  CHECK(error.location().line == line);
  CHECK_THAT(std::string(error.location().file), ContainsSubstring("test_graph.cpp"));
  CHECK(graph.to_string() == before);
}

std::string at_line(int line) { return "  test_graph.cpp:" + std::to_string(line) + "\n"; }

}  // namespace

// ---- names and printing

TEST_CASE("a graph prints one line a node, with the user's line") {
  Graph graph({.dtype = float32});
  const int first = __LINE__ + 1;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 3});
  const auto labels = graph.input("labels", {batch}, int64);
  const auto w = graph.parameter("w", zeros({3, 2}));
  const auto running = graph.variable("running", zeros({2}));
  const auto flag = graph.variable("flag", Array(true));
  const auto c = graph.constant(Array({1.0, 2.5}));
  const auto large = graph.constant(Array(int64, {5}));
  const auto y = relu(matmul(x, w) + 1.0);
  const auto m = sum(leaky_relu(y, 0.125), 1, true);
  CHECK(graph.to_string() ==
        "x = input  float32 {batch, 3}" + at_line(first + 1) + "labels = input  int64 {batch}" + at_line(first + 2) +
            "w = parameter  float32 {3, 2}" + at_line(first + 3) + "running = variable  float32 {2}" +
            at_line(first + 4) + "flag = variable  bool {}" + at_line(first + 5) +
            "%5 = constant([1, 2.5])  float64 {2}" + at_line(first + 6) + "%6 = constant(...)  int64 {5}" +
            at_line(first + 7) + "%7 = matmul(x, w)  float32 {batch, 2}" + at_line(first + 8) +
            "%9 = add(%7, 1)  float32 {batch, 2}" + at_line(first + 8) + "%10 = relu(%9)  float32 {batch, 2}" +
            at_line(first + 8) + "%11 = leaky_relu(%10, slope=0.125)  float32 {batch, 2}" + at_line(first + 9) +
            "%12 = sum(%11, axes=(1), keepdims=true)  float32 {batch, 1}" + at_line(first + 9));
  CHECK(graph.size() == 13);
  CHECK(x.name() == "x");
  CHECK(running.name() == "running");
  CHECK(flag.name() == "flag");
  CHECK(labels.dtype() == int64);
  CHECK(c.name() == "%5");
  CHECK(large.name() == "%6");
  CHECK(m.name() == "%12");
  CHECK(m.shape() == Shape{batch, 1});
  CHECK(m.rank() == 2);
  CHECK(m.location().line == first + 9);
  CHECK(m.location().to_string() == "test_graph.cpp:" + std::to_string(first + 9));
}

TEST_CASE("names are found, and unique") {
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto w = graph.parameter("layer/w", zeros({2}));
  const auto v = graph.variable("v", zeros({2}));
  CHECK(graph.find("x") == x);
  CHECK(graph.find("layer/w") == w);
  CHECK(graph.find("v") == v);
  CHECK(graph.has("v"));
  CHECK_FALSE(graph.has("u"));
  CHECK(graph.unique_name("u") == "u");
  CHECK(graph.unique_name("v") == "v_2");
  static_cast<void>(graph.variable("v_2", zeros({2})));
  CHECK(graph.unique_name("v") == "v_3");
  CHECK(graph.parameters() == Values{w});

  require_refusal(
      graph, [&] { static_cast<void>(graph.find("u")); }, __LINE__,
      "graph: has no input, parameter or variable 'u'; it has x, layer/w, v, v_2");
  const Graph empty;
  require_refusal(
      empty, [&] { static_cast<void>(empty.find("u")); }, __LINE__,
      "graph: has no input, parameter or variable 'u'; it has none");
}

TEST_CASE("doubled and empty names are errors that say where the first one is") {
  Graph graph;
  const int line = __LINE__ + 1;
  static_cast<void>(graph.input("x", {2}));
  const std::string used =
      "requires a name that is not in use, got 'x', used at test_graph.cpp:" + std::to_string(line);
  require_refusal(
      graph, [&] { static_cast<void>(graph.input("x", {2})); }, __LINE__, "input: " + used);
  require_refusal(
      graph, [&] { static_cast<void>(graph.parameter("x", zeros({2}))); }, __LINE__, "parameter: " + used);
  require_refusal(
      graph, [&] { static_cast<void>(graph.variable("x", zeros({2}))); }, __LINE__, "variable: " + used);
  require_refusal(
      graph, [&] { static_cast<void>(graph.input("", {2})); }, __LINE__, "input: requires a name, got an empty one");
  require_refusal(
      graph, [&] { static_cast<void>(graph.parameter("", zeros({2}))); }, __LINE__, "parameter: requires a name");
  require_refusal(
      graph, [&] { static_cast<void>(graph.dimension("")); }, __LINE__, "dimension: requires a name");
  const Shape open{2, -1};
  require_refusal(
      graph, [&] { static_cast<void>(graph.input("y", open)); }, __LINE__,
      "input: requires a size or a named dimension, got {2, -1}");
  // What was refused has left no name behind.
  CHECK(graph.input("y", {2}).name() == "y");
}

TEST_CASE("a graph's dtype and seed") {
  const Graph graph({.dtype = float32, .seed = 9});
  CHECK(graph.dtype() == float32);
  CHECK(graph.seed() == 9);
  CHECK(Graph().dtype() == float64);
  const int line = __LINE__ + 1;
  const Error error = error_of([] { Graph g({.dtype = int64}); });
  CHECK_THAT(error.what(), ContainsSubstring("graph: requires dtype float32 or float64, got int64"));
  CHECK(error.location().line == line);
}

TEST_CASE("the dtypes of inputs, parameters and variables") {
  Graph graph({.dtype = float32});
  CHECK(graph.input("a", {}).dtype() == float32);
  CHECK(graph.input("b", {}, boolean).dtype() == boolean);
  CHECK(graph.parameter("c", Array({1.0})).dtype() == float32);
  CHECK(graph.parameter("d", integers({3}, 0, 9)).dtype() == float32);  // trained, and so floating
  CHECK(graph.variable("e", Array({1.0})).dtype() == float32);
  CHECK(graph.variable("f", integers({3}, 0, 9)).dtype() == int64);
  CHECK(graph.variable("g", Array(false)).dtype() == boolean);
  CHECK(graph.variable("h", zeros({2}), int64).dtype() == int64);
  CHECK(graph.variable("i", integers({3}, 1, 2), float64).dtype() == float64);
  CHECK(graph.variable("j", ones({2}), boolean).dtype() == boolean);
  const State state(graph);
  CHECK(state["h"].identical(Array(int64, {2})));
  CHECK(state["i"].identical(Array({1.0, 1.0, 1.0})));
  CHECK(state["j"][1] == 1);
}

TEST_CASE("copies of a Graph are the same graph, and values live with it") {
  Graph graph;
  Graph same = graph;
  const auto x = same.input("x", {2});
  CHECK(graph.find("x") == x);
  CHECK(x.graph().data() == graph.data());
  const Value nothing;
  CHECK_FALSE(nothing.defined());
  CHECK(x.defined());
  CHECK_FALSE(x == nothing);
  CHECK_THROWS_WITH(nothing.shape(), ContainsSubstring("value: requires a value of a graph, got an empty Value"));
  CHECK_THROWS_AS(nothing.name(), Error);
  CHECK_THROWS_AS(nothing.node(), Error);
}

TEST_CASE("a value whose graph is gone, and a graph that was moved from, are errors") {
  Value x;
  {
    Graph graph;
    x = graph.input("x", {2}) * 2.0;
    CHECK(x.rank() == 1);
  }
  Graph next;  // which may lie where the other one did
  const auto y = next.input("y", {2});
  CHECK_THROWS_WITH(x.shape(),
                    ContainsSubstring("value: requires a value of a graph that there is, got %2 of one that is gone"));
  CHECK_THROWS_AS(x.name(), Error);
  CHECK_THROWS_AS(x.graph(), Error);
  CHECK_THROWS_AS(x + 1.0, Error);
  CHECK_THROWS_AS(y + x, Error);
  CHECK_THROWS_AS(gradients(x, {x}), Error);
  State state(next);
  CHECK_THROWS_AS(Program(state, {.outputs = {x}}), Error);
  CHECK_THROWS_AS(state.get(x), Error);
  CHECK_FALSE(x == y);
  // A State keeps its graph.
  Value kept;
  std::optional<State> other;
  {
    Graph graph;
    kept = graph.parameter("w", Array({1.0, 2.0}));
    other.emplace(graph);
  }
  CHECK(kept.name() == "w");
  other.reset();
  CHECK_THROWS_AS(kept.name(), Error);

  Graph moved = std::move(next);
  CHECK(y.name() == "y");
  CHECK_THROWS_WITH(next.input("z", {1}),
                    ContainsSubstring("graph: requires a graph that holds something, got one that was moved from"));
  CHECK_THROWS_AS(next.size(), Error);
  CHECK_THROWS_AS(State(next), Error);
  next = moved;
  CHECK(next.has("y"));
}

// `if (loss < 0.1)` would ask whether there is such a node.
template <class T>
concept ReadAsBool = std::is_constructible_v<bool, T> || std::is_convertible_v<T, bool>;
static_assert(!ReadAsBool<Value> && !ReadAsBool<decltype(std::declval<Value>() < 0.1)>);
static_assert(!ReadAsBool<decltype(std::declval<Value>() > 0)> && !ReadAsBool<decltype(0 <= std::declval<Value>())>);
static_assert(!ReadAsBool<decltype(equal(std::declval<Value>(), 1))>);

// ---- operands

TEST_CASE("operators know the line where they are written") {
  Graph graph;
  const auto a = graph.input("a", {3});
  const auto b = graph.input("b", {3});
  const auto n = graph.dimension("n");
  struct Case {
    Value made;
    int line;
  };
  // clang-format off
  const std::vector<Case> cases = {
      {a + b, __LINE__}, {a + 2.0, __LINE__}, {2 - a, __LINE__},
      {1.0 + relu(a), __LINE__},
      {-a, __LINE__}, {-(a * b), __LINE__},
      {a / n, __LINE__},
      {a * Array({1.0, 2.0, 3.0}), __LINE__},
      {maximum(a, 0.0), __LINE__}, {pow(2.0, a), __LINE__}, {a < b, __LINE__}, {1.0 >= a, __LINE__},
      {where(a > 0.0, a, b), __LINE__},
  };
  // clang-format on
  for (const Case& c : cases) {
    INFO(c.made.node().op().name);
    CHECK(c.made.location().line == c.line);
    CHECK(c.made.location().to_string() == "test_graph.cpp:" + std::to_string(c.line));
    for (const Value input : c.made.node().inputs())
      if (input.location().line > cases.front().line) CHECK(input.location().line == c.line);
  }
  // And so do errors, with both shapes.
  const auto wide = graph.input("wide", {4});
  const auto refuse = [&](const std::function<Value()>& f, int line, const std::string& message) {
    require_refusal(
        graph, [&] { static_cast<void>(f()); }, line, message);
  };
  refuse([&] { return a + wide; }, __LINE__, "add: requires shapes that broadcast, got {3} and {4}");
  refuse([&] { return a * wide; }, __LINE__, "mul: requires shapes that broadcast, got {3} and {4}");
  refuse([&] { return wide / a; }, __LINE__, "div: requires shapes that broadcast, got {4} and {3}");
  refuse([&] { return a < wide; }, __LINE__, "less: requires shapes that broadcast, got {3} and {4}");
}

TEST_CASE("numbers take the dtype of the value beside them") {
  Graph graph({.dtype = float32});
  const auto x = graph.input("x", {2});
  const auto d = graph.input("d", {2}, float64);
  const auto n = graph.input("n", {2}, int64);
  CHECK((x + 1).dtype() == float32);
  CHECK((1.5 * d).dtype() == float64);
  CHECK((n * 2).dtype() == int64);
  CHECK((n * 2.0).dtype() == int64);
  CHECK((x * Array({1.0, 2.0})).dtype() == float32);
  CHECK((x * Array(std::vector<int>{1, 2})).dtype() == float32);
  CHECK((n * Array({1.0, 2.0})).dtype() == int64);
  CHECK((d / graph.dimension("n")).dtype() == float64);
  CHECK((d / Dimension(5)).dtype() == float64);
  const auto refuse = [&](const std::function<Value()>& f, int line, const std::string& message) {
    require_refusal(
        graph, [&] { static_cast<void>(f()); }, line, message);
  };
  refuse([&] { return n * 0.5; }, __LINE__, "operand: requires a whole number beside an int64 value, got 0.5");
  refuse([&] { return n * 1e300; }, __LINE__,
         "operand: requires a number of its range beside an int64 value, got 1e+300");
  refuse([&] { return n * (std::uint64_t{1} << 63); }, __LINE__,
         "number: requires whole numbers up to 9223372036854775807");
  refuse(
      [&] {
        return n * Array({1.0, 0.5});
      },
      __LINE__, "operand: requires whole numbers of its range beside an int64 value, got 0.5 at {1}");
  refuse([&] { return x + d; }, __LINE__, "add: requires inputs of one dtype, got float32 and float64");
  refuse([&] { return x + n; }, __LINE__, "add: requires inputs of one dtype, got float32 and int64");
  refuse([&] { return n / n; }, __LINE__, "div: requires float32 or float64, got int64");
}

// 2^53 + 1 is the first whole number that no double is.
TEST_CASE("whole numbers beside int64 values are exact") {
  constexpr std::int64_t big = (std::int64_t{1} << 53) + 1;
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  Graph graph;
  const auto x = graph.input("x", {1}, int64);
  State state(graph);
  const auto at = [&](const Value& y, std::int64_t number) {
    return Program(state, {.outputs = {cast(y, int64)}}).run({{x, Array(std::vector{number})}})[0].at<std::int64_t>(0);
  };
  CHECK(at(x + big, 0) == big);
  CHECK(at(x + static_cast<std::uint64_t>(big), 0) == big);
  CHECK(at(x + Array(big), 0) == big);
  CHECK(at(x + Array(std::vector{big}), 0) == big);
  CHECK(at(x + graph.constant(big, int64), 0) == big);
  CHECK(at(x + graph.constant(Array(big)), 0) == big);
  CHECK(at(x * 1234567890123456789, 1) == 1234567890123456789);
  CHECK(at(x - most, 0) == -most);
  CHECK(at(equal(x, big), big - 1) == 0);
  CHECK(at(equal(x, big), big) == 1);
  CHECK(at(minimum(x, most), 5) == 5);
  CHECK(at(maximum(x, least), 5) == 5);
  CHECK(at(where(x > 0, x, most), -5) == most);
  CHECK(at(where(x > 0, x, least), -5) == least);
  CHECK(at((x + big) * 1 - big, 7) == 7);  // in one fused group
  CHECK(at(x + Dimension(big), 0) == big);
  const auto v = graph.variable("v", full({2}, big), int64);
  const auto w = graph.variable("w", Array(std::vector{most, least}));
  const auto u = graph.variable("u", Array({1.0, 2.0}), int64);
  State numbers(graph);
  CHECK(numbers[v].at<std::int64_t>(1) == big);
  CHECK(numbers[w].at<std::int64_t>(0) == most);
  CHECK(numbers[w].at<std::int64_t>(1) == least);
  CHECK(numbers[u].at<std::int64_t>(1) == 2);
  CHECK_THAT(graph.to_string(), ContainsSubstring("9007199254740993"));
  const Array drawn = integers({100}, most - 3, most).draw(float64, 1, 0);
  for (std::int64_t i = 0; i < drawn.size(); ++i) {
    CHECK(drawn.at<std::int64_t>(i) >= most - 3);
    CHECK(drawn.at<std::int64_t>(i) < most);
  }
}

// As Python's range(10)[start:stop:step].
TEST_CASE("slices with places and steps as large as int64 has") {
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  Graph graph;
  std::vector<double> counted(10);
  for (std::size_t i = 0; i < counted.size(); ++i) counted[i] = static_cast<double>(i);
  const auto x = graph.constant(Array(counted).reshape({10, 1}));
  State state(graph);
  const auto of = [&](Slice range) {
    const Array got = Program(state, {.outputs = {slice(x, 0, range)}}).run()[0];
    return std::vector<double>(got.reshape({got.size()}));
  };
  using List = std::vector<double>;
  CHECK(of({.step = most}) == List{0});
  CHECK(of({.step = most - 1}) == List{0});
  CHECK(of({.step = least}) == List{9});
  CHECK(of({.start = 3, .step = most}) == List{3});
  CHECK(of({.start = least, .stop = most, .step = 5}) == List{0, 5});
  CHECK(of({.start = most, .stop = least, .step = -4}) == List{9, 5, 1});
  CHECK(of({.start = most}) == List{});
  CHECK(of({.start = -3, .stop = -5}) == List{});
  const auto batch = graph.input("batch", {graph.dimension("n")});
  CHECK(slice(batch, 0, {.start = -3, .stop = -5}).shape() == Shape{0});
  CHECK(slice(batch, 0, {.start = -5, .stop = -3}).shape() == Shape{2});
  CHECK_THROWS_AS(slice(batch, 0, {.start = least}), Error);
}

TEST_CASE("values of another graph and empty values are refused") {
  Graph graph;
  Graph other;
  const auto a = graph.input("a", {3});
  const auto z = other.input("z", {3});
  const auto flags = a > 0.0;
  const Value nothing;
  const auto refuse = [&](const std::function<Value()>& f, int line, const std::string& message) {
    require_refusal(
        graph, [&] { static_cast<void>(f()); }, line, message);
    CHECK(other.size() == 1);
  };
  refuse([&] { return a + z; }, __LINE__, "add: requires values of one graph, got z of another graph");
  refuse([&] { return concat({a, z}, 0); }, __LINE__, "concat: requires values of one graph, got z of another graph");
  refuse([&] { return where(flags, a, z); }, __LINE__, "where: requires values of one graph, got z of another graph");
  refuse([&] { return a + nothing; }, __LINE__, "add: requires values of a graph, got an empty Value");
  refuse([&] { return nothing * a; }, __LINE__, "mul: requires values of a graph, got an empty Value");
  refuse([&] { return -nothing; }, __LINE__, "neg: requires values of a graph, got an empty Value");
  refuse([&] { return relu(nothing); }, __LINE__, "relu: requires values of a graph, got an empty Value");
  refuse([&] { return sum(nothing); }, __LINE__, "sum: requires values of a graph, got an empty Value");
  refuse([&] { return softmax(nothing); }, __LINE__, "softmax: requires values of a graph, got an empty Value");
  refuse([&] { return matmul(a, nothing); }, __LINE__, "matmul: requires values of a graph, got an empty Value");
  refuse([&] { return concat({}, 0); }, __LINE__, "concat: requires an input, got none");
  refuse([&] { return dropout(nothing, {.keep = 0.5}); }, __LINE__,
         "dropout: requires values of a graph, got an empty Value");
  refuse([&] { return rrelu(nothing); }, __LINE__, "rrelu: requires values of a graph, got an empty Value");
  refuse([&] { return prelu(a, nothing); }, __LINE__, "prelu: requires values of a graph, got an empty Value");
  refuse([&] { return where(nothing, a, a); }, __LINE__, "where: requires values of a graph, got an empty Value");
  refuse([&] { return nn::dense(nothing, 3); }, __LINE__, "dense: requires values of a graph, got an empty Value");
  refuse([&] { return cast(nothing, float32); }, __LINE__, "cast: requires values of a graph, got an empty Value");
  refuse([&] { return slice(nothing, 0, {}); }, __LINE__, "slice: requires values of a graph, got an empty Value");
  refuse([&] { return reshape(nothing, {3}); }, __LINE__, "reshape: requires values of a graph, got an empty Value");
  refuse([&] { return by_mode(nothing, 1.0); }, __LINE__, "operand: requires values of a graph, got an empty Value");
  refuse([&] { return by_mode(a, nothing); }, __LINE__, "by_mode: requires values of a graph, got an empty Value");
  refuse([&] { return softmax_cross_entropy(a, nothing); }, __LINE__,
         "softmax_cross_entropy: requires values of a graph");
  refuse([&] { return l2({}); }, __LINE__, "l2: requires at least one weight, got none");
  refuse([&] { return l2({nothing}); }, __LINE__, "square: requires values of a graph, got an empty Value");
  refuse([&] { return one_hot(nothing, 3, float64); }, __LINE__,
         "one_hot: requires values of a graph, got an empty Value");
  refuse([&] { return add(Operand(1.0), Operand(2.0)); }, __LINE__,
         "add: requires a value of a graph among its operands, got numbers only");
  refuse([&] { return neg(Operand(1.0)); }, __LINE__, "neg: requires");
  refuse([&] { return maximum(1.0, nothing); }, __LINE__, "maximum: requires values of a graph, got an empty Value");
}

TEST_CASE("shape errors name the op, the line, what is required and what was got") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto time = graph.dimension("time");
  const auto x = graph.input("x", {batch, 3});
  const auto y = graph.input("y", {time, 3});
  const auto n = graph.input("n", {batch}, int64);
  const auto counts = graph.input("counts", {3, 4}, int64);
  const auto scalar = sum(x);
  const Shape wide{batch, 4};
  const Values both{x, y};
  const auto refuse = [&](const std::function<Value()>& f, int line, const std::string& message) {
    require_refusal(
        graph, [&] { static_cast<void>(f()); }, line, message);
  };
  refuse([&] { return x + y; }, __LINE__, "add: requires shapes that broadcast, got {batch, 3} and {time, 3}");
  refuse([&] { return matmul(x, y); }, __LINE__,
         "matmul: requires inner extents that agree, got {batch, 3} and {time, 3} (3 against time)");
  refuse([&] { return matmul(x, scalar); }, __LINE__, "matmul: requires matrices, got {}");
  refuse([&] { return matmul(x, counts); }, __LINE__, "matmul: requires float32 or float64, got int64");
  refuse([&] { return sum(x, 2); }, __LINE__, "sum: requires an axis from -2 to 1, got 2");
  refuse([&] { return sum(x, {0, -2}); }, __LINE__, "sum: requires each axis once");
  refuse([&] { return reshape(x, wide); }, __LINE__,
         "reshape: requires a shape of 3*batch elements as {batch, 3}, got {batch, 4}");
  refuse([&] { return reshape(x, {-1, -1}); }, __LINE__, "reshape: requires at most one extent of -1, got {-1, -1}");
  refuse([&] { return transpose(x, {0, 0}); }, __LINE__, "transpose: requires a permutation of 2 axes");
  refuse([&] { return broadcast_to(x, {3}); }, __LINE__,
         "broadcast_to: requires a shape that broadcasts to {3}, got {batch, 3}");
  refuse([&] { return concat(both, 1); }, __LINE__,
         "concat: requires shapes that agree but for axis 1, got {batch, 3} and {time, 3}");
  refuse([&] { return exp(n); }, __LINE__, "exp: requires float32 or float64, got int64");
  refuse([&] { return softmax(x, -3); }, __LINE__, "softmax: requires an axis from -2 to 1, got -3");
  refuse([&] { return argmax(scalar, 0); }, __LINE__, "argmax: requires no axis for a scalar, got 0");
  refuse([&] { return mean_squared_error(x, y); }, __LINE__,
         "mean_squared_error: requires inputs of one shape, got {batch, 3} and {time, 3}");
  refuse([&] { return softmax_cross_entropy(y, n); }, __LINE__,
         "softmax_cross_entropy: requires class indices of shape {time} for logits {time, 3}, got {batch}");
  refuse([&] { return dropout(x, {.keep = 0}); }, __LINE__, "dropout: requires 0 < keep <= 1, got 0");
  refuse([&] { return rrelu(x, {.low = 0.5, .high = 0.25}); }, __LINE__,
         "rrelu: requires low <= high, got 0.5 and 0.25");
  refuse([&] { return rrelu(n); }, __LINE__, "rrelu: requires float32 or float64, got int64");
  refuse([&] { return prelu(scalar, x); }, __LINE__, "prelu: requires a slope that broadcasts to {}, got {batch, 3}");
  refuse([&] { return logical_not(x); }, __LINE__, "logical_not: requires bool inputs, got float64");
  refuse([&] { return where(x, x, x); }, __LINE__, "where: requires a bool condition, got float64");
}

TEST_CASE("functions that build several nodes leave none behind after an error") {
  Graph graph;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 3});
  const auto n = graph.input("n", {batch}, int64);
  const auto counts = graph.input("counts", {batch, 3}, int64);
  const auto refuse = [&](const std::function<Value()>& f, int line, const std::string& message) {
    const std::size_t nodes = graph.size();
    require_refusal(
        graph, [&] { static_cast<void>(f()); }, line, message);
    CHECK(graph.size() == nodes);
  };
  const Array two({1.0, 2.0});
  const auto flags = x > 0.0;
  refuse([&] { return x + two; }, __LINE__, "add: requires shapes that broadcast, got {batch, 3} and {2}");
  refuse([&] { return where(flags, x, two); }, __LINE__, "where: requires shapes that broadcast");
  refuse([&] { return by_mode(x, two); }, __LINE__, "by_mode: requires shapes that broadcast");
  refuse([&] { return dropout(x, n, {.keep = 0.5}); }, __LINE__, "dropout: requires a mask that broadcasts");
  refuse([&] { return prelu(x, two); }, __LINE__, "prelu: requires shapes that broadcast, got {batch, 3} and {2}");
  refuse([&] { return softmax_cross_entropy(counts, n); }, __LINE__, "softmax_cross_entropy: requires float32");
  refuse([&] { return matmul(x, n); }, __LINE__, "matmul: requires");
  refuse([&] { return nn::dense(counts, 4); }, __LINE__, "matmul: requires");
  refuse([&] { return nn::batch_norm(x, {.epsilon = 0}); }, __LINE__, "batch_norm: requires epsilon > 0");
  refuse([&] { return l2({x, Value{}}); }, __LINE__, "square: requires values of a graph, got an empty Value");
  CHECK(graph.parameters().empty());
}

TEST_CASE("update_with refuses what is no update") {
  Graph graph;
  Graph other;
  const auto x = graph.input("x", {2});
  const auto v = graph.variable("v", zeros({2}));
  const auto total = sum(x);
  const auto z = other.input("z", {2});
  require_refusal(
      graph, [&] { graph.update_with(x, v, z); }, __LINE__, "update_with: requires values of this graph");
  require_refusal(
      graph, [&] { graph.update_with(Value{}, v, x); }, __LINE__, "update_with: requires values of this graph");
  require_refusal(
      graph, [&] { graph.update_with(x, x, v); }, __LINE__, "update_with: requires a variable, got x");
  require_refusal(
      graph, [&] { graph.update_with(x, v, total); }, __LINE__,
      "update_with: requires float64 {2} for v, got float64 {}");
  graph.update_with(total, v, x);
  State state(graph);
  Program train(state, {.outputs = {total}, .updates = {{v, v}}});
  Program ride(state, {.outputs = {total}, .updates = {{graph.variable("w", zeros({})), total}}});
  const Array fed({1.0, 2.0});
  train.run({{x, fed}});  // v's own update is the request's
  CHECK(state[v].identical(Array(float64, {2})));
  ride.run({{x, fed}});
  CHECK(state[v].identical(fed));
}

// ---- nodes, as gradient rules see them

TEST_CASE("a node tells its op, inputs and attributes") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto y = sum(x, 1, true);
  const Node node = y.node();
  CHECK(node.op().name == "sum");
  CHECK(node.input_count() == 1);
  CHECK(node.input(0) == x);
  CHECK(node.inputs() == Values{x});
  CHECK(node.output() == y);
  CHECK(node.attribute<bool>("keepdims"));
  CHECK(node.attribute<Axes>("axes") == Axes{1});
  CHECK_THROWS_WITH(node.attribute<bool>("axes"),
                    ContainsSubstring("attributes: requires attribute 'axes' of another type"));
  CHECK_THROWS_WITH(node.attribute<bool>("slope"), ContainsSubstring("attributes: requires attribute 'slope'"));
  CHECK_THROWS_WITH(node.input(1), ContainsSubstring("sum: has 1 inputs, and its rule asked for input 1"));
  CHECK(node.wants(0));
  CHECK(x.node().op().name == "input");
  CHECK(x.node().input_count() == 0);
}

TEST_CASE("dimensions of one name are one, also of several graphs") {
  Graph a;
  Graph b;
  CHECK(a.dimension("batch") == b.dimension("batch"));
  CHECK_FALSE(a.dimension("batch") == a.dimension("time"));
}
