// Convolutions: against plain loops over a grid of sizes, bit for bit against the rule of
// framework/convolutions/convolution.hpp, for any number of threads, and what users say and are told.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/convolutions/geometry.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "support.hpp"

using namespace chainrule;
using Catch::Matchers::ContainsSubstring;
using convolutions::Geometry;
using test::compute;
using test::ulps;

namespace {

// ---- plain loops

struct Case {
  std::int64_t images = 1;
  std::int64_t groups = 1;
  std::int64_t channels = 1;  // all of them
  std::int64_t features = 1;
  Axes in;
  Axes taps;
  Axes stride;
  Axes before;
  Axes behind;
  Axes dilation;

  [[nodiscard]] Axes out() const {
    Axes out;
    for (std::size_t i = 0; i < in.size(); ++i)
      out.push_back((in[i] + before[i] + behind[i] - dilation[i] * (taps[i] - 1) - 1) / stride[i] + 1);
    return out;
  }
  [[nodiscard]] bool fits() const {
    for (std::size_t i = 0; i < in.size(); ++i)
      if (in[i] + before[i] + behind[i] < dilation[i] * (taps[i] - 1) + 1) return false;
    return true;
  }
  [[nodiscard]] static Dims dims(std::int64_t first, std::int64_t second, const Axes& rest) {
    Dims out{first, second};
    for (const std::int64_t n : rest) out.push_back(n);
    return out;
  }
  [[nodiscard]] Dims x() const { return dims(images, channels, in); }
  [[nodiscard]] Dims w() const { return dims(features, channels / groups, taps); }
  [[nodiscard]] Dims y() const { return dims(images, features, out()); }
  [[nodiscard]] Attributes attributes() const {
    Axes padding = before;
    padding.insert(padding.end(), behind.begin(), behind.end());
    return {{"stride", stride}, {"padding", padding}, {"dilation", dilation}, {"groups", groups}};
  }
  [[nodiscard]] std::string to_string() const {
    return fmt::format("x {} w {} {}", chainrule::to_string(x()), chainrule::to_string(w()), attributes().to_string());
  }
};

// f(index into x, into w, into y) for all products, in order of (image, feature, channel, output, tap).
template <class F>
void for_each_product(const Case& c, F f) {
  const auto three = [](const Axes& axes, std::int64_t otherwise) {
    std::array<std::int64_t, 3> out{otherwise, otherwise, otherwise};
    std::copy(axes.begin(), axes.end(), out.end() - static_cast<std::ptrdiff_t>(axes.size()));
    return out;
  };
  const auto in = three(c.in, 1);
  const auto out = three(c.out(), 1);
  const auto taps = three(c.taps, 1);
  const auto stride = three(c.stride, 1);
  const auto before = three(c.before, 0);
  const auto dilation = three(c.dilation, 1);
  const std::int64_t channels = c.channels / c.groups;
  const std::int64_t features = c.features / c.groups;
  for (std::int64_t n = 0; n < c.images; ++n)
    for (std::int64_t k = 0; k < c.features; ++k)
      for (std::int64_t ch = 0; ch < channels; ++ch)
        for (std::int64_t d = 0; d < out[0]; ++d)
          for (std::int64_t h = 0; h < out[1]; ++h)
            for (std::int64_t v = 0; v < out[2]; ++v)
              for (std::int64_t t = 0; t < taps[0]; ++t)
                for (std::int64_t r = 0; r < taps[1]; ++r)
                  for (std::int64_t s = 0; s < taps[2]; ++s) {
                    const std::int64_t id = d * stride[0] + t * dilation[0] - before[0];
                    const std::int64_t ih = h * stride[1] + r * dilation[1] - before[1];
                    const std::int64_t iw = v * stride[2] + s * dilation[2] - before[2];
                    if (id < 0 || id >= in[0] || ih < 0 || ih >= in[1] || iw < 0 || iw >= in[2]) continue;
                    const std::int64_t channel = k / features * channels + ch;
                    f((((n * c.channels + channel) * in[0] + id) * in[1] + ih) * in[2] + iw,
                      (((k * channels + ch) * taps[0] + t) * taps[1] + r) * taps[2] + s,
                      (((n * c.features + k) * out[0] + d) * out[1] + h) * out[2] + v);
                  }
}

Array random_array(DType dtype, const Dims& dims, std::uint64_t stream) {
  return normal(to_shape(dims)).draw(dtype, 1, stream);
}

std::vector<double> numbers(const Array& x) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < x.size(); ++i) out.push_back(x[i]);
  return out;
}

std::vector<long double> long_numbers(const Array& x) {
  const std::vector<double> all = numbers(x);
  return {all.begin(), all.end()};
}

// The three results, and the sums of their terms' magnitudes.
struct Expected {
  std::vector<long double> y, dx, dw, y_size, dx_size, dw_size;

  Expected(const Case& c, const Array& x_array, const Array& w_array, const Array& dy_array) {
    const std::vector<long double> x = long_numbers(x_array);
    const std::vector<long double> w = long_numbers(w_array);
    const std::vector<long double> dy = long_numbers(dy_array);
    y.resize(dy.size());
    y_size.resize(dy.size());
    dx.resize(x.size());
    dx_size.resize(x.size());
    dw.resize(w.size());
    dw_size.resize(w.size());
    for_each_product(c, [&](std::int64_t xi, std::int64_t wi, std::int64_t yi) {
      const auto i = static_cast<std::size_t>(xi);
      const auto j = static_cast<std::size_t>(wi);
      const auto o = static_cast<std::size_t>(yi);
      y[o] += x[i] * w[j];
      y_size[o] += std::abs(x[i] * w[j]);
      dx[i] += dy[o] * w[j];
      dx_size[i] += std::abs(dy[o] * w[j]);
      dw[j] += dy[o] * x[i];
      dw_size[j] += std::abs(dy[o] * x[i]);
    });
  }
};

struct Computed {
  Array y, dx, dw;
};

Shape extents_of(const Axes& axes) {
  Shape out;
  for (const std::int64_t n : axes) out.push_back(n);
  return out;
}

Computed computed(const Case& c, const Array& x, const Array& w, const Array& dy) {
  const Attributes a = c.attributes();
  return {compute(*find_op("conv"), {x, w}, a),
          compute(*find_op("conv_input_gradient"), {dy, w}, a.with("extents", extents_of(c.in))),
          compute(*find_op("conv_weight_gradient"), {x, dy}, a.with("kernel", c.taps))};
}

double worst(const Array& got, const std::vector<long double>& expected, const std::vector<long double>& size) {
  REQUIRE(got.size() == static_cast<std::int64_t>(expected.size()));
  double out = 0;
  for (std::int64_t i = 0; i < got.size(); ++i)
    out = std::max(out,
                   ulps(got.dtype(), got[i], expected[static_cast<std::size_t>(i)], size[static_cast<std::size_t>(i)]));
  return out;
}

bool fuses() { return kernels::tables().name != std::string_view("baseline"); }

void check(const Case& c, DType dtype) {
  INFO(name(dtype) << " " << c.to_string());
  const Array x = random_array(dtype, c.x(), 0);
  const Array w = random_array(dtype, c.w(), 1);
  const Array dy = random_array(dtype, c.y(), 2);
  const Expected expected(c, x, w, dy);
  const Computed got = computed(c, x, w, dy);
  CHECK(got.y.shape() == c.y());
  CHECK(got.dx.shape() == c.x());
  CHECK(got.dw.shape() == c.w());
  // Without fused multiply-adds each term is rounded twice.
  const double allowed = fuses() ? 4 : 6;
  CHECK(worst(got.y, expected.y, expected.y_size) <= allowed);
  CHECK(worst(got.dx, expected.dx, expected.dx_size) <= allowed);
  CHECK(worst(got.dw, expected.dw, expected.dw_size) <= allowed);
}

void check(const Case& c) {
  check(c, float32);
  check(c, float64);
}

Axes all(std::size_t axes, std::int64_t n) { return Axes(axes, n); }

// Of square windows.
Case square(std::int64_t images, std::int64_t channels, std::int64_t features, const Axes& in, std::int64_t taps,
            std::int64_t stride = 1, std::int64_t padding = 0, std::int64_t dilation = 1, std::int64_t groups = 1) {
  const std::size_t axes = in.size();
  return {images,
          groups,
          channels,
          features,
          in,
          all(axes, taps),
          all(axes, stride),
          all(axes, padding),
          all(axes, padding),
          all(axes, dilation)};
}

bool same_bits(const Array& a, const Array& b) {
  if (!(a.shape() == b.shape()) || a.dtype() != b.dtype()) return false;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const double x = a[i];
    const double y = b[i];
    if (std::memcmp(&x, &y, sizeof x) != 0) return false;
  }
  return true;
}

// W10's and W5's layers for a few images, and others with every way to be cut.
std::vector<Case> large_cases() {
  return {
      square(3, 1, 20, {28, 28}, 5),
      square(3, 20, 50, {12, 12}, 5),
      square(2, 3, 16, {32, 32}, 3, 1, 1),
      square(2, 16, 16, {32, 32}, 3, 1, 1),
      square(2, 16, 32, {32, 32}, 3, 2, 1),
      square(2, 64, 64, {8, 8}, 3, 1, 1),
      square(2, 16, 32, {32, 32}, 1, 2),
      square(2, 70, 33, {14, 14}, 1),
      square(1, 24, 24, {28, 28}, 3, 1, 1, 1, 24),
      square(1, 3, 2, {3000}, 7, 1, 3),
      square(1, 2, 3, {6000}, 9, 3, 2, 2),
      square(1, 2, 3, {9, 11, 10}, 3, 2, 1),
      square(1, 1, 1, {300, 301}, 3, 1, 1),
      square(1, 300, 5, {7, 7}, 3, 1, 1),
      square(1, 5, 300, {7, 7}, 3, 1, 0),
  };
}

}  // namespace

// ---- values

TEST_CASE("a convolution by hand") {
  Graph graph;
  const auto x = graph.input("x", {1, 1, 3, 3});
  const auto w = graph.input("w", {1, 1, 2, 2});
  const Array xs = Array{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0}.reshape({1, 1, 3, 3});
  const Array ws = Array{1.0, 0.0, 0.0, -1.0}.reshape({1, 1, 2, 2});  // a cross-correlation: x[i, j] - x[i + 1, j + 1]
  const auto all =
      compute(graph, {conv(x, w), conv(x, w, {.stride = 2, .padding = {{1, 0}, {0, 1}}})}, {{x, xs}, {w, ws}});
  for (std::int64_t i = 0; i < 4; ++i) CHECK(all[0][i] == -4);
  // Rows of zeros before, columns behind: -2, 0 and then 4 - 8, 6 - 0.
  CHECK(numbers(all[1]) == std::vector<double>{-2, 0, -4, 6});
}

TEST_CASE("convolutions of every stride, padding, dilation and grouping agree with plain loops") {
  for (const std::int64_t taps : {1, 2, 3})
    for (std::int64_t stride = 1; stride <= 3; ++stride)
      for (std::int64_t padding = 0; padding <= taps + 1; ++padding)
        for (const std::int64_t dilation : {1, 2})
          for (const std::int64_t groups : {1, 2, 4}) {
            const Case c = square(2, 4, 8, {6, 9}, taps, stride, padding, dilation, groups);
            if (c.fits()) check(c);
          }
}

TEST_CASE("convolutions over one and three axes, and with other numbers along each, agree with plain loops") {
  for (std::int64_t stride = 1; stride <= 3; ++stride)
    for (std::int64_t padding = 0; padding <= 4; padding += 2)
      for (const std::int64_t dilation : {1, 2}) {
        const Case line = square(3, 2, 6, {19}, 3, stride, padding, dilation, 2);
        const Case solid = square(2, 2, 2, {5, 6, 7}, 2, stride, padding, dilation, 2);
        check(line);
        if (solid.fits()) check(solid);
      }
  check({2, 1, 3, 5, {9, 8}, {1, 4}, {2, 1}, {0, 3}, {1, 0}, {1, 2}});
  check({2, 2, 4, 2, {9, 8}, {5, 1}, {1, 3}, {4, 0}, {0, 2}, {2, 1}});
  check({1, 1, 2, 3, {4, 5, 6}, {3, 1, 2}, {1, 2, 3}, {1, 0, 2}, {2, 1, 0}, {1, 2, 1}});
}

TEST_CASE("convolutions of rows shorter than a vector, of extents 0 and 1") {
  for (const std::int64_t n : {1, 2, 3, 5, 7, 8, 9, 15, 16, 17})
    for (const std::int64_t features : {1, 3, 13, 14, 27}) check(square(2, 3, features, {4, n}, 3, 1, 1));
  check(square(1, 1, 1, {1, 1}, 1));
  check(square(1, 1, 1, {1, 1}, 3, 1, 1));
  check(square(3, 2, 4, {1, 6}, 1, 2));
  check(square(0, 2, 4, {5, 6}, 3));        // no examples
  check(square(2, 0, 4, {5, 6}, 3));        // no channels: zeros
  check(square(2, 3, 0, {5, 6}, 3));        // no features
  check(square(2, 3, 4, {0, 6}, 3, 1, 2));  // no rows but padding: zeros
}

TEST_CASE("large convolutions agree with plain loops") {
  for (const Case& c : large_cases()) check(c);
}

// ---- bits

namespace {

// By the rule: for y, blocks of whole channels of at most 256 terms, each a chain of fused multiply-adds.
template <class T>
std::vector<T> y_by_rule(const Case& c, const Array& x, const Array& w) {
  const std::int64_t channels = c.channels / c.groups;
  std::int64_t taps = 1;
  for (const std::int64_t n : c.taps) taps *= n;
  const std::int64_t most = std::max<std::int64_t>(1, 256 / taps);
  const std::int64_t blocks = (channels + most - 1) / most;
  std::vector<T> total(static_cast<std::size_t>(count(c.y())), T(0));
  std::vector<std::vector<T>> sums(static_cast<std::size_t>(blocks), total);
  for_each_product(c, [&](std::int64_t xi, std::int64_t wi, std::int64_t yi) {
    const std::int64_t channel = wi / taps % channels;
    std::int64_t block = 0;  // the larger blocks first
    for (std::int64_t end = 0;; ++block) {
      end += channels / blocks + (block < channels % blocks ? 1 : 0);
      if (channel < end) break;
    }
    T& sum = sums[static_cast<std::size_t>(block)][static_cast<std::size_t>(yi)];
    sum = std::fma(static_cast<T>(w[wi]), static_cast<T>(x[xi]), sum);
  });
  for (std::size_t b = 0; b < sums.size(); ++b)
    for (std::size_t i = 0; i < total.size(); ++i) total[i] = b == 0 ? sums[b][i] : total[i] + sums[b][i];
  return total;
}

template <class T>
void check_rule(const Case& c) {
  INFO(c.to_string());
  constexpr DType dtype = sizeof(T) == 4 ? float32 : float64;
  const Array x = random_array(dtype, c.x(), 0);
  const Array w = random_array(dtype, c.w(), 1);
  const Array y = compute(*find_op("conv"), {x, w}, c.attributes());
  const std::vector<T> expected = y_by_rule<T>(c, x, w);
  std::int64_t wrong = 0;
  for (std::int64_t i = 0; i < y.size(); ++i)
    wrong += static_cast<T>(y[i]) == expected[static_cast<std::size_t>(i)] ? 0 : 1;
  CHECK(wrong == 0);
}

struct Threads {
  int before = num_threads();
  ~Threads() { set_num_threads(before); }
};

}  // namespace

TEST_CASE("every output of a convolution is a chain of fused multiply-adds in order, whatever computes it") {
  if (!fuses()) {
    WARN("Skipped: without fused multiply-adds");
    return;
  }
  for (const Case& c : large_cases()) {
    check_rule<float>(c);
    check_rule<double>(c);
  }
}

TEST_CASE("convolutions have the same bits for every number of threads, and in every run") {
  const Threads restore;
  for (const Case& c : large_cases())
    for (const DType dtype : {float32, float64}) {
      INFO(c.to_string());
      const Array x = random_array(dtype, c.x(), 0);
      const Array w = random_array(dtype, c.w(), 1);
      const Array dy = random_array(dtype, c.y(), 2);
      set_num_threads(1);
      const Computed one = computed(c, x, w, dy);
      for (const int threads : {2, 3, 16}) {
        set_num_threads(threads);
        const Computed several = computed(c, x, w, dy);
        CHECK(same_bits(one.y, several.y));
        CHECK(same_bits(one.dx, several.dx));
        CHECK(same_bits(one.dw, several.dw));
      }
    }
}

// An example's result does not depend on what other examples there are.
TEST_CASE("a convolution's output has the same bits alone and within a batch") {
  const Case batch = square(5, 6, 10, {9, 9}, 3, 1, 1);
  const Case one = square(1, 6, 10, {9, 9}, 3, 1, 1);
  const Array x = random_array(float32, batch.x(), 0);
  const Array w = random_array(float32, batch.w(), 1);
  const Array y = compute(*find_op("conv"), {x, w}, batch.attributes());
  Array third(float32, one.x());
  for (std::int64_t i = 0; i < third.size(); ++i) third.set(i, x[3 * third.size() + i]);
  const Array alone = compute(*find_op("conv"), {third, w}, one.attributes());
  for (std::int64_t i = 0; i < alone.size(); ++i) REQUIRE(alone[i] == y[3 * alone.size() + i]);
}

// ---- derivatives

TEST_CASE("derivatives of convolutions of first and second order, for strides, groups and dilation") {
  for (const Case& c : {square(2, 4, 4, {5, 6}, 3, 2, 1, 1, 2), square(2, 2, 4, {7, 6}, 2, 3, 2, 2, 2),
                        square(1, 3, 3, {6, 5}, 3, 1, 4, 1, 3), square(2, 2, 3, {9}, 4, 2, 3)}) {
    INFO(c.to_string());
    Graph graph;
    const auto x = graph.parameter("x", uniform(to_shape(c.x()), -1, 1));
    const auto w = graph.parameter("w", uniform(to_shape(c.w()), -1, 1));
    const auto y = apply(*find_op("conv"), {x, w}, c.attributes());
    // A gradient penalty: the squared gradient of a nonlinear function of a convolution, once more differentiated.
    const Values d = gradients(mean(square(tanh(y))), {x, w});
    const auto penalty = mean(square(d[0])) + mean(square(d[1]));
    State state(graph);
    const CheckReport report = check_gradients(penalty, {x, w}, state, {});
    INFO(report.to_string());
    CHECK(report.passed());
  }
}

// ---- what users say

TEST_CASE("options of convolutions: one number, one an axis, pairs, names") {
  Graph graph;
  const auto x = graph.input("x", {2, 3, 7, 9});
  const auto w = graph.input("w", {4, 3, 3, 2});
  CHECK(conv(x, w).shape() == Shape{2, 4, 5, 8});
  CHECK(conv(x, w, {.padding = "valid"}).shape() == Shape{2, 4, 5, 8});
  CHECK(conv(x, w, {.padding = 1}).shape() == Shape{2, 4, 7, 10});
  CHECK(conv(x, w, {.padding = {1, 0}}).shape() == Shape{2, 4, 7, 8});
  CHECK(conv(x, w, {.padding = {{1, 2}, {0, 3}}}).shape() == Shape{2, 4, 8, 11});
  CHECK(conv(x, w, {.stride = {2, 3}}).shape() == Shape{2, 4, 3, 3});
  CHECK(conv(x, w, {.padding = "same"}).shape() == Shape{2, 4, 7, 9});
  CHECK(conv(x, w, {.stride = 2, .padding = "same"}).shape() == Shape{2, 4, 4, 5});
  CHECK(conv(x, w, {.padding = "same", .dilation = {2, 5}}).shape() == Shape{2, 4, 7, 9});
  // Half of it before, rounded down: an even window has the greater half behind.
  CHECK(conv(x, w, {.padding = "same"}).node().attribute<Axes>("padding") == Axes{1, 0, 1, 1});
}

TEST_CASE("a convolution of named examples and extents") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto height = graph.dimension("height");
  const auto x = graph.input("x", {n, 2, height, 6});
  const auto w = graph.parameter("w", uniform({3, 2, 3, 3}, -1, 1));
  const auto y = conv(x, w, {.stride = 2, .padding = 1});
  CHECK(y.shape()[0] == n);
  CHECK(y.shape()[3].is(3));
  const auto dw = gradients(sum(square(y)), {w})[0];
  State state(graph);
  Program program(state, {.outputs = {y, dw}});
  for (const std::int64_t h : {5, 8, 3}) {
    const Case c = square(h - 2, 2, 3, {h, 6}, 3, 2, 1);
    const Array xs = random_array(float64, c.x(), 0);
    const Results results = program.run({{x, xs}});
    const Array ys = results[0];
    Array twice = ys;
    for (std::int64_t i = 0; i < ys.size(); ++i) twice.set(i, 2 * ys[i]);
    const Expected expected(c, xs, state[w], twice);
    CHECK(ys.shape() == c.y());
    CHECK(worst(ys, expected.y, expected.y_size) <= 4);
    CHECK(worst(results[1], expected.dw, expected.dw_size) <= 4);
  }
  // Of an extent that the window does not fit.
  const auto narrow = conv(x, graph.parameter("v", uniform({3, 2, 5, 1})));
  Program failing(state, {.outputs = {narrow}});
  CHECK_THROWS_AS(failing.run({{x, uniform({2, 2, 3, 6})}}), Error);
}

TEST_CASE("a transposed convolution is the adjoint of a convolution, of every size that it may come from") {
  for (const std::int64_t stride : {1, 2, 3})
    for (const std::int64_t padding : {0, 1})
      for (std::int64_t further = 0; further < stride; ++further) {
        const std::int64_t n = (4 - 1) * stride - 2 * padding + 3 + further;
        const Case c = square(2, 4, 6, {n, n}, 3, stride, padding, 1, 2);
        REQUIRE(c.out() == Axes{4, 4});
        Graph graph;
        const auto x = graph.input("x", {2, 6, 4, 4});
        const auto w = graph.input("w", to_shape(c.w()));
        const auto y =
            conv_transpose(x, w, {.stride = stride, .padding = padding, .output_padding = further, .groups = 2});
        CHECK(y.shape() == to_shape(c.x()));
        const Array xs = random_array(float64, c.y(), 0);
        const Array ws = random_array(float64, c.w(), 1);
        const Expected expected(c, Array::full(float64, c.x(), 1), ws, xs);
        CHECK(worst(compute(graph, {y}, {{x, xs}, {w, ws}})[0], expected.dx, expected.dx_size) <= 4);
      }
  Graph graph;
  const auto h = graph.dimension("h");
  const auto y = conv_transpose(graph.input("x", {1, 2, h}), graph.input("w", {2, 1, 4}), {.stride = 2, .padding = 1});
  CHECK(y.shape()[2] == h * 2);
}

TEST_CASE("errors of convolutions name what was required and the user's line") {
  Graph graph;
  const auto x = graph.input("x", {2, 3, 7, 9});
  const auto w = graph.input("w", {4, 3, 3, 2});
  const std::size_t before = graph.size();
  const auto message = [&](const std::function<void()>& f) {
    const Error error = test::error_of(f);
    CHECK(std::string(error.what()).find("test_convolution.cpp:") != std::string::npos);
    CHECK(graph.size() == before);
    return std::string(error.what());
  };
  CHECK_THAT(message([&] { conv(x, w, {.groups = 2}); }), ContainsSubstring("requires 6 channels"));
  CHECK_THAT(message([&] { conv(x, w, {.groups = 3}); }),
             ContainsSubstring("requires features that 3 groups divide, got 4"));
  CHECK_THAT(message([&] { conv(x, w, {.groups = 0}); }), ContainsSubstring("groups of 1 or more, got 0"));
  CHECK_THAT(message([&] { conv(x, w, {.stride = 0}); }), ContainsSubstring("requires stride of 1 or more"));
  CHECK_THAT(message([&] { conv(x, w, {.stride = {1, 2, 3}}); }), ContainsSubstring("one number or 2"));
  CHECK_THAT(message([&] { conv(x, w, {.padding = -1}); }), ContainsSubstring("requires padding of 0 or more"));
  CHECK_THAT(message([&] { conv(x, w, {.padding = {{1, 1}}}); }), ContainsSubstring("requires 2 pairs of padding"));
  CHECK_THAT(message([&] { conv(x, w, {.padding = "full"}); }), ContainsSubstring("got \"full\""));
  CHECK_THAT(message([&] { conv(x, w, {.dilation = {4, 1}}); }), ContainsSubstring("requires an extent of 9 or more"));
  CHECK_THAT(message([&] { conv_transpose(x, w, {.output_padding = 1}); }), ContainsSubstring("output_padding below"));
  CHECK_THAT(message([&] { conv_transpose(x, w, {.padding = "same"}); }), ContainsSubstring("got \"same\""));
  CHECK_THAT(message([&] { conv_transpose(x, w); }), ContainsSubstring("requires 4 features"));
  CHECK_THROWS_AS(conv(graph.input("flat", {2, 3}), w), Error);
  CHECK_THROWS_AS(conv(graph.input("narrow", {2, 3, 7, 9}, float32), w), Error);
  CHECK_THROWS_AS(conv(Value(), w), Error);
}
