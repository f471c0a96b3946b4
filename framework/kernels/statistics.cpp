#include <chainrule/framework/kernels/statistics.hpp>

#include <algorithm>
#include <array>
#include <limits>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

namespace {

// Elements that are in the nearest cache when they are read again.
constexpr std::int64_t piece_elements = 4096;
// Shorter runs of one part are gathered, some in a piece.
constexpr std::int64_t short_run = 64;
constexpr std::int64_t gathered_elements = 1024;
// A larger part is cut into segments for threads, and a range of work has about so many elements.
constexpr std::int64_t segment_elements = 65'536;
constexpr std::int64_t range_elements = 16'384;

// How a part's elements, run after run, are cut into segments: by sizes alone.
struct Cut {
  Parts parts;
  std::int64_t elements;  // of a part
  std::int64_t segments;
  std::int64_t length;  // of a segment, but the last

  explicit Cut(const Parts& p) : parts(p), elements(p.outer * p.inner) {
    segments = elements <= 2 * segment_elements ? 1 : (elements + segment_elements - 1) / segment_elements;
    length = segments == 1 ? elements : segment_elements;
  }
  // Calls f(part, segment, begin, end) for each segment.
  template <class F>
  void for_each(const F& f) const {
    const std::int64_t grain = std::max<std::int64_t>(1, range_elements / std::max<std::int64_t>(1, length));
    parallel_for(parts.parts * segments, grain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const std::int64_t begin = i % segments * length;
        f(i / segments, i, begin, std::min(elements, begin + length));
      }
    });
  }
};

// Elements [begin, end) of a part in pieces of contiguous elements.
template <class T, std::size_t arrays>
class Pieces {
 public:
  // The arrays {outer, parts, inner}; each of null is left out.
  Pieces(const Parts& parts, std::array<const T*, arrays> from) : parts_(parts), from_(from) {}

  // Calls f(pieces of the arrays, n, where in its run the first is).
  template <class F>
  void for_each(std::int64_t part, std::int64_t begin, std::int64_t end, const F& f) {
    const std::int64_t n = parts_.inner;
    std::int64_t run = n == 0 ? 0 : begin / n;
    std::int64_t k = begin - run * n;
    if (n < short_run && parts_.outer > 1) return gather(part, run, k, end - begin, f);
    for (; begin < end; k = 0, ++run)
      for (; k < n && begin < end;) {
        const std::int64_t count = std::min({n - k, end - begin, piece_elements});
        std::array<const T*, arrays> at{};
        for (std::size_t i = 0; i < arrays; ++i) at[i] = from_[i] + (run * parts_.parts + part) * n + k;
        f(at, count, k);
        k += count;
        begin += count;
      }
  }

 private:
  // Short runs, copied one behind the other.
  template <class F>
  void gather(std::int64_t part, std::int64_t run, std::int64_t k, std::int64_t left, const F& f) {
    const std::int64_t n = parts_.inner;
    std::int64_t held = 0;
    std::int64_t first = k;
    const auto give = [&] {
      std::array<const T*, arrays> at{};
      for (std::size_t i = 0; i < arrays; ++i) at[i] = gathered_[i];
      f(at, held, first);
      held = 0;
    };
    for (; left > 0; k = 0, ++run) {
      const std::int64_t count = std::min(n - k, left);
      if (held + count > gathered_elements) {
        give();
        first = k;
      }
      for (std::size_t i = 0; i < arrays; ++i)
        std::copy_n(from_[i] + (run * parts_.parts + part) * n + k, count, gathered_[i] + held);
      held += count;
      left -= count;
    }
    if (held > 0) give();
  }

  Parts parts_;
  std::array<const T*, arrays> from_;
  T gathered_[arrays][gathered_elements];
};

// Mean and squared distances of some elements. The mean is kept as a distance from an element of its size, which
// float64 would else round to its last place.
struct Moments {
  double count = 0;
  double base = 0;
  double mean = 0;  // from base
  double squares = 0;

  void add(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0) {
      *this = other;
      return;
    }
    const double distance = (other.base - base) + other.mean - mean;
    const double total = count + other.count;
    const double share = other.count / total;
    mean += distance * share;
    squares += other.squares + distance * distance * count * share;
    count = total;
  }
};

template <class T>
Moments moments_of(const T* x, std::int64_t n) {
  const VectorTable<T>& t = table<T>();
  const auto size = static_cast<std::size_t>(n);
  const T center = t.sum(x, size) / static_cast<T>(n);
  T sums[2];
  t.centered_moments(x, size, center, sums);
  const auto count = static_cast<double>(n);
  const double rest = static_cast<double>(sums[0]) / count;  // what the center was rounded by
  const double squares = static_cast<double>(sums[1]) - rest * static_cast<double>(sums[0]);
  return {count, static_cast<double>(center), rest, squares < 0 ? 0.0 : squares};
}

template <class T>
void run_statistics(const Cut& cut, const T* x, Moments* of_segments, T* mean, T* variance) {
  const auto finish = [&](std::int64_t part, const Moments& m) {
    if (mean) mean[part] = static_cast<T>(m.count == 0 ? std::numeric_limits<double>::quiet_NaN() : m.base + m.mean);
    if (variance) variance[part] = static_cast<T>(m.squares / m.count);
  };
  cut.for_each([&](std::int64_t part, std::int64_t segment, std::int64_t begin, std::int64_t end) {
    Moments m;
    Pieces<T, 1>(cut.parts, {x}).for_each(part, begin, end, [&](const auto& at, std::int64_t n, std::int64_t) {
      m.add(moments_of(at[0], n));
    });
    if (cut.segments == 1) return finish(part, m);
    of_segments[segment] = m;
  });
  if (cut.segments == 1) return;
  for (std::int64_t part = 0; part < cut.parts.parts; ++part) {
    Moments m;
    for (std::int64_t s = 0; s < cut.segments; ++s) m.add(of_segments[part * cut.segments + s]);
    finish(part, m);
  }
}

struct Sums {
  double plain = 0;
  double centered = 0;
};

template <class T>
void run_centered_sums(const Cut& cut, const T* x, const T* dy, const T* center, const T* w, Sums* of_segments,
                       T* plain, T* centered) {
  const VectorTable<T>& t = table<T>();
  const auto finish = [&](std::int64_t part, const Sums& sums) {
    if (plain) plain[part] = static_cast<T>(sums.plain);
    if (centered) centered[part] = static_cast<T>(sums.centered);
  };
  cut.for_each([&](std::int64_t part, std::int64_t segment, std::int64_t begin, std::int64_t end) {
    Sums sums;
    Pieces<T, 2>(cut.parts, {x, dy}).for_each(part, begin, end, [&](const auto& at, std::int64_t n, std::int64_t k) {
      T both[2];
      t.centered_products(at[0], at[1], w ? w + k : nullptr, static_cast<std::size_t>(n), center[part], both);
      sums.plain += static_cast<double>(both[0]);
      sums.centered += static_cast<double>(both[1]);
    });
    if (cut.segments == 1) return finish(part, sums);
    of_segments[segment] = sums;
  });
  if (cut.segments == 1) return;
  for (std::int64_t part = 0; part < cut.parts.parts; ++part) {
    Sums sums;
    for (std::int64_t s = 0; s < cut.segments; ++s) {
      sums.plain += of_segments[part * cut.segments + s].plain;
      sums.centered += of_segments[part * cut.segments + s].centered;
    }
    finish(part, sums);
  }
}

template <class Segment>
std::size_t workspace_of(const Cut& cut) {
  return cut.segments == 1 ? 0 : static_cast<std::size_t>(cut.parts.parts * cut.segments) * sizeof(Segment);
}

}  // namespace

KernelRun make_statistics(DType dtype, const Parts& parts, std::size_t& workspace) {
  const Cut cut(parts);
  workspace = workspace_of<Moments>(cut);
  return visit_floating(dtype, [&](auto t) -> KernelRun {
    using T = decltype(t);
    return [cut](const KernelBuffers& b) {
      run_statistics(cut, static_cast<const T*>(b.inputs[0]), static_cast<Moments*>(b.workspace),
                     static_cast<T*>(b.outputs[0]), static_cast<T*>(b.outputs[1]));
    };
  });
}

KernelRun make_centered_sums(DType dtype, const Parts& parts, bool weighted, std::size_t& workspace) {
  const Cut cut(parts);
  workspace = workspace_of<Sums>(cut);
  return visit_floating(dtype, [&](auto t) -> KernelRun {
    using T = decltype(t);
    return [cut, weighted](const KernelBuffers& b) {
      const auto in = [&](std::size_t i) { return static_cast<const T*>(b.inputs[i]); };
      run_centered_sums(cut, in(0), in(1), in(2), weighted ? in(3) : nullptr, static_cast<Sums*>(b.workspace),
                        static_cast<T*>(b.outputs[0]), static_cast<T*>(b.outputs[1]));
    };
  });
}

}  // namespace chainrule::kernels
