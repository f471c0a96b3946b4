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

// ---- integers

// Two's complement wrap-around as NumPy has it: computed in unsigned numbers of 64 bits, of which the low ones are
// kept.
using U = std::uint64_t;

template <class I, class F, unsigned scalars>
void integer_loop(void* out, const void* a, const void* b, const void* c, std::size_t n_and_flag) {
  const std::size_t n = n_and_flag & ~whole_lines;
  auto* to = static_cast<I*>(out);
  const auto element = [](const void* from, std::size_t i, unsigned bit) {
    return static_cast<const I*>(from)[(scalars & bit) != 0 ? 0 : i];
  };
  for (std::size_t i = 0; i < n; ++i) {
    if constexpr (F::operands == 1) to[i] = F::template apply<I>(element(a, i, 1));
    if constexpr (F::operands == 2) to[i] = F::template apply<I>(element(a, i, 1), element(b, i, 2));
    if constexpr (F::operands == 3) to[i] = F::template apply<I>(element(a, i, 1), element(b, i, 2), element(c, i, 4));
  }
}

template <class I, class F>
MicroRun pick(unsigned scalars) {
  constexpr unsigned used = (1U << F::operands) - 1;
  constexpr MicroRun runs[8] = {integer_loop<I, F, 0>,        integer_loop<I, F, 1>,
                                integer_loop<I, F, 2 & used>, integer_loop<I, F, 3 & used>,
                                integer_loop<I, F, 4 & used>, integer_loop<I, F, 5 & used>,
                                integer_loop<I, F, 6 & used>, integer_loop<I, F, 7 & used>};
  return runs[scalars];
}

struct Unary {
  static constexpr int operands = 1;
};
struct Binary {
  static constexpr int operands = 2;
};
struct Ternary {
  static constexpr int operands = 3;
};

struct Copy : Unary {
  template <class I>
  static I apply(I x) {
    return x;
  }
};
struct Neg : Unary {
  template <class I>
  static I apply(I x) {
    return static_cast<I>(0 - static_cast<U>(x));
  }
};
struct Abs : Unary {
  template <class I>
  static I apply(I x) {
    return x < I{0} ? Neg::apply<I>(x) : x;
  }
};
struct Sign : Unary {
  template <class I>
  static I apply(I x) {
    return static_cast<I>((x > I{0} ? 1 : 0) - (x < I{0} ? 1 : 0));
  }
};
struct Square : Unary {
  template <class I>
  static I apply(I x) {
    return static_cast<I>(static_cast<U>(x) * static_cast<U>(x));
  }
};
struct Not : Unary {
  template <class I>
  static I apply(I x) {
    return x == I{0} ? 1 : 0;
  }
};
struct Add : Binary {
  template <class I>
  static I apply(I x, I y) {
    return static_cast<I>(static_cast<U>(x) + static_cast<U>(y));
  }
};
struct Sub : Binary {
  template <class I>
  static I apply(I x, I y) {
    return static_cast<I>(static_cast<U>(x) - static_cast<U>(y));
  }
};
struct Mul : Binary {
  template <class I>
  static I apply(I x, I y) {
    return static_cast<I>(static_cast<U>(x) * static_cast<U>(y));
  }
};
struct Maximum : Binary {
  template <class I>
  static I apply(I x, I y) {
    return x > y ? x : y;
  }
};
struct Minimum : Binary {
  template <class I>
  static I apply(I x, I y) {
    return x < y ? x : y;
  }
};
struct Less : Binary {
  template <class I>
  static I apply(I x, I y) {
    return x < y ? 1 : 0;
  }
};
struct LessEqual : Binary {
  template <class I>
  static I apply(I x, I y) {
    return x <= y ? 1 : 0;
  }
};
struct Equal : Binary {
  template <class I>
  static I apply(I x, I y) {
    return x == y ? 1 : 0;
  }
};
struct NotEqual : Binary {
  template <class I>
  static I apply(I x, I y) {
    return x != y ? 1 : 0;
  }
};
struct Select : Ternary {
  template <class I>
  static I apply(I c, I x, I y) {
    return c != I{0} ? x : y;
  }
};

}  // namespace

const VectorTables& tables() {
  static const VectorTables& chosen = choose(most_asked_for());
  return chosen;
}

const VectorTables& best_tables() { return choose({}); }

template <class I>
MicroRun integer_micro(std::size_t micro, unsigned scalars) {
  switch (static_cast<Micro>(micro)) {
    case Micro::copy: return pick<I, Copy>(scalars);
    case Micro::neg: return pick<I, Neg>(scalars);
    case Micro::abs: return pick<I, Abs>(scalars);
    case Micro::sign: return pick<I, Sign>(scalars);
    case Micro::square: return pick<I, Square>(scalars);
    case Micro::logical_not: return pick<I, Not>(scalars);
    case Micro::add: return pick<I, Add>(scalars);
    case Micro::sub: return pick<I, Sub>(scalars);
    case Micro::mul: return pick<I, Mul>(scalars);
    case Micro::maximum: return pick<I, Maximum>(scalars);
    case Micro::minimum: return pick<I, Minimum>(scalars);
    case Micro::less: return pick<I, Less>(scalars);
    case Micro::less_equal: return pick<I, LessEqual>(scalars);
    case Micro::equal: return pick<I, Equal>(scalars);
    case Micro::not_equal: return pick<I, NotEqual>(scalars);
    case Micro::select: return pick<I, Select>(scalars);
    default: return nullptr;
  }
}

template MicroRun integer_micro<std::int64_t>(std::size_t micro, unsigned scalars);
template MicroRun integer_micro<std::int32_t>(std::size_t micro, unsigned scalars);
template MicroRun integer_micro<std::uint8_t>(std::size_t micro, unsigned scalars);

}  // namespace chainrule::kernels
