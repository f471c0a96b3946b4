#include <chainrule/optim/optimizer_parts.hpp>

#include <cmath>
#include <unordered_set>
#include <vector>

#include <fmt/core.h>

#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

namespace chainrule::optim::parts {

Values parameters_below(Value loss, std::string_view optimizer, Location at) {
  if (!loss.defined()) throw Error(at, optimizer, "requires a loss, got an empty Value");
  const detail::GraphData& graph = *loss.data();
  std::vector<char> below(loss.id() + 1, 0);
  below[loss.id()] = 1;
  for (detail::NodeId id = loss.id() + 1; id-- > 0;)
    if (below[id])
      for (const detail::NodeId input : graph.node(id).inputs) below[input] = 1;
  Values out;
  for (const Value parameter : loss.graph().parameters())
    if (parameter.id() <= loss.id() && below[parameter.id()]) out.push_back(parameter);
  if (out.empty()) throw Error(at, optimizer, "requires a loss that depends on a parameter, got one that does not");
  return out;
}

void check(std::initializer_list<Option> options, std::string_view optimizer, Location at) {
  for (const Option& option : options)
    if (!(option.value >= 0 && option.value < option.below))
      throw Error(at, optimizer,
                  fmt::format("requires {} {} that is {}, got {}", option.name == "epsilon" ? "an" : "a", option.name,
                              std::isinf(option.below) ? "finite and not negative"
                                                       : fmt::format("0 or more and below {}", option.below),
                              option.value));
}

void check(const Values& parameters, const Values& gradients, std::string_view optimizer, Location at) {
  if (parameters.empty()) throw Error(at, optimizer, "requires at least one parameter, got none");
  if (parameters.size() != gradients.size())
    throw Error(at, optimizer,
                fmt::format("requires a gradient for each parameter, got {} gradients for {} parameters",
                            gradients.size(), parameters.size()));
  std::unordered_set<std::uint32_t> seen;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (!parameters[i].defined() || !gradients[i].defined())
      throw Error(at, optimizer, "requires values, got an empty Value");
    for (const Value v : {parameters[i], gradients[i]})
      if (v.data() != parameters[0].data())
        throw Error(at, optimizer, fmt::format("requires values of one graph, got {} of another", v.describe()));
    if (parameters[i].node().op().name != "variable")
      throw Error(at, optimizer, fmt::format("requires parameters or variables, got {}", parameters[i].describe()));
    if (!seen.insert(parameters[i].id()).second)
      throw Error(at, optimizer, fmt::format("requires each parameter once, got {} twice", parameters[i].name()));
    if (!(parameters[i].shape() == gradients[i].shape()))
      throw Error(at, optimizer,
                  fmt::format("requires a gradient of shape {} for '{}', got {}", to_string(parameters[i].shape()),
                              parameters[i].name(), to_string(gradients[i].shape())));
    if (parameters[i].dtype() != gradients[i].dtype())
      throw Error(at, optimizer,
                  fmt::format("requires a gradient of dtype {} for '{}', got {}", name(parameters[i].dtype()),
                              parameters[i].name(), name(gradients[i].dtype())));
  }
}

Value slot(Value parameter, std::string_view name, double begin) {
  Graph graph = parameter.graph();
  return graph.variable(graph.unique_name(fmt::format("{}/{}", parameter.name(), name)),
                        begin == 0 ? zeros(parameter.shape()) : full(parameter.shape(), begin), parameter.dtype());
}

Value slot(Value parameter, std::string_view name, const Shape& shape) {
  Graph graph = parameter.graph();
  return graph.variable(graph.unique_name(fmt::format("{}/{}", parameter.name(), name)), zeros(shape),
                        parameter.dtype());
}

Value count_variable(Graph graph, std::string_view name) {
  return graph.variable(graph.unique_name(name), Initial(Array(std::int64_t{0})));
}

Value moving_average(Updates& updates, Value parameter, std::string_view name, double beta, Value x) {
  const Value average = slot(parameter, name);
  const Value next = beta * average + (1 - beta) * x;
  updates.push_back({average, next});
  return next;
}

GroupOptions options_of(Value parameter, double weight_decay, const ParameterGroups& groups) {
  GroupOptions out{.rate = 1, .weight_decay = weight_decay};
  for (const ParameterGroup& group : groups) {
    if (!group.parameters.match(parameter.name())) continue;
    out.rate = group.options.rate;
    if (group.options.weight_decay) out.weight_decay = group.options.weight_decay;
    break;
  }
  return out;
}

void check(const ParameterGroups& groups, const Values& parameters, std::string_view optimizer, Location at) {
  if (groups.empty()) return;
  std::vector<std::string> names;
  for (const Value parameter : parameters[0].graph().parameters()) names.push_back(parameter.name());
  for (const Value parameter : parameters) names.push_back(parameter.name());  // variables among them
  for (const ParameterGroup& group : groups) {
    check({{"group's rate", group.options.rate}, {"weight_decay", group.options.weight_decay.value_or(0)}}, optimizer,
          at);
    group.parameters.require_matches(names, optimizer, at);
  }
}

Value bias(double beta, Value t, DType dtype) { return cast(-expm1(std::log(beta) * cast(t, float64)), dtype); }

Value Count::next(Graph graph) {
  if (!count_.defined()) {
    count_ = count_variable(graph, fmt::format("{}/t", optimizer_));
    next_ = count_ + 1;
  }
  return next_;
}

}  // namespace chainrule::optim::parts
