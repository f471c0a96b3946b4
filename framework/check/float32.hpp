// An op in float32 beside the same in float64. Not installed.
#pragma once

#include <string_view>
#include <vector>

#include <chainrule/framework/check/check_gradients.hpp>

namespace chainrule::check {

// Appends a row "float32" for the sample's values, and one for the gradient in each input. An element may be off by
// some ULPs of float32, and by what a change of its inputs by half a ULP does to it; it is 1 ULP that a row counts in
// either.
void check_float32_values(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                          std::vector<CheckRow>& rows);
void check_float32_gradients(const Op& op, const Sample& sample, std::string_view subject, const CheckOptions& options,
                             std::vector<CheckRow>& rows);

}  // namespace chainrule::check
