#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;

namespace {

Array numbers(const Dims& shape, std::uint64_t seed, DType dtype = float64) {
  return uniform(to_shape(shape), -2, 2).draw(float64, seed, 0).astype(dtype);
}

// An output of a shape from its index: the expected numbers are written as a formula of the indices.
Array filled(DType dtype, const Dims& shape, const std::function<double(const std::vector<std::int64_t>&)>& f) {
  Array out(dtype, shape);
  std::vector<std::int64_t> index(shape.rank(), 0);
  for (std::int64_t i = 0; i < out.size(); ++i) {
    out.set(i, f(index));
    for (std::size_t axis = shape.rank(); axis-- > 0;) {
      if (++index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
  return out;
}

const std::vector<Sample> one_vector = {{.inputs = {uniform({3}, -2, 2)}}};

std::size_t fused_steps(const std::string& explained) {
  const auto plan = explained.rfind("plan for ");
  std::size_t count = 0;
  for (auto at = explained.find(": fused ", plan); at != std::string::npos; at = explained.find(": fused ", at + 1))
    ++count;
  return count;
}

}  // namespace

// ---- tracing

TEST_CASE("a functor is recorded as micro-operations") {
  using Kind = MicroProgram::Operand::Kind;
  const Forward forward = elementwise([](auto x, auto y) { return x / (1.0 + simd::abs(y)); });
  REQUIRE(forward.micro);
  const MicroProgram& program = *forward.micro;
  CHECK(program.inputs == 2);
  CHECK(program.attributes.empty());
  REQUIRE(program.instructions.size() == 3);
  CHECK(program.instructions[0].micro == Micro::abs);
  CHECK(program.instructions[0].operands[0].kind == Kind::input);
  CHECK(program.instructions[0].operands[0].index == 1);
  CHECK(program.instructions[1].micro == Micro::add);
  CHECK(program.instructions[1].operands[0].kind == Kind::number);
  CHECK(program.instructions[1].operands[0].number == 1);
  CHECK(program.instructions[1].operands[1].kind == Kind::result);
  CHECK(program.instructions[2].micro == Micro::div);
  CHECK(program.result.kind == Kind::result);
  CHECK(program.result.index == 2);
}

TEST_CASE("what returns an operand or a number still writes its output") {
  for (const Forward& forward : {elementwise([](auto x) { return x; }), elementwise([](auto /*x*/) { return 3.0; })}) {
    REQUIRE(forward.micro->instructions.size() == 1);
    CHECK(forward.micro->instructions[0].micro == Micro::copy);
  }
  const Op& three = register_op({.name = "three",
                                 .doc = "3.",
                                 .shape = same_shape,
                                 .forward = elementwise([](auto /*x*/) { return 3.0; }),
                                 .samples = one_vector});
  Graph graph;
  const auto x = graph.input("x", {5});
  const Array at = numbers({5}, 1);
  CHECK(compute(graph, {apply(three, {x})}, {{x, at}})[0].identical(Array::full(float64, {5}, 3)));
}

TEST_CASE("named attributes are operands after the inputs") {
  const Op& affine = register_op(
      {.name = "affine",
       .doc = "scale x + shift.",
       .shape = same_shape,
       .forward = elementwise([](auto x, auto scale, auto shift) { return scale * x + shift; }, {"scale", "shift"}),
       .samples = {{.inputs = {uniform({3})}, .attributes = {{"scale", 2.0}, {"shift", 1.0}}}}});
  CHECK(affine.forward.micro->inputs == 1);
  CHECK(affine.forward.micro->attributes == std::vector<std::string>{"scale", "shift"});
  Graph graph;
  const auto x = graph.input("x", {2});
  // Two uses with numbers of their own, in one group; a whole number serves as well.
  const auto y =
      apply(affine, {apply(affine, {x}, {{"scale", 3.0}, {"shift", -1.0}})}, {{"shift", 0.5}, {"scale", 10}});
  CHECK(compute(graph, {y}, {{x, Array({1.0, 2.0})}})[0].identical(Array({20.5, 50.5})));
  CHECK_THROWS_WITH(apply(affine, {x}, {{"scale", 3.0}}),
                    ContainsSubstring("affine: requires a number as attribute 'shift', got none"));
}

TEST_CASE("functions of simd:: outside of a functor") {
  // On numbers they compute.
  CHECK(simd::square(3.0) == 9);
  CHECK(simd::select(2.0 > 1.0, 5.0, 6.0) == 5);
  CHECK(simd::max(1.0, std::nan("")) != simd::max(1.0, std::nan("")));
  CHECK(simd::max(std::nan(""), 1.0) != simd::max(std::nan(""), 1.0));
  CHECK(simd::min(1.0, std::nan("")) != simd::min(1.0, std::nan("")));
  CHECK(simd::sign(-0.0) == 0);
  CHECK(simd::sigmoid(-800.0) == 0);
  CHECK(simd::sigmoid(800.0) == 1);
  // On an operand that is of no trace there is nothing to record to.
  const simd::Traced stray(2.0);
  CHECK_THROWS_WITH(simd::exp(stray),
                    ContainsSubstring("simd: functions of chainrule::simd are for the functor of an elementwise op"));
  CHECK_THROWS_AS(stray + 1.0, Error);
  CHECK_THROWS_AS(simd::select(stray, stray, stray), Error);
  // A functor that throws ends its trace.
  struct Throwing {
    simd::Traced operator()(simd::Traced /*x*/) const { throw std::runtime_error("no"); }
  };
  CHECK_THROWS_AS(elementwise<Throwing>(), std::runtime_error);
  CHECK_THROWS_AS(stray * 2.0, Error);
}

TEST_CASE("an operand kept from another functor is refused") {
  simd::Traced kept(0.0);
  static_cast<void>(elementwise([&](auto x) {
    kept = simd::exp(simd::exp(x));
    return x;
  }));
  CHECK_THROWS_WITH(elementwise([&](auto x) { return x + kept; }),
                    ContainsSubstring("simd: requires operands of the functor that is recorded, got another's"));
  CHECK_THROWS_AS(elementwise([&](auto /*x*/) { return kept; }), Error);
}

namespace {

// Ops that use each micro-operation, with the function of numbers that each should be.
using UserOps = std::vector<std::pair<const Op*, double (*)(double, double)>>;
const UserOps& user_ops() {
  static const UserOps ops = [] {
    UserOps out;
    const auto add = [&](const char* name, Forward forward, double (*f)(double, double)) {
      const std::vector<Sample> samples = {{.inputs = {uniform({3}), uniform({3})}}};
      out.emplace_back(&register_op({.name = name,
                                     .doc = "A micro-operation.",
                                     .shape = broadcast_shape,
                                     .forward = std::move(forward),
                                     .samples = samples}),
                       f);
    };
    using simd::abs, simd::select;
    add("u_add", elementwise([](auto x, auto y) { return x + y; }), [](double x, double y) { return x + y; });
    add("u_sub", elementwise([](auto x, auto y) { return x - y; }), [](double x, double y) { return x - y; });
    add("u_mul", elementwise([](auto x, auto y) { return x * y; }), [](double x, double y) { return x * y; });
    add("u_div", elementwise([](auto x, auto y) { return x / y; }), [](double x, double y) { return x / y; });
    add("u_neg", elementwise([](auto x, auto y) { return -x + y; }), [](double x, double y) { return y - x; });
    add("u_max", elementwise([](auto x, auto y) { return simd::max(x, y); }),
        [](double x, double y) { return simd::max(x, y); });
    add("u_min", elementwise([](auto x, auto y) { return simd::min(x, y); }),
        [](double x, double y) { return simd::min(x, y); });
    add("u_pow", elementwise([](auto x, auto y) { return simd::pow(abs(x), y); }),
        [](double x, double y) { return std::pow(std::abs(x), y); });
    add("u_less", elementwise([](auto x, auto y) { return x < y; }),
        [](double x, double y) { return x < y ? 1.0 : 0.0; });
    add("u_le", elementwise([](auto x, auto y) { return x <= y; }),
        [](double x, double y) { return x <= y ? 1.0 : 0.0; });
    add("u_gt", elementwise([](auto x, auto y) { return x > y; }),
        [](double x, double y) { return x > y ? 1.0 : 0.0; });
    add("u_ge", elementwise([](auto x, auto y) { return x >= y; }),
        [](double x, double y) { return x >= y ? 1.0 : 0.0; });
    add("u_eq", elementwise([](auto x, auto y) { return x == y; }),
        [](double x, double y) { return x == y ? 1.0 : 0.0; });
    add("u_ne", elementwise([](auto x, auto y) { return x != y; }),
        [](double x, double y) { return x != y ? 1.0 : 0.0; });
    add("u_and", elementwise([](auto x, auto y) { return (x > 0) && (y > 0); }),
        [](double x, double y) { return x > 0 && y > 0 ? 1.0 : 0.0; });
    add("u_or", elementwise([](auto x, auto y) { return (x > 0) || !(y > 0); }),
        [](double x, double y) { return x > 0 || !(y > 0) ? 1.0 : 0.0; });
    add("u_select", elementwise([](auto x, auto y) { return select(x < y, 2 * x, y); }),
        [](double x, double y) { return x < y ? 2 * x : y; });
    add("u_square", elementwise([](auto x, auto y) { return simd::square(x) + simd::sign(y); }),
        [](double x, double y) { return x * x + simd::sign(y); });
    add("u_root", elementwise([](auto x, auto y) { return simd::sqrt(abs(x)) + simd::floor(y); }),
        [](double x, double y) { return std::sqrt(std::abs(x)) + std::floor(y); });
    add("u_exp", elementwise([](auto x, auto y) { return simd::exp(x) + simd::expm1(y); }),
        [](double x, double y) { return std::exp(x) + std::expm1(y); });
    add("u_log", elementwise([](auto x, auto y) { return simd::log(abs(x) + 1) * simd::log1p(abs(y)); }),
        [](double x, double y) { return std::log(std::abs(x) + 1) * std::log1p(std::abs(y)); });
    add("u_sin", elementwise([](auto x, auto y) { return simd::sin(x) * simd::cos(y); }),
        [](double x, double y) { return std::sin(x) * std::cos(y); });
    add("u_tanh", elementwise([](auto x, auto y) { return simd::tanh(x) * simd::sigmoid(y); }),
        [](double x, double y) { return std::tanh(x) * simd::sigmoid(y); });
    add("u_erf", elementwise([](auto x, auto y) { return simd::erf(x) + simd::ceil(y); }),
        [](double x, double y) { return std::erf(x) + std::ceil(y); });
    return out;
  }();
  return ops;
}

}  // namespace

TEMPLATE_TEST_CASE("every micro-operation by the op of a user's", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const double eps = dtype == float32 ? 2e-6 : 1e-14;
  const UserOps& ops = user_ops();
  // Lengths around those of vector registers, their multiples and tiles.
  for (const std::int64_t n : {1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 511, 512, 513, 1000}) {
    Graph graph({.dtype = dtype});
    const auto x = graph.input("x", {n});
    const auto y = graph.input("y", {n});
    Values outputs;
    for (const auto& [op, f] : ops) outputs.push_back(apply(*op, {x, y}));
    Array a = numbers({n}, 1, dtype);
    const Array b = numbers({n}, 2, dtype);
    for (std::int64_t i = 0; i < n; i += 5) a.set(i, b[i]);  // ties
    const auto got = compute(graph, outputs, {{x, a}, {y, b}});
    for (std::size_t k = 0; k < ops.size(); ++k) {
      INFO(ops[k].first->name << " of " << n);
      for (std::int64_t i = 0; i < n; ++i)
        REQUIRE(got[k][i] == Approx(ops[k].second(a[i], b[i])).epsilon(eps).margin(eps));
    }
  }
}

// ---- fused groups

TEMPLATE_TEST_CASE("groups with operands that are broadcast", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const double eps = dtype == float32 ? 1e-5 : 1e-13;
  // Short rows are loaded, long ones (from 128) run row by row; with and without axes that collapse.
  const auto dims =
      GENERATE(Dims{5, 3}, Dims{4, 127}, Dims{4, 128}, Dims{3, 700}, Dims{1, 200}, Dims{200, 1}, Dims{1, 1});
  const std::int64_t m = dims[0];
  const std::int64_t n = dims[1];
  INFO("shape " << to_string(dims));
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", {m, n});
  const auto row = graph.input("row", {n});
  const auto column = graph.input("column", {m, 1});
  const auto number = graph.input("number", {});
  const auto single = graph.input("single", {1, 1});
  const auto y = (x * row + column) * number - single * 2.0;
  const auto z = relu(y) + column * row;
  const auto only_row = exp(row * 0.5) + x;
  const Array xs = numbers({m, n}, 1, dtype);
  const Array rows = numbers({n}, 2, dtype);
  const Array columns = numbers({m, 1}, 3, dtype);
  const Array one = Array::full(dtype, {1, 1}, -0.75);
  const auto got =
      compute(graph, {y, z, only_row}, {{x, xs}, {row, rows}, {column, columns}, {number, 1.5}, {single, one}});
  using Index = std::vector<std::int64_t>;
  const auto y_at = [&](const Index& i) { return (xs(i[0], i[1]) * rows[i[1]] + columns[i[0]]) * 1.5 + 1.5; };
  CHECK(allclose(got[0], filled(dtype, dims, y_at), eps, eps));
  CHECK(allclose(
      got[1], filled(dtype, dims, [&](const Index& i) { return std::max(y_at(i), 0.0) + columns[i[0]] * rows[i[1]]; }),
      eps, eps));
  CHECK(allclose(got[2], filled(dtype, dims, [&](const Index& i) { return std::exp(rows[i[1]] / 2) + xs(i[0], i[1]); }),
                 eps, eps));
}

TEST_CASE("groups of three and four axes") {
  const auto inner = GENERATE(3, 130);
  INFO("inner extent " << inner);
  Graph graph;
  const auto x = graph.input("x", {2, 3, 4, inner});
  const auto channel = graph.input("channel", {3, 1, 1});
  const auto middle = graph.input("middle", {3, 4, inner});
  const auto outer = graph.input("outer", {2, 1, 1, inner});
  const auto holes = graph.input("holes", {2, 1, 4, 1});
  const auto y = x * channel + middle - outer / (square(holes) + 1.0);
  const Array xs = numbers({2, 3, 4, inner}, 1);
  const Array cs = numbers({3, 1, 1}, 2);
  const Array ms = numbers({3, 4, inner}, 3);
  const Array os = numbers({2, 1, 1, inner}, 4);
  const Array hs = numbers({2, 1, 4, 1}, 5);
  const auto got = compute(graph, {y}, {{x, xs}, {channel, cs}, {middle, ms}, {outer, os}, {holes, hs}});
  CHECK(allclose(got[0],
                 filled(float64, {2, 3, 4, inner},
                        [&](const std::vector<std::int64_t>& i) {
                          const double h = hs(i[0], 0, i[2], 0);
                          return xs(i[0], i[1], i[2], i[3]) * cs[i[1]] + ms(i[1], i[2], i[3]) -
                                 os(i[0], 0, 0, i[3]) / (h * h + 1);
                        }),
                 1e-13, 1e-13));
}

TEST_CASE("operands of other dtypes, bool outputs and int64 groups") {
  const auto n = GENERATE(5, 300);
  Graph graph;
  const auto x = graph.input("x", {2, n});
  const auto single = graph.input("single", {2, n}, float32);
  const auto count = graph.input("count", {2, n}, int64);
  const auto flags = graph.input("flags", {n}, boolean);
  const auto positive = x > 0.0;
  const auto both = logical_and(positive, flags);
  const auto mixed = where(both, x, cast(single, float64)) + cast(count, float64);
  const auto narrow = cast(mixed, float32) * single;
  const auto whole = count * 3 - maximum(count, 2);
  const auto parity = equal(count, 1);
  const auto nonzero = cast(count, boolean);
  const auto none = logical_not(logical_or(parity, flags));
  Array bits(boolean, {n});
  for (std::int64_t i = 0; i < n; i += 3) bits.set(i, 1);
  const Array xs = numbers({2, n}, 1);
  const Array ss = numbers({2, n}, 2, float32);
  const Array cs = integers({2, n}, -3, 4).draw(float64, 3, 0);
  const auto got = compute(graph, {positive, both, mixed, narrow, whole, parity, nonzero, none},
                           {{x, xs}, {single, ss}, {count, cs}, {flags, bits}});
  CHECK(got[0].dtype() == boolean);
  CHECK(got[3].dtype() == float32);
  CHECK(got[4].dtype() == int64);
  for (std::int64_t i = 0; i < 2 * n; ++i) {
    const bool p = xs[i] > 0;
    const bool f = bits[i % n] != 0;
    REQUIRE((got[0][i] != 0) == p);
    REQUIRE((got[1][i] != 0) == (p && f));
    const double m = (p && f ? xs[i] : ss[i]) + cs[i];
    REQUIRE(got[2][i] == m);
    REQUIRE(got[3][i] == static_cast<double>(static_cast<float>(m) * static_cast<float>(ss[i])));
    REQUIRE(got[4][i] == cs[i] * 3 - std::max(cs[i], 2.0));
    REQUIRE((got[5][i] != 0) == (cs[i] == 1));
    REQUIRE((got[6][i] != 0) == (cs[i] != 0));
    REQUIRE((got[7][i] != 0) == !(cs[i] == 1 || f));
  }
}

TEST_CASE("casts round as C++ does, and infinities pass") {
  Graph graph;
  const auto x = graph.input("x", {6});
  const Array at({1.9, -1.9, 0.0, 1e300, -1e-300, std::numeric_limits<double>::infinity()});
  const auto got = compute(graph, {cast(x, boolean), cast(x, float32)}, {{x, at}});
  for (std::int64_t i = 0; i < 6; ++i) {
    CHECK((got[0][i] != 0) == (at[i] != 0));
    CHECK(got[1][i] == static_cast<double>(static_cast<float>(at[i])));
  }
  const auto few = graph.input("few", {3});
  CHECK(compute(graph, {cast(few, int64)}, {{few, Array({1.9, -1.9, 1e15 + 0.5})}})[0].identical(
      Array(std::vector<std::int64_t>{1, -1, 1'000'000'000'000'000})));
}

TEST_CASE("many outputs of one group") {
  const auto n = GENERATE(1, 100, 1500);
  Graph graph;
  const auto x = graph.input("x", {n});
  const auto a = x * 2.0;
  const auto b = a + 1.0;
  const auto c = tanh(b);
  const auto d = c * a;
  const auto flag = d > 0.1;
  Values outputs = {a, b, c, d, flag, a};
  State state(graph);
  Program program(state, {.outputs = outputs});
  const Array xs = numbers({n}, 1);
  const Results got = program.run({{x, xs}});
  CHECK(fused_steps(program.explain()) == 1);
  for (std::int64_t i = 0; i < n; ++i) {
    REQUIRE(got[0][i] == xs[i] * 2);
    REQUIRE(got[1][i] == xs[i] * 2 + 1);
    REQUIRE(got[2][i] == Approx(std::tanh(xs[i] * 2 + 1)).epsilon(1e-14));
    REQUIRE(got[3][i] == got[2][i] * got[0][i]);
    REQUIRE((got[4][i] != 0) == (got[3][i] > 0.1));
    REQUIRE(got[5][i] == got[0][i]);
  }
}

TEST_CASE("long groups, and ones of more values than registers") {
  // Hundreds of instructions in one group, all of whose first results are needed at its end.
  Graph graph;
  const auto x = graph.input("x", {700});
  Values early;
  for (int i = 0; i < 150; ++i) early.push_back(sin(x * (1.0 + i)));
  Value total = x;
  for (std::size_t i = early.size(); i-- > 0;) total = total * 0.5 + early[i];
  const Array xs = numbers({700}, 1);
  const auto got = compute(graph, {total}, {{x, xs}});
  for (std::int64_t i = 0; i < 700; ++i) {
    double expected = xs[i];
    for (int k = 150; k-- > 0;) expected = expected * 0.5 + std::sin(xs[i] * (1.0 + k));
    REQUIRE(got[0][i] == Approx(expected).epsilon(1e-12).margin(1e-12));
  }
}

TEST_CASE("an empty group") {
  Graph graph;
  const auto x = graph.input("x", {0, 3});
  const auto row = graph.input("row", {3});
  const auto got =
      compute(graph, {exp(x) * row, x > 0.0}, {{x, Array(float64, {0, 3})}, {row, Array({1.0, 2.0, 3.0})}});
  CHECK(got[0].shape() == Dims{0, 3});
  CHECK(got[1].dtype() == boolean);
}

// ---- what is written where it is read

namespace {

// An op that a pass does not know for the identity: its output is a copy of what may be overwritten.
Value same(Value x) {
  static const Op& op = register_op({.name = "same",
                                     .doc = "x, under another name.",
                                     .shape = same_shape,
                                     .forward = elementwise([](auto v) { return v; }),
                                     .gradient = [](const Node&, Value dy) -> Values { return {dy}; },
                                     .samples = one_vector});
  return apply(op, {x});
}

// A value that only a kernel makes, so that a group reads it from memory of the arena: a[n x n] times the identity.
struct InArena {
  explicit InArena(std::int64_t size) : n(size) {
    Array one(float64, {n, n});
    for (std::int64_t i = 0; i < n; ++i) one.set(i * n + i, 1);
    identity = graph.constant(one);
  }
  Value made(const std::string& name) { return matmul(graph.input(name, {n, n}), identity); }
  std::int64_t n;
  Graph graph;
  Value identity;
};

}  // namespace

TEST_CASE("outputs take the place of operands that are read for the last time") {
  // Each output could be written over any of the operands; all orders of reading and writing must come out right.
  const auto n = GENERATE(3, 40);
  InArena net(n);
  const auto a = net.made("a");
  const auto b = net.made("b");
  const auto sum_ab = a + b;
  const auto difference = a - b;
  const auto product = sum_ab * difference;
  const auto after = same(a);
  const auto again = same(b) + product;
  // Read by products, so that they are in the arena, too.
  const Values outputs = {matmul(sum_ab, net.identity), matmul(difference, net.identity), matmul(product, net.identity),
                          matmul(after, net.identity), matmul(again, net.identity)};
  const Array as = numbers({n, n}, 1);
  const Array bs = numbers({n, n}, 2);
  const auto got = compute(net.graph, outputs, {{"a", as}, {"b", bs}});
  const Array expected[] = {as + bs, as - bs, (as + bs) * (as - bs), as, bs + (as + bs) * (as - bs)};
  for (std::size_t i = 0; i < 5; ++i) CHECK(allclose(got[i], expected[i], 1e-14, 1e-14));
}

TEST_CASE("copies of operands that other outputs overwrite") {
  const auto order = GENERATE(0, 1, 2, 3, 4, 5);
  INFO("order " << order);
  InArena net(20);
  const auto a = net.made("a");
  const auto b = net.made("b");
  // In whatever order the group's outputs are made: copies of both operands, and something computed of both.
  Value copy_a;
  Value copy_b;
  Value both;
  const auto make = [&](int what) {
    if (what == 0) copy_a = same(a);
    if (what == 1) copy_b = same(b);
    if (what == 2) both = a * 3.0 - b;
  };
  const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  for (const int what : orders[order]) make(what);
  const auto joined = both + copy_a * copy_b;  // one group of all
  const Values outputs = {matmul(copy_b, net.identity), matmul(copy_a, net.identity), matmul(both, net.identity),
                          matmul(joined, net.identity), copy_a};
  const Array as = numbers({20, 20}, 1);
  const Array bs = numbers({20, 20}, 2);
  const auto got = compute(net.graph, outputs, {{"a", as}, {"b", bs}});
  CHECK(allclose(got[0], bs, 1e-14, 1e-14));
  CHECK(allclose(got[1], as, 1e-14, 1e-14));
  CHECK(allclose(got[2], as * 3.0 - bs, 1e-14, 1e-14));
  CHECK(allclose(got[3], as * 3.0 - bs + as * bs, 1e-13, 1e-13));
  CHECK(allclose(got[4], as, 1e-14, 1e-14));
}

TEST_CASE("variables change places by way of copies in one group") {
  Graph graph;
  const auto a = graph.variable("a", uniform({30}));
  const auto b = graph.variable("b", uniform({30}));
  const auto copy_a = same(a);
  const auto copy_b = same(b);
  State state(graph);
  const Array old_a = state[a];
  const Array old_b = state[b];
  Program program(state, {.outputs = {copy_a + copy_b}, .updates = {{a, copy_b}, {b, copy_a}}});
  CHECK(program.run()[0].identical(old_a + old_b));
  CHECK(state[a].identical(old_b));
  CHECK(state[b].identical(old_a));
}

TEST_CASE("an operand that is read as itself and as something broadcast is not overwritten") {
  InArena net(6);
  const auto a = net.made("a");
  const auto first = slice(a, 0, {.start = 0, .stop = 1});
  const auto y = a * 2.0 + first;
  const auto turned = reshape(transpose(a), {6, 6}) + reshape(reshape(a, {36}), {6, 6});
  const auto got_inputs = numbers({6, 6}, 1);
  const auto got = compute(net.graph, {matmul(y, net.identity), matmul(turned, net.identity)}, {{"a", got_inputs}});
  for (std::int64_t i = 0; i < 6; ++i)
    for (std::int64_t j = 0; j < 6; ++j) {
      CHECK(got[0](i, j) == Approx(2 * got_inputs(i, j) + got_inputs(0, j)).epsilon(1e-14));
      CHECK(got[1](i, j) == Approx(got_inputs(j, i) + got_inputs(i, j)).epsilon(1e-14).margin(1e-14));
    }
}

TEST_CASE("masks are made inside of groups, tile by tile, as they are outside") {
  const auto n = GENERATE(3, 130, 1001);
  INFO("rows of " << n);
  Graph graph({.seed = 3});
  const auto x = graph.input("x", {5, n});
  const auto row = graph.input("row", {n});
  const auto y = dropout(x, {.keep = 0.6});
  const auto fused = tanh(y * row);  // by row where n is large
  const auto masked = dropout(graph.constant(Array::full(float64, {5, n}, 1)), {.keep = 0.6});
  State state(graph);
  const Array xs = numbers({5, n}, 1);
  const Array rows = numbers({n}, 2);
  Program one(state, {.outputs = {fused}});
  Program two(state, {.outputs = {y, masked}});
  const Array together = one.run({{x, xs}, {row, rows}})[0];
  const Array alone = two.run({{x, xs}})[0];
  for (std::int64_t i = 0; i < 5 * n; ++i)
    REQUIRE(together[i] == Approx(std::tanh(alone[i] * rows[i % n])).epsilon(1e-14));
}

TEST_CASE("a mask that kernels read, too") {
  Graph graph;
  const auto x = graph.input("x", {3, 50});
  const auto mask = apply(*find_op("dropout_mask"), {graph.step()},
                          {{"shape", Shape{3, 50}}, {"dtype", float64}, {"keep", 0.4}, {"seed", 9}, {"stream", 2}});
  const Array xs = numbers({3, 50}, 1);
  const auto got =
      compute(graph, {mask, x * mask, sum(mask), reshape(mask, {150}) * reshape(x, {150}), sum(mask * 2.0)}, {{x, xs}});
  double kept = 0;
  for (std::int64_t i = 0; i < 150; ++i) {
    CHECK((got[0][i] == 0 || got[0][i] == 1));
    kept += got[0][i];
    CHECK(got[1][i] == xs[i] * got[0][i]);
    CHECK(got[3][i] == xs[i] * got[0][i]);
  }
  CHECK(got[2].item() == kept);
  CHECK(got[4].item() == 2 * kept);
}

// Element i is i plus the generator's scalar input, in any dtype but bool: so what each element should be is known.
const Op& counting() {
  static const Op& op = []() -> const Op& {
    Forward forward;
    forward.generator = [](const KernelCall& call) -> RangeRun {
      if (call.inputs.size() != 1) throw InternalError("a generator is not told its inputs");
      const DType of_input = call.inputs[0].dtype;
      return visit_dtype(call.output.dtype, [&](auto t) -> RangeRun {
        using T = decltype(t);
        return [of_input](const void* const* inputs, void* out, std::int64_t begin, std::int64_t end) {
          const double first = visit_dtype(
              of_input, [&](auto u) { return static_cast<double>(*static_cast<const decltype(u)*>(inputs[0])); });
          for (auto i = begin; i < end; ++i)
            static_cast<T*>(out)[i - begin] = static_cast<T>(first + static_cast<double>(i));
        };
      });
    };
    return register_op(
        {.name = "counting",
         .doc = "i + the input at element i.",
         .attributes = {{"shape", AttributeType::shape}, {"dtype", AttributeType::dtype}},
         .shape = [](const OpCall& call) -> Type {
           return {call.attributes().get<DType>("dtype"), call.attributes().get<Shape>("shape")};
         },
         .forward = forward,
         .samples = {{.inputs = {Array(1.0)}, .attributes = {{"shape", Shape{3}}, {"dtype", float64}}}}});
  }();
  return op;
}

Value counted(Value from, const Shape& shape, DType dtype) {
  return apply(counting(), {from}, {{"shape", shape}, {"dtype", dtype}});
}

TEST_CASE("what is made where it is read has the shape and dtype of its own") {
  const int threads = num_threads();
  const auto n = GENERATE(3, 40, 700);  // short rows, rows by rows, several tiles
  for (const int count : {1, 2, 5}) {
    set_num_threads(count);
    for (const DType dtype : {float32, float64}) {
      const DType other = dtype == float32 ? float64 : float32;
      INFO("rows of " << n << ", " << name(dtype) << ", " << count << " threads");
      Graph graph({.dtype = dtype});
      const std::int64_t m = 150;
      const Dimension rows = graph.dimension("rows");
      const auto x = graph.input("x", {rows, n});
      const auto at = graph.input("at", {});
      const auto all = counted(at, {rows, n}, dtype);
      const auto row = counted(at, {n}, dtype);
      const auto column = counted(at, {rows, 1}, dtype);
      const auto one = counted(at, {}, dtype);
      const auto wide = counted(at, {rows, n}, other);
      const auto whole = counted(at, {rows, n}, int64);
      const Values values = {x + all,
                             x + row,
                             x + column + row,
                             x * one,
                             broadcast_to(row, {rows, n}) * 2.0,
                             cast(wide, dtype) + x,
                             cast(whole, dtype) - x,
                             x + reshape(counted(at, {rows * Dimension(n)}, dtype), {rows, n}),
                             x + reshape(counted(at, {n, rows}, dtype), {rows, n}),
                             sum(x * row, 1),
                             where(greater(whole, 100), whole, -whole),
                             cast(counted(at, {n}, int64) + 1, other) * cast(x, other),
                             x + transpose(counted(at, {n, rows}, dtype)),
                             at + one};
      const auto got =
          compute(graph, values,
                  {{x, Array(zeros({m, n})).astype(dtype) + Array(1.0).astype(dtype)}, {at, Array(5.0).astype(dtype)}});
      const auto check = [&](std::size_t k, const std::function<std::int64_t(std::int64_t, std::int64_t)>& f) {
        INFO("value " << k);
        REQUIRE(got[k].shape() == Dims{m, n});
        std::int64_t wrong = 0;
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = 0; j < n; ++j) wrong += got[k](i, j) != static_cast<double>(f(i, j)) ? 1 : 0;
        CHECK(wrong == 0);
      };
      check(0, [&](auto i, auto j) { return 6 + i * n + j; });
      check(1, [&](auto, auto j) { return 6 + j; });
      check(2, [&](auto i, auto j) { return 11 + i + j; });
      check(3, [&](auto, auto) { return 5; });
      check(4, [&](auto, auto j) { return 10 + 2 * j; });
      check(5, [&](auto i, auto j) { return 6 + i * n + j; });
      check(6, [&](auto i, auto j) { return 4 + i * n + j; });
      check(7, [&](auto i, auto j) { return 6 + i * n + j; });
      check(8, [&](auto i, auto j) { return 6 + i * n + j; });
      for (std::int64_t i = 0; i < m; ++i) REQUIRE(got[9][i] == static_cast<double>(n * 5 + n * (n - 1) / 2));
      check(10, [&](auto i, auto j) { return 5 + i * n + j > 100 ? 5 + i * n + j : -(5 + i * n + j); });
      check(11, [&](auto, auto j) { return 6 + j; });
      check(12, [&](auto i, auto j) { return 6 + j * m + i; });
      CHECK(got[13].item() == 10);
    }
  }
  set_num_threads(threads);
}

TEST_CASE("what a generator reads is not overwritten before it runs") {
  // A group of one element, of which one value is made from the element that another could take the place of.
  Graph graph;
  const auto v = graph.variable("v", Array(3.0));
  const auto doubled = v * 2.0;
  const auto made = doubled + counted(v, {}, float64) * 10.0;
  State state(graph);
  Program program(state, {.outputs = {made}, .updates = {{v, doubled}}});
  CHECK(program.run().scalar() == 36);
  CHECK(state[v].item() == 6);
  CHECK(program.run().scalar() == 72);
  // Of an array, of which each tile reads the first element.
  const auto w = graph.variable("w", uniform({5000}, 1, 2));
  const auto next = w * 2.0;
  State other(graph);
  const double first = other[w][0];
  Program both(other, {.outputs = {next + counted(w, {5000}, float64)}, .updates = {{w, next}}});
  const Array old = other[w];
  const Array got = both.run()[0];
  for (std::int64_t i = 0; i < 5000; ++i) REQUIRE(got[i] == old[i] * 2.0 + (first + static_cast<double>(i)));
}

TEST_CASE("gradients through dropout in a part of another dtype") {
  for (const DType dtype : {float32, float64}) {
    Graph graph({.dtype = dtype});
    const auto a = graph.parameter("a", uniform({3000}, 1, 2));
    const auto kept = dropout(cast(a, dtype == float32 ? float64 : float32), {.keep = 1});
    const auto half = dropout(sum(reshape(a, {30, 100}), 0), {.keep = 0.5});
    const auto d = gradients(sum(kept), {a})[0];
    const auto e = gradients(sum(half), {a})[0];
    const auto got = compute(graph, {d, e});
    for (std::int64_t i = 0; i < 3000; ++i) {
      REQUIRE(got[0][i] == 1);
      REQUIRE(got[1][i] == got[1][i % 100]);  // all rows are summed before they are masked
      REQUIRE((got[1][i] == 0 || got[1][i] == 2));
    }
  }
}

TEST_CASE("one_hot in every dtype") {
  Graph graph;
  const auto k = graph.input("k", {3}, int64);
  const Array expected = Array({{0.0, 0.0, 1.0, 0.0}, {1.0, 0.0, 0.0, 0.0}, {0.0, 0.0, 0.0, 1.0}});
  for (const DType dtype : {float32, float64, int64, int32, uint8, boolean}) {
    INFO(name(dtype));
    const auto got = compute(graph, {one_hot(k, 4, dtype), one_hot(k, 4, dtype, 0)},
                             {{k, Array(std::vector<std::int64_t>{2, 0, 3})}});
    CHECK(got[0].identical(expected.astype(dtype)));
    CHECK(got[1].identical(expected.transpose().astype(dtype)));
  }
}

TEST_CASE("dtypes that a forward rule is not written for are refused where the op is applied") {
  // A shape rule that lets everything through.
  const auto op = [](const char* op_name, Forward forward, Sample sample = {.inputs = {ones({2})}}) -> const Op& {
    return register_op({.name = op_name,
                        .doc = "For floating numbers.",
                        .shape = [](const OpCall& call) -> Type { return call.type(0); },
                        .forward = std::move(forward),
                        .samples = {std::move(sample)}});
  };
  const Op& exponential = op("exponential", elementwise([](auto x) { return simd::exp(x); }));
  const Op& halved = op("halved", elementwise([](auto x) { return x * 0.5; }));
  const Op& scaled = op("scaled", elementwise([](auto x, auto by) { return x * by; }, {"by"}),
                        {.inputs = {ones({2})}, .attributes = {{"by", 2.0}}});
  const Forward copy = kernel([]<class T>(const std::vector<Tensor<const T>>& x, Tensor<T> y, const Attributes&) {
    std::copy(x[0].begin(), x[0].end(), y.data);
  });
  const Op& copied = op("copied", copy);
  const Op& first_of_two = op("first_of_two", copy, {.inputs = {ones({2}), ones({2})}});
  Graph graph;
  const auto n = graph.input("n", {2}, int64);
  const auto b = graph.input("b", {2}, boolean);
  const auto bytes = graph.input("bytes", {2}, uint8);
  const auto x = graph.input("x", {2});
  const auto y = graph.input("y", {2}, float32);
  const Value step = graph.step();
  const auto nodes = graph.size();
  const auto refuse = [&](const Op& of, const Values& inputs, const Attributes& attributes,
                          const std::string& message) {
    const int line = __LINE__ + 1;
    const Error error = test::error_of([&] { apply(of, inputs, attributes); });
    CHECK_THAT(error.what(), ContainsSubstring(of.name + ": requires " + message));
    CHECK(error.location().line == line);
    CHECK(graph.size() == nodes);
  };
  refuse(exponential, {n}, {}, "float32 or float64, got int64");
  refuse(halved, {n}, {}, "float32 or float64, got int64");
  refuse(scaled, {n}, {{"by", 1.5}}, "float32 or float64, got int64");
  refuse(copied, {n}, {}, "an output of float32 or float64, got int64");
  refuse(exponential, {bytes}, {}, "float32 or float64, got uint8");
  refuse(scaled, {bytes}, {{"by", 256}}, "float32 or float64, got uint8");  // a number that uint8 has not
  refuse(copied, {bytes}, {}, "an output of float32 or float64, got uint8");
  refuse(copied, {b}, {}, "an output of float32 or float64, got bool");
  refuse(first_of_two, {x, y}, {}, "inputs of the output's dtype, float64, got float32");
  for (const DType dtype : {int64, int32, uint8, boolean}) {
    const Attributes drawn({{"shape", Shape{2}}, {"dtype", dtype}, {"seed", 1}, {"stream", 1}});
    const std::string message = "an output of float32 or float64, got " + std::string(name(dtype));
    refuse(*find_op("dropout_mask"), {step}, drawn.with("keep", 0.5), message);
    refuse(*find_op("random_uniform"), {step}, drawn.with("low", 0.0).with("high", 1.0), message);
  }
  const auto got = compute(graph, {apply(scaled, {n}, {{"by", 3.0}}), apply(halved, {y})},
                           {{n, Array(std::vector<std::int64_t>{4, -1})}, {y, Array({3.0, 5.0}).astype(float32)}});
  CHECK(got[0].identical(Array(std::vector<std::int64_t>{12, -3})));
  CHECK(got[1].identical(Array({1.5, 2.5}).astype(float32)));
}

// ---- ops of a user's own

TEST_CASE("kernel(): an op that is not elementwise") {
  // The running sum along a vector, and its reverse as the gradient.
  static const Op* reverse_sum = nullptr;
  const auto running = [](bool backwards) {
    return kernel(
        [backwards]<class T>(const std::vector<Tensor<const T>>& x, Tensor<T> y, const Attributes& attributes) {
          const T scale = static_cast<T>(attributes.get<double>("scale"));
          const std::int64_t n = y.size();
          T total = 0;
          for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t k = backwards ? n - 1 - i : i;
            y[k] = total += scale * x[0][k];
          }
        });
  };
  const Op& forward_sum = register_op(
      {.name = "running_sum",
       .doc = "The sum of all elements so far.",
       .attributes = {{"scale", 1.0}},
       .shape = same_shape,
       .forward = running(false),
       .gradient = [](const Node& node, Value dy) -> Values { return {apply(*reverse_sum, {dy}, node.attributes())}; },
       .samples = one_vector});
  reverse_sum = &register_op({.name = "reverse_running_sum",
                              .doc = "The sum of all elements from here on.",
                              .attributes = {{"scale", 1.0}},
                              .shape = same_shape,
                              .forward = running(true),
                              .gradient = [&forward_sum](const Node& node, Value dy) -> Values {
                                return {apply(forward_sum, {dy}, node.attributes())};
                              },
                              .samples = one_vector});
  for (const DType dtype : {float32, float64}) {
    Graph graph({.dtype = dtype});
    const auto x = graph.input("x", {graph.dimension("n")});
    const auto y = apply(forward_sum, {x * 2.0}, {{"scale", 0.5}});
    const auto dx = gradients(sum(y * y), {x})[0];
    const auto got = compute(graph, {y, dx}, {{x, Array({1.0, 2.0, 4.0}).astype(dtype)}});
    CHECK(got[0].identical(Array({1.0, 3.0, 7.0}).astype(dtype)));
    CHECK(got[1].identical(Array({22.0, 20.0, 14.0}).astype(dtype)));
  }
  CHECK(check_gradients(forward_sum).passed());

  const Op& whole =
      register_op({.name = "whole_kernel",
                   .doc = "Int64, which kernel() has no functor for.",
                   .shape = [](const OpCall& call) -> Type { return call.type(0); },
                   .forward = kernel([]<class T>(const std::vector<Tensor<const T>>&, Tensor<T>, const Attributes&) {}),
                   .samples = {{.inputs = {ones({2})}, .differentiate = false}}});
  Graph graph;
  const auto n = graph.input("n", {2}, int64);
  const auto wrong = [&] { apply(whole, {n}); };
  const int line = __LINE__ - 1;
  CHECK_THROWS_WITH(wrong(), ContainsSubstring("test_elementwise.cpp:" + std::to_string(line) +
                                               ": whole_kernel: requires an output of float32 or float64"));
}

TEST_CASE("a kernel with several inputs of several shapes") {
  const Op& outer = register_op(
      {.name = "outer",
       .doc = "x_i y_j.",
       .shape = [](const OpCall& call) -> Type {
         call.require_inputs(2);
         call.require_same_dtype();
         return {call.dtype(0), {call.shape(0)[0], call.shape(1)[0]}};
       },
       .forward = kernel([]<class T>(const std::vector<Tensor<const T>>& x, Tensor<T> y, const Attributes&) {
         for (std::int64_t i = 0; i < y.shape[0]; ++i)
           for (std::int64_t j = 0; j < y.shape[1]; ++j) y[i * y.shape[1] + j] = x[0][i] * x[1][j];
       }),
       .gradient = [](const Node& node, Value dy) -> Values {
         return {sum(dy * node.input(1), 1), sum(dy * reshape(node.input(0), {-1, 1}), 0)};
       },
       .samples = {{.inputs = {uniform({3}), uniform({2})}}}});
  CHECK(check_gradients(outer).passed());
  Graph graph;
  const auto x = graph.input("x", {graph.dimension("m")});
  const auto y = graph.input("y", {graph.dimension("n")});
  const auto z = apply(outer, {x, y});
  CHECK(z.shape() == Shape{graph.dimension("m"), graph.dimension("n")});
  const auto got = compute(graph, {z, apply(outer, {x, x})}, {{x, Array({1.0, 2.0})}, {y, Array({3.0, 4.0, 5.0})}});
  CHECK(got[0].identical(Array({{3.0, 4.0, 5.0}, {6.0, 8.0, 10.0}})));
  CHECK(got[1].identical(Array({{1.0, 2.0}, {2.0, 4.0}})));  // one operand twice
}

TEST_CASE("expand(): an op that is made of others keeps its own gradient rule") {
  static int asked = 0;
  const Op& hypot = register_op(
      {.name = "hypotenuse",
       .doc = "sqrt(x^2 + y^2), with a slope of 0 at the origin.",
       .shape = broadcast_shape,
       .forward = expand([](const Node& node) -> Value { return sqrt(square(node.input(0)) + square(node.input(1))); }),
       .gradient = [](const Node& node, Value dy) -> Values {
         ++asked;
         const Value y = node.output();
         const Value safe = where(y > 0.0, y, 1.0);
         return {dy * node.input(0) / safe, dy * node.input(1) / safe};
       },
       .samples = {{.inputs = {uniform({3}, 1, 2), uniform({3}, 1, 2)}}}});
  Graph graph;
  const auto x = graph.input("x", {3});
  const auto y = graph.input("y", {});
  const auto h = apply(hypot, {x, y});
  const auto d = gradients(sum(h), {x, y});
  CHECK(asked == 1);
  CHECK_THAT(graph.to_string(), ContainsSubstring("= hypotenuse(x, y)  float64 {3}  test_elementwise.cpp:"));
  const auto got = compute(graph, {h, d[0], d[1]}, {{x, Array({3.0, 0.0, -5.0})}, {y, 0.0}});
  CHECK(got[0].identical(Array({3.0, 0.0, 5.0})));
  CHECK(got[1].identical(Array({1.0, 0.0, -1.0})));  // 0 / 0 but for the rule
  CHECK(got[2].item() == 0);
  CHECK(check_gradients(hypot).passed());
}

TEST_CASE("an op that cannot be checked or run is not registered") {
  const auto refuse = [](Op op, const std::string& message) {
    const int line = __LINE__ + 2;
    try {
      register_op(op);
      FAIL_CHECK("nothing was thrown");
    } catch (const Error& error) {
      CHECK_THAT(error.what(), ContainsSubstring(message));
      CHECK(error.location().line == line);
    }
  };
  const std::size_t before = registry().size();
  const Op good = {.name = "good",
                   .doc = "Good.",
                   .shape = same_shape,
                   .forward = elementwise([](auto x) { return x; }),
                   .samples = one_vector};
  Op op = good;
  op.name = "";
  refuse(op, "register_op: cannot be registered: it has no name");
  op = good;
  op.name = "relu";
  refuse(op, "relu: cannot be registered: an op of this name exists");
  op = good;
  op.doc = "";
  refuse(op, "good: cannot be registered: it has no doc");
  op = good;
  op.shape = {};
  refuse(op, "good: cannot be registered: it has no shape rule");
  op = good;
  op.forward = {};
  refuse(op, "good: cannot be registered: it has no forward rule");
  op = good;
  op.samples.clear();
  refuse(op, "good: cannot be registered: it has no samples");
  op = good;
  op.samples = {{.inputs = {ones({2}), ones({2})}}};
  refuse(op, "good: cannot be registered: its functor takes 1 inputs, and a sample has 2");
  CHECK(registry().size() == before);
  CHECK(find_op("good") == nullptr);
  const Op& made = register_op(good);
  CHECK(&made == find_op("good"));
  CHECK(registry().size() == before + 1);
}

TEST_CASE("what int64 has of the micro-operations, shape rules and kernels agree upon") {
  for (std::size_t m = 0; m < micro_count; ++m) {
    CAPTURE(m);
    {
      CHECK(has_integers(static_cast<Micro>(m)) == (kernels::integer_micro<std::int64_t>(m, 0) != nullptr));
      CHECK(has_integers(static_cast<Micro>(m)) == (kernels::integer_micro<std::int32_t>(m, 0) != nullptr));
      CHECK(has_integers(static_cast<Micro>(m)) == (kernels::integer_micro<std::uint8_t>(m, 0) != nullptr));
    }
  }
}
