#include <chainrule/framework/files/hdf5_set.hpp>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string_view>
#include <vector>

#include <fmt/core.h>

#include <chainrule/framework/files/container.hpp>
#include <chainrule/framework/io/numbers.hpp>

namespace chainrule::detail {

std::string hdf5_error() {
  std::array<char, 256> out{"unknown reason"};
  // From the origin outwards: the first is what happened.
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* text) -> herr_t {
        if (n == 0 && error->desc != nullptr && *error->desc != 0)
          std::snprintf(static_cast<char*>(text), std::tuple_size_v<decltype(out)>, "%s", error->desc);
        return 0;
      },
      out.data());
  return out.data();
}

void fail_damaged_hdf5(const File& file, const std::string& where) {
  file.fail(fmt::format("{}truncated or damaged ({})", where, hdf5_error()));
}

// ---- other files

namespace {

std::string folder_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
}

std::string real(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr), &std::free);
  return resolved ? resolved.get() : "";
}

}  // namespace

Hdf5Folder::Hdf5Folder(const std::string& path) : root_(real(folder_of(path))) {}

Hdf5Folder::Place Hdf5Folder::place(const std::string& referring, const std::string& name) const {
  const bool absolute = name.starts_with('/');
  const auto slash = name.find_last_of('/');
  const std::string last = slash == std::string::npos ? name : name.substr(slash + 1);
  for (const std::string& candidate :
       {absolute ? name : folder_of(referring) + name, absolute ? folder_of(referring) + last : name}) {
    const std::string found = real(candidate);
    if (!found.empty()) return found.starts_with(root_ == "/" ? root_ : root_ + "/") ? Place::within : Place::outside;
  }
  return Place::nowhere;
}

// ---- elements

namespace {

// What one object of a file is besides its numbers.
std::string_view in_words(H5T_class_t kind) {
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

// h5py stores bool as an enumeration FALSE = 0, TRUE = 1 of one byte.
bool is_logical(hid_t type) {
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

// The dtype that holds all numbers of a type; throws Unsupported.
DType dtype_of(hid_t type, Hdf5Kind file_kind) {
  const H5T_class_t kind = H5Tget_class(type);
  const std::size_t bytes = H5Tget_size(type);
  if (kind == H5T_ENUM && is_logical(type)) return boolean;
  if (kind == H5T_INTEGER && bytes == 1 && H5Tget_sign(type) == H5T_SGN_NONE) return uint8;
  if (kind == H5T_INTEGER && bytes == 4 && H5Tget_sign(type) == H5T_SGN_2) return int32;
  if (kind == H5T_INTEGER && bytes <= 8) return int64;
  if (kind == H5T_FLOAT && bytes <= 8) return bytes <= 4 ? float32 : float64;
  if (kind == H5T_COMPOUND && file_kind == Hdf5Kind::matlab) throw Unsupported("complex numbers");
  throw Unsupported(fmt::format("{}, where numbers of up to 64 bits are supported", in_words(kind)));
}

// Numbers of which some may be too large for int64.
bool is_large(hid_t type) {
  return H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 8 && H5Tget_sign(type) == H5T_SGN_NONE;
}

// How numbers of a type are to lie in an array's memory.
hid_t memory_type(hid_t type, DType dtype) {
  if (dtype == boolean) return H5Tget_class(type) == H5T_ENUM ? type : H5T_NATIVE_UCHAR;
  if (dtype == uint8) return H5T_NATIVE_UINT8;
  if (dtype == int32) return H5T_NATIVE_INT32;
  if (dtype == int64) return is_large(type) ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64;
  return dtype == float32 ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
}

// Every byte 0 or 1.
void make_bools(Array& out) {
  auto* bytes = static_cast<char*>(out.raw());
  for (std::int64_t i = 0; i < out.size(); ++i) bytes[i] = static_cast<char>(bytes[i] != 0);
}

std::optional<std::int64_t> first_negative(const Array& numbers) {
  const auto* begin = numbers.data<std::int64_t>();
  const auto* end = begin + numbers.size();
  const auto* found = std::find_if(begin, end, [](std::int64_t x) { return x < 0; });
  return found == end ? std::nullopt : std::optional(*found);
}

std::string name_of(hid_t object) {
  char name[256] = {};
  H5Iget_name(object, name, sizeof name);
  return printable(name[0] == '/' ? name + 1 : name, sizeof name);
}

}  // namespace

// ---- a data set

Hdf5SetReader::Hdf5SetReader(const File& file, Hdf5Kind kind, const Hdf5Folder& folder, Sender& sender)
    : file_(file), kind_(kind), folder_(folder), sender_(sender), access_(H5Pcreate(H5P_DATASET_ACCESS), &H5Pclose) {
  H5Pset_efile_prefix(access_, "${ORIGIN}");
}

void Hdf5SetReader::damaged(hid_t set) const { fail_damaged_hdf5(file_, fmt::format("data set '{}': ", name_of(set))); }

Array Hdf5SetReader::read(hid_t set, std::optional<DType> wanted) {
  const Hdf5Handle type(H5Dget_type(set), &H5Tclose);
  const Hdf5Handle space(H5Dget_space(set), &H5Sclose);
  if (type < 0 || space < 0) damaged(set);
  const DType own = dtype_of(type, kind_);
  if (H5Sget_simple_extent_type(space) == H5S_NULL) throw Unsupported("no numbers at all");
  DType dtype = wanted.value_or(own);
  // The HDF5 library would cut what does not fit.
  if ((dtype == uint8 || dtype == int32) && own != dtype) dtype = int64;
  sender_.allow_all_memory();
  const Dims shape = shape_of(set, space, dtype);
  if (count(shape) == 0) return Array(dtype, shape);
  check_storage(set, shape);

  sender_.allow(static_cast<std::uint64_t>(count(shape)) * size_of(dtype));
  Array out(dtype, shape);
  read_into(set, memory_type(type, dtype), out);
  if (dtype == boolean) make_bools(out);
  if (dtype == int64 && is_large(type))
    if (const auto wrapped = first_negative(out))
      throw Unsupported(
          fmt::format("the number {}, which is too large for int64", static_cast<std::uint64_t>(*wrapped)));
  return out;
}

void Hdf5SetReader::read_into(hid_t set, hid_t memory, Array& out) const {
  // Opened anew, since numbers that lie in other files are to be looked for in this one's folder.
  char path[4096] = {};
  H5Iget_name(set, path, sizeof path - 1);
  const Hdf5Handle again(H5Dopen2(set, path, access_), &H5Dclose);
  if (H5Dread(again < 0 ? set : static_cast<hid_t>(again), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.raw()) < 0)
    damaged(set);
}

Dims Hdf5SetReader::shape_of(hid_t set, hid_t space, DType dtype) const {
  const int rank = H5Sget_simple_extent_ndims(space);
  std::vector<hsize_t> sizes(static_cast<std::size_t>(std::max(rank, 0)));
  if (rank < 0 || (rank > 0 && H5Sget_simple_extent_dims(space, sizes.data(), nullptr) < 0)) damaged(set);
  std::vector<std::int64_t> extents;
  extents.reserve(sizes.size());
  for (const hsize_t size : sizes)
    extents.push_back(static_cast<std::int64_t>(std::min<hsize_t>(size, std::numeric_limits<std::int64_t>::max())));
  return checked_shape(file_, extents, size_of(dtype));
}

// That other files, in which numbers lie, lie where they may.
void Hdf5SetReader::check_other_files(hid_t options) const {
  const auto require = [&](const std::string& name, std::string_view what) {
    if (name == "." || name.find('%') != std::string::npos) return;  // this file; a pattern of names
    const auto place = folder_.place(file_.path, name);
    if (place != Hdf5Folder::Place::within)
      throw Unsupported(
          fmt::format("{} '{}', which {}", what, printable(name),
                      place == Hdf5Folder::Place::outside ? "is out of the file's folder" : "is not there"));
  };
  const int others = H5Pget_external_count(options);
  for (int i = 0; i < others; ++i) {
    char name[4096] = {};
    H5Pget_external(options, static_cast<unsigned>(i), sizeof name - 1, name, nullptr, nullptr);
    require(name, "numbers in the file");
  }
  if (H5Pget_layout(options) == H5D_VIRTUAL) {
    std::size_t sources = 0;
    H5Pget_virtual_count(options, &sources);
    for (std::size_t i = 0; i < sources; ++i) {
      char name[4096] = {};
      H5Pget_virtual_filename(options, i, name, sizeof name - 1);
      require(name, "a virtual data set of the file");
    }
  }
}

// That what is said to be stored can be.
void Hdf5SetReader::check_storage(hid_t set, const Dims& shape) const {
  const Hdf5Handle options(H5Dget_create_plist(set), &H5Pclose);
  if (options < 0) damaged(set);
  check_other_files(options);
  // Of chunks and virtual data sets any number may never have been written.
  const hsize_t stored = H5Dget_storage_size(set);
  if (H5Pget_layout(options) == H5D_CONTIGUOUS && H5Pget_external_count(options) <= 0 && stored > file_.require())
    file_.fail(fmt::format("data set '{}': damaged: the file has {} bytes, and is said to hold {} elements",
                           name_of(set), file_.require(), count(shape)));
}

}  // namespace chainrule::detail
