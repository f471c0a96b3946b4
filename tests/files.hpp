// What the tests of files do: a folder that is gone at the end, whole files as strings, loaders given broken files.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>

#include <chainrule/framework/core/error.hpp>

#include "catch.hpp"

namespace chainrule::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "chainrule-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(std::string_view name) const { return (path_ / name).string(); }
  [[nodiscard]] std::size_t files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Bytes as two hexadecimal digits each.
inline std::string unhex(std::string_view digits) {
  std::string out;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    out += static_cast<char>(std::stoi(std::string(digits.substr(i, 2)), nullptr, 16));
  return out;
}

// The text of the Error that f throws.
inline std::string error_text(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

// A loader's errors of a file that is missing, a folder, empty, and of another format: each one line, that names the
// function, what was required, and the file.
inline void check_wrong_files(const std::function<void(const std::string&)>& load, std::string_view op,
                              std::string_view format) {
  using Catch::Matchers::ContainsSubstring;
  const TemporaryFolder folder;
  const auto check = [&](const std::string& path, const std::string& found) {
    const std::string text = error_text([&] { load(path); });
    INFO(text);
    CHECK_THAT(text, ContainsSubstring(std::string(op) + ": requires " + std::string(format) + ", got '" + path +
                                       "': " + found));
    CHECK_THAT(text, ContainsSubstring(".cpp:"));  // the caller's line
    CHECK(text.find('\n') == std::string::npos);
  };
  check(folder / "missing", "No such file or directory");
  check(folder / "no such folder/x", "No such file or directory");
  check(folder / "", "it is a folder");
  write_file(folder / "empty", "");
  check(folder / "empty", "the file is empty");
  write_file(folder / "other", std::string("#!/bin/sh\necho this is a script\n") + std::string(600, 'x'));
  check(folder / "other", "");
  std::string random(700, '\0');
  for (std::size_t i = 0; i < random.size(); ++i) random[i] = static_cast<char>(i * i * 31 + 7);
  write_file(folder / "random", random);
  check(folder / "random", "");
}

// Cut at every byte (or every `step` bytes), a file is an Error that names it; `tolerated` says for a length that the
// rest is a file by itself.
inline void check_truncations(const std::string& bytes, const std::function<void(const std::string&)>& load,
                              const std::function<bool(std::size_t)>& tolerated = {}, std::size_t step = 1) {
  const TemporaryFolder folder;
  const std::string path = folder / "cut";
  for (std::size_t length = 0; length < bytes.size(); length += step) {
    write_file(path, std::string_view(bytes).substr(0, length));
    const std::string text = error_text([&] { load(path); });
    if (tolerated && tolerated(length)) continue;
    if (text.find("'" + path + "': ") == std::string::npos) {
      INFO("cut to " << length << " of " << bytes.size() << " bytes");
      INFO(text);
      FAIL_CHECK("no error that names the file");
    }
  }
}

// With any byte wrong, a file is an Error or numbers, and never the end of the program (the sanitizers' build says
// more).
inline void check_damages(const std::string& bytes, const std::function<void(const std::string&)>& load) {
  const TemporaryFolder folder;
  const std::string path = folder / "damaged";
  for (std::size_t i = 0; i < bytes.size(); ++i)
    for (const unsigned change : {0x01U, 0x80U, 0xffU}) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(static_cast<unsigned char>(damaged[i]) ^ change);
      write_file(path, damaged);
      try {
        load(path);
      } catch (const Error& error) {
        if (std::string_view(error.what()).find(path) == std::string_view::npos) {
          INFO("byte " << i << " changed by " << change << ": " << error.what());
          FAIL_CHECK("no error that names the file");
        }
      }
    }
}

// A file of the course's data, or "" after a warning where there is none.
inline std::string shared_file(const std::string& name) {
  const char* const shared = std::getenv("CHAINRULE_SHARED");
  const std::string path = std::string(shared != nullptr ? shared : "") + "/data/" + name;
  if (shared != nullptr && std::filesystem::exists(path)) return path;
  WARN("Skipped what reads data/" << name << ": not in the folder $CHAINRULE_SHARED");
  return "";
}

}  // namespace chainrule::test
