#include "kernels/record.h"

#include <string>

namespace millrace {

Status check_layout(RecordLayout layout) {
  if (layout.record_bytes < 1 || layout.record_bytes > kRecordBytesMax) {
    return Status(Code::kInvalidArgument, "a record has 1 to " + std::to_string(kRecordBytesMax) +
                                              " bytes, not " + std::to_string(layout.record_bytes));
  }
  const uint32_t key_bytes_max =
      layout.record_bytes < kRecordKeyBytesMax ? layout.record_bytes : kRecordKeyBytesMax;
  if (layout.key_bytes < 1 || layout.key_bytes > key_bytes_max) {
    return Status(Code::kInvalidArgument, "the key of a record of " + std::to_string(layout.record_bytes) +
                                              " bytes has 1 to " + std::to_string(key_bytes_max) +
                                              " bytes, not " + std::to_string(layout.key_bytes));
  }
  return Status();
}

Result<uint64_t> count_records(RecordLayout layout, uint64_t bytes, const char* what) {
  if (bytes % layout.record_bytes != 0) {
    return Status(Code::kInvalidArgument, std::string(what) + " of " + std::to_string(bytes) +
                                              " bytes does not hold whole records of " +
                                              std::to_string(layout.record_bytes) + " bytes");
  }
  return bytes / layout.record_bytes;
}

bool ranges_overlap(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  if (a.empty() || b.empty()) return false;
  const auto a_first = reinterpret_cast<uintptr_t>(a.data()), b_first = reinterpret_cast<uintptr_t>(b.data());
  return a_first < b_first + b.size() && b_first < a_first + a.size();
}

}  // namespace millrace
