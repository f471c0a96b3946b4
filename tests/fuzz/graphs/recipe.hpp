// Recipe: a random graph as data, from which the graph is built as often as it is needed, shrunk, and printed.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <chainrule/framework/graph/op.hpp>
#include <chainrule/framework/run/program.hpp>
#include <chainrule/framework/run/state.hpp>

namespace chainrule::fuzz {

// Numbers that follow from a seed. Coarse ones are multiples of 1/8, on which sums and products are exact.
struct Fill {
  double low = -2;
  double high = 2;
  int seed = 0;
  bool coarse = true;
  bool special = false;  // among them infinities, NaN, -0 and very large and small ones
};
Array numbers(DType dtype, const Dims& shape, const Fill& fill);

// What one value of the graph is. Its inputs are steps before it.
struct Step {
  // An op's step is its first output; a further one has a step of its own.
  enum class Kind : std::uint8_t { input, parameter, variable, constant, number, step, epoch, op, output, gradient };
  Kind kind = Kind::op;
  DType dtype = float64;  // of a leaf
  Shape shape = {};       // of a leaf
  Fill fill = {};         // the numbers of a leaf; of an input those that it is fed
  double value = 0;       // of a number
  const Op* op = nullptr;
  // Of an op; of a further output an output of the same op; of a gradient the scalar y and x, or y of any shape, x and
  // the cotangent of y.
  std::vector<std::size_t> inputs = {};
  Attributes attributes = {};
  std::size_t output = 0;  // of a further output: which

  [[nodiscard]] bool is_leaf() const { return kind != Kind::op && kind != Kind::output && kind != Kind::gradient; }
  [[nodiscard]] bool is_variable() const { return kind == Kind::parameter || kind == Kind::variable; }
};

// The sizes of the symbols in one run.
using SizeSet = std::vector<std::pair<std::string, std::int64_t>>;

struct Recipe {
  struct Update {
    std::size_t variable, expression;
  };
  GraphOptions options = {};
  std::vector<Step> steps = {};
  std::vector<std::size_t> outputs = {};
  std::vector<Update> updates = {};
  // Graph::update_with
  struct Attached {
    std::size_t owner, variable, expression;
  };
  std::vector<Attached> attached = {};
  Mode mode = Mode::training;
  std::vector<SizeSet> sizes = {{}};  // of run after run of one program
  double limit = 0;                   // memory_limit as a part of the arena that the program takes without one; 0: none
  bool as_built = false;              // also without Request::optimize
  bool check_finite = false;          // also with it
  bool check_gradients = false;       // of the first output, if it is a scalar, in all floating leaves
};

std::string name_of(const Recipe& recipe, std::size_t step);

struct Built {
  Graph graph;
  Values values;  // by step
};
// Throws Error where a step does not fit.
Built build(const Recipe& recipe);
Value build_step(Graph graph, const Values& before, const Recipe& recipe, std::size_t step);
Request request_of(const Recipe& recipe, const Built& built);

Sizes sizes_of(const SizeSet& set);
// The names of what is set.
std::vector<std::string> names_of(const Attributes& attributes);
// Shapes among the attributes with their symbols replaced by sizes.
Attributes evaluate(const Attributes& attributes, const Sizes& sizes);

// Without the steps that nothing needs.
Recipe without_dead_steps(const Recipe& recipe);

}  // namespace chainrule::fuzz
