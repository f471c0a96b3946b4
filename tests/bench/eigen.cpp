// W1, W2, W3 and W6 by hand with Eigen: forward and backward as a careful user writes them, no temporaries where a
// product can write in place. Compiled twice: with Eigen's own products, and with OpenBLAS' (EIGEN_USE_BLAS).
#include <cmath>
#include <string>
#include <vector>

#include <Eigen/Core>

#include "worker.hpp"
#include "workloads.hpp"

namespace bench {

namespace {

using Eigen::Dynamic;
using Eigen::Index;
using Matrix = Eigen::Matrix<float, Dynamic, Dynamic, Eigen::RowMajor>;
using Row = Eigen::Matrix<float, 1, Dynamic>;
using Column = Eigen::Matrix<float, Dynamic, 1>;

// All parameters of a network in one array (their gradients and slots in further ones), so that an optimizer is an
// expression.
template <class T>
class Parameters {
 public:
  using Flat = Eigen::Array<T, Dynamic, 1>;
  using View = Eigen::Map<Eigen::Matrix<T, Dynamic, Dynamic, Eigen::RowMajor>>;
  using RowView = Eigen::Map<Eigen::Matrix<T, 1, Dynamic>>;

  explicit Parameters(std::vector<Parameter> list) : list_(std::move(list)) {
    Index size = 0;
    for (const auto& parameter : list_) {
      offsets_.push_back(size);
      size += parameter.size();
    }
    w = g = v = s = Flat::Zero(size);
    for (std::size_t i = 0; i < list_.size(); ++i) list_[i].initialize(w.data() + offsets_[i]);
  }

  [[nodiscard]] View matrix(Flat& from, std::size_t i) const {
    return View(from.data() + offsets_[i], list_[i].shape[0], list_[i].shape[1]);
  }
  [[nodiscard]] RowView row(Flat& from, std::size_t i) const {
    return RowView(from.data() + offsets_[i], list_[i].size());
  }

  void adam(double rate) {
    beta1_power_ *= adam_beta1;
    beta2_power_ *= adam_beta2;
    const T beta1 = static_cast<T>(adam_beta1);
    const T beta2 = static_cast<T>(adam_beta2);
    const T scale = static_cast<T>(rate / (1 - beta1_power_));
    const T correct = static_cast<T>(1 / (1 - beta2_power_));
    v = beta1 * v + (1 - beta1) * g;
    s = beta2 * s + (1 - beta2) * g.square();
    w -= scale * v / ((correct * s).sqrt() + static_cast<T>(adam_epsilon));
  }
  void momentum(double rate) {
    v = static_cast<T>(heavy_ball) * v + g;
    w -= static_cast<T>(rate) * v;
  }
  void descent(double rate) { w -= static_cast<T>(rate) * g; }

  void write(Sink& sink, const Flat& from) const {
    for (std::size_t i = 0; i < list_.size(); ++i) sink.add(list_[i].name, from.data() + offsets_[i], list_[i].size());
  }

  Flat w, g, v, s;

 private:
  std::vector<Parameter> list_;
  std::vector<Index> offsets_;
  double beta1_power_ = 1;
  double beta2_power_ = 1;
};

// W1, with sizes known where it is compiled (fixed), or when it is run.
template <bool fixed>
class CourseNet final : public Run {
 public:
  CourseNet() {
    x_.resize(2, batch);
    h1_.resize(5, batch);
    h2_.resize(2, batch);
    for (auto* one : {&y_, &z_, &dz_, &small_}) one->resize(1, batch);
    dh1_.resize(5, batch);
    dh2_.resize(2, batch);
    fill(x_.data(), x_.size(), stream_x, 1);
    fill_classes(y_.data(), y_.size(), stream_y, 2);
  }

  double step() override {
    const auto w1 = matrix<5, 2>(p_.w, 0);
    const auto b1 = matrix<5, 1>(p_.w, 1);
    const auto w2 = matrix<2, 5>(p_.w, 2);
    const auto b2 = matrix<2, 1>(p_.w, 3);
    const auto w3 = matrix<1, 2>(p_.w, 4);
    const auto b3 = matrix<1, 1>(p_.w, 5);

    h1_.noalias() = w1 * x_;
    h1_ = (h1_.colwise() + b1.col(0)).cwiseMax(0);
    h2_.noalias() = w2 * h1_;
    h2_ = (h2_.colwise() + b2.col(0)).cwiseMax(0);
    z_.noalias() = w3 * h2_;
    z_.array() += b3(0, 0);
    small_ = (-z_.array().abs()).exp();
    const double loss = (z_.array().max(0) - z_.array() * y_.array() + (1 + small_.array()).log()).mean();
    dz_ = ((z_.array() > 0).select(1, small_).array() / (1 + small_.array()) - y_.array()) / batch;

    matrix<1, 2>(p_.g, 4).noalias() = dz_ * h2_.transpose();
    matrix<1, 1>(p_.g, 5)(0, 0) = dz_.sum();
    dh2_.noalias() = w3.transpose() * dz_;
    dh2_ = (h2_.array() > 0).select(dh2_, 0);
    matrix<2, 5>(p_.g, 2).noalias() = dh2_ * h1_.transpose();
    matrix<2, 1>(p_.g, 3) = dh2_.rowwise().sum();
    dh1_.noalias() = w2.transpose() * dh2_;
    dh1_ = (h1_.array() > 0).select(dh1_, 0);
    matrix<5, 2>(p_.g, 0).noalias() = dh1_ * x_.transpose();
    matrix<5, 1>(p_.g, 1) = dh1_.rowwise().sum();
    p_.adam(rate_);
    return loss;
  }

  void gradients(Sink& sink) override {
    step();
    p_.write(sink, p_.g);
  }
  void weights(Sink& sink) override { p_.write(sink, p_.w); }

 private:
  static constexpr int batch = 64;
  static constexpr int size(int extent) { return fixed ? extent : Dynamic; }
  template <int rows>
  using Examples = Eigen::Matrix<double, size(rows), size(batch), Eigen::RowMajor>;
  // (Of one column, the order of both is the same, and Eigen allows only its own.)
  template <int rows, int columns>
  using View = Eigen::Map<Eigen::Matrix<double, size(rows), columns == 1 ? 1 : size(columns),
                                        columns == 1 ? Eigen::ColMajor : Eigen::RowMajor>>;
  template <int rows, int columns>
  View<rows, columns> matrix(Parameters<double>::Flat& from, std::size_t i) const {
    return View<rows, columns>(p_.matrix(from, i).data(), rows, columns);
  }

  Parameters<double> p_{parameters("W1")};
  double rate_ = network("W1").learning_rate;
  Examples<2> x_;
  Examples<1> y_, z_, dz_, small_;
  Examples<5> h1_, dh1_;
  Examples<2> h2_, dh2_;
};

// W2 (normalized) and W3.
class Classifier final : public Run {
 public:
  explicit Classifier(const Settings& settings)
      : net_(network(settings.workload, settings.small)),
        normalized_(settings.workload == "W2"),
        given_masks_(settings.check),
        p_(parameters(settings.workload, settings.small)),
        x_(net_.batch, net_.units[0]),
        y_(static_cast<std::size_t>(net_.batch)),
        hidden_(net_.units.size() - 2) {
    fill(x_.data(), x_.size(), stream_x, 1);
    fill_classes(y_.data(), net_.batch, stream_y, static_cast<std::uint64_t>(net_.units.back()));
    for (std::size_t i = 0; i < hidden_.size(); ++i) {
      auto& layer = hidden_[i];
      const auto units = net_.units[i + 1];
      layer.h.resize(net_.batch, units);
      layer.dh.resize(net_.batch, units);
      if (!normalized_) continue;
      layer.normal.resize(net_.batch, units);
      layer.running_mean = Row::Zero(units);
      layer.running_variance = Row::Ones(units);
      layer.mask.resize(net_.batch, units);
      if (given_masks_) {
        fill_mask(layer.mask.data(), layer.mask.size(), stream_mask + i, keep);
        layer.mask *= scale_;
      }
    }
    logits_.resize(net_.batch, net_.units.back());
    classes_.resize(net_.batch, net_.units.back());
  }

  double step() override {
    const Matrix* in = &x_;
    for (std::size_t i = 0; i < hidden_.size(); ++i) {
      auto& layer = hidden_[i];
      layer.h.noalias() = *in * p_.matrix(p_.w, at(i));
      layer.h.rowwise() += p_.row(p_.w, at(i) + 1);
      if (normalized_) {
        normalize(layer, p_.row(p_.w, at(i) + 2), p_.row(p_.w, at(i) + 3), i);
      } else {
        layer.h = layer.h.cwiseMax(0);
      }
      in = &layer.h;
    }
    const auto last = hidden_.size();
    logits_.noalias() = *in * p_.matrix(p_.w, at(last));
    logits_.rowwise() += p_.row(p_.w, at(last) + 1);
    double loss = cross_entropy();
    if (normalized_)
      for (std::size_t i = 0; i < last; ++i) loss += lambda * static_cast<double>(p_.matrix(p_.w, at(i)).squaredNorm());

    Matrix* out = &classes_;  // the gradient by a layer's output
    for (std::size_t i = last + 1; i-- > 0;) {
      auto dw = p_.matrix(p_.g, at(i));
      dw.noalias() = (i > 0 ? hidden_[i - 1].h : x_).transpose() * *out;
      if (normalized_ && i < last) dw += static_cast<float>(2 * lambda) * p_.matrix(p_.w, at(i));
      p_.row(p_.g, at(i) + 1) = out->colwise().sum();
      if (i == 0) break;
      auto& layer = hidden_[i - 1];
      layer.dh.noalias() = *out * p_.matrix(p_.w, at(i)).transpose();
      if (normalized_) {
        normalize_backward(layer, i - 1);
      } else {
        layer.dh = (layer.h.array() > 0).select(layer.dh, 0);
      }
      out = &layer.dh;
    }
    if (normalized_) {
      p_.adam(net_.learning_rate);
    } else {
      p_.momentum(net_.learning_rate);
    }
    return loss;
  }

  void gradients(Sink& sink) override {
    step();
    p_.write(sink, p_.g);
  }
  void weights(Sink& sink) override {
    p_.write(sink, p_.w);
    if (!normalized_) return;
    for (const auto& layer : hidden_)
      sink.add("variance", layer.running_variance.data(), layer.running_variance.size());
  }

 private:
  struct Hidden {
    Matrix h, dh;
    Matrix normal;  // (z - mean) / deviation
    Matrix mask;    // 1 / keep or 0
    Row inverse;    // 1 / deviation
    Row running_mean, running_variance;
  };

  // Of a layer's first parameter.
  [[nodiscard]] std::size_t at(std::size_t layer) const { return layer * (normalized_ ? 4 : 2); }

  void normalize(Hidden& layer, const Parameters<float>::RowView& gamma, const Parameters<float>::RowView& beta,
                 std::size_t number) {
    const auto count = static_cast<float>(net_.batch);
    const Row mean = layer.h.colwise().mean();
    layer.normal = layer.h.rowwise() - mean;
    const Row variance = layer.normal.array().square().colwise().sum() / count;
    layer.inverse = (variance.array() + static_cast<float>(norm_epsilon)).rsqrt();
    const auto momentum = static_cast<float>(norm_momentum);
    layer.running_mean = (1 - momentum) * layer.running_mean + momentum * mean;
    layer.running_variance = (1 - momentum) * layer.running_variance + momentum * count / (count - 1) * variance;
    if (!given_masks_) draw(layer.mask, number);
    layer.normal.array().rowwise() *= layer.inverse.array();
    layer.h = ((layer.normal.array().rowwise() * gamma.array()).rowwise() + beta.array()).max(0) * layer.mask.array();
  }

  // From the gradient by the layer's output to that by its product.
  void normalize_backward(Hidden& layer, std::size_t number) {
    const auto count = static_cast<float>(net_.batch);
    layer.dh = (layer.h.array() > 0).select(layer.dh * scale_, 0);  // not where the mask is 0 either
    auto dgamma = p_.row(p_.g, at(number) + 2);
    auto dbeta = p_.row(p_.g, at(number) + 3);
    dgamma = (layer.dh.array() * layer.normal.array()).colwise().sum();
    dbeta = layer.dh.colwise().sum();
    const Row scale = p_.row(p_.w, at(number) + 2).cwiseProduct(layer.inverse);
    const Row a = dgamma / count;
    const Row b = dbeta / count;
    layer.dh = ((layer.dh - (layer.normal.array().rowwise() * a.array()).matrix()).rowwise() - b).array().rowwise() *
               scale.array();
  }

  // The mean over examples; leaves its gradient by the logits in classes_.
  double cross_entropy() {
    const Column greatest = logits_.rowwise().maxCoeff();
    classes_ = (logits_.colwise() - greatest).array().exp();
    const Column sums = classes_.rowwise().sum();
    double loss = 0;
    for (Index i = 0; i < net_.batch; ++i) {
      const auto label = static_cast<Index>(y_[static_cast<std::size_t>(i)]);
      loss += static_cast<double>(std::log(sums[i]) + greatest[i] - logits_(i, label));
      classes_.row(i) /= sums[i] * static_cast<float>(net_.batch);
      classes_(i, label) -= 1 / static_cast<float>(net_.batch);
    }
    return loss / static_cast<double>(net_.batch);
  }

  // A cheap hash of a counter (the final mix of MurmurHash3), which compilers vectorize.
  void draw(Matrix& mask, std::size_t number) {
    const auto threshold = static_cast<std::uint32_t>(keep * 0x1p32);
    const auto seed = static_cast<std::uint32_t>(++draws_ * 0x9E3779B9u + number);
    float* out = mask.data();
    for (Index i = 0; i < mask.size(); ++i) {
      std::uint32_t z = static_cast<std::uint32_t>(i) + seed;
      z = (z ^ (z >> 16)) * 0x85EBCA6Bu;
      z = (z ^ (z >> 13)) * 0xC2B2AE35u;
      z ^= z >> 16;
      out[i] = z < threshold ? scale_ : 0;
    }
  }

  static constexpr float scale_ = static_cast<float>(1 / keep);
  Network net_;
  bool normalized_;
  bool given_masks_;
  Parameters<float> p_;
  Matrix x_;
  std::vector<std::int64_t> y_;
  std::vector<Hidden> hidden_;
  Matrix logits_, classes_;
  std::uint32_t draws_ = 0;
};

// W6.
class Chain final : public Run {
 public:
  explicit Chain(const Settings& settings) : net_(network(settings.workload)), p_(parameters(settings.workload)) {
    for (const auto units : net_.units) h_.emplace_back(net_.batch, units);
    fill(h_[0].data(), h_[0].size(), stream_x, 1);
    y_.resize(net_.batch, net_.units.back());
    fill(y_.data(), y_.size(), stream_y, 1);
    dz_.resize(net_.batch, net_.units.back());
    dh_.resize(net_.batch, net_.units.back());
  }

  double step() override {
    const auto layers = h_.size() - 1;
    for (std::size_t i = 0; i < layers; ++i) {
      auto& h = h_[i + 1];
      h.noalias() = h_[i] * p_.matrix(p_.w, 2 * i);
      h = (h.rowwise() + p_.row(p_.w, 2 * i + 1)).array().tanh();
    }
    dh_ = h_.back() - y_;
    const double loss = static_cast<double>(dh_.squaredNorm()) / static_cast<double>(dh_.size());
    dh_ *= 2 / static_cast<float>(dh_.size());
    for (std::size_t i = layers; i-- > 0;) {
      dz_ = dh_.array() * (1 - h_[i + 1].array().square());
      p_.matrix(p_.g, 2 * i).noalias() = h_[i].transpose() * dz_;
      p_.row(p_.g, 2 * i + 1) = dz_.colwise().sum();
      if (i > 0) dh_.noalias() = dz_ * p_.matrix(p_.w, 2 * i).transpose();
    }
    p_.descent(net_.learning_rate);
    return loss;
  }

  void gradients(Sink& sink) override {
    step();
    p_.write(sink, p_.g);
  }
  void weights(Sink& sink) override { p_.write(sink, p_.w); }

 private:
  Network net_;
  Parameters<float> p_;
  std::vector<Matrix> h_;
  Matrix y_, dz_, dh_;
};

}  // namespace

std::string version() {
  return "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

bool is_checked(const std::string& /*workload*/) { return true; }

std::unique_ptr<Run> make_run(const Settings& settings) {
  if (settings.workload == "W1") {
    if (settings.fixed_sizes) return std::make_unique<CourseNet<true>>();
    return std::make_unique<CourseNet<false>>();
  }
  if (settings.workload == "W2" || settings.workload == "W3") return std::make_unique<Classifier>(settings);
  if (settings.workload == "W6") return std::make_unique<Chain>(settings);
  return nullptr;
}

}  // namespace bench
