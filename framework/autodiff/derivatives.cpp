#include <chainrule/framework/autodiff/derivatives.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule {

namespace {

void check_directions(const Values& xs, const Values& vs, std::string_view op, Location at) {
  if (xs.size() != vs.size())
    throw Error(at, op, fmt::format("requires a direction for each x, got {} for {}", vs.size(), xs.size()));
  for (std::size_t i = 0; i < xs.size(); ++i)
    if (!xs[i].defined() || !vs[i].defined() || !(xs[i].shape() == vs[i].shape()) || xs[i].dtype() != vs[i].dtype())
      throw Error(at, op, fmt::format("requires directions of the shape and dtype of each x, got another for x {}", i));
}

// <a, b> summed over the list; an empty Value for an empty list.
Value inner(const Values& a, const Values& b) {
  Value out;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const Value term = sum(a[i] * b[i]);
    out = out.defined() ? out + term : term;
  }
  return out;
}

}  // namespace

Values vjp(Value y, const Values& xs, Value w, Location at) { return gradients(y, xs, w, at); }

Value jvp(Value y, const Values& xs, const Values& vs, Location at) {
  check_directions(xs, vs, "jvp", at);
  if (!y.defined() || xs.empty()) throw Error(at, "jvp", "requires a y and at least one x");
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt({y, xs[0]}, [&] {
    // Where it is taken does not matter, as the product is linear in it.
    const Value w = broadcast_to(y.graph().constant(0.0, y.dtype()), y.shape());
    return gradients(inner(gradients(y, xs, w, at), vs), {w}, at)[0];
  });
}

Values hvp(Value loss, const Values& xs, const Values& vs, Location at) {
  check_directions(xs, vs, "hvp", at);
  if (xs.empty()) throw Error(at, "hvp", "requires at least one x");
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt({loss, xs[0]}, [&] { return gradients(inner(gradients(loss, xs, at), vs), xs, at); });
}

}  // namespace chainrule
