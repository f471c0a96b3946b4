#include <chainrule/framework/check_gradients.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/check/function.hpp>
#include <chainrule/framework/check/preconditions.hpp>
#include <chainrule/framework/check/twin.hpp>
#include <chainrule/framework/gradients.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule {

using check::Function;

namespace {

// ---- ops

Function function_of(const Op& op, const Sample& sample, DType dtype, const CheckOptions& options) {
  check::SampleGraph s = check::graph_of(sample, dtype, options);
  const Value y = apply(s.graph, op, s.inputs, s.attributes);
  Function f{
      s.graph, State(s.graph), {}, {y}, {}, s.floating, s.names, std::vector<std::string>(s.names.size()), s.points,
      {},      options.mode,   {}};
  if (!is_floating(y.dtype())) return f;
  f.weights.push_back(check::weights_for(evaluate(y.shape(), Sizes{}), options.seed, 0).astype(dtype));
  f.sum = sum(y * f.weights[0]);
  return f;
}

// How many numbers of float32 lie between two, at the magnitude of the second, or of a part of the largest: an element
// that is small because terms of the size of others cancel has their rounding.
double ulps_between(double a, double b, double largest) {
  const auto at = static_cast<float>(std::max(std::abs(b), 0.05 * largest));
  const double ulp =
      static_cast<double>(std::nextafter(at, std::numeric_limits<float>::infinity())) - static_cast<double>(at);
  return a == b ? 0 : std::abs(a - b) / ulp;
}

// float32 against float64. Rounding differs by some ULPs for each operation on the way; a wrong formula, or one that
// cancels in float32, by thousands.
void check_float32(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                   std::vector<CheckRow>& rows) {
  constexpr double most_ulps = 512;
  const Function wide = function_of(op, sample, float64, options);
  const auto expected = check::analytic_gradient(wide);
  const auto got = check::analytic_gradient(function_of(op, sample, float32, options));
  for (std::size_t v = 0; v < expected.size(); ++v) {
    CheckRow row;
    row.check = "float32";
    row.subject = subject;
    row.input = wide.names[v];
    row.dtype = float32;
    row.shape = to_shape(expected[v].shape());
    double largest = 0;
    check::RelativeDistance distance;
    for (std::int64_t i = 0; i < expected[v].size(); ++i) largest = std::max(largest, std::abs(expected[v][i]));
    double worst = -1;
    for (std::int64_t i = 0; i < expected[v].size(); ++i) {
      const double a = got[v][i];
      const double b = expected[v][i];
      distance.add(a, b);
      const bool same = a == b || (std::isnan(a) && std::isnan(b));
      double ulps = same ? 0 : ulps_between(a, b, largest);
      if (!same && !std::isfinite(ulps)) ulps = 1e9;
      if (ulps <= worst) continue;
      worst = ulps;
      row.worst = check::index_of(i, expected[v].shape());
      row.analytic = a;
      row.numeric = b;
      row.ulps = ulps;
    }
    row.distance = distance.value();
    row.verdict = row.ulps <= most_ulps ? Verdict::pass : Verdict::fail;
    row.note = fmt::format("{:.1f} ULP", row.ulps);
    rows.push_back(std::move(row));
  }
}

void check_sample(const Op& op, const Sample& sample, const std::string& subject, const CheckOptions& options,
                  std::vector<CheckRow>& rows) {
  if (options.preconditions) check::check_preconditions(op, sample, subject, options, rows);
  if (!sample.differentiate) return;
  const Function f = function_of(op, sample, float64, options);
  if (f.variables.empty() || !f.sum.defined()) return;  // integers: nothing to differentiate
  check_function(f, subject, options, rows);
  if (options.float32) check_float32(op, sample, subject, options, rows);
}

}  // namespace

CheckReport check_gradients(const Op& op, const CheckOptions& options) {
  if (!op.gradient) throw Error("check_gradients", fmt::format("requires an op with a gradient rule, got {}", op.name));
  CheckReport report;
  report.title = fmt::format("op {}", op.name);
  report.line = op.location.to_string();
  report.seed = options.seed;
  for (std::size_t s = 0; s < op.samples.size(); ++s) {
    const auto subject = fmt::format("sample {}", s);
    try {
      check_sample(op, op.samples[s], subject, options, report.rows);
    } catch (const Error& error) {
      report.errors.push_back(fmt::format("{}: {}", subject, error.what()));
    }
  }
  const bool differentiated =
      std::any_of(report.rows.begin(), report.rows.end(), [](const CheckRow& row) { return row.check == "gradient"; });
  if (!differentiated && report.errors.empty())
    throw Error("check_gradients",
                fmt::format("requires a sample with something to differentiate, {} has none", op.name));
  return report;
}

// ---- networks

namespace {

// The loss as a function of these values, on a copy of graph and State, which the twin owns.
Function function_of(Value loss, const Values& values, const State& state, check::Twin& twin,
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
  check::Twin twin(state, feeds, at, true);
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
  check_loss(loss, state, "gradient_check_n", at);
  check::Twin twin(state, std::span<const Feed>(feeds.begin(), feeds.size()), at, true);
  const Function f = function_of(loss, values, state, twin, {}, at);
  check::Probe probe(f);
  check::RelativeDistance distance;
  const double one = 1;
  for (std::size_t v = 0; v < f.variables.size(); ++v) {
    const Array& analytic = probe.analytic()[v];
    for (std::int64_t i = 0; i < analytic.size(); ++i) {
      const check::Differences d = probe.along(v, std::span(&i, 1), std::span(&one, 1), epsilon);
      distance.add(analytic[i], (d.above + d.below) / (2 * epsilon));
    }
  }
  return distance.value();
}

}  // namespace chainrule
