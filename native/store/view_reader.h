// Reads the bytes of a view piece by piece, some of them ahead: from files without blocking, from memory where they
// lie. An extent that is read whole is checked against its CRC32C before its last piece is given out, and so is an
// object: who got all of it got the bytes that were sealed.
//
//   ask -> (read from the file, summed) -> arrived -> next
//
// One thread at a time; reads arrive on threads of the FileReader, which must outlive this.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "store/store.h"

namespace millrace {

class ViewReader {
 public:
  struct Piece {
    ConstSpan bytes{};
    uint32_t crc = 0;              // CRC32C of these bytes
    std::shared_ptr<void> keeper;  // they stay as they are for as long as this lives
  };

  // `on_arrived` runs on a thread of the reader whenever `next` may have more to give. It must not block, and is not
  // called any more once this has ended.
  ViewReader(FileReader& reader, ObjectView view, std::string_view key, std::function<void()> on_arrived);
  ~ViewReader();
  ViewReader(const ViewReader&) = delete;
  ViewReader& operator=(const ViewReader&) = delete;

  const ObjectInfo& info() const { return view_.info; }
  const std::string& attributes() const { return view_.attributes; }
  uint64_t bytes() const { return bytes_; }  // in all

  // Asks for the next piece and returns how many bytes it has; 0 where all were asked for.
  uint64_t ask();
  uint64_t asked_bytes() const { return asked_bytes_; }  // of pieces asked for and not yet taken
  // The next piece in order; nothing where it is not there yet, or not asked for. CORRUPT, or why the file could not
  // be read; both name key and segment, and then nothing more comes.
  Result<std::optional<Piece>> next();
  // Whether all pieces were taken.
  bool done() const { return taken_bytes_ == bytes_; }

 private:
  struct Bell;
  struct Slot;

  Result<std::optional<Piece>> take(Slot& slot);

  FileReader& reader_;
  const ObjectView view_;
  const std::string key_;
  uint64_t bytes_ = 0;
  const std::shared_ptr<Bell> bell_;
  std::deque<std::shared_ptr<Slot>> slots_;  // asked for, in order
  Status failed_;

  // Where the next piece to be asked for begins.
  size_t ask_span_ = 0;
  uint64_t ask_offset_ = 0;  // in the span
  uint64_t asked_bytes_ = 0;

  uint64_t taken_bytes_ = 0;
  uint32_t span_crc_ = 0;    // of what was taken of the span at hand
  uint32_t object_crc_ = 0;  // of the spans before it
};

// Reads all of a view, waiting for what lies in files; ends with the first error of `take`.
Status read_all(FileReader& reader, ObjectView view, std::string_view key, const std::function<Status(ConstSpan)>& take);

// What a read of an object fails with whose bytes are not the ones that were sealed.
Status damaged(const ObjectView& view, std::string_view key);

}  // namespace millrace
