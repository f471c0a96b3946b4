#include "print.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

namespace chainrule::fuzz {

namespace {

// recipe.cpp's numbers(), as a program of the public API has it.
constexpr const char* prelude = R"(#include <chainrule/chainrule.hpp>
#include <cmath>
#include <fmt/core.h>

namespace cr = chainrule;

cr::Array numbers(cr::DType dtype, cr::Dims shape, double low, double high, int seed, bool coarse, bool special = false) {
  const double specials[] = {-0.0, INFINITY, 1e30, -INFINITY, NAN, -1e-30, 0.0};
  cr::Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) {
    const double turns = 0.61803398875 * static_cast<double>(i + 1) + 0.41421356237 * seed;
    const double x = low + (high - low) * (turns - std::floor(turns));
    out.set(i, dtype == cr::boolean        ? (x > 0)
               : cr::is_integer(dtype) ? std::floor(x)
               : special && i % 3 == 1 ? specials[(i / 3 + seed) % 7]
               : coarse                ? std::floor(8 * x) / 8
                                       : x);
  }
  return out;
}

)";

std::string print(double x) {
  if (std::isnan(x)) return "std::nan(\"\")";
  if (std::isinf(x)) return x > 0 ? "INFINITY" : "-INFINITY";
  const std::string text = fmt::format("{}", x);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string print(DType dtype) { return dtype == boolean ? "cr::boolean" : fmt::format("cr::{}", name(dtype)); }

std::string print(const Attribute& attribute) {
  struct Printer {
    std::string operator()(bool v) const { return v ? "true" : "false"; }
    std::string operator()(std::int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return print(v); }
    std::string operator()(DType v) const { return print(v); }
    std::string operator()(const std::string& v) const { return '"' + v + '"'; }
    std::string operator()(const Axes& v) const {
      std::string out;
      for (const auto axis : v) out += fmt::format("{}{}", out.empty() ? "" : ", ", axis);
      return "cr::Axes{" + out + "}";
    }
    std::string operator()(const Shape& v) const { return "cr::Shape" + to_string(v); }
  };
  return std::visit(Printer{}, attribute.variant());
}

std::string print(const Attributes& attributes) {
  std::string out;
  for (const std::string& name : names_of(attributes))
    out += fmt::format("{}{{\"{}\", {}}}", out.empty() ? "" : ", ", name, print(*attributes.find(name)));
  return "{" + out + "}";
}

std::string print_numbers(const Step& step, const std::string& dims) {
  return fmt::format("numbers({}, {}, {}, {}, {}, {}{})", print(step.dtype), dims, print(step.fill.low),
                     print(step.fill.high), step.fill.seed, step.fill.coarse, step.fill.special ? ", true" : "");
}

std::string names(const Recipe& recipe, const std::vector<std::size_t>& steps) {
  std::string out;
  for (const std::size_t i : steps) out += (out.empty() ? "" : ", ") + name_of(recipe, i);
  return "{" + out + "}";
}

std::string print_step(const Recipe& recipe, std::size_t i) {
  const Step& step = recipe.steps[i];
  const std::string name = name_of(recipe, i);
  const std::string shape = to_string(step.shape);
  switch (step.kind) {
    case Step::Kind::input: return fmt::format("graph.input(\"{}\", {}, {})", name, shape, print(step.dtype));
    case Step::Kind::parameter: return fmt::format("graph.parameter(\"{}\", {})", name, print_numbers(step, shape));
    case Step::Kind::variable:
      return fmt::format("graph.variable(\"{}\", {}, {})", name, print_numbers(step, shape), print(step.dtype));
    case Step::Kind::constant: return fmt::format("graph.constant({})", print_numbers(step, shape));
    case Step::Kind::number: return fmt::format("graph.constant({}, {})", print(step.value), print(step.dtype));
    case Step::Kind::step: return "graph.step()";
    case Step::Kind::epoch: return "graph.epoch()";
    case Step::Kind::op:
      return fmt::format("cr::apply(graph, *cr::find_op(\"{}\"), {}, {})", step.op->name, names(recipe, step.inputs),
                         print(step.attributes));
    case Step::Kind::output: return fmt::format("{}.node().output({})", name_of(recipe, step.inputs[0]), step.output);
    case Step::Kind::gradient: break;
  }
  return fmt::format("cr::gradients({}, {{{}}}{})[0]", name_of(recipe, step.inputs[0]), name_of(recipe, step.inputs[1]),
                     step.inputs.size() > 2 ? ", " + name_of(recipe, step.inputs[2]) : "");
}

}  // namespace

std::string to_cpp(const Recipe& recipe) {
  std::string out = prelude;
  out += fmt::format("int main() {{\n  cr::Graph graph({{.dtype = {}, .seed = {}}});\n", print(recipe.options.dtype),
                     recipe.options.seed);
  for (const auto& [name, size] : recipe.sizes[0])
    out += fmt::format("  [[maybe_unused]] const cr::Dimension {0} = graph.dimension(\"{0}\");\n", name);
  for (std::size_t i = 0; i < recipe.steps.size(); ++i) {
    const auto kind = recipe.steps[i].kind;
    const bool again = (kind == Step::Kind::step || kind == Step::Kind::epoch) &&
                       std::any_of(recipe.steps.begin(), recipe.steps.begin() + static_cast<std::ptrdiff_t>(i),
                                   [&](const Step& s) { return s.kind == kind; });
    if (!again) out += fmt::format("  const cr::Value {} = {};\n", name_of(recipe, i), print_step(recipe, i));
  }
  std::string updates;
  for (const auto& [variable, expression] : recipe.updates)
    updates += fmt::format("{}{{{}, {}}}", updates.empty() ? "" : ", ", name_of(recipe, variable),
                           name_of(recipe, expression));
  for (const auto& [owner, variable, expression] : recipe.attached)
    out += fmt::format("  graph.update_with({}, {}, {});\n", name_of(recipe, owner), name_of(recipe, variable),
                       name_of(recipe, expression));
  out += "\n  cr::State state(graph);\n";
  out += fmt::format("  cr::Program program(state, {{.outputs = {}", names(recipe, recipe.outputs));
  if (!updates.empty()) out += fmt::format(", .updates = {{{}}}", updates);
  if (recipe.mode == Mode::inference) out += ", .mode = cr::Mode::inference";
  out += "});\n";
  if (recipe.limit > 0)
    out += fmt::format("  // Again with .memory_limit = {} * program.memory().arena_bytes, after these runs.\n",
                       recipe.limit);
  for (const SizeSet& set : recipe.sizes) {
    const Sizes sizes = sizes_of(set);
    std::string feeds;
    for (std::size_t i = 0; i < recipe.steps.size(); ++i)
      if (recipe.steps[i].kind == Step::Kind::input)
        feeds +=
            fmt::format("{}{{{}, {}}}", feeds.empty() ? "" : ", ", name_of(recipe, i),
                        print_numbers(recipe.steps[i], to_string(chainrule::evaluate(recipe.steps[i].shape, sizes))));
    out += fmt::format("  {{\n    const auto results = program.run({{{}}});\n", feeds);
    out +=
        "    for (std::size_t i = 0; i < results.size(); ++i) fmt::print(\"{}\\n\", results[i].to_string(17));\n  }\n";
  }
  if (recipe.as_built) out += "  // Again with .optimize = false.\n";
  if (recipe.check_finite) out += "  // Again with .check_finite = true.\n";
  if (recipe.check_gradients) out += "  // cr::check_gradients() of the first output in all floating leaves.\n";
  return out + "}\n";
}

}  // namespace chainrule::fuzz
