// A range of an object that a JavaScript door is reading. See NativeReader in addon.ts.
#pragma once
#include <napi.h>

#include "store/store.h"

namespace millrace::binding {

class ReaderHandle : public Napi::ObjectWrap<ReaderHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit ReaderHandle(const Napi::CallbackInfo& info);
  void open(ObjectView view) { view_ = std::move(view); }

 private:
  Napi::Value object_info(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  ObjectView view_;
  size_t span_ = 0;
  uint64_t offset_ = 0;  // in the span
};

}  // namespace millrace::binding
