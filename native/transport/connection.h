// The daemon's side of one connection: parses frames, calls the store, queues replies. It knows no socket: bytes
// are handed in and taken out, so tests and the fuzzer drive it directly. Used by one I/O thread at a time.
//
// Life:   opened -> greeted (kHello, token checked) -> requests ... -> closing (a goodbye is queued) -> gone
//         A token that is a pass says goodbye by itself when it expires (see `expire`).
//
// What a peer can make it hold is bounded: a request's body by kRequestBodyBytesMax, output by back-pressure
// (see `wants_input`), drafts and waiting reserves by the limits below. A large put goes straight into the
// segment; other payloads are passed on piece by piece. What lies in files is read ahead of the peer by at most
// kReadAheadBytesMax, and never waited for: replies come in order of completion.
#pragma once
#include <chrono>
#include <list>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "store/store.h"
#include "store/view_reader.h"
#include "transport/output_queue.h"
#include "transport/shm/ring.h"
#include "transport/wire.h"

namespace millrace {

using TransportClock = std::chrono::steady_clock;

// What a server tells about itself; outlives its connections.
struct ServerFace {
  std::string node_id;
  std::function<std::string()> grpc_address;
};

class Connection {
 public:
  enum class Kind { kUnix, kTcp };

  static constexpr size_t kInlineFrameBytesMax = 64 * KiB;   // a put up to this is parsed from the buffer whole
  static constexpr uint64_t kCopiedReplyBytesMax = 16 * KiB;  // larger payloads are sent from the segment
  static constexpr uint64_t kOutputBytesMax = 4 * MiB;       // copied output at which reading stops
  static constexpr size_t kPinnedRepliesMax = 64;            // pinned replies at which reading stops
  static constexpr size_t kDraftsMax = 64;
  static constexpr size_t kWaitingReservesMax = 64;
  static constexpr uint64_t kBufferStepBytes = 64 * KiB;     // buffers are accounted in steps of so much
  static constexpr size_t kTransfersMax = 64;                // objects in files being read at which reading stops
  // The most that `consume` leaves over: one incomplete frame.
  static constexpr size_t kLeftoverBytesMax =
      sizeof(wire::FrameHeader) + wire::kRequestBodyBytesMax + kInlineFrameBytesMax;

  Connection(Kind kind, Store& store, const ServerFace& face);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // --- input
  // Parses what it can and returns how many bytes it used; the rest is to be handed in again with more.
  size_t consume(const uint8_t* data, size_t bytes);
  // Where the next bytes of the stream belong, while a large put is on its way; none otherwise.
  size_t direct_targets(iovec* vectors, size_t max) const;
  // That many bytes have been written to what `direct_targets` gave.
  void direct_filled(size_t bytes);
  // False while the peer must first take its output.
  bool wants_input() const {
    return !closing_ && output_.copied_bytes() < kOutputBytesMax && output_.pinned_chunks() < kPinnedRepliesMax &&
           transfers_.size() < kTransfersMax;
  }
  // Whether a frame has begun and not ended.
  bool mid_frame() const { return put_.has_value() || pieces_left_ > 0; }

  // --- output
  OutputQueue& output() { return output_; }
  // Everything queued is the last of it: close once it is sent.
  bool closing() const { return closing_; }
  // Says why and closes.
  void goodbye(const Status& status);

  // --- reads of files
  // `arrived` runs on another thread when `take_reads` has something to do. It must not block. Set before any input.
  void on_reads(std::function<void()> arrived) { on_reads_ = std::move(arrived); }
  // Whether there are replies to come that wait for reads.
  bool reading() const { return !transfers_.empty(); }
  // Queues what has arrived and reads on, as far ahead as output was sent.
  void take_reads();

  // --- the seal ring
  // Seals up to one batch of what the ring holds; whether there was any.
  bool drain_ring();
  // Seals everything that was pushed before the call.
  void drain_ring_pushed();
  bool has_ring() const { return ring_ != nullptr; }
  bool ring_has_work() const;
  // Tells the client that this side will sleep (or no more). After true, `ring_has_work` must be looked at again.
  void set_ring_sleeping(bool sleeping);
  int wake_server_fd() const { return wake_server_fd_; }

  // --- events
  void segment_retired(uint32_t segment);
  void namespace_dropped();
  // Says goodbye where the pass that opened the connection has expired: what was pushed before counts, nothing after.
  void expire(uint64_t now_unix_ms);
  bool has_waiting_reserves() const { return !waiting_.empty(); }
  // Tries the reserves that wait for room again; fails those whose time is up.
  void retry_reserves(TransportClock::time_point now);

  bool greeted() const { return namespace_ != nullptr; }
  const std::shared_ptr<Namespace>& served_namespace() const { return namespace_; }
  SessionId session() const { return session_; }
  // Tells the namespace about the traffic since the last call.
  void report_traffic();
  // Tells the namespace what memory this connection uses for bytes on their way, where that has changed by much;
  // `waiting_input_bytes`: of input that is not parsed yet.
  void report_buffers(uint64_t waiting_input_bytes);

 private:
  struct Put;

  size_t consume_frame(const uint8_t* data, size_t bytes);
  bool handle(const wire::FrameHeader& header, const uint8_t* body, ConstSpan payload);
  void begin_pieces(const wire::FrameHeader& header, const uint8_t* body);
  void take_piece(ConstSpan piece);
  void end_pieces();

  void hello(const wire::FrameHeader& header, const uint8_t* body);
  void put_inline(const wire::FrameHeader& header, const uint8_t* body, ConstSpan payload);
  void get(const wire::FrameHeader& header, const wire::ObjectRequest& request, std::string_view key);
  void copy(const wire::FrameHeader& header, const uint8_t* body);
  void begin_transfer(const wire::FrameHeader& header, ObjectView view, std::string_view key,
                      std::optional<Draft> draft = std::nullopt, Condition condition = {});
  bool ask_ahead();
  void list(const wire::FrameHeader& header, const uint8_t* body);
  void begin_draft(const wire::FrameHeader& header, std::string_view key);
  void end_draft(const wire::FrameHeader& header, const uint8_t* body);
  void reserve(const wire::FrameHeader& header, const uint8_t* body);
  void seal(const wire::FrameHeader& header, const uint8_t* body);
  void open_segment(const wire::FrameHeader& header, uint32_t segment);
  Status make_ring();

  // Checks the struct and the key behind it; refuses the frame where they do not fit.
  bool read_object_request(const wire::FrameHeader& header, const uint8_t* body, wire::ObjectRequest* request,
                           std::string_view* key);
  void reply(const wire::FrameHeader& request, const void* body, uint32_t body_bytes,
             std::vector<PassedDescriptor> descriptors = {});
  void reply_info(const wire::FrameHeader& request, const Result<ObjectInfo>& info);
  void reply_error(const wire::FrameHeader& request, const Status& status);
  void reply_grant(const wire::FrameHeader& request, const Grant& grant);
  void push(wire::Opcode opcode, const Status& status, const void* body, uint32_t body_bytes);

  const Kind kind_;
  Store& store_;
  const ServerFace& face_;
  std::shared_ptr<Namespace> namespace_;
  OutputQueue output_;
  bool closing_ = false;
  bool dropped_ = false;  // the namespace, and the client was told
  Pass pass_;
  uint64_t buffer_bytes_ = 0;  // that the namespace knows of

  // A large put on its way into its draft.
  struct Put {
    wire::FrameHeader header;
    Condition condition;
    Draft draft;
    std::vector<Span> spans;
    std::vector<uint32_t> crcs;  // of the spans done, and of the one being filled
    size_t span = 0;
    uint64_t span_filled = 0;
  };
  std::optional<Put> put_;

  // The payload of an append, or one that nobody wants (its request has failed), passed on piece by piece.
  wire::FrameHeader pieces_header_{};
  uint64_t pieces_left_ = 0;
  uint32_t pieces_crc_ = 0;
  Draft* pieces_draft_ = nullptr;
  uint64_t pieces_draft_id_ = 0;
  Status pieces_failed_;

  std::unordered_map<uint64_t, Draft> drafts_;

  // An object that is on its way out of files to the peer, or from wherever it lies to its copy.
  struct Transfer {
    // Takes what has arrived. Whether that was the last of it: replied to, one way or the other.
    bool advance(Connection& connection);
    void send(Connection& connection, ViewReader::Piece piece);

    wire::FrameHeader header;  // of the request
    std::unique_ptr<ViewReader> reader;
    std::optional<Draft> draft;  // of a copy
    Condition condition;
    bool begun = false;  // a piece was sent
  };
  std::list<Transfer> transfers_;  // the oldest first
  std::function<void()> on_reads_;

  // The Unix socket's part.
  SessionId session_ = 0;
  std::shared_ptr<SharedMemory> ring_memory_;
  SealRing* ring_ = nullptr;
  uint64_t ring_acked_ = 0;  // this side's own count: the shared one may be scribbled over
  int wake_server_fd_ = -1;
  int wake_client_fd_ = -1;
  std::unordered_set<uint32_t> writable_sent_;  // segments whose read-write descriptor the client has
  struct WaitingReserve {
    wire::FrameHeader header;
    uint64_t bytes;
    TransportClock::time_point deadline;
  };
  std::vector<WaitingReserve> waiting_;

  ObjectView view_;  // of the get at hand; kept for its vectors
  Traffic traffic_;
};

}  // namespace millrace
