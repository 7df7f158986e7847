#include "kernels/partition.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/crc32c.h"
#include "base/units.h"
#include "kernels/classifier.h"

namespace millrace {
namespace {

constexpr uint64_t kLineBytes = 64;
// Larger records fill cache lines by themselves: they are copied to their place and checksummed on the way.
constexpr uint32_t kBufferedRecordBytesMax = 512;
// The buffers of a few partitions should together stay in the nearest cache. Those of many cannot, and larger
// flushes, which cost less a byte, are worth more to them than a small footprint.
constexpr uint64_t kNearBuffersBytes = 32 * KiB;
constexpr uint32_t kNearPartitionsMax = 32;
constexpr uint64_t kNearBufferBytesMax = 4 * KiB;
constexpr uint64_t kFarBufferBytes = 2 * KiB;
constexpr uint64_t kBuffersBytesMax = 32 * MiB;
// How far ahead the input is fetched while it is scattered.
constexpr uint64_t kPrefetchBytes = 4 * KiB;
// Smaller outputs stay in the cache and are written there directly.
constexpr uint64_t kBufferedOutputBytesMin = 2 * MiB;

// Where a partition's next bytes go. `line` is aligned; the first `head` bytes of the buffer stand for what
// lies before the partition and are not written.
struct Cursor {
  uint8_t* line;
  uint32_t filled;
  uint32_t head;
  uint32_t crc;
};

uint64_t flush_bytes_for(uint32_t partitions) {
  if (partitions > kNearPartitionsMax) return kFarBufferBytes;
  return std::min(kNearBuffersBytes / partitions & ~(kLineBytes - 1), kNearBufferBytesMax);
}

class BufferedScatter {
 public:
  BufferedScatter(uint8_t* buffers, Cursor* cursors, uint64_t flush_bytes, uint64_t stride)
      : buffers_(buffers),
        cursors_(cursors),
        flush_bytes_(static_cast<uint32_t>(flush_bytes)),
        stride_(stride) {}

  static uint64_t stride_bytes(uint64_t flush_bytes, uint32_t record_bytes) {
    // An odd number of lines, so that the buffers' ends do not fall on the same cache sets.
    return align_up(flush_bytes + record_bytes, kLineBytes) | kLineBytes;
  }

  void begin(uint32_t partition, uint8_t* dest) {
    const auto head = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(dest) & (kLineBytes - 1));
    cursors_[partition] = {dest - head, head, head, 0};
  }

  template <uint32_t kBytes>
  void append(const uint16_t* partitions, const uint8_t* records, uint64_t count, uint32_t record_bytes) {
    const uint32_t bytes = kBytes != 0 ? kBytes : record_bytes;
    for (uint64_t i = 0; i < count; ++i, records += bytes) {
      // The flushes' writes throw the hardware's prefetchers off the input: without this up to a third
      // slower.
      __builtin_prefetch(records + kPrefetchBytes);
      __builtin_prefetch(records + kPrefetchBytes + kLineBytes);
      Cursor& cursor = cursors_[partitions[i]];
      uint8_t* buffer = buffers_ + partitions[i] * stride_;
      copy_record<kBytes>(buffer + cursor.filled, records, bytes);
      cursor.filled += bytes;
      if (cursor.filled >= flush_bytes_) flush(cursor, buffer);
    }
  }

  uint32_t finish(uint32_t partition) {
    Cursor& cursor = cursors_[partition];
    uint8_t* buffer = buffers_ + partition * stride_;
    if (cursor.filled >= kLineBytes) flush(cursor, buffer);
    return copy_crc32c(cursor.line + cursor.head, buffer + cursor.head, cursor.filled - cursor.head,
                       cursor.crc);
  }

 private:
  static void flush(Cursor& cursor, uint8_t* buffer) {
    uint32_t at = 0;
    if (cursor.head != 0) {
      // The line that the partition shares with the one before it.
      cursor.crc =
          copy_crc32c(cursor.line + cursor.head, buffer + cursor.head, kLineBytes - cursor.head, cursor.crc);
      cursor.head = 0;
      at = kLineBytes;
    }
    const uint32_t lines = cursor.filled & ~static_cast<uint32_t>(kLineBytes - 1);
    cursor.crc = stream_copy_crc32c(cursor.line + at, buffer + at, lines - at, cursor.crc);
    std::memcpy(buffer, buffer + lines, kLineBytes);  // the incomplete line
    cursor.line += lines;
    cursor.filled -= lines;
  }

  uint8_t* buffers_;
  Cursor* cursors_;
  const uint32_t flush_bytes_;
  const uint64_t stride_;
};

template <uint32_t kBytes>
void scatter_direct(const uint16_t* partitions, const uint8_t* records, uint64_t count, uint32_t record_bytes,
                    uint8_t* dest, uint64_t* positions) {
  const uint32_t bytes = kBytes != 0 ? kBytes : record_bytes;
  for (uint64_t i = 0; i < count; ++i, records += bytes) {
    uint64_t& position = positions[partitions[i]];
    copy_record<kBytes>(dest + position, records, bytes);
    position += bytes;
  }
}

}  // namespace

Result<PartitionOutput> partition_records(RecordLayout layout, std::span<const uint8_t> input,
                                          const Splitters& splitters, std::span<uint8_t> dest,
                                          Scratch& scratch) {
  if (Status status = check_layout(layout); !status.ok()) return status;
  Result<uint64_t> records = count_records(layout, input.size(), "the input");
  if (!records.ok()) return records.status();
  if (splitters.key_bytes() != layout.key_bytes) {
    return Status(Code::kInvalidArgument, "the splitters are for keys of " +
                                              std::to_string(splitters.key_bytes()) + " bytes, not " +
                                              std::to_string(layout.key_bytes));
  }
  if (input.size() > dest.size()) {
    return Status(Code::kOutOfRange, "the destination has room for " + std::to_string(dest.size()) + " of " +
                                         std::to_string(input.size()) + " bytes");
  }
  if (ranges_overlap(input, dest))
    return Status(Code::kInvalidArgument, "the input overlaps the destination");

  const uint32_t partitions = splitters.partitions();
  const uint64_t count = *records;
  PartitionOutput output;
  output.offsets.assign(partitions + 1, 0);
  output.checksums.assign(partitions, 0);
  if (count == 0) return output;
  if (partitions == 1) {
    output.offsets[1] = input.size();
    output.checksums[0] = copy_crc32c(dest.data(), input.data(), input.size(), 0);
    return output;
  }

  const uint64_t flush_bytes = flush_bytes_for(partitions);
  const uint64_t stride = BufferedScatter::stride_bytes(flush_bytes, layout.record_bytes);
  const bool whole_lines = layout.record_bytes > kBufferedRecordBytesMax;
  // Buffers pay where most of a partition passes through them in full flushes.
  const bool buffered = !whole_lines && input.size() >= kBufferedOutputBytesMin &&
                        stride * partitions <= kBuffersBytesMax &&
                        input.size() / partitions >= 2 * flush_bytes;
  const uint64_t buffers_bytes = buffered ? stride * partitions : 0;
  if (Status status = scratch.reserve(count * sizeof(uint16_t) + partitions * sizeof(Cursor) + buffers_bytes);
      !status.ok()) {
    return status;
  }
  auto* classes = scratch.take<uint16_t>(count);

  Classifier classifier(splitters, layout, uint64_t{crc32c(0, input.data(), layout.record_bytes)} << 32);
  classifier.classify(input.data(), count, classes, output.offsets.data() + 1);
  for (uint32_t r = 0; r < partitions; ++r) {
    output.offsets[r + 1] = output.offsets[r] + output.offsets[r + 1] * layout.record_bytes;
  }

  if (buffered) {
    BufferedScatter scatter(scratch.take<uint8_t>(buffers_bytes), scratch.take<Cursor>(partitions),
                            flush_bytes, stride);
    for (uint32_t r = 0; r < partitions; ++r) scatter.begin(r, dest.data() + output.offsets[r]);
    if (layout.record_bytes == 100) {
      scatter.append<100>(classes, input.data(), count, layout.record_bytes);
    } else {
      scatter.append<0>(classes, input.data(), count, layout.record_bytes);
    }
    for (uint32_t r = 0; r < partitions; ++r) output.checksums[r] = scatter.finish(r);
    stream_fence();
    return output;
  }

  std::vector<uint64_t> positions(output.offsets.begin(), output.offsets.end() - 1);
  if (whole_lines) {
    const uint8_t* record = input.data();
    for (uint64_t i = 0; i < count; ++i, record += layout.record_bytes) {
      const uint16_t r = classes[i];
      output.checksums[r] =
          copy_crc32c(dest.data() + positions[r], record, layout.record_bytes, output.checksums[r]);
      positions[r] += layout.record_bytes;
    }
    return output;
  }
  if (layout.record_bytes == 100) {
    scatter_direct<100>(classes, input.data(), count, layout.record_bytes, dest.data(), positions.data());
  } else {
    scatter_direct<0>(classes, input.data(), count, layout.record_bytes, dest.data(), positions.data());
  }
  for (uint32_t r = 0; r < partitions; ++r) {
    output.checksums[r] =
        crc32c(0, dest.data() + output.offsets[r], output.offsets[r + 1] - output.offsets[r]);
  }
  return output;
}

}  // namespace millrace
