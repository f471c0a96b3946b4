// What is done to gradients on their way to an optimizer, and to the updates that it makes: all of it expressions of
// the graph.
//   const auto gradients = cr::gradients(loss, parameters);
//   const auto updates = adam.apply(parameters, cr::optim::clip_by_global_norm(gradients, 1));
//
// All throw Error, with the graph as it was, where there are no gradients or an empty Value among them, for values of
// several graphs or that are not floating, and for a number that is out of the range that stands beside it.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/run/program.hpp>

namespace chainrule::optim {

// The root of the sum of the squares of all elements, in float64.
Value global_norm(const Values& values, Location at = Location::here());

// Each element within [-most, most]; most is finite and above 0. NaN stays.
Values clip_by_value(const Values& gradients, double most, Location at = Location::here());

// Each gradient g times min(1, most / |g|), |g| the root of the sum of its squares: of the same direction, no longer
// than most, which is finite and above 0. A norm that is not finite gives NaN.
Values clip_by_norm(const Values& gradients, double most, Location at = Location::here());

// All of them times min(1, most / global_norm), most finite and above 0 (Pascanu, Mikolov and Bengio 2013).
Values clip_by_global_norm(const Values& gradients, double most, Location at = Location::here());

// g + deviation z, z independent normal numbers, new in each step; the deviation is finite and not negative.
// (Neelakantan et al. 2015; their schedule may be given as a value.)
Values add_noise(const Values& gradients, double deviation, Location at = Location::here());
Values add_noise(const Values& gradients, Value deviation, Location at = Location::here());

struct Guarded {
  Updates updates;
  Value skipped;  // int64 scalar, a variable: how many steps were skipped so far
};
// The same updates in a step whose gradients are all finite; in another one nothing is updated, but for the count.
Guarded skip_unless_finite(const Updates& updates, const Values& gradients, Location at = Location::here());

// Updates from the mean of the gradients of `batches` steps that follow each other, made in the last of them: for
// batches of equal size the numbers of one large batch, to rounding. `apply` makes them of that mean. In the other
// steps only the sums are updated. Schedules of graph.step() count all steps.
//   optim::accumulate(4, parameters, gradients, [&](const cr::Values& g) { return adam.apply(parameters, g); })
// Throws Error for batches below 1.
Updates accumulate(std::int64_t batches, const Values& parameters, const Values& gradients,
                   const std::function<Updates(const Values&)>& apply, Location at = Location::here());

struct Averages {
  Updates updates;  // of the averages, to be given to the program beside those that they were made from
  Values values;    // the averages, in the order of the parameters; before the first update the parameters themselves
};

struct AverageOptions {
  double decay = 0.999;    // 0 to 1; 0.995 is common for the targets of reinforcement learning
  bool equal = false;      // all steps weigh the same, whatever the decay (stochastic weight averaging)
  std::int64_t begin = 0;  // the first of the optimizer's updates that counts, 0 or more
  std::int64_t every = 1;  // of which updates from there on one counts, above 0
};
// Variables that follow parameters: after each update a = w, the first time, and a = a + (1 - decay) (w - a) (Polyak
// and Juditsky 1992), or with `equal` the mean of w so far (Izmailov et al. 2018). w is the parameter after the update.
// Throws Error for a parameter that none of the updates is of.
Averages averages(const Updates& updates, const Values& parameters, const AverageOptions& options = {},
                  Location at = Location::here());

}  // namespace chainrule::optim
