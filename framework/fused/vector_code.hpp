// What a run of a fused group's instructions does to one vector of each operand: straight-line code over vectors and
// masks, from which machine code is made (generate.hpp). Not installed.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/graph/elementwise.hpp>

namespace chainrule::detail {

// Slots hold the address of a tile each.
using Slot = std::uint32_t;

enum class VectorOp : std::uint8_t {
  // Read from memory: of slot `index` the elements at hand (of the dtype that `bits` says: memory_dtype()), or its only
  // one; of the numbers in slot `index` the one at `bits`; a number of the code itself.
  stream,
  scalar,
  number,
  constant,
  // as in kernels/vector_math.hpp
  add,
  sub,
  mul,
  div,
  sqrt,
  min,
  max,
  fma,
  nfma,
  round,
  floor,
  ceil,
  scale,
  mantissa,
  exponent,
  bit_and,
  bit_or,
  bit_xor,
  bit_andnot,
  select,
  sin_of,  // their first operands are masks, as that of select
  cos_of,
  // these give masks
  less,
  less_equal,
  equal,
  is_nan,
  not_less_equal,
};

constexpr bool gives_mask(VectorOp op) { return op >= VectorOp::less; }
constexpr bool is_read(VectorOp op) { return op <= VectorOp::constant; }

struct VectorInstruction {
  VectorOp op = VectorOp::constant;
  std::uint32_t index = 0;
  std::uint32_t operands[3] = {};  // numbers of instructions; select's first is a mask
  std::uint64_t bits = 0;
  friend bool operator==(const VectorInstruction&, const VectorInstruction&) = default;
};

int arity(VectorOp op);

struct VectorStore {
  static constexpr Slot none = ~Slot{0};
  std::uint32_t value;
  Slot slot;
  bool whole;       // what follows the last element may be overwritten, up to the end of the vector
  Slot overwrites;  // the slot of an operand in the same memory, which is read before, or none
};

class VectorCode {
 public:
  explicit VectorCode(DType dtype) : dtype_(dtype) {}

  // Whether a micro-operation can be part of such code (can_generate() says whether machine code can be made of it).
  static bool has(Micro micro, DType dtype);

  // Whether code of a dtype can read elements of another where they lie: of bytes and of int32 floating numbers are
  // made.
  static bool converts(DType from, DType to);

  std::uint32_t stream(Slot slot) { return stream(slot, dtype_); }
  std::uint32_t stream(Slot slot, DType in_memory);
  std::uint32_t scalar(Slot slot);
  // numbers[i]. Small whole and half ones become part of the code; others may follow from sizes, and the code does not.
  std::uint32_t number(Slot numbers, std::size_t i, double value);
  std::uint32_t micro(Micro micro, std::uint32_t a, std::uint32_t b, std::uint32_t c);
  void store(std::uint32_t value, Slot slot, bool whole, Slot overwrites = VectorStore::none);

  // An instruction that exists is not made again. Its operands must be earlier ones.
  std::uint32_t append(VectorInstruction instruction);

  template <class F>
  void renumber_slots(F f) {
    for (VectorInstruction& i : instructions_)
      if (is_read(i.op) && i.op != VectorOp::constant) i.index = f(i.index);
    for (VectorStore& s : stores_) {
      s.slot = f(s.slot);
      if (s.overwrites != VectorStore::none) s.overwrites = f(s.overwrites);
    }
  }

  [[nodiscard]] DType dtype() const { return dtype_; }
  // Of the elements that a stream reads.
  [[nodiscard]] DType memory_dtype(const VectorInstruction& stream) const {
    return stream.bits == 0 ? dtype_ : static_cast<DType>(stream.bits - 1);
  }
  [[nodiscard]] const std::vector<VectorInstruction>& instructions() const { return instructions_; }
  [[nodiscard]] const std::vector<VectorStore>& stores() const { return stores_; }
  // Whether a result is stored, or read by one that is needed, by instruction.
  [[nodiscard]] std::vector<char> needed() const;
  // Equal codes have equal keys.
  [[nodiscard]] std::string key() const;

 private:
  template <class T>
  friend class Recorder;

  struct Hash {
    std::size_t operator()(const VectorInstruction& i) const;
  };

  DType dtype_;
  std::vector<VectorInstruction> instructions_;
  std::vector<VectorStore> stores_;
  std::unordered_map<VectorInstruction, std::uint32_t, Hash> known_;
  std::unordered_map<std::uint32_t, std::uint32_t> mask_of_;  // of values that are 1 or 0 by a mask
};

}  // namespace chainrule::detail
