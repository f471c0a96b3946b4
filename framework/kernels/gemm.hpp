// Matrix products through cblas. Not installed.
#pragma once

#include <chainrule/framework/op.hpp>

namespace chainrule::kernels {

// The forward rule of op matmul.
Forward matmul();

}  // namespace chainrule::kernels
