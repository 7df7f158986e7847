#include "segment/layout.h"

#include <string>

#include "base/crc32c.h"

namespace millrace {

namespace {

constexpr size_t kEntryCrcBegin = 4;
constexpr size_t kEntryCrcEnd = 24;
constexpr size_t kSegmentCrcBegin = 16;

uint32_t segment_number(const uint8_t* segment) {
  uint32_t number;
  std::memcpy(&number, segment + offsetof(SegmentHeader, number), sizeof(number));
  return number;
}

Status corrupt(const char* what, uint64_t offset) {
  return Status(Code::kCorrupt, std::string(what) + " in the entry at offset " + std::to_string(offset));
}

}  // namespace

Status check_key(std::string_view key) {
  if (key.empty()) return Status(Code::kInvalidArgument, "a key has at least one byte");
  if (key.size() > limits::kKeyBytesMax) {
    return Status(Code::kKeyTooLong, "a key has at most " + std::to_string(limits::kKeyBytesMax) + " bytes, this one has " +
                                         std::to_string(key.size()));
  }
  return Status();
}

void write_entry_header(uint8_t* segment, uint64_t entry_offset, EntryKind kind, std::string_view key,
                        uint64_t payload_bytes, uint32_t payload_crc, uint64_t payload_offset, uint8_t flags) {
  MILLRACE_ASSERT(key.size() <= limits::kKeyBytesMax);
  uint8_t* at = segment + entry_offset;
  auto* header = reinterpret_cast<EntryHeader*>(at);
  header->magic = kEntryMagic;
  header->key_bytes = static_cast<uint16_t>(key.size());
  header->payload_bytes = payload_bytes;
  header->payload_crc = payload_crc;
  if (payload_offset == 0) {
    payload_offset = shape_entry(entry_offset, key.size(), payload_bytes).payload_offset - entry_offset;
  }
  header->payload_offset = static_cast<uint16_t>(payload_offset);
  header->kind = kind;
  header->flags = flags;
  header->sequence = 0;
  header->state.store(static_cast<uint32_t>(EntryState::kWriting), std::memory_order_relaxed);
  header->sealed_unix_s = 0;
  if (!key.empty()) std::memcpy(at + sizeof(EntryHeader), key.data(), key.size());  // parts have none
  const uint32_t crc = crc32c(segment_number(segment), at + kEntryCrcBegin, kEntryCrcEnd - kEntryCrcBegin);
  header->header_crc = crc32c(crc, key.data(), key.size());
}

Result<Entry> read_entry(const uint8_t* segment, uint64_t segment_bytes, uint64_t entry_offset, bool verify_header) {
  if (entry_offset % limits::kEntryAlignment != 0 || entry_offset < kSegmentHeaderBytes ||
      entry_offset > segment_bytes || segment_bytes - entry_offset < sizeof(EntryHeader)) {
    return corrupt("no room for a header", entry_offset);
  }
  const uint8_t* at = segment + entry_offset;
  // A copy of the writer's fields: what is checked is what is used, whatever the other side does meanwhile.
  struct {
    uint32_t header_crc;
    uint16_t magic, key_bytes;
    uint64_t payload_bytes;
    uint32_t payload_crc;
    uint16_t payload_offset;
    uint8_t kind, flags;
  } fields;
  static_assert(sizeof(fields) == kEntryCrcEnd);
  std::memcpy(&fields, at, sizeof(fields));
  if (fields.magic != kEntryMagic) return corrupt("wrong magic", entry_offset);
  const bool joined = fields.flags == kEntryJoined && fields.kind == static_cast<uint8_t>(EntryKind::kManifest);
  if (fields.flags != 0 && !joined) return corrupt("unknown flags", entry_offset);
  if (fields.kind < static_cast<uint8_t>(EntryKind::kObject) || fields.kind > static_cast<uint8_t>(EntryKind::kPart)) {
    return corrupt("unknown kind", entry_offset);
  }
  const bool part = fields.kind == static_cast<uint8_t>(EntryKind::kPart);
  if (fields.key_bytes > limits::kKeyBytesMax || (fields.key_bytes == 0 && !part)) {
    return corrupt("bad key length", entry_offset);
  }
  if (fields.payload_bytes > segment_bytes) return corrupt("payload longer than its segment", entry_offset);
  const uint64_t payload_offset = entry_offset + fields.payload_offset;
  const uint64_t end = align_up(payload_offset + fields.payload_bytes, limits::kEntryAlignment);
  if (fields.payload_offset < sizeof(EntryHeader) + fields.key_bytes || fields.payload_offset > kPayloadOffsetMax ||
      payload_offset % limits::kEntryAlignment != 0 || end > segment_bytes) {
    return corrupt("payload outside its segment", entry_offset);
  }
  if (verify_header) {
    uint32_t crc = crc32c(segment_number(segment), reinterpret_cast<const uint8_t*>(&fields) + kEntryCrcBegin,
                          kEntryCrcEnd - kEntryCrcBegin);
    crc = crc32c(crc, at + sizeof(EntryHeader), fields.key_bytes);
    if (crc != fields.header_crc) return corrupt("header checksum mismatch", entry_offset);
  }
  const auto* header = reinterpret_cast<const EntryHeader*>(at);
  const uint32_t state = header->state.load(std::memory_order_acquire);
  if (state > static_cast<uint32_t>(EntryState::kDead)) return corrupt("unknown state", entry_offset);
  return Entry{
      .kind = static_cast<EntryKind>(fields.kind),
      .state = static_cast<EntryState>(state),
      .joined = joined,
      .key = std::string_view(reinterpret_cast<const char*>(at + sizeof(EntryHeader)), fields.key_bytes),
      .payload_offset = payload_offset,
      .payload_bytes = fields.payload_bytes,
      .payload_crc = fields.payload_crc,
      .sequence = header->sequence,
      .sealed_unix_s = header->sealed_unix_s,
      .end = end,
  };
}

void write_segment_header(uint8_t* segment, uint64_t segment_bytes, uint32_t number, std::string_view namespace_name,
                          const uint8_t token[16], uint64_t created_unix_ms) {
  MILLRACE_ASSERT(namespace_name.size() <= limits::kNamespaceNameBytesMax);
  SegmentHeader header{};
  header.magic = kSegmentMagic;
  header.version = kSegmentVersion;
  header.segment_bytes = segment_bytes;
  header.created_unix_ms = created_unix_ms;
  header.number = number;
  header.name_bytes = static_cast<uint32_t>(namespace_name.size());
  std::memcpy(header.token, token, sizeof(header.token));
  std::memcpy(header.name, namespace_name.data(), namespace_name.size());
  header.header_crc = crc32c(0, reinterpret_cast<const uint8_t*>(&header) + kSegmentCrcBegin, sizeof(header) - kSegmentCrcBegin);
  std::memcpy(segment, &header, sizeof(header));
}

Status check_segment_header(const uint8_t* segment, uint64_t mapped_bytes) {
  if (mapped_bytes < kSegmentHeaderBytes) return Status(Code::kCorrupt, "the file is too short for a segment header");
  SegmentHeader header;
  std::memcpy(&header, segment, sizeof(header));
  if (header.magic != kSegmentMagic) return Status(Code::kCorrupt, "not a segment: wrong magic");
  if (header.version != kSegmentVersion) {
    return Status(Code::kCorrupt, "segment version " + std::to_string(header.version) + " is not known here");
  }
  const uint32_t crc =
      crc32c(0, reinterpret_cast<const uint8_t*>(&header) + kSegmentCrcBegin, sizeof(header) - kSegmentCrcBegin);
  if (crc != header.header_crc) return Status(Code::kCorrupt, "segment header checksum mismatch");
  if (header.segment_bytes != mapped_bytes) return Status(Code::kCorrupt, "the segment and its file differ in size");
  if (header.name_bytes > limits::kNamespaceNameBytesMax || header.number > limits::kSegmentsPerNamespace) {
    return Status(Code::kCorrupt, "segment header out of range");
  }
  return Status();
}

Result<Manifest> read_manifest(const uint8_t* payload, uint64_t payload_bytes) {
  if (payload_bytes < sizeof(ManifestHeader)) return Status(Code::kCorrupt, "manifest too short");
  Manifest manifest;
  std::memcpy(&manifest.header, payload, sizeof(ManifestHeader));
  const uint64_t listed_bytes = manifest_bytes(manifest.header.extents, 0);
  if (manifest.header.extents > limits::kExtentsMax || payload_bytes < listed_bytes ||
      payload_bytes - listed_bytes > limits::kAttributesBytesMax || payload_bytes == sizeof(ManifestHeader)) {
    return Status(Code::kCorrupt, "manifest length and number of extents do not agree");
  }
  if (manifest.header.object_bytes > limits::kObjectBytesMax) return Status(Code::kObjectTooLarge, "manifest over the largest object");
  manifest.extents = reinterpret_cast<const ManifestExtent*>(payload + sizeof(ManifestHeader));
  manifest.attributes = {reinterpret_cast<const char*>(payload + listed_bytes), payload_bytes - listed_bytes};
  uint64_t sum = 0;
  for (uint32_t i = 0; i < manifest.header.extents; ++i) {
    const uint64_t bytes = manifest.extents[i].bytes;
    if (bytes == 0 || bytes > limits::kSegmentBytesMax) return Status(Code::kCorrupt, "manifest extent of a bad length");
    sum += bytes;
  }
  if (sum != manifest.header.object_bytes) return Status(Code::kCorrupt, "manifest extents do not add up");
  return manifest;
}

uint32_t write_manifest(uint8_t* payload, const ManifestHeader& header, const ManifestExtent* extents,
                        std::string_view attributes) {
  MILLRACE_ASSERT(attributes.size() <= limits::kAttributesBytesMax);
  std::memcpy(payload, &header, sizeof(header));
  const uint64_t listed_bytes = manifest_bytes(header.extents, 0);
  if (header.extents > 0) std::memcpy(payload + sizeof(header), extents, listed_bytes - sizeof(header));
  if (!attributes.empty()) std::memcpy(payload + listed_bytes, attributes.data(), attributes.size());
  return crc32c(0, payload, manifest_bytes(header.extents, attributes.size()));
}

}  // namespace millrace
