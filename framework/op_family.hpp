// What each file of ops/ includes: ops, and what ties the file to the library. Not installed.
//
// A linker takes from a static archive only the objects whose symbols somebody asks for, and nobody asks for an
// object that registers its ops by the constructors of its globals. So each ops/NAME.cpp defines one function,
// link_NAME; the build makes link_builtin_ops() out of the files that it finds there, which calls them all; and the
// registry calls that.
#pragma once

#include <chainrule/framework/op.hpp>

namespace chainrule::detail {

// From now on ops that are registered in this file are the library's own.
bool begin_family(const char* file);

}  // namespace chainrule::detail

// In ops/NAME.cpp, outside of any namespace and before its ops: CHAINRULE_OP_FAMILY(NAME)
#define CHAINRULE_OP_FAMILY(family)                                                            \
  namespace chainrule::ops {                                                                   \
  void link_##family();                                                                        \
  void link_##family() {}                                                                      \
  [[maybe_unused]] static const bool family##_begins = detail::begin_family(__builtin_FILE()); \
  }
