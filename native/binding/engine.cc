#include "binding/engine.h"

#include <mutex>
#include <optional>
#include <unordered_map>

#include "binding/convert.h"
#include "binding/draft_handle.h"
#include "binding/instance.h"
#include "binding/reader_handle.h"
#include "store/store.h"
#include "transport/server.h"

namespace millrace::binding {

namespace {

std::optional<Door> door_named(const std::string& name) {
  if (name == "shm") return Door::kShm;
  if (name == "tcp") return Door::kTcp;
  if (name == "grpc") return Door::kGrpc;
  if (name == "s3") return Door::kS3;
  return std::nullopt;
}
constexpr const char* kDoorNames[] = {"shm", "tcp", "grpc", "s3"};
static_assert(std::size(kDoorNames) == static_cast<size_t>(Door::kCount));

// Events of one watcher on their way to JavaScript: any number of them, one call.
class Watch {
 public:
  Watch(Napi::Env env, Napi::Function callback)
      : deliver_(Deliver::New(env, callback, "millrace watch", 0, 1, this, [](Napi::Env, void*, Watch*) {})) {
    deliver_.Unref(env);
  }
  void push(const WatchedEvent& event) {
    bool first;
    {
      std::lock_guard lock(mutex_);
      first = events_.empty();
      events_.push_back(event);
    }
    if (first) deliver_.NonBlockingCall(this);
  }
  void close() { deliver_.Abort(); }

 private:
  static void call(Napi::Env env, Napi::Function callback, Watch* context, Watch*) {
    if (env == nullptr) return;
    std::vector<WatchedEvent> events;
    {
      std::lock_guard lock(context->mutex_);
      events.swap(context->events_);
    }
    Napi::Array batch = Napi::Array::New(env, events.size());
    for (size_t i = 0; i < events.size(); ++i) {
      Napi::Object event = Napi::Object::New(env);
      event.Set("deleted", events[i].deleted);
      event.Set("key", Napi::Buffer<char>::Copy(env, events[i].key.data(), events[i].key.size()));
      event.Set("info", from_info(env, events[i].info));
      batch.Set(static_cast<uint32_t>(i), event);
    }
    callback.Call({batch});
  }
  using Deliver = Napi::TypedThreadSafeFunction<Watch, Watch, &Watch::call>;
  std::mutex mutex_;
  std::vector<WatchedEvent> events_;
  Deliver deliver_;
};

class Engine : public Napi::ObjectWrap<Engine> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit Engine(const Napi::CallbackInfo& info);
  ~Engine() override { shut(); }

 private:
  Napi::Value listen(const Napi::CallbackInfo& info);
  Napi::Value set_grpc_address(const Napi::CallbackInfo& info);
  Napi::Value create_namespace(const Napi::CallbackInfo& info);
  Napi::Value drop_namespace(const Napi::CallbackInfo& info);
  Napi::Value namespace_stats(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value head(const Napi::CallbackInfo& info);
  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value begin(const Napi::CallbackInfo& info);
  Napi::Value remove(const Napi::CallbackInfo& info);
  Napi::Value copy(const Napi::CallbackInfo& info);
  Napi::Value list(const Napi::CallbackInfo& info);
  Napi::Value count(const Napi::CallbackInfo& info);
  Napi::Value watch(const Napi::CallbackInfo& info);
  Napi::Value unwatch(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<Namespace> namespace_of(Napi::Value name) const;
  void shut();

  std::unique_ptr<Store> store_;
  std::unique_ptr<Server> server_;
  struct Watched {
    std::shared_ptr<Namespace> ns;
    uint64_t id;  // of the namespace
    std::unique_ptr<Watch> watch;
  };
  std::unordered_map<uint64_t, Watched> watches_;  // by an id of ours
  uint64_t next_watch_ = 1;
};

Napi::Function Engine::define(Napi::Env env) {
  return DefineClass(
      env, "Engine",
      {InstanceMethod<&Engine::listen>("listen"), InstanceMethod<&Engine::set_grpc_address>("setGrpcAddress"),
       InstanceMethod<&Engine::create_namespace>("createNamespace"),
       InstanceMethod<&Engine::drop_namespace>("dropNamespace"),
       InstanceMethod<&Engine::namespace_stats>("namespaceStats"), InstanceMethod<&Engine::stats>("stats"),
       InstanceMethod<&Engine::head>("head"), InstanceMethod<&Engine::open>("open"),
       InstanceMethod<&Engine::begin>("begin"), InstanceMethod<&Engine::remove>("remove"),
       InstanceMethod<&Engine::copy>("copy"), InstanceMethod<&Engine::list>("list"),
       InstanceMethod<&Engine::count>("count"), InstanceMethod<&Engine::watch>("watch"),
       InstanceMethod<&Engine::unwatch>("unwatch"), InstanceMethod<&Engine::close>("close")});
}

Engine::Engine(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Engine>(info) {
  if (!info[0].IsObject()) throw bad_argument(info.Env(), "an engine takes its options");
  auto options = info[0].As<Napi::Object>();
  Store::Options store;
  store.dram.limit_bytes = to_uint(options.Get("dramBytes"));
  if (store.dram.limit_bytes < limits::kSegmentBytesMin) throw bad_argument(info.Env(), "dram is at least 1 MiB");
  const std::string huge_pages = to_text(options.Get("hugePages"));
  if (huge_pages == "reserve") store.dram.huge_pages = HugePages::kReserve;
  else if (huge_pages == "off") store.dram.huge_pages = HugePages::kOff;
  else if (huge_pages != "auto") throw bad_argument(info.Env(), "hugePages is auto, reserve or off");

  ServerOptions server;
  if (options.Get("socketPath").IsString()) server.socket_path = to_text(options.Get("socketPath"));
  if (options.Get("dataHost").IsString()) server.data_host = to_text(options.Get("dataHost"));
  const uint64_t port = to_uint(options.Get("dataPort"));
  if (port > 65535) throw bad_argument(info.Env(), "a port is at most 65535");
  server.data_port = static_cast<uint16_t>(port);
  const uint64_t threads = to_uint(options.Get("ioThreads"));
  if (threads < 1 || threads > 64) throw bad_argument(info.Env(), "ioThreads is 1 to 64");
  server.io_threads = static_cast<uint32_t>(threads);
  server.node_id = to_text(options.Get("nodeId"));
  store_ = std::make_unique<Store>(store);
  server_ = std::make_unique<Server>(*store_, std::move(server));
}

void Engine::shut() {
  if (server_) server_->stop();
  for (auto& [id, watched] : watches_) {
    watched.ns->unwatch(watched.id);
    watched.watch->close();
  }
  watches_.clear();
  server_.reset();
  store_.reset();
}

std::shared_ptr<Namespace> Engine::namespace_of(Napi::Value value) const {
  if (!store_) throw to_error(value.Env(), Status(Code::kClosed, "the engine is closed"));
  const std::string name = to_text(value);
  auto ns = store_->find(name);
  if (!ns) throw to_error(value.Env(), Status(Code::kNamespaceGone, "no namespace '" + name + "' on this node"));
  return ns;
}

Napi::Value Engine::listen(const Napi::CallbackInfo& info) {
  if (!server_) throw to_error(info.Env(), Status(Code::kClosed, "the engine is closed"));
  check(info.Env(), server_->start());
  Napi::Object addresses = Napi::Object::New(info.Env());
  addresses.Set("socketPath", server_->socket_path());
  addresses.Set("dataAddress", server_->data_address());
  return addresses;
}

Napi::Value Engine::set_grpc_address(const Napi::CallbackInfo& info) {
  if (!server_) throw to_error(info.Env(), Status(Code::kClosed, "the engine is closed"));
  server_->set_grpc_address(to_text(info[0]));
  return info.Env().Null();
}

Napi::Value Engine::create_namespace(const Napi::CallbackInfo& info) {
  if (!store_) throw to_error(info.Env(), Status(Code::kClosed, "the engine is closed"));
  const ConstSpan token = to_bytes(info[1]);
  NamespaceOptions options;
  if (token.bytes != options.token.size()) throw bad_argument(info.Env(), "a token has 16 bytes");
  std::memcpy(options.token.data(), token.data, token.bytes);
  if (!info[2].IsObject()) throw bad_argument(info.Env(), "limits are an object");
  auto limits = info[2].As<Napi::Object>();
  options.limit_bytes = to_uint(limits.Get("limitBytes"));
  options.dram_limit_bytes = to_uint(limits.Get("dramLimitBytes"));
  options.expected_bytes = to_uint(limits.Get("expectedBytes"));
  options.bandwidth_bytes_per_second = to_uint(limits.Get("bandwidthBytesPerSecond"));
  check(info.Env(), store_->create(to_text(info[0]), options).status());
  return info.Env().Null();
}

Napi::Value Engine::drop_namespace(const Napi::CallbackInfo& info) {
  if (!store_) throw to_error(info.Env(), Status(Code::kClosed, "the engine is closed"));
  check(info.Env(), store_->drop(to_text(info[0])));
  return info.Env().Null();
}

Napi::Value Engine::namespace_stats(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto ns = namespace_of(info[0]);
  const NamespaceStats stats = ns->stats();
  Napi::Object object = Napi::Object::New(env);
  object.Set("objects", static_cast<double>(stats.objects));
  object.Set("sizeBytes", static_cast<double>(stats.size_bytes));
  object.Set("segmentBytes", static_cast<double>(stats.segment_bytes));
  object.Set("deadBytes", static_cast<double>(stats.dead_bytes));
  object.Set("heldBytes", static_cast<double>(stats.held_bytes));
  object.Set("indexBytes", static_cast<double>(stats.index_bytes));
  object.Set("peakBytes", static_cast<double>(stats.peak_bytes));
  object.Set("segments", static_cast<double>(stats.segments));
  object.Set("sealedTotal", static_cast<double>(stats.sealed_total));
  object.Set("dramByteSeconds", stats.dram_byte_seconds);
  Napi::Object traffic = Napi::Object::New(env);
  for (size_t door = 0; door < std::size(kDoorNames); ++door) {
    const Traffic seen = ns->traffic(static_cast<Door>(door));
    Napi::Object one = Napi::Object::New(env);
    one.Set("bytesIn", static_cast<double>(seen.bytes_in));
    one.Set("bytesOut", static_cast<double>(seen.bytes_out));
    one.Set("operations", static_cast<double>(seen.operations));
    traffic.Set(kDoorNames[door], one);
  }
  object.Set("traffic", traffic);
  return object;
}

Napi::Value Engine::stats(const Napi::CallbackInfo& info) {
  if (!store_) throw to_error(info.Env(), Status(Code::kClosed, "the engine is closed"));
  const DramTier::Stats dram = store_->dram_stats();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("dramLimitBytes", static_cast<double>(dram.limit_bytes));
  object.Set("dramUsedBytes", static_cast<double>(dram.used_bytes));
  object.Set("dramSpareBytes", static_cast<double>(dram.spare_bytes));
  object.Set("hugePageBytes", static_cast<double>(dram.huge_bytes));
  object.Set("heldBytes", static_cast<double>(store_->held_bytes()));
  object.Set("sessions", static_cast<double>(server_->sessions()));
  return object;
}

Napi::Value Engine::head(const Napi::CallbackInfo& info) {
  auto found = namespace_of(info[0])->head(to_key(info[1]));
  if (found.code() == Code::kNotFound) return info.Env().Null();
  check(info.Env(), found.status());
  return from_info(info.Env(), *found);
}

Napi::Value Engine::open(const Napi::CallbackInfo& info) {
  auto view = namespace_of(info[0])->get(to_key(info[1]), to_uint(info[2]), to_uint(info[3]));
  if (view.code() == Code::kNotFound) return info.Env().Null();
  check(info.Env(), view.status());
  Napi::Object handle = Instance::of(info.Env()).reader_class.New({});
  ReaderHandle::Unwrap(handle)->open(std::move(*view));
  return handle;
}

Napi::Value Engine::begin(const Napi::CallbackInfo& info) {
  auto ns = namespace_of(info[0]);
  const int64_t size = info[2].IsNumber() && info[2].As<Napi::Number>().DoubleValue() == -1
                           ? -1
                           : static_cast<int64_t>(to_uint(info[2]));
  if (size > static_cast<int64_t>(limits::kObjectBytesMax)) {
    throw to_error(info.Env(), Status(Code::kObjectTooLarge,
                                      "an object has at most " + std::to_string(limits::kObjectBytesMax) + " bytes"));
  }
  auto draft = ns->begin(to_key(info[1]));
  check(info.Env(), draft.status());
  Napi::Object handle = Instance::of(info.Env()).draft_class.New({});
  DraftHandle::Unwrap(handle)->open(std::move(ns), std::move(*draft), size);
  return handle;
}

Napi::Value Engine::remove(const Napi::CallbackInfo& info) {
  auto removed = namespace_of(info[0])->remove(to_key(info[1]), to_condition(info[2]));
  check(info.Env(), removed.status());
  return Napi::Boolean::New(info.Env(), *removed);
}

Napi::Value Engine::copy(const Napi::CallbackInfo& info) {
  auto copied = namespace_of(info[0])->copy(to_key(info[1]), *namespace_of(info[2]), to_key(info[3]), to_condition(info[4]));
  check(info.Env(), copied.status());
  return from_info(info.Env(), *copied);
}

Napi::Value Engine::list(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  auto page = namespace_of(info[0])->list(to_key(info[1]), to_key(info[2]), static_cast<uint32_t>(std::min<uint64_t>(to_uint(info[3]), limits::kListPageMax)));
  check(env, page.status());
  Napi::Array objects = Napi::Array::New(env, page->objects.size());
  for (size_t i = 0; i < page->objects.size(); ++i) {
    const ListedObject& listed = page->objects[i];
    Napi::Object object = from_info(env, listed.info);
    object.Set("key", Napi::Buffer<char>::Copy(env, listed.key.data(), listed.key.size()));
    objects.Set(static_cast<uint32_t>(i), object);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("objects", objects);
  result.Set("truncated", page->truncated);
  return result;
}

Napi::Value Engine::count(const Napi::CallbackInfo& info) {
  auto ns = namespace_of(info[0]);
  const auto door = door_named(to_text(info[1]));
  if (!door) throw bad_argument(info.Env(), "no such door");
  ns->count(*door, to_uint(info[2]), to_uint(info[3]), to_uint(info[4]));
  return info.Env().Null();
}

Napi::Value Engine::watch(const Napi::CallbackInfo& info) {
  auto ns = namespace_of(info[0]);
  if (!info[2].IsFunction()) throw bad_argument(info.Env(), "a watch takes a function");
  auto watch = std::make_unique<Watch>(info.Env(), info[2].As<Napi::Function>());
  const uint64_t id = next_watch_++;
  const uint64_t of_namespace = ns->watch(to_key(info[1]), [to = watch.get()](const WatchedEvent& event) { to->push(event); });
  watches_.emplace(id, Watched{std::move(ns), of_namespace, std::move(watch)});
  return Napi::Number::New(info.Env(), static_cast<double>(id));
}

Napi::Value Engine::unwatch(const Napi::CallbackInfo& info) {
  auto found = watches_.find(to_uint(info[1]));
  if (found == watches_.end()) return info.Env().Null();
  found->second.ns->unwatch(found->second.id);
  found->second.watch->close();
  watches_.erase(found);
  return info.Env().Null();
}

Napi::Value Engine::close(const Napi::CallbackInfo& info) {
  shut();
  return info.Env().Null();
}

}  // namespace

void register_engine(Napi::Env env, Napi::Object exports) {
  Instance::of(env).draft_class = Napi::Persistent(DraftHandle::define(env));
  Instance::of(env).reader_class = Napi::Persistent(ReaderHandle::define(env));
  exports.Set("Engine", Engine::define(env));
}

}  // namespace millrace::binding
