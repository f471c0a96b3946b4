#include <chainrule/framework/convolutions/transpose.hpp>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::convolutions {

namespace {

template <class T>
constexpr std::int64_t element = static_cast<std::int64_t>(sizeof(T));

}  // namespace

template <class T>
Transposed<T>::Transposed(const Geometry& geometry)
    : g_(geometry),
      channel_blocks_(pieces_of(geometry.channels, 1)),
      feature_blocks_(Split::of(geometry.features, products::block_terms)),
      spread_(geometry, 0, 0) {
  const std::int64_t parts = g_.images * g_.groups * g_.planes().in;
  const Axis& across = g_.columns();
  const auto outputs = [&](std::int64_t columns) {  // at most, with a tap in so many columns
    if (columns == across.in) return across.out;
    return std::min(across.out, (columns + (across.taps - 1) * across.dilation) / across.stride + 2);
  };
  const auto bytes = [&](std::int64_t rows, std::int64_t columns) {
    return g_.channels * Spread(g_, rows, outputs(columns)).size() * element<T>;
  };
  strips_ = strips_of(g_.rows().in, g_.columns().in, g_.flops(), parts, bytes);
  spread_ = Spread(g_, strips_.rows.largest(), outputs(strips_.columns.largest()));
  const auto worth = static_cast<std::int64_t>(g_.flops() / worth_a_part);
  channel_blocks_ = pieces_of(g_.channels, std::min(enough_parts, worth) / (parts * strips_.count()));
  for (std::int64_t k = 0; k < g_.features; ++k) features_.push_back(k * g_.outputs());
  for (std::size_t i = 0; i < rows_.size(); ++i) rows_[i] = static_cast<std::int64_t>(i) * spread_.copy();
  packed_bytes_ = in_whole_lines(g_.groups * g_.features * g_.channels * g_.taps() * element<T>);
}

template <class T>
Split Transposed<T>::tiles(Range channels) const {
  return Split::of(channels.size() * g_.columns().taps, kernels::table<T>().windows.rows);
}

// The outputs with a tap in these columns of inputs; all, where these are not cut.
template <class T>
Range Transposed<T>::outputs_of(Range columns) const {
  const Axis& across = g_.columns();
  if (columns.size() == across.in) return {0, across.out};
  const Range last = across.outputs_inside(across.taps - 1, columns);
  const Range first = across.outputs_inside(0, columns);
  const std::int64_t begin = std::min(last.begin, first.end);
  return {begin, std::max(begin, first.end)};
}

template <class T>
std::size_t Transposed<T>::scratch() const {
  return in_whole_lines(channel_blocks_.largest() * spread_.size() * element<T>);
}

// [group][block of channels][tap of planes and rows][tile][feature][channel, tap of columns]
template <class T>
void Transposed<T>::pack(const T* w, T* packed) const {
  const std::int64_t across = g_.columns().taps;
  const std::int64_t others = g_.taps() / across;
  const std::int64_t taps = g_.taps();
  const double cost = static_cast<double>(g_.groups * g_.features * g_.channels * taps) * 20;
  run_parts(g_.groups * channel_blocks_.pieces * others, cost, nullptr, [&](std::int64_t part, void*) {
    Index index(part);
    const std::int64_t tap = index.next(others);
    const Range channels = range_of(channel_blocks_, index.next(channel_blocks_.pieces));
    const std::int64_t group = index.next(g_.groups);
    T* to = packed + (group * g_.channels + channels.begin) * g_.features * taps +
            tap * channels.size() * across * g_.features;
    const Split rows = tiles(channels);
    for (std::int64_t tile = 0; tile < rows.pieces; ++tile) {
      const Range in_tile = range_of(rows, tile);
      for (std::int64_t k = 0; k < g_.features; ++k) {
        const T* from = w + ((group * g_.features + k) * g_.channels + channels.begin) * taps + tap * across;
        for (std::int64_t row = in_tile.begin; row < in_tile.end; ++row)
          *to++ = from[row / across * taps + row % across];
      }
    }
  });
}

template <class T>
void Transposed<T>::run(const T* dy, const T* w, T* dx, void* workspace) const {
  T* const packed = static_cast<T*>(workspace);
  pack(w, packed);
  run_parts(g_.images * g_.groups * g_.planes().in * strips_.count() * channel_blocks_.pieces, g_.flops(),
            static_cast<char*>(workspace) + packed_bytes_,
            [&](std::int64_t part, void* scratch) { run_part(part, dy, packed, dx, static_cast<T*>(scratch)); });
}

template <class T>
void Transposed<T>::run_part(std::int64_t part, const T* dy, const T* packed, T* dx, T* copies) const {
  Index index(part);
  const Range channels = range_of(channel_blocks_, index.next(channel_blocks_.pieces));
  const Range columns = range_of(strips_.columns, index.next(strips_.columns.pieces));
  const Range rows = range_of(strips_.rows, index.next(strips_.rows.pieces));
  const std::int64_t plane = index.next(g_.planes().in);
  const std::int64_t group = index.next(g_.groups);
  const std::int64_t image = index.next(g_.images);

  const Axis& planes = g_.planes();
  const std::int64_t across = g_.columns().taps;
  const Range outputs = outputs_of(columns);
  const std::int64_t rows_of_taps = g_.rows().taps;
  const T* const weights = packed + (group * g_.channels + channels.begin) * g_.features * g_.taps();
  std::fill_n(copies, channels.size() * spread_.size(), T(0));
  for (std::int64_t t = 0; t < planes.taps; ++t) {
    const Range of_plane = planes.outputs_inside(t, {plane, plane + 1});
    if (of_plane.size() == 0) continue;
    add_products(dy + (image * g_.groups + group) * g_.features * g_.outputs() +
                     of_plane.begin * g_.rows().out * g_.columns().out,
                 weights + t * rows_of_taps * channels.size() * across * g_.features, channels, rows, outputs, copies);
  }
  for (std::int64_t c = 0; c < channels.size(); ++c)
    spread_.collect(copies + c * spread_.size(), rows, columns, outputs,
                    dx + (((image * g_.groups + group) * g_.channels + channels.begin + c) * planes.in + plane) *
                             g_.rows().in * g_.columns().in);
}

// For the taps of one plane of outputs, dy.
template <class T>
void Transposed<T>::add_products(const T* dy, const T* weights, Range channels, Range rows, Range outputs,
                                 T* copies) const {
  const auto& table = kernels::table<T>().windows;
  const Split in_tiles = tiles(channels);
  const std::int64_t all = channels.size() * g_.columns().taps;
  kernels::SumsOfProducts<T> call{};
  call.b_offsets = features_.data();
  call.c_offsets = rows_.data();
  call.adds = true;
  for (std::int64_t r = 0; r < g_.rows().taps; ++r) {
    const Range of_rows = spread_.outputs(r, rows);
    if (of_rows.size() == 0) continue;
    const std::int64_t place = spread_.place(r, rows);
    call.columns = of_rows.size() * outputs.size();
    for (std::int64_t block = 0; block < feature_blocks_.pieces; ++block) {
      const Range features = range_of(feature_blocks_, block);
      call.terms = features.size();
      call.b = dy + features.begin * g_.outputs() + of_rows.begin * g_.columns().out + outputs.begin;
      for (std::int64_t tile = 0; tile < in_tiles.pieces; ++tile) {
        const Range in_tile = range_of(in_tiles, tile);
        call.a = weights + (r * all + in_tile.begin) * g_.features + features.begin * in_tile.size();
        call.c = copies + in_tile.begin * spread_.copy() + place;
        table.sums[in_tile.size()](call);
      }
    }
  }
}

template class Transposed<float>;
template class Transposed<double>;

}  // namespace chainrule::convolutions
