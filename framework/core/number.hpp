// Numbers of C++ on their way into arrays and graphs: whole ones exactly, without a detour by double.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

#include <chainrule/framework/core/error.hpp>

namespace chainrule {

namespace detail {

// Whether the conversion of `value` to To has a result, as C++ defines it: a fraction is cut off, and what is left is
// within To's range.
template <class To, class From>
constexpr bool convertible(From value) {
  if constexpr (std::floating_point<To> || std::same_as<To, bool> || std::same_as<From, bool>) {
    return true;
  } else if constexpr (std::integral<From>) {
    const auto converted = static_cast<To>(value);
    bool same_sign = true;
    if constexpr (std::is_signed_v<From> && std::is_unsigned_v<To>) same_sign = value >= 0;
    if constexpr (std::is_unsigned_v<From> && std::is_signed_v<To>) same_sign = converted >= 0;
    return same_sign && static_cast<From>(converted) == value;
  } else {
    constexpr auto lowest = static_cast<From>(std::numeric_limits<To>::min());
    constexpr To half = std::numeric_limits<To>::max() / 2 + 1;  // a power of two: exact
    constexpr From above = static_cast<From>(half) * 2;
    return (value >= lowest || value > lowest - 1) && value < above;
  }
}

// Whether `value` as a To still means the same. A floating To may round, but not to infinity; a whole one takes whole
// numbers of its range, and bool takes 0 and 1.
template <class To, class From>
constexpr bool keeps_meaning(From value) {
  if constexpr (std::same_as<To, bool>) {
    return value == From{0} || value == From{1};
  } else if constexpr (std::floating_point<To> && std::floating_point<From> && sizeof(To) < sizeof(From)) {
    constexpr auto greatest = static_cast<From>(std::numeric_limits<To>::max());
    constexpr From infinity = std::numeric_limits<From>::infinity();
    return !(value > greatest && value < infinity) && !(value < -greatest && value > -infinity);
  } else if constexpr (std::integral<To> && std::floating_point<From>) {
    return convertible<To>(value) && static_cast<From>(static_cast<To>(value)) == value;
  } else {
    return convertible<To>(value);
  }
}

[[noreturn]] void throw_not_convertible(double value, std::size_t bytes);
[[noreturn]] void throw_beyond_int64(std::uint64_t value, Location at);

// The conversion of C++, and an Error where that has no result: NaN or 1e300 as a whole number, 300 as one of 8 bits.
template <class To, class From>
constexpr To convert_number(From value) {
  if (!convertible<To>(value)) throw_not_convertible(static_cast<double>(value), sizeof(To));
  return static_cast<To>(value);
}

// The conversion of the op cast, which has a result for every number, NumPy's on x86-64. Anything but 0 is true. An
// integer keeps its low bits. The fraction of a floating number is cut off, and where that is beyond the range of int64
// or int32, or NaN, it becomes the least int64 or int32; to uint8 it goes by way of int32, of which the low byte is
// kept.
template <class To, class From>
constexpr To cast_number(From value) {
  if constexpr (std::same_as<To, bool>) {
    return value != From{0};
  } else if constexpr (std::floating_point<From> && std::integral<To>) {
    using Whole = std::conditional_t<(sizeof(To) > sizeof(std::int32_t)), std::int64_t, std::int32_t>;
    return static_cast<To>(convertible<Whole>(value) ? static_cast<Whole>(value) : std::numeric_limits<Whole>::min());
  } else {
    return static_cast<To>(value);
  }
}

}  // namespace detail

// A C++ number as an argument. Throws Error for an unsigned one above INT64_MAX.
class Number {
 public:
  template <class T>
  requires std::is_arithmetic_v<T>
  constexpr Number(T value, Location at = Location::here())  // NOLINT: f(1) and f(0.5) alike
      : is_whole_(std::integral<T>) {
    if constexpr (std::integral<T>) {
      if (!detail::convertible<std::int64_t>(value)) detail::throw_beyond_int64(static_cast<std::uint64_t>(value), at);
      whole_ = static_cast<std::int64_t>(value);
    } else {
      floating_ = static_cast<double>(value);
    }
  }
  // An enumerator, or what wraps a number.
  template <class T>
  requires(!std::is_arithmetic_v<T> && std::convertible_to<const T&, double>) constexpr Number(const T& value)
      : floating_(static_cast<double>(value)) {}  // NOLINT

  // Calls f with the std::int64_t or the double.
  template <class F>
  constexpr decltype(auto) visit(F&& f) const {
    return is_whole_ ? f(whole_) : f(floating_);
  }
  // As convert_number().
  template <class T>
  [[nodiscard]] constexpr T as() const {
    return visit([](auto value) { return detail::convert_number<T>(value); });
  }
  template <class T>
  [[nodiscard]] constexpr bool is() const {
    return visit([](auto value) { return detail::keeps_meaning<T>(value); });
  }
  [[nodiscard]] std::string to_string() const;

 private:
  bool is_whole_ = false;
  std::int64_t whole_ = 0;
  double floating_ = 0;
};

}  // namespace chainrule
