// RNN, LSTM and attention, forward and backward, by hand: the course's NumPy code with its names and its layout, where
// x (n_x, m, T_x) has one example a column and one step a slice. Attention has one place a row.
#pragma once

#include <chainrule/chainrule.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace by_hand {

namespace cr = chainrule;
using Array = cr::Array;
using Dict = std::map<std::string, Array>;  // parameters["Wax"]

// ---- what NumPy has

template <class F>
Array each(Array x, const F& f) {
  for (std::int64_t i = 0; i < x.size(); ++i) x.set(i, f(x[i]));
  return x;
}
inline Array tanh(const Array& x) {
  return each(x, [](double z) { return std::tanh(z); });
}
inline Array sigmoid(const Array& x) {
  return each(x, [](double z) { return 1 / (1 + std::exp(-z)); });
}

inline Array dot(const Array& a, const Array& b) {
  Array out(cr::float64, {a.shape()[0], b.shape()[1]});
  for (std::int64_t i = 0; i < a.shape()[0]; ++i)
    for (std::int64_t j = 0; j < b.shape()[1]; ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < a.shape()[1]; ++k) sum += a(i, k) * b(k, j);
      out.set(i * b.shape()[1] + j, sum);
    }
  return out;
}

// np.sum(x, axis=1, keepdims=True)
inline Array sum_of_rows(const Array& x) { return dot(x, Array::full(cr::float64, {x.shape()[1], 1}, 1.0)); }

// Of each row; of columns: softmax(x.transpose()).transpose().
inline Array softmax(const Array& x) {
  double greatest = -std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < x.size(); ++i) greatest = std::max(greatest, x[i]);
  const Array e = each(x, [&](double z) { return std::exp(z - greatest); });
  return e / sum_of_rows(e);
}

// x[first:last] of a matrix, and np.concatenate((a, b)).
inline Array rows(const Array& x, std::int64_t first, std::int64_t last) {
  return Array::from(x.data<double>() + first * x.shape()[1], {last - first, x.shape()[1]});
}
inline Array concatenate(const Array& a, const Array& b) {
  Array out(cr::float64, {a.shape()[0] + b.shape()[0], a.shape()[1]});
  std::copy_n(b.data<double>(), b.size(), std::copy_n(a.data<double>(), a.size(), out.data<double>()));
  return out;
}

// x[:, :, t], and the array that has these slices.
inline Array step(const Array& x, std::int64_t t) {
  Array out(cr::float64, {x.shape()[0], x.shape()[1]});
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, x[i * x.shape()[2] + t]);
  return out;
}
inline Array stack(const std::vector<Array>& steps) {
  const auto n = static_cast<std::int64_t>(steps.size());
  Array out(cr::float64, {steps[0].shape()[0], steps[0].shape()[1], n});
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, steps[static_cast<std::size_t>(i % n)][i / n]);
  return out;
}

// ---- RNN

inline Array predict(const Array& a, const Array& weights, const Array& b) {
  return softmax((dot(weights, a) + b).transpose()).transpose();
}

inline Array rnn_cell_forward(const Array& xt, const Array& a_prev, Dict& p) {
  return tanh(dot(p["Waa"], a_prev) + dot(p["Wax"], xt) + p["ba"]);
}

// Adds to the gradients of the parameters; returns that of a_prev, and sets that of xt.
inline Array rnn_cell_backward(const Array& da_next, const Array& a_next, const Array& a_prev, const Array& xt, Dict& p,
                               Dict& d, Array& dxt) {
  const Array dtanh = (1.0 - a_next * a_next) * da_next;
  d["Wax"] = d["Wax"] + dot(dtanh, xt.transpose());
  d["Waa"] = d["Waa"] + dot(dtanh, a_prev.transpose());
  d["ba"] = d["ba"] + sum_of_rows(dtanh);
  dxt = dot(p["Wax"].transpose(), dtanh);
  return dot(p["Waa"].transpose(), dtanh);
}

// ---- LSTM

struct LstmCell {
  Array z, f, i, cct, o;  // [a_prev, xt] and the gates of it
  Array a, c;
};

inline LstmCell lstm_cell_forward(const Array& xt, const Array& a_prev, const Array& c_prev, Dict& p) {
  LstmCell s;
  s.z = concatenate(a_prev, xt);
  s.f = sigmoid(dot(p["Wf"], s.z) + p["bf"]);
  s.i = sigmoid(dot(p["Wi"], s.z) + p["bi"]);
  s.cct = tanh(dot(p["Wc"], s.z) + p["bc"]);
  s.o = sigmoid(dot(p["Wo"], s.z) + p["bo"]);
  s.c = s.f * c_prev + s.i * s.cct;
  s.a = s.o * tanh(s.c);
  return s;
}

// The same, with that of c_prev in the place of that of c_next.
inline Array lstm_cell_backward(const Array& da_next, Array& dc, const Array& c_prev, const LstmCell& s, Dict& p,
                                Dict& d, Array& dxt) {
  const Array tanh_c = tanh(s.c);
  dc = dc + da_next * s.o * (1.0 - tanh_c * tanh_c);
  const Dict gates{{"f", dc * c_prev * s.f * (1.0 - s.f)},
                   {"i", dc * s.cct * s.i * (1.0 - s.i)},
                   {"c", dc * s.i * (1.0 - s.cct * s.cct)},
                   {"o", da_next * tanh_c * s.o * (1.0 - s.o)}};
  Array dz(cr::float64, s.z.shape());
  for (const auto& [gate, dgate] : gates) {
    d["W" + gate] = d["W" + gate] + dot(dgate, s.z.transpose());
    d["b" + gate] = d["b" + gate] + sum_of_rows(dgate);
    dz = dz + dot(p["W" + gate].transpose(), dgate);
  }
  dc = dc * s.f;
  const std::int64_t n_a = da_next.shape()[0];
  dxt = rows(dz, n_a, dz.shape()[0]);
  return rows(dz, 0, n_a);
}

// ---- attention

struct Attention {
  Array weights, out;
};

inline Attention attention_forward(const Array& q, const Array& k, const Array& v, bool causal) {
  Array scores = dot(q, k.transpose()) / std::sqrt(static_cast<double>(q.shape()[1]));
  for (std::int64_t i = 0; causal && i < scores.shape()[0]; ++i)
    for (std::int64_t j = i + 1; j < scores.shape()[1]; ++j)
      scores.set(i * scores.shape()[1] + j, -std::numeric_limits<double>::infinity());
  const Array weights = softmax(scores);
  return {weights, dot(weights, v)};
}

// dQ, dK and dV.
inline std::vector<Array> attention_backward(const Array& dout, const Array& q, const Array& k, const Array& v,
                                             const Array& weights) {
  const Array dweights = dot(dout, v.transpose());
  const Array dscores = weights * (dweights - sum_of_rows(dweights * weights));
  const double scale = 1 / std::sqrt(static_cast<double>(q.shape()[1]));
  return {scale * dot(dscores, k), scale * dot(dscores.transpose(), q), dot(weights.transpose(), dout)};
}

}  // namespace by_hand
