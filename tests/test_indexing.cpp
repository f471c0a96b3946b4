// Elements and rows by their indices: what the registry's samples do not say.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <fmt/core.h>

#include "catch.hpp"
#include "files.hpp"
#include "support.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;
using chainrule::test::compute;
using chainrule::test::error_of;

namespace {

Array whole(const std::vector<std::int64_t>& numbers) { return Array(numbers); }

std::vector<std::int64_t> random_indices(std::int64_t n, std::int64_t extent, unsigned seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<std::int64_t> draw(0, extent - 1);
  std::vector<std::int64_t> out(static_cast<std::size_t>(n));
  for (std::int64_t& i : out) i = draw(random);
  return out;
}

struct Threads {
  int before = num_threads();
  ~Threads() { set_num_threads(before); }
};

}  // namespace

// ---- take and scatter_add

TEMPLATE_TEST_CASE("take has the axes of the indices in place of one", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", {2, 3});
  const auto i = graph.input("i", {2, 2}, int64);
  const auto k = graph.input("k", {}, int64);
  // numpy.take([[1, 2, 3], [4, 5, 6]], [[2, -3], [0, 1]], 1) and so on
  const auto made =
      compute(graph, {take(x, i, 1), take(x, k, 0), take(x, i, -1)},
              {{x, Array({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}})}, {i, Array({{2, -3}, {0, 1}})}, {k, Array(-1)}});
  using Rows = std::vector<std::vector<std::vector<double>>>;
  CHECK(made[0].dtype() == dtype);
  CHECK(made[0].astype(float64).identical(Array(Rows{{{3.0, 1.0}, {1.0, 2.0}}, {{6.0, 4.0}, {4.0, 5.0}}})));
  CHECK(made[1].astype(float64).identical(Array({4.0, 5.0, 6.0})));
  CHECK(made[2].identical(made[0]));
}

TEST_CASE("repeated indices add, and derivatives of any order follow") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const auto i = graph.constant(whole({1, 3, 1, -3}));  // 1 three times, 3 once
  const auto y = sum(take(x, i, 0) * take(x, i, 0) * take(x, i, 0));
  const auto d = gradients(y, {x})[0];         // 3 n x^2
  const auto d2 = gradients(sum(d), {x})[0];   // 6 n x
  const auto d3 = gradients(sum(d2), {x})[0];  // 6 n
  const auto made = compute(graph, {d, d2, d3}, {{x, Array({1.0, 2.0, 3.0, 4.0})}});
  CHECK(made[0].identical(Array({0.0, 36.0, 0.0, 48.0})));
  CHECK(made[1].identical(Array({0.0, 36.0, 0.0, 24.0})));
  CHECK(made[2].identical(Array({0.0, 18.0, 0.0, 6.0})));
}

TEST_CASE("an index out of range is named, with its place and the range, and nothing is written") {
  Graph graph;
  const auto w = graph.parameter("w", zeros({3, 2}));
  const auto i = graph.input("i", {2, 2}, int64);
  const auto taken = take(w, i, 0);
  State state(graph);
  Program step(state, {.outputs = {sum(taken)}, .updates = {{w, w + 1.0}}});
  const auto error = error_of([&] { step.run({{i, Array({{0, -3}, {3, 1}})}}); });
  CHECK_THAT(error.what(), ContainsSubstring("take: requires indices from -3 to 2, got 3 at element {1, 0}"));
  CHECK_THAT(error.what(), ContainsSubstring("test_indexing.cpp"));
  CHECK(state[w].identical(zeros({3, 2}).draw(float64, 0, 0)));
  CHECK(state.step() == 0);
  CHECK(step.run({{i, Array({{0, -3}, {2, 1}})}})[0].item() == 0);
  const auto below = error_of([&] { step.run({{i, Array({{0, -4}, {2, 1}})}}); });
  CHECK_THAT(below.what(), ContainsSubstring("got -4 at element {0, 1}"));
  const auto added = scatter_add(w, i, graph.constant(Array::full(float64, {2, 2, 2}, 1)), 0);
  CHECK_THAT(error_of([&] {
               compute(graph, {added}, {{i, Array({{0, 5}, {2, 1}})}});
             }).what(),
             ContainsSubstring("scatter_add: requires indices from -3 to 2, got 5 at element {0, 1}"));
  const auto none = graph.input("none", {0, 2});
  CHECK_THAT(error_of([&] {
               compute(graph, {take(none, i, 0)}, {{none, zeros({0, 2})}, {i, Array({{0, 5}, {2, 1}})}});
             }).what(),
             ContainsSubstring("requires no indices into an extent of 0, got 0 at element {0, 0}"));
}

TEST_CASE("take and scatter_add say what does not fit, at the user's line") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto i = graph.input("i", {4}, int64);
  const auto updates = graph.input("updates", {2, 4});
  const auto scalar = graph.input("scalar", {});
  CHECK_THAT(error_of([&] { take(x, x, 0); }).what(),
             ContainsSubstring("take: requires indices of int64, got float64"));
  CHECK_THAT(error_of([&] { take(x, i, 2); }).what(), ContainsSubstring("take: requires"));
  CHECK_THAT(error_of([&] { take(scalar, i, 0); }).what(), ContainsSubstring("take: requires"));
  CHECK_THAT(error_of([&] { scatter_add(x, i, updates, 0); }).what(),
             ContainsSubstring("scatter_add: requires updates of float64 and shape {4, 3}, got float64 {2, 4}"));
  CHECK_THAT(error_of([&] { scatter_add(i, i, i, 0); }).what(), ContainsSubstring("got int64"));
  const auto error = error_of([&] { take(x, x, 0); });
  CHECK_THAT(error.what(), ContainsSubstring(fmt::format("test_indexing.cpp:{}:", __LINE__ - 1)));
  CHECK_NOTHROW(scatter_add(x, i, updates, 1));
}

TEST_CASE("named sizes, and none at all, of rows and of indices") {
  Graph graph;
  const auto rows = graph.dimension("rows");
  const auto n = graph.dimension("n");
  const auto x = graph.input("x", {rows, 2});
  const auto i = graph.input("i", {n}, int64);
  const auto y = take(x, i, 0);
  CHECK(y.shape() == Shape{n, 2});
  const auto d = gradients(sum(square(y)), {x})[0];
  CHECK(d.shape() == Shape{rows, 2});
  State state(graph);
  Program program(state, {.outputs = {y, d}});
  const auto some = program.run({{x, Array({{1.0, 2.0}, {3.0, 4.0}})}, {i, whole({1, 1, 0})}});
  CHECK(some[0].identical(Array({{3.0, 4.0}, {3.0, 4.0}, {1.0, 2.0}})));
  CHECK(some[1].identical(Array({{2.0, 4.0}, {12.0, 16.0}})));
  const auto no_index = graph.input("no_index", {0}, int64);
  const auto nothing = take(x, no_index, 0);
  const auto of_nothing = gradients(sum(nothing), {x})[0];
  const auto none = compute(graph, {nothing, of_nothing, scatter_along_axis(x, reshape(no_index, {0, 1}), 1.0, 0)},
                            {{x, Array({{1.0, 2.0}, {3.0, 4.0}})}, {no_index, Array(int64, {0})}});
  CHECK(none[0].shape() == Dims{0, 2});
  CHECK(none[1].identical(Array({{0.0, 0.0}, {0.0, 0.0}})));
  CHECK(none[2].identical(Array({{1.0, 2.0}, {3.0, 4.0}})));
}

TEMPLATE_TEST_CASE("rows that meet add in the order of the indices, for every number of threads", "", float, double) {
  constexpr DType dtype = dtype_of<TestType>();
  const Threads restore;
  const Dims shape = GENERATE(Dims{50, 300}, Dims{7, 50, 40}, Dims{50});  // one block, several, elements
  const std::int64_t axis = shape.rank() == 3 ? 1 : 0;
  const std::int64_t count_of = shape.rank() == 1 ? 60'000 : 2000;
  Dims taken_dims = shape;
  taken_dims[static_cast<std::size_t>(axis)] = count_of;
  Graph graph({.dtype = dtype});
  const auto x = graph.input("x", Shape(shape));
  const auto i = graph.input("i", {count_of}, int64);
  const auto u = graph.input("u", Shape(taken_dims));
  const auto numbers = random_indices(count_of, 50, 3);
  const Array to = Array(test::random_numbers<TestType>(count(shape), 1)).reshape(shape);
  const Array updates = Array(test::random_numbers<TestType>(count(taken_dims), 2)).reshape(taken_dims);
  const std::int64_t inner = shape.rank() == 1 ? 1 : shape.back();
  const std::int64_t outer = shape.rank() == 3 ? shape[0] : 1;
  std::vector<TestType> sums(to.template data<TestType>(), to.template data<TestType>() + to.size());
  std::vector<TestType> rows(static_cast<std::size_t>(updates.size()));
  const auto* update = updates.template data<TestType>();
  const auto* from = to.template data<TestType>();
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t p = 0; p < count_of; ++p)
      for (std::int64_t k = 0; k < inner; ++k) {
        const auto at = static_cast<std::size_t>((o * 50 + numbers[static_cast<std::size_t>(p)]) * inner + k);
        const std::int64_t of = (o * count_of + p) * inner + k;
        sums[at] += update[of];
        rows[static_cast<std::size_t>(of)] = from[at];
      }
  State state(graph);
  Program program(state, {.outputs = {scatter_add(x, i, u, axis), take(x, i, axis)}});
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    const auto made = program.run({{x, to}, {i, whole(numbers)}, {u, updates}});
    CHECK(made[0].identical(Array(sums).reshape(shape)));
    CHECK(made[1].identical(Array(rows).reshape(taken_dims)));
  }
}

// ---- updates of rows

namespace {

// Whether the plan of a program updates rows in place, and what of memory it takes for it.
bool updates_rows(const Program& program) { return program.explain().find(" = add_rows(") != std::string::npos; }

// Two tables, of which the second is used twice, and a loss.
struct Tables {
  Graph graph;
  Value users, items, user, item, other, y, loss;
  explicit Tables(DType dtype, std::int64_t rows = 50)
      : graph({.dtype = dtype, .seed = 3}),
        users(graph.parameter("users", uniform({rows, 20}, -1, 1))),
        items(graph.parameter("items", uniform({rows, 20}, -1, 1))) {
    const auto batch = graph.dimension("batch");
    user = graph.input("user", {batch}, int64);
    item = graph.input("item", {batch}, int32);
    other = graph.input("other", {batch, 2}, int64);
    y = graph.input("y", {batch});
    const auto score = sum(embedding(users, user) * (take(items, item, 0) + mean(take(items, other, 0), 1)), -1);
    loss = mean_squared_error(score, y);
  }
  [[nodiscard]] std::vector<Feed> feeds(const std::vector<std::int64_t>& of_users,
                                        const std::vector<std::int64_t>& of_items,
                                        const std::vector<std::int64_t>& of_others) const {
    const auto n = static_cast<std::int64_t>(of_users.size());
    return {{user, whole(of_users)},
            {item, whole(of_items)},
            {other, Array(whole(of_others).reshape({n, 2}))},
            {y, Array::full(float64, {n}, 2)}};
  }
};

}  // namespace

// Gradient descent of sum(u * rows of w): w - rate * scatter_add(0, i, u).
struct OneTable {
  Graph graph;
  Value w, i, u, rate, loss;
  Updates updates;
  OneTable(DType dtype, std::int64_t rows, std::int64_t columns, std::int64_t taken)
      : graph({.dtype = dtype, .seed = 8}),
        w(graph.parameter("w", uniform({rows, columns}, -1, 1))),
        i(graph.input("i", {taken}, int64)),
        u(graph.input("u", {taken, columns})),
        rate(graph.input("rate", {})),
        loss(sum(take(w, i, 0) * u)),
        updates(optim::GradientDescent{.learning_rate = rate}.minimize(loss)) {}
};

TEMPLATE_TEST_CASE("gradient descent on rows has the bits of the whole table's where none repeats", "", float, double) {
  constexpr std::int64_t taken = 40;
  OneTable t(dtype_of<TestType>(), 100, 33, taken);
  State sparse(t.graph);
  State dense(t.graph);
  Program rows(sparse, {.updates = t.updates});
  Program all(dense, {.updates = t.updates, .optimize = false});
  CHECK(updates_rows(rows));
  std::vector<std::int64_t> indices;
  for (std::int64_t n = 0; n < taken; ++n) indices.push_back(n % 2 == 0 ? n : n - 100);  // all different
  const Array u = Array(test::random_numbers<TestType>(taken * 33, 5)).reshape({taken, 33});
  for (int step = 0; step < 3; ++step) {
    const std::vector<Feed> feeds = {{t.i, whole(indices)}, {t.u, u}, {t.rate, 0.1}};
    rows.run(feeds);
    all.run(feeds);
    CHECK(sparse[t.w].identical(dense[t.w]));
  }
  CHECK(sparse.step() == 3);
}

TEMPLATE_TEST_CASE("rows taken several times differ from the whole table's step by roundings, for all threads alike",
                   "", float, double) {
  constexpr double unit = std::numeric_limits<TestType>::epsilon() / 2;
  constexpr std::int64_t taken = 900;
  constexpr std::int64_t columns = 70;
  const Threads restore;
  OneTable t(dtype_of<TestType>(), 7, columns, taken);
  const auto indices = random_indices(taken, 7, 4);
  const Array u = Array(test::random_numbers<TestType>(taken * columns, 5)).reshape({taken, columns});
  const std::vector<Feed> feeds = {{t.i, whole(indices)}, {t.u, u}, {t.rate, 0.1}};
  const State start(t.graph);
  State dense(t.graph);
  Program(dense, {.updates = t.updates, .optimize = false}).run(feeds);
  Array one;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    State sparse(t.graph);
    Program(sparse, {.updates = t.updates}).run(feeds);
    if (threads == 1) one = sparse[t.w];
    CHECK(sparse[t.w].identical(one));
  }
  // Both are within (n + 2) roundings of |w| + rate * (sum of |u|) of the exact sum.
  const double rate = static_cast<TestType>(0.1);
  for (std::int64_t row = 0; row < 7; ++row)
    for (std::int64_t k = 0; k < columns; ++k) {
      const std::int64_t element = row * columns + k;
      double exact = start[t.w][element];
      double size = std::abs(exact);
      double n = 0;
      for (std::int64_t p = 0; p < taken; ++p)
        if (indices[static_cast<std::size_t>(p)] == row) {
          exact -= rate * u[p * columns + k];
          size += rate * std::abs(u[p * columns + k]);
          ++n;
        }
      const double bound = 2 * (n + 2) * unit * size;
      REQUIRE(std::abs(one[element] - dense[t.w][element]) <= bound);
      REQUIRE(std::abs(one[element] - exact) <= bound);
    }
}

TEST_CASE("two tables, one of them used twice: gradient descent touches rows of both, with every program option") {
  const Tables t(float32);
  const auto updates = optim::GradientDescent{.learning_rate = 0.1}.minimize(t.loss);
  const auto feeds = t.feeds({1, 7, -1, 1}, {2, 3, 2, -3}, {2, 21, 3, 23, 24, 2, 26, -20});
  State dense(t.graph);
  Program(dense, {.outputs = {t.loss}, .updates = updates, .optimize = false}).run(feeds);
  const auto agrees = [&](const Request& request, State& state) {
    Program program(state, request);
    CHECK(updates_rows(program));
    program.run(feeds);
    CHECK(allclose(state[t.users], dense[t.users], 1e-5, 1e-6));
    CHECK(allclose(state[t.items], dense[t.items], 1e-5, 1e-6));
    return program.memory().arena_bytes;
  };
  State plain(t.graph);
  const std::size_t arena = agrees({.outputs = {t.loss}, .updates = updates}, plain);
  CHECK(arena < 4 * 4 * 20 * 12);  // nothing of a table's size: 50 rows of 20 take 4000 bytes
  State checked(t.graph);
  agrees({.outputs = {t.loss}, .updates = updates, .check_finite = true}, checked);
  CHECK(checked[t.items].identical(plain[t.items]));
  State limited(t.graph);
  agrees({.outputs = {t.loss}, .updates = updates, .memory_limit = arena}, limited);
  CHECK(limited[t.items].identical(plain[t.items]));
  // The table as it was is a result of the same run: it is kept, and the update made elsewhere.
  State shown(t.graph);
  Program show(shown, {.outputs = {t.users, t.loss}, .updates = updates});
  const Array before = shown[t.users];
  CHECK(show.run(feeds)[0].identical(before));
  CHECK(shown[t.users].identical(plain[t.users]));
  // Go on from a checkpoint: the same bits.
  const test::TemporaryFolder folder;
  plain.save(folder / "x.safetensors");
  State loaded(t.graph);
  loaded.load(folder / "x.safetensors");
  for (State* state : {&plain, &loaded}) Program(*state, {.updates = updates}).run(feeds);
  CHECK(loaded[t.items].identical(plain[t.items]));
  CHECK(loaded[t.users].identical(plain[t.users]));
}

TEST_CASE("an index out of range of one table leaves all tables as they were, to the byte") {
  const Tables t(float64);
  const auto updates = optim::GradientDescent{.learning_rate = 0.1}.minimize(t.loss);
  State state(t.graph);
  const State start = state;
  Program program(state, {.outputs = {t.loss}, .updates = updates});
  REQUIRE(updates_rows(program));
  const std::vector<std::int64_t> good = {1, 2};
  const std::vector<std::int64_t> pairs = {1, 2, 3, 4};
  for (const auto& feeds :
       {t.feeds({1, 50}, good, pairs), t.feeds(good, {-51, 1}, pairs), t.feeds(good, good, {1, 2, 3, 1000})}) {
    const auto error = error_of([&] { program.run(feeds); });
    CHECK_THAT(error.what(), ContainsSubstring("take: requires indices from -50 to 49, got"));
    for (const Value w : {t.users, t.items}) CHECK(state[w].identical(start[w]));
    CHECK(state.step() == 0);
  }
  program.run(t.feeds(good, good, pairs));
  CHECK_FALSE(state[t.items].identical(start[t.items]));

  // Rows that a user adds, which nobody takes: nothing but the check stands before the writes.
  Graph graph;
  const auto a = graph.parameter("a", uniform({5, 2}, -1, 1));
  const auto b = graph.parameter("b", uniform({5, 2}, -1, 1));
  const auto i = graph.input("i", {2}, int64);
  const auto k = graph.input("k", {2}, int64);
  const auto one = graph.constant(Array::full(float64, {2, 2}, 1));
  State added(graph);
  const State as_it_was = added;
  Program both(added, {.updates = {{a, scatter_add(a, i, one, 0)}, {b, scatter_add(b, k, one, 0)}}});
  CHECK(updates_rows(both));
  CHECK(both.memory().arena_bytes < 256);  // the checked indices alone
  CHECK_THAT(error_of([&] {
               both.run({{i, Array({0, 1})}, {k, Array({2, 5})}});
             }).what(),
             ContainsSubstring("scatter_add: requires indices from -5 to 4, got 5 at element {1}"));
  CHECK(added[a].identical(as_it_was[a]));
  CHECK(added[b].identical(as_it_was[b]));
  both.run({{i, Array({0, 1})}, {k, Array({-1, -1})}});
  CHECK(added[a][0] == as_it_was[a][0] + 1);
  CHECK(added[b][9] == as_it_was[b][9] + 1 + 1);
}

TEST_CASE("what has to do with every row of a table stays dense") {
  const Tables t(float64);
  const auto feeds = t.feeds({1, 7, -1, 1}, {2, 3, 2, -3}, {2, 21, 3, 23, 24, 2, 26, -20});
  const auto g = gradients(t.loss, {t.users, t.items});
  const auto norm = sqrt(sum(square(g[0])) + sum(square(g[1])));
  const Values tables{t.users, t.items};
  const std::vector<Updates> dense = {optim::GradientDescent{.weight_decay = 0.1}.minimize(t.loss),
                                      optim::Momentum{}.minimize(t.loss), optim::Adam{}.minimize(t.loss),
                                      optim::GradientDescent{}.apply(tables, {g[0] / norm, g[1] / norm}),
                                      optim::GradientDescent{}.minimize(t.loss + l2({t.users, t.items}))};
  for (const Updates& updates : dense) {
    State state(t.graph);
    State node_by_node(t.graph);
    Program program(state, {.updates = updates});
    CHECK_FALSE(updates_rows(program));
    program.run(feeds);
    Program(node_by_node, {.updates = updates, .optimize = false}).run(feeds);
    for (const Value w : tables) CHECK(allclose(state[w], node_by_node[w], 1e-12, 1e-12));
  }
}

TEST_CASE("rows of a padded embedding, of no indices and of a table without rows") {
  Graph graph;
  const auto w = graph.parameter("w", uniform({4, 3}, -1, 1));
  const auto none = graph.parameter("none", zeros({0, 3}));
  const auto i = graph.input("i", {3}, int64);
  const auto no_index = graph.input("no_index", {0}, int64);
  const auto loss =
      sum(square(embedding(w, i, {.padding_idx = 2}))) + sum(take(w, no_index, 0)) + sum(take(none, no_index, 0));
  State state(graph);
  const Array before = state[w];
  Program program(state, {.updates = optim::GradientDescent{.learning_rate = 0.5}.minimize(loss)});
  CHECK(updates_rows(program));
  program.run({{i, Array({1, 2, -2})}, {no_index, Array(int64, {0})}});
  for (std::int64_t k = 0; k < 12; ++k) CHECK(state[w][k] == (k / 3 == 1 ? 0.0 : before[k]));  // w - 0.5 * 2 w
}

// ---- embedding, segment_sum, masked_fill, one_hot

TEST_CASE("an embedding's padding is taken as it is and learns nothing, however it is counted") {
  Graph graph;
  const auto rows = graph.dimension("rows");
  const auto named = graph.input("named", {rows, 2});
  const auto table = graph.input("table", {4, 2});
  const auto i = graph.input("i", {5}, int64);
  const Array numbers({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}, {7.0, 8.0}});
  // Row 2 twice, once from the end.
  const std::vector<Feed> feeds = {{table, numbers}, {named, numbers}, {i, whole({2, 0, -2, 3, 0})}};
  for (const Value of : {table, named})
    for (const std::int64_t padding : {2, -2}) {
      const auto y = embedding(of, i, {.padding_idx = padding});
      const auto made = compute(graph, {y, gradients(sum(y * y), {of})[0]}, feeds);
      CHECK(made[0].identical(Array({{5.0, 6.0}, {1.0, 2.0}, {5.0, 6.0}, {7.0, 8.0}, {1.0, 2.0}})));
      CHECK(made[1].identical(Array({{4.0, 8.0}, {0.0, 0.0}, {0.0, 0.0}, {14.0, 16.0}})));
    }
  const auto y = embedding(table, i);
  const auto made = compute(graph, {gradients(sum(y * y), {table})[0]}, feeds);
  CHECK(made[0].identical(Array({{4.0, 8.0}, {0.0, 0.0}, {20.0, 24.0}, {14.0, 16.0}})));
  CHECK_THAT(error_of([&] { embedding(table, i, {.padding_idx = 4}); }).what(),
             ContainsSubstring("embedding: requires a padding_idx within 4 rows, got 4"));
  CHECK_THAT(error_of([&] { embedding(table, i, {.padding_idx = -5}); }).what(), ContainsSubstring("got -5"));
  CHECK_THAT(error_of([&] { embedding(Value{}, i); }).what(), ContainsSubstring("got an empty Value"));
  CHECK_THAT(error_of([&] { embedding(table, table); }).what(), ContainsSubstring("requires indices of int64"));
}

TEST_CASE("segments are summed, empty ones are 0") {
  Graph graph;
  const auto segments_of = graph.dimension("segments");
  const auto x = graph.input("x", {4, 2});
  const auto s = graph.input("s", {4}, int64);
  const auto y = segment_sum(x, s, 3);
  const auto d = gradients(sum(y * y), {x})[0];
  const std::vector<Feed> feeds = {{x, Array({{1.0, 2.0}, {3.0, 4.0}, {5.0, 6.0}, {7.0, 8.0}})},
                                   {s, whole({2, 0, 2, 0})}};
  const auto made = compute(graph, {y, d}, feeds);
  CHECK(made[0].identical(Array({{10.0, 12.0}, {0.0, 0.0}, {6.0, 8.0}})));
  CHECK(made[1].identical(Array({{12.0, 16.0}, {20.0, 24.0}, {12.0, 16.0}, {20.0, 24.0}})));
  CHECK(segment_sum(x, s, segments_of).shape() == Shape{segments_of, 2});
  CHECK_THAT(error_of([&] { segment_sum(x, graph.input("t", {3}, int64), 3); }).what(),
             ContainsSubstring("segment_sum: requires an index for each row"));
}

TEST_CASE("masked_fill puts a value where the mask is true, and its slope there is 0") {
  Graph graph;
  constexpr double inf = std::numeric_limits<double>::infinity();
  const auto x = graph.input("x", {2, 3});
  const auto mask = graph.input("mask", {3}, boolean);
  const auto y = masked_fill(x, mask, -inf);
  const auto d = gradients(sum(exp(y)), {x})[0];
  const auto made = compute(graph, {y, d}, {{x, zeros({2, 3})}, {mask, Array(std::vector<bool>{false, true, false})}});
  CHECK(made[0].identical(Array({{0.0, -inf, 0.0}, {0.0, -inf, 0.0}})));
  CHECK(made[1].identical(Array({{1.0, 0.0, 1.0}, {1.0, 0.0, 1.0}})));
  CHECK_THAT(error_of([&] { masked_fill(x, x, 0.0); }).what(),
             ContainsSubstring("masked_fill: requires a mask of bool that broadcasts to {2, 3}, got float64 {2, 3}"));
  const auto wider = graph.input("wider", {4, 2, 3}, boolean);
  CHECK_THAT(error_of([&] { masked_fill(x, wider, 0.0); }).what(), ContainsSubstring("got bool {4, 2, 3}"));
  const auto wide_value = graph.input("wide_value", {4, 2, 3});
  const auto before = graph.to_string();
  CHECK_THAT(error_of([&] { masked_fill(x, mask, wide_value); }).what(), ContainsSubstring("masked_fill: requires"));
  CHECK(graph.to_string() == before);
}

TEST_CASE("one_hot of a dimension") {
  Graph graph;
  const auto classes = graph.dimension("classes");
  const auto x = graph.input("x", {classes});
  const auto k = graph.input("k", {2}, int64);
  const auto y = one_hot(k, classes, float64);
  CHECK(y.shape() == Shape{2, classes});
  const auto made = compute(graph, {y}, {{x, zeros({3})}, {k, whole({2, 0})}});
  CHECK(made[0].identical(Array({{0.0, 0.0, 1.0}, {1.0, 0.0, 0.0}})));
  CHECK_THAT(error_of([&] { one_hot(k, -1, float64); }).what(), ContainsSubstring("one_hot: requires an extent"));
}

// ---- along an axis

TEST_CASE("put: the last of several stays and alone has a slope") {
  Graph graph;
  const auto x = graph.input("x", {4});
  const auto u = graph.input("u", {3});
  const auto i = graph.constant(whole({1, 3, -3}));  // 1, 3, 1
  const auto y = scatter_along_axis(x, i, u, 0);
  const auto d = gradients(sum(y * y), {x, u});
  const auto made = compute(graph, {y, d[0], d[1]}, {{x, Array({1.0, 2.0, 3.0, 4.0})}, {u, Array({5.0, 6.0, 7.0})}});
  CHECK(made[0].identical(Array({1.0, 7.0, 3.0, 6.0})));
  CHECK(made[1].identical(Array({2.0, 0.0, 6.0, 0.0})));
  CHECK(made[2].identical(Array({0.0, 12.0, 14.0})));
}

TEST_CASE("the greatest and least of x and what is scattered, where equal ones share the slope") {
  Graph graph;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto x = graph.input("x", {4});
  const auto u = graph.input("u", {4});
  const auto i = graph.constant(whole({0, 0, 2, 2}));
  const auto top = scatter_along_axis(x, i, u, 0, Scatter::max);
  const auto low = scatter_along_axis(x, i, u, 0, Scatter::min);
  const auto d = gradients(sum(top * Operand(Array({10.0, 20.0, 30.0, 40.0}))), {x, u});
  const std::vector<Feed> feeds = {{x, Array({1.0, 2.0, 3.0, 4.0})}, {u, Array({1.0, 1.0, 5.0, -1.0})}};
  const auto made = compute(graph, {top, low, d[0], d[1]}, feeds);
  CHECK(made[0].identical(Array({1.0, 2.0, 5.0, 4.0})));
  CHECK(made[1].identical(Array({1.0, 2.0, -1.0, 4.0})));
  CHECK(made[2].identical(Array({10.0 / 3, 20.0, 0.0, 40.0})));
  CHECK(made[3].identical(Array({10.0 / 3, 10.0 / 3, 30.0, 0.0})));
  // A NaN of either stays.
  const auto with_nan =
      compute(graph, {top, low}, {{x, Array({nan, 2.0, 3.0, 4.0})}, {u, Array({1.0, 1.0, nan, -1.0})}});
  for (const Array& y : with_nan) {
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == 2.0);
    CHECK(std::isnan(y[2]));
    CHECK(y[3] == 4.0);
  }
}

TEST_CASE("scatter_along_axis broadcasts, takes numbers and whole numbers, and says what does not fit") {
  Graph graph;
  const auto x = graph.input("x", {2, 3});
  const auto k = graph.input("k", {2, 3}, int64);
  const auto i = graph.input("i", {1, 2}, int64);
  const auto one = graph.input("one", {2, 1}, int64);
  const auto many = graph.input("many", {2});
  const auto made = compute(graph,
                            {scatter_along_axis(x, i, 9.0, 1), scatter_along_axis(k, i, 7, 1, Scatter::add),
                             scatter_along_axis(x, one, many, 1, Scatter::add)},
                            {{x, Array({{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}})},
                             {k, Array({{1, 2, 3}, {4, 5, 6}})},
                             {i, Array({{2, -3}})},
                             {one, Array({{0}, {1}})},
                             {many, Array({10.0, 100.0})}});
  CHECK(made[0].identical(Array({{9.0, 2.0, 9.0}, {9.0, 5.0, 9.0}})));
  CHECK(made[1].identical(Array({{8, 2, 10}, {11, 5, 13}}).astype(int64)));
  CHECK(made[2].identical(Array({{111.0, 2.0, 3.0}, {4.0, 115.0, 6.0}})));
  const auto flags = graph.input("flags", {2, 3}, boolean);
  const auto before = graph.to_string();
  CHECK_THAT(error_of([&] { scatter_along_axis(flags, k, flags, 1, Scatter::add); }).what(),
             ContainsSubstring("scatter_along_axis: requires numbers, or put, got bool"));
  CHECK_THAT(error_of([&] { scatter_along_axis(x, many, x, 1); }).what(), ContainsSubstring("indices of int64"));
  CHECK_THAT(error_of([&] { scatter_along_axis(x, k, Value{}, 1); }).what(), ContainsSubstring("got an empty Value"));
  CHECK_THAT(error_of([&] { scatter_along_axis(x, k, k, 1); }).what(),
             ContainsSubstring("requires updates of float64 and shape {2, 3}, got int64 {2, 3}"));
  CHECK(graph.to_string() == before);
  const auto wrong = scatter_along_axis(x, i, 9.0, 1);
  CHECK_THAT(error_of([&] {
               compute(graph, {wrong}, {{x, zeros({2, 3})}, {i, Array({{2, 3}})}});
             }).what(),
             ContainsSubstring("scatter_along_axis: requires indices from -3 to 2, got 3 at element {0, 1}"));
}
