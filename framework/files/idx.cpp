// IDX, the format of MNIST: two zero bytes, a type, the number of dimensions, the dimensions (32 bits), the elements;
// all big-endian. Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits".
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include <fmt/core.h>

#include <chainrule/framework/files/files.hpp>
#include <chainrule/framework/files/gzip.hpp>
#include <chainrule/framework/io/numbers.hpp>

namespace chainrule::data {

namespace {

using detail::File;
using detail::GzipInput;
using detail::StoredType;

// An open file whose elements follow.
struct Idx {
  explicit Idx(const File& named) : file(named), stream(named) {}
  // Reads them all, as a dtype. At the end of the file zlib compares the checksum.
  Array read(DType dtype) {
    Array out = detail::decode(file, stream, type, shape, {}, dtype);
    detail::require_end(file, stream, type, shape);
    return out;
  }

  const File& file;
  GzipInput stream;
  StoredType type{};
  Dims shape;
};

void read_header(Idx& idx) {
  const File& file = idx.file;
  const std::string head = idx.stream.read(4);
  const auto byte = [](const std::string& bytes, std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i]));
  };
  if (head.size() < 4) file.fail("truncated within the header");
  if (byte(head, 0) != 0 || byte(head, 1) != 0)
    file.fail(fmt::format("no IDX file, it begins with \"{}\" instead of two zero bytes", detail::printable(head)));
  using Kind = StoredType::Kind;
  switch (byte(head, 2)) {
    case 0x08: idx.type = {Kind::unsigned_integer, 1, true}; break;
    case 0x09: idx.type = {Kind::signed_integer, 1, true}; break;
    case 0x0b: idx.type = {Kind::signed_integer, 2, true}; break;
    case 0x0c: idx.type = {Kind::signed_integer, 4, true}; break;
    case 0x0d: idx.type = {Kind::floating, 4, true}; break;
    case 0x0e: idx.type = {Kind::floating, 8, true}; break;
    default: file.fail(fmt::format("elements of the unknown type 0x{:02x}", byte(head, 2)));
  }
  const std::size_t rank = byte(head, 3);
  const std::string sizes = idx.stream.read(4 * rank);
  if (sizes.size() < 4 * rank) file.fail("truncated within the header");
  std::vector<std::int64_t> extents;
  for (std::size_t i = 0; i < rank; ++i)
    extents.push_back(static_cast<std::int64_t>(byte(sizes, 4 * i) << 24 | byte(sizes, 4 * i + 1) << 16 |
                                                byte(sizes, 4 * i + 2) << 8 | byte(sizes, 4 * i + 3)));
  idx.shape = detail::checked_shape(file, extents, idx.type.bytes);
}

Array load_idx(const File& file) {
  return file.guard([&] {
    Idx idx(file);
    read_header(idx);
    return idx.read(idx.type.dtype());
  });
}

// One half of a set of MNIST's form.
Dataset load_images(const std::string& folder, const std::string& half, Location at) {
  // The name as the set was published; with a dot, as some unpack it.
  const auto find = [&](const std::string& what, const std::string& kind) {
    std::string usual = fmt::format("{}/{}-{}-{}", folder, half, what, kind);
    for (const std::string& path : {usual, fmt::format("{}/{}-{}.{}", folder, half, what, kind)})
      for (const char* const suffix : {"", ".gz"})
        if (access((path + suffix).c_str(), F_OK) == 0) return path + suffix;
    return usual;
  };
  const File images{"load_fashion_mnist", "an IDX file of images (Debian's package dataset-fashion-mnist has it)",
                    find("images", "idx3-ubyte"), at};
  const File labels{"load_fashion_mnist", "an IDX file of labels (Debian's package dataset-fashion-mnist has it)",
                    find("labels", "idx1-ubyte"), at};
  Dataset out;
  out.axis = 0;
  out.x = images.guard([&] {
    Idx pixels(images);
    read_header(pixels);
    const Dims shape = pixels.shape;
    if (shape.rank() != 3 || pixels.type.bytes != 1 || shape[0] == 0)
      images.fail(
          fmt::format("elements of {} bytes in shape {}, where images have one byte a pixel and shape {{images, "
                      "rows, columns}}",
                      pixels.type.bytes, to_string(shape)));
    pixels.type.kind = StoredType::Kind::unsigned_integer;
    Array shades = pixels.read(float32).reshape({shape[0], shape[1] * shape[2]});
    for (auto* shade = shades.data<float>(); shade != shades.data<float>() + shades.size(); ++shade) *shade /= 255.0F;
    return shades;
  });
  out.y = load_idx(labels);
  if (is_integer(out.y.dtype())) out.y = out.y.astype(int64);
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
