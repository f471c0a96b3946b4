// Ops that draw random numbers in each run: of several distributions, dropout, and the randomized leaky ReLU.
//
// Element i of what is drawn is a pure function of (the graph's seed, this use of the op, the State's step, i) by
// Philox 4x32-10: the same for every thread count, made again in the backward pass rather than stored, and new in every
// run of a program that updates; with Draws::each_run (run/program.hpp) in every run.
//
// Dropout (Srivastava et al. 2014), inverted: what is kept is scaled by 1 / keep, so that inference is the identity.
#pragma once

#include <optional>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// What the functions here share that draw numbers of a distribution.
struct RandomOptions {
  std::optional<DType> dtype = std::nullopt;  // float32 or float64; the graph's where it is left out. Not of integers
  // An int64 scalar in the place of the State's step, its lower 62 bits: an input that each run is fed another number,
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

// 1 with a probability, else 0, in any dtype (bool: true and false). The probability is a number from 0 to 1, or a
// value: one for each element, whose floating dtype is that of what is drawn unless options say another; of less than
// 0, or NaN, nothing is 1, of 1 and more everything. It has no slope. Exact to 2^-52, or the dtype's rounding.
Value random_bernoulli(Graph graph, const Shape& shape, double probability, const RandomOptions& options = {},
                       Location at = Location::here());
Value random_bernoulli(Value probability, const RandomOptions& options = {}, Location at = Location::here());

// Gumbel's distribution of extremes, -log(-log(u)), whose distribution function is exp(-exp(-x)): from -2.9 (-3.6 in
// float64) to 36.8, with all digits where it is great.
Value random_gumbel(Graph graph, const Shape& shape, const RandomOptions& options = {}, Location at = Location::here());

// Classes along the last axis, each with the probability softmax(logits): int64 of the other axes, by the greatest of
// logits + random_gumbel (Gumbel 1954; Maddison, Tarlow and Minka 2014), which needs no sum of exponentials. A class of
// -inf is not drawn where there is another. Several draws for the same logits: broadcast_to() them. A temperature:
// divide them. Throws Error for logits that are not floating or have no classes, for a dtype, and as random_uniform
// does.
Value random_categorical(Value logits, const RandomOptions& options = {}, Location at = Location::here());

// mean + deviation z with z normally distributed between low and high, two numbers of which either may be infinite, in
// standard deviations: by the inverse of the distribution function (Wichura 1988) of one uniform number, counted from
// the nearer end, so that tails far out have their digits: nothing is drawn again, whatever the bounds. Throws Error
// for low >= high, bounds beyond which float64 has no probability (38), and as random_normal does.
Value random_truncated_normal(Graph graph, const Shape& shape, double mean = 0, double deviation = 1, double low = -2,
                              double high = 2, const RandomOptions& options = {}, Location at = Location::here());

// The numbers 0 ... n - 1 in a random order, int64 {n}: every order as likely (Fisher and Yates 1938; by 64 random bits
// each). n may be named.
//   take(x, random_permutation(graph, x.shape()[0]), 0)   // shuffled rows
// Throws Error for a dtype, and as random_uniform does.
Value random_permutation(Graph graph, Dimension n, const RandomOptions& options = {}, Location at = Location::here());

struct DropoutOptions {
  double keep = 0.5;  // the probability that an element is kept; 0 < keep <= 1
};

// x * mask / keep in training, and in inference where the program asks for it (Request::noise_in_inference); else x.
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
