#include <chainrule/framework/graph/initial.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/core/philox.hpp>
#include <chainrule/framework/graph/draws.hpp>

namespace chainrule {

namespace {

// The whole number that u in [0, 1) falls on: low <= n < high. Doubles are exact up to 2^53; beyond, the range is
// counted in steps as wide as u tells apart.
std::int64_t whole_between(std::int64_t low, std::int64_t high, double u) {
  constexpr std::int64_t exact = std::int64_t{1} << 53;
  const auto a = static_cast<double>(low);
  if (low >= -exact && high <= exact)
    return static_cast<std::int64_t>(std::floor(a + (static_cast<double>(high) - a) * u));
  const std::uint64_t range = static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low);
  const auto last = static_cast<double>(range - 1);
  const std::uint64_t step = std::min(static_cast<std::uint64_t>(last * u), range - 1);
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(low) + step);
}

}  // namespace

Initial::Initial(Array values)
    : kind_(Kind::values), shape_(values.shape()), values_(std::make_shared<const Array>(std::move(values))) {}

Initial::Initial(Kind kind, const Shape& shape, Number a, Number b) : kind_(kind), a_(a), b_(b) {
  if (std::all_of(shape.begin(), shape.end(), [](Dimension d) { return d.is_number(); })) {
    shape_ = evaluate(shape, Sizes{});
  } else {
    symbolic_ = std::make_shared<const Shape>(shape);
  }
}

Initial full(const Shape& shape, Number value) { return {Initial::Kind::full, shape, value, 0}; }

Initial uniform(const Shape& shape, double low, double high) {
  if (!(low <= high)) throw Error("uniform", fmt::format("requires low <= high, got {} and {}", low, high));
  return {Initial::Kind::uniform, shape, low, high};
}

Initial normal(const Shape& shape, double mean, double deviation) {
  if (!(deviation >= 0)) throw Error("normal", fmt::format("requires a deviation of 0 or more, got {}", deviation));
  return {Initial::Kind::normal, shape, mean, deviation};
}

Initial truncated_normal(const Shape& shape, double mean, double deviation) {
  if (!(deviation >= 0))
    throw Error("truncated_normal", fmt::format("requires a deviation of 0 or more, got {}", deviation));
  return {Initial::Kind::truncated_normal, shape, mean, deviation};
}

Initial orthogonal(const Shape& shape, double gain, Location at) {
  if (shape.rank() < 2)
    throw Error(at, "orthogonal", fmt::format("requires a shape of two axes or more, got {}", to_string(shape)));
  if (!std::isfinite(gain)) throw Error(at, "orthogonal", fmt::format("requires a finite gain, got {}", gain));
  return {Initial::Kind::orthogonal, shape, gain, 0};
}

Initial integers(const Shape& shape, std::int64_t low, std::int64_t high) {
  if (low >= high) throw Error("integers", fmt::format("requires low < high, got {} and {}", low, high));
  return {Initial::Kind::integers, shape, low, high};
}

DType Initial::dtype(DType floating) const {
  if (kind_ == Kind::integers) return int64;
  if (kind_ == Kind::values && !is_floating(values_->dtype())) return values_->dtype();
  return floating;
}

Array Initial::draw(DType floating, std::uint64_t seed, std::uint64_t stream) const {
  if (symbolic_)
    throw Error("initial", fmt::format("requires extents that are numbers, got {}", to_string(*symbolic_)));
  const DType type = dtype(floating);
  if (kind_ == Kind::values) return values_->astype(type);
  if (kind_ == Kind::full) return Array::full(type, shape_, a_);
  Array out(type, shape_);
  if (kind_ == Kind::orthogonal) {
    if (out.size() == 0) return out;
    const std::vector<double> q = detail::orthogonal(shape_[0], out.size() / shape_[0], seed, stream);
    for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, a_.as<double>() * q[static_cast<std::size_t>(i)]);
    return out;
  }
  const auto a = a_.as<double>();
  const auto b = b_.as<double>();
  for (std::int64_t i = 0; i < out.size(); ++i) {
    detail::Draws draws(seed, stream, i);
    if (kind_ == Kind::truncated_normal) {
      out.set(i, a + b * draws.normal(2));
      continue;
    }
    const double u = draws.unit();
    if (kind_ == Kind::uniform) {
      out.set(i, a + (b - a) * u);
    } else if (kind_ == Kind::integers) {
      out.set(i, whole_between(a_.as<std::int64_t>(), b_.as<std::int64_t>(), u));
    } else {
      const double radius = std::sqrt(-2 * std::log1p(-u));  // 1 - u lies in (0, 1]
      out.set(i, a + b * radius * std::cos(2 * std::numbers::pi * draws.unit()));
    }
  }
  return out;
}

}  // namespace chainrule
