// Whether an op's kernel can be trusted at all, before its gradient is looked at. Not installed.
#pragma once

#include <string_view>
#include <vector>

#include <chainrule/framework/check/check_gradients.hpp>

namespace chainrule::check {

// Appends a row for each property of a sample: "repeatable", "reuse", "aliases", "sizes", "threads". Throws Error as
// the op does. Returns whether the kernel can be run at all: one that writes beside its output is not run again.
bool check_preconditions(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                         std::vector<CheckRow>& rows);

// The sample's inputs as values of a graph: floating ones as inputs, which are appended to `floating` with their
// numbers, others as constants. Floating numbers are ones that float32 has exactly, so that both dtypes are asked the
// same.
struct SampleGraph {
  Graph graph;
  Values inputs;
  Values floating;
  std::vector<Array> points;
  std::vector<std::string> names;
  Attributes attributes;
};
SampleGraph graph_of(const Sample& sample, DType dtype, const CheckOptions& options);

}  // namespace chainrule::check
