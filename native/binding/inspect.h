// inspectNamespace of Addon in addon.ts.
#pragma once
#include <napi.h>

namespace millrace::binding {

void register_inspect(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
