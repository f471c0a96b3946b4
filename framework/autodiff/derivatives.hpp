// Derivatives beyond the gradient, made of gradients(): products with Jacobians and Hessians as values of the graph.
#pragma once

#include <chainrule/framework/autodiff/gradients.hpp>

namespace chainrule {

// The vector-Jacobian product J' w: for each x, the gradient of sum(y * w). w has y's shape and dtype. (Reverse mode;
// the same as gradients(y, xs, w).)
Values vjp(Value y, const Values& xs, Value w, Location at = Location::here());

// The Jacobian-vector product J v: how y changes when each x moves along its v; of y's shape. Forward mode by reverse
// mode twice: w -> J' w is linear, and the gradient of <J' w, v> with respect to w is J v. Zeros where y depends on no
// x.
Value jvp(Value y, const Values& xs, const Values& vs, Location at = Location::here());

// The Hessian-vector product H v of a scalar: the gradient of <gradient, v>, for each x.
Values hvp(Value loss, const Values& xs, const Values& vs, Location at = Location::here());

}  // namespace chainrule
