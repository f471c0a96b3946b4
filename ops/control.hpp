// Ops that steer: training against inference, where gradients stop, conversions of dtype, sizes as numbers.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// `training` in programs of Mode::training, `inference` in programs of Mode::inference, broadcast to one shape.
// Gradients follow the same choice. Dropout and batch_norm are made of it; a layer of your own can be too.
Value by_mode(Value training, Operand inference, Location at = Location::here());

// x, as a constant to gradients.
Value stop_gradient(Value x, Location at = Location::here());

// x in another dtype, rounded as C++ does; to bool: x != 0. Gradients pass between floating dtypes.
Value cast(Value x, DType dtype, Location at = Location::here());

// The product of some dimensions as a number of a floating dtype: how many examples a batch has.
Value extent(Graph graph, const Shape& dimensions, DType dtype, Location at = Location::here());

}  // namespace chainrule
