#include <chainrule/framework/kernels/simd/tables.hpp>

namespace chainrule::kernels::CHAINRULE_ARCH {

namespace {

template <class T>
VectorTable<T> make_table() {
  VectorTable<T> table{};
  fill_micro_operations(table);
  fill_reductions(table);
  fill_argmax(table);
  fill_softmax(table);
  fill_statistics(table);
  fill_transposes(table);
  fill_dots(table);
  fill_random_masks(table);
  fill_windows(table);
  return table;
}

#define CHAINRULE_STRING(x) #x
#define CHAINRULE_NAME(x) CHAINRULE_STRING(x)

}  // namespace

const VectorTables& tables() {
  static const VectorTables all{CHAINRULE_NAME(CHAINRULE_ARCH), make_table<float>(), make_table<double>()};
  return all;
}

}  // namespace chainrule::kernels::CHAINRULE_ARCH
