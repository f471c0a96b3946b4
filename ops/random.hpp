// Ops that draw random numbers in each run: uniform and normal ones, dropout, and the randomized leaky ReLU.
//
// Element i of what is drawn is a pure function of (the graph's seed, this use of the op, the State's step, i) by
// Philox 4x32-10: the same for every thread count, made again in the backward pass rather than stored, and new in every
// run of a program that updates.
//
// Dropout (Srivastava et al. 2014), inverted: what is kept is scaled by 1 / keep, so that inference is the identity.
#pragma once

#include <optional>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// What random_uniform, random_normal and random_integers share.
struct RandomOptions {
  std::optional<DType> dtype = std::nullopt;  // float32 or float64; the graph's where it is left out. Not of integers
  // An int64 scalar in the place of the State's step, its lower 32 bits: an input that each run is fed another number,
  // for new numbers in a program that does not update; or a constant, for the same ones always.
  Value counter = {};
};

// Numbers evenly distributed in [low, high), of 24 random bits each, rounded to the dtype; sizes may be named. In
// training and in inference. Throws Error for bounds that are not finite or not in order, another dtype, and a counter
// that is no int64 scalar of the graph.
Value random_uniform(Graph graph, const Shape& shape, double low = 0, double high = 1,
                     const RandomOptions& options = {}, Location at = Location::here());

// Independent normal numbers, mean + deviation z with z = sqrt(-2 log(1 - u)) cos(2 pi v) of two uniform numbers (Box
// and Muller 1958), so that |z| < 5.77. Throws Error for a deviation below 0, and as random_uniform does.
//   sample = mean + exp(log_variance / 2) * cr::random_normal(graph, mean.shape());
Value random_normal(Graph graph, const Shape& shape, double mean = 0, double deviation = 1,
                    const RandomOptions& options = {}, Location at = Location::here());

// Whole numbers of [low, high), each as likely but for 2^-24; int64. Throws Error where there are none or more than
// 2^24 of them, for a dtype, and as random_uniform does.
Value random_integers(Graph graph, const Shape& shape, std::int64_t low, std::int64_t high,
                      const RandomOptions& options = {}, Location at = Location::here());

struct DropoutOptions {
  double keep = 0.5;  // the probability that an element is kept; 0 < keep <= 1
};

// x * mask / keep in training, x in inference.
Value dropout(Value x, const DropoutOptions& options, Location at = Location::here());

// The same with a mask of the user's: 1 (or true) for what is kept, 0 for what is dropped.
Value dropout(Value x, Value mask, const DropoutOptions& options, Location at = Location::here());

struct RReluOptions {
  double low = 1.0 / 8;
  double high = 1.0 / 3;  // low <= high
};

// The randomized leaky ReLU (Xu, Wang, Chen and Li 2015): x above 0, slope * x elsewhere, where in training each
// element's slope is drawn evenly from [low, high), and in inference it is their mean. PyTorch's bounds.
Value rrelu(Value x, const RReluOptions& options = {}, Location at = Location::here());

}  // namespace chainrule
