// Element types. A property of a Value or an Array at run time; kernels are templates inside the library.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <chainrule/framework/core/error.hpp>

namespace chainrule {

enum class DType : std::uint8_t { float32, float64, int64, int32, uint8, boolean };

inline constexpr DType float32 = DType::float32;
inline constexpr DType float64 = DType::float64;
inline constexpr DType int64 = DType::int64;
inline constexpr DType int32 = DType::int32;  // of an Array that is made so; numbers and containers of int become int64
inline constexpr DType uint8 = DType::uint8;  // 0 to 255: images, labels
inline constexpr DType boolean = DType::boolean;  // one byte an element, 0 or 1

// NumPy's names: "float32", "float64", "int64", "int32", "uint8", "bool".
constexpr std::string_view name(DType dtype) {
  constexpr std::string_view names[] = {"float32", "float64", "int64", "int32", "uint8", "bool"};
  return names[static_cast<std::size_t>(dtype)];
}

constexpr std::size_t size_of(DType dtype) {
  constexpr std::size_t sizes[] = {4, 8, 8, 4, 1, 1};
  return sizes[static_cast<std::size_t>(dtype)];
}

constexpr bool is_floating(DType dtype) { return dtype == DType::float32 || dtype == DType::float64; }
constexpr bool is_integer(DType dtype) {
  return dtype == DType::int64 || dtype == DType::int32 || dtype == DType::uint8;
}

// The dtype that numbers of a C++ arithmetic type become: integers int64, whatever their width, but std::uint8_t, which
// is what bytes are kept in, uint8. (int is what literals and labels are written in, and whatever counts them would
// overflow it.)
template <class T>
requires std::is_arithmetic_v<T>
constexpr DType dtype_of() {
  if constexpr (std::same_as<T, bool>) return DType::boolean;
  if constexpr (std::same_as<T, float>) return DType::float32;
  if constexpr (std::floating_point<T>) return DType::float64;
  if constexpr (std::same_as<T, std::uint8_t>) return DType::uint8;
  return DType::int64;
}

namespace detail {

// Whether T's memory is that of some dtype's elements, and of which. (Of int64 are long and long long.)
template <class T>
inline constexpr bool is_element = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bool> ||
                                   std::same_as<T, std::uint8_t> || std::same_as<T, std::int32_t> ||
                                   (std::signed_integral<T> && sizeof(T) == sizeof(std::int64_t));
template <class T>
requires is_element<T>
constexpr DType element_dtype() { return std::same_as<T, std::int32_t> ? DType::int32 : dtype_of<T>(); }

}  // namespace detail

// Calls f with a value of the C++ type of `dtype`: float, double, std::int64_t, std::int32_t, std::uint8_t or bool.
template <class F>
decltype(auto) visit_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32: return f(float{});
    case DType::float64: return f(double{});
    case DType::int64: return f(std::int64_t{});
    case DType::int32: return f(std::int32_t{});
    case DType::uint8: return f(std::uint8_t{});
    case DType::boolean: break;
  }
  return f(bool{});
}

// Calls f with an unsigned integer of an element's size: what moves elements needs to know no more of them.
template <class F>
decltype(auto) visit_bits(DType dtype, F&& f) {
  if (size_of(dtype) == 1) return f(std::uint8_t{});
  if (size_of(dtype) == 4) return f(std::uint32_t{});
  return f(std::uint64_t{});
}

// For what is written for floating dtypes alone: calls f with a float or a double.
template <class F>
decltype(auto) visit_floating(DType dtype, F&& f) {
  invariant(is_floating(dtype), "what is written for float32 and float64 meets another dtype");
  return dtype == DType::float32 ? f(float{}) : f(double{});
}

}  // namespace chainrule
