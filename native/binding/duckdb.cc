#include "binding/duckdb.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "binding/convert.h"
#include "binding/duckdb_rows.h"
#include "binding/held_bytes.h"
#include "binding/instance.h"
#include "duckdb/engine.h"

namespace millrace::binding {
namespace {

constexpr uint64_t kThreadsMax = 1024;

// Of one execute(), shared by the thread that works and the one that answers.
struct Statement {
  std::string sql;
  std::vector<duckdb::Input> inputs;
  uint32_t partitions = 1;
  Status status;
  duckdb::Rows rows;
  std::vector<duckdb::Mismatch> mismatches;
};

std::vector<std::string> to_texts(const Napi::Value& value, const char* what) {
  if (!value.IsArray()) throw bad_argument(value.Env(), what);
  const auto array = value.As<Napi::Array>();
  std::vector<std::string> texts(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) texts[i] = to_text(array.Get(i));
  return texts;
}

duckdb::Input to_input(HoldingWork& work, const Napi::Value& value) {
  if (!value.IsObject()) throw bad_argument(value.Env(), "an input is an object {name, types, extents, checksums}");
  const auto object = value.As<Napi::Object>();
  duckdb::Input input{to_text(object.Get("name")), to_texts(object.Get("types"), "types are an array of strings"),
                      work.hold_all(object.Get("extents"), "extents"), {}};
  const Napi::Value checksums = object.Get("checksums");
  if (checksums.IsNull()) return input;
  if (!checksums.IsTypedArray() || checksums.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) {
    throw bad_argument(value.Env(), "checksums must be a Uint32Array or null");
  }
  const auto array = checksums.As<Napi::Uint32Array>();
  if (array.ElementLength() != input.extents.size()) {
    throw bad_argument(value.Env(), "checksums must have one element an extent");
  }
  for (size_t i = 0; i < array.ElementLength(); ++i) input.checksums.push_back(array[i]);
  return input;
}

Napi::Error to_error(Napi::Env env, const Statement& statement) {
  Napi::Error error = binding::to_error(env, statement.status);
  if (statement.mismatches.empty()) return error;
  Napi::Array extents = Napi::Array::New(env, statement.mismatches.size());
  for (size_t i = 0; i < statement.mismatches.size(); ++i) {
    Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0u, statement.mismatches[i].input);
    pair.Set(1u, statement.mismatches[i].extent);
    extents.Set(static_cast<uint32_t>(i), pair);
  }
  error.Set("extents", extents);
  return error;
}

class DuckDbHandle : public Napi::ObjectWrap<DuckDbHandle> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(
        env, "DuckDb",
        {InstanceAccessor<&DuckDbHandle::version>("version"), InstanceMethod<&DuckDbHandle::execute>("execute"),
         InstanceMethod<&DuckDbHandle::cancel>("cancel"), InstanceMethod<&DuckDbHandle::close>("close")});
  }

  explicit DuckDbHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DuckDbHandle>(info) {
    const Napi::Env env = info.Env();
    if (!info[0].IsObject()) {
      throw bad_argument(env, "options are an object {library, threads, memoryBytes, spillDirectory}");
    }
    const auto given = info[0].As<Napi::Object>();
    duckdb::EngineOptions options;
    options.library = to_text(given.Get("library"));
    const uint64_t threads = to_uint(given.Get("threads"));
    if (threads == 0 || threads > kThreadsMax) throw bad_argument(env, "threads must be from 1 to 1024");
    options.threads = static_cast<uint32_t>(threads);
    options.memory_bytes = to_uint(given.Get("memoryBytes"));
    if (!given.Get("spillDirectory").IsNull()) options.spill_directory = to_text(given.Get("spillDirectory"));
    Result<std::unique_ptr<duckdb::Engine>> engine = duckdb::Engine::open(options);
    if (!engine.ok()) throw binding::to_error(env, engine.status());
    engine_ = std::move(*engine);
  }

 private:
  Napi::Value version(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), engine_->version()); }

  Napi::Value execute(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    auto work = std::make_unique<HoldingWork>(env);
    auto statement = std::make_shared<Statement>();
    statement->sql = to_text(info[0]);
    if (!info[1].IsArray()) throw bad_argument(env, "inputs are an array");
    const auto inputs = info[1].As<Napi::Array>();
    for (uint32_t i = 0; i < inputs.Length(); ++i) statement->inputs.push_back(to_input(*work, inputs.Get(i)));
    const uint64_t partitions = to_uint(info[2]);
    if (partitions == 0 || partitions > limits::kPartitionsMax) {
      throw bad_argument(env, "partitions are out of range");
    }
    statement->partitions = static_cast<uint32_t>(partitions);
    return work.release()->start(
        [engine = engine_, statement] {
          Result<duckdb::Rows> rows =
              engine->execute(statement->sql, statement->inputs, statement->partitions, statement->mismatches);
          statement->status = rows.status();
          if (rows.ok()) statement->rows = std::move(*rows);
          return Status();
        },
        [statement](Napi::Env env) {
          if (!statement->status.ok()) throw to_error(env, *statement);
          return RowsHandle::create(env, std::move(statement->rows));
        });
  }

  Napi::Value cancel(const Napi::CallbackInfo& info) {
    engine_->cancel();
    return info.Env().Null();
  }

  Napi::Value close(const Napi::CallbackInfo& info) {
    return (new PromiseWork(info.Env()))
        ->start(
            [engine = engine_] {
              engine->close();
              return Status();
            },
            [](Napi::Env env) { return env.Undefined(); });
  }

  std::shared_ptr<duckdb::Engine> engine_;  // work that goes on keeps it
};

}  // namespace

void register_duckdb(Napi::Env env, Napi::Object exports) {
  Instance::of(env).rows_class = Napi::Persistent(RowsHandle::define(env));
  exports.Set("DuckDb", DuckDbHandle::define(env));
}

}  // namespace millrace::binding
