// The passes in their order. Each line is one file of this folder.
#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

Computation optimize(const Computation& c, Mode mode, const Log& log) {
  Computation now = c;
  const auto after = [&](std::string_view pass, Computation made) {
    now = std::move(made);
    if (log) log(pass, now);
  };
  after("remove_dead", remove_dead(now));
  after("expand_composites", expand_composites(now));
  after("select_mode", select_mode(now, mode));
  after("fold_transposes", fold_transposes(now));
  after("fold_constants", fold_constants(now));
  after("simplify_algebra", simplify_algebra(now));
  after("merge_common", merge_common(now));
  // Merging makes operands equal that were not, and folding uncovers both.
  const Graph merged = now.graph;
  after("simplify_algebra", simplify_algebra(now));
  after("fold_constants", fold_constants(now));
  after("merge_common", now.graph.data() == merged.data() ? now : merge_common(now));
  after("accumulate_products", accumulate_products(now));
  // The user's graph may grow; a program keeps the one that it was compiled from.
  if (now.graph.data() == c.graph.data())
    now = Rewriter(now).run([](Rewriter& r, const Node& node) { return r.copy(node); }, true);
  return now;
}

}  // namespace chainrule::passes
