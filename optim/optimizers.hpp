// Optimizers: functions from parameters and gradients to update expressions. They have no kernels of their own; what
// they build fuses like everything else, and a new one is ten lines beside these.
#pragma once

#include <initializer_list>
#include <optional>
#include <vector>

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/graph/name_patterns.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/optim/schedules.hpp>

namespace chainrule::optim {

struct GroupOptions {
  double rate = 1;                          // times the optimizer's
  std::optional<double> weight_decay = {};  // in place of the optimizer's
};

// What holds for some of the parameters, chosen by their names: {"*/bias", {.weight_decay = 0}}.
struct ParameterGroup {
  NamePatterns parameters;
  GroupOptions options = {};
};
// A parameter has the options of the first group that its name matches, or the optimizer's own.
using ParameterGroups = std::vector<ParameterGroup>;

// What every optimizer has.
//   minimize(loss)               the updates of all parameters that the loss depends on
//   minimize(loss, parameters)   of these
//   apply(parameters, gradients) from gradients made elsewhere (clipped, summed)
// Throw Error, and leave the graph as it was, where the loss is no scalar, or has a derivative with respect to none of
// the parameters; without parameters, for one that is given twice or is none; for gradients of other shapes or dtypes;
// for a rate, epsilon, momentum or weight_decay that is not finite or is negative, for averages of beta or momentum
// >= 1, and for a group's pattern that no parameter of the graph matches.
//
// And what every optimizer does: with a weight_decay, w -= rate * weight_decay * w as well, of the w before the update
// and beside the gradient, which does not go into averages: decoupled weight decay (Loshchilov and Hutter 2019; Adam
// with it is AdamW). Biases and norms are often left out, and pretrained layers train slower:
//   optim::Adam{.weight_decay = 0.01, .groups = {{{"*/bias", "*/gamma", "*/beta"}, {.weight_decay = 0}},
//                                                {"body/*", {.rate = 0.1}}}}
#define CHAINRULE_OPTIMIZER_FUNCTIONS                                                                                 \
  [[nodiscard]] Updates minimize(Value loss, Location at = Location::here()) const;                                   \
  [[nodiscard]] Updates minimize(Value loss, const Values& parameters, Location at = Location::here()) const;         \
  [[nodiscard]] Updates minimize(Value loss, std::initializer_list<Value> parameters, Location at = Location::here()) \
      const {                                                                                                         \
    return minimize(loss, Values(parameters), at);                                                                    \
  }                                                                                                                   \
  [[nodiscard]] Updates apply(const Values& parameters, const Values& gradients, Location at = Location::here()) const;

// w -= rate * g. Of a table whose rows are taken (take, embedding) it touches these rows alone, without a weight_decay:
// its g is otherwise 0, and never made (passes/update_rows.cpp, which says how a row taken several times is rounded).
// The other optimizers are defined on all rows, which averages and moments go on moving when no gradient comes to them.
struct GradientDescent {
  LearningRate learning_rate = 0.01;
  double weight_decay = 0;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// The course's momentum, an exponentially weighted average of gradients: v = beta v + (1 - beta) g; w -= rate * v.
struct Momentum {
  LearningRate learning_rate = 0.01;
  double beta = 0.9;
  double weight_decay = 0;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// The field's momentum (Polyak's heavy ball, torch.optim.SGD): v = momentum v + g; w -= rate * v.
struct HeavyBall {
  LearningRate learning_rate = 0.01;
  double momentum = 0.9;
  double weight_decay = 0;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// s = beta s + (1 - beta) g^2; w -= rate * g / (sqrt(s) + epsilon), or g / sqrt(s + epsilon) (Hinton's lecture 6e; the
// notes have both forms).
struct RMSProp {
  LearningRate learning_rate = 0.001;
  double beta = 0.9;
  double epsilon = 1e-8;
  bool epsilon_inside_root = false;
  double weight_decay = 0;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// v = beta1 v + (1 - beta1) g; s = beta2 s + (1 - beta2) g^2; with t the number of this optimizer's updates, this one
// included, v' = v / (1 - beta1^t), s' = s / (1 - beta2^t); w -= rate * v' / (sqrt(s') + epsilon), or
// v' / sqrt(s' + epsilon). (Kingma and Ba 2015.)
struct Adam {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  bool epsilon_inside_root = false;
  double weight_decay = 0;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

#undef CHAINRULE_OPTIMIZER_FUNCTIONS

}  // namespace chainrule::optim
