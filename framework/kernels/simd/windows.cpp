// What convolutions are made of: tiles of sums of products in registers, and rows that are moved.
#include <chainrule/framework/kernels/simd/tables.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <chainrule/framework/kernels/simd/batch.hpp>
#include <chainrule/framework/kernels/simd/machine.hpp>
#include <chainrule/framework/kernels/simd/unroll.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

template <int n>
using Index = std::integral_constant<int, n>;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool is_sanitized = true;
#elif defined(__has_feature)
constexpr bool is_sanitized = __has_feature(address_sanitizer);
#else
constexpr bool is_sanitized = false;
#endif

struct AnyIndex {
  int value;
};

// unrolled<n>(f) for places in arrays that registers hold. With sanitizers these are arrays to the compiler, too, as
// their checks of each unrolled access take minutes to compile.
template <int n, class F>
CHAINRULE_INLINE inline void for_registers(F f) {
  if constexpr (is_sanitized) {
    for (int i = 0; i < n; ++i) f(AnyIndex{i});
  } else {
    unrolled<n>(f);
  }
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
constexpr int most_place_rows = 8;
constexpr int most_place_vectors = 3;
constexpr int vectors_of(int rows) { return rows <= 4 ? 6 : rows <= 6 ? 4 : rows <= 8 ? 3 : 2; }
#else  // 16 registers
constexpr int most_rows = 6;
constexpr int most_lane_rows = 4;
constexpr int most_place_rows = 6;
constexpr int most_place_vectors = 2;
constexpr int vectors_of(int rows) { return rows <= 2 ? 4 : rows <= 4 ? 3 : 2; }
#endif

// ---- segments

enum class Layout { run, vectors, halves };

// f(Index<layout>) for the way in which vectors are made of segments.
template <class T, class F>
CHAINRULE_INLINE inline void with_layout(const Segments& segments, F f) {
  constexpr bool has_halves = sizeof(T) * width < T >> 32;
  if (segments.starts == nullptr) return f(Index<static_cast<int>(Layout::run)>());
  if (has_halves && !segments.in_pairs) return f(Index<static_cast<int>(Layout::halves)>());
  f(Index<static_cast<int>(Layout::vectors)>());
}

// A vector of elements that begin at q.
template <class T, Layout layout>
class PlaceOfVector {
 public:
  PlaceOfVector() = default;
  CHAINRULE_INLINE PlaceOfVector(const Segments& segments, std::int64_t q) {
    constexpr std::int64_t n = 32 / sizeof(T);
    if constexpr (layout == Layout::run) first_ = q;
    if constexpr (layout == Layout::vectors) first_ = segments.starts[q / n] + q % n;
    if constexpr (layout == Layout::halves) {
      first_ = segments.starts[q / n];
      second_ = segments.starts[q / n + 1];
    }
  }
  [[nodiscard]] CHAINRULE_INLINE Batch<T> load(const T* p) const {
#if defined(__AVX512F__)
    if constexpr (layout == Layout::halves) {
      if constexpr (single<T>) {
        const __m512 low = _mm512_castps256_ps512(_mm256_loadu_ps(p + first_));
        return _mm512_insertf32x8(low, _mm256_loadu_ps(p + second_), 1);
      } else {
        const __m512d low = _mm512_castpd256_pd512(_mm256_loadu_pd(p + first_));
        return _mm512_insertf64x4(low, _mm256_loadu_pd(p + second_), 1);
      }
    }
#endif
    return kernels::CHAINRULE_ARCH::load(p + first_);
  }
  // The first ones, which are no more than a segment where vectors are made of two.
  [[nodiscard]] CHAINRULE_INLINE Batch<T> load_first(const T* p, std::size_t count) const {
    return load_part(p + first_, count, T(0));
  }

 private:
  std::int64_t first_;
  std::int64_t second_;
};

// ---- sums of products

// Columns [q, q + vectors * width), or where `part` says so only the first `count` of one vector.
template <class T, int rows, int vectors, Layout layout, bool part>
CHAINRULE_INLINE inline void sums_at(const SumsOfProducts<T>& call, std::int64_t q, std::size_t count) {
  constexpr std::int64_t w = lanes_of_vector<T>;
  Batch<T> sums[rows][vectors];
  for_registers<rows>([&](auto i) CHAINRULE_INLINE {
    for_registers<vectors>([&](auto v) CHAINRULE_INLINE { sums[i.value][v.value] = Batch<T>(T(0)); });
  });
  const T* a = call.a;
  using Place = PlaceOfVector<T, layout>;
  Place places[vectors];
  for_registers<vectors>([&](auto v) CHAINRULE_INLINE {
    // Halves of a last vector are not known to be two.
    if constexpr (!part) places[v.value] = Place(call.b_segments, q + v.value * w);
  });
  const PlaceOfVector<T, layout == Layout::halves ? Layout::vectors : layout> place(call.b_segments, q);
  for (std::int64_t p = 0; p < call.terms; ++p, a += rows) {
    const T* const row = call.b + call.b_offsets[p];
    Batch<T> x[vectors];
    for_registers<vectors>(
        [&](auto v) CHAINRULE_INLINE { x[v.value] = part ? place.load_first(row, count) : places[v.value].load(row); });
    for_registers<rows>([&](auto i) CHAINRULE_INLINE {
      const Batch<T> factor(a[i.value]);
      for_registers<vectors>([&](auto v) CHAINRULE_INLINE {
        sums[i.value][v.value] = multiply_add<T>(factor, x[v.value], sums[i.value][v.value]);
      });
    });
  }
  for_registers<rows>([&](auto i) CHAINRULE_INLINE {
    T* const to = call.c + call.c_offsets[i.value] + q;
    for_registers<vectors>([&](auto v) CHAINRULE_INLINE {
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
  with_layout<T>(call.b_segments, [&](auto index) {
    constexpr auto layout = static_cast<Layout>(decltype(index)::value);
    std::int64_t q = 0;
    for (; q + vectors * w <= call.columns; q += vectors * w) sums_at<T, rows, vectors, layout, false>(call, q, 0);
    // Whole vectors of segments, as they cannot be told from parts by their first one.
    if constexpr (layout == Layout::halves)
      for (; q + w <= call.columns; q += w) sums_at<T, rows, 1, layout, false>(call, q, 0);
    for (; q < call.columns; q += w) {
      const std::int64_t rest = call.columns - q;
      sums_at<T, rows, 1, layout, true>(call, q, static_cast<std::size_t>(rest < w ? rest : w));
    }
  });
}

// ---- lanes of products

template <class T, int rows, int columns, Layout layout>
CHAINRULE_INLINE inline void lanes_in(const LanesOfProducts<T>& call) {
  constexpr std::int64_t w = lanes_of_vector<T>;
  constexpr std::int64_t lanes = WindowTable<T>::lanes;
  for (std::int64_t part = 0; part < lanes; part += w) {  // where vectors are shorter than the lanes
    Batch<T> sums[rows][columns];
    for_registers<rows>([&](auto i) CHAINRULE_INLINE {
      for_registers<columns>([&](auto j) CHAINRULE_INLINE { sums[i.value][j.value] = Batch<T>(T(0)); });
    });
    const T* b_rows[columns];
    for_registers<columns>([&](auto j) CHAINRULE_INLINE { b_rows[j.value] = call.b + call.b_offsets[j.value]; });
    const T* a_image = call.a + part;
    for (std::int64_t image = 0; image < call.images; ++image, a_image += call.a_image) {
      const std::int64_t b_image = image * call.b_image;
      const auto add = [&](std::int64_t q, auto load_a, auto load_b) CHAINRULE_INLINE {
        Batch<T> x[columns];
        for_registers<columns>([&](auto j)
                                   CHAINRULE_INLINE { x[j.value] = held<T>(load_b(b_rows[j.value] + b_image)); });
        for_registers<rows>([&](auto i) CHAINRULE_INLINE {
          const Batch<T> factor = held<T>(load_a(a_image + i.value * call.a_row + q));
          for_registers<columns>([&](auto j) CHAINRULE_INLINE {
            sums[i.value][j.value] = multiply_add<T>(factor, x[j.value], sums[i.value][j.value]);
          });
        });
      };
      std::int64_t q = 0;
      for (; q + part + w <= call.columns; q += lanes) {
        const PlaceOfVector<T, layout> place(call.b_segments, q + part);
        add(
            q, [](const T* p) CHAINRULE_INLINE { return load(p); },
            [&](const T* p) CHAINRULE_INLINE { return place.load(p); });
      }
      if (q + part < call.columns) {
        const auto count = static_cast<std::size_t>(call.columns - q - part);
        const PlaceOfVector<T, layout == Layout::halves ? Layout::vectors : layout> place(call.b_segments, q + part);
        add(
            q, [count](const T* p) CHAINRULE_INLINE { return load_part(p, count, T(0)); },
            [&](const T* p) CHAINRULE_INLINE { return place.load_first(p, count); });
      }
    }
    for_registers<rows>([&](auto i) CHAINRULE_INLINE {
      for_registers<columns>([&](auto j) CHAINRULE_INLINE {
        T* const to = call.sums + (i.value * call.sums_row + j.value) * lanes + part;
        (load(to) + sums[i.value][j.value]).store_unaligned(to);
      });
    });
  }
}

template <class T, int rows, int columns>
void lanes_of_products(const LanesOfProducts<T>& by_reference) {
  const LanesOfProducts<T> call = by_reference;
  with_layout<T>(call.b_segments,
                 [&](auto index) { lanes_in<T, rows, columns, static_cast<Layout>(decltype(index)::value)>(call); });
}

// ---- sums over places

template <class T, int rows, int vectors>
void sums_of_places(const SumsOfPlaces<T>& by_reference) {
  const SumsOfPlaces<T> call = by_reference;
  constexpr std::int64_t w = lanes_of_vector<T>;
  Batch<T> sums[rows][vectors];
  const T* a[rows];
  for_registers<rows>([&](auto i) CHAINRULE_INLINE {
    a[i.value] = call.a + call.a_offsets[i.value];
    for_registers<vectors>([&](auto v) CHAINRULE_INLINE { sums[i.value][v.value] = Batch<T>(T(0)); });
  });
  const T* b = call.b;
  for (std::int64_t line = 0; line < call.lines; ++line) {
    const std::int64_t begin = line * call.a_line;
    for (std::int64_t p = begin; p < begin + call.terms; ++p, b += call.b_row) {
      Batch<T> x[vectors];
      for_registers<vectors>([&](auto v) CHAINRULE_INLINE { x[v.value] = held<T>(load(b + v.value * w)); });
      for_registers<rows>([&](auto i) CHAINRULE_INLINE {
        const Batch<T> factor(a[i.value][p]);
        for_registers<vectors>([&](auto v) CHAINRULE_INLINE {
          sums[i.value][v.value] = multiply_add<T>(factor, x[v.value], sums[i.value][v.value]);
        });
      });
    }
  }
  for_registers<rows>([&](auto i) CHAINRULE_INLINE {
    T* const to = call.c + i.value * call.c_row;
    for_registers<vectors>([&](auto v) CHAINRULE_INLINE {
      (load(to + v.value * w) + sums[i.value][v.value]).store_unaligned(to + v.value * w);
    });
  });
}

// ---- rows

std::int64_t within(std::int64_t x, std::int64_t low, std::int64_t high) { return x < low ? low : x > high ? high : x; }

// Lanes [begin, end) of a vector: loads read no others, which are 0.
template <class T>
class SomeLanes {
 public:
  SomeLanes() = default;
  // Those whose places p, p + 1, ... lie in [first, last).
  static SomeLanes inside(std::int64_t p, std::int64_t first, std::int64_t last) {
    constexpr std::int64_t w = lanes_of_vector<T>;
    const std::int64_t begin = within(first - p, 0, w);
    return SomeLanes(begin, within(last - p, begin, w));
  }
#if defined(__AVX512F__)
  [[nodiscard]] CHAINRULE_INLINE Batch<T> load(const T* p) const {
    if constexpr (single<T>) {
      return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask_), p);
    } else {
      return _mm512_maskz_loadu_pd(static_cast<__mmask8>(mask_), p);
    }
  }
  CHAINRULE_INLINE void store(Batch<T> x, T* p) const {
    if constexpr (single<T>) {
      _mm512_mask_storeu_ps(p, static_cast<__mmask16>(mask_), x);
    } else {
      _mm512_mask_storeu_pd(p, static_cast<__mmask8>(mask_), x);
    }
  }
  // x in these lanes, y in the others.
  [[nodiscard]] CHAINRULE_INLINE Batch<T> select(Batch<T> x, Batch<T> y) const {
    if constexpr (single<T>) {
      return _mm512_mask_blend_ps(static_cast<__mmask16>(mask_), y, x);
    } else {
      return _mm512_mask_blend_pd(static_cast<__mmask8>(mask_), y, x);
    }
  }

 private:
  SomeLanes(std::int64_t begin, std::int64_t end) : mask_((1U << end) - (1U << begin)) {}
  unsigned mask_;
#elif defined(__AVX2__)
  [[nodiscard]] CHAINRULE_INLINE Batch<T> load(const T* p) const {
    if constexpr (single<T>) {
      return _mm256_maskload_ps(p, mask_);
    } else {
      return _mm256_maskload_pd(p, mask_);
    }
  }
  CHAINRULE_INLINE void store(Batch<T> x, T* p) const {
    if constexpr (single<T>) {
      _mm256_maskstore_ps(p, mask_, x);
    } else {
      _mm256_maskstore_pd(p, mask_, x);
    }
  }
  [[nodiscard]] CHAINRULE_INLINE Batch<T> select(Batch<T> x, Batch<T> y) const {
    if constexpr (single<T>) {
      return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(mask_));
    } else {
      return _mm256_blendv_pd(y, x, _mm256_castsi256_pd(mask_));
    }
  }

 private:
  SomeLanes(std::int64_t begin, std::int64_t end) {
    constexpr std::int64_t w = lanes_of_vector<T>;
    if constexpr (single<T>) {
      mask_ = _mm256_andnot_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask32 + w - begin)),
                                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask32 + w - end)));
    } else {
      mask_ = _mm256_andnot_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask64 + w - begin)),
                                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(part_mask64 + w - end)));
    }
  }
  __m256i mask_;
#else
  [[nodiscard]] CHAINRULE_INLINE Batch<T> load(const T* p) const {
    T lanes[width<T>] = {};
    for (std::int64_t i = begin_; i < end_; ++i) lanes[i] = p[i];
    return kernels::CHAINRULE_ARCH::load(lanes);
  }
  CHAINRULE_INLINE void store(Batch<T> x, T* p) const {
    T lanes[width<T>];
    x.store_unaligned(lanes);
    for (std::int64_t i = begin_; i < end_; ++i) p[i] = lanes[i];
  }
  [[nodiscard]] CHAINRULE_INLINE Batch<T> select(Batch<T> x, Batch<T> y) const {
    T from[width<T>];
    T lanes[width<T>];
    x.store_unaligned(from);
    y.store_unaligned(lanes);
    for (std::int64_t i = begin_; i < end_; ++i) lanes[i] = from[i];
    return kernels::CHAINRULE_ARCH::load(lanes);
  }

 private:
  SomeLanes(std::int64_t begin, std::int64_t end) : begin_(begin), end_(end) {}
  std::int64_t begin_;
  std::int64_t end_;
#endif
};

// f(i, count) for each vector of n elements.
template <class T, class F>
CHAINRULE_INLINE inline void by_vectors(std::int64_t n, F f) {
  constexpr std::int64_t w = lanes_of_vector<T>;
  for (std::int64_t i = 0; i < n; i += w) f(i, static_cast<std::size_t>(n - i < w ? n - i : w));
}

template <class T>
CHAINRULE_INLINE inline void store_first(Batch<T> x, T* to, std::size_t count) {
  if (count == width<T>) {
    x.store_unaligned(to);
  } else {
    store_part<T>(x, to, count);
  }
}

#if defined(__AVX2__)
// Every other element of two vectors.
template <class T>
CHAINRULE_INLINE inline Batch<T> even_elements(Batch<T> low, Batch<T> high) {
#if defined(__AVX512F__)
  if constexpr (single<T>) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(low, even, high);
  } else {
    return _mm512_permutex2var_pd(low, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), high);
  }
#else
  // In each half of a register, and then the quarters in order.
  if constexpr (single<T>) {
    const __m256 halves = _mm256_shuffle_ps(low, high, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(halves), 0xD8));
  } else {
    return _mm256_permute4x64_pd(_mm256_unpacklo_pd(low, high), 0xD8);
  }
#endif
}

// The others.
template <class T>
CHAINRULE_INLINE inline Batch<T> odd_elements(Batch<T> low, Batch<T> high) {
#if defined(__AVX512F__)
  if constexpr (single<T>) {
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(low, odd, high);
  } else {
    return _mm512_permutex2var_pd(low, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), high);
  }
#else
  if constexpr (single<T>) {
    const __m256 halves = _mm256_shuffle_ps(low, high, 0xDD);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(halves), 0xD8));
  } else {
    return _mm256_permute4x64_pd(_mm256_unpackhi_pd(low, high), 0xD8);
  }
#endif
}
#endif

// Vector by vector, each for all rows: which of its lanes are of the row is the same for all of them.
template <class T>
void spread_rows(const SpreadRows<T>& by_reference) {
  const SpreadRows<T> call = by_reference;
  if (call.step == 1) {
    by_vectors<T>(call.columns, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
      const auto lanes = SomeLanes<T>::inside(i, call.begin, call.end);
      const T* from = call.from + (i - call.begin);
      T* to = call.to + i;
      for (std::int64_t row = 0; row < call.rows; ++row, from += call.from_row, to += call.to_row)
        store_first<T>(lanes.load(from), to, count);
    });
    return;
  }
#if defined(__AVX2__)
  if (call.step == 2) {
    constexpr std::int64_t w = lanes_of_vector<T>;
    const std::int64_t end = 2 * (call.end - call.begin) - 1;  // nothing behind the last element is read
    by_vectors<T>(call.columns, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
      const std::int64_t place = 2 * (i - call.begin);
      const auto low = SomeLanes<T>::inside(place, 0, end);
      const auto high = SomeLanes<T>::inside(place + w, 0, end);
      const T* from = call.from + place;
      T* to = call.to + i;
      for (std::int64_t row = 0; row < call.rows; ++row, from += call.from_row, to += call.to_row)
        store_first<T>(even_elements<T>(low.load(from), high.load(from + w)), to, count);
    });
    return;
  }
#endif
  const T* from = call.from;
  T* to = call.to;
  for (std::int64_t row = 0; row < call.rows; ++row, from += call.from_row, to += call.to_row) {
    for (std::int64_t i = 0; i < call.begin; ++i) to[i] = T(0);
    for (std::int64_t i = call.begin; i < call.end; ++i) to[i] = from[(i - call.begin) * call.step];
    for (std::int64_t i = call.end; i < call.columns; ++i) to[i] = T(0);
  }
}

constexpr int most_taps = 16;

template <class T>
struct Tap {
  SomeLanes<T> lanes;
  const T* from;
};

// The taps whose elements for columns p, p + step, ... begin at q, of one remainder by the step.
template <class T>
CHAINRULE_INLINE inline int taps_of(const CollectedRows<T>& call, std::int64_t p, Tap<T>* taps) {
  int n = 0;
  for (std::int64_t s = 0; s < call.taps; ++s) {
    const std::int64_t place = p + call.before - s * call.dilation;
    if (place % call.step != 0) continue;
    const std::int64_t q = place / call.step;
    if (q + lanes_of_vector<T> <= call.first || q >= call.last) continue;
    taps[n++] = {SomeLanes<T>::inside(q, call.first, call.last), call.copies + s * call.copy + (q - call.first)};
  }
  return n;
}

template <class T>
CHAINRULE_INLINE inline Batch<T> sum_of(const Tap<T>* taps, int n, std::int64_t offset) {
  Batch<T> sum(T(0));
  for (int s = 0; s < n; ++s) sum = sum + taps[s].lanes.load(taps[s].from + offset);
  return sum;
}

template <class T>
void add_row(const T* from, std::int64_t n, T* to, std::int64_t step);

template <class T>
void collect_rows(const CollectedRows<T>& by_reference) {
  const CollectedRows<T> call = by_reference;
  const std::int64_t n = call.end - call.begin;
  if (call.step == 1 && call.taps <= most_taps) {
    by_vectors<T>(n, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
      Tap<T> taps[most_taps];
      const int found = taps_of(call, call.begin + i, taps);
      T* to = call.to + call.begin + i;
      for (std::int64_t row = 0; row < call.rows; ++row, to += call.to_row)
        store_first<T>(sum_of(taps, found, row * call.from_row), to, count);
    });
    return;
  }
#if defined(__AVX2__)
  if (call.step == 2 && call.taps <= most_taps) {
    constexpr std::int64_t w = lanes_of_vector<T>;
    by_vectors<T>((n + 1) / 2, [&](std::int64_t i, std::size_t) CHAINRULE_INLINE {
      Tap<T> taps[2 * most_taps];
      const int even = taps_of(call, call.begin + 2 * i, taps);
      const int odd = taps_of(call, call.begin + 2 * i + 1, taps + most_taps);
      T* to = call.to + call.begin + 2 * i;
      const std::int64_t left = n - 2 * i;
      const auto low = static_cast<std::size_t>(left < w ? left : w);
      const auto high = static_cast<std::size_t>(within(left - w, 0, w));
      for (std::int64_t row = 0; row < call.rows; ++row, to += call.to_row) {
        const Batch<T> a = sum_of(taps, even, row * call.from_row);
        const Batch<T> b = sum_of(taps + most_taps, odd, row * call.from_row);
        const Interleaved<T> both = interleave<T>(a, b);
        store_first<T>(both.low, to, low);
        if (high > 0) store_first<T>(both.high, to + w, high);
      }
    });
    return;
  }
#endif
  for (std::int64_t row = 0; row < call.rows; ++row) {
    T* const to = call.to + row * call.to_row;
    for (std::int64_t i = call.begin; i < call.end; ++i) to[i] = T(0);
    for (std::int64_t s = 0; s < call.taps; ++s) {
      // q * step + shift of [begin, end)
      const std::int64_t shift = s * call.dilation - call.before;
      const auto up = [&](std::int64_t x) { return x <= 0 ? -(-x / call.step) : (x - 1) / call.step + 1; };
      const std::int64_t first = within(up(call.begin - shift), call.first, call.last);
      const std::int64_t last = within(up(call.end - shift), first, call.last);
      add_row(call.copies + s * call.copy + row * call.from_row + (first - call.first), last - first,
              to + first * call.step + shift, call.step);
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
#if defined(__AVX2__)
  if (step == 2) {
    const std::size_t all = 2 * count - 1;  // nothing behind the last is read
    const Batch<T> low = load_part(p, all < w ? all : w, T(0));
    const Batch<T> high = load_part(p + w, all < w ? 0 : all - w, T(0));
    return even_elements<T>(low, high);
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
#if defined(__AVX2__)
  if (step == 2) {
    const std::size_t all = 2 * count - 1;
    const std::size_t low = all < w ? all : w;
    const Interleaved<T> spread = interleave<T>(x, Batch<T>(T(0)));
    store_part<T>(load_part(p, low, T(0)) + spread.low, p, low);
    if (all > w) store_part<T>(load_part(p + w, all - w, T(0)) + spread.high, p + w, all - w);
    return;
  }
#endif
  T scattered[w];
  x.store_unaligned(scattered);
  for (std::size_t i = 0; i < count; ++i) p[static_cast<std::int64_t>(i) * step] += scattered[i];
}

// A tap for a vector of outputs: which of them have it, and where its elements are. `step`: 0 is any.
template <class T, int step>
class TapOfVector {
 public:
  TapOfVector() = default;
  // For outputs i, i + 1, ...
  TapOfVector(const MaximaOfRows<T>& call, const WindowTap& tap, std::int64_t i)
      : outputs_(SomeLanes<T>::inside(i, tap.begin, tap.end)), offset_(tap.offset + i * call.step), step_(call.step) {
    constexpr std::int64_t w = lanes_of_vector<T>;
    begin_ = within(tap.begin - i, 0, w);
    end_ = within(tap.end - i, begin_, w);
    // Nothing before the first element is touched, and nothing behind the last.
    const std::int64_t last = end_ > begin_ ? 2 * end_ - 1 : 2 * begin_;
    low_ = SomeLanes<T>::inside(0, 2 * begin_, last);
    high_ = SomeLanes<T>::inside(w, 2 * begin_, last);
  }
  [[nodiscard]] const SomeLanes<T>& outputs() const { return outputs_; }

  // 0 of the outputs that do not have it.
  [[nodiscard]] CHAINRULE_INLINE Batch<T> load(const T* x) const {
    const T* const p = x + offset_;
    if constexpr (step == 1) return outputs_.load(p);
#if defined(__AVX2__)
    if constexpr (step == 2) return even_elements<T>(low_.load(p), high_.load(p + lanes_of_vector<T>));
#endif
    T lanes[width<T>] = {};
    for (std::int64_t i = begin_; i < end_; ++i) lanes[i] = p[i * step_];
    return kernels::CHAINRULE_ARCH::load(lanes);
  }
  // Where outputs have it.
  CHAINRULE_INLINE void add(Batch<T> x, T* to) const {
    T* const p = to + offset_;
    if constexpr (step == 1) {
      outputs_.store(outputs_.load(p) + x, p);
      return;
    }
#if defined(__AVX2__)
    if constexpr (step == 2) {
      constexpr std::int64_t w = lanes_of_vector<T>;
      const Interleaved<T> spread = interleave<T>(x, Batch<T>(T(0)));
      low_.store(low_.load(p) + spread.low, p);
      high_.store(high_.load(p + w) + spread.high, p + w);
      return;
    }
#endif
    T lanes[width<T>];
    x.store_unaligned(lanes);
    for (std::int64_t i = begin_; i < end_; ++i) p[i * step_] += lanes[i];
  }

 private:
  SomeLanes<T> outputs_;
  SomeLanes<T> low_;  // of the elements' two vectors, with a step of 2
  SomeLanes<T> high_;
  std::int64_t offset_;
  std::int64_t step_;
  std::int64_t begin_;
  std::int64_t end_;
};

// f(the taps, first output, number of outputs) for each vector of a row's outputs.
template <class T, int step, class F>
CHAINRULE_INLINE inline void by_taps(const MaximaOfRows<T>& call, F f) {
  by_vectors<T>(call.columns, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
    TapOfVector<T, step> taps[WindowTable<T>::most_window_taps];
    for (int t = 0; t < call.count; ++t) taps[t] = TapOfVector<T, step>(call, call.taps[t], i);
    f(taps, i, count);
  });
}

template <class T, int step>
CHAINRULE_INLINE inline Batch<T> greatest_of(const TapOfVector<T, step>* taps, int count, const T* x) {
  Batch<T> best(-std::numeric_limits<T>::infinity());
  for (int t = 0; t < count; ++t) {
    const Batch<T> now = taps[t].load(x);
    best = taps[t].outputs().select(maximum(now, best), best);
  }
  return best;
}

// f(Index<step>) with 0 for a step that there is no fast way for.
template <class F>
CHAINRULE_INLINE inline void with_step(std::int64_t step, F f) {
  if (step == 1) return f(Index<1>());
#if defined(__AVX2__)
  if (step == 2) return f(Index<2>());
#endif
  f(Index<0>());
}

#if defined(__AVX2__)
// The elements of two neighbouring taps for a vector of outputs, of which there may be fewer.
template <class T>
class PairOfTaps {
 public:
  explicit PairOfTaps(std::size_t outputs)
      : low_(SomeLanes<T>::inside(0, 0, 2 * static_cast<std::int64_t>(outputs))),
        high_(SomeLanes<T>::inside(lanes_of_vector<T>, 0, 2 * static_cast<std::int64_t>(outputs))) {}

  struct Both {
    Batch<T> first;
    Batch<T> second;
  };
  [[nodiscard]] CHAINRULE_INLINE Both load(const T* p) const {
    const Batch<T> a = low_.load(p);
    const Batch<T> b = high_.load(p + lanes_of_vector<T>);
    return {even_elements<T>(a, b), odd_elements<T>(a, b)};
  }
  CHAINRULE_INLINE void store(Batch<T> first, Batch<T> second, T* p) const {
    const Interleaved<T> both = interleave<T>(first, second);
    low_.store(both.low, p);
    high_.store(both.high, p + lanes_of_vector<T>);
  }
  [[nodiscard]] CHAINRULE_INLINE Batch<T> greatest(const MaximaOfRows<T>& call, const T* x) const {
    Batch<T> best(-std::numeric_limits<T>::infinity());
    for (int t = 0; t < call.count; t += 2) {
      const Both now = load(x + call.taps[t].offset);
      best = maximum(now.second, maximum(now.first, best));
    }
    return best;
  }

 private:
  SomeLanes<T> low_;
  SomeLanes<T> high_;
};

template <class T>
void scatter_in_pairs(const ScatterToMaxima<T>& by_reference) {
  const ScatterToMaxima<T> call = by_reference;
  const MaximaOfRows<T> windows = call.windows;
  const Batch<T> zeros(T(0));
  by_vectors<T>(windows.columns, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
    const PairOfTaps<T> pair(count);
    const auto outputs = SomeLanes<T>::inside(0, 0, static_cast<std::int64_t>(count));
    for (std::int64_t row = 0; row < windows.rows; ++row) {
      const std::int64_t at = row * windows.x_row + 2 * i;
      const Batch<T> best = pair.greatest(windows, windows.x + at);
      // As what is added to 0.
      Batch<T> rest = outputs.load(call.dy + row * windows.columns + i) + zeros;
      const auto share = [&](Batch<T> now) CHAINRULE_INLINE {
        const auto found = (now == best) | xsimd::isnan(now);
        const Batch<T> out = xsimd::select(found, rest, zeros);
        rest = xsimd::select(found, zeros, rest);
        return out;
      };
      for (int t = 0; t < windows.count; t += 2) {
        const std::int64_t place = at + windows.taps[t].offset;
        const auto now = pair.load(windows.x + place);
        const Batch<T> first = share(now.first);
        pair.store(first, share(now.second), call.dx + place);
      }
    }
  });
}
#endif

template <class T>
void maxima_of_rows(const MaximaOfRows<T>& by_reference) {
  const MaximaOfRows<T> call = by_reference;
#if defined(__AVX2__)
  if (call.in_pairs) {
    by_vectors<T>(call.columns, [&](std::int64_t i, std::size_t count) CHAINRULE_INLINE {
      const PairOfTaps<T> pair(count);
      for (std::int64_t row = 0; row < call.rows; ++row)
        store_first<T>(pair.greatest(call, call.x + row * call.x_row + 2 * i), call.y + row * call.columns + i, count);
    });
    return;
  }
#endif
  with_step(call.step, [&](auto step) {
    by_taps<T, step.value>(call, [&](const auto* taps, std::int64_t i, std::size_t count) CHAINRULE_INLINE {
      for (std::int64_t row = 0; row < call.rows; ++row)
        store_first<T>(greatest_of(taps, call.count, call.x + row * call.x_row), call.y + row * call.columns + i,
                       count);
    });
  });
}

template <class T>
void scatter_to_rows(const ScatterToMaxima<T>& by_reference) {
#if defined(__AVX2__)
  if (by_reference.writes) return scatter_in_pairs(by_reference);
#endif
  const ScatterToMaxima<T> call = by_reference;
  const MaximaOfRows<T> windows = call.windows;
  const Batch<T> zeros(T(0));
  with_step(windows.step, [&](auto step) {
    by_taps<T, step.value>(windows, [&](const auto* taps, std::int64_t i, std::size_t count) CHAINRULE_INLINE {
      for (std::int64_t row = 0; row < windows.rows; ++row) {
        const T* const x = windows.x + row * windows.x_row;
        T* const dx = call.dx + row * windows.x_row;
        const Batch<T> best = greatest_of(taps, windows.count, x);
        Batch<T> rest = load_part(call.dy + row * windows.columns + i, count, T(0));
        for (int t = 0; t < windows.count; ++t) {
          const Batch<T> now = taps[t].load(x);
          const auto found = (now == best) | xsimd::isnan(now);
          taps[t].add(xsimd::select(found, rest, zeros), dx);
          rest = taps[t].outputs().select(xsimd::select(found, zeros, rest), rest);
        }
      }
    });
  });
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
  windows.place_rows = most_place_rows;
  windows.place_vectors = most_place_vectors;
  windows.vector = lanes_of_vector<T>;
  unrolled<most_place_rows>([&](auto i) {
    unrolled<most_place_vectors>([&](auto v) {
      constexpr int rows = decltype(i)::value + 1;
      constexpr int vectors = decltype(v)::value + 1;
      windows.places[rows][vectors] = sums_of_places<T, rows, vectors>;
    });
  });
  windows.spread = spread_rows<T>;
  windows.collect = collect_rows<T>;
  windows.add = add_row<T>;
  windows.maxima = maxima_of_rows<T>;
  windows.scatter_to_maxima = scatter_to_rows<T>;
#if defined(__AVX2__)
  windows.can_write = true;
#else
  windows.can_write = false;
#endif
  windows.max = max_of_windows<T>;
  windows.max_scatter = scatter_to_maxima<T>;
  windows.max_gather = gather_from_maxima<T>;
}
template void fill_windows(VectorTable<float>& table);
template void fill_windows(VectorTable<double>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
