#include <zlib.h>

#include <filesystem>

#include <chainrule/framework/files/files.hpp>

#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::load_fashion_mnist;
using chainrule::data::load_idx;
using chainrule::test::error_text;
using chainrule::test::TemporaryFolder;
using chainrule::test::unhex;
using chainrule::test::write_file;

namespace {

std::string compressed(const std::string& bytes) {
  const TemporaryFolder folder;
  gzFile file = gzopen((folder / "x.gz").c_str(), "wb");
  REQUIRE(gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size())) == static_cast<int>(bytes.size()));
  REQUIRE(gzclose(file) == Z_OK);
  return chainrule::test::read_file(folder / "x.gz");
}

Array loaded(const std::string& bytes) {
  const TemporaryFolder folder;
  write_file(folder / "x", bytes);
  return load_idx(folder / "x");
}

std::string load_error(const std::string& bytes) {
  return error_text([&] { loaded(bytes); });
}

// Bytes in shape {2, 3}.
const std::string bytes_2_3 = unhex(
    "00000802"
    "00000002"
    "00000003"
    "000102fdfeff");

}  // namespace

TEST_CASE("load_idx reads every type, plain and compressed") {
  const Array expected = Array({{0, 1, 2}, {253, 254, 255}}).astype(chainrule::uint8);
  CHECK(loaded(bytes_2_3).identical(expected));
  CHECK(loaded(compressed(bytes_2_3)).identical(expected));
  CHECK(loaded(unhex("00000901"
                     "00000002"
                     "ff7f"))
            .identical(Array({-1, 127}).astype(chainrule::int64)));
  CHECK(loaded(unhex("00000b01"
                     "00000002"
                     "ffff0100"))
            .identical(Array({-1, 256}).astype(chainrule::int64)));
  CHECK(loaded(unhex("00000c01"
                     "00000002"
                     "ffffffff01000000"))
            .identical(Array({-1, 16777216}).astype(chainrule::int32)));
  CHECK(loaded(unhex("00000d01"
                     "00000001"
                     "3fc00000"))
            .identical(Array({1.5}).astype(chainrule::float32)));
  CHECK(loaded(unhex("00000e01"
                     "00000001"
                     "3ff8000000000000"))
            .identical(Array({1.5})));
  CHECK(loaded(unhex("00000803"
                     "00000000"
                     "00000002"
                     "00000002"))
            .shape() == Dims{0, 2, 2});
  CHECK(loaded(unhex("00000800"
                     "05"))
            .identical(Array(std::uint8_t{5})));
}

TEST_CASE("load_idx names wrong files") {
  const auto load = [](const std::string& path) { load_idx(path); };
  chainrule::test::check_wrong_files(load, "load_idx", "an IDX file, plain or compressed by gzip");
  chainrule::test::check_truncations(bytes_2_3, load);
  chainrule::test::check_truncations(compressed(bytes_2_3), load);
  chainrule::test::check_damages(bytes_2_3, load);
  chainrule::test::check_damages(compressed(bytes_2_3), load);

  CHECK_THAT(load_error("\x89PNG..."), ContainsSubstring("no IDX file, it begins with \"\\x89PNG\""));
  CHECK_THAT(load_error(bytes_2_3.substr(0, 3)), ContainsSubstring("truncated within the header"));
  CHECK_THAT(load_error(bytes_2_3.substr(0, 9)), ContainsSubstring("truncated within the header"));
  CHECK_THAT(load_error(bytes_2_3.substr(0, 15)),
             ContainsSubstring("truncated: its header says 6 elements of 1 bytes, shape {2, 3}, but 3 bytes follow"));
  CHECK_THAT(load_error(bytes_2_3 + "x"), ContainsSubstring("too long: its header says 6 elements of 1 bytes"));
  CHECK_THAT(load_error(unhex("00000a01"
                              "00000001"
                              "00")),
             ContainsSubstring("elements of the unknown type 0x0a"));
  CHECK_THAT(load_error(unhex("00000809") + std::string(36, '\0')), ContainsSubstring("an array of 9 dimensions"));
  CHECK_THAT(load_error(unhex("00000802"
                              "ffffffff"
                              "ffffffff"
                              "00")),
             ContainsSubstring("more elements than any memory holds"));
  // 2^96, which is 0 in 64 bits, alone and beside an extent of 0.
  for (const char* const zero : {"00000001", "00000000"}) {
    const std::string huge = "40000000";
    CHECK_THAT(load_error(unhex("00000804" + std::string(zero) + huge + huge + huge)),
               ContainsSubstring("more elements than any memory holds"));
  }
  CHECK_THAT(load_error(unhex("00000801"
                              "ffffffff"
                              "00")),
             ContainsSubstring("truncated"));
  const std::string whole = compressed(bytes_2_3);
  CHECK_THAT(load_error(whole.substr(0, whole.size() - 3)), ContainsSubstring("its compressed data ends too early"));
  std::string flipped = whole;
  flipped[flipped.size() - 6] ^= 1;
  CHECK_THAT(load_error(flipped), ContainsSubstring("damaged compressed data"));
}

TEST_CASE("load_fashion_mnist takes four files of a folder, compressed or not") {
  const TemporaryFolder folder;
  const std::string images = unhex(
      "00000803"
      "00000002"
      "00000001"
      "00000003"
      "0033ff"
      "ff0066");
  const std::string labels = unhex(
      "00000801"
      "00000002"
      "0709");
  write_file(folder / "train-images-idx3-ubyte", images);
  write_file(folder / "train-labels-idx1-ubyte.gz", compressed(labels));
  write_file(folder / "t10k-images-idx3-ubyte.gz", compressed(images));
  write_file(folder / "t10k-labels-idx1-ubyte", labels);
  const auto data = load_fashion_mnist(folder / "");
  for (const auto* half : {&data.train, &data.test}) {
    CHECK(half->axis == 0);
    CHECK(half->x.identical(Array({{0, 51 / 255.0, 1}, {1, 0, 102 / 255.0}}).astype(chainrule::float32)));
    CHECK(half->y.identical(Array({7, 9}).astype(chainrule::int64)));
    CHECK(half->size() == 2);
  }

  const auto load = [&] { load_fashion_mnist(folder / ""); };
  write_file(folder / "t10k-labels-idx1-ubyte", unhex("00000801"
                                                      "00000001"
                                                      "07"));
  CHECK_THAT(error_text(load), ContainsSubstring("t10k-labels-idx1-ubyte': int64 {1}, where 2 whole numbers go"));
  write_file(folder / "t10k-labels-idx1-ubyte", images);
  CHECK_THAT(error_text(load), ContainsSubstring("t10k-labels-idx1-ubyte': int64 {2, 1, 3}, where 2 whole numbers go"));
  write_file(folder / "t10k-images-idx3-ubyte", labels);  // before the compressed one
  CHECK_THAT(error_text(load), ContainsSubstring("t10k-images-idx3-ubyte': elements of 1 bytes in shape {2}"));
  std::filesystem::remove(folder / "train-images-idx3-ubyte");
  CHECK_THAT(error_text(load), ContainsSubstring("load_fashion_mnist: requires an IDX file of images (Debian's package "
                                                 "dataset-fashion-mnist has it), got '") &&
                                   ContainsSubstring("train-images-idx3-ubyte': No such file or directory"));
}

TEST_CASE("load_fashion_mnist takes names with a dot") {
  const TemporaryFolder folder;
  for (const std::string half : {"train", "t10k"}) {
    write_file(folder / (half + "-images.idx3-ubyte"), unhex("00000803000000010000000100000002"
                                                             "00ff"));
    write_file(folder / (half + "-labels.idx1-ubyte.gz"), compressed(unhex("000008010000000103")));
  }
  const auto data = load_fashion_mnist(folder / "");
  CHECK(data.train.x.identical(Array({{0.0, 1.0}}).astype(chainrule::float32)));
  CHECK(data.test.y.identical(Array({3}).astype(chainrule::int64)));
}

TEST_CASE("Fashion-MNIST as Debian packages it") {
  if (!std::filesystem::exists(chainrule::data::fashion_mnist_folder())) {
    WARN("Skipped: no " << chainrule::data::fashion_mnist_folder());
    return;
  }
  const auto data = load_fashion_mnist(chainrule::data::fashion_mnist_folder());
  CHECK(data.train.x.shape() == Dims{60000, 784});
  CHECK(data.train.y.shape() == Dims{60000});
  CHECK(data.test.x.shape() == Dims{10000, 784});
  CHECK(data.train.x.dtype() == chainrule::float32);
  std::int64_t counts[10] = {};
  for (std::int64_t i = 0; i < 10000; ++i) ++counts[data.test.y.data<std::int64_t>()[i]];
  for (const auto count : counts) CHECK(count == 1000);
  double sum = 0;
  for (std::int64_t i = 0; i < data.train.x.size(); ++i) sum += static_cast<double>(data.train.x.data<float>()[i]);
  CHECK(sum / static_cast<double>(data.train.x.size()) == Approx(0.2860405969887955));  // the set's published mean
}
