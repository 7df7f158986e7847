#include "tier/dram.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <string>

#include "base/limits.h"
#include "base/units.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

namespace millrace {

namespace {

constexpr uint64_t kHugePageBytes = 2 * MiB;
constexpr const char* kOvercommitPath = "/proc/sys/vm/nr_overcommit_hugepages";

// Nobody may shrink or grow a file that others have mapped: a page that goes away is a SIGBUS.
constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;
// Nor may a client that was granted a segment add a seal of its own: with F_SEAL_FUTURE_WRITE nobody after it
// could be granted this memory.
constexpr int kSegmentSeals = kSizeSeals | F_SEAL_SEAL;

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

SharedMemory::~SharedMemory() {
  if (fd_ >= 0) close(fd_);
  if (usage_ && mapping_) {
    usage_->bytes.fetch_sub(mapping_->bytes());
    if (huge_) usage_->huge_bytes.fetch_sub(mapping_->bytes());
  }
}

Result<int> SharedMemory::read_only_fd() const {
  const std::string path = "/proc/self/fd/" + std::to_string(fd_);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Status::from_errno("open a segment read-only", errno);
  return fd;
}

Result<std::shared_ptr<SharedMemory>> SharedMemory::create_sparse(const char* name, uint64_t bytes) {
  std::shared_ptr<SharedMemory> memory(new SharedMemory);
  memory->fd_ = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory->fd_ < 0) return Status::from_errno("memfd_create", errno);
  if (ftruncate(memory->fd_, static_cast<off_t>(bytes)) != 0) return Status::from_errno("ftruncate", errno);
  fcntl(memory->fd_, F_ADD_SEALS, kSizeSeals);
  fchmod(memory->fd_, 0444);  // a read-only descriptor cannot be reopened for writing by another user
  auto mapping = Mapping::map(memory->fd_, bytes, Mapping::Access::kWrite, false);
  if (!mapping.ok()) return mapping.status();
  memory->mapping_ = *mapping;
  return memory;
}

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

// The caller has taken the budget.
Result<std::shared_ptr<SharedMemory>> DramTier::create(uint64_t bytes) {
  std::shared_ptr<SharedMemory> memory(new SharedMemory);
  const bool try_huge = options_.huge_pages != HugePages::kOff && bytes >= kHugePageBytes;
  if (try_huge) {
    memory->fd_ = memfd_create("millrace-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB | MFD_HUGE_2MB);
    // fallocate takes the pages now: without it a shortage would be a SIGBUS at first touch.
    if (memory->fd_ >= 0 && (ftruncate(memory->fd_, static_cast<off_t>(bytes)) != 0 ||
                             fallocate(memory->fd_, 0, 0, static_cast<off_t>(bytes)) != 0)) {
      close(memory->fd_);
      memory->fd_ = -1;
    }
    memory->huge_ = memory->fd_ >= 0;
  }
  if (!memory->huge_) {
    memory->fd_ = memfd_create("millrace-segment", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    Status failed;
    if (memory->fd_ < 0) failed = Status::from_errno("memfd_create", errno);
    else if (ftruncate(memory->fd_, static_cast<off_t>(bytes)) != 0) failed = Status::from_errno("ftruncate", errno);
    else if (fallocate(memory->fd_, 0, 0, static_cast<off_t>(bytes)) != 0) failed = Status::from_errno("fallocate", errno);
    if (!failed.ok()) {
      usage_->bytes.fetch_sub(bytes);
      return failed;
    }
  }
  fcntl(memory->fd_, F_ADD_SEALS, kSegmentSeals);
  fchmod(memory->fd_, 0444);
  auto mapping = Mapping::map(memory->fd_, bytes, Mapping::Access::kWrite, true);
  if (!mapping.ok()) {
    usage_->bytes.fetch_sub(bytes);
    return mapping.status();
  }
  memory->mapping_ = *mapping;
  memory->usage_ = usage_;
  if (memory->huge_) usage_->huge_bytes.fetch_add(bytes);
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
