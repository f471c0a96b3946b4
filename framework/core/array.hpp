// Array: numbers in memory, row-major, with a dtype. What goes into a run and what comes out of it.
//
// It is a small value type, not an array library: what other libraries' arrays show converts to an Array, whatever
// their layout, and an Array to them (array_traits.hpp lists them), so a program computes on its data with what it
// likes.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/core/array_traits.hpp>
#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/core/number.hpp>
#include <chainrule/framework/core/shape.hpp>

namespace chainrule {

namespace detail {

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
  // Zeros of a shape. Throws Error for negative extents, and for more memory than there is.
  Array(DType dtype, const Dims& shape);
  Array(const Array& other);
  // What was moved from is empty, of shape {0}.
  Array(Array&& other) noexcept
      : dtype_(other.dtype_),
        shape_(std::exchange(other.shape_, Dims{0})),
        size_(std::exchange(other.size_, 0)),
        storage_(std::move(other.storage_)) {}
  Array& operator=(const Array& other);
  Array& operator=(Array&& other) noexcept {
    Array taken(std::move(other));
    std::swap(dtype_, taken.dtype_);
    std::swap(shape_, taken.shape_);
    std::swap(size_, taken.size_);
    storage_.swap(taken.storage_);
    return *this;
  }
  ~Array() = default;

  // A scalar (shape {}): double, float, bool and std::uint8_t keep their type, other integers become int64. (One above
  // INT64_MAX throws Error, here and below.) So do the elements of containers: an int32 array is made from numbers by
  // from() with a dtype, or by astype().
  template <class T>
  requires std::is_arithmetic_v<T> Array(T value, Location at = Location::here())
      : Array(dtype_of<T>(), Dims{}) {  // NOLINT: a number is an array of shape {}
    *data<detail::StorageType<T>>() = detail::stored(value, at);
  }
  // One- and two-dimensional literals: Array({1.0, 2.0}), Array({{1.0, 2.0}, {3.0, 4.0}}), float64.
  Array(std::initializer_list<detail::Element> values);
  Array(std::initializer_list<std::initializer_list<double>> rows);
  // A copy of what another library's array, view or expression shows. An element that is missing (of a masked view) is
  // NaN; throws Error where the elements are whole.
  template <detail::Foreign T>
  Array(const T& other)
      : Array(detail::foreign_dtype<T>(), ArrayTraits<T>::shape(other)) {  // NOLINT: what shows numbers is an array
    using Stored = typename detail::StorageOf<detail::foreign_dtype<T>()>::type;
    auto* to = data<Stored>();
    using Element = typename ArrayTraits<T>::Element;
    ArrayTraits<T>::each(other, [&](const auto& element) { *to++ = detail::stored<Element>(element); });
  }

  // All elements `value`, as set() sets them.
  static Array full(DType dtype, const Dims& shape, Number value);
  // A copy of as many values as the shape has, in row-major order.
  template <class T>
  static Array from(const T* values, const Dims& shape) {
    Array out(dtype_of<T>(), shape);
    auto* to = out.data<detail::StorageType<T>>();
    for (std::int64_t i = 0; i < out.size(); ++i) to[i] = detail::stored(values[i]);
    return out;
  }
  // The same in another dtype than the numbers' own, converted as set() does: from(pointer_to_int, {n}, int32).
  template <class T>
  static Array from(const T* values, const Dims& shape, DType dtype) {
    Array out(dtype, shape);
    visit_dtype(dtype, [&](auto t) {
      auto* to = out.data<decltype(t)>();
      for (std::int64_t i = 0; i < out.size(); ++i) to[i] = detail::convert_number<decltype(t)>(values[i]);
    });
    return out;
  }

  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] const Dims& shape() const { return shape_; }
  [[nodiscard]] std::size_t rank() const { return shape_.rank(); }
  [[nodiscard]] std::int64_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(size_) * size_of(dtype_); }

  [[nodiscard]] void* raw() { return storage_.get(); }
  [[nodiscard]] const void* raw() const { return storage_.get(); }
  // The elements, row-major, 64-byte aligned. T must be the C++ type of dtype() - float, double, std::int64_t,
  // std::int32_t, std::uint8_t or bool; throws Error where it is not.
  template <class T>
  requires detail::is_element<T>
  [[nodiscard]] T* data() {
    if (detail::element_dtype<T>() != dtype_) detail::throw_wrong_element_type(dtype_, detail::element_dtype<T>());
    return static_cast<T*>(raw());
  }
  template <class T>
  requires detail::is_element<T>
  [[nodiscard]] const T* data() const {
    if (detail::element_dtype<T>() != dtype_) detail::throw_wrong_element_type(dtype_, detail::element_dtype<T>());
    return static_cast<const T*>(raw());
  }

  // One element, of whatever dtype, as a double (whole numbers beyond 2^53 are rounded). item(): of an array of one
  // element.
  [[nodiscard]] double operator[](std::int64_t flat_index) const;
  template <std::integral... I>
  [[nodiscard]] double operator()(I... indices) const {
    return element(Dims{static_cast<std::int64_t>(indices)...});
  }
  [[nodiscard]] double item() const { return (*this)[only_index()]; }
  // The same as a T: item<std::int64_t>() is exact. A fraction is cut off as C++ does; throws Error for a number beyond
  // T's range and for NaN as a whole number.
  template <class T>
  [[nodiscard]] T at(std::int64_t flat_index) const {
    check_index(flat_index);
    return visit_dtype(dtype_, [&](auto t) { return detail::convert_number<T>(data<decltype(t)>()[flat_index]); });
  }
  template <class T>
  [[nodiscard]] T item() const {
    return at<T>(only_index());
  }
  // Sets one element, whole numbers exactly, others converted as at() does.
  void set(std::int64_t flat_index, Number value);

  // The same numbers in another dtype, rounded as C++ does (throws Error for NaN and numbers beyond the range of an
  // integer dtype, where the op cast() gives some number); the same numbers in another shape of the same size.
  [[nodiscard]] Array astype(DType dtype) const;
  [[nodiscard]] Array reshape(const Dims& shape) const;
  [[nodiscard]] Array transpose() const;  // of a matrix

  // Equal dtype, shape and bits (so NaN equals itself).
  [[nodiscard]] bool identical(const Array& other) const;
  // As NumPy prints it, to `precision` digits; long arrays are cut.
  [[nodiscard]] std::string to_string(int precision = 8) const;

  // A container of another library: `xt::xarray<double> a = results[0];`. Throws Error where it cannot have this shape,
  // and as at() does for numbers that its elements cannot be.
  template <detail::ForeignContainer T>
  operator T() const {  // NOLINT: implicit so that results read as what the program computes with
    T out = ArrayTraits<T>::make(shape_);
    copy_to(out);
    return out;
  }
  // Writes the elements into what has this shape already: a view, a span, an array. Throws Error for another shape.
  template <class T>
  requires detail::Foreign<std::remove_cvref_t<T>>
  void copy_to(T&& to) const {
    using Traits = ArrayTraits<std::remove_cvref_t<T>>;
    if (!(Traits::shape(to) == shape_)) detail::throw_does_not_hold(shape_);
    visit_dtype(dtype_, [&](auto t) {
      const auto* from = data<decltype(t)>();
      Traits::each(to, [&](auto&& element) {
        element = detail::convert_number<detail::NumberType<typename Traits::Element>>(*from++);
      });
    });
  }

 private:
  struct Free {
    void operator()(void* p) const;
  };
  [[nodiscard]] double element(const Dims& indices) const;
  void check_index(std::int64_t flat_index) const;
  [[nodiscard]] std::int64_t only_index() const;

  DType dtype_;
  Dims shape_;
  std::int64_t size_ = 0;
  std::unique_ptr<void, Free> storage_;
};

namespace detail {

// Numbers that lie somewhere, row-major.
struct Block {
  DType dtype = float64;
  Dims shape;
  const void* data = nullptr;
};

inline Block block_of(const Array& array) { return {array.dtype(), array.shape(), array.raw()}; }

// Copies numbers into `to`, of the same size and any dtype, as far as each keeps its meaning (keeps_meaning()). Returns
// the index of the first that would not, or -1.
std::int64_t convert(const Block& from, Array& to);
// Says which number of `from` that is: "element 3 is 0.5".
std::string element_text(const Block& from, std::int64_t index);

}  // namespace detail

// Elementwise arithmetic with NumPy's broadcasting and the wider dtype of both - float64, float32, int64, int32, uint8,
// in this order - for preparing data and initial values. (A C++ number takes the array's dtype, unless a fraction meets
// integers; an integer that it cannot be throws Error.) Integers wrap around, as NumPy's do; their quotients are
// float64.
Array operator+(const Array& a, const Array& b);
Array operator-(const Array& a, const Array& b);
Array operator*(const Array& a, const Array& b);
Array operator/(const Array& a, const Array& b);

// numpy.allclose: |a - b| <= atol + rtol |b| everywhere, NaN equal to NaN; false where the shapes differ.
bool allclose(const Array& a, const Array& b, double rtol = 1e-5, double atol = 1e-8);

}  // namespace chainrule
