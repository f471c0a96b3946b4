#include <chainrule/framework/graph/initializers.hpp>

#include <cmath>

namespace chainrule::init {

namespace {

template <class F>
Initializer normal_of(F deviation) {
  return [deviation](const Shape& shape, double fan_in, double fan_out) {
    return chainrule::normal(shape, 0, deviation(fan_in, fan_out));
  };
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

Initializer xavier_normal() {
  return normal_of([](double fan_in, double) { return std::sqrt(1 / fan_in); });
}

Initializer glorot_normal() {
  return normal_of([](double fan_in, double fan_out) { return std::sqrt(2 / (fan_in + fan_out)); });
}

Initializer glorot_uniform() {
  return [](const Shape& shape, double fan_in, double fan_out) {
    const double bound = std::sqrt(6 / (fan_in + fan_out));
    return uniform(shape, -bound, bound);
  };
}

}  // namespace chainrule::init
