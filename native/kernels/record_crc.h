// The sum of the zlib CRC-32 of records: gensort's checksum, which does not depend on their order.
#pragma once
#include <cstdint>
#include <string>

namespace millrace {

// A 128-bit sum in two halves.
struct RecordsChecksum {
  uint64_t high = 0;
  uint64_t low = 0;

  void add(const RecordsChecksum& other) {
    low += other.low;
    high += other.high + (low < other.low ? 1 : 0);
  }
  std::string hex() const;  // without leading zeros, as valsort prints it
  friend bool operator==(const RecordsChecksum&, const RecordsChecksum&) = default;
};

// The sum over `count` records of `record_bytes` each. `count` times 2^32 must fit 64 bits.
uint64_t sum_record_crcs(const uint8_t* records, uint64_t count, uint32_t record_bytes);

}  // namespace millrace
