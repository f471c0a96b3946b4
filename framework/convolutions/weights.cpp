#include <chainrule/framework/convolutions/weights.hpp>

#include <string_view>

#include <chainrule/framework/core/threads.hpp>
#include <chainrule/framework/kernels/vector_table.hpp>
#include <chainrule/framework/products/pack.hpp>

namespace chainrule::convolutions {

namespace {

template <class T>
constexpr std::int64_t element = static_cast<std::int64_t>(sizeof(T));
template <class T>
constexpr std::int64_t segment = 32 / sizeof(T);
template <class T>
constexpr std::int64_t lanes_of = kernels::WindowTable<T>::lanes;

}  // namespace

// All that decides about bits follows from the sizes alone: the ways, the parts, the images at once and the strips.
template <class T>
WeightGradient<T>::WeightGradient(const Geometry& geometry) : g_(geometry), windows_(geometry, 0, 0, segment<T>) {
  const std::int64_t taps = g_.taps();
  // Of fewer features than a vector has lanes most of it would be left unused.
  if (g_.channels * taps >= 36 && g_.features >= lanes_of<T>) {
    places_ = g_.features / lanes_of<T> * lanes_of<T>;
    // A vector that is mostly full.
    if ((g_.features - places_) * 8 > 3 * lanes_of<T>) places_ = g_.features;
  }
  choose_blocks();

  strips_ = {pieces_of(g_.rows().out, 1), pieces_of(g_.columns().out, 1)};
  const std::int64_t wide = width({0, feature_blocks_.largest() * lanes_of<T>});
  const auto bytes = [&] {
    const std::int64_t rows = strips_.rows.largest();
    const std::int64_t columns = strips_.columns.largest();
    return (channel_blocks_.largest() * Windows(g_, rows, columns, segment<T>).size() +
            rows * columns * (places_ > 0 ? wide : 0)) *
           element<T>;
  };
  // Lanes are put away once for so many pixels, whose dy for a tile of features is in the first-level cache.
  constexpr std::int64_t pixels = 2048 / element<T>;
  const auto too_many = [&] {
    return bytes() > copied_bytes || (places_ == 0 && strips_.rows.largest() * g_.columns().out > pixels);
  };
  while (too_many() && strips_.rows.largest() > 1) strips_.rows = pieces_of(g_.rows().out, 2 * strips_.rows.pieces);
  while (bytes() > copied_bytes && strips_.columns.largest() > 512)
    strips_.columns = pieces_of(g_.columns().out, 2 * strips_.columns.pieces);
  windows_ = Windows(g_, strips_.rows.largest(), strips_.columns.largest(), segment<T>);
  if (windows_.in_segments())
    starts_ = segments_of(strips_.rows.largest(), g_.columns().out, windows_.line(), segment<T>);
  const std::int64_t in_strip = std::max<std::int64_t>(1, strips_.rows.largest() * strips_.columns.largest());
  images_ = std::clamp<std::int64_t>(std::min(pixels / in_strip, copied_bytes / std::max<std::int64_t>(1, bytes())), 1,
                                     std::max<std::int64_t>(1, parts_.largest()));

  for (std::int64_t c = 0; c < channel_blocks_.largest(); ++c)
    for (std::int64_t t = 0; t < g_.planes().taps; ++t)
      for (std::int64_t r = 0; r < g_.rows().taps; ++r)
        for (std::int64_t s = 0; s < g_.columns().taps; ++s)
          offsets_.push_back(c * windows_.size() + windows_.offset(t, r, s));
  const std::int64_t in_block = channel_blocks_.largest() * taps;
  const std::int64_t in_lanes = std::min(feature_blocks_.largest() * lanes_of<T>, g_.features - places_);
  windows_size_ = images_ * channel_blocks_.largest() * windows_.size();
  places_size_ = places_ > 0 ? in_strip * wide : 0;
  sums_size_ = places_ > 0 ? in_block * wide : 0;
  lanes_size_ = in_lanes * in_block * lanes_of<T>;
  rows_size_ = in_lanes * in_block;
  if (parts_.pieces > 1) partial_bytes_ = in_whole_lines(parts_.pieces * size() * element<T>);
}

// Blocks whose sums stay in the second-level cache, and enough of them for all threads: further ones of the images, as
// long as adding up their sums costs little, then of channels.
template <class T>
void WeightGradient<T>::choose_blocks() {
  const std::int64_t taps = g_.taps();
  const std::int64_t lanes_of_features = (g_.features + lanes_of<T> - 1) / lanes_of<T>;
  feature_blocks_ = Split::of(lanes_of_features, places_ > 0 ? 8 : 2);
  const std::int64_t others = g_.groups * feature_blocks_.pieces;
  const double cheap = g_.flops() / (2400 * static_cast<double>(size()));
  const std::int64_t most = std::min(static_cast<std::int64_t>(std::min(cheap, 32.0)),
                                     static_cast<std::int64_t>(g_.flops() / (2 * worth_a_part)));
  std::int64_t channels = 0;
  if (places_ == 0) {
    channels = std::clamp<std::int64_t>(16 / taps, std::min<std::int64_t>(4, g_.channels), 16);
  } else {
    const std::int64_t least = std::max<std::int64_t>(1, 128 / taps);  // else transposing dy costs too much
    const std::int64_t fits = std::max<std::int64_t>(
        least, copied_bytes / 2 / (Windows(g_, g_.rows().out, g_.columns().out, segment<T>).size() * element<T>));
    const std::int64_t wanted = std::max<std::int64_t>(1, 32 / std::max<std::int64_t>(1, most * others));
    channels = std::min(fits, std::max(least, (g_.channels + wanted - 1) / wanted));
  }
  channel_blocks_ = Split::of(g_.channels, channels);
  parts_ = pieces_of(g_.images, std::min<std::int64_t>(most, 32 / (others * channel_blocks_.pieces)));
}

template <class T>
std::int64_t WeightGradient<T>::width(Range features) const {
  const Range range = by_places(features);
  return (range.size() + lanes_of<T> - 1) / lanes_of<T> * lanes_of<T>;
}

template <class T>
std::size_t WeightGradient<T>::scratch() const {
  std::size_t bytes = 0;
  for (const std::int64_t size : {windows_size_, places_size_, sums_size_, lanes_size_, rows_size_})
    bytes += in_whole_lines(size * element<T>);
  return bytes;
}

template <class T>
typename WeightGradient<T>::Scratch WeightGradient<T>::scratch_at(void* memory) const {
  T* at = static_cast<T*>(memory);
  const auto next = [&](std::int64_t size) {
    T* const here = at;
    at += in_whole_lines(size * element<T>) / sizeof(T);
    return here;
  };
  Scratch out{};
  out.windows = next(windows_size_);
  out.places = next(places_size_);
  out.sums = next(sums_size_);
  out.lanes = next(lanes_size_);
  out.rows = next(rows_size_);
  return out;
}

template <class T>
void WeightGradient<T>::run(const T* x, const T* dy, T* dw, void* workspace) const {
  T* const partial = parts_.pieces > 1 ? static_cast<T*>(workspace) : dw;
  run_parts(parts_.pieces * g_.groups * channel_blocks_.pieces * feature_blocks_.pieces, g_.flops(),
            static_cast<char*>(workspace) + partial_bytes_,
            [&](std::int64_t part, void* scratch) { run_part(part, x, dy, partial, scratch_at(scratch)); });
  if (parts_.pieces == 1) return;
  const auto add = kernels::table<T>().windows.add;
  parallel_for(size(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    std::copy(partial + begin, partial + end, dw + begin);
    for (std::int64_t part = 1; part < parts_.pieces; ++part)
      add(partial + part * size() + begin, end - begin, dw + begin, 1);
  });
}

template <class T>
void WeightGradient<T>::run_part(std::int64_t part, const T* x, const T* dy, T* dw, const Scratch& scratch) const {
  Index index(part);
  const Range block = range_of(feature_blocks_, index.next(feature_blocks_.pieces));
  const Range features{block.begin * lanes_of<T>, std::min(block.end * lanes_of<T>, g_.features)};
  const Range channels = range_of(channel_blocks_, index.next(channel_blocks_.pieces));
  const std::int64_t group = index.next(g_.groups);
  const std::int64_t number = index.next(parts_.pieces);
  const Range images = range_of(parts_, number);

  std::fill_n(scratch.places, places_size_, T(0));  // what stands for no feature is a number
  std::fill_n(scratch.sums, sums_size_, T(0));
  std::fill_n(scratch.lanes, lanes_size_, T(0));
  const std::int64_t windows_of_image = channels.size() * windows_.size();
  for (std::int64_t image = images.begin; image < images.end; image += images_) {
    const std::int64_t now = std::min(images_, images.end - image);
    const T* const of_image = dy + (image * g_.groups + group) * g_.features * g_.outputs();
    for (std::int64_t place = 0; place < g_.planes().out * strips_.count(); ++place) {
      Index strip(place);
      const Range columns = range_of(strips_.columns, strip.next(strips_.columns.pieces));
      const Range rows = range_of(strips_.rows, strip.next(strips_.rows.pieces));
      const std::int64_t plane = strip.next(g_.planes().out);
      const T* const of_strip = of_image + (plane * g_.rows().out + rows.begin) * g_.columns().out + columns.begin;
      const Pixels pixels{rows.size(), columns.size()};
      for (std::int64_t i = 0; i < now; ++i) {
        T* const windows = scratch.windows + i * windows_of_image;
        windows_.fill(x + (((image + i) * g_.groups + group) * g_.channels + channels.begin) * g_.inputs(),
                      channels.size(), plane, rows, columns, windows);
        add_places(of_strip + i * g_.groups * g_.features * g_.outputs(), channels, by_places(features), pixels,
                   windows, scratch);
      }
      add_lanes(of_strip, channels, {by_places(features).end, features.end}, now, pixels, scratch);
    }
  }
  put(channels, features, scratch, dw + number * size() + group * g_.features * g_.channels * g_.taps());
}

namespace {

// Whether this process may call products/pack.hpp, which is compiled for the processors that tiles are made for.
bool packs() { return kernels::tables().name != std::string_view("baseline"); }

}  // namespace

template <class T>
void WeightGradient<T>::add_places(const T* dy, Range channels, Range features, Pixels pixels, const T* windows,
                                   const Scratch& scratch) const {
  if (features.size() == 0) return;
  const auto& table = kernels::table<T>().windows;
  const T* const from = dy + features.begin * g_.outputs();
  const std::int64_t wide = width(features);
  const std::int64_t columns = pixels.rows * pixels.columns;
  if (packs()) {
    products::pack_transposed(from, g_.outputs(), columns, features.size(), wide, scratch.places);
  } else {
    for (std::int64_t k = 0; k < features.size(); ++k)
      for (std::int64_t p = 0; p < columns; ++p) scratch.places[p * wide + k] = from[k * g_.outputs() + p];
  }
  const std::int64_t taps = channels.size() * g_.taps();
  const Split tiles = Split::of(taps, table.place_rows);
  kernels::SumsOfPlaces<T> call{};
  call.a = windows;
  call.b_row = wide;
  call.lines = starts_.empty() ? 1 : pixels.rows;
  call.terms = starts_.empty() ? columns : pixels.columns;
  call.a_line = windows_.line();
  call.c_row = wide;
  for (std::int64_t k = 0; k < wide;) {
    const std::int64_t vectors = std::min<std::int64_t>(table.place_vectors, (wide - k) / table.vector);
    call.b = scratch.places + k;
    for (std::int64_t tile = 0; tile < tiles.pieces; ++tile) {
      const Range rows = range_of(tiles, tile);
      call.a_offsets = offsets_.data() + rows.begin;
      call.c = scratch.sums + rows.begin * wide + k;
      table.places[rows.size()][vectors](call);
    }
    k += vectors * table.vector;
  }
}

template <class T>
void WeightGradient<T>::add_lanes(const T* dy, Range channels, Range features, std::int64_t images, Pixels pixels,
                                  const Scratch& scratch) const {
  if (features.size() == 0) return;
  const auto& table = kernels::table<T>().windows;
  const std::int64_t taps = channels.size() * g_.taps();
  const Split tiles = Split::of(features.size(), table.lane_rows);
  kernels::LanesOfProducts<T> call{};
  call.a_row = g_.outputs();
  call.a_image = g_.groups * g_.features * g_.outputs();
  call.b = scratch.windows;
  call.b_image = channels.size() * windows_.size();
  if (!starts_.empty()) call.b_segments = {starts_.data(), g_.columns().out % (2 * segment<T>) == 0};
  call.images = images;
  call.columns = pixels.rows * pixels.columns;
  call.sums_row = taps;
  for (std::int64_t tile = 0; tile < tiles.pieces; ++tile) {
    const Range rows = range_of(tiles, tile);
    call.a = dy + (features.begin + rows.begin) * g_.outputs();
    for (std::int64_t tap = 0; tap < taps; tap += kernels::WindowTable<T>::most_lane_columns) {
      const std::int64_t now = std::min<std::int64_t>(taps - tap, kernels::WindowTable<T>::most_lane_columns);
      call.b_offsets = offsets_.data() + tap;
      call.sums = scratch.lanes + (rows.begin * taps + tap) * lanes_of<T>;
      table.lane_sums[rows.size()][now](call);
    }
  }
}

// The sums to dw[feature][channel][tap] of the group.
template <class T>
void WeightGradient<T>::put(Range channels, Range features, const Scratch& scratch, T* dw) const {
  const std::int64_t taps = channels.size() * g_.taps();
  const std::int64_t row = g_.channels * g_.taps();
  const Range places = by_places(features);
  T* const to = dw + channels.begin * g_.taps();
  if (places.size() > 0) {
    const std::int64_t wide = width(features);
    if (packs()) {
      products::put_transposed(scratch.sums, wide, taps, places.size(), T(1), false, to + places.begin * row, row);
    } else {
      for (std::int64_t k = 0; k < places.size(); ++k)
        for (std::int64_t tap = 0; tap < taps; ++tap) to[(places.begin + k) * row + tap] = scratch.sums[tap * wide + k];
    }
  }
  const std::int64_t others = features.end - places.end;
  kernels::table<T>().sum_lines(scratch.lanes, static_cast<std::size_t>(others * taps),
                                static_cast<std::size_t>(lanes_of<T>), scratch.rows);
  for (std::int64_t k = 0; k < others; ++k) std::copy_n(scratch.rows + k * taps, taps, to + (places.end + k) * row);
}

template class WeightGradient<float>;
template class WeightGradient<double>;

}  // namespace chainrule::convolutions
