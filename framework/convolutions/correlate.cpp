#include <chainrule/framework/convolutions/correlate.hpp>

#include <numeric>

#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::convolutions {

namespace {

template <class T>
constexpr std::int64_t element = static_cast<std::int64_t>(sizeof(T));
template <class T>
constexpr std::int64_t segment = 32 / sizeof(T);

// Blocks of the terms of a sum: of whole channels, as products' (products/product.hpp).
Split channel_blocks(const Geometry& g) {
  return Split::of(g.channels, std::max<std::int64_t>(1, products::block_terms / g.taps()));
}

}  // namespace

template <class T>
Correlation<T>::Correlation(const Geometry& geometry, const WeightStrides& weights)
    : g_(geometry),
      weights_(weights),
      channel_blocks_(channel_blocks(geometry)),
      tiles_(Split::of(geometry.features, kernels::table<T>().windows.rows)),
      windows_(windows_of(0, 0)),
      in_place_(reads_in_place()) {
  const std::int64_t parts = g_.images * g_.groups * g_.planes().out;
  strips_ = strips_of(g_.rows().out, g_.columns().out, g_.flops(), parts, [&](std::int64_t rows, std::int64_t columns) {
    return in_place_ ? 0 : g_.channels * windows_of(rows, columns).size() * element<T>;
  });
  // In place rows of outputs follow each other as in the input, whole ones.
  windows_ = windows_of(strips_.rows.largest(), strips_.columns.largest());
  const std::int64_t cut = parts * strips_.count();
  const auto worth = static_cast<std::int64_t>(g_.flops() / worth_a_part);
  feature_blocks_ = pieces_of(tiles_.pieces, std::min(enough_parts, worth) / cut);

  const auto& [planes, rows, columns] = g_.axes;
  channel_size_ = in_place_ ? g_.inputs() : windows_.size();
  std::int64_t window = 0;
  for (std::int64_t c = 0; c < channel_blocks_.largest(); ++c)
    for (std::int64_t t = 0; t < planes.taps; ++t)
      for (std::int64_t r = 0; r < rows.taps; ++r)
        for (std::int64_t s = 0; s < columns.taps; ++s) {
          const std::int64_t in_channel =
              in_place_ ? (t * planes.dilation * rows.in + r * rows.dilation) * columns.in + s * columns.dilation
                        : windows_.offset(t, r, s);
          offsets_.push_back(c * channel_size_ + in_channel);
          if (c == 0 && t == 0 && s == 0) window = std::max(window, in_channel);
        }
  const std::int64_t line = in_place_ ? columns.in : windows_.line();
  if (line != columns.out && (in_place_ || windows_.in_segments())) {
    starts_ = segments_of(strips_.rows.largest(), columns.out, line, segment<T>);
    in_pairs_ = columns.out % (2 * segment<T>) == 0;
  }
  for (std::size_t i = 0; i < features_.size(); ++i) features_[i] = static_cast<std::int64_t>(i) * g_.outputs();
  // Half of a first-level cache for the windows of the columns of a run.
  const auto& at_once = kernels::table<T>().windows.columns;
  // A run begins with a whole segment, also where vectors are shorter than that.
  const std::int64_t tile =
      std::lcm(segment<T>, std::lcm(at_once[tiles_.largest()], at_once[tiles_.size > 0 ? tiles_.size : 1]));
  const std::int64_t lines = channel_blocks_.largest() * planes.taps * (in_place_ ? 1 : windows_.copies());
  run_ = std::max<std::int64_t>(1, (24 * 1024 / element<T> / lines - window) / tile) * tile;
  packed_bytes_ = in_whole_lines(g_.groups * g_.features * g_.channels * g_.taps() * element<T>);
}

template <class T>
Windows Correlation<T>::windows_of(std::int64_t rows, std::int64_t columns) const {
  return {g_, rows, columns, segment<T>};
}

// Where nothing is padded and strides are 1: in rows of whole segments, or as one run.
template <class T>
bool Correlation<T>::reads_in_place() const {
  const auto& [planes, rows, columns] = g_.axes;
  const auto inside = [](const Axis& axis) {
    return axis.before == 0 && (axis.out - 1) * axis.stride + (axis.taps - 1) * axis.dilation < axis.in;
  };
  if (columns.out % segment<T> != 0 && (columns.taps > 1 || columns.in != columns.out)) return false;
  return inside(columns) && columns.stride == 1 && inside(rows) && rows.stride == 1 && inside(planes);
}

template <class T>
std::size_t Correlation<T>::scratch() const {
  return in_place_ ? 0 : in_whole_lines(g_.channels * windows_.size() * element<T>);
}

// [group][block of channels][tile][channel of the block, tap][feature of the tile]
template <class T>
void Correlation<T>::pack(const T* w, T* packed) const {
  const std::int64_t taps = g_.taps();
  const double cost = static_cast<double>(g_.groups * g_.features * g_.channels * taps) * 20;
  run_parts(g_.groups * channel_blocks_.pieces * tiles_.pieces, cost, nullptr, [&](std::int64_t part, void*) {
    Index index(part);
    const Range features = range_of(tiles_, index.next(tiles_.pieces));
    const Range channels = range_of(channel_blocks_, index.next(channel_blocks_.pieces));
    const std::int64_t group = index.next(g_.groups);
    T* to = packed + ((group * g_.channels + channels.begin) * g_.features + features.begin * channels.size()) * taps;
    for (std::int64_t c = channels.begin; c < channels.end; ++c)
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        const T* from = w + group * weights_.group + c * weights_.channel + weights_.first + tap * weights_.tap;
        for (std::int64_t f = features.begin; f < features.end; ++f) *to++ = from[f * weights_.feature];
      }
  });
}

template <class T>
void Correlation<T>::run(const T* x, const T* w, T* y, void* workspace) const {
  T* const packed = static_cast<T*>(workspace);
  pack(w, packed);
  run_parts(g_.images * g_.groups * g_.planes().out * strips_.count() * feature_blocks_.pieces, g_.flops(),
            static_cast<char*>(workspace) + packed_bytes_,
            [&](std::int64_t part, void* scratch) { run_part(part, x, packed, y, static_cast<T*>(scratch)); });
}

template <class T>
void Correlation<T>::run_part(std::int64_t part, const T* x, const T* packed, T* y, T* scratch) const {
  Index index(part);
  const Range tiles = range_of(feature_blocks_, index.next(feature_blocks_.pieces));
  const Range columns = range_of(strips_.columns, index.next(strips_.columns.pieces));
  const Range rows = range_of(strips_.rows, index.next(strips_.rows.pieces));
  const std::int64_t plane = index.next(g_.planes().out);
  const std::int64_t group = index.next(g_.groups);
  const std::int64_t image = index.next(g_.images);

  const T* const channels = x + (image * g_.groups + group) * g_.channels * g_.inputs();
  const std::int64_t in_plane = rows.begin * g_.columns().out + columns.begin;
  const T* windows = scratch;
  if (in_place_) {
    windows = channels + (plane * g_.planes().stride * g_.rows().in + rows.begin) * g_.columns().in + columns.begin;
  } else {
    windows_.fill(channels, g_.channels, plane, rows, columns, scratch);
  }

  const auto& table = kernels::table<T>().windows;
  const std::int64_t all = rows.size() * columns.size();
  T* const outputs = y + (image * g_.groups + group) * g_.features * g_.outputs() +
                     plane * g_.rows().out * g_.columns().out + in_plane;
  kernels::SumsOfProducts<T> call{};
  call.b_offsets = offsets_.data();
  call.c_offsets = features_.data();
  for (std::int64_t block = 0; block < channel_blocks_.pieces; ++block) {
    const Range in_block = range_of(channel_blocks_, block);
    call.terms = in_block.size() * g_.taps();
    call.adds = block > 0;
    const T* const weights = packed + (group * g_.channels + in_block.begin) * g_.features * g_.taps();
    for (std::int64_t begin = 0; begin < all; begin += run_) {
      call.columns = std::min(run_, all - begin);
      call.b = windows + in_block.begin * channel_size_ + (starts_.empty() ? begin : 0);
      if (!starts_.empty()) call.b_segments = {starts_.data() + begin / segment<T>, in_pairs_};
      for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
        const Range features = range_of(tiles_, tile);
        call.a = weights + features.begin * call.terms;
        call.c = outputs + features.begin * g_.outputs() + begin;
        table.sums[features.size()](call);
      }
    }
  }
}

template class Correlation<float>;
template class Correlation<double>;

}  // namespace chainrule::convolutions
