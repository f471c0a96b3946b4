#include <chainrule/framework/files/numbers.hpp>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include <fmt/core.h>

namespace chainrule::detail {

DType StoredType::dtype() const {
  if (kind == Kind::boolean) return boolean;
  if (kind == Kind::floating) return bytes <= 4 ? float32 : float64;
  return int64;
}

namespace {

// IEEE 754's binary16: sign, 5 bits of exponent with bias 15, 10 of fraction.
float half(std::uint16_t bits) {
  const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
  const int exponent = (bits >> 10) & 31;
  const auto fraction = static_cast<float>(bits & 1023);
  if (exponent == 31) return fraction == 0 ? sign * std::numeric_limits<float>::infinity() : std::nanf("");
  return exponent == 0 ? sign * std::ldexp(fraction, -24) : sign * std::ldexp(fraction + 1024, exponent - 25);
}

template <class U>
U load(const char* from, bool swapped) {
  char bytes[sizeof(U)];
  for (std::size_t i = 0; i < sizeof(U); ++i) bytes[i] = from[swapped ? sizeof(U) - 1 - i : i];
  return std::bit_cast<U>(bytes);
}

template <class U, class T>
void load_all(const char* from, bool swapped, T* to, std::int64_t count) {
  if (std::is_same_v<U, T> && !swapped) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i, from += sizeof(U))
    to[i] = static_cast<T>(load<U>(from, swapped));  // NOLINT(bugprone-signed-char-misuse): a number of 8 bits
}

}  // namespace

Array decode(const File& file, StoredType type, const char* bytes, const Dims& shape) {
  using Kind = StoredType::Kind;
  Array out(type.dtype(), shape);
  const std::int64_t count = out.size();
  const bool swapped = type.big_endian != (std::endian::native == std::endian::big);
  const auto integers = [&](auto one, auto two, auto four, auto eight) {
    auto* to = out.data<std::int64_t>();
    switch (type.bytes) {
      case 1: return load_all<decltype(one)>(bytes, swapped, to, count);
      case 2: return load_all<decltype(two)>(bytes, swapped, to, count);
      case 4: return load_all<decltype(four)>(bytes, swapped, to, count);
      default: return load_all<decltype(eight)>(bytes, swapped, to, count);
    }
  };
  switch (type.kind) {
    case Kind::boolean:
      for (std::int64_t i = 0; i < count; ++i) out.data<bool>()[i] = bytes[i] != 0;
      break;
    case Kind::signed_integer: integers(std::int8_t{}, std::int16_t{}, std::int32_t{}, std::int64_t{}); break;
    case Kind::unsigned_integer:
      integers(std::uint8_t{}, std::uint16_t{}, std::uint32_t{}, std::uint64_t{});
      // Those beyond int64 have wrapped around.
      for (std::int64_t i = 0; type.bytes == 8 && i < count; ++i)
        if (const std::int64_t wrapped = out.data<std::int64_t>()[i]; wrapped < 0)
          file.fail(fmt::format("the number {}, which is too large for int64", static_cast<std::uint64_t>(wrapped)));
      break;
    case Kind::floating:
      if (type.bytes == 2) {
        for (std::int64_t i = 0; i < count; ++i)
          out.data<float>()[i] = half(load<std::uint16_t>(bytes + 2 * i, swapped));
      } else if (type.bytes == 4) {
        load_all<float>(bytes, swapped, out.data<float>(), count);
      } else {
        load_all<double>(bytes, swapped, out.data<double>(), count);
      }
      break;
  }
  return out;
}

Array from_column_major(const Array& elements) {
  const Dims& shape = elements.shape();
  Array out(elements.dtype(), shape);
  if (elements.size() == 0) return out;
  // How far apart in the source are neighbours along each axis.
  Dims strides = shape;
  std::int64_t stride = 1;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    strides[i] = stride;
    stride *= shape[i];
  }
  visit_dtype(elements.dtype(), [&](auto t) {
    const auto* from = elements.data<decltype(t)>();
    auto* to = out.data<decltype(t)>();
    Dims index = Dims::filled(shape.rank(), 0);
    std::int64_t offset = 0;
    for (std::int64_t i = 0; i < out.size(); ++i) {
      to[i] = from[offset];
      for (std::size_t axis = shape.rank(); axis-- > 0;) {  // the next index, the last one running fastest
        offset += strides[axis];
        if (++index[axis] < shape[axis]) break;
        offset -= strides[axis] * shape[axis];
        index[axis] = 0;
      }
    }
  });
  return out;
}

}  // namespace chainrule::detail
