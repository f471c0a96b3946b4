// Batch normalization (Ioffe and Szegedy 2015).
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

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

}  // namespace chainrule
