// Arrays as images in PNG. Source: the specification of Portable Network Graphics, second edition (ISO/IEC 15948).
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include <fmt/core.h>

#include <chainrule/framework/files/plot.hpp>
#include <chainrule/framework/io/atomic_file.hpp>

namespace chainrule::plot {

namespace {

using namespace std::string_view_literals;

constexpr auto* op = "save_images";

// Most significant byte first.
std::string big_endian(std::uint32_t number) {
  std::string out;
  for (const unsigned shift : {24U, 16U, 8U, 0U}) out += static_cast<char>(number >> shift & 255U);
  return out;
}

std::string chunk(std::string_view type, std::string_view data) {
  std::string checked(type);
  checked += data;
  const auto crc = crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size()));
  return big_endian(static_cast<std::uint32_t>(data.size())) + checked + big_endian(static_cast<std::uint32_t>(crc));
}

// Rows of pixels, a byte for each of the channels.
struct Pixels {
  std::int64_t width = 0;
  std::int64_t height = 0;
  std::int64_t channels = 1;
  std::string bytes = {};
};

std::string png(const Pixels& pixels) {
  const auto row = static_cast<std::size_t>(pixels.width * pixels.channels);
  std::string filtered;  // each row begins with its filter: none
  for (std::size_t i = 0; i < pixels.bytes.size(); i += row) filtered.append(1, '\0').append(pixels.bytes, i, row);
  uLongf size = compressBound(filtered.size());
  std::string packed(size, '\0');
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(filtered.data()),
           filtered.size());
  packed.resize(size);
  std::string header = big_endian(static_cast<std::uint32_t>(pixels.width));
  header += big_endian(static_cast<std::uint32_t>(pixels.height));
  header += '\x08';                                // bits
  header += pixels.channels == 3 ? '\x02' : '\0';  // colours or grey
  header += "\0\0\0"sv;                            // compression, filters and order: the only ones
  return "\x89PNG\r\n\x1A\n" + chunk("IHDR", header) + chunk("IDAT", packed) + chunk("IEND", "");
}

Range range_of(const Array& images) {
  Range out{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (std::int64_t i = 0; i < images.size(); ++i) {
    if (!std::isfinite(images[i])) continue;
    out.low = std::min(out.low, images[i]);
    out.high = std::max(out.high, images[i]);
  }
  return out;
}

char brightness(double number, const Range& range) {
  const double share = (number - range.low) / (range.high - range.low);
  return static_cast<char>(share > 0 ? std::lround(255 * std::min(share, 1.0)) : 0);  // NaN: no share
}

// Images with a middle grey of one pixel around each.
Pixels grid(const Array& images, const ImageGridOptions& options, std::int64_t columns, const Range& range) {
  const bool has_channels = images.rank() == 4;
  const std::int64_t n = images.shape()[0];
  const std::int64_t channels = has_channels ? images.shape()[1] : 1;
  const std::int64_t height = images.shape()[images.rank() - 2];
  const std::int64_t width = images.shape()[images.rank() - 1];
  const std::int64_t scale = options.scale;
  Pixels out{.width = columns * (width * scale + 1) + 1,
             .height = (n + columns - 1) / columns * (height * scale + 1) + 1,
             .channels = channels};
  out.bytes.assign(static_cast<std::size_t>(out.width * out.height * channels), '\x80');
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t top = i / columns * (height * scale + 1) + 1;
    const std::int64_t left = i % columns * (width * scale + 1) + 1;
    for (std::int64_t y = 0; y < height * scale; ++y)
      for (std::int64_t x = 0; x < width * scale; ++x)
        for (std::int64_t c = 0; c < channels; ++c) {
          const double number = images[((i * channels + c) * height + y / scale) * width + x / scale];
          const std::int64_t place = ((top + y) * out.width + left + x) * channels + c;
          out.bytes[static_cast<std::size_t>(place)] = brightness(number, range);
        }
  }
  return out;
}

}  // namespace

void save_images(const std::string& path, const Array& images, const ImageGridOptions& options, Location at) {
  if (!path.ends_with(".png"))
    throw Error(at, op, fmt::format("requires a file name that ends with .png, got '{}'", path));
  const Dims& shape = images.shape();
  if (images.rank() < 3 || images.rank() > 4 || (images.rank() == 4 && shape[1] != 1 && shape[1] != 3) ||
      images.size() == 0)
    throw Error(
        at, op,
        fmt::format("requires images {{n, height, width}} or {{n, 1 or 3, height, width}}, got {}", to_string(shape)));
  if (options.columns < 0 || options.scale < 1)
    throw Error(at, op,
                fmt::format("requires columns of 0 or more and a scale of 1 or more, got {} and {}", options.columns,
                            options.scale));
  if (options.range && !(options.range->low < options.range->high))
    throw Error(at, op,
                fmt::format("requires a range whose low is below its high, got {} to {}", options.range->low,
                            options.range->high));
  const auto about = static_cast<std::int64_t>(std::ceil(std::sqrt(static_cast<double>(shape[0]))));
  const std::int64_t columns = std::min(options.columns > 0 ? options.columns : about, shape[0]);
  detail::AtomicFile file(path, op, at);
  const std::string picture = png(grid(images, options, columns, options.range.value_or(range_of(images))));
  file.write(picture.data(), picture.size());
  file.commit();
}

}  // namespace chainrule::plot
