// Bytes that JavaScript passes on to kernels without looking at them. Of a segment in memory no window is made, so the
// engine's collector, which counts every window as memory of its own, is left alone. Bytes that were read from a file
// are memory of this process, and are counted.
#pragma once
#include <napi.h>

#include <memory>

#include "store/store.h"

namespace millrace::binding {

class SpanHandle : public Napi::ObjectWrap<SpanHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  enum class Memory { kShared, kOwn };
  // The span holds the keeper of its bytes for as long as it lives.
  static Napi::Value create(Napi::Env env, std::shared_ptr<void> keeper, Span bytes, bool writable, Memory memory);
  // Null where the value is something else.
  static SpanHandle* from(Napi::Value value);

  explicit SpanHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SpanHandle>(info) {}
  Span bytes() const { return bytes_; }
  bool writable() const { return writable_; }
  std::shared_ptr<void> hold() const { return keeper_; }
  void Finalize(Napi::Env env) override { let_go(env); }

 private:
  Napi::Value length(const Napi::CallbackInfo& info);
  Napi::Value release(const Napi::CallbackInfo& info);

  void let_go(Napi::Env env);

  std::shared_ptr<void> keeper_;
  Span bytes_{nullptr, 0};
  int64_t counted_bytes_ = 0;  // that the collector was told of
  bool writable_ = false;
};

}  // namespace millrace::binding
