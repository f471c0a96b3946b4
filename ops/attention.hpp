// Attention, and the ways in which it is told the order of a sequence.
#pragma once

#include <optional>

#include <chainrule/framework/graph/graph.hpp>

namespace chainrule {

struct AttentionOptions {
  // Which keys a query may attend to: a boolean value, or a floating one of the dtype of the others, which is added to
  // the scores (-inf: not to that one). It broadcasts to {..., heads, queries, keys}.
  std::optional<Value> mask = std::nullopt;
  bool causal = false;                         // query i attends to keys 0 to i only; queries and keys are then as many
  std::optional<double> scale = std::nullopt;  // of the scores; 1 / sqrt(width) where none is given
  double keep = 1;  // of the weights in training: the probability with which dropout() keeps each
};

// softmax(scale query key^T + mask) value: for each query the mean of the values, weighted by how well their keys fit
// it (Vaswani et al. 2017).
//
//   query {..., heads, queries, width}, key {..., groups, keys, width}, value {..., groups, keys, features}
//   -> {..., heads, queries, features}
//
// All of one floating dtype and rank, at least 2, with the same leading extents. `heads` is a multiple of `groups`, and
// each group of keys and values serves heads / groups heads that follow each other (Ainslie et al. 2023); only where
// both are equal may they be named sizes. Of rank 2 there is one head. A query that may attend to nothing gets zeros,
// and no gradient of it is NaN.
Value scaled_dot_product_attention(Value query, Value key, Value value, const AttentionOptions& options = {},
                                   Location at = Location::here());

// {..., places} of bool: which places are within the int64 lengths {...}, the others being padding. As a mask of keys
// it has two more axes, {..., 1, 1, places}.
Value length_mask(Value lengths, Dimension places, Location at = Location::here());

struct RotaryOptions {
  // int64 or floating, one for each place, {..., places} broadcast against x without its last axis; 0, 1, 2, ... where
  // none are given.
  std::optional<Value> positions = std::nullopt;
  double base = 10'000;
  bool interleaved = false;  // pairs (0, 1), (2, 3), ... as in the paper; else (0, width / 2), (1, width / 2 + 1), ...
};

// Rotary positions (Su et al. 2021): x {..., places, width} with each pair of features number i, of width / 2, at
// position p turned by the angle p base^(-2 i / width). So products of two such rows depend on the distance of their
// positions only. The width is an even number. Angles are computed in float64.
Value rotary(Value x, const RotaryOptions& options = {}, Location at = Location::here());

// {places, width}: sin(p / 10000^(2 i / width)) in column 2 i of row p, its cosine in column 2 i + 1 (Vaswani et al.
// 2017). The width is even; angles are computed in float64.
Value sinusoidal_positions(Graph graph, Dimension places, std::int64_t width, DType dtype,
                           Location at = Location::here());

// {heads, queries, keys}: -slope |query - key|, a mask that favours what is near, with the slope 2^(-8 h / heads) for
// heads h = 1, 2, ... (ALiBi: Press, Smith and Lewis 2021, who give that sequence for powers of 2; here for any
// number). Of 1 to 2^20 heads.
Value alibi_bias(Graph graph, std::int64_t heads, Dimension queries, Dimension keys, DType dtype,
                 Location at = Location::here());

}  // namespace chainrule
