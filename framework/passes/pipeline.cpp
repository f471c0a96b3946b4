// The passes in their order. Each line is one file of this folder.
#include <fmt/core.h>

#include <chainrule/framework/passes/pass.hpp>

namespace chainrule::passes {

namespace {

// What is made of a computation, pass by pass.
class Pipeline {
 public:
  Pipeline(const Computation& c, const Log& log) : from_(c), now_(c), log_(log) {}

  [[nodiscard]] const Computation& now() const { return now_; }
  void after(std::string_view pass, Computation made) {
    now_ = std::move(made);
    if (log_) log_(pass, now_);
  }
  void run(const Pass& own) {
    Computation made = result_of(own);
    bool same = made.results.size() == now_.results.size();
    for (std::size_t i = 0; same && i < made.results.size(); ++i) {
      const Value was = now_.results[i];
      const Value is = made.results[i];
      same = is.defined() && is.data() == made.graph.data().get() && is.shape() == was.shape() &&
             is.dtype() == was.dtype();
    }
    if (!same)
      throw Error("pass " + own.name,
                  fmt::format("requires a pass that returns values like the {} results that it was given, of its graph",
                              now_.results.size()));
    after(own.name, std::move(made));
  }
  // The user's graph may grow; a program keeps the one that it was compiled from.
  Computation finish() {
    if (now_.graph.data() != from_.graph.data()) return std::move(now_);
    return Rewriter(now_).run([](Rewriter& r, const Node& node) { return r.copy(node); }, true);
  }

 private:
  // What breaks here is the user's.
  [[nodiscard]] Computation result_of(const Pass& own) const {
    if (!own.run) throw Error("pass " + own.name, "requires a function, got none");
    try {
      return own.run(now_);
    } catch (const InternalError& error) {
      throw Error("pass " + own.name, error.what());
    }
  }

  const Computation& from_;
  Computation now_;
  const Log& log_;
};

// Those without which nothing runs, after the user's own.
void make_runnable(Pipeline& p, Mode mode, const std::vector<Pass>& own, bool noise) {
  p.after("remove_dead", remove_dead(p.now()));
  for (const Pass& pass : own) p.run(pass);
  p.after("expand_composites", expand_composites(p.now()));
  p.after("select_mode", select_mode(p.now(), mode, noise));
}

}  // namespace

Computation optimize(const Computation& c, Mode mode, const Log& log, const std::vector<Pass>& own, bool noise) {
  Pipeline p(c, log);
  make_runnable(p, mode, own, noise);
  p.after("fold_transposes", fold_transposes(p.now()));
  p.after("fold_constants", fold_constants(p.now()));
  p.after("simplify_algebra", simplify_algebra(p.now()));
  p.after("merge_common", merge_common(p.now()));
  p.after("join_parts", join_parts(p.now()));
  // Merging makes operands equal that were not, and folding uncovers both.
  const Graph merged = p.now().graph;
  p.after("simplify_algebra", simplify_algebra(p.now()));
  p.after("fold_constants", fold_constants(p.now()));
  p.after("merge_common", p.now().graph.data() == merged.data() ? p.now() : merge_common(p.now()));
  // What products are joined from may have been joined for others.
  const Graph separate = p.now().graph;
  p.after("join_products", join_products(p.now()));
  p.after("merge_common", p.now().graph.data() == separate.data() ? p.now() : merge_common(p.now()));
  p.after("costs_with_slopes", costs_with_slopes(p.now()));
  p.after("accumulate_products", accumulate_products(p.now()));
  p.after("update_rows", update_rows(p.now()));
  return p.finish();
}

Computation as_built(const Computation& c, Mode mode, const Log& log, const std::vector<Pass>& own, bool noise) {
  Pipeline p(c, log);
  make_runnable(p, mode, own, noise);
  return p.finish();
}

}  // namespace chainrule::passes
