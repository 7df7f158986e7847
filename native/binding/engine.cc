#include "binding/engine.h"

#include <mutex>
#include <optional>
#include <unordered_map>

#include "binding/convert.h"
#include "binding/draft_handle.h"
#include "binding/instance.h"
#include "binding/promise_work.h"
#include "binding/reader_handle.h"
#include "binding/scrub.h"
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
  Napi::Value recover_namespace(const Napi::CallbackInfo& info);
  Napi::Value remove_orphans(const Napi::CallbackInfo& info);
  Napi::Value drop_namespace(const Napi::CallbackInfo& info);
  Napi::Value admit(const Napi::CallbackInfo& info);
  Napi::Value namespace_stats(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value head(const Napi::CallbackInfo& info);
  Napi::Value describe(const Napi::CallbackInfo& info);
  Napi::Value open(const Napi::CallbackInfo& info);
  Napi::Value begin(const Napi::CallbackInfo& info);
  Napi::Value remove(const Napi::CallbackInfo& info);
  Napi::Value copy(const Napi::CallbackInfo& info);
  Napi::Value join(const Napi::CallbackInfo& info);
  Napi::Value list(const Napi::CallbackInfo& info);
  Napi::Value count(const Napi::CallbackInfo& info);
  Napi::Value set_partitions(const Napi::CallbackInfo& info);
  Napi::Value verify_objects(const Napi::CallbackInfo& info);
  Napi::Value watch(const Napi::CallbackInfo& info);
  Napi::Value unwatch(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  static NamespaceOptions to_namespace_options(Napi::Value token, Napi::Value limits);
  // Throws CLOSED where there is none any more.
  Store& store(Napi::Env env) const;
  std::shared_ptr<Namespace> namespace_of(Napi::Value name) const;
  void shut();

  std::unique_ptr<Store> store_;
  std::unique_ptr<Server> server_;
  Scrubs scrubs_;
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
       InstanceMethod<&Engine::recover_namespace>("recoverNamespace"),
       InstanceMethod<&Engine::remove_orphans>("removeOrphans"),
       InstanceMethod<&Engine::drop_namespace>("dropNamespace"),
       InstanceMethod<&Engine::admit>("admit"),
       InstanceMethod<&Engine::namespace_stats>("namespaceStats"), InstanceMethod<&Engine::stats>("stats"),
       InstanceMethod<&Engine::head>("head"), InstanceMethod<&Engine::describe>("describe"),
       InstanceMethod<&Engine::open>("open"),
       InstanceMethod<&Engine::begin>("begin"), InstanceMethod<&Engine::remove>("remove"),
       InstanceMethod<&Engine::copy>("copy"), InstanceMethod<&Engine::join>("join"),
       InstanceMethod<&Engine::list>("list"),
       InstanceMethod<&Engine::count>("count"),
       InstanceMethod<&Engine::set_partitions>("setPartitions"),
       InstanceMethod<&Engine::verify_objects>("verifyObjects"), InstanceMethod<&Engine::watch>("watch"),
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
  if (!options.Get("nvme").IsArray()) throw bad_argument(info.Env(), "nvme is a list of directories");
  auto directories = options.Get("nvme").As<Napi::Array>();
  for (uint32_t i = 0; i < directories.Length(); ++i) {
    const Napi::Value directory = directories.Get(i);
    if (!directory.IsObject()) throw bad_argument(info.Env(), "nvme is a list of directories");
    store.nvme.directories.push_back({to_text(directory.ToObject().Get("path")), to_uint(directory.ToObject().Get("limitBytes"))});
  }
  store.keep = store.nvme.keep = options.Get("keep").ToBoolean().Value();
  store.nvme.node_id = server.node_id;
  if (options.Get("memoryDirectory").IsString()) store.dram.directory = to_text(options.Get("memoryDirectory"));
  if (options.Get("hugeDirectory").IsString()) store.dram.huge_directory = to_text(options.Get("hugeDirectory"));
  store_ = std::make_unique<Store>(store);
  check(info.Env(), store_->open());
  server_ = std::make_unique<Server>(*store_, std::move(server));
}

void Engine::shut() {
  scrubs_.stop();
  if (server_) server_->stop();
  for (auto& [id, watched] : watches_) {
    watched.ns->unwatch(watched.id);
    watched.watch->close();
  }
  watches_.clear();
  server_.reset();
  store_.reset();
}

Store& Engine::store(Napi::Env env) const {
  if (!store_) throw to_error(env, Status(Code::kClosed, "the engine is closed"));
  return *store_;
}

std::shared_ptr<Namespace> Engine::namespace_of(Napi::Value value) const {
  Store& of = store(value.Env());
  const std::string name = to_text(value);
  auto ns = of.find(name);
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

NamespaceOptions Engine::to_namespace_options(Napi::Value token_value, Napi::Value limits_value) {
  NamespaceOptions options;
  options.token = to_token(token_value);
  if (!limits_value.IsObject()) throw bad_argument(token_value.Env(), "limits are an object");
  auto limits = limits_value.As<Napi::Object>();
  options.limit_bytes = to_uint(limits.Get("limitBytes"));
  options.dram_limit_bytes = to_uint(limits.Get("dramLimitBytes"));
  options.expected_bytes = to_uint(limits.Get("expectedBytes"));
  options.bandwidth_bytes_per_second = to_uint(limits.Get("bandwidthBytesPerSecond"));
  const std::string hint = to_text(limits.Get("hint"));
  if (hint == "capacity") options.hint = Hint::kCapacity;
  else if (hint == "latency") options.hint = Hint::kLatency;
  else if (hint != "throughput") throw bad_argument(token_value.Env(), "hint is capacity, throughput or latency");
  return options;
}

Napi::Value Engine::create_namespace(const Napi::CallbackInfo& info) {
  check(info.Env(), store(info.Env()).create(to_text(info[0]), to_namespace_options(info[1], info[2])).status());
  return info.Env().Null();
}

Napi::Value Engine::recover_namespace(const Napi::CallbackInfo& info) {
  auto recovered = store(info.Env()).recover(to_text(info[0]), to_namespace_options(info[1], info[2]));
  check(info.Env(), recovered.status());
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("objects", static_cast<double>(recovered->objects));
  result.Set("torn", static_cast<double>(recovered->torn));
  return result;
}

Napi::Value Engine::remove_orphans(const Napi::CallbackInfo& info) {
  store(info.Env()).remove_orphans();
  return info.Env().Null();
}

Napi::Value Engine::drop_namespace(const Napi::CallbackInfo& info) {
  check(info.Env(), store(info.Env()).drop(to_text(info[0])));
  return info.Env().Null();
}

Napi::Value Engine::admit(const Napi::CallbackInfo& info) {
  const Pass pass{to_uint(info[2]), info[3].ToBoolean().Value()};
  if (!pass.expires()) throw bad_argument(info.Env(), "a pass expires");
  check(info.Env(), namespace_of(info[0])->admit(to_token(info[1]), pass));
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
  object.Set("nvmeByteSeconds", stats.nvme_byte_seconds);
  object.Set("dramBytes", static_cast<double>(stats.dram_bytes));
  object.Set("nvmeBytes", static_cast<double>(stats.nvme_bytes));
  object.Set("grantedBytes", static_cast<double>(stats.granted_bytes));
  object.Set("demotedBytes", static_cast<double>(stats.demoted_bytes));
  object.Set("promotedBytes", static_cast<double>(stats.promoted_bytes));
  object.Set("cleanedBytes", static_cast<double>(stats.cleaned_bytes));
  object.Set("bufferBytes", static_cast<double>(stats.buffer_bytes));
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
  const DramTier::Stats dram = store(info.Env()).dram_stats();
  Napi::Object object = Napi::Object::New(info.Env());
  object.Set("dramLimitBytes", static_cast<double>(dram.limit_bytes));
  object.Set("dramUsedBytes", static_cast<double>(dram.used_bytes));
  object.Set("dramSpareBytes", static_cast<double>(dram.spare_bytes));
  object.Set("hugePageBytes", static_cast<double>(dram.huge_bytes));
  object.Set("heldBytes", static_cast<double>(store_->held_bytes()));
  object.Set("sessions", static_cast<double>(server_->sessions()));
  const NvmeTier::Stats nvme = store_->nvme_stats();
  object.Set("nvmeLimitBytes", static_cast<double>(nvme.limit_bytes));
  object.Set("nvmeUsedBytes", static_cast<double>(nvme.used_bytes));
  object.Set("nvmeWrittenBytes", static_cast<double>(nvme.written_bytes));
  Napi::Array directories = Napi::Array::New(info.Env(), nvme.directories.size());
  for (size_t i = 0; i < nvme.directories.size(); ++i) {
    Napi::Object one = Napi::Object::New(info.Env());
    one.Set("path", nvme.directories[i].path);
    one.Set("limitBytes", static_cast<double>(nvme.directories[i].limit_bytes));
    one.Set("usedBytes", static_cast<double>(nvme.directories[i].used_bytes));
    one.Set("fault", nvme.directories[i].fault);
    directories.Set(static_cast<uint32_t>(i), one);
  }
  object.Set("nvmeDirectories", directories);
  object.Set("fileBackend", store_->reader().backend() == FileBackend::kUring ? "uring" : "threads");
  return object;
}

Napi::Value Engine::head(const Napi::CallbackInfo& info) {
  auto found = namespace_of(info[0])->head(to_key(info[1]));
  if (found.code() == Code::kNotFound) return info.Env().Null();
  check(info.Env(), found.status());
  return from_info(info.Env(), *found);
}

Napi::Value Engine::describe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  std::string attributes;
  auto found = namespace_of(info[0])->head(to_key(info[1]), &attributes);
  if (found.code() == Code::kNotFound) return env.Null();
  check(env, found.status());
  Napi::Object described = Napi::Object::New(env);
  described.Set("info", from_info(env, *found));
  described.Set("attributes", from_attributes(env, attributes));
  return described;
}

Napi::Value Engine::open(const Napi::CallbackInfo& info) {
  auto ns = namespace_of(info[0]);
  std::string key = to_key(info[1]);
  auto view = ns->get(key, to_uint(info[2]), to_uint(info[3]));
  if (view.code() == Code::kNotFound) return info.Env().Null();
  check(info.Env(), view.status());
  Napi::Object handle = Instance::of(info.Env()).reader_class.New({});
  ReaderHandle::Unwrap(handle)->open(std::move(ns), store_->reader(), std::move(*view), std::move(key));
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
  // Away from this thread: it may have to wait for files.
  auto copied = std::make_shared<ObjectInfo>();
  std::optional<std::string> attributes;
  if (!info[5].IsNull()) attributes = to_attributes(info[5]);
  const auto run = [from = namespace_of(info[0]), from_key = to_key(info[1]), to = namespace_of(info[2]),
                    to_key = to_key(info[3]), condition = to_condition(info[4]), attributes, copied] {
    auto result = from->copy(from_key, *to, to_key, condition, attributes);
    if (result.ok()) *copied = *result;
    return result.status();
  };
  return (new PromiseWork(info.Env()))->start(run, [copied](Napi::Env env) { return from_info(env, *copied); });
}

Napi::Value Engine::join(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!info[2].IsArray()) throw bad_argument(env, "the parts of a join are a list of keys");
  const auto list = info[2].As<Napi::Array>();
  if (list.Length() > limits::kExtentsMax) throw bad_argument(env, "these are more parts than an object may have extents");
  std::vector<std::string> parts;
  parts.reserve(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) parts.push_back(to_key(list.Get(i)));
  auto joined = namespace_of(info[0])->join(to_key(info[1]), parts, to_condition(info[3]), to_attributes(info[4]));
  check(env, joined.status());
  return from_info(env, *joined);
}

Napi::Value Engine::list(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const auto limit = static_cast<uint32_t>(std::min<uint64_t>(to_uint(info[3]), limits::kListPageMax));
  auto page = namespace_of(info[0])->list(to_key(info[1]), to_key(info[2]), limit,
                                          {.attributes = info[4].ToBoolean().Value()});
  check(env, page.status());
  Napi::Array objects = Napi::Array::New(env, page->objects.size());
  for (size_t i = 0; i < page->objects.size(); ++i) {
    const ListedObject& listed = page->objects[i];
    Napi::Object object = from_info(env, listed.info);
    object.Set("key", Napi::Buffer<char>::Copy(env, listed.key.data(), listed.key.size()));
    object.Set("attributes", from_attributes(env, listed.attributes));
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

Napi::Value Engine::set_partitions(const Napi::CallbackInfo& info) {
  auto ns = namespace_of(info[0]);
  std::vector<uint64_t> offsets;
  const auto type = info[3].IsTypedArray() ? info[3].As<Napi::TypedArray>().TypedArrayType() : napi_int8_array;
  if (type == napi_uint32_array) {
    const auto list = info[3].As<Napi::Uint32Array>();
    offsets.assign(list.Data(), list.Data() + list.ElementLength());
  } else if (type == napi_float64_array) {
    const auto list = info[3].As<Napi::Float64Array>();
    // Not a number and what is out of range become 0, which the store refuses in the middle of a list.
    for (size_t i = 0; i < list.ElementLength(); ++i) {
      offsets.push_back(list[i] >= 0 && list[i] < 9007199254740992.0 ? static_cast<uint64_t>(list[i]) : 0);
    }
  } else {
    throw bad_argument(info.Env(), "offsets are a Uint32Array or a Float64Array");
  }
  check(info.Env(), ns->set_partitions(to_key(info[1]), to_text(info[2]), std::move(offsets)));
  return info.Env().Null();
}

Napi::Value Engine::verify_objects(const Napi::CallbackInfo& info) {
  auto ns = namespace_of(info[0]);
  const auto limit = static_cast<uint32_t>(std::min<uint64_t>(to_uint(info[2]), limits::kListPageMax));
  return scrubs_.start(info.Env(), *store_, std::move(ns), to_key(info[1]), limit);
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
