#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/fused/fused_step.hpp>
#include <chainrule/framework/kernels/step.hpp>
#include <chainrule/framework/passes/pass.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using namespace chainrule::passes;

namespace {

// The line that the nodes built from now on carry, so that the listings here do not change with this file.
class Line {
 public:
  void operator()(int number) {
    scope_.reset();
    scope_.emplace(Location{"net.cpp", number});
  }

 private:
  std::optional<detail::LocationScope> scope_;
};

// The needed nodes in the order of a walk from the results, inputs first. In which order the operands of an expression
// become nodes is the compiler's choice, so that listings of anything but chains are compared in this one.
Computation in_order(const Computation& c) {
  const detail::GraphData& from = *c.graph.data();
  const auto to = std::make_shared<detail::GraphData>();
  to->options = from.options;
  to->leaves = from.leaves;
  std::vector<Value> made(from.nodes.size());
  const std::function<Value(detail::NodeId)> visit = [&](detail::NodeId id) {
    if (made[id].defined()) return made[id];
    const detail::NodeData& old = from.node(id);
    detail::NodeData node;
    node.op = old.op;
    node.type = old.type;
    node.attributes = old.attributes;
    node.at = old.at;
    node.payload = old.payload;
    for (const detail::NodeId input : old.inputs) node.inputs.push_back(visit(input).id());
    if (detail::constant_value({c.graph.data().get(), id}) != nullptr) {
      node.payload = static_cast<std::uint32_t>(to->constants.size());
      to->constants.push_back(from.constants[old.payload]);
    }
    return made[id] = to->append(std::move(node));
  };
  Computation out{Graph(to), {}};
  for (const Value result : c.results) out.results.push_back(visit(result.id()));
  return out;
}

std::string listing(const Computation& c) { return "\n" + in_order(c).to_string(); }

std::string listing_of_groups(const Computation& c) {
  const Computation ordered = in_order(c);
  return "\n" + passes::to_string(ordered, fuse_elementwise(ordered));
}

// An op as its name, where the builder function would do a pass's work itself.
Value raw(const char* op, const Values& inputs, const Attributes& attributes = {}) {
  return apply(*find_op(op), inputs, attributes, Location{});
}

}  // namespace

// ---- each pass by itself

TEST_CASE("remove_dead keeps what the results need") {
  Graph graph;
  Line line;
  line(1);
  const auto x = graph.input("x", {graph.dimension("batch"), 3});
  const auto unused = graph.input("unused", {2});
  line(2);
  const auto w = graph.parameter("w", zeros({3}));
  line(3);
  const auto y = x * w;
  static_cast<void>(exp(unused) + 2.0);
  line(4);
  const auto z = tanh(y);
  static_cast<void>(sum(z));
  const Computation c{graph, {z, w, z}};
  const std::string before = c.to_string();
  CHECK("\n" + before == R"(
x = input  float64 {batch, 3}  net.cpp:1
unused = input  float64 {2}  net.cpp:1
w = parameter  float64 {3}  net.cpp:2
%3 = mul(x, w)  float64 {batch, 3}  net.cpp:3
%4 = exp(unused)  float64 {2}  net.cpp:3
%6 = add(%4, 2)  float64 {2}  net.cpp:3
%7 = tanh(%3)  float64 {batch, 3}  net.cpp:4
%8 = sum(%7, axes=(0, 1), keepdims=false)  float64 {}  net.cpp:4
results: %7 w %7
)");
  CHECK(listing(remove_dead(c)) == R"(
x = input  float64 {batch, 3}  net.cpp:1
w = parameter  float64 {3}  net.cpp:2
%2 = mul(x, w)  float64 {batch, 3}  net.cpp:3
%3 = tanh(%2)  float64 {batch, 3}  net.cpp:4
results: %3 w %3
)");
  CHECK(c.to_string() == before);  // passes leave what they read alone
}

TEST_CASE("fold_constants computes what does not change from run to run") {
  Graph graph;
  Line line;
  line(1);
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 2});
  line(2);
  const auto a = graph.constant(Array({1.0, 2.0})) + Array({3.0, 5.0});
  line(3);
  const auto y = x * (a * 2.0);
  line(4);
  const auto z = y / extent(graph, {4, 3}, float64) + sqrt(sum(a));
  line(5);
  const auto counted = z / extent(graph, {batch, 3}, float64);  // known in a run only
  line(6);
  const auto spread = counted + broadcast_to(graph.constant(1.0, float64), {2});  // more to keep than to make
  line(7);
  const auto hot = spread + one_hot(graph.constant(Array(std::int64_t{5})), 1, float64);  // throws: in a run
  line(8);
  const auto flags = where(less(graph.constant(Array({1.0, 5.0})), 3.0), hot, 0.0);
  const Computation c{graph, {flags, a}};
  CHECK(listing(c) == R"(
%0 = constant([1, 5])  float64 {2}  net.cpp:8
%2 = less(%0, 3)  bool {2}  net.cpp:8
x = input  float64 {batch, 2}  net.cpp:1
%4 = constant([1, 2])  float64 {2}  net.cpp:2
%5 = constant([3, 5])  float64 {2}  net.cpp:2
%6 = add(%4, %5)  float64 {2}  net.cpp:2
%8 = mul(%6, 2)  float64 {2}  net.cpp:3
%9 = mul(x, %8)  float64 {batch, 2}  net.cpp:3
%10 = extent(shape={4, 3}, dtype=float64)  float64 {}  net.cpp:4
%11 = div(%9, %10)  float64 {batch, 2}  net.cpp:4
%12 = sum(%6, axes=(0), keepdims=false)  float64 {}  net.cpp:4
%13 = sqrt(%12)  float64 {}  net.cpp:4
%14 = add(%11, %13)  float64 {batch, 2}  net.cpp:4
%15 = extent(shape={batch, 3}, dtype=float64)  float64 {}  net.cpp:5
%16 = div(%14, %15)  float64 {batch, 2}  net.cpp:5
%18 = broadcast_to(1, shape={2})  float64 {2}  net.cpp:6
%19 = add(%16, %18)  float64 {batch, 2}  net.cpp:6
%21 = one_hot(5, classes={1}, dtype=float64, axis=0)  float64 {1}  net.cpp:7
%22 = add(%19, %21)  float64 {batch, 2}  net.cpp:7
%24 = where(%2, %22, 0)  float64 {batch, 2}  net.cpp:8
results: %24 %6
)");
  CHECK(listing(fold_constants(c)) == R"(
%0 = constant([1, 0])  bool {2}  net.cpp:8
x = input  float64 {batch, 2}  net.cpp:1
%2 = constant([8, 14])  float64 {2}  net.cpp:3
%3 = mul(x, %2)  float64 {batch, 2}  net.cpp:3
%5 = div(%3, 12)  float64 {batch, 2}  net.cpp:4
%7 = add(%5, 3.3166247903554)  float64 {batch, 2}  net.cpp:4
%8 = extent(shape={batch, 3}, dtype=float64)  float64 {}  net.cpp:5
%9 = div(%7, %8)  float64 {batch, 2}  net.cpp:5
%11 = broadcast_to(1, shape={2})  float64 {2}  net.cpp:6
%12 = add(%9, %11)  float64 {batch, 2}  net.cpp:6
%14 = one_hot(5, classes={1}, dtype=float64, axis=0)  float64 {1}  net.cpp:7
%15 = add(%12, %14)  float64 {batch, 2}  net.cpp:7
%17 = where(%0, %15, 0)  float64 {batch, 2}  net.cpp:8
%18 = constant([4, 7])  float64 {2}  net.cpp:2
results: %17 %18
)");
}

TEST_CASE("fold_constants leaves what hangs on a size to the runs, whichever attribute says so") {
  Graph graph;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n});
  const auto numbers = graph.constant(Array({10.0, 11.0, 12.0, 13.0, 14.0}));
  const auto last = apply(*find_op("slice"), {numbers}, {{"axis", 0}, {"start", Shape{n}}, {"size", 1}, {"step", 1}});
  State state(graph);
  Program program(state, {.outputs = {sum(x) + last}});
  CHECK(program.run({{x, Array({1.0, 2.0})}}).at(0).item() == 15);
  CHECK(program.run({{x, Array({1.0, 2.0, 3.0})}}).at(0).item() == 19);
}

TEST_CASE("merge_common makes equal nodes one") {
  Graph graph({.seed = 5});
  Line line;
  line(1);
  const auto x = graph.input("x", {2, 3});
  const auto y = graph.input("y", {2, 3});
  line(2);
  const auto first = (x + y) * 2.0;
  line(3);
  const auto second = 2.0 * (y + x);  // in the other order
  line(4);
  const auto third = x - y;
  const auto fourth = y - x;  // not the same
  line(5);
  const auto fifth = sum(x, 0) + sum(x, 1, true) + sum(x, 0);
  line(6);
  const auto sixth = graph.constant(Array({1.0, 2.0, 3.0})) * graph.constant(Array({1.0, 2.0, 3.0}));
  const auto seventh = graph.constant(Array({1.0, 2.0, 3.0}).astype(float32));
  line(7);
  const auto one_mask = dropout(x, {.keep = 0.5});
  const auto eighth = one_mask + dropout(x, {.keep = 0.5});  // two masks
  line(8);
  const auto ninth = leaky_relu(x, 0.1) + leaky_relu(x, 0.2) + leaky_relu(x, 0.1);
  const Computation c{graph, {first, second, third, fourth, fifth, sixth, seventh, eighth, ninth}};
  CHECK(listing(c) == R"(
x = input  float64 {2, 3}  net.cpp:1
y = input  float64 {2, 3}  net.cpp:1
%2 = add(x, y)  float64 {2, 3}  net.cpp:2
%4 = mul(%2, 2)  float64 {2, 3}  net.cpp:2
%6 = add(y, x)  float64 {2, 3}  net.cpp:3
%7 = mul(2, %6)  float64 {2, 3}  net.cpp:3
%8 = sub(x, y)  float64 {2, 3}  net.cpp:4
%9 = sub(y, x)  float64 {2, 3}  net.cpp:4
%10 = sum(x, axes=(0), keepdims=false)  float64 {3}  net.cpp:5
%11 = sum(x, axes=(1), keepdims=true)  float64 {2, 1}  net.cpp:5
%12 = add(%10, %11)  float64 {2, 3}  net.cpp:5
%13 = sum(x, axes=(0), keepdims=false)  float64 {3}  net.cpp:5
%14 = add(%12, %13)  float64 {2, 3}  net.cpp:5
%15 = constant([1, 2, 3])  float64 {3}  net.cpp:6
%16 = constant([1, 2, 3])  float64 {3}  net.cpp:6
%17 = mul(%15, %16)  float64 {3}  net.cpp:6
%18 = constant([1, 2, 3])  float32 {3}  net.cpp:6
step = variable  int64 {}  net.cpp:7
%20 = dropout_mask(step, shape={2, 3}, dtype=float64, keep=0.5, seed=5, stream=0)  float64 {2, 3}  net.cpp:7
%21 = mul(x, %20)  float64 {2, 3}  net.cpp:7
%23 = mul(%21, 2)  float64 {2, 3}  net.cpp:7
%24 = by_mode(%23, x, noise=true)  float64 {2, 3}  net.cpp:7
%25 = dropout_mask(step, shape={2, 3}, dtype=float64, keep=0.5, seed=5, stream=1)  float64 {2, 3}  net.cpp:7
%26 = mul(x, %25)  float64 {2, 3}  net.cpp:7
%28 = mul(%26, 2)  float64 {2, 3}  net.cpp:7
%29 = by_mode(%28, x, noise=true)  float64 {2, 3}  net.cpp:7
%30 = add(%24, %29)  float64 {2, 3}  net.cpp:7
%31 = leaky_relu(x, slope=0.1)  float64 {2, 3}  net.cpp:8
%32 = leaky_relu(x, slope=0.2)  float64 {2, 3}  net.cpp:8
%33 = add(%31, %32)  float64 {2, 3}  net.cpp:8
%34 = leaky_relu(x, slope=0.1)  float64 {2, 3}  net.cpp:8
%35 = add(%33, %34)  float64 {2, 3}  net.cpp:8
results: %4 %7 %8 %9 %14 %17 %18 %30 %35
)");
  CHECK(listing(merge_common(c)) == R"(
x = input  float64 {2, 3}  net.cpp:1
y = input  float64 {2, 3}  net.cpp:1
%2 = add(x, y)  float64 {2, 3}  net.cpp:2
%4 = mul(%2, 2)  float64 {2, 3}  net.cpp:2
%5 = sub(x, y)  float64 {2, 3}  net.cpp:4
%6 = sub(y, x)  float64 {2, 3}  net.cpp:4
%7 = sum(x, axes=(0), keepdims=false)  float64 {3}  net.cpp:5
%8 = sum(x, axes=(1), keepdims=true)  float64 {2, 1}  net.cpp:5
%9 = add(%7, %8)  float64 {2, 3}  net.cpp:5
%10 = add(%9, %7)  float64 {2, 3}  net.cpp:5
%11 = constant([1, 2, 3])  float64 {3}  net.cpp:6
%12 = mul(%11, %11)  float64 {3}  net.cpp:6
%13 = constant([1, 2, 3])  float32 {3}  net.cpp:6
step = variable  int64 {}  net.cpp:7
%15 = dropout_mask(step, shape={2, 3}, dtype=float64, keep=0.5, seed=5, stream=0)  float64 {2, 3}  net.cpp:7
%16 = mul(x, %15)  float64 {2, 3}  net.cpp:7
%17 = mul(%16, 2)  float64 {2, 3}  net.cpp:7
%18 = by_mode(%17, x, noise=true)  float64 {2, 3}  net.cpp:7
%19 = dropout_mask(step, shape={2, 3}, dtype=float64, keep=0.5, seed=5, stream=1)  float64 {2, 3}  net.cpp:7
%20 = mul(x, %19)  float64 {2, 3}  net.cpp:7
%21 = mul(%20, 2)  float64 {2, 3}  net.cpp:7
%22 = by_mode(%21, x, noise=true)  float64 {2, 3}  net.cpp:7
%23 = add(%18, %22)  float64 {2, 3}  net.cpp:7
%24 = leaky_relu(x, slope=0.1)  float64 {2, 3}  net.cpp:8
%25 = leaky_relu(x, slope=0.2)  float64 {2, 3}  net.cpp:8
%26 = add(%24, %25)  float64 {2, 3}  net.cpp:8
%27 = add(%26, %24)  float64 {2, 3}  net.cpp:8
results: %4 %4 %5 %6 %10 %12 %13 %23 %27
)");
}

TEST_CASE("simplify_algebra: identities of arithmetic") {
  Graph graph;
  Line line;
  const auto x = graph.input("x", {2}, Location{});
  const auto c = graph.input("c", {2}, boolean, Location{});
  line(1);
  const Values results = {
      x * 1.0,
      1.0 * x,
      x + 0.0,
      0.0 + x,
      x - 0.0,
      x / 1.0,  // all x
      pow(x, 1.0),
      -(-x),
      where(c, x, x),
      maximum(x, x),
      minimum(x, x),
      stop_gradient(x),
      raw("cast", {x}, {{"dtype", float64}}),
      broadcast_to(x, {2}),
  };
  const Computation of_x{graph, results};
  CHECK(listing(simplify_algebra(of_x)) == R"(
x = input  float64 {2}
results: x x x x x x x x x x x x x x
)");
  line(2);
  const Computation squares{graph, {x * x, pow(x, 2.0)}};
  CHECK(listing(simplify_algebra(squares)) == R"(
x = input  float64 {2}
%1 = square(x)  float64 {2}  net.cpp:2
%2 = square(x)  float64 {2}  net.cpp:2
results: %1 %2
)");
  // Small powers are products, and a condition that is known is gone.
  const Computation powers{
      graph, {pow(x, 0.0), pow(x, 3.0), pow(x, -1.0), pow(x, 7.0), where(graph.constant(1, boolean), x, -x)}};
  CHECK(listing(simplify_algebra(powers)) == R"(
%1 = broadcast_to(1, shape={2})  float64 {2}  net.cpp:2
x = input  float64 {2}
%3 = square(x)  float64 {2}  net.cpp:2
%4 = mul(%3, x)  float64 {2}  net.cpp:2
%6 = div(1, x)  float64 {2}  net.cpp:2
%7 = square(x)  float64 {2}  net.cpp:2
%8 = mul(%7, x)  float64 {2}  net.cpp:2
%9 = square(%8)  float64 {2}  net.cpp:2
%10 = mul(%9, x)  float64 {2}  net.cpp:2
results: %1 %4 %6 %10 x
)");
  // What must stay: 0 * x is NaN where x is; a 0 or 1 that widens the shape; 0 - x; 1 / x; larger powers and other
  // roots.
  line(3);
  const auto wide_zero = graph.constant(Array(float64, {1, 1}));
  const auto wide_one = graph.constant(Array::full(float64, {1, 1}, 1));
  const Computation stays{graph,
                          {x * 0.0, x + wide_zero, wide_one * x, 0.0 - x, 1.0 / x, pow(x, 9.0), pow(x, 0.3),
                           pow(x, NAN), pow(x, INFINITY), pow(2.0, x), where(c, x, -x)}};
  CHECK(listing(simplify_algebra(stays)) == listing(stays));
}

TEST_CASE("simplify_algebra: layout ops that undo each other") {
  Graph graph;
  Line line;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 2, 3}, Location{});
  const auto one = graph.input("one", {1, n, 1}, Location{});
  line(1);
  const Computation c{
      graph,
      {reshape(reshape(x, {n * 6}), {n, 2, 3}), reshape(x, {n, 2, 3}), transpose(transpose(x)), transpose(x, {0, 1, 2}),
       transpose(transpose(x, {1, 2, 0}), {1, 2, 0}), reshape(reshape(x, {n * 6}), {6, n}), sum(one, {0, 2}),
       sum(one, 2, true), max(one, 0), raw("sum", {x}, {{"axes", Axes{}}, {"keepdims", false}})}};
  CHECK(listing(c) == R"(
x = input  float64 {n, 2, 3}
%1 = reshape(x, shape={6*n})  float64 {6*n}  net.cpp:1
%2 = reshape(%1, shape={n, 2, 3})  float64 {n, 2, 3}  net.cpp:1
%3 = reshape(x, shape={n, 2, 3})  float64 {n, 2, 3}  net.cpp:1
%4 = transpose(x, permutation=(2, 1, 0))  float64 {3, 2, n}  net.cpp:1
%5 = transpose(%4, permutation=(2, 1, 0))  float64 {n, 2, 3}  net.cpp:1
%6 = transpose(x, permutation=(0, 1, 2))  float64 {n, 2, 3}  net.cpp:1
%7 = transpose(x, permutation=(1, 2, 0))  float64 {2, 3, n}  net.cpp:1
%8 = transpose(%7, permutation=(1, 2, 0))  float64 {3, n, 2}  net.cpp:1
%9 = reshape(x, shape={6*n})  float64 {6*n}  net.cpp:1
%10 = reshape(%9, shape={6, n})  float64 {6, n}  net.cpp:1
one = input  float64 {1, n, 1}
%12 = sum(one, axes=(0, 2), keepdims=false)  float64 {n}  net.cpp:1
%13 = sum(one, axes=(2), keepdims=true)  float64 {1, n, 1}  net.cpp:1
%14 = max(one, axes=(0), keepdims=false)  float64 {n, 1}  net.cpp:1
%15 = sum(x, axes=(), keepdims=false)  float64 {n, 2, 3}  net.cpp:1
results: %2 %3 %5 %6 %8 %10 %12 %13 %14 %15
)");
  CHECK(listing(simplify_algebra(c)) == R"(
x = input  float64 {n, 2, 3}
%1 = reshape(x, shape={n, 2, 3})  float64 {n, 2, 3}  net.cpp:1
%2 = transpose(x, permutation=(2, 0, 1))  float64 {3, n, 2}  net.cpp:1
%3 = reshape(x, shape={6, n})  float64 {6, n}  net.cpp:1
one = input  float64 {1, n, 1}
%5 = reshape(one, shape={n})  float64 {n}  net.cpp:1
%6 = reshape(one, shape={n, 1})  float64 {n, 1}  net.cpp:1
results: %1 x x x %2 %3 %5 one %6 x
)");
}

TEST_CASE("simplify_algebra: elementwise ops come before a broadcast of their operands") {
  Graph graph;
  Line line;
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {n, 3}, Location{});
  const auto row = graph.input("row", {3}, Location{});
  line(1);
  const Value one = broadcast_to(graph.constant(1.0), {n, 3});
  const Value rows = broadcast_to(row, {n, 3});
  const Computation c{graph, {x * one, exp(rows) + x, tanh(rows)}};
  CHECK(listing(c) == R"(
x = input  float64 {n, 3}
%2 = broadcast_to(1, shape={n, 3})  float64 {n, 3}  net.cpp:1
%3 = mul(x, %2)  float64 {n, 3}  net.cpp:1
row = input  float64 {3}
%5 = broadcast_to(row, shape={n, 3})  float64 {n, 3}  net.cpp:1
%6 = exp(%5)  float64 {n, 3}  net.cpp:1
%7 = add(%6, x)  float64 {n, 3}  net.cpp:1
%8 = tanh(%5)  float64 {n, 3}  net.cpp:1
results: %3 %7 %8
)");
  CHECK(listing(simplify_algebra(simplify_algebra(c))) == R"(
x = input  float64 {n, 3}
row = input  float64 {3}
%2 = exp(row)  float64 {3}  net.cpp:1
%3 = add(%2, x)  float64 {n, 3}  net.cpp:1
%4 = tanh(row)  float64 {3}  net.cpp:1
%5 = broadcast_to(%4, shape={n, 3})  float64 {n, 3}  net.cpp:1
results: x %3 %5
)");
}

TEST_CASE("fold_transposes makes transposed operands flags of the product") {
  Graph graph;
  Line line;
  const auto m = graph.dimension("m");
  const auto a = graph.input("a", {3, m}, Location{});
  const auto b = graph.input("b", {3, 2}, Location{});
  const auto p = graph.input("p", {4, 3, m}, Location{});
  const auto q = graph.input("q", {4, 2, m}, Location{});
  line(1);
  const auto left = matmul(transpose(a), b);
  line(2);
  const auto right = matmul(transpose(b), transpose(transpose(a)));
  line(3);
  const auto of_product = transpose(matmul(transpose(a), b));
  line(4);
  const auto batches = matmul(p, transpose(q, {0, 2, 1}));
  line(5);
  const auto of_batches = transpose(batches, {0, 2, 1});
  line(6);
  const auto other_axes = matmul(transpose(p, {1, 2, 0}), transpose(p, {1, 0, 2}));
  const Computation c{graph, {left, right, of_product, batches, of_batches, other_axes}};
  CHECK(listing(c) == R"(
a = input  float64 {3, m}
%1 = transpose(a, permutation=(1, 0))  float64 {m, 3}  net.cpp:1
b = input  float64 {3, 2}
%3 = matmul(%1, b)  float64 {m, 2}  net.cpp:1
%4 = transpose(b, permutation=(1, 0))  float64 {2, 3}  net.cpp:2
%5 = transpose(a, permutation=(1, 0))  float64 {m, 3}  net.cpp:2
%6 = transpose(%5, permutation=(1, 0))  float64 {3, m}  net.cpp:2
%7 = matmul(%4, %6)  float64 {2, m}  net.cpp:2
%8 = transpose(a, permutation=(1, 0))  float64 {m, 3}  net.cpp:3
%9 = matmul(%8, b)  float64 {m, 2}  net.cpp:3
%10 = transpose(%9, permutation=(1, 0))  float64 {2, m}  net.cpp:3
p = input  float64 {4, 3, m}
q = input  float64 {4, 2, m}
%13 = transpose(q, permutation=(0, 2, 1))  float64 {4, m, 2}  net.cpp:4
%14 = matmul(p, %13)  float64 {4, 3, 2}  net.cpp:4
%15 = transpose(%14, permutation=(0, 2, 1))  float64 {4, 2, 3}  net.cpp:5
%16 = transpose(p, permutation=(1, 2, 0))  float64 {3, m, 4}  net.cpp:6
%17 = transpose(p, permutation=(1, 0, 2))  float64 {3, 4, m}  net.cpp:6
%18 = matmul(%16, %17)  float64 {3, m, m}  net.cpp:6
results: %3 %7 %10 %14 %15 %18
)");
  CHECK(listing(fold_transposes(c)) == R"(
a = input  float64 {3, m}
b = input  float64 {3, 2}
%2 = matmul(a, b, transpose_a=true, transpose_b=false)  float64 {m, 2}  net.cpp:1
%3 = matmul(b, a, transpose_a=true, transpose_b=false)  float64 {2, m}  net.cpp:2
%4 = matmul(b, a, transpose_a=true, transpose_b=false)  float64 {2, m}  net.cpp:3
p = input  float64 {4, 3, m}
q = input  float64 {4, 2, m}
%7 = matmul(p, q, transpose_a=false, transpose_b=true)  float64 {4, 3, 2}  net.cpp:4
%8 = matmul(q, p, transpose_a=false, transpose_b=true)  float64 {4, 2, 3}  net.cpp:5
%9 = transpose(p, permutation=(1, 2, 0))  float64 {3, m, 4}  net.cpp:6
%10 = transpose(p, permutation=(1, 0, 2))  float64 {3, 4, m}  net.cpp:6
%11 = matmul(%9, %10)  float64 {3, m, m}  net.cpp:6
results: %2 %3 %4 %7 %8 %11
)");
}

TEST_CASE("select_mode takes the training or the inference side") {
  Graph graph;
  Line line;
  const auto x = graph.input("x", {4, 3}, Location{});
  line(1);
  const auto y = dropout(x, {.keep = 0.5});
  line(2);
  const auto z = by_mode(y * 2.0, 7.0);
  const Computation c{graph, {z, y}};
  CHECK(listing(c) == R"(
x = input  float64 {4, 3}
step = variable  int64 {}  net.cpp:1
%2 = dropout_mask(step, shape={4, 3}, dtype=float64, keep=0.5, seed=0, stream=0)  float64 {4, 3}  net.cpp:1
%3 = mul(x, %2)  float64 {4, 3}  net.cpp:1
%5 = mul(%3, 2)  float64 {4, 3}  net.cpp:1
%6 = by_mode(%5, x, noise=true)  float64 {4, 3}  net.cpp:1
%8 = mul(%6, 2)  float64 {4, 3}  net.cpp:2
%10 = by_mode(%8, 7)  float64 {4, 3}  net.cpp:2
results: %10 %6
)");
  CHECK(listing(select_mode(c, Mode::training)) == R"(
x = input  float64 {4, 3}
step = variable  int64 {}  net.cpp:1
%2 = dropout_mask(step, shape={4, 3}, dtype=float64, keep=0.5, seed=0, stream=0)  float64 {4, 3}  net.cpp:1
%3 = mul(x, %2)  float64 {4, 3}  net.cpp:1
%5 = mul(%3, 2)  float64 {4, 3}  net.cpp:1
%7 = mul(%5, 2)  float64 {4, 3}  net.cpp:2
results: %7 %5
)");
  CHECK(listing(select_mode(c, Mode::inference)) == R"(
%1 = broadcast_to(7, shape={4, 3})  float64 {4, 3}  net.cpp:2
x = input  float64 {4, 3}
results: %1 x
)");
}

TEST_CASE("expand_composites opens ops that are made of ops") {
  Graph graph;
  Line line;
  const auto z = graph.input("z", {4, 3}, Location{});
  const auto y = graph.input("y", {4, 3}, Location{});
  line(7);
  const Computation c{graph, {softmax_cross_entropy(z, y)}};
  CHECK(listing(c) == R"(
z = input  float64 {4, 3}
y = input  float64 {4, 3}
%2 = softmax_cross_entropy(z, y, axis=1)  float64 {}  net.cpp:7
results: %2
)");
  CHECK(listing(expand_composites(c)) == R"(
y = input  float64 {4, 3}
%2 = equal(y, 0)  bool {4, 3}  net.cpp:7
z = input  float64 {4, 3}
%4 = max(z, axes=(1), keepdims=true)  float64 {4, 1}  net.cpp:7
%5 = sub(z, %4)  float64 {4, 3}  net.cpp:7
%6 = exp(%5)  float64 {4, 3}  net.cpp:7
%7 = sum(%6, axes=(1), keepdims=true)  float64 {4, 1}  net.cpp:7
%8 = log(%7)  float64 {4, 1}  net.cpp:7
%9 = sub(%5, %8)  float64 {4, 3}  net.cpp:7
%10 = clip(%9, low=-1, high=1)  float64 {4, 3}  net.cpp:7
%11 = where(%2, %10, %9)  float64 {4, 3}  net.cpp:7
%12 = mul(y, %11)  float64 {4, 3}  net.cpp:7
%13 = sum(%12, axes=(1), keepdims=false)  float64 {4}  net.cpp:7
%14 = sum(%13, axes=(0), keepdims=false)  float64 {}  net.cpp:7
%15 = extent(shape={4}, dtype=float64)  float64 {}  net.cpp:7
%16 = div(%14, %15)  float64 {}  net.cpp:7
%17 = neg(%16)  float64 {}  net.cpp:7
results: %17
)");
  const Computation plain{graph, {z + y}};
  CHECK(listing(expand_composites(plain)) == listing(plain));
}

TEST_CASE("inference of batch_norm and dropout, all passes") {
  Graph graph;
  Line line;
  const auto x = graph.input("x", {graph.dimension("batch"), 3}, Location{});
  line(1);
  const auto y = dropout(nn::batch_norm(x), {.keep = 0.5});
  CHECK(listing(optimize({graph, {y}}, Mode::inference)) == R"(
batch_norm/gamma = parameter  float64 {3}  net.cpp:1
%1 = reshape(batch_norm/gamma, shape={1, 3})  float64 {1, 3}  net.cpp:1
x = input  float64 {batch, 3}
batch_norm/mean = variable  float64 {3}  net.cpp:1
%4 = reshape(batch_norm/mean, shape={1, 3})  float64 {1, 3}  net.cpp:1
%5 = sub(x, %4)  float64 {batch, 3}  net.cpp:1
batch_norm/variance = variable  float64 {3}  net.cpp:1
%8 = reshape(batch_norm/variance, shape={1, 3})  float64 {1, 3}  net.cpp:1
%10 = add(%8, 1e-05)  float64 {1, 3}  net.cpp:1
%11 = sqrt(%10)  float64 {1, 3}  net.cpp:1
%12 = div(1, %11)  float64 {1, 3}  net.cpp:1
%13 = mul(%5, %12)  float64 {batch, 3}  net.cpp:1
%14 = mul(%1, %13)  float64 {batch, 3}  net.cpp:1
batch_norm/beta = parameter  float64 {3}  net.cpp:1
%16 = reshape(batch_norm/beta, shape={1, 3})  float64 {1, 3}  net.cpp:1
%17 = add(%14, %16)  float64 {batch, 3}  net.cpp:1
results: %17
)");
}

TEST_CASE("an expansion into itself is an error, not an endless loop") {
  const Op& endless =
      register_op({.name = "endless",
                   .doc = "Never done.",
                   .shape = same_shape,
                   .forward = expand([](const Node& node) -> Value { return apply(node.op(), {node.input(0)}); }),
                   .samples = {{.inputs = {ones({2})}}}});
  Graph graph;
  const auto x = graph.input("x", {2});
  CHECK_THROWS_WITH(apply(endless, {x}), ContainsSubstring("endless: requires expansions that end"));
  CHECK(graph.size() == 1);
}

// ---- fusion

TEST_CASE("fuse_elementwise groups what runs as one step") {
  Graph graph;
  Line line;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, 3}, Location{});
  const auto w = graph.parameter("w", zeros({3, 2}), Location{});
  const auto b = graph.parameter("b", zeros({2}), Location{});
  line(1);
  const auto h = relu(x * 2.0 - 1.0);
  line(2);
  const auto z = matmul(h, w) + b;  // a kernel, then a row that is broadcast
  line(3);
  const auto flags = z > 0.0;                    // bool, but computed in float64
  const auto y = where(flags, exp(z), tanh(b));  // tanh(b) has another shape
  line(4);
  const auto single = cast(y, float32);  // another dtype
  const auto m = mean(y);
  line(5);
  const auto back = y * m;  // waits for the mean, which waits for y
  line(6);
  const auto late = (z - 3.0) * m;  // only the last group reads z - 3, for which z had to be kept instead
  line(7);
  const auto later = (y - 3.0) * m;  // y is kept for the last groups anyway, so y - 3 is made there
  const Computation c = expand_composites({graph, {single, back, late, later, flags}});
  CHECK(listing_of_groups(c) == R"(
x = input  float64 {batch, 3}
%2 = mul(x, 2)  float64 {batch, 3}  net.cpp:1  group 1
%4 = sub(%2, 1)  float64 {batch, 3}  net.cpp:1  group 1
%5 = relu(%4)  float64 {batch, 3}  net.cpp:1  group 1
w = parameter  float64 {3, 2}
%7 = matmul(%5, w)  float64 {batch, 2}  net.cpp:2
b = parameter  float64 {2}
%9 = add(%7, b)  float64 {batch, 2}  net.cpp:2  group 2
%11 = greater(%9, 0)  bool {batch, 2}  net.cpp:3  group 2
%12 = exp(%9)  float64 {batch, 2}  net.cpp:3  group 2
%13 = tanh(b)  float64 {2}  net.cpp:3  group 3
%14 = where(%11, %12, %13)  float64 {batch, 2}  net.cpp:3  group 2
%15 = cast(%14, dtype=float32)  float32 {batch, 2}  net.cpp:4  group 4
%16 = sum(%14, axes=(0, 1), keepdims=false)  float64 {}  net.cpp:4  group 2
%17 = extent(shape={batch, 2}, dtype=float64)  float64 {}  net.cpp:4
%18 = div(%16, %17)  float64 {}  net.cpp:4  group 5
%19 = mul(%14, %18)  float64 {batch, 2}  net.cpp:5  group 6
%21 = sub(%9, 3)  float64 {batch, 2}  net.cpp:6  group 2
%22 = mul(%21, %18)  float64 {batch, 2}  net.cpp:6  group 7
%24 = sub(%14, 3)  float64 {batch, 2}  net.cpp:7  group 8
%25 = mul(%24, %18)  float64 {batch, 2}  net.cpp:7  group 8
)");
}

TEST_CASE("gradients fuse with what needs them") {
  Graph graph;
  Line line;
  const auto x = graph.input("x", {4, 3}, Location{});
  const auto w = graph.parameter("w", zeros({3}), Location{});
  line(1);
  const auto loss = sum(square(tanh(x * w)));
  line(2);
  const auto dw = gradients(loss, {w})[0];
  line(3);
  const auto next = w - 0.1 * dw;
  const Computation c = optimize({graph, {loss, next}}, Mode::training);
  CHECK(listing_of_groups(c) == R"(
x = input  float64 {4, 3}
w = parameter  float64 {3}
%2 = mul(x, w)  float64 {4, 3}  net.cpp:1  group 1
%3 = tanh(%2)  float64 {4, 3}  net.cpp:1  group 1
%4 = square(%3)  float64 {4, 3}  net.cpp:1  group 1
%5 = sum(%4, axes=(0, 1), keepdims=false)  float64 {}  net.cpp:1  group 1
%7 = constant([[2]])  float64 {1, 1}  net.cpp:1
%8 = mul(%7, %3)  float64 {4, 3}  net.cpp:1  group 1
%9 = sech2(%2)  float64 {4, 3}  net.cpp:1  group 1
%10 = mul(%8, %9)  float64 {4, 3}  net.cpp:1  group 1
%11 = mul(%10, x)  float64 {4, 3}  net.cpp:1  group 1
%12 = sum(%11, axes=(0), keepdims=false)  float64 {3}  net.cpp:1  group 1
%13 = mul(0.1, %12)  float64 {3}  net.cpp:3  group 2
%14 = sub(w, %13)  float64 {3}  net.cpp:3  group 2
)");
}

TEST_CASE("join_parts makes an array of what is added to its parts") {
  Graph graph;
  Line line;
  const auto n = graph.dimension("n");
  const auto passed = [&](const Values& results) { return listing(join_parts({graph, results})); };
  const auto x = graph.input("x", {n, 3}, Location{});
  const auto y = graph.input("y", {n, 3}, Location{});
  const auto z = graph.input("z", {n, 2}, Location{});
  const auto w = graph.input("w", {2, n, 3}, Location{});
  const auto part = [](std::int64_t start, std::int64_t size) {
    return Attributes{{"axis", 1}, {"start", Shape{start}}, {"size", Shape{size}}};
  };
  line(1);
  const auto scattered = raw("slice_scatter", {x}, part(2, 3).with("whole", Shape{8}));
  const auto two = raw("slice_add", {scattered, y}, part(5, 3));
  CHECK(passed({raw("slice_add", {two, z}, part(0, 2))}) == R"(
z = input  float64 {n, 2}
x = input  float64 {n, 3}
y = input  float64 {n, 3}
%3 = concat(z, x, y, axis=1)  float64 {n, 8}  net.cpp:1
results: %3
)");
  // Left as they are: parts that lie over each other, leave something out, go backwards, or are read one by one.
  const std::vector<Values> others = {{raw("slice_add", {two, z}, part(1, 2))},
                                      {two},
                                      {raw("slice_add", {two, z}, part(1, 2).with("step", -1))},
                                      {raw("slice_add", {two, z}, part(0, 2)), two}};
  for (const Values& results : others) CHECK(passed(results) == listing({graph, results}));

  // What is stacked along one axis and wanted along another is stacked there, as rows.
  line(2);
  const auto stacked = stack({x, y}, 1);
  CHECK(passed({swapaxes(stacked, 0, 1)}) == R"(
x = input  float64 {n, 3}
y = input  float64 {n, 3}
%2 = concat(x, y, axis=0)  float64 {2*n, 3}  net.cpp:2
%3 = reshape(%2, shape={2, n, 3})  float64 {2, n, 3}  net.cpp:2
results: %3
)");
  // A part of a transposed array is cut out of the array.
  line(3);
  CHECK(passed({slice(swapaxes(w, 0, 1), {range(), 1})}) == R"(
w = input  float64 {2, n, 3}
%1 = slice(w, axis=0, start={1}, size={1}, step=1)  float64 {1, n, 3}  net.cpp:3
%2 = reshape(%1, shape={n, 1, 3})  float64 {n, 1, 3}  net.cpp:3
%3 = reshape(%2, shape={n, 3})  float64 {n, 3}  net.cpp:3
results: %3
)");
  const Values whole = {swapaxes(w, 0, 1), slice(swapaxes(w, 0, 2), {range(1, 3)})};
  for (const Value result : whole) CHECK(passed({result}) == listing({graph, {result}}));
}

TEST_CASE("join_products makes a sum of many products one") {
  Graph graph;
  Line line;
  const auto n = graph.dimension("n");
  const auto passed = [&](const Values& results) { return listing(join_products({graph, results})); };
  Values a;
  Values b;
  for (int i = 0; i < 4; ++i) {
    a.push_back(graph.input("a" + std::to_string(i), {n, 16}, Location{}));
    b.push_back(graph.input("b" + std::to_string(i), {n, 64}, Location{}));
  }
  const auto w = graph.input("w", {16, 64}, Location{});
  const auto product = [&](std::size_t i) {
    return raw("matmul", {a[i], b[i]}, {{"transpose_a", true}, {"transpose_b", false}});
  };
  line(1);
  CHECK(passed({product(3) + product(2) + w + (product(1) + product(0))}) == R"(
a0 = input  float64 {n, 16}
a1 = input  float64 {n, 16}
a2 = input  float64 {n, 16}
a3 = input  float64 {n, 16}
%4 = concat(a0, a1, a2, a3, axis=0)  float64 {4*n, 16}  net.cpp:1
b0 = input  float64 {n, 64}
b1 = input  float64 {n, 64}
b2 = input  float64 {n, 64}
b3 = input  float64 {n, 64}
%9 = concat(b0, b1, b2, b3, axis=0)  float64 {4*n, 64}  net.cpp:1
%10 = matmul(%4, %9, transpose_a=true, transpose_b=false)  float64 {16, 64}  net.cpp:1
w = input  float64 {16, 64}
%12 = add(%10, w)  float64 {16, 64}  net.cpp:1
results: %12
)");
  // Left as they are: few products; one that something else reads; long ones; a small sum.
  const auto shared = product(0);
  const auto all_of = [](auto of) { return of(0) + of(1) + of(2) + of(3); };
  const auto big = graph.input("big", {13, 16}, Location{});
  const auto wide = graph.input("wide", {13, 64}, Location{});
  const auto narrow = graph.input("narrow", {n, 63}, Location{});
  const std::vector<Values> others = {
      {product(0) + product(1) + product(2)},
      {shared + product(1) + product(2) + product(3), shared},
      {all_of([&](double by) { return matmul(transpose(by * big), wide); })},
      {all_of([&](double by) { return matmul(transpose(by * a[0]), narrow); })},
  };
  for (const Values& results : others) CHECK(passed(results) == listing({graph, results}));
}

TEST_CASE("accumulate_products adds products to what may be overwritten") {
  Graph graph;
  Line line;
  const auto x = graph.input("x", {64, 64}, Location{});
  const auto y = graph.input("y", {64, 64}, Location{});
  const auto w = graph.parameter("w", zeros({64, 64}), Location{});
  const auto passed = [&](const Values& results) { return listing(accumulate_products({graph, results})); };
  line(1);
  CHECK(passed({w - 0.5 * (matmul(x, y) * -0.5)}) == R"(
x = input  float64 {64, 64}
y = input  float64 {64, 64}
w = parameter  float64 {64, 64}
%3 = accumulate(x, y, w, transpose_a=false, transpose_b=false, alpha=0.25)  float64 {64, 64}  net.cpp:1
results: %3
)");
  line(2);
  const auto product = [&](bool a, bool b) { return raw("matmul", {x, y}, {{"transpose_a", a}, {"transpose_b", b}}); };
  const auto first = product(false, true);
  const auto two = first - product(true, false);
  const auto three = two + -product(true, true);
  CHECK(passed({square(three)}) == R"(
x = input  float64 {64, 64}
y = input  float64 {64, 64}
%2 = matmul(x, y, transpose_a=false, transpose_b=true)  float64 {64, 64}  net.cpp:2
%3 = accumulate(x, y, %2, transpose_a=true, transpose_b=false, alpha=-1)  float64 {64, 64}  net.cpp:2
%4 = accumulate(x, y, %3, transpose_a=true, transpose_b=true, alpha=-1)  float64 {64, 64}  net.cpp:2
%5 = square(%4)  float64 {64, 64}  net.cpp:2
results: %5
)");
  // Left as they are: another factor of what is added to; a product or a sum that something else reads; a variable that
  // does not become the sum; neither a variable nor a product; a shape that is spread; a few rows or columns.
  const auto small = graph.input("small", {15, 64}, Location{});
  const auto narrow = graph.input("narrow", {64, 63}, Location{});
  const auto v = graph.parameter("v", zeros({15, 64}), Location{});
  const auto u = graph.parameter("u", zeros({64, 63}), Location{});
  const auto row = graph.parameter("row", zeros({64}), Location{});
  const auto shared = matmul(x, y);
  const std::vector<Values> others = {{0.9 * w + matmul(x, y)},   {w - shared, shared},    {two, tanh(first)},
                                      {square(w - matmul(x, y))}, {sin(x) + matmul(x, y)}, {row + matmul(x, y)},
                                      {v - matmul(small, x)},     {u - matmul(x, narrow)}, {w * matmul(x, y)}};
  for (const Values& results : others) CHECK(passed(results) == listing({graph, results}));
  // So is a product by 0, which BLAS leaves out, NaN and all, or by what is no number.
  for (const double factor : {0.0, -0.0, HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    const Values results{w - factor * matmul(x, y)};
    CHECK(passed(results) == listing({graph, results}));
  }
}

TEST_CASE("update_rows adds to the rows of a table that were taken, in its place") {
  Graph graph;
  Line line;
  const auto w = graph.parameter("w", zeros({9, 2}), Location{});
  const auto i = graph.input("i", {3}, int64, Location{});
  const auto k = graph.input("k", {}, int64, Location{});
  const auto u = graph.input("u", {3, 2}, Location{});
  const auto v = graph.input("v", {2}, Location{});
  const auto rate = graph.input("rate", {}, Location{});
  const auto passed = [&](const Values& results) { return listing(update_rows({graph, results})); };
  line(1);
  const auto zero = broadcast_to(graph.constant(0.0), {9, 2});
  const auto g = scatter_add(zero, i, u, 0);
  line(2);
  const auto before = w - rate * g;
  CHECK(listing({graph, {before}}) == R"(
w = parameter  float64 {9, 2}
rate = input  float64 {}
%3 = broadcast_to(0, shape={9, 2})  float64 {9, 2}  net.cpp:1
i = input  int64 {3}
u = input  float64 {3, 2}
%6 = scatter_add(%3, i, u, axis=0)  float64 {9, 2}  net.cpp:1
%7 = mul(rate, %6)  float64 {9, 2}  net.cpp:2
%8 = sub(w, %7)  float64 {9, 2}  net.cpp:2
results: %8
)");
  CHECK(passed({before}) == R"(
w = parameter  float64 {9, 2}
i = input  int64 {3}
%2 = checked_indices(i, extent={9})  int64 {3}  net.cpp:1
rate = input  float64 {}
u = input  float64 {3, 2}
%5 = mul(rate, u)  float64 {3, 2}  net.cpp:2
%6 = neg(%5)  float64 {3, 2}  net.cpp:2
%7 = add_rows(w, %2, %6, axis=0)  float64 {9, 2}  net.cpp:2
results: %7
)");
  // Several parts, in the order in which they would be added; the same indices are checked once.
  line(3);
  const auto again = scatter_add(scatter_add(zero, i, u, 0), k, v, 0);
  const auto all = w + (-again / rate) + 0.5 * scatter_add(zero, i, 2.0 * u, 0);
  CHECK(passed({all}) == R"(
w = parameter  float64 {9, 2}
i = input  int64 {3}
%2 = checked_indices(i, extent={9})  int64 {3}  net.cpp:3
u = input  float64 {3, 2}
%4 = neg(u)  float64 {3, 2}  net.cpp:3
rate = input  float64 {}
%6 = div(%4, rate)  float64 {3, 2}  net.cpp:3
k = input  int64 {}
%8 = checked_indices(k, extent={9})  int64 {}  net.cpp:3
v = input  float64 {2}
%10 = neg(v)  float64 {2}  net.cpp:3
%11 = div(%10, rate)  float64 {2}  net.cpp:3
%14 = mul(2, u)  float64 {3, 2}  net.cpp:3
%15 = mul(0.5, %14)  float64 {3, 2}  net.cpp:3
%16 = add_rows(w, %2, %6, %8, %11, %2, %15, axis=0)  float64 {9, 2}  net.cpp:3
results: %16
)");
  // Left as they are: a variable that does not become the sum, or that is in it twice, by a factor or not at all; parts
  // along two axes; a gradient that something else reads, of which another part is dense, or that is not linear; a
  // factor for each element; and rows added to what is not zeros.
  line(4);
  const auto x = graph.input("x", {9, 2}, Location{});
  const auto column = graph.input("column", {9, 3}, Location{});
  const auto h = scatter_add(zero, i, u, 0);
  const std::vector<Values> others = {{square(w - rate * h)},
                                      {w - 0.1 * w - rate * h},
                                      {0.9 * w - rate * h},
                                      {x - rate * h},
                                      {h},
                                      {w - h - scatter_add(zero, i, column, 1)},
                                      {w - rate * h, h},
                                      {w - rate * (h + x)},
                                      {w - rate * tanh(h)},
                                      {w - x * h},
                                      {w - scatter_add(x, i, u, 0)}};
  for (const Values& results : others) CHECK(passed(results) == listing({graph, results}));
}

TEST_CASE("a product with NaN is NaN in every size, whatever its factor") {
  for (const DType dtype : {float32, float64})
    for (const std::int64_t n : {1, 8, 64, 130})
      for (const double factor : {0.0, 1.0, 1e-60}) {  // the last is 0 in float32
        Graph graph({.dtype = dtype});
        const auto x = graph.input("x", {n, n});
        const auto w = graph.parameter("w", ones({n, n}));
        State state(graph);
        Program program(state, {.updates = {{w, w - factor * matmul(x, x)}}});
        Array numbers = Array::full(dtype, {n, n}, 1);
        numbers.set(0, std::nan(""));
        program.run({{x, numbers}});
        std::int64_t nans = 0;
        for (std::int64_t i = 0; i < n * n; ++i) nans += std::isnan(state[w][i]) ? 1 : 0;
        INFO(name(dtype) << " {" << n << ", " << n << "}, factor " << factor);
        CHECK(nans == 2 * n - 1);  // the first row and column
      }
}

TEST_CASE("fuse_elementwise: a slope that needs an activation's operand is stored in its place") {
  Graph graph;
  Line line;
  const auto x = graph.input("x", {4, 64}, Location{});
  const auto w = graph.parameter("w", zeros({64, 64}), Location{});
  const auto b = graph.parameter("b", zeros({64}), Location{});
  line(1);
  const auto h = tanh(matmul(x, w) + b);
  line(2);
  const auto loss = sum(square(matmul(h, w)));
  const Computation c = optimize({graph, {loss, gradients(loss, {w})[0]}}, Mode::training);
  const Groups groups = fuse_elementwise(c);
  std::uint32_t of_tanh = 0;
  std::uint32_t of_slope = 1;
  for (std::uint32_t id = 0; id < groups.size(); ++id) {
    const auto& op = c.graph.data()->node(id).op->name;
    if (op == "tanh") of_tanh = groups[id];
    if (op == "sech2") of_slope = groups[id];
  }
  CHECK(of_tanh == of_slope);
}

TEST_CASE("optimize logs each pass in order") {
  Graph graph;
  const auto x = graph.input("x", {2});
  std::vector<std::string> names;
  const Computation last =
      optimize({graph, {x * 1.0 + 2.0 * 3.0}}, Mode::training, [&](std::string_view pass, const Computation& made) {
        names.emplace_back(pass);
        CHECK(made.results.size() == 1);
      });
  CHECK(names.size() >= 8);
  for (const char* pass :
       {"remove_dead", "expand_composites", "select_mode", "fold_transposes", "fold_constants", "simplify_algebra",
        "merge_common", "join_parts", "join_products", "accumulate_products", "update_rows"})
    CHECK(std::find(names.begin(), names.end(), pass) != names.end());
}

// ---- the same numbers, whatever the passes do

namespace {

// Random graphs over elementwise, reducing, multiplying and moving ops. A recipe is made on one graph and can be built
// again on another with other dimensions: the first has a symbol where the second has a number.
class Recipe {
 public:
  explicit Recipe(std::uint32_t seed) : random_(seed), wide_(below(4) == 0), nodes_(5 + below(30)) {}

  struct Built {
    Graph graph;
    Value x, y, labels;
    Values results;
  };

  // The first call chooses; the others do the same.
  Built build(Dimension batch, DType dtype, std::uint64_t seed) {
    Graph graph({.dtype = dtype, .seed = seed});
    const std::int64_t features = wide_ ? 130 : 3;
    Built built{graph,
                graph.input("x", {batch, features}),
                graph.input("y", {batch, 1}),
                graph.input("labels", {batch}, int64),
                {}};
    Values pool = {built.x,
                   built.y,
                   graph.parameter("row", uniform({features}, -1, 1)),
                   graph.parameter("weight", uniform({features, 2}, -1, 1)),
                   graph.parameter("scalar", uniform({}, 0.5, 1)),
                   graph.parameter("one_row", uniform({1, features}, -1, 1)),
                   one_hot(built.labels, 3, dtype)};
    leaves_ = pool.size() - 1;
    if (steps_.empty()) {
      while (steps_.size() < nodes_) try_one(pool);
      for (std::size_t i = 1 + below(4); i > 0; --i) outputs_.push_back(leaves_ + below(pool.size() - leaves_));
      for (std::size_t i = below(4); i > 0; --i) differentiated_.push_back(below(pool.size()));
    } else {
      for (const Step& step : steps_) pool.push_back(step(pool));
    }
    // A loss of some outputs, its gradient by leaves and values on the way, and a derivative of that.
    Value loss;
    for (const std::size_t i : outputs_) {
      built.results.push_back(pool[i]);
      const Value term = mean(tanh(pool[i]));
      loss = loss.defined() ? loss + term : term;
    }
    built.results.push_back(loss);
    Values xs = {pool[2], pool[3], pool[4]};
    for (const std::size_t i : differentiated_) xs.push_back(pool[i]);
    const Values first = gradients(loss, xs, NoDerivative::zeros);
    built.results.insert(built.results.end(), first.begin(), first.end());
    const Values second = gradients(sum(square(first[0])) + sum(first[1]), {pool[2], pool[4]}, NoDerivative::zeros);
    built.results.insert(built.results.end(), second.begin(), second.end());
    return built;
  }

 private:
  using Step = std::function<Value(const Values& pool)>;

  std::size_t below(std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_); }

  // Appends a value to the pool, or leaves it where the operands that were drawn do not fit.
  void try_one(Values& pool) {
    const Step step = draw(pool);
    const std::size_t before = pool[0].graph().size();
    try {
      const Value made = step(pool);
      const Dimension elements = count(made.shape());
      if (elements.is_number() && elements.extent() > 1000) return;
      if (made.rank() > 3) return;
      pool.push_back(made);
      steps_.push_back(step);
    } catch (const Error&) {
      CHECK(pool[0].graph().size() <= before + 3);  // nothing but resolved operands
    }
  }

  Step draw(const Values& pool) {
    // Mostly late values, so that graphs are deep.
    const auto pick = [&] {
      return below(2) == 0 ? below(pool.size()) : pool.size() - 1 - below(std::min<std::size_t>(5, pool.size()));
    };
    const std::size_t a = pick();
    const std::size_t b = pick();
    const std::size_t c = pick();
    const auto axis = static_cast<std::int64_t>(below(2));
    const bool keepdims = below(2) == 0;
    const double number = std::uniform_real_distribution<double>(-2, 2)(random_);
    switch (below(44)) {
      case 0: return [=](const Values& p) { return p[a] + p[b]; };
      case 1: return [=](const Values& p) { return p[a] - p[b]; };
      case 2:
      case 3: return [=](const Values& p) { return p[a] * p[b]; };
      case 4: return [=](const Values& p) { return p[a] / (1.5 + square(p[b])); };
      case 5: return [=](const Values& p) { return maximum(p[a], p[b]); };
      case 6: return [=](const Values& p) { return minimum(p[a] * 0.5, p[b]); };
      case 7: return [=](const Values& p) { return where(p[a] < p[b], p[c], p[a]); };
      case 8: return [=](const Values& p) { return where(p[a] > number, p[a], number); };
      case 9: return [=](const Values& p) { return pow(1.0 + square(p[a]), p[b]); };
      case 10: return [=](const Values& p) { return pow(p[a], 2.0); };
      case 11: return [=](const Values& p) { return tanh(p[a]); };
      case 12: return [=](const Values& p) { return sigmoid(p[a]); };
      case 13: return [=](const Values& p) { return exp(-square(p[a])); };
      case 14: return [=](const Values& p) { return relu(p[a]); };
      case 15: return [=](const Values& p) { return leaky_relu(p[a], 0.1); };
      case 16: return [=](const Values& p) { return softplus(p[a]); };
      case 17: return [=](const Values& p) { return log1p(abs(p[a])); };
      case 18: return [=](const Values& p) { return sin(p[a]) * cos(p[a]); };
      case 19: return [=](const Values& p) { return sqrt(1.0 + square(p[a])); };
      case 20: return [=](const Values& p) { return erf(p[a]) - expm1(-abs(p[a])); };
      case 21: return [=](const Values& p) { return p[a] * number + 1.0; };
      // What the passes undo.
      case 22: return [=](const Values& p) { return 1.0 * (p[a] + 0.0); };
      case 23: return [=](const Values& p) { return -(-(p[a] / 1.0)); };
      case 24: return [=](const Values& p) { return p[a] * p[a] + pow(p[a], 1.0); };
      case 25: return [=](const Values& p) { return (p[a] + p[b]) * (p[b] + p[a]); };
      case 26: return [=](const Values& p) { return p[a] * (p[a].graph().constant(3.0, p[a].dtype()) + 0.5); };
      case 27: return [=](const Values& p) { return stop_gradient(p[a]) * p[a]; };
      // Reductions and what is made of them.
      case 28: return [=](const Values& p) { return sum(p[a], axis, keepdims) * 0.1; };
      case 29: return [=](const Values& p) { return mean(p[a], axis, true) + p[a]; };
      case 30: return [=](const Values& p) { return max(p[a], axis, keepdims); };
      case 31: return [=](const Values& p) { return min(p[a]) * p[b]; };
      case 32: return [=](const Values& p) { return softmax(p[a], axis); };
      case 33: return [=](const Values& p) { return p[b] * log_softmax(p[a], -1); };
      case 34: return [=](const Values& p) { return p[a] / count(p[a].shape()); };
      case 35: return [=](const Values& p) { return cast(cast(p[a], float32), p[a].dtype()) * 0.0 + p[a]; };
      // Products.
      case 36: return [=](const Values& p) { return tanh(matmul(p[a], p[b]) * 0.2); };
      case 37: return [=](const Values& p) { return tanh(matmul(transpose(p[a]), p[b]) * 0.2); };
      case 38: return [=](const Values& p) { return transpose(matmul(p[a], transpose(p[b])) * 0.1); };
      // Layout.
      case 39: return [=](const Values& p) { return transpose(p[a]); };
      case 40: return [=](const Values& p) { return reshape(reshape(p[a], {-1}), p[a].shape()); };
      case 41: return [=](const Values& p) { return reshape(p[a], {-1, 1}); };
      case 42: return [=](const Values& p) { return concat({p[a], p[b]}, axis); };
      default: break;
    }
    const Value sliced = pool[a];
    const bool few = sliced.rank() > 1 && sliced.shape()[1].is_number();
    return [=](const Values& p) { return few ? slice(p[a], 1, {.stop = 2}) : slice(p[a], 0, {.start = 0}); };
  }

  std::mt19937 random_;
  bool wide_;
  std::size_t nodes_;
  std::size_t leaves_ = 0;
  std::vector<Step> steps_;
  std::vector<std::size_t> outputs_;
  std::vector<std::size_t> differentiated_;
};

// Each node by itself and in the order of the graph, with nothing optimized.
std::vector<Array> node_by_node(const Recipe::Built& built, const State& state, const std::vector<Array>& fed) {
  const Computation c = remove_dead(expand_composites({built.graph, built.results}));
  detail::GraphData& graph = *c.graph.data();
  std::vector<Array> made(graph.nodes.size());
  for (detail::NodeId id = 0; id < made.size(); ++id) {
    const detail::NodeData& node = graph.node(id);
    if (node.op == &detail::input_op()) {
      made[id] = fed[node.payload];
    } else if (node.op == &detail::variable_op()) {
      made[id] = state.get(graph.leaves->variables[node.payload].name);
    } else if (node.op == &detail::constant_op()) {
      made[id] = *graph.constants[node.payload];
    } else {
      std::vector<const Array*> inputs;
      for (const detail::NodeId input : node.inputs) inputs.push_back(&made[input]);
      made[id] = detail::evaluate(Node(&graph, id), inputs);
    }
  }
  std::vector<Array> out;
  for (const Value result : c.results) out.push_back(made[result.id()]);
  return out;
}

// The greatest difference against the greatest number.
double distance(const Array& a, const Array& b) {
  double apart = 0;
  double size = 1e-3;
  for (std::int64_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (!(std::abs(a[i] - b[i]) <= apart)) apart = std::abs(a[i] - b[i]);  // NaN too
    size = std::max(size, std::abs(b[i]));
  }
  return apart / size;
}

}  // namespace

TEST_CASE("a program computes what its nodes compute one by one") {
  std::size_t nodes = 0;
  std::size_t compiled = 0;
  for (std::uint32_t seed = 0; seed < 400; ++seed) {
    INFO("seed " << seed);
    const DType dtype = seed % 4 == 3 ? float32 : float64;
    const double tolerance = dtype == float32 ? 2e-4 : 1e-10;
    Recipe recipe(seed);
    // Symbolic first, so that no shape is fitting by accident; then the same with numbers.
    const Recipe::Built symbolic = recipe.build(Graph().dimension("batch"), dtype, seed);
    State state(symbolic.graph);
    Program program(state, {.outputs = symbolic.results});
    nodes += symbolic.graph.size();
    for (const std::int64_t m : {7, 1, 64}) {
      const Recipe::Built fixed = recipe.build(m, dtype, seed);
      const std::vector<Array> fed = {uniform(fixed.x.shape(), -1, 1).draw(dtype, seed, 90),
                                      uniform(fixed.y.shape(), -1, 1).draw(dtype, seed, 91),
                                      integers(fixed.labels.shape(), 0, 3).draw(dtype, seed, 92)};
      const std::vector<Array> expected = node_by_node(fixed, State(fixed.graph), fed);
      const Results results = program.run({{symbolic.x, fed[0]}, {symbolic.y, fed[1]}, {symbolic.labels, fed[2]}});
      State fixed_state(fixed.graph);
      Program fixed_program(fixed_state, {.outputs = fixed.results});
      const Results fixed_results = fixed_program.run({{fixed.x, fed[0]}, {fixed.y, fed[1]}, {fixed.labels, fed[2]}});
      REQUIRE(results.size() == expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        INFO("result " << i << " with a batch of " << m);
        REQUIRE(results[i].shape() == expected[i].shape());
        REQUIRE(results[i].dtype() == expected[i].dtype());
        REQUIRE(distance(results[i], expected[i]) < tolerance);
        REQUIRE(distance(fixed_results[i], expected[i]) < tolerance);
      }
      compiled += program.memory().steps;
    }
  }
  CHECK(nodes > 20000);
  CHECK(compiled > 3000);
}
