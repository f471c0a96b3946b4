#include <chainrule/optim/optimizers.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/gradients.hpp>
#include <chainrule/framework/graph_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

namespace chainrule::optim {

namespace {

// The parameters that the loss depends on, in order of creation.
Values parameters_below(Value loss, std::string_view optimizer, Location at) {
  if (!loss.defined()) throw Error(at, optimizer, "requires a loss, got an empty Value");
  const detail::GraphData& graph = *loss.data();
  std::vector<char> below(loss.id() + 1, 0);
  below[loss.id()] = 1;
  for (detail::NodeId id = loss.id() + 1; id-- > 0;)
    if (below[id])
      for (const detail::NodeId input : graph.node(id).inputs) below[input] = 1;
  Values out;
  for (const Value parameter : loss.graph().parameters())
    if (parameter.id() <= loss.id() && below[parameter.id()]) out.push_back(parameter);
  if (out.empty()) throw Error(at, optimizer, "requires a loss that depends on a parameter, got one that does not");
  return out;
}

void check(const Values& parameters, const Values& gradients, std::string_view optimizer, Location at) {
  if (parameters.size() != gradients.size() || parameters.empty())
    throw Error(at, optimizer,
                fmt::format("requires a gradient for each parameter, got {} gradients for {} parameters",
                            gradients.size(), parameters.size()));
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].defined() || !gradients[i].defined())
      throw Error(at, optimizer, "requires values, got an empty Value");
    for (const Value v : {parameters[i], gradients[i]})
      if (v.data() != parameters[0].data())
        throw Error(at, optimizer, fmt::format("requires values of one graph, got {} of another", v.name()));
    if (parameters[i].node().op().name != "variable")
      throw Error(at, optimizer, fmt::format("requires parameters or variables, got {}", parameters[i].name()));
    if (!(parameters[i].shape() == gradients[i].shape()))
      throw Error(at, optimizer,
                  fmt::format("requires a gradient of shape {} for '{}', got {}", to_string(parameters[i].shape()),
                              parameters[i].name(), to_string(gradients[i].shape())));
    if (parameters[i].dtype() != gradients[i].dtype())
      throw Error(at, optimizer,
                  fmt::format("requires a gradient of dtype {} for '{}', got {}", name(parameters[i].dtype()),
                              parameters[i].name(), name(gradients[i].dtype())));
  }
}

// A variable that begins as zeros and has the parameter's shape and dtype.
Value slot(Value parameter, std::string_view name) {
  Graph graph = parameter.graph();
  return graph.variable(graph.unique_name(fmt::format("{}/{}", parameter.name(), name)), zeros(parameter.shape()),
                        parameter.dtype());
}

// The updates of all parameters, each by `rule`, which appends those of its slots.
template <class Rule>
Updates each(const Values& parameters, const Values& gradients, const LearningRate& learning_rate,
             std::string_view optimizer, Location at, Rule rule) {
  check(parameters, gradients, optimizer, at);
  const detail::LocationScope scope(detail::scoped(at));
  Updates updates;
  Graph graph = parameters[0].graph();
  for (std::size_t i = 0; i < parameters.size(); ++i)
    rule(updates, parameters[i], gradients[i], learning_rate.in(graph, parameters[i].dtype(), at));
  return updates;
}

}  // namespace

Updates GradientDescent::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "gradient_descent", at,
              [](Updates& updates, Value w, Value g, Value rate) {
                updates.push_back({w, w - rate * g});
              });
}

Updates Momentum::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "momentum", at,
              [this](Updates& updates, Value w, Value g, Value rate) {
                const Value v = slot(w, "momentum");
                const Value next = beta * v + (1 - beta) * g;
                updates.push_back({v, next});
                updates.push_back({w, w - rate * next});
              });
}

Updates HeavyBall::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "heavy_ball", at,
              [this](Updates& updates, Value w, Value g, Value rate) {
                const Value v = slot(w, "momentum");
                const Value next = momentum * v + g;
                updates.push_back({v, next});
                updates.push_back({w, w - rate * next});
              });
}

Updates RMSProp::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "rmsprop", at,
              [this](Updates& updates, Value w, Value g, Value rate) {
                const Value s = slot(w, "rmsprop");
                const Value next = beta * s + (1 - beta) * square(g);
                const Value root = epsilon_inside_root ? sqrt(next + epsilon) : sqrt(next) + epsilon;
                updates.push_back({s, next});
                updates.push_back({w, w - rate * g / root});
              });
}

namespace {

// How much of a moving average that began as zeros its t values make up: 1 - beta^t, in float64 and without the
// cancellation whatever the average's dtype: in float32 1 - 0.9999 has four digits, and 1 - 0.9999999 none.
Value bias(double beta, Value t, DType dtype) { return cast(-expm1(std::log(beta) * cast(t, float64)), dtype); }

}  // namespace

Updates Adam::apply(const Values& parameters, const Values& gradients, Location at) const {
  check(parameters, gradients, "adam", at);
  const detail::LocationScope scope(detail::scoped(at));
  Graph graph = parameters[0].graph();
  // Its own count of updates: another optimizer of the same State may run more or less often. Made with the first
  // slots, once nothing can be wrong any more.
  Value t;
  Value next_t;
  Updates updates =
      each(parameters, gradients, learning_rate, "adam", at, [&](Updates& out, Value w, Value g, Value rate) {
        if (!t.defined()) {
          t = graph.variable(graph.unique_name("adam/t"), Initial(Array(std::int64_t{0})));
          next_t = t + 1;
        }
        const Value v = slot(w, "adam/v");
        const Value s = slot(w, "adam/s");
        const Value next_v = beta1 * v + (1 - beta1) * g;
        const Value next_s = beta2 * s + (1 - beta2) * square(g);
        // The corrections of the moments' bias are scalars: a division each, not one an element.
        const Value v_rate = rate / bias(beta1, next_t, w.dtype());
        const Value s_correction = 1.0 / bias(beta2, next_t, w.dtype());
        const Value s_corrected = next_s * s_correction;
        const Value root = epsilon_inside_root ? sqrt(s_corrected + epsilon) : sqrt(s_corrected) + epsilon;
        out.push_back({v, next_v});
        out.push_back({s, next_s});
        out.push_back({w, w - v_rate * next_v / root});
      });
  updates.push_back({t, next_t});
  return updates;
}

// minimize() is the same for all: the gradients of the loss, then apply().
#define CHAINRULE_MINIMIZE(Optimizer, label)                                             \
  Updates Optimizer::minimize(Value loss, Location at) const {                           \
    return minimize(loss, parameters_below(loss, label, at), at);                        \
  }                                                                                      \
  Updates Optimizer::minimize(Value loss, const Values& parameters, Location at) const { \
    return apply(parameters, gradients(loss, parameters, at), at);                       \
  }

CHAINRULE_MINIMIZE(GradientDescent, "gradient_descent")
CHAINRULE_MINIMIZE(Momentum, "momentum")
CHAINRULE_MINIMIZE(HeavyBall, "heavy_ball")
CHAINRULE_MINIMIZE(RMSProp, "rmsprop")
CHAINRULE_MINIMIZE(Adam, "adam")

}  // namespace chainrule::optim
