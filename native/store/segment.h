// A segment as the daemon sees it. Fields but `memory` belong to its namespace's lock.
#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "store/store.h"

namespace millrace {

inline constexpr SessionId kNobody = ~SessionId{0};
inline constexpr SessionId kDaemon = 0;

class Segment {
 public:
  Segment(uint32_t number, std::shared_ptr<SharedMemory> memory) : number(number), memory(std::move(memory)) {}

  const uint32_t number;
  const std::shared_ptr<SharedMemory> memory;

  SessionId writer = kNobody;     // whose grant it is
  uint64_t write_end = kSegmentHeaderBytes;  // bytes below are taken: sealed, being filled, or dead
  std::map<uint64_t, uint64_t> holes;  // what the grant's session left out below write_end: begin to end
  uint64_t live_bytes = 0;        // of sealed entries
  uint32_t drafts = 0;            // unsealed entries that the daemon is filling
  bool retired = false;
  std::vector<SessionId> holders; // sessions that were handed its descriptor and have not confirmed

  uint8_t* data() const { return memory->data(); }
  uint64_t bytes() const { return memory->bytes(); }
  uint64_t room() const { return bytes() - write_end; }
  // Takes the bytes of an entry that a session seals, in whatever order it seals. False where any of them are
  // taken already or lie before its grant: the headers there are the client's to write, so they prove nothing.
  bool take(uint64_t begin, uint64_t end) {
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
  // Ends the grant: what it left out stays so.
  void end_grant() {
    writer = kNobody;
    holes.clear();
  }
  bool held_by(SessionId session) const { return std::find(holders.begin(), holders.end(), session) != holders.end(); }
  void hold(SessionId session) {
    if (!held_by(session)) holders.push_back(session);
  }
  bool let_go(SessionId session) { return std::erase(holders, session) > 0; }
};

}  // namespace millrace
