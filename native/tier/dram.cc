#include "tier/dram.h"

#include <unistd.h>

#include <bit>
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

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

constexpr const char* kSpareFolder = "spare";

Status make_folder(const std::string& path) {
  std::error_code failed;
  std::filesystem::create_directories(path, failed);
  // Nobody else has business here: what is in it is opened by name.
  if (!failed) std::filesystem::permissions(path, std::filesystem::perms::owner_all, failed);
  if (failed) return Status(Code::kSystem, "cannot make " + path + ": " + failed.message());
  return Status();
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
  const bool huge_possible = options_.directory.empty() || !options_.huge_directory.empty();
  if (options_.huge_pages != HugePages::kOff && bytes >= kHugePageBytes && huge_possible) {
    memory = create_of_pages(bytes, true);
  }
  if (!memory.ok()) memory = create_of_pages(bytes, false);
  if (!memory.ok()) {
    usage_->bytes.fetch_sub(bytes);
    return memory;
  }
  count_at_end(**memory);
  return memory;
}

Result<std::shared_ptr<SharedMemory>> DramTier::create_of_pages(uint64_t bytes, bool huge) {
  if (options_.directory.empty()) return SharedMemory::create_touched("millrace-segment", bytes, huge);
  static std::atomic<uint64_t> next{1};
  const std::string& directory = huge ? options_.huge_directory : options_.directory;
  return SharedMemory::create_touched_file(directory + "/" + kSpareFolder + "/" + std::to_string(getpid()) + "-" +
                                               std::to_string(next.fetch_add(1)), bytes, huge);
}

void DramTier::count_at_end(SharedMemory& memory) {
  const uint64_t bytes = memory.bytes();
  const bool huge = memory.huge();
  if (huge) usage_->huge_bytes.fetch_add(bytes);
  memory.on_freed([usage = usage_, bytes, huge] {
    usage->bytes.fetch_sub(bytes);
    if (huge) usage->huge_bytes.fetch_sub(bytes);
  });
}

Status DramTier::open() {
  for (const std::string& folder : folders(kSpareFolder)) {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
  return make_folders(kSpareFolder);
}

std::vector<std::string> DramTier::folders(const std::string& folder) const {
  std::vector<std::string> all;
  if (options_.directory.empty()) return all;
  all.push_back(options_.directory + "/" + folder);
  if (!options_.huge_directory.empty()) all.push_back(options_.huge_directory + "/" + folder);
  return all;
}

Status DramTier::make_folders(const std::string& folder) const {
  for (const std::string& path : folders(folder)) {
    if (Status failed = make_folder(path); !failed.ok()) return failed;
  }
  return Status();
}

Status DramTier::place(SharedMemory& memory, const std::string& folder, const std::string& name) const {
  if (memory.path().empty()) return Status();
  return memory.rename_to((memory.huge() ? options_.huge_directory : options_.directory) + "/" + folder + "/" + name);
}

Result<std::shared_ptr<SharedMemory>> DramTier::adopt(const std::string& path, bool huge) {
  auto memory = SharedMemory::open_file(path, Mapping::Access::kWrite, huge);
  if (!memory.ok()) return memory;
  usage_->bytes.fetch_add((*memory)->bytes());
  count_at_end(**memory);
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
      // A part of the tier stays free of spares, so that what is prepared never stands in the way: a quarter, and where
      // somebody has said how much will be wanted, a sixteenth.
      const uint64_t left = options_.limit_bytes / (count > 1 ? 16 : 4);
      if (spares_[bytes].size() < count && usage_->bytes.load() + bytes <= options_.limit_bytes - left) {
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
