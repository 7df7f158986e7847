#include "binding/scrub.h"

#include "binding/convert.h"
#include "binding/promise_work.h"

namespace millrace::binding {

Napi::Array from_damages(Napi::Env env, const std::vector<ScrubPage::Damage>& damages) {
  Napi::Array array = Napi::Array::New(env, damages.size());
  for (size_t i = 0; i < damages.size(); ++i) {
    const ScrubPage::Damage& damage = damages[i];
    Napi::Object object = Napi::Object::New(env);
    object.Set("key", Napi::Buffer<char>::Copy(env, damage.key.data(), damage.key.size()));
    object.Set("segment", static_cast<double>(damage.segment));
    object.Set("message", damage.message);
    array.Set(static_cast<uint32_t>(i), object);
  }
  return array;
}

namespace {

Napi::Value from_page(Napi::Env env, const ScrubPage& page) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("objects", static_cast<double>(page.objects));
  result.Set("sizeBytes", static_cast<double>(page.size_bytes));
  result.Set("damaged", from_damages(env, page.damaged));
  result.Set("next", page.more ? Napi::Value(Napi::Buffer<char>::Copy(env, page.last_key.data(), page.last_key.size()))
                               : env.Null());
  return result;
}

}  // namespace

Napi::Promise Scrubs::start(Napi::Env env, Store& store, std::shared_ptr<Namespace> ns, std::string start_after,
                            uint32_t limit) {
  {
    std::lock_guard lock(mutex_);
    ++running_;
  }
  auto found = std::make_shared<ScrubPage>();
  // The promise may be settled after the engine's end: once `run` has ended, nothing of this touches the store.
  const auto run = [this, &store, ns = std::move(ns), start_after = std::move(start_after), limit, found]() mutable {
    auto page = scrub(*ns, store.reader(), start_after, limit, stopping_);
    ns.reset();
    if (page.ok()) *found = std::move(*page);
    std::lock_guard lock(mutex_);
    if (--running_ == 0) ended_.notify_all();
    return page.status();
  };
  return (new PromiseWork(env))->start(run, [found](Napi::Env env) { return from_page(env, *found); });
}

void Scrubs::stop() {
  stopping_.store(true);
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return running_ == 0; });
}

}  // namespace millrace::binding
