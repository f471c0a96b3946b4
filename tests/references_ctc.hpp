// Connectionist temporal classification by its definition: a sum over all ways to draw a class for each place.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace chainrule::test {

struct CtcExample {
  double cost = 0;
  std::vector<double> slope;  // of the logits, {places, classes}
};

// Repetitions merged, then blanks left out.
inline std::vector<std::int64_t> merged(const std::vector<std::int64_t>& way, std::int64_t blank) {
  std::vector<std::int64_t> out;
  for (std::size_t i = 0; i < way.size(); ++i)
    if (way[i] != blank && (i == 0 || way[i] != way[i - 1])) out.push_back(way[i]);
  return out;
}

inline CtcExample ctc_by_enumeration(const std::vector<double>& logits, std::int64_t classes,
                                     const std::vector<std::int64_t>& labels, std::int64_t blank) {
  const std::size_t places = logits.size() / static_cast<std::size_t>(classes);
  const auto at = [&](std::size_t place, std::int64_t c) {
    return place * static_cast<std::size_t>(classes) + static_cast<std::size_t>(c);
  };
  std::vector<double> p(logits.size());
  for (std::size_t t = 0; t < places; ++t) {
    double sum = 0;
    for (std::int64_t c = 0; c < classes; ++c) sum += std::exp(logits[at(t, c)]);
    for (std::int64_t c = 0; c < classes; ++c) p[at(t, c)] = std::exp(logits[at(t, c)]) / sum;
  }
  double total = 0;
  std::vector<double> with(logits.size());  // the probability of all alignments with this class at this place
  std::vector<std::int64_t> way(places, 0);
  for (bool more = true; more;) {
    if (merged(way, blank) == labels) {
      double probability = 1;
      for (std::size_t t = 0; t < places; ++t) probability *= p[at(t, way[t])];
      total += probability;
      for (std::size_t t = 0; t < places; ++t) with[at(t, way[t])] += probability;
    }
    more = false;
    for (std::size_t t = 0; t < places && !more; ++t) {
      more = ++way[t] < classes;
      if (!more) way[t] = 0;
    }
  }
  CtcExample out{-std::log(total), std::vector<double>(logits.size(), 0)};
  if (total == 0) return out;
  for (std::size_t i = 0; i < p.size(); ++i) out.slope[i] = p[i] - with[i] / total;
  return out;
}

}  // namespace chainrule::test
