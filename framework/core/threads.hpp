// How many threads a run may use.
#pragma once

#include <chainrule/framework/core/error.hpp>

namespace chainrule {

// At most this many threads work on one run, the calling one included; 1: no other thread is ever started. At first it
// is the environment variable CHAINRULE_NUM_THREADS, or where that is not set the number of processors that the process
// may use. Only large steps are split. Results do not depend on the number, to the bit; so where the system refuses to
// start as many, a run goes on with those that there are (until set_num_threads() is called again).
// The threads serve one run at a time: of runs of several programs at once the others stay on the threads that called
// them.
//
// num_threads() throws Error where the environment variable is no number from 1 to 1024 (and so does Program's
// constructor, so that a run need not), set_num_threads() for one outside of that range. Both may be called from any
// thread; set_num_threads() waits for a step that is under way in another one.
[[nodiscard]] int num_threads();
void set_num_threads(int threads, Location at = Location::here());

}  // namespace chainrule
