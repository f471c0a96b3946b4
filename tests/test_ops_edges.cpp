// Where ops go wrong unnoticed: NaN, infinities, ties, logits of ten thousand, nothing at all, integers beyond 2^53,
// and random masks.
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/core/philox.hpp>

#include "catch.hpp"

using namespace chainrule;
using Catch::Matchers::ContainsSubstring;

namespace {

constexpr double NaN = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

// f of values in place of the arrays, computed.
template <class F, class... A>
Array of(F f, const A&... arrays) {
  Graph graph;
  std::vector<Feed> feeds;
  const auto input = [&](const Array& x) {
    const Value v = graph.input("input " + std::to_string(feeds.size()), to_shape(x.shape()), x.dtype());
    feeds.emplace_back(v, x);
    return v;
  };
  const Values values{input(arrays)...};
  const Value y = [&]<std::size_t... I>(std::index_sequence<I...>) { return f(values[I]...); }
  (std::index_sequence_for<A...>{});
  State state(graph);
  Program program(state, {.outputs = {y}});
  return program.run(std::span<const Feed>(feeds))[0];
}

Array filled(DType dtype, const Dims& shape, double value) { return Array::full(dtype, shape, value); }

std::vector<std::int64_t> integers_of(const Array& x) {
  return {x.data<std::int64_t>(), x.data<std::int64_t>() + x.size()};
}

Array int64s(std::initializer_list<std::int64_t> values) { return Array(std::vector<std::int64_t>(values)); }

// Lengths with whole vectors, tails and several blocks.
constexpr std::int64_t lengths[] = {1, 2, 5, 8, 15, 16, 17, 33, 70, 300};

}  // namespace

// ---- NaN and infinities

TEST_CASE("max and min of anything with NaN are NaN, wherever it stands") {
  for (const DType dtype : {float32, float64})
    for (const std::int64_t n : lengths)
      for (std::int64_t at = 0; at < n; ++at) {
        Array x = filled(dtype, {n}, 1);
        x.set(at, NaN);
        // As a row, and as the middle one of three columns.
        Array column = filled(dtype, {n, 3}, 1);
        column.set(at * 3 + 1, NaN);
        for (const auto reduce : {max, min}) {
          const auto over = [&](Value v) { return reduce(v, 0, false, Location::here()); };
          const Array y = of(over, x);
          const Array z = of(over, column);
          INFO(name(dtype) << ", element " << at << " of " << n);
          CHECK((std::isnan(y.item()) && std::isnan(z[1]) && z[0] == 1 && z[2] == 1));
        }
      }
}

TEST_CASE("maximum, minimum, relu and clip keep NaN in every place of a vector") {
  for (const DType dtype : {float32, float64})
    for (std::int64_t at = 0; at < 19; ++at) {
      Array x = filled(dtype, {19}, 2);
      x.set(at, NaN);
      const Array ones = filled(dtype, {19}, 1);
      for (const Array& y :
           {of([](Value a, Value b) { return maximum(a, b); }, x, ones),
            of([](Value a, Value b) { return maximum(b, a); }, x, ones),
            of([](Value a, Value b) { return minimum(a, b); }, x, ones),
            of([](Value a, Value b) { return minimum(b, a); }, x, ones), of([](Value a) { return maximum(a, 1.0); }, x),
            of([](Value a) { return minimum(1.0, a); }, x), of([](Value a) { return relu(a); }, x),
            of([](Value a) { return clip(a, 0, 3); }, x), of([](Value a) { return sign(a); }, x),
            of([](Value a) { return leaky_relu(a); }, x), of([](Value a) { return prelu(a, 0.5); }, x),
            of([](Value a) { return elu(a); }, x), of([](Value a) { return selu(a); }, x),
            of([](Value a) { return rrelu(a); }, x), of([](Value a) { return tanh(a); }, x),
            of([](Value a) { return sigmoid(a); }, x)}) {
        std::int64_t nans = 0;
        for (std::int64_t i = 0; i < y.size(); ++i) nans += std::isnan(y[i]) ? 1 : 0;
        CHECK((nans == 1 && std::isnan(y[at])));
      }
    }
}

TEST_CASE("comparisons with NaN are false but for not_equal") {
  for (const DType dtype : {float32, float64}) {
    const Array a = Array({NaN, 1.0, NaN, 1.0, inf, -inf, 0.0}).astype(dtype);
    const Array b = Array({NaN, NaN, 1.0, 1.0, inf, inf, -0.0}).astype(dtype);
    const auto bits = [](const Array& x) {
      std::string out;
      for (std::int64_t i = 0; i < x.size(); ++i) out += x[i] != 0 ? '1' : '0';
      return out;
    };
    CHECK(bits(of([](Value x, Value y) { return equal(x, y); }, a, b)) == "0001101");
    CHECK(bits(of([](Value x, Value y) { return not_equal(x, y); }, a, b)) == "1110010");
    CHECK(bits(of([](Value x, Value y) { return less(x, y); }, a, b)) == "0000010");
    CHECK(bits(of([](Value x, Value y) { return less_equal(x, y); }, a, b)) == "0001111");
    CHECK(bits(of([](Value x, Value y) { return greater(x, y); }, a, b)) == "0000000");
    CHECK(bits(of([](Value x, Value y) { return greater_equal(x, y); }, a, b)) == "0001101");
    // NaN is not 0, so it is true.
    CHECK(bits(of([](Value x) { return cast(x, boolean); }, a)) == "1111110");
  }
}

TEST_CASE("extrema of infinities") {
  for (const DType dtype : {float32, float64}) {
    CHECK(of([](Value x) { return max(x); }, filled(dtype, {5}, -inf)).item() == -inf);
    CHECK(of([](Value x) { return min(x); }, filled(dtype, {5}, inf)).item() == inf);
    CHECK(of([](Value x) { return max(x, 0); }, filled(dtype, {3, 2}, -inf))[1] == -inf);
    CHECK(std::isnan(of([](Value x) { return sum(x); }, Array({inf, -inf}).astype(dtype)).item()));
  }
  CHECK(of([](Value x) { return max(x); }, filled(int64, {3}, -5)).item() == -5);
  CHECK(integers_of(of([](Value x) { return max(x, 1); }, Array({{-3.0, -2.0}, {-9.0, -8.0}}).astype(int64))) ==
        std::vector<std::int64_t>{-2, -8});
}

// ---- ties and first indices

TEST_CASE("argmax is the first of equals, and the first NaN") {
  const auto first = [](Value x) { return argmax(x, 0); };
  for (const DType dtype : {float32, float64, int64}) {
    CHECK(of(first, Array({1.0, 3.0, 3.0, 2.0, 3.0}).astype(dtype)).item() == 1);
    CHECK(of(first, filled(dtype, {40}, 7)).item() == 0);
    CHECK(of(first, filled(dtype, {1}, -1)).item() == 0);
  }
  for (const DType dtype : {float32, float64}) {
    CHECK(of(first, filled(dtype, {40}, -inf)).item() == 0);
    CHECK(of(first, Array({1.0, inf, NaN, 5.0, NaN}).astype(dtype)).item() == 2);
    CHECK(of(first, Array({NaN, inf}).astype(dtype)).item() == 0);
    CHECK(of(first, Array({-0.0, 0.0}).astype(dtype)).item() == 0);
  }
  const Array rows = Array({{1.0, 5.0, 5.0}, {2.0, 2.0, 1.0}});
  CHECK(integers_of(of([](Value x) { return argmax(x, 1); }, rows)) == std::vector<std::int64_t>{1, 0});
  CHECK(integers_of(of([](Value x) { return argmax(x, -2); }, rows)) == std::vector<std::int64_t>{1, 0, 0});
}

TEST_CASE("argmax over several axes counts along them in row-major order") {
  const Array x = uniform({2, 3, 4}, -1, 1).draw(float64, 5, 1);
  // By loops: the greatest of those kept elements, and which of the reduced ones it is.
  const auto right = [&](const std::vector<bool>& reduced) {
    std::vector<std::int64_t> best;
    std::vector<double> held;
    std::vector<std::int64_t> seen;
    for (std::int64_t i = 0; i < 2; ++i)
      for (std::int64_t j = 0; j < 3; ++j)
        for (std::int64_t k = 0; k < 4; ++k) {
          std::size_t kept = 0;
          if (!reduced[0]) kept = static_cast<std::size_t>(i);
          if (!reduced[1]) kept = kept * 3 + static_cast<std::size_t>(j);
          if (!reduced[2]) kept = kept * 4 + static_cast<std::size_t>(k);
          if (kept >= best.size()) {
            best.resize(kept + 1, 0);
            held.resize(kept + 1, -inf);
            seen.resize(kept + 1, 0);
          }
          const std::int64_t number = seen[kept]++;
          if (x(i, j, k) <= held[kept]) continue;
          held[kept] = x(i, j, k);
          best[kept] = number;
        }
    return best;
  };
  CHECK(integers_of(of([](Value v) { return argmax(v); }, x)) == right({true, true, true}));
  CHECK(integers_of(of([](Value v) { return argmax(v, {0, 2}); }, x)) == right({true, false, true}));
  CHECK(integers_of(of([](Value v) { return argmax(v, {1, 0}); }, x)) == right({true, true, false}));
  CHECK(integers_of(of([](Value v) { return argmax(v, {-1, -2}); }, x)) == right({false, true, true}));
  CHECK(integers_of(of([](Value v) { return argmax(v, 1); }, x)) == right({false, true, false}));
  CHECK(of([](Value v) { return argmax(v); }, x).shape() == Dims{});
  CHECK(of([](Value v) { return argmax(v, {0, 2}, true); }, x).shape() == Dims{1, 3, 1});
  CHECK(of([](Value v) { return argmax(v, 1, true); }, x).shape() == Dims{2, 1, 4});
  CHECK(of([](Value v) { return argmax(v, {}, true); }, x).shape() == Dims{1, 1, 1});
  CHECK(of([](Value v) { return argmax(v); }, Array(3.0)).item() == 0);
  CHECK_THROWS_WITH(of(
                        [](Value v) {
                          return argmax(v, {0, -3});
                        },
                        x),
                    ContainsSubstring("argmax: requires each axis once, got"));
  CHECK_THROWS_WITH(of([](Value v) { return argmax(v, 3); }, x), ContainsSubstring("argmax: "));
}

// ---- short rows

TEST_CASE("sums and extrema of short rows are those of each row") {
  for (const DType dtype : {float32, float64})
    for (const std::int64_t columns : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 70, 300})
      for (const std::int64_t rows : {1, 2, 7, 16, 19, 64, 133}) {
        const Array x = uniform({rows, columns}, -1, 1).draw(dtype, 3, static_cast<std::uint64_t>(rows));
        const Array sums = of([](Value v) { return sum(v, 1); }, x);
        const Array greatest = of([](Value v) { return max(v, 1); }, x);
        const Array least = of([](Value v) { return min(v, 1); }, x);
        // In a fused group, with each row's sum read back by its row.
        const Array shares = of([](Value v) { return (v * 2.0) / sum(v * 2.0, 1, true); }, x);
        bool right = true;
        for (std::int64_t i = 0; i < rows; ++i) {
          Array row(dtype, {columns});
          long double total = 0;
          long double size = 0;
          double most = -inf;
          double fewest = inf;
          for (std::int64_t j = 0; j < columns; ++j) {
            row.set(j, x(i, j));
            total += x(i, j);
            size += std::abs(x(i, j));
            most = std::max(most, x(i, j));
            fewest = std::min(fewest, x(i, j));
          }
          const double bound = static_cast<double>(size) * (dtype == float32 ? 6e-7 : 1e-15);
          right = right && std::abs(sums[i] - static_cast<double>(total)) <= bound && greatest[i] == most &&
                  least[i] == fewest;
          // The same bits as alone.
          right = right && of([](Value v) { return sum(v); }, row).item() == sums[i];
          for (std::int64_t j = 0; j < columns; ++j)
            right = right && std::abs(shares(i, j) * sums[i] - x(i, j)) <= 4 * bound + 1e-30;
        }
        INFO(name(dtype) << ", " << rows << " rows of " << columns);
        CHECK(right);
      }
}

TEST_CASE("columns and rows that are broadcast are read right wherever a tile begins") {
  for (const DType dtype : {float32, float64})
    for (const std::int64_t columns : {2, 3, 7, 10, 31})
      for (const std::int64_t rows : {1, 5, 173, 700}) {
        const Array x = uniform({rows, columns}, -1, 1).draw(dtype, 3, 1);
        const Array column = uniform({rows, 1}, -1, 1).draw(dtype, 3, 2);
        const Array row = uniform({columns}, -1, 1).draw(dtype, 3, 3);
        const Array y = of([](Value v, Value c, Value r) { return (v - c) * r; }, x, column, row);
        bool right = true;
        for (std::int64_t i = 0; i < rows; ++i)
          for (std::int64_t j = 0; j < columns; ++j) {
            const double expected = (x(i, j) - column[i]) * row[j];
            right = right && std::abs(y(i, j) - expected) <= 2e-7;
          }
        INFO(name(dtype) << ", {" << rows << ", " << columns << "}");
        CHECK(right);
      }
}

// ---- large logits

TEST_CASE("softmax of logits of ten thousand is exact") {
  for (const DType dtype : {float32, float64}) {
    const Array z = Array({{1e4, -1e4, 0.0}, {-1e4, -1e4, -1e4}, {1e4, 1e4, -1e4}}).astype(dtype);
    const Array y = of([](Value x) { return softmax(x); }, z);
    CHECK((y(0, 0) == 1 && y(0, 1) == 0 && y(0, 2) == 0));
    CHECK((y(1, 0) == y(1, 1) && y(1, 1) == y(1, 2) && y(1, 0) == Approx(1.0 / 3)));
    CHECK((y(2, 0) == 0.5 && y(2, 1) == 0.5 && y(2, 2) == 0));
    const Array l = of([](Value x) { return log_softmax(x); }, z);
    CHECK((l(0, 0) == 0 && l(0, 1) == -2e4 && l(0, 2) == -1e4));
    CHECK(l(2, 2) == Approx(-2e4 - std::log(2.0)));
    // The greatest numbers there are.
    const double most =
        dtype == float32 ? static_cast<double>(std::numeric_limits<float>::max()) : std::numeric_limits<double>::max();
    const Array w = of([](Value x) { return softmax(x, 0); }, Array({most, most, 0.0}).astype(dtype));
    CHECK((w[0] == 0.5 && w[1] == 0.5 && w[2] == 0));
    const Array v = of([](Value x) { return log_softmax(x, 0); }, Array({-inf, 0.0, 0.0}).astype(dtype));
    CHECK((v[0] == -inf && v[1] == Approx(-std::log(2.0))));
  }
}

TEST_CASE("cross-entropies of logits of ten thousand are exact") {
  for (const DType dtype : {float32, float64}) {
    const auto sigmoid_loss = [&](double z, double y) {
      return of([](Value a, Value b) { return sigmoid_cross_entropy(a, b); }, filled(dtype, {1, 1}, z),
                filled(dtype, {1, 1}, y))
          .item();
    };
    CHECK(sigmoid_loss(1e4, 1) == 0);
    CHECK(sigmoid_loss(-1e4, 0) == 0);
    CHECK(sigmoid_loss(1e4, 0) == 1e4);
    CHECK(sigmoid_loss(-1e4, 1) == 1e4);
    CHECK(sigmoid_loss(0, 1) == Approx(std::log(2.0)));
    CHECK(sigmoid_loss(-1e4, 0.5) == 5e3);
    // Small losses keep their digits: log(1 + exp(-30)).
    CHECK(sigmoid_loss(30, 1) == Approx(std::log1p(std::exp(-30.0))).epsilon(1e-6));

    const auto softmax_loss = [](Value a, Value b) { return softmax_cross_entropy(a, b); };
    const Array z = Array({{1e4, -1e4, 0.0}}).astype(dtype);
    CHECK(of(softmax_loss, z, Array({{1.0, 0.0, 0.0}}).astype(dtype)).item() == 0);
    CHECK(of(softmax_loss, z, Array({{0.0, 1.0, 0.0}}).astype(dtype)).item() == 2e4);
    CHECK(of(softmax_loss, z, int64s({2})).item() == 1e4);
    CHECK(of(softmax_loss, z, int64s({0})).item() == 0);
    CHECK(of([](Value a, Value b) { return softmax_cross_entropy(a, b, 0); }, Array({{1e4}, {0.0}}).astype(dtype),
             int64s({1}))
              .item() == 1e4);
  }
}

TEST_CASE("a logit of -inf is a class that cannot be, and costs nothing where it is not") {
  const double log2 = std::log(2.0);
  for (const DType dtype : {float32, float64}) {
    const auto by_index = [](Value a, Value b) { return softmax_cross_entropy(a, b); };
    const auto z = [&](const Array& rows) { return rows.astype(dtype); };
    const double tolerance = dtype == float32 ? 1e-6 : 1e-15;
    CHECK(of(by_index, z(Array({{0.0, 0.0, -inf}})), int64s({0})).item() == Approx(log2).epsilon(tolerance));
    CHECK(of(by_index, z(Array({{0.0, 0.0, -inf}})), z(Array({{0.0, 1.0, 0.0}}))).item() ==
          Approx(log2).epsilon(tolerance));
    CHECK(of(by_index, z(Array({{-inf, 3.0, -inf}})), int64s({1})).item() == 0);
    CHECK(of(by_index, z(Array({{0.0, 0.0, -inf}})), int64s({2})).item() == inf);
    CHECK(of(by_index, z(Array({{0.0, 0.0, -inf}})), z(Array({{0.5, 0.25, 0.25}}))).item() == inf);
    // Of several examples, along either axis.
    CHECK(of(by_index, z(Array({{0.0, 0.0, -inf}, {-inf, 7.0, 7.0}})), int64s({1, 2})).item() ==
          Approx(log2).epsilon(tolerance));
    CHECK(of([](Value a, Value b) { return softmax_cross_entropy(a, b, 0); }, z(Array({{0.0}, {-inf}, {0.0}})),
             int64s({2}))
              .item() == Approx(log2).epsilon(tolerance));
    // NaN where there is no distribution, and where a logit is one, even of weight 0.
    CHECK(std::isnan(of(by_index, z(Array({{-inf, -inf}})), int64s({0})).item()));
    CHECK(std::isnan(of(by_index, z(Array({{0.0, NaN}})), int64s({0})).item()));
    CHECK(std::isnan(of(by_index, z(Array({{0.0, NaN}})), z(Array({{0.0, 0.0}}))).item()));

    const auto soft = of([](Value x) { return softmax(x); }, z(Array({{-inf, 0.0, 0.0}, {-inf, -inf, -inf}})));
    const auto log_soft = of([](Value x) { return log_softmax(x); }, z(Array({{-inf, 0.0, 0.0}, {-inf, -inf, -inf}})));
    CHECK((soft(0, 0) == 0 && soft(0, 1) == 0.5 && std::isnan(soft(1, 0)) && std::isnan(soft(1, 2))));
    CHECK((log_soft(0, 0) == -inf && log_soft(0, 1) == Approx(-log2) && std::isnan(log_soft(1, 1))));

    const auto sigmoid_loss = [&](double logit, double y) {
      return of([](Value a, Value b) { return sigmoid_cross_entropy(a, b); }, filled(dtype, {2, 1}, logit),
                filled(dtype, {2, 1}, y))
          .item();
    };
    CHECK(sigmoid_loss(inf, 1) == 0);
    CHECK(sigmoid_loss(-inf, 0) == 0);
    CHECK(sigmoid_loss(inf, 0) == inf);
    CHECK(sigmoid_loss(-inf, 1) == inf);
    CHECK(sigmoid_loss(inf, 0.5) == inf);
    CHECK(std::isnan(sigmoid_loss(NaN, 1)));
    CHECK(std::isnan(sigmoid_loss(NaN, 0)));
  }
}

TEST_CASE("slopes of losses with logits of -inf are finite, to the second order") {
  for (const DType dtype : {float32, float64}) {
    Graph graph({.dtype = dtype});
    const Value z = graph.parameter("z", Array({{0.0, 0.0, -inf}}));
    const Value y = graph.constant(Array({{1.0, 0.0, 0.0}}).astype(dtype));
    const Value d = gradients(softmax_cross_entropy(z, y), {z})[0];
    const Value d2 = gradients(slice(reshape(d, {3}), 0, {0, 1}), {z})[0];
    const Value s = gradients(sigmoid_cross_entropy(z, broadcast_to(graph.constant(0.0, dtype), {1, 3})), {z})[0];
    State state(graph);
    Program program(state, {.outputs = {d, d2, s}});
    const Results got = program.run();
    CHECK(got[0].identical(Array({{-0.5, 0.5, 0.0}}).astype(dtype)));
    // p (1 - p), -p q, 0
    CHECK(allclose(got[1], Array({{0.25, -0.25, 0.0}}).astype(dtype), 1e-7, 0));
    CHECK(allclose(got[2], Array({{0.5 / 3, 0.5 / 3, 0.0}}).astype(dtype), 1e-7, 0));
  }
}

// ---- nothing

TEST_CASE("sums of nothing are 0, means NaN, and there is no greatest of nothing") {
  for (const DType dtype : {float32, float64}) {
    const Array none = filled(dtype, {0, 3}, 0);
    CHECK(of([](Value x) { return sum(x); }, none).item() == 0);
    CHECK(of([](Value x) { return sum(x, 0); }, none).identical(filled(dtype, {3}, 0)));
    CHECK(of([](Value x) { return sum(x, 1); }, none).shape() == Dims{0});
    CHECK(of([](Value x) { return sum(x, 0, true); }, none).shape() == Dims{1, 3});
    CHECK(std::isnan(of([](Value x) { return mean(x); }, none).item()));
    CHECK(std::isnan(of([](Value x) { return mean(x, 0); }, none)[2]));
    CHECK(of([](Value x) { return max(x, 1); }, none).shape() == Dims{0});
    CHECK(of([](Value x) { return softmax(x, 1); }, none).shape() == Dims{0, 3});
    for (const auto f : {softmax, log_softmax})
      CHECK_THROWS_WITH(of([f](Value x) { return f(x, 0, Location::here()); }, none),
                        ContainsSubstring("softmax: requires at least one element along axis 0, got {0, 3}") &&
                            ContainsSubstring("test_ops_edges.cpp:"));
    CHECK_THROWS_WITH(of([](Value x) { return softmax_cross_entropy(x, x, 0); }, none),
                      ContainsSubstring("softmax_cross_entropy: requires at least one class, got {0, 3}"));
    CHECK(of([](Value x, Value y) { return matmul(x, y); }, filled(dtype, {2, 0}, 1), filled(dtype, {0, 2}, 1))
              .identical(filled(dtype, {2, 2}, 0)));
  }
  CHECK(of([](Value x) { return sum(x); }, filled(int64, {0}, 0)).item() == 0);
  const Array none = filled(float64, {0, 3}, 0);
  for (const auto reduce : {max, min})
    CHECK_THROWS_WITH(
        of([&](Value x) { return reduce(x, 0, false, Location::here()); }, none),
        ContainsSubstring("requires at least one element, got {0, 3}") && ContainsSubstring("test_ops_edges.cpp:"));
  CHECK_THROWS_WITH(of([](Value x) { return argmax(x, 0); }, none),
                    ContainsSubstring("argmax: requires at least one element"));
}

// ---- integers

TEST_CASE("int64 is exact beyond 2^53 and wraps around") {
  constexpr std::int64_t big = (std::int64_t{1} << 53) + 1;  // no float64 is this
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
  const Array a = int64s({big, most, least, -big});
  const Array b = int64s({1, 1, -1, big + 1});
  CHECK(integers_of(of([](Value x, Value y) { return x + y; }, a, b)) ==
        std::vector<std::int64_t>{big + 1, least, most, 1});
  CHECK(integers_of(of([](Value x, Value y) { return x - y; }, a, b)) ==
        std::vector<std::int64_t>{big - 1, most - 1, least + 1, -2 * big - 1});
  CHECK(integers_of(of([](Value x, Value y) { return x * y; }, a, int64s({1, 2, -1, 3}))) ==
        std::vector<std::int64_t>{big, -2, least, -3 * big});
  CHECK(integers_of(of([](Value x) { return -x; }, a)) == std::vector<std::int64_t>{-big, -most, least, big});
  CHECK(integers_of(of([](Value x) { return abs(x); }, a)) == std::vector<std::int64_t>{big, most, least, big});
  CHECK(integers_of(of([](Value x, Value y) { return maximum(x, y); }, a, b)) ==
        std::vector<std::int64_t>{big, most, -1, big + 1});
  CHECK(integers_of(of([](Value x, Value y) { return where(x < y, x, y); }, a, b)) ==
        std::vector<std::int64_t>{1, 1, least, -big});
  CHECK(integers_of(of([](Value x) { return sum(x); }, int64s({big, 1, 1}))) == std::vector<std::int64_t>{big + 2});
  CHECK(integers_of(of([](Value x) { return max(x); }, int64s({big - 1, big, big - 2}))) ==
        std::vector<std::int64_t>{big});
  CHECK(of([](Value x, Value y) { return equal(x, y); }, int64s({big}), int64s({big - 1})).item() == 0);
  CHECK(of([](Value x) { return argmax(x, 0); }, int64s({big - 1, big})).item() == 1);
}

TEST_CASE("casts round towards 0 and keep what fits") {
  for (const DType dtype : {float32, float64}) {
    const Array x = Array({-2.7, -0.5, -0.0, 0.5, 2.7, 1e6}).astype(dtype);
    CHECK(integers_of(of([](Value v) { return cast(v, int64); }, x)) ==
          std::vector<std::int64_t>{-2, 0, 0, 0, 2, 1000000});
    CHECK(of([](Value v) { return cast(v, boolean); }, x)
              .identical(Array({1.0, 1.0, 0.0, 1.0, 1.0, 1.0}).astype(boolean)));
    CHECK(of([&](Value v) { return cast(cast(v, boolean), dtype); }, x)
              .identical(Array({1.0, 1.0, 0.0, 1.0, 1.0, 1.0}).astype(dtype)));
  }
  CHECK(of([](Value v) { return cast(v, float32); }, Array({0.1, 1e-50, 1e-45}))
            .identical(Array(std::vector<float>{0.1F, 0.0F, 1e-45F})));
  CHECK(of([](Value v) { return cast(v, float32); }, int64s({(1 << 24) + 1})).item() == 1 << 24);
}

TEST_CASE("class indices out of range end a run") {
  const auto encode = [](Value x) { return one_hot(x, 3, float64); };
  CHECK_THROWS_WITH(of(encode, int64s({0, 3})),
                    ContainsSubstring("one_hot: requires indices from 0 to 2, got 3 at element {1}"));
  CHECK_THROWS_WITH(of(encode, int64s({-1})), ContainsSubstring("got -1 at element {0}"));
  CHECK(of(encode, int64s({2, 0})).identical(Array({{0.0, 0.0, 1.0}, {1.0, 0.0, 0.0}})));
}

// ---- random masks

namespace {

struct Mask {
  double keep = 0.8;
  std::int64_t seed = 7;
  std::int64_t stream = 1;
  std::int64_t step = 3;

  [[nodiscard]] Array draw(const Shape& shape, DType dtype) const {
    return of(
        [&](Value at) {
          return apply(*find_op("dropout_mask"), {at},
                       {{"shape", shape}, {"dtype", dtype}, {"keep", keep}, {"seed", seed}, {"stream", stream}});
        },
        Array(step));
  }
  // By Philox itself.
  [[nodiscard]] bool kept(std::int64_t i) const {
    const auto block = philox::bits(static_cast<std::uint64_t>(seed), static_cast<std::uint32_t>(stream),
                                    static_cast<std::uint32_t>(step), static_cast<std::uint64_t>(i / 4));
    return philox::unit(block[static_cast<std::size_t>(i % 4)]) < keep;
  }
};

double mean_of(const Array& x) {
  double total = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) total += x[i];
  return total / static_cast<double>(x.size());
}

}  // namespace

TEST_CASE("a dropout mask is Philox's, the same in every run and dtype") {
  for (const std::int64_t n : {1, 2, 3, 4, 5, 511, 513, 1000, 4099}) {
    const Mask mask;
    const Array narrow = mask.draw({n}, float32);
    const Array wide = mask.draw({n}, float64);
    CHECK(narrow.astype(float64).identical(wide));
    CHECK(mask.draw({n}, float64).identical(wide));
    bool right = true;
    for (std::int64_t i = 0; i < n; ++i) right = right && (wide[i] == (mask.kept(i) ? 1 : 0));
    CHECK(right);
  }
}

TEST_CASE("a dropout mask keeps its share, and changes with seed, stream and step") {
  constexpr std::int64_t n = 100000;
  const Mask mask;
  const Array drawn = mask.draw({n}, float64);
  for (const double keep : {0.05, 0.5, 0.8, 0.999}) {
    // Five standard deviations of a binomial share.
    CHECK(mean_of(Mask{.keep = keep}.draw({n}, float64)) ==
          Approx(keep).margin(5 * std::sqrt(keep * (1 - keep) / static_cast<double>(n))));
  }
  CHECK(mean_of(Mask{.keep = 1}.draw({n}, float64)) == 1);
  for (const Mask& other : {Mask{.seed = 8}, Mask{.stream = 2}, Mask{.step = 4}, Mask{.seed = -7},
                            Mask{.seed = std::int64_t{7} + (std::int64_t{1} << 32)}}) {
    const Array drawn_too = other.draw({n}, float64);
    std::int64_t both = 0;
    for (std::int64_t i = 0; i < n; ++i) both += drawn[i] != 0 && drawn_too[i] != 0 ? 1 : 0;
    // Independent: 0.8 * 0.8 are kept by both.
    CHECK(static_cast<double>(both) / static_cast<double>(n) == Approx(0.64).margin(0.01));
  }
  // Neighbours are independent too.
  std::int64_t pairs = 0;
  for (std::int64_t i = 0; i + 1 < n; ++i) pairs += drawn[i] != 0 && drawn[i + 1] != 0 ? 1 : 0;
  CHECK(static_cast<double>(pairs) / static_cast<double>(n) == Approx(0.64).margin(0.01));
}

TEST_CASE("a dropout mask is the same wherever a fused step cuts it") {
  // Rows of 131 elements: their tiles begin within Philox's blocks of four.
  const Mask mask{.keep = 0.5};
  const Array x = uniform({7, 131}, 1, 2).draw(float32, 1, 1);
  const Array row = uniform({131}, 1, 2).draw(float32, 1, 2);
  const Array y = of(
      [&](Value at, Value v, Value w) {
        return v *
               apply(*find_op("dropout_mask"), {at},
                     {{"shape", Shape{7, 131}},
                      {"dtype", float32},
                      {"keep", mask.keep},
                      {"seed", mask.seed},
                      {"stream", mask.stream}}) *
               w;
      },
      Array(mask.step), x, row);
  bool right = true;
  for (std::int64_t i = 0; i < y.size(); ++i)
    right = right && (y.data<float>()[i] == (mask.kept(i) ? x.data<float>()[i] * row.data<float>()[i % 131] : 0.0F));
  CHECK(right);
}

TEST_CASE("dropout scales what it keeps in training and is the identity in inference") {
  Graph graph({.seed = 5});
  const Value x = graph.input("x", {1000});
  const Value y = dropout(x, {.keep = 0.8});
  const Value z = dropout(x, {.keep = 0.8});
  State state(graph);
  const Array ones = filled(float64, {1000}, 1);
  Program training(state, {.outputs = {y, z, gradients(sum(y), {x})[0]}});
  const Results results = training.run({{x, ones}});
  CHECK(mean_of(results[0]) == Approx(1).margin(0.1));
  bool scaled = true;
  for (std::int64_t i = 0; i < 1000; ++i) scaled = scaled && (results[0][i] == 0 || results[0][i] == 1.25);
  CHECK(scaled);
  CHECK_FALSE(results[0].identical(results[1]));  // another dropout, another stream
  CHECK(results[0].identical(results[2]));        // the gradient passes where the value did
  Program inference(state, {.outputs = {y}, .mode = Mode::inference});
  CHECK(inference.run({{x, ones}})[0].identical(ones));
}

TEST_CASE("rrelu draws a slope for each element in training, and takes their mean in inference") {
  constexpr std::int64_t n = 100000;
  Graph graph({.seed = 5});
  const Value x = graph.input("x", {n});
  const Value y = rrelu(x);
  const Value z = rrelu(x, {.low = 0, .high = 1});
  State state(graph);
  Program training(state, {.outputs = {y, z, gradients(sum(y), {x})[0]}});
  Array ends = filled(float64, {n}, -2);
  ends.set(0, 3);
  const Results results = training.run({{x, ends}});
  CHECK((results[0][0] == 3 && results[2][0] == 1));
  double low = 1;
  double high = 0;
  bool same_in_gradient = true;
  for (std::int64_t i = 1; i < n; ++i) {
    low = std::min(low, results[0][i] / -2);
    high = std::max(high, results[0][i] / -2);
    same_in_gradient = same_in_gradient && results[2][i] == results[0][i] / -2;
  }
  CHECK(same_in_gradient);
  CHECK((low >= 1.0 / 8 && low < 0.126 && high < 1.0 / 3 && high > 0.332));
  // Five standard deviations of the mean of even draws.
  const double deviation = 1 / std::sqrt(12.0 * static_cast<double>(n));
  CHECK(mean_of(results[0]) / -2 == Approx((1.0 / 8 + 1.0 / 3) / 2).margin(5 * deviation * (1.0 / 3 - 1.0 / 8) + 5e-5));
  CHECK(mean_of(results[1]) / -2 == Approx(0.5).margin(5 * deviation + 5e-5));
  CHECK(results[0][1] != results[0][2]);

  Program inference(state, {.outputs = {y}, .mode = Mode::inference});
  const Array mean = inference.run({{x, ends}})[0];
  CHECK((mean[0] == 3 && mean[1] == Approx(-2 * (1.0 / 8 + 1.0 / 3) / 2) && mean[2] == mean[1]));

  // Drawn anew in the next run of a program that updates.
  const Value count = graph.variable("count", Array(0.0));
  Program step(state, {.outputs = {y}, .updates = {{count, count + 1.0}}});
  const Array first = step.run({{x, ends}})[0];
  CHECK_FALSE(step.run({{x, ends}})[0].identical(first));
}

TEST_CASE("by_mode is its first operand in training, its second in inference") {
  Graph graph;
  const Value a = graph.input("a", {2, 1});
  const Value b = graph.input("b", {3});
  const Value y = by_mode(a, b);
  State state(graph);
  Program training(state, {.outputs = {y}});
  Program inference(state, {.outputs = {y}, .mode = Mode::inference});
  const Array left = Array({{1.0}, {2.0}});
  const Array right = Array({3.0, 4.0, 5.0});
  CHECK(training.run({{a, left}})[0].identical(Array({{1.0, 1.0, 1.0}, {2.0, 2.0, 2.0}})));
  CHECK(inference.run({{b, right}})[0].identical(Array({{3.0, 4.0, 5.0}, {3.0, 4.0, 5.0}})));
}
