// Whole small Jacobians and Hessians as numbers, for people who want to look.
#pragma once

#include <initializer_list>
#include <span>

#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule {

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
