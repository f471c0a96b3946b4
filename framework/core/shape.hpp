// Shapes before data exists (Shape: numbers and named symbols) and once it does (Dims: numbers only).
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/core/error.hpp>

namespace chainrule {

inline constexpr std::size_t max_rank = 8;

// The sizes that the symbols have in one run: filled from the feeds' shapes.
class Sizes {
 public:
  // False when the symbol is bound to another size already.
  bool bind(std::int64_t symbol, std::int64_t extent);
  [[nodiscard]] const std::int64_t* find(std::int64_t symbol) const;
  void clear() { bound_.clear(); }
  [[nodiscard]] std::span<const std::pair<std::int64_t, std::int64_t>> all() const { return bound_; }
  friend bool operator==(const Sizes&, const Sizes&) = default;
  [[nodiscard]] std::string to_string() const;

 private:
  std::vector<std::pair<std::int64_t, std::int64_t>> bound_;  // a handful at most: a scan beats a map
};

// One extent of a shape: a number, a named symbol, or a polynomial of symbols that shape rules made from these
// ("batch + 3", "batch * time"). Two dimensions are equal when they are equal for every size of the symbols.
// Symbols of one name are one symbol; a run gives each of them a size.
class Dimension {
 public:
  constexpr Dimension() = default;
  // A number. -1 stands for "whatever fits", which reshape understands; other negative numbers throw Error, and so do
  // unsigned ones above INT64_MAX, such as an empty vector's size() - 1.
  template <std::integral I>
  constexpr Dimension(I extent) : code_(checked(extent)) {}  // NOLINT: {2, batch} is to read as a shape

  static Dimension symbol(std::string_view name);

  [[nodiscard]] constexpr bool is_number() const { return code_ >= 0; }
  [[nodiscard]] constexpr bool is_inferred() const { return code_ == inferred_code; }
  [[nodiscard]] constexpr bool is(std::int64_t extent) const { return code_ == extent; }
  // The number. Throws Error for a symbol: its size is known only in a run.
  [[nodiscard]] std::int64_t extent(Location at = Location::here()) const;
  // The number under given sizes of the symbols; throws Error when one of them is not given.
  [[nodiscard]] std::int64_t evaluate(const Sizes& sizes) const;
  // If this is a plain symbol its identity, else -1.
  [[nodiscard]] std::int64_t symbol_id() const;
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] constexpr std::size_t hash() const { return static_cast<std::size_t>(code_); }

  friend constexpr bool operator==(Dimension, Dimension) = default;
  // Each throws Error where the result is a negative number, or has a coefficient beyond 2^63.
  friend Dimension operator+(Dimension a, Dimension b);
  friend Dimension operator-(Dimension a, Dimension b);
  friend Dimension operator*(Dimension a, Dimension b);
  friend Dimension floor_divide(Dimension a, Dimension b);

 private:
  friend class DimensionTable;
  static constexpr std::int64_t inferred_code = std::numeric_limits<std::int64_t>::min();
  template <std::integral I>
  static constexpr std::int64_t checked(I extent) {
    if constexpr (std::signed_integral<I>) {
      if (extent == -1) return inferred_code;
      if (extent < 0) throw_negative(static_cast<std::int64_t>(extent));
    } else if constexpr (sizeof(I) >= sizeof(std::int64_t)) {
      if (extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) throw_too_large(extent);
    }
    return static_cast<std::int64_t>(extent);
  }
  [[noreturn]] static void throw_negative(std::int64_t extent);
  [[noreturn]] static void throw_too_large(std::uint64_t extent);

  // >= 0: the number; < 0: -1 - (index into the process-wide table of expressions). Eight bytes and trivially
  // copied, so that a shape is too: graphs of 100,000 nodes are copied by every pass.
  std::int64_t code_ = 0;
};

// a / b where b divides every term of a; floor(a / b) as a term of its own otherwise.
Dimension floor_divide(Dimension a, Dimension b);
// The identities of the symbols that a dimension is computed from, without repetition, and the name of one.
std::vector<std::int64_t> symbols_of(Dimension dimension);
std::string symbol_name(std::int64_t symbol);

// A list of up to 8 extents; the common part of Shape and Dims.
template <class T>
class Extents {
 public:
  Extents() = default;
  Extents(std::initializer_list<T> extents) {
    for (const T& e : extents) push_back(e);
  }
  template <class Range>
  requires requires(const Range& r) {
    { *r.begin() } -> std::convertible_to<T>;
    r.end();
  } &&(!std::same_as<std::remove_cvref_t<Range>, Extents>)explicit Extents(const Range& range) {
    for (const auto& e : range) push_back(static_cast<T>(e));
  }
  static Extents filled(std::size_t rank, T value) {
    Extents out;
    for (std::size_t i = 0; i < rank; ++i) out.push_back(value);
    return out;
  }

  [[nodiscard]] std::size_t rank() const { return rank_; }
  [[nodiscard]] std::size_t size() const { return rank_; }
  [[nodiscard]] bool empty() const { return rank_ == 0; }
  T& operator[](std::size_t i) { return values_[i]; }
  const T& operator[](std::size_t i) const { return values_[i]; }
  T* begin() { return values_.data(); }
  T* end() { return values_.data() + rank_; }
  [[nodiscard]] const T* begin() const { return values_.data(); }
  [[nodiscard]] const T* end() const { return values_.data() + rank_; }
  [[nodiscard]] const T& back() const { return values_[rank_ - 1]; }
  T& back() { return values_[rank_ - 1]; }
  void push_back(T value) {
    if (rank_ == max_rank) throw Error("shape", "requires at most 8 dimensions, got more");
    values_[rank_++] = value;
  }

  friend bool operator==(const Extents& a, const Extents& b) {
    if (a.rank_ != b.rank_) return false;
    for (std::size_t i = 0; i < a.rank_; ++i)
      if (!(a.values_[i] == b.values_[i])) return false;
    return true;
  }

 private:
  std::array<T, max_rank> values_{};
  std::size_t rank_ = 0;
};

using Shape = Extents<Dimension>;
using Dims = Extents<std::int64_t>;

// "{2, batch}"
std::string to_string(const Shape& shape);
std::string to_string(const Dims& dims);

// The product of the extents; 1 for a scalar. Throws Error where that of those that are not 0 has no place in 2^63
// bytes, whatever the dtype: so sizes in bytes and strides need no check of their own.
std::int64_t count(const Dims& dims);
Dimension count(const Shape& shape);

// Strides in elements of a row-major array. A dimension of extent 1 has stride 0, as broadcasting wants it.
Dims row_major_strides(const Dims& dims);

// Row-major strides of an operand of shape `from` when it is read as shape `to` by NumPy's broadcasting rule.
Dims broadcast_strides(const Dims& from, const Dims& to);

Dims evaluate(const Shape& shape, const Sizes& sizes);
Shape to_shape(const Dims& dims);

// NumPy's broadcasting: aligned at the right, extents equal or one of them 1. False where they do not fit.
bool broadcast(const Shape& a, const Shape& b, Shape& out);

// A possibly negative axis as an index below `rank`; throws Error where it is out of range.
std::size_t normalize_axis(std::int64_t axis, std::size_t rank, std::string_view op, Location at);

}  // namespace chainrule
