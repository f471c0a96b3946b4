// Ctrl-C as a question instead of an end.
#pragma once

namespace chainrule {

// While one lives, the first Ctrl-C (SIGINT) does not end the program: requested() becomes true, and a loop can finish
// what it is at, save, and leave. The second Ctrl-C ends the program at once. The last one to go restores what SIGINT
// did before. Where SIGINT was ignored (nohup, a background job), it stays so.
//   cr::Interrupt interrupt;
//   while (!interrupt.requested()) ...
// Several may live at the same time, one within the other: all hear of it.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Whether there was a Ctrl-C since the first of those that live now was made.
  [[nodiscard]] bool requested() const;
};

}  // namespace chainrule
