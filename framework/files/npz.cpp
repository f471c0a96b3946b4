// NumPy's .npz: a zip archive of .npy files.
#include <zip.h>

#include <memory>

#include <fmt/core.h>

#include <chainrule/framework/files.hpp>
#include <chainrule/framework/files/npy.hpp>

namespace chainrule::data {

namespace {

using detail::File;

constexpr std::string_view suffix = ".npy";

std::string text_of(int code) {
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  std::string out = zip_error_strerror(&error);
  zip_error_fini(&error);
  return out;
}

class Archive {
 public:
  Archive(std::string_view op, const std::string& path, Location at)
      : file_{op, "an archive of NumPy arrays (.npz)", path, at} {
    file_.require();
    int error = 0;
    zip_.reset(zip_open(path.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &error));
    if (!zip_)
      file_.fail(error == ZIP_ER_NOZIP ? std::string("no zip archive, or truncated")
                                       : fmt::format("a damaged zip archive ({})", text_of(error)));
  }

  [[nodiscard]] const File& file() const { return file_; }
  [[nodiscard]] std::uint64_t size() const { return static_cast<std::uint64_t>(zip_get_num_entries(zip_.get(), 0)); }

  // The name of a member, without .npy; empty for one that is none.
  [[nodiscard]] std::string name(std::uint64_t index) const {
    const char* const full = zip_get_name(zip_.get(), index, 0);
    const std::string_view name = full == nullptr ? "" : full;
    return std::string(name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : "");
  }

  // The bytes of a member, uncompressed and with the right checksum.
  [[nodiscard]] std::string read(std::uint64_t index) const {
    const auto damaged = [&](const std::string& why) {
      file_.fail(fmt::format("{}cannot be read ({})", where(index), why));
    };
    const std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> member(zip_fopen_index(zip_.get(), index, 0), &zip_fclose);
    if (!member) damaged(zip_strerror(zip_.get()));
    // The size that the archive claims may be wrong: memory grows with what there is.
    std::string out;
    constexpr std::size_t chunk = std::size_t{1} << 20;
    for (;;) {
      const std::size_t before = out.size();
      out.resize(before + chunk);
      const auto got = zip_fread(member.get(), out.data() + before, chunk);
      if (got < 0) damaged(zip_file_strerror(member.get()));
      out.resize(before + static_cast<std::size_t>(got));
      if (got == 0) return out;
    }
  }

  [[nodiscard]] std::string where(std::uint64_t index) const { return fmt::format("member '{}': ", name(index)); }

 private:
  struct Discard {
    void operator()(zip_t* zip) const { zip_discard(zip); }
  };
  File file_;
  std::unique_ptr<zip_t, Discard> zip_;
};

}  // namespace

Arrays load_npz(const std::string& path, Location at) {
  const Archive archive("load_npz", path, at);
  Arrays out;
  for (std::uint64_t i = 0; i < archive.size(); ++i) {
    const std::string name = archive.name(i);
    if (name.empty()) continue;
    const std::string bytes = archive.read(i);
    if (detail::npy_holds_numbers(archive.file(), bytes, archive.where(i)))
      out[name] = detail::parse_npy(archive.file(), bytes, archive.where(i));
  }
  return out;
}

Array load_npz(const std::string& path, const std::string& name, Location at) {
  const Archive archive("load_npz", path, at);
  std::string names;
  for (std::uint64_t i = 0; i < archive.size(); ++i) {
    if (archive.name(i) == name) return detail::parse_npy(archive.file(), archive.read(i), archive.where(i));
    if (!archive.name(i).empty()) names += fmt::format("{}'{}'", names.empty() ? "" : ", ", archive.name(i));
  }
  archive.file().fail(fmt::format("no array '{}', only {}", name, names.empty() ? "others than arrays" : names));
}

void save_npz(const std::string& path, const Arrays& arrays, Location at) {
  const auto fail = [&](const std::string& why) {
    throw Error(at, "save_npz", fmt::format("requires a file that can be written, got '{}': {}", path, why));
  };
  // libzip writes a temporary file and renames it, but deletes the file where the archive is empty.
  for (const auto& [name, array] : arrays)
    if (name.empty()) throw Error(at, "save_npz", "requires names of arrays, got an empty one");
  if (arrays.empty()) throw Error(at, "save_npz", "requires at least one array, got none");
  int error = 0;
  zip_t* const zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &error);
  if (zip == nullptr) fail(text_of(error));
  std::unique_ptr<zip_t, void (*)(zip_t*)> discard(zip, &zip_discard);
  std::vector<std::string> members;  // libzip reads them when it closes the archive
  members.reserve(arrays.size());
  for (const auto& [name, array] : arrays) {
    std::string& bytes = members.emplace_back(detail::npy_header(array));
    bytes.append(static_cast<const char*>(array.raw()), array.bytes());
    zip_source_t* const source = zip_source_buffer(zip, bytes.data(), bytes.size(), 0);
    const zip_int64_t index =
        source == nullptr ? -1 : zip_file_add(zip, (name + std::string(suffix)).c_str(), source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
      zip_source_free(source);
      fail(zip_strerror(zip));
    }
    // Stored, as numpy.savez does: random numbers, as weights are, hardly shrink.
    if (zip_set_file_compression(zip, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0) != 0) fail(zip_strerror(zip));
  }
  if (zip_close(zip) != 0) fail(zip_strerror(zip));
  discard.release();  // NOLINT: closed
}

}  // namespace chainrule::data
