// The optimizers of the course, and their kin.
#include <cmath>
#include <initializer_list>
#include <string_view>

#include <fmt/core.h>

#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/optim/optimizer_parts.hpp>

namespace chainrule::optim {

using parts::average;
using parts::bias;
using parts::each;
using parts::moving_average;
using parts::slot;
using parts::Step;

Updates GradientDescent::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(*this, parameters, gradients, "gradient_descent", at, {}, [](Updates& updates, const Step& step) {
    updates.push_back({step.w, step.kept - step.rate * step.g});
  });
}

Updates Momentum::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(*this, parameters, gradients, "momentum", at, {average("beta", beta)},
              [this](Updates& updates, const Step& step) {
                const Value next = moving_average(updates, step.w, "momentum", beta, step.g);
                updates.push_back({step.w, step.kept - step.rate * next});
              });
}

Updates HeavyBall::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(*this, parameters, gradients, "heavy_ball", at, {average("momentum", momentum), {"dampening", dampening}},
              [this](Updates& updates, const Step& step) {
                const Value v = slot(step.w, "momentum");
                const Value g = dampening == 0 ? step.g : (1 - dampening) * step.g;
                const Value next = momentum * v + g;
                const Value way = nesterov ? g + momentum * next : next;
                updates.push_back({v, next});
                updates.push_back({step.w, step.kept - step.rate * way});
              });
}

Updates RMSProp::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(*this, parameters, gradients, "rmsprop", at,
              {average("beta", beta), {"epsilon", epsilon}, average("momentum", momentum)},
              [this](Updates& updates, const Step& step) {
                const Value g = step.g;
                Value size = moving_average(updates, step.w, "rmsprop", beta, square(g));
                if (centered) {
                  const Value mean = moving_average(updates, step.w, "rmsprop/mean", beta, g);
                  size = maximum(size - square(mean), 0.0);  // which rounding may make negative
                }
                const Value root = epsilon_inside_root ? sqrt(size + epsilon) : sqrt(size) + epsilon;
                if (momentum == 0) {
                  updates.push_back({step.w, step.kept - step.rate * g / root});
                  return;
                }
                const Value v = slot(step.w, "rmsprop/momentum");
                const Value way = momentum * v + g / root;
                updates.push_back({v, way});
                updates.push_back({step.w, step.kept - step.rate * way});
              });
}

namespace {

// Of Adam and AdamW.
template <class Optimizer>
Updates adam(const Optimizer& o, std::string_view name, const Values& parameters, const Values& gradients,
             Location at) {
  parts::Count count(name);
  const auto named = [name](const char* slot) { return fmt::format("{}/{}", name, slot); };
  Updates updates = each(o, parameters, gradients, name, at,
                         {average("beta1", o.beta1), average("beta2", o.beta2), {"epsilon", o.epsilon}},
                         [&](Updates& out, const Step& step) {
                           const Value t = count.next(step.w.graph());
                           const Value next_v = moving_average(out, step.w, named("v"), o.beta1, step.g);
                           Value size = moving_average(out, step.w, named("s"), o.beta2, square(step.g));
                           if (o.amsgrad) {
                             const Value greatest = slot(step.w, named("greatest"));
                             size = maximum(greatest, size);
                             out.push_back({greatest, size});
                           }
                           // The corrections of the moments' bias are scalars: a division each, not one an element.
                           const Value v_rate = step.rate / bias(o.beta1, t, step.w.dtype());
                           const Value s_corrected = size * (1.0 / bias(o.beta2, t, step.w.dtype()));
                           const Value root =
                               o.epsilon_inside_root ? sqrt(s_corrected + o.epsilon) : sqrt(s_corrected) + o.epsilon;
                           out.push_back({step.w, step.kept - v_rate * next_v / root});
                         });
  count.update(updates);
  return updates;
}

}  // namespace

Updates Adam::apply(const Values& parameters, const Values& gradients, Location at) const {
  return adam(*this, "adam", parameters, gradients, at);
}

Updates AdamW::apply(const Values& parameters, const Values& gradients, Location at) const {
  return adam(*this, "adamw", parameters, gradients, at);
}

CHAINRULE_MINIMIZE(GradientDescent, "gradient_descent")
CHAINRULE_MINIMIZE(Momentum, "momentum")
CHAINRULE_MINIMIZE(HeavyBall, "heavy_ball")
CHAINRULE_MINIMIZE(RMSProp, "rmsprop")
CHAINRULE_MINIMIZE(Adam, "adam")
CHAINRULE_MINIMIZE(AdamW, "adamw")

}  // namespace chainrule::optim
