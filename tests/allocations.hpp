// Counts every allocation of a program, and makes some fail, by operators new of its own: for one source of a program.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <string_view>

#include <malloc.h>

#include <chainrule/framework/core/error.hpp>

#include "catch.hpp"

namespace chainrule::test {

inline std::size_t allocations = 0;
// The allocation to fail: 1 is the next; 0: none.
inline std::size_t fail_in = 0;
// Whether all after it fail, too.
inline bool fail_on = false;
inline std::size_t failed = 0;
// What is allocated now, and the most that it has been.
inline std::size_t live_bytes = 0;
inline std::size_t peak_bytes = 0;

inline void* allocate(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  if (fail_in > 0 && --fail_in == 0) {
    if (fail_on) fail_in = 1;
    ++failed;
    throw std::bad_alloc();
  }
  // aligned_alloc wants a multiple of the alignment, and gives null for 0 bytes where it likes.
  const std::size_t room = (bytes / alignment + 1) * alignment;
  void* const p = std::aligned_alloc(alignment, room);
  if (!p) throw std::bad_alloc();
  live_bytes += malloc_usable_size(p);
  peak_bytes = std::max(peak_bytes, live_bytes);
  return p;
}

// Not inlined, where g++ would take the two for a mismatched pair.
[[gnu::noinline]] inline void release(void* p) noexcept {
  if (p) live_bytes -= malloc_usable_size(p);
  std::free(p);
}

inline constexpr std::size_t plain = alignof(std::max_align_t);

template <class F>
std::size_t allocations_of(F f) {
  const std::size_t before = allocations;
  f();
  return allocations - before;
}

// Runs f with allocation n failing, and with `on` all after it. Returns whether an exception said so.
template <class F>
bool throws_without(std::size_t n, bool on, F f) {
  struct Failing {
    Failing(std::size_t n, bool on) { fail_in = n, fail_on = on, failed = 0; }
    ~Failing() { fail_in = 0, fail_on = false; }
  } const failing(n, on);
  try {
    f();
    return false;
  } catch (const std::bad_alloc&) {
    return true;
  } catch (const Error& error) {  // an Array or a file for which there is no memory says so
    fail_in = 0;
    if (std::string_view(error.what()).find("memory") == std::string_view::npos) throw;
    return true;
  }
}

// On what make() points to, makes the first allocation of a stage fail, then the second and so on (every so often one
// after some dozens), until it needs no more: each alone, then with all that follow. After each failure look()
// says what it said before the stage, and once it is repeated what it says where nothing failed.
template <class Make, class Stage, class Look>
void fail_each(std::string_view name, Make make, Stage stage, Look look) {
  INFO(name);
  const auto undisturbed = make();
  const auto before = look(*undisturbed);
  stage(*undisturbed);
  const auto after = look(*undisturbed);
  for (const bool on : {false, true}) {
    std::size_t thrown = 0;
    for (std::size_t n = 1; n == 1 || failed > 0; n += 1 + n / 32) {
      const auto thing = make();
      if (throws_without(n, on, [&] { stage(*thing); })) {
        ++thrown;
        if (look(*thing) != before) FAIL("changed by the failure of allocation " << n);
        const std::size_t of_stage = failed;
        stage(*thing);
        failed = of_stage;
      }
      if (look(*thing) != after) FAIL("not the same after the failure of allocation " << n);
    }
    CHECK(thrown > 0);
  }
}

}  // namespace chainrule::test

void* operator new(std::size_t bytes) { return chainrule::test::allocate(bytes, chainrule::test::plain); }
void* operator new[](std::size_t bytes) { return chainrule::test::allocate(bytes, chainrule::test::plain); }
void* operator new(std::size_t bytes, std::align_val_t a) {
  return chainrule::test::allocate(bytes, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t bytes, std::align_val_t a) {
  return chainrule::test::allocate(bytes, static_cast<std::size_t>(a));
}
// The standard library's temporary buffers and arrays come from here; a sanitizer has its own where the program has
// none.
void* operator new(std::size_t bytes, std::align_val_t a, const std::nothrow_t& /*tag*/) noexcept {
  try {
    return chainrule::test::allocate(bytes, static_cast<std::size_t>(a));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new(std::size_t bytes, const std::nothrow_t& tag) noexcept {
  return ::operator new (bytes, std::align_val_t{chainrule::test::plain}, tag);
}
void operator delete(void* p, const std::nothrow_t& /*tag*/) noexcept { chainrule::test::release(p); }
void operator delete(void* p) noexcept { chainrule::test::release(p); }
void operator delete[](void* p) noexcept { chainrule::test::release(p); }
void operator delete(void* p, std::size_t) noexcept { chainrule::test::release(p); }
void operator delete[](void* p, std::size_t) noexcept { chainrule::test::release(p); }
void operator delete(void* p, std::align_val_t) noexcept { chainrule::test::release(p); }
void operator delete[](void* p, std::align_val_t) noexcept { chainrule::test::release(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { chainrule::test::release(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { chainrule::test::release(p); }
