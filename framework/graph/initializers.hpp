// Initialisers: how weights begin, given how many inputs and outputs a unit has (its fans).
#pragma once

#include <cstdint>
#include <functional>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/graph/initial.hpp>

namespace chainrule::init {

// From the shape of a weight and its fans to its initial numbers.
using Initializer = std::function<Initial(const Shape& shape, double fan_in, double fan_out)>;

Initializer zeros();
Initializer constant(double value);
Initializer normal(double deviation);            // deviation as given
Initializer truncated_normal(double deviation);  // the same within two of these deviations: see initial.hpp
Initializer he_normal();                         // sqrt(2 / fan_in): He, Zhang, Ren and Sun 2015
Initializer he_uniform();                        // +- sqrt(6 / fan_in), of the same deviation
Initializer xavier_normal();                     // sqrt(1 / fan_in), the course's "Xavier": LeCun 1998
Initializer lecun_normal();                      // another name of xavier_normal()
Initializer lecun_uniform();                     // +- sqrt(3 / fan_in), of the same deviation
Initializer glorot_normal();                     // sqrt(2 / (fan_in + fan_out)): Glorot and Bengio 2010
Initializer glorot_uniform();                    // +- sqrt(6 / (fan_in + fan_out)), of the same deviation

// gain times a random matrix of orthonormal rows or columns: orthogonal() in initial.hpp. Its Errors are those of the
// line that makes the initializer.
Initializer orthogonal(double gain = 1, Location at = Location::here());
// gain at {i, i}, 0 elsewhere, of a matrix: a layer that passes on what it gets (Le, Jaitly and Hinton 2015).
Initializer identity(double gain = 1, Location at = Location::here());
// Of the weights {K, C / groups, taps...} of a convolution with so many groups: one that passes on what it gets, its
// first features being its channels. 1 for feature k of a group, channel k of the group and the middle tap (of an even
// number the one before the middle, as padding "same" wants it); 0 elsewhere, and for features beyond the channels.
Initializer dirac(std::int64_t groups = 1, Location at = Location::here());

}  // namespace chainrule::init
