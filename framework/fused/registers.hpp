// Which registers hold the values of vector code while it runs. Not installed.
//
// All values are kept in registers. Where these do not suffice, the one whose next use is farthest away (Belady's rule,
// which is optimal for straight-line code) gives its register up: what was read from memory is read again, a result is
// saved on the stack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <chainrule/framework/fused/vector_code.hpp>

namespace chainrule::detail {

// When the values of a code are read, and when they are stored: as soon as they are computed and what they overwrite
// has been read.
struct Uses {
  explicit Uses(const VectorCode& code);
  std::vector<char> needed;
  std::vector<std::vector<std::uint32_t>> of_value;           // by which instructions, ascending
  std::vector<std::vector<const VectorStore*>> stores_after;  // by instruction
};

class Registers {
 public:
  // Emits what saves the value that is in register r on the stack, in place `slot` there.
  using Save = std::function<void(std::uint32_t value, int r, int slot)>;

  // Masks may have registers of their own, numbered from 0 as well.
  Registers(const VectorCode& code, const Uses& uses, Save save)
      : instructions_(code.instructions()), uses_(uses.of_value), save_(std::move(save)) {}

  // Before the first instruction. Without registers for masks these are vectors like all others.
  void start(int vectors, int masks);

  // The register that a value is in, or -1.
  [[nodiscard]] int place(std::uint32_t value) const { return place_[value]; }
  // Where it is saved, or -1.
  [[nodiscard]] int slot(std::uint32_t value) const { return slot_[value]; }
  // How many values are saved at the same time, at most.
  [[nodiscard]] int slots() const { return slots_; }
  // How many registers for vectors have been used, at most.
  [[nodiscard]] int most_vectors() const { return most_vectors_; }

  // These registers stay what they are until unlock(), at the end of the instruction at hand: that of a value, if it is
  // in one, a new one for a value, and one for the instruction alone.
  int find(std::uint32_t value);
  int put(std::uint32_t value);
  int temporary();
  void unlock() { locked_.clear(); }

  // The value is in vector register r from now on.
  void assign(std::uint32_t value, int r);

  // A use is over; the last one frees the register.
  void use(std::uint32_t value);
  [[nodiscard]] bool last_use(std::uint32_t value) const { return used_[value] + 1 >= uses_[value].size(); }

 private:
  using File = std::vector<std::uint32_t>;  // the value in each register
  struct Lock {
    const File* file;
    int r;
  };

  File& file_of(std::uint32_t value) {
    return !masks_.empty() && gives_mask(instructions_[value].op) ? masks_ : vectors_;
  }
  [[nodiscard]] std::uint32_t next_use(std::uint32_t value) const;
  [[nodiscard]] bool is_locked(const File& file, int r) const;
  int take(File& file);
  void evict(std::uint32_t value);

  const std::vector<VectorInstruction>& instructions_;
  const std::vector<std::vector<std::uint32_t>>& uses_;
  Save save_;

  File vectors_;
  File masks_;
  std::vector<int> place_;
  std::vector<int> slot_;
  std::vector<std::size_t> used_;  // how many uses are over
  std::vector<int> free_slots_;
  int slots_ = 0;
  int most_vectors_ = 0;
  std::vector<Lock> locked_;
};

}  // namespace chainrule::detail
