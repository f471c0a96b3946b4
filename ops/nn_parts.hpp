// What the files of layers have in common. Not installed.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/ops/nn.hpp>

namespace chainrule::nn {

[[noreturn]] inline void refuse(std::string_view layer, Location at, std::string_view required, std::string_view got) {
  throw Error(detail::scoped(at), layer, fmt::format("requires {}, got {}", required, got));
}

inline void require_value(Value x, std::string_view layer, Location at) {
  if (!x.defined()) refuse(layer, at, "values of a graph", "an empty Value");
}

// As many numbers as x has along an axis.
inline std::int64_t number_of(std::string_view what, Value x, std::size_t axis, std::string_view layer, Location at) {
  const Dimension extent = x.shape()[axis];
  if (!extent.is_number())
    refuse(layer, at, fmt::format("a number of {}", what),
           fmt::format("{} in {}", extent.to_string(), to_string(x.shape())));
  return extent.extent();
}

// The scope of a layer: of its name, or of its kind's where none of its parameters, of which `first` is one, is in use.
inline NameScope layer_scope(Graph& graph, const std::string& name, std::string_view kind, std::string_view first,
                             Location at) {
  return graph.scope(name.empty() ? graph.unique_name(kind, fmt::format("/{}", first)) : name, at);
}

// Whether the graph has a name that begins with this one and a '/'.
inline bool has_inside(const detail::GraphData& graph, std::string_view path) {
  const auto& variables = graph.leaves->variables;
  return std::any_of(variables.begin(), variables.end(), [path](const detail::VariableInfo& variable) {
    const std::string_view name = variable.name;
    return name.size() > path.size() && name.starts_with(path) && name[path.size()] == '/';
  });
}

// A scope for whatever is named there: of this name, or of the kind's where nothing is named in it yet.
inline NameScope network_scope(Graph& graph, const std::string& name, std::string_view kind, Location at) {
  if (!name.empty()) return graph.scope(name, at);
  std::string free(kind);
  for (int i = 2; has_inside(*graph.data(), graph.data()->scopes.inside(free)); ++i)
    free = fmt::format("{}_{}", kind, i);
  return graph.scope(free, at);
}

}  // namespace chainrule::nn
