// A State on disk, as .safetensors: the length of a header (64 bits, little-endian), the header (a JSON object: for
// each tensor its dtype, shape and place in the data; "__metadata__": strings), the data. Source: the format's
// description in github.com/huggingface/safetensors.
#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <chainrule/framework/atomic_file.hpp>
#include <chainrule/framework/file.hpp>
#include <chainrule/framework/state.hpp>
#include <chainrule/framework/state_data.hpp>

namespace chainrule {

namespace {

using detail::File;
using detail::GraphData;
using detail::StateData;
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

struct Tensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string_view bytes;
};

std::string type_of(std::string_view dtype, const std::vector<std::int64_t>& shape) {
  std::string out;
  for (const std::int64_t extent : shape) out += fmt::format("{}{}", out.empty() ? "" : ", ", extent);
  return fmt::format("{} {{{}}}", dtype, out);
}

// A whole file, checked to be what the format says.
class Checkpoint {
 public:
  explicit Checkpoint(const File& file) : file_(file), bytes_(file.read()) {
    constexpr std::size_t longest = 100'000'000;  // of a header, as the format has it
    if (bytes_.size() < 8) file_.fail("truncated within the header");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), 8);
    if (length < 2 || length > longest || (bytes_.size() > 8 && bytes_[8] != '{'))
      file_.fail(fmt::format("no .safetensors file, it begins with \"{}\"", detail::printable(bytes_, 9)));
    if (bytes_.size() - 8 < length) file_.fail("truncated within the header");
    const std::string_view text(bytes_.data() + 8, length);
    const std::string_view data = std::string_view(bytes_).substr(8 + length);
    const json header = json::parse(text.begin(), text.end(), nullptr, false);
    if (!header.is_object()) damaged("its header is no JSON object");

    std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
    for (const auto& [name, entry] : header.items()) {
      if (name == metadata_key) {
        read_metadata(entry);
        continue;
      }
      Tensor& tensor = tensors_[name];
      const auto [begin, end] = read_tensor(name, entry, data.size(), tensor);
      tensor.bytes = data.substr(begin, end - begin);
      places.emplace_back(begin, end);
    }
    std::sort(places.begin(), places.end());
    std::uint64_t end = 0;
    for (const auto& [begin, next] : places) {
      if (begin != end) damaged(fmt::format("its tensors leave gaps or overlap at byte {} of the data", end));
      end = next;
    }
    if (end != data.size())
      damaged(fmt::format("its tensors have {} bytes, and {} follow the header", end, data.size()));
  }

  [[nodiscard]] const std::map<std::string, Tensor>& tensors() const { return tensors_; }

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

  void read_metadata(const json& entry) {
    if (!entry.is_object()) damaged("its metadata is no object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) damaged("its metadata is not of strings");
      metadata_[key] = value.get<std::string>();
    }
  }

  // Where the tensor's numbers lie in the data.
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> read_tensor(const std::string& name, const json& entry,
                                                                    std::uint64_t available, Tensor& tensor) const {
    const auto wrong = [&] { damaged(fmt::format("its header says nothing usable of '{}'", detail::printable(name))); };
    const auto number = [](const json& value) { return value.is_number_unsigned(); };
    const auto numbers = [&](const json& list) {
      return list.is_array() && std::all_of(list.begin(), list.end(), number);
    };
    if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
        !numbers(entry["shape"]) || !entry.contains("data_offsets") || !numbers(entry["data_offsets"]) ||
        entry["data_offsets"].size() != 2)
      wrong();
    tensor.dtype = entry["dtype"].get<std::string>();
    for (const auto& extent : entry["shape"]) {
      const auto value = extent.get<std::uint64_t>();
      if (value > (std::uint64_t{1} << 62)) wrong();
      tensor.shape.push_back(static_cast<std::int64_t>(value));
    }
    const auto begin = entry["data_offsets"][0].get<std::uint64_t>();
    const auto end = entry["data_offsets"][1].get<std::uint64_t>();
    if (begin > end) wrong();
    if (end > available)
      file_.fail(fmt::format("truncated: tensor '{}' ends at byte {} of the data, of which there are {}",
                             detail::printable(name), end, available));
    return {begin, end};
  }

  const File& file_;
  std::string bytes_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// "'W1', 'b1' and 3 more"
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t most = 4;
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i)
    out += fmt::format("{}'{}'", i == 0 ? "" : ", ", detail::printable(names[i]));
  return names.size() > most ? out + fmt::format(" and {} more", names.size() - most) : out;
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
  const Checkpoint checkpoint(file);
  data_->grow();

  std::vector<std::pair<std::size_t, std::string_view>> found;
  std::vector<std::string> missing;
  std::set<std::string_view> known;
  for (const std::size_t i : stored_variables(*data_)) {
    const Array& array = data_->variables[i];
    const std::string& name = data_->graph->leaves->variables[i].name;
    known.insert(name);
    const auto tensor = checkpoint.tensors().find(name);
    if (tensor == checkpoint.tensors().end()) {
      missing.push_back(name);
      continue;
    }
    const auto& [dtype, shape, bytes] = tensor->second;
    const std::vector<std::int64_t> wanted(array.shape().begin(), array.shape().end());
    if (dtype != stored_name(array.dtype()) || shape != wanted)
      file.fail(fmt::format("'{}' is {}, where the State has {}", name, type_of(detail::printable(dtype), shape),
                            type_of(stored_name(array.dtype()), wanted)));
    if (bytes.size() != array.bytes())
      file.fail(fmt::format("damaged: '{}' has {} bytes, where {} takes {}", name, bytes.size(), type_of(dtype, shape),
                            array.bytes()));
    found.emplace_back(i, bytes);
  }
  if (!missing.empty() && !options.keep_missing)
    file.fail(fmt::format("it lacks {} of the State (keep_missing would leave these as they are)", listed(missing)));
  if (!options.ignore_unknown && checkpoint.tensors().size() > found.size()) {
    std::vector<std::string> unknown;
    for (const auto& [name, tensor] : checkpoint.tensors())
      if (!known.contains(name)) unknown.push_back(name);
    file.fail(fmt::format("it has {}, which the State has not (ignore_unknown would skip these)", listed(unknown)));
  }
  const auto step = checkpoint.counter("step");
  const auto epoch = checkpoint.counter("epoch");

  // Nothing throws from here on.
  const detail::StateGuard writing(data_->lock, detail::StateGuard::For::writing, at);
  for (const auto& [i, bytes] : found) std::memcpy(data_->variables[i].raw(), bytes.data(), bytes.size());
  if (step) data_->step = *step;
  if (epoch) data_->epoch = *epoch;
  data_->publish_counters();
}

}  // namespace chainrule
