#include <chainrule/framework/kernels/softmax.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/elementwise.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

namespace {

constexpr std::int64_t part_elements = 16'384;  // worth another thread's while
constexpr std::int64_t most_at_once = 64;       // lines
constexpr std::int64_t cached_elements = 4096;  // of those at once, for which the first cache has room
// From so many bytes on results are written past the caches, which would not keep them to their end.
constexpr std::size_t streamed_bytes = std::size_t{8} << 20;

// Lines `first` to `first + count`, at most most_at_once, of one outer block where the axis is not the last.
class SomeLines {
 public:
  SomeLines(const Lines& lines, std::int64_t first, std::int64_t count)
      : lines_(lines),
        first_(first),
        count_(count),
        begin_(first / lines.inner * lines.n * lines.inner + first % lines.inner) {}

  [[nodiscard]] std::int64_t first() const { return first_; }
  [[nodiscard]] std::int64_t count() const { return count_; }
  // Element k of the line with this number from the first on.
  [[nodiscard]] std::int64_t element(std::int64_t line, std::int64_t k) const {
    return lines_.inner == 1 ? begin_ + line * lines_.n + k : begin_ + k * lines_.inner + line;
  }

  // Whether all elements of a line are -inf.
  template <class T>
  [[nodiscard]] bool is_nowhere(const T* x, std::int64_t line) const {
    std::int64_t k = 0;
    while (k < lines_.n && x[element(line, k)] == -std::numeric_limits<T>::infinity()) ++k;
    return k == lines_.n;
  }

  template <class T>
  void exp_sum(const T* x, T* greatest, T* total) const {
    if (lines_.inner == 1)
      table<T>().exp_sum_lines(x + begin_, size(count_), size(lines_.n), greatest, total);
    else
      table<T>().exp_sum_rows(x + begin_, size(lines_.inner), size(lines_.n), size(count_), greatest, total);
  }
  template <class T>
  void exp(const T* x, const T* greatest, const T* factor, T* out) const {
    if (lines_.inner == 1)
      table<T>().exp_lines(x + begin_, size(count_), size(lines_.n), greatest, factor, out + begin_, streams<T>());
    else
      table<T>().exp_rows(x + begin_, size(lines_.inner), size(lines_.n), size(count_), greatest, factor, out + begin_);
  }
  template <class T>
  void shift(const T* x, const T* a, const T* b, T* out) const {
    if (lines_.inner == 1)
      table<T>().shift_lines(x + begin_, size(count_), size(lines_.n), a, b, out + begin_, streams<T>());
    else
      table<T>().shift_rows(x + begin_, size(lines_.inner), size(lines_.n), size(count_), a, b, out + begin_);
  }

 private:
  static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
  template <class T>
  [[nodiscard]] bool streams() const {
    return size(lines_.outer * lines_.n) * sizeof(T) >= streamed_bytes;
  }

  const Lines& lines_;
  std::int64_t first_;
  std::int64_t count_;
  std::int64_t begin_;
};

// Calls f with all lines, some at a time, on several threads.
template <class F>
void for_some_lines(const Lines& lines, F f) {
  const std::int64_t n = std::max<std::int64_t>(1, lines.n);
  const std::int64_t most =
      lines.inner == 1 ? std::clamp<std::int64_t>(cached_elements / n, 1, most_at_once) : most_at_once;
  const std::int64_t of_block = lines.inner == 1 ? lines.outer : lines.inner;
  const std::int64_t blocks = lines.inner == 1 ? 1 : lines.outer;
  const std::int64_t stripes = (of_block + most - 1) / most;
  const std::int64_t stripe_elements = n * std::min(most, std::max<std::int64_t>(1, of_block));
  parallel_for(blocks * stripes, std::max<std::int64_t>(1, part_elements / stripe_elements),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const std::int64_t within = i % stripes * most;
                   f(SomeLines(lines, i / stripes * of_block + within, std::min(most, of_block - within)));
                 }
               });
}

// What the exponentials of lines need.
template <class T>
struct Sums {
  T greatest[most_at_once];
  T total[most_at_once];

  Sums(const SomeLines& some, const T* x) { some.exp_sum(x, greatest, total); }
  // In the vector kernels' bits.
  void logarithms(std::int64_t count, T* out) const {
    table<T>().micro[static_cast<std::size_t>(Micro::log)][0](out, total, nullptr, nullptr,
                                                              static_cast<std::size_t>(count));
  }
};

}  // namespace

template <class T>
void softmax(const Lines& lines, const T* x, T* y) {
  for_some_lines(lines, [=](const SomeLines& some) {
    Sums<T> sums(some, x);
    for (std::int64_t i = 0; i < some.count(); ++i) sums.total[i] = T(1) / sums.total[i];
    some.exp(x, sums.greatest, sums.total, y);
  });
}

template <class T>
void attention_weights(const Lines& lines, std::int64_t queries, bool causal, const T* x, T* y) {
  for_some_lines(lines, [=](const SomeLines& some) {
    const T* scores = x;
    for (std::int64_t i = 0; causal && i < some.count(); ++i) {
      const std::int64_t seen = std::min((some.first() + i) % queries + 1, lines.n);
      T* line = y + some.element(i, 0);
      std::copy_n(x + some.element(i, 0), seen, line);
      std::fill_n(line + seen, lines.n - seen, -std::numeric_limits<T>::infinity());
      scores = y;
    }
    Sums<T> sums(some, scores);
    for (std::int64_t i = 0; i < some.count(); ++i) {
      sums.total[i] = T(1) / sums.total[i];
      if (!some.is_nowhere(scores, i)) continue;
      sums.greatest[i] = T(0);
      sums.total[i] = T(0);
    }
    some.exp(scores, sums.greatest, sums.total, y);
  });
}

template <class T>
void log_softmax(const Lines& lines, const T* x, T* y) {
  for_some_lines(lines, [=](const SomeLines& some) {
    const Sums<T> sums(some, x);
    T logarithms[most_at_once];
    sums.logarithms(some.count(), logarithms);
    some.shift(x, sums.greatest, logarithms, y);
  });
}

template <class T>
void class_costs(const Lines& lines, const ClassCosts<T>& costs) {
  for_some_lines(lines, [&](const SomeLines& some) {
    const Sums<T> sums(some, costs.z);
    const std::int64_t* classes = costs.classes + some.first();
    if (costs.cost) {
      T logarithms[most_at_once];
      sums.logarithms(some.count(), logarithms);
      // Not log(sum(exp(z))) - z of the class: the digits of a small cost would cancel.
      for (std::int64_t i = 0; i < some.count(); ++i)
        costs.cost[some.first() + i] = logarithms[i] - (costs.z[some.element(i, classes[i])] - sums.greatest[i]);
    }
    if (costs.slope) {
      const T* weight = costs.weight + some.first();
      T factors[most_at_once];
      for (std::int64_t i = 0; i < some.count(); ++i) factors[i] = weight[i] / sums.total[i];
      some.exp(costs.z, sums.greatest, factors, costs.slope);
      for (std::int64_t i = 0; i < some.count(); ++i) costs.slope[some.element(i, classes[i])] -= weight[i];
    }
  });
}

template void softmax(const Lines& lines, const float* x, float* y);
template void softmax(const Lines& lines, const double* x, double* y);
template void attention_weights(const Lines& lines, std::int64_t queries, bool causal, const float* x, float* y);
template void attention_weights(const Lines& lines, std::int64_t queries, bool causal, const double* x, double* y);
template void log_softmax(const Lines& lines, const float* x, float* y);
template void log_softmax(const Lines& lines, const double* x, double* y);
template void class_costs(const Lines& lines, const ClassCosts<float>& costs);
template void class_costs(const Lines& lines, const ClassCosts<double>& costs);

}  // namespace chainrule::kernels
