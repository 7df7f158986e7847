#include "binding/reader_handle.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/crc32c.h"
#include "binding/convert.h"
#include "store/view_reader.h"

namespace millrace::binding {

// The reading of an object in files: pieces arrive on the file reader's thread and are copied out on JavaScript's.
struct ReaderHandle::FileReads {
  FileReads(Napi::Env env, std::shared_ptr<Namespace> of) : env(env), ns(std::move(of)) {}

  // Goes on with the read that waits, as far as pieces have arrived.
  void advance() {
    if (!waiting) return;
    const Status failed = fill();
    if (failed.ok() && filled < into.bytes && !pieces->done()) return;
    const Napi::Promise::Deferred deferred = settle();
    if (failed.ok()) deferred.Resolve(Napi::Number::New(env, static_cast<double>(filled)));
    else deferred.Reject(to_error(env, failed).Value());
  }

  Status fill() {
    for (;;) {
      const uint64_t now = std::min(into.bytes - filled, piece.bytes.bytes);
      if (now > 0) std::memcpy(const_cast<uint8_t*>(into.data) + filled, piece.bytes.data, now);
      piece.bytes.data += now;
      piece.bytes.bytes -= now;
      filled += now;
      if (piece.bytes.bytes == 0) piece.keeper.reset();
      while (pieces->asked_bytes() < limits::kReadAheadBytesMax && pieces->ask() > 0) {
      }
      if (filled == into.bytes || pieces->done()) return {};
      auto next = pieces->next();
      if (!next.ok()) return next.status();
      if (!next->has_value()) return {};
      piece = std::move(**next);
    }
  }

  void close() {
    pieces.reset();  // from here on nothing rings any more
    piece = {};
    if (arrived != nullptr) napi_release_threadsafe_function(std::exchange(arrived, nullptr), napi_tsfn_release);
    if (waiting) settle().Reject(to_error(env, Status(Code::kClosed, "the reader is closed")).Value());
  }

  // The read that waits does so no longer.
  Napi::Promise::Deferred settle() {
    const Napi::Promise::Deferred deferred = *std::exchange(waiting, std::nullopt);
    array.Reset();
    handle.Reset();
    return deferred;
  }

  static void on_arrived(napi_env env, napi_value, void* context, void*) {
    if (env == nullptr) return;
    Napi::HandleScope scope(env);
    (*static_cast<std::shared_ptr<FileReads>*>(context))->advance();
  }

  const Napi::Env env;
  const std::shared_ptr<Namespace> ns;
  std::unique_ptr<ViewReader> pieces;
  ViewReader::Piece piece;  // what is left of the one at hand
  napi_threadsafe_function arrived = nullptr;

  // The read that waits.
  std::optional<Napi::Promise::Deferred> waiting;
  Napi::Reference<Napi::Uint8Array> array;  // holds `into`
  Napi::ObjectReference handle;             // is not collected meanwhile
  ConstSpan into{};
  uint64_t filled = 0;
};

Napi::Function ReaderHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeReader",
                     {InstanceAccessor<&ReaderHandle::object_info>("info"),
                      InstanceAccessor<&ReaderHandle::attributes>("attributes"),
                      InstanceAccessor<&ReaderHandle::in_files>("inFiles"), InstanceMethod<&ReaderHandle::read>("read"),
                      InstanceMethod<&ReaderHandle::read_async>("readAsync"),
                      InstanceMethod<&ReaderHandle::close>("close")});
}

ReaderHandle::ReaderHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ReaderHandle>(info) {}
ReaderHandle::~ReaderHandle() { let_go(); }

void ReaderHandle::open(std::shared_ptr<Namespace> ns, FileReader& files, ObjectView view, std::string key) {
  info_ = view.info;
  attributes_ = std::move(view.attributes);
  key_ = std::move(key);
  if (!view.in_files()) {
    uint64_t bytes = 0;
    for (const ConstSpan& span : view.spans) bytes += span.bytes;
    whole_ = bytes == view.info.size_bytes;
    view_ = std::move(view);
    return;
  }
  file_reads_ = std::make_shared<FileReads>(Env(), std::move(ns));
  auto* context = new std::shared_ptr<FileReads>(file_reads_);
  napi_value name;
  napi_create_string_utf8(Env(), "millrace reader", NAPI_AUTO_LENGTH, &name);
  const auto forget = [](napi_env, void*, void* hint) {
    const std::unique_ptr<std::shared_ptr<FileReads>> context(static_cast<std::shared_ptr<FileReads>*>(hint));
    (*context)->pieces.reset();  // where the environment ends first
    (*context)->arrived = nullptr;
  };
  napi_threadsafe_function arrived = nullptr;
  if (napi_create_threadsafe_function(Env(), nullptr, nullptr, name, 0, 1, nullptr, forget, context,
                                      FileReads::on_arrived, &arrived) != napi_ok) {
    delete context;
    file_reads_.reset();
    throw to_error(Env(), Status(Code::kSystem, "the engine refuses a callback"));
  }
  napi_unref_threadsafe_function(Env(), arrived);
  file_reads_->arrived = arrived;
  file_reads_->pieces = std::make_unique<ViewReader>(files, std::move(view), key_, [arrived] {
    napi_call_threadsafe_function(arrived, nullptr, napi_tsfn_nonblocking);
  });
}

Napi::Value ReaderHandle::object_info(const Napi::CallbackInfo& info) { return from_info(info.Env(), info_); }

Napi::Value ReaderHandle::attributes(const Napi::CallbackInfo& info) { return from_attributes(info.Env(), attributes_); }

Napi::Value ReaderHandle::in_files(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), file_reads_ != nullptr);
}

Napi::Value ReaderHandle::read(const Napi::CallbackInfo& info) {
  if (file_reads_ != nullptr) throw bad_argument(info.Env(), "an object in files is read with readAsync");
  const ConstSpan into = to_bytes(info[0]);
  auto* to = const_cast<uint8_t*>(into.data);
  uint64_t done = 0;
  while (done < into.bytes && span_ < view_.spans.size()) {
    const ConstSpan& span = view_.spans[span_];
    const uint64_t now = std::min(into.bytes - done, span.bytes - offset_);
    if (whole_) crc_ = copy_crc32c(to + done, span.data + offset_, now, crc_);
    else std::memcpy(to + done, span.data + offset_, now);
    done += now;
    offset_ += now;
    if (offset_ == span.bytes) {
      ++span_;
      offset_ = 0;
      if (whole_ && span_ == view_.spans.size() && crc_ != info_.crc32c) throw to_error(info.Env(), damaged(view_, key_));
    }
  }
  return Napi::Number::New(info.Env(), static_cast<double>(done));
}

Napi::Value ReaderHandle::read_async(const Napi::CallbackInfo& info) {
  const ConstSpan into = to_bytes(info[0]);
  if (file_reads_ == nullptr || file_reads_->waiting) {
    throw bad_argument(info.Env(), "readAsync is for objects in files, one call at a time");
  }
  FileReads& reads = *file_reads_;
  if (reads.pieces == nullptr) throw to_error(info.Env(), Status(Code::kClosed, "the reader is closed"));
  reads.waiting.emplace(Napi::Promise::Deferred::New(info.Env()));
  const Napi::Promise promise = reads.waiting->Promise();
  reads.handle = Napi::Persistent(info.This().As<Napi::Object>());
  reads.array = Napi::Persistent(info[0].As<Napi::Uint8Array>());
  reads.into = into;
  reads.filled = 0;
  reads.advance();
  return promise;
}

void ReaderHandle::let_go() {
  if (file_reads_ != nullptr) file_reads_->close();
  view_ = {};
  span_ = 0;
  offset_ = 0;
}

Napi::Value ReaderHandle::close(const Napi::CallbackInfo& info) {
  let_go();
  return info.Env().Null();
}

}  // namespace millrace::binding
