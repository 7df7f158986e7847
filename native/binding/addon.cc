// The module: mounts what the other files of this folder define. The only folder that includes napi.h.
#include <fcntl.h>
#include <napi.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/limits.h"
#include "binding/convert.h"
#include "binding/digests.h"
#include "binding/duckdb.h"
#include "binding/engine.h"
#include "binding/forest.h"
#include "binding/inspect.h"
#include "binding/instance.h"
#include "binding/kernels.h"
#include "binding/learning.h"
#include "binding/session.h"
#include "binding/span.h"
#include "binding/training_input.h"
#include "segment/layout.h"
#include "tier/file_reader.h"
#include "transport/wire.h"

namespace millrace::binding {

namespace {

Napi::Object limits_table(Napi::Env env) {
  Napi::Object table = Napi::Object::New(env);
  auto add = [&](const char* name, uint64_t value) { table.Set(name, static_cast<double>(value)); };
  add("keyBytesMax", limits::kKeyBytesMax);
  add("namespaceNameBytesMax", limits::kNamespaceNameBytesMax);
  add("objectBytesMax", limits::kObjectBytesMax);
  add("attributesBytesMax", limits::kAttributesBytesMax);
  add("segmentBytesMin", limits::kSegmentBytesMin);
  add("segmentBytesDefault", limits::kSegmentBytesDefault);
  add("segmentBytesMax", limits::kSegmentBytesMax);
  add("segmentHeaderBytes", kSegmentHeaderBytes);
  add("listPageMax", limits::kListPageMax);
  add("sessionsMax", limits::kSessionsMax);
  add("inlineArgumentBytesMax", limits::kInlineArgumentBytesMax);
  add("partitionsMax", limits::kPartitionsMax);
  add("mapsMax", limits::kMapsMax);
  return table;
}

bool memfd_works(unsigned flags) {
  const int fd = memfd_create("millrace-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);
  if (fd < 0) return false;
  close(fd);
  return true;
}

// What the kernel and the processor offer to the addon; the machine's settings are read by `millrace doctor`.
Napi::Value doctor(const Napi::CallbackInfo& info) {
  Napi::Object found = Napi::Object::New(info.Env());
  utsname kernel{};
  uname(&kernel);
  found.Set("kernel", kernel.release);
  found.Set("memfd", memfd_works(0));
  found.Set("memfdHugePages", memfd_works(MFD_HUGETLB));
  found.Set("processors", static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN)));
  found.Set("memoryBytes", static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  found.Set("simd", simd_level_name(simd_level_detected()));
#ifdef MILLRACE_LIBURING
  found.Set("liburing", true);
#else
  found.Set("liburing", false);
#endif
  found.Set("fileBackend", file_backend() == FileBackend::kUring ? "io_uring" : "threads");
  found.Set("opensslDigests", openssl_digests_work());
  return found;
}

// lockFile(path): a descriptor that holds the lock of the file, or null where another process holds it. The lock goes
// with the descriptor, so also with the process, however that ends.
Napi::Value lock_file(const Napi::CallbackInfo& info) {
  const std::string path = to_text(info[0]);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw to_error(info.Env(), Status::from_errno(path.c_str(), errno));
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return Napi::Number::New(info.Env(), fd);
  const int error = errno;
  close(fd);
  if (error == EWOULDBLOCK) return info.Env().Null();
  throw to_error(info.Env(), Status::from_errno(path.c_str(), error));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Instance);
  Instance::of(env).span_class = Napi::Persistent(SpanHandle::define(env));
  exports.Set("limits", limits_table(env));
  exports.Set("protocolVersion", static_cast<double>(wire::kProtocolVersion));
  exports.Set("kernels", millrace::kernels_binding(env));
  exports.Set("doctor", Napi::Function::New(env, doctor, "doctor"));
  exports.Set("lockFile", Napi::Function::New(env, lock_file, "lockFile"));
  register_engine(env, exports);
  register_session(env, exports);
  register_inspect(env, exports);
  register_digests(env, exports);
  register_duckdb(env, exports);
  register_learning(env, exports);
  register_forest(env, exports);
  register_training_input(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(millrace, init)

}  // namespace millrace::binding
