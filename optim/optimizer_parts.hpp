// What optimizers are made of. Not installed.
#pragma once

#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/optim/optimizers.hpp>

namespace chainrule::optim::parts {

// A number among an optimizer's options, which is finite, 0 or more and below this.
struct Option {
  std::string_view name;
  double value;
  double below = std::numeric_limits<double>::infinity();
};

// A weight in an average of what was and what is: 1 would never let go of what was.
inline Option average(std::string_view name, double value) { return {name, value, 1}; }

void check(std::initializer_list<Option> options, std::string_view optimizer, Location at);
void check(const Values& parameters, const Values& gradients, std::string_view optimizer, Location at);
void check(const ParameterGroups& groups, const Values& parameters, std::string_view optimizer, Location at);

// The parameters that the loss depends on, in order of creation.
Values parameters_below(Value loss, std::string_view optimizer, Location at);

// A variable that begins as zeros, or as this number, and has the parameter's dtype, and its shape or another.
Value slot(Value parameter, std::string_view name, double begin = 0);
Value slot(Value parameter, std::string_view name, const Shape& shape);

// A variable that counts from 0.
Value count_variable(Graph graph, std::string_view name);

// A moving average of x, kept in a slot of the parameter that begins as zeros: what becomes of it, beta a + (1 - beta)
// x, is appended to the updates and returned.
Value moving_average(Updates& updates, Value parameter, std::string_view name, double beta, Value x);

// A parameter's own rate and decay.
GroupOptions options_of(Value parameter, double weight_decay, const ParameterGroups& groups);

// How much of a moving average that began as zeros its t values make up: 1 - beta^t, in float64 and without the
// cancellation whatever the average's dtype: in float32 1 - 0.9999 has four digits, and 1 - 0.9999999 none.
Value bias(double beta, Value t, DType dtype);

// The number of an optimizer's updates, this one included: another optimizer of the same State may run more or less
// often. A variable that is there once it is asked for.
class Count {
 public:
  explicit Count(std::string_view optimizer) : optimizer_(optimizer) {}
  Value next(Graph graph);
  // Appends the variable's update.
  void update(Updates& updates) const {
    if (count_.defined()) updates.push_back({count_, next_});
  }

 private:
  std::string_view optimizer_;
  Value count_;
  Value next_;
};

// A parameter's update.
struct Step {
  Value w;
  Value g;  // with the decay, where it is coupled
  Value rate;
  Value kept;    // w less its decay
  double decay;  // that of the parameter's group
};

// Whether the optimizer applies its weight_decay itself, in `rule`.
enum class Decay : std::uint8_t { before, by_rule };

// The updates of all parameters, each by `rule`, which appends those of its slots.
template <class Optimizer, class Rule>
Updates each(const Optimizer& optimizer, const Values& parameters, const Values& gradients, std::string_view name,
             Location at, std::initializer_list<Option> options, Rule rule, Decay decay = Decay::before) {
  check(options, name, at);
  check({{"weight_decay", optimizer.weight_decay}}, name, at);
  check(parameters, gradients, name, at);
  check(optimizer.groups, parameters, name, at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(parameters[0], [&] {
    const detail::RootScope root(parameters[0].data());
    Updates updates;
    Graph graph = parameters[0].graph();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Value w = parameters[i];
      const GroupOptions own = options_of(w, optimizer.weight_decay, optimizer.groups);
      Value rate = optimizer.learning_rate.in(graph, w.dtype(), at, name);
      if (own.rate != 1) rate = own.rate * rate;
      Step step{.w = w, .g = gradients[i], .rate = rate, .kept = w, .decay = *own.weight_decay};
      if (step.decay != 0 && decay == Decay::before) {
        if (optimizer.coupled_weight_decay)
          step.g = step.g + step.decay * w;
        else
          step.kept = w - step.decay * rate * w;
      }
      rule(updates, step);
    }
    return updates;
  });
}

// minimize() is the same for all: the gradients of the loss, then apply().
template <class Optimizer>
Updates minimized(const Optimizer& optimizer, Value loss, const Values& parameters, std::string_view name,
                  Location at) {
  if (!loss.defined()) throw Error(at, name, "requires a loss, got an empty Value");
  if (parameters.empty()) throw Error(at, name, "requires at least one parameter, got none");
  return detail::attempt(
      loss, [&] { return optimizer.apply(parameters, detail::training_gradients(loss, parameters, name, at), at); });
}

#define CHAINRULE_MINIMIZE(Optimizer, name)                                              \
  Updates Optimizer::minimize(Value loss, Location at) const {                           \
    return minimize(loss, parts::parameters_below(loss, name, at), at);                  \
  }                                                                                      \
  Updates Optimizer::minimize(Value loss, const Values& parameters, Location at) const { \
    return parts::minimized(*this, loss, parameters, name, at);                          \
  }

}  // namespace chainrule::optim::parts
