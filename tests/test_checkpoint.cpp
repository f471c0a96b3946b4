// State::save and State::load: exact, whole or not at all, and clear about wrong files.
#include <chainrule/chainrule.hpp>

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>
#include <limits>
#include <thread>

#include <nlohmann/json.hpp>

#include <chainrule/framework/io/atomic_file.hpp>

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

TEST_CASE("Names of a checkpoint are any text in UTF-8") {
  const TemporaryFolder folder;
  cr::Graph graph;
  const auto odd = graph.parameter("\"\\/\b\t\n\x1b\x7f\u00e9\U0001f600", cr::Array({1.5}));
  graph.parameter("A", cr::zeros({0, 2}));
  cr::State state(graph);
  state.save(folder / "x");
  const std::string bytes = read_file(folder / "x");
  std::string header =
      "{\"\\\"\\\\/\\b\\t\\n\\u001b\x7f\u00e9\U0001f600\":"
      R"({"data_offsets":[0,8],"dtype":"F64","shape":[1]},)"
      R"("A":{"data_offsets":[8,8],"dtype":"F64","shape":[0,2]},)"
      R"("__metadata__":{"epoch":"0","format":"chainrule","step":"0"}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  CHECK(bytes.substr(8, bytes.size() - 16) == header);
  cr::State other(graph);
  other.set(odd, cr::Array({0.0}));
  other.load(folder / "x");
  CHECK(other[odd].item() == 1.5);

  for (const char* const name : {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80"}) {
    cr::Graph wrong;
    wrong.parameter(name, cr::zeros({1}));
    CHECK_THAT(error_text([&] { cr::State(wrong).save(folder / "y"); }),
               ContainsSubstring("state.save: requires names of variables in UTF-8"));
  }
  CHECK(folder.files() == 1);
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
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", two.substr(8)),
                        {.convert = false}),
             ContainsSubstring("'w' is F32 {2}, where the State has F64 {2}"));
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})", two)),
             ContainsSubstring("'w' is I64 {2}, where the State has F64 {2}"));
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}})", two.substr(14))),
             ContainsSubstring("'w' is F8_E4M3 {2}, where the State has F64 {2}"));
}

TEST_CASE("A checkpoint's floating numbers are rounded to the State's width, its whole ones taken as int64") {
  const TemporaryFolder folder;
  const auto load = [&](const std::string& dtype, const std::string& numbers, cr::DType wanted) {
    cr::Graph graph;
    const auto w = graph.variable("w", cr::zeros({2}), wanted);
    cr::State state(graph);
    write_file(folder / "x", safetensors(R"({"w":{"dtype":")" + dtype + R"(","shape":[2],"data_offsets":[0,)" +
                                             std::to_string(numbers.size()) + "]}}",
                                         numbers));
    state.load(folder / "x");
    return state[w];
  };
  const auto unhex = chainrule::test::unhex;
  for (const auto wanted : {cr::float32, cr::float64}) {
    const cr::Array expected = cr::Array({1.5, -2.0}).astype(wanted);
    CHECK(load("F16", unhex("003e00c0"), wanted).identical(expected));
    CHECK(load("BF16", unhex("c03f00c0"), wanted).identical(expected));
    CHECK(load("F32", unhex("0000c03f000000c0"), wanted).identical(expected));
    CHECK(load("F64", unhex("000000000000f83f00000000000000c0"), wanted).identical(expected));
  }
  // 0.1 in float64 is 0x3fb999999999999a, in float32 0x3dcccccd, which is 0x3fb99999a0000000.
  const std::string tenths = unhex("9a9999999999b93f9a9999999999b93f");
  CHECK(load("F64", tenths, cr::float32)[0] == 0x1.99999ap-4);
  const std::string tenths32 = unhex("cdcccc3dcdcccc3d");
  CHECK(load("F32", tenths32, cr::float64)[1] == 0x1.99999ap-4);
  CHECK(load("I32", unhex("ffffffff07000000"), cr::int64).identical(cr::Array({-1, 7}).astype(cr::int64)));
  CHECK(load("U8", unhex("ff07"), cr::int64).identical(cr::Array({255, 7}).astype(cr::int64)));
  CHECK(load("I32", unhex("ffffffff07000000"), cr::int32).identical(cr::Array({-1, 7}).astype(cr::int32)));
  CHECK(load("I64", unhex("ffffffffffffffff0700000000000000"), cr::int32)
            .identical(cr::Array({-1, 7}).astype(cr::int32)));
  CHECK(load("U8", unhex("ff07"), cr::uint8).identical(cr::Array({255, 7}).astype(cr::uint8)));
  CHECK(load("I16", unhex("ff000700"), cr::uint8).identical(cr::Array({255, 7}).astype(cr::uint8)));
  // What would lose its meaning.
  CHECK_THAT(error_text([&] { load("I16", unhex("00010700"), cr::uint8); }),
             ContainsSubstring("'w': the number 256, which is too large for uint8"));
  CHECK_THAT(error_text([&] { load("I8", unhex("ff07"), cr::uint8); }),
             ContainsSubstring("'w': the number -1, which is none of uint8"));
  CHECK_THAT(error_text([&] { load("U32", unhex("00000080ffffffff"), cr::int32); }),
             ContainsSubstring("'w': the number 2147483648, which is too large for int32"));
  const std::string large = unhex("000000000000f07f9a9999999999e97f");  // inf, 1.4e308
  CHECK(load("F64", large.substr(0, 8) + large.substr(0, 8), cr::float32)[0] ==
        std::numeric_limits<double>::infinity());
  CHECK_THAT(error_text([&] { load("F64", large, cr::float32); }),
             ContainsSubstring("'w': the number 1.4") && ContainsSubstring("too large for the State's float32"));
  CHECK_THAT(error_text([&] { load("U64", std::string(16, '\xff'), cr::int64); }),
             ContainsSubstring("'w': the number 18446744073709551615, which is too large for int64"));
  CHECK_THAT(error_text([&] { load("F64", tenths, cr::int64); }), ContainsSubstring("where the State has I64"));
  CHECK_THAT(error_text([&] { load("U8", unhex("0100"), cr::boolean); }), ContainsSubstring("the State has BOOL"));
}

TEST_CASE("A BOOL is 0 or 1, and a name stands once") {
  const TemporaryFolder folder;
  cr::Graph graph;
  const auto mask = graph.variable("mask", cr::Array({1, 0}).astype(cr::boolean), cr::boolean);
  const auto w = graph.parameter("w", cr::Array({7.0}));
  cr::State state(graph);
  const std::string header = R"({"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                             R"("mask":{"dtype":"BOOL","shape":[2],"data_offsets":[8,10]}})";
  write_file(folder / "x", safetensors(header, std::string(8, '\0') + "\1\2"));
  CHECK_THAT(error_text([&] { state.load(folder / "x"); }),
             ContainsSubstring("damaged: 'mask': the byte 2 as a BOOL, which is 0 or 1"));
  CHECK(state[mask].identical(cr::Array({1, 0}).astype(cr::boolean)));
  CHECK(state[w].item() == 7);  // read before the error, and yet as it was

  const std::string one = R"("w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]})";
  CHECK_THAT(load_error(safetensors("{" + one + "," + one + "}", std::string(16, '\0'))),
             ContainsSubstring("damaged: its header has 'w' twice"));
  CHECK_THAT(load_error(safetensors("{" + one + R"(,"__metadata__":{"step":"1","step":"2"}})", std::string(16, '\0'))),
             ContainsSubstring("damaged: its header has 'step' twice"));
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"F64","shape":[2],"shape":[2],"data_offsets":[0,16]}})",
                                    std::string(16, '\0'))),
             ContainsSubstring("damaged: its header has 'shape' twice"));
}

TEST_CASE("Sizes that wrap around are no sizes") {
  // 2^61 * 8 = 2^64.
  CHECK_THAT(load_error(safetensors(R"({"w":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", "")),
             ContainsSubstring("its header says nothing usable of 'w'"));
  CHECK_THAT(
      load_error(safetensors(R"({"w":{"dtype":"F64","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", "")),
      ContainsSubstring("its header says nothing usable of 'w'"));
}

TEST_CASE("Nothing is left of a save that is killed") {
  const TemporaryFolder folder;
  cr::Graph graph;
  graph.parameter("w", cr::zeros({100'000}));
  const cr::State state(graph);
  state.save(folder / "x");
  for (int i = 0; i < 20; ++i) {
    const pid_t saver = fork();
    if (saver == 0)
      for (;;) state.save(folder / "x");
    usleep(static_cast<useconds_t>(3000 + 700 * i));
    REQUIRE(kill(saver, SIGKILL) == 0);
    REQUIRE(waitpid(saver, nullptr, 0) == saver);
    cr::State(graph).load(folder / "x");
  }
  state.save(folder / "x");  // takes over what a kill between two system calls may have left
  CHECK(folder.files() == 1);
}

TEST_CASE("Where files must have names the next save takes over what a killed one has left") {
  using chainrule::detail::AtomicFile;
  const TemporaryFolder folder;
  const auto write = [&](const std::string& text) {
    AtomicFile file(folder / "x", "test", cr::Location::here(), AtomicFile::Start::named);
    file.write(text.data(), text.size());
    CHECK(folder.files() >= 1);
    file.commit();
  };
  write_file(folder / ".x.part", "half of a longer file, say");
  write("whole");
  CHECK(read_file(folder / "x") == "whole");
  CHECK(folder.files() == 1);
  {
    AtomicFile given_up(folder / "x", "test", cr::Location::here(), AtomicFile::Start::named);
    given_up.write("ha", 2);
  }
  CHECK(read_file(folder / "x") == "whole");
  CHECK(folder.files() == 1);
}

TEST_CASE("Several writers of one file replace it in turn") {
  using chainrule::detail::AtomicFile;
  const auto start = GENERATE(AtomicFile::Start::named, AtomicFile::Start::unnamed);
  const TemporaryFolder folder;
  std::atomic<int> failed = 0;
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i)
    writers.emplace_back([&, i] {
      for (int j = 0; j < 20; ++j) try {
          AtomicFile file(folder / "x", "test", cr::Location::here(), start);
          const std::string text(1000, static_cast<char>('a' + i));
          file.write(text.data(), text.size());
          file.commit();
        } catch (const cr::Error&) {
          ++failed;
        }
    });
  for (auto& writer : writers) writer.join();
  CHECK(failed == 0);
  const std::string last = read_file(folder / "x");
  CHECK(last == std::string(1000, last.at(0)));
  CHECK(folder.files() == 1);
}

TEST_CASE("A write-protected checkpoint is not replaced") {
  const TemporaryFolder folder;
  Small small;
  small.state.save(folder / "x");
  const std::string before = read_file(folder / "x");
  REQUIRE(chmod((folder / "x").c_str(), 0444) == 0);
  small.state.set_step(5);
  CHECK_THAT(error_text([&] { small.state.save(folder / "x"); }), ContainsSubstring("': it is write-protected"));
  CHECK(read_file(folder / "x") == before);
  CHECK(folder.files() == 1);
}

TEST_CASE("Checkpoints of others load, with the counters as they were") {
  const TemporaryFolder folder;
  std::string data(16, '\0');
  const double numbers[] = {3, 4};
  std::memcpy(data.data(), numbers, 16);
  for (
      const char* const header :
      {R"({"w":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}})",
       R"({"__metadata__":{"made by":"hand"},"w":{"data_offsets":[0,16],"shape":[2],"dtype":"F64"}}   )",
       R"({"w":{"more":{"shape":[3],"dtype":1},"shape":[2],"list":[[1],{"dtype":2}],"dtype":"F64","data_offsets":[0,16],
            "none":null}})"}) {
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
        R"({"dtype":"F64","shape":[2.5],"data_offsets":[0,16]})", R"(["F64",[2],[0,16]])",
        R"({"dtype":"F64","shape":[[2]],"data_offsets":[0,16]})", R"({"dtype":"F64","shape":{},"data_offsets":[0,16]})",
        R"({"dtype":"F64","shape":["2",2],"data_offsets":[0,16]})",
        R"({"x":{"dtype":"F64","shape":[2],"data_offsets":[0,16]}})",
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
  for (const char* const metadata : {"[]", "null", "[1]", R"(["a"])"})
    CHECK_THAT(damaged("{" + w + ",\"__metadata__\":" + metadata + "}"),
               ContainsSubstring("its metadata is no object"));
  for (const char* const metadata : {R"({"a":{}})", R"({"a":["b"]})", R"({"a":"b","c":null})"})
    CHECK_THAT(damaged("{" + w + ",\"__metadata__\":" + metadata + "}"),
               ContainsSubstring("its metadata is not of strings"));
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
