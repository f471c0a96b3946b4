#include <hdf5.h>
#include <matio.h>
#include <zlib.h>

#include <array>
#include <cstring>
#include <limits>

#include <chainrule/framework/files/files.hpp>

#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::load_mat;
using chainrule::test::error_text;
using chainrule::test::TemporaryFolder;
using chainrule::test::write_file;

namespace {

// A file made by libmatio.
class Writer {
 public:
  explicit Writer(const std::string& path, mat_ft version = MAT_FT_MAT5,
                  matio_compression compression = MAT_COMPRESSION_NONE)
      : mat_(Mat_CreateVer(path.c_str(), nullptr, version)), compression_(compression) {
    REQUIRE(mat_ != nullptr);
  }
  ~Writer() { Mat_Close(mat_); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  template <class T>
  void add(const char* name, matio_classes kind, matio_types type, std::vector<std::size_t> shape,
           std::vector<T> columns, int options = 0) {
    matvar_t* variable =
        Mat_VarCreate(name, kind, type, static_cast<int>(shape.size()), shape.data(), columns.data(), options);
    REQUIRE(Mat_VarWrite(mat_, variable, compression_) == 0);
    Mat_VarFree(variable);
  }

 private:
  mat_t* mat_;
  matio_compression compression_;
};

void add_sample(Writer& file) {
  file.add<double>("X", MAT_C_DOUBLE, MAT_T_DOUBLE, {2, 3}, {1, 4, 2, 5, 3, 6.5});
  file.add<std::uint8_t>("y", MAT_C_UINT8, MAT_T_UINT8, {3, 1}, {0, 1, 255});
}

std::string sample(matio_compression compression) {
  const TemporaryFolder folder;
  {
    Writer file(folder / "x.mat", MAT_FT_MAT5, compression);
    add_sample(file);
  }
  return chainrule::test::read_file(folder / "x.mat");
}

}  // namespace

TEST_CASE("load_mat reads MATLAB's columns as rows") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.mat";
  struct Version {
    mat_ft version;
    matio_compression compression;
  };
  const auto version = GENERATE(Version{MAT_FT_MAT5, MAT_COMPRESSION_NONE}, Version{MAT_FT_MAT5, MAT_COMPRESSION_ZLIB},
                                Version{MAT_FT_MAT73, MAT_COMPRESSION_NONE});
  {
    Writer file(path, version.version, version.compression);
    add_sample(file);
    file.add<float>("cube", MAT_C_SINGLE, MAT_T_SINGLE, {2, 1, 2}, {1, 2, 3, 4});
    file.add<std::uint8_t>("truth", MAT_C_UINT8, MAT_T_UINT8, {1, 2}, {1, 0}, MAT_F_LOGICAL);
    file.add<std::int8_t>("i8", MAT_C_INT8, MAT_T_INT8, {1, 1}, {-8});
    file.add<std::int16_t>("i16", MAT_C_INT16, MAT_T_INT16, {1, 1}, {-16});
    file.add<std::uint16_t>("u16", MAT_C_UINT16, MAT_T_UINT16, {1, 1}, {65535});
    file.add<std::int32_t>("i32", MAT_C_INT32, MAT_T_INT32, {1, 1}, {-32});
    file.add<std::uint32_t>("u32", MAT_C_UINT32, MAT_T_UINT32, {1, 1}, {4294967295U});
    file.add<std::int64_t>("i64", MAT_C_INT64, MAT_T_INT64, {1, 1}, {std::numeric_limits<std::int64_t>::min()});
    file.add<std::uint64_t>("u64", MAT_C_UINT64, MAT_T_UINT64, {1, 1}, {64});
    file.add<char>("text", MAT_C_CHAR, MAT_T_UINT8, {1, 2}, {'h', 'i'});
  }
  const auto all = load_mat(path);
  CHECK(all.size() == 11);  // without the text
  CHECK(all.at("X").identical(Array({{1, 2, 3}, {4, 5, 6.5}})));
  CHECK(all.at("y").identical(Array({{0.0}, {1.0}, {255.0}}).astype(chainrule::uint8)));
  CHECK(all.at("cube").identical(Array({1, 3, 2, 4}).astype(chainrule::float32).reshape({2, 1, 2})));
  CHECK(all.at("truth").identical(Array({{1.0, 0.0}}).astype(chainrule::boolean)));
  CHECK(all.at("i8").item() == -8);
  CHECK(all.at("i16").item() == -16);
  CHECK(all.at("u16").item() == 65535);
  CHECK(all.at("u16").dtype() == chainrule::int64);
  CHECK(all.at("i32").identical(Array({-32}).astype(chainrule::int32).reshape({1, 1})));
  CHECK(all.at("u32").item() == 4294967295.0);
  CHECK(*all.at("i64").data<std::int64_t>() == std::numeric_limits<std::int64_t>::min());
  CHECK(all.at("u64").item() == 64);
  CHECK(load_mat(path, "X").identical(all.at("X")));
  CHECK(load_mat(path, "u64").identical(all.at("u64")));
  CHECK_THAT(error_text([&] { load_mat(path, "text"); }), ContainsSubstring("variable 'text': text"));
}

TEST_CASE("load_mat says what it cannot take") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.mat";
  {
    Writer file(path);
    file.add<std::uint64_t>("large", MAT_C_UINT64, MAT_T_UINT64, {1, 1}, {std::uint64_t{1} << 63});
    double re[] = {1, 2};
    double im[] = {3, 4};
    mat_complex_split_t both{re, im};
    std::size_t shape[] = {1, 2};
    matvar_t* variable = Mat_VarCreate("z", MAT_C_DOUBLE, MAT_T_DOUBLE, 2, shape, &both, MAT_F_COMPLEX);
    mat_t* mat = Mat_Open(path.c_str(), MAT_ACC_RDWR);
    REQUIRE(Mat_VarWrite(mat, variable, MAT_COMPRESSION_NONE) == 0);
    Mat_VarFree(variable);
    const char* fields[] = {"a"};
    variable = Mat_VarCreateStruct("s", 2, std::array<std::size_t, 2>{1, 1}.data(), fields, 1);
    REQUIRE(Mat_VarWrite(mat, variable, MAT_COMPRESSION_NONE) == 0);
    Mat_VarFree(variable);
    Mat_Close(mat);
  }
  const auto load_error = [&](const std::string& name) { return error_text([&] { load_mat(path, name); }); };
  CHECK_THAT(load_error("large"), ContainsSubstring("the number 9223372036854775808, which is too large for int64"));
  CHECK_THAT(load_error("z"), ContainsSubstring("variable 'z': complex numbers"));
  CHECK_THAT(load_error("s"), ContainsSubstring("variable 's': a structure"));
  CHECK_THAT(load_error("w"), ContainsSubstring("load_mat: requires a MATLAB file (.mat), got '" + path +
                                                "': no variable 'w', only 'large', 'z', 's'"));
}

namespace {

std::string word(std::uint32_t number) {
  std::string out(4, '\0');
  std::memcpy(out.data(), &number, 4);
  return out;
}

// An element of version 5, on a little-endian machine.
std::string element(std::uint32_t type, const std::string& bytes) {
  return word(type) + word(static_cast<std::uint32_t>(bytes.size())) + bytes +
         std::string((8 - bytes.size() % 8) % 8, '\0');
}

// A variable of one row: its class and flags, its name, its numbers as stored.
std::string variable(std::uint32_t flags, const std::string& name, std::uint32_t columns, std::uint32_t type,
                     const std::string& numbers) {
  return element(14, element(6, word(flags) + word(0)) + element(5, word(1) + word(columns)) + element(1, name) +
                         element(type, numbers));
}

std::string header5() {
  std::string out = "MATLAB 5.0 MAT-file";
  out.resize(124, ' ');
  return out + std::string("\0\1IM", 4);
}

std::string compressed(const std::string& bytes) {
  std::string out(compressBound(bytes.size()), '\0');
  uLongf size = out.size();
  compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  out.resize(size);
  return word(15) + word(static_cast<std::uint32_t>(size)) + out;
}

std::map<std::string, Array> loaded(const std::string& bytes) {
  const TemporaryFolder folder;
  write_file(folder / "x.mat", bytes);
  return load_mat(folder / "x.mat");
}

}  // namespace

TEST_CASE("load_mat compares the checksums of compressed variables") {
  std::vector<double> numbers(60);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<double>(i * i) / 7;
  const std::string bytes(reinterpret_cast<const char*>(numbers.data()), 480);
  const std::string whole = header5() + compressed(variable(6, "x", 60, 9, bytes));
  REQUIRE(loaded(whole).at("x").identical(Array::from(numbers.data(), Dims{1, 60})));
  int errors = 0;
  for (std::size_t at = 136; at < whole.size(); ++at) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 1 << at % 8);
    const std::string text = error_text([&] {
      // Some bits (a hint of the window's size, say) change no number.
      const auto got = loaded(flipped);
      CHECK(got.at("x").identical(Array::from(numbers.data(), Dims{1, 60})));
    });
    errors += text.find("load_mat: requires") != std::string::npos ? 1 : 0;
  }
  CHECK(errors > static_cast<int>(whole.size() - 136) * 9 / 10);
}

TEST_CASE("load_mat reads numbers however they are stored, as MATLAB's class of them") {
  const std::string bytes = "\1\2\xff\4";
  const auto got =
      loaded(header5() + variable(6, "double", 4, 2, bytes) + variable(7, "single", 4, 1, bytes) +
             variable(13, "uint32", 4, 2, bytes) + variable(9, "uint8", 4, 2, bytes) +
             variable(12, "int32", 4, 1, bytes) + variable(0x0206, "logical", 4, 2, bytes) +
             // Up to 4 bytes may stand within the tag.
             element(14, element(6, word(6) + word(0)) + element(5, word(1) + word(2)) + word(1 | 1 << 16) +
                             std::string("z\0\0\0", 4) + word(2 | 2 << 16) + std::string("\7\b\0\0", 4)));
  CHECK(got.at("double").identical(Array({{1, 2, 255, 4}})));
  CHECK(got.at("single").identical(Array({{1, 2, -1, 4}}).astype(chainrule::float32)));
  CHECK(got.at("uint32").identical(Array({{1, 2, 255, 4}}).astype(chainrule::int64)));
  CHECK(got.at("uint8").identical(Array({{1, 2, 255, 4}}).astype(chainrule::uint8)));
  CHECK(got.at("int32").identical(Array({{1, 2, -1, 4}}).astype(chainrule::int32)));
  CHECK(got.at("logical").identical(Array({{1, 1, 1, 1}}).astype(chainrule::boolean)));
  CHECK(got.at("z").identical(Array({{7, 8}})));
}

TEST_CASE("load_mat reads version 4") {
  const auto v4 = [](std::uint32_t type, const std::string& name, std::uint32_t rows, std::uint32_t columns,
                     const std::string& numbers, std::uint32_t imaginary = 0) {
    return word(type) + word(rows) + word(columns) + word(imaginary) +
           word(static_cast<std::uint32_t>(name.size() + 1)) + name + '\0' + numbers;
  };
  const std::string text = v4(51, "text", 1, 2, "hi");
  const std::string bytes = v4(50, "x", 2, 2, "\1\2\3\4");
  const std::string complex = v4(50, "z", 1, 1, "\1\2", 1);
  const TemporaryFolder folder;
  const std::string path = folder / "x.mat";
  write_file(path, text + bytes + complex);
  const auto got = load_mat(path);
  REQUIRE(got.size() == 1);
  CHECK(got.at("x").identical(Array({{1, 3}, {2, 4}})));  // columns, float64
  CHECK(got.skipped == std::map<std::string, std::string>{{"text", "text"}, {"z", "complex numbers"}});
  // The other byte order: 1000 in the type, every word reversed.
  write_file(path, chainrule::test::unhex("000003fc"  // 1020: int32
                                          "00000001000000010000000000000002"
                                          "7800"
                                          "fffffff9"));
  CHECK(load_mat(path).at("x").identical(Array({{-7.0}})));
  write_file(path, bytes.substr(0, bytes.size() - 1));
  CHECK_THAT(error_text([&] { load_mat(path); }),
             ContainsSubstring("truncated: variable 'x' is said to have 4 numbers"));
  // One made by libmatio.
  {
    Writer file(path, MAT_FT_MAT4);
    file.add<double>("X", MAT_C_DOUBLE, MAT_T_DOUBLE, {2, 3}, {1, 4, 2, 5, 3, 6.5});
  }
  CHECK(load_mat(path, "X").identical(Array({{1, 2, 3}, {4, 5, 6.5}})));
}

TEST_CASE("load_mat lists what it skips, and nothing that MATLAB has no name for") {
  // An object (class 17 has no dimensions), a variable after it, and at the end what MATLAB keeps of objects.
  const std::string object = element(14, element(6, word(17) + word(0)) + element(1, "s") + element(1, "MCOS") +
                                             element(1, "string") + variable(13, "", 1, 6, word(7)));
  const TemporaryFolder folder;
  write_file(folder / "x.mat", header5() + object + variable(6, "x", 1, 2, "\5") + variable(9, "", 4, 2, "\1\2\3\4"));
  const auto got = load_mat(folder / "x.mat");
  REQUIRE(got.size() == 1);
  CHECK(got.at("x").item() == 5);
  CHECK(got.skipped == std::map<std::string, std::string>{{"s", "an object"}});
}

TEST_CASE("load_mat reads what follows a function, an object or a plain group in a file of version 7.3") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.mat";
  {
    Writer file(path, MAT_FT_MAT73);
    file.add<double>("a", MAT_C_DOUBLE, MAT_T_DOUBLE, {1, 2}, {1, 2});
    file.add<double>("z", MAT_C_DOUBLE, MAT_T_DOUBLE, {2, 1}, {3, 4});
    file.add<double>("none", MAT_C_DOUBLE, MAT_T_DOUBLE, {0, 3}, {});
  }
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  const auto add = [&](const char* name, const std::string& type) {
    const hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (!type.empty()) {
      const hid_t text = H5Tcopy(H5T_C_S1);
      H5Tset_size(text, type.size());  // without a zero at the end, as MATLAB writes it
      const hid_t space = H5Screate(H5S_SCALAR);
      const hid_t attribute = H5Acreate2(group, "MATLAB_class", text, space, H5P_DEFAULT, H5P_DEFAULT);
      H5Awrite(attribute, text, type.data());
      H5Aclose(attribute);
      H5Sclose(space);
      H5Tclose(text);
    }
    H5Gclose(group);
  };
  add("f", "function_handle");
  add("m", "svmclass");
  add("plain", "");
  add("#refs#", "");
  H5Fclose(file);
  const auto got = load_mat(path);
  REQUIRE(got.size() == 3);
  CHECK(got.at("a").identical(Array({{1, 2}})));
  CHECK(got.at("z").identical(Array({{3.0}, {4.0}})));
  CHECK(got.at("none").shape() == Dims{0, 3});
  CHECK(got.skipped == std::map<std::string, std::string>{{"f", "a function"},
                                                          {"m", "an object of class 'svmclass'"},
                                                          {"plain", "a group, and no variable of MATLAB's"}});
  CHECK_THAT(error_text([&] { load_mat(path, "f"); }), ContainsSubstring("variable 'f': a function"));
  CHECK_THAT(error_text([&] { load_mat(path, "w"); }), ContainsSubstring("no variable 'w', only "));
}

TEST_CASE("load_mat names wrong files") {
  const auto load = [](const std::string& path) { load_mat(path); };
  chainrule::test::check_wrong_files(load, "load_mat", "a MATLAB file (.mat)");
  const TemporaryFolder folder;
  const std::string path = folder / "x.mat";
  for (const auto compression : {MAT_COMPRESSION_NONE, MAT_COMPRESSION_ZLIB}) {
    const std::string whole = sample(compression);
    chainrule::test::check_damages(whole, load);
    // A cut between two variables leaves a file of the first one.
    write_file(path, whole);
    std::vector<std::size_t> ends{128};
    while (ends.back() < whole.size()) {
      std::uint32_t length = 0;
      std::memcpy(&length, whole.data() + ends.back() + 4, 4);
      ends.push_back(ends.back() + 8 + length);
    }
    CHECK(ends.size() == 3);
    chainrule::test::check_truncations(
        whole, load, [&](std::size_t n) { return std::find(ends.begin(), ends.end(), n) != ends.end(); });
  }
  {
    Writer file(path, MAT_FT_MAT73);
    add_sample(file);
  }
  const std::string whole = chainrule::test::read_file(path);
  chainrule::test::check_truncations(whole, load, {}, 41);

  write_file(path, std::string(200, 'x'));
  CHECK_THAT(error_text([&] { load(path); }), ContainsSubstring("no header of MATLAB's"));
  write_file(path, sample(MAT_COMPRESSION_NONE).substr(0, 100));
  CHECK_THAT(error_text([&] { load(path); }), ContainsSubstring("truncated within the header"));
  const std::string plain = sample(MAT_COMPRESSION_NONE);
  write_file(path, plain.substr(0, plain.size() - 1));
  CHECK_THAT(error_text([&] { load(path); }), ContainsSubstring("truncated: variable 2 has"));
}

TEST_CASE("The course's data.mat") {
  const std::string path = chainrule::test::shared_file("data.mat");
  if (path.empty()) return;
  const auto data = load_mat(path);
  CHECK(data.at("X").shape() == Dims{211, 2});
  CHECK(data.at("y").shape() == Dims{211, 1});
  CHECK(data.at("Xval").shape() == Dims{200, 2});
  CHECK(data.at("yval").shape() == Dims{200, 1});
  CHECK(data.at("X").dtype() == chainrule::float64);
  for (std::int64_t i = 0; i < 211; ++i) {
    const double label = data.at("y")[i];
    REQUIRE((label == 0 || label == 1));
  }
}
