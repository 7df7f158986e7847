#include "binding/reader_handle.h"

#include <algorithm>

#include "binding/convert.h"

namespace millrace::binding {

Napi::Function ReaderHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeReader",
                     {InstanceAccessor<&ReaderHandle::object_info>("info"), InstanceMethod<&ReaderHandle::read>("read"),
                      InstanceMethod<&ReaderHandle::close>("close")});
}

ReaderHandle::ReaderHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ReaderHandle>(info) {}

Napi::Value ReaderHandle::object_info(const Napi::CallbackInfo& info) { return from_info(info.Env(), view_.info); }

Napi::Value ReaderHandle::read(const Napi::CallbackInfo& info) {
  const ConstSpan into = to_bytes(info[0]);
  auto* to = const_cast<uint8_t*>(into.data);
  uint64_t done = 0;
  while (done < into.bytes && span_ < view_.spans.size()) {
    const ConstSpan& span = view_.spans[span_];
    const uint64_t now = std::min(into.bytes - done, span.bytes - offset_);
    std::memcpy(to + done, span.data + offset_, now);
    done += now;
    offset_ += now;
    if (offset_ == span.bytes) {
      ++span_;
      offset_ = 0;
    }
  }
  return Napi::Number::New(info.Env(), static_cast<double>(done));
}

Napi::Value ReaderHandle::close(const Napi::CallbackInfo& info) {
  view_.spans.clear();
  view_.segments.clear();
  span_ = 0;
  offset_ = 0;
  return info.Env().Null();
}

}  // namespace millrace::binding
