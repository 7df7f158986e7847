#include "duckdb/engine.h"

#include <string_view>

#include "base/crc32c.h"

namespace millrace::duckdb {
namespace {

// Types that an engine remembers: more are made out anew.
constexpr size_t kTypesMax = 4096;

// Runs at the end of a scope.
template <class Body>
class Finally {
 public:
  explicit Finally(Body body) : body_(std::move(body)) {}
  ~Finally() { body_(); }

 private:
  Body body_;
};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options) {
  Result<const Library*> library = Library::load(options.library);
  if (!library.ok()) return library.status();
  std::unique_ptr<Engine> engine(new Engine(**library, options.threads));
  if (Status status = engine->start(options); !status.ok()) return status;
  return engine;
}

Status Engine::start(const EngineOptions& options) {
  version_ = library_.library_version();
  Config config = nullptr;
  if (library_.create_config(&config) != kSuccess) return Status(Code::kInternal, "DuckDB gives no configuration");
  const Finally destroy([&] { library_.destroy_config(&config); });
  std::vector<std::pair<const char*, std::string>> settings = {
      {"threads", std::to_string(options.threads)},
      {"temp_directory", options.spill_directory},
      // A function worker neither asks the network for extensions nor looks for them in its user's home.
      {"autoinstall_known_extensions", "false"},
      {"autoload_known_extensions", "false"},
  };
  if (options.memory_bytes != 0) settings.push_back({"memory_limit", std::to_string(options.memory_bytes) + "B"});
  for (const auto& [name, value] : settings) {
    if (library_.set_config(config, name, value.c_str()) != kSuccess) {
      return Status(Code::kInvalidArgument, std::string("DuckDB does not take '") + value + "' as " + name);
    }
  }
  char* error = nullptr;
  if (library_.open_ext(nullptr, &database_, config, &error) != kSuccess) {
    return Status(Code::kInvalidArgument, "DuckDB does not open: " + library_.take(error));
  }
  if (library_.connect(database_, &connection_) != kSuccess) {
    return Status(Code::kInternal, "DuckDB gives no connection");
  }
  return rows_in_.add_to(connection_);
}

Engine::~Engine() {
  close();
  types_.clear();
  if (connection_ != nullptr) library_.disconnect(&connection_);
  if (database_ != nullptr) library_.close(&database_);
}

Status Engine::failure(const char* message) {
  const std::string words = message == nullptr ? "DuckDB does not say why" : message;
  if (Status fault = rows_in_.take_fault(); !fault.ok()) return fault;
  if (cancelled_) return Status(Code::kCancelled, "the statement was cancelled");
  if (std::string_view(words).starts_with("Out of Memory Error")) return Status(Code::kResourceExhausted, words);
  return Status(Code::kSqlFailed, words);
}

Result<LogicalType> Engine::logical_type(const std::string& sql) {
  if (const auto found = types_.find(sql); found != types_.end()) return LogicalType(found->second);
  Prepared prepared = nullptr;
  const Finally destroy([&] { library_.destroy_prepare(&prepared); });
  if (library_.prepare(connection_, ("SELECT CAST(NULL AS " + sql + ")").c_str(), &prepared) != kSuccess) {
    return failure(library_.prepare_error(prepared));
  }
  if (library_.prepared_statement_column_count(prepared) != 1) {
    return Status(Code::kInvalidArgument, sql + " is not one type");
  }
  const LogicalType type = library_.prepared_statement_column_logical_type(prepared, 0);
  return LogicalType(types_.emplace(sql, OwnedType(library_, type)).first->second);
}

Status Engine::take_inputs(const std::vector<Input>& inputs, std::vector<Mismatch>& mismatches) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::vector<uint32_t>& checksums = inputs[i].checksums;
    MILLRACE_ASSERT(checksums.empty() || checksums.size() == inputs[i].extents.size());
    for (size_t e = 0; e < checksums.size(); ++e) {
      const std::span<const uint8_t> bytes = inputs[i].extents[e];
      const uint32_t found = bytes.empty() ? 0 : crc32c(0, bytes.data(), bytes.size());
      if (found == checksums[e]) continue;
      mismatches.push_back({static_cast<uint32_t>(i), static_cast<uint32_t>(e)});
    }
  }
  if (!mismatches.empty()) {
    return Status(Code::kChecksumMismatch,
                  std::to_string(mismatches.size()) + " of the extents to be read are not what was written");
  }
  if (types_.size() > kTypesMax) types_.clear();
  for (const Input& input : inputs) {
    RowsInput& taken = rows_in_.inputs()[input.name];
    if (!taken.types.empty()) return Status(Code::kInvalidArgument, "two inputs are named '" + input.name + "'");
    if (input.types.empty()) return Status(Code::kInvalidArgument, "input '" + input.name + "' has no columns");
    for (const std::string& sql : input.types) {
      Result<LogicalType> logical = logical_type(sql);
      if (!logical.ok()) return logical.status();
      Result<ColumnType> reduced = column_type(library_, *logical);
      if (!reduced.ok()) return reduced.status();
      taken.logical_types.push_back(*logical);
      taken.types.push_back(std::move(*reduced));
    }
    for (const std::span<const uint8_t> extent : input.extents) {
      if (Status status = open_blocks(extent, taken.types, taken.blocks); !status.ok()) return status;
    }
    for (const Block& block : taken.blocks) taken.rows += block.rows;
  }
  return Status();
}

Result<Rows> Engine::execute(const std::string& sql, const std::vector<Input>& inputs, uint32_t partitions,
                             std::vector<Mismatch>& mismatches) {
  const std::lock_guard<std::mutex> statement(statement_mutex_);
  {
    const std::lock_guard<std::mutex> lock(cancel_mutex_);
    if (closed_) return Status(Code::kClosed, "this DuckDB is closed");
    running_ = true;
    cancelled_ = false;
  }
  const Finally done([&] {
    rows_in_.inputs().clear();
    const std::lock_guard<std::mutex> lock(cancel_mutex_);
    running_ = false;
  });
  (void)rows_in_.take_fault();
  if (Status status = take_inputs(inputs, mismatches); !status.ok()) return status;
  return run(sql, partitions);
}

Result<Rows> Engine::run(const std::string& sql, uint32_t partitions) {
  Prepared prepared = nullptr;
  const Finally destroy_prepared([&] { library_.destroy_prepare(&prepared); });
  if (library_.prepare(connection_, sql.c_str(), &prepared) != kSuccess) {
    return failure(library_.prepare_error(prepared));
  }
  Pending pending = nullptr;
  const Finally destroy_pending([&] { library_.destroy_pending(&pending); });
  if (library_.pending_prepared_streaming(prepared, &pending) != kSuccess) {
    return failure(library_.pending_error(pending));
  }
  // An interrupt before this is forgotten by DuckDB, one behind it is not.
  if (cancelled_) return failure(nullptr);
  QueryResult result;
  const Finally destroy_result([&] { library_.destroy_result(&result); });
  if (library_.execute_pending(pending, &result) != kSuccess) return failure(library_.result_error(&result));
  return collect(result, partitions);
}

Result<Rows> Engine::collect(QueryResult& result, uint32_t partitions) {
  Rows rows;
  std::vector<ColumnType> types;
  const uint64_t columns = library_.column_count(&result);
  if (partitions > 1) {
    const bool numbered = columns > 0 && [&] {
      const OwnedType last(library_, library_.column_logical_type(&result, columns - 1));
      return library_.get_type_id(last) == kTypeUinteger;
    }();
    if (!numbered) {
      return Status(Code::kInvalidArgument, "the last column of the result, the partition of the row, is no UINTEGER");
    }
  }
  const uint64_t kept = partitions > 1 ? columns - 1 : columns;
  for (uint64_t i = 0; i < kept; ++i) {
    const OwnedType type(library_, library_.column_logical_type(&result, i));
    Result<ColumnType> reduced = column_type(library_, type);
    if (!reduced.ok()) return reduced.status();
    types.push_back(std::move(*reduced));
    rows.types.push_back(sql_type(library_, type));
    rows.names.emplace_back(library_.column_name(&result, i));
  }
  try {
    rows.rows = std::make_unique<Collector>(library_, std::move(types), partitions);
    if (Status status = take_chunks(result, *rows.rows); !status.ok()) return status;
  } catch (const std::bad_alloc&) {
    return Status(Code::kResourceExhausted, "no memory for the rows of the result");
  }
  return rows;
}

Status Engine::take_chunks(QueryResult& result, Collector& rows) {
  for (;;) {
    Chunk chunk = library_.fetch_chunk(result);
    if (chunk == nullptr) break;
    const Finally destroy([&] { library_.destroy_data_chunk(&chunk); });
    if (library_.data_chunk_get_size(chunk) == 0) break;
    if (Status status = rows.append(chunk); !status.ok()) return status;
    if (cancelled_) return failure(nullptr);
  }
  if (const char* error = library_.result_error(&result); error != nullptr && *error != '\0') return failure(error);
  if (cancelled_) return failure(nullptr);
  return rows.finish();
}

void Engine::cancel() {
  const std::lock_guard<std::mutex> lock(cancel_mutex_);
  if (!running_) return;
  cancelled_ = true;
  library_.interrupt(connection_);
}

void Engine::close() {
  {
    const std::lock_guard<std::mutex> lock(cancel_mutex_);
    closed_ = true;
    if (running_) {
      cancelled_ = true;
      library_.interrupt(connection_);
    }
  }
  const std::lock_guard<std::mutex> statement(statement_mutex_);
}

}  // namespace millrace::duckdb
