#include <chainrule/framework/core/array.hpp>

#include <algorithm>
#include <cmath>
#include <new>

#include <fmt/core.h>

#include <chainrule/framework/core/no_memory.hpp>
#include <chainrule/framework/core/printed.hpp>

namespace chainrule {

namespace {

constexpr std::align_val_t alignment{64};

}  // namespace

void detail::throw_wrong_element_type(DType have, DType wanted) {
  throw Error("array", fmt::format("requires the element type of its dtype {}, got {}", name(have), name(wanted)));
}

void detail::throw_does_not_hold(const Dims& shape) {
  throw Error("array", fmt::format("requires a container that can have shape {}", to_string(shape)));
}

void detail::throw_missing_element() {
  throw Error("array", "requires all of its whole numbers, got a missing one (of floating ones that is NaN)");
}

void detail::throw_uneven_rows(const Dims& first, const Dims& other) {
  if (first.rank() != 1)
    throw Error("array", fmt::format("requires parts of one shape, got {} and {}", to_string(first), to_string(other)));
  throw Error("array", fmt::format("requires rows of one length, got {} and {}", first[0], other[0]));
}

void detail::throw_not_convertible(double value, std::size_t bytes) {
  throw Error("number", fmt::format("requires one that a whole number of {} bits can be, got {}", 8 * bytes, value));
}

void detail::throw_beyond_int64(std::uint64_t value, Location at) {
  throw Error(at, "number", fmt::format("requires whole numbers up to 9223372036854775807, got {}", value));
}

std::string Number::to_string() const {
  return visit([](auto value) { return fmt::format("{}", value); });
}

std::int64_t detail::convert(const Block& from, Array& to) {
  invariant(count(from.shape) == to.size(), "an array of another size to convert to");
  return visit_dtype(from.dtype, [&](auto f) {
    return visit_dtype(to.dtype(), [&](auto t) {
      using To = decltype(t);
      const auto* source = static_cast<const decltype(f)*>(from.data);
      auto* target = to.data<To>();
      for (std::int64_t i = 0; i < to.size(); ++i) {
        if (!keeps_meaning<To>(source[i])) return i;
        target[i] = static_cast<To>(source[i]);
      }
      return std::int64_t{-1};
    });
  });
}

std::string detail::element_text(const Block& from, std::int64_t index) {
  std::string text = visit_dtype(
      from.dtype, [&](auto t) { return fmt::format("{}", static_cast<const decltype(t)*>(from.data)[index]); });
  if (from.shape.rank() == 0) return text;
  Dims place = from.shape;
  for (std::size_t axis = place.rank(); axis-- > 0; index /= from.shape[axis]) place[axis] = index % from.shape[axis];
  return fmt::format("{} at {}", text, to_string(place));
}

void Array::Free::operator()(void* p) const { ::operator delete(p, alignment); }

namespace {

std::int64_t checked_count(const Dims& shape) {
  for (const auto d : shape)
    if (d < 0) throw Error("array", fmt::format("requires extents of 0 or more, got {}", to_string(shape)));
  return count(shape);
}

}  // namespace

Array::Array(DType dtype, const Dims& shape) : dtype_(dtype), shape_(shape), size_(checked_count(shape)) {
  // Room to the next 64 bytes, so that no array is without storage.
  const std::size_t room = (bytes() / 64 + 1) * 64;
  storage_.reset(::operator new(room, alignment, std::nothrow));
  if (!storage_)
    throw detail::NoMemory("array", fmt::format("requires {} bytes of memory for {} {}, and there are not as many free",
                                                room, name(dtype), chainrule::to_string(shape)));
  std::memset(storage_.get(), 0, room);
}

Array::Array(const Array& other) : Array(other.dtype_, other.shape_) {
  if (size_ > 0) std::memcpy(raw(), other.raw(), bytes());  // one that was moved from has no memory
}

Array& Array::operator=(const Array& other) {
  if (this == &other) return *this;
  if (dtype_ == other.dtype_ && size_ == other.size_ && storage_) {
    shape_ = other.shape_;
    if (size_ > 0) std::memcpy(raw(), other.raw(), bytes());
    return *this;
  }
  return *this = Array(other);
}

Array::Array(std::initializer_list<detail::Element> values)
    : Array(float64, Dims{static_cast<std::int64_t>(values.size())}) {
  auto* to = data<double>();
  for (const detail::Element element : values) *to++ = element.value;
}

Array::Array(std::initializer_list<std::initializer_list<double>> rows)
    : Array(float64, Dims{static_cast<std::int64_t>(rows.size()),
                          static_cast<std::int64_t>(rows.size() == 0 ? 0 : rows.begin()->size())}) {
  auto* to = data<double>();
  for (const auto& row : rows) {
    if (static_cast<std::int64_t>(row.size()) != shape_[1])
      throw Error("array", fmt::format("requires rows of one length, got {} and {}", shape_[1], row.size()));
    to = std::copy(row.begin(), row.end(), to);
  }
}

Array Array::full(DType dtype, const Dims& shape, Number value) {
  Array out(dtype, shape);
  visit_dtype(dtype, [&](auto t) {
    const auto converted = value.as<decltype(t)>();
    // Zeros are there. (-0 is another.)
    if (converted != decltype(t){0} || std::signbit(static_cast<double>(converted)))
      std::fill_n(out.data<decltype(t)>(), out.size(), converted);
  });
  return out;
}

void Array::check_index(std::int64_t flat_index) const {
  if (flat_index < 0 || flat_index >= size_)
    throw Error("array", fmt::format("requires an index below {}, got {}", size_, flat_index));
}

double Array::operator[](std::int64_t flat_index) const { return detail::printed(at<double>(flat_index)); }

void Array::set(std::int64_t flat_index, Number value) {
  check_index(flat_index);
  visit_dtype(dtype_, [&](auto t) { data<decltype(t)>()[flat_index] = value.as<decltype(t)>(); });
}

double Array::element(const Dims& indices) const {
  if (indices.rank() != rank())
    throw Error("array", fmt::format("requires {} indices for shape {}, got {}", rank(), chainrule::to_string(shape_),
                                     indices.rank()));
  std::int64_t flat = 0;
  for (std::size_t i = 0; i < rank(); ++i) {
    if (indices[i] < 0 || indices[i] >= shape_[i])
      throw Error("array", fmt::format("requires indices within {}, got {}", chainrule::to_string(shape_),
                                       chainrule::to_string(indices)));
    flat = flat * shape_[i] + indices[i];
  }
  return (*this)[flat];
}

std::int64_t Array::only_index() const {
  if (size_ != 1)
    throw Error("array", fmt::format("item() requires one element, got shape {}", chainrule::to_string(shape_)));
  return 0;
}

Array Array::astype(DType dtype) const {
  if (dtype == dtype_) return *this;
  Array out(dtype, shape_);
  visit_dtype(dtype_, [&](auto from) {
    visit_dtype(dtype, [&](auto to) {
      const auto* source = data<decltype(from)>();
      std::transform(source, source + size_, out.data<decltype(to)>(),
                     [](auto v) { return detail::convert_number<decltype(to)>(v); });
    });
  });
  return out;
}

Array Array::reshape(const Dims& shape) const {
  if (std::any_of(shape.begin(), shape.end(), [](std::int64_t d) { return d < 0; }) || count(shape) != size_)
    throw Error("array", fmt::format("reshape requires {} elements, got {}", size_, chainrule::to_string(shape)));
  Array out(*this);
  out.shape_ = shape;
  return out;
}

Array Array::transpose() const {
  if (rank() != 2)
    throw Error("array", fmt::format("transpose requires a matrix, got {}", chainrule::to_string(shape_)));
  Array out(dtype_, Dims{shape_[1], shape_[0]});
  visit_bits(dtype_, [&](auto t) {
    const auto* from = static_cast<const decltype(t)*>(raw());
    auto* to = static_cast<decltype(t)*>(out.raw());
    for (std::int64_t i = 0; i < shape_[0]; ++i)
      for (std::int64_t j = 0; j < shape_[1]; ++j) to[j * shape_[0] + i] = from[i * shape_[1] + j];
  });
  return out;
}

bool Array::identical(const Array& other) const {
  return dtype_ == other.dtype_ && shape_ == other.shape_ &&
         (size_ == 0 || std::memcmp(raw(), other.raw(), bytes()) == 0);
}

std::string Array::to_string(int precision) const {
  const auto number = [&](std::int64_t i) {
    return is_integer(dtype_) ? fmt::format("{}", at<std::int64_t>(i)) : fmt::format("{:.{}g}", (*this)[i], precision);
  };
  if (rank() == 0) return number(0);
  constexpr std::int64_t edge = 3;  // of an axis longer than 2 * edge + 1, this many from each end
  std::int64_t flat = 0;
  const auto print = [&](auto&& self, std::size_t axis) -> std::string {
    if (axis == rank()) return number(flat);
    Dims rest;
    for (std::size_t i = axis + 1; i < rank(); ++i) rest.push_back(shape_[i]);
    const std::int64_t step = count(rest);
    const std::int64_t start = flat;
    const std::string between = axis + 1 == rank() ? ", " : ",\n" + std::string(axis + 1, ' ');
    std::string out = "[";
    for (std::int64_t i = 0; i < shape_[axis]; ++i) {
      if (i > 0) out += between;
      if (size_ > 1000 && shape_[axis] > 2 * edge + 1 && i == edge) {
        out += "...";
        i = shape_[axis] - edge - 1;
        continue;
      }
      flat = start + i * step;
      out += self(self, axis + 1);
    }
    flat = start;
    return out + "]";
  };
  return print(print, 0);
}

namespace {

// float64 > float32 > int64 > int32 > uint8 > bool, but a scalar does not widen an array of its kind, nor one of
// floats.
DType common_dtype(const Array& a, const Array& b) {
  constexpr DType widest_first[] = {float64, float32, int64, int32, uint8, boolean};
  DType dtype = *std::find_if(std::begin(widest_first), std::end(widest_first),
                              [&](DType of) { return of == a.dtype() || of == b.dtype(); });
  const auto takes = [](const Array& array, const Array& scalar) {
    return array.rank() > 0 && scalar.rank() == 0 &&
           (is_floating(array.dtype()) || (is_integer(array.dtype()) && !is_floating(scalar.dtype())));
  };
  if (takes(a, b)) dtype = a.dtype();
  if (takes(b, a)) dtype = b.dtype();
  return dtype == boolean ? int64 : dtype;
}

// Calls f(ix, iy) for each element of an array of this shape, the last index running fastest, with the places of its
// operands' elements.
template <class F>
void for_each_pair(const Dims& dims, const Dims& x_strides, const Dims& y_strides, F f) {
  Dims index = Dims::filled(dims.rank(), 0);
  std::int64_t ix = 0;
  std::int64_t iy = 0;
  const std::int64_t size = count(dims);
  for (std::int64_t i = 0; i < size; ++i) {
    f(ix, iy);
    for (std::size_t axis = dims.rank(); axis-- > 0;) {
      ix += x_strides[axis];
      iy += y_strides[axis];
      if (++index[axis] < dims[axis]) break;
      ix -= x_strides[axis] * dims[axis];
      iy -= y_strides[axis] * dims[axis];
      index[axis] = 0;
    }
  }
}

template <class F>
Array combine(const Array& a, const Array& b, std::string_view op, F f) {
  Shape shape;
  if (!broadcast(to_shape(a.shape()), to_shape(b.shape()), shape))
    throw Error(
        op, fmt::format("requires shapes that broadcast, got {} and {}", to_string(a.shape()), to_string(b.shape())));
  DType dtype = common_dtype(a, b);
  if (op == "divide" && is_integer(dtype)) dtype = float64;
  const Array x = a.astype(dtype);
  const Array y = b.astype(dtype);
  const Dims dims = evaluate(shape, Sizes{});
  Array out(dtype, dims);
  visit_dtype(dtype, [&](auto t) {
    using T = decltype(t);
    // Unsigned numbers wrap around, which signed ones must not.
    using Computed = std::conditional_t<std::is_integral_v<T>, std::uint64_t, T>;
    if constexpr (!std::is_same_v<T, bool>) {
      const T* px = x.data<T>();
      const T* py = y.data<T>();
      T* to = out.data<T>();
      for_each_pair(dims, broadcast_strides(x.shape(), dims), broadcast_strides(y.shape(), dims),
                    [&](std::int64_t ix, std::int64_t iy) {
                      *to++ = static_cast<T>(f(static_cast<Computed>(px[ix]), static_cast<Computed>(py[iy])));
                    });
    }
  });
  return out;
}

}  // namespace

Array operator+(const Array& a, const Array& b) {
  return combine(a, b, "add", [](auto x, auto y) { return x + y; });
}
Array operator-(const Array& a, const Array& b) {
  return combine(a, b, "subtract", [](auto x, auto y) { return x - y; });
}
Array operator*(const Array& a, const Array& b) {
  return combine(a, b, "multiply", [](auto x, auto y) { return x * y; });
}
Array operator/(const Array& a, const Array& b) {
  return combine(a, b, "divide", [](auto x, auto y) { return x / y; });
}

bool allclose(const Array& a, const Array& b, double rtol, double atol) {
  if (!(a.shape() == b.shape())) return false;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const double x = a[i];
    const double y = b[i];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    if (!(std::abs(x - y) <= atol + rtol * std::abs(y)) || std::isinf(x) || std::isinf(y)) return false;
  }
  return true;
}

}  // namespace chainrule
