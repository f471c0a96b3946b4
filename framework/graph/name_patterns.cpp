#include <chainrule/framework/graph/name_patterns.hpp>

#include <algorithm>
#include <numeric>

#include <fmt/core.h>
#include <fmt/ranges.h>

namespace chainrule {

namespace {

constexpr std::size_t most_near_names = 3;

// How many characters of the name must be put in, taken out or replaced for it to match: 0 where it does.
// (Levenshtein's distance, where '*' puts in what it likes.)
std::size_t distance(std::string_view pattern, std::string_view name) {
  std::vector<std::size_t> above(name.size() + 1);  // of the pattern so far, to the beginnings of the name
  std::iota(above.begin(), above.end(), std::size_t{0});
  std::vector<std::size_t> row(name.size() + 1);
  for (const char wanted : pattern) {
    const bool any = wanted == '*';
    row[0] = above[0] + (any ? 0 : 1);
    for (std::size_t i = 0; i < name.size(); ++i) {
      const std::size_t replaced = above[i] + (wanted == '?' || wanted == name[i] ? 0 : 1);
      row[i + 1] = any ? std::min(above[i + 1], row[i]) : std::min({replaced, above[i + 1] + 1, row[i] + 1});
    }
    std::swap(above, row);
  }
  return above.back();
}

bool takes_away(std::string_view pattern) { return pattern.starts_with('!'); }

std::string_view names_of(std::string_view pattern) {
  if (takes_away(pattern)) pattern.remove_prefix(1);
  return pattern;
}

std::vector<std::string> nearest(std::string_view pattern, const std::vector<std::string>& names) {
  std::vector<std::pair<std::size_t, std::size_t>> by_distance;
  for (std::size_t i = 0; i < names.size(); ++i) by_distance.emplace_back(distance(pattern, names[i]), i);
  std::sort(by_distance.begin(), by_distance.end());
  std::vector<std::string> out;
  for (std::size_t i = 0; i < std::min(most_near_names, names.size()); ++i) out.push_back(names[by_distance[i].second]);
  return out;
}

}  // namespace

bool NamePatterns::match(std::string_view name) const {
  bool chosen = false;
  for (const std::string& pattern : patterns_)
    if (chosen == takes_away(pattern) && distance(names_of(pattern), name) == 0) chosen = !chosen;
  return chosen;
}

void NamePatterns::require_matches(const std::vector<std::string>& names, std::string_view op, Location at) const {
  if (patterns_.empty()) throw Error(at, op, "requires a pattern of names, got none");
  for (const std::string& pattern : patterns_) {
    const std::string_view wanted = names_of(pattern);
    if (std::any_of(names.begin(), names.end(), [&](const std::string& name) { return distance(wanted, name) == 0; }))
      continue;
    const std::vector<std::string> near = nearest(wanted, names);
    throw Error(
        at, op,
        fmt::format("requires a pattern that a parameter's name matches, got '{}'; {}", pattern,
                    near.empty() ? "there are no parameters" : fmt::format("the nearest: {}", fmt::join(near, ", "))));
  }
}

}  // namespace chainrule
