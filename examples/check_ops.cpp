// The gradient checker over all ops: a line each, a whole table for what does not pass.
#include <chainrule/chainrule.hpp>

#include <exception>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

namespace cr = chainrule;

namespace {

// Whether any sample has a floating input to differentiate in.
bool differentiable(const cr::Op& op) {
  if (!op.gradient) return false;
  for (const cr::Sample& sample : op.samples)
    if (sample.differentiate)
      for (const cr::Initial& input : sample.inputs)
        if (cr::is_floating(input.dtype(cr::float64))) return true;
  return false;
}

int run(const std::string& only, bool tables, bool json, const cr::CheckOptions& options) {
  int failed = 0;
  int checked = 0;
  std::string array;
  for (const cr::Op* op : cr::registry()) {
    if (!only.empty() && op->name != only) continue;
    if (!differentiable(*op)) {
      if (!json) fmt::print("{:<24} has no gradient\n", op->name);
      continue;
    }
    const auto report = cr::check_gradients(*op, options);
    ++checked;
    failed += report.passed() ? 0 : 1;
    if (json) {
      array += (array.empty() ? "" : ",\n") + report.to_json();
    } else if (tables || !report.passed()) {
      cr::print(report);
    } else {
      fmt::print("{:<24} {:<12} {:>4} comparisons, greatest relative distance {:.1e}\n", op->name,
                 cr::name(report.verdict()), report.rows.size(), report.distance());
    }
  }
  if (json)
    fmt::print("[{}]\n", array);
  else
    fmt::print("{} ops checked, {} of them do not pass\n", checked, failed);
  return failed == 0 && checked > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::string only;
  bool tables = false;
  bool json = false;
  cr::CheckOptions options;
  CLI::App app("Checks the gradients of every registered op.");
  app.add_option("op", only, "only this one");
  app.add_flag("--tables", tables, "the whole table of each");
  app.add_flag("--json", json, "all reports as JSON");
  app.add_option("--seed", options.seed, "of the random inputs")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    return run(only, tables, json, options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
