// Tokenizers and windows. The pairs of the small texts are found by hand.
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <chainrule/framework/data/text.hpp>

#include "catch.hpp"
#include "files.hpp"

using Catch::Matchers::ContainsSubstring;
using chainrule::Array;
using chainrule::Dims;
using chainrule::data::Dataset;
using chainrule::data::Tokenizer;
using chainrule::data::windows;
using chainrule::test::error_text;
using chainrule::test::read_file;
using chainrule::test::TemporaryFolder;
using chainrule::test::write_file;

namespace {

using Numbers = std::vector<std::int64_t>;

Numbers numbers(const Array& array) {
  Numbers out;
  for (std::int64_t i = 0; i < array.size(); ++i) out.push_back(array.at<std::int64_t>(i));
  return out;
}

std::string all_bytes() {
  std::string out;
  for (int b = 0; b < 256; ++b) out += static_cast<char>(b);
  return out;
}

// What a test of any text tries: words, spaces of all kinds, UTF-8 of every length, bytes that are none.
std::vector<std::string> texts() {
  std::vector<std::string> out{"",
                               " ",
                               "a",
                               "  two  spaces, and\n\na tab\t.\r\n",
                               "caf\xc3\xa9 \xe2\x82\xac 5, \xf0\x9f\x99\x82",
                               "cut \xc3",
                               "\xff\xfe\x80\x80 \xed\xa0\x80 \xc0\x80 \xf4\x90\x80\x80",
                               std::string(1000, 'a'),
                               std::string(1000, ' '),
                               std::string(3, '\0'),
                               all_bytes(),
                               all_bytes() + all_bytes()};
  std::mt19937 random(1);
  for (int i = 0; i < 50; ++i) {
    std::string text;
    // Of few kinds of bytes, so that pairs repeat.
    const std::string some = i % 2 == 0 ? std::string("ab \n") : std::string("e\xc3\xa9 1\xff.", 7);
    for (std::size_t length = random() % 200; length > 0; --length) text += some[random() % some.size()];
    out.push_back(text);
  }
  return out;
}

void check_same(const Tokenizer& a, const Tokenizer& b) {
  REQUIRE(a.size() == b.size());
  for (std::int64_t t = 0; t < a.size(); ++t) REQUIRE(a.bytes(t) == b.bytes(t));
}

}  // namespace

// ---- characters

TEST_CASE("Characters: one token for each code point, in their order") {
  const auto tokenizer = Tokenizer::characters(
      "b\xc3\xa9"
      "a, \xe2\x82\xac"
      "ab");
  CHECK(tokenizer.size() == 6);  // space, comma, a, b, U+E9, U+20AC
  CHECK(numbers(tokenizer.encode("ab, \xc3\xa9\xe2\x82\xac")) == Numbers{2, 3, 1, 0, 4, 5});
  CHECK(tokenizer.encode("ab").dtype() == chainrule::uint8);
  CHECK(tokenizer.encode("").shape() == Dims{0});
  CHECK(tokenizer.decode(tokenizer.encode("")).empty());
  CHECK(tokenizer.bytes(4) == "\xc3\xa9");
  CHECK(tokenizer.decode(Array({3.0, 4.0}).astype(chainrule::int64).reshape({2, 1})) == "b\xc3\xa9");
}

TEST_CASE("Characters: bytes that are no valid UTF-8 are characters by themselves") {
  struct Case {
    std::string text;
    std::int64_t tokens;
  };
  // RFC 3629: a lone continuation, a long form, a surrogate, U+110000, a character that is cut; and the least and
  // greatest ones of each length, which are valid.
  for (const auto& [text, tokens] :
       {Case{"\x80", 1}, Case{"\xc0\x80", 2}, Case{"\xe0\x9f\xbf", 3}, Case{"\xed\xa0\x80", 3},
        Case{"\xf0\x8f\xbf\xbf", 4}, Case{"\xf4\x90\x80\x80", 4}, Case{"\xe2\x82", 2}, Case{"\xc3(", 2},
        Case{"\xff", 1}, Case{"\xc2\x80", 1}, Case{"\xdf\xbf", 1}, Case{"\xe0\xa0\x80", 1}, Case{"\xed\x9f\xbf", 1},
        Case{"\xef\xbf\xbf", 1}, Case{"\xf0\x90\x80\x80", 1}, Case{"\xf4\x8f\xbf\xbf", 1}}) {
    INFO(text);
    CHECK(Tokenizer::characters(text).encode(text).size() == tokens);
  }
}

TEST_CASE("Characters: more than 256 are int32") {
  std::string text;
  for (unsigned c = 0; c < 300; ++c) {  // U+0100 and on: two bytes each
    text += static_cast<char>(0xc4 + c / 64);
    text += static_cast<char>(0x80 + c % 64);
  }
  const auto tokenizer = Tokenizer::characters(text);
  CHECK(tokenizer.size() == 300);
  const Array tokens = tokenizer.encode(text);
  CHECK(tokens.dtype() == chainrule::int32);
  for (std::int64_t i = 0; i < 300; ++i) REQUIRE(tokens.at<std::int64_t>(i) == i);
  CHECK(Tokenizer::characters(text.substr(0, 512)).encode("").dtype() == chainrule::uint8);
}

// ---- byte pairs

TEST_CASE("Byte pairs: the most frequent first, of equal ones the smallest") {
  // aa lies there 4 times (two of them overlap); then ab = (97, 98) and Za = (256, 97) twice each; then ZY. What is
  // left, XdXac, has no pair twice.
  const auto tokenizer = Tokenizer::byte_pairs("aaabdaaabac", 1000);
  CHECK(tokenizer.size() == 259);
  CHECK(tokenizer.bytes(256) == "aa");
  CHECK(tokenizer.bytes(257) == "ab");
  CHECK(tokenizer.bytes(258) == "aaab");
  CHECK(numbers(tokenizer.encode("aaabdaaabac")) == Numbers{258, 100, 258, 97, 99});
  // The pair that was found first is joined first, from the left: aaaaab is aa aa a b, then aa aa ab, then aa aaab.
  CHECK(numbers(tokenizer.encode("aaaaab")) == Numbers{256, 258});
  CHECK(numbers(tokenizer.encode("aab")) == Numbers{256, 98});  // not a ab
  CHECK(numbers(tokenizer.encode("aaab")) == Numbers{258});
  CHECK(tokenizer.encode("").dtype() == chainrule::int32);
  CHECK(Tokenizer::byte_pairs("aaabdaaabac", 257).size() == 257);
  CHECK(Tokenizer::byte_pairs("aaabdaaabac", 256).encode("aa").dtype() == chainrule::uint8);
  CHECK(Tokenizer::byte_pairs("", 300).size() == 256);
}

TEST_CASE("Byte pairs: a space belongs to its word, and no token reaches across words") {
  // Pieces "low", " low" twice and " lower": lo and ow 4 times each, of which (108, 111) is the smaller; then lo-w 4
  // times, and space-low 3 times.
  const auto tokenizer = Tokenizer::byte_pairs("low low low lower", 1000);
  REQUIRE(tokenizer.size() == 259);
  CHECK(tokenizer.bytes(256) == "lo");
  CHECK(tokenizer.bytes(257) == "low");
  CHECK(tokenizer.bytes(258) == " low");
  CHECK(numbers(tokenizer.encode("low slow low")) == Numbers{257, 32, 115, 257, 258});
  // The last of several spaces belongs to the word.
  CHECK(numbers(tokenizer.encode("  low")) == Numbers{32, 258});

  // Letters, digits, marks and white space each stay among themselves, with one space before them or none.
  const auto pairs = Tokenizer::byte_pairs("ab1,\n\nab1,\n\nab1,\n\n ab", 1000);
  for (std::int64_t t = 256; t < pairs.size(); ++t) {
    const std::string text(pairs.bytes(t));
    INFO(text);
    CHECK((text == "ab" || text == "\n\n"));
  }
  CHECK(pairs.size() == 258);
}

TEST_CASE("Byte pairs: a token has 64 bytes at most") {
  const std::string text(64 * 64, 'x');
  const auto tokenizer = Tokenizer::byte_pairs(text, 1000);
  // 2, 4, ..., 64 of them: then each piece is one token.
  CHECK(tokenizer.size() == 256 + 6);
  CHECK(tokenizer.bytes(256 + 5) == std::string(64, 'x'));
  CHECK(tokenizer.encode(text).size() == 64);
}

TEST_CASE("Any text is what its tokens stand for") {
  const std::vector<std::string> all = texts();
  for (const std::string& trained : all) {
    const auto pairs = Tokenizer::byte_pairs(trained, 300);
    for (const std::string& text : all) {
      const Array tokens = pairs.encode(text);
      REQUIRE(pairs.decode(tokens) == text);
      REQUIRE(tokens.size() <= static_cast<std::int64_t>(text.size()));
    }
    if (trained.empty()) continue;
    const auto characters = Tokenizer::characters(trained);
    REQUIRE(characters.decode(characters.encode(trained)) == trained);
  }
}

// ---- what a tokenizer refuses

TEST_CASE("What a tokenizer cannot do it says") {
  const auto tokenizer = Tokenizer::characters("abc");
  CHECK_THAT(error_text([&] { Tokenizer::characters(""); }),
             ContainsSubstring("Tokenizer::characters: requires a text of one character or more, got none"));
  CHECK_THAT(error_text([&] { (void)tokenizer.encode("ab\xc3\xa9"); }),
             ContainsSubstring("Tokenizer::encode: requires characters of the text that the tokenizer was made from, "
                               "got '\\xc3\\xa9' at byte 2"));
  CHECK_THAT(error_text([&] { (void)tokenizer.decode(Array(std::int64_t{3})); }),
             ContainsSubstring("Tokenizer::decode: requires tokens from 0 to 2, got 3 as token 0"));
  CHECK_THAT(error_text([&] { (void)tokenizer.decode(Array(std::int64_t{-1})); }), ContainsSubstring("got -1"));
  CHECK_THAT(error_text([&] { (void)tokenizer.decode(Array({1.0})); }),
             ContainsSubstring("requires tokens, which are whole numbers, got float64"));
  CHECK_THAT(error_text([&] { (void)tokenizer.bytes(3); }), ContainsSubstring("requires a token from 0 to 2, got 3"));
  CHECK_THAT(error_text([&] { Tokenizer::byte_pairs("abc", 255); }),
             ContainsSubstring("Tokenizer::byte_pairs: requires a vocabulary from 256"));
  CHECK_THAT(error_text([&] { Tokenizer::byte_pairs("abc", std::int64_t{1} << 31); }),
             ContainsSubstring("got 2147483648"));
  CHECK_THAT(error_text([&] { (void)tokenizer.encode("x"); }), ContainsSubstring("test_data_text.cpp:"));
}

// ---- files

TEST_CASE("A tokenizer is the same after it was saved and loaded") {
  const TemporaryFolder folder;
  const std::string path = folder / "tokenizer";
  for (const std::string& text : texts()) {
    const auto pairs = Tokenizer::byte_pairs(text, 300);
    pairs.save(path);
    check_same(Tokenizer::load(path), pairs);
    CHECK(Tokenizer::load(path).encode(text).identical(pairs.encode(text)));
    if (text.empty()) continue;
    const auto characters = Tokenizer::characters(text);
    characters.save(path);
    check_same(Tokenizer::load(path), characters);
    CHECK(Tokenizer::load(path).encode(text).identical(characters.encode(text)));
  }
  CHECK(folder.files() == 1);
}

TEST_CASE("What a tokenizer's file says") {
  const TemporaryFolder folder;
  const std::string path = folder / "tokenizer";
  Tokenizer::byte_pairs("aaabdaaabac", 1000).save(path);
  const std::string pairs = read_file(path);
  CHECK(pairs.substr(0, pairs.find("checksum")) == "chainrule tokenizer 1\nbyte pairs 3\n97 97\n97 98\n256 257\n");
  Tokenizer::characters("b\xc3\xa9\xff").save(path);
  const std::string characters = read_file(path);
  CHECK(characters.substr(0, characters.find("checksum")) == "chainrule tokenizer 1\ncharacters 3\n62\nc3a9\nff\n");
}

TEST_CASE("A damaged tokenizer's file is an Error that names it") {
  const TemporaryFolder folder;
  const std::string path = folder / "tokenizer";
  const auto load = [](const std::string& file) { Tokenizer::load(file); };
  chainrule::test::check_wrong_files(load, "Tokenizer::load", "a tokenizer's file (Tokenizer::save)");
  for (const bool pairs : {false, true}) {
    (pairs ? Tokenizer::byte_pairs("aaabdaaabac", 1000) : Tokenizer::characters("b\xc3\xa9\xff")).save(path);
    const std::string bytes = read_file(path);
    chainrule::test::check_truncations(bytes, load);
    for (std::size_t i = 0; i < bytes.size(); ++i)
      for (const unsigned change : {0x01U, 0x04U, 0x80U, 0xffU}) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(static_cast<unsigned char>(damaged[i]) ^ change);
        write_file(path, damaged);
        INFO(i);
        REQUIRE_THAT(error_text([&] { load(path); }), ContainsSubstring("'" + path + "': line "));
      }
    write_file(path, bytes + "\n");
    CHECK_THAT(error_text([&] { load(path); }), ContainsSubstring("more follows"));
  }
}

TEST_CASE("What is wrong with a tokenizer's file") {
  const TemporaryFolder folder;
  const std::string path = folder / "tokenizer";
  const auto check = [&](const std::string& lines, const std::string& found) {
    write_file(path, lines + "checksum 0000000000000000\n");
    CHECK_THAT(error_text([&] { Tokenizer::load(path); }), ContainsSubstring("'" + path + "': " + found));
  };
  const std::string title = "chainrule tokenizer 1\n";
  check("chainrule tokenizer 2\n", "line 1: 'chainrule tokenizer 2' where 'chainrule tokenizer 1' should stand");
  check(title + "words 3\n", "line 2: 'words 3' where 'byte pairs' or 'characters' and their number should stand");
  check(title + "byte pairs x\n", "line 2: 'byte pairs x' where 'byte pairs' and their number should stand");
  check(title + "byte pairs 4000000000\n97 97\n", "line 2: 4000000000 where the file ends before");
  check(title + "byte pairs 1\n97 256\n", "line 3: '97 256' where two tokens from 0 to 255 should stand");
  check(title + "byte pairs 1\n97\n", "line 3: '97' where two tokens from 0 to 255 should stand");
  check(title + "byte pairs 1\n-1 97\n", "line 3: '-1 97' where two tokens");
  check(title + "byte pairs 2\n97 97\n97 97\n", "line 4: a pair that stands in the file before");
  // Each token twice as long as the one before: 64 bytes, and no further.
  check(title + "byte pairs 7\n97 97\n256 256\n257 257\n258 258\n259 259\n260 260\n261 261\n",
        "line 9: the tokens 261 and 261 have more than 64 bytes together");
  check(title + "characters 2\n62\n61\n", "line 4: a character that is not beyond the one before");
  check(title + "characters 2\n62\n62\n", "line 4: a character that is not beyond the one before");
  for (const std::string line : {"6", "6g", "6162", "c3a961", "0x", "", "c3a9c3a9c3"})
    check(title + "characters 1\n" + line + "\n",
          "line 3: '" + line + "' where a character in hexadecimal digits should stand");
  check(title + "characters 0\n", "line 2: no characters");
  check(title + "characters 1\n62\n", "line 4: 'checksum 0000000000000000' where 'checksum ");
}

// ---- windows

TEST_CASE("Windows and what follows them") {
  const Array tokens = Array({10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0}).astype(chainrule::uint8);
  const auto check = [&](std::int64_t length, std::int64_t stride, const Dims& shape, const Numbers& x,
                         const Numbers& y) {
    const Dataset out = windows(tokens, length, stride);
    CHECK(out.axis == 0);
    CHECK(out.size() == shape[0]);
    CHECK((out.x.shape() == shape && out.y.shape() == shape));
    CHECK((out.x.dtype() == chainrule::uint8 && out.y.dtype() == chainrule::uint8));
    CHECK(numbers(out.x) == x);
    CHECK(numbers(out.y) == y);
  };
  check(3, 3, {2, 3}, {10, 11, 12, 13, 14, 15}, {11, 12, 13, 14, 15, 16});
  check(3, 2, {3, 3}, {10, 11, 12, 12, 13, 14, 14, 15, 16}, {11, 12, 13, 13, 14, 15, 15, 16, 17});
  check(2, 5, {2, 2}, {10, 11, 15, 16}, {11, 12, 16, 17});
  check(7, 1, {1, 7}, {10, 11, 12, 13, 14, 15, 16}, {11, 12, 13, 14, 15, 16, 17});
  check(1, 100, {1, 1}, {10}, {11});
  // Of every dtype.
  for (const auto dtype : {chainrule::int32, chainrule::int64, chainrule::float32, chainrule::float64}) {
    const Dataset out = windows(tokens.astype(dtype), 3, 3);
    CHECK(out.x.dtype() == dtype);
    CHECK(numbers(out.y) == Numbers{11, 12, 13, 14, 15, 16});
  }
}

TEST_CASE("Windows that there cannot be") {
  const Array tokens(chainrule::int64, {5});
  CHECK_THAT(error_text([&] { windows(tokens, 5, 1); }),
             ContainsSubstring("windows: requires more tokens than the length 5, got 5"));
  CHECK_THAT(error_text([&] { windows(Array(chainrule::int64, {0}), 1, 1); }), ContainsSubstring("got 0"));
  CHECK_THAT(error_text([&] { windows(tokens, 0, 1); }),
             ContainsSubstring("requires a length and a stride of 1 or more, got 0 and 1"));
  CHECK_THAT(error_text([&] { windows(tokens, 1, 0); }), ContainsSubstring("got 1 and 0"));
  CHECK_THAT(error_text([&] {
               windows(Array(chainrule::int64, {5, 1}), 1, 1);
             }),
             ContainsSubstring("requires tokens of shape {tokens}, got shape {5, 1}"));
}
