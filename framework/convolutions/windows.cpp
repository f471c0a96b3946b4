#include <chainrule/framework/convolutions/windows.hpp>

#include <algorithm>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::convolutions {

RowPhases::RowPhases(const Axis& rows) : axis_(rows), phases_(static_cast<std::size_t>(rows.stride), -1) {
  for (std::int64_t r = 0; r < rows.taps; ++r) {
    std::int64_t& phase = phases_[static_cast<std::size_t>(remainder(r))];
    if (phase >= 0) continue;
    phase = count();
    remainders_.push_back(remainder(r));
  }
}

// ---- windows

Windows::Windows(const Geometry& geometry, std::int64_t rows, std::int64_t columns)
    : geometry_(geometry),
      row_phases_(geometry.rows()),
      columns_(columns),
      phases_(static_cast<std::size_t>(row_phases_.count()), Phase{0, -1, -1}) {
  for (std::int64_t r = 0; r < geometry.rows().taps; ++r) {
    Phase& phase = phases_[static_cast<std::size_t>(row_phases_.of_tap(r))];
    if (phase.least < 0) phase.least = row_phases_.lag(r);
    phase.greatest = row_phases_.lag(r);
  }
  std::int64_t all = 0;
  for (Phase& phase : phases_) {
    phase.begin = all;
    all += rows + phase.greatest - phase.least;
  }
  copy_ = all * columns;
  plane_ = geometry.columns().taps * copy_;
}

std::int64_t Windows::offset(std::int64_t t, std::int64_t r, std::int64_t s) const {
  const Phase& phase = phases_[static_cast<std::size_t>(row_phases_.of_tap(r))];
  return t * plane_ + s * copy_ + (phase.begin + row_phases_.lag(r) - phase.least) * columns_;
}

template <class T>
void Windows::fill(const T* channel, std::int64_t plane, Range rows, Range columns, T* to) const {
  const auto& [planes, down, across] = geometry_.axes;
  const auto spread = kernels::table<T>().windows.spread;
  kernels::SpreadRows<T> call{};
  call.step = across.stride;
  call.to_row = columns_;
  call.columns = columns.size();
  call.from_row = down.stride * across.in;
  for (std::int64_t t = 0; t < planes.taps; ++t) {
    const std::int64_t in_plane = plane * planes.stride + t * planes.dilation - planes.before;
    const bool has_plane = in_plane >= 0 && in_plane < planes.in;
    for (std::int64_t s = 0; s < across.taps; ++s) {
      const Range inside = across.outputs_inside(s, {0, across.in});
      call.begin = std::clamp(inside.begin, columns.begin, columns.end) - columns.begin;
      call.end = std::max(call.begin, std::clamp(inside.end, columns.begin, columns.end) - columns.begin);
      const std::int64_t column = (columns.begin + call.begin) * across.stride + s * across.dilation - across.before;
      for (std::size_t i = 0; i < phases_.size(); ++i) {
        const Phase& phase = phases_[i];
        // Rows of inputs (rows.begin + least + m) stride + remainder - before, for m of [0, all).
        const std::int64_t all = rows.size() + phase.greatest - phase.least;
        const std::int64_t remainder = row_phases_.remainder_of(static_cast<std::int64_t>(i));
        const std::int64_t first = (rows.begin + phase.least) * down.stride + remainder - down.before;
        const std::int64_t begin =
            has_plane ? std::clamp<std::int64_t>(ceil_quotient(-first, down.stride), 0, all) : all;
        const std::int64_t end =
            has_plane ? std::clamp<std::int64_t>(ceil_quotient(down.in - first, down.stride), begin, all) : all;
        T* const at = to + t * plane_ + s * copy_ + phase.begin * columns_;
        std::fill_n(at, begin * columns_, T(0));
        std::fill_n(at + end * columns_, (all - end) * columns_, T(0));
        if (begin == end) continue;
        call.rows = end - begin;
        call.to = at + begin * columns_;
        // Where no column is inside, nothing is read.
        call.from = channel + (in_plane * down.in + first + begin * down.stride) * across.in +
                    (call.begin < call.end ? column : 0);
        spread(call);
      }
    }
  }
}
template void Windows::fill(const float*, std::int64_t, Range, Range, float*) const;
template void Windows::fill(const double*, std::int64_t, Range, Range, double*) const;

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
