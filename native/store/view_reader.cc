#include "store/view_reader.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "base/crc32c.h"
#include "store/segment.h"

namespace millrace {

// Outlives the reader of the view while reads are under way.
struct ViewReader::Bell {
  std::mutex mutex;
  std::function<void()> ring;
};

// A piece on its way.
struct ViewReader::Slot {
  size_t span;
  uint64_t bytes;
  bool ends_span;
  std::atomic<bool> arrived{false};  // everything below is there
  Status failed;
  Piece piece;
};

ViewReader::ViewReader(FileReader& reader, ObjectView view, std::string_view key, std::function<void()> on_arrived)
    : reader_(reader), view_(std::move(view)), key_(key), bell_(std::make_shared<Bell>()) {
  for (const ConstSpan& span : view_.spans) bytes_ += span.bytes;
  bell_->ring = std::move(on_arrived);
}

ViewReader::~ViewReader() {
  std::lock_guard lock(bell_->mutex);
  bell_->ring = nullptr;
}

uint64_t ViewReader::ask() {
  if (ask_span_ == view_.spans.size() || !failed_.ok()) return 0;
  const ConstSpan& span = view_.spans[ask_span_];
  const ObjectView::Place* place = view_.in_files() ? &view_.places[ask_span_] : nullptr;
  const bool in_file = place != nullptr && place->file != nullptr;
  uint64_t bytes = std::min(span.bytes - ask_offset_, limits::kFilePieceBytes);
  if (in_file && bytes < span.bytes - ask_offset_) {
    // Ends on a block of the file, so that no block is read twice.
    bytes -= (place->offset + ask_offset_ + bytes) % 4096;
  }
  auto slot = std::make_shared<Slot>();
  slot->span = ask_span_;
  slot->bytes = bytes;
  const uint64_t offset = ask_offset_;
  ask_offset_ += bytes;
  asked_bytes_ += bytes;
  slot->ends_span = ask_offset_ == span.bytes;
  if (slot->ends_span) {
    ++ask_span_;
    ask_offset_ = 0;
  }
  slots_.push_back(slot);
  if (!in_file) {
    const uint8_t* data = span.data + offset;
    slot->piece = {{data, bytes}, crc32c(0, data, bytes), view_.segments[slot->span]};
    slot->arrived.store(true, std::memory_order_release);
    return bytes;
  }
  reader_.read(place->file, place->offset + offset, bytes, [slot, bell = bell_](Result<FileBytes> result) {
    if (result.ok()) {
      slot->piece = {{result->data, result->bytes}, crc32c(0, result->data, result->bytes), std::move(result->keeper)};
    } else {
      slot->failed = result.status();
    }
    slot->arrived.store(true, std::memory_order_release);
    std::lock_guard lock(bell->mutex);
    if (bell->ring) bell->ring();
  });
  return bytes;
}

Result<std::optional<ViewReader::Piece>> ViewReader::next() {
  if (!failed_.ok()) return failed_;
  if (slots_.empty() || !slots_.front()->arrived.load(std::memory_order_acquire)) return std::optional<Piece>();
  auto taken = take(*slots_.front());
  asked_bytes_ -= slots_.front()->bytes;
  slots_.pop_front();
  failed_ = taken.status();
  return taken;
}

Result<std::optional<ViewReader::Piece>> ViewReader::take(Slot& slot) {
  const ObjectView::Place place = view_.in_files() ? view_.places[slot.span] : ObjectView::Place();
  if (!slot.failed.ok()) {
    return Status(slot.failed.code(), "the object '" + key_ + "', segment " + std::to_string(place.segment) + ": " +
                                          slot.failed.message());
  }
  taken_bytes_ += slot.bytes;
  span_crc_ = crc32c_combine(span_crc_, slot.piece.crc, slot.bytes);
  if (slot.ends_span) {
    const uint64_t span_bytes = view_.spans[slot.span].bytes;
    if (place.file != nullptr && span_bytes == place.bytes && span_crc_ != place.crc) {
      return Status(Code::kCorrupt, "the object '" + key_ + "' is damaged in segment " + std::to_string(place.segment) +
                                        ": its bytes do not match their checksum (" + place.file->path() + ")");
    }
    object_crc_ = crc32c_combine(object_crc_, span_crc_, span_bytes);
    span_crc_ = 0;
  }
  if (done() && bytes_ == view_.info.size_bytes && object_crc_ != view_.info.crc32c) return damaged(view_, key_);
  return std::optional<Piece>(std::move(slot.piece));
}

Status read_all(FileReader& reader, ObjectView view, std::string_view key, const std::function<Status(ConstSpan)>& take) {
  std::mutex mutex;
  std::condition_variable arrived;
  uint64_t arrivals = 0;
  ViewReader pieces(reader, std::move(view), key, [&] {
    std::lock_guard lock(mutex);
    ++arrivals;
    arrived.notify_one();
  });
  uint64_t seen = 0;
  while (!pieces.done()) {
    while (pieces.asked_bytes() < limits::kReadAheadBytesMax && pieces.ask() > 0) {
    }
    auto piece = pieces.next();
    if (!piece.ok()) return piece.status();
    if (piece->has_value()) {
      if (Status failed = take((*piece)->bytes); !failed.ok()) return failed;
      continue;
    }
    std::unique_lock lock(mutex);
    arrived.wait(lock, [&] { return arrivals != seen; });
    seen = arrivals;
  }
  return Status();
}

Status damaged(const ObjectView& view, std::string_view key) {
  std::string where;
  uint32_t last = 0;
  for (const auto& segment : view.segments) {
    if (segment->number == last) continue;
    last = segment->number;
    where += (where.empty() ? "" : ", ") + std::to_string(last);
  }
  return Status(Code::kCorrupt, "the object '" + std::string(key) + "' is damaged in segment " + where +
                                    ": its bytes do not match its checksum");
}

}  // namespace millrace
