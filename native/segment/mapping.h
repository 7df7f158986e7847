// Mappings of shared-memory files, and the registry that lets asynchronous work hold one by address.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "base/status.h"

namespace millrace {

// One mapping of one file. Unmapped when the last owner lets go, whichever thread that is.
class Mapping {
 public:
  enum class Access { kRead, kWrite };

  // Maps `bytes` of `fd` from its start. With `populate` page tables are filled at once, which costs far less
  // than one fault a page (see docs/benchmarks.md); huge pages make it nearly free.
  static Result<std::shared_ptr<Mapping>> map(int fd, uint64_t bytes, Access access, bool populate);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  uint64_t bytes() const { return bytes_; }

  // Runs after the bytes are unmapped. Set before the mapping is shared.
  void on_unmapped(std::function<void()> callback) { on_unmapped_ = std::move(callback); }

 private:
  Mapping(uint8_t* data, uint64_t bytes) : data_(data), bytes_(bytes) {}
  uint8_t* data_;
  uint64_t bytes_;
  std::function<void()> on_unmapped_;
};

// The owner of the mapping that holds `address`, or null where the address is in none of them (ordinary
// memory). Holding the result keeps the bytes mapped.
std::shared_ptr<void> pin_address(const void* address);

}  // namespace millrace
