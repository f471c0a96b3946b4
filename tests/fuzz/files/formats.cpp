#include "formats.hpp"

#include <hdf5.h>
#include <matio.h>
#include <zip.h>
#include <zlib.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

#include <fmt/core.h>

#include <chainrule/chainrule.hpp>

namespace chainrule::fuzz {

namespace {

// ---- bytes

void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void append(std::string& to, std::uint64_t number, std::size_t size, bool big_endian = false) {
  for (std::size_t i = 0; i < size; ++i) to += static_cast<char>(number >> 8 * (big_endian ? size - 1 - i : i) & 255);
}

std::string random_bytes(Random& random, std::size_t count) {
  std::string out(count, '\0');
  for (char& c : out) c = static_cast<char>(draw(random, 4) == 0 ? random() : draw(random, 3));
  return out;
}

std::vector<std::size_t> random_shape(Random& random, std::size_t least_rank, std::size_t most_rank) {
  std::vector<std::size_t> out(least_rank + draw(random, most_rank - least_rank + 1));
  for (auto& extent : out) extent = draw(random, 12) == 0 ? 0 : 1 + draw(random, 5);
  return out;
}

std::size_t count_of(const std::vector<std::size_t>& shape) {
  std::size_t out = 1;
  for (const auto extent : shape) out *= extent;
  return out;
}

// ---- NumPy

std::string npy(Random& random) {
  static constexpr std::string_view types[] = {"|b1", "|i1", "|u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<i8",
                                               "<u8", "<f2", "<f4", ">f4", "<f8", ">f8", "<c8", "<U1", "|O"};
  const std::string_view type = types[draw(random, std::size(types))];
  const auto shape = random_shape(random, 0, 4);
  std::string extents;
  for (const auto extent : shape) extents += fmt::format("{}, ", extent);
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': ({}), }}", type,
                                   draw(random, 3) == 0 ? "True" : "False", extents);
  const std::size_t version = 1 + draw(random, 3);
  const std::size_t start = version == 1 ? 10 : 12;
  header.resize((start + header.size() + 64) / 64 * 64 - start - 1, ' ');
  header += '\n';
  std::string out = "\x93NUMPY";
  append(out, version, 2);
  append(out, header.size(), version == 1 ? 2 : 4);
  const std::size_t size = type == "|O" ? 8 : static_cast<std::size_t>(type[2] - '0') * (type[1] == 'U' ? 4 : 1);
  std::string elements = random_bytes(random, count_of(shape) * size);
  if (type == "<u8")  // within int64
    for (std::size_t i = 7; i < elements.size(); i += 8) elements[i] = 0;
  return out + header + elements;
}

// One whose elements an Array can hold.
std::string plain_npy(Random& random) {
  for (;;)
    if (std::string out = npy(random); out.find("c8") == std::string::npos && out.find("<U") == std::string::npos &&
                                       out.find("|O") == std::string::npos)
      return out;
}

void make_npy(const std::string& path, Random& random, const Damage&) { write_file(path, plain_npy(random)); }

void make_npz(const std::string& path, Random& random, const Damage& damage) {
  std::vector<std::string> members;
  for (std::uint64_t i = 1 + draw(random, 3); i > 0; --i) members.push_back(damage(npy(random)));
  zip_t* const zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, nullptr);
  if (zip == nullptr) throw std::runtime_error("libzip");
  for (std::size_t i = 0; i < members.size(); ++i) {
    const auto index = zip_file_add(zip, fmt::format("array{}.npy", i).c_str(),
                                    zip_source_buffer(zip, members[i].data(), members[i].size(), 0), 0);
    zip_set_file_compression(zip, static_cast<zip_uint64_t>(index),
                             draw(random, 2) == 0 ? ZIP_CM_STORE : ZIP_CM_DEFLATE, 6);
  }
  if (zip_close(zip) != 0) throw std::runtime_error("libzip");
}

DType random_dtype(Random& random) {
  constexpr DType all[] = {float32, float64, int64, int32, uint8, boolean};
  return all[draw(random, std::size(all))];
}

// As this library writes them.
void make_saved_npz(const std::string& path, Random& random, const Damage&) {
  data::Arrays arrays;
  for (std::uint64_t i = 1 + draw(random, 3); i > 0; --i) {
    Array array(random_dtype(random), Dims(random_shape(random, 0, 3)));
    for (std::int64_t j = 0; j < array.size(); ++j) array.set(j, static_cast<double>(draw(random, 2)));
    arrays[fmt::format("a{}", i)] = array;
  }
  data::save_npz(path, arrays);
}

// ---- MATLAB

void add_variable(mat_t* mat, Random& random, int number, matio_compression compression) {
  struct Class {
    matio_classes kind;
    matio_types type;
    std::size_t bytes;
    int options;
  };
  static constexpr Class classes[] = {{MAT_C_DOUBLE, MAT_T_DOUBLE, 8, 0},
                                      {MAT_C_SINGLE, MAT_T_SINGLE, 4, 0},
                                      {MAT_C_INT8, MAT_T_INT8, 1, 0},
                                      {MAT_C_UINT16, MAT_T_UINT16, 2, 0},
                                      {MAT_C_INT32, MAT_T_INT32, 4, 0},
                                      {MAT_C_INT64, MAT_T_INT64, 8, 0},
                                      {MAT_C_UINT8, MAT_T_UINT8, 1, MAT_F_LOGICAL},
                                      {MAT_C_CHAR, MAT_T_UINT8, 1, 0}};
  const bool old = Mat_GetVersion(mat) == MAT_FT_MAT4;
  const Class& one = classes[old ? 0 : draw(random, std::size(classes))];
  auto shape = random_shape(random, 2, old ? 2 : 3);
  if (count_of(shape) == 0) shape = {1, 2};
  const std::string name = fmt::format("v{}", number);
  std::string numbers = random_bytes(random, count_of(shape) * one.bytes);
  matvar_t* const variable = Mat_VarCreate(name.c_str(), one.kind, one.type, static_cast<int>(shape.size()),
                                           shape.data(), numbers.data(), one.options);
  Mat_VarWrite(mat, variable, compression);
  Mat_VarFree(variable);
}

void make_mat(const std::string& path, Random& random, mat_ft version, matio_compression compression) {
  mat_t* const mat = Mat_CreateVer(path.c_str(), nullptr, version);
  if (mat == nullptr) throw std::runtime_error("libmatio");
  const auto variables = static_cast<int>(1 + draw(random, 3));
  for (int i = 0; i < variables; ++i) add_variable(mat, random, i, compression);
  if (version != MAT_FT_MAT4 && draw(random, 3) == 0) {
    const char* fields[] = {"a"};
    std::array<std::size_t, 2> one{1, 1};
    matvar_t* const structure = Mat_VarCreateStruct("s", 2, one.data(), fields, 1);
    Mat_VarWrite(mat, structure, compression);
    Mat_VarFree(structure);
  }
  Mat_Close(mat);
}

void make_mat4(const std::string& path, Random& random, const Damage&) {
  make_mat(path, random, MAT_FT_MAT4, MAT_COMPRESSION_NONE);
}
void make_mat5(const std::string& path, Random& random, const Damage&) {
  make_mat(path, random, MAT_FT_MAT5, MAT_COMPRESSION_NONE);
}
// Its variables are compressed here, after they were damaged.
void make_mat7(const std::string& path, Random& random, const Damage& damage) {
  make_mat(path, random, MAT_FT_MAT5, MAT_COMPRESSION_NONE);
  const std::string plain = read_file(path);
  std::string out = plain.substr(0, 128);
  for (std::size_t at = 128; at + 8 <= plain.size();) {
    std::uint32_t length = 0;
    std::memcpy(&length, plain.data() + at + 4, 4);
    const std::string element = damage(plain.substr(at, 8 + length));
    std::string small(compressBound(element.size()), '\0');
    uLongf size = small.size();
    compress2(reinterpret_cast<Bytef*>(small.data()), &size, reinterpret_cast<const Bytef*>(element.data()),
              element.size(), 6);
    append(out, 15, 4);
    append(out, size, 4);
    out += small.substr(0, size);
    at += 8 + length;
  }
  write_file(path, out);
}
void make_mat73(const std::string& path, Random& random, const Damage&) {
  make_mat(path, random, MAT_FT_MAT73, MAT_COMPRESSION_NONE);
}

// ---- HDF5

void add_set(hid_t group, Random& random, int number) {
  const hid_t types[] = {H5T_IEEE_F64LE, H5T_IEEE_F32BE, H5T_STD_I8LE, H5T_STD_U16LE, H5T_STD_I32BE, H5T_STD_I64LE};
  const hid_t type = types[draw(random, std::size(types))];
  const auto extents = random_shape(random, 0, 3);
  const std::vector<hsize_t> shape(extents.begin(), extents.end());
  const bool empty = count_of(extents) == 0;
  const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
  if (!shape.empty() && !empty && draw(random, 2) == 0) {
    std::vector<hsize_t> chunk(shape);
    chunk[0] = 1 + draw(random, chunk[0]);
    H5Pset_chunk(options, static_cast<int>(chunk.size()), chunk.data());
    if (draw(random, 2) == 0) H5Pset_shuffle(options);
    if (draw(random, 2) == 0) H5Pset_deflate(options, 6);
    if (draw(random, 2) == 0) H5Pset_fletcher32(options);
  }
  const hid_t space =
      shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
  const hid_t set =
      H5Dcreate2(group, fmt::format("x{}", number).c_str(), type, space, H5P_DEFAULT, options, H5P_DEFAULT);
  const std::string numbers = random_bytes(random, 8 * count_of(extents));
  if (!empty && draw(random, 5) != 0) H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers.data());
  H5Dclose(set);
  H5Sclose(space);
  H5Pclose(options);
}

void make_hdf5(const std::string& path, Random& random, const Damage&) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  if (draw(random, 2) == 0) H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
  H5Pclose(access);
  if (file < 0) throw std::runtime_error("libhdf5");
  const hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const auto sets = static_cast<int>(1 + draw(random, 3));
  for (int i = 0; i < sets; ++i) add_set(draw(random, 2) == 0 ? file : group, random, i);
  if (draw(random, 2) == 0) H5Lcreate_soft("/x0", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
  if (draw(random, 2) == 0) H5Lcreate_hard(file, "group", group, "again", H5P_DEFAULT, H5P_DEFAULT);
  if (draw(random, 4) == 0) H5Lcreate_external("other.h5", "/x", file, "external", H5P_DEFAULT, H5P_DEFAULT);
  H5Gclose(group);
  H5Fclose(file);
}

// ---- CSV, IDX, safetensors

void make_csv(const std::string& path, Random& random, const Damage&) {
  const std::uint64_t columns = 1 + draw(random, 4);
  const char delimiter = ',';
  std::string out;
  if (draw(random, 2) == 0) {
    for (std::uint64_t c = 0; c < columns; ++c) out += fmt::format("{}\"name {}\"", c == 0 ? "" : ",", c);
    out += "\r\n";
  }
  for (std::uint64_t rows = 1 + draw(random, 5); rows > 0; --rows) {
    for (std::uint64_t c = 0; c < columns; ++c) {
      if (c > 0) out += delimiter;
      static constexpr std::string_view some[] = {"1.5", "-2e3", "\"7\"", " 0.25 ", "nan", "+4", "1e-300"};
      out += some[draw(random, std::size(some))];
    }
    out += draw(random, 2) == 0 ? "\n" : "\r\n";
  }
  write_file(path, out);
}

std::string idx(Random& random) {
  struct Type {
    char code;
    std::size_t bytes;
  };
  static constexpr Type types[] = {{0x08, 1}, {0x09, 1}, {0x0b, 2}, {0x0c, 4}, {0x0d, 4}, {0x0e, 8}};
  const Type type = types[draw(random, std::size(types))];
  const auto shape = random_shape(random, 0, 4);
  std::string out{'\0', '\0', type.code, static_cast<char>(shape.size())};
  for (const auto extent : shape) append(out, extent, 4, true);
  return out + random_bytes(random, count_of(shape) * type.bytes);
}

void make_idx(const std::string& path, Random& random, const Damage&) { write_file(path, idx(random)); }
void make_idx_gz(const std::string& path, Random& random, const Damage& damage) {
  const std::string bytes = damage(idx(random));
  gzFile_s* const file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
}

// A State of every dtype.
Graph state_graph() {
  Graph graph;
  graph.parameter("w", zeros({2, 3}));
  graph.variable("narrow", zeros({4}), float32);
  graph.variable("count", zeros({}), int64);
  graph.variable("classes", zeros({2}), int32);
  graph.variable("pixels", zeros({5}), uint8);
  graph.variable("mask", zeros({3}), boolean);
  return graph;
}

void make_safetensors(const std::string& path, Random& random, const Damage&) {
  State state(state_graph());
  state.set("w", Array::full(float64, {2, 3}, static_cast<double>(draw(random, 100))));
  state.set("classes", Array::full(int32, {2}, static_cast<std::int64_t>(draw(random, 1000)) - 500));
  state.set("pixels", Array::full(uint8, {5}, static_cast<std::int64_t>(draw(random, 256))));
  state.set("mask", Array::full(boolean, {3}, static_cast<double>(draw(random, 2))));
  state.set_step(static_cast<std::int64_t>(draw(random, 1000)));
  state.save(path);
}

// An Error of State::load must leave the numbers as they were.
data::Arrays load_safetensors(const std::string& path) {
  State state(state_graph());
  const auto numbers = [&] {
    data::Arrays out;
    for (const char* const name : {"w", "narrow", "count", "classes", "pixels", "mask"}) out[name] = state[name];
    return out;
  };
  const data::Arrays before = numbers();
  try {
    state.load(path, {.ignore_unknown = true, .keep_missing = true});
  } catch (const Error&) {
    for (const auto& [name, array] : numbers())
      if (!array.identical(before.at(name))) throw std::logic_error("State::load has failed and changed " + name);
    throw;
  }
  return numbers();
}

// ---- tokenizers

void make_tokenizer(const std::string& path, Random& random, const Damage&) {
  std::string text = random_bytes(random, 1 + draw(random, 40));
  text += text;  // pairs that lie there twice
  if (draw(random, 2) == 0)
    data::Tokenizer::byte_pairs(text, 256 + static_cast<std::int64_t>(draw(random, 40))).save(path);
  else
    data::Tokenizer::characters(text).save(path);
}

// All that the tokens stand for, one after the other, and how long each is. Its own text has those tokens.
data::Arrays load_tokenizer(const std::string& path) {
  const auto tokenizer = data::Tokenizer::load(path);
  std::string text;
  std::vector<std::int64_t> lengths;
  for (std::int64_t token = 0; token < tokenizer.size(); ++token) {
    text += tokenizer.bytes(token);
    lengths.push_back(std::ssize(tokenizer.bytes(token)));
  }
  data::Arrays out;
  out["text"] = Array::from(reinterpret_cast<const std::uint8_t*>(text.data()), {std::ssize(text)});
  out["lengths"] = Array::from(lengths.data(), {std::ssize(lengths)});
  if (tokenizer.decode(tokenizer.encode(tokenizer.bytes(0))) != tokenizer.bytes(0))
    throw std::logic_error("a text is not what its tokens stand for");
  return out;
}

template <Array (*load)(const std::string&, Location)>
data::Arrays one(const std::string& path) {
  data::Arrays out;
  out["array"] = load(path, Location::here());
  return out;
}

data::Arrays load_csv(const std::string& path) {
  data::Arrays out;
  out["values"] = data::load_csv(path).values;
  return out;
}

// All arrays, and each of them by its name.
template <data::Arrays (*load)(const std::string&, Location),
          Array (*load_one)(const std::string&, const std::string&, Location)>
data::Arrays all(const std::string& path) {
  data::Arrays out = load(path, Location::here());
  for (const auto& [name, array] : out)
    if (!load_one(path, name, Location::here()).identical(array))
      throw std::logic_error("another array by its name: " + name);
  return out;
}

constexpr Format table[] = {
    {"npy", false, make_npy, one<data::load_npy>},
    {"npz", true, make_npz, all<data::load_npz, data::load_npz>},
    {"saved npz", true, make_saved_npz, all<data::load_npz, data::load_npz>},
    {"mat 4", false, make_mat4, all<data::load_mat, data::load_mat>},
    {"mat 5", false, make_mat5, all<data::load_mat, data::load_mat>},
    {"mat 7", true, make_mat7, all<data::load_mat, data::load_mat>},
    {"mat 7.3", false, make_mat73, [](const std::string& path) { return data::load_mat(path); }},
    {"hdf5", false, make_hdf5, [](const std::string& path) { return data::load_hdf5(path); }},
    {"csv", false, make_csv, load_csv},
    {"idx", false, make_idx, one<data::load_idx>},
    {"idx.gz", true, make_idx_gz, one<data::load_idx>},
    {"safetensors", false, make_safetensors, load_safetensors},
    {"tokenizer", true, make_tokenizer, load_tokenizer},
};

}  // namespace

std::span<const Format> formats() { return table; }

}  // namespace chainrule::fuzz
