// A same-host client: reads objects in place through the namespace's index, writes them into grants and seals
// them through the ring. Neither needs a system call once segments are mapped.
//
// One thread owns the client and makes every call; the channel's thread hands it what the daemon sends through
// a mailbox. Mapped segments stay mapped until the daemon retires them and nobody looks at them any more. Objects
// that were demoted lie in files, whose descriptors the daemon hands out: the client reads them by itself.
//
// Write:   try_put: bump-allocate in the current grant -> copy -> push a seal record -> acked
//          large:   reserve -> Allocation -> fill -> finish -> push or seal
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "index/index_view.h"
#include "segment/mapping.h"
#include "transport/client.h"
#include "transport/shm/file_reads.h"
#include "transport/shm/mapping_cache.h"
#include "transport/shm/ring.h"

namespace millrace {

class ShmClient final : public Client, private Channel::Sink, private Channel::Events {
 public:
  // What the owner must be woken for, from the channel's thread. Must not block or call back.
  struct Waker {
    virtual ~Waker() = default;
    virtual void on_mail() = 0;              // `take_mail` has something
    virtual void on_acked() = 0;             // acked records grew past what `request_ack_wake` asked
    virtual void on_lost(const Status& why) = 0;
    virtual void on_batch_end() = 0;
  };
  // What is compared with its checksum before it is given out: nothing; what this client has not compared yet;
  // everything that is touched.
  enum class Verify : uint8_t { kNever = 0, kOnce = 1, kAlways = 2 };
  // A segment as this process maps it, or the file that it lies in.
  struct MappedSegment {
    uint32_t number;
    uint32_t slot;  // small and dense; used again after the segment is forgotten
    uint64_t bytes;
    const uint8_t* data;                     // null: in a file
    std::shared_ptr<Mapping> mapping;        // for reading; null: in a file
    std::shared_ptr<SegmentFile> file;       // null: in memory
    std::shared_ptr<Mapping> write_mapping;  // null where never granted
    FileIdentity identity;                   // of the write mapping
    std::weak_ptr<void> hold;                // alive while any mapping of the segment, or its file, is
    // Which payloads have been compared with their checksums: a bit for each kRememberedBytesMin bytes, in which no
    // two payloads of that size can begin.
    std::vector<uint64_t> verified;
  };
  // Smaller payloads are compared each time: it costs less than to look up whether they were.
  static constexpr uint64_t kRememberedBytesMin = 256;
  struct Located {
    MappedSegment* segment;
    uint64_t entry_offset;    // in the segment
    uint64_t payload_offset;  // in the segment
    uint64_t payload_bytes;
    uint64_t sequence;
    uint32_t crc32c;
    uint32_t sealed_unix_s;
    bool manifest;
  };
  struct Extent {
    MappedSegment* segment;
    uint64_t offset;
    uint64_t bytes;
    uint32_t crc;
  };
  // A stretch of a segment that this client writes to. Given back when the last user lets go.
  struct Grant {
    ~Grant();
    std::shared_ptr<Channel> channel;
    MappedSegment* segment;  // valid until the client is closed: a granted segment is never retired
    uint32_t number;         // of the segment
    std::shared_ptr<Mapping> mapping;
    uint8_t* data;  // of the segment
    uint64_t begin, next, end;
  };
  // Room for one entry.
  struct Allocation {
    std::shared_ptr<Grant> grant;
    uint64_t entry_offset;
    uint64_t payload_offset;
    uint64_t capacity_bytes;
    uint8_t* payload() const { return grant->data + payload_offset; }
  };
  enum class Push { kPushed, kNeedsGrant, kRingFull };

  static constexpr uint64_t kGrantBytesMin = 256 * KiB;       // asked for ahead; the daemon gives what it sees fit
  static constexpr uint64_t kSharedEntryBytesMax = 8 * MiB;   // larger entries get a grant of their own
  static constexpr uint64_t kContiguousBytesMax =
      limits::kSegmentBytesMax - kSegmentHeaderBytes - sizeof(EntryHeader) - limits::kKeyBytesMax - 128;
  static constexpr uint64_t kPartBytes = 64 * MiB - 8 * KiB;  // of larger objects: fits a segment of 64 MiB

  static Result<std::unique_ptr<ShmClient>> create(std::shared_ptr<Channel> channel, ServerGreeting greeting,
                                                   Waker* waker);
  ~ShmClient() override;

  const char* kind() const override { return "shm"; }
  Result<ObjectInfo> put(std::string_view key, ConstSpan bytes, Condition condition) override;
  Result<ClientObject> get(std::string_view key, uint64_t offset, uint64_t length) override;
  // Drops every mapping and the connection's thread; nothing may be called afterwards. The socket closes with the last
  // mapping that somebody else keeps.
  void close() override;

  // --- reading
  // NOT_FOUND, NAMESPACE_GONE, CORRUPT, or what went wrong with mapping. The common way costs no system call. A
  // manifest is not verified here.
  Code locate(std::string_view key, Located* found, Verify verify = Verify::kOnce);
  // Where the object lies, piece by piece. `info` has its whole size and checksum. Of what lies in memory, the
  // extents that the range touches are verified; what lies in files is when it is read.
  Status locate_extents(std::string_view key, std::vector<Extent>* extents, ObjectInfo* info,
                        Verify verify = Verify::kOnce, uint64_t offset = 0, uint64_t length = ~uint64_t{0});
  // Size and checksum of the whole object.
  Status info_of(std::string_view key, const Located& found, ObjectInfo* info);
  const Status& failure() const { return failure_; }  // of the last locate that gave another code than NOT_FOUND

  // Keeps the version in `extents` for reading, in memory and in files.
  std::shared_ptr<HeldObject> hold(std::string_view key, const ObjectInfo& info, const std::vector<Extent>& extents);
  // Compares an extent in memory with its checksum, where that was not done yet.
  Status verify_held(const HeldObject& object, size_t extent);
  // Queues a read of bytes some of which lie in a file, see FileReads. kAlways reads extents whole that are wanted in
  // part. Tells the daemon, which may promote what is read often.
  void read(std::shared_ptr<HeldObject> object, uint64_t offset, uint64_t bytes, Verify verify, FileReads::Done done);
  void start_reads();

  // The segment, where this client has it mapped.
  MappedSegment* mapped(uint32_t number) const {
    return number <= limits::kSegmentsPerNamespace ? segment_at(number) : nullptr;
  }

  // --- writing
  // The fast way for small objects. kNeedsGrant: one has been asked for; try again when it is there.
  Push try_put(std::string_view key, const void* data, uint64_t bytes, uint64_t* position, Allocation* where = nullptr);
  // Room for an entry, from the current grant or, where it is large, from `grant`.
  bool allocate(const std::shared_ptr<Grant>& grant, size_t key_bytes, uint64_t payload_bytes, Allocation* out);
  const std::shared_ptr<Grant>& current_grant() const { return current_; }
  // Writes the header of a filled entry. Fewer bytes than allocated are fine; the rest of the last allocation of
  // a grant is taken back.
  void finish(Allocation& allocation, EntryKind kind, std::string_view key, uint64_t payload_bytes, uint32_t crc);
  // Pushes a finished entry into the ring.
  bool push(const Allocation& allocation, uint64_t* position);
  // Gives room back that was not used, where it was the last of its grant.
  void cancel(Allocation& allocation);
  // Whether the current grant or the one behind it has room for such an entry; asks for one where not.
  bool room_for(size_t key_bytes, uint64_t payload_bytes);
  // Asks for a grant of its own. The mail says when it is there.
  Status request_grant(uint64_t bytes, uint64_t tag);
  // What `request_grant(tag)` led to; null grant and OK status: not there yet.
  Status take_grant(uint64_t tag, std::shared_ptr<Grant>* grant);
  // Why grants taken ahead fail, once.
  Status take_grant_failure();

  uint64_t pushed() const { return pushed_; }
  uint64_t acked() const { return ring_->acked.load(std::memory_order_acquire); }
  // Makes sure that the daemon is awake if there is work for it.
  void kick();
  // Spins for a few microseconds. Whether `position` records are acked.
  bool spin_acked(uint64_t position, uint32_t microseconds);
  // Has Waker::on_acked called when more is acked. False where it is acked by now.
  bool request_ack_wake(uint64_t position);
  Status wait_acked(uint64_t position);
  ObjectInfo info_of(const Allocation& allocation) const;

  // --- mail
  bool has_mail() const { return has_mail_.load(std::memory_order_acquire); }
  // Takes what the channel's thread left: grants, and segments to forget.
  void take_mail();
  // Told, on the owner's thread, the number of each retired segment when the client lets go of it.
  void on_forget(std::function<void(uint32_t)> callback) { on_forget_ = std::move(callback); }
  // Waits for mail, for at most so long.
  void wait_mail(uint32_t timeout_ms);
  void forget_segment(MappedSegment& segment);

 private:
  static constexpr size_t kLeafSegments = 1024;
  using Leaf = std::array<MappedSegment*, kLeafSegments>;

  ShmClient(std::shared_ptr<Channel> channel, ServerGreeting greeting, Waker* waker);
  Status map_shared(const std::vector<int>& descriptors);
  MappedSegment* segment_at(uint32_t number) const {
    const Leaf* leaf = leaves_[number / kLeafSegments].get();
    return leaf == nullptr ? nullptr : (*leaf)[number % kLeafSegments];
  }
  MappedSegment* insert_segment(uint32_t number, std::shared_ptr<Mapping> mapping, std::shared_ptr<SegmentFile> file);
  Status verify_entry(std::string_view key, const Located& found, Verify verify);
  bool payload_holds(MappedSegment& segment, uint64_t offset, uint64_t bytes, uint32_t crc, Verify verify);
  Status extents_of(std::string_view key, const Located& found, Verify verify, uint64_t offset, uint64_t length,
                    std::vector<Extent>* extents, ObjectInfo* info);
  void note_read(const HeldObject& object, uint64_t bytes);
  Result<MappedSegment*> open_segment(uint32_t number);
  std::shared_ptr<void> make_hold(uint32_t number);
  void populate_in_background(std::shared_ptr<Mapping> mapping, uint64_t from);
  bool next_grant();
  void prefetch();
  Status wait_room(size_t key_bytes, uint64_t payload_bytes);
  Result<std::shared_ptr<Grant>> wait_grant(uint64_t bytes);
  Result<ObjectInfo> put_parts(std::string_view key, ConstSpan bytes, Condition condition);
  Result<ObjectInfo> seal(const Allocation& allocation, Condition condition);

  // From the channel's thread.
  void on_reply(uint64_t tag, ChannelReply& reply) override;
  void on_segment_retired(uint32_t segment) override;
  void on_namespace_dropped() override;
  void on_lost(const Status& why) override;
  void on_batch_end() override;
  void on_tick() override;
  void on_bell();

  Waker* waker_;
  std::shared_ptr<Mapping> index_mapping_;
  IndexView index_;
  std::shared_ptr<Mapping> ring_mapping_;
  SealRing* ring_ = nullptr;
  int wake_server_fd_ = -1;
  int wake_client_fd_ = -1;
  bool closed_ = false;

  std::vector<std::unique_ptr<Leaf>> leaves_;
  std::vector<std::unique_ptr<MappedSegment>> by_slot_;
  std::vector<uint32_t> free_slots_;
  MappingCache mapping_cache_;
  Status failure_;
  std::function<void(uint32_t)> on_forget_;
  std::unique_ptr<FileReads> reads_;  // made when the first object in a file is read
  uint64_t random_ = 0x9e3779b97f4a7c15;

  std::shared_ptr<Grant> current_;
  std::deque<std::shared_ptr<Grant>> ahead_;
  bool prefetching_ = false;
  Status prefetch_failed_;
  uint64_t pushed_ = 0;
  uint64_t acked_seen_ = 0;
  std::unordered_map<uint64_t, Result<std::shared_ptr<Grant>>> granted_;  // by tag
  uint64_t next_tag_ = 1ull << 32;  // for the client's own blocking calls

  struct Mail {
    enum class Kind { kGrant, kRetired } kind;
    uint64_t tag = 0;
    Status status;
    wire::GrantReply grant{};
    std::shared_ptr<Mapping> mapping;  // null: of a segment that is mapped for writing already
    FileIdentity file;                 // of the mapping
    uint32_t segment = 0;
  };
  std::mutex mail_mutex_;
  std::condition_variable mail_came_;
  std::vector<Mail> mail_;
  uint64_t bells_ = 0;
  std::atomic<bool> has_mail_{false};
};

}  // namespace millrace
