// Rows of small chunks put together: what is handed to many partitions at once should be a run of rows for each.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "duckdb/arena.h"
#include "duckdb/vector_view.h"

namespace millrace::duckdb {

class StagedRows {
 public:
  // Whether it can hold rows of these types: nothing nested.
  static bool can_hold(const std::vector<ColumnType>& types);
  // At most `capacity` rows between two calls of clear().
  StagedRows(const std::vector<ColumnType>& types, uint64_t capacity);

  // Copies them; long strings too, whose memory goes with the chunk.
  void append(const std::vector<VectorView>& columns, const uint32_t* partitions, uint64_t rows);

  uint64_t rows() const { return rows_; }
  // Of strings that are not held in their values.
  uint64_t string_bytes() const { return string_bytes_; }
  const uint32_t* partitions() const { return partitions_.data(); }
  std::vector<VectorView> columns() const;
  void clear();

 private:
  struct Column {
    const ColumnType* type;
    uint32_t width;
    std::vector<uint8_t> data;
    std::vector<uint64_t> validity;
    bool has_nulls = false;
  };

  void append_validity(Column& column, const VectorView& vector, uint64_t rows);
  void append_strings(Column& column, const VectorView& vector, uint64_t rows);

  std::vector<Column> columns_;
  std::vector<uint32_t> partitions_;
  uint64_t rows_ = 0;
  std::optional<Arena> strings_;
  uint64_t string_bytes_ = 0;
};

}  // namespace millrace::duckdb
