// Eigen's matrices at the API's edge.
#include <cstdint>
#include <type_traits>
#include <vector>

#include <Eigen/Core>

#include <chainrule/chainrule.hpp>
#include <chainrule/framework/core/eigen.hpp>

#include "catch.hpp"

using Catch::Matchers::ContainsSubstring;
using namespace chainrule;

namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Strided = Eigen::Map<const Eigen::VectorXd, 0, Eigen::InnerStride<2>>;

// As a run reads it from a feed.
Array fed(const Feed& feed) {
  Graph graph;
  Shape shape;
  for (std::size_t axis = 0; axis < feed.shape().rank(); ++axis)
    shape.push_back(graph.dimension("d" + std::to_string(axis)));
  const auto x = graph.input("x", shape);
  State state(graph);
  return Program(state, {.outputs = {reshape(x, shape)}}).run({feed})[0];
}

// What went wrong with an expression, named and as a temporary, converted and fed.
template <class Make>
std::string wrong(Make make, const Array& right) {
  auto e = make();
  const auto& constant = e;
  const auto same = [&](const Array& got) { return got.shape() == right.shape() && allclose(got, right, 0, 0); };
  std::string out;
  if (!same(Array(e)) || !same(Array(constant))) out += " named";
  if (!same(Array(make()))) out += " temporary";
  if (!same(fed(Feed("x", e))) || !same(fed(Feed("x", constant)))) out += " fed, named";
  if (!same(fed(Feed("x", make())))) out += " fed, temporary";
  return out;
}

struct Matrices {
  Matrices() {
    m << 1, 2, 3, 4, 5, 6;
    r = m;
  }
  Eigen::MatrixXd m{2, 3};
  RowMajor r;
  const Array rows{{1.0, 2.0, 3.0}, {4.0, 5.0, 6.0}};
};

}  // namespace

// What is not dense is no array, as little as Eigen's types without the header are.
static_assert(std::is_convertible_v<Eigen::MatrixXd, Array> && std::is_convertible_v<Array, Eigen::MatrixXd>);
static_assert(!std::is_convertible_v<Eigen::DiagonalMatrix<double, 3>, Array>);

#define SHOWS(right, ...) CHECK(wrong([&]() -> decltype(auto) { return __VA_ARGS__; }, right) == "")

TEST_CASE_METHOD(Matrices, "Eigen's matrices, maps, blocks and expressions are what they show") {
  SHOWS(rows, Eigen::MatrixXd(m));
  SHOWS(rows, RowMajor(m));
  SHOWS(rows, Eigen::Matrix<double, 2, 3>(m));
  SHOWS(rows, Eigen::Matrix<float, 2, 3, Eigen::RowMajor>(m.cast<float>()));
  SHOWS(rows, Eigen::MatrixXi(m.cast<int>()));
  SHOWS(rows, Eigen::ArrayXXd(m.array()));
  SHOWS(rows, Eigen::Map<Eigen::MatrixXd>(m.data(), 2, 3));
  SHOWS(rows, Eigen::Map<const RowMajor>(r.data(), 2, 3));
  SHOWS(rows, Eigen::Ref<const Eigen::MatrixXd>(m));
  SHOWS(rows * 2.0, 2 * m);
  SHOWS(rows.transpose(), m.transpose());
  SHOWS(rows.transpose(), r.transpose());
  SHOWS(Array({{14.0, 32.0}, {32.0, 77.0}}), m * m.transpose());
  SHOWS(Array({{2.0, 3.0}, {5.0, 6.0}}), m.block(0, 1, 2, 2));
  SHOWS(Array({{2.0, 3.0}, {5.0, 6.0}}), r.rightCols(2));
  SHOWS(Array({{4.0, 5.0, 6.0}}), r.bottomRows(1));
  SHOWS(Array({{0.0, 0.0, 1.0}, {1.0, 1.0, 1.0}}), m.array() > 2);
  SHOWS(Array({4.0, 5.0, 6.0}), m.row(1));
  SHOWS(Array({4.0, 5.0, 6.0}), r.row(1));
  SHOWS(Array({2.0, 5.0}), m.col(1));
  SHOWS(Array({2.0, 5.0}), r.col(1));
  SHOWS(Array({1.0, 5.0}), m.diagonal());
  SHOWS(Array({5.0, 7.0, 9.0}), m.colwise().sum());
  SHOWS(Array({1.0, 4.0, 2.0, 5.0, 3.0, 6.0}), Eigen::Map<const Eigen::VectorXd>(m.data(), 6));
  SHOWS(Array({1.0, 2.0, 3.0}), Strided(m.data(), 3));
  SHOWS(Array({1.0, 2.0}), Eigen::Vector2d(1, 2));
  SHOWS(Array({1.0, 2.0}), Eigen::RowVector2d(1, 2));
}

TEST_CASE_METHOD(Matrices, "Eigen's row-major blocks are read in place") {
  const Eigen::VectorXd v = Eigen::VectorXd::LinSpaced(4, 1, 4);
  CHECK(Feed("x", r).data() == r.data());
  CHECK(Feed("x", v).data() == v.data());
  CHECK(Feed("x", m).data() != m.data());
  const auto row = r.row(1);
  CHECK(Feed("x", row).data() == r.data() + 3);
  const auto column = m.col(1);
  CHECK(Feed("x", column).data() == m.data() + 2);
  const auto last = r.bottomRows(1);
  CHECK(Feed("x", last).data() == r.data() + 3);
  const auto corner = r.rightCols(2);
  CHECK(Feed("x", corner).data() != r.data() + 1);
  // A named one is read when it runs, also where it was given another size.
  const Feed feed("x", r);
  r = RowMajor::Constant(1, 2, 7);
  CHECK(fed(feed).identical(Array({{7.0, 7.0}})));
}

TEST_CASE_METHOD(Matrices, "arrays become Eigen's matrices") {
  const Eigen::MatrixXd columns = rows;
  CHECK(columns == m);
  const RowMajor back = rows;
  CHECK(back == m);
  const Eigen::Matrix<float, 2, 3> fixed = rows;
  CHECK(fixed == m.cast<float>());
  const Eigen::VectorXd v = Array({1.0, 2.0});
  CHECK(v == Eigen::Vector2d(1, 2));
  Eigen::MatrixXd assigned;
  assigned = rows.transpose();
  CHECK(assigned == m.transpose());
  Eigen::MatrixXd whole = Eigen::MatrixXd::Zero(3, 3);
  rows.copy_to(whole.topRows(2));
  CHECK(whole.topRows(2) == m);
  CHECK(whole.sum() == 21);
  const auto convert = [](const Array& from, auto to) { to = from; };
  CHECK_THROWS_WITH(convert(rows, Eigen::VectorXd()), ContainsSubstring("a container that can have shape {2, 3}"));
  CHECK_THROWS_AS(convert(rows, Eigen::Matrix3d()), Error);
  CHECK_THROWS_AS(convert(Array(1.0), Eigen::MatrixXd()), Error);
  CHECK_THROWS_AS(rows.copy_to(whole), Error);
}

TEST_CASE("matrices of bytes and of int") {
  using Bytes = Eigen::Matrix<std::uint8_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Bytes bytes(2, 2);
  bytes << 1, 2, 3, 255;
  Eigen::VectorXi words(2);
  words << 7, -8;
  CHECK(Array(bytes).dtype() == uint8);
  CHECK(Array(words).dtype() == int64);
  Graph graph;
  const auto b = graph.input("b", {2, 2}, uint8);
  const auto n = graph.input("n", {2}, int32);
  State state(graph);
  Program program(state, {.outputs = {b, n}});
  CHECK(Feed(b, bytes).data() == bytes.data());
  CHECK(Feed(n, words).data() == words.data());
  const Results results = program.run({{b, bytes}, {n, words}});
  CHECK(Bytes(results[0]) == bytes);
  CHECK(Eigen::VectorXi(results[1]) == words);
}
