#include <chainrule/ops/weight_normalization.hpp>

#include <algorithm>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(weight_normalization)

namespace chainrule {

namespace {

Value reshaped(Value x, const Shape& shape) { return x.shape() == shape ? x : reshape(x, shape); }

// sum(x, axes, keepdims), but x for no axes at all.
Value sum_over(Value x, const Axes& axes) { return axes.empty() ? x : sum(x, AxisList(axes), true); }

// What is left of a shape without these axes, or with them as 1s.
Shape without(const Shape& shape, const Axes& axes, bool keepdims) {
  Shape out;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    const bool taken = std::find(axes.begin(), axes.end(), static_cast<std::int64_t>(i)) != axes.end();
    if (!taken) out.push_back(shape[i]);
    if (taken && keepdims) out.push_back(1);
  }
  return out;
}

// 1 / f(x), and 0 with a slope of 0 where x is 0. (A `where` alone would hide 0 * inf in its gradient.)
template <class F>
Value inverse_or_zero(Value x, F f) {
  const Value none = equal(x, 0.0);
  return where(none, 0.0, 1.0 / f(where(none, 1.0, x)));
}

// ---- weight normalization

// What the forward and the gradient rule have in common, the reduced axes as 1s.
struct Direction {
  Axes axes;
  Value v, g;
  Value inverse;    // 1 / ||v||
  Value direction;  // v / ||v||

  explicit Direction(const Node& node)
      : axes(node.attribute<Axes>("axes")),
        v(node.input(0)),
        g(reshaped(node.input(1), without(v.shape(), axes, true))),
        inverse(inverse_or_zero(sum_over(square(v), axes), [](Value x) { return sqrt(x); })),
        direction(v * inverse) {}
};

CHAINRULE_EARLY const BuiltinOp weight_norm_op = register_op({
    .name = "weight_norm",
    .doc = "g * v / ||v||, the norm over axes.",
    .attributes = {{"axes", AttributeType::axes}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(2);
      call.require_floating(0);
      call.require_same_dtype();
      const Shape left = without(call.shape(0), call.attribute<Axes>("axes"), false);
      if (!(call.shape(1) == left))
        call.fail(fmt::format("g of shape {} for v {}", to_string(left), to_string(call.shape(0))),
                  to_string(call.shape(1)));
      return call.type(0);
    },
    .forward = expand([](const Node& node) -> Value {
      const Direction d(node);
      return d.v * (d.g * d.inverse);
    }),
    // With n = v / ||v||: dv = g / ||v|| (dw - n sum(dw n)), dg = sum(dw n).
    .gradient = [](const Node& node, Value dw) -> Values {
      const Direction d(node);
      const Value along = sum_over(dw * d.direction, d.axes);
      Values out(2);
      if (node.wants(0)) out[0] = d.g * d.inverse * (dw - d.direction * along);
      if (node.wants(1)) out[1] = reshaped(along, node.input(1).shape());
      return out;
    },
    .samples = {{.inputs = {uniform({4, 3}, -2, 2), uniform({3}, -2, 2)}, .attributes = {{"axes", Axes{0}}}},
                {.inputs = {uniform({3, 2, 2, 3}, -2, 2), uniform({3}, -2, 2)},
                 .attributes = {{"axes", Axes{1, 2, 3}}}},
                {.inputs = {uniform({2, 3, 4}, -2, 2), uniform({3}, -2, 2)}, .attributes = {{"axes", Axes{0, 2}}}},
                {.inputs = {uniform({2, 5}, -2, 2), uniform({}, -2, 2)}, .attributes = {{"axes", Axes{0, 1}}}},
                {.inputs = {Array({{0.0, 3.0}, {0.0, -4.0}}), Array({2.0, 5.0})},
                 .attributes = {{"axes", Axes{0}}},
                 .differentiate = false},
                {.inputs = {zeros({0, 2}), uniform({2}, -2, 2)}, .attributes = {{"axes", Axes{0}}}}},
});

// ---- spectral normalization

// w as a matrix without moving it: u and v are reshaped to what broadcasts against w.
struct Matrix {
  Axes row;      // the axis of the rows
  Axes columns;  // the others
  Shape shape;   // of w

  Matrix(const Shape& w, std::int64_t axis) : row{axis}, shape(w) {
    for (std::size_t i = 0; i < w.rank(); ++i)
      if (static_cast<std::int64_t>(i) != axis) columns.push_back(static_cast<std::int64_t>(i));
  }
  [[nodiscard]] Shape of_u() const { return {shape[static_cast<std::size_t>(row[0])]}; }
  [[nodiscard]] Shape of_v() const {
    Dimension out = 1;
    for (const auto i : columns) out = out * shape[static_cast<std::size_t>(i)];
    return {out};
  }
  [[nodiscard]] Value spread_u(Value u) const { return reshaped(u, without(shape, columns, true)); }
  [[nodiscard]] Value spread_v(Value v) const { return reshaped(v, without(shape, row, true)); }
  // w v and w^T u, spread as u and v are.
  [[nodiscard]] Value times_v(Value w, Value v) const { return sum_over(w * spread_v(v), columns); }
  [[nodiscard]] Value transposed_times_u(Value w, Value u) const { return sum_over(w * spread_u(u), row); }
};

Matrix matrix_of(const Node& node) { return {node.input(0).shape(), node.attribute<std::int64_t>("axis")}; }

CHAINRULE_EARLY const BuiltinOp spectral_norm_op = register_op({
    .name = "spectral_norm",
    .doc = "w / (u^T w v), w read as a matrix with `axis` as its rows.",
    .attributes = {{"axis", AttributeType::axis, 0}},
    .shape = [](const OpCall& call) -> Type {
      call.require_inputs(3);
      call.require_floating(0);
      call.require_same_dtype();
      const Matrix m(call.shape(0), call.attribute<std::int64_t>("axis"));
      const auto require = [&](const char* name, std::size_t i, const Shape& shape) {
        if (!(call.shape(i) == shape))
          call.fail(fmt::format("{} of shape {} for w {}", name, to_string(shape), to_string(call.shape(0))),
                    to_string(call.shape(i)));
      };
      require("u", 1, m.of_u());
      require("v", 2, m.of_v());
      return call.type(0);
    },
    .forward = expand([](const Node& node) -> Value {
      const Matrix m = matrix_of(node);
      const Value w = node.input(0);
      const Value norm = sum_over(m.times_v(w, node.input(2)) * m.spread_u(node.input(1)), m.row);
      return w * inverse_or_zero(norm, [](Value x) { return x; });
    }),
    // With s = u^T w v, y = w / s and c = sum(dy y) / s: dw = dy / s - c u v^T, du = -c w v, dv = -c w^T u.
    .gradient = [](const Node& node, Value dy) -> Values {
      const Matrix m = matrix_of(node);
      const Value w = node.input(0);
      const Value u = node.input(1);
      const Value v = node.input(2);
      const Value w_times_v = m.times_v(w, v);
      const Value inverse = inverse_or_zero(sum_over(w_times_v * m.spread_u(u), m.row), [](Value x) { return x; });
      const Value c = sum_over(sum_over(dy * (w * inverse), m.columns), m.row) * inverse;
      Values out(3);
      if (node.wants(0)) out[0] = dy * inverse - c * m.spread_u(u) * m.spread_v(v);
      if (node.wants(1)) out[1] = reshaped(-c * w_times_v, u.shape());
      if (node.wants(2)) out[2] = reshaped(-c * m.transposed_times_u(w, u), v.shape());
      return out;
    },
    .samples = {{.inputs = {uniform({3, 4}, 0.1, 2), uniform({3}, 0.1, 1), uniform({4}, 0.1, 1)},
                 .attributes = {{"axis", 0}}},
                {.inputs = {uniform({3, 4}, -2, -0.1), uniform({4}, 0.1, 1), uniform({3}, 0.1, 1)},
                 .attributes = {{"axis", -1}}},
                {.inputs = {uniform({2, 3, 2, 2}, 0.1, 2), uniform({3}, 0.1, 1), uniform({8}, 0.1, 1)},
                 .attributes = {{"axis", 1}}},
                {.inputs = {uniform({5}, 0.1, 2), uniform({5}, 0.1, 1), uniform({1}, 0.1, 1)},
                 .attributes = {{"axis", 0}}},
                {.inputs = {zeros({2, 2}), ones({2}), ones({2})}, .attributes = {{"axis", 0}}, .differentiate = false}},
});

bool is_variable(Value v) { return &v.node().op() == &detail::variable_op(); }

// Finds what is wrong with the operands before anything is built on them.
Matrix fitting_matrix(Value w, Value u, Value v, const SpectralNormOptions& options, Location at) {
  if (!w.defined()) throw Error(at, "spectral_norm", "requires values of a graph, got an empty Value");
  const detail::Attempt trial(w.data());  // takes the node back
  return matrix_of(apply(spectral_norm_op, {w, u, v}, {{"axis", options.axis}}, at).node());
}

// x / ||x||, or `otherwise` where x is 0.
Value unit(Value x, Value otherwise) {
  const Value squares = sum(square(x));
  return where(equal(squares, 0.0), otherwise, x * inverse_or_zero(squares, [](Value s) { return sqrt(s); }));
}

}  // namespace

Value weight_norm(Value v, Value g, const AxisList& axes, Location at) {
  Axes list = axes.list();
  if (list.empty() && v.defined())
    for (std::size_t i = 0; i < v.rank(); ++i) list.push_back(static_cast<std::int64_t>(i));
  return apply(weight_norm_op, {v, g}, {{"axes", list}}, at);
}

Value spectral_norm(Value w, Value u, Value v, const SpectralNormOptions& options, Location at) {
  if (options.iterations < 0)
    throw Error(at, "spectral_norm", fmt::format("requires iterations >= 0, got {}", options.iterations));
  return detail::attempt({w, u, v}, [&] {
    const Matrix m = fitting_matrix(w, u, v, options, at);
    if (is_variable(u) != is_variable(v))
      throw Error(at, "spectral_norm",
                  fmt::format("requires variables for both u and v, or for neither, got {} and {}", u.node().op().name,
                              v.node().op().name));
    const detail::LocationScope scope(detail::scoped(at));
    const Value fixed = stop_gradient(w);
    Value new_u = u;
    Value new_v = v;
    for (std::int64_t i = 0; i < options.iterations; ++i) {
      new_v = unit(reshaped(m.transposed_times_u(fixed, new_u), v.shape()), new_v);
      new_u = unit(reshaped(m.times_v(fixed, new_v), u.shape()), new_u);
    }
    const auto used = [](Value improved, Value kept) { return stop_gradient(by_mode(improved, kept)); };
    const Value y = apply(spectral_norm_op, {w, used(new_u, u), used(new_v, v)}, {{"axis", options.axis}}, at);
    Graph graph = w.graph();
    if (is_variable(u) && options.iterations > 0) {
      graph.update_with(y, u, new_u, at);
      graph.update_with(y, v, new_v, at);
    }
    return y;
  });
}

}  // namespace chainrule
