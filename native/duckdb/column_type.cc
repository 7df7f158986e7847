#include "duckdb/column_type.h"

namespace millrace::duckdb {
namespace {

ColumnType fixed(uint32_t width, Rule rule = Rule::kNone, uint32_t bound = 0) {
  return {Shape::kFixed, width, rule, bound, {}};
}

uint32_t integer_width(TypeId id) {
  switch (id) {
    case kTypeTinyint:
    case kTypeUtinyint:
      return 1;
    case kTypeSmallint:
    case kTypeUsmallint:
      return 2;
    case kTypeInteger:
    case kTypeUinteger:
      return 4;
    case kTypeBigint:
    case kTypeUbigint:
      return 8;
    case kTypeHugeint:
    case kTypeUhugeint:
      return 16;
    default:
      return 0;
  }
}

std::string quoted(const std::string& text, char quote) {
  std::string result(1, quote);
  for (const char c : text) {
    if (c == quote) result += quote;
    result += c;
  }
  return result + quote;
}

Result<ColumnType> reduce(const Library& library, LogicalType type, uint32_t depth);

// The children one after another, of type shape `shape`.
class Parent {
 public:
  Parent(const Library& library, Shape shape, uint32_t depth) : library_(library), depth_(depth), type_{shape} {}
  void add(LogicalType child) {
    const OwnedType owned(library_, child);
    if (!status_.ok()) return;
    Result<ColumnType> reduced = reduce(library_, owned, depth_ + 1);
    if (reduced.ok()) type_.children.push_back(std::move(*reduced));
    else status_ = reduced.status();
  }
  ColumnType& type() { return type_; }
  Result<ColumnType> take() {
    if (!status_.ok()) return status_;
    return std::move(type_);
  }

 private:
  const Library& library_;
  uint32_t depth_;
  ColumnType type_;
  Status status_;
};

Result<ColumnType> reduce(const Library& library, LogicalType type, uint32_t depth) {
  if (depth > kTypeDepthMax) {
    return Status(Code::kUnsupported, "types within types more than " + std::to_string(kTypeDepthMax) + " deep");
  }
  const TypeId id = library.get_type_id(type);
  switch (id) {
    case kTypeBoolean:
      return fixed(1, Rule::kBoolean);
    case kTypeTinyint:
    case kTypeUtinyint:
    case kTypeSmallint:
    case kTypeUsmallint:
    case kTypeInteger:
    case kTypeUinteger:
    case kTypeBigint:
    case kTypeUbigint:
    case kTypeHugeint:
    case kTypeUhugeint:
      return fixed(integer_width(id));
    case kTypeFloat:
    case kTypeDate:
      return fixed(4);
    case kTypeDouble:
    case kTypeTimestamp:
    case kTypeTimestampS:
    case kTypeTimestampMs:
    case kTypeTimestampNs:
    case kTypeTimestampTz:
      return fixed(8);
    case kTypeTime:
      return fixed(8, Rule::kTime);
    case kTypeTimeNs:
      return fixed(8, Rule::kTimeNs);
    case kTypeTimeTz:
      return fixed(8, Rule::kTimeTz);
    case kTypeInterval:
    case kTypeUuid:
      return fixed(16);
    case kTypeDecimal: {
      const uint32_t width = integer_width(library.decimal_internal_type(type));
      if (width == 0) break;
      return fixed(width);
    }
    case kTypeEnum: {
      const uint32_t width = integer_width(library.enum_internal_type(type)), size = library.enum_dictionary_size(type);
      if (width == 0 || size == 0) break;
      return fixed(width, Rule::kBelow, size);
    }
    case kTypeVarchar:
      return ColumnType{Shape::kString, 0, Rule::kUtf8, 0, {}};
    case kTypeBlob:
      return ColumnType{Shape::kString, 0, Rule::kNone, 0, {}};
    case kTypeBit:
      return ColumnType{Shape::kString, 0, Rule::kBit, 0, {}};
    case kTypeBignum:
      return ColumnType{Shape::kString, 0, Rule::kBignum, 0, {}};
    case kTypeList: {
      Parent parent(library, Shape::kList, depth);
      parent.add(library.list_type_child_type(type));
      return parent.take();
    }
    case kTypeArray: {
      Parent parent(library, Shape::kArray, depth);
      const uint64_t size = library.array_type_array_size(type);
      if (size == 0 || size > UINT32_MAX) break;
      parent.type().width = static_cast<uint32_t>(size);
      parent.add(library.array_type_child_type(type));
      return parent.take();
    }
    case kTypeMap: {
      Parent entry(library, Shape::kStruct, depth + 1);
      entry.add(library.map_type_key_type(type));
      entry.add(library.map_type_value_type(type));
      Result<ColumnType> reduced = entry.take();
      if (!reduced.ok()) return reduced.status();
      ColumnType map{Shape::kList};
      map.children.push_back(std::move(*reduced));
      return map;
    }
    case kTypeStruct: {
      Parent parent(library, Shape::kStruct, depth);
      const uint64_t count = library.struct_type_child_count(type);
      for (uint64_t i = 0; i < count; ++i) {
        // Of row(1, 2), whose type cannot be written in SQL.
        if (library.take(library.struct_type_child_name(type, i)).empty()) {
          return Status(Code::kUnsupported, "structs whose fields have no names cannot be exchanged");
        }
        parent.add(library.struct_type_child_type(type, i));
      }
      return parent.take();
    }
    case kTypeUnion: {
      Parent parent(library, Shape::kStruct, depth);
      const uint64_t count = library.union_type_member_count(type);
      if (count == 0 || count > 256) break;
      parent.type().children.push_back(fixed(1, Rule::kBelow, static_cast<uint32_t>(count)));
      for (uint64_t i = 0; i < count; ++i) parent.add(library.union_type_member_type(type, i));
      return parent.take();
    }
    case kTypeNull:  // DuckDB makes it INTEGER wherever it leaves a statement
    case kTypeGeometry:
    case kTypeVariant:
      break;
  }
  return Status(Code::kUnsupported, "columns of type " + sql_type(library, type) + " cannot be exchanged");
}

const char* simple_name(TypeId id) {
  switch (id) {
    case kTypeBoolean: return "BOOLEAN";
    case kTypeTinyint: return "TINYINT";
    case kTypeSmallint: return "SMALLINT";
    case kTypeInteger: return "INTEGER";
    case kTypeBigint: return "BIGINT";
    case kTypeUtinyint: return "UTINYINT";
    case kTypeUsmallint: return "USMALLINT";
    case kTypeUinteger: return "UINTEGER";
    case kTypeUbigint: return "UBIGINT";
    case kTypeFloat: return "FLOAT";
    case kTypeDouble: return "DOUBLE";
    case kTypeTimestamp: return "TIMESTAMP";
    case kTypeDate: return "DATE";
    case kTypeTime: return "TIME";
    case kTypeInterval: return "INTERVAL";
    case kTypeHugeint: return "HUGEINT";
    case kTypeUhugeint: return "UHUGEINT";
    case kTypeVarchar: return "VARCHAR";
    case kTypeBlob: return "BLOB";
    case kTypeTimestampS: return "TIMESTAMP_S";
    case kTypeTimestampMs: return "TIMESTAMP_MS";
    case kTypeTimestampNs: return "TIMESTAMP_NS";
    case kTypeUuid: return "UUID";
    case kTypeBit: return "BIT";
    case kTypeTimeTz: return "TIME WITH TIME ZONE";
    case kTypeTimestampTz: return "TIMESTAMP WITH TIME ZONE";
    case kTypeBignum: return "BIGNUM";
    case kTypeNull: return "\"NULL\"";
    case kTypeTimeNs: return "TIME_NS";
    case kTypeGeometry: return "GEOMETRY";
    case kTypeVariant: return "VARIANT";
    default: return nullptr;
  }
}

// Takes the type over.
std::string sql_child(const Library& library, LogicalType type) { return sql_type(library, OwnedType(library, type)); }

}  // namespace

Result<ColumnType> column_type(const Library& library, LogicalType type) { return reduce(library, type, 0); }

std::string sql_type(const Library& library, LogicalType type) {
  const TypeId id = library.get_type_id(type);
  // Aliases are names that one DuckDB gave and another does not know, but for this one.
  if (id == kTypeVarchar && library.take(library.logical_type_get_alias(type)) == "JSON") return "JSON";
  if (const char* name = simple_name(id)) return name;
  switch (id) {
    case kTypeDecimal:
      return "DECIMAL(" + std::to_string(library.decimal_width(type)) + "," +
             std::to_string(library.decimal_scale(type)) + ")";
    case kTypeEnum: {
      std::string text = "ENUM(";
      const uint32_t size = library.enum_dictionary_size(type);
      for (uint32_t i = 0; i < size; ++i) {
        if (i > 0) text += ", ";
        text += quoted(library.take(library.enum_dictionary_value(type, i)), '\'');
      }
      return text + ")";
    }
    case kTypeList:
      return sql_child(library, library.list_type_child_type(type)) + "[]";
    case kTypeArray:
      return sql_child(library, library.array_type_child_type(type)) + "[" +
             std::to_string(library.array_type_array_size(type)) + "]";
    case kTypeMap:
      return "MAP(" + sql_child(library, library.map_type_key_type(type)) + ", " +
             sql_child(library, library.map_type_value_type(type)) + ")";
    case kTypeStruct: {
      std::string text = "STRUCT(";
      const uint64_t count = library.struct_type_child_count(type);
      for (uint64_t i = 0; i < count; ++i) {
        if (i > 0) text += ", ";
        text += quoted(library.take(library.struct_type_child_name(type, i)), '"') + " " +
                sql_child(library, library.struct_type_child_type(type, i));
      }
      return text + ")";
    }
    case kTypeUnion: {
      std::string text = "UNION(";
      const uint64_t count = library.union_type_member_count(type);
      for (uint64_t i = 0; i < count; ++i) {
        if (i > 0) text += ", ";
        text += quoted(library.take(library.union_type_member_name(type, i)), '"') + " " +
                sql_child(library, library.union_type_member_type(type, i));
      }
      return text + ")";
    }
    default:
      return "number " + std::to_string(id) + " of DuckDB";
  }
}

}  // namespace millrace::duckdb
