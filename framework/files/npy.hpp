// NumPy's .npy format, for files and for the members of .npz archives. Not installed.
#pragma once

#include <string>
#include <string_view>

#include <chainrule/framework/files/numbers.hpp>

namespace chainrule::detail {

// The array that the bytes of a .npy file hold. What is wrong with them is reported as being of `file`, after `where`
// (the member of an archive).
Array parse_npy(const File& file, std::string_view bytes, const std::string& where = {});
// Whether a .npy file's elements are numbers that an Array can hold; fails as parse_npy for what is no .npy file.
bool npy_holds_numbers(const File& file, std::string_view bytes, const std::string& where = {});

// The bytes of a .npy file before its elements, which are those of the array as they lie in memory.
std::string npy_header(const Array& array);

}  // namespace chainrule::detail
