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
#include <vector>

#include <chainrule/framework/products/vectors_x86.hpp>
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

int terms_transposed(bool single) { return single ? 4 : 2; }

int most_rows_transposing(kernels::X86 set, bool single, bool transpose_a, int vectors) {
  // Beside the sums there are twice as many vectors as terms at a time, A's element, and with AVX2 the mask.
  const int registers = set == kernels::X86::avx512 ? 32 : 15;
  const int free = (registers - 2 * terms_transposed(single) - 1) / vectors;
  // Pointers: to every eighth column of B, and what is left for A's rows.
  const int reached = transpose_a || vectors == 1 ? 18 : 9;
  return std::min(free, reached);
}

// As many as there are addresses without a further register, and room in 16 bytes.
int most_gathered(bool single) { return single ? 3 : 2; }

#ifdef CHAINRULE_GENERATE_X86

namespace {

using Xbyak::Reg64;
using Xbyak::RegExp;

// Below so many multiplications a term, a loop of one term would be bound by its own instructions.
constexpr int short_term = 12;
constexpr std::uint32_t unrolled = 4;
constexpr std::uint32_t line = 64;

class Generator final : private VectorsX86 {
 public:
  explicit Generator(const TileShape& shape)
      : VectorsX86(shape.set, shape.single),
        shape_(shape),
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

  [[nodiscard]] Xmm sum(int row, int j) const { return vec(row * shape_.vectors + j); }
  [[nodiscard]] Xmm of_b(int j) const { return vec(shape_.rows * shape_.vectors + j); }
  // A's element of a row; and later alpha, with a free one in of_b(0).
  [[nodiscard]] Xmm broadcast() const { return of_b(shape_.vectors); }
  [[nodiscard]] bool is_masked(int j) const { return shape_.masked && j == shape_.vectors - 1; }
  [[nodiscard]] bool broadcasts_from_memory() const { return avx512_ && shape_.vectors == 1; }

  // As the assembler takes numbers, negative ones too.
  static std::uint32_t immediate(int number) { return static_cast<std::uint32_t>(number); }

  Xbyak::Address argument(std::size_t offset) { return qword[call_ + offset]; }

  // ---- the code

  void generate() {
    const std::vector<Reg64> saved = saved_registers();
    for (const Reg64& r : saved) push(r);
    if (shape_.masked) {
      mov(rax, argument(avx512_ ? offsetof(TileCall, bits) : offsetof(TileCall, mask)));
      avx512_ ? kmovw(k1, eax) : vmovups(mask(), ptr[rax]);
    }
    Xbyak::Label next;
    L(next);
    shape_.transposes ? terms_transposing() : terms();
    Xbyak::Label done;
    finish(done);
    L(done);
    advance();
    sub(argument(offsetof(TileCall, tiles)), 1);
    jnz(next, T_NEAR);
    for (auto r = saved.rbegin(); r != saved.rend(); ++r) pop(*r);
    vzeroupper();
    ret();
  }

  // Those that the caller wants back and this code uses.
  [[nodiscard]] std::vector<Reg64> saved_registers() const {
    if (shape_.transposes) return {rbx, rbp, r12, r13, r14, r15};
    std::vector<Reg64> saved;
    if (bases_ > 1) saved.push_back(rbx);
    if (bases_ > 2) saved.push_back(rbp);
    if (may_fetch())
      for (const Reg64& r : {r12, r13, r14}) saved.push_back(r);
    return saved;
  }

  void terms() {
    mov(a_[0], argument(offsetof(TileCall, a)));
    mov(stride_, argument(offsetof(TileCall, a_stride)));
    mov(b_, argument(offsetof(TileCall, b)));
    mov(b_stride_, argument(offsetof(TileCall, b_stride)));
    mov(count_, argument(offsetof(TileCall, terms)));
    if (!shape_.transpose_a) {
      multiples_of(stride_, stride3_, stride5_, stride7_);
      for (int base = 1; base < bases_; ++base) {
        lea(a_[base], ptr[a_[base - 1] + stride_ * 8]);
        add(a_[base], stride_);
      }
    }
    clear_sums();
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
    mov(fetch_count_, immediate(shape_.rows));
    sub(count_, immediate(shape_.rows));
    Xbyak::Label loop;
    align(32);
    L(loop);
    for (std::uint32_t at = 0; at < of_vector(shape_.vectors); at += line) prefetchw(ptr[fetch_ + at]);
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
    for (std::uint32_t at = 0; at < of_vector(shape_.vectors); at += line) prefetcht1(ptr[fetch_ + at]);
    add(fetch_, fetch_stride_);
    term();
    sub(fetch_count_, 1);
    jnz(others, T_NEAR);
    L(none);
  }

  void term() {
    if (shape_.gathered > 0) {
      gather();
    } else {
      for (int j = 0; j < shape_.vectors; ++j) load(of_b(j), ptr[b_ + of_vector(j)], is_masked(j));
      add(b_, b_stride_);
    }
    for (int i = 0; i < shape_.rows; ++i) {
      if (broadcasts_from_memory()) {
        multiply_add(sum(i, 0), of_b(0), ptr_b[element_of_a(i)]);
        continue;
      }
      broadcast_to(broadcast(), ptr[element_of_a(i)]);
      for (int j = 0; j < shape_.vectors; ++j) multiply_add(sum(i, j), broadcast(), of_b(j));
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

  // ---- tiles that transpose

  // Pointers to columns of B, eight of them each; where there are two only, the others are free for A's rows.
  [[nodiscard]] Reg64 columns_of_b(int i) const {
    const Reg64 all[] = {rdx, r12, r13, r14};
    return all[i];
  }
  [[nodiscard]] int columns() const { return static_cast<int>(vector_bytes_ / element_); }
  [[nodiscard]] int pointers_of_vector() const { return (columns() + 7) / 8; }
  const Reg64 b_stride3_ = r15;
  const Reg64 b_stride5_ = rbx;
  const Reg64 b_stride7_ = rbp;

  [[nodiscard]] RegExp column_of_b(int vector, int column) const {
    return multiple(columns_of_b(vector * pointers_of_vector() + column / 8), column % 8, b_stride_, b_stride3_,
                    b_stride5_, b_stride7_);
  }
  [[nodiscard]] RegExp element_of_a(int row, int term) const {
    if (!shape_.transpose_a)
      return multiple(row < rows_of_base ? a_[0] : r13, row % rows_of_base, stride_, stride3_, stride5_, stride7_) +
             of_elements(term);
    const RegExp row_of_a = multiple(a_[0], term, stride_, stride3_, stride5_, stride7_);
    return row_of_a + of_elements(row);
  }
  // A block of terms, as many as a register of 128 bits holds, of the columns of a vector.
  [[nodiscard]] Xmm transposed(int i) const { return vec(shape_.rows * shape_.vectors + i); }

  void terms_transposing() {
    const int group = terms_transposed(shape_.single);
    mov(columns_of_b(0), argument(offsetof(TileCall, b)));
    mov(b_stride_, argument(offsetof(TileCall, b_stride)));
    multiples_of(b_stride_, b_stride3_, b_stride5_, b_stride7_);
    const int pointers = shape_.vectors * pointers_of_vector();
    for (int i = 1; i < pointers; ++i)
      lea(columns_of_b(i), ptr[columns_of_b(i - 1) + b_stride_ * (columns() < 8 ? 4 : 8)]);
    if (shape_.masked)
      for (int i = pointers - pointers_of_vector(); i < pointers; ++i)
        sub(columns_of_b(i), argument(offsetof(TileCall, b_shift)));
    mov(a_[0], argument(offsetof(TileCall, a)));
    mov(stride_, argument(offsetof(TileCall, a_stride)));
    multiples_of(stride_, stride3_, stride5_, stride7_);
    const bool second = !shape_.transpose_a && shape_.rows > rows_of_base;
    if (second) {
      lea(r13, ptr[a_[0] + stride_ * 8]);
      add(r13, stride_);
    }
    mov(count_, argument(offsetof(TileCall, terms)));
    clear_sums();
    // By so many terms forward (or back).
    const auto step = [&](int terms) {
      for (int i = 0; i < pointers; ++i) add(columns_of_b(i), immediate(terms * static_cast<int>(element_)));
      if (!shape_.transpose_a) {
        add(a_[0], immediate(terms * static_cast<int>(element_)));
        if (second) add(r13, immediate(terms * static_cast<int>(element_)));
      } else if (terms == group) {
        lea(a_[0], ptr[a_[0] + stride_ * group]);
      } else {
        for (; terms < 0; ++terms) sub(a_[0], stride_);
      }
    };
    Xbyak::Label loop;
    Xbyak::Label rest;
    Xbyak::Label end;
    sub(count_, immediate(group));
    jl(rest, T_NEAR);
    align(32);
    L(loop);
    add_terms(0, group);
    step(group);
    sub(count_, immediate(group));
    jge(loop, T_NEAR);
    L(rest);
    // Of the last terms as many as are left.
    for (int left = 1; left < group; ++left) {
      Xbyak::Label other;
      cmp(count_, immediate(left - group));
      jne(other, T_NEAR);
      step(left - group);
      add_terms(group - left, group);
      jmp(end, T_NEAR);
      L(other);
    }
    L(end);
  }

  // Those from `first` on of a group of terms.
  void add_terms(int first, int group) {
    for (int v = 0; v < shape_.vectors; ++v) {
      transpose(v, group);
      for (int term = first; term < group; ++term)
        for (int row = 0; row < shape_.rows; ++row) {
          const Xmm b = transposed(term);
          if (avx512_) {
            multiply_add(sum(row, v), b, ptr_b[element_of_a(row, term)]);
          } else {
            const Xmm of_a = transposed(2 * group);
            broadcast_to(of_a, ptr[element_of_a(row, term)]);
            multiply_add(sum(row, v), b, of_a);
          }
        }
    }
  }

  // Each 128 bits of register i hold a group of terms of column i, of column i + group, and so on. Then columns and
  // terms change places within 128 bits.
  void transpose(int v, int group) {
    const int parts = static_cast<int>(vector_bytes_) / 16;
    for (int i = 0; i < group; ++i) {
      const Xmm to = transposed(group + i);
      vmovups(Xmm(to.getIdx()), ptr[column_of_b(v, i)]);
      for (int part = 1; part < parts; ++part) {
        const Xbyak::Address from = ptr[column_of_b(v, part * group + i)];
        if (avx512_) {
          vinsertf32x4(Xbyak::Zmm(to.getIdx()), Xbyak::Zmm(to.getIdx()), from, static_cast<std::uint8_t>(part));
        } else {
          vinsertf128(Xbyak::Ymm(to.getIdx()), Xbyak::Ymm(to.getIdx()), from, static_cast<std::uint8_t>(part));
        }
      }
    }
    const auto in = [&](int i) { return transposed(group + i); };
    const auto out = [&](int i) { return transposed(i); };
    if (!shape_.single) {
      vunpcklpd(out(0), in(0), in(1));
      vunpckhpd(out(1), in(0), in(1));
      return;
    }
    vunpcklps(out(0), in(0), in(1));
    vunpckhps(out(1), in(0), in(1));
    vunpcklps(out(2), in(2), in(3));
    vunpckhps(out(3), in(2), in(3));
    vunpckhpd(in(0), out(0), out(2));  // term 1
    vunpcklpd(in(1), out(1), out(3));  // term 2
    vunpckhpd(out(3), out(1), out(3));
    vunpcklpd(out(0), out(0), out(2));
    vmovaps(out(1), in(0));
    vmovaps(out(2), in(1));
  }

  void multiples_of(const Reg64& stride, const Reg64& stride3, const Reg64& stride5, const Reg64& stride7) {
    lea(stride3, ptr[stride + stride * 2]);
    lea(stride5, ptr[stride + stride * 4]);
    lea(stride7, ptr[stride3 + stride * 4]);
  }

  void clear_sums() {
    for (int i = 0; i < shape_.rows; ++i)
      for (int j = 0; j < shape_.vectors; ++j) clear(sum(i, j));
  }

  // ---- addresses

  // `times` strides from a pointer, for up to eight.
  static RegExp multiple(const Reg64& from, int times, const Reg64& stride, const Reg64& stride3, const Reg64& stride5,
                         const Reg64& stride7) {
    switch (times) {
      case 0: return from + 0;
      case 1: return from + stride;
      case 2: return from + stride * 2;
      case 3: return from + stride3;
      case 4: return from + stride * 4;
      case 5: return from + stride5;
      case 6: return from + stride3 * 2;
      case 7: return from + stride7;
      default: return from + stride * 8;
    }
  }

  [[nodiscard]] RegExp element_of_a(int row) const {
    if (shape_.transpose_a) return a_[0] + of_elements(row);
    return multiple(a_[row / rows_of_base], row % rows_of_base, stride_, stride3_, stride5_, stride7_);
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
    const Reg64 last = stride3_;  // no longer in use
    if (shape_.transposes && shape_.masked) {
      mov(last, to_);
      sub(last, argument(offsetof(TileCall, c_shift)));
    }
    for (int i = 0; i < shape_.rows; ++i) {
      for (int j = 0; j < shape_.vectors; ++j)
        f(i, j, ptr[(shape_.transposes && is_masked(j) ? last : to_) + of_vector(j)]);
      if (shape_.transposes && shape_.masked) add(last, to_stride_);
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

  TileShape shape_;
  int bases_;
};

}  // namespace

TileRun tile(const TileShape& shape) {
  using Key = std::tuple<kernels::X86, bool, bool, bool, int, int, int, bool>;
  static std::mutex mutex;
  // Bounded by the shapes that there are, and never freed: a program may outlive what is static here.
  static auto& made = *new std::map<Key, std::unique_ptr<const Generator>>;
  const std::lock_guard lock(mutex);
  auto& generator = made[Key{shape.set, shape.single, shape.transpose_a, shape.masked, shape.rows, shape.vectors,
                             shape.gathered, shape.transposes}];
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
