// Pooling, upsampling and windows as columns: by hand, over a grid of sizes against definitions, and what users say.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "references_images.hpp"
#include "support.hpp"

using namespace chainrule;
using Catch::Matchers::ContainsSubstring;
using test::compute;
namespace images = test::images;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

std::vector<double> numbers(const Array& x) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < x.size(); ++i) out.push_back(x[i]);
  return out;
}

using Numbers = std::vector<double>;

// y of x, and the gradient of the sum of y with weights 1, 2, 3, ...
struct Made {
  Array y;
  Array dx;
};

template <class F>
Made made(const Array& xs, F f, DType dtype = float64) {
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", to_shape(xs.shape()));
  const Value y = f(x);
  Array weights(dtype, evaluate(y.shape(), {}));
  for (std::int64_t i = 0; i < weights.size(); ++i) weights.set(i, static_cast<double>(i + 1));
  const Values dx = gradients(sum(y * graph.constant(weights)), {x});
  const auto out = compute(graph, {y, dx[0]}, {{x, xs}});
  return {out[0], out[1]};
}

bool close(const Array& got, const test::images::X& expected, double allowed) {
  if (!(got.shape() == Dims(expected.shape()))) return false;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double e = expected.flat(static_cast<std::size_t>(i));
    if (!(got[i] == e || std::abs(got[i] - e) <= allowed * (1 + std::abs(e)))) return false;
  }
  return true;
}

Attributes windows(std::int64_t window, std::int64_t stride, std::int64_t padding, std::int64_t dilation,
                   std::size_t n) {
  return {{"window", Axes(n, window)},
          {"stride", Axes(n, stride)},
          {"padding", Axes(2 * n, padding)},
          {"dilation", Axes(n, dilation)}};
}

struct Threads {
  int before = num_threads();
  ~Threads() { set_num_threads(before); }
};

}  // namespace

// ---- maxima

TEST_CASE("the greatest of windows by hand: ties to the first, overlaps add, padding is less than all") {
  const Array xs = Array{-5.0, -1.0, -1.0, -2.0, -1.0, -9.0}.reshape({1, 1, 6});
  const Made apart = made(xs, [](Value x) { return max_pool(x, 2); });
  CHECK(numbers(apart.y) == Numbers{-1, -1, -1});
  CHECK(numbers(apart.dx) == Numbers{0, 1, 2, 0, 3, 0});
  const Made overlapping = made(xs, [](Value x) { return max_pool(x, 3, {.stride = 1, .padding = 1}); });
  CHECK(numbers(overlapping.y) == Numbers{-1, -1, -1, -1, -1, -1});
  // The windows' first -1: 1, 1, 1, 2, 4, 4.
  CHECK(numbers(overlapping.dx) == Numbers{0, 1 + 2 + 3, 4, 0, 5 + 6, 0});
  // An image of equal elements: each window's first.
  const Made equal = made(Array::full(float64, {1, 1, 2, 4}, 7), [](Value x) { return max_pool(x, 2); });
  CHECK(numbers(equal.dx) == Numbers{1, 0, 2, 0, 0, 0, 0, 0});
}

TEST_CASE("NaN passes the greatest of windows, and infinities are numbers") {
  const Array xs = Array{1.0, nan_value, -inf, -inf, inf, 2.0}.reshape({1, 1, 6});
  const Made m = made(xs, [](Value x) { return max_pool(x, 2); });
  CHECK(std::isnan(m.y[0]));
  CHECK(m.y[1] == -inf);
  CHECK(m.y[2] == inf);
  CHECK(numbers(m.dx) == Numbers{0, 1, 2, 0, 3, 0});
}

TEST_CASE("the greatest of windows of every size agree with their definition") {
  for (const DType dtype : {float32, float64})
    for (std::int64_t window = 1; window <= 3; ++window)
      for (std::int64_t stride = 1; stride <= 3; ++stride)
        for (std::int64_t padding = 0; padding < window; ++padding)
          for (const std::int64_t dilation : {1, 2})
            for (const std::int64_t width : {5, 8, 16, 17, 33, 40}) {
              if (width + 2 * padding < dilation * (window - 1) + 1) continue;
              const Attributes a = windows(window, stride, padding, dilation, 2);
              INFO(name(dtype) << " " << width << " " << a.to_string());
              // Whole numbers, so that there are ties.
              const Array xs = integers({2, 2, 6, width}, -3, 4).draw(dtype, 1, 0).astype(dtype);
              const Made m = made(
                  xs,
                  [&](Value x) {
                    return max_pool(x, window, {.stride = stride, .padding = padding, .dilation = dilation});
                  },
                  dtype);
              const images::X x = xs;
              const images::X y = images::max_gathered(x, x, a);
              images::X weights = y;
              for (std::size_t i = 0; i < weights.size(); ++i) weights.flat(i) = static_cast<double>(i + 1);
              CHECK(close(m.y, y, 0));
              CHECK(close(m.dx, images::max_scattered(x, weights, a), 0));
              const Array v = uniform({2, 2, 6, width}, -1, 1).draw(dtype, 1, 1);
              CHECK(close(test::compute(*find_op("max_pool_gather"), {xs, v}, a), images::max_gathered(x, v, a), 0));
            }
}

TEST_CASE("the greatest of windows over one and three axes, and of even windows") {
  const Array line = uniform({2, 3, 19}, -1, 1);
  const Array solid = uniform({2, 2, 5, 4, 7}, -1, 1);
  for (const auto& [xs, a] : {std::pair{line, windows(3, 2, 1, 1, 1)},
                              {solid, windows(2, 2, 1, 1, 3)},
                              {line, Attributes{{"outputs", Axes{4}}}},
                              {solid, Attributes{{"outputs", Axes{1, 3, 2}}}}})
    CHECK(close(test::compute(*find_op("max_pool"), {xs}, a), images::max_gathered(xs, xs, a), 0));
  const Array ones = Array::full(float64, {1, 1, 3, 5}, 1);
  const Made whole = made(ones, [](Value x) { return global_max_pool(x); });
  CHECK(whole.y.shape() == Dims{1, 1, 1, 1});
  CHECK(numbers(whole.dx) == Numbers{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
}

// ---- means

TEST_CASE("means of windows by hand, with padding counted or not") {
  const Array xs = Array{1.0, 2.0, 3.0, 4.0}.reshape({1, 1, 4});
  const Made counted = made(xs, [](Value x) { return avg_pool(x, 3, {.stride = 2, .padding = 1}); });
  CHECK(close(counted.y, images::X{{{1.0, 3.0}}}, 1e-15));
  const Made inside =
      made(xs, [](Value x) { return avg_pool(x, 3, {.stride = 2, .padding = 1, .count_include_pad = false}); });
  CHECK(close(inside.y, images::X{{{1.5, 3.0}}}, 1e-15));
  CHECK(close(inside.dx, images::X{{{0.5, 0.5 + 2.0 / 3, 2.0 / 3, 2.0 / 3}}}, 1e-15));
  // In two dimensions the divisor is that of both: 2 * 2 of 3 * 3 in the corner.
  const Made corner = made(Array::full(float64, {1, 1, 4, 4}, 1), [](Value x) {
    return concat({avg_pool(x, 3, {.stride = 1, .padding = 1}),
                   avg_pool(x, 3, {.stride = 1, .padding = 1, .count_include_pad = false})},
                  0);
  });
  CHECK(corner.y[0] == Approx(4.0 / 9));
  CHECK(corner.y[1] == Approx(6.0 / 9));
  CHECK(corner.y[16] == Approx(1));
}

TEST_CASE("means of windows are those of their elements, for every size") {
  for (std::int64_t window = 1; window <= 3; ++window)
    for (std::int64_t stride = 1; stride <= 3; ++stride)
      for (std::int64_t padding = 0; padding < window; ++padding)
        for (const bool counts : {true, false}) {
          const Attributes a = windows(window, stride, padding, 1, 2);
          const Array xs = uniform({2, 3, 5, 7}, -1, 1);
          const images::X x = xs;
          images::X expected = images::max_gathered(x, x, a);
          images::for_each_window(x, a, [&](std::size_t i, const std::vector<std::size_t>& elements) {
            double total = 0;
            for (const std::size_t e : elements) total += x.flat(e);
            expected.flat(i) = total / static_cast<double>(counts ? window * window : std::int64_t(elements.size()));
          });
          const Made m = made(xs, [&](Value v) {
            return avg_pool(v, window, {.stride = stride, .padding = padding, .count_include_pad = counts});
          });
          CHECK(close(m.y, expected, 1e-14));
        }
}

TEST_CASE("even means and the mean of all") {
  const Array xs = Array{1.0, 2.0, 3.0, 4.0, 5.0}.reshape({1, 1, 5});
  // [0, 2), [1, 4), [3, 5)
  CHECK(close(made(xs, [](Value x) { return adaptive_avg_pool(x, 3); }).y, images::X{{{1.5, 3.0, 4.5}}}, 1e-15));
  // More outputs than elements: each is one of them or a mean of two.
  CHECK(close(made(xs, [](Value x) { return adaptive_avg_pool(x, 7); }).y, images::X{{{1, 1.5, 2.5, 3, 3.5, 4.5, 5}}},
              1e-15));
  const Made all = made(xs, [](Value x) { return global_avg_pool(x); });
  CHECK(all.y.shape() == Dims{1, 1, 1});
  CHECK(all.y[0] == Approx(3));
}

// ---- upsampling

TEST_CASE("upsampling by hand: nearest, linear, with corners aligned") {
  const Array xs = Array{1.0, 2.0, 4.0}.reshape({1, 1, 3});
  CHECK(numbers(made(xs, [](Value x) { return upsample(x, 2); }).y) == Numbers{1, 1, 2, 2, 4, 4});
  CHECK(numbers(made(xs, [](Value x) { return interpolate(x, 5); }).y) == Numbers{1, 1, 2, 2, 4});
  CHECK(close(made(xs, [](Value x) { return upsample(x, 2, {.mode = Interpolation::linear}); }).y,
              images::X{{{1, 1.25, 1.75, 2.5, 3.5, 4}}}, 1e-15));
  CHECK(close(made(xs,
                   [](Value x) {
                     return interpolate(x, 5, {Interpolation::linear, true});
                   })
                  .y,
              images::X{{{1, 1.5, 2, 3, 4}}}, 1e-15));
  CHECK(numbers(made(xs, [](Value x) { return interpolate(x, 1, {Interpolation::linear, true}); }).y) == Numbers{1});
  // Bilinear: the middle of four pixels.
  const Array square = Array{0.0, 1.0, 2.0, 3.0}.reshape({1, 1, 2, 2});
  const Made m = made(square, [](Value x) { return interpolate(x, 3, {Interpolation::linear, true}); });
  CHECK(close(m.y, images::X{{{{0, 0.5, 1}, {1, 1.5, 2}, {2, 2.5, 3}}}}, 1e-15));
  // Each of 9 weights goes to its neighbours, in halves and quarters; none is lost.
  CHECK(close(m.dx, images::X{{{{1 + 1 + 2 + 1.25, 1 + 3 + 1.25 + 3}, {2 + 1.25 + 7 + 4, 1.25 + 3 + 4 + 9}}}}, 1e-14));
}

TEST_CASE("pixel_shuffle moves channels into squares, and pixel_unshuffle back") {
  Array xs(float64, {2, 8, 2, 3});
  for (std::int64_t i = 0; i < xs.size(); ++i) xs.set(i, static_cast<double>(i));
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 8, 2, 3});
  const auto y = pixel_shuffle(x, 2);
  CHECK(y.shape() == Shape{n, 2, 4, 6});
  const auto out = compute(graph, {y, pixel_unshuffle(y, 2)}, {{x, xs}});
  for (std::int64_t b = 0; b < 2; ++b)
    for (std::int64_t c = 0; c < 2; ++c)
      for (std::int64_t h = 0; h < 4; ++h)
        for (std::int64_t w = 0; w < 6; ++w)
          REQUIRE(out[0][((b * 2 + c) * 4 + h) * 6 + w] ==
                  xs[((b * 8 + (c * 2 + h % 2) * 2 + w % 2) * 2 + h / 2) * 3 + w / 2]);
  CHECK(numbers(out[1]) == numbers(xs));
}

// ---- columns

TEST_CASE("a convolution is a product of weights and columns, and fold is the adjoint of unfold") {
  for (std::int64_t stride = 1; stride <= 3; ++stride)
    for (std::int64_t padding = 0; padding <= 4; padding += 2)
      for (const std::int64_t dilation : {1, 2}) {
        const Attributes a = windows(3, stride, padding, dilation, 2);
        const Array xs = uniform({2, 2, 6, 17}, -1, 1);
        const Array ws = uniform({4, 2, 3, 3}, -1, 1);
        Graph graph;
        const auto x = graph.input("x", {2, 2, 6, 17});
        const auto w = graph.input("w", {4, 2, 3, 3});
        const UnfoldOptions options{.stride = stride, .padding = padding, .dilation = dilation};
        const auto columns = unfold(x, 3, options);
        const auto product = matmul(reshape(w, {4, 18}), columns);
        const auto y = conv(x, w, {.stride = stride, .padding = padding, .dilation = dilation});
        const auto back = fold(columns, {6, 17}, 3, options);
        const auto out = compute(graph, {columns, product - reshape(y, product.shape()), back}, {{x, xs}, {w, ws}});
        CHECK(close(out[0], images::unfolded(xs, a), 0));
        for (std::int64_t i = 0; i < out[1].size(); ++i) REQUIRE(std::abs(out[1][i]) < 1e-13);
        CHECK(close(out[2], images::folded(images::unfolded(xs, a), a.with("extents", Shape{6, 17})), 1e-14));
      }
}

// ---- all of them

TEST_CASE("pooling has the same bits for every number of threads") {
  const Threads restore;
  Graph graph({.dtype = float32});
  const auto x = graph.parameter("x", normal({8, 16, 30, 30}));
  const Values ys = {max_pool(x, 3, {.stride = 2, .padding = 1}), avg_pool(x, 2),
                     upsample(x, 2, {.mode = Interpolation::linear}), unfold(x, 3)};
  Values all = ys;
  for (const Value y : ys) all.push_back(gradients(sum(square(y)), {x})[0]);
  set_num_threads(1);
  const auto one = compute(graph, all);
  for (const int threads : {2, 3, 16}) {
    set_num_threads(threads);
    const auto several = compute(graph, all);
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(numbers(one[i]) == numbers(several[i]));
  }
}

TEST_CASE("pooling of named extents") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto h = graph.dimension("h");
  const auto x = graph.input("x", {n, 2, h, 6});
  const Values ys = {max_pool(x, 2),
                     avg_pool(x, {3, 2}, {.padding = {1, 0}}),
                     adaptive_avg_pool(x, 2),
                     upsample(x, 3),
                     unfold(x, 2, {.stride = 2}),
                     global_avg_pool(x),
                     adaptive_max_pool(x, {3, 1})};
  State state(graph);
  Program program(state, {.outputs = ys});
  for (const std::int64_t height : {4, 7}) {
    const Array xs = uniform({height - 2, 2, height, 6});
    const Results results = program.run({{x, xs}});
    const std::int64_t b = height - 2;
    CHECK(results[0].shape() == Dims{b, 2, height / 2, 3});
    CHECK(results[1].shape() == Dims{b, 2, (height + 2 - 3) / 3 + 1, 3});
    CHECK(results[2].shape() == Dims{b, 2, 2, 2});
    CHECK(results[3].shape() == Dims{b, 2, 3 * height, 18});
    CHECK(results[4].shape() == Dims{b, 8, height / 2 * 3});
    CHECK(results[5].shape() == Dims{b, 2, 1, 1});
    CHECK(results[6].shape() == Dims{b, 2, 3, 1});
    CHECK(close(results[0], images::max_gathered(xs, xs, windows(2, 2, 0, 1, 2)), 0));
  }
}

TEST_CASE("derivatives of second order through pooling and upsampling") {
  Graph graph;
  const auto x = graph.parameter("x", uniform({2, 2, 5, 6}, -1, 1));
  const auto y = upsample(max_pool(square(x), 2, {.stride = 1}), 2, {.mode = Interpolation::linear});
  const auto loss = mean(square(avg_pool(tanh(y), 3, {.padding = 1})));
  const auto penalty = mean(square(gradients(loss, {x})[0]));
  State state(graph);
  const CheckReport report = check_gradients(penalty, {x}, state, {});
  INFO(report.to_string());
  CHECK(report.passed());
}

TEST_CASE("errors of pooling name what was required and the user's line") {
  Graph graph;
  const auto x = graph.input("x", {2, 8, 7, 9});
  const std::size_t before = graph.size();
  const auto message = [&](const std::function<void()>& f) {
    const Error error = test::error_of(f);
    CHECK(std::string(error.what()).find("test_pooling.cpp:") != std::string::npos);
    CHECK(graph.size() == before);
    return std::string(error.what());
  };
  CHECK_THAT(message([&] { max_pool(x, 8); }), ContainsSubstring("max_pool: requires an extent of 8 or more"));
  CHECK_THAT(message([&] { max_pool(x, 2, {.padding = 2}); }), ContainsSubstring("padding below the reach"));
  CHECK_THAT(message([&] {
               max_pool(x, {1, 2, 3});
             }),
             ContainsSubstring("requires window of 1 or more, one number or 2"));
  CHECK_THAT(message([&] { max_pool(x, 0); }), ContainsSubstring("requires window of 1 or more"));
  CHECK_THAT(message([&] { avg_pool(x, {3, 10}); }), ContainsSubstring("avg_pool: requires an extent of 10 or more"));
  CHECK_THAT(message([&] { avg_pool(x, 2, {.padding = 2}); }), ContainsSubstring("padding before and behind below"));
  CHECK_THAT(message([&] { adaptive_max_pool(x, 0); }), ContainsSubstring("requires outputs of 1 or more"));
  CHECK_THAT(message([&] { interpolate(x, 0); }), ContainsSubstring("requires size of 1 or more"));
  CHECK_THAT(message([&] { pixel_shuffle(x, 3); }), ContainsSubstring("requires an axis 1 that 9 divides"));
  CHECK_THAT(message([&] { pixel_unshuffle(x, 2); }), ContainsSubstring("requires an axis 2 that 2 divides"));
  CHECK_THAT(message([&] { unfold(x, 10); }), ContainsSubstring("unfold: requires an extent of 10 or more"));
  CHECK_THAT(message([&] { fold(x, {3, 3}, 2); }), ContainsSubstring("fold: requires columns"));
  CHECK_THROWS_AS(max_pool(Value(), 2), Error);
  CHECK_THROWS_AS(max_pool(graph.input("flat", {2, 3}), 2), Error);
  const auto columns = graph.input("columns", {2, 8, 5});
  CHECK_THROWS_WITH(fold(columns, {3, 3}, 2), ContainsSubstring("requires columns of 4 taps and 4 outputs"));
}
