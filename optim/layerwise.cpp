// Optimizers that look at a parameter as a whole.
#include <cmath>
#include <initializer_list>

#include <fmt/core.h>

#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/matmul.hpp>
#include <chainrule/ops/reduce.hpp>
#include <chainrule/optim/optimizer_parts.hpp>

namespace chainrule::optim {

using parts::average;
using parts::bias;
using parts::Decay;
using parts::each;
using parts::moving_average;
using parts::slot;
using parts::Step;

namespace {

// |x|, of a float32 x in float64, whose squares do not overflow.
Value length(Value x) { return sqrt(sum(square(cast(x, float64)))); }

// a / b where both are above 0, and 1 elsewhere.
Value ratio(Value a, Value b) {
  const Value is_known = logical_and(greater(a, 0.0), greater(b, 0.0));
  return where(is_known, a / where(is_known, b, 1.0), 1.0);
}

}  // namespace

Updates LARS::apply(const Values& parameters, const Values& gradients, Location at) const {
  return each(
      *this, parameters, gradients, "lars", at, {average("momentum", momentum), {"trust", trust}, {"epsilon", epsilon}},
      [this](Updates& updates, const Step& step) {
        const Value v = slot(step.w, "lars");
        const Value of_w = length(step.w);
        const Value of_g = length(step.g);
        const Value is_known = logical_and(greater(of_w, 0.0), greater(of_g, 0.0));
        const Value below = of_g + step.decay * of_w + epsilon;
        const Value q = where(is_known, trust * of_w / where(is_known, below, 1.0), 1.0);
        const Value d = step.decay == 0 ? step.g : step.g + step.decay * step.w;
        const Value next = momentum * v + (step.rate * cast(q, step.w.dtype())) * d;
        updates.push_back({v, next});
        updates.push_back({step.w, step.w - next});
      },
      Decay::by_rule);
}

Updates LAMB::apply(const Values& parameters, const Values& gradients, Location at) const {
  parts::Count count("lamb");
  Updates updates = each(
      *this, parameters, gradients, "lamb", at,
      {average("beta1", beta1), average("beta2", beta2), {"epsilon", epsilon}},
      [&](Updates& out, const Step& step) {
        const DType dtype = step.w.dtype();
        const Value t = count.next(step.w.graph());
        const Value v = moving_average(out, step.w, "lamb/v", beta1, step.g);
        const Value s = moving_average(out, step.w, "lamb/s", beta2, square(step.g));
        const Value root = sqrt(s * (1.0 / bias(beta2, t, dtype))) + epsilon;
        Value d = (1.0 / bias(beta1, t, dtype)) * v / root;
        if (step.decay != 0) d = d + step.decay * step.w;
        const Value q = ratio(length(step.w), length(d));
        out.push_back({step.w, step.w - (step.rate * cast(q, dtype)) * d});
      },
      Decay::by_rule);
  count.update(updates);
  return updates;
}

Updates Adafactor::apply(const Values& parameters, const Values& gradients, Location at) const {
  if (!(decay_power < 0 && std::isfinite(decay_power)))
    throw Error(at, "adafactor", fmt::format("requires a finite decay_power below 0, got {}", decay_power));
  if (!(threshold > 0 && std::isfinite(threshold)))
    throw Error(at, "adafactor", fmt::format("requires a finite threshold above 0, got {}", threshold));
  parts::Count count("adafactor");
  Updates updates =
      each(*this, parameters, gradients, "adafactor", at, {{"epsilon", epsilon}, {"least_scale", least_scale}},
           [&](Updates& out, const Step& step) {
             const DType dtype = step.w.dtype();
             const Value t = cast(count.next(step.w.graph()), float64);
             // 1 - b = t^decay_power, exact at t = 1.
             const Value fresh = cast(pow(t, decay_power), dtype);
             const Value old = cast(1.0 - pow(t, decay_power), dtype);
             // In float64, as the square of a small float32 with 1e-30 beside it is at the end of float32's range.
             const Value squares = square(cast(step.g, float64)) + epsilon;
             const auto averaged = [&](Value s, Value now) {
               const Value next = cast(old, float64) * s + cast(fresh, float64) * now;
               out.push_back({s, next});
               return next;
             };
             Graph graph = step.w.graph();
             const auto state = [&](std::string_view name, const Shape& shape) {
               return graph.variable(graph.unique_name(fmt::format("{}/adafactor/{}", step.w.name(), name)),
                                     zeros(shape), float64);
             };
             Value u;
             const std::size_t rank = step.w.rank();
             if (rank >= 2) {
               Shape of_rows = step.w.shape();
               of_rows[rank - 1] = 1;
               Shape of_columns = step.w.shape();
               of_columns[rank - 2] = 1;
               const Value r = averaged(state("rows", of_rows), mean(squares, {-1}, true));
               const Value c = averaged(state("columns", of_columns), mean(squares, {-2}, true));
               const Value share = r / mean(r, {-2}, true);
               u = cast(step.g, float64) / (sqrt(share) * sqrt(c));
             } else {
               u = cast(step.g, float64) / sqrt(averaged(state("squares", step.w.shape()), squares));
             }
             const auto rms = [](Value x) { return sqrt(mean(square(x))); };
             const Value scale = maximum(least_scale, rms(cast(step.w, float64))) / maximum(1.0, rms(u) / threshold);
             Value rate = cast(step.rate, float64);
             if (relative_step) rate = minimum(rate, 1.0 / sqrt(t));
             out.push_back({step.w, step.kept - cast(rate * scale * u, dtype)});
           });
  count.update(updates);
  return updates;
}

namespace {

// A matrix near to the one of the same singular vectors and singular values of 1: five steps of Newton and Schulz,
// with numbers that bring small singular values up quickly rather than all of them to 1.
Value orthogonalized(Value matrix, double epsilon) {
  const bool tall = matrix.shape()[0].extent() > matrix.shape()[1].extent();
  Value x = tall ? transpose(matrix) : matrix;
  x = x * cast(1.0 / (length(matrix) + epsilon), matrix.dtype());
  for (int i = 0; i < 5; ++i) {
    const Value a = matmul(x, transpose(x));
    x = 3.4445 * x + matmul(-4.7750 * a + 2.0315 * matmul(a, a), x);
  }
  return tall ? transpose(x) : x;
}

}  // namespace

Updates Muon::apply(const Values& parameters, const Values& gradients, Location at) const {
  for (const Value w : parameters)
    if (w.defined() && w.rank() < 2)
      throw Error(
          at, "muon",
          fmt::format("requires parameters of rank 2 or more, got {}: give it to another optimizer", w.describe()));
  return each(*this, parameters, gradients, "muon", at, {average("momentum", momentum), {"epsilon", epsilon}},
              [this](Updates& updates, const Step& step) {
                const Value v = slot(step.w, "muon");
                const Value next = momentum * v + step.g;
                const Value way = nesterov ? step.g + momentum * next : next;
                updates.push_back({v, next});
                const std::int64_t rows = step.w.shape()[0].extent();
                std::int64_t columns = 1;
                for (std::size_t i = 1; i < step.w.rank(); ++i) columns *= step.w.shape()[i].extent();
                if (rows == 0 || columns == 0) return;
                const Value o = orthogonalized(reshape(way, {rows, columns}), epsilon);
                const double scale = std::sqrt(std::max(1.0, static_cast<double>(rows) / static_cast<double>(columns)));
                updates.push_back({step.w, step.kept - (scale * step.rate) * reshape(o, step.w.shape())});
              });
}

CHAINRULE_MINIMIZE(LARS, "lars")
CHAINRULE_MINIMIZE(LAMB, "lamb")
CHAINRULE_MINIMIZE(Adafactor, "adafactor")
CHAINRULE_MINIMIZE(Muon, "muon")

}  // namespace chainrule::optim
