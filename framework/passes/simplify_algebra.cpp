// Algebra: identities that hold for every number, NaN and infinities included, and layout ops that undo each other.
// (x * 0 stays: it is NaN where x is. x + 0 goes, although it turns -0 into 0.)
#include <string_view>
#include <unordered_map>

#include <chainrule/framework/passes/pass.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>

namespace chainrule::passes {

namespace {

// The value to use instead of the node, or an empty one. `in` are its inputs in the new graph.
using Rule = Value (*)(const Node& node, const Values& in);

Value when_same_type(Value v, const Node& node) {
  return v.shape() == node.shape() && v.dtype() == node.dtype() ? v : Value{};
}

Value add(const Node& node, const Values& in) {
  if (detail::is_constant(in[1], 0)) return when_same_type(in[0], node);
  if (detail::is_constant(in[0], 0)) return when_same_type(in[1], node);
  return {};
}

Value sub(const Node& node, const Values& in) {
  return detail::is_constant(in[1], 0) ? when_same_type(in[0], node) : Value{};
}

Value mul(const Node& node, const Values& in) {
  if (detail::is_constant(in[1], 1)) return when_same_type(in[0], node);
  if (detail::is_constant(in[0], 1)) return when_same_type(in[1], node);
  if (in[0] == in[1]) return square(in[0]);
  return {};
}

Value div(const Node& node, const Values& in) {
  return detail::is_constant(in[1], 1) ? when_same_type(in[0], node) : Value{};
}

Value pow(const Node& node, const Values& in) {
  if (detail::is_constant(in[1], 1)) return when_same_type(in[0], node);
  if (detail::is_constant(in[1], 2) && in[0].shape() == node.shape()) return square(in[0]);
  return {};
}

Value neg(const Node&, const Values& in) {
  const Node inner = in[0].node();
  return inner.op().name == "neg" ? inner.input(0) : Value{};
}

Value where(const Node& node, const Values& in) { return in[1] == in[2] ? when_same_type(in[1], node) : Value{}; }

// max(x, x) and min(x, x)
Value of_itself(const Node& node, const Values& in) { return in[0] == in[1] ? when_same_type(in[0], node) : Value{}; }

Value stop_gradient(const Node&, const Values& in) { return in[0]; }

Value same_type(const Node& node, const Values& in) { return when_same_type(in[0], node); }

Value reshape(const Node& node, const Values& in) {
  if (in[0].shape() == node.shape()) return in[0];
  const Node inner = in[0].node();
  return inner.op().name == "reshape" ? chainrule::reshape(inner.input(0), node.shape()) : Value{};
}

Value transpose(const Node& node, const Values& in) {
  const auto& outer = node.attribute<Axes>("permutation");
  Axes identity;
  for (std::size_t i = 0; i < outer.size(); ++i) identity.push_back(static_cast<std::int64_t>(i));
  if (outer == identity) return in[0];
  const Node inner = in[0].node();
  if (inner.op().name != "transpose") return {};
  const auto& first = inner.attribute<Axes>("permutation");
  Axes both;
  for (const auto axis : outer) both.push_back(first[static_cast<std::size_t>(axis)]);
  return both == identity ? inner.input(0) : chainrule::transpose(inner.input(0), both);
}

// A sum over no axes, or over axes of extent 1, only drops them.
Value sum(const Node& node, const Values& in) {
  for (const auto axis : node.attribute<Axes>("axes"))
    if (!in[0].shape()[normalize_axis(axis, in[0].rank(), "sum", {})].is(1)) return {};
  return in[0].shape() == node.shape() ? in[0] : chainrule::reshape(in[0], node.shape());
}

// f(broadcast_to(x, S), y) is f(x, y), and what that lacks of S comes after it: less is computed, and the numbers that
// were hidden meet the other rules.
Value before_broadcast(Rewriter& r, const Node& node) {
  Values in = r.now_inputs(node);
  bool any = false;
  for (Value& v : in) {
    if (v.node().op().name != "broadcast_to") continue;
    v = v.node().input(0);
    any = true;
  }
  if (!any) return {};
  Value smaller;
  try {
    smaller = r.copy(node, in, node.attributes());
  } catch (const Error&) {
    return {};  // an op of a user's that wants operands of one shape
  }
  return smaller.shape() == node.shape() ? smaller : broadcast_to(smaller, node.shape());
}

const std::unordered_map<std::string_view, Rule>& rules() {
  static const std::unordered_map<std::string_view, Rule> table = {
      {"add", add},           {"sub", sub},
      {"mul", mul},           {"div", div},
      {"pow", pow},           {"neg", neg},
      {"where", where},       {"maximum", of_itself},
      {"minimum", of_itself}, {"stop_gradient", stop_gradient},
      {"cast", same_type},    {"broadcast_to", same_type},
      {"reshape", reshape},   {"transpose", transpose},
      {"sum", sum},           {"max", sum},
      {"min", sum},
  };
  return table;
}

}  // namespace

Computation simplify_algebra(const Computation& c) {
  // By address: the name of an op is looked up once, not once a node.
  struct Known {
    Rule rule = nullptr;
    bool elementwise = false;
  };
  std::unordered_map<const Op*, Known> by_op;
  return Rewriter(c).run([&](Rewriter& r, const Node& node) {
    const auto [it, added] = by_op.try_emplace(&node.op(), Known{});
    Known& known = it->second;
    if (added) {
      if (const auto rule = rules().find(node.op().name); rule != rules().end()) known.rule = rule->second;
      known.elementwise = node.op().forward.micro && node.op().name != "broadcast_to";
    }
    if (known.rule)
      if (const Value better = known.rule(node, r.now_inputs(node)); better.defined()) return better;
    if (known.elementwise)
      if (const Value better = before_broadcast(r, node); better.defined()) return better;
    return r.copy(node);
  });
}

}  // namespace chainrule::passes
