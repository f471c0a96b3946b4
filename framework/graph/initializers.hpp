// Initialisers: how weights begin, given how many inputs and outputs a unit has.
#pragma once

#include <functional>

#include <chainrule/framework/graph/initial.hpp>

namespace chainrule::init {

// From the shape of a weight and its fans to its initial numbers.
using Initializer = std::function<Initial(const Shape& shape, double fan_in, double fan_out)>;

Initializer zeros();
Initializer constant(double value);
Initializer normal(double deviation);  // deviation as given
Initializer he_normal();               // sqrt(2 / fan_in): He, Zhang, Ren and Sun 2015
Initializer xavier_normal();           // sqrt(1 / fan_in), the course's "Xavier": LeCun 1998
Initializer glorot_normal();           // sqrt(2 / (fan_in + fan_out)): Glorot and Bengio 2010
Initializer glorot_uniform();          // +- sqrt(6 / (fan_in + fan_out))

}  // namespace chainrule::init
