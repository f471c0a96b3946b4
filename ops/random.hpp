// Ops that draw random numbers in each run: dropout and the randomized leaky ReLU.
//
// Element i of what is drawn is a pure function of (the graph's seed, this use of the op, the State's step, i) by
// Philox 4x32-10: the same for every thread count, made again in the backward pass rather than stored, and new in every
// run of a program that updates.
//
// Dropout (Srivastava et al. 2014), inverted: what is kept is scaled by 1 / keep, so that inference is the identity.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

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
