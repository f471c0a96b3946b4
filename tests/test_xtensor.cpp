// Arrays of another library at the API's edge: fed, received, as initial numbers and as operands.
#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#if __has_include(<xtensor/xarray.hpp>)
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xbuilder.hpp>
#include <xtensor/xcomplex.hpp>
#include <xtensor/xdynamic_view.hpp>
#include <xtensor/xfixed.hpp>
#include <xtensor/xindex_view.hpp>
#include <xtensor/xmanipulation.hpp>
#include <xtensor/xmasked_view.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xoptional_assembly.hpp>
#include <xtensor/xrepeat.hpp>
#include <xtensor/xsort.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>
#else  // since version 0.26
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xarray.hpp>
#include <xtensor/containers/xfixed.hpp>
#include <xtensor/containers/xtensor.hpp>
#include <xtensor/core/xmath.hpp>
#include <xtensor/generators/xbuilder.hpp>
#include <xtensor/misc/xcomplex.hpp>
#include <xtensor/misc/xmanipulation.hpp>
#include <xtensor/misc/xsort.hpp>
#include <xtensor/optional/xoptional_assembly.hpp>
#include <xtensor/views/xdynamic_view.hpp>
#include <xtensor/views/xindex_view.hpp>
#include <xtensor/views/xmasked_view.hpp>
#include <xtensor/views/xrepeat.hpp>
#include <xtensor/views/xstrided_view.hpp>
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
  CHECK(run({{net.x, single}}).identical(expected));
  const xt::xarray<int> whole = a;
  CHECK(run({{net.x, whole}}).identical(expected));
  const xt::xarray<std::uint8_t> bytes = a;
  CHECK(run({{net.x, bytes}}).identical(expected));
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

TEST_CASE("containers of bytes and of int are fed where they lie, and received") {
  Graph graph;
  const auto b = graph.input("b", {2, 2}, uint8);
  const auto n = graph.input("n", {2}, int32);
  State state(graph);
  Program program(state, {.outputs = {b + 1, n * 2}});
  const xt::xtensor<std::uint8_t, 2> bs = {{1, 2}, {3, 255}};
  const xt::xtensor<int, 1> ns = {7, -8};
  CHECK(Array(bs).dtype() == uint8);
  CHECK(Array(ns).dtype() == int64);
  CHECK(Feed(b, bs).data() == bs.data());
  CHECK(Feed(n, ns).data() == ns.data());
  const Results results = program.run({{b, bs}, {n, ns}});
  const xt::xarray<std::uint8_t> bytes = results[0];
  const xt::xarray<int> words = results[1];
  CHECK((bytes == xt::xarray<std::uint8_t>({{2, 3}, {4, 0}})));
  CHECK((words == xt::xarray<int>({14, -16})));
  const xt::xarray<std::uint8_t> turned = xt::transpose(bs);
  CHECK(program.run({{b, xt::transpose(bs)}, {n, ns}})[0].identical(
      program.run({{b, turned}, {n, xt::xarray<double>{7, -8}}})[0]));
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

// ---- every kind that there is

namespace {

// An element, or NaN where a mask hides it.
template <class E>
double number(const E& element) {
  if constexpr (requires { element.visible(); }) {
    return element.visible() ? static_cast<double>(element.value()) : std::nan("");
  } else if constexpr (requires { element.has_value(); }) {
    return element.has_value() ? static_cast<double>(element.value()) : std::nan("");
  } else {
    return static_cast<double>(element);
  }
}

// What an expression shows, asked element by element.
template <class E>
Array shown(const E& e) {
  const std::vector<std::size_t> shape(e.shape().begin(), e.shape().end());
  Array out(float64, Dims(shape));
  std::vector<std::size_t> index(shape.size(), 0);
  for (std::int64_t flat = 0; flat < out.size(); ++flat) {
    auto rest = static_cast<std::size_t>(flat);
    for (std::size_t axis = shape.size(); axis-- > 0; rest /= shape[axis]) index[axis] = rest % shape[axis];
    out.data<double>()[flat] = number(e.element(index.begin(), index.end()));
  }
  return out;
}

// As a run reads it from a feed.
Array fed(const Feed& feed) {
  Graph graph;
  Shape shape;
  for (std::size_t axis = 0; axis < feed.shape().rank(); ++axis)
    shape.push_back(graph.dimension("d" + std::to_string(axis)));
  const auto x = graph.input("x", shape);
  State state(graph);
  return Program(state, {.outputs = {reshape(x, shape)}}).run({feed})[0];
}

// What went wrong with an expression of this kind, named and as a temporary, const and not, converted and fed.
template <class Make>
std::string wrong(Make make) {
  auto e = make();
  const auto& constant = e;
  const Array right = shown(e);
  const auto same = [&](const Array& got) {
    return got.shape() == right.shape() && allclose(got.astype(float64), right, 0, 0);
  };
  std::string out;
  if (!same(Array(e)) || !same(Array(constant))) out += " named";
  if (!same(Array(make()))) out += " temporary";
  if (right.size() == 0) return out;
  if (!same(fed(Feed("x", e))) || !same(fed(Feed("x", constant)))) out += " fed, named";
  if (!same(fed(Feed("x", make())))) out += " fed, temporary";
  return out;
}

// Where a named one is read: "itself" in each run, in place where it lies in one block, or from a copy.
template <class E>
std::string way(const E& e) {
  if constexpr (!detail::ForeignBlock<E>) {
    return "copy";
  } else {
    return detail::is_owning<E> ? "itself" : ArrayTraits<E>::block(e) ? "block" : "copy";
  }
}

}  // namespace

#define SHOWS(...) CHECK(wrong([&] { return __VA_ARGS__; }) == "")

struct Arrays {
  xt::xarray<double> a = {{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10, 11, 12}};
  xt::xtensor<double, 2> t = a;
  xt::xarray<double, xt::layout_type::column_major> columns = a;
  xt::xtensor<double, 2, xt::layout_type::column_major> fixed_columns = a;
  xt::xarray<double, xt::layout_type::dynamic> dynamic =
      xt::xarray<double, xt::layout_type::dynamic>(std::vector<std::size_t>{3, 4}, xt::layout_type::column_major);
  xt::xtensor<std::int64_t, 1> labels = {10, 11, 12, 13, 14};
  xt::xtensor<double, 3> cube = xt::reshape_view(xt::xtensor<double, 1>(xt::arange<double>(1, 25)), {2, 3, 4});
  xt::xarray<bool> mask = a > 4;
  std::vector<double> raw = {1, 2, 3, 4, 5, 6};
  Arrays() { dynamic = a; }
};

TEST_CASE_METHOD(Arrays, "containers of every layout and element are what they show") {
  SHOWS(xt::xarray<double>(a));
  SHOWS(xt::xtensor<float, 2>(t));
  SHOWS(xt::xarray<double, xt::layout_type::column_major>(columns));
  SHOWS(xt::xtensor<double, 2, xt::layout_type::column_major>(fixed_columns));
  SHOWS(xt::xarray<double, xt::layout_type::dynamic>(dynamic));
  SHOWS(xt::xarray<double, xt::layout_type::dynamic>(a));
  SHOWS(xt::xtensor<std::int64_t, 1>(labels));
  SHOWS(xt::xarray<int>(a));
  SHOWS(xt::xarray<bool>(mask));
  SHOWS(xt::xarray<std::uint8_t>(a));
  SHOWS(xt::xarray<std::uint64_t>(a));
  SHOWS(xt::xarray<long long>(a));
  SHOWS(xt::xtensor_fixed<double, xt::xshape<2, 2>>{{1, 2}, {3, 4}});
  SHOWS(xt::xtensor_fixed<double, xt::xshape<3, 4>, xt::layout_type::column_major>(columns));
  SHOWS(xt::xarray<double>(3.5));
  SHOWS(xt::xtensor<double, 2>(xt::zeros<double>({0, 3})));
}

TEST_CASE_METHOD(Arrays, "adaptors are what they show") {
  std::vector<bool> bits = {true, false, true};
  SHOWS(xt::adapt(raw, {3, 2}));
  SHOWS(xt::adapt(raw, std::vector<std::size_t>{3, 2}));
  SHOWS(xt::adapt<xt::layout_type::column_major>(raw, std::vector<std::size_t>{3, 2}));
  SHOWS(xt::adapt(raw.data(), raw.size(), xt::no_ownership(), std::array<std::size_t, 2>{2, 3}));
  SHOWS(xt::adapt(raw.data() + 1, std::array<std::size_t, 1>{4}));
  SHOWS(xt::adapt(raw, std::vector<std::size_t>{3, 2}, std::vector<std::ptrdiff_t>{1, 3}));
  SHOWS(xt::adapt(raw, std::vector<std::size_t>{2, 3}, std::vector<std::ptrdiff_t>{1, 2}));
  SHOWS(xt::adapt(bits, std::vector<std::size_t>{3}));
}

TEST_CASE_METHOD(Arrays, "views are what they show") {
  SHOWS(xt::view(a, xt::range(1, 3)));
  SHOWS(xt::view(a, xt::range(1, 3), xt::all()));
  SHOWS(xt::view(t, xt::range(1, 3), xt::all()));
  SHOWS(xt::view(t, 2));
  SHOWS(xt::view(t, 2, xt::all()));
  SHOWS(xt::view(t, xt::all(), 1));
  SHOWS(xt::view(t, xt::all(), xt::range(1, 3)));
  SHOWS(xt::view(t, xt::range(0, 3, 2)));
  SHOWS(xt::view(t, xt::range(1, 1)));
  SHOWS(xt::view(t, xt::all(), xt::newaxis(), xt::all()));
  SHOWS(xt::view(t, xt::keep(2, 0), xt::all()));
  SHOWS(xt::view(t, xt::drop(0), xt::all()));
  SHOWS(xt::view(cube, 1, xt::range(1, 3), xt::all()));
  SHOWS(xt::view(cube, xt::all(), 1, xt::all()));
  SHOWS(xt::view(cube, 1, 2));
  SHOWS(xt::view(cube, 1, 2, 3));
  SHOWS(xt::view(labels, xt::range(2, 4)));
  SHOWS(xt::view(columns, xt::range(1, 3), xt::all()));
  SHOWS(xt::view(columns, 1));
  SHOWS(xt::view(columns, xt::all(), 1));
  SHOWS(xt::view(dynamic, xt::range(1, 3), xt::all()));
  SHOWS(xt::view(xt::xarray<double>(a), xt::range(1, 3)));
  SHOWS(xt::view(a + 1, xt::range(1, 3)));
  // (Of this one xtensor's own access by an index is wrong.)
  const auto row = xt::view(t, xt::newaxis(), 1, xt::all());
  CHECK(Array(row).identical(Array({{5.0, 6.0, 7.0, 8.0}})));
  CHECK(fed(Feed("x", row)).identical(Array(row)));
  const auto rows = xt::view(t, xt::range(1, 3), xt::all());
  SHOWS(xt::view(rows, 1, xt::all()));
  SHOWS(xt::strided_view(rows, {1}));
  SHOWS(xt::strided_view(t, {xt::range(1, 3), xt::all()}));
  SHOWS(xt::strided_view(t, {xt::all(), 2}));
  SHOWS(xt::strided_view(cube, {1, xt::ellipsis()}));
  SHOWS(xt::strided_view(columns, {1, xt::all()}));
  SHOWS(xt::strided_view(a * 2, {1, xt::all()}));
  SHOWS(xt::dynamic_view(a, {xt::range(1, 3), xt::all()}));
  SHOWS(xt::dynamic_view(a, {xt::keep(0, 2), xt::all()}));
  SHOWS(xt::row(t, 1));
  SHOWS(xt::col(t, 1));
  SHOWS(xt::broadcast(a, {2, 3, 4}));
  SHOWS(xt::filter(a, a > 4));
  SHOWS(xt::filter(columns, columns > 4));
  SHOWS(xt::masked_view(a, mask));
  SHOWS(xt::masked_view(columns, mask));
}

TEST_CASE_METHOD(Arrays, "axes in another order and other shapes are what they show") {
  SHOWS(xt::transpose(t));
  SHOWS(xt::transpose(columns));
  SHOWS(xt::transpose(cube, {1, 0, 2}));
  SHOWS(xt::reshape_view(t, {1, 12}));
  SHOWS(xt::reshape_view(fixed_columns, {2, 6}));
  SHOWS(xt::reshape_view<xt::layout_type::column_major>(t, {2, 6}));
  SHOWS(xt::flip(t, 0));
  SHOWS(xt::rot90(t));
  SHOWS(xt::roll(t, 1, 0));
  SHOWS(xt::diagonal(t));
  SHOWS(xt::triu(t));
  SHOWS(xt::squeeze(xt::view(t, xt::newaxis(), 1, xt::all())));
  SHOWS(xt::expand_dims(t, 1));
  SHOWS(xt::ravel(t));
  SHOWS(xt::ravel(fixed_columns));
  SHOWS(xt::ravel<xt::layout_type::column_major>(t));
  SHOWS(xt::flatten(fixed_columns));
  SHOWS(xt::repeat(t, 2, 0));
  SHOWS(xt::concatenate(xt::xtuple(t, fixed_columns), 0));
  SHOWS(xt::stack(xt::xtuple(t, fixed_columns), 1));
}

TEST_CASE_METHOD(Arrays, "expressions are what they show") {
  SHOWS(a + 1);
  SHOWS(t + fixed_columns);
  SHOWS(xt::exp(columns));
  SHOWS(xt::where(mask, a, 0.0));
  SHOWS(xt::cast<int>(a));
  SHOWS(a > 4);
  SHOWS(!mask);
  SHOWS(xt::sum(t, {0}));
  SHOWS(xt::sum(fixed_columns, {0}));
  SHOWS(xt::sum(t));
  SHOWS(xt::cumsum(t, 0));
  SHOWS(xt::sort(fixed_columns, 0));
  SHOWS(xt::argmax(t, 1));
  SHOWS(xt::arange(5));
  SHOWS(xt::linspace<double>(0, 1, 5));
  SHOWS(xt::eye(3));
  SHOWS(xt::ones<float>({2, 3}));
  SHOWS(xt::xscalar<double>(2.5));
  xt::xarray<std::complex<double>> z = a + std::complex<double>(0, 1) * a;
  SHOWS(xt::real(z));
  SHOWS(xt::imag(xt::view(z, 1)));
  xt::xarray_optional<double> some = a;
  some(1, 1) = xtl::missing<double>();
  SHOWS(xt::xarray_optional<double>(some));
  SHOWS(some + 1.0);
  SHOWS(xt::has_value(some));
}

TEST_CASE_METHOD(Arrays, "a missing whole number is an error") {
  xt::xarray<int> whole = a;
  CHECK_THROWS_WITH(Array(xt::masked_view(whole, mask)), ContainsSubstring("got a missing one"));
}

TEST_CASE_METHOD(Arrays, "what is one row-major block is read in place, and nothing else") {
  CHECK(way(a) == "itself");
  CHECK(way(t) == "itself");
  CHECK(way(columns) == "copy");
  CHECK(way(dynamic) == "copy");
  CHECK(way(xt::xarray<int>(a)) == "itself");  // which a run converts
  CHECK(way(xt::xarray<short>(a)) == "copy");
  CHECK(way(xt::view(t, xt::range(1, 3), xt::all())) == "block");
  CHECK(way(xt::view(cube, 1, xt::range(1, 3), xt::all())) == "block");
  CHECK(way(xt::view(t, xt::all(), xt::range(1, 3))) == "copy");
  CHECK(way(xt::view(t, xt::range(1, 2), xt::range(1, 3))) == "block");
  CHECK(way(xt::view(columns, 1)) == "copy");
  CHECK(way(xt::transpose(t)) == "copy");
  CHECK(way(xt::transpose(columns)) == "block");
  CHECK(way(xt::strided_view(t, {xt::range(1, 3), xt::all()})) == "block");
  CHECK(way(xt::adapt(raw, {3, 2})) == "block");
  CHECK(way(a + 1) == "copy");
  const auto rows = xt::view(t, xt::range(1, 3), xt::all());
  CHECK(Feed("x", rows).data() == &t(1, 0));
  // A copy is of when the feed was made; a container is read when it runs, also where it was given another size.
  const Feed of_view("x", xt::view(t, xt::all(), 1));
  const Feed of_container("x", a);
  t(0, 1) = -1;
  a = xt::xarray<double>({{7, 8}});
  CHECK(fed(of_view).identical(Array({2.0, 6.0, 10.0})));
  CHECK(fed(of_container).identical(Array({{7.0, 8.0}})));
}

TEST_CASE("the mini-batches of a tensor are its rows") {
  const xt::xtensor<double, 2> images = xt::reshape_view(xt::xtensor<double, 1>(xt::arange<double>(20)), {10, 2});
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("n"), 2});
  State state(graph);
  Program program(state, {.outputs = {sum(x)}});
  double total = 0;
  for (std::size_t i = 0; i < 10; i += 4) {
    const auto batch = xt::view(images, xt::range(i, std::min<std::size_t>(i + 4, 10)), xt::all());
    total += program.run({{x, batch}}).scalar();
  }
  CHECK(total == 190);  // 0 + 1 + ... + 19
}

TEST_CASE("arrays are written into containers of every layout, views and adaptors") {
  const Array a({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}});
  const auto holds = [&](const auto& to) { return shown(to).identical(a); };
  CHECK(holds(xt::xarray<double, xt::layout_type::column_major>(a)));
  CHECK(holds(xt::xtensor<double, 2, xt::layout_type::column_major>(a)));
  CHECK(holds(xt::xarray<double, xt::layout_type::dynamic>(a)));
  CHECK(holds(xt::xtensor_fixed<double, xt::xshape<2, 3>>(a)));
  CHECK(holds(xt::xtensor_fixed<double, xt::xshape<2, 3>, xt::layout_type::column_major>(a)));
  CHECK(holds(xt::xarray<int>(a)));
  using Square = xt::xtensor_fixed<double, xt::xshape<3, 3>>;
  CHECK_THROWS_WITH(Square(a), ContainsSubstring("requires a container that can have shape {2, 3}"));
  using Bytes = xt::xarray<std::uint8_t>;
  CHECK_THROWS_WITH(Bytes(Array({256.0})),
                    ContainsSubstring("number: requires one that a whole number of 8 bits can be"));

  xt::xtensor<double, 2> whole = xt::zeros<double>({4, 5});
  a.copy_to(xt::view(whole, xt::range(1, 3), xt::range(2, 5)));
  CHECK(holds(xt::view(whole, xt::range(1, 3), xt::range(2, 5))));
  CHECK(xt::sum(whole)() == 21);
  std::vector<double> raw(6);
  a.copy_to(xt::adapt<xt::layout_type::column_major>(raw, std::vector<std::size_t>{2, 3}));
  CHECK(raw == std::vector<double>{1, 4, 2, 5, 3, 6});
  CHECK_THROWS_WITH(a.copy_to(whole), ContainsSubstring("requires a container that can have shape {2, 3}"));
}
