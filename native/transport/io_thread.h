// One I/O thread of the server: an epoll loop over its connections and their rings. Private to the server.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>
#include <vector>

#include "transport/connection.h"
#include "transport/server.h"

namespace millrace {

class Server::IoThread {
  struct Peer;

 public:
  IoThread(Server& server, const ServerFace& face);
  ~IoThread();

  // `open` on all threads before `start` on any: a thread may be handed connections as soon as it is open.
  Status open(const std::vector<int>& unix_listeners, const std::vector<int>& data_listeners);
  void start();
  // Ends the loop, closes every connection, joins.
  void stop();

  // From any thread.
  void adopt(int fd, Connection::Kind kind);
  void post_retired(SessionId session, uint32_t segment);
  void post_dropped(Namespace* ns);
  void post_room_freed();
  void post_reads(Peer* peer);
  bool has_waiting_reserves() const { return waiting_reserves_.load(std::memory_order_relaxed) > 0; }

 private:
  struct Peer {
    Peer(int fd, Connection::Kind kind, Store& store, const ServerFace& face)
        : fd(fd), kind(kind), connection(kind, store, face) {}
    const int fd;
    const Connection::Kind kind;
    Connection connection;
    std::vector<uint8_t> leftover;
    uint32_t events = 0;       // what epoll watches for
    bool hot = false;          // its ring is polled
    bool dead = false;         // to be deleted at the end of the round
    bool peer_done = false;    // the client has sent its last byte
    TransportClock::time_point progress_at;
    std::shared_ptr<Bandwidth> bandwidth;  // null where there is no limit
    bool resting = false;                  // moves no bytes until `rests_until`
    Bandwidth::TimePoint rests_until;      // by the clock of its bandwidth
  };

  void run();
  void take_mail();
  void accept_all(int listener, bool unix_socket);
  void on_input(Peer& peer);
  void process(Peer& peer, const uint8_t* data, size_t bytes);
  void flush(Peer& peer);
  void watch(Peer& peer);
  void kill(Peer& peer);
  void bury();
  void wake_up(Peer& peer);
  bool drain_rings();
  // Whether the rings stayed empty, so that the thread may sleep.
  bool put_rings_to_sleep();
  void note_waiting(Peer& peer);
  // Pays for bytes moved; the peer rests where its namespace has moved more than it may.
  void pay(Peer& peer, size_t bytes);
  void end_rest(Peer& peer);
  void end_rests_due();
  void tick(TransportClock::time_point now);
  int sleep_ms(TransportClock::time_point now) const;
  void ring_bell();

  Server& server_;
  const ServerFace& face_;
  int epoll_ = -1;
  int bell_ = -1;      // eventfd: mail has come
  int spare_fd_ = -1;  // given up for a moment when descriptors run out
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> waiting_reserves_{0};

  struct Mail {
    enum class Kind { kAdopt, kRetired, kDropped, kRoomFreed, kReads } kind;
    int fd = -1;
    Connection::Kind connection_kind = Connection::Kind::kTcp;
    SessionId session = 0;
    uint32_t segment = 0;
    Namespace* ns = nullptr;
    Peer* peer = nullptr;  // perhaps gone by now
  };
  std::mutex mail_mutex_;
  std::vector<Mail> mail_;
  bool bell_rung_ = false;

  std::unordered_map<Peer*, std::unique_ptr<Peer>> peers_;
  std::unordered_map<SessionId, Peer*> by_session_;
  std::vector<Peer*> hot_;
  std::vector<Peer*> dead_;
  std::vector<Peer*> waiting_;  // with reserves that wait for room
  std::set<std::pair<Bandwidth::TimePoint, Peer*>> resting_;  // by when they may go on
  std::vector<int> unix_listeners_, data_listeners_;
  std::unique_ptr<uint8_t[]> buffer_;
  TransportClock::time_point ticked_at_;
  TransportClock::time_point now_;
};

}  // namespace millrace
