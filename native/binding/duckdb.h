// DuckDB for JavaScript. See NativeDuckDb in addon.ts.
#pragma once
#include <napi.h>

namespace millrace::binding {

void register_duckdb(Napi::Env env, Napi::Object exports);

}  // namespace millrace::binding
