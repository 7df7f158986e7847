// The daemon's engine for JavaScript: the store and its native doors. See NativeEngine in addon.ts.
#pragma once
#include <napi.h>

namespace millrace::binding {

void register_engine(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
