#include "generate.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "../random.hpp"
#include "interpret.hpp"

namespace chainrule::fuzz {

namespace {

constexpr std::size_t most_nodes = 700;  // gradients of gradients grow

class Generator {
 public:
  Generator(std::uint64_t seed, const GenerateOptions& options, std::atomic<std::uint64_t>& tries, std::uint64_t last)
      : random_(seed),
        options_(options),
        tries_(tries),
        last_(last),
        built_{Graph(make_options()), {}},
        interpreter_{built_.graph, pick_mode(), pick_sizes()} {}

  Recipe make() {
    for (std::size_t leaves = 2 + random_.below(3); leaves > 0 && !broken_; --leaves) add_leaf();
    // A wrong shape rule may never accept anything: the tries are counted.
    for (int tries = 10 * target_; tries > 0 && ops_ < target_ && !broken_; --tries) {
      if (built_.graph.size() > most_nodes) break;
      if (random_.chance(0.12)) {
        add_gradient();
      } else if (random_.chance(0.05)) {
        add_leaf();
      } else {
        add_op();
      }
    }
    choose_results();
    return without_dead_steps(recipe_);
  }

 private:
  // ---- what holds for the whole graph

  GraphOptions make_options() {
    recipe_.options.dtype = random_.chance(0.5) ? float32 : float64;
    recipe_.options.seed = random_.below(5);
    large_ = random_.chance(0.015);
    target_ = large_ ? static_cast<int>(random_.between(2, 7))
                     : static_cast<int>(random_.between(1, random_.pick({6, 12, 20, 40})));
    most_elements_ = large_ ? 300'000 : 3'000;
    return recipe_.options;
  }

  Mode pick_mode() { return recipe_.mode = random_.chance(0.75) ? Mode::training : Mode::inference; }

  // The extents that leaves have: few, so that they fit each other.
  Sizes pick_sizes() {
    const std::size_t symbols = random_.pick({std::size_t{0}, std::size_t{0}, std::size_t{1}, std::size_t{2}});
    static const char* const names[] = {"n", "m"};
    recipe_.sizes.clear();
    for (std::size_t runs = symbols == 0 ? 1 : 1 + random_.below(3); runs > 0; --runs) {
      SizeSet set;
      for (std::size_t i = 0; i < symbols; ++i)
        set.emplace_back(names[i],
                         large_ && i == 0 ? random_.between(3000, 70'000) : std::max<std::int64_t>(size(), 1));
      recipe_.sizes.push_back(set);
    }
    for (std::size_t i = 0; i < symbols; ++i) extents_.push_back(Dimension::symbol(names[i]));
    for (std::size_t i = 0; i < 2; ++i) extents_.push_back(Dimension(size()));
    if (large_ && symbols == 0) extents_.push_back(Dimension(random_.between(3000, 70'000)));
    if (random_.chance(0.3)) extents_.push_back(Dimension(1));
    return sizes_of(recipe_.sizes[0]);
  }

  std::int64_t size() {
    if (random_.chance(0.03)) return 0;
    if (random_.chance(0.1))
      return random_.pick({std::int64_t{16}, std::int64_t{17}, std::int64_t{33}, std::int64_t{67}});
    return random_.between(1, 9);
  }

  // ---- adding steps

  // The step's number, or nothing where it does not fit or its numbers are not worth going on with.
  std::optional<std::size_t> add(Step step) {
    const std::size_t at = recipe_.steps.size();
    const Sizes sizes = sizes_of(recipe_.sizes[0]);
    if (step.is_leaf() && elements_of(step.shape) > static_cast<double>(most_elements_)) return {};
    recipe_.steps.push_back(std::move(step));
    if (++tries_ == last_) return broken();
    try {
      const Value value = build_step(built_.graph, built_.values, recipe_, at);
      built_.values.push_back(value);
      const Dims dims = chainrule::evaluate(value.shape(), sizes);
      if (recipe_.steps[at].is_leaf()) {
        give(at, dims);
        return at;
      }
      if (count(dims) <= most_elements_ && worth_keeping(interpreter_.value(value))) return at;
      // The trial graph keeps the node; the recipe's own will not have it.
      built_.values.pop_back();
    } catch (const Error&) {
      if (built_.values.size() > at) built_.values.pop_back();
    } catch (const std::exception&) {
      return broken();  // a fault by itself, which building or running the recipe shows again
    }
    recipe_.steps.pop_back();
    return {};
  }

  // The recipe ends with the step just added.
  std::optional<std::size_t> broken() {
    recipe_.outputs = {recipe_.steps.size() - 1};
    broken_ = true;
    return {};
  }

  // May be more than an integer holds.
  [[nodiscard]] double elements_of(const Shape& shape) const {
    double product = 1;
    for (const Dimension d : shape) product *= static_cast<double>(d.evaluate(sizes_of(recipe_.sizes[0])));
    return product;
  }

  void give(std::size_t at, const Dims& dims) {
    const Step& step = recipe_.steps[at];
    const Value value = built_.values[at];
    if (step.kind == Step::Kind::step || step.kind == Step::Kind::epoch) {
      interpreter_.give(value, Array(std::int64_t{0}));
    } else if (step.kind != Step::Kind::constant && step.kind != Step::Kind::number) {
      interpreter_.give(value, numbers(step.dtype, dims, step.fill));
    }
  }

  // Numbers beyond all bounds say little about what is made of them.
  bool worth_keeping(const Array& array) {
    if (array.size() == 0) return random_.chance(0.5);
    if (!is_floating(array.dtype())) return true;
    std::int64_t wild = 0;
    for (std::int64_t i = 0; i < array.size(); ++i) wild += std::abs(array[i]) < 1e5 ? 0 : 1;
    return wild == 0 || random_.chance(0.05);
  }

  Shape leaf_shape(std::size_t rank, bool numbers_only) {
    Shape shape;
    while (shape.rank() < rank) {
      const Dimension d = random_.chance(0.15) ? Dimension(1) : random_.pick(extents_);
      if (!numbers_only || d.is_number()) shape.push_back(d);
    }
    return shape;
  }

  std::optional<std::size_t> add_leaf() {
    const DType dtype = random_.chance(0.65)  ? recipe_.options.dtype
                        : random_.chance(0.3) ? random_.pick({float32, float64})
                        : random_.chance(0.6) ? random_.pick({int64, int64, int32, uint8})
                                              : boolean;
    const Step::Kind kind =
        random_.pick({Step::Kind::input, Step::Kind::input, Step::Kind::input, Step::Kind::parameter,
                      Step::Kind::variable, Step::Kind::constant, Step::Kind::number});
    return add_leaf(dtype, leaf_shape(random_.pick({0U, 1U, 2U, 2U, 2U, 3U, 4U}), kind != Step::Kind::input), kind);
  }

  std::optional<std::size_t> add_leaf(DType dtype, const Shape& shape, Step::Kind kind) {
    Step step;
    step.kind = kind;
    step.dtype = dtype;
    step.shape = shape;
    step.fill.seed = static_cast<int>(random_.below(100));
    step.fill.coarse = random_.chance(0.5);
    step.fill.special = random_.chance(0.02);
    const auto [low, high] =
        dtype == uint8 ? random_.pick({std::pair{0.0, 3.0}, std::pair{0.0, 256.0}, std::pair{0.0, 2.0}})
        : is_integer(dtype)
            ? random_.pick({std::pair{0.0, 3.0}, std::pair{-4.0, 5.0}, std::pair{0.0, 2.0}})
            : random_.pick({std::pair{-2.0, 2.0}, std::pair{0.25, 2.0}, std::pair{-0.5, 0.5}, std::pair{-4.0, 4.0}});
    step.fill.low = low;
    step.fill.high = high;
    const bool numeric = std::all_of(shape.begin(), shape.end(), [](Dimension d) { return d.is_number(); });
    if (!numeric) step.kind = Step::Kind::input;
    if (step.kind == Step::Kind::parameter) step.dtype = recipe_.options.dtype;
    if (dtype == int64 && shape.empty() && random_.chance(0.5))
      step.kind = random_.pick({Step::Kind::step, Step::Kind::step, Step::Kind::epoch});
    if (step.kind == Step::Kind::number) {
      step.shape = {};
      step.value =
          dtype == boolean ? static_cast<double>(random_.below(2)) : random_.pick({0.0, 1.0, -1.0, 2.0, 3.0, 0.5});
      if (is_integer(dtype)) step.value = std::floor(step.value);
      if (dtype == uint8) step.value = std::abs(step.value);
    }
    return add(step);
  }

  [[nodiscard]] const Shape& shape_of(std::size_t i) const { return built_.values[i].shape(); }
  [[nodiscard]] DType dtype_of(std::size_t i) const { return built_.values[i].dtype(); }

  // A step that passes a test, later ones preferred; nothing if none does.
  template <class F>
  std::optional<std::size_t> find(F passes) {
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < built_.values.size(); ++i)
      if (passes(i)) found.push_back(i);
    if (found.empty()) return {};
    const std::size_t late = std::min<std::size_t>(found.size(), 5);
    return random_.chance(0.5) ? found[found.size() - 1 - random_.below(late)] : random_.pick(found);
  }

  // ---- an op from one of its samples

  void add_op() {
    const Op& op = *random_.pick(registry());
    if (std::find(options_.without.begin(), options_.without.end(), op.name) != options_.without.end()) return;
    const Sample& sample = random_.pick(op.samples);
    for (int tries = 0; tries < 4 && !broken_; ++tries) {
      Step step;
      step.op = &op;
      renamed_.clear();
      const bool alike = random_.chance(0.5);
      const std::size_t before = recipe_.steps.size();
      std::optional<DType> floating;
      const DType integer = random_.chance(0.7) ? int64 : random_.pick({int32, uint8});
      if (sample.inputs.empty()) floating = recipe_.options.dtype;
      std::size_t inputs = sample.inputs.size();
      if (options_.odd && inputs > 0 && random_.chance(0.05)) inputs += random_.below(2) == 0 ? 1 : std::size_t(-1);
      for (std::size_t i = 0; i < inputs && !broken_; ++i) {
        const Initial& like = sample.inputs[std::min(i, sample.inputs.size() - 1)];
        DType dtype = like.dtype(float64);
        if (is_floating(dtype) && floating) dtype = *floating;
        if (dtype == int64) dtype = integer;
        const auto input =
            alike ? input_like(like, dtype, floating.has_value()) : input_from_pool(step, dtype, floating);
        if (!input) break;
        if (!floating && is_floating(dtype_of(*input))) floating = dtype_of(*input);
        step.inputs.push_back(*input);
      }
      if (broken_ || step.inputs.size() != inputs) continue;
      step.attributes = changed(declared(op, sample), step, alike);
      if (const auto made = add(step)) {
        ++ops_;
        add_further_outputs(*made);
        return;
      }
      // Leaves made for it stay where an earlier try left none.
      if (recipe_.steps.size() > before + 4) return;
    }
  }

  // Of a step of an op with several outputs.
  void add_further_outputs(std::size_t first) {
    Step step;
    step.kind = Step::Kind::output;
    step.inputs = {first};
    for (step.output = 1; step.output < built_.values[first].node().output_count() && !broken_; ++step.output)
      add(step);
  }

  std::optional<std::size_t> input_from_pool(const Step& step, DType dtype, std::optional<DType> floating) {
    const bool any = random_.chance(0.03);
    const auto fits_dtype = [&](std::size_t i) {
      if (any) return true;
      return is_floating(dtype) && !floating ? is_floating(dtype_of(i)) : dtype_of(i) == dtype;
    };
    if (!step.inputs.empty() && !random_.chance(0.1)) {
      const Shape& first = shape_of(step.inputs[0]);
      const bool same = random_.chance(0.4);
      const auto found = find([&](std::size_t i) {
        Shape both;
        return fits_dtype(i) && (same ? shape_of(i) == first : broadcast(first, shape_of(i), both));
      });
      if (found) return found;
    }
    if (const auto found = find(fits_dtype)) return found;
    return add_leaf(dtype, leaf_shape(random_.below(4), false), Step::Kind::input);
  }

  // An input of the sample's shape with other extents: each of its extents becomes one of the graph's.
  std::optional<std::size_t> input_like(const Initial& like, DType dtype, bool dtype_is_settled) {
    if (is_floating(dtype) && !dtype_is_settled)
      dtype = random_.chance(0.8) ? recipe_.options.dtype : random_.pick({float32, float64});
    Shape shape;
    for (const std::int64_t extent : like.shape()) shape.push_back(renamed(extent));
    if (random_.chance(0.6))
      if (const auto found = find([&](std::size_t i) { return dtype_of(i) == dtype && shape_of(i) == shape; }))
        return found;
    // Another value in that shape.
    if (random_.chance(0.5)) {
      const auto found = find([&](std::size_t i) {
        Shape both;
        return dtype_of(i) == dtype &&
               (count(shape_of(i)) == count(shape) || (broadcast(shape_of(i), shape, both) && both == shape));
      });
      if (found) {
        Step step;
        step.op = find_op(count(shape_of(*found)) == count(shape) ? "reshape" : "broadcast_to");
        step.inputs = {*found};
        step.attributes = {{"shape", shape}};
        if (const auto made = add(step)) return made;
        if (broken_) return {};
      }
    }
    return add_leaf(dtype, shape,
                    random_.pick({Step::Kind::input, Step::Kind::input, Step::Kind::parameter, Step::Kind::variable,
                                  Step::Kind::constant}));
  }

  Dimension renamed(std::int64_t extent) {
    if (extent <= 1 && !random_.chance(0.1)) return Dimension(extent);
    for (const auto& [from, to] : renamed_)
      if (from == extent) return to;
    renamed_.emplace_back(extent, random_.chance(0.2) ? Dimension(extent) : random_.pick(extents_));
    return renamed_.back().second;
  }

  // ---- attributes

  // All that an op declares, as the sample has them; what may be left out is, now and then.
  Attributes declared(const Op& op, const Sample& sample) {
    Attributes out;
    for (const AttributeDeclaration& declaration : op.attributes.list()) {
      const Attribute* value = sample.attributes.find(declaration.name());
      if (declaration.otherwise() && random_.chance(0.2)) continue;
      if (!value && declaration.otherwise()) value = &*declaration.otherwise();
      if (value) out = out.with(declaration.name(), *value);
    }
    return out;
  }

  Attributes changed(const Attributes& sample, const Step& step, bool alike) {
    Attributes out = sample;
    const Shape shape = step.inputs.empty() ? Shape{} : shape_of(step.inputs[0]);
    for (const std::string& name : names_of(sample)) {
      const Attribute& old = *sample.find(name);
      if (step.op->attributes.find(name)->type() == AttributeType::list) {
        out = out.with(name, parts_of(shape));
        continue;
      }
      out = out.with(
          name, std::visit([&](const auto& value) { return Attribute(other(value, shape, alike)); }, old.variant()));
    }
    return out;
  }

  // Numbers that add up to an extent of the shape, mostly.
  Axes parts_of(const Shape& shape) {
    Axes out;
    std::int64_t rest = random_.between(0, 4);
    if (shape.rank() > 0)
      if (const Dimension d = shape[random_.below(shape.rank())]; d.is_number()) rest = d.extent();
    while (out.size() < 3 && random_.chance(0.6)) {
      out.push_back(random_.between(0, rest));
      rest -= out.back();
    }
    if (out.empty() || !random_.chance(0.05)) out.push_back(rest);
    return out;
  }

  bool other(bool value, const Shape&, bool) { return random_.chance(0.3) ? !value : value; }
  std::string other(const std::string& value, const Shape&, bool) { return value; }

  std::int64_t other(std::int64_t value, const Shape& shape, bool) {
    if (random_.chance(0.4)) return value;
    const auto rank = static_cast<std::int64_t>(shape.rank());
    if (random_.chance(0.85))
      return random_.between(random_.chance(0.2) ? -rank : 0, std::max<std::int64_t>(rank - 1, 0));
    return value + random_.between(-2, 2);
  }

  double other(double value, const Shape&, bool) {
    return random_.chance(0.6) ? value : random_.pick({0.0, 0.25, 0.5, 1.0, 1.5, -0.5, 2.0});
  }

  DType other(DType value, const Shape&, bool) {
    if (is_floating(value) && random_.chance(0.6)) return recipe_.options.dtype;
    return random_.chance(0.3) ? value : random_.pick({float32, float64, int64, int32, uint8, boolean});
  }

  Axes other(const Axes& value, const Shape& shape, bool) {
    if (random_.chance(0.2)) return value;
    Axes all(shape.rank());
    std::iota(all.begin(), all.end(), 0);
    for (std::size_t i = all.size(); i > 1; --i) std::swap(all[i - 1], all[random_.below(i)]);
    if (random_.chance(0.5)) {
      all.resize(random_.below(all.size() + 1));
      std::sort(all.begin(), all.end());
    }
    for (auto& axis : all)
      if (random_.chance(0.1)) axis -= static_cast<std::int64_t>(shape.rank());
    return all;
  }

  Shape other(const Shape& value, const Shape& shape, bool alike) {
    Shape out;
    if (alike && random_.chance(0.6)) {
      for (const Dimension d : value) out.push_back(d.is_number() && !d.is_inferred() ? renamed(d.extent()) : d);
      return out;
    }
    switch (random_.below(7)) {
      case 0: return value;
      case 1: return Shape{count(shape)};
      case 2:  // in another order
        out = shape;
        for (std::size_t i = out.rank(); i > 1; --i) std::swap(out[i - 1], out[random_.below(i)]);
        return out;
      case 3:  // with a further axis
        if (shape.rank() == max_rank) return shape;
        out.push_back(random_.chance(0.5) ? Dimension(1) : random_.pick(extents_));
        for (const Dimension d : shape) out.push_back(d);
        return out;
      case 4:  // two axes as one
        for (std::size_t i = 0; i < shape.rank(); ++i) {
          if (i + 1 == shape.rank() && i > 0) {
            out.back() = out.back() * shape[i];
          } else {
            out.push_back(shape[i]);
          }
        }
        return out;
      case 5:  // stretched
        for (const Dimension d : shape) out.push_back(d.is(1) ? random_.pick(extents_) : d);
        return out;
      default: break;
    }
    for (std::size_t i = 0; i < value.rank(); ++i)
      out.push_back(random_.chance(0.5) ? Dimension(random_.between(0, 4)) : random_.pick(extents_));
    return out;
  }

  // ---- gradients

  void add_gradient() {
    auto y = find([&](std::size_t i) { return is_floating(dtype_of(i)) && !recipe_.steps[i].is_leaf(); });
    if (!y) return;
    Step step;
    step.kind = Step::Kind::gradient;
    std::optional<std::size_t> cotangent;
    if (shape_of(*y).rank() > 0) {
      if (random_.chance(0.3))
        cotangent = find([&](std::size_t i) { return dtype_of(i) == dtype_of(*y) && shape_of(i) == shape_of(*y); });
      if (!cotangent) y = add(sum_of(*y));
      if (!y || broken_) return;
    }
    const std::vector<char> below = ancestors(*y);
    const bool any = random_.chance(0.1);
    const auto x = find([&](std::size_t i) { return is_floating(dtype_of(i)) && (any || (below[i] && i != *y)); });
    if (!x) return;
    step.inputs = {*y, *x};
    if (cotangent) step.inputs.push_back(*cotangent);
    if (add(step)) ++ops_;
  }

  [[nodiscard]] Step sum_of(std::size_t y) const {
    Axes axes(shape_of(y).rank());
    std::iota(axes.begin(), axes.end(), 0);
    Step sum;
    sum.op = find_op("sum");
    sum.inputs = {y};
    sum.attributes = {{"axes", axes}, {"keepdims", false}};
    return sum;
  }

  // Whether a gradient is made wrong on purpose.
  [[nodiscard]] bool has_stop() const {
    static const Op* const stop = find_op("stop_gradient");
    return std::any_of(recipe_.steps.begin(), recipe_.steps.end(), [](const Step& s) { return s.op == stop; });
  }

  // Of something, so that its gradients can be checked.
  bool add_sum() {
    const auto y = find([&](std::size_t i) { return is_floating(dtype_of(i)) && !recipe_.steps[i].is_leaf(); });
    return y && add(sum_of(*y));
  }

  [[nodiscard]] std::vector<char> ancestors(std::size_t of) const {
    std::vector<char> out(recipe_.steps.size(), 0);
    out[of] = 1;
    for (std::size_t i = of + 1; i-- > 0;)
      if (out[i])
        for (const std::size_t input : recipe_.steps[i].inputs) out[input] = 1;
    return out;
  }

  // ---- what is asked of the program

  // Off the kinks, where rules are conventions. What the loss does not depend on may be anything.
  void choose_points() {
    const std::vector<char> reached = ancestors(built_.values.size() - 1);
    for (std::size_t i = 0; i < recipe_.steps.size(); ++i) {
      Fill& fill = recipe_.steps[i].fill;
      fill.coarse = false;
      fill.special = !reached[i] && fill.seed % 4 == 0;
    }
  }

  void choose_results() {
    if (broken_) return;
    recipe_.check_gradients = random_.chance(options_.gradients) && !has_stop() && add_sum();
    if (broken_) return;
    if (recipe_.check_gradients) choose_points();
    const std::size_t n = built_.values.size();
    recipe_.outputs.push_back(n - 1);
    for (std::size_t more = random_.below(3); more > 0; --more) recipe_.outputs.push_back(random_.below(n));
    // What nothing reads would be dead.
    std::vector<char> read(n, 0);
    for (const Step& step : recipe_.steps)
      for (const std::size_t input : step.inputs) read[input] = 1;
    for (std::size_t i = 0; i + 1 < n; ++i)
      if (!read[i] && !recipe_.steps[i].is_leaf() && random_.chance(0.8)) recipe_.outputs.push_back(i);
    if (random_.chance(0.4)) {
      for (std::size_t i = 0; i < n; ++i) {
        if (!recipe_.steps[i].is_variable() || random_.chance(0.3)) continue;
        const auto expression =
            find([&](std::size_t k) { return dtype_of(k) == dtype_of(i) && shape_of(k) == shape_of(i); });
        if (expression) recipe_.updates.push_back({i, *expression});
      }
      // Running averages of what is computed, for variables that have no update of their own.
      for (std::size_t i = 0; i < n && !recipe_.updates.empty(); ++i) {
        const bool own = std::any_of(recipe_.updates.begin(), recipe_.updates.end(),
                                     [&](const Recipe::Update& u) { return u.variable == i; });
        if (!recipe_.steps[i].is_variable() || own || random_.chance(0.3)) continue;
        const auto expression =
            find([&](std::size_t k) { return dtype_of(k) == dtype_of(i) && shape_of(k) == shape_of(i); });
        if (expression) recipe_.attached.push_back({random_.below(n), i, *expression});
      }
      // Updated again and again.
      if (!recipe_.updates.empty() && random_.chance(0.5)) recipe_.sizes.push_back(recipe_.sizes[0]);
    }
    recipe_.as_built = random_.chance(0.2);
    recipe_.check_finite = random_.chance(0.2);
    if (random_.chance(0.25)) recipe_.limit = random_.pick({0.3, 0.5, 0.7, 0.9});
  }

  Random random_;
  const GenerateOptions& options_;
  std::atomic<std::uint64_t>& tries_;
  std::uint64_t last_;
  Recipe recipe_;
  bool large_ = false;
  int target_ = 0;
  int ops_ = 0;
  std::int64_t most_elements_ = 0;
  std::vector<Dimension> extents_;
  std::vector<std::pair<std::int64_t, Dimension>> renamed_;
  bool broken_ = false;
  Built built_;
  Interpreter interpreter_;
};

}  // namespace

Recipe generate(std::uint64_t seed, const GenerateOptions& options, std::atomic<std::uint64_t>& tries,
                std::uint64_t last) {
  return Generator(seed, options, tries, last).make();
}

}  // namespace chainrule::fuzz
