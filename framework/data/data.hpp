// Data sets: what cuts them into batches and parts, what normalises them, and the example sets of the course.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/data/numpy_random.hpp>

namespace chainrule::data {

// Examples and what is to be said of them: x and y have one entry per example along an axis. 1 is the course's
// layout, one example a column (x {features, examples}); 0 has one example a row. The example axis of an array of
// rank 1 is its only one, so labels of shape {examples} go with either.
struct Dataset {
  Array x;
  Array y = {};  // left out where nothing is to be said of them, as for an autoencoder
  std::size_t axis = 1;

  // The number of examples, by x. Throws Error where x does not have the axis.
  [[nodiscard]] std::int64_t size() const;
  [[nodiscard]] bool has_y() const { return !(y.shape() == Array().shape()); }
};

// A data set cut into batches, each a small Dataset. It refers to the data set, which has to outlive it.
//   for (const auto& batch : mini_batches(moons, 64, rng)) ... batch.x, batch.y, batch.size() ...
class Batches {
 public:
  struct End {};

  // Goes once through the batches. It gathers one batch at a time, into arrays of its own that are used again for
  // the next batch of that size: what * refers to is valid until ++ (copy a batch to keep it), and only the first
  // batch and a shorter last one allocate.
  class Iterator {
   public:
    using value_type = Dataset;
    using difference_type = std::ptrdiff_t;

    const Dataset& operator*() const { return batch_; }
    const Dataset* operator->() const { return &batch_; }
    Iterator& operator++() {
      ++index_;
      gather();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& it, End) { return it.index_ == it.batches_->size(); }

   private:
    friend class Batches;
    explicit Iterator(const Batches& batches) : batches_(&batches) { gather(); }
    void gather();

    const Batches* batches_;
    std::int64_t index_ = 0;
    Dataset batch_;
  };

  [[nodiscard]] Iterator begin() const { return Iterator(*this); }
  [[nodiscard]] End end() const { return {}; }
  // The number of batches.
  [[nodiscard]] std::int64_t size() const { return (examples_ + batch_size_ - 1) / batch_size_; }

 private:
  friend Batches batches(const Dataset& dataset, std::int64_t batch_size, Location at);
  friend Batches mini_batches(const Dataset& dataset, std::int64_t batch_size, numpy::RandomState& rng, Location at);
  Batches(const Dataset& dataset, std::int64_t batch_size, std::vector<std::int64_t> order);

  const Dataset* dataset_;
  std::int64_t examples_;
  std::int64_t batch_size_;
  std::vector<std::int64_t> order_;  // of the examples; empty: as they stand
};

// Consecutive batches of `batch_size` examples in the order of the data set, the last one shorter where it does not
// divide. Any dtypes, any rank of 1 or more.
// Throws Error where the data set is empty, where x and y differ in their number of examples or lack the axis, and
// where batch_size is not positive.
Batches batches(const Dataset& dataset, std::int64_t batch_size, Location at = Location::here());

// The same after a shuffle: one rng.permutation(examples), drawn by this call, gives the order; consecutive slices of
// it are the batches (the course's random_mini_batches). A named generator moves on, so the next call shuffles anew.
// Throws Error as batches(), before anything is drawn.
Batches mini_batches(const Dataset& dataset, std::int64_t batch_size, numpy::RandomState& rng,
                     Location at = Location::here());
inline Batches mini_batches(const Dataset& dataset, std::int64_t batch_size, numpy::RandomState&& rng,
                            Location at = Location::here()) {
  return mini_batches(dataset, batch_size, rng, at);
}

// A data set that is gone before its batches are read.
Batches batches(const Dataset&& dataset, std::int64_t batch_size, Location at = Location::here()) = delete;
Batches mini_batches(const Dataset&& dataset, std::int64_t batch_size, numpy::RandomState& rng,
                     Location at = Location::here()) = delete;
Batches mini_batches(const Dataset&& dataset, std::int64_t batch_size, numpy::RandomState&& rng,
                     Location at = Location::here()) = delete;

struct SplitOptions {
  // The shares of the parts; they sum to 1.
  double train = 0.6;
  double dev = 0.2;
  double test = 0.2;
  // Whether each part has the same share of every class. A class is all examples of equal y (labels, or rows or
  // columns of a one-hot y).
  bool stratified = true;
};

struct Split {
  Dataset train;
  Dataset dev;
  Dataset test;
};

// Cuts a data set at random into three parts that have no example in common and all of them together. The draws: one
// rng.permutation(examples), in whose order each part has its examples. Stratified, the number of a class's examples
// in a part is the part's share of them, rounded up or down; which of the two, so that the parts' sizes are right.
// Throws Error as batches(), for shares that are negative or do not sum to 1, and where a part with a share above 0
// would be empty.
Split split(const Dataset& dataset, const SplitOptions& options, numpy::RandomState& rng,
            Location at = Location::here());
inline Split split(const Dataset& dataset, const SplitOptions& options, numpy::RandomState&& rng,
                   Location at = Location::here()) {
  return split(dataset, options, rng, at);
}

// Input normalisation: (x - mean) / deviation of each feature, where mean and deviation (the root of the mean square,
// over n) are those of the training examples, and are used on the dev and test examples and on all later ones.
//   const cr::data::Standardizer standardize(parts.train);
//   parts.train = standardize(parts.train); parts.dev = standardize(parts.dev); ...
// A feature that is the same in all training examples has deviation 0 and is only centred: it is 0 there.
class Standardizer {
 public:
  // Throws Error where there is no example, or x lacks the data set's axis.
  explicit Standardizer(const Dataset& train, Location at = Location::here());

  // float32 of float32, else float64. Throws Error where the features differ from those of the training set in shape.
  Array operator()(const Array& x, Location at = Location::here()) const;
  // Of x; y stays.
  Dataset operator()(const Dataset& dataset, Location at = Location::here()) const;

  // float64, in the shape of x with extent 1 along the axis of the examples.
  [[nodiscard]] const Array& mean() const { return mean_; }
  [[nodiscard]] const Array& deviation() const { return deviation_; }

 private:
  std::size_t axis_;
  Array mean_;
  Array deviation_;
};

struct MoonsOptions {
  std::int64_t samples = 100;
  // The standard deviation of the normal noise on every coordinate. Without one none is drawn (0 draws, as
  // scikit-learn does, and moves nothing).
  std::optional<double> noise = std::nullopt;
  bool shuffle = true;
};

// Two interleaving half circles in the plane, scikit-learn's make_moons with examples in columns: x {2, samples} and
// y {1, samples}, float64. For angles t evenly spaced from 0 to pi, both ends included,
//   label 0, samples / 2 points (rounded down): (cos t, sin t)
//   label 1, the others:                        (1 - cos t, 0.5 - sin t)
// The draws: one shuffle of all points, then the noise point by point, first coordinate first.
// Throws Error where samples or noise is negative.
Dataset make_moons(const MoonsOptions& options, numpy::RandomState& rng, Location at = Location::here());
inline Dataset make_moons(const MoonsOptions& options, numpy::RandomState&& rng, Location at = Location::here()) {
  return make_moons(options, rng, at);
}

struct CirclesOptions {
  std::int64_t samples = 100;
  std::optional<double> noise = std::nullopt;  // as of MoonsOptions
  bool shuffle = true;
  double factor = 0.8;  // the radius of the inner circle
};

// Two circles, one within the other, scikit-learn's make_circles with examples in columns: x {2, samples} and
// y {1, samples}, float64. For angles t = 2 pi i / n
//   label 0, samples / 2 points (rounded down): (cos t, sin t)
//   label 1, the others:                        (factor cos t, factor sin t)
// The draws are in the order of make_moons. The course's: {.samples = 300, .noise = 0.05} by seed 1 to train on,
// {.samples = 100, .noise = 0.05} by seed 2 to test.
// Throws Error where samples or noise is negative, or the factor is not within [0, 1).
Dataset make_circles(const CirclesOptions& options, numpy::RandomState& rng, Location at = Location::here());
inline Dataset make_circles(const CirclesOptions& options, numpy::RandomState&& rng, Location at = Location::here()) {
  return make_circles(options, rng, at);
}

struct FlowerOptions {
  std::int64_t samples = 400;
  double noise = 0.2;  // the standard deviation of the normal noise on angle and radius
  double ray = 4;      // the length of the petals
};

// A flower whose petals have two labels, the course's planar data set: x {2, samples}, y {1, samples}, float64. The
// half of label j = 0, then that of label 1: for t evenly spaced from 3.12 j to 3.12 (j + 1), both ends included, plus
// noise, and r = ray sin(4 t), plus noise: (r sin t, r cos t).
// The draws: the noise on all angles of a half, then on its radii, also where the noise is 0.
// Throws Error where samples or noise is negative, or samples is odd.
Dataset make_flower(const FlowerOptions& options, numpy::RandomState& rng, Location at = Location::here());
inline Dataset make_flower(const FlowerOptions& options, numpy::RandomState&& rng, Location at = Location::here()) {
  return make_flower(options, rng, at);
}

struct SpiralsOptions {
  std::int64_t samples = 50;
  double noise = 0.5;  // the standard deviation of the normal noise on the radius
};

// Two spirals that wind about each other, the course's: x {2, samples}, y {1, samples}, float64. The half of label 0:
// for t evenly spaced from 0 to 12.566, r = 0.3 t^2 plus noise; then that of label 1: t from 1 to 12.566,
// r = 0.2 t^2 plus noise: (r cos t, r sin t). The draws: the noise point by point, also where it is 0.
// Throws Error where samples or noise is negative, or samples is odd.
Dataset make_spirals(const SpiralsOptions& options, numpy::RandomState& rng, Location at = Location::here());
inline Dataset make_spirals(const SpiralsOptions& options, numpy::RandomState&& rng, Location at = Location::here()) {
  return make_spirals(options, rng, at);
}

// The share of right answers of a binary classifier: mean((probabilities > 0.5) == labels). Any shape and dtypes.
// Throws Error where the shapes differ or are empty.
double accuracy(const Array& probabilities, const Array& labels, Location at = Location::here());

}  // namespace chainrule::data
