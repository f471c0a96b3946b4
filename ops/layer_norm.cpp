// Layer and root mean square normalization: rows, by kernels. A row is in the nearest cache when its statistics are
// known, and what it becomes is written at once; sums in graph ops would read the array once more for each of them.
#include <limits>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/row_norm.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/norm_parts.hpp>
#include <chainrule/ops/normalization.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/ops/statistics.hpp>

CHAINRULE_OP_FAMILY(layer_norm)

namespace chainrule {

namespace {

std::size_t first_axis(const Attributes& attributes) {
  return static_cast<std::size_t>(attributes.get<std::int64_t>("axis"));
}

// The shape of gamma and beta.
Shape last_axes(const Shape& x, const Attributes& attributes) {
  Shape out;
  for (std::size_t i = first_axis(attributes); i < x.rank(); ++i) out.push_back(x[i]);
  return out;
}

kernels::RowNorm rows_of(const KernelCall& call, bool centered) {
  kernels::RowNorm norm{1, 1, call.attributes.number("epsilon"), centered};
  const Dims& x = call.inputs[0].shape;
  for (std::size_t i = 0; i < x.rank(); ++i) (i < first_axis(call.attributes) ? norm.rows : norm.columns) *= x[i];
  return norm;
}

Forward row_norm(bool centered) {
  Forward forward;
  forward.kernel = [centered](KernelCall& call) {
    return kernels::make_row_norm(call.output.dtype, rows_of(call, centered), call.inputs.size());
  };
  forward.dtypes = Forward::Dtypes::one_floating;
  return forward;
}

Attributes from_axis(std::int64_t axis, double epsilon) { return {{"axis", axis}, {"epsilon", epsilon}}; }

// Rows that were normalized, in graph ops, and means along them.
struct Rows {
  bool centered;
  Value x;
  std::size_t axis;
  AxisList axes;
  Value scale;       // 1 / sqrt(variance + epsilon)
  Value normalized;  // (x - mean) * scale

  explicit Rows(const Node& node)
      : centered(node.attribute<bool>("centered")), x(node.input(0)), axis(first_axis(node.attributes())) {
    for (std::size_t i = axis; i < x.rank(); ++i) axes.push_back(static_cast<std::int64_t>(i));
    const double epsilon = node.attributes().number("epsilon");
    if (centered) {
      const Moments m = detail::statistics(x, 0, axis);
      scale = 1.0 / sqrt(m.variance + epsilon);
      normalized = (x - m.mean) * scale;
    } else {
      scale = 1.0 / sqrt(mean_of(square(x)) + epsilon);
      normalized = x * scale;
    }
  }
  [[nodiscard]] Value mean_of(Value v) const { return mean(v, axes, true); }
};

// What the node makes of other slopes, without gamma: with g for dy, dx = scale (g - mean(g) - z mean(g z)).
Value slopes_of(const Node& node, Value g) { return apply(node.op(), {node.input(0), g}, node.attributes()); }

// Let F(g) be dx without gamma, which is linear and its own adjoint. Of w . dx = w . F(gamma dy) the slopes are
//   in g   F(w)
//   in x   -scale^2 z (mean(w g) - mean(w) mean(g) - mean(w z) mean(g z)) - scale (mean(g z) F(w) + mean(w z) F(g)),
//          as scale' = -scale^2 z / n and z' = F / n in means, without mean(w) mean(g) where no mean is taken off
// and of a . dgamma + b . dbeta = sum(a dy z) + sum(b dy) they are a z + b in dy, and F(a dy) in x.
Values second_gradient(const Node& node, const Values& ds) {
  const Rows r(node);
  const Value dy = node.input(1);
  const bool weighted = node.input_count() > 2;
  const auto weigh = [&](Value v) { return weighted ? node.input(2) * v : v; };
  Values out(node.input_count());
  const auto add = [&](std::size_t i, Value v) { out[i] = out[i].defined() ? out[i] + v : v; };
  if (const Value w = ds[0]; w.defined()) {
    const Value of_w = slopes_of(node, w);
    const Value g = weigh(dy);
    const Value wz = r.mean_of(w * r.normalized);
    const Value gz = r.mean_of(g * r.normalized);
    Value together = r.mean_of(w * g) - wz * gz;
    if (r.centered) together = together - r.mean_of(w) * r.mean_of(g);
    add(0, -square(r.scale) * r.normalized * together - r.scale * (gz * of_w + wz * node.output(0)));
    add(1, weigh(of_w));
    if (weighted) add(2, dy * of_w);
  }
  if (ds[1].defined()) {
    add(0, slopes_of(node, ds[1] * dy));
    add(1, ds[1] * r.normalized);
  }
  if (ds[2].defined()) add(1, broadcast_to(ds[2], dy.shape()));
  return out;
}

Forward row_norm_gradient() {
  Forward forward;
  forward.kernel = [](KernelCall& call) {
    return kernels::make_row_norm_gradient(call.output.dtype, rows_of(call, call.attributes.get<bool>("centered")),
                                           call.inputs.size() > 2, call.workspace);
  };
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.skips_unread = true;
  return forward;
}

std::vector<Sample> gradient_samples(const Shape& x, const Shape& features, std::int64_t axis, double epsilon,
                                     bool differentiate = true) {
  std::vector<Sample> out;
  for (const bool centered : {true, false}) {
    const Attributes attributes = from_axis(axis, epsilon).with("centered", centered);
    out.push_back({{uniform(x, -2, 2), uniform(x, -2, 2)}, attributes, differentiate});
    out.push_back({{uniform(x, -2, 2), uniform(x, -2, 2), uniform(features, -2, 2)}, attributes, differentiate});
  }
  return out;
}

CHAINRULE_EARLY const BuiltinOp row_norm_gradient_op = register_op({
    .name = "row_norm_gradient",
    .doc = "What layer_norm and rms_norm make of a gradient dy: those of x, of gamma and of beta.",
    .attributes = {{"axis", AttributeType::axis, -1}, {"epsilon", 1e-5}, {"centered", true}},
    .shape = [](const OpCall& call) -> Types {
      if (call.size() != 2 && call.size() != 3) call.fail("2 or 3 inputs", fmt::format("{}", call.size()));
      call.require_floating(0);
      call.require_same_dtype();
      detail::require_epsilon(call);
      const Type features{call.dtype(0), last_axes(call.shape(0), call.attributes())};
      if (!(call.shape(1) == call.shape(0)))
        call.fail(fmt::format("dy of shape {}", to_string(call.shape(0))), to_string(call.shape(1)));
      if (call.size() > 2 && !(call.shape(2) == features.shape))
        call.fail(fmt::format("gamma of shape {}", to_string(features.shape)), to_string(call.shape(2)));
      return {call.type(0), features, features};
    },
    .forward = row_norm_gradient(),
    .gradient = second_gradient,
    .samples = detail::joined({gradient_samples({3, 4}, {4}, 1, 1e-5), gradient_samples({2, 2, 3}, {2, 3}, 1, 0.1),
                               gradient_samples({5}, {5}, 0, 0.5), gradient_samples({0, 3}, {3}, 1, 1e-5),
                               gradient_samples({37, 70}, {70}, 1, 1e-5, false)}),
});

// x's, gamma's and beta's gradients.
GradientRule gradient_of(bool centered) {
  return [centered](const Node& node, Value dy) -> Values {
    Values inputs = {node.input(0), dy};
    if (node.input_count() > 1) inputs.push_back(node.input(1));
    Values out = apply_all(row_norm_gradient_op, inputs, node.attributes().with("centered", centered));
    out.resize(node.input_count());
    return out;
  };
}

CHAINRULE_EARLY const DeclaredAttributes norm_attributes = {{"axis", AttributeType::axis, -1}, {"epsilon", 1e-5}};

Type norm_shape(const OpCall& call, std::size_t most) {
  detail::require_epsilon(call);
  detail::require_features(call, most, last_axes(call.shape(0), call.attributes()));
  return call.type(0);
}

// Rows of one size and another, an offset that is large beside the deviation, a row of equal elements and one with NaN.
std::vector<Sample> norm_samples(std::size_t most) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const Array odd(
      {{65536.0, 65537.0, 65536.5, 65533.0}, {0.1, 0.1, 0.1, 0.1}, {1.0, nan, 2.0, 3.0}, {0.0, 0.0, 0.0, 1.0}});
  return detail::joined({detail::norm_samples(most, {4, 5}, {5}, from_axis(-1, 1e-5)),
                         detail::norm_samples(most, {2, 3, 4}, {3, 4}, from_axis(1, 1e-2)),
                         detail::norm_samples(most, {6}, {6}, from_axis(0, 0.5)),
                         detail::norm_samples(most, {0, 3}, {3}, from_axis(1, 1e-5)),
                         detail::norm_samples(most, {19, 83}, {83}, from_axis(1, 1e-5), false),
                         {{.inputs = {odd}, .attributes = from_axis(1, 1e-5), .differentiate = false}}});
}

CHAINRULE_EARLY const BuiltinOp layer_norm_op = register_op({
    .name = "layer_norm",
    .doc = "gamma * (x - mean) / sqrt(variance + epsilon) + beta, over the axes from `axis` on.",
    .attributes = norm_attributes,
    .shape = [](const OpCall& call) -> Type { return norm_shape(call, 3); },
    .forward = row_norm(true),
    .gradient = gradient_of(true),
    .samples = norm_samples(3),
});

CHAINRULE_EARLY const BuiltinOp rms_norm_op = register_op({
    .name = "rms_norm",
    .doc = "gamma * x / sqrt(mean(x^2) + epsilon), over the axes from `axis` on.",
    .attributes = norm_attributes,
    .shape = [](const OpCall& call) -> Type { return norm_shape(call, 2); },
    .forward = row_norm(false),
    .gradient = gradient_of(false),
    .samples = norm_samples(2),
});

Attributes attributes_of(const LayerNormOptions& options) { return from_axis(options.axis, options.epsilon); }

}  // namespace

Value layer_norm(Value x, const LayerNormOptions& options, Location at) {
  return apply(layer_norm_op, {x}, attributes_of(options), at);
}
Value layer_norm(Value x, Value gamma, const LayerNormOptions& options, Location at) {
  return apply(layer_norm_op, {x, gamma}, attributes_of(options), at);
}
Value layer_norm(Value x, Value gamma, Value beta, const LayerNormOptions& options, Location at) {
  return apply(layer_norm_op, {x, gamma, beta}, attributes_of(options), at);
}

Value rms_norm(Value x, const LayerNormOptions& options, Location at) {
  return apply(rms_norm_op, {x}, attributes_of(options), at);
}
Value rms_norm(Value x, Value gamma, const LayerNormOptions& options, Location at) {
  return apply(rms_norm_op, {x, gamma}, attributes_of(options), at);
}

}  // namespace chainrule
