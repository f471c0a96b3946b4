// An LSTM that reads a text letter by letter: bits per character beside the text's trigram entropy, and samples.
// needs: bible-kjv
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <exception>
#include <map>
#include <numbers>
#include <string>
#include <string_view>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include "text.hpp"

namespace cr = chainrule;

namespace {

struct Settings {
  std::string text;
  std::int64_t units = 256;
  std::int64_t epochs = 1;
  int threads = cr::num_threads();
  bool quick = false;
};

constexpr std::int64_t rows = 32, places = 64;  // of the text that are read side by side; that a gradient goes back

// Bits per character of who knows how often each character follows each two: the entropy of the text's third
// characters, given the two before them.
double trigram_entropy(std::string_view text) {
  std::map<std::string_view, double> twos;
  std::map<std::string_view, double> threes;
  for (std::size_t i = 2; i < text.size(); ++i) {
    ++twos[text.substr(i - 2, 2)];
    ++threes[text.substr(i - 2, 3)];
  }
  double bits = 0;
  for (const auto& [three, count] : threes) bits -= count * std::log2(count / twos[three.substr(0, 2)]);
  return bits / static_cast<double>(text.size() - 2);
}

// The text in `rows` rows that go on side by side: a batch is the next columns of them all, axis 1.
cr::data::Dataset side_by_side(const cr::Array& tokens) {
  const std::int64_t length = (tokens.size() - 1) / rows / places * places;
  auto out = cr::data::windows(tokens, length, length);
  out.axis = 1;
  return out;
}

void run(const Settings& settings) {
  cr::set_num_threads(settings.threads);
  const std::string text = text::read(settings.text).substr(0, settings.quick ? 100'000 : std::string::npos);
  const auto tokenizer = cr::data::Tokenizer::characters(text);
  const std::size_t end = text.size() / 20 * 19;  // of what is learned from
  const auto learned = side_by_side(tokenizer.encode(text.substr(0, end)));
  const auto held_out = side_by_side(tokenizer.encode(text.substr(end)));
  const std::int64_t steps = settings.epochs * cr::data::batches(learned, places).size();

  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto batch = graph.dimension("rows");
  const auto x = graph.input("x", {batch, places}, cr::int64);
  const auto y = graph.input("y", {batch, places}, cr::int64);
  const auto hidden = graph.input("hidden", {batch, settings.units});  // the state before the first step
  const auto cell = graph.input("cell", {batch, settings.units});
  const auto letters = cr::nn::embedding(x, tokenizer.size(), 64);
  const auto lstm = cr::nn::lstm(letters, settings.units, {.hidden = {hidden}, .cell = {cell}, .forget_bias = 1});
  const auto logits = cr::nn::dense(lstm, tokenizer.size());
  const auto loss = cr::softmax_cross_entropy(logits, y);

  // The same of one character.
  const auto one = graph.input("one", {batch, 1}, cr::int64);
  const auto step = cr::lstm(cr::embedding(letters.table, one), lstm.weights[0], {.hidden = hidden, .cell = cell});
  const auto next = cr::matmul(step.output, logits.weight) + logits.bias;

  cr::State state(graph);
  const auto rate = cr::optim::one_cycle({.highest = 4e-3, .length = static_cast<double>(steps), .rise = 0.05});
  cr::Program train(state, {.outputs = {loss, lstm.hidden[0], lstm.cell[0]},
                            .updates = cr::optim::Adam{.learning_rate = rate}.minimize(loss)});
  cr::Program test(state, {.outputs = {loss, lstm.hidden[0], lstm.cell[0]}});
  cr::Program sample(state, {.outputs = {next, step.hidden, step.cell}});

  // Reads a text from its beginning on, each batch from the states after the one before: bits per character.
  const cr::Interrupt interrupt;
  cr::Progress progress("char_rnn", steps);
  std::int64_t done = 0;
  const auto read = [&](cr::Program& program, const cr::data::Dataset& data) {
    const cr::Array zeros(cr::float32, {data.x.shape()[0], settings.units});
    const cr::Array* h = &zeros;
    const cr::Array* c = &zeros;
    double bits = 0;
    for (const auto& columns : cr::data::batches(data, places)) {
      const auto results = program.run({{x, columns.x}, {y, columns.y}, {hidden, *h}, {cell, *c}});
      h = &results[1];
      c = &results[2];
      bits += results.scalar() / std::numbers::ln2;
      if (!program.has_updates()) continue;
      progress.update(++done);
      if (interrupt.requested()) break;
    }
    return bits / static_cast<double>(cr::data::batches(data, places).size());
  };
  fmt::print("{} characters; trigram entropy {:.3f} bits per character\n", text.size(), trigram_entropy(text));
  for (std::int64_t epoch = 1; epoch <= settings.epochs && !interrupt.requested(); ++epoch) {
    const double bits = read(train, learned);
    progress.clear();
    fmt::print("epoch {}: {:.3f} bits per character in training, {:.3f} on held-out text\n", epoch, bits,
               read(test, held_out));
  }

  cr::numpy::RandomState rng(1);
  std::string sampled = "\n";
  cr::Array h(cr::float32, {1, settings.units});
  for (cr::Array c = h; sampled.size() < 500;) {
    const auto last = tokenizer.encode(sampled.substr(sampled.size() - 1)).reshape({1, 1});
    const auto results = sample.run({{one, last}, {hidden, h}, {cell, c}});
    sampled += tokenizer.bytes(text::draw(results[0], 0, {}, rng));
    h = results[1];
    c = results[2];
  }
  fmt::print("{}\n", sampled);
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("An LSTM that reads a text letter by letter.");
  app.add_option("--text", settings.text, "a file; without one the King James Bible of Debian's package bible-kjv");
  app.add_option("--units", settings.units, "of the LSTM")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--epochs", settings.epochs, "times that the text is read")->check(CLI::PositiveNumber);
  app.add_option("--threads", settings.threads, "results do not depend on it")->capture_default_str();
  app.add_flag_callback(
      "--quick",
      [&settings] {
        settings.quick = true;
        settings.units = 128;
      },
      "only the first 100,000 characters, and 128 units");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
