// Machine code for fused groups gives the bits of the vector kernels, whatever the number of elements, and touches
// nothing else.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <chainrule/framework/fused/generate.hpp>
#include <chainrule/framework/fused/schedule.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

#include "catch.hpp"

using namespace chainrule;
using namespace chainrule::detail;

namespace {

bool skipped() {
  if (can_generate()) return false;
  WARN("Skipped what compares generated code: none is made here");
  return true;
}

template <class T>
constexpr DType dtype_t = sizeof(T) == 4 ? float32 : float64;

template <class T>
T random_number(std::mt19937_64& random) {
  using L = std::numeric_limits<T>;
  const T specials[] = {0,
                        T(-0.0),
                        1,
                        -1,
                        T(0.5),
                        L::infinity(),
                        -L::infinity(),
                        L::quiet_NaN(),
                        L::denorm_min(),
                        -L::denorm_min(),
                        L::max(),
                        L::lowest(),
                        L::min(),
                        T(88.5),
                        T(-103.5),
                        T(709.5),
                        T(-745),
                        T(2.5),
                        T(-2.5)};
  if (random() % 4 == 0) return specials[random() % std::size(specials)];
  const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
  return static_cast<T>((unit * 2 - 1) * (random() % 4 == 0 ? 100 : 3));
}

template <class T>
std::vector<T> random_numbers(std::size_t n, std::mt19937_64& random) {
  std::vector<T> out(n);
  for (T& x : out) x = random_number<T>(random);
  return out;
}

// NaNs are alike: which operand's payload goes on is the processor's choice.
template <class T>
bool same(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || std::memcmp(&a, &b, sizeof a) == 0;
}

template <class T>
kernels::MicroRun kernel(Micro micro, unsigned scalars) {
  return kernels::table<T>().micro[static_cast<std::size_t>(micro)][scalars];
}

std::vector<Micro> generated_micros(DType dtype) {
  std::vector<Micro> out;
  for (std::size_t m = 0; m < micro_count; ++m)
    if (can_generate(static_cast<Micro>(m), dtype)) out.push_back(static_cast<Micro>(m));
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("every micro-operation, alone", "", float, double) {
  if (skipped()) return;
  using T = TestType;
  std::mt19937_64 random(1);
  CHECK(generated_micros(dtype_t<T>).size() == micro_count);
  CHECK(generated_micros(int64).empty());
  for (const Micro micro : generated_micros(dtype_t<T>)) {
    const unsigned variants = 1U << arity(micro);
    for (unsigned scalars = 0; scalars < variants; ++scalars) {
      VectorCode code(dtype_t<T>);
      std::uint32_t operands[3] = {};
      for (unsigned k = 0; k < 3; ++k) operands[k] = (scalars >> k & 1) != 0 ? code.scalar(k) : code.stream(k);
      code.store(code.micro(micro, operands[0], operands[1], operands[2]), 3, false);
      const auto generated = generate(code);
      for (const std::size_t n : {0U, 1U, 2U, 7U, 8U, 9U, 15U, 16U, 17U, 31U, 32U, 33U, 64U, 1000U}) {
        std::vector<T> in[3];
        for (auto& x : in) x = random_numbers<T>(n + 1, random);
        std::vector<T> expected(n + 1, T(77));
        std::vector<T> out(n + 1, T(77));
        kernel<T>(micro, scalars)(expected.data(), in[0].data(), in[1].data(), in[2].data(), n);
        char* const slots[] = {reinterpret_cast<char*>(in[0].data()), reinterpret_cast<char*>(in[1].data()),
                               reinterpret_cast<char*>(in[2].data()), reinterpret_cast<char*>(out.data())};
        generated->run()(slots, n);
        for (std::size_t i = 0; i <= n; ++i) {
          INFO("micro-operation " << static_cast<int>(micro) << ", scalars " << scalars << ", element " << i << " of "
                                  << n << ": " << in[0][i] << ", " << in[1][i] << ", " << in[2][i]);
          if (!same(out[i], expected[i])) {
            CAPTURE(out[i], expected[i]);
            FAIL("differs");
          }
        }
      }
    }
  }
  SUCCEED();
}

// Random programs with more values at once than there are registers, masks and address registers, against the same run
// instruction by instruction.
TEMPLATE_TEST_CASE("random programs", "", float, double) {
  if (skipped()) return;
  using T = TestType;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    std::mt19937_64 random(seed);
    const auto micros = generated_micros(dtype_t<T>);
    const std::size_t streams = 1 + random() % 24;
    const std::size_t scalars = random() % 6;
    const std::size_t instructions = 1 + random() % 120;
    const std::size_t n = random() % 70;
    // Operands from anywhere, or from far back, so that many values are alive.
    const bool far = random() % 2 == 0;

    std::vector<std::vector<T>> values;
    for (std::size_t i = 0; i < streams + scalars; ++i) values.push_back(random_numbers<T>(n + 1, random));
    std::vector<T> numbers = random_numbers<T>(4, random);
    numbers[1] = 1;
    std::vector<char*> slots;
    for (auto& v : values) slots.push_back(reinterpret_cast<char*>(v.data()));
    slots.push_back(reinterpret_cast<char*>(numbers.data()));
    const auto numbers_slot = static_cast<Slot>(slots.size() - 1);

    VectorCode code(dtype_t<T>);
    std::vector<std::uint32_t> coded;
    std::vector<char> is_scalar;
    for (std::size_t i = 0; i < streams + scalars; ++i) {
      is_scalar.push_back(i >= streams ? 1 : 0);
      coded.push_back(i >= streams ? code.scalar(static_cast<Slot>(i)) : code.stream(static_cast<Slot>(i)));
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      is_scalar.push_back(1);
      coded.push_back(code.number(numbers_slot, i, static_cast<double>(numbers[i])));
      values.push_back({numbers[i]});
    }
    for (std::size_t i = 0; i < instructions; ++i) {
      const Micro micro = micros[random() % micros.size()];
      std::size_t from[3];
      for (auto& f : from)
        f = far ? random() % coded.size() : coded.size() - 1 - random() % std::min(coded.size(), 6UL);
      unsigned which = 0;
      for (unsigned k = 0; k < static_cast<unsigned>(arity(micro)); ++k)
        if (is_scalar[from[k]]) which |= 1U << k;
      std::vector<T> result(n + 1, T(77));
      kernel<T>(micro, which)(result.data(), values[from[0]].data(), values[from[1]].data(), values[from[2]].data(), n);
      coded.push_back(code.micro(micro, coded[from[0]], coded[from[1]], coded[from[2]]));
      is_scalar.push_back(0);
      values.push_back(std::move(result));
    }
    std::vector<std::size_t> stored;
    std::vector<std::vector<T>> outputs;
    const std::size_t first_result = coded.size() - instructions;
    outputs.reserve(instructions);
    for (std::size_t i = first_result; i < coded.size(); ++i) {
      if (i + 1 < coded.size() && random() % 3 != 0) continue;
      stored.push_back(i);
      outputs.emplace_back(n + 1, T(77));
      code.store(coded[i], static_cast<Slot>(slots.size()), false);
      slots.push_back(reinterpret_cast<char*>(outputs.back().data()));
    }
    generate(code)->run()(slots.data(), n);
    for (std::size_t k = 0; k < stored.size(); ++k)
      for (std::size_t i = 0; i <= n; ++i)
        if (!same(outputs[k][i], values[stored[k]][i])) {
          CAPTURE(seed, k, stored[k] - first_result, i, n, outputs[k][i], values[stored[k]][i]);
          FAIL("differs");
        }
  }
  SUCCEED();
}

TEST_CASE("an output in the memory of an operand is written when that was read") {
  if (skipped()) return;
  // y = -x in place of x, made before x is read again for z = exp(x) * y; without a register to keep x in.
  VectorCode code(float64);
  const std::uint32_t x = code.stream(0);
  const std::uint32_t y = code.micro(Micro::neg, x, x, x);
  std::vector<std::uint32_t> alive;
  for (Slot s = 2; s < 42; ++s) alive.push_back(code.micro(Micro::exp, code.stream(s), x, x));
  std::uint32_t z = code.micro(Micro::mul, code.micro(Micro::exp, x, x, x), y, y);
  for (const std::uint32_t a : alive) z = code.micro(Micro::add, z, a, a);
  code.store(y, 0, false, 0);
  code.store(z, 1, false);
  constexpr std::size_t n = 21;
  std::vector<double> in(n, 0.5);
  std::vector<double> out(n, 0);
  std::vector<double> zeros(n, 0);
  std::vector<char*> slots(42, reinterpret_cast<char*>(zeros.data()));
  slots[0] = reinterpret_cast<char*>(in.data());
  slots[1] = reinterpret_cast<char*>(out.data());
  generate(code)->run()(slots.data(), n);
  for (std::size_t i = 0; i < n; ++i) {
    CHECK(in[i] == -0.5);
    CHECK(std::abs(out[i] - (40 - 0.5 * std::exp(0.5))) < 1e-13);
  }
}

TEST_CASE("what stores an operand as it is copies it, also where its memory is overwritten") {
  if (skipped()) return;
  VectorCode code(float32);
  const std::uint32_t x = code.stream(0);
  const std::uint32_t y = code.stream(1);
  code.store(y, 0, false, 0);  // swaps them
  code.store(x, 1, false, 1);
  code.store(code.scalar(2), 3, false);
  std::vector<float> a(19, 1.0F);
  std::vector<float> b(19, 2.0F);
  float c = 3;
  std::vector<float> d(19, 0.0F);
  char* const slots[] = {reinterpret_cast<char*>(a.data()), reinterpret_cast<char*>(b.data()),
                         reinterpret_cast<char*>(&c), reinterpret_cast<char*>(d.data())};
  generate(code)->run()(slots, a.size());
  CHECK(a == std::vector<float>(19, 2.0F));
  CHECK(b == std::vector<float>(19, 1.0F));
  CHECK(d == std::vector<float>(19, 3.0F));
}

// The page behind the last element is not mapped.
TEMPLATE_TEST_CASE("nothing beyond the last element is read or written", "", float, double) {
  if (skipped()) return;
  using T = TestType;
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  char* const pages[2] = {
      static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
      static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))};
  for (char* p : pages) {
    REQUIRE(p != MAP_FAILED);
    REQUIRE(mprotect(p + page, page, PROT_NONE) == 0);
  }
  VectorCode code(dtype_t<T>);
  const std::uint32_t x = code.stream(0);
  code.store(code.micro(Micro::add, x, x, x), 1, false);
  const auto generated = generate(code);
  for (std::size_t n = 1; n < 40; ++n) {
    char* const slots[] = {pages[0] + page - n * sizeof(T), pages[1] + page - n * sizeof(T)};
    for (std::size_t i = 0; i < n; ++i) reinterpret_cast<T*>(slots[0])[i] = static_cast<T>(i);
    generated->run()(slots, n);
    for (std::size_t i = 0; i < n; ++i) CHECK(reinterpret_cast<T*>(slots[1])[i] == static_cast<T>(2 * i));
  }
  for (char* p : pages) munmap(p, 2 * page);
}

TEST_CASE("equal codes are generated once, and let go") {
  if (skipped()) return;
  const auto make = [](Slot out) {
    VectorCode code(float64);
    const std::uint32_t x = code.stream(0);
    code.store(code.micro(Micro::exp, x, x, x), out, false);
    return generate(code);
  };
  std::weak_ptr<const GeneratedCode> gone;
  {
    const auto first = make(1);
    CHECK(first == make(1));
    CHECK(first != make(2));
    CHECK(first->bytes() > 0);
    gone = first;
  }
  CHECK(gone.expired());
}

TEST_CASE("common parts are computed once") {
  VectorCode code(float64);
  const std::uint32_t x = code.stream(0);
  const std::uint32_t minus = code.micro(Micro::neg, x, x, x);
  const std::uint32_t s = code.micro(Micro::sigmoid, x, x, x);
  const std::size_t before = code.instructions().size();
  CHECK(code.micro(Micro::sigmoid, x, x, x) == s);
  CHECK(code.instructions().size() == before);
  // Of sigmoid(-x) all but the comparison and the choice.
  code.micro(Micro::sigmoid, minus, x, x);
  CHECK(code.instructions().size() == before + 2);
  // A choice by a comparison needs no numbers for true and false.
  const std::uint32_t less = code.micro(Micro::less, x, minus, x);
  const std::uint32_t chosen = code.micro(Micro::select, less, x, s);
  code.store(chosen, 1, false);
  CHECK(code.needed()[less] == 0);
}

namespace {

// How many instructions are computed that are not reads.
std::size_t computed(const VectorCode& code) {
  const std::vector<char> needed = code.needed();
  std::size_t out = 0;
  for (std::size_t i = 0; i < needed.size(); ++i)
    if (needed[i] && !is_read(code.instructions()[i].op)) ++out;
  return out;
}

// The most values that are alive at once, reads of elements among them.
std::size_t alive(const VectorCode& code) {
  const std::vector<VectorInstruction>& all = code.instructions();
  std::vector<std::size_t> last(all.size(), 0);
  const auto counts = [&](std::uint32_t i) { return !is_read(all[i].op) || all[i].op == VectorOp::stream; };
  for (std::uint32_t i = 0; i < all.size(); ++i)
    for (int k = 0; k < arity(all[i].op); ++k) last[all[i].operands[k]] = i;
  std::size_t most = 0;
  for (std::uint32_t i = 0; i < all.size(); ++i) {
    std::size_t now = 0;
    for (std::uint32_t j = 0; j <= i; ++j) now += counts(j) && last[j] > i ? 1 : 0;
    most = std::max(most, now);
  }
  return most;
}

}  // namespace

TEMPLATE_TEST_CASE("signs and bounds that need no instruction have none", "", float, double) {
  if (skipped()) return;
  using T = TestType;
  using M = Micro;
  // Micro-operations with their operands: 0 for x, 1 for y, 2 for the first result, ...; and how many instructions
  // fewer there are than if each stood alone.
  const auto of = [](M m, int a, int b = 0) { return std::array{static_cast<int>(m), a, b}; };
  const auto make = [](VectorCode& code, const std::vector<std::array<int, 3>>& kernels, std::uint32_t x,
                       std::uint32_t y) {
    std::vector<std::uint32_t> values{x, y};
    for (const auto& [micro, a, b] : kernels) {
      const auto at = [&](int k) { return values[static_cast<std::size_t>(k)]; };
      values.push_back(code.micro(static_cast<M>(micro), at(a), at(b), x));
    }
    return values.back();
  };
  const struct {
    const char* name;
    std::vector<std::array<int, 3>> steps;
    std::size_t fewer;
  } cases[] = {
      {"x + -y", {of(M::neg, 1), of(M::add, 0, 2)}, 1},
      {"-y + x", {of(M::neg, 1), of(M::add, 2, 0)}, 1},
      {"x - -y", {of(M::neg, 1), of(M::sub, 0, 2)}, 1},
      {"-(-x)", {of(M::neg, 0), of(M::neg, 2), of(M::add, 1, 3)}, 2},
      {"-|x|", {of(M::abs, 0), of(M::neg, 2)}, 1},
      // The product is there; the change of sign becomes part of the sum.
      {"x y + -x y", {of(M::mul, 0, 1), of(M::neg, 0), of(M::mul, 3, 1), of(M::add, 2, 4)}, 2},
      {"exp(-|x|)", {of(M::abs, 0), of(M::neg, 2), of(M::exp, 3)}, 2},
      {"exp(-x^2)", {of(M::square, 0), of(M::neg, 2), of(M::exp, 3)}, 1},
      {"exp(-x x)", {of(M::neg, 0), of(M::mul, 2, 0), of(M::exp, 3)}, 1},
      {"exp(x |x|)", {of(M::abs, 0), of(M::mul, 2, 0), of(M::exp, 3)}, 0},
  };
  std::mt19937_64 random(5);
  for (const auto& c : cases) {
    INFO(c.name);
    // Each step by itself.
    std::size_t separately = 0;
    for (const auto& [micro, a, b] : c.steps) {
      VectorCode alone(dtype_t<T>);
      const std::uint32_t x = alone.stream(0);
      alone.store(alone.micro(static_cast<M>(micro), x, alone.stream(1), x), 2, false);
      separately += computed(alone);
    }
    VectorCode code(dtype_t<T>);
    code.store(make(code, c.steps, code.stream(0), code.stream(1)), 2, false);
    CHECK(computed(code) + c.fewer == separately);

    constexpr std::size_t n = 500;
    std::vector<std::vector<T>> values{random_numbers<T>(n, random), random_numbers<T>(n, random)};
    for (const auto& [micro, a, b] : c.steps) {
      std::vector<T> out(n);
      kernel<T>(static_cast<M>(micro), 0)(out.data(), values[static_cast<std::size_t>(a)].data(),
                                          values[static_cast<std::size_t>(b)].data(), nullptr, n);
      values.push_back(std::move(out));
    }
    std::vector<T> out(n);
    char* const slots[] = {reinterpret_cast<char*>(values[0].data()), reinterpret_cast<char*>(values[1].data()),
                           reinterpret_cast<char*>(out.data())};
    generate(code)->run()(slots, n);
    for (std::size_t i = 0; i < n; ++i) {
      CAPTURE(i, values[0][i], values[1][i], out[i], values.back()[i]);
      if (!same(out[i], values.back()[i])) FAIL("differs");
    }
  }
}

TEST_CASE("chains of instructions alternate, as far as there are registers") {
  VectorCode code(float32);
  std::vector<std::uint32_t> results;
  for (Slot s = 0; s < 3; ++s) {
    const std::uint32_t x = code.stream(s);
    results.push_back(code.micro(Micro::exp, x, x, x));
  }
  const std::uint32_t product =
      code.micro(Micro::mul, code.micro(Micro::mul, results[0], results[1], 0), results[2], 0);
  code.store(product, 3, false);
  const auto first_of_last_chain = [](const VectorCode& c) {
    std::size_t computed_before = 0;
    for (const VectorInstruction& i : c.instructions()) {
      if (i.op == VectorOp::stream && i.index == 2) break;
      if (!is_read(i.op)) ++computed_before;
    }
    return computed_before;
  };
  const VectorCode alternating = scheduled(code, {32, 6});
  CHECK(alternating.instructions().size() == code.instructions().size());
  CHECK(computed(alternating) == computed(code));
  CHECK(first_of_last_chain(code) >= 20);
  CHECK(first_of_last_chain(alternating) <= 4);
  REQUIRE(alternating.stores().size() == 1);
  CHECK(alternating.stores()[0].slot == 3);
  CHECK(alternating.instructions()[alternating.stores()[0].value].op == VectorOp::mul);

  // Forty at once would take more registers than there are.
  VectorCode wide(float32);
  std::uint32_t sum = wide.stream(0);
  for (Slot s = 1; s < 41; ++s) {
    const std::uint32_t x = wide.stream(s);
    sum = wide.micro(Micro::add, sum, wide.micro(Micro::exp, x, x, x), 0);
  }
  wide.store(sum, 41, false);
  for (const int registers : {16, 32}) {
    const std::size_t most = alive(scheduled(wide, {registers, 0}));
    CHECK(most <= static_cast<std::size_t>(registers));
    CHECK(most > 8);
  }
}
