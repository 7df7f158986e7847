// Rows of one vector of DuckDB's, with what lies behind its handle.
#pragma once
#include <cstdint>
#include <vector>

#include "duckdb/column_type.h"

namespace millrace::duckdb {

struct VectorView {
  const ColumnType* type;
  const uint8_t* data;
  const uint64_t* validity;  // null: no nulls
  std::vector<VectorView> children;

  bool valid(uint64_t row) const { return validity == nullptr || (validity[row / 64] >> (row % 64) & 1) != 0; }
};

}  // namespace millrace::duckdb
