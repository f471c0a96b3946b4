#include <chainrule/framework/convolutions/convolution.hpp>

#include <cstring>
#include <memory>

#include <chainrule/framework/convolutions/correlate.hpp>
#include <chainrule/framework/convolutions/transpose.hpp>
#include <chainrule/framework/convolutions/weights.hpp>

namespace chainrule::convolutions {

namespace {

WeightStrides straight(const Geometry& g) {
  return {g.features * g.channels * g.taps(), g.channels * g.taps(), g.taps(), 0, 1};
}

// The convolution of dy that is dx, where the stride is 1: channels and features change places, and taps their order.
struct Turned {
  Geometry geometry;
  WeightStrides weights;
};

Turned turned(const Geometry& g) {
  Turned out{g, {g.features * g.channels * g.taps(), g.taps(), g.channels * g.taps(), g.taps() - 1, -1}};
  out.geometry.channels = g.features;
  out.geometry.features = g.channels;
  for (Axis& axis : out.geometry.axes) {
    std::swap(axis.in, axis.out);
    axis.before = (axis.taps - 1) * axis.dilation - axis.before;
  }
  return out;
}

// Whether it takes less than the transposed convolution, which adds to memory once for the sum over all features.
bool pays_turned(const Geometry& g) {
  for (const Axis& axis : g.axes)
    if (axis.stride != 1) return false;
  const double adding = 1 + 5 / static_cast<double>(g.features);
  return static_cast<double>(g.inputs()) <= adding * static_cast<double>(g.outputs());
}

// `computation`: a class with run(input 0, input 1, output, workspace).
template <class T, class C>
KernelRun run_of(KernelCall& call, const Geometry& g, C computation) {
  call.flops = g.flops();
  call.workspace = computation.workspace();
  detail::reserve_scratch(computation.scratch());
  return [shared = std::make_shared<const C>(std::move(computation))](const KernelBuffers& buffers) {
    shared->run(static_cast<const T*>(buffers.inputs[0]), static_cast<const T*>(buffers.inputs[1]),
                static_cast<T*>(buffers.output), buffers.workspace);
  };
}

// make(T) for the geometry, unless nothing is summed or computed.
template <class F>
KernelRun unless_empty(KernelCall& call, const Geometry& g, F make) {
  const std::size_t bytes = static_cast<std::size_t>(count(call.output.shape)) * size_of(call.output.dtype);
  if (bytes == 0) return [](const KernelBuffers&) {};
  if (g.images == 0 || g.channels == 0 || g.features == 0 || g.outputs() == 0 || g.inputs() == 0)
    return [bytes](const KernelBuffers& buffers) { std::memset(buffers.output, 0, bytes); };
  return visit_floating(call.output.dtype, make);
}

Forward forward_of(KernelMaker make) {
  Forward forward;
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.kernel = std::move(make);
  return forward;
}

}  // namespace

Forward convolve() {
  return forward_of([](KernelCall& call) -> KernelRun {
    const Geometry g = geometry_of(call.inputs[0].shape, call.inputs[1].shape, call.output.shape, call.attributes);
    return unless_empty(call, g,
                        [&]<class T>(T) -> KernelRun { return run_of<T>(call, g, Correlation<T>(g, straight(g))); });
  });
}

Forward input_gradient() {
  return forward_of([](KernelCall& call) -> KernelRun {
    const Geometry g = geometry_of(call.output.shape, call.inputs[1].shape, call.inputs[0].shape, call.attributes);
    return unless_empty(call, g, [&]<class T>(T) -> KernelRun {
      if (!pays_turned(g)) return run_of<T>(call, g, Transposed<T>(g));
      const Turned other = turned(g);
      return run_of<T>(call, g, Correlation<T>(other.geometry, other.weights));
    });
  });
}

Forward weight_gradient() {
  return forward_of([](KernelCall& call) -> KernelRun {
    const Geometry g = geometry_of(call.inputs[0].shape, call.output.shape, call.inputs[1].shape, call.attributes);
    return unless_empty(call, g, [&]<class T>(T) -> KernelRun { return run_of<T>(call, g, WeightGradient<T>(g)); });
  });
}

}  // namespace chainrule::convolutions
