#include <chainrule/framework/check_gradients.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <chainrule/framework/gradients.hpp>
#include <chainrule/framework/graph_data.hpp>
#include <chainrule/framework/state_data.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/reduce.hpp>

namespace chainrule {

using detail::GraphData;
using detail::NodeId;

namespace {

// ---- numeric derivatives

struct Derivative {
  double value = 0;
  double error = std::numeric_limits<double>::infinity();  // estimated
};

// The derivative at x of `difference(h)` = f(x + h) - f(x - h), by Ridders' extrapolation of difference(h) / 2h to
// h = 0. `h` is the first, largest step. `noise` is what rounding does to a difference.
template <class F>
Derivative ridders(F difference, double h, double noise) {
  constexpr int steps = 10;
  constexpr double shrink = 2;
  double table[steps][steps];
  Derivative best;
  int usable = 0;  // rows so far; one whose difference is not finite (outside of the domain) is left out
  for (int i = 0; i < steps; ++i, h /= shrink) {
    const double quotient = difference(h) / (2 * h);
    if (!std::isfinite(quotient)) {
      usable = 0;
      continue;
    }
    const double rounding = noise / (2 * h);
    table[usable][0] = quotient;
    double factor = shrink * shrink;
    double before = best.error;
    for (int k = 1; k <= usable; ++k, factor *= shrink * shrink) {
      table[usable][k] = (table[usable][k - 1] * factor - table[usable - 1][k - 1]) / (factor - 1);
      const double error = std::max(std::abs(table[usable][k] - table[usable][k - 1]),
                                    std::abs(table[usable][k] - table[usable - 1][k - 1])) + rounding;
      if (error <= best.error) best = {table[usable][k], error};
    }
    ++usable;
    if (best.error < 1e-12 * std::abs(best.value)) break;
    // Smaller steps only add rounding errors once the extrapolation gets worse by much.
    if (usable > 4 && best.error == before && std::abs(table[usable - 1][usable - 1] - table[usable - 2][usable - 2]) > 16 * best.error &&
        best.error < 1e-9 * std::abs(best.value))
      break;
  }
  return best;
}

double root_mean_square(const Array& x) {
  double sum = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) sum += x[i] * x[i];
  return x.size() == 0 ? 0 : std::sqrt(sum / static_cast<double>(x.size()));
}

// The first step at an element: a tenth of it, or of the typical element where it is much smaller.
double first_step(double x, double typical) { return 0.1 * std::max({std::abs(x), 0.1 * typical, 1e-3}); }

Dims index_of(std::int64_t flat, const Dims& shape) {
  Dims index = Dims::filled(shape.rank(), 0);
  for (std::size_t axis = shape.rank(); axis-- > 0;) {
    index[axis] = flat % shape[axis];
    flat /= shape[axis];
  }
  return index;
}

// ---- comparison

// Fills in the verdict of a row from both gradients and the estimated errors of the numeric one.
void compare(CheckRow& row, const std::vector<double>& analytic, const std::vector<Derivative>& numeric,
             double tolerance) {
  double largest = 0;
  for (std::size_t i = 0; i < analytic.size(); ++i)
    largest = std::max({largest, std::abs(analytic[i]), std::abs(numeric[i].value)});
  double worst = -1;
  double difference2 = 0;
  double analytic2 = 0;
  double numeric2 = 0;
  bool failed = false;
  bool unsure = false;
  for (std::size_t i = 0; i < analytic.size(); ++i) {
    const double a = analytic[i];
    const Derivative n = numeric[i];
    const double difference = std::abs(a - n.value);
    const double scale = std::max({std::abs(a), std::abs(n.value), 0.01 * largest});
    difference2 += difference * difference;
    analytic2 += a * a;
    numeric2 += n.value * n.value;
    const bool within = difference <= tolerance * scale + 10 * n.error;
    const bool decided = 10 * n.error <= 1e-3 * scale || difference <= tolerance * scale;
    failed = failed || !within;
    unsure = unsure || (within && !decided);
    double badness = scale == 0 ? 0 : difference / scale;
    if (!std::isfinite(difference)) badness = std::numeric_limits<double>::infinity();
    if (!within) badness += 1e6;
    if (badness > worst) {
      worst = badness;
      row.worst = index_of(static_cast<std::int64_t>(i), row.shape);
      row.analytic = a;
      row.numeric = n.value;
      row.error = n.error;
    }
  }
  const double norms = std::sqrt(analytic2) + std::sqrt(numeric2);
  row.distance = norms == 0 ? 0 : std::sqrt(difference2) / norms;
  row.verdict = failed ? Verdict::fail : unsure ? Verdict::inconclusive : Verdict::pass;
}

// ---- a function to differentiate

// A graph in float64 with a State: `outputs` weighted by `weights` and summed is the function of `variables`.
struct Function {
  Graph graph;
  State state;
  Value sum;          // the weighted sum, whose gradient is analytic
  Values terms;       // what is summed: differences are taken of each, so that unmoved terms cancel exactly
  std::vector<Array> weights;
  Values variables;   // leaves of the graph: what is moved
  std::vector<Array> points;  // their numbers
  std::vector<Feed> feeds;    // of the other inputs
  Mode mode;
  Location at;  // of the user's call
};

// Feeds for a run at f.points: they refer to these arrays, so an element that is moved there is moved in the run.
std::vector<Feed> feeds_of(const Function& f) {
  std::vector<Feed> feeds = f.feeds;
  for (std::size_t i = 0; i < f.variables.size(); ++i)
    if (f.variables[i].node().op().name == "input") feeds.emplace_back(f.variables[i], f.points[i]);
  return feeds;
}

std::vector<Derivative> numeric_gradient(Function& f, Program& forward, std::size_t variable) {
  Array& x = f.points[variable];
  const double typical = root_mean_square(x);
  const bool in_state = f.variables[variable].node().op().name == "variable";
  const std::vector<Feed> feeds = feeds_of(f);
  std::vector<Derivative> out;
  const auto evaluate = [&](std::int64_t i, double value, std::vector<Array>& into) {
    x.set(i, value);
    if (in_state) f.state.set(f.variables[variable], x);
    const Results results = forward.run(std::span<const Feed>(feeds), f.at);
    into.resize(results.size());
    for (std::size_t t = 0; t < results.size(); ++t) into[t] = results[t];
  };
  std::vector<Array> above;
  std::vector<Array> below;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double at = x[i];
    double magnitude = 0;
    const auto difference = [&](double h) {
      evaluate(i, at + h, above);
      const double up = x[i];
      evaluate(i, at - h, below);
      const double span = up - x[i];  // as rounded
      x.set(i, at);
      double sum = 0;
      double moved = 0;
      for (std::size_t t = 0; t < above.size(); ++t) {
        for (std::int64_t k = 0; k < above[t].size(); ++k) {
          const double d = above[t][k] - below[t][k];
          if (d == 0) continue;
          sum += f.weights[t][k] * d;
          moved += std::abs(f.weights[t][k] * above[t][k]);
        }
      }
      magnitude = std::max(magnitude, moved);
      return sum * (2 * h / span);
    };
    const double h = first_step(at, typical);
    difference(h / 64);  // for the magnitude of what moves, and so of its rounding
    out.push_back(ridders(difference, h, 4 * std::numeric_limits<double>::epsilon() * magnitude));
  }
  if (in_state) f.state.set(f.variables[variable], x);
  return out;
}

std::vector<double> numbers(const Array& x) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < x.size(); ++i) out.push_back(x[i]);
  return out;
}

// Weights of both signs, none near 0 and no two alike: a bare sum would be blind to whatever conserves it (softmax).
Array cotangent(const Dims& shape, std::uint64_t seed, std::uint64_t stream) {
  Array out = uniform(to_shape(shape), 0.5, 1.5).draw(float64, seed, 2 * stream + 1000);
  const Array sign = integers(to_shape(shape), 0, 2).draw(float64, seed, 2 * stream + 1001);
  for (std::int64_t i = 0; i < out.size(); ++i)
    if (sign[i] == 0) out.set(i, -out[i]);
  return out;
}

// Checks the gradient of f.sum in all its variables and appends the rows.
void check_order(Function& f, std::string_view subject, int order, const std::vector<std::string>& names,
                 const CheckOptions& options, std::vector<CheckRow>& rows) {
  const Values gradient = gradients(f.sum, f.variables);
  Program analytic(f.state, {.outputs = gradient, .mode = f.mode});
  Program forward(f.state, {.outputs = f.terms, .mode = f.mode});
  const std::vector<Feed> feeds = feeds_of(f);
  const Results results = analytic.run(std::span<const Feed>(feeds), f.at);
  for (std::size_t v = 0; v < f.variables.size(); ++v) {
    CheckRow row;
    row.subject = subject;
    row.input = names[v];
    row.order = order;
    row.shape = f.points[v].shape();
    compare(row, numbers(results[v]), numeric_gradient(f, forward, v), options.tolerance);
    rows.push_back(std::move(row));
  }
}

// The function whose gradient is the gradient of the last: sum over variables of (gradient * a random direction).
Function next_order(const Function& f, const CheckOptions& options) {
  Function out = f;
  out.terms = gradients(f.sum, f.variables);
  out.weights.clear();
  out.sum = Value{};
  for (std::size_t v = 0; v < out.terms.size(); ++v) {
    out.weights.push_back(cotangent(f.points[v].shape(), options.seed, 100 + v));
    const Value term = sum(out.terms[v] * out.weights.back());
    out.sum = out.sum ? out.sum + term : term;
  }
  return out;
}

// ---- ops

struct OpFunction {
  Function function;
  std::vector<std::string> names;
};

OpFunction function_of(const Op& op, const Sample& sample, DType dtype, const CheckOptions& options) {
  Graph graph({.dtype = dtype, .seed = options.seed});
  Values inputs;
  Values variables;
  std::vector<Array> points;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
    // Numbers that float32 has exactly, so that both dtypes are asked the same question.
    const Array drawn = sample.inputs[i].draw(float32, options.seed, i);
    const bool floating = is_floating(drawn.dtype());
    const Array number = floating ? drawn.astype(dtype) : drawn;
    if (floating) {
      const auto name = fmt::format("input {}", i);
      inputs.push_back(graph.input(name, to_shape(number.shape()), dtype));
      variables.push_back(inputs.back());
      points.push_back(number);
      names.push_back(name);
    } else {
      inputs.push_back(graph.constant(number));
    }
  }
  Attributes attributes = sample.attributes;
  if (const Attribute* wanted = attributes.find("dtype"); wanted && wanted->variant() == Attribute::Variant(float64))
    attributes = attributes.with("dtype", dtype);
  const Value y = apply(graph, op, inputs, attributes);
  Function f{graph, State(graph), {}, {y}, {}, variables, points, {}, options.mode, {}};
  f.weights.push_back(cotangent(evaluate(y.shape(), Sizes{}), options.seed, 0));
  f.sum = is_floating(y.dtype()) ? sum(y * f.weights[0]) : Value{};
  return {std::move(f), names};
}

std::vector<Array> analytic_gradient(Function& f) {
  const Values gradient = gradients(f.sum, f.variables);
  Program program(f.state, {.outputs = gradient, .mode = f.mode});
  const std::vector<Feed> feeds = feeds_of(f);
  const Results results = program.run(std::span<const Feed>(feeds), f.at);
  std::vector<Array> out;
  for (std::size_t v = 0; v < results.size(); ++v) out.push_back(results[v]);
  return out;
}

// float32 against float64: rounding of the inputs' scale is allowed, a wrong formula is far beyond it.
void check_float32(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                   std::vector<CheckRow>& rows) {
  OpFunction wide = function_of(op, sample, float64, options);
  OpFunction narrow = function_of(op, sample, float32, options);
  const auto expected = analytic_gradient(wide.function);
  const auto got = analytic_gradient(narrow.function);
  for (std::size_t v = 0; v < expected.size(); ++v) {
    CheckRow row;
    row.subject = subject;
    row.input = wide.names[v];
    row.dtype = float32;
    row.shape = expected[v].shape();
    std::vector<Derivative> reference;
    for (std::int64_t i = 0; i < expected[v].size(); ++i) reference.push_back({expected[v][i], 0});
    compare(row, numbers(got[v]), reference, 2e-4);
    rows.push_back(std::move(row));
  }
}

// ---- networks

// The same graph in float64, node by node, with every numeric parameter of an op that says float32 changed too.
Graph widened(const Graph& graph) {
  const GraphData& from = *graph.data();
  auto to = std::make_shared<GraphData>();
  to->options = from.options;
  to->options.dtype = float64;
  to->step = from.step;
  to->epoch = from.epoch;
  to->streams = from.streams;
  to->names = from.names;
  to->attached = from.attached;
  *to->leaves = *from.leaves;
  const auto wide = [](DType dtype) { return dtype == float32 ? float64 : dtype; };
  for (auto& variable : to->leaves->variables) variable.dtype = wide(variable.dtype);
  for (const auto& constant : from.constants)
    to->constants.push_back(std::make_shared<const Array>(constant->astype(wide(constant->dtype()))));
  for (const auto& old : from.nodes) {
    detail::NodeData node = old;
    if (old.inputs.size() == 0 && !old.op->shape) {
      node.type.dtype = wide(old.type.dtype);
    } else {
      if (const Attribute* dtype = old.attributes.find("dtype"))
        if (const auto* d = std::get_if<DType>(&dtype->variant())) node.attributes = old.attributes.with("dtype", wide(*d));
      std::vector<Type> types;
      for (const NodeId input : old.inputs) types.push_back(to->node(input).type);
      node.type = old.op->shape(OpCall(*old.op, types, node.attributes, old.at));
    }
    to->nodes.push_back(std::move(node));
  }
  return Graph(to);
}

State widened(const State& state, const Graph& graph) {
  State out(graph);
  const auto& variables = state.graph().data()->leaves->variables;
  for (const auto& variable : variables) out.set(Value(graph.data().get(), variable.node), state.get(Value(state.graph().data().get(), variable.node)).astype(graph.data()->node(variable.node).type.dtype));
  out.set_step(state.step());
  out.set_epoch(state.epoch());
  return out;
}

}  // namespace

CheckReport check_gradients(const Op& op, const CheckOptions& options) {
  if (!op.gradient) throw Error("check_gradients", fmt::format("requires an op with a gradient rule, got {}", op.name));
  CheckReport report;
  report.title = fmt::format("op {}", op.name);
  for (std::size_t s = 0; s < op.samples.size(); ++s) {
    const Sample& sample = op.samples[s];
    if (!sample.differentiate) continue;
    const auto subject = fmt::format("sample {}", s);
    try {
      OpFunction f = function_of(op, sample, float64, options);
      if (f.function.variables.empty() || !f.function.sum) continue;  // integers: nothing to differentiate
      check_order(f.function, subject, 1, f.names, options, report.rows);
      if (options.orders > 1) {
        Function second = next_order(f.function, options);
        check_order(second, subject, 2, f.names, options, report.rows);
      }
      if (options.float32) check_float32(op, sample, subject, options, report.rows);
    } catch (const Error& error) {
      report.errors.push_back(fmt::format("{}: {}", subject, error.what()));
    }
  }
  if (report.rows.empty() && report.errors.empty())
    throw Error("check_gradients", fmt::format("requires a sample with something to differentiate, {} has none", op.name));
  return report;
}

CheckReport check_gradients(Value loss, const Values& values, const State& state, std::span<const Feed> feeds,
                            const CheckOptions& options, Location at) {
  if (!loss) throw Error(at, "check_gradients", "requires a loss, got an empty Value");
  if (loss.data() != state.graph().data().get())
    throw Error(at, "check_gradients", "requires a loss and a State of one graph");
  if (!count(loss.shape()).is(1))
    throw Error(at, "check_gradients", fmt::format("requires a scalar loss, got shape {}", to_string(loss.shape())));
  if (values.empty()) throw Error(at, "check_gradients", "requires at least one value to differentiate in, got none");

  const Graph graph = widened(state.graph());
  const auto twin = [&](Value v) { return Value(graph.data().get(), v.id()); };
  Function f{graph, widened(state, graph), twin(loss), {twin(loss)}, {Array::full(float64, Dims{}, 1)}, {}, {}, {}, options.mode, at};
  std::vector<std::string> names;
  std::vector<Array> fed;  // numbers of the inputs that are not moved; feeds refer to them
  fed.reserve(feeds.size());
  const auto wide = [](const Feed& feed) {
    Array numbers(feed.dtype(), feed.shape());
    if (feed.data()) std::memcpy(numbers.raw(), feed.data(), numbers.bytes());
    return feed.dtype() == float32 ? numbers.astype(float64) : numbers;
  };
  const auto input_of = [&](const Feed& feed) { return feed.name().empty() ? feed.input() : state.graph().find(feed.name(), at); };
  for (const Value v : values) {
    if (!v || v.data() != loss.data()) throw Error(at, "check_gradients", "requires values of the loss's graph");
    const std::string_view op = v.node().op().name;
    if ((op != "input" && op != "variable") || !is_floating(v.dtype()))
      throw Error(at, "check_gradients", fmt::format("requires floating inputs, parameters or variables, got {}", v.name()));
    f.variables.push_back(twin(v));
    names.push_back(v.name());
    if (op == "variable") {
      f.points.push_back(f.state.get(f.variables.back()));
      continue;
    }
    const auto feed = std::find_if(feeds.begin(), feeds.end(), [&](const Feed& x) { return input_of(x) == v; });
    if (feed == feeds.end()) throw Error(at, "check_gradients", fmt::format("requires a feed for input '{}', got none", v.name()));
    f.points.push_back(wide(*feed));
  }
  for (const Feed& feed : feeds) {
    const Value input = input_of(feed);
    if (!input || input.data() != loss.data())
      throw Error(at, "check_gradients", "requires feeds of inputs of the loss's graph");
    if (std::find(values.begin(), values.end(), input) != values.end()) continue;
    fed.push_back(wide(feed));
    f.feeds.emplace_back(twin(input), fed.back());
  }
  CheckReport report;
  report.title = "network";
  check_order(f, "", 1, names, options, report.rows);
  if (options.orders > 1) {
    Function second = next_order(f, options);
    check_order(second, "", 2, names, options, report.rows);
  }
  return report;
}

CheckReport check_gradients(Value loss, const Values& values, const State& state, std::initializer_list<Feed> feeds,
                            const CheckOptions& options, Location at) {
  return check_gradients(loss, values, state, std::span<const Feed>(feeds.begin(), feeds.size()), options, at);
}

// ---- the report

bool CheckReport::passed() const {
  return errors.empty() && !rows.empty() &&
         std::all_of(rows.begin(), rows.end(), [](const CheckRow& row) { return row.verdict == Verdict::pass; });
}

double CheckReport::distance() const {
  double most = 0;
  for (const CheckRow& row : rows)
    if (row.dtype == float64) most = std::max(most, row.distance);
  return most;
}

std::string CheckReport::to_string() const {
  const char* const verdicts[] = {"pass", "FAIL", "inconclusive"};
  std::size_t passed_rows = 0;
  std::string table = fmt::format("{:<10} {:<12} {:<8} {:>5} {:<14} {:>10}  {:<12} {:>23} {:>23}  {}\n", "", "input", "dtype",
                                  "order", "shape", "distance", "worst at", "analytic", "reference", "verdict");
  for (const CheckRow& row : rows) {
    passed_rows += row.verdict == Verdict::pass ? 1 : 0;
    table += fmt::format("{:<10} {:<12} {:<8} {:>5} {:<14} {:>10.2e}  {:<12} {:>23.16g} {:>23.16g}  {}", row.subject,
                         row.input, name(row.dtype), row.order, chainrule::to_string(row.shape), row.distance,
                         chainrule::to_string(row.worst), row.analytic, row.numeric,
                         verdicts[static_cast<std::size_t>(row.verdict)]);
    if (row.verdict != Verdict::pass) table += fmt::format(" (difference {:.2e}, estimated error {:.1e})", std::abs(row.analytic - row.numeric), row.error);
    table += "\n";
  }
  for (const auto& error : errors) table += "ERROR " + error + "\n";
  return fmt::format("gradient check of {}: {}, {} of {} comparisons pass, greatest relative distance {:.2e}\n{}", title,
                     passed() ? "PASS" : "FAIL", passed_rows, rows.size(), distance(), table);
}

}  // namespace chainrule
