// Objects written through shared memory, in one entry or in parts.
#include <cstring>

#include "base/assert.h"
#include "base/crc32c.h"
#include "binding/session_state.h"

namespace millrace::binding {

namespace {

using wire::Opcode;

constexpr uint64_t kInlineCopyBytesMax = 1 * MiB;   // larger copies go to a thread of the pool

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
    shm.finish(writer->part, EntryKind::kPart, writer->key, bytes, crc);
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

}  // namespace

void add_writers(const AddCall& add) {
  add("openWriter", js_open_writer);
  add("writerAllocate", js_writer_allocate);
  add("writerCopy", js_writer_copy);
  add("writerEndPart", js_writer_end_part);
  add("writerSeal", js_writer_seal);
  add("writerAbort", js_writer_abort);
}

}  // namespace millrace::binding
