// Ops whose kernels walk memory in blocks, tiles and parts: sizes around each of those, in every layout, against loops
// over indices, and the same bits for every number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"

using namespace chainrule;

namespace {

constexpr double NaN = std::numeric_limits<double>::quiet_NaN();
constexpr double inf = std::numeric_limits<double>::infinity();

// All that f makes of an input of these numbers, with so many threads.
template <class F>
std::vector<Array> of(F f, const Array& x, int threads = 1) {
  const int before = num_threads();
  set_num_threads(threads);
  Graph graph;
  const Value v = graph.input("x", to_shape(x.shape()), x.dtype());
  State state(graph);
  Program program(state, {.outputs = f(v)});
  const Results results = program.run({{v, x}});
  std::vector<Array> out;
  for (std::size_t i = 0; i < results.size(); ++i) out.push_back(results[i]);
  set_num_threads(before);
  return out;
}

// Numbers that are all different: whole ones in an order without a pattern.
Array distinct(DType dtype, const Dims& shape) {
  std::vector<double> values(static_cast<std::size_t>(count(shape)));
  std::iota(values.begin(), values.end(), -10.0);
  std::shuffle(values.begin(), values.end(), std::mt19937_64(5));
  return Array(values).astype(dtype).reshape(shape);
}

// Few different numbers, so that there are ties, and now and then a NaN.
Array with_ties(DType dtype, const Dims& shape, int one_nan_of) {
  std::mt19937_64 random(3);
  std::vector<double> values(static_cast<std::size_t>(count(shape)));
  for (double& x : values) {
    x = static_cast<double>(random() % 50);
    if (random() % 40 == 0) x = -inf;
    if (dtype != int64 && one_nan_of > 0 && random() % static_cast<unsigned>(one_nan_of) == 0) x = NaN;
    if (dtype == int64 && std::isinf(x)) x = -7;
  }
  return Array(values).astype(dtype).reshape(shape);
}

// The element of a transposed array by its index there.
void check_transposed(const Array& x, const Axes& order, const Array& y) {
  const std::size_t rank = order.size();
  Dims strides = Dims::filled(rank, 1);
  for (std::size_t i = rank - 1; i-- > 0;) strides[i] = strides[i + 1] * x.shape()[i + 1];
  std::vector<std::int64_t> index(rank, 0);
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) {
    std::int64_t from = 0;
    for (std::size_t a = 0; a < rank; ++a) from += index[a] * strides[static_cast<std::size_t>(order[a])];
    wrong += y[i] == x[from] ? 0 : 1;
    for (std::size_t a = rank; a-- > 0;) {
      if (++index[a] < y.shape()[a]) break;
      index[a] = 0;
    }
  }
  INFO(name(x.dtype()) << " " << to_string(x.shape()) << " to " << to_string(y.shape()));
  CHECK(wrong == 0);
}

void check_transpose(DType dtype, const Dims& shape, const Axes& order) {
  const Array x = distinct(dtype, shape);
  check_transposed(x, order, of([&](Value v) -> Values { return {transpose(v, order)}; }, x)[0]);
}

}  // namespace

// ---- layouts

TEST_CASE("transposes of every small size, and of sizes around tiles") {
  for (const DType dtype : {float32, float64, int64}) {
    for (std::int64_t rows = 1; rows <= 20; ++rows)
      for (std::int64_t columns = 1; columns <= 20; ++columns) check_transpose(dtype, {rows, columns}, {1, 0});
    for (const std::int64_t rows : {31, 63, 64, 65, 130})
      for (const std::int64_t columns : {2, 33, 64, 127, 200}) check_transpose(dtype, {rows, columns}, {1, 0});
  }
}

TEST_CASE("transposes of every order of four axes") {
  for (const DType dtype : {float32, int64}) {
    Axes order{0, 1, 2, 3};
    do {
      check_transpose(dtype, {3, 17, 2, 35}, order);
      check_transpose(dtype, {9, 1, 21, 4}, order);
    } while (std::next_permutation(order.begin(), order.end()));
  }
  // One byte an element.
  const Array flags = distinct(float64, {70, 90});
  const Array y = of([](Value v) -> Values { return {transpose(v > 2000.0, {1, 0})}; }, flags)[0];
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < 90; ++i)
    for (std::int64_t k = 0; k < 70; ++k) wrong += (y[i * 70 + k] != 0) == (flags[k * 90 + i] > 2000) ? 0 : 1;
  CHECK(wrong == 0);
}

// From 8 MB on they are written past the caches, where rows are aligned.
TEST_CASE("large transposes") {
  check_transpose(float32, {2048, 1040}, {1, 0});
  check_transpose(float32, {1999, 1061}, {1, 0});
  check_transpose(float64, {1024, 1032}, {1, 0});
  check_transpose(float32, {40, 250, 256}, {2, 0, 1});
}

TEST_CASE("slices, their gradients, concat and split of more than one part") {
  const Array x = distinct(float64, {300, 701});
  const auto f = [](Value v) -> Values {
    const Value part = slice(v, 1, {3, 690, 2});
    const Value turned = transpose(slice(v, 0, {10, 290}), {1, 0});
    const Value joined = concat({part, slice(v, 1, {0, 400})}, 1);
    const Value whole = sum(square(part)) + sum(turned * 3.0);
    return {part, turned, joined, gradients(whole, {v})[0]};
  };
  const std::vector<Array> got = of(f, x, 3);
  const auto at = [&](std::int64_t i, std::int64_t k) { return x[i * 701 + k]; };
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < 300; ++i) {
    for (std::int64_t k = 0; k < 344; ++k) {
      wrong += got[0][i * 344 + k] == at(i, 3 + 2 * k) ? 0 : 1;
      wrong += got[2][i * 744 + k] == at(i, 3 + 2 * k) ? 0 : 1;
    }
    for (std::int64_t k = 0; k < 400; ++k) wrong += got[2][i * 744 + 344 + k] == at(i, k) ? 0 : 1;
    for (std::int64_t k = 0; k < 701; ++k) {
      const bool sliced = k >= 3 && k < 690 && (k - 3) % 2 == 0;
      const bool in_rows = i >= 10 && i < 290;
      wrong += got[3][i * 701 + k] == (sliced ? 2 * at(i, k) : 0) + (in_rows ? 3 : 0) ? 0 : 1;
      if (in_rows) wrong += got[1][k * 280 + i - 10] == at(i, k) ? 0 : 1;
    }
  }
  CHECK(wrong == 0);
}

// ---- reductions

namespace {

struct Line {
  double sum = 0;
  double magnitude = 0;
  double max = -inf;
  double min = inf;
  std::int64_t at = 0;  // of the first greatest, or of the first NaN
};

// Of n elements, in float64: whole numbers, whose sums are exact.
Line walk(const Array& x, std::int64_t first, std::int64_t n, std::int64_t stride) {
  Line out;
  for (std::int64_t k = 0; k < n; ++k) {
    const double v = x[first + k * stride];
    out.sum += v;
    if (std::isnan(out.max)) continue;
    if (std::isnan(v) || v > out.max || k == 0) {
      out.max = v;
      out.at = k;
    }
    out.min = std::isnan(v) ? v : std::min(out.min, v);
  }
  return out;
}

bool alike(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

// max, min, argmax and, of numbers that are all finite, the sum along the middle axis.
void check_lines(DType dtype, std::int64_t outer, std::int64_t n, std::int64_t inner, int one_nan_of) {
  Array x = with_ties(dtype, {outer, n, inner}, one_nan_of);
  const auto f = [](Value v) -> Values { return {max(v, 1), min(v, 1), argmax(v, 1), sum(v, 1)}; };
  const std::vector<Array> got = of(f, x);
  std::int64_t wrong[4] = {};
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t i = 0; i < inner; ++i) {
      const Line line = walk(x, o * n * inner + i, n, inner);
      const std::int64_t at = o * inner + i;
      wrong[0] += alike(got[0][at], line.max) ? 0 : 1;
      wrong[1] += alike(got[1][at], line.min) ? 0 : 1;
      wrong[2] += got[2].data<std::int64_t>()[at] == line.at ? 0 : 1;
      wrong[3] += alike(got[3][at], line.sum) ? 0 : 1;
    }
  INFO(name(dtype) << " {" << outer << ", " << n << ", " << inner << "}, a NaN of " << one_nan_of);
  CHECK(wrong[0] == 0);
  CHECK(wrong[1] == 0);
  CHECK(wrong[2] == 0);
  CHECK(wrong[3] == 0);
}

}  // namespace

TEST_CASE("max, min, argmax and sum of lines of any length") {
  for (const DType dtype : {float32, float64, int64})
    for (const int one_nan_of : {0, 7, 300}) {
      for (std::int64_t n = 1; n <= 70; ++n) {
        check_lines(dtype, 19, n, 1, one_nan_of);
        check_lines(dtype, 2, n, 37, one_nan_of);
      }
      for (const std::int64_t n : {255, 256, 257, 511, 513, 1030, 4095, 4097, 9000}) {
        check_lines(dtype, 5, n, 1, one_nan_of);
        check_lines(dtype, 2, n, 5, one_nan_of);
      }
    }
}

// 65,536 elements make a part: of long lines, of tall columns, of wide ones.
TEST_CASE("max, min, argmax and sum that are cut in parts") {
  for (const DType dtype : {float32, float64, int64})
    for (const int one_nan_of : {0, 100'000}) {
      check_lines(dtype, 1, 300'001, 1, one_nan_of);
      check_lines(dtype, 3, 140'000, 1, one_nan_of);
      check_lines(dtype, 1, 40'000, 7, one_nan_of);
      check_lines(dtype, 2, 300, 1300, one_nan_of);
      check_lines(dtype, 1, 3, 70'000, one_nan_of);
      check_lines(dtype, 700, 200, 1, one_nan_of);
    }
}

TEST_CASE("argmax of rising, falling and level lines, and of nothing but -inf and NaN") {
  for (const DType dtype : {float32, float64})
    for (const std::int64_t n : {1, 10, 16, 300, 5000, 140'000}) {
      std::vector<double> rising(static_cast<std::size_t>(n));
      std::iota(rising.begin(), rising.end(), 0.0);
      const auto argmax_of = [&](const Array& x) {
        const std::vector<Array> got = of(
            [](Value v) -> Values {
              return {argmax(v, 0), argmax(reshape(v, {v.shape()[0], 1}), 0)};
            },
            x);
        CHECK(got[0].data<std::int64_t>()[0] == got[1].data<std::int64_t>()[0]);
        return got[0].data<std::int64_t>()[0];
      };
      CHECK(argmax_of(Array(rising).astype(dtype)) == n - 1);
      std::reverse(rising.begin(), rising.end());
      CHECK(argmax_of(Array(rising).astype(dtype)) == 0);
      for (const double level : {2.0, -inf, inf, NaN, -0.0}) CHECK(argmax_of(Array::full(dtype, {n}, level)) == 0);
      Array zeros = Array::full(dtype, {n}, -0.0);  // which is no less than 0
      zeros.set(n - 1, 0.0);
      CHECK(argmax_of(zeros) == 0);
    }
}

TEST_CASE("the gradient of a softmax along lines of any length and stride") {
  for (const DType dtype : {float32, float64}) {
    const auto check = [dtype](std::int64_t outer, std::int64_t n, std::int64_t inner) {
      const Array y = uniform({outer, n, inner}, 0, 1).draw(dtype, 1, 2);
      const Array dy = uniform({outer, n, inner}, -1, 1).draw(dtype, 3, 4);
      Graph graph;
      const Value a = graph.input("y", {outer, n, inner}, dtype);
      const Value b = graph.input("dy", {outer, n, inner}, dtype);
      State state(graph);
      Program program(state, {.outputs = {apply(*find_op("softmax_gradient"), {a, b}, {{"axis", 1}})}});
      const Results got = program.run({{a, y}, {b, dy}});
      double worst = 0;
      for (std::int64_t o = 0; o < outer; ++o)
        for (std::int64_t i = 0; i < inner; ++i) {
          const std::int64_t first = o * n * inner + i;
          double sum = 0;
          double magnitude = 0;
          for (std::int64_t k = 0; k < n; ++k) {
            sum += y[first + k * inner] * dy[first + k * inner];
            magnitude += std::abs(y[first + k * inner] * dy[first + k * inner]);
          }
          for (std::int64_t k = 0; k < n; ++k) {
            const double exact = y[first + k * inner] * (dy[first + k * inner] - sum);
            worst = std::max(worst, std::abs(got[0][first + k * inner] - exact) / (1 + magnitude));
          }
        }
      INFO(name(dtype) << " {" << outer << ", " << n << ", " << inner << "}");
      CHECK(worst < (dtype == float32 ? 2e-7 : 4e-16) * (1 + std::log2(static_cast<double>(n))));
    };
    for (std::int64_t n = 1; n <= 40; ++n) {
      check(19, n, 1);
      check(3, n, 21);
    }
    for (const std::int64_t n : {255, 257, 1000, 5000}) {
      check(37, n, 1);
      check(2, n, 300);
    }
  }
}

// ---- threads

// Sizes alone say what the parts are.
TEST_CASE("large ops have the same bits for every number of threads") {
  for (const DType dtype : {float32, float64}) {
    const Array x = uniform({512, 700}, -1, 1).draw(dtype, 7, 9);
    const auto f = [](Value v) -> Values {
      const Value soft = softmax(v, 1);
      const Sorted sorted = sort(v, 0);
      const Sorted best = topk(v, 5, 1);
      return {sum(v),
              sum(v, 0),
              sum(v, 1),
              max(v),
              argmax(v, 0),
              argmax(v, 1),
              argmax(reshape(v, {512 * 700}), 0),
              transpose(v, {1, 0}),
              gradients(sum(square(soft)), {v})[0],
              gradients(sum(square(softmax(v, 0))), {v})[0],
              sorted.values,
              sorted.indices,
              best.values,
              best.indices,
              gradients(sum(square(slice(v, 1, {1, 600, 3}))), {v})[0],
              concat({v, v}, 0)};
    };
    const std::vector<Array> alone = of(f, x, 1);
    for (const int threads : {2, 3, 7}) {
      const std::vector<Array> together = of(f, x, threads);
      for (std::size_t i = 0; i < alone.size(); ++i) {
        INFO(name(dtype) << ", output " << i << ", " << threads << " threads");
        CHECK(together[i].identical(alone[i]));
      }
    }
    // And they are right.
    std::vector<double> column;
    for (std::int64_t i = 0; i < 512; ++i) column.push_back(x[i * 700 + 699]);
    std::sort(column.begin(), column.end());
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < 512; ++i)
      wrong += alone[10][i * 700 + 699] == column[static_cast<std::size_t>(i)] ? 0 : 1;
    CHECK(wrong == 0);
  }
}
