// W2, W3 and W6 with dlib (which has float32 only). In W2 its Adam adds epsilon before it corrects the second moment,
// its batch norm averages its running statistics in another way, and its dropout does not scale what is kept; the check
// has a layer that does.
#include <dlib/dnn.h>
#include <dlib/revision.h>

#include "worker.hpp"
#include "workloads.hpp"

namespace bench {

namespace {

class Drop : public dlib::dropout_ {
 public:
  Drop() : dropout_(static_cast<float>(1 - keep)) {}
};

// Dropout with a mask of workloads.hpp: what a check compares.
class GivenMask {
 public:
  template <class Subnet>
  void setup(const Subnet& subnet) {
    mask_.copy_size(subnet.get_output());
    fill_mask(mask_.host(), static_cast<std::int64_t>(mask_.size()), stream_mask + number, keep);
    mask_ *= static_cast<float>(1 / keep);
  }
  void forward_inplace(const dlib::tensor& input, dlib::tensor& output) {
    dlib::tt::multiply(false, output, input, mask_);
  }
  void backward_inplace(const dlib::tensor& dy, dlib::tensor& dx, dlib::tensor& /*parameters*/) {
    dlib::tt::multiply(!dlib::is_same_object(dx, dy), dx, dy, mask_);
  }
  [[nodiscard]] const dlib::tensor& get_layer_params() const { return none_; }
  dlib::tensor& get_layer_params() { return none_; }

  std::uint64_t number = 0;  // of the mask

 private:
  dlib::resizable_tensor mask_;
  dlib::resizable_tensor none_;
};

template <class Subnet>
using dropout = dlib::add_layer<Drop, Subnet>;
template <class Subnet>
using given_mask = dlib::add_layer<GivenMask, Subnet>;

template <int units, template <class> class Dropout, class Subnet>
using normalized = Dropout<dlib::relu<dlib::bn_fc<dlib::fc<units, Subnet>>>>;

using Input = dlib::input<dlib::matrix<float>>;
template <template <class> class Dropout>
using Normalized = dlib::loss_multiclass_log<dlib::fc<10, normalized<512, Dropout, normalized<512, Dropout, Input>>>>;

template <int hidden, int classes>
using Plain =
    dlib::loss_multiclass_log<dlib::fc<classes, dlib::relu<dlib::fc<hidden, dlib::relu<dlib::fc<hidden, Input>>>>>>;

template <class Subnet>
using linear_tanh = dlib::htan<dlib::fc<64, Subnet>>;
using Chain = dlib::loss_mean_squared_multioutput<dlib::repeat<99, linear_tanh, linear_tanh<Input>>>;

// `scale`: our loss relative to dlib's, and our gradients relative to dlib's.
struct Scale {
  double loss = 1;
  double gradient = 1;
};

template <class Net, class Solver>
class Training final : public Run {
 public:
  static constexpr bool given = std::is_same_v<Net, Normalized<given_mask>>;
  using Label = typename Net::training_label_type;

  Training(const Settings& settings, const Solver& solver, std::vector<Label> labels, const Scale& scale = {})
      : workload_(settings.workload),
        net_(network(settings.workload, settings.small)),
        list_(parameters(settings.workload, settings.small)),
        labels_(std::move(labels)),
        scale_(scale),
        solvers_(Net::num_computational_layers, solver) {
    const std::vector<dlib::matrix<float>> zeros(static_cast<std::size_t>(net_.batch),
                                                 dlib::zeros_matrix<float>(net_.units[0], 1));
    model_.to_tensor(zeros.begin(), zeros.end(), x_);  // dlib takes no tensor that it has not made
    fill(x_.host(), static_cast<std::int64_t>(x_.size()), stream_x, 1);
    prepare();
    model_.forward(x_);  // makes the parameters
    // A layer has two of ours in one array.
    std::size_t i = 0;
    for (auto* parameters : layers()) {
      list_[i].initialize(parameters->host());
      list_[i + 1].initialize(parameters->host() + list_[i].size());
      i += 2;
    }
  }

  double step() override {
    double loss = model_.compute_parameter_gradients(x_, labels_.begin()) * scale_.loss;
    if (given) loss += penalty();
    model_.update_parameters(solvers_, net_.learning_rate * scale_.gradient);
    return loss;
  }

  void gradients(Sink& sink) override {
    model_.compute_parameter_gradients(x_, labels_.begin());
    std::vector<dlib::tensor*> all;
    dlib::visit_layer_parameter_gradients(model_,
                                          [&](std::size_t, dlib::tensor& gradient) { all.push_back(&gradient); });
    const auto parameters = layers();
    std::size_t layer = 0;
    std::size_t i = 0;
    for (auto at = all.rbegin(); at != all.rend(); ++at) {
      if ((*at)->size() == 0) continue;
      std::vector<float> values((*at)->begin(), (*at)->end());
      for (auto& value : values) value *= static_cast<float>(scale_.gradient);
      if (is_penalized(i))
        for (std::size_t k = 0; k < static_cast<std::size_t>(list_[i].size()); ++k)
          values[k] += static_cast<float>(2 * lambda) * parameters[layer]->host()[k];
      sink.add(list_[i].name, values.data(), list_[i].size());
      sink.add(list_[i + 1].name, values.data() + list_[i].size(), list_[i + 1].size());
      ++layer;
      i += 2;
    }
  }

  void weights(Sink& sink) override {
    std::size_t i = 0;
    for (auto* parameters : layers()) {
      sink.add(list_[i].name, parameters->host(), list_[i].size());
      sink.add(list_[i + 1].name, parameters->host() + list_[i].size(), list_[i + 1].size());
      i += 2;
    }
  }

 private:
  // From the input on.
  std::vector<dlib::tensor*> layers() {
    std::vector<dlib::tensor*> all;
    dlib::visit_layer_parameters(model_, [&](std::size_t, dlib::tensor& parameters) {
      if (parameters.size() != 0) all.insert(all.begin(), &parameters);
    });
    return all;
  }

  void prepare() {
    if constexpr (given || std::is_same_v<Net, Normalized<dropout>>) {
      dlib::layer<1>(model_).layer_details().set_weight_decay_multiplier(0);  // the penalty is the hidden layers'
      const dlib::bn_<dlib::FC_MODE> norm(static_cast<unsigned long>(1 / norm_momentum), norm_epsilon);
      dlib::layer<4>(model_).layer_details() = norm;
      dlib::layer<8>(model_).layer_details() = norm;
    }
    if constexpr (given) dlib::layer<2>(model_).layer_details().number = 1;
  }

  [[nodiscard]] bool is_penalized(std::size_t i) const {
    return workload_ == "W2" && (list_[i].name == "w1" || list_[i].name == "w2");
  }
  double penalty() {
    double sum = 0;
    const auto all = layers();
    for (std::size_t i = 0; i < list_.size(); i += 2)
      if (is_penalized(i))
        for (std::int64_t k = 0; k < list_[i].size(); ++k) {
          const double w = all[i / 2]->host()[k];
          sum += w * w;
        }
    return lambda * sum;
  }

  std::string workload_;
  Network net_;
  std::vector<Parameter> list_;
  std::vector<Label> labels_;
  Scale scale_;
  std::vector<Solver> solvers_;
  Net model_;
  dlib::resizable_tensor x_;
};

std::vector<unsigned long> classes(const Network& net) {
  std::vector<unsigned long> out(static_cast<std::size_t>(net.batch));
  fill_classes(out.data(), net.batch, stream_y, static_cast<std::uint64_t>(net.units.back()));
  return out;
}

}  // namespace

std::string version() {
  return "dlib " + std::to_string(DLIB_MAJOR_VERSION) + "." + std::to_string(DLIB_MINOR_VERSION);
}

bool is_checked(const std::string& /*workload*/) { return true; }

std::unique_ptr<Run> make_run(const Settings& settings) {
  if (settings.workload == "W2") {
    const dlib::adam adam(static_cast<float>(2 * lambda), adam_beta1, adam_beta2);
    const auto labels = classes(network("W2"));
    if (settings.check) return std::make_unique<Training<Normalized<given_mask>, dlib::adam>>(settings, adam, labels);
    return std::make_unique<Training<Normalized<dropout>, dlib::adam>>(settings, adam, labels);
  }
  if (settings.workload == "W3") {
    const dlib::sgd momentum(0, heavy_ball);
    const auto labels = classes(network("W3", settings.small));
    if (settings.small) return std::make_unique<Training<Plain<1024, 250>, dlib::sgd>>(settings, momentum, labels);
    return std::make_unique<Training<Plain<4096, 1000>, dlib::sgd>>(settings, momentum, labels);
  }
  if (settings.workload == "W6") {
    const auto net = network("W6");
    const auto outputs = net.units.back();
    std::vector<float> y(static_cast<std::size_t>(net.batch * outputs));
    fill(y.data(), static_cast<std::int64_t>(y.size()), stream_y, 1);
    std::vector<dlib::matrix<float>> labels;
    for (std::int64_t i = 0; i < net.batch; ++i)
      labels.push_back(dlib::mat(&y[static_cast<std::size_t>(i * outputs)], outputs));
    // dlib's loss is summed over outputs, and its gradient half of what that says.
    const double count = static_cast<double>(outputs);
    return std::make_unique<Training<Chain, dlib::sgd>>(settings, dlib::sgd(0, 0), labels,
                                                        Scale{.loss = 1 / count, .gradient = 2 / count});
  }
  return nullptr;
}

}  // namespace bench
