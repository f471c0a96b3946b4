// How a report reads.
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

#include <chainrule/framework/check/check_gradients.hpp>
#include <chainrule/framework/core/printed.hpp>
#include <chainrule/framework/io/json_writer.hpp>

namespace chainrule {

namespace {

bool is_gradient(const CheckRow& row) { return row.check == "gradient" || row.check == "second order"; }
bool has_numbers(const CheckRow& row) { return is_gradient(row) || row.check == "float32" || row.check == "adjoint"; }
bool is_comparison(const CheckRow& row) { return has_numbers(row) || row.check == "Taylor"; }

std::string painted(std::string text, Verdict verdict, bool colour) {
  if (!colour) return text;
  const char* const codes[] = {"32", "36", "33", "1;31"};
  return fmt::format("\x1b[{}m{}\x1b[0m", codes[static_cast<std::size_t>(verdict)], text);
}

}  // namespace

std::string_view name(Verdict verdict) {
  constexpr std::string_view names[] = {"pass", "subgradient", "inconclusive", "FAIL"};
  return names[static_cast<std::size_t>(verdict)];
}

bool CheckReport::passed() const { return !rows.empty() && verdict() <= Verdict::subgradient; }

Verdict CheckReport::verdict() const {
  Verdict worst = errors.empty() ? Verdict::pass : Verdict::fail;
  for (const CheckRow& row : rows) worst = std::max(worst, row.verdict);
  return worst;
}

double CheckReport::distance() const {
  double most = 0;
  for (const CheckRow& row : rows)
    if (is_gradient(row)) most = std::max(most, row.distance);
  return most;
}

std::string CheckReport::summary(bool colour) const {
  const auto good =
      std::count_if(rows.begin(), rows.end(), [](const CheckRow& r) { return r.verdict <= Verdict::subgradient; });
  const std::string word = passed() ? "PASS" : verdict() == Verdict::inconclusive ? "INCONCLUSIVE" : "FAIL";
  return fmt::format("gradient check of {}{}: {}, {} of {} comparisons pass, greatest relative distance {:.2e}", title,
                     line.empty() ? "" : " (" + line + ")", painted(word, verdict(), colour), good, rows.size(),
                     distance());
}

std::string CheckReport::to_string(bool colour) const {
  const auto trimmed = [](std::string text) {
    while (!text.empty() && text.back() == ' ') text.pop_back();
    return text + "\n";
  };
  std::string out = summary(colour) + "\n";
  out += trimmed(fmt::format("{:<9} {:<12} {:<8} {:<12} {:>8}  {:<9} {:>22} {:>22} {:>8}  {}", "", "check", "input",
                             "shape", "distance", "worst at", "analytic", "reference", "error", "verdict"));
  std::string sound;  // preconditions of one subject that hold, in one line
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const CheckRow& row = rows[i];
    const bool precondition = !is_comparison(row);
    if (precondition && row.verdict == Verdict::pass) sound += (sound.empty() ? "" : ", ") + row.check;
    const bool last = i + 1 == rows.size() || is_comparison(rows[i + 1]) || rows[i + 1].subject != row.subject;
    if (last && !sound.empty() && precondition) {
      out += fmt::format("{:<9} {:<12} {} {}\n", row.subject, "kernel", painted("pass", Verdict::pass, colour), sound);
      sound.clear();
    }
    if (precondition && row.verdict == Verdict::pass) continue;
    std::string text = fmt::format("{:<9} {:<12} {:<8} ", row.subject, row.check, row.input);
    if (has_numbers(row)) {
      const bool whole = row.check == "adjoint";
      text += fmt::format("{:<12} {:>8.1e}  {:<9} {:>22.15g} {:>22.15g} {:>8}  ",
                          whole ? "" : chainrule::to_string(row.shape), detail::printed(row.distance),
                          whole ? "" : chainrule::to_string(row.worst), detail::printed(row.analytic),
                          detail::printed(row.numeric), is_gradient(row) ? fmt::format("{:.1e}", row.error) : "");
    }
    text += painted(std::string(name(row.verdict)), row.verdict, colour);
    if (!row.note.empty()) text += "  " + row.note;
    if (row.verdict >= Verdict::inconclusive && !row.line.empty()) text += "  " + row.line;
    out += trimmed(text);
  }
  for (const auto& error : errors) out += painted("ERROR ", Verdict::fail, colour) + error + "\n";
  if (!passed()) out += fmt::format("To see it again: check_gradients(..., {{.seed = {}}})\n", seed);
  return out;
}

std::string CheckReport::to_json() const {
  detail::JsonWriter json(2);
  const auto number = [&](std::string_view key, double x) {  // JSON has no NaN
    if (std::isfinite(x)) {
      json.member(key, x);
    } else {
      json.member(key, fmt::format("{}", detail::printed(x)));
    }
  };
  json.begin_object();
  number("distance", distance());
  json.array_member("errors", errors);
  json.member("line", line);
  json.member("passed", passed());
  json.key("rows");
  json.begin_array();
  for (const CheckRow& row : rows) {
    json.begin_object();
    number("analytic", row.analytic);
    json.member("check", row.check);
    number("distance", row.distance);
    json.member("dtype", name(row.dtype));
    number("error", row.error);
    json.array_member("index", row.worst);
    json.member("input", row.input);
    json.member("line", row.line);
    json.member("note", row.note);
    number("numeric", row.numeric);
    json.member("shape", chainrule::to_string(row.shape));
    json.member("subject", row.subject);
    number("ulps", row.ulps);
    json.member("verdict", name(row.verdict));
    json.end_object();
  }
  json.end_array();
  json.member("seed", seed);
  json.member("title", title);
  json.member("verdict", name(verdict()));
  json.end_object();
  return json.text();
}

void print(const CheckReport& report, std::FILE* file) {
  const std::string text = report.to_string(isatty(fileno(file)) != 0);
  std::fwrite(text.data(), 1, text.size(), file);
}

}  // namespace chainrule
