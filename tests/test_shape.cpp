#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include <chainrule/framework/core/shape.hpp>
#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/ops/layout.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;

namespace {

const Dimension n = Dimension::symbol("n");
const Dimension m = Dimension::symbol("m");
const Dimension batch = Dimension::symbol("batch");

std::string text(Dimension d) { return d.to_string(); }

Sizes sizes(std::int64_t of_n, std::int64_t of_m) {
  Sizes out;
  CHECK(out.bind(n.symbol_id(), of_n));
  CHECK(out.bind(m.symbol_id(), of_m));
  return out;
}

// The shape that two shapes broadcast to, or "no".
std::string together(const Shape& a, const Shape& b) {
  Shape ab;
  Shape ba;
  const bool fits = broadcast(a, b, ab);
  CHECK(broadcast(b, a, ba) == fits);
  if (!fits) return "no";
  CHECK(ab == ba);
  return to_string(ab);
}

// What reshape makes of a shape.
std::string reshaped(const Shape& from, const Shape& to) {
  Graph graph;
  return to_string(reshape(graph.input("x", from), to).shape());
}

}  // namespace

static_assert(std::is_trivially_copyable_v<Dimension> && sizeof(Dimension) == 8);
static_assert(std::is_trivially_copyable_v<Shape>);

// ---- dimensions

TEST_CASE("a dimension is a number or a symbol") {
  CHECK(Dimension(3).is_number());
  CHECK(Dimension(3).extent() == 3);
  CHECK(Dimension(0).is(0));
  CHECK(Dimension(std::uint8_t{7}).extent() == 7);
  CHECK(Dimension(std::size_t{1} << 40).extent() == std::int64_t{1} << 40);
  CHECK_FALSE(n.is_number());
  CHECK_FALSE(n.is(3));
  CHECK(n == Dimension::symbol("n"));
  CHECK_FALSE(n == m);
  CHECK(n.symbol_id() == Dimension::symbol("n").symbol_id());
  CHECK(n.symbol_id() != m.symbol_id());
  CHECK(Dimension(3).symbol_id() == -1);
  CHECK((n + 1).symbol_id() == -1);
  CHECK((2 * n).symbol_id() == -1);
  CHECK(floor_divide(n, 2).symbol_id() == -1);
  CHECK(Dimension(-1).is_inferred());
  CHECK_FALSE(n.is_inferred());
  CHECK_THROWS_WITH(Dimension(-2), ContainsSubstring("shape: requires extents of 0 or more, got -2"));
  CHECK_THROWS_WITH(Dimension::symbol(""), ContainsSubstring("dimension: requires a name, got an empty one"));
}

TEST_CASE("sizes beyond 2^63 and below 0 are errors at once") {
  const std::vector<int> empty;
  CHECK_THROWS_WITH(Dimension(empty.size() - 1),
                    ContainsSubstring("shape: requires extents below 2^63, got 18446744073709551615"));
  CHECK_THROWS_AS((Shape{empty.size() - 1, 3}), Error);
  CHECK_THROWS_AS(Shape(std::vector<std::uint64_t>{std::uint64_t{1} << 63}), Error);
  constexpr auto most = std::numeric_limits<std::int64_t>::max();
  CHECK(Dimension(static_cast<std::uint64_t>(most)).extent() == most);
  CHECK(Dimension(std::uint32_t{0} - 1).extent() == 4294967295);
  CHECK(Dimension(most - 1) + 1 == Dimension(most));
  CHECK_THROWS_WITH(Dimension(most) + 1, ContainsSubstring("dimension: requires sizes below 2^63, got"));
  CHECK_THROWS_WITH(Dimension(std::int64_t{1} << 32) * (std::int64_t{1} << 31),
                    ContainsSubstring("dimension: requires sizes below 2^63, got 4294967296 * 2147483648"));
  CHECK_THROWS_AS((n * most) * 2, Error);
  CHECK_THROWS_AS(n * most + n, Error);
  CHECK_THROWS_AS((n * m).evaluate(sizes(std::int64_t{1} << 32, std::int64_t{1} << 32)), Error);
  CHECK_THROWS_AS((n + m).evaluate(sizes(most, 1)), Error);
  CHECK_THROWS_WITH(Dimension(50) - Dimension(60),
                    ContainsSubstring("dimension: requires a difference of 0 or more, got 50 - 60"));
  CHECK_THROWS_WITH(n - (n + 3), ContainsSubstring("dimension: requires a size of 0 or more, got -3"));
  CHECK((Dimension(60) - Dimension(60)).is(0));
  CHECK_THROWS_WITH(count(Dims{std::int64_t{1} << 32, std::int64_t{1} << 32}),
                    ContainsSubstring("shape: requires fewer than 2^60 elements, got {4294967296, 4294967296}"));
  CHECK_THROWS_AS(count(Dims{0, most, 2}), Error);
  CHECK(count(Dims{0, most / 8}) == 0);
  CHECK(count(Dims{(std::int64_t{1} << 60) - 1}) == (std::int64_t{1} << 60) - 1);
  CHECK_THROWS_AS(zeros({std::int64_t{1} << 32, std::int64_t{1} << 32}).draw(float64, 0, 0), Error);
  // By its name, not only beside a Dimension.
  CHECK(chainrule::floor_divide(7, 2) == Dimension(3));
}

TEST_CASE("the number of a symbol is known only in a run") {
  const int line = __LINE__ + 2;
  try {
    static_cast<void>(n.extent());
    FAIL("nothing was thrown");
  } catch (const Error& error) {
    CHECK_THAT(error.what(),
               ContainsSubstring("dimension: requires a number, got 'n', whose size is known only in a run"));
    CHECK(error.location().line == line);
  }
}

TEST_CASE("dimensions are equal when they are for every size of the symbols") {
  CHECK(n + m == m + n);
  CHECK(n + n == 2 * n);
  CHECK((n + 1) * (n - 1) == n * n - 1);
  CHECK((n + m) * (n + m) == n * n + 2 * n * m + m * m);
  CHECK(n - n == Dimension(0));
  CHECK((n + 3) - n == Dimension(3));
  CHECK((n + 3 - n).is_number());
  CHECK(n * 0 == Dimension(0));
  CHECK(n * 1 == n);
  CHECK(n + 0 == n);
  CHECK(Dimension(2) * Dimension(3) == Dimension(6));
  CHECK(Dimension(2) + Dimension(3) - Dimension(1) == Dimension(4));
  CHECK_FALSE(n + 1 == n);
  CHECK_FALSE(n * n == n);
  CHECK_FALSE(n * m == n + m);
}

TEST_CASE("floor_divide: exact where it can be, a term of its own otherwise") {
  CHECK(floor_divide(Dimension(7), 2) == Dimension(3));
  CHECK(floor_divide(6 * n, 3) == 2 * n);
  CHECK(floor_divide(6 * n * m, 2 * m) == 3 * n);
  CHECK(floor_divide(n * n + n * m, n) == n + m);
  CHECK(floor_divide(n * m + m, n * m + m) == Dimension(1));
  CHECK(floor_divide(n, n) == Dimension(1));
  CHECK(floor_divide(Dimension(0), n) == Dimension(0));
  CHECK(text(floor_divide(n, 2)) == "floor((n)/(2))");
  CHECK(floor_divide(n, 2) == floor_divide(n, 2));
  CHECK_FALSE(floor_divide(n, 2) * 2 == n);
  CHECK(text(floor_divide(n + 1, 2) + 1) == "floor((n+1)/(2))+1");
  CHECK(floor_divide(n + 1, 2).evaluate(sizes(8, 1)) == 4);
  CHECK(floor_divide(n + 1, 2).evaluate(sizes(7, 1)) == 4);
  CHECK(floor_divide(n - 4, 3).evaluate(sizes(6, 1)) == 0);
  CHECK((floor_divide(n - 8, 3) + 1).evaluate(sizes(7, 1)) == 0);  // towards minus infinity
  CHECK(floor_divide(n, m).evaluate(sizes(17, 5)) == 3);
  CHECK_THROWS_WITH(floor_divide(n, 0), ContainsSubstring("dimension: requires a divisor that is not 0"));
  CHECK_THROWS_WITH(floor_divide(n, m - 5).evaluate(sizes(17, 5)),
                    ContainsSubstring("requires a positive divisor, got 0"));
}

TEST_CASE("dimensions print as people write them") {
  CHECK(text(Dimension(12)) == "12");
  CHECK(text(Dimension(-1)) == "-1");
  CHECK(text(batch) == "batch");
  CHECK(text(batch + 3) == "batch+3");
  CHECK(text(batch - 1) == "batch-1");
  CHECK(text(3 * batch) == "3*batch");
  CHECK(text(2 * n * m + 1) == "2*n*m+1");
  CHECK(text(Dimension(4) - n) == "-n+4");
  CHECK(text(n * n) == "n*n");
  CHECK(text(Dimension(0) - 2 * n) == "-2*n");
}

TEST_CASE("dimensions evaluate under the sizes of a run") {
  const Sizes s = sizes(5, 7);
  CHECK(n.evaluate(s) == 5);
  CHECK((n * m + 2 * n - 1).evaluate(s) == 44);
  CHECK(Dimension(3).evaluate(s) == 3);
  CHECK(Dimension(3).evaluate(Sizes{}) == 3);
  CHECK((n - 5).evaluate(s) == 0);
  CHECK_THROWS_WITH((n - 6).evaluate(s), ContainsSubstring("dimension: requires n-6 to be 0 or more, got -1"));
  CHECK_THROWS_WITH((n + batch).evaluate(s),
                    ContainsSubstring("the size of 'batch' follows from no input of this program"));
  CHECK_THROWS_WITH(Dimension(-1) + n, ContainsSubstring("-1 has no size to compute with"));
  CHECK(evaluate(Shape{n, 3, n * m}, s) == Dims{5, 3, 35});
  CHECK(evaluate(Shape{}, Sizes{}) == Dims{});
}

TEST_CASE("random dimensions: equal forms are equal numbers, and print differently otherwise") {
  std::mt19937 random(3);
  const auto below = [&](int k) { return std::uniform_int_distribution<int>(0, k - 1)(random); };
  const Sizes points[] = {sizes(101, 103), sizes(97, 211), sizes(151, 89)};
  struct Made {
    Dimension d;
    std::int64_t at[3];
  };
  std::vector<Made> pool = {
      {n, {101, 97, 151}}, {m, {103, 211, 89}}, {Dimension(2), {2, 2, 2}}, {Dimension(3), {3, 3, 3}}};
  while (pool.size() < 200) {
    const Made& a = pool[static_cast<std::size_t>(below(static_cast<int>(pool.size())))];
    const Made& b = pool[static_cast<std::size_t>(below(static_cast<int>(pool.size())))];
    const int what = below(3);
    Made made;
    bool fits = true;
    for (int i = 0; i < 3; ++i) {
      made.at[i] = what == 0 ? a.at[i] + b.at[i] : what == 1 ? a.at[i] + 1000 - b.at[i] : a.at[i] * b.at[i];
      fits = fits && made.at[i] >= 0 && made.at[i] < 1'000'000'000;
    }
    if (!fits) continue;
    made.d = what == 0 ? a.d + b.d : what == 1 ? a.d + 1000 - b.d : a.d * b.d;
    pool.push_back(made);
  }
  for (const Made& a : pool) {
    for (int i = 0; i < 3; ++i) REQUIRE(a.d.evaluate(points[i]) == a.at[i]);
    for (const Made& b : pool) {
      REQUIRE((a.d == b.d) == (text(a.d) == text(b.d)));
      if (a.d == b.d) {
        for (int i = 0; i < 3; ++i) REQUIRE(a.at[i] == b.at[i]);
      }
    }
  }
}

// ---- sizes

TEST_CASE("sizes of symbols, in any order") {
  Sizes a;
  CHECK(a.all().empty());
  CHECK(a.to_string().empty());
  CHECK(a.find(n.symbol_id()) == nullptr);
  CHECK(a.bind(n.symbol_id(), 4));
  CHECK(a.bind(n.symbol_id(), 4));
  CHECK_FALSE(a.bind(n.symbol_id(), 5));
  REQUIRE(a.find(n.symbol_id()) != nullptr);
  CHECK(*a.find(n.symbol_id()) == 4);
  CHECK(a.to_string() == "n=4");
  CHECK(a.bind(m.symbol_id(), 6));
  CHECK(a.to_string() == "n=4, m=6");
  Sizes b;
  CHECK(b.bind(m.symbol_id(), 6));
  CHECK_FALSE(a == b);
  CHECK(b.bind(n.symbol_id(), 4));
  CHECK(a == b);
  CHECK(b.all().size() == 2);
  b.clear();
  CHECK(b == Sizes{});
}

// ---- shapes

TEST_CASE("shapes and dims") {
  const Shape s{2, batch, 3};
  CHECK(s.rank() == 3);
  CHECK(to_string(s) == "{2, batch, 3}");
  CHECK(to_string(Shape{}) == "{}");
  CHECK(to_string(Dims{4, 0}) == "{4, 0}");
  CHECK(s == Shape{2, batch, 3});
  CHECK_FALSE(s == Shape{2, batch});
  CHECK_FALSE(s == Shape{2, 3, batch});
  CHECK(s.back().is(3));
  CHECK(count(s) == 6 * batch);
  CHECK(count(Shape{}) == Dimension(1));
  CHECK(count(Dims{}) == 1);
  CHECK(count(Dims{3, 0, 4}) == 0);
  CHECK(count(Dims{3, 5}) == 15);
  CHECK(to_shape(Dims{3, 5}) == Shape{3, 5});
  CHECK(Dims(std::vector<int>{1, 2}) == Dims{1, 2});
  CHECK(Dims::filled(3, 7) == Dims{7, 7, 7});
  CHECK(Dims::filled(0, 7).empty());
  Dims many = Dims::filled(8, 1);
  CHECK_THROWS_WITH(many.push_back(1), ContainsSubstring("shape: requires at most 8 dimensions, got more"));
  CHECK(many.rank() == 8);
}

TEST_CASE("strides") {
  CHECK(row_major_strides({2, 3, 4}) == Dims{12, 4, 1});
  CHECK(row_major_strides({2, 1, 4}) == Dims{4, 0, 1});  // of what is not moved along
  CHECK(row_major_strides({}) == Dims{});
  CHECK(broadcast_strides({3, 1}, {2, 3, 4}) == Dims{0, 1, 0});
  CHECK(broadcast_strides({}, {2, 3}) == Dims{0, 0});
  CHECK(broadcast_strides({2, 3}, {2, 3}) == Dims{3, 1});
}

TEST_CASE("broadcasting is NumPy's, with symbols as sizes that may be any") {
  CHECK(together({2, 3}, {2, 3}) == "{2, 3}");
  CHECK(together({2, 3}, {3}) == "{2, 3}");
  CHECK(together({2, 3}, {}) == "{2, 3}");
  CHECK(together({2, 1}, {1, 3}) == "{2, 3}");
  CHECK(together({4, 1, 3}, {2, 1}) == "{4, 2, 3}");
  CHECK(together({2, 3}, {2}) == "no");
  CHECK(together({2, 3}, {3, 3}) == "no");
  CHECK(together({0, 3}, {1, 3}) == "{0, 3}");
  CHECK(together({0, 3}, {2, 3}) == "no");
  CHECK(together({batch, 3}, {3}) == "{batch, 3}");
  CHECK(together({batch, 3}, {1, 3}) == "{batch, 3}");
  CHECK(together({batch, 3}, {batch, 1}) == "{batch, 3}");
  CHECK(together({batch}, {2, batch}) == "{2, batch}");
  CHECK(together({batch, 3}, {n, 3}) == "no");
  CHECK(together({batch, 3}, {2, 3}) == "no");  // batch could be 2, and could be another
  CHECK(together({n + n}, {2 * n}) == "{2*n}");
}

TEST_CASE("axes count from either end") {
  CHECK(normalize_axis(0, 3, "op", {}) == 0);
  CHECK(normalize_axis(2, 3, "op", {}) == 2);
  CHECK(normalize_axis(-1, 3, "op", {}) == 2);
  CHECK(normalize_axis(-3, 3, "op", {}) == 0);
  const Location at{"/some/net.cpp", 12};
  CHECK_THROWS_WITH(normalize_axis(3, 3, "flip", at),
                    ContainsSubstring("/some/net.cpp:12: flip: requires an axis from -3 to 2, got 3"));
  CHECK_THROWS_WITH(normalize_axis(-4, 3, "flip", at), ContainsSubstring("requires an axis from -3 to 2, got -4"));
  CHECK_THROWS_WITH(normalize_axis(0, 0, "flip", at), ContainsSubstring("flip: requires no axis for a scalar, got 0"));
}

// ---- reshape's -1

TEST_CASE("-1 is whatever fits, also with symbols") {
  CHECK(reshaped({4, 6}, {3, -1}) == "{3, 8}");
  CHECK(reshaped({4, 6}, {-1}) == "{24}");
  CHECK(reshaped({}, {-1, 1}) == "{1, 1}");
  CHECK(reshaped({0, 3}, {-1, 3}) == "{0, 3}");
  CHECK(reshaped({batch, 2, 3}, {-1, 6}) == "{batch, 6}");
  CHECK(reshaped({batch, 2, 3}, {batch, -1}) == "{batch, 6}");
  CHECK(reshaped({batch, 2, 3}, {-1}) == "{6*batch}");
  CHECK(reshaped({batch, 2, 3}, {2, -1, 3}) == "{2, batch, 3}");
  CHECK(reshaped({batch, n}, {n, -1}) == "{n, batch}");
  CHECK(reshaped({batch + 1, 4}, {-1, 2}) == "{2*batch+2, 2}");
  CHECK(reshaped({batch + 1, 4}, {2, -1}) == "{2, 2*batch+2}");
  CHECK(reshaped({n, batch}, {batch * n}) == "{n*batch}");  // symbols in the order in which they were made
  CHECK_THROWS_WITH(reshaped({batch, 3}, {2, -1}),
                    ContainsSubstring("reshape: requires a shape of 3*batch elements as {batch, 3}, got {2, -1}"));
  CHECK_THROWS_WITH(reshaped({4, 6}, {5, -1}),
                    ContainsSubstring("reshape: requires a shape of 24 elements as {4, 6}, got {5, -1}"));
  CHECK_THROWS_WITH(reshaped({0, 3}, {0, -1}),
                    ContainsSubstring("reshape: requires an extent that -1 can be worked out from, got {0, -1}"));
  CHECK_THROWS_WITH(reshaped({batch, n}, {n, n}),
                    ContainsSubstring("requires a shape of n*batch elements as {batch, n}, got {n, n}"));
}
