#include "transport/output_queue.h"

#include <unistd.h>

#include <algorithm>

#include "base/assert.h"

namespace millrace {

std::shared_ptr<void> close_later(int fd) {
  return std::shared_ptr<void>(nullptr, [fd](void*) { ::close(fd); });
}

uint8_t* OutputQueue::append(size_t bytes) {
  const bool joins = attached_.empty() && !chunks_.empty() && chunks_.back().block != nullptr &&
                     chunks_.back().block->capacity - chunks_.back().end >= bytes;
  if (!joins) {
    Chunk& chunk = chunks_.emplace_back();
    if (bytes <= kBlockBytes && spare_ != nullptr) {
      chunk.block = std::move(spare_);
    } else {
      chunk.block = std::make_unique<Block>(std::max(bytes, static_cast<size_t>(kBlockBytes)));
    }
    chunk.descriptors = std::move(attached_);
    attached_.clear();
  }
  Chunk& chunk = chunks_.back();
  uint8_t* at = chunk.block->bytes.get() + chunk.end;
  chunk.end += bytes;
  queued_bytes_ += bytes;
  copied_bytes_ += bytes;
  return at;
}

void OutputQueue::append_pinned(std::vector<ConstSpan> spans, std::shared_ptr<void> keeper) {
  std::erase_if(spans, [](const ConstSpan& span) { return span.bytes == 0; });
  if (spans.empty()) return;
  Chunk& chunk = chunks_.emplace_back();
  for (const ConstSpan& span : spans) queued_bytes_ += span.bytes;
  chunk.spans = std::move(spans);
  chunk.keeper = std::move(keeper);
  ++pinned_chunks_;
}

void OutputQueue::append_read(ConstSpan bytes, std::shared_ptr<void> keeper) {
  Chunk& chunk = chunks_.emplace_back();
  chunk.spans.push_back(bytes);
  chunk.keeper = std::move(keeper);
  chunk.read = true;
  queued_bytes_ += bytes.bytes;
  read_bytes_ += bytes.bytes;
}

void OutputQueue::attach(std::vector<PassedDescriptor> descriptors) {
  MILLRACE_ASSERT(attached_.empty());
  attached_ = std::move(descriptors);
}

size_t OutputQueue::front(iovec* vectors, size_t max, const std::vector<PassedDescriptor>** descriptors) const {
  size_t count = 0;
  *descriptors = nullptr;
  for (const Chunk& chunk : chunks_) {
    if (count == max) break;
    if (!chunk.descriptors.empty()) {
      if (count > 0) break;
      *descriptors = &chunk.descriptors;
    }
    if (chunk.block != nullptr) {
      vectors[count++] = {chunk.block->bytes.get() + chunk.begin, chunk.end - chunk.begin};
    } else {
      for (size_t i = chunk.span; i < chunk.spans.size() && count < max; ++i) {
        vectors[count++] = {const_cast<uint8_t*>(chunk.spans[i].data), static_cast<size_t>(chunk.spans[i].bytes)};
      }
    }
  }
  return count;
}

void OutputQueue::sent(size_t bytes) {
  MILLRACE_ASSERT(bytes <= queued_bytes_);
  queued_bytes_ -= bytes;
  if (bytes > 0 && !chunks_.empty()) chunks_.front().descriptors.clear();
  while (bytes > 0) {
    Chunk& chunk = chunks_.front();
    bool done = false;
    if (chunk.block != nullptr) {
      const size_t part = std::min(bytes, chunk.end - chunk.begin);
      chunk.begin += part;
      bytes -= part;
      copied_bytes_ -= part;
      done = chunk.begin == chunk.end;
    } else {
      while (bytes > 0 && chunk.span < chunk.spans.size()) {
        ConstSpan& span = chunk.spans[chunk.span];
        const size_t part = std::min<uint64_t>(bytes, span.bytes);
        span.data += part;
        span.bytes -= part;
        bytes -= part;
        if (chunk.read) read_bytes_ -= part;
        if (span.bytes == 0) ++chunk.span;
      }
      done = chunk.span == chunk.spans.size();
      if (done && !chunk.read) --pinned_chunks_;
    }
    if (done) {
      if (chunk.block != nullptr && chunk.block->capacity == kBlockBytes && spare_ == nullptr) {
        spare_ = std::move(chunk.block);
      }
      chunks_.pop_front();
    }
  }
}

}  // namespace millrace
