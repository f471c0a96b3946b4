// Machine code for fused groups. Not installed.
#pragma once

#include <cstddef>
#include <memory>

#include <chainrule/framework/fused/vector_code.hpp>

namespace chainrule::detail {

// Runs the code for elements [0, n) of the tiles whose addresses are in the table of slots.
using GeneratedRun = void (*)(char* const* slots, std::size_t n);
// The same for tables of slots that are so many pointers apart, one for each of `rows` > 0.
using GeneratedRunRows = void (*)(char* const* slots, std::size_t n, std::size_t rows, std::size_t apart);

class GeneratedCode {
 public:
  virtual ~GeneratedCode() = default;
  [[nodiscard]] GeneratedRun run() const { return run_; }
  [[nodiscard]] GeneratedRunRows run_rows() const { return run_rows_; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 protected:
  GeneratedRun run_ = nullptr;
  GeneratedRunRows run_rows_ = nullptr;
  std::size_t bytes_ = 0;
};

// Whether generate() can be called: the vector kernels are those for AVX-512 or AVX2 (kernels/vector_table.hpp), the
// system lets a process make code, and the environment variable CHAINRULE_GENERATE is not 0.
bool can_generate();
// Whether it knows code with this micro-operation.
bool can_generate(Micro micro, DType dtype);

// Whether it knows code that reads elements of a dtype and computes in another.
bool can_generate_reading(DType from, DType to);

// Equal codes are generated once for the whole process, while any of them is in use. Safe for threads.
std::shared_ptr<const GeneratedCode> generate(const VectorCode& code);

}  // namespace chainrule::detail
