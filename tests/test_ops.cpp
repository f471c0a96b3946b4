// The forward of every registered op against its reference (references.hpp): on the op's own samples, and on sizes,
// shapes and dtypes made up here, so that tails of vectors, tiles and rows of every kind are met.
#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/initial.hpp>
#include <chainrule/framework/graph/node_facts.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/matmul.hpp>
#include <chainrule/ops/reduce.hpp>

#include "catch.hpp"
#include "compare.hpp"
#include "references.hpp"
#include "support.hpp"

using namespace chainrule;
using namespace chainrule::test;

namespace {

constexpr std::uint64_t seed = 1;
// Around the widths of vectors, the longest tile (512) and the blocks of sums (256).
constexpr std::int64_t sizes[] = {0, 1, 3, 7, 8, 9, 63, 64, 65, 511, 513, 1000};

// ---- comparison

Inputs as_references(const std::vector<Array>& arrays) { return {arrays.begin(), arrays.end()}; }

// What is wrong with `got`, or nothing.
std::string difference(const Array& got, const X& expected, const X& magnitude, const Reference& reference) {
  if (!(got.shape() == Dims(expected.shape())))
    return fmt::format("shape {}, expected {}", chainrule::to_string(got.shape()),
                       chainrule::to_string(Dims(expected.shape())));
  const bool floating = is_floating(got.dtype());
  double worst = -1;
  std::int64_t at = 0;
  for (std::int64_t i = 0; i < got.size(); ++i) {
    const double e = expected.flat(static_cast<std::size_t>(i));
    double away =
        floating ? ulps(got.dtype(), got[i], e, magnitude.flat(static_cast<std::size_t>(i))) : std::abs(got[i] - e);
    if (reference.signed_zero && floating && got[i] == 0 && e == 0 && std::signbit(got[i]) != std::signbit(e))
      away = std::numeric_limits<double>::infinity();
    if (away > worst) {
      worst = away;
      at = i;
    }
  }
  if (worst <= (floating ? reference.ulps : 0)) return "";
  return fmt::format("element {} is {}, expected {}: {} ulp off, {} allowed", at, got[at],
                     expected.flat(static_cast<std::size_t>(at)), worst, reference.ulps);
}

const Reference& reference_of(const Op& op) {
  const auto found = references().find(op.name);
  if (found == references().end())
    FAIL("op '" << op.name << "' has no reference: write one into the table of tests/references.hpp");
  return found->second;
}

// What an op should compute, once for all dtypes that see these numbers.
struct Expected {
  struct Output {
    const Reference& reference;
    X value;
    X magnitude;
  };
  std::vector<Output> outputs;

  Expected(const Op& op, const std::vector<Array>& inputs, const Attributes& attributes, Mode mode = Mode::training) {
    const Inputs in = as_references(inputs);
    const Reference& first = reference_of(op);
    std::vector<Type> types;
    for (const Array& x : inputs) types.push_back({x.dtype(), to_shape(x.shape())});
    const std::size_t count = output_types(op, types, attributes).size();
    REQUIRE(count <= 1 + first.further.size());
    for (std::size_t i = 0; i < count; ++i) {
      const Reference& r = i == 0 ? first : first.further[i - 1];
      X value = (mode == Mode::inference && r.inference ? r.inference : r.value)(in, attributes);
      X magnitude = r.magnitude ? r.magnitude(in, attributes) : value;
      outputs.push_back({r, std::move(value), std::move(magnitude)});
    }
  }
};

void check(const Op& op, const std::vector<Array>& inputs, const Attributes& attributes, const Expected& expected,
           Given given = Given::fed, Mode mode = Mode::training) {
  const char* const ways[] = {"fed", "fed, of symbolic shapes", "constants"};
  INFO("op " << op.name << " on " << test::to_string(inputs) << ", " << ways[static_cast<std::size_t>(given)]
             << (attributes.empty() ? "" : " with ") << attributes.to_string()
             << (mode == Mode::inference ? ", in inference" : ""));
  const std::vector<Array> got = compute_all(op, inputs, attributes, given, mode);
  REQUIRE(got.size() == expected.outputs.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto& [reference, value, magnitude] = expected.outputs[i];
    const std::string wrong = difference(got[i], value, magnitude, reference);
    INFO("output " << i << ": " << wrong);
    CHECK(wrong.empty());
  }
}

void check_near(const Array& got, const X& expected, const X& magnitude, double allowed) {
  const std::string wrong = difference(got, expected, magnitude, {.value = {}, .ulps = allowed});
  INFO(wrong);
  CHECK(wrong.empty());
}

void check_near(const Array& got, const X& expected, double allowed) { check_near(got, expected, expected, allowed); }

// Whether the op takes inputs of these types.
bool takes(const Op& op, const std::vector<Type>& types, const Attributes& attributes) {
  try {
    output_type(op, types, attributes);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool takes(const Op& op, const std::vector<Array>& inputs, const Attributes& attributes) {
  std::vector<Type> types;
  for (const Array& x : inputs) types.push_back({x.dtype(), to_shape(x.shape())});
  return takes(op, types, attributes);
}

bool takes_symbols(const Op& op, const std::vector<Array>& inputs, const Attributes& attributes) {
  std::vector<Type> types;
  for (const Array& x : inputs) {
    types.push_back({x.dtype(), {}});
    for (const auto extent : x.shape())
      types.back().shape.push_back(extent > 1 ? Dimension::symbol(fmt::format("n{}", extent)) : extent);
  }
  return takes(op, types, attributes);
}

// ---- made-up numbers

enum class Domain : std::uint8_t { positive, mixed, coarse };

// Numbers that float32 has exactly. Coarse ones are whole, so that there are ties and zeros.
Array numbers(DType dtype, const Dims& dims, Domain domain, std::uint64_t stream) {
  const Shape shape = to_shape(dims);
  if (dtype == boolean) return integers(shape, 0, 2).draw(float32, seed, stream).astype(boolean);
  if (dtype == int64 || domain == Domain::coarse)
    return integers(shape, -3, 4).draw(float32, seed, stream).astype(dtype);
  const Initial drawn = domain == Domain::positive ? uniform(shape, 0.1, 4) : uniform(shape, -4, 4);
  return drawn.draw(float32, seed, stream).astype(dtype);
}

// Shapes of the operands of an elementwise op, with rows of n elements and all ways of broadcasting them.
std::vector<std::vector<Dims>> operand_shapes(std::size_t operands, std::int64_t n) {
  if (operands == 1) return {{{n}}, {{3, n}}, {{n, 3}}};
  if (operands == 2)
    return {{{n}, {n}},          {{3, n}, {n}}, {{3, 1}, {1, n}}, {{}, {n}},        {{n}, {1}},
            {{2, 1, n}, {3, 1}}, {{n, 2}, {2}}, {{n, 1}, {n, 2}}, {{2, n}, {2, n}}, {{2, 3, n}, {2, 1, n}}};
  if (operands == 3)
    return {{{n}, {n}, {n}}, {{3, n}, {n}, {3, 1}},   {{}, {n}, {n}},       {{n}, {}, {n}},
            {{n}, {n}, {}},  {{2, 1, n}, {3, 1}, {}}, {{n, 2}, {2}, {n, 1}}};
  return {std::vector<Dims>(operands, Dims{n})};
}

bool rounds_nothing(Value value) {
  return chainrule::detail::rounds_nothing(*value.data(), value.data()->node(value.id()));
}

// The sizes of the floating numbers that an op is given: its inputs', and its attributes' in this dtype.
std::set<double> given_to(const std::vector<Array>& inputs, const Attributes& attributes, DType dtype) {
  std::set<double> out;
  for (const Array& input : inputs)
    for (std::int64_t i = 0; is_floating(input.dtype()) && i < input.size(); ++i)
      if (!std::isnan(input[i])) out.insert(std::abs(input[i]));
  attributes.for_each([&](const std::string&, const Attribute& attribute) {
    if (const double* x = std::get_if<double>(&attribute.variant()))
      out.insert(std::abs(dtype == float32 ? static_cast<double>(static_cast<float>(*x)) : *x));
  });
  return out;
}

// The dtypes that the inputs of a sample have, with `floating` for the floating ones.
std::vector<DType> dtypes_of(const Sample& sample, DType floating) {
  std::vector<DType> out;
  for (const Initial& input : sample.inputs) out.push_back(input.dtype(floating));
  return out;
}

}  // namespace

TEST_CASE("every op has a reference, and every reference an op") {
  for (const Op* op : registry()) CHECK_NOTHROW(reference_of(*op));
  for (const auto& [name, reference] : references()) {
    INFO("tests/references.hpp has a reference for '" << name << "', which is no op");
    CHECK(find_op(name) != nullptr);
  }
}

TEST_CASE("every op computes its reference on its samples") {
  for (const Op* op : registry()) {
    for (const Sample& sample : op->samples) {
      // Numbers that both dtypes have, then for float64 the sample's own: 1e300 is not infinite there.
      for (const auto& [dtype, through] : {std::pair{float64, float32}, {float32, float32}, {float64, float64}}) {
        std::vector<Array> inputs;
        for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
          const Array drawn = sample.inputs[i].draw(through, seed, i);
          inputs.push_back(is_floating(drawn.dtype()) ? drawn.astype(dtype) : drawn);
        }
        const Attributes attributes = in_dtype(sample.attributes, dtype);
        const Expected expected(*op, inputs, attributes);
        check(*op, inputs, attributes, expected);
        check(*op, inputs, attributes, expected, Given::fixed);
        if (takes_symbols(*op, inputs, attributes)) check(*op, inputs, attributes, expected, Given::symbolic);
        const Expected inferred(*op, inputs, attributes, Mode::inference);
        check(*op, inputs, attributes, inferred, Given::fed, Mode::inference);
      }
    }
  }
}

// Where no element is, none may be read or written either, which the sanitizers tell.
TEST_CASE("every op takes its samples with any extent emptied, or refuses them") {
  std::set<std::string> emptied;
  for (const Op* op : registry()) {
    for (const Sample& sample : op->samples) {
      std::vector<Array> drawn;
      std::set<std::int64_t> extents;
      for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
        drawn.push_back(sample.inputs[i].draw(float64, seed, i));
        for (const auto extent : drawn.back().shape()) extents.insert(extent);
      }
      extents.erase(0);
      for (const std::int64_t gone : extents) {
        std::vector<Array> inputs = drawn;
        for (Array& x : inputs) {
          Dims dims = x.shape();
          std::replace(dims.begin(), dims.end(), gone, std::int64_t{0});
          if (!(dims == x.shape())) x = Array(x.dtype(), dims);
        }
        if (!takes(*op, inputs, sample.attributes)) continue;
        INFO("op " << op->name << " on " << test::to_string(inputs) << " with " << sample.attributes.to_string());
        std::vector<Array> got;
        try {
          got = compute_all(*op, inputs, sample.attributes, Given::fed, Mode::training);
        } catch (const Error&) {
          continue;  // the greatest of nothing
        }
        emptied.insert(op->name);
        if (std::any_of(got.begin(), got.end(), [](const Array& y) { return y.size() > 0; }))
          check(*op, inputs, sample.attributes, Expected(*op, inputs, sample.attributes));
      }
    }
  }
  for (const char* name : {"take", "scatter_add", "scatter_along_axis", "conv", "matmul", "sum", "softmax", "concat"})
    CHECK(emptied.contains(name));
  CHECK(emptied.size() > registry().size() / 2);
}

TEST_CASE("an op that rounds nothing gives numbers of its inputs or attributes, but for their sign, or whole ones") {
  std::set<std::string> names;
  for (const DType dtype : {float32, float64}) {
    for (const Op* op : registry()) {
      for (const Sample& sample : op->samples) {
        Graph graph({.dtype = dtype});
        Values inputs;
        std::vector<Array> arrays;
        std::vector<Feed> feeds;
        arrays.reserve(sample.inputs.size());  // which feeds refer to
        for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
          arrays.push_back(sample.inputs[i].draw(dtype, seed, i));
          inputs.push_back(graph.input(fmt::format("x{}", i), to_shape(arrays[i].shape()), arrays[i].dtype()));
          feeds.emplace_back(inputs[i], arrays[i]);
        }
        const Attributes attributes = in_dtype(sample.attributes, dtype);
        const Values outputs = apply(graph, *op, inputs, attributes).node().outputs();
        if (!rounds_nothing(outputs[0])) continue;
        names.insert(op->name);
        INFO("op " << op->name);
        const std::set<double> given = given_to(arrays, attributes, dtype);
        for (const Array& y : compute(graph, outputs, feeds)) {
          if (!is_floating(y.dtype())) continue;
          std::int64_t rounded = 0;
          for (std::int64_t i = 0; i < y.size(); ++i)
            rounded += std::isnan(y[i]) || y[i] == std::floor(y[i]) || given.contains(std::abs(y[i])) ? 0 : 1;
          CHECK(rounded == 0);
        }
      }
    }
  }
  // What is only moved, chosen or counted is known as such, whatever way it is computed.
  for (const char* name :
       {"neg",          "abs",          "relu",          "clip",   "maximum",         "where",   "floor",
        "broadcast_to", "reshape",      "transpose",     "slice",  "slice_scatter",   "concat",  "split",
        "max",          "min",          "sort",          "topk",   "take_along_axis", "one_hot", "extent",
        "take",         "dropout_mask", "stop_gradient", "by_mode"})
    CHECK(names.contains(name));
}

TEST_CASE("a conversion rounds unless it is from bool") {
  Graph graph;
  const auto x = graph.input("x", {3});
  CHECK(!rounds_nothing(cast(x, float32)));
  CHECK(!rounds_nothing(cast(graph.input("i", {3}, int64), float64)));
  CHECK(rounds_nothing(cast(x > 0.0, float64)));
  CHECK(rounds_nothing(where(x > 0.0, x, 0.1)));
  CHECK(!rounds_nothing(x + 0.0));
}

TEST_CASE("elementwise ops compute their references in every size, broadcast and dtype") {
  for (const Op* op : registry()) {
    // Those with a shape among their attributes have cases of their own below.
    if (!op->forward.micro || op->samples[0].attributes.has("shape")) continue;
    const std::size_t operands = op->forward.micro->inputs;
    std::set<std::vector<DType>> kinds = {std::vector<DType>(operands, int64), std::vector<DType>(operands, boolean)};
    for (const Sample& sample : op->samples) kinds.insert(dtypes_of(sample, float64));
    std::set<Attributes, bool (*)(const Attributes&, const Attributes&)> attribute_sets(
        [](const Attributes& a, const Attributes& b) { return a.to_string() < b.to_string(); });
    for (const Sample& sample : op->samples) attribute_sets.insert(sample.attributes);

    std::size_t cases = 0;
    for (const std::vector<DType>& kind : kinds) {
      const bool floating = std::any_of(kind.begin(), kind.end(), is_floating);
      for (const Domain domain : {Domain::positive, Domain::mixed, Domain::coarse}) {
        if (!floating && domain != Domain::coarse) continue;
        for (const std::int64_t n : sizes) {
          for (const auto& shapes : operand_shapes(operands, n)) {
            std::vector<Array> inputs;
            for (std::size_t i = 0; i < operands; ++i) inputs.push_back(numbers(kind[i], shapes[i], domain, i));
            for (const Attributes& attributes : attribute_sets) {
              if (!takes(*op, inputs, attributes)) continue;
              const Expected expected(*op, inputs, attributes);
              check(*op, inputs, attributes, expected);
              if (n == 7 || n == 513) check(*op, inputs, attributes, expected, Given::symbolic);
              ++cases;
              if (!floating) continue;
              std::vector<Array> narrow;
              for (const Array& x : inputs) narrow.push_back(is_floating(x.dtype()) ? x.astype(float32) : x);
              check(*op, narrow, in_dtype(attributes, float32), expected);
            }
          }
        }
      }
    }
    INFO("op " << op->name);
    CHECK(cases > 0);
  }
}

namespace {

// An op on shapes, in every dtype that it takes.
struct Shaped {
  std::string op;
  std::vector<Dims> shapes;
  Attributes attributes = {};
};

void check_in_every_dtype(const Shaped& c, Domain domain = Domain::mixed) {
  const Op* op = find_op(c.op);
  REQUIRE(op != nullptr);
  std::size_t cases = 0;
  for (const DType dtype : {float64, int64, boolean}) {
    std::vector<Array> inputs;
    for (std::size_t i = 0; i < c.shapes.size(); ++i) inputs.push_back(numbers(dtype, c.shapes[i], domain, i));
    if (!takes(*op, inputs, c.attributes)) continue;
    const Expected expected(*op, inputs, c.attributes);
    check(*op, inputs, c.attributes, expected);
    ++cases;
    if (dtype != float64) continue;
    for (Array& x : inputs) x = x.astype(float32);
    check(*op, inputs, c.attributes, expected);
  }
  INFO("op " << c.op << ", shape " << chainrule::to_string(c.shapes[0]));
  CHECK(cases > 0);
}

Attributes slice_of(std::int64_t axis, std::int64_t start, std::int64_t size, std::int64_t step) {
  return {{"axis", axis}, {"start", Shape{start}}, {"size", Shape{size}}, {"step", step}};
}

}  // namespace

TEST_CASE("reductions compute their references over every set of axes") {
  std::vector<Dims> shapes = {{2, 3, 4}, {3, 1, 5, 2}, {2, 3, 2, 3, 2}, {40, 3, 70}, {70, 129}, {129, 70}};
  for (const auto n : sizes) {
    shapes.push_back({n});
    if (n == 0) continue;
    shapes.push_back({n, 3});
    shapes.push_back({3, n});
    shapes.push_back({2, n, 3});
  }
  for (const Dims& shape : shapes) {
    for (unsigned set = 0; set < 1U << shape.rank(); ++set) {
      Axes axes;
      for (std::size_t i = 0; i < shape.rank(); ++i)
        if ((set >> i & 1U) != 0)
          axes.push_back(static_cast<std::int64_t>(i) - (i % 2 == 0 ? 0 : static_cast<std::int64_t>(shape.rank())));
      for (const std::string op : {"sum", "mean", "max", "min", "logsumexp"}) {
        if (count(shape) == 0 && op != "sum") continue;  // nothing has no greatest element
        const Shaped c{op, {shape}, {{"axes", axes}, {"keepdims", set % 3 == 1}}};
        check_in_every_dtype(c);
        if (op == "max" || op == "min") check_in_every_dtype(c, Domain::coarse);  // ties
      }
    }
    for (std::size_t axis = 0; axis < shape.rank(); ++axis) {
      if (count(shape) == 0) continue;
      const Attributes along = {{"axis", axis}};
      check_in_every_dtype({"argmax", {shape}, along}, Domain::coarse);
      check_in_every_dtype({"argmax", {shape}, along});
      check_in_every_dtype({"softmax", {shape}, along});
      check_in_every_dtype({"log_softmax", {shape}, along});
      check_in_every_dtype({"softmax_gradient", {shape, shape}, along});
      check_in_every_dtype({"softmax_cross_entropy", {shape, shape}, along}, Domain::positive);
    }
    if (count(shape) == 0) continue;
    check_in_every_dtype({"sigmoid_cross_entropy", {shape, shape}});
    check_in_every_dtype({"mean_squared_error", {shape, shape}});
  }
}

TEST_CASE("layout ops compute their references on strided and odd shapes") {
  const Dims rank3{5, 18, 33};
  for (const Axes& permutation :
       {Axes{0, 1, 2}, Axes{0, 2, 1}, Axes{1, 0, 2}, Axes{1, 2, 0}, Axes{2, 0, 1}, Axes{2, 1, 0}})
    check_in_every_dtype({"transpose", {rank3}, {{"permutation", permutation}}});
  check_in_every_dtype({"transpose", {{2, 3, 4, 5}}, {{"permutation", Axes{3, 1, 0, 2}}}});
  check_in_every_dtype({"transpose", {{2, 1, 3, 1, 4}}, {{"permutation", Axes{4, 3, 2, 1, 0}}}});
  check_in_every_dtype({"transpose", {{2, 3, 2, 3, 2, 3, 2, 2}}, {{"permutation", Axes{7, 0, 6, 1, 5, 2, 4, 3}}}});
  for (const auto n : sizes) {
    check_in_every_dtype({"transpose", {{n, 3}}, {{"permutation", Axes{1, 0}}}});
    check_in_every_dtype({"transpose", {{3, n}}, {{"permutation", Axes{1, 0}}}});
    check_in_every_dtype({"reshape", {{n, 6}}, {{"shape", Shape{2, n, 3}}}});
    check_in_every_dtype({"broadcast_to", {{n}}, {{"shape", Shape{3, n}}}});
    check_in_every_dtype({"broadcast_to", {{n, 1}}, {{"shape", Shape{2, n, 3}}}});
    check_in_every_dtype({"broadcast_to", {{3, 1, 1}}, {{"shape", Shape{3, 2, n}}}});
    check_in_every_dtype({"broadcast_to", {{}}, {{"shape", Shape{n}}}});
    check_in_every_dtype({"concat", {{3, n}, {3, 2}, {3, n}}, {{"axis", 1}}});
    check_in_every_dtype({"concat", {{n, 2}, {1, 2}}, {{"axis", 0}}});
    for (const std::int64_t step : {1, 2, 3, -1, -2}) {
      const std::int64_t size = step > 0 ? (n + step - 1) / step : n / -step;
      const std::int64_t start = step > 0 || size == 0 ? 0 : n - 1;
      for (const auto& [axis, shape] :
           {std::pair<std::int64_t, Dims>{0, {n}}, {1, {3, n}}, {0, {n, 3}}, {1, {2, n, 2}}}) {
        check_in_every_dtype({"slice", {shape}, slice_of(axis, start, size, step)});
        Dims part = shape;
        part[static_cast<std::size_t>(axis)] = size;
        check_in_every_dtype({"slice_scatter", {part}, slice_of(axis, start, size, step).with("whole", Shape{n})});
        check_in_every_dtype({"slice_add", {shape, part}, slice_of(axis, start, size, step)});
        check_in_every_dtype({"slice_update", {shape, part}, slice_of(axis, start, size, step)});
      }
    }
  }
}

TEST_CASE("layout ops of layout ops give the elements of the view") {
  for (const DType dtype : {float32, float64, int64, boolean}) {
    const Array a = numbers(dtype, {6, 35, 20}, Domain::mixed, 0);
    const X x = a;
    Graph graph;
    const Value v = graph.input("x", {6, 35, 20}, dtype);
    const Value turned = transpose(slice(transpose(v, {2, 0, 1}), 2, {.start = 30, .stop = 3, .step = -4}), {1, 0, 2});
    const Value joined = concat({turned, slice(turned, 1, {.start = -5})}, 1);
    const Value flat = reshape(transpose(joined), {-1, 6});
    State state(graph);
    Program program(state, {.outputs = {turned, joined, flat}});
    const Results results = program.run({{v, a}});

    const X expected_turned =
        xt::strided_view(xt::transpose(x, {0, 2, 1}), {xt::all(), xt::all(), xt::range(30, 3, -4)});
    const X last = xt::strided_view(expected_turned, {xt::all(), xt::range(15, 20), xt::all()});
    const X expected_joined = xt::concatenate(xt::xtuple(expected_turned, last), 1);
    X expected_flat = xt::transpose(expected_joined);
    expected_flat.reshape({175, 6});
    check_near(results[turned], expected_turned, 0);
    check_near(results[joined], expected_joined, 0);
    check_near(results[flat], expected_flat, 0);
  }
}

TEST_CASE("ops compute the same on transposed and sliced operands") {
  for (const DType dtype : {float32, float64}) {
    const Array a = numbers(dtype, {65, 30}, Domain::mixed, 0);
    const Array b = numbers(dtype, {30, 65}, Domain::mixed, 1);
    const X x = a;
    const X y = b;
    const X yt = xt::transpose(y);
    Graph graph;
    const Value v = graph.input("a", {65, 30}, dtype);
    const Value w = graph.input("b", {30, 65}, dtype);
    const Value added = v + transpose(w);
    const Value sliced = slice(w, 1, {.step = 2}) - slice(w, 1, {.start = -1, .step = -2});
    const Value gram = matmul(transpose(v), transpose(w));
    const Value rows = sum(transpose(w), 1);
    const Value columns = max(transpose(w), 0);
    State state(graph);
    Program program(state, {.outputs = {added, sliced, gram, rows, columns}});
    const Results results = program.run({{v, a}, {w, b}});

    const X forward = take(y, 1, places(slice_of(1, 0, 33, 2)));
    const X backward = take(y, 1, places(slice_of(1, 64, 33, -2)));
    check_near(results[added], x + yt, 0.5);
    check_near(results[sliced], forward - backward, 0.5);
    check_near(results[gram], product(xt::transpose(x), yt, {}), product(xt::abs(xt::transpose(x)), xt::abs(yt), {}),
               4);
    check_near(results[rows], finished(total(yt, {1}), {1}, false), finished(total(xt::abs(yt), {1}), {1}, false), 4);
    check_near(results[columns], finished(greatest(yt, {0}), {0}, false), 0);
  }
}

TEST_CASE("matrix products compute their references in every orientation") {
  const std::int64_t extents[] = {1, 3, 8, 65};
  for (const auto m : extents)
    for (const auto k : extents)
      for (const auto n : extents)
        for (unsigned flags = 0; flags < 4; ++flags) {
          const bool ta = (flags & 1U) != 0;
          const bool tb = (flags & 2U) != 0;
          check_in_every_dtype({"matmul",
                                {ta ? Dims{k, m} : Dims{m, k}, tb ? Dims{n, k} : Dims{k, n}},
                                {{"transpose_a", ta}, {"transpose_b", tb}}});
        }
  // Sizes around those at which the second operand is transposed first.
  for (const std::int64_t m : {31, 32, 65})
    for (const std::int64_t n : {32, 63, 64, 67, 128, 129})
      for (const std::int64_t k : {3, 45, 64, 65, 128})
        check_in_every_dtype({"matmul", {{m, k}, {n, k}}, {{"transpose_a", false}, {"transpose_b", true}}});
  check_in_every_dtype({"matmul", {{3, 1, 4, 5}, {2, 5, 3}}});
  check_in_every_dtype({"matmul", {{4, 5}, {2, 3, 5, 3}}});
  check_in_every_dtype({"matmul", {{0, 4, 5}, {5, 3}}});
  // Batches whose rows or columns are those of one product.
  for (unsigned flags = 0; flags < 4; ++flags) {
    const bool ta = (flags & 1U) != 0;
    const bool tb = (flags & 2U) != 0;
    const Attributes attributes = {{"transpose_a", ta}, {"transpose_b", tb}};
    for (const std::int64_t m : {1, 4})
      for (const std::int64_t k : {1, 5})
        for (const std::int64_t n : {1, 3}) {
          const auto matrix = [](Dims batch, std::int64_t rows, std::int64_t columns, bool transposed) {
            batch.push_back(transposed ? columns : rows);
            batch.push_back(transposed ? rows : columns);
            return batch;
          };
          for (const auto& [a, b] : {std::pair<Dims, Dims>{{6}, {}},
                                     {{}, {6}},
                                     {{2, 3}, {3}},
                                     {{2, 3}, {2, 1}},
                                     {{2, 1}, {2, 3}},
                                     {{2, 1}, {3}},
                                     {{1}, {6}},
                                     {{2, 3, 1}, {1, 3, 4}},
                                     {{0, 2}, {}},
                                     {{}, {2, 0}},
                                     {{2, 3}, {1, 1}}})
            check_in_every_dtype({"matmul", {matrix(a, m, k, ta), matrix(b, k, n, tb)}, attributes});
        }
  }
  check_in_every_dtype({"matmul", {{3, 0}, {0, 3}}});
  check_in_every_dtype({"matmul", {{0, 3}, {3, 2}}});
}

TEST_CASE("batch norm computes its reference in every layout and mode") {
  const Op& op = *find_op("batch_norm");
  for (const auto& [axis, shape] : {std::pair<std::int64_t, Dims>{1, {64, 7}},
                                    {0, {9, 65}},
                                    {1, {4, 3, 5, 6}},
                                    {-1, {5, 8, 33}},
                                    {1, {1, 3}},
                                    {2, {2, 3, 1}}}) {
    const Dims features{
        shape[static_cast<std::size_t>(axis < 0 ? axis + static_cast<std::int64_t>(shape.rank()) : axis)]};
    for (const DType dtype : {float32, float64}) {
      std::vector<Array> inputs = {numbers(dtype, shape, Domain::mixed, 0)};
      for (std::uint64_t i = 1; i < 5; ++i) inputs.push_back(numbers(dtype, features, Domain::positive, i));
      const Attributes attributes = {{"axis", axis}, {"epsilon", 1e-5}};
      check(op, inputs, attributes, Expected(op, inputs, attributes));
      check(op, inputs, attributes, Expected(op, inputs, attributes, Mode::inference), Given::fed, Mode::inference);
    }
  }
}
