// What convolutions are made of: tiles of sums of products in registers, and rows that are moved.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

#include <chainrule/framework/kernels/simd/batch.hpp>
#include <chainrule/framework/kernels/simd/machine.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

#define CHAINRULE_INLINE __attribute__((always_inline))

template <int n>
struct Index {
  static constexpr int value = n;
};

// f(Index<0>), f(Index<1>), ...: what is kept in registers is an array only for the compiler's eyes.
template <int n, class F>
CHAINRULE_INLINE inline void unrolled(F f) {
  [&]<int... I>(std::integer_sequence<int, I...>) CHAINRULE_INLINE { (f(Index<I>()), ...); }
  (std::make_integer_sequence<int, n>());
}

// a b + s, rounded once where the processor has that.
template <class T>
CHAINRULE_INLINE inline Batch<T> multiply_add(Batch<T> a, Batch<T> b, Batch<T> s) {
#if defined(__AVX2__)
  return Vectors<T>::fma(a, b, s);
#elif defined(__aarch64__)
  return xsimd::fma(a, b, s);
#else
  return a * b + s;
#endif
}

// A register that stays one: g++ would read memory for each of its uses instead, and loads are what is scarce.
template <class T>
CHAINRULE_INLINE inline Batch<T> held(Batch<T> x) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(x.data));
#elif defined(__x86_64__)
  __asm__("" : "+x"(x.data));
#endif
  return x;
}

template <class T>
constexpr std::int64_t lanes_of_vector = static_cast<std::int64_t>(width<T>);

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int most_rows = 13;
constexpr int most_lane_rows = 8;
constexpr int vectors_of(int rows) { return rows <= 4 ? 6 : rows <= 6 ? 4 : rows <= 8 ? 3 : 2; }
#else  // 16 registers
constexpr int most_rows = 6;
constexpr int most_lane_rows = 4;
constexpr int vectors_of(int rows) { return rows <= 2 ? 4 : rows <= 4 ? 3 : 2; }
#endif

// ---- sums of products

// Columns [q, q + vectors * width), or where `part` says so only the first `count` of one vector.
template <class T, int rows, int vectors, bool part>
CHAINRULE_INLINE inline void sums_at(const SumsOfProducts<T>& call, std::int64_t q, std::size_t count) {
  constexpr std::int64_t w = lanes_of_vector<T>;
  Batch<T> sums[rows][vectors];
  unrolled<rows>([&](auto i) CHAINRULE_INLINE {
    unrolled<vectors>([&](auto v) CHAINRULE_INLINE { sums[i.value][v.value] = Batch<T>(T(0)); });
  });
  const T* a = call.a;
  const T* const b = call.b + q;
  for (std::int64_t p = 0; p < call.terms; ++p, a += rows) {
    const T* const row = b + call.b_offsets[p];
    Batch<T> x[vectors];
    unrolled<vectors>(
        [&](auto v) CHAINRULE_INLINE { x[v.value] = part ? load_part(row, count, T(0)) : load(row + v.value * w); });
    unrolled<rows>([&](auto i) CHAINRULE_INLINE {
      const Batch<T> factor(a[i.value]);
      unrolled<vectors>([&](auto v) CHAINRULE_INLINE {
        sums[i.value][v.value] = multiply_add<T>(factor, x[v.value], sums[i.value][v.value]);
      });
    });
  }
  unrolled<rows>([&](auto i) CHAINRULE_INLINE {
    T* const to = call.c + call.c_offsets[i.value] + q;
    unrolled<vectors>([&](auto v) CHAINRULE_INLINE {
      Batch<T> sum = sums[i.value][v.value];
      if constexpr (part) {
        if (call.adds) sum = load_part(to, count, T(0)) + sum;
        store_part<T>(sum, to, count);
      } else {
        if (call.adds) sum = load(to + v.value * w) + sum;
        sum.store_unaligned(to + v.value * w);
      }
    });
  });
}

template <class T, int rows>
void sums_of_products(const SumsOfProducts<T>& by_reference) {
  const SumsOfProducts<T> call = by_reference;  // which no store may change
  constexpr std::int64_t w = lanes_of_vector<T>;
  constexpr int vectors = vectors_of(rows);
  std::int64_t q = 0;
  for (; q + vectors * w <= call.columns; q += vectors * w) sums_at<T, rows, vectors, false>(call, q, 0);
  for (; q < call.columns; q += w) {
    const std::int64_t rest = call.columns - q;
    sums_at<T, rows, 1, true>(call, q, static_cast<std::size_t>(rest < w ? rest : w));
  }
}

// ---- lanes of products

template <class T, int rows, int columns>
void lanes_of_products(const LanesOfProducts<T>& by_reference) {
  const LanesOfProducts<T> call = by_reference;
  constexpr std::int64_t w = lanes_of_vector<T>;
  constexpr std::int64_t lanes = WindowTable<T>::lanes;
  for (std::int64_t part = 0; part < lanes; part += w) {  // where vectors are shorter than the lanes
    Batch<T> sums[rows][columns];
    unrolled<rows>([&](auto i) CHAINRULE_INLINE {
      unrolled<columns>([&](auto j) CHAINRULE_INLINE { sums[i.value][j.value] = Batch<T>(T(0)); });
    });
    const T* b_rows[columns];
    unrolled<columns>([&](auto j) CHAINRULE_INLINE { b_rows[j.value] = call.b + call.b_offsets[j.value] + part; });
    const T* a_image = call.a + part;
    for (std::int64_t image = 0; image < call.images; ++image, a_image += call.a_image) {
      const std::int64_t b_image = image * call.b_image;
      const auto add = [&](std::int64_t q, auto load_at) CHAINRULE_INLINE {
        Batch<T> x[columns];
        unrolled<columns>([&](auto j)
                              CHAINRULE_INLINE { x[j.value] = held<T>(load_at(b_rows[j.value] + b_image + q)); });
        unrolled<rows>([&](auto i) CHAINRULE_INLINE {
          const Batch<T> factor = held<T>(load_at(a_image + i.value * call.a_row + q));
          unrolled<columns>([&](auto j) CHAINRULE_INLINE {
            sums[i.value][j.value] = multiply_add<T>(factor, x[j.value], sums[i.value][j.value]);
          });
        });
      };
      std::int64_t q = 0;
      for (; q + part + w <= call.columns; q += lanes) add(q, [](const T* p) CHAINRULE_INLINE { return load(p); });
      if (q + part < call.columns) {
        const auto count = static_cast<std::size_t>(call.columns - q - part);
        add(q, [count](const T* p) CHAINRULE_INLINE { return load_part(p, count, T(0)); });
      }
    }
    unrolled<rows>([&](auto i) CHAINRULE_INLINE {
      unrolled<columns>([&](auto j) CHAINRULE_INLINE {
        T* const to = call.sums + (i.value * call.sums_row + j.value) * lanes + part;
        (load(to) + sums[i.value][j.value]).store_unaligned(to);
      });
    });
  }
}

// ---- rows

template <class T>
CHAINRULE_INLINE inline void zero(T* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = T(0);
}

template <class T>
void spread_rows(const SpreadRows<T>& call) {
  constexpr std::int64_t w = lanes_of_vector<T>;
  const std::int64_t n = call.end - call.begin;
  const T* from = call.from;
  T* to = call.to;
  for (std::int64_t row = 0; row < call.rows; ++row, from += call.from_row, to += call.to_row) {
    zero(to, call.begin);
    zero(to + call.end, call.columns - call.end);
    T* const at = to + call.begin;
    if (call.step != 1) {
      if (call.step == 2) {
        for (std::int64_t i = 0; i < n; ++i) at[i] = from[2 * i];
      } else {
        for (std::int64_t i = 0; i < n; ++i) at[i] = from[i * call.step];
      }
    } else if (n >= w) {
      for (std::int64_t i = 0; i + w <= n; i += w) load(from + i).store_unaligned(at + i);
      load(from + n - w).store_unaligned(at + n - w);
    } else if (n > 0) {
      store_part<T>(load_part(from, static_cast<std::size_t>(n), T(0)), at, static_cast<std::size_t>(n));
    }
  }
}

template <class T>
void add_row(const T* from, std::int64_t n, T* to, std::int64_t step) {
  constexpr std::int64_t w = lanes_of_vector<T>;
  if (step != 1) {
    for (std::int64_t i = 0; i < n; ++i) to[i * step] += from[i];
    return;
  }
  std::int64_t i = 0;
  for (; i + w <= n; i += w) (load(to + i) + load(from + i)).store_unaligned(to + i);
  if (i == n) return;
  const auto count = static_cast<std::size_t>(n - i);
  store_part<T>(load_part(to + i, count, T(0)) + load_part(from + i, count, T(0)), to + i, count);
}

// ---- maxima

// p[0], p[step], ...: `count` of them, at most a vector.
template <class T>
CHAINRULE_INLINE inline Batch<T> load_strided(const T* p, std::int64_t step, std::size_t count) {
  constexpr std::size_t w = width<T>;
  if (step == 1) return count == w ? load(p) : load_part(p, count, T(0));
#if defined(__AVX512F__)
  if (step == 2) {
    const std::size_t all = 2 * count - 1;  // nothing behind the last is read
    const Batch<T> low = load_part(p, all < w ? all : w, T(0));
    const Batch<T> high = load_part(p + w, all < w ? 0 : all - w, T(0));
    if constexpr (single<T>) {
      const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
      return _mm512_permutex2var_ps(low, even, high);
    } else {
      return _mm512_permutex2var_pd(low, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), high);
    }
  }
#endif
  T gathered[w] = {};
  for (std::size_t i = 0; i < count; ++i) gathered[i] = p[static_cast<std::int64_t>(i) * step];
  return load(gathered);
}

template <class T>
CHAINRULE_INLINE inline void add_strided(Batch<T> x, T* p, std::int64_t step, std::size_t count) {
  constexpr std::size_t w = width<T>;
  if (step == 1) {
    store_part<T>(load_part(p, count, T(0)) + x, p, count);
    return;
  }
#if defined(__AVX512F__)
  if (step == 2) {
    const std::size_t all = 2 * count - 1;
    const std::size_t low = all < w ? all : w;
    const Batch<T> zeros(T(0));
    Batch<T> first;
    Batch<T> second;
    if constexpr (single<T>) {
      const __m512i places = _mm512_setr_epi32(0, 16, 1, 16, 2, 16, 3, 16, 4, 16, 5, 16, 6, 16, 7, 16);
      const __m512i others = _mm512_setr_epi32(8, 16, 9, 16, 10, 16, 11, 16, 12, 16, 13, 16, 14, 16, 15, 16);
      first = _mm512_permutex2var_ps(x, places, zeros);
      second = _mm512_permutex2var_ps(x, others, zeros);
    } else {
      first = _mm512_permutex2var_pd(x, _mm512_setr_epi64(0, 8, 1, 8, 2, 8, 3, 8), zeros);
      second = _mm512_permutex2var_pd(x, _mm512_setr_epi64(4, 8, 5, 8, 6, 8, 7, 8), zeros);
    }
    store_part<T>(load_part(p, low, T(0)) + first, p, low);
    if (all > w) store_part<T>(load_part(p + w, all - w, T(0)) + second, p + w, all - w);
    return;
  }
#endif
  T scattered[w];
  x.store_unaligned(scattered);
  for (std::size_t i = 0; i < count; ++i) p[static_cast<std::int64_t>(i) * step] += scattered[i];
}

// f(i, count) for each vector of n elements.
template <class T, class F>
CHAINRULE_INLINE inline void by_vectors(std::int64_t n, F f) {
  constexpr std::int64_t w = lanes_of_vector<T>;
  for (std::int64_t i = 0; i < n; i += w) f(i, static_cast<std::size_t>(n - i < w ? n - i : w));
}

template <class T>
void max_of_windows(const T* x, std::int64_t step, std::int64_t n, T* best) {
  by_vectors<T>(n, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
    const Batch<T> now = load_strided(x + i * step, step, count);
    const Batch<T> before = load_part(best + i, count, T(0));
    store_part<T>(xsimd::select((now > before) | xsimd::isnan(now), now, before), best + i, count);
  });
}

template <class T>
void scatter_to_maxima(const T* x, std::int64_t step, std::int64_t n, const T* best, T* rest, T* to) {
  const Batch<T> zeros(T(0));
  by_vectors<T>(n, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
    const Batch<T> now = load_strided(x + i * step, step, count);
    const auto found = (now == load_part(best + i, count, T(0))) | xsimd::isnan(now);
    const Batch<T> left = load_part(rest + i, count, T(0));
    add_strided<T>(xsimd::select(found, left, zeros), to + i * step, step, count);
    store_part<T>(xsimd::select(found, zeros, left), rest + i, count);
  });
}

template <class T>
void gather_from_maxima(const T* x, const T* from, std::int64_t step, std::int64_t n, const T* best, T* open, T* out) {
  const Batch<T> zeros(T(0));
  by_vectors<T>(n, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
    const Batch<T> now = load_strided(x + i * step, step, count);
    const Batch<T> left = load_part(open + i, count, T(0));
    const auto found = ((now == load_part(best + i, count, T(0))) | xsimd::isnan(now)) & (left > zeros);
    const Batch<T> there = load_strided(from + i * step, step, count);
    store_part<T>(xsimd::select(found, there, load_part(out + i, count, T(0))), out + i, count);
    store_part<T>(xsimd::select(found, zeros, left), open + i, count);
  });
}

}  // namespace

template <class T>
void fill_windows(VectorTable<T>& table) {
  WindowTable<T>& windows = table.windows;
  windows.rows = most_rows;
  unrolled<most_rows>([&](auto i) {
    constexpr int rows = decltype(i)::value + 1;
    windows.sums[rows] = sums_of_products<T, rows>;
    windows.columns[rows] = vectors_of(rows) * lanes_of_vector<T>;
  });
  windows.lane_rows = most_lane_rows;
  unrolled<most_lane_rows>([&](auto i) {
    constexpr int rows = decltype(i)::value + 1;
    windows.lane_sums[rows][1] = lanes_of_products<T, rows, 1>;
    windows.lane_sums[rows][2] = lanes_of_products<T, rows, 2>;
    windows.lane_sums[rows][3] = lanes_of_products<T, rows, 3>;
  });
  windows.spread = spread_rows<T>;
  windows.add = add_row<T>;
  windows.max = max_of_windows<T>;
  windows.max_scatter = scatter_to_maxima<T>;
  windows.max_gather = gather_from_maxima<T>;
}
template void fill_windows(VectorTable<float>& table);
template void fill_windows(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
