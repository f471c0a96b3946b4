#include <chainrule/framework/core/shape.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include <fmt/core.h>

namespace chainrule {

// ---- Sizes

bool Sizes::bind(std::int64_t symbol, std::int64_t extent) {
  // In the order of the symbols, so that equal sizes are equal whichever input came first.
  const auto at = std::lower_bound(bound_.begin(), bound_.end(), symbol,
                                   [](const auto& bound, std::int64_t id) { return bound.first < id; });
  if (at != bound_.end() && at->first == symbol) return at->second == extent;
  bound_.emplace(at, symbol, extent);
  return true;
}

const std::int64_t* Sizes::find(std::int64_t symbol) const {
  for (const auto& [id, extent] : bound_)
    if (id == symbol) return &extent;
  return nullptr;
}

// ---- Dimension expressions

namespace {

// An atom is a symbol or floor(polynomial / divisor); a term is coefficient * product of atoms (sorted); a
// polynomial is a sum of terms in the order of their atoms. This form is unique, so equality is equality of forms.
struct Term {
  std::vector<std::int64_t> atoms;
  std::int64_t coefficient = 0;
  friend bool operator==(const Term&, const Term&) = default;
  friend auto operator<=>(const Term&, const Term&) = default;
};
using Polynomial = std::vector<Term>;

struct Atom {
  std::string symbol;    // empty for a quotient
  Polynomial numerator;  // of a quotient
  Polynomial denominator;
  friend auto operator<=>(const Atom&, const Atom&) = default;
};

// Of coefficients and sizes, between -2^63 and 2^63, so that each has a negative.
std::int64_t checked_sum(std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  if (__builtin_add_overflow(a, b, &out) || out == std::numeric_limits<std::int64_t>::min())
    throw Error("dimension", fmt::format("requires sizes below 2^63, got {} + {}", a, b));
  return out;
}

std::int64_t checked_product(std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  if (__builtin_mul_overflow(a, b, &out) || out == std::numeric_limits<std::int64_t>::min())
    throw Error("dimension", fmt::format("requires sizes below 2^63, got {} * {}", a, b));
  return out;
}

Polynomial normal(Polynomial terms) {
  std::sort(terms.begin(), terms.end());
  Polynomial out;
  for (auto& term : terms) {
    if (!out.empty() && out.back().atoms == term.atoms) {
      out.back().coefficient = checked_sum(out.back().coefficient, term.coefficient);
    } else {
      out.push_back(std::move(term));
    }
  }
  std::erase_if(out, [](const Term& t) { return t.coefficient == 0; });
  return out;
}

Polynomial multiply(const Polynomial& a, const Polynomial& b) {
  Polynomial out;
  for (const auto& x : a) {
    for (const auto& y : b) {
      Term term{x.atoms, checked_product(x.coefficient, y.coefficient)};
      term.atoms.insert(term.atoms.end(), y.atoms.begin(), y.atoms.end());
      std::sort(term.atoms.begin(), term.atoms.end());
      out.push_back(std::move(term));
    }
  }
  return normal(std::move(out));
}

// a / b for a one-term b that divides every term of a.
std::optional<Polynomial> divide_exactly(const Polynomial& a, const Polynomial& b) {
  if (b.size() != 1) return a == b ? std::optional<Polynomial>(Polynomial{{{}, 1}}) : std::nullopt;
  Polynomial out;
  for (const auto& term : a) {
    if (term.coefficient % b[0].coefficient != 0) return std::nullopt;
    Term quotient{{}, term.coefficient / b[0].coefficient};
    auto left = term.atoms;
    for (const auto atom : b[0].atoms) {
      const auto it = std::find(left.begin(), left.end(), atom);
      if (it == left.end()) return std::nullopt;
      left.erase(it);
    }
    quotient.atoms = std::move(left);
    out.push_back(std::move(quotient));
  }
  return normal(std::move(out));
}

}  // namespace

namespace {

// Numbers different things 0, 1, ... in the order in which they come.
template <class T>
class Numbering {
 public:
  std::int64_t number(T thing) {
    // Room for its place comes before it has a number: where there is no memory it has neither.
    if (things_.size() == things_.capacity()) things_.reserve(2 * things_.size() + 16);
    const auto [it, added] = numbers_.try_emplace(std::move(thing), static_cast<std::int64_t>(things_.size()));
    if (added) things_.push_back(&it->first);
    return it->second;
  }
  const T& operator[](std::int64_t number) const { return *things_[static_cast<std::size_t>(number)]; }

 private:
  std::map<T, std::int64_t> numbers_;
  std::vector<const T*> things_;
};

}  // namespace

// Interns expressions for the whole process, so that a Dimension is one number. It grows with the distinct
// symbols and expressions of a program's source, not with what runs, and is never emptied.
class DimensionTable {
 public:
  static DimensionTable& instance() {
    static auto* table = new DimensionTable;  // never destroyed: dimensions may be printed during exit
    return *table;
  }

  Dimension make(Polynomial p) {
    if (p.empty()) return Dimension(0);
    if (p.size() == 1 && p[0].atoms.empty()) {
      if (p[0].coefficient < 0)
        throw Error("dimension", fmt::format("requires a size of 0 or more, got {}", p[0].coefficient));
      return Dimension(p[0].coefficient);
    }
    const std::lock_guard lock(mutex_);
    Dimension d;
    d.code_ = -1 - polynomials_.number(std::move(p));
    return d;
  }

  std::int64_t atom(Atom a) {
    const std::lock_guard lock(mutex_);
    return atoms_.number(std::move(a));
  }

  Polynomial polynomial(Dimension d) {
    if (d.is_inferred()) throw Error("dimension", "-1 has no size to compute with");
    if (d.code_ >= 0) return d.code_ == 0 ? Polynomial{} : Polynomial{{{}, d.code_}};
    const std::lock_guard lock(mutex_);
    return polynomials_[-1 - d.code_];
  }

  Atom atom(std::int64_t id) {
    const std::lock_guard lock(mutex_);
    return atoms_[id];
  }

 private:
  std::mutex mutex_;
  Numbering<Polynomial> polynomials_;
  Numbering<Atom> atoms_;
};

namespace {

std::int64_t evaluate_polynomial(const Polynomial& p, const Sizes& sizes);

std::int64_t evaluate_atom(std::int64_t id, const Sizes& sizes) {
  if (const auto* extent = sizes.find(id)) return *extent;
  const Atom atom = DimensionTable::instance().atom(id);
  if (!atom.symbol.empty())
    throw Error("dimension", fmt::format("the size of '{}' follows from no input of this program", atom.symbol));
  const auto a = evaluate_polynomial(atom.numerator, sizes);
  const auto b = evaluate_polynomial(atom.denominator, sizes);
  if (b <= 0) throw Error("dimension", fmt::format("requires a positive divisor, got {}", b));
  return a / b - (a % b < 0 ? 1 : 0);
}

std::int64_t evaluate_polynomial(const Polynomial& p, const Sizes& sizes) {
  std::int64_t sum = 0;
  for (const auto& term : p) {
    std::int64_t product = term.coefficient;
    for (const auto atom : term.atoms) product = checked_product(product, evaluate_atom(atom, sizes));
    sum = checked_sum(sum, product);
  }
  return sum;
}

std::string print(const Polynomial& p);

std::string print_atom(std::int64_t id) {
  const Atom atom = DimensionTable::instance().atom(id);
  if (!atom.symbol.empty()) return atom.symbol;
  return fmt::format("floor(({})/({}))", print(atom.numerator), print(atom.denominator));
}

std::string print(const Polynomial& p) {
  std::string out;
  // The constant term sorts first; people write it last.
  for (std::size_t i = 0; i < p.size(); ++i) {
    const Term& term = p[(i + (p[0].atoms.empty() ? 1 : 0)) % p.size()];
    const auto magnitude = term.coefficient < 0 ? -term.coefficient : term.coefficient;
    if (!out.empty() || term.coefficient < 0) out += term.coefficient < 0 ? "-" : "+";
    if (magnitude != 1 || term.atoms.empty()) out += fmt::format("{}", magnitude);
    for (std::size_t k = 0; k < term.atoms.size(); ++k)
      out += fmt::format("{}{}", k > 0 || magnitude != 1 ? "*" : "", print_atom(term.atoms[k]));
  }
  return out;
}

}  // namespace

std::string Sizes::to_string() const {
  std::string out;
  for (const auto& [id, extent] : bound_)
    out += fmt::format("{}{}={}", out.empty() ? "" : ", ", print_atom(id), extent);
  return out;
}

Dimension Dimension::symbol(std::string_view name) {
  if (name.empty()) throw Error("dimension", "requires a name, got an empty one");
  auto& table = DimensionTable::instance();
  const auto atom = table.atom(Atom{std::string(name), {}, {}});
  return table.make({{{atom}, 1}});
}

void Dimension::throw_negative(std::int64_t extent) {
  throw Error("shape", fmt::format("requires extents of 0 or more, got {}", extent));
}

void Dimension::throw_too_large(std::uint64_t extent) {
  throw Error("shape",
              fmt::format("requires extents below 2^63, got {} (a negative number as an unsigned one?)", extent));
}

std::int64_t Dimension::extent(Location at) const {
  if (!is_number())
    throw Error(at, "dimension",
                fmt::format("requires a number, got '{}', whose size is known only in a run", to_string()));
  return code_;
}

std::int64_t Dimension::evaluate(const Sizes& sizes) const {
  if (is_number()) return code_;
  const auto value = evaluate_polynomial(DimensionTable::instance().polynomial(*this), sizes);
  if (value < 0) throw Error("dimension", fmt::format("requires {} to be 0 or more, got {}", to_string(), value));
  return value;
}

std::int64_t Dimension::symbol_id() const {
  if (is_number() || is_inferred()) return -1;
  const auto p = DimensionTable::instance().polynomial(*this);
  if (p.size() != 1 || p[0].coefficient != 1 || p[0].atoms.size() != 1) return -1;
  return DimensionTable::instance().atom(p[0].atoms[0]).symbol.empty() ? -1 : p[0].atoms[0];
}

namespace {

void add_symbols(const Polynomial& p, std::vector<std::int64_t>& out) {
  for (const Term& term : p)
    for (const std::int64_t id : term.atoms) {
      const Atom atom = DimensionTable::instance().atom(id);
      if (atom.symbol.empty()) {
        add_symbols(atom.numerator, out);
        add_symbols(atom.denominator, out);
      } else if (std::find(out.begin(), out.end(), id) == out.end()) {
        out.push_back(id);
      }
    }
}

}  // namespace

std::vector<std::int64_t> symbols_of(Dimension dimension) {
  std::vector<std::int64_t> out;
  if (!dimension.is_number() && !dimension.is_inferred())
    add_symbols(DimensionTable::instance().polynomial(dimension), out);
  return out;
}

std::string symbol_name(std::int64_t symbol) { return print_atom(symbol); }

std::string Dimension::to_string() const {
  if (is_inferred()) return "-1";
  if (is_number()) return fmt::format("{}", code_);
  return print(DimensionTable::instance().polynomial(*this));
}

Dimension operator+(Dimension a, Dimension b) {
  auto& table = DimensionTable::instance();
  auto sum = table.polynomial(a);
  for (auto& term : table.polynomial(b)) sum.push_back(std::move(term));
  return table.make(normal(std::move(sum)));
}

Dimension operator-(Dimension a, Dimension b) {
  if (a.is_number() && b.is_number() && a.code_ < b.code_)
    throw Error("dimension", fmt::format("requires a difference of 0 or more, got {} - {}", a.code_, b.code_));
  auto& table = DimensionTable::instance();
  auto sum = table.polynomial(a);
  for (auto& term : table.polynomial(b)) sum.push_back({std::move(term.atoms), -term.coefficient});
  return table.make(normal(std::move(sum)));
}

Dimension operator*(Dimension a, Dimension b) {
  if (a.is_number() && b.is_number()) return Dimension(checked_product(a.code_, b.code_));
  auto& table = DimensionTable::instance();
  return table.make(multiply(table.polynomial(a), table.polynomial(b)));
}

Dimension floor_divide(Dimension a, Dimension b) {
  if (b.is(0)) throw Error("dimension", "requires a divisor that is not 0");
  if (a.is_number() && b.is_number()) return Dimension(a.code_ / b.code_);
  auto& table = DimensionTable::instance();
  auto numerator = table.polynomial(a);
  auto denominator = table.polynomial(b);
  if (auto exact = divide_exactly(numerator, denominator)) return table.make(std::move(*exact));
  const auto atom = table.atom(Atom{"", std::move(numerator), std::move(denominator)});
  return table.make({{{atom}, 1}});
}

// ---- shapes

namespace {

template <class T, class Print>
std::string list(const Extents<T>& extents, Print print) {
  std::string out = "{";
  for (std::size_t i = 0; i < extents.rank(); ++i) out += fmt::format("{}{}", i > 0 ? ", " : "", print(extents[i]));
  return out + "}";
}

}  // namespace

std::string to_string(const Shape& shape) {
  return list(shape, [](Dimension d) { return d.to_string(); });
}

std::string to_string(const Dims& dims) {
  return list(dims, [](std::int64_t d) { return d; });
}

std::int64_t count(const Dims& dims) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max() / 8;  // of the widest dtype's 8 bytes
  std::int64_t product = 1;
  bool none = false;
  for (const auto d : dims) {
    if (d == 0) {
      none = true;
    } else if (__builtin_mul_overflow(product, d, &product) || product > most) {
      throw Error("shape", fmt::format("requires fewer than 2^60 elements, got {}", to_string(dims)));
    }
  }
  return none ? 0 : product;
}

Dimension count(const Shape& shape) {
  Dimension product = 1;
  for (const auto d : shape) product = product * d;
  return product;
}

Dims row_major_strides(const Dims& dims) {
  Dims strides = Dims::filled(dims.rank(), 0);
  std::int64_t step = 1;
  for (std::size_t i = dims.rank(); i-- > 0;) {
    strides[i] = dims[i] == 1 ? 0 : step;
    step *= dims[i];
  }
  return strides;
}

Dims broadcast_strides(const Dims& from, const Dims& to) {
  const Dims own = row_major_strides(from);
  Dims strides = Dims::filled(to.rank(), 0);
  const std::size_t lead = to.rank() - from.rank();
  for (std::size_t i = 0; i < from.rank(); ++i) strides[lead + i] = own[i];
  return strides;
}

Dims evaluate(const Shape& shape, const Sizes& sizes) {
  Dims dims;
  for (const auto d : shape) dims.push_back(d.evaluate(sizes));
  return dims;
}

Shape to_shape(const Dims& dims) { return Shape(dims); }

bool broadcast(const Shape& a, const Shape& b, Shape& out) {
  if (a == b) {
    out = a;
    return true;
  }
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  out = longer;
  const std::size_t lead = longer.rank() - shorter.rank();
  for (std::size_t i = 0; i < shorter.rank(); ++i) {
    const Dimension x = longer[lead + i];
    const Dimension y = shorter[i];
    if (x == y || y.is(1)) continue;
    if (!x.is(1)) return false;
    out[lead + i] = y;
  }
  return true;
}

std::size_t normalize_axis(std::int64_t axis, std::size_t rank, std::string_view op, Location at) {
  const auto n = static_cast<std::int64_t>(rank);
  if (axis < -n || axis >= n)
    throw Error(at, op,
                n == 0 ? fmt::format("requires no axis for a scalar, got {}", axis)
                       : fmt::format("requires an axis from {} to {}, got {}", -n, n - 1, axis));
  return static_cast<std::size_t>(axis < 0 ? axis + n : axis);
}

}  // namespace chainrule
