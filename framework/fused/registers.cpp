#include <chainrule/framework/fused/registers.hpp>

#include <algorithm>

#include <chainrule/framework/core/error.hpp>

namespace chainrule::detail {

namespace {

constexpr std::uint32_t nothing = ~0U;

// The instruction behind which a value is stored.
std::uint32_t stored_after(const VectorStore& store, const std::vector<VectorInstruction>& instructions,
                           const std::vector<std::vector<std::uint32_t>>& uses) {
  std::uint32_t at = store.value;
  if (store.overwrites == VectorStore::none) return at;
  for (std::uint32_t i = 0; i < instructions.size(); ++i) {
    const bool reads = instructions[i].op == VectorOp::stream || instructions[i].op == VectorOp::scalar;
    if (reads && instructions[i].index == store.overwrites && !uses[i].empty()) at = std::max(at, uses[i].back());
  }
  return at;
}

}  // namespace

Uses::Uses(const VectorCode& code) : needed(code.needed()) {
  const std::vector<VectorInstruction>& instructions = code.instructions();
  of_value.resize(instructions.size());
  stores_after.resize(instructions.size());
  for (std::uint32_t i = 0; i < instructions.size(); ++i) {
    if (!needed[i]) continue;
    for (int k = 0; k < arity(instructions[i].op); ++k) of_value[instructions[i].operands[k]].push_back(i);
  }
  for (const VectorStore& s : code.stores()) stores_after[stored_after(s, instructions, of_value)].push_back(&s);
  for (std::uint32_t i = 0; i < instructions.size(); ++i)
    for (const VectorStore* s : stores_after[i]) of_value[s->value].push_back(i);
  for (auto& uses : of_value) std::sort(uses.begin(), uses.end());
}

void Registers::start(int vectors, int masks) {
  vectors_.assign(static_cast<std::size_t>(vectors), nothing);
  masks_.assign(static_cast<std::size_t>(masks), nothing);
  place_.assign(instructions_.size(), -1);
  slot_.assign(instructions_.size(), -1);
  used_.assign(instructions_.size(), 0);
  free_slots_.clear();
  locked_.clear();
}

int Registers::find(std::uint32_t value) {
  const int r = place_[value];
  if (r >= 0) locked_.push_back({&file_of(value), r});
  return r;
}

int Registers::put(std::uint32_t value) {
  File& file = file_of(value);
  const int r = take(file);
  file[static_cast<std::size_t>(r)] = value;
  place_[value] = r;
  locked_.push_back({&file, r});
  return r;
}

int Registers::temporary() {
  const int r = take(vectors_);
  locked_.push_back({&vectors_, r});
  return r;
}

void Registers::assign(std::uint32_t value, int r) {
  vectors_[static_cast<std::size_t>(r)] = value;
  place_[value] = r;
}

void Registers::use(std::uint32_t value) {
  ++used_[value];
  if (next_use(value) != nothing) return;
  if (place_[value] >= 0) file_of(value)[static_cast<std::size_t>(place_[value])] = nothing;
  place_[value] = -1;
  if (slot_[value] >= 0) free_slots_.push_back(slot_[value]);
  slot_[value] = -1;
}

// The next use of a value, as the number of the instruction.
std::uint32_t Registers::next_use(std::uint32_t value) const {
  return used_[value] < uses_[value].size() ? uses_[value][used_[value]] : nothing;
}

bool Registers::is_locked(const File& file, int r) const {
  return std::any_of(locked_.begin(), locked_.end(), [&](const Lock& l) { return l.file == &file && l.r == r; });
}

int Registers::take(File& file) {
  int victim = -1;
  std::uint32_t farthest = 0;
  for (int r = 0; r < static_cast<int>(file.size()); ++r) {
    if (is_locked(file, r)) continue;
    const std::uint32_t held = file[static_cast<std::size_t>(r)];
    if (held == nothing) {
      if (&file == &vectors_) most_vectors_ = std::max(most_vectors_, r + 1);
      return r;
    }
    const std::uint32_t next = next_use(held);
    if (victim < 0 || next > farthest) {
      victim = r;
      farthest = next;
    }
  }
  invariant(victim >= 0, "no register can be freed");
  evict(file[static_cast<std::size_t>(victim)]);
  return victim;
}

void Registers::evict(std::uint32_t value) {
  const int r = place_[value];
  if (!is_read(instructions_[value].op) && slot_[value] < 0) {
    if (free_slots_.empty()) {
      slot_[value] = slots_++;
    } else {
      slot_[value] = free_slots_.back();
      free_slots_.pop_back();
    }
    save_(value, r, slot_[value]);
  }
  file_of(value)[static_cast<std::size_t>(r)] = nothing;
  place_[value] = -1;
}

}  // namespace chainrule::detail
