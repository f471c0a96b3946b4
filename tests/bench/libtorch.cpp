// The workloads with LibTorch: functions on tensors, whose weights are laid out as ours are.
#include <torch/torch.h>

#include "worker.hpp"
#include "workloads.hpp"

namespace bench {

namespace {

using torch::Tensor;
namespace F = torch::nn::functional;

Tensor uniform(const std::vector<std::int64_t>& shape, std::uint64_t stream, double limit) {
  Tensor out = torch::empty(shape);
  fill(out.data_ptr<float>(), out.numel(), stream, limit);
  return out;
}

void add(Sink& sink, const std::string& name, const Tensor& tensor) {
  const Tensor dense = tensor.detach().contiguous();
  if (dense.scalar_type() == torch::kFloat64) {
    sink.add(name, dense.data_ptr<double>(), dense.numel());
  } else {
    sink.add(name, dense.data_ptr<float>(), dense.numel());
  }
}

class Training : public Run {
 public:
  explicit Training(const Settings& settings)
      : workload_(settings.workload),
        net_(network(settings.workload, settings.small)),
        list_(parameters(settings.workload, settings.small)) {
    for (const auto& parameter : list_) {
      Tensor tensor = torch::empty(parameter.shape, is_float64(workload_) ? torch::kFloat64 : torch::kFloat32);
      if (is_float64(workload_)) {
        parameter.initialize(tensor.data_ptr<double>());
      } else {
        parameter.initialize(tensor.data_ptr<float>());
      }
      // Weights of linear layers lie as torch::nn's do.
      if (is_for_text(workload_) && parameter.name.starts_with("w")) tensor = tensor.t().contiguous().t();
      p_.push_back(tensor.requires_grad_());
    }
    const double rate = net_.learning_rate;
    if (workload_ == "W1" || workload_ == "W2") {
      // The penalty on W2's hidden weights is left to the optimizer's weight decay, which costs LibTorch less than an
      // expression in the loss: the gradient of lambda |w|^2 is 2 lambda w.
      std::vector<Tensor> decayed;
      std::vector<Tensor> others;
      for (std::size_t i = 0; i < p_.size(); ++i) (is_penalized(i) ? decayed : others).push_back(p_[i]);
      const auto options = torch::optim::AdamOptions(rate).betas({adam_beta1, adam_beta2}).eps(adam_epsilon);
      auto adam = std::make_unique<torch::optim::Adam>(others, options);
      if (!decayed.empty())
        adam->add_param_group({decayed, std::make_unique<torch::optim::AdamOptions>(
                                            torch::optim::AdamOptions(options).weight_decay(2 * lambda))});
      optimizer_ = std::move(adam);
    } else if (workload_ == "W9") {
      optimizer_ = std::make_unique<torch::optim::AdamW>(p_, torch::optim::AdamWOptions(rate)
                                                                 .betas({adam_beta1, adam_beta2})
                                                                 .eps(adam_epsilon)
                                                                 .weight_decay(weight_decay));
    } else {
      optimizer_ = std::make_unique<torch::optim::SGD>(
          p_, torch::optim::SGDOptions(rate).momentum(has_heavy_ball(workload_) ? heavy_ball : 0));
    }
  }

  double step() override {
    for (auto& tensor : p_) tensor.mutable_grad().reset();  // faster than to fill it with zeros
    const Tensor loss = forward();
    loss.backward();
    double value = loss.item<double>();
    if (checked_) value += penalty();
    optimizer_->step();
    return value;
  }

  void gradients(Sink& sink) override {
    forward().backward();
    for (std::size_t i = 0; i < p_.size(); ++i)
      add(sink, list_[i].name, is_penalized(i) ? p_[i].grad() + 2 * lambda * p_[i].detach() : p_[i].grad());
  }
  void weights(Sink& sink) override {
    for (std::size_t i = 0; i < p_.size(); ++i) add(sink, list_[i].name, p_[i]);
  }

 protected:
  virtual Tensor forward() = 0;

  std::string workload_;
  Network net_;
  std::vector<Parameter> list_;
  std::vector<Tensor> p_;
  Tensor x_, y_;
  bool checked_ = false;

 private:
  [[nodiscard]] bool is_penalized(std::size_t i) const {
    return workload_ == "W2" && (list_[i].name == "w1" || list_[i].name == "w2");
  }
  double penalty() {
    const torch::NoGradGuard guard;
    double sum = 0;
    for (std::size_t i = 0; i < p_.size(); ++i)
      if (is_penalized(i)) sum += lambda * p_[i].square().sum().item<double>();
    return sum;
  }

  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

class CourseNet final : public Training {
 public:
  explicit CourseNet(const Settings& settings) : Training(settings) {
    x_ = torch::empty({2, net_.batch}, torch::kFloat64);
    fill(x_.data_ptr<double>(), x_.numel(), stream_x, 1);
    y_ = torch::empty({1, net_.batch}, torch::kFloat64);
    fill_classes(y_.data_ptr<double>(), y_.numel(), stream_y, 2);
  }

 private:
  Tensor forward() override {
    Tensor h = torch::relu(torch::addmm(p_[1], p_[0], x_));
    h = torch::relu(torch::addmm(p_[3], p_[2], h));
    return torch::binary_cross_entropy_with_logits(torch::addmm(p_[5], p_[4], h), y_);
  }
};

// W2 (normalized) and W3.
class Classifier final : public Training {
 public:
  explicit Classifier(const Settings& settings) : Training(settings), normalized_(settings.workload == "W2") {
    checked_ = settings.check && normalized_;
    x_ = uniform({net_.batch, net_.units[0]}, stream_x, 1);
    y_ = torch::empty({net_.batch}, torch::kInt64);
    fill_classes(y_.data_ptr<std::int64_t>(), y_.numel(), stream_y, static_cast<std::uint64_t>(net_.units.back()));
    if (!normalized_) return;
    for (std::size_t i = 0; i < 2; ++i) {
      means_.push_back(torch::zeros({net_.units[i + 1]}));
      variances_.push_back(torch::ones({net_.units[i + 1]}));
      masks_.push_back(torch::empty({net_.batch, net_.units[i + 1]}));
      fill_mask(masks_[i].data_ptr<float>(), masks_[i].numel(), stream_mask + i, keep);
    }
  }

  void weights(Sink& sink) override {
    Training::weights(sink);
    for (const auto& variance : variances_) add(sink, "variance", variance);
  }

 private:
  Tensor forward() override {
    const std::size_t per_layer = normalized_ ? 4 : 2;
    Tensor h = x_;
    for (std::size_t i = 0; i < net_.units.size() - 1; ++i) {
      const auto* p = &p_[i * per_layer];
      h = torch::addmm(p[1], h, p[0]);
      if (i + 2 == net_.units.size()) break;
      if (normalized_)
        h = torch::batch_norm(h, p[2], p[3], means_[i], variances_[i], true, norm_momentum, norm_epsilon, false);
      h = torch::relu(h);
      if (normalized_) h = checked_ ? h * masks_[i] * (1 / keep) : torch::dropout(h, 1 - keep, true);
    }
    return F::cross_entropy(h, y_);
  }

  bool normalized_;
  std::vector<Tensor> means_, variances_, masks_;
};

class Chain final : public Training {
 public:
  explicit Chain(const Settings& settings) : Training(settings) {
    x_ = uniform({net_.batch, net_.units[0]}, stream_x, 1);
    y_ = uniform({net_.batch, net_.units.back()}, stream_y, 1);
  }

 private:
  Tensor forward() override {
    Tensor h = x_;
    for (std::size_t i = 0; i < p_.size(); i += 2) h = torch::tanh(torch::addmm(p_[i + 1], h, p_[i]));
    return torch::mse_loss(h, y_);
  }
};

// W5 and W10.
class ImageNet : public Training {
 public:
  explicit ImageNet(const Settings& settings) : Training(settings) {
    x_ = uniform(images(workload_), stream_x, 1);
    y_ = torch::empty({net_.batch}, torch::kInt64);
    fill_classes(y_.data_ptr<std::int64_t>(), y_.numel(), stream_y, image_classes);
  }
};

class LeNet final : public ImageNet {
 public:
  using ImageNet::ImageNet;

 private:
  Tensor forward() override {
    Tensor h = x_;
    for (std::size_t i = 0; i < 4; i += 2) h = torch::relu(torch::max_pool2d(torch::conv2d(h, p_[i], p_[i + 1]), 2));
    h = torch::relu(torch::addmm(p_[5], h.flatten(1), p_[4]));
    return F::cross_entropy(torch::addmm(p_[7], h, p_[6]), y_);
  }
};

class ResNet final : public ImageNet {
 public:
  explicit ResNet(const Settings& settings) : ImageNet(settings) {
    for (const auto& convolution : convolutions_) {
      means_.push_back(torch::zeros({convolution.out}));
      variances_.push_back(torch::ones({convolution.out}));
    }
  }

  void weights(Sink& sink) override {
    Training::weights(sink);
    for (const auto& variance : variances_) add(sink, "variance", variance);
  }

 private:
  // Convolution i and its batch norm.
  Tensor normalized(const Tensor& x, std::size_t i) {
    const auto& convolution = convolutions_[i];
    const Tensor y = torch::conv2d(x, p_[3 * i], {}, convolution.stride, convolution.taps / 2);
    return torch::batch_norm(y, p_[3 * i + 1], p_[3 * i + 2], means_[i], variances_[i], true, norm_momentum,
                             norm_epsilon, false);
  }

  Tensor forward() override {
    Tensor h = torch::relu(normalized(x_, 0));
    for (std::size_t i = 1; i < convolutions_.size();) {
      const Tensor inner = normalized(torch::relu(normalized(h, i)), i + 1);
      i += 2;
      if (i < convolutions_.size() && convolutions_[i].taps == 1) h = normalized(h, i++);
      h = torch::relu(inner + h);
    }
    return F::cross_entropy(torch::addmm(p_.back(), h.mean({2, 3}), p_[p_.size() - 2]), y_);
  }

  std::vector<Convolution> convolutions_ = residual_convolutions();
  std::vector<Tensor> means_, variances_;
};

// W8 and W9.
class TextNet : public Training {
 public:
  explicit TextNet(const Settings& settings) : Training(settings), sizes_(text(workload_)) {
    x_ = torch::empty({net_.batch, sizes_.places}, torch::kInt64);
    fill_classes(x_.data_ptr<std::int64_t>(), x_.numel(), stream_x, static_cast<std::uint64_t>(sizes_.vocabulary));
    y_ = torch::empty({net_.batch, sizes_.places}, torch::kInt64);
    fill_classes(y_.data_ptr<std::int64_t>(), y_.numel(), stream_y, static_cast<std::uint64_t>(sizes_.vocabulary));
  }

 protected:
  Text sizes_;
};

class LstmNet final : public TextNet {
 public:
  // Places first, which is how torch::lstm is fastest.
  explicit LstmNet(const Settings& settings) : TextNet(settings) {
    x_ = x_.t().contiguous();
    y_ = y_.t().contiguous();
  }

 private:
  Tensor forward() override {
    std::vector<Tensor> weights;
    for (std::int64_t i = 0; i < sizes_.layers; ++i) {
      const Tensor* p = &p_[1 + 4 * static_cast<std::size_t>(i)];
      for (const Tensor& w : {p[0].t(), p[2].t(), p[1], p[3]}) weights.push_back(w);
    }
    const Tensor zeros = torch::zeros({sizes_.layers, net_.batch, sizes_.width});
    const Tensor h = std::get<0>(
        torch::lstm(torch::embedding(p_[0], x_), {zeros, zeros}, weights, true, sizes_.layers, 0, true, false, false));
    const Tensor logits = F::linear(h, p_[p_.size() - 2].t(), p_.back());
    return F::cross_entropy(logits.view({-1, sizes_.vocabulary}), y_.view({-1}));
  }
};

class GptNet final : public TextNet {
 public:
  explicit GptNet(const Settings& settings)
      : TextNet(settings), later_(torch::ones({sizes_.places, sizes_.places}, torch::kBool).triu(1)) {}

 private:
  Tensor forward() override {
    const auto [places, vocabulary, width, layers, heads] = sizes_;
    const Tensor* p = p_.data();
    const auto norm = [&, width = width](const Tensor& x) {
      const Tensor out = torch::layer_norm(x, {width}, p[0], p[1], norm_epsilon);
      p += 2;
      return out;
    };
    const auto linear = [&](const Tensor& x) {
      const Tensor out = F::linear(x, p[0].t(), p[1]);
      p += 2;
      return out;
    };
    const auto by_heads = [&, places = places, heads = heads, width = width](const Tensor& x) {
      return x.view({-1, places, heads, width / heads}).transpose(1, 2);
    };
    Tensor h = torch::embedding(p[0], x_) + p[1];
    p += 2;
    for (std::int64_t i = 0; i < layers; ++i) {
      const auto qkv = linear(norm(h)).split(width, 2);
      const Tensor query = by_heads(qkv[0]) * (1 / std::sqrt(static_cast<double>(width / heads)));
      const Tensor scores = torch::matmul(query, by_heads(qkv[1]).transpose(2, 3)).masked_fill(later_, -INFINITY);
      const Tensor attended = torch::matmul(torch::softmax(scores, -1), by_heads(qkv[2]));
      h = h + linear(attended.transpose(1, 2).reshape(h.sizes()));
      const Tensor wide = torch::gelu(linear(norm(h)));
      h = h + linear(wide);
    }
    const Tensor logits = torch::matmul(norm(h), p_[0].t());
    return F::cross_entropy(logits.view({-1, vocabulary}), y_.view({-1}));
  }

  Tensor later_;
};

class Elementwise final : public Run {
 public:
  Elementwise() {
    for (std::size_t i = 0; i < 3; ++i) inputs_.push_back(uniform({w4_size}, stream_x + i, 2).requires_grad_());
  }

  double step() override {
    for (auto& tensor : inputs_) tensor.mutable_grad().reset();
    const auto& a = inputs_[0];
    const auto& b = inputs_[1];
    const auto& c = inputs_[2];
    const Tensor loss = (torch::sigmoid(a * b + c) * torch::tanh(a - b) * torch::relu(c) + torch::exp(-a * a)).sum();
    loss.backward();
    return loss.item<double>();
  }

  void gradients(Sink& sink) override {
    step();
    constexpr std::array names = {"a", "b", "c"};
    for (std::size_t i = 0; i < 3; ++i) add(sink, names[i], inputs_[i].grad());
  }
  void weights(Sink& /*sink*/) override {}

 private:
  std::vector<Tensor> inputs_;
};

}  // namespace

std::string version() { return "LibTorch " TORCH_VERSION; }

bool is_checked(const std::string& /*workload*/) { return true; }

std::unique_ptr<Run> make_run(const Settings& settings) {
  torch::set_num_threads(settings.threads);
  if (settings.workload == "W1") return std::make_unique<CourseNet>(settings);
  if (settings.workload == "W2" || settings.workload == "W3") return std::make_unique<Classifier>(settings);
  if (settings.workload == "W4") return std::make_unique<Elementwise>();
  if (settings.workload == "W5") return std::make_unique<LeNet>(settings);
  if (settings.workload == "W6") return std::make_unique<Chain>(settings);
  if (settings.workload == "W8") return std::make_unique<LstmNet>(settings);
  if (settings.workload == "W9") return std::make_unique<GptNet>(settings);
  if (settings.workload == "W10") return std::make_unique<ResNet>(settings);
  return nullptr;
}

}  // namespace bench
