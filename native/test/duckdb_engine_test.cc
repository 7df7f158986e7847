// Statements: what they read, where their rows go, and how they fail.
#include <algorithm>
#include <thread>

#include "base/crc32c.h"
#include "test/duckdb_support.h"
#include "test/file_support.h"

namespace millrace::duckdb::test {
namespace {

class DuckDbEngineTest : public DuckDbTest {
 protected:
  // As one sum over rows, whatever their order.
  static std::string digest(const std::string& from) {
    return "SELECT count(*) || ' ' || sum(hash(x)::HUGEINT) FROM " + from + " x";
  }
};

TEST_F(DuckDbEngineTest, StatementsWithoutRows) {
  ASSERT_EQ(engine_->version().substr(0, 1), "v");
  for (const char* sql : {"SET threads = 1", "CREATE TABLE t AS SELECT range AS a FROM range(10)",
                          "CREATE VIEW v AS SELECT a FROM t",
                          "INSERT INTO t VALUES (10)", "PRAGMA enable_object_cache"}) {
    ASSERT_TRUE(execute(sql).ok()) << sql;
  }
  ASSERT_EQ(text("SELECT sum(a)::VARCHAR FROM v"), "55");
  const Written none = written("SELECT a FROM v WHERE a > 100");
  ASSERT_EQ(none.rows, 0u);
  ASSERT_TRUE(none.bytes.empty());
  ASSERT_EQ(none.names, std::vector<std::string>{"a"});
}

TEST_F(DuckDbEngineTest, CopyWritesFiles) {
  const millrace::test::TemporaryDirectory folder;
  const std::string path = folder.path() + "/rows.parquet";
  Result<Rows> rows = execute("COPY (SELECT * FROM range(1234)) TO '" + path + "'");
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  ASSERT_EQ(text("SELECT count(*)::VARCHAR FROM '" + path + "'"), "1234");
}

TEST_F(DuckDbEngineTest, ManyPartitionsLoseNoRow) {
  const std::string sql =
      "SELECT i, i::VARCHAR || ' of many' AS s, if(i % 3 = 0, NULL, i * 1.5) AS d, range(i % 4) AS l "
      "FROM range(60000) t(i)";
  const std::string direct = text(digest("(" + sql + ")"));
  for (const uint32_t partitions : {2u, 16u, 1000u, 65536u}) {
    SCOPED_TRACE(partitions);
    const std::string number = "(hash(i) % " + std::to_string(partitions) + ")::UINTEGER";
    const Written out = written("SELECT *, " + number + " FROM (" + sql + ")", {}, partitions);
    ASSERT_EQ(out.rows, 60000u);
    ASSERT_EQ(out.types.size(), 4u);
    ASSERT_EQ(out.at.offsets.size(), partitions + 1u);
    for (size_t p = 0; p < partitions; ++p) {
      ASSERT_EQ(out.at.offsets[p] % kBlockAlignment, 0u);
      if (out.partition(p).empty()) ASSERT_EQ(out.at.checksums[p], 0u);
      else ASSERT_EQ(crc32c(0, out.partition(p).data(), out.partition(p).size()), out.at.checksums[p]);
    }
    ASSERT_EQ(text(digest("rows_in('x')") , {out.input("x")}).substr(0, 6), "60000 ");
    ASSERT_EQ(text(digest("(SELECT c0 i, c1 s, c2 d, c3 l FROM rows_in('x'))"), {out.input("x")}), direct);
    // Every row lies in its partition.
    const uint32_t p = static_cast<uint32_t>(below(std::min(partitions, 16u)));
    const std::string elsewhere = "hash(c0) % " + std::to_string(partitions) + " <> " + std::to_string(p);
    ASSERT_EQ(text("SELECT count(*)::VARCHAR FROM rows_in('x') WHERE " + elsewhere, {out.input("x", p)}), "0");
  }
}

// Rows of small chunks are put together before they are shared out: what comes of it are the bytes that each partition
// would have had alone.
TEST_F(DuckDbEngineTest, PartitionsAreTheSameBytesHoweverTheirRowsCame) {
  for (const uint32_t partitions : {2u, 3u, 70u, 300u, 5000u}) {
    // Chunks of all sizes: the few rows of a join, and whole ones.
    const uint64_t keep = 1 + below(40), seed = below(1000);
    SCOPED_TRACE(std::to_string(partitions) + " partitions, one row of " + std::to_string(keep));
    const std::string number = "(hash(i // 3) % " + std::to_string(partitions) + ")::UINTEGER";
    const std::string rows =
        "SELECT i, if(i % 5 = 0, NULL, repeat('text ' || i, (hash(i) % 6)::INTEGER)) AS s, (i % 128)::TINYINT AS t, "
        "if(i < 20000, 1, if(i % 7 = 0, NULL, i))::HUGEINT AS h, i % 2 = 0 AS b, " + number + " AS p "
        "FROM range(60000) r(i) WHERE i > 50000 OR hash(i + " + std::to_string(seed) + ") % " + std::to_string(keep) +
        " = 0 ORDER BY i";
    const Written out = written(rows, {}, partitions);
    for (int probe = 0; probe < 5; ++probe) {
      const size_t p = below(partitions);
      const Written alone =
          written("SELECT * EXCLUDE (p) FROM (" + rows + ") WHERE p = " + std::to_string(p) + " ORDER BY i");
      ASSERT_TRUE(std::ranges::equal(out.partition(p), alone.bytes)) << "partition " << p;
    }
    ASSERT_EQ(text("SELECT count(*)::VARCHAR FROM rows_in('x')", {out.input("x")}), std::to_string(out.rows));
  }
}

TEST_F(DuckDbEngineTest, OneExtentMayHoldSeveralBlocksAndNone) {
  const Written first = written("SELECT i, 'a' || i FROM range(3000) t(i)");
  const Written second = written("SELECT i, 'b' || i FROM range(3000, 3007) t(i)");
  Bytes both = first.bytes;
  both.insert(both.end(), second.bytes.begin(), second.bytes.end());
  // At an odd address, as bytes from elsewhere may come.
  Bytes odd(1 + both.size());
  std::copy(both.begin(), both.end(), odd.begin() + 1);
  const Input input{"x", first.types, {{}, both, {}, std::span(odd).subspan(1)}, {}};
  ASSERT_EQ(text("SELECT count(*) || ' ' || sum(c0) || ' ' || min(c1) || ' ' || max(c1) FROM rows_in('x')", {input}),
            "6014 " + std::to_string(3007 * 3006) + " a0 b3006");
  ASSERT_EQ(text("SELECT count(*)::VARCHAR FROM rows_in('x')", {{"x", {"INTEGER", "VARCHAR"}, {}, {}}}), "0");
}

TEST_F(DuckDbEngineTest, OrderIsKept) {
  const Written out = written("SELECT i FROM range(300000) t(i) ORDER BY hash(i)");
  ASSERT_EQ(text("SELECT count(*)::VARCHAR FROM (SELECT c0, row_number() OVER () AS n FROM rows_in('x')) a "
                 "JOIN (SELECT i, row_number() OVER (ORDER BY hash(i)) AS n FROM range(300000) t(i)) b "
                 "ON a.n = b.n AND a.c0 = b.i",
                 {out.input("x")}),
            "300000");
}

TEST_F(DuckDbEngineTest, SeveralInputsAndThreads) {
  engine_ = open({.threads = 3});
  std::vector<Input> inputs;
  const Written fact = written("SELECT i, i % 100 AS k, (hash(i) % 8)::UINTEGER FROM range(500000) t(i)", {}, 8);
  const Written dimension = written("SELECT i, 'name ' || i FROM range(100) t(i)");
  ASSERT_EQ(text("SELECT count(*) || ' ' || sum(f.c0) || ' ' || count(DISTINCT d.c1) FROM rows_in('fact') f JOIN "
                 "rows_in('dimension') d ON f.c1 = d.c0",
                 {fact.input("fact"), dimension.input("dimension")}),
            "500000 124999750000 100");
}

TEST_F(DuckDbEngineTest, OnlyTheColumnsAskedForAreRead) {
  const Written out = written("SELECT i::INTEGER, 'text ' || i, i * 2 FROM range(5000) t(i)");
  Written damaged = out;
  // The first end of the strings: behind the header, the first column, and the header of the second.
  const uint64_t at = sizeof(BlockHeader) + 2 * sizeof(NodeHeader) + 5000 * sizeof(int32_t);
  std::memset(damaged.bytes.data() + at, 0xff, 4);
  Input input = damaged.input("x");
  input.checksums.clear();
  ASSERT_EQ(text("SELECT sum(c2)::VARCHAR FROM rows_in('x') WHERE c0 < 4000", {input}), "15996000");
  ASSERT_EQ(text("SELECT count(*)::VARCHAR FROM rows_in('x')", {input}), "5000");
  expect_error(Code::kCorrupt, "SELECT max(c1) FROM rows_in('x')", {input});
  ASSERT_EQ(text("SELECT max(c1) || max(c1) FROM rows_in('x')", {out.input("x")}), "text 999text 999");
}

TEST_F(DuckDbEngineTest, PlansKnowHowManyRowsThereAre) {
  const Written out = written("SELECT i FROM range(4321) t(i)");
  Result<Rows> plan = execute("EXPLAIN SELECT * FROM rows_in('x')", {out.input("x")});
  ASSERT_TRUE(plan.ok());
  ASSERT_NE(plan->rows->text(1, 0)->find("4,321 rows"), std::string::npos) << *plan->rows->text(1, 0);
}

TEST_F(DuckDbEngineTest, ChecksumsAreCompared) {
  Written out = written("SELECT i, (i % 4)::UINTEGER FROM range(5000) t(i)", {}, 4);
  const Written other = written("SELECT 1");
  out.bytes[out.at.offsets[2] + 100] ^= 1;
  out.bytes[out.at.offsets[3] + 64] ^= 0x80;
  expect_error(Code::kChecksumMismatch, "SELECT * FROM rows_in('x')", {other.input("y"), out.input("x")});
  ASSERT_EQ(mismatches_.size(), 2u);
  ASSERT_EQ(mismatches_[0].input, 1u);
  ASSERT_EQ(mismatches_[0].extent, 2u);
  ASSERT_EQ(mismatches_[1].extent, 3u);
}

TEST_F(DuckDbEngineTest, WhatIsWrongIsSaid) {
  expect_error(Code::kSqlFailed, "selec");
  expect_error(Code::kSqlFailed, "SELECT 1; SELECT 2");
  expect_error(Code::kSqlFailed, "SELECT nothing");
  expect_error(Code::kSqlFailed, "SELECT if(i = 90000, error('late'), i) FROM range(100000) t(i)");
  expect_error(Code::kSqlFailed, "SELECT * FROM rows_in('x')");
  const Written out = written("SELECT 1 AS a");
  expect_error(Code::kInvalidArgument, "SELECT 1", {out.input("x"), out.input("x")});
  expect_error(Code::kInvalidArgument, "SELECT 1", {{"x", {}, {}, {}}});
  expect_error(Code::kSqlFailed, "SELECT 1", {{"x", {"NOTHING"}, {}, {}}});
  expect_error(Code::kInvalidArgument, "SELECT 1", {{"x", {"INTEGER), CAST(NULL AS INTEGER"}, {}, {}}});
  // Blocks of other columns.
  expect_error(Code::kCorrupt, "SELECT * FROM rows_in('x')", {{"x", {"BIGINT"}, {out.bytes}, {}}});
  expect_error(Code::kCorrupt, "SELECT * FROM rows_in('x')", {{"x", {"INTEGER", "INTEGER"}, {out.bytes}, {}}});
  expect_error(Code::kCorrupt, "SELECT * FROM rows_in('x')", {{"x", {"VARCHAR"}, {out.bytes}, {}}});
  // Of partitions.
  expect_error(Code::kInvalidArgument, "SELECT 1", {}, 2);
  expect_error(Code::kInvalidArgument, "SELECT 1, 1::BIGINT", {}, 2);
  expect_error(Code::kOutOfRange, "SELECT i, i::UINTEGER FROM range(5000) t(i)", {}, 4999);
  expect_error(Code::kOutOfRange, "SELECT i, if(i = 4000, NULL, 0)::UINTEGER FROM range(5000) t(i)", {}, 2);
  // And still at work.
  ASSERT_EQ(text("SELECT 'fine'"), "fine");
}

TEST_F(DuckDbEngineTest, WriteNeedsItsBytes) {
  Result<Rows> rows = execute("SELECT range FROM range(100)");
  ASSERT_TRUE(rows.ok());
  Bytes small(rows->rows->bytes() - 1);
  ASSERT_EQ(rows->rows->write(small).code(), Code::kOutOfRange);
}

TEST_F(DuckDbEngineTest, Cancel) {
  engine_->cancel();  // nothing to cancel
  for (const char* sql : {"SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 1",  // ends with its first row
                          "SELECT 1::UTINYINT FROM range(1000000000000)"}) {                  // has rows all the time
    std::atomic<bool> done = false;
    std::thread canceller([&] {
      while (!done) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        engine_->cancel();
      }
    });
    expect_error(Code::kCancelled, sql);
    done = true;
    canceller.join();
    ASSERT_EQ(text("SELECT 'fine'"), "fine");
  }
}

TEST_F(DuckDbEngineTest, CloseEndsWhatRuns) {
  std::thread closer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    engine_->close();
  });
  Result<Rows> rows = execute("SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 1");
  ASSERT_TRUE(rows.code() == Code::kCancelled || rows.code() == Code::kClosed) << rows.status().message();
  closer.join();
  expect_error(Code::kClosed, "SELECT 1");
}

TEST_F(DuckDbEngineTest, MemoryIsBounded) {
  const std::string sql =
      "SELECT count(*)::VARCHAR FROM (SELECT hash(i) AS h, i FROM range(3000000) t(i) ORDER BY h LIMIT 2900000)";
  engine_ = open({.memory_bytes = 40 * MiB});
  expect_error(Code::kResourceExhausted, sql);
  ASSERT_EQ(text("SELECT 'fine'"), "fine");
  const millrace::test::TemporaryDirectory folder;
  engine_ = open({.memory_bytes = 40 * MiB, .spill_directory = folder.path()});
  ASSERT_EQ(text(sql), "2900000");
}

TEST_F(DuckDbEngineTest, LibrariesThatAreNone) {
  EngineOptions options{.library = "/nowhere/libduckdb.so"};
  ASSERT_EQ(Engine::open(options).code(), Code::kUnsupported);
  options.library = "libc.so.6";
  ASSERT_EQ(Engine::open(options).code(), Code::kUnsupported);
}

TEST_F(DuckDbEngineTest, OptionsThatAreNone) {
  EngineOptions options{.library = library_path(), .threads = 0};
  ASSERT_EQ(Engine::open(options).code(), Code::kInvalidArgument);
}

// Whatever the bytes are, the statement ends with its rows or an error.
TEST_F(DuckDbEngineTest, DamagedBlocksAreHarmless) {
  const std::vector<std::string> columns = {
      "i % 3 = 0", "i::INTEGER", "if(i % 5 = 0, NULL, 'some text that is long ' || i)", "'ä' || i", "i::DECIMAL(38,2)",
      "TIME '10:00:00' + to_seconds(i)", "'10:00:00+01:00'::TIMETZ", "make_timestamp(i)::TIMESTAMPTZ",
      "DATE '2000-01-01' + i::INTEGER",
      "(['a', 'b'])[i % 2 + 1]::ENUM('a', 'b')", "[i, NULL]", "['x' || i, repeat('y', 20)]",
      "{'a': i, 'b': [{'c': 'z'}]}",
      "MAP {i: 'v'}", "if(i % 2 = 0, union_value(n := i)::UNION(n BIGINT, t VARCHAR), 't'::UNION(n BIGINT, t VARCHAR))",
      "[i, i]::BIGINT[2]", "'0101'::BIT", "(i * 99999999999)::BIGNUM", "uuid()", "INTERVAL 3 DAY",
      "TIME_NS '10:00:00.123456789'"};
  std::string sql = "SELECT ", use = "SELECT ";
  for (size_t c = 0; c < columns.size(); ++c) {
    const std::string comma = c > 0 ? ", " : "", name = "c" + std::to_string(c);
    sql += comma + columns[c];
    use += comma + "max(" + name + "::VARCHAR), count(DISTINCT " + name + ")";
  }
  const Written out = written(sql + " FROM range(70) t(i)");
  uint64_t fine = 0, corrupt = 0;
  for (int round = 0; round < 400; ++round) {
    Bytes bytes = out.bytes;
    const uint64_t changes = 1 + below(3);
    for (uint64_t change = 0; change < changes; ++change) {
      uint8_t& byte = bytes[below(bytes.size())];
      byte = below(2) == 0 ? static_cast<uint8_t>(byte ^ 1 << below(8)) : static_cast<uint8_t>(random_());
    }
    if (below(20) == 0) bytes.resize(below(bytes.size()));
    Result<Rows> rows = execute(use + " FROM rows_in('x')", {{"x", out.types, {bytes}, {}}});
    if (rows.ok()) ++fine;
    else if (rows.code() == Code::kCorrupt) ++corrupt;
    else ASSERT_EQ(rows.code(), Code::kSqlFailed) << rows.status().message();
    ASSERT_EQ(rows.status().message().find("INTERNAL"), std::string::npos) << rows.status().message();
  }
  ASSERT_GT(fine, 0u);
  ASSERT_GT(corrupt, 0u);
}

}  // namespace
}  // namespace millrace::duckdb::test
