// IDX, the format of MNIST: two zero bytes, a type, the number of dimensions, the dimensions (32 bits), the elements;
// all big-endian. Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits".
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include <fmt/core.h>

#include <chainrule/framework/files.hpp>
#include <chainrule/framework/files/numbers.hpp>

namespace chainrule::data {

namespace {

using detail::File;
using detail::StoredType;

// A file that is compressed by gzip, or is not: zlib reads both.
class Stream {
 public:
  explicit Stream(const File& file) : file_(file) {
    file.require();
    errno = 0;
    stream_.reset(gzopen(file.path.c_str(), "rb"));
    if (!stream_) file.fail(errno != 0 ? std::strerror(errno) : "not enough memory");
  }

  // Appends up to `bytes` bytes: fewer at the end of the file.
  void read(std::string& to, std::size_t bytes) {
    constexpr std::size_t chunk = std::size_t{1} << 22;  // what a wrong header asks for is not allocated at once
    while (bytes > 0) {
      const std::size_t before = to.size();
      const std::size_t wanted = std::min(bytes, chunk);
      to.resize(before + wanted);
      const int got = gzread(stream_.get(), to.data() + before, static_cast<unsigned>(wanted));
      int error = Z_OK;
      const char* const text = gzerror(stream_.get(), &error);
      if (error == Z_BUF_ERROR) file_.fail("truncated: its compressed data ends too early");
      if (got < 0 || error < Z_OK)
        file_.fail(error == Z_ERRNO ? std::strerror(errno) : fmt::format("damaged compressed data ({})", text));
      to.resize(before + static_cast<std::size_t>(got));
      bytes -= static_cast<std::size_t>(got);
      if (static_cast<std::size_t>(got) < wanted) return;
    }
  }

 private:
  struct Close {
    void operator()(gzFile_s* stream) const { gzclose(stream); }
  };
  const File& file_;
  std::unique_ptr<gzFile_s, Close> stream_;
};

struct Idx {
  StoredType type;
  Dims shape;
  std::string elements;
};

Idx read_idx(const File& file) {
  Stream stream(file);
  std::string head;
  stream.read(head, 4);
  const auto byte = [](const std::string& bytes, std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i]));
  };
  if (head.size() < 4) file.fail("truncated within the header");
  if (byte(head, 0) != 0 || byte(head, 1) != 0)
    file.fail(fmt::format("no IDX file, it begins with \"{}\" instead of two zero bytes", detail::printable(head)));
  using Kind = StoredType::Kind;
  Idx out;
  switch (byte(head, 2)) {
    case 0x08: out.type = {Kind::unsigned_integer, 1, true}; break;
    case 0x09: out.type = {Kind::signed_integer, 1, true}; break;
    case 0x0b: out.type = {Kind::signed_integer, 2, true}; break;
    case 0x0c: out.type = {Kind::signed_integer, 4, true}; break;
    case 0x0d: out.type = {Kind::floating, 4, true}; break;
    case 0x0e: out.type = {Kind::floating, 8, true}; break;
    default: file.fail(fmt::format("elements of the unknown type 0x{:02x}", byte(head, 2)));
  }
  const std::size_t rank = byte(head, 3);
  std::string sizes;
  stream.read(sizes, 4 * rank);
  if (sizes.size() < 4 * rank) file.fail("truncated within the header");
  std::vector<std::int64_t> extents;
  for (std::size_t i = 0; i < rank; ++i)
    extents.push_back(static_cast<std::int64_t>(byte(sizes, 4 * i) << 24 | byte(sizes, 4 * i + 1) << 16 |
                                                byte(sizes, 4 * i + 2) << 8 | byte(sizes, 4 * i + 3)));
  const std::int64_t count = detail::checked_count(file, extents);
  out.shape = Dims(extents);
  const std::size_t wanted = static_cast<std::size_t>(count) * out.type.bytes;
  stream.read(out.elements, wanted + 1);  // and the end of the file, where zlib compares the checksum
  if (out.elements.size() != wanted)
    file.fail(fmt::format("{}: its header says {} elements of {} bytes, shape {}, but {} follow",
                          out.elements.size() < wanted ? "truncated" : "too long", count, out.type.bytes,
                          to_string(out.shape),
                          out.elements.size() < wanted ? fmt::format("{} bytes", out.elements.size()) : "more"));
  return out;
}

Array load_idx(const File& file) {
  const Idx idx = read_idx(file);
  return detail::decode(file, idx.type, idx.elements.data(), idx.shape);
}

// One half of a set of MNIST's form.
Dataset load_images(const std::string& folder, const std::string& half, Location at) {
  const auto find = [&](const std::string& name) {
    const std::string plain = folder + "/" + name;
    return access(plain.c_str(), F_OK) == 0 || access((plain + ".gz").c_str(), F_OK) != 0 ? plain : plain + ".gz";
  };
  const File images{"load_fashion_mnist", "an IDX file of images (Debian's package dataset-fashion-mnist has it)",
                    find(half + "-images-idx3-ubyte"), at};
  const File labels{"load_fashion_mnist", "an IDX file of labels (Debian's package dataset-fashion-mnist has it)",
                    find(half + "-labels-idx1-ubyte"), at};
  const Idx pixels = read_idx(images);
  if (pixels.shape.rank() != 3 || pixels.type.bytes != 1 || pixels.shape[0] == 0)
    images.fail(
        fmt::format("elements of {} bytes in shape {}, where images have one byte a pixel and shape {{images, "
                    "rows, columns}}",
                    pixels.type.bytes, to_string(pixels.shape)));
  Dataset out;
  out.axis = 0;
  out.x = Array(float32, {pixels.shape[0], pixels.shape[1] * pixels.shape[2]});
  std::transform(pixels.elements.begin(), pixels.elements.end(), out.x.data<float>(),
                 [](char pixel) { return static_cast<float>(static_cast<unsigned char>(pixel)) / 255.0F; });
  out.y = load_idx(labels);
  if (out.y.dtype() != int64 || !(out.y.shape() == Dims{out.x.shape()[0]}))
    labels.fail(fmt::format("{} {}, where {} whole numbers go with the images", name(out.y.dtype()),
                            to_string(out.y.shape()), out.x.shape()[0]));
  return out;
}

}  // namespace

Array load_idx(const std::string& path, Location at) {
  return load_idx(File{"load_idx", "an IDX file, plain or compressed by gzip", path, at});
}

TrainTest load_fashion_mnist(const std::string& folder, Location at) {
  return {load_images(folder, "train", at), load_images(folder, "t10k", at)};
}

std::string fashion_mnist_folder() { return "/usr/share/datasets/fashion-mnist"; }

}  // namespace chainrule::data
