// Faults to put into reads and writes of segment files, for tests.
#pragma once
#include <atomic>
#include <cstdint>

namespace millrace {

// All zero: none.
struct FileFaults {
  std::atomic<int> write_error{0};         // errno of every write
  std::atomic<int> read_error{0};          // errno of every read
  std::atomic<uint64_t> writes_before{0};  // so many writes still succeed
  std::atomic<uint64_t> short_bytes{0};    // no single read or write moves more than this, on blocks of 4096 bytes
};
FileFaults& file_faults();

}  // namespace millrace
