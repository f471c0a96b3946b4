#include <chainrule/optim/optimizers.hpp>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <unordered_set>

#include <fmt/core.h>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
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

// A number among an optimizer's options, which is finite, 0 or more and below this.
struct Option {
  std::string_view name;
  double value;
  double below = std::numeric_limits<double>::infinity();
};

// A weight in an average of what was and what is: 1 would never let go of what was.
Option average(std::string_view name, double value) { return {name, value, 1}; }

void check(std::initializer_list<Option> options, std::string_view optimizer, Location at) {
  for (const Option& option : options)
    if (!(option.value >= 0 && option.value < option.below))
      throw Error(at, optimizer,
                  fmt::format("requires {} {} that is {}, got {}", option.name == "epsilon" ? "an" : "a", option.name,
                              std::isinf(option.below) ? "finite and not negative"
                                                       : fmt::format("0 or more and below {}", option.below),
                              option.value));
}

void check(const Values& parameters, const Values& gradients, std::string_view optimizer, Location at) {
  if (parameters.empty()) throw Error(at, optimizer, "requires at least one parameter, got none");
  if (parameters.size() != gradients.size())
    throw Error(at, optimizer,
                fmt::format("requires a gradient for each parameter, got {} gradients for {} parameters",
                            gradients.size(), parameters.size()));
  std::unordered_set<std::uint32_t> seen;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].defined() || !gradients[i].defined())
      throw Error(at, optimizer, "requires values, got an empty Value");
    for (const Value v : {parameters[i], gradients[i]})
      if (v.data() != parameters[0].data())
        throw Error(at, optimizer, fmt::format("requires values of one graph, got {} of another", v.describe()));
    if (parameters[i].node().op().name != "variable")
      throw Error(at, optimizer, fmt::format("requires parameters or variables, got {}", parameters[i].describe()));
    if (!seen.insert(parameters[i].id()).second)
      throw Error(at, optimizer, fmt::format("requires each parameter once, got {} twice", parameters[i].name()));
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
             std::string_view optimizer, Location at, std::initializer_list<Option> options, Rule rule) {
  check(options, optimizer, at);
  check(parameters, gradients, optimizer, at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(parameters[0], [&] {
    const detail::RootScope root(parameters[0].data());
    Updates updates;
    Graph graph = parameters[0].graph();
    for (std::size_t i = 0; i < parameters.size(); ++i)
      rule(updates, parameters[i], gradients[i], learning_rate.in(graph, parameters[i].dtype(), at, optimizer));
    return updates;
  });
}

}  // namespace

Updates GradientDescent::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "gradient_descent", at, {},
              [](Updates& updates, Value w, Value g, Value rate) {
                updates.push_back({w, w - rate * g});
              });
}

Updates Momentum::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "momentum", at, {average("beta", beta)},
              [this](Updates& updates, Value w, Value g, Value rate) {
                const Value v = slot(w, "momentum");
                const Value next = beta * v + (1 - beta) * g;
                updates.push_back({v, next});
                updates.push_back({w, w - rate * next});
              });
}

Updates HeavyBall::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "heavy_ball", at, {average("momentum", momentum)},
              [this](Updates& updates, Value w, Value g, Value rate) {
                const Value v = slot(w, "momentum");
                const Value next = momentum * v + g;
                updates.push_back({v, next});
                updates.push_back({w, w - rate * next});
              });
}

Updates RMSProp::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(parameters, gradients, learning_rate, "rmsprop", at, {average("beta", beta), {"epsilon", epsilon}},
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
  // Its own count of updates: another optimizer of the same State may run more or less often.
  Value t;
  Value next_t;
  Updates updates = each(parameters, gradients, learning_rate, "adam", at,
                         {average("beta1", beta1), average("beta2", beta2), {"epsilon", epsilon}},
                         [&](Updates& out, Value w, Value g, Value rate) {
                           if (!t.defined()) {
                             Graph graph = w.graph();
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
                           const Value root =
                               epsilon_inside_root ? sqrt(s_corrected + epsilon) : sqrt(s_corrected) + epsilon;
                           out.push_back({v, next_v});
                           out.push_back({s, next_s});
                           out.push_back({w, w - v_rate * next_v / root});
                         });
  updates.push_back({t, next_t});
  return updates;
}

namespace {

// minimize() is the same for all: the gradients of the loss, then apply().
template <class Optimizer>
Updates minimized(const Optimizer& optimizer, Value loss, const Values& parameters, std::string_view name,
                  Location at) {
  if (!loss.defined()) throw Error(at, name, "requires a loss, got an empty Value");
  if (parameters.empty()) throw Error(at, name, "requires at least one parameter, got none");
  return detail::attempt(
      loss, [&] { return optimizer.apply(parameters, detail::training_gradients(loss, parameters, name, at), at); });
}

}  // namespace

#define CHAINRULE_MINIMIZE(Optimizer, name)                                              \
  Updates Optimizer::minimize(Value loss, Location at) const {                           \
    return minimize(loss, parameters_below(loss, name, at), at);                         \
  }                                                                                      \
  Updates Optimizer::minimize(Value loss, const Values& parameters, Location at) const { \
    return minimized(*this, loss, parameters, name, at);                                 \
  }

CHAINRULE_MINIMIZE(GradientDescent, "gradient_descent")
CHAINRULE_MINIMIZE(Momentum, "momentum")
CHAINRULE_MINIMIZE(HeavyBall, "heavy_ball")
CHAINRULE_MINIMIZE(RMSProp, "rmsprop")
CHAINRULE_MINIMIZE(Adam, "adam")

}  // namespace chainrule::optim
