// Threads: the same bits for every number of them; the number itself.
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <thread>

#include <dlfcn.h>
#include <pthread.h>

#include <catch2/catch.hpp>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/core/thread_pool.hpp>

#include "support.hpp"

using namespace chainrule;

namespace {

// How many threads the system will still start.
std::atomic<int> threads_left = 1 << 20;

}  // namespace

// In the place of the C library's own: a system that refuses further threads.
extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* with) {
  static const auto real = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  return threads_left.fetch_sub(1) > 0 ? real(thread, attributes, run, with) : EAGAIN;
}

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

TEST_CASE("a system that refuses threads: runs go on with those that there are") {
  const Threads restore;
  Graph graph;
  const auto w = graph.parameter("w", Initial(numbers(float64, {500, 700}, 3)));
  const auto v = graph.variable("v", zeros({4}));
  const auto y = tanh(exp(sin(w)) * 2.0 + 1.0);
  State state(graph);
  Program program(state, {.outputs = {sum(y)}, .updates = {{v, v + 1.0}, {w, y}}});
  const State start = state;
  set_num_threads(1);
  const double right = program.run().scalar();
  const Array right_w = state[w];
  for (const int allowed : {0, 1, 2}) {
    state = start;
    set_num_threads(4);
    threads_left = allowed;
    CHECK(program.run().scalar() == right);
    CHECK(state[w].identical(right_w));
    CHECK(state[v][0] == 1);
    CHECK(state.step() == 1);
    CHECK(num_threads() == 4);
    threads_left = 1 << 20;
    state = start;
    CHECK(program.run().scalar() == right);
    set_num_threads(3);  // and now they can be started
    state = start;
    CHECK(program.run().scalar() == right);
  }
}

// ---- a State and several threads

TEST_CASE("a program that is running says so to a second thread") {
  static std::atomic<int> inside;
  static std::atomic<bool> leave;
  static const Op& wait = register_op({.name = "wait",
                                       .doc = "x, once told to go on.",
                                       .shape = same_shape,
                                       .forward = kernel([]<class T>(const auto& x, Tensor<T> y, const Attributes&) {
                                         std::copy(x[0].begin(), x[0].end(), y.begin());
                                         ++inside;
                                         while (!leave) std::this_thread::yield();
                                       }),
                                       .samples = {{.inputs = {ones({2})}, .differentiate = false}}});
  inside = 0;
  leave = false;
  Graph graph;
  const auto x = graph.input("x", {2});
  State state(graph);
  Program program(state, {.outputs = {apply(wait, {x})}});
  Program other(state, {.outputs = {x * 2.0}});
  const Array fed({1.0, 2.0});
  std::thread first([&] { program.run({{x, fed}}); });
  while (inside == 0) std::this_thread::yield();
  const auto error = [](const std::function<void()>& f) { return std::string(test::error_of(f).what()); };
  CHECK_THAT(error([&] { program.run({{x, fed}}); }), Catch::Contains("run: requires a program that is not running"));
  CHECK_THAT(error([&] { program.clear(); }), Catch::Contains("clear: requires a program that is not running"));
  CHECK_THAT(error([&] { static_cast<void>(program.memory()); }), Catch::Contains("memory: requires"));
  // Another one reads beside it; what it reads of the State itself does not wait either.
  CHECK(other.run({{x, fed}})[0][1] == 4);
  CHECK(state.step() == 0);
  leave = true;
  first.join();
  CHECK(program.run({{x, fed}})[0].identical(fed));
}

TEST_CASE("readers of a State see all of a run's updates or none") {
  const Threads restore;
  set_num_threads(2);
  constexpr int runs = 300;
  Graph graph;
  const auto w = graph.variable("w", zeros({50'000}));
  const auto v = graph.variable("v", zeros({3}));
  const Values seen = {min(w), max(w), v, cast(graph.step(), float64)};
  State state(graph);
  // After k runs all of w is k, and so are v and the step.
  Program train(state, {.updates = {{w, w + 1.0}, {v, v + 1.0}}});
  std::atomic<bool> stop = false;
  std::atomic<int> torn = 0;
  std::atomic<int> looks = 0;
  std::vector<std::thread> readers;
  const auto read = [&](auto look) {
    readers.emplace_back([&, look] {
      for (double last = 0; !stop; ++looks) {
        const auto [low, high] = look();
        if (low != high || low < last) ++torn;
        last = low;
      }
    });
  };
  for (int i = 0; i < 2; ++i)
    read([&, program = std::make_shared<Program>(state, Request{.outputs = seen})] {
      const Results r = program->run();
      return std::pair(std::min({r.scalar(0), r[2][0], r.scalar(3)}), std::max({r.scalar(1), r[2][2], r.scalar(3)}));
    });
  read([&] {
    const Array all = state.snapshot(w);
    const auto [low, high] = std::minmax_element(all.data<double>(), all.data<double>() + all.size());
    return std::pair(*low, *high);
  });
  read([&] {
    const State copy = state;
    const auto now = static_cast<double>(copy.step());
    return std::pair(std::min({now, copy[v][0], copy[w][0]}), std::max({now, copy[v][2], copy[w][49'999]}));
  });
  for (int i = 0; i < runs; ++i) train.run();
  // A reader that comes is let in: so they all have looked before the training ends, however little it pauses.
  for (int i = 0; i < 10'000 && looks < 40; ++i) train.run();
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(torn == 0);
  CHECK(looks >= 40);
  CHECK(state[v][0] == static_cast<double>(state.step()));
}

TEST_CASE("several threads train one State, and others set and load it") {
  Graph graph;
  const auto v = graph.variable("v", zeros({1000}));
  const auto next = v + 1.0;
  const auto total = sum(v);
  State state(graph);
  const std::string path = (std::filesystem::temp_directory_path() / "chainrule_threads.safetensors").string();
  state.save(path);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t)
    threads.emplace_back([&] {
      Program program(state, {.updates = {{v, next}}});
      for (int i = 0; i < 200; ++i) program.run();
    });
  for (std::thread& thread : threads) thread.join();
  CHECK(state.step() == 600);
  CHECK(state[v].identical(Array::full(float64, {1000}, 600)));

  threads.clear();
  std::atomic<bool> stop = false;
  threads.emplace_back([&] {
    for (Program program(state, {.updates = {{v, next}}}); !stop;) program.run();
  });
  threads.emplace_back([&] {
    for (State other = state; !stop; other = state) state = other;
  });
  for (int i = 0; i < 50; ++i) {
    state.load(path);
    state.set(v, Array::full(float64, {1000}, 5));
    state.reset();
    state.save(path);
    // Programs are made and go meanwhile.
    Program(state, {.outputs = {total}}).run();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const Array end = state[v];
  CHECK(end.identical(Array::full(float64, {1000}, end[0])));
  std::filesystem::remove(path);
}

TEST_CASE("what a run's own kernel asks of the State it need not wait for") {
  static State* looked_at = nullptr;
  static const Op& look = register_op({.name = "look",
                                       .doc = "The State's step.",
                                       .shape = same_shape,
                                       .forward = kernel([]<class T>(const auto&, Tensor<T> y, const Attributes&) {
                                         const auto step = looked_at ? looked_at->step() : 0;
                                         std::fill(y.begin(), y.end(), static_cast<T>(step));
                                       }),
                                       .samples = {{.inputs = {ones({2})}, .differentiate = false}}});
  Graph graph;
  const auto v = graph.variable("v", zeros({2}));
  State state(graph);
  looked_at = &state;
  Program train(state, {.outputs = {apply(look, {v})}, .updates = {{v, v + 1.0}}});
  Program only(state, {.outputs = {apply(look, {v})}});
  train.run();
  CHECK(train.run()[0][0] == 1);
  CHECK(only.run()[0][0] == 2);
  looked_at = nullptr;
}

// ---- the environment

namespace {

// What a process of this program says, run with this set.
std::string said_with(const std::string& variable) {
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  FILE* pipe = popen((variable + " '" + self + "' '[.environment]' 2>&1").c_str(), "r");
  std::string out;
  for (int c = 0; pipe && (c = std::fgetc(pipe)) != EOF;) out += static_cast<char>(c);
  if (pipe) pclose(pipe);
  return out;
}

}  // namespace

TEST_CASE("in an environment", "[.environment]") {
  Graph graph;
  const auto v = graph.variable("v", zeros({2}));
  State state(graph);
  const int line = __LINE__ + 1;
  const Error error = test::error_of([&] { Program(state, {.updates = {{v, v + 1.0}}}).run(); });
  CHECK((error.location().line == line || error.location().line == 0));
  std::printf("[%s] v is %g, step %d\n", error.what(), state[v][0], static_cast<int>(state.step()));
}

TEST_CASE("environment variables that say nothing of use are an Error before anything is done") {
  using Catch::Contains;
  CHECK_THAT(said_with("CHAINRULE_NUM_THREADS=abc"),
             Contains("CHAINRULE_NUM_THREADS: requires a number from 1 to 1024, got 'abc'] v is 0, step 0"));
  CHECK_THAT(said_with("CHAINRULE_NUM_THREADS=0"), Contains("from 1 to 1024, got '0'] v is 0, step 0"));
  CHECK_THAT(said_with("CHAINRULE_ARCH=avx3"),
             Contains("CHAINRULE_ARCH: requires baseline, avx2 or avx512, got 'avx3'] v is 0, step 0"));
  CHECK_THAT(said_with("CHAINRULE_ARCH=AVX2"), Contains("got 'AVX2'] v is 0, step 0"));
  for (const char* right : {"CHAINRULE_NUM_THREADS=1", "CHAINRULE_NUM_THREADS=", "CHAINRULE_ARCH=",
                            "CHAINRULE_ARCH=avx2", "CHAINRULE_ARCH=baseline", "CHAINRULE_ARCH=avx512"})
    CHECK_THAT(said_with(right), Contains("nothing was thrown] v is 1, step 1"));
}
