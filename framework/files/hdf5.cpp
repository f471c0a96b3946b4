#include <chainrule/framework/files/hdf5.hpp>

#include <hdf5.h>

#include <algorithm>
#include <new>
#include <optional>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/files/child.hpp>
#include <chainrule/framework/files/container.hpp>
#include <chainrule/framework/files/hdf5_set.hpp>
#include <chainrule/framework/io/numbers.hpp>

namespace chainrule {

namespace detail {

namespace {

// ---- in the child process

class Hdf5Reader {
 public:
  Hdf5Reader(const File& file, Hdf5Kind kind, Sender& sender)
      : file_(file),
        kind_(kind),
        sender_(sender),
        folder_(file.path),
        sets_(file, kind, folder_, sender),
        links_(H5Pcreate(H5P_LINK_ACCESS), &H5Pclose) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5Pset_elink_cb(links_, &follow, this);
    if (H5Fis_hdf5(file_.path.c_str()) <= 0) file_.fail("no HDF5 file, it lacks the format's signature");
  }

  // Sends 'a', the name and the array for each array, and 's', the name and the reason for what is none.
  void send_all() {
    const Hdf5Handle id(open(), &H5Fclose);
    const Hdf5Handle root(H5Gopen2(id, "/", H5P_DEFAULT), &H5Gclose);
    if (root < 0) fail_damaged_hdf5(file_);
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
    const Hdf5Handle id(open(), &H5Fclose);
    const auto start = std::min(name.find_first_not_of('/'), name.size());
    const std::string path = name.substr(start);
    // In MATLAB's files a variable's name is no path.
    if (!path.empty() && (kind_ == Hdf5Kind::plain || path.find('/') == std::string::npos)) {
      const Hdf5Handle object(H5Oopen(id, path.c_str(), links_), &H5Oclose);
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
    const Hdf5Handle root(H5Gopen2(id, "/", H5P_DEFAULT), &H5Gclose);
    if (root < 0) fail_damaged_hdf5(file_);
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

  [[nodiscard]] hid_t open() const {
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
        case Hdf5Folder::Place::within: return 0;
        case Hdf5Folder::Place::outside:
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
    if (!all) fail_damaged_hdf5(file_, path.empty() ? path : fmt::format("group '{}': ", printable(path)));
    return std::move(links_found_);
  }

  static Place place_of(hid_t group) {
    H5G_stat_t status{};
    H5Gget_objinfo(group, ".", true, &status);
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
      const Hdf5Handle object(H5Oopen(group, name.c_str(), links_), &H5Oclose);
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
    return kind_ == Hdf5Kind::plain ? sets_.read(object, std::nullopt) : read_variable(object);
  }

  // Of MATLAB's.
  Array read_variable(hid_t object) {
    const std::optional<DType> dtype = dtype_of_variable(object);
    const bool empty = attribute_number(object, "MATLAB_empty") != 0;
    const Array stored = sets_.read(object, empty ? std::optional(int64) : dtype);
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

  // None for a data set that MATLAB did not write.
  static std::optional<DType> dtype_of_variable(hid_t object) {
    const std::string type = attribute_text(object, "MATLAB_class");
    if (H5Aexists(object, "MATLAB_sparse") > 0) throw Unsupported("a sparse array");
    if (type == "char") throw Unsupported("text");
    if (type == "cell") throw Unsupported("a cell array");
    if (type == "struct") throw Unsupported("a structure");
    if (type == "function_handle") throw Unsupported("a function");
    if (!is_set(object)) {
      if (type.empty()) throw Unsupported("a group, and no variable of MATLAB's");
      throw Unsupported(fmt::format("an object of class '{}'", printable(type)));
    }
    if (type.empty()) return std::nullopt;
    if (type == "double") return float64;
    if (type == "single") return float32;
    if (type == "logical") return boolean;
    if (type == "uint8") return uint8;
    if (type == "int32") return int32;
    for (const char* const integer : {"int8", "int16", "uint16", "uint32", "int64", "uint64"})
      if (type == integer) return int64;
    throw Unsupported(fmt::format("an object of class '{}'", printable(type)));
  }

  [[nodiscard]] static std::string attribute_text(hid_t object, const char* name) {
    if (H5Aexists(object, name) <= 0) return "";
    const Hdf5Handle attribute(H5Aopen(object, name, H5P_DEFAULT), &H5Aclose);
    const Hdf5Handle type(attribute < 0 ? -1 : H5Aget_type(attribute), &H5Tclose);
    if (type < 0 || H5Tget_class(type) != H5T_STRING) return "";
    const Hdf5Handle memory(H5Tcopy(H5T_C_S1), &H5Tclose);
    const Hdf5Handle space(H5Aget_space(attribute), &H5Sclose);
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
    const Hdf5Handle attribute(H5Aopen(object, name, H5P_DEFAULT), &H5Aclose);
    const Hdf5Handle space(attribute < 0 ? -1 : H5Aget_space(attribute), &H5Sclose);
    if (space >= 0 && H5Sget_simple_extent_npoints(space) == 1) H5Aread(attribute, H5T_NATIVE_INT, &out);
    return out;
  }

  const File& file_;
  Hdf5Kind kind_;
  Sender& sender_;
  Hdf5Folder folder_;
  Hdf5SetReader sets_;
  Hdf5Handle links_;
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
