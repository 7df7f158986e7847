// What the rows of a column look like in memory: DuckDB's types, reduced to the few shapes in which it keeps them.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "duckdb/library.h"

namespace millrace::duckdb {

enum class Shape : uint8_t {
  kFixed = 1,   // `width` bytes a row
  kString = 2,  // any number of bytes a row
  kList = 3,    // any number of rows of the only child; maps too, whose child is a struct of key and value
  kStruct = 4,  // one row of every child; unions too, whose first child says which member holds
  kArray = 5,   // `width` rows of the only child
};

// What DuckDB takes for granted of a value, beyond its width: where it does not hold, DuckDB reads past its own tables.
enum class Rule : uint8_t { kNone, kBoolean, kBelow, kTime, kTimeNs, kTimeTz, kUtf8, kBit, kBignum };

struct ColumnType {
  Shape shape;
  uint32_t width = 0;
  Rule rule = Rule::kNone;
  uint32_t bound = 0;  // of kBelow
  std::vector<ColumnType> children;
};

// Types within types: more is UNSUPPORTED.
inline constexpr uint32_t kTypeDepthMax = 64;

// UNSUPPORTED for types that DuckDB keeps in shapes of their own.
Result<ColumnType> column_type(const Library& library, LogicalType type);

// As SQL that DuckDB reads back as the same type.
std::string sql_type(const Library& library, LogicalType type);

// Destroyed at the end.
class OwnedType {
 public:
  OwnedType(const Library& library, LogicalType type) : library_(&library), type_(type) {}
  OwnedType(OwnedType&& other) noexcept : library_(other.library_), type_(other.type_) { other.type_ = nullptr; }
  OwnedType(const OwnedType&) = delete;
  OwnedType& operator=(const OwnedType&) = delete;
  ~OwnedType() {
    if (type_ != nullptr) library_->destroy_logical_type(&type_);
  }
  operator LogicalType() const { return type_; }

 private:
  const Library* library_;
  LogicalType type_;
};

}  // namespace millrace::duckdb
