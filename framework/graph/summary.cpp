#include <chainrule/framework/graph/summary.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <unordered_map>

#include <fmt/core.h>

#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule {

namespace {

using detail::GraphData;
using detail::no_node;
using detail::NodeData;
using detail::NodeId;

Dimension size_of(const Shape& shape) {
  Dimension out = 1;
  for (const Dimension extent : shape) out = out * extent;
  return out;
}

// How many multiplications, each with an addition, a node takes; none where it is no product.
std::optional<Dimension> multiply_adds(const GraphData& graph, const NodeData& node) {
  const std::string& op = node.op->name;
  const auto input = [&](std::size_t i) -> const Shape& { return graph.node(node.inputs[i]).type.shape; };
  // For each element of what a convolution makes, one for each weight of a feature.
  const auto taps = [](const Shape& w) {
    Dimension out = 1;
    for (std::size_t i = 1; i < w.rank(); ++i) out = out * w[i];
    return out;
  };
  if (op == "matmul") {
    const Shape& a = input(0);
    const bool transposed = a.rank() > 1 && node.attributes.get<bool>("transpose_a");
    return size_of(node.type.shape) * a[a.rank() - (transposed ? 2 : 1)];
  }
  if (op == "conv") return size_of(node.type.shape) * taps(input(1));
  if (op == "conv_input_gradient") return size_of(input(0)) * taps(input(1));
  if (op == "conv_weight_gradient") return size_of(input(1)) * taps(node.type.shape);
  return std::nullopt;
}

// Where a parameter that was made outside of scopes belongs.
std::string layer_of_name(const std::string& name) { return name.substr(0, std::min(name.rfind('/'), name.size())); }

class Counting {
 public:
  explicit Counting(const GraphData& graph) : graph_(graph), size_(static_cast<NodeId>(graph.nodes.size())) {}

  Summary counted() {
    for (const auto& variable : graph_.leaves->variables) {
      const std::string& path = graph_.scopes.path_of(variable.node);
      if (path.empty() && !variable.trained) continue;  // an optimizer's, or the step
      SummaryRow& row = row_of(path.empty() ? layer_of_name(variable.name) : path, variable.node);
      (variable.trained ? row.parameters : row.variables) += count(variable.initial.shape());
    }
    for (NodeId id = 0; id < size_; ++id) {
      if (!forward(id)) continue;
      const auto made = multiply_adds(graph_, graph_.node(id));
      if (!made) continue;
      const std::string layer = layer_of(id);
      SummaryRow& row = row_of(layer, id);
      row.multiply_adds = row.multiply_adds + *made;
      if (layer.empty()) rows_[index_.at(layer)].output = id;
    }
    find_outputs_of_scopes();
    find_outputs_of_parameters();
    Summary out;
    std::sort(rows_.begin(), rows_.end(), [](const Row& a, const Row& b) { return a.first < b.first; });
    for (Row& row : rows_) {
      if (row.output != no_node) row.row.output = graph_.node(row.output).type.shape;
      out.parameters += row.row.parameters;
      out.variables += row.row.variables;
      out.multiply_adds = out.multiply_adds + row.row.multiply_adds;
      out.rows.push_back(std::move(row.row));
    }
    return out;
  }

 private:
  struct Row {
    SummaryRow row;
    NodeId first = no_node;
    NodeId output = no_node;
    bool taken = false;  // the output, by what is not in the layer
  };

  SummaryRow& row_of(const std::string& layer, NodeId id) {
    const auto [entry, added] = index_.try_emplace(layer, rows_.size());
    if (added) rows_.push_back({.row = {.layer = layer}});
    Row& row = rows_[entry->second];
    row.first = std::min(row.first, id);
    return row.row;
  }

  // Computed, and neither a gradient nor an optimizer's.
  [[nodiscard]] bool forward(NodeId id) const {
    const NodeData& node = graph_.node(id);
    return !node.of_gradient && !node.inputs.empty() && !graph_.scopes.aside(id);
  }

  // That of the scope, or outside of scopes of the first parameter among the inputs, which may have been transposed,
  // reshaped or cast on its way.
  [[nodiscard]] std::string layer_of(NodeId id) const {
    if (const std::string& path = graph_.scopes.path_of(id); !path.empty()) return path;
    for (NodeId input : graph_.node(id).inputs) {
      while (graph_.node(input).inputs.size() == 1) input = graph_.node(input).inputs[0];
      const NodeData& node = graph_.node(input);
      if (node.op != &detail::variable_op() || !graph_.leaves->variables[node.payload].trained) continue;
      const std::string& path = graph_.scopes.path_of(input);
      return path.empty() ? layer_of_name(graph_.leaves->variables[node.payload].name) : path;
    }
    return {};
  }

  // Of a scope: the last value that something outside takes; where nothing does, the last that nothing takes at all.
  // (Not what becomes of a running average, and what leads to nothing else.)
  void find_outputs_of_scopes() {
    std::vector<char> wanted(size_, 0);  // by something forward
    std::vector<char> averaging(size_, 0);
    for (const auto& update : graph_.attached) averaging[update.expression] = 1;
    for (NodeId id = size_; id-- > 0;) {
      if (!forward(id)) continue;
      if (averaging[id] && !wanted[id]) {
        for (const NodeId input : graph_.node(id).inputs) averaging[input] = 1;
        continue;
      }
      const std::string& path = graph_.scopes.path_of(id);
      if (!wanted[id]) propose(path, id, false);
      for (const NodeId input : graph_.node(id).inputs) {
        wanted[input] = 1;
        if (!forward(input)) continue;
        if (const std::string& from = graph_.scopes.path_of(input); from != path) propose(from, input, true);
      }
    }
  }

  void propose(const std::string& path, NodeId id, bool taken) {
    const auto entry = index_.find(path);
    if (path.empty() || entry == index_.end()) return;
    Row& row = rows_[entry->second];
    if (row.output != no_node && (row.taken > taken || (row.taken == taken && row.output > id))) return;
    row.output = id;
    row.taken = taken;
  }

  // Of parameters outside of scopes: what the first op with other operands makes of them, the last of these.
  void find_outputs_of_parameters() {
    std::unordered_map<NodeId, NodeId> parameter_of;  // of the parameter, and of what is made of nothing else
    for (const auto& variable : graph_.leaves->variables)
      if (variable.trained && graph_.scopes.path_of(variable.node).empty())
        parameter_of.emplace(variable.node, variable.node);
    std::vector<char> used(size_, 0);
    for (NodeId id = 0; id < size_; ++id) {
      if (!forward(id)) continue;
      const auto& inputs = graph_.node(id).inputs;
      for (const NodeId input : inputs) {
        const auto parameter = parameter_of.find(input);
        if (parameter == parameter_of.end()) continue;
        if (inputs.size() == 1) {
          parameter_of.emplace(id, NodeId{parameter->second});
          break;
        }
        if (used[parameter->second]) continue;
        used[parameter->second] = 1;
        const auto& name = graph_.leaves->variables[graph_.node(parameter->second).payload].name;
        rows_[index_.at(layer_of_name(name))].output = id;
      }
    }
  }

  const GraphData& graph_;
  NodeId size_;
  std::vector<Row> rows_;
  std::unordered_map<std::string, std::size_t> index_;
};

// 1234567 -> 1,234,567, and so the numbers in "1234567 * batch2 + 1000", but not those in names.
std::string grouped(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const auto in_name = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
    std::size_t end = i;
    while (end < text.size() && in_name(text[end])) ++end;
    const bool number = end > i && std::all_of(text.begin() + static_cast<std::ptrdiff_t>(i),
                                               text.begin() + static_cast<std::ptrdiff_t>(end),
                                               [](char c) { return c >= '0' && c <= '9'; });
    if (end == i) ++end;
    for (; i < end; ++i) {
      out += text[i];
      if (number && i + 1 < end && (end - i - 1) % 3 == 0) out += ',';
    }
  }
  return out;
}

}  // namespace

std::string Summary::to_string() const {
  using Line = std::array<std::string, 5>;
  const auto numbers = [](Line line, std::int64_t trained, std::int64_t kept, Dimension products) {
    line[2] = grouped(std::to_string(trained));
    line[3] = grouped(std::to_string(kept));
    line[4] = grouped(products.to_string());
    return line;
  };
  std::vector<Line> lines = {{"layer", "output", "parameters", "variables", "multiply-adds"}};
  for (const SummaryRow& row : rows)
    lines.push_back(numbers({row.layer.empty() ? "(no layer)" : row.layer, chainrule::to_string(row.output)},
                            row.parameters, row.variables, row.multiply_adds));
  lines.push_back(numbers({"total", ""}, parameters, variables, multiply_adds));
  std::array<std::size_t, 5> widths{};
  for (const Line& line : lines)
    for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  std::string out;
  for (const Line& line : lines)
    out += fmt::format("{:<{}}  {:<{}}  {:>{}}  {:>{}}  {:>{}}\n", line[0], widths[0], line[1], widths[1], line[2],
                       widths[2], line[3], widths[3], line[4], widths[4]);
  return out;
}

Summary summary(const Graph& graph) { return Counting(*graph.data()).counted(); }

}  // namespace chainrule
