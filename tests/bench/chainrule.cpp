// The benchmark's workloads as a user of chainrule writes them.
#include <chainrule/chainrule.hpp>

#include <optional>

#include "worker.hpp"
#include "workloads.hpp"

namespace cr = chainrule;

namespace bench {

namespace {

// A graph with its loss, before a State exists.
struct Model {
  cr::Graph graph;
  cr::Value x;
  cr::Value y;
  cr::Array xs;
  cr::Array ys;
  cr::Value loss;
  cr::Updates updates;
  cr::Values masks;  // inputs, in a check of W2
};

class Training final : public Run {
 public:
  Training(Model model, const std::vector<Parameter>& parameters)
      : model_(std::move(model)), parameters_(parameters), values_(model_.graph.parameters()), state_(model_.graph) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      cr::Array initial(model_.graph.dtype(), cr::Dims(parameters[i].shape));
      if (initial.dtype() == cr::float64) {
        parameters[i].initialize(initial.data<double>());
      } else {
        parameters[i].initialize(initial.data<float>());
      }
      state_.set(values_[i], initial);
    }
    for (std::size_t i = 0; i < model_.masks.size(); ++i) {
      cr::Array mask(cr::float32, {model_.xs.shape()[0], model_.masks[i].shape()[1].extent()});
      fill_mask(mask.data<float>(), mask.size(), stream_mask + i, keep);
      masks_.push_back(std::move(mask));
    }
    feeds_.emplace_back(model_.x, model_.xs);
    feeds_.emplace_back(model_.y, model_.ys);
    for (std::size_t i = 0; i < masks_.size(); ++i) feeds_.emplace_back(model_.masks[i], masks_[i]);
    train_.emplace(state_, cr::Request{.outputs = {model_.loss}, .updates = model_.updates});
  }

  double step() override {
    if (!masks_.empty()) return train_->run(feeds_).scalar(model_.loss);
    return train_->run({{model_.x, model_.xs}, {model_.y, model_.ys}}).scalar(model_.loss);
  }

  void gradients(Sink& sink) override {
    cr::Program program(state_, {.outputs = cr::gradients(model_.loss, values_)});
    const auto results = program.run(feeds_);
    for (std::size_t i = 0; i < values_.size(); ++i) add(sink, parameters_[i].name, results[i]);
  }

  void weights(Sink& sink) override {
    for (std::size_t i = 0; i < values_.size(); ++i) add(sink, parameters_[i].name, state_[values_[i]]);
    std::string layer = "batch_norm";
    for (int next = 2; model_.graph.has(layer + "/variance"); layer = "batch_norm_" + std::to_string(next++))
      add(sink, "variance", state_[layer + "/variance"]);
  }

 private:
  static void add(Sink& sink, const std::string& name, const cr::Array& array) {
    if (array.dtype() == cr::float64) {
      sink.add(name, array.data<double>(), array.size());
    } else {
      sink.add(name, array.data<float>(), array.size());
    }
  }

  Model model_;
  std::vector<Parameter> parameters_;
  cr::Values values_;
  cr::State state_;
  std::vector<cr::Array> masks_;
  std::vector<cr::Feed> feeds_;
  std::optional<cr::Program> train_;
};

Model course_net(const Network& net) {
  cr::Graph graph;
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {net.units[0], batch});
  const auto y = graph.input("y", {1, batch});
  auto h = x;
  for (std::size_t i = 1; i < net.units.size(); ++i) {
    const auto number = std::to_string(i);
    const auto w = graph.parameter("w" + number, cr::zeros({net.units[i], net.units[i - 1]}));
    const auto b = graph.parameter("b" + number, cr::zeros({net.units[i], 1}));
    h = cr::matmul(w, h) + b;
    if (i + 1 < net.units.size()) h = cr::relu(h);
  }
  const auto loss = cr::sigmoid_cross_entropy(h, y);
  cr::Array xs(cr::float64, {net.units[0], net.batch});
  fill(xs.data<double>(), xs.size(), stream_x, 1);
  cr::Array ys(cr::float64, {1, net.batch});
  fill_classes(ys.data<double>(), ys.size(), stream_y, 2);
  const auto updates = cr::optim::Adam{.learning_rate = net.learning_rate}.minimize(loss);
  return {graph, x, y, std::move(xs), std::move(ys), loss, updates, {}};
}

// W2 and W3.
Model classifier(const Network& net, bool normalized, bool given_masks) {
  cr::Graph graph({.dtype = cr::float32});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, net.units[0]});
  const auto y = graph.input("y", {batch}, cr::int64);
  cr::Value h = x;
  cr::Values weights;
  cr::Values masks;
  for (std::size_t i = 1; i < net.units.size(); ++i) {
    const auto layer = cr::nn::dense(h, static_cast<std::size_t>(net.units[i]), cr::init::zeros());
    h = layer;
    if (i + 1 == net.units.size()) break;
    if (normalized) h = cr::nn::batch_norm(h, {.momentum = norm_momentum, .epsilon = norm_epsilon});
    h = cr::relu(h);
    if (normalized) {
      weights.push_back(layer.weight);
      if (given_masks) {
        masks.push_back(graph.input("mask" + std::to_string(i), {batch, net.units[i]}));
        h = cr::dropout(h, masks.back(), {.keep = keep});
      } else {
        h = cr::dropout(h, {.keep = keep});
      }
    }
  }
  auto loss = cr::softmax_cross_entropy(h, y);
  if (normalized) loss = loss + lambda * cr::l2(weights);
  cr::Array xs(cr::float32, {net.batch, net.units[0]});
  fill(xs.data<float>(), xs.size(), stream_x, 1);
  cr::Array ys(cr::int64, {net.batch});
  fill_classes(ys.data<std::int64_t>(), ys.size(), stream_y, static_cast<std::uint64_t>(net.units.back()));
  const auto updates =
      normalized ? cr::optim::Adam{.learning_rate = net.learning_rate}.minimize(loss)
                 : cr::optim::HeavyBall{.learning_rate = net.learning_rate, .momentum = heavy_ball}.minimize(loss);
  return {graph, x, y, std::move(xs), std::move(ys), loss, updates, masks};
}

// W5 and W10 as far as they are alike: `network` gives the logits of x.
template <class F>
Model image_model(const std::string& workload, F network_of) {
  const Network net = network(workload);
  cr::Graph graph({.dtype = cr::float32});
  const auto sizes = images(workload);
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, sizes[1], sizes[2], sizes[3]});
  const auto y = graph.input("y", {batch}, cr::int64);
  const auto loss = cr::softmax_cross_entropy(network_of(graph, x), y);
  cr::Array xs(cr::float32, cr::Dims(sizes));
  fill(xs.data<float>(), xs.size(), stream_x, 1);
  cr::Array ys(cr::int64, {net.batch});
  fill_classes(ys.data<std::int64_t>(), ys.size(), stream_y, image_classes);
  const auto updates = cr::optim::HeavyBall{.learning_rate = net.learning_rate, .momentum = heavy_ball}.minimize(loss);
  return {graph, x, y, std::move(xs), std::move(ys), loss, updates, {}};
}

Model lenet() {
  return image_model("W5", [](cr::Graph& graph, cr::Value h) {
    int number = 1;
    for (const std::int64_t features : {20, 50}) {
      const auto channels = h.shape()[1].extent();
      const auto w = graph.parameter("w" + std::to_string(number), cr::zeros({features, channels, 5, 5}));
      const auto b = graph.parameter("b" + std::to_string(number++), cr::zeros({features}));
      h = cr::relu(cr::max_pool(cr::conv(h, w) + cr::reshape(b, {features, 1, 1}), 2));
    }
    h = cr::reshape(h, {h.shape()[0], 800});
    h = cr::relu(cr::nn::dense(h, 500, cr::init::zeros()));
    return cr::Value(cr::nn::dense(h, image_classes, cr::init::zeros()));
  });
}

Model resnet() {
  return image_model("W10", [](cr::Graph& graph, cr::Value h) {
    const auto convolutions = residual_convolutions();
    const auto normalized = [&](cr::Value x, std::size_t i) {
      const auto& [in, out, taps, stride] = convolutions[i];
      const auto w = graph.parameter("w" + std::to_string(i + 1), cr::zeros({out, in, taps, taps}));
      return cr::nn::batch_norm(cr::conv(x, w, {.stride = stride, .padding = taps / 2}),
                                {.momentum = norm_momentum, .epsilon = norm_epsilon});
    };
    h = cr::relu(normalized(h, 0));
    for (std::size_t i = 1; i < convolutions.size();) {
      const auto inner = normalized(cr::relu(normalized(h, i)), i + 1);
      i += 2;
      if (i < convolutions.size() && convolutions[i].taps == 1) h = normalized(h, i++);
      h = cr::relu(inner + h);
    }
    return cr::Value(cr::nn::dense(cr::mean(h, {2, 3}), image_classes, cr::init::zeros()));
  });
}

// W8 and W9 as far as they are alike: `loss_of` the graph, the tokens and the tokens that follow.
template <class F>
Model text_model(const std::string& workload, F loss_of) {
  const Network net = network(workload);
  const Text sizes = text(workload);
  cr::Graph graph({.dtype = cr::float32});
  const auto batch = graph.dimension("batch");
  const auto x = graph.input("x", {batch, sizes.places}, cr::int64);
  const auto y = graph.input("y", {batch, sizes.places}, cr::int64);
  std::size_t next = 0;
  const auto list = parameters(workload);
  const auto parameter = [&] {
    const auto& p = list.at(next++);
    return graph.parameter(p.name, cr::zeros(cr::Shape(std::vector<cr::Dimension>(p.shape.begin(), p.shape.end()))));
  };
  const auto loss = loss_of(x, y, parameter);
  cr::Array xs(cr::int64, {net.batch, sizes.places});
  fill_classes(xs.data<std::int64_t>(), xs.size(), stream_x, static_cast<std::uint64_t>(sizes.vocabulary));
  cr::Array ys(cr::int64, {net.batch, sizes.places});
  fill_classes(ys.data<std::int64_t>(), ys.size(), stream_y, static_cast<std::uint64_t>(sizes.vocabulary));
  const auto updates =
      workload == "W8"
          ? cr::optim::GradientDescent{.learning_rate = net.learning_rate}.minimize(loss)
          : cr::optim::Adam{.learning_rate = net.learning_rate, .weight_decay = weight_decay}.minimize(loss);
  return {graph, x, y, std::move(xs), std::move(ys), loss, updates, {}};
}

Model lstm() {
  return text_model("W8", [](cr::Value x, cr::Value y, auto parameter) {
    cr::Value h = cr::embedding(parameter(), x);
    for (std::int64_t i = 0; i < text("W8").layers; ++i) {
      cr::RecurrentWeights weights;
      weights.input = parameter();
      weights.bias = parameter();
      weights.hidden = parameter();
      weights.hidden_bias = parameter();
      h = cr::lstm(h, weights);
    }
    const auto w = parameter();
    return cr::softmax_cross_entropy(cr::matmul(h, w) + parameter(), y);
  });
}

Model gpt() {
  return text_model("W9", [](cr::Value x, cr::Value y, auto parameter) {
    const auto sizes = text("W9");
    const auto linear = [&](cr::Value input) {
      const auto w = parameter();
      return cr::matmul(input, w) + parameter();
    };
    const auto norm = [&](cr::Value input) {
      const auto gamma = parameter();
      return cr::layer_norm(input, gamma, parameter(), {.epsilon = norm_epsilon});
    };
    const auto by_heads = [&](cr::Value v) {
      return cr::swapaxes(cr::reshape(v, {v.shape()[0], sizes.places, sizes.heads, sizes.width / sizes.heads}), 1, 2);
    };
    const auto tokens = parameter();
    cr::Value h = cr::embedding(tokens, x) + parameter();
    for (std::int64_t i = 0; i < sizes.layers; ++i) {
      const auto qkv = cr::split(linear(norm(h)), 3, -1);
      const auto attended =
          cr::scaled_dot_product_attention(by_heads(qkv[0]), by_heads(qkv[1]), by_heads(qkv[2]), {.causal = true});
      h = h + linear(cr::reshape(cr::swapaxes(attended, 1, 2), h.shape()));
      const auto wide = cr::gelu(linear(norm(h)));
      h = h + linear(wide);
    }
    return cr::softmax_cross_entropy(cr::matmul(norm(h), cr::transpose(tokens)), y);
  });
}

// W6 and W7. With fixed sizes a plan can be made before the first run.
Model chain(const Network& net, bool fixed) {
  cr::Graph graph({.dtype = cr::float32});
  const cr::Dimension batch = fixed ? cr::Dimension(net.batch) : graph.dimension("batch");
  const auto x = graph.input("x", {batch, net.units[0]});
  const auto y = graph.input("y", {batch, net.units.back()});
  cr::Value h = x;
  for (std::size_t i = 1; i < net.units.size(); ++i)
    h = cr::tanh(cr::nn::dense(h, static_cast<std::size_t>(net.units[i]), cr::init::zeros()));
  const auto loss = cr::mean_squared_error(h, y);
  cr::Array xs(cr::float32, {net.batch, net.units[0]});
  fill(xs.data<float>(), xs.size(), stream_x, 1);
  cr::Array ys(cr::float32, {net.batch, net.units.back()});
  fill(ys.data<float>(), ys.size(), stream_y, 1);
  const auto updates = cr::optim::GradientDescent{.learning_rate = net.learning_rate}.minimize(loss);
  return {graph, x, y, std::move(xs), std::move(ys), loss, updates, {}};
}

class Elementwise final : public Run {
 public:
  Elementwise() : graph_({.dtype = cr::float32}), state_(graph_) {
    cr::Values inputs;
    for (std::size_t i = 0; i < 3; ++i) {
      inputs_[i] = graph_.input(names[i], {w4_size});
      arrays_[i] = cr::Array(cr::float32, {w4_size});
      fill(arrays_[i].data<float>(), w4_size, stream_x + i, 2);
      inputs.push_back(inputs_[i]);
    }
    const auto [a, b, c] = inputs_;
    loss_ = cr::sum(cr::sigmoid(a * b + c) * cr::tanh(a - b) * cr::relu(c) + cr::exp(-a * a));
    auto outputs = cr::gradients(loss_, inputs);
    outputs.insert(outputs.begin(), loss_);
    program_.emplace(state_, cr::Request{.outputs = outputs});
  }

  double step() override { return run().scalar(loss_); }

  void gradients(Sink& sink) override {
    const auto results = run();
    for (std::size_t i = 0; i < 3; ++i) sink.add(names[i], results[i + 1].data<float>(), w4_size);
  }

  void weights(Sink& /*sink*/) override {}

 private:
  cr::Results run() {
    return program_->run({{inputs_[0], arrays_[0]}, {inputs_[1], arrays_[1]}, {inputs_[2], arrays_[2]}});
  }

  static constexpr std::array names = {"a", "b", "c"};
  cr::Graph graph_;
  cr::State state_;
  std::array<cr::Value, 3> inputs_;
  std::array<cr::Array, 3> arrays_;
  cr::Value loss_;
  std::optional<cr::Program> program_;
};

// Initial weights are zeros, so that no time goes into drawing them.
class Compile final : public Run {
 public:
  explicit Compile(Network net) : net_(std::move(net)) {}

  // What is made here outlives the step, whose time ends when the program is ready to run.
  double step() override {
    model_.emplace(chain(net_, true));
    state_.emplace(model_->graph);
    program_.emplace(*state_, cr::Request{.outputs = {model_->loss}, .updates = model_->updates});
    return static_cast<double>(program_->memory().steps);  // makes the plan
  }

  // What was compiled runs: with zeros for weights only the last bias has a gradient, that of mean(y^2) by y.
  void gradients(Sink& sink) override {
    const auto model = chain(net_, true);
    cr::State state(model.graph);
    const auto last = model.graph.parameters().back();
    cr::Program program(state, {.outputs = cr::gradients(model.loss, {last}), .updates = model.updates});
    const auto results = program.run({{model.x, model.xs}, {model.y, model.ys}});
    sink.add("last bias", results[0].data<float>(), results[0].size());
  }

  void weights(Sink& /*sink*/) override {}

 private:
  Network net_;
  std::optional<Model> model_;
  std::optional<cr::State> state_;
  std::optional<cr::Program> program_;
};

}  // namespace

std::string version() { return "chainrule " CHAINRULE_VERSION; }

bool is_checked(const std::string& /*workload*/) { return true; }

std::unique_ptr<Run> make_run(const Settings& settings) {
  const auto& workload = settings.workload;
  if (workload == "W4") return std::make_unique<Elementwise>();
  const auto net = network(workload, settings.small);
  if (workload.starts_with("W7")) return std::make_unique<Compile>(net);
  auto model = workload == "W1"    ? course_net(net)
               : workload == "W5"  ? lenet()
               : workload == "W6"  ? chain(net, false)
               : workload == "W8"  ? lstm()
               : workload == "W9"  ? gpt()
               : workload == "W10" ? resnet()
                                   : classifier(net, workload == "W2", settings.check);
  return std::make_unique<Training>(std::move(model), parameters(workload, settings.small));
}

}  // namespace bench
