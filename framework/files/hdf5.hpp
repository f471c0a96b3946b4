// HDF5 files, MATLAB's among them. Not installed.
#pragma once

#include <cstdint>
#include <string>

#include <chainrule/framework/files/files.hpp>
#include <chainrule/framework/io/file.hpp>

namespace chainrule::detail {

enum class Hdf5Kind : std::uint8_t {
  plain,   // the data sets at all depths, as they are
  matlab,  // the variables of a -v7.3 file: what has a MATLAB_class, in the root group
};

// All arrays of a file, or one; read in a child process.
data::Arrays read_hdf5(const File& file, Hdf5Kind kind);
Array read_hdf5(const File& file, Hdf5Kind kind, const std::string& name);

}  // namespace chainrule::detail
