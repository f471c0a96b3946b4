// The instructions of machine code for products that depend on the set and the dtype. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>

#include <xbyak/xbyak.h>

#include <chainrule/framework/kernels/machine_code.hpp>

namespace chainrule::products {

class VectorsX86 : protected Xbyak::CodeGenerator {
 protected:
  using Xmm = Xbyak::Xmm;

  VectorsX86(kernels::X86 set, bool single)
      : Xbyak::CodeGenerator(4096, Xbyak::AutoGrow),
        avx512_(set == kernels::X86::avx512),
        single_(single),
        element_(single ? 4 : 8),
        vector_bytes_(avx512_ ? 64 : 32) {}

  [[nodiscard]] Xmm vec(int r) const { return {avx512_ ? Xbyak::Operand::ZMM : Xbyak::Operand::YMM, r}; }
  // To clear those 128 bits clears the register. (Registers from 16 need AVX-512's own instruction.)
  [[nodiscard]] static Xmm low(const Xmm& r) { return r.getIdx() < 16 ? Xmm(r.getIdx()) : r; }
  // AVX-512 has the mask of a last vector in k1, AVX2 here.
  [[nodiscard]] Xmm mask() const { return vec(15); }

  // Bytes.
  [[nodiscard]] std::size_t of_vector(int j) const { return static_cast<std::size_t>(j) * vector_bytes_; }
  [[nodiscard]] std::uint32_t of_elements(int n) const { return static_cast<std::uint32_t>(n) * element_; }

  void clear(const Xmm& r) { vxorps(low(r), low(r), low(r)); }

  void load(const Xmm& to, const Xbyak::Address& from, bool masked) {
    if (!masked) {
      vmovups(to, from);
    } else if (avx512_) {
      single_ ? vmovups(to | k1 | T_z, from) : vmovupd(to | k1 | T_z, from);
    } else {
      single_ ? vmaskmovps(to, mask(), from) : vmaskmovpd(to, mask(), from);
    }
  }

  void store(const Xbyak::Address& to, const Xmm& from, bool masked) {
    if (!masked) {
      vmovups(to, from);
    } else if (avx512_) {
      single_ ? vmovups(to | k1, from) : vmovupd(to | k1, from);
    } else {
      single_ ? vmaskmovps(to, mask(), from) : vmaskmovpd(to, mask(), from);
    }
  }

  void broadcast_to(const Xmm& to, const Xbyak::Address& from) {
    if (single_) {
      vbroadcastss(to, from);
    } else if (avx512_) {
      vbroadcastsd(Xbyak::Zmm(to.getIdx()), from);
    } else {
      vbroadcastsd(Xbyak::Ymm(to.getIdx()), from);
    }
  }

  // sum + a b
  void multiply_add(const Xmm& sum, const Xmm& a, const Xbyak::Operand& b) {
    single_ ? vfmadd231ps(sum, a, b) : vfmadd231pd(sum, a, b);
  }

  bool avx512_;
  bool single_;
  std::uint32_t element_;
  std::uint32_t vector_bytes_;
};

}  // namespace chainrule::products
