// Minimizers of a cost that is the same in every run: of all data at once, as in regressions, Gaussian processes and
// physics. They are loops around programs, not updates of one, and choose the length of each step by searching along
// it.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/graph/mode.hpp>
#include <chainrule/framework/run/feed.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule::optim {

// What a minimizer says after an iteration.
struct Iteration {
  std::int64_t iteration = 0;  // counted from 0
  double cost = 0;             // after it
  double gradient = 0;         // its greatest element, by size
  double step = 0;             // along the direction that was searched
  bool stop = false;           // set it to end the search here
};

struct WholeBatchOptions {
  std::int64_t iterations = 1000;  // at most; 0 or more
  // It has converged where no element of the gradient is larger than this, or where an iteration changes the cost by no
  // more than cost_tolerance * max(|cost|, |cost before|, 1). 0 or more.
  double gradient_tolerance = 1e-5;
  double cost_tolerance = 1e-12;
  // The search along a direction wants a step after which the cost has fallen by `decrease` of what the slope promised,
  // and the slope is no steeper than `curvature` of what it was: the strong conditions of Wolfe. 0 < decrease <
  // curvature < 1.
  double decrease = 1e-4;
  double curvature = 0.9;
  std::int64_t evaluations_a_search = 25;  // at most, above 0
  std::int64_t history = 10;               // of L-BFGS: how many steps it remembers; above 0
  Mode mode = Mode::training;              // of the graph. Random numbers are the same in all evaluations.
  std::function<void(Iteration&)> after_iteration = {};
};

enum class Ended : std::uint8_t { gradient, cost, iterations, no_lower_cost, not_finite, stopped };

struct Minimum {
  double cost = 0;
  double gradient = 0;           // its greatest element, by size
  std::int64_t iterations = 0;   // that lowered the cost
  std::int64_t evaluations = 0;  // of the cost and its gradient
  std::int64_t products = 0;     // with the Hessian, of newton_cg
  Ended ended = Ended::iterations;
  // Whether it ended because the gradient or the change of the cost was small enough.
  [[nodiscard]] bool converged() const { return ended == Ended::gradient || ended == Ended::cost; }
  // "the gradient's greatest element, 3e-07, is at most 1e-05"
  std::string why;
};

// Lowers the loss, a scalar, by the parameters' numbers in the State, which has the best ones found at the end, and
// after an error those that it had before. Slots, the step and the epoch are left alone. The feeds are those of each
// run of the loss.
// Throws Error for a loss that is no scalar or depends on no parameter, for parameters that are none or given twice,
// for options that are out of range, and what Program and Program::run throw.

// L-BFGS (Nocedal 1980; Liu and Nocedal 1989): the direction is that of Newton's method for what the last few steps
// told of the curvature. Memory: 2 history + 5 times the parameters', in float64.
//   const auto found = cr::optim::lbfgs(state, loss, graph.parameters(), {{x, data.x}, {y, data.y}});
Minimum lbfgs(State& state, Value loss, const Values& parameters, std::span<const Feed> feeds,
              const WholeBatchOptions& options = {}, Location at = Location::here());
inline Minimum lbfgs(State& state, Value loss, const Values& parameters, std::initializer_list<Feed> feeds = {},
                     const WholeBatchOptions& options = {}, Location at = Location::here()) {
  return lbfgs(state, loss, parameters, std::span(feeds.begin(), feeds.size()), options, at);
}

// Newton's method with conjugate gradients (Nocedal and Wright 2006, algorithm 7.1): each direction solves H p = -g by
// products with the Hessian (hvp), as exactly as the gradient is small, and ends where the curvature is negative. For
// losses with second derivatives.
Minimum newton_cg(State& state, Value loss, const Values& parameters, std::span<const Feed> feeds,
                  const WholeBatchOptions& options = {}, Location at = Location::here());
inline Minimum newton_cg(State& state, Value loss, const Values& parameters, std::initializer_list<Feed> feeds = {},
                         const WholeBatchOptions& options = {}, Location at = Location::here()) {
  return newton_cg(state, loss, parameters, std::span(feeds.begin(), feeds.size()), options, at);
}

}  // namespace chainrule::optim
