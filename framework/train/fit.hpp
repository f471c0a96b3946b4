// The usual training loop, and the usual question after it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <chainrule/framework/data/data.hpp>
#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/framework/run/program.hpp>

namespace chainrule {

// The inputs of a graph that a data set's x and y are fed to. Without y only x is fed.
struct DatasetInputs {
  Value x;
  Value y = {};
};

// What fit() says at the end of an epoch.
struct EpochReport {
  std::int64_t epoch = 0;  // counted from 0
  double cost = 0;         // the mean over the examples, each batch's from before its update
  bool stop = false;       // set it to end the training here
};

struct FitOptions {
  DatasetInputs inputs;
  std::int64_t batch = 64;
  std::int64_t epochs = 1;
  // Each epoch has an order of its own: that of numpy::RandomState(seed + epoch).permutation(examples). 11 is the
  // course's. Without a shuffle the order is the data set's.
  bool shuffle = true;
  std::int64_t seed = 11;
  // The number of the first epoch. Without one training goes on after the State's last epoch; it begins at 0 where the
  // State has made fewer steps than an epoch has batches.
  std::optional<std::int64_t> first_epoch = std::nullopt;
  // On standard error: in a terminal a line with the time left, elsewhere a line every few seconds at most.
  bool progress = false;
  // Called after every epoch.
  std::function<void(EpochReport&)> after_epoch = {};
  // Whether a Ctrl-C ends the training after the current batch (interrupt.hpp); else it is none of fit()'s business.
  bool interruptible = true;
};

struct History {
  std::int64_t first_epoch = 0;
  std::vector<double> costs;  // of each whole epoch, as EpochReport::cost
  bool interrupted = false;   // by Ctrl-C; the State has all updates so far
};

// Trains: feeds the program batches of the data set, the last one of an epoch smaller where need be. The program's
// first output is the cost, a scalar, and it has updates.
// The State's epoch, of which schedules are functions, is set as the course does it: to e after epoch e. So the rate of
// epoch e + 1 is computed from e, and the first two epochs have the initial one.
// The same State, data and options give the same numbers; so does training in several calls, with a checkpoint saved
// and loaded between them or not. (An epoch that was interrupted is begun anew by the next call.)
// Throws Error for what data::mini_batches and Program::run refuse, for negative epochs or seeds, and for a program
// without updates or whose first output is no scalar.
History fit(Program& program, const data::Dataset& dataset, const FitOptions& options, Location at = Location::here());

struct AccuracyOptions {
  DatasetInputs inputs;
  std::int64_t batch = 1024;  // examples at a time; the result does not depend on it
};

// The share of right answers of a program whose first output has the shape of the labels that belong to its batch:
// equal ones where it is of whole numbers (an argmax), and where it is of probabilities those above 0.5 for a label
// of 1. Throws Error for what data::batches and Program::run refuse, and where the shapes differ.
double accuracy(Program& program, const data::Dataset& dataset, const AccuracyOptions& options,
                Location at = Location::here());

}  // namespace chainrule
