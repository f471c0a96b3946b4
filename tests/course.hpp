// Runs the course's exercises (examples/course) as a user does, and reads what they print.
#pragma once

#include <array>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include <sys/wait.h>

#include "catch.hpp"
#include "expected.hpp"

namespace chainrule::test {

struct Printed {
  std::string text;  // standard output; of a section, its lines
  int exit_code = 0;

  // The lines after the line "# TITLE" and before the next such line. Fails the test where there is none.
  [[nodiscard]] Printed section(const std::string& title) const {
    Printed out;
    bool inside = false;
    bool found = false;
    for (const std::string& line : lines(text)) {
      if (line.rfind("# ", 0) == 0) {
        inside = line == "# " + title;
        found = found || inside;
      } else if (inside) {
        out.text += line + "\n";
      }
    }
    if (!found) FAIL("no section '" << title << "' in\n" << text);
    return out;
  }

  // What follows `label`, up to the end of its line. Fails the test where it is not printed.
  [[nodiscard]] std::string after(const std::string& label) const {
    const std::size_t at = ("\n" + text).find("\n" + label);
    if (at == std::string::npos) FAIL("no line '" << label << "...' in\n" << text);
    const std::size_t begin = at + label.size();
    return text.substr(begin, text.find('\n', begin) - begin);
  }

  // The numbers of the array printed after the line "NAME =", as they are printed.
  [[nodiscard]] std::vector<std::string> array(const std::string& name) const {
    const std::string label = name + " =\n";
    const std::size_t at = ("\n" + text).rfind("\n" + label);
    if (at == std::string::npos) FAIL("no array '" << name << "' in\n" << text);
    std::string rows;
    int depth = 0;
    for (std::size_t i = at + label.size(); i < text.size(); ++i) {
      depth += text[i] == '[' ? 1 : text[i] == ']' ? -1 : 0;
      rows += text[i] == '[' || text[i] == ']' ? ' ' : text[i];
      if (depth == 0) break;
    }
    return words(rows);
  }

  [[nodiscard]] static std::vector<std::string> lines(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> out;
    for (std::string line; std::getline(in, line);) out.push_back(line);
    return out;
  }
  [[nodiscard]] static std::vector<std::string> words(const std::string& text) {
    std::istringstream in(text);
    std::vector<std::string> out;
    for (std::string word; in >> word;) out.push_back(word);
    return out;
  }
};

// `arguments` are the shell's, and so is `before`, what stands before the program's name.
inline Printed run_example(const std::string& name, const std::string& arguments = "", const std::string& before = "") {
  const std::string command = before + " " + CHAINRULE_EXAMPLES + "/" + name + " " + arguments;
  INFO(command);
  std::FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  Printed out;
  std::array<char, 4096> buffer{};
  for (std::size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;)
    out.text.append(buffer.data(), n);
  const int status = pclose(pipe);
  out.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return out;
}

// The same, for an exercise that is to succeed.
inline Printed run_exercise(const std::string& name, const std::string& arguments = "") {
  Printed out = run_example(name, arguments);
  INFO(out.text);
  REQUIRE(out.exit_code == 0);
  return out;
}

// The folder of the course's data files, or "", after a warning.
inline std::string shared_data() {
  const char* shared = std::getenv("CHAINRULE_SHARED");
  if (shared != nullptr && *shared != 0) return std::string(shared) + "/data";
  WARN("Skipped what needs the course's data files: no folder $CHAINRULE_SHARED");
  return "";
}

}  // namespace chainrule::test
