#include <chainrule/framework/convolutions/weights.hpp>

#include <cstring>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>

namespace chainrule::convolutions {

namespace {

template <class T>
constexpr std::int64_t element = static_cast<std::int64_t>(sizeof(T));
template <class T>
constexpr std::int64_t lanes_of = kernels::WindowTable<T>::lanes;

}  // namespace

// All that decides about bits follows from the sizes alone: the parts, the images at once and the strips.
template <class T>
WeightGradient<T>::WeightGradient(const Geometry& geometry) : g_(geometry), windows_(geometry, 0, 0) {
  // Blocks small enough for their lanes to stay in the second-level cache, and for all threads to have one.
  const std::int64_t taps = g_.taps();
  const std::int64_t channels = std::clamp<std::int64_t>(16 / taps, std::min<std::int64_t>(4, g_.channels), 16);
  channel_blocks_ = Split::of(g_.channels, channels);
  const std::int64_t lanes_bytes = channel_blocks_.largest() * taps * 64;
  feature_blocks_ = Split::of(g_.features, std::clamp<std::int64_t>(copied_bytes / lanes_bytes, 8, 64));
  const std::int64_t blocks = g_.groups * channel_blocks_.pieces * feature_blocks_.pieces;
  const auto worth = static_cast<std::int64_t>(g_.flops() / (2 * worth_a_part));
  parts_ = pieces_of(g_.images, std::min<std::int64_t>(32, worth) / blocks);

  strips_ = {pieces_of(g_.rows().out, 1), pieces_of(g_.columns().out, 1)};
  const auto bytes = [&] {
    return channel_blocks_.largest() * Windows(g_, strips_.rows.largest(), strips_.columns.largest()).size() *
           element<T>;
  };
  while (bytes() > copied_bytes && strips_.rows.largest() > 1)
    strips_.rows = pieces_of(g_.rows().out, 2 * strips_.rows.pieces);
  while (bytes() > copied_bytes && strips_.columns.largest() > 512)
    strips_.columns = pieces_of(g_.columns().out, 2 * strips_.columns.pieces);
  windows_ = Windows(g_, strips_.rows.largest(), strips_.columns.largest());
  // Sums are put away once for so many pixels.
  constexpr std::int64_t pixels = 2048;
  const std::int64_t in_strip = std::max<std::int64_t>(1, strips_.rows.largest() * strips_.columns.largest());
  images_ = std::clamp<std::int64_t>(std::min(pixels / in_strip, copied_bytes / std::max<std::int64_t>(1, bytes())), 1,
                                     std::max<std::int64_t>(1, parts_.largest()));
  windows_size_ = images_ * channel_blocks_.largest() * windows_.size();

  for (std::int64_t c = 0; c < channel_blocks_.largest(); ++c)
    for (std::int64_t t = 0; t < g_.planes().taps; ++t)
      for (std::int64_t r = 0; r < g_.rows().taps; ++r)
        for (std::int64_t s = 0; s < g_.columns().taps; ++s)
          offsets_.push_back(c * windows_.size() + windows_.offset(t, r, s));
  if (parts_.pieces > 1) partial_bytes_ = in_whole_lines(parts_.pieces * size() * element<T>);
}

template <class T>
std::size_t WeightGradient<T>::scratch() const {
  const std::int64_t sums = feature_blocks_.largest() * channel_blocks_.largest() * g_.taps();
  return in_whole_lines(windows_size_ * element<T>) + in_whole_lines(sums * (lanes_of<T> + 1) * element<T>);
}

template <class T>
void WeightGradient<T>::run(const T* x, const T* dy, T* dw, void* workspace) const {
  T* const partial = parts_.pieces > 1 ? static_cast<T*>(workspace) : dw;
  run_parts(parts_.pieces * g_.groups * channel_blocks_.pieces * feature_blocks_.pieces, g_.flops(),
            static_cast<char*>(workspace) + partial_bytes_,
            [&](std::int64_t part, void* scratch) { run_part(part, x, dy, partial, static_cast<T*>(scratch)); });
  if (parts_.pieces == 1) return;
  const auto add = kernels::table<T>().windows.add;
  parallel_for(size(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    std::copy(partial + begin, partial + end, dw + begin);
    for (std::int64_t part = 1; part < parts_.pieces; ++part)
      add(partial + part * size() + begin, end - begin, dw + begin, 1);
  });
}

template <class T>
void WeightGradient<T>::run_part(std::int64_t part, const T* x, const T* dy, T* dw, T* scratch) const {
  Index index(part);
  const Range features = range_of(feature_blocks_, index.next(feature_blocks_.pieces));
  const Range channels = range_of(channel_blocks_, index.next(channel_blocks_.pieces));
  const std::int64_t group = index.next(g_.groups);
  const std::int64_t number = index.next(parts_.pieces);
  const Range images = range_of(parts_, number);

  const std::int64_t taps = channels.size() * g_.taps();
  T* const windows = scratch;
  T* const lanes = scratch + in_whole_lines(windows_size_ * element<T>) / sizeof(T);
  T* const sums = lanes + features.size() * taps * lanes_of<T>;
  std::fill(lanes, sums, T(0));
  for (std::int64_t image = images.begin; image < images.end; image += images_) {
    const std::int64_t now = std::min(images_, images.end - image);
    const T* const of_image = dy + ((image * g_.groups + group) * g_.features + features.begin) * g_.outputs();
    for (std::int64_t place = 0; place < g_.planes().out * strips_.count(); ++place) {
      Index strip(place);
      const Range columns = range_of(strips_.columns, strip.next(strips_.columns.pieces));
      const Range rows = range_of(strips_.rows, strip.next(strips_.rows.pieces));
      const std::int64_t plane = strip.next(g_.planes().out);
      for (std::int64_t i = 0; i < now; ++i)
        for (std::int64_t c = channels.begin; c < channels.end; ++c)
          windows_.fill(x + (((image + i) * g_.groups + group) * g_.channels + c) * g_.inputs(), plane, rows, columns,
                        windows + (i * channels.size() + c - channels.begin) * windows_.size());
      add_lanes(of_image + (plane * g_.rows().out + rows.begin) * g_.columns().out + columns.begin, windows, channels,
                features, now, rows.size() * columns.size(), lanes);
    }
  }

  kernels::table<T>().sum_lines(lanes, static_cast<std::size_t>(features.size() * taps),
                                static_cast<std::size_t>(lanes_of<T>), sums);
  T* const to = dw + number * size() + (group * g_.features * g_.channels + channels.begin) * g_.taps();
  for (std::int64_t k = 0; k < features.size(); ++k)
    std::copy_n(sums + k * taps, taps, to + (features.begin + k) * g_.channels * g_.taps());
}

template <class T>
void WeightGradient<T>::add_lanes(const T* dy, const T* windows, Range channels, Range features, std::int64_t images,
                                  std::int64_t columns, T* lanes) const {
  const auto& table = kernels::table<T>().windows;
  const std::int64_t taps = channels.size() * g_.taps();
  const Split tiles = Split::of(features.size(), table.lane_rows);
  kernels::LanesOfProducts<T> call{};
  call.a_row = g_.outputs();
  call.a_image = g_.groups * g_.features * g_.outputs();
  call.b = windows;
  call.b_image = channels.size() * windows_.size();
  call.images = images;
  call.columns = columns;
  call.sums_row = taps;
  for (std::int64_t tile = 0; tile < tiles.pieces; ++tile) {
    const Range rows = range_of(tiles, tile);
    call.a = dy + rows.begin * g_.outputs();
    for (std::int64_t tap = 0; tap < taps; tap += kernels::WindowTable<T>::most_lane_columns) {
      const std::int64_t now = std::min<std::int64_t>(taps - tap, kernels::WindowTable<T>::most_lane_columns);
      call.b_offsets = offsets_.data() + tap;
      call.sums = lanes + (rows.begin * taps + tap) * lanes_of<T>;
      table.lane_sums[rows.size()][now](call);
    }
  }
}

template class WeightGradient<float>;
template class WeightGradient<double>;

}  // namespace chainrule::convolutions
