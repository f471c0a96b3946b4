// Eigen's dense matrices, vectors, arrays, maps, blocks and expressions as arrays: to be included, by a program that
// has Eigen, beside <chainrule/chainrule.hpp>.
//
//   Eigen::MatrixXd x = ...;                       // column-major: an input of shape {rows, columns} gets a copy
//   Eigen::MatrixXd y = program.run({{input, x}})[0];
//
// A matrix has the shape {rows, columns}; what is a vector by its type, row or column, has {size}. Row-major matrices
// and vectors are fed without a copy; so are named maps and blocks where they are one row-major block in memory. Sparse
// and triangular ones are no arrays: make them dense first.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>

#include <Eigen/Core>

#include <chainrule/framework/core/array_traits.hpp>

namespace chainrule {

template <class T>
requires std::derived_from<T, Eigen::DenseBase<T>>
struct ArrayTraits<T> {
 private:
  static constexpr bool is_vector = T::IsVectorAtCompileTime;
  static constexpr bool is_container = std::derived_from<T, Eigen::PlainObjectBase<T>>;
  static constexpr bool lies_in_memory = (int{T::Flags} & Eigen::DirectAccessBit) != 0;

 public:
  using Element = typename T::Scalar;
  static constexpr bool owning = is_container && (T::IsRowMajor || is_vector);

  static Dims shape(const T& from) {
    if constexpr (is_vector) {
      return {from.size()};
    } else {
      return {from.rows(), from.cols()};
    }
  }

  template <class Dense, class F>
  static void each(Dense& from, F f) {
    if constexpr (!lies_in_memory) {
      const typename T::PlainObject evaluated(from);
      ArrayTraits<typename T::PlainObject>::each(evaluated, f);
    } else {
      for (Eigen::Index i = 0; i < from.rows(); ++i) {
        for (Eigen::Index j = 0; j < from.cols(); ++j) {
          if constexpr (std::is_const_v<Dense>) {
            f(from.coeff(i, j));
          } else {
            f(from.coeffRef(i, j));
          }
        }
      }
    }
  }

  static const Element* block(const T& from) requires(lies_in_memory && (owning || !is_container)) {
    const Eigen::Index row_stride = T::IsRowMajor ? from.outerStride() : from.innerStride();
    const Eigen::Index column_stride = T::IsRowMajor ? from.innerStride() : from.outerStride();
    const bool dense = (from.cols() <= 1 || column_stride == 1) && (from.rows() <= 1 || row_stride == from.cols());
    return dense ? from.data() : nullptr;
  }

  static T make(const Dims& shape) requires is_container {
    T out;
    if constexpr (is_vector) {
      constexpr Eigen::Index size = T::SizeAtCompileTime;
      constexpr Eigen::Index most = T::MaxSizeAtCompileTime;
      if (shape.rank() == 1 && fits(shape[0], size, most)) out.resize(shape[0]);
    } else if (shape.rank() == 2 && fits(shape[0], T::RowsAtCompileTime, T::MaxRowsAtCompileTime) &&
               fits(shape[1], T::ColsAtCompileTime, T::MaxColsAtCompileTime)) {
      out.resize(shape[0], shape[1]);
    }
    return out;
  }

 private:
  static bool fits(std::int64_t extent, Eigen::Index fixed, Eigen::Index most) {
    return fixed == Eigen::Dynamic ? most == Eigen::Dynamic || extent <= most : extent == fixed;
  }
};

}  // namespace chainrule
