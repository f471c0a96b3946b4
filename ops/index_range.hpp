// Indices as ops and kernels meet them: of which dtype, within which range, and what is out of it. Not installed.
#pragma once

#include <cstdint>
#include <string>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op.hpp>
#include <chainrule/ops/control.hpp>

namespace chainrule {

// The dtype that indices have in kernels.
inline void require_indices(const OpCall& call, std::size_t input) {
  if (call.dtype(input) != int64) call.fail("indices of int64", name(call.dtype(input)));
}

// Indices of uint8 and int32 as int64; others as they are.
inline Value as_int64(Value indices, Location at) {
  return indices.defined() && is_integer(indices.dtype()) && indices.dtype() != int64 ? cast(indices, int64, at)
                                                                                      : indices;
}

// f(as_int64(indices)), all or nothing.
template <class F>
Value with_int64(Value indices, Location at, F f) {
  return detail::attempt(indices, [&] { return f(as_int64(indices, at)); });
}

// From -extent (or 0, where a negative index does not count from the end) up to the extent.
class IndexRange {
 public:
  IndexRange(const KernelCall& call, const Dims& indices, std::int64_t extent, bool from_end = true)
      : shape_(indices), extent_(extent), lowest_(from_end ? -extent : 0), at_(call.at), op_(call.op) {}

  [[nodiscard]] bool contains(std::int64_t index) const { return index >= lowest_ && index < extent_; }
  // Of one that it contains.
  [[nodiscard]] std::int64_t place(std::int64_t index) const { return index < 0 ? index + extent_ : index; }

  // All indices. Throws Error for the first that is out of range.
  void check(const std::int64_t* indices) const {
    const std::int64_t n = count(shape_);
    bool fits = true;
    for (std::int64_t i = 0; i < n; ++i) fits &= contains(indices[i]);
    if (fits) return;
    for (std::int64_t i = 0; i < n; ++i)
      if (!contains(indices[i])) fail(indices[i], i);
  }

  [[noreturn]] void fail(std::int64_t index, std::int64_t element) const {
    Dims position = shape_;
    for (std::size_t axis = shape_.rank(); axis-- > 0; element /= shape_[axis]) position[axis] = element % shape_[axis];
    const std::string required =
        extent_ == 0 ? "no indices into an extent of 0" : fmt::format("indices from {} to {}", lowest_, extent_ - 1);
    throw Error(at_, op_, fmt::format("requires {}, got {} at element {}", required, index, to_string(position)));
  }

 private:
  Dims shape_;
  std::int64_t extent_;
  std::int64_t lowest_;
  Location at_;
  std::string op_;
};

}  // namespace chainrule
