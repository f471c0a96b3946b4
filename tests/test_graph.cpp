#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/graph/attempt.hpp>

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
  const std::size_t nodes = graph.size();
  const Error error = error_of(f);
  CHECK(graph.size() == nodes);
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
  const Array fractions({1.0, 0.5});
  refuse([&] { return n * fractions; }, __LINE__,
         "operand: requires whole numbers of its range beside an int64 value, got 0.5 at {1}");
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
         "add: requires a value of a graph among its operands, got 1 and 2");
  const double half = 0.5;
  const auto batch = graph.dimension("batch");
  refuse([&] { return half * batch; }, __LINE__,
         "mul: requires a value of a graph among its operands, got 0.5 and batch; extent() makes a value of a "
         "dimension");
  refuse([&] { return neg(Operand(1.0)); }, __LINE__, "neg: requires a value of a graph, got 1");
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
  refuse([&] { return nn::batch_norm(x, {.momentum = std::nan("")}); }, __LINE__,
         "batch_norm: requires 0 <= momentum <= 1, got nan");
  refuse([&] { return nn::batch_norm(x, {.momentum = -0.1}); }, __LINE__,
         "batch_norm: requires 0 <= momentum <= 1, got -0.1");
  refuse([&] { return l2({x, Value{}}); }, __LINE__, "square: requires values of a graph, got an empty Value");
  CHECK(graph.parameters().empty());
}

// Each public function that builds nodes gets values of every dtype, rank and graph in every place.
TEST_CASE("every function that builds leaves the graph as it was after an error") {
  Graph graph;
  Graph other;
  const auto batch = graph.dimension("batch");
  const auto rate = graph.input("rates", {3});
  const Values pool = {graph.input("x", {batch, 3}),
                       graph.input("n", {batch}, int64),
                       graph.input("counts", {batch, 3}, int64),
                       graph.input("flags", {5}, boolean),
                       graph.input("single", {batch, 3}, float32),
                       graph.parameter("w", zeros({3, 2})),
                       graph.variable("v", zeros({})),
                       other.input("z", {batch, 3}),
                       Value{}};
  using Build = std::function<void(Value, Value, Value)>;
  const auto dims = Shape{7, 7};
  const std::vector<std::pair<const char*, Build>> builders = {
      {"add", [](Value a, Value b, Value) { add(a, b); }},
      {"add an array",
       [](Value a, Value, Value) {
         add(a, Array({1.0, 2.0}));
       }},
      {"add a dimension", [&](Value a, Value, Value) { add(a, batch); }},
      {"mul by a fraction", [](Value a, Value, Value) { mul(a, 0.5); }},
      {"pow", [](Value a, Value b, Value) { pow(a, b); }},
      {"maximum", [](Value a, Value b, Value) { maximum(a, b); }},
      {"neg", [](Value a, Value, Value) { neg(a); }},
      {"less", [](Value a, Value b, Value) { less(a, b); }},
      {"logical_and", [](Value a, Value b, Value) { logical_and(a, b); }},
      {"where", [](Value a, Value b, Value c) { where(a, b, c); }},
      {"where of a value and a number", [](Value a, Value b, Value) { where(a, b, 1.0); }},
      {"where of numbers", [](Value a, Value, Value) { where(a, 1.0, 0.5); }},
      {"by_mode", [](Value a, Value b, Value) { by_mode(a, b); }},
      {"by_mode of an array",
       [](Value a, Value, Value) {
         by_mode(a, Array({1.0, 2.0}));
       }},
      {"cast", [](Value a, Value, Value) { cast(a, float32); }},
      {"stop_gradient", [](Value a, Value, Value) { stop_gradient(a); }},
      {"exp", [](Value a, Value, Value) { exp(a); }},
      {"clip", [](Value a, Value, Value) { clip(a, 2, 1); }},
      {"clip at a fraction", [](Value a, Value, Value) { clip(a, 0, 0.5); }},
      {"prelu", [](Value a, Value b, Value) { prelu(a, b); }},
      {"prelu by an array",
       [](Value a, Value, Value) {
         prelu(a, Array({1.0, 2.0}));
       }},
      {"reshape", [&](Value a, Value, Value) { reshape(a, dims); }},
      {"transpose",
       [](Value a, Value, Value) {
         transpose(a, {1, 1});
       }},
      {"broadcast_to", [&](Value a, Value, Value) { broadcast_to(a, dims); }},
      {"concat",
       [](Value a, Value b, Value c) {
         concat({a, b, c}, 0);
       }},
      {"slice", [](Value a, Value, Value) { slice(a, 1, {.step = 0}); }},
      {"sum",
       [](Value a, Value, Value) {
         sum(a, {0, 1, -1});
       }},
      {"mean", [](Value a, Value, Value) { mean(a, 4); }},
      {"argmax", [](Value a, Value, Value) { argmax(a, 1); }},
      {"softmax", [](Value a, Value, Value) { softmax(a, 1); }},
      {"matmul", [](Value a, Value b, Value) { matmul(a, b); }},
      {"one_hot", [](Value a, Value, Value) { one_hot(a, 3, float64); }},
      {"softmax_cross_entropy", [](Value a, Value b, Value) { softmax_cross_entropy(a, b); }},
      {"sigmoid_cross_entropy", [](Value a, Value b, Value) { sigmoid_cross_entropy(a, b); }},
      {"mean_squared_error", [](Value a, Value b, Value) { mean_squared_error(a, b); }},
      {"l2",
       [](Value a, Value b, Value c) {
         l2({a, b, c});
       }},
      {"l1_penalty",
       [&](Value a, Value b, Value) {
         l1_penalty({a, b}, 0.1, batch);
       }},
      {"l2_penalty",
       [](Value a, Value b, Value) {
         l2_penalty({a, b}, 0.1, Dimension(-1));
       }},
      {"dropout", [](Value a, Value, Value) { dropout(a, {.keep = 0.5}); }},
      {"dropout by a mask", [](Value a, Value b, Value) { dropout(a, b, {.keep = 0.5}); }},
      {"rrelu", [](Value a, Value, Value) { rrelu(a); }},
      {"batch_norm", [](Value a, Value b, Value c) { batch_norm(a, b, c, b, c, {}); }},
      {"nn::batch_norm", [](Value a, Value, Value) { nn::batch_norm(a); }},
      {"layer_norm", [](Value a, Value b, Value c) { layer_norm(a, b, c); }},
      {"rms_norm", [](Value a, Value b, Value) { rms_norm(a, b); }},
      {"group_norm", [](Value a, Value b, Value c) { group_norm(a, 2, b, c); }},
      {"instance_norm", [](Value a, Value b, Value c) { instance_norm(a, b, c); }},
      {"weight_norm", [](Value a, Value b, Value) { weight_norm(a, b, 0); }},
      {"spectral_norm", [](Value a, Value b, Value c) { spectral_norm(a, b, c, {.iterations = 2}); }},
      {"nn::dense", [](Value a, Value, Value) { nn::dense(a, 4); }},
      {"gradients", [](Value a, Value b, Value c) { gradients(a, {b, c}); }},
      {"gradients with a cotangent", [](Value a, Value b, Value c) { gradients(a, {b}, c); }},
      {"jvp", [](Value a, Value b, Value c) { jvp(a, {b}, {c}); }},
      {"hvp", [](Value a, Value b, Value c) { hvp(a, {b}, {c}); }},
      {"update_with", [&](Value a, Value b, Value c) { graph.update_with(a, b, c); }},
      {"minimize", [](Value a, Value b, Value) { static_cast<void>(optim::Adam{}.minimize(a, {b})); }},
      {"minimize all", [](Value a, Value, Value) { static_cast<void>(optim::HeavyBall{}.minimize(a)); }},
      {"minimize at a wrong rate",
       [&](Value a, Value b, Value) { static_cast<void>(optim::Adam{.learning_rate = rate}.minimize(a, {b})); }},
      {"apply gradients", [](Value a, Value b, Value) { static_cast<void>(optim::Adam{}.apply({a}, {b})); }},
  };
  std::size_t errors = 0;
  for (const auto& [name, build] : builders) {
    INFO(name);
    std::size_t refused = 0;
    for (std::size_t i = 0; i < pool.size() * pool.size() * pool.size(); ++i) {
      const std::string before = graph.to_string() + other.to_string();
      const std::size_t nodes = graph.size() + other.size();
      const std::size_t attached = graph.data()->attached.size();
      // What it builds where it is right is taken back.
      const detail::Attempt attempt(graph.data().get());
      const detail::Attempt elsewhere(other.data().get());
      try {
        build(pool[i % 9], pool[i / 9 % 9], pool[i / 81]);
      } catch (const Error&) {
        ++refused;
        if (graph.size() + other.size() == nodes && graph.data()->attached.size() == attached &&
            graph.to_string() + other.to_string() == before)
          continue;
        FAIL_CHECK("it is changed by an error, of " << i);
      }
    }
    CHECK(refused > 0);
    errors += refused;
  }
  CHECK(errors > 10'000);
}

TEST_CASE("update_with refuses what is no update") {
  Graph graph;
  Graph other;
  const auto x = graph.input("x", {2});
  const auto v = graph.variable("v", zeros({2}));
  const auto total = sum(x);
  const auto z = other.input("z", {2});
  require_refusal(
      graph, [&] { graph.update_with(x, v, z); }, __LINE__,
      "update_with: requires values of this graph, got z of another");
  require_refusal(
      graph, [&] { graph.update_with(Value{}, v, x); }, __LINE__,
      "update_with: requires values of this graph, got an empty Value");
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

// ---- what apply() requires

namespace {

Forward doubled() {
  return kernel([]<class T>(const std::vector<Tensor<const T>>& x, Tensor<T> y, const Attributes&) {
    for (std::int64_t i = 0; i < y.size(); ++i) y[i] = 2 * x[0][i];
  });
}

// An op of this name, which is otherwise right.
Op op_named(std::string name) {
  return {.name = "test_graph/" + std::move(name),
          .doc = "2 x.",
          .shape = same_shape,
          .forward = doubled(),
          .gradient = [](const Node&, Value dy) -> Values { return {2.0 * dy}; },
          .samples = {{.inputs = {ones({2})}}}};
}

struct Swish {
  auto operator()(auto x, auto beta, auto shift) const { return x * simd::sigmoid(beta * x) + shift; }
};

}  // namespace

TEST_CASE("attributes are declared with the op, and complete in its nodes") {
  Op op = op_named("attributes");
  op.attributes = {{"axis", AttributeType::axis},
                   {"scale", 2.0},
                   {"keepdims", false},
                   {"kind", AttributeType::text},
                   {"size", AttributeType::extent}};
  op.samples[0].attributes = {{"axis", 0}, {"kind", "a"}, {"size", 1}};
  const Op& made = register_op(op);
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto n = graph.dimension("n");

  const Node node = apply(made, {x}, {{"size", 7}, {"kind", "b"}, {"axis", -1}, {"scale", 3}}).node();
  CHECK(node.attributes().to_string() == "axis=1, scale=3, keepdims=false, kind=b, size={7}");
  CHECK(node.attribute<std::int64_t>("axis") == 1);
  CHECK(node.attribute<double>("scale") == 3);  // given as a whole number
  CHECK(node.attribute<Shape>("size") == Shape{7});
  CHECK(apply(made, {x}, {{"axis", 0}, {"kind", "b"}, {"size", Shape{n}}}).node().attribute<Shape>("size") == Shape{n});

  const auto refuse = [&](const Attributes& attributes, const std::string& message) {
    require_refusal(
        graph, [&] { apply(made, {x}, attributes); }, __LINE__, "test_graph/attributes: requires " + message);
  };
  const Attributes right{{"axis", 0}, {"kind", "a"}, {"size", 1}};
  refuse({}, "an axis as attribute 'axis', got none");
  refuse({{"axis", 0}, {"size", 1}}, "a text as attribute 'kind', got none");
  refuse(right.with("scael", 2.0), "attribute 'scale', got 'scael'");
  refuse(right.with("unheard_of", 2.0),
         "attributes among 'axis', 'scale', 'keepdims', 'kind', 'size', got 'unheard_of'");
  refuse({{"axis", 0}, {"kind", "a"}, {"kind", "b"}, {"size", 1}}, "each attribute once, got 'kind' twice");
  refuse(right.with("scale", "two"), "a number as attribute 'scale', got two (a text)");
  refuse(right.with("scale", true), "a number as attribute 'scale', got true (true or false)");
  refuse(right.with("keepdims", 1), "true or false as attribute 'keepdims', got 1 (a whole number)");
  refuse(right.with("axis", 0.5), "an axis as attribute 'axis', got 0.5 (a number)");
  refuse(right.with("axis", Axes{0}), "an axis as attribute 'axis', got (0)");
  refuse(right.with("kind", float64), "a text as attribute 'kind', got float64 (a dtype)");
  refuse(right.with("size", -1), "an extent as attribute 'size', got -1");
  refuse(right.with("size", Shape{2, 3}), "an extent as attribute 'size', got {2, 3}");
  require_refusal(
      graph, [&] { apply(made, {x}, right.with("axis", 2)); }, __LINE__, "requires an axis from -2 to 1, got 2");
  require_refusal(
      graph, [&] { apply(*find_op("relu"), {x}, right); }, __LINE__, "relu: requires no attributes, got 'axis'");
  const Attributes along{{"axis", Axes{0}}};
  require_refusal(
      graph, [&] { apply(*find_op("sum"), {x}, along); }, __LINE__, "sum: requires attribute 'axes', got 'axis'");
}

TEST_CASE("the attributes of an elementwise functor are declared by their names, or with a default") {
  Op op = op_named("swish");
  op.attributes = {{"shift", 0.25}};
  op.forward = elementwise<Swish>({}, {"beta", "shift"});
  op.gradient = {};
  op.samples[0].attributes = {{"beta", 1.5}};
  const Op& swish = register_op(op);
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto y = apply(swish, {x}, {{"beta", 2}});
  CHECK(test::compute(graph, {y}, {{x, Array({0.0, 1.0})}})[0][0] == 0.25);
  CHECK(test::compute(graph, {y}, {{x, Array({0.0, 1.0})}})[0][1] == Approx(0.25 + 1 / (1 + std::exp(-2.0))));
  require_refusal(
      graph, [&] { apply(swish, {x}); }, __LINE__, "test_graph/swish: requires a number as attribute 'beta', got none");
  const Attributes misspelt{{"betta", 2.0}};
  const Attributes text{{"beta", "two"}};
  require_refusal(
      graph, [&] { apply(swish, {x}, misspelt); }, __LINE__,
      "test_graph/swish: requires attribute 'beta', got 'betta'");
  require_refusal(
      graph, [&] { apply(swish, {x}, text); }, __LINE__, "requires a number as attribute 'beta', got two");

  op.name += "/2";
  op.attributes = {{"shift", "none"}};
  CHECK_THROWS_WITH(register_op(op), ContainsSubstring("its functor takes 'shift' as a number"));
  op.attributes = {};
  CHECK_THROWS_WITH(register_op(op), ContainsSubstring("requires a number as attribute 'shift', got none"));
  CHECK(find_op(op.name) == nullptr);
}

TEST_CASE("an op that declares no attributes has those of its samples") {
  Op op = op_named("shifted");
  op.forward = kernel([]<class T>(const std::vector<Tensor<const T>>& x, Tensor<T> y, const Attributes& a) {
    const double by = a.number("by") * (a.get<bool>("twice", false) ? 2 : 1);
    for (std::int64_t i = 0; i < y.size(); ++i) y[i] = x[0][i] + static_cast<T>(by);
  });
  op.samples = {{.inputs = {ones({2})}, .attributes = {{"by", 1.5}}},
                {.inputs = {ones({2})}, .attributes = {{"by", 0.5}, {"twice", true}}}};
  const Op& shifted = register_op(op);
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto refuse = [&](const Attributes& attributes, int line, const std::string& message) {
    require_refusal(
        graph,
        [&] {
          apply(graph, shifted, {x}, attributes, {__FILE__, line});
        },
        line, message);
  };
  refuse({}, __LINE__, "requires a number as attribute 'by', got none");
  refuse({{"bye", 1.0}}, __LINE__, "got 'bye'");
  refuse({{"by", "much"}}, __LINE__, "requires a number as attribute 'by', got much");
  refuse({{"by", 1.0}, {"twice", 2}}, __LINE__, "requires true or false as attribute 'twice', got 2");
  const auto results =
      test::compute(graph, {apply(shifted, {x}, {{"by", 1}}), apply(shifted, {x}, {{"by", 1.0}, {"twice", true}})},
                    {{x, Array({1.0, 2.0})}});
  CHECK(results[0].identical(Array({2.0, 3.0})));
  CHECK(results[1].identical(Array({3.0, 4.0})));
}

TEST_CASE("an op gets as many inputs as it has, of types that it can compute") {
  Op op = op_named("one input");
  op.shape = broadcast_shape;  // which takes any number of them
  const Op& one = register_op(op);
  op.name += "s";
  op.samples.push_back({.inputs = {ones({2}), ones({2}), ones({2})}});
  const Op& several = register_op(op);
  op = op_named("to int64");
  op.shape = [](const OpCall& call) -> Type { return {int64, call.shape(0)}; };
  const Op& whole = register_op(op);
  op = op_named("from int64");
  op.shape = [](const OpCall& call) -> Type { return {float64, call.shape(0)}; };
  const Op& from_whole = register_op(op);
  op = op_named("larger");
  op.forward = elementwise([](auto x) { return 2 * x; });
  op.shape = [](const OpCall& call) -> Type { return {call.dtype(0), {4, 1000}}; };
  const Op& larger = register_op(op);
  op = op_named("of unknown size");
  op.shape = [](const OpCall& call) -> Type { return {call.dtype(0), {-1}}; };
  const Op& unknown = register_op(op);

  Graph graph;
  const auto x = graph.input("x", {3, 2});
  const auto n = graph.input("n", {3, 2}, int64);
  const auto column = graph.input("column", {4, 1});
  const auto refuse = [&](const Op& f, const Values& inputs, int line, const std::string& message) {
    require_refusal(
        graph,
        [&] {
          apply(graph, f, inputs, {}, {__FILE__, line});
        },
        line, message);
  };
  refuse(*find_op("add"), {x}, __LINE__, "add: requires 2 inputs, got 1");
  refuse(*find_op("add"), {x, x, x}, __LINE__, "add: requires 2 inputs, got 3");
  refuse(*find_op("add"), {}, __LINE__, "add: requires 2 inputs, got 0");
  refuse(*find_op("neg"), {x, x}, __LINE__, "neg: requires 1 input, got 2");
  refuse(one, {x, x}, __LINE__, "requires 1 input, got 2");
  CHECK(apply(several, {x, x}).shape() == Shape{3, 2});
  refuse(*find_op("concat"), {}, __LINE__, "concat: requires");
  refuse(whole, {x}, __LINE__, "requires an output of float32 or float64, got int64");
  refuse(whole, {n}, __LINE__, "requires an output of float32 or float64, got int64");
  refuse(from_whole, {n}, __LINE__, "requires inputs of the output's dtype, float64, got int64 as input 0");
  refuse(larger, {x}, __LINE__, "requires inputs that broadcast to the output, {4, 1000}, got {3, 2} as input 0");
  CHECK(test::compute(graph, {apply(larger, {column})}, {{column, Array(float64, {4, 1}) + 3.0}})[0](3, 999) == 6);
  refuse(unknown, {x}, __LINE__, "requires a shape rule that gives each extent, got {-1}");
}

TEST_CASE("negative axes count from the end, given to functions or as attributes") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto n = graph.input("n", {2}, int64);
  const auto op = [](const char* name) -> const Op& { return *find_op(name); };
  const auto y = apply(op("concat"), {x, x}, {{"axis", -1}});
  const auto largest = apply(op("argmax"), {x}, {{"axis", -1}});
  const auto hot = apply(op("one_hot"), {n}, {{"classes", 3}, {"dtype", float64}, {"axis", -1}});
  const auto hot_rows = apply(op("one_hot"), {n}, {{"classes", 3}, {"dtype", float64}, {"axis", -2}});
  const auto part = apply(op("slice"), {x}, {{"axis", -1}, {"start", 1}, {"size", 2}, {"step", 1}});
  const auto turned = apply(op("transpose"), {x}, {{"permutation", Axes{-1, 0}}});
  const auto total = apply(op("sum"), {x}, {{"axes", Axes{-1}}});
  const Array at({{1.0, 5.0, 2.0}, {4.0, 3.0, 6.0}});
  const auto got = test::compute(graph, {y, largest, hot, hot_rows, part, turned, total, gradients(sum(y), {x})[0]},
                                 {{x, at}, {n, Array(int64, {2})}});
  CHECK(got[0].identical(Array({{1.0, 5.0, 2.0, 1.0, 5.0, 2.0}, {4.0, 3.0, 6.0, 4.0, 3.0, 6.0}})));
  CHECK(got[1][0] == 1);
  CHECK(got[1][1] == 2);
  CHECK(got[2].identical(Array({{1.0, 0.0, 0.0}, {1.0, 0.0, 0.0}})));
  CHECK(got[3].identical(Array({{1.0, 1.0}, {0.0, 0.0}, {0.0, 0.0}})));
  CHECK(got[4].identical(Array({{5.0, 2.0}, {3.0, 6.0}})));
  CHECK(got[5].identical(Array({{1.0, 4.0}, {5.0, 3.0}, {2.0, 6.0}})));
  CHECK(got[6].identical(Array({8.0, 13.0})));
  CHECK(got[7].identical(Array::full(float64, {2, 3}, 2)));
}

TEST_CASE("a slice lies within its axis") {
  Graph graph;
  const auto batch = graph.dimension("slice_batch");
  const auto x = graph.input("x", {10});
  const auto rows = graph.input("rows", {batch, 2});
  const auto slice_of = [](Value of, int start, int size, int step, Location at = Location::here()) {
    return apply(*find_op("slice"), {of}, {{"axis", 0}, {"start", start}, {"size", size}, {"step", step}}, at);
  };
  CHECK(slice_of(x, 9, 10, -1).shape() == Shape{10});
  CHECK(slice_of(x, 1, 3, 4).shape() == Shape{3});
  CHECK(slice_of(x, 20, 0, 1).shape() == Shape{0});
  const auto refuse = [&](int start, int size, int step, int line, const std::string& got) {
    require_refusal(
        graph,
        [&] {
          slice_of(x, start, size, step, {__FILE__, line});
        },
        line, "slice: requires a slice within its axis, got " + got);
  };
  refuse(0, 11, 1, __LINE__, "11 elements from 0 on in steps of 1 of 10");
  refuse(10, 1, 1, __LINE__, "1 elements from 10 on in steps of 1 of 10");
  refuse(2, 3, 4, __LINE__, "3 elements from 2 on in steps of 4 of 10");
  refuse(1, 3, -1, __LINE__, "3 elements from 1 on in steps of -1 of 10");
  refuse(3, 2, 0, __LINE__, "2 elements from 3 on in steps of 0 of 10");
  const Attributes shifted{{"axis", 0}, {"start", 1}, {"size", 10}, {"whole", 10}};
  require_refusal(
      graph, [&] { apply(*find_op("slice_scatter"), {x}, shifted); }, __LINE__,
      "slice_scatter: requires a slice within its axis, got 10 elements from 1 on");

  // Of a batch it is known in a run, which names the slice.
  const int line = __LINE__ + 1;
  const auto fifth = slice(rows, 0, {.start = 5});
  const auto last = slice(rows, 0, {.start = -5});
  const auto first = slice_of(rows, 0, 4, 1);
  const auto run = [&](Value y) {
    return error_of([&] { test::compute(graph, {y * 2.0}, {{rows, Array(float64, {3, 2})}}); });
  };
  const auto at = [&](int more) { return "slice at test_graph.cpp:" + std::to_string(line + more); };
  const std::string negative = ": requires slice_batch-5 to be 0 or more, got -2 (slice_batch=3)";
  CHECK_THAT(run(fifth).what(), ContainsSubstring(at(0) + negative));
  CHECK_THAT(run(last).what(), ContainsSubstring(at(1) + negative));
  CHECK_THAT(run(first).what(),
             ContainsSubstring("slice: requires a slice within its axis, got 4 elements from 0 on in steps of 1 of 3"));
  CHECK(run(first).location().line == line + 2);
  CHECK(test::compute(graph, {first}, {{rows, Array(float64, {4, 2})}})[0].shape() == Dims{4, 2});
}

TEST_CASE("an expansion stands for its node") {
  Graph other;
  const auto foreign = other.input("foreign", {2});
  const auto expanding = [](const char* name, std::function<Value(const Node&)> f) -> const Op& {
    Op op = op_named(name);
    op.forward = expand(std::move(f));
    return register_op(op);
  };
  const Op& parameter =
      expanding("parameter", [](const Node& n) { return n.input(0).graph().parameter("hidden", zeros({2})); });
  const Op& step =
      expanding("step", [](const Node& n) { return cast(n.input(0).graph().step(), float64) * n.input(0); });
  const Op& update = expanding("update", [](const Node& n) {
    n.input(0).graph().update_with(n.output(), n.input(0).graph().find("v"), n.input(0));
    return n.input(0);
  });
  const Op& wider = expanding("wider", [](const Node& n) { return concat({n.input(0), n.input(0)}, 0); });
  const Op& single = expanding("single", [](const Node& n) { return cast(n.input(0), float32); });
  const Op& nothing = expanding("nothing", [](const Node&) { return Value{}; });
  const Op& stranger = expanding("stranger", [foreign](const Node&) { return foreign; });
  const Op& deep = expanding("deep", [&](const Node& n) { return apply(wider, {n.input(0)}); });
  const Op& endless = expanding("endless", [](const Node& n) { return apply(n.op(), {n.input(0)}); });
  const Op& right = expanding("right", [](const Node& n) { return n.input(0) * 2.0; });

  Graph graph;
  const auto x = graph.input("x", {2});
  static_cast<void>(graph.variable("v", zeros({2})));
  static_cast<void>(graph.step());
  const auto refuse = [&](const Op& op, int line, const std::string& message) {
    require_refusal(
        graph,
        [&] {
          apply(op, {x}, {}, {__FILE__, line});
        },
        line, message);
    CHECK(graph.parameters().empty());
  };
  const std::string nothing_added = "requires an expansion that adds no inputs, parameters, variables or updates, got ";
  refuse(parameter, __LINE__, "parameter: " + nothing_added + "'hidden'");
  refuse(step, __LINE__, "step: " + nothing_added + "'step'");
  refuse(update, __LINE__, "update: " + nothing_added + "'v'");
  refuse(wider, __LINE__, "wider: requires an expansion of the node's type, float64 {2}, got float64 {4}");
  refuse(single, __LINE__, "single: requires an expansion of the node's type, float64 {2}, got float32 {2}");
  refuse(nothing, __LINE__, "nothing: requires an expansion that returns a value, got an empty Value");
  refuse(stranger, __LINE__,
         "stranger: requires an expansion that returns a value of its graph, got foreign of another");
  refuse(deep, __LINE__, "wider: requires an expansion of the node's type");
  refuse(endless, __LINE__, "endless: requires expansions that end, got one that expands into itself");
  const std::size_t before = graph.size();
  const auto y = apply(right, {x});
  CHECK(graph.size() == before + 1);  // the trial is taken back
  CHECK(test::compute(graph, {y}, {{x, Array({1.0, 2.0})}})[0].identical(Array({2.0, 4.0})));
  CHECK(graph.step() == graph.find("step"));
}

TEST_CASE("a name that the library has too is the program's mistake, whichever is registered first") {
  const int line = __LINE__ + 1;
  register_op(op_named("clash"));
  // As if the library's file were initialized after the program's.
  const Location library = find_op("relu")->location;
  const Error error = error_of([&] { register_op(op_named("clash"), library); });
  CHECK(error.location().line == line);
  CHECK_THAT(error.what(), ContainsSubstring("test_graph.cpp:" + std::to_string(line)) &&
                               ContainsSubstring("an op of this name exists, registered at activation.cpp:"));
  Op relu = op_named("");
  relu.name = "relu";
  const Error second = error_of([&] { register_op(relu); });
  CHECK(second.location().line == __LINE__ - 1);
  CHECK_THAT(second.what(), ContainsSubstring("an op of this name exists, registered at activation.cpp:"));
}

TEST_CASE("dimensions of one name are one, also of several graphs") {
  Graph a;
  Graph b;
  CHECK(a.dimension("batch") == b.dimension("batch"));
  CHECK_FALSE(a.dimension("batch") == a.dimension("time"));
}
