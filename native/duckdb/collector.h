// Takes the rows of a result apart by partition, a chunk of DuckDB's at a time, and lays each partition down as blocks.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "duckdb/arena.h"
#include "duckdb/block.h"
#include "duckdb/library.h"
#include "duckdb/staged_rows.h"
#include "duckdb/stream.h"
#include "duckdb/vector_view.h"

namespace millrace::duckdb {

// Which rows of a vector: those named, or a stretch of them.
struct Selection {
  const uint32_t* rows;  // null: from `first` on
  uint64_t first;
  uint64_t count;

  uint64_t row(uint64_t i) const { return rows != nullptr ? rows[i] : first + i; }
};

// Where columns put their rows.
struct Room {
  Arena arena;
  bool full = false;  // set where a block should take no more
};

// The rows of one partition that one column of a block has so far.
class ColumnRows {
 public:
  explicit ColumnRows(const ColumnType& type);
  // RESOURCE_EXHAUSTED where strings or lists of one chunk exceed what a block can hold.
  Status append(Room& room, const VectorView& vector, const Selection& selection);

  uint64_t bytes() const;
  template <class Sink>
  void write(Sink& sink) const;
  std::optional<std::string_view> text(uint64_t row) const;

 private:
  void append_validity(Room& room, const VectorView& vector, const Selection& selection);
  void flush_word(Room& room);
  void append_fixed(Room& room, const VectorView& vector, const Selection& selection);
  Status append_strings(Room& room, const VectorView& vector, const Selection& selection);
  Status append_lists(Room& room, const VectorView& vector, const Selection& selection);
  Status append_arrays(Room& room, const VectorView& vector, const Selection& selection);
  void extend(Room& room, uint64_t by);

  const ColumnType* type_;
  uint64_t rows_ = 0;
  // Nothing is written of validity before the first null.
  bool has_nulls_ = false;
  uint64_t word_ = 0;  // bits of the last rows_ % 64 rows
  Stream validity_;
  Stream data_;
  Stream bytes_;         // of strings
  uint64_t extent_ = 0;  // of strings their bytes, of lists and arrays the rows of the child
  std::vector<ColumnRows> children_;
};

struct Written {
  std::vector<uint64_t> offsets;  // one more than there are partitions
  std::vector<uint32_t> checksums;
};

class Collector {
 public:
  // With more than one partition, chunks have one column more than `types`: the partition of each row.
  Collector(const Library& library, std::vector<ColumnType> types, uint32_t partitions);
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  // OUT_OF_RANGE for a partition that is null or that there is none of.
  Status append(Chunk chunk);
  // After the last chunk, before anything is asked of the rows.
  Status finish();

  uint64_t rows() const { return rows_; }
  uint32_t partitions() const { return static_cast<uint32_t>(partitions_.size()); }
  uint64_t partition_rows(uint32_t partition) const;
  // That write() needs.
  uint64_t bytes() const;
  // Partition after partition; OUT_OF_RANGE where `into` is too small.
  Result<Written> write(std::span<uint8_t> into) const;
  const std::vector<ColumnType>& types() const { return types_; }
  // Of a column of strings, the value of a row of the first partition, or nothing where it is null.
  std::optional<std::string_view> text(size_t column, uint64_t row) const;

 private:
  struct BlockRows {
    std::vector<ColumnRows> columns;
    uint64_t rows = 0;
    bool full = false;
    uint64_t bytes() const;
  };
  struct PartitionRows {
    std::vector<BlockRows> blocks;  // the last one is being filled
  };

  VectorView view(Vector vector, const ColumnType& type, uint64_t rows) const;
  Status select(const uint32_t* numbers, uint64_t rows);
  BlockRows& filling(PartitionRows& partition);
  // `numbers`: the partition of each row; null: there is one partition.
  Status scatter(const std::vector<VectorView>& columns, const uint32_t* numbers, uint64_t rows);

  const Library& library_;
  const std::vector<ColumnType> types_;
  Room room_;
  std::vector<PartitionRows> partitions_;
  uint64_t rows_ = 0;
  std::optional<StagedRows> staged_;
  // Of the rows at hand: the partitions that have rows of it, and where they begin in `selected_`.
  struct Share {
    uint32_t partition;
    uint32_t first;
    uint32_t count;
  };
  std::vector<Share> shares_;
  std::vector<uint32_t> share_of_;  // by partition, one more than its index; 0: none
  std::vector<uint32_t> selected_;
  std::vector<BlockRows*> blocks_;  // by share
};

}  // namespace millrace::duckdb
