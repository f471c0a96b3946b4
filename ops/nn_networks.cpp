// Layers that are made of others.
#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/nn_parts.hpp>

CHAINRULE_OP_FAMILY(nn_networks)

namespace chainrule::nn {

Mlp mlp(Value x, const std::vector<std::size_t>& units, const MlpOptions& options, Location at) {
  at = detail::scoped(at);
  if (!x.defined()) throw Error(at, "mlp", "requires values of a graph, got an empty Value");
  if (units.empty()) throw Error(at, "mlp", "requires a number of units for each layer, got no layer");
  const detail::LocationScope location(at);
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope scope = network_scope(graph, options.name, "mlp", at);
  Mlp out{.output = x, .layers = {}};
  for (std::size_t i = 0; i < units.size(); ++i) {
    out.layers.push_back(dense(out.output, units[i],
                               {.name = fmt::format("{}", i), .initializer = options.initializer, .bias = options.bias},
                               at));
    out.output = out.layers.back().output;
    if (i + 1 == units.size() && !options.activate_last) break;
    out.output = options.activation(out.output);
    if (options.keep != 1) out.output = dropout(out.output, {.keep = options.keep}, at);
  }
  attempt.succeed();
  return out;
}

Value residual(Value x, const Block& block, const ResidualOptions& options, Location at) {
  at = detail::scoped(at);
  if (!x.defined()) throw Error(at, "residual", "requires values of a graph, got an empty Value");
  if (!block) throw Error(at, "residual", "requires a block, got an empty function");
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope scope = network_scope(graph, options.name, "residual", at);
  const Value changed = block(x);
  Value kept = x;
  if (options.projection) {
    const NameScope projection = graph.scope("projection", at);
    kept = options.projection(x);
  }
  for (const Value v : {changed, kept})
    if (v.data() != x.data())
      throw Error(at, "residual",
                  fmt::format("requires a block that returns a value of x's graph, got {}",
                              v.defined() ? v.describe() + " of another" : "an empty Value"));
  if (!(changed.shape() == kept.shape()))
    throw Error(
        at, "residual",
        fmt::format("requires a block {} shape, got {} and {}{}",
                    options.projection ? "and a projection of one" : "that keeps x's", to_string(changed.shape()),
                    to_string(kept.shape()), options.projection ? "" : ": give it a projection"));
  const detail::LocationScope location(at);
  const Value y = kept + changed;
  attempt.succeed();
  return y;
}

}  // namespace chainrule::nn
