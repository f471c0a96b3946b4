// What a program is fed: which inputs it needs, and a run's feeds checked. Not installed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <chainrule/framework/graph/graph_data.hpp>
#include <chainrule/framework/run/feed.hpp>
#include <chainrule/framework/run/instance.hpp>
#include <chainrule/framework/run/memory.hpp>

namespace chainrule::detail {

class Feeds {
 public:
  // Of the inputs that the graph has now. `at`: where the program is made.
  Feeds(Graph graph, Location at);

  // What the program reads, `live`, is to be fed, and for each size that it needs an input that has it. Throws Error
  // for a size that no input has.
  void require(const GraphData& live);
  // Those that a run must be fed.
  [[nodiscard]] Values inputs() const;

  // What random numbers are made from in programs that draw in each run (passes/draw_each_run.cpp): one more pointer,
  // behind those of the graph's inputs.
  void draw_by(const std::int64_t* number) { drawn_by_ = number; }

  // Checks the feeds of a run and takes down their sizes and pointers; throws Error where they are not what the
  // program needs. Allocates nothing for feeds of the inputs' dtypes.
  void bind(std::span<const Feed> feeds, Location at);
  // Copies those that a run of this plan would write.
  void copy_what_is_written(const Instance& instance);
  // Of the feeds that are bound.
  [[nodiscard]] const Sizes& sizes() const { return sizes_; }
  // By an input's number; behind them what draw_by() was given.
  [[nodiscard]] const std::vector<const void*>& pointers() const { return pointers_; }

  // Frees the copies.
  void clear();

 private:
  // What a run must be told of an input of the graph.
  struct InputSlot {
    NodeId node = no_node;
    bool needed = false;
    bool gives_size = false;            // that no needed one has
    std::vector<std::int64_t> symbols;  // of its extents; -1 for others
    [[nodiscard]] bool has(std::int64_t symbol) const {
      return std::find(symbols.begin(), symbols.end(), symbol) != symbols.end();
    }
  };
  // A size that is needed of an input which is not.
  struct SizeInput {
    std::int64_t symbol;
    std::size_t input;
  };

  const void* converted(const Block& from, std::size_t number, DType dtype, std::string& why);
  void bind_one(const Feed& feed, Location at);
  [[nodiscard]] Error missing(std::size_t input, std::string_view why, Location at) const;
  void check_compound(std::span<const Feed> feeds, Location at) const;
  [[nodiscard]] std::int64_t evaluate_at(Dimension dimension, Location at) const;
  [[nodiscard]] std::size_t slot_of(const Feed& feed, Location at) const;

  Graph graph_;
  Location at_;
  std::vector<InputSlot> slots_;  // by an input's number
  std::vector<SizeInput> size_inputs_;
  bool compound_ = false;  // an input has an extent that is neither a number nor a symbol, but "batch + 1"
  Sizes sizes_;
  std::vector<const void*> pointers_;
  const std::int64_t* drawn_by_ = nullptr;
  std::vector<Array> converted_;  // by an input's number: feeds of another dtype
  char no_elements_ = 0;
  std::vector<Memory> copies_;  // by an input's number: of feeds that a run would write
};

}  // namespace chainrule::detail
