// A vector whose first N elements need no heap allocation: nodes and steps, of which there are a hundred thousand, have
// lists of a few small things each. Not installed.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <type_traits>
#include <vector>

namespace chainrule::detail {

template <class T, std::size_t N>
requires std::is_trivially_copyable_v<T>
class SmallVector {
 public:
  SmallVector() = default;
  SmallVector(std::initializer_list<T> elements) : SmallVector(elements.begin(), elements.end()) {}
  template <class It>
  SmallVector(It first, It last) {
    for (; first != last; ++first) push_back(*first);
  }
  SmallVector(const SmallVector& other) { *this = other; }
  SmallVector(SmallVector&&) noexcept = default;
  SmallVector& operator=(const SmallVector& other) {
    inline_ = other.inline_;
    size_ = other.size_;
    more_ = other.more_ ? std::make_unique<std::vector<T>>(*other.more_) : nullptr;
    return *this;
  }
  SmallVector& operator=(SmallVector&&) noexcept = default;
  ~SmallVector() = default;

  void push_back(T element) {
    if (size_ < N) {
      inline_[size_] = element;
    } else {
      if (!more_) more_ = std::make_unique<std::vector<T>>(inline_.begin(), inline_.end());
      more_->push_back(element);
    }
    ++size_;
  }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] const T* begin() const { return more_ ? more_->data() : inline_.data(); }
  [[nodiscard]] const T* end() const { return begin() + size_; }
  const T& operator[](std::size_t i) const { return begin()[i]; }
  [[nodiscard]] const T& front() const { return *begin(); }
  friend bool operator==(const SmallVector& a, const SmallVector& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  }

 private:
  std::array<T, N> inline_{};
  std::uint32_t size_ = 0;
  std::unique_ptr<std::vector<T>> more_;  // all of them, where they are more
};

}  // namespace chainrule::detail
