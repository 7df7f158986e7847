// The bytes of a segment. The same in `dram` (a shared-memory file) and in `nvme` (a file): so demotion,
// recovery and replication move or read segments and never objects.
//
//   0                    4096                                                          segment_bytes
//   +--------------------+---------+---------+-----------------+---------+-----~~-----+
//   | SegmentHeader      | entry 0 | entry 1 | entry 2 (dead)  | entry 3 |   unused   |
//   +--------------------+---------+---------+-----------------+---------+-----~~-----+
//
//   entry: +-------------+---------+-----+------------------+-----+      starts on 16 bytes
//          | EntryHeader | key     | pad | payload          | pad |      payload_offset says where the
//          +-------------+---------+-----+------------------+-----+      payload begins
//
// A segment is a log: bytes are written once and never again while anyone may see them. An object lies in
// one entry (kind object), or its bytes lie in part entries and a manifest entry lists them. An object with
// attributes always has a manifest: they lie behind its list. A joined object's manifest lists bytes of entries
// of kind object too, namely of those that it was made of, which the index no longer names.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/limits.h"
#include "base/status.h"
#include "base/units.h"

namespace millrace {

inline constexpr uint64_t kSegmentMagic = 0x314745534c4c494dull;  // "MILLSEG1" in memory
inline constexpr uint32_t kSegmentVersion = 1;
inline constexpr uint64_t kSegmentHeaderBytes = 4096;
inline constexpr uint16_t kEntryMagic = 0x4d45;

struct SegmentHeader {
  uint64_t magic;           //   0
  uint32_t version;         //   8
  uint32_t header_crc;      //  12  CRC32C of bytes [16, 128)
  uint64_t segment_bytes;   //  16
  uint64_t created_unix_ms; //  24
  uint32_t number;          //  32  of the namespace; never used twice
  uint32_t name_bytes;      //  36
  uint8_t token[16];        //  40
  char name[64];            //  56  of the namespace
  uint8_t reserved[8];      // 120
};
static_assert(sizeof(SegmentHeader) == 128);
static_assert(offsetof(SegmentHeader, segment_bytes) == 16);
static_assert(offsetof(SegmentHeader, number) == 32);
static_assert(offsetof(SegmentHeader, name) == 56);

enum class EntryKind : uint8_t { kObject = 1, kManifest = 2, kPart = 3 };
enum class EntryState : uint32_t { kWriting = 0, kSealed = 1, kDead = 2 };

// The writer fills bytes [0, 24) and the key; the daemon alone writes the rest, at seal and afterwards.
struct EntryHeader {
  uint32_t header_crc;      //  0  CRC32C of bytes [4, 24) and of the key, started from the segment's number
  uint16_t magic;           //  4
  uint16_t key_bytes;       //  6
  uint64_t payload_bytes;   //  8
  uint32_t payload_crc;     // 16  CRC32C of the payload
  uint16_t payload_offset;  // 20  from the start of the entry
  EntryKind kind;           // 22
  uint8_t flags;            // 23  kEntryJoined; all else must be zero
  uint64_t sequence;        // 24  grows with every seal of the namespace
  std::atomic<uint32_t> state;  // 32  EntryState
  uint32_t sealed_unix_s;   // 36
};
static_assert(sizeof(EntryHeader) == 40);
static_assert(offsetof(EntryHeader, payload_bytes) == 8);
static_assert(offsetof(EntryHeader, kind) == 22);
static_assert(offsetof(EntryHeader, sequence) == 24);
static_assert(offsetof(EntryHeader, state) == 32);

// Of a manifest: some of the bytes that it lists lie in entries that bear other keys.
inline constexpr uint8_t kEntryJoined = 1;

// Payload of a manifest entry: this header, then `extents` times ManifestExtent, then the attributes: all of the
// rest, opaque here, often none. There are no extents only where the object is empty and has attributes.
struct ManifestHeader {
  uint64_t object_bytes;  //  0  sum of the extents' lengths
  uint32_t object_crc;    //  8  CRC32C of the whole object
  uint32_t extents;       // 12
};
static_assert(sizeof(ManifestHeader) == 16);

struct ManifestExtent {
  uint32_t segment;  //  0
  uint32_t crc;      //  4  CRC32C of these bytes
  uint64_t offset;   //  8  of the part's payload in the segment
  uint64_t bytes;    // 16
};
static_assert(sizeof(ManifestExtent) == 24);

// Large payloads start on a cache line, so that kernels may write them with streaming stores.
constexpr uint64_t payload_alignment(uint64_t payload_bytes) { return payload_bytes >= 4096 ? 64 : 16; }

// Where an entry that starts at `entry_offset` would put its payload, and where it would end.
struct EntryShape {
  uint64_t payload_offset;  // in the segment
  uint64_t end;             // in the segment, on 16 bytes: the next entry may start here
};
constexpr EntryShape shape_entry(uint64_t entry_offset, uint64_t key_bytes, uint64_t payload_bytes) {
  const uint64_t payload = align_up(entry_offset + sizeof(EntryHeader) + key_bytes, payload_alignment(payload_bytes));
  return {payload, align_up(payload + payload_bytes, limits::kEntryAlignment)};
}
// As far from its entry as a payload may start: key and alignment.
inline constexpr uint64_t kPayloadOffsetMax = sizeof(EntryHeader) + limits::kKeyBytesMax + 64;
// The most that an entry takes, wherever it starts.
constexpr uint64_t entry_bytes_max(uint64_t key_bytes, uint64_t payload_bytes) {
  return sizeof(EntryHeader) + key_bytes + payload_alignment(payload_bytes) + payload_bytes + limits::kEntryAlignment;
}

// INVALID_ARGUMENT or KEY_TOO_LONG for what cannot be the key of an object.
Status check_key(std::string_view key);

// Writes the writer's part of an entry header and the key. `payload_crc` is that of the payload, which starts
// `payload_offset` bytes after the entry; 0 means where shape_entry puts it. The number in the segment's header
// goes into the entry's checksum, so that what is left of an earlier life of the memory is never taken for one.
void write_entry_header(uint8_t* segment, uint64_t entry_offset, EntryKind kind, std::string_view key,
                        uint64_t payload_bytes, uint32_t payload_crc, uint64_t payload_offset = 0, uint8_t flags = 0);

// The daemon's part of an entry's header. The state last: who finds it finds the rest.
inline void mark_sealed(uint8_t* segment, uint64_t entry_offset, uint64_t sequence, uint32_t sealed_unix_s) {
  auto* header = reinterpret_cast<EntryHeader*>(segment + entry_offset);
  header->sequence = sequence;
  header->sealed_unix_s = sealed_unix_s;
  header->state.store(static_cast<uint32_t>(EntryState::kSealed), std::memory_order_release);
}

inline void mark_dead(uint8_t* segment, uint64_t entry_offset) {
  reinterpret_cast<EntryHeader*>(segment + entry_offset)
      ->state.store(static_cast<uint32_t>(EntryState::kDead), std::memory_order_release);
}

// A checked look at an entry. Views point into the segment.
struct Entry {
  EntryKind kind;
  EntryState state;
  bool joined;
  std::string_view key;
  uint64_t payload_offset;  // in the segment
  uint64_t payload_bytes;
  uint32_t payload_crc;
  uint64_t sequence;
  uint32_t sealed_unix_s;
  uint64_t end;  // in the segment
};

// Checks every field of the entry at `entry_offset` against `segment_bytes` and, if asked, its header CRC.
// kCorrupt says what is wrong. The segment may be shared with a writer that is still at work, or hostile:
// fields are copied before they are checked.
Result<Entry> read_entry(const uint8_t* segment, uint64_t segment_bytes, uint64_t entry_offset, bool verify_header);

void write_segment_header(uint8_t* segment, uint64_t segment_bytes, uint32_t number, std::string_view namespace_name,
                          const uint8_t token[16], uint64_t created_unix_ms);
Status check_segment_header(const uint8_t* segment, uint64_t mapped_bytes);

// Checks a manifest's payload: its header, the number of extents, that their lengths add up, and the attributes' length.
struct Manifest {
  ManifestHeader header;
  const ManifestExtent* extents;  // may be unaligned storage's aligned start: payloads start on 16 bytes
  std::string_view attributes;    // in the payload
};
Result<Manifest> read_manifest(const uint8_t* payload, uint64_t payload_bytes);

constexpr uint64_t manifest_bytes(uint64_t extents, uint64_t attributes_bytes) {
  return sizeof(ManifestHeader) + extents * sizeof(ManifestExtent) + attributes_bytes;
}
// Writes the payload of a manifest, manifest_bytes() of it, and returns its CRC32C.
uint32_t write_manifest(uint8_t* payload, const ManifestHeader& header, const ManifestExtent* extents,
                        std::string_view attributes);

}  // namespace millrace
