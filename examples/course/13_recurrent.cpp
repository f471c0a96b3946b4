// Exercise 13: an RNN, an LSTM and attention, forward and backward, by hand (by_hand_sequences.hpp) beside the
// library's.
//
// The library has one example a row, {examples, places, features}, so ours begins and ends with a transpose; and it has
// no backward half.
#include "course.hpp"

#include <map>

#include "by_hand_sequences.hpp"

namespace {

using by_hand::Dict;

// ---- ours

namespace ours {

using Weights = std::map<std::string, cr::Value>;

Weights inputs(cr::Graph graph, const Dict& numbers) {
  Weights out;
  for (const auto& [name, array] : numbers) out[name] = graph.input(name, cr::to_shape(array.shape()));
  return out;
}

cr::Value flat(cr::Value b) { return cr::reshape(b, {b.shape()[0]}); }

cr::RecurrentWeights rnn_weights(const Weights& p) {
  return {.input = cr::transpose(p.at("Wax")), .hidden = cr::transpose(p.at("Waa")), .bias = flat(p.at("ba"))};
}

// The library's gates are i f g o, side by side, and have weights of their own for what is put in and for the state.
cr::RecurrentWeights lstm_weights(const Weights& p, std::int64_t n_a) {
  cr::Values hidden;
  cr::Values input;
  cr::Values bias;
  for (const char* const gate : {"i", "f", "c", "o"}) {
    const auto weight = cr::transpose(p.at(std::string("W") + gate));
    hidden.push_back(cr::slice(weight, 0, cr::range(0, n_a)));
    input.push_back(cr::slice(weight, 0, cr::range(n_a)));
    bias.push_back(flat(p.at(std::string("b") + gate)));
  }
  return {.input = cr::concat(input, 1), .hidden = cr::concat(hidden, 1), .bias = cr::concat(bias, 0)};
}

// a {..., units} -> what it says of each class, in the course's layout.
cr::Value predict(cr::Value a, cr::Value weights, cr::Value b) {
  return cr::softmax(cr::matmul(a, cr::transpose(weights)) + flat(b), -1);
}

cr::Value by_example(cr::Value x) { return cr::transpose(x, {1, 2, 0}); }
cr::Value by_feature(cr::Value a) { return cr::transpose(a, {2, 0, 1}); }

}  // namespace ours

// Draws in the course's order: {"xt", 3, 10}, ...
struct Draw {
  std::string name;
  cr::Dims shape;
};
Dict draws(const std::vector<Draw>& all) {
  cr::numpy::RandomState rng(1);
  Dict out;
  for (const auto& [name, shape] : all) out[name] = rng.standard_normal(shape);
  return out;
}

// The outputs of a program without a State of its own, whose inputs all have numbers.
std::vector<cr::Array> run(cr::Graph graph, const ours::Weights& inputs, const Dict& numbers,
                           const cr::Values& outputs) {
  cr::State state(graph);
  cr::Program program(state, {.outputs = outputs});
  std::vector<cr::Feed> feeds;
  for (const auto& [name, value] : inputs) feeds.emplace_back(value, numbers.at(name));
  const auto results = program.run(feeds);
  std::vector<cr::Array> out;
  for (std::size_t i = 0; i < results.size(); ++i) out.push_back(results[i]);
  return out;
}

std::vector<Draw> rnn_draws(const std::vector<Draw>& first, const std::vector<Draw>& last = {}) {
  std::vector<Draw> out = first;
  for (const Draw& draw :
       {Draw{"Waa", {5, 5}}, Draw{"Wax", {5, 3}}, Draw{"Wya", {2, 5}}, Draw{"ba", {5, 1}}, Draw{"by", {2, 1}}})
    out.push_back(draw);
  out.insert(out.end(), last.begin(), last.end());
  return out;
}

std::vector<Draw> lstm_draws(const std::vector<Draw>& first, const std::vector<Draw>& last = {}) {
  std::vector<Draw> out = first;
  for (const std::string gate : {"f", "i", "o", "c"}) {
    out.push_back({"W" + gate, {5, 8}});
    out.push_back({"b" + gate, {5, 1}});
  }
  out.push_back({"Wy", {2, 5}});
  out.push_back({"by", {2, 1}});
  out.insert(out.end(), last.begin(), last.end());
  return out;
}

void rnn_step() {
  course::heading("A step of an RNN");
  Dict n = draws(rnn_draws({{"xt", {3, 10}}, {"a_prev", {5, 10}}}));
  const auto a_next = by_hand::rnn_cell_forward(n["xt"], n["a_prev"], n);

  cr::Graph graph;
  auto in = ours::inputs(graph, n);
  const auto a = cr::rnn_cell(cr::transpose(in["xt"]), cr::transpose(in["a_prev"]), ours::rnn_weights(in));
  const auto y = ours::predict(a, in["Wya"], in["by"]);
  const auto r = run(graph, in, n, {cr::transpose(a), cr::transpose(y)});
  course::beside("", "by hand", "ours");
  course::beside_part("a_next", {4}, a_next, r[0]);
  course::beside_part("yt", {1}, by_hand::predict(a_next, n["Wya"], n["by"]), r[1]);
}

void rnn() {
  course::heading("An RNN over 4 steps");
  constexpr std::int64_t steps = 4;
  Dict n = draws(rnn_draws({{"x", {3, 10, steps}}, {"a0", {5, 10}}}, {{"da", {5, 10, steps}}}));
  std::vector<cr::Array> a{n["a0"]};
  std::vector<cr::Array> y;
  for (std::int64_t t = 0; t < steps; ++t) {
    a.push_back(by_hand::rnn_cell_forward(by_hand::step(n["x"], t), a.back(), n));
    y.push_back(by_hand::predict(a.back(), n["Wya"], n["by"]));
  }
  Dict d;
  for (const char* const name : {"Wax", "Waa", "ba"}) d[name] = cr::Array(cr::float64, n[name].shape());
  std::vector<cr::Array> dx(steps);
  cr::Array da_prev(cr::float64, {5, 10});
  for (std::size_t t = steps; t-- > 0;) {
    const auto step = static_cast<std::int64_t>(t);
    da_prev = by_hand::rnn_cell_backward(by_hand::step(n["da"], step) + da_prev, a[t + 1], a[t],
                                         by_hand::step(n["x"], step), n, d, dx[t]);
  }

  cr::Graph graph;
  auto in = ours::inputs(graph, n);
  const auto out = cr::rnn(ours::by_example(in["x"]), ours::rnn_weights(in), {.hidden = cr::transpose(in["a0"])});
  const auto our_a = ours::by_feature(out);
  const auto g = cr::gradients(our_a, {in["x"], in["a0"], in["Wax"], in["Waa"], in["ba"]}, in["da"]);
  const auto r = run(graph, in, n,
                     {our_a, ours::by_feature(ours::predict(out, in["Wya"], in["by"])), g[0], g[1], g[2], g[3], g[4]});
  course::beside("", "by hand", "ours");
  course::beside_part("a", {4, 1}, by_hand::stack({a.begin() + 1, a.end()}), r[0]);
  course::beside_part("y_pred", {1, 3}, by_hand::stack(y), r[1]);
  course::beside_part("dx", {1, 2}, by_hand::stack(dx), r[2]);
  course::beside_mean("da0", da_prev, r[3]);
  course::beside_part("dWax", {3}, d["Wax"], r[4]);
  course::beside_part("dWaa", {3}, d["Waa"], r[5]);
  course::beside_part("dba", {4}, d["ba"], r[6]);
}

void lstm_step() {
  course::heading("A step of an LSTM");
  Dict n = draws(lstm_draws({{"xt", {3, 10}}, {"a_prev", {5, 10}}, {"c_prev", {5, 10}}}));
  const auto next = by_hand::lstm_cell_forward(n["xt"], n["a_prev"], n["c_prev"], n);

  cr::Graph graph;
  auto in = ours::inputs(graph, n);
  const auto s = cr::lstm_cell(cr::transpose(in["xt"]), {cr::transpose(in["a_prev"]), cr::transpose(in["c_prev"])},
                               ours::lstm_weights(in, 5));
  const auto y = ours::predict(s.hidden, in["Wy"], in["by"]);
  const auto r = run(graph, in, n, {cr::transpose(s.hidden), cr::transpose(s.cell), cr::transpose(y)});
  course::beside("", "by hand", "ours");
  course::beside_part("a_next", {4}, next.a, r[0]);
  course::beside_part("c_next", {2}, next.c, r[1]);
  course::beside_part("yt", {1}, by_hand::predict(next.a, n["Wy"], n["by"]), r[2]);
}

void lstm() {
  course::heading("An LSTM over 7 steps");
  constexpr std::int64_t steps = 7;
  Dict n = draws(lstm_draws({{"x", {3, 10, steps}}, {"a0", {5, 10}}}, {{"da", {5, 10, steps}}}));
  const cr::Array zeros(cr::float64, {5, 10});
  std::vector<by_hand::LstmCell> cells;
  std::vector<cr::Array> a;
  std::vector<cr::Array> y;
  for (std::int64_t t = 0; t < steps; ++t) {
    cells.push_back(by_hand::lstm_cell_forward(by_hand::step(n["x"], t), t == 0 ? n["a0"] : cells.back().a,
                                               t == 0 ? zeros : cells.back().c, n));
    a.push_back(cells.back().a);
    y.push_back(by_hand::predict(a.back(), n["Wy"], n["by"]));
  }
  const std::vector<std::string> parameters{"Wf", "bf", "Wi", "bi", "Wc", "bc", "Wo", "bo"};
  Dict d;
  for (const auto& name : parameters) d[name] = cr::Array(cr::float64, n[name].shape());
  std::vector<cr::Array> dx(steps);
  cr::Array da_prev = zeros;
  cr::Array dc = zeros;
  for (std::size_t t = steps; t-- > 0;)
    da_prev = by_hand::lstm_cell_backward(by_hand::step(n["da"], static_cast<std::int64_t>(t)) + da_prev, dc,
                                          t == 0 ? zeros : cells[t - 1].c, cells[t], n, d, dx[t]);

  cr::Graph graph;
  auto in = ours::inputs(graph, n);
  const auto out = cr::lstm(ours::by_example(in["x"]), ours::lstm_weights(in, 5), {.hidden = cr::transpose(in["a0"])});
  const auto our_a = ours::by_feature(out);
  cr::Values of{in["x"], in["a0"]};
  for (const auto& name : parameters) of.push_back(in[name]);
  cr::Values outputs{our_a, ours::by_feature(ours::predict(out, in["Wy"], in["by"]))};
  for (const auto gradient : cr::gradients(our_a, of, in["da"])) outputs.push_back(gradient);
  const auto r = run(graph, in, n, outputs);
  course::beside("", "by hand", "ours");
  course::beside_part("a", {4, 3}, by_hand::stack(a), r[0]);
  course::beside_part("y", {1, 4}, by_hand::stack(y), r[1]);
  course::beside_part("dx", {1, 2}, by_hand::stack(dx), r[2]);
  course::beside_mean("da0", da_prev, r[3]);
  for (std::size_t p = 0; p < parameters.size(); ++p)
    course::beside_mean("d" + parameters[p], d[parameters[p]], r[4 + p]);
}

void attention() {
  course::heading("Attention of 4 places to those before");
  Dict n = draws({{"Q", {4, 3}}, {"K", {4, 3}}, {"V", {4, 2}}, {"dA", {4, 2}}});
  const auto hand = by_hand::attention_forward(n["Q"], n["K"], n["V"], true);
  const auto d = by_hand::attention_backward(n["dA"], n["Q"], n["K"], n["V"], hand.weights);

  cr::Graph graph;
  auto in = ours::inputs(graph, n);
  const auto a = cr::scaled_dot_product_attention(in["Q"], in["K"], in["V"], {.causal = true});
  const auto g = cr::gradients(a, {in["Q"], in["K"], in["V"]}, in["dA"]);
  const auto r = run(graph, in, n, {a, g[0], g[1], g[2]});
  course::beside("", "by hand", "ours");
  course::beside("A", course::str(hand.out), course::str(r[0]));
  course::beside("dQ", course::str(d[0]), course::str(r[1]));
  course::beside("dK", course::str(d[1]), course::str(r[2]));
  course::beside("dV", course::str(d[2]), course::str(r[3]));
}

void exercise(const course::Options& /*options*/) {
  rnn_step();
  rnn();
  lstm_step();
  lstm();
  attention();
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(
      argc, argv, "An RNN, an LSTM and attention by hand, in the course's test cases, and by the library.", exercise);
}
