// How exact the ops' numbers are: each function on dense random grids over its whole range against long double, and
// sums against compensated ones. `ops_accuracy [.table]` prints what is measured.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <chainrule/framework/graph/initial.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/reduce.hpp>

#include "catch.hpp"
#include "compare.hpp"

using namespace chainrule;
using namespace chainrule::test;

namespace {

using Long = long double;

// ---- functions

struct Function {
  const char* op;
  Long (*exact)(Long);
  // The greatest distances in units in the last place, float32 and float64: of all instruction sets, measured on every
  // 16th float32 and on a million float64s of each of the regions below, and rounded up. Where libm computes (for
  // baseline x86-64 erf, and the far ends of all) it is up to 1.
  double float32_ulps;
  double float64_ulps;
  // Away from 0 smaller results are measured as if they were this large, in float64. For baseline x86-64 sine and
  // cosine take multiples of pi / 2 off that they know to 99 bits: near these the error is 1.3e-29, whatever is left,
  // and that of a large tangent grows with its square.
  double least = 0;
};

Long sigmoid(Long x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
Long sech2(Long x) {
  const Long e = std::exp(-2 * std::abs(x));
  return 4 * e / ((1 + e) * (1 + e));
}
Long softplus(Long x) { return std::max(x, 0.0L) + std::log1p(std::exp(-std::abs(x))); }

Long log_sigmoid(Long x) { return -softplus(-x); }
Long softsign(Long x) { return std::isinf(x) ? std::copysign(1.0L, x) : x / (1 + std::abs(x)); }
// x gate(x), -0 at -infinity.
Long gated(Long x, Long gate) { return std::isinf(x) ? std::max(x, -0.0L) : x * gate; }
Long silu(Long x) { return gated(x, sigmoid(x)); }
Long gelu(Long x) { return gated(x, std::erfc(-x / std::sqrt(2.0L)) / 2); }
Long mish(Long x) {
  const Long e = std::exp(std::min(x, 100.0L));
  return gated(x, e * (e + 2) / (e * (e + 2) + 2));
}

const Function functions[] = {
    // clang-format off
    {"sqrt", std::sqrt, 0.5, 0.501},
    {"exp", std::exp, 1.6, 1.0},
    {"expm1", std::expm1, 2.0, 1.5},
    {"log", std::log, 1.0, 1.0},
    {"log1p", std::log1p, 1.0, 1.0},
    {"sin", std::sin, 2.3, 1.6, 0x1p-43},
    {"cos", std::cos, 2.4, 1.6, 0x1p-43},
    {"tan", std::tan, 4.0, 3.5, 0x1p-43},
    {"tanh", std::tanh, 1.4, 1.4},
    {"sech2", sech2, 4.0, 4.0},
    {"erf", std::erf, 1.1, 1.2},
    {"sigmoid", sigmoid, 2.6, 2.4},
    {"softplus", softplus, 2.0, 1.7},
    {"log_sigmoid", log_sigmoid, 2.0, 1.7},
    {"softsign", softsign, 1.5, 1.5},
    {"silu", silu, 5.0, 5.0},
    {"gelu", gelu, 8.0, 8.0},
    {"mish", mish, 6.0, 6.0},
    // clang-format on
};

// Arguments in one region of the line. Neighbours are alike where `sorted`: then nearly all vectors are of arguments
// that the vector functions take; else most have some that need libm.
struct Region {
  const char* name;
  double (*draw)(std::mt19937_64&, DType);
  bool sorted = true;
};

double unit(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

template <int low, int high>
double even(std::mt19937_64& random, DType) {
  return low + (high - low) * unit(random);
}

// Any number at all: random bits.
double any(std::mt19937_64& random, DType dtype) {
  const std::uint64_t bits = random();
  const double x = dtype == float32 ? static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(bits)))
                                    : std::bit_cast<double>(bits);
  return std::isfinite(x) ? x : any(random, dtype);
}

// Of either sign and any size from 2^-60 to 1.
double small(std::mt19937_64& random, DType) { return std::exp2(-60 * unit(random)) * (random() % 2 == 0 ? 1 : -1); }

double near_one(std::mt19937_64& random, DType) { return 1 + small(random, float64) / 8; }

const Region regions[] = {
    {"any, sorted", any},
    {"any, mixed", any, false},
    {"near 0", small},
    {"near 1", near_one},
    {"-1 .. 1", even<-1, 1>, false},
    {"-20 .. 20", even<-20, 20>, false},
    {"-88 .. 88", even<-88, 88>, false},
    {"-750 .. 750", even<-750, 750>},
    {"-1000 .. 1000", even<-1000, 1000>, false},
};

Array arguments(const Region& region, DType dtype, std::int64_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<double> drawn(static_cast<std::size_t>(n));
  for (double& x : drawn) x = region.draw(random, dtype);
  if (region.sorted) std::sort(drawn.begin(), drawn.end());
  return Array(drawn).astype(dtype);
}

// Where functions turn, overflow, underflow and change their method, and the numbers beside.
Array special_arguments(DType dtype) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  std::vector<double> specials = {inf, std::numeric_limits<double>::quiet_NaN(), 0.0};
  const auto widest = [dtype](auto float_limit, auto double_limit) {
    return dtype == float32 ? static_cast<double>(float_limit) : static_cast<double>(double_limit);
  };
  using F = std::numeric_limits<float>;
  using D = std::numeric_limits<double>;
  for (const double x : {widest(F::denorm_min(), D::denorm_min()),
                         widest(F::min(), D::min()),
                         widest(F::max(), D::max()),
                         widest(F::min() / 2, D::min() / 2),
                         1e-8,
                         0.5,
                         1.0,
                         1.5,
                         2.0,
                         20.0,
                         30.0,
                         80.0,
                         87.0,
                         87.33654,
                         88.0,
                         88.72284,
                         103.97208,
                         700.0,
                         708.0,
                         708.3964185322641,
                         709.0,
                         709.782712893384,
                         745.1332191019412,
                         1000.0,
                         1e30,
                         0x1p23,
                         0x1p24,
                         0x1p52,
                         3.141592653589793,
                         1.5707963267948966,
                         45.553093477052002}) {
    if (dtype == float32) {
      const auto f = static_cast<float>(x);
      specials.insert(specials.end(), {f, std::nextafter(f, -F::infinity()), std::nextafter(f, F::infinity())});
    } else {
      specials.insert(specials.end(), {x, std::nextafter(x, -inf), std::nextafter(x, inf)});
    }
  }
  const std::size_t n = specials.size();
  for (std::size_t i = 0; i < n; ++i) specials.push_back(-specials[i]);
  // Each among ordinary numbers, at another place of the vector each time.
  constexpr std::size_t apart = 17;
  std::vector<double> spread(specials.size() * apart, 0.25);
  for (std::size_t i = 0; i < specials.size(); ++i) spread[i * apart + i % apart] = specials[i];
  return Array(spread).astype(dtype);
}

struct Worst {
  double ulps = -1;
  double argument = 0;
  double got = 0;
  void take(double ulps_here, double argument_here, double got_here) {
    if (ulps_here <= ulps) return;
    *this = {ulps_here, argument_here, got_here};
  }
  void take(const Worst& other) { take(other.ulps, other.argument, other.got); }
};

// One op on many arrays.
class Unary {
 public:
  Unary(const std::string& op, DType dtype, std::int64_t n)
      : x_(graph_.input("x", {n}, dtype)), state_(graph_), program_(state_, {.outputs = {apply(*find_op(op), {x_})}}) {}
  const Array& operator()(const Array& x) { return program_.run({{x_, x}})[0]; }

 private:
  Graph graph_{GraphOptions{}};
  Value x_;
  State state_;
  Program program_;
};

// From the exact value, with the sign of a zero.
Worst distance(const Function& f, const Array& x, const Array& y) {
  Worst worst;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const Long exact = f.exact(x[i]);
    const bool bounded = x.dtype() == float64 && std::abs(x[i]) > 1;
    double away = ulps(x.dtype(), y[i], exact,
                       bounded ? std::max<Long>({std::abs(exact), f.least, f.least * exact * exact}) : exact);
    if (y[i] == 0 && std::signbit(y[i]) != std::signbit(exact)) away = std::numeric_limits<double>::infinity();
    worst.take(away, x[i], y[i]);
  }
  return worst;
}

Worst measure(const Function& f, const Region& region, DType dtype, std::int64_t n) {
  Unary op(f.op, dtype, n);
  const Array x = arguments(region, dtype, n, 7);
  return distance(f, x, op(x));
}

double allowed(const Function& f, DType dtype) { return dtype == float32 ? f.float32_ulps : f.float64_ulps; }

}  // namespace

TEST_CASE("functions are within their units in the last place") {
  for (const Function& f : functions)
    for (const DType dtype : {float32, float64})
      for (const Region& region : regions) {
        const Worst worst = measure(f, region, dtype, 1 << 14);
        INFO(f.op << " in " << name(dtype) << ", " << region.name << ": of "
                  << fmt::format("{} is {}", worst.argument, worst.got));
        CHECK(worst.ulps <= allowed(f, dtype));
      }
}

TEST_CASE("functions are right at special arguments") {
  for (const Function& f : functions)
    for (const DType dtype : {float32, float64}) {
      const Array x = special_arguments(dtype);
      Unary op(f.op, dtype, x.size());
      const Worst worst = distance(f, x, op(x));
      INFO(f.op << " in " << name(dtype) << ": of " << fmt::format("{} is {}", worst.argument, worst.got));
      CHECK(worst.ulps <= allowed(f, dtype));
    }
}

TEST_CASE("the table of measured units in the last place", "[.table]") {
  fmt::print("{:<10} {:<8}", "", "");
  for (const Region& region : regions) fmt::print(" {:>14}", region.name);
  fmt::print(" {:>8} {:>8}  at\n", "greatest", "allowed");
  for (const Function& f : functions)
    for (const DType dtype : {float32, float64}) {
      fmt::print("{:<10} {:<8}", f.op, name(dtype));
      Worst worst;
      for (const Region& region : regions) {
        const Worst here = measure(f, region, dtype, 1 << 20);
        fmt::print(" {:>14.3f}", here.ulps);
        std::fflush(stdout);
        worst.take(here);
      }
      fmt::print(" {:>8.3f} {:>8}  {}\n", worst.ulps, allowed(f, dtype), worst.argument);
    }
}

// ---- what is exact

namespace {

template <class T>
struct Exact {
  const char* op;
  T (*of)(T);
};

template <class T>
struct ExactPair {
  const char* op;
  T (*of)(T, T);
};

// Equal, with NaN equal to NaN and zeros by their sign.
template <class T>
bool same(T a, T b) {
  return std::isnan(a) || std::isnan(b) ? std::isnan(a) && std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

}  // namespace

TEMPLATE_TEST_CASE("single operations are those of the processor", "", float, double) {
  using T = TestType;
  const DType dtype = dtype_of<T>();
  const Exact<T> unary[] = {
      {"neg", [](T x) -> T { return -x; }},
      {"abs", [](T x) -> T { return std::abs(x); }},
      {"square", [](T x) -> T { return x * x; }},
      {"sqrt", [](T x) -> T { return std::sqrt(x); }},
      {"floor", [](T x) -> T { return std::floor(x); }},
      {"ceil", [](T x) -> T { return std::ceil(x); }},
      {"sign", [](T x) -> T { return x > 0   ? 1
                                     : x < 0 ? -1
                                             : x; }},
      {"stop_gradient", [](T x) -> T { return x; }},
      {"relu", [](T x) -> T { return x > 0 || std::isnan(x) ? x : 0; }},
  };
  std::vector<Array> grids = {special_arguments(dtype)};
  for (const Region& region : regions) grids.push_back(arguments(region, dtype, 4097, 3));
  for (const auto& f : unary) {
    std::int64_t wrong = 0;
    for (const Array& x : grids) {
      Unary op(f.op, dtype, x.size());
      const Array y = op(x);
      for (std::int64_t i = 0; i < x.size(); ++i) wrong += same(y.data<T>()[i], f.of(x.data<T>()[i])) ? 0 : 1;
    }
    INFO(f.op << " in " << name(dtype));
    CHECK(wrong == 0);
  }

  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  const ExactPair<T> binary[] = {
      {"add", [](T a, T b) -> T { return a + b; }},
      {"sub", [](T a, T b) -> T { return a - b; }},
      {"mul", [](T a, T b) -> T { return a * b; }},
      {"div", [](T a, T b) -> T { return a / b; }},
      // Of 0 and -0 either.
      {"maximum", [](T a, T b) -> T { return std::isnan(a) || std::isnan(b) ? nan
                                             : a > b                        ? a
                                                                            : b; }},
      {"minimum", [](T a, T b) -> T { return std::isnan(a) || std::isnan(b) ? nan
                                             : a < b                        ? a
                                                                            : b; }},
  };
  // Every special number with every other, and pairs of random ones.
  const Array& specials = grids[0];
  std::vector<double> left;
  std::vector<double> right;
  for (std::int64_t i = 0; i < specials.size(); i += 3)
    for (std::int64_t k = 0; k < specials.size(); k += 17 * 5) {
      left.push_back(specials[i]);
      right.push_back(specials[k + k / 17 % 17]);
    }
  const Array more = arguments(regions[1], dtype, 1 << 15, 5);
  for (std::int64_t i = 0; i + 1 < more.size(); ++i) {
    left.push_back(more[i]);
    right.push_back(more[i + 1]);
  }
  const Array a = Array(left).astype(dtype);
  const Array b = Array(right).astype(dtype);
  for (const auto& f : binary) {
    const Array y = compute(*find_op(f.op), {a, b});
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < y.size(); ++i) {
      const T expected = f.of(a.data<T>()[i], b.data<T>()[i]);
      wrong += same(y.data<T>()[i], expected) ? 0 : 1;
    }
    INFO(f.op << " in " << name(dtype));
    CHECK(wrong == 0);
  }
}

// Small constant powers are products and roots. Each rounding (of a factor that is a reciprocal or root, and of each
// product) is off by half a unit in the last place or less, which may be a whole one of the result.
TEST_CASE("constant powers are within their units in the last place") {
  for (const DType dtype : {float32, float64})
    for (const double exponent : {0.0, 0.5,  -0.5, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0, 2.5,  3.0, -3.0, 3.5, -3.5,
                                  7.5, -7.5, 8.5,  4.0, 5.0,  6.0, -6.0, 7.0, 8.0,  -8.0, 9.0, 0.25, 1.7, -12.0}) {
      std::mt19937_64 random(13);
      std::vector<double> bases;
      constexpr double inf = std::numeric_limits<double>::infinity();
      for (const double base : {0.0, -0.0, 1.0, -1.0, inf, -inf, std::nan(""), 2.0, -2.0}) bases.push_back(base);
      const double room = dtype == float32 ? 85 : 700;
      for (int i = 0; i < 1 << 12; ++i)
        bases.push_back(std::exp((2 * unit(random) - 1) * room / std::max(1.0, std::abs(exponent))) *
                        (i % 4 == 0 ? -1 : 1));
      const Array x = Array(bases).astype(dtype);
      Graph graph({.dtype = dtype});
      const Value v = graph.input("x", {x.size()});
      State state(graph);
      Program program(state, {.outputs = {pow(v, exponent)}});
      const Results y = program.run({{v, x}});
      const Long in_dtype = Array::full(dtype, Dims{}, exponent).item();
      const bool whole = exponent == std::trunc(exponent);
      const bool products = std::abs(exponent) <= 8 && 2 * exponent == std::trunc(2 * exponent);
      const double factors = std::floor(std::abs(exponent));
      const double of_root = whole ? 0 : 1 + (exponent < 0 ? 1 : 0) + (factors > 0 ? 1 : 0);
      const double roundings = of_root + (exponent < 0 ? factors : 0) + std::max(0.0, factors - 1);
      const double allowed_ulps = products && roundings > 0 ? std::max(1.0, roundings) : 1;
      Worst worst;
      for (std::int64_t i = 0; i < x.size(); ++i) {
        const Long exact = std::pow(static_cast<Long>(x[i]), in_dtype);
        double away = ulps(dtype, y[0][i], exact);
        if (y[0][i] == 0 && std::signbit(y[0][i]) != std::signbit(exact)) away = inf;
        worst.take(away, x[i], y[0][i]);
      }
      INFO(name(dtype) << " to the power of " << exponent << ": " << worst.argument << " is " << worst.got);
      CHECK(worst.ulps <= allowed_ulps);
    }
}

TEST_CASE("powers are within a unit in the last place") {
  for (const DType dtype : {float32, float64}) {
    std::mt19937_64 random(11);
    std::vector<double> bases;
    std::vector<double> exponents;
    const double room = dtype == float32 ? 85 : 700;  // of the logarithm of what fits
    for (int i = 0; i < 1 << 14; ++i) {
      const double base = std::exp((2 * unit(random) - 1) * room / 2);
      bases.push_back(base);
      exponents.push_back((2 * unit(random) - 1) * room / std::max(1e-3, std::abs(std::log(base))));
    }
    for (int i = 0; i < 1 << 10; ++i) {  // negative numbers to whole powers
      bases.push_back(-4 * unit(random));
      exponents.push_back(std::floor(20 * unit(random)) - 10);
    }
    constexpr double inf = std::numeric_limits<double>::infinity();
    const double specials[] = {0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, inf, -inf, std::nan("")};
    for (const double base : specials)
      for (const double exponent : specials) {
        bases.push_back(base);
        exponents.push_back(exponent);
      }
    const Array a = Array(bases).astype(dtype);
    const Array b = Array(exponents).astype(dtype);
    const Array y = compute(*find_op("pow"), {a, b});
    Worst worst;
    std::string at;
    for (std::int64_t i = 0; i < y.size(); ++i) {
      const Long exact = std::pow(static_cast<Long>(a[i]), static_cast<Long>(b[i]));
      double away = ulps(dtype, y[i], exact);
      if (y[i] == 0 && std::signbit(y[i]) != std::signbit(exact)) away = inf;
      if (away > worst.ulps) at = fmt::format("{} to the power of {} is {}", a[i], b[i], y[i]);
      worst.take(away, a[i], y[i]);
    }
    INFO(name(dtype) << ": " << at);
    CHECK(worst.ulps <= 1);
  }
}

// ---- sums

namespace {

struct Exactly {
  Long sum = 0;
  Long magnitude = 0;  // the sum of the absolute values
};

// Neumaier's compensated sum of every `stride`-th element, in long double.
Exactly exactly(const Array& x, std::int64_t begin, std::int64_t n, std::int64_t stride) {
  Exactly out;
  Long lost = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const Long term = x[begin + i * stride];
    const Long next = out.sum + term;
    lost += std::abs(out.sum) >= std::abs(term) ? (out.sum - next) + term : (term - next) + out.sum;
    out.sum = next;
    out.magnitude += std::abs(term);
  }
  out.sum += lost;
  return out;
}

Array sums(const Array& x, std::int64_t axis) {
  Graph graph;
  const Value v = graph.input("x", to_shape(x.shape()), x.dtype());
  const Value y = sum(v, axis);
  State state(graph);
  Program program(state, {.outputs = {y}});
  return program.run({{v, x}})[0];
}

}  // namespace

TEST_CASE("the error of a sum grows with the logarithm of its length") {
  for (const DType dtype : {float32, float64})
    for (const std::int64_t n : {1, 10, 100, 1000, 4096, 10007, 1 << 17, 1 << 20})
      for (const std::int64_t columns : {1, 3, 4, 16, 65}) {
        if (n * columns > 1 << 21) continue;
        const Shape shape{n, columns};
        for (const Initial& numbers : {uniform(shape, 0.5, 1.5), uniform(shape, -1, 1), normal(shape, 1e3, 1)}) {
          // Down the columns, and along as many rows.
          const Array down = numbers.draw(dtype, 3, 5);
          const Array along = down.reshape({columns, n});
          const Array of_columns = sums(down, 0);
          const Array of_rows = sums(along, 1);
          double worst = 0;
          for (std::int64_t i = 0; i < columns; ++i) {
            const Exactly column = exactly(down, i, n, columns);
            const Exactly row = exactly(along, i * n, n, 1);
            worst = std::max({worst, ulps(dtype, of_columns[i], column.sum, column.magnitude),
                              ulps(dtype, of_rows[i], row.sum, row.magnitude)});
          }
          INFO(name(dtype) << ", sums of " << n << " in " << columns << " columns");
          CHECK(worst <= 0.6 * std::log2(static_cast<double>(n)));
        }
      }
}

TEST_CASE("the float32 sum of four million numbers is right to a part in a million") {
  constexpr std::int64_t n = 1 << 22;
  const Array x = uniform({n}, 0.5, 1.5).draw(float32, 3, 5);
  for (const std::int64_t columns : {1, 2, 3, 4, 64, 1024}) {
    const std::int64_t rows = n / columns;
    const Array down = Array::from(x.data<float>(), {rows, columns});
    const Array of_columns = sums(down, 0);
    const Array of_rows = sums(down.reshape({columns, rows}), 1);
    Long worst = 0;
    for (std::int64_t i = 0; i < columns; ++i) {
      const Long column = exactly(down, i, rows, columns).sum;
      const Long row = exactly(down, i * rows, rows, 1).sum;
      worst = std::max({worst, std::abs(of_columns[i] - column) / column, std::abs(of_rows[i] - row) / row});
    }
    INFO(columns << " columns");
    CHECK(worst < 1e-6L);
    // Ones add up exactly up to 2^24.
    const Array ones = Array::full(float32, {rows, columns}, 1);
    CHECK(sums(ones, 0)[0] == static_cast<double>(rows));
    CHECK(sums(ones.reshape({columns, rows}), 1)[columns - 1] == static_cast<double>(rows));
  }
}
