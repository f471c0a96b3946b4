// Who checks the checker: wrong gradients are derived from every op's right one, and the checker has to find them.
//
// A mutant whose gradients, of first and second order, are those of the original on every sample (the sign of 0, the
// transpose of a symmetric matrix) is no mutant and is not counted. Then the right gradients are checked over many
// seeds, where no failure is allowed. Prints the scores and the survivors; fails below 99 % or at a false failure.
#include <chainrule/chainrule.hpp>
#include <chainrule/framework/check/function.hpp>
#include <chainrule/framework/check/preconditions.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

// What a mutation makes of the contribution to input i; an empty Value where it does not apply.
using Mutation = std::function<cr::Value(const cr::Node& node, std::size_t i, cr::Value dy, cr::Value right)>;

struct NamedMutation {
  std::string name;
  Mutation make;
};

bool floating(cr::Value v) { return v.defined() && cr::is_floating(v.dtype()); }

// One of the terms of a sum left out.
cr::Value without_a_term(const cr::Node&, std::size_t, cr::Value, cr::Value right) {
  const cr::Node node = right.node();
  const std::string& op = node.op().name;
  if ((op != "add" && op != "sub") || !(node.input(0).shape() == right.shape())) return {};
  return node.input(0);
}

// Where the contribution should be summed over what was broadcast, only the first element is taken.
cr::Value without_unbroadcast(const cr::Node& node, std::size_t i, cr::Value, cr::Value right) {
  const cr::Shape to = node.input(i).shape();
  if (right.shape() == to || right.rank() < to.rank()) return {};
  cr::Value out = right;
  const std::size_t lead = right.rank() - to.rank();
  for (std::size_t axis = 0; axis < right.rank(); ++axis)
    if (axis < lead || (to[axis - lead].is(1) && !right.shape()[axis].is(1))) {
      if (right.shape()[axis].is(0)) return {};
      out = cr::slice(out, static_cast<std::int64_t>(axis), {.start = 0, .stop = 1});
    }
  return cr::reshape(out, to);
}

cr::Value transposed(const cr::Node&, std::size_t, cr::Value, cr::Value right) {
  return right.rank() < 2 ? cr::Value{} : cr::reshape(cr::transpose(right), right.shape());
}

cr::Value one_element_wrong(const cr::Node&, std::size_t, cr::Value, cr::Value right) {
  const cr::Dims shape = cr::evaluate(right.shape(), cr::Sizes{});
  if (cr::count(shape) == 0) return {};
  cr::Array factor = cr::Array::full(right.dtype(), shape, 1);
  factor.set(cr::count(shape) * 2 / 3, 1.01);
  return right * right.graph().constant(factor);
}

// A small constant slope where the input is far from 0.
cr::Value wrong_when_saturated(const cr::Node& node, std::size_t i, cr::Value dy, cr::Value right) {
  const cr::Value x = node.input(i);
  if (!(x.shape() == dy.shape()) || !(x.shape() == right.shape())) return {};
  return right + cr::where(cr::abs(x) > 1.0, 1e-3 * dy, 0.0);
}

const std::vector<NamedMutation>& mutations() {
  static const std::vector<NamedMutation> all = {
      {"sign", [](const cr::Node&, std::size_t, cr::Value, cr::Value right) { return -right; }},
      {"scale 1.01", [](const cr::Node&, std::size_t, cr::Value, cr::Value right) { return 1.01 * right; }},
      {"no contribution", [](const cr::Node&, std::size_t, cr::Value, cr::Value right) { return 0.0 * right; }},
      {"missing term", without_a_term},
      {"forgotten un-broadcast", without_unbroadcast},
      {"transposed operand", transposed},
      {"one element", one_element_wrong},
      {"wrong when saturated", wrong_when_saturated},
      {"stale second order",
       [](const cr::Node&, std::size_t, cr::Value, cr::Value right) { return cr::stop_gradient(right); }},
  };
  return all;
}

cr::Op mutant_of(const cr::Op& op, std::size_t input, const Mutation& mutation) {
  cr::Op mutant = op;
  mutant.gradient = [rule = op.gradient, input, mutation](const cr::Node& node, cr::Value dy) {
    cr::Values out = rule(node, dy);
    if (input < out.size() && floating(out[input]))
      if (const cr::Value wrong = mutation(node, input, dy, out[input]); wrong.defined()) out[input] = wrong;
    return out;
  };
  return mutant;
}

// All elements of the gradients of first and second order, over the samples.
std::vector<double> gradients_of(const cr::Op& op, const cr::CheckOptions& options) {
  std::vector<double> out;
  for (const cr::Sample& sample : op.samples) {
    if (!sample.differentiate) continue;
    const cr::check::Function f = cr::check::function_of(op, sample, cr::float64, options);
    if (f.variables.empty() || !f.sum.defined()) continue;
    for (const auto& order : {f, cr::check::next_order(f, options)})
      for (const cr::Array& gradient : cr::check::analytic_gradient(order))
        for (std::int64_t i = 0; i < gradient.size(); ++i) out.push_back(gradient[i]);
  }
  return out;
}

// Whether two gradients differ by more than rounding.
bool differ(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (const double x : a) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!(std::abs(a[i] - b[i]) <= 1e-9 * (std::abs(a[i]) + 1e-3 * largest))) return true;
  return false;
}

// The op with one larger sample: 2048 elements, so that it is checked along directions.
cr::Op enlarged(const cr::Op& op) {
  cr::Op out = op;
  out.samples.clear();
  for (const cr::Sample& sample : op.samples) {
    if (!sample.differentiate) continue;
    cr::Sample large = sample;
    large.inputs.clear();
    for (std::size_t k = 0; k < sample.inputs.size(); ++k) {
      const cr::Array from = sample.inputs[k].draw(cr::float64, 1, k);
      if (!cr::is_floating(from.dtype()) || from.size() == 0) return out;
      // Spread between the sample's least and greatest number.
      double low = from[0];
      double high = from[0];
      for (std::int64_t i = 0; i < from.size(); ++i) {
        low = std::min(low, from[i]);
        high = std::max(high, from[i]);
      }
      large.inputs.push_back(cr::uniform({32, 64}, low, high));
    }
    out.samples.push_back(large);
    return out;
  }
  return out;
}

struct Score {
  int caught = 0;
  int all = 0;
  void count(bool found) {
    caught += found ? 1 : 0;
    ++all;
  }
  [[nodiscard]] double percent() const { return all == 0 ? 100 : 100.0 * caught / all; }
};

}  // namespace

int main(int argc, char** argv) {
  int seeds = 100;
  std::string only;
  CLI::App app("Mutation test of the gradient checker.");
  app.add_option("--seeds", seeds, "seeds over which the right gradients are checked")->capture_default_str();
  app.add_option("--only", only, "one op");
  CLI11_PARSE(app, argc, argv);

  // Preconditions say nothing of gradients.
  const cr::CheckOptions options{.preconditions = false};
  std::map<std::string, Score> by_mutation;
  Score total;
  std::vector<std::string> survivors;
  const auto try_mutant = [&](const cr::Op& mutant, const std::vector<double>& right, const std::string& kind,
                              std::size_t input) {
    if (!differ(right, gradients_of(mutant, options))) return;
    const bool found = cr::check_gradients(mutant, options).verdict() == cr::Verdict::fail;
    by_mutation[kind].count(found);
    total.count(found);
    if (!found) survivors.push_back(fmt::format("{} of {}, input {}", kind, mutant.name, input));
  };

  int ops = 0;
  int false_alarms = 0;
  int undecided = 0;  // the numeric gradient was too coarse, and the report says so
  for (const cr::Op* op : cr::registry()) {
    if (!op->gradient || (!only.empty() && op->name != only)) continue;
    const std::vector<double> right = gradients_of(*op, options);
    if (right.empty()) continue;
    ++ops;
    std::size_t inputs = 0;
    for (const cr::Sample& sample : op->samples) inputs = std::max(inputs, sample.inputs.size());
    for (std::size_t i = 0; i < inputs; ++i)
      for (const auto& [name, make] : mutations()) try_mutant(mutant_of(*op, i, make), right, name, i);
    if (op->forward.micro && !op->samples[0].attributes.has("shape")) {
      const cr::Op large = enlarged(*op);
      if (!large.samples.empty()) {
        const std::vector<double> right_large = gradients_of(large, options);
        for (std::size_t i = 0; i < inputs; ++i)
          try_mutant(mutant_of(large, i, one_element_wrong), right_large, "one element of 2048", i);
      }
    }
    for (int seed = 1; seed <= seeds; ++seed) {
      const auto report = cr::check_gradients(*op, {.preconditions = false, .seed = static_cast<std::uint64_t>(seed)});
      if (report.verdict() == cr::Verdict::inconclusive) ++undecided;
      if (report.verdict() != cr::Verdict::fail) continue;
      ++false_alarms;
      if (false_alarms <= 3) fmt::print("{}", report);
    }
  }

  fmt::print("{:<24} {:>7} {:>7}\n", "mutation", "caught", "of");
  for (const auto& [name, score] : by_mutation) fmt::print("{:<24} {:>7} {:>7}\n", name, score.caught, score.all);
  for (const auto& survivor : survivors) fmt::print("survived: {}\n", survivor);
  fmt::print(
      "{} ops, {} mutants, {:.2f} % caught; {} false failures and {} inconclusive in {} checks of right gradients\n",
      ops, total.all, total.percent(), false_alarms, undecided, ops * seeds);
  return total.percent() >= 99 && false_alarms == 0 && total.all > 0 ? 0 : 1;
}
