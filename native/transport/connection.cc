#include "transport/connection.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/assert.h"

namespace millrace {

using wire::FrameHeader;
using wire::Opcode;

namespace {

constexpr size_t kRingBatch = 512;
constexpr uint32_t kReserveTimeoutMsMax = 3600 * 1000;

template <size_t N>
bool all_zero(const uint8_t (&bytes)[N]) {
  return std::all_of(std::begin(bytes), std::end(bytes), [](uint8_t byte) { return byte == 0; });
}

Status bad_body() { return {Code::kProtocol, "the body of a frame does not fit its opcode"}; }

bool carries_payload(Opcode opcode) { return opcode == Opcode::kPut || opcode == Opcode::kAppend; }

bool writes(Opcode opcode) {
  switch (opcode) {
    case Opcode::kPut:
    case Opcode::kDelete:
    case Opcode::kCopy:
    case Opcode::kBegin:
    case Opcode::kAppend:
    case Opcode::kCommit:
    case Opcode::kReserve:
    case Opcode::kSeal:
      return true;
    default:
      return false;
  }
}

Status read_only() { return {Code::kPermissionDenied, "these credentials are good for reading alone"}; }

bool for_unix_only(Opcode opcode) { return opcode >= Opcode::kReserve && opcode <= Opcode::kNoteRead; }

}  // namespace

Connection::Connection(Kind kind, Store& store, const ServerFace& face) : kind_(kind), store_(store), face_(face) {}

Connection::~Connection() {
  put_.reset();
  drafts_.clear();
  transfers_.clear();
  if (namespace_ != nullptr) {
    // What the client pushed before it went away counts: it may have gone because it was done.
    drain_ring_pushed();
    report_traffic();
    namespace_->account_buffers(-static_cast<int64_t>(buffer_bytes_));
    if (session_ != 0) namespace_->end_session(session_);
  }
  if (wake_server_fd_ >= 0) ::close(wake_server_fd_);
  if (wake_client_fd_ >= 0) ::close(wake_client_fd_);
}

void Connection::report_traffic() {
  if (namespace_ == nullptr || (traffic_.operations == 0 && traffic_.bytes_out == 0)) return;
  namespace_->count(kind_ == Kind::kTcp ? Door::kTcp : Door::kShm, traffic_.bytes_in, traffic_.bytes_out,
                    traffic_.operations);
  traffic_ = {};
}

void Connection::report_buffers(uint64_t waiting_input_bytes) {
  if (namespace_ == nullptr) return;
  uint64_t bytes = waiting_input_bytes + output_.copied_bytes() + output_.read_bytes();
  for (const Transfer& transfer : transfers_) bytes += transfer.reader->asked_bytes();
  bytes -= bytes % kBufferStepBytes;
  if (bytes == buffer_bytes_) return;
  namespace_->account_buffers(static_cast<int64_t>(bytes - buffer_bytes_));
  buffer_bytes_ = bytes;
}

// --- output

void Connection::push(Opcode opcode, const Status& status, const void* body, uint32_t body_bytes) {
  FrameHeader header{};
  header.opcode = opcode;
  header.flags = wire::kFlagReply;
  header.status = static_cast<uint16_t>(status.code());
  header.body_bytes = body_bytes;
  wire::seal_frame(header, body);
  uint8_t* at = output_.append(sizeof(header) + body_bytes);
  std::memcpy(at, &header, sizeof(header));
  if (body_bytes > 0) std::memcpy(at + sizeof(header), body, body_bytes);
}

void Connection::goodbye(const Status& status) {
  if (closing_) return;
  push(Opcode::kGoodbye, status, status.message().data(), static_cast<uint32_t>(status.message().size()));
  closing_ = true;
  transfers_.clear();
}

void Connection::reply(const FrameHeader& request, const void* body, uint32_t body_bytes,
                       std::vector<PassedDescriptor> descriptors) {
  FrameHeader header{};
  header.opcode = request.opcode;
  header.flags = wire::kFlagReply;
  header.descriptors = static_cast<uint16_t>(descriptors.size());
  header.body_bytes = body_bytes;
  header.request_id = request.request_id;
  wire::seal_frame(header, body);
  if (!descriptors.empty()) output_.attach(std::move(descriptors));
  uint8_t* at = output_.append(sizeof(header) + body_bytes);
  std::memcpy(at, &header, sizeof(header));
  if (body_bytes > 0) std::memcpy(at + sizeof(header), body, body_bytes);
}

void Connection::reply_error(const FrameHeader& request, const Status& status) {
  FrameHeader header{};
  header.opcode = request.opcode;
  header.flags = wire::kFlagReply;
  header.status = static_cast<uint16_t>(status.code());
  header.request_id = request.request_id;
  header.body_bytes = static_cast<uint32_t>(std::min<size_t>(status.message().size(), 64 * KiB));
  wire::seal_frame(header, status.message().data());
  output_.append(&header, sizeof(header));
  output_.append(status.message().data(), header.body_bytes);
}

void Connection::reply_info(const FrameHeader& request, const Result<ObjectInfo>& info) {
  if (!info.ok()) return reply_error(request, info.status());
  const wire::ObjectReply body = wire::to_wire(info.value());
  reply(request, &body, sizeof(body));
}

// --- input

size_t Connection::consume(const uint8_t* data, size_t bytes) {
  size_t used = 0;
  // Output is bounded here too: a batch of small requests may ask for many large replies.
  while (used < bytes && wants_input()) {
    if (put_.has_value()) {
      // The part of a large put that arrived together with its header.
      Put& put = *put_;
      const Span& span = put.spans[put.span];
      const size_t part = std::min<uint64_t>(bytes - used, span.bytes - put.span_filled);
      std::memcpy(span.data + put.span_filled, data + used, part);
      direct_filled(part);
      used += part;
      continue;
    }
    if (pieces_left_ > 0) {
      const size_t part = std::min<uint64_t>(bytes - used, pieces_left_);
      take_piece({data + used, part});
      used += part;
      continue;
    }
    const size_t frame = consume_frame(data + used, bytes - used);
    if (frame == 0) break;
    used += frame;
  }
  return closing_ ? bytes : used;
}

// Bytes used; 0 where the frame is not there yet.
size_t Connection::consume_frame(const uint8_t* data, size_t bytes) {
  FrameHeader header;
  if (bytes < sizeof(header)) return 0;
  std::memcpy(&header, data, sizeof(header));
  if (Status bad = wire::check_header(header, false); !bad.ok()) {
    goodbye(bad);
    return 0;
  }
  if (namespace_ == nullptr && header.opcode != Opcode::kHello) {
    goodbye({Code::kUnauthenticated, "the first frame must be a hello"});
    return 0;
  }
  if (header.payload_bytes > 0 && !carries_payload(header.opcode)) {
    goodbye({Code::kProtocol, "a payload where none belongs"});
    return 0;
  }
  const size_t head_bytes = sizeof(header) + header.body_bytes;
  if (bytes < head_bytes) return 0;
  const bool whole = header.payload_bytes <= kInlineFrameBytesMax && header.opcode != Opcode::kAppend;
  if (whole && bytes < head_bytes + header.payload_bytes) return 0;
  const uint8_t* body = data + sizeof(header);
  if (!wire::frame_crc_matches(header, body)) {
    goodbye({Code::kProtocol, "frame checksum mismatch"});
    return 0;
  }
  ++traffic_.operations;
  traffic_.bytes_in += header.payload_bytes;
  if (whole) {
    if (!handle(header, body, {body + header.body_bytes, header.payload_bytes})) return 0;
    return head_bytes + header.payload_bytes;
  }
  begin_pieces(header, body);
  return closing_ ? 0 : head_bytes;
}

bool Connection::handle(const FrameHeader& header, const uint8_t* body, ConstSpan payload) {
  if (header.opcode == Opcode::kHello) {
    hello(header, body);
    return !closing_;
  }
  if (for_unix_only(header.opcode) && kind_ != Kind::kUnix) {
    reply_error(header, {Code::kUnsupported, "this request needs the Unix socket"});
    return true;
  }
  if (pass_.read_only && writes(header.opcode)) {
    reply_error(header, read_only());
    return true;
  }
  wire::ObjectRequest request;
  std::string_view key;
  switch (header.opcode) {
    case Opcode::kPut:
      put_inline(header, body, payload);
      break;
    case Opcode::kGet:
      if (read_object_request(header, body, &request, &key)) get(header, request, key);
      break;
    case Opcode::kHead:
      if (read_object_request(header, body, &request, &key)) reply_info(header, namespace_->head(key));
      break;
    case Opcode::kDelete:
      if (read_object_request(header, body, &request, &key)) {
        auto removed = namespace_->remove(key, {request.if_absent != 0, request.if_sequence});
        if (removed.ok()) {
          const wire::DeleteReply answer{*removed ? 1u : 0u};
          reply(header, &answer, sizeof(answer));
        } else {
          reply_error(header, removed.status());
        }
      }
      break;
    case Opcode::kCopy:
      copy(header, body);
      break;
    case Opcode::kList:
      list(header, body);
      break;
    case Opcode::kBegin:
      if (read_object_request(header, body, &request, &key)) begin_draft(header, key);
      break;
    case Opcode::kCommit:
    case Opcode::kAbort:
      end_draft(header, body);
      break;
    case Opcode::kNoteRead:
      if (read_object_request(header, body, &request, &key)) namespace_->note_read(key);
      break;
    case Opcode::kReserve:
      reserve(header, body);
      break;
    case Opcode::kSeal:
      seal(header, body);
      break;
    case Opcode::kOpenSegment:
    case Opcode::kGiveBack:
    case Opcode::kConfirmUnmapped: {
      wire::SegmentMessage message;
      if (header.body_bytes != sizeof(message) || !wire::read_body(body, header.body_bytes, &message) ||
          message.reserved != 0) {
        goodbye(bad_body());
        break;
      }
      if (header.opcode == Opcode::kOpenSegment) {
        open_segment(header, message.segment);
      } else if (header.opcode == Opcode::kGiveBack) {
        namespace_->give_back(session_, message.segment);
      } else {
        writable_sent_.erase(message.segment);
        namespace_->confirm_unmapped(session_, message.segment);
      }
      break;
    }
    default:
      // The payload of kAppend never comes here, and the server's own opcodes were refused with the header.
      goodbye({Code::kUnsupported, "unknown opcode"});
  }
  return !closing_;
}

bool Connection::read_object_request(const FrameHeader& header, const uint8_t* body, wire::ObjectRequest* request,
                                     std::string_view* key) {
  const bool fits = wire::read_body(body, header.body_bytes, request) != nullptr && all_zero(request->reserved) &&
                    request->if_absent <= 1 && header.body_bytes == sizeof(*request) + request->key_bytes &&
                    (header.opcode == Opcode::kGet || (request->offset == 0 && request->length == 0)) &&
                    (header.opcode != Opcode::kNoteRead || (request->if_sequence == 0 && request->if_absent == 0));
  if (!fits) {
    goodbye(bad_body());
    return false;
  }
  *key = {reinterpret_cast<const char*>(body) + sizeof(*request), request->key_bytes};
  return true;
}

void Connection::hello(const FrameHeader& header, const uint8_t* body) {
  wire::HelloRequest request;
  if (!wire::read_body(body, header.body_bytes, &request) || request.reserved != 0 ||
      request.name_bytes > limits::kNamespaceNameBytesMax ||
      header.body_bytes != sizeof(request) + request.name_bytes) {
    return goodbye(bad_body());
  }
  if (namespace_ != nullptr) return goodbye({Code::kProtocol, "a second hello"});
  const std::string_view name(reinterpret_cast<const char*>(body) + sizeof(request), request.name_bytes);
  auto found = store_.find(name);
  if (found == nullptr) {
    reply_error(header, {Code::kNotFound, "no namespace '" + std::string(name) + "'"});
    closing_ = true;
    return;
  }
  const auto pass = found->pass_of(request.token);
  if (!pass) {
    reply_error(header, {Code::kUnauthenticated,
                         "the token is not that of namespace '" + std::string(name) + "', or has expired"});
    closing_ = true;
    return;
  }
  pass_ = *pass;
  std::vector<PassedDescriptor> descriptors;
  if (kind_ == Kind::kUnix) {
    if (Status failed = make_ring(); !failed.ok()) {
      reply_error(header, failed);
      closing_ = true;
      return;
    }
    // The index goes out read-only: its one writer is the daemon.
    const int index_fd = ::open(("/proc/self/fd/" + std::to_string(found->index_fd())).c_str(), O_RDONLY | O_CLOEXEC);
    if (index_fd < 0) {
      reply_error(header, Status::from_errno("open the index read-only", errno));
      closing_ = true;
      return;
    }
    descriptors = {{index_fd, close_later(index_fd)},
                   {ring_memory_->fd(), ring_memory_},
                   {wake_server_fd_, nullptr},
                   {wake_client_fd_, nullptr}};
    session_ = found->begin_session(pass_.expires());
  }
  namespace_ = std::move(found);
  const std::string grpc_address = face_.grpc_address();
  wire::HelloReply answer{};
  answer.protocol_version = wire::kProtocolVersion;
  answer.index_map_bytes = kind_ == Kind::kUnix ? namespace_->index_map_bytes() : 0;
  answer.ring_bytes = kind_ == Kind::kUnix ? kSealRingBytes : 0;
  answer.node_id_bytes = static_cast<uint16_t>(face_.node_id.size());
  answer.grpc_address_bytes = static_cast<uint16_t>(grpc_address.size());
  std::string text(reinterpret_cast<const char*>(&answer), sizeof(answer));
  text += face_.node_id;
  text += grpc_address;
  reply(header, text.data(), static_cast<uint32_t>(text.size()), std::move(descriptors));
}

Status Connection::make_ring() {
  auto memory = SharedMemory::create_sparse("millrace-ring", kSealRingBytes);
  if (!memory.ok()) return memory.status();
  ring_memory_ = *memory;
  wake_server_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  wake_client_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_server_fd_ < 0 || wake_client_fd_ < 0) return Status::from_errno("eventfd", errno);
  ring_ = reinterpret_cast<SealRing*>(ring_memory_->data());  // fresh pages are zero: an empty ring
  return {};
}

// --- put

void Connection::put_inline(const FrameHeader& header, const uint8_t* body, ConstSpan payload) {
  wire::ObjectRequest request;
  std::string_view key;
  if (!read_object_request(header, body, &request, &key)) return;
  if ((header.flags & wire::kFlagPayloadCrc) != 0 && crc32c(0, payload.data, payload.bytes) != header.payload_crc) {
    return reply_error(header, {Code::kChecksumMismatch, "the payload was damaged on its way"});
  }
  reply_info(header, namespace_->put(key, payload, {request.if_absent != 0, request.if_sequence}));
}

void Connection::begin_pieces(const FrameHeader& header, const uint8_t* body) {
  pieces_header_ = header;
  pieces_left_ = header.payload_bytes;
  pieces_crc_ = 0;
  pieces_draft_ = nullptr;
  pieces_failed_ = {};
  if (pass_.read_only) {
    // Told once the payload has gone by, as of every put that nobody wants.
    pieces_failed_ = read_only();
    if (pieces_left_ == 0) end_pieces();
    return;
  }
  if (header.opcode == Opcode::kPut) {
    wire::ObjectRequest request;
    std::string_view key;
    if (!read_object_request(header, body, &request, &key)) return;
    Put put;
    put.header = header;
    put.condition = {request.if_absent != 0, request.if_sequence};
    auto draft = namespace_->begin(key, header.payload_bytes, &put.spans);
    if (draft.ok()) {
      put.draft = std::move(*draft);
      put.crcs.assign(1, 0);
      pieces_left_ = 0;
      put_.emplace(std::move(put));
      return;
    }
    // The client is told once it has sent the payload, which nobody wants any more.
    pieces_failed_ = draft.status();
    return;
  }
  wire::DraftRequest request;
  if (header.body_bytes != sizeof(request) || !wire::read_body(body, header.body_bytes, &request) ||
      request.reserved != 0 || request.if_sequence != 0 || request.has_crc32c != 0 || request.if_absent != 0 ||
      request.crc32c != 0) {
    return goodbye(bad_body());
  }
  auto found = drafts_.find(request.draft);
  if (found == drafts_.end()) {
    pieces_failed_ = Status(Code::kNotFound, "no such draft on this connection");
  } else {
    pieces_draft_ = &found->second;
    pieces_draft_id_ = request.draft;
  }
  if (pieces_left_ == 0) end_pieces();
}

void Connection::take_piece(ConstSpan piece) {
  if (pieces_failed_.ok()) {
    if ((pieces_header_.flags & wire::kFlagPayloadCrc) != 0) pieces_crc_ = crc32c(pieces_crc_, piece.data, piece.bytes);
    pieces_failed_ = pieces_draft_->append(piece);
  }
  pieces_left_ -= piece.bytes;
  if (pieces_left_ == 0) end_pieces();
}

void Connection::end_pieces() {
  if (pieces_failed_.ok() && (pieces_header_.flags & wire::kFlagPayloadCrc) != 0 &&
      pieces_crc_ != pieces_header_.payload_crc) {
    pieces_failed_ = Status(Code::kChecksumMismatch, "the payload was damaged on its way");
  }
  if (pieces_failed_.ok()) return reply(pieces_header_, nullptr, 0);
  // A draft that lacks a piece can never be committed.
  if (pieces_draft_ != nullptr) drafts_.erase(pieces_draft_id_);
  pieces_draft_ = nullptr;
  reply_error(pieces_header_, pieces_failed_);
}

size_t Connection::direct_targets(iovec* vectors, size_t max) const {
  if (!put_.has_value()) return 0;
  size_t count = 0;
  uint64_t filled = put_->span_filled;
  for (size_t i = put_->span; i < put_->spans.size() && count < max; ++i) {
    vectors[count++] = {put_->spans[i].data + filled, static_cast<size_t>(put_->spans[i].bytes - filled)};
    filled = 0;
  }
  return count;
}

void Connection::direct_filled(size_t bytes) {
  Put& put = *put_;
  while (bytes > 0) {
    const Span& span = put.spans[put.span];
    const size_t part = std::min<uint64_t>(bytes, span.bytes - put.span_filled);
    // While the bytes are still in the cache.
    put.crcs.back() = crc32c(put.crcs.back(), span.data + put.span_filled, part);
    put.span_filled += part;
    bytes -= part;
    if (put.span_filled == span.bytes) {
      put.span_filled = 0;
      if (++put.span < put.spans.size()) put.crcs.push_back(0);
    }
  }
  if (put.span < put.spans.size()) return;
  std::optional<uint32_t> expected;
  if ((put.header.flags & wire::kFlagPayloadCrc) != 0) expected = put.header.payload_crc;
  const FrameHeader header = put.header;
  auto info = namespace_->commit(std::move(put.draft), put.condition, &put.crcs, expected);
  put_.reset();
  reply_info(header, info);
}

void Connection::begin_draft(const FrameHeader& header, std::string_view key) {
  if (drafts_.size() >= kDraftsMax) {
    return reply_error(header, {Code::kResourceExhausted, "too many unfinished drafts on one connection"});
  }
  if (drafts_.contains(header.request_id)) return goodbye({Code::kProtocol, "a request id was used twice"});
  auto draft = namespace_->begin(key);
  if (!draft.ok()) return reply_error(header, draft.status());
  drafts_.emplace(header.request_id, std::move(*draft));
  reply(header, nullptr, 0);
}

void Connection::end_draft(const FrameHeader& header, const uint8_t* body) {
  wire::DraftRequest request;
  if (header.body_bytes != sizeof(request) || !wire::read_body(body, header.body_bytes, &request) ||
      request.reserved != 0 || request.has_crc32c > 1 || request.if_absent > 1) {
    return goodbye(bad_body());
  }
  auto found = drafts_.find(request.draft);
  if (found == drafts_.end()) return reply_error(header, {Code::kNotFound, "no such draft on this connection"});
  Draft draft = std::move(found->second);
  drafts_.erase(found);
  if (header.opcode == Opcode::kAbort) {
    draft.abort();
    return reply(header, nullptr, 0);
  }
  std::optional<uint32_t> expected;
  if (request.has_crc32c != 0) expected = request.crc32c;
  reply_info(header, namespace_->commit(std::move(draft), {request.if_absent != 0, request.if_sequence}, nullptr, expected));
}

// --- reads

void Connection::get(const FrameHeader& header, const wire::ObjectRequest& request, std::string_view key) {
  ObjectView* view = &view_;
  if (Status failed = namespace_->get(key, request.offset, request.length, view); !failed.ok()) {
    return reply_error(header, failed);
  }
  if (view->in_files()) return begin_transfer(header, std::move(*view), key);
  uint64_t bytes = 0;
  for (const ConstSpan& span : view->spans) bytes += span.bytes;
  const bool whole = bytes == view->info.size_bytes;
  const bool copied = bytes <= kCopiedReplyBytesMax;
  uint32_t crc = 0;
  // Those that are copied are in the cache in a moment anyway; of larger whole ones the client finds out.
  if (copied || !whole) {
    for (const ConstSpan& span : view->spans) crc = crc32c(crc, span.data, span.bytes);
  }
  if (copied && whole && crc != view->info.crc32c) return reply_error(header, damaged(*view, key));
  FrameHeader head{};
  head.opcode = header.opcode;
  head.flags = wire::kFlagReply | wire::kFlagPayloadCrc;
  head.request_id = header.request_id;
  head.payload_bytes = bytes;
  head.body_bytes = sizeof(wire::ObjectReply);
  head.payload_crc = whole ? view->info.crc32c : crc;  // a whole object's by who wrote it: checks the whole way
  const wire::ObjectReply body = wire::to_wire(view->info);
  wire::seal_frame(head, &body);
  traffic_.bytes_out += bytes;
  uint8_t* at = output_.append(sizeof(head) + sizeof(body) + (copied ? bytes : 0));
  std::memcpy(at, &head, sizeof(head));
  std::memcpy(at + sizeof(head), &body, sizeof(body));
  if (copied) {
    at += sizeof(head) + sizeof(body);
    for (const ConstSpan& span : view->spans) {
      std::memcpy(at, span.data, span.bytes);
      at += span.bytes;
    }
    view->segments.clear();
    return;
  }
  std::vector<ConstSpan> spans = std::move(view->spans);
  output_.append_pinned(std::move(spans), std::make_shared<ObjectView>(std::move(*view)));
}

void Connection::copy(const FrameHeader& header, const uint8_t* body) {
  wire::CopyRequest request;
  if (!wire::read_body(body, header.body_bytes, &request) || !all_zero(request.reserved) || request.if_absent > 1 ||
      header.body_bytes != sizeof(request) + request.from_bytes + request.to_bytes) {
    return goodbye(bad_body());
  }
  const auto* text = reinterpret_cast<const char*>(body) + sizeof(request);
  const std::string_view from(text, request.from_bytes);
  const std::string_view to(text + request.from_bytes, request.to_bytes);
  const Condition condition{request.if_absent != 0, request.if_sequence};
  auto view = namespace_->get(from);
  if (!view.ok()) return reply_error(header, view.status());
  auto draft = namespace_->begin(to);
  if (!draft.ok()) return reply_error(header, draft.status());
  draft->expect(view->info.size_bytes);
  begin_transfer(header, std::move(*view), from, std::move(*draft), condition);
}

// --- transfers

void Connection::begin_transfer(const FrameHeader& header, ObjectView view, std::string_view key,
                                std::optional<Draft> draft, Condition condition) {
  auto reader = std::make_unique<ViewReader>(store_.reader(), std::move(view), key, on_reads_);
  transfers_.push_back({header, std::move(reader), std::move(draft), condition});
  take_reads();
}

void Connection::take_reads() {
  do {
    for (auto it = transfers_.begin(); it != transfers_.end();) {
      const bool ended = it->advance(*this);
      it = ended ? transfers_.erase(it) : std::next(it);
    }
  } while (ask_ahead());  // what lies in memory is there at once
}

// Whether anything was asked for. The oldest first, so that they end first, but not all room for one.
bool Connection::ask_ahead() {
  uint64_t ahead = output_.read_bytes();
  for (const Transfer& transfer : transfers_) ahead += transfer.reader->asked_bytes();
  bool asked = false;
  for (Transfer& transfer : transfers_) {
    while (ahead < limits::kReadAheadBytesMax && transfer.reader->asked_bytes() < limits::kReadAheadBytesMax / 2) {
      const uint64_t bytes = transfer.reader->ask();
      if (bytes == 0) break;
      ahead += bytes;
      asked = true;
    }
  }
  return asked;
}

bool Connection::Transfer::advance(Connection& connection) {
  while (!reader->done()) {
    auto piece = reader->next();
    Status failed = piece.status();
    if (failed.ok() && !piece->has_value()) return false;
    if (failed.ok() && draft) failed = draft->append((*piece)->bytes);
    if (!failed.ok()) {
      connection.reply_error(header, failed);
      return true;
    }
    if (!draft) send(connection, std::move(**piece));
  }
  if (draft) {
    const uint32_t crc = reader->info().crc32c;
    connection.reply_info(header, connection.namespace_->commit(std::move(*draft), condition, nullptr, crc,
                                                               reader->attributes()));
  }
  return true;
}

void Connection::Transfer::send(Connection& connection, ViewReader::Piece piece) {
  const wire::PiecedReply body{wire::to_wire(reader->info()), reader->bytes()};
  const bool pieced = begun || !reader->done();
  begun = true;
  FrameHeader head{};
  head.opcode = header.opcode;
  head.flags = wire::kFlagReply | wire::kFlagPayloadCrc | (reader->done() ? 0 : wire::kFlagMore);
  head.request_id = header.request_id;
  head.payload_bytes = piece.bytes.bytes;
  head.payload_crc = piece.crc;
  head.body_bytes = pieced ? sizeof(body) : sizeof(body.info);
  wire::seal_frame(head, &body);
  OutputQueue& output = connection.output_;
  output.append(&head, sizeof(head));
  output.append(&body, head.body_bytes);
  if (piece.bytes.bytes <= kCopiedReplyBytesMax) {
    output.append(piece.bytes.data, piece.bytes.bytes);
  } else {
    output.append_read(piece.bytes, std::move(piece.keeper));
  }
  connection.traffic_.bytes_out += piece.bytes.bytes;
}

void Connection::list(const FrameHeader& header, const uint8_t* body) {
  wire::ListRequest request;
  if (!wire::read_body(body, header.body_bytes, &request) ||
      header.body_bytes != sizeof(request) + request.prefix_bytes + request.start_bytes) {
    return goodbye(bad_body());
  }
  const auto* text = reinterpret_cast<const char*>(body) + sizeof(request);
  const std::string_view prefix(text, request.prefix_bytes);
  const std::string_view start_after(text + request.prefix_bytes, request.start_bytes);
  const auto limit = static_cast<uint32_t>(std::min<uint64_t>(request.limit, limits::kListPageMax));
  auto page = namespace_->list(prefix, start_after, limit);
  if (!page.ok()) return reply_error(header, page.status());
  std::vector<uint8_t> payload;
  for (const ListedObject& object : page->objects) {
    const wire::ListedEntry entry{wire::to_wire(object.info), static_cast<uint32_t>(object.key.size()), 0};
    const auto* bytes = reinterpret_cast<const uint8_t*>(&entry);
    payload.insert(payload.end(), bytes, bytes + sizeof(entry));
    payload.insert(payload.end(), object.key.begin(), object.key.end());
  }
  const wire::ListReply answer{static_cast<uint32_t>(page->objects.size()), page->truncated ? 1u : 0u};
  FrameHeader head{};
  head.opcode = header.opcode;
  head.flags = wire::kFlagReply | wire::kFlagPayloadCrc;
  head.request_id = header.request_id;
  head.body_bytes = sizeof(answer);
  head.payload_bytes = payload.size();
  head.payload_crc = crc32c(0, payload.data(), payload.size());
  wire::seal_frame(head, &answer);
  output_.append(&head, sizeof(head));
  output_.append(&answer, sizeof(answer));
  if (!payload.empty()) output_.append(payload.data(), payload.size());
}

// --- same-host sessions

void Connection::reply_grant(const FrameHeader& request, const Grant& grant) {
  const wire::GrantReply answer{grant.begin, grant.end, grant.memory->bytes(), grant.segment, 0};
  std::vector<PassedDescriptor> descriptors;
  if (writable_sent_.insert(grant.segment).second) descriptors.push_back({grant.memory->fd(), grant.memory});
  reply(request, &answer, sizeof(answer), std::move(descriptors));
}

void Connection::reserve(const FrameHeader& header, const uint8_t* body) {
  wire::ReserveRequest request;
  if (header.body_bytes != sizeof(request) || !wire::read_body(body, header.body_bytes, &request) ||
      request.reserved != 0) {
    return goodbye(bad_body());
  }
  if (request.bytes > limits::kSegmentBytesMax - kSegmentHeaderBytes) {
    return reply_error(header, {Code::kObjectTooLarge, "no segment has that much contiguous room; write it in parts"});
  }
  // Those that wait already come first.
  Result<Grant> grant = waiting_.empty() ? namespace_->reserve(session_, request.bytes)
                                         : Result<Grant>(Code::kResourceExhausted, "others wait for room");
  if (grant.ok()) return reply_grant(header, *grant);
  if (grant.code() != Code::kResourceExhausted || request.timeout_ms == 0 || waiting_.size() >= kWaitingReservesMax) {
    return reply_error(header, grant.status());
  }
  const auto timeout = std::chrono::milliseconds(std::min(request.timeout_ms, kReserveTimeoutMsMax));
  waiting_.push_back({header, request.bytes, TransportClock::now() + timeout});
}

void Connection::retry_reserves(TransportClock::time_point now) {
  while (!waiting_.empty() && !closing_) {
    const WaitingReserve& first = waiting_.front();
    auto grant = namespace_->reserve(session_, first.bytes);
    if (grant.ok()) {
      reply_grant(first.header, *grant);
    } else if (grant.code() != Code::kResourceExhausted || now >= first.deadline) {
      reply_error(first.header, grant.status());
    } else {
      break;
    }
    waiting_.erase(waiting_.begin());
  }
  // One that waits behind a patient one may be out of time itself.
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    if (now < it->deadline) {
      ++it;
      continue;
    }
    reply_error(it->header, {Code::kResourceExhausted, "no room was freed in time"});
    it = waiting_.erase(it);
  }
}

void Connection::seal(const FrameHeader& header, const uint8_t* body) {
  wire::SealRequest request;
  if (header.body_bytes != sizeof(request) || !wire::read_body(body, header.body_bytes, &request) ||
      !all_zero(request.reserved) || request.if_absent > 1) {
    return goodbye(bad_body());
  }
  reply_info(header, namespace_->seal(session_, request.segment, uint64_t{request.entry_unit} * limits::kEntryAlignment,
                                      {request.if_absent != 0, request.if_sequence}));
}

void Connection::open_segment(const FrameHeader& header, uint32_t segment) {
  auto opened = namespace_->open_segment(session_, segment);
  if (!opened.ok()) return reply_error(header, opened.status());
  const wire::Tier tier = opened->file ? wire::Tier::kNvme : wire::Tier::kDram;
  const wire::OpenSegmentReply answer{opened->bytes, static_cast<uint32_t>(tier), 0};
  if (opened->file) return reply(header, &answer, sizeof(answer), {{opened->file->fd(), opened->file}});
  auto fd = opened->memory->read_only_fd();
  if (!fd.ok()) return reply_error(header, fd.status());
  reply(header, &answer, sizeof(answer), {{*fd, close_later(*fd)}});
}

// --- ring

bool Connection::ring_has_work() const {
  return ring_ != nullptr && !closing_ && ring_->head.load(std::memory_order_acquire) != ring_acked_;
}

bool Connection::drain_ring() {
  if (ring_ == nullptr || closing_) return false;
  const uint64_t head = ring_->head.load(std::memory_order_acquire);
  if (head == ring_acked_) return false;
  if (head - ring_acked_ > limits::kSealRingSlots) {
    goodbye({Code::kProtocol, "the seal ring's counter went astray"});
    return false;
  }
  Namespace::SealRecord records[kRingBatch];
  const size_t count = std::min<uint64_t>(head - ring_acked_, kRingBatch);
  for (size_t i = 0; i < count; ++i) {
    SealSlot slot;  // a copy: the client may write to the original at any time
    std::memcpy(&slot, &ring_->slots[(ring_acked_ + i) & kSealRingMask], sizeof(slot));
    if (slot.flags != 0 || slot.reserved != 0) {
      goodbye({Code::kUnsupported, "unknown flags in a seal record"});
      return false;
    }
    records[i] = {slot.segment, slot.entry_unit};
  }
  size_t sealed = 0;
  const Status failed = namespace_->seal_batch(session_, records, count, &sealed);
  ring_acked_ += sealed;
  traffic_.operations += sealed;
  ring_->acked.store(ring_acked_, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (ring_->client_waiting.load(std::memory_order_relaxed) != 0) {
    ring_->client_waiting.store(0, std::memory_order_relaxed);
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_client_fd_, &one, sizeof(one));
  }
  if (!failed.ok()) goodbye(failed);
  return true;
}

void Connection::drain_ring_pushed() {
  if (ring_ == nullptr) return;
  const uint64_t head = ring_->head.load(std::memory_order_acquire);
  // Only as far as now: a client can push for ever.
  while (static_cast<int64_t>(head - ring_acked_) > 0 && drain_ring()) {
  }
}

void Connection::set_ring_sleeping(bool sleeping) {
  ring_->server_sleeping.store(sleeping ? 1 : 0, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

// --- events

void Connection::segment_retired(uint32_t segment) {
  const wire::SegmentMessage message{segment, 0};
  push(Opcode::kSegmentRetired, {}, &message, sizeof(message));
}

void Connection::expire(uint64_t now_unix_ms) {
  if (namespace_ == nullptr || closing_ || !pass_.expired(now_unix_ms)) return;
  drain_ring_pushed();
  goodbye({Code::kUnauthenticated, "the credentials that opened this connection have expired"});
}

void Connection::namespace_dropped() {
  if (dropped_ || closing_) return;
  dropped_ = true;
  push(Opcode::kNamespaceDropped, {}, nullptr, 0);
  retry_reserves(TransportClock::now());
}

}  // namespace millrace
