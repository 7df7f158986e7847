// The inside of the store. Private to store/.
#pragma once
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "store/mover.h"
#include "store/namespace_impl.h"

namespace millrace {

struct Store::Impl {
  explicit Impl(Options options) : node(std::make_shared<NodeShared>(options)) {}

  void run();
  void reclaim_dropped();

  std::shared_ptr<NodeShared> node;
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  uint64_t next_namespace = 1;
  std::unordered_map<std::string, std::shared_ptr<Namespace>> by_name;
  std::vector<std::shared_ptr<Namespace>> dropped;  // with segments that wait for their holders
  std::thread sweeper;
  std::unique_ptr<Mover> mover;
};

}  // namespace millrace
