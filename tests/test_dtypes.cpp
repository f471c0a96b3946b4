// uint8 and int32: arrays, feeds, the op cast, what ops make of them, data sets and the State. (Their files are tested
// with the other dtypes', in test_files_*.cpp and test_checkpoint.cpp.)
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/data/data.hpp>
#include <chainrule/framework/fused/generate.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using namespace chainrule::test;

namespace {

template <class T>
Array array_of(const std::vector<T>& values, DType dtype) {
  return Array::from(values.data(), {static_cast<std::int64_t>(values.size())}, dtype);
}
Array bytes(const std::vector<int>& values) { return array_of(values, uint8); }
Array words(const std::vector<int>& values) { return array_of(values, int32); }
Array longs(const std::vector<std::int64_t>& values) { return values; }

std::vector<int> up_to(int n) {
  std::vector<int> out(static_cast<std::size_t>(n));
  std::iota(out.begin(), out.end(), 0);
  return out;
}

// What an op is of fed arrays.
template <class F>
Array of(const std::vector<Array>& arrays, F f) {
  Graph graph;
  Values values;
  std::vector<Feed> feeds;
  for (const Array& array : arrays) {
    values.push_back(graph.input(fmt::format("x{}", values.size()), to_shape(array.shape()), array.dtype()));
    feeds.emplace_back(values.back(), array);
  }
  return chainrule::test::compute(graph, {f(values)}, feeds)[0];
}

constexpr auto least = std::numeric_limits<std::int32_t>::min();
constexpr auto most = std::numeric_limits<std::int32_t>::max();
constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

// ---- arrays

TEST_CASE("names, sizes and types of the dtypes") {
  CHECK(name(uint8) == "uint8");
  CHECK(name(int32) == "int32");
  CHECK(name(boolean) == "bool");
  CHECK(size_of(uint8) == 1);
  CHECK(size_of(int32) == 4);
  CHECK(size_of(boolean) == 1);
  CHECK(size_of(int64) == 8);
  CHECK(is_integer(uint8));
  CHECK(is_integer(int32));
  CHECK_FALSE(is_integer(boolean));
  CHECK_FALSE(is_floating(int32));
  CHECK(dtype_of<std::uint8_t>() == uint8);
  // int is what literals are, and labels.
  CHECK(dtype_of<int>() == int64);
  CHECK(dtype_of<signed char>() == int64);
  CHECK(dtype_of<char>() == int64);
  CHECK(Array(3).dtype() == int64);
  CHECK(Array(std::vector<int>{1, 2}).dtype() == int64);
  CHECK(Array(std::vector<std::uint8_t>{1, 200}).identical(bytes({1, 200})));
  CHECK(Array(std::uint8_t{200}).identical(bytes({200}).reshape({})));
}

TEST_CASE("int32 arrays are made where int32 is asked for") {
  const std::int32_t numbers[] = {1, -2, most};
  CHECK(Array::from(numbers, {3}).dtype() == int64);
  const Array a = Array::from(numbers, {3}, int32);
  CHECK(a.dtype() == int32);
  CHECK(a.bytes() == 12);
  CHECK(a.data<std::int32_t>()[1] == -2);
  CHECK(a.identical(Array(std::vector<int>{1, -2, most}).astype(int32)));
  CHECK_THROWS_WITH(Array::from(numbers, {3}, uint8), ContainsSubstring("8 bits can be, got -2"));
  CHECK_THROWS_WITH(a.data<std::int64_t>(), ContainsSubstring("of its dtype int32, got int64"));
  CHECK_THROWS_WITH(Array(std::vector<int>{1}).data<int>(), ContainsSubstring("of its dtype int64, got int32"));
  CHECK_THROWS_WITH(bytes({1}).data<bool>(), ContainsSubstring("of its dtype uint8, got bool"));
}

TEST_CASE("elements of int32 and uint8 arrays") {
  Array a = words({least, -1, most});
  CHECK(a[0] == -0x1p31);
  CHECK(a.at<std::int64_t>(2) == most);
  CHECK(a.to_string() == "[-2147483648, -1, 2147483647]");
  a.set(1, 7.9);  // cut off, as C++ does
  CHECK(a[1] == 7);
  CHECK_THROWS_WITH(a.set(0, 0x1p31), ContainsSubstring("32 bits can be"));
  CHECK_THROWS_WITH(a.set(0, std::nan("")), ContainsSubstring("32 bits can be"));
  Array b = bytes({0, 128, 255});
  CHECK(b.to_string() == "[0, 128, 255]");
  CHECK(b.reshape({3, 1}).transpose().identical(b.reshape({1, 3})));
  CHECK_THROWS_WITH(b.set(0, 256), ContainsSubstring("8 bits can be, got 256"));
  CHECK_THROWS_WITH(b.set(0, -1), ContainsSubstring("8 bits can be, got -1"));
  CHECK(b[0] == 0);
  CHECK(b.astype(float32).identical(Array(std::vector<float>{0, 128, 255})));
  CHECK(Array({0.5, 254.9}).astype(uint8).identical(bytes({0, 254})));
  CHECK_THROWS_AS(Array({256.0}).astype(uint8), Error);
  CHECK_THROWS_AS(words({-1}).astype(uint8), Error);
  CHECK(b.astype(boolean).identical(Array(std::vector<bool>{false, true, true})));
  const std::vector<std::uint8_t> back = b;
  CHECK(back == std::vector<std::uint8_t>{0, 128, 255});
  const std::vector<int> wide = b;
  CHECK(wide == std::vector<int>{0, 128, 255});
  CHECK_THROWS_AS(static_cast<std::vector<std::uint8_t>>(words({300})), Error);
  CHECK(allclose(b, Array({0.0, 128.0, 255.0})));
  CHECK(Array::full(uint8, {2}, 9).identical(bytes({9, 9})));
  CHECK_FALSE(bytes({1}).identical(Array(std::vector<bool>{true})));
}

TEST_CASE("arithmetic of small integers wraps around, as NumPy's") {
  const Array b = bytes({0, 200, 255});
  CHECK((b + b).identical(bytes({0, 144, 254})));
  CHECK((b * b).identical(bytes({0, 64, 1})));
  CHECK((b - bytes({1, 1, 1})).identical(bytes({255, 199, 254})));
  CHECK((b + 1).identical(bytes({1, 201, 0})));
  CHECK((1 - b).identical(bytes({1, 57, 2})));
  CHECK_THROWS_AS(b + 256, Error);  // as NumPy's OverflowError
  CHECK((b / 2).identical(Array({0.0, 100.0, 127.5})));
  CHECK((b + 0.5).identical(Array({0.5, 200.5, 255.5})));
  CHECK((b + 0.5F).dtype() == float32);
  CHECK((words({most, least, 3}) + words({1, -1, 4})).identical(words({least, most, 7})));
  CHECK((words({65536, 1, 2}) * words({65536, -1, 3})).identical(words({0, -1, 6})));
  CHECK((b + words({1, 2, 3})).identical(words({1, 202, 258})));
  CHECK((b + longs({1, 2, 3})).identical(longs({1, 202, 258})));
  CHECK((words({most}) + 1).identical(words({least})));
  CHECK((Array(std::vector<bool>{true}) + bytes({255})).identical(bytes({0})));
  CHECK((words({1}) + Array(std::vector<float>{0.5F})).dtype() == float32);
  // int64, too, without overflow of signed numbers.
  CHECK((longs({std::numeric_limits<std::int64_t>::max()}) + 1).at<std::int64_t>(0) ==
        std::numeric_limits<std::int64_t>::min());
}

// ---- feeds

TEST_CASE("inputs of uint8 and int32 take whole numbers of their range") {
  Graph graph;
  const Value b = graph.input("b", {3}, uint8);
  const Value w = graph.input("w", {3}, int32);
  State state(graph);
  Program program(state, {.outputs = {b, w}});
  const auto run = [&](auto&& x, auto&& y) {
    const Results results = program.run({{b, x}, {w, y}});
    CHECK(results[0].identical(bytes({1, 2, 255})));
    CHECK(results[1].identical(words({1, -2, 3})));
  };
  const std::vector<std::uint8_t> small = {1, 2, 255};
  const std::vector<int> middle = {1, -2, 3};
  run(small, middle);
  run(bytes({1, 2, 255}), words({1, -2, 3}));
  run(std::vector<int>{1, 2, 255}, std::array<std::int32_t, 3>{1, -2, 3});
  run(longs({1, 2, 255}), longs({1, -2, 3}));
  run(Array({1.0, 2.0, 255.0}), Array({1.0, -2.0, 3.0}));
  run(std::vector<short>{1, 2, 255}, std::vector<signed char>{1, -2, 3});
  const auto wrong = [&](auto&& x, auto&& y) { return error_of([&] { program.run({{b, x}, {w, y}}); }); };
  CHECK_THAT(wrong(std::vector<int>{1, 256, 3}, middle).what(), ContainsSubstring("requires uint8 {3} for input 'b'") &&
                                                                    ContainsSubstring("uint8 cannot have 256 at {1}"));
  CHECK_THAT(wrong(std::vector<int>{1, 2, -3}, middle).what(), ContainsSubstring("uint8 cannot have -3 at {2}"));
  CHECK_THAT(wrong(Array({0.5, 1.0, 2.0}), middle).what(), ContainsSubstring("uint8 cannot have 0.5 at {0}"));
  CHECK_THAT(wrong(small, longs({1, 2, std::int64_t{most} + 1})).what(),
             ContainsSubstring("int32 cannot have 2147483648 at {2}"));
  CHECK_THAT(wrong(small, Array({1.0, 2.0, std::nan("")})).what(), ContainsSubstring("int32 cannot have nan at {2}"));
  run(small, middle);
}

TEST_CASE("feeds of bytes and ints are read where they lie") {
  Graph graph;
  const Value b = graph.input("b", {2}, uint8);
  std::vector<std::uint8_t> small = {1, 2};
  std::vector<int> middle = {1, 2};
  const Feed in_place(b, small);
  CHECK(in_place.dtype() == uint8);
  CHECK(in_place.data() == small.data());
  CHECK(Feed(b, middle).dtype() == int32);
  CHECK(Feed(b, middle).data() == middle.data());
  CHECK(Feed(b, std::span<const int>(middle)).data() == middle.data());
  State state(graph);
  Program program(state, {.outputs = {b}});
  const Feed later(b, middle);
  middle[1] = 9;
  CHECK(program.run(std::array{later})[0].identical(bytes({1, 9})));
  Graph scalars;
  const Value s = scalars.input("s", {}, uint8);
  CHECK(chainrule::test::compute(scalars, {s}, {{s, 200}})[0].identical(Array(std::uint8_t{200})));
  CHECK(chainrule::test::compute(scalars, {s}, {{s, std::uint8_t{7}}})[0].identical(Array(std::uint8_t{7})));
  CHECK_THROWS_WITH(chainrule::test::compute(scalars, {s}, {{s, 256}}), ContainsSubstring("uint8 cannot have 256"));
}

// ---- variables and constants

TEST_CASE("variables of uint8 and int32 are kept, set and reset") {
  Graph graph;
  const Value b = graph.variable("b", zeros({2}), uint8);
  const Value w = graph.variable("w", Array({3.0, -4.0}), int32);
  const Value own = graph.variable("own", words({5, 6}));
  CHECK(own.dtype() == int32);
  State state(graph);
  CHECK(state[b].identical(bytes({0, 0})));
  CHECK(state[w].identical(words({3, -4})));
  CHECK(state[own].identical(words({5, 6})));
  Program program(state, {.outputs = {b + 1, w - 1}, .updates = {{b, b + 200}, {w, w * 2}}});
  program.run();
  CHECK(program.run()[0].identical(bytes({201, 201})));
  CHECK(state[b].identical(bytes({144, 144})));
  CHECK(state[w].identical(words({12, -16})));
  state.set(b, std::vector<int>{7, 255});
  CHECK(state[b].identical(bytes({7, 255})));
  CHECK_THROWS_WITH(state.set(b, std::vector<int>{7, 256}),
                    ContainsSubstring("requires uint8 {2} for 'b', got int64 {2}: 256 at {1}"));
  CHECK_THROWS_WITH(state.set(b, Array({1.0, 2.0})), ContainsSubstring("requires uint8 {2} for 'b', got float64 {2}"));
  CHECK(state[b].identical(bytes({7, 255})));
  state.reset();
  CHECK(state[w].identical(words({3, -4})));
  CHECK_THROWS_AS(graph.variable("wrong", Array({300.0}), uint8), Error);
  CHECK_FALSE(graph.find("b") == graph.find("w"));
}

TEST_CASE("numbers beside small integers are whole and of their range") {
  Graph graph;
  const Value b = graph.input("b", {3}, uint8);
  const Value w = graph.input("w", {3}, int32);
  const auto message = [](auto f) { return std::string(error_of(f).what()); };
  CHECK_THAT(message([&] { b + 256; }),
             ContainsSubstring("requires a number of its range beside a uint8 value, got 256"));
  CHECK_THAT(message([&] { b - (-1); }), ContainsSubstring("a number of its range beside a uint8 value, got -1"));
  CHECK_THAT(message([&] { b * 0.5; }), ContainsSubstring("a whole number beside a uint8 value, got 0.5"));
  CHECK_THAT(message([&] { w + 0x1p31; }), ContainsSubstring("a number of its range beside an int32 value"));
  CHECK_THAT(message([&] {
               w + Array({1.0, 0.5, 0.0});
             }),
             ContainsSubstring("whole numbers of its range beside an int32 value, got 0.5 at {1}"));
  CHECK_THAT(message([&] {
               b + words({1, 2, 300});
             }),
             ContainsSubstring("whole numbers of its range beside a uint8 value, got 300 at {2}"));
  CHECK_THAT(message([&] { b + Dimension(256); }), ContainsSubstring("beside a uint8 value, got 256"));
  CHECK((b + longs({1, 2, 3})).dtype() == uint8);
  CHECK((b + 255.0).dtype() == uint8);
  CHECK_THAT(message([&] { graph.constant(256, uint8); }), ContainsSubstring("8 bits can be"));
  CHECK_THAT(message([&] { b + w; }), ContainsSubstring("inputs of one dtype, got uint8 and int32"));
  CHECK_THAT(message([&] { equal(w, cast(b, int64)); }), ContainsSubstring("inputs of one dtype, got int32 and int64"));
  // A size that only a run has.
  const Value n = graph.input("n", {graph.dimension("many")}, uint8);
  const Value sizes = n + graph.dimension("many");
  State state(graph);
  Program program(state, {.outputs = {sizes}});
  CHECK(program.run({{n, Array(uint8, {2})}})[0].identical(bytes({2, 2})));
  CHECK_THROWS_WITH(program.run({{n, Array(uint8, {300})}}),
                    ContainsSubstring("extent") && ContainsSubstring("a number that uint8 can be, got 300"));
  CHECK(program.run({{n, Array(uint8, {3})}})[0].identical(bytes({3, 3, 3})));
}

// ---- cast

// By the rules of number.hpp, written down anew: NumPy's results on x86-64.
TEST_CASE("cast has a result for every number") {
  const std::vector<double> numbers = {
      0,       0.9,    -0.9,   1.5,    -1.5,    127,   128,    255,      255.9,           256,
      300,     -1,     -128,   -129,   65536.5, 1e9,   -1e9,   0x1p31,   0x1.fffffffcp30, -0x1p31,
      -0x1p32, 0x1p53, 0x1p62, 0x1p63, -0x1p63, 1e300, -1e300, infinity, -infinity,       std::nan("")};
  const Array x = numbers;
  const auto whole_of = [](double v, double low, double high) {  // NaN is neither
    return std::trunc(v) >= low && std::trunc(v) < high ? static_cast<std::int64_t>(v) : static_cast<std::int64_t>(low);
  };
  for (const DType from : {float64, float32}) {
    const Array given = x.astype(from);
    const auto cast_to = [&](DType to) { return of({given}, [&](const Values& v) { return cast(v[0], to); }); };
    const Array to64 = cast_to(int64);
    const Array to32 = cast_to(int32);
    const Array to8 = cast_to(uint8);
    const Array truth = cast_to(boolean);
    for (std::int64_t i = 0; i < x.size(); ++i) {
      const double v = from == float32 ? static_cast<double>(given.data<float>()[i]) : given.data<double>()[i];
      CAPTURE(v, name(from));
      CHECK(to64.at<std::int64_t>(i) == whole_of(v, -0x1p63, 0x1p63));
      CHECK(to32.at<std::int64_t>(i) == whole_of(v, -0x1p31, 0x1p31));
      CHECK(to8.at<std::int64_t>(i) == (whole_of(v, -0x1p31, 0x1p31) & 255));
      CHECK(truth[i] == (v != 0 ? 1 : 0));
    }
  }
  CHECK(of({Array({300.0, -1.0, 256.0, std::nan(""), 1e10, 254.7})}, [](const Values& v) {
          return cast(v[0], uint8);
        }).identical(bytes({44, 255, 0, 0, 0, 254})));
}

TEST_CASE("cast between integers keeps the low bits, and to floating numbers rounds to nearest") {
  const std::vector<std::int64_t> numbers = {0,
                                             1,
                                             -1,
                                             127,
                                             128,
                                             255,
                                             256,
                                             -128,
                                             1000,
                                             65535,
                                             most,
                                             least,
                                             std::int64_t{most} + 1,
                                             std::int64_t{1} << 40,
                                             (std::int64_t{1} << 40) + 7,
                                             16777217,
                                             33554435};
  const DType integers[] = {int64, int32, uint8};
  const auto as = [](std::int64_t v, DType dtype) -> std::int64_t {
    if (dtype == int64) return v;
    const std::int64_t modulus = dtype == int32 ? std::int64_t{1} << 32 : 256;
    const std::int64_t low = ((v % modulus) + modulus) % modulus;
    return dtype == int32 && low > most ? low - modulus : low;
  };
  for (const DType from : integers) {
    std::vector<std::int64_t> own;
    for (const auto v : numbers) own.push_back(as(v, from));
    const Array given = longs(own).astype(from);
    for (const DType to : integers) {
      const Array got = of({given}, [&](const Values& v) { return cast(v[0], to); });
      CHECK(got.dtype() == to);
      for (std::size_t i = 0; i < own.size(); ++i)
        CHECK(got.at<std::int64_t>(static_cast<std::int64_t>(i)) == as(own[i], to));
    }
    for (const bool fixed : {false, true}) {
      CAPTURE(name(from), fixed);
      const auto cast_to = [&](DType to) {
        return compute(*find_op("cast"), {given}, {{"dtype", to}}, fixed ? Given::fixed : Given::fed);
      };
      const Array f = cast_to(float32);
      const Array d = cast_to(float64);
      const Array b = cast_to(boolean);
      for (std::size_t k = 0; k < own.size(); ++k) {
        const auto i = static_cast<std::int64_t>(k);
        CHECK(f.data<float>()[i] == static_cast<float>(own[k]));
        CHECK(d.data<double>()[i] == static_cast<double>(own[k]));
        CHECK(b.data<bool>()[i] == (own[k] != 0));
      }
    }
  }
  const Array truth = std::vector<bool>{true, false, true};
  CHECK(of({truth}, [](const Values& v) { return cast(v[0], uint8); }).identical(bytes({1, 0, 1})));
  CHECK(of({truth}, [](const Values& v) { return cast(v[0], int32); }).identical(words({1, 0, 1})));
}

// ---- images: a byte an element until the graph casts them

TEMPLATE_TEST_CASE("a cast of bytes and int32 is part of the group that reads it", "", float, double) {
  using T = TestType;
  const DType floating = sizeof(T) == 4 ? float32 : float64;
  for (const DType from : {uint8, int32, boolean}) {
    for (const std::int64_t n :
         {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 511, 513, 2047, 2049, 5000}) {
      CAPTURE(name(from), n);
      Array x(from, {n});
      for (std::int64_t i = 0; i < n; ++i)
        x.set(i, from == uint8     ? (i * 37 + 11) % 256
                 : from == boolean ? i % 3 % 2
                 : i % 5 == 0      ? most - i
                                   : (i * 7919 - 40000) * 53);
      Graph graph({.dtype = floating});
      const Value in = graph.input("x", {n}, from);
      const Value y = cast(in, floating) / 255;
      const Value plain = cast(in, floating);
      State state(graph);
      Program both(state, {.outputs = {y, plain}});
      Program alone(state, {.outputs = {plain}});
      const Results results = both.run({{in, x}});
      const Array first = results[0];
      const Array second = results[1];
      const Array third = alone.run({{in, x}})[0];
      bool right = true;
      for (std::int64_t i = 0; i < n; ++i) {
        const T number = static_cast<T>(x.at<std::int64_t>(i));
        right = right && first.data<T>()[i] == number / T{255} && second.data<T>()[i] == number &&
                third.data<T>()[i] == number;
      }
      CHECK(right);
      const std::string explained = both.explain();
      CAPTURE(explained);
      if (detail::can_generate()) CHECK_THAT(explained, ContainsSubstring("bytes of generated code"));
    }
  }
}

TEST_CASE("bytes that are read along rows, transposed, broadcast and summed") {
  const std::int64_t m = 37;
  const std::int64_t n = 129;
  Array x(uint8, {m, n});
  for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, (i * 101 + 3) % 256);
  Array shift(float32, {n});
  for (std::int64_t j = 0; j < n; ++j) shift.set(j, static_cast<double>(j) / 8);
  Array row(uint8, {n});
  for (std::int64_t j = 0; j < n; ++j) row.set(j, (j * 7) % 256);
  Array scalar = Array(std::uint8_t{3});
  Graph graph({.dtype = float32});
  const Value in = graph.input("x", {m, n}, uint8);
  const Value by = graph.input("shift", {n});
  const Value r = graph.input("row", {n}, uint8);
  const Value s = graph.input("s", {}, uint8);
  const Value f = cast(in, float32);
  const Value moved = f - by;
  const Value beside_row = f + cast(r, float32) * cast(s, float32);
  const Value turned = cast(transpose(in), float32) * 0.5;
  const Value of_rows = sum(f, 1);
  const Value of_columns = sum(f, 0);
  const Value of_all = sum(f);
  const auto got = chainrule::test::compute(graph, {moved, beside_row, turned, of_rows, of_columns, of_all},
                                            {{in, x}, {by, shift}, {r, row}, {s, scalar}});
  std::vector<double> columns(static_cast<std::size_t>(n), 0);
  double all = 0;
  for (std::int64_t i = 0; i < m; ++i) {
    double in_row = 0;
    for (std::int64_t j = 0; j < n; ++j) {
      const double v = x(i, j);
      in_row += v;
      columns[static_cast<std::size_t>(j)] += v;
      CHECK(got[0](i, j) == v - shift[j]);
      CHECK(got[1](i, j) == v + 3 * row[j]);
      CHECK(got[2](j, i) == v / 2);
    }
    CHECK(got[3][i] == in_row);
    all += in_row;
  }
  for (std::int64_t j = 0; j < n; ++j) CHECK(got[4][j] == columns[static_cast<std::size_t>(j)]);
  CHECK(got[5].item() == all);
}

TEST_CASE("a data set of images stays bytes") {
  data::Dataset set{.x = Array(uint8, {10, 3, 2}), .y = bytes(up_to(10)), .axis = 0};
  for (std::int64_t i = 0; i < set.x.size(); ++i) set.x.set(i, i * 4);
  numpy::RandomState rng(1);
  numpy::RandomState again(1);
  const auto order = again.permutation(10);
  std::int64_t at = 0;
  for (const auto& batch : data::mini_batches(set, 4, rng)) {
    CHECK(batch.x.dtype() == uint8);
    CHECK(batch.y.dtype() == uint8);
    for (std::int64_t i = 0; i < batch.size(); ++i, ++at) {
      const auto example = static_cast<std::int64_t>(order[static_cast<std::size_t>(at)]);
      CHECK(batch.y[i] == static_cast<double>(example));
      for (std::int64_t k = 0; k < 6; ++k) CHECK(batch.x[i * 6 + k] == static_cast<double>((example * 6 + k) * 4));
    }
  }
  CHECK(at == 10);
  const data::Split parts = data::split(set, {.train = 0.5, .dev = 0, .test = 0.5, .stratified = false}, rng);
  CHECK(parts.train.x.dtype() == uint8);
  CHECK(parts.test.x.shape() == Dims{5, 3, 2});
  const data::Standardizer standardize(set);
  CHECK(standardize(set.x).dtype() == float64);
  CHECK(standardize.mean()[0] == 108);  // of 0, 24, ..., 216
  data::Dataset columns{.x = words({1, 2, 3, 4}).reshape({2, 2}), .y = words({7, 8})};
  for (const auto& batch : data::batches(columns, 1)) CHECK(batch.x.dtype() == int32);
}

TEST_CASE("a network is trained on bytes and labels of bytes") {
  Graph graph({.dtype = float32, .seed = 3});
  const Dimension n = graph.dimension("n");
  const Value images = graph.input("images", {n, 4}, uint8);
  const Value labels = graph.input("labels", {n}, uint8);
  const Value w = graph.parameter("w", normal({4, 3}, 0, 0.1));
  const Value logits = matmul(cast(images, float32) / 255, w);
  const Value loss = softmax_cross_entropy(logits, labels);
  State state(graph);
  Program train(state, {.outputs = {loss}, .updates = optim::GradientDescent{.learning_rate = 2}.minimize(loss)});
  Array x(uint8, {60, 4});
  Array y(uint8, {60});
  for (std::int64_t i = 0; i < 60; ++i) {
    y.set(i, i % 3);
    for (std::int64_t k = 0; k < 4; ++k) x.set(i * 4 + k, k == i % 3 ? 200 + i % 50 : (i * 7 + k * 13) % 60);
  }
  const double before = train.run({{images, x}, {labels, y}}).scalar();
  for (int i = 0; i < 200; ++i) train.run({{images, x}, {labels, y}});
  CHECK(train.run({{images, x}, {labels, y}}).scalar() < before / 10);
  // The same labels as int32 and int64: the same bits.
  for (const DType dtype : {int32, int64}) {
    Graph other({.dtype = float32});
    const Value z = other.constant(Array({{0.5, -1.0, 2.0}, {0.25, 3.0, -0.5}}).astype(float32));
    const Value small = other.constant(bytes({2, 0}));
    const Value wide = other.constant(longs({2, 0}).astype(dtype));
    const auto got = chainrule::test::compute(
        other, {softmax_cross_entropy(z, small), softmax_cross_entropy(z, wide), one_hot(small, 3, float32),
                one_hot(wide, 3, float32), take_along_axis(z, reshape(small, {2, 1}), 1),
                take_along_axis(z, reshape(wide, {2, 1}), 1)});
    CHECK(got[0].identical(got[1]));
    CHECK(got[2].identical(got[3]));
    CHECK(got[4].identical(got[5]));
    CHECK(got[4].identical(Array({2.0, 0.25}).astype(float32).reshape({2, 1})));
  }
}

// ---- ops

TEST_CASE("reductions of small integers") {
  Array x(uint8, {300, 700});
  std::int64_t total = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    x.set(i, 255 - i % 7);
    total += 255 - i % 7;
  }
  Graph graph;
  const Value in = graph.input("x", {300, 700}, uint8);
  const Value sums = sum(in, 0);
  CHECK(sums.dtype() == int64);
  CHECK(sum(in, 1).dtype() == int64);
  CHECK(max(in, 0).dtype() == uint8);
  const auto got = chainrule::test::compute(
      graph, {sum(in), sums, sum(in, 1), max(in), min(in, 0), argmax(in, 1), sum(in, {0, 1}, true)}, {{in, x}});
  CHECK(got[0].at<std::int64_t>(0) == total);
  for (std::int64_t j = 0; j < 700; ++j) {
    std::int64_t column = 0;
    std::int64_t lowest = 255;
    for (std::int64_t i = 0; i < 300; ++i) {
      column += static_cast<std::int64_t>(x(i, j));
      lowest = std::min(lowest, static_cast<std::int64_t>(x(i, j)));
    }
    CHECK(got[1].at<std::int64_t>(j) == column);
    CHECK(got[4].at<std::int64_t>(j) == lowest);
  }
  CHECK(got[3].identical(Array(std::uint8_t{255})));
  CHECK(got[5][0] == 0);
  CHECK(got[5][1] == 0);  // 700 is a multiple of 7
  CHECK(got[6].at<std::int64_t>(0) == total);
  const Array w = words({most, most, least, 5});
  CHECK(of({w}, [](const Values& v) { return sum(v[0]); }).at<std::int64_t>(0) == std::int64_t{most} * 2 + least + 5);
  CHECK(of({w}, [](const Values& v) { return min(v[0]); }).identical(words({least}).reshape({})));
  CHECK(of({Array(uint8, {0, 3})}, [](const Values& v) { return sum(v[0], 0); }).identical(longs({0, 0, 0})));
  CHECK_THAT(error_of([&] { mean(in); }).what(), ContainsSubstring("float32 or float64, got uint8"));
}

TEST_CASE("integer ops wrap around at every node, fused or not") {
  const Array a = bytes({0, 1, 100, 200, 255});
  const Array b = bytes({1, 2, 156, 100, 255});
  // (a + b) < a says whether the sum wrapped around: each node's result is a byte.
  const auto wrapped = of({a, b}, [](const Values& v) { return less(v[0] + v[1], v[0]); });
  CHECK(wrapped.identical(Array(std::vector<bool>{false, false, true, true, true})));
  CHECK(of({a}, [](const Values& v) { return -v[0]; }).identical(bytes({0, 255, 156, 56, 1})));
  CHECK(of({a}, [](const Values& v) { return square(v[0]); }).identical(bytes({0, 1, 16, 64, 1})));
  CHECK(of({a}, [](const Values& v) { return clip(v[0], 50, 210); }).identical(bytes({50, 50, 100, 200, 210})));
  CHECK(of({a, b}, [](const Values& v) { return maximum(v[0], v[1]); }).identical(bytes({1, 2, 156, 200, 255})));
  CHECK(of({a, b}, [](const Values& v) {
          return where(equal(v[0], 255), v[1], v[0] - v[1]);
        }).identical(bytes({255, 255, 200, 100, 255})));
  CHECK(of({words({least})}, [](const Values& v) { return abs(v[0]); }).identical(words({least})));
  CHECK(of({words({most})}, [](const Values& v) { return v[0] + 1; }).identical(words({least})));
}

TEST_CASE("movement of small integers") {
  for (const DType dtype : {uint8, int32}) {
    Array x(dtype, {4, 6});
    for (std::int64_t i = 0; i < 24; ++i) x.set(i, i * 10);
    const auto expect = [&](const Array& got, const std::vector<int>& numbers, const Dims& shape) {
      CHECK(got.identical(array_of(numbers, dtype).reshape(shape)));
    };
    expect(of({x},
              [](const Values& v) {
                return slice(v[0], 1, {2, 4});
              }),
           {20, 30, 80, 90, 140, 150, 200, 210}, {4, 2});
    expect(of({x},
              [](const Values& v) {
                return concat({slice(v[0], 0, {3, 4}), slice(v[0], 0, {0, 1})}, 0);
              }),
           {180, 190, 200, 210, 220, 230, 0, 10, 20, 30, 40, 50}, {2, 6});
    const Array turned = of({x}, [](const Values& v) { return transpose(v[0]); });
    for (std::int64_t i = 0; i < 24; ++i) CHECK(turned(i % 6, i / 6) == x[i]);
    expect(of({x},
              [](const Values& v) {
                return broadcast_to(slice(v[0], 1, {5, 6}), {4, 2});
              }),
           {50, 50, 110, 110, 170, 170, 230, 230}, {4, 2});
    expect(of({x},
              [](const Values& v) {
                return sort(slice(v[0], 0, {0, 1}), 1, true).values;
              }),
           {50, 40, 30, 20, 10, 0}, {1, 6});
    // Large enough for the tiles and threads.
    Array large(dtype, {513, 700});
    for (std::int64_t i = 0; i < large.size(); ++i) large.set(i, i % 251);
    const Array flipped = of({large}, [](const Values& v) { return transpose(v[0]); });
    CHECK(flipped.identical(large.transpose()));
  }
  CHECK(
      of({bytes({1, 2})}, [](const Values& v) { return iota(v[0].graph(), 4, uint8); }).identical(bytes({0, 1, 2, 3})));
  Graph graph;
  CHECK_THROWS_WITH(chainrule::test::compute(graph, {iota(graph, 257, uint8)}),
                    ContainsSubstring("numbers that uint8 can be, got a size of 257"));
}

// Every op, offered small integers where its samples have whole numbers or floating ones: it computes what it does of
// int64 (or of int64 too it is an Error), with the result's low bits; or it throws Error, and nothing else.
TEST_CASE("every op takes small integers as NumPy does, or refuses them") {
  const auto low_bits = [](const Array& wide, DType dtype) {
    return dtype == wide.dtype() ? wide : compute(*find_op("cast"), {wide}, {{"dtype", dtype}});
  };
  // What it is of these inputs, and the Error where there is one.
  const auto tried = [](const Op& op, const std::vector<Array>& inputs,
                        const Attributes& attributes) -> std::pair<std::vector<Array>, std::string> {
    try {
      return {compute_all(op, inputs, attributes), ""};
    } catch (const InternalError&) {
      throw;
    } catch (const Error& error) {
      return {{}, error.what()};
    }
  };
  std::set<std::string> taken;
  for (const Op* op : registry()) {
    for (std::size_t s = 0; s < op->samples.size(); ++s) {
      const Sample& sample = op->samples[s];
      std::vector<Array> drawn;
      for (std::size_t i = 0; i < sample.inputs.size(); ++i) drawn.push_back(sample.inputs[i].draw(float64, 1, i));
      // As whole numbers of all dtypes' ranges.
      std::vector<Array> whole = drawn;
      for (Array& x : whole) {
        if (x.dtype() == boolean) continue;
        Array numbers(int64, x.shape());
        for (std::int64_t i = 0; i < x.size(); ++i)
          numbers.set(i, std::isfinite(x[i]) ? std::floor(std::fmod(std::abs(x[i]), 100)) : 5);
        x = numbers;
      }
      const auto [expected, refused] = tried(*op, whole, sample.attributes);
      for (const DType dtype : {uint8, int32}) {
        INFO("op " << op->name << ", sample " << s << ", " << name(dtype));
        std::vector<Array> small = whole;
        for (Array& x : small)
          if (is_integer(x.dtype())) x = x.astype(dtype);
        const auto [got, error] = tried(*op, small, sample.attributes);
        if (error.empty() && refused.empty()) {
          REQUIRE(got.size() == expected.size());
          for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i].identical(low_bits(expected[i], got[i].dtype())));
          if (!small.empty()) taken.insert(op->name);
        }
        if (!refused.empty()) CHECK(!error.empty());
        // One small operand beside the sample's own: whatever is said, no broken invariant of ours.
        for (std::size_t i = 0; i < drawn.size(); ++i) {
          if (drawn[i].dtype() == boolean) continue;
          std::vector<Array> mixed = drawn;
          mixed[i] = whole[i].astype(dtype);
          tried(*op, mixed, sample.attributes);
        }
        if (sample.attributes.find("dtype")) tried(*op, small, sample.attributes.with("dtype", dtype));
      }
    }
  }
  // These, at least.
  for (const char* const name :
       {"add",       "sub",        "mul",     "neg",           "abs",          "square",       "maximum", "minimum",
        "less",      "less_equal", "greater", "greater_equal", "equal",        "not_equal",    "where",   "reshape",
        "transpose", "slice",      "concat",  "split",         "broadcast_to", "sum",          "max",     "min",
        "argmax",    "sort",       "topk",    "cast",          "slice_update", "stop_gradient"})
    CHECK(taken.contains(name));
}

TEST_CASE("small integers have no gradients, and what reads them has") {
  Graph graph;
  const Value b = graph.input("b", {3}, uint8);
  const Value w = graph.parameter("w", ones({3}));
  const Value loss = sum(cast(b, float64) * w);
  CHECK_THROWS_WITH(gradients(loss, {b}),
                    ContainsSubstring("of dtype float32 or float64") && ContainsSubstring("uint8"));
  CHECK_THROWS_AS(gradients(sum(b), {w}), Error);
  const auto got = chainrule::test::compute(graph, {gradients(loss, {w})[0]}, {{b, bytes({1, 2, 250})}});
  CHECK(got[0].identical(Array({1.0, 2.0, 250.0})));
}
