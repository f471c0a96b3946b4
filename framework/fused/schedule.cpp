#include <chainrule/framework/fused/schedule.hpp>

#include <algorithm>

#include <chainrule/framework/core/error.hpp>

namespace chainrule::detail {

namespace {

constexpr std::uint32_t nothing = ~0U;
// Registers that are left for constants, and for what is needed within an instruction.
constexpr int spare_vectors = 5;

// Cycles from the start of an instruction until its result can be read: about those of the processors of today.
int latency(VectorOp op) {
  switch (op) {
    case VectorOp::stream:
    case VectorOp::scalar:
    case VectorOp::number:
    case VectorOp::constant: return 0;
    case VectorOp::div:
    case VectorOp::sqrt: return 18;
    case VectorOp::round:
    case VectorOp::floor:
    case VectorOp::ceil: return 8;
    case VectorOp::scale: return 6;
    case VectorOp::bit_and:
    case VectorOp::bit_or:
    case VectorOp::bit_xor:
    case VectorOp::bit_andnot: return 1;
    case VectorOp::select: return 2;
    default: return 4;
  }
}

class Scheduler {
 public:
  Scheduler(const VectorCode& code, RegisterFiles registers)
      : code_(code),
        instructions_(code.instructions()),
        needed_(code.needed()),
        registers_(registers),
        users_(instructions_.size()),
        uses_left_(instructions_.size(), 0),
        waits_for_(instructions_.size(), 0),
        height_(instructions_.size(), 0),
        ready_at_(instructions_.size(), 0),
        now_named_(instructions_.size(), nothing),
        result_(code.dtype()) {
    find_users();
  }

  VectorCode run() {
    for (std::uint32_t i = 0; i < instructions_.size(); ++i)
      if (needed_[i] && !is_read(instructions_[i].op) && waits_for_[i] == 0) ready_.push_back(i);
    for (int cycle = 0; !ready_.empty(); ++cycle) {
      const std::size_t chosen = choose(cycle);
      const std::uint32_t i = ready_[chosen];
      cycle = std::max(cycle, ready_at_[i]);
      ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(chosen));
      put(i, cycle);
    }
    for (const VectorStore& s : code_.stores()) {
      invariant(now_named_[s.value] != nothing, "a value that is stored is not computed");
      result_.store(now_named_[s.value], s.slot, s.whole, s.overwrites);
    }
    return std::move(result_);
  }

 private:
  void find_users() {
    for (std::uint32_t i = 0; i < instructions_.size(); ++i) {
      if (!needed_[i]) continue;
      for (int k = 0; k < arity(instructions_[i].op); ++k) {
        const std::uint32_t operand = instructions_[i].operands[k];
        users_[operand].push_back(i);
        ++uses_left_[operand];
        if (!is_read(instructions_[operand].op)) ++waits_for_[i];
      }
    }
    for (std::size_t i = instructions_.size(); i-- > 0;) {
      int below = 0;
      for (const std::uint32_t user : users_[i]) below = std::max(below, height_[user]);
      height_[i] = below + latency(instructions_[i].op);
    }
  }

  [[nodiscard]] bool is_mask(std::uint32_t i) const { return registers_.masks > 0 && gives_mask(instructions_[i].op); }
  // Constants are operands in memory.
  [[nodiscard]] bool takes_register(std::uint32_t i) const {
    const VectorOp op = instructions_[i].op;
    return !is_read(op) || op == VectorOp::stream;
  }

  // How many registers more are taken behind an instruction than before it.
  [[nodiscard]] int growth(std::uint32_t i, bool masks) const {
    int out = is_mask(i) == masks && !users_[i].empty() ? 1 : 0;
    const VectorInstruction& instruction = instructions_[i];
    for (int k = 0; k < arity(instruction.op); ++k) {
      const std::uint32_t operand = instruction.operands[k];
      if (is_mask(operand) != masks || !takes_register(operand)) continue;
      const auto* const end = instruction.operands + arity(instruction.op);
      if (std::find(instruction.operands, instruction.operands + k, operand) != instruction.operands + k) continue;
      const auto times = std::count(instruction.operands, end, operand);
      if (now_named_[operand] == nothing) ++out;  // it is read now
      if (uses_left_[operand] == times) --out;
    }
    return out;
  }

  // The number in ready_.
  [[nodiscard]] std::size_t choose(int cycle) const {
    const bool few_vectors = vectors_ + spare_vectors >= registers_.vectors;
    const bool few_masks = registers_.masks > 0 && masks_ + 1 >= registers_.masks;
    std::size_t best = 0;
    const auto frees = [&](std::uint32_t i) {
      return (few_vectors ? growth(i, false) : 0) + (few_masks ? growth(i, true) : 0);
    };
    const auto better = [&](std::uint32_t a, std::uint32_t b) {
      if (few_vectors || few_masks) {
        const int more_a = frees(a);
        const int more_b = frees(b);
        if (more_a != more_b) return more_a < more_b;
      }
      const int wait_a = std::max(0, ready_at_[a] - cycle);
      const int wait_b = std::max(0, ready_at_[b] - cycle);
      if (wait_a != wait_b) return wait_a < wait_b;
      if (height_[a] != height_[b]) return height_[a] > height_[b];
      return a < b;
    };
    for (std::size_t k = 1; k < ready_.size(); ++k)
      if (better(ready_[k], ready_[best])) best = k;
    return best;
  }

  void put(std::uint32_t i, int cycle) {
    vectors_ += growth(i, false);
    masks_ += growth(i, true);
    VectorInstruction instruction = instructions_[i];
    for (int k = 0; k < arity(instruction.op); ++k) {
      const std::uint32_t operand = instruction.operands[k];
      if (now_named_[operand] == nothing) now_named_[operand] = result_.append(instructions_[operand]);
      instruction.operands[k] = now_named_[operand];
      --uses_left_[operand];
    }
    now_named_[i] = result_.append(instruction);
    for (const std::uint32_t user : users_[i]) {
      ready_at_[user] = std::max(ready_at_[user], cycle + latency(instruction.op));
      if (--waits_for_[user] == 0) ready_.push_back(user);
    }
  }

  const VectorCode& code_;
  const std::vector<VectorInstruction>& instructions_;
  std::vector<char> needed_;
  RegisterFiles registers_;
  std::vector<std::vector<std::uint32_t>> users_;  // an instruction twice where it reads the value twice
  std::vector<int> uses_left_;
  std::vector<int> waits_for_;  // operands that are still to be computed
  std::vector<int> height_;     // cycles from its start to the end
  std::vector<int> ready_at_;
  std::vector<std::uint32_t> now_named_;  // number in the result
  std::vector<std::uint32_t> ready_;
  int vectors_ = 0;
  int masks_ = 0;
  VectorCode result_;
};

}  // namespace

VectorCode scheduled(const VectorCode& code, RegisterFiles registers) { return Scheduler(code, registers).run(); }

}  // namespace chainrule::detail
