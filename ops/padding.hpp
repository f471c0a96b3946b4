// What lies behind the ends of sequences of unequal lengths. Not installed.
#pragma once

#include <chainrule/framework/graph/graph.hpp>
#include <chainrule/ops/attention.hpp>
#include <chainrule/ops/compare.hpp>
#include <chainrule/ops/layout.hpp>

namespace chainrule::detail {

// x {..., places, features} with 0 at the places of padding behind the lengths {...}, so that nothing depends on what
// is there, be it NaN.
inline Value without_padding(Value x, Value lengths) {
  return where(expand_dims(length_mask(lengths, x.shape()[x.rank() - 2]), -1), x, 0.0);
}

}  // namespace chainrule::detail
