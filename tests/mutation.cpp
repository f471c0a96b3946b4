// Who checks the checker: wrong gradients and wrong kernels are derived from every op's right ones, and the checker has
// to find them.
//
// A mutant whose gradients, of first and second order, are those of the original on every sample (the sign of 0, the
// transpose of a symmetric matrix) is no mutant and is not counted. Then the right gradients are checked over many
// seeds, and the right kernels in the wrapping of the wrong ones, where no failure is allowed. Prints the scores and
// the survivors; fails below 99 % or at a false failure.
#include <chainrule/chainrule.hpp>
#include <chainrule/framework/check/function.hpp>
#include <chainrule/framework/check/preconditions.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <memory>

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

// Right numbers, but how they depend on the inputs (on the others, where there are any) is forgotten, or made up.
cr::Value wrong_mixed_derivative(const cr::Node& node, std::size_t i, cr::Value, cr::Value right) {
  cr::Value other;
  for (std::size_t k = 0; k < node.input_count(); ++k)
    if ((k != i || !other.defined()) && floating(node.input(k))) other = node.input(k);
  const cr::Value factor = cr::mean(other);
  return right * (1.0 + 0.1 * (factor - cr::stop_gradient(factor)));
}

// Wrong where an extent is odd, but 1; in three dimensions or more; where an extent is 1; where the input is broadcast.
template <class F>
cr::Value wrong_if_shape(const cr::Node& node, std::size_t i, cr::Value right, F is_so) {
  return is_so(cr::evaluate(node.input(i).shape(), cr::Sizes{}), cr::evaluate(node.shape(), cr::Sizes{})) ? 1.01 * right
                                                                                                          : cr::Value{};
}
bool has_odd(const cr::Dims& shape) {
  return std::any_of(shape.begin(), shape.end(), [](std::int64_t n) { return n % 2 == 1 && n > 1; });
}
bool has_one(const cr::Dims& shape) { return std::find(shape.begin(), shape.end(), 1) != shape.end(); }

// Right with the attributes of the op's first sample alone.
cr::Value wrong_attributes(const cr::Node& node, std::size_t, cr::Value, cr::Value right) {
  return node.attributes() == node.op().samples[0].attributes ? cr::Value{} : 1.01 * right;
}

// Beyond any slope where an input is 0, or equal to another.
cr::Value wrong_at_kinks(const cr::Node& node, std::size_t i, cr::Value dy, cr::Value right) {
  const cr::Value x = node.input(i);
  if (!(x.shape() == dy.shape()) || !(x.shape() == right.shape())) return {};
  cr::Value at = cr::equal(x, 0.0);
  for (std::size_t k = 0; k < node.input_count(); ++k)
    if (k != i && floating(node.input(k)) && node.input(k).shape() == x.shape())
      at = cr::logical_or(at, cr::equal(x, node.input(k)));
  return right + cr::where(at, 3.0 * dy, 0.0);
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
      {"wrong mixed derivative", wrong_mixed_derivative},
      {"wrong for odd extents",
       [](const cr::Node& node, std::size_t i, cr::Value, cr::Value right) {
         return wrong_if_shape(node, i, right, [](const cr::Dims& in, const cr::Dims&) { return has_odd(in); });
       }},
      {"wrong for extents of 1",
       [](const cr::Node& node, std::size_t i, cr::Value, cr::Value right) {
         return wrong_if_shape(node, i, right, [](const cr::Dims& in, const cr::Dims&) { return has_one(in); });
       }},
      {"wrong for 3 dimensions",
       [](const cr::Node& node, std::size_t i, cr::Value, cr::Value right) {
         return wrong_if_shape(node, i, right, [](const cr::Dims& in, const cr::Dims&) { return in.rank() > 2; });
       }},
      {"wrong where broadcast",
       [](const cr::Node& node, std::size_t i, cr::Value, cr::Value right) {
         return wrong_if_shape(node, i, right, [](const cr::Dims& in, const cr::Dims& out) { return !(in == out); });
       }},
      {"wrong for attributes", wrong_attributes},
      {"stale second order",
       [](const cr::Node&, std::size_t, cr::Value, cr::Value right) { return cr::stop_gradient(right); }},
  };
  return all;
}

cr::Op mutant_of(const cr::Op& op, std::size_t input, const Mutation& mutation) {
  cr::Op mutant = op;
  const auto mutated = [input, mutation](const cr::Node& node, cr::Value dy, cr::Values out) {
    if (input < out.size() && floating(out[input]))
      if (const cr::Value wrong = mutation(node, input, dy, out[input]); wrong.defined()) out[input] = wrong;
    return out;
  };
  const cr::GradientRule rule = op.gradient;
  if (!op.has_several_outputs()) {
    mutant.gradient = [rule, mutated](const cr::Node& node, cr::Value dy) { return mutated(node, dy, rule(node, dy)); };
  } else {
    mutant.gradient = [rule, mutated](const cr::Node& node, const cr::Values& dys) {
      const auto dy = std::find_if(dys.begin(), dys.end(), [](cr::Value d) { return d.defined(); });
      return mutated(node, *dy, rule.all(node, dys));
    };
  }
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
  for (const double x : a)
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::isfinite(a[i]) && !(std::abs(a[i] - b[i]) <= 1e-9 * (std::abs(a[i]) + 1e-3 * largest))) return true;
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

// An elementwise op on a small grid of numbers, with its kinks and its ties, and on numbers far out.
cr::Op at_kinks(const cr::Op& op) {
  cr::Op out = op;
  out.samples.clear();
  for (const cr::Sample& sample : op.samples) {
    if (!sample.differentiate || !out.samples.empty()) continue;
    cr::Sample grid = sample;
    grid.inputs.clear();
    for (std::size_t k = 0; k < sample.inputs.size(); ++k) {
      if (!cr::is_floating(sample.inputs[k].dtype(cr::float64))) return out;
      grid.inputs.emplace_back(k % 2 == 0 ? cr::Array({0.0, 1.0, 0.5, -1.0, 1.5})
                                          : cr::Array({0.0, 1.0, 2.0, 0.75, 0.25}));
    }
    out.samples.push_back(grid);
  }
  return out;
}
cr::Op saturated(const cr::Op& op) {
  cr::Op out = op;
  out.samples.clear();
  for (const cr::Sample& sample : op.samples) {
    if (!sample.differentiate || !out.samples.empty()) continue;
    cr::Sample far = sample;
    far.inputs.clear();
    for (std::size_t k = 0; k < sample.inputs.size(); ++k) {
      if (!cr::is_floating(sample.inputs[k].dtype(cr::float64))) return out;
      far.inputs.emplace_back(k % 2 == 0 ? cr::Array({-30.5, -8.25, 9.5, 25.0, 17.75})
                                         : cr::Array({-9.5, 7.25, -30.25, 16.5, 8.75}));
    }
    out.samples.push_back(far);
  }
  return out;
}

// ---- wrong kernels

// An op's own results, by a program of its own: a kernel to make wrong ones of.
class Original {
 public:
  Original(const cr::Op& op, const cr::KernelCall& call)
      : graph_({.dtype = call.output.dtype == cr::float32 ? cr::float32 : cr::float64}), call_inputs_(call.inputs) {
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
      inputs_.push_back(
          graph_.input("x" + std::to_string(i), cr::to_shape(call.inputs[i].shape), call.inputs[i].dtype));
      numbers_.emplace_back(call.inputs[i].dtype, call.inputs[i].shape);
    }
    const cr::Value y = cr::apply(graph_, op, inputs_, call.attributes);
    state_ = std::make_unique<cr::State>(graph_);
    program_ = std::make_unique<cr::Program>(*state_, cr::Request{.outputs = y.node().outputs()});
  }
  void run(const cr::KernelBuffers& buffers) {
    std::vector<cr::Feed> feeds;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      if (numbers_[i].bytes() > 0) std::memcpy(numbers_[i].raw(), buffers.inputs[i], numbers_[i].bytes());
      feeds.emplace_back(inputs_[i], numbers_[i]);
    }
    const cr::Results results = program_->run(std::span<const cr::Feed>(feeds));
    for (std::size_t i = 0; i < results.size(); ++i)
      if (results[i].bytes() > 0) std::memcpy(buffers.outputs[i], results[i].raw(), results[i].bytes());
  }

 private:
  cr::Graph graph_;
  std::vector<cr::TensorType> call_inputs_;
  cr::Values inputs_;
  std::vector<cr::Array> numbers_;
  std::unique_ptr<cr::State> state_;
  std::unique_ptr<cr::Program> program_;
};

// What is done to a run of the right kernel, with the number of runs so far, from 1.
template <class T>
struct Damage {
  const T* x;  // the first input
  std::int64_t x_size;
  T* y;
  std::int64_t y_size;
  int runs;
};
struct KernelMutation {
  std::string name;
  std::function<void(const Damage<float>&)> in32;
  std::function<void(const Damage<double>&)> in64;
  bool decided = true;  // whether the check must fail; else it must not pass
};
template <class F>
KernelMutation in_both(std::string name, F damage, bool decided = true) {
  return {std::move(name), damage, damage, decided};
}

const std::vector<KernelMutation>& kernel_mutations() {
  static int made_ever = 0;
  const auto nothing = [](const auto&) {};
  static const std::vector<KernelMutation> all = {
      in_both("right", nothing),
      in_both("counts its runs",
              [](const auto& d) { d.y[0] += static_cast<std::decay_t<decltype(*d.y)>>(1e-3 * d.runs); }),
      in_both("changes at its third run",
              [](const auto& d) {
                if (d.runs > 2) d.y[0] += 1;
              }),
      in_both("counts all runs",
              [](const auto& d) { d.y[0] += static_cast<std::decay_t<decltype(*d.y)>>(1e-3 * ++made_ever); }),
      in_both("writes past its output", [](const auto& d) { d.y[d.y_size] = 7; }),
      in_both("writes before its output", [](const auto& d) { d.y[-1] = 7; }),
      in_both("writes its input", [](const auto& d) { const_cast<std::decay_t<decltype(*d.y)>*>(d.x)[0] = 7; }),
      in_both("writes past its input",
              [](const auto& d) { const_cast<std::decay_t<decltype(*d.y)>*>(d.x)[d.x_size] = 7; }),
      in_both("reads past its input", [](const auto& d) { d.y[d.y_size - 1] += d.x[d.x_size] > 0 ? 1 : 0; }),
      in_both("reads before its input", [](const auto& d) { d.y[0] += d.x[-1] > 0 ? 1 : 0; }),
      {"off by 1 in float32", [](const auto& d) { d.y[0] += 1; }, nothing},
      {"5 digits in float32", [](const auto& d) { d.y[d.y_size - 1] += 1e-4F * (1 + std::abs(d.y[d.y_size - 1])); },
       nothing},
      // At the first element of the sample, which a step to either side leaves.
      in_both(
          "jumps",
          [](const auto& d) {
            static double at = 0;
            if (d.runs == 1) at = static_cast<double>(d.x[0]);
            if (static_cast<double>(d.x[0]) > at) d.y[0] += 1;
          },
          false),
  };
  return all;
}

cr::Op damaged(const cr::Op& op, const KernelMutation& mutation) {
  cr::Op out = op;
  out.name = op.name + " (" + mutation.name + ")";
  out.forward = {};
  out.forward.kernel = [&op, mutation](cr::KernelCall& call) -> cr::KernelRun {
    const auto make = [&]<class T>(const std::function<void(const Damage<T>&)>& damage) -> cr::KernelRun {
      return [original = std::make_shared<Original>(op, call), damage, x_size = cr::count(call.inputs[0].shape),
              y_size = cr::count(call.output.shape), runs = 0](const cr::KernelBuffers& buffers) mutable {
        original->run(buffers);
        damage({static_cast<const T*>(buffers.inputs[0]), x_size, static_cast<T*>(buffers.output), y_size, ++runs});
      };
    };
    return call.output.dtype == cr::float32 ? make(mutation.in32) : make(mutation.in64);
  };
  // One sample is enough, of floating numbers in and out.
  out.samples.clear();
  for (const cr::Sample& sample : op.samples) {
    if (!sample.differentiate || !out.samples.empty()) continue;
    const auto s = cr::check::function_of(op, sample, cr::float64, {});
    if (s.variables.empty() || !s.sum.defined() || s.points[0].size() == 0 || s.weights[0].size() == 0) continue;
    if (cr::is_floating(sample.inputs[0].dtype(cr::float64))) out.samples.push_back(sample);
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
  int seeds = 40;
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
    if (op->forward.micro && !op->samples[0].attributes.has("shape")) {
      const auto elsewhere = [&](const cr::Op& there, const Mutation& make, const std::string& kind) {
        if (there.samples.empty()) return;
        const std::vector<double> right_there = gradients_of(there, options);
        const bool defined =
            std::all_of(right_there.begin(), right_there.end(), [](double x) { return std::isfinite(x); });
        const auto report = cr::check_gradients(there, options);
        if (defined && report.verdict() == cr::Verdict::fail && false_alarms++ < 3) fmt::print("{}", report);
        for (std::size_t i = 0; i < inputs; ++i) try_mutant(mutant_of(there, i, make), right_there, kind, i);
      };
      elsewhere(at_kinks(*op), wrong_at_kinks, "wrong at kinks");
      elsewhere(saturated(*op), wrong_when_saturated, "wrong far out");
    }
    for (const KernelMutation& mutation : kernel_mutations()) {
      const cr::Op mutant = damaged(*op, mutation);
      if (mutant.samples.empty()) continue;
      const auto report = cr::check_gradients(mutant);
      if (mutation.name == "right") {
        if (report.verdict() == cr::Verdict::fail && false_alarms++ < 3) fmt::print("{}", report);
        continue;
      }
      const bool found = mutation.decided ? report.verdict() == cr::Verdict::fail : !report.passed();
      by_mutation[mutation.name].count(found);
      total.count(found);
      if (!found) survivors.push_back(fmt::format("{}", mutant.name));
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
