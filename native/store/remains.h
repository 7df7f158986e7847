// What an earlier life of a node left of a namespace: its segments, and the index that tells what in them lives.
// Reads, and writes nothing; recovery and inspection are both made of it.
//
// The index is the truth: an object lives if a table that the index's directory shows names its entry, and the
// entry's header holds. That is so at whatever instruction the writer died. While a table was split, the old one and
// the new ones together name every entry. Payloads are not read. Who died in the middle of a join left the joined object
// and some of what it was made of: then the join counts as done.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "segment/shared_memory.h"
#include "store/store.h"
#include "tier/segment_file.h"

namespace millrace {

struct Remains {
  // An entry that the index names.
  struct Object {
    uint64_t hash;  // of its key
    uint64_t entry_offset;
    uint64_t end;
    uint64_t size_bytes;
    uint64_t sequence;
    bool manifest;
    bool joined;
  };
  struct Segment {
    uint32_t number = 0;
    // One of them. They are removed at their end unless told to stay.
    std::shared_ptr<SharedMemory> memory;
    std::shared_ptr<SegmentFile> file;
    std::vector<Object> objects;   // by offset
    uint64_t live_bytes = 0;       // as a namespace counts them
    // Of one in memory: all entries that live, by offset; begin to end.
    std::vector<std::pair<uint64_t, uint64_t>> live;
    std::vector<uint64_t> parts;   // those of them that are parts, where they begin
    uint64_t bytes() const { return memory ? memory->bytes() : file->bytes(); }
    const std::string& path() const { return memory ? memory->path() : file->path(); }
  };

  std::string name;               // of the namespace, as its segments tell; empty where there are none
  std::vector<Segment> segments;  // those that something in them lives of, by number
  // Those that are there for nothing: files that the index does not lead to are in neither list.
  std::vector<Segment> dead;
  uint64_t objects = 0;
  uint64_t size_bytes = 0;
  uint64_t torn = 0;              // entries that the index names and that do not hold: left out
  uint64_t last_sequence = 0;
  uint64_t sealed_total = 0;
  uint32_t next_segment = 1;      // above every number ever seen

  // All files stay when this ends.
  void keep();
};

// Where to look.
struct RemainsPlaces {
  std::vector<std::pair<std::string, bool>> folders;  // of the namespace's memory; whether in huge pages
  std::vector<std::string> file_names;                // of its segments in the `nvme` tier
  std::function<Result<std::shared_ptr<SharedMemory>>(const std::string& path, bool huge)> open_memory;
  std::function<Result<std::shared_ptr<SegmentFile>>(const std::string& name)> open_file;
  FileReader* reader = nullptr;
};

inline constexpr const char* kIndexFileName = "index";

// NOT_FOUND where there is no index, or it is that of a namespace that was dropped; CORRUPT where it is none.
// `name`, where given, is what the segments' headers have to say.
Result<Remains> read_remains(const RemainsPlaces& places, const Token& token, std::string_view name);

// Where in `segment` the entry of the part, or of the object that became one, begins whose payload is at
// `payload_offset`; 0 where there is none.
uint64_t find_part_entry(const uint8_t* segment, uint64_t segment_bytes, uint64_t payload_offset, uint64_t payload_bytes);

}  // namespace millrace
