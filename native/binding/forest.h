// The kernels of random forests as JavaScript sees them: `addon.forest`, see `ForestKernels` in addon.ts.
#pragma once
#include <napi.h>

namespace millrace::binding {

void register_forest(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
