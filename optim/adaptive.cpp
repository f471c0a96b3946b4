// Optimizers that give each element a rate of its own.
#include <cmath>
#include <initializer_list>

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

Updates Adagrad::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(*this, parameters, gradients, "adagrad", at, {{"initial", initial}, {"epsilon", epsilon}},
              [this](Updates& updates, const Step& step) {
                const Value s = slot(step.w, "adagrad", initial);
                const Value next = s + square(step.g);
                updates.push_back({s, next});
                updates.push_back({step.w, step.kept - step.rate * step.g / (sqrt(next) + epsilon)});
              });
}

Updates Adadelta::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(*this, parameters, gradients, "adadelta", at, {average("beta", beta), {"epsilon", epsilon}},
              [this](Updates& updates, const Step& step) {
                const Value s = moving_average(updates, step.w, "adadelta/gradients", beta, square(step.g));
                const Value u = slot(step.w, "adadelta/steps");
                const Value way = step.g * (sqrt(u + epsilon) / sqrt(s + epsilon));
                updates.push_back({u, beta * u + (1 - beta) * square(way)});
                updates.push_back({step.w, step.kept - step.rate * way});
              });
}

Updates Adamax::apply(const Values& parameters, const Values& gradients, Location at) const {
  parts::Count count("adamax");
  Updates updates = each(*this, parameters, gradients, "adamax", at,
                         {average("beta1", beta1), average("beta2", beta2), {"epsilon", epsilon}},
                         [&](Updates& out, const Step& step) {
                           const Value t = count.next(step.w.graph());
                           const Value v = moving_average(out, step.w, "adamax/v", beta1, step.g);
                           const Value u = slot(step.w, "adamax/u");
                           const Value next_u = maximum(beta2 * u, abs(step.g) + epsilon);
                           out.push_back({u, next_u});
                           const Value rate = step.rate / bias(beta1, t, step.w.dtype());
                           out.push_back({step.w, step.kept - rate * v / next_u});
                         });
  count.update(updates);
  return updates;
}

Updates NAdam::apply(const Values& parameters, const Values& gradients, Location at) const {
  parts::Count count("nadam");
  // M_t is a float64 scalar: a product of thousands of numbers near 1.
  Value product;
  Value next_product;
  Value now;
  Value ahead;
  Updates updates =
      each(*this, parameters, gradients, "nadam", at,
           {average("beta1", beta1), average("beta2", beta2), {"epsilon", epsilon}, {"momentum_decay", momentum_decay}},
           [&](Updates& out, const Step& step) {
             Graph graph = step.w.graph();
             const DType dtype = step.w.dtype();
             const Value t = count.next(graph);
             if (!product.defined()) {
               product = graph.variable(graph.unique_name("nadam/product"), Initial(Array(1.0)), float64);
               const Value time = cast(t, float64);
               const auto momentum_at = [&](Value when) {
                 return beta1 * (1.0 - 0.5 * exp(std::log(0.96) * momentum_decay * when));
               };
               const Value m = momentum_at(time);
               const Value m_ahead = momentum_at(time + 1.0);
               next_product = product * m;
               now = (1.0 - m) / (1.0 - next_product);
               ahead = m_ahead / (1.0 - next_product * m_ahead);
             }
             const Value v = moving_average(out, step.w, "nadam/v", beta1, step.g);
             const Value s = moving_average(out, step.w, "nadam/s", beta2, square(step.g));
             const Value root = sqrt(s * (1.0 / bias(beta2, t, dtype))) + epsilon;
             const Value way = (step.rate * cast(now, dtype)) * step.g + (step.rate * cast(ahead, dtype)) * v;
             out.push_back({step.w, step.kept - way / root});
           });
  count.update(updates);
  if (product.defined()) updates.push_back({product, next_product});
  return updates;
}

Updates RAdam::apply(const Values& parameters, const Values& gradients, Location at) const {
  parts::Count count("radam");
  const double p = 2 / (1 - beta2) - 1;
  Updates updates = each(*this, parameters, gradients, "radam", at,
                         {average("beta1", beta1), average("beta2", beta2), {"epsilon", epsilon}},
                         [&](Updates& out, const Step& step) {
                           const DType dtype = step.w.dtype();
                           const Value t = count.next(step.w.graph());
                           const Value v = moving_average(out, step.w, "radam/v", beta1, step.g);
                           const Value s = moving_average(out, step.w, "radam/s", beta2, square(step.g));
                           const Value time = cast(t, float64);
                           const Value made_up = bias(beta2, t, float64);
                           const Value p_t = p - 2.0 * time * (1.0 - made_up) / made_up;
                           const Value is_known = greater(p_t, 5.0);
                           // Of a p_t that is not above 5 the root may be of a negative number.
                           const Value q = where(is_known, p_t, 5.0);
                           const Value r = sqrt((q - 4.0) * (q - 2.0) / q * (p / ((p - 4) * (p - 2))));
                           const Value v_rate = step.rate / bias(beta1, t, dtype);
                           const Value root = sqrt(s * cast(1.0 / made_up, dtype)) + epsilon;
                           const Value factor = where(is_known, cast(r, dtype) / root, 1.0);
                           out.push_back({step.w, step.kept - v_rate * v * factor});
                         });
  count.update(updates);
  return updates;
}

Updates Lion::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(*this, parameters, gradients, "lion", at, {average("beta1", beta1), average("beta2", beta2)},
              [this](Updates& updates, const Step& step) {
                const Value m = slot(step.w, "lion");
                const Value way = sign(beta1 * m + (1 - beta1) * step.g);
                updates.push_back({m, beta2 * m + (1 - beta2) * step.g});
                updates.push_back({step.w, step.kept - step.rate * way});
              });
}

CHAINRULE_MINIMIZE(Adagrad, "adagrad")
CHAINRULE_MINIMIZE(Adadelta, "adadelta")
CHAINRULE_MINIMIZE(Adamax, "adamax")
CHAINRULE_MINIMIZE(NAdam, "nadam")
CHAINRULE_MINIMIZE(RAdam, "radam")
CHAINRULE_MINIMIZE(Lion, "lion")

}  // namespace chainrule::optim
