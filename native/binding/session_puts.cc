// Small puts through shared memory: pushed into the ring without a system call, settled once acknowledged.
#include <chrono>

#include "binding/session_state.h"

namespace millrace::binding {

namespace {

// Longer than a daemon that sleeps takes to wake (up to 120 us across cores). A client that gives up earlier goes
// to sleep itself, then the daemon polls in vain, stops polling, and each batch pays two wakes from then on.
constexpr uint32_t kSettleSpinMicroseconds = 150;
constexpr uint32_t kGrantWaitMs = 50;  // of an enqueued put: back-pressure, before it is queued in JavaScript

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

}  // namespace

void add_puts(const AddCall& add) {
  add("pushPut", js_push_put);
  add("room", js_room);
  add("acked", js_acked);
  add("pushed", js_pushed);
  add("settle", js_settle);
}

}  // namespace millrace::binding
