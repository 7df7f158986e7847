// The `dram` tier: shared-memory files, pre-touched, in huge pages where the machine has them.
//
// A fresh page costs microseconds at first touch, so pages are prepared ahead by a thread of the tier's own:
// it keeps a spare of each size that was asked for lately. Memory whose descriptor has left the daemon is
// recycled inside its namespace or goes back to the kernel, and never reaches another namespace: a client
// that kept its descriptor would otherwise read its neighbour's bytes.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "segment/shared_memory.h"

namespace millrace {

enum class HugePages { kAuto, kReserve, kOff };

// What the tier has handed out. Shared with the memory itself, which may outlive the tier.
struct DramUsage {
  std::atomic<uint64_t> bytes{0};  // spares included
  std::atomic<uint64_t> huge_bytes{0};
};

class DramTier {
 public:
  struct Options {
    uint64_t limit_bytes = 0;
    HugePages huge_pages = HugePages::kAuto;
    // Where memory lies as files with names, so that a later start of the node finds it again; empty: nameless.
    std::string directory;       // on a tmpfs
    std::string huge_directory;  // on a hugetlbfs; empty: no huge pages
  };
  explicit DramTier(Options options);
  ~DramTier();

  // Zeroed, touched memory of `bytes` (a power of two from kSegmentBytesMin to kSegmentBytesMax).
  // RESOURCE_EXHAUSTED where that would go over the limit.
  Result<std::shared_ptr<SharedMemory>> allocate(uint64_t bytes);
  // Makes the directories and removes spares that an earlier life left there. Nothing where memory is nameless.
  Status open();
  // The folders of `folder` in the directories: each holds memory of one namespace. Empty where memory is nameless.
  std::vector<std::string> folders(const std::string& folder) const;
  Status make_folders(const std::string& folder) const;
  // Gives the memory its place: `name` in `folder`. Nothing where memory is nameless.
  Status place(SharedMemory& memory, const std::string& folder, const std::string& name) const;
  // Memory that an earlier life left in a file. It counts as used, also above the limit.
  Result<std::shared_ptr<SharedMemory>> adopt(const std::string& path, bool huge);
  // Ends the preparing of spares and gives them back, and the kernel's settings. What was handed out lives on.
  void stop();
  // Prepares spares for about `bytes` in the background, within the limit.
  void prepare(uint64_t bytes);

  struct Stats {
    uint64_t limit_bytes, used_bytes, spare_bytes, huge_bytes;
  };
  Stats stats() const;

 private:
  Result<std::shared_ptr<SharedMemory>> create(uint64_t bytes);
  Result<std::shared_ptr<SharedMemory>> create_of_pages(uint64_t bytes, bool huge);
  void count_at_end(SharedMemory& memory);
  bool take_budget(uint64_t bytes);
  std::shared_ptr<SharedMemory> take_spare(uint64_t bytes);
  bool drop_one_spare();
  void run();
  void raise_huge_page_limit();
  void restore_huge_page_limit();

  const Options options_;
  const std::shared_ptr<DramUsage> usage_ = std::make_shared<DramUsage>();
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable prepared_;
  std::map<uint64_t, std::vector<std::shared_ptr<SharedMemory>>> spares_;  // by size
  std::map<uint64_t, uint64_t> wanted_;                                    // spares to keep, by size
  uint64_t spare_bytes_ = 0;
  uint64_t huge_pages_raised_ = 0;
  bool stopping_ = false;
  bool preparing_ = false;  // the thread is making a spare; its bytes are taken from the budget already
  std::thread thread_;
};

}  // namespace millrace
