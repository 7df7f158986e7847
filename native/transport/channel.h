// The client's end of a connection, Unix or TCP: sends request frames, many in flight, and hands each reply to
// the sink that waits for it.
//
// Requests may be submitted from any thread. Replies come on the thread that pumps: the channel's own
// (`start_thread`), or the caller's (`pump`); never both.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "transport/output_queue.h"
#include "transport/payload_buffer.h"
#include "transport/wire.h"

namespace millrace {

struct ChannelOptions {
  std::string socket_path;  // Unix socket, or
  std::string host;         // TCP where the path is empty
  uint16_t port = 0;
  std::string namespace_name;
  Token token{};
  uint32_t timeout_ms = 30000;  // of connecting, and of each request
};

// What the server said in reply to the hello.
struct ServerGreeting {
  std::string node_id;
  std::string grpc_address;
  uint64_t index_map_bytes = 0;
  uint64_t ring_bytes = 0;
  std::vector<int> descriptors;  // Unix: index, ring, wake server, wake client; whoever takes them closes them
};

struct ChannelReply {
  wire::Opcode opcode;
  Code code = Code::kOk;
  std::string_view body;   // the message where the code is not kOk; valid during the call
  ConstSpan payload{};     // valid during the call, or for as long as `buffer` lives where it has one
  PayloadBuffer buffer;    // of large payloads; may be taken
  std::vector<int> descriptors;  // those left here are closed after the call

  Status status() const { return code == Code::kOk ? Status() : Status(code, std::string(body)); }
  // The reply's struct; false where the body is shorter.
  template <class T>
  bool read(T* out) const {
    return wire::read_body(reinterpret_cast<const uint8_t*>(body.data()), static_cast<uint32_t>(body.size()), out) != nullptr;
  }
};

class Channel {
 public:
  // Waits for one or more replies. Called from the pumping thread; must not block or call `pump`.
  struct Sink {
    virtual ~Sink() = default;
    virtual void on_reply(uint64_t tag, ChannelReply& reply) = 0;
  };
  // What the server sends of its own accord, from the pumping thread.
  struct Events {
    virtual ~Events() = default;
    virtual void on_segment_retired(uint32_t segment) = 0;
    virtual void on_namespace_dropped() = 0;
    // The connection is gone; every request has been told.
    virtual void on_lost(const Status& why) = 0;
    // A batch of replies has been handed out.
    virtual void on_batch_end() = 0;
    // At least once a second, while the channel has a thread.
    virtual void on_tick() {}
  };
  struct Request {
    wire::Opcode opcode;
    const void* body = nullptr;
    size_t body_bytes = 0;
    std::string_view key;         // follows the body
    std::string_view second_key;  // follows the key
    ConstSpan payload{};
    bool has_payload = false;
    // Payloads up to this are copied; larger ones must stay as they are until the reply.
    static constexpr uint64_t kCopiedPayloadBytesMax = 64 * KiB;
    uint32_t timeout_ms = 0;  // 0: the channel's
    Sink* sink = nullptr;     // null: no reply is expected
    uint64_t tag = 0;
  };

  // Connects and greets. UNAVAILABLE where nobody answers, UNAUTHENTICATED or NOT_FOUND as the server says.
  static Result<std::shared_ptr<Channel>> connect(const ChannelOptions& options, ServerGreeting* greeting);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Before the first pump.
  void set_events(Events* events) { events_ = events; }
  // `fd` (an eventfd) is watched too and `callback` runs on the pumping thread when it fires.
  void watch_bell(int fd, std::function<void()> callback);

  void start_thread(const char* name);
  bool has_thread() const { return thread_.joinable(); }
  // Ends the thread; requests that wait get CLOSED. The socket stays open until the channel is destroyed:
  // it is what tells the server that this client still has memory mapped.
  void stop();

  // Queues a request. Its id, which also names a draft; UNAVAILABLE where the connection is lost.
  Result<uint64_t> submit(const Request& request);
  // Sends what is queued, as far as the socket takes it; the pumping thread does the rest.
  void flush();
  // Submits, flushes and waits (pumping where the channel has no thread). `reply` must not be used for its
  // body or payload after the call: `take` runs while they are valid.
  Status call(Request request, const std::function<void(ChannelReply&)>& take = {});
  // Handles what has come, waiting up to `timeout_ms` for it. False when the connection is lost.
  bool pump(int timeout_ms);
  // Runs `task` on the pumping thread.
  void post(std::function<void()> task);

  // Why it was lost; OK while it is not.
  Status lost_status();
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  uint64_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  uint32_t timeout_ms() const { return timeout_ms_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending {
    Sink* sink = nullptr;
    uint64_t tag = 0;
    uint64_t id = 0;           // 0: free
    uint64_t sent_at = 0;      // output position of the request's end
    wire::Opcode opcode{};
    Clock::time_point deadline;
  };

  Channel(int fd, bool unix_socket, uint32_t timeout_ms);
  Status greet(const ChannelOptions& options, ServerGreeting* greeting);
  void send_queued(std::unique_lock<std::mutex>& lock, size_t bytes_max);
  bool receive();
  size_t parse(const uint8_t* data, size_t bytes);
  void deliver(const wire::FrameHeader& header, const uint8_t* body, ConstSpan payload, PayloadBuffer buffer);
  bool take_buffer(uint64_t bytes, PayloadBuffer* buffer);
  bool end_large();
  struct Pieces;
  // Whether the frame is a piece of a reply, and of which. False with receive_failed_ where it does not fit.
  bool find_pieces(const wire::FrameHeader& header, const uint8_t* body, std::shared_ptr<Pieces>* pieces);
  void end_piece(const wire::FrameHeader& header, const uint8_t* body, Pieces& pieces, uint32_t crc);
  void lose(Status why);
  void check_deadlines(Clock::time_point now);
  void ring_bell();
  void run_posted();

  const int fd_;
  const bool unix_socket_;
  const uint32_t timeout_ms_;
  Events* events_ = nullptr;
  int bell_ = -1;
  int foreign_bell_ = -1;
  std::function<void()> on_foreign_bell_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> lost_{false};
  std::atomic<uint64_t> in_flight_{0};

  std::mutex mutex_;  // of everything from here to `posted_`
  OutputQueue output_;
  uint64_t queued_total_ = 0;
  uint64_t sent_total_ = 0;
  bool sending_ = false;   // a thread is in sendmsg with what `front` gave
  bool blocked_ = false;   // the socket is full: the pumping thread waits for it
  std::vector<Pending> pending_;
  std::vector<uint32_t> free_;
  uint64_t next_generation_ = 1;
  Status lost_why_;
  std::vector<std::function<void()>> posted_;

  // The pumping thread's own.
  std::vector<uint8_t> input_;
  size_t input_bytes_ = 0;
  std::deque<int> received_;  // descriptors not yet claimed by their frame
  // The payload of a reply that comes in several frames.
  struct Pieces {
    PayloadBuffer buffer;
    uint64_t bytes = 0;
    uint64_t filled = 0;
    uint32_t crc = 0;
    bool damaged = false;
  };
  std::unordered_map<uint64_t, std::shared_ptr<Pieces>> pieces_;  // by request id
  struct Large {
    wire::FrameHeader header;
    std::vector<uint8_t> body;
    std::shared_ptr<Pieces> pieces;  // whose next piece this is, or
    PayloadBuffer buffer;            // memory of its own
    uint8_t* data = nullptr;
    uint64_t filled = 0;
    uint32_t crc = 0;
  };
  std::unique_ptr<Large> large_;
  Status receive_failed_;
  Clock::time_point deadlines_checked_at_;
  std::shared_ptr<PayloadPool> pool_ = std::make_shared<PayloadPool>();
};

}  // namespace millrace
