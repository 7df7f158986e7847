#include "transport/server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "transport/io_thread.h"

namespace millrace {

namespace {

struct UnixAddress {
  sockaddr_un address{};
  socklen_t bytes = sizeof(sockaddr_un);
};

Result<UnixAddress> unix_address(const std::string& path) {
  UnixAddress result;
  result.address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(result.address.sun_path)) {
    return Status(Code::kInvalidArgument, "a socket path has 1 to " +
                                              std::to_string(sizeof(result.address.sun_path) - 1) +
                                              " bytes: " + path);
  }
  std::memcpy(result.address.sun_path, path.c_str(), path.size() + 1);
  return result;
}

}  // namespace

Server::Server(Store& store, ServerOptions options)
    : store_(store), options_(std::move(options)), bandwidth_limits_(options_.bandwidth_clock) {}

Server::~Server() { stop(); }

Status Server::open_socket() {
  auto address = unix_address(options_.socket_path);
  if (!address.ok()) return address.status();
  const auto* raw = reinterpret_cast<const sockaddr*>(&address->address);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Status::from_errno("socket", errno);
  unix_listener_ = fd;
  if (bind(fd, raw, address->bytes) != 0) {
    if (errno != EADDRINUSE) return Status::from_errno(("bind " + options_.socket_path).c_str(), errno);
    // Left over from a daemon that was killed, or in use? Only a connect tells.
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool stale = probe >= 0 && connect(probe, raw, address->bytes) != 0 && errno == ECONNREFUSED;
    if (probe >= 0) ::close(probe);
    struct stat info {};
    if (!stale || lstat(options_.socket_path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) {
      return Status(Code::kAlreadyExists, "another process serves " + options_.socket_path);
    }
    ::unlink(options_.socket_path.c_str());
    if (bind(fd, raw, address->bytes) != 0) {
      return Status::from_errno(("bind " + options_.socket_path).c_str(), errno);
    }
  }
  bound_socket_path_ = options_.socket_path;
  // Before it listens, so that nobody else gets in meanwhile.
  if (chmod(options_.socket_path.c_str(), 0600) != 0) return Status::from_errno("chmod", errno);
  if (listen(fd, 512) != 0) return Status::from_errno("listen", errno);
  return {};
}

Status Server::open_data_port() {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(options_.data_port);
  if (const int error = getaddrinfo(options_.data_host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return Status(Code::kInvalidArgument, "data address " + options_.data_host + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Status::from_errno("socket", errno);
  data_listener_ = fd;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0) {
    return Status::from_errno(("bind " + options_.data_host + ":" + port).c_str(), errno);
  }
  if (listen(fd, 512) != 0) return Status::from_errno("listen", errno);
  sockaddr_storage bound{};
  socklen_t bound_bytes = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &bound_bytes);
  const uint16_t number = bound.ss_family == AF_INET6 ? ntohs(reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port)
                                                      : ntohs(reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  const bool brackets = options_.data_host.find(':') != std::string::npos;
  data_address_ = (brackets ? "[" + options_.data_host + "]" : options_.data_host) + ":" + std::to_string(number);
  return {};
}

Status Server::start() {
  MILLRACE_ASSERT(!running_);
  running_ = true;
  auto fail = [this](Status status) {
    stop();
    return status;
  };
  if (!options_.socket_path.empty()) {
    if (Status failed = open_socket(); !failed.ok()) return fail(failed);
  }
  if (!options_.data_host.empty()) {
    if (Status failed = open_data_port(); !failed.ok()) return fail(failed);
  }
  face_ = std::make_unique<ServerFace>(ServerFace{options_.node_id, [this] { return grpc_address(); }});
  for (unsigned i = 0; i < std::max(1u, options_.io_threads); ++i) {
    threads_.push_back(std::make_unique<IoThread>(*this, *face_));
  }
  for (size_t i = 0; i < threads_.size(); ++i) {
    std::vector<int> unix_listeners, data_listeners;
    if (i == 0 && unix_listener_ >= 0) unix_listeners.push_back(unix_listener_);
    if (i == 0 && data_listener_ >= 0) data_listeners.push_back(data_listener_);
    if (Status failed = threads_[i]->open(unix_listeners, data_listeners); !failed.ok()) return fail(failed);
  }
  store_.set_listener(this);
  for (auto& thread : threads_) thread->start();
  return {};
}

void Server::stop() {
  if (!running_) return;
  running_ = false;
  for (auto& thread : threads_) thread->stop();
  // After the threads: ending their sessions may still call the listener.
  store_.set_listener(nullptr);
  threads_.clear();
  if (unix_listener_ >= 0) ::close(unix_listener_);
  if (data_listener_ >= 0) ::close(data_listener_);
  unix_listener_ = data_listener_ = -1;
  if (!bound_socket_path_.empty()) ::unlink(bound_socket_path_.c_str());
  bound_socket_path_.clear();
  data_address_.clear();
}

void Server::set_grpc_address(std::string address) {
  std::lock_guard lock(mutex_);
  grpc_address_ = std::move(address);
}

std::string Server::grpc_address() const {
  std::lock_guard lock(mutex_);
  return grpc_address_;
}

void Server::accepted(int fd, bool unix_socket) {
  if (sessions_.load() >= limits::kSessionsMax) {
    ::close(fd);
    return;
  }
  sessions_.fetch_add(1);
  next_thread_ = (next_thread_ + 1) % threads_.size();
  threads_[next_thread_]->adopt(fd, unix_socket ? Connection::Kind::kUnix : Connection::Kind::kTcp);
}

void Server::remember_session(SessionId session, IoThread* thread) {
  std::lock_guard lock(mutex_);
  session_threads_[session] = thread;
}

void Server::forget_session(SessionId session) {
  std::lock_guard lock(mutex_);
  session_threads_.erase(session);
}

void Server::segment_retired(Namespace&, SessionId session, uint32_t segment) {
  IoThread* thread = nullptr;
  {
    std::lock_guard lock(mutex_);
    auto found = session_threads_.find(session);
    if (found == session_threads_.end()) return;
    thread = found->second;
  }
  thread->post_retired(session, segment);
}

void Server::namespace_dropped(Namespace& ns) {
  for (auto& thread : threads_) thread->post_dropped(&ns);
}

void Server::room_freed() {
  for (auto& thread : threads_) {
    if (thread->has_waiting_reserves()) thread->post_room_freed();
  }
}

}  // namespace millrace
