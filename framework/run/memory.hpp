// Memory that grows and is not kept as it grows. Not installed.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace chainrule::detail {

// Memory that is aligned as Array's is, and not written before a run does.
class Memory {
 public:
  // At least so many bytes, whatever was in there.
  void reserve(std::size_t bytes) {
    if (bytes <= bytes_) return;
    clear();
    memory_.reset(static_cast<char*>(::operator new(bytes, alignment)));
    bytes_ = bytes;
  }
  void clear() {
    memory_.reset();
    bytes_ = 0;
  }
  [[nodiscard]] char* data() const { return memory_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(char* memory) const { ::operator delete(memory, alignment); }
  };
  std::unique_ptr<char, Free> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace chainrule::detail
