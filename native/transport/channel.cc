#include "transport/channel.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace millrace {

using wire::FrameHeader;
using wire::Opcode;

namespace {

constexpr size_t kInputBytes = 256 * KiB;
constexpr uint64_t kInlinePayloadBytesMax = 64 * KiB;  // larger ones get memory of their own
constexpr size_t kLargeReadBytesMax = 1 * MiB;         // summed while still in the cache
constexpr size_t kCallerSendBytesMax = 256 * KiB;      // more than this is the pumping thread's work
constexpr size_t kVectorsMax = 64;
constexpr uint32_t kSlotBits = 24;
constexpr auto kDeadlinePeriod = std::chrono::milliseconds(50);
constexpr size_t kDescriptorsMax = 4;
constexpr std::string_view kDamaged = "the bytes received do not match their checksum; read the object again";

void close_all(std::vector<int>& fds) {
  for (int fd : fds) ::close(fd);
  fds.clear();
}

Result<int> connect_one(const sockaddr* address, socklen_t bytes, int family, uint32_t timeout_ms) {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return Status::from_errno("socket", errno);
  int error = ::connect(fd, address, bytes) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd waiting{fd, POLLOUT, 0};
    const int ready = poll(&waiting, 1, static_cast<int>(std::min<uint32_t>(timeout_ms, 1u << 30)));
    socklen_t error_bytes = sizeof(error);
    if (ready == 0) error = ETIMEDOUT;
    else getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_bytes);
  }
  if (error != 0) {
    ::close(fd);
    return Status(Code::kUnavailable, std::strerror(error));
  }
  return fd;
}

Result<int> connect_socket(const ChannelOptions& options) {
  if (!options.socket_path.empty()) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (options.socket_path.size() >= sizeof(address.sun_path)) {
      return Status(Code::kInvalidArgument, "socket path too long: " + options.socket_path);
    }
    std::memcpy(address.sun_path, options.socket_path.c_str(), options.socket_path.size() + 1);
    auto fd = connect_one(reinterpret_cast<sockaddr*>(&address), sizeof(address), AF_UNIX, options.timeout_ms);
    if (!fd.ok()) return Status(fd.code(), "no daemon at " + options.socket_path + ": " + fd.status().message());
    const int bytes = 1 * MiB;
    setsockopt(*fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    return fd;
  }
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(options.port);
  const std::string where = options.host + ":" + port;
  if (const int error = getaddrinfo(options.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return Status(Code::kUnavailable, where + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, &freeaddrinfo);
  Result<int> last(Code::kUnavailable, "no address");
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    last = connect_one(at->ai_addr, at->ai_addrlen, at->ai_family, options.timeout_ms);
    if (!last.ok()) continue;
    const int on = 1;
    setsockopt(*last, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return last;
  }
  return Status(last.code(), "no daemon at " + where + ": " + last.status().message());
}

}  // namespace

Channel::Channel(int fd, bool unix_socket, uint32_t timeout_ms)
    : fd_(fd), unix_socket_(unix_socket), timeout_ms_(timeout_ms), input_(kInputBytes) {
  bell_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

Channel::~Channel() {
  stop();
  for (int fd : received_) ::close(fd);
  if (bell_ >= 0) ::close(bell_);
  ::close(fd_);
}

Result<std::shared_ptr<Channel>> Channel::connect(const ChannelOptions& options, ServerGreeting* greeting) {
  if (options.namespace_name.empty() || options.namespace_name.size() > limits::kNamespaceNameBytesMax) {
    return Status(Code::kInvalidArgument, "a namespace name has 1 to " +
                                              std::to_string(limits::kNamespaceNameBytesMax) + " bytes");
  }
  auto fd = connect_socket(options);
  if (!fd.ok()) return fd.status();
  std::shared_ptr<Channel> channel(new Channel(*fd, !options.socket_path.empty(), options.timeout_ms));
  if (channel->bell_ < 0) return Status::from_errno("eventfd", errno);
  if (Status failed = channel->greet(options, greeting); !failed.ok()) return failed;
  return channel;
}

Status Channel::greet(const ChannelOptions& options, ServerGreeting* greeting) {
  wire::HelloRequest hello{};
  std::memcpy(hello.token, options.token.data(), sizeof(hello.token));
  hello.name_bytes = static_cast<uint32_t>(options.namespace_name.size());
  Request request{Opcode::kHello};
  request.body = &hello;
  request.body_bytes = sizeof(hello);
  request.key = options.namespace_name;
  Status bad;
  Status status = call(request, [&](ChannelReply& reply) {
    wire::HelloReply answer;
    if (!reply.read(&answer) ||
        reply.body.size() != sizeof(answer) + answer.node_id_bytes + answer.grpc_address_bytes ||
        reply.descriptors.size() != (unix_socket_ ? 4u : 0u)) {
      bad = Status(Code::kProtocol, "the reply to the hello does not fit");
      return;
    }
    greeting->node_id = reply.body.substr(sizeof(answer), answer.node_id_bytes);
    greeting->grpc_address = reply.body.substr(sizeof(answer) + answer.node_id_bytes);
    greeting->index_map_bytes = answer.index_map_bytes;
    greeting->ring_bytes = answer.ring_bytes;
    greeting->descriptors = std::move(reply.descriptors);
    reply.descriptors.clear();
  });
  return status.ok() ? bad : status;
}

void Channel::watch_bell(int fd, std::function<void()> callback) {
  foreign_bell_ = fd;
  on_foreign_bell_ = std::move(callback);
}

void Channel::start_thread(const char* name) {
  thread_ = std::thread([this, name] {
    prctl(PR_SET_NAME, name);
    while (!stopping_.load(std::memory_order_acquire) && pump(1000)) {
    }
    // Lost, but there may be tasks to come.
    while (!stopping_.load(std::memory_order_acquire)) {
      pollfd waiting{bell_, POLLIN, 0};
      poll(&waiting, 1, 1000);
      run_posted();
    }
  });
}

void Channel::stop() {
  if (stopping_.exchange(true)) return;
  ring_bell();
  if (thread_.joinable()) thread_.join();
  lose({Code::kClosed, "the transport is closed"});
  run_posted();
}

void Channel::ring_bell() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(bell_, &one, sizeof(one));
}

void Channel::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(task));
  }
  ring_bell();
}

void Channel::run_posted() {
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(posted_);
  }
  for (auto& task : tasks) task();
}

// --- sending

Result<uint64_t> Channel::submit(const Request& request) {
  FrameHeader header{};
  header.opcode = request.opcode;
  const size_t body_bytes = request.body_bytes + request.key.size() + request.second_key.size();
  header.body_bytes = static_cast<uint32_t>(body_bytes);
  if (body_bytes > wire::kRequestBodyBytesMax) return Status(Code::kKeyTooLong, "the request's keys are too long");
  header.payload_bytes = request.payload.bytes;
  const bool copied = request.payload.bytes <= Request::kCopiedPayloadBytesMax;
  if (request.has_payload) header.flags = wire::kFlagPayloadCrc;
  if (!copied) header.payload_crc = crc32c(0, request.payload.data, request.payload.bytes);

  std::lock_guard lock(mutex_);
  if (!lost_why_.ok()) return lost_why_;
  if (request.sink != nullptr) {
    uint32_t slot;
    if (free_.empty()) {
      if (pending_.size() >= (1u << kSlotBits)) return Status(Code::kResourceExhausted, "too many requests in flight");
      slot = static_cast<uint32_t>(pending_.size());
      pending_.emplace_back();
    } else {
      slot = free_.back();
      free_.pop_back();
    }
    header.request_id = next_generation_++ << kSlotBits | slot;
  }
  uint8_t* at = output_.append(sizeof(header) + body_bytes + (copied ? request.payload.bytes : 0));
  uint8_t* body = at + sizeof(header);
  uint8_t* end = body;
  auto add = [&end](const void* data, size_t bytes) {
    if (bytes > 0) std::memcpy(end, data, bytes);
    end += bytes;
  };
  add(request.body, request.body_bytes);
  add(request.key.data(), request.key.size());
  add(request.second_key.data(), request.second_key.size());
  if (copied && request.has_payload) {
    header.payload_crc = copy_crc32c(end, request.payload.data, request.payload.bytes, 0);
  }
  wire::seal_frame(header, body);
  std::memcpy(at, &header, sizeof(header));
  if (!copied) output_.append_pinned({request.payload}, nullptr);
  queued_total_ += sizeof(header) + body_bytes + request.payload.bytes;
  if (request.sink != nullptr) {
    Pending& pending = pending_[header.request_id & ((1u << kSlotBits) - 1)];
    pending.sink = request.sink;
    pending.tag = request.tag;
    pending.id = header.request_id;
    pending.sent_at = queued_total_;
    pending.opcode = request.opcode;
    pending.deadline = Clock::now() + std::chrono::milliseconds(request.timeout_ms ? request.timeout_ms : timeout_ms_);
    in_flight_.fetch_add(1, std::memory_order_relaxed);
  }
  return header.request_id;
}

// Leaves the lock while the kernel copies; `sending_` keeps others from doing the same.
void Channel::send_queued(std::unique_lock<std::mutex>& lock, size_t bytes_max) {
  if (sending_ || blocked_ || lost_.load()) return;
  sending_ = true;
  size_t total = 0;
  while (!output_.empty() && total < bytes_max) {
    iovec vectors[kVectorsMax];
    const std::vector<PassedDescriptor>* descriptors = nullptr;
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = output_.front(vectors, kVectorsMax, &descriptors);
    lock.unlock();
    ssize_t sent;
    do {
      sent = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    const int error = errno;
    lock.lock();
    if (sent < 0) {
      if (error == EAGAIN || error == EWOULDBLOCK) {
        blocked_ = true;
      } else {
        // The pumping thread finds out and tells everybody.
        blocked_ = true;
        ::shutdown(fd_, SHUT_RDWR);
      }
      break;
    }
    output_.sent(static_cast<size_t>(sent));
    sent_total_ += static_cast<size_t>(sent);
    total += static_cast<size_t>(sent);
  }
  sending_ = false;
}

void Channel::flush() {
  std::unique_lock lock(mutex_);
  if (output_.empty() || sending_ || blocked_) return;
  if (!has_thread() || output_.queued_bytes() <= kCallerSendBytesMax) {
    send_queued(lock, ~size_t{0});
    if (output_.empty() || !has_thread()) return;
  }
  lock.unlock();
  ring_bell();
}

namespace {

struct Waiter final : Channel::Sink {
  const std::function<void(ChannelReply&)>* take;
  std::mutex mutex;
  std::condition_variable arrived;
  bool done = false;
  Status status;

  void on_reply(uint64_t, ChannelReply& reply) override {
    std::lock_guard lock(mutex);
    status = reply.status();
    if (status.ok() && *take) (*take)(reply);
    done = true;
    arrived.notify_one();
  }
};

}  // namespace

Status Channel::call(Request request, const std::function<void(ChannelReply&)>& take) {
  Waiter waiter;
  waiter.take = &take;
  request.sink = &waiter;
  auto submitted = submit(request);
  if (!submitted.ok()) return submitted.status();
  flush();
  if (has_thread()) {
    MILLRACE_ASSERT(std::this_thread::get_id() != thread_.get_id());
    std::unique_lock lock(waiter.mutex);
    waiter.arrived.wait(lock, [&] { return waiter.done; });
    return waiter.status;
  }
  while (!waiter.done) pump(100);
  return waiter.status;
}

// --- receiving

bool Channel::pump(int timeout_ms) {
  if (lost()) return false;
  pollfd waiting[3] = {{fd_, POLLIN, 0}, {bell_, POLLIN, 0}, {foreign_bell_, POLLIN, 0}};
  {
    std::unique_lock lock(mutex_);
    send_queued(lock, 4 * MiB);
    if (!output_.empty() && !sending_) {
      if (blocked_) waiting[0].events |= POLLOUT;
      else timeout_ms = 0;
    }
    if (!posted_.empty()) timeout_ms = 0;
  }
  if (in_flight_.load(std::memory_order_relaxed) > 0) {
    timeout_ms = std::min<int>(timeout_ms, static_cast<int>(kDeadlinePeriod.count()));
  }
  const int ready = poll(waiting, foreign_bell_ >= 0 ? 3 : 2, timeout_ms);
  if (ready > 0) {
    if ((waiting[0].revents & POLLOUT) != 0) {
      std::unique_lock lock(mutex_);
      blocked_ = false;
      send_queued(lock, 4 * MiB);
    }
    if ((waiting[1].revents & POLLIN) != 0) {
      uint64_t count;
      [[maybe_unused]] const ssize_t got = ::read(bell_, &count, sizeof(count));
    }
    if ((waiting[2].revents & POLLIN) != 0) {
      uint64_t count;
      [[maybe_unused]] const ssize_t got = ::read(foreign_bell_, &count, sizeof(count));
      on_foreign_bell_();
    }
    if ((waiting[0].revents & (POLLIN | POLLERR | POLLHUP)) != 0) {
      const bool alive = receive();
      if (events_ != nullptr) events_->on_batch_end();
      if (!alive) {
        lose(receive_failed_);
        return false;
      }
    }
  }
  run_posted();
  const auto now = Clock::now();
  if (now - deadlines_checked_at_ >= kDeadlinePeriod) check_deadlines(now);
  return !lost();
}

bool Channel::receive() {
  for (int round = 0; round < 8; ++round) {
    iovec vectors[2];
    size_t count = 0;
    size_t direct_bytes = 0;
    if (large_ != nullptr) {
      direct_bytes = std::min<uint64_t>(large_->header.payload_bytes - large_->filled, kLargeReadBytesMax);
      vectors[count++] = {large_->data + large_->filled, direct_bytes};
    }
    // What follows a large payload is read with its last piece.
    if (large_ == nullptr || large_->filled + direct_bytes == large_->header.payload_bytes) {
      vectors[count++] = {input_.data() + input_bytes_, input_.size() - input_bytes_};
    }
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = count;
    alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))];
    if (unix_socket_) {
      message.msg_control = control;
      message.msg_controllen = sizeof(control);
    }
    const ssize_t got = recvmsg(fd_, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return true;
      receive_failed_ = Status(Code::kUnavailable, std::string("connection to the daemon lost: ") + std::strerror(errno));
      return false;
    }
    if (got == 0) {
      receive_failed_ = Status(Code::kUnavailable, "the daemon closed the connection");
      return false;
    }
    if (unix_socket_) {
      for (cmsghdr* cmsg = CMSG_FIRSTHDR(&message); cmsg != nullptr; cmsg = CMSG_NXTHDR(&message, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) continue;
        const size_t fds = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        const auto* values = reinterpret_cast<const int*>(CMSG_DATA(cmsg));
        received_.insert(received_.end(), values, values + fds);
      }
    }
    auto bytes = static_cast<size_t>(got);
    if (large_ != nullptr) {
      const size_t part = std::min(bytes, direct_bytes);
      large_->crc = crc32c(large_->crc, large_->data + large_->filled, part);
      large_->filled += part;
      bytes -= part;
      if (large_->filled == large_->header.payload_bytes && !end_large()) return false;
      if (bytes == 0) {
        if (part < direct_bytes) return true;
        continue;
      }
    }
    const size_t asked = input_.size() - input_bytes_;
    input_bytes_ += bytes;
    size_t used = 0;
    while (used < input_bytes_) {
      const size_t frame = parse(input_.data() + used, input_bytes_ - used);
      if (!receive_failed_.ok()) return false;
      if (frame == 0) break;
      used += frame;
    }
    input_bytes_ -= used;
    if (input_bytes_ > 0 && used > 0) std::memmove(input_.data(), input_.data() + used, input_bytes_);
    if (bytes < asked && large_ == nullptr) return true;  // drained: saves a system call
  }
  return true;
}

// Bytes used; 0 where the frame is not there yet (or receive_failed_ says why not).
size_t Channel::parse(const uint8_t* data, size_t bytes) {
  FrameHeader header;
  if (bytes < sizeof(header)) return 0;
  std::memcpy(&header, data, sizeof(header));
  if (receive_failed_ = wire::check_header(header, true); !receive_failed_.ok()) return 0;
  const size_t head_bytes = sizeof(header) + header.body_bytes;
  const bool whole = header.payload_bytes <= kInlinePayloadBytesMax;
  const size_t needed = head_bytes + (whole ? header.payload_bytes : 0);
  if (bytes < needed) {
    // Never more than kFrameBodyBytesMax and a small payload.
    if (needed > input_.size() / 2) input_.resize(2 * needed);
    return 0;
  }
  const uint8_t* body = data + sizeof(header);
  if (!wire::frame_crc_matches(header, body)) {
    receive_failed_ = Status(Code::kProtocol, "a reply was damaged on its way");
    return 0;
  }
  std::shared_ptr<Pieces> pieces;
  const bool piece = find_pieces(header, body, &pieces);
  if (!receive_failed_.ok()) return 0;
  if (whole && piece) {
    const uint32_t crc = copy_crc32c(pieces->buffer.data() + pieces->filled, body + header.body_bytes, header.payload_bytes, 0);
    end_piece(header, body, *pieces, crc);
    return needed;
  }
  if (whole) {
    deliver(header, body, {body + header.body_bytes, header.payload_bytes}, {});
    return needed;
  }
  large_ = std::make_unique<Large>();
  large_->header = header;
  large_->body.assign(body, body + header.body_bytes);
  if (piece) {
    large_->data = pieces->buffer.data() + pieces->filled;
    large_->pieces = std::move(pieces);
  } else {
    if (!take_buffer(header.payload_bytes, &large_->buffer)) return 0;
    large_->data = large_->buffer.data();
  }
  const size_t part = std::min<uint64_t>(bytes - head_bytes, header.payload_bytes);
  large_->crc = copy_crc32c(large_->data, data + head_bytes, part, 0);
  large_->filled = part;
  if (large_->filled == header.payload_bytes) end_large();
  return head_bytes + part;
}

bool Channel::take_buffer(uint64_t bytes, PayloadBuffer* buffer) {
  *buffer = pool_->take(bytes);
  if (*buffer) return true;
  receive_failed_ = Status(Code::kSystem, "no memory for a payload of " + std::to_string(bytes) + " bytes");
  return false;
}

bool Channel::find_pieces(const FrameHeader& header, const uint8_t* body, std::shared_ptr<Pieces>* pieces) {
  const bool more = (header.flags & wire::kFlagMore) != 0;
  if (!more && pieces_.empty()) return false;
  const auto found = pieces_.find(header.request_id);
  if (!more && found == pieces_.end()) return false;
  if (header.status != 0) {
    // Instead of the next piece comes why there is none.
    if (found != pieces_.end()) pieces_.erase(found);
    return false;
  }
  wire::PiecedReply reply;
  const bool fits = header.body_bytes == sizeof(reply) && wire::read_body(body, header.body_bytes, &reply) &&
                    (header.flags & wire::kFlagPayloadCrc) != 0 && header.opcode == Opcode::kGet;
  if (fits && found == pieces_.end() && reply.payload_bytes <= limits::kObjectBytesMax) {
    auto begun = std::make_shared<Pieces>();
    begun->bytes = reply.payload_bytes;
    if (!take_buffer(begun->bytes, &begun->buffer)) return false;
    *pieces = pieces_.emplace(header.request_id, std::move(begun)).first->second;
  } else if (fits && found != pieces_.end()) {
    *pieces = found->second;
  }
  const uint64_t left = *pieces == nullptr ? 0 : (*pieces)->bytes - (*pieces)->filled;
  if (header.payload_bytes == 0 || header.payload_bytes > left || more == (header.payload_bytes == left)) {
    receive_failed_ = Status(Code::kProtocol, "a piece that does not fit its reply");
    return false;
  }
  return true;
}

// The piece has been received to where it belongs.
void Channel::end_piece(const FrameHeader& header, const uint8_t* body, Pieces& pieces, uint32_t crc) {
  pieces.damaged = pieces.damaged || crc != header.payload_crc;
  pieces.crc = crc32c_combine(pieces.crc, crc, header.payload_bytes);
  pieces.filled += header.payload_bytes;
  if ((header.flags & wire::kFlagMore) != 0) return;
  const auto ended = std::move(pieces_.extract(header.request_id).mapped());
  wire::ObjectReply info;
  std::memcpy(&info, body, sizeof(info));
  FrameHeader whole = header;
  whole.flags &= static_cast<uint16_t>(~wire::kFlagPayloadCrc);  // checked
  if (ended->damaged || (ended->bytes == info.size_bytes && ended->crc != info.crc32c)) {
    whole.status = static_cast<uint16_t>(Code::kChecksumMismatch);
    whole.body_bytes = static_cast<uint32_t>(kDamaged.size());
    body = reinterpret_cast<const uint8_t*>(kDamaged.data());
  }
  const ConstSpan payload{ended->buffer.data(), ended->bytes};
  deliver(whole, body, payload, std::move(ended->buffer));
}

bool Channel::end_large() {
  const auto large = std::move(large_);
  if (large->pieces != nullptr) {
    end_piece(large->header, large->body.data(), *large->pieces, large->crc);
    return receive_failed_.ok();
  }
  const bool damaged = (large->header.flags & wire::kFlagPayloadCrc) != 0 && large->crc != large->header.payload_crc;
  large->header.flags &= static_cast<uint16_t>(~wire::kFlagPayloadCrc);  // checked
  const ConstSpan payload{large->buffer.data(), large->header.payload_bytes};
  if (damaged) {
    large->header.status = static_cast<uint16_t>(Code::kChecksumMismatch);
    large->body.assign(kDamaged.begin(), kDamaged.end());
    large->header.body_bytes = static_cast<uint32_t>(kDamaged.size());
  }
  deliver(large->header, large->body.data(), payload, std::move(large->buffer));
  return receive_failed_.ok();
}

void Channel::deliver(const FrameHeader& header, const uint8_t* body, ConstSpan payload, PayloadBuffer buffer) {
  ChannelReply reply{header.opcode, static_cast<Code>(header.status)};
  reply.body = {reinterpret_cast<const char*>(body), header.body_bytes};
  reply.payload = payload;
  reply.buffer = std::move(buffer);
  if (header.descriptors > received_.size()) {
    receive_failed_ = Status(Code::kProtocol, "a frame came without its descriptors");
    return;
  }
  for (uint16_t i = 0; i < header.descriptors; ++i) {
    reply.descriptors.push_back(received_.front());
    received_.pop_front();
  }
  if ((header.flags & wire::kFlagPayloadCrc) != 0 && crc32c(0, payload.data, payload.bytes) != header.payload_crc) {
    reply.code = Code::kChecksumMismatch;
    reply.body = kDamaged;
  }
  switch (header.opcode) {
    case Opcode::kSegmentRetired: {
      wire::SegmentMessage message;
      if (reply.read(&message) && events_ != nullptr) events_->on_segment_retired(message.segment);
      return close_all(reply.descriptors);
    }
    case Opcode::kNamespaceDropped:
      if (events_ != nullptr) events_->on_namespace_dropped();
      return close_all(reply.descriptors);
    case Opcode::kGoodbye:
      close_all(reply.descriptors);
      receive_failed_ = reply.code == Code::kOk ? Status(Code::kUnavailable, "the daemon said goodbye") : reply.status();
      return;
    default:
      break;
  }
  Pending found;
  {
    std::unique_lock lock(mutex_);
    const uint32_t slot = header.request_id & ((1u << kSlotBits) - 1);
    // The reply may be faster than the thread that is just coming back from sending the request.
    while (sending_ && slot < pending_.size() && sent_total_ < pending_[slot].sent_at) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
    if (slot < pending_.size() && pending_[slot].id == header.request_id && header.request_id != 0) {
      if (pending_[slot].opcode != header.opcode || sent_total_ < pending_[slot].sent_at) {
        receive_failed_ = Status(Code::kProtocol, "a reply that does not fit its request");
      } else {
        found = pending_[slot];
        pending_[slot] = {};
        free_.push_back(slot);
      }
    }
    // Otherwise it came after its deadline.
  }
  if (found.sink != nullptr) {
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    found.sink->on_reply(found.tag, reply);
  }
  close_all(reply.descriptors);
}

void Channel::check_deadlines(Clock::time_point now) {
  deadlines_checked_at_ = now;
  if (events_ != nullptr) events_->on_tick();
  std::vector<Pending> late;
  bool stuck = false;
  {
    std::lock_guard lock(mutex_);
    for (uint32_t slot = 0; slot < pending_.size(); ++slot) {
      Pending& pending = pending_[slot];
      if (pending.id == 0 || now < pending.deadline) continue;
      // A request whose bytes are still being sent cannot be taken back: then the connection goes.
      if (sent_total_ < pending.sent_at) {
        stuck = true;
        continue;
      }
      late.push_back(pending);
      pending = {};
      free_.push_back(slot);
    }
  }
  for (const Pending& pending : late) {
    ChannelReply reply{pending.opcode, Code::kDeadlineExceeded};
    reply.body = "the daemon did not answer in time";
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    pending.sink->on_reply(pending.tag, reply);
  }
  if (stuck) lose({Code::kUnavailable, "the daemon takes no more requests"});
  if ((!late.empty() || stuck) && events_ != nullptr) events_->on_batch_end();
}

Status Channel::lost_status() {
  std::lock_guard lock(mutex_);
  return lost_why_;
}

void Channel::lose(Status why) {
  std::vector<Pending> all;
  {
    std::unique_lock lock(mutex_);
    if (!lost_why_.ok()) return;
    lost_why_ = why;
    lost_.store(true, std::memory_order_release);
    if (why.code() != Code::kClosed) ::shutdown(fd_, SHUT_RDWR);
    // A sender on another thread may still read the payloads.
    while (sending_) {
      lock.unlock();
      std::this_thread::yield();
      lock.lock();
    }
    all.swap(pending_);
    output_ = OutputQueue();
  }
  large_.reset();
  pieces_.clear();
  for (const Pending& pending : all) {
    if (pending.id == 0) continue;
    ChannelReply reply{pending.opcode, why.code()};
    reply.body = why.message();
    in_flight_.fetch_sub(1, std::memory_order_relaxed);
    pending.sink->on_reply(pending.tag, reply);
  }
  if (events_ != nullptr) {
    events_->on_batch_end();
    if (why.code() != Code::kClosed) events_->on_lost(why);
  }
}

}  // namespace millrace
