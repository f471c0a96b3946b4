// Connectionist temporal classification: its op, of which the second output is the slope of the first.
#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/index_range.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/loss_parts.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/sequence_loss.hpp>

CHAINRULE_OP_FAMILY(ctc)

namespace chainrule {

namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

// log(exp(a) + exp(b)), neither of them inf.
double log_sum(double a, double b) {
  const double most = std::max(a, b);
  return most == -inf ? most : most + std::log1p(std::exp(-std::abs(a - b)));
}

// What all examples share.
struct Sizes {
  std::int64_t examples;
  std::int64_t places;
  std::int64_t classes;
  std::int64_t longest;
  std::int64_t blank;

  // An alignment goes through the labels and blanks before, between and behind them.
  [[nodiscard]] std::int64_t states() const { return 2 * longest + 1; }
  // Examples that are computed at the same time, each with memory of its own, whatever the number of threads.
  [[nodiscard]] std::int64_t slots() const { return std::min<std::int64_t>(examples, 16); }
  [[nodiscard]] std::int64_t slot_size() const { return places * (states() + 1) + 2 * states() + classes; }
};

// One example. `memory` is of Sizes::slot_size().
template <class T>
class Alignments {
 public:
  Alignments(const Sizes& sizes, const T* logits, const std::int64_t* labels, std::int64_t places, std::int64_t length,
             double* memory)
      : sizes_(sizes),
        logits_(logits),
        labels_(labels),
        places_(places),
        states_(2 * length + 1),
        totals_(memory),
        forward_(totals_ + sizes.places),
        backward_(forward_ + sizes.places * sizes.states()),
        row_(backward_ + 2 * sizes.states()) {}

  // The cost; NaN where a place has no distribution.
  double cost() {
    if (!find_totals()) return std::numeric_limits<double>::quiet_NaN();
    if (places_ == 0) return states_ == 1 ? 0 : inf;
    for (std::int64_t t = 0; t < places_; ++t) go_forward(t);
    const double* last = forward(places_ - 1);
    log_probability_ = states_ == 1 ? last[0] : log_sum(last[states_ - 1], last[states_ - 2]);
    return 0 - log_probability_;
  }

  // Of the cost that was just found.
  void slope(double cost, T* out) {
    const std::int64_t real = places_ * sizes_.classes;
    std::fill(out + real, out + sizes_.places * sizes_.classes, T(0));
    if (!std::isfinite(cost)) {
      std::fill(out, out + real, static_cast<T>(std::isnan(cost) ? cost : 0));
      return;
    }
    for (std::int64_t t = places_; t-- > 0;) {
      go_backward(t);
      for (std::int64_t c = 0; c < sizes_.classes; ++c) row_[c] = std::exp(log_softmax(t, c));
      for (std::int64_t s = 0; s < states_; ++s)
        row_[label(s)] -= std::exp(forward(t)[s] + backward(t)[s] - log_probability_);
      for (std::int64_t c = 0; c < sizes_.classes; ++c) out[t * sizes_.classes + c] = static_cast<T>(row_[c]);
    }
  }

 private:
  [[nodiscard]] std::int64_t label(std::int64_t state) const {
    return state % 2 == 0 ? sizes_.blank : labels_[state / 2];
  }
  // Whether the blank before a state may be left out.
  [[nodiscard]] bool skips(std::int64_t state) const {
    return state >= 2 && state % 2 == 1 && label(state) != label(state - 2);
  }
  [[nodiscard]] double log_softmax(std::int64_t place, std::int64_t c) const {
    return static_cast<double>(logits_[place * sizes_.classes + c]) - totals_[place];
  }
  [[nodiscard]] double* forward(std::int64_t place) const { return forward_ + place * states_; }
  [[nodiscard]] double* backward(std::int64_t place) const { return backward_ + place % 2 * states_; }

  // log(sum(exp(logits))) of each place; false where one is not finite.
  bool find_totals() {
    for (std::int64_t t = 0; t < places_; ++t) {
      const T* z = logits_ + t * sizes_.classes;
      const auto most = static_cast<double>(*std::max_element(z, z + sizes_.classes));
      double sum = 0;
      for (std::int64_t c = 0; c < sizes_.classes; ++c) sum += std::exp(static_cast<double>(z[c]) - most);
      totals_[t] = most + std::log(sum);
      if (!std::isfinite(totals_[t])) return false;
    }
    return true;
  }

  // Logarithms of the probability of all ways through the places up to this one that end in a state, at this place's
  // class.
  void go_forward(std::int64_t place) {
    double* now = forward(place);
    const double* before = place == 0 ? nullptr : forward(place - 1);
    for (std::int64_t s = 0; s < states_; ++s) {
      double ways = -inf;
      if (!before) {
        ways = s < 2 ? 0 : -inf;
      } else {
        ways = before[s];
        if (s >= 1) ways = log_sum(ways, before[s - 1]);
        if (skips(s)) ways = log_sum(ways, before[s - 2]);
      }
      now[s] = ways == -inf ? ways : ways + log_softmax(place, label(s));
    }
  }

  // The same of all ways through the places behind this one, from a state on.
  void go_backward(std::int64_t place) {
    double* now = backward(place);
    if (place + 1 == places_) {
      for (std::int64_t s = 0; s < states_; ++s) now[s] = s + 2 >= states_ ? 0 : -inf;
      return;
    }
    const double* next = backward(place + 1);
    const auto way = [&](std::int64_t s) { return next[s] + log_softmax(place + 1, label(s)); };
    for (std::int64_t s = 0; s < states_; ++s) {
      now[s] = way(s);
      if (s + 1 < states_) now[s] = log_sum(now[s], way(s + 1));
      if (s + 2 < states_ && skips(s + 2)) now[s] = log_sum(now[s], way(s + 2));
    }
  }

  const Sizes& sizes_;
  const T* logits_;
  const std::int64_t* labels_;
  std::int64_t places_;
  std::int64_t states_;
  double* totals_;
  double* forward_;   // {places, states}
  double* backward_;  // of this place and the one behind it
  double* row_;       // of classes
  double log_probability_ = 0;
};

// The integers of a run, all of them before anything is computed.
class Checker {
 public:
  Checker(const KernelCall& call, const Sizes& sizes) : sizes_(sizes), at_(call.at), op_("ctc_loss") {}

  void check(const std::int64_t* labels, const std::int64_t* places, const std::int64_t* lengths) const {
    for (std::int64_t e = 0; e < sizes_.examples; ++e) {
      check_length("logit_lengths", places[e], sizes_.places, e);
      check_length("target_lengths", lengths[e], sizes_.longest, e);
      for (std::int64_t i = 0; i < lengths[e]; ++i)
        if (const std::int64_t label = labels[e * sizes_.longest + i];
            label < 0 || label >= sizes_.classes || label == sizes_.blank)
          throw Error(at_, op_,
                      fmt::format("requires labels from 0 to {} other than the blank, {}, got {} at element {{{}, {}}}",
                                  sizes_.classes - 1, sizes_.blank, label, e, i));
    }
  }

 private:
  void check_length(const char* what, std::int64_t length, std::int64_t most, std::int64_t example) const {
    if (length < 0 || length > most)
      throw Error(at_, op_,
                  fmt::format("requires {} from 0 to {}, got {} at element {{{}}}", what, most, length, example));
  }

  Sizes sizes_;
  Location at_;
  std::string op_;
};

Forward ctc_kernel() {
  Forward forward;
  forward.may_throw = true;
  forward.skips_unread = true;
  forward.dtypes = Forward::Dtypes::floating;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    const Dims& logits = call.inputs[0].shape;
    const Sizes sizes{logits[0], logits[1], logits[2], call.inputs[1].shape[1],
                      call.attributes.get<std::int64_t>("blank")};
    if (sizes.blank >= sizes.classes)
      throw Error(call.at, "ctc_loss",
                  fmt::format("requires a blank below {} classes, got {}", sizes.classes, sizes.blank));
    call.workspace = static_cast<std::size_t>(sizes.slots() * sizes.slot_size()) * sizeof(double);
    return visit_floating(call.output.dtype, [&](auto t) -> KernelRun {
      using T = decltype(t);
      return [sizes, checker = Checker(call, sizes)](const KernelBuffers& buffers) {
        const auto* z = static_cast<const T*>(buffers.inputs[0]);
        const auto* labels = static_cast<const std::int64_t*>(buffers.inputs[1]);
        const auto* places = static_cast<const std::int64_t*>(buffers.inputs[2]);
        const auto* lengths = static_cast<const std::int64_t*>(buffers.inputs[3]);
        auto* costs = static_cast<T*>(buffers.outputs[0]);
        auto* slopes = static_cast<T*>(buffers.outputs[1]);
        checker.check(labels, places, lengths);
        parallel_for(sizes.slots(), 1, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t slot = begin; slot < end; ++slot) {
            double* memory = static_cast<double*>(buffers.workspace) + slot * sizes.slot_size();
            for (std::int64_t e = slot; e < sizes.examples; e += sizes.slots()) {
              const std::int64_t block = e * sizes.places * sizes.classes;
              Alignments<T> example(sizes, z + block, labels + e * sizes.longest, places[e], lengths[e], memory);
              const double cost = example.cost();
              if (costs) costs[e] = static_cast<T>(cost);
              if (slopes) example.slope(cost, slopes + block);
            }
          }
        });
      };
    });
  };
  return forward;
}

const std::vector<Sample>& samples() {
  const auto whole = [](std::vector<std::int64_t> numbers) { return Array(numbers); };
  static const std::vector<Sample> all = {
      // Labels that differ, that repeat, none, and more than there are places for.
      {.inputs = {uniform({4, 4, 3}, -2, 2), whole({1, 2, 1, 1, 7, 7, 2, 2}).reshape({4, 2}), whole({4, 3, 2, 2}),
                  whole({2, 2, 0, 2})},
       .differentiate = false},
      {.inputs = {uniform({2, 3, 4}, -2, 2), whole({0, 1, 2, 1}).reshape({2, 2}), whole({3, 0}), whole({2, 0})},
       .attributes = {{"blank", 3}},
       .differentiate = false},
      // Alignments that the logits rule out: all but one, and all.
      {.inputs = {Array(Array({-inf, 0.0, 0.0, -inf, 0.0, -inf, 0.0, -inf})).reshape({2, 2, 2}),
                  whole({1, 1}).reshape({2, 1}), whole({2, 2}), whole({1, 1})},
       .differentiate = false},
      {.inputs = {uniform({0, 3, 2}), Array(int64, {0, 1}), Array(int64, {0}), Array(int64, {0})},
       .differentiate = false},
      {.inputs = {uniform({2, 0, 2}), Array(int64, {2, 0}), whole({0, 0}), whole({0, 0})}, .differentiate = false}};
  return all;
}

CHAINRULE_EARLY const BuiltinOp ctc_op = register_op({
    .name = "ctc",
    .doc = "The cost of connectionist temporal classification of each example, and its slope by the logits.",
    .attributes = {{"blank", 0}},
    .shape = [](const OpCall& call) -> Types {
      call.require_inputs(4);
      call.require_floating(0);
      const Shape& logits = call.shape(0);
      if (logits.rank() != 3) call.fail("logits {examples, places, classes}", to_string(logits));
      for (std::size_t i = 1; i < 4; ++i) require_indices(call, i);
      const Shape& targets = call.shape(1);
      if (targets.rank() != 2 || !(targets[0] == logits[0]))
        call.fail(fmt::format("targets {{{}, longest}}", logits[0].to_string()), to_string(targets));
      for (std::size_t i = 2; i < 4; ++i)
        if (!(call.shape(i) == Shape{logits[0]}))
          call.fail(fmt::format("lengths {{{}}}", logits[0].to_string()), to_string(call.shape(i)));
      const auto blank = call.attribute<std::int64_t>("blank");
      if (blank < 0 || (logits[2].is_number() && blank >= logits[2].extent()))
        call.fail(fmt::format("a blank below {} classes", logits[2].to_string()), std::to_string(blank));
      return {{call.dtype(0), {logits[0]}}, call.type(0)};
    },
    .forward = ctc_kernel(),
    .gradient = [](const Node& node, const Values& dys) -> Values {
      if (dys[1].defined())
        throw Error(node.location(), "ctc_loss",
                    "requires no derivative of its gradient, got one: of its cost there are first derivatives only");
      return {expand_dims(expand_dims(dys[0], 1), 2) * node.output(1), {}, {}, {}};
    },
    .samples = samples(),
});

}  // namespace

Value ctc_loss(Value logits, Value targets, Value logit_lengths, Value target_lengths, const CtcOptions& options,
               Location at) {
  constexpr std::string_view op = "ctc_loss";
  at = detail::scoped(at);
  for (const Value value : {logits, targets, logit_lengths, target_lengths})
    if (!value.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  return detail::attempt({logits, targets, logit_lengths, target_lengths}, [&] {
    const detail::LocationScope scope(at);
    const Value lengths = as_int64(target_lengths, at);
    Value costs = apply_all(ctc_op, {logits, as_int64(targets, at), as_int64(logit_lengths, at), lengths},
                            {{"blank", options.blank}})[0];
    if (options.zero_infinity) costs = where(equal(costs, inf), 0.0, costs);
    if (options.reduction == Reduction::mean) costs = costs / clip(cast(lengths, costs.dtype()), 1, inf);
    return detail::reduced(costs, options.reduction, at);
  });
}

}  // namespace chainrule
