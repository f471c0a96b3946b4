// The Error of an Array for which there is no memory, to which who reads a file adds its name. Not installed.
#pragma once

#include <chainrule/framework/core/error.hpp>

namespace chainrule::detail {

class NoMemory : public Error {
 public:
  using Error::Error;
};

}  // namespace chainrule::detail
