// A DuckDB in memory that runs one statement after another, over files and over blocks of rows, and keeps the rows of
// the result as blocks again.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "duckdb/collector.h"
#include "duckdb/library.h"
#include "duckdb/rows_in.h"

namespace millrace::duckdb {

struct EngineOptions {
  std::string library;  // path
  uint32_t threads = 1;
  uint64_t memory_bytes = 0;    // 0: DuckDB's own default
  std::string spill_directory;  // empty: nothing is spilled
};

struct Input {
  std::string name;
  std::vector<std::string> types;
  std::vector<std::span<const uint8_t>> extents;  // in place until execute() returns
  std::vector<uint32_t> checksums;                // one an extent, or none
};

struct Mismatch {
  uint32_t input;
  uint32_t extent;
};

struct Rows {
  std::vector<std::string> names;
  std::vector<std::string> types;  // SQL
  std::unique_ptr<Collector> rows;
};

class Engine {
 public:
  // UNSUPPORTED where the library is not to be had, INVALID_ARGUMENT where DuckDB takes an option for none.
  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const std::string& version() const { return version_; }

  // Runs one statement; others wait. With more than one partition the last column of the result, an UINTEGER, is the
  // partition of the row. `mismatches` gets the extents of a CHECKSUM_MISMATCH. Other errors: SQL_FAILED,
  // CORRUPT (an extent is none), RESOURCE_EXHAUSTED (memory), CANCELLED, CLOSED, UNSUPPORTED (a type),
  // OUT_OF_RANGE (a partition).
  Result<Rows> execute(const std::string& sql, const std::vector<Input>& inputs, uint32_t partitions,
                       std::vector<Mismatch>& mismatches);
  // Ends the statement at work, if there is one.
  void cancel();
  // Ends the statement at work and refuses all others; returns when nothing runs.
  void close();

 private:
  Engine(const Library& library, uint32_t threads) : library_(library), rows_in_(library, threads) {}
  Status start(const EngineOptions& options);
  Status take_inputs(const std::vector<Input>& inputs, std::vector<Mismatch>& mismatches);
  Result<LogicalType> logical_type(const std::string& sql);
  Result<Rows> run(const std::string& sql, uint32_t partitions);
  Result<Rows> collect(QueryResult& result, uint32_t partitions);
  Status take_chunks(QueryResult& result, Collector& rows);
  // What DuckDB's words mean; `message` may be null.
  Status failure(const char* message);

  const Library& library_;
  std::string version_;
  Database database_ = nullptr;
  Connection connection_ = nullptr;
  RowsIn rows_in_;
  std::map<std::string, OwnedType> types_;  // by their SQL

  std::mutex statement_mutex_;  // held while a statement runs
  std::mutex cancel_mutex_;     // of the rest
  bool running_ = false;
  bool closed_ = false;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace millrace::duckdb
