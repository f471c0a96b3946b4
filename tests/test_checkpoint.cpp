// State::save and State::load: exact, whole or not at all, and clear about wrong files.
#include <chainrule/chainrule.hpp>

#include <sys/resource.h>

#include <csignal>
#include <cstring>

#include <nlohmann/json.hpp>

#include "files.hpp"

namespace cr = chainrule;
using Catch::Matchers::ContainsSubstring;
using chainrule::test::error_text;
using chainrule::test::read_file;
using chainrule::test::TemporaryFolder;
using chainrule::test::write_file;

namespace {

// A network with all that a State keeps: parameters, running statistics, Adam's slots and its own count, the step (in
// dropout's masks) and the epoch (in the rate).
struct Network {
  explicit Network(cr::DType dtype = cr::float32)
      : graph({.dtype = dtype, .seed = 5}),
        x(graph.input("x", {graph.dimension("batch"), 6})),
        y(graph.input("y", {graph.dimension("batch")}, cr::int64)) {
    const auto hidden = cr::nn::dense(x, 16, cr::init::he_normal());
    const auto h = cr::dropout(cr::relu(cr::nn::batch_norm(hidden)), {.keep = 0.7});
    logits = cr::nn::dense(h, 3, cr::init::glorot_normal());
    loss = cr::softmax_cross_entropy(logits, y);
    const auto rate = cr::optim::inverse_time_decay({.initial = 1e-2, .decay = 0.5});
    updates = cr::optim::Adam{.learning_rate = rate}.minimize(loss);
  }
  cr::Graph graph;
  cr::Value x;
  cr::Value y;
  cr::Value logits;
  cr::Value loss;
  cr::Updates updates;
};

// The losses of training from step `from` to `to`, ten steps an epoch.
std::vector<double> train(Network& network, cr::State& state, int from, int to) {
  cr::Program program(state, {.outputs = {network.loss}, .updates = network.updates});
  std::vector<double> out;
  for (int step = from; step < to; ++step) {
    state.set_epoch(step / 10);
    cr::numpy::RandomState rng(step);
    const cr::Array x = rng.randn(12, 6).astype(network.x.dtype());
    out.push_back(program.run({{network.x, x}, {network.y, rng.randint(0, 3, 12)}}).scalar());
  }
  return out;
}

// A file of this header and data.
std::string safetensors(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out + header + data;
}

// A State of one parameter w of two numbers.
struct Small {
  Small() : w(graph.parameter("w", cr::Array({1.5, 2.5}))), state(graph) {}
  cr::Graph graph;
  cr::Value w;
  cr::State state;
};

std::string load_error(const std::string& bytes, const cr::LoadOptions& options = {}) {
  const TemporaryFolder folder;
  write_file(folder / "x.safetensors", bytes);
  Small small;
  small.state.set_step(3);
  const std::string text = error_text([&] { small.state.load(folder / "x.safetensors", options); });
  CHECK(small.state[small.w].identical(cr::Array({1.5, 2.5})));
  CHECK(small.state.step() == 3);
  return text;
}

}  // namespace

TEST_CASE("Training goes on from a checkpoint bit for bit") {
  const auto dtype = GENERATE(cr::float32, cr::float64);
  const TemporaryFolder folder;
  const std::string path = folder / "x.safetensors";

  Network whole(dtype);
  cr::State whole_state(whole.graph);
  const auto expected = train(whole, whole_state, 0, 50);

  std::vector<double> got;
  {
    Network first(dtype);
    cr::State state(first.graph);
    got = train(first, state, 0, 23);
    state.save(path);
  }
  Network second(dtype);
  cr::State state(second.graph);
  state.load(path);
  CHECK(state.step() == 23);
  CHECK(state.epoch() == 2);
  const auto rest = train(second, state, 23, 50);
  got.insert(got.end(), rest.begin(), rest.end());
  CHECK(got == expected);
  for (const auto parameter : whole.graph.parameters())
    CHECK(state[parameter.name()].identical(whole_state[parameter]));
  state.save(folder / "a");
  whole_state.save(folder / "b");
  CHECK(read_file(folder / "a") == read_file(folder / "b"));  // and all else

  // Into a State whose programs run already: they go on with the numbers loaded.
  whole_state.load(path);
  const auto again = train(whole, whole_state, 23, 50);
  CHECK(std::equal(again.begin(), again.end(), expected.begin() + 23, expected.end()));
}

TEST_CASE("A checkpoint is a .safetensors file") {
  const TemporaryFolder folder;
  cr::Graph graph;
  const auto flags = graph.variable("flags", cr::Array({1, 0, 1}).astype(cr::boolean), cr::boolean);
  graph.parameter("layer/w", cr::Array({{1.5, -2.0}}));
  graph.variable("count", cr::Array(7), cr::int64);
  graph.variable("narrow", cr::Array({0.5}), cr::float32);
  graph.step();
  graph.epoch();
  cr::State state(graph);
  state.set_step(1234567890123);
  state.set_epoch(9);
  state.save(folder / "x");
  CHECK(folder.files() == 1);

  const std::string bytes = read_file(folder / "x");
  std::uint64_t length = 0;
  REQUIRE(bytes.size() > 8);
  std::memcpy(&length, bytes.data(), 8);
  CHECK(length % 8 == 0);
  REQUIRE(bytes.size() == 8 + length + 16 + 8 + 4 + 3);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  CHECK(header.size() == 5);  // the counters are no tensors
  CHECK(header.at("__metadata__") ==
        nlohmann::json{{"format", "chainrule"}, {"step", "1234567890123"}, {"epoch", "9"}});
  const auto& w = header.at("layer/w");
  CHECK(w.at("dtype") == "F64");
  CHECK(w.at("shape") == nlohmann::json{1, 2});
  CHECK(w.at("data_offsets") == nlohmann::json{0, 16});
  CHECK(header.at("count") ==
        nlohmann::json{{"dtype", "I64"}, {"shape", nlohmann::json::array()}, {"data_offsets", {16, 24}}});
  CHECK(header.at("narrow").at("dtype") == "F32");
  CHECK(header.at("flags").at("dtype") == "BOOL");
  CHECK(header.at("flags").at("data_offsets") == nlohmann::json{28, 31});
  double number = 0;
  std::memcpy(&number, bytes.data() + 8 + length + 8, 8);
  CHECK(number == -2);

  cr::State other(graph);
  other.set("layer/w", cr::Array({{0.0, 0.0}}));
  other.set(flags, cr::Array({0, 0, 0}).astype(cr::boolean));
  other.load(folder / "x");
  CHECK(other["layer/w"].identical(cr::Array({{1.5, -2.0}})));
  CHECK(other[flags].identical(cr::Array({1, 0, 1}).astype(cr::boolean)));
  CHECK(other.step() == 1234567890123);
  CHECK(other["step"].item() == 1234567890123);
  CHECK(other.epoch() == 9);
}

TEST_CASE("Names, dtypes and shapes of a checkpoint are those of the State") {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  Network network;
  cr::State state(network.graph);
  train(network, state, 0, 3);
  state.save(path);

  // Without the optimizer: a program that only predicts.
  cr::Graph graph({.dtype = cr::float32});
  const auto parameters = network.graph.parameters();
  REQUIRE(!parameters.empty());
  const auto w = graph.parameter(parameters[0].name(), state[parameters[0]]);
  cr::State predict(graph);
  predict.set(w, cr::Array(cr::float32, state[parameters[0]].shape()));
  CHECK_THAT(error_text([&] { predict.load(path); }),
             ContainsSubstring("state.load: requires a checkpoint (.safetensors), got '" + path + "': it has '") &&
                 ContainsSubstring(" more, which the State has not (ignore_unknown would skip these)") &&
                 ContainsSubstring("test_checkpoint.cpp:"));
  CHECK(predict[w][0] == 0);
  predict.load(path, {.ignore_unknown = true});
  CHECK(predict[w].identical(state[parameters[0]]));
  CHECK(predict.step() == 3);

  const auto extra = graph.parameter("extra", cr::Array({4.0}));
  CHECK_THAT(error_text([&] { predict.load(path, {.ignore_unknown = true}); }),
             ContainsSubstring("it lacks 'extra' of the State (keep_missing would leave these as they are)"));
  predict.load(path, {.ignore_unknown = true, .keep_missing = true});
  CHECK(predict[extra][0] == 4);

  const std::string two(16, '\0');
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"F64","shape":[2,1],"data_offsets":[0,16]}})", two)),
             ContainsSubstring("'w' is F64 {2, 1}, where the State has F64 {2}"));
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", two.substr(8))),
             ContainsSubstring("'w' is F32 {2}, where the State has F64 {2}"));
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", two.substr(12))),
             ContainsSubstring("'w' is BF16 {2}, where the State has F64 {2}"));
}

TEST_CASE("Checkpoints of others load, with the counters as they were") {
  const TemporaryFolder folder;
  std::string data(16, '\0');
  const double numbers[] = {3, 4};
  std::memcpy(data.data(), numbers, 16);
  for (const char* const header :
       {R"({"w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}})",
        R"({"__metadata__":{"made by":"hand"},"w":{"data_offsets":[0,16],"shape":[2],"dtype":"F64"}}   )"}) {
    write_file(folder / "x", safetensors(header, data));
    Small small;
    small.state.set_step(8);
    small.state.load(folder / "x");
    CHECK(small.state[small.w].identical(cr::Array({3, 4})));
    CHECK(small.state.step() == 8);
  }
}

TEST_CASE("Wrong checkpoints are named, and change nothing") {
  const auto load = [](const std::string& path) { Small().state.load(path); };
  chainrule::test::check_wrong_files(load, "state.load", "a checkpoint (.safetensors)");
  const TemporaryFolder folder;
  Small().state.save(folder / "x");
  const std::string good = read_file(folder / "x");
  chainrule::test::check_truncations(good, load);
  chainrule::test::check_damages(good, load);

  CHECK_THAT(load_error("\x93NUMPY and more of it"), ContainsSubstring("no .safetensors file, it begins with"));
  CHECK_THAT(load_error(good.substr(0, 5)), ContainsSubstring("truncated within the header"));
  CHECK_THAT(load_error(good.substr(0, 50)), ContainsSubstring("truncated within the header"));
  CHECK_THAT(load_error(good.substr(0, good.size() - 1)),
             ContainsSubstring("truncated: tensor 'w' ends at byte 16 of the data, of which there are 15"));
  CHECK_THAT(load_error(good + "x"), ContainsSubstring("damaged: its tensors have 16 bytes, and 17 follow"));
  const std::string data(16, '\0');
  const auto damaged = [&](const std::string& header) { return load_error(safetensors(header, data)); };
  CHECK_THAT(damaged("{\"w\":"), ContainsSubstring("damaged: its header is no JSON object"));
  for (const char* const entry :
       {"1", "{}", R"({"dtype":"F64","shape":[2]})", R"({"dtype":"F64","shape":2,"data_offsets":[0,16]})",
        R"({"dtype":"F64","shape":[-2],"data_offsets":[0,16]})", R"({"dtype":"F64","shape":[2],"data_offsets":[16,0]})",
        R"({"dtype":"F64","shape":[2],"data_offsets":[0,16,32]})", R"({"dtype":1,"shape":[2],"data_offsets":[0,16]})",
        R"({"dtype":"F64","shape":[2.5],"data_offsets":[0,16]})",
        R"({"dtype":"F64","shape":[18446744073709551615],"data_offsets":[0,16]})"}) {
    INFO(entry);
    CHECK_THAT(damaged("{\"w\":" + std::string(entry) + "}"),
               ContainsSubstring("damaged: its header says nothing usable of 'w'"));
  }
  const std::string w = R"("w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]})";
  CHECK_THAT(damaged("{" + w + R"(,"v":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}})"),
             ContainsSubstring("damaged: its tensors leave gaps or overlap at byte"));
  CHECK_THAT(damaged(R"({"w":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}})"), ContainsSubstring("leave gaps"));
  CHECK_THAT(
      damaged(
          R"({"w":{"dtype":"F64","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}})"),
      ContainsSubstring("damaged: 'w' has 8 bytes, where F64 {2} takes 16"));
  CHECK_THAT(damaged("{" + w + R"(,"__metadata__":{"step":"-1"}})"), ContainsSubstring("damaged: its step is \"-1\""));
  CHECK_THAT(damaged("{" + w + R"(,"__metadata__":{"epoch":"1.5"}})"), ContainsSubstring("its epoch is \"1.5\""));
  CHECK_THAT(damaged("{" + w + R"(,"__metadata__":{"step":1}})"), ContainsSubstring("its metadata is not of strings"));
  CHECK_THAT(damaged("{" + w + R"(,"__metadata__":[]})"), ContainsSubstring("its metadata is no object"));
}

TEST_CASE("A save that fails leaves the old checkpoint") {
  const TemporaryFolder folder;
  Small small;
  CHECK_THAT(error_text([&] { small.state.save(folder / "no/x"); }),
             ContainsSubstring("state.save: requires a file that can be written, got '" + (folder / "no/x") + "'"));
  small.state.save(folder / "x");
  const std::string before = read_file(folder / "x");
  const auto reserved = small.graph.parameter("__metadata__", cr::zeros({1}));
  CHECK(small.state[reserved][0] == 0);
  CHECK_THAT(error_text([&] { small.state.save(folder / "x"); }),
             ContainsSubstring("requires other names of variables"));
  CHECK(read_file(folder / "x") == before);
  CHECK(folder.files() == 1);
}

TEST_CASE("A save that runs out of room leaves the old checkpoint") {
  const TemporaryFolder folder;
  Small small;
  small.state.save(folder / "x");
  const std::string before = read_file(folder / "x");
  small.graph.parameter("large", cr::zeros({1000}));
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &old) == 0);
  const rlimit tight{1000, old.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(setrlimit(RLIMIT_FSIZE, &tight) == 0);
  const std::string text = error_text([&] { small.state.save(folder / "x"); });
  REQUIRE(setrlimit(RLIMIT_FSIZE, &old) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK_THAT(text, ContainsSubstring("': File too large"));
  CHECK(read_file(folder / "x") == before);
  CHECK(folder.files() == 1);
}
