#include <chainrule/ops/random.hpp>

#include <cmath>
#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/core/philox.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>

CHAINRULE_OP_FAMILY(random)

namespace chainrule {

namespace {

// Both ops here have the State's step as their only input, and element i is made of 24 random bits: those of Philox of
// (seed, stream, step, i). Four elements share a block, wherever the range is cut.

Forward mask_generator() {
  Forward forward;
  forward.exact = true;
  forward.dtypes = Forward::Dtypes::floating;
  forward.generator = [](const KernelCall& call) -> RangeRun {
    const auto threshold = static_cast<std::uint32_t>(call.attributes.number("keep") * 0x1p24);
    const auto seed = static_cast<std::uint64_t>(call.attributes.get<std::int64_t>("seed"));
    const auto stream = static_cast<std::uint32_t>(call.attributes.get<std::int64_t>("stream"));
    return visit_floating(call.output.dtype, [&]<class T>(T) -> RangeRun {
      return [=](const void* const* inputs, void* out, std::int64_t begin, std::int64_t end) {
        const auto step = static_cast<std::uint32_t>(*static_cast<const std::int64_t*>(inputs[0]));
        kernels::table<T>().keep_mask(static_cast<T*>(out), static_cast<std::uint64_t>(begin),
                                      static_cast<std::size_t>(end - begin), threshold, seed, stream, step);
      };
    });
  };
  return forward;
}

Forward uniform_generator() {
  Forward forward;
  forward.dtypes = Forward::Dtypes::floating;
  forward.generator = [](const KernelCall& call) -> RangeRun {
    const double low = call.attributes.number("low");
    const double width = call.attributes.number("high") - low;
    const auto seed = static_cast<std::uint64_t>(call.attributes.get<std::int64_t>("seed"));
    const auto stream = static_cast<std::uint32_t>(call.attributes.get<std::int64_t>("stream"));
    return visit_floating(call.output.dtype, [&]<class T>(T) -> RangeRun {
      return [=](const void* const* inputs, void* output, std::int64_t begin, std::int64_t end) {
        const auto step = static_cast<std::uint32_t>(*static_cast<const std::int64_t*>(inputs[0]));
        T* out = static_cast<T*>(output);
        philox::Block words{};
        for (std::int64_t i = begin; i < end; ++i) {
          if (i == begin || i % 4 == 0) words = philox::bits(seed, stream, step, static_cast<std::uint64_t>(i / 4));
          *out++ = static_cast<T>(low + width * philox::unit(words[static_cast<std::size_t>(i % 4)]));
        }
      };
    });
  };
  return forward;
}

Type drawn_shape(const OpCall& call) {
  call.require_inputs(1);
  if (call.dtype(0) != int64 || !(call.shape(0) == Shape{}))
    call.fail("the step, an int64 scalar", to_string(call.shape(0)));
  return {call.attribute<DType>("dtype"), call.attribute<Shape>("shape")};
}

CHAINRULE_EARLY const BuiltinOp dropout_mask_op = register_op({
    .name = "dropout_mask",
    .doc = "1 with probability keep, else 0, by Philox 4x32-10 of (seed, stream, step, element).",
    .attributes = {{"shape", AttributeType::shape},
                   {"dtype", AttributeType::dtype},
                   {"keep", AttributeType::number},
                   {"seed", AttributeType::whole},
                   {"stream", AttributeType::whole}},
    .shape = drawn_shape,
    .forward = mask_generator(),
    .samples =
        {{.inputs = {Array(std::int64_t{3})},
          .attributes = {{"shape", Shape{1000}}, {"dtype", float64}, {"keep", 0.8}, {"seed", 7}, {"stream", 1}}}},
});

CHAINRULE_EARLY const BuiltinOp random_uniform_op = register_op({
    .name = "random_uniform",
    .doc =
        "Evenly distributed in [low, high), rounded to the dtype, by Philox 4x32-10 of (seed, stream, step, element).",
    .attributes = {{"shape", AttributeType::shape},
                   {"dtype", AttributeType::dtype},
                   {"low", AttributeType::number},
                   {"high", AttributeType::number},
                   {"seed", AttributeType::whole},
                   {"stream", AttributeType::whole}},
    .shape = drawn_shape,
    .forward = uniform_generator(),
    .samples =
        {{.inputs = {Array(std::int64_t{3})},
          .attributes =
              {{"shape", Shape{1000}}, {"dtype", float64}, {"low", -0.5}, {"high", 0.75}, {"seed", 7}, {"stream", 1}}}},
});

void check_floating(Value x, std::string_view op, Location at) {
  if (!x.defined()) throw Error(at, op, "requires values of a graph, got an empty Value");
  if (!is_floating(x.dtype())) throw Error(at, op, fmt::format("requires float32 or float64, got {}", name(x.dtype())));
}

void check(Value x, const DropoutOptions& options, Location at) {
  check_floating(x, "dropout", at);
  if (!(options.keep > 0 && options.keep <= 1))
    throw Error(at, "dropout", fmt::format("requires 0 < keep <= 1, got {}", options.keep));
}

void check(const RandomOptions& options, std::string_view op, Location at) {
  if (options.dtype && !is_floating(*options.dtype))
    throw Error(at, op, fmt::format("requires float32 or float64, got {}", name(*options.dtype)));
  if (const Value counter = options.counter; counter.defined() && (counter.dtype() != int64 || counter.rank() != 0))
    throw Error(at, op,
                fmt::format("requires a counter that is an int64 scalar, got {} {}", name(counter.dtype()),
                            to_string(counter.shape())));
}

Value drawn_uniform(Graph graph, const Shape& shape, double low, double high, const RandomOptions& options,
                    Location at) {
  detail::Attempt attempt(graph.data().get());
  const Value counter = options.counter.defined() ? options.counter : graph.step(at);
  const Value drawn = apply(graph, random_uniform_op, {counter},
                            {{"shape", shape},
                             {"dtype", options.dtype.value_or(graph.dtype())},
                             {"low", low},
                             {"high", high},
                             {"seed", static_cast<std::int64_t>(graph.seed())},
                             {"stream", graph.data()->streams++}},
                            at);
  attempt.succeed();
  return drawn;
}

}  // namespace

Value dropout(Value x, const DropoutOptions& options, Location at) {
  check(x, options, at);
  return detail::attempt(x, [&] {
    Graph graph = x.graph();
    const Value mask = apply(dropout_mask_op, {graph.step(at)},
                             {{"shape", x.shape()},
                              {"dtype", x.dtype()},
                              {"keep", options.keep},
                              {"seed", static_cast<std::int64_t>(graph.seed())},
                              {"stream", graph.data()->streams++}},
                             at);
    return dropout(x, mask, options, at);
  });
}

Value dropout(Value x, Value mask, const DropoutOptions& options, Location at) {
  check(x, options, at);
  if (!mask.defined()) throw Error(at, "dropout", "requires values of a graph, got an empty Value");
  Shape both;
  if (!broadcast(x.shape(), mask.shape(), both) || !(both == x.shape()))
    throw Error(
        at, "dropout",
        fmt::format("requires a mask that broadcasts to {}, got {}", to_string(x.shape()), to_string(mask.shape())));
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt({x, mask}, [&] { return by_mode(x * cast(mask, x.dtype()) * (1.0 / options.keep), x); });
}

Value random_uniform(Graph graph, const Shape& shape, double low, double high, const RandomOptions& options,
                     Location at) {
  constexpr auto* op = "random_uniform";
  if (!(low <= high && std::isfinite(high - low)))
    throw Error(at, op, fmt::format("requires finite low <= high, got {} and {}", low, high));
  check(options, op, at);
  return drawn_uniform(graph, shape, low, high, options, at);
}

Value random_normal(Graph graph, const Shape& shape, double mean, double deviation, const RandomOptions& options,
                    Location at) {
  constexpr auto* op = "random_normal";
  if (!std::isfinite(mean)) throw Error(at, op, fmt::format("requires a finite mean, got {}", mean));
  if (!(deviation >= 0 && std::isfinite(deviation)))
    throw Error(at, op, fmt::format("requires a finite deviation of 0 or more, got {}", deviation));
  check(options, op, at);
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(detail::scoped(at));
  const Value u = drawn_uniform(graph, shape, 0, 1, options, at);
  const Value v = drawn_uniform(graph, shape, 0, 1, options, at);
  const Value z = sqrt(-2 * log(1 - u)) * cos(2 * std::numbers::pi * v);
  const Value drawn = mean + deviation * z;
  attempt.succeed();
  return drawn;
}

Value random_integers(Graph graph, const Shape& shape, std::int64_t low, std::int64_t high,
                      const RandomOptions& options, Location at) {
  constexpr auto* op = "random_integers";
  constexpr auto most = std::uint64_t{1} << 24;
  if (low >= high || static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) > most)
    throw Error(at, op, fmt::format("requires from 1 to 2^24 numbers from low to high, got {} and {}", low, high));
  if (options.dtype) throw Error(at, op, fmt::format("requires no dtype, got {}", name(*options.dtype)));
  check(options, op, at);
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(detail::scoped(at));
  // In float64, where no number below the upper bound is rounded up to it.
  const Value place = drawn_uniform(graph, shape, 0, static_cast<double>(high - low),
                                    {.dtype = float64, .counter = options.counter}, at);
  const Value drawn = cast(place, int64) + low;
  attempt.succeed();
  return drawn;
}

Value rrelu(Value x, const RReluOptions& options, Location at) {
  check_floating(x, "rrelu", at);
  if (!(options.low <= options.high))
    throw Error(at, "rrelu", fmt::format("requires low <= high, got {} and {}", options.low, options.high));
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(x, [&] {
    Graph graph = x.graph();
    const Value slope = drawn_uniform(graph, x.shape(), options.low, options.high, {.dtype = x.dtype()}, at);
    return prelu(x, by_mode(slope, (options.low + options.high) / 2), at);
  });
}

}  // namespace chainrule
