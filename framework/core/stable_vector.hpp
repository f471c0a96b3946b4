// A vector whose elements stay where they are while it grows: rules and passes hold references to nodes and their
// shapes while they append others. Not installed.
#pragma once

#include <cstddef>
#include <iterator>
#include <memory>
#include <vector>

namespace chainrule::detail {

template <class T>
class StableVector {
 public:
  StableVector() = default;
  StableVector(const StableVector&) = delete;
  StableVector& operator=(const StableVector&) = delete;
  ~StableVector() { truncate(0); }

  [[nodiscard]] std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return chunks_[i / chunk_size][i % chunk_size]; }
  const T& operator[](std::size_t i) const { return chunks_[i / chunk_size][i % chunk_size]; }
  T& back() { return (*this)[size_ - 1]; }

  void push_back(T value) {
    // The chunk has an owner before the list of them grows, for which there may be no memory.
    if (size_ == chunks_.size() * chunk_size) chunks_.push_back(Chunk(std::allocator<T>().allocate(chunk_size)));
    std::construct_at(&chunks_[size_ / chunk_size][size_ % chunk_size], std::move(value));
    ++size_;
  }
  void pop_back() { std::destroy_at(&(*this)[--size_]); }
  // Drops the elements from `size` on.
  void truncate(std::size_t size) {
    while (size_ > size) pop_back();
  }

  class Iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    using pointer = const T*;
    using reference = const T&;
    Iterator() = default;
    Iterator(const StableVector* owner, std::size_t i) : owner_(owner), i_(i) {}
    reference operator*() const { return (*owner_)[i_]; }
    pointer operator->() const { return &(*owner_)[i_]; }
    Iterator& operator++() {
      ++i_;
      return *this;
    }
    Iterator operator++(int) { return {owner_, i_++}; }
    friend Iterator operator+(Iterator it, std::size_t n) { return {it.owner_, it.i_ + n}; }
    friend bool operator==(Iterator a, Iterator b) { return a.i_ == b.i_; }

   private:
    const StableVector* owner_ = nullptr;
    std::size_t i_ = 0;
  };
  [[nodiscard]] Iterator begin() const { return {this, 0}; }
  [[nodiscard]] Iterator end() const { return {this, size_}; }

 private:
  static constexpr std::size_t chunk_size = 64;
  struct Free {
    void operator()(T* chunk) const { std::allocator<T>().deallocate(chunk, chunk_size); }
  };
  using Chunk = std::unique_ptr<T[], Free>;
  std::vector<Chunk> chunks_;  // what follows element size_ - 1 is memory only
  std::size_t size_ = 0;
};

}  // namespace chainrule::detail
