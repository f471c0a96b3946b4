// The calls that sequences are made of: a line or a few each. A new public function is a line more.
#include <algorithm>

#include "world.hpp"

namespace chainrule::fuzz {

namespace {

// ---- optimizers

Said<optim::LearningRate> rate(Call& c) {
  if (c.random.chance(0.2)) {
    const auto v = c.scalar();
    return {optim::LearningRate(v.it), v.text};
  }
  const auto n = c.number();
  if (c.random.chance(0.2))
    return {optim::inverse_time_decay({.initial = n.it}),
            fmt::format("cr::optim::inverse_time_decay({{.initial = {}}})", n)};
  if (c.random.chance(0.2))
    return {optim::exponential_decay({.initial = n.it}),
            fmt::format("cr::optim::exponential_decay({{.initial = {}}})", n)};
  return {optim::LearningRate(n.it), n.text};
}

// Keeps the updates of a random optimizer for a random loss.
void minimize(Call& c) {
  const auto with = [&](const auto& optimizer, const std::string& text) {
    const auto loss = c.scalar();
    const auto keep = [&](const Updates& updates) {
      c.world.updates.push_back({updates, fmt::format("u{}", c.world.updates.size()), loss.it});
    };
    if (c.random.chance(0.6)) {
      c.say("{}.minimize({})", text, loss);
      return keep(optimizer.minimize(loss.it));
    }
    const auto parameters = c.some(3, true);
    if (c.random.chance(0.5)) {
      c.say("{}.minimize({}, cr::Values{})", text, loss, parameters);
      return keep(optimizer.minimize(loss.it, parameters.it));
    }
    const auto gradients = c.some(3);
    c.say("{}.apply(cr::Values{}, cr::Values{})", text, parameters, gradients);
    return keep(optimizer.apply(parameters.it, gradients.it));
  };
  const auto r = rate(c);
  const auto a = c.number();
  const auto b = c.number();
  switch (c.random.below(5)) {
    case 0: return with(optim::GradientDescent{r.it}, fmt::format("cr::optim::GradientDescent{{{}}}", r));
    case 1: return with(optim::Momentum{r.it, a.it}, fmt::format("cr::optim::Momentum{{{}, {}}}", r, a));
    case 2: return with(optim::HeavyBall{r.it, a.it}, fmt::format("cr::optim::HeavyBall{{{}, {}}}", r, a));
    case 3: return with(optim::RMSProp{r.it, a.it, b.it}, fmt::format("cr::optim::RMSProp{{{}, {}, {}}}", r, a, b));
    default: break;
  }
  return with(optim::Adam{r.it, a.it, b.it}, fmt::format("cr::optim::Adam{{{}, {}, {}}}", r, a, b));
}

// ---- ops of the registry

void apply_any(Call& c) {
  const Op& op = *c.random.pick(registry());
  const Sample& sample = c.random.pick(op.samples);
  Values inputs;
  std::string text;
  std::size_t n = sample.inputs.size();
  if (c.bad(0.05)) n = c.random.below(4);
  for (std::size_t i = 0; i < n; ++i) {
    const auto v = c.value();
    inputs.push_back(v.it);
    text += (text.empty() ? "" : ", ") + v.text;
  }
  Attributes attributes;
  std::string said;
  for (const AttributeDeclaration& declaration : op.attributes.list()) {
    const Attribute* like = sample.attributes.find(declaration.name());
    if (!like && declaration.otherwise()) like = &*declaration.otherwise();
    if (!like || c.bad(0.03)) continue;  // missing
    std::string name = declaration.name();
    const auto value = c.attribute(*like);
    if (c.bad(0.02)) name += "s";  // misspelt
    attributes = attributes.with(name, value.it);
    said += fmt::format("{}{{\"{}\", {}}}", said.empty() ? "" : ", ", name, value);
  }
  if (c.flag().it) {
    c.say("cr::apply_all(*cr::find_op(\"{}\"), {{{}}}, {{{}}})", op.name, text, said);
    return c.keep(apply_all(op, inputs, attributes));
  }
  const auto g = c.graph();
  c.say("cr::apply({}, *cr::find_op(\"{}\"), {{{}}}, {{{}}})", g, op.name, text, said);
  c.keep(apply(g.it, op, inputs, attributes));
}

// ---- Programs

passes::Computation softplus_for_relu(const passes::Computation& computation) {
  return passes::Rewriter(computation).run([](passes::Rewriter& rewriter, const Node& node) {
    return node.op().name == "relu" ? softplus(rewriter.now(node.input(0))) : rewriter.copy(node);
  });
}

passes::Computation without_results(const passes::Computation& computation) { return {computation.graph, {}}; }

// The options of a request that are no values.
void add_options(Call& c, Request& request, std::string& text) {
  if (c.random.chance(0.2)) {
    request.mode = Mode::inference;
    text += ", .mode = cr::Mode::inference";
  }
  if (c.random.chance(0.2)) {
    request.memory_limit = static_cast<std::size_t>(c.random.pick({1, 100, 1000, 100'000}));
    text += fmt::format(", .memory_limit = {}", request.memory_limit);
  }
  if (c.random.chance(0.2)) {
    request.plan_memory = static_cast<std::size_t>(c.random.pick({0, 1000}));
    text += fmt::format(", .plan_memory = {}", request.plan_memory);
  }
  if (c.random.chance(0.15)) {
    request.draws = Draws::each_run;
    text += ", .draws = cr::Draws::each_run";
  }
  if (c.random.chance(0.1)) {
    request.noise_in_inference = true;
    text += ", .noise_in_inference = true";
  }
  if (c.random.chance(0.15)) {
    const bool bad = c.bad();
    request.passes = {{"mine", bad ? without_results : softplus_for_relu}};
    text += fmt::format(", .passes = {{{{\"mine\", {}}}}}", bad ? "without_results" : "softplus_for_relu");
  }
  if (c.random.chance(0.15)) {
    request.optimize = false;
    text += ", .optimize = false";
  }
  if (c.random.chance(0.15)) {
    request.check_finite = true;
    text += ", .check_finite = true";
  }
}

constexpr std::int64_t units_of_recurrence = 2;
constexpr std::int64_t gates_of_recurrence[] = {1, 4, 3};  // of an rnn, an lstm and a gru

// A value for which this holds, if a few draws find one: a call makes no nodes but its own, since one that throws is
// to leave the graph as it was.
template <class F>
Said<Value> value_where(Call& c, F holds) {
  auto out = c.value();
  for (int i = 0; i < 24 && !(out.it.defined() && holds(out.it)); ++i) out = c.value();
  return out;
}

Said<Value> of_type(Call& c, DType dtype, const Shape& shape) {
  return value_where(c, [&](Value v) { return v.dtype() == dtype && v.shape() == shape; });
}

Said<Value> whole_of(Call& c, const Shape& shape) {
  return value_where(c, [&](Value v) { return is_integer(v.dtype()) && v.shape() == shape; });
}

// What the calls below look for: indices, lengths and weights that fit a value.
void constants_that_fit(Call& c) {
  const auto x = c.floating();
  if (!x.it.defined() || x.it.rank() == 0 || c.world.values.size() > 250) return;
  const Shape& shape = x.it.shape();
  if (!std::all_of(shape.begin(), shape.end(), [](Dimension d) { return d.is_number() && d.extent() < 100; })) return;
  Graph graph = x.it.graph();
  const auto kind = c.random.below(3);
  const std::int64_t columns = units_of_recurrence * gates_of_recurrence[kind];
  const std::vector<std::pair<DType, Shape>> types = {
      {int64, {}},
      {int64, {2}},
      {int64, {shape[0]}},
      {int64, shape},
      {int64, shape.rank() > 1 ? Shape{shape[0], shape[1]} : shape},
      {x.it.dtype(), {shape.back(), columns}},
      {x.it.dtype(), {units_of_recurrence, columns}},
      {x.it.dtype(), {shape[0], units_of_recurrence}},
  };
  c.say("// constants that fit {}", x);
  for (const auto& [dtype, of] : types) c.keep(graph.constant(c.array_like(dtype, evaluate(of, Sizes())).it));
}

Said<RandomOptions> random_options(Call& c) {
  RandomOptions options;
  std::string text;
  if (c.random.chance(0.3)) {
    const auto dtype = c.dtype();
    options.dtype = dtype.it;
    text += fmt::format(".dtype = {}", dtype);
  }
  if (c.random.chance(0.2)) {
    const auto counter = of_type(c, int64, {});
    options.counter = counter.it;
    text += fmt::format("{}.counter = {}", text.empty() ? "" : ", ", c.named(counter.it));
  }
  return {options, "{" + text + "}"};
}

void random_numbers(Call& c) {
  const auto g = c.graph();
  const auto shape = c.shape();
  const auto options = random_options(c);
  const auto a = c.number();
  const auto b = c.number();
  const auto low = c.whole(-3, 3);
  const auto n = c.dimension();
  const auto p = c.floating();
  switch (c.random.below(9)) {
    case 0:
      c.say("cr::random_uniform({}, {}, {}, {}, {})", g, shape, a, b, options);
      return c.keep(random_uniform(g.it, shape.it, a.it, b.it, options.it));
    case 1:
      c.say("cr::random_normal({}, {}, {}, {}, {})", g, shape, a, b, options);
      return c.keep(random_normal(g.it, shape.it, a.it, b.it, options.it));
    case 2:
      c.say("cr::random_integers({}, {}, {}, 4, {})", g, shape, low, options);
      return c.keep(random_integers(g.it, shape.it, low.it, 4, options.it));
    case 3:
      c.say("cr::random_bernoulli({}, {}, {}, {})", g, shape, a, options);
      return c.keep(random_bernoulli(g.it, shape.it, a.it, options.it));
    case 4: c.say("cr::random_bernoulli({}, {})", p, options); return c.keep(random_bernoulli(p.it, options.it));
    case 5:
      c.say("cr::random_gumbel({}, {}, {})", g, shape, options);
      return c.keep(random_gumbel(g.it, shape.it, options.it));
    case 6: c.say("cr::random_categorical({}, {})", p, options); return c.keep(random_categorical(p.it, options.it));
    case 7:
      c.say("cr::random_truncated_normal({}, {}, {}, 1, {}, 2, {})", g, shape, b, a, options);
      return c.keep(random_truncated_normal(g.it, shape.it, b.it, 1, a.it, 2, options.it));
    default:
      c.say("cr::random_permutation({}, {}, {})", g, n, options);
      return c.keep(random_permutation(g.it, n.it, options.it));
  }
}

void rows(Call& c) {
  const auto x = c.floating();
  if (!x.it.defined()) return;
  const auto axis = c.axis(x.it);
  const auto indices = value_where(c, [](Value v) { return is_integer(v.dtype()); });
  const auto count = c.dimension();
  const auto padding = c.whole(-2, 2);
  switch (c.random.below(4)) {
    case 0: c.say("cr::take({}, {}, {})", x, indices, axis); return c.keep(take(x.it, indices.it, axis.it));
    case 1: {
      const auto of = c.like(x.it);
      c.say("cr::scatter_add({}, {}, {}, {})", x, indices, of, axis);
      return c.keep(scatter_add(x.it, indices.it, of.it, axis.it));
    }
    case 2:
      c.say("cr::embedding({}, {}, {{.padding_idx = {}}})", x, indices, padding);
      return c.keep(embedding(x.it, indices.it, {.padding_idx = padding.it}));
    default: {
      const auto segments = whole_of(c, x.it.rank() > 0 ? Shape{x.it.shape()[0]} : Shape{});
      c.say("cr::segment_sum({}, {}, {})", x, segments, count);
      return c.keep(segment_sum(x.it, segments.it, count.it));
    }
  }
}

void elements(Call& c) {
  const auto x = c.floating();
  if (!x.it.defined()) return;
  const auto axis = c.axis(x.it);
  const auto indices = whole_of(c, x.it.shape());
  const auto like = c.like(x.it);
  const auto updates = c.random.chance(0.7) ? Said<Operand>{like.it, like.text} : c.operand();
  const auto extent = c.dimension();
  switch (c.random.below(3)) {
    case 0: {
      const auto how = c.random.pick({Scatter::put, Scatter::add, Scatter::max, Scatter::min});
      c.say("cr::scatter_along_axis({}, {}, {}, {}, cr::Scatter({}))", x, indices, updates, axis,
            static_cast<int>(how));
      return c.keep(scatter_along_axis(x.it, indices.it, updates.it, axis.it, how));
    }
    case 1:
      c.say("cr::scatter_add_along_axis({}, {}, {}, {})", x, indices, extent, axis);
      return c.keep(scatter_add_along_axis(x.it, indices.it, extent.it, axis.it));
    default: {
      const auto mask = of_type(c, boolean, x.it.shape());
      c.say("cr::masked_fill({}, {}, {})", x, mask, updates);
      return c.keep(masked_fill(x.it, mask.it, updates.it));
    }
  }
}

void attention(Call& c) {
  const auto x = c.floating();
  const auto y = c.like(x.it);
  const auto z = c.like(x.it);
  const auto lengths = whole_of(c, {2});
  const auto places = c.dimension();
  const auto width = c.whole(0, 4);
  const auto g = c.graph();
  const auto dtype = c.dtype();
  switch (c.random.below(5)) {
    case 0: {
      const auto causal = c.flag();
      const auto keep = c.number();
      c.say("cr::scaled_dot_product_attention({}, {}, {}, {{.causal = {}, .keep = {}}})", x, y, z, causal, keep);
      return c.keep(scaled_dot_product_attention(x.it, y.it, z.it, {.causal = causal.it, .keep = keep.it}));
    }
    case 1: c.say("cr::length_mask({}, {})", lengths, places); return c.keep(length_mask(lengths.it, places.it));
    case 2: {
      const auto interleaved = c.flag();
      c.say("cr::rotary({}, {{.interleaved = {}}})", x, interleaved);
      return c.keep(rotary(x.it, {.interleaved = interleaved.it}));
    }
    case 3:
      c.say("cr::sinusoidal_positions({}, {}, {}, {})", g, places, width, dtype);
      return c.keep(sinusoidal_positions(g.it, places.it, width.it, dtype.it));
    default:
      c.say("cr::alibi_bias({}, {}, {}, {}, {})", g, width, places, places, dtype);
      return c.keep(alibi_bias(g.it, width.it, places.it, places.it, dtype.it));
  }
}

void recurrence(Call& c) {
  const auto x = value_where(c, [](Value v) { return is_floating(v.dtype()) && v.rank() > 1; });
  const auto kind = c.random.below(3);
  const std::int64_t columns = units_of_recurrence * gates_of_recurrence[kind];
  if (!x.it.defined() || x.it.rank() == 0) return;
  const auto input = of_type(c, x.it.dtype(), {x.it.shape().back(), columns});
  const auto hidden = of_type(c, x.it.dtype(), {units_of_recurrence, columns});
  const auto state = of_type(c, x.it.dtype(), {x.it.shape()[0], units_of_recurrence});
  const RecurrentWeights weights{.input = input.it, .hidden = hidden.it};
  const auto reverse = c.flag();
  const std::string name = kind == 0 ? "rnn" : kind == 1 ? "lstm" : "gru";
  if (x.it.rank() == 3) {
    c.say("cr::{}({}, {{{}, {}}}, {{.reverse = {}}})", name, x, input, hidden, reverse);
    const SequenceOptions options{.reverse = reverse.it};
    return c.keep(kind == 0   ? rnn(x.it, weights, options).output
                  : kind == 1 ? lstm(x.it, weights, options).output
                              : gru(x.it, weights, options).output);
  }
  c.say("cr::{}_cell({}, {}, {{{}, {}}})", name, x, state, input, hidden);
  c.keep(kind == 0   ? rnn_cell(x.it, state.it, weights)
         : kind == 1 ? lstm_cell(x.it, {state.it, state.it}, weights).hidden
                     : gru_cell(x.it, state.it, weights));
}

void sequence_losses(Call& c) {
  const auto kind = c.random.below(3);
  const std::size_t rank = kind == 2 ? 2 : 3;
  const auto x = value_where(c, [&](Value v) { return is_floating(v.dtype()) && v.rank() == rank; });
  const auto y = c.like(x.it);
  const bool fits = x.it.defined() && x.it.rank() == 3 && !c.bad();
  const Shape examples = fits ? Shape{x.it.shape()[0]} : Shape{2};
  const Shape places = fits ? Shape{x.it.shape()[0], x.it.shape()[1]} : Shape{2, 2};
  const auto labels = whole_of(c, places);
  const auto lengths = whole_of(c, examples);
  const auto target_lengths = whole_of(c, examples);
  switch (kind) {
    case 0: {
      const auto blank = c.whole(0, 2);
      c.say("cr::ctc_loss({}, {}, {}, {}, {{.blank = {}}})", x, labels, lengths, target_lengths, blank);
      return c.keep(ctc_loss(x.it, labels.it, lengths.it, target_lengths.it, {.blank = blank.it}));
    }
    case 1:
      c.say("cr::sequence_cross_entropy({}, {}, {})", x, labels, lengths);
      return c.keep(sequence_cross_entropy(x.it, labels.it, lengths.it));
    default: {
      const auto temperature = c.number();
      const auto symmetric = c.flag();
      c.say("cr::info_nce({}, {}, {{.temperature = {}, .symmetric = {}}})", x, y, temperature, symmetric);
      return c.keep(info_nce(x.it, y.it, {.temperature = temperature.it, .symmetric = symmetric.it}));
    }
  }
}

void new_program(Call& c, bool trains) {
  const std::size_t s = c.state();
  Request request;
  std::string text;
  auto outputs = c.some(3);
  if (trains) {
    if (c.world.updates.empty()) throw Error("fuzz", "no updates yet");
    const auto& updates = c.world.updates[c.random.below(c.world.updates.size())];
    request.updates = updates.updates;
    text = ", .updates = " + updates.text;
    if (c.random.chance(0.6)) outputs = {{updates.loss}, fmt::format("{{{}}}", c.named(updates.loss))};
  } else if (c.random.chance(0.4)) {
    const auto variable = c.variable();
    const auto expression = c.like(variable.it);
    request.updates = {{variable.it, expression.it}};
    text = fmt::format(", .updates = {{{{{}, {}}}}}", variable, expression);
    if (c.bad()) request.updates.push_back(request.updates[0]);
  }
  request.outputs = outputs.it;
  add_options(c, request, text);
  c.say("cr::Program p{}(s{}, {{.outputs = {}{}}})", c.world.programs.size(), s, outputs, text);
  c.world.programs.push_back({std::make_unique<Program>(c.world.states[s].state, request), s});
}

}  // namespace

const std::vector<NamedCall>& calls() {
  static const std::vector<NamedCall> all = {
      // ---- graphs
      {"Graph",
       [](Call& c) {
         if (c.world.graphs.size() > 1 || !c.random.chance(0.3)) return;
         c.say("cr::Graph g1({{.dtype = cr::float32}})");
         c.world.graphs.emplace_back(GraphOptions{.dtype = float32});
       }},
      {"dimension",
       [](Call& c) {
         const auto g = c.graph();
         const auto name = c.bad() ? c.name() : Said<std::string>{"n", "\"n\""};
         c.say("{}.dimension({})", g, name);
         static_cast<void>(Graph(g.it).dimension(name.it));
       }},
      {"input",
       [](Call& c) {
         auto g = c.graph();
         const auto name = c.name();
         const auto shape = c.shape();
         const auto dtype = c.dtype();
         c.say("{}.input({}, {}, {})", g, name, shape, dtype);
         c.keep(g.it.input(name.it, shape.it, dtype.it));
       }},
      {"parameter",
       [](Call& c) {
         auto g = c.graph();
         const auto name = c.name();
         const auto initial = c.initial();
         c.say("{}.parameter({}, {})", g, name, initial);
         c.keep(g.it.parameter(name.it, initial.it));
       }},
      {"variable",
       [](Call& c) {
         auto g = c.graph();
         const auto name = c.name();
         const auto initial = c.initial();
         const auto dtype = c.dtype();
         c.say("{}.variable({}, {}, {})", g, name, initial, dtype);
         c.keep(g.it.variable(name.it, initial.it, dtype.it));
       }},
      {"constant",
       [](Call& c) {
         auto g = c.graph();
         const auto array = c.array();
         c.say("{}.constant({})", g, array);
         c.keep(g.it.constant(array.it));
       }},
      {"constant of a number",
       [](Call& c) {
         auto g = c.graph();
         const auto number = c.number();
         const auto dtype = c.dtype();
         c.say("{}.constant({}, {})", g, number, dtype);
         c.keep(g.it.constant(number.it, dtype.it));
       }},
      {"step",
       [](Call& c) {
         auto g = c.graph();
         const bool epoch = c.flag().it;
         c.say("{}.{}()", g, epoch ? "epoch" : "step");
         c.keep(epoch ? g.it.epoch() : g.it.step());
       }},
      {"find",
       [](Call& c) {
         const auto g = c.graph();
         const auto name = c.name();
         c.say("{0}.has({1}); {0}.unique_name({1}); {0}.find({1})", g, name);
         static_cast<void>(g.it.has(name.it));
         static_cast<void>(g.it.unique_name(name.it));
         static_cast<void>(g.it.find(name.it));
       }},
      {"update_with",
       [](Call& c) {
         auto g = c.graph();
         const auto owner = c.value();
         const auto variable = c.variable();
         const auto expression = c.like(variable.it);
         c.say("{}.update_with({}, {}, {})", g, owner, variable, expression);
         g.it.update_with(owner.it, variable.it, expression.it);
       }},
      {"Graph::nodes",
       [](Call& c) {
         const auto g = c.graph();
         c.say("for (const cr::Node& node : {}.nodes()) node.outputs(), node.inputs()", g);
         std::size_t values = 0;
         for (const Node& node : g.it.nodes()) {
           static_cast<void>(node.inputs());
           values += node.outputs().size();
         }
         if (values != g.it.size()) throw std::logic_error("the graph's nodes have not all of its values");
       }},
      {"regression",  // which fit() can train
       [](Call& c) {
         Graph graph = c.world.graphs[0];
         if (graph.has("rows") || graph.has("w_line")) return;
         c.say(
             "cr::square(cr::matmul(g0.parameter(\"w_line\", cr::ones({{1, 2}})), g0.input(\"rows\", {{2, n}})) - "
             "1.0)");
         const Value line = graph.parameter("w_line", ones({1, 2}));
         const Value rows = graph.input("rows", {2, Dimension::symbol("n")});
         const Value loss = mean(square(matmul(line, rows) - 1.0));
         c.keep(Values{rows, line, loss});
         c.world.updates.push_back({optim::GradientDescent{0.1}.minimize(loss, {line}), "regression", loss});
       }},
      {"Value",
       [](Call& c) {
         const auto v = c.value();
         c.say("{}.node().op()", v);
         static_cast<void>(v.it.shape());
         static_cast<void>(v.it.dtype());
         static_cast<void>(v.it.name());
         static_cast<void>(v.it.location());
         static_cast<void>(v.it.graph());
         const Node node = v.it.node();
         static_cast<void>(node.op());
         static_cast<void>(node.inputs());
         static_cast<void>(node.attributes());
       }},

      // ---- ops
      {"apply", apply_any},
      {"apply of another op", apply_any},
      {"arithmetic",
       [](Call& c) {
         const auto a = c.operand();
         const auto b = c.operand();
         using F = Value (*)(Operand, Operand);
         const auto [name, f] = c.random.pick<std::pair<const char*, F>>({{"add", add},
                                                                          {"sub", sub},
                                                                          {"mul", mul},
                                                                          {"div", div},
                                                                          {"maximum", maximum},
                                                                          {"minimum", minimum},
                                                                          {"pow", pow},
                                                                          {"less", less},
                                                                          {"equal", equal},
                                                                          {"greater_equal", greater_equal}});
         c.say("cr::{}({}, {})", name, a, b);
         c.keep(f(a.it, b.it));
       }},
      {"where",
       [](Call& c) {
         const auto condition = c.value();
         const auto a = c.operand();
         const auto b = c.operand();
         c.say("cr::where({}, {}, {})", condition, a, b);
         c.keep(where(condition.it, a.it, b.it));
       }},
      {"by_mode",
       [](Call& c) {
         const auto a = c.floating();
         const auto b = c.operand();
         c.say("cr::by_mode({}, {})", a, b);
         c.keep(by_mode(a.it, b.it));
       }},
      {"cast",
       [](Call& c) {
         const auto x = c.value();
         const auto dtype = c.dtype();
         c.say("cr::cast({}, {})", x, dtype);
         c.keep(cast(x.it, dtype.it));
       }},
      {"extent",
       [](Call& c) {
         const auto g = c.graph();
         const auto shape = c.shape();
         const auto dtype = c.dtype();
         c.say("cr::extent({}, {}, {})", g, shape, dtype);
         c.keep(extent(g.it, shape.it, dtype.it));
       }},
      {"reduce",
       [](Call& c) {
         const auto x = c.value();
         const auto axes = c.axes(x.it);
         const auto keepdims = c.flag();
         using F = Value (*)(Value, const AxisList&, bool, Location);
         const auto [name, f] =
             c.random.pick<std::pair<const char*, F>>({{"sum", sum}, {"mean", mean}, {"max", max}, {"min", min}});
         c.say("cr::{}({}, cr::AxisList({}), {})", name, x, axes, keepdims);
         c.keep(f(x.it, AxisList(axes.it), keepdims.it, Location::here()));
       }},
      {"sum to a scalar",
       [](Call& c) {
         const auto x = c.floating();
         c.say("cr::sum({})", x);
         c.keep(sum(x.it));
       }},
      {"moments",
       [](Call& c) {
         const auto x = c.floating();
         const auto axes = c.axes(x.it);
         const auto keepdims = c.flag();
         c.say("cr::moments({}, cr::AxisList({}), {})", x, axes, keepdims);
         const auto [mean, variance] = moments(x.it, AxisList(axes.it), keepdims.it);
         c.keep(Values{mean, variance});
       }},
      {"sort",
       [](Call& c) {
         const auto x = c.value();
         const auto axis = c.axis(x.it);
         const auto descending = c.flag();
         c.say("cr::sort({}, {}, {})", x, axis, descending);
         const auto [values, indices] = sort(x.it, axis.it, descending.it);
         c.keep(Values{values, indices});
       }},
      {"topk",
       [](Call& c) {
         const auto x = c.value();
         const auto k = c.whole(0, 3);
         const auto axis = c.axis(x.it);
         const auto largest = c.flag();
         c.say("cr::topk({}, {}, {}, {})", x, k, axis, largest);
         const auto [values, indices] = topk(x.it, k.it, axis.it, largest.it);
         c.keep(Values{values, indices});
       }},
      {"take_along_axis",
       [](Call& c) {
         const auto x = c.value();
         const auto indices = c.value();
         const auto axis = c.axis(x.it);
         c.say("cr::take_along_axis({}, {}, {})", x, indices, axis);
         c.keep(take_along_axis(x.it, indices.it, axis.it));
       }},
      {"argmax",
       [](Call& c) {
         const auto x = c.value();
         const auto axis = c.axis(x.it);
         c.say("cr::argmax({}, {})", x, axis);
         c.keep(argmax(x.it, axis.it));
       }},
      {"softmax",
       [](Call& c) {
         const auto x = c.floating();
         const auto axis = c.axis(x.it);
         const bool log = c.flag().it;
         c.say("cr::{}({}, {})", log ? "log_softmax" : "softmax", x, axis);
         c.keep(log ? log_softmax(x.it, axis.it) : softmax(x.it, axis.it));
       }},
      {"reshape",
       [](Call& c) {
         const auto x = c.value();
         auto shape = c.shape();
         if (c.random.chance(0.5)) shape = {Shape{-1}, "cr::Shape{-1}"};
         c.say("cr::reshape({}, {})", x, shape);
         c.keep(reshape(x.it, shape.it));
       }},
      {"broadcast_to",
       [](Call& c) {
         const auto x = c.value();
         const auto shape = c.shape();
         c.say("cr::broadcast_to({}, {})", x, shape);
         c.keep(broadcast_to(x.it, shape.it));
       }},
      {"transpose",
       [](Call& c) {
         const auto x = c.value();
         const auto axes = c.axes(x.it);
         c.say("cr::transpose({}, {})", x, axes);
         c.keep(transpose(x.it, axes.it));
       }},
      {"slice",
       [](Call& c) {
         const auto x = c.value();
         const auto axis = c.axis(x.it);
         const auto start = c.whole(-3, 3);
         const auto stop = c.whole(-3, 5);
         const auto step = c.whole(-2, 2);
         c.say("cr::slice({}, {}, {{.start = {}, .stop = {}, .step = {}}})", x, axis, start, stop, step);
         c.keep(slice(x.it, axis.it, {.start = start.it, .stop = stop.it, .step = step.it}));
       }},
      {"concat",
       [](Call& c) {
         const auto parts = c.some(3);
         const auto axis = c.whole(-1, 2);
         c.say("cr::concat({}, {})", parts, axis);
         c.keep(concat(parts.it, axis.it));
       }},
      {"split",
       [](Call& c) {
         const auto x = c.value();
         const auto axis = c.axis(x.it);
         if (c.flag().it) {
           const auto parts = c.whole(1, 3);
           if (parts.it > 1000) return;  // so many values
           c.say("cr::split({}, {}, {})", x, parts, axis);
           return c.keep(split(x.it, parts.it, axis.it));
         }
         const Axes extents{c.whole(0, 2).it, c.whole(0, 2).it};
         c.say("cr::split({}, cr::Axes{{{}, {}}}, {})", x, extents[0], extents[1], axis);
         c.keep(split(x.it, extents, axis.it));
       }},
      {"matmul",
       [](Call& c) {
         const auto a = c.floating();
         const auto b = c.floating();
         c.say("cr::matmul({}, {})", a, b);
         c.keep(matmul(a.it, b.it));
       }},
      {"losses",
       [](Call& c) {
         const auto a = c.floating();
         const auto b = c.random.chance(0.7) ? c.like(a.it) : c.value();
         const auto axis = c.axis(a.it);
         switch (c.random.below(3)) {
           case 0:
             c.say("cr::mean_squared_error({}, {})", a, b);
             c.keep(mean_squared_error(a.it, b.it));
             break;
           case 1:
             c.say("cr::sigmoid_cross_entropy({}, {})", a, b);
             c.keep(sigmoid_cross_entropy(a.it, b.it));
             break;
           default:
             c.say("cr::softmax_cross_entropy({}, {}, {})", a, b, axis);
             c.keep(softmax_cross_entropy(a.it, b.it, axis.it));
         }
       }},
      {"constants that fit", constants_that_fit},
      {"random numbers", random_numbers},
      {"rows by indices", rows},
      {"elements by indices", elements},
      {"attention", attention},
      {"recurrence", recurrence},
      {"losses of sequences", sequence_losses},
      {"one_hot",
       [](Call& c) {
         const auto x = c.value();
         const auto classes = c.whole(0, 4);
         const auto dtype = c.dtype();
         const auto axis = c.axis(x.it);
         c.say("cr::one_hot({}, {}, {}, {})", x, classes, dtype, axis);
         c.keep(one_hot(x.it, classes.it, dtype.it, axis.it));
       }},
      {"penalty",
       [](Call& c) {
         const auto weights = c.some(2, true);
         const auto lambda = c.number();
         const auto examples = c.dimension();
         c.say("cr::l2_penalty({}, {}, {})", weights, lambda, examples);
         c.keep(l2_penalty(weights.it, lambda.it, examples.it));
       }},
      {"dropout",
       [](Call& c) {
         const auto x = c.floating();
         const auto keep = c.number();
         c.say("cr::dropout({}, {{.keep = {}}})", x, keep);
         c.keep(dropout(x.it, {.keep = keep.it}));
       }},
      {"dropout with a mask",
       [](Call& c) {
         const auto x = c.floating();
         const auto mask = c.value();
         const auto keep = c.number();
         c.say("cr::dropout({}, {}, {{.keep = {}}})", x, mask, keep);
         c.keep(dropout(x.it, mask.it, {.keep = keep.it}));
       }},
      {"rrelu",
       [](Call& c) {
         const auto x = c.floating();
         const auto low = c.number();
         const auto high = c.number();
         c.say("cr::rrelu({}, {{.low = {}, .high = {}}})", x, low, high);
         c.keep(rrelu(x.it, {.low = low.it, .high = high.it}));
       }},
      {"clip",
       [](Call& c) {
         const auto x = c.floating();
         const auto low = c.number();
         const auto high = c.number();
         c.say("cr::clip({}, {}, {})", x, low, high);
         c.keep(clip(x.it, low.it, high.it));
       }},
      {"activations",
       [](Call& c) {
         const auto x = c.floating();
         const auto slope = c.operand();
         const auto number = c.number();
         switch (c.random.below(3)) {
           case 0:
             c.say("cr::prelu({}, {})", x, slope);
             c.keep(prelu(x.it, slope.it));
             break;
           case 1:
             c.say("cr::leaky_relu({}, {})", x, number);
             c.keep(leaky_relu(x.it, number.it));
             break;
           default: c.say("cr::elu({}, {})", x, number); c.keep(elu(x.it, number.it));
         }
       }},
      {"dense",
       [](Call& c) {
         const auto x = c.floating();
         const auto units = c.whole(1, 4);
         c.say("cr::nn::dense({}, {})", x, units);
         if (units.it > 1000 || units.it < 0) return;  // no such weight could be made
         const auto layer = nn::dense(x.it, static_cast<std::size_t>(units.it));
         c.keep(Values{layer.output, layer.weight, layer.bias});
       }},
      {"layers in a scope",
       [](Call& c) {
         const auto x = c.floating();
         const auto units = c.whole(1, 4);
         const auto taps = c.whole(1, 3);
         c.say("auto scope = {0}.graph().scope(\"s\"); cr::nn::conv({0}, {1}, {2}); cr::nn::mlp({0}, {{{1}, 2}})", x,
               units, taps);
         if (units.it > 1000 || units.it < 0 || taps.it > 1000) return;  // no such weight could be made
         const auto features = static_cast<std::size_t>(units.it);
         Graph graph = x.it.graph();
         const auto scope = graph.scope("s");
         if (x.it.rank() > 2) {
           c.keep(nn::conv(x.it, features, taps.it, {.padding = "same"}));
         } else {
           c.keep(nn::mlp(x.it, {features, 2}));
         }
       }},
      {"layers for sequences",
       [](Call& c) {
         const auto x = c.floating();
         const auto lengths = c.value();
         const auto units = c.whole(1, 3);
         const auto layers = c.whole(1, 2);
         const bool limited = c.random.chance(0.3);
         if (units.it > 1000 || units.it < 0 || layers.it > 3 || layers.it < 0) return;  // no such weight could be made
         const std::optional<Value> places = limited ? std::optional(lengths.it) : std::nullopt;
         const std::string given = limited ? fmt::format(", .lengths = {}", lengths) : "";
         const auto n = static_cast<std::size_t>(units.it);
         // Recurrent layers are as long as their places are many.
         const bool short_one = x.it.rank() == 3 && !(x.it.shape()[1].is_number() && x.it.shape()[1].extent() > 8);
         switch (c.random.below(short_one ? 5 : 3)) {
           case 0:
             c.say("cr::nn::multi_head_attention({}, {}, {{.width = 2{}}})", x, units, given);
             c.keep(nn::multi_head_attention(x.it, n, {.width = 2, .lengths = places}));
             break;
           case 1:
             c.say("cr::nn::transformer_block({}, {}, {{.attention = {{.causal = true{}}}}})", x, units, given);
             c.keep(nn::transformer_block(x.it, n, {.attention = {.causal = true, .lengths = places}}));
             break;
           case 2:
             c.say("cr::nn::learned_positions({}, {})", x, units);
             c.keep(nn::learned_positions(x.it, n));
             break;
           case 3:
             c.say("cr::nn::lstm({}, {}, {{.layers = {}, .bidirectional = true{}}})", x, units, layers, given);
             c.keep(nn::lstm(
                 x.it, n, {.layers = static_cast<std::size_t>(layers.it), .bidirectional = true, .lengths = places}));
             break;
           default:
             c.say("cr::nn::gru({}, {}, {{.layers = {}{}}})", x, units, layers, given);
             c.keep(nn::gru(x.it, n, {.layers = static_cast<std::size_t>(layers.it), .lengths = places}));
         }
       }},
      {"length_mask",
       [](Call& c) {
         const auto lengths = c.value();
         const auto places = c.whole(0, 5);
         c.say("cr::length_mask({}, {})", lengths, places);
         c.keep(length_mask(lengths.it, places.it));
       }},
      {"batch_norm",
       [](Call& c) {
         const auto x = c.floating();
         const auto axis = c.axis(x.it);
         const auto epsilon = c.number();
         c.say("cr::nn::batch_norm({}, {{.axis = {}, .epsilon = {}}})", x, axis, epsilon);
         c.keep(nn::batch_norm(x.it, {.axis = axis.it, .epsilon = epsilon.it}));
       }},
      {"batch_norm of values",
       [](Call& c) {
         const auto x = c.floating();
         const auto gamma = c.variable();
         const auto mean = c.variable();
         const auto variance = c.like(mean.it);
         c.say("cr::batch_norm({}, {}, {}, {}, {})", x, gamma, gamma, mean, variance);
         c.keep(batch_norm(x.it, gamma.it, gamma.it, mean.it, variance.it));
       }},
      {"layer_norm",
       [](Call& c) {
         const auto x = c.floating();
         const auto gamma = c.floating();
         const auto axis = c.axis(x.it);
         const auto epsilon = c.number();
         c.say("cr::layer_norm({}, {}, {}, {{.axis = {}, .epsilon = {}}})", x, gamma, gamma, axis, epsilon);
         c.keep(layer_norm(x.it, gamma.it, gamma.it, {.axis = axis.it, .epsilon = epsilon.it}));
       }},
      {"rms_norm",
       [](Call& c) {
         const auto x = c.floating();
         const auto axis = c.axis(x.it);
         c.say("cr::rms_norm({}, {{.axis = {}}})", x, axis);
         c.keep(rms_norm(x.it, {.axis = axis.it}));
       }},
      {"group_norm",
       [](Call& c) {
         const auto x = c.floating();
         const auto groups = c.whole(-1, 4);
         const auto gamma = c.floating();
         c.say("cr::group_norm({}, {}, {})", x, groups, gamma);
         c.keep(group_norm(x.it, groups.it, gamma.it));
       }},
      {"instance_norm",
       [](Call& c) {
         const auto x = c.floating();
         c.say("cr::instance_norm({})", x);
         c.keep(instance_norm(x.it));
       }},
      {"weight_norm",
       [](Call& c) {
         const auto v = c.floating();
         const auto g = c.floating();
         const auto axis = c.axis(v.it);
         c.say("cr::weight_norm({}, {}, {})", v, g, axis);
         c.keep(weight_norm(v.it, g.it, axis.it));
       }},
      {"spectral_norm",
       [](Call& c) {
         const auto w = c.floating();
         const auto u = c.variable();
         const auto v = c.like(u.it);
         const auto iterations = c.whole(-1, 3);
         c.say("cr::spectral_norm({}, {}, {}, {{.iterations = {}}})", w, u, v, iterations);
         c.keep(spectral_norm(w.it, u.it, v.it, {.iterations = iterations.it}));
       }},

      // ---- derivatives
      {"gradients",
       [](Call& c) {
         const auto y = c.scalar();
         const auto xs = c.some(3, c.flag().it);
         c.say("cr::gradients({}, {})", y, xs);
         c.keep(gradients(y.it, xs.it));
       }},
      {"gradients with a cotangent",
       [](Call& c) {
         const auto y = c.floating();
         const auto xs = c.some(2);
         const auto w = c.like(y.it);
         c.say("cr::gradients({}, {}, {})", y, xs, w);
         c.keep(gradients(y.it, xs.it, w.it));
       }},
      {"jvp",
       [](Call& c) {
         const auto y = c.floating();
         const auto x = c.floating();
         const auto v = c.like(x.it);
         c.say("cr::jvp({}, {{{}}}, {{{}}})", y, x, v);
         c.keep(jvp(y.it, {x.it}, {v.it}));
       }},
      {"hvp",
       [](Call& c) {
         const auto y = c.scalar();
         const auto x = c.floating();
         const auto v = c.like(x.it);
         c.say("cr::hvp({}, {{{}}}, {{{}}})", y, x, v);
         c.keep(hvp(y.it, {x.it}, {v.it}));
       }},
      {"jacobian",
       [](Call& c) {
         const auto y = c.floating();
         const auto x = c.floating();
         const std::size_t s = c.state();
         const bool second = c.flag().it;
         c.say("cr::{}({}, {}, s{})", second ? "hessian" : "jacobian", y, x, s);
         c.keep(second ? hessian(y.it, x.it, c.world.states[s].state) : jacobian(y.it, x.it, c.world.states[s].state));
       }},
      {"check_gradients",
       [](Call& c) {
         const auto loss = c.scalar();
         const auto values = c.some(2, true);
         const std::size_t s = c.state();
         c.say("cr::check_gradients({}, {}, s{})", loss, values, s);
         static_cast<void>(check_gradients(loss.it, values.it, c.world.states[s].state).to_json());
       }},
      {"gradient_check_n",
       [](Call& c) {
         const auto loss = c.scalar();
         const auto values = c.some(2, true);
         const std::size_t s = c.state();
         c.say("cr::gradient_check_n({}, {}, s{})", loss, values, s);
         static_cast<void>(gradient_check_n(loss.it, values.it, c.world.states[s].state));
       }},
      {"minimize", minimize},
      {"minimize by another optimizer", minimize},

      // ---- States
      {"State",
       [](Call& c) {
         const std::size_t g = c.random.below(c.world.graphs.size());
         if (c.world.states.size() > 3) return;
         c.say("cr::State s{}(g{})", c.world.states.size(), g);
         c.world.states.push_back({State(c.world.graphs[g]), g});
       }},
      {"copy of a State",
       [](Call& c) {
         const std::size_t s = c.state();
         if (c.world.states.size() > 3) return;
         c.say("cr::State s{}(s{})", c.world.states.size(), s);
         c.world.states.push_back({State(c.world.states[s].state), c.world.states[s].graph});
       }},
      {"move of a State",
       [](Call& c) {
         const std::size_t s = c.state();
         if (c.world.states.size() > 3 || !c.random.chance(0.2)) return;
         c.say("cr::State s{}(std::move(s{}))", c.world.states.size(), s);
         c.world.states.push_back({State(std::move(c.world.states[s].state)), c.world.states[s].graph});
       }},
      {"assignment of a State",
       [](Call& c) {
         const std::size_t a = c.state();
         const std::size_t b = c.state();
         c.say("s{} = s{}", a, b);
         c.world.states[a].state = c.world.states[b].state;
         c.world.states[a].graph = c.world.states[b].graph;
       }},
      {"get",
       [](Call& c) {
         const std::size_t s = c.state();
         const auto v = c.variable();
         c.say("s{}.get({})", s, v);
         static_cast<void>(c.world.states[s].state.get(v.it).to_string());
       }},
      {"get by name",
       [](Call& c) {
         const std::size_t s = c.state();
         const auto name = c.name();
         c.say("s{}.get({})", s, name);
         static_cast<void>(c.world.states[s].state.get(name.it).to_string());
       }},
      {"set",
       [](Call& c) {
         const std::size_t s = c.state();
         const auto v = c.variable();
         const auto array = c.random.chance(0.7) && v.it.defined() && count(v.it.shape()).is_number()
                                ? c.array_like(v.it.dtype(), evaluate(v.it.shape(), Sizes{}))
                                : c.array();
         c.say("s{}.set({}, {})", s, v, array);
         c.world.states[s].state.set(v.it, array.it);
       }},
      {"set_step",
       [](Call& c) {
         const std::size_t s = c.state();
         const auto n = c.whole(0, 9);
         const bool epoch = c.flag().it;
         c.say("s{}.set_{}({})", s, epoch ? "epoch" : "step", n);
         epoch ? c.world.states[s].state.set_epoch(n.it) : c.world.states[s].state.set_step(n.it);
       }},
      {"reset",
       [](Call& c) {
         const std::size_t s = c.state();
         c.say("s{}.reset()", s);
         c.world.states[s].state.reset();
       }},
      {"save",
       [](Call& c) {
         const std::size_t s = c.state();
         const auto path = c.path();
         c.say("s{}.save({})", s, path);
         c.world.states[s].state.save(path.it);
       }},
      {"load",
       [](Call& c) {
         const std::size_t s = c.state();
         const auto path = c.path();
         const bool unknown = c.flag().it;
         const bool missing = c.flag().it;
         c.say("s{}.load({}, {{.ignore_unknown = {}, .keep_missing = {}}})", s, path, unknown, missing);
         c.world.states[s].state.load(path.it, {.ignore_unknown = unknown, .keep_missing = missing});
       }},

      // ---- Programs
      {"Program", [](Call& c) { new_program(c, false); }},
      {"Program that trains", [](Call& c) { new_program(c, true); }},
      {"move of a Program",
       [](Call& c) {
         const std::size_t p = c.program();
         if (!c.random.chance(0.2)) return;
         c.say("cr::Program p{}(std::move(p{}))", c.world.programs.size(), p);
         c.world.programs.push_back(
             {std::make_unique<Program>(std::move(*c.world.programs[p].program)), c.world.programs[p].state});
       }},
      {"run",
       [](Call& c) {
         const std::size_t p = c.program();
         Call::Feeds feeds;
         c.feeds(p, feeds);
         c.say("p{}.run({})", p, feeds.text);
         const Results results = c.world.programs[p].program->run(std::span<const Feed>(feeds.feeds));
         if (results.size() > 0) c.keep(results[0]);
       }},
      {"run again",
       [](Call& c) {
         const std::size_t p = c.program();
         Call::Feeds feeds;
         c.feeds(p, feeds);
         c.say("p{0}.run({1}); p{0}.run({1}).scalar({2})", p, feeds.text, "0");
         static_cast<void>(c.world.programs[p].program->run(std::span<const Feed>(feeds.feeds)));
       }},
      {"results",
       [](Call& c) {
         const std::size_t p = c.program();
         Call::Feeds feeds;
         c.only_good = true;
         if (c.world.programs[p].program->has_updates()) return;
         c.feeds(p, feeds);
         c.only_good = false;
         const Values& outputs = c.world.programs[p].program->outputs();
         const auto v = c.random.chance(0.7) && !outputs.empty() ? c.named(c.random.pick(outputs)) : c.value();
         const auto i = c.whole(0, 2);
         c.say("p{}.run({}).at({}), .at({}), .scalar({})", p, feeds.text, v, i, v);
         const Results results = c.world.programs[p].program->run(std::span<const Feed>(feeds.feeds));
         static_cast<void>(results.at(v.it));
         if (c.random.chance(0.5)) return;
         if (i.it >= 0) static_cast<void>(results.at(static_cast<std::size_t>(i.it)));
         if (c.random.chance(0.5)) static_cast<void>(results.scalar(v.it));
       }},
      {"explain",
       [](Call& c) {
         const std::size_t p = c.program();
         c.say("p{0}.explain(); p{0}.memory(); p{0}.inputs(); p{0}.outputs(); p{0}.has_updates()", p);
         Program& program = *c.world.programs[p].program;
         static_cast<void>(program.explain());
         static_cast<void>(program.memory());
         static_cast<void>(program.inputs());
         static_cast<void>(program.outputs());
         static_cast<void>(program.has_updates());
       }},
      {"profile",
       [](Call& c) {
         const std::size_t p = c.program();
         c.say("p{0}.start_profile(); p{0}.profile().to_string()", p);
         if (c.random.chance(0.7)) c.world.programs[p].program->start_profile();
         static_cast<void>(c.world.programs[p].program->profile().to_string());
       }},
      {"fit",
       [](Call& c) {
         std::size_t p = c.program();
         const auto trains = [](const Program& program) {
           return program.has_updates() && program.inputs().size() == 1 && !program.outputs().empty() &&
                  program.outputs()[0].rank() == 0;
         };
         for (std::size_t other = 0; other < c.world.programs.size() && c.random.chance(0.9); ++other)
           if (trains(*c.world.programs[other].program)) p = other;
         const Values inputs = c.world.programs[p].program->inputs();
         auto x = c.value();
         auto y = c.random.chance(0.5) ? Said<Value>{Value(), "{}"} : c.value();
         auto rows = c.array();
         auto labels = y.it.defined() ? c.array() : Said<Array>{Array(), "{}"};
         if (!inputs.empty() && inputs.size() <= 2 && c.random.chance(0.8)) {
           x = c.named(inputs[0]);
           rows = c.array_for(inputs[0]);
           y = inputs.size() == 2 ? c.named(inputs[1]) : Said<Value>{Value(), "{}"};
           const std::int64_t examples = rows.it.rank() > 0 ? rows.it.shape()[rows.it.rank() - 1] : 0;
           labels = inputs.size() == 2 ? c.array_for(inputs[1]) : c.array_like(float64, Dims{examples});
         }
         const auto batch = c.whole(1, 3);
         const auto epochs = c.random.pick({0, 1, 2, 1, 2, -1});
         c.say("cr::fit(p{}, {{.x = {}, .y = {}}}, {{.inputs = {{{}, {}}}, .batch = {}, .epochs = {}}})", p, rows,
               labels, x, y, batch, epochs);
         data::Dataset dataset;
         dataset.x = rows.it;
         dataset.y = labels.it;
         static_cast<void>(fit(*c.world.programs[p].program, dataset,
                               {.inputs = {x.it, y.it}, .batch = batch.it, .epochs = epochs, .interruptible = false}));
       }},

      // ---- Arrays
      {"Array",
       [](Call& c) {
         const auto dims = c.dims();
         const auto dtype = c.dtype_for(dims.it);
         c.say("cr::Array({}, {})", dtype, dims);
         c.keep(Array(dtype.it, dims.it));
       }},
      {"Array::full",
       [](Call& c) {
         const auto dims = c.dims();
         const auto dtype = c.dtype_for(dims.it);
         const auto number = c.number();
         c.say("cr::Array::full({}, {}, {})", dtype, dims, number);
         c.keep(Array::full(dtype.it, dims.it, number.it));
       }},
      {"element",
       [](Call& c) {
         const auto a = c.array();
         const auto i = c.whole(0, 3);
         const auto k = c.whole(0, 3);
         c.say("{0}[{1}]; {0}({1}, {2}); {0}.item()", a, i, k);
         switch (c.random.below(3)) {
           case 0: static_cast<void>(a.it[i.it]); break;
           case 1: static_cast<void>(a.it(i.it, k.it)); break;
           default: static_cast<void>(a.it.item());
         }
       }},
      {"set of an element",
       [](Call& c) {
         if (c.world.arrays.empty()) return;
         const std::size_t a = c.random.below(c.world.arrays.size());
         const auto i = c.whole(0, 3);
         const auto x = c.number();
         c.say("a{}.set({}, {})", a, i, x);
         c.world.arrays[a].set(i.it, x.it);
       }},
      {"astype",
       [](Call& c) {
         const auto a = c.array();
         const auto dtype = c.dtype();
         c.say("{}.astype({})", a, dtype);
         c.keep(a.it.astype(dtype.it));
       }},
      {"reshape of an array",
       [](Call& c) {
         const auto a = c.array();
         const auto dims = c.dims();
         c.say("{}.reshape({})", a, dims);
         c.keep(a.it.reshape(dims.it));
       }},
      {"transpose of an array",
       [](Call& c) {
         const auto a = c.array();
         c.say("{}.transpose()", a);
         c.keep(a.it.transpose());
       }},
      {"array arithmetic",
       [](Call& c) {
         const auto a = c.array();
         const auto b = c.array();
         const auto kind = c.random.below(4);
         c.say("{} {} {}", a, "+-*/"[kind], b);
         c.keep(kind == 0 ? a.it + b.it : kind == 1 ? a.it - b.it : kind == 2 ? a.it * b.it : a.it / b.it);
       }},
      {"move of an array",
       [](Call& c) {
         if (c.world.arrays.empty() || !c.random.chance(0.2)) return;
         const std::size_t a = c.random.below(c.world.arrays.size());
         c.say("cr::Array a{}(std::move(a{}))", c.world.arrays.size(), a);
         c.keep(Array(std::move(c.world.arrays[a])));
       }},
      {"data of an array",
       [](Call& c) {
         const auto a = c.array();
         c.say("{0}.data<double>(); {0}.to_string()", a);
         static_cast<void>(a.it.to_string());
         static_cast<void>(a.it.data<double>());
       }},
      {"set_num_threads",
       [](Call& c) {
         const auto n = c.whole(1, 3);
         c.say("cr::set_num_threads({})", n);
         if (n.it <= std::numeric_limits<int>::max() && n.it >= std::numeric_limits<int>::min())
           set_num_threads(static_cast<int>(n.it));
       }},
  };
  return all;
}

}  // namespace chainrule::fuzz
