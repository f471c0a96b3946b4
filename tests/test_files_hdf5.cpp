#include <hdf5.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include <chainrule/framework/files/child.hpp>
#include <chainrule/framework/files/files.hpp>

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

  [[nodiscard]] hid_t id() const { return file_; }
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
  CHECK(all.at("bytes").identical(Array({{0, 1, 2}, {253, 254, 255}}).astype(chainrule::uint8)));
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
    const std::int32_t words[] = {-7, std::numeric_limits<std::int32_t>::max()};
    file.set("i32", H5T_STD_I32BE, H5T_NATIVE_INT32, {2}, words);
    const std::uint32_t unsigned_words[] = {7, std::numeric_limits<std::uint32_t>::max()};
    file.set("u32", H5T_STD_U32LE, H5T_NATIVE_UINT32, {2}, unsigned_words);
    file.set("i8", H5T_STD_I8LE, H5T_NATIVE_SCHAR, {3}, truths);
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
  CHECK(load_hdf5(path, "i32").identical(Array({-7, 2147483647}).astype(chainrule::int32)));
  CHECK(load_hdf5(path, "u32").identical(Array({7.0, 4294967295.0}).astype(chainrule::int64)));
  CHECK(load_hdf5(path, "i8").identical(Array({1, 0, 1}).astype(chainrule::int64)));
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

TEST_CASE("load_hdf5 follows links, within the folder") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.h5";
  std::filesystem::create_directory(folder / "in");
  std::filesystem::create_directory(folder / "in/below");
  const double other[] = {7, 8};
  for (const char* const name : {"in/other.h5", "in/below/other.h5", "out.h5"}) {
    Writer file(folder / name);
    file.set("y", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {2}, other);
  }
  const std::string inside = folder / "in/x.h5";
  write_sample(inside);
  const hid_t file = H5Fopen(inside.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  H5Lcreate_soft("/group/doubles", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_hard(file, "group/doubles", file, "hard", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/group", file, "folder", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_hard(file, "/", file, "group/root", H5P_DEFAULT, H5P_DEFAULT);  // a circle
  H5Lcreate_soft("/nowhere", file, "dangling", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_soft("/itself", file, "itself", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external("other.h5", "/y", file, "beside", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external("below/other.h5", "/y", file, "below", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external("../out.h5", "/y", file, "out", H5P_DEFAULT, H5P_DEFAULT);
  H5Lcreate_external("missing.h5", "/y", file, "missing", H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(file);

  const auto got = load_hdf5(inside);
  const Array doubles({{0.1}, {0.2}, {0.3}});
  for (const char* const name : {"group/doubles", "soft", "hard", "folder/doubles"}) {
    INFO(name);
    CHECK(got.at(name).identical(doubles));
    CHECK(load_hdf5(inside, name).identical(doubles));
  }
  for (const char* const name : {"beside", "below"}) CHECK(got.at(name).identical(Array({7, 8})));
  CHECK(load_hdf5(inside, "below").identical(Array({7, 8})));
  CHECK(got.size() == 8);  // with bytes and floats
  CHECK(got.skipped.at("dangling") == "a link to '/nowhere', which is not there");
  CHECK(got.skipped.at("itself") == "a link to '/itself', which is not there");
  CHECK(got.skipped.at("out") == "an external link out of the file's folder, to '../out.h5'");
  CHECK(got.skipped.at("missing") == "an external link to 'missing.h5', which is not there");
  CHECK(got.skipped.at("names") == "text, where numbers of up to 64 bits are supported");
  CHECK_THAT(error_text([&] { load_hdf5(inside, "out"); }),
             ContainsSubstring("an external link out of the file's folder"));
}

TEST_CASE("load_hdf5 gives what was never written, in any number") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.h5";
  constexpr hsize_t many = 100'000'000;
  {
    Writer file(path);
    const hsize_t size = many;
    const hsize_t chunk = many / 10;
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(options, 1, &chunk);
    const signed char fill = 5;
    H5Pset_fill_value(options, H5T_NATIVE_SCHAR, &fill);
    H5Dclose(H5Dcreate2(file.id(), "unwritten", H5T_STD_I8LE, space, H5P_DEFAULT, options, H5P_DEFAULT));
    H5Pclose(options);
    H5Sclose(space);
    file.set("doubles", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {3}, doubles);
  }
  CHECK(std::filesystem::file_size(path) < 10'000);
  const Array got = load_hdf5(path, "unwritten");
  REQUIRE(got.shape() == Dims{100'000'000});
  const auto* numbers = got.data<std::int64_t>();
  CHECK(std::all_of(numbers, numbers + many, [](std::int64_t x) { return x == 5; }));

  // A virtual data set of two rows, each the other file's.
  const auto make = [&](const std::string& source) {
    const Writer file(folder / "virtual.h5");
    const hsize_t sizes[] = {2, 3};
    const hsize_t row = 3;
    const hid_t space = H5Screate_simple(2, sizes, nullptr);
    const hid_t from = H5Screate_simple(1, &row, nullptr);
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    for (hsize_t i = 0; i < 2; ++i) {
      const hsize_t start[] = {i, 0};
      const hsize_t count[] = {1, 3};
      H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr);
      H5Pset_virtual(options, space, source.c_str(), "doubles", from);
    }
    H5Sselect_all(space);
    H5Dclose(H5Dcreate2(file.id(), "v", H5T_IEEE_F64LE, space, H5P_DEFAULT, options, H5P_DEFAULT));
    H5Pclose(options);
    H5Sclose(from);
    H5Sclose(space);
  };
  make("x.h5");
  CHECK(load_hdf5(folder / "virtual.h5", "v").identical(Array({{0.1, 0.2, 0.3}, {0.1, 0.2, 0.3}})));
  make("missing.h5");  // HDF5 would give zeros
  CHECK_THAT(error_text([&] { load_hdf5(folder / "virtual.h5", "v"); }),
             ContainsSubstring("'v': a virtual data set of the file 'missing.h5', which is not there"));
}

TEST_CASE("A crash of the HDF5 library and work without end are Errors") {
  const chainrule::detail::File file{"load_hdf5", "an HDF5 file", "x.h5", chainrule::Location::here()};
  const auto error_of = [&](const std::function<void(chainrule::detail::Sender&)>& work) {
    return error_text([&] {
      chainrule::detail::Child child(file, work);
      while (child.kind() != '.') {
      }
    });
  };
  CHECK(error_of([](auto&) {}) == "nothing was thrown");
  CHECK_THAT(error_of([](auto&) { std::raise(SIGKILL); }), ContainsSubstring("did not come to an end"));
  CHECK_THAT(error_of([](auto& sender) {
               sender.kind('a');
               std::abort();
             }),
             ContainsSubstring("got 'x.h5': damaged: the HDF5 library crashed"));
  // All errors of our own come through as they are.
  CHECK_THAT(error_of([&](auto&) { file.fail("why not"); }), ContainsSubstring("got 'x.h5': why not"));
}

TEST_CASE("load_hdf5 names wrong files and data sets") {
  const auto load = [](const std::string& path) { load_hdf5(path); };
  chainrule::test::check_wrong_files(load, "load_hdf5", "an HDF5 file");
  const TemporaryFolder folder;
  const std::string path = folder / "x.h5";
  write_sample(path);
  const std::string whole = chainrule::test::read_file(path);
  chainrule::test::check_truncations(whole, load, {}, 41);
  // (Not check_damages: at a few bytes HDF5 1.10 works until its time is over, which takes too long for a test.)
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
  CHECK(x.dtype() == chainrule::uint8);
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
