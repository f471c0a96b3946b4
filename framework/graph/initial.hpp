// Initial: a recipe for numbers of a known shape - for parameters, slots and the samples of ops.
#pragma once

#include <cstdint>
#include <memory>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/error.hpp>

namespace chainrule {

class Initial {
 public:
  // Given numbers. Floating ones are rounded to the dtype of whatever they initialise.
  Initial(Array values);
  template <class T>
  requires(std::convertible_to<const T&, Array> && !std::same_as<T, Array>) Initial(const T& values)
      : Initial(Array(values)) {}

  [[nodiscard]] const Dims& shape() const { return shape_; }
  // The shape that was asked for where its extents are not all numbers, so that there is nothing to draw; else null.
  [[nodiscard]] const Shape* symbolic_shape() const { return symbolic_.get(); }
  // int64 for integers(), their own for arrays of whole numbers and of bool, else whatever floating type is asked for.
  [[nodiscard]] DType dtype(DType floating) const;
  // The numbers; random ones are a pure function of (seed, stream, index), by the counter-based Philox 4x32-10. Throws
  // Error for a shape whose extents are not all numbers.
  [[nodiscard]] Array draw(DType floating, std::uint64_t seed, std::uint64_t stream) const;
  // With seed 0, in float64: so that `{{x, ones({3, 4})}}` feeds numbers.
  operator Array() const { return draw(float64, 0, 0); }

  friend Initial full(const Shape& shape, Number value);
  friend Initial uniform(const Shape& shape, double low, double high);
  friend Initial normal(const Shape& shape, double mean, double deviation);
  friend Initial truncated_normal(const Shape& shape, double mean, double deviation);
  friend Initial orthogonal(const Shape& shape, double gain, Location at);
  friend Initial integers(const Shape& shape, std::int64_t low, std::int64_t high);

 private:
  enum class Kind : std::uint8_t { values, full, uniform, normal, integers, truncated_normal, orthogonal };
  Initial(Kind kind, const Shape& shape, Number a, Number b);

  Kind kind_;
  Dims shape_;
  std::shared_ptr<const Shape> symbolic_;
  Number a_ = 0;  // the value, the lower bound, the mean or the gain
  Number b_ = 0;  // the upper bound or the deviation
  std::shared_ptr<const Array> values_;
};

// Shapes here are numbers, as `zeros({units, 1})`. Of one with a symbol nothing can be made: Graph::parameter() and
// Graph::variable() throw Error.
Initial full(const Shape& shape, Number value);
inline Initial zeros(const Shape& shape) { return full(shape, 0); }
inline Initial ones(const Shape& shape) { return full(shape, 1); }
// Evenly distributed in [low, high).
Initial uniform(const Shape& shape, double low = 0, double high = 1);
// Normally distributed (Box and Muller's method).
Initial normal(const Shape& shape, double mean = 0, double deviation = 1);
// Normally distributed, but within two deviations of the mean: what lies outside is drawn again, so that the deviation
// of what remains is 0.8796 times the one that is given. (The same bits on every machine, as orthogonal()'s.)
Initial truncated_normal(const Shape& shape, double mean = 0, double deviation = 1);
// gain times a matrix {extent 0, product of the others} whose rows are orthonormal, or its columns where it has fewer:
// the factor Q of QR of normally distributed numbers, with the signs that make R's diagonal positive, so that each
// such matrix is as likely as any other (Saxe, McClelland and Ganguli 2014; Mezzadri 2007). Computed in float64
// whatever the dtype, in (fewer)^2 (more) steps. Throws Error for a shape of less than two axes and a gain that is not
// finite.
Initial orthogonal(const Shape& shape, double gain = 1, Location at = Location::here());
// Whole numbers low <= n < high, as int64.
Initial integers(const Shape& shape, std::int64_t low, std::int64_t high);

}  // namespace chainrule
