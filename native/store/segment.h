// A segment as the daemon sees it: in memory, or in a file of the `nvme` tier, which nobody writes to. The index
// points into memory alone; bytes in files are extents of manifests. Fields but `memory` and `file` belong to the
// namespace's lock.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "store/store.h"

namespace millrace {

// How the folder of a namespace and the files of its segments are called, in every tier.
inline std::string token_hex(const Token& token) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : token) text += {kDigits[byte >> 4], kDigits[byte & 15]};
  return text;
}
inline std::string segment_file_name(uint32_t number) { return std::to_string(number) + ".seg"; }

inline constexpr SessionId kNobody = ~SessionId{0};
inline constexpr SessionId kDaemon = 0;

class Segment {
 public:
  Segment(uint32_t number, std::shared_ptr<SharedMemory> memory) : number(number), memory(std::move(memory)) {}
  Segment(uint32_t number, std::shared_ptr<SegmentFile> file) : number(number), file(std::move(file)) {
    write_end = this->file->bytes();
  }

  const uint32_t number;
  const std::shared_ptr<SharedMemory> memory;  // null: in a file
  const std::shared_ptr<SegmentFile> file;

  SessionId writer = kNobody;     // whose grant it is
  uint64_t grant_begin = 0;       // where that grant begins
  uint64_t write_end = kSegmentHeaderBytes;  // bytes below are taken: sealed, being filled, or dead
  std::map<uint64_t, uint64_t> holes;  // what lies below write_end and is no entry: begin to end
  uint64_t live_bytes = 0;        // of sealed entries
  uint32_t drafts = 0;            // unsealed entries that the daemon is filling
  bool retired = false;
  bool forsaken = false;          // somebody who is no session any more may still have it mapped (of an earlier life, or
                                  // with a pass that expired): nobody is granted its rest, its memory is not used again
  bool moving = false;            // its objects are being written elsewhere: nobody writes to its rest
  bool kept = false;              // holds what relocation wrote: manifests and small objects stay in memory
  std::chrono::steady_clock::time_point used_at = std::chrono::steady_clock::now();  // by a writer, the last time
  std::chrono::steady_clock::time_point stuck_until{};  // relocation left something in it
  std::vector<SessionId> holders; // sessions that were handed its descriptor and have not confirmed

  uint8_t* data() const { return memory->data(); }  // of one in memory
  uint64_t bytes() const { return memory ? memory->bytes() : file->bytes(); }
  uint64_t room() const { return bytes() - write_end; }
  uint64_t dead_bytes() const {
    const uint64_t taken = write_end - kSegmentHeaderBytes;
    return taken - std::min(taken, live_bytes);
  }
  // Takes the bytes of an entry that a session seals, in whatever order it seals. False where any of them are
  // taken already or lie before its grant: the headers there are the client's to write, so they prove nothing.
  bool take(uint64_t begin, uint64_t end) {
    if (begin < grant_begin) return false;
    if (begin >= write_end) {
      if (begin > write_end) holes.emplace(write_end, begin);
      write_end = end;
      return true;
    }
    auto hole = holes.upper_bound(begin);
    if (hole == holes.begin()) return false;
    --hole;
    const uint64_t hole_end = hole->second;
    if (end > hole_end) return false;
    if (begin > hole->first) hole->second = begin;
    else holes.erase(hole);
    if (end < hole_end) holes.emplace(end, hole_end);
    return true;
  }
  void begin_grant(SessionId session) {
    writer = session;
    grant_begin = write_end;
  }
  // Ends the grant: what it left out stays so.
  void end_grant() {
    writer = kNobody;
    used_at = std::chrono::steady_clock::now();
  }
  // Bytes that were taken and turn out to be no entry. They are dead, not room again: a segment that is to be retired
  // once enough of it has died would otherwise stay, and be empty.
  void leave_out(uint64_t begin, uint64_t end) {
    if (begin < end) holes.emplace(begin, end);
  }
  // The end of what was taken was not needed: room again, where nothing was written behind it.
  void give_back(uint64_t begin, uint64_t end) {
    if (end == write_end) write_end = begin;
    else leave_out(begin, end);
  }
  bool held_by(SessionId session) const { return std::find(holders.begin(), holders.end(), session) != holders.end(); }
  void hold(SessionId session) {
    if (!held_by(session)) holders.push_back(session);
  }
  bool let_go(SessionId session) { return std::erase(holders, session) > 0; }
};

}  // namespace millrace
