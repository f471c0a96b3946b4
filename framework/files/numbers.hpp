// Numbers as files store them. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

#include <chainrule/framework/array.hpp>
#include <chainrule/framework/file.hpp>

namespace chainrule::detail {

// An element as files store them.
struct StoredType {
  enum class Kind : std::uint8_t { boolean, signed_integer, unsigned_integer, floating };
  Kind kind;
  std::size_t bytes;  // 1, 2, 4 or 8
  bool big_endian;

  [[nodiscard]] DType dtype() const;
};

// `count` numbers as an array. Fails for an unsigned one beyond int64.
Array decode(const File& file, StoredType type, const char* bytes, const Dims& shape);

// An array whose elements stand in column-major order (the first index runs fastest), in row-major order.
Array from_column_major(const Array& elements);

}  // namespace chainrule::detail
