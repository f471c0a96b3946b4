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
// with it is AdamW). With coupled_weight_decay it is part of the gradient instead, g + weight_decay * w, as an L2 term
// of the loss would be. Biases and norms are often left out, and pretrained layers train slower:
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
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// The course's momentum, an exponentially weighted average of gradients: v = beta v + (1 - beta) g; w -= rate * v.
struct Momentum {
  LearningRate learning_rate = 0.01;
  double beta = 0.9;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// The field's momentum (Polyak's heavy ball, torch.optim.SGD): v = momentum v + (1 - dampening) g; w -= rate * v, or
// with nesterov w -= rate * ((1 - dampening) g + momentum v), of the new v (Nesterov 1983, in the form of Sutskever et
// al. 2013). v begins as zeros, so that the first step is dampened too, which PyTorch's is not.
struct HeavyBall {
  LearningRate learning_rate = 0.01;
  double momentum = 0.9;
  double dampening = 0;
  bool nesterov = false;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// s = beta s + (1 - beta) g^2; w -= rate * g / (sqrt(s) + epsilon), or g / sqrt(s + epsilon) (Hinton's lecture 6e; the
// notes have both forms). Centered, with m = beta m + (1 - beta) g, s - m^2 stands in the place of s (Graves 2013),
// and no less than 0. With a momentum, v = momentum v + that quotient; w -= rate * v.
struct RMSProp {
  LearningRate learning_rate = 0.001;
  double beta = 0.9;
  double epsilon = 1e-8;
  bool epsilon_inside_root = false;
  bool centered = false;
  double momentum = 0;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// v = beta1 v + (1 - beta1) g; s = beta2 s + (1 - beta2) g^2; with t the number of this optimizer's updates, this one
// included, v' = v / (1 - beta1^t), s' = s / (1 - beta2^t); w -= rate * v' / (sqrt(s') + epsilon), or
// v' / sqrt(s' + epsilon). (Kingma and Ba 2015.) With amsgrad the greatest s so far stands in the place of s (Reddi,
// Kale and Kumar 2018; divided by 1 - beta2^t as PyTorch does it).
struct Adam {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  bool epsilon_inside_root = false;
  bool amsgrad = false;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// Adam with a decay: the default of PyTorch's AdamW (Loshchilov and Hutter 2019).
struct AdamW {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  bool epsilon_inside_root = false;
  bool amsgrad = false;
  double weight_decay = 0.01;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// s += g^2, from `initial`; w -= rate * g / (sqrt(s) + epsilon). (Duchi, Hazan and Singer 2011.)
struct Adagrad {
  LearningRate learning_rate = 0.01;
  double initial = 0;
  double epsilon = 1e-10;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// s = beta s + (1 - beta) g^2; d = g sqrt(u + epsilon) / sqrt(s + epsilon); u = beta u + (1 - beta) d^2;
// w -= rate * d. (Zeiler 2012, whose rate is 1.)
struct Adadelta {
  LearningRate learning_rate = 1;
  double beta = 0.9;
  double epsilon = 1e-6;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// v = beta1 v + (1 - beta1) g; u = max(beta2 u, |g| + epsilon); w -= rate * v / ((1 - beta1^t) u). (Kingma and Ba
// 2015, section 7.1, with PyTorch's epsilon: without one an element without gradients would be 0 / 0.)
struct Adamax {
  LearningRate learning_rate = 0.002;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// Adam with Nesterov's momentum (Dozat 2016). v, s and s' as of Adam; m_t = beta1 (1 - 0.96^(t momentum_decay) / 2) and
// M_t = m_1 ... m_t;
//   w -= rate * ((1 - m_t) g / (1 - M_t) + m_(t+1) v / (1 - M_t m_(t+1))) / (sqrt(s') + epsilon).
struct NAdam {
  LearningRate learning_rate = 0.002;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double momentum_decay = 0.004;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// Rectified Adam (Liu et al. 2020). v, s, v' and s' as of Adam; with p = 2 / (1 - beta2) - 1 and
// p_t = p - 2 t beta2^t / (1 - beta2^t): w -= rate * r v' / (sqrt(s') + epsilon) where p_t > 5, and rate * v' before;
// r^2 = (p_t - 4) (p_t - 2) p / ((p - 4) (p - 2) p_t). (Epsilon is beside the root of s', not s, as in Adam.)
struct RAdam {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// w -= rate * sign(beta1 m + (1 - beta1) g); then m = beta2 m + (1 - beta2) g. (Chen et al. 2023.)
struct Lion {
  LearningRate learning_rate = 1e-4;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// Those that look at a parameter as a whole. |x| is the root of the sum of the squares of its elements.

// Layer-wise adaptive rates (You, Gitman and Ginsburg 2017): with d = g + weight_decay w,
// v = momentum v + rate * q d; w -= v, where q = trust |w| / (|g| + weight_decay |w| + epsilon), and 1 where |w| or
// |g| is 0. The decay is the one that stands here, coupled or not.
struct LARS {
  LearningRate learning_rate = 0.1;
  double momentum = 0.9;
  double trust = 0.001;
  double epsilon = 1e-8;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// Adam by layers (You et al. 2020): with v' and s' as of Adam, d = v' / (sqrt(s') + epsilon) + weight_decay w;
// w -= rate * q d with q = |w| / |d|, and 1 where either is 0. The decay is the one that stands here, coupled or not.
struct LAMB {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-6;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// Adam's second moments by rows and columns (Shazeer and Stern 2018, algorithms 4 and 5), so that a matrix of m x n has
// m + n of them. Of a parameter of rank 2 or more, along the last two axes, with b = 1 - t^decay_power:
//   r = b r + (1 - b) mean over the last axis (g^2 + epsilon), c the same over the one before it,
//   s = r c / (mean of r), u = g / sqrt(s); of other ones s = b s + (1 - b) (g^2 + epsilon);
//   w -= rate * max(least_scale, rms(w)) * u / max(1, rms(u) / threshold), rms(x) = |x| / sqrt(elements).
// With a relative step the rate is min(rate, 1 / sqrt(t)).
struct Adafactor {
  LearningRate learning_rate = 0.01;
  double decay_power = -0.8;  // below 0
  double epsilon = 1e-30;
  double threshold = 1;
  double least_scale = 1e-3;
  bool relative_step = true;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

// Momentum whose matrices are made nearly orthogonal (Jordan et al. 2024): v = momentum v + g; u = g + momentum v, or v
// without nesterov; w -= rate * sqrt(max(1, rows / columns)) * o with o five steps of Newton and Schulz from
// u / (|u| + epsilon): x = a x + (b x x^T + c (x x^T)^2) x, (a, b, c) = (3.4445, -4.7750, 2.0315). Rows are the first
// axis and columns all others. For the weights within a network: minimize() throws Error for a parameter of rank below
// 2, and embeddings, heads, biases and norms are another optimizer's:
//   auto updates = optim::Muon{}.minimize(loss, matrices);
//   for (const auto& update : optim::AdamW().minimize(loss, others)) updates.push_back(update);
struct Muon {
  LearningRate learning_rate = 0.02;
  double momentum = 0.95;
  bool nesterov = true;
  double epsilon = 1e-7;
  double weight_decay = 0;
  bool coupled_weight_decay = false;
  ParameterGroups groups = {};
  CHAINRULE_OPTIMIZER_FUNCTIONS
};

#undef CHAINRULE_OPTIMIZER_FUNCTIONS

}  // namespace chainrule::optim
