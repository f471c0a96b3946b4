// The numbers here are what NumPy 1.24 gives for these calls, to the last bit.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <chainrule/framework/data/numpy_random.hpp>

#include "catch.hpp"
#include "expected.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::Error;
using chainrule::numpy::RandomState;

namespace {

std::vector<double> doubles(const Array& a) { return {a.data<double>(), a.data<double>() + a.size()}; }
std::vector<std::int64_t> integers(const Array& a) {
  return {a.data<std::int64_t>(), a.data<std::int64_t>() + a.size()};
}
std::uint32_t word(RandomState& rng) { return static_cast<std::uint32_t>(rng.randint(0, std::int64_t{1} << 32)); }

}  // namespace

TEST_CASE("randn gives NumPy's numbers") {
  CHECK(doubles(RandomState(1).randn(2, 4)) == std::vector{1.6243453636632417, -0.6117564136500754, -0.5281717522634557,
                                                           -1.0729686221561705, 0.8654076293246785, -2.3015386968802827,
                                                           1.74481176421648, -0.7612069008951028});
  CHECK(doubles(RandomState(0).randn(3)) == std::vector{1.764052345967664, 0.4001572083672233, 0.9787379841057392});
  CHECK(doubles(RandomState(42).randn(3)) == std::vector{0.4967141530112327, -0.13826430117118466, 0.6476885381006925});
  CHECK(doubles(RandomState(3).randn(3)) == std::vector{1.7886284734303186, 0.43650985051198943, 0.09649746807200862});
}

TEST_CASE("rand gives NumPy's numbers") {
  CHECK(doubles(RandomState(1).rand(3)) == std::vector{0.417022004702574, 0.7203244934421581, 0.00011437481734488664});
  CHECK(doubles(RandomState(4294967295).rand(2)) == std::vector{0.0976320289940138, 0.9123828453026218});
}

TEST_CASE("uniform and normal give NumPy's numbers") {
  CHECK(doubles(RandomState(7).uniform(-2, 3, {3})) ==
        std::vector{-1.618458553130214, 1.8995939612005732, 0.1920461572044676});
  CHECK(doubles(RandomState(7).normal(10, 2, {3})) ==
        std::vector{13.381051407600712, 9.068125258918334, 10.065640327357169});
  CHECK(RandomState(7).uniform() == RandomState(7).rand());
  CHECK(RandomState(7).normal() == RandomState(7).randn());
  // As for NumPy, low may be above high.
  const double falling = RandomState(7).uniform(3, 1);
  CHECK((falling > 1 && falling <= 3));
}

TEST_CASE("randint gives NumPy's numbers") {
  CHECK(integers(RandomState(3).randint(0, 10, 20)) ==
        std::vector<std::int64_t>{8, 9, 3, 8, 8, 0, 5, 3, 9, 9, 5, 7, 6, 0, 4, 7, 8, 1, 6, 2});
  CHECK(integers(RandomState(42).randint(0, std::int64_t{1} << 32, 3)) ==
        std::vector<std::int64_t>{1608637542, 3421126067, 4083286876});
  // Beyond 32 bits: two words a number.
  CHECK(integers(RandomState(42).randint(0, std::int64_t{1} << 40, 3)) ==
        std::vector<std::int64_t>{441507790259, 395924837646, 458615280711});
  using Limits = std::numeric_limits<std::int64_t>;
  CHECK(integers(RandomState(42).randint(Limits::min(), Limits::max(), 3)) ==
        std::vector<std::int64_t>{-2314326399425823309, 8314211556539077902, 4279532810384561223});
}

TEST_CASE("permutation and shuffle give NumPy's order") {
  CHECK(RandomState(3).permutation(10) == std::vector<std::int64_t>{5, 4, 1, 2, 9, 6, 7, 0, 3, 8});
  RandomState rng(8);
  std::vector<std::string> letters{"a", "b", "c", "d", "e", "f", "g", "h"};
  rng.shuffle(letters);
  CHECK(letters == std::vector<std::string>{"h", "a", "c", "g", "f", "b", "e", "d"});
  CHECK(rng.rand() == 0.81646128172225);
}

TEST_CASE("The course's permutation of 148 examples") {
  const auto* table = chainrule::test::expected("001.minibatch_shapes");
  if (table == nullptr) return;
  const auto& params = table->at("params");
  const auto first = params.at("first_permutation_entries").get<std::vector<std::int64_t>>();
  auto drawn = RandomState(params.at("permutation_seed").get<std::int64_t>()).permutation(148);
  drawn.resize(first.size());
  CHECK(drawn == first);
}

TEST_CASE("The words are those of the standard's mt19937") {
  for (const std::uint32_t seed : {0U, 1U, 5489U, 2147483648U, 4294967295U}) {
    std::mt19937 reference(seed);
    RandomState rng(seed);
    bool equal = true;
    for (int i = 0; i < 10'000; ++i) equal = equal && word(rng) == reference();
    CHECK(equal);
  }
  // The standard states the 10,000th word of the default seed.
  RandomState rng(5489);
  for (int i = 1; i < 10'000; ++i) word(rng);
  CHECK(word(rng) == 4123659995U);
}

TEST_CASE("permutation is shuffle of 0, 1, 2, ... and leaves the generator where shuffle does") {
  const auto n = GENERATE(0, 1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, 623, 1000, 5000);
  RandomState a(17);
  RandomState b(17);
  const auto permutation = a.permutation(n);
  std::vector<std::int64_t> counted(static_cast<std::size_t>(n));
  std::iota(counted.begin(), counted.end(), 0);
  auto shuffled = counted;
  b.shuffle(shuffled);
  CHECK(permutation == shuffled);
  CHECK(a.rand() == b.rand());
  std::sort(shuffled.begin(), shuffled.end());
  CHECK(shuffled == counted);
}

TEST_CASE("shuffle takes spans and arrays, and draws nothing for fewer than two elements") {
  RandomState rng(5);
  std::vector<int> none;
  std::array<int, 1> one{7};
  rng.shuffle(none);
  rng.shuffle(one);
  rng.shuffle(std::span<int>(one));
  CHECK(rng.permutation(0).empty());
  CHECK(rng.permutation(1) == std::vector<std::int64_t>{0});
  CHECK(rng.randint(7, 8) == 7);
  CHECK(rng.rand() == RandomState(5).rand());

  std::vector<int> whole(10);
  std::iota(whole.begin(), whole.end(), 0);
  RandomState(5).shuffle(std::span(whole).subspan(2));
  CHECK(whole[0] == 0);
  CHECK(whole[1] == 1);
}

TEST_CASE("The second normal number of a pair is kept until it is asked for") {
  RandomState rng(5);
  CHECK(rng.randn() == 0.44122748688504143);
  CHECK(rng.rand() == 0.20671915533942642);
  CHECK(rng.permutation(5) == std::vector<std::int64_t>{3, 2, 4, 1, 0});
  CHECK(rng.randn() == -0.33087015189408764);  // the second of the pair: RandomState(5).randn(2)[1]
  CHECK(rng.rand() == 0.6117438629026457);
  CHECK(RandomState(5).randn(2)[1] == -0.33087015189408764);

  SECTION("but not over a new seed") {
    rng.seed(5);
    rng.randn();
    rng.seed(6);
    CHECK(rng.randn() == RandomState(6).randn());
  }
}

TEST_CASE("Arrays are filled in the order of single draws") {
  const auto same = [](auto array, auto single) {
    RandomState a(9);
    RandomState b(9);
    const Array all = array(a);
    bool equal = true;
    for (std::int64_t i = 0; i < all.size(); ++i) equal = equal && all[i] == static_cast<double>(single(b));
    return equal && a.rand() == b.rand();
  };
  CHECK(same([](auto& r) { return r.rand(5, 7); }, [](auto& r) { return r.rand(); }));
  CHECK(same([](auto& r) { return r.random_sample({35}); }, [](auto& r) { return r.random_sample(); }));
  CHECK(same([](auto& r) { return r.randn(5, 7); }, [](auto& r) { return r.randn(); }));
  CHECK(same([](auto& r) { return r.standard_normal({5, 7}); }, [](auto& r) { return r.standard_normal(); }));
  CHECK(same([](auto& r) { return r.uniform(-1, 4, {5, 7}); }, [](auto& r) { return r.uniform(-1, 4); }));
  CHECK(same([](auto& r) { return r.normal(-1, 4, {5, 7}); }, [](auto& r) { return r.normal(-1, 4); }));
  CHECK(same([](auto& r) { return r.randint(-3, 4, 5, 7); }, [](auto& r) { return r.randint(-3, 4); }));
}

TEST_CASE("Shapes and dtypes") {
  RandomState rng(1);
  const std::size_t units = 5;
  const std::int64_t fan_in = 2;
  const Array weights = rng.randn(units, fan_in) * std::sqrt(2.0 / static_cast<double>(fan_in));
  CHECK(weights.shape() == Dims{5, 2});
  CHECK(weights.dtype() == chainrule::float64);
  CHECK(rng.rand(2, 3L, 4U).shape() == Dims{2, 3, 4});
  CHECK(rng.randint(0, 2, {0}).shape() == Dims{0});
  CHECK(rng.randint(0, 2, {}).shape() == Dims{});
  CHECK(rng.randint(0, 2, 3).dtype() == chainrule::int64);
  CHECK(rng.uniform(0, 1, {0, 3}).size() == 0);
}

TEST_CASE("Numbers keep within their bounds") {
  RandomState rng(11);
  const auto within = [](const Array& a, double low, double below) {
    bool inside = true;
    for (std::int64_t i = 0; i < a.size(); ++i) inside = inside && a[i] >= low && a[i] < below;
    return inside;
  };
  CHECK(within(rng.rand(10'000), 0, 1));
  CHECK(within(rng.uniform(-2, 5, {10'000}), -2, 5));
  for (const std::int64_t width : {1, 2, 3, 7, 8, 9, 100}) {
    const Array a = rng.randint(-3, width - 3, 2000);
    CHECK(within(a, -3, static_cast<double>(width - 3)));
    // Every one of them turns up.
    auto distinct = integers(a);
    std::sort(distinct.begin(), distinct.end());
    CHECK(std::unique(distinct.begin(), distinct.end()) - distinct.begin() == width);
  }
}

TEST_CASE("Normal numbers have mean 0 and variance 1") {
  const Array a = RandomState(2).randn(100'000);
  double sum = 0;
  double squares = 0;
  for (const double x : doubles(a)) {
    sum += x;
    squares += x * x;
  }
  CHECK(std::abs(sum / 1e5) < 0.01);
  CHECK(std::abs(squares / 1e5 - 1) < 0.02);
}

TEST_CASE("A copy goes on independently with the same numbers") {
  RandomState rng(4);
  rng.randn();
  RandomState copy = rng;
  CHECK(doubles(rng.randn(9)) == doubles(copy.randn(9)));
  rng.rand();
  CHECK(rng.rand() != copy.rand());
}

TEST_CASE("Seeds may be any integers of 32 bits") {
  CHECK(RandomState(std::size_t{7}).rand() == RandomState(7).rand());
  CHECK(RandomState(short{7}).rand() == RandomState(std::uint8_t{7}).rand());
  const std::string required = "RandomState: requires a seed between 0 and 2**32 - 1, got ";
  CHECK_THROWS_WITH(RandomState(-1), ContainsSubstring(required + "-1"));
  CHECK_THROWS_WITH(RandomState(std::int64_t{1} << 32), ContainsSubstring(required + "4294967296"));
  CHECK_THROWS_WITH(RandomState(~std::uint64_t{0}), ContainsSubstring(required + "18446744073709551615"));
  RandomState rng(3);
  CHECK_THROWS_WITH(rng.seed(-5), ContainsSubstring(required + "-5") && ContainsSubstring("test_numpy_random.cpp:"));
  CHECK(rng.rand() == RandomState(3).rand());
}

TEST_CASE("Errors say what was required and draw nothing") {
  RandomState rng(3);
  CHECK_THROWS_WITH(rng.randint(5, 5), ContainsSubstring("randint: requires low < high, got 5 and 5"));
  CHECK_THROWS_WITH(rng.randint(5, 4, 2, 2), ContainsSubstring("randint: requires low < high, got 5 and 4"));
  CHECK_THROWS_WITH(rng.randint(5, 4, {2}), ContainsSubstring("test_numpy_random.cpp:"));
  CHECK_THROWS_WITH(rng.normal(0, -1), ContainsSubstring("normal: requires a deviation of 0 or more, got -1"));
  CHECK_THROWS_WITH(rng.normal(0, -1, {3}), ContainsSubstring("normal: requires a deviation of 0 or more, got -1"));
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH(rng.uniform(0, infinity), ContainsSubstring("uniform: requires a finite high - low"));
  CHECK_THROWS_WITH(rng.uniform(-1e308, 1e308, {2}), ContainsSubstring("uniform: requires a finite high - low"));
  CHECK_THROWS_WITH(rng.permutation(-1), ContainsSubstring("permutation: requires a length of 0 or more, got -1"));
  CHECK_THROWS_WITH(rng.rand(-1), ContainsSubstring("requires extents of 0 or more"));
  CHECK_THROWS_AS(rng.randn(2, -3), Error);
  CHECK(rng.rand() == RandomState(3).rand());
}
