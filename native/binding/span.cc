#include "binding/span.h"

#include <utility>

#include "binding/instance.h"

namespace millrace::binding {

Napi::Function SpanHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeSpan",
                     {InstanceAccessor<&SpanHandle::length>("length"), InstanceMethod<&SpanHandle::release>("release")});
}

Napi::Value SpanHandle::create(Napi::Env env, std::shared_ptr<void> keeper, Span bytes, bool writable, Memory memory) {
  Napi::Object object = Instance::of(env).span_class.New({});
  SpanHandle* span = Unwrap(object);
  span->keeper_ = std::move(keeper);
  span->bytes_ = bytes;
  span->writable_ = writable;
  if (memory == Memory::kOwn) {
    span->counted_bytes_ = static_cast<int64_t>(bytes.bytes);
    Napi::MemoryManagement::AdjustExternalMemory(env, span->counted_bytes_);
  }
  return object;
}

SpanHandle* SpanHandle::from(Napi::Value value) {
  if (!value.IsObject()) return nullptr;
  auto object = value.As<Napi::Object>();
  return object.InstanceOf(Instance::of(value.Env()).span_class.Value()) ? Unwrap(object) : nullptr;
}

Napi::Value SpanHandle::length(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(bytes_.bytes));
}

Napi::Value SpanHandle::release(const Napi::CallbackInfo& info) {
  let_go(info.Env());
  return info.Env().Null();
}

void SpanHandle::let_go(Napi::Env env) {
  keeper_.reset();
  bytes_ = {nullptr, 0};
  if (counted_bytes_ != 0) Napi::MemoryManagement::AdjustExternalMemory(env, -std::exchange(counted_bytes_, 0));
}

}  // namespace millrace::binding
