// A convolution's outputs, as sums over the windows of its inputs. Not installed.
#pragma once

#include <array>
#include <vector>

#include <chainrule/framework/convolutions/windows.hpp>
#include <chainrule/framework/convolutions/work.hpp>

namespace chainrule::convolutions {

// How far it is from one weight to the next, in elements; `first`: where tap 0 of feature and channel 0 lies.
struct WeightStrides {
  std::int64_t group;
  std::int64_t feature;
  std::int64_t channel;
  std::int64_t first;
  std::int64_t tap;
};

template <class T>
class Correlation {
 public:
  Correlation(const Geometry& geometry, const WeightStrides& weights);

  void run(const T* x, const T* w, T* y, void* workspace) const;
  [[nodiscard]] std::size_t workspace() const { return packed_bytes_ + scratch(); }
  [[nodiscard]] std::size_t scratch() const;  // of each thread

 private:
  [[nodiscard]] bool reads_in_place() const;
  [[nodiscard]] Windows windows_of(std::int64_t rows, std::int64_t columns) const;
  void pack(const T* w, T* packed) const;
  void run_part(std::int64_t part, const T* x, const T* packed, T* y, T* scratch) const;

  Geometry g_;
  WeightStrides weights_;
  Split channel_blocks_;
  Split tiles_;           // of features
  Split feature_blocks_;  // of tiles
  Strips strips_;
  Windows windows_;
  bool in_place_;
  std::int64_t channel_size_ = 0;      // elements from one channel of the windows to the next
  std::vector<std::int64_t> offsets_;  // of the terms of a block
  std::vector<std::int64_t> starts_;   // of the segments of a strip, where there are some
  bool in_pairs_ = false;              // kernels::Segments
  std::array<std::int64_t, 16> features_{};
  std::int64_t run_ = 0;  // columns that are computed for all features before the next ones
  std::size_t packed_bytes_ = 0;
};

}  // namespace chainrule::convolutions
