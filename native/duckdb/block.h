// Rows by columns, as they lie in an exchange: read where they are, without being unpacked.
//
// A block is a header, then its columns one after another; all numbers are little-endian and all parts padded with
// zeros to 8 bytes, a block as a whole to 64. Blocks lie one behind the other: nothing at all are zero rows.
//
// A column of n rows is a NodeHeader, then, where it has any nulls, n bits (set: not null), then by its shape
//   fixed   n values
//   string  n ends (uint32: where each value ends and the next begins), then the bytes
//   list    n ends, counted in rows of the child, then the child, a column of as many rows as the last end says
//   struct  the children, columns of n rows
//   array   the child, a column of n * width rows
// Nulls have the value 0, and no bytes or rows of their own.
//
// The types are not in it: whoever reads a block knows them. They and every length are checked when it is opened, the
// values a stretch of rows at a time just before they are used.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/status.h"
#include "base/units.h"
#include "duckdb/column_type.h"

namespace millrace::duckdb {

inline constexpr uint32_t kBlockMagic = 0x4c42524d;  // "MRBL"
inline constexpr uint16_t kBlockVersion = 1;
inline constexpr uint64_t kBlockAlignment = 64;
inline constexpr uint64_t kPartAlignment = 8;
// Rows of a block, rows of a list's child and bytes of a column's strings at most.
inline constexpr uint64_t kBlockExtentMax = UINT32_MAX;

struct BlockHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t zero;
  uint32_t columns;
  uint32_t zero2;
  uint64_t rows;
  uint64_t bytes;  // of the whole block
};
static_assert(sizeof(BlockHeader) == 32);

struct NodeHeader {
  Shape shape;
  uint8_t has_nulls;
  uint16_t zero;
  uint32_t width;   // fixed: bytes; array: rows
  uint64_t extent;  // strings: their bytes; lists: rows of the child; else 0
};
static_assert(sizeof(NodeHeader) == 16);

inline uint64_t validity_bytes(uint64_t rows) { return (rows + 63) / 64 * 8; }

// One column, or a child of one. Nothing here is aligned.
struct BlockColumn {
  const ColumnType* type = nullptr;
  uint64_t rows = 0;
  const uint8_t* validity = nullptr;  // null: no nulls
  const uint8_t* data = nullptr;      // values or ends
  const uint8_t* bytes = nullptr;     // of strings
  uint64_t extent = 0;
  std::vector<BlockColumn> children;

  bool valid(uint64_t row) const { return validity == nullptr || (validity[row / 8] >> (row % 8) & 1) != 0; }
  // Of strings and lists: where the value or the rows of row `row` begin, and with row + 1 where they end.
  uint64_t begin(uint64_t row) const {
    if (row == 0) return 0;
    uint32_t end;
    std::memcpy(&end, data + (row - 1) * sizeof(end), sizeof(end));
    return end;
  }
};

struct Block {
  uint64_t rows = 0;
  std::vector<BlockColumn> columns;
};

// The blocks in `bytes`, which stay in place. CORRUPT where they are none, or none of these types.
Status open_blocks(std::span<const uint8_t> bytes, const std::vector<ColumnType>& types, std::vector<Block>& blocks);

// Whether the rows from `first` to `end` hold what DuckDB takes for granted: ends in order, values in range, text in
// UTF-8. Nothing of them may be used before; CORRUPT where not.
Status check_rows(const BlockColumn& column, uint64_t first, uint64_t end);

}  // namespace millrace::duckdb
