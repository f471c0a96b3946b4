#include <chainrule/framework/graph/attributes.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>

#include <fmt/core.h>

#include <chainrule/framework/core/printed.hpp>
#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule {

namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace

// The copy constructor of libstdc++ 12's variant crashes where that of an alternative throws, so the alternative is
// copied first.
Attribute::Attribute(const Attribute& other) : value_(false) {
  std::visit([this](auto value) { value_.emplace<decltype(value)>(std::move(value)); }, other.value_);
}

std::string Attribute::to_string() const {
  return std::visit(Overloaded{
                        [](bool v) { return std::string(v ? "true" : "false"); },
                        [](std::int64_t v) { return fmt::format("{}", v); },
                        [](double v) { return fmt::format("{}", detail::printed(v)); },
                        [](DType v) { return std::string(name(v)); },
                        [](const std::string& v) { return v; },
                        [](const Axes& v) {
                          std::string out = "(";
                          for (std::size_t i = 0; i < v.size(); ++i)
                            out += fmt::format("{}{}", i > 0 ? ", " : "", v[i]);
                          return out + ")";
                        },
                        [](const Shape& v) { return chainrule::to_string(v); },
                    },
                    value_);
}

bool operator==(const Attribute& a, const Attribute& b) {
  const auto* x = std::get_if<double>(&a.value_);
  const auto* y = std::get_if<double>(&b.value_);
  if (x && y)  // NaN is the same parameter as NaN, 0 is not -0
    return std::bit_cast<std::uint64_t>(*x) == std::bit_cast<std::uint64_t>(*y);
  return a.value_ == b.value_;
}

Attributes::Attributes(std::initializer_list<std::pair<std::string, Attribute>> list) : Attributes(List(list)) {}

Attributes::Attributes(List list) {
  if (!list.empty()) list_ = std::make_shared<const List>(std::move(list));
}

const Attribute* Attributes::find(std::string_view name) const {
  if (list_)
    for (const auto& [key, value] : *list_)
      if (key == name) return &value;
  return nullptr;
}

double Attributes::number(std::string_view name) const {
  if (const Attribute* found = find(name))
    if (const auto* whole = std::get_if<std::int64_t>(&found->variant())) return static_cast<double>(*whole);
  return get<double>(name);
}

Attributes Attributes::with(std::string name, Attribute value) const {
  auto list = list_ ? std::make_shared<List>(*list_) : std::make_shared<List>();
  for (auto& [key, old] : *list) {
    if (key == name) {
      old = std::move(value);
      Attributes out;
      out.list_ = std::move(list);
      return out;
    }
  }
  list->emplace_back(std::move(name), std::move(value));
  Attributes out;
  out.list_ = std::move(list);
  return out;
}

std::string Attributes::to_string() const {
  std::string out;
  if (list_)
    for (const auto& [key, value] : *list_)
      out += fmt::format("{}{}={}", out.empty() ? "" : ", ", key, value.to_string());
  return out;
}

std::size_t Attributes::hash() const {
  std::size_t out = 0;
  const auto mix = [&out](std::size_t value) { out = out * 0x100000001B3u ^ value; };
  if (list_) {
    for (const auto& [key, value] : *list_) {
      mix(std::hash<std::string>{}(key));
      std::visit(Overloaded{
                     [&](const Axes& axes) {
                       for (const auto axis : axes) mix(static_cast<std::size_t>(axis));
                     },
                     [&](const Shape& shape) {
                       for (const Dimension d : shape) mix(d.hash());
                     },
                     [&](const auto& v) { mix(std::hash<std::remove_cvref_t<decltype(v)>>{}(v)); },
                 },
                 value.variant());
    }
  }
  return out;
}

bool operator==(const Attributes& a, const Attributes& b) {
  if (a.list_ == b.list_) return true;
  if (!a.list_ || !b.list_) return false;
  return *a.list_ == *b.list_;
}

void Attributes::throw_missing(std::string_view name, bool wrong_type) {
  throw Error(detail::scoped({}), "attributes",
              fmt::format("requires attribute '{}'{}", name, wrong_type ? " of another type" : ""));
}

// ---- declarations

AttributeType type_of(const Attribute& value) {
  return std::visit(Overloaded{
                        [](bool) { return AttributeType::flag; },
                        [](std::int64_t) { return AttributeType::whole; },
                        [](double) { return AttributeType::number; },
                        [](DType) { return AttributeType::dtype; },
                        [](const std::string&) { return AttributeType::text; },
                        [](const Axes&) { return AttributeType::list; },
                        [](const Shape&) { return AttributeType::shape; },
                    },
                    value.variant());
}

namespace {

std::string_view describe(AttributeType type) {
  switch (type) {
    case AttributeType::flag: return "true or false";
    case AttributeType::whole: return "a whole number";
    case AttributeType::number: return "a number";
    case AttributeType::dtype: return "a dtype";
    case AttributeType::text: return "a text";
    case AttributeType::list: return "a list of whole numbers";
    case AttributeType::shape: return "a shape";
    case AttributeType::extent: return "an extent";
    case AttributeType::axis:
    case AttributeType::new_axis: return "an axis";
    case AttributeType::axes: return "axes";
    case AttributeType::permutation: break;
  }
  return "a permutation of axes";
}

bool counts_axes(AttributeType type) {
  return type == AttributeType::axis || type == AttributeType::new_axis || type == AttributeType::axes ||
         type == AttributeType::permutation;
}

// The value in the form that rules get, but for axes, which need a rank; nothing where it is of another type.
std::optional<Attribute> converted(const Attribute& value, AttributeType type) {
  const auto* whole = std::get_if<std::int64_t>(&value.variant());
  const AttributeType is = type_of(value);
  if (is == type) return value;
  switch (type) {
    case AttributeType::number: return whole ? std::optional(Attribute(static_cast<double>(*whole))) : std::nullopt;
    case AttributeType::axis:
    case AttributeType::new_axis: return whole ? std::optional(value) : std::nullopt;
    case AttributeType::axes:
    case AttributeType::permutation: return is == AttributeType::list ? std::optional(value) : std::nullopt;
    case AttributeType::extent: {
      if (whole) return *whole >= 0 ? std::optional(Attribute(Shape{Dimension(*whole)})) : std::nullopt;
      const auto* shape = std::get_if<Shape>(&value.variant());
      return shape && shape->rank() == 1 && !(*shape)[0].is_inferred() ? std::optional(value) : std::nullopt;
    }
    default: return std::nullopt;
  }
}

Attribute with_axes_from_0(const Attribute& value, AttributeType type, std::size_t rank, std::string_view op,
                           Location at) {
  if (const auto* axis = std::get_if<std::int64_t>(&value.variant()))
    return normalize_axis(*axis, type == AttributeType::new_axis ? rank + 1 : rank, op, at);
  const Axes& given = std::get<Axes>(value.variant());
  Axes axes;
  for (const auto axis : given) axes.push_back(static_cast<std::int64_t>(normalize_axis(axis, rank, op, at)));
  Axes sorted = axes;
  std::sort(sorted.begin(), sorted.end());
  const bool once = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  if (type == AttributeType::axes) {
    if (!once) throw Error(at, op, fmt::format("requires each axis once, got {}", value.to_string()));
    return sorted;
  }
  if (!once || axes.size() != rank)
    throw Error(at, op, fmt::format("requires a permutation of {} axes, got {}", rank, value.to_string()));
  return axes;
}

// How many letters must be added, taken away or changed to make one word of the other (Levenshtein).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t k = 0; k < b.size(); ++k) {
      const std::size_t changed = diagonal + (a[i] == b[k] ? 0 : 1);
      diagonal = row[k + 1];
      row[k + 1] = std::min({changed, row[k] + 1, row[k + 1] + 1});
    }
  }
  return row.back();
}

// What is required in place of an attribute that is not declared: the name that it is likely to mean, or all.
std::string required_instead_of(std::string_view name, const std::vector<AttributeDeclaration>& declared) {
  if (declared.empty()) return "no attributes";
  const auto nearest = std::min_element(declared.begin(), declared.end(), [&](const auto& a, const auto& b) {
    return distance(name, a.name()) < distance(name, b.name());
  });
  if (distance(name, nearest->name()) * 2 <= std::max(name.size(), nearest->name().size()))
    return fmt::format("attribute '{}'", nearest->name());
  std::string all;
  for (const auto& d : declared) all += fmt::format("{}'{}'", all.empty() ? "" : ", ", d.name());
  return fmt::format("{} {}", declared.size() == 1 ? "no attribute but" : "attributes among", all);
}

}  // namespace

AttributeDeclaration::AttributeDeclaration(std::string name, Attribute otherwise)
    : name_(std::move(name)), type_(type_of(otherwise)), otherwise_(std::move(otherwise)) {}

DeclaredAttributes::DeclaredAttributes(std::initializer_list<AttributeDeclaration> list) {
  for (const auto& declaration : list) add(declaration);
}

const AttributeDeclaration* DeclaredAttributes::find(std::string_view name) const {
  const auto it = std::find_if(list_.begin(), list_.end(), [&](const auto& d) { return d.name() == name; });
  return it == list_.end() ? nullptr : &*it;
}

void DeclaredAttributes::add(AttributeDeclaration declaration) {
  if (find(declaration.name()))
    throw Error("attributes", fmt::format("requires each name once, got '{}' twice", declaration.name()));
  if (declaration.otherwise() && !converted(*declaration.otherwise(), declaration.type()))
    throw Error("attributes", fmt::format("requires {} as '{}', got {}", describe(declaration.type()),
                                          declaration.name(), declaration.otherwise()->to_string()));
  list_.push_back(std::move(declaration));
  Attributes::List all;
  for (const auto& d : list_) {
    if (!d.otherwise() || counts_axes(d.type())) return void(defaults_ = {});
    all.emplace_back(d.name(), *converted(*d.otherwise(), d.type()));
  }
  defaults_ = Attributes(std::move(all));
}

Attributes DeclaredAttributes::complete(const Attributes& given, std::size_t rank, std::string_view op,
                                        Location at) const {
  if (given.empty() && (list_.empty() || !defaults_.empty())) return defaults_;
  check(given, op, at);
  Attributes::List all;
  all.reserve(list_.size());
  for (const auto& d : list_) {
    const Attribute* found = value_of(d, given, op, at);
    if (!found) continue;
    Attribute value = *converted(*found, d.type());
    if (counts_axes(d.type())) value = with_axes_from_0(value, d.type(), rank, op, at);
    all.emplace_back(d.name(), std::move(value));
  }
  if (all.empty()) return {};
  // Nodes that are given one list share it.
  for (const Attributes* same : {&given, &defaults_})
    if (same->list_ && *same->list_ == all) return *same;
  return Attributes(std::move(all));
}

void DeclaredAttributes::check(const Attributes& given, std::string_view op, Location at) const {
  if (given.list_) {
    for (const auto& attribute : *given.list_) {
      const std::string& name = attribute.first;
      if (!find(name))
        throw Error(at, op, fmt::format("requires {}, got '{}'", required_instead_of(name, list_), name));
      if (given.find(name) != &attribute.second)
        throw Error(at, op, fmt::format("requires each attribute once, got '{}' twice", name));
    }
  }
  for (const auto& d : list_) static_cast<void>(value_of(d, given, op, at));
}

const Attribute* DeclaredAttributes::value_of(const AttributeDeclaration& declared, const Attributes& given,
                                              std::string_view op, Location at) const {
  const Attribute* found = given.find(declared.name());
  if (!found && !declared.required()) return declared.otherwise() ? &*declared.otherwise() : nullptr;
  const auto refuse = [&](const std::string& got) {
    throw Error(at, op,
                fmt::format("requires {} as attribute '{}', got {}", describe(declared.type()), declared.name(), got));
  };
  if (!found) refuse("none");
  if (!converted(*found, declared.type()))
    refuse(fmt::format("{} ({})", found->to_string(), describe(type_of(*found))));
  return found;
}

}  // namespace chainrule
