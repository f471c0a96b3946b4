// MATLAB's .mat. Since version 5: a header of 128 bytes, then elements of a type and a length (32 bits each) and so
// many bytes; a variable is an element that is a sequence of elements, or such a one compressed by zlib. Version 4:
// variables one after the other, each with a header of 20 bytes. Version 7.3: an HDF5 file. Source: "MAT-File Format",
// The MathWorks.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>

#include <fmt/core.h>

#include <chainrule/framework/files/container.hpp>
#include <chainrule/framework/files/files.hpp>
#include <chainrule/framework/files/hdf5.hpp>
#include <chainrule/framework/io/numbers.hpp>

namespace chainrule::data {

namespace {

using detail::File;
using detail::Input;
using detail::StoredType;
using detail::Unsupported;
using Kind = StoredType::Kind;

constexpr std::size_t header_bytes = 128;

// ---- inputs within a file

// The next so many bytes of another.
class Part : public Input {
 public:
  Part(Input& whole, std::uint64_t bytes) : whole_(whole), left_(bytes) {}
  using Input::read;
  std::size_t read(char* to, std::size_t bytes) override {
    const std::size_t got = whole_.read(to, std::min<std::uint64_t>(bytes, left_));
    left_ -= got;
    return got;
  }
  [[nodiscard]] std::uint64_t most() const override { return std::min(left_, whole_.most()); }
  std::uint64_t skip(std::uint64_t bytes) override {
    const std::uint64_t passed = whole_.skip(std::min(bytes, left_));
    left_ -= passed;
    return passed;
  }

 private:
  Input& whole_;
  std::uint64_t left_;
};

// What zlib compressed. At its end the checksum is compared.
class Inflated : public Input {
 public:
  Inflated(const File& file, Input& compressed, std::string where)
      : file_(file), compressed_(compressed), where_(std::move(where)) {
    if (inflateInit(&stream_) != Z_OK) throw std::bad_alloc();
  }
  ~Inflated() override { inflateEnd(&stream_); }
  Inflated(const Inflated&) = delete;
  Inflated& operator=(const Inflated&) = delete;

  using Input::read;
  std::size_t read(char* to, std::size_t bytes) override {
    std::size_t done = 0;
    while (done < bytes && !ended_) {
      if (stream_.avail_in == 0) {
        stream_.avail_in = static_cast<unsigned>(compressed_.read(buffer_.data(), buffer_.size()));
        stream_.next_in = reinterpret_cast<unsigned char*>(buffer_.data());
        if (stream_.avail_in == 0) file_.fail(where_ + "damaged: its compressed data ends too early");
      }
      const std::size_t room = std::min<std::size_t>(bytes - done, 1U << 30);
      stream_.next_out = reinterpret_cast<unsigned char*>(to + done);
      stream_.avail_out = static_cast<unsigned>(room);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      if (result == Z_MEM_ERROR) throw std::bad_alloc();
      if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        file_.fail(fmt::format("{}damaged compressed data ({})", where_,
                               stream_.msg != nullptr ? stream_.msg : "it needs a dictionary"));
      ended_ = result == Z_STREAM_END;
      done += room - stream_.avail_out;
    }
    return done;
  }
  [[nodiscard]] std::uint64_t most() const override {
    return ended_ ? 0 : detail::inflated_at_most(compressed_.most() + stream_.avail_in) + (std::uint64_t{1} << 15);
  }

 private:
  const File& file_;
  Input& compressed_;
  std::string where_;
  z_stream stream_{};
  std::array<char, 1 << 14> buffer_{};
  bool ended_ = false;
};

std::uint32_t number_of(const std::string& bytes, std::size_t at, bool big_endian) {
  std::uint32_t out = 0;
  for (std::size_t i = 0; i < 4; ++i) out = out << 8 | static_cast<unsigned char>(bytes[at + (big_endian ? i : 3 - i)]);
  return out;
}

// ---- variables

// A variable whose numbers, if it is an array of such, follow in its input.
struct Variable {
  std::string name;
  std::string_view other;  // what it is if no array of real numbers
  std::vector<std::int64_t> extents;
  DType dtype = float64;
};

// A file of version 5 to 7, after its header.
class Level5 {
 public:
  Level5(const File& file, Input& input, bool big_endian) : file_(file), input_(input), big_(big_endian) {}

  // Calls visit(name, read) for each variable that has a name; read() returns its array.
  template <class F>
  void each(F visit) {
    constexpr std::uint32_t matrix = 14;
    constexpr std::uint32_t compressed = 15;
    for (number_ = 1;; ++number_) {
      where_ = fmt::format("variable {}: ", number_);
      const std::string tag = input_.read(8);
      if (tag.empty()) return;
      if (tag.size() < 8) truncated();
      const std::uint32_t type = number_of(tag, 0, big_);
      const std::uint32_t length = number_of(tag, 4, big_);
      if (type != matrix && type != compressed)
        file_.fail(fmt::format("damaged: variable {} has the unknown type {}", number_, type));
      if (input_.most() < length)
        file_.fail(fmt::format("truncated: variable {} has {} of {} bytes", number_, input_.most(), length));
      Part element(input_, length);
      if (type == matrix) {
        one(element, visit);
      } else {
        Inflated inner(file_, element, where_);
        const std::string inner_tag = inner.read(8);
        if (inner_tag.size() < 8 || number_of(inner_tag, 0, big_) != matrix)
          damaged("what is compressed is no variable");
        Part content(inner, number_of(inner_tag, 4, big_));
        one(content, visit);
        inner.skip(inner.most());  // to the end, for the checksum
      }
      element.skip(length);
    }
  }

 private:
  struct Element {
    std::uint32_t type;
    std::uint64_t bytes;
    std::uint64_t padding;
  };

  [[noreturn]] void damaged(std::string_view why) const { file_.fail(fmt::format("{}damaged: {}", where_, why)); }
  [[noreturn]] void truncated() const { file_.fail(fmt::format("truncated within variable {}", number_)); }

  // The tag of an element. One of up to 4 bytes may have all in 8 bytes: its length in the upper half of its type.
  Element tag(Input& from) const {
    std::string bytes = from.read(4);
    if (bytes.size() < 4) damaged("it ends too early");
    const std::uint32_t first = number_of(bytes, 0, big_);
    if (first >> 16 != 0) {
      if (first >> 16 > 4) damaged("an element of an unknown form");
      return {first & 0xffff, first >> 16, 4 - (first >> 16)};
    }
    bytes = from.read(4);
    if (bytes.size() < 4) damaged("it ends too early");
    const std::uint64_t length = number_of(bytes, 0, big_);
    return {first, length, (8 - length % 8) % 8};
  }

  // The content of an element that is part of a variable's description.
  std::string content(Input& from, std::uint32_t type, std::uint64_t most) const {
    const Element element = tag(from);
    if (element.type != type || element.bytes > most) damaged("an element of another type or size than it must have");
    std::string out = from.read(element.bytes);
    if (out.size() < element.bytes || from.skip(element.padding) < element.padding) damaged("it ends too early");
    return out;
  }

  template <class F>
  void one(Input& from, F visit) {
    constexpr std::uint32_t int8 = 1;
    constexpr std::uint32_t int32 = 5;
    constexpr std::uint32_t uint32 = 6;
    constexpr unsigned opaque = 17;
    const std::string flags = content(from, uint32, 8);
    if (flags.size() < 8) damaged("an element of another type or size than it must have");
    const std::uint32_t word = number_of(flags, 0, big_);
    Variable variable;
    describe(variable, word & 0xff, (word & 0x0200) != 0, (word & 0x0800) != 0);
    if ((word & 0xff) != opaque) {  // these have none
      const std::string dims = content(from, int32, std::uint64_t{4} << 10);
      for (std::size_t i = 0; i + 4 <= dims.size(); i += 4)
        variable.extents.push_back(static_cast<std::int32_t>(number_of(dims, i, big_)));
      if (variable.extents.size() < 2) damaged("it has less than two dimensions");
    }
    variable.name = content(from, int8, 1 << 12);
    // What MATLAB keeps of its objects stands at the end of the file as an array without a name.
    if (variable.name.empty()) return;
    where_ = fmt::format("variable '{}': ", detail::printable(variable.name));
    visit(variable.name, [&] { return numbers(from, variable); });
  }

  void describe(Variable& variable, unsigned type, bool logical, bool complex) const {
    switch (type) {
      case 1: variable.other = "a cell array"; break;
      case 2: variable.other = "a structure"; break;
      case 3:
      case 17: variable.other = "an object"; break;
      case 4: variable.other = "text"; break;
      case 5: variable.other = "a sparse array"; break;
      case 6: variable.dtype = float64; break;
      case 7: variable.dtype = float32; break;
      case 16: variable.other = "a function"; break;
      default:
        if (type < 8 || type > 15) damaged(fmt::format("it is of the unknown class {}", type));
        variable.dtype = type == 9 ? uint8 : type == 12 ? int32 : int64;
    }
    if (logical && variable.other.empty()) variable.dtype = boolean;
    if (complex && variable.other.empty()) variable.other = "complex numbers";
  }

  // MATLAB stores the numbers of an array in as few bytes as they need, whatever its class.
  [[nodiscard]] std::optional<StoredType> stored_type(std::uint32_t type) const {
    switch (type) {
      case 1: return StoredType{Kind::signed_integer, 1, big_};
      case 2: return StoredType{Kind::unsigned_integer, 1, big_};
      case 3: return StoredType{Kind::signed_integer, 2, big_};
      case 4: return StoredType{Kind::unsigned_integer, 2, big_};
      case 5: return StoredType{Kind::signed_integer, 4, big_};
      case 6: return StoredType{Kind::unsigned_integer, 4, big_};
      case 7: return StoredType{Kind::floating, 4, big_};
      case 9: return StoredType{Kind::floating, 8, big_};
      case 12: return StoredType{Kind::signed_integer, 8, big_};
      case 13: return StoredType{Kind::unsigned_integer, 8, big_};
      default: return std::nullopt;
    }
  }

  Array numbers(Input& from, const Variable& variable) const {
    if (!variable.other.empty()) throw Unsupported(std::string(variable.other));
    const Element element = tag(from);
    const auto type = stored_type(element.type);
    if (!type) damaged(fmt::format("numbers of the unknown type {}", element.type));
    const Dims shape = detail::checked_shape(file_, variable.extents, type->bytes);
    if (static_cast<std::uint64_t>(count(shape)) * type->bytes != element.bytes)
      damaged(fmt::format("shape {} with {} bytes of numbers", to_string(shape), element.bytes));
    if (type->kind == Kind::floating && is_integer(variable.dtype)) damaged("fractions in an array of whole numbers");
    return detail::from_column_major(detail::decode(file_, from, *type, shape, where_, variable.dtype));
  }

  const File& file_;
  Input& input_;
  bool big_;
  std::int64_t number_ = 1;
  std::string where_;
};

// A file of version 4, of which the first variable's header was read.
class Level4 {
 public:
  Level4(const File& file, Input& input) : file_(file), input_(input) {}

  static constexpr std::size_t header_size = 20;

  // The header of a variable: a number whose decimal digits are the byte order, 0, how numbers are stored and the kind
  // of array; rows, columns, whether there are imaginary parts, the length of the name.
  struct Header {
    bool big_endian;
    std::uint32_t stored;
    std::uint32_t kind;
    std::uint32_t rows;
    std::uint32_t columns;
    bool complex;
    std::uint32_t name_length;
  };
  static std::optional<Header> header_of(const std::string& bytes) {
    if (bytes.size() < header_size) return std::nullopt;
    for (const bool big : {false, true}) {
      const std::uint32_t type = number_of(bytes, 0, big);
      const Header out{big,
                       type / 10 % 10,
                       type % 10,
                       number_of(bytes, 4, big),
                       number_of(bytes, 8, big),
                       number_of(bytes, 12, big) != 0,
                       number_of(bytes, 16, big)};
      const bool known = type / 1000 == (big ? 1 : 0) && type / 100 % 10 == 0 && out.stored <= 5 && out.kind <= 2;
      if (known && number_of(bytes, 12, big) <= 1 && out.name_length >= 1 && out.name_length <= 1024 &&
          std::max(out.rows, out.columns) <= 0x7fffffff)
        return out;
    }
    return std::nullopt;
  }

  template <class F>
  void each(std::string bytes, F visit) {
    for (std::int64_t number = 1; !bytes.empty(); ++number, bytes = input_.read(header_size)) {
      const auto header = header_of(bytes);
      if (bytes.size() < header_size) file_.fail(fmt::format("truncated within variable {}", number));
      if (!header) file_.fail(fmt::format("damaged: variable {} has an unknown header", number));
      std::string name = input_.read(header->name_length);
      if (name.size() < header->name_length) file_.fail(fmt::format("truncated within variable {}", number));
      name.resize(std::min(name.size(), name.find('\0')));
      const StoredType type = stored_type(*header);
      const std::uint64_t size = std::uint64_t{header->rows} * header->columns;  // below 2^62
      const std::uint64_t parts = header->complex ? 2 : 1;
      if (input_.most() / type.bytes / parts < size)
        file_.fail(fmt::format("truncated: variable '{}' is said to have {} numbers", detail::printable(name), size));
      Part numbers(input_, size * type.bytes * parts);
      visit(name, [&] { return read(numbers, *header, type, name); });
      numbers.skip(numbers.most());
    }
  }

 private:
  static StoredType stored_type(const Header& header) {
    switch (header.stored) {
      case 0: return {Kind::floating, 8, header.big_endian};
      case 1: return {Kind::floating, 4, header.big_endian};
      case 2: return {Kind::signed_integer, 4, header.big_endian};
      case 3: return {Kind::signed_integer, 2, header.big_endian};
      case 4: return {Kind::unsigned_integer, 2, header.big_endian};
      default: return {Kind::unsigned_integer, 1, header.big_endian};
    }
  }

  [[nodiscard]] Array read(Input& from, const Header& header, StoredType type, const std::string& name) const {
    if (header.kind == 1) throw Unsupported("text");
    if (header.kind == 2) throw Unsupported("a sparse array");
    if (header.complex) throw Unsupported("complex numbers");
    const Dims shape = detail::checked_shape(file_, {header.rows, header.columns}, type.bytes);
    const std::string where = fmt::format("variable '{}': ", detail::printable(name));
    return detail::from_column_major(detail::decode(file_, from, type, shape, where, float64));
  }

  const File& file_;
  Input& input_;
};

// Calls visit(name, read) for each variable of a file; read() returns its array. False, and no call, for a file of
// version 7.3.
template <class F>
bool each_variable(const File& file, F visit) {
  detail::FileInput input(file);
  std::string header = input.read(Level4::header_size);
  if (Level4::header_of(header) && !header.starts_with("MATLAB")) {
    Level4(file, input).each(std::move(header), visit);
    return true;
  }
  header += input.read(header_bytes - header.size());
  if (header.size() < header_bytes)
    file.fail(header.starts_with("MATLAB") ? "truncated within the header" : "no header of MATLAB's");
  const std::string_view mark(header.data() + 126, 2);
  const bool big = mark == "MI";
  if (!big && mark != "IM") file.fail(header.starts_with("MATLAB") ? "a damaged header" : "no header of MATLAB's");
  const auto version = static_cast<unsigned char>(header[big ? 124 : 125]);
  if (version == 2) return false;
  if (version != 1) file.fail(fmt::format("version {} of the format, where 1 and 2 are known", version));
  Level5(file, input, big).each(visit);
  return true;
}

File file_of(const std::string& path, Location at) { return {"load_mat", "a MATLAB file (.mat)", path, at}; }

}  // namespace

Arrays load_mat(const std::string& path, Location at) {
  const File file = file_of(path, at);
  return file.guard([&] {
    Arrays out;
    if (!each_variable(file, [&](const std::string& name, auto read) { detail::add(out, name, read); }))
      out = detail::read_hdf5(file, detail::Hdf5Kind::matlab);
    return out;
  });
}

Array load_mat(const std::string& path, const std::string& name, Location at) {
  const File file = file_of(path, at);
  return file.guard([&] {
    Arrays found;
    std::vector<std::string> names;
    const auto take = [&](const std::string& one, auto read) {
      names.push_back(one);
      if (one == name) detail::add(found, one, read);
    };
    if (!each_variable(file, take)) return detail::read_hdf5(file, detail::Hdf5Kind::matlab, name);
    if (!found.skipped.empty()) file.fail(fmt::format("variable '{}': {}", name, found.skipped.at(name)));
    if (found.empty()) detail::fail_missing(file, "variable", name, names);
    return std::move(found.at(name));
  });
}

}  // namespace chainrule::data
