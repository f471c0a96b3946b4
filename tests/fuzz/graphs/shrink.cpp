#include "shrink.hpp"

#include <algorithm>
#include <optional>
#include <set>

namespace chainrule::fuzz {

namespace {

// Everywhere that a step is read.
void replace(Recipe& recipe, std::size_t step, std::size_t by) {
  for (std::size_t i = by + 1; i < recipe.steps.size(); ++i)
    for (std::size_t& input : recipe.steps[i].inputs)
      if (input == step) input = by;
  for (std::size_t& output : recipe.outputs)
    if (output == step) output = by;
  for (auto& update : recipe.updates)
    if (update.expression == step) update.expression = by;
  for (auto& attached : recipe.attached) {
    if (attached.owner == step) attached.owner = by;
    if (attached.expression == step) attached.expression = by;
  }
}

// All shapes of a recipe, one extent as another.
template <class F>
Recipe with_extents(const Recipe& recipe, F now) {
  Recipe out = recipe;
  const auto changed = [&](const Shape& shape) {
    Shape to;
    for (const Dimension d : shape) to.push_back(now(d));
    return to;
  };
  for (Step& step : out.steps) {
    step.shape = changed(step.shape);
    for (const std::string& name : names_of(step.attributes))
      if (const auto* shape = std::get_if<Shape>(&step.attributes.find(name)->variant()))
        step.attributes = step.attributes.with(name, changed(*shape));
  }
  return out;
}

class Shrinker {
 public:
  Shrinker(const Recipe& recipe, const std::function<bool(const Recipe&)>& fails, int most)
      : now_(recipe), fails_(fails), left_(most) {}

  Recipe run() {
    bool smaller = true;
    while (smaller && left_ > 0) {
      smaller = false;
      smaller |= drop_results();
      smaller |= simplify_request();
      smaller |= replace_steps();
      smaller |= shrink_sizes();
      smaller |= simplify_leaves();
    }
    return now_;
  }

 private:
  bool accept(Recipe candidate) {
    if (left_-- <= 0) return false;
    candidate = without_dead_steps(candidate);
    try {
      if (!fails_(candidate)) return false;
    } catch (const Error&) {
      return false;
    }
    now_ = std::move(candidate);
    return true;
  }

  bool drop_results() {
    bool smaller = false;
    for (std::size_t i = now_.outputs.size(); i-- > 0 && now_.outputs.size() > 1;) {
      Recipe candidate = now_;
      candidate.outputs.erase(candidate.outputs.begin() + static_cast<std::ptrdiff_t>(i));
      smaller |= accept(candidate);
    }
    for (std::size_t i = now_.updates.size(); i-- > 0;) {
      Recipe candidate = now_;
      candidate.updates.erase(candidate.updates.begin() + static_cast<std::ptrdiff_t>(i));
      smaller |= accept(candidate);
    }
    for (std::size_t i = now_.attached.size(); i-- > 0;) {
      Recipe candidate = now_;
      candidate.attached.erase(candidate.attached.begin() + static_cast<std::ptrdiff_t>(i));
      smaller |= accept(candidate);
    }
    return smaller;
  }

  bool simplify_request() {
    bool smaller = false;
    for (std::size_t i = now_.sizes.size(); i-- > 0 && now_.sizes.size() > 1;) {
      Recipe candidate = now_;
      candidate.sizes.erase(candidate.sizes.begin() + static_cast<std::ptrdiff_t>(i));
      smaller |= accept(candidate);
    }
    const auto attempt = [&](auto differs, auto change) {
      if (!differs(now_)) return;
      Recipe candidate = now_;
      change(candidate);
      smaller |= accept(candidate);
    };
    attempt([](const Recipe& r) { return r.limit > 0; }, [](Recipe& r) { r.limit = 0; });
    attempt([](const Recipe& r) { return r.as_built; }, [](Recipe& r) { r.as_built = false; });
    attempt([](const Recipe& r) { return r.check_finite; }, [](Recipe& r) { r.check_finite = false; });
    attempt([](const Recipe& r) { return r.check_gradients; }, [](Recipe& r) { r.check_gradients = false; });
    attempt([](const Recipe& r) { return r.mode != Mode::training; }, [](Recipe& r) { r.mode = Mode::training; });
    attempt([](const Recipe& r) { return r.options.seed != 0; }, [](Recipe& r) { r.options.seed = 0; });
    return smaller;
  }

  // From the last on: by what it reads, by an input, by an operand of the same type.
  bool replace_steps() {
    bool smaller = false;
    for (std::size_t i = now_.steps.size(); i-- > 0 && left_ > 0;) {
      if (i >= now_.steps.size()) continue;
      if (now_.steps[i].is_leaf()) continue;
      smaller |= as_a_leaf(i) || by_an_input(i) || as_outputs(i);
    }
    return smaller;
  }

  bool as_a_leaf(std::size_t i) {
    const Built built = build(now_);
    Recipe candidate = now_;
    Step leaf;
    leaf.kind = Step::Kind::input;
    leaf.dtype = built.values[i].dtype();
    leaf.shape = built.values[i].shape();
    if (is_integer(leaf.dtype)) leaf.fill = {.low = 0, .high = 2};
    candidate.steps[i] = leaf;
    return accept(candidate);
  }

  bool by_an_input(std::size_t i) {
    const Built built = build(now_);
    const auto inputs = now_.steps[i].inputs;
    for (const std::size_t input : inputs) {
      if (built.values[input].dtype() != built.values[i].dtype()) continue;
      Recipe candidate = now_;
      replace(candidate, i, input);
      if (accept(candidate)) return true;
    }
    return false;
  }

  // What an output reads, in its stead.
  bool as_outputs(std::size_t i) {
    const auto at = std::find(now_.outputs.begin(), now_.outputs.end(), i);
    if (at == now_.outputs.end()) return false;
    for (const std::size_t input : now_.steps[i].inputs) {
      Recipe candidate = now_;
      candidate.outputs[static_cast<std::size_t>(at - now_.outputs.begin())] = input;
      if (accept(candidate)) return true;
    }
    return false;
  }

  bool shrink_sizes() {
    bool smaller = false;
    if (now_.sizes.size() == 1 && !now_.sizes[0].empty()) {
      const Sizes sizes = sizes_of(now_.sizes[0]);
      Recipe candidate =
          with_extents(now_, [&](Dimension d) { return d.is_inferred() ? d : Dimension(d.evaluate(sizes)); });
      candidate.sizes = {{}};
      if (accept(candidate)) return true;
    }
    for (std::size_t run = 0; run < now_.sizes.size(); ++run)
      for (std::size_t i = 0; i < now_.sizes[run].size(); ++i)
        for (const std::int64_t size :
             {std::int64_t{1}, std::int64_t{2}, now_.sizes[run][i].second / 2, now_.sizes[run][i].second - 1}) {
          if (size < 1 || size >= now_.sizes[run][i].second) continue;
          Recipe candidate = now_;
          candidate.sizes[run][i].second = size;
          if (accept(candidate)) {
            smaller = true;
            break;
          }
        }
    std::set<std::int64_t, std::greater<>> extents;
    for (const Step& step : now_.steps)
      for (const Dimension d : step.shape)
        if (d.is_number()) extents.insert(d.extent());
    for (const std::int64_t old : extents)
      for (const std::int64_t size : {std::int64_t{1}, std::int64_t{2}, std::int64_t{3}, old / 2, old - 1}) {
        if (size < 1 || size >= old) continue;
        if (accept(with_extents(now_, [&](Dimension d) { return d.is(old) ? Dimension(size) : d; }))) {
          smaller = true;
          break;
        }
      }
    return smaller;
  }

  bool simplify_leaves() {
    bool smaller = false;
    for (std::size_t i = 0; i < now_.steps.size(); ++i) {
      const auto attempt = [&](auto differs, auto change) {
        if (i >= now_.steps.size() || !differs(now_.steps[i])) return;
        Recipe candidate = now_;
        change(candidate.steps[i]);
        smaller |= accept(candidate);
      };
      const auto is_it = [&](const auto& u) { return u.variable == i; };
      const bool updated = std::any_of(now_.updates.begin(), now_.updates.end(), is_it) ||
                           std::any_of(now_.attached.begin(), now_.attached.end(), is_it);
      if (!updated)
        attempt(
            [](const Step& s) { return s.is_leaf() && s.kind != Step::Kind::input && s.kind != Step::Kind::number; },
            [&](Step& s) {
              if (s.kind == Step::Kind::step || s.kind == Step::Kind::epoch) s.dtype = int64;
              s.kind = Step::Kind::input;
            });
      if (!now_.check_gradients)  // whose points must lie off the kinks
        attempt([](const Step& s) { return s.is_leaf() && !s.fill.coarse; }, [](Step& s) { s.fill.coarse = true; });
      attempt([](const Step& s) { return s.is_leaf() && s.fill.special; }, [](Step& s) { s.fill.special = false; });
      attempt([](const Step& s) { return s.is_leaf() && s.fill.seed != 0; }, [](Step& s) { s.fill.seed = 0; });
    }
    return smaller;
  }

  Recipe now_;
  const std::function<bool(const Recipe&)>& fails_;
  int left_;
};

}  // namespace

Recipe shrink(const Recipe& recipe, const std::function<bool(const Recipe&)>& fails, int most) {
  return Shrinker(without_dead_steps(recipe), fails, most).run();
}

}  // namespace chainrule::fuzz
