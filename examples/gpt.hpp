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
constexpr std::size_t layers = 4;
constexpr std::int64_t heads = 4;
constexpr std::int64_t width = 128;

// x {rows, places, width} and what it learns from the places before (Vaswani et al. 2017, with norms as in GPT-2).
inline cr::Value block(cr::Value x, std::int64_t of_heads) {
  const auto features = x.shape()[2].extent();
  const auto apart = [&](cr::Value v) {  // the heads
    return cr::swapaxes(cr::reshape(v, {x.shape()[0], x.shape()[1], of_heads, features / of_heads}), 1, 2);
  };
  const auto normal = cr::nn::layer_norm(x);
  const auto parts = cr::split(cr::nn::dense(normal, 3 * static_cast<std::size_t>(features)), 3, 2);
  const auto attended =
      cr::scaled_dot_product_attention(apart(parts[0]), apart(parts[1]), apart(parts[2]), {.causal = true});
  const auto h = x + cr::nn::dense(cr::reshape(cr::swapaxes(attended, 1, 2), x.shape()), features);
  const auto units = 4 * static_cast<std::size_t>(features);
  return h + cr::nn::dense(cr::gelu(cr::nn::dense(cr::nn::layer_norm(h), units)), features);
}

// Tokens {rows, context} -> the logits {rows, context, vocabulary} of what follows each of them.
inline cr::Value network(cr::Value x, std::int64_t vocabulary) {
  const auto normal = cr::init::normal(0.02);
  cr::Value h = cr::nn::embedding(x, vocabulary, width, {.initializer = normal}) +
                x.graph().parameter("positions", cr::normal({context, width}, 0, 0.02));
  for (std::size_t layer = 0; layer < layers; ++layer) h = block(h, heads);
  return cr::nn::dense(cr::nn::layer_norm(h), vocabulary, {.initializer = normal, .bias = false});
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
