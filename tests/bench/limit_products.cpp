// W2, W3 and W6 without anything but their matrix products, all operands allocated before, and one pass of the
// optimizer over all parameters. What lies between the products (bias, batch norm, activation, dropout, loss) is left
// out, so a network's step cannot be faster than this unless its products are.
#include <cmath>
#include <stdexcept>

#include <cblas.h>

#include "buffer.hpp"
#include "limit.hpp"
#include "limit_updates.hpp"
#include "parallel.hpp"
#include "workloads.hpp"

namespace bench {

namespace {

class Products final : public Run {
 public:
  explicit Products(const Settings& settings)
      : workload_(settings.workload),
        threads_(settings.threads),
        net_(network(settings.workload, settings.small)),
        layers_(net_.units.size() - 1) {
    // One array of all parameters, of all gradients, of each slot: the optimizer's pass is one loop.
    std::int64_t size = 0;
    for (const auto& parameter : parameters(settings.workload, settings.small)) {
      if (parameter.shape.size() == 2) offsets_.push_back(size);
      size += parameter.size();
    }
    w_ = Buffer(static_cast<std::size_t>(size));
    g_ = Buffer(w_.size());
    if (workload_ != "W6") v_ = Buffer(w_.size());
    if (workload_ == "W2") s_ = Buffer(w_.size());
    // The variance of what a product gives is that of what it takes, forward and (about) backward.
    for (std::size_t i = 0; i < layers_; ++i)
      fill(&w_[at(i)], net_.units[i] * net_.units[i + 1], parameter_stream + i,
           std::sqrt(3.0 / static_cast<double>(net_.units[i])));
    for (std::size_t i = 0; i <= layers_; ++i) {
      h_.emplace_back(static_cast<std::size_t>(net_.batch * net_.units[i]));
      dh_.emplace_back(i > 0 ? h_.back().size() : 0);  // nobody asks for the input's gradient
    }
    fill(h_[0].data(), static_cast<std::int64_t>(h_[0].size()), stream_x, 1);
    fill(dh_.back().data(), static_cast<std::int64_t>(dh_.back().size()), stream_y, 1);
  }

  double step() override {
    const int batch = static_cast<int>(net_.batch);
    for (std::size_t i = 0; i < layers_; ++i) {
      const int in = static_cast<int>(net_.units[i]);
      const int out = static_cast<int>(net_.units[i + 1]);
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, batch, out, in, 1, h_[i].data(), in, &w_[at(i)], out, 0,
                  h_[i + 1].data(), out);
    }
    for (std::size_t i = layers_; i-- > 0;) {
      const int in = static_cast<int>(net_.units[i]);
      const int out = static_cast<int>(net_.units[i + 1]);
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, in, out, batch, 1, h_[i].data(), in, dh_[i + 1].data(), out,
                  0, &g_[at(i)], out);
      if (i > 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, batch, in, out, 1, dh_[i + 1].data(), out, &w_[at(i)], out,
                    0, dh_[i].data(), in);
    }
    ++steps_;
    parallel_for(static_cast<std::int64_t>(w_.size()), threads_, [&](std::int64_t begin, std::int64_t end, int) {
      if (workload_ == "W2") {
        adam(w_.data(), v_.data(), s_.data(), g_.data(), begin, end, steps_);
      } else if (workload_ == "W3") {
        heavy_ball_step(w_.data(), v_.data(), g_.data(), begin, end);
      } else {
        descent(w_.data(), g_.data(), begin, end);
      }
    });
    return h_.back()[0];
  }

  void gradients(Sink& /*sink*/) override { throw std::logic_error("a limit of bare products has no results"); }
  void weights(Sink& /*sink*/) override { throw std::logic_error("a limit of bare products has no results"); }

 private:
  [[nodiscard]] std::size_t at(std::size_t layer) const { return static_cast<std::size_t>(offsets_[layer]); }

  std::string workload_;
  int threads_;
  Network net_;
  std::size_t layers_;
  std::vector<std::int64_t> offsets_;  // of the layers' weights
  Buffer w_, g_, v_, s_;
  std::vector<Buffer> h_, dh_;
  int steps_ = 0;
};

}  // namespace

std::unique_ptr<Run> bare_products(const Settings& settings) { return std::make_unique<Products>(settings); }

}  // namespace bench
