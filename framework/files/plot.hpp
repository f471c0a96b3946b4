// Pictures: curves, points, the regions that a classifier decides for, drawn by the program gnuplot (Debian:
// gnuplot-nox); and arrays as images. As files. These functions are in the library chainrule::files, which a program
// that calls them links.
//
// What belongs together has a colour, and a dash pattern or marker of its own: series can be told apart in grey, and
// the colours (Okabe and Ito's) by the colour-blind.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <chainrule/framework/core/array.hpp>
#include <chainrule/framework/core/error.hpp>
#include <chainrule/framework/data/data.hpp>

namespace chainrule::plot {

// Texts are UTF-8 and printed as they are.
struct FigureOptions {
  std::string title = {};
  std::string x_label = {};
  std::string y_label = {};
  bool log_x = false;
  bool log_y = false;
  bool equal_scale = false;  // one unit as long on both axes
  int width = 900;           // in pixels
  int height = 600;
};

// An interval of an axis.
struct Range {
  double low = 0;
  double high = 1;
};

// Layers, drawn in the order in which they are added. A number that is not finite leaves a gap.
//   cr::plot::Figure({.title = "Cost", .x_label = "epoch", .y_label = "cost", .log_y = true})
//       .line("gradient descent", history.costs)
//       .save("costs.svg");
class Figure {
 public:
  explicit Figure(const FigureOptions& options = {}, Location at = Location::here());
  ~Figure();
  Figure(const Figure& other);
  Figure(Figure&& other) noexcept;
  Figure& operator=(Figure other) noexcept;

  // A curve, over 0, 1, 2, ... or over x. Arrays of any shape and dtype are read element by element. An empty name is
  // not in the legend. Throws Error where x and y differ in size, or have no finite point.
  Figure& line(const std::string& name, const Array& y, Location at = Location::here());
  Figure& line(const std::string& name, const Array& x, const Array& y, Location at = Location::here());
  // The same with a marker on each point: the steps of a descent, a few numbers.
  Figure& path(const std::string& name, const Array& x, const Array& y, Location at = Location::here());
  // Single points. Errors as line().
  Figure& points(const std::string& name, const Array& x, const Array& y, Location at = Location::here());

  // The examples of a data set of two features, each class with a colour and marker of its own; one label an example.
  // Names are by ascending label ("class 0" without one).
  Figure& classes(const data::Dataset& dataset, const std::vector<std::string>& names = {},
                  Location at = Location::here());

  // What a classifier says of the plane around a data set of two features. It is given points in the layout of the data
  // set's x and returns a number for each: its label where they are whole numbers (int64, bool), else the probability
  // of label 1, whose line of 0.5 is drawn. To be added before the data set's classes().
  //   figure.regions(moons, [&](const cr::Array& points) { return predict.run({{x, points}})[0]; }).classes(moons);
  Figure& regions(const data::Dataset& dataset, const std::function<Array(const Array&)>& classifier,
                  Location at = Location::here());

  // Lines of equal height of a function, so many, evenly spread over its values.
  Figure& contours(const std::function<double(double, double)>& height, Range x, Range y, int lines = 12,
                   Location at = Location::here());

  // Draws it all into a file, by its ending .png or .svg; written whole or not at all. Throws Error for another ending,
  // a figure without layers, a file that cannot be written, and where gnuplot is not there or fails.
  void save(const std::string& path, Location at = Location::here()) const;

 private:
  struct Content;
  Figure& add_line(const std::string& name, const Array& x, const Array& y, bool marked, Location at);
  std::unique_ptr<Content> content_;
};

// ---- images

struct ImageGridOptions {
  std::int64_t columns = 0;  // images a row; 0: about as many as there are rows
  std::int64_t scale = 1;    // each element is a square of so many pixels
  // What is black and what is white, numbers beyond being cut; by default the least and the greatest number of all.
  std::optional<Range> range = std::nullopt;
};

// Images beside each other in rows, from left to right, as one .png file, with a line between two: {n, height, width}
// or {n, channels, height, width} of any dtype, one channel grey, three red, green and blue. A NaN is black. Written
// whole or not at all. Throws Error for other shapes, no image, options that are not in order, another ending, and a
// file that cannot be written.
//   cr::plot::save_images("filters.png", state[weight], {.scale = 8});
void save_images(const std::string& path, const Array& images, const ImageGridOptions& options = {},
                 Location at = Location::here());

}  // namespace chainrule::plot
