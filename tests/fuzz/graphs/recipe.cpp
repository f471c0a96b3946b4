#include "recipe.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/autodiff/gradients.hpp>

namespace chainrule::fuzz {

// print.cpp has it as text: what it prints must feed the same numbers.
Array numbers(DType dtype, const Dims& shape, const Fill& fill) {
  constexpr double special[] = {-0.0, INFINITY, 1e30, -INFINITY, NAN, -1e-30, 0.0};
  Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) {
    const double turns = 0.61803398875 * static_cast<double>(i + 1) + 0.41421356237 * fill.seed;
    const double x = fill.low + (fill.high - fill.low) * (turns - std::floor(turns));
    out.set(i, dtype == boolean             ? (x > 0 ? 1.0 : 0.0)
               : is_integer(dtype)          ? std::floor(x)
               : fill.special && i % 3 == 1 ? special[(i / 3 + fill.seed) % 7]
               : fill.coarse                ? std::floor(8 * x) / 8
                                            : x);
  }
  return out;
}

std::string name_of(const Recipe& recipe, std::size_t step) {
  switch (recipe.steps[step].kind) {
    case Step::Kind::input: return fmt::format("x{}", step);
    case Step::Kind::parameter: return fmt::format("p{}", step);
    case Step::Kind::variable: return fmt::format("v{}", step);
    case Step::Kind::constant:
    case Step::Kind::number: return fmt::format("c{}", step);
    case Step::Kind::step: return "step";
    case Step::Kind::epoch: return "epoch";
    case Step::Kind::op: return fmt::format("y{}", step);
    case Step::Kind::output: return fmt::format("z{}", step);
    case Step::Kind::gradient: break;
  }
  return fmt::format("g{}", step);
}

Value build_step(Graph graph, const Values& before, const Recipe& recipe, std::size_t step) {
  const Step& s = recipe.steps[step];
  const auto given = [&] { return numbers(s.dtype, chainrule::evaluate(s.shape, Sizes{}), s.fill); };
  const std::string name = name_of(recipe, step);
  switch (s.kind) {
    case Step::Kind::input: return graph.input(name, s.shape, s.dtype);
    case Step::Kind::parameter: return graph.parameter(name, given());
    case Step::Kind::variable: return graph.variable(name, given(), s.dtype);
    case Step::Kind::constant: return graph.constant(given());
    case Step::Kind::number: return graph.constant(s.value, s.dtype);
    case Step::Kind::step: return graph.step();
    case Step::Kind::epoch: return graph.epoch();
    case Step::Kind::op: {
      Values inputs;
      for (const std::size_t i : s.inputs) inputs.push_back(before[i]);
      return apply(graph, *s.op, inputs, s.attributes);
    }
    case Step::Kind::output: return before[s.inputs[0]].node().output(s.output);
    case Step::Kind::gradient: break;
  }
  const Value y = before[s.inputs[0]];
  const Value x = before[s.inputs[1]];
  return s.inputs.size() > 2 ? gradients(y, {x}, before[s.inputs[2]])[0] : gradients(y, {x})[0];
}

Built build(const Recipe& recipe) {
  Built out{Graph(recipe.options), {}};
  for (std::size_t i = 0; i < recipe.steps.size(); ++i)
    out.values.push_back(build_step(out.graph, out.values, recipe, i));
  for (const auto& [owner, variable, expression] : recipe.attached)
    out.graph.update_with(out.values[owner], out.values[variable], out.values[expression]);
  return out;
}

Request request_of(const Recipe& recipe, const Built& built) {
  Request out;
  for (const std::size_t i : recipe.outputs) out.outputs.push_back(built.values[i]);
  for (const auto& [variable, expression] : recipe.updates)
    out.updates.push_back({built.values[variable], built.values[expression]});
  out.mode = recipe.mode;
  return out;
}

Sizes sizes_of(const SizeSet& set) {
  Sizes out;
  for (const auto& [name, size] : set) out.bind(Dimension::symbol(name).symbol_id(), size);
  return out;
}

std::vector<std::string> names_of(const Attributes& attributes) {
  std::vector<std::string> out;
  attributes.for_each([&](const std::string& name, const Attribute&) { out.push_back(name); });
  return out;
}

Attributes evaluate(const Attributes& attributes, const Sizes& sizes) {
  Attributes out = attributes;
  for (const std::string& name : names_of(attributes)) {
    const auto* shape = std::get_if<Shape>(&attributes.find(name)->variant());
    if (!shape) continue;
    Shape known;
    for (const Dimension d : *shape) known.push_back(d.is_inferred() ? d : Dimension(d.evaluate(sizes)));
    out = out.with(name, known);
  }
  return out;
}

Recipe without_dead_steps(const Recipe& recipe) {
  std::vector<char> needed(recipe.steps.size(), 0);
  for (const std::size_t i : recipe.outputs) needed[i] = 1;
  for (const auto& [variable, expression] : recipe.updates) needed[variable] = needed[expression] = 1;
  for (const auto& [owner, variable, expression] : recipe.attached)
    needed[owner] = needed[variable] = needed[expression] = 1;
  for (std::size_t i = recipe.steps.size(); i-- > 0;)
    if (needed[i])
      for (const std::size_t input : recipe.steps[i].inputs) needed[input] = 1;

  Recipe out = recipe;
  out.steps.clear();
  std::vector<std::size_t> place(recipe.steps.size(), 0);
  for (std::size_t i = 0; i < recipe.steps.size(); ++i) {
    if (!needed[i]) continue;
    place[i] = out.steps.size();
    out.steps.push_back(recipe.steps[i]);
    for (std::size_t& input : out.steps.back().inputs) input = place[input];
  }
  for (std::size_t& i : out.outputs) i = place[i];
  for (auto& [variable, expression] : out.updates) {
    variable = place[variable];
    expression = place[expression];
  }
  for (auto& [owner, variable, expression] : out.attached) {
    owner = place[owner];
    variable = place[variable];
    expression = place[expression];
  }
  return out;
}

}  // namespace chainrule::fuzz
