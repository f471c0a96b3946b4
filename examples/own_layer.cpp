// A layer of your own is a function: it opens a name scope, makes its parameters and returns what it computes.
#include <chainrule/chainrule.hpp>

#include <fmt/core.h>

namespace cr = chainrule;

namespace {

// The squeeze-and-excitation block (Hu, Shen and Sun 2018): each channel of x {N, C, H, W} times a number between 0 and
// 1 that two dense layers make of all channels' means. Made of layers, it needs no more than a scope for their names.
cr::Value squeeze_and_excite(cr::Value x, std::size_t units) {
  cr::Graph graph = x.graph();
  const auto channels = x.shape()[1].extent();
  const auto scope = graph.scope(graph.unique_name("squeeze", "/0/weight"));
  const auto means = cr::flatten(cr::global_avg_pool(x), 1);
  const auto small = cr::relu(cr::nn::dense(means, units, {.name = "0"}));
  const auto gates = cr::sigmoid(cr::nn::dense(small, static_cast<std::size_t>(channels), {.name = "1"}));
  return x * cr::expand_dims(cr::expand_dims(gates, 2), 3);
}

// A layer with a parameter of its own: y = scale * x + (1 - scale) * f(x), beginning at scale 1.
cr::Value blend(cr::Value x, const cr::nn::Block& f) {
  cr::Graph graph = x.graph();
  const auto scope = graph.scope(graph.unique_name("blend", "/scale"));
  const auto scale = graph.parameter("scale", cr::ones({}));
  return scale * x + (1.0 - scale) * f(x);
}

}  // namespace

int main() {
  cr::Graph graph({.seed = 1});
  const auto batch = graph.dimension("batch");
  const auto images = graph.input("images", {batch, 3, 8, 8});
  const auto labels = graph.input("labels", {batch}, cr::int64);
  auto h = cr::relu(cr::nn::conv(images, 8, 3, {.padding = "same"}, {.initializer = cr::init::he_normal()}));
  h = squeeze_and_excite(h, 2);
  h = blend(h, [](cr::Value x) { return squeeze_and_excite(x, 4); });
  const auto logits = cr::nn::dense(cr::flatten(cr::avg_pool(h, 4), 1), 5);
  const auto loss = cr::softmax_cross_entropy(logits, labels);
  fmt::print("{}\n", cr::summary(graph));

  cr::State state(graph);
  const std::vector<cr::Feed> feeds = {{images, cr::normal({4, 3, 8, 8})}, {labels, cr::Array({0, 1, 2, 3})}};
  const auto report = cr::check_gradients(loss, graph.parameters(), state, feeds);
  fmt::print("{}\n", report.summary());

  // AdamW without decay of biases and of the blend's scale.
  const cr::optim::Adam adam{
      .learning_rate = 0.01, .weight_decay = 0.01, .groups = {{{"*/bias", "*/scale"}, {.weight_decay = 0}}}};
  cr::Program train(state, {.outputs = {loss}, .updates = adam.minimize(loss)});
  for (int step = 0; step <= 100; ++step) {
    const auto results = train.run(feeds);
    if (step % 50 == 0) fmt::print("step {:3}: loss {:.4f}\n", step, results[0][0]);
  }
  return report.passed() ? 0 : 1;
}
