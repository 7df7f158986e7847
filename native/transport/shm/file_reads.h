// Reads of objects that lie, wholly or in part, in segment files. What is queued together is read together:
// neighbouring stretches of a file, of one object or of several, become one read, and each reader gets its share.
// Extents that are read whole, at once or piece by piece, are checked against their checksums.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "segment/mapping.h"
#include "store/store.h"
#include "tier/file_reader.h"
#include "transport/payload_buffer.h"

namespace millrace {

// CORRUPT, with the key and the segment that holds the damage.
Status damaged(std::string_view key, uint32_t segment, std::string_view detail = {});

// One version of an object. Its bytes stay where they are for as long as this lives.
class HeldObject {
 public:
  struct Extent {
    uint32_t segment;                   // its number
    std::shared_ptr<SegmentFile> file;  // null: it lies in memory
    std::shared_ptr<Mapping> mapping;   // null: it lies in a file
    uint64_t offset;                    // in the segment
    uint64_t bytes;
    uint32_t crc;
    uint64_t begin;                     // in the object
  };
  HeldObject(std::string_view key, ObjectInfo info, std::vector<Extent> extents)
      : key(key), info(info), extents(std::move(extents)) {}

  const std::string key;
  const ObjectInfo info;
  const std::vector<Extent> extents;  // in order, none empty but that of an empty object

  // The extent with the byte at `offset` of the object, which must be within it.
  size_t extent_at(uint64_t offset) const;
  // Whether any of these bytes lie in a file.
  bool in_files(uint64_t offset, uint64_t bytes) const;
  // Takes the checksum of a stretch of an extent, in any order. CORRUPT where it completes the extent and the whole
  // is not what was sealed. Thread-safe.
  Status take_crc(size_t extent, uint64_t from, uint64_t bytes, uint32_t crc);

 private:
  struct Progress {
    uint64_t bytes = 0;  // from the start of the extent, that `crc` covers
    uint32_t crc = 0;
    struct Stretch {
      uint64_t bytes;
      uint32_t crc;
    };
    std::map<uint64_t, Stretch> later;  // by where they begin in the extent
  };
  std::mutex mutex_;
  std::map<size_t, Progress> progress_;  // of extents that are read piece by piece
};

// `add` and `start` belong to one thread.
class FileReads {
 public:
  using Done = std::function<void(Result<FileBytes>)>;
  enum class Check { kNo, kWholeExtents, kWiden };  // kWiden: extents that are wanted in part are read whole

  FileReads();
  // Waits for the reads under way; those that have not begun fail with CLOSED.
  ~FileReads();
  FileReads(const FileReads&) = delete;
  FileReads& operator=(const FileReads&) = delete;

  // Queues a read of `bytes` bytes from `offset` of the object, which must be within it. `done` runs on a thread of
  // the reader's (or in `start`, where none of the bytes lie in files) and must not block: CORRUPT, SYSTEM, CLOSED or
  // RESOURCE_EXHAUSTED, naming key and segment.
  void add(std::shared_ptr<HeldObject> object, uint64_t offset, uint64_t bytes, Check check, Done done);
  // Sets off what is queued.
  void start();

 private:
  static constexpr uint64_t kRunBytesMax = 4 * MiB;        // of several stretches read as one, and of a copy's pieces
  static constexpr uint64_t kGapBytesMax = 64 * KiB;       // read along and thrown away: headers between payloads
  static constexpr uint64_t kInFlightBytesMax = 32 * MiB;  // but always one run

  struct Read;
  struct Piece {
    std::shared_ptr<Read> read;
    size_t extent;
    uint64_t from;  // in the extent
    uint64_t bytes;
    uint64_t file_offset() const;
  };
  // A stretch of a file that is read at once.
  struct Run {
    std::shared_ptr<SegmentFile> file;
    uint64_t offset;
    uint64_t bytes;
    std::vector<Piece> pieces;
  };

  void plan(const std::shared_ptr<Read>& read, std::vector<Piece>* pieces);
  void pump();
  void end_run(const Run& run, const Result<FileBytes>& result);
  static void end_piece(const Piece& piece, Status status);

  std::vector<std::shared_ptr<Read>> queued_;  // the owner's
  std::shared_ptr<PayloadPool> pool_ = std::make_shared<PayloadPool>();
  std::mutex mutex_;
  std::deque<Run> waiting_;
  uint64_t in_flight_bytes_ = 0;
  bool closing_ = false;
  FileReader reader_;  // last: it ends first, and calls back until it has
};

}  // namespace millrace
