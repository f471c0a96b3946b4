#include <chainrule/ops/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include <fmt/core.h>

#include <chainrule/framework/core/philox.hpp>
#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/ops/activation.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/control.hpp>
#include <chainrule/ops/math.hpp>
#include <chainrule/ops/reduce.hpp>

CHAINRULE_OP_FAMILY(random)

namespace chainrule {

namespace {

// All ops here have a number as their only input: the State's step, or what a program draws by in each run. Element i
// is made of random bits of Philox of (seed, stream, number, i): the number's lower 32 bits are a word of the counter,
// the next 30 are counted on from the blocks of the elements, which are fewer than 2^32.

struct Stream {
  std::uint64_t seed;
  std::uint32_t stream;

  explicit Stream(const Attributes& attributes)
      : seed(static_cast<std::uint64_t>(attributes.get<std::int64_t>("seed"))),
        stream(static_cast<std::uint32_t>(attributes.get<std::int64_t>("stream"))) {}

  [[nodiscard]] philox::Block bits(std::int64_t number, std::uint64_t block) const {
    return philox::bits(seed, stream, step(number), first_block(number) + block);
  }
  static std::uint32_t step(std::int64_t number) { return static_cast<std::uint32_t>(number); }
  static std::uint64_t first_block(std::int64_t number) {
    return (static_cast<std::uint64_t>(number) >> 32 & 0x3FFF'FFFF) << 32;
  }
};

std::int64_t number_in(const void* const* inputs) { return *static_cast<const std::int64_t*>(inputs[0]); }

Forward mask_generator() {
  Forward forward;
  forward.exact = true;
  forward.dtypes = Forward::Dtypes::floating;
  forward.generator = [](const KernelCall& call) -> RangeRun {
    const auto threshold = static_cast<std::uint32_t>(call.attributes.number("keep") * 0x1p24);
    const Stream stream(call.attributes);
    return visit_floating(call.output.dtype, [&]<class T>(T) -> RangeRun {
      return [=](const void* const* inputs, void* out, std::int64_t begin, std::int64_t end) {
        const std::int64_t number = number_in(inputs);
        kernels::table<T>().keep_mask(
            static_cast<T*>(out), 4 * Stream::first_block(number) + static_cast<std::uint64_t>(begin),
            static_cast<std::size_t>(end - begin), threshold, stream.seed, stream.stream, Stream::step(number));
      };
    });
  };
  return forward;
}

// f(words, k) of each element, the k-th of `of_block` that share a block of bits.
template <std::int64_t of_block, class F>
RangeRun each_element(const KernelCall& call, F f) {
  const Stream stream(call.attributes);
  return visit_floating(call.output.dtype, [&]<class T>(T) -> RangeRun {
    return [=](const void* const* inputs, void* output, std::int64_t begin, std::int64_t end) {
      const std::int64_t number = number_in(inputs);
      T* out = static_cast<T*>(output);
      philox::Block words{};
      for (std::int64_t i = begin; i < end; ++i) {
        if (i == begin || i % of_block == 0) words = stream.bits(number, static_cast<std::uint64_t>(i / of_block));
        *out++ = f(T{}, words, static_cast<std::size_t>(i % of_block));
      }
    };
  });
}

Forward uniform_generator() {
  Forward forward;
  forward.dtypes = Forward::Dtypes::floating;
  forward.generator = [](const KernelCall& call) -> RangeRun {
    const double low = call.attributes.number("low");
    const double width = call.attributes.number("high") - low;
    return each_element<4>(call, [=]<class T>(T, const philox::Block& words, std::size_t k) {
      return static_cast<T>(low + width * philox::unit(words[k]));
    });
  };
  return forward;
}

Forward open_unit_generator() {
  Forward forward;
  forward.dtypes = Forward::Dtypes::floating;
  forward.generator = [](const KernelCall& call) -> RangeRun {
    return each_element<2>(call, []<class T>(T, const philox::Block& words, std::size_t k) {
      constexpr T most = 1 - std::numeric_limits<T>::epsilon() / 2;
      const std::uint64_t bits = std::uint64_t{words[2 * k]} << 20 | words[2 * k + 1] >> 12;
      return std::min(most, static_cast<T>((static_cast<double>(bits) + 0.5) * 0x1p-52));
    });
  };
  return forward;
}

// Below `bound`, each as likely: the upper half of the product with 64 random bits, which are drawn again where the
// lower half tells that there would be one more of them for some than for others (Lemire 2019). Of two draws one fits,
// but for 1 in 2^64 with bounds up to 2^32.
std::uint64_t below(std::uint64_t bound, const philox::Block& words) {
  std::uint64_t high = 0;
  for (const std::size_t k : {0U, 2U}) {
    const std::uint64_t bits = std::uint64_t{words[k]} << 32 | words[k + 1];
    // The product of 64 and 64 bits by halves.
    const std::uint64_t low_part = (bits & 0xFFFF'FFFF) * (bound & 0xFFFF'FFFF);
    const std::uint64_t middle = (bits >> 32) * (bound & 0xFFFF'FFFF) + (low_part >> 32);
    const std::uint64_t other = (bits & 0xFFFF'FFFF) * (bound >> 32) + (middle & 0xFFFF'FFFF);
    high = (bits >> 32) * (bound >> 32) + (middle >> 32) + (other >> 32);
    if (bits * bound >= (0 - bound) % bound) break;
  }
  return high;
}

Forward permutation_kernel() {
  Forward forward;
  forward.exact = true;
  forward.kernel = [](KernelCall& call) -> KernelRun {
    return [stream = Stream(call.attributes), n = count(call.output.shape)](const KernelBuffers& buffers) {
      const std::int64_t number = number_in(buffers.inputs);
      auto* out = static_cast<std::int64_t*>(buffers.output);
      for (std::int64_t i = 0; i < n; ++i) {
        const auto place = static_cast<std::uint64_t>(i);
        const std::uint64_t of = below(place + 1, stream.bits(number, place));
        out[i] = out[of];
        out[of] = i;
      }
    };
  };
  return forward;
}

void require_number(const OpCall& call) {
  call.require_inputs(1);
  if (call.dtype(0) != int64 || !(call.shape(0) == Shape{}))
    call.fail("the step, an int64 scalar", to_string(call.shape(0)));
}

Type drawn_shape(const OpCall& call) {
  require_number(call);
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
    .samples = {{.inputs = {Array(std::int64_t{3})},
                 .attributes = {{"shape", Shape{1000}}, {"dtype", float64}, {"keep", 0.8}, {"seed", 7}, {"stream", 1}}},
                {.inputs = {Array((std::int64_t{5} << 32) + 3)},
                 .attributes = {{"shape", Shape{333}}, {"dtype", float64}, {"keep", 0.4}, {"seed", 7}, {"stream", 1}}}},
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
              {{"shape", Shape{1000}}, {"dtype", float64}, {"low", -0.5}, {"high", 0.75}, {"seed", 7}, {"stream", 1}}},
         {.inputs = {Array((std::int64_t{5} << 32) + 3)},
          .attributes =
              {{"shape", Shape{100}}, {"dtype", float64}, {"low", -0.5}, {"high", 0.75}, {"seed", 7}, {"stream", 1}}}},
});

CHAINRULE_EARLY const BuiltinOp random_open_unit_op = register_op({
    .name = "random_open_unit",
    .doc = "(k + 1/2) / 2^52 of 52 random bits k, rounded to the dtype but below 1, by Philox 4x32-10.",
    .attributes = {{"shape", AttributeType::shape},
                   {"dtype", AttributeType::dtype},
                   {"seed", AttributeType::whole},
                   {"stream", AttributeType::whole}},
    .shape = drawn_shape,
    .forward = open_unit_generator(),
    .samples = {{.inputs = {Array(std::int64_t{3})},
                 .attributes = {{"shape", Shape{1000}}, {"dtype", float64}, {"seed", 7}, {"stream", 1}}},
                {.inputs = {Array((std::int64_t{5} << 32) + 3)},
                 .attributes = {{"shape", Shape{333}}, {"dtype", float64}, {"seed", 7}, {"stream", 1}}}},
});

CHAINRULE_EARLY const BuiltinOp random_permutation_op = register_op({
    .name = "random_permutation",
    .doc = "0 ... n - 1 in a random order, by Philox 4x32-10.",
    .attributes = {{"n", AttributeType::extent}, {"seed", AttributeType::whole}, {"stream", AttributeType::whole}},
    .shape = [](const OpCall& call) -> Type {
      require_number(call);
      return {int64, call.attribute<Shape>("n")};
    },
    .forward = permutation_kernel(),
    .samples = {{.inputs = {Array(std::int64_t{3})}, .attributes = {{"n", Shape{100}}, {"seed", 7}, {"stream", 1}}},
                {.inputs = {Array((std::int64_t{5} << 32) + 3)},
                 .attributes = {{"n", Shape{7}}, {"seed", 7}, {"stream", 1}}},
                {.inputs = {Array(std::int64_t{3})}, .attributes = {{"n", Shape{0}}, {"seed", 7}, {"stream", 1}}}},
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

void check_counter(const RandomOptions& options, std::string_view op, Location at) {
  if (const Value counter = options.counter; counter.defined() && (counter.dtype() != int64 || counter.rank() != 0))
    throw Error(at, op,
                fmt::format("requires a counter that is an int64 scalar, got {} {}", name(counter.dtype()),
                            to_string(counter.shape())));
}

void check(const RandomOptions& options, std::string_view op, Location at) {
  if (options.dtype && !is_floating(*options.dtype))
    throw Error(at, op, fmt::format("requires float32 or float64, got {}", name(*options.dtype)));
  check_counter(options, op, at);
}

void check_without_dtype(const RandomOptions& options, std::string_view op, Location at) {
  if (options.dtype) throw Error(at, op, fmt::format("requires no dtype, got {}", name(*options.dtype)));
  check_counter(options, op, at);
}

// A use of an op that draws, with a stream of its own.
Value drawn(Graph graph, const Op& op, const RandomOptions& options, const Attributes& attributes, Location at) {
  detail::Attempt attempt(graph.data().get());
  const Value counter = options.counter.defined() ? options.counter : graph.step(at);
  const Value made = apply(
      graph, op, {counter},
      attributes.with("seed", static_cast<std::int64_t>(graph.seed())).with("stream", graph.data()->streams++), at);
  attempt.succeed();
  return made;
}

Value drawn_uniform(Graph graph, const Shape& shape, double low, double high, const RandomOptions& options,
                    Location at) {
  const DType dtype = options.dtype.value_or(graph.dtype());
  return drawn(graph, random_uniform_op, options, {{"shape", shape}, {"dtype", dtype}, {"low", low}, {"high", high}},
               at);
}

Value drawn_open_unit(Graph graph, const Shape& shape, DType dtype, const RandomOptions& options, Location at) {
  return drawn(graph, random_open_unit_op, options, {{"shape", shape}, {"dtype", dtype}}, at);
}

// What training draws, and else is `inference`.
Value by_noise(Value training, Value inference) {
  static const Op* const by_mode = find_op("by_mode");
  return apply(*by_mode, {training, inference}, {{"noise", true}});
}

// ---- the inverse of the normal distribution

using Coefficients = std::array<double, 8>;

// p(x) / q(x), the coefficients of x^0 first.
Value ratio(Value x, const Coefficients& p, const Coefficients& q) {
  const auto polynomial = [&](const Coefficients& c) {
    Value sum = c[7] * x + c[6];
    for (std::size_t i = 6; i-- > 0;) sum = sum * x + c[i];
    return sum;
  };
  return polynomial(p) / polynomial(q);
}

// z <= 0 whose probability to be exceeded from below is `tail`, from 1e-316 to 1/2: Wichura's algorithm AS 241 (1988),
// PPND16, with a relative error of about 1e-16.
Value quantile_of_tail(Value tail) {
  const Value from_middle = tail - 0.5;
  const Value middle =
      from_middle *
      ratio(0.180625 - square(from_middle),
            {3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3, 1.3731693765509461125e+4,
             4.5921953931549871457e+4, 6.7265770927008700853e+4, 3.3430575583588128105e+4, 2.5090809287301226727e+3},
            {1.0, 4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
             2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4, 5.2264952788528545610e+3});
  const Value r = sqrt(-log(tail));
  const Value near = ratio(
      r - 1.6,
      {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
       1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4},
      {1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
       1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9});
  const Value far = ratio(
      r - 5.0,
      {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
       2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7},
      {1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
       1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15});
  return where(from_middle >= -0.425, middle, -where(r <= 5.0, near, far));
}

double normal_below(double z) { return 0.5 * std::erfc(-z / std::numbers::sqrt2); }

}  // namespace

Value dropout(Value x, const DropoutOptions& options, Location at) {
  check(x, options, at);
  return detail::attempt(x, [&] {
    Graph graph = x.graph();
    const Value mask =
        drawn(graph, dropout_mask_op, {}, {{"shape", x.shape()}, {"dtype", x.dtype()}, {"keep", options.keep}}, at);
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
  return detail::attempt({x, mask}, [&] { return by_noise(x * cast(mask, x.dtype()) * (1.0 / options.keep), x); });
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
  check_without_dtype(options, op, at);
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(detail::scoped(at));
  // In float64, where no number below the upper bound is rounded up to it.
  const Value place = drawn_uniform(graph, shape, 0, static_cast<double>(high - low),
                                    {.dtype = float64, .counter = options.counter}, at);
  const Value drawn = cast(place, int64) + low;
  attempt.succeed();
  return drawn;
}

Value random_bernoulli(Graph graph, const Shape& shape, double probability, const RandomOptions& options, Location at) {
  constexpr auto* op = "random_bernoulli";
  if (!(probability >= 0 && probability <= 1))
    throw Error(at, op, fmt::format("requires a probability from 0 to 1, got {}", probability));
  check_counter(options, op, at);
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(detail::scoped(at));
  const Value drawn = drawn_open_unit(graph, shape, float64, options, at) < probability;
  const Value made = cast(drawn, options.dtype.value_or(graph.dtype()));
  attempt.succeed();
  return made;
}

Value random_bernoulli(Value probability, const RandomOptions& options, Location at) {
  constexpr auto* op = "random_bernoulli";
  check_floating(probability, op, at);
  check_counter(options, op, at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(probability, [&] {
    const DType dtype = probability.dtype();
    const Value u = drawn_open_unit(probability.graph(), probability.shape(), dtype, options, at);
    return cast(u < probability, options.dtype.value_or(dtype));
  });
}

Value random_gumbel(Graph graph, const Shape& shape, const RandomOptions& options, Location at) {
  check(options, "random_gumbel", at);
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(detail::scoped(at));
  // u = 1 - v: where the result is great, v is small and has all its digits.
  const Value v = drawn_open_unit(graph, shape, options.dtype.value_or(graph.dtype()), options, at);
  const Value made = -log(-log1p(-v));
  attempt.succeed();
  return made;
}

Value random_categorical(Value logits, const RandomOptions& options, Location at) {
  constexpr auto* op = "random_categorical";
  check_floating(logits, op, at);
  if (logits.rank() == 0 || logits.shape().back().is(0))
    throw Error(at, op,
                fmt::format("requires logits with classes along their last axis, got {}", to_string(logits.shape())));
  check_without_dtype(options, op, at);
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(logits, [&] {
    const Value greatest = max(logits, -1, true);
    // So that great logits do not round the noise away.
    const Value shifted = logits - where(isfinite(greatest), greatest, 0.0);
    const Value noise =
        random_gumbel(logits.graph(), logits.shape(), {.dtype = logits.dtype(), .counter = options.counter}, at);
    return argmax(shifted + noise, -1);
  });
}

Value random_truncated_normal(Graph graph, const Shape& shape, double mean, double deviation, double low, double high,
                              const RandomOptions& options, Location at) {
  constexpr auto* op = "random_truncated_normal";
  if (!std::isfinite(mean)) throw Error(at, op, fmt::format("requires a finite mean, got {}", mean));
  if (!(deviation >= 0 && std::isfinite(deviation)))
    throw Error(at, op, fmt::format("requires a finite deviation of 0 or more, got {}", deviation));
  if (!(low < high)) throw Error(at, op, fmt::format("requires low < high, got {} and {}", low, high));
  // Of what lies outside below and above, and inside, each without cancellation.
  const double below = normal_below(low);
  const double above = normal_below(-high);
  const double inside = low > 0 ? normal_below(-low) - above : normal_below(high) - below;
  constexpr double least = std::numeric_limits<double>::min();
  if (!(inside >= least))
    throw Error(at, op, fmt::format("requires bounds with a probability between them, got {} and {}", low, high));
  check(options, op, at);
  detail::Attempt attempt(graph.data().get());
  const detail::LocationScope scope(detail::scoped(at));
  const Value v = drawn_open_unit(graph, shape, float64, options, at);
  const Value from_below = below + inside * v;
  const Value from_above = above + inside * (1.0 - v);
  const Value is_below = from_below < from_above;
  const Value tail = clip(where(is_below, from_below, from_above), least, 0.5);
  const Value z = quantile_of_tail(tail);
  const Value within = clip(where(is_below, z, -z), low, high);
  const Value made = cast(mean + deviation * within, options.dtype.value_or(graph.dtype()));
  attempt.succeed();
  return made;
}

Value random_permutation(Graph graph, Dimension n, const RandomOptions& options, Location at) {
  constexpr auto* op = "random_permutation";
  if (n.is_inferred() || (n.is_number() && n.extent() < 0))
    throw Error(at, op, fmt::format("requires a number of 0 or more, got {}", n.to_string()));
  check_without_dtype(options, op, at);
  return drawn(graph, random_permutation_op, options, {{"n", Shape{n}}}, at);
}

Value rrelu(Value x, const RReluOptions& options, Location at) {
  check_floating(x, "rrelu", at);
  if (!(options.low <= options.high))
    throw Error(at, "rrelu", fmt::format("requires low <= high, got {} and {}", options.low, options.high));
  const detail::LocationScope scope(detail::scoped(at));
  return detail::attempt(x, [&] {
    Graph graph = x.graph();
    const Value slope = drawn_uniform(graph, x.shape(), options.low, options.high, {.dtype = x.dtype()}, at);
    const Value mean = graph.constant((options.low + options.high) / 2, x.dtype());
    return prelu(x, by_noise(slope, mean), at);
  });
}

}  // namespace chainrule
