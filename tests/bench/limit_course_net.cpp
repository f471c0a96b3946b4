// W1 by hand: loops of fixed extents over arrays on the stack, vectorized by the compiler over the 64 examples, exp and
// log by the C library's vector versions (g++ calls them under -ffast-math).
#include <array>
#include <cmath>

#include "limit.hpp"
#include "workloads.hpp"

namespace bench {

namespace {

constexpr std::size_t batch = 64;
constexpr std::size_t count = 5 * 2 + 5 + 2 * 5 + 2 + 2 + 1;
using Row = std::array<double, batch>;

template <std::size_t Out, std::size_t In>
struct Layer {
  static constexpr std::size_t size = Out * In + Out;

  // z = w x + b
  static void forward(const double* w, const Row* x, Row* z) {
    for (std::size_t o = 0; o < Out; ++o)
      for (std::size_t e = 0; e < batch; ++e) {
        double sum = w[Out * In + o];
        for (std::size_t i = 0; i < In; ++i) sum += w[o * In + i] * x[i][e];
        z[o][e] = sum;
      }
  }
  // g of w and b; the gradient of x, where it is wanted, through the relu that made x.
  static void backward(const double* w, const Row* x, const Row* dz, double* g, Row* dx) {
    for (std::size_t o = 0; o < Out; ++o) {
      for (std::size_t i = 0; i < In; ++i) {
        double sum = 0;
        for (std::size_t e = 0; e < batch; ++e) sum += dz[o][e] * x[i][e];
        g[o * In + i] = sum;
      }
      double sum = 0;
      for (std::size_t e = 0; e < batch; ++e) sum += dz[o][e];
      g[Out * In + o] = sum;
    }
    if (dx == nullptr) return;
    for (std::size_t i = 0; i < In; ++i)
      for (std::size_t e = 0; e < batch; ++e) {
        double sum = 0;
        for (std::size_t o = 0; o < Out; ++o) sum += w[o * In + i] * dz[o][e];
        dx[i][e] = x[i][e] > 0 ? sum : 0;
      }
  }
};

template <std::size_t N>
void relu(std::array<Row, N>& z) {
  for (auto& row : z)
    for (auto& value : row) value = value > 0 ? value : 0;
}

class CourseNet final : public Run {
 public:
  CourseNet() {
    std::size_t at = 0;
    for (const auto& parameter : parameters("W1")) {
      parameter.initialize(&w_[at]);
      at += static_cast<std::size_t>(parameter.size());
    }
    fill(x_[0].data(), 2 * batch, stream_x, 1);
    fill_classes(y_.data(), batch, stream_y, 2);
  }

  double step() override {
    using First = Layer<5, 2>;
    using Second = Layer<2, 5>;
    using Third = Layer<1, 2>;
    double* w1 = w_.data();
    double* w2 = w1 + First::size;
    double* w3 = w2 + Second::size;
    double* g1 = g_.data();
    double* g2 = g1 + First::size;
    double* g3 = g2 + Second::size;

    First::forward(w1, x_.data(), h1_.data());
    relu(h1_);
    Second::forward(w2, h1_.data(), h2_.data());
    relu(h2_);
    Third::forward(w3, h2_.data(), &z_);

    double loss = 0;
    for (std::size_t e = 0; e < batch; ++e) {
      const double z = z_[e];
      const double small = std::exp(-std::abs(z));
      const double p = (z > 0 ? 1 : small) / (1 + small);  // sigmoid(z)
      loss += (z > 0 ? z : 0) - z * y_[e] + std::log(1 + small);
      dz_[e] = (p - y_[e]) * (1.0 / batch);
    }

    Third::backward(w3, h2_.data(), &dz_, g3, dh2_.data());
    Second::backward(w2, h1_.data(), dh2_.data(), g2, dh1_.data());
    First::backward(w1, x_.data(), dh1_.data(), g1, nullptr);

    beta1_power_ *= adam_beta1;
    beta2_power_ *= adam_beta2;
    const double correct_v = 1 / (1 - beta1_power_);
    const double correct_s = 1 / (1 - beta2_power_);
    for (std::size_t i = 0; i < count; ++i) {
      v_[i] = adam_beta1 * v_[i] + (1 - adam_beta1) * g_[i];
      s_[i] = adam_beta2 * s_[i] + (1 - adam_beta2) * g_[i] * g_[i];
      w_[i] -= rate_ * (v_[i] * correct_v) / (std::sqrt(s_[i] * correct_s) + adam_epsilon);
    }
    return loss / batch;
  }

  void gradients(Sink& sink) override {
    step();
    write(sink, g_.data());
  }
  void weights(Sink& sink) override { write(sink, w_.data()); }

 private:
  static void write(Sink& sink, const double* values) {
    for (const auto& parameter : parameters("W1")) {
      sink.add(parameter.name, values, parameter.size());
      values += parameter.size();
    }
  }

  alignas(64) std::array<Row, 2> x_{};
  Row y_{};
  std::array<Row, 5> h1_{}, dh1_{};
  std::array<Row, 2> h2_{}, dh2_{};
  Row z_{}, dz_{};
  std::array<double, count> w_{}, g_{}, v_{}, s_{};  // layer by layer, each its w and its b
  double rate_ = network("W1").learning_rate;
  double beta1_power_ = 1;
  double beta2_power_ = 1;
};

}  // namespace

std::unique_ptr<Run> hand_written_course_net() { return std::make_unique<CourseNet>(); }

}  // namespace bench
