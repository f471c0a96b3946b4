// The kernels of matrix products. Not installed.
#pragma once

#include <optional>

#include <chainrule/framework/graph/op.hpp>
#include <chainrule/framework/products/product.hpp>

namespace chainrule::products {

// The forward rule of op matmul.
Forward matmul();
// What a node of it computes, where that is one product of matrices, which is not empty and for which code is
// generated.
std::optional<Product> generated_product(const KernelCall& call);

// c + alpha * a b, for matrices a, b (which attributes transpose_a and transpose_b transpose) and c: what
// passes::accumulate_products makes. It stands outside the registry. In a plan the output may lie where c does, and
// should: else c is copied.
const Op& accumulate_op();
inline constexpr std::size_t accumulated = 2;  // the input c

}  // namespace chainrule::products
