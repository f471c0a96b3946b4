// MATLAB's .mat, by libmatio, which says nothing of a file that ends too early: files of versions 5 to 7 are walked
// once before it reads them. Their form: a header of 128 bytes, then elements of a type and a length (32 bits each) and
// so many bytes. Source: "MAT-File Format", The MathWorks.
#include <matio.h>

#include <bit>
#include <cstring>
#include <memory>
#include <optional>

#include <fmt/core.h>

#include <chainrule/framework/files.hpp>
#include <chainrule/framework/files/hdf5.hpp>
#include <chainrule/framework/files/numbers.hpp>

namespace chainrule::data {

namespace {

using detail::File;
using detail::StoredType;

constexpr std::size_t header_bytes = 128;

// Fails unless the file has MATLAB's header and, if it is no HDF5 file inside, all that it says it has. Returns the
// number of its variables, or -1 for an HDF5 file.
std::int64_t check(const File& file) {
  const std::string bytes = file.read();
  if (bytes.size() < header_bytes)
    file.fail(bytes.starts_with("MATLAB") ? "truncated within the header" : "no header of MATLAB's");
  const std::string_view mark(bytes.data() + 126, 2);
  const bool little = mark == "IM";
  if (!little && mark != "MI")
    file.fail(bytes.starts_with("MATLAB") ? "a damaged header" : "no header of MATLAB's (or one older than version 5)");
  const bool swapped = little != (std::endian::native == std::endian::little);
  const auto number = [&](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return swapped ? __builtin_bswap32(value) : value;
  };
  const std::uint32_t version =
      little ? static_cast<unsigned char>(bytes[125]) : static_cast<unsigned char>(bytes[124]);
  if (version == 2) {  // an HDF5 file, whose library finds what is missing, but libmatio does not ask it
    H5Fclose(detail::open_hdf5(file));
    return -1;
  }
  if (version != 1) file.fail(fmt::format("version {} of the format, where 1 and 2 are known", version));

  constexpr std::uint32_t matrix = 14;
  constexpr std::uint32_t compressed = 15;
  std::size_t at = header_bytes;
  std::int64_t i = 1;
  for (; at < bytes.size(); ++i) {
    if (bytes.size() - at < 8) file.fail(fmt::format("truncated within variable {}", i));
    const std::uint32_t type = number(at);
    const std::uint32_t length = number(at + 4);
    if (type != matrix && type != compressed)
      file.fail(fmt::format("damaged: variable {} has the unknown type {}", i, type));
    at += 8;
    if (bytes.size() - at < length)
      file.fail(fmt::format("truncated: variable {} has {} of {} bytes", i, bytes.size() - at, length));
    at += length;
  }
  return i - 1;
}

class Mat {
 public:
  Mat(const std::string& path, Location at) : file_{"load_mat", "a MATLAB file (.mat)", path, at} {
    variables_ = check(file_);
    mat_.reset(Mat_Open(path.c_str(), MAT_ACC_RDONLY));
    if (!mat_) file_.fail("truncated or damaged");
  }

  [[nodiscard]] const File& file() const { return file_; }

  // The next variable, without its numbers; null after the last.
  struct Free {
    void operator()(matvar_t* variable) const { Mat_VarFree(variable); }
  };
  using Variable = std::unique_ptr<matvar_t, Free>;
  [[nodiscard]] Variable next() {
    Variable out(Mat_VarReadNextInfo(mat_.get()));
    if (!out && read_ < variables_) file_.fail(fmt::format("damaged: variable {} cannot be read", read_ + 1));
    ++read_;
    return out;
  }

  // What a variable is if no array of numbers; else empty.
  static std::string_view other_than_numbers(const matvar_t& variable) {
    switch (variable.class_type) {
      case MAT_C_CELL: return "a cell array";
      case MAT_C_STRUCT: return "a structure";
      case MAT_C_OBJECT:
      case MAT_C_OPAQUE: return "an object";
      case MAT_C_CHAR: return "text";
      case MAT_C_SPARSE: return "a sparse array";
      case MAT_C_FUNCTION: return "a function";
      case MAT_C_EMPTY: return "nothing";
      default: return variable.isComplex != 0 ? "complex numbers" : "";
    }
  }

  [[nodiscard]] Array load(matvar_t& variable) const {
    const auto fail = [&](const std::string& why) { file_.fail(fmt::format("variable '{}': {}", variable.name, why)); };
    const auto type = stored_type(variable);
    if (!type) fail("truncated or damaged");
    std::vector<std::int64_t> extents;
    extents.reserve(static_cast<std::size_t>(variable.rank));
    for (int i = 0; i < variable.rank; ++i) extents.push_back(static_cast<std::int64_t>(variable.dims[i]));
    const std::int64_t count = detail::checked_count(file_, extents);
    detail::check_plausible(file_, count);
    const Dims shape(extents);
    if (count == 0) return Array(type->dtype(), shape);
    if (Mat_VarReadDataAll(mat_.get(), &variable) != 0 || variable.data == nullptr ||
        variable.nbytes != static_cast<std::size_t>(count) * type->bytes)
      fail("truncated or damaged");
    return detail::from_column_major(detail::decode(file_, *type, static_cast<const char*>(variable.data), shape));
  }

 private:
  static std::optional<StoredType> stored_type(const matvar_t& variable) {
    constexpr bool big = std::endian::native == std::endian::big;
    using Kind = StoredType::Kind;
    if (variable.isLogical != 0)
      return variable.class_type == MAT_C_UINT8 ? std::optional(StoredType{Kind::boolean, 1, big}) : std::nullopt;
    switch (variable.class_type) {
      case MAT_C_DOUBLE: return StoredType{Kind::floating, 8, big};
      case MAT_C_SINGLE: return StoredType{Kind::floating, 4, big};
      case MAT_C_INT8: return StoredType{Kind::signed_integer, 1, big};
      case MAT_C_INT16: return StoredType{Kind::signed_integer, 2, big};
      case MAT_C_INT32: return StoredType{Kind::signed_integer, 4, big};
      case MAT_C_INT64: return StoredType{Kind::signed_integer, 8, big};
      case MAT_C_UINT8: return StoredType{Kind::unsigned_integer, 1, big};
      case MAT_C_UINT16: return StoredType{Kind::unsigned_integer, 2, big};
      case MAT_C_UINT32: return StoredType{Kind::unsigned_integer, 4, big};
      case MAT_C_UINT64: return StoredType{Kind::unsigned_integer, 8, big};
      default: return std::nullopt;
    }
  }

  struct Close {
    void operator()(mat_t* mat) const { Mat_Close(mat); }
  };
  detail::QuietHdf5 quiet_;
  File file_;
  std::unique_ptr<mat_t, Close> mat_;
  std::int64_t variables_ = -1;
  std::int64_t read_ = 0;
};

}  // namespace

Arrays load_mat(const std::string& path, Location at) {
  Mat mat(path, at);
  Arrays out;
  while (const auto variable = mat.next())
    if (variable->name != nullptr && Mat::other_than_numbers(*variable).empty())
      out[variable->name] = mat.load(*variable);
  return out;
}

Array load_mat(const std::string& path, const std::string& name, Location at) {
  Mat mat(path, at);
  std::string names;
  while (const auto variable = mat.next()) {
    if (variable->name == nullptr) continue;
    if (variable->name == name) {
      const std::string_view other = Mat::other_than_numbers(*variable);
      if (!other.empty())
        mat.file().fail(fmt::format("variable '{}' is {}, where an array of real numbers is required", name, other));
      return mat.load(*variable);
    }
    names += fmt::format("{}'{}'", names.empty() ? "" : ", ", variable->name);
  }
  mat.file().fail(names.empty() ? fmt::format("no variable '{}', nor any other", name)
                                : fmt::format("no variable '{}', only {}", name, names));
}

}  // namespace chainrule::data
