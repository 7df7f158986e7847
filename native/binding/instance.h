// What one load of the addon keeps: one of these for the main thread and one for each worker thread.
#pragma once
#include <napi.h>

#include <memory>

namespace millrace::binding {

struct Instance {
  Napi::FunctionReference draft_class;
  Napi::FunctionReference reader_class;
  Napi::FunctionReference rows_class;
  Napi::FunctionReference span_class;
  std::shared_ptr<void> session_state;  // binding/session.cc

  static Instance& of(Napi::Env env) { return *env.GetInstanceData<Instance>(); }
};

}  // namespace millrace::binding
