#include "binding/span.h"

#include "binding/instance.h"

namespace millrace::binding {

Napi::Function SpanHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeSpan",
                     {InstanceAccessor<&SpanHandle::length>("length"), InstanceMethod<&SpanHandle::release>("release")});
}

Napi::Value SpanHandle::create(Napi::Env env, std::shared_ptr<Mapping> mapping, Span bytes, bool writable) {
  Napi::Object object = Instance::of(env).span_class.New({});
  SpanHandle* span = Unwrap(object);
  span->mapping_ = std::move(mapping);
  span->bytes_ = bytes;
  span->writable_ = writable;
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
  mapping_.reset();
  bytes_ = {nullptr, 0};
  return info.Env().Null();
}

}  // namespace millrace::binding
