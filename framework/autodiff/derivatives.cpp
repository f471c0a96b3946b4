#include <chainrule/framework/autodiff/derivatives.hpp>

#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/run/twin.hpp>
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

namespace {

// Rows of a matrix, each a run of a program that is fed a unit vector as `direction`.
template <class Build>
Array rows(Value y, Value x, const State& state, std::span<const Feed> feeds, Location at, std::string_view op,
           const Shape& direction_shape, Build build) {
  if (!y.defined() || !x.defined() || y.data() != state.graph().data().get() || x.data() != y.data())
    throw Error(at, op, "requires values of the State's graph");
  check::Twin twin(state, feeds, at, false);
  Graph graph = twin.graph();
  const Value direction = graph.input(graph.unique_name("direction"), direction_shape, y.dtype());
  const Value row = build(twin.of(y), twin.of(x), direction);
  Program program(twin.state(), {.outputs = {row}}, at);
  std::vector<Feed> all = twin.feeds();
  Array unit(y.dtype(), evaluate(direction_shape, twin.sizes()));
  all.emplace_back(direction, unit);
  Array out;
  for (std::int64_t i = 0; i < unit.size(); ++i) {
    unit.set(i, 1);
    const Results results = program.run(std::span<const Feed>(all), at);
    const Array& made = results[0];
    if (i == 0) out = Array(made.dtype(), Dims{unit.size(), made.size()});
    std::memcpy(static_cast<char*>(out.raw()) + static_cast<std::size_t>(i) * made.bytes(), made.raw(), made.bytes());
    unit.set(i, 0);
  }
  return out;
}

}  // namespace

Array jacobian(Value y, Value x, const State& state, std::span<const Feed> feeds, Location at) {
  return rows(y, x, state, feeds, at, "jacobian", y.defined() ? y.shape() : Shape{},
              [&](Value of, Value in, Value w) { return gradients(of, {in}, w, at)[0]; });
}

Array jacobian(Value y, Value x, const State& state, std::initializer_list<Feed> feeds, Location at) {
  return jacobian(y, x, state, std::span<const Feed>(feeds.begin(), feeds.size()), at);
}

Array hessian(Value loss, Value x, const State& state, std::span<const Feed> feeds, Location at) {
  return rows(loss, x, state, feeds, at, "hessian", x.defined() ? x.shape() : Shape{},
              [&](Value of, Value in, Value v) { return hvp(of, {in}, {v}, at)[0]; });
}

Array hessian(Value loss, Value x, const State& state, std::initializer_list<Feed> feeds, Location at) {
  return hessian(loss, x, state, std::span<const Feed>(feeds.begin(), feeds.size()), at);
}

}  // namespace chainrule
