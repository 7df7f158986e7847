#include "segment/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <map>
#include <mutex>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace millrace {

namespace {

// Mappings by their first address. Process-wide because an address is.
struct Registry {
  std::mutex mutex;
  std::map<uintptr_t, std::weak_ptr<Mapping>> by_address;
};
Registry& registry() {
  static auto* instance = new Registry;  // never destroyed: mappings may outlive static destructors
  return *instance;
}

}  // namespace

Result<std::shared_ptr<Mapping>> Mapping::map(int fd, uint64_t bytes, Access access, bool populate) {
  const bool write = access == Access::kWrite;
  void* at = mmap(nullptr, bytes, write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (at == MAP_FAILED) return Status::from_errno("mmap", errno);
  if (populate) {
    // Only a preparation: where the kernel cannot (before 5.14), pages fault in one by one.
    madvise(at, bytes, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
  }
  std::shared_ptr<Mapping> mapping(new Mapping(static_cast<uint8_t*>(at), bytes));
  Registry& all = registry();
  std::lock_guard lock(all.mutex);
  all.by_address.insert_or_assign(reinterpret_cast<uintptr_t>(at), mapping);
  return mapping;
}

Mapping::~Mapping() {
  {
    // Out of the registry before the range is free for another mapping to take.
    Registry& all = registry();
    std::lock_guard lock(all.mutex);
    all.by_address.erase(reinterpret_cast<uintptr_t>(data_));
  }
  munmap(data_, bytes_);
  if (on_unmapped_) on_unmapped_();
}

std::shared_ptr<void> pin_address(const void* address) {
  // Declared before the lock: were it the last owner, its end would take the same lock.
  std::shared_ptr<Mapping> mapping;
  Registry& all = registry();
  std::lock_guard lock(all.mutex);
  auto next = all.by_address.upper_bound(reinterpret_cast<uintptr_t>(address));
  if (next == all.by_address.begin()) return nullptr;
  mapping = std::prev(next)->second.lock();
  if (!mapping) return nullptr;
  const auto begin = reinterpret_cast<uintptr_t>(mapping->data());
  // Only ever one past the end when `address` lies elsewhere.
  return reinterpret_cast<uintptr_t>(address) - begin < mapping->bytes() ? mapping : nullptr;
}

}  // namespace millrace
