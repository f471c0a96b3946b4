#include <chainrule/ops/sequence_loss.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/attention.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/index_range.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/reduce.hpp>

CHAINRULE_OP_FAMILY(sequence_loss)

namespace chainrule {

namespace {

void require_sequences(std::string_view op, Location at, Value logits, Value labels, Value lengths) {
  for (const Value value : {logits, labels, lengths})
    if (!value.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  if (logits.rank() != 3 || !is_floating(logits.dtype()))
    throw Error(at, op,
                fmt::format("requires floating logits {{examples, places, classes}}, got {} {}", name(logits.dtype()),
                            to_string(logits.shape())));
  const Shape places{logits.shape()[0], logits.shape()[1]};
  if (!(labels.shape() == places) || !is_integer(labels.dtype()))
    throw Error(at, op,
                fmt::format("requires whole labels {}, got {} {}", to_string(places), name(labels.dtype()),
                            to_string(labels.shape())));
  const Shape examples{places[0]};
  if (!(lengths.shape() == examples) || !is_integer(lengths.dtype()))
    throw Error(at, op,
                fmt::format("requires whole lengths {}, got {} {}", to_string(examples), name(lengths.dtype()),
                            to_string(lengths.shape())));
}

}  // namespace

Value sequence_cross_entropy(Value logits, Value labels, Value lengths, const SequenceCrossEntropyOptions& options,
                             Location at) {
  at = detail::scoped(at);
  require_sequences("sequence_cross_entropy", at, logits, labels, lengths);
  return detail::attempt({logits, labels, lengths}, [&] {
    const detail::LocationScope scope(at);
    const Value real = length_mask(as_int64(lengths, at), logits.shape()[1], at);
    // Neither numbers nor labels of padded places are looked at.
    const Value z = where(expand_dims(real, 2), logits, 0.0);
    const Value classes = where(real, as_int64(labels, at), 0);
    const Value costs = where(
        real,
        softmax_cross_entropy(
            z, classes, CrossEntropyOptions{.reduction = Reduction::none, .label_smoothing = options.label_smoothing}),
        0.0);
    const Value count = cast(real, logits.dtype());
    switch (options.reduction) {
      case Reduction::mean: return sum(costs) / sum(count);
      case Reduction::sum: return sum(costs);
      case Reduction::none: break;
    }
    return sum(costs, 1) / maximum(sum(count, 1), 1.0);
  });
}

}  // namespace chainrule
