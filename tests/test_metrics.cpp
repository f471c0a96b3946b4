// Metrics by counts made by hand.
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::error_of;

TEST_CASE("a confusion matrix and what follows from it") {
  const Array labels = Array({0, 0, 0, 1, 1, 2, 2, 2, 2, 2});
  const Array predicted = Array({0, 1, 0, 1, 1, 2, 0, 0, 2, 1});
  const Array counts = metrics::confusion_matrix(predicted, labels, 4);
  const std::vector<std::int64_t> expected = {2, 1, 0, 0, 0, 2, 0, 0, 2, 1, 2, 0, 0, 0, 0, 0};
  REQUIRE(counts.dtype() == int64);
  REQUIRE(counts.shape() == Dims{4, 4});
  for (std::int64_t i = 0; i < 16; ++i) CHECK(counts[i] == static_cast<double>(expected[static_cast<std::size_t>(i)]));
  const auto scores = metrics::class_scores(counts);
  CHECK(scores.precision == std::vector<double>{0.5, 0.5, 1, 0});
  CHECK(scores.recall == std::vector<double>{2.0 / 3, 1, 0.4, 0});
  CHECK(scores.f1[0] == Approx(2 * 0.5 * (2.0 / 3) / (0.5 + 2.0 / 3)));
  CHECK(scores.f1[1] == Approx(2 * 0.5 / 1.5));
  CHECK(scores.f1[2] == Approx(2 * 0.4 / 1.4));
  CHECK(scores.f1[3] == 0);
  CHECK(scores.support == std::vector<std::int64_t>{3, 2, 5, 0});
  CHECK(scores.accuracy == 0.6);
  CHECK(scores.macro_precision == 0.5);
  CHECK(scores.macro_recall == Approx((2.0 / 3 + 1 + 0.4) / 4));
  CHECK(scores.macro_f1 == Approx((scores.f1[0] + scores.f1[1] + scores.f1[2]) / 4));
}

TEST_CASE("the label among the k highest scores") {
  const Array scores({{0.1, 0.7, 0.2}, {0.5, 0.5, 0.5}, {0.0, 1.0, 2.0}});
  const Array labels({2, 1, 0});
  CHECK(metrics::top_k_accuracy(scores, labels, 1) == 0);
  CHECK(metrics::top_k_accuracy(scores, labels, 2) == Approx(2.0 / 3));
  CHECK(metrics::top_k_accuracy(scores, labels, 3) == 1);
}

TEST_CASE("the area under the ROC curve counts pairs, ties as a half") {
  CHECK(metrics::roc_auc(Array({0.1, 0.4, 0.35, 0.8}), Array({0, 0, 1, 1})) == 0.75);
  CHECK(metrics::roc_auc(Array({3.0, 2.0, 1.0}), Array({1, 1, 0})) == 1);
  CHECK(metrics::roc_auc(Array({1.0, 1.0, 1.0}), Array({1, 0, 1})) == 0.5);
  CHECK(metrics::roc_auc(Array({1.0, 2.0, 2.0, 3.0}), Array({0, 1, 0, 0})) == Approx(1.5 / 3));
}

TEST_CASE("the coefficient of determination, and perplexity") {
  const Array y({3.0, -0.5, 2.0, 7.0});
  CHECK(metrics::r2(Array({2.5, 0.0, 2.0, 8.0}), y) == Approx(1 - 1.5 / 29.1875));
  CHECK(metrics::r2(y, y) == 1);
  CHECK(metrics::r2(Array({2.875, 2.875, 2.875, 2.875}), y) == 0);
  CHECK(metrics::perplexity(std::log(7.0)) == Approx(7));
}

TEST_CASE("predict() joins what a program gives for batches, along the axis of the examples") {
  for (const std::size_t axis : {std::size_t{0}, std::size_t{1}}) {
    Graph graph({.dtype = float32});
    const Dimension n = graph.dimension("n");
    const Value x = graph.input("x", axis == 0 ? Shape{n, 2} : Shape{2, n});
    State state(graph);
    Program program(state, {.outputs = {x * 2.0}});
    Program sums(state, {.outputs = {sum(x, {axis == 0 ? 1 : 0})}});
    Program whole(state, {.outputs = {sum(x)}});
    data::Dataset data{.x = Array(float32, axis == 0 ? Dims{7, 2} : Dims{2, 7}), .axis = axis};
    for (std::int64_t i = 0; i < 14; ++i) data.x.set(i, static_cast<double>(i));
    for (const std::int64_t batch : {1, 3, 7, 100}) {
      const Array out = predict(program, data, {.inputs = {x}, .batch = batch});
      REQUIRE(out.shape() == data.x.shape());
      REQUIRE(out.dtype() == float32);
      for (std::int64_t i = 0; i < 14; ++i) CHECK(out[i] == 2.0 * static_cast<double>(i));
      const Array totals = predict(sums, data, {.inputs = {x}, .batch = batch});
      REQUIRE(totals.shape() == Dims{7});
      CHECK(totals[6] == (axis == 0 ? 12 + 13 : 6 + 13));
    }
    CHECK_THAT(error_of([&] { predict(whole, data, {.inputs = {x}}); }).what(),
               ContainsSubstring("predict: requires an output with an axis of examples, number 0, got "));
    CHECK_THAT(error_of([&] { predict(program, data, {.inputs = {x}, .axis = 1 - axis}); }).what(),
               ContainsSubstring("predict: requires an output with an entry for each of 7 examples, got "));
  }
}

TEST_CASE("what metrics refuse") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto message = [](const std::function<void()>& f) { return std::string(error_of(f).what()); };
  CHECK_THAT(message([] {
               metrics::confusion_matrix(Array({0, 1}), Array({0}), 2);
             }),
             ContainsSubstring("confusion_matrix: requires arrays of one shape, got {2} and {1}"));
  CHECK_THAT(message([] {
               metrics::confusion_matrix(Array({0, 2}), Array({0, 1}), 2);
             }),
             ContainsSubstring("confusion_matrix: requires classes of 0 to 1, got 2 at 1"));
  CHECK_THAT(message([] { metrics::confusion_matrix(Array(int64, {0}), Array(int64, {0}), 2); }),
             ContainsSubstring("requires at least one example, got none"));
  CHECK_THAT(message([] { metrics::class_scores(Array({1, 2})); }), ContainsSubstring("requires a confusion matrix"));
  CHECK_THAT(message([] {
               metrics::top_k_accuracy(Array({{1.0, 2.0}}), Array({0}), 3);
             }),
             ContainsSubstring("top_k_accuracy: requires a k of 1 to 2, got 3"));
  CHECK_THAT(message([&] {
               metrics::top_k_accuracy(Array({{1.0, nan}}), Array({0}), 1);
             }),
             ContainsSubstring("requires scores that are no NaN"));
  CHECK_THAT(message([] {
               metrics::roc_auc(Array({1.0, 2.0}), Array({1, 1}));
             }),
             ContainsSubstring("roc_auc: requires examples of both labels, got 2 of 1 and 0 of 0"));
  CHECK_THAT(message([&] {
               metrics::roc_auc(Array({1.0, nan}), Array({1, 0}));
             }),
             ContainsSubstring("requires scores that are no NaN, got one at 1"));
  CHECK_THAT(message([] {
               metrics::r2(Array({1.0, 2.0}), Array({3.0, 3.0}));
             }),
             ContainsSubstring("r2: requires numbers that are not all the same, got only 3"));
}
