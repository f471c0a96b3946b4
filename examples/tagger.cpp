// A tagger: a bidirectional LSTM names the kind of each word of sentences of unequal lengths, padded to one batch.
//
// The language is made up: kinds of words follow each other, some more often than others, and most words are of several
// kinds, as "light" is an adjective, a noun and a verb. So it is known how good a tagger can be that knows the language
// and reads from the left, and one that knows the whole sentence. The network learns from examples only.
#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

constexpr std::size_t kinds = 8;
constexpr std::size_t words = 40;
constexpr std::int64_t batch = 64;
constexpr std::int64_t places = 30;  // of the longest sentence
constexpr int padding = -1;          // the kind of what is behind a sentence

using Chances = std::vector<double>;
struct Sentences {
  cr::Array words = cr::Array::full(cr::int64, {batch, places}, 0);
  cr::Array kinds = cr::Array::full(cr::int64, {batch, places}, padding);
  cr::Array lengths = cr::Array::full(cr::int64, {batch}, 0);
};

class Language {
 public:
  Sentences draw() {
    Sentences out;
    for (std::int64_t s = 0; s < batch; ++s) {
      const std::int64_t length = random_.randint(3, places + 1);
      out.lengths.set(s, length);
      std::size_t kind = one_of(Chances(kinds, 1.0 / kinds));
      for (std::int64_t i = s * places; i < s * places + length; ++i, kind = one_of(next_[kind])) {
        out.kinds.set(i, static_cast<double>(kind));
        out.words.set(i, static_cast<double>(one_of(spoken_[kind])));
      }
    }
    return out;
  }

  // What one who knows it gets right, from the left and from both sides (forward-backward algorithm); of how many.
  [[nodiscard]] std::array<int, 3> right_at_best(const Sentences& sentences) const {
    std::array<int, 3> right{};
    for (std::int64_t s = 0; s < batch; ++s) {
      const auto length = static_cast<std::size_t>(sentences.lengths[s]);
      const auto word = [&](std::size_t i) { return static_cast<std::size_t>(sentences.words(s, i)); };
      std::vector<Chances> left(length, Chances(kinds, 0));  // of each place's kind and the words up to there
      for (std::size_t i = 0; i < length; ++i)
        for (std::size_t k = 0; k < kinds; ++k) {
          for (std::size_t j = 0; j < kinds; ++j) left[i][k] += i == 0 ? 1 : left[i - 1][j] * next_[j][k];
          left[i][k] *= spoken_[k][word(i)];
        }
      Chances behind(kinds, 1);  // of the words behind a place, given its kind
      for (std::size_t i = length; i-- > 0;) {
        Chances both = left[i];
        for (std::size_t k = 0; k < kinds; ++k) both[k] *= behind[k];
        const auto kind = static_cast<std::ptrdiff_t>(sentences.kinds(s, i));
        right[0] += likeliest(left[i]) == kind ? 1 : 0;
        right[1] += likeliest(both) == kind ? 1 : 0;
        ++right[2];
        const Chances then = std::exchange(behind, Chances(kinds, 0));
        for (std::size_t k = 0; k < kinds; ++k)
          for (std::size_t j = 0; j < kinds; ++j) behind[k] += next_[k][j] * spoken_[j][word(i)] * then[j];
      }
    }
    return right;
  }

 private:
  // By kind, of so many things.
  std::vector<Chances> chances(std::size_t of, double spread) {
    std::vector<Chances> out(kinds, Chances(of));
    for (Chances& row : out) {
      double total = 0;
      for (double& x : row) total += x = std::exp(spread * random_.randn());
      for (double& x : row) x /= total;
    }
    return out;
  }
  std::size_t one_of(const Chances& chances) {
    std::size_t i = 0;
    for (double left = random_.rand(); i + 1 < chances.size() && (left -= chances[i]) >= 0;) ++i;
    return i;
  }
  static std::ptrdiff_t likeliest(const Chances& of) { return std::max_element(of.begin(), of.end()) - of.begin(); }

  cr::numpy::RandomState random_{1};
  std::vector<Chances> next_ = chances(kinds, 3);
  std::vector<Chances> spoken_ = chances(words, 2);
};

void run(int steps) {
  cr::Graph graph({.dtype = cr::float32, .seed = 1});
  const auto sentence = graph.input("sentence", {batch, places}, cr::int64);
  const auto tags = graph.input("tags", {batch, places}, cr::int64);
  const auto lengths = graph.input("lengths", {batch}, cr::int64);
  const auto read = cr::nn::lstm(cr::nn::embedding(sentence, words, 16), 32,
                                 {.bidirectional = true, .lengths = lengths, .forget_bias = 1});
  const auto scores = cr::nn::dense(read, kinds);
  const auto cost = cr::softmax_cross_entropy(scores, tags, {.ignore_index = padding});
  cr::State state(graph);
  cr::Program train(state, {.outputs = {cost}, .updates = cr::optim::Adam{.learning_rate = 5e-3}.minimize(cost)});
  cr::Program predict(state, {.outputs = {cr::argmax(scores, {2})}});

  Language language;
  for (int step = 1; step <= steps; ++step) {
    const Sentences now = language.draw();
    const auto results = train.run({{sentence, now.words}, {tags, now.kinds}, {lengths, now.lengths}});
    if (step % (steps / 5) == 0) fmt::print("step {:4}: cost {:.4f}\n", step, results.scalar());
  }
  std::array<int, 4> right{};  // at best from the left and from both sides; of how many; the network
  for (int i = 0; i < 20; ++i) {
    const Sentences now = language.draw();
    const auto best = language.right_at_best(now);
    for (std::size_t k = 0; k < 3; ++k) right[k] += best[k];
    const auto predicted = predict.run({{sentence, now.words}, {lengths, now.lengths}});
    for (std::int64_t k = 0; k < batch * places; ++k) right[3] += predicted[0][k] == now.kinds[k] ? 1 : 0;
  }
  const auto share = [&](std::size_t i) { return 100.0 * right[i] / right[2]; };
  fmt::print("{:.1f} % of {} words right; at best {:.1f} % from the left, {:.1f} % from both sides\n", share(3),
             right[2], share(0), share(1));
}

}  // namespace

int main(int argc, char** argv) {
  int steps = 2'000;
  CLI::App app("A bidirectional LSTM that names the kinds of words of a made-up language.");
  app.add_option("--steps", steps, "of 64 sentences")->check(CLI::Range(5, 1'000'000))->capture_default_str();
  app.add_flag_callback(
      "--quick", [&steps] { steps = 400; }, "400 steps");
  CLI11_PARSE(app, argc, argv);
  try {
    run(steps);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
