// The usual training loop, and the usual questions after it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
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

// Data that is not trained on, and the program that tells how well it goes.
struct Validation {
  // Whose outputs are scalars that are means over the examples of a batch: the cost, mean(equal(argmax, labels)), ...
  // Without updates, of Mode::inference most often, and of the State that is trained. Has to outlive fit().
  Program* program = nullptr;
  const data::Dataset* dataset = nullptr;
  DatasetInputs inputs = {};  // those of the training where x is empty
  std::int64_t batch = 1024;  // examples at a time
};

// What fit() says at the end of an epoch.
struct EpochReport {
  std::int64_t epoch = 0;  // counted from 0
  double cost = 0;         // the mean over the examples, each batch's from before its update
  bool stop = false;       // set it to end the training here
  double seconds = 0;      // that its batches took, without the validation
  // The validation program's outputs after the epoch: their means over the examples.
  std::vector<double> validation = {};
  // Whether the number that is monitored is better than in all epochs before.
  bool improved = false;
};

// What fit() says after a batch.
struct BatchReport {
  std::int64_t epoch = 0;
  std::int64_t batch = 0;    // counted from 0 in each epoch
  std::int64_t batches = 0;  // of an epoch
  double cost = 0;           // of this batch, from before its update
  bool stop = false;         // set it to end the training here, within the epoch, as Ctrl-C does
};

// The number by which epochs are compared: an output of the validation, or the cost of the training where there is
// none.
struct Monitor {
  std::size_t output = 0;  // which of the validation's
  bool higher_is_better = false;
  // By how much a number has to be better than the best one to count as better; 0 or more.
  double least = 0;
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
  // Called after every batch.
  std::function<void(BatchReport&)> after_batch = {};

  // Evaluated after every epoch.
  std::optional<Validation> validation = std::nullopt;
  Monitor monitor = {};
  // Training ends after so many epochs of this call, one after another, without an improvement; above 0.
  std::optional<std::int64_t> patience = std::nullopt;
  // Checkpoints (State::save): after each epoch, and after each one that improved. None where empty.
  std::string last_checkpoint = {};
  std::string best_checkpoint = {};
  // A file that gets a line for each epoch: of JSON ({"epoch": 0, "seconds": 1.5, "cost": 0.3, "validation": [0.4]})
  // where its name ends in .jsonl, else of CSV with a header (epoch,seconds,cost,validation_0,...). What it holds is
  // kept where the training goes on (first_epoch above 0), and else replaced.
  std::string log = {};
};

struct History {
  std::int64_t first_epoch = 0;
  std::vector<double> costs;                         // of each whole epoch, as EpochReport::cost
  bool interrupted = false;                          // by Ctrl-C; the State has all updates so far
  std::vector<std::vector<double>> validation = {};  // of each whole epoch, as EpochReport::validation
  // The last epoch that improved: the first one of the best number. Empty where none was.
  std::optional<std::int64_t> best_epoch = std::nullopt;
  bool ran_out_of_patience = false;
};

// Trains: feeds the program batches of the data set, the last one of an epoch smaller where need be. The program's
// first output is the cost, a scalar, and it has updates.
// The State's epoch, of which schedules are functions, is set as the course does it: to e after epoch e. So the rate of
// epoch e + 1 is computed from e, and the first two epochs have the initial one.
// The same State, data and options give the same numbers; so does training in several calls, with a checkpoint saved
// and loaded between them or not. (An epoch that was interrupted is begun anew by the next call.)
// Throws Error for what data::mini_batches, Program::run and State::save refuse, for negative epochs or seeds, for a
// program without updates or whose first output is no scalar, for a validation without program or data set, of another
// State, with updates or with an output that is no scalar, for a monitor of an output that is none, and for files that
// cannot be written: before the first batch, but for what comes later, such as files or the data of the validation.
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

struct PredictOptions {
  DatasetInputs inputs;
  std::int64_t batch = 1024;  // examples at a time
  // The axis of the output that has one entry per example: the data set's, or 0 where the output has no such axis.
  std::optional<std::size_t> axis = std::nullopt;
};

// A program's first output for all examples of a data set, in their order: what its runs over batches give, joined.
// Throws Error for what data::batches and Program::run refuse, and for an output without an entry for each example.
Array predict(Program& program, const data::Dataset& dataset, const PredictOptions& options,
              Location at = Location::here());

}  // namespace chainrule
