// Work away from JavaScript whose end settles a promise.
#pragma once
#include <napi.h>

#include <exception>
#include <functional>
#include <utility>

#include "base/status.h"
#include "binding/convert.h"

namespace millrace::binding {

// On a thread of the pool. Deletes itself when the promise is settled.
class PromiseWork : public Napi::AsyncWorker {
 public:
  explicit PromiseWork(Napi::Env env) : Napi::AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)) {}

  // `run` works away from JavaScript, `finish` turns what it found into the promise's value.
  Napi::Promise start(std::function<Status()> run, std::function<Napi::Value(Napi::Env)> finish) {
    run_ = std::move(run);
    finish_ = std::move(finish);
    Napi::Promise promise = deferred_.Promise();
    Queue();
    return promise;
  }

 protected:
  void Execute() override {
    try {
      status_ = run_();
    } catch (const std::exception& exception) {  // no memory for a small allocation
      status_ = Status(Code::kResourceExhausted, exception.what());
    }
  }

  void OnOK() override {
    Napi::HandleScope scope(Env());
    if (!status_.ok()) return deferred_.Reject(to_error(Env(), status_).Value());
    try {
      deferred_.Resolve(finish_(Env()));
    } catch (const Napi::Error& error) {
      deferred_.Reject(error.Value());
    }
  }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::function<Status()> run_;
  std::function<Napi::Value(Napi::Env)> finish_;
  Status status_;
};

}  // namespace millrace::binding
