#include "tier/file_reader.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tier/aligned_buffers.h"
#include "tier/file_queue.h"

namespace millrace {

FileBackend file_backend() {
  static const FileBackend backend =
      FileQueue::make(FileBackend::kUring, 1, true).ok() ? FileBackend::kUring : FileBackend::kThreads;
  return backend;
}

namespace {

std::string name_of(const SegmentFile& file) { return file.path().empty() ? "a segment file" : file.path(); }

// The blocks around a stretch of a file.
struct Blocks {
  Blocks(uint64_t offset, uint64_t bytes)
      : begin(offset & ~(kFileBlockBytes - 1)), end(align_up(offset + bytes, kFileBlockBytes)) {}
  uint64_t begin, end;
  uint64_t bytes() const { return end - begin; }
};

Status check_range(const SegmentFile& file, uint64_t offset, uint64_t bytes) {
  if (bytes <= file.bytes() && offset <= file.bytes() - bytes) return {};
  return Status(Code::kOutOfRange, "bytes " + std::to_string(offset) + " and " + std::to_string(bytes) + " more of " +
                                       name_of(file) + ", which has " + std::to_string(file.bytes()));
}

// What became of an operation of a read that needs the file up to `end`.
Status outcome(const SegmentFile& file, const FileOperation& operation, uint64_t end) {
  if (operation.error != 0) return Status::from_errno(("read " + name_of(file)).c_str(), operation.error);
  const uint64_t got_end = operation.offset + operation.done;
  if (got_end >= std::min(end, operation.offset + operation.bytes)) return {};
  return Status(Code::kCorrupt, name_of(file) + " ends at byte " + std::to_string(got_end) + " instead of " +
                                    std::to_string(file.bytes()));
}

FileBytes slice(AlignedBuffer buffer, uint64_t skip, uint64_t bytes) {
  FileBytes result;
  result.data = buffer.data() + skip;
  result.bytes = bytes;
  result.keeper = std::make_shared<AlignedBuffer>(std::move(buffer));
  return result;
}

struct Read {
  Read(std::shared_ptr<SegmentFile> of, uint64_t offset, uint64_t bytes, FileReader::Done done)
      : file(std::move(of)),
        offset(offset),
        bytes(bytes),
        done(std::move(done)),
        blocks(offset, bytes),
        next(blocks.begin) {}

  void finish() {
    if (status.ok()) done(bytes > 0 ? slice(std::move(buffer), offset - blocks.begin, bytes) : FileBytes());
    else done(status);
  }

  const std::shared_ptr<SegmentFile> file;
  const uint64_t offset, bytes;
  const FileReader::Done done;
  const Blocks blocks;
  uint64_t next;  // where the next piece begins
  uint32_t pieces_under_way = 0;
  AlignedBuffer buffer;
  Status status;
};

struct Piece : FileOperation {
  Read* read = nullptr;
};

}  // namespace

struct FileReader::Impl {
  explicit Impl(Options given)
      : options(given),
        piece_bytes(align_up(std::clamp<uint64_t>(given.piece_bytes, 1, 1 * GiB), kFileBlockBytes)) {
    const uint32_t depth = std::max(options.queue_depth, 1u);
    pieces.resize(depth);
    for (Piece& piece : pieces) idle.push_back(&piece);
    backend = options.backend.value_or(file_backend());
    auto made = FileQueue::make(backend, depth, true);
    if (!made.ok()) {
      backend = FileBackend::kThreads;
      made = FileQueue::make(backend, depth, true);
    }
    queue = std::move(*made);
  }

  bool is_short(const Read& read) const { return read.blocks.bytes() <= piece_bytes; }

  void add(std::unique_ptr<Read> read) {
    bool sleeping = false;
    {
      std::lock_guard lock(mutex);
      added.push_back(std::move(read));
      sleeping = std::exchange(asleep, false);
    }
    if (sleeping) queue->wake();
  }

  void stop() {
    bool sleeping = false;
    {
      std::lock_guard lock(mutex);
      stopping = true;
      sleeping = std::exchange(asleep, false);
    }
    if (sleeping) queue->wake();
  }

  void run() {
    std::vector<FileOperation*> ended;
    for (;;) {
      bool closing = false;
      {
        std::lock_guard lock(mutex);
        closing = stopping;
        for (auto& read : added) arrived.push_back(std::move(read));
        added.clear();
      }
      if (closing) close_unbegun();
      admit();
      issue();
      bool may_sleep = false;
      {
        std::lock_guard lock(mutex);
        // A `done` may have added reads on this very thread.
        may_sleep = added.empty() && stopping == closing && (under_way > 0 || arrived.empty());
        if (may_sleep && closing && under_way == 0) return;
        asleep = may_sleep;
      }
      queue->collect(&ended, may_sleep);
      if (may_sleep) {
        std::lock_guard lock(mutex);
        asleep = false;
      }
      for (FileOperation* operation : ended) settle_piece(static_cast<Piece*>(operation));
      ended.clear();
    }
  }

  // Lets reads take turns. Short ones at once: they hold a buffer only while they are under way. Of long ones only so
  // many, or their half-filled buffers would pile up.
  void admit() {
    std::deque<std::unique_ptr<Read>> later;
    for (auto& read : arrived) {
      if (read->bytes == 0 || !read->status.ok()) {
        finished.push_back(std::move(read));
      } else if (is_short(*read)) {
        turns.push_back(read.release());
      } else if (long_reads < pieces.size()) {
        ++long_reads;
        turns.push_back(read.release());
      } else {
        later.push_back(std::move(read));
      }
    }
    arrived = std::move(later);
    for (auto& read : std::exchange(finished, {})) read->finish();
  }

  // One piece of each read in turn.
  void issue() {
    while (!idle.empty() && !turns.empty()) {
      Read* const read = turns.front();
      turns.pop_front();
      if (read->buffer.data() == nullptr) {
        auto buffer = take_aligned_buffer(read->blocks.bytes());
        if (!buffer.ok()) {
          read->status = buffer.status();
          end(read);
          continue;
        }
        read->buffer = std::move(*buffer);
      }
      Piece* const piece = idle.back();
      idle.pop_back();
      *piece = Piece();
      piece->read = read;
      piece->fd = read->file->fd();
      piece->data = read->buffer.data() + (read->next - read->blocks.begin);
      piece->offset = read->next;
      piece->bytes = std::min(piece_bytes, read->blocks.end - read->next);
      read->next += piece->bytes;
      ++read->pieces_under_way;
      ++under_way;
      if (read->next < read->blocks.end) turns.push_back(read);
      queue->submit(piece);
    }
    queue->start();
  }

  void settle_piece(Piece* piece) {
    Read* const read = piece->read;
    if (Status status = outcome(*read->file, *piece, read->offset + read->bytes); !status.ok() && read->status.ok()) {
      read->status = std::move(status);
      // The rest of it is not worth reading.
      if (read->next < read->blocks.end) {
        read->next = read->blocks.end;
        std::erase(turns, read);
      }
    }
    idle.push_back(piece);
    --under_way;
    if (--read->pieces_under_way == 0 && read->next == read->blocks.end) end(read);
  }

  void end(Read* ended) {
    const std::unique_ptr<Read> read(ended);
    if (!is_short(*read)) --long_reads;
    read->finish();
  }

  // What has no piece under way and none behind it.
  void close_unbegun() {
    for (auto& read : arrived) read->status = Status(Code::kClosed, "the reader is closed");
    std::erase_if(turns, [this](Read* read) {
      if (read->next != read->blocks.begin) return false;
      if (!is_short(*read)) --long_reads;
      read->status = Status(Code::kClosed, "the reader is closed");
      arrived.emplace_back(read);
      return true;
    });
  }

  const Options options;
  const uint64_t piece_bytes;
  FileBackend backend = FileBackend::kThreads;
  std::unique_ptr<FileQueue> queue;

  std::mutex mutex;
  std::vector<std::unique_ptr<Read>> added;
  bool asleep = false;
  bool stopping = false;

  // The reader's thread alone.
  std::vector<Piece> pieces;
  std::vector<Piece*> idle;
  uint64_t under_way = 0;
  uint64_t long_reads = 0;
  std::deque<std::unique_ptr<Read>> arrived;
  std::vector<std::unique_ptr<Read>> finished;
  std::deque<Read*> turns;  // reads with pieces to issue, fair to all

  std::thread thread;
};

FileReader::FileReader(Options options) : impl_(std::make_shared<Impl>(options)) {
  impl_->thread = std::thread([impl = impl_] { impl->run(); });
}

FileReader::~FileReader() {
  impl_->stop();
  if (impl_->thread.get_id() == std::this_thread::get_id()) impl_->thread.detach();
  else impl_->thread.join();
}

FileBackend FileReader::backend() const { return impl_->backend; }

void FileReader::read(std::shared_ptr<SegmentFile> file, uint64_t offset, uint64_t bytes, Done done) {
  Status status = check_range(*file, offset, bytes);
  auto read = status.ok() ? std::make_unique<Read>(std::move(file), offset, bytes, std::move(done))
                          : std::make_unique<Read>(std::move(file), 0, 0, std::move(done));
  read->status = std::move(status);
  // `done` may end the reader before this returns.
  const std::shared_ptr<Impl> impl = impl_;
  impl->add(std::move(read));
}

Result<FileBytes> FileReader::read_now(std::shared_ptr<SegmentFile> file, uint64_t offset, uint64_t bytes) {
  if (Status status = check_range(*file, offset, bytes); !status.ok()) return status;
  if (bytes == 0) return FileBytes();
  const Blocks blocks(offset, bytes);
  if (blocks.bytes() <= impl_->piece_bytes) {
    // One system call of this thread costs less than waking the other one and being woken.
    auto buffer = take_aligned_buffer(blocks.bytes());
    if (!buffer.ok()) return buffer.status();
    FileOperation operation{.fd = file->fd(), .data = buffer->data(), .offset = blocks.begin, .bytes = blocks.bytes()};
    run_file_operation(&operation);
    if (Status status = outcome(*file, operation, offset + bytes); !status.ok()) return status;
    return slice(std::move(*buffer), offset - blocks.begin, bytes);
  }
  MILLRACE_ASSERT(impl_->thread.get_id() != std::this_thread::get_id());
  std::mutex mutex;
  std::condition_variable ready;
  std::optional<Result<FileBytes>> result;
  read(std::move(file), offset, bytes, [&](Result<FileBytes> got) {
    std::lock_guard lock(mutex);
    result = std::move(got);
    ready.notify_one();
  });
  std::unique_lock lock(mutex);
  ready.wait(lock, [&] { return result.has_value(); });
  return std::move(*result);
}

}  // namespace millrace
