// The gradient of a convolution's weights. Not installed.
//
// Two ways. By places: dy is transposed, so that features lie side by side, and each tap's input is broadcast: a vector
// of sums over places for several features. By lanes: a vector of sums over every so many places, which are added up in
// the end: for the features that do not fill a vector, and where there are so few taps that transposing dy does not
// pay.
#pragma once

#include <vector>

#include <chainrule/framework/convolutions/windows.hpp>
#include <chainrule/framework/convolutions/work.hpp>

namespace chainrule::convolutions {

template <class T>
class WeightGradient {
 public:
  explicit WeightGradient(const Geometry& geometry);

  void run(const T* x, const T* dy, T* dw, void* workspace) const;
  [[nodiscard]] std::size_t workspace() const { return partial_bytes_ + scratch(); }
  [[nodiscard]] std::size_t scratch() const;  // of each thread

 private:
  struct Scratch {
    T* windows;
    T* places;  // dy by pixels: [pixel][feature]
    T* sums;    // [tap][feature]
    T* lanes;   // [feature][tap][lane], of the features that are summed by lanes
    T* rows;    // their sums
  };

  void choose_blocks();
  [[nodiscard]] Scratch scratch_at(void* memory) const;
  // The features of a block that are summed by places; lanes are for the others.
  [[nodiscard]] Range by_places(Range features) const {
    return {features.begin, std::max(features.begin, std::min(features.end, places_))};
  }
  [[nodiscard]] std::int64_t width(Range features) const;  // whole lanes of features
  void run_part(std::int64_t part, const T* x, const T* dy, T* dw, const Scratch& scratch) const;
  struct Pixels {  // of a strip
    std::int64_t rows;
    std::int64_t columns;
  };
  void add_places(const T* dy, Range channels, Range features, Pixels pixels, const T* windows,
                  const Scratch& scratch) const;
  void add_lanes(const T* dy, Range channels, Range features, std::int64_t images, Pixels pixels,
                 const Scratch& scratch) const;
  void put(Range channels, Range features, const Scratch& scratch, T* dw) const;
  [[nodiscard]] std::int64_t size() const { return g_.groups * g_.features * g_.channels * g_.taps(); }

  Geometry g_;
  std::int64_t places_ = 0;  // the features below are summed by places
  Split channel_blocks_;
  Split feature_blocks_;     // of whole lanes of features
  Split parts_;              // of the images
  std::int64_t images_ = 1;  // at once
  Strips strips_;
  Windows windows_;
  std::vector<std::int64_t> offsets_;
  std::vector<std::int64_t> starts_;  // of the segments of a strip, where there are some
  // Elements of scratch memory.
  std::int64_t windows_size_ = 0;
  std::int64_t places_size_ = 0;
  std::int64_t sums_size_ = 0;
  std::int64_t lanes_size_ = 0;
  std::int64_t rows_size_ = 0;
  std::size_t partial_bytes_ = 0;
};

}  // namespace chainrule::convolutions
