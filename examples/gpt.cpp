// A transformer that writes: 4 layers, 4 heads, 128 wide, of 64 characters or byte pairs; gpt_sample reads its file.
// needs: bible-kjv
#include <chainrule/chainrule.hpp>

#include <cstdio>
#include <exception>
#include <numbers>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "gpt.hpp"
#include "text.hpp"

namespace cr = chainrule;

namespace {

struct Settings {
  std::string text;
  std::int64_t vocabulary = 0;
  std::int64_t epochs = 1;
  int threads = cr::num_threads();
  bool quick = false;
  std::string file;
  std::string prompt = "\n";
  std::int64_t seed = 1;
};

constexpr std::int64_t batch_size = 12;

void run(const Settings& settings) {
  cr::set_num_threads(settings.threads);
  const std::string text = text::read(settings.text).substr(0, settings.quick ? 40'000 : std::string::npos);
  const auto tokenizer = settings.vocabulary > 0 ? cr::data::Tokenizer::byte_pairs(text, settings.vocabulary)
                                                 : cr::data::Tokenizer::characters(text);
  const std::size_t end = text.size() / 20 * 19;  // of what is learned from
  const auto windows = [&](const std::string& part) {
    return cr::data::windows(tokenizer.encode(part), gpt::context, gpt::context);
  };
  const auto learned = windows(text.substr(0, end));
  const auto held_out = windows(text.substr(end));
  const std::int64_t steps = settings.epochs * ((learned.size() + batch_size - 1) / batch_size);

  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto rows = graph.dimension("rows");
  const auto x = graph.input("x", {rows, gpt::context}, cr::int64);
  const auto y = graph.input("y", {rows, gpt::context}, cr::int64);
  const auto logits = gpt::network(x, tokenizer.size());
  const auto loss = cr::softmax_cross_entropy(logits, y);

  cr::State state(graph);
  const cr::optim::Adam adam_w{
      .learning_rate = cr::optim::one_cycle({.highest = 2e-3, .length = static_cast<double>(steps), .rise = 0.05}),
      .beta2 = 0.99,
      .weight_decay = 0.1,
      .groups = {{{"*/bias", "*/gamma", "*/beta", "*/table"}, {.weight_decay = 0}}}};
  cr::Program train(state, {.outputs = {loss}, .updates = adam_w.minimize(loss)});
  cr::Program test(state, {.outputs = {loss}, .mode = cr::Mode::inference});
  cr::Program predict(state, {.outputs = {logits}, .mode = cr::Mode::inference});

  // Costs are nats a token; of a text of so many characters they become bits a character.
  const auto bits = [](double cost, const cr::data::Dataset& data, std::size_t characters) {
    return cost / std::numbers::ln2 * static_cast<double>(data.y.size()) / static_cast<double>(characters);
  };
  fmt::print("{} characters, {} tokens of {} kinds, {} steps\n", text.size(), learned.y.size() + held_out.y.size(),
             tokenizer.size(), steps);
  cr::fit(train, learned,
          {.inputs = {x, y},
           .batch = batch_size,
           .epochs = settings.epochs,
           .progress = true,
           .after_epoch = [&](const cr::EpochReport& report) {
             double cost = 0;
             for (const auto& batch : cr::data::batches(held_out, batch_size))
               cost += test.run({{x, batch.x}, {y, batch.y}}).scalar() * static_cast<double>(batch.size());
             cost /= static_cast<double>(held_out.size());
             fmt::print("epoch {}: {:.3f} bits per character in training, {:.3f} on held-out text\n", report.epoch + 1,
                        bits(report.cost, learned, end), bits(cost, held_out, text.size() - end));
             std::fflush(stdout);
           }});
  if (!settings.file.empty()) {
    state.save(settings.file + ".safetensors");
    tokenizer.save(settings.file + ".tokens");
  }
  fmt::print("{}\n", gpt::write(predict, x, tokenizer, settings.prompt, settings.quick ? 100 : 500, {}, settings.seed));
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("A transformer of 4 layers, 4 heads and 128 features that writes on, by 64 tokens before.");
  app.add_option("--text", settings.text, "a file; without one the King James Bible of Debian's package bible-kjv");
  app.add_option("--vocabulary", settings.vocabulary, "so many byte pairs; without it tokens are characters")
      ->check(CLI::Range(256, 65536));
  app.add_option("--epochs", settings.epochs, "times that the text is read")->check(CLI::PositiveNumber);
  app.add_option("--threads", settings.threads, "results do not depend on it")->capture_default_str();
  app.add_flag("--quick", settings.quick, "only the first 40,000 characters");
  app.add_option("--save", settings.file, "NAME: write NAME.safetensors and NAME.tokens for gpt_sample");
  app.add_option("--prompt", settings.prompt, "what the sample begins with");
  app.add_option("--seed", settings.seed, "of the sample")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
