// A same-host client as the transports make one, without the socket between: it has its own mappings of what it
// was handed by descriptor, looks up in the index by itself, writes entries into its grants and seals them.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "index/index_view.h"
#include "store/store.h"
#include "test/test_support.h"

namespace millrace::test {

inline Store::Options store_options(uint64_t dram_bytes = 512 * MiB, uint64_t retire_grace_ms = 2000) {
  Store::Options options;
  options.dram.limit_bytes = dram_bytes;
  options.dram.huge_pages = HugePages::kOff;
  options.retire_grace_ms = retire_grace_ms;
  return options;
}

inline std::shared_ptr<Namespace> make_namespace(Store& store, std::string_view name, NamespaceOptions options = {}) {
  auto created = store.create(name, options);
  EXPECT_OK(created);
  return created.ok() ? *created : nullptr;
}

inline ConstSpan span_of(const std::vector<uint8_t>& bytes) { return {bytes.data(), bytes.size()}; }
inline ConstSpan span_of(std::string_view bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}

inline std::vector<uint8_t> join(const ObjectView& view) {
  std::vector<uint8_t> bytes;
  for (const ConstSpan& span : view.spans) bytes.insert(bytes.end(), span.data, span.data + span.bytes);
  return bytes;
}

// Whether the object in view is version `version` of `key`, each byte of it.
inline ::testing::AssertionResult shows(const Result<ObjectView>& view, std::string_view key, uint64_t version,
                                        uint64_t size_bytes, uint64_t offset = 0, uint64_t length = ~uint64_t{0}) {
  if (!view.ok()) return is_ok(view);
  if (view.value().info.size_bytes != size_bytes) {
    return ::testing::AssertionFailure() << "size is " << view.value().info.size_bytes << ", not " << size_bytes;
  }
  if (length == ~uint64_t{0}) length = size_bytes - offset;
  const Content content(key, version);
  uint64_t at = 0;
  for (const ConstSpan& span : view.value().spans) {
    if (!content.matches(span.data, span.bytes, offset + at)) {
      return ::testing::AssertionFailure() << "bytes differ in the span at " << at << " of " << key << " version " << version;
    }
    at += span.bytes;
  }
  if (at != length) return ::testing::AssertionFailure() << "spans have " << at << " bytes, not " << length;
  return ::testing::AssertionSuccess();
}

inline Result<ObjectInfo> put(Namespace& ns, std::string_view key, uint64_t version, uint64_t size_bytes,
                              Condition condition = {}) {
  const auto bytes = Content(key, version).bytes(size_bytes);
  return ns.put(key, span_of(bytes), condition);
}

// A put that waits for room as a door does, for up to 20 s.
inline Result<ObjectInfo> put_waiting(Namespace& ns, std::string_view key, uint64_t version, uint64_t size_bytes) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    auto done = put(ns, key, version, size_bytes);
    if (done.code() != Code::kResourceExhausted || std::chrono::steady_clock::now() > until) return done;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// The bytes of an object, wherever they lie.
inline Result<std::vector<uint8_t>> read_all_of(Store& store, Namespace& ns, const std::string& key) {
  auto view = ns.get(key);
  if (!view.ok()) return view.status();
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i < view->spans.size(); ++i) {
    const ConstSpan& span = view->spans[i];
    if (span.data != nullptr) {
      bytes.insert(bytes.end(), span.data, span.data + span.bytes);
      continue;
    }
    auto read = store.reader().read_now(view->places[i].file, view->places[i].offset, span.bytes);
    if (!read.ok()) return read.status();
    bytes.insert(bytes.end(), read->data, read->data + read->bytes);
  }
  return bytes;
}

template <class Holds>
bool comes_true(Holds holds) {
  for (int i = 0; i < 2000; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

// Keeps what the store tells.
class Ear : public Store::Listener {
 public:
  void segment_retired(Namespace&, SessionId session, uint32_t segment) override {
    std::lock_guard lock(mutex_);
    retired_[session].push_back(segment);
  }
  void namespace_dropped(Namespace& ns) override {
    std::lock_guard lock(mutex_);
    dropped_.push_back(ns.name());
  }
  void room_freed() override { freed_.fetch_add(1); }

  std::vector<uint32_t> take_retired(SessionId session) {
    std::lock_guard lock(mutex_);
    return std::exchange(retired_[session], {});
  }
  std::vector<std::string> dropped() {
    std::lock_guard lock(mutex_);
    return dropped_;
  }
  uint64_t freed() const { return freed_.load(); }

 private:
  std::mutex mutex_;
  std::map<SessionId, std::vector<uint32_t>> retired_;
  std::vector<std::string> dropped_;
  std::atomic<uint64_t> freed_{0};
};

class LocalClient {
 public:
  explicit LocalClient(std::shared_ptr<Namespace> ns) : ns_(std::move(ns)), session_(ns_->begin_session()) {
    auto* base = mmap(nullptr, ns_->index_map_bytes(), PROT_READ, MAP_SHARED | MAP_NORESERVE, ns_->index_fd(), 0);
    EXPECT_NE(base, MAP_FAILED);
    index_base_ = base;
    index_ = IndexView(static_cast<const uint8_t*>(base));
  }
  ~LocalClient() {
    disconnect();
    munmap(index_base_, ns_->index_map_bytes());
  }
  LocalClient(const LocalClient&) = delete;

  // As a client that dies: its mappings go with its process, then the daemon notices.
  void disconnect() {
    if (std::exchange(gone_, true)) return;
    for (auto& [segment, mapped] : writable_) munmap(mapped.data, mapped.bytes);
    for (auto& [segment, mapped] : readable_) munmap(const_cast<uint8_t*>(mapped.data), mapped.bytes);
    ns_->end_session(session_);
  }

  SessionId session() const { return session_; }
  Namespace& ns() { return *ns_; }
  const IndexView& index() const { return index_; }

  // --- writing
  Result<Grant> reserve(uint64_t bytes) {
    auto grant = ns_->reserve(session_, bytes);
    if (grant.ok()) map_writable(*grant);
    return grant;
  }
  uint8_t* writable(uint32_t segment) { return writable_.at(segment).data; }
  uint64_t writable_bytes(uint32_t segment) { return writable_.at(segment).bytes; }
  std::vector<uint32_t> granted() const {
    std::vector<uint32_t> segments;
    for (const auto& [segment, mapped] : writable_) segments.push_back(segment);
    return segments;
  }

  struct Written {
    uint32_t segment;
    uint64_t entry_offset;
    uint64_t payload_offset;
    uint64_t payload_bytes;
    uint32_t payload_crc;
    Namespace::SealRecord record() const {
      return {segment, static_cast<uint32_t>(entry_offset / limits::kEntryAlignment)};
    }
  };
  // Writes an entry into the current grant, or a new one where it has no room; seals nothing.
  Result<Written> write(EntryKind kind, std::string_view key, ConstSpan payload) {
    const uint64_t wanted = entry_bytes_max(key.size(), payload.bytes);
    if (!current_ || current_->end - at_ < wanted) {
      if (current_) ns_->give_back(session_, std::exchange(current_, std::nullopt)->segment);
      auto grant = reserve(wanted);
      if (!grant.ok()) return grant.status();
      EXPECT_GE(grant->end - grant->begin, wanted);
      current_ = *grant;
      at_ = grant->begin;
    }
    const EntryShape shape = shape_entry(at_, key.size(), payload.bytes);
    uint8_t* segment = writable(current_->segment);
    const uint32_t crc = copy_crc32c(segment + shape.payload_offset, payload.data, payload.bytes, 0);
    write_entry_header(segment, at_, kind, key, payload.bytes, crc);
    Written written{current_->segment, at_, shape.payload_offset, payload.bytes, crc};
    at_ = shape.end;
    return written;
  }
  Result<ObjectInfo> seal(const Written& written, Condition condition = {}) {
    return ns_->seal(session_, written.segment, written.entry_offset, condition);
  }
  Status seal_batch(const std::vector<Written>& entries, size_t* failed_at = nullptr) {
    std::vector<Namespace::SealRecord> records;
    for (const Written& written : entries) records.push_back(written.record());
    size_t ignored = 0;
    return ns_->seal_batch(session_, records.data(), records.size(), failed_at ? failed_at : &ignored);
  }
  Result<ObjectInfo> put(std::string_view key, uint64_t version, uint64_t size_bytes, Condition condition = {}) {
    const auto bytes = Content(key, version).bytes(size_bytes);
    auto written = write(EntryKind::kObject, key, span_of(bytes));
    if (!written.ok()) return written.status();
    return seal(*written, condition);
  }
  // An object of several parts: writes and seals the parts, writes the manifest; seals that too if asked.
  static std::vector<uint8_t> manifest_of(const std::vector<Written>& parts) {
    ManifestHeader header{0, 0, static_cast<uint32_t>(parts.size())};
    std::vector<uint8_t> payload(sizeof header + parts.size() * sizeof(ManifestExtent));
    for (size_t i = 0; i < parts.size(); ++i) {
      const ManifestExtent extent{parts[i].segment, parts[i].payload_crc, parts[i].payload_offset, parts[i].payload_bytes};
      header.object_bytes += extent.bytes;
      header.object_crc = crc32c_combine(header.object_crc, extent.crc, extent.bytes);
      std::memcpy(payload.data() + sizeof header + i * sizeof extent, &extent, sizeof extent);
    }
    std::memcpy(payload.data(), &header, sizeof header);
    return payload;
  }
  Result<std::vector<Written>> put_parts(std::string_view key, uint64_t version, const std::vector<uint64_t>& sizes) {
    std::vector<Written> parts;
    uint64_t offset = 0;
    for (uint64_t size : sizes) {
      std::vector<uint8_t> bytes(size);
      Content(key, version).fill(bytes.data(), size, offset);
      auto part = write(EntryKind::kPart, "", span_of(bytes));
      if (!part.ok()) return part.status();
      if (Status sealed = seal_batch({*part}); !sealed.ok()) return sealed;
      parts.push_back(*part);
      offset += size;
    }
    return parts;
  }
  Result<ObjectInfo> put_in_parts(std::string_view key, uint64_t version, const std::vector<uint64_t>& sizes,
                                  Condition condition = {}) {
    auto parts = put_parts(key, version, sizes);
    if (!parts.ok()) return parts.status();
    auto manifest = write(EntryKind::kManifest, key, span_of(manifest_of(*parts)));
    if (!manifest.ok()) return manifest.status();
    return seal(*manifest, condition);
  }
  void give_back() {
    if (current_) ns_->give_back(session_, std::exchange(current_, std::nullopt)->segment);
  }

  // --- reading, as a client does it: index and bytes in its own mappings
  const uint8_t* readable(uint32_t segment) {
    const auto known = readable_.find(segment);
    if (known != readable_.end()) return known->second.data;
    auto opened = ns_->open_segment(session_, segment);
    if (!opened.ok()) return nullptr;
    auto fd = opened->memory->read_only_fd();
    EXPECT_OK(fd);
    void* data = mmap(nullptr, opened->bytes, PROT_READ, MAP_SHARED, *fd, 0);
    EXPECT_NE(data, MAP_FAILED);
    close(*fd);
    readable_[segment] = {static_cast<const uint8_t*>(data), opened->bytes};
    return static_cast<const uint8_t*>(data);
  }
  struct Found {
    SlotRef ref;
    Entry entry;
    const uint8_t* segment;
  };
  std::optional<Found> find(std::string_view key) {
    std::optional<Found> found;
    for (int attempt = 0; attempt < 1000 && !found; ++attempt) {
      bool retired = false;
      index_.find(hash_key(key), [&](SlotRef ref) {
        const uint8_t* data = readable(ref.segment);
        if (data == nullptr) return retired = true;  // let go of between the look at the index and the open
        const auto entry = read_entry(data, readable_[ref.segment].bytes, ref.entry_offset, true);
        if (!entry.ok() || entry.value().key != key) return false;
        found = Found{ref, entry.value(), data};
        return true;
      });
      if (!retired) break;
      found.reset();
    }
    return found;
  }
  // The bytes of an object through the client's own mappings; nothing where there is none.
  std::optional<std::vector<uint8_t>> get(std::string_view key) {
    const auto found = find(key);
    if (!found) return std::nullopt;
    const uint8_t* payload = found->segment + found->entry.payload_offset;
    if (found->entry.kind == EntryKind::kObject) return std::vector<uint8_t>(payload, payload + found->entry.payload_bytes);
    std::vector<uint8_t> bytes;
    const auto manifest = read_manifest(payload, found->entry.payload_bytes);
    EXPECT_OK(manifest);
    for (uint32_t i = 0; i < manifest.value().header.extents; ++i) {
      const ManifestExtent& extent = manifest.value().extents[i];
      const uint8_t* data = readable(extent.segment);
      if (data == nullptr) return std::nullopt;
      bytes.insert(bytes.end(), data + extent.offset, data + extent.offset + extent.bytes);
    }
    return bytes;
  }
  bool holds(uint32_t segment) const { return readable_.contains(segment) || writable_.contains(segment); }
  void unmap(uint32_t segment) {
    if (const auto at = readable_.find(segment); at != readable_.end()) {
      munmap(const_cast<uint8_t*>(at->second.data), at->second.bytes);
      readable_.erase(at);
    }
    if (const auto at = writable_.find(segment); at != writable_.end()) {
      munmap(at->second.data, at->second.bytes);
      writable_.erase(at);
    }
  }
  // Unmaps and confirms, as a good client does when it hears of a retired segment.
  void let_go(uint32_t segment) {
    unmap(segment);
    ns_->confirm_unmapped(session_, segment);
  }

 private:
  void map_writable(const Grant& grant) {
    if (writable_.contains(grant.segment)) return;
    void* data = mmap(nullptr, grant.memory->bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, grant.memory->fd(), 0);
    EXPECT_NE(data, MAP_FAILED);
    writable_[grant.segment] = {static_cast<uint8_t*>(data), grant.memory->bytes()};
  }

  struct Writable {
    uint8_t* data;
    uint64_t bytes;
  };
  struct Readable {
    const uint8_t* data;
    uint64_t bytes;
  };
  std::shared_ptr<Namespace> ns_;
  const SessionId session_;
  void* index_base_ = nullptr;
  IndexView index_;
  bool gone_ = false;
  std::map<uint32_t, Writable> writable_;
  std::map<uint32_t, Readable> readable_;
  std::optional<Grant> current_;
  uint64_t at_ = 0;
};

}  // namespace millrace::test
