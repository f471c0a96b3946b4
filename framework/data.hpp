// Data sets, what cuts them into batches, and the example set of the course.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <chainrule/framework/array.hpp>
#include <chainrule/framework/error.hpp>
#include <chainrule/framework/numpy_random.hpp>

namespace chainrule::data {

// Examples and what is to be said of them: x and y have one entry per example along an axis. 1 is the course's
// layout, one example a column (x {features, examples}); 0 has one example a row. The example axis of an array of
// rank 1 is its only one, so labels of shape {examples} go with either.
struct Dataset {
  Array x;
  Array y;
  std::size_t axis = 1;

  // The number of examples, by x. Throws Error where x does not have the axis.
  [[nodiscard]] std::int64_t size() const;
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

// The share of right answers of a binary classifier: mean((probabilities > 0.5) == labels). Any shape and dtypes.
// Throws Error where the shapes differ or are empty.
double accuracy(const Array& probabilities, const Array& labels, Location at = Location::here());

}  // namespace chainrule::data
