// Every type there and back: out of a statement into blocks, and out of the blocks into another statement.
#include "test/duckdb_support.h"

namespace millrace::duckdb::test {
namespace {

struct TypeCase {
  const char* name;
  const char* type;
  const char* expression;  // over i, cast to the type
};

void PrintTo(const TypeCase& type, std::ostream* out) { *out << type.type; }

const TypeCase kTypes[] = {
    {"Boolean", "BOOLEAN", "i % 3 = 0"},
    {"Tinyint", "TINYINT", "(i % 256 - 128)::TINYINT"},
    {"Smallint", "SMALLINT", "(i * 13 % 65536 - 32768)::SMALLINT"},
    {"Integer", "INTEGER", "((hash(i) % 4294967296)::BIGINT - 2147483648)::INTEGER"},
    {"Bigint", "BIGINT", "if(i % 2 = 0, -9223372036854775808 + i, 9223372036854775807 - i)::BIGINT"},
    {"Utinyint", "UTINYINT", "(i % 256)::UTINYINT"},
    {"Usmallint", "USMALLINT", "(i * 13 % 65536)::USMALLINT"},
    {"Uinteger", "UINTEGER", "(hash(i) % 4294967296)::UINTEGER"},
    {"Ubigint", "UBIGINT", "hash(i)"},
    {"Hugeint", "HUGEINT",
     "if(i % 2 = 0, '-170141183460469231731687303715884105728', '170141183460469231731687303715884105727')::HUGEINT + "
     "if(i % 2 = 0, i, -i)::HUGEINT"},
    {"Uhugeint", "UHUGEINT",
     "if(i % 100 = 0, '340282366920938463463374607431768211455'::UHUGEINT - i::UHUGEINT, i::UHUGEINT)"},
    {"Float", "FLOAT", "if(i % 5 = 0, 'nan', if(i % 5 = 1, '-inf', (i * 0.37)::VARCHAR))::FLOAT"},
    {"Double", "DOUBLE", "if(i % 5 = 0, '-0', if(i % 5 = 1, 'inf', (i / 7)::VARCHAR))::DOUBLE"},
    {"DecimalOfTwoBytes", "DECIMAL(4,1)", "(i % 1000 - 500) * 0.1"},
    {"DecimalOfFourBytes", "DECIMAL(9,2)", "CAST(i * 1.37 - 1000 AS DECIMAL(9,2))"},
    {"DecimalOfEightBytes", "DECIMAL(18,6)", "CAST(i * -1.000001 AS DECIMAL(18,6))"},
    {"DecimalOfSixteenBytes", "DECIMAL(38,0)",
     "if(i % 100 = 0, '99999999999999999999999999999999999999', if(i % 100 = 1, "
     "'-99999999999999999999999999999999999999', i::VARCHAR))::DECIMAL(38,0)"},
    {"Date", "DATE", "if(i % 7 = 0, 'infinity'::DATE, DATE '0001-01-01' + (i * 300)::INTEGER)"},
    {"Time", "TIME", "if(i % 7 = 0, TIME '24:00:00', TIME '00:00:00' + to_microseconds(i * 1234567))"},
    {"TimeNs", "TIME_NS", "('12:34:56.' || lpad((i % 1000000000)::VARCHAR, 9, '0'))::TIME_NS"},
    {"TimeTz", "TIME WITH TIME ZONE", "if(i % 2 = 0, '10:00:00+15:59:59', '23:59:59.999999-15:59:59')::TIMETZ"},
    {"Timestamp", "TIMESTAMP", "if(i % 7 = 0, '-infinity'::TIMESTAMP, make_timestamp(i * 987654321987))"},
    {"TimestampS", "TIMESTAMP_S", "make_timestamp(i * 1000000)::TIMESTAMP_S"},
    {"TimestampMs", "TIMESTAMP_MS", "make_timestamp(i * 1001000)::TIMESTAMP_MS"},
    {"TimestampNs", "TIMESTAMP_NS", "make_timestamp_ns(i * 987654321)"},
    {"TimestampTz", "TIMESTAMP WITH TIME ZONE", "make_timestamp(i * 987654321)::TIMESTAMPTZ"},
    {"Interval", "INTERVAL", "to_months((i % 100)::INTEGER) + to_days((i % 40)::INTEGER) - to_microseconds(i * 77)"},
    {"Uuid", "UUID", "md5(i::VARCHAR)::UUID"},
    {"ShortText", "VARCHAR", "repeat('x', (i % 14)::INTEGER)"},
    {"LongText", "VARCHAR", "repeat('a' || i, if(i % 500 = 7, 3000, i % 20)::INTEGER)"},
    {"UnicodeText", "VARCHAR",
     "repeat(if(i % 2 = 0, '🦆ä', 'ß中'), (i % 9)::INTEGER) || chr((i % 200 + 1)::INTEGER)"},
    {"Blob", "BLOB", "unhex(md5(i::VARCHAR)) || unhex(repeat('00ff', (i % 5)::INTEGER))"},
    {"Bit", "BIT", "repeat(if(i % 3 = 0, '1', '011'), (i % 30 + 1)::INTEGER)::BIT"},
    {"Bignum", "BIGNUM", "(if(i % 2 = 0, '-', '') || repeat((i % 9 + 1)::VARCHAR, (i % 60 + 1)::INTEGER))::BIGNUM"},
    {"Json", "JSON", "('{\"a\": ' || i || '}')::JSON"},
    {"EnumOfOneByte", "ENUM('a', 'b''c', '\"')", "(['a', 'b''c', '\"'])[i % 3 + 1]::ENUM('a', 'b''c', '\"')"},
    {"IntegerList", "BIGINT[]", "range(i % 7)"},
    {"ListWithNulls", "BIGINT[]", "list_transform(range(i % 130), x -> if(x % 3 = 0, NULL, x))"},
    {"TextList", "VARCHAR[]", "[NULL, '', 'text ' || i, repeat('long', (i % 40)::INTEGER)]"},
    {"ListOfLists", "BIGINT[][]", "[range(i % 3), NULL, [i, NULL], []]"},
    {"ListOfNothing", "INTEGER[]", "if(i % 2 = 0, [], [NULL, NULL])"},
    {"Struct", "STRUCT(\"a\" INTEGER, \"b c\" VARCHAR, \"d\"\"e\" BIGINT)", "{'a': 42, 'b c': 'k' || i, 'd\"e': i}"},
    {"StructWithNulls", "STRUCT(\"a\" BIGINT, \"b\" VARCHAR[])",
     "{'a': if(i % 2 = 0, NULL, i), 'b': if(i % 3 = 0, NULL, ['x', NULL])}"},
    {"ConstantStruct", "STRUCT(\"a\" INTEGER, \"b\" VARCHAR)", "{'a': 1, 'b': 'the same for all'}"},
    {"StructOfStruct", "STRUCT(\"s\" STRUCT(\"t\" BIGINT, \"u\" INTEGER))", "{'s': {'t': i, 'u': 7}}"},
    {"Map", "MAP(VARCHAR, BIGINT)", "MAP {'k' || i: i, 'none': NULL}"},
    {"MapOfLists", "MAP(BIGINT, VARCHAR[])", "MAP {i: ['a', NULL], i + 1: NULL}"},
    {"Union", "UNION(\"n\" BIGINT, \"t t\" VARCHAR)",
     "if(i % 2 = 0, union_value(n := i)::UNION(n BIGINT, \"t t\" VARCHAR), "
     "('text' || i)::UNION(n BIGINT, \"t t\" VARCHAR))"},
    {"Array", "INTEGER[3]", "[i, NULL, -i]"},
    {"ArrayOfText", "VARCHAR[2]", "['' || i, repeat('y', (i % 30)::INTEGER)]"},
    {"ArrayOfLists", "BIGINT[][2]", "[range(i % 4), NULL]"},
    {"ListOfArrays", "INTEGER[2][]", "[[i, i + 1], NULL]"},
    {"ListOfStructs", "STRUCT(\"a\" BIGINT, \"b\" VARCHAR)[]",
     "[{'a': i, 'b': 'x'}, NULL, {'a': NULL, 'b': 'long enough not to be inlined'}]"},
    {"Nothing", "INTEGER", "NULL"},
};

class DuckDbTypesTest : public DuckDbTest, public ::testing::WithParamInterface<TypeCase> {
 protected:
  // The expression, null where the condition holds.
  static std::string value(const std::string& null_where) {
    return std::string("if(") + null_where + ", NULL, " + GetParam().expression + ")::" + GetParam().type;
  }

  // What the statement says directly is what it says when its rows went through blocks.
  void there_and_back(const std::string& sql, uint32_t partitions) {
    const std::string number = ", (i % " + std::to_string(partitions) + ")::UINTEGER";
    const std::string columns = "i, c0" + (partitions == 1 ? "" : number);
    const Written out = written("SELECT " + columns + " FROM (" + sql + ")", {}, partitions);
    if (HasFailure()) return;
    ASSERT_EQ(out.types, (std::vector<std::string>{"BIGINT", GetParam().type}));
    const Texts direct = texts("SELECT c0::VARCHAR FROM (" + sql + ") ORDER BY i");
    const Texts through = texts("SELECT c1::VARCHAR FROM rows_in('x') ORDER BY c0", {out.input("x")});
    if (HasFailure()) return;
    ASSERT_EQ(direct.size(), out.rows);
    ASSERT_TRUE(direct == through);
  }
};

TEST_P(DuckDbTypesTest, ThereAndBack) {
  for (const char* null_where : {"false", "hash(i) % 4 = 0", "i >= 1000 AND i % 2 = 0"}) {
    for (const int rows : {0, 1, 64, 65, 5000}) {
      for (const uint32_t partitions : {1u, 7u}) {
        SCOPED_TRACE(std::string(null_where) + ", " + std::to_string(rows) + " rows, " + std::to_string(partitions) +
                     " partitions");
        there_and_back("SELECT i, " + value(null_where) + " AS c0 FROM range(" + std::to_string(rows) + ") t(i)",
                       partitions);
        if (HasFailure()) return;
      }
    }
  }
}

TEST_P(DuckDbTypesTest, TheSameRowsAreTheSameBytes) {
  const Written once = written("SELECT " + value("hash(i) % 4 = 0") + " FROM range(3000) t(i)");
  const Written again = written("SELECT * FROM rows_in('x')", {once.input("x")});
  ASSERT_FALSE(once.bytes.empty());
  ASSERT_TRUE(once.bytes == again.bytes);
}

// Out of joins come vectors that point at few values many times.
TEST_P(DuckDbTypesTest, OutOfJoins) {
  const std::string build = "SELECT i AS k, " + value("i = 3") + " AS c0 FROM range(50) t(i)";
  there_and_back("SELECT p.i AS i, b.c0 AS c0 FROM range(3000) p(i) LEFT JOIN (" + build + ") b ON p.i % 60 = b.k", 1);
}

INSTANTIATE_TEST_SUITE_P(All, DuckDbTypesTest, ::testing::ValuesIn(kTypes),
                         [](const auto& info) { return std::string(info.param.name); });

class DuckDbEnumsTest : public DuckDbTest {};

TEST_F(DuckDbEnumsTest, WideEnums) {
  for (const int size : {300, 70000}) {
    std::string type = "ENUM(";
    for (int i = 0; i < size; ++i) type += (i > 0 ? ", 'v" : "'v") + std::to_string(i) + "'";
    type += ")";
    const std::string value = "('v' || (i * 31 % " + std::to_string(size) + "))::" + type;
    const std::string sql = "SELECT " + value + " AS c0 FROM range(3000) t(i)";
    const Written out = written(sql);
    ASSERT_EQ(out.types, std::vector<std::string>{type});
    ASSERT_TRUE(texts("SELECT c0::VARCHAR FROM (" + sql + ")") ==
                texts("SELECT c0::VARCHAR FROM rows_in('x')", {out.input("x")}));
  }
}

TEST_F(DuckDbEnumsTest, TypesThatHaveNoBlocksAreNamed) {
  for (const char* type : {"GEOMETRY", "VARIANT"}) {
    Result<Rows> rows = execute(std::string("SELECT [NULL::") + type + "]");
    ASSERT_EQ(rows.code(), Code::kUnsupported);
    ASSERT_NE(rows.status().message().find(type), std::string::npos) << rows.status().message();
  }
  expect_error(Code::kUnsupported, "SELECT row(1, 2)");
}

}  // namespace
}  // namespace millrace::duckdb::test
