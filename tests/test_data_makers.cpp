#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <chainrule/framework/data/data.hpp>

#include "catch.hpp"
#include "expected.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::Dataset;
using chainrule::data::make_circles;
using chainrule::data::make_flower;
using chainrule::data::make_moons;
using chainrule::data::make_spirals;
using chainrule::numpy::RandomState;

namespace {

// Sines and cosines may differ from NumPy's in the last bit.
void check_point(const Dataset& data, std::int64_t i, double x0, double x1) {
  INFO("point " << i);
  CHECK(data.x(0, i) == Approx(x0).epsilon(1e-14).margin(1e-14));
  CHECK(data.x(1, i) == Approx(x1).epsilon(1e-14).margin(1e-14));
}

std::vector<double> sums(const Dataset& data) {
  std::vector<double> out(2, 0);
  for (std::int64_t i = 0; i < data.size(); ++i)
    for (const std::int64_t feature : {0, 1}) out[static_cast<std::size_t>(feature)] += data.x(feature, i);
  return out;
}

}  // namespace

TEST_CASE("make_moons draws the course's moons") {
  const auto id = GENERATE(as<std::string>{}, "000.moons900.gd", "001.moons300.gd");
  const auto* table = chainrule::test::expected(id);
  if (table == nullptr) return;
  const auto& facts = table->at("dataset");
  const auto samples = facts.at("n_samples").get<std::int64_t>();
  RandomState rng(facts.at("seed").get<std::int64_t>());
  const Dataset moons = make_moons({.samples = samples, .noise = facts.at("noise").get<double>()}, rng);

  CHECK(moons.x.shape() == Dims{2, samples});
  CHECK(moons.y.shape() == Dims{1, samples});
  CHECK(moons.axis == 1);
  CHECK(moons.size() == samples);
  const auto points = facts.at("first_points").get<std::vector<std::vector<double>>>();
  for (std::size_t i = 0; i < points.size(); ++i) {
    CHECK(moons.x(0, i) == points[i][0]);
    CHECK(moons.x(1, i) == points[i][1]);
  }
  const auto labels = facts.at("first_labels").get<std::vector<double>>();
  for (std::size_t i = 0; i < labels.size(); ++i) CHECK(moons.y(0, i) == labels[i]);
  for (std::int64_t feature : {0, 1}) {
    double sum = 0;
    for (std::int64_t i = 0; i < samples; ++i) sum += moons.x(feature, i);
    CHECK(sum == Approx(facts.at("sum_X").at(static_cast<std::size_t>(feature)).get<double>()).epsilon(1e-13));
  }
}

TEST_CASE("make_moons starts as scikit-learn's does") {
  const Dataset moons = make_moons({.samples = 900, .noise = 0.2}, RandomState(3));
  CHECK(moons.x(0, 0) == -0.9471502241604901);
  CHECK(moons.x(1, 0) == 0.008759392491059798);
  CHECK(moons.x(0, 1) == 1.2447617502285213);
  CHECK(moons.x(1, 1) == -0.2091716422325602);
  CHECK(moons.y(0, 0) == 0);
  CHECK(moons.y(0, 1) == 1);
}

TEST_CASE("Moons are half circles") {
  RandomState rng(0);
  const Dataset moons = make_moons({.samples = 7, .shuffle = false}, rng);
  CHECK(rng.rand() == RandomState(0).rand());  // nothing was drawn
  CHECK(moons.y.identical(Array({{0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0}})));
  for (std::int64_t i = 0; i < 7; ++i) {
    const double center = i < 3 ? 0 : 1;
    const double height = i < 3 ? 0 : 0.5;
    CHECK(std::hypot(moons.x(0, i) - center, moons.x(1, i) - height) == Approx(1));
  }
  CHECK(moons.x(0, 0) == 1);
  CHECK(moons.x(0, 2) == -1);
  CHECK(moons.x(0, 3) == 0);
  CHECK(moons.x(0, 6) == 2);
  CHECK(moons.x(1, 3) == 0.5);

  // A shuffle reorders the same points; noise of 0 draws but moves nothing.
  rng.seed(1);
  const Dataset shuffled = make_moons({.samples = 7}, rng);
  const auto order = RandomState(1).permutation(7);
  for (std::int64_t i = 0; i < 7; ++i) {
    const auto from = order[static_cast<std::size_t>(i)];
    CHECK(shuffled.x(0, i) == moons.x(0, from));
    CHECK(shuffled.x(1, i) == moons.x(1, from));
    CHECK(shuffled.y(0, i) == moons.y(0, from));
  }
  const double next = rng.rand();
  rng.seed(1);
  CHECK(make_moons({.samples = 7, .noise = 0}, rng).x.identical(shuffled.x));
  CHECK(rng.rand() != next);
}

TEST_CASE("make_moons of few points, and its errors") {
  RandomState rng(0);
  CHECK(make_moons({.samples = 0}, rng).x.shape() == Dims{2, 0});
  CHECK(make_moons({.samples = 1}, rng).y.item() == 1);  // one half rounded down is none
  CHECK(make_moons({}, rng).size() == 100);
  rng.seed(0);
  CHECK_THROWS_WITH(make_moons({.samples = -1}, rng), ContainsSubstring("make_moons: requires 0 samples or more") &&
                                                          ContainsSubstring("test_data_makers.cpp:"));
  CHECK_THROWS_WITH(make_moons({.samples = 4, .noise = -0.1}, rng),
                    ContainsSubstring("make_moons: requires a noise of 0 or more, got -0.1"));
  CHECK(rng.rand() == RandomState(0).rand());
}

// The numbers of the following sets: NumPy 1.24, by the original programs.

TEST_CASE("make_circles draws the course's circles") {
  const Dataset train = make_circles({.samples = 300, .noise = 0.05}, RandomState(1));
  CHECK(train.x.shape() == Dims{2, 300});
  CHECK(train.y.shape() == Dims{1, 300});
  CHECK(train.axis == 1);
  check_point(train, 0, -0.07741354010048114, 0.8526022642742743);
  check_point(train, 1, 0.43186959584803564, -0.8721450395952107);
  check_point(train, 2, 0.07916502322979652, 0.8406610985900007);
  const std::vector<double> labels{1, 0, 1, 1, 0, 0, 1, 0, 1, 1};
  for (std::size_t i = 0; i < labels.size(); ++i) CHECK(train.y[static_cast<std::int64_t>(i)] == labels[i]);
  CHECK(sums(train)[0] == Approx(0.08752101204353929));
  CHECK(sums(train)[1] == Approx(0.015659577954547865));
  const Dataset test = make_circles({.samples = 100, .noise = 0.05}, RandomState(2));
  check_point(test, 0, -0.5242373850862545, -0.6091036148461817);
  check_point(test, 1, -0.8508922630636759, -0.5214512721012066);
}

TEST_CASE("The course's first cost on the circles") {
  // He initialisation of [2, 10, 5, 1] by seed 3, as the course prints its cost: 0.8830537463419761.
  const Dataset data = make_circles({.samples = 300, .noise = 0.05}, RandomState(1));
  RandomState rng(3);
  const std::vector<std::int64_t> units{2, 10, 5, 1};
  std::vector<Array> weights;
  for (std::size_t l = 1; l < units.size(); ++l)
    weights.push_back(rng.randn(units[l], units[l - 1]) * std::sqrt(2.0 / static_cast<double>(units[l - 1])));
  double cost = 0;
  for (std::int64_t e = 0; e < 300; ++e) {
    std::vector<double> a{data.x(0, e), data.x(1, e)};
    for (std::size_t l = 0; l < weights.size(); ++l) {
      std::vector<double> z;
      for (std::int64_t i = 0; i < units[l + 1]; ++i) {
        double sum = 0;
        for (std::int64_t j = 0; j < units[l]; ++j) sum += weights[l](i, j) * a[static_cast<std::size_t>(j)];
        z.push_back(l + 1 < weights.size() ? std::max(0.0, sum) : sum);
      }
      a = z;
    }
    cost += std::log1p(std::exp(data.y[e] == 1 ? -a[0] : a[0])) / 300;
  }
  CHECK(cost == Approx(0.8830537463419761).epsilon(1e-12));
}

TEST_CASE("Circles are circles") {
  RandomState rng(0);
  const Dataset data = make_circles({.samples = 7, .shuffle = false, .factor = 0.25}, rng);
  CHECK(rng.rand() == RandomState(0).rand());  // nothing was drawn
  CHECK(data.y.identical(Array({{0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0}})));
  for (std::int64_t i = 0; i < 7; ++i) CHECK(std::hypot(data.x(0, i), data.x(1, i)) == Approx(i < 3 ? 1 : 0.25));
  check_point(data, 0, 1, 0);
  check_point(data, 1, -0.5, std::sqrt(0.75));
  check_point(data, 4, 0, 0.25);
  CHECK(make_circles({}, rng).size() == 100);
  CHECK(make_circles({.samples = 1}, rng).y.item() == 1);
  CHECK_THROWS_WITH(make_circles({.samples = -1}, rng), ContainsSubstring("make_circles: requires 0 samples or more"));
  CHECK_THROWS_WITH(make_circles({.noise = -1}, rng), ContainsSubstring("requires a noise of 0 or more, got -1"));
  CHECK_THROWS_WITH(make_circles({.factor = 1}, rng),
                    ContainsSubstring("requires a factor within [0, 1), got 1") && ContainsSubstring("test_data_"));
}

TEST_CASE("make_flower draws the course's flower") {
  const Dataset data = make_flower({}, RandomState(1));
  CHECK(data.x.shape() == Dims{2, 400});
  CHECK(data.y.shape() == Dims{1, 400});
  for (std::int64_t i = 0; i < 400; ++i) CHECK(data.y[i] == (i < 200 ? 0 : 1));
  check_point(data, 0, 1.2044422922543192, 3.576114148128845);
  check_point(data, 199, -0.5858464101358457, -3.091259938950624);
  check_point(data, 399, 0.7307808250007515, 3.0683292081876554);
  CHECK(sums(data)[0] == Approx(-17.33836367040439));
  CHECK(sums(data)[1] == Approx(27.426346947846035));
  const Dataset small = make_flower({.samples = 6, .ray = 2}, RandomState(5));
  const double x0[] = {0.05648990908591785, -0.5824292137964413, -1.0010963972185776,
                       -0.307041967913153,  1.3570031354990508,  0.0004887938233032986};
  const double x1[] = {0.6384824219037253, -0.044918525310549996, -1.997626256115613,
                       1.4883780195205105, 0.20608531333880156,   -0.08628733612667691};
  for (std::int64_t i = 0; i < 6; ++i) check_point(small, i, x0[i], x1[i]);
  CHECK_THROWS_WITH(make_flower({.samples = 5}, RandomState(0)),
                    ContainsSubstring("make_flower: requires an even number of samples, got 5"));
  CHECK_THROWS_WITH(make_flower({.noise = -1}, RandomState(0)), ContainsSubstring("requires a noise of 0 or more"));
}

TEST_CASE("make_spirals draws the course's spirals") {
  const Dataset data = make_spirals({.samples = 50, .noise = 0.5}, RandomState(3));
  CHECK(data.x.shape() == Dims{2, 50});
  for (std::int64_t i = 0; i < 50; ++i) CHECK(data.y[i] == (i < 25 ? 0 : 1));
  check_point(data, 0, 0.8943142367151593, 0);
  check_point(data, 24, 46.8594110118493, -0.01736677137848228);
  check_point(data, 25, -0.08455547387079416, -0.13168734816823058);
  check_point(data, 49, 31.446988107876276, -0.011654705879108001);
  CHECK(sums(data)[0] == Approx(66.3433455230993));
  CHECK(sums(data)[1] == Approx(-151.26862601556033));
  CHECK_THROWS_WITH(make_spirals({.samples = -2}, RandomState(0)),
                    ContainsSubstring("make_spirals: requires 0 samples"));
}
