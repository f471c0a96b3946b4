#include <chainrule/framework/kernels/copy.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

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

// to[i] = from[i], or with `adds` to[i] += from[i], over a shape, each with its own strides.
template <bool adds = false, class T>
void move(const Dims& shape, const T* from, const Dims& from_strides, T* to, const Dims& to_strides) {
  const std::size_t rank = shape.rank();
  const auto one = [](T& place, T value) { place = adds ? place + value : value; };
  if (rank == 0) return one(*to, *from);
  const std::int64_t n = shape[rank - 1];
  const std::int64_t fs = from_strides[rank - 1];
  const std::int64_t ts = to_strides[rank - 1];
  if (rank == 1) {
    if (fs == 1 && ts == 1) {
      if constexpr (adds) {
        for (std::int64_t i = 0; i < n; ++i) to[i] += from[i];
      } else {
        std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
      }
    } else {
      for (std::int64_t i = 0; i < n; ++i) one(to[i * ts], from[i * fs]);
    }
    return;
  }
  if (rank == 2 && fs != 1 && ts == 1 && from_strides[0] == 1) {
    // A transposition: in blocks, so that both sides are read and written by whole cache lines.
    constexpr std::int64_t block = 16;
    for (std::int64_t i0 = 0; i0 < shape[0]; i0 += block)
      for (std::int64_t j0 = 0; j0 < n; j0 += block)
        for (std::int64_t i = i0; i < std::min(i0 + block, shape[0]); ++i)
          for (std::int64_t j = j0; j < std::min(j0 + block, n); ++j) one(to[i * to_strides[0] + j], from[i + j * fs]);
    return;
  }
  Dims rest_shape;
  Dims rest_from;
  Dims rest_to;
  for (std::size_t i = 1; i < rank; ++i) {
    rest_shape.push_back(shape[i]);
    rest_from.push_back(from_strides[i]);
    rest_to.push_back(to_strides[i]);
  }
  for (std::int64_t i = 0; i < shape[0]; ++i)
    move<adds>(rest_shape, from + i * from_strides[0], rest_from, to + i * to_strides[0], rest_to);
}

}  // namespace

Forward copy_elements() {
  Forward forward;
  forward.exact = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * size_of(call.output.dtype);
    return [bytes](const KernelBuffers& buffers) { std::memcpy(buffers.output, buffers.inputs[0], bytes); };
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
      return [shape, view, to](const KernelBuffers& buffers) {
        move(shape, static_cast<const T*>(buffers.inputs[0]) + view.offset, view.strides,
             static_cast<T*>(buffers.output), to);
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
      return [shape, view, from, bytes, nothing](const KernelBuffers& buffers) {
        std::memset(buffers.output, 0, bytes);
        if (!nothing)
          move(shape, static_cast<const T*>(buffers.inputs[0]), from, static_cast<T*>(buffers.output) + view.offset,
               view.strides);
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
      return [shape, view, from, bytes, nothing](const KernelBuffers& buffers) {
        if (buffers.inputs[0] != buffers.output) std::memcpy(buffers.output, buffers.inputs[0], bytes);
        if (!nothing)
          move<true>(shape, static_cast<const T*>(buffers.inputs[1]), from,
                     static_cast<T*>(buffers.output) + view.offset, view.strides);
      };
    });
  };
  return forward;
}

namespace {

// Arrays that lie side by side along attribute "axis" of another.
struct SideBySide {
  std::size_t outer = 1;            // runs of each
  std::vector<std::size_t> widths;  // bytes of a run

  SideBySide(const KernelCall& call, const std::vector<TensorType>& parts) {
    const auto axis = static_cast<std::size_t>(call.attributes.get<std::int64_t>("axis"));
    for (std::size_t i = 0; i < axis; ++i) outer *= static_cast<std::size_t>(parts[0].shape[i]);
    for (const TensorType& part : parts) {
      std::size_t bytes = size_of(part.dtype);
      for (std::size_t i = axis; i < part.shape.rank(); ++i) bytes *= static_cast<std::size_t>(part.shape[i]);
      widths.push_back(bytes);
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
      for (std::size_t o = 0; o < s.outer; ++o) {
        for (std::size_t i = 0; i < s.widths.size(); ++i) {
          std::memcpy(to, static_cast<const char*>(buffers.inputs[i]) + o * s.widths[i], s.widths[i]);
          to += s.widths[i];
        }
      }
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
      for (std::size_t o = 0; o < s.outer; ++o) {
        for (std::size_t i = 0; i < s.widths.size(); ++i) {
          if (buffers.outputs[i])
            std::memcpy(static_cast<char*>(buffers.outputs[i]) + o * s.widths[i], from, s.widths[i]);
          from += s.widths[i];
        }
      }
    };
  };
  return forward;
}

}  // namespace chainrule::kernels
