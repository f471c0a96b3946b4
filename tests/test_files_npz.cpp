#include <sys/resource.h>
#include <zip.h>

#include <cstring>
#include <fstream>

#include <chainrule/framework/files/files.hpp>

#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::data::Arrays;
using chainrule::data::load_npz;
using chainrule::data::save_npz;
using chainrule::test::error_text;
using chainrule::test::TemporaryFolder;
using chainrule::test::unhex;
using chainrule::test::write_file;

namespace {

// numpy.savez(file, a=np.arange(3.0), b=np.array(7)), NumPy 1.24.
const std::string savez = unhex(
    "504b0304140000000000000021002421e12b980000009800000005001400612e6e7079010010009800000000000000980000000000000093"
    "4e554d5059010076007b276465736372273a20273c6638272c2027666f727472616e5f6f72646572273a2046616c73652c20277368617065"
    "273a2028332c292c207d20202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020"
    "20202020202020202020202020200a0000000000000000000000000000f03f0000000000000040504b03041400000000000000210023b8f0"
    "6c880000008800000005001400622e6e70790100100088000000000000008800000000000000934e554d5059010076007b27646573637227"
    "3a20273c6938272c2027666f727472616e5f6f72646572273a2046616c73652c20277368617065273a2028292c207d202020202020202020"
    "20202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200a0700"
    "000000000000504b01021403140000000000000021002421e12b9800000098000000050000000000000000000000800100000000612e6e70"
    "79504b010214031400000000000000210023b8f06c88000000880000000500000000000000000000008001cf000000622e6e7079504b0506"
    "0000000002000200660000008e0100000000");

// numpy.savez_compressed(file, a=np.zeros((20, 20))).
const std::string savez_compressed = unhex(
    "504b0304140000000800000021002cb851215f000000000d000005001400612e6e707901001000000d0000000000005f000000000000009b"
    "ec17ea1b10c9c850c650ad9e925a9c5ca46ea5a06e9366a1aea3a09e965f54529498179f5f94920a12774bcc294e058a17672416a402f91a"
    "46063a0a46069a3a0ab50a64022e8651300a46c1281805a360148c8251300a46c128a0130000504b01021403140000000800000021002cb8"
    "51215f000000000d0000050000000000000000000000800100000000612e6e7079504b0506000000000100010033000000960000000000");

Arrays loaded(const std::string& bytes) {
  const TemporaryFolder folder;
  write_file(folder / "x.npz", bytes);
  return load_npz(folder / "x.npz");
}

// An archive of these members.
std::string archive(const std::vector<std::pair<std::string, std::string>>& members) {
  const TemporaryFolder folder;
  zip_t* const zip = zip_open((folder / "x.zip").c_str(), ZIP_CREATE, nullptr);
  for (const auto& [name, bytes] : members)
    zip_file_add(zip, name.c_str(), zip_source_buffer(zip, bytes.data(), bytes.size(), 0), 0);
  REQUIRE(zip_close(zip) == 0);
  return chainrule::test::read_file(folder / "x.zip");
}

std::string npy_of(const Array& array) {
  const TemporaryFolder folder;
  chainrule::data::save_npy(folder / "x.npy", array);
  return chainrule::test::read_file(folder / "x.npy");
}

}  // namespace

TEST_CASE("load_npz reads what NumPy writes") {
  const Arrays got = loaded(savez);
  REQUIRE(got.size() == 2);
  CHECK(got.at("a").identical(Array({0, 1, 2})));
  CHECK(got.at("b").identical(Array(7)));
  CHECK(loaded(savez_compressed).at("a").identical(Array(chainrule::float64, {20, 20})));

  const TemporaryFolder folder;
  write_file(folder / "x.npz", savez);
  CHECK(load_npz(folder / "x.npz", "b").item() == 7);
  CHECK_THAT(error_text([&] { load_npz(folder / "x.npz", "c"); }),
             ContainsSubstring("load_npz: requires an archive of NumPy arrays (.npz), got '" + (folder / "x.npz") +
                               "': no array 'c', only 'a', 'b'"));
}

TEST_CASE("save_npz writes what load_npz reads") {
  const TemporaryFolder folder;
  const std::string path = folder / "x.npz";
  const Arrays arrays{{"W1", Array({{1.5, 2.5}})},
                      {"layer/bias", Array({1, 2, 3}).astype(chainrule::float32)},
                      {"n", Array(3)},
                      {"mask", Array({1, 0}).astype(chainrule::boolean)},
                      {"none", Array()}};
  save_npz(path, {{"old", Array(1.0)}});
  save_npz(path, arrays);
  const Arrays got = load_npz(path);
  REQUIRE(got.size() == arrays.size());
  for (const auto& [name, array] : arrays) CHECK(got.at(name).identical(array));
  CHECK(folder.files() == 1);

  const auto save_error = [](const std::string& to, const Arrays& what) {
    return error_text([&] { save_npz(to, what); });
  };
  CHECK_THAT(save_error(folder / "no/x.npz", arrays),
             ContainsSubstring("save_npz: requires a file that can be written, got '" + (folder / "no/x.npz") + "'"));
  CHECK_THAT(save_error(path, {}), ContainsSubstring("requires at least one array"));
  CHECK_THAT(save_error(path, {{"", Array(1.0)}}), ContainsSubstring("requires names of arrays"));
  CHECK(load_npz(path).size() == arrays.size());
}

TEST_CASE("load_npz leaves out what is no array of numbers") {
  std::string text = npy_of(Array({{1.0}}));
  text.replace(text.find("<f8"), 3, "<U2");
  const std::string bytes = archive({{"x.npy", npy_of(Array(1.0))}, {"names.npy", text}, {"readme.txt", "hello"}});
  const Arrays got = loaded(bytes);
  REQUIRE(got.size() == 1);
  CHECK(got.at("x").item() == 1);
  const TemporaryFolder folder;
  write_file(folder / "x.npz", bytes);
  CHECK_THAT(error_text([&] { load_npz(folder / "x.npz", "names"); }),
             ContainsSubstring("': member 'names': elements of NumPy's type <U2"));
  CHECK(loaded(archive({{"readme.txt", "hello"}})).empty());
}

TEST_CASE("load_npz lists what it skips, and why") {
  std::string large = npy_of(Array({std::int64_t{-1}}).astype(chainrule::int64));
  large.replace(large.find("<i8"), 3, "<u8");
  std::string deep = npy_of(Array({1.0}));
  deep.replace(deep.find("(1,), }"), 30, "(1, 1, 1, 1, 1, 1, 1, 1, 1), }");
  const TemporaryFolder folder;
  const std::string path = folder / "x.npz";
  write_file(path, archive({{"deep.npy", deep}, {"large.npy", large}, {"x.npy", npy_of(Array(1.0))}}));
  const Arrays got = load_npz(path);
  REQUIRE(got.size() == 1);
  CHECK(got.at("x").item() == 1);
  CHECK(got.skipped ==
        std::map<std::string, std::string>{{"deep", "an array of 9 dimensions, where at most 8 are supported"},
                                           {"large", "the number 18446744073709551615, which is too large for int64"}});
  CHECK_THAT(error_text([&] { (void)got.at("deep"); }),
             ContainsSubstring("test_files_npz.cpp:") &&
                 ContainsSubstring("arrays: requires the name of an array, got 'deep', which is none: an array of 9"));
  CHECK_THAT(error_text([&] { (void)got.at("y"); }), ContainsSubstring("got 'y', where there are 'x'"));
  CHECK_THAT(error_text([&] { load_npz(path, "large"); }),
             ContainsSubstring("': member 'large': the number 18446744073709551615"));
}

TEST_CASE("load_npz takes the last of one name, as NumPy does") {
  // The second member, "b", is called "a" too, wherever its name stands.
  std::string twice = savez;
  for (std::size_t at = twice.find("b.npy"); at != std::string::npos; at = twice.find("b.npy")) twice[at] = 'a';
  const Arrays got = loaded(twice);
  REQUIRE(got.size() == 1);
  CHECK(got.at("a").identical(Array(7)));
  const TemporaryFolder folder;
  write_file(folder / "x.npz", twice);
  CHECK(load_npz(folder / "x.npz", "a").item() == 7);
  // A name that stands differently in the archive's directory is no name.
  std::string renamed = savez;
  renamed[renamed.rfind("b.npy")] = 'c';
  CHECK_THAT(error_text([&] { loaded(renamed); }),
             ContainsSubstring("a member is called 'c.npy' in its directory, and 'b.npy' where it begins"));
}

TEST_CASE("load_npz reads archives that were written to a pipe") {
  // zip - a.npy | cat > x.npz (Info-ZIP 3.0): sizes and checksum stand after the member. NumPy's array is int8 {7, 8}.
  const std::string npy = npy_of(Array({7, 8}).astype(chainrule::int64));
  std::string piped = archive({{"a.npy", npy}});
  const std::size_t directory = piped.find("PK\1\2");
  const std::string sum = piped.substr(14, 12);  // checksum, compressed size, size
  piped[6] = static_cast<char>(piped[6] | 8);
  for (std::size_t i = 14; i < 22; ++i) piped[i] = '\0';  // the size itself stands there
  piped[directory + 8] = static_cast<char>(piped[directory + 8] | 8);
  const std::string after = "PK\7\b" + sum;
  piped.insert(directory, after);
  const std::size_t end = piped.rfind("PK\5\6");
  const std::uint32_t offset = static_cast<std::uint32_t>(directory + after.size());
  std::memcpy(piped.data() + end + 16, &offset, 4);
  CHECK(loaded(piped).at("a").identical(Array({7, 8}).astype(chainrule::int64)));
}

TEST_CASE("load_npz inflates no more than a member's header says") {
  // 64 MB of zeros after an array of one number.
  const std::string bomb = archive({{"x.npy", npy_of(Array(1.0)) + std::string(std::size_t{64} << 20, '\0')}});
  CHECK(bomb.size() < 100'000);
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_DATA, &old) == 0);
  std::uint64_t pages = 0;
  std::uint64_t data = 0;  // the sixth number: data and stack
  std::ifstream statm("/proc/self/statm");
  for (int i = 0; i < 6; ++i) statm >> (i == 5 ? data : pages);
  const rlimit tight{data * 4096 + (std::uint64_t{16} << 20), old.rlim_max};
  const TemporaryFolder folder;
  write_file(folder / "x.npz", bomb);
  REQUIRE(setrlimit(RLIMIT_DATA, &tight) == 0);
  const std::string text = error_text([&] { load_npz(folder / "x.npz"); });
  REQUIRE(setrlimit(RLIMIT_DATA, &old) == 0);
  CHECK_THAT(text,
             ContainsSubstring("member 'x': too long: its header says 1 elements of 8 bytes, shape {}, but more"));
}

TEST_CASE("load_npz names wrong files") {
  const auto load = [](const std::string& path) { load_npz(path); };
  chainrule::test::check_wrong_files(load, "load_npz", "an archive of NumPy arrays (.npz)");
  chainrule::test::check_truncations(savez, load);
  chainrule::test::check_truncations(savez_compressed, load);
  chainrule::test::check_damages(savez_compressed, load);

  CHECK_THAT(error_text([] { loaded(savez.substr(0, 300)); }), ContainsSubstring("no zip archive, or truncated"));
  CHECK_THAT(error_text([] { loaded(npy_of(Array(1.0))); }), ContainsSubstring("no zip archive, or truncated"));
  std::string flipped = savez;
  flipped[200] ^= 1;  // within the numbers: the checksum tells
  CHECK_THAT(error_text([&] { loaded(flipped); }), ContainsSubstring("member 'a': cannot be read (CRC error)"));
  CHECK_THAT(error_text([] {
               loaded(archive({{"x.npy", "hello"}}));
             }),
             ContainsSubstring("member 'x': no NumPy array, it begins with \"hello\""));
  CHECK_THAT(error_text([] {
               loaded(archive({{"x.npy", npy_of(Array(1.0)).substr(0, 130)}}));
             }),
             ContainsSubstring("member 'x': truncated"));
}
