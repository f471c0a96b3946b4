// NumPy's .npy: "\x93NUMPY", a version, the length of a header, the header (a Python dictionary with the keys descr,
// fortran_order and shape), the elements. Source: NumPy Enhancement Proposal 1 and numpy.lib.format's description of
// versions 2 (longer headers) and 3 (UTF-8 in field names).
#include <chainrule/framework/files/npy.hpp>

#include <bit>
#include <charconv>
#include <cstdlib>
#include <optional>

#include <fmt/core.h>

#include <chainrule/framework/files/files.hpp>
#include <chainrule/framework/io/atomic_file.hpp>

namespace chainrule {

namespace detail {

namespace {

using namespace std::string_view_literals;

constexpr auto magic = "\x93NUMPY"sv;
constexpr bool big_endian = std::endian::native == std::endian::big;

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// Reads the dictionary. Its values are of few kinds: a string, True or False, a tuple of integers; a list where the
// elements are structures, whose text is kept as it is.
class Dictionary {
 public:
  Dictionary(const File& file, std::string_view where, std::string_view text)
      : file_(file), where_(where), all_(text), rest_(text) {}

  Header read() {
    Header out;
    std::optional<std::string> descr;
    std::optional<bool> fortran;
    std::optional<std::vector<std::int64_t>> shape;
    expect('{');
    while (!take('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && !descr) {
        descr = peek() == '[' ? list() : string();
      } else if (key == "fortran_order" && !fortran) {
        fortran = boolean();
      } else if (key == "shape" && !shape) {
        shape = tuple();
      } else {
        fail();
      }
      if (!take(',') && peek() != '}') fail();
    }
    if (!descr || !fortran || !shape || peek() != '\0') fail();
    out.descr = *descr;
    out.fortran_order = *fortran;
    out.shape = *shape;
    return out;
  }

 private:
  [[noreturn]] void fail() const {
    file_.fail(fmt::format("{}a header that is no dictionary of descr, fortran_order and shape: {}", where_,
                           printable(all_, 80)));
  }
  // The next character that is no space; '\0' at the end.
  char peek() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \n\t"), rest_.size()));
    return rest_.empty() ? '\0' : rest_.front();
  }
  bool take(char c) {
    if (peek() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail();
  }
  std::string string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') fail();
    const std::size_t end = rest_.find(quote, 1);
    if (end == std::string_view::npos) fail();
    std::string out(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return out;
  }
  std::string list() {
    std::size_t depth = 0;
    for (std::size_t i = 0; i < rest_.size(); ++i) {
      if (rest_[i] == '[') ++depth;
      if (rest_[i] == ']' && --depth == 0) {
        std::string out(rest_.substr(0, i + 1));
        rest_.remove_prefix(i + 1);
        return out;
      }
    }
    fail();
  }
  bool boolean() {
    peek();
    for (const auto& [word, value] : {std::pair{"True"sv, true}, std::pair{"False"sv, false}})
      if (rest_.starts_with(word)) {
        rest_.remove_prefix(word.size());
        return value;
      }
    fail();
  }
  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> out;
    expect('(');
    while (!take(')')) {
      peek();
      std::int64_t number = 0;
      const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), number);
      if (error != std::errc()) fail();
      rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
      take('L');  // Python 2's long integers
      out.push_back(number);
      if (!take(',') && peek() != ')') fail();
    }
    return out;
  }

  const File& file_;
  std::string_view where_;
  std::string_view all_;
  std::string_view rest_;
};

Header read_header(const File& file, Input& from, std::string_view where) {
  std::string start = from.read(10);
  if (start.substr(0, magic.size()) != magic.substr(0, start.size()))
    file.fail(fmt::format("{}no NumPy array, it begins with \"{}\"", where, printable(start, 8)));
  const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(start[i])); };
  const auto truncated = [&] { file.fail(fmt::format("{}truncated within the header", where)); };
  if (start.size() < 10) truncated();
  const std::size_t version = byte(6);
  if (version < 1 || version > 3 || byte(7) != 0)
    file.fail(fmt::format("{}version {}.{} of the format, where 1.0 to 3.0 are known", where, version, byte(7)));
  std::size_t length = byte(8) | byte(9) << 8;
  if (version > 1) {
    start += from.read(2);
    if (start.size() < 12) truncated();
    length |= byte(10) << 16 | byte(11) << 24;
  }
  constexpr std::size_t longest = 1 << 24;
  if (from.most() < length) truncated();
  if (length > longest) file.fail(fmt::format("{}a header of {}", where, printable_bytes(length)));
  const std::string text = from.read(length);
  if (text.size() < length) truncated();
  return Dictionary(file, where, text).read();
}

// NumPy's array-protocol types: byte order, kind, size. "=" is this machine's order, "|" that of single bytes.
std::optional<StoredType> stored_type(std::string_view descr) {
  if (descr.size() != 3 || "<>|="sv.find(descr[0]) == std::string_view::npos) return std::nullopt;
  const auto size = static_cast<std::size_t>(descr[2] - '0');
  const bool power = size == 1 || size == 2 || size == 4 || size == 8;
  const bool big = descr[0] == '>' || (descr[0] != '<' && big_endian);
  using Kind = StoredType::Kind;
  if (descr[1] == 'b' && size == 1) return StoredType{Kind::boolean, size, big};
  if (descr[1] == 'i' && power) return StoredType{Kind::signed_integer, size, big};
  if (descr[1] == 'u' && power) return StoredType{Kind::unsigned_integer, size, big};
  if (descr[1] == 'f' && power && size > 1) return StoredType{Kind::floating, size, big};
  return std::nullopt;
}

}  // namespace

Array read_npy(const File& file, Input& from, std::string_view where) {
  const Header header = read_header(file, from, where);
  const auto type = stored_type(header.descr);
  if (!type)
    throw Unsupported(fmt::format(
        "elements of NumPy's type {}, where bool, integers and floating numbers of up to 64 bits are supported",
        printable(header.descr)));
  const Dims shape = checked_shape(file, header.shape, type->bytes);
  Array out = decode(file, from, *type, shape, where);
  require_end(file, from, *type, shape, where);
  return header.fortran_order && shape.rank() > 1 ? from_column_major(out) : out;
}

std::string npy_header(const Array& array) {
  constexpr std::string_view types[] = {"f4", "f8", "i8", "i4", "u1", "b1"};
  std::string shape;
  for (const std::int64_t extent : array.shape()) shape += fmt::format("{},{}", extent, array.rank() > 1 ? " " : "");
  if (array.rank() > 1) shape.resize(shape.size() - 2);
  std::string text = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}",
                                 size_of(array.dtype()) == 1 ? '|'
                                 : big_endian                ? '>'
                                                             : '<',
                                 types[static_cast<std::size_t>(array.dtype())], shape);
  // The elements begin at a multiple of 64 bytes.
  const std::size_t before = magic.size() + 4;
  const std::size_t total = (before + text.size() + 1 + 63) / 64 * 64;
  text.resize(total - before - 1, ' ');
  text += '\n';
  std::string out(magic);
  out += {'\1', '\0', static_cast<char>(text.size() & 255), static_cast<char>(text.size() >> 8)};
  return out + text;
}

}  // namespace detail

namespace data {

Array load_npy(const std::string& path, Location at) {
  const detail::File file{"load_npy", "a NumPy file (.npy)", path, at};
  return file.guard([&] {
    detail::FileInput input(file);
    return detail::read_npy(file, input);
  });
}

void save_npy(const std::string& path, const Array& array, Location at) {
  detail::AtomicFile file(path, "save_npy", at);
  const std::string header = detail::npy_header(array);
  file.write(header.data(), header.size());
  file.write(array.raw(), array.bytes());
  file.commit();
}

}  // namespace data

}  // namespace chainrule
