// A transposed convolution: each output's share of its inputs, added up. Not installed.
#pragma once

#include <array>
#include <vector>

#include <chainrule/framework/convolutions/windows.hpp>
#include <chainrule/framework/convolutions/work.hpp>

namespace chainrule::convolutions {

template <class T>
class Transposed {
 public:
  explicit Transposed(const Geometry& geometry);

  void run(const T* dy, const T* w, T* dx, void* workspace) const;
  [[nodiscard]] std::size_t workspace() const { return packed_bytes_ + scratch(); }
  [[nodiscard]] std::size_t scratch() const;  // of each thread

 private:
  // The tiles of the products for a block of channels: rows are (channel, tap along the columns).
  [[nodiscard]] Split tiles(Range channels) const;
  void pack(const T* w, T* packed) const;
  void run_part(std::int64_t part, const T* dy, const T* packed, T* dx, T* copies) const;
  void add_products(const T* dy, const T* weights, Range channels, Range rows, Range outputs, T* copies) const;
  [[nodiscard]] Range outputs_of(Range columns) const;

  Geometry g_;
  Split channel_blocks_;
  Split feature_blocks_;  // of the terms of a sum
  Strips strips_;         // of inputs
  Spread spread_;
  std::vector<std::int64_t> features_;
  std::array<std::int64_t, 16> rows_{};
  std::size_t packed_bytes_ = 0;
};

}  // namespace chainrule::convolutions
