// NumPy's .npz: a zip archive of .npy files. Source of the archive's form: PKWARE's APPNOTE.TXT, 6.3.
#include <zip.h>
#include <zlib.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <utility>

#include <fmt/core.h>

#include <chainrule/framework/files/container.hpp>
#include <chainrule/framework/files/files.hpp>
#include <chainrule/framework/files/npy.hpp>
#include <chainrule/framework/io/atomic_file.hpp>

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

std::uint64_t number_at(std::string_view bytes, std::size_t at, std::size_t size) {
  std::uint64_t out = 0;
  for (std::size_t i = size; i-- > 0;) out = out << 8 | static_cast<unsigned char>(bytes[at + i]);
  return out;
}

// Where a member begins, by its entry of the directory: a number of 64 bits stands in an extra field, after the two
// sizes if these are of 64 bits as well.
std::uint64_t member_offset(std::string_view directory, std::size_t entry, std::size_t name_length) {
  constexpr std::uint64_t elsewhere = 0xffffffff;
  const std::uint64_t offset = number_at(directory, entry + 42, 4);
  if (offset != elsewhere) return offset;
  std::size_t at = entry + 46 + name_length;
  const std::size_t end = at + number_at(directory, entry + 30, 2);
  while (at + 4 <= end) {
    const std::size_t size = number_at(directory, at + 2, 2);
    std::size_t field = at + 4;
    for (const std::size_t bytes : {std::size_t{20}, std::size_t{24}})
      if (number_at(directory, entry + bytes, 4) == elsewhere) field += 8;
    if (number_at(directory, at, 2) == 1 && field + 8 <= std::min(end, at + 4 + size))
      return number_at(directory, field, 8);
    at += 4 + size;
  }
  return offset;
}

// A name stands in the archive's directory and before the member itself, and has no checksum. Fails where they differ.
// (libzip's own check of this refuses archives that were written to a pipe. What is wrong with the directory otherwise
// is left to it.)
void check_names(const File& file) {
  constexpr std::size_t end_size = 22;
  constexpr std::size_t directory_size = 46;
  constexpr std::size_t local_size = 30;
  std::ifstream stream(file.path, std::ios::binary);
  const auto read = [&](std::uint64_t at, std::size_t bytes) {
    std::string out(bytes, '\0');
    stream.clear();
    stream.seekg(static_cast<std::streamoff>(at));
    stream.read(out.data(), static_cast<std::streamsize>(bytes));
    out.resize(static_cast<std::size_t>(stream.gcount()));
    return out;
  };
  const std::uint64_t size = file.require();
  const std::uint64_t tail = std::min<std::uint64_t>(size, end_size + 0xffff);
  const std::string last = read(size - tail, tail);
  const std::size_t end = last.rfind("PK\5\6");
  if (end == std::string::npos || last.size() - end < end_size) return;
  const std::uint64_t bytes = number_at(last, end + 12, 4);
  const std::uint64_t start = number_at(last, end + 16, 4);
  if (start > size || bytes > size - start) return;  // above 4 GB they stand elsewhere
  const std::string directory = read(start, bytes);
  for (std::size_t at = 0; directory.size() - at >= directory_size;) {
    const std::size_t length = number_at(directory, at + 28, 2);
    const std::size_t next =
        at + directory_size + length + number_at(directory, at + 30, 2) + number_at(directory, at + 32, 2);
    if (next > directory.size()) return;
    const std::string name = directory.substr(at + directory_size, length);
    const std::string local = read(member_offset(directory, at, length), local_size + length);
    if (local.starts_with("PK\3\4") && local.size() == local_size + length &&
        (local.substr(local_size) != name || number_at(local, 26, 2) != length))
      file.fail(
          fmt::format("a damaged zip archive (a member is called '{}' in its directory, and '{}' where it begins)",
                      detail::printable(name), detail::printable(local.substr(local_size))));
    at = next;
  }
}

// A member's bytes, uncompressed. At their end libzip compares the checksum.
class Member : public detail::Input {
 public:
  Member(const File& file, zip_t* zip, std::uint64_t index, std::string where)
      : file_(file), where_(std::move(where)), stream_(zip_fopen_index(zip, index, 0), &zip_fclose) {
    if (!stream_) damaged(zip_strerror(zip));
    zip_stat_t status;
    if (zip_stat_index(zip, index, 0, &status) != 0) damaged(zip_strerror(zip));
    // bzip2 and the others make some ten thousand of one byte at most.
    most_ = status.comp_method == ZIP_CM_STORE     ? status.comp_size
            : status.comp_method == ZIP_CM_DEFLATE ? detail::inflated_at_most(status.comp_size)
                                                   : 64 * detail::inflated_at_most(status.comp_size);
    most_ = std::min({most_, static_cast<std::uint64_t>(status.size), 64 * detail::inflated_at_most(file.require())});
  }

  using Input::read;
  std::size_t read(char* to, std::size_t bytes) override {
    std::size_t done = 0;
    while (done < bytes) {
      const auto got = zip_fread(stream_.get(), to + done, bytes - done);
      if (got < 0) damaged(zip_file_strerror(stream_.get()));
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }
  [[nodiscard]] std::uint64_t most() const override { return most_; }

 private:
  [[noreturn]] void damaged(const std::string& why) { file_.fail(fmt::format("{}cannot be read ({})", where_, why)); }

  const File& file_;
  std::string where_;
  std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> stream_;
  std::uint64_t most_ = 0;
};

class Archive {
 public:
  Archive(std::string_view op, const std::string& path, Location at)
      : file_{op, "an archive of NumPy arrays (.npz)", path, at} {
    file_.require();
    int error = 0;
    zip_.reset(zip_open(path.c_str(), ZIP_RDONLY, &error));
    if (!zip_)
      file_.fail(error == ZIP_ER_NOZIP ? std::string("no zip archive, or truncated")
                                       : fmt::format("a damaged zip archive ({})", text_of(error)));
    check_names(file_);
  }

  [[nodiscard]] const File& file() const { return file_; }
  [[nodiscard]] std::uint64_t size() const { return static_cast<std::uint64_t>(zip_get_num_entries(zip_.get(), 0)); }

  // The name of a member, without .npy; empty for one that is none.
  [[nodiscard]] std::string name(std::uint64_t index) const {
    const char* const full = zip_get_name(zip_.get(), index, 0);
    const std::string_view name = full == nullptr ? "" : full;
    return std::string(name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : "");
  }

  [[nodiscard]] Array read(std::uint64_t index) const {
    const std::string where = fmt::format("member '{}': ", name(index));
    Member member(file_, zip_.get(), index, where);
    return detail::read_npy(file_, member, where);
  }

 private:
  struct Discard {
    void operator()(zip_t* zip) const { zip_discard(zip); }
  };
  File file_;
  std::unique_ptr<zip_t, Discard> zip_;
};

// ---- writing

// Appends a number of `size` bytes, little-endian.
void append(std::string& to, std::uint64_t number, std::size_t size) {
  for (std::size_t i = 0; i < size; ++i) to += static_cast<char>(number >> 8 * i & 255);
}

struct Stored {
  std::string name;
  std::uint64_t bytes = 0;
  std::uint64_t checksum = 0;
  std::uint64_t offset = 0;
};

// What a member's header and its entry of the directory have in common. Sizes of 64 bits stand in an extra field, which
// numpy.savez writes for small arrays as well. (Stored, as numpy.savez does: random numbers, as weights are, hardly
// shrink.)
void append_entry(std::string& to, const Stored& member, bool directory) {
  append(to, 45, 2);          // version 4.5: 64 bits
  append(to, 0x0800, 2);      // names in UTF-8
  append(to, 0, 2);           // stored
  append(to, 0x21 << 16, 4);  // 1 January 1980, as NumPy has it
  append(to, member.checksum, 4);
  append(to, 0xffffffff, 4);
  append(to, 0xffffffff, 4);
  append(to, member.name.size(), 2);
  append(to, directory ? 28 : 20, 2);
  if (directory) {
    append(to, 0, 2);  // no comment
    append(to, 0, 2);
    append(to, 0, 2);
    append(to, 0644 << 16, 4);  // permissions
    append(to, 0xffffffff, 4);
  }
  to += member.name;
  append(to, 1, 2);
  append(to, directory ? 24 : 16, 2);
  append(to, member.bytes, 8);
  append(to, member.bytes, 8);
  if (directory) append(to, member.offset, 8);
}

// The archive's directory, at `offset`.
std::string directory_of(const std::vector<Stored>& members, std::uint64_t offset) {
  std::string out;
  for (const Stored& member : members) {
    out += "PK\1\2";
    append(out, 3 << 8 | 45, 2);  // made by Unix
    append_entry(out, member, true);
  }
  const std::uint64_t size = out.size();
  out += "PK\6\6";
  append(out, 44, 8);
  append(out, 3 << 8 | 45, 2);
  append(out, 45, 2);
  append(out, 0, 8);  // of one disk
  append(out, members.size(), 8);
  append(out, members.size(), 8);
  append(out, size, 8);
  append(out, offset, 8);
  out += "PK\6\7";
  append(out, 0, 4);
  append(out, offset + size, 8);
  append(out, 1, 4);
  out += "PK\5\6";
  append(out, 0, 4);
  append(out, std::min<std::uint64_t>(members.size(), 0xffff), 2);
  append(out, std::min<std::uint64_t>(members.size(), 0xffff), 2);
  append(out, std::min<std::uint64_t>(size, 0xffffffff), 4);
  append(out, std::min<std::uint64_t>(offset, 0xffffffff), 4);
  append(out, 0, 2);
  return out;
}

}  // namespace

Arrays load_npz(const std::string& path, Location at) {
  const Archive archive("load_npz", path, at);
  return archive.file().guard([&] {
    Arrays out;
    for (std::uint64_t i = 0; i < archive.size(); ++i)
      if (const std::string name = archive.name(i); !name.empty())
        detail::add(out, name, [&] { return archive.read(i); });
    return out;
  });
}

Array load_npz(const std::string& path, const std::string& name, Location at) {
  const Archive archive("load_npz", path, at);
  return archive.file().guard([&] {
    std::vector<std::string> names;
    for (std::uint64_t i = archive.size(); i-- > 0;) {  // of several the last
      if (archive.name(i) == name)
        return detail::require(archive.file(), fmt::format("member '{}'", name), [&] { return archive.read(i); });
      if (!archive.name(i).empty()) names.insert(names.begin(), archive.name(i));
    }
    detail::fail_missing(archive.file(), "array", name, names);
  });
}

void save_npz(const std::string& path, const Arrays& arrays, Location at) {
  for (const auto& [name, array] : arrays)
    if (name.empty() || name.size() > 65000)
      throw Error(at, "save_npz", fmt::format("requires names of arrays of 1 to 65000 bytes, got {}", name.size()));
  if (arrays.empty()) throw Error(at, "save_npz", "requires at least one array, got none");
  detail::AtomicFile file(path, "save_npz", at);
  std::vector<Stored> members;
  std::uint64_t offset = 0;
  for (const auto& [name, array] : arrays) {
    const std::string header = detail::npy_header(array);
    const auto* const elements = static_cast<const unsigned char*>(array.raw());
    const auto checksum =
        crc32_z(crc32_z(0, nullptr, 0), reinterpret_cast<const unsigned char*>(header.data()), header.size());
    const Stored member{name + std::string(suffix), header.size() + array.bytes(),
                        crc32_z(checksum, elements, array.bytes()), offset};
    std::string start = "PK\3\4";
    append_entry(start, member, false);
    start += header;
    file.write(start.data(), start.size());
    file.write(elements, array.bytes());
    offset += start.size() + array.bytes();
    members.push_back(member);
  }
  const std::string directory = directory_of(members, offset);
  file.write(directory.data(), directory.size());
  file.commit();
}

}  // namespace chainrule::data
