// Appends records to an output, gathering whole cache lines first and moving them past the cache: a plain
// store to a line that is not cached reads it from memory before it is overwritten.
#pragma once
#include <cstdint>
#include <cstring>

#include "base/crc32c.h"
#include "base/units.h"
#include "kernels/record.h"
#include "kernels/stream_copy.h"

namespace millrace {

// kBytes is the record size where it is known at compile time, else 0.
template <uint32_t kBytes>
class RecordWriter {
 public:
  // Larger records fill lines by themselves and are copied straight to the output.
  static constexpr uint32_t kStagedRecordBytesMax = 512;

  RecordWriter(uint8_t* out, uint64_t out_bytes, uint32_t record_bytes)
      : record_bytes_(record_bytes),
        staged_(record_bytes <= kStagedRecordBytesMax && out_bytes >= kStreamOutputBytesMin),
        out_(out) {
    if (!staged_) return;
    // The stage has the alignment of the output, so that its lines are the output's lines. The first line,
    // which may begin before the output, is handled by the first flush.
    head_ = reinterpret_cast<uintptr_t>(out) & 63;
    out_ = out - head_;
    filled_ = head_;
  }
  ~RecordWriter() { finish(); }
  RecordWriter(const RecordWriter&) = delete;
  RecordWriter& operator=(const RecordWriter&) = delete;

  void append(const uint8_t* record) {
    if (!staged_) {
      copy_record<kBytes>(out_, record, record_bytes_);
      out_ += record_bytes_;
      return;
    }
    copy_record<kBytes>(stage_ + filled_, record, record_bytes_);
    filled_ += record_bytes_;
    if (filled_ >= kFlushBytes) flush();
  }

  void finish() {
    if (!staged_) return;
    if (filled_ >= 64) flush();
    std::memcpy(out_ + head_, stage_ + head_, filled_ - head_);
    out_ += filled_;
    filled_ = head_ = 0;
    staged_ = false;
    stream_fence();
  }

 private:
  static constexpr size_t kFlushBytes = 4 * KiB;

  void flush() {
    size_t at = 0;
    if (head_ != 0) {
      std::memcpy(out_ + head_, stage_ + head_, 64 - head_);
      head_ = 0;
      at = 64;
    }
    const size_t lines = filled_ & ~size_t{63};
    stream_copy(out_ + at, stage_ + at, lines - at);
    std::memcpy(stage_, stage_ + lines, 64);  // the incomplete line
    out_ += lines;
    filled_ -= lines;
  }

  const uint32_t record_bytes_;
  bool staged_;
  uint8_t* out_;
  size_t head_ = 0;
  size_t filled_ = 0;
  alignas(64) uint8_t stage_[kFlushBytes + kStagedRecordBytesMax + 64];
};

}  // namespace millrace
