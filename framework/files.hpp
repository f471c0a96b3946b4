// Files of numbers: NumPy, MATLAB, HDF5, CSV, IDX. These functions are in the library chainrule::files, which a program
// that calls them links (the core library needs none of the formats' libraries).
//
// Numbers keep their kind: floating ones are float32 or float64 as stored (16-bit ones become float32), integers of
// all widths become int64, logical values bool. Where a function returns all arrays of a file, what is no array of
// such numbers (text, structures, complex numbers) is left out; asked for by name it is an error.
//
// A file that is missing, empty, truncated, of another format or damaged throws one Error that names the file, what
// was required of it and what was found: "load_npy: requires a NumPy file (.npy), got 'x.npy': ...".
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <chainrule/framework/array.hpp>
#include <chainrule/framework/data.hpp>
#include <chainrule/framework/error.hpp>

namespace chainrule::data {

// Arrays by name, in alphabetical order.
using Arrays = std::map<std::string, Array>;

// ---- NumPy

// numpy.load and numpy.save of one array: .npy, versions 1 to 3, either byte order, C and Fortran order.
Array load_npy(const std::string& path, Location at = Location::here());
// Written to a temporary file beside it and renamed, so that there is the old file or the new one, never a part.
void save_npy(const std::string& path, const Array& array, Location at = Location::here());

// numpy.load of an archive that numpy.savez or savez_compressed made, and numpy.savez. Names are without ".npy".
Arrays load_npz(const std::string& path, Location at = Location::here());
Array load_npz(const std::string& path, const std::string& name, Location at = Location::here());
void save_npz(const std::string& path, const Arrays& arrays, Location at = Location::here());

// ---- MATLAB

// The variables of a .mat file of MATLAB 5 or later (-v6, -v7, -v7.3). All have two dimensions or more. Element (i, j)
// is MATLAB's (i + 1, j + 1): MATLAB stores columns, an Array rows, and the numbers are reordered.
Arrays load_mat(const std::string& path, Location at = Location::here());
Array load_mat(const std::string& path, const std::string& name, Location at = Location::here());

// ---- HDF5

// The data sets of an HDF5 file by their names, those within groups by their paths ("group/name").
Arrays load_hdf5(const std::string& path, Location at = Location::here());
Array load_hdf5(const std::string& path, const std::string& name, Location at = Location::here());

// ---- CSV

struct CsvOptions {
  // Whether the first row holds the columns' names. Without an answer: if none of its fields is a number (and other
  // rows follow).
  std::optional<bool> header = std::nullopt;
  char delimiter = ',';
  // What an empty field is, such as NaN. Without one it is an error.
  std::optional<double> missing = std::nullopt;
};

struct Csv {
  std::vector<std::string> columns;  // the header, or empty
  Array values;                      // float64 {rows, columns}
};

// A table of numbers: comma-separated values by RFC 4180, fields quoted or not. Every row has as many fields as the
// first. Empty lines and spaces around fields are skipped. A field that is no number is an error that names its row and
// column; a file cut within a number, at the end of a full row, cannot be told from a whole one.
Csv load_csv(const std::string& path, const CsvOptions& options = {}, Location at = Location::here());

// ---- IDX

// The format of the MNIST data sets, plain or compressed by gzip.
Array load_idx(const std::string& path, Location at = Location::here());

struct TrainTest {
  Dataset train;
  Dataset test;
};

// Fashion-MNIST, or any set of the same four files (MNIST, KMNIST): train-images-idx3-ubyte, train-labels-idx1-ubyte,
// t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, each plain or with .gz, in a folder. One example a row (axis 0):
// x float32 {examples, pixels}, 0 black to 1 white; y int64 {examples}, the class.
TrainTest load_fashion_mnist(const std::string& folder, Location at = Location::here());
// Where Debian's package dataset-fashion-mnist puts these files.
std::string fashion_mnist_folder();

}  // namespace chainrule::data
