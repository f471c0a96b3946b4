// Feeds: what is read in place, what is converted, and what a feed keeps; results and handles that outlive what they
// came from.
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;

namespace {

// One input of a dtype and shape, that is the output.
struct Echo {
  Echo(const Shape& shape, DType dtype) : x(graph.input("x", shape, dtype)) {}
  Graph graph;
  Value x;
  State state{graph};
  Program program{state, {.outputs = {x}}};
};

template <class T>
Array array_of(std::vector<T> values) {
  return values;
}

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

// ---- conversion

TEST_CASE("floating inputs take numbers of every type") {
  const Array right({1.0, 2.0, 200.0});
  for (const DType dtype : {float32, float64}) {
    Echo e({3}, dtype);
    const auto run = [&](const Array& fed) { return Array(e.program.run({{e.x, fed}})[0]); };
    CHECK(run(right).identical(right.astype(dtype)));
    CHECK(run(right.astype(float32)).identical(right.astype(dtype)));
    CHECK(run(array_of<std::int64_t>({1, 2, 200})).identical(right.astype(dtype)));
    CHECK(run(array_of<std::uint8_t>({1, 2, 200})).identical(right.astype(dtype)));
    CHECK(run(array_of<bool>({true, false, true})).identical(Array({1.0, 0.0, 1.0}).astype(dtype)));
    const std::vector<int> narrow = {1, 2, 200};
    CHECK(e.program.run({{e.x, narrow}})[0].identical(right.astype(dtype)));
  }
  Echo e({2}, float32);
  CHECK(e.program.run({{e.x, Array({0.1, std::nan("")})}})[0].identical(array_of<float>({0.1F, std::nanf("")})));
  CHECK(e.program.run({{e.x, Array({infinity, -infinity})}})[0][1] == -infinity);
  CHECK_THROWS_WITH(e.program.run({{e.x, Array({0.0, 1e300})}}),
                    ContainsSubstring("run: requires float32 {2} for input 'x'") &&
                        ContainsSubstring("got float64 {2}: float32 cannot have 1e+300 at {1}"));
}

TEST_CASE("int64 inputs take whole numbers of int64's range") {
  Echo e({1, 2}, int64);
  const auto run = [&](double a, double b) { return Array(e.program.run({{e.x, Array({{a, b}})}})[0]); };
  CHECK(run(3, -4).identical(array_of<std::int64_t>({3, -4}).reshape({1, 2})));
  CHECK(run(-0x1p63, 0x1p62).at<std::int64_t>(0) == std::numeric_limits<std::int64_t>::min());
  CHECK(e.program.run({{e.x, array_of<float>({1, 2}).reshape({1, 2})}})[0][1] == 2);
  CHECK(e.program.run({{e.x, array_of<bool>({true, false}).reshape({1, 2})}})[0][0] == 1);
  for (const double wrong : {0.5, 0x1p63, 1e300, infinity, -infinity, std::nan("")}) {
    CAPTURE(wrong);
    CHECK_THROWS_WITH(run(1, wrong), ContainsSubstring("int64 cannot have") && ContainsSubstring("at {0, 1}"));
    Echo scalar({}, int64);
    CHECK_THROWS_WITH(scalar.program.run({{scalar.x, wrong}}), ContainsSubstring("int64 cannot have"));
  }
  constexpr std::uint64_t beyond = std::uint64_t{1} << 63;
  CHECK_THROWS_WITH((Feed{e.x, beyond}),
                    ContainsSubstring("test_feed.cpp") && ContainsSubstring("9223372036854775808"));
  CHECK_THROWS_AS((Feed{e.x, std::vector<std::uint64_t>{1, beyond}}), Error);
}

TEST_CASE("bool inputs take 0 and 1") {
  Echo e({2}, boolean);
  CHECK(e.program.run({{e.x, Array({1.0, 0.0})}})[0].identical(array_of<bool>({true, false})));
  CHECK(e.program.run({{e.x, array_of<int>({0, 1})}})[0].identical(array_of<bool>({false, true})));
  CHECK_THROWS_WITH(e.program.run({{e.x, array_of<int>({0, 2})}}), ContainsSubstring("bool cannot have 2 at {1}"));
  CHECK_THROWS_AS(e.program.run({{e.x, Array({0.5, 1.0})}}), Error);
}

TEST_CASE("a converted feed of another size is as good, and an error leaves the program as it was") {
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("n")}, int64);
  State state(graph);
  Program program(state, {.outputs = {x}});
  CHECK(program.run({{x, Array({1.0, 2.0, 3.0})}})[0].size() == 3);
  CHECK(program.run({{x, Array({4.0})}})[0].item() == 4);
  CHECK_THROWS_AS(program.run({{x, Array({0.5})}}), Error);
  CHECK(program.run({{x, Array({5.0, 6.0})}})[0][1] == 6);
}

TEST_CASE("checks and derivatives take feeds of other dtypes, and lists of feeds") {
  Graph graph;
  const auto x = graph.input("x", {2});
  const auto w = graph.parameter("w", Array({3.0, 5.0}));
  const auto loss = sum(square(w) * x);
  State state(graph);
  const std::vector<Feed> feeds = {{x, array_of<int>({1, 2})}};
  CHECK(jacobian(loss, w, state, feeds).identical(Array({{6.0, 20.0}})));
  CHECK(hessian(loss, w, state, feeds).identical(Array({{2.0, 0.0}, {0.0, 4.0}})));
  CHECK(jacobian(loss, w, state, {{x, array_of<int>({1, 2})}}).identical(Array({{6.0, 20.0}})));
  CHECK(gradient_check_n(loss, {w}, state, feeds) < 1e-7);
  CHECK(gradient_check_n(loss, {w}, state, std::span<const Feed>(feeds), 1e-6) < 1e-7);
}

// ---- what is referred to, and what is kept

TEST_CASE("a named array is read as it is when it runs") {
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("n")});
  State state(graph);
  Program program(state, {.outputs = {sum(x)}});
  Array a = Array::full(float64, {4}, 1);
  std::vector<double> v = {1, 2};
  const std::vector<Feed> of_array = {{x, a}};
  const std::vector<Feed> of_vector = {{x, v}};
  CHECK(program.run(of_array).scalar() == 4);
  CHECK(program.run(of_vector).scalar() == 3);
  a = Array::full(float64, {100000}, 1);  // elsewhere, and of another size
  v.assign(1000, 2);
  CHECK(program.run(of_array).scalar() == 100000);
  CHECK(program.run(of_vector).scalar() == 2000);
  CHECK(Feed(x, a).data() == a.raw());
  CHECK(Feed(x, v).data() == v.data());
}

TEST_CASE("temporaries are kept by their feeds") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n});
  const auto y = graph.input("an input whose name is no short string", {n});
  State state(graph);
  Program program(state, {.outputs = {x + 10.0 * y}});
  const auto make = [](double number) { return Array::full(float64, {50}, number); };
  const auto make_const = [](double number) -> const Array { return Array::full(float64, {50}, number); };  // NOLINT
  const auto name = [] { return std::string("an input whose name is no short string"); };
  std::vector<Feed> feeds = {{x, make(1)}, {name(), make_const(2)}};
  const std::vector<double> reused(50, 7);  // where the temporaries were
  CHECK(program.run(feeds)[0][49] == 21);
  feeds = {{x, std::vector<double>(50, 3)}, {name().c_str(), std::vector<float>(50, 4)}};
  CHECK(program.run(feeds)[0][49] == 43);
  {
    std::string text = name();
    char characters[] = "x";
    feeds = {{text, full({50}, 5)}, {characters, make(1) * 2.0}};
    text.assign(text.size(), '-');
    characters[0] = '-';
  }
  CHECK(program.run(feeds)[0][49] == 52);
  // Copies of feeds are as good.
  std::vector<Feed> copies = feeds;
  feeds.clear();
  CHECK(program.run(copies)[0][0] == 52);
}

TEST_CASE("C arrays, spans, std::array and literals are fed") {
  Echo e({2}, float64);
  const Array right({1.0, 2.0});
  const double c[] = {1, 2};
  const std::array<double, 2> fixed = {1, 2};
  const std::span<const double> span(fixed);
  const auto run = [&](const Feed& feed) { return e.program.run({feed})[0].identical(right); };
  CHECK(run({e.x, c}));
  CHECK(run({e.x, fixed}));
  CHECK(run({e.x, span}));
  CHECK(run({e.x, std::span(c)}));
  CHECK(run({e.x, {1.0, 2.0}}));
  CHECK(run({"x", {1.0, 2.0}}));
  CHECK(run({"x", std::array<int, 2>{1, 2}}));
  CHECK(Feed(e.x, c).data() == c);
  CHECK(Feed(e.x, fixed).data() == fixed.data());
  CHECK(Feed(e.x, span).data() == fixed.data());
  CHECK(Feed(e.x, std::span(c)).data() == c);
  Echo table({2, 2}, float64);
  const double rows[2][2] = {{1, 2}, {3, 4}};
  CHECK(table.program.run({{table.x, rows}})[0].identical(Array({{1.0, 2.0}, {3.0, 4.0}})));
}

TEST_CASE("an array that was moved from is no feed") {
  Echo fixed({3}, float64);
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("n")});
  State state(graph);
  Program program(state, {.outputs = {x}});
  Array a({1.0, 2.0, 3.0});
  const Array b = std::move(a);
  CHECK_THROWS_WITH(fixed.program.run({{fixed.x, a}}), ContainsSubstring("got float64 {0}"));
  CHECK_THROWS_WITH(program.run({{x, a}}), ContainsSubstring("got float64 {0}: n must be at least 1"));
}

// ---- results and handles

TEST_CASE("the results of a temporary program keep what it computed") {
  Graph graph;
  const auto x = graph.input("x", {2});
  State state(graph);
  const auto results = Program(state, {.outputs = {x * 2.0, sum(x)}}).run({{x, {1.0, 2.0}}});
  const Array& element = Program(state, {.outputs = {x * 3.0}}).run({{x, {1.0, 2.0}}})[0];
  const Array& by_value = Program(state, {.outputs = {x}}).run({{x, {7.0, 8.0}}}).at(x);
  const Results plain = Program(state, {.outputs = {x}}).run({{x, {9.0, 9.0}}});
  const std::vector<Array> reused(10, Array({-1.0, -1.0}));
  CHECK(results.size() == 2);
  CHECK(results[0].identical(Array({2.0, 4.0})));
  CHECK(results.scalar(1) == 3);
  CHECK(plain[x].identical(Array({9.0, 9.0})));
  CHECK(element.identical(Array({3.0, 6.0})));
  CHECK(by_value.identical(Array({7.0, 8.0})));
  Program program(state, {.outputs = {x}});
  const std::vector<Feed> feeds = {{x, {5.0, 6.0}}};
  const auto moved = std::move(program).run(feeds);
  CHECK(moved[0][1] == 6);
}

TEST_CASE("programs and States that were moved from are errors") {
  Graph graph;
  const auto w = graph.parameter("w", Array(1.0));
  State state(graph);
  Program program(state, {.outputs = {w + 1.0}});
  Program owner = std::move(program);
  CHECK(owner.run().scalar() == 2);
  CHECK_THROWS_WITH(program.run(),
                    ContainsSubstring("program: requires a program that holds something, got one that was moved from"));
  CHECK_THROWS_AS(program.explain(), Error);
  CHECK_THROWS_AS(program.inputs(), Error);
  CHECK_THROWS_AS(program.memory(), Error);
  CHECK_THROWS_AS(program.profile(), Error);
  program = Program(state, {.outputs = {w + 2.0}});
  CHECK(program.run().scalar() == 3);

  State other = std::move(state);
  CHECK(other[w].item() == 1);
  CHECK_THROWS_WITH(state.step(),
                    ContainsSubstring("state: requires a state that holds something, got one that was moved from"));
  CHECK_THROWS_AS(state[w], Error);
  CHECK_THROWS_AS(state.set(w, Array(2.0)), Error);
  CHECK_THROWS_AS(state.graph(), Error);
  CHECK_THROWS_AS(state.reset(), Error);
  CHECK_THROWS_AS(state.save("moved.safetensors"), Error);
  CHECK_THROWS_AS(State(state), Error);
  CHECK_THROWS_AS(Program(state, {.outputs = {w}}), Error);
  state = other;
  CHECK(state[w].item() == 1);
}
