#include <matio.h>

#include <array>
#include <limits>

#include <chainrule/framework/files.hpp>

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
  CHECK(all.at("y").identical(Array({{0.0}, {1.0}, {255.0}}).astype(chainrule::int64)));
  CHECK(all.at("cube").identical(Array({1, 3, 2, 4}).astype(chainrule::float32).reshape({2, 1, 2})));
  CHECK(all.at("truth").identical(Array({{1.0, 0.0}}).astype(chainrule::boolean)));
  CHECK(all.at("i8").item() == -8);
  CHECK(all.at("i16").item() == -16);
  CHECK(all.at("u16").item() == 65535);
  CHECK(all.at("i32").item() == -32);
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
