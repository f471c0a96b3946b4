#include <chainrule/framework/fused/views.hpp>

#include <algorithm>
#include <type_traits>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::detail {

namespace {

template <class From, class T>
void load_elements(const View& view, const From* from, std::int64_t begin, std::int64_t n, T* out) {
  Dims index = Dims::filled(view.shape.rank(), 0);
  std::int64_t offset = 0;
  std::int64_t rest = begin;
  for (std::size_t axis = view.shape.rank(); axis-- > 0;) {
    index[axis] = rest % view.shape[axis];
    rest /= view.shape[axis];
    offset += index[axis] * view.strides[axis];
  }
  const std::size_t last = view.shape.rank() - 1;
  const std::int64_t stride = view.strides[last];
  while (n > 0) {
    const std::int64_t run = std::min(n, view.shape[last] - index[last]);
    if (stride == 0) {
      std::fill_n(out, run, cast_number<T>(from[offset]));
    } else if (stride == 1) {  // in vectors
      for (std::int64_t i = 0; i < run; ++i) out[i] = cast_number<T>(from[offset + i]);
    } else {
      for (std::int64_t i = 0; i < run; ++i) out[i] = cast_number<T>(from[offset + i * stride]);
    }
    out += run;
    n -= run;
    offset += run * stride;
    index[last] += run;
    if (n == 0) return;
    for (std::size_t axis = last; index[axis] == view.shape[axis]; --axis) {  // carry
      offset -= index[axis] * view.strides[axis];
      index[axis] = 0;
      if (axis == 0) return;
      ++index[axis - 1];
      offset += view.strides[axis - 1];
    }
  }
}

// The same; of many short rows that are alike, or each of one number, faster.
template <class From, class T>
void load_view(const View& view, const From* from, std::int64_t begin, std::int64_t n, T* out) {
  const std::int64_t columns = view.shape.back();
  if (view.shape.rank() != 2 || n < 2 * columns) return load_elements(view, from, begin, n, out);
  if (view.strides[0] == 0) {
    load_elements(view, from, begin, columns, out);
    for (std::int64_t done = columns; done < n; done *= 2) std::copy_n(out, std::min(done, n - done), out + done);
    return;
  }
  if constexpr (std::is_same_v<From, T> && std::is_floating_point_v<T>) {
    if (view.strides[0] == 1 && view.strides[1] == 0) {
      const std::int64_t head = (columns - begin % columns) % columns;
      const std::int64_t first = (begin + head) / columns;
      const std::int64_t rows = (n - head) / columns;
      std::fill_n(out, head, from[begin / columns]);
      kernels::table<T>().repeat(from + first, static_cast<std::size_t>(rows), static_cast<std::size_t>(columns),
                                 out + head);
      const std::int64_t done = head + rows * columns;
      if (done < n) std::fill_n(out + done, n - done, from[first + rows]);
      return;
    }
  }
  load_elements(view, from, begin, n, out);
}

}  // namespace

Load load_of(DType from, DType to) {
  Load load = nullptr;
  visit_dtype(from, [&](auto f) {
    visit_dtype(to, [&](auto t) {
      using F = decltype(f);
      using T = decltype(t);
      if constexpr (!std::is_same_v<T, bool>)
        load = [](const View& view, const void* source, std::int64_t begin, std::int64_t n, void* out) {
          load_view(view, static_cast<const F*>(source), begin, n, static_cast<T*>(out));
        };
    });
  });
  return load;
}

void collapse(Dims& shape, std::vector<Dims>& strides, bool keep_last) {
  Dims joined;
  std::vector<Dims> joined_strides(strides.size());
  for (std::size_t axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 1) continue;
    const bool join = !joined.empty() && !(keep_last && axis + 1 == shape.rank()) && [&] {
      for (std::size_t v = 0; v < strides.size(); ++v)
        if (joined_strides[v].back() != strides[v][axis] * shape[axis]) return false;
      return true;
    }();
    if (join) {
      joined.back() *= shape[axis];
      for (std::size_t v = 0; v < strides.size(); ++v) joined_strides[v].back() = strides[v][axis];
    } else {
      joined.push_back(shape[axis]);
      for (std::size_t v = 0; v < strides.size(); ++v) joined_strides[v].push_back(strides[v][axis]);
    }
  }
  if (joined.empty()) {
    joined.push_back(1);
    for (auto& s : joined_strides) s.push_back(0);
  }
  shape = joined;
  strides = joined_strides;
}

}  // namespace chainrule::detail
