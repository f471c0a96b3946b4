// Losses of sequences against their definitions, at their edges, and their gradients.
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>

#include "catch.hpp"
#include "references_ctc.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;
using chainrule::test::error_of;

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();
const double nan_ = std::nan("");

using Labels = std::vector<std::int64_t>;

// Examples of these labels and places, padded; labels behind the real ones are out of range, logits NaN.
struct Batch {
  std::vector<Labels> labels;
  std::vector<std::int64_t> places;
  std::int64_t classes;
  std::int64_t blank;
  std::int64_t most_places = 0;
  std::int64_t longest = 0;
  std::vector<std::vector<double>> logits;  // of the real places

  Batch(std::vector<Labels> of, std::vector<std::int64_t> with, std::int64_t of_classes, std::int64_t of_blank)
      : labels(std::move(of)), places(std::move(with)), classes(of_classes), blank(of_blank) {
    for (std::size_t e = 0; e < labels.size(); ++e) {
      most_places = std::max(most_places, places[e] + 1);
      longest = std::max(longest, static_cast<std::int64_t>(labels[e].size()) + 1);
      logits.push_back(test::random_numbers<double>(places[e] * classes, static_cast<unsigned>(e + 1)));
    }
  }
  [[nodiscard]] std::int64_t examples() const { return static_cast<std::int64_t>(labels.size()); }
  [[nodiscard]] Array padded_logits() const {
    Array out = Array::full(float64, {examples(), most_places, classes}, nan_);
    for (std::size_t e = 0; e < logits.size(); ++e)
      for (std::size_t i = 0; i < logits[e].size(); ++i)
        out.data<double>()[e * static_cast<std::size_t>(most_places * classes) + i] = logits[e][i];
    return out;
  }
  [[nodiscard]] Array padded_labels() const {
    Array out = Array::full(int64, {examples(), longest}, -9);
    for (std::size_t e = 0; e < labels.size(); ++e)
      for (std::size_t i = 0; i < labels[e].size(); ++i)
        out.data<std::int64_t>()[e * static_cast<std::size_t>(longest) + i] = labels[e][i];
    return out;
  }
  [[nodiscard]] Array lengths() const {
    std::vector<std::int64_t> out;
    for (const Labels& of : labels) out.push_back(static_cast<std::int64_t>(of.size()));
    return Array(out);
  }
};

// The inputs of a loss, and their feeds.
struct Inputs {
  Graph graph;
  Value logits, targets, logit_lengths, target_lengths;
  explicit Inputs(const Batch& batch, DType dtype = float64)
      : graph({.dtype = dtype}),
        logits(graph.input("logits", {graph.dimension("examples"), graph.dimension("places"), batch.classes})),
        targets(graph.input("targets", {graph.dimension("examples"), graph.dimension("longest")}, int64)),
        logit_lengths(graph.input("logit_lengths", {graph.dimension("examples")}, int64)),
        target_lengths(graph.input("target_lengths", {graph.dimension("examples")}, int64)) {}
  [[nodiscard]] Value loss(const CtcOptions& options) const {
    return ctc_loss(logits, targets, logit_lengths, target_lengths, options);
  }
  [[nodiscard]] std::vector<Feed> feeds(const Batch& batch) const {
    return {{logits, Array(batch.padded_logits())},
            {targets, Array(batch.padded_labels())},
            {logit_lengths, Array(batch.places)},
            {target_lengths, Array(batch.lengths())}};
  }
};

const std::vector<Batch>& batches() {
  static const std::vector<Batch> all = {
      // Different labels, equal neighbours, none at all, as many as places, more; a single place and none.
      Batch({{1, 2}, {1, 1}, {}, {2, 1, 2}, {1, 1}, {2}, {}, {1}}, {5, 4, 3, 3, 2, 1, 0, 0}, 3, 0),
      Batch({{0, 1}, {3, 3, 3}, {0}, {}}, {4, 5, 6, 1}, 4, 2), Batch({{0}, {}, {0, 0}}, {3, 2, 3}, 2, 1)};
  return all;
}

}  // namespace

TEST_CASE("ctc_loss is the sum over all alignments, its slope that of unnormalized logits") {
  for (const Batch& batch : batches()) {
    const Inputs in(batch);
    const auto costs = in.loss({.blank = batch.blank, .reduction = Reduction::none});
    const auto finite = in.loss({.blank = batch.blank, .reduction = Reduction::none, .zero_infinity = true});
    const auto made =
        compute(in.graph,
                {costs, finite, gradients(sum(costs), {in.logits})[0], gradients(sum(finite), {in.logits})[0],
                 in.loss({.blank = batch.blank, .zero_infinity = true}),
                 in.loss({.blank = batch.blank, .reduction = Reduction::sum, .zero_infinity = true}),
                 gradients(in.loss({.blank = batch.blank}), {in.logits})[0]},
                in.feeds(batch));
    double sum = 0;
    double mean = 0;
    const auto examples = static_cast<std::size_t>(batch.examples());
    for (std::size_t e = 0; e < examples; ++e) {
      const auto expected = test::ctc_by_enumeration(batch.logits[e], batch.classes, batch.labels[e], batch.blank);
      const auto of = static_cast<std::int64_t>(e);
      INFO("example " << e);
      const bool possible = std::isfinite(expected.cost);
      if (possible) {
        CHECK(made[0][of] == Approx(expected.cost).epsilon(1e-12).margin(1e-14));
      } else {
        CHECK(made[0][of] == inf);
      }
      CHECK(made[1][of] == (possible ? made[0][of] : 0));
      sum += made[1][of];
      const double labels = std::max(1.0, static_cast<double>(batch.labels[e].size()));
      mean += made[1][of] / labels / static_cast<double>(examples);
      const std::int64_t block = batch.most_places * batch.classes;
      for (std::int64_t i = 0; i < block; ++i) {
        const auto place = static_cast<std::size_t>(i);
        const double slope = place < expected.slope.size() ? expected.slope[place] : 0;
        CHECK(made[2][of * block + i] == Approx(slope).margin(1e-13));
        CHECK(made[3][of * block + i] == made[2][of * block + i]);
        CHECK(made[6][of * block + i] == Approx(slope / labels / static_cast<double>(examples)).margin(1e-13));
      }
    }
    CHECK(made[4].item() == Approx(mean).epsilon(1e-12));
    CHECK(made[5].item() == Approx(sum).epsilon(1e-12));
  }
}

TEST_CASE("ctc_loss of long sequences neither underflows nor loses digits in float32") {
  // All logits 0: each way has the probability classes^-places, and of one label there are
  // places (places + 1) / 2 alignments.
  constexpr std::int64_t places = 1200;
  Graph graph({.dtype = float32});
  const auto logits = graph.parameter("logits", zeros({1, places, 30}));
  const auto whole = [&](std::vector<std::int64_t> numbers) { return graph.constant(Array(numbers)); };
  const auto cost = ctc_loss(logits, reshape(whole({7}), {1, 1}), whole({places}), whole({1}));
  const auto made = compute(graph, {cost, gradients(cost, {logits})[0]});
  CHECK(made[0].item() == Approx(places * std::log(30.0) - std::log(places * (places + 1) / 2.0)).epsilon(1e-6));
  // The slopes of each place sum to 0; alignments that have the label at the first place are `places`.
  CHECK(made[1][7] == Approx(1 / 30.0 - 2.0 / (places + 1)).epsilon(1e-5));
  double sum = 0;
  for (std::int64_t c = 0; c < 30; ++c) sum += made[1][c];
  CHECK(std::abs(sum) < 1e-6);
  // Logits far from 0: a certain alignment costs nothing, a shift of all changes nothing.
  const Array certain({500.0, -500.0, -500.0, -500.0, 500.0, -500.0});
  const auto z = graph.constant(certain.astype(float32).reshape({1, 2, 3}));
  const auto sure = ctc_loss(z, reshape(whole({1}), {1, 1}), whole({2}), whole({1}));
  const auto unlikely = ctc_loss(z, reshape(whole({2}), {1, 1}), whole({2}), whole({1}));
  const auto both = compute(graph, {sure, unlikely});
  CHECK(both[0].item() == 0);
  CHECK(both[1].item() == 1000);  // one place of two has to be another
}

TEST_CASE("ctc_loss: logits that are no distribution make their example NaN, and what they rule out infinite") {
  const Batch batch({{1}, {1}, {1}, {1}}, {2, 2, 2, 2}, 2, 0);
  const Inputs in(batch);
  const auto costs = in.loss({.reduction = Reduction::none});
  auto feeds = in.feeds(batch);
  const std::vector<double> numbers = {0, nan_, 0, 0, /**/ -inf, -inf, 0, 0, /**/ 0, -inf, 0, -inf, /**/ 0, 0, 0, 0};
  feeds[0] = Feed(in.logits, Array(Array(numbers).reshape({4, 2, 2})));
  const auto made = compute(in.graph, {costs, gradients(sum(costs), {in.logits})[0]}, feeds);
  CHECK(std::isnan(made[0][0]));
  CHECK(std::isnan(made[0][1]));
  CHECK(made[0][2] == inf);
  CHECK(made[0][3] == Approx(std::log(4.0 / 3)));
  for (std::int64_t i = 0; i < 16; ++i) CHECK(std::isnan(made[1][i]) == (i < 8));
  for (std::int64_t i = 8; i < 12; ++i) CHECK(made[1][i] == 0);
}

TEST_CASE("ctc_loss passes the checker of first derivatives, and says that there are no second ones") {
  Graph graph({.seed = 4});
  const auto logits = graph.parameter("logits", uniform({3, 5, 4}, -1, 1));
  const auto whole = [&](const std::vector<std::int64_t>& numbers) { return graph.constant(Array(numbers)); };
  const auto loss = ctc_loss(tanh(logits) * 2.0, reshape(whole({1, 2, 3, 3, 2, 0}), {3, 2}), whole({5, 4, 3}),
                             whole({2, 2, 1}), {.reduction = Reduction::sum});
  State state(graph);
  const CheckReport report = check_gradients(loss, {logits}, state, {}, {.orders = 1});
  INFO(report.to_string());
  CHECK(report.passed());
  const auto size = graph.size();
  const auto slope = gradients(loss, {logits})[0];
  const Error error = error_of([&] { (void)gradients(sum(square(slope)), {logits}); });
  CHECK_THAT(error.what(), ContainsSubstring("ctc_loss: requires no derivative of its gradient"));
  CHECK_THAT(error.what(), ContainsSubstring("test_sequence_losses.cpp"));
  CHECK(graph.size() > size);
}

TEMPLATE_TEST_CASE("ctc_loss has the same bits for every number of threads", "", float, double) {
  struct Threads {
    ~Threads() { set_num_threads(before); }
    int before = num_threads();
  } restore;
  std::vector<Labels> labels;
  std::vector<std::int64_t> places;
  std::mt19937 random(3);
  for (int e = 0; e < 40; ++e) {
    places.push_back(10 + random() % 30);
    labels.emplace_back();
    for (std::size_t n = random() % 9; n > 0; --n) labels.back().push_back(1 + random() % 6);
  }
  const Batch batch(labels, places, 7, 0);
  const Inputs in(batch, dtype_of<TestType>());
  const auto loss = in.loss({});
  const Values values{loss, gradients(loss, {in.logits})[0]};
  std::vector<Array> one;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    const auto now = compute(in.graph, values, in.feeds(batch));
    if (one.empty()) one = now;
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(now[i].identical(one[i]));
  }
}

TEST_CASE("ctc_loss says what does not fit: at the user's line, in a run before anything is written") {
  const Batch batch({{1, 2}, {1}}, {3, 2}, 3, 0);
  Inputs in(batch);
  const auto refuses = [&](const char* text, const std::function<void()>& f) {
    const auto size = in.graph.size();
    const Error error = error_of(f);
    CHECK_THAT(error.what(), ContainsSubstring(text));
    CHECK_THAT(error.what(), ContainsSubstring("test_sequence_losses.cpp"));
    CHECK(in.graph.size() == size);
  };
  refuses("requires a blank below 3 classes, got 3", [&] { (void)in.loss({.blank = 3}); });
  refuses("requires a blank below 3 classes, got -1", [&] { (void)in.loss({.blank = -1}); });
  const auto flat = in.graph.input("flat", {4, 3});
  const auto few = in.graph.input("few", {4}, int64);
  refuses("requires logits {examples, places, classes}, got {4, 3}",
          [&] { ctc_loss(flat, in.targets, in.logit_lengths, in.target_lengths); });
  refuses("requires targets {examples, longest}, got {4}",
          [&] { ctc_loss(in.logits, few, in.logit_lengths, in.target_lengths); });
  refuses("requires lengths {examples}, got {4}", [&] { ctc_loss(in.logits, in.targets, few, in.target_lengths); });
  refuses("ctc: requires indices of int64, got float64",
          [&] { ctc_loss(in.logits, flat, in.logit_lengths, in.target_lengths); });
  refuses("ctc_loss: requires values of a graph, got an empty Value",
          [&] { ctc_loss(in.logits, Value{}, in.logit_lengths, in.target_lengths); });

  const auto w = in.graph.parameter("w", ones({3}));
  const auto loss = ctc_loss(in.logits * w, in.targets, in.logit_lengths, in.target_lengths);
  State state(in.graph);
  Program step(state, {.updates = optim::GradientDescent{}.minimize(loss)});
  const auto wrong = [&](const char* text, std::size_t feed, const Array& numbers) {
    auto feeds = in.feeds(batch);
    feeds[feed] = Feed(feed == 1 ? in.targets : feed == 2 ? in.logit_lengths : in.target_lengths, numbers);
    CHECK_THAT(error_of([&] { step.run(feeds); }).what(), ContainsSubstring(text));
    CHECK(state[w].identical(Array::full(float64, {3}, 1)));
  };
  wrong("requires labels from 0 to 2 other than the blank, 0, got 3 at element {0, 1}", 1,
        Array({{1, 3, 0}, {1, 0, 0}}));
  wrong("requires labels from 0 to 2 other than the blank, 0, got 0 at element {1, 0}", 1,
        Array({{1, 2, 0}, {0, 0, 0}}));
  wrong("requires logit_lengths from 0 to 4, got 5 at element {1}", 2, Array({3, 5}));
  wrong("requires target_lengths from 0 to 3, got -1 at element {0}", 3, Array({-1, 1}));
}

// ---- sequence_cross_entropy

TEST_CASE("sequence_cross_entropy is that of the real places, whatever lies in the others") {
  Graph graph;
  const auto logits = graph.input("logits", {graph.dimension("n"), graph.dimension("t"), 2});
  const auto labels = graph.input("labels", {graph.dimension("n"), graph.dimension("t")}, int32);
  const auto lengths = graph.input("lengths", {graph.dimension("n")}, int64);
  const Array z = Array(Array({1.0, 3.0, 0.5, 0.0, nan_, inf, /**/ nan_, nan_, nan_, nan_, nan_, nan_, /**/ 0.0, 0.0,
                               -1.0, 2.0, 4.0, 4.5}))
                      .reshape({3, 3, 2});
  const std::vector<Feed> feeds = {{logits, z},
                                   {labels, Array({{1, 0, -5}, {77, -1, 2}, {0, 0, 1}})},
                                   {lengths, Array(std::vector<std::int64_t>{2, 0, 3})}};
  const auto cost = [](double own, double other) { return std::log1p(std::exp(other - own)); };
  const std::vector<double> first = {cost(3, 1), cost(0.5, 0)};
  const std::vector<double> third = {std::log(2.0), cost(-1, 2), cost(4.5, 4)};
  const double sum_of_all = first[0] + first[1] + third[0] + third[1] + third[2];
  const auto of = [&](Reduction reduction, double smoothing = 0) {
    return sequence_cross_entropy(logits, labels, lengths, {.reduction = reduction, .label_smoothing = smoothing});
  };
  const auto mean = of(Reduction::mean);
  const auto made = compute(graph,
                            {mean, of(Reduction::sum), of(Reduction::none), gradients(mean, {logits})[0],
                             gradients(sum(of(Reduction::none)), {logits})[0], of(Reduction::sum, 0.1)},
                            feeds);
  CHECK(made[0].item() == Approx(sum_of_all / 5));
  CHECK(made[1].item() == Approx(sum_of_all));
  CHECK(made[2][0] == Approx((first[0] + first[1]) / 2));
  CHECK(made[2][1] == 0);
  CHECK(made[2][2] == Approx((third[0] + third[1] + third[2]) / 3));
  const auto slope = [](double own, double other) { return -1 / (1 + std::exp(own - other)); };  // by the label's logit
  CHECK(made[3][1] == Approx(slope(3, 1) / 5));
  CHECK(made[3][0] == Approx(-slope(3, 1) / 5));
  CHECK(made[4][14] == Approx(slope(-1, 2) / 3));
  for (std::int64_t i = 4; i < 12; ++i) CHECK((made[3][i] == 0 && made[4][i] == 0));
  // With smoothing s: (1 - s) of the label's cost and s / 2 of that of both classes.
  const auto smooth = [&](double own, double other) { return 0.95 * cost(own, other) + 0.05 * cost(other, own); };
  CHECK(made[5].item() == Approx(smooth(3, 1) + smooth(0.5, 0) + smooth(0, 0) + smooth(-1, 2) + smooth(4.5, 4)));

  CHECK_THAT(error_of([&] {
               (void)compute(graph, {mean},
                             {{logits, z},
                              {labels, Array({{1, 2, 0}, {0, 0, 0}, {0, 0, 0}})},
                              {lengths, Array(std::vector<std::int64_t>{2, 0, 3})}});
             }).what(),
             ContainsSubstring("got 2 at element {0, 1}"));
  CHECK_THAT(error_of([&] { (void)sequence_cross_entropy(logits, lengths, lengths); }).what(),
             ContainsSubstring("sequence_cross_entropy: requires whole labels {n, t}, got int64 {n}"));
  CHECK_THAT(error_of([&] { (void)sequence_cross_entropy(labels, labels, lengths); }).what(),
             ContainsSubstring("requires floating logits {examples, places, classes}, got int32 {n, t}"));
  CHECK_THAT(error_of([&] { (void)sequence_cross_entropy(logits, labels, labels); }).what(),
             ContainsSubstring("requires whole lengths {n}, got int32 {n, t}"));
}

TEST_CASE("sequence_cross_entropy passes the checker, second derivatives too") {
  Graph graph({.seed = 4});
  const auto logits = graph.parameter("logits", uniform({2, 3, 4}, -1, 1));
  const auto labels = graph.constant(Array({{1, 2, 0}, {3, 0, 0}}).astype(int64));
  const auto lengths = graph.constant(Array(std::vector<std::int64_t>{3, 1}));
  State state(graph);
  const CheckReport report = check_gradients(sequence_cross_entropy(logits, labels, lengths), {logits}, state);
  INFO(report.to_string());
  CHECK(report.passed());
}

// ---- info_nce

TEST_CASE("info_nce is the cross-entropy of each query's key among all") {
  const std::vector<std::vector<double>> q = {{3, 4}, {0, 2}, {-1, 0}};
  const std::vector<std::vector<double>> k = {{1, 0}, {5, 12}, {-8, 6}};
  const auto dot = [](const std::vector<double>& a, const std::vector<double>& b, bool normalize) {
    const double size = std::hypot(a[0], a[1]) * std::hypot(b[0], b[1]);
    return (a[0] * b[0] + a[1] * b[1]) / (normalize ? size : 1);
  };
  // Of queries among keys, or keys among queries.
  const auto cost = [&](std::size_t i, bool turned, bool normalize, double temperature) {
    double all = 0;
    for (std::size_t j = 0; j < 3; ++j)
      all += std::exp((turned ? dot(q[j], k[i], normalize) : dot(q[i], k[j], normalize)) / temperature);
    return std::log(all) - dot(q[i], k[i], normalize) / temperature;
  };
  Graph graph;
  const auto queries = graph.input("queries", {graph.dimension("n"), 2});
  const auto keys = graph.input("keys", {graph.dimension("n"), 2});
  const auto made = compute(
      graph,
      {info_nce(queries, keys), info_nce(queries, keys, {.temperature = 0.5, .reduction = Reduction::none}),
       info_nce(queries, keys,
                {.temperature = 20, .symmetric = true, .normalize = false, .reduction = Reduction::sum})},
      {{queries, Array({{3.0, 4.0}, {0.0, 2.0}, {-1.0, 0.0}})}, {keys, Array({{1.0, 0.0}, {5.0, 12.0}, {-8.0, 6.0}})}});
  double mean = 0;
  double sum = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    mean += cost(i, false, true, 0.1) / 3;
    CHECK(made[1][static_cast<std::int64_t>(i)] == Approx(cost(i, false, true, 0.5)));
    sum += (cost(i, false, false, 20) + cost(i, true, false, 20)) / 2;
  }
  CHECK(made[0].item() == Approx(mean));
  CHECK(made[2].item() == Approx(sum));

  CHECK_THAT(error_of([&] { (void)info_nce(queries, keys, {.temperature = 0}); }).what(),
             ContainsSubstring("info_nce: requires temperature > 0, got 0"));
  CHECK_THAT(error_of([&] {
               (void)info_nce(queries, graph.input("other", {3, 2}));
             }).what(),
             ContainsSubstring("info_nce: requires"));
  const auto cube = graph.input("cube", {2, 2, 2});
  CHECK_THAT(error_of([&] { (void)info_nce(cube, cube); }).what(),
             ContainsSubstring("info_nce: requires vectors {examples, width}, got {2, 2, 2}"));
}

TEST_CASE("info_nce passes the checker, and its slope at vectors of 0 is finite") {
  Graph graph({.seed = 4});
  const auto queries = graph.parameter("queries", uniform({4, 3}, -1, 1));
  const auto keys = graph.parameter("keys", uniform({4, 3}, -1, 1));
  State state(graph);
  for (const bool symmetric : {false, true}) {
    const auto loss = info_nce(queries, keys, {.temperature = 0.7, .symmetric = symmetric});
    const CheckReport report = check_gradients(loss, {queries, keys}, state);
    INFO(report.to_string());
    CHECK(report.passed());
  }
  const auto nothing = graph.parameter("nothing", zeros({4, 3}));
  const Array slope = compute(graph, {gradients(info_nce(nothing, keys), {nothing})[0]})[0];
  for (std::int64_t i = 0; i < 12; ++i) CHECK(std::isfinite(slope[i]));
}
