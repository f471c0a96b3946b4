// kernel(): a kernel from a functor over typed arrays.
#pragma once

#include <cstddef>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <chainrule/framework/graph/op.hpp>

namespace chainrule {

namespace detail {

template <class M>
struct MemberFunction;
template <class R, class C, class... A>
struct MemberFunction<R (C::*)(A...) const> {
  using Parameters = std::tuple<A...>;
};
template <class R, class C, class... A>
struct MemberFunction<R (C::*)(A...)> : MemberFunction<R (C::*)(A...) const> {};
template <class R, class C, class... A>
struct MemberFunction<R (C::*)(A...) const noexcept> : MemberFunction<R (C::*)(A...) const> {};
template <class R, class C, class... A>
struct MemberFunction<R (C::*)(A...) noexcept> : MemberFunction<R (C::*)(A...) const> {};

// What a parameter of a kernel's functor stands for.
enum class KernelRole : std::uint8_t { input, inputs, output, attributes };
template <class A>
struct KernelParameter {
  static_assert(!std::is_same_v<A, A>,
                "a kernel's functor takes Tensor<const E> for an input, Tensor<E> for an output, with E one of its T, "
                "float, double, std::int64_t, std::int32_t, std::uint8_t and bool; const std::vector<Tensor<const T>>& "
                "for all inputs; and const "
                "Attributes&");
};
template <class E>
struct KernelParameter<Tensor<const E>> {
  static constexpr KernelRole role = KernelRole::input;
  using Element = E;
};
template <class E>
struct KernelParameter<Tensor<E>> {
  static constexpr KernelRole role = KernelRole::output;
  using Element = E;
};
template <class E>
struct KernelParameter<std::vector<Tensor<const E>>> {
  static constexpr KernelRole role = KernelRole::inputs;
  using Element = E;
};
template <>
struct KernelParameter<Attributes> {
  static constexpr KernelRole role = KernelRole::attributes;
  using Element = void;
};
template <class A>
using KernelParameterOf = KernelParameter<std::remove_cvref_t<A>>;

// A functor with the parameters A: where each of them is among the inputs or outputs.
template <class... A>
struct KernelSignature {
  static constexpr std::size_t count(KernelRole role, std::size_t before) {
    constexpr KernelRole roles[] = {KernelParameterOf<A>::role...};
    std::size_t out = 0;
    for (std::size_t i = 0; i < before; ++i) out += roles[i] == role ? 1 : 0;
    return out;
  }

  // A float and a double functor's operands; those that differ are of the functor's T.
  template <class... B>
  static Forward::Operands operands(std::tuple<B...>*) {
    static_assert(count(KernelRole::output, sizeof...(A)) > 0, "a kernel's functor takes an output, a Tensor<E>");
    static_assert(count(KernelRole::inputs, sizeof...(A)) == 0 || count(KernelRole::input, sizeof...(A)) == 0,
                  "a kernel's functor takes its inputs one by one or all in a vector");
    Forward::Operands out;
    const auto add = [&]<class One, class Other>(One*, Other*) {
      using E = typename One::Element;
      std::optional<DType> dtype;
      if constexpr (!std::is_void_v<E> && std::is_same_v<E, typename Other::Element>) dtype = element_dtype<E>();
      switch (One::role) {
        case KernelRole::input: out.inputs.push_back(dtype); break;
        case KernelRole::output: out.outputs.push_back(dtype); break;
        case KernelRole::inputs:
          out.inputs.push_back(dtype);
          out.any_inputs = true;
          break;
        case KernelRole::attributes: break;
      }
    };
    (add(static_cast<KernelParameterOf<A>*>(nullptr), static_cast<KernelParameterOf<B>*>(nullptr)), ...);
    return out;
  }

  // The functor ready for operands of these shapes.
  template <class F>
  class Run {
   public:
    Run(const F& functor, const KernelCall& call) : functor_(functor), attributes_(call.attributes) {
      for (const TensorType& input : call.inputs) inputs_.push_back(input.shape);
      for (const TensorType& output : call.outputs) outputs_.push_back(output.shape);
      (make_list<KernelParameterOf<A>>(), ...);
    }
    void operator()(const KernelBuffers& buffers) { call(buffers, std::index_sequence_for<A...>()); }

   private:
    template <class P>
    void make_list() {
      if constexpr (P::role == KernelRole::inputs) {
        auto& list = std::get<std::vector<Tensor<const typename P::Element>>>(lists_);
        for (const Dims& shape : inputs_) list.push_back({nullptr, shape});
      }
    }
    template <std::size_t... I>
    void call(const KernelBuffers& buffers, std::index_sequence<I...>) {
      functor_(operand<KernelParameterOf<A>, I>(buffers)...);
    }
    template <class P, std::size_t I>
    decltype(auto) operand(const KernelBuffers& buffers) {
      using E = typename P::Element;
      constexpr std::size_t place = count(P::role, I);
      if constexpr (P::role == KernelRole::input) {
        return Tensor<const E>{static_cast<const E*>(buffers.inputs[place]), inputs_[place]};
      } else if constexpr (P::role == KernelRole::output) {
        return Tensor<E>{static_cast<E*>(buffers.outputs[place]), outputs_[place]};
      } else if constexpr (P::role == KernelRole::inputs) {
        auto& list = std::get<std::vector<Tensor<const E>>>(lists_);
        for (std::size_t i = 0; i < list.size(); ++i) list[i].data = static_cast<const E*>(buffers.inputs[i]);
        return std::as_const(list);
      } else {
        return std::as_const(attributes_);
      }
    }

    F functor_;
    Attributes attributes_;
    std::vector<Dims> inputs_;
    std::vector<Dims> outputs_;
    std::tuple<std::vector<Tensor<const float>>, std::vector<Tensor<const double>>,
               std::vector<Tensor<const std::int64_t>>, std::vector<Tensor<const std::int32_t>>,
               std::vector<Tensor<const std::uint8_t>>, std::vector<Tensor<const bool>>>
        lists_;  // of a functor that takes all inputs in one
  };
};
template <class... A>
KernelSignature<A...> signature_of(std::tuple<A...>*);

}  // namespace detail

// A kernel from a functor over typed arrays, one parameter for each input, then one for each output, and where it wants
// them the attributes. A functor with a T is compiled for float and double; apply() throws Error for a node whose
// operands have other dtypes than the parameters.
//
//   kernel([]<class T>(Tensor<const T> x, Tensor<const std::int64_t> rows, Tensor<T> y, Tensor<std::int64_t> counts,
//                      const Attributes& attributes) { ... })
//
// Of an op that may have any number of inputs, all of T:
//
//   kernel([]<class T>(const std::vector<Tensor<const T>>& x, Tensor<T> y, const Attributes&) { ... })
//
// (That is also what a functor of `auto` parameters is called with.) Large work may be shared out among the library's
// threads by parallel_for().
template <class F>
Forward kernel(F functor) {
  Forward forward;
  if constexpr (requires { &F::template operator()<float>; }) {
    using OfFloat = typename detail::MemberFunction<decltype(&F::template operator()<float>)>::Parameters;
    using OfDouble = typename detail::MemberFunction<decltype(&F::template operator()<double>)>::Parameters;
    using ForFloat = decltype(detail::signature_of(static_cast<OfFloat*>(nullptr)));
    using ForDouble = decltype(detail::signature_of(static_cast<OfDouble*>(nullptr)));
    const Forward::Operands operands = ForFloat::operands(static_cast<OfDouble*>(nullptr));
    if (operands.any_inputs && operands.outputs.size() == 1 && !operands.inputs[0] && !operands.outputs[0]) {
      forward.dtypes = Forward::Dtypes::one_floating;  // which says the same
    } else {
      forward.operands = operands;
    }
    forward.kernel = [functor, operands](KernelCall& call) -> KernelRun {
      if (operands.floating(call) == float32) return typename ForFloat::template Run<F>(functor, call);
      return typename ForDouble::template Run<F>(functor, call);
    };
  } else if constexpr (requires { &F::operator(); }) {
    using Parameters = typename detail::MemberFunction<decltype(&F::operator())>::Parameters;
    using Signature = decltype(detail::signature_of(static_cast<Parameters*>(nullptr)));
    forward.operands = Signature::operands(static_cast<Parameters*>(nullptr));
    forward.kernel = [functor](KernelCall& call) -> KernelRun {
      return typename Signature::template Run<F>(functor, call);
    };
  } else {
    forward.dtypes = Forward::Dtypes::one_floating;
    forward.kernel = [functor](KernelCall& call) -> KernelRun {
      return visit_floating(call.output.dtype, [&]<class T>(T) -> KernelRun {
        using Signature = detail::KernelSignature<const std::vector<Tensor<const T>>&, Tensor<T>, const Attributes&>;
        return typename Signature::template Run<F>(functor, call);
      });
    };
  }
  return forward;
}

}  // namespace chainrule
