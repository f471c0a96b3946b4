#include <chainrule/ops/matmul.hpp>

#include <fmt/core.h>

#include <chainrule/framework/graph/attempt.hpp>
#include <chainrule/framework/graph/op_family.hpp>
#include <chainrule/framework/products/matmul.hpp>
#include <chainrule/ops/layout.hpp>

CHAINRULE_OP_FAMILY(matmul)

namespace chainrule {

namespace {

Attributes flags(bool transpose_a, bool transpose_b) {
  // Of each there is one: a deep network has many.
  static const Attributes a{{"transpose_a", true}, {"transpose_b", false}};
  static const Attributes b{{"transpose_a", false}, {"transpose_b", true}};
  static const Attributes both{{"transpose_a", true}, {"transpose_b", true}};
  if (transpose_a) return transpose_b ? both : a;
  return transpose_b ? b : Attributes{};
}

Type matmul_shape(const OpCall& call) {
  call.require_inputs(2);
  for (std::size_t i = 0; i < 2; ++i) {
    call.require_floating(i);
    if (call.shape(i).rank() < 2) call.fail("matrices", to_string(call.shape(i)));
  }
  call.require_same_dtype();
  const Shape& a = call.shape(0);
  const Shape& b = call.shape(1);
  const bool ta = call.attribute<bool>("transpose_a");
  const bool tb = call.attribute<bool>("transpose_b");
  const Dimension m = a[a.rank() - (ta ? 1 : 2)];
  const Dimension k = a[a.rank() - (ta ? 2 : 1)];
  const Dimension kb = b[b.rank() - (tb ? 1 : 2)];
  const Dimension n = b[b.rank() - (tb ? 2 : 1)];
  if (!(k == kb))
    call.fail("inner extents that agree",
              fmt::format("{} and {}{} ({} against {})", to_string(a), to_string(b),
                          ta || tb ? fmt::format(" with {}", call.attributes().to_string()) : "", k.to_string(),
                          kb.to_string()));
  Shape batch_a;
  Shape batch_b;
  for (std::size_t i = 0; i + 2 < a.rank(); ++i) batch_a.push_back(a[i]);
  for (std::size_t i = 0; i + 2 < b.rank(); ++i) batch_b.push_back(b[i]);
  Type out{call.dtype(0), {}};
  if (!broadcast(batch_a, batch_b, out.shape))
    call.fail("batch extents that broadcast", fmt::format("{} and {}", to_string(a), to_string(b)));
  out.shape.push_back(m);
  out.shape.push_back(n);
  return out;
}

// How many of the last batch axes of a product have one matrix in b, for all of a's.
std::size_t shared_axes(const Shape& a, const Shape& b) {
  std::size_t axes = 0;
  for (; axes + 2 < a.rank(); ++axes)
    if (axes + 2 < b.rank() && !b[b.rank() - 3 - axes].is(1)) break;
  return axes;
}

// The rows of all matrices along the last batch axes as those of one matrix.
Value rows_of(Value x, std::size_t axes) {
  Shape shape;
  for (std::size_t i = 0; i + 2 + axes < x.rank(); ++i) shape.push_back(x.shape()[i]);
  Dimension rows = 1;
  for (std::size_t i = x.rank() - 2 - axes; i + 1 < x.rank(); ++i) rows = rows * x.shape()[i];
  shape.push_back(rows);
  shape.push_back(x.shape()[x.rank() - 1]);
  return reshape(x, shape);
}

// The gradient of the right operand of a product. Where that was multiplied by many matrices, it is one product of all
// their rows; a sum of products where a batch cannot be read so.
Value right_gradient(const Node& node, Value dy) {
  const Value a = node.input(0);
  const Shape& b = node.input(1).shape();
  const bool ta = node.attribute<bool>("transpose_a");
  const bool tb = node.attribute<bool>("transpose_b");
  const auto product = [&](Value left, Value right) {
    return tb ? apply(node.op(), {right, left}, flags(true, ta)) : apply(node.op(), {left, right}, flags(!ta, false));
  };
  const std::size_t axes = ta ? 0 : shared_axes(a.shape(), b);
  if (axes == 0) return product(a, dy);
  const Value made = product(rows_of(a, axes), rows_of(dy, axes));
  Shape shape;  // with the axes of extent 1 that b has there
  for (std::size_t i = 0; i + 2 < made.rank(); ++i) shape.push_back(made.shape()[i]);
  for (std::size_t i = 0; i < axes && i + 2 < b.rank(); ++i) shape.push_back(1);
  for (std::size_t i = 2; i > 0; --i) shape.push_back(b[b.rank() - i]);
  return shape == made.shape() ? made : reshape(made, shape);
}

CHAINRULE_EARLY const BuiltinOp matmul_op = register_op({
    .name = "matmul",
    .doc = "Matrix products over the last two axes, batches over the others.",
    // The operand's last two axes are swapped first.
    .attributes = {{"transpose_a", false}, {"transpose_b", false}},
    .shape = matmul_shape,
    .forward = products::matmul(),
    .gradient = [](const Node& node, Value dy) -> Values {
      const Value b = node.input(1);
      const bool ta = node.attribute<bool>("transpose_a");
      const bool tb = node.attribute<bool>("transpose_b");
      const Op& product = node.op();
      Values out(2);
      if (node.wants(0))
        out[0] = ta ? apply(product, {b, dy}, flags(tb, true)) : apply(product, {dy, b}, flags(false, !tb));
      if (node.wants(1)) out[1] = right_gradient(node, dy);
      return out;
    },
    .samples = {{.inputs = {uniform({3, 4}, -1, 1), uniform({4, 2}, -1, 1)}},
                {.inputs = {uniform({4, 3}, -1, 1), uniform({4, 2}, -1, 1)}, .attributes = flags(true, false)},
                {.inputs = {uniform({3, 4}, -1, 1), uniform({2, 4}, -1, 1)}, .attributes = flags(false, true)},
                {.inputs = {uniform({4, 3}, -1, 1), uniform({2, 4}, -1, 1)}, .attributes = flags(true, true)},
                {.inputs = {uniform({2, 3, 4}, -1, 1), uniform({2, 4, 2}, -1, 1)}},
                {.inputs = {uniform({2, 1, 3, 4}, -1, 1), uniform({3, 4, 2}, -1, 1)}},
                {.inputs = {uniform({5, 4, 3}, -1, 1), uniform({4, 2}, -1, 1)}, .attributes = flags(true, false)},
                {.inputs = {uniform({2, 3, 4}, -1, 1), uniform({4, 2}, -1, 1)}},
                {.inputs = {uniform({2, 3, 2, 4}, -1, 1), uniform({2, 1, 2, 4}, -1, 1)},
                 .attributes = flags(false, true)},
                {.inputs = {uniform({3, 1}, -1, 1), uniform({2, 4, 3}, -1, 1)}, .attributes = flags(true, true)},
                {.inputs = {uniform({1, 1}), uniform({1, 1})}},
                {.inputs = {uniform({2, 0}), uniform({0, 3})}},
                {.inputs = {uniform({40, 70}, -1, 1), uniform({70, 33}, -1, 1)}, .differentiate = false}},
});

}  // namespace

Value matmul(Value a, Value b, Location at) {
  if (!a.defined() || !b.defined() || (a.rank() != 1 && b.rank() != 1)) return apply(matmul_op, {a, b}, {}, at);
  return detail::attempt({a, b}, [&] {
    const Value left = a.rank() == 1 ? reshape(a, {1, a.shape()[0]}, at) : a;
    const Value right = b.rank() == 1 ? reshape(b, {b.shape()[0], 1}, at) : b;
    const Value product = apply(matmul_op, {left, right}, {}, at);
    Shape shape;
    for (std::size_t i = 0; i < product.rank(); ++i) {
      const bool dropped = (b.rank() == 1 && i + 1 == product.rank()) || (a.rank() == 1 && i + 2 == product.rank());
      if (!dropped) shape.push_back(product.shape()[i]);
    }
    return reshape(product, shape, at);
  });
}

}  // namespace chainrule
