// The rows of a statement. See NativeRows in addon.ts.
#pragma once
#include <napi.h>

#include <memory>

#include "duckdb/engine.h"

namespace millrace::binding {

class RowsHandle : public Napi::ObjectWrap<RowsHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  static Napi::Value create(Napi::Env env, duckdb::Rows rows);

  explicit RowsHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RowsHandle>(info) {}
  void Finalize(Napi::Env env) override { let_go(env); }

 private:
  Napi::Value names(const Napi::CallbackInfo& info);
  Napi::Value types(const Napi::CallbackInfo& info);
  Napi::Value rows(const Napi::CallbackInfo& info);
  Napi::Value partition_rows(const Napi::CallbackInfo& info);
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value texts(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  const duckdb::Rows& open_rows(Napi::Env env) const;
  void let_go(Napi::Env env);

  std::shared_ptr<const duckdb::Rows> rows_;  // a write() that goes on keeps them
  int64_t counted_bytes_ = 0;                 // that the collector was told of
};

}  // namespace millrace::binding
