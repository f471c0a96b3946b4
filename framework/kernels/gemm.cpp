#include <chainrule/framework/kernels/gemm.hpp>

#include <cblas.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string_view>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels {

namespace {

struct Gemm {
  CBLAS_TRANSPOSE ta;
  CBLAS_TRANSPOSE tb;
  int m;
  int n;
  int k;
  int lda;
  int ldb;
  int ldc;
  double alpha = 1;
  double beta = 0;
};

void gemm(const Gemm& g, const float* a, const float* b, float* c) {
  cblas_sgemm(CblasRowMajor, g.ta, g.tb, g.m, g.n, g.k, static_cast<float>(g.alpha), a, g.lda, b, g.ldb,
              static_cast<float>(g.beta), c, g.ldc);
}

void gemm(const Gemm& g, const double* a, const double* b, double* c) {
  cblas_dgemm(CblasRowMajor, g.ta, g.tb, g.m, g.n, g.k, g.alpha, a, g.lda, b, g.ldb, g.beta, c, g.ldc);
}

// ---- parts for threads

// Multiplications and additions from which a product is cut.
constexpr std::int64_t worth_cutting = 16'000'000;
// Each part packs the other operand anew, which shows where it has fewer rows or columns than this.
constexpr int long_part = 2048;
// Parts begin at multiples of this, so that they are aligned.
constexpr int part_unit = 64;

struct Parts {
  bool of_columns;
  int size;  // rows or columns of each but the last
  int count;
};

// Of OpenBLAS's kernels those for AVX-512 in float32 add up in the same order wherever a product is cut: so one thread
// need not cut it. (Tried on 2,300 products of random sizes; test_threads tries some more.)
template <class T>
bool same_when_cut() {
  if constexpr (sizeof(T) != sizeof(float)) return false;
  static const bool same = [] {
    const std::string_view core = openblas_get_corename();
    return core == "SkylakeX" || core == "Cooperlake";
  }();
  return same;
}

// The longer side of the product is cut. Other kernels add up in another order near the edge of what they are given, so
// the parts follow from the sizes alone, and one thread computes the same ones.
Parts cut(const Gemm& g) {
  const bool of_columns = g.n >= g.m;
  const int side = of_columns ? g.n : g.m;
  if (std::int64_t{g.m} * g.n * g.k < worth_cutting) return {of_columns, side, 1};
  const int parts = std::clamp(side / long_part, 2, 16);
  const int size = ((side + parts - 1) / parts + part_unit - 1) / part_unit * part_unit;
  return {of_columns, size, (side + size - 1) / size};
}

template <class T>
void gemm_in_parts(const Gemm& g, const T* a, const T* b, T* c) {
  const Parts parts = cut(g);
  if (parts.count <= 1 || (same_when_cut<T>() && num_threads() == 1)) return gemm(g, a, b, c);
  detail::parallel_for(static_cast<std::size_t>(parts.count), [&](std::size_t part, void*) {
    Gemm own = g;
    const int begin = static_cast<int>(part) * parts.size;
    if (parts.of_columns) {
      own.n = std::min(parts.size, g.n - begin);
      gemm(own, a, b + (g.tb == CblasTrans ? std::int64_t{begin} * g.ldb : begin), c + begin);
    } else {
      own.m = std::min(parts.size, g.m - begin);
      gemm(own, a + (g.ta == CblasTrans ? begin : std::int64_t{begin} * g.lda), b, c + std::int64_t{begin} * g.ldc);
    }
  });
}

// ---- A-times-B-transposed, small

// The AVX-512 kernels of OpenBLAS that take operands where they lie, up to a million multiplications, are slow where
// the second one is transposed. To transpose it first takes a quarter off: that costs n * k moves, against m * n * k
// multiplications. (Rows of 1 KB and more share cache sets, and are slow to transpose.)
constexpr std::int64_t most_of_small = 1'000'000;

bool has_slow_transposed() {
  static const bool slow = [] {
    const std::string_view core = openblas_get_corename();
    return core == "SkylakeX" || core == "Cooperlake" || core == "SapphireRapids";
  }();
  return slow;
}

bool transposes_first(const Gemm& g, std::size_t element) {
  const int least = element == sizeof(float) ? 32 : 64;
  const int most = element == sizeof(float) ? 128 : 64;
  return g.ta == CblasNoTrans && g.tb == CblasTrans && g.m >= 32 && g.n >= least && g.n <= 128 && g.k <= most &&
         std::int64_t{g.m} * g.n * g.k <= most_of_small && has_slow_transposed();
}

template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Type __attribute__((vector_size(16), aligned(4), may_alias));  // NOLINT: using takes no may_alias
};
template <>
struct Lanes<double> {
  typedef double Type __attribute__((vector_size(16), aligned(8), may_alias));  // NOLINT
};

// One block of 16 bytes by as many rows.
void transpose_block(const float* from, std::int64_t columns, float* to, std::int64_t rows) {
  using V = Lanes<float>::Type;
  const auto load = [&](std::int64_t i) { return *reinterpret_cast<const V*>(from + i * columns); };
  const auto store = [&](std::int64_t j, V v) { *reinterpret_cast<V*>(to + j * rows) = v; };
  const V a = load(0);
  const V b = load(1);
  const V c = load(2);
  const V d = load(3);
  const V ab = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const V cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const V ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const V cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  store(0, __builtin_shufflevector(ab, cd, 0, 1, 4, 5));
  store(1, __builtin_shufflevector(ab, cd, 2, 3, 6, 7));
  store(2, __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5));
  store(3, __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7));
}
void transpose_block(const double* from, std::int64_t columns, double* to, std::int64_t rows) {
  using V = Lanes<double>::Type;
  const V a = *reinterpret_cast<const V*>(from);
  const V b = *reinterpret_cast<const V*>(from + columns);
  *reinterpret_cast<V*>(to) = __builtin_shufflevector(a, b, 0, 2);
  *reinterpret_cast<V*>(to + rows) = __builtin_shufflevector(a, b, 1, 3);
}

// to[j, i] = from[i, j]
template <class T>
void transpose(const T* from, std::int64_t rows, std::int64_t columns, T* to) {
  constexpr std::int64_t lanes = 16 / sizeof(T);
  std::int64_t i = 0;
  for (; i + lanes <= rows; i += lanes) {
    std::int64_t j = 0;
    for (; j + lanes <= columns; j += lanes) transpose_block(from + i * columns + j, columns, to + j * rows + i, rows);
    for (; j < columns; ++j)
      for (std::int64_t k = 0; k < lanes; ++k) to[j * rows + i + k] = from[(i + k) * columns + j];
  }
  for (; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) to[j * rows + i] = from[i * columns + j];
}

int narrow(std::int64_t extent, const KernelCall& call) {
  if (extent > std::numeric_limits<int>::max())
    throw Error(call.at, call.op, fmt::format("requires extents below 2^31, got {}", extent));
  return static_cast<int>(extent);
}

// BLAS threads would split sums differently from one thread count to the next, and its spinning threads would fight
// with ours: products run on the calling thread.
void use_one_blas_thread() {
  static const bool once = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(once);
}

// The product of the last two axes.
Gemm gemm_of(const KernelCall& call) {
  const Dims& a = call.inputs[0].shape;
  const Dims& b = call.inputs[1].shape;
  const Dims& c = call.output.shape;
  const bool ta = call.attributes.get<bool>("transpose_a");
  const bool tb = call.attributes.get<bool>("transpose_b");
  return {ta ? CblasTrans : CblasNoTrans,
          tb ? CblasTrans : CblasNoTrans,
          narrow(c[c.rank() - 2], call),
          narrow(c.back(), call),
          narrow(a[a.rank() - (ta ? 2 : 1)], call),
          std::max(1, narrow(a.back(), call)),
          std::max(1, narrow(b.back(), call)),
          std::max(1, narrow(c.back(), call))};
}

// One product, of matrices that are not empty.
template <class T>
KernelRun run_gemm(const Gemm& g, KernelCall& call) {
  if (!transposes_first(g, sizeof(T)))
    return [g](const KernelBuffers& buffers) {
      gemm_in_parts(g, static_cast<const T*>(buffers.inputs[0]), static_cast<const T*>(buffers.inputs[1]),
                    static_cast<T*>(buffers.output));
    };
  call.workspace = static_cast<std::size_t>(g.n) * static_cast<std::size_t>(g.k) * sizeof(T);
  Gemm plain = g;
  plain.tb = CblasNoTrans;
  plain.ldb = g.n;
  return [plain](const KernelBuffers& buffers) {
    T* transposed = static_cast<T*>(buffers.workspace);
    transpose(static_cast<const T*>(buffers.inputs[1]), plain.n, plain.k, transposed);
    gemm(plain, static_cast<const T*>(buffers.inputs[0]), transposed, static_cast<T*>(buffers.output));
  };
}

// Results that lie in memory beyond the caches cost more to add to than the product itself, where that is of a few
// terms: then it is made beside them, and added.
constexpr int few_terms = 32;
constexpr std::int64_t large_result = 65'536;

template <class T>
KernelRun run_accumulate(const Gemm& g, KernelCall& call) {
  const std::int64_t size = std::int64_t{g.m} * g.n;
  KernelRun add;
  if (g.k == 0) {
    add = [](const KernelBuffers&) {};
  } else if (g.k < few_terms && size > large_result) {
    Gemm product = g;
    product.beta = 0;
    call.workspace = static_cast<std::size_t>(size) * sizeof(T);
    add = [=](const KernelBuffers& buffers) {
      T* beside = static_cast<T*>(buffers.workspace);
      gemm_in_parts(product, static_cast<const T*>(buffers.inputs[0]), static_cast<const T*>(buffers.inputs[1]),
                    beside);
      T* to = static_cast<T*>(buffers.output);
      table<T>().micro[static_cast<std::size_t>(Micro::add)][0](to, to, beside, nullptr,
                                                                static_cast<std::size_t>(size));
    };
  } else {
    add = run_gemm<T>(g, call);
  }
  return [add = std::move(add), bytes = static_cast<std::size_t>(size) * sizeof(T)](const KernelBuffers& buffers) {
    if (buffers.inputs[accumulated] != buffers.output) std::memcpy(buffers.output, buffers.inputs[accumulated], bytes);
    add(buffers);
  };
}

// ---- batches

// The axes over which products are repeated, and how far it is along them from one matrix of an operand to the next.
struct Batch {
  Dims shape;
  Dims a;
  Dims b;
};

Batch batch_of(const KernelCall& call) {
  const Dims& c = call.output.shape;
  Batch batch;
  for (std::size_t i = 0; i + 2 < c.rank(); ++i) batch.shape.push_back(c[i]);
  const auto strides = [&](const Dims& operand) {
    Dims own;
    for (std::size_t i = 0; i + 2 < operand.rank(); ++i) own.push_back(operand[i]);
    Dims out = broadcast_strides(own, batch.shape);
    for (std::int64_t& stride : out) stride *= operand[operand.rank() - 2] * operand.back();
    return out;
  };
  batch.a = strides(call.inputs[0].shape);
  batch.b = strides(call.inputs[1].shape);
  return batch;
}

// Whether `extent` products that follow each other are made one: of all their rows, where they share the right operand
// and the left ones lie row after row; or of all their columns, where they are of one row, share the left operand and
// the right ones lie column after column.
bool fold(Gemm& g, std::int64_t extent, bool share_a, bool share_b) {
  const auto fits = [&](int side) { return side * extent <= std::numeric_limits<int>::max(); };
  // A matrix of one row or column lies as its transpose does.
  const bool rows = g.ta == CblasNoTrans || g.m == 1 || g.k == 1;
  const bool columns = g.tb == CblasTrans || g.n == 1 || g.k == 1;
  if (share_b && rows && fits(g.m)) {
    g.ta = CblasNoTrans;
    g.lda = std::max(1, g.k);
    g.m *= static_cast<int>(extent);
    return true;
  }
  if (share_a && g.m == 1 && columns && fits(g.n)) {
    g.tb = CblasTrans;
    g.ldb = std::max(1, g.k);
    g.n *= static_cast<int>(extent);
    g.ldc = std::max(1, g.n);
    return true;
  }
  return false;
}

// The same along the last axes of a batch, as long as it goes.
void fold(Gemm& g, Batch& batch) {
  while (!batch.shape.empty()) {
    const std::size_t last = batch.shape.rank() - 1;
    if (!fold(g, batch.shape[last], batch.a[last] == 0, batch.b[last] == 0)) return;
    Dims others;
    for (std::size_t i = 0; i < last; ++i) others.push_back(batch.shape[i]);
    batch.shape = others;
  }
}

// Where the matrices of an operand begin.
std::vector<std::int64_t> starts(const Dims& batch, const Dims& strides) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < count(batch); ++i) {
    std::int64_t rest = i;
    std::int64_t start = 0;
    for (std::size_t axis = batch.rank(); axis-- > 0;) {
      start += rest % batch[axis] * strides[axis];
      rest /= batch[axis];
    }
    out.push_back(start);
  }
  return out;
}

}  // namespace

const Op& accumulate_op() {
  static const Op op = [] {
    Op made;
    made.name = "accumulate";
    made.doc = "c + alpha a b.";
    made.attributes = {{"transpose_a", false}, {"transpose_b", false}, {"alpha", 1.0}};
    made.shape = [](const OpCall& call) { return call.type(accumulated); };
    made.forward.dtypes = Forward::Dtypes::one_floating;
    made.forward.adds_to = accumulated;
    made.forward.kernel = [](KernelCall& call) -> KernelRun {
      use_one_blas_thread();
      Gemm g = gemm_of(call);
      g.alpha = call.attributes.number("alpha");
      g.beta = 1;
      call.flops = 2.0 * g.m * g.n * g.k;
      return visit_floating(call.output.dtype, [&]<class T>(T) { return run_accumulate<T>(g, call); });
    };
    return made;
  }();
  return op;
}

Forward matmul() {
  Forward forward;
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    use_one_blas_thread();
    Gemm g = gemm_of(call);
    Batch batch = batch_of(call);
    fold(g, batch);
    call.flops = 2.0 * g.m * g.n * g.k * static_cast<double>(count(batch.shape));
    const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * size_of(call.output.dtype);
    if (g.m == 0 || g.n == 0 || g.k == 0)  // sums of nothing; cblas would leave the output as it is
      return [bytes](const KernelBuffers& buffers) { std::memset(buffers.output, 0, bytes); };
    return visit_floating(call.output.dtype, [&]<class T>(T) -> KernelRun {
      if (count(batch.shape) == 1) return run_gemm<T>(g, call);
      return [g, starts_a = starts(batch.shape, batch.a),
              starts_b = starts(batch.shape, batch.b)](const KernelBuffers& buffers) {
        const std::int64_t matrix = std::int64_t{g.m} * g.n;
        const auto one = [&](std::size_t i, void*) {
          gemm(g, static_cast<const T*>(buffers.inputs[0]) + starts_a[i],
               static_cast<const T*>(buffers.inputs[1]) + starts_b[i],
               static_cast<T*>(buffers.output) + static_cast<std::int64_t>(i) * matrix);
        };
        if (static_cast<std::int64_t>(starts_a.size()) * matrix * g.k >= worth_cutting) {
          detail::parallel_for(starts_a.size(), one);
        } else {
          for (std::size_t i = 0; i < starts_a.size(); ++i) one(i, nullptr);
        }
      };
    });
  };
  return forward;
}

}  // namespace chainrule::kernels
