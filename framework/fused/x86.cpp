// The code is a loop over whole vectors and, behind it, the same once more with masks for the elements that are left
// (and where it divides a third time, for few elements).
//
// AVX-512 has registers of their own for masks, loads and stores that are masked by them, and operands in memory that
// are broadcast. With AVX2 masks are vectors like all others, the last one masks the elements that are left, and
// constants are in memory as whole vectors.
//
// Where a lane needs libm (VectorOp::sin_of), it is called from behind the code, with all registers saved.
#include <chainrule/framework/fused/x86.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include <xbyak/xbyak.h>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/fused/registers.hpp>
#include <chainrule/framework/fused/schedule.hpp>
#include <chainrule/framework/kernels/libm.hpp>

namespace chainrule::detail {

namespace {

using Xbyak::Opmask;
using Xbyak::Reg64;
using Xbyak::Xmm;
using Xbyak::Ymm;

constexpr int first_mask = 1;  // k0 cannot mask
constexpr int mask_registers = 6;

class Generator final : public GeneratedCode, private Xbyak::CodeGenerator {
 public:
  // With so many registers that keep what does not change from one turn of the loop to the next.
  Generator(const VectorCode& code, X86 set, int keeping)
      : Xbyak::CodeGenerator(4096, Xbyak::AutoGrow),
        avx512_(set == X86::avx512),
        vector_bytes_(avx512_ ? 64 : 32),
        code_(code),
        instructions_(code.instructions()),
        single_(code.dtype() == float32),
        uses_(code),
        registers_(code, uses_, [this](std::uint32_t value, int r, int slot) { save(value, r, slot); }) {
    choose_kept(keeping);
    generate();
  }

  // When nothing better is found.
  void finish() {
    ready(Xbyak::CodeArray::PROTECT_RE);
    run_ = getCode<GeneratedRun>();
    run_rows_ = reinterpret_cast<GeneratedRunRows>(reinterpret_cast<std::uintptr_t>(getCode()) + at_rows_);
    bytes_ = getSize();
  }

  // Values that are saved on the stack at the same time.
  [[nodiscard]] int saves() const { return registers_.slots(); }
  // How many registers are never used, at most as many as there is to keep in them.
  [[nodiscard]] int unused() const { return std::clamp(vectors() - registers_.most_vectors(), 0, keepable_); }

 private:
  // ---- frame

  void generate() {
    choose_pointers();
    mov(edx, 1);
    xor_(ecx, ecx);
    at_rows_ = getSize();
    for (const Reg64& r : saved_) push(r);
    push(rbp);
    mov(rbp, rsp);
    shl(rcx, 3);
    for (const Reg64& r : {rsi, rdx, rcx}) push(r);
    const Xbyak::Address elements = qword[rbp - 8];
    const Xbyak::Address rows = qword[rbp - 16];
    const Xbyak::Address to_next_row = qword[rbp - 24];
    // Known only at the end: how many values were saved.
    sub(rsp, 0x7FFFFFF0);
    const std::size_t at_frame_size = getSize() - 4;
    and_(rsp, static_cast<std::uint32_t>(-vector_bytes_));
    Xbyak::Label next_row;
    L(next_row);
    for (const auto& [slot, r] : pointers_) mov(r, qword[rdi + std::size_t{8} * slot]);
    for (const auto& [value, r] : kept_) read(r, value);

    whole_vectors();
    elements_left();

    mov(rsi, elements);
    add(rdi, to_next_row);
    sub(rows, 1);
    jnz(next_row, T_NEAR);
    mov(rsp, rbp);
    pop(rbp);
    for (std::size_t i = saved_.size(); i-- > 0;) pop(saved_[i]);
    vzeroupper();
    ret();
    for (const LibmCall& call : calls_) call_libm(call);
    constants();
    rewrite(at_frame_size, offset_of_slot(registers_.slots()), 4);
  }

  // rsi holds the number of elements, and then of those that are left (with AVX2 minus that); rax counts the elements
  // before those at hand.
  void whole_vectors() {
    Xbyak::Label loop;
    Xbyak::Label end;
    mov(rax, rsi);
    and_(rax, static_cast<std::uint32_t>(-lanes()));
    sub(rsi, rax);
    mov(limit_, rax);
    xor_(eax, eax);
    test(limit_, limit_);
    jz(end, T_NEAR);
    align(32);
    L(loop);
    body(false);
    add(rax, static_cast<std::uint32_t>(lanes()));
    cmp(rax, limit_);
    jb(loop, T_NEAR);
    L(end);
  }

  void elements_left() {
    Xbyak::Label end;
    test(rsi, rsi);
    jz(end, T_NEAR);
    if (avx512_) {
      mov(limit_.cvt32(), 0xFFFFFFFF);
      bzhi(limit_.cvt32(), limit_.cvt32(), esi);
      kmovw(k7, limit_.cvt32());
    } else {  // as many ones as elements are left, then zeros
      lea(limit_, ptr[rip + ones_]);
      neg(rsi);
      vmovups(rest_mask_, ptr[limit_ + rsi * (single_ ? 4 : 8) + 32]);
    }
    if (divides()) {
      Xbyak::Label wide;
      cmp(rsi, static_cast<std::uint32_t>(lanes() / 4));
      ja(wide, T_NEAR);
      narrow_ = true;
      body(true);
      narrow_ = false;
      jmp(end, T_NEAR);
      L(wide);
    }
    body(true);
    L(end);
  }

  // Whether few elements are worth code of their own, for vectors of 128 bits: a quotient takes such a quarter of the
  // time.
  [[nodiscard]] bool divides() const {
    if (!avx512_) return false;
    for (std::size_t i = 0; i < instructions_.size(); ++i)
      if (uses_.needed[i] && (instructions_[i].op == VectorOp::div || instructions_[i].op == VectorOp::sqrt))
        return true;
    return false;
  }

  void constants() {
    align(static_cast<std::size_t>(vector_bytes_));
    for (auto& [bits, label] : constants_) {
      L(label);
      for (int i = 0; i < (avx512_ ? 1 : lanes()); ++i) {
        if (single_) {
          dd(static_cast<std::uint32_t>(bits));
        } else {
          dq(bits);
        }
      }
    }
    if (avx512_) return;
    L(ones_);
    for (int i = 0; i < 8; ++i) dq(i < 4 ? ~std::uint64_t{0} : 0);
  }

  [[nodiscard]] int lanes() const { return vector_bytes_ / (single_ ? 4 : 8); }

  // Registers for the addresses that are used, as far as they go. Others are read from the table wherever they are
  // needed, to the last register.
  void choose_pointers() {
    std::vector<Slot> slots;
    const auto add_slot = [&slots](Slot s) {
      if (std::find(slots.begin(), slots.end(), s) == slots.end()) slots.push_back(s);
    };
    for (std::size_t i = 0; i < instructions_.size(); ++i)
      if (uses_.needed[i] && is_read(instructions_[i].op) && instructions_[i].op != VectorOp::constant)
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

  // Registers for vectors, in all of the code.
  [[nodiscard]] int vectors() const { return avx512_ ? 32 : rest_mask_.getIdx(); }

  // Gives the last registers to the numbers that are read most often.
  void choose_kept(int registers) {
    std::map<std::uint32_t, int> times;
    for (std::uint32_t i = 0; i < instructions_.size(); ++i)
      for (int k = 0; uses_.needed[i] && k < arity(instructions_[i].op); ++k) {
        const VectorOp op = instructions_[instructions_[i].operands[k]].op;
        if (is_read(op) && op != VectorOp::stream) ++times[instructions_[i].operands[k]];
      }
    keepable_ = static_cast<int>(times.size());
    std::vector<std::pair<std::uint32_t, int>> by_times(times.begin(), times.end());
    std::stable_sort(by_times.begin(), by_times.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    for (int k = 0; k < registers; ++k) kept_.emplace(by_times[static_cast<std::size_t>(k)].first, vectors() - 1 - k);
  }

  void body(bool masked) {
    masked_ = masked;
    const int left = vectors() - static_cast<int>(kept_.size());
    // The mask of what is left has a register only where there is one.
    const int more = !avx512_ && !masked && kept_.empty() ? 1 : 0;
    registers_.start(left + more, avx512_ ? mask_registers : 0);
    for (now_ = 0; now_ < instructions_.size(); ++now_)
      if (uses_.needed[now_] && !is_read(instructions_[now_].op)) emit(now_);
  }

  // The vector register of that number.
  [[nodiscard]] Xmm vec(int r) const {
    return {narrow_ ? Xbyak::Operand::XMM : avx512_ ? Xbyak::Operand::ZMM : Xbyak::Operand::YMM, r};
  }

  [[nodiscard]] std::size_t offset_of_slot(int slot) const {
    return static_cast<std::size_t>(slot) * static_cast<std::size_t>(vector_bytes_);
  }
  Xbyak::Address saved_vector(std::uint32_t value) { return ptr[rsp + offset_of_slot(registers_.slot(value))]; }
  Xbyak::Address saved_mask(std::uint32_t value) { return word[rsp + offset_of_slot(registers_.slot(value))]; }

  void save(std::uint32_t value, int r, int slot) {
    if (avx512_ && gives_mask(instructions_[value].op)) {
      kmovw(word[rsp + offset_of_slot(slot)], Opmask(first_mask + r));
    } else {
      vmovaps(ptr[rsp + offset_of_slot(slot)], vec(r));
    }
  }

  // The register of a value, into which it is brought where it is not.
  int vector(std::uint32_t value) {
    if (const auto it = kept_.find(value); it != kept_.end()) return it->second;
    if (const int r = registers_.find(value); r >= 0) return r;
    const int r = registers_.put(value);
    const VectorOp op = instructions_[value].op;
    if (!is_read(op)) {
      invariant(registers_.slot(value) >= 0, "a value is neither in a register nor on the stack");
      vmovaps(vec(r), saved_vector(value));
    } else if (op == VectorOp::stream) {
      const DType in_memory = code_.memory_dtype(instructions_[value]);
      if (in_memory == code_.dtype()) {
        read_elements(r, instructions_[value].index);
      } else {
        read_converted(r, instructions_[value].index, in_memory == int32);
      }
    } else {
      read(r, value);
    }
    return r;
  }

  // A number to all lanes.
  void read(int r, std::uint32_t value) {
    if (!avx512_ && instructions_[value].op == VectorOp::constant) {
      vmovups(vec(r), one(value, false));
    } else {
      broadcast(r, one(value, false));
    }
  }

  // The elements at hand, of the code's dtype.
  Xbyak::Address elements(Slot slot) { return single_ ? ptr[pointer(slot) + rax * 4] : ptr[pointer(slot) + rax * 8]; }

  void read_elements(int r, Slot slot) {
    const Xbyak::Address from = elements(slot);
    if (!masked_) {
      single_ ? vmovups(vec(r), from) : vmovupd(vec(r), from);
    } else if (avx512_) {
      single_ ? vmovups(vec(r) | k7 | T_z, from) : vmovupd(vec(r) | k7 | T_z, from);
    } else {
      single_ ? vmaskmovps(vec(r), rest_mask_, from) : vmaskmovpd(vec(r), rest_mask_, from);
    }
  }

  // Floating numbers of as many integers of 32 bits (`words`) or bytes, which have half the vector's width at most: of
  // the register they fill the lower part, or are read by the instruction that converts them.
  void read_converted(int r, Slot slot, bool words) {
    const Reg64& base = pointer(slot);
    const Xbyak::Address from = words ? ptr[base + rax * 4] : ptr[base + rax];
    const Xmm to = vec(r);
    const Xmm integers = single_ ? to : avx512_ && !narrow_ ? Xmm(Xbyak::Operand::YMM, r) : Xmm(r);
    const auto convert = [this](const Xmm& result, const Xbyak::Operand& of) {
      single_ ? vcvtdq2ps(result, of) : vcvtdq2pd(result, of);
    };
    if (avx512_ || !masked_) {
      const auto rest = [this](const Xmm& x) { return masked_ ? x | k7 | T_z : x; };
      if (words) return convert(rest(to), from);
      vpmovzxbd(rest(integers), from);
    } else if (words && single_) {
      vpmaskmovd(to, rest_mask_, from);
    } else {
      insert_elements_left(Xmm(r), base, words);
      if (!words) vpmovzxbd(integers, Xmm(r));
    }
    convert(to, integers);
  }

  // Those that are left, one by one, for AVX2, which has no masks for bytes. Zeros behind them.
  void insert_elements_left(const Xmm& to, const Reg64& base, bool words) {
    Xbyak::Label end;
    vpxor(to, to, to);
    for (int k = 0; k + 1 < lanes(); ++k) {
      cmp(rsi, static_cast<std::uint32_t>(-k));
      jge(end, T_NEAR);
      if (words) {
        vpinsrd(to, to, ptr[base + rax * 4 + std::size_t{4} * static_cast<std::size_t>(k)],
                static_cast<std::uint8_t>(k));
      } else {
        vpinsrb(to, to, ptr[base + rax + static_cast<std::size_t>(k)], static_cast<std::uint8_t>(k));
      }
    }
    L(end);
  }

  void broadcast(int r, const Xbyak::Address& from) {
    if (single_) {
      vbroadcastss(vec(r), from);
    } else if (avx512_) {
      vbroadcastsd(Xbyak::Zmm(r), from);
    } else {
      vbroadcastsd(Ymm(r), from);
    }
  }

  int mask(std::uint32_t value) {
    if (!avx512_) return vector(value);
    if (const int r = registers_.find(value); r >= 0) return r;
    const int r = registers_.put(value);
    kmovw(Opmask(first_mask + r), saved_mask(value));
    return r;
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
    if (registers_.place(value) >= 0 || kept_.contains(value)) return false;
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
    const Xbyak::Address to = elements(s.slot);
    if (!masked_ || s.whole) {
      single_ ? vmovups(to, from) : vmovupd(to, from);
    } else if (avx512_) {
      single_ ? vmovups(to | k7, from) : vmovupd(to | k7, from);
    } else {
      single_ ? vmaskmovps(to, rest_mask_, from) : vmaskmovpd(to, rest_mask_, from);
    }
  }

  void emit(std::uint32_t value) {
    registers_.unlock();
    const VectorInstruction& i = instructions_[value];
    if (i.op == VectorOp::fma || i.op == VectorOp::nfma) {
      emit_fma(value);
    } else if (gives_mask(i.op)) {
      emit_compare(value);
    } else if (i.op == VectorOp::select) {
      emit_select(i);
    } else if (i.op == VectorOp::sin_of || i.op == VectorOp::cos_of) {
      emit_libm(i);
    } else if (!avx512_ && (i.op == VectorOp::mantissa || i.op == VectorOp::exponent)) {
      emit_part_by_bits(i);
    } else if (i.op == VectorOp::scale && !avx512_) {
      emit_scale_by_products(i);
    } else if (arity(i.op) == 1) {
      emit_unary(i);
    } else {
      emit_binary(i);
    }
    for (const VectorStore* s : uses_.stores_after[value]) {
      registers_.unlock();
      store(*s, vec(vector(s->value)));
      registers_.use(s->value);
    }
  }

  // The operands of the instruction have been read: their registers may take the result.
  int done(const VectorInstruction& i) {
    for (int k = 0; k < arity(i.op); ++k) registers_.use(i.operands[k]);
    registers_.unlock();
    return registers_.put(now_);
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
    const int h = registers_.temporary();
    const int rest = registers_.temporary();
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
    for (int k = 0; k < 2; ++k) registers_.use(i.operands[k]);
    // Of the registers that are free now none is a temporary's.
    const int to = registers_.put(now_);
    single_ ? vmulps(vec(to), vec(h), vec(rest)) : vmulpd(vec(to), vec(h), vec(rest));
  }

  // The whole vector of a constant, for AVX2.
  Xbyak::Address constant_bits(std::uint64_t bits) { return ptr[rip + constants_.try_emplace(bits).first->second]; }
  Xbyak::Address constant(double x) {
    return constant_bits(single_ ? std::bit_cast<std::uint32_t>(static_cast<float>(x))
                                 : std::bit_cast<std::uint64_t>(x));
  }

  // Mantissa or exponent without instructions for them, as kernels/simd/machine.hpp has them for AVX2.
  void emit_part_by_bits(const VectorInstruction& i) {
    const Xmm x = vec(vector(i.operands[0]));
    const Xmm value = vec(registers_.temporary());
    const Xmm mask = vec(registers_.temporary());
    const Xmm other = vec(registers_.temporary());
    const auto compare = [this](const Xmm& to, const Xmm& a, const Xbyak::Operand& b, std::uint8_t predicate) {
      single_ ? vcmpps(to, a, b, predicate) : vcmppd(to, a, b, predicate);
    };
    const auto blend = [this](const Xmm& to, const Xmm& a, const Xbyak::Operand& b, const Xmm& by) {
      single_ ? vblendvps(to, a, b, by) : vblendvpd(to, a, b, by);
    };
    const auto binary_op = [this](VectorOp op, const Xmm& to, const Xmm& a, const Xbyak::Operand& b) {
      (this->*binary(op))(to, a, b);
    };
    constexpr std::uint8_t less_than = 0x11;
    constexpr std::uint8_t not_less = 0x15;
    constexpr std::uint8_t not_greater_equal = 0x19;
    // |x|, or where that is denormal 2^23 or 2^52 times it
    binary_op(VectorOp::bit_and, value, x, constant_bits(single_ ? 0x7FFFFFFF : 0x7FFFFFFFFFFFFFFF));
    compare(mask, value, constant(single_ ? 0x1p-126 : 0x1p-1022), less_than);
    binary_op(VectorOp::mul, other, value, constant(single_ ? 0x1p23 : 0x1p52));
    blend(value, value, other, mask);
    if (i.op == VectorOp::mantissa) {
      binary_op(VectorOp::bit_and, value, value, constant_bits(single_ ? 0x007FFFFF : 0x000FFFFFFFFFFFFF));
      binary_op(VectorOp::bit_or, value, value, constant(1));
      compare(mask, value, constant(1.5), not_less);
      binary_op(VectorOp::mul, other, value, constant(0.5));
      blend(value, value, other, mask);
      compare(mask, x, constant(0), not_greater_equal);
      binary_op(VectorOp::bit_or, other, value, mask);
    } else {
      if (single_) {
        vpsrld(other, value, 23);
        vcvtdq2ps(other, other);
      } else {
        vpsrlq(other, value, 52);
        binary_op(VectorOp::bit_or, other, other, constant(0x1p52));
        binary_op(VectorOp::sub, other, other, constant(0x1p52));
      }
      binary_op(VectorOp::sub, other, other, constant(single_ ? 127 : 1023));
      binary_op(VectorOp::bit_and, mask, mask, constant(single_ ? 23 : 52));
      binary_op(VectorOp::sub, other, other, mask);
      constexpr double inf = std::numeric_limits<double>::infinity();
      compare(mask, value, constant(0), 0);
      blend(other, other, constant(-inf), mask);
      compare(mask, value, constant(inf), not_less);
      blend(other, other, value, mask);
    }
    registers_.use(i.operands[0]);
    registers_.assign(now_, other.getIdx());
  }

  // ---- calls, which nearly never happen: behind the code

  struct LibmCall {
    VectorOp op;
    int mask;
    int from;
    int to;  // registers
    std::shared_ptr<Xbyak::Label> begin = std::make_shared<Xbyak::Label>();
    std::shared_ptr<Xbyak::Label> end = std::make_shared<Xbyak::Label>();
  };

  void emit_libm(const VectorInstruction& i) {
    const int by = mask(i.operands[0]);
    const int from = vector(i.operands[1]);
    const int instead = vector(i.operands[2]);
    const bool dies = registers_.last_use(i.operands[2]) && !is_read(instructions_[i.operands[2]].op);
    const int to = dies ? instead : registers_.temporary();
    if (!dies) vmovaps(vec(to), vec(instead));
    LibmCall call{i.op, by, from, to};
    if (avx512_) {
      const Opmask k(first_mask + by);
      kortestw(k, k);
    } else {
      single_ ? vtestps(Ymm(by), Ymm(by)) : vtestpd(Ymm(by), Ymm(by));
    }
    jnz(*call.begin, T_NEAR);
    L(*call.end);
    calls_.push_back(call);
    for (const std::uint32_t operand : i.operands) registers_.use(operand);
    registers_.assign(now_, to);
  }

  // All registers that a function may change are saved, and that of the result is changed where it is saved.
  void call_libm(const LibmCall& call) {
    const Reg64 kept[] = {rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11};
    const int vectors = avx512_ ? 32 : 16;
    const auto at_vector = [this](int r) { return offset_of_slot(r); };
    const std::size_t at_masks = at_vector(vectors);
    const std::size_t at_kept = at_masks + 64;
    const std::size_t bytes = (at_kept + sizeof(std::uint64_t) * std::size(kept) + 63) / 64 * 64;
    L(*call.begin);
    sub(rsp, static_cast<std::uint32_t>(bytes));
    for (int r = 0; r < vectors; ++r) vmovups(ptr[rsp + at_vector(r)], vec(r));
    for (int k = 1; avx512_ && k < 8; ++k)
      kmovw(word[rsp + at_masks + std::size_t{8} * static_cast<std::size_t>(k)], Opmask(k));
    for (std::size_t k = 0; k < std::size(kept); ++k) mov(qword[rsp + at_kept + 8 * k], kept[k]);
    if (avx512_) {
      kmovw(edx, Opmask(first_mask + call.mask));
    } else {
      single_ ? vmovmskps(edx, Ymm(call.mask)) : vmovmskpd(edx, Ymm(call.mask));
    }
    lea(rdi, ptr[rsp + at_vector(call.from)]);
    lea(rsi, ptr[rsp + at_vector(call.to)]);
    mov(rax, libm(call.op));
    vzeroupper();
    Xbyak::CodeGenerator::call(rax);
    for (std::size_t k = 0; k < std::size(kept); ++k) mov(kept[k], qword[rsp + at_kept + 8 * k]);
    for (int k = 1; avx512_ && k < 8; ++k)
      kmovw(Opmask(k), word[rsp + at_masks + std::size_t{8} * static_cast<std::size_t>(k)]);
    for (int r = 0; r < vectors; ++r) vmovups(vec(r), ptr[rsp + at_vector(r)]);
    add(rsp, static_cast<std::uint32_t>(bytes));
    jmp(*call.end, T_NEAR);
  }

  [[nodiscard]] std::uint64_t libm(VectorOp op) const {
    const bool sine = op == VectorOp::sin_of;
    if (single_)
      return reinterpret_cast<std::uint64_t>(sine ? kernels::sin_of_lanes<float> : kernels::cos_of_lanes<float>);
    return reinterpret_cast<std::uint64_t>(sine ? kernels::sin_of_lanes<double> : kernels::cos_of_lanes<double>);
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
    const auto dies = [&](std::uint32_t v) {
      const auto times = std::count(std::begin(i.operands), std::end(i.operands), v);
      return registers_.place(v) >= 0 && times == 1 && registers_.last_use(v);
    };
    std::uint32_t a = i.operands[0];
    std::uint32_t b = i.operands[1];
    const std::uint32_t c = i.operands[2];
    if (in_memory(a)) std::swap(a, b);
    if (!dies(a) && dies(b)) std::swap(a, b);
    int to = 0;
    if (dies(c)) {
      if (in_memory(a)) std::swap(a, b);
      to = fma_onto_term(i.op, a, b, c);
    } else {
      to = fma_onto_factor(i.op, a, b, c, dies(a));
    }
    for (const std::uint32_t operand : i.operands) registers_.use(operand);
    registers_.assign(value, to);
  }

  // c + a b in the register of c; b may be in memory.
  int fma_onto_term(VectorOp op, std::uint32_t a, std::uint32_t b, std::uint32_t c) {
    const Xmm to = vec(vector(c));
    const Xmm x = vec(vector(a));
    with_last(b, [&](const auto& y) {
      if (op == VectorOp::nfma) {
        single_ ? vfnmadd231ps(to, x, y) : vfnmadd231pd(to, x, y);
      } else {
        single_ ? vfmadd231ps(to, x, y) : vfmadd231pd(to, x, y);
      }
    });
    return to.getIdx();
  }

  // a b + c in the register of a, or in a new one; c may be in memory.
  int fma_onto_factor(VectorOp op, std::uint32_t a, std::uint32_t b, std::uint32_t c, bool in_a) {
    const Xmm x = vec(vector(a));
    const Xmm y = vec(vector(b));
    const Xmm to = in_a ? x : vec(registers_.temporary());
    if (!in_a) vmovaps(to, x);
    with_last(c, [&](const auto& z) {
      if (op == VectorOp::nfma) {
        single_ ? vfnmadd213ps(to, y, z) : vfnmadd213pd(to, y, z);
      } else {
        single_ ? vfmadd213ps(to, y, z) : vfmadd213pd(to, y, z);
      }
    });
    return to.getIdx();
  }

  bool avx512_;
  int vector_bytes_;
  const VectorCode& code_;
  const std::vector<VectorInstruction>& instructions_;
  bool single_;
  Uses uses_;
  Registers registers_;

  const Reg64 limit_ = rdx;
  const Ymm rest_mask_ = ymm15;
  std::map<Slot, Reg64> pointers_;
  std::vector<Reg64> saved_;
  std::map<std::uint32_t, int> kept_;  // numbers that have a register from the start to the end
  int keepable_ = 0;
  std::map<std::uint64_t, Xbyak::Label> constants_;
  Xbyak::Label ones_;

  std::vector<LibmCall> calls_;
  std::size_t at_rows_ = 0;  // where the code for several rows begins

  bool masked_ = false;
  bool narrow_ = false;  // vectors of 128 bits
  std::uint32_t now_ = 0;
};

}  // namespace

std::shared_ptr<const GeneratedCode> make_x86(const VectorCode& code, X86 set) {
  const bool avx512 = set == X86::avx512;
  const VectorCode alternating = scheduled(code, {avx512 ? 32 : 15, avx512 ? mask_registers : 0});
  try {
    const VectorCode* order = &alternating;
    auto made = std::make_shared<Generator>(alternating, set, 0);
    if (made->saves() > 0) {
      auto other = std::make_shared<Generator>(code, set, 0);
      if (other->saves() < made->saves()) {
        order = &code;
        made = std::move(other);
      }
    }
    if (made->unused() > 0) made = std::make_shared<Generator>(*order, set, made->unused());
    made->finish();
    return made;
  } catch (const Xbyak::Error& error) {
    throw std::runtime_error(std::string("chainrule: no machine code could be made: ") + error.what());
  }
}

}  // namespace chainrule::detail
