#include "transport/shm/file_reads.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/crc32c.h"

namespace millrace {

namespace {

std::string named(std::string_view key, std::string_view what, uint32_t segment, std::string_view detail) {
  std::string text = "the object '" + std::string(key) + "' " + std::string(what) + " segment " + std::to_string(segment);
  if (!detail.empty()) text += ": " + std::string(detail);
  return text;
}

}  // namespace

Status damaged(std::string_view key, uint32_t segment, std::string_view detail) {
  return Status(Code::kCorrupt, named(key, "is damaged in", segment, detail));
}

// --- HeldObject

size_t HeldObject::extent_at(uint64_t offset) const {
  auto after = std::upper_bound(extents.begin(), extents.end(), offset,
                                [](uint64_t offset, const Extent& extent) { return offset < extent.begin; });
  MILLRACE_ASSERT(after != extents.begin());
  return static_cast<size_t>(after - extents.begin()) - 1;
}

bool HeldObject::in_files(uint64_t offset, uint64_t bytes) const {
  if (bytes == 0) return false;
  for (size_t i = extent_at(offset); i < extents.size() && extents[i].begin < offset + bytes; ++i) {
    if (extents[i].file != nullptr) return true;
  }
  return false;
}

Status HeldObject::take_crc(size_t index, uint64_t from, uint64_t bytes, uint32_t crc) {
  const Extent& extent = extents[index];
  if (from == 0 && bytes == extent.bytes) return crc == extent.crc ? Status() : damaged(key, extent.segment);
  std::lock_guard lock(mutex_);
  Progress& progress = progress_[index];
  progress.later.insert_or_assign(from, Progress::Stretch{bytes, crc});
  for (auto next = progress.later.begin(); next != progress.later.end() && next->first == progress.bytes;
       next = progress.later.begin()) {
    progress.crc = crc32c_combine(progress.crc, next->second.crc, next->second.bytes);
    progress.bytes += next->second.bytes;
    progress.later.erase(next);
  }
  if (progress.bytes < extent.bytes) return {};
  const uint32_t whole = progress.crc;
  progress_.erase(index);
  return whole == extent.crc ? Status() : damaged(key, extent.segment);
}

// --- FileReads

struct FileReads::Read {
  std::shared_ptr<HeldObject> object;
  uint64_t begin, end;     // in the object, of what is read
  uint64_t offset, bytes;  // in the object, of what is wanted
  bool check;
  Done done;
  PayloadBuffer buffer;     // empty where all lies in one run of one file: the bytes are used where they were read to
  uint8_t* data = nullptr;  // of the byte at `begin`
  std::shared_ptr<void> keeper;
  std::atomic<uint64_t> left{0};  // pieces
  std::mutex mutex;
  Status failure;  // the first

  void finish() {
    if (!failure.ok()) return done(failure);
    done(FileBytes{std::move(keeper), data == nullptr ? nullptr : data + (offset - begin), bytes});
  }
};

uint64_t FileReads::Piece::file_offset() const { return read->object->extents[extent].offset + from; }

FileReads::FileReads() = default;

FileReads::~FileReads() {
  std::deque<Run> waiting;
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    waiting.swap(waiting_);
  }
  const Status closed(Code::kClosed, "the connection was closed before the bytes were read");
  for (const Run& run : waiting) {
    for (const Piece& piece : run.pieces) end_piece(piece, closed);
  }
  for (const auto& read : std::exchange(queued_, {})) read->done(closed);
}

void FileReads::add(std::shared_ptr<HeldObject> object, uint64_t offset, uint64_t bytes, Check check, Done done) {
  MILLRACE_ASSERT(offset <= object->info.size_bytes && bytes <= object->info.size_bytes - offset);
  auto read = std::make_shared<Read>();
  read->begin = read->offset = offset;
  read->end = offset + bytes;
  read->bytes = bytes;
  if (check == Check::kWiden && bytes > 0) {
    const HeldObject::Extent& last = object->extents[object->extent_at(read->end - 1)];
    read->begin = object->extents[object->extent_at(offset)].begin;
    read->end = last.begin + last.bytes;
  }
  read->check = check != Check::kNo;
  read->object = std::move(object);
  read->done = std::move(done);
  queued_.push_back(std::move(read));
}

// Cuts the read into pieces of files; what lies in memory is copied at once.
void FileReads::plan(const std::shared_ptr<Read>& read, std::vector<Piece>* pieces) {
  const HeldObject& object = *read->object;
  if (read->begin == read->end) return read->finish();
  const size_t first = object.extent_at(read->begin);
  const size_t last = object.extent_at(read->end - 1);
  const bool in_place = first == last && object.extents[first].file != nullptr;
  if (!in_place) {
    read->buffer = pool_->take(read->end - read->begin);
    if (!read->buffer) {
      read->failure = Status(Code::kResourceExhausted, "no memory for " + std::to_string(read->end - read->begin) +
                                                           " bytes of the object '" + object.key + "'");
      return read->finish();
    }
    read->data = read->buffer.data();
    read->keeper = std::make_shared<PayloadBuffer>(std::move(read->buffer));
  }
  const size_t before = pieces->size();
  for (size_t i = first; i <= last; ++i) {
    const HeldObject::Extent& extent = object.extents[i];
    const uint64_t from = std::max(read->begin, extent.begin) - extent.begin;
    const uint64_t until = std::min(read->end, extent.begin + extent.bytes) - extent.begin;
    if (extent.file == nullptr) {
      std::memcpy(read->data + (extent.begin + from - read->begin), extent.mapping->data() + extent.offset + from, until - from);
      continue;
    }
    const uint64_t step = in_place ? until - from : kRunBytesMax;
    for (uint64_t at = from; at < until; at += step) pieces->push_back({read, i, at, std::min(step, until - at)});
  }
  read->left = pieces->size() - before;
  if (read->left == 0) read->finish();
}

void FileReads::start() {
  if (queued_.empty()) return;
  std::vector<Piece> pieces;
  for (const auto& read : std::exchange(queued_, {})) plan(read, &pieces);
  const auto file_of = [](const Piece& piece) -> const auto& { return piece.read->object->extents[piece.extent].file; };
  std::sort(pieces.begin(), pieces.end(), [&](const Piece& a, const Piece& b) {
    if (file_of(a) != file_of(b)) return file_of(a).get() < file_of(b).get();
    return a.file_offset() < b.file_offset();
  });
  {
    std::lock_guard lock(mutex_);
    Run run{};
    const auto end_run = [&] {
      if (run.file != nullptr) waiting_.push_back(std::move(run));
      run = {};
    };
    for (Piece& piece : pieces) {
      const uint64_t begin = piece.file_offset();
      const uint64_t end = begin + piece.bytes;
      const bool joins = run.file != nullptr && run.file == file_of(piece) &&
                         begin <= run.offset + run.bytes + kGapBytesMax && end <= run.offset + kRunBytesMax;
      if (!joins) {
        end_run();
        run.file = file_of(piece);
        run.offset = begin;
      }
      run.bytes = std::max(run.bytes, end - run.offset);
      run.pieces.push_back(std::move(piece));
    }
    end_run();
  }
  pump();
}

// Hands runs to the reader, as many as may be in flight. From any thread.
void FileReads::pump() {
  for (;;) {
    auto run = std::make_shared<Run>();
    {
      std::lock_guard lock(mutex_);
      if (closing_ || waiting_.empty()) return;
      if (in_flight_bytes_ > 0 && in_flight_bytes_ + waiting_.front().bytes > kInFlightBytesMax) return;
      *run = std::move(waiting_.front());
      waiting_.pop_front();
      in_flight_bytes_ += run->bytes;
    }
    reader_.read(run->file, run->offset, run->bytes, [this, run](Result<FileBytes> result) {
      end_run(*run, result);
      {
        std::lock_guard lock(mutex_);
        in_flight_bytes_ -= run->bytes;
      }
      pump();
    });
  }
}

void FileReads::end_run(const Run& run, const Result<FileBytes>& result) {
  for (const Piece& piece : run.pieces) {
    Read& read = *piece.read;
    const HeldObject::Extent& extent = read.object->extents[piece.extent];
    if (!result.ok()) {
      const bool corrupt = result.code() == Code::kCorrupt;
      end_piece(piece, Status(result.code(), named(read.object->key, corrupt ? "is damaged in" : "cannot be read from",
                                                   extent.segment, result.status().message())));
      continue;
    }
    const FileBytes& bytes = *const_cast<Result<FileBytes>&>(result);
    uint8_t* from = bytes.data + (piece.file_offset() - run.offset);
    uint32_t crc = 0;
    if (read.data == nullptr) {
      if (read.check) crc = crc32c(0, from, piece.bytes);
      read.data = from;
      read.keeper = bytes.keeper;
    } else {
      uint8_t* to = read.data + (extent.begin + piece.from - read.begin);
      if (read.check) crc = copy_crc32c(to, from, piece.bytes, 0);
      else std::memcpy(to, from, piece.bytes);
    }
    end_piece(piece, read.check ? read.object->take_crc(piece.extent, piece.from, piece.bytes, crc) : Status());
  }
}

void FileReads::end_piece(const Piece& piece, Status status) {
  Read& read = *piece.read;
  if (!status.ok()) {
    std::lock_guard lock(read.mutex);
    if (read.failure.ok()) read.failure = std::move(status);
  }
  if (read.left.fetch_sub(1) == 1) read.finish();
}

}  // namespace millrace
