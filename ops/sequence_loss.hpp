// Losses of sequences of unequal lengths. What lies in padded places does not matter, be it NaN.
#pragma once

#include <cstdint>

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/ops/loss.hpp>

namespace chainrule {

struct CtcOptions {
  std::int64_t blank = 0;  // the class that is no label
  // mean: over examples, of the cost divided by the number of labels (of none: by 1), as PyTorch has it
  Reduction reduction = Reduction::mean;
  bool zero_infinity = false;  // an example that cannot be costs 0
};

// Connectionist temporal classification (Graves, Fernandez, Gomez and Schmidhuber 2006): -log of the probability that
// the classes of an example's places, drawn each by softmax(logits), are its labels once repetitions are merged and
// blanks then left out; the sum over all such alignments by the recursions forward and backward, in logarithms and
// float64.
//
// logits: floating {examples, places, classes}, not normalized; their slope is the softmax less the probability of a
// class at a place given the labels. targets: integers {examples, longest}, labels first; logit_lengths and
// target_lengths: integers {examples}, how many places and labels are real. No labels are a target like others: all
// places blank. Where there are too few places for the labels (equal neighbours need a blank between them), or all
// alignments have a class of -inf, the cost is infinite, or 0 with zero_infinity, and the slope 0. A real place whose
// logits hold NaN or inf, or nothing but -inf, makes the example's cost and slope NaN.
//
// Its gradient cannot be differentiated again: a second derivative through it throws Error. Throws Error for inputs of
// other shapes or dtypes and a blank that is no class; in a run, for lengths beyond the extents and a label that is no
// class, or the blank.
Value ctc_loss(Value logits, Value targets, Value logit_lengths, Value target_lengths, const CtcOptions& options = {},
               Location at = Location::here());

struct SequenceCrossEntropyOptions {
  // mean: over all real places (NaN of none); sum: over these; none: of each example, {examples}, the mean over its
  // real places, of none 0
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;  // as in CrossEntropyOptions
};
// softmax_cross_entropy over the real places of sequences: logits floating {examples, places, classes}, labels integers
// {examples, places}, lengths integers {examples} (of more than the places all are real, of less than 0 none). A run
// with the label of a real place out of range throws Error.
Value sequence_cross_entropy(Value logits, Value labels, Value lengths, const SequenceCrossEntropyOptions& options = {},
                             Location at = Location::here());

}  // namespace chainrule
