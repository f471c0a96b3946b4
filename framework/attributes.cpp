#include <chainrule/framework/attributes.hpp>

#include <bit>
#include <cstdint>

#include <fmt/core.h>

#include <chainrule/framework/printed.hpp>

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

Attributes::Attributes(std::initializer_list<std::pair<std::string, Attribute>> list) {
  if (list.size() > 0) list_ = std::make_shared<const List>(list);
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
  throw Error("attributes", fmt::format("requires attribute '{}'{}", name, wrong_type ? " of another type" : ""));
}

}  // namespace chainrule
