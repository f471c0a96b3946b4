// Feed: numbers for an input in one run, {x, array}.
#pragma once

#include <concepts>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

// {input, numbers} or {"name", numbers}. Numbers are an Array, what converts to one (array_traits.hpp), or a C++
// number.
//
// A named Array or container is referred to: it must live as long as the feed, and each run reads what it is then,
// where it lies. Of a named view, and of a std::span, the elements are referred to where they are one row-major block
// in memory. Anything else, and every temporary, is copied into the feed. So may the name be: only a literal and a
// std::string_view are referred to.
//
// A run takes feeds of another dtype than the input's too, and converts them if every number keeps its meaning:
// floating and whole numbers become floating ones, rounded; whole ones of whatever type become int64, int32 or uint8
// where they are within its range; 0 and 1 become bool.
class Feed {
 public:
  // What is fed: an input, or its name.
  class Input {
   public:
    template <class T>
    requires std::convertible_to<const T&, Value> Input(const T& input) : value_(input) {}
    template <class T>
    requires(std::convertible_to<T, std::string_view> && !std::convertible_to<const std::remove_cvref_t<T>&, Value>)
        Input(T&& name) {  // NOLINT(bugprone-forwarding-reference-overload): an Input is no name
      using Name = std::remove_reference_t<T>;
      // An array of const char is a literal.
      if constexpr (std::same_as<std::remove_cv_t<Name>, std::string_view> ||
                    (std::is_array_v<Name> && std::is_const_v<Name>)) {
        literal_ = std::forward<T>(name);
      } else {
        owned_ = std::string_view(std::forward<T>(name));
      }
    }

    [[nodiscard]] Value value() const { return value_; }
    [[nodiscard]] std::string_view name() const { return owned_.empty() ? literal_ : owned_; }

   private:
    Value value_;
    std::string_view literal_;
    std::string owned_;
  };

  template <std::convertible_to<Input> I>
  Feed(I&& input, const Array& array) : input_(std::forward<I>(input)), object_(&array), look_(look_at<Array>) {}
  template <std::convertible_to<Input> I>
  Feed(I&& input, Array&& array) : input_(std::forward<I>(input)) {
    own(std::move(array));
  }
  template <std::convertible_to<Input> I>
  Feed(I&& input, const Array&& array) : input_(std::forward<I>(input)) {
    own(Array(array));
  }
  // An unsigned number above INT64_MAX throws Error.
  template <std::convertible_to<Input> I, class T>
  requires std::is_arithmetic_v<T> Feed(I&& input, T number, Location at = Location::here())
      : input_(std::forward<I>(input)), is_number_(true) {
    const auto stored = detail::stored(number, at);
    block_.dtype = dtype_of<T>();
    std::memcpy(number_, &stored, sizeof stored);
  }
  template <std::convertible_to<Input> I, class T>
  requires(!std::is_arithmetic_v<std::remove_cvref_t<T>> && !std::same_as<std::remove_cvref_t<T>, Array> &&
           std::convertible_to<T, Array>) Feed(I&& input, T&& numbers)
      : input_(std::forward<I>(input)) {
    using Given = std::remove_cvref_t<T>;
    constexpr bool named = std::is_lvalue_reference_v<T>;
    if constexpr (detail::ForeignBlock<Given> && detail::is_owning<Given> && named) {
      object_ = std::addressof(numbers);
      look_ = look_at<Given>;
    } else if constexpr (detail::ForeignBlock<Given> && !detail::is_owning<Given> &&
                         (named || detail::is_borrowed<Given>)) {
      const Dims shape = ArrayTraits<Given>::shape(numbers);
      const void* data = ArrayTraits<Given>::block(numbers);
      if (data || count(shape) == 0) {
        block_ = {detail::block_dtype<Given>(), shape, data};
      } else {
        own(Array(numbers));
      }
    } else {
      own(Array(std::forward<T>(numbers)));
    }
  }

  [[nodiscard]] Value input() const { return input_.value(); }
  [[nodiscard]] std::string_view name() const { return input_.name(); }
  [[nodiscard]] bool is_number() const { return is_number_; }

  // The numbers as they are now; where there are none, data may be null. `room` is for a shape that has to be made.
  struct Numbers {
    DType dtype;
    const Dims& shape;
    const void* data;
  };
  [[nodiscard]] Numbers numbers(Dims& room) const {
    if (look_) return look_(object_, room);
    return {block_.dtype, block_.shape, is_number_ ? number_ : block_.data};
  }
  [[nodiscard]] detail::Block block() const {
    Dims room;
    const Numbers now = numbers(room);
    return {now.dtype, now.shape, now.data};
  }
  [[nodiscard]] DType dtype() const { return block().dtype; }
  [[nodiscard]] Dims shape() const { return block().shape; }
  [[nodiscard]] const void* data() const { return block().data; }

 private:
  template <class T>
  static Numbers look_at(const void* object, Dims& room) {
    const T& numbers = *static_cast<const T*>(object);
    if constexpr (std::same_as<T, Array>) {
      return {numbers.dtype(), numbers.shape(), numbers.raw()};
    } else {
      room = ArrayTraits<T>::shape(numbers);
      return {detail::block_dtype<T>(), room, ArrayTraits<T>::block(numbers)};
    }
  }
  void own(Array array) {
    owned_ = std::make_shared<const Array>(std::move(array));
    object_ = owned_.get();
    look_ = look_at<Array>;
  }

  Input input_;
  // One of three: what is asked for its numbers in each run, numbers that stay where they are, or a number.
  const void* object_ = nullptr;
  Numbers (*look_)(const void* object, Dims& room) = nullptr;
  detail::Block block_;
  bool is_number_ = false;
  alignas(8) unsigned char number_[8] = {};
  std::shared_ptr<const Array> owned_;  // the object of a temporary
};

}  // namespace chainrule
