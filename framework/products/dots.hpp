// Small products of which each element is a sum along rows of both operands. Not installed.
//
// With as few elements as these have, one chain of multiply-adds each would wait for itself: so terms are taken in
// several chains, a rule of its own (product.hpp).
#pragma once

#include <cstddef>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/products/product.hpp>

namespace chainrule::products {

class Dots {
 public:
  // Whether a product is computed so: A as it lies, B transposed, 64 elements at most, 16 terms or more. (Where code is
  // generated for others, so with AVX2 or AVX-512.)
  static bool serves(const Product& product);

  Dots(const Product& product, DType dtype);

  // As in scheme.hpp.
  void run(const void* a, const void* b, void* c, void* workspace) const;
  void run_alone(const void* a, const void* b, void* c, void* workspace) const { run(a, b, c, workspace); }
  [[nodiscard]] static std::size_t workspace() { return 0; }
  [[nodiscard]] static std::size_t scratch() { return 0; }
  [[nodiscard]] static bool may_be_cut() { return false; }

 private:
  Product p_;
  bool single_;
};

}  // namespace chainrule::products
