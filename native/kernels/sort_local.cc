#include "kernels/sort_local.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "kernels/gensort.h"
#include "kernels/partition.h"
#include "kernels/sort.h"

namespace millrace {
namespace {

constexpr uint64_t kSplitRecords = 320'000;
constexpr uint64_t kRecordsMax = 10'000'000'000;
constexpr uint32_t kThreadsMax = 1024;
constexpr uint32_t kSplitsMax = 65536;
constexpr uint64_t kSampleKeysPerPartition = 256;
constexpr uint64_t kSampleKeysMin = 16'384;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs task(thread, index) for every index below `tasks`, each thread taking the next that is free, and
// returns the first failure.
Status run_tasks(uint32_t threads, uint64_t tasks, const std::function<Status(uint32_t, uint64_t)>& task) {
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  Status failure;
  const auto work = [&](uint32_t thread) {
    for (uint64_t index = next++; index < tasks; index = next++) {
      Status status = task(thread, index);
      if (status.ok()) continue;
      const std::lock_guard<std::mutex> lock(mutex);
      if (failure.ok()) failure = std::move(status);
      next = tasks;
    }
  };
  std::vector<std::thread> others;
  try {
    for (uint32_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  } catch (const std::system_error&) {
    // The system gives no more threads: those that exist do the work.
  }
  work(0);
  for (std::thread& other : others) other.join();
  return failure;
}

}  // namespace

Result<SortLocalReport> sort_local(const SortLocalOptions& options) {
  if (options.records > kRecordsMax) {
    return Status(Code::kInvalidArgument,
                  "at most " + std::to_string(kRecordsMax) + " records can be sorted");
  }
  if (options.threads < 1 || options.threads > kThreadsMax) {
    return Status(Code::kInvalidArgument, "1 to " + std::to_string(kThreadsMax) + " threads can be used");
  }
  if (options.partitions < 1 || options.partitions > limits::kPartitionsMax || options.splits > kSplitsMax) {
    return Status(Code::kInvalidArgument, "the number of partitions or splits is out of range");
  }
  const RecordLayout layout = kGensortLayout;
  const uint64_t records = options.records, bytes = records * layout.record_bytes;
  const uint32_t threads = options.threads, partitions = options.partitions;
  SortLocalReport report;
  uint64_t splits = options.splits;
  if (splits == 0)
    splits = std::clamp<uint64_t>((records + kSplitRecords - 1) / kSplitRecords, threads, kSplitsMax);
  splits = std::clamp<uint64_t>(splits, 1, std::max<uint64_t>(1, records));
  report.splits = static_cast<uint32_t>(splits);
  const auto split_first = [&](uint64_t split) {
    return records / splits * split + std::min(split, records % splits);
  };

  // `exchange` takes the place of the store; the output reuses the input's memory, which is dead by then.
  double start = seconds_now();
  Scratch memory;
  if (Status status = memory.reserve(2 * bytes); !status.ok()) return status;
  auto* input = memory.take<uint8_t>(bytes);
  auto* exchange = memory.take<uint8_t>(bytes);
  std::vector<Scratch> scratches(threads);
  constexpr uint64_t kTouchBytes = 32 * MiB;
  Status status =
      run_tasks(threads, 2 * ((bytes + kTouchBytes - 1) / kTouchBytes), [&](uint32_t, uint64_t index) {
        const uint64_t at = index / 2 * kTouchBytes;
        std::memset((index % 2 == 0 ? input : exchange) + at, 0, std::min(kTouchBytes, bytes - at));
        return Status();
      });
  report.setup_seconds = seconds_now() - start;
  if (!status.ok()) return status;

  start = seconds_now();
  status = run_tasks(threads, splits, [&](uint32_t, uint64_t split) {
    const uint64_t first = split_first(split);
    generate_records(first, split_first(split + 1) - first, input + first * layout.record_bytes,
                     options.skewed ? Skew::kSkewed : Skew::kUniform);
    return Status();
  });
  if (!status.ok()) return status;
  report.input_seconds = seconds_now() - start;

  start = seconds_now();
  std::vector<RecordsSummary> inputs(splits);
  status = run_tasks(threads, splits, [&](uint32_t, uint64_t split) {
    const uint64_t first = split_first(split) * layout.record_bytes,
                   end = split_first(split + 1) * layout.record_bytes;
    Result<RecordsSummary> summary = check_records(layout, {input + first, end - first}, CheckOrder::kNo);
    if (summary.ok()) inputs[split] = std::move(*summary);
    return summary.status();
  });
  if (!status.ok()) return status;
  for (const RecordsSummary& summary : inputs) report.input_checksum.add(summary.checksum);
  report.check_seconds = seconds_now() - start;

  start = seconds_now();
  Result<std::vector<uint8_t>> samples =
      sample_keys(layout, {input, bytes}, std::max(kSampleKeysMin, partitions * kSampleKeysPerPartition), 1);
  if (!samples.ok()) return samples.status();
  Result<Splitters> splitters = Splitters::choose(layout, *samples, partitions);
  if (!splitters.ok()) return splitters.status();
  std::vector<PartitionOutput> outputs(splits);
  status = run_tasks(threads, splits, [&](uint32_t thread, uint64_t split) {
    const uint64_t first = split_first(split) * layout.record_bytes,
                   end = split_first(split + 1) * layout.record_bytes;
    Result<PartitionOutput> output = partition_records(layout, {input + first, end - first}, *splitters,
                                                       {exchange + first, end - first}, scratches[thread]);
    if (output.ok()) outputs[split] = std::move(*output);
    return output.status();
  });
  if (!status.ok()) return status;
  report.map_seconds = seconds_now() - start;

  start = seconds_now();
  std::vector<uint64_t> offsets(partitions + 1, 0);
  uint64_t largest = 0;
  for (uint32_t r = 0; r < partitions; ++r) {
    uint64_t size = 0;
    for (const PartitionOutput& output : outputs) size += output.offsets[r + 1] - output.offsets[r];
    offsets[r + 1] = offsets[r] + size;
    largest = std::max(largest, size);
  }
  if (bytes != 0)
    report.partition_max_over_mean = static_cast<double>(largest) * partitions / static_cast<double>(bytes);
  status = run_tasks(threads, partitions, [&](uint32_t thread, uint64_t r) {
    std::vector<RecordExtent> extents(splits);
    for (uint64_t split = 0; split < splits; ++split) {
      const PartitionOutput& output = outputs[split];
      const uint8_t* first = exchange + split_first(split) * layout.record_bytes + output.offsets[r];
      extents[split] = {{first, output.offsets[r + 1] - output.offsets[r]}, output.checksums[r]};
    }
    const std::span<uint8_t> out{input + offsets[r], offsets[r + 1] - offsets[r]};
    return sort_records(layout, extents, out, scratches[thread]).status();
  });
  if (!status.ok()) return status;
  report.reduce_seconds = seconds_now() - start;

  start = seconds_now();
  std::vector<RecordsSummary> summaries(partitions);
  status = run_tasks(threads, partitions, [&](uint32_t, uint64_t r) {
    Result<RecordsSummary> summary =
        check_records(layout, {input + offsets[r], offsets[r + 1] - offsets[r]}, CheckOrder::kYes);
    if (summary.ok()) summaries[r] = std::move(*summary);
    return summary.status();
  });
  if (!status.ok()) return status;
  for (const RecordsSummary& summary : summaries) report.output.append(summary);
  report.check_seconds += seconds_now() - start;

  report.total_seconds = report.input_seconds + report.map_seconds + report.reduce_seconds;
  report.valid = report.output.count == records && report.output.checksum == report.input_checksum &&
                 report.output.unordered == 0;
  return report;
}

}  // namespace millrace
