// A file to be read, with the words for its errors. Not installed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/core/no_memory.hpp>
#include <chainrule/framework/core/shape.hpp>

namespace chainrule::detail {

// The Error of a file; `found` is what it says after the file's name.
class FileError : public Error {
 public:
  FileError(Location at, std::string_view op, std::string_view message, std::string_view found)
      : Error(at, op, message), found_(found) {}
  [[nodiscard]] const std::string& found() const { return found_; }

 private:
  std::string found_;
};

// An array that is whole in its file, but that no Array can hold: why. A loader of all of a file's arrays lists it as
// skipped, a loader of one makes it an Error (File::guard).
class Unsupported : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A file that a user named.
struct File {
  std::string_view op;      // the function that reads it: "load_npy"
  std::string_view format;  // what it should be: "a NumPy file (.npy)"
  std::string path;
  Location at;

  // Throws the Error "op: requires format, got 'path': found".
  [[noreturn]] void fail(std::string_view found) const;
  // Fails unless it is there, can be read, is no folder and is not empty. Returns its size.
  std::uint64_t require() const;  // NOLINT(modernize-use-nodiscard): also called for its checks alone

  // read(), whose other exceptions become Errors of this file: what is Unsupported, and that memory does not suffice.
  template <class F>
  [[nodiscard]] auto guard(F read) const {
    try {
      return read();
    } catch (const Unsupported& reason) {
      fail(reason.what());
    } catch (const NoMemory&) {
      fail("it takes more memory than there is");
    } catch (const std::bad_alloc&) {
      fail("it takes more memory than there is");
    } catch (const std::length_error&) {
      fail("it takes more memory than there is");
    }
  }
};

// Bytes, one after the other.
class Input {
 public:
  Input() = default;
  virtual ~Input() = default;
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  // Up to `bytes` bytes: fewer at the end only. Fails for what cannot be read or is damaged.
  virtual std::size_t read(char* to, std::size_t bytes) = 0;
  // How many bytes can follow at most: where they are compressed, by the most that the method can do.
  [[nodiscard]] virtual std::uint64_t most() const = 0;

  // Up to `bytes` bytes. Memory grows with what there is, not with what is asked for.
  std::string read(std::size_t bytes);
  // Passes over bytes; returns how many there were.
  virtual std::uint64_t skip(std::uint64_t bytes);
};

// A whole file; fails as require().
class FileInput : public Input {
 public:
  explicit FileInput(const File& file);
  using Input::read;
  std::size_t read(char* to, std::size_t bytes) override;
  [[nodiscard]] std::uint64_t most() const override { return left_; }
  std::uint64_t skip(std::uint64_t bytes) override;

 private:
  const File& file_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream_;
  bool regular_ = true;
  std::uint64_t left_ = 0;
};

// Deflate, as gzip, zip and zlib have it, makes 1032 bytes of one at most (and files have headers).
constexpr std::uint64_t inflated_at_most(std::uint64_t bytes) {
  return bytes > (1ULL << 50) ? ~0ULL : bytes * 1032 + 1024;
}

// The shape that a file says an array has. Throws Unsupported for a rank above 8, and where memory cannot hold so many
// elements of this size, or could not if extents of 0 were 1; fails for negative extents.
Dims checked_shape(const File& file, const std::vector<std::int64_t>& extents, std::size_t element_bytes);
// Throws Unsupported where this process cannot have so much memory.
void check_memory(std::uint64_t bytes);

// As text for an error: printable characters as they are, others as \xNN, cut to `limit` bytes.
std::string printable(std::string_view bytes, std::size_t limit = 40);
// "1.5 GB"
std::string printable_bytes(std::uint64_t bytes);

}  // namespace chainrule::detail
