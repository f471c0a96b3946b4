// Files of numbers: NumPy, MATLAB, HDF5, CSV, IDX. These functions are in the library chainrule::files, which a program
// that calls them links (the core library needs none of the formats' libraries).
//
// Numbers keep their kind: floating ones are float32 or float64 as stored (16-bit ones become float32), unsigned bytes
// uint8, signed integers of 32 bits int32, those of all other widths int64, logical values bool.
//
// A file that is missing, empty, truncated, of another format or damaged throws one Error that names the file, what
// was required of it and what was found: "load_npy: requires a NumPy file (.npy), got 'x.npy': ...". Where the format
// has checksums they are compared: gzip's, those of .npz, of compressed variables of .mat files and of HDF5 data sets
// with Fletcher32; elsewhere a changed byte among the numbers cannot be told. Sizes that a file claims to have are
// compared with its own size, and with the memory that this process can have, before memory is asked for.
//
// What is whole but that no Array can hold - text, structures, complex numbers, more than 8 dimensions, whole numbers
// beyond int64, links to nothing, more than memory can hold - is an Error where it is asked for by name. Where all
// arrays of a file are loaded it does not keep the others from being so, and is listed, with the reason, in
// Arrays::skipped. Of several of one name the last counts, as in NumPy and MATLAB.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/data/data.hpp>

namespace chainrule::data {

// Arrays by name, in alphabetical order.
class Arrays : public std::map<std::string, Array> {
 public:
  using map::map;
  // The array of this name. Throws Error where there is none, with the reason if it was skipped.
  [[nodiscard]] const Array& at(const std::string& name, Location at = Location::here()) const;
  [[nodiscard]] Array& at(const std::string& name, Location at = Location::here());

  // What the file has besides, and why it is no Array: {"names", "text"}.
  std::map<std::string, std::string> skipped;
};

// ---- NumPy

// numpy.load and numpy.save of one array: .npy, versions 1 to 3, either byte order, C and Fortran order.
Array load_npy(const std::string& path, Location at = Location::here());
// Written to a temporary file beside it and renamed, so that there is the old file or the new one, never a part.
void save_npy(const std::string& path, const Array& array, Location at = Location::here());

// numpy.load of an archive that numpy.savez or savez_compressed made (or any other zip archive of .npy files), and
// numpy.savez. Names are without ".npy"; members without it are no arrays, and not listed.
Arrays load_npz(const std::string& path, Location at = Location::here());
Array load_npz(const std::string& path, const std::string& name, Location at = Location::here());
// Whole or not at all, as save_npy.
void save_npz(const std::string& path, const Arrays& arrays, Location at = Location::here());

// ---- MATLAB

// The variables of a .mat file of MATLAB 4 or later (-v4, -v6, -v7, -v7.3). All have two dimensions or more. Element
// (i, j) is MATLAB's (i + 1, j + 1): MATLAB stores columns, an Array rows, and the numbers are reordered. dtypes are
// those of MATLAB's classes, however it stored the numbers: all numbers of -v4 are float64.
Arrays load_mat(const std::string& path, Location at = Location::here());
Array load_mat(const std::string& path, const std::string& name, Location at = Location::here());

// ---- HDF5

// The data sets of an HDF5 file by their names, those within groups by their paths ("group/name"), under each of the
// names that they have: links are followed, hard and soft ones, and external ones to files in the same folder or below
// it (so, too, the sources of virtual data sets and the files of external ones, which must be there). Elements that
// were never written are the data set's fill value.
//
// The HDF5 library may crash on damaged files, or go on for ever. So it is run in a child process (a fork that is gone
// when the function returns), for HDF5 files and -v7.3 ones: its crash is an Error, as is its use of more than 10
// seconds and a second for each 10 MB of processor time. Other threads may run meanwhile, but must not be within calls
// of HDF5 of their own when these functions are called, since its usual build is not made for threads.
Arrays load_hdf5(const std::string& path, Location at = Location::here());
Array load_hdf5(const std::string& path, const std::string& name, Location at = Location::here());

// ---- CSV

struct CsvOptions {
  // Whether the first row holds the columns' names. Without an answer: if one of its fields at least is a name, and
  // none is a number (not even one beyond float64, such as 1e400). No name is what stands for a missing number: an
  // empty field, NA, N/A, #N/A, null, none, nil, ?, -, --, . in capitals or not. So a first row of these alone is data.
  std::optional<bool> header = std::nullopt;
  char delimiter = ',';
  // What an empty field is, such as NaN. Without one it is an error.
  std::optional<double> missing = std::nullopt;
};

struct Csv {
  std::vector<std::string> columns;  // the header, or empty
  Array values;                      // float64 {rows, columns}
};

// A table of numbers: comma-separated values by RFC 4180, fields quoted or not, plain or compressed by gzip. Every row
// has as many fields as the first. Empty lines and spaces around fields are skipped. A field that is no number is an
// error that names its row and column; a file cut within a number, at the end of a full row, cannot be told from a
// whole one.
Csv load_csv(const std::string& path, const CsvOptions& options = {}, Location at = Location::here());

// ---- IDX

// The format of the MNIST data sets, plain or compressed by gzip. (Those are uint8, a byte a pixel.)
Array load_idx(const std::string& path, Location at = Location::here());

struct TrainTest {
  Dataset train;
  Dataset test;
};

// Fashion-MNIST, or any set of the same four files (MNIST, KMNIST): train-images-idx3-ubyte, train-labels-idx1-ubyte,
// t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (or with a dot: train-images.idx3-ubyte), each plain or with .gz,
// in a folder. One example a row (axis 0): x float32 {examples, pixels}, 0 black to 1 white; y int64 {examples}, the
// class.
TrainTest load_fashion_mnist(const std::string& folder, Location at = Location::here());
// Where Debian's package dataset-fashion-mnist puts these files.
std::string fashion_mnist_folder();

}  // namespace chainrule::data
