// Relocation: the live objects of some segments are written anew, to a file of the `nvme` tier or to other memory,
// and the segments die of it. Demotion, promotion and the cleaner are all this.
//
//   collect (lock)  what lives in the victims, by walking their entries; the victims take no more writers
//   copy            payloads to the target, checking their CRC32C in the same pass; no lock is held
//   publish (lock)  a new entry for each object that is still what it was, the index word, then the old one is dead
//
// Readers never wait: who has found the old entry reads the old bytes, which stay until it lets go. What is killed
// midway leaves the old entries in place and the new bytes unreferenced.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "store/namespace_impl.h"

namespace millrace {

enum class RelocateTo { kFile, kMemory };

struct Relocated {
  Status status;            // of the tier; objects that were moved before it failed are where they should be
  uint64_t bytes = 0;       // payload moved
  uint64_t objects = 0;
};

// An object below so many bytes stays in memory when its segment is demoted: what would point to it there takes
// about as much.
inline constexpr uint64_t kDemotedBytesMin = 256;

// Moves what lives in `victims`, which are segments of `ns` that nobody writes to. One call at a time for a node.
Relocated relocate(Namespace::Impl& ns, const std::vector<std::shared_ptr<Segment>>& victims, RelocateTo to);

struct Move;

// Brings one object back into memory, whole: reading begins with the first call, so several can be under way.
class Promotion {
 public:
  // `in` is the inside of `ns`.
  Promotion(std::shared_ptr<Namespace> ns, Namespace::Impl& in, std::string key);
  ~Promotion();
  // Waits for what is read. False where the object is in memory, too large, gone, or changed meanwhile.
  Result<bool> finish();

 private:
  struct Read;
  const std::shared_ptr<Namespace> ns_;
  Namespace::Impl& in_;
  const std::string key_;
  std::unique_ptr<Move> move_;                       // null: nothing to be done
  std::vector<std::shared_ptr<Segment>> segments_;   // by extent
  std::vector<std::shared_ptr<Read>> reads_;         // null: in memory
};

}  // namespace millrace
