// Other programs, run to their end.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace bench {

struct Pinned {
  int threads = 0;  // how many processors the program may use; 0: those that this one may
  std::map<std::string, std::string> environment = {};
};

struct Output {
  int status = 0;  // the exit code; 128 + N after signal N
  double seconds = 0;
  double peak_rss_mb = 0;  // of it and what it started
  std::string text;        // stdout
};

// command[0] is looked for in PATH. stderr is this program's, or dropped.
Output run(const std::vector<std::string>& command, const Pinned& pinned = {}, bool show_errors = true);

// How many processors this program may use.
int processors();

}  // namespace bench
