// What the benchmark's programs compute: sizes, data and initial weights, the same for all of them (peer_numpy.py has
// this file's contents in Python).
#pragma once

#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {

// The final mix of SplitMix64 (Steele, Lea and Flood 2014) of a counter: number i of a stream, any order, any language.
inline std::uint64_t word(std::uint64_t stream, std::uint64_t i) {
  std::uint64_t z = ((stream << 32) + i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// In [0, 1), a multiple of 2^-24.
inline double unit(std::uint64_t stream, std::uint64_t i) {
  return static_cast<double>(word(stream, i) >> 40) * 0x1p-24;
}

// Evenly distributed in [offset - limit, offset + limit).
template <class T>
void fill(T* out, std::int64_t count, std::uint64_t stream, double limit, double offset = 0) {
  for (std::int64_t i = 0; i < count; ++i)
    out[i] = static_cast<T>(offset + limit * (2 * unit(stream, static_cast<std::uint64_t>(i)) - 1));
}

// Class indices; with two classes, the labels 0 and 1.
template <class T>
void fill_classes(T* out, std::int64_t count, std::uint64_t stream, std::uint64_t classes) {
  for (std::int64_t i = 0; i < count; ++i)
    out[i] = static_cast<T>((word(stream, static_cast<std::uint64_t>(i)) >> 32) % classes);
}

// 1 with probability keep, else 0.
template <class T>
void fill_mask(T* out, std::int64_t count, std::uint64_t stream, double keep) {
  for (std::int64_t i = 0; i < count; ++i)
    out[i] = static_cast<T>(unit(stream, static_cast<std::uint64_t>(i)) < keep ? 1 : 0);
}

// Streams of the data; parameter i has stream parameter_stream + i. The masks of W2's two dropouts are used where
// results are compared; where times are measured each program draws its own.
enum : std::uint64_t { stream_x = 0, stream_y = 1, stream_mask = 2, parameter_stream = 16 };

// W1: a course's 2-5-2-1 classifier, one example a column: relu, relu, sigmoid; binary cross-entropy (mean); float64.
// W2: 784-512-512-10: (linear, batch norm, relu, dropout) twice, linear; softmax cross-entropy (mean over the batch) +
//     lambda times the sum of squares of the two hidden layers' weights; float32. Running statistics are kept up.
// W3: 1024-4096-4096-1000: linear, relu, linear, relu, linear; softmax cross-entropy; float32.
// W4: sum(sigmoid(a*b+c) * tanh(a-b) * relu(c) + exp(-a*a)) and its gradients by a, b and c; float32.
// W5: LeNet: (5 x 5 convolution, 2 x 2 max pooling, relu) with 20 and 50 features, linear to 500, relu, linear to 10;
//     softmax cross-entropy; 28 x 28 images of one channel; float32.
// W6: (linear, tanh) 100 times, 64 wide; mean squared error; float32.
// W7: from nothing to a program ready to run: the graph of W6 with 10,000 layers, its gradients, updates and plan.
//     W7-1000: with 1,000.
// W8: two LSTM layers over the embeddings of tokens, linear; softmax cross-entropy (mean over tokens); float32.
// W9: GPT: embeddings of tokens and of places; blocks of causal attention with a linear layer for queries, keys and
//     values and one for what the heads give, and of linear, gelu, linear, each behind a layer norm and added to what
//     it read; layer norm; logits by the tokens' own table; softmax cross-entropy (mean over tokens); float32.
// W10: ResNet-8: the convolutions of residual_convolutions(), each with batch norm; the first, and the first of a
// block,
//     with relu; a block's two and its input, or that through a 1 x 1 convolution, are added, then relu; the mean over
//     rows and columns; linear; softmax cross-entropy; 32 x 32 images of three channels; float32.
// One step of W1-W3, W5, W6 and W8-W10 is forward, backward, update: of Adam (1, 2), heavy-ball momentum (3, 5, 10),
// gradient descent (6, 8), Adam with decoupled weight decay (9).
struct Network {
  std::vector<std::int64_t> units;  // none of W5 and W8-W10
  std::int64_t batch = 0;
  double learning_rate = 0;
};

constexpr double adam_beta1 = 0.9;
constexpr double adam_beta2 = 0.999;
constexpr double adam_epsilon = 1e-8;
constexpr double heavy_ball = 0.9;
constexpr double keep = 0.8;           // W2
constexpr double lambda = 1e-4;        // W2
constexpr double norm_epsilon = 1e-5;  // W2, W9 and W10
constexpr double weight_decay = 0.01;  // W9
constexpr double norm_momentum = 0.1;  // W2 and W10
constexpr std::int64_t w4_size = 1 << 22;

inline bool has_heavy_ball(const std::string& workload) {
  return workload == "W3" || workload == "W5" || workload == "W10";
}

inline bool is_for_images(const std::string& workload) { return workload == "W5" || workload == "W10"; }

// What W5 and W10 are fed: {batch, channels, side, side}.
inline std::vector<std::int64_t> images(const std::string& workload) {
  return workload == "W5" ? std::vector<std::int64_t>{128, 1, 28, 28} : std::vector<std::int64_t>{64, 3, 32, 32};
}
constexpr std::uint64_t image_classes = 10;

// What W8 and W9 read: `batch` sequences of `places` tokens each, of which the next one is to be told.
struct Text {
  std::int64_t places;
  std::int64_t vocabulary;
  std::int64_t width;
  std::int64_t layers;
  std::int64_t heads;
};
inline bool is_for_text(const std::string& workload) { return workload == "W8" || workload == "W9"; }
inline Text text(const std::string& workload) {
  return workload == "W8" ? Text{35, 1000, 256, 2, 0} : Text{64, 65, 128, 4, 4};
}

// Square, without a bias; padded so that with stride 1 the image keeps its size.
struct Convolution {
  std::int64_t in;
  std::int64_t out;
  std::int64_t taps;
  std::int64_t stride;
};

// W10's: the first, then of each block two, and that of its shortcut where it has one.
inline std::vector<Convolution> residual_convolutions() {
  return {{3, 16, 3, 1},  {16, 16, 3, 1}, {16, 16, 3, 1}, {16, 32, 3, 2}, {32, 32, 3, 1},
          {16, 32, 1, 2}, {32, 64, 3, 2}, {64, 64, 3, 1}, {32, 64, 1, 2}};
}

// How many steps of training are compared. A step of W7 is a compilation.
inline int checked_steps(const std::string& workload) { return workload.starts_with("W7") ? 0 : 3; }

// `small`: W3 with a 64th of the work.
inline Network network(const std::string& workload, bool small = false) {
  if (workload == "W1") return {{2, 5, 2, 1}, 64, 1e-3};
  if (workload == "W2") return {{784, 512, 512, 10}, 128, 1e-3};
  if (workload == "W3") {
    if (small) return {{256, 1024, 1024, 250}, 128, 0.1};
    return {{1024, 4096, 4096, 1000}, 512, 0.1};
  }
  if (workload == "W5") return {{}, 128, 0.01};
  if (workload == "W8") return {{}, 32, 0.1};
  if (workload == "W9") return {{}, 12, 1e-3};
  if (workload == "W10") return {{}, 64, 0.01};
  if (workload == "W6") return {std::vector<std::int64_t>(101, 64), 32, 0.1};
  if (workload == "W7") return {std::vector<std::int64_t>(10'001, 64), 32, 0.1};
  if (workload == "W7-1000") return {std::vector<std::int64_t>(1'001, 64), 32, 0.1};
  throw std::invalid_argument("no network: " + workload);
}

inline bool is_float64(const std::string& workload) { return workload == "W1"; }

struct Parameter {
  std::string name;
  std::vector<std::int64_t> shape;
  double limit = 0;  // initial values: offset +- limit
  double offset = 0;
  std::uint64_t stream = 0;

  [[nodiscard]] std::int64_t size() const {
    std::int64_t product = 1;
    for (const auto extent : shape) product *= extent;
    return product;
  }
  template <class T>
  void initialize(T* out) const {
    fill(out, size(), stream, limit, offset);
  }
};

// In this order: each layer's w and b, in W2 followed by the gamma and beta of a hidden layer; of W10's convolutions w,
// gamma and beta. Weights of convolutions are {out, in, rows, columns}. Of W8 the table; each LSTM's weights of its
// input and of its state, with columns i f g o, and the bias of each; w and b. Of W9 the tables of tokens and places;
// of each block gamma, beta and the queries', keys' and values' w and b, w and b of what the heads give, gamma, beta,
// and w and b twice; gamma and beta.
inline std::vector<Parameter> parameters(const std::string& workload, bool small = false) {
  if (workload == "W4") return {};
  std::vector<Parameter> all;
  const auto add = [&](const std::string& name, std::vector<std::int64_t> shape, double limit, double offset) {
    all.push_back({name, std::move(shape), limit, offset, parameter_stream + all.size()});
  };
  const auto add_weight = [&](const std::string& name, std::vector<std::int64_t> shape, std::int64_t fan_in) {
    add(name, std::move(shape), std::sqrt(6 / static_cast<double>(fan_in)), 0);
  };
  if (workload == "W5") {
    add_weight("w1", {20, 1, 5, 5}, 25);
    add("b1", {20}, 0.1, 0);
    add_weight("w2", {50, 20, 5, 5}, 500);
    add("b2", {50}, 0.1, 0);
    add_weight("w3", {800, 500}, 800);
    add("b3", {500}, 0.1, 0);
    add_weight("w4", {500, 10}, 500);
    add("b4", {10}, 0.1, 0);
    return all;
  }
  const auto add_linear = [&](const std::string& end, std::int64_t in, std::int64_t out) {
    const double limit = std::sqrt(1 / static_cast<double>(in));
    add("w" + end, {in, out}, limit, 0);
    add("b" + end, {out}, limit, 0);
  };
  const auto add_norm = [&](const std::string& end, std::int64_t size) {
    add("gamma" + end, {size}, 0.1, 1);
    add("beta" + end, {size}, 0.1, 0);
  };
  if (is_for_text(workload)) {
    const auto [places, vocabulary, width, layers, heads] = text(workload);
    add("tokens", {vocabulary, width}, workload == "W8" ? 1 : 0.1, 0);
    if (workload == "W9") add("places", {places, width}, 0.1, 0);
    for (std::int64_t i = 1; i <= layers; ++i) {
      const auto number = std::to_string(i);
      if (workload == "W8") {
        add_linear("_input" + number, width, 4 * width);
        add_linear("_state" + number, width, 4 * width);
        continue;
      }
      add_norm("_attention" + number, width);
      add_linear("_qkv" + number, width, 3 * width);
      add_linear("_heads" + number, width, width);
      add_norm("_mlp" + number, width);
      add_linear("_wide" + number, width, 4 * width);
      add_linear("_narrow" + number, 4 * width, width);
    }
    if (workload == "W8") {
      add_linear("", width, vocabulary);
    } else {
      add_norm("", width);
    }
    return all;
  }
  if (workload == "W10") {
    std::size_t number = 0;
    for (const auto& [in, out, taps, stride] : residual_convolutions()) {
      const auto name = std::to_string(++number);
      add_weight("w" + name, {out, in, taps, taps}, in * taps * taps);
      add("gamma" + name, {out}, 0.1, 1);
      add("beta" + name, {out}, 0.1, 0);
    }
    add_weight("w10", {64, 10}, 64);
    add("b10", {10}, 0.1, 0);
    return all;
  }
  const auto net = network(workload, small);
  for (std::size_t i = 1; i < net.units.size(); ++i) {
    const auto number = std::to_string(i);
    const auto in = net.units[i - 1];
    const auto out = net.units[i];
    const double gain = workload == "W6" ? 3 : 6;  // the variance that tanh, or relu, keeps
    const double limit = std::sqrt(gain / static_cast<double>(in));
    if (workload == "W1") {
      add("w" + number, {out, in}, limit, 0);
      add("b" + number, {out, 1}, 0.1, 0);
    } else {
      add("w" + number, {in, out}, limit, 0);
      add("b" + number, {out}, 0.1, 0);
    }
    if (workload == "W2" && i + 1 < net.units.size()) {
      add("gamma" + number, {out}, 0.1, 1);
      add("beta" + number, {out}, 0.1, 0);
    }
  }
  return all;
}

}  // namespace bench
