// Text as numbers: tokenizers, and windows over a long text as a data set.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/dtype.hpp>
#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/data/data.hpp>

namespace chainrule::data {

// Makes tokens, the numbers 0, 1, ..., size() - 1, of a text and the text of tokens. Each token stands for a few bytes;
// decode(encode(text)) is the text for any bytes that can be encoded, whether they are UTF-8 or not. A value: it does
// not change, and copies share what they hold.
//   const auto tokenizer = cr::data::Tokenizer::characters(text);
//   const auto tokens = tokenizer.encode(text);
class Tokenizer {
 public:
  // A token for each character of the text, in the order of their code points. A character is a Unicode code point in
  // UTF-8; a byte that is not part of a valid one (RFC 3629) is a character by itself. Throws Error for an empty text.
  static Tokenizer characters(std::string_view text, Location at = Location::here());

  // Byte pairs (Gage 1994; Sennrich, Haddow and Birch 2016, over bytes): tokens 0 to 255 are the bytes, and each
  // further one stands for the two tokens that lie side by side most often in the text as the tokens so far have it; of
  // several as frequent pairs for the one with the smallest left token, then the smallest right one. Ends at
  // `vocabulary` tokens, or earlier (size()) where no pair lies there twice. Any text can be encoded: the pairs are
  // joined in the order in which they were found. No token reaches across pieces of the text, which are: a run of
  // letters, of digits or of other marks, at most 64 bytes, together with a single space before it; and runs of white
  // space. (Letters are those of ASCII and all bytes from 128 on.) Throws Error for a vocabulary below 256.
  static Tokenizer byte_pairs(std::string_view text, std::int64_t vocabulary, Location at = Location::here());

  // The number of tokens.
  [[nodiscard]] std::int64_t size() const;
  // That of what encode() gives: uint8 where the tokens are at most 256, else int32.
  [[nodiscard]] DType dtype() const { return size() <= 256 ? uint8 : int32; }

  // The text's tokens, {tokens}. Throws Error for a character that has none; byte pairs have one for every byte.
  [[nodiscard]] Array encode(std::string_view text, Location at = Location::here()) const;
  // What the tokens stand for, one after the other. Tokens of any shape and dtype of whole numbers. Throws Error for
  // one that is below 0, or size() or above.
  [[nodiscard]] std::string decode(const Array& tokens, Location at = Location::here()) const;
  // What one token stands for; as long valid as the tokenizer. Throws Error as decode().
  [[nodiscard]] std::string_view bytes(std::int64_t token, Location at = Location::here()) const;

  // A text file: its version, the characters in hexadecimal digits or the pairs of tokens, and a checksum. Written
  // beside `path` and renamed, so that there is the old file or the new one, never a part.
  void save(const std::string& path, Location at = Location::here()) const;
  // Throws Error, which names the file, for one that is missing, truncated, damaged or of another kind or version.
  static Tokenizer load(const std::string& path, Location at = Location::here());

 private:
  struct Vocabulary;
  explicit Tokenizer(std::shared_ptr<const Vocabulary> vocabulary) : vocabulary_(std::move(vocabulary)) {}
  std::shared_ptr<const Vocabulary> vocabulary_;
};

// Pieces of a long text to learn what follows: x {n, length} and y {n, length}, one window a row (axis 0), where
//   x(i, j) = tokens(i stride + j)    and    y(i, j) = tokens(i stride + j + 1).
// n is the number of windows that lie wholly within the text, floor((tokens - 1 - length) / stride) + 1; tokens at the
// end that fill no window are left out. With a stride of `length` each token is asked for once. The dtype is that of
// the tokens, of which any will do. A data set owns its numbers, so x and y take n length elements each: with a stride
// far below the length that is many times the text, and a uint8 text (Tokenizer::dtype) is an eighth of an int64 one.
// Throws Error for tokens that are not of rank 1 or fewer than length + 1, and for a length or stride below 1.
Dataset windows(const Array& tokens, std::int64_t length, std::int64_t stride, Location at = Location::here());

}  // namespace chainrule::data
