#include <chainrule/framework/convolutions/geometry.hpp>

namespace chainrule::convolutions {

double Geometry::flops() const {
  return 2.0 * static_cast<double>(images * groups) * static_cast<double>(channels * features) *
         static_cast<double>(outputs()) * static_cast<double>(taps());
}

Geometry geometry_of(const Dims& x, const Dims& w, const Dims& y, const Attributes& attributes) {
  const auto& stride = attributes.get<Axes>("stride");
  const auto& padding = attributes.get<Axes>("padding");
  const auto& dilation = attributes.get<Axes>("dilation");
  Geometry g;
  g.images = x[0];
  g.groups = attributes.get<std::int64_t>("groups");
  g.channels = w[1];
  g.features = w[0] / g.groups;
  const std::size_t spatial = x.rank() - 2;
  for (std::size_t i = 0; i < spatial; ++i)
    g.axes[3 - spatial + i] = {x[2 + i], y[2 + i], w[2 + i], stride[i], dilation[i], padding[i]};
  return g;
}

}  // namespace chainrule::convolutions
