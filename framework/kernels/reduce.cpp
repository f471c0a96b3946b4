#include <chainrule/framework/kernels/reduce.hpp>

#include <algorithm>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

namespace {

// One group of neighbouring axes reduced: {outer, length, inner} -> {outer, inner}.
struct Stage {
  std::int64_t outer;
  std::int64_t length;
  std::int64_t inner;
};

std::int64_t combine(Reduction kind, std::int64_t a, std::int64_t b) {
  if (kind == Reduction::sum)
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  return kind == Reduction::max ? std::max(a, b) : std::min(a, b);
}

void run_stage(Reduction kind, const Stage& s, const std::int64_t* x, std::int64_t* y) {
  for (std::int64_t o = 0; o < s.outer; ++o) {
    for (std::int64_t i = 0; i < s.inner; ++i) {
      const std::int64_t* column = x + o * s.length * s.inner + i;
      std::int64_t held = s.length > 0 && kind != Reduction::sum ? column[0] : 0;
      for (std::int64_t k = kind == Reduction::sum ? 0 : 1; k < s.length; ++k)
        held = combine(kind, held, column[k * s.inner]);
      y[o * s.inner + i] = held;
    }
  }
}

template <class T>
void run_stage(Reduction kind, const Stage& s, const T* x, T* y) {
  const VectorTable<T>& t = table<T>();
  const auto length = static_cast<std::size_t>(s.length);
  const auto inner = static_cast<std::size_t>(s.inner);
  if (inner == 1) {
    const auto lines = kind == Reduction::sum ? t.sum_lines : kind == Reduction::max ? t.max_lines : t.min_lines;
    lines(x, static_cast<std::size_t>(s.outer), length, y);
    return;
  }
  const auto rows = kind == Reduction::sum ? t.sum_rows : kind == Reduction::max ? t.max_rows : t.min_rows;
  for (std::int64_t o = 0; o < s.outer; ++o) rows(x + o * s.length * s.inner, length, inner, y + o * s.inner);
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
    stages.push_back({outer, groups[g].extent, inner});
  }
  if (stages.empty()) stages.push_back({count(shape), 1, 1});
  return stages;
}

}  // namespace

KernelRun make_reduction(Reduction kind, DType dtype, const Dims& shape, const std::vector<char>& reduced,
                         std::size_t& workspace) {
  const std::vector<Stage> stages = stages_of(shape, reduced);
  // Intermediate results alternate between the two halves of the workspace.
  std::int64_t largest = 0;
  for (std::size_t i = 0; i + 1 < stages.size(); ++i) largest = std::max(largest, stages[i].outer * stages[i].inner);
  const std::size_t half = static_cast<std::size_t>(largest) * size_of(dtype);
  workspace = stages.size() > 2 ? 2 * half : half;

  const auto make = [&]<class T>(T) -> KernelRun {
    return [kind, stages, half](const KernelBuffers& buffers) {
      const T* from = static_cast<const T*>(buffers.inputs[0]);
      for (std::size_t i = 0; i < stages.size(); ++i) {
        T* to = i + 1 == stages.size() ? static_cast<T*>(buffers.output)
                                       : reinterpret_cast<T*>(static_cast<char*>(buffers.workspace) + (i % 2) * half);
        run_stage(kind, stages[i], from, to);
        from = to;
      }
    };
  };
  if (dtype == float32) return make(float{});
  if (dtype == float64) return make(double{});
  return make(std::int64_t{});
}

}  // namespace chainrule::kernels
