// The engine: namespaces, grants, seal, reads, listing. What every door calls. Thread-safe; no call blocks on
// anything but a short lock of its namespace. No I/O, no JavaScript.
//
// Life of an object:   reserve -> fill -> seal -> (read)* -> overwritten or deleted -> its bytes are dead
// Life of a segment:   granted -> full -> no live bytes -> retired -> confirmed by its holders -> recycled
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "segment/layout.h"
#include "tier/dram.h"
#include "tier/nvme.h"

namespace millrace {

using Token = std::array<uint8_t, 16>;
using SessionId = uint64_t;  // one connection of one client; 0 is the daemon itself

// Which namespaces are demoted first: capacity, then throughput, then latency.
enum class Hint : uint8_t { kCapacity, kThroughput, kLatency };

struct NamespaceOptions {
  Token token{};
  uint64_t limit_bytes = 0;       // 0: no limit but the node's
  uint64_t dram_limit_bytes = 0;  // 0: no limit but the node's
  uint64_t expected_bytes = 0;               // memory is prepared ahead for it
  uint64_t bandwidth_bytes_per_second = 0;   // 0: no limit; each remote door keeps to it by itself
  Hint hint = Hint::kThroughput;
};

// Now, by the clock that passes expire by.
uint64_t unix_ms();

// What the holder of a token may do, and for how long.
struct Pass {
  uint64_t expires_unix_ms = 0;  // 0: never
  bool read_only = false;
  bool expires() const { return expires_unix_ms != 0; }
  bool expired(uint64_t now_unix_ms) const { return expires() && expires_unix_ms <= now_unix_ms; }
};

struct ObjectInfo {
  uint64_t size_bytes = 0;
  uint64_t sequence = 0;
  uint32_t crc32c = 0;
  uint32_t sealed_unix_s = 0;
};

struct Condition {
  bool if_absent = false;
  uint64_t if_sequence = 0;  // 0: none
};

struct Span {
  uint8_t* data;
  uint64_t bytes;
};
struct ConstSpan {
  const uint8_t* data;
  uint64_t bytes;
};

class Segment;
class Namespace;
class Store;

// Bytes of a sealed object where they lie: in memory, or in a file of the `nvme` tier. They stay as they are for as
// long as this lives.
struct ObjectView {
  ObjectInfo info;
  std::string attributes;
  std::vector<ConstSpan> spans;  // of the range asked for, in order; `data` is null where they lie in a file
  std::vector<std::shared_ptr<Segment>> segments;  // what keeps them; one a span, in the same order, or more
  // Where any of them lie in files: one an entry of `spans`; null and 0 for those in memory. Empty where none does.
  struct Place {
    std::shared_ptr<SegmentFile> file;
    uint64_t offset = 0;
    uint32_t segment = 0;   // its number
    uint64_t bytes = 0;     // of the whole extent that the span is a part of, which has
    uint32_t crc = 0;       // this CRC32C; to be checked where the span is all of it
  };
  std::vector<Place> places;
  bool in_files() const { return !places.empty(); }
};

struct ListedObject {
  std::string key;
  ObjectInfo info;
  std::string attributes;  // where asked for
};
struct ListOptions {
  bool attributes = false;
  bool hidden = false;  // keys too that is_hidden() tells, whatever the prefix
};
// Keys that start with this byte are hidden: they are listed and told to watchers only where the prefix has it too.
inline constexpr char kHiddenByte = '\xff';
inline bool is_hidden(std::string_view key) { return key.starts_with(kHiddenByte); }
struct ListPage {
  std::vector<ListedObject> objects;
  bool truncated = false;
};

// Where a session may write: bytes [begin, end) of a segment, all of it its own until given back.
struct Grant {
  uint32_t segment = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  std::shared_ptr<SharedMemory> memory;  // its descriptor is what the client gets, read-write
};

// An object that the daemon itself is writing for a remote client. Dropping it frees its bytes.
class Draft {
 public:
  Draft() = default;
  ~Draft() { abort(); }
  Draft(Draft&&) noexcept;
  Draft& operator=(Draft&&) noexcept;

  // Copies `bytes` to the end of the object, taking room as needed.
  Status append(ConstSpan bytes);
  // How long the object will be, where that is known: room is then taken for so much and not for more.
  void expect(uint64_t size_bytes) { expected_bytes_ = size_bytes; }
  uint64_t size_bytes() const { return size_bytes_; }
  bool open() const { return owner_ != nullptr; }
  void abort();

 private:
  friend class Namespace;
  struct Part {
    std::shared_ptr<Segment> segment;
    uint64_t entry_offset;
    uint64_t payload_offset;
    uint64_t capacity_bytes;
    uint64_t bytes = 0;
    uint32_t crc = 0;
    bool crc_known = true;  // false: filled by the caller, not yet summed
  };
  std::shared_ptr<Namespace> owner_;
  std::string key_;
  std::vector<Part> parts_;
  uint64_t size_bytes_ = 0;
  uint64_t expected_bytes_ = 0;  // 0: not known
};

struct NamespaceStats {
  uint64_t objects, size_bytes, segment_bytes, dead_bytes, held_bytes, index_bytes, peak_bytes, segments, sealed_total;
  double dram_byte_seconds;
  uint64_t dram_bytes;     // segments in memory, retiring ones included
  uint64_t nvme_bytes;     // segments in files
  uint64_t granted_bytes;  // of dram_bytes: segments that clients may write to now
  double nvme_byte_seconds;
  uint64_t demoted_bytes, promoted_bytes, cleaned_bytes;  // payload moved since the namespace began
  uint64_t buffer_bytes;  // on their way through doors, in memory that is no segment
};

struct Traffic {
  uint64_t bytes_in = 0, bytes_out = 0, operations = 0;
};
enum class Door : uint8_t { kShm, kTcp, kGrpc, kS3, kCount };

struct WatchedEvent {
  bool deleted;
  std::string key;
  ObjectInfo info;
};

class Namespace : public std::enable_shared_from_this<Namespace> {
 public:
  const std::string& name() const;
  const Token& token() const;
  const NamespaceOptions& options() const;
  bool dropped() const;

  // --- reading
  Result<ObjectInfo> head(std::string_view key, std::string* attributes = nullptr);
  // Length 0 means to the end; OUT_OF_RANGE where offset + length goes past the object.
  Result<ObjectView> get(std::string_view key, uint64_t offset = 0, uint64_t length = 0);
  // The same into `view`, whose vectors are used again: for small objects allocating them would cost the most.
  Status get(std::string_view key, uint64_t offset, uint64_t length, ObjectView* view);
  Result<ListPage> list(std::string_view prefix, std::string_view start_after, uint32_t limit, ListOptions options = {});

  // --- writing by the daemon, for remote clients
  // An empty draft that grows with `append`.
  Result<Draft> begin(std::string_view key);
  // A draft of exactly `size_bytes`; the caller fills `spans`, which hold them in order (none where the size
  // is 0). Waits for nobody: RESOURCE_EXHAUSTED where there is no room.
  Result<Draft> begin(std::string_view key, uint64_t size_bytes, std::vector<Span>* spans);
  // Seals the draft. Spans that the caller has filled are summed here unless `crcs` has the CRC32C of each;
  // CHECKSUM_MISMATCH where the whole does not have the one `expected`. `attributes` go wherever the object goes.
  Result<ObjectInfo> commit(Draft&& draft, Condition condition, const std::vector<uint32_t>* crcs = nullptr,
                            std::optional<uint32_t> expected = std::nullopt, std::string_view attributes = {});
  // A small object in one call.
  Result<ObjectInfo> put(std::string_view key, ConstSpan bytes, Condition condition);
  // Whether there was one.
  Result<bool> remove(std::string_view key, Condition condition);
  // Waits for what has to be read from files. With the source's attributes, where no others are given.
  Result<ObjectInfo> copy(std::string_view from, Namespace& to_namespace, std::string_view to, Condition condition,
                          std::optional<std::string_view> attributes = std::nullopt);
  // Makes one object of the objects `parts`, in that order, without moving a byte: it becomes visible under `key` as
  // they go. NOT_FOUND where one is missing; whatever fails, nothing has changed.
  Result<ObjectInfo> join(std::string_view key, const std::vector<std::string>& parts, Condition condition,
                          std::string_view attributes = {});

  // --- who may come in
  // `token` opens sessions too, for as long as the pass is good. Given again it is good for what was said last.
  Status admit(const Token& token, Pass pass);
  // What the holder of these 16 bytes may do; nothing where they open no session.
  std::optional<Pass> pass_of(const uint8_t* token) const;

  // --- same-host sessions
  // `forsaken_later`: at its end nobody can be trusted to have unmapped anything, so nothing is written any more to
  // what it was handed the descriptors of.
  SessionId begin_session(bool forsaken_later = false);
  // Gives back the session's grants (what it had not sealed is dead) and forgets what it had mapped.
  void end_session(SessionId session);
  // A grant with at least `bytes` contiguous bytes. The previous grant of the session is kept until it is
  // given back with `give_back`.
  Result<Grant> reserve(SessionId session, uint64_t bytes);
  void give_back(SessionId session, uint32_t segment);
  // Seals the entry at (segment, offset), which must lie in a grant of the session: makes it visible under
  // its key. Checks everything about the entry and, for a manifest, about its extents.
  Result<ObjectInfo> seal(SessionId session, uint32_t segment, uint64_t entry_offset, Condition condition);
  struct SealRecord {
    uint32_t segment;
    uint32_t entry_unit;  // entry offset / kEntryAlignment
  };
  // Part entries become loose parts of the session until a manifest of the same session lists them.
  // Seals in order under one lock; stops at the first that fails and says which.
  Status seal_batch(SessionId session, const SealRecord* records, size_t count, size_t* failed_at);
  // Descriptor and size of a segment for reading; the session counts as holding it until it confirms.
  struct OpenSegment {
    std::shared_ptr<SharedMemory> memory;  // of a segment in `dram`
    std::shared_ptr<SegmentFile> file;     // of one in `nvme`
    uint64_t bytes;
  };
  Result<OpenSegment> open_segment(SessionId session, uint32_t segment);
  void confirm_unmapped(SessionId session, uint32_t segment);
  // The index file, for clients to map read-only. `bytes` is the address range to map.
  int index_fd() const;
  uint64_t index_map_bytes() const;

  // A client has read bytes of this object from a file by itself. Read often enough it is promoted.
  void note_read(std::string_view key);

  // The object is a map output of the shuffle `group`, with partition r at offsets [r, r + 1): demotion then puts
  // the same partition of its map outputs side by side. Forgotten with the object.
  Status set_partitions(std::string_view key, std::string_view group, std::vector<uint64_t> offsets);

  // --- accounting
  void count(Door door, uint64_t bytes_in, uint64_t bytes_out, uint64_t operations = 1);
  Traffic traffic(Door door) const;
  // Memory that a door has come to use, or use less of, for bytes on their way. Counts against the limits.
  void account_buffers(int64_t delta_bytes);
  // The same for bytes that wait for room. They are told of, but do not count against the limits: those who wait for the
  // same room would keep it from each other.
  void account_waiting(int64_t delta_bytes);
  NamespaceStats stats();

  // --- watching. `callback` runs on whichever thread sealed, must not block and must not call back in.
  uint64_t watch(std::string prefix, std::function<void(const WatchedEvent&)> callback);
  void unwatch(uint64_t id);

  struct Impl;
  explicit Namespace(std::unique_ptr<Impl> impl);
  ~Namespace();

 private:
  friend class Store;
  friend class Draft;
  friend class Segment;
  friend struct NamespaceInside;  // of tests
  friend class Mover;
  std::unique_ptr<Impl> impl_;
};

class Store {
 public:
  struct Options {
    DramTier::Options dram;
    NvmeTier::Options nvme;
    bool keep = false;  // segments outlive the process: a later start finds them again (see `recover`)
    double high_watermark = 0.85;  // of dram's limit: above it segments are demoted
    double low_watermark = 0.70;   // until so much is left
    uint64_t clean_bytes_per_second = 512 * MiB;  // that the cleaner copies at most
    uint64_t retire_grace_ms = 2000;  // how long a freed segment waits for its holders before fresh pages replace it
  };
  explicit Store(Options options);
  ~Store();

  Result<std::shared_ptr<Namespace>> create(std::string_view name, NamespaceOptions options);
  std::shared_ptr<Namespace> find(std::string_view name);
  // Readies the tiers: to be called once, before all else, where there is an `nvme` directory or memory is kept.
  Status open();
  // The namespace as an earlier life of this node left it: every object that was sealed, nothing else. NOT_FOUND
  // where nothing of it is left. `options.token` tells where its segments are.
  struct Recovered {
    std::shared_ptr<Namespace> ns;
    uint64_t objects = 0;
    uint64_t torn = 0;  // entries that the index named and whose headers do not hold: left out
  };
  Result<Recovered> recover(std::string_view name, NamespaceOptions options);
  // Removes what earlier lives left and no namespace of this one took up.
  void remove_orphans();
  // All of its objects at once. Sessions are told through the listener.
  Status drop(std::string_view name);
  std::vector<std::shared_ptr<Namespace>> namespaces();

  // What the transports must tell their clients. Called from any thread, must not block and must not call
  // back into the store. At most one listener.
  struct Listener {
    virtual ~Listener() = default;
    // The segment is retired: the client should unmap it when it can and confirm.
    virtual void segment_retired(Namespace& ns, SessionId session, uint32_t segment) = 0;
    virtual void namespace_dropped(Namespace& ns) = 0;
    // Room was freed: reserves that wait may try again.
    virtual void room_freed() = 0;
  };
  void set_listener(Listener* listener);
  // As shares of dram's limit; takes effect at once.
  void set_watermarks(double high, double low);

  // Of the files of all namespaces; a namespace's end does not end it, the store's does.
  FileReader& reader();

  DramTier::Stats dram_stats() const;
  NvmeTier::Stats nvme_stats() const;
  uint64_t held_bytes() const;

  struct Impl;

 private:
  // `stays`: its files are found again by a later start.
  Status end(std::string_view name, bool stays);

  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
