// Bytes on their way out of a socket: small frames gathered in blocks, large payloads referred to where they
// lie, and the descriptors that travel with a frame. Not thread-safe.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "store/store.h"

namespace millrace {

// A descriptor to pass, and what keeps it open until it is sent.
struct PassedDescriptor {
  int fd = -1;
  std::shared_ptr<void> keeper;
};
// Closes the descriptor when the last keeper goes.
std::shared_ptr<void> close_later(int fd);

class OutputQueue {
 public:
  // `bytes` contiguous bytes at the end, to be filled at once.
  uint8_t* append(size_t bytes);
  void append(const void* data, size_t bytes) { std::memcpy(append(bytes), data, bytes); }
  // Bytes that lie elsewhere and stay there while `keeper` lives.
  void append_pinned(std::vector<ConstSpan> spans, std::shared_ptr<void> keeper);
  // The same for bytes that were read from a file: they cost memory of their own until they are sent.
  void append_read(ConstSpan bytes, std::shared_ptr<void> keeper);
  // Descriptors that go with the next byte appended.
  void attach(std::vector<PassedDescriptor> descriptors);

  bool empty() const { return queued_bytes_ == 0; }
  // Everything queued, and the part of it that is copied and so costs memory of its own.
  uint64_t queued_bytes() const { return queued_bytes_; }
  uint64_t copied_bytes() const { return copied_bytes_; }
  uint64_t read_bytes() const { return read_bytes_; }
  size_t pinned_chunks() const { return pinned_chunks_; }

  // What to send next: up to `max` vectors, and the descriptors that go with the first byte (nullptr: none).
  // Never crosses into a chunk with descriptors of its own.
  size_t front(iovec* vectors, size_t max, const std::vector<PassedDescriptor>** descriptors) const;
  // `bytes` of what `front` gave were sent (and with them its descriptors).
  void sent(size_t bytes);

 private:
  struct Block {
    explicit Block(size_t size) : bytes(new uint8_t[size]), capacity(size) {}
    std::unique_ptr<uint8_t[]> bytes;
    size_t capacity;
  };
  struct Chunk {
    std::unique_ptr<Block> block;  // copied bytes [begin, end)
    size_t begin = 0;
    size_t end = 0;
    std::vector<ConstSpan> spans;  // or pinned ones, from [span]
    size_t span = 0;
    std::shared_ptr<void> keeper;
    bool read = false;  // pinned by `append_read`
    std::vector<PassedDescriptor> descriptors;
  };
  static constexpr size_t kBlockBytes = 64 * KiB;

  std::deque<Chunk> chunks_;
  std::vector<PassedDescriptor> attached_;
  std::unique_ptr<Block> spare_;
  uint64_t queued_bytes_ = 0;
  uint64_t copied_bytes_ = 0;
  uint64_t read_bytes_ = 0;
  size_t pinned_chunks_ = 0;
};

}  // namespace millrace
