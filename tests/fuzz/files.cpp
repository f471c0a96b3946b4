// The fuzzer of file readers: small valid files of every format, damaged at random, must give arrays or an Error: never
// another exception, the end of the program, a hang, or a request for more memory than the cap; and where checksums
// cover the numbers, no other numbers. Each file follows from the seed and its number alone.
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/core.h>

#include <chainrule/chainrule.hpp>

#include "files/formats.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
// malloc() fails above the cap, as operator new does below; what takes more in many pieces ends the program.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "allocator_may_return_null=1:max_allocation_size_mb=256:hard_rss_limit_mb=2000:quarantine_size_mb=8:"
         "detect_leaks=0:abort_on_error=0";
}
#endif

namespace {

using chainrule::fuzz::Damage;
using chainrule::fuzz::draw;
using chainrule::fuzz::Format;
using chainrule::fuzz::Random;

constexpr std::size_t memory_cap = std::size_t{256} << 20;

// ---- memory: what C++ asks for is counted, and refused above the cap

std::atomic<std::size_t> in_use{0};

void* take(std::size_t bytes, std::size_t alignment) {
  if (bytes > memory_cap || in_use.load() + bytes > memory_cap) throw std::bad_alloc();
  void* out = nullptr;
  if (posix_memalign(&out, std::max(alignment, sizeof(void*)), std::max<std::size_t>(bytes, 1)) != 0)
    throw std::bad_alloc();
  in_use += malloc_usable_size(out);
  return out;
}

void give(void* pointer) {
  if (pointer != nullptr) in_use -= malloc_usable_size(pointer);
  std::free(pointer);
}

}  // namespace

void* operator new(std::size_t bytes) { return take(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return take(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return take(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  try {
    return take(bytes, static_cast<std::size_t>(alignment));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new(std::size_t bytes, const std::nothrow_t& tag) noexcept {
  return ::operator new (bytes, std::align_val_t{alignof(std::max_align_t)}, tag);
}
void operator delete(void* pointer) noexcept { give(pointer); }
void operator delete[](void* pointer) noexcept { give(pointer); }
void operator delete(void* pointer, std::size_t) noexcept { give(pointer); }
void operator delete[](void* pointer, std::size_t) noexcept { give(pointer); }
void operator delete(void* pointer, std::align_val_t) noexcept { give(pointer); }
void operator delete(void* pointer, std::size_t, std::align_val_t) noexcept { give(pointer); }

namespace {

// ---- damage

std::uint64_t some_number(Random& random, std::uint64_t now) {
  const std::uint64_t numbers[] = {0,          1,          now + 1,    now - 1,          2 * now,    now / 2,
                                   1ULL << 31, 0x7fffffff, 0xffffffff, 1 << 20,          1ULL << 40, 1ULL << 61,
                                   1ULL << 63, ~0ULL,      random(),   draw(random, 256)};
  return numbers[draw(random, std::size(numbers))];
}

// Another number where one may stand: a size, an offset, a type.
void change_field(std::string& bytes, Random& random) {
  const std::size_t size = std::size_t{1} << draw(random, 4);
  if (bytes.size() < size) return;
  std::size_t at = draw(random, bytes.size() - size + 1);
  if (draw(random, 2) == 0) at = at / size * size;
  const bool big = draw(random, 2) == 0;
  std::uint64_t now = 0;
  for (std::size_t i = 0; i < size; ++i)
    now = now << 8 | static_cast<unsigned char>(bytes[at + (big ? i : size - 1 - i)]);
  const std::uint64_t number = some_number(random, now);
  for (std::size_t i = 0; i < size; ++i)
    bytes[at + (big ? size - 1 - i : i)] = static_cast<char>(number >> 8 * i & 255);
}

// Another number in text: an extent of a header, a field of a table.
void change_digits(std::string& bytes, Random& random) {
  constexpr std::string_view digits = "0123456789";
  const std::size_t start = bytes.find_first_of(digits, draw(random, bytes.size() + 1));
  if (start == std::string::npos) return;
  const std::size_t end = std::min(bytes.find_first_not_of(digits, start), bytes.size());
  static constexpr std::string_view others[] = {
      "0", "-1", "4294967296", "9223372036854775807", "1e400", "99999999999999999999", "2, 3"};
  const std::size_t which = draw(random, std::size(others) + 2);
  bytes.replace(start, end - start,
                which < std::size(others) ? std::string(others[which]) : std::to_string(some_number(random, which)));
}

std::string damaged(std::string bytes, Random& random, const std::string& other) {
  for (std::uint64_t changes = draw(random, 2) == 0 ? 1 : 1 + draw(random, 4); changes > 0; --changes) {
    const std::size_t size = bytes.size();
    const std::size_t at = draw(random, size + 1);
    const std::size_t length = std::min<std::size_t>(size - at, 1 + draw(random, 64));
    switch (draw(random, 10)) {
      case 0:
      case 1:
        if (at < size) bytes[at] = static_cast<char>(bytes[at] ^ 1 << draw(random, 8));
        break;
      case 2:
        if (at < size) bytes[at] = static_cast<char>(random());
        break;
      case 3: bytes.resize(at); break;
      case 4: bytes.erase(at, length); break;
      case 5: bytes.insert(at, bytes.substr(at, length)); break;
      case 6: bytes.insert(draw(random, size + 1), other.substr(draw(random, other.size() + 1), length)); break;
      case 7: change_digits(bytes, random); break;
      default: change_field(bytes, random);
    }
  }
  return bytes;
}

// ---- one file

constexpr std::size_t longest_report = 4000;

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Counts {
  std::uint64_t next;  // the file that is at work, or the next
  std::uint64_t errors;
  std::uint64_t loaded;
  std::uint64_t crashes;  // of libhdf5 in its child process, or work of it without end
  std::uint64_t faults;
};

class Fuzzer {
 public:
  Fuzzer(std::string folder, std::string kept, std::uint64_t seed, Counts* counts)
      : folder_(std::move(folder)), kept_(std::move(kept)), seed_(seed), counts_(counts) {}

  // Makes the file of this number, damages it and loads it. Returns what is wrong, or "".
  std::string try_file(std::uint64_t number) {
    Random random(seed_ * 1'000'003 + number);
    const auto formats = chainrule::fuzz::formats();
    const Format& format = formats[draw(random, formats.size())];
    const std::uint64_t content = random();
    Random make(content);
    // Whole at first, for what it holds.
    format.make(path(), make, [](std::string bytes) { return bytes; });
    const std::string whole = read_file(path());
    chainrule::data::Arrays expected;
    try {
      expected = format.load(path());
    } catch (const std::exception& error) {
      return fmt::format("{}: a valid file is refused: {}", format.name, error.what());
    }
    const bool inside = draw(random, 3) == 0;
    std::string changed;
    if (inside) {
      make = Random(content);
      format.make(path(), make, [&](std::string bytes) { return damaged(std::move(bytes), random, whole); });
      changed = read_file(path());
    }
    if (!inside || changed == whole) {
      changed = damaged(whole, random, whole);
      write(changed);
    }
    try {
      const chainrule::data::Arrays got = format.load(path());
      ++counts_->loaded;
      if (format.checked && !inside)
        for (const auto& [name, array] : got)
          if (const auto found = expected.find(name); found == expected.end() || !found->second.identical(array))
            return fmt::format("{}: other numbers without a word in '{}'", format.name, name);
    } catch (const chainrule::Error& error) {
      ++counts_->errors;
      if (std::string_view(error.what()).find("the HDF5 library") != std::string_view::npos) ++counts_->crashes;
      if (std::string_view(error.what()).find(path()) == std::string_view::npos)
        return fmt::format("{}: an Error that does not name the file: {}", format.name, error.what());
    } catch (const std::exception& error) {
      return fmt::format("{}: another exception: {}", format.name, error.what());
    }
    return report_of_child(format);
  }

  // In a process of its own, from the file counts->next on.
  void work(std::uint64_t until, std::chrono::steady_clock::time_point deadline) {
    // A file may take 20 seconds of processor time here (its child process has a limit of its own), and 10 minutes in
    // all.
    for (; counts_->next < until && std::chrono::steady_clock::now() < deadline; ++counts_->next) {
      const itimerval time{{0, 0}, {20, 0}};
      setitimer(ITIMER_PROF, &time, nullptr);
      alarm(600);
      if (const std::string why = try_file(counts_->next); !why.empty()) keep(why);
    }
  }

  void keep(const std::string& why) {
    ++counts_->faults;
    std::filesystem::create_directories(kept_);
    const std::string to = fmt::format("{}/{}-{}", kept_, seed_, counts_->next);
    std::error_code none;  // no file: it ended while it made one
    std::filesystem::copy_file(path(), to, std::filesystem::copy_options::overwrite_existing, none);
    fmt::print("FAULT in file {} (kept as {}): {}\n", counts_->next, to, why);
    std::fflush(stdout);
  }

  [[nodiscard]] std::string path() const { return folder_ + "/case"; }

 private:
  void write(const std::string& bytes) const {
    std::ofstream file(path(), std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  // A reader's child process may end with the sanitizers' report. It must be on libhdf5, not on this library.
  std::string report_of_child(const Format& format) {
    std::string out;
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      if (entry.path().filename().string().find("report.") != 0) continue;
      const std::string report = read_file(entry.path().string());
      std::filesystem::remove(entry.path());
      // (Memory that was refused is reported as well, as a warning.)
      if (report.find("ERROR: ") == std::string::npos && report.find("runtime error: ") == std::string::npos) continue;
      const std::size_t third = report.find("#3 ");
      if (report.substr(0, report.find('\n', std::min(third, report.size()))).find("libhdf5") == std::string::npos)
        out = fmt::format("{}: {}", format.name, report.substr(0, longest_report));
    }
    return out;
  }

  std::string folder_;
  std::string kept_;
  std::uint64_t seed_;
  Counts* counts_;
};

// Starts workers until all files are done: one that ends early is a fault of its file.
void supervise(Fuzzer& fuzzer, Counts* counts, const std::string& folder, std::uint64_t count, double minutes) {
  const auto deadline =
      std::chrono::steady_clock::now() +
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(60 * minutes));
  while (counts->next < count && std::chrono::steady_clock::now() < deadline) {
    std::fflush(stdout);
    const pid_t worker = fork();
    if (worker == 0) {
#ifdef __SANITIZE_ADDRESS__
      __sanitizer_set_report_path((folder + "/report").c_str());
#endif
      fuzzer.work(count, deadline);
      std::fflush(stdout);
      _exit(0);
    }
    int status = 0;
    waitpid(worker, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    const std::string report = read_file(fmt::format("{}/report.{}", folder, worker)).substr(0, longest_report);
    fuzzer.keep(WIFSIGNALED(status) ? fmt::format("ended by {} {}", strsignal(WTERMSIG(status)), report)
                                    : fmt::format("ended with {} {}", WEXITSTATUS(status), report));
    for (const auto& entry : std::filesystem::directory_iterator(folder)) std::filesystem::remove_all(entry.path());
    ++counts->next;
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Damages files of every format that is read, and loads them");
  double minutes = 1e5;
  std::uint64_t count = 0;
  std::uint64_t seed = 1;
  std::string kept = (std::filesystem::temp_directory_path() / "chainrule-fuzz-files").string();
  app.add_option("--minutes", minutes, "Stop after so long (default: 1, if no count is given)");
  app.add_option("--count", count, "Stop after so many files");
  app.add_option("--seed", seed, "Where the random numbers begin")->capture_default_str();
  app.add_option("--keep", kept, "The folder for files at which something is wrong")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (count == 0 && app.count("--minutes") == 0) minutes = 1;

  auto* const counts =
      static_cast<Counts*>(mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  std::string folder = (std::filesystem::temp_directory_path() / "chainrule-fuzz-XXXXXX").string();
  if (counts == MAP_FAILED || mkdtemp(folder.data()) == nullptr) return 2;
  Fuzzer fuzzer(folder, kept, seed, counts);
  supervise(fuzzer, counts, folder, count == 0 ? ~std::uint64_t{0} : count, minutes);
  std::filesystem::remove_all(folder);
  fmt::print("{} files, {} errors, {} loaded, {} crashes of libhdf5 that became errors, {} faults, seed {}\n",
             counts->next, counts->errors, counts->loaded, counts->crashes, counts->faults, seed);
  return counts->faults == 0 ? 0 : 1;
}
