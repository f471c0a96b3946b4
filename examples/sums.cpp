// A transformer learns to add: of 9,000 sums of two-digit numbers, letter by letter, those of the other 1,000 pairs.
#include <chainrule/chainrule.hpp>

#include <cstdio>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

struct Settings {
  std::int64_t epochs = 12;
  int threads = cr::num_threads();
};

constexpr std::int64_t batch_size = 32;
constexpr std::int64_t features = 32;
constexpr std::int64_t digits = 3;  // of an answer, the ones first, so that each carry is known before it is needed
constexpr std::int64_t question = 6;
constexpr std::int64_t places = question + digits - 1;

std::string line(std::int64_t a, std::int64_t b) {
  return fmt::format("{:02}+{:02}={}{}{}", a, b, (a + b) % 10, (a + b) / 10 % 10, (a + b) / 100);
}

// x {pairs, places}, the question and all of the answer but its last digit; y {pairs, digits}, the answer.
cr::data::Dataset all_sums(const cr::data::Tokenizer& tokenizer) {
  cr::data::Dataset out{cr::Array(cr::int64, {10'000, places}), cr::Array(cr::int64, {10'000, digits}), 0};
  for (std::int64_t pair = 0; pair < 10'000; ++pair) {
    const auto tokens = tokenizer.encode(line(pair / 100, pair % 100));
    for (std::int64_t i = 0; i < places; ++i) out.x.set(pair * places + i, tokens.at<std::int64_t>(i));
    for (std::int64_t i = 0; i < digits; ++i) out.y.set(pair * digits + i, tokens.at<std::int64_t>(question + i));
  }
  return out;
}

void run(const Settings& settings) {
  cr::set_num_threads(settings.threads);
  const auto tokenizer = cr::data::Tokenizer::characters("0123456789+=");
  const auto parts = cr::data::split(all_sums(tokenizer), {.train = 0.9, .dev = 0, .test = 0.1, .stratified = false},
                                     cr::numpy::RandomState(1));
  const auto steps = static_cast<double>(settings.epochs * cr::data::batches(parts.train, batch_size).size());

  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto rows = graph.dimension("rows");
  const auto x = graph.input("x", {rows, places}, cr::int64);
  const auto y = graph.input("y", {rows, digits}, cr::int64);
  cr::Value h = cr::nn::learned_positions(cr::nn::embedding(x, tokenizer.size(), features), places,
                                          {.initializer = cr::init::normal(1)});
  for (int layer = 0; layer < 2; ++layer) h = cr::nn::transformer_block(h, 4, {.attention = {.causal = true}});
  // What follows "=" and each digit of the answer.
  const auto logits = cr::nn::dense(cr::nn::layer_norm(cr::slice(h, 1, cr::range(question - 1))), tokenizer.size());
  const auto loss = cr::softmax_cross_entropy(logits, y);
  const auto said = cr::argmax(logits, 2);
  // An answer is exact where all digits are: then they are also what it says digit by digit, by its own digits before.
  const auto exact = cr::mean(cr::min(cr::cast(cr::equal(said, y), cr::float32), 1));

  cr::State state(graph);
  const cr::optim::Adam adam_w{
      .learning_rate = cr::optim::one_cycle({.highest = 4e-3, .length = steps, .rise = 0.1, .end = 0.05}),
      .weight_decay = 0.1};
  cr::Program train(state, {.outputs = {loss}, .updates = adam_w.minimize(loss)});
  cr::Program test(state, {.outputs = {exact, said}, .mode = cr::Mode::inference});
  const auto share = [&](const cr::data::Dataset& data) {
    return 100 * test.run({{x, data.x}, {y, data.y}}).scalar(exact);
  };
  cr::fit(train, parts.train,
          {.inputs = {x, y},
           .batch = batch_size,
           .epochs = settings.epochs,
           .progress = true,
           .after_epoch = [&](const cr::EpochReport& report) {
             fmt::print("epoch {:3}: cost {:.5f}, {:.2f} % exact of the pairs learned from, {:.2f} % of the others\n",
                        report.epoch + 1, report.cost, share(parts.train), share(parts.test));
             std::fflush(stdout);
           }});

  const auto results = test.run({{x, parts.test.x}, {y, parts.test.y}});
  for (std::int64_t i = 0; i < 5; ++i) {
    cr::Array asked(cr::int64, {question});
    cr::Array answer(cr::int64, {digits});
    for (std::int64_t k = 0; k < question; ++k) asked.set(k, parts.test.x.at<std::int64_t>(i * places + k));
    for (std::int64_t k = 0; k < digits; ++k)
      answer.set(k, results[1].at<std::int64_t>(i * digits + digits - 1 - k));  // the ones last, as people write
    fmt::print("{}{}\n", tokenizer.decode(asked), tokenizer.decode(answer));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("A small transformer that learns sums of two-digit numbers.");
  app.add_option("--epochs", settings.epochs, "passes over 9,000 sums")->check(CLI::PositiveNumber);
  app.add_option("--threads", settings.threads, "results do not depend on it")->capture_default_str();
  app.add_flag_callback(
      "--quick", [&settings] { settings.epochs = 6; }, "6 passes");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
