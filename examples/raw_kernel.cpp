// A kernel of your own at the lowest level: scratch memory, the library's threads, an attribute with a default.
#include <chainrule/chainrule.hpp>

#include <algorithm>

#include <fmt/core.h>

namespace cr = chainrule;

namespace {

// The mean of 2 r + 1 neighbours along the last axis, with zeros beyond the ends: the difference of two running sums.
template <class T>
struct MovingMean {
  std::int64_t n;  // elements of a row
  std::int64_t rows;
  std::int64_t radius;

  void operator()(const cr::KernelBuffers& buffers) const {
    const auto* x = static_cast<const T*>(buffers.inputs[0]);
    auto* y = static_cast<T*>(buffers.output);
    auto* sums = static_cast<double*>(buffers.workspace);  // n + 1 of each row
    // Parts of so many rows, on as many threads as there are: that follows from sizes alone, so that every number of
    // threads gives the same bits.
    const std::int64_t grain = std::max<std::int64_t>(1, 20'000 / (n + 1));
    cr::parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) mean_of_row(x + row * n, sums + row * (n + 1), y + row * n);
    });
  }

 private:
  void mean_of_row(const T* x, double* sum, T* y) const {
    sum[0] = 0;
    for (std::int64_t i = 0; i < n; ++i) sum[i + 1] = sum[i] + static_cast<double>(x[i]);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t first = std::max<std::int64_t>(0, i - radius);
      const std::int64_t end = std::min(n, i + radius + 1);
      y[i] = static_cast<T>((sum[end] - sum[first]) / static_cast<double>(2 * radius + 1));
    }
  }
};

// Called once for given sizes; what it returns runs many times, and should allocate nothing.
cr::Forward moving_mean_kernel() {
  cr::Forward forward;
  forward.dtypes = cr::Forward::Dtypes::one_floating;  // what it is written for, so that other calls are errors
  forward.kernel = [](cr::KernelCall& call) -> cr::KernelRun {
    const cr::Dims& shape = call.inputs[0].shape;
    const std::int64_t n = shape.back();
    const std::int64_t rows = n == 0 ? 0 : cr::count(shape) / n;
    const auto radius = call.attributes.get<std::int64_t>("radius");
    call.workspace = static_cast<std::size_t>(rows * (n + 1)) * sizeof(double);  // bytes of scratch memory
    return cr::visit_floating(call.output.dtype, [&](auto t) -> cr::KernelRun {
      return MovingMean<decltype(t)>{n, rows, radius};
    });
  };
  return forward;
}

const cr::Op& moving_mean_op = cr::register_op({
    .name = "moving_mean",
    .doc = "The mean of 2 radius + 1 neighbours along the last axis.",
    // Each attribute with its type or its default; a call that misspells one, or gives another type, is an error.
    .attributes = {{"radius", std::int64_t{1}}},
    .shape = [](const cr::OpCall& call) -> cr::Type {
      call.require_inputs(1);
      call.require_floating(0);
      if (call.shape(0).rank() == 0) call.fail("an axis", "a scalar");
      if (call.attribute<std::int64_t>("radius") < 0) call.fail("a radius of 0 or more", "a negative one");
      return call.type(0);
    },
    .forward = moving_mean_kernel(),
    // Each element has the same weight in its neighbours as they have in it: the rule is the op itself.
    .gradient = [](const cr::Node& node, cr::Value dy) -> cr::Values {
      return {cr::apply(node.op(), {dy}, node.attributes())};
    },
    .samples = {{.inputs = {cr::uniform({3, 7}, -1, 1)}, .attributes = {{"radius", 2}}},
                {.inputs = {cr::uniform({4}, -1, 1)}},
                {.inputs = {cr::uniform({2, 1}, -1, 1)}, .attributes = {{"radius", 5}}}},
});

}  // namespace

int main() {
  const auto report = cr::check_gradients(moving_mean_op);  // the kernel's memory and the order of its parts, too
  fmt::print("{}\n", report);

  cr::Graph graph;
  const auto x = graph.input("x", {6});
  const auto y = cr::apply(moving_mean_op, {x}, {{"radius", 1}});
  cr::State state(graph);
  cr::Program program(state, {.outputs = {y}});
  fmt::print("{}\n", program.run({{x, cr::Array({3.0, 0.0, 6.0, 3.0, 0.0, -3.0})}})[0]);
  return report.passed() ? 0 : 1;
}
