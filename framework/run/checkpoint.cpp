// A State on disk, as .safetensors: the length of a header (64 bits, little-endian), the header (a JSON object: for
// each tensor its dtype, shape and place in the data; "__metadata__": strings), the data. Source: the format's
// description in github.com/huggingface/safetensors.
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <chainrule/framework/io/atomic_file.hpp>
#include <chainrule/framework/io/file.hpp>
#include <chainrule/framework/io/json_writer.hpp>
#include <chainrule/framework/io/numbers.hpp>
#include <chainrule/framework/run/state.hpp>
#include <chainrule/framework/run/state_data.hpp>

namespace chainrule {

namespace {

using detail::File;
using detail::GraphData;
using detail::JsonWriter;
using detail::StateData;
using detail::StoredType;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "the numbers of a checkpoint are written as they lie in memory");

constexpr const char* metadata_key = "__metadata__";

constexpr std::string_view stored_name(DType dtype) {
  constexpr std::string_view names[] = {"F32", "F64", "I64", "I32", "U8", "BOOL"};
  return names[static_cast<std::size_t>(dtype)];
}

// The numbers of the variables that a checkpoint holds: all but the copies of the counters, which are metadata.
std::vector<std::size_t> stored_variables(const StateData& state) {
  const GraphData& graph = *state.graph;
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < state.variables.size(); ++i) {
    const auto node = graph.leaves->variables[i].node;
    if (node != graph.step && node != graph.epoch) out.push_back(i);
  }
  return out;
}

// The element types of the format that a State can take.
std::optional<StoredType> stored_type(std::string_view name) {
  using Kind = StoredType::Kind;
  static const std::map<std::string_view, StoredType> types = {
      {"BOOL", {Kind::boolean, 1, false}},         {"F16", {Kind::floating, 2, false}},
      {"BF16", {Kind::bfloat, 2, false}},          {"F32", {Kind::floating, 4, false}},
      {"F64", {Kind::floating, 8, false}},         {"I8", {Kind::signed_integer, 1, false}},
      {"I16", {Kind::signed_integer, 2, false}},   {"I32", {Kind::signed_integer, 4, false}},
      {"I64", {Kind::signed_integer, 8, false}},   {"U8", {Kind::unsigned_integer, 1, false}},
      {"U16", {Kind::unsigned_integer, 2, false}}, {"U32", {Kind::unsigned_integer, 4, false}},
      {"U64", {Kind::unsigned_integer, 8, false}},
  };
  const auto found = types.find(name);
  return found == types.end() ? std::nullopt : std::optional(found->second);
}

// What the header says of one tensor, as far as it is of the kinds that it should be.
struct Entry {
  using Numbers = std::vector<std::uint64_t>;
  std::optional<std::string> dtype;
  std::optional<Numbers> shape;
  std::optional<Numbers> offsets;  // of its numbers within the data: begin and end
};

// Takes a header from the parser event by event: a tree of all of it would need memory to be destroyed, too.
class HeaderReader : public json::json_sax_t {
 public:
  [[nodiscard]] const std::map<std::string, Entry>& entries() const { return entries_; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // A name that stands twice in one object.
  [[nodiscard]] const std::optional<std::string>& doubled() const { return doubled_; }
  // What is wrong with the metadata, if anything.
  [[nodiscard]] std::string_view wrong_metadata() const { return wrong_metadata_; }

  bool null() override { return other(); }
  bool boolean(bool /*value*/) override { return other(); }
  bool number_integer(std::int64_t /*value*/) override { return other(); }
  bool number_unsigned(std::uint64_t value) override {
    if (list_ && depth_ == 3) {
      (*list_)->push_back(value);
      return true;
    }
    return other();
  }
  bool number_float(double /*value*/, const std::string& /*text*/) override { return other(); }
  bool string(std::string& value) override {
    if (depth_ == 2 && in_metadata()) {
      metadata_[key_] = std::move(value);
    } else if (depth_ == 2 && key_ == "dtype") {
      entry_->dtype = std::move(value);
    } else {
      return other();
    }
    return true;
  }
  bool binary(json::binary_t& /*value*/) override { return other(); }

  bool start_object(std::size_t /*size*/) override {
    if (depth_ > 1) other();
    ++depth_;
    names_.emplace_back();
    return true;
  }
  bool end_object() override {
    --depth_;
    names_.pop_back();
    return true;
  }
  bool key(std::string& name) override {
    if (!names_.back().insert(name).second) doubled_ = name;
    if (depth_ == 1) {
      tensor_ = std::move(name);
      key_.clear();
      if (!in_metadata()) entry_ = &entries_[tensor_];
    } else if (depth_ == 2) {
      key_ = std::move(name);
    }
    return true;
  }

  bool start_array(std::size_t /*size*/) override {
    if (depth_ == 2 && !in_metadata() && (key_ == "shape" || key_ == "data_offsets")) {
      list_ = key_ == "shape" ? &entry_->shape : &entry_->offsets;
      list_->emplace();
    } else {
      other();
    }
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    if (depth_ == 2) list_ = nullptr;
    return true;
  }

  bool parse_error(std::size_t /*at*/, const std::string& /*token*/, const json::exception& /*why*/) override {
    return false;
  }

 private:
  [[nodiscard]] bool in_metadata() const { return tensor_ == metadata_key; }

  // A value that says nothing, or that is of the wrong kind where it stands.
  bool other() {
    if (in_metadata() && depth_ <= 2 && wrong_metadata_.empty())
      wrong_metadata_ = depth_ == 1 ? "its metadata is no object" : "its metadata is not of strings";
    if (depth_ == 3 && list_) {
      list_->reset();
      list_ = nullptr;
    }
    return true;
  }

  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::set<std::string>> names_;  // of the objects that are open
  std::optional<std::string> doubled_;
  std::string_view wrong_metadata_;
  std::size_t depth_ = 0;  // of objects and arrays that are open
  std::string tensor_;     // the last name in the header
  Entry* entry_ = nullptr;
  std::string key_;                                // the last name in its object
  std::optional<Entry::Numbers>* list_ = nullptr;  // the one that is being read
};

struct Tensor {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0;  // of its numbers, within the data
  std::uint64_t end = 0;
};

std::string type_of(std::string_view dtype, const std::vector<std::int64_t>& shape) {
  std::string out;
  for (const std::int64_t extent : shape) out += fmt::format("{}{}", out.empty() ? "" : ", ", extent);
  return fmt::format("{} {{{}}}", dtype, out);
}

// The header of a file, checked to be what the format says; the data follow in its input.
class Checkpoint {
 public:
  Checkpoint(const File& file, detail::FileInput& input) : file_(file) {
    constexpr std::size_t longest = 100'000'000;  // of a header, as the format has it
    const std::string start = input.read(8);
    if (start.size() < 8) file_.fail("truncated within the header");
    std::uint64_t length = 0;
    std::memcpy(&length, start.data(), 8);
    const std::string first = input.read(1);
    if (length < 2 || length > longest || (!first.empty() && first != "{"))
      file_.fail(fmt::format("no .safetensors file, it begins with \"{}\"", detail::printable(start + first)));
    if (input.most() < length - 1) file_.fail("truncated within the header");
    const std::string text = first + input.read(length - 1);
    if (text.size() < length) file_.fail("truncated within the header");
    const std::uint64_t available = input.most();
    HeaderReader header;
    if (!json::sax_parse(text, &header)) damaged("its header is no JSON object");
    if (header.doubled()) damaged(fmt::format("its header has '{}' twice", detail::printable(*header.doubled())));
    if (!header.wrong_metadata().empty()) damaged(header.wrong_metadata());
    metadata_ = header.metadata();
    for (const auto& [name, entry] : header.entries()) tensors_.push_back(tensor_of(name, entry, available));
    std::sort(tensors_.begin(), tensors_.end(),
              [](const Tensor& a, const Tensor& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
    std::uint64_t end = 0;
    for (const Tensor& tensor : tensors_) {
      if (tensor.begin != end) damaged(fmt::format("its tensors leave gaps or overlap at byte {} of the data", end));
      end = tensor.end;
    }
    if (end != available && available != std::numeric_limits<std::uint64_t>::max())
      damaged(fmt::format("its tensors have {} bytes, and {} follow the header", end, available));
  }

  // In the order of their numbers.
  [[nodiscard]] const std::vector<Tensor>& tensors() const { return tensors_; }

  // A counter of the metadata, where it is there.
  [[nodiscard]] std::optional<std::int64_t> counter(const std::string& name) const {
    const auto found = metadata_.find(name);
    if (found == metadata_.end()) return std::nullopt;
    const std::string& text = found->second;
    std::int64_t value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0)
      damaged(fmt::format("its {} is \"{}\"", name, detail::printable(text)));
    return value;
  }

 private:
  [[noreturn]] void damaged(std::string_view why) const { file_.fail(fmt::format("damaged: {}", why)); }

  [[nodiscard]] Tensor tensor_of(const std::string& name, const Entry& entry, std::uint64_t available) const {
    const auto wrong = [&] { damaged(fmt::format("its header says nothing usable of '{}'", detail::printable(name))); };
    if (!entry.dtype || !entry.shape || !entry.offsets || entry.offsets->size() != 2) wrong();
    Tensor tensor{name, *entry.dtype, {}, entry.offsets->front(), entry.offsets->back()};
    const auto type = stored_type(tensor.dtype);
    std::uint64_t bytes = type ? type->bytes : 1;
    bool fits = true;
    for (const std::uint64_t extent : *entry.shape) {
      if (extent > (std::uint64_t{1} << 62)) wrong();
      tensor.shape.push_back(static_cast<std::int64_t>(extent));
      fits = fits && !__builtin_mul_overflow(bytes, std::max<std::uint64_t>(extent, 1), &bytes);
    }
    if (tensor.begin > tensor.end || !fits) wrong();
    if (std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end()) bytes = 0;
    if (tensor.end > available)
      file_.fail(fmt::format("truncated: tensor '{}' ends at byte {} of the data, of which there are {}",
                             detail::printable(name), tensor.end, available));
    if (type && bytes != tensor.end - tensor.begin)
      damaged(fmt::format("'{}' has {} bytes, where {} takes {}", detail::printable(name), tensor.end - tensor.begin,
                          type_of(tensor.dtype, tensor.shape), bytes));
    return tensor;
  }

  const File& file_;
  std::vector<Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Whether a State's array can take a tensor of the file.
bool compatible(const Tensor& tensor, const Array& array, bool convert) {
  if (!std::equal(tensor.shape.begin(), tensor.shape.end(), array.shape().begin(), array.shape().end())) return false;
  if (tensor.dtype == stored_name(array.dtype())) return true;
  const auto type = stored_type(tensor.dtype);
  if (!convert || !type) return false;
  if (is_integer(type->dtype())) return is_integer(array.dtype());
  return is_floating(type->dtype()) ? is_floating(array.dtype()) : type->dtype() == array.dtype();
}

// The numbers of a tensor, which follow in `input`.
Array read(const File& file, detail::FileInput& input, const Tensor& tensor, DType dtype) {
  const auto where = fmt::format("'{}': ", detail::printable(tensor.name));
  StoredType type = *stored_type(tensor.dtype);
  if (dtype == boolean) type.kind = StoredType::Kind::unsigned_integer;  // to see what else than 0 and 1 there is
  try {
    // Integers that the State's dtype does not have are found as they are read.
    const Array stored =
        detail::decode(file, input, type, Dims(tensor.shape), where, is_integer(dtype) ? dtype : type.dtype());
    Array out = stored.astype(dtype);
    for (std::int64_t i = 0; dtype == boolean && i < stored.size(); ++i)
      if (const auto byte = stored.data<std::uint8_t>()[i]; byte > 1)
        file.fail(fmt::format("damaged: {}the byte {} as a BOOL, which is 0 or 1", where, byte));
    for (std::int64_t i = 0; dtype == float32 && stored.dtype() == float64 && i < stored.size(); ++i)
      if (std::isinf(out.data<float>()[i]) && !std::isinf(stored.data<double>()[i]))
        file.fail(fmt::format("{}the number {}, which is too large for the State's float32", where,
                              stored.data<double>()[i]));
    return out;
  } catch (const detail::Unsupported& reason) {
    file.fail(fmt::format("{}{}", where, reason.what()));
  }
}

// "'W1', 'b1' and 3 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t most = 4;
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i)
    out += fmt::format("{}'{}'", i == 0 ? "" : ", ", detail::printable(names[i]));
  return names.size() > most ? out + fmt::format(" and {} more", names.size() - most) : out;
}

// All that can fail comes before the State is changed.
void load_from(const File& file, StateData& state, const LoadOptions& options) {
  detail::FileInput input(file);
  const Checkpoint checkpoint(file, input);
  state.grow();

  std::map<std::string_view, std::size_t> variables;
  for (const std::size_t i : stored_variables(state)) variables.emplace(state.graph->leaves->variables[i].name, i);
  std::vector<std::string> unknown;
  std::set<std::string_view> known;
  for (const Tensor& tensor : checkpoint.tensors()) {
    const auto found = variables.find(tensor.name);
    if (found == variables.end()) {
      unknown.push_back(tensor.name);
      continue;
    }
    known.insert(tensor.name);
    const Array& array = state.variables[found->second];
    if (!compatible(tensor, array, options.convert))
      file.fail(fmt::format("'{}' is {}, where the State has {}", tensor.name,
                            type_of(detail::printable(tensor.dtype), tensor.shape),
                            type_of(stored_name(array.dtype()), {array.shape().begin(), array.shape().end()})));
  }
  std::vector<std::string> missing;
  for (const auto& [name, i] : variables)
    if (!known.contains(name)) missing.emplace_back(name);
  if (!missing.empty() && !options.keep_missing)
    file.fail(fmt::format("it lacks {} of the State (keep_missing would leave these as they are)", listed(missing)));
  if (!unknown.empty() && !options.ignore_unknown) {
    std::sort(unknown.begin(), unknown.end());
    file.fail(fmt::format("it has {}, which the State has not (ignore_unknown would skip these)", listed(unknown)));
  }
  const auto step = checkpoint.counter("step");
  const auto epoch = checkpoint.counter("epoch");
  const auto draws = checkpoint.counter("draws");
  std::vector<std::pair<std::size_t, Array>> numbers;
  for (const Tensor& tensor : checkpoint.tensors()) {
    if (const auto found = variables.find(tensor.name); found != variables.end()) {
      numbers.emplace_back(found->second, read(file, input, tensor, state.variables[found->second].dtype()));
    } else if (input.skip(tensor.end - tensor.begin) < tensor.end - tensor.begin) {
      file.fail(fmt::format("truncated within tensor '{}'", detail::printable(tensor.name)));
    }
  }

  // Nothing else throws from here on.
  const detail::StateGuard writing(state.lock, detail::StateGuard::For::writing, file.at);
  for (const auto& [i, array] : numbers) std::memcpy(state.variables[i].raw(), array.raw(), array.bytes());
  if (step) state.step = *step;
  if (epoch) state.epoch = *epoch;
  if (step || draws) state.draws.set(draws.value_or(0));
  state.publish_counters();
}

// Its variables of these numbers, one after the other. Throws json::exception for a name that is not in UTF-8.
std::string header_of(const StateData& state, const std::vector<std::size_t>& order) {
  std::map<std::string_view, std::pair<const Array*, std::size_t>> places;
  std::size_t offset = 0;
  for (const std::size_t i : order) {
    const Array& array = state.variables[i];
    places.try_emplace(state.graph->leaves->variables[i].name, &array, offset);
    offset += array.bytes();
  }
  places.try_emplace(metadata_key, nullptr, 0);
  JsonWriter header;
  header.begin_object();
  for (const auto& [name, place] : places) {
    const auto [array, begin] = place;
    header.key(name);
    header.begin_object();
    if (array) {
      header.array_member("data_offsets", std::array{begin, begin + array->bytes()});
      header.member("dtype", stored_name(array->dtype()));
      header.array_member("shape", array->shape());
    } else {
      if (const std::int64_t draws = state.draws.now(); draws != 0) header.member("draws", std::to_string(draws));
      header.member("epoch", std::to_string(state.epoch));
      header.member("format", "chainrule");
      header.member("step", std::to_string(state.step));
    }
    header.end_object();
  }
  header.end_object();
  return header.text();
}

}  // namespace

void State::save(const std::string& path, Location at) const { data_->save(path, "state.save", at); }

void detail::StateData::save(const std::string& path, std::string_view op, Location at) {
  grow();
  const detail::StateGuard reading(lock, detail::StateGuard::For::reading);
  std::vector<std::size_t> order = stored_variables(*this);
  // The widest elements first, so that all are aligned.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(variables[a].dtype()) > size_of(variables[b].dtype());
  });
  for (const std::size_t i : order)
    if (const auto& name = graph->leaves->variables[i].name; name == metadata_key)
      throw Error(at, op, fmt::format("requires other names of variables than '{}'", name));
  std::string text;
  try {
    text = header_of(*this, order);
  } catch (const json::exception&) {
    throw Error(at, op, "requires names of variables in UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  detail::AtomicFile file(path, op, at);
  const std::uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const std::size_t i : order) file.write(variables[i].raw(), variables[i].bytes());
  file.commit();
}

void State::load(const std::string& path, const LoadOptions& options, Location at) {
  const File file{"state.load", "a checkpoint (.safetensors)", path, at};
  file.guard([&] { load_from(file, *data_, options); });
}

}  // namespace chainrule
