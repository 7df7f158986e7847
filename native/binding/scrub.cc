#include "binding/scrub.h"

#include "binding/convert.h"

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

// Lives until its promise is settled, perhaps after the engine: from the end of Execute on it touches no store.
class Scrubs::Worker final : public Napi::AsyncWorker {
 public:
  Worker(Napi::Env env, Scrubs& scrubs, Store& store, std::shared_ptr<Namespace> ns, std::string start_after,
         uint32_t limit)
      : AsyncWorker(env, "millrace:verifyObjects"),
        deferred_(env),
        scrubs_(scrubs),
        store_(store),
        ns_(std::move(ns)),
        start_after_(std::move(start_after)),
        limit_(limit) {}

  Napi::Promise promise() { return deferred_.Promise(); }

 protected:
  void Execute() override {
    auto page = scrub(*ns_, store_.reader(), start_after_, limit_, scrubs_.stopping_);
    ns_.reset();
    status_ = page.status();
    if (page.ok()) page_ = std::move(*page);
    std::lock_guard lock(scrubs_.mutex_);
    if (--scrubs_.running_ == 0) scrubs_.ended_.notify_all();
  }

  void OnOK() override {
    Napi::Env env = Env();
    Napi::HandleScope scope(env);
    if (!status_.ok()) {
      deferred_.Reject(to_error(env, status_).Value());
      return;
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("objects", static_cast<double>(page_.objects));
    result.Set("sizeBytes", static_cast<double>(page_.size_bytes));
    result.Set("damaged", from_damages(env, page_.damaged));
    result.Set("next", page_.more ? Napi::Value(Napi::Buffer<char>::Copy(env, page_.last_key.data(),
                                                                        page_.last_key.size()))
                                  : env.Null());
    deferred_.Resolve(result);
  }

 private:
  Napi::Promise::Deferred deferred_;
  Scrubs& scrubs_;
  Store& store_;
  std::shared_ptr<Namespace> ns_;
  const std::string start_after_;
  const uint32_t limit_;
  Status status_;
  ScrubPage page_;
};

Napi::Promise Scrubs::start(Napi::Env env, Store& store, std::shared_ptr<Namespace> ns, std::string start_after,
                            uint32_t limit) {
  auto* worker = new Worker(env, *this, store, std::move(ns), std::move(start_after), limit);
  {
    std::lock_guard lock(mutex_);
    ++running_;
  }
  worker->Queue();
  return worker->promise();
}

void Scrubs::stop() {
  stopping_.store(true);
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return running_ == 0; });
}

}  // namespace millrace::binding
