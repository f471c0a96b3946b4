// Products so small that to look at their sizes would take longer than to multiply: machine code without a loop, made
// for the sizes and strides. Not installed.
//
// Each element is computed by the rule of product.hpp.
#pragma once

#include <cstddef>
#include <memory>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/kernels/machine_code.hpp>
#include <chainrule/framework/products/product.hpp>

namespace chainrule::products {

class TinyCode {
 public:
  virtual ~TinyCode() = default;
  using Run = void (*)(const void* a, const void* b, void* c);
  [[nodiscard]] Run run() const { return run_; }

 protected:
  Run run_ = nullptr;
};

class Tiny {
 public:
  // Whether a product is computed so: B as it lies, 160 multiplications of vectors at most; C becomes A B.
  static bool serves(const Product& product, DType dtype, kernels::X86 set);

  // For a product that is not empty. Equal ones share their code. Throws std::runtime_error where the system gives no
  // memory that may be executed.
  Tiny(const Product& product, DType dtype, kernels::X86 set);

  // As in scheme.hpp.
  void run(const void* a, const void* b, void* c, void* /*workspace*/) const { run_(a, b, c); }
  void run_alone(const void* a, const void* b, void* c, void* /*workspace*/) const { run_(a, b, c); }
  [[nodiscard]] static std::size_t workspace() { return 0; }
  [[nodiscard]] static std::size_t scratch() { return 0; }

 private:
  std::shared_ptr<const TinyCode> code_;
  TinyCode::Run run_;
};

}  // namespace chainrule::products
