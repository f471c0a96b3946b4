#include <chainrule/framework/kernels/copy.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

namespace {

// Calls f with an unsigned integer of the element's size: moving bits needs no more of a dtype.
template <class F>
KernelRun by_size(std::size_t bytes, F&& f) {
  if (bytes == 1) return f(std::uint8_t{});
  if (bytes == 4) return f(std::uint32_t{});
  return f(std::uint64_t{});
}

// Drops extents of 1 and joins neighbours that are walked as one, so that the loops below are as few as can be.
void collapse(Dims& shape, Dims& a, Dims& b) {
  Dims out_shape;
  Dims out_a;
  Dims out_b;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 1) continue;
    if (!out_shape.empty() && out_a.back() == a[i] * shape[i] && out_b.back() == b[i] * shape[i]) {
      out_shape.back() *= shape[i];
      out_a.back() = a[i];
      out_b.back() = b[i];
    } else {
      out_shape.push_back(shape[i]);
      out_a.push_back(a[i]);
      out_b.push_back(b[i]);
    }
  }
  shape = out_shape;
  a = out_a;
  b = out_b;
}

// Elements that a part of the work moves, about.
constexpr std::int64_t part_elements = 32'768;
constexpr std::int64_t part_bytes = 262'144;
// Sides of the tiles of a transpose: so many lines and pages of either side that first-level caches hold them.
constexpr std::int64_t tile_side = 64;
// From so many bytes on a transpose is written past the caches, which would not keep it to its end.
constexpr std::size_t streamed_bytes = std::size_t{8} << 20;
// Below so many elements a transpose by vectors would mostly shuffle nothing.
constexpr std::int64_t fewest_transposed = 32;

void copy_bytes(void* to, const void* from, std::size_t bytes) {
  parallel_for(static_cast<std::int64_t>(bytes), part_bytes, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                static_cast<std::size_t>(end - begin));
  });
}

void zero_bytes(void* to, std::size_t bytes) {
  parallel_for(static_cast<std::int64_t>(bytes), part_bytes, [&](std::int64_t begin, std::int64_t end) {
    std::memset(static_cast<char*>(to) + begin, 0, static_cast<std::size_t>(end - begin));
  });
}

struct Axis {
  std::int64_t extent = 1;
  std::int64_t from = 0;  // strides
  std::int64_t to = 0;
  std::int64_t tile = 1;
  std::int64_t tiles = 1;
};

// to[i] = from[i], or with `adds` to[i] += from[i], over a shape, each with its own strides.
//
// Two axes are the rows and columns of a matrix, of which each index of the others has one. Matrices are cut into
// tiles, and these are shared out; no two of them have an element of `to` in common.
template <class T, bool adds = false>
class Moves {
 public:
  Moves(const Dims& shape, const Dims& from, const Dims& to) {
    choose_axes(shape, from, to);
    cut(count(shape));
  }

  void operator()(const T* from, T* to) const {
    parallel_for(matrices_ * rows_.tiles * columns_.tiles, grain_,
                 [&](std::int64_t begin, std::int64_t end) { run(from, to, begin, end); });
  }

 private:
  static constexpr std::size_t no_axis = ~std::size_t{0};

  static std::size_t contiguous(const Dims& shape, const Dims& strides) {
    for (std::size_t i = shape.rank(); i-- > 0;)
      if (strides[i] == 1 && shape[i] > 1) return i;
    return no_axis;
  }

  // Columns are contiguous in `to` where an axis is, and rows of a transpose in `from`.
  void choose_axes(const Dims& shape, const Dims& from, const Dims& to) {
    const std::size_t rank = shape.rank();
    const std::size_t in_from = contiguous(shape, from);
    const std::size_t in_to = contiguous(shape, to);
    transposes_ = in_from != no_axis && in_to != no_axis && in_from != in_to && from[in_to] > 0 && to[in_from] > 0 &&
                  shape[in_from] * shape[in_to] >= fewest_transposed;
    const std::size_t column = rank == 0 ? no_axis : in_to != no_axis ? in_to : rank - 1;
    const std::size_t row = transposes_ ? in_from : rank < 2 ? no_axis : column == rank - 1 ? rank - 2 : rank - 1;
    for (std::size_t i = 0; i < rank; ++i) {
      if (i == row || i == column) {
        Axis& axis = i == row ? rows_ : columns_;
        axis.extent = shape[i];
        axis.from = from[i];
        axis.to = to[i];
      } else {
        shape_.push_back(shape[i]);
        from_.push_back(from[i]);
        to_.push_back(to[i]);
        matrices_ *= shape[i];
      }
    }
  }

  void cut(std::int64_t size) {
    if (transposes_) {
      streams_ = static_cast<std::size_t>(size) * sizeof(T) >= streamed_bytes;
      rows_.tile = tile_side;
      columns_.tile = tile_side;
    } else {
      columns_.tile = std::min(columns_.extent, part_elements);
      rows_.tile = std::max<std::int64_t>(1, part_elements / 2 / std::max<std::int64_t>(1, columns_.tile));
    }
    std::int64_t elements = 1;
    for (Axis* axis : {&rows_, &columns_}) {
      axis->tile = std::clamp<std::int64_t>(axis->tile, 1, std::max<std::int64_t>(1, axis->extent));
      axis->tiles = (axis->extent + axis->tile - 1) / axis->tile;
      elements *= axis->tile;
    }
    grain_ = std::max<std::int64_t>(1, part_elements / elements);
  }

  // Tiles [begin, end). What is streamed is read along its lines, all else written along them.
  void run(const T* from, T* to, std::int64_t begin, std::int64_t end) const {
    const Axis& outer = streams_ ? columns_ : rows_;
    const Axis& inner = streams_ ? rows_ : columns_;
    std::int64_t i = begin % inner.tiles;
    std::int64_t o = begin / inner.tiles % outer.tiles;
    Dims index = Dims::filled(shape_.rank(), 0);
    std::int64_t rest = begin / inner.tiles / outer.tiles;
    for (std::size_t axis = shape_.rank(); axis-- > 0; rest /= shape_[axis]) {
      index[axis] = rest % shape_[axis];
      from += index[axis] * from_[axis];
      to += index[axis] * to_[axis];
    }
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const std::int64_t row = (streams_ ? i : o) * rows_.tile;
      const std::int64_t column = (streams_ ? o : i) * columns_.tile;
      run_tile(from + row * rows_.from + column * columns_.from, to + row * rows_.to + column * columns_.to,
               std::min(rows_.tile, rows_.extent - row), std::min(columns_.tile, columns_.extent - column));
      if (++i < inner.tiles) continue;
      i = 0;
      if (++o < outer.tiles) continue;
      o = 0;
      for (std::size_t axis = shape_.rank(); axis-- > 0;) {
        from += from_[axis];
        to += to_[axis];
        if (++index[axis] < shape_[axis]) break;
        from -= shape_[axis] * from_[axis];
        to -= shape_[axis] * to_[axis];
        index[axis] = 0;
      }
    }
  }

  void run_tile(const T* from, T* to, std::int64_t rows, std::int64_t columns) const {
    if constexpr (!adds && sizeof(T) >= sizeof(float)) {
      using Moved = std::conditional_t<sizeof(T) == sizeof(float), float, double>;  // bits pass unchanged
      if (transposes_) {
        table<Moved>().transpose(reinterpret_cast<const Moved*>(from), static_cast<std::size_t>(columns_.from),
                                 reinterpret_cast<Moved*>(to), static_cast<std::size_t>(rows_.to),
                                 static_cast<std::size_t>(rows), static_cast<std::size_t>(columns), streams_);
        return;
      }
    }
    for (std::int64_t i = 0; i < rows; ++i, from += rows_.from, to += rows_.to) run_row(from, to, columns);
  }

  void run_row(const T* from, T* to, std::int64_t n) const {
    const auto one = [](T& place, T value) { place = adds ? static_cast<T>(place + value) : value; };
    if (columns_.from != 1 || columns_.to != 1) {
      for (std::int64_t i = 0; i < n; ++i) one(to[i * columns_.to], from[i * columns_.from]);
    } else if (adds || n < 16) {
      for (std::int64_t i = 0; i < n; ++i) one(to[i], from[i]);
    } else {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
    }
  }

  Axis rows_;
  Axis columns_;
  bool transposes_ = false;
  bool streams_ = false;
  std::int64_t matrices_ = 1;
  Dims shape_;  // of the other axes
  Dims from_;
  Dims to_;
  std::int64_t grain_ = 1;
};

}  // namespace

Forward copy_elements() {
  Forward forward;
  forward.exact = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * size_of(call.output.dtype);
    return [bytes](const KernelBuffers& buffers) { copy_bytes(buffers.output, buffers.inputs[0], bytes); };
  };
  return forward;
}

Forward strided_copy(ViewOf view_of_input) {
  Forward forward;
  forward.exact = true;
  forward.kernel = [view_of_input = std::move(view_of_input)](KernelCall& call) -> KernelRun {
    Strided view = view_of_input(call);
    Dims shape = call.output.shape;
    if (count(shape) == 0) return [](const KernelBuffers&) {};
    Dims to = row_major_strides(shape);
    collapse(shape, view.strides, to);
    return by_size(size_of(call.output.dtype), [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [moves = Moves<T>(shape, view.strides, to), offset = view.offset](const KernelBuffers& buffers) {
        moves(static_cast<const T*>(buffers.inputs[0]) + offset, static_cast<T*>(buffers.output));
      };
    });
  };
  return forward;
}

Forward strided_scatter(ViewOf view_of_output) {
  Forward forward;
  forward.exact = true;
  forward.kernel = [view_of_output = std::move(view_of_output)](KernelCall& call) -> KernelRun {
    Strided view = view_of_output(call);
    Dims shape = call.inputs[0].shape;
    const bool nothing = count(shape) == 0;
    const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * size_of(call.output.dtype);
    Dims from = row_major_strides(shape);
    collapse(shape, from, view.strides);
    return by_size(size_of(call.output.dtype), [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [moves = Moves<T>(shape, from, view.strides), offset = view.offset, bytes,
              nothing](const KernelBuffers& buffers) {
        zero_bytes(buffers.output, bytes);
        if (!nothing) moves(static_cast<const T*>(buffers.inputs[0]), static_cast<T*>(buffers.output) + offset);
      };
    });
  };
  return forward;
}

Forward strided_add(ViewOf view_of_output) {
  Forward forward;
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.adds_to = 0;
  forward.kernel = [view_of_output = std::move(view_of_output)](KernelCall& call) -> KernelRun {
    Strided view = view_of_output(call);
    Dims shape = call.inputs[1].shape;
    const bool nothing = count(shape) == 0;
    const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * size_of(call.output.dtype);
    Dims from = row_major_strides(shape);
    collapse(shape, from, view.strides);
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [moves = Moves<T, true>(shape, from, view.strides), offset = view.offset, bytes,
              nothing](const KernelBuffers& buffers) {
        if (buffers.inputs[0] != buffers.output) copy_bytes(buffers.output, buffers.inputs[0], bytes);
        if (!nothing) moves(static_cast<const T*>(buffers.inputs[1]), static_cast<T*>(buffers.output) + offset);
      };
    });
  };
  return forward;
}

namespace {

// Arrays that lie side by side along attribute "axis" of another.
struct SideBySide {
  std::int64_t outer = 1;            // runs of each
  std::vector<std::int64_t> widths;  // bytes of a run
  std::int64_t width = 0;            // of all of them together

  SideBySide(const KernelCall& call, const std::vector<TensorType>& parts) {
    const auto axis = static_cast<std::size_t>(call.attributes.get<std::int64_t>("axis"));
    for (std::size_t i = 0; i < axis; ++i) outer *= parts[0].shape[i];
    for (const TensorType& part : parts) {
      auto bytes = static_cast<std::int64_t>(size_of(part.dtype));
      for (std::size_t i = axis; i < part.shape.rank(); ++i) bytes *= part.shape[i];
      widths.push_back(bytes);
      width += bytes;
    }
  }

  // Calls f(offset, part, offset there, bytes) for bytes [begin, end) of the larger array, run by run.
  template <class F>
  void each(std::int64_t begin, std::int64_t end, F f) const {
    std::int64_t row = begin / width;
    std::int64_t skip = begin % width;
    for (std::int64_t at = begin; at < end; ++row) {
      for (std::size_t i = 0; i < widths.size() && at < end; ++i) {
        if (skip >= widths[i]) {
          skip -= widths[i];
          continue;
        }
        const std::int64_t bytes = std::min(widths[i] - skip, end - at);
        f(at, i, row * widths[i] + skip, static_cast<std::size_t>(bytes));
        at += bytes;
        skip = 0;
      }
    }
  }
};

}  // namespace

Forward concat() {
  Forward forward;
  forward.exact = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    return [s = SideBySide(call, call.inputs)](const KernelBuffers& buffers) {
      auto* to = static_cast<char*>(buffers.output);
      parallel_for(s.outer * s.width, part_bytes, [&](std::int64_t begin, std::int64_t end) {
        s.each(begin, end, [&](std::int64_t at, std::size_t i, std::int64_t there, std::size_t bytes) {
          std::memcpy(to + at, static_cast<const char*>(buffers.inputs[i]) + there, bytes);
        });
      });
    };
  };
  return forward;
}

Forward split() {
  Forward forward;
  forward.exact = true;
  forward.skips_unread = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    return [s = SideBySide(call, call.outputs)](const KernelBuffers& buffers) {
      const auto* from = static_cast<const char*>(buffers.inputs[0]);
      parallel_for(s.outer * s.width, part_bytes, [&](std::int64_t begin, std::int64_t end) {
        s.each(begin, end, [&](std::int64_t at, std::size_t i, std::int64_t there, std::size_t bytes) {
          if (buffers.outputs[i]) std::memcpy(static_cast<char*>(buffers.outputs[i]) + there, from + at, bytes);
        });
      });
    };
  };
  return forward;
}

}  // namespace chainrule::kernels
