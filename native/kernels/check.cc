#include "kernels/check.h"

#include <algorithm>
#include <cstring>

namespace millrace {
namespace {

struct OrderCounts {
  uint64_t unordered = 0;
  uint64_t duplicates = 0;
};

// Compares every record from the second on with the one before it. Counting without branches, because in data
// that is out of order the outcomes cannot be predicted.
OrderCounts count_order(RecordLayout layout, const uint8_t* records, uint64_t count) {
  OrderCounts counts;
  uint64_t before_first = key_first(records, layout);
  uint32_t before_second = key_second(records, layout);
  const bool longer = layout.key_bytes > kPrefixBytes;
  for (uint64_t i = 1; i < count; ++i) {
    const uint8_t* key = records + i * layout.record_bytes;
    const uint64_t first = key_first(key, layout);
    const uint32_t second = key_second(key, layout);
    const bool equal = first == before_first && second == before_second;
    if (equal && longer) {
      const int order = std::memcmp(key + kPrefixBytes, key + kPrefixBytes - layout.record_bytes,
                                    layout.key_bytes - kPrefixBytes);
      counts.unordered += order < 0;
      counts.duplicates += order == 0;
    } else {
      counts.unordered += (first < before_first) | ((first == before_first) & (second < before_second));
      counts.duplicates += equal;
    }
    before_first = first, before_second = second;
  }
  return counts;
}

}  // namespace

void RecordsSummary::append(const RecordsSummary& next) {
  if (next.count == 0) return;
  if (count == 0) {
    *this = next;
    return;
  }
  const size_t bytes = std::min(last_key.size(), next.first_key.size());
  const int order = std::memcmp(next.first_key.data(), last_key.data(), bytes);
  unordered += next.unordered + (order < 0 ? 1 : 0);
  duplicates += next.duplicates + (order == 0 ? 1 : 0);
  count += next.count;
  checksum.add(next.checksum);
  last_key = next.last_key;
}

Result<RecordsSummary> check_records(RecordLayout layout, std::span<const uint8_t> records,
                                     CheckOrder order) {
  if (Status status = check_layout(layout); !status.ok()) return status;
  Result<uint64_t> count = count_records(layout, records.size(), "the input");
  if (!count.ok()) return count.status();
  RecordsSummary summary;
  summary.count = *count;
  if (*count == 0) return summary;
  summary.first_key.assign(records.data(), records.data() + layout.key_bytes);
  const uint8_t* last = records.data() + (*count - 1) * layout.record_bytes;
  summary.last_key.assign(last, last + layout.key_bytes);
  // Blocks that stay in the nearest cache between the two looks at them.
  const uint64_t block_records = std::max<uint64_t>(1, 16 * 1024 / layout.record_bytes);
  for (uint64_t at = 0; at < *count; at += block_records) {
    const uint64_t block = std::min(block_records, *count - at);
    const uint8_t* first = records.data() + at * layout.record_bytes;
    summary.checksum.add({0, sum_record_crcs(first, block, layout.record_bytes)});
    if (order == CheckOrder::kNo) continue;
    const uint64_t overlap = at == 0 ? 0 : 1;  // the last record of the block before
    const OrderCounts counts = count_order(layout, first - overlap * layout.record_bytes, block + overlap);
    summary.unordered += counts.unordered;
    summary.duplicates += counts.duplicates;
  }
  return summary;
}

}  // namespace millrace
