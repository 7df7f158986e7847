// The daemon's native doors: the Unix socket (shared memory) and the TCP data port, served by I/O threads of
// their own. No JavaScript runs here.
//
//   accept (thread 0) -> a connection belongs to one I/O thread for life -> epoll -> Connection -> store
//
// An I/O thread that had work from a seal ring lately polls the rings for some microseconds before it sleeps,
// since a wake across cores costs more than that; never more than one thread polls, and one that polls in vain
// stops doing so for a while: with few cores a poller takes the time of the client it waits for.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/store.h"
#include "transport/bandwidth.h"

namespace millrace {

struct ServerFace;

struct ServerOptions {
  std::string socket_path;  // empty: no Unix socket
  std::string data_host;    // empty: no TCP port
  uint16_t data_port = 0;   // 0: any free one
  unsigned io_threads = 1;
  std::string node_id;
  BandwidthClock bandwidth_clock = std::chrono::steady_clock::now;  // bandwidth limits are measured by it
};

class Server final : public Store::Listener {
 public:
  // The store must outlive the server, which is its listener while it runs.
  Server(Store& store, ServerOptions options);
  ~Server() override;

  // Opens the doors and starts the threads. INVALID_ARGUMENT for a bad address, ALREADY_EXISTS where another
  // process serves the socket path, SYSTEM for what the kernel refuses.
  Status start();
  // Closes all connections (their sessions end) and joins the threads. Once; the destructor does it too.
  void stop();

  // Really bound; empty where closed.
  const std::string& socket_path() const { return bound_socket_path_; }
  const std::string& data_address() const { return data_address_; }

  // Told to clients in the reply to their hello.
  void set_grpc_address(std::string address);
  std::string grpc_address() const;

  // Connections that are open.
  uint64_t sessions() const { return sessions_.load(std::memory_order_relaxed); }
  // How often a connection has had to rest for its namespace's bandwidth limit.
  uint64_t bandwidth_rests() const { return bandwidth_rests_.load(std::memory_order_relaxed); }

  void segment_retired(Namespace& ns, SessionId session, uint32_t segment) override;
  void namespace_dropped(Namespace& ns) override;
  void room_freed() override;

 private:
  class IoThread;
  friend class IoThread;

  Status open_socket();
  Status open_data_port();
  // Takes a new connection, from thread 0; closes it where there are too many.
  void accepted(int fd, bool unix_socket);
  void remember_session(SessionId session, IoThread* thread);
  void forget_session(SessionId session);

  Store& store_;
  const ServerOptions options_;
  std::string bound_socket_path_;
  std::string data_address_;
  mutable std::mutex mutex_;  // of grpc_address_ and session_threads_; nothing else is locked under it
  std::string grpc_address_;
  std::unordered_map<SessionId, IoThread*> session_threads_;
  std::unique_ptr<ServerFace> face_;
  BandwidthLimits bandwidth_limits_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  int unix_listener_ = -1;
  int data_listener_ = -1;
  std::atomic<uint64_t> sessions_{0};
  std::atomic<uint64_t> bandwidth_rests_{0};
  std::atomic<bool> spinner_{false};  // a thread polls rings
  size_t next_thread_ = 0;
  bool running_ = false;
};

}  // namespace millrace
