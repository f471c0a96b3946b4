#include <chainrule/ops/activation.hpp>

#include <chainrule/framework/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>

CHAINRULE_OP_FAMILY(activation)

namespace chainrule {

namespace {

const Sample matrix{.inputs = {uniform({3, 4}, -4, 4)}};
const Sample steep{.inputs = {uniform({2, 3}, -40, 40)}};
const Sample empty{.inputs = {zeros({0, 2})}};
const Sample edges{
    .inputs = {Array({0.0, -0.0, 1e4, -1e4, 1e300, -1e300, 1e-300, std::numeric_limits<double>::infinity(),
                      -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})},
    .differentiate = false};

const Op& relu_op = register_op({
    .name = "relu",
    .doc = "max(x, 0); slope 0 at 0.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::max(x, 0.0); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {where(node.input(0) > 0.0, dy, 0.0)}; },
    .samples = {matrix, steep, empty, edges},
});

const Op& leaky_relu_op = register_op({
    .name = "leaky_relu",
    .doc = "x above 0, slope * x elsewhere.",
    .shape = same_shape,
    .forward = elementwise([](auto x, auto slope) { return simd::select(x > 0.0, x, slope * x); }, {"slope"}),
    .gradient = [](const Node& node, Value dy) -> Values {
      return {where(node.input(0) > 0.0, dy, node.attributes().number("slope") * dy)};
    },
    .samples = {{.inputs = {uniform({3, 4}, -4, 4)}, .attributes = {{"slope", 0.01}}},
                {.inputs = {uniform({5}, -4, 4)}, .attributes = {{"slope", 1.5}}}},
});

const Op& sigmoid_op = register_op({
    .name = "sigmoid",
    .doc = "1 / (1 + exp(-x)).",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::sigmoid(x); }),
    // sigmoid(-x), not 1 - y: that loses all its digits in float32 where y is near 1.
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * (node.output() * sigmoid(-node.input(0)))}; },
    .samples = {matrix, steep, empty, edges},
});

const Op& softplus_op = register_op({
    .name = "softplus",
    .doc = "log(1 + exp(x)), without overflow.",
    .shape = same_shape,
    .forward = elementwise([](auto x) { return simd::max(x, 0.0) + simd::log1p(simd::exp(-simd::abs(x))); }),
    .gradient = [](const Node& node, Value dy) -> Values { return {dy * sigmoid(node.input(0))}; },
    .samples = {matrix, steep, empty, edges},
});

}  // namespace

Value relu(Value x, Location at) { return apply(relu_op, {x}, {}, at); }
Value leaky_relu(Value x, double slope, Location at) { return apply(leaky_relu_op, {x}, {{"slope", slope}}, at); }
Value sigmoid(Value x, Location at) { return apply(sigmoid_op, {x}, {}, at); }
Value softplus(Value x, Location at) { return apply(softplus_op, {x}, {}, at); }

}  // namespace chainrule
