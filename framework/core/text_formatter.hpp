// What fmt::formatter of a type that has a to_string() is made of.
#pragma once

#include <string_view>

#include <fmt/core.h>

namespace chainrule::detail {

// Not derived from a formatter of fmt's, whose definition would need its heavy header.
struct TextFormatter {
  static constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }
  static auto write(std::string_view text, fmt::format_context& context) {
    auto out = context.out();
    for (const char c : text) *out++ = c;
    return out;
  }
};

}  // namespace chainrule::detail
