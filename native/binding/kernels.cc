#include "binding/kernels.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/crc32c.h"
#include "base/status.h"
#include "binding/convert.h"
#include "binding/held_bytes.h"
#include "kernels/check.h"
#include "kernels/gensort.h"
#include "kernels/merge.h"
#include "kernels/partition.h"
#include "kernels/scratch_pool.h"
#include "kernels/sort.h"
#include "kernels/sort_local.h"
#include "kernels/splitters.h"
#include "kernels/sum.h"

namespace millrace {
namespace {

constexpr uint64_t kSafeIntegerMax = (uint64_t{1} << 53) - 1;
constexpr uint64_t kPeekBytesMax = 64 * 1024;

ScratchPool& scratch_pool() {
  static auto* pool = new ScratchPool();  // outlives every work thread
  return *pool;
}

using binding::Access;
using binding::byte_argument;
using binding::byte_array;
using binding::ByteArgument;
using binding::bytes_of;
using binding::HoldingWork;
using binding::to_error;

[[noreturn]] void fail(Napi::Env env, const std::string& message) {
  throw to_error(env, Status(Code::kInvalidArgument, message));
}

uint64_t integer(Napi::Env env, const Napi::Value& value, const char* name, uint64_t max) {
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0 && number <= static_cast<double>(max) && number == std::floor(number))) {
    fail(env, std::string(name) + " must be an integer from 0 to " + std::to_string(max));
  }
  return static_cast<uint64_t>(number);
}

bool boolean(Napi::Env env, const Napi::Value& value, const char* name) {
  if (!value.IsBoolean()) fail(env, std::string(name) + " must be a boolean");
  return value.As<Napi::Boolean>().Value();
}

RecordLayout layout_of(const Napi::CallbackInfo& info) {
  const RecordLayout layout{
      static_cast<uint32_t>(integer(info.Env(), info[0], "recordBytes", kRecordBytesMax)),
      static_cast<uint32_t>(integer(info.Env(), info[1], "keyBytes", kRecordKeyBytesMax))};
  if (Status status = check_layout(layout); !status.ok()) throw to_error(info.Env(), status);
  return layout;
}

Napi::Uint8Array to_array(Napi::Env env, const std::vector<uint8_t>& bytes) {
  Napi::Uint8Array array = Napi::Uint8Array::New(env, bytes.size());
  if (!bytes.empty()) std::memcpy(array.Data(), bytes.data(), bytes.size());
  return array;
}

// Owns the work until it is started: arguments are still being checked, and a check throws.
using WorkOwner = std::unique_ptr<HoldingWork>;

Napi::Promise start(WorkOwner work, std::function<Status()> run,
                    std::function<Napi::Value(Napi::Env)> finish) {
  return work.release()->start(std::move(run), std::move(finish));
}

Napi::Object bytes_result(Napi::Env env, uint64_t bytes) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("bytes", Napi::Number::New(env, static_cast<double>(bytes)));
  return result;
}

Napi::Value generate_records_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto work = std::make_unique<HoldingWork>(env);
  const uint64_t first = integer(env, info[0], "firstRecord", kSafeIntegerMax);
  const uint64_t count = integer(env, info[1], "count", kSafeIntegerMax);
  const Skew skew = boolean(env, info[2], "skewed") ? Skew::kSkewed : Skew::kUniform;
  const std::span<uint8_t> out = work->hold(info[3], "out", Access::kWrite);
  if (count > out.size() / kGensortRecordBytes) {
    throw to_error(env, Status(Code::kOutOfRange, "out has room for " +
                                                      std::to_string(out.size() / kGensortRecordBytes) +
                                                      " of " + std::to_string(count) + " records"));
  }
  return start(
      std::move(work),
      [=] {
        generate_records(first, count, out.data(), skew);
        return Status();
      },
      [](Napi::Env env) { return env.Undefined(); });
}

Napi::Value sample_keys_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const RecordLayout layout = layout_of(info);
  const std::span<uint8_t> input = bytes_of(byte_array(info[2], "input"));
  const uint64_t count = integer(env, info[3], "count", kSafeIntegerMax);
  const uint64_t seed = integer(env, info[4], "seed", kSafeIntegerMax);
  Result<std::vector<uint8_t>> keys = sample_keys(layout, input, count, seed);
  if (!keys.ok()) throw to_error(env, keys.status());
  return to_array(env, *keys);
}

Napi::Value choose_splitters_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const RecordLayout layout = layout_of(info);
  const std::span<uint8_t> samples = bytes_of(byte_array(info[2], "samples"));
  const auto partitions = static_cast<uint32_t>(integer(env, info[3], "partitions", UINT32_MAX));
  Result<Splitters> splitters = Splitters::choose(layout, samples, partitions);
  if (!splitters.ok()) throw to_error(env, splitters.status());
  return to_array(env, splitters->serialise());
}

Napi::Value partition_records_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto work = std::make_unique<HoldingWork>(env);
  const RecordLayout layout = layout_of(info);
  const std::span<uint8_t> input = work->hold(info[2], "input", Access::kRead);
  Result<Splitters> parsed = Splitters::parse(bytes_of(byte_array(info[3], "splitters")));
  if (!parsed.ok()) throw to_error(env, parsed.status());
  auto splitters = std::make_shared<Splitters>(std::move(*parsed));
  const std::span<uint8_t> dest = work->hold(info[4], "dest", Access::kWrite);
  auto output = std::make_shared<PartitionOutput>();
  return start(
      std::move(work),
      [=] {
        ScratchPool::Lease scratch = scratch_pool().borrow();
        Result<PartitionOutput> result = partition_records(layout, input, *splitters, dest, *scratch);
        if (result.ok()) *output = std::move(*result);
        return result.status();
      },
      [=](Napi::Env env) {
        Napi::Float64Array offsets = Napi::Float64Array::New(env, output->offsets.size());
        for (size_t i = 0; i < output->offsets.size(); ++i)
          offsets[i] = static_cast<double>(output->offsets[i]);
        Napi::Uint32Array checksums = Napi::Uint32Array::New(env, output->checksums.size());
        for (size_t i = 0; i < output->checksums.size(); ++i) checksums[i] = output->checksums[i];
        Napi::Object result = Napi::Object::New(env);
        result.Set("offsets", offsets);
        result.Set("checksums", checksums);
        return result;
      });
}

Napi::Value sort_records_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto work = std::make_unique<HoldingWork>(env);
  const RecordLayout layout = layout_of(info);
  auto extents = std::make_shared<std::vector<RecordExtent>>();
  for (const std::span<const uint8_t>& span : work->hold_all(info[2], "extents"))
    extents->push_back({span, {}});
  if (!info[3].IsNull() && !info[3].IsUndefined()) {
    if (!info[3].IsTypedArray() || info[3].As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
      fail(env, "checksums must be a Uint32Array or null");
    }
    const auto checksums = info[3].As<Napi::Uint32Array>();
    if (checksums.ElementLength() != extents->size()) fail(env, "checksums must have one element an extent");
    for (size_t i = 0; i < extents->size(); ++i) (*extents)[i].crc32c = checksums[i];
  }
  const std::span<uint8_t> out = work->hold(info[4], "out", Access::kWrite);
  auto bytes = std::make_shared<uint64_t>(0);
  return start(
      std::move(work),
      [=] {
        ScratchPool::Lease scratch = scratch_pool().borrow();
        Result<uint64_t> result = sort_records(layout, *extents, out, *scratch);
        if (result.ok()) *bytes = *result;
        return result.status();
      },
      [=](Napi::Env env) { return bytes_result(env, *bytes); });
}

Napi::Value merge_records_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto work = std::make_unique<HoldingWork>(env);
  const RecordLayout layout = layout_of(info);
  auto runs = std::make_shared<std::vector<std::span<const uint8_t>>>(work->hold_all(info[2], "runs"));
  const std::span<uint8_t> out = work->hold(info[3], "out", Access::kWrite);
  auto bytes = std::make_shared<uint64_t>(0);
  return start(
      std::move(work),
      [=] {
        ScratchPool::Lease scratch = scratch_pool().borrow();
        Result<uint64_t> result = merge_records(layout, *runs, out, *scratch);
        if (result.ok()) *bytes = *result;
        return result.status();
      },
      [=](Napi::Env env) { return bytes_result(env, *bytes); });
}

Napi::Value check_records_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto work = std::make_unique<HoldingWork>(env);
  const RecordLayout layout = layout_of(info);
  const std::span<uint8_t> input = work->hold(info[2], "input", Access::kRead);
  if (!info[3].IsObject()) fail(env, "options must be an object {ordered: boolean}");
  const CheckOrder order =
      boolean(env, info[3].As<Napi::Object>().Get("ordered"), "ordered") ? CheckOrder::kYes : CheckOrder::kNo;
  auto summary = std::make_shared<RecordsSummary>();
  return start(
      std::move(work),
      [=] {
        Result<RecordsSummary> result = check_records(layout, input, order);
        if (result.ok()) *summary = std::move(*result);
        return result.status();
      },
      [=](Napi::Env env) {
        std::vector<uint8_t> checksum(16);
        for (uint32_t i = 0; i < 8; ++i) {
          checksum[i] = static_cast<uint8_t>(summary->checksum.high >> (56 - 8 * i));
          checksum[8 + i] = static_cast<uint8_t>(summary->checksum.low >> (56 - 8 * i));
        }
        Napi::Object result = Napi::Object::New(env);
        result.Set("count", Napi::Number::New(env, static_cast<double>(summary->count)));
        result.Set("checksum", to_array(env, checksum));
        result.Set("unordered", Napi::Number::New(env, static_cast<double>(summary->unordered)));
        result.Set("duplicates", Napi::Number::New(env, static_cast<double>(summary->duplicates)));
        result.Set("firstKey", to_array(env, summary->first_key));
        result.Set("lastKey", to_array(env, summary->last_key));
        return result;
      });
}

Napi::Value crc32c_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto seed = static_cast<uint32_t>(integer(env, info[0], "seed", UINT32_MAX));
  const ByteArgument argument = byte_argument(info[1], "bytes", Access::kRead);
  const std::span<uint8_t> bytes = argument.bytes;
  return Napi::Number::New(env, crc32c(seed, bytes.data(), bytes.size()));
}

SumType sum_type(Napi::Env env, const Napi::Value& value) {
  const std::string name = value.IsString() ? value.As<Napi::String>().Utf8Value() : "";
  if (name == "float32") return SumType::kFloat32;
  if (name == "float64") return SumType::kFloat64;
  if (name == "int32") return SumType::kInt32;
  if (name == "int64") return SumType::kInt64;
  fail(env, "type must be float32, float64, int32 or int64");
}

Napi::Value sum_arrays_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto work = std::make_unique<HoldingWork>(env);
  const SumType type = sum_type(env, info[0]);
  auto inputs = std::make_shared<std::vector<std::span<const uint8_t>>>(work->hold_all(info[1], "inputs"));
  const std::span<uint8_t> out = work->hold(info[2], "out", Access::kWrite);
  return start(
      std::move(work), [=] { return sum_arrays(type, *inputs, out); },
      [](Napi::Env env) { return env.Undefined(); });
}

// For small arrays: a thread would cost more than the sum.
Napi::Value sum_arrays_now_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const SumType type = sum_type(env, info[0]);
  if (!info[1].IsArray()) fail(env, "inputs must be an array of Uint8Array or spans");
  const auto array = info[1].As<Napi::Array>();
  std::vector<ByteArgument> arguments;
  std::vector<std::span<const uint8_t>> inputs;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    arguments.push_back(byte_argument(array.Get(i), "an element of inputs", Access::kRead));
    inputs.push_back(arguments.back().bytes);
  }
  const ByteArgument out = byte_argument(info[2], "out", Access::kWrite);
  if (Status status = sum_arrays(type, inputs, out.bytes); !status.ok()) throw to_error(env, status);
  return env.Undefined();
}

// A few bytes of a span, for JavaScript to look at.
Napi::Value peek_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const ByteArgument argument = byte_argument(info[0], "bytes", Access::kRead);
  const uint64_t count = integer(env, info[1], "count", kPeekBytesMax);
  if (count > argument.bytes.size()) {
    throw to_error(env, Status(Code::kOutOfRange, "there are " + std::to_string(argument.bytes.size()) + " bytes"));
  }
  Napi::Uint8Array array = Napi::Uint8Array::New(env, count);
  if (count > 0) std::memcpy(array.Data(), argument.bytes.data(), count);
  return array;
}

Napi::Value sort_local_js(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!info[0].IsObject()) fail(env, "options must be an object {records, threads, partitions, skewed}");
  const auto given = info[0].As<Napi::Object>();
  SortLocalOptions options;
  options.records = integer(env, given.Get("records"), "records", kSafeIntegerMax);
  options.threads = static_cast<uint32_t>(integer(env, given.Get("threads"), "threads", UINT32_MAX));
  options.partitions = static_cast<uint32_t>(integer(env, given.Get("partitions"), "partitions", UINT32_MAX));
  if (given.Has("splits"))
    options.splits = static_cast<uint32_t>(integer(env, given.Get("splits"), "splits", UINT32_MAX));
  if (given.Has("skewed")) options.skewed = boolean(env, given.Get("skewed"), "skewed");
  auto report = std::make_shared<SortLocalReport>();
  return start(
      std::make_unique<HoldingWork>(env),
      [=] {
        Result<SortLocalReport> result = sort_local(options);
        if (result.ok()) *report = std::move(*result);
        return result.status();
      },
      [=](Napi::Env env) {
        Napi::Object seconds = Napi::Object::New(env);
        const auto set = [&](Napi::Object& object, const char* name, double value) {
          object.Set(name, Napi::Number::New(env, value));
        };
        set(seconds, "setup", report->setup_seconds);
        set(seconds, "input", report->input_seconds);
        set(seconds, "map", report->map_seconds);
        set(seconds, "reduce", report->reduce_seconds);
        set(seconds, "check", report->check_seconds);
        set(seconds, "total", report->total_seconds);
        Napi::Object result = Napi::Object::New(env);
        result.Set("seconds", seconds);
        set(result, "splits", report->splits);
        set(result, "partitionMaxOverMean", report->partition_max_over_mean);
        set(result, "count", static_cast<double>(report->output.count));
        set(result, "unordered", static_cast<double>(report->output.unordered));
        set(result, "duplicates", static_cast<double>(report->output.duplicates));
        result.Set("checksum", Napi::String::New(env, report->output.checksum.hex()));
        result.Set("inputChecksum", Napi::String::New(env, report->input_checksum.hex()));
        result.Set("validated", Napi::Boolean::New(env, report->valid));
        return result;
      });
}

}  // namespace

Napi::Object kernels_binding(Napi::Env env) {
  Napi::Object kernels = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    kernels.Set(name, Napi::Function::New(env, function, name));
  };
  add("generateRecords", generate_records_js);
  add("sampleKeys", sample_keys_js);
  add("chooseSplitters", choose_splitters_js);
  add("partitionRecords", partition_records_js);
  add("sortRecords", sort_records_js);
  add("mergeRecords", merge_records_js);
  add("checkRecords", check_records_js);
  add("crc32c", crc32c_js);
  add("sumArrays", sum_arrays_js);
  add("sumArraysNow", sum_arrays_now_js);
  add("peek", peek_js);
  add("sortLocal", sort_local_js);
  return kernels;
}

}  // namespace millrace
