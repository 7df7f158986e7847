#include "store/inspect.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>
#include <unordered_map>

#include "base/crc32c.h"
#include "store/remains.h"

namespace millrace {

namespace {

Result<std::shared_ptr<SegmentFile>> find_file(const std::vector<std::string>& folders, const std::string& name) {
  for (const std::string& folder : folders) {
    const std::string path = folder + "/" + name;
    auto found = open_segment_file(path);
    if (found.code() == Code::kNotFound) continue;
    if (!found.ok()) return found.status();
    auto file = std::make_shared<SegmentFile>(found->fd, found->bytes, path);
    file->keep();
    return file;
  }
  return Status(Code::kNotFound, "there is no " + name);
}

class Verifier {
 public:
  Verifier(const Remains& remains, FileReader& reader) : reader_(reader) {
    for (const Remains::Segment& segment : remains.segments) by_number_.emplace(segment.number, &segment);
  }

  // Nothing where all of the object is as it was sealed.
  std::optional<ScrubPage::Damage> check(const Remains::Segment& segment, const Remains::Object& object) {
    auto entry = read_entry(segment.memory->data(), segment.memory->bytes(), object.entry_offset, true);
    if (!entry.ok()) return ScrubPage::Damage{"", segment.number, entry.status().message()};
    const std::string key(entry->key);
    const uint8_t* payload = segment.memory->data() + entry->payload_offset;
    if (crc32c(0, payload, entry->payload_bytes) != entry->payload_crc) return mismatch(key, segment.number);
    if (entry->kind != EntryKind::kManifest) return std::nullopt;
    auto manifest = read_manifest(payload, entry->payload_bytes);
    if (!manifest.ok()) return ScrubPage::Damage{key, segment.number, manifest.status().message()};
    for (uint32_t i = 0; i < manifest->header.extents; ++i) {
      const ManifestExtent& extent = manifest->extents[i];
      const Status status = check_extent(extent);
      if (status.code() == Code::kChecksumMismatch) return mismatch(key, extent.segment);
      if (!status.ok()) return ScrubPage::Damage{key, extent.segment, "object '" + key + "': " + status.message()};
    }
    return std::nullopt;
  }

 private:
  static ScrubPage::Damage mismatch(const std::string& key, uint32_t segment) {
    return {key, segment,
            "object '" + key + "': its bytes in segment " + std::to_string(segment) + " do not match their checksum"};
  }

  Status check_extent(const ManifestExtent& extent) {
    const auto found = by_number_.find(extent.segment);
    if (found == by_number_.end()) {
      return Status(Code::kCorrupt, "segment " + std::to_string(extent.segment) + " is not there");
    }
    const Remains::Segment& segment = *found->second;
    uint32_t crc = 0;
    if (segment.memory) {
      crc = crc32c(0, segment.memory->data() + extent.offset, extent.bytes);
    } else {
      for (uint64_t at = 0; at < extent.bytes;) {
        const uint64_t now = std::min(extent.bytes - at, limits::kReadAheadBytesMax);
        auto bytes = reader_.read_now(segment.file, extent.offset + at, now);
        if (!bytes.ok()) return bytes.status();
        crc = crc32c(crc, bytes->data, now);
        at += now;
      }
    }
    return crc == extent.crc ? Status() : Status(Code::kChecksumMismatch, "");
  }

  FileReader& reader_;
  std::unordered_map<uint32_t, const Remains::Segment*> by_number_;
};

}  // namespace

Result<Inspection> inspect(const InspectPlaces& places) {
  FileReader reader;
  RemainsPlaces where;
  for (const std::string& folder : places.memory_folders) where.folders.emplace_back(folder, !where.folders.empty());
  std::set<std::string> names;
  for (const std::string& folder : places.nvme_folders) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      names.insert(entry.path().filename().string());
    }
  }
  where.file_names.assign(names.begin(), names.end());
  // Everything opened here is told to stay before anything else is done with it.
  where.open_memory = [](const std::string& path, bool huge) {
    auto memory = SharedMemory::open_file(path, Mapping::Access::kRead, huge);
    if (memory.ok()) (*memory)->keep();
    return memory;
  };
  where.open_file = [&](const std::string& name) { return find_file(places.nvme_folders, name); };
  where.reader = &reader;
  auto remains = read_remains(where, places.token, places.name);
  if (!remains.ok()) return remains.status();

  Inspection inspection;
  inspection.objects = remains->objects;
  inspection.size_bytes = remains->size_bytes;
  inspection.torn = remains->torn;
  for (const auto* list : {&remains->segments, &remains->dead}) {
    for (const Remains::Segment& segment : *list) {
      inspection.segments.push_back({segment.number, segment.file != nullptr, segment.path(), segment.bytes(),
                                     segment.live_bytes, segment.objects.size()});
    }
  }
  std::sort(inspection.segments.begin(), inspection.segments.end(),
            [](const auto& a, const auto& b) { return a.number < b.number; });
  if (!places.verify) return inspection;
  Verifier verifier(*remains, reader);
  for (const Remains::Segment& segment : remains->segments) {
    for (const Remains::Object& object : segment.objects) {
      if (auto damage = verifier.check(segment, object)) inspection.damaged.push_back(std::move(*damage));
    }
  }
  return inspection;
}

}  // namespace millrace
