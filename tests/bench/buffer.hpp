// An array of cache lines of its own.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace bench {

struct FreeBuffer {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
};

// Zeros.
class Buffer {
 public:
  explicit Buffer(std::size_t size = 0) : size_(size), data_(new (std::align_val_t{64}) float[size]()) {}
  [[nodiscard]] float* data() { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  float& operator[](std::size_t i) { return data_[i]; }

 private:
  std::size_t size_;
  std::unique_ptr<float[], FreeBuffer> data_;
};

}  // namespace bench
