// A State on disk, as .safetensors: the length of a header (64 bits, little-endian), the header (a JSON object: for
// each tensor its dtype, shape and place in the data; "__metadata__": strings), the data. Source: the format's
// description in github.com/huggingface/safetensors.
#include <algorithm>
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
#include <chainrule/framework/io/numbers.hpp>
#include <chainrule/framework/run/state.hpp>
#include <chainrule/framework/run/state_data.hpp>

namespace chainrule {

namespace {

using detail::File;
using detail::GraphData;
using detail::StateData;
using detail::StoredType;
using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "the numbers of a checkpoint are written as they lie in memory");

constexpr const char* metadata_key = "__metadata__";

constexpr std::string_view stored_name(DType dtype) {
  constexpr std::string_view names[] = {"F32", "F64", "I64", "BOOL"};
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
    const json header = parse(text);
    for (const auto& [name, entry] : header.items()) {
      if (name == metadata_key) {
        read_metadata(entry);
      } else {
        tensors_.push_back(read_tensor(name, entry, available));
      }
    }
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

  // The library itself takes the last of several entries of one name.
  [[nodiscard]] json parse(const std::string& text) const {
    std::vector<std::set<std::string>> names;  // of the objects that are open
    std::optional<std::string> doubled;
    const auto watch = [&](int /*depth*/, json::parse_event_t event, json& parsed) {
      if (event == json::parse_event_t::object_start) names.emplace_back();
      if (event == json::parse_event_t::object_end) names.pop_back();
      if (event == json::parse_event_t::key)
        if (auto name = parsed.get<std::string>(); !names.back().insert(name).second) doubled = std::move(name);
      return true;
    };
    json header = json::parse(text, watch, false);
    if (!header.is_object()) damaged("its header is no JSON object");
    if (doubled) damaged(fmt::format("its header has '{}' twice", detail::printable(*doubled)));
    return header;
  }

  void read_metadata(const json& entry) {
    if (!entry.is_object()) damaged("its metadata is no object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) damaged("its metadata is not of strings");
      metadata_[key] = value.get<std::string>();
    }
  }

  [[nodiscard]] Tensor read_tensor(const std::string& name, const json& entry, std::uint64_t available) const {
    const auto wrong = [&] { damaged(fmt::format("its header says nothing usable of '{}'", detail::printable(name))); };
    const auto number = [](const json& value) { return value.is_number_unsigned(); };
    const auto numbers = [&](const json& list) {
      return list.is_array() && std::all_of(list.begin(), list.end(), number);
    };
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
        !numbers(entry["shape"]) || !entry.contains("data_offsets") || !numbers(entry["data_offsets"]) ||
        entry["data_offsets"].size() != 2)
      wrong();
    Tensor tensor{name,
                  entry["dtype"].get<std::string>(),
                  {},
                  entry["data_offsets"][0].get<std::uint64_t>(),
                  entry["data_offsets"][1].get<std::uint64_t>()};
    const auto type = stored_type(tensor.dtype);
    std::uint64_t bytes = type ? type->bytes : 1;
    bool fits = true;
    for (const auto& extent : entry["shape"]) {
      const auto value = extent.get<std::uint64_t>();
      if (value > (std::uint64_t{1} << 62)) wrong();
      tensor.shape.push_back(static_cast<std::int64_t>(value));
      fits = fits && !__builtin_mul_overflow(bytes, std::max<std::uint64_t>(value, 1), &bytes);
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
  return is_floating(type->dtype()) ? is_floating(array.dtype()) : type->dtype() == array.dtype();
}

// The numbers of a tensor, which follow in `input`.
Array read(const File& file, detail::FileInput& input, const Tensor& tensor, DType dtype) {
  const auto where = fmt::format("'{}': ", detail::printable(tensor.name));
  StoredType type = *stored_type(tensor.dtype);
  if (dtype == boolean) type.kind = StoredType::Kind::unsigned_integer;  // to see what else than 0 and 1 there is
  try {
    const Array stored = detail::decode(file, input, type, Dims(tensor.shape), where);
    Array out = stored.astype(dtype);
    for (std::int64_t i = 0; dtype == boolean && i < stored.size(); ++i)
      if (const auto byte = stored.data<std::int64_t>()[i]; byte > 1)
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
  state.publish_counters();
}

}  // namespace

void State::save(const std::string& path, Location at) const {
  data_->grow();
  const detail::StateGuard reading(data_->lock, detail::StateGuard::For::reading);
  std::vector<std::size_t> order = stored_variables(*data_);
  // The widest elements first, so that all are aligned.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return size_of(data_->variables[a].dtype()) > size_of(data_->variables[b].dtype());
  });
  json header;
  header[metadata_key] = {
      {"format", "chainrule"}, {"step", std::to_string(data_->step)}, {"epoch", std::to_string(data_->epoch)}};
  std::size_t offset = 0;
  for (const std::size_t i : order) {
    const Array& array = data_->variables[i];
    const std::string& name = data_->graph->leaves->variables[i].name;
    if (name == metadata_key)
      throw Error(at, "state.save", fmt::format("requires other names of variables than '{}'", name));
    header[name] = {{"dtype", stored_name(array.dtype())},
                    {"shape", std::vector<std::int64_t>(array.shape().begin(), array.shape().end())},
                    {"data_offsets", {offset, offset + array.bytes()}}};
    offset += array.bytes();
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    throw Error(at, "state.save", "requires names of variables in UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  detail::AtomicFile file(path, "state.save", at);
  const std::uint64_t length = text.size();
  file.write(&length, sizeof length);
  file.write(text.data(), text.size());
  for (const std::size_t i : order) file.write(data_->variables[i].raw(), data_->variables[i].bytes());
  file.commit();
}

void State::load(const std::string& path, const LoadOptions& options, Location at) {
  const File file{"state.load", "a checkpoint (.safetensors)", path, at};
  file.guard([&] { load_from(file, *data_, options); });
}

}  // namespace chainrule
