#include "binding/duckdb_rows.h"

#include <utility>

#include "binding/convert.h"
#include "binding/held_bytes.h"
#include "binding/instance.h"
#include "binding/promise_work.h"

namespace millrace::binding {
namespace {

// Values that texts() makes at a time.
constexpr uint64_t kTextsMax = 1 << 20;

Napi::Value from_texts(Napi::Env env, const std::vector<std::string>& texts) {
  Napi::Array array = Napi::Array::New(env, texts.size());
  for (size_t i = 0; i < texts.size(); ++i) array.Set(static_cast<uint32_t>(i), texts[i]);
  return array;
}

}  // namespace

Napi::Function RowsHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeRows",
                     {InstanceAccessor<&RowsHandle::names>("names"), InstanceAccessor<&RowsHandle::types>("types"),
                      InstanceAccessor<&RowsHandle::rows>("rows"),
                      InstanceAccessor<&RowsHandle::partition_rows>("partitionRows"),
                      InstanceAccessor<&RowsHandle::bytes>("bytes"), InstanceMethod<&RowsHandle::write>("write"),
                      InstanceMethod<&RowsHandle::texts>("texts"), InstanceMethod<&RowsHandle::close>("close")});
}

Napi::Value RowsHandle::create(Napi::Env env, duckdb::Rows rows) {
  Napi::Object object = Instance::of(env).rows_class.New({});
  RowsHandle* handle = Unwrap(object);
  handle->rows_ = std::make_shared<const duckdb::Rows>(std::move(rows));
  handle->counted_bytes_ = static_cast<int64_t>(handle->rows_->rows->bytes());
  Napi::MemoryManagement::AdjustExternalMemory(env, handle->counted_bytes_);
  return object;
}

const duckdb::Rows& RowsHandle::open_rows(Napi::Env env) const {
  if (rows_ == nullptr) throw to_error(env, Status(Code::kClosed, "these rows are closed"));
  return *rows_;
}

Napi::Value RowsHandle::names(const Napi::CallbackInfo& info) {
  return from_texts(info.Env(), open_rows(info.Env()).names);
}

Napi::Value RowsHandle::types(const Napi::CallbackInfo& info) {
  return from_texts(info.Env(), open_rows(info.Env()).types);
}

Napi::Value RowsHandle::rows(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(open_rows(info.Env()).rows->rows()));
}

Napi::Value RowsHandle::partition_rows(const Napi::CallbackInfo& info) {
  const duckdb::Collector& rows = *open_rows(info.Env()).rows;
  Napi::Float64Array counts = Napi::Float64Array::New(info.Env(), rows.partitions());
  for (uint32_t i = 0; i < rows.partitions(); ++i) counts[i] = static_cast<double>(rows.partition_rows(i));
  return counts;
}

Napi::Value RowsHandle::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(open_rows(info.Env()).rows->bytes()));
}

Napi::Value RowsHandle::write(const Napi::CallbackInfo& info) {
  open_rows(info.Env());
  auto work = std::make_unique<HoldingWork>(info.Env());
  const std::span<uint8_t> into = work->hold(info[0], "into", Access::kWrite);
  auto written = std::make_shared<duckdb::Written>();
  return work.release()->start(
      [rows = rows_, into, written] {
        Result<duckdb::Written> result = rows->rows->write(into);
        if (result.ok()) *written = std::move(*result);
        return result.status();
      },
      [written](Napi::Env env) {
        Napi::Float64Array offsets = Napi::Float64Array::New(env, written->offsets.size());
        for (size_t i = 0; i < written->offsets.size(); ++i) offsets[i] = static_cast<double>(written->offsets[i]);
        Napi::Uint32Array checksums = Napi::Uint32Array::New(env, written->checksums.size());
        for (size_t i = 0; i < written->checksums.size(); ++i) checksums[i] = written->checksums[i];
        Napi::Object result = Napi::Object::New(env);
        result.Set("offsets", offsets);
        result.Set("checksums", checksums);
        return result;
      });
}

Napi::Value RowsHandle::texts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const duckdb::Rows& rows = open_rows(env);
  const uint64_t column = to_uint(info[0]), first = to_uint(info[1]), count = to_uint(info[2]);
  if (rows.rows->partitions() != 1) throw bad_argument(env, "texts are of rows in one partition");
  if (column >= rows.types.size() || (rows.types[column] != "VARCHAR" && rows.types[column] != "JSON")) {
    throw bad_argument(env, "texts are of a column of type VARCHAR");
  }
  const uint64_t total = rows.rows->rows();
  const uint64_t taken = first >= total ? 0 : std::min({count, total - first, kTextsMax});
  Napi::Array array = Napi::Array::New(env, taken);
  for (uint64_t i = 0; i < taken; ++i) {
    const Napi::HandleScope scope(env);
    const auto text = rows.rows->text(column, first + i);
    if (!text.has_value()) array.Set(static_cast<uint32_t>(i), env.Null());
    else array.Set(static_cast<uint32_t>(i), Napi::String::New(env, text->data(), text->size()));
  }
  return array;
}

Napi::Value RowsHandle::close(const Napi::CallbackInfo& info) {
  let_go(info.Env());
  return info.Env().Null();
}

void RowsHandle::let_go(Napi::Env env) {
  rows_.reset();
  if (counted_bytes_ != 0) Napi::MemoryManagement::AdjustExternalMemory(env, -std::exchange(counted_bytes_, 0));
}

}  // namespace millrace::binding
