// How arrays of other libraries are read and made: what converts to an Array and back, and is fed without a copy.
//
// Known are containers, views and expressions with shape() and begin(), such as xtensor's; std::vector, std::array,
// std::span and C arrays, also nested; and, with <chainrule/framework/core/eigen.hpp>, Eigen's. Whatever their layout,
// they are taken as what they show. A specialisation of ArrayTraits makes a type of yours known.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/core/number.hpp>
#include <chainrule/framework/core/shape.hpp>

namespace chainrule {

class Array;

// For a T that is known, it has
//   using Element = ...;                      a number, or one that may be missing (as std::optional says it)
//   static Dims shape(const T&);
//   static void each(T& or const T&, f);      calls f(element) for each in row-major order; f may write those of a T&
// and may have
//   static const E* block(const T&);          the elements where they are one row-major block in memory, else nullptr:
//                                             a feed then reads them where they are
//   static constexpr bool owning = true;      the elements are the container's own, and block() is never nullptr: a
//                                             feed of a named one refers to it, and reads it in each run
//   static constexpr bool borrowed = true;    block() outlives the T, as a std::span's does
//   static T make(const Dims&);               a T of this shape to be written, or of another where it cannot have it
template <class T>
struct ArrayTraits {};

namespace detail {

// An element whose number may be missing: has_value(), or visible() in a masked view, says whether value() is there.
template <class E>
concept MaybeMissing = (
                           requires(const E& e) { e.has_value(); } || requires(const E& e) { e.visible(); }) &&
                       requires(const E& e) {
  e.value();
};

template <class E>
struct NumberOf {
  using type = E;
};
template <MaybeMissing E>
struct NumberOf<E> : NumberOf<std::remove_cvref_t<decltype(std::declval<const E&>().value())>> {};

template <class E>
concept NumberElement = std::is_arithmetic_v<typename NumberOf<E>::type>;

[[noreturn]] void throw_missing_element();
[[noreturn]] void throw_uneven_rows(const Dims& first, const Dims& other);

template <DType dtype>
struct StorageOf;
template <>
struct StorageOf<float32> {
  using type = float;
};
template <>
struct StorageOf<float64> {
  using type = double;
};
template <>
struct StorageOf<int64> {
  using type = std::int64_t;
};
template <>
struct StorageOf<int32> {
  using type = std::int32_t;
};
template <>
struct StorageOf<uint8> {
  using type = std::uint8_t;
};
template <>
struct StorageOf<boolean> {
  using type = bool;
};

// The type of an element's numbers, and the one that an Array keeps them in.
template <class E>
using NumberType = typename NumberOf<std::remove_cvref_t<E>>::type;
template <class E>
using StorageType = typename StorageOf<dtype_of<NumberType<E>>()>::type;

// An element as an Array keeps it. A missing one is NaN.
template <class E>
StorageType<E> stored(const E& element, Location at = {}) {
  using Stored = StorageType<E>;
  if constexpr (MaybeMissing<E>) {
    bool there = true;
    if constexpr (requires { element.visible(); }) {
      there = element.visible();
    } else {
      there = element.has_value();
    }
    if (there) return stored(element.value(), at);
    if constexpr (!std::floating_point<Stored>) throw_missing_element();
    return std::numeric_limits<Stored>::quiet_NaN();
  } else if constexpr (std::same_as<Stored, std::int64_t>) {
    return Number(element, at).template as<std::int64_t>();
  } else {
    return static_cast<Stored>(element);
  }
}

// Whether memory that holds E is memory as Arrays have it.
template <class E>
concept StoredElement = is_element<E>;

// ---- xtensor's, and what is like them

// What such a walk meets; of a proxy (of one bit, say) what it stands for.
template <class T>
struct MetBy {
  using type = std::remove_cvref_t<decltype(*std::declval<const T&>().begin())>;
};
template <class T>
requires(!NumberElement<std::remove_cvref_t<decltype(*std::declval<const T&>().begin())>> &&
         std::convertible_to<decltype(*std::declval<const T&>().begin()), typename T::value_type>) struct MetBy<T> {
  using type = typename T::value_type;
};

// Has a shape and is walked in row-major order.
template <class T>
concept Shaped = !std::same_as<T, Array> && requires(const T& t) {
  t.shape().begin();
  t.shape().end();
  t.begin();
  t.end();
  requires NumberElement<typename MetBy<T>::type>;
};

// The start of a walk in row-major order. A type that has layouts is told so: what it does untold is a setting
// (XTENSOR_DEFAULT_TRAVERSAL).
template <class T>
auto row_major_begin(T& t) {
  if constexpr (requires { std::remove_const_t<T>::static_layout; }) {
    constexpr auto row_major = static_cast<std::remove_cvref_t<decltype(std::remove_const_t<T>::static_layout)>>(1);
    if constexpr (requires { t.template begin<row_major>(); }) {
      return t.template begin<row_major>();
    } else {
      return t.begin();
    }
  } else {
    return t.begin();
  }
}

// Has elements of its own, unlike a view of some container's.
template <class T>
concept ResizableContainer = std::is_default_constructible_v<T> && requires(T& t, std::vector<std::size_t> shape) {
  t.resize(shape);
  *t.begin() = std::remove_cvref_t<decltype(*t.begin())>{};
};

template <class T>
inline constexpr bool is_row_major = requires {
  requires static_cast<int>(T::static_layout) == 1;
};

// data() of an adaptor of iterators has a pointer's type, and does not compile.
template <class T>
concept PointsToElements = !requires(const T& t) {
  t.storage();
}
|| requires(const T& t) { requires std::is_pointer_v<decltype(t.storage().data())>; };

template <class T>
concept Strided = PointsToElements<T> && requires(const T& t) {
  *t.data();
  t.data_offset();
  t.strides()[0];
  t.shape()[0];
  requires StoredElement<std::remove_cvref_t<decltype(*t.data())>>;
};

}  // namespace detail

template <detail::Shaped T>
struct ArrayTraits<T> {
  using Element = typename detail::MetBy<T>::type;

  static Dims shape(const T& from) { return Dims(from.shape()); }

  template <class Shaped, class F>
  static void each(Shaped& from, F f) {
    auto it = detail::row_major_begin(from);
    for (std::int64_t left = count(shape(from)); left > 0; --left, ++it) f(*it);
  }

  // In a layout that is fixed at compile time, a container's elements are one block.
  static constexpr bool owning = detail::ResizableContainer<T> && detail::is_row_major<T>;

  // One block if each stride is the number of elements of the axes behind it. (Of an extent of 1 it does not matter.)
  // Not of a container that could get another layout.
  static auto block(const T& from) requires(detail::Strided<T> && (owning || !detail::ResizableContainer<T>)) {
    const auto& extents = from.shape();
    const auto& strides = from.strides();
    std::int64_t behind = 1;
    bool dense = true;
    for (std::size_t i = Dims(extents).rank(); i-- > 0;) {
      const auto extent = static_cast<std::int64_t>(extents[i]);
      dense = dense && (extent == 1 || static_cast<std::int64_t>(strides[i]) == behind);
      behind *= extent;
    }
    return dense || behind == 0 ? from.data() + from.data_offset() : nullptr;
  }

  // A T of this shape, or of another where it cannot have that.
  static T make(const Dims& shape) requires detail::ResizableContainer<T> {
    T out;
    std::vector<std::size_t> extents;
    for (const auto extent : shape) extents.push_back(static_cast<std::size_t>(extent));
    // A container of fixed rank may take what it cannot hold without a word.
    if constexpr (requires { std::tuple_size<typename T::shape_type>::value; })
      if (std::tuple_size<typename T::shape_type>::value != shape.rank()) return out;
    try {
      out.resize(extents);
    } catch (const std::runtime_error&) {  // of a fixed shape
    }
    return out;
  }
};

// ---- the standard library's

namespace detail {

template <class T>
inline constexpr bool is_sequence = false;
template <class E, class Allocator>
inline constexpr bool is_sequence<std::vector<E, Allocator>> = true;
template <class E, std::size_t Size>
inline constexpr bool is_sequence<std::array<E, Size>> = true;
template <class E, std::size_t Size>
inline constexpr bool is_sequence<std::span<E, Size>> = true;
// But for text.
template <class E, std::size_t Size>
inline constexpr bool is_sequence<E[Size]> = !std::same_as<std::remove_cv_t<E>, char>;

template <class T>
inline constexpr bool is_span = false;
template <class E, std::size_t Size>
inline constexpr bool is_span<std::span<E, Size>> = true;

template <class T>
using InnerType = std::remove_cvref_t<decltype(*std::begin(std::declval<const T&>()))>;

template <class T>
struct InnermostOf {
  using type = T;
};
template <class T>
requires is_sequence<T>
struct InnermostOf<T> : InnermostOf<InnerType<T>> {
};

template <class T>
concept Sequence = is_sequence<T> && std::is_arithmetic_v<typename InnermostOf<T>::type>;

}  // namespace detail

// Of one dimension, or, nested, with one more than its elements; rows of different lengths throw Error.
template <detail::Sequence T>
struct ArrayTraits<T> {
  using Inner = detail::InnerType<T>;
  using Element = typename detail::InnermostOf<T>::type;

  static Dims shape(const T& from) {
    Dims out{static_cast<std::int64_t>(std::size(from))};
    if constexpr (detail::is_sequence<Inner>) {
      Dims rows;
      bool first = true;
      for (const Inner& row : from) {
        const Dims other = ArrayTraits<Inner>::shape(row);
        if (!first && !(other == rows)) detail::throw_uneven_rows(rows, other);
        rows = other;
        first = false;
      }
      if (first) rows = no_rows();
      for (const auto extent : rows) out.push_back(extent);
    }
    return out;
  }

  template <class Sequence, class F>
  static void each(Sequence& from, F f) {
    for (auto&& element : from) {
      if constexpr (detail::is_sequence<Inner>) {
        ArrayTraits<Inner>::each(element, f);
      } else {
        f(element);
      }
    }
  }

  static auto block(const T& from) requires detail::StoredElement<Inner> && requires { std::data(from); }
  { return std::data(from); }
  static constexpr bool owning = !detail::is_span<T>;
  static constexpr bool borrowed = detail::is_span<T>;

  template <class Made = T>
  requires(!detail::is_span<Made> && !std::is_array_v<Made> && !detail::is_sequence<Inner>) static Made
      make(const Dims& shape) {
    Made out{};
    if constexpr (requires { out.resize(1); })
      if (shape.rank() == 1) out.resize(static_cast<std::size_t>(shape[0]));
    return out;
  }

 private:
  static Dims no_rows() {
    if constexpr (std::is_default_constructible_v<Inner> && !std::is_array_v<Inner>) {
      return ArrayTraits<Inner>::shape(Inner{});
    } else {
      return Dims{0};
    }
  }
};

namespace detail {

template <class T>
concept Foreign = requires(const T& t) {
  ArrayTraits<T>::shape(t);
};

template <Foreign T>
constexpr DType foreign_dtype() {
  return dtype_of<NumberType<typename ArrayTraits<T>::Element>>();
}

// What a feed can read in place, where it turns out to be one block.
template <class T>
concept ForeignBlock = requires(const T& t) {
  requires StoredElement<std::remove_cvref_t<decltype(*ArrayTraits<T>::block(t))>>;
};
// Of its memory: int32 of int, which a copy makes int64.
template <ForeignBlock T>
constexpr DType block_dtype() {
  return element_dtype<std::remove_cvref_t<decltype(*ArrayTraits<T>::block(std::declval<const T&>()))>>();
}

template <class T>
concept ForeignContainer = requires(const Dims& shape) {
  ArrayTraits<T>::make(shape);
};

template <class T>
inline constexpr bool is_owning = requires {
  requires ArrayTraits<T>::owning;
};
template <class T>
inline constexpr bool is_borrowed = requires {
  requires ArrayTraits<T>::borrowed;
};

}  // namespace detail

}  // namespace chainrule
