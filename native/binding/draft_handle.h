// An object that a JavaScript door is writing. See NativeDraft in addon.ts.
#pragma once
#include <napi.h>

#include "store/store.h"

namespace millrace::binding {

class DraftHandle : public Napi::ObjectWrap<DraftHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit DraftHandle(const Napi::CallbackInfo& info);
  ~DraftHandle() override { set_waiting(0); }
  void open(std::shared_ptr<Namespace> ns, Draft draft, int64_t size_bytes);

 private:
  // So many bytes of the last write wait for room, in the caller's memory.
  void set_waiting(uint64_t bytes);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value seal(const Napi::CallbackInfo& info);
  Napi::Value abort(const Napi::CallbackInfo& info);

  std::shared_ptr<Namespace> namespace_;
  Draft draft_;
  int64_t size_bytes_ = -1;  // announced, or -1
  uint64_t waiting_bytes_ = 0;
};

}  // namespace millrace::binding
