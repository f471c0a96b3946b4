// What the loaders of HDF5 files, MATLAB's among them, have in common. Not installed.
#pragma once

#include <hdf5.h>

#include <string>

#include <chainrule/framework/file.hpp>

namespace chainrule::detail {

// While one lives, HDF5 prints no errors of this thread.
class QuietHdf5 {
 public:
  QuietHdf5() {
    H5Eget_auto2(H5E_DEFAULT, &print_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietHdf5() { H5Eset_auto2(H5E_DEFAULT, print_, data_); }
  QuietHdf5(const QuietHdf5&) = delete;
  QuietHdf5& operator=(const QuietHdf5&) = delete;

 private:
  H5E_auto2_t print_ = nullptr;
  void* data_ = nullptr;
};

// Opens a file for reading, or fails.
hid_t open_hdf5(const File& file);

// What the last failed call said at its origin.
std::string hdf5_error();

}  // namespace chainrule::detail
