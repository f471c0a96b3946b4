#include <chainrule/framework/kernels/row_norm.hpp>

#include <algorithm>
#include <cmath>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/moments.hpp>

namespace chainrule::kernels {

namespace {

// Elements of a range of work, about, and the rows that are added up one after the other: few enough for what is lost,
// many enough that their sums are small beside them.
constexpr std::int64_t range_elements = 16'384;
constexpr std::int64_t fewest_rows = 16;
constexpr std::int64_t most_rows = 128;
constexpr std::int64_t range_columns = 512;

std::int64_t rows_of_range(const RowNorm& norm) {
  return std::max<std::int64_t>(1, range_elements / std::max<std::int64_t>(1, norm.columns));
}
std::int64_t rows_of_sum(const RowNorm& norm) { return std::clamp(rows_of_range(norm), fewest_rows, most_rows); }
// At least one, which of no rows is 0.
std::int64_t sums_of(const RowNorm& norm) {
  return std::max<std::int64_t>(1, (norm.rows + rows_of_sum(norm) - 1) / rows_of_sum(norm));
}

template <class F>
void for_pieces(std::int64_t columns, const F& f) {
  for (std::int64_t k = 0; k < columns; k += piece_elements) f(k, std::min(piece_elements, columns - k));
}

template <class T>
NormalizedRow<T> statistics_of(const RowNorm& norm, const T* x) {
  NormalizedRow<T> row{};
  double variance = 0;
  if (norm.centered) {
    Moments m;
    for_pieces(norm.columns, [&](std::int64_t k, std::int64_t n) { m.add(moments_of(x + k, n)); });
    row.center = static_cast<T>(m.base + m.mean);
    row.rest = static_cast<T>((m.base - static_cast<double>(row.center)) + m.mean);
    variance = m.squares / m.count;
  } else {
    for_pieces(norm.columns, [&](std::int64_t k, std::int64_t n) {
      T sums[2];
      table<T>().centered_moments(x + k, static_cast<std::size_t>(n), T(0), sums);
      variance += static_cast<double>(sums[1]);
    });
    variance /= static_cast<double>(norm.columns);
  }
  row.scale = static_cast<T>(1 / std::sqrt(variance + norm.epsilon));
  return row;
}

template <class T>
void run_row_norm(const RowNorm& norm, const T* x, const T* gamma, const T* beta, T* y) {
  parallel_for(norm.rows, rows_of_range(norm), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* row = x + i * norm.columns;
      table<T>().normalize(row, gamma, beta, static_cast<std::size_t>(norm.columns), statistics_of(norm, row),
                           y + i * norm.columns);
    }
  });
}

template <class T>
void gradient_of_row(const RowNorm& norm, const T* x, const T* dy, const T* gamma, T* dx, T* dgamma, T* dbeta) {
  const VectorTable<T>& t = table<T>();
  NormalizedRow<T> row = statistics_of(norm, x);
  if (dx) {
    double plain = 0;
    double centered = 0;
    for_pieces(norm.columns, [&](std::int64_t k, std::int64_t n) {
      T sums[2];
      t.centered_products(x + k, dy + k, gamma ? gamma + k : nullptr, static_cast<std::size_t>(n), row.center, sums);
      plain += static_cast<double>(sums[0]);
      centered += static_cast<double>(sums[1]);
    });
    const auto count = static_cast<double>(norm.columns);
    centered -= static_cast<double>(row.rest) * plain;
    row.along = static_cast<T>(static_cast<double>(row.scale) * centered / count);
    row.across = norm.centered ? static_cast<T>(plain / count) : T(0);
  }
  t.normalize_gradient(x, dy, gamma, static_cast<std::size_t>(norm.columns), row, dx, dgamma, dbeta);
}

// Sums over some rows each, `dgamma` of them behind each other and then `dbeta`, in the workspace.
template <class T>
void run_gradient(const RowNorm& norm, const T* x, const T* dy, const T* gamma, T* workspace, T* dx, T* dgamma,
                  T* dbeta) {
  const std::int64_t columns = norm.columns;
  const std::int64_t sums = sums_of(norm);
  T* const of_gamma = dgamma || dbeta ? workspace : nullptr;
  T* const of_beta = workspace + sums * columns;
  parallel_for(sums, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t s = begin; s < end; ++s) {
      T* const to_gamma = of_gamma ? of_gamma + s * columns : nullptr;
      T* const to_beta = of_gamma ? of_beta + s * columns : nullptr;
      if (of_gamma) {
        std::fill_n(to_gamma, columns, T(0));
        std::fill_n(to_beta, columns, T(0));
      }
      const std::int64_t last = std::min(norm.rows, (s + 1) * rows_of_sum(norm));
      for (std::int64_t i = s * rows_of_sum(norm); i < last; ++i)
        gradient_of_row(norm, x + i * columns, dy + i * columns, gamma, dx ? dx + i * columns : nullptr, to_gamma,
                        to_beta);
    }
  });
  if (!of_gamma) return;
  const std::int64_t grain = std::max(range_columns, range_elements / std::max<std::int64_t>(1, sums));
  parallel_for(columns, grain, [&](std::int64_t begin, std::int64_t end) {
    const auto add_up = [&](const T* from, T* to) {
      if (to)
        table<T>().sum_part_of_rows(from + begin, static_cast<std::size_t>(columns), static_cast<std::size_t>(sums),
                                    static_cast<std::size_t>(end - begin), to + begin);
    };
    add_up(of_gamma, dgamma);
    add_up(of_beta, dbeta);
  });
}

}  // namespace

KernelRun make_row_norm(DType dtype, const RowNorm& norm, std::size_t inputs) {
  return visit_floating(dtype, [&](auto t) -> KernelRun {
    using T = decltype(t);
    return [norm, inputs](const KernelBuffers& b) {
      const auto in = [&](std::size_t i) { return i < inputs ? static_cast<const T*>(b.inputs[i]) : nullptr; };
      run_row_norm(norm, in(0), in(1), in(2), static_cast<T*>(b.output));
    };
  });
}

KernelRun make_row_norm_gradient(DType dtype, const RowNorm& norm, bool weighted, std::size_t& workspace) {
  workspace = 2 * static_cast<std::size_t>(sums_of(norm) * norm.columns) * size_of(dtype);
  return visit_floating(dtype, [&](auto t) -> KernelRun {
    using T = decltype(t);
    return [norm, weighted](const KernelBuffers& b) {
      const auto in = [&](std::size_t i) { return static_cast<const T*>(b.inputs[i]); };
      const auto out = [&](std::size_t i) { return static_cast<T*>(b.outputs[i]); };
      run_gradient(norm, in(0), in(1), weighted ? in(2) : nullptr, static_cast<T*>(b.workspace), out(0), out(1),
                   out(2));
    };
  });
}

}  // namespace chainrule::kernels
