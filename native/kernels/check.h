// What a validator needs to know about records: how many, their checksum, and whether they are in order.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/record.h"
#include "kernels/record_crc.h"

namespace millrace {

struct RecordsSummary {
  uint64_t count = 0;
  RecordsChecksum checksum;
  uint64_t unordered = 0;   // records whose key is below that of the record before
  uint64_t duplicates = 0;  // records whose key equals that of the record before
  std::vector<uint8_t> first_key;
  std::vector<uint8_t> last_key;

  // Appends the summary of the records that follow these, and checks the order across the boundary. Both must
  // come from the same layout.
  void append(const RecordsSummary& next);
};

enum class CheckOrder : uint8_t { kNo, kYes };

// One pass over `records`. With CheckOrder::kNo only the count, the checksum and the two keys are found.
Result<RecordsSummary> check_records(RecordLayout layout, std::span<const uint8_t> records, CheckOrder order);

}  // namespace millrace
