// What each file of ops/ includes: what ties the file and its ops to the library. Not installed.
//
// A linker takes from a static archive only the objects whose symbols somebody asks for, and nobody asks for an
// object that registers its ops by the constructors of its globals. So each ops/NAME.cpp defines one function,
// link_NAME; the build makes link_builtin_ops() out of the files that it finds there, which calls them all; and the
// registry calls that.
//
// And a linker lets globals be made in the order in which it was given their files, a user's before the library's. A
// Graph of static storage is to be built all the same, so the ops, and the globals that they are made of, have a
// priority above that of every global that has none.
#pragma once

#include <chainrule/framework/graph/op.hpp>

// Before each global in ops/ that is not a constant expression. 0 to 100 are the compiler's own.
#define CHAINRULE_EARLY [[gnu::init_priority(101)]]

namespace chainrule::detail {

// From now on ops that are registered in this file are the library's own.
struct OpFamily {
  explicit OpFamily(const char* file);
};

}  // namespace chainrule::detail

// In ops/NAME.cpp, outside of any namespace and before its ops: CHAINRULE_OP_FAMILY(NAME)
#define CHAINRULE_OP_FAMILY(family)                                                \
  namespace chainrule::ops {                                                       \
  void link_##family();                                                            \
  void link_##family() {}                                                          \
  CHAINRULE_EARLY static const detail::OpFamily family##_family(__builtin_FILE()); \
  }

namespace chainrule {

// A registered op: a reference, as only objects of a class can have a priority.
// CHAINRULE_EARLY const BuiltinOp relu_op = register_op({...});
class BuiltinOp {
 public:
  BuiltinOp(const Op& op) : op_(&op) {}
  operator const Op&() const { return *op_; }
  const Op* operator->() const { return op_; }
  friend bool operator==(const BuiltinOp& a, const Op& b) { return a.op_ == &b; }

 private:
  const Op* op_;
};

}  // namespace chainrule
