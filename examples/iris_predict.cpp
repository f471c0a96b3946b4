// Tells which iris a flower is by the file that iris wrote: the network alone, without an optimizer or data.
#include <chainrule/chainrule.hpp>

#include <exception>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

int main(int argc, char** argv) {
  std::string file = "iris.safetensors";
  std::vector<double> numbers = {5.1, 3.5, 1.4, 0.2};
  CLI::App app("Which of three irises a flower is, by the file that iris wrote.");
  app.add_option("--file", file, "the parameters")->capture_default_str();
  app.add_option("lengths", numbers, "sepal length and width, petal length and width, in cm")
      ->expected(4)
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    cr::Graph graph;
    const auto lengths = graph.input("lengths", {1, 4});
    const auto mean = graph.variable("mean", cr::zeros({1, 4}));
    const auto deviation = graph.variable("deviation", cr::ones({1, 4}));
    const auto logits = cr::nn::mlp((lengths - mean) / deviation, {16, 3}, {.activation = cr::tanh});
    cr::State state(graph);
    state.load(file, {.ignore_unknown = true});  // the optimizer's variables
    const auto shares = cr::Program(state, {.outputs = {cr::softmax(logits)}, .mode = cr::Mode::inference})
                            .run({{lengths, cr::Array::from(numbers.data(), {1, 4})}})[0];
    fmt::print("setosa {:.3f}, versicolor {:.3f}, virginica {:.3f}\n", shares[0], shares[1], shares[2]);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
