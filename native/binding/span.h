// Bytes of a segment that JavaScript passes on to kernels without looking at them: no window is made, so the
// engine's collector, which counts every window as memory of its own, is left alone.
#pragma once
#include <napi.h>

#include <memory>

#include "segment/mapping.h"
#include "store/store.h"

namespace millrace::binding {

class SpanHandle : public Napi::ObjectWrap<SpanHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  // The span holds the mapping for as long as it lives.
  static Napi::Value create(Napi::Env env, std::shared_ptr<Mapping> mapping, Span bytes, bool writable);
  // Null where the value is something else.
  static SpanHandle* from(Napi::Value value);

  explicit SpanHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SpanHandle>(info) {}
  Span bytes() const { return bytes_; }
  bool writable() const { return writable_; }
  std::shared_ptr<void> hold() const { return mapping_; }

 private:
  Napi::Value length(const Napi::CallbackInfo& info);
  Napi::Value release(const Napi::CallbackInfo& info);

  std::shared_ptr<Mapping> mapping_;
  Span bytes_{nullptr, 0};
  bool writable_ = false;
};

}  // namespace millrace::binding
