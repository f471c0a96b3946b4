// Algebra: identities that hold for every number, NaN and infinities included, and layout ops that undo each other.
// (x * 0 stays: it is NaN where x is. x + 0 goes, although it turns -0 into 0.) Small constant powers become products
// and roots, which are rounded more often than the power is.
#include <cmath>
#include <limits>
#include <string_view>
#include <unordered_map>

#include <chainrule/framework/passes/pass.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
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

// x^n for 1 <= n by repeated squaring.
Value whole_power(Value x, int n) {
  if (n == 1) return x;
  const Value even = square(whole_power(x, n / 2));
  return n % 2 == 0 ? even : even * x;
}

// The square root as C's pow has it: 0 at -0 and infinity at -infinity.
Value root(Value x) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  return abs(sqrt(where(equal(x, -inf), inf, x)));
}

// Powers of whole and half exponents up to this are a few products. Those of a negative one are products of 1 / x,
// which overflows and underflows only where the power does.
constexpr double most_factors = 8;

Value pow(const Node& node, const Values& in) {
  const Array* exponent = detail::constant_value(in[1]);
  if (!exponent || exponent->size() != 1 || !(in[0].shape() == node.shape())) return {};
  const double b = (*exponent)[0];
  if (b == 0) return broadcast_to(in[0].graph().constant(1.0, node.dtype()), node.shape());
  if (!(std::abs(b) <= most_factors) || 2 * b != std::trunc(2 * b)) return {};
  const auto factor = [b](Value x) { return b < 0 ? 1.0 / x : x; };
  const int whole = static_cast<int>(std::abs(b));
  if (whole == std::abs(b)) return whole_power(factor(in[0]), whole);
  const Value half = factor(root(in[0]));
  // The power of -infinity and -0 has no sign; of other negative numbers it is NaN.
  return whole == 0 ? half : abs(whole_power(factor(in[0]), whole) * half);
}

Value neg(const Node&, const Values& in) {
  const Node inner = in[0].node();
  return inner.op().name == "neg" ? inner.input(0) : Value{};
}

Value where(const Node& node, const Values& in) {
  if (in[1] == in[2]) return when_same_type(in[1], node);
  const Array* condition = detail::constant_value(in[0]);
  if (!condition || condition->size() != 1) return {};
  return when_same_type((*condition)[0] != 0 ? in[1] : in[2], node);
}

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
  const Value x = cast(in[0], node.dtype());  // the sum of narrow integers is int64
  return x.shape() == node.shape() ? x : chainrule::reshape(x, node.shape());
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
