// Normalization of activations, by the batch's statistics or by each example's own. (Of weights:
// weight_normalization.hpp.) A variance is the biased one, the mean of (x - mean)^2, and epsilon is inside of the root.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// ---- batch normalization (Ioffe and Szegedy 2015)

struct BatchNormOptions {
  std::int64_t axis = 1;  // where the features are: 1 for rows of examples and NCHW images, 0 for the course's columns
  double momentum = 0.1;  // running = (1 - momentum) * running + momentum * batch
  double epsilon = 1e-5;
};

// gamma * (x - mean) / sqrt(variance + epsilon) + beta, with one gamma and beta {features} for each feature.
// In training, mean and (biased) variance are those of the batch: over all axes but the features'. In programs that
// update, running_mean and running_variance (variables {features}) follow them, the variance unbiased: PyTorch's
// conventions. In inference these two take the batch's place. Where several batch norms share these two variables, they
// follow each batch, one after the other in the order in which the norms were built.
// Statistics that are known may be any other values {features}, constants or inputs: then nothing follows. Throws Error
// where only one of the two is a variable.
Value batch_norm(Value x, Value gamma, Value beta, Value running_mean, Value running_variance,
                 const BatchNormOptions& options = {}, Location at = Location::here());

// ---- normalization of each example by itself
//
//   normalized = (x - mean) / sqrt(variance + epsilon)
//
// with a mean and variance of each of the parts that a function names. What an example becomes does not depend on the
// others, nor on the mode: there are no running statistics. A part whose elements are equal, or that has one element,
// becomes 0 (beta, where there is one), with a slope of 0. NaN stays in its part. The mean's own rounding is measured
// and taken off again, so that an offset which is large beside the deviation costs no more than the digits that x
// itself has lost.
//
// All take float32 or float64, gamma and beta of x's dtype, and named extents but where a number is asked for. They
// throw Error for other shapes of gamma or beta, another dtype, an axis out of range, or an epsilon that is not a
// finite number above 0. Derivatives of every order are those of the formula, statistics included.

struct LayerNormOptions {
  std::int64_t axis = -1;  // the first of those normalized over: it and all behind it
  double epsilon = 1e-5;
};

// gamma * normalized + beta, the mean and variance those of each x[i, ...] over the last axes, gamma and beta of these
// axes' shape: layer normalization (Ba, Kiros and Hinton 2016).
Value layer_norm(Value x, const LayerNormOptions& options = {}, Location at = Location::here());
Value layer_norm(Value x, Value gamma, const LayerNormOptions& options = {}, Location at = Location::here());
Value layer_norm(Value x, Value gamma, Value beta, const LayerNormOptions& options = {},
                 Location at = Location::here());

// gamma * x / sqrt(mean(x^2) + epsilon), the mean over the last axes: root mean square normalization (Zhang and
// Sennrich 2019). A part of zeros stays zeros, with the slope gamma / sqrt(epsilon).
Value rms_norm(Value x, const LayerNormOptions& options = {}, Location at = Location::here());
Value rms_norm(Value x, Value gamma, const LayerNormOptions& options = {}, Location at = Location::here());

struct NormOptions {
  double epsilon = 1e-5;
};

// gamma * normalized + beta of x {N, C, ...}, the mean and variance those of `groups` equal groups of neighbouring
// channels in each example, with all that is behind the channels; gamma and beta {C}: group normalization (Wu and He
// 2018). C must be a number that the groups divide (any, for one group).
Value group_norm(Value x, std::int64_t groups, const NormOptions& options = {}, Location at = Location::here());
Value group_norm(Value x, std::int64_t groups, Value gamma, const NormOptions& options = {},
                 Location at = Location::here());
Value group_norm(Value x, std::int64_t groups, Value gamma, Value beta, const NormOptions& options = {},
                 Location at = Location::here());

// gamma * normalized + beta of x {N, C, ...} with at least one axis behind the channels, the mean and variance those
// of each channel of each example; gamma and beta {C}: instance normalization (Ulyanov, Vedaldi and Lempitsky 2016).
Value instance_norm(Value x, const NormOptions& options = {}, Location at = Location::here());
Value instance_norm(Value x, Value gamma, const NormOptions& options = {}, Location at = Location::here());
Value instance_norm(Value x, Value gamma, Value beta, const NormOptions& options = {}, Location at = Location::here());

}  // namespace chainrule
