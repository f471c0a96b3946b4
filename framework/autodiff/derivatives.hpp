// Derivatives beyond the gradient, made of gradients(): products with Jacobians and Hessians as values of the graph,
// and whole small Jacobians and Hessians as numbers, for people who want to look.
#pragma once

#include <initializer_list>
#include <span>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state.hpp>

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

// d y / d x as numbers, {elements of y, elements of x}, at the State's numbers and these feeds, a run for each element
// of y. x: a floating input, parameter or variable. The graph and the State are left as they are.
Array jacobian(Value y, Value x, const State& state, std::span<const Feed> feeds, Location at = Location::here());
Array jacobian(Value y, Value x, const State& state, std::initializer_list<Feed> feeds = {},
               Location at = Location::here());
// The second derivatives of a scalar, {elements of x, elements of x}, a run for each element of x.
Array hessian(Value loss, Value x, const State& state, std::span<const Feed> feeds, Location at = Location::here());
Array hessian(Value loss, Value x, const State& state, std::initializer_list<Feed> feeds = {},
              Location at = Location::here());

}  // namespace chainrule
