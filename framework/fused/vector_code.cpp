#include <chainrule/framework/fused/vector_code.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/kernels/vector_math.hpp>

namespace chainrule::detail {

// The machine of kernels/vector_math.hpp that records.
template <class Type>
class Recorder {
 public:
  using T = Type;
  using V = std::uint32_t;
  struct Mask {
    std::uint32_t value;
  };

  explicit Recorder(VectorCode& code) : code_(code) {}

  V number(double x) { return code_.append(constant_of(x)); }
  // A change of sign becomes part of a sum.
  V add(V a, V b) {
    if (const auto minus = negated(b)) return sub(a, *minus);
    if (const auto minus = negated(a)) return sub(b, *minus);
    return commuting(VectorOp::add, a, b);
  }
  V sub(V a, V b) {
    if (const auto minus = negated(b)) return commuting(VectorOp::add, a, *minus);
    return code_.append({VectorOp::sub, 0, {a, b}});
  }
  // That of a product which is there is no new product.
  V mul(V a, V b) {
    for (int k = 0; k < 2; ++k, std::swap(a, b))
      if (const auto minus = negated(a))
        if (const auto product = known(VectorOp::mul, *minus, b)) return kernels::negative(*this, *product);
    return commuting(VectorOp::mul, a, b);
  }
  V div(V a, V b) { return code_.append({VectorOp::div, 0, {a, b}}); }
  V sqrt(V a) { return code_.append({VectorOp::sqrt, 0, {a}}); }
  // exp(x) cuts its operand from above, which one that is not positive does not need.
  V min(V a, V b) {
    if (is_positive(a) && is_never_positive(b)) return b;
    return code_.append({VectorOp::min, 0, {a, b}});
  }
  V max(V a, V b) { return code_.append({VectorOp::max, 0, {a, b}}); }
  V fma(V a, V b, V c) { return code_.append({VectorOp::fma, 0, {a, b, c}}); }
  V nfma(V a, V b, V c) { return code_.append({VectorOp::nfma, 0, {a, b, c}}); }
  V round(V a) { return code_.append({VectorOp::round, 0, {a}}); }
  V floor(V a) { return code_.append({VectorOp::floor, 0, {a}}); }
  V ceil(V a) { return code_.append({VectorOp::ceil, 0, {a}}); }
  V scale(V a, V n) { return code_.append({VectorOp::scale, 0, {a, n}}); }
  V mantissa(V a) { return code_.append({VectorOp::mantissa, 0, {a}}); }
  V exponent(V a) { return code_.append({VectorOp::exponent, 0, {a}}); }
  V bit_and(V a, V b) { return commuting(VectorOp::bit_and, a, b); }
  V bit_or(V a, V b) { return commuting(VectorOp::bit_or, a, b); }
  // -(-x) = x, and -|x| sets a bit.
  V bit_xor(V a, V b) {
    if (is_sign(b)) {
      const VectorInstruction& inner = code_.instructions()[a];
      if (inner.op == VectorOp::bit_xor && inner.operands[1] == b) return inner.operands[0];
      if (inner.op == VectorOp::bit_andnot && inner.operands[0] == b) return bit_or(inner.operands[1], b);
    }
    return code_.append({VectorOp::bit_xor, 0, {a, b}});
  }
  // A magnitude does not know of a change of sign.
  V bit_andnot(V a, V b) {
    const VectorInstruction& inner = code_.instructions()[b];
    if (inner.op == VectorOp::bit_xor && inner.operands[1] == a && constant(a)) b = inner.operands[0];
    return code_.append({VectorOp::bit_andnot, 0, {a, b}});
  }
  V select(Mask mask, V a, V b) { return code_.append({VectorOp::select, 0, {mask.value, a, b}}); }
  V sin_of(Mask mask, V x, V y) { return code_.append({VectorOp::sin_of, 0, {mask.value, x, y}}); }
  V cos_of(Mask mask, V x, V y) { return code_.append({VectorOp::cos_of, 0, {mask.value, x, y}}); }
  Mask less(V a, V b) { return {code_.append({VectorOp::less, 0, {a, b}})}; }
  Mask less_equal(V a, V b) {
    if (const auto minus = negated(b); minus && code_.instructions()[a] == constant_of(0))
      return {code_.append({VectorOp::less_equal, 0, {*minus, a}})};
    return {code_.append({VectorOp::less_equal, 0, {a, b}})};
  }
  Mask equal(V a, V b) { return {code_.append({VectorOp::equal, 0, {a, b}})}; }
  Mask is_nan(V a) { return {code_.append({VectorOp::is_nan, 0, {a}})}; }
  Mask not_less_equal(V a, V b) { return {code_.append({VectorOp::not_less_equal, 0, {a, b}})}; }

  // 1 or 0, by a mask, which a select that follows takes itself.
  V flag(Mask mask) {
    const V value = select(mask, number(1), number(0));
    code_.mask_of_.emplace(value, mask.value);
    return value;
  }
  V choose(V c, V a, V b) {
    if (const auto known = code_.mask_of_.find(c); known != code_.mask_of_.end()) return select({known->second}, a, b);
    return select(equal(c, number(0)), b, a);
  }

  V record(Micro micro, V a, V b, V c) {
    namespace k = kernels;
    switch (micro) {
      case Micro::copy: return a;  // store() knows what to do where that was only read
      case Micro::neg: return k::negative(*this, a);
      case Micro::abs: return k::magnitude(*this, a);
      case Micro::sign: {
        const V negative = select(less(a, number(0)), number(-1), a);  // a itself for 0 and NaN
        return select(less(number(0), a), number(1), negative);
      }
      case Micro::square: return mul(a, a);
      case Micro::sqrt: return sqrt(a);
      case Micro::exp: return k::exp(*this, a);
      case Micro::expm1: return k::expm1(*this, a);
      case Micro::tanh: return k::tanh(*this, a);
      case Micro::sigmoid: return k::sigmoid(*this, a);
      case Micro::floor: return floor(a);
      case Micro::ceil: return ceil(a);
      case Micro::logical_not: return flag(equal(a, number(0)));
      case Micro::add: return add(a, b);
      case Micro::sub: return sub(a, b);
      case Micro::mul: return mul(a, b);
      case Micro::div: return div(a, b);
      // With a constant, which is no NaN, fewer instructions do.
      case Micro::maximum:
        if (constant(a)) return max(a, b);
        if (constant(b)) return select(not_less_equal(a, b), a, b);
        return k::maximum(*this, a, b);
      case Micro::minimum:
        if (constant(a)) return min(a, b);
        if (constant(b)) return select(not_less_equal(b, a), a, b);
        return k::minimum(*this, a, b);
      case Micro::less: return flag(less(a, b));
      case Micro::less_equal: return flag(less_equal(a, b));
      case Micro::equal: return flag(equal(a, b));
      case Micro::not_equal: {
        const V value = select(equal(a, b), number(0), number(1));
        return value;
      }
      case Micro::select: return choose(a, b, c);
      case Micro::log: return k::log(*this, a);
      case Micro::log1p: return k::log1p(*this, a);
      case Micro::erf: return k::erf(*this, a);
      case Micro::sin: return k::sin(*this, a);
      case Micro::cos: return k::cos(*this, a);
      case Micro::pow: return k::pow(*this, a, b);
    }
    invariant(false, "a micro-operation that vector code does not have");
    return a;
  }

 private:
  V commuting(VectorOp op, V a, V b) {
    if (a > b) std::swap(a, b);
    return code_.append({op, 0, {a, b}});
  }
  [[nodiscard]] bool constant(V v) const { return code_.instructions()[v].op == VectorOp::constant; }

  static VectorInstruction constant_of(double x) {
    const T rounded = static_cast<T>(x);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &rounded, sizeof rounded);
    return {VectorOp::constant, 0, {}, bits};
  }
  // A constant's value; NaN of what is none.
  [[nodiscard]] T value_of(V v) const {
    T out = std::numeric_limits<T>::quiet_NaN();
    if (constant(v)) std::memcpy(&out, &code_.instructions()[v].bits, sizeof out);
    return out;
  }

  // ---- what is known of a value's sign (numbers that are NaN have any)

  [[nodiscard]] bool is_sign(V v) const { return code_.instructions()[v] == constant_of(-0.0); }
  // x where v is -x
  [[nodiscard]] std::optional<V> negated(V v) const {
    const VectorInstruction& i = code_.instructions()[v];
    if (i.op == VectorOp::bit_xor && is_sign(i.operands[1])) return i.operands[0];
    return std::nullopt;
  }
  [[nodiscard]] bool is_positive(V v) const { return value_of(v) > 0; }
  [[nodiscard]] bool is_negative(V v) const { return value_of(v) < 0; }
  [[nodiscard]] bool is_magnitude(V v) const {
    const VectorInstruction& i = code_.instructions()[v];
    return i.op == VectorOp::bit_andnot && is_sign(i.operands[0]);
  }
  // -|x|, -c |x|, -x x, and the greater of one of these and -c
  [[nodiscard]] bool is_never_positive(V v) const {
    const VectorInstruction& i = code_.instructions()[v];
    const V a = i.operands[0];
    const V b = i.operands[1];
    switch (i.op) {
      case VectorOp::bit_or: return is_sign(a) || is_sign(b);
      case VectorOp::bit_xor: return is_sign(b) && is_square(a);
      case VectorOp::mul:
        return (is_negative(a) && is_magnitude(b)) || (is_negative(b) && is_magnitude(a)) || negated(a) == b ||
               negated(b) == a;
      case VectorOp::max: return is_negative(a) && is_never_positive(b);
      default: return false;
    }
  }
  [[nodiscard]] bool is_square(V v) const {
    const VectorInstruction& i = code_.instructions()[v];
    return i.op == VectorOp::mul && i.operands[0] == i.operands[1];
  }

  [[nodiscard]] std::optional<V> known(VectorOp op, V a, V b) const {
    if (a > b) std::swap(a, b);
    const auto it = code_.known_.find({op, 0, {a, b}});
    return it == code_.known_.end() ? std::nullopt : std::optional<V>(it->second);
  }

  VectorCode& code_;
};

int arity(VectorOp op) {
  switch (op) {
    case VectorOp::stream:
    case VectorOp::scalar:
    case VectorOp::number:
    case VectorOp::constant: return 0;
    case VectorOp::sqrt:
    case VectorOp::round:
    case VectorOp::floor:
    case VectorOp::ceil:
    case VectorOp::mantissa:
    case VectorOp::exponent:
    case VectorOp::is_nan: return 1;
    case VectorOp::fma:
    case VectorOp::nfma:
    case VectorOp::select:
    case VectorOp::sin_of:
    case VectorOp::cos_of: return 3;
    default: return 2;
  }
}

std::size_t VectorCode::Hash::operator()(const VectorInstruction& i) const {
  std::uint64_t h = static_cast<std::uint64_t>(i.op) * 0x9E3779B97F4A7C15U + i.index;
  for (const std::uint64_t x :
       {std::uint64_t{i.operands[0]}, std::uint64_t{i.operands[1]}, std::uint64_t{i.operands[2]}, i.bits}) {
    h = (h ^ x) * 0xBF58476D1CE4E5B9U;
    h ^= h >> 29;
  }
  return static_cast<std::size_t>(h);
}

bool VectorCode::has(Micro /*micro*/, DType dtype) { return dtype == float32 || dtype == float64; }

std::uint32_t VectorCode::append(VectorInstruction instruction) {
  const auto [it, made] = known_.try_emplace(instruction, static_cast<std::uint32_t>(instructions_.size()));
  if (made) instructions_.push_back(instruction);
  return it->second;
}

bool VectorCode::converts(DType from, DType to) {
  return is_floating(to) && (from == uint8 || from == boolean || from == int32);
}

std::uint32_t VectorCode::stream(Slot slot, DType in_memory) {
  return append({VectorOp::stream, slot, {}, in_memory == dtype_ ? 0 : 1 + static_cast<std::uint64_t>(in_memory)});
}
std::uint32_t VectorCode::scalar(Slot slot) { return append({VectorOp::scalar, slot, {}}); }
std::uint32_t VectorCode::number(Slot numbers, std::size_t i, double value) {
  if (std::abs(value) <= 16 && value * 2 == std::floor(value * 2))
    return dtype_ == float32 ? Recorder<float>(*this).number(value) : Recorder<double>(*this).number(value);
  return append({VectorOp::number, numbers, {}, static_cast<std::uint64_t>(i)});
}

void VectorCode::store(std::uint32_t value, Slot slot, bool whole, Slot overwrites) {
  if (is_read(instructions_[value].op)) value = append({VectorOp::bit_or, 0, {value, value}});
  stores_.push_back({value, slot, whole, overwrites});
}

std::uint32_t VectorCode::micro(Micro micro, std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  if (dtype_ == float32) return Recorder<float>(*this).record(micro, a, b, c);
  return Recorder<double>(*this).record(micro, a, b, c);
}

std::vector<char> VectorCode::needed() const {
  std::vector<char> out(instructions_.size(), 0);
  for (const VectorStore& s : stores_) out[s.value] = 1;
  for (std::size_t i = instructions_.size(); i-- > 0;) {
    if (!out[i]) continue;
    for (int k = 0; k < arity(instructions_[i].op); ++k) out[instructions_[i].operands[k]] = 1;
  }
  return out;
}

std::string VectorCode::key() const {
  std::string out(1, static_cast<char>(dtype_));
  const auto put = [&out](auto x) { out.append(reinterpret_cast<const char*>(&x), sizeof x); };
  for (const VectorInstruction& i : instructions_) {
    put(i.op);
    put(i.index);
    for (int k = 0; k < arity(i.op); ++k) put(i.operands[k]);
    put(i.bits);
  }
  out += '|';
  for (const VectorStore& s : stores_) {
    put(s.value);
    put(s.slot);
    put(s.whole);
    put(s.overwrites);
  }
  return out;
}

}  // namespace chainrule::detail
