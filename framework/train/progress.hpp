// Progress of a long loop, for whoever watches it in a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace chainrule {

// One line at the foot of a terminal (standard error): what, how far, the rate and the time left, a few times a second.
// Prints nothing where standard error is no terminal, so that a pipe or a log gets the program's own lines only.
class Progress {
 public:
  Progress(std::string_view what, std::int64_t total);
  ~Progress();  // wipes the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total`; `note` stands at the end ("cost 0.351748"). Cheap when nothing is due.
  void update(std::int64_t done, std::string_view note = {});
  // Wipes the line, so that the program can print one of its own.
  void clear();
  // Whether standard error is a terminal.
  [[nodiscard]] bool terminal() const { return terminal_; }

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  std::int64_t total_;
  bool terminal_;
  bool shown_ = false;
  Clock::time_point start_;
  Clock::time_point due_;
};

// A duration as people say it: "2 h 05 min", "3 min 20 s", "12 s".
std::string in_words(double seconds);

}  // namespace chainrule
