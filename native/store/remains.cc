#include "store/remains.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <filesystem>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <tuple>
#include <unordered_map>

#include "base/hash.h"
#include "index/index_view.h"
#include "store/segment.h"

namespace millrace {

namespace {

// Below it a second thread costs more than it saves.
constexpr size_t kWordsWorthAThread = 8192;

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

// The number in "<number>.seg".
std::optional<uint32_t> number_of(std::string_view name) {
  if (!name.ends_with(".seg")) return std::nullopt;
  name.remove_suffix(4);
  uint32_t number = 0;
  const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (failed != std::errc() || end != name.data() + name.size() || number == 0 || number > limits::kSegmentsPerNamespace) {
    return std::nullopt;
  }
  return number;
}

// What the index file says.
struct IndexRemains {
  std::vector<uint64_t> words;  // each once, in no order
  uint64_t last_sequence = 0;
  uint64_t sealed_total = 0;
  uint32_t next_segment = 1;
  bool torn_tables = false;  // the writer died while it moved a table
};

// Read and not mapped: a look at a page that the file does not have would give it one.
Result<IndexRemains> read_index(const std::string& path) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (file.get() < 0) {
    if (errno == ENOENT || errno == ENOTDIR) return Status(Code::kNotFound, "nothing is left: there is no " + path);
    return Status::from_errno(path.c_str(), errno);
  }
  const auto corrupt = [&](const char* what) { return Status(Code::kCorrupt, path + " is no index: " + what); };
  const auto read = [&](void* to, uint64_t bytes, uint64_t offset) {
    auto* at = static_cast<uint8_t*>(to);
    while (bytes > 0) {
      const ssize_t got = pread(file.get(), at, bytes, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      at += got;
      offset += static_cast<uint64_t>(got);
      bytes -= static_cast<uint64_t>(got);
    }
    return true;
  };
  alignas(64) uint8_t page[kIndexHeaderBytes];
  if (!read(page, sizeof(page), 0)) return corrupt("too short");
  const auto& header = *reinterpret_cast<const IndexHeader*>(page);
  if (header.magic != kIndexMagic) return corrupt("wrong magic");
  if (header.version != kIndexVersion) return corrupt("a version that is not known here");
  if (header.closed.load() != 0) return Status(Code::kNotFound, "the namespace was dropped");
  IndexRemains index;
  index.last_sequence = header.last_sequence.load();
  index.sealed_total = header.sealed_total.load();
  index.next_segment = header.next_segment.load();
  index.torn_tables = (header.generation.load() & 1) != 0;

  const uint64_t directory = header.directory.load();
  const uint64_t depth = directory & 0xff;
  if (depth > kDepthMax || (directory >> 8) + (uint64_t{4} << depth) > limits::kIndexBytesMax) return corrupt("its directory");
  std::vector<uint32_t> tables(uint64_t{1} << depth);
  if (!read(tables.data(), tables.size() * 4, directory >> 8)) return corrupt("its directory");
  std::sort(tables.begin(), tables.end());
  tables.erase(std::unique(tables.begin(), tables.end()), tables.end());
  std::vector<uint64_t> slots(kTableSlots);
  for (uint32_t table : tables) {
    if (table == 0 || uint64_t{table} * 4096 + kTableBytes > limits::kIndexBytesMax) return corrupt("a table");
    if (!read(slots.data(), kTableBytes, uint64_t{table} * 4096)) return corrupt("a table");
    for (uint64_t word : slots) {
      if (word != kSlotEmpty && word != kSlotRemoved) index.words.push_back(word);
    }
  }
  if (index.torn_tables) {
    std::sort(index.words.begin(), index.words.end());
    index.words.erase(std::unique(index.words.begin(), index.words.end()), index.words.end());
  }
  return index;
}

class Reading {
 public:
  Reading(const RemainsPlaces& places, const Token& token, std::string_view name) : places_(places), token_(token) {
    remains_.name = name;
  }
  ~Reading() {
    // Whatever was not handed over stays as it was found.
    for (Found& found : found_) {
      if (found.segment.memory) found.segment.memory->keep();
      if (found.segment.file) found.segment.file->keep();
    }
  }

  Result<Remains> run();

 private:
  // A file whose name is that of a segment.
  struct Found {
    std::string path;  // of one in memory
    bool huge = false;
    bool opened = false;
    bool holds = false;  // its header does
    bool used = false;   // something in it lives
    std::vector<uint64_t> words;  // of the index, that lead here
    Remains::Segment segment;
    std::vector<uint32_t> manifests;  // of its objects
    uint64_t torn = 0;
  };

  void list();
  Found* at(uint32_t number) {
    auto known = index_of_.find(number);
    return known == index_of_.end() ? nullptr : &found_[known->second];
  }
  bool open(Found& found);
  Status check_header(const uint8_t* bytes, uint64_t file_bytes, const Found& found);
  void read_entries(Found& found);
  void drop_duplicates();
  void drop_joined();
  void drop_marked();
  bool extents_hold(Found& found, const Remains::Object& object, std::vector<ManifestExtent>* extents);
  void account();
  template <class Run>
  void for_each_found(size_t words, Run run);

  const RemainsPlaces& places_;
  const Token token_;
  Remains remains_;
  std::vector<Found> found_;  // by number
  std::unordered_map<uint32_t, size_t> index_of_;
  IndexRemains index_;
};

void Reading::list() {
  std::error_code ignored;
  const auto add = [&](uint32_t number, std::string path, bool huge) {
    Found& found = found_.emplace_back();
    found.segment.number = number;
    found.path = std::move(path);
    found.huge = huge;
  };
  for (const auto& [folder, huge] : places_.folders) {
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
      if (auto number = number_of(entry.path().filename().native())) add(*number, entry.path().string(), huge);
    }
  }
  for (const std::string& name : places_.file_names) {
    if (auto number = number_of(name)) add(*number, "", false);
  }
  std::stable_sort(found_.begin(), found_.end(),
                   [](const Found& a, const Found& b) { return a.segment.number < b.segment.number; });
  for (size_t i = 0; i < found_.size(); ++i) index_of_.emplace(found_[i].segment.number, i);
}

Status Reading::check_header(const uint8_t* bytes, uint64_t file_bytes, const Found& found) {
  SegmentHeader header;
  std::memcpy(&header, bytes, sizeof(header));
  // A file may be shorter than was planned: what was found damaged was left out of it.
  const bool planned = found.segment.file && header.segment_bytes >= file_bytes;
  if (Status bad = check_segment_header(bytes, planned ? header.segment_bytes : file_bytes); !bad.ok()) return bad;
  if (header.number != found.segment.number) return Status(Code::kCorrupt, "another segment's header");
  if (std::memcmp(header.token, token_.data(), token_.size()) != 0) return Status(Code::kCorrupt, "another namespace's header");
  const std::string_view name(header.name, header.name_bytes);
  if (remains_.name.empty()) remains_.name = name;
  if (name != remains_.name) return Status(Code::kCorrupt, "the header of namespace '" + std::string(name) + "'");
  return Status();
}

// Opens the segment and checks its header, once. Whether it holds.
bool Reading::open(Found& found) {
  if (std::exchange(found.opened, true)) return found.holds;
  if (!found.path.empty()) {
    auto memory = places_.open_memory(found.path, found.huge);
    if (!memory.ok()) return false;
    found.segment.memory = std::move(*memory);
    if (found.segment.memory->bytes() < kSegmentHeaderBytes) return false;
    found.holds = check_header(found.segment.memory->data(), found.segment.memory->bytes(), found).ok();
  } else {
    auto file = places_.open_file(segment_file_name(found.segment.number));
    if (!file.ok()) return false;
    found.segment.file = std::move(*file);
    auto header = places_.reader->read_now(found.segment.file, 0, kSegmentHeaderBytes);
    found.holds = header.ok() && check_header(header->data, found.segment.file->bytes(), found).ok();
  }
  return found.holds;
}

// The entries of one segment in memory that the index names, in their order: so is memory read fastest.
void Reading::read_entries(Found& found) {
  if (found.words.empty()) return;
  if (!found.holds || !found.segment.memory) {
    found.torn += found.words.size();
    return;
  }
  std::sort(found.words.begin(), found.words.end());
  found.segment.objects.reserve(found.words.size());
  const uint8_t* data = found.segment.memory->data();
  const uint64_t bytes = found.segment.memory->bytes();
  uint64_t taken_end = kSegmentHeaderBytes;
  for (size_t i = 0; i < found.words.size(); ++i) {
    constexpr size_t kAhead = 8;
    if (i + kAhead < found.words.size()) {
      const uint64_t offset = unpack_slot(found.words[i + kAhead]).entry_offset;
      if (offset < bytes) __builtin_prefetch(data + offset);
    }
    const uint64_t word = found.words[i];
    const uint64_t offset = unpack_slot(word).entry_offset;
    auto entry = read_entry(data, bytes, offset, true);
    ++found.torn;
    if (!entry.ok() || entry->state != EntryState::kSealed || entry->kind == EntryKind::kPart || offset < taken_end) continue;
    const uint64_t hash = hash_key(entry->key);
    if ((hash & 0xffff) != (word & 0xffff)) continue;
    const bool manifest = entry->kind == EntryKind::kManifest;
    uint64_t size = entry->payload_bytes;
    if (manifest) {
      auto lists = read_manifest(data + entry->payload_offset, entry->payload_bytes);
      if (!lists.ok()) continue;
      size = lists->header.object_bytes;
      found.manifests.push_back(static_cast<uint32_t>(found.segment.objects.size()));
    }
    --found.torn;
    taken_end = entry->end;
    found.segment.objects.push_back({hash, offset, entry->end, size, entry->sequence, manifest, entry->joined});
  }
  found.words = {};
}

// Keys that two entries have: the younger counts. The index never names two, unless a table was being moved.
void Reading::drop_duplicates() {
  if (!index_.torn_tables) return;
  struct Named {
    Found* found;
    size_t object;
    uint64_t hash;
    uint64_t sequence;
  };
  std::vector<Named> all;
  for (Found& found : found_) {
    for (size_t i = 0; i < found.segment.objects.size(); ++i) {
      const Remains::Object& object = found.segment.objects[i];
      all.push_back({&found, i, object.hash, object.sequence});
    }
  }
  std::sort(all.begin(), all.end(), [](const Named& a, const Named& b) {
    return a.hash != b.hash ? a.hash < b.hash : a.sequence > b.sequence;
  });
  const auto key_of = [](const Named& named) {
    const SharedMemory& memory = *named.found->segment.memory;
    auto entry = read_entry(memory.data(), memory.bytes(), named.found->segment.objects[named.object].entry_offset, false);
    return entry.ok() ? entry->key : std::string_view();
  };
  std::vector<const Named*> older;
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t j = i; j-- > 0 && all[j].hash == all[i].hash;) {
      if (key_of(all[j]) != key_of(all[i])) continue;
      older.push_back(&all[i]);
      break;
    }
  }
  for (const Named* named : older) named->found->segment.objects[named->object].end = 0;
  if (!older.empty()) drop_marked();
}

// Objects whose bytes a younger joined object has.
void Reading::drop_joined() {
  struct Claim {
    uint32_t segment;
    uint64_t offset;
    uint64_t sequence;
    bool operator<(const Claim& other) const {
      return std::tie(segment, offset, sequence) < std::tie(other.segment, other.offset, other.sequence);
    }
  };
  std::vector<Claim> claims;
  std::vector<ManifestExtent> extents;
  for (Found& found : found_) {
    for (uint32_t i : found.manifests) {
      const Remains::Object& object = found.segment.objects[i];
      if (!object.joined || !extents_hold(found, object, &extents)) continue;
      for (const ManifestExtent& extent : extents) claims.push_back({extent.segment, extent.offset, object.sequence});
    }
  }
  if (claims.empty()) return;
  std::sort(claims.begin(), claims.end());
  // The first claim above what is looked for is that of a younger object, or of other bytes.
  const auto claimed = [&](uint32_t segment, uint64_t offset, uint64_t sequence) {
    const auto claim = std::upper_bound(claims.begin(), claims.end(), Claim{segment, offset, sequence});
    return claim != claims.end() && claim->segment == segment && claim->offset == offset;
  };
  bool any = false;
  for (Found& found : found_) {
    for (Remains::Object& object : found.segment.objects) {
      bool gone = false;
      if (object.manifest) {
        gone = extents_hold(found, object, &extents) && std::any_of(extents.begin(), extents.end(), [&](const auto& extent) {
          return claimed(extent.segment, extent.offset, object.sequence);
        });
      } else {
        const SharedMemory& memory = *found.segment.memory;
        auto entry = read_entry(memory.data(), memory.bytes(), object.entry_offset, false);
        gone = entry.ok() && claimed(found.segment.number, entry->payload_offset, object.sequence);
      }
      if (gone) object.end = 0;
      any |= gone;
    }
  }
  if (any) drop_marked();
}

// Objects that were given no end.
void Reading::drop_marked() {
  for (Found& found : found_) {
    std::erase_if(found.segment.objects, [](const Remains::Object& object) { return object.end == 0; });
    found.manifests.clear();
    for (size_t i = 0; i < found.segment.objects.size(); ++i) {
      if (found.segment.objects[i].manifest) found.manifests.push_back(static_cast<uint32_t>(i));
    }
  }
}

// Copied before they are checked: a client of the earlier life may still write to what it was granted.
bool Reading::extents_hold(Found& found, const Remains::Object& object, std::vector<ManifestExtent>* extents) {
  const SharedMemory& memory = *found.segment.memory;
  auto entry = read_entry(memory.data(), memory.bytes(), object.entry_offset, false);
  if (!entry.ok() || entry->kind != EntryKind::kManifest) return false;
  auto manifest = read_manifest(memory.data() + entry->payload_offset, entry->payload_bytes);
  if (!manifest.ok()) return false;
  extents->resize(manifest->header.extents);
  if (!extents->empty()) std::memcpy(extents->data(), manifest->extents, extents->size() * sizeof(ManifestExtent));
  return std::all_of(extents->begin(), extents->end(), [&](const ManifestExtent& extent) {
    Found* part = at(extent.segment);
    if (part == nullptr || !open(*part)) return false;
    const uint64_t bytes = part->segment.bytes();
    return extent.offset >= kSegmentHeaderBytes && extent.offset <= bytes && extent.bytes <= bytes - extent.offset;
  });
}

// What lives where, counted as a namespace does when it publishes.
void Reading::account() {
  std::vector<ManifestExtent> extents;
  for (Found& found : found_) {
    for (uint32_t i : found.manifests) {
      Remains::Object& object = found.segment.objects[i];
      if (!extents_hold(found, object, &extents)) {
        object.end = 0;
        ++found.torn;
        continue;
      }
      for (const ManifestExtent& extent : extents) {
        Found& part = *at(extent.segment);
        part.used = true;
        part.segment.live_bytes += extent.bytes;
        if (!part.segment.memory) continue;
        const uint64_t entry_offset =
            find_part_entry(part.segment.memory->data(), part.segment.bytes(), extent.offset, extent.bytes);
        if (entry_offset == 0) continue;
        part.segment.parts.push_back(entry_offset);
        part.segment.live.emplace_back(entry_offset, align_up(extent.offset + extent.bytes, limits::kEntryAlignment));
      }
    }
  }
  for (Found& found : found_) {
    Remains::Segment& segment = found.segment;
    if (!found.manifests.empty()) std::erase_if(segment.objects, [](const Remains::Object& object) { return object.end == 0; });
    segment.live.reserve(segment.live.size() + segment.objects.size());
    for (const Remains::Object& object : segment.objects) {
      segment.live_bytes += object.end - object.entry_offset;
      segment.live.emplace_back(object.entry_offset, object.end);
      remains_.size_bytes += object.size_bytes;
      remains_.last_sequence = std::max(remains_.last_sequence, object.sequence);
    }
    if (!found.manifests.empty() || found.used) std::sort(segment.live.begin(), segment.live.end());
    remains_.objects += segment.objects.size();
    remains_.torn += found.torn;
    found.used |= !segment.objects.empty();
  }
}

// In any order, by two threads where there is much to do.
template <class Run>
void Reading::for_each_found(size_t words, Run run) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < found_.size();) run(found_[i]);
  };
  std::thread second;
  if (words >= kWordsWorthAThread) second = std::thread(work);
  work();
  if (second.joinable()) second.join();
}

Result<Remains> Reading::run() {
  if (places_.folders.empty()) return Status(Code::kNotFound, "memory has no names here");
  auto index = read_index(places_.folders.front().first + "/" + kIndexFileName);
  if (!index.ok()) return index.status();
  index_ = std::move(*index);
  list();
  remains_.last_sequence = index_.last_sequence;
  remains_.sealed_total = index_.sealed_total;
  remains_.next_segment = std::max(index_.next_segment, uint32_t{1});
  if (!found_.empty()) remains_.next_segment = std::max(remains_.next_segment, found_.back().segment.number + 1);

  Found* last = nullptr;
  for (const uint64_t word : index_.words) {
    const uint32_t number = unpack_slot(word).segment;
    remains_.next_segment = std::max(remains_.next_segment, number + 1);
    if (last == nullptr || last->segment.number != number) last = at(number);
    if (last == nullptr) ++remains_.torn;
    else last->words.push_back(word);
  }
  const size_t words = index_.words.size();
  index_.words = {};
  for (Found& found : found_) {
    if (!found.words.empty()) (void)open(found);
  }
  for_each_found(words, [&](Found& found) { read_entries(found); });
  drop_duplicates();
  drop_joined();
  account();
  for (Found& found : found_) {
    if (!found.segment.memory && !found.segment.file) continue;
    (found.used ? remains_.segments : remains_.dead).push_back(std::move(found.segment));
  }
  found_.clear();
  return std::move(remains_);
}

}  // namespace

void Remains::keep() {
  for (auto* list : {&segments, &dead}) {
    for (Segment& segment : *list) {
      if (segment.memory) segment.memory->keep();
      if (segment.file) segment.file->keep();
    }
  }
}

Result<Remains> read_remains(const RemainsPlaces& places, const Token& token, std::string_view name) {
  return Reading(places, token, name).run();
}

// Entries of parts lie directly before their payload, as far as key and alignment make it.
uint64_t find_part_entry(const uint8_t* segment, uint64_t segment_bytes, uint64_t payload_offset, uint64_t payload_bytes) {
  for (uint64_t back = align_up(sizeof(EntryHeader), limits::kEntryAlignment);
       back <= kPayloadOffsetMax && back + kSegmentHeaderBytes <= payload_offset; back += limits::kEntryAlignment) {
    const uint64_t entry_offset = payload_offset - back;
    uint16_t magic, offset_field;
    std::memcpy(&magic, segment + entry_offset + offsetof(EntryHeader, magic), sizeof(magic));
    std::memcpy(&offset_field, segment + entry_offset + offsetof(EntryHeader, payload_offset), sizeof(offset_field));
    if (magic != kEntryMagic || offset_field != back) continue;
    auto entry = read_entry(segment, segment_bytes, entry_offset, true);
    if (entry.ok() && entry->kind != EntryKind::kManifest && entry->payload_bytes == payload_bytes) return entry_offset;
  }
  return 0;
}

}  // namespace millrace
