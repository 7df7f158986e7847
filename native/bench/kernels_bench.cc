// One thread, medians: each record kernel as millions of records a second and as a multiple of the time that
// memcpy takes for the same bytes, beside the targets of TARGETS.md.
//
//   kernels_bench [--json] [--records N] [--rounds N]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "base/crc32c.h"
#include "base/units.h"
#include "kernels/check.h"
#include "kernels/gensort.h"
#include "kernels/merge.h"
#include "kernels/partition.h"
#include "kernels/scratch.h"
#include "kernels/sort.h"

namespace millrace {
namespace {

constexpr uint64_t kRecordBytes = kGensortRecordBytes;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

[[noreturn]] void die(const std::string& message) {
  std::fprintf(stderr, "kernels_bench: %s\n", message.c_str());
  std::exit(1);
}

void require(const Status& status) {
  if (!status.ok()) die(status.message());
}

struct HotCrc {
  size_t bytes;
  double nanoseconds;
};

struct Row {
  std::string name;
  uint64_t bytes;
  double seconds;
  double times_memcpy;
  double target;  // at most this multiple of memcpy; 0 where TARGETS.md sets none
};

class Bench {
 public:
  Bench(uint64_t records, int rounds) : records_(records), rounds_(rounds) {
    require(memory_.reserve(3 * bytes() + 4 * KiB));
    input_ = memory_.take<uint8_t>(bytes());
    output_ = memory_.take<uint8_t>(bytes());
    third_ = memory_.take<uint8_t>(bytes());
    std::memset(output_, 1, bytes());
    std::memset(third_, 1, bytes());
    generate_records(0, records_, input_, Skew::kUniform);
  }

  void run() {
    measure("memcpy", bytes(), 0, [&] { std::memcpy(output_, input_, bytes()); });
    measure("generate", bytes(), 0, [&] { generate_records(0, records_, third_, Skew::kUniform); });
    measure("crc32c from memory", bytes(), 1, [&] { sink_ += crc32c(0, input_, bytes()); });
    measure("copy_crc32c", bytes(), 1 / 0.9, [&] { sink_ += copy_crc32c(output_, input_, bytes(), 0); });
    measure("checksum of records", bytes(), 0, [&] { check(input_, bytes(), CheckOrder::kNo); });
    measure("check of records", bytes(), 0, [&] { check(input_, bytes(), CheckOrder::kYes); });
    for (const char* kind : {"uniform", "skewed"}) {
      const Skew skew = std::strcmp(kind, "skewed") == 0 ? Skew::kSkewed : Skew::kUniform;
      generate_records(0, records_, input_, skew);
      Result<std::vector<uint8_t>> samples = sample_keys(kGensortLayout, {input_, bytes()}, 100'000, 1);
      require(samples.status());
      for (uint32_t partitions : {16u, 64u, 256u, 1024u, 4096u}) {
        Result<Splitters> splitters = Splitters::choose(kGensortLayout, *samples, partitions);
        require(splitters.status());
        measure("partition R=" + std::to_string(partitions) + " " + kind, bytes(), 3.5, [&] {
          require(
              partition_records(kGensortLayout, {input_, bytes()}, *splitters, {output_, bytes()}, scratch_)
                  .status());
        });
      }
      const RecordExtent plain{{input_, bytes()}, {}};
      const RecordExtent checked{{input_, bytes()}, crc32c(0, input_, bytes())};
      measure(std::string("sort ") + kind, bytes(), 6, [&] {
        require(sort_records(kGensortLayout, {&plain, 1}, {output_, bytes()}, scratch_).status());
      });
      measure(std::string("sort, CRC32C verified ") + kind, bytes(), 6, [&] {
        require(sort_records(kGensortLayout, {&checked, 1}, {output_, bytes()}, scratch_).status());
      });
      for (uint64_t runs : {8, 64, 1024}) merge(runs, kind);
    }
    crc_of_hot_blocks();
  }

  void print(bool json) const {
    if (json) {
      std::printf("{\"records\":%llu,\"rounds\":%d,\"simd\":\"%s\",\"kernels\":[",
                  static_cast<unsigned long long>(records_), rounds_, simd_level_name(simd_level()));
      for (size_t i = 0; i < rows_.size(); ++i) {
        const Row& row = rows_[i];
        std::printf(
            "%s{\"name\":\"%s\",\"bytes\":%llu,\"seconds\":%.6f,\"records_per_second\":%.0f,\"times_memcpy\":"
            "%.3f,\"target\":%s}",
            i == 0 ? "" : ",", row.name.c_str(), static_cast<unsigned long long>(row.bytes), row.seconds,
            static_cast<double>(row.bytes) / kRecordBytes / row.seconds, row.times_memcpy,
            row.target == 0 ? "null" : std::to_string(row.target).c_str());
      }
      std::printf("],\"crc32c_hot\":[");
      for (size_t i = 0; i < hot_.size(); ++i) {
        std::printf("%s{\"bytes\":%zu,\"nanoseconds\":%.2f}", i == 0 ? "" : ",", hot_[i].bytes,
                    hot_[i].nanoseconds);
      }
      std::printf("]}\n");
      return;
    }
    std::printf("%llu records of 100 bytes, %d rounds, %s\n", static_cast<unsigned long long>(records_),
                rounds_, simd_level_name(simd_level()));
    std::printf("%-34s %12s %8s %10s %8s\n", "kernel", "M records/s", "GB/s", "x memcpy", "target");
    for (const Row& row : rows_) {
      const double rate = static_cast<double>(row.bytes) / row.seconds;
      std::printf("%-34s %12.1f %8.2f %10.2f ", row.name.c_str(), rate / kRecordBytes / 1e6, rate / 1e9,
                  row.times_memcpy);
      if (row.target == 0) {
        std::printf("%8s\n", "-");
      } else {
        std::printf("%8.2f %s\n", row.target, row.times_memcpy <= row.target ? "met" : "MISSED");
      }
    }
    for (const HotCrc& hot : hot_) {
      std::printf("crc32c of %6zu bytes in cache: %8.1f ns %6.1f GB/s\n", hot.bytes, hot.nanoseconds,
                  static_cast<double>(hot.bytes) / hot.nanoseconds);
    }
  }

 private:
  uint64_t bytes() const { return records_ * kRecordBytes; }

  // memcpy is measured in turn with the kernel, so that both see the same neighbours on the machine.
  void measure(const std::string& name, uint64_t bytes, double target, const std::function<void()>& kernel) {
    kernel();
    std::vector<double> times, copies;
    for (int round = 0; round < rounds_; ++round) {
      double start = seconds_now();
      std::memcpy(third_, input_, bytes);
      copies.push_back(seconds_now() - start);
      start = seconds_now();
      kernel();
      times.push_back(seconds_now() - start);
    }
    rows_.push_back({name, bytes, median(times), median(times) / median(copies), target});
  }

  void check(const uint8_t* records, uint64_t bytes, CheckOrder order) {
    Result<RecordsSummary> summary = check_records(kGensortLayout, {records, bytes}, order);
    require(summary.status());
    sink_ += static_cast<uint32_t>(summary->checksum.low);
  }

  void merge(uint64_t runs, const char* kind) {
    std::vector<std::span<const uint8_t>> sorted;
    for (uint64_t run = 0; run < runs; ++run) {
      const uint64_t first = records_ * run / runs * kRecordBytes,
                     end = records_ * (run + 1) / runs * kRecordBytes;
      const RecordExtent extent{{input_ + first, end - first}, {}};
      require(sort_records(kGensortLayout, {&extent, 1}, {third_ + first, end - first}, scratch_).status());
      sorted.emplace_back(third_ + first, end - first);
    }
    std::swap(input_, third_);  // measure() copies over third_
    measure("merge K=" + std::to_string(runs) + " " + kind, bytes(), runs == 64 ? 6.5 : 0,
            [&] { require(merge_records(kGensortLayout, sorted, {output_, bytes()}, scratch_).status()); });
    std::swap(input_, third_);
  }

  void crc_of_hot_blocks() {
    for (size_t block : {24, 64, 100, 200, 1024, 16 * 1024}) {
      const uint64_t repeats = std::max<uint64_t>(1, 256 * MiB / block / 16);
      std::vector<double> times;
      for (int round = 0; round < rounds_; ++round) {
        const double start = seconds_now();
        // The seed depends on the result before, so that blocks do not overlap: latency, as a reader sees it.
        for (uint64_t i = 0; i < repeats; ++i) sink_ = crc32c(sink_, input_ + (i % 16), block);
        times.push_back(seconds_now() - start);
      }
      hot_.push_back({block, median(times) / static_cast<double>(repeats) * 1e9});
    }
  }

  const uint64_t records_;
  const int rounds_;
  Scratch memory_;
  Scratch scratch_;
  uint8_t* input_ = nullptr;
  uint8_t* output_ = nullptr;
  uint8_t* third_ = nullptr;
  uint32_t sink_ = 0;
  std::vector<Row> rows_;
  std::vector<HotCrc> hot_;
};

int bench_main(int argc, char** argv) {
  bool json = false;
  uint64_t records = 4'000'000;
  int rounds = 5;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--json") {
      json = true;
    } else if (argument == "--records" && i + 1 < argc) {
      records = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--rounds" && i + 1 < argc) {
      rounds = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: kernels_bench [--json] [--records N] [--rounds N]\n");
      return 2;
    }
  }
  if (records < 10'000 || records > 100'000'000 || rounds < 1 || rounds > 1000) {
    std::fprintf(stderr, "kernels_bench: 10,000 to 100,000,000 records, 1 to 1000 rounds\n");
    return 2;
  }
  Bench bench(records, rounds);
  bench.run();
  bench.print(json);
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::bench_main(argc, argv); }
