// The functions of DuckDB's C API that Millrace calls, found in a shared library at run time: whoever does not use SQL
// needs no DuckDB, and who does gets the one that npm installed. The declarations follow DuckDB's documented C API.
#pragma once
#include <cstdint>
#include <string>

#include "base/status.h"

namespace millrace::duckdb {

using Database = struct DatabaseTag*;
using Connection = struct ConnectionTag*;
using Config = struct ConfigTag*;
using Prepared = struct PreparedTag*;
using Pending = struct PendingTag*;
using LogicalType = struct LogicalTypeTag*;
using Chunk = struct ChunkTag*;
using Vector = struct VectorTag*;
using Value = struct ValueTag*;
using TableFunction = void*;
using BindInfo = void*;
using InitInfo = void*;
using FunctionInfo = void*;
using Destructor = void (*)(void*);
using BindCallback = void (*)(BindInfo);
using InitCallback = void (*)(InitInfo);
using FunctionCallback = void (*)(FunctionInfo, Chunk);

enum State : int { kSuccess = 0, kError = 1 };
enum PendingState : int { kReady = 0, kNotReady = 1, kPendingError = 2, kNoTasks = 3 };

// Passed by value, so its size is part of the interface. Only the last field is in use.
struct QueryResult {
  uint64_t unused[3] = {};
  void* unused_pointers[2] = {};
  void* internal = nullptr;
};
static_assert(sizeof(QueryResult) == 48);

enum TypeId : int {
  kTypeBoolean = 1,
  kTypeTinyint = 2,
  kTypeSmallint = 3,
  kTypeInteger = 4,
  kTypeBigint = 5,
  kTypeUtinyint = 6,
  kTypeUsmallint = 7,
  kTypeUinteger = 8,
  kTypeUbigint = 9,
  kTypeFloat = 10,
  kTypeDouble = 11,
  kTypeTimestamp = 12,
  kTypeDate = 13,
  kTypeTime = 14,
  kTypeInterval = 15,
  kTypeHugeint = 16,
  kTypeVarchar = 17,
  kTypeBlob = 18,
  kTypeDecimal = 19,
  kTypeTimestampS = 20,
  kTypeTimestampMs = 21,
  kTypeTimestampNs = 22,
  kTypeEnum = 23,
  kTypeList = 24,
  kTypeStruct = 25,
  kTypeMap = 26,
  kTypeUuid = 27,
  kTypeUnion = 28,
  kTypeBit = 29,
  kTypeTimeTz = 30,
  kTypeTimestampTz = 31,
  kTypeUhugeint = 32,
  kTypeArray = 33,
  kTypeBignum = 35,
  kTypeNull = 36,
  kTypeTimeNs = 39,
  kTypeGeometry = 40,
  kTypeVariant = 41,
};

// Of a VARCHAR, BLOB, BIT or BIGNUM: up to 12 bytes lie in the value itself, zeros behind them.
struct StringValue {
  uint32_t length;
  uint8_t prefix[4];  // of the bytes, or where they begin
  union {
    const uint8_t* pointer;
    uint8_t inlined[8];
  };
};
inline constexpr uint32_t kInlinedBytesMax = 12;
static_assert(sizeof(StringValue) == 16);

struct ListEntry {
  uint64_t offset;
  uint64_t length;
};

// Rows of a chunk at most.
inline constexpr uint64_t kChunkRows = 2048;

// name (behind `duckdb_`), result, parameters
#define MILLRACE_DUCKDB_FUNCTIONS(F)                                                   \
  F(library_version, const char*, ())                                                  \
  F(vector_size, uint64_t, ())                                                         \
  F(free, void, (void*))                                                               \
  F(create_config, State, (Config*))                                                   \
  F(set_config, State, (Config, const char* name, const char* value))                  \
  F(destroy_config, void, (Config*))                                                   \
  F(open_ext, State, (const char* path, Database*, Config, char** error))              \
  F(close, void, (Database*))                                                          \
  F(connect, State, (Database, Connection*))                                           \
  F(disconnect, void, (Connection*))                                                   \
  F(interrupt, void, (Connection))                                                     \
  F(prepare, State, (Connection, const char* sql, Prepared*))                          \
  F(prepare_error, const char*, (Prepared))                                            \
  F(destroy_prepare, void, (Prepared*))                                                \
  F(prepared_statement_column_count, uint64_t, (Prepared))                             \
  F(prepared_statement_column_logical_type, LogicalType, (Prepared, uint64_t))         \
  F(pending_prepared_streaming, State, (Prepared, Pending*))                           \
  F(pending_error, const char*, (Pending))                                             \
  F(execute_pending, State, (Pending, QueryResult*))                                   \
  F(destroy_pending, void, (Pending*))                                                 \
  F(result_error, const char*, (QueryResult*))                                         \
  F(destroy_result, void, (QueryResult*))                                              \
  F(column_count, uint64_t, (QueryResult*))                                            \
  F(column_name, const char*, (QueryResult*, uint64_t))                                \
  F(column_logical_type, LogicalType, (QueryResult*, uint64_t))                        \
  F(fetch_chunk, Chunk, (QueryResult))                                                 \
  F(destroy_data_chunk, void, (Chunk*))                                                \
  F(data_chunk_get_size, uint64_t, (Chunk))                                            \
  F(data_chunk_set_size, void, (Chunk, uint64_t))                                      \
  F(data_chunk_get_column_count, uint64_t, (Chunk))                                    \
  F(data_chunk_get_vector, Vector, (Chunk, uint64_t))                                  \
  F(vector_get_data, void*, (Vector))                                                  \
  F(vector_get_validity, uint64_t*, (Vector))                                          \
  F(vector_ensure_validity_writable, void, (Vector))                                   \
  F(list_vector_get_child, Vector, (Vector))                                           \
  F(list_vector_get_size, uint64_t, (Vector))                                          \
  F(list_vector_reserve, State, (Vector, uint64_t))                                    \
  F(list_vector_set_size, State, (Vector, uint64_t))                                   \
  F(struct_vector_get_child, Vector, (Vector, uint64_t))                               \
  F(array_vector_get_child, Vector, (Vector))                                          \
  F(get_type_id, TypeId, (LogicalType))                                                \
  F(logical_type_get_alias, char*, (LogicalType))                                      \
  F(decimal_width, uint8_t, (LogicalType))                                             \
  F(decimal_scale, uint8_t, (LogicalType))                                             \
  F(decimal_internal_type, TypeId, (LogicalType))                                      \
  F(enum_internal_type, TypeId, (LogicalType))                                         \
  F(enum_dictionary_size, uint32_t, (LogicalType))                                     \
  F(enum_dictionary_value, char*, (LogicalType, uint64_t))                             \
  F(list_type_child_type, LogicalType, (LogicalType))                                  \
  F(array_type_child_type, LogicalType, (LogicalType))                                 \
  F(array_type_array_size, uint64_t, (LogicalType))                                    \
  F(map_type_key_type, LogicalType, (LogicalType))                                     \
  F(map_type_value_type, LogicalType, (LogicalType))                                   \
  F(struct_type_child_count, uint64_t, (LogicalType))                                  \
  F(struct_type_child_name, char*, (LogicalType, uint64_t))                            \
  F(struct_type_child_type, LogicalType, (LogicalType, uint64_t))                      \
  F(union_type_member_count, uint64_t, (LogicalType))                                  \
  F(union_type_member_name, char*, (LogicalType, uint64_t))                            \
  F(union_type_member_type, LogicalType, (LogicalType, uint64_t))                      \
  F(create_logical_type, LogicalType, (TypeId))                                        \
  F(destroy_logical_type, void, (LogicalType*))                                        \
  F(create_table_function, TableFunction, ())                                          \
  F(destroy_table_function, void, (TableFunction*))                                    \
  F(table_function_set_name, void, (TableFunction, const char*))                       \
  F(table_function_add_parameter, void, (TableFunction, LogicalType))                  \
  F(table_function_set_extra_info, void, (TableFunction, void*, Destructor))           \
  F(table_function_set_bind, void, (TableFunction, BindCallback))                      \
  F(table_function_set_init, void, (TableFunction, InitCallback))                      \
  F(table_function_set_local_init, void, (TableFunction, InitCallback))                \
  F(table_function_set_function, void, (TableFunction, FunctionCallback))              \
  F(table_function_supports_projection_pushdown, void, (TableFunction, bool))          \
  F(register_table_function, State, (Connection, TableFunction))                       \
  F(bind_get_extra_info, void*, (BindInfo))                                            \
  F(bind_get_parameter, Value, (BindInfo, uint64_t))                                   \
  F(bind_add_result_column, void, (BindInfo, const char* name, LogicalType))           \
  F(bind_set_bind_data, void, (BindInfo, void*, Destructor))                           \
  F(bind_set_cardinality, void, (BindInfo, uint64_t rows, bool exact))                 \
  F(bind_set_error, void, (BindInfo, const char*))                                     \
  F(get_varchar, char*, (Value))                                                       \
  F(destroy_value, void, (Value*))                                                     \
  F(init_get_bind_data, void*, (InitInfo))                                             \
  F(init_set_init_data, void, (InitInfo, void*, Destructor))                           \
  F(init_get_column_count, uint64_t, (InitInfo))                                       \
  F(init_get_column_index, uint64_t, (InitInfo, uint64_t))                             \
  F(init_set_max_threads, void, (InitInfo, uint64_t))                                  \
  F(init_set_error, void, (InitInfo, const char*))                                     \
  F(function_get_bind_data, void*, (FunctionInfo))                                     \
  F(function_get_init_data, void*, (FunctionInfo))                                     \
  F(function_get_local_init_data, void*, (FunctionInfo))                               \
  F(function_set_error, void, (FunctionInfo, const char*))

struct Library {
#define MILLRACE_DUCKDB_MEMBER(name, result, parameters) result(*name) parameters = nullptr;
  MILLRACE_DUCKDB_FUNCTIONS(MILLRACE_DUCKDB_MEMBER)
#undef MILLRACE_DUCKDB_MEMBER

  // Once for the process: it stays loaded. UNSUPPORTED where it cannot be loaded, lacks a function, or another one is
  // loaded already.
  static Result<const Library*> load(const std::string& path);
  // The one that is loaded, for functions that DuckDB calls.
  static const Library& loaded();

  // A string of DuckDB's, freed.
  std::string take(char* text) const;
};

}  // namespace millrace::duckdb
