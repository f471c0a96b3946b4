// Pictures: that gnuplot takes what is drawn, that it is in the file, and what is refused. (What they look like was
// looked at.)
#include <chainrule/chainrule.hpp>

#include <cmath>
#include <cstdlib>
#include <limits>

#include "files.hpp"

namespace cr = chainrule;
using Catch::Matchers::ContainsSubstring;
using chainrule::plot::Figure;
using chainrule::test::error_text;
using chainrule::test::read_file;
using chainrule::test::TemporaryFolder;

namespace {

bool have_gnuplot() {
  static const bool found = std::system("command -v gnuplot >/dev/null 2>&1") == 0;
  if (!found) WARN("Skipped what draws: no gnuplot");
  return found;
}

std::string svg(const Figure& figure) {
  const TemporaryFolder folder;
  figure.save(folder / "x.svg");
  CHECK(folder.files() == 1);
  return read_file(folder / "x.svg");
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t out = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++out;
  return out;
}

// The colours of a picture, as gnuplot's SVG writes them.
const std::string blue = "rgb(  0, 114, 178)";
const std::string vermilion = "rgb(213,  94,   0)";

cr::data::Dataset moons() { return cr::data::make_moons({.samples = 40, .noise = 0.1}, cr::numpy::RandomState(1)); }

cr::Array left_half(const cr::Array& points) {
  cr::Array out(cr::float64, {points.shape()[1]});
  for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, 1 / (1 + std::exp(4 * points(0, i))));
  return out;
}

}  // namespace

TEST_CASE("Curves have titles, labels, a legend and dash patterns of their own") {
  if (!have_gnuplot()) return;
  Figure figure(
      {.title = "It's \"quoted\" & <tagged> a_b {c}\\n $x", .x_label = "epoch", .y_label = "cost", .log_y = true});
  figure.line("gradient descent", std::vector<double>{1, 0.5, 0.2})
      .line("Ädam_1", cr::Array({0.0, 2.0}), cr::Array({0.7, 0.1}));
  const std::string text = svg(figure);
  CHECK_THAT(text, ContainsSubstring("<svg"));
  CHECK_THAT(text, ContainsSubstring(">It's \"quoted\" &amp; &lt;tagged> a_b {c}\\n $x<"));
  for (const char* const word : {">epoch<", ">cost<", ">gradient descent<", ">Ädam_1<", ">0.2<", ">0.5<"})
    CHECK_THAT(text, ContainsSubstring(word));
  CHECK_THAT(text, ContainsSubstring("font-weight=\"bold\""));
  CHECK_THAT(text, ContainsSubstring(blue));
  CHECK_THAT(text, ContainsSubstring(vermilion));
  CHECK_THAT(text, ContainsSubstring("stroke-dasharray"));
}

TEST_CASE("A picture is a PNG by its name") {
  if (!have_gnuplot()) return;
  const TemporaryFolder folder;
  Figure({.width = 320, .height = 200}).path("", cr::Array({1, 2, 3}), cr::Array({3, 1, 2})).save(folder / "x.png");
  const std::string bytes = read_file(folder / "x.png");
  REQUIRE(bytes.size() > 24);
  CHECK(bytes.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  CHECK(static_cast<unsigned char>(bytes[18]) * 256 + static_cast<unsigned char>(bytes[19]) == 320);
  CHECK(static_cast<unsigned char>(bytes[22]) * 256 + static_cast<unsigned char>(bytes[23]) == 200);
  CHECK(folder.files() == 1);
}

TEST_CASE("Classes differ by colour and marker") {
  if (!have_gnuplot()) return;
  const std::string text = svg(Figure().classes(moons(), {"outer", "inner"}));
  // gnuplot's shapes: 6 (circle), 8 (triangle) and so on; each example once with a white rim, and one more in the
  // legend.
  CHECK(count(text, "href='#gpPt6'") + count(text, "href='#gpPt8'") == 2 * 40 + 2);
  CHECK(count(text, "href='#gpPt6'") == 2 * 20 + 1);
  CHECK_THAT(text, ContainsSubstring(">outer<"));
  CHECK_THAT(text, ContainsSubstring(">inner<"));
  CHECK_THAT(svg(Figure().classes(moons())), ContainsSubstring(">class 1<"));
}

TEST_CASE("Regions are where the classifier says, and the boundary where it is undecided") {
  if (!have_gnuplot()) return;
  const auto data = moons();
  std::int64_t asked = 0;
  const std::string text = svg(Figure()
                                   .regions(data,
                                            [&](const cr::Array& points) {
                                              CHECK(points.rank() == 2);
                                              CHECK(points.shape()[0] == 2);
                                              asked += points.shape()[1];
                                              return left_half(points);
                                            })
                                   .classes(data));
  CHECK(asked == 90'000);
  CHECK_THAT(text, ContainsSubstring("rgb(191, 220, 236)"));  // pale blue: class 0
  CHECK_THAT(text, ContainsSubstring("rgb(245, 215, 191)"));  // pale vermilion: class 1
  CHECK_THAT(text, ContainsSubstring("rgb( 68,  68,  68)"));  // the line between

  // In rows, and by the number of the class.
  const cr::data::Dataset rows{data.x.transpose(), data.y.reshape({40}).astype(cr::int64), 0};
  const std::string other = svg(Figure().regions(rows, [](const cr::Array& points) {
    CHECK(points.shape()[1] == 2);
    cr::Array out(cr::int64, {points.shape()[0]});
    for (std::int64_t i = 0; i < out.size(); ++i) out.set(i, points(i, 0) < 0 ? 2 : 0);
    return out;
  }));
  CHECK_THAT(other, ContainsSubstring("rgb(191, 220, 236)"));
  CHECK_THAT(other, !ContainsSubstring("rgb( 68,  68,  68)"));
}

TEST_CASE("Contours and points") {
  if (!have_gnuplot()) return;
  Figure figure({.equal_scale = true});
  figure.contours([](double x, double y) { return x * x + y * y; }, {-1, 1}, {-1, 1}, 5);
  figure.points("here", cr::Array({0.5}), cr::Array({0.25}));
  CHECK_THAT(svg(figure), ContainsSubstring("rgb(176, 176, 176)") && ContainsSubstring(">here<"));
}

TEST_CASE("Numbers that are not finite leave gaps") {
  if (!have_gnuplot()) return;
  const double inf = std::numeric_limits<double>::infinity();
  svg(Figure().line("a", cr::Array({inf, 1.0, std::nan(""), 2.0, -inf})));
  svg(Figure({.log_y = true}).line("a", cr::Array({0.0, 1.0, -1.0, 2.0})));
  svg(Figure().line("flat", cr::Array({3.0, 3.0})));
  svg(Figure().line("one", cr::Array({3.0})).points("", cr::Array({0.0}), cr::Array({3.0})));
}

TEST_CASE("What a figure refuses") {
  const TemporaryFolder folder;
  const auto line = [] { return Figure().line("a", cr::Array({1.0, 2.0})); };
  CHECK_THAT(error_text([&] { line().save(folder / "x.pdf"); }),
             ContainsSubstring("plot: requires a file name that ends with .png or .svg, got '" + (folder / "x.pdf")) &&
                 ContainsSubstring("test_plot.cpp:"));
  CHECK_THAT(error_text([&] { Figure().save(folder / "x.png"); }),
             ContainsSubstring("requires a figure with something in it"));
  CHECK_THAT(error_text([&] { line().save(folder / "no/x.png"); }),
             ContainsSubstring("plot: requires a file that can be written, got '" + (folder / "no/x.png")));
  CHECK_THAT(error_text([] {
               Figure().line("a", cr::Array({1.0}), cr::Array({1.0, 2.0}));
             }),
             ContainsSubstring("plot: requires as many x as y in 'a', got 1 and 2"));
  CHECK_THAT(error_text([] { Figure().line("a", cr::Array({std::nan("")})); }),
             ContainsSubstring("requires at least one finite point in 'a', got 1 others"));
  CHECK_THAT(error_text([] { Figure({.log_y = true}).line("a", cr::Array({-1.0})); }),
             ContainsSubstring("(above 0 on a logarithmic axis)"));
  CHECK_THAT(error_text([] { Figure({.width = 5}); }),
             ContainsSubstring("requires a width and height of 100 to 20000"));
  const cr::data::Dataset three{cr::Array(cr::float64, {3, 4}), cr::Array(cr::float64, {1, 4})};
  CHECK_THAT(error_text([&] { Figure().classes(three); }),
             ContainsSubstring("requires a data set of two features") && ContainsSubstring("got {3, 4} along axis 1"));
  const cr::data::Dataset hot{cr::Array(cr::float64, {2, 4}), cr::Array(cr::float64, {2, 4})};
  CHECK_THAT(error_text([&] { Figure().classes(hot); }), ContainsSubstring("requires one label for each"));
  CHECK_THAT(error_text([&] { Figure().classes(moons(), {"only one"}); }),
             ContainsSubstring("requires names of all 2 classes"));
  CHECK_THAT(error_text([&] { Figure().regions(moons(), [](const cr::Array&) { return cr::Array({1.0}); }); }),
             ContainsSubstring("requires a classifier that returns a number for each of {2, 300} points, got {1}"));
  CHECK_THAT(error_text([] {
               Figure().contours([](double, double) { return 0.0; }, {1, 1}, {0, 1});
             }),
             ContainsSubstring("requires ranges that are not empty"));
  CHECK(folder.files() == 0);
}

TEST_CASE("Without gnuplot, or with one that fails, there is one error and no file") {
  const TemporaryFolder folder;
  const std::string path = std::getenv("PATH");
  const auto save = [&] { Figure().line("a", cr::Array({1.0, 2.0})).save(folder / "x.png"); };
  setenv("PATH", (folder / "").c_str(), 1);
  CHECK_THAT(error_text(save),
             ContainsSubstring("plot: requires the program gnuplot (Debian package gnuplot-nox), got none"));
  CHECK(folder.files() == 0);
  const auto fake = [&](const std::string& script) {
    chainrule::test::write_file(folder / "gnuplot", "#!/bin/sh\n" + script);
    std::filesystem::permissions(folder / "gnuplot", std::filesystem::perms::owner_all);
    const std::string text = error_text(save);
    CHECK(folder.files() == 1);
    return text;
  };
  CHECK_THAT(fake("echo 'no such terminal' >&2; exit 3\n"),
             ContainsSubstring("requires gnuplot to end well, got exit code 3: no such terminal"));
  CHECK_THAT(fake("kill -9 $$\n"), ContainsSubstring("requires gnuplot to end well, got signal 9"));
  CHECK_THAT(fake("exit 0\n"), ContainsSubstring("requires gnuplot to draw a picture, got none"));
  setenv("PATH", path.c_str(), 1);
}
