#include "binding/draft_handle.h"

#include "binding/convert.h"

namespace millrace::binding {

Napi::Function DraftHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeDraft",
                     {InstanceMethod<&DraftHandle::write>("write"), InstanceMethod<&DraftHandle::seal>("seal"),
                      InstanceMethod<&DraftHandle::abort>("abort")});
}

DraftHandle::DraftHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DraftHandle>(info) {}

void DraftHandle::open(std::shared_ptr<Namespace> ns, Draft draft, int64_t size_bytes) {
  namespace_ = std::move(ns);
  draft_ = std::move(draft);
  size_bytes_ = size_bytes;
  if (size_bytes > 0) draft_.expect(static_cast<uint64_t>(size_bytes));
}

void DraftHandle::set_waiting(uint64_t bytes) {
  if (bytes == waiting_bytes_ || !namespace_) return;
  namespace_->account_waiting(static_cast<int64_t>(bytes - waiting_bytes_));
  waiting_bytes_ = bytes;
}

Napi::Value DraftHandle::write(const Napi::CallbackInfo& info) {
  const ConstSpan bytes = to_bytes(info[0]);
  if (draft_.open() && size_bytes_ >= 0 && draft_.size_bytes() + bytes.bytes > static_cast<uint64_t>(size_bytes_)) {
    throw to_error(info.Env(), Status(Code::kInvalidArgument, "more bytes than the size announced"));
  }
  const uint64_t before = draft_.size_bytes();
  const Status appended = draft_.append(bytes);
  const uint64_t taken = draft_.size_bytes() - before;
  set_waiting(appended.code() == Code::kResourceExhausted ? bytes.bytes - taken : 0);
  // Room ran out midway: the caller waits and goes on with the rest.
  if (!(appended.code() == Code::kResourceExhausted && taken > 0)) check(info.Env(), appended);
  return Napi::Number::New(info.Env(), static_cast<double>(taken));
}

Napi::Value DraftHandle::seal(const Napi::CallbackInfo& info) {
  const Condition condition = to_condition(info[0]);
  std::optional<uint32_t> expected;
  if (info[1].IsNumber()) expected = static_cast<uint32_t>(to_uint(info[1]));
  const std::string_view attributes = to_attributes(info[2]);
  if (draft_.open() && size_bytes_ >= 0 && draft_.size_bytes() != static_cast<uint64_t>(size_bytes_)) {
    throw to_error(info.Env(), Status(Code::kInvalidArgument, "fewer bytes than the size announced"));
  }
  if (!draft_.open()) throw to_error(info.Env(), Status(Code::kClosed, "the draft has ended"));
  set_waiting(0);
  const auto ns = std::exchange(namespace_, nullptr);
  auto sealed = ns->commit(std::move(draft_), condition, nullptr, expected, attributes);
  check(info.Env(), sealed.status());
  return from_info(info.Env(), *sealed);
}

Napi::Value DraftHandle::abort(const Napi::CallbackInfo& info) {
  draft_.abort();
  set_waiting(0);
  namespace_.reset();
  return info.Env().Null();
}

}  // namespace millrace::binding
