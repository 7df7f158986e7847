// The inside of a namespace. Private to store/.
#pragma once
#include <bit>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "index/index_writer.h"
#include "index/ordered_keys.h"
#include "store/passes.h"
#include "store/recycler.h"
#include "store/segment.h"
#include "store/store.h"

namespace millrace {

using Clock = std::chrono::steady_clock;

// What all namespaces of a node share. Outlives them: each holds it.
struct NodeShared {
  explicit NodeShared(Store::Options options)
      : options(options),
        tier(options.dram),
        nvme(options.nvme),
        // More than one round of demotion frees, so that what is promoted next finds its memory touched.
        recycler(std::max(options.dram.limit_bytes / 4, 512 * MiB)) {}
  const Store::Options options;
  DramTier tier;
  NvmeTier nvme;
  FileReader reader;
  Recycler recycler;
  std::atomic<Store::Listener*> listener{nullptr};
  std::atomic<uint64_t> next_session{1};
  std::atomic<uint64_t> short_bytes{0};     // that a writer was refused for want of memory; the mover makes room for it
  std::atomic<double> high_watermark{options.high_watermark};
  std::atomic<double> low_watermark{options.low_watermark};
  std::atomic<uint64_t> retiring_bytes{0};  // memory of retired segments that wait for their holders
  // Frees what dropped namespaces still hold and nobody uses. Set by the store.
  std::function<void()> reclaim;
  // Wakes the mover: memory is short, or an object in a file was read again. Set by the store.
  std::function<void()> wake_mover;

  // Memory of `dram` in use that will not come free by itself.
  uint64_t dram_in_use() const {
    const uint64_t used = tier.stats().used_bytes;
    return used - std::min(used, recycler.bytes() + retiring_bytes.load());
  }
  // Where segments are demoted they stay small against the tier, so that what is granted ahead, and cannot be, never is
  // most of it. Elsewhere large ones waste less: of what does not fit, a small one has more at its end.
  uint64_t segment_share() const {
    if (!nvme.enabled()) return limits::kSegmentBytesMax;
    return std::max(std::bit_floor(options.dram.limit_bytes / 16), limits::kSegmentBytesMin);
  }
  // What writers may take of `dram`: where there is a tier below, the way down needs some room of its own.
  uint64_t dram_for_writers() const {
    const uint64_t limit = options.dram.limit_bytes;
    return nvme.enabled() ? limit - std::max(limit / 32, 2 * limits::kSegmentBytesMin) : limit;
  }
};

// Who asks for memory. Writers leave the reserve alone that relocation lives on; what the way down needs for itself
// may go over the namespace's limits, since it brings them down.
enum class RoomFor { kWriters, kCleaning, kDemotion };

struct Namespace::Impl {
  Impl(std::shared_ptr<NodeShared> node, uint64_t id, std::string name, NamespaceOptions options);

  ~Impl();

  // Files with names stay when this ends (lock held).
  void keep_files();

  // What every call on a dropped namespace fails with.
  Status gone() const;

  // --- segments (lock held)
  std::shared_ptr<Segment> segment_at(uint32_t number) const {
    return number < segments.size() ? segments[number] : nullptr;
  }
  // A segment with `bytes` of contiguous room that nobody writes to; where there is none a new one, of
  // `bytes_wanted` if there is room for that.
  Result<std::shared_ptr<Segment>> writable_segment(uint64_t bytes, uint64_t bytes_wanted);
  Result<std::shared_ptr<Segment>> new_segment(uint64_t bytes, uint64_t bytes_wanted, RoomFor purpose = RoomFor::kWriters);
  Result<std::shared_ptr<SharedMemory>> new_memory(uint64_t bytes_min, uint64_t bytes_wanted, RoomFor purpose);
  // OK, or RESOURCE_EXHAUSTED: `bytes` more would go over a limit of the namespace.
  Status check_limits(uint64_t bytes);
  // What takes the memory of this namespace, in words.
  std::string what_holds() const;
  // Memory of retired segments.
  uint64_t retiring_dram_bytes() const {
    uint64_t bytes = 0;
    for (const Retiring& waiting : retiring) bytes += waiting.segment->memory ? waiting.segment->bytes() : 0;
    return bytes;
  }
  // Nobody writes to its rest any more, and its memory is not used again.
  void forsake(const std::shared_ptr<Segment>& segment);
  void offer(const std::shared_ptr<Segment>& segment);  // nobody's any more: others may write to its rest
  void retire_if_dead(const std::shared_ptr<Segment>& segment);
  // Frees what is retired and held by nobody. Whether memory came free.
  bool sweep_retiring(Clock::time_point now);
  // Room for the daemon's own writes.
  Result<std::shared_ptr<Segment>> house_segment(uint64_t bytes);

  // --- entries (lock held)
  std::string_view key_of(SlotRef ref) const;
  bool key_equals(SlotRef ref, std::string_view key) const;
  Result<Entry> entry_at(SlotRef ref, bool verify_header = false) const;
  std::optional<SlotRef> find(std::string_view key) const;
  Result<ObjectInfo> info_of(SlotRef ref) const;
  Result<ObjectInfo> info_of(SlotRef ref, const Entry& entry, std::string* attributes = nullptr) const;
  Status check_condition(std::string_view key, const Condition& condition) const;
  // Makes the entry visible under its key and lets go of what was there.
  Result<ObjectInfo> publish(Segment& segment, uint64_t entry_offset, const Entry& entry, std::string_view key);
  Result<ObjectInfo> publish_own(Segment& segment, uint64_t entry_offset, std::string_view key);
  // Lets go of the entry and its bytes. kMoved: the object lives on elsewhere, and so does what is known of its key.
  // kJoined: its bytes live on where they are, as another object's.
  enum class Fate { kGone, kMoved, kJoined };
  void release(SlotRef ref, Fate fate = Fate::kGone);
  // Where an object lies, checked as far as its entry and its manifest tell.
  struct Described {
    ObjectInfo info;
    bool manifest = false;
    bool joined = false;
    std::vector<ManifestExtent> extents;
    std::string attributes;
  };
  Result<Described> describe(SlotRef ref) const;
  // Whose bytes those of a joined object are, for relocation to find it by them.
  void note_joined(const std::vector<ManifestExtent>& extents, std::string_view key);
  Result<ObjectInfo> seal_entry(SessionId session, const Namespace::SealRecord& record, const Condition& condition);
  void seal_part(Segment& segment, uint64_t entry_offset, const Entry& entry);
  Status take_part(Draft& draft, uint64_t capacity_bytes);
  void drop_parts(Draft& draft);
  Status take_manifest(Draft& draft, uint32_t object_crc, const std::vector<ManifestExtent>& extents,
                       std::string_view attributes, uint8_t flags);

  // --- relocation (lock held; see relocate.h)
  // A segment in memory with room for an entry of `bytes`, for what relocation writes.
  Result<std::shared_ptr<Segment>> relocation_segment(uint64_t bytes, bool kept);

  // --- listing (lock held)
  void note_change(SlotRef ref, bool put) {
    if (!ordering) return;
    order_log.push_back({ref, put});
    if (order_log.size() >= kOrderLogMax) settle_order();
  }
  void settle_order();

  // --- accounting (lock held)
  void account_segments(int64_t dram_delta, int64_t nvme_delta);
  void account(const Segment& segment, int64_t sign) {
    const int64_t bytes = sign * static_cast<int64_t>(segment.bytes());
    account_segments(segment.memory ? bytes : 0, segment.memory ? 0 : bytes);
  }
  void tell_watchers(bool deleted, std::string_view key, const ObjectInfo& info);

  Namespace* face = nullptr;  // whose inside this is
  const std::shared_ptr<NodeShared> node;
  const uint64_t id;
  const std::string name;
  const NamespaceOptions options;
  Passes passes;
  std::atomic<uint64_t> buffer_bytes{0};   // of the doors
  std::atomic<uint64_t> waiting_bytes{0};  // of puts that wait for room

  mutable std::mutex mutex;
  bool dropped = false;
  bool files_kept = false;
  std::unique_ptr<IndexWriter> index;
  uint64_t last_sequence = 0;
  uint64_t sealed_total = 0;
  uint64_t object_bytes = 0;

  std::vector<std::shared_ptr<Segment>> segments;  // by number; null: retired
  std::vector<std::shared_ptr<Segment>> open;      // with room and without a writer
  std::shared_ptr<Segment> house;                  // the daemon's own, for remote writers
  std::shared_ptr<Segment> keep;                   // relocation's, for what has to stay in memory
  std::shared_ptr<Segment> moved;                  // and for what may go down again
  uint64_t relocation_wanted_bytes = limits::kSegmentBytesMin;
  uint64_t house_wanted_bytes = limits::kSegmentBytesMin;  // grows with what is written
  uint64_t dram_bytes = 0;      // of segments in memory, retiring ones included
  uint64_t nvme_bytes = 0;      // of segments in files
  double nvme_byte_seconds = 0;
  uint64_t short_bytes = 0;     // that a writer was refused for the namespace's dram limit
  uint64_t demoted_bytes = 0, promoted_bytes = 0, cleaned_bytes = 0;
  uint64_t peak_bytes = 0;
  double byte_seconds = 0;
  Clock::time_point accounted_at = Clock::now();

  struct Retiring {
    std::shared_ptr<Segment> segment;
    Clock::time_point grace_ends;
  };
  std::deque<Retiring> retiring;

  struct PartKey {
    uint32_t segment;
    uint64_t payload_offset;
    auto operator<=>(const PartKey&) const = default;
  };
  // All extents of the objects whose manifests are flagged as joined, to the objects' keys.
  std::map<PartKey, std::shared_ptr<const std::string>> joined;
  struct Session {
    std::vector<uint32_t> granted;
    uint64_t wanted_bytes = limits::kSegmentBytesMin;  // of the next grant; grows with what is written
    std::map<PartKey, uint64_t> loose_parts;  // sealed parts that no manifest lists yet: their payload bytes
    bool forsaken_later = false;
  };
  std::unordered_map<SessionId, Session> sessions;

  // Objects that are made of partitions, for relocation to put those of one partition side by side.
  struct Partitions {
    std::string group;              // the shuffle
    std::vector<uint64_t> offsets;  // of the partitions in the object, and its end
  };
  std::unordered_map<std::string, Partitions> partitions;

  // Reads of objects in files, to tell what is worth promoting. Forgotten as a whole when it grows too large.
  static constexpr size_t kReadsNotedMax = 65536;
  struct Reads {
    uint32_t count = 0;
    Clock::time_point since;
  };
  std::unordered_map<std::string, Reads> reads;
  std::vector<std::string> to_promote;
  void note_file_read(std::string_view key);

  // So many changes are noted before they are worked in: a put then costs an append, not a search.
  static constexpr size_t kOrderLogMax = 4096;
  struct OrderChange {
    SlotRef ref;
    bool put;
  };
  bool ordering = false;  // until the first listing: who never lists pays nothing
  std::vector<OrderChange> order_log;
  OrderedKeys ordered;

  struct Watcher {
    std::string prefix;
    std::function<void(const WatchedEvent&)> callback;
  };
  std::map<uint64_t, Watcher> watchers;
  uint64_t next_watcher = 1;

  struct AtomicTraffic {
    std::atomic<uint64_t> bytes_in{0}, bytes_out{0}, operations{0};
  };
  AtomicTraffic traffic[static_cast<size_t>(Door::kCount)];
};

}  // namespace millrace
