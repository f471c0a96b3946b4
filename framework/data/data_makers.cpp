// Sets of points in the plane, as scikit-learn and the course make them.
#include <cmath>
#include <numbers>
#include <numeric>
#include <string_view>
#include <tuple>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/data/data.hpp>

namespace chainrule::data {

namespace {

// numpy.linspace(start, stop, points)[i]: the end is exact. (The cosines and sines taken of these are libm's, as
// NumPy's are but on processors with AVX-512: there it has its own, which differ in the last bit.)
double evenly(double start, double stop, std::int64_t i, std::int64_t points) {
  if (i == 0) return start;
  if (i == points - 1) return stop;
  return static_cast<double>(i) * ((stop - start) / static_cast<double>(points - 1)) + start;
}

void check_samples(std::int64_t samples, std::string_view op, Location at) {
  if (samples < 0) throw Error(at, op, fmt::format("requires 0 samples or more, got {}", samples));
}

void check_noise(double noise, std::string_view op, Location at) {
  if (!(noise >= 0)) throw Error(at, op, fmt::format("requires a noise of 0 or more, got {}", noise));
}

struct Point {
  double x0;
  double x1;
  double label;
};

// scikit-learn's order of draws: one shuffle of all points, then the noise point by point, first coordinate first.
template <class PointOf>
Dataset shuffled(std::int64_t samples, bool shuffle, const std::optional<double>& noise, numpy::RandomState& rng,
                 PointOf point_of) {
  std::vector<std::int64_t> order;
  if (shuffle) {
    order = rng.permutation(samples);
  } else {
    order.resize(static_cast<std::size_t>(samples));
    std::iota(order.begin(), order.end(), 0);
  }
  Dataset out{Array(float64, {2, samples}), Array(float64, {1, samples})};
  auto* x0 = out.x.data<double>();
  double* x1 = x0 + samples;
  auto* y = out.y.data<double>();
  for (const auto i : order) {
    const Point point = point_of(i);
    *x0 = point.x0;
    *x1 = point.x1;
    *y = point.label;
    if (noise) {
      *x0 += rng.normal(0, *noise);
      *x1 += rng.normal(0, *noise);
    }
    ++x0, ++x1, ++y;
  }
  return out;
}

// Two halves of points given by an angle and a radius: all angles of a half are drawn before its radii.
template <class AngleOf, class RadiusOf, class PlaceOf>
Dataset polar(std::int64_t samples, AngleOf angle_of, RadiusOf radius_of, PlaceOf place_of) {
  const std::int64_t half = samples / 2;
  Dataset out{Array(float64, {2, samples}), Array(float64, {1, samples})};
  auto* x0 = out.x.data<double>();
  double* x1 = x0 + samples;
  std::vector<double> angles(static_cast<std::size_t>(half));
  for (const int label : {0, 1}) {
    for (std::int64_t i = 0; i < half; ++i) angles[static_cast<std::size_t>(i)] = angle_of(label, i, half);
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = angles[static_cast<std::size_t>(i)];
      const double radius = radius_of(label, angle);
      const std::int64_t at = label * half + i;
      std::tie(x0[at], x1[at]) = place_of(angle, radius);
      out.y.set(at, label);
    }
  }
  return out;
}

void check_halves(std::int64_t samples, double noise, std::string_view op, Location at) {
  check_samples(samples, op, at);
  if (samples % 2 != 0) throw Error(at, op, fmt::format("requires an even number of samples, got {}", samples));
  check_noise(noise, op, at);
}

}  // namespace

Dataset make_moons(const MoonsOptions& options, numpy::RandomState& rng, Location at) {
  check_samples(options.samples, "make_moons", at);
  if (options.noise) check_noise(*options.noise, "make_moons", at);
  const std::int64_t outer = options.samples / 2;
  const std::int64_t inner = options.samples - outer;
  return shuffled(options.samples, options.shuffle, options.noise, rng, [&](std::int64_t i) -> Point {
    if (i < outer) {
      const double t = evenly(0, std::numbers::pi, i, outer);
      return {std::cos(t), std::sin(t), 0};
    }
    const double t = evenly(0, std::numbers::pi, i - outer, inner);
    return {1 - std::cos(t), 1 - std::sin(t) - 0.5, 1};  // rounded after each step, as the original
  });
}

Dataset make_circles(const CirclesOptions& options, numpy::RandomState& rng, Location at) {
  check_samples(options.samples, "make_circles", at);
  if (options.noise) check_noise(*options.noise, "make_circles", at);
  if (!(options.factor >= 0 && options.factor < 1))
    throw Error(at, "make_circles", fmt::format("requires a factor within [0, 1), got {}", options.factor));
  const std::int64_t outer = options.samples / 2;
  const std::int64_t inner = options.samples - outer;
  const auto angle = [](std::int64_t i, std::int64_t points) {
    return static_cast<double>(i) * (2 * std::numbers::pi / static_cast<double>(points));
  };
  return shuffled(options.samples, options.shuffle, options.noise, rng, [&](std::int64_t i) -> Point {
    if (i < outer) return {std::cos(angle(i, outer)), std::sin(angle(i, outer)), 0};
    const double t = angle(i - outer, inner);
    return {std::cos(t) * options.factor, std::sin(t) * options.factor, 1};
  });
}

Dataset make_flower(const FlowerOptions& options, numpy::RandomState& rng, Location at) {
  check_halves(options.samples, options.noise, "make_flower", at);
  return polar(
      options.samples,
      [&](int label, std::int64_t i, std::int64_t half) {
        return evenly(label * 3.12, (label + 1) * 3.12, i, half) + rng.randn() * options.noise;
      },
      [&](int, double angle) { return options.ray * std::sin(4 * angle) + rng.randn() * options.noise; },
      [](double angle, double radius) { return std::pair(radius * std::sin(angle), radius * std::cos(angle)); });
}

Dataset make_spirals(const SpiralsOptions& options, numpy::RandomState& rng, Location at) {
  check_halves(options.samples, options.noise, "make_spirals", at);
  return polar(
      options.samples, [&](int label, std::int64_t i, std::int64_t half) { return evenly(label, 4 * 3.1415, i, half); },
      [&](int label, double angle) { return (label == 0 ? 0.3 : 0.2) * (angle * angle) + rng.randn() * options.noise; },
      [](double angle, double radius) { return std::pair(radius * std::cos(angle), radius * std::sin(angle)); });
}

}  // namespace chainrule::data
