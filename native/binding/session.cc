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

#include <algorithm>
#include <string>

#include "binding/convert.h"
#include "binding/promise_work.h"
#include "binding/session_state.h"
#include "transport/client.h"
#include "transport/shm/shm_client.h"

namespace millrace::binding {

void Session::close() {
  if (closed) return;
  closed = true;
  tracked.clear();
  writers.clear();
  held.clear();
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

namespace {

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

void close_session(napi_env env, Session* session) {
  if (session->closed) return;
  session->close();
  if (session->handlers != nullptr) napi_delete_reference(env, session->handlers);
  session->handlers = nullptr;
  napi_remove_env_cleanup_hook(env, cleanup_environment, session);
}

// release(): for a connection that was lost: lets go of all but the views that are out. Calls fail as it did.
napi_value js_release(napi_env env, napi_callback_info info) {
  size_t count = 0;
  Session* session = open_session_of(env, info, &count, nullptr);
  if (session == nullptr) return nullptr;
  if (Status lost = session->channel->lost_status(); !lost.ok()) session->closed_why = std::move(lost);
  close_session(env, session);
  return nothing(env);
}

// close(): views of segments become empty.
napi_value js_close(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data);
  Session* session = static_cast<std::shared_ptr<Session>*>(data)->get();
  session->detach_windows();
  session->closed_why = Status(Code::kClosed, "the transport is closed");
  close_session(env, session);
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

}  // namespace

// The safety net: the last function was collected and nobody has closed the session.
Session::~Session() {
  if (!closed) {
    napi_remove_env_cleanup_hook(env, cleanup_environment, this);
    close();
  }
  // Views may live on; their finalizers delete what stands behind them.
  for (auto& [window, owner] : windows) owner.release();
}

namespace {

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
  add("release", js_release);
  add("close", js_close);
  add_requests(add);
  if (session->shm) {
    add_reads(add);
    add_puts(add);
    add_writers(add);
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

// Away from JavaScript: connecting waits for the daemon.
Status connect(const ChannelOptions& options, Session& session) {
  auto channel = Channel::connect(options, &session.greeting);
  if (!channel.ok()) return channel.status();
  session.channel = *channel;
  if (options.socket_path.empty()) {
    session.channel->set_events(&session);
    return Status();
  }
  ServerGreeting greeting = session.greeting;
  session.greeting.descriptors.clear();
  auto shm = ShmClient::create(*channel, std::move(greeting), &session);
  if (!shm.ok()) return shm.status();
  session.shm = std::move(*shm);
  return Status();
}

// Opens a session that is connected.
Napi::Value begin(Napi::Env env, const std::shared_ptr<Session>& opened) {
  Session* session = opened.get();
  session->env = env;
  session->closed = false;
  napi_value name;
  napi_create_string_utf8(env, "millrace:session", NAPI_AUTO_LENGTH, &name);
  // The function's data keeps the session until the function is finalized.
  auto* holder = new std::weak_ptr<Session>(opened);
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
  return Napi::Value(env, make_handle(env, opened));
}

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
  options.token = to_token(given.Get("token"));
  options.timeout_ms = static_cast<uint32_t>(std::clamp<uint64_t>(to_uint(given.Get("timeoutMs")), 1, 1u << 30));
  auto session = std::make_shared<Session>();
  session->closed = true;  // until it is open
  return (new PromiseWork(env))
      ->start([options, session] { return connect(options, *session); },
              [session](Napi::Env env) { return begin(env, session); });
}

void register_session(Napi::Env env, Napi::Object exports) {
  exports.Set("openSession", Napi::Function::New(env, open_session, "openSession"));
}

}  // namespace millrace::binding
