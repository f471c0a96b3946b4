// Attention and the transformer's block as layers.
#include <limits>

#include <fmt/core.h>

#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/ops/arithmetic.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/layout.hpp>
#include <chainrule/ops/nn_parts.hpp>
#include <chainrule/ops/nn_sequences.hpp>
#include <chainrule/ops/padding.hpp>

CHAINRULE_OP_FAMILY(nn_attention)

namespace chainrule::nn {

namespace {

constexpr std::string_view layer = "multi_head_attention";
constexpr std::string_view block = "transformer_block";
constexpr double inf = std::numeric_limits<double>::infinity();

Dimension places_of(Value x) { return x.shape()[x.rank() - 2]; }

void require_places(Value x, std::string_view kind, std::string_view what, Location at) {
  require_value(x, kind, at);
  if (x.rank() < 2) refuse(kind, at, fmt::format("{} {{..., places, features}}", what), to_string(x.shape()));
}

// lengths of x's shape without its places and features.
void require_lengths(Value lengths, Value x, std::string_view kind, Location at) {
  require_value(lengths, kind, at);
  const Shape examples(std::vector<Dimension>(x.shape().begin(), x.shape().end() - 2));
  if (lengths.dtype() != int64 || !(lengths.shape() == examples))
    refuse(kind, at, fmt::format("lengths {} of int64", to_string(examples)),
           fmt::format("{} of {}", to_string(lengths.shape()), name(lengths.dtype())));
}

// The sizes of one call.
struct Heads {
  std::int64_t features = 0;
  std::int64_t heads = 0;
  std::int64_t key_heads = 0;
  std::int64_t width = 0;

  Heads(Value x, std::size_t of_queries, const MultiHeadOptions& options, Location at)
      : features(number_of("features", x, x.rank() - 1, layer, at)),
        heads(Dimension(of_queries).extent()),
        key_heads(Dimension(options.key_heads.value_or(of_queries)).extent()) {
    if (heads == 0 || key_heads == 0 || heads % key_heads != 0)
      refuse(layer, at, "a number of heads of 1 or more that is a multiple of the key_heads",
             fmt::format("{} and {}", heads, key_heads));
    if (!options.width && features % heads != 0)
      refuse(layer, at, "heads that divide the features, or a width", fmt::format("{} of {}", heads, features));
    width = options.width ? Dimension(*options.width).extent() : features / heads;
    if (width == 0) refuse(layer, at, "a width of 1 or more", "0");
  }
};

// {..., places, heads width} -> {..., heads, places, width}
Value apart(Value x, std::int64_t heads, std::int64_t width) {
  Shape shape = x.shape();
  shape.back() = heads;
  shape.push_back(width);
  return swapaxes(reshape(x, shape), -2, -3);
}

// And back.
Value together(Value x) {
  const Value rows = swapaxes(x, -2, -3);
  Shape shape(std::vector<Dimension>(rows.shape().begin(), rows.shape().end() - 1));
  shape.back() = shape.back() * rows.shape().back();
  return reshape(rows, shape);
}

// What options.mask and the lengths allow together.
std::optional<Value> allowed(const MultiHeadOptions& options, Dimension keys) {
  if (!options.lengths) return options.mask;
  const Value within = expand_dims(expand_dims(length_mask(*options.lengths, keys), -2), -2);
  if (!options.mask) return within;
  if (options.mask->dtype() == boolean) return logical_and(*options.mask, within);
  return where(within, *options.mask, -inf);
}

// Of x and a memory that is finite in its padding.
MultiHeadAttention attend(Value x, Value memory, const Heads& sizes, const MultiHeadOptions& options, Location at) {
  const auto projected = [&](Value from, std::int64_t heads, const char* name) {
    return dense(from, static_cast<std::size_t>(heads * sizes.width),
                 {.name = name, .initializer = options.initializer, .bias = options.bias}, at);
  };
  MultiHeadAttention out;
  out.query = projected(x, sizes.heads, "query");
  out.key = projected(memory, sizes.key_heads, "key");
  out.value = projected(memory, sizes.key_heads, "value");
  Value query = apart(out.query, sizes.heads, sizes.width);
  Value key = apart(out.key, sizes.key_heads, sizes.width);
  const Value value = apart(out.value, sizes.key_heads, sizes.width);
  if (options.rotary) {
    query = rotary(query, *options.rotary, at);
    key = rotary(key, *options.rotary, at);
  }
  const Value attended = scaled_dot_product_attention(
      query, key, value, {.mask = allowed(options, places_of(memory)), .causal = options.causal, .keep = options.keep},
      at);
  out.projection = dense(together(attended), static_cast<std::size_t>(sizes.features),
                         {.name = "projection", .initializer = options.initializer, .bias = options.bias}, at);
  out.output = out.projection.output;
  return out;
}

// `finite`: whether what is attended to is known to be finite in its padding.
MultiHeadAttention multi_head(Value x, std::size_t heads, const MultiHeadOptions& options, bool finite, Location at) {
  at = detail::scoped(at);
  require_places(x, layer, "x", at);
  const Heads sizes(x, heads, options, at);
  if (options.memory) require_places(*options.memory, layer, "a memory", at);
  Value memory = options.memory.value_or(x);
  if (options.lengths) require_lengths(*options.lengths, memory, layer, at);
  const detail::LocationScope location(at);
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope scope = network_scope(graph, options.name, layer, at);
  if (options.lengths && !finite) memory = detail::without_padding(memory, *options.lengths);
  const MultiHeadAttention out = attend(options.memory ? x : memory, memory, sizes, options, at);
  attempt.succeed();
  return out;
}

}  // namespace

MultiHeadAttention multi_head_attention(Value x, std::size_t heads, const MultiHeadOptions& options, Location at) {
  return multi_head(x, heads, options, false, at);
}

TransformerBlock transformer_block(Value x, std::size_t heads, const TransformerOptions& options, Location at) {
  at = detail::scoped(at);
  require_places(x, block, "x", at);
  const std::int64_t features = number_of("features", x, x.rank() - 1, block, at);
  if (options.attention.memory)
    refuse(block, at, "an attention of x to itself, whose memory is cross_attention's", "one with a memory");
  if (options.cross_attention && !options.cross_attention->memory)
    refuse(block, at, "a memory for cross_attention", "none");
  if (options.attention.lengths) require_lengths(*options.attention.lengths, x, block, at);
  const detail::LocationScope location(at);
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope scope = network_scope(graph, options.name, block, at);
  TransformerBlock out;
  const auto normalized = [&](Value h, const char* name) {
    const LayerNormOptions norm{.axis = -1, .epsilon = options.epsilon};
    out.norms.push_back(options.norm == BlockNorm::layer_norm ? layer_norm(h, norm, {.name = name}, at)
                                                              : rms_norm(h, norm, {.name = name}, at));
    return out.norms.back().output;
  };
  Value h = options.attention.lengths ? detail::without_padding(x, *options.attention.lengths) : x;
  const auto add = [&](const char* norm, const auto& part) {
    Value y = part(options.norm_after ? h : normalized(h, norm));
    if (options.keep != 1) y = dropout(y, {.keep = options.keep}, at);
    h = options.norm_after ? normalized(h + y, norm) : h + y;
  };
  const auto attention = [&](Value from, MultiHeadOptions part, const char* name) {
    if (part.name.empty()) part.name = name;
    if (!part.initializer) part.initializer = options.initializer;
    return multi_head(from, heads, part, !part.memory, at);
  };
  add("attention_norm", [&](Value from) {
    out.attention = attention(from, options.attention, "attention");
    return out.attention.output;
  });
  if (options.cross_attention)
    add("cross_attention_norm", [&](Value from) {
      out.cross_attention = attention(from, *options.cross_attention, "cross_attention");
      return out.cross_attention->output;
    });
  add("mlp_norm", [&](Value from) {
    const auto units = static_cast<std::size_t>(features);
    out.mlp = mlp(from, {options.hidden.value_or(4 * units), units},
                  {.activation = options.activation, .name = "mlp", .initializer = options.initializer}, at);
    return out.mlp.output;
  });
  out.output = h;
  attempt.succeed();
  return out;
}

Embedding learned_positions(Value x, std::size_t most_places, const PositionOptions& options, Location at) {
  constexpr std::string_view kind = "learned_positions";
  at = detail::scoped(at);
  require_places(x, kind, "x", at);
  const std::int64_t features = number_of("features", x, x.rank() - 1, kind, at);
  const std::int64_t most = Dimension(most_places).extent();
  const Dimension places = places_of(x);
  if (places.is_number() && places.extent() > most)
    refuse(kind, at, fmt::format("at most {} places", most), to_string(x.shape()));
  const detail::LocationScope location(at);
  Graph graph = x.graph();
  detail::Attempt attempt(x.data());
  const NameScope scope = layer_scope(graph, options.name, kind, "table", at);
  const init::Initializer initializer = options.initializer ? options.initializer : init::normal(0.02);
  Embedding out;
  out.table = graph.parameter(
      "table", initializer({most, features}, static_cast<double>(most), static_cast<double>(features)), at);
  const Value rows =
      places.is_number() ? slice(out.table, 0, {0, places.extent()}) : take(out.table, iota(graph, places), 0, at);
  out.output = x + rows;
  attempt.succeed();
  return out;
}

}  // namespace chainrule::nn
