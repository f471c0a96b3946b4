// The pointer inside a handle (Graph, State, Program). To use a handle that was moved from is an Error, not a crash.
#pragma once

#include <string_view>
#include <utility>

namespace chainrule::detail {

[[noreturn]] void throw_moved_from(std::string_view noun);

// Pointer: a std::shared_ptr or std::unique_ptr. Noun: what the handle is, for the Error.
template <class Pointer, const auto& Noun>
class Held {
 public:
  Held(Pointer pointer) : pointer_(std::move(pointer)) {}  // NOLINT: made where the handle is

  // Each throws Error where nothing is held.
  [[nodiscard]] const Pointer& pointer() const {
    if (!pointer_) throw_moved_from(Noun);
    return pointer_;
  }
  [[nodiscard]] auto* get() const { return pointer().get(); }
  auto* operator->() const { return get(); }
  auto& operator*() const { return *get(); }
  [[nodiscard]] Pointer take() {
    if (!pointer_) throw_moved_from(Noun);
    return std::move(pointer_);
  }
  explicit operator bool() const { return pointer_ != nullptr; }
  friend bool operator==(const Held&, const Held&) = default;

 private:
  Pointer pointer_;
};

}  // namespace chainrule::detail
