// An allocation that fails, wherever it is, leaves everything as it was, and what was asked for can be asked for again.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/io/atomic_file.hpp>

#include "allocations.hpp"
#include "files.hpp"

using namespace chainrule;
using namespace chainrule::test;

namespace {

// Node by node, and the tables beside them.
std::string text_of(const Graph& graph) {
  const detail::GraphData& data = *graph.data();
  std::string out = graph.to_string() + std::to_string(graph.size());
  for (const auto& input : data.leaves->inputs) out += " " + input.name + "@" + std::to_string(input.node);
  for (const auto& variable : data.leaves->variables)
    out += " " + variable.name + "@" + std::to_string(variable.node) + (variable.trained ? "!" : "");
  for (const std::size_t count :
       {data.names.size(), data.constants.size(), data.attached.size(), std::size_t{data.streams},
        std::size_t{data.step}, std::size_t{data.epoch}, std::size_t{data.expanding != nullptr}})
    out += " " + std::to_string(count);
  return out;
}

// The graph's text, the counters, and the bytes of all variables.
std::string text_of(const State& state) {
  const Graph graph = state.graph();
  std::string out = text_of(graph) + " " + std::to_string(state.step()) + " " + std::to_string(state.epoch());
  for (const auto& variable : graph.data()->leaves->variables) {
    const Array& array = state[Value(graph.data().get(), variable.node)];
    out.append(static_cast<const char*>(array.raw()), array.bytes());
  }
  return out;
}

Array numbers(const Dims& shape, std::uint64_t seed) { return uniform(to_shape(shape), -1, 1).draw(float32, seed, 0); }
Array classes(std::int64_t n) { return integers({n}, 0, 3).draw(float64, 1, 0); }

// A graph with inputs of two types, a parameter and a variable.
struct Begun {
  Graph graph{{.dtype = float32, .seed = 3}};
  Dimension batch = graph.dimension("batch");
  Value x = graph.input("x", {batch, 5});
  Value labels = graph.input("labels", {batch}, int64);
  Value w = graph.parameter("w", uniform({5, 8}));
  Value v = graph.variable("v", uniform({5}));
};

template <class Stage>
void fail_building(std::string_view name, Stage stage) {
  // Nodes lie in chunks of 64: those that come next need a new one at once, after one or two more, or not at all.
  for (const std::size_t before : {0, 62, 63, 64})
    fail_each(
        name,
        [&] {
          auto begun = std::make_unique<Begun>();
          while (begun->graph.size() < before) begun->graph.constant(Array(static_cast<double>(begun->graph.size())));
          return begun;
        },
        [&](Begun& b) { static_cast<void>(stage(b)); }, [](const Begun& b) { return text_of(b.graph); });
}

Value network(Begun& b) {
  const auto hidden = dropout(relu(nn::batch_norm(matmul(b.x, b.w))), {.keep = 0.5});
  const auto logits = nn::dense(hidden, 3);
  return softmax_cross_entropy(logits, b.labels) + mean(slice(b.x, 1, {.start = 1, .stop = 3})) / b.batch;
}

struct WithLoss : Begun {
  Value loss = network(*this);
};

template <class Stage>
void fail_on_loss(std::string_view name, Stage stage) {
  fail_each(
      name, [] { return std::make_unique<WithLoss>(); }, [&](WithLoss& l) { static_cast<void>(stage(l)); },
      [](const WithLoss& l) { return text_of(l.graph); });
}

// A State that has been changed.
struct WithState : WithLoss {
  Updates updates = optim::Adam{.learning_rate = optim::inverse_time_decay({.initial = 0.1})}.minimize(loss);
  Value step = graph.step();
  State state{graph};
  WithState() {
    state.set_step(3);
    state.set_epoch(2);
    state.set(w, numbers({5, 8}, 9));
  }
};

template <class Stage>
void fail_on_state(std::string_view name, Stage stage) {
  fail_each(
      name, [] { return std::make_unique<WithState>(); }, stage, [](const WithState& s) { return text_of(s.state); });
}

// Programs that train and predict.
struct WithPrograms : WithState {
  Value probabilities = softmax(matmul(x, w));
  Request training{.outputs = {loss}, .updates = updates, .plan_memory = 0};
  Request inference{.outputs = {probabilities, x}, .mode = Mode::inference};
  Program train{state, training};
  Program predict{state, inference};
};

}  // namespace

TEST_CASE("leaves of a graph for which there is no memory") {
  fail_building("an input", [](Begun& b) {
    return b.graph.input("an input of a name that is no short string", {b.batch, 3, b.batch});
  });
  fail_building("a parameter", [](Begun& b) {
    return b.graph.parameter("a parameter of a rather long name", uniform({3, 4}));
  });
  fail_building("a parameter of an Array", [](Begun& b) { return b.graph.parameter("p", Array({1.0, 2.0})); });
  fail_building("a variable",
                [](Begun& b) { return b.graph.variable("a variable of a rather long name", zeros({3}), int64); });
  fail_building("a constant", [](Begun& b) { return b.graph.constant(Array({1.0, 2.0})); });
  fail_building("a number", [](Begun& b) { return b.graph.constant(0.123, float32); });
  fail_building("the step", [](Begun& b) { return b.graph.step(); });
  fail_building("the epoch", [](Begun& b) { return b.graph.epoch(); });
  fail_building("an update with a value", [](Begun& b) {
    b.graph.update_with(b.x, b.v, b.v);
    return 0;
  });
  fail_each(
      "a graph", [] { return std::make_unique<std::optional<Graph>>(); },
      [](std::optional<Graph>& graph) { graph.emplace(GraphOptions{.dtype = float64}); },
      [](const std::optional<Graph>& graph) { return graph ? text_of(*graph) : "none"; });
}

TEST_CASE("ops for which there is no memory") {
  fail_building("concat", [](Begun& b) { return concat({b.x, b.x}, 1); });
  fail_building("reshape", [](Begun& b) { return reshape(b.x, {b.batch, 1, 5, 1}); });
  fail_building("slice", [](Begun& b) { return slice(b.x, 1, {.start = 1, .stop = 4, .step = 2}); });
  fail_building("a reduction", [](Begun& b) { return sum(b.x, {0}, true); });
  fail_building("one_hot", [](Begun& b) { return one_hot(b.labels, 3, float32); });
  fail_building("transpose", [](Begun& b) { return transpose(b.x, {1, 0}); });
  fail_building("cast", [](Begun& b) { return cast(b.labels, float32); });
  fail_building("dropout", [](Begun& b) { return dropout(b.x, {.keep = 0.5}); });
  fail_building("an operand that is an Array", [](Begun& b) { return b.x * Array({1.0, 2.0, 3.0, 4.0, 5.0}); });
  fail_building("an operand that is an extent", [](Begun& b) { return b.x / (2 * b.batch + 1); });
  fail_building("elu", [](Begun& b) { return elu(b.x, 0.3); });
  fail_building("a composite", [](Begun& b) { return rrelu(b.x); });
  fail_building("l2_penalty", [](Begun& b) { return l2_penalty({b.w, b.v}, 0.1, b.batch); });
  fail_building("dense", [](Begun& b) { return nn::dense(b.x, 3); });
  fail_building("batch_norm", [](Begun& b) { return nn::batch_norm(b.x); });
  fail_building("a network in a scope", [](Begun& b) {
    const auto scope = b.graph.scope("encoder");
    return nn::mlp(b.x, {4, 3});
  });
  fail_building("a residual block", [](Begun& b) {
    return nn::residual(b.x, [](Value x) { return nn::dense(x, 3); },
                        {.projection = [](Value x) { return nn::dense(x, 3); }});
  });
}

TEST_CASE("dimensions for which there is no memory") {
  // New ones at each try, since equal ones are the same for the whole process, whose tables of them grow now and then.
  for (int round = 0; round < 40; ++round)
    for (std::size_t n = 1; n == 1 || failed > 0; ++n) {
      const std::string name = "size " + std::to_string(round) + "/" + std::to_string(n);
      const auto expression = [&](std::int64_t factor) {
        const Dimension d = Dimension::symbol(name);
        return floor_divide(factor * d * d + 1, d + 2) + d;
      };
      const auto text_of = [&](std::int64_t factor) { return to_string(Shape{expression(factor)}); };
      std::size_t of_first = 0;
      if (throws_without(n, false, [&] { expression(2); })) of_first = failed;
      // What comes next is itself, and not taken for what failed.
      const std::string other = text_of(3);
      const std::string same = text_of(2);
      failed = of_first;
      const auto right = [&](const char* factor) {
        return "{" + name + "+floor((" + factor + "*" + name + "*" + name + "+1)/(" + name + "+2))}";
      };
      CHECK(other == right("3"));
      CHECK(same == right("2"));
    }
}

TEST_CASE("gradients and updates for which there is no memory") {
  fail_on_loss("gradients", [](WithLoss& l) { return gradients(l.loss, {l.x, l.w}); });
  const auto rate = optim::exponential_decay({.initial = 0.1});
  const auto fail = [](std::string_view name, const auto& optimizer) {
    fail_on_loss(name, [&](WithLoss& l) { return optimizer.minimize(l.loss); });
  };
  fail("gradient descent", optim::GradientDescent{.learning_rate = rate});
  fail("momentum", optim::Momentum{.learning_rate = rate});
  fail("heavy ball", optim::HeavyBall{.learning_rate = 0.1});
  fail("RMSProp", optim::RMSProp{.learning_rate = rate});
  fail("Adam", optim::Adam{.learning_rate = rate});
  fail_building("Adam's apply()", [](Begun& b) { return optim::Adam{.learning_rate = 0.1}.apply({b.w}, {b.w}); });
}

TEST_CASE("a State for which there is no memory") {
  fail_each(
      "a State", [] { return std::make_unique<std::pair<WithLoss, std::optional<State>>>(); },
      [](auto& pair) { pair.second.emplace(pair.first.graph); },
      [](const auto& pair) { return text_of(pair.first.graph) + (pair.second ? text_of(*pair.second) : "none"); });
  fail_on_state("a copy", [](WithState& t) { State(t.state).set(t.w, zeros({5, 8}).draw(float32, 0, 0)); });
  fail_on_state("assignment", [](WithState& t) { t.state = State(t.graph); });
  fail_on_state("set", [](WithState& t) { t.state.set("w", numbers({5, 8}, 7)); });
  fail_on_state("reset", [](WithState& t) { t.state.reset(); });
  // Variables that the graph got since, and the step, whose copy in the State is up to date with the first look at it.
  fail_each(
      "later variables",
      [] {
        struct Late : Begun {
          State state{graph};
          Late() {
            state.set_step(5);
            graph.step();
            for (const char* const name : {"a", "b", "c"}) graph.variable(name, uniform({3}));
          }
        };
        return std::make_unique<Late>();
      },
      [](const auto& late) { static_cast<void>(late.state["c"]); },
      [](const auto& late) { return text_of(late.state); });
}

TEST_CASE("Programs for which there is no memory") {
  WithPrograms p;
  const Array x6 = numbers({6, 5}, 1);
  const Array x2 = numbers({2, 5}, 2);
  const Array labels6 = classes(6);
  const Array labels2 = classes(2);
  p.train.run({{p.x, x6}, {p.labels, labels6}});
  const Array right = p.predict.run({{p.x, x2}})[0];
  const State start = p.state;
  const auto fail = [&](std::string_view name, const auto& stage) {
    fail_each(
        name,
        [&] {
          p.state = start;
          return &p;
        },
        [&](WithPrograms&) { stage(); }, [](const WithPrograms& of) { return text_of(of.state); });
  };
  fail("a Program", [&] { Program(p.state, p.training); });
  fail("a Program for inference", [&] { Program(p.state, p.inference); });
  fail("an explanation", [&] { static_cast<void>(p.train.explain()); });
  // One of sizes that have not been seen runs wholly or not at all.
  fail("a run", [&] {
    p.train.clear();
    p.train.run({{p.x, x2}, {"labels", labels2}});
  });
  fail("predictions", [&] {
    p.predict.clear();
    p.predict.run({{p.x, x6}});
    p.predict.run({{p.x, x2}});
  });
  CHECK(p.predict.run({{p.x, x2}})[0].identical(right));
  fail("a result that is fed", [&] {
    p.predict.clear();
    p.predict.run({{p.x, p.predict.run({{p.x, x2}})[1]}});
  });
  CHECK(p.predict.run({{p.x, x2}})[0].identical(right));
  // With all that failed it trains as one to which nothing happened.
  p.state = start;
  State other = start;
  Program another(other, p.training);
  for (Program* const program : {&p.train, &another}) program->run({{p.x, x6}, {p.labels, labels6}});
  CHECK(text_of(p.state) == text_of(other));
}

TEST_CASE("fit() for which there is no memory ends between two runs") {
  const data::Dataset dataset{numbers({10, 5}, 4), classes(10), 0};
  WithPrograms p;
  const State start = p.state;
  // What the State is before, after each of the 6 runs, and where the last epoch is counted.
  std::vector<std::string> right = {text_of(p.state)};
  for (const std::int64_t epoch : {0, 1}) {
    p.state.set_epoch(0);  // as it is until epoch 1 is over
    numpy::RandomState rng(11 + epoch);
    for (const auto& batch : data::mini_batches(dataset, 4, rng)) {
      p.train.run({{p.x, batch.x}, {p.labels, batch.y}});
      right.push_back(text_of(p.state));
    }
  }
  p.state.set_epoch(1);
  right.push_back(text_of(p.state));
  const FitOptions options = {.inputs = {p.x, p.labels}, .batch = 4, .epochs = 2, .first_epoch = 0};
  for (const bool on : {false, true})
    for (std::size_t n = 1; n == 1 || failed > 0; n += 1 + n / 32) {
      p.state = start;
      p.train.clear();
      const bool thrown = throws_without(n, on, [&] { fit(p.train, dataset, options); });
      const auto found = std::find(right.begin(), right.end(), text_of(p.state));
      if (thrown ? found == right.end() : found != right.end() - 1) FAIL("after the failure of allocation " << n);
    }
}

TEST_CASE("checkpoints for which there is no memory") {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  const auto look = [&](const WithState& t) {
    return text_of(t.state) + read_file(path) + std::to_string(folder.files());
  };
  fail_each(
      "save",
      [&] {
        write_file(path, "the old one");
        return std::make_unique<WithState>();
      },
      [&](const WithState& t) { t.state.save(path); }, look);
  fail_each(
      "a file that has a name from the start",
      [&] {
        write_file(path, "the old one");
        return &path;
      },
      [](const std::string& to) {
        detail::AtomicFile file(to, "test", Location::here(), detail::AtomicFile::Start::named);
        file.write("new", 3);
        file.commit();
      },
      [&](const std::string& of) { return read_file(of) + std::to_string(folder.files()); });

  WithState saved;
  saved.state.set_step(8);
  saved.state.set(saved.w, numbers({5, 8}, 10));
  saved.state.save(path);
  const LoadOptions all = {.ignore_unknown = true, .keep_missing = true};
  fail_each(
      "load", [] { return std::make_unique<WithState>(); }, [&](WithState& t) { t.state.load(path); }, look);
  // Of a checkpoint of float32 a State of other variables and another dtype takes w alone.
  fail_each(
      "load in part",
      [] {
        struct Other {
          Graph graph{{.dtype = float64}};
          Value w = graph.parameter("w", zeros({5, 8}));
          Value other = graph.parameter("another parameter", uniform({3}));
          State state{graph};
        };
        return std::make_unique<Other>();
      },
      [&](auto& other) { other.state.load(path, all); }, [](const auto& other) { return text_of(other.state); });
}

TEST_CASE("a gradient check for which there is no memory") {
  Graph graph;
  const auto w = graph.parameter("w", uniform({2}));
  const auto loss = sum(w * tanh(w));
  const State state(graph);
  CheckReport report;
  fail_each(
      "a check", [&] { return std::make_unique<CheckReport>(); },
      [&](CheckReport& to) { to = check_gradients(loss, {w}, state); },
      [&](const CheckReport& of) { return of.to_string() + text_of(state); });
  report = check_gradients(loss, {w}, state);
  fail_each(
      "its JSON", [] { return std::make_unique<std::string>(); }, [&](std::string& to) { to = report.to_json(); },
      [](const std::string& of) { return of; });
}
