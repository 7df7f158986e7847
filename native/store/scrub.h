// Reads objects again and compares them with the checksums they were sealed with, wherever they lie.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "store/store.h"

namespace millrace {

struct ScrubPage {
  struct Damage {
    std::string key;
    uint32_t segment = 0;  // where the damage lies, or the first of those where it may
    std::string message;
  };
  uint64_t objects = 0;
  uint64_t size_bytes = 0;  // of them
  std::vector<Damage> damaged;
  std::string last_key;  // the next page starts after it
  bool more = false;
};

// Checks at most `limit` objects with keys after `start_after`. Objects that are deleted meanwhile are not counted.
// Blocks; not to be called on the reader's thread. ABORTED soon after `stop` becomes true.
Result<ScrubPage> scrub(Namespace& ns, FileReader& reader, std::string_view start_after, uint32_t limit,
                        const std::atomic<bool>& stop);

}  // namespace millrace
