#include <chainrule/framework/convolutions/windows.hpp>

#include <algorithm>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::convolutions {

Phases::Phases(const Axis& axis) : axis_(axis), phases_(static_cast<std::size_t>(axis.stride), -1) {
  for (std::int64_t tap = 0; tap < axis.taps; ++tap) {
    std::int64_t& phase = phases_[static_cast<std::size_t>(remainder(tap))];
    if (phase < 0) {
      phase = count();
      remainders_.push_back(remainder(tap));
      least_.push_back(lag(tap));
      greatest_.push_back(0);
    }
    greatest_[static_cast<std::size_t>(phase)] = lag(tap);
  }
}

// ---- windows

Windows::Windows(const Geometry& geometry, std::int64_t rows, std::int64_t columns, std::int64_t segment)
    : geometry_(geometry),
      row_phases_(geometry.rows()),
      column_phases_(geometry.columns()),
      in_segments_(geometry.columns().taps > 1 && columns == geometry.columns().out && columns % segment == 0) {
  const Axis& across = geometry.columns();
  if (in_segments_) {
    for (std::int64_t phase = 0; phase < column_phases_.count(); ++phase) {
      const std::int64_t least = column_phases_.least(phase);
      copies_.push_back(
          {least * across.stride + column_phases_.remainder_of(phase), column_phases_.greatest(phase) - least});
    }
  } else {
    for (std::int64_t s = 0; s < across.taps; ++s) copies_.push_back({s * across.dilation, 0});
  }
  for (const Copy& copy : copies_) line_ = std::max(line_, columns + copy.more);
  std::int64_t all = 0;
  for (std::int64_t phase = 0; phase < row_phases_.count(); ++phase) {
    begin_.push_back(all);
    all += rows + row_phases_.greatest(phase) - row_phases_.least(phase);
  }
  copy_ = all * line_;
  plane_ = copies() * copy_;
}

std::int64_t Windows::offset(std::int64_t t, std::int64_t r, std::int64_t s) const {
  const std::int64_t phase = row_phases_.of_tap(r);
  const std::int64_t row = begin_[static_cast<std::size_t>(phase)] + row_phases_.lag(r) - row_phases_.least(phase);
  const std::int64_t column = in_segments_ ? column_phases_.lag(s) - column_phases_.least(copy_of(s)) : 0;
  return t * plane_ + copy_of(s) * copy_ + row * line_ + column;
}

template <class T>
void Windows::fill(const T* x, std::int64_t channels, std::int64_t plane, Range rows, Range columns, T* to) const {
  const auto& [planes, down, across] = geometry_.axes;
  const auto spread = kernels::table<T>().windows.spread;
  kernels::SpreadRows<T> call{};
  call.step = across.stride;
  call.to_row = line_;
  call.from_row = down.stride * across.in;
  for (std::int64_t t = 0; t < planes.taps; ++t) {
    const std::int64_t in_plane = plane * planes.stride + t * planes.dilation - planes.before;
    const bool has_plane = in_plane >= 0 && in_plane < planes.in;
    for (std::int64_t copy = 0; copy < copies(); ++copy) {
      const auto [shift, more] = copies_[static_cast<std::size_t>(copy)];
      // Columns of inputs (columns.begin + m) stride + shift - before, for m of [0, call.columns).
      call.columns = columns.size() + more;
      const std::int64_t column = columns.begin * across.stride + shift - across.before;
      call.begin = std::clamp<std::int64_t>(ceil_quotient(-column, across.stride), 0, call.columns);
      call.end = std::clamp<std::int64_t>(ceil_quotient(across.in - column, across.stride), call.begin, call.columns);
      for (std::int64_t phase = 0; phase < row_phases_.count(); ++phase) {
        // Rows of inputs (rows.begin + least + m) stride + remainder - before, for m of [0, all).
        const std::int64_t all = rows.size() + row_phases_.greatest(phase) - row_phases_.least(phase);
        const std::int64_t first =
            (rows.begin + row_phases_.least(phase)) * down.stride + row_phases_.remainder_of(phase) - down.before;
        const std::int64_t begin =
            has_plane ? std::clamp<std::int64_t>(ceil_quotient(-first, down.stride), 0, all) : all;
        const std::int64_t end =
            has_plane ? std::clamp<std::int64_t>(ceil_quotient(down.in - first, down.stride), begin, all) : all;
        T* at = to + t * plane_ + copy * copy_ + begin_[static_cast<std::size_t>(phase)] * line_;
        call.rows = end - begin;
        // Where no column is inside, nothing is read.
        call.from = x + (in_plane * down.in + first + begin * down.stride) * across.in +
                    (call.begin < call.end ? column + call.begin * across.stride : 0);
        for (std::int64_t c = 0; c < channels; ++c, at += size(), call.from += geometry_.inputs()) {
          if (begin > 0) std::fill_n(at, begin * line_, T(0));
          if (end < all) std::fill_n(at + end * line_, (all - end) * line_, T(0));
          call.to = at + begin * line_;
          if (call.rows > 0) spread(call);
        }
      }
    }
  }
}
template void Windows::fill(const float*, std::int64_t, std::int64_t, Range, Range, float*) const;
template void Windows::fill(const double*, std::int64_t, std::int64_t, Range, Range, double*) const;

std::vector<std::int64_t> segments_of(std::int64_t rows, std::int64_t columns, std::int64_t line,
                                      std::int64_t segment) {
  std::vector<std::int64_t> starts;
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < columns; column += segment) starts.push_back(row * line + column);
  return starts;
}

// ---- their transpose

Spread::Spread(const Geometry& geometry, std::int64_t rows, std::int64_t columns)
    : geometry_(geometry),
      phases_(geometry.rows()),
      columns_(columns),
      phase_rows_(ceil_quotient(rows, geometry.rows().stride)),
      copy_(phases_.count() * phase_rows_ * columns) {}

// Of the rows of inputs with a phase's remainder, padding counted, the first.
std::int64_t Spread::first(std::int64_t phase, Range inputs) const {
  const Axis& down = geometry_.rows();
  return ceil_quotient(inputs.begin + down.before - phases_.remainder_of(phase), down.stride);
}

Range Spread::outputs(std::int64_t r, Range inputs) const { return geometry_.rows().outputs_inside(r, inputs); }

std::int64_t Spread::place(std::int64_t r, Range inputs) const {
  const std::int64_t phase = phases_.of_tap(r);
  return (phase * phase_rows_ + outputs(r, inputs).begin + phases_.lag(r) - first(phase, inputs)) * columns_;
}

template <class T>
void Spread::collect(const T* copies, Range rows, Range inputs, Range columns, T* plane) const {
  const Axis& down = geometry_.rows();
  const Axis& across = geometry_.columns();
  kernels::CollectedRows<T> call{};
  call.copy = copy_;
  call.from_row = columns_;
  call.taps = across.taps;
  call.step = across.stride;
  call.dilation = across.dilation;
  call.before = across.before;
  call.first = columns.begin;
  call.last = columns.end;
  call.to_row = down.stride * across.in;
  call.begin = inputs.begin;
  call.end = inputs.end;
  // The rows of each remainder; those of none are zeros.
  for (std::int64_t row = rows.begin; row < std::min(rows.end, rows.begin + down.stride); ++row) {
    const std::int64_t padded = row + down.before;
    const std::int64_t phase = phases_.of_remainder(padded % down.stride);
    call.rows = ceil_quotient(rows.end - row, down.stride);
    call.to = plane + row * across.in;
    if (phase < 0) {
      for (std::int64_t i = 0; i < call.rows; ++i)
        std::fill(call.to + i * call.to_row + inputs.begin, call.to + i * call.to_row + inputs.end, T(0));
      continue;
    }
    call.copies = copies + (phase * phase_rows_ + padded / down.stride - first(phase, rows)) * columns_;
    kernels::table<T>().windows.collect(call);
  }
}
template void Spread::collect(const float*, Range, Range, Range, float*) const;
template void Spread::collect(const double*, Range, Range, Range, double*) const;

}  // namespace chainrule::convolutions
