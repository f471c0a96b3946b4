// Attributes: the parameters of a node that are not values of the graph ("axis", "keepdims", "slope").
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/core/shape.hpp>

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

// A short list of named attributes; copies share it. Those of a node are all that its op declares (class
// DeclaredAttributes below).
class Attributes {
 public:
  Attributes() = default;
  Attributes(std::initializer_list<std::pair<std::string, Attribute>> list);

  [[nodiscard]] const Attribute* find(std::string_view name) const;
  [[nodiscard]] bool has(std::string_view name) const { return find(name) != nullptr; }
  // The attribute as a T of Attribute::Variant; throws Error where it is missing or of another type.
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
  friend class DeclaredAttributes;
  using List = std::vector<std::pair<std::string, Attribute>>;
  explicit Attributes(List list);
  [[noreturn]] static void throw_missing(std::string_view name, bool wrong_type);
  std::shared_ptr<const List> list_;
};

// What an op declares an attribute to be, and what its rules get it as.
enum class AttributeType : std::uint8_t {
  flag,         // bool
  whole,        // std::int64_t
  number,       // double; a whole number serves too
  dtype,        // DType
  text,         // std::string
  list,         // Axes: whole numbers of any meaning
  shape,        // Shape
  extent,       // a Shape of one extent; a whole number serves too
  axis,         // std::int64_t: an axis of the node's first input
  new_axis,     // std::int64_t: an axis that the output has and the first input has not
  axes,         // Axes: axes of the first input, each once, in their order
  permutation,  // Axes: all axes of the first input, each once, in any order
};

// One attribute of an op: its name, its type, and what a node has that is not given it.
class AttributeDeclaration {
 public:
  // Each node must be given it.
  AttributeDeclaration(std::string name, AttributeType type) : name_(std::move(name)), type_(type) {}
  AttributeDeclaration(std::string name, AttributeType type, Attribute otherwise)
      : name_(std::move(name)), type_(type), otherwise_(std::move(otherwise)) {}
  // Of the type of what it is otherwise: {"keepdims", false}, {"slope", 0.01}.
  AttributeDeclaration(std::string name, Attribute otherwise);
  // A node that is not given it does without.
  static AttributeDeclaration optional(std::string name, AttributeType type) {
    AttributeDeclaration out(std::move(name), type);
    out.required_ = false;
    return out;
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] AttributeType type() const { return type_; }
  [[nodiscard]] const std::optional<Attribute>& otherwise() const { return otherwise_; }
  [[nodiscard]] bool required() const { return required_ && !otherwise_; }

 private:
  std::string name_;
  AttributeType type_;
  std::optional<Attribute> otherwise_;
  bool required_ = true;
};

// What an attribute of this value is declared as where nothing more is said.
AttributeType type_of(const Attribute& value);

// The attributes of an op: {{"axes", AttributeType::axes}, {"keepdims", false}}.
class DeclaredAttributes {
 public:
  DeclaredAttributes() = default;
  DeclaredAttributes(std::initializer_list<AttributeDeclaration> list);

  [[nodiscard]] const std::vector<AttributeDeclaration>& list() const { return list_; }
  [[nodiscard]] const AttributeDeclaration* find(std::string_view name) const;
  void add(AttributeDeclaration declaration);

  // What a node has that is given these, where its first input has this rank: all that are declared, in their order,
  // of their types, axes as indices from 0. Throws Error for one that is not declared, given twice, missing or of
  // another type.
  [[nodiscard]] Attributes complete(const Attributes& given, std::size_t rank, std::string_view op, Location at) const;
  // Throws what complete() would whatever the rank.
  void check(const Attributes& given, std::string_view op, Location at) const;
  // Whether a node has nothing but what it has without being given any.
  [[nodiscard]] bool are_defaults(const Attributes& complete) const {
    return !complete.empty() && complete == defaults_;
  }

 private:
  // Null for one that a node does without.
  [[nodiscard]] const Attribute* value_of(const AttributeDeclaration& declared, const Attributes& given,
                                          std::string_view op, Location at) const;
  std::vector<AttributeDeclaration> list_;
  Attributes defaults_;  // where each has one, and none is an axis
};

}  // namespace chainrule
