// Dead nodes: what no result needs is left behind. (Every pass does so; this one does nothing else, and comes first,
// since a user's graph holds much that one program does not ask for.)
#include <algorithm>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

Computation remove_dead(const Computation& c) {
  const std::vector<char> needed = needed_nodes(c);
  if (std::find(needed.begin(), needed.end(), 0) == needed.end()) return c;
  return Rewriter(c).run([](Rewriter& r, const Node& node) { return r.copy(node); });
}

}  // namespace chainrule::passes
