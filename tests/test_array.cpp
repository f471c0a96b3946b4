#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <list>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/core/array.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double not_a_number = std::nan("");

Array whole(std::vector<std::int64_t> values) { return values; }

}  // namespace

// What does not become an Array by itself.
static_assert(!std::is_convertible_v<std::string, Array> && !std::is_convertible_v<Dims, Array>);
static_assert(std::is_convertible_v<double, Array> && std::is_convertible_v<std::vector<float>, Array>);
static_assert(std::is_nothrow_move_constructible_v<Array> && std::is_nothrow_move_assignable_v<Array>);

// ---- making

TEST_CASE("literals are float64 of one or two dimensions") {
  CHECK(Array({1.0, 2.0, 3.0}).shape() == Dims{3});
  CHECK(Array({1.0, 2.0, 3.0}).dtype() == float64);
  CHECK(Array({1, 2}).dtype() == float64);
  CHECK(Array{1.0, 2.0}.shape() == Dims{2});
  CHECK(Array({1.0}).shape() == Dims{1});
  CHECK(Array({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}}).shape() == Dims{2, 3});
  CHECK(Array({{1.0, 2.0}, {3.0, 4.0}})(1, 0) == 3);
  CHECK(Array({{1.0, 2.0}}).shape() == Dims{1, 2});
  CHECK(Array({{1.0}, {2.0}}).shape() == Dims{2, 1});
  CHECK(Array({{1.0}}).shape() == Dims{1, 1});
  CHECK(Array({{1}}).item() == 1);
  const Array assigned = {{1.0}, {2.0}};
  CHECK(assigned.shape() == Dims{2, 1});
  const Array row = {3.0};
  CHECK(row.shape() == Dims{1});
  CHECK_THROWS_WITH(Array({{1.0, 2.0}, {3.0}}), ContainsSubstring("array: requires rows of one length, got 2 and 1"));
  CHECK_THROWS_WITH(Array({{1.0}, {2.0, 3.0}}), ContainsSubstring("array: requires rows of one length, got 1 and 2"));
}

TEST_CASE("numbers and vectors keep their type") {
  CHECK(Array(2.5).dtype() == float64);
  CHECK(Array(2.5F).dtype() == float32);
  CHECK(Array(2).dtype() == int64);
  CHECK(Array(std::uint8_t{200}).item() == 200);
  CHECK(Array(true).dtype() == boolean);
  CHECK(Array(2.5).rank() == 0);
  CHECK(Array(2.5).item() == 2.5);
  CHECK(Array(std::vector<float>{1, 2}).dtype() == float32);
  CHECK(Array(std::vector<int>{1, 2}).dtype() == int64);
  CHECK(Array(std::vector<bool>{true, false, true})[2] == 1);
  CHECK(Array(std::vector<bool>{true}).dtype() == boolean);
  CHECK(Array(std::vector<double>{}).shape() == Dims{0});
  const float values[] = {1, 2, 3, 4, 5, 6};
  const Array from = Array::from(values, {2, 3});
  CHECK(from.dtype() == float32);
  CHECK(from(1, 2) == 6);
}

TEST_CASE("zeros and full arrays") {
  for (const DType dtype : {float32, float64, int64, int32, uint8, boolean}) {
    const Array zeros(dtype, {2, 3});
    CHECK(zeros.dtype() == dtype);
    CHECK(zeros.size() == 6);
    CHECK(zeros.bytes() == 6 * size_of(dtype));
    for (std::int64_t i = 0; i < 6; ++i) CHECK(zeros[i] == 0);
    const Array ones = Array::full(dtype, {4}, 1);
    for (std::int64_t i = 0; i < 4; ++i) CHECK(ones[i] == 1);
  }
  CHECK(Array().size() == 0);
  CHECK(Array(float64, {0, 3}).bytes() == 0);
  CHECK(Array(float64, {0, 3}).raw() != nullptr);
  CHECK(reinterpret_cast<std::uintptr_t>(Array(float32, {3}).raw()) % 64 == 0);
  CHECK_THROWS_WITH(Array(float64, {2, -1}), ContainsSubstring("array: requires extents of 0 or more, got {2, -1}"));
  CHECK_THROWS_WITH(Array(float64, {-2, -3}), ContainsSubstring("array: requires extents of 0 or more, got {-2, -3}"));
  CHECK_THROWS_AS(Array::full(float32, {-1}, 0), Error);
}

TEST_CASE("copies are of their own, moves are not") {
  Array a({1.0, 2.0});
  Array b = a;
  b.set(0, 5);
  CHECK(a[0] == 1);
  const void* memory = b.raw();
  Array c = std::move(b);
  CHECK(c.raw() == memory);
  // An assigned copy of the same size keeps its memory; another gets new one.
  c = a;
  CHECK(c.raw() == memory);
  CHECK(c.identical(a));
  const Array column = a.reshape({2, 1});
  c = column;
  CHECK(c.raw() == memory);
  CHECK(c.shape() == Dims{2, 1});
  const Array& self = c;
  c = self;
  CHECK(c.identical(column));
  c = whole({1, 2, 3});
  CHECK(c.identical(whole({1, 2, 3})));
  // What was moved from can be given a value again.
  b = a;
  CHECK(b.identical(a));
}

TEST_CASE("what was moved from is empty") {
  Array a({{1.0, 2.0}, {3.0, 4.0}});
  const Array b = std::move(a);
  CHECK(a.shape() == Dims{0});
  CHECK(a.size() == 0);
  CHECK(a.bytes() == 0);
  CHECK_THROWS_WITH(a[0], ContainsSubstring("array: requires an index below 0, got 0"));
  CHECK_THROWS_AS(a.set(0, 1), Error);
  CHECK_THROWS_AS(a.item(), Error);
  CHECK(a.to_string() == "[]");
  CHECK(Array(a).size() == 0);
  CHECK(a.identical(Array(float64, {0})));
  CHECK(a.astype(float32).size() == 0);
  CHECK((a + 1.0).size() == 0);
  CHECK(std::vector<double>(a).empty());
  // Assigned from it, moved within a vector, moved onto itself.
  Array c({1.0});
  c = a;
  CHECK(c.size() == 0);
  std::vector<Array> list = {Array({1.0}), Array({2.0}), Array({3.0})};
  list.erase(list.begin());
  CHECK(list[1].item() == 3);
  Array& self = list[0];
  list[0] = std::move(self);
  CHECK(list[0].item() == 2);
}

// ---- elements

TEST_CASE("elements are read and written by index") {
  Array a({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}});
  CHECK(a[4] == 5);
  CHECK(a(1, 2) == 6);
  a.set(5, -1);
  CHECK(a(1, 2) == -1);
  CHECK(a.data<double>()[5] == -1);
  a.data<double>()[0] = 9;
  CHECK(a(0, 0) == 9);
  CHECK_THROWS_WITH(a[6], ContainsSubstring("array: requires an index below 6, got 6"));
  CHECK_THROWS_WITH(a[-1], ContainsSubstring("array: requires an index below 6, got -1"));
  CHECK_THROWS_WITH(a.set(6, 0), ContainsSubstring("array: requires an index below 6, got 6"));
  CHECK_THROWS_AS(a(2, 0), Error);
  CHECK_THROWS_AS(a(0, 3), Error);
  CHECK_THROWS_AS(a(0, -1), Error);
  CHECK_THROWS_AS(a(0), Error);
  CHECK_THROWS_AS(a(0, 0, 0), Error);
  CHECK_THROWS_WITH(a.item(), ContainsSubstring("array: item() requires one element, got shape {2, 3}"));
  CHECK_THROWS_WITH(a.data<float>(),
                    ContainsSubstring("array: requires the element type of its dtype float64, got float32"));
  const Array& constant = a;
  CHECK_THROWS_WITH(constant.data<bool>(),
                    ContainsSubstring("array: requires the element type of its dtype float64, got bool"));
  CHECK(Array({{7.0}}).item() == 7);
}

// 2^53 + 1 is the first whole number that no double is.
TEST_CASE("whole numbers are exact") {
  constexpr std::int64_t big = (std::int64_t{1} << 53) + 1;
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  constexpr auto least = std::numeric_limits<std::int64_t>::min();
  for (const std::int64_t n : {big, -big, most, least}) {
    CAPTURE(n);
    CHECK(*Array(n).data<std::int64_t>() == n);
    CHECK(Array(n).item<std::int64_t>() == n);
    CHECK(Array::full(int64, {2}, n).at<std::int64_t>(1) == n);
    CHECK(whole({n}).data<std::int64_t>()[0] == n);
    Array set(int64, {1});
    set.set(0, n);
    CHECK(set.item<std::int64_t>() == n);
    CHECK((whole({n}) + Array(0)).at<std::int64_t>(0) == n);
    CHECK((whole({n}) * Array(1)).at<std::int64_t>(0) == n);
    CHECK(whole({n}).to_string() == "[" + std::to_string(n) + "]");
  }
  const std::vector<std::uint64_t> fits = {static_cast<std::uint64_t>(most), static_cast<std::uint64_t>(big)};
  CHECK(Array(fits).at<std::int64_t>(0) == most);
  CHECK(Array(fits).at<std::int64_t>(1) == big);
  CHECK(Array(std::uint64_t{5}).item() == 5);
  CHECK(Array(big).item() == 9007199254740992.0);  // a double: rounded
}

TEST_CASE("numbers that a type cannot have are errors") {
  constexpr std::uint64_t beyond = std::uint64_t{1} << 63;
  CHECK_THROWS_WITH(Array(beyond), ContainsSubstring("number: requires whole numbers up to 9223372036854775807, got "
                                                     "9223372036854775808") &&
                                       ContainsSubstring("test_array.cpp"));
  CHECK_THROWS_AS(Array(std::vector<std::uint64_t>{1, beyond}), Error);
  CHECK_THROWS_AS(Array::from(&beyond, {1}), Error);
  CHECK_THROWS_AS(Array::full(int64, {1}, beyond), Error);
  Array n(int64, {1});
  CHECK_THROWS_AS(n.set(0, beyond), Error);
  CHECK_THROWS_WITH(n.set(0, 1e300),
                    ContainsSubstring("number: requires one that a whole number of 64 bits can be, got 1e+300"));
  CHECK_THROWS_AS(n.set(0, not_a_number), Error);
  CHECK_THROWS_AS(n.set(0, 0x1p63), Error);
  n.set(0, -0x1p63);
  CHECK(n.item<std::int64_t>() == std::numeric_limits<std::int64_t>::min());
  n.set(0, 2.75);  // a fraction is cut off, as C++ does
  CHECK(n.item() == 2);
  CHECK_THROWS_AS(Array(not_a_number).astype(int64), Error);
  CHECK_THROWS_AS(Array(infinity).item<std::int64_t>(), Error);
  CHECK_THROWS_AS(Array(300).item<std::uint8_t>(), Error);
  CHECK_THROWS_AS(Array(-1).item<std::uint8_t>(), Error);
  CHECK(Array(255.9).item<std::uint8_t>() == 255);
  CHECK(Array(-0.5).item<std::uint8_t>() == 0);
  CHECK_THROWS_AS(Array(256.0).item<std::uint8_t>(), Error);
}

TEST_CASE("sizes that no memory has are errors") {
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  CHECK_THROWS_WITH(Array(float64, {std::int64_t{1} << 61}),
                    ContainsSubstring("shape: requires fewer than 2^60 elements, got {2305843009213693952}"));
  CHECK_THROWS_AS(Array(float64, {std::int64_t{1} << 32, std::int64_t{1} << 32}), Error);
  CHECK_THROWS_AS(Array(boolean, {most, 2}), Error);
  CHECK_THROWS_AS(Array(float64, {0, most, most}), Error);
  CHECK_THROWS_AS(Array({1.0}).reshape({1, most, 2}), Error);
  CHECK_THROWS_WITH(
      Array(float64, {std::int64_t{1} << 59}),
      ContainsSubstring("array: requires 4611686018427387968 bytes of memory for float64 {576460752303423488}"));
}

TEST_CASE("identical: dtype, shape and bits") {
  const Array a({1.0, not_a_number});
  CHECK(a.identical(Array({1.0, not_a_number})));
  CHECK_FALSE(a.identical(Array({1.0, 2.0})));
  CHECK_FALSE(a.identical(a.reshape({2, 1})));
  CHECK_FALSE(Array({0.0}).identical(Array({-0.0})));
  CHECK_FALSE(Array(float64, {2}).identical(Array(int64, {2})));
  CHECK(Array(float64, {0}).identical(Array(float64, {0})));
}

TEST_CASE("astype rounds as C++ does") {
  const Array a({1.7, -1.7, 0.0, 16777217.0});
  CHECK(a.astype(int64).identical(whole({1, -1, 0, 16777217})));
  CHECK(a.astype(float32)[3] == 16777216);
  CHECK(a.astype(boolean).identical(Array(std::vector<bool>{true, true, false, true})));
  CHECK(a.astype(float64).identical(a));
  CHECK(whole({3, 0}).astype(float32).identical(Array(std::vector<float>{3, 0})));
  CHECK(Array(std::vector<bool>{true, false}).astype(float64).identical(Array({1.0, 0.0})));
  CHECK(a.reshape({2, 2}).astype(float32).shape() == Dims{2, 2});
}

TEST_CASE("reshape and transpose") {
  const Array a({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}});
  CHECK(a.reshape({3, 2}).identical(Array({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}})));
  CHECK(a.reshape({6}).identical(Array({1.0, 2.0, 3.0, 4.0, 5.0, 6.0})));
  CHECK(a.transpose().identical(Array({{1.0, 4.0}, {2.0, 5.0}, {3.0, 6.0}})));
  CHECK(whole({1, 2}).reshape({1, 2}).transpose().identical(whole({1, 2}).reshape({2, 1})));
  CHECK_THROWS_WITH(a.reshape({4}), ContainsSubstring("array: reshape requires 6 elements, got {4}"));
  CHECK_THROWS_WITH(a.reshape({-2, -3}), ContainsSubstring("array: reshape requires 6 elements, got {-2, -3}"));
  CHECK_THROWS_WITH(a.reshape({6}).transpose(), ContainsSubstring("array: transpose requires a matrix, got {6}"));
}

// ---- arithmetic

TEST_CASE("arithmetic broadcasts") {
  const Array a({{1.0, 2.0}, {3.0, 4.0}});
  CHECK((a + a).identical(Array({{2.0, 4.0}, {6.0, 8.0}})));
  CHECK((a - Array({1.0, 10.0})).identical(Array({{0.0, -8.0}, {2.0, -6.0}})));
  CHECK((a * Array({{2.0}, {3.0}})).identical(Array({{2.0, 4.0}, {9.0, 12.0}})));
  CHECK((a / 2.0).identical(Array({{0.5, 1.0}, {1.5, 2.0}})));
  CHECK((1 - a).identical(Array({{0.0, -1.0}, {-2.0, -3.0}})));
  CHECK((Array({{1.0}, {2.0}}) + Array({10.0, 20.0, 30.0})).identical(Array({{11.0, 21.0, 31.0}, {12.0, 22.0, 32.0}})));
  CHECK((Array(float64, {0, 2}) + a.reshape({2, 1, 2})).shape() == Dims{2, 0, 2});
  CHECK_THROWS_WITH(a + Array({1.0, 2.0, 3.0}),
                    ContainsSubstring("add: requires shapes that broadcast, got {2, 2} and {3}"));
  CHECK_THROWS_WITH(a / Array(float64, {3, 2}),
                    ContainsSubstring("divide: requires shapes that broadcast, got {2, 2} and {3, 2}"));
}

TEST_CASE("arithmetic has the wider dtype of both") {
  const Array single(std::vector<float>{1, 2});
  const Array n = whole({3, 4});
  const Array flags(std::vector<bool>{true, false});
  CHECK((single + n).dtype() == float32);
  CHECK((single + Array({1.0, 2.0})).dtype() == float64);
  CHECK((n + flags).identical(whole({4, 4})));
  CHECK((flags + flags).identical(whole({2, 0})));
  // A number takes the array's floating dtype, and does not cut a fraction beside integers.
  CHECK((single * 2.0).identical(Array(std::vector<float>{2, 4})));
  CHECK((2.0 * single).dtype() == float32);
  CHECK((n * 2).identical(whole({6, 8})));
  CHECK((n * 0.5).identical(Array({1.5, 2.0})));
  CHECK((n / 2).identical(Array({1.5, 2.0})));
  CHECK((n / n).dtype() == float64);
}

TEST_CASE("allclose is NumPy's") {
  const Array a({1.0, 2.0});
  CHECK(allclose(a, a));
  CHECK(allclose(a, Array({1.0 + 1e-6, 2.0})));
  CHECK_FALSE(allclose(a, Array({1.001, 2.0})));
  CHECK(allclose(a, Array({1.001, 2.0}), 1e-2));
  CHECK(allclose(Array({0.0}), Array({1e-9})));
  CHECK_FALSE(allclose(Array({0.0}), Array({1e-9}), 1e-5, 0));
  CHECK(allclose(Array({not_a_number, infinity}), Array({not_a_number, infinity})));
  CHECK_FALSE(allclose(Array({infinity}), Array({-infinity})));
  CHECK_FALSE(allclose(Array({1.0}), Array({infinity})));
  CHECK_FALSE(allclose(Array({infinity}), Array({1.0})));
  CHECK_FALSE(allclose(Array({not_a_number}), Array({1.0})));
  CHECK_FALSE(allclose(a, a.reshape({2, 1})));
  CHECK(allclose(whole({1, 2}), a));
}

// ---- printing

TEST_CASE("arrays print as NumPy's do") {
  CHECK(Array(2.5).to_string() == "2.5");
  // NaN has no sign.
  CHECK(Array({std::copysign(std::nan(""), -1.0), std::nan("")}).to_string() == "[nan, nan]");
  CHECK(!std::signbit(Array(std::copysign(std::nan(""), -1.0)).item()));
  CHECK(Array(3).to_string() == "3");
  CHECK(Array({1.0, 0.5, -2.0}).to_string() == "[1, 0.5, -2]");
  CHECK(Array({1.0 / 3, 1e20}).to_string(3) == "[0.333, 1e+20]");
  CHECK(Array({{1.0, 2.0}, {3.0, 4.0}}).to_string() == "[[1, 2],\n [3, 4]]");
  CHECK(Array(float64, {2, 1, 2}).to_string() == "[[[0, 0]],\n [[0, 0]]]");
  CHECK(Array(float64, {0}).to_string() == "[]");
  CHECK(Array({not_a_number, infinity}).to_string() == "[nan, inf]");
  CHECK(Array(std::vector<bool>{true, false}).to_string() == "[1, 0]");
}

TEST_CASE("long arrays are cut") {
  Array a(float64, {1200});
  for (std::int64_t i = 0; i < 1200; ++i) a.set(i, static_cast<double>(i));
  CHECK(a.to_string() == "[0, 1, 2, ..., 1197, 1198, 1199]");
  CHECK(a.reshape({2, 600}).to_string() == "[[0, 1, 2, ..., 597, 598, 599],\n [600, 601, 602, ..., 1197, 1198, 1199]]");
  const std::string tall = a.reshape({600, 2}).to_string();
  CHECK_THAT(tall, ContainsSubstring("[[0, 1],\n [2, 3],\n [4, 5],\n ..."));
  CHECK_THAT(tall, ContainsSubstring("[1198, 1199]]"));
  CHECK(tall.size() < 200);
}

TEST_CASE("a large whole number prints all of its digits") {
  CHECK(whole({1234567890123, -5}).to_string() == "[1234567890123, -5]");
  CHECK(Array(std::int64_t{123456789}).to_string() == "123456789");
}

// ---- other containers

namespace {

// A container as other libraries have them.
struct Foreign {
  using value_type = float;
  std::vector<std::size_t> extents;
  std::vector<float> values;
  [[nodiscard]] const std::vector<std::size_t>& shape() const { return extents; }
  [[nodiscard]] auto begin() const { return values.begin(); }
  [[nodiscard]] auto end() const { return values.end(); }
  auto begin() { return values.begin(); }
  auto end() { return values.end(); }
  void resize(const std::vector<std::size_t>& shape) {
    extents = shape;
    std::size_t size = 1;
    for (const std::size_t e : shape) size *= e;
    values.resize(size);
  }
};

}  // namespace

TEST_CASE("the standard library's containers become arrays and back") {
  const Array rows({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}});
  const double table[3][2] = {{1, 2}, {3, 4}, {5, 6}};
  CHECK(Array(table).identical(rows));
  const double list[] = {1, 2, 3};
  CHECK(Array(list).identical(Array({1.0, 2.0, 3.0})));
  CHECK(Array(std::span(list).first(2)).identical(Array({1.0, 2.0})));
  CHECK(Array(std::span<const double>()).shape() == Dims{0});
  CHECK(Array(std::array<float, 2>{1, 2}).identical(Array(std::vector<float>{1, 2})));
  CHECK(Array(std::array<std::array<double, 2>, 3>{{{1, 2}, {3, 4}, {5, 6}}}).identical(rows));
  CHECK(Array(std::vector<std::vector<double>>{{1, 2}, {3, 4}, {5, 6}}).identical(rows));
  CHECK(Array(std::vector<std::array<double, 2>>{}).shape() == Dims{0, 2});
  CHECK(Array(std::vector<std::vector<bool>>{{true}, {false}})
            .identical(Array(std::vector<bool>{true, false}).reshape({2, 1})));
  CHECK(Array(std::vector<std::vector<std::vector<int>>>{{{1}, {2}}}).shape() == Dims{1, 2, 1});
  using Table = std::vector<std::vector<double>>;
  CHECK_THROWS_WITH(Array(Table{{1, 2}, {3}}), ContainsSubstring("array: requires rows of one length, got 2 and 1"));
  using Tables = std::vector<Table>;
  CHECK_THROWS_WITH(Array(Tables{{{1, 2}}, {{1}}}),
                    ContainsSubstring("array: requires parts of one shape, got {1, 2} and {1, 1}"));

  const std::vector<double> back = Array({1.0, 2.0});
  CHECK(back == std::vector<double>{1, 2});
  CHECK(std::vector<bool>(Array({1.0, 0.0})) == std::vector<bool>{true, false});
  const std::array<int, 2> fixed = Array({1.0, 2.0});
  CHECK(fixed == std::array<int, 2>{1, 2});
  std::vector<double> target(3);
  Array({1.0, 2.0, 3.0}).copy_to(std::span(target));
  CHECK(target == std::vector<double>{1, 2, 3});
  CHECK_THROWS_WITH(rows.copy_to(target), ContainsSubstring("array: requires a container that can have shape {3, 2}"));
  using Pair = std::array<double, 2>;
  CHECK_THROWS_AS(Pair(Array({1.0, 2.0, 3.0})), Error);
  CHECK_THROWS_AS(std::vector<double>(rows), Error);
}

// Text is no array; nor is what may be in another order than it shows.
static_assert(!std::is_convertible_v<const char (&)[4], Array> && !std::is_convertible_v<const char*, Array>);
static_assert(!std::is_convertible_v<std::list<double>, Array> && !std::is_convertible_v<Shape, Array>);

TEST_CASE("containers with a shape become arrays and back") {
  const Foreign in{{2, 3}, {1, 2, 3, 4, 5, 6}};
  const Array a = in;
  CHECK(a.dtype() == float32);
  CHECK(a.shape() == Dims{2, 3});
  CHECK(a(1, 0) == 4);
  const Foreign out = a;
  CHECK(out.extents == in.extents);
  CHECK(out.values == in.values);
  const Foreign rounded = Array({{0.1}, {2.0}});
  CHECK(rounded.extents == std::vector<std::size_t>{2, 1});
  CHECK(rounded.values == std::vector<float>{0.1F, 2});
  const Foreign scalar = Array(4);
  CHECK(scalar.extents.empty());
  CHECK(scalar.values == std::vector<float>{4});
}
