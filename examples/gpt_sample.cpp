// Writes with what gpt has learned and saved: a second program that reads its parameters and its tokenizer.
#include <chainrule/chainrule.hpp>

#include <exception>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "gpt.hpp"
#include "text.hpp"

namespace cr = chainrule;

namespace {

struct Settings {
  std::string file;
  std::string prompt = "\n";
  std::int64_t count = 500;
  text::Sampling sampling;
  std::int64_t seed = 1;
};

void run(const Settings& settings) {
  const auto tokenizer = cr::data::Tokenizer::load(settings.file + ".tokens");
  cr::Graph graph({.dtype = cr::float32});
  const auto x = graph.input("x", {1, gpt::context}, cr::int64);
  const auto logits = gpt::network(x, tokenizer.size());
  cr::State state(graph);
  state.load(settings.file + ".safetensors", {.ignore_unknown = true});  // the optimizer's averages
  cr::Program predict(state, {.outputs = {logits}, .mode = cr::Mode::inference});
  fmt::print("{}\n",
             gpt::write(predict, x, tokenizer, settings.prompt, settings.count, settings.sampling, settings.seed));
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Writes with what the example gpt has learned.");
  app.add_option("name", settings.file, "what gpt --save was given")->required();
  app.add_option("--prompt", settings.prompt, "what it begins with");
  app.add_option("--count", settings.count, "tokens to write")->check(CLI::NonNegativeNumber)->capture_default_str();
  app.add_option("--temperature", settings.sampling.temperature, "below 1 the likely becomes likelier")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--top-k", settings.sampling.top_k, "draw from the likeliest so many tokens; 0: from all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", settings.seed, "of the random numbers")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
