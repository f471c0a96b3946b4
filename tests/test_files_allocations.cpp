// Of files, too, an allocation that fails is an error that can be tried again: for a file to read "it takes more memory
// than there is", and for one to write it leaves the old one.
#include <hdf5.h>
#include <zlib.h>

#include <cstring>
#include <memory>

#include <chainrule/framework/files/files.hpp>

#include "allocations.hpp"
#include "files.hpp"

using namespace chainrule;
using namespace chainrule::test;

namespace {

std::string text_of(const data::Arrays& arrays) {
  std::string out;
  for (const auto& [name, array] : arrays) out += name + ": " + array.to_string() + "\n";
  return out;
}

// load() returns the text of what it has read.
template <class Load>
void fail_loading(std::string_view name, const std::string& path, Load load) {
  INFO(name);
  const std::string right = load(path);
  CHECK(right.size() > 2);
  fail_each(
      name, [] { return std::make_unique<std::string>(); },
      [&](std::string& to) {
        try {
          to = load(path);
        } catch (const Error& error) {
          fail_in = 0;
          if (std::string_view(error.what()).find("'" + path + "'") == std::string_view::npos)
            FAIL("no name of the file: " << error.what());
          throw;
        }
      },
      [](const std::string& of) { return of; });
}

template <class Save>
void fail_saving(std::string_view name, Save save) {
  const TemporaryFolder folder;
  const std::string path = folder / "x";
  fail_each(
      name,
      [&] {
        write_file(path, "the old one");
        return &path;
      },
      save, [&](const std::string& of) { return read_file(of) + std::to_string(folder.files()); });
}

const data::Arrays arrays = {{"an array of a rather long name", Array({{1.5, 2.5}, {3.5, 4.5}})},
                             {"b", Array({1, 2, 3}).astype(int64)}};

void write_hdf5(const std::string& path) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t shape[] = {2, 3};
  const double numbers[] = {1, 2, 3, 4, 5, 6};
  const hid_t space = H5Screate_simple(2, shape, nullptr);
  for (const char* const name : {"first", "a second one of a rather long name"}) {
    const hid_t made = H5Dcreate2(group, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    REQUIRE(H5Dwrite(made, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    H5Dclose(made);
  }
  H5Sclose(space);
  H5Gclose(group);
  H5Fclose(file);
}

// MATLAB's -v4: a header of 20 bytes, the name, the numbers.
std::string mat4() {
  std::string out;
  const auto add = [&](const void* from, std::size_t bytes) { out.append(static_cast<const char*>(from), bytes); };
  const std::int32_t header[] = {0, 2, 1, 0, 5};
  const double numbers[] = {1.5, -2};
  add(header, sizeof header);
  add("name", 5);
  add(numbers, sizeof numbers);
  return out;
}

}  // namespace

TEST_CASE("files that are read where there is no memory") {
  const TemporaryFolder folder;
  data::save_npy(folder / "x.npy", arrays.at("b"));
  data::save_npz(folder / "x.npz", arrays);
  write_file(folder / "x.csv", "epoch,a column of a rather long name\n1,2\n3.5,4\n5,6\n");
  const std::string idx = unhex("00000803000000020000000100000003") + "abcdef";
  write_file(folder / "x.idx", idx);
  const gzFile compressed = gzopen((folder / "x.gz").c_str(), "wb");
  REQUIRE(gzwrite(compressed, idx.data(), static_cast<unsigned>(idx.size())) == static_cast<int>(idx.size()));
  REQUIRE(gzclose(compressed) == Z_OK);
  write_file(folder / "x.mat", mat4());
  write_hdf5(folder / "x.h5");

  fail_loading(".npy", folder / "x.npy", [](const std::string& path) { return data::load_npy(path).to_string(); });
  fail_loading(".npz", folder / "x.npz", [](const std::string& path) { return text_of(data::load_npz(path)); });
  fail_loading("a member", folder / "x.npz",
               [](const std::string& path) { return data::load_npz(path, "b").to_string(); });
  fail_loading(".csv", folder / "x.csv", [](const std::string& path) {
    const data::Csv csv = data::load_csv(path);
    return csv.columns.at(1) + csv.values.to_string();
  });
  fail_loading(".idx", folder / "x.idx", [](const std::string& path) { return data::load_idx(path).to_string(); });
  fail_loading("compressed", folder / "x.gz", [](const std::string& path) { return data::load_idx(path).to_string(); });
  fail_loading(".mat", folder / "x.mat", [](const std::string& path) { return text_of(data::load_mat(path)); });
  const auto load_hdf5 = [](const std::string& path) { return text_of(data::load_hdf5(path)); };
  fail_loading(".h5", folder / "x.h5", load_hdf5);
  // A child process reads it, whose allocations are not counted here.
  std::size_t thrown = 0;
  for (std::size_t n = 1; n < 100; ++n)
    if (throws_without(n, false, [&] { load_hdf5(folder / "x.h5"); })) ++thrown;
  CHECK(thrown > 20);
}

TEST_CASE("files that are written where there is no memory") {
  fail_saving("save_npy", [](const std::string& path) { data::save_npy(path, arrays.at("b")); });
  fail_saving("save_npz", [](const std::string& path) { data::save_npz(path, arrays); });
}
