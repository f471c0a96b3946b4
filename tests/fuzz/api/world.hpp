// What a sequence of calls works on: graphs, values, States, Programs and arrays by number, and random arguments from
// among them, good and bad ones. Everything is said as C++ as well, so that a sequence can be printed.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <chainrule/chainrule.hpp>
#include <fmt/format.h>

#include "../random.hpp"

namespace chainrule::fuzz {

struct World {
  World();
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  std::deque<Graph> graphs;
  Values values;  // of all graphs
  struct OwnedState {
    State state;
    std::size_t graph;
  };
  std::deque<OwnedState> states;
  struct OwnedProgram {
    std::unique_ptr<Program> program;
    std::size_t state;
  };
  std::deque<OwnedProgram> programs;
  std::deque<Array> arrays;
  struct NamedUpdates {
    Updates updates;
    std::string text;
    Value loss = {};
  };
  std::deque<NamedUpdates> updates;  // of optimizers
  std::filesystem::path folder;      // of its own, for checkpoints
  // Where they are: removed at the end, since a process that crashes leaves its own.
  inline static std::filesystem::path folders;

  // Everything that an error must not change.
  struct Snapshot {
    std::vector<std::string> graphs;
    std::vector<std::vector<Array>> states;
    std::vector<Array> arrays;
    std::vector<std::string> files;
    // What differs, or nothing.
    [[nodiscard]] std::string difference(const Snapshot& other) const;
  };
  [[nodiscard]] Snapshot snapshot() const;
  // The results of all programs on some feeds, an error as text.
  [[nodiscard]] std::vector<std::string> run_all();
};

// An argument and how a program says it.
template <class T>
struct Said {
  T it;
  std::string text;
};

// One call being made: its random arguments, and its words.
class Call {
 public:
  Call(World& world, std::uint64_t seed) : world(world), random(seed) {}
  World& world;
  Random random;
  std::string text;  // of the whole call, said before it is made

  // ---- arguments; `bad` ones among them

  bool only_good = false;
  bool bad(double chance = 0.06) { return !only_good && random.chance(chance); }
  Said<Graph> graph();
  Said<Value> value();            // preferably of the graph of the last one; now and then empty or of another graph
  Said<Value> floating();         // preferably
  Said<Value> scalar();           // preferably a floating one
  Said<Value> variable();         // preferably
  Said<Value> like(Value other);  // preferably of its type
  Said<Values> some(std::size_t most, bool variables = false);
  Said<Operand> operand();
  Said<Shape> shape(bool symbols = true);
  Said<Dims> dims();
  Said<Dimension> dimension();
  Said<DType> dtype();
  Said<DType> dtype_for(const Dims& dims);
  Said<std::string> name();
  Said<double> number();
  Said<std::int64_t> whole(std::int64_t low, std::int64_t high);  // now and then far beyond
  Said<std::int64_t> axis(Value of);
  Said<Axes> axes(Value of);
  Said<bool> flag();
  Said<Initial> initial();
  Said<Array> array();
  Said<Array> array_like(DType dtype, const Dims& dims);
  Said<Array> array_for(Value input);  // that fits it for some sizes
  Said<Value> named(Value v) const { return {v, text_of(v)}; }
  Said<Attribute> attribute(const Attribute& like);
  std::size_t state();  // its number
  std::size_t program();
  Said<std::string> path();
  // Feeds of a program: all that it needs, or not quite.
  struct Feeds {
    std::deque<Array> arrays;
    std::vector<Feed> feeds;
    std::string text;
  };
  void feeds(std::size_t program, Feeds& out);
  void feeds(const Values& inputs, Feeds& out);

  // ---- the call

  template <class... T>
  void say(fmt::format_string<T...> format, T&&... args) {
    text = fmt::format(format, std::forward<T>(args)...);
    if (said) said(text);
  }
  std::function<void(const std::string&)> said;
  // A result that later calls may use.
  void keep(Value made);
  void keep(const Values& made);
  void keep(Array made);

 private:
  template <class F>
  Said<Value> pick(F passes);
  [[nodiscard]] std::string text_of(Value v) const;
  Value last_;
};

// Every public call, by what it is.
struct NamedCall {
  std::string name;
  std::function<void(Call&)> make;
};
const std::vector<NamedCall>& calls();

}  // namespace chainrule::fuzz

template <class T>
struct fmt::formatter<chainrule::fuzz::Said<T>> : fmt::formatter<std::string> {
  auto format(const chainrule::fuzz::Said<T>& said, fmt::format_context& context) const {
    return fmt::formatter<std::string>::format(said.text, context);
  }
};
