// verifyObjects of NativeEngine in addon.ts.
#pragma once
#include <napi.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "store/scrub.h"
#include "store/store.h"

namespace millrace::binding {

// As a list of NativeDamage.
Napi::Array from_damages(Napi::Env env, const std::vector<ScrubPage::Damage>& damages);

// The checks of one engine that are under way.
class Scrubs {
 public:
  // Resolves with a page of `scrub`, checked on a thread of the pool. `store` stays until stop() has returned.
  Napi::Promise start(Napi::Env env, Store& store, std::shared_ptr<Namespace> ns, std::string start_after,
                      uint32_t limit);
  // Ends all and waits for them.
  void stop();

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  size_t running_ = 0;
  std::atomic<bool> stopping_{false};
};

}  // namespace millrace::binding
