// Threads: the same bits for every number of them; the number itself.
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <sstream>
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

// Sets the number of threads back; those that are set meanwhile work, on any machine.
struct Threads {
  detail::AssumedProcessors processors{8};
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

TEST_CASE("one_hot, elements by index and random numbers: cut, right, and the same for every number of threads") {
  const Threads restore;
  // Indices along the last axis, along the first of two, and along the only one.
  const Dims shape = GENERATE(Dims{700, 100}, Dims{100, 700}, Dims{70'000});
  const bool last = shape.rank() == 2 && shape[1] == 100;
  const std::int64_t axis = last ? 1 : 0;
  const std::int64_t extent = shape[static_cast<std::size_t>(axis)];
  const std::int64_t inner = shape.rank() == 2 && !last ? shape[1] : 1;
  Array index(int64, shape);
  for (std::int64_t i = 0; i < index.size(); ++i) index.set(i, static_cast<double>(i * 7919 % extent));
  const Array x = numbers(float64, shape, 4);
  Graph graph;
  const auto indices = graph.input("indices", Shape(shape), int64);
  const auto from = graph.input("from", Shape(shape));
  const Values values = {take_along_axis(from, indices, axis), scatter_add_along_axis(from, indices, extent, axis)};
  State state(graph);
  Program program(state, {.outputs = values});
  // Element i of the indices lies in line (o, k), and is element `at` of it.
  const auto place = [&](std::int64_t i) {
    const std::int64_t o = i / (extent * inner);
    return (o * extent + static_cast<std::int64_t>(index[i])) * inner + i % inner;
  };
  Array taken(float64, shape);
  Array added(float64, shape);
  for (std::int64_t i = 0; i < x.size(); ++i) {
    taken.set(i, x[place(i)]);
    added.set(place(i), added[place(i)] + x[i]);
  }
  for (const int count : counts) {
    set_num_threads(count);
    const auto results = program.run({{indices, index}, {from, x}});
    CHECK(results[0].identical(taken));
    CHECK(results[1].identical(added));
  }
  // Of several wrong indices the first is named.
  Array wrong = index;
  for (std::int64_t i = index.size() / 2; i < index.size(); ++i) wrong.set(i, static_cast<double>(extent + i));
  const std::string first = "got " + std::to_string(extent + index.size() / 2);
  for (const Value value : values) {
    Program alone(state, {.outputs = {value}});
    CHECK_THAT(test::error_of([&] { alone.run({{indices, wrong}, {from, x}}); }).what(), Catch::Contains(first));
  }
}

TEST_CASE("one_hot and random masks have the same bits for every number of threads") {
  const Threads restore;
  Graph graph({.seed = 3});
  const auto labels = graph.input("labels", {5000}, int64);
  const auto rows = one_hot(labels, 70, float64);
  const auto columns = one_hot(labels, 70, float64, 0);
  const auto drawn = dropout(graph.input("ones", {300, 301}), {.keep = 0.7});
  State state(graph);
  Program program(state, {.outputs = {rows, columns, drawn}, .optimize = false});  // masks by themselves
  Array classes(int64, {5000});
  for (std::int64_t i = 0; i < 5000; ++i) classes.set(i, static_cast<double>(i * 31 % 70));
  const Array all_ones = test::compute(graph, {broadcast_to(graph.constant(1.0), {300, 301})})[0];
  std::vector<Array> one;
  for (const int count : counts) {
    set_num_threads(count);
    const auto results = program.run({{labels, classes}, {graph.find("ones"), all_ones}});
    if (one.empty())
      for (std::size_t i = 0; i < 3; ++i) one.push_back(results[i]);
    for (std::size_t i = 0; i < 3; ++i) CHECK(results[i].identical(one[i]));
  }
  for (std::int64_t i = 0; i < 5000; ++i)
    for (std::int64_t k = 0; k < 70; ++k) {
      const double right = k == i * 31 % 70 ? 1 : 0;
      if (one[0][i * 70 + k] != right || one[1][k * 5000 + i] != right) FAIL("element " << i << ", class " << k);
    }
  classes.set(4990, 70);
  classes.set(1234, 71);
  CHECK_THAT(test::error_of([&] {
               program.run({{labels, classes}, {graph.find("ones"), all_ones}});
             }).what(),
             Catch::Contains("got 71 at element {1234}"));
}

// ---- how steps are cut, and which run side by side

namespace {

// W2 of the benchmark, or with `plain` W3: a classifier of the benchmark's sizes.
struct Classifier {
  Graph graph{{.dtype = float32}};
  Value x, y, loss;
  Array xs, ys;
  Updates updates;

  Classifier(const std::vector<std::int64_t>& units, std::int64_t batch, bool plain)
      : xs(float32, {batch, units.front()}), ys(int64, {batch}) {
    x = graph.input("x", {graph.dimension("batch"), units.front()});
    y = graph.input("y", {graph.dimension("batch")}, int64);
    Value h = x;
    Values weights;
    for (std::size_t i = 1; i < units.size(); ++i) {
      const auto layer = nn::dense(h, static_cast<std::size_t>(units[i]), init::zeros());
      h = layer;
      if (i + 1 == units.size()) break;
      if (!plain) h = nn::batch_norm(h);
      h = relu(h);
      if (!plain) h = dropout(h, {.keep = 0.8});
      weights.push_back(layer.weight);
    }
    loss = softmax_cross_entropy(h, y);
    if (!plain) loss = loss + 1e-4 * l2(weights);
    updates = plain ? optim::HeavyBall{.learning_rate = 0.1, .momentum = 0.9}.minimize(loss)
                    : optim::Adam{.learning_rate = 1e-3}.minimize(loss);
  }
};

// The share of the work that is in steps whose longest part is at most 1 / `parts` of the step. Work: the time that it
// would take at 100 GFLOP/s and 20 GB/s.
double share_cut_in(const Profile& profile, double parts) {
  double all = 0;
  double cut = 0;
  for (const Profile::Step& step : profile.steps) {
    const double work = step.flops / 100e9 + step.bytes / 20e9;
    all += work;
    if (step.longest <= 1 / parts) cut += work;
  }
  return cut / all;
}

}  // namespace

TEST_CASE("nearly all work of large networks is in steps that 16 threads share evenly") {
  const Threads restore;
  const bool plain = GENERATE(false, true);
  Classifier net(
      plain ? std::vector<std::int64_t>{1024, 4096, 4096, 1000} : std::vector<std::int64_t>{784, 512, 512, 10},
      plain ? 512 : 128, plain);
  State state(net.graph);
  Program program(state, {.outputs = {net.loss}, .updates = net.updates});
  const auto profile = [&](int threads) {
    set_num_threads(threads);
    program.start_profile();
    program.run({{net.x, net.xs}, {net.y, net.ys}});
    return program.profile();
  };
  const Profile shared = profile(16);
  CHECK(share_cut_in(shared, 12) >= 0.9);
  for (const Profile::Step& step : shared.steps) {
    CHECK(step.parts >= 1);
    CHECK(step.longest * static_cast<double>(step.parts) >= 1 - 1e-9);
    CHECK(step.longest <= 1);
  }
  CHECK_THAT(shared.to_string(), Catch::Contains("parts  longest  step"));
  // A product is cut for the threads that there are.
  for (const Profile::Step& step : profile(1).steps)
    if (step.flops > 0) CHECK((step.parts == 1 && step.longest == 1));
}

namespace {

// Gradients of a network whose products are worth a few threads each, with all that is kept up.
struct SmallLayers {
  Graph graph{{.dtype = float32}};
  Value x, loss;
  Values outputs;
  Updates updates;

  explicit SmallLayers(int layers) {
    x = graph.input("x", {64, 224});
    Value h = x;
    for (int i = 0; i < layers; ++i)
      h = tanh(matmul(h, graph.parameter("w" + std::to_string(i), Initial(numbers(float32, {224, 224}, i + 1)))) * 0.1);
    loss = mean(square(h));
    updates = optim::Adam{.learning_rate = 1e-3}.minimize(loss);
  }
  // The numbers after some steps with so many threads, and the plan in words.
  std::pair<std::vector<Array>, std::string> train(int threads, std::size_t memory_limit = 0) const {
    set_num_threads(threads);
    State state(graph);
    Program program(state, {.outputs = {loss}, .updates = updates, .memory_limit = memory_limit});
    const Array fed = numbers(float32, {64, 224}, 99);
    std::vector<Array> out;
    for (int step = 0; step < 3; ++step) out.push_back(program.run({{x, fed}})[0]);
    for (const Value parameter : graph.parameters()) out.push_back(state[parameter]);
    return {out, program.explain()};
  }
};

std::size_t arena_of(const std::string& plan) { return std::stoul(plan.substr(plan.find("\narena: ") + 8)); }

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("products that leave threads idle run side by side, to the same bits") {
  const Threads restore;
  const SmallLayers net(8);
  const auto [one, plan_of_one] = net.train(1);
  CHECK(count_of(plan_of_one, ", beside step") == 0);
  const auto [several, plan] = net.train(16);
  // The two products of a layer's backward pass; the first layer has one.
  CHECK(count_of(plan, ", beside step") >= 6);
  // An eighth more for values, and scratch memory for a second product.
  CHECK(arena_of(plan) <= arena_of(plan_of_one) / 8 * 9 + 65'536);
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(several[i].identical(one[i]));
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto again = net.train(8).first;
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(again[i].identical(one[i]));
  }
  // Within a limit of memory none do where that would take more.
  const std::size_t least = arena_of(plan_of_one);
  const auto [limited, plan_within] = net.train(16, least);
  CHECK(arena_of(plan_within) <= least);
  for (std::size_t i = 0; i < one.size(); ++i) CHECK(limited[i].identical(one[i]));
}

TEST_CASE("steps beside each other neither share memory nor take each other's") {
  const Threads restore;
  set_num_threads(16);
  const SmallLayers net(6);
  State state(net.graph);
  Program program(state, {.outputs = {net.loss}, .updates = net.updates});
  static_cast<void>(program.memory());
  const std::string plan = program.explain();
  // Of two steps side by side: what one writes the other neither reads nor writes.
  struct Lines {
    std::vector<std::pair<std::size_t, std::size_t>> read, written;
    bool beside = false;
  };
  std::vector<Lines> steps;
  const auto pieces = [](const std::string& line) {
    std::vector<std::pair<std::size_t, std::size_t>> out;
    for (auto at = line.find('['); at != std::string::npos; at = line.find('[', at + 1)) {
      const std::size_t begin = std::stoul(line.substr(at + 1));
      out.emplace_back(begin, begin + std::stoul(line.substr(line.find('+', at) + 1)));
    }
    return out;
  };
  std::istringstream text(plan.substr(plan.find("plan for")));
  for (std::string line; std::getline(text, line);) {
    if (line.rfind("step ", 0) == 0) steps.push_back({{}, {}, line.find(", beside step") != std::string::npos});
    if (line.rfind("    reads", 0) == 0) steps.back().read = pieces(line);
    if (line.rfind("    writes", 0) == 0 || line.rfind("    workspace", 0) == 0)
      for (const auto& piece : pieces(line)) steps.back().written.push_back(piece);
  }
  std::size_t pairs = 0;
  for (std::size_t i = 1; i < steps.size(); ++i)
    for (std::size_t k = i; k > 0 && steps[k].beside; --k) {
      const Lines& a = steps[i];
      const Lines& b = steps[k - 1];
      ++pairs;
      const auto meet = [](const auto& some, const auto& others) {
        for (const auto& [begin, end] : some)
          for (const auto& [other_begin, other_end] : others)
            if (begin < other_end && other_begin < end) return true;
        return false;
      };
      CHECK_FALSE(meet(a.written, b.written));
      CHECK_FALSE(meet(a.written, b.read));
      CHECK_FALSE(meet(a.read, b.written));
    }
  CHECK(pairs >= 4);
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
