// Working memory of the kernels: anonymous memory on huge pages where the machine gives them, kept from call
// to call, because the first touch of fresh pages costs more than the work done in them.
#pragma once
#include <cstddef>
#include <cstdint>

#include "base/status.h"
#include "base/units.h"

namespace millrace {

// One call at a time: reserve() what the call needs, take() it piece by piece. Grows, never shrinks; what was
// taken before a reserve() is lost by it.
class Scratch {
 public:
  Scratch() = default;
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Makes `bytes` available (beyond what take() rounds up) and forgets what was taken before.
  Status reserve(uint64_t bytes, uint32_t pieces = 8);

  // An uninitialised array, aligned to 64 bytes. reserve() must have made room for it.
  template <class T>
  T* take(uint64_t count) {
    return reinterpret_cast<T*>(take_bytes(count * sizeof(T)));
  }

  uint64_t capacity_bytes() const { return capacity_; }

 private:
  uint8_t* take_bytes(uint64_t bytes);

  uint8_t* memory_ = nullptr;
  uint64_t capacity_ = 0;
  uint64_t taken_ = 0;
};

}  // namespace millrace
