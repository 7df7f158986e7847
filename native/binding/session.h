// A client's session, for JavaScript: `openSession`. See client/transports/native.ts, the only caller.
#pragma once
#include <napi.h>

namespace millrace::binding {

// openSession(options): Promise of a session handle.
Napi::Value open_session(const Napi::CallbackInfo& info);
void register_session(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
