#include <zlib.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <chainrule/framework/files/files.hpp>

#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::Csv;
using chainrule::data::CsvOptions;
using chainrule::data::load_csv;
using chainrule::test::TemporaryFolder;
using chainrule::test::write_file;

namespace {

Csv loaded(const std::string& text, const CsvOptions& options = {}) {
  const TemporaryFolder folder;
  write_file(folder / "x.csv", text);
  return load_csv(folder / "x.csv", options);
}

std::string load_error(const std::string& text, const CsvOptions& options = {}) {
  return chainrule::test::error_text([&] { loaded(text, options); });
}

}  // namespace

TEST_CASE("load_csv reads numbers, with a header or without") {
  const Array expected({{1, 2.5}, {-3e2, 4}});
  for (const char* const text : {"1,2.5\n-3e2,4\n", "1,2.5\n-3e2,4", "1,2.5\r\n-3e2,4\r\n",
                                 "\xef\xbb\xbf"
                                 "1,2.5\n-3e2,4\n",
                                 "\n 1 , 2.5\n\n-3e2,+4\n\n", "\"1\",2.5\n-3e2,\"4\"\n"}) {
    INFO(text);
    const Csv got = loaded(text);
    CHECK(got.columns.empty());
    CHECK(got.values.identical(expected));
  }
  const Csv named = loaded("height,\"weight, kg\"\n1,2.5\n-3e2,4\n");
  CHECK(named.columns == std::vector<std::string>{"height", "weight, kg"});
  CHECK(named.values.identical(expected));
  CHECK(loaded("1;2.5\n-3e2;4\n", {.delimiter = ';'}).values.identical(expected));
  CHECK(loaded("1\t2.5\n-3e2\t4\n", {.delimiter = '\t'}).values.identical(expected));
  CHECK(loaded("1 2.5\n-3e2 4\n", {.delimiter = ' '}).values.identical(expected));
  CHECK(loaded("7").values.identical(Array({{7.0}})));
  // A number in the first row: data, unless the caller knows better.
  CHECK(loaded("2020,2021\n1,2\n").values.shape() == Dims{2, 2});
  const Csv years = loaded("2020,2021\n1,2\n", {.header = true});
  CHECK(years.columns == std::vector<std::string>{"2020", "2021"});
  CHECK(years.values.identical(Array({{1.0, 2.0}})));
  CHECK(loaded("a,b\n", {.header = true}).values.shape() == Dims{0, 2});
}

TEST_CASE("load_csv reads every float64 exactly, whatever the locale") {
  const Array got = loaded("0.1,1.7976931348623157e308,4.9e-324,-0.0,nan,inf,-inf,3.0000000000000004\n").values;
  CHECK(got[0] == 0.1);
  CHECK(got[1] == std::numeric_limits<double>::max());
  CHECK(got[2] == std::numeric_limits<double>::denorm_min());
  CHECK(std::signbit(got[3]));
  CHECK(std::isnan(got[4]));
  CHECK(got[5] == std::numeric_limits<double>::infinity());
  CHECK(got[6] == -std::numeric_limits<double>::infinity());
  CHECK(got[7] == 3.0000000000000004);
}

TEST_CASE("load_csv takes empty fields for what it is told") {
  const double nan = std::nan("");
  const Array got = loaded("1,\n,4\n", {.missing = nan}).values;
  CHECK(got.identical(Array({{1, nan}, {nan, 4}})));
  CHECK_THAT(load_error("1,2\n,4\n"), ContainsSubstring("row 2, column 1: \"\" is no float64 number"));
}

TEST_CASE("load_csv takes a first row for names only if it has some, and no number") {
  const double nan = std::nan("");
  CHECK(loaded(",\n1,2\n", {.missing = nan}).values.identical(Array({{nan, nan}, {1, 2}})));
  CHECK_THAT(load_error(",\n1,2\n"), ContainsSubstring("row 1, column 1: \"\" is no float64 number"));
  for (const char* const first : {"NA,NA", "1e400,-1e400", "n/a,", "NA,1e400", "x,1e400", "?,-", ".,null"}) {
    INFO(first);
    CHECK_THAT(load_error(std::string(first) + "\n1,2\n"), ContainsSubstring("row 1, column "));
  }
  // pandas gives the column of an index no name; NA is sodium beside names.
  const Csv index = loaded(",a\n0,2\n");
  CHECK(index.columns == std::vector<std::string>{"", "a"});
  CHECK(index.values.identical(Array({{0.0, 2.0}})));
  CHECK(loaded("K,NA\n1,2\n").columns == std::vector<std::string>{"K", "NA"});
  CHECK(loaded("NA,NA\n1,2\n", {.header = true}).columns == std::vector<std::string>{"NA", "NA"});
}

TEST_CASE("load_csv reads tables longer than a piece of the file") {
  std::string text = "first,second\n";
  for (int i = 0; i < 30000; ++i) text += std::to_string(i) + ",\"" + std::to_string(-i) + "\"\n";
  const Csv got = loaded(text);
  REQUIRE(got.values.shape() == Dims{30000, 2});
  for (std::int64_t i = 0; i < 30000; ++i) REQUIRE((got.values(i, 0) == double(i) && got.values(i, 1) == double(-i)));
  CHECK_THAT(load_error(text + "1,x\n"), ContainsSubstring("row 30002, column 2: \"x\""));
  CHECK_THAT(load_error(text + std::string(1, '\0')), ContainsSubstring("a zero byte, so it is no text"));
}

TEST_CASE("load_csv reads tables that gzip compressed") {
  const TemporaryFolder folder;
  std::string text = "first,second\n";
  for (int i = 0; i < 30000; ++i) text += std::to_string(i) + "," + std::to_string(-i) + "\n";
  gzFile file = gzopen((folder / "x.csv.gz").c_str(), "wb");
  REQUIRE(gzwrite(file, text.data(), static_cast<unsigned>(text.size())) == static_cast<int>(text.size()));
  REQUIRE(gzclose(file) == Z_OK);
  const Csv got = load_csv(folder / "x.csv.gz");
  CHECK(got.columns == std::vector<std::string>{"first", "second"});
  REQUIRE(got.values.shape() == Dims{30000, 2});
  for (std::int64_t i = 0; i < 30000; ++i) REQUIRE((got.values(i, 0) == double(i) && got.values(i, 1) == double(-i)));
  // Cut within its compressed data, or with another checksum at its end.
  std::string bytes = chainrule::test::read_file(folder / "x.csv.gz");
  write_file(folder / "cut.gz", bytes.substr(0, bytes.size() / 2));
  CHECK_THAT(chainrule::test::error_text([&] { load_csv(folder / "cut.gz"); }), ContainsSubstring("truncated"));
  bytes[bytes.size() - 8] = static_cast<char>(bytes[bytes.size() - 8] ^ 1);
  write_file(folder / "damaged.gz", bytes);
  CHECK_THAT(chainrule::test::error_text([&] { load_csv(folder / "damaged.gz"); }),
             ContainsSubstring("damaged compressed data"));
}

TEST_CASE("load_csv names wrong files, rows and columns") {
  chainrule::test::check_wrong_files([](const auto& path) { load_csv(path); }, "load_csv", "a table of numbers (CSV)");
  const std::string text = "a,b,c\n1,2,3\n4,5,6\n";
  // What ends with a row of three fields is a table.
  chainrule::test::check_truncations(
      text, [](const auto& path) { load_csv(path); },
      [&](std::size_t length) { return length == 11 || length == 12 || length == 17; });
  chainrule::test::check_damages("a,b\n1,\"2\"\n", [](const auto& path) { load_csv(path); });

  CHECK_THAT(load_error("1,2\n3\n"), ContainsSubstring("row 2 has 1 fields, where the first has 2"));
  CHECK_THAT(load_error("1,2\n3,4,5\n"), ContainsSubstring("row 2 has 3 fields, where the first has 2"));
  CHECK_THAT(load_error("x,y\n3,four\n"), ContainsSubstring("row 2, column 2: \"four\" is no float64 number"));
  CHECK_THAT(load_error("1,2\n3,0x10\n"), ContainsSubstring("\"0x10\" is no float64 number"));
  CHECK_THAT(load_error("1,2\n3,1e999\n"), ContainsSubstring("\"1e999\" is no float64 number"));
  CHECK_THAT(load_error("1,2\n3,1.5kg\n"), ContainsSubstring("\"1.5kg\" is no float64 number"));
  CHECK_THAT(load_error("1,b\n3,4\n"), ContainsSubstring("row 1, column 2: \"b\" is no float64 number"));
  CHECK_THAT(load_error("a,b\n3,4\n", {.header = false}), ContainsSubstring("row 1, column 1: \"a\" is no"));
  CHECK_THAT(load_error("1,2\n3,\"4\n"), ContainsSubstring("row 2: a quote that is misplaced or not closed"));
  CHECK_THAT(load_error("1,2\n3,4\"5\n"), ContainsSubstring("row 2: a quote that is misplaced or not closed"));
  CHECK_THAT(load_error("\n\n\n"), ContainsSubstring("no number"));
  CHECK_THAT(load_error("a,b\n"), ContainsSubstring("no number, only one row that begins with \"a\""));
  CHECK_THAT(load_error("1,2\n", {.delimiter = '"'}),
             ContainsSubstring("load_csv: requires a delimiter that is no quote and ends no line, got \"\"\""));
}
