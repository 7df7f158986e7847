// The thread that keeps memory within bounds: demotes the coldest segments when `dram` runs full, promotes what is
// read from files again and again, and cleans segments of which most is dead. One a node.
#pragma once
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "store/namespace_impl.h"
#include "store/relocate.h"

namespace millrace {

class Mover {
 public:
  // `namespaces` lists those that live.
  Mover(std::shared_ptr<NodeShared> node, std::function<std::vector<std::shared_ptr<Namespace>>()> namespaces);
  ~Mover() { stop(); }
  void stop();
  // There may be something to do.
  void wake();

 private:
  using Namespaces = std::vector<std::shared_ptr<Namespace>>;
  struct Victims {
    std::shared_ptr<Namespace> ns;
    std::vector<std::shared_ptr<Segment>> segments;
  };

  void run();
  bool demote(const Namespaces& all);
  bool promote_read(const Namespaces& all);
  bool clean(const Namespaces& all);
  Victims coldest(const Namespaces& all, bool node_is_full);
  Victims dirtiest(const Namespaces& all);
  // Moves what lives in the victims, counts it as `moved` and tells who waits for room.
  Relocated move(Victims victims, RelocateTo to, uint64_t Namespace::Impl::*moved);

  const std::shared_ptr<NodeShared> node_;
  const std::function<Namespaces()> namespaces_;
  Clock::time_point demote_after_{};  // the tier failed: not before
  double clean_allowance_bytes_ = 0;  // that may be copied now
  Clock::time_point allowance_at_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable woken_;
  bool wake_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace millrace
