// What the tests of ops have in common: one op run on given numbers, and distances in units in the last place.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <chainrule/framework/graph/op.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule::test {

// ---- one op

// How the inputs reach the op: fed to a run, fed where every extent above 1 is a symbol of the graph, or fixed in the
// graph, so that the op may be computed when the program is compiled.
enum class Given : std::uint8_t { fed, symbolic, fixed };

inline std::vector<Array> compute_all(const Op& op, const std::vector<Array>& inputs, const Attributes& attributes = {},
                                      Given given = Given::fed, Mode mode = Mode::training) {
  Graph graph({.seed = 1});
  Values values;
  std::vector<Feed> feeds;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (given == Given::fixed) {
      values.push_back(graph.constant(inputs[i]));
      continue;
    }
    Shape shape;
    for (const auto extent : inputs[i].shape())
      shape.push_back(given == Given::symbolic && extent > 1 ? graph.dimension(fmt::format("n{}", extent)) : extent);
    values.push_back(graph.input(fmt::format("input {}", i), shape, inputs[i].dtype()));
    feeds.emplace_back(values.back(), inputs[i]);
  }
  const Value y = values.empty() ? apply(graph, op, values, attributes) : apply(op, values, attributes);
  State state(graph);
  Program program(state, {.outputs = y.node().outputs(), .mode = mode});
  const Results results = program.run(std::span<const Feed>(feeds));
  std::vector<Array> out;
  for (std::size_t i = 0; i < results.size(); ++i) out.push_back(results[i]);
  return out;
}

inline Array compute(const Op& op, const std::vector<Array>& inputs, const Attributes& attributes = {},
                     Given given = Given::fed, Mode mode = Mode::training) {
  return compute_all(op, inputs, attributes, given, mode)[0];
}

// Samples ask for a floating dtype by float64; in a float32 graph that is float32.
inline Attributes in_dtype(const Attributes& attributes, DType floating) {
  const Attribute* wanted = attributes.find("dtype");
  return wanted && wanted->variant() == Attribute::Variant(float64) ? attributes.with("dtype", floating) : attributes;
}

// ---- distances

// From |x| to the next greater number of a floating dtype.
inline long double spacing(DType dtype, long double x) {
  int exponent = 0;
  std::frexp(x, &exponent);
  const int digits = dtype == float32 ? 24 : 53;
  const int least = dtype == float32 ? -149 : -1074;
  return std::ldexp(1.0L, x == 0 ? least : std::max(exponent - digits, least));
}

// |got - expected| in spacings of the dtype at `scale`. NaN and an infinity that is the exact result are far from all
// else; where an infinity stands for a number beyond the dtype's range, it lies where the next one would be.
inline double ulps(DType dtype, double got, long double expected, long double scale) {
  constexpr double far = std::numeric_limits<double>::infinity();
  if (std::isnan(got) || std::isnan(expected)) return std::isnan(got) && std::isnan(expected) ? 0 : far;
  if (std::isinf(expected)) return got == expected ? 0 : far;
  if (!std::isfinite(scale)) scale = expected;
  const long double end = std::ldexp(1.0L, dtype == float32 ? 128 : 1024);
  const auto within = [&](long double x) { return std::clamp(x, -end, end); };
  const long double difference = std::abs(within(got) - within(expected));
  return static_cast<double>(difference / spacing(dtype, std::min(std::abs(scale), end / 2)));
}

inline double ulps(DType dtype, double got, long double expected) { return ulps(dtype, got, expected, expected); }

inline std::string to_string(const std::vector<Array>& inputs) {
  std::string out;
  for (const Array& x : inputs)
    out += fmt::format("{}{}{}", out.empty() ? "" : ", ", name(x.dtype()), chainrule::to_string(x.shape()));
  return out;
}

}  // namespace chainrule::test
