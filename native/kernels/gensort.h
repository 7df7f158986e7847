// The input of the sort benchmark: gensort's 100-byte binary records, any stretch of them without the ones
// before.
#pragma once
#include <cstdint>

namespace millrace {

enum class Skew : uint8_t {
  kUniform,  // exactly gensort's records
  // Ours, a function of the record number alone: record i is gensort's record i with the first two key bytes
  // replaced. With u and v two fractions hashed from i, 22 % of the records (those with u < 0.22) get the
  // prefix "MR", the rest get floor(v * v * 65536), which is the denser the lower the prefix: a quarter of
  // the key space holds half of them.
  kSkewed,
};

inline constexpr uint32_t kGensortRecordBytes = 100;

// Writes records first_record to first_record + count - 1, 100 bytes each, to `out`.
void generate_records(uint64_t first_record, uint64_t count, uint8_t* out, Skew skew);

}  // namespace millrace
