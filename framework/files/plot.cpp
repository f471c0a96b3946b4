#include <chainrule/framework/files/plot.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <string_view>

#include <fmt/format.h>

#include <chainrule/framework/files/gnuplot.hpp>
#include <chainrule/framework/io/atomic_file.hpp>

namespace chainrule::plot {

namespace {

using detail::gnuplot_quoted;

// Okabe and Ito's colours, in an order in which neighbours differ in lightness too.
constexpr std::array<std::uint32_t, 7> colours{0x0072B2, 0xD55E00, 0x009E73, 0xCC79A7, 0xE69F00, 0x56B4E9, 0x333333};
// Of gnuplot: circle, triangle, square, diamond, inverted triangle, pentagon, all filled.
constexpr std::array<int, 6> markers{7, 9, 5, 13, 11, 15};
// A circle of the same size looks larger than a triangle or a diamond.
constexpr std::array<double, 6> marker_sizes{1, 1.2, 0.95, 1.3, 1.2, 1.1};
constexpr std::array<std::string_view, 5> dashes{"solid", "(14,5)", "(3,4)", "(14,5,3,5)", "(22,5,3,5,3,5)"};

std::string hex(std::uint32_t colour) { return fmt::format("'#{:06X}'", colour); }

// Mixed with white: `share` of the colour.
std::uint32_t pale(std::uint32_t colour, double share) {
  std::uint32_t out = 0;
  for (const unsigned shift : {16U, 8U, 0U}) {
    const double channel = share * ((colour >> shift) & 255U) + (1 - share) * 255;
    out |= static_cast<std::uint32_t>(std::lround(channel)) << shift;
  }
  return out;
}

// A number as gnuplot reads it.
std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.9g}", value) : "NaN"; }

// A line of equal height through a grid of values, as segments: each cell is crossed where its edges are (marching
// squares), interpolated linearly.
struct Grid {
  Range x;
  Range y;
  std::size_t columns;
  std::size_t rows;
  std::vector<double> values;  // row by row, at the cells' corners

  [[nodiscard]] double x_at(double i) const { return x.low + (x.high - x.low) * i / static_cast<double>(columns - 1); }
  [[nodiscard]] double y_at(double j) const { return y.low + (y.high - y.low) * j / static_cast<double>(rows - 1); }
  [[nodiscard]] double at(std::size_t i, std::size_t j) const { return values[j * columns + i]; }

  void add_contour(double level, std::string& out) const {
    for (std::size_t j = 0; j + 1 < rows; ++j)
      for (std::size_t i = 0; i + 1 < columns; ++i) {
        struct Corner {
          std::size_t i, j;
        };
        const std::array<Corner, 4> corners{{{i, j}, {i + 1, j}, {i + 1, j + 1}, {i, j + 1}}};
        std::vector<std::string> crossings;
        for (std::size_t k = 0; k < 4; ++k) {
          const auto [ai, aj] = corners[k];
          const auto [bi, bj] = corners[(k + 1) % 4];
          const double a = at(ai, aj);
          const double b = at(bi, bj);
          if ((a > level) == (b > level) || !std::isfinite(a) || !std::isfinite(b)) continue;
          const double t = (level - a) / (b - a);
          const auto between = [t](std::size_t from, std::size_t to) {
            return static_cast<double>(from) + t * (static_cast<double>(to) - static_cast<double>(from));
          };
          crossings.push_back(fmt::format("{} {}\n", number(x_at(between(ai, bi))), number(y_at(between(aj, bj)))));
        }
        // Two, or four at a saddle.
        for (std::size_t k = 0; k + 1 < crossings.size(); k += 2) out += crossings[k] + crossings[k + 1] + "\n";
      }
  }
};

// The examples' labels as numbers, and their two features.
struct Plane {
  std::vector<double> x0;
  std::vector<double> x1;
  std::vector<double> labels;
};

Plane plane_of(const data::Dataset& dataset, Location at) {
  const Array& x = dataset.x;
  const std::size_t features = dataset.axis == 0 ? 1 : 0;
  if (x.rank() != 2 || dataset.axis > 1 || x.shape()[features] != 2)
    throw Error(
        at, "plot",
        fmt::format("requires a data set of two features, x {{2, examples}} along axis 1 or {{examples, 2}} along "
                    "axis 0, got {} along axis {}",
                    to_string(x.shape()), dataset.axis));
  const std::int64_t examples = dataset.size();
  if (dataset.y.size() != examples || examples == 0)
    throw Error(at, "plot",
                fmt::format("requires one label for each of one or more examples, got shapes {} and {}",
                            to_string(x.shape()), to_string(dataset.y.shape())));
  Plane out;
  for (std::int64_t i = 0; i < examples; ++i) {
    out.x0.push_back(features == 0 ? x[i] : x[2 * i]);
    out.x1.push_back(features == 0 ? x[examples + i] : x[2 * i + 1]);
    out.labels.push_back(dataset.y[i]);
  }
  return out;
}

// From the least to the greatest finite number, and a bit more.
Range around(const std::vector<double>& values, Location at) {
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const double value : values) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (!(low <= high)) throw Error(at, "plot", "requires finite numbers, got none");
  const double margin = high > low ? 0.08 * (high - low) : std::max(1.0, 0.1 * std::abs(low));
  return {low - margin, high + margin};
}

}  // namespace

struct Figure::Content {
  FigureOptions options;
  std::string data;                 // gnuplot's data blocks
  std::vector<std::string> layers;  // arguments of its plot command
  std::size_t blocks = 0;
  std::size_t series = 0;
  std::map<double, std::size_t> classes;  // the style of a label
  // Of the curves and points.
  Range x_seen{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  Range y_seen = x_seen;
  bool single_points = false;
  // Where data sets or contours say what is shown, the latter and regions up to the frame.
  bool framed = false;
  bool bounded = false;
  Range x;
  Range y;

  // The name of a new data block.
  std::string block(const std::string& lines) {
    std::string name = fmt::format("$data{}", blocks++);
    data += fmt::format("{} << EOD\n{}EOD\n", name, lines);
    return name;
  }

  void add(const std::string& block_name, std::string_view columns, std::string_view style, const std::string& title) {
    layers.push_back(fmt::format("{} using {} with {} {}", block_name, columns, style,
                                 title.empty() ? "notitle" : "title " + gnuplot_quoted(title)));
  }

  void bound(Range new_x, Range new_y) {
    x = bounded ? Range{std::min(x.low, new_x.low), std::max(x.high, new_x.high)} : new_x;
    y = bounded ? Range{std::min(y.low, new_y.low), std::max(y.high, new_y.high)} : new_y;
    bounded = true;
  }

  void know_labels(const std::vector<double>& labels) {
    std::vector<double> fresh(labels);
    std::sort(fresh.begin(), fresh.end());
    for (const double label : fresh) classes.try_emplace(label, classes.size());
  }

  // What gnuplot is to do, in this order.
  [[nodiscard]] std::string script(bool png) const;
  [[nodiscard]] std::string frame(bool png) const;
  [[nodiscard]] std::string titles(bool png) const;
  [[nodiscard]] std::string axes() const;
};

Figure::Figure(const FigureOptions& options, Location at) : content_(std::make_unique<Content>()) {
  if (options.width < 100 || options.height < 100 || options.width > 20'000 || options.height > 20'000)
    throw Error(
        at, "plot",
        fmt::format("requires a width and height of 100 to 20000, got {} and {}", options.width, options.height));
  content_->options = options;
}
Figure::~Figure() = default;
Figure::Figure(const Figure& other) : content_(std::make_unique<Content>(*other.content_)) {}
Figure::Figure(Figure&& other) noexcept = default;
Figure& Figure::operator=(Figure other) noexcept {
  content_ = std::move(other.content_);
  return *this;
}

namespace {

// "x y" on a line each; widens the ranges to what is drawn.
std::string pairs(const FigureOptions& options, const std::string& name, const Array& x, const Array& y, Range& x_seen,
                  Range& y_seen, Location at) {
  if (x.size() != y.size())
    throw Error(at, "plot", fmt::format("requires as many x as y in '{}', got {} and {}", name, x.size(), y.size()));
  std::string out;
  bool any = false;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const bool drawn =
        std::isfinite(x[i]) && std::isfinite(y[i]) && (!options.log_x || x[i] > 0) && (!options.log_y || y[i] > 0);
    any = any || drawn;
    if (drawn) {
      x_seen = {std::min(x_seen.low, x[i]), std::max(x_seen.high, x[i])};
      y_seen = {std::min(y_seen.low, y[i]), std::max(y_seen.high, y[i])};
    }
    out += drawn ? fmt::format("{} {}\n", number(x[i]), number(y[i])) : "NaN NaN\n";
  }
  if (!any)
    throw Error(at, "plot",
                fmt::format("requires at least one finite point in '{}'{}, got {} others", name,
                            options.log_x || options.log_y ? " (above 0 on a logarithmic axis)" : "", x.size()));
  return out;
}

// The labels of a logarithmic axis: over less than three decades 1, 2 and 5 of each, else powers of ten.
std::string log_tics(char axis, Range seen) {
  if (!(seen.high / seen.low < 1000)) return fmt::format("set format {} '10^{{%T}}'\n", axis);
  std::string tics;
  for (int power = static_cast<int>(std::floor(std::log10(seen.low))); power <= std::log10(seen.high) + 1; ++power)
    for (const int digit : {1, 2, 5})
      tics += fmt::format("{}{:.6g}", tics.empty() ? "" : ", ", digit * std::pow(10.0, power));
  return fmt::format("set {0}tics ({1})\nset format {0} '%g'\n", axis, tics);
}

Array counted(std::int64_t size) {
  Array out(float64, {size});
  std::iota(out.data<double>(), out.data<double>() + size, 0.0);
  return out;
}

}  // namespace

Figure& Figure::line(const std::string& name, const Array& y, Location at) {
  return add_line(name, counted(y.size()), y, false, at);
}

Figure& Figure::line(const std::string& name, const Array& x, const Array& y, Location at) {
  return add_line(name, x, y, false, at);
}

Figure& Figure::path(const std::string& name, const Array& x, const Array& y, Location at) {
  return add_line(name, x, y, true, at);
}

Figure& Figure::add_line(const std::string& name, const Array& x, const Array& y, bool marked, Location at) {
  Content& c = *content_;
  const std::string lines = pairs(c.options, name, x, y, c.x_seen, c.y_seen, at);
  const std::size_t i = c.series++;
  const std::string_view dash = dashes[i % dashes.size()];
  // Dots are lighter than lines.
  const std::string look =
      fmt::format("lw {} dt {} lc rgb {}", i % dashes.size() == 2 ? 3.2 : 2.2, dash, hex(colours[i % colours.size()]));
  const std::string marker =
      fmt::format(" pt {} ps {}*scale", markers[i % markers.size()], 0.8 * marker_sizes[i % markers.size()]);
  c.add(c.block(lines), "1:2", (marked ? "linespoints " : "lines ") + look + (marked ? marker : ""), name);
  return *this;
}

Figure& Figure::points(const std::string& name, const Array& x, const Array& y, Location at) {
  Content& c = *content_;
  const std::string lines = pairs(c.options, name, x, y, c.x_seen, c.y_seen, at);
  const std::size_t i = c.series++;
  c.single_points = true;
  c.add(c.block(lines), "1:2",
        fmt::format("points pt {} ps {}*scale lc rgb {}", markers[i % markers.size()],
                    0.7 * marker_sizes[i % markers.size()], hex(colours[i % colours.size()])),
        name);
  return *this;
}

Figure& Figure::classes(const data::Dataset& dataset, const std::vector<std::string>& names, Location at) {
  Content& c = *content_;
  const Plane plane = plane_of(dataset, at);
  std::map<double, std::string> lines;
  for (std::size_t i = 0; i < plane.labels.size(); ++i)
    if (std::isfinite(plane.x0[i]) && std::isfinite(plane.x1[i]))
      lines[plane.labels[i]] += fmt::format("{} {}\n", number(plane.x0[i]), number(plane.x1[i]));
  if (lines.empty()) throw Error(at, "plot", "requires finite points, got none");
  if (!names.empty() && names.size() < lines.size())
    throw Error(at, "plot",
                fmt::format("requires names of all {} classes or of none, got {}", lines.size(), names.size()));
  c.know_labels(plane.labels);
  std::size_t n = 0;
  for (const auto& [label, text] : lines) {
    const std::size_t i = c.classes.at(label);
    const std::string block = c.block(text);
    const double size = marker_sizes[i % markers.size()];
    // A white rim sets points off from each other and from the regions.
    c.add(block, "1:2",
          fmt::format("points pt {} ps {}*scale lc rgb '#FFFFFF'", markers[i % markers.size()], 1.35 * size), "");
    c.add(block, "1:2",
          fmt::format("points pt {} ps {}*scale lc rgb {}", markers[i % markers.size()], 0.95 * size,
                      hex(colours[i % colours.size()])),
          names.empty() ? fmt::format("class {}", label) : names[n]);
    ++n;
  }
  c.series = std::max(c.series, c.classes.size());
  c.bound(around(plane.x0, at), around(plane.x1, at));
  return *this;
}

namespace {

constexpr std::size_t plane_resolution = 300;

// Fills a grid with what a classifier says, and returns whether that are probabilities.
bool ask(const std::function<Array(const Array&)>& classifier, const data::Dataset& dataset, Grid& grid, Location at) {
  const bool columns = dataset.axis == 1;
  const auto n = static_cast<std::int64_t>(plane_resolution);
  Array points(dataset.x.dtype() == float32 ? float32 : float64, columns ? Dims{2, n} : Dims{n, 2});
  bool probabilities = false;
  for (std::size_t j = 0; j < plane_resolution; ++j) {  // row by row: what the classifier needs in between stays small
    for (std::int64_t i = 0; i < n; ++i) {
      points.set(columns ? i : 2 * i, grid.x_at(static_cast<double>(i)));
      points.set(columns ? n + i : 2 * i + 1, grid.y_at(static_cast<double>(j)));
    }
    const Array said = classifier(points);
    if (said.size() != n)
      throw Error(at, "plot",
                  fmt::format("requires a classifier that returns a number for each of {} points, got {}",
                              to_string(points.shape()), to_string(said.shape())));
    probabilities = is_floating(said.dtype());
    for (std::int64_t i = 0; i < n; ++i) grid.values.push_back(said[i]);
  }
  return probabilities;
}

// Of the classes 0 and 1 the likelier one.
std::vector<double> labels_of(const Grid& grid, bool probabilities) {
  std::vector<double> out = grid.values;
  if (probabilities)
    for (double& label : out) label = label > 0.5 ? 1 : 0;
  return out;
}

// Runs of one label in a row as one rectangle. Each reaches into the next row and run, which are drawn over it: no gap
// shows between them.
std::string rectangles(const Grid& grid, const std::vector<double>& labels,
                       const std::map<double, std::size_t>& classes) {
  const auto x_edge = [&](std::size_t i, double by) {
    return number(std::clamp(grid.x_at(static_cast<double>(i) + by), grid.x.low, grid.x.high));
  };
  const auto y_edge = [&](std::size_t j, double by) {
    return number(std::clamp(grid.y_at(static_cast<double>(j) + by), grid.y.low, grid.y.high));
  };
  std::string out;
  for (std::size_t j = 0; j < grid.rows; ++j) {
    const double* row = labels.data() + j * grid.columns;
    for (std::size_t first = 0; first < grid.columns;) {
      std::size_t last = first;
      while (last + 1 < grid.columns && row[last + 1] == row[first]) ++last;
      out += fmt::format("0 0 {} {} {} {} {}\n", x_edge(first, -0.5), x_edge(last, 1), y_edge(j, -0.5), y_edge(j, 1),
                         pale(colours[classes.at(row[first]) % colours.size()], 0.25));
      first = last + 1;
    }
  }
  return out;
}

}  // namespace

Figure& Figure::regions(const data::Dataset& dataset, const std::function<Array(const Array&)>& classifier,
                        Location at) {
  Content& c = *content_;
  const Plane plane = plane_of(dataset, at);
  constexpr std::size_t resolution = plane_resolution;
  Grid grid{around(plane.x0, at), around(plane.x1, at), resolution, resolution, {}};
  grid.values.reserve(resolution * resolution);
  const bool probabilities = ask(classifier, dataset, grid, at);

  c.know_labels(plane.labels);
  if (probabilities) c.know_labels({0, 1});
  const std::vector<double> labels = labels_of(grid, probabilities);
  std::vector<double> unknown;
  std::copy_if(labels.begin(), labels.end(), std::back_inserter(unknown),
               [&c](double label) { return std::isfinite(label) && !c.classes.contains(label); });
  c.know_labels(unknown);
  c.add(c.block(rectangles(grid, labels, c.classes)), "1:2:3:4:5:6:7", "boxxyerror fs solid 1 noborder lc rgb variable",
        "");
  if (probabilities) {
    std::string boundary;
    grid.add_contour(0.5, boundary);
    if (!boundary.empty()) c.add(c.block(boundary), "1:2", "lines lw 1.6 lc rgb '#444444'", "");
  }
  c.bound(grid.x, grid.y);
  c.framed = true;
  return *this;
}

Figure& Figure::contours(const std::function<double(double, double)>& height, Range x, Range y, int lines,
                         Location at) {
  if (!(x.low < x.high) || !(y.low < y.high) || lines < 1)
    throw Error(at, "plot",
                fmt::format("requires ranges that are not empty and 1 line or more, got [{}, {}], [{}, {}] and {}",
                            x.low, x.high, y.low, y.high, lines));
  constexpr std::size_t resolution = 160;
  Grid grid{x, y, resolution, resolution, {}};
  for (std::size_t j = 0; j < resolution; ++j)
    for (std::size_t i = 0; i < resolution; ++i)
      grid.values.push_back(height(grid.x_at(static_cast<double>(i)), grid.y_at(static_cast<double>(j))));
  std::vector<double> sorted;
  for (const double value : grid.values)
    if (std::isfinite(value)) sorted.push_back(value);
  if (sorted.empty()) throw Error(at, "plot", "requires a function with finite values, got none");
  std::sort(sorted.begin(), sorted.end());
  std::string all;
  for (int k = 1; k <= lines; ++k) {
    // Between the values' quantiles, denser where the function is low, as its squares are.
    const double share = std::pow((k - 0.5) / lines, 2);
    grid.add_contour(sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))], all);
  }
  if (!all.empty()) content_->add(content_->block(all), "1:2", "lines lw 1 lc rgb '#B0B0B0'", "");
  content_->bound(x, y);
  content_->framed = true;
  return *this;
}

// How a terminal of gnuplot, and what is alike in all pictures, is set.
std::string Figure::Content::frame(bool png) const {
  std::string out = "set encoding utf8\n";
  out += png ? fmt::format("set terminal pngcairo size {},{} enhanced font 'Sans,12' background '#FFFFFF'\n",
                           options.width, options.height)
             : fmt::format("set terminal svg size {},{} dynamic enhanced font 'sans-serif,15' background '#FFFFFF'\n",
                           options.width, options.height);
  out += png ? "scale = 1.0\n" : "scale = 0.62\n";  // of markers: the terminals have sizes of their own
  out +=
      "set border 3 lw 1 lc rgb '#555555'\n"
      "set tics out nomirror scale 0.6 textcolor rgb '#333333'\n"
      "set grid lw 1 lt 1 lc rgb '#E4E4E4'\n"
      "set key bmargin center horizontal Left reverse noenhanced textcolor rgb '#333333' samplen 2.5 height 1\n"
      "set datafile missing 'NaN'\n"
      "set style fill solid\n"
      "set rmargin 4\n";
  return out;
}

std::string Figure::Content::titles(bool png) const {
  const auto text = [](std::string_view what, const std::string& words, std::string_view more) {
    if (words.empty()) return std::string();
    return fmt::format("set {} {} noenhanced textcolor rgb '#222222' {}\n", what, gnuplot_quoted(words), more);
  };
  return text("title", options.title, png ? "font 'Sans Bold,14'" : "font 'sans-serif:Bold,18'") +
         text("xlabel", options.x_label, "") + text("ylabel", options.y_label, "");
}

std::string Figure::Content::axes() const {
  std::string out;
  if (options.log_x) out += "set logscale x\n" + log_tics('x', x_seen);
  if (options.log_y) out += "set logscale y\n" + log_tics('y', y_seen);
  if (options.equal_scale) out += "set size ratio -1\n";
  if (bounded) {
    out += fmt::format("set xrange [{}:{}]\nset yrange [{}:{}]\n", number(x.low), number(x.high), number(y.low),
                       number(y.high));
  } else {
    out += "set autoscale xfix\n";
    if (single_points) out += "set offsets graph 0.01, graph 0.01, 0, 0\n";
  }
  if (framed) out += "unset grid\nset border 15\n";
  return out;
}

std::string Figure::Content::script(bool png) const {
  std::string out = frame(png) + titles(png) + axes() + data + "plot ";
  for (std::size_t i = 0; i < layers.size(); ++i) out += (i == 0 ? "" : ", \\\n     ") + layers[i];
  return out + "\n";
}

void Figure::save(const std::string& path, Location at) const {
  const Content& c = *content_;
  const bool png = path.ends_with(".png");
  if (!png && !path.ends_with(".svg"))
    throw Error(at, "plot", fmt::format("requires a file name that ends with .png or .svg, got '{}'", path));
  if (c.layers.empty()) throw Error(at, "plot", "requires a figure with something in it, got an empty one");
  detail::AtomicFile file(path, "plot", at);  // before the work: can it be written?

  std::string picture = detail::run_gnuplot(c.script(png), at);
  const std::string_view start = png ? "\x89PNG" : "<?xml";
  if (!picture.starts_with(start)) throw Error(at, "plot", "requires gnuplot to draw a picture, got none from it");
  if (!png) {  // gnuplot has no words for a weight in texts that are printed as they are
    constexpr std::string_view bold = R"(font-family="sans-serif:Bold")";
    if (const auto place = picture.find(bold); place != std::string::npos)
      picture.replace(place, bold.size(), R"(font-family="sans-serif" font-weight="bold")");
  }
  file.write(picture.data(), picture.size());
  file.commit();
}

}  // namespace chainrule::plot
