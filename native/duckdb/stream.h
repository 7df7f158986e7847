// Bytes that come a run at a time and stay where they were put: pieces that grow with what has come, so that neither
// many short streams waste much nor long ones are ever moved.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "base/units.h"
#include "duckdb/arena.h"

namespace millrace::duckdb {

class Stream {
 public:
  struct Piece {
    uint8_t* memory;
    uint64_t capacity;
    uint64_t begin;  // bytes of the stream before it
    uint64_t bytes;
  };

  // Room for a run of at most `bytes` in one place. commit() says how many of them it has.
  uint8_t* reserve(Arena& arena, uint64_t bytes) {
    if (pieces_.empty() || bytes > pieces_.back().capacity - pieces_.back().bytes) grow(arena, bytes);
    return pieces_.back().memory + pieces_.back().bytes;
  }
  void commit(uint64_t bytes) {
    MILLRACE_ASSERT(bytes <= pieces_.back().capacity - pieces_.back().bytes);
    pieces_.back().bytes += bytes;
    bytes_ += bytes;
  }

  uint64_t bytes() const { return bytes_; }
  const std::vector<Piece>& pieces() const { return pieces_; }

  // Of one run: `offset` is that of the run's first byte or one behind it. The stream is not empty.
  const uint8_t* at(uint64_t offset) const {
    const auto after = std::upper_bound(pieces_.begin(), pieces_.end(), offset,
                                        [](uint64_t wanted, const Piece& piece) { return wanted < piece.begin; });
    MILLRACE_ASSERT(after != pieces_.begin());
    return after[-1].memory + (offset - after[-1].begin);
  }

 private:
  static constexpr uint64_t kPieceBytesMin = 256, kPieceBytesMax = 256 * KiB;

  void grow(Arena& arena, uint64_t bytes) {
    const uint64_t before = pieces_.empty() ? 0 : pieces_.back().capacity;
    const uint64_t capacity = std::max(std::clamp(2 * before, kPieceBytesMin, kPieceBytesMax), bytes);
    pieces_.push_back({arena.take(capacity), capacity, bytes_, 0});
  }

  std::vector<Piece> pieces_;
  uint64_t bytes_ = 0;
};

}  // namespace millrace::duckdb
