// Digests of streams of bytes, worked out away from JavaScript. See NativeDigests in addon.ts.
#pragma once
#include <napi.h>

namespace millrace::binding {

// Whether MD5, SHA-1 and SHA-256 can be had from this Node: they are those of its own OpenSSL.
bool openssl_digests_work();

void register_digests(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
