// Losses and penalties: scalars, so that a cost with its penalty is one expression, unless a Reduction asks for more.
//
// Two inputs of a loss have one shape and floating dtype; another shape throws Error, also one that would broadcast,
// which is nearly always a mistake.
#pragma once

#include <cstdint>
#include <optional>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// What becomes of the costs of all elements or examples: their mean, their sum, or an array of them as they are.
enum class Reduction : std::uint8_t { mean, sum, none };

// ---- cross-entropies

// The mean over all elements of  max(z, 0) - z y + log(1 + exp(-|z|)),  that is, of
// -(y log sigmoid(z) + (1 - y) log(1 - sigmoid(z))) without an overflow or a logarithm of 0 at any logit z; of an
// infinite one it is 0 where y is its side, 0 or 1, and infinite elsewhere. The slopes have all their digits however
// small they are. y: probabilities or 0 / 1, of the logits' shape and dtype. For one logit an example it is the mean
// over examples.
Value sigmoid_cross_entropy(Value logits, Value y, Location at = Location::here());

struct SigmoidCrossEntropyOptions {
  Reduction reduction = Reduction::mean;
  Value weights = {};          // of the costs; broadcast to the logits. The mean stays one over all elements
  Value positive_weight = {};  // of the term of y: positive_weight y log(...) + (1 - y) log(...)
  double label_smoothing = 0;  // s: y becomes (1 - s) y + s / 2
};
// The same with options. Throws Error for weights that do not broadcast, or a label_smoothing beyond 0 to 1.
Value sigmoid_cross_entropy(Value logits, Value y, const SigmoidCrossEntropyOptions& options,
                            Location at = Location::here());

// Of -(y log p + (1 - y) log(1 - p)) for probabilities p, where 0 log 0 is 0: a p of 0 or 1 costs nothing where y says
// so and infinitely much elsewhere (PyTorch stops at 100). Logits have their digits where p has none:
// sigmoid_cross_entropy.
Value binary_cross_entropy(Value probabilities, Value y, Reduction reduction = Reduction::mean,
                           Location at = Location::here());

// The mean over examples of  -sum over classes of y log softmax(z),  where 0 log 0 is 0: a class with a logit of -inf
// (one that is masked out) adds nothing where its y is 0, and makes the loss infinite elsewhere; its slope is finite
// either way. Of an example whose logits are all -inf, or one of them inf or NaN, the loss is NaN, as log_softmax is.
// The classes, of which there must be one, lie along `axis`. labels: int64 class
// indices, of the logits' shape without that axis (a run with an index out of range throws Error), or probabilities
// (one-hot rows) of the logits' shape and dtype.
Value softmax_cross_entropy(Value logits, Value labels, std::int64_t axis = -1, Location at = Location::here());

struct CrossEntropyOptions {
  std::int64_t axis = -1;  // of the classes
  Reduction reduction = Reduction::mean;
  Value class_weights = {};                       // {classes}: what each class's term is multiplied by
  std::optional<std::int64_t> ignore_index = {};  // examples of this class index, in range or not, count for nothing
  double label_smoothing = 0;                     // s: labels become (1 - s) of themselves and s / classes of each
};
// The same with options, PyTorch's: by class indices the mean divides by the sum of the weights of the examples'
// classes that are not ignored (NaN where all are), by probabilities by the number of examples. Throws Error for
// class_weights of another shape or dtype, a label_smoothing beyond 0 to 1, or an ignore_index with probabilities.
Value softmax_cross_entropy(Value logits, Value labels, const CrossEntropyOptions& options,
                            Location at = Location::here());
// The negative logarithm of the likelihood: the same of logarithms of probabilities instead of logits.
Value nll_loss(Value log_probabilities, Value labels, const CrossEntropyOptions& options = {},
               Location at = Location::here());

// ---- distances

// mean((prediction - target)^2) over all elements.
Value mean_squared_error(Value prediction, Value target, Location at = Location::here());

Value mean_squared_error(Value prediction, Value target, Reduction reduction, Location at = Location::here());
// |prediction - target|; slope 0 where they are equal.
Value l1_loss(Value prediction, Value target, Reduction reduction = Reduction::mean, Location at = Location::here());
// d^2 / 2 for d = prediction - target where |d| <= delta, delta (|d| - delta / 2) elsewhere (Huber 1964). delta > 0.
Value huber_loss(Value prediction, Value target, double delta = 1, Reduction reduction = Reduction::mean,
                 Location at = Location::here());
// max(0, 1 - y score) for y of -1 or 1; slope 0 where it becomes 0.
Value hinge_loss(Value score, Value y, Reduction reduction = Reduction::mean, Location at = Location::here());

// The sum along an axis of a b / (max(|a|, epsilon) max(|b|, epsilon)), with |x| the root of the sum of x^2: the slopes
// at vectors of 0 are finite.
Value cosine_similarity(Value a, Value b, std::int64_t axis = -1, double epsilon = 1e-8,
                        Location at = Location::here());
struct CosineEmbeddingOptions {
  double margin = 0;
  std::int64_t axis = -1;
  Reduction reduction = Reduction::mean;
};
// 1 - cosine_similarity(a, b) where y > 0, max(0, cosine_similarity(a, b) - margin) elsewhere; y of a's shape without
// the axis.
Value cosine_embedding_loss(Value a, Value b, Value y, const CosineEmbeddingOptions& options = {},
                            Location at = Location::here());
struct TripletOptions {
  double margin = 1;
  bool swap = false;  // the negative's distance is the lesser of those to the anchor and to the positive
  std::int64_t axis = -1;
  Reduction reduction = Reduction::mean;
};
// max(0, |anchor - positive| - |anchor - negative| + margin) with the Euclidean length along an axis, whose slope at 0
// is 0 (Schroff, Kalenichenko and Philbin 2015).
Value triplet_margin_loss(Value anchor, Value positive, Value negative, const TripletOptions& options = {},
                          Location at = Location::here());

struct InfoNceOptions {
  double temperature = 0.1;  // > 0
  bool symmetric = false;    // the mean of the loss of queries among keys and of keys among queries (CLIP's)
  bool normalize = true;     // to the length 1, so that products are cosines; the slope at a vector of 0 is finite
  Reduction reduction = Reduction::mean;
};
// Of each query's key among all keys (van den Oord, Li and Vinyals 2018): softmax_cross_entropy, with class i for query
// i, of the logits queries keys^T / temperature. queries and keys: floating {examples, width}, alike.
Value info_nce(Value queries, Value keys, const InfoNceOptions& options = {}, Location at = Location::here());

// ---- likelihoods

// The divergence of Kullback and Leibler from a prediction to a target: the sum along an axis of
// target (log target - log_prediction), where a target of 0 adds nothing. The mean is over examples (PyTorch's
// "batchmean"). Slope log(target) + 1 - log_prediction by the target, -inf at 0.
Value kl_divergence(Value log_prediction, Value target, std::int64_t axis = -1, Reduction reduction = Reduction::mean,
                    Location at = Location::here());
struct GaussianNllOptions {
  double epsilon = 1e-6;  // the least variance; the slope of a lesser one is 0
  bool full = false;      // with log(2 pi) / 2
  Reduction reduction = Reduction::mean;
};
// (log v + (mean - target)^2 / v) / 2 with the variance v (not the deviation), which broadcasts to the mean.
Value gaussian_nll_loss(Value mean, Value target, Value variance, const GaussianNllOptions& options = {},
                        Location at = Location::here());
struct PoissonNllOptions {
  bool log_prediction = true;  // whether the prediction is the logarithm of the rate
  bool full = false;           // with Stirling's formula for log(target!) where the target is above 1
  Reduction reduction = Reduction::mean;
};
// exp(z) - target z of a logarithm z of the rate; r - target log(r) of a rate r, where 0 log 0 is 0.
Value poisson_nll_loss(Value prediction, Value target, const PoissonNllOptions& options = {},
                       Location at = Location::here());

// ---- penalties

// The squared Frobenius norm, sum of w^2 over all elements of all weights; the sum of |w|.
Value l2(const Values& weights, Location at = Location::here());
Value l1(const Values& weights, Location at = Location::here());
// The course's penalties for m examples (a dimension or a number): lambda / (2 m) * l2(weights), and
// lambda / (2 m) * l1(weights).
Value l2_penalty(const Values& weights, double lambda, Dimension examples, Location at = Location::here());
Value l1_penalty(const Values& weights, double lambda, Dimension examples, Location at = Location::here());

}  // namespace chainrule
