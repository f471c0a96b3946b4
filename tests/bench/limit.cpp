#include "limit.hpp"
#include "workloads.hpp"

#include <cblas.h>

namespace bench {

std::string version() {
  std::string text = openblas_get_config();
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

bool is_checked(const std::string& workload) { return workload == "W1" || workload == "W4"; }

std::unique_ptr<Run> make_run(const Settings& settings) {
  if (settings.workload == "W1") return hand_written_course_net();
  if (settings.workload == "W4") return hand_fused_elementwise(settings.threads);
  if (settings.workload.starts_with("W7")) return nullptr;
  if (is_for_text(settings.workload)) return bare_products_of_text(settings);
  return bare_products(settings);
}

}  // namespace bench
