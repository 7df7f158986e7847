// Rows into DuckDB and out of it, medians of rounds that take turns: blocks read in place beside DuckDB's own zero-copy
// Arrow scan and uncompressed Parquet in memory; partitions written as blocks beside COPY ... PARTITION_BY.
//
//   duckdb_bench LIBRARY [--json] [--rows N] [--rounds N] [--threads N]
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "duckdb/engine.h"

namespace millrace::duckdb {
namespace {

constexpr uint64_t kRowBytes = 20;
constexpr uint32_t kPartitions = 16;

struct Query {
  const char* name;
  const char* select;
  const char* group;
  std::string over(const std::string& table) const { return std::string(select) + " FROM " + table + group; }
};
constexpr Query kQueries[] = {{"sum", "SELECT sum(c0), sum(c1), sum(c2)", ""},
                              {"group by", "SELECT c2 % 10 AS g, sum(c1)", " GROUP BY g"}};

[[noreturn]] void die(const std::string& message) {
  std::fprintf(stderr, "duckdb_bench: %s\n", message.c_str());
  std::exit(1);
}

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Of the Arrow C data interface.
struct ArrowSchema {
  const char *format, *name, *metadata;
  int64_t flags, child_count;
  ArrowSchema** children;
  ArrowSchema* dictionary;
  void (*release)(ArrowSchema*);
  void* private_data;
};
struct ArrowArray {
  int64_t length, null_count, offset, buffer_count, child_count;
  const void** buffers;
  ArrowArray** children;
  ArrowArray* dictionary;
  void (*release)(ArrowArray*);
  void* private_data;
};
struct ArrowStream {
  int (*get_schema)(ArrowStream*, ArrowSchema*);
  int (*get_next)(ArrowStream*, ArrowArray*);
  const char* (*get_last_error)(ArrowStream*);
  void (*release)(ArrowStream*);
  void* private_data;
};

// Three columns, BIGINT, DOUBLE, INTEGER, as Arrow arrays.
class ArrowRows {
 public:
  explicit ArrowRows(const Block& block) : block_(block) {
    stream_.get_schema = [](ArrowStream*, ArrowSchema* schema) {
      static const char* const formats[] = {"l", "g", "i"};
      static const char* const names[] = {"c0", "c1", "c2"};
      *schema = {.format = "+s", .name = "", .child_count = 3, .children = new ArrowSchema*[3]};
      for (int i = 0; i < 3; ++i) {
        schema->children[i] = new ArrowSchema{.format = formats[i], .name = names[i]};
        schema->children[i]->release = [](ArrowSchema* child) { child->release = nullptr; };
      }
      schema->release = [](ArrowSchema* whole) {
        for (int i = 0; i < 3; ++i) delete whole->children[i];
        delete[] whole->children;
        whole->release = nullptr;
      };
      return 0;
    };
    stream_.get_next = [](ArrowStream* stream, ArrowArray* array) {
      auto* self = static_cast<ArrowRows*>(stream->private_data);
      const uint64_t first = self->at_, count = std::min<uint64_t>(60 * kChunkRows, self->block_.rows - first);
      self->at_ += count;
      *array = {};
      if (count == 0) return 0;
      array->length = static_cast<int64_t>(count);
      array->buffer_count = 1;
      array->buffers = new const void*[1]{nullptr};
      array->child_count = 3;
      array->children = new ArrowArray*[3];
      for (int i = 0; i < 3; ++i) {
        const BlockColumn& column = self->block_.columns[i];
        array->children[i] = new ArrowArray{.length = static_cast<int64_t>(count), .buffer_count = 2};
        array->children[i]->buffers = new const void*[2]{nullptr, column.data + first * column.type->width};
        array->children[i]->release = [](ArrowArray* child) { child->release = nullptr; };
      }
      array->release = [](ArrowArray* whole) {
        for (int i = 0; i < 3; ++i) {
          delete[] whole->children[i]->buffers;
          delete whole->children[i];
        }
        delete[] whole->children;
        delete[] whole->buffers;
        whole->release = nullptr;
      };
      return 0;
    };
    stream_.get_last_error = [](ArrowStream*) { return ""; };
    stream_.release = [](ArrowStream* stream) { stream->release = nullptr; };
    stream_.private_data = this;
  }
  ArrowStream* stream() { return &stream_; }

 private:
  const Block& block_;
  uint64_t at_ = 0;
  ArrowStream stream_{};
};

// A DuckDB without anything of ours.
class Plain {
 public:
  Plain(const Library& library, uint32_t threads) : library_(library) {
    Config config = nullptr;
    library.create_config(&config);
    library.set_config(config, "threads", std::to_string(threads).c_str());
    if (library.open_ext(nullptr, &database_, config, nullptr) != kSuccess) die("DuckDB does not open");
    library.destroy_config(&config);
    if (library.connect(database_, &connection_) != kSuccess) die("DuckDB gives no connection");
  }
  ~Plain() {
    library_.disconnect(&connection_);
    library_.close(&database_);
  }
  Connection connection() const { return connection_; }
  void run(const std::string& sql) {
    Prepared prepared = nullptr;
    if (library_.prepare(connection_, sql.c_str(), &prepared) != kSuccess) die(library_.prepare_error(prepared));
    Pending pending = nullptr;
    if (library_.pending_prepared_streaming(prepared, &pending) != kSuccess) die(library_.pending_error(pending));
    QueryResult result;
    if (library_.execute_pending(pending, &result) != kSuccess) die(library_.result_error(&result));
    while (Chunk chunk = library_.fetch_chunk(result)) library_.destroy_data_chunk(&chunk);
    library_.destroy_result(&result);
    library_.destroy_pending(&pending);
    library_.destroy_prepare(&prepared);
  }

 private:
  const Library& library_;
  Database database_ = nullptr;
  Connection connection_ = nullptr;
};

struct Options {
  std::string library;
  bool json = false;
  uint64_t rows = 8'000'000;
  int rounds = 7;
  uint32_t threads = 1;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options) {
    Result<std::unique_ptr<Engine>> engine = Engine::open({.library = options.library, .threads = options.threads});
    if (!engine.ok()) die(engine.status().message());
    engine_ = std::move(*engine);
    plain_ = std::make_unique<Plain>(Library::loaded(), options.threads);
    const std::string table =
        "CREATE TABLE t AS SELECT (hash(range) // 1024)::BIGINT AS c0, range * 0.5::DOUBLE AS c1, "
        "(hash(range) % 1000)::INTEGER AS c2 FROM range(" + std::to_string(options.rows) + ")";
    (void)execute(table, {}, 1);
    plain_->run(table);
    Rows result = execute("SELECT * FROM t", {}, 1);
    types_ = result.types;
    bytes_.resize(result.rows->bytes());
    if (!result.rows->write(bytes_).ok()) die("the rows cannot be written");
    column_types_ = result.rows->types();
    if (!open_blocks(bytes_, column_types_, blocks_).ok() || blocks_.size() != 1) die("the rows are not one block");
    parquet_ = folder_ + "/rows.parquet";
    plain_->run("COPY t TO '" + parquet_ + "' (FORMAT parquet, COMPRESSION uncompressed)");
    partition_memory_.resize(bytes_.size() + kPartitions * 64 * KiB);
  }
  ~Bench() { std::filesystem::remove_all(folder_); }

  void run() {
    for (int round = 0; round <= options_.rounds; ++round) {
      for (const Query& query : kQueries) {
        const std::string name = query.name;
        measure(round, name + ", rows_in", [&] { (void)execute(query.over("rows_in('x')"), {input()}, 1); });
        measure(round, name + ", arrow_scan", [&] { arrow(query.over("arrow_rows")); });
        measure(round, name + ", Parquet", [&] { plain_->run(query.over("'" + parquet_ + "'")); });
      }
      measure(round, "16 partitions, execute and write", [&] {
        Rows rows = execute("SELECT c0, c1, c2, (hash(c0) % 16)::UINTEGER FROM t", {}, kPartitions);
        if (!rows.rows->write(partition_memory_).ok()) die("the partitions cannot be written");
      });
      measure(round, "16 partitions, PARTITION_BY", [&] {
        plain_->run("COPY (SELECT *, hash(c0) % 16 AS p FROM t) TO '" + folder_ +
                    "/parts' (FORMAT parquet, COMPRESSION uncompressed, PARTITION_BY p, OVERWRITE)");
      });
      measure(round, "1 partition, execute and write", [&] {
        Rows rows = execute("SELECT c0, c1, c2 FROM t", {}, 1);
        if (!rows.rows->write(partition_memory_).ok()) die("the rows cannot be written");
      });
      measure(round, "the same rows, fetched and dropped", [&] { plain_->run("SELECT c0, c1, c2 FROM t"); });
      measure(round, "partition numbers too, fetched and dropped",
              [&] { plain_->run("SELECT c0, c1, c2, (hash(c0) % 16)::UINTEGER FROM t"); });
    }
  }

  void print() const {
    const double bytes = static_cast<double>(options_.rows * kRowBytes);
    const auto rows = static_cast<unsigned long long>(options_.rows);
    const auto row_bytes = static_cast<unsigned long long>(kRowBytes);
    if (options_.json) {
      std::printf("{\"rows\":%llu,\"rowBytes\":%llu,\"rounds\":%d,\"threads\":%u,\"seconds\":{",
                  rows, row_bytes, options_.rounds, options_.threads);
      for (size_t i = 0; i < rows_.size(); ++i) {
        std::printf("%s\"%s\":%.6f", i == 0 ? "" : ",", rows_[i].name.c_str(), median(rows_[i].seconds));
      }
      std::printf("}}\n");
      return;
    }
    std::printf("%llu rows of %llu bytes, medians of %d rounds, %u threads\n", rows, row_bytes, options_.rounds,
                options_.threads);
    for (const Row& row : rows_) {
      const double seconds = median(row.seconds);
      std::printf("%-44s %8.1f ms %8.2f GB/s\n", row.name.c_str(), seconds * 1e3, bytes / seconds / 1e9);
    }
    for (const Query& query : kQueries) {
      const std::string text(query.name);
      std::printf("%-44s %8.2f x arrow_scan %8.2f x Parquet\n", (text + ", rows_in takes").c_str(),
                  of(text + ", rows_in") / of(text + ", arrow_scan"), of(text + ", rows_in") / of(text + ", Parquet"));
    }
    std::printf("%-44s %8.2f x PARTITION_BY\n", "16 partitions take",
                of("16 partitions, execute and write") / of("16 partitions, PARTITION_BY"));
  }

 private:
  struct Row {
    std::string name;
    std::vector<double> seconds;
  };

  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }
  double of(const std::string& name) const {
    for (const Row& row : rows_) {
      if (row.name == name) return median(row.seconds);
    }
    die("nothing was measured of " + name);
  }

  // The first round warms up.
  void measure(int round, const std::string& name, const std::function<void()>& body) {
    const double start = seconds_now();
    body();
    const double seconds = seconds_now() - start;
    if (round == 0) {
      rows_.push_back({name, {}});
      return;
    }
    for (Row& row : rows_) {
      if (row.name == name) row.seconds.push_back(seconds);
    }
  }

  Input input() const { return {"x", types_, {bytes_}, {}}; }

  Rows execute(const std::string& sql, const std::vector<Input>& inputs, uint32_t partitions) {
    std::vector<Mismatch> mismatches;
    Result<Rows> rows = engine_->execute(sql, inputs, partitions, mismatches);
    if (!rows.ok()) die(rows.status().message());
    return std::move(*rows);
  }

  void arrow(const std::string& sql) {
    using Scan = State (*)(Connection, const char*, ArrowStream*);
    void* library = dlopen(options_.library.c_str(), RTLD_NOW | RTLD_LOCAL);
    const auto scan = reinterpret_cast<Scan>(dlsym(library, "duckdb_arrow_scan"));
    if (scan == nullptr) die("this DuckDB has no duckdb_arrow_scan");
    ArrowRows rows(blocks_[0]);
    if (scan(plain_->connection(), "arrow_rows", rows.stream()) != kSuccess) die("duckdb_arrow_scan fails");
    plain_->run(sql);
    plain_->run("DROP VIEW arrow_rows");
    dlclose(library);
  }

  const Options options_;
  const std::string folder_ = [] {
    std::string name = "/dev/shm/millrace-duckdb-bench-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) die("no folder in /dev/shm");
    return name;
  }();
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Plain> plain_;
  std::vector<std::string> types_;
  std::vector<ColumnType> column_types_;
  std::vector<uint8_t> bytes_;
  std::vector<uint8_t> partition_memory_;
  std::vector<Block> blocks_;
  std::string parquet_;
  std::vector<Row> rows_;
};

}  // namespace
}  // namespace millrace::duckdb

int main(int argc, char** argv) {
  millrace::duckdb::Options options;
  for (int i = 1; i < argc; ++i) {
    const auto value = [&]() -> uint64_t {
      return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0;
    };
    if (std::strcmp(argv[i], "--json") == 0) options.json = true;
    else if (std::strcmp(argv[i], "--rows") == 0) options.rows = value();
    else if (std::strcmp(argv[i], "--rounds") == 0) options.rounds = static_cast<int>(value());
    else if (std::strcmp(argv[i], "--threads") == 0) options.threads = static_cast<uint32_t>(value());
    else options.library = argv[i];
  }
  if (options.library.empty() || options.rows == 0 || options.rounds <= 0 || options.threads == 0) {
    std::fprintf(stderr, "usage: duckdb_bench LIBRARY [--json] [--rows N] [--rounds N] [--threads N]\n");
    return 2;
  }
  millrace::duckdb::Bench bench(options);
  bench.run();
  bench.print();
  return 0;
}
