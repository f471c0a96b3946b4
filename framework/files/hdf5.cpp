#include <chainrule/framework/files/hdf5.hpp>

#include <algorithm>
#include <limits>
#include <new>
#include <optional>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/file.hpp>
#include <chainrule/framework/files.hpp>

namespace chainrule {

hid_t detail::open_hdf5(const File& file) {
  file.require();
  if (H5Fis_hdf5(file.path.c_str()) <= 0) file.fail("no HDF5 file, it lacks the format's signature");
  const hid_t id = H5Fopen(file.path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (id < 0) file.fail(hdf5_error());
  return id;
}

std::string detail::hdf5_error() {
  std::string out;
  // From the origin outwards: the first is what happened.
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* text) -> herr_t {
        if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
        return 0;
      },
      &out);
  return out.empty() ? "unknown reason" : out;
}

namespace data {

namespace {

using detail::File;

// An open object of HDF5.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }  // NOLINT: it stands for the number

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

class Hdf5 {
 public:
  Hdf5(const std::string& path, Location at)
      : file_{"load_hdf5", "an HDF5 file", path, at}, id_(detail::open_hdf5(file_), &H5Fclose) {}

  [[nodiscard]] const File& file() const { return file_; }

  // The paths of all data sets.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> out;
    const auto visit = [](hid_t, const char* name, const H5O_info_t* info, void* names) -> herr_t {
      try {
        if (info->type == H5O_TYPE_DATASET) static_cast<std::vector<std::string>*>(names)->emplace_back(name);
      } catch (const std::bad_alloc&) {
        return -1;
      }
      return 0;
    };
    if (H5Ovisit2(id_, H5_INDEX_NAME, H5_ITER_NATIVE, visit, &out, H5O_INFO_BASIC) < 0)
      file_.fail(fmt::format("truncated or damaged ({})", detail::hdf5_error()));
    return out;
  }

  // False where it holds no numbers, unless these are required.
  bool load(const std::string& name, bool required, Array& out) const {
    const auto fail = [&](const std::string& why) { file_.fail(fmt::format("data set '{}': {}", name, why)); };
    const auto damaged = [&] { fail(fmt::format("truncated or damaged ({})", detail::hdf5_error())); };
    const Handle set(H5Dopen2(id_, name.c_str(), H5P_DEFAULT), &H5Dclose);
    if (set < 0) damaged();
    const Handle type(H5Dget_type(set), &H5Tclose);
    const Handle space(H5Dget_space(set), &H5Sclose);
    if (type < 0 || space < 0) damaged();

    const H5T_class_t kind = H5Tget_class(type);
    const std::size_t bytes = H5Tget_size(type);
    const bool logical = kind == H5T_ENUM && is_logical(type);
    if (!(kind == H5T_INTEGER && bytes <= 8) && !(kind == H5T_FLOAT && bytes <= 8) && !logical) {
      if (required) fail(fmt::format("{}, where numbers of up to 64 bits are supported", in_words(kind)));
      return false;
    }
    if (H5Sget_simple_extent_type(space) == H5S_NULL) {
      if (required) fail("no numbers at all");
      return false;
    }
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 0) damaged();
    std::vector<hsize_t> sizes(static_cast<std::size_t>(rank));
    if (rank > 0 && H5Sget_simple_extent_dims(space, sizes.data(), nullptr) < 0) damaged();
    const std::vector<std::int64_t> extents(sizes.begin(), sizes.end());
    const std::int64_t count = detail::checked_count(file_, extents);
    detail::check_plausible(file_, count);

    const DType dtype = logical ? boolean : kind == H5T_INTEGER ? int64 : bytes <= 4 ? float32 : float64;
    out = Array(dtype, Dims(extents));
    if (out.size() == 0) return true;
    const bool large = kind == H5T_INTEGER && bytes == 8 && H5Tget_sign(type) == H5T_SGN_NONE;
    const hid_t memory = logical            ? static_cast<hid_t>(type)
                         : large            ? H5T_NATIVE_UINT64
                         : dtype == int64   ? H5T_NATIVE_INT64
                         : dtype == float32 ? H5T_NATIVE_FLOAT
                                            : H5T_NATIVE_DOUBLE;
    if (H5Dread(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.raw()) < 0) damaged();
    if (logical) make_bools(out);
    if (large)
      if (const auto wrapped = first_negative(out))
        fail(fmt::format("the number {}, which is too large for int64", static_cast<std::uint64_t>(*wrapped)));
    return true;
  }

 private:
  // Every byte 0 or 1.
  static void make_bools(Array& out) {
    auto* bytes = static_cast<char*>(out.raw());
    for (std::int64_t i = 0; i < out.size(); ++i) bytes[i] = static_cast<char>(bytes[i] != 0);
  }

  static std::optional<std::int64_t> first_negative(const Array& numbers) {
    const auto* begin = numbers.data<std::int64_t>();
    const auto* end = begin + numbers.size();
    const auto* found = std::find_if(begin, end, [](std::int64_t x) { return x < 0; });
    return found == end ? std::nullopt : std::optional(*found);
  }

  // h5py stores bool as an enumeration FALSE = 0, TRUE = 1 of one byte.
  static bool is_logical(hid_t type) {
    if (H5Tget_size(type) != 1 || H5Tget_nmembers(type) != 2) return false;
    for (unsigned i = 0; i < 2; ++i) {
      signed char value = -1;
      if (H5Tget_member_value(type, i, &value) < 0 || (value != 0 && value != 1)) return false;
      char* const member = H5Tget_member_name(type, i);
      const std::string name = member != nullptr ? member : "";
      H5free_memory(member);
      if (name != (value == 0 ? "FALSE" : "TRUE")) return false;
    }
    return true;
  }

  static std::string_view in_words(H5T_class_t kind) {
    switch (kind) {
      case H5T_STRING: return "text";
      case H5T_COMPOUND: return "structures (or complex numbers)";
      case H5T_ENUM: return "an enumeration";
      case H5T_VLEN: return "lists";
      case H5T_REFERENCE: return "references";
      case H5T_INTEGER:
      case H5T_FLOAT: return "wider numbers";
      default: return "other elements";
    }
  }

  detail::QuietHdf5 quiet_;
  File file_;
  Handle id_;
};

}  // namespace

Arrays load_hdf5(const std::string& path, Location at) {
  const Hdf5 file(path, at);
  Arrays out;
  for (const std::string& name : file.names())
    if (Array array; file.load(name, false, array)) out[name] = std::move(array);
  return out;
}

Array load_hdf5(const std::string& path, const std::string& name, Location at) {
  const Hdf5 file(path, at);
  const auto names = file.names();
  std::string list;
  for (const std::string& one : names) {
    if (one != name && "/" + one != name) {
      list += fmt::format("{}'{}'", list.empty() ? "" : ", ", one);
      continue;
    }
    Array out;
    file.load(one, true, out);
    return out;
  }
  file.file().fail(list.empty() ? fmt::format("no data set '{}', nor any other", name)
                                : fmt::format("no data set '{}', only {}", name, list));
}

}  // namespace data

}  // namespace chainrule
