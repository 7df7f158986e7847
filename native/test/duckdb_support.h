// A DuckDB for tests, where there is one: MILLRACE_DUCKDB names it, or npm has installed it.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "duckdb/engine.h"
#include "test/kernels_support.h"

namespace millrace::duckdb::test {

using millrace::test::Bytes;

inline std::string library_path() {
  if (const char* given = std::getenv("MILLRACE_DUCKDB")) return given;
  const std::filesystem::path root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
#if defined(__aarch64__)
  const char* package = "node-bindings-linux-arm64";
#else
  const char* package = "node-bindings-linux-x64";
#endif
  return root / "node_modules" / "@duckdb" / package / "libduckdb.so";
}

using Texts = std::vector<std::optional<std::string>>;

// The rows of a statement, laid down.
struct Written {
  std::vector<std::string> names;
  std::vector<std::string> types;
  uint64_t rows = 0;
  Bytes bytes;
  duckdb::Written at;

  std::span<const uint8_t> partition(size_t p) const {
    return std::span(bytes).subspan(at.offsets[p], at.offsets[p + 1] - at.offsets[p]);
  }
  // All of it, one extent a partition.
  Input input(const std::string& name) const {
    Input input{name, types, {}, at.checksums};
    for (size_t p = 0; p + 1 < at.offsets.size(); ++p) input.extents.push_back(partition(p));
    return input;
  }
  Input input(const std::string& name, size_t p) const { return {name, types, {partition(p)}, {at.checksums[p]}}; }
};

class DuckDbTest : public millrace::test::SeededTest {
 protected:
  void SetUp() override {
    SeededTest::SetUp();
    if (!std::filesystem::exists(library_path())) GTEST_SKIP() << "there is no DuckDB: " << library_path();
    engine_ = open({});
  }

  static std::unique_ptr<Engine> open(EngineOptions options) {
    options.library = library_path();
    Result<std::unique_ptr<Engine>> engine = Engine::open(options);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return engine.ok() ? std::move(*engine) : nullptr;
  }

  Result<Rows> execute(const std::string& sql, const std::vector<Input>& inputs = {}, uint32_t partitions = 1) {
    mismatches_.clear();
    return engine_->execute(sql, inputs, partitions, mismatches_);
  }

  Written written(const std::string& sql, const std::vector<Input>& inputs = {}, uint32_t partitions = 1) {
    Result<Rows> rows = execute(sql, inputs, partitions);
    EXPECT_TRUE(rows.ok()) << sql << ": " << rows.status().message();
    if (!rows.ok()) return {};
    Written result{rows->names, rows->types, rows->rows->rows(), Bytes(rows->rows->bytes()), {}};
    Result<duckdb::Written> at = rows->rows->write(result.bytes);
    EXPECT_TRUE(at.ok()) << at.status().message();
    if (at.ok()) result.at = std::move(*at);
    return result;
  }

  // Of a statement with one column, a VARCHAR.
  Texts texts(const std::string& sql, const std::vector<Input>& inputs = {}) {
    Result<Rows> rows = execute(sql, inputs);
    EXPECT_TRUE(rows.ok()) << sql << ": " << rows.status().message();
    if (!rows.ok()) return {};
    Texts texts;
    for (uint64_t i = 0; i < rows->rows->rows(); ++i) {
      const auto text = rows->rows->text(0, i);
      texts.push_back(text.has_value() ? std::optional<std::string>(*text) : std::nullopt);
    }
    return texts;
  }
  std::string text(const std::string& sql, const std::vector<Input>& inputs = {}) {
    const Texts all = texts(sql, inputs);
    EXPECT_EQ(all.size(), 1u) << sql;
    return all.size() == 1 ? all[0].value_or("null") : "";
  }

  void expect_error(Code code, const std::string& sql, const std::vector<Input>& inputs = {}, uint32_t partitions = 1) {
    Result<Rows> rows = execute(sql, inputs, partitions);
    EXPECT_EQ(code_name(rows.code()), std::string(code_name(code))) << sql << ": " << rows.status().message();
  }

  std::unique_ptr<Engine> engine_;
  std::vector<Mismatch> mismatches_;
};

}  // namespace millrace::duckdb::test
