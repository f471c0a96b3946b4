#include <chainrule/framework/check/check_gradients.hpp>

#include <algorithm>
#include <cmath>
#include <new>

#include <fmt/core.h>

#include <chainrule/framework/autodiff/gradients.hpp>
#include <chainrule/framework/check/float32.hpp>
#include <chainrule/framework/check/function.hpp>
#include <chainrule/framework/check/preconditions.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/run/twin.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule {

using check::Function;

namespace {

// ---- ops

void check_sample(const Op& op, const Sample& sample, const std::string& subject, const CheckOptions& options,
                  std::vector<CheckRow>& rows) {
  if (options.preconditions && !check::check_preconditions(op, sample, subject, options, rows)) return;
  if (options.float32) check::check_float32_values(op, sample, subject, options, rows);
  if (!sample.differentiate) return;
  const Function f = check::function_of(op, sample, float64, options);
  if (f.variables.empty() || !f.sum.defined()) return;  // integers: nothing to differentiate
  check_function(f, subject, options, rows);
  if (options.float32) check::check_float32_gradients(op, sample, subject, options, rows);
}

}  // namespace

CheckReport check_gradients(const Op& op, const CheckOptions& options, Location at) {
  if (!op.gradient)
    throw Error(at, "check_gradients", fmt::format("requires an op with a gradient rule, got {}", op.name));
  // Whatever the check builds belongs to the op's line, and never to the library's.
  const detail::LocationScope scope(op.location.known() ? op.location : at);
  CheckReport report;
  report.title = fmt::format("op {}", op.name);
  report.line = op.location.to_string();
  report.seed = options.seed;
  for (std::size_t s = 0; s < op.samples.size(); ++s) {
    const auto subject = fmt::format("sample {}", s);
    try {
      check_sample(op, op.samples[s], subject, options, report.rows);
    } catch (const std::bad_alloc&) {  // says nothing of the op
      throw;
    } catch (const std::exception& error) {  // of the op's rules and kernel, whatever they throw
      report.errors.push_back(fmt::format("{}: {}", subject, error.what()));
    }
  }
  const bool differentiated =
      std::any_of(report.rows.begin(), report.rows.end(), [](const CheckRow& row) { return row.check == "gradient"; });
  if (!differentiated && report.errors.empty() && report.verdict() != Verdict::fail)
    throw Error(at, "check_gradients",
                fmt::format("requires a sample with something to differentiate, {} has none", op.name));
  return report;
}

// ---- networks

namespace {

// The loss as a function of these values, on a copy of graph and State, which the twin owns.
Function function_of(Value loss, const Values& values, const State& state, detail::Twin& twin,
                     const CheckOptions& options, Location at) {
  if (values.empty()) throw Error(at, "check_gradients", "requires at least one value to differentiate in, got none");
  Function f{twin.graph(), twin.state(), twin.of(loss), {twin.of(loss)}, {}, {}, {}, {}, {}, {}, options.mode, at};
  f.weights.push_back(Array::full(float64, evaluate(loss.shape(), twin.sizes()), 1));
  for (const Value v : values) {
    if (!v.defined() || v.data() != state.graph().data().get())
      throw Error(at, "check_gradients", "requires values of the loss's graph");
    const std::string_view op = v.node().op().name;
    if ((op != "input" && op != "variable") || !is_floating(v.dtype()))
      throw Error(at, "check_gradients",
                  fmt::format("requires floating inputs, parameters or variables, got {}", v.describe()));
    f.variables.push_back(twin.of(v));
    f.names.push_back(v.name());
    f.lines.push_back(v.location().to_string());
    f.points.push_back(op == "variable" ? twin.state().get(f.variables.back()) : twin.fed(f.variables.back()));
  }
  for (const Feed& feed : twin.feeds())
    if (std::find(f.variables.begin(), f.variables.end(), feed.input()) == f.variables.end()) f.feeds.push_back(feed);
  return f;
}

void check_loss(Value loss, const State& state, std::string_view op, Location at) {
  if (!loss.defined()) throw Error(at, op, "requires a loss, got an empty Value");
  if (loss.data() != state.graph().data().get()) throw Error(at, op, "requires a loss and a State of one graph");
  if (!count(loss.shape()).is(1))
    throw Error(at, op, fmt::format("requires a scalar loss, got shape {}", to_string(loss.shape())));
}

}  // namespace

CheckReport check_gradients(Value loss, const Values& values, const State& state, std::span<const Feed> feeds,
                            const CheckOptions& options, Location at) {
  check_loss(loss, state, "check_gradients", at);
  const detail::LocationScope scope(at);
  detail::Twin twin(state, feeds, at, true);
  const Function f = function_of(loss, values, state, twin, options, at);
  CheckReport report;
  report.title = "network";
  report.line = loss.location().to_string();
  report.seed = options.seed;
  check_function(f, "", options, report.rows);
  return report;
}

CheckReport check_gradients(Value loss, const Values& values, const State& state, std::initializer_list<Feed> feeds,
                            const CheckOptions& options, Location at) {
  return check_gradients(loss, values, state, std::span<const Feed>(feeds.begin(), feeds.size()), options, at);
}

double gradient_check_n(Value loss, const Values& values, const State& state, std::initializer_list<Feed> feeds,
                        double epsilon, Location at) {
  return gradient_check_n(loss, values, state, std::span<const Feed>(feeds.begin(), feeds.size()), epsilon, at);
}

double gradient_check_n(Value loss, const Values& values, const State& state, std::span<const Feed> feeds,
                        double epsilon, Location at) {
  check_loss(loss, state, "gradient_check_n", at);
  const detail::LocationScope scope(at);
  detail::Twin twin(state, feeds, at, true);
  const Function f = function_of(loss, values, state, twin, {}, at);
  check::Probe probe(f, {});
  check::RelativeDistance distance;
  for (std::size_t v = 0; v < f.variables.size(); ++v) {
    const Array& analytic = probe.analytic()[v];
    for (std::int64_t i = 0; i < analytic.size(); ++i) {
      const check::Move move{v, i, 1};
      const check::Differences d = probe.along(std::span(&move, 1), epsilon);
      distance.add(analytic[i], (d.above + d.below) / (2 * epsilon));
    }
  }
  return distance.value();
}

}  // namespace chainrule
