#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include <chainrule/framework/files/files.hpp>

#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::load_npy;
using chainrule::data::save_npy;
using chainrule::test::error_text;
using chainrule::test::TemporaryFolder;
using chainrule::test::unhex;
using chainrule::test::write_file;

namespace {

// A file as NumPy writes it.
std::string npy(const std::string& dictionary, const std::string& elements) {
  std::string text = dictionary;
  text.resize(117, ' ');
  return "\x93NUMPY" + std::string({'\1', '\0', '\x76', '\0'}) + text + "\n" + elements;
}

std::string header(const std::string& descr, const std::string& shape, bool fortran = false) {
  return "{'descr': '" + descr + "', 'fortran_order': " + (fortran ? "True" : "False") + ", 'shape': " + shape + ", }";
}

Array loaded(const std::string& bytes) {
  const TemporaryFolder folder;
  write_file(folder / "x.npy", bytes);
  return load_npy(folder / "x.npy");
}

std::string load_error(const std::string& bytes) {
  return error_text([&] { loaded(bytes); });
}

}  // namespace

TEST_CASE("load_npy reads what NumPy writes") {
  CHECK(
      loaded(
          npy(header("<f8", "(2, 3)"),
              unhex(
                  "000000000000f83f00000000000000c00000000000000840000000000000104000000000000014400000000000001840")))
          .identical(Array({{1.5, -2, 3}, {4, 5, 6}})));
  // Fortran order: the columns stand one after the other.
  CHECK(loaded(npy(header("<i2", "(2, 3)", true), unhex("000003000100040002000500")))
            .identical(Array({{0, 1, 2}, {3, 4, 5}}).astype(chainrule::int64)));
  CHECK(loaded(npy(header(">i4", "(3,)"), unhex("ffffffff0000000000000001")))
            .identical(Array({-1, 0, 1}).astype(chainrule::int32)));
  CHECK(loaded(npy(header("|b1", "(3,)"), unhex("010001"))).identical(Array({1, 0, 1}).astype(chainrule::boolean)));
  CHECK(loaded(npy(header("|u1", "(3,)"), unhex("00ff80"))).identical(Array({0, 255, 128}).astype(chainrule::uint8)));
  CHECK(loaded(npy(header("|i1", "(2,)"), unhex("ff7f"))).identical(Array({-1, 127}).astype(chainrule::int64)));
  CHECK(loaded(npy(header("<u2", "(1,)"), unhex("ffff")))[0] == 65535);
  CHECK(loaded(npy(header("<u4", "(1,)"), unhex("ffffffff")))[0] == 4294967295.0);
  CHECK(loaded(npy(header("<u8", "(1,)"), unhex("ffffffffffffff7f"))).data<std::int64_t>()[0] ==
        std::numeric_limits<std::int64_t>::max());
  CHECK(loaded(npy(header("<f4", "()"), unhex("00002040"))).identical(Array(2.5F)));
  CHECK(loaded(npy(header(">f8", "(1,)"), unhex("3ff8000000000000"))).identical(Array({1.5})));
  CHECK(loaded(npy(header("<f8", "(0, 3)"), "")).shape() == Dims{0, 3});
  // Python 2's long integers, other quotes and order, no last comma.
  CHECK(loaded(npy("{\"shape\":(2L,),\"descr\":\"<i8\",\"fortran_order\":False}",
                   unhex("01000000000000000200000000000000")))
            .identical(Array({1, 2}).astype(chainrule::int64)));
}

TEST_CASE("load_npy widens 16-bit floating numbers exactly") {
  const Array got = loaded(npy(header("<f2", "(8,)"), unhex("003c00c0ff7bff030100007c007e0080")));
  CHECK(got.dtype() == chainrule::float32);
  const float expected[] = {1, -2, 65504, 0x1.ff8p-15F, 0x1p-24F, std::numeric_limits<float>::infinity()};
  for (int i = 0; i < 6; ++i) CHECK(got.data<float>()[i] == expected[i]);
  CHECK(std::isnan(got[6]));
  CHECK(std::signbit(got[7]));
}

TEST_CASE("load_npy reads the later versions of the format") {
  for (const char version : {'\2', '\3'}) {
    const std::string text = header("<i8", "(1,)") + std::string(70000, ' ') + "\n";
    std::string bytes = "\x93NUMPY" + std::string({version, '\0'});
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(text.size() >> shift & 255);
    CHECK(loaded(bytes + text + unhex("0700000000000000"))[0] == 7);
  }
}

TEST_CASE("save_npy writes what load_npy reads and NumPy would write") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.npy";
  for (const auto dtype : {chainrule::float32, chainrule::float64, chainrule::int64, chainrule::int32, chainrule::uint8,
                           chainrule::boolean})
    for (const Dims& shape :
         {Dims{}, Dims{1}, Dims{3}, Dims{0}, Dims{2, 3}, Dims{2, 0, 3}, Dims{1, 2, 3, 1, 2, 1, 1, 2}}) {
      Array array(dtype, shape);
      for (std::int64_t i = 0; i < array.size(); ++i)
        array.set(i, dtype == chainrule::boolean ? i % 2 : i * 3 - (dtype == chainrule::uint8 ? 0 : 5));
      save_npy(path, array);
      CHECK(load_npy(path).identical(array));
    }
  save_npy(path, Array({{1.5, -2, 3}, {4, 5, 6}}));
  CHECK(chainrule::test::read_file(path) ==
        npy(header("<f8", "(2, 3)"),
            unhex("000000000000f83f00000000000000c00000000000000840000000000000104000000000000014400000000000001840")));
  save_npy(path, Array({1, 0}).astype(chainrule::boolean));
  CHECK(chainrule::test::read_file(path) == npy(header("|b1", "(2,)"), unhex("0100")));
  save_npy(path, Array({200, 7}).astype(chainrule::uint8));
  CHECK(chainrule::test::read_file(path) == npy(header("|u1", "(2,)"), unhex("c807")));
  save_npy(path, Array({-2, 7}).astype(chainrule::int32));
  CHECK(chainrule::test::read_file(path) == npy(header("<i4", "(2,)"), unhex("feffffff07000000")));
  CHECK(folder.files() == 1);
}

TEST_CASE("load_npy names wrong files") {
  chainrule::test::check_wrong_files([](const auto& path) { load_npy(path); }, "load_npy", "a NumPy file (.npy)");
  const std::string good = npy(header("<f8", "(2,)"), unhex("000000000000f83f00000000000000c0"));
  chainrule::test::check_truncations(good, [](const auto& path) { load_npy(path); });
  chainrule::test::check_damages(good, [](const auto& path) { load_npy(path); });

  CHECK_THAT(load_error("PK\3\4 a zip archive"),
             ContainsSubstring("no NumPy array, it begins with \"PK\\x03\\x04 a z...\""));
  CHECK_THAT(load_error(good.substr(0, 20)), ContainsSubstring("truncated within the header"));
  CHECK_THAT(load_error(good.substr(0, good.size() - 1)),
             ContainsSubstring("truncated: its header says 2 elements of 8 bytes, shape {2}, but 15 bytes follow"));
  CHECK_THAT(load_error(good + "x"), ContainsSubstring("too long: its header says 2 elements of 8 bytes"));
  CHECK_THAT(load_error("\x93NUMPY" + std::string({'\7', '\0'}) + good.substr(8)), ContainsSubstring("version 7.0"));
  const std::string eight(8, '\0');
  CHECK_THAT(load_error(npy(header("<c16", "(1,)"), eight + eight)),
             ContainsSubstring("elements of NumPy's type <c16, where bool, integers and floating numbers"));
  CHECK_THAT(load_error(npy(header("<U2", "(1,)"), eight)), ContainsSubstring("type <U2"));
  CHECK_THAT(load_error(npy(header("|O", "(1,)"), eight)), ContainsSubstring("type |O"));
  CHECK_THAT(load_error(npy("{'descr': [('a', '<i4'), ('b', '<i4')], 'fortran_order': False, 'shape': (1,), }", eight)),
             ContainsSubstring("type [('a', '<i4'), ('b', '<i4')]"));
  CHECK_THAT(load_error(npy(header("<u8", "(1,)"), unhex("0000000000000080"))),
             ContainsSubstring("the number 9223372036854775808, which is too large for int64"));
  CHECK_THAT(load_error(npy(header("<f8", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), eight)),
             ContainsSubstring("an array of 9 dimensions, where at most 8 are supported"));
  CHECK_THAT(load_error(npy(header("<f8", "(4294967296, 4294967296)"), eight)),
             ContainsSubstring("more elements than any memory holds"));
  CHECK_THAT(load_error(npy(header("<f8", "(100000000,)"), eight)), ContainsSubstring("truncated"));
  CHECK_THAT(load_error(npy(header("<f8", "(0, 4294967296, 4294967296)"), "")),
             ContainsSubstring("more elements than any memory holds"));
  CHECK_THAT(load_error(npy(header("<f8", "(2305843009213693952,)"), "")),  // times 8: 2^64
             ContainsSubstring("more elements than any memory holds"));
  CHECK_THAT(load_error(npy(header("<f8", "(1000000000000000,)"), eight)), ContainsSubstring("an array of 8 PB"));
  CHECK_THAT(load_error(npy(header("<f8", "(-1,)"), eight)), ContainsSubstring("negative extent"));
  for (const char* const text :
       {"", "{}", "{'descr': '<f8'}", "('<f8')", "{'descr': '<f8', 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<f8', 'fortran_order': No, 'shape': (1,)}", "{'descr': '<f8', 'fortran_order': False, 'shape': 1}",
        "{'descr': '<f8' 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (1,)}"}) {
    INFO(text);
    CHECK_THAT(load_error(npy(text, eight)),
               ContainsSubstring("a header that is no dictionary of descr, fortran_order and shape"));
  }
}

TEST_CASE("load_npy reads no more of a file than its header says") {
  const TemporaryFolder folder;
  write_file(folder / "x.npy", npy(header("<f8", "(1,)"), std::string(8, '\0')));
  std::filesystem::resize_file(folder / "x.npy", std::uintmax_t{1} << 42);  // of holes
  CHECK_THAT(error_text([&] { load_npy(folder / "x.npy"); }),
             ContainsSubstring("too long: its header says 1 elements of 8 bytes, shape {1}, but more follow"));
  write_file(folder / "x.npy", "\x93NUMPY" + unhex("0200ffffffff"));
  std::filesystem::resize_file(folder / "x.npy", std::uintmax_t{1} << 42);
  CHECK_THAT(error_text([&] { load_npy(folder / "x.npy"); }), ContainsSubstring("a header of 4.29 GB"));
}

TEST_CASE("save_npy leaves the old file or a new one, and nothing else") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.npy";
  CHECK_THAT(error_text([&] { save_npy(folder / "no/x.npy", Array(1.0)); }),
             ContainsSubstring("save_npy: requires a file that can be written, got '" + (folder / "no/x.npy") +
                               "': No such file or directory"));
  CHECK_THAT(error_text([&] { save_npy(folder / "", Array(1.0)); }), ContainsSubstring("no regular file"));
  CHECK_THAT(error_text([&] { save_npy("/dev/null", Array(1.0)); }), ContainsSubstring("no regular file"));

  save_npy(path, Array(1.0));
  struct stat status {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  const mode_t mask = umask(0);
  umask(mask);
  CHECK((status.st_mode & 0777) == (0666 & ~mask));
  // Permissions stay, and a link goes on to be one.
  REQUIRE(chmod(path.c_str(), 0640) == 0);
  REQUIRE(symlink("x.npy", (folder / "link.npy").c_str()) == 0);
  save_npy(folder / "link.npy", Array(2.0));
  CHECK(load_npy(path).item() == 2);
  REQUIRE(lstat((folder / "link.npy").c_str(), &status) == 0);
  CHECK(S_ISLNK(status.st_mode));
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0640);
  CHECK(folder.files() == 2);
}
