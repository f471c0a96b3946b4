// Element types. A property of a Value or an Array at run time; kernels are templates inside the library.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include <chainrule/framework/core/error.hpp>

namespace chainrule {

enum class DType : std::uint8_t { float32, float64, int64, boolean };

inline constexpr DType float32 = DType::float32;
inline constexpr DType float64 = DType::float64;
inline constexpr DType int64 = DType::int64;
inline constexpr DType boolean = DType::boolean;  // one byte an element, 0 or 1

// NumPy's names: "float32", "float64", "int64", "bool".
constexpr std::string_view name(DType dtype) {
  constexpr std::string_view names[] = {"float32", "float64", "int64", "bool"};
  return names[static_cast<std::size_t>(dtype)];
}

constexpr std::size_t size_of(DType dtype) {
  constexpr std::size_t sizes[] = {4, 8, 8, 1};
  return sizes[static_cast<std::size_t>(dtype)];
}

constexpr bool is_floating(DType dtype) { return dtype == DType::float32 || dtype == DType::float64; }

// The dtype that holds a C++ arithmetic type: integers become int64.
template <class T>
requires std::is_arithmetic_v<T>
constexpr DType dtype_of() {
  if constexpr (std::same_as<T, bool>) return DType::boolean;
  if constexpr (std::same_as<T, float>) return DType::float32;
  if constexpr (std::floating_point<T>) return DType::float64;
  return DType::int64;
}

// Calls f with a value of the C++ type of `dtype`: float, double, std::int64_t or bool.
template <class F>
decltype(auto) visit_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::float32: return f(float{});
    case DType::float64: return f(double{});
    case DType::int64: return f(std::int64_t{});
    case DType::boolean: break;
  }
  return f(bool{});
}

// The same for what is written for floating dtypes alone: calls f with a float or a double.
template <class F>
decltype(auto) visit_floating(DType dtype, F&& f) {
  invariant(is_floating(dtype), "what is written for float32 and float64 meets another dtype");
  return dtype == DType::float32 ? f(float{}) : f(double{});
}

}  // namespace chainrule
