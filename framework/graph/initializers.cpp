#include <chainrule/framework/graph/initializers.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

namespace chainrule::init {

namespace {

template <class F>
Initializer normal_of(F deviation) {
  return [deviation](const Shape& shape, double fan_in, double fan_out) {
    return chainrule::normal(shape, 0, deviation(fan_in, fan_out));
  };
}

template <class F>
Initializer uniform_of(F bound) {
  return [bound](const Shape& shape, double fan_in, double fan_out) {
    const double to = bound(fan_in, fan_out);
    return uniform(shape, -to, to);
  };
}

bool all_numbers(const Shape& shape) {
  return std::all_of(shape.begin(), shape.end(), [](Dimension d) { return d.is_number(); });
}

}  // namespace

Initializer zeros() { return constant(0); }

Initializer constant(double value) {
  return [value](const Shape& shape, double, double) { return full(shape, value); };
}

Initializer normal(double deviation) {
  return normal_of([deviation](double, double) { return deviation; });
}

Initializer he_normal() {
  return normal_of([](double fan_in, double) { return std::sqrt(2 / fan_in); });
}

Initializer he_uniform() {
  return uniform_of([](double fan_in, double) { return std::sqrt(6 / fan_in); });
}

Initializer xavier_normal() {
  return normal_of([](double fan_in, double) { return std::sqrt(1 / fan_in); });
}

Initializer lecun_normal() { return xavier_normal(); }

Initializer lecun_uniform() {
  return uniform_of([](double fan_in, double) { return std::sqrt(3 / fan_in); });
}

Initializer glorot_normal() {
  return normal_of([](double fan_in, double fan_out) { return std::sqrt(2 / (fan_in + fan_out)); });
}

Initializer glorot_uniform() {
  return uniform_of([](double fan_in, double fan_out) { return std::sqrt(6 / (fan_in + fan_out)); });
}

Initializer truncated_normal(double deviation) {
  return [deviation](const Shape& shape, double, double) { return chainrule::truncated_normal(shape, 0, deviation); };
}

Initializer orthogonal(double gain, Location at) {
  return [gain, at](const Shape& shape, double, double) { return chainrule::orthogonal(shape, gain, at); };
}

// A shape with names is left to the parameter to refuse.

Initializer identity(double gain, Location at) {
  return [gain, at](const Shape& shape, double, double) -> Initial {
    if (shape.rank() != 2) throw Error(at, "identity", fmt::format("requires a matrix, got {}", to_string(shape)));
    if (!all_numbers(shape)) return chainrule::zeros(shape);
    const std::int64_t columns = shape[1].extent();
    Array out = Array::full(float64, evaluate(shape, {}), 0);
    for (std::int64_t i = 0; i < std::min(shape[0].extent(), columns); ++i) out.set(i * columns + i, gain);
    return out;
  };
}

Initializer dirac(std::int64_t groups, Location at) {
  return [groups, at](const Shape& shape, double, double) -> Initial {
    if (shape.rank() < 3 || shape.rank() > 5)
      throw Error(
          at, "dirac",
          fmt::format("requires weights {{K, C, taps...}} with one to three spatial axes, got {}", to_string(shape)));
    if (!all_numbers(shape)) return chainrule::zeros(shape);
    const Dims dims = evaluate(shape, {});
    if (groups < 1 || dims[0] % groups != 0)
      throw Error(at, "dirac", fmt::format("requires groups that divide {} features, got {}", dims[0], groups));
    Array out = Array::full(float64, dims, 0);
    const std::int64_t in_group = dims[0] / groups;
    std::int64_t taps = 1;
    std::int64_t middle = 0;
    for (std::size_t axis = 2; axis < dims.rank(); ++axis) {
      taps *= dims[axis];
      middle = middle * dims[axis] + (dims[axis] - 1) / 2;
    }
    for (std::int64_t k = 0; k < dims[0] && taps > 0; ++k)
      if (k % in_group < dims[1]) out.set((k * dims[1] + k % in_group) * taps + middle, 1);
    return out;
  };
}

}  // namespace chainrule::init
