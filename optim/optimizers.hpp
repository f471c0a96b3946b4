// Optimizers: functions from parameters and gradients to update expressions. They have no kernels of their own; what
// they build fuses like everything else, and a new one is ten lines beside these.
#pragma once

#include <initializer_list>

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/optim/schedules.hpp>

namespace chainrule::optim {

// What every optimizer has.
//   minimize(loss)               the updates of all parameters that the loss depends on
//   minimize(loss, parameters)   of these
//   apply(parameters, gradients) from gradients made elsewhere (clipped, summed)
// Throw Error, and leave the graph as it was, where the loss is no scalar, or has a derivative with respect to none of
// the parameters; without parameters, for one that is given twice or is none; for gradients of other shapes or dtypes;
// for a rate, epsilon or momentum that is not finite or is negative, and for averages of beta or momentum >= 1.
#define CHAINRULE_OPTIMIZER_FUNCTIONS                                                                                 \
  [[nodiscard]] Updates minimize(Value loss, Location at = Location::here()) const;                                   \
  [[nodiscard]] Updates minimize(Value loss, const Values& parameters, Location at = Location::here()) const;         \
  [[nodiscard]] Updates minimize(Value loss, std::initializer_list<Value> parameters, Location at = Location::here()) \
      const {                                                                                                         \
    return minimize(loss, Values(parameters), at);                                                                    \
  }                                                                                                                   \
  [[nodiscard]] Updates apply(const Values& parameters, const Values& gradients, Location at = Location::here()) const;

// w -= rate * g
struct GradientDescent {
  LearningRate learning_rate = 0.01;
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// The course's momentum, an exponentially weighted average of gradients: v = beta v + (1 - beta) g; w -= rate * v.
struct Momentum {
  LearningRate learning_rate = 0.01;
  double beta = 0.9;
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// The field's momentum (Polyak's heavy ball, torch.optim.SGD): v = momentum v + g; w -= rate * v.
struct HeavyBall {
  LearningRate learning_rate = 0.01;
  double momentum = 0.9;
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// s = beta s + (1 - beta) g^2; w -= rate * g / (sqrt(s) + epsilon), or g / sqrt(s + epsilon) (Hinton's lecture 6e; the
// notes have both forms).
struct RMSProp {
  LearningRate learning_rate = 0.001;
  double beta = 0.9;
  double epsilon = 1e-8;
  bool epsilon_inside_root = false;
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
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

#undef CHAINRULE_OPTIMIZER_FUNCTIONS

}  // namespace chainrule::optim
