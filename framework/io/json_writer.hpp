// JSON, written value after value. Not installed.
// A tree of nlohmann::json takes memory to be destroyed, too: where there is none the process would end. A single
// number or string takes none.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>

#include <nlohmann/json.hpp>

namespace chainrule::detail {

class JsonWriter {
 public:
  // `indent` spaces a level on lines of their own, or all on one line.
  explicit JsonWriter(std::size_t indent = 0) : indent_(indent) {}

  void begin_object() { begin('{'); }
  void end_object() { end('}'); }
  void begin_array() { begin('['); }
  void end_array() { end(']'); }
  // The name of the value that follows.
  void key(std::string_view name) {
    value(name);
    text_ += indent_ > 0 ? ": " : ":";
    after_key_ = true;
  }
  // A number, a flag or a string. Throws nlohmann::json::exception for a string that is not in UTF-8.
  template <class T>
  requires std::is_arithmetic_v<T> || std::convertible_to<T, std::string_view>
  void value(const T& leaf) {
    begin_value();
    text_ += nlohmann::json(leaf).dump();
    empty_ = false;
  }
  template <class T>
  void member(std::string_view name, const T& leaf) {
    key(name);
    value(leaf);
  }
  template <class Range>
  void array_member(std::string_view name, const Range& leaves) {
    key(name);
    begin_array();
    for (const auto& leaf : leaves) value(leaf);
    end_array();
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  void begin(char bracket) {
    begin_value();
    text_ += bracket;
    ++depth_;
    empty_ = true;
  }
  void end(char bracket) {
    --depth_;
    if (!empty_) new_line();
    text_ += bracket;
    empty_ = false;
  }
  void begin_value() {
    if (!after_key_ && !empty_) text_ += ',';
    if (!after_key_ && depth_ > 0) new_line();
    after_key_ = false;
  }
  void new_line() {
    if (indent_ > 0) text_.append(1, '\n').append(depth_ * indent_, ' ');
  }

  std::string text_;
  std::size_t indent_;
  std::size_t depth_ = 0;  // of brackets that are open
  bool empty_ = true;      // the innermost of them, so far
  bool after_key_ = false;
};

}  // namespace chainrule::detail
