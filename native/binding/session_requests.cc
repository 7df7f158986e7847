// Requests of a session over any transport, and their completions.
#include <cstring>
#include <utility>

#include "binding/convert.h"
#include "binding/session_state.h"
#include "binding/span.h"

namespace millrace::binding {

namespace {

using wire::Opcode;

constexpr uint64_t kSlabBytesMax = 64 * KiB;
constexpr uint64_t kSlabPayloadBytesMax = 4 * KiB;  // larger payloads get an ArrayBuffer of their own
// Smaller payloads out of files are copied: the memory that they were read into may hold many of them, and would stay
// with the last.
constexpr uint64_t kCopiedReadBytesMax = 64 * KiB;

napi_value make_error(napi_env env, const Status& status) {
  napi_value code, message, error;
  napi_create_string_utf8(env, code_name(status.code()), NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, status.message().data(), status.message().size(), &message);
  napi_create_error(env, code, message, &error);
  return error;
}

void free_payload(napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<void>*>(hint); }

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

}  // namespace

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
        if (reply.buffer) {
          auto buffer = std::make_shared<PayloadBuffer>(std::move(reply.buffer));
          completion.data = buffer->data();
          completion.keeper = std::move(buffer);
        }
      }
    }
  }
  std::lock_guard lock(mutex);
  if (completion.payload_bytes > 0 && completion.keeper == nullptr) {
    completion.small = true;
    completion.small_offset = arena.size();
    arena.insert(arena.end(), reply.payload.data, reply.payload.data + reply.payload.bytes);
  }
  done.push_back(std::move(completion));
}

void Session::on_read(double id, const ObjectInfo& info, bool span, Result<FileBytes> result) {
  Completion completion{id, wire::Opcode::kGet, result.code()};
  completion.span = span;
  if (!result.ok()) {
    completion.message = result.status().message();
  } else {
    completion.numbers[0] = static_cast<double>(info.size_bytes);
    completion.numbers[1] = static_cast<double>(info.sequence);
    completion.numbers[2] = info.crc32c;
    completion.numbers[3] = info.sealed_unix_s;
    completion.payload_bytes = result->bytes;
    completion.small = !span && result->bytes <= kCopiedReadBytesMax;
    if (!completion.small) {
      completion.keeper = std::move(result->keeper);
      completion.data = result->data;
    }
  }
  std::lock_guard lock(mutex);
  if (completion.small) {
    completion.small_offset = arena.size();
    arena.insert(arena.end(), result->data, result->data + result->bytes);
  }
  done.push_back(std::move(completion));
  wake();
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
      } else if (item.span) {
        set_value(row, SpanHandle::create(env, std::move(item.keeper), {item.data, item.payload_bytes}, false,
                                          SpanHandle::Memory::kOwn));
      } else if (item.keeper) {
        auto* owner = new std::shared_ptr<void>(std::move(item.keeper));
        napi_value buffer;
        if (napi_create_external_arraybuffer(env, item.data, item.payload_bytes, free_payload, owner, &buffer) != napi_ok) {
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

// --- requests (any transport): the first argument is JavaScript's id of the request

namespace {

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

// flush(): sends what the requests above have queued, and sets off the reads of files
napi_value js_flush(napi_env env, napi_callback_info info) {
  size_t count = 0;
  Session* session = open_session_of(env, info, &count, nullptr);
  if (session == nullptr) return nullptr;
  session->channel->flush();
  if (session->shm) session->shm->start_reads();
  return nothing(env);
}

}  // namespace

void add_requests(const AddCall& add) {
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
}

}  // namespace millrace::binding
