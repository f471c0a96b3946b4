// NumPy's .npy format, for files and for the members of .npz archives. Not installed.
#pragma once

#include <string>
#include <string_view>

#include <chainrule/framework/io/numbers.hpp>

namespace chainrule::detail {

// The array of a .npy file, which is all that follows in `from`. What is wrong is reported as being of `file`, after
// `where` (the member of an archive). Throws Unsupported for elements that an Array cannot hold.
Array read_npy(const File& file, Input& from, std::string_view where = {});

// The bytes of a .npy file before its elements, which are those of the array as they lie in memory.
std::string npy_header(const Array& array);

}  // namespace chainrule::detail
