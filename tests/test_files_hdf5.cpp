#include <hdf5.h>

#include <limits>

#include <chainrule/framework/files.hpp>

#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::load_hdf5;
using chainrule::test::error_text;
using chainrule::test::TemporaryFolder;
using chainrule::test::write_file;

namespace {

// A file made by the library itself.
class Writer {
 public:
  explicit Writer(const std::string& path) : file_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)) {}
  ~Writer() { H5Fclose(file_); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void group(const char* name) { H5Gclose(H5Gcreate2(file_, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)); }
  void set(const char* name, hid_t stored, hid_t memory, const std::vector<hsize_t>& shape, const void* numbers,
           bool compressed = false) {
    const hid_t space =
        shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    if (compressed) {
      H5Pset_chunk(options, static_cast<int>(shape.size()), shape.data());
      H5Pset_deflate(options, 6);
    }
    const hid_t made = H5Dcreate2(file_, name, stored, space, H5P_DEFAULT, options, H5P_DEFAULT);
    REQUIRE(made >= 0);
    if (numbers != nullptr) REQUIRE(H5Dwrite(made, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    H5Dclose(made);
    H5Pclose(options);
    H5Sclose(space);
  }
  // h5py's bool.
  static hid_t logical() {
    const hid_t type = H5Tenum_create(H5T_NATIVE_INT8);
    for (const auto& [name, value] : {std::pair{"FALSE", 0}, std::pair{"TRUE", 1}}) {
      const auto byte = static_cast<signed char>(value);
      H5Tenum_insert(type, name, &byte);
    }
    return type;
  }

 private:
  hid_t file_;
};

const std::uint8_t bytes[] = {0, 1, 2, 253, 254, 255};
const float floats[] = {1.5F, -2.5F};
const double doubles[] = {0.1, 0.2, 0.3};

void write_sample(const std::string& path) {
  Writer file(path);
  file.set("bytes", H5T_STD_U8LE, H5T_NATIVE_UINT8, {2, 3}, bytes);
  file.set("floats", H5T_IEEE_F32BE, H5T_NATIVE_FLOAT, {2}, floats, true);
  file.group("group");
  file.set("group/doubles", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {3, 1}, doubles);
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, 7);
  file.set("names", text, text, {2}, "non-catcat\0\0\0\0");
  H5Tclose(text);
}

}  // namespace

TEST_CASE("load_hdf5 reads data sets of numbers") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.h5";
  write_sample(path);
  const auto all = load_hdf5(path);
  REQUIRE(all.size() == 3);  // without the text
  CHECK(all.at("bytes").identical(Array({{0, 1, 2}, {253, 254, 255}}).astype(chainrule::int64)));
  CHECK(all.at("floats").identical(Array({1.5, -2.5}).astype(chainrule::float32)));
  CHECK(all.at("group/doubles").identical(Array({{0.1}, {0.2}, {0.3}})));
  for (const auto& [name, array] : all) {
    CHECK(load_hdf5(path, name).identical(array));
    CHECK(load_hdf5(path, "/" + name).identical(array));
  }
}

TEST_CASE("load_hdf5 reads every kind of number") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.h5";
  const hid_t logical = Writer::logical();
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE);  // as h5py describes float16
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  {
    Writer file(path);
    const signed char truths[] = {1, 0, 1};
    file.set("bool", logical, logical, {3}, truths);
    const std::int64_t integers[] = {-5, std::numeric_limits<std::int64_t>::max()};
    file.set("i64", H5T_STD_I64BE, H5T_NATIVE_INT64, {2}, integers);
    file.set("i16", H5T_STD_I16BE, H5T_NATIVE_INT64, {1}, integers);
    const std::uint64_t small = 7;
    const std::uint64_t large = std::uint64_t{1} << 63;
    file.set("u64", H5T_STD_U64LE, H5T_NATIVE_UINT64, {1}, &small);
    file.set("too large", H5T_STD_U64LE, H5T_NATIVE_UINT64, {1}, &large);
    file.set("f16", half, H5T_NATIVE_FLOAT, {2}, floats);
    file.set("scalar", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {}, doubles);
    file.set("none", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {0, 3}, nullptr);
    file.set("nine", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {1, 1, 1, 1, 1, 1, 1, 1, 1}, doubles);
    file.set("huge", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {1, hsize_t{1} << 45}, nullptr);
    const hid_t pair = H5Tcreate(H5T_COMPOUND, 16);
    H5Tinsert(pair, "r", 0, H5T_NATIVE_DOUBLE);
    H5Tinsert(pair, "i", 8, H5T_NATIVE_DOUBLE);
    file.set("complex", pair, pair, {1}, doubles);
    H5Tclose(pair);
  }
  CHECK(load_hdf5(path, "bool").identical(Array({1, 0, 1}).astype(chainrule::boolean)));
  CHECK(load_hdf5(path, "i64").data<std::int64_t>()[1] == std::numeric_limits<std::int64_t>::max());
  CHECK(load_hdf5(path, "i16").identical(Array({-5}).astype(chainrule::int64)));
  CHECK(load_hdf5(path, "u64").identical(Array({7}).astype(chainrule::int64)));
  CHECK(load_hdf5(path, "f16").identical(Array({1.5, -2.5}).astype(chainrule::float32)));
  CHECK(load_hdf5(path, "scalar").identical(Array(0.1)));
  CHECK(load_hdf5(path, "none").shape() == Dims{0, 3});
  const auto load_error = [&](const std::string& name) { return error_text([&] { load_hdf5(path, name); }); };
  CHECK_THAT(load_error("too large"),
             ContainsSubstring("'too large': the number 9223372036854775808, which is too large"));
  CHECK_THAT(load_error("nine"), ContainsSubstring("an array of 9 dimensions, where at most 8 are supported"));
  CHECK_THAT(load_error("huge"), ContainsSubstring("'huge': an array of 281 TB, where this process can have "));
  CHECK_THAT(load_error("complex"),
             ContainsSubstring("data set 'complex': structures (or complex numbers), where numbers"));
  H5Tclose(half);
  H5Tclose(logical);
}

TEST_CASE("load_hdf5 names wrong files and data sets") {
  const auto load = [](const std::string& path) { load_hdf5(path); };
  chainrule::test::check_wrong_files(load, "load_hdf5", "an HDF5 file");
  const TemporaryFolder folder;
  const std::string path = folder / "x.h5";
  write_sample(path);
  const std::string whole = chainrule::test::read_file(path);
  chainrule::test::check_truncations(whole, load, {}, 41);
  // (Not check_damages: HDF5 1.10 itself divides by zero or loops for ever at a few damaged bytes of its headers.)
  write_file(folder / "other", "no");
  CHECK_THAT(error_text([&] { load(folder / "other"); }),
             ContainsSubstring("no HDF5 file, it lacks the format's signature"));
  write_file(folder / "cut", whole.substr(0, whole.size() - 9));
  CHECK_THAT(error_text([&] { load(folder / "cut"); }), ContainsSubstring("truncated file"));
  CHECK_THAT(error_text([&] { load_hdf5(path, "train_set_x"); }),
             ContainsSubstring("no data set 'train_set_x', only 'bytes', 'floats', 'group/doubles', 'names'"));
  CHECK_THAT(error_text([&] { load_hdf5(path, "names"); }),
             ContainsSubstring("data set 'names': text, where numbers of up to 64 bits are supported"));
  CHECK_THAT(error_text([&] { load_hdf5(path, "group"); }), ContainsSubstring("no data set 'group', only"));
  { const Writer empty(folder / "empty.h5"); }
  CHECK(load_hdf5(folder / "empty.h5").empty());
  CHECK_THAT(error_text([&] { load_hdf5(folder / "empty.h5", "x"); }),
             ContainsSubstring("no data set 'x', nor any other"));
}

TEST_CASE("The course's cats") {
  const std::string path = chainrule::test::shared_file("train_catvnoncat.h5");
  if (path.empty()) return;
  const Array x = load_hdf5(path, "train_set_x");
  CHECK(x.shape() == Dims{209, 64, 64, 3});
  CHECK(x.dtype() == chainrule::int64);
  CHECK(x(0, 0, 0, 0) == 17);  // the course's sanity check prints the first pixels: 17 31 56 22 33
  CHECK(x(0, 0, 0, 1) == 31);
  CHECK(x(0, 0, 0, 2) == 56);
  CHECK(x(0, 0, 1, 0) == 22);
  CHECK(x(0, 0, 1, 1) == 33);
  const Array y = load_hdf5(path, "train_set_y");
  CHECK(y.shape() == Dims{209});
  double cats = 0;
  for (std::int64_t i = 0; i < y.size(); ++i) cats += y[i];
  CHECK(cats == 72);
  CHECK(load_hdf5(path).size() == 2);  // list_classes is text
}
