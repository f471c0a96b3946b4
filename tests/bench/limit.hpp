// The limits: as little work as a workload can be done with, written by hand.
#pragma once

#include "worker.hpp"

namespace bench {

std::unique_ptr<Run> hand_written_course_net();                // W1, all of it
std::unique_ptr<Run> hand_fused_elementwise(int threads);      // W4, all of it
std::unique_ptr<Run> bare_products(const Settings& settings);  // W2, W3, W6: products and the optimizer's pass only
std::unique_ptr<Run> bare_products_of_text(const Settings& settings);  // W8 and W9: the same

}  // namespace bench
