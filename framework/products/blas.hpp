// Products by OpenBLAS, where no code is generated for the processor. Not installed.
//
// Bits are its own: the same for every number of threads, but not those of product.hpp's rule.
#pragma once

#include <cstddef>

#include <chainrule/framework/products/product.hpp>

namespace chainrule::products {

// T is float or double. Extents are below 2^31.
template <class T>
class BlasScheme {
 public:
  explicit BlasScheme(const Product& product);

  // As in scheme.hpp.
  void run(const void* a, const void* b, void* c, void* workspace) const;
  void run_alone(const void* a, const void* b, void* c, void* workspace) const;
  [[nodiscard]] std::size_t workspace() const;
  [[nodiscard]] std::size_t scratch() const { return workspace(); }
  [[nodiscard]] bool may_be_cut() const;

 private:
  Product p_;
  bool transposes_first_ = false;
  bool beside_ = false;
};

}  // namespace chainrule::products
