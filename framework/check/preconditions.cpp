#include <chainrule/framework/check/preconditions.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <fmt/core.h>

#include <chainrule/framework/core/thread_pool.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/fused/fused_step.hpp>
#include <chainrule/ops/arithmetic.hpp>

namespace chainrule::check {

SampleGraph graph_of(const Sample& sample, DType dtype, const CheckOptions& options) {
  SampleGraph out{Graph({.dtype = dtype, .seed = options.seed}), {}, {}, {}, {}, sample.attributes};
  for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
    const Array drawn = sample.inputs[i].draw(float32, options.seed, i);
    if (!is_floating(drawn.dtype())) {
      out.inputs.push_back(out.graph.constant(drawn));
      continue;
    }
    out.names.push_back(fmt::format("input {}", i));
    out.inputs.push_back(out.graph.input(out.names.back(), to_shape(drawn.shape()), dtype));
    out.floating.push_back(out.inputs.back());
    out.points.push_back(drawn.astype(dtype));
  }
  // A sample that asks for float64 asks for the dtype of the check.
  if (const Attribute* wanted = out.attributes.find("dtype");
      wanted && wanted->variant() == Attribute::Variant(float64))
    out.attributes = out.attributes.with("dtype", dtype);
  return out;
}

namespace {

std::vector<Feed> feeds_of(const SampleGraph& s) {
  std::vector<Feed> feeds;
  for (std::size_t i = 0; i < s.floating.size(); ++i) feeds.emplace_back(s.floating[i], s.points[i]);
  return feeds;
}

std::vector<Array> arrays_of(const Results& results) {
  std::vector<Array> out;
  for (std::size_t i = 0; i < results.size(); ++i) out.push_back(results[i]);
  return out;
}

std::vector<Array> values_of(const SampleGraph& s, const Values& ys, Mode mode) {
  State state(s.graph);
  Program program(state, {.outputs = ys, .mode = mode});
  const auto feeds = feeds_of(s);
  return arrays_of(program.run(std::span<const Feed>(feeds)));
}

// All outputs of the op on a sample's inputs.
Values outputs_of(const Op& op, const SampleGraph& s, const Values& inputs) {
  return apply(s.graph, op, inputs, s.attributes).node().outputs();
}

bool identical(const std::vector<Array>& a, const std::vector<Array>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Array& x, const Array& y) { return x.identical(y); });
}

// But for NaN payloads and the sign of zero.
bool equal_numbers(const std::vector<Array>& a, const std::vector<Array>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Array& x, const Array& y) { return allclose(x, y, 0, 0); });
}

// Memory between two zones that a kernel has no business in.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_(bytes), memory_(2 * zone + bytes + alignment) {
    const auto at = reinterpret_cast<std::uintptr_t>(memory_.data()) + zone;
    start_ = zone + (alignment - at % alignment) % alignment;
  }
  [[nodiscard]] unsigned char* data() { return memory_.data() + start_; }
  void poison(int value) {
    poison_ = static_cast<unsigned char>(value);
    std::memset(memory_.data(), value, memory_.size());
  }
  // "before" or "past the end of", where the zones are no longer as they were poisoned; "" where they are.
  [[nodiscard]] std::string_view written() const {
    const auto intact = [this](auto first, auto last) {
      return std::all_of(first, last, [this](unsigned char byte) { return byte == poison_; });
    };
    const auto inside = memory_.begin() + static_cast<std::ptrdiff_t>(start_);
    if (!intact(memory_.begin(), inside)) return "before";
    return intact(inside + static_cast<std::ptrdiff_t>(bytes_), memory_.end()) ? "" : "past the end of";
  }

 private:
  static constexpr std::size_t zone = 16'384;
  static constexpr std::size_t alignment = 64;
  std::size_t bytes_;
  std::size_t start_ = 0;
  unsigned char poison_ = 0;
  std::vector<unsigned char> memory_;
};

// A node's kernel alone, as a program would make it.
class Kernel {
 public:
  static constexpr std::size_t all = ~std::size_t{0};

  explicit Kernel(const Node& node) {
    for (const Value output : node.outputs()) outputs_.push_back({output.dtype(), evaluate(output.shape(), Sizes{})});
    step_ = detail::make_node_step(*node.graph_data(), node.id(), Sizes{});
  }

  // Runs it with all memory poisoned but what the inputs hold, for all outputs or as if one were read alone. What it
  // did that it must not is in fault().
  std::vector<Array> run(const std::vector<Array>& inputs, int poison, std::size_t read = all) {
    std::vector<Guarded> operands;
    std::vector<const void*> pointers;
    operands.reserve(inputs.size());
    for (const Array& input : inputs) {
      Guarded& operand = operands.emplace_back(input.bytes());
      operand.poison(poison);
      if (input.bytes() > 0) std::memcpy(operand.data(), input.raw(), input.bytes());
      pointers.push_back(operand.data());
    }
    std::vector<Array> out;
    std::vector<Guarded> results;
    std::vector<void*> written;
    results.reserve(outputs_.size());
    for (const TensorType& type : outputs_) {
      out.emplace_back(type.dtype, type.shape);
      results.emplace_back(out.back().bytes()).poison(poison);
      written.push_back(read == all || read == written.size() ? results.back().data() : nullptr);
    }
    Guarded workspace(step_.workspace);
    workspace.poison(poison);
    step_.run({pointers.data(), written.data(), workspace.data()});
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].bytes() > 0 && std::memcmp(operands[i].data(), inputs[i].raw(), inputs[i].bytes()) != 0)
        blame(fmt::format("input {} is written", i));
      blame_outside(operands[i], fmt::format("input {}", i));
    }
    blame_outside(workspace, "the workspace");
    for (std::size_t i = 0; i < out.size(); ++i) {
      blame_outside(results[i], out.size() == 1 ? "the output" : fmt::format("output {}", i));
      if (out[i].bytes() > 0) std::memcpy(out[i].raw(), results[i].data(), out[i].bytes());
    }
    return out;
  }
  [[nodiscard]] const std::string& fault() const { return fault_; }

 private:
  void blame(std::string fault) {
    if (fault_.empty()) fault_ = std::move(fault);
  }
  void blame_outside(const Guarded& memory, const std::string& name) {
    if (const auto where = memory.written(); !where.empty()) blame(fmt::format("memory {} {} is written", where, name));
  }

  std::vector<TensorType> outputs_;
  detail::Step step_;
  std::string fault_;
};

CheckRow row_of(std::string_view check, std::string_view subject, bool holds, std::string note) {
  CheckRow row;
  row.check = check;
  row.subject = subject;
  row.input = "all";
  row.verdict = holds ? Verdict::pass : Verdict::fail;
  row.note = std::move(note);
  return row;
}

struct Fault {
  std::string what;  // "" for none
  bool writes_outside = false;
};

// What is wrong with a kernel that runs several times.
Fault fault_of_runs(const SampleGraph& s, const Values& ys) {
  constexpr std::string_view state = "two runs differ: something is kept from run to run";
  constexpr std::string_view fresh = "two runs differ: a kernel that is made again gives other numbers";
  constexpr std::string_view memory =
      "two runs differ: an output is not wholly written, or memory is read that holds nothing yet, in the workspace or "
      "beside an operand";
  const Node node = ys[0].node();
  if (node.op().forward.expansion) {
    State values(s.graph);
    Program program(values, {.outputs = ys});
    const auto feeds = feeds_of(s);
    const std::vector<Array> first = arrays_of(program.run(std::span<const Feed>(feeds)));
    if (!identical(first, arrays_of(program.run(std::span<const Feed>(feeds))))) return {std::string(state)};
    return {identical(first, values_of(s, ys, Mode::training)) ? "" : std::string(fresh)};
  }
  std::vector<Array> inputs;
  std::size_t next = 0;
  for (const Value input : s.inputs) {
    const Array* constant = detail::constant_value(input);
    inputs.push_back(constant ? *constant : s.points[next++]);
  }
  constexpr int nan = 0xFF;  // in every floating element
  constexpr int large = 0x55;
  Kernel kernel(node);
  Kernel again(node);
  const std::vector<Array> first = kernel.run(inputs, nan);
  const std::vector<Array> other = kernel.run(inputs, large);
  const std::vector<Array> third = kernel.run(inputs, nan);
  const std::vector<Array> afresh = again.run(inputs, nan);
  if (!kernel.fault().empty()) return {kernel.fault(), true};
  if (!identical(first, third)) return {std::string(state)};
  if (!identical(first, other)) return {std::string(memory)};
  if (!identical(first, afresh)) return {std::string(fresh)};
  for (std::size_t i = 0; node.op().forward.skips_unread && i < first.size(); ++i) {
    const std::vector<Array> alone = kernel.run(inputs, nan, i);
    if (!kernel.fault().empty()) return {kernel.fault(), true};
    if (!alone[i].identical(first[i])) return {fmt::format("output {} is another where no other is read", i)};
  }
  return {};
}

// Runs of one kernel and of another that is made for the same agree bit for bit, whatever lies in memory, and write
// their output alone; in float32 too.
CheckRow repeatable(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                    bool& writes_outside) {
  for (const DType dtype : {float64, float32}) {
    if (dtype == float32 && !options.float32) continue;
    const SampleGraph s = graph_of(sample, dtype, options);
    const Fault fault = fault_of_runs(s, outputs_of(op, s, s.inputs));
    writes_outside = fault.writes_outside;
    if (!fault.what.empty())
      return row_of("repeatable", subject, false, dtype == float32 ? fault.what + " (in float32)" : fault.what);
  }
  return row_of("repeatable", subject, true,
                "runs agree, inputs unwritten, outputs whole, nothing beside them written");
}

// Amid other nodes, in an arena and with memory reused in place, it gives what it gives alone.
CheckRow reuse(const SampleGraph& s, const Op& op, std::string_view subject, Mode mode) {
  Values scaled;
  std::size_t next = 0;
  for (const Value input : s.inputs) {
    if (detail::constant_value(input)) {
      scaled.push_back(input);
    } else {
      scaled.push_back(mul(s.floating[next], 2.0) * 0.5);  // exact, and a temporary whose memory may be reused
      ++next;
    }
  }
  const std::vector<Array> alone = values_of(s, outputs_of(op, s, s.inputs), mode);
  Values amid = outputs_of(op, s, scaled);
  for (Value& y : amid)
    if (is_floating(y.dtype())) y = mul(y, 2.0) * 0.5;
  const bool same = equal_numbers(alone, values_of(s, amid, mode));
  return row_of("reuse", subject, same, same ? "the same inside a program" : "differs inside a program");
}

// The same value as two inputs gives what two equal ones give.
void aliases(const SampleGraph& s, const Op& op, std::string_view subject, Mode mode, std::vector<CheckRow>& rows) {
  for (std::size_t i = 0; i + 1 < s.floating.size(); ++i) {
    if (!(s.floating[i].shape() == s.floating[i + 1].shape())) continue;
    SampleGraph copies = s;
    copies.points[i + 1] = s.points[i];
    Values repeated = s.inputs;
    for (Value& input : repeated)
      if (input == s.floating[i + 1]) input = s.floating[i];
    const bool same = equal_numbers(values_of(copies, outputs_of(op, s, repeated), mode),
                                    values_of(copies, outputs_of(op, s, s.inputs), mode));
    rows.push_back(
        row_of("aliases", subject, same,
               same ? "op(x, x) as op(x, y) for x equal to y" : "op(x, x) is not op(x, y) for x equal to y"));
    return;
  }
}

// An input of each of the sample's, of another shape, with its numbers over and over; every second one is broadcast
// along the last axis.
SampleGraph resized(const SampleGraph& s, const Shape& shape) {
  SampleGraph out{Graph(GraphOptions{.dtype = s.points[0].dtype()}), {}, {}, {}, s.names, s.attributes};
  for (std::size_t i = 0; i < s.inputs.size(); ++i) {
    Shape own = shape;
    if (i % 2 == 1) own.back() = 1;
    Array numbers(s.points[i].dtype(), evaluate(own, Sizes{}));
    for (std::int64_t k = 0; k < numbers.size(); ++k)
      numbers.set(k, s.points[i].size() > 0 ? s.points[i][k % s.points[i].size()] : 1);
    out.inputs.push_back(out.graph.input(fmt::format("input {}", i), own));
    out.floating.push_back(out.inputs.back());
    out.points.push_back(std::move(numbers));
  }
  return out;
}

// Whether resized() suits it.
bool takes_any_shape(const SampleGraph& s, const Op& op) {
  return op.forward.micro && s.floating.size() == s.inputs.size() && !s.inputs.empty() && !s.attributes.has("shape");
}

// Elementwise ops take any shape: none, one element, broadcast.
void sizes(const SampleGraph& s, const Op& op, std::string_view subject, Mode mode, std::vector<CheckRow>& rows) {
  if (!takes_any_shape(s, op)) return;
  for (const Shape& shape : {Shape{0}, Shape{1}, Shape{2, 1, 3}}) {
    const SampleGraph at = resized(s, shape);
    const Array made = values_of(at, outputs_of(op, at, at.inputs), mode)[0];
    if (!(made.shape() == evaluate(shape, Sizes{}))) {
      rows.push_back(
          row_of("sizes", subject, false, fmt::format("{} gives {}", to_string(shape), to_string(made.shape()))));
      return;
    }
  }
  rows.push_back(row_of("sizes", subject, true, "shapes {0}, {1} and {2, 1, 3} run"));
}

// The same bits on one thread and on all, and whatever order threads come to work in. An elementwise op also of so many
// elements that they are shared out.
CheckRow threads(const SampleGraph& s, const Op& op, std::string_view subject, Mode mode) {
  const auto differs = [&](const SampleGraph& at) {
    const Values ys = outputs_of(op, at, at.inputs);
    const auto values_in = [&](detail::ChunkOrder order) {
      const detail::ChunkScope scope(order);
      return values_of(at, ys, mode);
    };
    const std::vector<Array> one = values_in(detail::ChunkOrder::ascending);
    return !identical(one, values_in(detail::ChunkOrder::descending)) ||
           !identical(one, values_in(detail::ChunkOrder::any));
  };
  const bool large = takes_any_shape(s, op);
  const bool same = !differs(s) && !(large && differs(resized(s, Shape{3, 70'001})));
  return row_of("threads", subject, same,
                fmt::format("{} on one thread and on {}{}", same ? "the same bits" : "differs", num_threads(),
                            large ? ", of 210003 elements too" : ""));
}

}  // namespace

bool check_preconditions(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                         std::vector<CheckRow>& rows) {
  const SampleGraph s = graph_of(sample, float64, options);
  bool writes_outside = false;
  rows.push_back(repeatable(op, sample, subject, options, writes_outside));
  if (writes_outside) return false;
  rows.push_back(reuse(s, op, subject, options.mode));
  aliases(s, op, subject, options.mode, rows);
  sizes(s, op, subject, options.mode, rows);
  rows.push_back(threads(s, op, subject, options.mode));
  return true;
}

}  // namespace chainrule::check
