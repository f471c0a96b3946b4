// Attributes: the parameters of a node that are not values of the graph ("axis", "keepdims", "slope").
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <chainrule/framework/dtype.hpp>
#include <chainrule/framework/shape.hpp>

namespace chainrule {

using Axes = std::vector<std::int64_t>;

class Attribute {
 public:
  using Variant = std::variant<bool, std::int64_t, double, DType, std::string, Axes, Shape>;

  Attribute(bool v) : value_(v) {}
  template <std::integral I>
  requires(!std::same_as<I, bool>) Attribute(I v) : value_(static_cast<std::int64_t>(v)) {}
  Attribute(double v) : value_(v) {}
  Attribute(DType v) : value_(v) {}
  Attribute(std::string v) : value_(std::move(v)) {}
  Attribute(const char* v) : value_(std::string(v)) {}
  Attribute(Axes v) : value_(std::move(v)) {}
  Attribute(const Shape& v) : value_(v) {}
  Attribute(const Attribute& other);
  Attribute(Attribute&& other) noexcept = default;
  Attribute& operator=(const Attribute& other) { return *this = Attribute(other); }
  Attribute& operator=(Attribute&& other) noexcept = default;
  ~Attribute() = default;

  [[nodiscard]] const Variant& variant() const { return value_; }
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const Attribute& a, const Attribute& b);

 private:
  Variant value_;
};

// A short list of named attributes; copies share it.
class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string, Attribute>> list);

  [[nodiscard]] const Attribute* find(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const { return find(name) != nullptr; }
  // The attribute as a T of Attribute::Variant (a whole number serves as a double); throws Error where it is
  // missing or of another type.
  template <class T>
  [[nodiscard]] const T& get(std::string_view name) const {
    const Attribute* found = find(name);
    const T* value = found ? std::get_if<T>(&found->variant()) : nullptr;
    if (!value) throw_missing(name, found != nullptr);
    return *value;
  }
  template <class T>
  [[nodiscard]] T get(std::string_view name, T otherwise) const {
    return has(name) ? get<T>(name) : otherwise;
  }
  [[nodiscard]] double number(std::string_view name) const;  // a double or a whole number

  // Calls f(name, attribute) for each.
  template <class F>
  void for_each(F f) const {
    if (!list_) return;
    for (const auto& [name, attribute] : *list_) f(name, attribute);
  }

  // A copy with one attribute set.
  [[nodiscard]] Attributes with(std::string name, Attribute value) const;
  [[nodiscard]] bool empty() const { return !list_; }
  [[nodiscard]] std::string to_string() const;  // "axis=1, keepdims=true"
  [[nodiscard]] std::size_t hash() const;
  friend bool operator==(const Attributes& a, const Attributes& b);

 private:
  [[noreturn]] static void throw_missing(std::string_view name, bool wrong_type);
  using List = std::vector<std::pair<std::string, Attribute>>;
  std::shared_ptr<const List> list_;
};

}  // namespace chainrule
