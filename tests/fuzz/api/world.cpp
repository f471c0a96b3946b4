#include "world.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include <unistd.h>

#include <chainrule/framework/graph/graph_data.hpp>

namespace chainrule::fuzz {

namespace {

std::string print(double x) {
  if (std::isnan(x)) return "std::nan(\"\")";
  if (std::isinf(x)) return x > 0 ? "INFINITY" : "-INFINITY";
  const std::string text = fmt::format("{}", x);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string print(DType dtype) {
  return dtype == boolean ? "cr::boolean" : fmt::format("cr::{}", chainrule::name(dtype));
}

template <class List, class F>
std::string list(const List& items, F text) {
  std::string out;
  for (const auto& item : items) out += (out.empty() ? "" : ", ") + std::string(text(item));
  return "{" + out + "}";
}

std::string print(const Axes& axes) {
  return list(axes, [](std::int64_t a) { return std::to_string(a); });
}

Array filled(DType dtype, const Dims& dims, int seed) {
  Array out(dtype, dims);
  for (std::int64_t i = 0; i < out.size(); ++i)
    out.set(i, dtype == boolean    ? static_cast<double>((i + seed) % 2)
               : is_integer(dtype) ? static_cast<double>((i * 3 + seed) % 4)
                                   : static_cast<double>((i * 7 + seed * 3) % 17 - 8) / 4);
  return out;
}

}  // namespace

World::World() {
  static int number = 0;
  folder = folders / fmt::format("{}_{}", getpid(), number++);
  std::filesystem::create_directories(folder);
  graphs.emplace_back();
}

World::~World() {
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

World::Snapshot World::snapshot() const {
  Snapshot out;
  for (const Graph& graph : graphs) {
    const auto& data = *graph.data();
    // The listing leaves numbers out, but their nodes count.
    out.graphs.push_back(fmt::format("{}{} nodes, {} parameters, {} attached, {} streams, {} names", graph.to_string(),
                                     graph.size(), graph.parameters().size(), data.attached.size(), data.streams,
                                     data.names.size()));
  }
  for (const OwnedState& owned : states) {
    std::vector<Array> numbers;
    for (const auto& variable : graphs[owned.graph].data()->leaves->variables) {
      try {
        numbers.push_back(owned.state.get(variable.name));
      } catch (const Error&) {
        numbers.emplace_back();  // of a State that was made before it, or moved from
      }
    }
    try {
      numbers.emplace_back(owned.state.step());
      numbers.emplace_back(owned.state.epoch());
    } catch (const Error&) {
      numbers.emplace_back();
    }
    out.states.push_back(std::move(numbers));
  }
  out.arrays.assign(arrays.begin(), arrays.end());
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    std::stringstream text;
    text << entry.path().filename().string() << ": " << file.rdbuf();
    out.files.push_back(text.str());
  }
  std::sort(out.files.begin(), out.files.end());
  return out;
}

std::string World::Snapshot::difference(const Snapshot& other) const {
  for (std::size_t i = 0; i < graphs.size(); ++i)
    if (i >= other.graphs.size() || graphs[i] != other.graphs[i])
      return fmt::format("graph {} was\n{}\nand is\n{}", i, graphs[i], i < other.graphs.size() ? other.graphs[i] : "");
  if (graphs.size() != other.graphs.size()) return "another number of graphs";
  if (states.size() != other.states.size()) return "another number of States";
  for (std::size_t i = 0; i < states.size(); ++i) {
    // A variable that is new to a State is no change of its numbers.
    for (std::size_t k = 0; k < std::max(states[i].size(), other.states[i].size()); ++k)
      if (k >= states[i].size() || k >= other.states[i].size() || !states[i][k].identical(other.states[i][k]))
        return fmt::format("State {} has other numbers ({})", i, k);
  }
  if (files != other.files) return "another checkpoint";
  for (std::size_t i = 0; i < arrays.size(); ++i)
    if (i >= other.arrays.size() || !arrays[i].identical(other.arrays[i])) return fmt::format("array {} changed", i);
  return {};
}

std::vector<std::string> World::run_all() {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    try {
      Call call(*this, 99);
      call.only_good = true;
      Call::Feeds feeds;
      call.feeds(programs[i].program->inputs(), feeds);
      const Results results = programs[i].program->run(std::span<const Feed>(feeds.feeds));
      std::string text;
      for (std::size_t r = 0; r < results.size(); ++r) text += results[r].to_string(17) + "\n";
      out.push_back(text);
    } catch (const Error& error) {
      out.emplace_back(error.what());
    }
  }
  return out;
}

// ---- arguments

std::string Call::text_of(Value v) const {
  if (!v.defined()) return "cr::Value()";
  const auto at = std::find(world.values.begin(), world.values.end(), v);
  return fmt::format("v{}", at - world.values.begin());
}

template <class F>
Said<Value> Call::pick(F passes) {
  if (bad(0.02) || world.values.empty()) return {Value(), "cr::Value()"};
  std::vector<Value> found;
  const bool any = bad(0.08);
  for (const Value v : world.values)
    if (any || ((!last_.defined() || v.data() == last_.data()) && passes(v))) found.push_back(v);
  const Value v = found.empty() ? random.pick(world.values) : random.pick(found);
  last_ = v;
  return {v, text_of(v)};
}

Said<Graph> Call::graph() {
  const std::size_t i = random.below(world.graphs.size());
  return {world.graphs[i], fmt::format("g{}", i)};
}
Said<Value> Call::value() {
  return pick([](Value) { return true; });
}
Said<Value> Call::floating() {
  return pick([](Value v) { return is_floating(v.dtype()); });
}
Said<Value> Call::scalar() {
  return pick([](Value v) { return is_floating(v.dtype()) && v.rank() == 0; });
}
Said<Value> Call::variable() {
  return pick([](Value v) { return v.name()[0] == 'w'; });
}
Said<Value> Call::like(Value other) {
  return pick([&](Value v) { return other.defined() && v.dtype() == other.dtype() && v.shape() == other.shape(); });
}
Said<Values> Call::some(std::size_t most, bool variables) {
  Said<Values> out;
  for (std::size_t n = random.below(most + 1); n > 0; --n) out.it.push_back((variables ? variable() : value()).it);
  out.text = list(out.it, [&](Value v) { return text_of(v); });
  return out;
}
Said<Operand> Call::operand() {
  if (random.chance(0.6)) {
    const auto v = value();
    return {Operand(v.it), v.text};
  }
  if (random.chance(0.2)) {
    const auto d = dimension();
    return {Operand(d.it), d.text};
  }
  if (random.chance(0.3)) {
    const auto a = array();
    return {Operand(a.it), a.text};
  }
  const auto n = number();
  return {Operand(n.it), n.text};
}

Said<Dimension> Call::dimension() {
  const std::int64_t n = random.between(0, 4);
  if (random.chance(0.2)) return {Dimension::symbol("n"), "n"};
  if (random.chance(0.05)) return {Dimension::symbol("m") + Dimension(n), fmt::format("m + {}", n)};
  if (bad(0.02)) return {Dimension(-1), "-1"};
  if (bad(0.01)) return {Dimension(std::int64_t{1} << 61), "std::int64_t{1} << 61"};
  return {Dimension(n), fmt::format("{}", n)};
}
Said<Shape> Call::shape(bool symbols) {
  Said<Shape> out;
  std::string text;
  for (std::size_t rank = random.pick({0U, 1U, 1U, 2U, 2U, 2U, 3U}); rank > 0; --rank) {
    auto d = dimension();
    while (!symbols && !d.it.is_number()) d = dimension();
    out.it.push_back(d.it);
    text += (text.empty() ? "" : ", ") + d.text;
  }
  out.text = "cr::Shape{" + text + "}";
  return out;
}
Said<Dims> Call::dims() {
  const auto s = shape(false);
  return {evaluate(s.it, Sizes{}), "cr::Dims" + s.text.substr(9)};
}
Said<DType> Call::dtype() {
  const DType d = random.pick({float64, float64, float64, float32, int64, int32, uint8, boolean});
  return {d, print(d)};
}
Said<DType> Call::dtype_for(const Dims& dims) {
  // Bytes without number are not too many until they are multiplied.
  for (const std::int64_t extent : dims)
    if (extent > 1000) return {float64, "cr::float64"};
  return dtype();
}
Said<std::string> Call::name() {
  const std::string s =
      random.pick({std::string("x"), std::string("w"), std::string("w1"), std::string("w2"), std::string("y"),
                   std::string("step"), std::string("dense/weight"), std::string("")});
  const std::string own = random.chance(0.5) ? fmt::format("{}{}", s, world.values.size()) : s;
  return {own, '"' + own + '"'};
}
Said<double> Call::number() {
  const double x = bad(0.1) ? random.pick({std::nan(""), static_cast<double>(INFINITY), 1e300, -1.0})
                            : random.pick({0.0, 1.0, 2.0, 0.5, -0.5, 0.1});
  return {x, print(x)};
}
Said<std::int64_t> Call::whole(std::int64_t low, std::int64_t high) {
  std::int64_t n = random.between(low, high);
  if (bad(0.05))
    n = random.pick({low - 1, high + 1, std::numeric_limits<std::int64_t>::max(),
                     std::numeric_limits<std::int64_t>::min(), std::int64_t{-7}});
  return {n, n == std::numeric_limits<std::int64_t>::min() ? "INT64_MIN" : fmt::format("{}", n)};
}
Said<std::int64_t> Call::axis(Value of) {
  const auto rank = of.defined() ? static_cast<std::int64_t>(of.rank()) : 1;
  return whole(-rank, std::max<std::int64_t>(rank - 1, 0));
}
Said<Axes> Call::axes(Value of) {
  Said<Axes> out;
  for (std::size_t n = random.below(4); n > 0; --n) {
    const std::int64_t a = axis(of).it;
    if (bad(0.1) || std::find(out.it.begin(), out.it.end(), a) == out.it.end()) out.it.push_back(a);
  }
  out.text = "cr::Axes" + print(out.it);
  return out;
}
Said<bool> Call::flag() {
  const bool b = random.chance(0.5);
  return {b, b ? "true" : "false"};
}

Said<Array> Call::array_like(DType dtype, const Dims& dims) {
  const int seed = static_cast<int>(random.below(9));
  return {filled(dtype, dims, seed), fmt::format("filled({}, {}, {})", print(dtype), to_string(dims), seed)};
}
Said<Array> Call::array_for(Value input) {
  Sizes sizes;
  for (const char* symbol : {"n", "m"}) sizes.bind(Dimension::symbol(symbol).symbol_id(), 3);
  return array_like(input.dtype(), evaluate(input.shape(), sizes));
}
Said<Array> Call::array() {
  if (!world.arrays.empty() && random.chance(0.3)) {
    const std::size_t i = random.below(world.arrays.size());
    return {world.arrays[i], fmt::format("a{}", i)};
  }
  const auto of = dims();
  return array_like(dtype_for(of.it).it, of.it);
}
Said<Initial> Call::initial() {
  const auto s = shape(bad());
  switch (random.below(6)) {
    case 0: return {zeros(s.it), fmt::format("cr::zeros({})", s)};
    case 1: {
      const auto n = number();
      return {full(s.it, n.it), fmt::format("cr::full({}, {})", s, n)};
    }
    case 2: {
      const auto low = number();
      const auto high = number();
      return {uniform(s.it, low.it, high.it), fmt::format("cr::uniform({}, {}, {})", s, low, high)};
    }
    case 3: {
      const auto deviation = number();
      return {normal(s.it, 0, deviation.it), fmt::format("cr::normal({}, 0, {})", s, deviation)};
    }
    case 4: {
      const auto high = whole(0, 5);
      return {integers(s.it, 0, high.it), fmt::format("cr::integers({}, 0, {})", s, high)};
    }
    default: break;
  }
  const auto a = array();
  return {Initial(a.it), a.text};
}

Said<Attribute> Call::attribute(const Attribute& like) {
  struct Other {
    Call& call;
    Said<Attribute> operator()(bool) const {
      const auto b = call.flag();
      return {b.it, b.text};
    }
    Said<Attribute> operator()(std::int64_t v) const {
      const auto n = call.random.chance(0.4) ? Said<std::int64_t>{v, fmt::format("{}", v)} : call.whole(-1, 2);
      return {n.it, n.text};
    }
    Said<Attribute> operator()(double) const {
      const auto n = call.number();
      return {n.it, n.text};
    }
    Said<Attribute> operator()(DType) const {
      const auto d = call.dtype();
      return {d.it, d.text};
    }
    Said<Attribute> operator()(const std::string& v) const { return {v, '"' + v + '"'}; }
    Said<Attribute> operator()(const Axes&) const {
      const auto a = call.axes(call.last_);
      return {a.it, a.text};
    }
    Said<Attribute> operator()(const Shape& v) const {
      auto s = call.random.chance(0.3) ? Said<Shape>{v, "cr::Shape" + to_string(v)} : call.shape();
      return {s.it, s.text};
    }
  };
  if (bad(0.05)) return {Attribute("odd"), "\"odd\""};  // of another type
  return std::visit(Other{*this}, like.variant());
}

std::size_t Call::state() {
  if (world.states.empty()) throw Error("fuzz", "no State yet");
  return random.below(world.states.size());
}

std::size_t Call::program() {
  if (world.programs.empty()) throw Error("fuzz", "no program yet");
  return random.below(world.programs.size());
}

Said<std::string> Call::path() {
  const std::string file = random.pick({std::string("a.safetensors"), std::string("b.safetensors")});
  if (bad(0.1)) return {(world.folder / "no" / "such" / file).string(), "\"no/such/" + file + '"'};
  if (bad(0.05)) return {world.folder.string(), "\".\""};
  return {(world.folder / file).string(), '"' + file + '"'};
}

void Call::feeds(std::size_t program, Feeds& out) { feeds(world.programs[program].program->inputs(), out); }

void Call::feeds(const Values& inputs, Feeds& out) {
  Sizes sizes;
  for (const char* symbol : {"n", "m"}) sizes.bind(Dimension::symbol(symbol).symbol_id(), random.between(1, 3));
  for (const Value input : inputs) {
    if (bad(0.02)) continue;
    const DType type = bad(0.03) ? dtype().it : input.dtype();
    const Dims shape = bad(0.03) ? dims().it : evaluate(input.shape(), sizes);
    const auto array = array_like(type, shape);
    const auto given = bad(0.02) ? value() : Said<Value>{input, text_of(input)};
    out.arrays.push_back(array.it);
    out.feeds.emplace_back(given.it, out.arrays.back());
    out.text += fmt::format("{}{{{}, {}}}", out.text.empty() ? "" : ", ", given, array);
    if (bad(0.01)) out.feeds.push_back(out.feeds.back());
  }
  out.text = "{" + out.text + "}";
}

// ---- results

void Call::keep(Value made) {
  if (made.defined() && world.values.size() < 300) world.values.push_back(made);
}
void Call::keep(const Values& made) {
  for (const Value v : made) keep(v);
}
void Call::keep(Array made) {
  if (world.arrays.size() < 40) world.arrays.push_back(std::move(made));
}

}  // namespace chainrule::fuzz
