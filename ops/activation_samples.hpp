// What activations are tried on: for each of their files, before its ops are registered. Not installed.
#pragma once

#include <limits>

#include <chainrule/framework/graph/op_family.hpp>

namespace chainrule {

namespace {

CHAINRULE_EARLY const Sample matrix{.inputs = {uniform({3, 4}, -4, 4)}};
CHAINRULE_EARLY const Sample steep{.inputs = {uniform({2, 3}, -40, 40)}};
CHAINRULE_EARLY const Sample empty{.inputs = {zeros({0, 2})}};
CHAINRULE_EARLY const Sample edges{
    .inputs = {Array({0.0, -0.0, 1e4, -1e4, 1e300, -1e300, 1e-300, std::numeric_limits<double>::infinity(),
                      -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})},
    .differentiate = false};

}  // namespace

}  // namespace chainrule
