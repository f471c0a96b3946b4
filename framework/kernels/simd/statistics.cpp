// Sums for the statistics of normalizations and of their gradients, and rows that are normalized.
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
  Batch<T> a0(T(0));
  Batch<T> a1(T(0));
  Batch<T> a2(T(0));
  Batch<T> a3(T(0));
  Batch<T> b0(T(0));
  Batch<T> b1(T(0));
  Batch<T> b2(T(0));
  Batch<T> b3(T(0));
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
void centered_products(const T* x, const T* dy, const T* gamma, std::size_t n, T center, T* out) {
  const Batch<T> c(center);
  const auto plain = [&](std::size_t i, auto add) {
    const Batch<T> g = load(dy + i);
    add(g, g * (load(x + i) - c));
  };
  const auto weighted = [&](std::size_t i, auto add) {
    const Batch<T> g = load(gamma + i) * load(dy + i);
    add(g, g * (load(x + i) - c));
  };
  const auto last = [&](std::size_t i, std::size_t left, auto add) {
    Batch<T> g = load_part(dy + i, left, T(0));
    if (gamma) g = load_part(gamma + i, left, T(0)) * g;
    add(g, g * (load_part(x + i, left, center) - c));  // 0 beyond the last, NaN where it is NaN without
  };
  if (gamma) {
    two_sums<T>(n, weighted, last, out);
  } else {
    two_sums<T>(n, plain, last, out);
  }
}

// x, normalized.
template <class T>
class Normal {
 public:
  explicit Normal(const NormalizedRow<T>& row) : center_(row.center), rest_(row.rest), scale_(row.scale) {}
  Batch<T> operator()(Batch<T> x) const { return ((x - center_) - rest_) * scale_; }

 private:
  Batch<T> center_;
  Batch<T> rest_;
  Batch<T> scale_;
};

// body(i, read, write) for whole vectors at i, and for the last elements.
template <class T, class Body>
void for_vectors(std::size_t n, Body body) {
  constexpr std::size_t w = width<T>;
  std::size_t i = 0;
  for (; i + w <= n; i += w)
    body(
        i, [](const T* p) { return load(p); }, [](Batch<T> value, T* p) { value.store_unaligned(p); });
  if (const std::size_t left = n - i; left > 0)
    body(
        i, [left](const T* p) { return load_part(p, left, T(0)); },
        [left](Batch<T> value, T* p) { store_part<T>(value, p, left); });
}

template <class T>
void normalize(const T* x, const T* gamma, const T* beta, std::size_t n, const NormalizedRow<T>& row, T* y) {
  const Normal<T> normal(row);
  if (beta) {
    for_vectors<T>(n, [&](std::size_t i, auto read, auto write) {
      write(read(gamma + i) * normal(read(x + i)) + read(beta + i), y + i);
    });
  } else if (gamma) {
    for_vectors<T>(n,
                   [&](std::size_t i, auto read, auto write) { write(read(gamma + i) * normal(read(x + i)), y + i); });
  } else {
    for_vectors<T>(n, [&](std::size_t i, auto read, auto write) { write(normal(read(x + i)), y + i); });
  }
}

template <class T, bool weighted, bool slopes, bool sums>
void gradient_of_row(const T* x, const T* dy, const T* gamma, std::size_t n, const NormalizedRow<T>& row, T* dx,
                     T* dgamma, T* dbeta) {
  const Normal<T> normal(row);
  const Batch<T> scale(row.scale);
  const Batch<T> across(row.across);
  const Batch<T> along(row.along);
  for_vectors<T>(n, [&](std::size_t i, auto read, auto write) {
    const Batch<T> g = read(dy + i);
    const Batch<T> normalized = normal(read(x + i));
    if constexpr (sums) {
      write(read(dgamma + i) + g * normalized, dgamma + i);
      write(read(dbeta + i) + g, dbeta + i);
    }
    if constexpr (slopes) {
      Batch<T> weighed = g;
      if constexpr (weighted) weighed = read(gamma + i) * g;
      write(scale * ((weighed - across) - normalized * along), dx + i);
    }
  });
}

template <class T>
void normalize_gradient(const T* x, const T* dy, const T* gamma, std::size_t n, const NormalizedRow<T>& row, T* dx,
                        T* dgamma, T* dbeta) {
  const auto run = !dx     ? gradient_of_row<T, false, false, true>
                   : gamma ? (dgamma ? gradient_of_row<T, true, true, true> : gradient_of_row<T, true, true, false>)
                           : (dgamma ? gradient_of_row<T, false, true, true> : gradient_of_row<T, false, true, false>);
  run(x, dy, gamma, n, row, dx, dgamma, dbeta);
}

}  // namespace

template <class T>
void fill_statistics(VectorTable<T>& table) {
  table.centered_moments = centered_moments<T>;
  table.centered_products = centered_products<T>;
  table.normalize = normalize<T>;
  table.normalize_gradient = normalize_gradient<T>;
}
template void fill_statistics(VectorTable<float>& table);
template void fill_statistics(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
