// One data set of an HDF5 file, read in the child process. Not installed.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <optional>
#include <string>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/files/child.hpp>
#include <chainrule/framework/files/hdf5.hpp>
#include <chainrule/framework/io/file.hpp>

namespace chainrule::detail {

// An open object of HDF5.
class Hdf5Handle {
 public:
  Hdf5Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  operator hid_t() const { return id_; }  // NOLINT: it stands for the number

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

// What the last failed call said at its origin.
std::string hdf5_error();

[[noreturn]] void fail_damaged_hdf5(const File& file, const std::string& where = {});

// Where another file lies that a file refers to: it may not lead out of the folder of the file that was named.
class Hdf5Folder {
 public:
  explicit Hdf5Folder(const std::string& path);

  enum class Place : std::uint8_t { within, outside, nowhere };
  // Of `name` in `referring`, where HDF5 would find it: beside that file, or else in the current directory.
  [[nodiscard]] Place place(const std::string& referring, const std::string& name) const;

 private:
  std::string root_;
};

// Reads data sets of a file.
class Hdf5SetReader {
 public:
  Hdf5SetReader(const File& file, Hdf5Kind kind, const Hdf5Folder& folder, Sender& sender);

  // The numbers of a data set, as their own dtype or another. Throws Unsupported.
  Array read(hid_t set, std::optional<DType> wanted);

 private:
  [[nodiscard]] Dims shape_of(hid_t set, hid_t space, DType dtype) const;
  void check_storage(hid_t set, const Dims& shape) const;
  void check_other_files(hid_t options) const;
  void read_into(hid_t set, hid_t memory, Array& out) const;
  [[noreturn]] void damaged(hid_t set) const;

  const File& file_;
  Hdf5Kind kind_;
  const Hdf5Folder& folder_;
  Sender& sender_;
  Hdf5Handle access_;
};

}  // namespace chainrule::detail
