// The session behind a handle, and what its calls share: arguments, results, errors. Internal to session*.cc.
#pragma once
#include <napi.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "store/store.h"
#include "transport/client.h"
#include "transport/shm/shm_client.h"

namespace millrace::binding {

constexpr size_t kRowNumbers = 8;
constexpr size_t kBatchRows = 256;
constexpr size_t kOutNumbers = 4 * 256;

enum Event : uint32_t { kGrants = 1, kAcked = 2 };

struct Session;

struct Window {
  std::shared_ptr<Mapping> mapping;
  napi_ref reference = nullptr;  // weak: to detach it at close
  std::weak_ptr<Session> session;
};

struct Completion {
  double id;
  wire::Opcode opcode;
  Code code;
  double numbers[4] = {0, 0, 0, 0};
  std::string message;   // of an error
  size_t small_offset = 0;  // in the batch's arena
  uint64_t payload_bytes = 0;
  bool small = false;
  std::shared_ptr<void> keeper;  // of a payload that is not small
  uint8_t* data = nullptr;
  bool span = false;  // the payload goes to JavaScript as a span
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
  Status closed_why{Code::kClosed, "the transport is closed"};  // what calls fail with from then on
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
  std::unordered_map<uint32_t, std::shared_ptr<HeldObject>> held;  // versions that are read piece by piece
  uint32_t next_held = 1;
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
  // The end of a read of files, from a thread of the reader's.
  void on_read(double id, const ObjectInfo& info, bool span, Result<FileBytes> result);
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

inline void throw_status(napi_env env, const Status& status) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) napi_throw_error(env, code_name(status.code()), status.message().c_str());
}

// --- arguments

// The session behind a call; null with an exception pending where it is closed.
inline Session* open_session_of(napi_env env, napi_callback_info info, size_t* count, napi_value* arguments) {
  void* data = nullptr;
  napi_get_cb_info(env, info, count, arguments, nullptr, &data);
  auto* session = static_cast<std::shared_ptr<Session>*>(data)->get();
  if (__builtin_expect(session->closed, 0)) {
    throw_status(env, session->closed_why);
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

inline bool read_bytes(napi_env env, napi_value value, ConstSpan* bytes) {
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

inline bool read_uint(napi_env env, napi_value value, uint64_t* number) {
  double given = -1;
  if (napi_get_value_double(env, value, &given) != napi_ok || !(given >= 0 && given <= 9007199254740992.0) ||
      given != static_cast<double>(static_cast<uint64_t>(given))) {
    throw_status(env, Status(Code::kInvalidArgument, "a whole number from 0 to 2^53 is wanted here"));
    return false;
  }
  *number = static_cast<uint64_t>(given);
  return true;
}

inline bool read_condition(napi_env env, napi_value absent, napi_value sequence, Condition* condition) {
  if (napi_get_value_bool(env, absent, &condition->if_absent) != napi_ok) {
    throw_status(env, Status(Code::kInvalidArgument, "ifAbsent is a boolean"));
    return false;
  }
  return read_uint(env, sequence, &condition->if_sequence);
}

inline napi_value number(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}
inline napi_value nothing(napi_env env) {
  napi_value result;
  napi_get_null(env, &result);
  return result;
}

inline napi_value submit(napi_env env, Session* session, Channel::Request request, uint64_t id, uint64_t* wire_id = nullptr) {
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

// --- the calls of a handle, each group in a file of its own

using AddCall = std::function<void(const char* name, napi_callback callback)>;
void add_requests(const AddCall& add);  // session_requests.cc
void add_reads(const AddCall& add);     // session_reads.cc; these and the following over shared memory only
void add_puts(const AddCall& add);      // session_puts.cc
void add_writers(const AddCall& add);   // session_writers.cc

}  // namespace millrace::binding
