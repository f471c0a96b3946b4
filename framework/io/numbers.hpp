// Numbers as files store them. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/io/file.hpp>

namespace chainrule::detail {

// An element as files store them.
struct StoredType {
  enum class Kind : std::uint8_t { boolean, signed_integer, unsigned_integer, floating, bfloat };
  Kind kind;
  std::size_t bytes;  // 1, 2, 4 or 8; a bfloat (the upper half of a float32) has 2
  bool big_endian;

  [[nodiscard]] DType dtype() const;
};

// An array of the elements that follow in `from`, as their own dtype (uint8 and int32 of such ones, int64 of all other
// integers) or another. Fails, with its errors after `where`, if fewer follow: before memory is asked for where they
// cannot. Throws Unsupported for a number that an integer dtype does not have: an unsigned one beyond int64.
Array decode(const File& file, Input& from, StoredType type, const Dims& shape, std::string_view where = {});
Array decode(const File& file, Input& from, StoredType type, const Dims& shape, std::string_view where, DType dtype);
// Fails unless decode() has read all that there is.
void require_end(const File& file, Input& from, StoredType type, const Dims& shape, std::string_view where = {});

// An array whose elements stand in column-major order (the first index runs fastest), in row-major order.
Array from_column_major(const Array& elements);

}  // namespace chainrule::detail
