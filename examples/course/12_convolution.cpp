// Exercise 12: a convolution and a pooling, forward and backward, by hand (by_hand.hpp) beside the library's.
//
// The library has the channels second, so ours begins and ends with a transpose; and it has no backward half.
#include "course.hpp"

#include "by_hand.hpp"

namespace {

namespace ours {

cr::Value conv(cr::Value a_prev, cr::Value weights, cr::Value b, std::int64_t s, std::int64_t pad) {
  const auto x = cr::transpose(a_prev, {0, 3, 1, 2});
  const auto z = cr::conv(x, cr::transpose(weights, {3, 2, 0, 1}), {.stride = s, .padding = pad});
  return cr::transpose(z, {0, 2, 3, 1}) + b;
}

cr::Value pool(cr::Value a_prev, std::int64_t f, std::int64_t s, bool max) {
  const auto x = cr::transpose(a_prev, {0, 3, 1, 2});
  const auto a = max ? cr::max_pool(x, f, {.stride = s}) : cr::avg_pool(x, f, {.stride = s});
  return cr::transpose(a, {0, 2, 3, 1});
}

}  // namespace ours

void convolution() {
  course::heading("A convolution of stride 2 with 2 zeros around");
  cr::numpy::RandomState rng(1);
  const auto a_numbers = rng.randn(10, 4, 4, 3);
  const auto w_numbers = rng.randn(2, 2, 3, 8);
  const auto b_numbers = rng.randn(1, 1, 1, 8);
  const auto z = by_hand::conv_forward(a_numbers, w_numbers, b_numbers, 2, 2);
  const auto d = by_hand::conv_backward(z, a_numbers, w_numbers, 2, 2);  // the course takes Z for dZ

  cr::Graph graph;
  const auto a_prev = graph.input("A_prev", {10, 4, 4, 3});
  const auto w = graph.input("W", {2, 2, 3, 8});
  const auto b = graph.input("b", {1, 1, 1, 8});
  const auto our_z = ours::conv(a_prev, w, b, 2, 2);
  const auto gradients = cr::gradients(our_z, {a_prev, w, b}, our_z);
  cr::State state(graph);
  cr::Program program(state, {.outputs = {our_z, gradients[0], gradients[1], gradients[2]}});
  const auto r = program.run({{a_prev, a_numbers}, {w, w_numbers}, {b, b_numbers}});
  course::beside("", "by hand", "ours");
  course::beside_mean("Z", z.numbers, r[0]);
  course::beside_part("Z", {3, 2, 1}, z.numbers, r[0]);
  course::beside_mean("dA", d[0].numbers, r[1]);
  course::beside_mean("dW", d[1].numbers, r[2]);
  course::beside_mean("db", d[2].numbers, r[3]);
}

// The pooled x and, of a gradient with respect to that, the one with respect to x.
std::pair<cr::Array, cr::Array> our_pooling(const cr::Array& x, const cr::Array& da, std::int64_t f, std::int64_t s,
                                            bool max) {
  cr::Graph graph;
  const auto a_prev = graph.input("A_prev", cr::to_shape(x.shape()));
  const auto a = ours::pool(a_prev, f, s, max);
  const auto da_of_run = graph.input("dA", a.shape());
  const auto da_prev = cr::gradients(a, {a_prev}, da_of_run)[0];
  cr::State state(graph);
  cr::Program program(state, {.outputs = {a, da_prev}});
  const auto results = program.run({{a_prev, x}, {da_of_run, da}});
  return {results[0], results[1]};
}

void pooling(const char* title, bool max) {
  course::heading(title);
  course::beside("", "by hand", "ours");
  const auto large = cr::numpy::RandomState(1).randn(2, 4, 4, 3);
  const auto a = by_hand::pool_forward(large, 3, 2, max);
  const auto our_a = our_pooling(large, a.numbers, 3, 2, max).first;
  for (const std::int64_t i : {0, 1}) course::beside_part("A", {i, 0, 0}, a.numbers, our_a);

  cr::numpy::RandomState rng(1);
  const auto a_prev = rng.randn(5, 5, 3, 2);
  const auto da = rng.randn(5, 4, 2, 2);
  const auto da_prev = by_hand::pool_backward(da, a_prev, 2, 1, max);
  const auto our_da_prev = our_pooling(a_prev, da, 2, 1, max).second;
  course::beside_part("dA_prev", {1, 1}, da_prev.numbers, our_da_prev);
}

void exercise(const course::Options& /*options*/) {
  convolution();
  pooling("Max pooling", true);
  pooling("Average pooling", false);
}

}  // namespace

int main(int argc, char** argv) {
  return course::run(argc, argv, "A convolution and pooling by hand, in the course's test cases, and by the library.",
                     exercise);
}
