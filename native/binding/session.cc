// The bridge between a transport's client and JavaScript.
//
// A session handle is a plain object of functions that share one native Session: their data pointer is the
// session, which spares the hot calls an unwrap. Everything asynchronous is answered through one channel: the
// native side queues what happened and makes one ThreadSafeFunction call a batch; `deliver` then calls the
// handlers that JavaScript set.
//
//   completions(count, slab, values)  `count` rows of the numbers array; row: id, code, a, b, c, d, offset, bytes
//   events(bits)                      kGrants, kAcked
//   forgotten(numbers)                segments that are retired: drop their windows
//   lost(error)
//
// Numbers go through arrays of doubles that both sides hold (`numbers`, `out`): a plain store each.
#include "binding/session.h"

#include "binding/span.h"

#include <cstring>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/assert.h"
#include "binding/convert.h"
#include "transport/client.h"
#include "transport/shm/shm_client.h"

namespace millrace::binding {

namespace {

using wire::Opcode;

constexpr size_t kRowNumbers = 8;
constexpr size_t kBatchRows = 256;
constexpr size_t kOutNumbers = 4 * 256;
constexpr uint64_t kSlabBytesMax = 64 * KiB;
constexpr uint64_t kSlabPayloadBytesMax = 4 * KiB;  // larger payloads get an ArrayBuffer of their own
constexpr uint64_t kInlineCopyBytesMax = 1 * MiB;   // larger copies go to a thread of the pool
constexpr uint32_t kSettleSpinMicroseconds = 50;
constexpr uint32_t kGrantWaitMs = 50;  // of an enqueued put: back-pressure, before it is queued in JavaScript

enum Event : uint32_t { kGrants = 1, kAcked = 2 };

struct Session;

struct Window {
  std::shared_ptr<Mapping> mapping;
  napi_ref reference = nullptr;  // weak: to detach it at close
  std::weak_ptr<Session> session;
};

struct Completion {
  double id;
  Opcode opcode;
  Code code;
  double numbers[4] = {0, 0, 0, 0};
  std::string message;   // of an error
  size_t small_offset = 0;  // in the batch's arena
  uint64_t payload_bytes = 0;
  bool small = false;
  PayloadBuffer buffer;
  std::unique_ptr<ListPage> page;
};

// An object being written through shared memory.
struct Writer {
  std::string key;
  std::vector<ManifestExtent> extents;
  uint64_t parts_bytes = 0;
  uint32_t parts_crc = 0;
  bool allocated = false;
  ShmClient::Allocation part;
  uint64_t part_written = 0;  // bytes of the part that `crc` covers
  uint32_t crc = 0;
  uint64_t grant_tag = 0;  // of the grant that was asked for, or 0
  uint64_t wanted_bytes = 0;
  std::shared_ptr<ShmClient::Grant> grant;
};

struct Session final : ShmClient::Waker, Channel::Sink, Channel::Events, std::enable_shared_from_this<Session> {
  ~Session() override;

  // --- life
  napi_env env = nullptr;
  std::shared_ptr<Channel> channel;
  std::unique_ptr<ShmClient> shm;  // null over TCP
  ServerGreeting greeting;
  bool closed = false;
  napi_threadsafe_function tsfn = nullptr;
  bool referenced = false;  // the event loop waits for us
  uint64_t expected = 0;    // replies and acks that JavaScript waits for
  // An array of JavaScript's handlers, which JavaScript keeps. Strong only while something is expected, so that a
  // transport that nobody holds any more is collected.
  napi_ref handlers = nullptr;
  enum Handler { kCompletions, kEvents, kForgotten, kLost, kHandlers };
  double* numbers = nullptr;
  napi_ref numbers_reference = nullptr;
  double* out = nullptr;
  napi_ref out_reference = nullptr;

  // --- the JavaScript thread's own
  struct TrackedPut {
    uint64_t position;
    ShmClient::Allocation where;
  };
  std::deque<TrackedPut> tracked;
  std::unordered_map<uint32_t, Writer> writers;
  uint32_t next_writer = 1;
  uint64_t next_grant_tag = 1;
  std::unordered_map<uint32_t, uint64_t> drafts;  // JavaScript's number -> the wire's
  std::vector<uint32_t> forgotten;
  std::unordered_map<Window*, std::unique_ptr<Window>> windows;

  // --- shared with the channel's thread
  std::mutex mutex;
  std::vector<Completion> done;
  std::vector<uint8_t> arena;
  uint32_t events = 0;
  Status lost;
  bool scheduled = false;
  // `done` is filled from the channel's thread; whole batches wake JavaScript once.

  void wake() {  // under `mutex`
    if (scheduled || tsfn == nullptr) return;
    scheduled = true;
    napi_call_threadsafe_function(tsfn, nullptr, napi_tsfn_nonblocking);
  }

  void on_reply(uint64_t tag, ChannelReply& reply) override;
  void on_segment_retired(uint32_t) override {}
  void on_namespace_dropped() override {}
  void on_lost(const Status& why) override {
    std::lock_guard lock(mutex);
    lost = why;
    wake();
  }
  void on_batch_end() override {
    std::lock_guard lock(mutex);
    if (!done.empty()) wake();
  }
  void on_mail() override {
    std::lock_guard lock(mutex);
    events |= kGrants;
    wake();
  }
  void on_acked() override {
    std::lock_guard lock(mutex);
    events |= kAcked;
    wake();
  }

  void deliver();
  void call_handler(Handler handler, size_t count, const napi_value* arguments);
  void expect(int64_t change) {
    expected = static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(expected) + change));
    if (closed || (expected > 0) == referenced) return;
    referenced = expected > 0;
    uint32_t count;
    if (referenced) {
      napi_ref_threadsafe_function(env, tsfn);
      if (handlers != nullptr) napi_reference_ref(env, handlers, &count);
    } else {
      napi_unref_threadsafe_function(env, tsfn);
      if (handlers != nullptr) napi_reference_unref(env, handlers, &count);
    }
  }
  void close();
  void detach_windows();
};

void throw_status(napi_env env, const Status& status) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) napi_throw_error(env, code_name(status.code()), status.message().c_str());
}

// --- replies

void Session::on_reply(uint64_t tag, ChannelReply& reply) {
  Completion completion{static_cast<double>(tag), reply.opcode, reply.code};
  if (reply.code != Code::kOk) {
    completion.message = reply.body;
  } else {
    switch (reply.opcode) {
      case Opcode::kDelete: {
        wire::DeleteReply answer{};
        reply.read(&answer);
        completion.numbers[0] = answer.existed != 0;
        break;
      }
      case Opcode::kList: {
        wire::ListReply answer;
        Result<ListPage> page(Code::kProtocol, "the reply does not fit the request");
        if (reply.read(&answer)) page = parse_list(answer, reply.payload);
        if (page.ok()) {
          completion.page = std::make_unique<ListPage>(std::move(*page));
        } else {
          completion.code = page.code();
          completion.message = page.status().message();
        }
        break;
      }
      case Opcode::kBegin:
      case Opcode::kAppend:
      case Opcode::kAbort:
        break;
      default: {
        wire::ObjectReply answer{};
        if (!reply.read(&answer)) {
          completion.code = Code::kProtocol;
          completion.message = "the reply does not fit the request";
          break;
        }
        completion.numbers[0] = static_cast<double>(answer.size_bytes);
        completion.numbers[1] = static_cast<double>(answer.sequence);
        completion.numbers[2] = answer.crc32c;
        completion.numbers[3] = answer.sealed_unix_s;
        completion.payload_bytes = reply.payload.bytes;
        completion.buffer = std::move(reply.buffer);
      }
    }
  }
  std::lock_guard lock(mutex);
  if (completion.payload_bytes > 0 && !completion.buffer) {
    completion.small = true;
    completion.small_offset = arena.size();
    arena.insert(arena.end(), reply.payload.data, reply.payload.data + reply.payload.bytes);
  }
  done.push_back(std::move(completion));
}

napi_value make_error(napi_env env, const Status& status) {
  napi_value code, message, error;
  napi_create_string_utf8(env, code_name(status.code()), NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, status.message().data(), status.message().size(), &message);
  napi_create_error(env, code, message, &error);
  return error;
}

void free_payload(napi_env, void*, void* hint) { delete static_cast<PayloadBuffer*>(hint); }

napi_value make_page(napi_env raw_env, const ListPage& page) {
  Napi::Env env(raw_env);
  Napi::Array objects = Napi::Array::New(env, page.objects.size());
  for (size_t i = 0; i < page.objects.size(); ++i) {
    Napi::Object object = from_info(env, page.objects[i].info);
    object.Set("key", Napi::Buffer<char>::Copy(env, page.objects[i].key.data(), page.objects[i].key.size()));
    objects.Set(static_cast<uint32_t>(i), object);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("objects", objects);
  result.Set("truncated", page.truncated);
  return result;
}

void Session::call_handler(Handler handler, size_t count, const napi_value* arguments) {
  napi_value list = nullptr, function, undefined;
  if (handlers == nullptr || napi_get_reference_value(env, handlers, &list) != napi_ok || list == nullptr) return;
  napi_get_element(env, list, handler, &function);
  napi_get_undefined(env, &undefined);
  napi_call_function(env, undefined, function, count, arguments, nullptr);
}

// On the JavaScript thread, from the ThreadSafeFunction.
void Session::deliver() {
  const auto self = shared_from_this();
  std::vector<Completion> batch;
  std::vector<uint8_t> bytes;
  uint32_t bits;
  Status lost_now;
  {
    std::lock_guard lock(mutex);
    batch.swap(done);
    bytes.swap(arena);
    bits = std::exchange(events, 0);
    lost_now = std::exchange(lost, Status());
    scheduled = false;
  }
  if (closed) return;
  napi_handle_scope scope;
  size_t next = 0;
  while (next < batch.size()) {
    napi_open_handle_scope(env, &scope);
    // One slab for the small payloads of these rows.
    size_t rows = 0;
    uint64_t slab_bytes = 0;
    while (rows < kBatchRows && next + rows < batch.size()) {
      const Completion& item = batch[next + rows];
      if (item.small && item.payload_bytes <= kSlabPayloadBytesMax) {
        if (slab_bytes + item.payload_bytes > kSlabBytesMax) break;
        slab_bytes += align_up(item.payload_bytes, 8);
      }
      ++rows;
    }
    napi_value slab, values, null;
    napi_get_null(env, &null);
    slab = null;
    values = null;
    uint8_t* slab_data = nullptr;
    if (slab_bytes > 0) napi_create_arraybuffer(env, slab_bytes, reinterpret_cast<void**>(&slab_data), &slab);
    uint64_t slab_used = 0;
    auto set_value = [&](size_t row, napi_value value) {
      if (values == null) napi_create_array_with_length(env, rows, &values);
      napi_set_element(env, values, static_cast<uint32_t>(row), value);
    };
    for (size_t row = 0; row < rows; ++row) {
      Completion& item = batch[next + row];
      double* to = numbers + row * kRowNumbers;
      to[0] = item.id;
      to[1] = static_cast<double>(item.code);
      std::copy(std::begin(item.numbers), std::end(item.numbers), to + 2);
      to[6] = 0;
      to[7] = static_cast<double>(item.payload_bytes);
      if (item.code != Code::kOk) {
        set_value(row, make_error(env, Status(item.code, std::move(item.message))));
      } else if (item.page) {
        set_value(row, make_page(env, *item.page));
      } else if (item.small && item.payload_bytes <= kSlabPayloadBytesMax) {
        std::memcpy(slab_data + slab_used, bytes.data() + item.small_offset, item.payload_bytes);
        to[6] = static_cast<double>(slab_used);
        slab_used += align_up(item.payload_bytes, 8);
      } else if (item.small) {
        void* data;
        napi_value buffer;
        napi_create_arraybuffer(env, item.payload_bytes, &data, &buffer);
        std::memcpy(data, bytes.data() + item.small_offset, item.payload_bytes);
        set_value(row, buffer);
      } else if (item.buffer) {
        auto* owner = new PayloadBuffer(std::move(item.buffer));
        napi_value buffer;
        if (napi_create_external_arraybuffer(env, owner->data(), item.payload_bytes, free_payload, owner, &buffer) != napi_ok) {
          // Above the engine's largest window, or external memory is not allowed here.
          delete owner;
          to[1] = static_cast<double>(Code::kUnsupported);
          set_value(row, make_error(env, Status(Code::kUnsupported, "the payload is too large for one buffer; read it in ranges")));
        } else {
          set_value(row, buffer);
        }
      }
    }
    next += rows;
    napi_value arguments[3];
    napi_create_double(env, static_cast<double>(rows), &arguments[0]);
    arguments[1] = slab;
    arguments[2] = values;
    call_handler(kCompletions, 3, arguments);
    if (!closed) expect(-static_cast<int64_t>(rows));
    napi_close_handle_scope(env, scope);
    if (closed) return;
  }
  if (shm && shm->has_mail()) shm->take_mail();
  napi_open_handle_scope(env, &scope);
  if (!forgotten.empty()) {
    napi_value list;
    napi_create_array_with_length(env, forgotten.size(), &list);
    for (size_t i = 0; i < forgotten.size(); ++i) {
      napi_value number;
      napi_create_uint32(env, forgotten[i], &number);
      napi_set_element(env, list, static_cast<uint32_t>(i), number);
    }
    forgotten.clear();
    call_handler(kForgotten, 1, &list);
  }
  if (bits != 0 && !closed) {
    napi_value argument;
    napi_create_uint32(env, bits, &argument);
    call_handler(kEvents, 1, &argument);
  }
  if (!lost_now.ok() && !closed) {
    expect(-static_cast<int64_t>(expected));  // nothing more will come
    napi_value error = make_error(env, lost_now);
    call_handler(kLost, 1, &error);
  }
  napi_close_handle_scope(env, scope);
}

// --- windows

void free_window(napi_env raw_env, void*, void* hint) {
  auto* window = static_cast<Window*>(hint);
  if (auto session = window->session.lock()) {
    auto found = session->windows.find(window);
    if (found != session->windows.end()) {
      if (window->reference != nullptr) napi_delete_reference(raw_env, window->reference);
      session->windows.erase(found);
      return;
    }
  }
  delete window;
}

void Session::detach_windows() {
  for (auto& [window, owner] : windows) {
    napi_value value = nullptr;
    if (window->reference != nullptr && napi_get_reference_value(env, window->reference, &value) == napi_ok &&
        value != nullptr) {
      napi_detach_arraybuffer(env, value);
    }
    if (window->reference != nullptr) napi_delete_reference(env, window->reference);
    window->reference = nullptr;
    owner.release();  // its finalizer deletes it
  }
  windows.clear();
}

void Session::close() {
  if (closed) return;
  closed = true;
  tracked.clear();
  writers.clear();
  if (shm) shm->close();
  else if (channel) channel->stop();
  if (!shm && channel) channel->set_events(nullptr);
  {
    std::lock_guard lock(mutex);
    done.clear();
    if (tsfn != nullptr) napi_release_threadsafe_function(tsfn, napi_tsfn_abort);
    tsfn = nullptr;
  }
  // Not when the handle is collected, whenever that is: the index, the ring and the socket go now, the socket at the
  // latest with the last mapping, whose end it tells the daemon.
  shm.reset();
  channel.reset();
}

// --- arguments

// The session behind a call; null with an exception pending where it is closed.
Session* open_session_of(napi_env env, napi_callback_info info, size_t* count, napi_value* arguments) {
  void* data = nullptr;
  napi_get_cb_info(env, info, count, arguments, nullptr, &data);
  auto* session = static_cast<std::shared_ptr<Session>*>(data)->get();
  if (__builtin_expect(session->closed, 0)) {
    throw_status(env, Status(Code::kClosed, "the transport is closed"));
    return nullptr;
  }
  return session;
}

struct KeyArgument {
  char inline_bytes[limits::kKeyBytesMax + 8];
  std::string_view view;

  // False with an exception pending.
  bool read(napi_env env, napi_value value, bool may_be_empty = false) {
    size_t bytes = 0;
    if (napi_get_value_string_utf8(env, value, inline_bytes, sizeof(inline_bytes), &bytes) == napi_ok) {
      view = {inline_bytes, bytes};
    } else {
      napi_typedarray_type type;
      void* data = nullptr;
      if (napi_get_typedarray_info(env, value, &type, &bytes, &data, nullptr, nullptr) != napi_ok ||
          type != napi_uint8_array) {
        throw_status(env, Status(Code::kInvalidArgument, "a key is a string or a Uint8Array"));
        return false;
      }
      view = {static_cast<const char*>(data), bytes};
    }
    if (__builtin_expect(view.size() > limits::kKeyBytesMax || (view.empty() && !may_be_empty), 0)) {
      throw_status(env, check_key(view));
      return false;
    }
    return true;
  }
};

bool read_bytes(napi_env env, napi_value value, ConstSpan* bytes) {
  napi_typedarray_type type;
  void* data = nullptr;
  size_t length = 0;
  if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    throw_status(env, Status(Code::kInvalidArgument, "bytes are a Uint8Array"));
    return false;
  }
  *bytes = {static_cast<const uint8_t*>(data), length};
  return true;
}

bool read_uint(napi_env env, napi_value value, uint64_t* number) {
  double given = -1;
  if (napi_get_value_double(env, value, &given) != napi_ok || !(given >= 0 && given <= 9007199254740992.0) ||
      given != static_cast<double>(static_cast<uint64_t>(given))) {
    throw_status(env, Status(Code::kInvalidArgument, "a whole number from 0 to 2^53 is wanted here"));
    return false;
  }
  *number = static_cast<uint64_t>(given);
  return true;
}

bool read_condition(napi_env env, napi_value absent, napi_value sequence, Condition* condition) {
  if (napi_get_value_bool(env, absent, &condition->if_absent) != napi_ok) {
    throw_status(env, Status(Code::kInvalidArgument, "ifAbsent is a boolean"));
    return false;
  }
  return read_uint(env, sequence, &condition->if_sequence);
}

napi_value number(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}
napi_value nothing(napi_env env) {
  napi_value result;
  napi_get_null(env, &result);
  return result;
}

napi_value submit(napi_env env, Session* session, Channel::Request request, uint64_t id, uint64_t* wire_id = nullptr) {
  request.sink = session;
  request.tag = id;
  auto submitted = session->channel->submit(request);
  if (!submitted.ok()) {
    throw_status(env, submitted.status());
    return nullptr;
  }
  if (wire_id != nullptr) *wire_id = *submitted;
  session->expect(1);
  return nothing(env);
}

// --- requests (any transport): the first argument is JavaScript's id of the request

// put(id, key, bytes, ifAbsent, ifSequence)
napi_value js_put(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value arguments[5];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id;
  KeyArgument key;
  Condition condition;
  Channel::Request request{Opcode::kPut};
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !key.read(env, arguments[1]) ||
      !read_bytes(env, arguments[2], &request.payload) || !read_condition(env, arguments[3], arguments[4], &condition)) {
    return nullptr;
  }
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.view.size());
  body.if_absent = condition.if_absent;
  body.if_sequence = condition.if_sequence;
  request.body = &body;
  request.body_bytes = sizeof(body);
  request.key = key.view;
  request.has_payload = true;
  return submit(env, session, request, id);
}

// get(id, key, offset, length)
napi_value js_get(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id;
  KeyArgument key;
  wire::ObjectRequest body{};
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !key.read(env, arguments[1]) ||
      !read_uint(env, arguments[2], &body.offset) || !read_uint(env, arguments[3], &body.length)) {
    return nullptr;
  }
  body.key_bytes = static_cast<uint16_t>(key.view.size());
  return submit(env, session, Channel::Request{Opcode::kGet, &body, sizeof(body), key.view}, id);
}

// head(id, key)
napi_value js_head(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id;
  KeyArgument key;
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !key.read(env, arguments[1])) return nullptr;
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.view.size());
  return submit(env, session, Channel::Request{Opcode::kHead, &body, sizeof(body), key.view}, id);
}

// remove(id, key, ifAbsent, ifSequence)
napi_value js_remove(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id;
  KeyArgument key;
  Condition condition;
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !key.read(env, arguments[1]) ||
      !read_condition(env, arguments[2], arguments[3], &condition)) {
    return nullptr;
  }
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.view.size());
  body.if_absent = condition.if_absent;
  body.if_sequence = condition.if_sequence;
  return submit(env, session, Channel::Request{Opcode::kDelete, &body, sizeof(body), key.view}, id);
}

// copy(id, from, to, ifAbsent, ifSequence)
napi_value js_copy(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value arguments[5];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id;
  KeyArgument from, to;
  Condition condition;
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !from.read(env, arguments[1]) ||
      !to.read(env, arguments[2]) || !read_condition(env, arguments[3], arguments[4], &condition)) {
    return nullptr;
  }
  wire::CopyRequest body{};
  body.from_bytes = static_cast<uint16_t>(from.view.size());
  body.to_bytes = static_cast<uint16_t>(to.view.size());
  body.if_absent = condition.if_absent;
  body.if_sequence = condition.if_sequence;
  return submit(env, session, Channel::Request{Opcode::kCopy, &body, sizeof(body), from.view, to.view}, id);
}

// list(id, prefix, startAfter, limit)
napi_value js_list(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id, limit;
  KeyArgument prefix, start_after;
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !prefix.read(env, arguments[1], true) ||
      !start_after.read(env, arguments[2], true) || !read_uint(env, arguments[3], &limit)) {
    return nullptr;
  }
  const wire::ListRequest body{static_cast<uint32_t>(std::min(limit, limits::kListPageMax)),
                               static_cast<uint16_t>(prefix.view.size()), static_cast<uint16_t>(start_after.view.size())};
  return submit(env, session, Channel::Request{Opcode::kList, &body, sizeof(body), prefix.view, start_after.view}, id);
}

// begin(id, draft, key): the draft gets JavaScript's number `draft`
napi_value js_begin(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id, draft, wire_id;
  KeyArgument key;
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !read_uint(env, arguments[1], &draft) ||
      !key.read(env, arguments[2])) {
    return nullptr;
  }
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.view.size());
  napi_value result = submit(env, session, Channel::Request{Opcode::kBegin, &body, sizeof(body), key.view}, id, &wire_id);
  if (result != nullptr) session->drafts[static_cast<uint32_t>(draft)] = wire_id;
  return result;
}

bool find_draft(napi_env env, Session* session, napi_value value, wire::DraftRequest* body) {
  uint64_t draft;
  if (!read_uint(env, value, &draft)) return false;
  auto found = session->drafts.find(static_cast<uint32_t>(draft));
  if (found == session->drafts.end()) {
    throw_status(env, Status(Code::kInvalidArgument, "no such draft"));
    return false;
  }
  body->draft = found->second;
  return true;
}

// append(id, draft, bytes)
napi_value js_append(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id;
  wire::DraftRequest body{};
  Channel::Request request{Opcode::kAppend, &body, sizeof(body)};
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !find_draft(env, session, arguments[1], &body) ||
      !read_bytes(env, arguments[2], &request.payload)) {
    return nullptr;
  }
  request.has_payload = true;
  return submit(env, session, request, id);
}

// commit(id, draft, crc32c or -1, ifAbsent, ifSequence)
napi_value js_commit(napi_env env, napi_callback_info info) {
  size_t count = 5;
  napi_value arguments[5];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id, draft;
  double crc;
  Condition condition;
  wire::DraftRequest body{};
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !find_draft(env, session, arguments[1], &body) ||
      !read_uint(env, arguments[1], &draft) || napi_get_value_double(env, arguments[2], &crc) != napi_ok ||
      !read_condition(env, arguments[3], arguments[4], &condition)) {
    return nullptr;
  }
  body.has_crc32c = crc >= 0;
  body.crc32c = crc >= 0 ? static_cast<uint32_t>(crc) : 0;
  body.if_absent = condition.if_absent;
  body.if_sequence = condition.if_sequence;
  session->drafts.erase(static_cast<uint32_t>(draft));
  return submit(env, session, Channel::Request{Opcode::kCommit, &body, sizeof(body)}, id);
}

// abort(id, draft)
napi_value js_abort(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id, draft;
  wire::DraftRequest body{};
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !find_draft(env, session, arguments[1], &body) ||
      !read_uint(env, arguments[1], &draft)) {
    return nullptr;
  }
  session->drafts.erase(static_cast<uint32_t>(draft));
  return submit(env, session, Channel::Request{Opcode::kAbort, &body, sizeof(body)}, id);
}

// flush(): sends what the requests above have queued
napi_value js_flush(napi_env env, napi_callback_info info) {
  size_t count = 0;
  Session* session = open_session_of(env, info, &count, nullptr);
  if (session == nullptr) return nullptr;
  session->channel->flush();
  return nothing(env);
}

// --- shared memory: reading

// locate(key): the segment's number, 0 where there is no such object, -1 where it lies in several extents.
// out: offset, bytes, sequence, crc32c, sealedUnixS
napi_value js_locate(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  KeyArgument key;
  if (session == nullptr || !key.read(env, arguments[0])) return nullptr;
  ShmClient::Located found;
  const Code code = session->shm->locate(key.view, &found);
  if (code == Code::kNotFound) return number(env, 0);
  if (code != Code::kOk) {
    throw_status(env, session->shm->failure());
    return nullptr;
  }
  if (found.manifest) return number(env, -1);
  double* out = session->out;
  out[0] = static_cast<double>(found.payload_offset);
  out[1] = static_cast<double>(found.payload_bytes);
  out[2] = static_cast<double>(found.sequence);
  out[3] = found.crc32c;
  out[4] = found.sealed_unix_s;
  return number(env, found.segment->number);
}

// locateExtents(key): null, or a Float64Array of segment, offset, bytes per extent.
// out: sizeBytes, sequence, crc32c, sealedUnixS
napi_value js_locate_extents(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  KeyArgument key;
  if (session == nullptr || !key.read(env, arguments[0])) return nullptr;
  std::vector<ShmClient::Extent> extents;
  ObjectInfo object;
  const Status status = session->shm->locate_extents(key.view, &extents, &object);
  if (status.code() == Code::kNotFound) return nothing(env);
  if (!status.ok()) {
    throw_status(env, status);
    return nullptr;
  }
  double* out = session->out;
  out[0] = static_cast<double>(object.size_bytes);
  out[1] = static_cast<double>(object.sequence);
  out[2] = object.crc32c;
  out[3] = object.sealed_unix_s;
  void* data = nullptr;
  napi_value buffer, array;
  napi_create_arraybuffer(env, extents.size() * 3 * sizeof(double), &data, &buffer);
  auto* to = static_cast<double*>(data);
  for (const ShmClient::Extent& extent : extents) {
    *to++ = extent.segment->number;
    *to++ = static_cast<double>(extent.offset);
    *to++ = static_cast<double>(extent.bytes);
  }
  napi_create_typedarray(env, napi_float64_array, extents.size() * 3, buffer, 0, &array);
  return array;
}

// window(segment): an ArrayBuffer over the whole mapping of the segment. Of its writable one where it is negative.
napi_value js_window(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  int64_t wanted = 0;
  if (session == nullptr || napi_get_value_int64(env, arguments[0], &wanted) != napi_ok) return nullptr;
  ShmClient::MappedSegment* segment = session->shm->mapped(static_cast<uint32_t>(wanted < 0 ? -wanted : wanted));
  std::shared_ptr<Mapping> mapping;
  if (segment != nullptr) mapping = wanted < 0 ? segment->write_mapping : segment->mapping;
  if (mapping == nullptr) {
    throw_status(env, Status(Code::kInternal, "a window on a segment that is not mapped"));
    return nullptr;
  }
  auto window = std::make_unique<Window>();
  window->mapping = mapping;
  window->session = session->shared_from_this();
  Window* raw = window.get();
  napi_value buffer;
  if (napi_create_external_arraybuffer(env, mapping->data(), mapping->bytes(), free_window, raw, &buffer) != napi_ok) {
    throw_status(env, Status(Code::kSystem, "the engine refuses a window on shared memory"));
    return nullptr;
  }
  session->windows.emplace(raw, std::move(window));
  napi_create_reference(env, buffer, 0, &raw->reference);
  return buffer;
}

// span(segment, offset, bytes): those bytes for kernels, as opaque handle. Writable ones where `segment` is negative
// or the session writes through its only mapping of it.
napi_value js_span(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3];
  Session* session = open_session_of(env, info, &count, arguments);
  int64_t wanted = 0;
  uint64_t offset, bytes;
  if (session == nullptr || napi_get_value_int64(env, arguments[0], &wanted) != napi_ok ||
      !read_uint(env, arguments[1], &offset) || !read_uint(env, arguments[2], &bytes)) {
    return nullptr;
  }
  ShmClient::MappedSegment* segment = session->shm->mapped(static_cast<uint32_t>(wanted < 0 ? -wanted : wanted));
  std::shared_ptr<Mapping> mapping;
  if (segment != nullptr) mapping = wanted < 0 ? segment->write_mapping : segment->mapping;
  if (mapping == nullptr || offset > mapping->bytes() || bytes > mapping->bytes() - offset) {
    throw_status(env, Status(Code::kInternal, "a span outside of the segments that are mapped"));
    return nullptr;
  }
  const bool writable = mapping == segment->write_mapping;
  const Span span{mapping->data() + offset, bytes};
  return SpanHandle::create(env, std::move(mapping), span, writable);
}

// --- shared memory: small puts

// pushPut(key, bytes, tracked, wait): the record's position in the ring; -1 no room yet (events: kGrants), -2 the
// ring is full. A tracked put is reported by `settle`. `wait`: for some milliseconds, where there is no room.
napi_value js_push_put(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  Session* session = open_session_of(env, info, &count, arguments);
  KeyArgument key;
  ConstSpan bytes;
  bool tracked = false, wait = false;
  if (session == nullptr || !key.read(env, arguments[0]) || !read_bytes(env, arguments[1], &bytes)) return nullptr;
  napi_get_value_bool(env, arguments[2], &tracked);
  ShmClient& shm = *session->shm;
  uint64_t position = 0;
  ShmClient::Push pushed;
  Session::TrackedPut put;
  ShmClient::Allocation* where = tracked ? &put.where : nullptr;
  pushed = shm.try_put(key.view, bytes.data, bytes.bytes, &position, where);
  if (__builtin_expect(pushed != ShmClient::Push::kPushed, 0)) {
    napi_get_value_bool(env, arguments[3], &wait);
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(kGrantWaitMs);
    while (wait && pushed != ShmClient::Push::kPushed && std::chrono::steady_clock::now() < until) {
      if (pushed == ShmClient::Push::kRingFull) {
        shm.spin_acked(shm.pushed() - limits::kSealRingSlots / 2, 1000);
      } else {
        shm.wait_mail(kGrantWaitMs);
      }
      pushed = shm.try_put(key.view, bytes.data, bytes.bytes, &position, where);
    }
  }
  if (tracked && pushed == ShmClient::Push::kPushed) {
    put.position = position;
    session->tracked.push_back(std::move(put));
    session->expect(1);
  }
  if (pushed == ShmClient::Push::kPushed) return number(env, static_cast<double>(position));
  return number(env, pushed == ShmClient::Push::kNeedsGrant ? -1 : -2);
}

// room(keyBytes, bytes): whether a put of that size has room now; asks for a grant where not. Throws what became
// of the last such grant where that failed.
napi_value js_room(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t key_bytes, bytes;
  if (session == nullptr || !read_uint(env, arguments[0], &key_bytes) || !read_uint(env, arguments[1], &bytes)) return nullptr;
  Status failed = session->shm->take_grant_failure();
  if (failed.ok()) failed = session->channel->lost_status();
  if (!failed.ok()) {
    throw_status(env, failed);
    return nullptr;
  }
  napi_value result;
  napi_get_boolean(env, session->shm->room_for(key_bytes, bytes), &result);
  return result;
}

// acked(position, spin): whether that many records are sealed; where not, events(kAcked) will say when to look again.
napi_value js_acked(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t position;
  bool spin = false;
  if (session == nullptr || !read_uint(env, arguments[0], &position)) return nullptr;
  napi_get_value_bool(env, arguments[1], &spin);
  ShmClient& shm = *session->shm;
  bool done = spin ? shm.spin_acked(position, kSettleSpinMicroseconds) : shm.acked() >= position;
  if (!done) done = !shm.request_ack_wake(position);
  napi_value result;
  napi_get_boolean(env, done, &result);
  return result;
}

// pushed(): the position of the last record pushed
napi_value js_pushed(napi_env env, napi_callback_info info) {
  size_t count = 0;
  Session* session = open_session_of(env, info, &count, nullptr);
  if (session == nullptr) return nullptr;
  return number(env, static_cast<double>(session->shm->pushed()));
}

// settle(spin): how many tracked puts are sealed, in order, at most 256. out: per put sizeBytes, sequence, crc32c,
// sealedUnixS. Where some are left, and fewer than 256 were reported, events(kAcked) will say when to call again.
napi_value js_settle(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  bool spin = false;
  if (session == nullptr) return nullptr;
  napi_get_value_bool(env, arguments[0], &spin);
  ShmClient& shm = *session->shm;
  if (session->tracked.empty()) return number(env, 0);
  if (spin) shm.spin_acked(session->tracked.back().position, kSettleSpinMicroseconds);
  size_t reported = 0;
  for (;;) {
    const uint64_t acked = shm.acked();
    double* out = session->out;
    while (!session->tracked.empty() && session->tracked.front().position <= acked && reported < kOutNumbers / 4) {
      const ObjectInfo object = shm.info_of(session->tracked.front().where);
      out[reported * 4] = static_cast<double>(object.size_bytes);
      out[reported * 4 + 1] = static_cast<double>(object.sequence);
      out[reported * 4 + 2] = object.crc32c;
      out[reported * 4 + 3] = object.sealed_unix_s;
      session->tracked.pop_front();
      ++reported;
    }
    if (session->tracked.empty() || reported == kOutNumbers / 4) break;
    if (shm.request_ack_wake(session->tracked.front().position)) break;
  }
  session->expect(-static_cast<int64_t>(reported));
  return number(env, static_cast<double>(reported));
}

// --- shared memory: writers

Writer* find_writer(napi_env env, Session* session, napi_value value) {
  uint64_t id;
  if (!read_uint(env, value, &id)) return nullptr;
  auto found = session->writers.find(static_cast<uint32_t>(id));
  if (found != session->writers.end()) return &found->second;
  throw_status(env, Status(Code::kClosed, "this writer was sealed or aborted"));
  return nullptr;
}

// openWriter(key): the writer's number
napi_value js_open_writer(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  KeyArgument key;
  if (session == nullptr || !key.read(env, arguments[0])) return nullptr;
  const uint32_t id = session->next_writer++;
  session->writers[id].key = key.view;
  return number(env, id);
}

// writerAllocate(writer, bytes): room for the next part of the object, to be called when the one before has ended.
// False: not there yet, events(kGrants) will say when to call again. out: window, offset
napi_value js_writer_allocate(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t bytes;
  if (session == nullptr) return nullptr;
  Writer* writer = find_writer(env, session, arguments[0]);
  if (writer == nullptr || !read_uint(env, arguments[1], &bytes)) return nullptr;
  ShmClient& shm = *session->shm;
  auto fail = [&](const Status& status) -> napi_value {
    throw_status(env, status);
    return nullptr;
  };
  if (writer->allocated) return fail(Status(Code::kInternal, "the part before has not ended"));
  if (bytes > ShmClient::kContiguousBytesMax) {
    return fail(Status(Code::kObjectTooLarge, "no segment has " + std::to_string(bytes) + " contiguous bytes"));
  }
  napi_value no;
  napi_get_boolean(env, false, &no);
  const uint64_t entry_bytes = entry_bytes_max(writer->key.size(), bytes) + 64;
  if (bytes <= ShmClient::kSharedEntryBytesMax) {
    if (Status failed = shm.take_grant_failure(); !failed.ok()) return fail(failed);
    if (Status failed = session->channel->lost_status(); !failed.ok()) return fail(failed);
    if (!shm.room_for(writer->key.size(), bytes)) return no;
    shm.allocate(shm.current_grant(), writer->key.size(), bytes, &writer->part);
  } else {
    if (writer->grant_tag != 0) {
      const Status failed = shm.take_grant(writer->grant_tag, &writer->grant);
      if (!failed.ok()) {
        writer->grant_tag = 0;
        return fail(failed);
      }
      if (writer->grant == nullptr) return no;
      writer->grant_tag = 0;
    }
    if (!shm.allocate(writer->grant, writer->key.size(), bytes, &writer->part)) {
      writer->grant.reset();
      const uint64_t tag = session->next_grant_tag++;
      if (Status failed = shm.request_grant(entry_bytes, tag); !failed.ok()) return fail(failed);
      writer->grant_tag = tag;
      return no;
    }
  }
  writer->allocated = true;
  writer->part_written = 0;
  writer->crc = 0;
  const ShmClient::MappedSegment& segment = *writer->part.grant->segment;
  const bool same = segment.mapping == segment.write_mapping;
  session->out[0] = same ? segment.number : -static_cast<double>(segment.number);
  session->out[1] = static_cast<double>(writer->part.payload_offset);
  napi_value yes;
  napi_get_boolean(env, true, &yes);
  return yes;
}

// The copy of a large write, on a thread of the pool.
struct CopyWork {
  std::shared_ptr<Session> session;
  std::shared_ptr<ShmClient::Grant> grant;  // keeps the room
  uint32_t writer;
  uint8_t* to;
  ConstSpan from;
  uint32_t crc;
  bool follows;  // continues what the checksum covers
  uint64_t offset;
  napi_ref bytes_reference;
  napi_deferred deferred;
  napi_async_work work;
};

// writerCopy(writer, offset, bytes): copies into the part. Null when done, or a promise of null.
napi_value js_writer_copy(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t offset, id;
  ConstSpan bytes;
  if (session == nullptr) return nullptr;
  Writer* writer = find_writer(env, session, arguments[0]);
  if (writer == nullptr || !read_uint(env, arguments[0], &id) || !read_uint(env, arguments[1], &offset) ||
      !read_bytes(env, arguments[2], &bytes)) {
    return nullptr;
  }
  if (!writer->allocated || offset > writer->part.capacity_bytes || bytes.bytes > writer->part.capacity_bytes - offset) {
    throw_status(env, Status(Code::kInternal, "a write outside of its part"));
    return nullptr;
  }
  const bool follows = offset == writer->part_written;
  if (bytes.bytes <= kInlineCopyBytesMax) {
    const uint32_t crc = copy_crc32c(writer->part.payload() + offset, bytes.data, bytes.bytes, writer->crc);
    if (follows) {
      writer->crc = crc;
      writer->part_written += bytes.bytes;
    }
    return nothing(env);
  }
  auto* work = new CopyWork{session->shared_from_this(), writer->part.grant, static_cast<uint32_t>(id),
                            writer->part.payload() + offset, bytes, writer->crc, follows, offset, nullptr, nullptr, nullptr};
  napi_value promise, name;
  napi_create_promise(env, &work->deferred, &promise);
  napi_create_reference(env, arguments[2], 1, &work->bytes_reference);
  napi_create_string_utf8(env, "millrace:copy", NAPI_AUTO_LENGTH, &name);
  napi_create_async_work(
      env, nullptr, name,
      [](napi_env, void* data) {
        auto* work = static_cast<CopyWork*>(data);
        work->crc = copy_crc32c(work->to, work->from.data, work->from.bytes, work->crc);
      },
      [](napi_env env, napi_status, void* data) {
        std::unique_ptr<CopyWork> work(static_cast<CopyWork*>(data));
        auto found = work->session->writers.find(work->writer);
        if (found != work->session->writers.end() && work->follows && found->second.part_written == work->offset) {
          found->second.crc = work->crc;
          found->second.part_written += work->from.bytes;
        }
        napi_delete_reference(env, work->bytes_reference);
        napi_resolve_deferred(env, work->deferred, nothing(env));
        napi_delete_async_work(env, work->work);
      },
      work, &work->work);
  napi_queue_async_work(env, work->work);
  return promise;
}

// Ends the current part with `bytes` bytes; its checksum is `crc32c`, or is computed where that is negative and
// the writes did not cover it.
uint32_t part_crc(Writer& writer, uint64_t bytes, double given) {
  if (given >= 0) return static_cast<uint32_t>(given);
  if (writer.part_written > bytes) return crc32c(0, writer.part.payload(), bytes);
  return crc32c(writer.crc, writer.part.payload() + writer.part_written, bytes - writer.part_written);
}

// writerEndPart(writer, bytes): false where the ring is full: acked() says when to try again. A part of 0 bytes is
// given back.
napi_value js_writer_end_part(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t bytes;
  if (session == nullptr) return nullptr;
  Writer* writer = find_writer(env, session, arguments[0]);
  if (writer == nullptr || !read_uint(env, arguments[1], &bytes)) return nullptr;
  if (!writer->allocated || bytes > writer->part.capacity_bytes) {
    throw_status(env, Status(Code::kInternal, "there is no part to end"));
    return nullptr;
  }
  ShmClient& shm = *session->shm;
  bool pushed = true;
  if (bytes == 0) {
    shm.cancel(writer->part);
    writer->allocated = false;
  } else if (shm.pushed() - shm.acked() >= limits::kSealRingSlots) {
    pushed = false;
  } else {
    const uint32_t crc = part_crc(*writer, bytes, -1);
    uint64_t position;
    shm.finish(writer->part, EntryKind::kPart, "", bytes, crc);
    pushed = shm.push(writer->part, &position);
    MILLRACE_ASSERT(pushed);
    writer->extents.push_back({writer->part.grant->segment->number, crc, writer->part.payload_offset, bytes});
    writer->parts_crc = crc32c_combine(writer->parts_crc, crc, bytes);
    writer->parts_bytes += bytes;
    writer->allocated = false;
    writer->part.grant.reset();
  }
  napi_value result;
  napi_get_boolean(env, pushed, &result);
  return result;
}

// writerSeal(writer, id, bytes, crc32c or -1, ifAbsent, ifSequence): ends the object. `bytes` are those of the part
// that has not ended (0 where all parts have). 0: not yet, events(kGrants | kAcked) say when to call again;
// 1: reported as request `id`; 2: reported by settle.
napi_value js_writer_seal(napi_env env, napi_callback_info info) {
  size_t count = 6;
  napi_value arguments[6];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t writer_id, id, bytes;
  double crc = -1;
  Condition condition;
  if (session == nullptr) return nullptr;
  Writer* writer = find_writer(env, session, arguments[0]);
  if (writer == nullptr || !read_uint(env, arguments[0], &writer_id) || !read_uint(env, arguments[1], &id) ||
      !read_uint(env, arguments[2], &bytes) || !read_condition(env, arguments[4], arguments[5], &condition)) {
    return nullptr;
  }
  napi_get_value_double(env, arguments[3], &crc);
  ShmClient& shm = *session->shm;
  auto fail = [&](const Status& status) -> napi_value {
    throw_status(env, status);
    return nullptr;
  };
  if (!writer->extents.empty()) {
    if (writer->allocated) return fail(Status(Code::kInternal, "the last part has not ended"));
    if (crc >= 0 && static_cast<uint32_t>(crc) != writer->parts_crc) {
      return fail(Status(Code::kChecksumMismatch, "the object's bytes do not have the checksum given"));
    }
    const ManifestHeader header{writer->parts_bytes, writer->parts_crc, static_cast<uint32_t>(writer->extents.size())};
    const uint64_t manifest_bytes = sizeof(header) + writer->extents.size() * sizeof(ManifestExtent);
    if (Status failed = shm.take_grant_failure(); !failed.ok()) return fail(failed);
    if (Status failed = session->channel->lost_status(); !failed.ok()) return fail(failed);
    if (!shm.room_for(writer->key.size(), manifest_bytes)) return number(env, 0);
    shm.allocate(shm.current_grant(), writer->key.size(), manifest_bytes, &writer->part);
    std::memcpy(writer->part.payload(), &header, sizeof(header));
    std::memcpy(writer->part.payload() + sizeof(header), writer->extents.data(), manifest_bytes - sizeof(header));
    shm.finish(writer->part, EntryKind::kManifest, writer->key, manifest_bytes, crc32c(0, writer->part.payload(), manifest_bytes));
  } else {
    if (!writer->allocated || bytes > writer->part.capacity_bytes) return fail(Status(Code::kInternal, "there is no part to seal"));
    const bool conditional = condition.if_absent || condition.if_sequence != 0;
    if (!conditional && shm.pushed() - shm.acked() >= limits::kSealRingSlots) {
      shm.kick();
      shm.request_ack_wake(shm.pushed() - limits::kSealRingSlots / 2);
      return number(env, 0);
    }
    shm.finish(writer->part, EntryKind::kObject, writer->key, bytes, part_crc(*writer, bytes, crc));
    if (!conditional) {
      Session::TrackedPut put{0, writer->part};
      const bool pushed = shm.push(writer->part, &put.position);
      MILLRACE_ASSERT(pushed);
      session->tracked.push_back(std::move(put));
      session->expect(1);
      session->writers.erase(static_cast<uint32_t>(writer_id));
      return number(env, 2);
    }
  }
  // Over the socket: the daemon drains the ring first, so all parts are sealed by then.
  wire::SealRequest body{};
  body.if_sequence = condition.if_sequence;
  body.segment = writer->part.grant->segment->number;
  body.entry_unit = static_cast<uint32_t>(writer->part.entry_offset / limits::kEntryAlignment);
  body.if_absent = condition.if_absent;
  napi_value submitted = submit(env, session, Channel::Request{Opcode::kSeal, &body, sizeof(body)}, id);
  session->channel->flush();
  session->writers.erase(static_cast<uint32_t>(writer_id));
  return submitted == nullptr ? nullptr : number(env, 1);
}

// writerAbort(writer)
napi_value js_writer_abort(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id;
  if (session == nullptr || !read_uint(env, arguments[0], &id)) return nullptr;
  auto found = session->writers.find(static_cast<uint32_t>(id));
  if (found != session->writers.end()) {
    if (found->second.allocated) session->shm->cancel(found->second.part);
    session->writers.erase(found);
  }
  return nothing(env);
}

// --- life

// expect(change): keeps the event loop alive while JavaScript waits for events
napi_value js_expect(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  int64_t change = 0;
  if (session == nullptr || napi_get_value_int64(env, arguments[0], &change) != napi_ok) return nullptr;
  session->expect(change);
  return nothing(env);
}

// setHandlers(completions, events, forgotten, lost): once. What it returns must be kept for as long as handlers are
// to be called.
napi_value js_set_handlers(napi_env env, napi_callback_info info) {
  size_t count = Session::kHandlers;
  napi_value arguments[Session::kHandlers];
  Session* session = open_session_of(env, info, &count, arguments);
  if (session == nullptr) return nullptr;
  napi_value list;
  napi_create_array_with_length(env, Session::kHandlers, &list);
  for (uint32_t i = 0; i < Session::kHandlers; ++i) {
    napi_valuetype type;
    if (napi_typeof(env, arguments[i], &type) != napi_ok || type != napi_function || session->handlers != nullptr) {
      throw_status(env, Status(Code::kInvalidArgument, "handlers are four functions, set once"));
      return nullptr;
    }
    napi_set_element(env, list, i, arguments[i]);
  }
  napi_create_reference(env, list, session->referenced ? 1 : 0, &session->handlers);
  return list;
}

void cleanup_environment(void* data);

// close(): views of segments become empty. Once only.
napi_value js_close(napi_env env, napi_callback_info info) {
  size_t count = 0;
  Session* session = open_session_of(env, info, &count, nullptr);
  if (session == nullptr) return nullptr;
  session->detach_windows();
  session->close();
  if (session->handlers != nullptr) napi_delete_reference(env, session->handlers);
  session->handlers = nullptr;
  napi_remove_env_cleanup_hook(env, cleanup_environment, session);
  return nothing(env);
}

// A worker thread that ends without closing: its JavaScript is gone already.
void cleanup_environment(void* data) {
  auto* session = static_cast<Session*>(data);
  {
    std::lock_guard lock(session->mutex);
    session->tsfn = nullptr;  // finalized with the environment
  }
  session->close();
}

// The safety net: the last function was collected and nobody has closed the session.
Session::~Session() {
  if (!closed) {
    napi_remove_env_cleanup_hook(env, cleanup_environment, this);
    close();
  }
  // Views may live on; their finalizers delete what stands behind them.
  for (auto& [window, owner] : windows) owner.release();
}

void free_function(napi_env, void* data, void*) { delete static_cast<std::shared_ptr<Session>*>(data); }

napi_value make_handle(napi_env env, const std::shared_ptr<Session>& session) {
  napi_value handle;
  napi_create_object(env, &handle);
  const auto add = [&](const char* name, napi_callback callback) {
    auto* holder = new std::shared_ptr<Session>(session);
    napi_value function;
    napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, holder, &function);
    napi_add_finalizer(env, function, holder, free_function, nullptr, nullptr);
    napi_set_named_property(env, handle, name, function);
  };
  add("setHandlers", js_set_handlers);
  add("expect", js_expect);
  add("close", js_close);
  add("put", js_put);
  add("get", js_get);
  add("head", js_head);
  add("remove", js_remove);
  add("copy", js_copy);
  add("list", js_list);
  add("begin", js_begin);
  add("append", js_append);
  add("commit", js_commit);
  add("abort", js_abort);
  add("flush", js_flush);
  if (session->shm) {
    add("locate", js_locate);
    add("locateExtents", js_locate_extents);
    add("window", js_window);
  add("span", js_span);
    add("pushPut", js_push_put);
    add("room", js_room);
    add("acked", js_acked);
    add("pushed", js_pushed);
    add("settle", js_settle);
    add("openWriter", js_open_writer);
    add("writerAllocate", js_writer_allocate);
    add("writerCopy", js_writer_copy);
    add("writerEndPart", js_writer_end_part);
    add("writerSeal", js_writer_seal);
    add("writerAbort", js_writer_abort);
  }
  const auto add_numbers = [&](const char* name, size_t length, double** data, napi_ref* reference) {
    napi_value buffer, array;
    void* memory = nullptr;
    napi_create_arraybuffer(env, length * sizeof(double), &memory, &buffer);
    napi_create_typedarray(env, napi_float64_array, length, buffer, 0, &array);
    napi_create_reference(env, buffer, 1, reference);
    napi_set_named_property(env, handle, name, array);
    *data = static_cast<double*>(memory);
  };
  add_numbers("numbers", kBatchRows * kRowNumbers, &session->numbers, &session->numbers_reference);
  add_numbers("out", kOutNumbers, &session->out, &session->out_reference);
  const auto add_text = [&](const char* name, const std::string& text) {
    napi_value value;
    napi_create_string_utf8(env, text.data(), text.size(), &value);
    napi_set_named_property(env, handle, name, value);
  };
  add_text("kind", session->shm ? "shm" : "tcp");
  add_text("nodeId", session->greeting.node_id);
  add_text("grpcAddress", session->greeting.grpc_address);
  const auto add_number = [&](const char* name, uint64_t value) {
    napi_set_named_property(env, handle, name, number(env, static_cast<double>(value)));
  };
  add_number("sharedEntryBytesMax", ShmClient::kSharedEntryBytesMax);
  add_number("contiguousBytesMax", ShmClient::kContiguousBytesMax);
  add_number("partBytes", ShmClient::kPartBytes);
  add_number("copiedPayloadBytesMax", Channel::Request::kCopiedPayloadBytesMax);
  return handle;
}

class OpenWorker final : public Napi::AsyncWorker {
 public:
  OpenWorker(Napi::Env env, ChannelOptions options)
      : AsyncWorker(env, "millrace:openSession"), deferred_(env), options_(std::move(options)),
        session_(std::make_shared<Session>()) {
    session_->closed = true;  // until it is open
  }
  Napi::Promise promise() { return deferred_.Promise(); }

 protected:
  void Execute() override {
    auto channel = Channel::connect(options_, &session_->greeting);
    if (!channel.ok()) {
      status_ = channel.status();
      return;
    }
    session_->channel = *channel;
    if (options_.socket_path.empty()) {
      session_->channel->set_events(session_.get());
      return;
    }
    ServerGreeting greeting = session_->greeting;
    session_->greeting.descriptors.clear();
    auto shm = ShmClient::create(*channel, std::move(greeting), session_.get());
    if (!shm.ok()) {
      status_ = shm.status();
      return;
    }
    session_->shm = std::move(*shm);
  }

  void OnOK() override {
    Napi::Env env = Env();
    if (!status_.ok()) {
      deferred_.Reject(to_error(env, status_).Value());
      return;
    }
    Session* session = session_.get();
    session->env = env;
    session->closed = false;
    napi_value name;
    napi_create_string_utf8(env, "millrace:session", NAPI_AUTO_LENGTH, &name);
    // The function's data keeps the session until the function is finalized.
    auto* holder = new std::weak_ptr<Session>(session_);
    napi_create_threadsafe_function(
        env, nullptr, nullptr, name, 0, 1, holder,
        [](napi_env, void* data, void*) { delete static_cast<std::weak_ptr<Session>*>(data); }, holder,
        [](napi_env env, napi_value, void* context, void*) {
          if (env == nullptr) return;
          if (auto session = static_cast<std::weak_ptr<Session>*>(context)->lock()) session->deliver();
        },
        &session->tsfn);
    napi_unref_threadsafe_function(env, session->tsfn);
    if (session->shm) {
      session->shm->on_forget([session](uint32_t number) { session->forgotten.push_back(number); });
    }
    session->channel->start_thread(session->shm ? "millrace-shm" : "millrace-tcp");
    napi_add_env_cleanup_hook(env, cleanup_environment, session);
    deferred_.Resolve(Napi::Value(env, make_handle(env, session_)));
  }

 private:
  Napi::Promise::Deferred deferred_;
  ChannelOptions options_;
  std::shared_ptr<Session> session_;
  Status status_;
};

}  // namespace

Napi::Value open_session(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsObject()) throw bad_argument(env, "openSession takes one object of options");
  auto given = info[0].As<Napi::Object>();
  ChannelOptions options;
  Napi::Value socket_path = given.Get("socketPath");
  if (!socket_path.IsNull()) options.socket_path = to_text(socket_path);
  if (options.socket_path.empty()) {
    options.host = to_text(given.Get("host"));
    const uint64_t port = to_uint(given.Get("port"));
    if (options.host.empty() || port == 0 || port > 65535) throw bad_argument(env, "a host and a port from 1 to 65535 are wanted");
    options.port = static_cast<uint16_t>(port);
  }
  options.namespace_name = to_text(given.Get("namespace"));
  const ConstSpan token = to_bytes(given.Get("token"));
  if (token.bytes != options.token.size()) throw bad_argument(env, "a token has 16 bytes");
  std::memcpy(options.token.data(), token.data, token.bytes);
  options.timeout_ms = static_cast<uint32_t>(std::clamp<uint64_t>(to_uint(given.Get("timeoutMs")), 1, 1u << 30));
  auto* worker = new OpenWorker(env, std::move(options));
  Napi::Promise promise = worker->promise();
  worker->Queue();
  return promise;
}

void register_session(Napi::Env env, Napi::Object exports) {
  exports.Set("openSession", Napi::Function::New(env, open_session, "openSession"));
}

}  // namespace millrace::binding
