// How many threads a run may use.
#pragma once

#include <chainrule/framework/error.hpp>

namespace chainrule {

// At most this many threads work on one run, the calling one included; 1: no other thread is ever started. At first it
// is the environment variable CHAINRULE_NUM_THREADS, or where that is not set the number of processors that the process
// may use. Only large steps are split. Results do not depend on the number, to the bit.
//
// num_threads() throws Error where the environment variable is no number from 1 to 1024, set_num_threads() for one
// outside of that range. set_num_threads() waits for a run that is under way in another thread.
[[nodiscard]] int num_threads();
void set_num_threads(int threads, Location at = Location::here());

}  // namespace chainrule
