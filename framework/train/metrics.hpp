// How well predictions fit what is true: functions of arrays, as predict() gives them, for examples all at once.
// (Within a graph, and averaged over batches by fit(), a metric that is a mean is an output of a program:
// mean(equal(argmax(logits, 1), labels)).)
//
// All throw Error for shapes that do not fit each other, for no examples, and for NaN where numbers are compared.
#pragma once

#include <cstdint>
#include <vector>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/error.hpp>

namespace chainrule::metrics {

// int64 {classes, classes}: how many examples of the class of the row were taken for that of the column. `predicted`
// and `labels` are whole numbers of 0 to classes - 1, of any equal shape.
Array confusion_matrix(const Array& predicted, const Array& labels, std::int64_t classes,
                       Location at = Location::here());

// The share of examples whose label is among the k classes of the highest scores {examples, classes}, of equal ones
// those of lower number. 1 <= k <= classes.
double top_k_accuracy(const Array& scores, const Array& labels, std::int64_t k, Location at = Location::here());

struct ClassScores {
  // By class: of what was taken for it, the share that is it (0 of none); of what is it, the share that was taken for
  // it (0 of none); their harmonic mean, 2 precision recall / (precision + recall) (0 where both are); and how many
  // examples are of it.
  std::vector<double> precision;
  std::vector<double> recall;
  std::vector<double> f1;
  std::vector<std::int64_t> support;
  double accuracy = 0;  // of all
  // The means over the classes, each weighing the same.
  double macro_precision = 0;
  double macro_recall = 0;
  double macro_f1 = 0;
};
// Of a confusion_matrix.
ClassScores class_scores(const Array& confusion, Location at = Location::here());

// The area under the ROC curve: the probability that an example of label 1 has a higher score than one of label 0, and
// half of that where scores are equal (Mann and Whitney 1947). Scores and labels, 0 or 1, of equal shape. Throws Error
// where there are no examples of one of the labels.
double roc_auc(const Array& scores, const Array& labels, Location at = Location::here());

// The coefficient of determination, 1 - sum (y - predicted)^2 / sum (y - mean of y)^2. Throws Error where all y are the
// same.
double r2(const Array& predicted, const Array& y, Location at = Location::here());

// exp(mean of -log of the probability of what was true): of a cross-entropy in nats per token.
double perplexity(double cross_entropy);

}  // namespace chainrule::metrics
