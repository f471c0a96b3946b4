#include <chainrule/framework/io/numbers.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include <fmt/core.h>

namespace chainrule::detail {

DType StoredType::dtype() const {
  if (kind == Kind::boolean) return boolean;
  if (kind == Kind::floating) return bytes <= 4 ? float32 : float64;
  if (kind == Kind::bfloat) return float32;
  if (kind == Kind::unsigned_integer && bytes == 1) return uint8;
  if (kind == Kind::signed_integer && bytes == 4) return int32;
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

// Calls `f` with a function that reads one stored element as a number.
template <class F>
void visit_stored(StoredType type, F f) {
  using Kind = StoredType::Kind;
  const bool swapped = type.big_endian != (std::endian::native == std::endian::big);
  const auto plain = [&](auto number) {
    f([swapped](const char* from) { return load<decltype(number)>(from, swapped); });
  };
  switch (type.kind) {
    case Kind::boolean: return f([](const char* from) { return *from != 0; });
    case Kind::signed_integer:
      switch (type.bytes) {
        case 1: return plain(std::int8_t{});
        case 2: return plain(std::int16_t{});
        case 4: return plain(std::int32_t{});
        default: return plain(std::int64_t{});
      }
    case Kind::unsigned_integer:
      switch (type.bytes) {
        case 1: return plain(std::uint8_t{});
        case 2: return plain(std::uint16_t{});
        case 4: return plain(std::uint32_t{});
        default: return plain(std::uint64_t{});
      }
    case Kind::bfloat:
      return f([swapped](const char* from) {
        return std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(from, swapped)) << 16);
      });
    case Kind::floating:
      switch (type.bytes) {
        case 2: return f([swapped](const char* from) { return half(load<std::uint16_t>(from, swapped)); });
        case 4: return plain(float{});
        default: return plain(double{});
      }
  }
}

// Whether the elements of an array of this dtype look in memory as they do in the file.
bool stored_as_is(StoredType type, DType dtype) {
  using Kind = StoredType::Kind;
  const bool native = type.bytes == 1 || type.big_endian == (std::endian::native == std::endian::big);
  if (!native || dtype != type.dtype()) return false;
  switch (type.kind) {
    case Kind::signed_integer: return type.bytes == 8 || type.bytes == 4;
    case Kind::unsigned_integer: return type.bytes == 1;
    case Kind::floating: return type.bytes >= 4;
    default: return false;
  }
}

// A stored number as one of an integer dtype, which has to have it; else as C++ converts it.
template <class To, class From>
To as(From number) {
  if constexpr (std::is_integral_v<To> && !std::is_same_v<To, bool>)
    if (!keeps_meaning<To>(number))
      throw Unsupported(fmt::format("the number {}, which {} {}", number,
                                    number > From{0} ? "is too large for" : "is none of", name(element_dtype<To>())));
  return static_cast<To>(number);
}

[[noreturn]] void fail_size(const File& file, StoredType type, const Dims& shape, std::string_view where,
                            std::string_view what, std::string_view follows) {
  file.fail(fmt::format("{}{}: its header says {} elements of {} bytes, shape {}, but {} follow", where, what,
                        count(shape), type.bytes, to_string(shape), follows));
}

}  // namespace

Array decode(const File& file, Input& from, StoredType type, const Dims& shape, std::string_view where) {
  return decode(file, from, type, shape, where, type.dtype());
}

Array decode(const File& file, Input& from, StoredType type, const Dims& shape, std::string_view where, DType dtype) {
  const std::uint64_t wanted = static_cast<std::uint64_t>(count(shape)) * type.bytes;
  const auto truncated = [&](std::uint64_t got) {
    fail_size(file, type, shape, where, "truncated", fmt::format("{} bytes", got));
  };
  if (from.most() < wanted) truncated(from.skip(wanted));
  Array out(dtype, shape);
  if (stored_as_is(type, dtype)) {
    const std::size_t got = from.read(static_cast<char*>(out.raw()), wanted);
    if (got < wanted) truncated(got);
    return out;
  }
  char block[1 << 13];
  std::uint64_t done = 0;
  while (done < wanted) {
    const std::size_t bytes = std::min<std::uint64_t>(wanted - done, sizeof block);
    const std::size_t got = from.read(block, bytes);
    if (got < bytes) truncated(done + got);
    visit_dtype(out.dtype(), [&](auto t) {
      auto* to = out.data<decltype(t)>() + done / type.bytes;
      visit_stored(type, [&](auto element) {
        for (std::size_t i = 0; i < bytes; i += type.bytes) *to++ = as<decltype(t)>(element(block + i));
      });
    });
    done += bytes;
  }
  return out;
}

void require_end(const File& file, Input& from, StoredType type, const Dims& shape, std::string_view where) {
  char more = 0;
  if (from.read(&more, 1) != 0) fail_size(file, type, shape, where, "too long", "more");
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
  visit_bits(elements.dtype(), [&](auto t) {
    const auto* from = static_cast<const decltype(t)*>(elements.raw());
    auto* to = static_cast<decltype(t)*>(out.raw());
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
