#include <chainrule/ops/statistics.hpp>

#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/statistics.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>

CHAINRULE_OP_FAMILY(statistics)

namespace chainrule {

namespace {

// Kernels, as x is then read once: of sums in graph ops the second, of the distances from the first, reads it again,
// and what it shares with others (the distances) would be stored.

CHAINRULE_EARLY const DeclaredAttributes part_attributes = {{"first", AttributeType::whole},
                                                            {"last", AttributeType::whole}};

struct PartAxes {
  std::size_t first;
  std::size_t last;

  explicit PartAxes(const Attributes& attributes)
      : first(static_cast<std::size_t>(attributes.get<std::int64_t>("first"))),
        last(static_cast<std::size_t>(attributes.get<std::int64_t>("last"))) {}
  [[nodiscard]] bool has(std::size_t axis) const { return first <= axis && axis < last; }

  // x's shape with the axes that are reduced as 1s.
  [[nodiscard]] Shape of_results(const Shape& x) const {
    Shape out;
    for (std::size_t i = 0; i < x.rank(); ++i) out.push_back(has(i) ? x[i] : Dimension(1));
    return out;
  }
  // What is reduced.
  [[nodiscard]] Shape reduced(const Shape& x) const {
    Shape out;
    for (std::size_t i = 0; i < x.rank(); ++i)
      if (!has(i)) out.push_back(x[i]);
    return out;
  }
};

PartAxes part_axes(const OpCall& call) {
  call.require_floating(0);
  call.require_same_dtype();
  const auto first = call.attribute<std::int64_t>("first");
  const auto last = call.attribute<std::int64_t>("last");
  const auto rank = static_cast<std::int64_t>(call.shape(0).rank());
  if (!(0 <= first && first <= last && last <= rank))
    call.fail(fmt::format("0 <= first <= last <= {}", rank), fmt::format("{} and {}", first, last));
  return PartAxes(call.attributes());
}

void require_shape(const OpCall& call, std::size_t i, const Shape& shape) {
  if (!(call.shape(i) == shape))
    call.fail(fmt::format("input {} of shape {}", i, to_string(shape)), to_string(call.shape(i)));
}

kernels::Parts parts_of(const KernelCall& call) {
  const PartAxes axes(call.attributes);
  return {call.inputs[0].shape, axes.first, axes.last};
}

Forward kernel_of(KernelMaker make) {
  Forward forward;
  forward.kernel = std::move(make);
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.skips_unread = true;
  return forward;
}

Attributes axes(std::int64_t first, std::int64_t last) { return {{"first", first}, {"last", last}}; }
Initial both_signs(const Shape& shape) { return uniform(shape, -2, 2); }

CHAINRULE_EARLY const BuiltinOp statistics_op = register_op({
    .name = "statistics",
    .doc = "The mean and biased variance of each part of an array.",
    .attributes = part_attributes,
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(1);
      const Type out{call.dtype(0), part_axes(call).of_results(call.shape(0))};
      return {out, out};
    },
    .forward = kernel_of(
        [](KernelCall& call) { return kernels::make_statistics(call.output.dtype, parts_of(call), call.workspace); }),
    .gradient = [](const Node& node, const Values& dys) -> Values {
      const Value x = node.input(0);
      const Value n = extent(x.graph(), PartAxes(node.attributes()).reduced(x.shape()), x.dtype());
      Value dx;
      if (dys[0].defined()) dx = broadcast_to(dys[0] / n, x.shape());
      if (dys[1].defined()) {
        const Value of_variance = (x - node.output(0)) * (2.0 * dys[1] / n);
        dx = dx.defined() ? dx + of_variance : of_variance;
      }
      return {dx};
    },
    .samples = {{.inputs = {both_signs({3, 4})}, .attributes = axes(0, 1)},
                {.inputs = {both_signs({2, 3, 2, 2})}, .attributes = axes(1, 2)},
                {.inputs = {both_signs({2, 3, 4})}, .attributes = axes(1, 3)},
                {.inputs = {both_signs({5})}, .attributes = axes(0, 0)},
                {.inputs = {both_signs({})}, .attributes = axes(0, 0)},
                {.inputs = {uniform({3, 700}, 100, 101)}, .attributes = axes(0, 1), .differentiate = false},
                {.inputs = {both_signs({40, 3, 100})}, .attributes = axes(1, 2), .differentiate = false},
                {.inputs = {both_signs({37, 5, 9})}, .attributes = axes(1, 2), .differentiate = false},
                {.inputs = {Array({{1.0, std::numeric_limits<double>::quiet_NaN(), -1.0}, {1.0, 2.0, 6.0}})},
                 .attributes = axes(0, 1),
                 .differentiate = false},
                {.inputs = {zeros({0, 3})}, .attributes = axes(0, 1)},
                {.inputs = {zeros({2, 0})}, .attributes = axes(0, 1), .differentiate = false}},
});

// dx = dy v1, ddy = v0 + v1 (x - center), dcenter = -v1 sum(dy).
Values centered_sums_gradient(const Node& node, const Values& dys) {
  const Value x = node.input(0);
  const Value dy = node.input(1);
  Values out(3);
  Value slope = dys[0];
  if (dys[1].defined()) {
    const Value along = dys[1] * (x - node.input(2));
    slope = slope.defined() ? slope + along : along;
    if (node.wants(0)) out[0] = dy * dys[1];
    if (node.wants(2)) out[2] = -dys[1] * node.output(0);
  }
  out[1] = broadcast_to(slope, x.shape());
  return out;
}

Sample of_three(const Shape& x, const Shape& center, const Attributes& attributes, bool differentiate = true) {
  return {{both_signs(x), both_signs(x), both_signs(center)}, attributes, differentiate};
}

CHAINRULE_EARLY const BuiltinOp centered_sums_op = register_op({
    .name = "centered_sums",
    .doc = "sum(dy) and sum(dy (x - center)) of each part of an array.",
    .attributes = part_attributes,
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(3);
      const Shape& x = call.shape(0);
      const Type out{call.dtype(0), part_axes(call).of_results(x)};
      require_shape(call, 1, x);
      require_shape(call, 2, out.shape);
      return {out, out};
    },
    .forward = kernel_of([](KernelCall& call) {
      return kernels::make_centered_sums(call.output.dtype, parts_of(call), call.workspace);
    }),
    .gradient = centered_sums_gradient,
    .samples = {of_three({3, 4}, {3, 1}, axes(0, 1)), of_three({2, 3, 2}, {1, 3, 1}, axes(1, 2)),
                of_three({2, 3, 2}, {2, 3, 1}, axes(0, 2)), of_three({5}, {1}, axes(0, 0)),
                of_three({3, 700}, {3, 1}, axes(0, 1), false), of_three({40, 3, 100}, {1, 3, 1}, axes(1, 2), false),
                of_three({37, 5, 9}, {1, 5, 1}, axes(1, 2), false), of_three({0, 3}, {0, 1}, axes(0, 1)),
                of_three({2, 0}, {2, 1}, axes(0, 1))},
});

Attributes of_axes(std::size_t first, std::size_t last) {
  return axes(static_cast<std::int64_t>(first), static_cast<std::int64_t>(last));
}

}  // namespace

namespace detail {

Moments statistics(Value x, std::size_t first, std::size_t last) {
  const Value mean = apply(statistics_op, {x}, of_axes(first, last));
  return {mean, mean.node().output(1)};
}

CenteredSums centered_sums(Value x, Value dy, Value center, std::size_t first, std::size_t last) {
  const Value plain = apply(centered_sums_op, {x, dy, center}, of_axes(first, last));
  return {plain, plain.node().output(1)};
}

}  // namespace detail

}  // namespace chainrule
