// Losses and penalties: scalars, so that a cost with its penalty is one expression.
#pragma once

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// The mean over all elements of  max(z, 0) - z y + log(1 + exp(-|z|)),  that is, of
// -(y log sigmoid(z) + (1 - y) log(1 - sigmoid(z))) without an overflow or a logarithm of 0 at any logit z; of an
// infinite one it is 0 where y is its side, 0 or 1, and infinite elsewhere. The slopes have all their digits however
// small they are. y: probabilities or 0 / 1, of the logits' shape and dtype. For one logit an example it is the mean
// over examples.
Value sigmoid_cross_entropy(Value logits, Value y, Location at = Location::here());

// The mean over examples of  -sum over classes of y log softmax(z),  where 0 log 0 is 0: a class with a logit of -inf
// (one that is masked out) adds nothing where its y is 0, and makes the loss infinite elsewhere; its slope is finite
// either way. Of an example whose logits are all -inf, or one of them inf or NaN, the loss is NaN, as log_softmax is.
// The classes, of which there must be one, lie along `axis`. labels: int64 class
// indices, of the logits' shape without that axis (a run with an index out of range throws Error), or probabilities
// (one-hot rows) of the logits' shape and dtype.
Value softmax_cross_entropy(Value logits, Value labels, std::int64_t axis = -1, Location at = Location::here());

// mean((prediction - target)^2) over all elements.
Value mean_squared_error(Value prediction, Value target, Location at = Location::here());

// 1 at the class index along a new axis, 0 elsewhere, of any dtype (in bool true and false). A run with an index out of
// range throws Error.
Value one_hot(Value indices, std::int64_t classes, DType dtype, std::int64_t axis = -1, Location at = Location::here());

// The squared Frobenius norm, sum of w^2 over all elements of all weights; the sum of |w|.
Value l2(const Values& weights, Location at = Location::here());
Value l1(const Values& weights, Location at = Location::here());
// The course's penalties for m examples (a dimension or a number): lambda / (2 m) * l2(weights), and
// lambda / (2 m) * l1(weights).
Value l2_penalty(const Values& weights, double lambda, Dimension examples, Location at = Location::here());
Value l1_penalty(const Values& weights, double lambda, Dimension examples, Location at = Location::here());

}  // namespace chainrule
