#include <chainrule/framework/convolutions/pooling.hpp>

#include <limits>
#include <memory>

#include <chainrule/framework/convolutions/work.hpp>
#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/lines.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::convolutions {

namespace {

// Of windows with attributes window, stride, padding and dilation, over the spatial axes of x, with outputs as y's.
Geometry windows_of(const Dims& x, const Axes& outputs, const Attributes& attributes) {
  const auto& window = attributes.get<Axes>("window");
  const auto& stride = attributes.get<Axes>("stride");
  const auto& padding = attributes.get<Axes>("padding");
  const auto& dilation = attributes.get<Axes>("dilation");
  Geometry g;
  g.images = x[0] * x[1];
  const std::size_t spatial = x.rank() - 2;
  for (std::size_t i = 0; i < spatial; ++i)
    g.axes[3 - spatial + i] = {x[2 + i], outputs[i], window[i], stride[i], dilation[i], padding[i]};
  return g;
}

Axes spatial_of(const Dims& y) {
  Axes out;
  for (std::size_t i = 2; i < y.rank(); ++i) out.push_back(y[i]);
  return out;
}

// ---- maxima

// The taps of each output along an axis that lie in the input: begin, begin + step, ..., before end.
struct WindowAxis {
  std::vector<Range> taps;  // by output
  std::int64_t step = 1;

  static WindowAxis regular(const Axis& axis) {
    WindowAxis out;
    out.step = axis.dilation;
    for (std::int64_t o = 0; o < axis.out; ++o) {
      const std::int64_t first = o * axis.stride - axis.before;
      const std::int64_t outside = first < 0 ? ceil_quotient(-first, axis.dilation) : 0;
      out.taps.push_back(
          {first + outside * axis.dilation, std::min(axis.in, first + (axis.taps - 1) * axis.dilation + 1)});
    }
    return out;
  }
  // As even as they go, none empty.
  static WindowAxis even(std::int64_t in, std::int64_t out) {
    WindowAxis axis;
    for (std::int64_t o = 0; o < out; ++o) axis.taps.push_back({o * in / out, ceil_quotient((o + 1) * in, out)});
    return axis;
  }
};

// The windows of one channel of one image.
struct MaxWindows {
  std::int64_t channels;  // of all images
  std::array<WindowAxis, 3> axes;
  std::array<std::int64_t, 3> in{1, 1, 1};
  std::array<std::int64_t, 3> out{1, 1, 1};
  Axis columns;
  bool regular;

  MaxWindows(const Dims& x, const Dims& y, const Attributes& attributes)
      : channels(x[0] * x[1]), regular(attributes.get<Axes>("outputs").empty()) {
    const std::size_t first = 3 - (x.rank() - 2);
    for (std::size_t i = first; i < 3; ++i) {
      in[i] = x[2 + i - first];
      out[i] = y[2 + i - first];
    }
    if (regular) {
      const Geometry g = windows_of(x, spatial_of(y), attributes);
      for (std::size_t i = 0; i < 3; ++i) axes[i] = WindowAxis::regular(g.axes[i]);
      columns = g.columns();
    } else {
      for (std::size_t i = 0; i < 3; ++i) axes[i] = WindowAxis::even(in[i], out[i]);
    }
  }

  [[nodiscard]] std::int64_t inputs() const { return in[0] * in[1] * in[2]; }
  [[nodiscard]] std::int64_t outputs() const { return out[0] * out[1] * out[2]; }
  [[nodiscard]] std::int64_t rows() const { return out[0] * out[1]; }

  // f(place in a channel, step, first output of the row, number of outputs) for all taps of a row of outputs, in order:
  // the outputs' elements lie at place, place + step, ...
  template <class F>
  void for_each_tap(std::int64_t row, F f) const {
    const Range planes = axes[0].taps[static_cast<std::size_t>(row / out[1])];
    const Range lines = axes[1].taps[static_cast<std::size_t>(row % out[1])];
    for (std::int64_t plane = planes.begin; plane < planes.end; plane += axes[0].step)
      for (std::int64_t line = lines.begin; line < lines.end; line += axes[1].step) {
        const std::int64_t begin = (plane * in[1] + line) * in[2];
        if (regular) {
          for (std::int64_t s = 0; s < columns.taps; ++s) {
            const Range inside = columns.outputs_inside(s, {0, columns.in});
            if (inside.size() > 0)
              f(begin + inside.begin * columns.stride + s * columns.dilation - columns.before, columns.stride,
                inside.begin, inside.size());
          }
        } else {
          for (std::int64_t o = 0; o < out[2]; ++o) {
            const Range taps = axes[2].taps[static_cast<std::size_t>(o)];
            for (std::int64_t tap = taps.begin; tap < taps.end; ++tap) f(begin + tap, 1, o, 1);
          }
        }
      }
  }

  template <class T>
  void greatest(const T* x, std::int64_t row, T* best) const {
    const auto max = kernels::table<T>().windows.max;
    std::fill_n(best, out[2], -std::numeric_limits<T>::infinity());
    for_each_tap(row, [&](std::int64_t place, std::int64_t step, std::int64_t o, std::int64_t n) {
      max(x + place, step, n, best + o);
    });
  }
};

// A kernel over windows: make(windows) gives run(channel, inputs, output, two rows of scratch).
template <class F>
Forward over_channels(std::size_t like_x, F make) {
  Forward forward;
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.kernel = [=](KernelCall& call) -> KernelRun {
    const bool gives_x = like_x == 1;  // else y
    const Dims& y = gives_x ? call.inputs[1].shape : call.output.shape;
    auto windows = std::make_shared<const MaxWindows>(call.inputs[0].shape, y, call.attributes);
    if (count(call.output.shape) == 0) return [](const KernelBuffers&) {};
    return visit_floating(call.output.dtype, [&]<class T>(T) -> KernelRun {
      call.workspace = in_whole_lines(2 * windows->out[2] * static_cast<std::int64_t>(sizeof(T)));
      detail::reserve_scratch(call.workspace);
      // About as long as so many multiplications and additions.
      const double cost = 16 * static_cast<double>(windows->channels * (windows->inputs() + windows->outputs()));
      return [windows, cost, run = make(T())](const KernelBuffers& buffers) {
        run_parts(windows->channels, cost, buffers.workspace, [&](std::int64_t channel, void* scratch) {
          run(*windows, channel, buffers, static_cast<T*>(scratch));
        });
      };
    });
  };
  return forward;
}

}  // namespace

Forward max_windows() {
  Forward forward = over_channels(0, []<class T>(T) {
    return [](const MaxWindows& w, std::int64_t channel, const KernelBuffers& buffers, T*) {
      const T* const x = static_cast<const T*>(buffers.inputs[0]) + channel * w.inputs();
      T* const y = static_cast<T*>(buffers.output) + channel * w.outputs();
      for (std::int64_t row = 0; row < w.rows(); ++row) w.greatest(x, row, y + row * w.out[2]);
    };
  });
  forward.exact = true;
  return forward;
}

Forward gather_from_maxima() {
  Forward forward = over_channels(0, []<class T>(T) {
    return [](const MaxWindows& w, std::int64_t channel, const KernelBuffers& buffers, T* best) {
      const auto gather = kernels::table<T>().windows.max_gather;
      const T* const x = static_cast<const T*>(buffers.inputs[0]) + channel * w.inputs();
      const T* const from = static_cast<const T*>(buffers.inputs[1]) + channel * w.inputs();
      T* const open = best + w.out[2];
      for (std::int64_t row = 0; row < w.rows(); ++row) {
        T* const to = static_cast<T*>(buffers.output) + channel * w.outputs() + row * w.out[2];
        w.greatest(x, row, best);
        std::fill_n(open, w.out[2], T(1));
        std::fill_n(to, w.out[2], T(0));
        w.for_each_tap(row, [&](std::int64_t place, std::int64_t step, std::int64_t o, std::int64_t n) {
          gather(x + place, from + place, step, n, best + o, open + o, to + o);
        });
      }
    };
  });
  forward.exact = true;
  return forward;
}

Forward scatter_to_maxima() {
  return over_channels(1, []<class T>(T) {
    return [](const MaxWindows& w, std::int64_t channel, const KernelBuffers& buffers, T* best) {
      const auto scatter = kernels::table<T>().windows.max_scatter;
      const T* const x = static_cast<const T*>(buffers.inputs[0]) + channel * w.inputs();
      const T* const dy = static_cast<const T*>(buffers.inputs[1]) + channel * w.outputs();
      T* const to = static_cast<T*>(buffers.output) + channel * w.inputs();
      T* const rest = best + w.out[2];
      std::fill_n(to, w.inputs(), T(0));
      for (std::int64_t row = 0; row < w.rows(); ++row) {
        w.greatest(x, row, best);
        std::copy_n(dy + row * w.out[2], w.out[2], rest);
        w.for_each_tap(row, [&](std::int64_t place, std::int64_t step, std::int64_t o, std::int64_t n) {
          scatter(x + place, step, n, best + o, rest + o, to + place);
        });
      }
    };
  });
}

// ---- linear maps along an axis

namespace {

Terms transposed(const Terms& terms, std::int64_t inputs) {
  Terms out(static_cast<std::size_t>(inputs));
  for (std::size_t i = 0; i < terms.size(); ++i)
    for (const auto& [index, weight] : terms[i])
      out[static_cast<std::size_t>(index)].push_back({static_cast<std::int64_t>(i), weight});
  return out;
}

// The terms of all rows, one behind the other.
template <class T>
struct Rows {
  std::vector<std::int64_t> begin{0};
  std::vector<std::int64_t> index;
  std::vector<T> weight;

  explicit Rows(const Terms& terms) {
    for (const auto& row : terms) {
      for (const Term& term : row) {
        index.push_back(term.index);
        weight.push_back(static_cast<T>(term.weight));
      }
      begin.push_back(static_cast<std::int64_t>(index.size()));
    }
  }
  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(begin.size()) - 1; }

  // Output row i of lines that lie `inner` beside each other.
  void sum(const T* x, std::int64_t i, std::int64_t inner, T* to) const {
    const auto first = static_cast<std::size_t>(begin[static_cast<std::size_t>(i)]);
    const auto last = static_cast<std::size_t>(begin[static_cast<std::size_t>(i) + 1]);
    if (inner == 1) {
      T total = 0;
      for (std::size_t p = first; p < last; ++p) total += weight[p] * x[index[p]];
      *to = total;
      return;
    }
    std::fill_n(to, inner, T(0));
    for (std::size_t p = first; p < last; ++p) {
      const T* const from = x + index[p] * inner;
      for (std::int64_t k = 0; k < inner; ++k) to[k] += weight[p] * from[k];
    }
  }
};

Forward sums(TermsOf terms_of, bool transpose) {
  Forward forward;
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.kernel = [=](KernelCall& call) -> KernelRun {
    const kernels::Lines from(call.inputs[0].shape, kernels::axis_of(call.attributes));
    const kernels::Lines to(call.output.shape, kernels::axis_of(call.attributes));
    if (count(call.output.shape) == 0) return [](const KernelBuffers&) {};
    const Terms terms =
        transpose ? transposed(terms_of(call.attributes, to.n, from.n), to.n) : terms_of(call.attributes, from.n, to.n);
    return visit_floating(call.output.dtype, [&]<class T>(T) -> KernelRun {
      auto rows = std::make_shared<const Rows<T>>(terms);
      const std::int64_t each = static_cast<std::int64_t>(rows->index.size()) * from.inner + 1;
      const std::int64_t grain = std::max<std::int64_t>(1, (1 << 15) / each);
      return [=](const KernelBuffers& buffers) {
        const auto* x = static_cast<const T*>(buffers.inputs[0]);
        auto* y = static_cast<T*>(buffers.output);
        parallel_for(from.outer, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t o = begin; o < end; ++o)
            for (std::int64_t i = 0; i < to.n; ++i)
              rows->sum(x + o * from.n * from.inner, i, from.inner, y + (o * to.n + i) * from.inner);
        });
      };
    });
  };
  return forward;
}

}  // namespace

Forward weighted_sums(TermsOf terms) { return sums(terms, false); }
Forward transposed_weighted_sums(TermsOf terms) { return sums(terms, true); }

// ---- windows as columns

namespace {

// Calls f(at, from, rows, columns) for each tap and plane of outputs: its elements of these rows and columns of
// outputs, which are those that lie in the input, begin at element `from` of the input's channel; the plane is at `at`
// among the columns.
template <class F>
void for_each_tap(const Geometry& g, F f) {
  const auto& [planes, down, across] = g.axes;
  for (std::int64_t tap = 0; tap < g.taps(); ++tap) {
    Index index(tap);
    const std::int64_t s = index.next(across.taps);
    const std::int64_t r = index.next(down.taps);
    const std::int64_t t = index.next(planes.taps);
    const Range rows = down.outputs_inside(r, {0, down.in});
    const Range columns = across.outputs_inside(s, {0, across.in});
    for (std::int64_t plane = 0; plane < planes.out; ++plane) {
      const std::int64_t in_plane = plane * planes.stride + t * planes.dilation - planes.before;
      const bool inside = in_plane >= 0 && in_plane < planes.in && rows.size() > 0 && columns.size() > 0;
      const std::int64_t in_row = rows.begin * down.stride + r * down.dilation - down.before;
      const std::int64_t in_column = columns.begin * across.stride + s * across.dilation - across.before;
      f(tap * g.outputs() + plane * down.out * across.out,
        inside ? (in_plane * down.in + in_row) * across.in + in_column : 0, inside ? rows : Range{0, 0},
        inside ? columns : Range{0, 0});
    }
  }
}

// run(geometry, one channel's input or output, its columns) for each channel.
template <class F>
Forward columns_of(bool gives_columns, F run) {
  Forward forward;
  forward.dtypes = Forward::Dtypes::one_floating;
  forward.exact = gives_columns;
  forward.kernel = [=](KernelCall& call) -> KernelRun {
    const Dims& x = gives_columns ? call.inputs[0].shape : call.output.shape;
    const Attributes& a = call.attributes;
    const std::size_t spatial = x.rank() - 2;
    Axes outputs;
    for (std::size_t i = 0; i < spatial; ++i)
      outputs.push_back((x[i + 2] + a.get<Axes>("padding")[i] + a.get<Axes>("padding")[spatial + i] -
                         a.get<Axes>("dilation")[i] * (a.get<Axes>("window")[i] - 1) - 1) /
                            a.get<Axes>("stride")[i] +
                        1);
    const Geometry g = windows_of(x, outputs, a);
    if (count(call.output.shape) == 0) return [](const KernelBuffers&) {};
    return visit_floating(call.output.dtype, [&]<class T>(T) -> KernelRun {
      const std::int64_t columns = g.taps() * g.outputs();
      const std::int64_t grain = std::max<std::int64_t>(1, (1 << 15) / (columns + g.inputs()));
      return [=](const KernelBuffers& buffers) {
        parallel_for(g.images, grain, [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t c = begin; c < end; ++c)
            run(g, static_cast<const T*>(buffers.inputs[0]) + c * (gives_columns ? g.inputs() : columns),
                static_cast<T*>(buffers.output) + c * (gives_columns ? columns : g.inputs()));
        });
      };
    });
  };
  return forward;
}

}  // namespace

Forward unfold() {
  return columns_of(true, []<class T>(const Geometry& g, const T* x, T* out) {
    const auto spread = kernels::table<T>().windows.spread;
    const auto& [planes, down, across] = g.axes;
    for_each_tap(g, [&, &down = down, &across = across](std::int64_t at, std::int64_t from, Range rows, Range columns) {
      T* const to = out + at;
      std::fill_n(to, rows.begin * across.out, T(0));
      std::fill(to + rows.end * across.out, to + down.out * across.out, T(0));
      if (rows.size() == 0) return;
      spread({x + from, down.stride * across.in, across.stride, to + rows.begin * across.out, across.out, rows.size(),
              across.out, columns.begin, columns.end});
    });
  });
}

Forward fold() {
  return columns_of(false, []<class T>(const Geometry& g, const T* columns_of_x, T* x) {
    const auto add = kernels::table<T>().windows.add;
    const auto& [planes, down, across] = g.axes;
    std::fill_n(x, g.inputs(), T(0));
    for_each_tap(g, [&, &down = down, &across = across](std::int64_t at, std::int64_t from, Range rows, Range columns) {
      for (std::int64_t row = rows.begin; row < rows.end; ++row)
        add(columns_of_x + at + row * across.out + columns.begin, columns.size(),
            x + from + (row - rows.begin) * down.stride * across.in, across.stride);
    });
  });
}

}  // namespace chainrule::convolutions
