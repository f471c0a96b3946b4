// Sums for the statistics of normalizations, and of their gradients.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>

#include <chainrule/framework/kernels/simd/batch.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

template <class T>
struct Plus {
  static Batch<T> combine(Batch<T> a, Batch<T> b) { return a + b; }
  [[maybe_unused]] static T combine_one(T a, T b) { return a + b; }
};

// terms(i, add) calls add(a, b) with the two vectors of terms of elements i and on; last(i, left, add) with those of
// the last ones. Four pairs of sums, so that an addition need not wait for the one before.
template <class T, class Terms, class Last>
void two_sums(std::size_t n, Terms terms, Last last, T* out) {
  constexpr std::size_t w = width<T>;
  Batch<T> a0(T(0)), a1(T(0)), a2(T(0)), a3(T(0));
  Batch<T> b0(T(0)), b1(T(0)), b2(T(0)), b3(T(0));
  const auto onto = [](Batch<T>& a, Batch<T>& b) {
    return [&](Batch<T> x, Batch<T> y) {
      a = a + x;
      b = b + y;
    };
  };
  std::size_t i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    terms(i, onto(a0, b0));
    terms(i + w, onto(a1, b1));
    terms(i + 2 * w, onto(a2, b2));
    terms(i + 3 * w, onto(a3, b3));
  }
  for (; i + w <= n; i += w) terms(i, onto(a0, b0));
  if (i < n) last(i, n - i, onto(a1, b1));
  out[0] = across<T, Plus<T>>((a0 + a1) + (a2 + a3));
  out[1] = across<T, Plus<T>>((b0 + b1) + (b2 + b3));
}

template <class T>
void centered_moments(const T* x, std::size_t n, T center, T* out) {
  const Batch<T> c(center);
  two_sums<T>(
      n,
      [&](std::size_t i, auto add) {
        const Batch<T> d = load(x + i) - c;
        add(d, d * d);
      },
      [&](std::size_t i, std::size_t left, auto add) {
        const Batch<T> d = load_part(x + i, left, center) - c;  // 0 beyond the last, NaN for NaN
        add(d, d * d);
      },
      out);
}

template <class T>
void centered_products(const T* x, const T* dy, const T* w, std::size_t n, T center, T* out) {
  const Batch<T> c(center);
  const auto plain = [&](std::size_t i, auto add) {
    const Batch<T> g = load(dy + i);
    add(g, g * (load(x + i) - c));
  };
  const auto weighted = [&](std::size_t i, auto add) {
    const Batch<T> g = load(w + i) * load(dy + i);
    add(g, g * (load(x + i) - c));
  };
  // Beyond the last element everything is 0: with an infinite center 0 * inf would be NaN, which it is without, too.
  const auto last = [&](std::size_t i, std::size_t left, auto add) {
    Batch<T> g = load_part(dy + i, left, T(0));
    if (w) g = load_part(w + i, left, T(0)) * g;
    add(g, g * (load_part(x + i, left, center) - c));
  };
  if (w) {
    two_sums<T>(n, weighted, last, out);
  } else {
    two_sums<T>(n, plain, last, out);
  }
}

}  // namespace

template <class T>
void fill_statistics(VectorTable<T>& table) {
  table.centered_moments = centered_moments<T>;
  table.centered_products = centered_products<T>;
}
template void fill_statistics(VectorTable<float>& table);
template void fill_statistics(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
