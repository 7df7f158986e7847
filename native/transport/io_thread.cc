#include "transport/io_thread.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace millrace {

namespace {

constexpr size_t kBufferBytes = 256 * KiB;
constexpr size_t kDirectReadBytesMax = 1 * MiB;  // a read of a large put: small enough to be summed in the cache
constexpr size_t kVectorsMax = 64;
constexpr size_t kSendBytesRound = 4 * MiB;  // then other connections get their turn
constexpr int kReadsRound = 8;
constexpr auto kHelloTimeout = std::chrono::seconds(10);
constexpr auto kStallTimeout = std::chrono::seconds(60);
constexpr auto kTick = std::chrono::seconds(1);
constexpr auto kReserveTick = std::chrono::milliseconds(20);
constexpr auto kSpin = std::chrono::microseconds(20);
constexpr auto kSocketsWhileSpinning = std::chrono::microseconds(10);
constexpr int kSpinsInVainMax = 4;       // then the thread sleeps at once ...
constexpr int kSleepsBeforeSpinning = 16;  // ... this many times

// epoll's data is a pointer, marked in its low bits.
enum Mark : uint64_t { kPeer = 0, kRing = 1, kBell = 2, kUnixListener = 3, kDataListener = 4, kMarks = 7 };

bool add_to_epoll(int epoll, int fd, uint32_t events, uint64_t data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

// Shortens the vectors to `bytes` (> 0) in all; returns how many are left.
size_t cut(iovec* vectors, size_t count, uint64_t bytes) {
  for (size_t i = 0; i < count; ++i) {
    if (vectors[i].iov_len >= bytes) {
      vectors[i].iov_len = bytes;
      return i + 1;
    }
    bytes -= vectors[i].iov_len;
  }
  return count;
}

}  // namespace

Server::IoThread::IoThread(Server& server, const ServerFace& face)
    : server_(server), face_(face), buffer_(new uint8_t[2 * kBufferBytes]) {}

Server::IoThread::~IoThread() {
  stop();
  if (epoll_ >= 0) ::close(epoll_);
  if (bell_ >= 0) ::close(bell_);
  if (spare_fd_ >= 0) ::close(spare_fd_);
}

Status Server::IoThread::open(const std::vector<int>& unix_listeners, const std::vector<int>& data_listeners) {
  unix_listeners_ = unix_listeners;
  data_listeners_ = data_listeners;
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_ < 0) return Status::from_errno("epoll_create1", errno);
  bell_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (bell_ < 0) return Status::from_errno("eventfd", errno);
  if (!add_to_epoll(epoll_, bell_, EPOLLIN | EPOLLET, kBell)) return Status::from_errno("epoll_ctl", errno);
  for (int fd : unix_listeners_) {
    if (!add_to_epoll(epoll_, fd, EPOLLIN, static_cast<uint64_t>(fd) << 3 | kUnixListener)) {
      return Status::from_errno("epoll_ctl", errno);
    }
  }
  for (int fd : data_listeners_) {
    if (!add_to_epoll(epoll_, fd, EPOLLIN, static_cast<uint64_t>(fd) << 3 | kDataListener)) {
      return Status::from_errno("epoll_ctl", errno);
    }
  }
  spare_fd_ = eventfd(0, EFD_CLOEXEC);
  return {};
}

void Server::IoThread::start() {
  thread_ = std::thread([this] {
    prctl(PR_SET_NAME, "millrace-io");
    run();
  });
}

void Server::IoThread::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true);
  ring_bell();
  thread_.join();
}

void Server::IoThread::ring_bell() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(bell_, &one, sizeof(one));
}

// --- mail

void Server::IoThread::adopt(int fd, Connection::Kind kind) {
  Mail mail{Mail::Kind::kAdopt};
  mail.fd = fd;
  mail.connection_kind = kind;
  std::unique_lock lock(mail_mutex_);
  mail_.push_back(mail);
  if (!std::exchange(bell_rung_, true)) ring_bell();
}

void Server::IoThread::post_retired(SessionId session, uint32_t segment) {
  Mail mail{Mail::Kind::kRetired};
  mail.session = session;
  mail.segment = segment;
  std::unique_lock lock(mail_mutex_);
  mail_.push_back(mail);
  if (!std::exchange(bell_rung_, true)) ring_bell();
}

void Server::IoThread::post_dropped(Namespace* ns) {
  Mail mail{Mail::Kind::kDropped};
  mail.ns = ns;
  std::unique_lock lock(mail_mutex_);
  mail_.push_back(mail);
  if (!std::exchange(bell_rung_, true)) ring_bell();
}

void Server::IoThread::post_room_freed() {
  std::unique_lock lock(mail_mutex_);
  if (!mail_.empty() && mail_.back().kind == Mail::Kind::kRoomFreed) return;
  mail_.push_back({Mail::Kind::kRoomFreed});
  if (!std::exchange(bell_rung_, true)) ring_bell();
}

void Server::IoThread::post_reads(Peer* peer) {
  Mail mail{Mail::Kind::kReads};
  mail.peer = peer;
  std::unique_lock lock(mail_mutex_);
  mail_.push_back(mail);
  if (!std::exchange(bell_rung_, true)) ring_bell();
}

void Server::IoThread::take_mail() {
  std::vector<Mail> mail;
  {
    std::unique_lock lock(mail_mutex_);
    mail.swap(mail_);
    bell_rung_ = false;
  }
  for (const Mail& item : mail) {
    switch (item.kind) {
      case Mail::Kind::kAdopt: {
        auto peer = std::make_unique<Peer>(item.fd, item.connection_kind, server_.store_, face_);
        peer->progress_at = now_;
        peer->connection.on_reads([this, to = peer.get()] { post_reads(to); });
        peer->events = EPOLLIN | EPOLLRDHUP;
        if (!add_to_epoll(epoll_, item.fd, peer->events, reinterpret_cast<uint64_t>(peer.get()) | kPeer)) {
          ::close(item.fd);
          server_.sessions_.fetch_sub(1);
          break;
        }
        peers_.emplace(peer.get(), std::move(peer));
        break;
      }
      case Mail::Kind::kRetired: {
        auto found = by_session_.find(item.session);
        if (found == by_session_.end()) break;
        found->second->connection.segment_retired(item.segment);
        flush(*found->second);
        break;
      }
      case Mail::Kind::kDropped:
        for (auto& [peer, owner] : peers_) {
          if (peer->connection.served_namespace().get() != item.ns) continue;
          // Nothing is left to limit, and the client should know at once.
          peer->bandwidth.reset();
          end_rest(*peer);
          peer->connection.namespace_dropped();
          flush(*peer);
        }
        break;
      case Mail::Kind::kReads: {
        auto found = peers_.find(item.peer);
        if (found == peers_.end() || found->second->dead) break;
        item.peer->progress_at = now_;
        item.peer->connection.take_reads();
        item.peer->connection.report_traffic();
        flush(*item.peer);
        break;
      }
      case Mail::Kind::kRoomFreed:
        for (Peer* peer : std::vector<Peer*>(waiting_)) {
          peer->connection.retry_reserves(now_);
          note_waiting(*peer);
          flush(*peer);
        }
        break;
    }
  }
}

// --- connections

void Server::IoThread::accept_all(int listener, bool unix_socket) {
  for (int i = 0; i < 64; ++i) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && errno == EMFILE && spare_fd_ >= 0) {
      // Out of descriptors: refuse the client, rather than be told of it for ever.
      ::close(spare_fd_);
      const int refused = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (refused >= 0) ::close(refused);
      spare_fd_ = eventfd(0, EFD_CLOEXEC);
      continue;
    }
    if (fd < 0) return;
    if (!unix_socket) {
      const int on = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    } else {
      // A large put or get in few system calls.
      const int bytes = 1 * MiB;
      setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    }
    server_.accepted(fd, unix_socket);
  }
}

void Server::IoThread::kill(Peer& peer) {
  if (peer.dead) return;
  peer.dead = true;
  dead_.push_back(&peer);
}

void Server::IoThread::bury() {
  for (Peer* peer : dead_) {
    std::erase(hot_, peer);
    std::erase(waiting_, peer);
    end_rest(*peer);
    waiting_reserves_.store(static_cast<int>(waiting_.size()));
    if (const SessionId session = peer->connection.session(); session != 0) {
      by_session_.erase(session);
      server_.forget_session(session);
    }
    ::close(peer->fd);  // epoll forgets it with the last descriptor
    if (peer->connection.has_ring()) epoll_ctl(epoll_, EPOLL_CTL_DEL, peer->connection.wake_server_fd(), nullptr);
    peers_.erase(peer);
    server_.sessions_.fetch_sub(1);
  }
  dead_.clear();
}

void Server::IoThread::watch(Peer& peer) {
  uint32_t events = EPOLLRDHUP;
  if (peer.connection.wants_input() && !peer.peer_done) events |= EPOLLIN;
  if (!peer.connection.output().empty()) events |= EPOLLOUT;
  if (peer.peer_done) events &= ~static_cast<uint32_t>(EPOLLRDHUP);
  if (peer.resting) events = 0;  // errors are told of all the same
  if (events == peer.events) return;
  peer.events = events;
  epoll_event event{};
  event.events = events;
  event.data.u64 = reinterpret_cast<uint64_t>(&peer) | kPeer;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, peer.fd, &event);
}

void Server::IoThread::flush(Peer& peer) {
  if (peer.dead) return;
  OutputQueue& output = peer.connection.output();
  size_t sent_round = 0;
  while (!output.empty() && sent_round < kSendBytesRound && !peer.resting) {
    iovec vectors[kVectorsMax];
    const std::vector<PassedDescriptor>* descriptors = nullptr;
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = output.front(vectors, kVectorsMax, &descriptors);
    if (peer.bandwidth != nullptr) {
      message.msg_iovlen = cut(vectors, message.msg_iovlen, peer.bandwidth->move_bytes_max());
    }
    alignas(cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
    if (descriptors != nullptr) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(descriptors->size() * sizeof(int));
      cmsghdr* cmsg = CMSG_FIRSTHDR(&message);
      cmsg->cmsg_level = SOL_SOCKET;
      cmsg->cmsg_type = SCM_RIGHTS;
      cmsg->cmsg_len = CMSG_LEN(descriptors->size() * sizeof(int));
      auto* fds = reinterpret_cast<int*>(CMSG_DATA(cmsg));
      for (size_t i = 0; i < descriptors->size(); ++i) fds[i] = (*descriptors)[i].fd;
    }
    const ssize_t sent = sendmsg(peer.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) {
        break;
      }
      return kill(peer);
    }
    output.sent(static_cast<size_t>(sent));
    sent_round += static_cast<size_t>(sent);
    if (peer.bandwidth != nullptr) pay(peer, static_cast<size_t>(sent));
  }
  if (sent_round > 0) peer.progress_at = now_;
  // What was sent makes room for more to be read.
  if (sent_round > 0 && peer.connection.reading()) peer.connection.take_reads();
  peer.connection.report_buffers(peer.leftover.size());
  const bool replied = output.empty() && !peer.connection.reading();
  if (replied && (peer.connection.closing() || peer.peer_done)) return kill(peer);
  // Room in the output: what was left over may go on.
  if (!peer.leftover.empty() && sent_round > 0 && peer.connection.wants_input()) process(peer, nullptr, 0);
  watch(peer);
}

// Parses `data`, or what was left over where it is null, and keeps what is incomplete.
void Server::IoThread::process(Peer& peer, const uint8_t* data, size_t bytes) {
  Connection& connection = peer.connection;
  const bool was_greeted = connection.greeted();
  connection.drain_ring_pushed();  // what was pushed before these frames were sent comes before them
  if (data == nullptr) {
    const size_t used = connection.consume(peer.leftover.data(), peer.leftover.size());
    peer.leftover.erase(peer.leftover.begin(), peer.leftover.begin() + static_cast<ptrdiff_t>(used));
  } else {
    const size_t used = connection.consume(data, bytes);
    peer.leftover.assign(data + used, data + bytes);
  }
  if (!was_greeted && connection.greeted()) {
    if (const SessionId session = connection.session(); session != 0) {
      by_session_.emplace(session, &peer);
      server_.remember_session(session, this);
      add_to_epoll(epoll_, connection.wake_server_fd(), EPOLLIN | EPOLLET, reinterpret_cast<uint64_t>(&peer) | kRing);
      connection.set_ring_sleeping(true);
    }
    if (peer.kind == Connection::Kind::kTcp) {
      peer.bandwidth = server_.bandwidth_limits_.of(connection.served_namespace());
    }
    // It may have been dropped between the look-up and our being told of it.
    if (connection.served_namespace()->dropped()) {
      peer.bandwidth.reset();
      connection.namespace_dropped();
    }
  }
  note_waiting(peer);
}

void Server::IoThread::on_input(Peer& peer) {
  Connection& connection = peer.connection;
  for (int round = 0; round < kReadsRound; ++round) {
    if (peer.dead || peer.resting || !connection.wants_input()) break;
    iovec vectors[kVectorsMax];
    size_t count = 0;
    size_t direct_bytes = 0;
    const size_t before = peer.leftover.size();
    if (before == 0) {
      count = cut(vectors, connection.direct_targets(vectors, kVectorsMax - 1), kDirectReadBytesMax);
      for (size_t i = 0; i < count; ++i) direct_bytes += vectors[i].iov_len;
    } else if (before > kBufferBytes) {
      // Back-pressure has left a whole buffer: first that.
      process(peer, nullptr, 0);
      continue;
    } else {
      std::memcpy(buffer_.get(), peer.leftover.data(), before);
    }
    if (direct_bytes < kDirectReadBytesMax) vectors[count++] = {buffer_.get() + before, kBufferBytes};
    if (peer.bandwidth != nullptr) count = cut(vectors, count, peer.bandwidth->move_bytes_max());
    const ssize_t got = readv(peer.fd, vectors, static_cast<int>(count));
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      return kill(peer);
    }
    if (got == 0) {
      // The client is gone, or has only ended its sending: what it asked for is still sent.
      peer.peer_done = true;
      break;
    }
    peer.progress_at = now_;
    const auto bytes = static_cast<size_t>(got);
    const size_t into_direct = std::min(bytes, direct_bytes);
    if (into_direct > 0) connection.direct_filled(into_direct);
    if (bytes > into_direct) process(peer, buffer_.get(), before + bytes - into_direct);
    if (peer.bandwidth != nullptr) pay(peer, bytes);
    if (bytes < direct_bytes || bytes < kBufferBytes / 2) break;  // drained, most likely: saves a system call
  }
  connection.report_traffic();
  flush(peer);
}

void Server::IoThread::note_waiting(Peer& peer) {
  const bool listed = std::find(waiting_.begin(), waiting_.end(), &peer) != waiting_.end();
  if (peer.connection.has_waiting_reserves() == listed) return;
  if (listed) {
    std::erase(waiting_, &peer);
  } else {
    waiting_.push_back(&peer);
  }
  waiting_reserves_.store(static_cast<int>(waiting_.size()));
}

// --- bandwidth limits

void Server::IoThread::pay(Peer& peer, size_t bytes) {
  const auto may_go_on = peer.bandwidth->spend(bytes);
  if (may_go_on <= peer.bandwidth->now()) return;
  MILLRACE_ASSERT(!peer.resting);  // who rests moves nothing
  peer.resting = true;
  peer.rests_until = may_go_on;
  resting_.emplace(may_go_on, &peer);
  server_.bandwidth_rests_.fetch_add(1, std::memory_order_relaxed);
}

void Server::IoThread::end_rest(Peer& peer) {
  if (!peer.resting) return;
  peer.resting = false;
  resting_.erase({peer.rests_until, &peer});
  peer.progress_at = now_;  // that it stood still was not the client's doing
}

void Server::IoThread::end_rests_due() {
  const auto now = server_.options_.bandwidth_clock();
  while (!resting_.empty() && resting_.begin()->first <= now) {
    Peer& peer = *resting_.begin()->second;
    end_rest(peer);
    flush(peer);  // and asks for its input again
  }
}

// --- rings

void Server::IoThread::wake_up(Peer& peer) {
  if (peer.hot || peer.dead) return;
  peer.hot = true;
  peer.connection.set_ring_sleeping(false);
  hot_.push_back(&peer);
}

bool Server::IoThread::drain_rings() {
  bool any = false;
  for (size_t i = 0; i < hot_.size(); ++i) {
    Peer* peer = hot_[i];
    if (peer->dead || !peer->connection.drain_ring()) continue;
    any = true;
    peer->progress_at = now_;
    peer->connection.report_traffic();
    if (peer->connection.closing()) flush(*peer);
  }
  return any;
}

bool Server::IoThread::put_rings_to_sleep() {
  for (Peer* peer : hot_) peer->connection.set_ring_sleeping(true);
  for (Peer* peer : hot_) {
    if (!peer->connection.ring_has_work()) continue;
    for (Peer* other : hot_) other->connection.set_ring_sleeping(false);
    return false;
  }
  for (Peer* peer : hot_) peer->hot = false;
  hot_.clear();
  return true;
}

// --- the loop

void Server::IoThread::tick(TransportClock::time_point now) {
  ticked_at_ = now;
  const uint64_t now_unix_ms = unix_ms();
  for (auto& [peer, owner] : peers_) {
    if (peer->dead) continue;
    peer->connection.expire(now_unix_ms);
    if (peer->connection.closing()) flush(*peer);
    if (peer->dead || peer->resting) continue;
    const auto idle = now - peer->progress_at;
    const bool stalled = !peer->connection.output().empty() || peer->connection.mid_frame() || !peer->leftover.empty();
    if (!peer->connection.greeted() ? idle > kHelloTimeout : (stalled && idle > kStallTimeout)) kill(*peer);
  }
}

int Server::IoThread::sleep_ms(TransportClock::time_point now) const {
  const auto until_tick = std::chrono::duration_cast<std::chrono::milliseconds>(ticked_at_ + kTick - now).count() + 1;
  long wait = waiting_.empty() ? until_tick : std::min<long>(until_tick, kReserveTick.count());
  if (!resting_.empty()) {
    const auto rest = resting_.begin()->first - server_.options_.bandwidth_clock();
    wait = std::min<long>(wait, std::chrono::ceil<std::chrono::milliseconds>(rest).count());
  }
  return static_cast<int>(std::clamp<long>(wait, 0, 1000));
}

void Server::IoThread::run() {
  constexpr int kEventsMax = 128;
  epoll_event events[kEventsMax];
  int spins_in_vain = 0;
  int sleeps_left = 0;
  bool spinning = false;
  now_ = ticked_at_ = TransportClock::now();
  auto ring_work_at = now_;
  auto sockets_at = now_;
  auto stop_spinning = [&] {
    if (spinning) server_.spinner_.store(false, std::memory_order_release);
    spinning = false;
  };
  while (!stopping_.load(std::memory_order_relaxed)) {
    int timeout_ms = 0;
    if (hot_.empty()) {
      stop_spinning();
      timeout_ms = sleep_ms(now_);
    } else {
      const bool worked = drain_rings();
      if (!dead_.empty()) bury();
      now_ = TransportClock::now();
      if (worked) {
        ring_work_at = now_;
        if (spinning) spins_in_vain = 0;
      } else {
        if (!spinning && sleeps_left == 0) spinning = !server_.spinner_.exchange(true, std::memory_order_acquire);
        if (!spinning || now_ - ring_work_at > kSpin) {
          if (spinning && ++spins_in_vain >= kSpinsInVainMax) {
            spins_in_vain = 0;
            sleeps_left = kSleepsBeforeSpinning;
          } else if (sleeps_left > 0) {
            --sleeps_left;
          }
          stop_spinning();
          if (put_rings_to_sleep()) timeout_ms = sleep_ms(now_);
          else continue;
        } else {
          for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
        }
      }
      // Sockets get their turn while the rings are busy, but not a system call each round.
      if (timeout_ms == 0 && now_ - sockets_at < kSocketsWhileSpinning) continue;
    }
    const int count = epoll_wait(epoll_, events, kEventsMax, timeout_ms);
    now_ = sockets_at = TransportClock::now();
    for (int i = 0; i < count; ++i) {
      const uint64_t data = events[i].data.u64;
      switch (data & kMarks) {
        case kBell: {
          break;  // mail is taken below
        }
        case kUnixListener:
          accept_all(static_cast<int>(data >> 3), true);
          break;
        case kDataListener:
          accept_all(static_cast<int>(data >> 3), false);
          break;
        case kRing:
          ring_work_at = now_;
          wake_up(*reinterpret_cast<Peer*>(data & ~uint64_t{kMarks}));
          break;
        default: {
          auto& peer = *reinterpret_cast<Peer*>(data);
          if (peer.dead) break;
          if ((events[i].events & (EPOLLERR | EPOLLHUP)) != 0 && (events[i].events & EPOLLIN) == 0) {
            kill(peer);
            break;
          }
          if ((events[i].events & EPOLLOUT) != 0) flush(peer);
          if (!peer.dead && (events[i].events & (EPOLLIN | EPOLLRDHUP)) != 0) on_input(peer);
        }
      }
    }
    take_mail();
    if (!waiting_.empty()) {
      for (Peer* peer : std::vector<Peer*>(waiting_)) {
        peer->connection.retry_reserves(now_);
        note_waiting(*peer);
        flush(*peer);
      }
    }
    if (!resting_.empty()) end_rests_due();
    if (now_ - ticked_at_ >= kTick) tick(now_);
    if (!dead_.empty()) bury();
  }
  stop_spinning();
  take_mail();
  for (auto& [peer, owner] : peers_) kill(*peer);
  bury();
}

}  // namespace millrace
