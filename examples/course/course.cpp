#include "course.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include <CLI/CLI.hpp>
#include <fmt/ranges.h>

namespace course {

namespace {

constexpr int failed = 1;
constexpr int no_data = 66;  // EX_NOINPUT of sysexits.h

constexpr int interrupted = 130;  // what a shell says of a program that SIGINT ended

int leave(const char* why, int exit_code) {
  std::fflush(stdout);  // first what it has printed
  fmt::print(stderr, "{}\n", why);
  return exit_code;
}

class MissingData : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Interrupted {};

// While an exercise runs; a loop's own ends with the loop.
const cr::Interrupt* interrupt = nullptr;
Iterations* loop = nullptr;  // that is running now

}  // namespace

int run(int argc, char** argv, const char* about, void (*exercise)(const Options& options), const Has& has) {
  Options options;
  CLI::App app(about);
  app.add_flag("--quick", options.quick, "a short run");
  if (has.plot) app.add_option("--plot", options.plot, "draws into this file, .svg or .png");
  if (has.data) {
    app.add_option("--data", options.data, "the folder of the course's data files");
    app.footer(fmt::format("The exit code is {} where a data file is missing.", no_data));
  }
  CLI11_PARSE(app, argc, argv);
  const cr::Interrupt interrupt_of_run;
  interrupt = &interrupt_of_run;
  try {
    exercise(options);
    if (interrupt_of_run.requested()) throw Interrupted();
  } catch (const Interrupted&) {
    return leave("interrupted", interrupted);
  } catch (const MissingData& error) {
    return leave(error.what(), no_data);
  } catch (const std::exception& error) {
    return leave(error.what(), failed);
  }
  return 0;
}

std::string data_file(const Options& options, const std::string& name) {
  const auto path = std::filesystem::path(options.data) / name;
  if (!options.data.empty() && std::filesystem::exists(path)) return path.string();
  throw MissingData(fmt::format("{}; the README's section The course says where it comes from",
                                options.data.empty()
                                    ? fmt::format("{} is needed: give its folder by --data DIR", name)
                                    : fmt::format("there is no {} in the folder {}", name, options.data)));
}

cr::Array he(const cr::Array& randn, double n_in, double /*n_out*/) { return randn * std::sqrt(2 / n_in); }
cr::Array xavier(const cr::Array& randn, double n_in, double /*n_out*/) { return randn * std::sqrt(1 / n_in); }
cr::Array glorot(const cr::Array& randn, double n_in, double n_out) { return randn * std::sqrt(2 / (n_in + n_out)); }
cr::Array inv_sqrt(const cr::Array& randn, double n_in, double /*n_out*/) { return randn / std::sqrt(n_in); }

std::vector<Layer> initialize_parameters(cr::Graph graph, const std::vector<std::int64_t>& layers_dims,
                                         Initialization initialization, int seed) {
  cr::numpy::RandomState rng(seed);
  std::vector<Layer> layers;
  for (std::size_t l = 1; l < layers_dims.size(); ++l) {
    const std::int64_t n_in = layers_dims[l - 1];
    const std::int64_t units = layers_dims[l];
    const cr::Array w = initialization(rng.randn(units, n_in), static_cast<double>(n_in), static_cast<double>(units));
    layers.push_back({.w = graph.parameter(fmt::format("W{}", l), w),
                      .b = graph.parameter(fmt::format("b{}", l), cr::zeros({units, 1}))});
  }
  return layers;
}

cr::Values weights(const std::vector<Layer>& layers) {
  cr::Values out;
  for (const Layer& layer : layers) out.push_back(layer.w);
  return out;
}

cr::Value forward_propagation(cr::Value x, const std::vector<Layer>& layers, const Activation& activation) {
  cr::Value a = x;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const cr::Value z = cr::matmul(layers[l].w, a) + layers[l].b;
    a = l + 1 < layers.size() ? activation(z) : z;
  }
  return a;
}

Iterations::Iterations(const std::string& what, int count) : progress_(what, count), count_(count) { loop = this; }

Iterations::~Iterations() { loop = nullptr; }

void clear_progress() {
  if (loop != nullptr) loop->progress_.clear();
}

void heading(const std::string& title) {
  if (interrupt->requested()) throw Interrupted();
  static bool first = true;
  fmt::print("{}# {}\n", first ? "" : "\n", title);
  first = false;
}

void save(const Options& options, const std::string& what, const cr::plot::Figure& figure) {
  if (options.plot.empty()) return;
  std::filesystem::path path = options.plot;
  if (!what.empty()) {
    // "L2, lambda 0.1" as "-L2-lambda-0.1"
    std::string name = path.stem().string() + "-";
    for (const char c : what) {
      if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.')
        name += c;
      else if (name.back() != '-')
        name += '-';
    }
    if (name.back() == '-') name.pop_back();
    path.replace_filename(name + path.extension().string());
  }
  figure.save(path.string());
}

void plot_decision_boundary(const Options& options, const std::string& what, const std::string& title,
                            cr::Program& predict, cr::Value x, const cr::data::Dataset& data) {
  if (options.plot.empty()) return;
  cr::plot::Figure figure({.title = title, .x_label = "x1", .y_label = "x2", .equal_scale = true});
  figure.regions(data, [&](const cr::Array& points) { return predict.run({{x, points}})[0]; }).classes(data);
  save(options, what, figure);
}

void CostPlot::add(const std::string& curve, double x, double cost) {
  if (curves_.empty() || curves_.back().name != curve) curves_.push_back({curve, {}, {}});
  curves_.back().xs.push_back(x);
  curves_.back().costs.push_back(cost);
}

void CostPlot::save(const Options& options, const std::string& what) const {
  if (options.plot.empty()) return;
  cr::plot::Figure figure({.title = title_, .x_label = x_label_, .y_label = "cost"});
  for (const Curve& curve : curves_) figure.line(curve.name, curve.xs, curve.costs);
  course::save(options, what, figure);
}

namespace {

constexpr int precision = 8;

bool with_exponents(const cr::Array& array) {
  double least = std::numeric_limits<double>::infinity();
  double greatest = 0;
  for (std::int64_t i = 0; i < array.size(); ++i) {
    const double magnitude = std::abs(array[i]);
    if (magnitude == 0 || !std::isfinite(magnitude)) continue;
    least = std::min(least, magnitude);
    greatest = std::max(greatest, magnitude);
  }
  return greatest > 0 && (greatest >= 1e8 || least < 1e-4 || greatest / least > 1000);
}

// "-1.50000000" as "-1.5", "2.00000000" as "2.".
std::string trimmed(std::string number) {
  return std::isdigit(number.back()) != 0 ? number.substr(0, number.find_last_not_of('0') + 1) : number;
}

}  // namespace

std::string str(const cr::Array& array) {
  // Numbers as text, padded so that their points are in one column.
  std::vector<std::string> numbers;
  const bool exponents = with_exponents(array);
  std::size_t before = 0;
  std::size_t after = 0;
  for (std::int64_t i = 0; i < array.size(); ++i) {
    const double x = array[i];
    numbers.push_back(exponents ? fmt::format("{:.{}e}", x, precision) : trimmed(fmt::format("{:.{}f}", x, precision)));
    const std::size_t point = std::min(numbers.back().find('.'), numbers.back().size());
    before = std::max(before, point);
    after = std::max(after, numbers.back().size() - point);
  }
  for (std::string& number : numbers) {
    const std::size_t point = std::min(number.find('.'), number.size());
    number.append(after - (number.size() - point), ' ');
    number.insert(0, before - point, ' ');
  }

  auto next = numbers.begin();
  const auto print = [&](auto&& self, std::size_t axis) -> std::string {
    if (axis == array.rank()) return *next++;
    std::string out = "[";
    for (std::int64_t i = 0; i < array.shape()[axis]; ++i) {
      if (i > 0) out += axis + 1 == array.rank() ? " " : fmt::format("\n{:{}}", "", axis + 1);
      out += self(self, axis + 1);
    }
    out += "]";
    return out;
  };
  return print(print, 0);
}

void beside(std::string name, const std::string& hand, const std::string& own) {
  std::istringstream left(hand);
  std::istringstream right(own);
  for (std::string a, b; std::getline(left, a) && std::getline(right, b); name = "")
    fmt::print("{:12}  {:38}  {}\n", name, a, b);
}

void beside_mean(const std::string& name, const cr::Array& hand, const cr::Array& own) {
  const auto mean = [](const cr::Array& array) {
    double sum = 0;
    for (std::int64_t i = 0; i < array.size(); ++i) sum += array[i];
    return fmt::format("{:.12g}", sum / static_cast<double>(array.size()));
  };
  beside(name + " mean", mean(hand), mean(own));
}

void beside_part(const std::string& name, const std::vector<std::int64_t>& indices, const cr::Array& hand,
                 const cr::Array& own) {
  const auto part = [&](const cr::Array& array) {
    cr::Dims rest;
    for (std::size_t axis = indices.size(); axis < array.rank(); ++axis) rest.push_back(array.shape()[axis]);
    if (rest.rank() == 1) rest.push_back(1);
    std::int64_t begin = 0;
    for (std::size_t axis = 0; axis < indices.size(); ++axis) begin = begin * array.shape()[axis] + indices[axis];
    cr::Array out(cr::float64, rest);
    for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, array[begin * out.size() + i]);
    return str(out);
  };
  beside(fmt::format("{}[{}]", name, fmt::join(indices, ",")), part(hand), part(own));
}

}  // namespace course
