// Array: numbers in memory, row-major, with a dtype. What goes into a run and what comes out of it.
//
// It is a small value type, not an array library: anything with data(), shape() and a row-major layout, such as
// xt::xarray and xt::xtensor, converts to an Array and back, so a program computes on its data with what it likes.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/dtype.hpp>
#include <chainrule/framework/shape.hpp>

namespace chainrule {

class Array;

namespace detail {

// A container or expression of another library: it has a shape and can be walked in row-major order.
template <class T>
concept ForeignArray = !std::is_same_v<std::remove_cvref_t<T>, Array> && requires(const T& t) {
  t.shape().begin();
  t.begin();
  t.end();
  requires std::is_arithmetic_v<std::remove_cvref_t<decltype(*t.begin())>>;
};

// A container of another library that can be resized to a shape and written in row-major order.
template <class T>
concept ForeignContainer = ForeignArray<T> && requires(T& t, std::vector<std::size_t> shape) {
  t.resize(shape);
  *t.begin() = typename T::value_type{};
};

[[noreturn]] void throw_wrong_element_type(DType have, DType wanted);
[[noreturn]] void throw_does_not_hold(const Dims& shape);

// An element of a one-dimensional literal. Its conversion from {1.0} is a worse match than that of {1.0} to a row, so
// that {{1.0}, {2.0}} is a column.
struct Element {
  template <class T>
  requires std::is_arithmetic_v<T> Element(T number) : value(static_cast<double>(number)) {}
  double value;
};

}  // namespace detail

class Array {
 public:
  Array() : Array(float64, Dims{0}) {}
  // Zeros of a shape.
  Array(DType dtype, const Dims& shape);
  Array(const Array& other);
  Array(Array&& other) noexcept = default;
  Array& operator=(const Array& other);
  Array& operator=(Array&& other) noexcept = default;
  ~Array() = default;

  // A scalar (shape {}): double and float keep their type, integers become int64.
  template <class T>
  requires std::is_arithmetic_v<T> Array(T value)
      : Array(dtype_of<T>(), Dims{}) {  // NOLINT: a number is an array of shape {}
    visit_dtype(dtype(), [&](auto t) { data<decltype(t)>()[0] = static_cast<decltype(t)>(value); });
  }
  // One- and two-dimensional literals: Array({1.0, 2.0}), Array({{1.0, 2.0}, {3.0, 4.0}}), float64.
  Array(std::initializer_list<detail::Element> values);
  Array(std::initializer_list<std::initializer_list<double>> rows);
  template <class T>
  requires std::is_arithmetic_v<T> Array(const std::vector<T>& values)
      : Array(dtype_of<T>(), Dims{static_cast<std::int64_t>(values.size())}) {
    fill_from(values.begin(), values.end());
  }
  // A copy of another library's array or expression.
  template <detail::ForeignArray T>
  Array(const T& other) : Array(dtype_of<std::remove_cvref_t<decltype(*other.begin())>>(), Dims(other.shape())) {
    fill_from(other.begin(), other.end());
  }

  static Array full(DType dtype, const Dims& shape, double value);
  // A copy of `elements` values of type T in row-major order.
  template <class T>
  static Array from(const T* values, const Dims& shape) {
    Array out(dtype_of<T>(), shape);
    out.fill_from(values, values + out.size());
    return out;
  }

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] const Dims& shape() const { return shape_; }
  [[nodiscard]] std::size_t rank() const { return shape_.rank(); }
  [[nodiscard]] std::int64_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(size_) * size_of(dtype_); }

  [[nodiscard]] void* raw() { return storage_.get(); }
  [[nodiscard]] const void* raw() const { return storage_.get(); }
  // The elements, row-major, 64-byte aligned. T must be the C++ type of dtype(); throws Error where it is not.
  template <class T>
  [[nodiscard]] T* data() {
    if (dtype_of<T>() != dtype_) detail::throw_wrong_element_type(dtype_, dtype_of<T>());
    return static_cast<T*>(raw());
  }
  template <class T>
  [[nodiscard]] const T* data() const {
    if (dtype_of<T>() != dtype_) detail::throw_wrong_element_type(dtype_, dtype_of<T>());
    return static_cast<const T*>(raw());
  }

  // One element, of whatever dtype, as a double. item(): of an array of one element.
  [[nodiscard]] double operator[](std::int64_t flat_index) const;
  template <std::integral... I>
  [[nodiscard]] double operator()(I... indices) const {
    return element(Dims{static_cast<std::int64_t>(indices)...});
  }
  [[nodiscard]] double item() const;
  void set(std::int64_t flat_index, double value);

  // The same numbers in another dtype, rounded as C++ does; the same numbers in another shape of the same size.
  [[nodiscard]] Array astype(DType dtype) const;
  [[nodiscard]] Array reshape(const Dims& shape) const;
  [[nodiscard]] Array transpose() const;  // of a matrix

  // Equal dtype, shape and bits (so NaN equals itself).
  [[nodiscard]] bool identical(const Array& other) const;
  // As NumPy prints it, to `precision` digits; long arrays are cut.
  [[nodiscard]] std::string to_string(int precision = 8) const;

  // A container of another library: `xt::xarray<double> a = results[0];`
  template <detail::ForeignContainer T>
  operator T() const {  // NOLINT: implicit so that results read as what the program computes with
    T out;
    std::vector<std::size_t> shape;
    for (const auto d : shape_) shape.push_back(static_cast<std::size_t>(d));
    // A container of fixed rank or shape may take what it cannot hold without a word.
    if constexpr (requires { std::tuple_size<typename T::shape_type>::value; })
      if (std::tuple_size<typename T::shape_type>::value != shape.size()) detail::throw_does_not_hold(shape_);
    out.resize(shape);
    if (!std::equal(out.shape().begin(), out.shape().end(), shape.begin(), shape.end()))
      detail::throw_does_not_hold(shape_);
    std::int64_t i = 0;
    visit_dtype(dtype_, [&](auto t) {
      const auto* from = data<decltype(t)>();
      for (auto& element : out) element = static_cast<typename T::value_type>(from[i++]);
    });
    return out;
  }

 private:
  struct Free {
    void operator()(void* p) const;
  };
  template <class It>
  void fill_from(It first, It last) {
    visit_dtype(dtype_, [&](auto t) {
      auto* to = data<decltype(t)>();
      for (; first != last; ++first) *to++ = static_cast<decltype(t)>(*first);
    });
  }
  [[nodiscard]] double element(const Dims& indices) const;

  DType dtype_;
  Dims shape_;
  std::int64_t size_ = 0;
  std::unique_ptr<void, Free> storage_;
};

// Elementwise arithmetic with NumPy's broadcasting and the wider dtype of both, for preparing data and initial
// values. (A C++ number takes the array's dtype, unless a fraction meets integers.)
Array operator+(const Array& a, const Array& b);
Array operator-(const Array& a, const Array& b);
Array operator*(const Array& a, const Array& b);
Array operator/(const Array& a, const Array& b);

// numpy.allclose: |a - b| <= atol + rtol |b| everywhere, NaN equal to NaN; false where the shapes differ.
bool allclose(const Array& a, const Array& b, double rtol = 1e-5, double atol = 1e-8);

}  // namespace chainrule
