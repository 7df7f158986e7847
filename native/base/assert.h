// Assertions are for bugs and stay on in release builds: a store that goes on after a broken invariant
// loses data. They never check what comes from outside; that is a Status.
#pragma once
#include <cstdio>
#include <cstdlib>

#define MILLRACE_ASSERT(condition)                                                             \
  do {                                                                                         \
    if (__builtin_expect(!(condition), 0)) {                                                   \
      std::fprintf(stderr, "millrace: assertion failed: %s (%s:%d)\n", #condition, __FILE__, __LINE__); \
      std::abort();                                                                            \
    }                                                                                          \
  } while (0)
