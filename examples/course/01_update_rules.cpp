// Exercise 1: one step of each update rule, on the notes' random parameters and gradients.
//
// An optimizer makes update expressions of parameters and their gradients. The gradients usually come from a loss, by
// minimize(loss); here they are inputs of the graph, so that the numbers are the notes'.
#include "course.hpp"

namespace {

// What the notes print of an optimizer's state: v["dW1"] is the variable W1/momentum, or W1/adam/v.
struct Slot {
  const char* symbol;
  const char* variable;
};

void print_slots(const cr::State& state, const std::vector<Slot>& slots) {
  for (const Slot& slot : slots)
    for (const auto* name : {"W1", "b1", "W2", "b2"})
      fmt::print("{}[\"d{}\"] =\n{}\n", slot.symbol, name,
                 course::str(state[fmt::format("{}/{}", name, slot.variable)]));
}

template <class Optimizer>
void step(const char* title, const Optimizer& optimizer, const std::vector<Slot>& slots = {}, std::int64_t t = 1) {
  course::heading(title);
  cr::numpy::RandomState rng(1);
  cr::Graph graph;
  const cr::Values parameters{graph.parameter("W1", rng.randn(2, 3)), graph.parameter("b1", rng.randn(2, 1)),
                              graph.parameter("W2", rng.randn(3, 3)), graph.parameter("b2", rng.randn(3, 1))};
  const cr::Values gradients{graph.input("dW1", {2, 3}), graph.input("db1", {2, 1}), graph.input("dW2", {3, 3}),
                             graph.input("db2", {3, 1})};

  cr::State state(graph);
  cr::Program update(state, {.updates = optimizer.apply(parameters, gradients)});
  if (t > 1) state.set("adam/t", cr::Array(t - 1));  // the notes' case begins in the middle of a training
  if (!slots.empty()) fmt::print("before:\n");
  print_slots(state, slots);
  if (!slots.empty()) fmt::print("after:\n");
  update.run({{"dW1", rng.randn(2, 3)}, {"db1", rng.randn(2, 1)}, {"dW2", rng.randn(3, 3)}, {"db2", rng.randn(3, 1)}});
  for (const auto parameter : parameters) fmt::print("{} =\n{}\n", parameter, course::str(state[parameter]));
  print_slots(state, slots);
}

void exercise(const course::Options& /*options*/) {
  using cr::optim::Adam, cr::optim::GradientDescent, cr::optim::Momentum, cr::optim::RMSProp;

  step("Gradient descent", GradientDescent{.learning_rate = 0.01});
  step("Momentum", Momentum{.learning_rate = 0.01, .beta = 0.9}, {{"v", "momentum"}});
  step("Adam, t = 2, betas 0.8 and 0.888", Adam{.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.888, .epsilon = 1e-2},
       {}, 2);
  step("Adam, t = 2", Adam{.learning_rate = 0.01}, {{"v", "adam/v"}, {"s", "adam/s"}}, 2);
  // The notes' other form: its dW2 and db2 differ from the sixth decimal on, where a gradient is small.
  step("Adam, t = 2, epsilon inside the root", Adam{.learning_rate = 0.01, .epsilon_inside_root = true},
       {{"v", "adam/v"}, {"s", "adam/s"}}, 2);
  step("RMSProp", RMSProp{.learning_rate = 0.01}, {{"s", "rmsprop"}});
  step("RMSProp, epsilon inside the root", RMSProp{.learning_rate = 0.01, .epsilon_inside_root = true});
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "One step of gradient descent, momentum, Adam and RMSProp, in the notes' test cases.",
                     exercise);
}
