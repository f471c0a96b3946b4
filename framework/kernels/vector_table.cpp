#include <chainrule/framework/kernels/vector_table.hpp>

#include <cstdlib>
#include <string_view>

#include <fmt/core.h>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/graph/elementwise.hpp>

namespace chainrule::kernels {

static_assert(micro_slots == micro_count, "vector_table.hpp lags behind enum Micro");

namespace {

// The environment's limit; empty for none.
std::string_view most_asked_for() {
  const char* wish = std::getenv("CHAINRULE_ARCH");
  const std::string_view most = wish ? wish : "";
  if (!most.empty() && most != "baseline" && most != "avx2" && most != "avx512")
    throw Error(Location{}, "CHAINRULE_ARCH", fmt::format("requires baseline, avx2 or avx512, got '{}'", most));
  return most;
}

const VectorTables& choose(std::string_view most) {
#ifdef CHAINRULE_HAVE_X86_KERNELS
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512cd");
  if (has_avx512 && most != "avx2" && most != "baseline") return avx512::tables();
  if (has_avx2 && most != "baseline") return avx2::tables();
#endif
  static_cast<void>(most);
  return baseline::tables();
}

// ---- int64

using I = std::int64_t;

// Two's complement wrap-around as NumPy has it, without the undefined behaviour of signed overflow.
I wrap(std::uint64_t x) { return static_cast<I>(x); }
std::uint64_t bits(I x) { return static_cast<std::uint64_t>(x); }

template <class F, bool A, bool B, bool C>
void integer_loop(void* out, const void* a, const void* b, const void* c, std::size_t n_and_flag) {
  const std::size_t n = n_and_flag & ~whole_lines;
  auto* to = static_cast<I*>(out);
  const auto* x = static_cast<const I*>(a);
  const auto* y = static_cast<const I*>(b);
  const auto* z = static_cast<const I*>(c);
  for (std::size_t i = 0; i < n; ++i) to[i] = F::apply(x[A ? 0 : i], y ? y[B ? 0 : i] : 0, z ? z[C ? 0 : i] : 0);
}

template <class F>
MicroRun pick(unsigned scalars) {
  constexpr MicroRun runs[8] = {integer_loop<F, false, false, false>, integer_loop<F, true, false, false>,
                                integer_loop<F, false, true, false>,  integer_loop<F, true, true, false>,
                                integer_loop<F, false, false, true>,  integer_loop<F, true, false, true>,
                                integer_loop<F, false, true, true>,   integer_loop<F, true, true, true>};
  return runs[scalars];
}

struct Copy {
  static I apply(I x, I, I) { return x; }
};
struct Neg {
  static I apply(I x, I, I) { return wrap(0 - bits(x)); }
};
struct Abs {
  static I apply(I x, I, I) { return x < 0 ? wrap(0 - bits(x)) : x; }
};
struct Sign {
  static I apply(I x, I, I) { return x > 0 ? 1 : x < 0 ? -1 : 0; }
};
struct Square {
  static I apply(I x, I, I) { return wrap(bits(x) * bits(x)); }
};
struct Not {
  static I apply(I x, I, I) { return x == 0 ? 1 : 0; }
};
struct Add {
  static I apply(I x, I y, I) { return wrap(bits(x) + bits(y)); }
};
struct Sub {
  static I apply(I x, I y, I) { return wrap(bits(x) - bits(y)); }
};
struct Mul {
  static I apply(I x, I y, I) { return wrap(bits(x) * bits(y)); }
};
struct Maximum {
  static I apply(I x, I y, I) { return x > y ? x : y; }
};
struct Minimum {
  static I apply(I x, I y, I) { return x < y ? x : y; }
};
struct Less {
  static I apply(I x, I y, I) { return x < y ? 1 : 0; }
};
struct LessEqual {
  static I apply(I x, I y, I) { return x <= y ? 1 : 0; }
};
struct Equal {
  static I apply(I x, I y, I) { return x == y ? 1 : 0; }
};
struct NotEqual {
  static I apply(I x, I y, I) { return x != y ? 1 : 0; }
};
struct Select {
  static I apply(I c, I x, I y) { return c != 0 ? x : y; }
};

}  // namespace

const VectorTables& tables() {
  static const VectorTables& chosen = choose(most_asked_for());
  return chosen;
}

const VectorTables& best_tables() { return choose({}); }

MicroRun integer_micro(std::size_t micro, unsigned scalars) {
  switch (static_cast<Micro>(micro)) {
    case Micro::copy: return pick<Copy>(scalars);
    case Micro::neg: return pick<Neg>(scalars);
    case Micro::abs: return pick<Abs>(scalars);
    case Micro::sign: return pick<Sign>(scalars);
    case Micro::square: return pick<Square>(scalars);
    case Micro::logical_not: return pick<Not>(scalars);
    case Micro::add: return pick<Add>(scalars);
    case Micro::sub: return pick<Sub>(scalars);
    case Micro::mul: return pick<Mul>(scalars);
    case Micro::maximum: return pick<Maximum>(scalars);
    case Micro::minimum: return pick<Minimum>(scalars);
    case Micro::less: return pick<Less>(scalars);
    case Micro::less_equal: return pick<LessEqual>(scalars);
    case Micro::equal: return pick<Equal>(scalars);
    case Micro::not_equal: return pick<NotEqual>(scalars);
    case Micro::select: return pick<Select>(scalars);
    default: return nullptr;
  }
}

}  // namespace chainrule::kernels
