// An LSTM that reads a text letter by letter: bits per character beside the text's trigram entropy, and samples.
// needs: bible-kjv
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <cstdio>
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

constexpr std::int64_t rows = 32;    // places of the text that are read at the same time
constexpr std::int64_t places = 64;  // characters that a gradient goes back

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

struct Network {
  cr::Value hidden, cell;  // before the first step, {rows, units}
  cr::Value table;
  cr::RecurrentWeights weights;
  cr::Value out, bias;

  // The logits of what follows each of the tokens {rows, places}, and the states.
  [[nodiscard]] std::pair<cr::Value, cr::Sequence> operator()(cr::Value tokens) const {
    const auto read = cr::lstm(cr::embedding(table, tokens), weights, {.hidden = hidden, .cell = cell});
    return {cr::matmul(read.output, out) + bias, read};
  }
};

Network make_network(cr::Graph graph, std::int64_t tokens, std::int64_t units) {
  const auto batch = graph.dimension("rows");
  const double deviation = 1 / std::sqrt(static_cast<double>(units));
  cr::Array gates(cr::float32, {4 * units});
  for (std::int64_t i = units; i < 2 * units; ++i) gates.set(i, 1);  // forget gates begin open
  return {.hidden = graph.input("hidden", {batch, units}),
          .cell = graph.input("cell", {batch, units}),
          .table = graph.parameter("table", cr::normal({tokens, 64})),
          .weights = {.input = graph.parameter("input", cr::normal({64, 4 * units}, 0, 0.125)),
                      .hidden = graph.parameter("recurrent", cr::normal({units, 4 * units}, 0, deviation)),
                      .bias = graph.parameter("gates", gates)},
          .out = graph.parameter("out", cr::normal({units, tokens}, 0, deviation)),
          .bias = graph.parameter("bias", cr::zeros({tokens}))};
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
  const auto network = make_network(graph, tokenizer.size(), settings.units);
  const auto [logits, states] = network(x);
  const auto loss = cr::softmax_cross_entropy(logits, y);
  const auto one = graph.input("one", {batch, 1}, cr::int64);
  const auto [next, after] = network(one);

  cr::State state(graph);
  const cr::optim::Adam adam{.learning_rate = text::warmup_and_cosine(4e-3, steps)};
  cr::Program train(state, {.outputs = {loss, states.hidden, states.cell}, .updates = adam.minimize(loss)});
  cr::Program test(state, {.outputs = {loss, states.hidden, states.cell}});
  cr::Program sample(state, {.outputs = {next, after.hidden, after.cell}});

  // Reads a text from its beginning on, each batch from the states after the one before: bits per character.
  const cr::Interrupt interrupt;
  cr::Progress progress("char_rnn", steps);
  std::int64_t step = 0;
  const auto read = [&](cr::Program& program, const cr::data::Dataset& data) {
    const cr::Array zeros(cr::float32, {data.x.shape()[0], settings.units});
    const cr::Array* hidden = &zeros;
    const cr::Array* cell = &zeros;
    double sum = 0;
    std::int64_t count = 0;
    for (const auto& columns : cr::data::batches(data, places)) {
      if (interrupt.requested() && program.has_updates()) break;
      const auto results =
          program.run({{x, columns.x}, {y, columns.y}, {network.hidden, *hidden}, {network.cell, *cell}});
      hidden = &results[1];
      cell = &results[2];
      sum += results.scalar() / std::numbers::ln2;
      ++count;
      if (!program.has_updates()) continue;
      progress.update(++step, fmt::format("{:.3f} bits", results.scalar() / std::numbers::ln2));
    }
    return sum / static_cast<double>(count);
  };
  fmt::print("{} characters, {} different ones; trigram entropy {:.3f} bits per character\n", text.size(),
             tokenizer.size(), trigram_entropy(text));
  for (std::int64_t epoch = 0; epoch < settings.epochs && !interrupt.requested(); ++epoch) {
    const double bits = read(train, learned);
    progress.clear();
    fmt::print("epoch {}: {:.3f} bits per character in training, {:.3f} on held-out text\n", epoch + 1, bits,
               read(test, held_out));
  }

  cr::numpy::RandomState rng(1);
  std::string sampled = "\n";
  cr::Array hidden(cr::float32, {1, settings.units});
  cr::Array cell = hidden;
  while (sampled.size() < 500) {
    const auto token = tokenizer.encode(sampled.substr(sampled.size() - 1)).reshape({1, 1});
    const auto results = sample.run({{one, token}, {network.hidden, hidden}, {network.cell, cell}});
    hidden = results[1];
    cell = results[2];
    sampled += tokenizer.bytes(text::draw(results[0], 0, {}, rng));
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
