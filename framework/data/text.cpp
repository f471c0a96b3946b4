#include <chainrule/framework/data/text.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <queue>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include <chainrule/framework/io/atomic_file.hpp>
#include <chainrule/framework/io/file.hpp>

namespace chainrule::data {

namespace {

using Token = std::int32_t;
using Tokens = std::vector<Token>;
constexpr std::size_t bytes_of_all = 256;
constexpr std::size_t longest_piece = 64;

// ---- characters

unsigned byte(char c) { return static_cast<unsigned char>(c); }

// The bytes of the character at the beginning of a text that is not empty.
std::size_t character_length(std::string_view text) {
  const unsigned first = byte(text[0]);
  const std::size_t length = first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 1;
  if (text.size() < length) return 1;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(text[i]) & 0xc0U) != 0x80) return 1;
  if (length < 3) return length;
  // Not the long forms of what has a short one, no surrogates, nothing beyond U+10FFFF.
  const unsigned second = byte(text[1]);
  const bool valid = (first != 0xe0 || second >= 0xa0) && (first != 0xed || second < 0xa0) &&
                     (first != 0xf0 || second >= 0x90) && (first != 0xf4 || second < 0x90);
  return valid ? length : 1;
}

// ---- byte pairs

struct Pair {
  Token left;
  Token right;
  friend auto operator<=>(const Pair&, const Pair&) = default;
};

struct HashPair {
  std::size_t operator()(const Pair& pair) const {
    const auto both = static_cast<std::uint64_t>(static_cast<std::uint32_t>(pair.left)) << 32 |
                      static_cast<std::uint32_t>(pair.right);
    return static_cast<std::size_t>((both * 0x9e3779b97f4a7c15U) >> 20);
  }
};

enum class Kind : std::uint8_t { letter, digit, space, mark };

Kind kind_of(char c) {
  const unsigned b = byte(c);
  if (b >= 128 || ((b | 32U) >= 'a' && (b | 32U) <= 'z')) return Kind::letter;
  if (b >= '0' && b <= '9') return Kind::digit;
  return b == ' ' || (b >= '\t' && b <= '\r') ? Kind::space : Kind::mark;
}

// The bytes of the piece at the beginning of a text that is not empty.
std::size_t piece_length(std::string_view text) {
  const std::size_t begin = text[0] == ' ' && text.size() > 1 && kind_of(text[1]) != Kind::space ? 1 : 0;
  const std::size_t limit = std::min(text.size(), longest_piece);
  const Kind kind = kind_of(text[begin]);
  std::size_t end = begin + 1;
  while (end < limit && kind_of(text[end]) == kind) ++end;
  // The last space of a run belongs to what follows.
  const bool before_word = kind == Kind::space && end < text.size() && end > 1 && text[end - 1] == ' ';
  return before_word ? end - 1 : end;
}

// Calls f with each piece of a text.
template <class F>
void each_piece(std::string_view text, const F& f) {
  while (!text.empty()) {
    const std::size_t length = piece_length(text);
    f(text.substr(0, length));
    text.remove_prefix(length);
  }
}

Tokens bytes_of(std::string_view piece) {
  Tokens out;
  out.reserve(piece.size());
  for (const char c : piece) out.push_back(static_cast<Token>(byte(c)));
  return out;
}

// Puts one token in the place of a pair wherever it lies, from the left on. False where it lies nowhere.
bool join(Tokens& tokens, const Pair& pair, Token joined) {
  std::size_t to = 0;
  for (std::size_t from = 0; from < tokens.size(); ++to) {
    const bool found = from + 1 < tokens.size() && tokens[from] == pair.left && tokens[from + 1] == pair.right;
    tokens[to] = found ? joined : tokens[from];
    from += found ? 2 : 1;
  }
  const bool any = to < tokens.size();
  tokens.resize(to);
  return any;
}

// Finds the pairs of a text, one after the other. A piece that stands in the text many times is kept once.
class PairFinder {
 public:
  explicit PairFinder(std::string_view text) {
    std::unordered_map<std::string_view, std::size_t> numbers;
    each_piece(text, [&](std::string_view piece) {
      const auto [at, is_new] = numbers.try_emplace(piece, pieces_.size());
      if (is_new) pieces_.push_back({bytes_of(piece), 0});
      ++pieces_[at->second].times;
    });
    for (std::size_t p = 0; p < pieces_.size(); ++p) count(p, +1);
    for (const auto& [pair, places] : places_) candidates_.push({places.times, pair});
  }

  // The most frequent pair, where one lies in the text twice.
  std::optional<Pair> next() {
    // Counts of known pairs only sink, so a candidate whose count was right when it was pushed is now too far up at
    // most, and the first whose count is right is the greatest.
    while (!candidates_.empty()) {
      const auto [times, pair] = candidates_.top();
      const std::int64_t now = places_.at(pair).times;
      if (now < 2 || now == times) {
        if (now >= 2) return pair;
        candidates_.pop();
        continue;
      }
      candidates_.pop();
      candidates_.push({now, pair});
    }
    return std::nullopt;
  }

  void join_all(const Pair& pair, Token joined) {
    const std::vector<std::size_t> pieces = std::move(places_.at(pair).pieces);
    std::set<Pair> fresh;
    for (const std::size_t p : pieces) {
      Tokens tokens = pieces_[p].tokens;
      if (!join(tokens, pair, joined)) continue;
      count(p, -1);
      pieces_[p].tokens = std::move(tokens);
      count(p, +1);
      const Tokens& now = pieces_[p].tokens;
      for (std::size_t i = 0; i + 1 < now.size(); ++i)
        if (now[i] == joined || now[i + 1] == joined) fresh.insert({now[i], now[i + 1]});
    }
    for (const Pair& made : fresh) candidates_.push({places_.at(made).times, made});
  }

 private:
  struct Piece {
    Tokens tokens;
    std::int64_t times;
  };
  struct Places {
    std::int64_t times = 0;
    std::vector<std::size_t> pieces;  // and some where it lies no longer
  };
  struct Candidate {
    std::int64_t times;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return times != other.times ? times < other.times : other.pair < pair;
    }
  };

  void count(std::size_t piece, int sign) {
    const auto& [tokens, times] = pieces_[piece];
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      Places& places = places_[{tokens[i], tokens[i + 1]}];
      places.times += sign * times;
      if (sign > 0 && (places.pieces.empty() || places.pieces.back() != piece)) places.pieces.push_back(piece);
    }
  }

  std::vector<Piece> pieces_;
  std::unordered_map<Pair, Places, HashPair> places_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace

// ---- Tokenizer

// The bytes of each token, and how a text is cut.
struct Tokenizer::Vocabulary {
  std::vector<std::string> texts;
  std::vector<Pair> pairs;  // of the tokens from 256 on; with `joined`, of byte pairs only
  bool has_pairs = false;
  std::unordered_map<Pair, Token, HashPair> joined;
  std::unordered_map<std::string_view, Token> numbers;  // of characters only; views of `texts`

  static std::shared_ptr<const Vocabulary> of_characters(std::vector<std::string> characters) {
    auto out = std::make_shared<Vocabulary>();
    out->texts = std::move(characters);
    for (std::size_t t = 0; t < out->texts.size(); ++t) out->numbers.emplace(out->texts[t], static_cast<Token>(t));
    return out;
  }

  static std::shared_ptr<Vocabulary> of_bytes() {
    auto out = std::make_shared<Vocabulary>();
    out->has_pairs = true;
    for (std::size_t b = 0; b < bytes_of_all; ++b) out->texts.emplace_back(1, static_cast<char>(b));
    return out;
  }

  Token add(const Pair& pair) {
    const auto token = static_cast<Token>(texts.size());
    texts.push_back(texts[static_cast<std::size_t>(pair.left)] + texts[static_cast<std::size_t>(pair.right)]);
    pairs.push_back(pair);
    joined.emplace(pair, token);
    return token;
  }

  // The pair that was found first is joined first.
  [[nodiscard]] Tokens tokens_of(std::string_view piece) const {
    Tokens out = bytes_of(piece);
    for (;;) {
      Token first = std::numeric_limits<Token>::max();
      for (std::size_t i = 0; i + 1 < out.size(); ++i)
        if (const auto at = joined.find({out[i], out[i + 1]}); at != joined.end()) first = std::min(first, at->second);
      if (first == std::numeric_limits<Token>::max()) return out;
      join(out, pairs[static_cast<std::size_t>(first) - bytes_of_all], first);
    }
  }
};

Tokenizer Tokenizer::characters(std::string_view text, Location at) {
  if (text.empty()) throw Error(at, "Tokenizer::characters", "requires a text of one character or more, got none");
  std::array<bool, bytes_of_all> seen{};
  std::set<std::string, std::less<>> all;
  while (!text.empty()) {
    const std::size_t length = character_length(text);
    if (length > 1 ? !all.contains(text.substr(0, length)) : !std::exchange(seen[byte(text[0])], true))
      all.emplace(text.substr(0, length));
    text.remove_prefix(length);
  }
  return Tokenizer(Vocabulary::of_characters({all.begin(), all.end()}));
}

Tokenizer Tokenizer::byte_pairs(std::string_view text, std::int64_t vocabulary, Location at) {
  if (vocabulary < static_cast<std::int64_t>(bytes_of_all) || vocabulary > std::numeric_limits<Token>::max())
    throw Error(at, "Tokenizer::byte_pairs",
                fmt::format("requires a vocabulary from 256, the number of bytes, to 2^31 - 1, got {}", vocabulary));
  auto out = Vocabulary::of_bytes();
  PairFinder finder(text);
  while (static_cast<std::int64_t>(out->texts.size()) < vocabulary) {
    const auto pair = finder.next();
    if (!pair) break;
    finder.join_all(*pair, out->add(*pair));
  }
  return Tokenizer(std::move(out));
}

std::int64_t Tokenizer::size() const { return static_cast<std::int64_t>(vocabulary_->texts.size()); }

Array Tokenizer::encode(std::string_view text, Location at) const {
  Tokens out;
  if (vocabulary_->has_pairs) {
    std::unordered_map<std::string_view, Tokens> known;
    each_piece(text, [&](std::string_view piece) {
      const auto [entry, is_new] = known.try_emplace(piece);
      if (is_new) entry->second = vocabulary_->tokens_of(piece);
      out.insert(out.end(), entry->second.begin(), entry->second.end());
    });
  } else {
    out.reserve(text.size());
    for (std::size_t place = 0; place < text.size();
         place += vocabulary_->texts[static_cast<std::size_t>(out.back())].size()) {
      const std::string_view character = text.substr(place, character_length(text.substr(place)));
      const auto number = vocabulary_->numbers.find(character);
      if (number == vocabulary_->numbers.end())
        throw Error(at, "Tokenizer::encode",
                    fmt::format("requires characters of the text that the tokenizer was made from, got '{}' at byte {}",
                                detail::printable(character), place));
      out.push_back(number->second);
    }
  }
  return Array::from(out.data(), {static_cast<std::int64_t>(out.size())}, dtype());
}

std::string_view Tokenizer::bytes(std::int64_t token, Location at) const {
  if (token < 0 || token >= size())
    throw Error(at, "Tokenizer::bytes", fmt::format("requires a token from 0 to {}, got {}", size() - 1, token));
  return vocabulary_->texts[static_cast<std::size_t>(token)];
}

std::string Tokenizer::decode(const Array& tokens, Location at) const {
  if (is_floating(tokens.dtype()) || tokens.dtype() == boolean)
    throw Error(at, "Tokenizer::decode",
                fmt::format("requires tokens, which are whole numbers, got {}", name(tokens.dtype())));
  std::string out;
  for (std::int64_t i = 0; i < tokens.size(); ++i) {
    const auto token = tokens.at<std::int64_t>(i);
    if (token < 0 || token >= size())
      throw Error(at, "Tokenizer::decode",
                  fmt::format("requires tokens from 0 to {}, got {} as token {}", size() - 1, token, i));
    out += vocabulary_->texts[static_cast<std::size_t>(token)];
  }
  return out;
}

// ---- files

namespace {

constexpr std::string_view title = "chainrule tokenizer 1";
constexpr std::string_view pairs_title = "byte pairs ";
constexpr std::string_view characters_title = "characters ";
constexpr std::string_view checksum_title = "checksum ";

// FNV-1a of 64 bits: whatever one byte is changed to, it is another number.
std::string checksum(std::string_view text) {
  std::uint64_t out = 0xcbf29ce484222325U;
  for (const char c : text) out = (out ^ byte(c)) * 0x100000001b3U;
  return fmt::format("{:016x}", out);
}

std::string hexadecimal(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", byte(c));
  return out;
}

// The whole of `text` as a number.
template <class T>
std::optional<T> number(std::string_view text, int base = 10) {
  T out{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

// The lines of a tokenizer's file.
class Lines {
 public:
  Lines(const detail::File& file, std::string_view text) : file_(file), rest_(text) {}

  std::string_view next() {
    ++number_;
    const std::size_t end = rest_.find('\n');
    if (end == std::string_view::npos) fail("the file ends within it");
    const std::string_view out = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return out;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }
  [[noreturn]] void fail(std::string_view what) const { file_.fail(fmt::format("line {}: {}", number_, what)); }
  [[noreturn]] void refuse(std::string_view line, std::string_view wanted) const {
    fail(fmt::format("'{}' where {} should stand", detail::printable(line), wanted));
  }

 private:
  const detail::File& file_;
  std::string_view rest_;
  std::size_t number_ = 0;
};

Pair parse_pair(Lines& lines, const std::vector<std::string>& texts) {
  const std::string_view line = lines.next();
  const std::size_t space = std::min(line.find(' '), line.size());
  const auto left = number<Token>(line.substr(0, space));
  const auto right = number<Token>(line.substr(std::min(space + 1, line.size())));
  const auto known = static_cast<Token>(texts.size());
  if (!left || !right || *left < 0 || *left >= known || *right < 0 || *right >= known)
    lines.refuse(line, fmt::format("two tokens from 0 to {}", known - 1));
  if (texts[static_cast<std::size_t>(*left)].size() + texts[static_cast<std::size_t>(*right)].size() > longest_piece)
    lines.fail(fmt::format("the tokens {} and {} have more than {} bytes together", *left, *right, longest_piece));
  return {*left, *right};
}

std::string parse_character(Lines& lines) {
  const std::string_view line = lines.next();
  std::string out;
  for (std::size_t i = 0; i < line.size(); i += 2) {
    const auto value = number<std::uint8_t>(line.substr(i, 2), 16);
    if (!value || line.size() % 2 != 0 || line.size() > 8) lines.refuse(line, "a character in hexadecimal digits");
    out += static_cast<char>(*value);
  }
  if (out.empty() || character_length(out) != out.size()) lines.refuse(line, "a character in hexadecimal digits");
  return out;
}

// How many lines of its kind follow a title. Each takes two bytes or more, so there cannot be any number of them.
std::optional<std::size_t> count_after(std::string_view line, std::string_view heading, const Lines& lines) {
  if (!line.starts_with(heading)) return std::nullopt;
  const auto out = number<std::uint32_t>(line.substr(heading.size()));
  if (!out) lines.refuse(line, fmt::format("'{}' and their number", heading.substr(0, heading.size() - 1)));
  if (*out > lines.rest().size() / 2) lines.fail(fmt::format("{} where the file ends before", *out));
  return *out;
}

}  // namespace

void Tokenizer::save(const std::string& path, Location at) const {
  std::string text = fmt::format("{}\n", title);
  if (vocabulary_->has_pairs) {
    text += fmt::format("{}{}\n", pairs_title, vocabulary_->pairs.size());
    for (const Pair& pair : vocabulary_->pairs) text += fmt::format("{} {}\n", pair.left, pair.right);
  } else {
    text += fmt::format("{}{}\n", characters_title, vocabulary_->texts.size());
    for (const std::string& character : vocabulary_->texts) text += hexadecimal(character) + "\n";
  }
  text += fmt::format("{}{}\n", checksum_title, checksum(text));
  detail::AtomicFile file(path, "Tokenizer::save", at);
  file.write(text.data(), text.size());
  file.commit();
}

Tokenizer Tokenizer::load(const std::string& path, Location at) {
  const detail::File file{"Tokenizer::load", "a tokenizer's file (Tokenizer::save)", path, at};
  return file.guard([&] {
    detail::FileInput input(file);
    const std::string text = input.Input::read(std::numeric_limits<std::size_t>::max());
    Lines lines(file, text);
    if (const auto line = lines.next(); line != title) lines.refuse(line, fmt::format("'{}'", title));
    const std::string_view line = lines.next();
    std::shared_ptr<const Vocabulary> out;
    if (const auto pairs = count_after(line, pairs_title, lines)) {
      const auto vocabulary = Vocabulary::of_bytes();
      for (std::size_t i = 0; i < *pairs; ++i) {
        const Pair pair = parse_pair(lines, vocabulary->texts);
        if (vocabulary->joined.contains(pair)) lines.fail("a pair that stands in the file before");
        vocabulary->add(pair);
      }
      out = vocabulary;
    } else if (const auto characters = count_after(line, characters_title, lines)) {
      std::vector<std::string> all;
      for (std::size_t i = 0; i < *characters; ++i) {
        all.push_back(parse_character(lines));
        if (i > 0 && all[i] <= all[i - 1]) lines.fail("a character that is not beyond the one before");
      }
      if (all.empty()) lines.fail("no characters");
      out = Vocabulary::of_characters(std::move(all));
    } else {
      lines.refuse(line, "'byte pairs' or 'characters' and their number");
    }
    const std::string sum = checksum(std::string_view(text).substr(0, text.size() - lines.rest().size()));
    const std::string_view last = lines.next();
    if (last != fmt::format("{}{}", checksum_title, sum))
      lines.refuse(last, fmt::format("'{}{}'", checksum_title, sum));
    if (!lines.rest().empty()) lines.fail("more follows");
    return Tokenizer(std::move(out));
  });
}

// ---- windows

Dataset windows(const Array& tokens, std::int64_t length, std::int64_t stride, Location at) {
  if (tokens.rank() != 1)
    throw Error(at, "windows",
                fmt::format("requires tokens of shape {{tokens}}, got shape {}", to_string(tokens.shape())));
  if (length < 1 || stride < 1)
    throw Error(at, "windows",
                fmt::format("requires a length and a stride of 1 or more, got {} and {}", length, stride));
  if (tokens.size() <= length)
    throw Error(at, "windows", fmt::format("requires more tokens than the length {}, got {}", length, tokens.size()));
  const std::int64_t count = (tokens.size() - 1 - length) / stride + 1;
  Dataset out{.x = Array(tokens.dtype(), {count, length}), .y = Array(tokens.dtype(), {count, length}), .axis = 0};
  visit_bits(tokens.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* from = static_cast<const T*>(tokens.raw());
    T* x = static_cast<T*>(out.x.raw());
    T* y = static_cast<T*>(out.y.raw());
    for (std::int64_t i = 0; i < count; ++i) {
      x = std::copy_n(from + i * stride, length, x);
      y = std::copy_n(from + i * stride + 1, length, y);
    }
  });
  return out;
}

}  // namespace chainrule::data
