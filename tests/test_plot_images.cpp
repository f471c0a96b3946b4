// save_images(): the files are taken apart here by the format's description, with zlib alone.
#include <chainrule/chainrule.hpp>

#include <zlib.h>

#include <cmath>
#include <string>
#include <string_view>

#include "catch.hpp"
#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::plot::save_images;
using chainrule::test::error_text;
using chainrule::test::TemporaryFolder;

namespace {

std::uint32_t number(std::string_view bytes) {
  std::uint32_t out = 0;
  for (const char c : bytes.substr(0, 4)) out = out << 8 | static_cast<unsigned char>(c);
  return out;
}

struct Picture {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint32_t channels = 0;
  std::string bytes;  // of the pixels, row by row
  [[nodiscard]] int at(std::uint32_t x, std::uint32_t y, std::uint32_t channel = 0) const {
    return static_cast<unsigned char>(bytes.at((y * width + x) * channels + channel));
  }
};

Picture picture_of(const std::string& file) {
  std::string_view rest = file;
  REQUIRE(rest.substr(0, 8) == "\x89PNG\r\n\x1A\n");
  rest.remove_prefix(8);
  Picture out;
  std::string packed;
  std::string types;
  while (!rest.empty()) {
    const std::size_t size = number(rest);
    REQUIRE(rest.size() >= size + 12);
    const auto checked = rest.substr(4, size + 4);
    CHECK(number(rest.substr(size + 8)) ==
          crc32(0, reinterpret_cast<const Bytef*>(checked.data()), static_cast<uInt>(checked.size())));
    const auto data = checked.substr(4);
    types += checked.substr(0, 4);
    if (checked.starts_with("IHDR")) {
      REQUIRE(data.size() == 13);
      out.width = number(data);
      out.height = number(data.substr(4));
      CHECK(data[8] == 8);
      REQUIRE((data[9] == 0 || data[9] == 2));
      out.channels = data[9] == 2 ? 3 : 1;
      CHECK(data.substr(10) == std::string_view("\0\0\0", 3));
    } else if (checked.starts_with("IDAT")) {
      packed += data;
    }
    rest.remove_prefix(size + 12);
  }
  CHECK(types == "IHDRIDATIEND");
  const std::size_t row = out.width * out.channels;
  std::string filtered((row + 1) * out.height, '\0');
  uLongf size = filtered.size();
  REQUIRE(uncompress(reinterpret_cast<Bytef*>(filtered.data()), &size, reinterpret_cast<const Bytef*>(packed.data()),
                     packed.size()) == Z_OK);
  REQUIRE(size == filtered.size());
  for (std::uint32_t y = 0; y < out.height; ++y) {
    REQUIRE(filtered[y * (row + 1)] == 0);
    out.bytes += filtered.substr(y * (row + 1) + 1, row);
  }
  return out;
}

Picture saved(const Array& images, const chainrule::plot::ImageGridOptions& options = {}) {
  const TemporaryFolder folder;
  save_images(folder / "it.png", images, options);
  CHECK(folder.files() == 1);
  return picture_of(chainrule::test::read_file(folder / "it.png"));
}

}  // namespace

TEST_CASE("images stand in rows with a line between them, from the least number in black to the greatest in white") {
  // Three images of one row and two columns: 0 to 10, two a row.
  const Array images = Array({0, 2.5, 5, 7.5, 10, 1}).reshape({3, 1, 2});
  const Picture picture = saved(images);
  REQUIRE((picture.width == 7 && picture.height == 5 && picture.channels == 1));
  const int line = 128;
  // round(255 x / 10)
  const std::string expected = {char(line), char(line), char(line), char(line), char(line), char(line), char(line),
                                char(line), char(0),    char(64),   char(line), char(128),  char(191),  char(line),
                                char(line), char(line), char(line), char(line), char(line), char(line), char(line),
                                char(line), char(255),  char(26),   char(line), char(line), char(line), char(line),
                                char(line), char(line), char(line), char(line), char(line), char(line), char(line)};
  CHECK(picture.bytes == expected);
}

TEST_CASE("images in colour, larger, of a range of one's own, of any dtype") {
  Array images(chainrule::float32, {1, 3, 1, 2});
  for (const std::int64_t i : {0, 1, 2, 3, 4, 5}) images.set(i, static_cast<double>(i));
  const Picture picture = saved(images, {.columns = 4, .scale = 2, .range = chainrule::plot::Range{1, 3}});
  REQUIRE((picture.width == 6 && picture.height == 4 && picture.channels == 3));
  const int expected[2][3] = {{0, 128, 255}, {0, 255, 255}};  // of 0, 2, 4 and 1, 3, 5
  for (std::uint32_t y = 1; y < 3; ++y)
    for (std::uint32_t x = 1; x < 5; ++x)
      for (std::uint32_t c = 0; c < 3; ++c) CHECK(picture.at(x, y, c) == expected[(x - 1) / 2][c]);

  const Picture whole = saved(Array({{0, 4}, {2, 3}}).astype(chainrule::int64).reshape({1, 2, 2}));
  CHECK((whole.at(1, 1) == 0 && whole.at(2, 1) == 255 && whole.at(1, 2) == 128 && whole.at(2, 2) == 191));
}

TEST_CASE("images of one number, and numbers that are none, are black") {
  const double nan = std::nan("");
  const double inf = HUGE_VAL;
  CHECK(saved(Array({3, 3}).reshape({1, 1, 2})).at(1, 1) == 0);
  CHECK(saved(Array({nan, nan}).reshape({1, 1, 2})).at(2, 1) == 0);
  const Picture picture = saved(Array({nan, 1, 2, inf, -inf}).reshape({1, 1, 5}));
  const int expected[] = {0, 0, 255, 255, 0};
  for (std::uint32_t x = 0; x < 5; ++x) CHECK(picture.at(x + 1, 1) == expected[x]);
}

TEST_CASE("save_images refuses what is no image, and leaves no file") {
  const TemporaryFolder folder;
  const std::string path = folder / "it.png";
  const Array images(chainrule::float32, {2, 3, 4});
  CHECK_THAT(error_text([&] { save_images(folder / "it.svg", images); }), ContainsSubstring("that ends with .png"));
  for (const Dims& shape : {Dims{2, 3}, Dims{2, 2, 3, 4}, Dims{0, 3, 4}, Dims{2, 0, 4}, Dims{1, 1, 1, 3, 4}}) {
    const std::string text = error_text([&] { save_images(path, Array(chainrule::float32, shape)); });
    CHECK_THAT(text, ContainsSubstring("requires images {n, height, width} or {n, 1 or 3, height, width}, got " +
                                       to_string(shape)));
    CHECK_THAT(text, ContainsSubstring("test_plot_images.cpp"));
  }
  CHECK_THAT(error_text([&] { save_images(path, images, {.columns = -1}); }), ContainsSubstring("got -1 and 1"));
  CHECK_THAT(error_text([&] { save_images(path, images, {.scale = 0}); }), ContainsSubstring("got 0 and 0"));
  CHECK_THAT(error_text([&] {
               save_images(path, images, {.range = chainrule::plot::Range{1, 1}});
             }),
             ContainsSubstring("got 1 to 1"));
  CHECK_THAT(error_text([&] { save_images(folder / "no/it.png", images); }), ContainsSubstring("no/it.png"));
  CHECK(folder.files() == 0);
}
