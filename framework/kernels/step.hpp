// Steps: what a plan runs, here a single node's kernel made for given sizes. Not installed.
#pragma once

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule::detail {

// The pointers of one step in one run.
struct StepBuffers {
  const void* const* inputs;
  void* const* outputs;
  void* workspace;
  void** table = nullptr;  // of Step::table pointers, for Step::prepare and Step::run_kept
};

// A callable, which copies of this share: steps that are alike run one and the same.
class StepRun {
 public:
  StepRun() = default;
  template <class F>
  requires(!std::same_as<std::remove_cvref_t<F>, StepRun>)
      StepRun(F&& f)  // NOLINT(bugprone-forwarding-reference-overload)
      : self_(std::make_shared<const std::remove_cvref_t<F>>(std::forward<F>(f))),
        call_([](const void* self, const StepBuffers& buffers) {
          (*static_cast<const std::remove_cvref_t<F>*>(self))(buffers);
        }) {}
  // (self->*member)(buffers)
  template <auto member, class T>
  static StepRun of(std::shared_ptr<const T> self) {
    StepRun out;
    out.self_ = std::move(self);
    out.call_ = [](const void* of, const StepBuffers& buffers) { (static_cast<const T*>(of)->*member)(buffers); };
    return out;
  }
  void operator()(const StepBuffers& buffers) const { call_(self_.get(), buffers); }

 private:
  std::shared_ptr<const void> self_;
  void (*call_)(const void* self, const StepBuffers&) = nullptr;
};

// A step and the scratch memory that it needs.
struct Step {
  StepRun run;
  std::size_t workspace = 0;
  double flops = 0;       // 0: not known
  std::int64_t tile = 0;  // elements of a tile of a fused group
  // About how long it takes one thread, and how many threads it can keep busy; 0: not known.
  double nanoseconds = 0;
  std::int64_t parts = 0;
  // A step that is so small that finding its addresses takes as long as what it computes may keep them, in a table of
  // so many pointers: `prepare` fills it in whenever one of the buffers is another one, and then run_kept is the step.
  std::size_t table = 0;
  StepRun prepare = {};
  StepRun run_kept = {};
};

// What a kernel's or generator's maker is told of a node; it refers to the attributes, which must outlive it.
KernelCall call_of(const GraphData& graph, NodeId id, const Sizes& sizes, const Attributes& attributes);

// A single node that is not elementwise.
Step make_kernel_step(const GraphData& graph, NodeId id, const Sizes& sizes);

}  // namespace chainrule::detail
