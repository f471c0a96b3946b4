#include <chainrule/framework/files/hdf5.hpp>

#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/files/child.hpp>
#include <chainrule/framework/files/container.hpp>
#include <chainrule/framework/io/numbers.hpp>

namespace chainrule {

namespace detail {

namespace {

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

// What the last failed call said at its origin.
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

// Where another file lies that a file refers to: it may not lead out of the folder of the file that was named.
class Folder {
 public:
  explicit Folder(const std::string& path) : root_(real(folder_of(path))) {}

  enum class Place : std::uint8_t { within, outside, nowhere };
  // Of `name` in `referring`, where HDF5 would find it: beside that file, or else in the current directory.
  [[nodiscard]] Place place(const std::string& referring, const std::string& name) const {
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

 private:
  static std::string folder_of(const std::string& path) {
    const auto slash = path.find_last_of('/');
    return slash == std::string::npos ? "./" : path.substr(0, slash + 1);
  }
  static std::string real(const std::string& path) {
    const std::unique_ptr<char, decltype(&std::free)> resolved(realpath(path.c_str(), nullptr), &std::free);
    return resolved ? resolved.get() : "";
  }
  std::string root_;
};

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

// ---- in the child process

class Hdf5Reader {
 public:
  Hdf5Reader(const File& file, Hdf5Kind kind, Sender& sender)
      : file_(file),
        kind_(kind),
        sender_(sender),
        folder_(file.path),
        links_(H5Pcreate(H5P_LINK_ACCESS), &H5Pclose),
        access_(H5Pcreate(H5P_DATASET_ACCESS), &H5Pclose) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5Pset_elink_cb(links_, &follow, this);
    H5Pset_efile_prefix(access_, "${ORIGIN}");
    if (H5Fis_hdf5(file_.path.c_str()) <= 0) file_.fail("no HDF5 file, it lacks the format's signature");
  }

  // Sends 'a', the name and the array for each array, and 's', the name and the reason for what is none.
  void send_all() {
    const Handle id(open(), &H5Fclose);
    const Handle root(H5Gopen2(id, "/", H5P_DEFAULT), &H5Gclose);
    if (root < 0) damaged();
    visit(root, "", [&](const std::string& name, hid_t object) {
      try {
        send(name, read(object));
      } catch (const Unsupported& reason) {
        send_skipped(name, reason.what());
      }
    });
  }

  // Sends 'a' and so on for one array; or 'n' and a name for each of them if there is none of this name.
  void send_one(const std::string& name) {
    const Handle id(open(), &H5Fclose);
    const auto start = std::min(name.find_first_not_of('/'), name.size());
    const std::string path = name.substr(start);
    // In MATLAB's files a variable's name is no path.
    if (!path.empty() && (kind_ == Hdf5Kind::plain || path.find('/') == std::string::npos)) {
      const Handle object(H5Oopen(id, path.c_str(), links_), &H5Oclose);
      throw_noted();
      if (object >= 0 && (is_set(object) || kind_ == Hdf5Kind::matlab)) {
        try {
          send(name, read(object));
        } catch (const Unsupported& reason) {
          send_skipped(name, reason.what());
        }
        return;
      }
      if (object < 0 && !refused_.empty()) return send_skipped(name, refused_);
    }
    const Handle root(H5Gopen2(id, "/", H5P_DEFAULT), &H5Gclose);
    if (root < 0) damaged();
    listing_ = true;
    visit(root, "", [&](const std::string& one, hid_t) {
      sender_.kind('n');
      sender_.text(one);
    });
  }

 private:
  struct Place {
    unsigned long file[2];
    unsigned long object[2];
    bool operator==(const Place&) const = default;
  };

  [[noreturn]] void damaged(const std::string& where = {}) const {
    file_.fail(fmt::format("{}truncated or damaged ({})", where, hdf5_error()));
  }

  hid_t open() const {
    const hid_t id = H5Fopen(file_.path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    if (id < 0) file_.fail(hdf5_error());
    return id;
  }

  void send(const std::string& name, const Array& array) {
    sender_.kind('a');
    sender_.text(name);
    sender_.array(array);
  }
  void send_skipped(const std::string& name, const std::string& reason) {
    sender_.kind('s');
    sender_.text(name);
    sender_.text(reason);
  }

  static bool is_set(hid_t object) { return H5Iget_type(object) == H5I_DATASET; }

  // Asked by HDF5 before it follows an external link.
  static herr_t follow(const char* referring, const char* /*group*/, const char* file, const char* /*object*/,
                       unsigned* /*flags*/, hid_t /*access*/, void* reader) {
    auto& self = *static_cast<Hdf5Reader*>(reader);
    return self.called_from_c([&] {
      switch (self.folder_.place(referring, file)) {
        case Folder::Place::within: return 0;
        case Folder::Place::outside:
          self.refused_ = fmt::format("an external link out of the file's folder, to '{}'", printable(file));
          return -1;
        default:
          self.refused_ = fmt::format("an external link to '{}', which is not there", printable(file));
          return -1;
      }
    });
  }

  // What HDF5 calls may throw nothing: the want of memory is noted, and thrown where HDF5 has returned.
  template <class F>
  herr_t called_from_c(F f) {
    try {
      return f();
    } catch (const std::bad_alloc&) {
      no_memory_ = true;
      return -1;
    }
  }
  void throw_noted() const {
    if (no_memory_) throw std::bad_alloc();
  }

  [[nodiscard]] std::vector<std::string> links_of(hid_t group, const std::string& path) {
    links_found_.clear();
    const auto add = [](hid_t, const char* name, const H5L_info_t*, void* reader) -> herr_t {
      auto& self = *static_cast<Hdf5Reader*>(reader);
      return self.called_from_c([&] {
        self.links_found_.emplace_back(name);
        return 0;
      });
    };
    const bool all = H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, this) >= 0;
    throw_noted();
    if (!all) damaged(path.empty() ? path : fmt::format("group '{}': ", printable(path)));
    return std::move(links_found_);
  }

  static Place place_of(hid_t group) {
    H5G_stat_t status{};
    H5Gget_objinfo(group, ".", 1, &status);
    return {{status.fileno[0], status.fileno[1]}, {status.objno[0], status.objno[1]}};
  }

  // Calls f(path, object) for each data set below a group (of MATLAB's: for all in the root group), under each of its
  // names. Links to nothing are sent as skipped.
  template <class F>
  void visit(hid_t group, const std::string& prefix, const F& f) {
    constexpr std::size_t deepest = 1000;
    constexpr std::int64_t most = 1'000'000;
    if (above_.size() > deepest) file_.fail("damaged: its groups are nested without end");
    above_.push_back(place_of(group));
    for (const std::string& name : links_of(group, prefix)) {
      if (++seen_ > most) file_.fail("damaged: it has more than a million names");
      if (kind_ == Hdf5Kind::matlab && name.starts_with('#')) continue;  // where MATLAB keeps what others refer to
      const std::string path = prefix + name;
      refused_.clear();
      const Handle object(H5Oopen(group, name.c_str(), links_), &H5Oclose);
      throw_noted();
      if (object < 0) {
        nothing(group, name, path);
      } else if (kind_ == Hdf5Kind::matlab || is_set(object)) {
        f(path, object);
      } else if (H5Iget_type(object) == H5I_GROUP) {
        const Place place = place_of(object);
        if (std::find(above_.begin(), above_.end(), place) == above_.end()) visit(object, path + "/", f);
      }
    }
    above_.pop_back();
  }

  void nothing(hid_t group, const std::string& name, const std::string& path) {
    const std::string why = hdf5_error();
    H5L_info_t info{};
    if (H5Lget_info(group, name.c_str(), &info, H5P_DEFAULT) < 0 || info.type == H5L_TYPE_HARD)
      file_.fail(fmt::format("'{}': truncated or damaged ({})", printable(path), why));
    if (listing_) return;
    std::string target(std::min<std::size_t>(info.u.val_size, 4096), '\0');
    if (info.type == H5L_TYPE_SOFT && H5Lget_val(group, name.c_str(), target.data(), target.size(), H5P_DEFAULT) < 0)
      target.clear();
    target.resize(std::min(target.size(), target.find('\0')));
    send_skipped(path, !refused_.empty() ? refused_
                       : info.type == H5L_TYPE_SOFT
                           ? fmt::format("a link to '{}', which is not there", printable(target))
                           : "a link to what is not there");
  }

  // The array of an object; throws Unsupported.
  Array read(hid_t object) {
    if (kind_ == Hdf5Kind::plain) return read_set(object, std::nullopt);
    const std::string type = attribute_text(object, "MATLAB_class");
    const auto has = [&](const char* name) { return H5Aexists(object, name) > 0; };
    if (has("MATLAB_sparse")) throw Unsupported("a sparse array");
    if (type == "char") throw Unsupported("text");
    if (type == "cell") throw Unsupported("a cell array");
    if (type == "struct") throw Unsupported("a structure");
    if (type == "function_handle") throw Unsupported("a function");
    if (!is_set(object) && type.empty()) throw Unsupported("a group, and no variable of MATLAB's");
    std::optional<DType> dtype;
    if (type == "double") dtype = float64;
    if (type == "single") dtype = float32;
    if (type == "logical") dtype = boolean;
    for (const char* const integer : {"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
      if (type == integer) dtype = int64;
    if (!is_set(object) || (!dtype && !type.empty()))
      throw Unsupported(fmt::format("an object of class '{}'", printable(type)));
    const bool empty = attribute_number(object, "MATLAB_empty") != 0;
    const Array stored = read_set(object, empty ? std::optional(int64) : dtype);
    if (empty) {  // an array of no elements; stored is its shape
      const auto* extents = stored.data<std::int64_t>();
      const Dims shape = checked_shape(file_, {extents, extents + std::min<std::int64_t>(stored.size(), 9)}, 1);
      if (count(shape) != 0) file_.fail("damaged: an array of no elements that has some");
      return Array(dtype.value_or(float64), shape);
    }
    // MATLAB's dimensions stand in reverse order, and its columns one after the other.
    Dims shape = stored.shape();
    std::reverse(shape.begin(), shape.end());
    return from_column_major(stored.reshape(shape));
  }

  [[nodiscard]] static std::string attribute_text(hid_t object, const char* name) {
    if (H5Aexists(object, name) <= 0) return "";
    const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), &H5Aclose);
    const Handle type(attribute < 0 ? -1 : H5Aget_type(attribute), &H5Tclose);
    if (type < 0 || H5Tget_class(type) != H5T_STRING) return "";
    const Handle memory(H5Tcopy(H5T_C_S1), &H5Tclose);
    const Handle space(H5Aget_space(attribute), &H5Sclose);
    if (space < 0 || H5Sget_simple_extent_npoints(space) != 1) return "";
    if (H5Tis_variable_str(type) > 0) {
      H5Tset_size(memory, H5T_VARIABLE);
      H5Tset_cset(memory, H5Tget_cset(type));
      char* text = nullptr;
      if (H5Aread(attribute, memory, &text) < 0 || text == nullptr) return "";
      std::string out(text);
      H5free_memory(text);
      return out;
    }
    const std::size_t size = H5Tget_size(type);
    if (size > 1000) return "";
    std::string out(size + 1, '\0');
    H5Tset_size(memory, out.size());
    H5Tset_cset(memory, H5Tget_cset(type));
    if (H5Aread(attribute, memory, out.data()) < 0) return "";
    out.resize(std::min(out.size(), out.find('\0')));
    return out;
  }

  // 0 where there is no such attribute.
  static int attribute_number(hid_t object, const char* name) {
    int out = 0;
    if (H5Aexists(object, name) <= 0) return out;
    const Handle attribute(H5Aopen(object, name, H5P_DEFAULT), &H5Aclose);
    const Handle space(attribute < 0 ? -1 : H5Aget_space(attribute), &H5Sclose);
    if (space >= 0 && H5Sget_simple_extent_npoints(space) == 1) H5Aread(attribute, H5T_NATIVE_INT, &out);
    return out;
  }

  // The numbers of a data set, as their own dtype or another.
  Array read_set(hid_t set, std::optional<DType> wanted) {
    const auto broken = [&] { damaged(fmt::format("data set '{}': ", name_of(set))); };
    const Handle type(H5Dget_type(set), &H5Tclose);
    const Handle space(H5Dget_space(set), &H5Sclose);
    if (type < 0 || space < 0) broken();
    const H5T_class_t kind = H5Tget_class(type);
    const std::size_t bytes = H5Tget_size(type);
    const bool logical = kind == H5T_ENUM && is_logical(type);
    if (!(kind == H5T_INTEGER && bytes <= 8) && !(kind == H5T_FLOAT && bytes <= 8) && !logical)
      throw Unsupported(kind_ == Hdf5Kind::matlab && kind == H5T_COMPOUND
                            ? std::string("complex numbers")
                            : fmt::format("{}, where numbers of up to 64 bits are supported", in_words(kind)));
    if (H5Sget_simple_extent_type(space) == H5S_NULL) throw Unsupported("no numbers at all");
    const DType own = logical ? boolean : kind == H5T_INTEGER ? int64 : bytes <= 4 ? float32 : float64;
    const DType dtype = wanted.value_or(own);
    sender_.allow_all_memory();
    const Dims shape = shape_of(set, space, dtype);
    if (count(shape) == 0) return Array(dtype, shape);
    check_storage(set, shape);

    const bool large = dtype == int64 && bytes == 8 && H5Tget_sign(type) == H5T_SGN_NONE;
    const hid_t memory = logical && dtype == boolean ? static_cast<hid_t>(type)
                         : dtype == boolean          ? H5T_NATIVE_UCHAR
                         : large                     ? H5T_NATIVE_UINT64
                         : dtype == int64            ? H5T_NATIVE_INT64
                         : dtype == float32          ? H5T_NATIVE_FLOAT
                                                     : H5T_NATIVE_DOUBLE;
    sender_.allow(static_cast<std::uint64_t>(count(shape)) * size_of(dtype));
    Array out(dtype, shape);
    // Opened anew, since numbers that lie in other files are to be looked for in this one's folder.
    char path[4096] = {};
    H5Iget_name(set, path, sizeof path - 1);
    const Handle again(H5Dopen2(set, path, access_), &H5Dclose);
    if (H5Dread(again < 0 ? set : static_cast<hid_t>(again), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.raw()) < 0)
      broken();
    if (dtype == boolean) make_bools(out);
    if (large)
      if (const auto wrapped = first_negative(out))
        throw Unsupported(
            fmt::format("the number {}, which is too large for int64", static_cast<std::uint64_t>(*wrapped)));
    return out;
  }

  Dims shape_of(hid_t set, hid_t space, DType dtype) const {
    const int rank = H5Sget_simple_extent_ndims(space);
    std::vector<hsize_t> sizes(static_cast<std::size_t>(std::max(rank, 0)));
    if (rank < 0 || (rank > 0 && H5Sget_simple_extent_dims(space, sizes.data(), nullptr) < 0))
      damaged(fmt::format("data set '{}': ", name_of(set)));
    std::vector<std::int64_t> extents;
    for (const hsize_t size : sizes)
      extents.push_back(static_cast<std::int64_t>(std::min<hsize_t>(size, std::numeric_limits<std::int64_t>::max())));
    return checked_shape(file_, extents, size_of(dtype));
  }

  // That what is said to be stored can be, and that other files lie where they may.
  void check_storage(hid_t set, const Dims& shape) const {
    const Handle options(H5Dget_create_plist(set), &H5Pclose);
    if (options < 0) damaged(fmt::format("data set '{}': ", name_of(set)));
    const auto require = [&](const std::string& name, std::string_view what) {
      if (name == "." || name.find('%') != std::string::npos) return;  // this file; a pattern of names
      const auto place = folder_.place(file_.path, name);
      if (place != Folder::Place::within)
        throw Unsupported(
            fmt::format("{} '{}', which {}", what, printable(name),
                        place == Folder::Place::outside ? "is out of the file's folder" : "is not there"));
    };
    const int others = H5Pget_external_count(options);
    for (int i = 0; i < others; ++i) {
      char name[4096] = {};
      H5Pget_external(options, static_cast<unsigned>(i), sizeof name - 1, name, nullptr, nullptr);
      require(name, "numbers in the file");
    }
    const H5D_layout_t layout = H5Pget_layout(options);
    if (layout == H5D_VIRTUAL) {
      std::size_t sources = 0;
      H5Pget_virtual_count(options, &sources);
      for (std::size_t i = 0; i < sources; ++i) {
        char name[4096] = {};
        H5Pget_virtual_filename(options, i, name, sizeof name - 1);
        require(name, "a virtual data set of the file");
      }
    }
    // Of chunks and virtual data sets any number may never have been written.
    const hsize_t stored = H5Dget_storage_size(set);
    if (layout == H5D_CONTIGUOUS && others <= 0 && stored > file_.require())
      file_.fail(fmt::format("data set '{}': damaged: the file has {} bytes, and is said to hold {} elements",
                             name_of(set), file_.require(), count(shape)));
  }

  static std::string name_of(hid_t object) {
    char name[256] = {};
    H5Iget_name(object, name, sizeof name);
    return printable(name[0] == '/' ? name + 1 : name, sizeof name);
  }

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

  const File& file_;
  Hdf5Kind kind_;
  Sender& sender_;
  Folder folder_;
  Handle links_;
  Handle access_;
  std::vector<Place> above_;  // the groups that lead to the current one
  std::int64_t seen_ = 0;
  std::string refused_;  // why the last external link was not followed
  std::vector<std::string> links_found_;
  bool no_memory_ = false;
  bool listing_ = false;
};

// Once, and not anew in every child.
void initialize() { [[maybe_unused]] static const herr_t done = H5open(); }

std::string_view noun(Hdf5Kind kind) { return kind == Hdf5Kind::matlab ? "variable" : "data set"; }

}  // namespace

data::Arrays read_hdf5(const File& file, Hdf5Kind kind) {
  file.require();
  initialize();
  Child child(file, [&](Sender& sender) { Hdf5Reader(file, kind, sender).send_all(); });
  data::Arrays out;
  for (char next = child.kind(); next != '.'; next = child.kind()) {
    const std::string name = child.text();
    if (next == 'a') {
      out[name] = child.array();
    } else {
      out.skipped[name] = child.text();
    }
  }
  return out;
}

Array read_hdf5(const File& file, Hdf5Kind kind, const std::string& name) {
  file.require();
  initialize();
  Child child(file, [&](Sender& sender) { Hdf5Reader(file, kind, sender).send_one(name); });
  std::vector<std::string> names;
  for (char next = child.kind(); next != '.'; next = child.kind()) {
    const std::string one = child.text();
    if (next == 'a') return child.array();
    if (next == 's') file.fail(fmt::format("{} '{}': {}", noun(kind), name, child.text()));
    names.push_back(one);
  }
  fail_missing(file, noun(kind), name, names);
}

}  // namespace detail

namespace data {

namespace {

detail::File file_of(const std::string& path, Location at) { return {"load_hdf5", "an HDF5 file", path, at}; }

}  // namespace

Arrays load_hdf5(const std::string& path, Location at) {
  const detail::File file = file_of(path, at);
  return file.guard([&] { return detail::read_hdf5(file, detail::Hdf5Kind::plain); });
}

Array load_hdf5(const std::string& path, const std::string& name, Location at) {
  const detail::File file = file_of(path, at);
  return file.guard([&] { return detail::read_hdf5(file, detail::Hdf5Kind::plain, name); });
}

}  // namespace data

}  // namespace chainrule
