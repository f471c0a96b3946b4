// Who fills the tables of an instruction set: a file for each of these functions. Not installed.
//
// The files of this folder are compiled once for each instruction set, with CHAINRULE_ARCH naming it. All that they
// have lies in a namespace of that name, and but for these functions in an unnamed one in there, in headers, too: so no
// inline function compiled for a newer machine can stand in for one that an older machine calls.
#pragma once

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

template <class T>
void fill_micro_operations(VectorTable<T>& table);
template <class T>
void fill_reductions(VectorTable<T>& table);
template <class T>
void fill_argmax(VectorTable<T>& table);
template <class T>
void fill_softmax(VectorTable<T>& table);
template <class T>
void fill_statistics(VectorTable<T>& table);
template <class T>
void fill_transposes(VectorTable<T>& table);
template <class T>
void fill_dots(VectorTable<T>& table);
template <class T>
void fill_random_masks(VectorTable<T>& table);
template <class T>
void fill_windows(VectorTable<T>& table);

}  // namespace chainrule::kernels::CHAINRULE_ARCH
