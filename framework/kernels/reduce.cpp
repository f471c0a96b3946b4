#include <chainrule/framework/kernels/reduce.hpp>

#include <algorithm>
#include <type_traits>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

namespace {

// Elements that a part of the work reads, about.
constexpr std::int64_t part_elements = 65'536;
// Columns of a part: rows of them are contiguous for long enough.
constexpr std::int64_t part_columns = 512;

// One group of neighbouring axes reduced: {outer, length, inner} -> {outer, inner}; or only in parts, of `rows` of
// length each, which another stage puts together: -> {outer, parts, inner}.
struct Stage {
  std::int64_t outer;
  std::int64_t length;
  std::int64_t inner;
  std::int64_t rows;
  std::int64_t parts;

  Stage(std::int64_t outer_extent, std::int64_t reduced, std::int64_t inner_extent)
      : outer(outer_extent),
        length(reduced),
        inner(inner_extent),
        rows(part_elements / std::clamp<std::int64_t>(inner_extent, 1, part_columns)) {
    if (length <= 2 * rows) rows = std::max<std::int64_t>(1, length);
    parts = length == 0 ? 1 : (length + rows - 1) / rows;
  }
  [[nodiscard]] std::int64_t results() const { return outer * parts * inner; }
};

// Calls lines(x, count, of y) for lines [x, x + count * length), or where inner is not 1
// rows(x, rows, columns, of y) for a block of rows whose stride is inner.
template <class Lines, class Rows>
void share_out(const Stage& s, const Lines& lines, const Rows& rows) {
  if (s.inner == 1 && s.parts == 1) {
    parallel_for(s.outer, std::max<std::int64_t>(1, part_elements / s.rows),
                 [&](std::int64_t begin, std::int64_t end) { lines(begin * s.length, end - begin, s.length, begin); });
    return;
  }
  const std::int64_t stripes = (s.inner + part_columns - 1) / part_columns;
  const std::int64_t grain =
      std::max<std::int64_t>(1, part_elements / std::max<std::int64_t>(1, s.rows * std::min(s.inner, part_columns)));
  parallel_for(s.outer * s.parts * stripes, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t block = i / stripes;
      const std::int64_t column = i % stripes * part_columns;
      const std::int64_t row = block % s.parts * s.rows;
      const std::int64_t from = (block / s.parts * s.length + row) * s.inner + column;
      const std::int64_t count = std::min(s.rows, s.length - row);
      if (s.inner == 1) {
        lines(from, 1, count, block);
      } else {
        rows(from, count, std::min(part_columns, s.inner - column), block * s.inner + column);
      }
    }
  });
}

template <class I>
I combine(Reduction kind, I a, I b) {
  if (kind == Reduction::sum) return static_cast<I>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  return kind == Reduction::max ? std::max(a, b) : std::min(a, b);
}

// Of integers; the result is of their own type or a wider one.
template <class From, class I>
void run_integer_stage(Reduction kind, const Stage& s, const From* x, I* y) {
  const auto one = [kind](const From* first, std::int64_t n, std::int64_t stride) {
    I held = n > 0 && kind != Reduction::sum ? first[0] : I{0};
    for (std::int64_t k = kind == Reduction::sum ? 0 : 1; k < n; ++k)
      held = combine(kind, held, static_cast<I>(first[k * stride]));
    return held;
  };
  share_out(
      s,
      [&](std::int64_t from, std::int64_t lines, std::int64_t n, std::int64_t to) {
        for (std::int64_t i = 0; i < lines; ++i) y[to + i] = one(x + from + i * n, n, 1);
      },
      [&](std::int64_t from, std::int64_t rows, std::int64_t columns, std::int64_t to) {
        for (std::int64_t j = 0; j < columns; ++j) y[to + j] = one(x + from + j, rows, s.inner);
      });
}

template <class From, class T>
void run_stage(Reduction kind, const Stage& s, const From* x, T* y) requires std::is_integral_v<T> {
  run_integer_stage(kind, s, x, y);
}
template <class T>
void run_stage(Reduction kind, const Stage& s, const T* x, T* y) requires std::is_floating_point_v<T> {
  const VectorTable<T>& t = table<T>();
  const auto of_lines = kind == Reduction::sum ? t.sum_lines : kind == Reduction::max ? t.max_lines : t.min_lines;
  const auto of_rows = kind == Reduction::sum   ? t.sum_part_of_rows
                       : kind == Reduction::max ? t.max_part_of_rows
                                                : t.min_part_of_rows;
  share_out(
      s,
      [&](std::int64_t from, std::int64_t lines, std::int64_t n, std::int64_t to) {
        of_lines(x + from, static_cast<std::size_t>(lines), static_cast<std::size_t>(n), y + to);
      },
      [&](std::int64_t from, std::int64_t rows, std::int64_t columns, std::int64_t to) {
        of_rows(x + from, static_cast<std::size_t>(s.inner), static_cast<std::size_t>(rows),
                static_cast<std::size_t>(columns), y + to);
      });
}

// Neighbouring axes of one kind are walked as one; the innermost group is reduced first, so that each stage has
// contiguous operands, and the next works on what is left.
std::vector<Stage> stages_of(const Dims& shape, const std::vector<char>& reduced) {
  struct Group {
    std::int64_t extent;
    bool reduced;
  };
  std::vector<Group> groups;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 1) continue;
    if (!groups.empty() && groups.back().reduced == (reduced[i] != 0)) {
      groups.back().extent *= shape[i];
    } else {
      groups.push_back({shape[i], reduced[i] != 0});
    }
  }
  std::vector<Stage> stages;
  std::int64_t inner = 1;
  for (std::size_t g = groups.size(); g-- > 0;) {
    if (!groups[g].reduced) {
      inner *= groups[g].extent;
      continue;
    }
    std::int64_t outer = 1;
    for (std::size_t i = 0; i < g; ++i) outer *= groups[i].extent;
    stages.emplace_back(outer, groups[g].extent, inner);
    while (stages.back().parts > 1) stages.emplace_back(outer, stages.back().parts, inner);
  }
  if (stages.empty()) stages.emplace_back(count(shape), 1, 1);
  return stages;
}

// ---- the index of the greatest

// Of `lines` lines, `apart` elements from each other, the index of the first greatest of n elements with `stride`
// between them.
template <class T>
void first_greatest(const T* x, std::int64_t lines, std::int64_t apart, std::int64_t n, std::int64_t stride,
                    std::int64_t* out) {
  for (std::int64_t i = 0; i < lines; ++i) {
    const T* line = x + i * apart;
    std::int64_t best = 0;
    for (std::int64_t k = 1; k < n; ++k) best = line[k * stride] > line[best * stride] ? k : best;
    out[i] = best;
  }
}

template <class T>
void run_argmax(const Stage& s, const T* x, std::int64_t* y) {
  share_out(
      s,
      [&](std::int64_t from, std::int64_t lines, std::int64_t n, std::int64_t to) {
        if constexpr (std::is_floating_point_v<T>) {
          table<T>().argmax_lines(x + from, static_cast<std::size_t>(lines), static_cast<std::size_t>(n), y + to);
        } else {
          first_greatest(x + from, lines, n, n, 1, y + to);
        }
      },
      [&](std::int64_t from, std::int64_t rows, std::int64_t columns, std::int64_t to) {
        if constexpr (std::is_floating_point_v<T>) {
          table<T>().argmax_part_of_rows(x + from, static_cast<std::size_t>(s.inner), static_cast<std::size_t>(rows),
                                         static_cast<std::size_t>(columns), y + to);
        } else {
          first_greatest(x + from, columns, 1, rows, s.inner, y + to);
        }
      });
}

// Of each line's parts the one with the first greatest or NaN of all.
template <class T>
void choose_part(const Stage& s, const T* x, const std::int64_t* of_parts, std::int64_t* y) {
  for (std::int64_t o = 0; o < s.outer; ++o) {
    for (std::int64_t i = 0; i < s.inner; ++i) {
      const T* line = x + o * s.length * s.inner + i;
      std::int64_t best = of_parts[o * s.parts * s.inner + i];
      for (std::int64_t part = 1; part < s.parts; ++part) {
        const std::int64_t at = part * s.rows + of_parts[(o * s.parts + part) * s.inner + i];
        const T held = line[best * s.inner];
        const T value = line[at * s.inner];
        if (value > held || (value != value && held == held)) best = at;
      }
      y[o * s.inner + i] = best;
    }
  }
}

}  // namespace

KernelRun make_reduction(Reduction kind, DType dtype, const Dims& shape, const std::vector<char>& reduced,
                         std::size_t& workspace) {
  const std::vector<Stage> stages = stages_of(shape, reduced);
  // Intermediate results alternate between the two halves of the workspace.
  std::int64_t largest = 0;
  for (std::size_t i = 0; i + 1 < stages.size(); ++i) largest = std::max(largest, stages[i].results());
  const bool widens = kind == Reduction::sum && is_integer(dtype);
  const std::size_t half = static_cast<std::size_t>(largest) * (widens ? sizeof(std::int64_t) : size_of(dtype));
  workspace = stages.size() > 2 ? 2 * half : half;

  const auto make = [&]<class From, class T>(From, T) -> KernelRun {
    return [kind, stages, half](const KernelBuffers& buffers) {
      const auto result_of = [&](std::size_t i) {
        return i + 1 == stages.size() ? static_cast<T*>(buffers.output)
                                      : reinterpret_cast<T*>(static_cast<char*>(buffers.workspace) + (i % 2) * half);
      };
      run_stage(kind, stages[0], static_cast<const From*>(buffers.inputs[0]), result_of(0));
      for (std::size_t i = 1; i < stages.size(); ++i) run_stage(kind, stages[i], result_of(i - 1), result_of(i));
    };
  };
  if (dtype == float32) return make(float{}, float{});
  if (dtype == float64) return make(double{}, double{});
  if (dtype == int64) return make(std::int64_t{}, std::int64_t{});
  if (dtype == int32) return widens ? make(std::int32_t{}, std::int64_t{}) : make(std::int32_t{}, std::int32_t{});
  return widens ? make(std::uint8_t{}, std::int64_t{}) : make(std::uint8_t{}, std::uint8_t{});
}

KernelRun make_argmax(DType dtype, const Lines& lines, std::size_t& workspace) {
  const Stage stage(lines.outer, lines.n, lines.inner);
  workspace = stage.parts > 1 ? static_cast<std::size_t>(stage.results()) * sizeof(std::int64_t) : 0;
  return visit_dtype(dtype, [&](auto t) -> KernelRun {
    using T = decltype(t);
    return [stage](const KernelBuffers& buffers) {
      const auto* x = static_cast<const T*>(buffers.inputs[0]);
      auto* y = static_cast<std::int64_t*>(buffers.output);
      if (stage.parts == 1) return run_argmax(stage, x, y);
      auto* of_parts = static_cast<std::int64_t*>(buffers.workspace);
      run_argmax(stage, x, of_parts);
      choose_part(stage, x, of_parts, y);
    };
  });
}

}  // namespace chainrule::kernels
