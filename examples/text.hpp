// What the examples on text share: where the text comes from, and how what a network says becomes the next token.
#pragma once

#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace text {

namespace cr = chainrule;

// A file, or without a path the King James Bible, one verse a line, as Debian's program bible prints it.
inline std::string read(const std::string& path) {
  if (!path.empty()) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen("bible -f ge1:1-re22:21 2>/dev/null", "r"), pclose);
  std::string out;
  bool label = true;  // "Ge1:1 " before each verse
  for (int c = 0; pipe && (c = std::fgetc(pipe.get())) != EOF;) {
    if (!label) out += static_cast<char>(c);
    label = c == '\n' || (label && c != ' ');
  }
  if (out.empty()) throw std::runtime_error("no text: Debian's package bible-kjv has it, or --text names another");
  return out;
}

struct Sampling {
  double temperature = 0.8;  // the logits are divided by it: below 1 the likely becomes likelier
  std::int64_t top_k = 0;    // only the likeliest so many tokens are drawn; 0: all
};

// A token drawn by row number `row` of the logits {..., rows, tokens}.
inline std::int64_t draw(const cr::Array& logits, std::int64_t row, const Sampling& options,
                         cr::numpy::RandomState& rng) {
  const std::int64_t tokens = logits.shape()[logits.rank() - 1];
  const float* const z = logits.data<float>() + row * tokens;
  std::vector<float> sorted(z, z + tokens);
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const auto kept = static_cast<std::size_t>(options.top_k > 0 ? std::min(options.top_k, tokens) : tokens);
  std::vector<double> sums;
  for (std::int64_t i = 0; i < tokens; ++i) {
    const double p = z[i] < sorted[kept - 1] ? 0 : std::exp((z[i] - sorted[0]) / options.temperature);
    sums.push_back(p + (sums.empty() ? 0 : sums.back()));
  }
  return std::upper_bound(sums.begin(), sums.end(), rng.rand() * sums.back()) - sums.begin();
}

}  // namespace text
