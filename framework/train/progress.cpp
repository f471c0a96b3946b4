#include <chainrule/framework/train/progress.hpp>

#include <unistd.h>

#include <cmath>
#include <cstdio>

#include <fmt/core.h>

namespace chainrule {

std::string in_words(double seconds) {
  const auto s = static_cast<std::int64_t>(std::lround(seconds));
  if (s >= 3600) return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
  if (s >= 60) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} s", s);
}

Progress::Progress(std::string_view what, std::int64_t total)
    : what_(what), total_(total), terminal_(isatty(STDERR_FILENO) != 0), start_(Clock::now()), due_(start_) {}

Progress::~Progress() { clear(); }

void Progress::clear() {
  if (!shown_) return;
  std::fputs("\r\x1b[K", stderr);  // fmt::print would throw where stderr is closed
  std::fflush(stderr);
  shown_ = false;
  due_ = Clock::now();  // shown again at the next update
}

void Progress::update(std::int64_t done, std::string_view note) {
  if (!terminal_) return;
  const auto now = Clock::now();
  if (now < due_) return;
  due_ = now + std::chrono::milliseconds(100);
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const std::string left = done > 0 && done < total_
                               ? in_words(elapsed / static_cast<double>(done) * static_cast<double>(total_ - done))
                               : "";
  constexpr std::int64_t width = 24;
  const std::int64_t filled = total_ > 0 ? done * width / total_ : width;
  std::string bar;
  for (std::int64_t i = 0; i < width; ++i) bar += i < filled ? '#' : '.';
  fmt::print(stderr, "\r\x1b[K{} [{}] {}/{}{}{}{}", what_, bar, done, total_, left.empty() ? "" : "  " + left + " left",
             note.empty() ? "" : "  ", note);
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace chainrule
