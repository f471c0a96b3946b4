// What the course's exercises share: the command line, the notes' network, and NumPy's way to print.
//
// The notes are NumPy code for a deep-learning course. Their functions keep their names here: initialize_parameters,
// forward_propagation. There is no backward_propagation.
#pragma once

#include <chainrule/chainrule.hpp>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/core.h>

namespace cr = chainrule;

namespace course {

// ---- the command line

struct Options {
  bool quick = false;  // --quick: a short run
  std::string data;    // --data DIR
  std::string plot;    // --plot FILE
};

// The options that not every exercise has.
struct Has {
  bool data = false;  // --data
  bool plot = false;  // --plot
};

// Reads the command line, runs the exercise, and gives main() its exit code: 0, 1 after an error, which is printed, 66
// where a data file is missing, 130 after a Ctrl-C, or CLI11's for a command line that it cannot read.
int run(int argc, char** argv, const char* about, void (*exercise)(const Options& options), const Has& has = {});

// A file in the folder that --data names. Ends the program, by run(), where it is not there.
std::string data_file(const Options& options, const std::string& name);

// ---- the network

// W {units, n_in} of a layer from standard normal numbers of that shape.
using Initialization = cr::Array (*)(const cr::Array& randn, double n_in, double n_out);
cr::Array he(const cr::Array& randn, double n_in, double n_out);        // randn * sqrt(2 / n_in)
cr::Array xavier(const cr::Array& randn, double n_in, double n_out);    // randn * sqrt(1 / n_in)
cr::Array glorot(const cr::Array& randn, double n_in, double n_out);    // randn * sqrt(2 / (n_in + n_out))
cr::Array inv_sqrt(const cr::Array& randn, double n_in, double n_out);  // randn / sqrt(n_in), which rounds otherwise

// W1, b1, W2, b2, ...: one layer after the other, the first of layers_dims being the features. Biases are zeros.
struct Layer {
  cr::Value w;  // {units, n_in}
  cr::Value b;  // {units, 1}
};
std::vector<Layer> initialize_parameters(cr::Graph graph, const std::vector<std::int64_t>& layers_dims,
                                         Initialization initialization, int seed = 3);
// The weights without the biases, for a penalty.
cr::Values weights(const std::vector<Layer>& layers);

// linear -> activation -> linear -> activation -> ... -> linear, one example a column. (The sigmoid is the loss's:
// sigmoid_cross_entropy takes what comes before it.)
using Activation = std::function<cr::Value(cr::Value z)>;
cr::Value forward_propagation(
    cr::Value x, const std::vector<Layer>& layers,
    const Activation& activation = [](cr::Value z) { return cr::relu(z); });

// ---- loops

// for (const int i : course::Iterations("momentum", 10'000)): 0, 1, 2, ... with the time left at the foot of a
// terminal. A Ctrl-C ends the loop, so that the program can say how far it came.
class Iterations {
 public:
  Iterations(const std::string& what, int count);
  ~Iterations();
  Iterations(const Iterations&) = delete;
  Iterations& operator=(const Iterations&) = delete;

  class Iterator {
   public:
    Iterator(Iterations* loop, int i) : loop_(loop), i_(i) {}
    int operator*() const { return i_; }
    Iterator& operator++() {
      loop_->done(++i_);
      return *this;
    }
    bool operator!=(const Iterator& end) const { return i_ < end.i_ && !loop_->ended(); }

   private:
    Iterations* loop_;
    int i_;
  };
  Iterator begin() { return {this, 0}; }
  Iterator end() { return {this, count_}; }

 private:
  void done(int i) { progress_.update(i); }
  [[nodiscard]] bool ended() const { return interrupt_.requested(); }

  friend void clear_progress();
  cr::Interrupt interrupt_;
  cr::Progress progress_;
  int count_;
};

// ---- printing

// "# TITLE", set off by an empty line from what came before. After a Ctrl-C nothing new begins: it ends the exercise.
void heading(const std::string& title);

// fmt::print, for use in a loop: the line at the foot of the terminal gives way.
void clear_progress();
template <class... T>
void print(fmt::format_string<T...> format, T&&... values) {
  clear_progress();
  fmt::print(format, std::forward<T>(values)...);
}

// ---- pictures

// Saves a picture where --plot asks for it. Where an exercise has several, "moons.svg" becomes "moons-WHAT.svg".
void save(const Options& options, const std::string& what, const cr::plot::Figure& figure);

// The notes' plot_decision_boundary: a data set of two features and what a program, of the probability of label 1, says
// of the plane around it.
void plot_decision_boundary(const Options& options, const std::string& what, const std::string& title,
                            cr::Program& predict, cr::Value x, const cr::data::Dataset& data);

// The notes' plot of the cost, with a curve for each training.
class CostPlot {
 public:
  CostPlot(std::string title, std::string x_label) : title_(std::move(title)), x_label_(std::move(x_label)) {}
  // One more point of a curve.
  void add(const std::string& curve, double x, double cost);
  void save(const Options& options, const std::string& what) const;

 private:
  struct Curve {
    std::string name;
    std::vector<double> xs;
    std::vector<double> costs;
  };
  std::string title_;
  std::string x_label_;
  std::vector<Curve> curves_;
};

// ---- NumPy's way to print

// An array as NumPy's str() has it: 8 decimals, aligned columns, exponents where the numbers differ much in size.
std::string str(const cr::Array& array);

// What is by hand beside what is ours, line by line, with a name before it.
void beside(std::string name, const std::string& hand, const std::string& own);
// The mean over all elements.
void beside_mean(const std::string& name, const cr::Array& hand, const cr::Array& own);
// NumPy's a[i], a[i, j], ...; where that has one axis it stands there as a column.
void beside_part(const std::string& name, const std::vector<std::int64_t>& indices, const cr::Array& hand,
                 const cr::Array& own);

}  // namespace course
