// Reads of a same-host client: where an object lies, reads of files, windows on segments, spans for kernels.
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

// How much is compared with its checksum: 0 nothing, 1 what was not compared yet, 2 all that is touched.
bool read_verify(napi_env env, napi_value value, ShmClient::Verify* verify) {
  uint64_t given;
  if (!read_uint(env, value, &given)) return false;
  if (given > static_cast<uint64_t>(ShmClient::Verify::kAlways)) {
    throw_status(env, Status(Code::kInternal, "there are three ways to verify"));
    return false;
  }
  *verify = static_cast<ShmClient::Verify>(given);
  return true;
}

void put_info(double* out, const ObjectInfo& info) {
  out[0] = static_cast<double>(info.size_bytes);
  out[1] = static_cast<double>(info.sequence);
  out[2] = info.crc32c;
  out[3] = info.sealed_unix_s;
}

// Rows of numbers as a Float64Array.
napi_value make_table(napi_env env, size_t count, double** data) {
  void* memory = nullptr;
  napi_value buffer, array;
  napi_create_arraybuffer(env, count * sizeof(double), &memory, &buffer);
  napi_create_typedarray(env, napi_float64_array, count, buffer, 0, &array);
  *data = static_cast<double*>(memory);
  return array;
}

napi_value throw_failure(napi_env env, const Status& status) {
  throw_status(env, status);
  return nullptr;
}

// locate(key, verify): the segment's number, 0 where there is no such object, -1 where it lies in several extents or
// in files. out: offset, sizeBytes, sequence, crc32c, sealedUnixS
napi_value js_locate(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  KeyArgument key;
  ShmClient::Verify verify;
  if (session == nullptr || !key.read(env, arguments[0]) || !read_verify(env, arguments[1], &verify)) return nullptr;
  ShmClient::Located found;
  const Code code = session->shm->locate(key.view, &found, verify);
  if (code == Code::kNotFound) return number(env, 0);
  if (code != Code::kOk) return throw_failure(env, session->shm->failure());
  double* out = session->out;
  if (__builtin_expect(found.manifest, 0)) {
    ObjectInfo object;
    if (Status failed = session->shm->info_of(key.view, found, &object); !failed.ok()) return throw_failure(env, failed);
    put_info(out + 1, object);
    return number(env, -1);
  }
  out[0] = static_cast<double>(found.payload_offset);
  out[1] = static_cast<double>(found.payload_bytes);
  out[2] = static_cast<double>(found.sequence);
  out[3] = found.crc32c;
  out[4] = found.sealed_unix_s;
  return number(env, found.segment->number);
}

// A range as JavaScript gives it: length -1 is to the end.
bool read_range(napi_env env, napi_value offset, napi_value length, uint64_t* from, uint64_t* bytes) {
  int64_t given = 0;
  if (!read_uint(env, offset, from) || napi_get_value_int64(env, length, &given) != napi_ok) return false;
  *bytes = given < 0 ? ~uint64_t{0} : static_cast<uint64_t>(given);
  return true;
}

// locateExtents(key, offset, length, verify): null, or a Float64Array of segment, offset, bytes and whether it lies in
// a file, per extent. out: sizeBytes, sequence, crc32c, sealedUnixS
napi_value js_locate_extents(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  Session* session = open_session_of(env, info, &count, arguments);
  KeyArgument key;
  uint64_t offset, length;
  ShmClient::Verify verify;
  if (session == nullptr || !key.read(env, arguments[0]) ||
      !read_range(env, arguments[1], arguments[2], &offset, &length) || !read_verify(env, arguments[3], &verify)) {
    return nullptr;
  }
  std::vector<ShmClient::Extent> extents;
  ObjectInfo object;
  const Status status = session->shm->locate_extents(key.view, &extents, &object, verify, offset, length);
  if (status.code() == Code::kNotFound) return nothing(env);
  if (!status.ok()) return throw_failure(env, status);
  put_info(session->out, object);
  double* to;
  napi_value table = make_table(env, extents.size() * 4, &to);
  for (const ShmClient::Extent& extent : extents) {
    *to++ = extent.segment->number;
    *to++ = static_cast<double>(extent.offset);
    *to++ = static_cast<double>(extent.bytes);
    *to++ = extent.segment->file != nullptr;
  }
  return table;
}

// --- objects in files

void queue_read(Session* session, uint64_t id, std::shared_ptr<HeldObject> object, uint64_t offset, uint64_t bytes,
                ShmClient::Verify verify, bool span) {
  const ObjectInfo info = object->info;
  session->expect(1);
  session->shm->read(std::move(object), offset, bytes, verify, [session, id, info, span](Result<FileBytes> result) {
    session->on_read(static_cast<double>(id), info, span, std::move(result));
  });
}

// read(id, key, offset, length, verify, span): reads a range of an object that lies in files, with the next flush.
// Whether there is such an object.
napi_value js_read(napi_env env, napi_callback_info info) {
  size_t count = 6;
  napi_value arguments[6];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t id, offset, length;
  KeyArgument key;
  ShmClient::Verify verify;
  bool span = false;
  if (session == nullptr || !read_uint(env, arguments[0], &id) || !key.read(env, arguments[1]) ||
      !read_range(env, arguments[2], arguments[3], &offset, &length) || !read_verify(env, arguments[4], &verify)) {
    return nullptr;
  }
  napi_get_value_bool(env, arguments[5], &span);
  napi_value result;
  std::vector<ShmClient::Extent> extents;
  ObjectInfo object;
  const Status status = session->shm->locate_extents(key.view, &extents, &object, verify, offset, length);
  if (status.ok()) {
    if (offset > object.size_bytes || (length != ~uint64_t{0} && length > object.size_bytes - offset)) {
      return throw_failure(env, Status(Code::kOutOfRange, "a range past the end of an object of " +
                                                              std::to_string(object.size_bytes) + " bytes"));
    }
    queue_read(session, id, session->shm->hold(key.view, object, extents), offset,
               std::min(length, object.size_bytes - offset), verify, span);
  } else if (status.code() != Code::kNotFound) {
    return throw_failure(env, status);
  }
  napi_get_boolean(env, status.ok(), &result);
  return result;
}

// hold(key): keeps this version of the object for the calls below, which take the number returned; 0 where there is
// no such object. out: sizeBytes, sequence, crc32c, sealedUnixS
napi_value js_hold(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  KeyArgument key;
  if (session == nullptr || !key.read(env, arguments[0])) return nullptr;
  std::vector<ShmClient::Extent> extents;
  ObjectInfo object;
  const Status status = session->shm->locate_extents(key.view, &extents, &object, ShmClient::Verify::kNever);
  if (status.code() == Code::kNotFound) return number(env, 0);
  if (!status.ok()) return throw_failure(env, status);
  put_info(session->out, object);
  const uint32_t held = session->next_held++;
  session->held.emplace(held, session->shm->hold(key.view, object, extents));
  return number(env, held);
}

std::shared_ptr<HeldObject> find_held(napi_env env, Session* session, napi_value value) {
  uint64_t held;
  if (!read_uint(env, value, &held)) return nullptr;
  auto found = session->held.find(static_cast<uint32_t>(held));
  if (found != session->held.end()) return found->second;
  throw_status(env, Status(Code::kClosed, "this object was let go of"));
  return nullptr;
}

// heldExtents(held): as locateExtents
napi_value js_held_extents(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  std::shared_ptr<HeldObject> object;
  if (session == nullptr || (object = find_held(env, session, arguments[0])) == nullptr) return nullptr;
  double* to;
  napi_value table = make_table(env, object->extents.size() * 4, &to);
  for (const HeldObject::Extent& extent : object->extents) {
    *to++ = extent.segment;
    *to++ = static_cast<double>(extent.offset);
    *to++ = static_cast<double>(extent.bytes);
    *to++ = extent.file != nullptr;
  }
  return table;
}

// verifyHeld(held, extent): compares the extent, which lies in memory, with its checksum, where that was not done yet
napi_value js_verify_held(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2];
  Session* session = open_session_of(env, info, &count, arguments);
  std::shared_ptr<HeldObject> object;
  uint64_t extent;
  if (session == nullptr || (object = find_held(env, session, arguments[0])) == nullptr ||
      !read_uint(env, arguments[1], &extent)) {
    return nullptr;
  }
  if (extent >= object->extents.size() || object->extents[extent].mapping == nullptr) {
    return throw_failure(env, Status(Code::kInternal, "an extent that is not in memory"));
  }
  if (Status bad = session->shm->verify_held(*object, extent); !bad.ok()) return throw_failure(env, bad);
  return nothing(env);
}

// readHeld(id, held, offset, bytes): reads a stretch of it, with the next flush
napi_value js_read_held(napi_env env, napi_callback_info info) {
  size_t count = 4;
  napi_value arguments[4];
  Session* session = open_session_of(env, info, &count, arguments);
  std::shared_ptr<HeldObject> object;
  uint64_t id, offset, bytes;
  if (session == nullptr || !read_uint(env, arguments[0], &id) ||
      (object = find_held(env, session, arguments[1])) == nullptr || !read_uint(env, arguments[2], &offset) ||
      !read_uint(env, arguments[3], &bytes)) {
    return nullptr;
  }
  const uint64_t size = object->info.size_bytes;
  if (offset > size || bytes > size - offset) {
    return throw_failure(env, Status(Code::kInternal, "a stretch outside of the object"));
  }
  queue_read(session, id, std::move(object), offset, bytes, ShmClient::Verify::kOnce, false);
  return nothing(env);
}

// letGo(held)
napi_value js_let_go(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value arguments[1];
  Session* session = open_session_of(env, info, &count, arguments);
  uint64_t held;
  if (session == nullptr || !read_uint(env, arguments[0], &held)) return nullptr;
  session->held.erase(static_cast<uint32_t>(held));
  return nothing(env);
}

// --- windows and spans

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
  return SpanHandle::create(env, std::move(mapping), span, writable, SpanHandle::Memory::kShared);
}

}  // namespace

void add_reads(const AddCall& add) {
  add("locate", js_locate);
  add("locateExtents", js_locate_extents);
  add("read", js_read);
  add("hold", js_hold);
  add("heldExtents", js_held_extents);
  add("verifyHeld", js_verify_held);
  add("readHeld", js_read_held);
  add("letGo", js_let_go);
  add("window", js_window);
  add("span", js_span);
}

}  // namespace millrace::binding
