// The gradient of a convolution's weights. Not installed.
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
  void run_part(std::int64_t part, const T* x, const T* dy, T* dw, T* scratch) const;
  void add_lanes(const T* dy, const T* windows, Range channels, Range features, std::int64_t images,
                 std::int64_t columns, T* lanes) const;
  [[nodiscard]] std::int64_t size() const { return g_.groups * g_.features * g_.channels * g_.taps(); }

  Geometry g_;
  Split channel_blocks_;
  Split feature_blocks_;
  Split parts_;              // of the images
  std::int64_t images_ = 1;  // at once
  Strips strips_;
  Windows windows_;
  std::vector<std::int64_t> offsets_;
  std::int64_t windows_size_ = 0;  // elements of the copies that a thread has at once
  std::size_t partial_bytes_ = 0;
};

}  // namespace chainrule::convolutions
