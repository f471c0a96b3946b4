// fmt::print("{}", ...) of the types that programs print: arrays, shapes, dtypes, values (their names), graphs (their
// listings). All have to_string(), of which these are made.
#pragma once

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/text_formatter.hpp>
#include <chainrule/framework/graph/graph.hpp>

template <>
struct fmt::formatter<chainrule::Array> : chainrule::detail::TextFormatter {
  static auto format(const chainrule::Array& array, fmt::format_context& context) {
    return write(array.to_string(), context);
  }
};

template <>
struct fmt::formatter<chainrule::Shape> : chainrule::detail::TextFormatter {
  static auto format(const chainrule::Shape& shape, fmt::format_context& context) {
    return write(chainrule::to_string(shape), context);
  }
};

template <>
struct fmt::formatter<chainrule::Dims> : chainrule::detail::TextFormatter {
  static auto format(const chainrule::Dims& dims, fmt::format_context& context) {
    return write(chainrule::to_string(dims), context);
  }
};

template <>
struct fmt::formatter<chainrule::DType> : chainrule::detail::TextFormatter {
  static auto format(chainrule::DType dtype, fmt::format_context& context) {
    return write(chainrule::name(dtype), context);
  }
};

template <>
struct fmt::formatter<chainrule::Value> : chainrule::detail::TextFormatter {
  static auto format(chainrule::Value value, fmt::format_context& context) { return write(value.name(), context); }
};

template <>
struct fmt::formatter<chainrule::Graph> : chainrule::detail::TextFormatter {
  static auto format(const chainrule::Graph& graph, fmt::format_context& context) {
    return write(graph.to_string(), context);
  }
};
