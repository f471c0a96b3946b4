#include <chainrule/framework/run/jacobian.hpp>

#include <cstring>

#include <chainrule/framework/autodiff/derivatives.hpp>
#include <chainrule/framework/run/twin.hpp>

namespace chainrule {

namespace {

// Rows of a matrix, each a run of a program that is fed a unit vector as `direction`.
template <class Build>
Array rows(Value y, Value x, const State& state, std::span<const Feed> feeds, Location at, std::string_view op,
           const Shape& direction_shape, Build build) {
  if (!y.defined() || !x.defined() || y.data() != state.graph().data().get() || x.data() != y.data())
    throw Error(at, op, "requires values of the State's graph");
  detail::Twin twin(state, feeds, at, false);
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
