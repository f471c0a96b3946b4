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
  std::int64_t down_stride = 1;
  bool regular;
  // Rows of outputs whose windows have the same taps, where that is known: all rows, or none.
  struct Rows {
    std::int64_t first = 0;
    std::int64_t count = 0;
    std::int64_t place = 0;  // of the first one's windows in a channel: offsets of taps are from here
    std::vector<kernels::WindowTap> taps;
  };
  std::vector<Rows> alike;
  bool in_pairs = false;  // kernels::MaximaOfRows
  bool apart = false;     // whether no element is in two windows
  bool covers = false;    // whether every element is in one
  bool goes_on = false;   // whether the rows of the next channel are further ones, alike, of this

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
      down_stride = g.rows().stride;
      find_alike(g);
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

  void find_alike(const Geometry& g) {
    const auto is_apart = [](const Axis& axis) { return axis.stride >= (axis.taps - 1) * axis.dilation + 1; };
    const auto inside = [](const Axis& axis) {
      return axis.before == 0 && (axis.out - 1) * axis.stride + (axis.taps - 1) * axis.dilation < axis.in;
    };
    const auto covered = [](const Axis& axis) {
      return axis.before == 0 && axis.taps == axis.stride && axis.dilation == 1 && axis.out * axis.stride == axis.in;
    };
    const auto& [planes, down, across] = g.axes;
    in_pairs = inside(across) && across.taps == 2 && across.stride == 2 && across.dilation == 1;
    apart = is_apart(planes) && is_apart(down) && is_apart(across);
    covers = covered(planes) && covered(down) && covered(across);
    for (std::int64_t row = 0; row < rows(); ++row) {
      Rows now;
      now.first = row;
      now.count = 1;
      now.place = (row / out[1] * planes.stride * in[1] + row % out[1] * down.stride) * in[2];
      for_each_tap(row, [&](std::int64_t place, std::int64_t step, std::int64_t o, std::int64_t n) {
        now.taps.push_back({place - o * step - now.place, o, o + n});
      });
      if (now.taps.size() > static_cast<std::size_t>(kernels::WindowTable<float>::most_window_taps)) {
        alike.clear();
        return;
      }
      const bool more = row % out[1] > 0 && std::equal(now.taps.begin(), now.taps.end(), alike.back().taps.begin(),
                                                       alike.back().taps.end(), same);
      if (more) {
        ++alike.back().count;
      } else {
        alike.push_back(std::move(now));
      }
    }
    goes_on = alike.size() == 1 && rows() * down.stride * in[2] == inputs();
  }
  static bool same(const kernels::WindowTap& a, const kernels::WindowTap& b) {
    return a.offset == b.offset && a.begin == b.begin && a.end == b.end;
  }

  // What the kernels are told of such rows of the channel x.
  template <class T>
  [[nodiscard]] kernels::MaximaOfRows<T> call_of(const Rows& of, const T* x) const {
    kernels::MaximaOfRows<T> call{};
    call.x = x + of.place;
    call.x_row = down_stride * in[2];
    call.taps = of.taps.data();
    call.count = static_cast<int>(of.taps.size());
    call.step = columns.stride;
    call.rows = of.count;
    call.columns = out[2];
    call.in_pairs = in_pairs;
    return call;
  }

  // Of some channels that follow each other.
  template <class T>
  void maxima(const T* x, T* y, std::int64_t n) const {
    if (goes_on) {
      auto call = call_of(alike[0], x);
      call.rows *= n;
      call.y = y;
      return kernels::table<T>().windows.maxima(call);
    }
    for (std::int64_t channel = 0; channel < n; ++channel, x += inputs(), y += outputs()) {
      for (const Rows& of : alike) {
        auto call = call_of(of, x);
        call.y = y + of.first * out[2];
        kernels::table<T>().windows.maxima(call);
      }
      if (!alike.empty()) continue;
      for (std::int64_t row = 0; row < rows(); ++row) greatest(x, row, y + row * out[2]);
    }
  }

  // `best`: two rows of scratch memory.
  template <class T>
  void scatter(const T* x, const T* dy, T* dx, std::int64_t n, T* best) const {
    const auto& table = kernels::table<T>().windows;
    const bool writes = in_pairs && apart && table.can_write && !alike.empty();
    if (!(writes && covers)) std::fill_n(dx, n * inputs(), T(0));
    if (goes_on) {
      auto windows = call_of(alike[0], x);
      windows.rows *= n;
      return table.scatter_to_maxima({windows, dy, dx, writes});
    }
    for (std::int64_t channel = 0; channel < n; ++channel, x += inputs(), dy += outputs(), dx += inputs()) {
      for (const Rows& of : alike)
        table.scatter_to_maxima({call_of(of, x), dy + of.first * out[2], dx + of.place, writes});
      if (alike.empty()) scatter_by_rows(x, dy, dx, best);
    }
  }

  template <class T>
  void scatter_by_rows(const T* x, const T* dy, T* dx, T* best) const {
    const auto add = kernels::table<T>().windows.max_scatter;
    T* const rest = best + out[2];
    for (std::int64_t row = 0; row < rows(); ++row) {
      greatest(x, row, best);
      std::copy_n(dy + row * out[2], out[2], rest);
      for_each_tap(row, [&](std::int64_t place, std::int64_t step, std::int64_t o, std::int64_t count) {
        add(x + place, step, count, best + o, rest + o, dx + place);
      });
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

// A kernel over windows: make(T) gives run(windows, range of channels, buffers, two rows of scratch memory).
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
      const Split some = Split::of(windows->channels, std::max<std::int64_t>(1, 4096 / windows->inputs()));
      return [windows, some, cost, run = make(T())](const KernelBuffers& buffers) {
        run_parts(some.pieces, cost, buffers.workspace, [&](std::int64_t part, void* scratch) {
          run(*windows, range_of(some, part), buffers, static_cast<T*>(scratch));
        });
      };
    });
  };
  return forward;
}

}  // namespace

Forward max_windows() {
  Forward forward = over_channels(0, []<class T>(T) {
    return [](const MaxWindows& w, Range channels, const KernelBuffers& buffers, T*) {
      w.maxima(static_cast<const T*>(buffers.inputs[0]) + channels.begin * w.inputs(),
               static_cast<T*>(buffers.output) + channels.begin * w.outputs(), channels.size());
    };
  });
  forward.exact = true;
  return forward;
}

Forward gather_from_maxima() {
  Forward forward = over_channels(0, []<class T>(T) {
    return [](const MaxWindows& w, Range channels, const KernelBuffers& buffers, T* best) {
      const auto gather = kernels::table<T>().windows.max_gather;
      T* const open = best + w.out[2];
      for (std::int64_t channel = channels.begin; channel < channels.end; ++channel) {
        const T* const x = static_cast<const T*>(buffers.inputs[0]) + channel * w.inputs();
        const T* const from = static_cast<const T*>(buffers.inputs[1]) + channel * w.inputs();
        for (std::int64_t row = 0; row < w.rows(); ++row) {
          T* const to = static_cast<T*>(buffers.output) + channel * w.outputs() + row * w.out[2];
          w.greatest(x, row, best);
          std::fill_n(open, w.out[2], T(1));
          std::fill_n(to, w.out[2], T(0));
          w.for_each_tap(row, [&](std::int64_t place, std::int64_t step, std::int64_t o, std::int64_t n) {
            gather(x + place, from + place, step, n, best + o, open + o, to + o);
          });
        }
      }
    };
  });
  forward.exact = true;
  return forward;
}

Forward scatter_to_maxima() {
  return over_channels(1, []<class T>(T) {
    return [](const MaxWindows& w, Range channels, const KernelBuffers& buffers, T* best) {
      w.scatter(static_cast<const T*>(buffers.inputs[0]) + channels.begin * w.inputs(),
                static_cast<const T*>(buffers.inputs[1]) + channels.begin * w.outputs(),
                static_cast<T*>(buffers.output) + channels.begin * w.inputs(), channels.size(), best);
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
