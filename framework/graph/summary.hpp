// What a network is made of: its layers with their shapes, parameters and multiply-adds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <chainrule/framework/core/shape.hpp>
#include <chainrule/framework/core/text_formatter.hpp>
#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

struct SummaryRow {
  std::string layer;            // "encoder/conv"
  Shape output;                 // what the rest of the network takes from it, of several the last
  std::int64_t parameters = 0;  // numbers that optimizers may train
  std::int64_t variables = 0;   // further numbers that the State keeps for it: running averages
  Dimension multiply_adds = 0;  // of a run forward, such as 3600 * batch
};

struct Summary {
  std::vector<SummaryRow> rows;  // in the order in which they were built
  // Of all rows.
  std::int64_t parameters = 0;
  std::int64_t variables = 0;
  Dimension multiply_adds = 0;
  // A table of these.
  [[nodiscard]] std::string to_string() const;
};

// A layer is a name scope in which there are parameters or products of its own: those of cr::nn are, and so are those
// of one's own that open one. A parameter that is made outside of scopes belongs to the layer of its name before the
// last
// '/', or is one itself where there is no '/'; a product outside of scopes to the layer of its first parameter, or to
// the layer "" where it has none. Multiply-adds are those of matrix products and convolutions, by their shapes, zeros
// of padding included. What gradients() and optimizers add to the graph is not counted.
Summary summary(const Graph& graph);

}  // namespace chainrule

template <>
struct fmt::formatter<chainrule::Summary> : chainrule::detail::TextFormatter {
  static auto format(const chainrule::Summary& summary, fmt::format_context& context) {
    return write(summary.to_string(), context);
  }
};
