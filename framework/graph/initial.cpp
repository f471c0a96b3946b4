#include <chainrule/framework/graph/initial.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/core/philox.hpp>

namespace chainrule {

namespace {

// In [0, 1) with 52 bits, from two words of a block.
double fine_unit(std::uint32_t high, std::uint32_t low) {
  return static_cast<double>((std::uint64_t{high} << 20) | (low >> 12)) * 0x1p-52;
}

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
  const auto a = a_.as<double>();
  const auto b = b_.as<double>();
  for (std::int64_t i = 0; i < out.size(); ++i) {
    const auto [w0, w1, w2, w3] = philox::block({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(i >> 32),
                                                 static_cast<std::uint32_t>(stream), 0x494E4954u /* "INIT" */},
                                                seed);
    const double u = fine_unit(w0, w1);
    if (kind_ == Kind::uniform) {
      out.set(i, a + (b - a) * u);
    } else if (kind_ == Kind::integers) {
      out.set(i, whole_between(a_.as<std::int64_t>(), b_.as<std::int64_t>(), u));
    } else {
      const double radius = std::sqrt(-2 * std::log1p(-u));  // 1 - u lies in (0, 1]
      out.set(i, a + b * radius * std::cos(2 * std::numbers::pi * fine_unit(w2, w3)));
    }
  }
  return out;
}

}  // namespace chainrule
