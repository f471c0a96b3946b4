// Threads: the same bits for every number of them; the number itself.
#include <cmath>
#include <thread>

#include <catch2/catch.hpp>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/thread_pool.hpp>

#include "support.hpp"

using namespace chainrule;

namespace {

// Sets the number of threads back.
struct Threads {
  int before = num_threads();
  ~Threads() { set_num_threads(before); }
};

const int counts[] = {1, 2, 3, 8};

Array numbers(DType dtype, const Dims& shape, int seed) {
  numpy::RandomState rng(static_cast<std::uint32_t>(seed));
  Array out(dtype, shape);
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, rng.rand() * 2 - 1);
  return out;
}

}  // namespace

TEST_CASE("the number of threads") {
  const Threads restore;
  CHECK(num_threads() >= 1);
  set_num_threads(3);
  CHECK(num_threads() == 3);
  CHECK_THROWS_WITH(set_num_threads(0), Catch::Contains("set_num_threads: requires a number from 1 to 1024, got 0"));
  CHECK_THROWS_AS(set_num_threads(1025), Error);
  CHECK(num_threads() == 3);
}

TEST_CASE("each chunk runs once, on any number of threads") {
  const Threads restore;
  for (const int count : counts) {
    set_num_threads(count);
    for (const std::size_t chunks : {0U, 1U, 2U, 7U, 1000U}) {
      std::vector<int> runs(chunks, 0);
      for (int repeat = 0; repeat < 20; ++repeat)
        detail::parallel_for(chunks, [&](std::size_t chunk, void*) { ++runs[chunk]; });
      CHECK(runs == std::vector<int>(chunks, 20));
    }
  }
}

TEST_CASE("scratch memory is a thread's own, of the size that was reserved") {
  const Threads restore;
  set_num_threads(4);
  for (const std::size_t bytes : {std::size_t{64}, std::size_t{1} << 16, std::size_t{1} << 18}) {
    detail::reserve_scratch(bytes);
    std::vector<char> wrong(200, 0);
    detail::parallel_for(wrong.size(), [&](std::size_t chunk, void* scratch) {
      if (!scratch) return;
      auto* own = static_cast<unsigned char*>(scratch);
      for (std::size_t i = 0; i < bytes; i += 61) own[i] = static_cast<unsigned char>(chunk);
      for (std::size_t i = 0; i < bytes; i += 61) wrong[chunk] |= own[i] != static_cast<unsigned char>(chunk);
    });
    CHECK(std::count(wrong.begin(), wrong.end(), 0) == 200);
  }
}

TEST_CASE("runs on several of the caller's threads at once") {
  const Threads restore;
  set_num_threads(3);
  std::vector<Array> results(4);
  std::vector<std::thread> users;
  for (std::size_t user = 0; user < results.size(); ++user) {
    users.emplace_back([&, user] {
      Graph graph;
      const auto x = graph.input("x", {300, 400});
      const auto y = sum(exp(x) * tanh(x + 1.0), 0) + sum(matmul(x, transpose(x)));
      State state(graph);
      Program program(state, {.outputs = {y}});
      const Array fed = numbers(float64, {300, 400}, 5);
      for (int i = 0; i < 20; ++i) results[user] = program.run({{x, fed}})[0];
    });
  }
  for (std::thread& user : users) user.join();
  for (const Array& result : results) CHECK(result.identical(results[0]));
}

TEMPLATE_TEST_CASE("products have the same bits for every number of threads", "", float, double) {
  const Threads restore;
  const DType dtype = dtype_of<TestType>();
  const auto [m, n, k] = GENERATE(table<std::int64_t, std::int64_t, std::int64_t>({{128, 512, 784},
                                                                                   {784, 512, 128},
                                                                                   {65, 1000, 300},
                                                                                   {1000, 65, 300},
                                                                                   {333, 333, 333},
                                                                                   {64, 64, 64},
                                                                                   {1, 3000, 3000}}));
  const bool ta = GENERATE(false, true);
  const bool tb = GENERATE(false, true);
  INFO(m << " " << n << " " << k << " " << ta << tb);
  Graph graph({.dtype = dtype});
  const auto a = graph.input("a", ta ? Shape{k, m} : Shape{m, k});
  const auto b = graph.input("b", tb ? Shape{n, k} : Shape{k, n});
  const auto c = matmul(ta ? transpose(a) : a, tb ? transpose(b) : b);
  State state(graph);
  Program program(state, {.outputs = {c}});
  const Array x = numbers(dtype, evaluate(a.shape(), Sizes{}), 1);
  const Array y = numbers(dtype, evaluate(b.shape(), Sizes{}), 2);
  set_num_threads(1);
  const Array one = program.run({{a, x}, {b, y}})[0];
  for (const int count : counts) {
    set_num_threads(count);
    CHECK(program.run({{a, x}, {b, y}})[0].identical(one));
  }
}

TEMPLATE_TEST_CASE("sums in fused groups: right, and the same bits for every number of threads", "", float, double) {
  const Threads restore;
  const DType dtype = dtype_of<TestType>();
  const auto sizes = GENERATE(table<std::int64_t, std::int64_t>({{1, 1},
                                                                 {3, 5},
                                                                 {1, 700},
                                                                 {700, 1},
                                                                 {6, 127},
                                                                 {5, 128},
                                                                 {130, 513},
                                                                 {70, 1300},
                                                                 {2, 70'000},
                                                                 {70'000, 2},
                                                                 {900, 64},
                                                                 {0, 4},
                                                                 {4, 0}}));
  const std::int64_t rows = std::get<0>(sizes);
  const std::int64_t columns = std::get<1>(sizes);
  INFO(rows << " by " << columns);
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", {rows, columns});
  const auto row = graph.input("row", {columns});
  const auto column = graph.input("column", {rows, 1});
  const auto y = (x * row + column) * x;
  State state(graph);
  Program program(state,
                  {.outputs = {y, sum(y), sum(y, 0), sum(y, 1), sum(square(y), 1, true), sum(y * 2.0, 0, true)}});
  const Array xs = numbers(dtype, {rows, columns}, 1);
  const Array row_numbers = numbers(dtype, {columns}, 2);
  const Array column_numbers = numbers(dtype, {rows, 1}, 3);
  const auto run = [&] {
    const auto results = program.run({{x, xs}, {row, row_numbers}, {column, column_numbers}});
    std::vector<Array> out;
    for (std::size_t i = 0; i < results.size(); ++i) out.push_back(results[i]);
    return out;
  };
  set_num_threads(1);
  const auto one = run();
  if (rows > 1 && columns > 1) CHECK(program.explain().find("fused mul add mul sum") != std::string::npos);

  // A sum of n numbers of size up to 4 in pairwise blocks errs by few ULPs of the sum of their sizes.
  const double ulp = dtype == float32 ? 0x1p-23 : 0x1p-52;
  const auto element = [&](std::int64_t i, std::int64_t j) -> long double { return one[0][i * columns + j]; };
  const auto near = [&](double made, long double right, long double sizes) {
    return std::abs(made - right) <= 40 * ulp * sizes;
  };
  long double total = 0;
  long double total_size = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    long double along = 0;
    long double squares = 0;
    long double size = 0;
    for (std::int64_t j = 0; j < columns; ++j) {
      along += element(i, j);
      squares += element(i, j) * element(i, j);
      size += std::abs(element(i, j));
    }
    total += along;
    total_size += size;
    REQUIRE(near(one[3][i], along, size));
    REQUIRE(near(one[4][i], squares, squares));
  }
  CHECK(near(one[1][0], total, total_size));
  for (std::int64_t j = 0; j < columns; ++j) {
    long double down = 0;
    long double size = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      down += element(i, j);
      size += std::abs(element(i, j));
    }
    REQUIRE(near(one[2][j], down, size));
    REQUIRE(near(one[5][j], 2 * down, 2 * size));
  }

  for (const int count : counts) {
    set_num_threads(count);
    const auto several = run();
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(several[i].identical(one[i]));
  }
}

TEST_CASE("training has the same bits for every number of threads") {
  const Threads restore;
  const auto train = [](int threads) {
    set_num_threads(threads);
    Graph graph({.dtype = float32, .seed = 7});
    const auto batch = graph.dimension("batch");
    const auto x = graph.input("x", {batch, 100});
    const auto labels = graph.input("labels", {batch}, int64);
    const auto layer = nn::dense(x, 400, init::he_normal());
    const auto h = dropout(relu(nn::batch_norm(layer)), {.keep = 0.8});
    const auto logits = nn::dense(h, 10, init::glorot_normal());
    const auto loss = softmax_cross_entropy(logits, labels) + 1e-3 * l2({layer.weight});
    State state(graph);
    Program program(state, {.outputs = {loss}, .updates = optim::Adam{.learning_rate = 1e-2}.minimize(loss)});
    const Array fed = numbers(float32, {300, 100}, 1);
    Array classes(int64, {300});
    for (std::int64_t i = 0; i < 300; ++i) classes.set(i, static_cast<double>(i * 7 % 10));
    std::vector<Array> out;
    for (int step = 0; step < 5; ++step) out.push_back(program.run({{x, fed}, {labels, classes}})[0]);
    for (const Value parameter : graph.parameters()) out.push_back(state[parameter]);
    return out;
  };
  const auto one = train(1);
  for (const int count : counts) {
    const auto several = train(count);
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(several[i].identical(one[i]));
  }
}
