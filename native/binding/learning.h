// The kernels of machine learning as JavaScript sees them: `addon.learning`, see `Learning` in addon.ts.
#pragma once
#include <napi.h>

namespace millrace::binding {

void register_learning(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
