// Reads through shared memory: where an object lies, windows on segments, spans for kernels.
#include "binding/session_state.h"
#include "binding/span.h"

namespace millrace::binding {

// --- windows

namespace {

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

}  // namespace

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

// --- shared memory: reading

namespace {

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

}  // namespace

void add_reads(const AddCall& add) {
  add("locate", js_locate);
  add("locateExtents", js_locate_extents);
  add("window", js_window);
  add("span", js_span);
}

}  // namespace millrace::binding
