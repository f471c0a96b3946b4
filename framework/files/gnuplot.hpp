// The program gnuplot, run. Not installed.
#pragma once

#include <string>

#include <chainrule/framework/core/error.hpp>

namespace chainrule::detail {

// What gnuplot prints to its standard output for a script. Throws Error where it is not found or fails.
std::string run_gnuplot(const std::string& script, Location at);

// A text as gnuplot reads it.
std::string gnuplot_quoted(const std::string& text);

}  // namespace chainrule::detail
