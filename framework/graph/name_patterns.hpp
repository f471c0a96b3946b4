// Patterns of names, to choose parameters by.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/core/error.hpp>

namespace chainrule {

// One pattern or several, of whole names: '*' stands for any characters, none and '/' included, '?' for one. A pattern
// that begins with '!' takes those that match the rest away again from what the patterns before it chose:
// {"encoder/*", "!*/bias"}.
class NamePatterns {
 public:
  NamePatterns(const char* pattern) : patterns_{pattern} {}
  NamePatterns(std::string pattern) : patterns_{std::move(pattern)} {}
  NamePatterns(std::initializer_list<std::string> patterns) : patterns_(patterns) {}
  NamePatterns(std::vector<std::string> patterns) : patterns_(std::move(patterns)) {}

  [[nodiscard]] bool match(std::string_view name) const;
  // Throws Error where there is no pattern, or one that none of these names matches; it says which come nearest.
  void require_matches(const std::vector<std::string>& names, std::string_view op, Location at) const;
  [[nodiscard]] const std::vector<std::string>& patterns() const { return patterns_; }

 private:
  std::vector<std::string> patterns_;
};

}  // namespace chainrule
