// Memory for the rows of a statement: handed out piece by piece, given back all at once. The pages are kept from
// statement to statement, because the first touch of fresh ones costs more than the rows that are copied there.
#pragma once
#include <cstdint>
#include <vector>

#include "base/units.h"

namespace millrace::duckdb {

// What all arenas of the process keep among them for later ones.
inline constexpr uint64_t kArenaIdleBytesMax = 256 * MiB;

class Arena {
 public:
  Arena() = default;
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Aligned to 64 bytes, not initialised. Throws std::bad_alloc where the system gives no more.
  uint8_t* take(uint64_t bytes);

 private:
  struct Large {
    uint8_t* memory;
    uint64_t bytes;
  };

  std::vector<uint8_t*> slabs_;
  std::vector<Large> large_;
  uint64_t left_ = 0;  // in the last slab
};

}  // namespace millrace::duckdb
