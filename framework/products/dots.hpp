// Products of which each element is a sum along rows of both operands, and which are small or have few rows or columns:
// a matrix times a vector, a vector times a transposed matrix. Not installed.
//
// With as few elements as small ones have, one chain of multiply-adds each would wait for itself; and where one operand
// has few rows, transposing the other takes longer than its product. So terms are taken in several chains, a rule of
// its own (product.hpp).
#pragma once

#include <cstddef>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/products/product.hpp>

namespace chainrule::products {

class Dots {
 public:
  // Whether a product is computed so: of 16 terms or more, which lie along rows of A and of B transposed (a matrix of
  // one row or column lies both ways), and 64 elements at most, or 4 rows or columns at most. (Where code is generated
  // for others, so with AVX2 or AVX-512.)
  static bool serves(const Product& product);

  // Such a product, or several of them as one whose rows are theirs: bits are the same.
  Dots(const Product& product, DType dtype);

  // As in scheme.hpp.
  void run(const void* a, const void* b, void* c, void* workspace) const;
  void run_alone(const void* a, const void* b, void* c, void* workspace) const;
  [[nodiscard]] static std::size_t workspace() { return 0; }
  [[nodiscard]] static std::size_t scratch() { return 0; }
  [[nodiscard]] bool may_be_cut() const { return may_be_cut_; }

 private:
  Product p_;
  bool single_;
  bool may_be_cut_;
};

}  // namespace chainrule::products
