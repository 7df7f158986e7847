#include "tier/dram.h"

#include <bit>
#include <fstream>
#include <string>

#include "base/limits.h"
#include "base/units.h"

namespace millrace {

namespace {

constexpr uint64_t kHugePageBytes = 2 * MiB;
constexpr const char* kOvercommitPath = "/proc/sys/vm/nr_overcommit_hugepages";

uint64_t read_number(const char* path) {
  uint64_t value = 0;
  std::ifstream(path) >> value;
  return value;
}

bool write_number(const char* path, uint64_t value) {
  std::ofstream file(path);
  file << value << std::flush;
  return file.good();
}

}  // namespace

DramTier::DramTier(Options options) : options_(options) {
  if (options_.huge_pages == HugePages::kReserve) raise_huge_page_limit();
  thread_ = std::thread([this] { run(); });
}

DramTier::~DramTier() { stop(); }

void DramTier::stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
  std::lock_guard lock(mutex_);
  while (drop_one_spare()) {
  }
  restore_huge_page_limit();
}

// The overcommit limit rather than the pool itself: pages are then taken from free memory as they are needed
// and go back by themselves when the last mapping goes, also after a kill -9.
void DramTier::raise_huge_page_limit() {
  const uint64_t pages = align_up(options_.limit_bytes, kHugePageBytes) / kHugePageBytes;
  if (write_number(kOvercommitPath, read_number(kOvercommitPath) + pages)) huge_pages_raised_ = pages;
}

void DramTier::restore_huge_page_limit() {
  if (huge_pages_raised_ == 0) return;
  const uint64_t now = read_number(kOvercommitPath);
  write_number(kOvercommitPath, now > huge_pages_raised_ ? now - huge_pages_raised_ : 0);
}

bool DramTier::take_budget(uint64_t bytes) {
  uint64_t used = usage_->bytes.load();
  do {
    if (used + bytes > options_.limit_bytes) return false;
  } while (!usage_->bytes.compare_exchange_weak(used, used + bytes));
  return true;
}

// The caller has taken the budget; the memory gives it back at its end.
Result<std::shared_ptr<SharedMemory>> DramTier::create(uint64_t bytes) {
  Result<std::shared_ptr<SharedMemory>> memory(Code::kUnsupported, "huge pages are off");
  if (options_.huge_pages != HugePages::kOff && bytes >= kHugePageBytes) {
    memory = SharedMemory::create_touched("millrace-segment", bytes, true);
  }
  if (!memory.ok()) memory = SharedMemory::create_touched("millrace-segment", bytes, false);
  if (!memory.ok()) {
    usage_->bytes.fetch_sub(bytes);
    return memory;
  }
  const bool huge = (*memory)->huge();
  if (huge) usage_->huge_bytes.fetch_add(bytes);
  (*memory)->on_freed([usage = usage_, bytes, huge] {
    usage->bytes.fetch_sub(bytes);
    if (huge) usage->huge_bytes.fetch_sub(bytes);
  });
  return memory;
}

std::shared_ptr<SharedMemory> DramTier::take_spare(uint64_t bytes) {
  auto found = spares_.find(bytes);
  if (found == spares_.end() || found->second.empty()) return nullptr;
  auto memory = std::move(found->second.back());
  found->second.pop_back();
  spare_bytes_ -= bytes;
  return memory;
}

bool DramTier::drop_one_spare() {
  for (auto& [size, list] : spares_) {
    if (list.empty()) continue;
    list.pop_back();
    spare_bytes_ -= size;
    return true;
  }
  return false;
}

Result<std::shared_ptr<SharedMemory>> DramTier::allocate(uint64_t bytes) {
  MILLRACE_ASSERT(std::has_single_bit(bytes) && bytes >= limits::kSegmentBytesMin && bytes <= limits::kSegmentBytesMax);
  {
    std::unique_lock lock(mutex_);
    uint64_t& wanted = wanted_[bytes];
    wanted = wanted > 1 ? wanted - 1 : 1;
    for (;;) {
      if (auto spare = take_spare(bytes)) {
        wake_.notify_one();
        return spare;
      }
      if (take_budget(bytes)) break;
      if (drop_one_spare()) continue;
      if (!preparing_) {
        return Status(Code::kResourceExhausted, "dram is full: " + std::to_string(usage_->bytes.load()) + " of " +
                                                    std::to_string(options_.limit_bytes) + " bytes are in use (--dram)");
      }
      // What is being prepared counts already but is nobody's yet: it must not look as if the tier were full.
      prepared_.wait(lock);
    }
  }
  wake_.notify_one();
  return create(bytes);
}

void DramTier::prepare(uint64_t bytes) {
  constexpr uint64_t size = limits::kSegmentBytesDefault;
  if (bytes < size) return;
  std::lock_guard lock(mutex_);
  wanted_[size] = std::min((bytes + size - 1) / size, options_.limit_bytes / size);
  wake_.notify_one();
}

DramTier::Stats DramTier::stats() const {
  std::lock_guard lock(mutex_);
  return {options_.limit_bytes, usage_->bytes.load() - spare_bytes_, spare_bytes_, usage_->huge_bytes.load()};
}

void DramTier::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    uint64_t size = 0;
    for (const auto& [bytes, count] : wanted_) {
      // A quarter of the tier stays free of single spares, so that what is prepared never stands in the way.
      if (spares_[bytes].size() < count && usage_->bytes.load() + bytes <= options_.limit_bytes - options_.limit_bytes / 4) {
        size = bytes;
      }
    }
    if (size == 0 || !take_budget(size)) {
      wake_.wait(lock);
      continue;
    }
    preparing_ = true;
    lock.unlock();
    auto memory = create(size);
    lock.lock();
    preparing_ = false;
    prepared_.notify_all();
    if (!memory.ok()) {
      wanted_[size] = 0;
      continue;
    }
    spares_[size].push_back(*memory);
    spare_bytes_ += size;
  }
}

}  // namespace millrace
