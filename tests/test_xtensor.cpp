// Arrays of another library at the API's edge: fed, received, as initial numbers and as operands.
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#if __has_include(<xtensor/xarray.hpp>)
#include <xtensor/xarray.hpp>
#include <xtensor/xbuilder.hpp>
#include <xtensor/xmanipulation.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#else  // since version 0.26
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xtensor.hpp>
#include <xtensor/core/xmath.hpp>
#include <xtensor/generators/xbuilder.hpp>
#include <xtensor/misc/xmanipulation.hpp>
#include <xtensor/views/xview.hpp>
#endif

#include <chainrule/chainrule.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;

namespace {

// sum(x * w) and x + w of x {2, 3}, in some dtype.
struct Net {
  explicit Net(DType dtype = float64) : graph({.dtype = dtype}) {}
  Graph graph;
  Dimension batch = graph.dimension("batch");
  Value x = graph.input("x", {batch, 3});
  Value w = graph.parameter("w", Array({1.0, 2.0, 4.0}));
  State state{graph};
  Program program{state, {.outputs = {x * w, sum(x)}}};
};

const Array expected({{1.0, 4.0, 12.0}, {4.0, 10.0, 24.0}});

}  // namespace

static_assert(std::is_convertible_v<xt::xarray<double>, Array> && std::is_convertible_v<Array, xt::xarray<double>>);
static_assert(std::is_convertible_v<xt::xtensor<float, 2>, Array> &&
              std::is_convertible_v<Array, xt::xtensor<float, 2>>);

TEST_CASE("xarray and xtensor become arrays") {
  const xt::xarray<double> a = {{1, 2, 3}, {4, 5, 6}};
  CHECK(Array(a).identical(Array({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}})));
  const xt::xtensor<float, 1> b = {1, 2};
  CHECK(Array(b).identical(Array(std::vector<float>{1, 2})));
  const xt::xarray<int> c = {{1, 2}};
  CHECK(Array(c).dtype() == int64);
  CHECK(Array(c).shape() == Dims{1, 2});
  const xt::xarray<bool> d = {true, false};
  CHECK(Array(d).identical(Array(std::vector<bool>{true, false})));
  const xt::xarray<double> scalar(5.0);
  CHECK(Array(scalar).shape() == Dims{});
  CHECK(Array(scalar).item() == 5);
  CHECK(Array(xt::xtensor<double, 2>(xt::zeros<double>({0, 3}))).shape() == Dims{0, 3});
}

TEST_CASE("expressions, views and other layouts are read in row-major order") {
  const xt::xarray<double> a = {{1, 2, 3}, {4, 5, 6}};
  const Array turned({{1.0, 4.0}, {2.0, 5.0}, {3.0, 6.0}});
  CHECK(Array(a * 2.0 + 1.0).identical(Array({{3.0, 5.0, 7.0}, {9.0, 11.0, 13.0}})));
  CHECK(Array(xt::transpose(a)).identical(turned));
  CHECK(Array(xt::view(a, xt::all(), xt::range(0, 2))).identical(Array({{1.0, 2.0}, {4.0, 5.0}})));
  CHECK(Array(xt::view(a, 1)).identical(Array({4.0, 5.0, 6.0})));
  CHECK(Array(xt::view(a, xt::all(), 2)).identical(Array({3.0, 6.0})));
  CHECK(Array(xt::broadcast(a, {2, 2, 3})).shape() == Dims{2, 2, 3});
  CHECK(Array(xt::arange<double>(3)).identical(Array({0.0, 1.0, 2.0})));
  CHECK(Array(a > 2.5).identical(Array({{0.0, 0.0, 1.0}, {1.0, 1.0, 1.0}}).astype(boolean)));
  const xt::xarray<double, xt::layout_type::column_major> columns = a;
  CHECK(Array(columns).identical(Array(a)));
  const xt::xarray<double, xt::layout_type::dynamic> dynamic = xt::transpose(a);
  CHECK(Array(dynamic).identical(turned));
}

TEST_CASE("arrays become xarray and xtensor") {
  const Array a({{1.5, 2.0, 3.0}, {4.0, 5.0, 6.0}});
  const xt::xarray<double> dynamic = a;
  CHECK((dynamic == xt::xarray<double>({{1.5, 2, 3}, {4, 5, 6}})));
  const xt::xtensor<double, 2> fixed = a;
  CHECK((fixed == dynamic));
  const xt::xarray<float> single = a;
  CHECK(single(0, 0) == 1.5F);
  const xt::xarray<int> whole = a;
  CHECK(whole(0, 0) == 1);
  const xt::xarray<double, xt::layout_type::column_major> columns = a;
  CHECK(columns(0, 2) == 3);
  CHECK(columns(1, 0) == 4);
  const xt::xarray<double> scalar = Array(2.5);
  CHECK(scalar() == 2.5);
  CHECK(scalar.dimension() == 0);
  const xt::xarray<bool> flags = Array(std::vector<bool>{true, false});
  CHECK((flags(0) && !flags(1)));
  CHECK(xt::xarray<double>(Array(float64, {0, 3})).size() == 0);
  CHECK(Array(xt::xarray<double>(a)).identical(a));
  // An array of two dimensions is no vector, and one of another shape not what has a fixed one.
  const auto convert = [](const Array& from, auto to) { to = static_cast<decltype(to)>(from); };
  CHECK_THROWS_WITH(convert(a, xt::xtensor<double, 1>()),
                    ContainsSubstring("array: requires a container that can have shape {2, 3}"));
  CHECK_THROWS_AS(convert(a, xt::xtensor<double, 3>()), Error);
  CHECK_THROWS_AS(convert(Array(1.0), xt::xtensor<double, 1>()), Error);
}

TEST_CASE("containers of the input's type are read where they lie") {
  Net net;
  xt::xarray<double> dynamic = {{1, 2, 3}, {4, 5, 6}};
  const xt::xtensor<double, 2> fixed = dynamic;
  CHECK(net.program.run({{net.x, dynamic}})[0].identical(expected));
  CHECK(net.program.run({{net.x, fixed}})[0].identical(expected));
  CHECK(net.program.run({{"x", fixed}})[0].identical(expected));
  const Feed feed(net.x, dynamic);
  CHECK(feed.data() == dynamic.data());
  CHECK(feed.dtype() == float64);
  CHECK(feed.shape() == Dims{2, 3});
  const Feed of_fixed(net.x, fixed);
  CHECK(of_fixed.data() == fixed.data());
  const Feed by_name("x", fixed);
  CHECK(by_name.data() == fixed.data());
  dynamic(0, 0) = 10;
  CHECK(net.program.run({feed})[0][0] == 10);
}

TEST_CASE("others are converted first, and kept until the run") {
  Net net;
  const xt::xarray<double> a = {{1, 2, 3}, {4, 5, 6}};
  const auto run = [&](const std::vector<Feed>& feeds) { return Array(net.program.run(feeds)[0]); };
  CHECK(run({{net.x, xt::xarray<double>(a)}}).identical(expected));  // a temporary
  CHECK(run({{net.x, a * 1.0}}).identical(expected));
  CHECK(run({{net.x, xt::view(a, xt::all(), xt::all())}}).identical(expected));
  const xt::xarray<double> turned = xt::transpose(a);
  CHECK(run({{net.x, xt::transpose(turned)}}).identical(expected));
  const xt::xarray<double, xt::layout_type::column_major> columns = a;
  CHECK(run({{net.x, columns}}).identical(expected));
  CHECK(run({{"x", xt::view(a, xt::range(0, 1), xt::all())}}).identical(Array({{1.0, 4.0, 12.0}})));
  const xt::xarray<float> single = a;
  CHECK_THROWS_WITH(run({{net.x, single}}), ContainsSubstring("requires float64 {batch, 3} for input 'x'") &&
                                                ContainsSubstring("got float32 {2, 3}"));
  const xt::xarray<int> whole = a;
  CHECK_THROWS_WITH(run({{net.x, whole}}), ContainsSubstring("got int64 {2, 3}"));
  const xt::xtensor<double, 1> vector = {1, 2, 3};
  CHECK_THROWS_WITH(run({{net.x, vector}}), ContainsSubstring("got float64 {3}"));
}

TEST_CASE("float32, int64 and bool containers") {
  Graph graph({.dtype = float32});
  const auto x = graph.input("x", {2});
  const auto n = graph.input("n", {2}, int64);
  const auto flags = graph.input("flags", {2}, boolean);
  State state(graph);
  Program program(state, {.outputs = {where(flags, x, cast(n, float32))}});
  const xt::xarray<float> xs = {0.5F, 1.5F};
  const xt::xtensor<std::int64_t, 1> ns = {7, 8};
  const xt::xarray<bool> bits = {true, false};
  const xt::xarray<int> narrow = {7, 8};
  const xt::xarray<float> got = program.run({{x, xs}, {n, ns}, {flags, bits}})[0];
  CHECK((got == xt::xarray<float>({0.5F, 8.0F})));
  CHECK((xt::xarray<float>(program.run({{x, xs}, {n, narrow}, {flags, bits}})[0]) == got));
  CHECK(Feed(n, ns).data() == ns.data());
}

TEST_CASE("results are received as what the program computes with") {
  Net net;
  const xt::xarray<double> a = {{1, 2, 3}, {4, 5, 6}};
  const Results results = net.program.run({{net.x, a}});
  const xt::xarray<double> product = results[0];
  CHECK((product == a * xt::xarray<double>({1, 2, 4})));
  const xt::xtensor<double, 2> fixed = results[0];
  CHECK(fixed(1, 2) == 24);
  const xt::xarray<double> total = results[1];
  CHECK(total() == 21);
  CHECK(results.scalar(1) == xt::sum(a)());
  // Copies outlast the next run.
  net.program.run({{net.x, xt::xarray<double>(a * 0.0)}});
  CHECK(product(1, 2) == 24);
}

TEST_CASE("initial numbers, constants, operands and State") {
  Graph graph;
  const xt::xarray<double> a = {{1, 2, 3}, {4, 5, 6}};
  const auto w = graph.parameter("w", a);
  const auto v = graph.variable("v", xt::xarray<float>(a));
  const auto c = graph.constant(a);
  const auto x = graph.input("x", {2, 3});
  const auto y = x * Array(a) + c;
  State state(graph);
  CHECK(state[w].identical(Array(a)));
  CHECK(state[v].dtype() == float64);
  state.set(w, a * 2.0);
  CHECK((xt::xarray<double>(state[w]) == a * 2.0));
  CHECK((xt::xarray<double>(Program(state, {.outputs = {y}}).run({{x, a}})[0]) == a * a + a));
}
