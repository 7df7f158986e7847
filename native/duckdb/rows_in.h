// The table function rows_in('name'): the rows of blocks, read where they lie.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.h"
#include "duckdb/block.h"
#include "duckdb/column_type.h"
#include "duckdb/library.h"

namespace millrace::duckdb {

// What a statement may read as one table.
struct RowsInput {
  std::vector<LogicalType> logical_types;  // of columns c0, c1, …; the engine's
  std::vector<ColumnType> types;
  std::vector<Block> blocks;
  uint64_t rows = 0;
};

// One for each connection. Inputs are there from before a statement is prepared until its result is gone.
class RowsIn {
 public:
  RowsIn(const Library& library, uint32_t threads) : library_(library), threads_(threads) {}
  RowsIn(const RowsIn&) = delete;
  RowsIn& operator=(const RowsIn&) = delete;

  // INTERNAL where DuckDB takes no function of that name.
  Status add_to(Connection connection);

  std::map<std::string, RowsInput, std::less<>>& inputs() { return inputs_; }
  // What a function found wrong with its rows, and forgets it: DuckDB passes on the words alone.
  Status take_fault();

  // For the functions that DuckDB calls.
  uint32_t threads() const { return threads_; }
  void fault(const Status& status);

 private:
  const Library& library_;
  const uint32_t threads_;
  std::map<std::string, RowsInput, std::less<>> inputs_;
  std::mutex mutex_;
  Status fault_;
};

}  // namespace millrace::duckdb
