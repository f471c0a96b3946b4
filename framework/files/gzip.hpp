// Files that are compressed by gzip. Not installed.
#pragma once

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>

#include <fmt/core.h>

#include <chainrule/framework/io/numbers.hpp>

namespace chainrule::detail {

// A file that is compressed by gzip, or is not: zlib reads both.
class GzipInput : public Input {
 public:
  explicit GzipInput(const File& file) : file_(file), left_(file.require()) {
    errno = 0;
    stream_.reset(gzopen(file.path.c_str(), "rb"));
    if (!stream_) file.fail(errno != 0 ? std::strerror(errno) : "not enough memory");
    if (gzdirect(stream_.get()) == 0) left_ = inflated_at_most(left_);
  }

  using Input::read;
  std::size_t read(char* to, std::size_t bytes) override {
    constexpr std::size_t chunk = std::size_t{1} << 22;
    std::size_t done = 0;
    while (done < bytes) {
      const std::size_t wanted = std::min(bytes - done, chunk);
      const int got = gzread(stream_.get(), to + done, static_cast<unsigned>(wanted));
      int error = Z_OK;
      const char* const text = gzerror(stream_.get(), &error);
      if (error == Z_BUF_ERROR) file_.fail("truncated: its compressed data ends too early");
      if (got < 0 || error < Z_OK)
        file_.fail(error == Z_ERRNO ? std::strerror(errno) : fmt::format("damaged compressed data ({})", text));
      done += static_cast<std::size_t>(got);
      if (static_cast<std::size_t>(got) < wanted) break;
    }
    left_ -= std::min<std::uint64_t>(left_, done);
    return done;
  }
  [[nodiscard]] std::uint64_t most() const override { return left_; }

 private:
  struct Close {
    void operator()(gzFile_s* stream) const { gzclose(stream); }
  };
  const File& file_;
  std::uint64_t left_;
  std::unique_ptr<gzFile_s, Close> stream_;
};

}  // namespace chainrule::detail
