// What gpt and gpt_sample share: the network, and how it goes on with a text.
#pragma once

#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "text.hpp"

namespace gpt {

namespace cr = chainrule;

constexpr std::int64_t context = 64;
constexpr int layers = 4;
constexpr std::size_t heads = 4;
constexpr std::size_t width = 128;

// Tokens {rows, context} -> the logits {rows, context, vocabulary} of what follows each of them (Vaswani et al. 2017,
// with the norms where GPT-2 has them).
inline cr::Value network(cr::Value tokens, std::int64_t vocabulary) {
  const auto small = cr::init::normal(0.02);
  cr::Value h =
      cr::nn::learned_positions(cr::nn::embedding(tokens, vocabulary, width, {.initializer = small}), context);
  for (int layer = 0; layer < layers; ++layer)
    h = cr::nn::transformer_block(h, heads, {.attention = {.causal = true}, .initializer = small});
  return cr::nn::dense(cr::nn::layer_norm(h), vocabulary, {.initializer = small, .bias = false});
}

// The prompt and so many tokens that follow it, each drawn by what a program with the logits of x for its first output
// says of the last `context` tokens. Behind the last of them stands anything: no place sees those behind it.
inline std::string write(cr::Program& program, cr::Value x, const cr::data::Tokenizer& tokenizer,
                         const std::string& prompt, std::int64_t count, const text::Sampling& sampling,
                         std::int64_t seed) {
  if (prompt.empty()) throw std::runtime_error("an empty prompt: there is nothing to follow");
  cr::numpy::RandomState rng(seed);
  std::vector<std::int64_t> tokens;
  const cr::Array begin = tokenizer.encode(prompt);
  for (std::int64_t i = 0; i < begin.size(); ++i) tokens.push_back(begin.at<std::int64_t>(i));
  for (; count > 0; --count) {
    const auto seen = std::min<std::int64_t>(std::ssize(tokens), context);
    cr::Array row(cr::int64, {1, context});
    std::copy_n(tokens.end() - seen, seen, row.data<std::int64_t>());
    const auto results = program.run({{x, row}});
    tokens.push_back(text::draw(results[0], seen - 1, sampling, rng));
  }
  return tokenizer.decode(cr::Array::from(tokens.data(), {std::ssize(tokens)}));
}

}  // namespace gpt
