// Inference mode: by_mode(training, inference) becomes the input that the program's mode asks for. Dropout is then the
// identity and batch_norm uses its running statistics, in gradients too; what only the other mode needs is dead. With
// noise, what draws random numbers in training (attribute "noise") does so in inference as well.
#include <chainrule/framework/passes/pass.hpp>
#include <chainrule/ops/layout.hpp>

namespace chainrule::passes {

Computation select_mode(const Computation& c, Mode mode, bool noise) {
  const Op* by_mode = find_op("by_mode");
  if (!uses(c, by_mode)) return c;
  return Rewriter(c).run([=](Rewriter& r, const Node& node) {
    if (&node.op() != by_mode) return r.copy(node);
    const bool training = mode == Mode::training || (noise && node.attribute<bool>("noise"));
    const Value chosen = r.now(node.input(training ? 0 : 1));
    return chosen.shape() == node.shape() ? chosen : broadcast_to(chosen, node.shape());
  });
}

}  // namespace chainrule::passes
