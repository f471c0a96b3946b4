// Each term takes a vector of B's row into registers, broadcasts A's element of each row, and multiplies and adds. One
// vector wide, the broadcast is the multiplication's operand in memory where the processor has that (AVX-512): there
// are as many loads as multiplications, whichever way.
#include <chainrule/framework/products/tile.hpp>

#include <algorithm>
#include <cstddef>

#include <chainrule/framework/core/error.hpp>

#ifdef CHAINRULE_GENERATE_X86
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include <xbyak/xbyak.h>
#endif

namespace chainrule::products {

namespace {

constexpr int most_rows_with_one_vector = 24;

}  // namespace

int lanes(kernels::X86 set, bool single) { return (set == kernels::X86::avx512 ? 64 : 32) / (single ? 4 : 8); }

int most_rows(kernels::X86 set, int vectors, bool masked) {
  if (vectors < 1 || vectors > most_vectors) return 0;
  // Beside the sums there are B's vectors, A's element, and with AVX2 the mask.
  const bool avx512 = set == kernels::X86::avx512;
  const int registers = avx512 ? 32 : 16 - (masked ? 1 : 0);
  return std::min(most_rows_with_one_vector, (registers - vectors - 1) / vectors);
}

// As many as there are addresses without a further register, and room in 16 bytes.
int most_gathered(bool single) { return single ? 3 : 2; }

#ifdef CHAINRULE_GENERATE_X86

namespace {

using Xbyak::Reg64;
using Xbyak::RegExp;
using Xbyak::Xmm;

// Below so many multiplications a term, a loop of one term would be bound by its own instructions.
constexpr int short_term = 12;
constexpr std::uint32_t unrolled = 4;
constexpr std::uint32_t line = 64;

class Generator final : private Xbyak::CodeGenerator {
 public:
  explicit Generator(const TileShape& shape)
      : Xbyak::CodeGenerator(4096, Xbyak::AutoGrow),
        shape_(shape),
        avx512_(shape.set == kernels::X86::avx512),
        element_(shape.single ? 4 : 8),
        vector_bytes_(avx512_ ? 64 : 32),
        bases_(shape.transpose_a ? 1 : (shape.rows + rows_of_base - 1) / rows_of_base) {
    generate();
    ready(Xbyak::CodeArray::PROTECT_RE);
  }

  [[nodiscard]] TileRun run() const { return getCode<TileRun>(); }

 private:
  // ---- registers

  // Rows that are reached from one pointer and multiples of the stride.
  static constexpr int rows_of_base = 9;

  const Reg64 call_ = rdi;
  const Reg64 count_ = rsi;
  const Reg64 b_ = rdx;
  const Reg64 b_stride_ = rcx;
  const Reg64 stride_ = r9;  // of A
  const Reg64 stride3_ = r10;
  const Reg64 stride5_ = r11;
  const Reg64 stride7_ = rax;
  const Reg64 a_[3] = {r8, rbx, rbp};
  // While lines are fetched.
  const Reg64 fetch_ = r12;
  const Reg64 fetch_stride_ = r13;
  const Reg64 fetch_count_ = r14;
  // Once all is summed.
  const Reg64 flags_ = rax;
  const Reg64 to_ = r8;
  const Reg64 to_stride_ = r9;

  [[nodiscard]] Xmm vec(int r) const { return {avx512_ ? Xbyak::Operand::ZMM : Xbyak::Operand::YMM, r}; }
  [[nodiscard]] Xmm sum(int row, int j) const { return vec(row * shape_.vectors + j); }
  [[nodiscard]] Xmm of_b(int j) const { return vec(shape_.rows * shape_.vectors + j); }
  // A's element of a row; and later alpha, with a free one in of_b(0).
  [[nodiscard]] Xmm broadcast() const { return of_b(shape_.vectors); }
  [[nodiscard]] Xmm mask() const { return vec(15); }
  [[nodiscard]] bool is_masked(int j) const { return shape_.masked && j == shape_.vectors - 1; }
  [[nodiscard]] bool broadcasts_from_memory() const { return avx512_ && shape_.vectors == 1; }

  // Bytes.
  [[nodiscard]] std::size_t of_vector(int j) const { return static_cast<std::size_t>(j) * vector_bytes_; }
  [[nodiscard]] std::uint32_t of_elements(int n) const { return static_cast<std::uint32_t>(n) * element_; }

  Xbyak::Address argument(std::size_t offset) { return qword[call_ + offset]; }

  // ---- the code

  void generate() {
    if (bases_ > 1) push(rbx);
    if (bases_ > 2) push(rbp);
    if (may_fetch()) {
      push(r12);
      push(r13);
      push(r14);
    }
    if (shape_.masked) {
      mov(rax, argument(avx512_ ? offsetof(TileCall, bits) : offsetof(TileCall, mask)));
      avx512_ ? kmovw(k1, eax) : vmovups(mask(), ptr[rax]);
    }
    Xbyak::Label next;
    L(next);
    terms();
    Xbyak::Label done;
    finish(done);
    L(done);
    advance();
    sub(argument(offsetof(TileCall, tiles)), 1);
    jnz(next, T_NEAR);
    if (may_fetch()) {
      pop(r14);
      pop(r13);
      pop(r12);
    }
    if (bases_ > 2) pop(rbp);
    if (bases_ > 1) pop(rbx);
    vzeroupper();
    ret();
  }

  void terms() {
    mov(a_[0], argument(offsetof(TileCall, a)));
    mov(stride_, argument(offsetof(TileCall, a_stride)));
    mov(b_, argument(offsetof(TileCall, b)));
    mov(b_stride_, argument(offsetof(TileCall, b_stride)));
    mov(count_, argument(offsetof(TileCall, terms)));
    if (!shape_.transpose_a) {
      lea(stride3_, ptr[stride_ + stride_ * 2]);
      lea(stride5_, ptr[stride_ + stride_ * 4]);
      lea(stride7_, ptr[stride3_ + stride_ * 4]);
      for (int base = 1; base < bases_; ++base) {
        lea(a_[base], ptr[a_[base - 1] + stride_ * 8]);
        add(a_[base], stride_);
      }
    }
    for (int i = 0; i < shape_.rows; ++i)
      for (int j = 0; j < shape_.vectors; ++j) vxorps(low(sum(i, j)), low(sum(i, j)), low(sum(i, j)));
    if (may_fetch()) fetch_while_summing();
    const std::uint32_t several = shape_.rows * shape_.vectors < short_term ? unrolled : 1;
    Xbyak::Label loop;
    Xbyak::Label rest;
    Xbyak::Label rest_loop;
    Xbyak::Label end;
    if (several > 1) {
      sub(count_, several);
      jl(rest, T_NEAR);
      align(32);
      L(loop);
      for (std::uint32_t u = 0; u < several; ++u) term();
      sub(count_, several);
      jge(loop, T_NEAR);
      L(rest);
      add(count_, several);
      jz(end, T_NEAR);
    } else {
      align(32);
    }
    L(rest_loop);
    term();
    sub(count_, 1);
    jnz(rest_loop, T_NEAR);
    L(end);
  }

  [[nodiscard]] bool may_fetch() const { return shape_.rows * shape_.vectors >= short_term; }

  void fetch_while_summing() {
    Xbyak::Label none;
    test(argument(offsetof(TileCall, flags)), tile_fetches);
    jz(none, T_NEAR);
    mov(fetch_, argument(offsetof(TileCall, sums)));
    mov(fetch_stride_, argument(offsetof(TileCall, sums_stride)));
    mov(fetch_count_, shape_.rows);
    sub(count_, shape_.rows);
    Xbyak::Label loop;
    align(32);
    L(loop);
    for (std::uint32_t at = 0; at < shape_.vectors * vector_bytes_; at += line) prefetchw(ptr[fetch_ + at]);
    add(fetch_, fetch_stride_);
    term();
    sub(fetch_count_, 1);
    jnz(loop, T_NEAR);
    mov(fetch_count_, argument(offsetof(TileCall, fetch_rows)));
    test(fetch_count_, fetch_count_);
    jz(none, T_NEAR);
    mov(fetch_, argument(offsetof(TileCall, fetch)));
    mov(fetch_stride_, argument(offsetof(TileCall, fetch_stride)));
    sub(count_, fetch_count_);
    Xbyak::Label others;
    align(32);
    L(others);
    for (std::uint32_t at = 0; at < shape_.vectors * vector_bytes_; at += line) prefetcht1(ptr[fetch_ + at]);
    add(fetch_, fetch_stride_);
    term();
    sub(fetch_count_, 1);
    jnz(others, T_NEAR);
    L(none);
  }

  // To clear those 128 bits clears the register. (Registers from 16 need AVX-512's own instruction.)
  [[nodiscard]] Xmm low(const Xmm& r) const { return r.getIdx() < 16 ? Xmm(r.getIdx()) : r; }

  void term() {
    if (shape_.gathered > 0) {
      gather();
    } else {
      for (int j = 0; j < shape_.vectors; ++j) load(of_b(j), ptr[b_ + of_vector(j)], is_masked(j));
      add(b_, b_stride_);
    }
    for (int i = 0; i < shape_.rows; ++i) {
      if (broadcasts_from_memory()) {
        const Xbyak::Address from = ptr_b[element_of_a(i)];
        shape_.single ? vfmadd231ps(sum(i, 0), of_b(0), from) : vfmadd231pd(sum(i, 0), of_b(0), from);
        continue;
      }
      broadcast_to(broadcast(), ptr[element_of_a(i)]);
      for (int j = 0; j < shape_.vectors; ++j)
        shape_.single ? vfmadd231ps(sum(i, j), broadcast(), of_b(j)) : vfmadd231pd(sum(i, j), broadcast(), of_b(j));
    }
    for (int base = 0; base < bases_; ++base) {
      if (shape_.transpose_a) {
        add(a_[base], stride_);
      } else {
        add(a_[base], element_);
      }
    }
  }

  // The other elements of the vector become 0.
  void gather() {
    const Xmm to(of_b(0).getIdx());
    const RegExp from[] = {b_ + 0, b_ + b_stride_, b_ + b_stride_ * 2};
    shape_.single ? vmovss(to, ptr[from[0]]) : vmovsd(to, ptr[from[0]]);
    for (int j = 1; j < shape_.gathered; ++j)
      shape_.single ? vinsertps(to, to, ptr[from[j]], static_cast<std::uint8_t>(j << 4))
                    : vmovhpd(to, to, ptr[from[j]]);
    add(b_, element_);
  }

  [[nodiscard]] RegExp element_of_a(int row) const {
    if (shape_.transpose_a) return a_[0] + of_elements(row);
    const Reg64& base = a_[row / rows_of_base];
    switch (row % rows_of_base) {
      case 0: return base + 0;
      case 1: return base + stride_;
      case 2: return base + stride_ * 2;
      case 3: return base + stride3_;
      case 4: return base + stride_ * 4;
      case 5: return base + stride5_;
      case 6: return base + stride3_ * 2;
      case 7: return base + stride7_;
      default: return base + stride_ * 8;
    }
  }

  void finish(Xbyak::Label& done) {
    Xbyak::Label first;
    Xbyak::Label ends;
    Xbyak::Label adds;
    mov(flags_, argument(offsetof(TileCall, flags)));
    test(flags_.cvt32(), tile_continues);
    jz(first, T_NEAR);
    each_row(offsetof(TileCall, sums), [&](int i, int j, const Xbyak::Address& at) {
      if (is_masked(j)) {
        load(of_b(0), at, true);
        shape_.single ? vaddps(sum(i, j), of_b(0), sum(i, j)) : vaddpd(sum(i, j), of_b(0), sum(i, j));
      } else {
        shape_.single ? vaddps(sum(i, j), sum(i, j), at) : vaddpd(sum(i, j), sum(i, j), at);
      }
    });
    L(first);
    test(flags_.cvt32(), tile_ends);
    jnz(ends, T_NEAR);
    each_row(offsetof(TileCall, sums),
             [&](int i, int j, const Xbyak::Address& at) { store(at, sum(i, j), is_masked(j)); });
    jmp(done, T_NEAR);
    L(ends);
    mov(to_, argument(offsetof(TileCall, alpha)));
    broadcast_to(broadcast(), ptr[to_]);
    test(flags_.cvt32(), tile_adds);
    jnz(adds, T_NEAR);
    each_row(offsetof(TileCall, c), [&](int i, int j, const Xbyak::Address& at) {
      const Xmm s = sum(i, j);
      shape_.single ? vmulps(s, s, broadcast()) : vmulpd(s, s, broadcast());
      store(at, s, is_masked(j));
    });
    jmp(done, T_NEAR);
    L(adds);
    each_row(offsetof(TileCall, c), [&](int i, int j, const Xbyak::Address& at) {
      const Xmm s = sum(i, j);
      load(of_b(0), at, is_masked(j));
      shape_.single ? vfmadd213ps(s, broadcast(), of_b(0)) : vfmadd213pd(s, broadcast(), of_b(0));
      store(at, s, is_masked(j));
    });
  }

  // f for each vector of the tile, and where it is in a matrix of the call.
  template <class F>
  void each_row(std::size_t matrix, F f) {
    mov(to_, argument(matrix));
    mov(to_stride_, argument(matrix + sizeof(void*)));
    for (int i = 0; i < shape_.rows; ++i) {
      for (int j = 0; j < shape_.vectors; ++j) f(i, j, ptr[to_ + of_vector(j)]);
      add(to_, to_stride_);
    }
  }

  void advance() {
    mov(rax, argument(offsetof(TileCall, a_tile)));
    add(argument(offsetof(TileCall, a)), rax);
    for (const std::size_t matrix : {offsetof(TileCall, c), offsetof(TileCall, sums)}) {
      imul(rax, argument(matrix + sizeof(void*)), shape_.rows);
      add(argument(matrix), rax);
    }
  }

  // ---- instructions

  void load(const Xmm& to, const Xbyak::Address& from, bool masked) {
    if (!masked) {
      vmovups(to, from);
    } else if (avx512_) {
      shape_.single ? vmovups(to | k1 | T_z, from) : vmovupd(to | k1 | T_z, from);
    } else {
      shape_.single ? vmaskmovps(to, mask(), from) : vmaskmovpd(to, mask(), from);
    }
  }

  void store(const Xbyak::Address& to, const Xmm& from, bool masked) {
    if (!masked) {
      vmovups(to, from);
    } else if (avx512_) {
      shape_.single ? vmovups(to | k1, from) : vmovupd(to | k1, from);
    } else {
      shape_.single ? vmaskmovps(to, mask(), from) : vmaskmovpd(to, mask(), from);
    }
  }

  void broadcast_to(const Xmm& to, const Xbyak::Address& from) {
    if (shape_.single) {
      vbroadcastss(to, from);
    } else if (avx512_) {
      vbroadcastsd(Xbyak::Zmm(to.getIdx()), from);
    } else {
      vbroadcastsd(Xbyak::Ymm(to.getIdx()), from);
    }
  }

  TileShape shape_;
  bool avx512_;
  std::uint32_t element_;
  std::uint32_t vector_bytes_;
  int bases_;
};

}  // namespace

TileRun tile(const TileShape& shape) {
  using Key = std::tuple<kernels::X86, bool, bool, bool, int, int, int>;
  static std::mutex mutex;
  // Bounded by the shapes that there are, and never freed: a program may outlive what is static here.
  static auto& made = *new std::map<Key, std::unique_ptr<const Generator>>;
  const std::lock_guard lock(mutex);
  auto& generator =
      made[Key{shape.set, shape.single, shape.transpose_a, shape.masked, shape.rows, shape.vectors, shape.gathered}];
  try {
    if (!generator) generator = std::make_unique<const Generator>(shape);
  } catch (const Xbyak::Error& error) {
    throw std::runtime_error(std::string("chainrule: no machine code could be made: ") + error.what());
  }
  return generator->run();
}

#else

TileRun tile(const TileShape&) {
  invariant(false, "machine code cannot be generated here");
  return nullptr;
}

#endif

}  // namespace chainrule::products
