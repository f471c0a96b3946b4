// From vector code to machine code for x86-64 with AVX-512, or with AVX2 and FMA.
//
// The code is a loop over whole vectors and, behind it, the same once more with masks for the elements that are left.
// All of a vector's values are kept in registers. Where these do not suffice, the one whose next use is farthest away
// (Belady's rule, which is optimal for straight-line code) gives its register up: what was read from memory is read
// again, a result is spilled to the stack.
//
// AVX-512 has registers of their own for masks, loads and stores that are masked by them, and operands in memory that
// are broadcast. With AVX2 masks are vectors like all others, the last one masks the elements that are left, and
// constants are in memory as whole vectors.
#include <chainrule/framework/fused/generate.hpp>

#ifdef CHAINRULE_GENERATE_X86

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include <fmt/core.h>
#include <xbyak/xbyak.h>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::detail {

namespace {

using Xbyak::Opmask;
using Xbyak::Reg64;
using Xbyak::Xmm;
using Xbyak::Ymm;

enum class Set : std::uint8_t { none, avx2, avx512 };

constexpr int first_mask = 1;  // k0 cannot mask
constexpr int mask_registers = 6;
constexpr std::uint32_t nothing = ~0U;

// Where the values of one kind, vectors or masks, are.
struct RegisterFile {
  explicit RegisterFile(int registers) : held(static_cast<std::size_t>(registers), nothing) {}
  std::vector<std::uint32_t> held;  // the value in each register
};

class Generator final : public GeneratedCode, private Xbyak::CodeGenerator {
 public:
  Generator(const VectorCode& code, Set set)
      : Xbyak::CodeGenerator(4096, Xbyak::AutoGrow),
        avx512_(set == Set::avx512),
        vector_bytes_(avx512_ ? 64 : 32),
        code_(code),
        instructions_(code.instructions()),
        single_(code.dtype() == float32),
        needed_(code.needed()),
        uses_(instructions_.size()) {
    for (std::uint32_t i = 0; i < instructions_.size(); ++i) {
      if (!needed_[i]) continue;
      for (int k = 0; k < arity(instructions_[i].op); ++k) uses_[instructions_[i].operands[k]].push_back(i);
    }
    // A value is stored as soon as it is computed and what it overwrites has been read.
    stores_at_.resize(instructions_.size());
    for (const VectorStore& s : code.stores()) {
      std::uint32_t at = s.value;
      for (std::uint32_t i = 0; s.overwrites != VectorStore::none && i < instructions_.size(); ++i)
        if ((instructions_[i].op == VectorOp::stream || instructions_[i].op == VectorOp::scalar) &&
            instructions_[i].index == s.overwrites && !uses_[i].empty())
          at = std::max(at, uses_[i].back());
      stores_at_[at].push_back(&s);
    }
    for (std::uint32_t i = 0; i < instructions_.size(); ++i)
      for (const VectorStore* s : stores_at_[i]) uses_[s->value].push_back(i);
    for (auto& uses : uses_) std::sort(uses.begin(), uses.end());
    generate();
    ready(Xbyak::CodeArray::PROTECT_RE);
    run_ = getCode<GeneratedRun>();
    bytes_ = getSize();
  }

 private:
  // ---- frame

  void generate() {
    choose_pointers();
    for (const Reg64& r : saved_) push(r);
    push(rbp);
    mov(rbp, rsp);
    // Known only at the end: how many values were spilled.
    sub(rsp, 0x7FFFFFF0);
    const std::size_t at_frame_size = getSize() - 4;
    and_(rsp, static_cast<std::uint32_t>(-vector_bytes_));

    for (const auto& [slot, r] : pointers_) mov(r, qword[rdi + std::size_t{8} * slot]);
    Xbyak::Label loop;
    Xbyak::Label rest;
    Xbyak::Label end;
    const int shift = single_ ? 2 : 3;
    const int lanes = vector_bytes_ >> shift;
    mov(rax, rsi);
    and_(rax, static_cast<std::uint32_t>(-lanes));
    sub(rsi, rax);  // left for the masks
    shl(rax, shift);
    mov(limit_, rax);
    xor_(eax, eax);
    test(limit_, limit_);
    jz(rest, T_NEAR);
    align(32);
    L(loop);
    body(false);
    add(rax, static_cast<std::uint32_t>(vector_bytes_));
    cmp(rax, limit_);
    jb(loop, T_NEAR);
    L(rest);
    test(rsi, rsi);
    jz(end, T_NEAR);
    Xbyak::Label ones;
    if (avx512_) {
      mov(limit_.cvt32(), 0xFFFFFFFF);
      bzhi(limit_.cvt32(), limit_.cvt32(), esi);
      kmovw(k7, limit_.cvt32());
    } else {  // as many ones as elements are left, then zeros
      lea(limit_, ptr[rip + ones]);
      neg(rsi);
      vmovups(rest_mask_, ptr[limit_ + rsi * (single_ ? 4 : 8) + 32]);
    }
    body(true);
    L(end);
    mov(rsp, rbp);
    pop(rbp);
    for (std::size_t i = saved_.size(); i-- > 0;) pop(saved_[i]);
    vzeroupper();
    ret();
    align(static_cast<std::size_t>(vector_bytes_));
    for (auto& [bits, label] : constants_) {
      L(label);
      const int copies = avx512_ ? 1 : vector_bytes_ >> shift;
      for (int i = 0; i < copies; ++i) {
        if (single_) {
          dd(static_cast<std::uint32_t>(bits));
        } else {
          dq(bits);
        }
      }
    }
    if (!avx512_) {
      L(ones);
      for (int i = 0; i < 8; ++i) dq(i < 4 ? ~std::uint64_t{0} : 0);
    }
    rewrite(at_frame_size, spill_offset(spilled_), 4);
  }

  // Registers for the addresses that are used, as far as they go. Others are read from the table wherever they are
  // needed, to the last register.
  void choose_pointers() {
    std::vector<Slot> slots;
    const auto add_slot = [&slots](Slot s) {
      if (std::find(slots.begin(), slots.end(), s) == slots.end()) slots.push_back(s);
    };
    for (std::size_t i = 0; i < instructions_.size(); ++i)
      if (needed_[i] && is_read(instructions_[i].op) && instructions_[i].op != VectorOp::constant)
        add_slot(instructions_[i].index);
    for (const VectorStore& s : code_.stores()) add_slot(s.slot);
    const Reg64 free[] = {rcx, r8, r9, r10, r11, rbx, r12, r13, r14, r15};
    const std::size_t count = std::size(free);
    const bool all = slots.size() <= count;
    for (std::size_t i = 0; i < slots.size() && i < (all ? count : count - 1); ++i) {
      pointers_.emplace(slots[i], free[i]);
      if (i >= 5) saved_.push_back(free[i]);
    }
    if (!all) saved_.push_back(r15);
  }

  const Reg64& pointer(Slot slot) {
    if (const auto it = pointers_.find(slot); it != pointers_.end()) return it->second;
    mov(r15, qword[rdi + std::size_t{8} * slot]);
    return r15;
  }

  // ---- registers

  void body(bool masked) {
    masked_ = masked;
    vectors_ = RegisterFile(avx512_ ? 32 : masked ? rest_mask_.getIdx() : 16);
    masks_ = RegisterFile(mask_registers);
    place_.assign(instructions_.size(), -1);
    spill_.assign(instructions_.size(), -1);
    next_.assign(instructions_.size(), 0);
    free_spills_.clear();
    now_ = 0;
    for (; now_ < instructions_.size(); ++now_)
      if (needed_[now_] && !is_read(instructions_[now_].op)) emit(now_);
  }

  // The next use of a value, as the number of the instruction.
  [[nodiscard]] std::uint32_t next_use(std::uint32_t value) const {
    return next_[value] < uses_[value].size() ? uses_[value][next_[value]] : nothing;
  }
  // A use is over; the last one frees the register.
  void use(std::uint32_t value) {
    ++next_[value];
    if (next_use(value) != nothing) return;
    RegisterFile& file = file_of(value);
    if (place_[value] >= 0) file.held[static_cast<std::size_t>(place_[value])] = nothing;
    place_[value] = -1;
    if (spill_[value] >= 0) free_spills_.push_back(spill_[value]);
    spill_[value] = -1;
  }
  [[nodiscard]] bool last_use(std::uint32_t value) const { return next_[value] + 1 >= uses_[value].size(); }

  RegisterFile& file_of(std::uint32_t value) {
    return avx512_ && gives_mask(instructions_[value].op) ? masks_ : vectors_;
  }
  // The vector register of that number.
  [[nodiscard]] Xmm vec(int r) const { return {avx512_ ? Xbyak::Operand::ZMM : Xbyak::Operand::YMM, r}; }

  int take(RegisterFile& file) {
    int victim = -1;
    std::uint32_t farthest = 0;
    for (std::size_t r = 0; r < file.held.size(); ++r) {
      if (file.held[r] == nothing) {
        if (!is_locked(file, static_cast<int>(r))) return static_cast<int>(r);
        continue;
      }
      const std::uint32_t next = next_use(file.held[r]);
      if (!is_locked(file, static_cast<int>(r)) && (victim < 0 || next > farthest)) {
        victim = static_cast<int>(r);
        farthest = next;
      }
    }
    invariant(victim >= 0, "no register can be freed");
    evict(file.held[static_cast<std::size_t>(victim)]);
    return victim;
  }

  // Registers of the instruction at hand stay.
  struct Lock {
    const RegisterFile* file;
    int r;
  };
  [[nodiscard]] bool is_locked(const RegisterFile& file, int r) const {
    return std::any_of(locked_.begin(), locked_.end(), [&](const Lock& l) { return l.file == &file && l.r == r; });
  }

  [[nodiscard]] std::size_t spill_offset(int spill) const {
    return static_cast<std::size_t>(spill) * static_cast<std::size_t>(vector_bytes_);
  }
  Xbyak::Address spill_address(int spill) { return ptr[rsp + spill_offset(spill)]; }

  void evict(std::uint32_t value) {
    RegisterFile& file = file_of(value);
    const int r = place_[value];
    if (!is_read(instructions_[value].op) && spill_[value] < 0) {
      if (free_spills_.empty()) {
        spill_[value] = spilled_++;
      } else {
        spill_[value] = free_spills_.back();
        free_spills_.pop_back();
      }
      if (&file == &masks_) {
        kmovw(word[rsp + spill_offset(spill_[value])], Opmask(first_mask + r));
      } else {
        vmovaps(spill_address(spill_[value]), vec(r));
      }
    }
    file.held[static_cast<std::size_t>(r)] = nothing;
    place_[value] = -1;
  }

  int put(std::uint32_t value) {
    RegisterFile& file = file_of(value);
    const int r = take(file);
    file.held[static_cast<std::size_t>(r)] = value;
    place_[value] = r;
    locked_.push_back({&file, r});
    return r;
  }

  // The register of a value, into which it is brought where it is not.
  int vector(std::uint32_t value) {
    if (place_[value] >= 0) {
      locked_.push_back({&vectors_, place_[value]});
      return place_[value];
    }
    const int r = put(value);
    const VectorInstruction& i = instructions_[value];
    if (is_read(i.op)) {
      if (i.op == VectorOp::stream) {
        const Xbyak::Address from = ptr[pointer(i.index) + rax];
        if (!masked_) {
          single_ ? vmovups(vec(r), from) : vmovupd(vec(r), from);
        } else if (avx512_) {
          single_ ? vmovups(vec(r) | k7 | T_z, from) : vmovupd(vec(r) | k7 | T_z, from);
        } else {
          single_ ? vmaskmovps(vec(r), rest_mask_, from) : vmaskmovpd(vec(r), rest_mask_, from);
        }
      } else if (!avx512_ && i.op == VectorOp::constant) {
        vmovups(vec(r), one(value, false));
      } else {
        const Xbyak::Address from = one(value, false);
        if (single_) {
          vbroadcastss(vec(r), from);
        } else if (avx512_) {
          vbroadcastsd(Xbyak::Zmm(r), from);
        } else {
          vbroadcastsd(Ymm(r), from);
        }
      }
    } else {
      invariant(spill_[value] >= 0, "a value is neither in a register nor on the stack");
      vmovaps(vec(r), spill_address(spill_[value]));
    }
    return r;
  }

  int mask(std::uint32_t value) {
    if (!avx512_) return vector(value);
    if (place_[value] < 0) {
      const int r = put(value);
      kmovw(Opmask(first_mask + r), word[rsp + spill_offset(spill_[value])]);
      return r;
    }
    locked_.push_back({&masks_, place_[value]});
    return place_[value];
  }

  // The address of a single number, which as an operand is broadcast; or with AVX2 that of a whole vector.
  Xbyak::Address one(std::uint32_t value, bool broadcast) {
    const VectorInstruction& i = instructions_[value];
    if (i.op == VectorOp::constant) {
      const auto [it, made] = constants_.try_emplace(i.bits);
      return broadcast ? ptr_b[rip + it->second] : ptr[rip + it->second];
    }
    const std::size_t offset = i.op == VectorOp::number ? size_of(code_.dtype()) * i.bits : 0;
    const Reg64& base = pointer(i.index);
    return broadcast ? ptr_b[base + offset] : ptr[base + offset];
  }

  // An instruction's last operand may be a number in memory.
  [[nodiscard]] bool in_memory(std::uint32_t value) const {
    const VectorOp op = instructions_[value].op;
    if (place_[value] >= 0) return false;
    return avx512_ ? is_read(op) && op != VectorOp::stream : op == VectorOp::constant;
  }
  template <class F>
  void with_last(std::uint32_t value, F f) {
    if (in_memory(value)) {
      f(one(value, avx512_));
    } else {
      f(vec(vector(value)));
    }
  }

  // ---- instructions

  void store(const VectorStore& s, const Xmm& from) {
    const Xbyak::Address to = ptr[pointer(s.slot) + rax];
    if (!masked_ || s.whole) {
      single_ ? vmovups(to, from) : vmovupd(to, from);
    } else if (avx512_) {
      single_ ? vmovups(to | k7, from) : vmovupd(to | k7, from);
    } else {
      single_ ? vmaskmovps(to, rest_mask_, from) : vmaskmovpd(to, rest_mask_, from);
    }
  }

  void emit(std::uint32_t value) {
    locked_.clear();
    const VectorInstruction& i = instructions_[value];
    if (i.op == VectorOp::fma || i.op == VectorOp::nfma) {
      emit_fma(value);
    } else if (gives_mask(i.op)) {
      emit_compare(value);
    } else if (i.op == VectorOp::select) {
      emit_select(i);
    } else if (i.op == VectorOp::scale && !avx512_) {
      emit_scale_by_products(i);
    } else if (arity(i.op) == 1) {
      emit_unary(i);
    } else {
      emit_binary(i);
    }
    for (const VectorStore* s : stores_at_[value]) {
      locked_.clear();
      store(*s, vec(vector(s->value)));
      use(s->value);
    }
  }

  // The operands of the instruction have been read: their registers may take the result.
  int done(const VectorInstruction& i) {
    for (int k = 0; k < arity(i.op); ++k) use(i.operands[k]);
    locked_.clear();
    return put(now_);
  }

  void emit_select(const VectorInstruction& i) {
    const int by = mask(i.operands[0]);
    const Xmm otherwise = vec(vector(i.operands[2]));
    with_last(i.operands[1], [&](const auto& a) {
      const Xmm to = vec(done(i));
      if (avx512_) {
        const Opmask k(first_mask + by);
        single_ ? vblendmps(to | k, otherwise, a) : vblendmpd(to | k, otherwise, a);
      } else {
        single_ ? vblendvps(to, otherwise, a, vec(by)) : vblendvpd(to, otherwise, a, vec(by));
      }
    });
  }

  void emit_unary(const VectorInstruction& i) {
    with_last(i.operands[0], [&](const auto& a) {
      const Xmm to = vec(done(i));
      constexpr std::uint8_t quiet = 8;
      constexpr std::uint8_t near_one = 0b1011;  // [3/4, 3/2), NaN for what is negative
      switch (i.op) {
        case VectorOp::sqrt: single_ ? vsqrtps(to, a) : vsqrtpd(to, a); break;
        case VectorOp::round: round_to(to, a, quiet); break;
        case VectorOp::floor: round_to(to, a, quiet | 1); break;
        case VectorOp::ceil: round_to(to, a, quiet | 2); break;
        case VectorOp::mantissa: single_ ? vgetmantps(to, a, near_one) : vgetmantpd(to, a, near_one); break;
        case VectorOp::exponent: single_ ? vgetexpps(to, a) : vgetexppd(to, a); break;
        default: invariant(false, "an instruction that is not generated");
      }
    });
  }

  using Binary = void (Xbyak::CodeGenerator::*)(const Xmm&, const Xbyak::Operand&, const Xbyak::Operand&);
  [[nodiscard]] Binary binary(VectorOp op) const {
    using To = Xbyak::CodeGenerator;
    switch (op) {
      case VectorOp::add: return single_ ? &To::vaddps : &To::vaddpd;
      case VectorOp::sub: return single_ ? &To::vsubps : &To::vsubpd;
      case VectorOp::mul: return single_ ? &To::vmulps : &To::vmulpd;
      case VectorOp::div: return single_ ? &To::vdivps : &To::vdivpd;
      case VectorOp::min: return single_ ? &To::vminps : &To::vminpd;
      case VectorOp::max: return single_ ? &To::vmaxps : &To::vmaxpd;
      case VectorOp::bit_and: return single_ ? &To::vandps : &To::vandpd;
      case VectorOp::bit_or: return single_ ? &To::vorps : &To::vorpd;
      case VectorOp::bit_xor: return single_ ? &To::vxorps : &To::vxorpd;
      case VectorOp::bit_andnot: return single_ ? &To::vandnps : &To::vandnpd;
      default: break;
    }
    invariant(false, "an instruction that is not generated");
    return nullptr;
  }

  void emit_binary(const VectorInstruction& i) {
    std::uint32_t first = i.operands[0];
    std::uint32_t last = i.operands[1];
    const bool commutes = i.op == VectorOp::add || i.op == VectorOp::mul || i.op == VectorOp::bit_and ||
                          i.op == VectorOp::bit_or || i.op == VectorOp::bit_xor;
    if (commutes && in_memory(first) && !in_memory(last)) std::swap(first, last);
    const Xmm a = vec(vector(first));
    with_last(last, [&](const auto& b) {
      const Xmm to = vec(done(i));
      if (i.op == VectorOp::scale) {
        single_ ? vscalefps(to, a, b) : vscalefpd(to, a, b);
      } else {
        (this->*binary(i.op))(to, a, b);
      }
    });
  }

  template <class Operand>
  void round_to(const Xmm& to, const Operand& a, std::uint8_t how) {
    if (avx512_) {
      single_ ? vrndscaleps(to, a, how) : vrndscalepd(to, a, how);
    } else {
      single_ ? vroundps(to, a, how) : vroundpd(to, a, how);
    }
  }

  // x 2^n = (x 2^h) 2^(n - h) with h = n / 2 rounded down: each power is a number, made of its bits, and as x is near 1
  // only the second product can be rounded.
  void emit_scale_by_products(const VectorInstruction& i) {
    const Xmm x = vec(vector(i.operands[0]));
    const Xmm n = vec(vector(i.operands[1]));
    const int h = temporary();
    const int rest = temporary();
    const Xbyak::Address bias = ptr[rip + constants_.try_emplace(single_ ? 127 : 1023).first->second];
    if (single_) {
      vcvtps2dq(vec(rest), n);
      vpsrad(vec(h), vec(rest), 1);
      vpsubd(vec(rest), vec(rest), vec(h));
    } else {
      vcvtpd2dq(Xmm(rest), Ymm(n.getIdx()));
      vpsrad(Xmm(h), Xmm(rest), 1);
      vpsubd(Xmm(rest), Xmm(rest), Xmm(h));
      vpmovsxdq(Ymm(h), Xmm(h));
      vpmovsxdq(Ymm(rest), Xmm(rest));
    }
    for (const int power : {h, rest}) {
      single_ ? vpaddd(vec(power), vec(power), bias) : vpaddq(vec(power), vec(power), bias);
      single_ ? vpslld(vec(power), vec(power), 23) : vpsllq(vec(power), vec(power), 52);
    }
    single_ ? vmulps(vec(h), x, vec(h)) : vmulpd(vec(h), x, vec(h));
    for (int k = 0; k < 2; ++k) use(i.operands[k]);
    // Of the registers that are free now none is a temporary's.
    const int to = put(now_);
    single_ ? vmulps(vec(to), vec(h), vec(rest)) : vmulpd(vec(to), vec(h), vec(rest));
  }

  // A register for the instruction at hand alone.
  int temporary() {
    const int r = take(vectors_);
    locked_.push_back({&vectors_, r});
    return r;
  }

  void emit_compare(std::uint32_t value) {
    const VectorInstruction& i = instructions_[value];
    const Xmm a = vec(vector(i.operands[0]));
    const std::uint32_t last = i.op == VectorOp::is_nan ? i.operands[0] : i.operands[1];
    with_last(last, [&](const auto& b) {
      const int to = done(i);
      std::uint8_t predicate = 0;  // equal, ordered, quiet
      if (i.op == VectorOp::less) predicate = 0x11;
      if (i.op == VectorOp::less_equal) predicate = 0x12;
      if (i.op == VectorOp::is_nan) predicate = 0x03;
      if (i.op == VectorOp::not_less_equal) predicate = 0x16;
      if (avx512_) {
        const Opmask k(first_mask + to);
        single_ ? vcmpps(k, a, b, predicate) : vcmppd(k, a, b, predicate);
      } else {
        single_ ? vcmpps(vec(to), a, b, predicate) : vcmppd(vec(to), a, b, predicate);
      }
    });
  }

  // One of the operands' registers becomes the result's.
  void emit_fma(std::uint32_t value) {
    const VectorInstruction& i = instructions_[value];
    const bool negative = i.op == VectorOp::nfma;
    std::uint32_t a = i.operands[0];
    std::uint32_t b = i.operands[1];
    const std::uint32_t c = i.operands[2];
    const auto dies = [&](std::uint32_t v) {
      const auto times = std::count(std::begin(i.operands), std::end(i.operands), v);
      return place_[v] >= 0 && times == 1 && last_use(v);
    };
    if (in_memory(a)) std::swap(a, b);
    if (!dies(a) && dies(b)) std::swap(a, b);
    if (dies(c)) {  // c + a b, whose b may be in memory
      if (in_memory(a)) std::swap(a, b);
      const Xmm to = vec(vector(c));
      const Xmm x = vec(vector(a));
      with_last(b, [&](const auto& y) {
        if (negative) {
          single_ ? vfnmadd231ps(to, x, y) : vfnmadd231pd(to, x, y);
        } else {
          single_ ? vfmadd231ps(to, x, y) : vfmadd231pd(to, x, y);
        }
      });
      take_over(value, c);
      return;
    }
    // a b + c, whose c may be in memory
    const bool in_a = dies(a);
    const Xmm x = vec(vector(a));
    const Xmm y = vec(vector(b));
    int to = x.getIdx();
    if (!in_a) {
      to = temporary();
      vmovaps(vec(to), x);
    }
    with_last(c, [&](const auto& z) {
      if (negative) {
        single_ ? vfnmadd213ps(vec(to), y, z) : vfnmadd213pd(vec(to), y, z);
      } else {
        single_ ? vfmadd213ps(vec(to), y, z) : vfmadd213pd(vec(to), y, z);
      }
    });
    if (in_a) {
      take_over(value, a);
    } else {
      for (const std::uint32_t operand : i.operands) use(operand);
      vectors_.held[static_cast<std::size_t>(to)] = value;
      place_[value] = to;
    }
  }

  // The result is in the register of an operand that was read for the last time.
  void take_over(std::uint32_t value, std::uint32_t operand) {
    const int r = place_[operand];
    for (const std::uint32_t read : instructions_[value].operands) use(read);
    vectors_.held[static_cast<std::size_t>(r)] = value;
    place_[value] = r;
  }

  bool avx512_;
  int vector_bytes_;
  const VectorCode& code_;
  const std::vector<VectorInstruction>& instructions_;
  bool single_;
  std::vector<char> needed_;
  std::vector<std::vector<std::uint32_t>> uses_;  // by value, ascending

  std::vector<std::vector<const VectorStore*>> stores_at_;  // behind which instruction

  const Reg64 limit_ = rdx;
  const Ymm rest_mask_ = ymm15;
  std::map<Slot, Reg64> pointers_;
  std::vector<Reg64> saved_;
  std::map<std::uint64_t, Xbyak::Label> constants_;

  bool masked_ = false;
  std::uint32_t now_ = 0;
  RegisterFile vectors_{0};
  RegisterFile masks_{mask_registers};
  std::vector<int> place_;         // the register, or -1
  std::vector<int> spill_;         // the place on the stack, or -1
  std::vector<std::size_t> next_;  // how many uses are over
  std::vector<int> free_spills_;
  std::vector<Lock> locked_;
  int spilled_ = 0;
};

Set try_to_generate() {
  const char* wish = std::getenv("CHAINRULE_GENERATE");
  const std::string_view asked = wish ? wish : "";
  if (asked != "" && asked != "0" && asked != "1")
    throw Error(Location{}, "CHAINRULE_GENERATE", fmt::format("requires 0 or 1, got '{}'", asked));
  if (asked == "0") return Set::none;
  const std::string_view kernels = kernels::tables().name;
  const Set set = kernels == "avx512" ? Set::avx512 : kernels == "avx2" ? Set::avx2 : Set::none;
  if (set == Set::none) return set;
  try {
    VectorCode code(float32);
    const std::uint32_t x = code.stream(0);
    code.store(code.micro(Micro::neg, x, x, x), 0, false);
    float number[1] = {1};
    char* const slots[] = {reinterpret_cast<char*>(number)};
    Generator(code, set).run()(slots, 1);
    return number[0] == -1 ? set : Set::none;
  } catch (const Xbyak::Error&) {  // no memory that may be executed
    return Set::none;
  }
}

Set generated_set() {
  static const Set set = try_to_generate();
  return set;
}

}  // namespace

bool can_generate() { return generated_set() != Set::none; }

bool can_generate(Micro micro, DType dtype) {
  if (!can_generate() || !VectorCode::has(micro, dtype)) return false;
  // Logarithms take numbers apart, which AVX2 has no instructions for.
  return generated_set() == Set::avx512 || (micro != Micro::log && micro != Micro::log1p);
}

std::shared_ptr<const GeneratedCode> generate(const VectorCode& code) {
  static std::mutex mutex;
  static std::unordered_map<std::string, std::weak_ptr<const GeneratedCode>> known;
  static std::size_t sweep_at = 64;
  std::string key = code.key();
  const std::lock_guard lock(mutex);
  if (const auto it = known.find(key); it != known.end())
    if (auto found = it->second.lock()) return found;
  std::shared_ptr<const GeneratedCode> made;
  try {
    made = std::make_shared<const Generator>(code, generated_set());
  } catch (const Xbyak::Error& error) {
    throw std::runtime_error(std::string("chainrule: no machine code could be made: ") + error.what());
  }
  if (known.size() >= sweep_at) {
    std::erase_if(known, [](const auto& entry) { return entry.second.expired(); });
    sweep_at = 2 * known.size() + 64;
  }
  known[std::move(key)] = made;
  return made;
}

}  // namespace chainrule::detail

#else

#include <chainrule/framework/core/error.hpp>

namespace chainrule::detail {

bool can_generate() { return false; }

bool can_generate(Micro, DType) { return false; }

std::shared_ptr<const GeneratedCode> generate(const VectorCode&) {
  invariant(false, "machine code cannot be generated here");
  return nullptr;
}

}  // namespace chainrule::detail

#endif
