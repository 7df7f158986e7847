#include <time.h>

#include <algorithm>
#include <chrono>

#include "base/crc32c.h"
#include "base/hash.h"
#include "store/namespace_impl.h"
#include "store/view_reader.h"

namespace millrace {

namespace {

// To the second; the coarse clock costs no more than a load.
uint32_t unix_s() {
  timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return static_cast<uint32_t>(now.tv_sec);
}

Status not_found(std::string_view key) {
  return Status(Code::kNotFound, "no object under the key '" + std::string(key) + "'");
}

}  // namespace

Namespace::Impl::Impl(std::shared_ptr<NodeShared> node, uint64_t id, std::string name, NamespaceOptions options)
    : node(std::move(node)), id(id), name(std::move(name)), options(options),
      passes(options.token), ordered([this](SlotRef ref) { return key_of(ref); }) {
  segments.push_back(nullptr);  // number 0 is never used: a slot word is never mistaken for an empty one
}

Namespace::Namespace(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) { impl_->face = this; }
Namespace::~Namespace() = default;

const std::string& Namespace::name() const { return impl_->name; }
const Token& Namespace::token() const { return impl_->options.token; }
const NamespaceOptions& Namespace::options() const { return impl_->options; }
bool Namespace::dropped() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->dropped;
}

Status Namespace::Impl::gone() const {
  return Status(Code::kNamespaceGone, "namespace '" + name + "' is gone: deleted, or its lease has lapsed");
}

// --- entries

// Bounds are checked on every look: a client that holds the segment as its grant may have changed the header.
std::string_view Namespace::Impl::key_of(SlotRef ref) const {
  const auto segment = ref.segment < segments.size() ? segments[ref.segment].get() : nullptr;
  if (segment == nullptr || !segment->memory || ref.entry_offset + sizeof(EntryHeader) > segment->bytes()) return {};
  const uint8_t* at = segment->data() + ref.entry_offset;
  uint16_t key_bytes;
  std::memcpy(&key_bytes, at + offsetof(EntryHeader, key_bytes), sizeof(key_bytes));
  if (key_bytes > limits::kKeyBytesMax || ref.entry_offset + sizeof(EntryHeader) + key_bytes > segment->bytes()) return {};
  return std::string_view(reinterpret_cast<const char*>(at + sizeof(EntryHeader)), key_bytes);
}

bool Namespace::Impl::key_equals(SlotRef ref, std::string_view key) const { return key_of(ref) == key; }

Result<Entry> Namespace::Impl::entry_at(SlotRef ref, bool verify_header) const {
  const auto segment = ref.segment < segments.size() ? segments[ref.segment].get() : nullptr;
  if (segment == nullptr || !segment->memory) {
    return Status(Code::kCorrupt, "segment " + std::to_string(ref.segment) + " is not of this namespace");
  }
  auto entry = read_entry(segment->data(), segment->bytes(), ref.entry_offset, verify_header);
  if (!entry.ok()) {
    return Status(entry.code(), "segment " + std::to_string(ref.segment) + ": " + entry.status().message());
  }
  return entry;
}

std::optional<SlotRef> Namespace::Impl::find(std::string_view key) const {
  std::optional<SlotRef> found;
  index->view().find(hash_key(key), [&](SlotRef ref) {
    if (!key_equals(ref, key)) return false;
    found = ref;
    return true;
  });
  return found;
}

Result<ObjectInfo> Namespace::Impl::info_of(SlotRef ref) const {
  auto entry = entry_at(ref);
  if (!entry.ok()) return entry.status();
  return info_of(ref, *entry);
}

Result<ObjectInfo> Namespace::Impl::info_of(SlotRef ref, const Entry& entry, std::string* attributes) const {
  if (attributes != nullptr) attributes->clear();
  ObjectInfo info{entry.payload_bytes, entry.sequence, entry.payload_crc, entry.sealed_unix_s};
  if (entry.kind == EntryKind::kManifest) {
    auto manifest = read_manifest(segments[ref.segment]->data() + entry.payload_offset, entry.payload_bytes);
    if (!manifest.ok()) return manifest.status();
    info.size_bytes = manifest->header.object_bytes;
    info.crc32c = manifest->header.object_crc;
    if (attributes != nullptr) *attributes = manifest->attributes;
  }
  return info;
}

Status Namespace::Impl::check_condition(std::string_view key, const Condition& condition) const {
  if (!condition.if_absent && condition.if_sequence == 0) return Status();
  const auto ref = find(key);
  if (condition.if_absent && ref) {
    return Status(Code::kConditionFailed, "an object is there already under the key '" + std::string(key) + "'");
  }
  if (condition.if_sequence != 0) {
    if (!ref) return Status(Code::kConditionFailed, "no object under the key '" + std::string(key) + "' any more");
    auto info = info_of(*ref);
    if (!info.ok()) return info.status();
    if (info->sequence != condition.if_sequence) {
      return Status(Code::kConditionFailed, "the object under the key '" + std::string(key) + "' is another version by now");
    }
  }
  return Status();
}

Result<Namespace::Impl::Described> Namespace::Impl::describe(SlotRef ref) const {
  auto entry = entry_at(ref);
  if (!entry.ok()) return entry.status();
  Described object{{entry->payload_bytes, entry->sequence, entry->payload_crc, entry->sealed_unix_s},
                   entry->kind == EntryKind::kManifest, entry->joined};
  if (!object.manifest) {
    object.extents.push_back({ref.segment, entry->payload_crc, entry->payload_offset, entry->payload_bytes});
    return object;
  }
  auto manifest = read_manifest(segments[ref.segment]->data() + entry->payload_offset, entry->payload_bytes);
  if (!manifest.ok()) return manifest.status();
  object.info.size_bytes = manifest->header.object_bytes;
  object.info.crc32c = manifest->header.object_crc;
  object.extents.assign(manifest->extents, manifest->extents + manifest->header.extents);
  object.attributes = manifest->attributes;
  return object;
}

void Namespace::Impl::note_joined(const std::vector<ManifestExtent>& extents, std::string_view key) {
  const auto owner = std::make_shared<const std::string>(key);
  for (const ManifestExtent& extent : extents) joined.insert_or_assign({extent.segment, extent.offset}, owner);
}

void Namespace::Impl::release(SlotRef ref, Fate fate) {
  auto segment = segment_at(ref.segment);
  auto entry = entry_at(ref);
  if (!segment || !entry.ok()) return;  // spoilt by its own client: nothing to account
  if (fate != Fate::kMoved && !partitions.empty()) partitions.erase(std::string(entry->key));
  auto forget = [this](const std::shared_ptr<Segment>& of, uint64_t bytes) {
    of->live_bytes -= std::min(of->live_bytes, bytes);
    retire_if_dead(of);
  };
  if (entry->kind == EntryKind::kManifest) {
    auto manifest = read_manifest(segment->data() + entry->payload_offset, entry->payload_bytes);
    if (manifest.ok()) {
      object_bytes -= std::min(object_bytes, manifest->header.object_bytes);
      for (uint32_t i = 0; i < manifest->header.extents; ++i) {
        const ManifestExtent extent = manifest->extents[i];
        if (auto part = segment_at(extent.segment)) forget(part, extent.bytes);
        if (entry->joined) joined.erase({extent.segment, extent.offset});
      }
    }
  } else {
    object_bytes -= std::min(object_bytes, entry->payload_bytes);
  }
  // Bytes that live on stay those of a sealed entry: so they are found.
  const bool lives_on = fate == Fate::kJoined && entry->kind == EntryKind::kObject && entry->payload_bytes > 0;
  if (!lives_on) mark_dead(segment->data(), ref.entry_offset);
  forget(segment, entry->end - ref.entry_offset);
}

Result<ObjectInfo> Namespace::Impl::publish(Segment& segment, uint64_t entry_offset, const Entry& entry,
                                            std::string_view key) {
  const SlotRef ref{segment.number, entry_offset};
  auto info = info_of(ref, entry);
  if (!info.ok()) return info.status();
  // Sequence and state first: who finds the entry through the index finds them set.
  info->sequence = last_sequence + 1;
  info->sealed_unix_s = unix_s();
  mark_sealed(segment.data(), entry_offset, info->sequence, info->sealed_unix_s);
  index->note(last_sequence + 1, sealed_total + 1, static_cast<uint32_t>(segments.size()));
  auto before = index->put(hash_key(key), ref, [&](SlotRef other) { return key_equals(other, key); });
  if (!before.ok()) {
    mark_dead(segment.data(), entry_offset);
    return before.status();
  }
  ++last_sequence;
  ++sealed_total;
  segment.live_bytes += entry.end - entry_offset;
  segment.write_end = std::max(segment.write_end, entry.end);
  object_bytes += info->size_bytes;
  note_change(ref, true);
  if (*before) release(**before);
  if (!watchers.empty()) tell_watchers(false, key, *info);
  return info;
}

void Namespace::Impl::tell_watchers(bool deleted, std::string_view key, const ObjectInfo& info) {
  for (const auto& [watcher_id, watcher] : watchers) {
    if (is_hidden(key) && !is_hidden(watcher.prefix)) continue;
    if (key.starts_with(watcher.prefix)) watcher.callback(WatchedEvent{deleted, std::string(key), info});
  }
}

// --- reading

Result<ObjectInfo> Namespace::head(std::string_view key, std::string* attributes) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  std::lock_guard lock(impl_->mutex);
  if (impl_->dropped) return impl_->gone();
  const auto ref = impl_->find(key);
  if (!ref) return not_found(key);
  auto entry = impl_->entry_at(*ref);
  if (!entry.ok()) return entry.status();
  return impl_->info_of(*ref, *entry, attributes);
}

Result<ObjectView> Namespace::get(std::string_view key, uint64_t offset, uint64_t length) {
  ObjectView view;
  if (Status failed = get(key, offset, length, &view); !failed.ok()) return failed;
  return view;
}

Status Namespace::get(std::string_view key, uint64_t offset, uint64_t length, ObjectView* view) {
  view->spans.clear();
  view->segments.clear();
  view->places.clear();
  if (Status bad = check_key(key); !bad.ok()) return bad;
  std::lock_guard lock(impl_->mutex);
  if (impl_->dropped) return impl_->gone();
  const auto ref = impl_->find(key);
  if (!ref) return not_found(key);
  // One look at the entry serves for its size and its place: its client may change it between two.
  auto entry = impl_->entry_at(*ref);
  if (!entry.ok()) return entry.status();
  auto info = impl_->info_of(*ref, *entry, &view->attributes);
  if (!info.ok()) return info.status();
  const uint64_t size = info->size_bytes;
  if (offset > size || length > size - offset) {
    return Status(Code::kOutOfRange, "bytes " + std::to_string(offset) + " to " + std::to_string(offset + length) +
                                         " are asked of an object of " + std::to_string(size));
  }
  if (length == 0) length = size - offset;
  view->info = *info;
  auto segment = impl_->segments[ref->segment];
  if (entry->kind != EntryKind::kManifest) {
    if (length > 0) view->spans.push_back({segment->data() + entry->payload_offset + offset, length});
    view->segments.push_back(std::move(segment));
    return Status();
  }
  auto manifest = read_manifest(segment->data() + entry->payload_offset, entry->payload_bytes);
  if (!manifest.ok()) return manifest.status();
  for (uint32_t i = 0; i < manifest->header.extents && length > 0; ++i) {
    const ManifestExtent extent = manifest->extents[i];
    if (offset >= extent.bytes) {
      offset -= extent.bytes;
      continue;
    }
    auto part = impl_->segment_at(extent.segment);
    if (!part || extent.offset > part->bytes() || extent.bytes > part->bytes() - extent.offset) {
      return Status(Code::kCorrupt, "a part of the object under '" + std::string(key) + "' lies outside segment " +
                                        std::to_string(extent.segment));
    }
    const uint64_t bytes = std::min(length, extent.bytes - offset);
    if (part->file) {
      view->places.resize(view->spans.size());
      view->places.push_back({part->file, extent.offset + offset, extent.segment, extent.bytes, extent.crc});
    }
    view->spans.push_back({part->file ? nullptr : part->data() + extent.offset + offset, bytes});
    view->segments.push_back(std::move(part));
    length -= bytes;
    offset = 0;
  }
  if (length > 0) return Status(Code::kCorrupt, "the manifest of the object under '" + std::string(key) + "' has changed");
  if (view->in_files()) {
    view->places.resize(view->spans.size());
    impl_->note_file_read(key);
  }
  return Status();
}

// --- writing

Result<bool> Namespace::remove(std::string_view key, Condition condition) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  Impl& in = *impl_;
  std::lock_guard lock(in.mutex);
  if (in.dropped) return in.gone();
  if (Status failed = in.check_condition(key, condition); !failed.ok()) return failed;
  const auto before = in.index->remove(hash_key(key), [&](SlotRef ref) { return in.key_equals(ref, key); });
  if (!before) return false;
  ObjectInfo info;
  if (!in.watchers.empty()) {
    auto known = in.info_of(*before);
    if (known.ok()) info = *known;
  }
  in.note_change(*before, false);
  in.release(*before);
  if (!in.watchers.empty()) in.tell_watchers(true, key, info);
  return true;
}

Result<ObjectInfo> Namespace::put(std::string_view key, ConstSpan bytes, Condition condition) {
  std::vector<Span> spans;
  auto draft = begin(key, bytes.bytes, &spans);
  if (!draft.ok()) return draft.status();
  std::vector<uint32_t> crcs;
  for (const Span& span : spans) {
    crcs.push_back(copy_crc32c(span.data, bytes.data, span.bytes, 0));
    bytes.data += span.bytes;
  }
  return commit(std::move(*draft), condition, &crcs);
}

Result<ObjectInfo> Namespace::copy(std::string_view from, Namespace& to_namespace, std::string_view to, Condition condition,
                                   std::optional<std::string_view> attributes) {
  auto view = get(from);
  if (!view.ok()) return view.status();
  const std::string of_source = attributes ? std::string() : std::move(view->attributes);
  const std::string_view with = attributes ? *attributes : of_source;
  auto draft = to_namespace.begin(to);
  if (!draft.ok()) return draft.status();
  draft->expect(view->info.size_bytes);
  const uint32_t crc = view->info.crc32c;
  if (view->in_files()) {
    const auto append = [&](ConstSpan bytes) { return draft->append(bytes); };
    if (Status failed = read_all(impl_->node->reader, std::move(*view), from, append); !failed.ok()) return failed;
    return to_namespace.commit(std::move(*draft), condition, nullptr, crc, with);
  }
  for (const ConstSpan& span : view->spans) {
    if (Status failed = draft->append(span); !failed.ok()) return failed;
  }
  auto copied = to_namespace.commit(std::move(*draft), condition, nullptr, crc, with);
  if (copied.code() == Code::kChecksumMismatch) return damaged(*view, from);
  return copied;
}

// --- same-host sessions

Status Namespace::admit(const Token& token, Pass pass) { return impl_->passes.add(token, pass, unix_ms()); }

std::optional<Pass> Namespace::pass_of(const uint8_t* token) const { return impl_->passes.find(token, unix_ms()); }

SessionId Namespace::begin_session(bool forsaken_later) {
  const SessionId session = impl_->node->next_session.fetch_add(1);
  std::lock_guard lock(impl_->mutex);
  impl_->sessions[session].forsaken_later = forsaken_later;
  return session;
}

void Namespace::end_session(SessionId session) {
  bool freed = false;
  {
    Impl& in = *impl_;
    std::lock_guard lock(in.mutex);
    auto found = in.sessions.find(session);
    if (found == in.sessions.end()) return;
    Impl::Session ended = std::move(found->second);
    in.sessions.erase(found);
    std::vector<std::shared_ptr<Segment>> forsaken;
    for (const auto& segment : in.segments) {
      if (segment && segment->let_go(session) && ended.forsaken_later) forsaken.push_back(segment);
    }
    for (auto& retiring : in.retiring) {
      if (retiring.segment->let_go(session) && ended.forsaken_later) retiring.segment->forsaken = true;
    }
    for (uint32_t number : ended.granted) {
      if (auto segment = in.segment_at(number)) segment->end_grant();
    }
    for (const auto& segment : forsaken) in.forsake(segment);
    forsaken.clear();  // what retires now has one owner
    for (const auto& [part, bytes] : ended.loose_parts) {
      if (auto segment = in.segment_at(part.segment)) {
        segment->live_bytes -= std::min(segment->live_bytes, bytes);
        if (std::find(ended.granted.begin(), ended.granted.end(), part.segment) == ended.granted.end()) {
          in.retire_if_dead(segment);
        }
      }
    }
    for (uint32_t number : ended.granted) {
      if (auto segment = in.segment_at(number); segment && segment->writer == kNobody) in.offer(segment);
    }
    freed = in.sweep_retiring(Clock::now());
  }
  if (Store::Listener* listener = impl_->node->listener.load(); freed && listener) listener->room_freed();
}

Result<Grant> Namespace::reserve(SessionId session, uint64_t bytes) {
  Impl& in = *impl_;
  std::lock_guard lock(in.mutex);
  if (in.dropped) return in.gone();
  auto found = in.sessions.find(session);
  if (found == in.sessions.end()) return Status(Code::kClosed, "the session has ended");
  uint64_t& wanted = found->second.wanted_bytes;
  auto segment = in.writable_segment(std::max<uint64_t>(bytes, 1), wanted);
  if (!segment.ok()) return segment.status();
  wanted = std::min(wanted * 2, limits::kSegmentBytesDefault);
  (*segment)->begin_grant(session);
  (*segment)->hold(session);
  found->second.granted.push_back((*segment)->number);
  return Grant{(*segment)->number, (*segment)->write_end, (*segment)->bytes(), (*segment)->memory};
}

void Namespace::give_back(SessionId session, uint32_t number) {
  Impl& in = *impl_;
  std::lock_guard lock(in.mutex);
  auto found = in.sessions.find(session);
  auto segment = in.segment_at(number);
  if (found == in.sessions.end() || !segment || segment->writer != session) return;
  std::erase(found->second.granted, number);
  segment->end_grant();
  if (found->second.forsaken_later) in.forsake(segment);
  else in.offer(segment);
}

void Namespace::Impl::seal_part(Segment& segment, uint64_t entry_offset, const Entry& entry) {
  ++last_sequence;
  index->note(last_sequence, sealed_total, static_cast<uint32_t>(segments.size()));
  mark_sealed(segment.data(), entry_offset, last_sequence, unix_s());
  segment.live_bytes += entry.payload_bytes;
  segment.write_end = std::max(segment.write_end, entry.end);
}

Result<ObjectInfo> Namespace::Impl::seal_entry(SessionId session_id, const Namespace::SealRecord& record,
                                               const Condition& condition) {
  if (dropped) return gone();
  Segment* segment = record.segment < segments.size() ? segments[record.segment].get() : nullptr;
  const uint64_t entry_offset = uint64_t{record.entry_unit} * limits::kEntryAlignment;
  if (segment == nullptr || segment->writer != session_id || session_id == kDaemon) {
    return Status(Code::kInvalidArgument, "segment " + std::to_string(record.segment) + " is not granted to this session");
  }
  auto entry = entry_at({record.segment, entry_offset}, true);
  if (!entry.ok()) return entry.status();
  if (entry->state != EntryState::kWriting) return Status(Code::kInvalidArgument, "this entry was sealed before");
  if (entry->joined) return Status(Code::kInvalidArgument, "objects are joined by the daemon alone");
  const auto taken = [] {
    return Status(Code::kInvalidArgument, "these bytes are sealed already, or lie before the grant");
  };
  if (entry->kind == EntryKind::kPart) {
    if (!segment->take(entry_offset, entry->end)) return taken();
    sessions.at(session_id).loose_parts.emplace(PartKey{record.segment, entry->payload_offset}, entry->payload_bytes);
    seal_part(*segment, entry_offset, *entry);
    return ObjectInfo{entry->payload_bytes, last_sequence, entry->payload_crc, unix_s()};
  }
  // The key is copied: the client may write to the original.
  char key_bytes[limits::kKeyBytesMax];
  std::memcpy(key_bytes, entry->key.data(), entry->key.size());
  const std::string_view key(key_bytes, entry->key.size());
  if (Status failed = check_condition(key, condition); !failed.ok()) return failed;
  if (entry->kind == EntryKind::kManifest) {
    Session& session = sessions.at(session_id);
    auto manifest = read_manifest(segment->data() + entry->payload_offset, entry->payload_bytes);
    if (!manifest.ok()) return manifest.status();
    // Taken out one by one, so that a part that is listed twice is missing the second time.
    std::vector<decltype(session.loose_parts)::node_type> listed;
    Result<ObjectInfo> sealed = ObjectInfo{};
    for (uint32_t i = 0; i < manifest->header.extents && sealed.ok(); ++i) {
      const ManifestExtent extent = manifest->extents[i];
      auto part = session.loose_parts.find({extent.segment, extent.offset});
      if (part == session.loose_parts.end() || part->second != extent.bytes) {
        sealed = Status(Code::kInvalidArgument, "the manifest lists bytes that are no sealed part of this session");
      } else {
        listed.push_back(session.loose_parts.extract(part));
      }
    }
    if (sealed.ok()) sealed = segment->take(entry_offset, entry->end) ? publish(*segment, entry_offset, *entry, key) : taken();
    if (!sealed.ok()) {
      for (auto& part : listed) session.loose_parts.insert(std::move(part));
    }
    return sealed;
  }
  if (!segment->take(entry_offset, entry->end)) return taken();
  return publish(*segment, entry_offset, *entry, key);
}

Result<ObjectInfo> Namespace::seal(SessionId session, uint32_t segment, uint64_t entry_offset, Condition condition) {
  if (entry_offset % limits::kEntryAlignment != 0 || entry_offset >= limits::kSegmentBytesMax) {
    return Status(Code::kInvalidArgument, "an entry starts on " + std::to_string(limits::kEntryAlignment) + " bytes of its segment");
  }
  std::lock_guard lock(impl_->mutex);
  return impl_->seal_entry(session, {segment, static_cast<uint32_t>(entry_offset / limits::kEntryAlignment)}, condition);
}

Status Namespace::seal_batch(SessionId session, const SealRecord* records, size_t count, size_t* failed_at) {
  Impl& in = *impl_;
  std::lock_guard lock(in.mutex);
  // The headers were written by another core and the index is large: both are asked for ahead of their turn.
  constexpr size_t kHeaderAhead = 12, kBucketAhead = 6;
  const auto ask_header = [&](size_t i) {
    if (i >= count || records[i].segment >= in.segments.size() || !in.segments[records[i].segment]) return;
    const uint8_t* at = in.segments[records[i].segment]->data() + uint64_t{records[i].entry_unit} * limits::kEntryAlignment;
    __builtin_prefetch(at, 1);
    __builtin_prefetch(at + sizeof(EntryHeader) + 24);
  };
  const auto ask_bucket = [&](size_t i) {
    if (i >= count) return;
    in.index->view().prefetch(
        hash_key(in.key_of({records[i].segment, uint64_t{records[i].entry_unit} * limits::kEntryAlignment})));
  };
  for (size_t i = 0; i < kHeaderAhead; ++i) ask_header(i);
  for (size_t i = 0; i < count; ++i) {
    ask_header(i + kHeaderAhead);
    ask_bucket(i + kBucketAhead);
    auto sealed = in.seal_entry(session, records[i], Condition{});
    if (!sealed.ok()) {
      *failed_at = i;
      return sealed.status();
    }
  }
  *failed_at = count;
  return Status();
}

Result<Namespace::OpenSegment> Namespace::open_segment(SessionId session, uint32_t number) {
  std::lock_guard lock(impl_->mutex);
  if (impl_->dropped) return impl_->gone();
  auto segment = impl_->segment_at(number);
  if (!segment || !impl_->sessions.contains(session)) {
    return Status(Code::kNotFound, "segment " + std::to_string(number) + " is not, or no longer, of this namespace");
  }
  segment->hold(session);
  return OpenSegment{segment->memory, segment->file, segment->bytes()};
}

void Namespace::confirm_unmapped(SessionId session, uint32_t number) {
  bool freed = false;
  {
    Impl& in = *impl_;
    std::lock_guard lock(in.mutex);
    const auto of = in.sessions.find(session);
    const bool doubted = of != in.sessions.end() && of->second.forsaken_later;
    if (auto segment = in.segment_at(number); segment && segment->let_go(session) && doubted) in.forsake(segment);
    for (auto& retiring : in.retiring) {
      if (retiring.segment->number == number && retiring.segment->let_go(session) && doubted) {
        retiring.segment->forsaken = true;
      }
    }
    freed = in.sweep_retiring(Clock::now());
  }
  if (Store::Listener* listener = impl_->node->listener.load(); freed && listener) listener->room_freed();
}

int Namespace::index_fd() const { return impl_->index->fd(); }
uint64_t Namespace::index_map_bytes() const { return limits::kIndexBytesMax; }

// An object that is read from its file again within a minute is wanted in memory.
void Namespace::Impl::note_file_read(std::string_view key) {
  constexpr auto kWithin = std::chrono::seconds(60);
  constexpr uint32_t kReadsWorthPromoting = 2;
  const auto now = Clock::now();
  if (reads.size() >= kReadsNotedMax) reads.clear();
  Reads& seen = reads[std::string(key)];
  if (seen.count == 0 || now - seen.since > kWithin) seen = {0, now};
  if (++seen.count != kReadsWorthPromoting) return;
  to_promote.emplace_back(key);
  if (node->wake_mover) node->wake_mover();
}

void Namespace::note_read(std::string_view key) {
  if (!check_key(key).ok()) return;
  std::lock_guard lock(impl_->mutex);
  if (!impl_->dropped) impl_->note_file_read(key);
}

Status Namespace::set_partitions(std::string_view key, std::string_view group, std::vector<uint64_t> offsets) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  std::lock_guard lock(impl_->mutex);
  if (impl_->dropped) return impl_->gone();
  const auto ref = impl_->find(key);
  if (!ref) return not_found(key);
  auto info = impl_->info_of(*ref);
  if (!info.ok()) return info.status();
  if (offsets.size() < 2 || offsets.size() > limits::kPartitionsMax + 1 || offsets.front() != 0 ||
      offsets.back() != info->size_bytes || !std::is_sorted(offsets.begin(), offsets.end())) {
    return Status(Code::kInvalidArgument, "partitions of an object begin at 0, ascend and end with it");
  }
  if (!impl_->node->nvme.enabled()) return Status();  // nobody would ask
  impl_->partitions.insert_or_assign(std::string(key), Impl::Partitions{std::string(group), std::move(offsets)});
  return Status();
}

// --- accounting and watching

void Namespace::count(Door door, uint64_t bytes_in, uint64_t bytes_out, uint64_t operations) {
  auto& traffic = impl_->traffic[static_cast<size_t>(door)];
  traffic.bytes_in.fetch_add(bytes_in, std::memory_order_relaxed);
  traffic.bytes_out.fetch_add(bytes_out, std::memory_order_relaxed);
  traffic.operations.fetch_add(operations, std::memory_order_relaxed);
}

Traffic Namespace::traffic(Door door) const {
  const auto& traffic = impl_->traffic[static_cast<size_t>(door)];
  return {traffic.bytes_in.load(), traffic.bytes_out.load(), traffic.operations.load()};
}

void Namespace::account_buffers(int64_t delta_bytes) {
  impl_->buffer_bytes.fetch_add(static_cast<uint64_t>(delta_bytes), std::memory_order_relaxed);
}

void Namespace::account_waiting(int64_t delta_bytes) {
  impl_->waiting_bytes.fetch_add(static_cast<uint64_t>(delta_bytes), std::memory_order_relaxed);
}

NamespaceStats Namespace::stats() {
  Impl& in = *impl_;
  std::lock_guard lock(in.mutex);
  in.account_segments(0, 0);
  NamespaceStats stats{};
  stats.objects = in.index->view().objects();
  stats.size_bytes = in.object_bytes;
  stats.segment_bytes = in.dram_bytes + in.nvme_bytes;
  stats.dram_bytes = in.dram_bytes;
  stats.nvme_bytes = in.nvme_bytes;
  stats.nvme_byte_seconds = in.nvme_byte_seconds;
  stats.demoted_bytes = in.demoted_bytes;
  stats.promoted_bytes = in.promoted_bytes;
  stats.cleaned_bytes = in.cleaned_bytes;
  stats.buffer_bytes = in.buffer_bytes.load(std::memory_order_relaxed) + in.waiting_bytes.load(std::memory_order_relaxed);
  stats.index_bytes = in.index->bytes();
  stats.peak_bytes = in.peak_bytes;
  stats.sealed_total = in.sealed_total;
  stats.dram_byte_seconds = in.byte_seconds;
  for (const auto& segment : in.segments) {
    if (!segment) continue;
    ++stats.segments;
    if (segment->memory && segment->writer != kNobody) stats.granted_bytes += segment->room();
    stats.dead_bytes += segment->dead_bytes();
  }
  const auto now = Clock::now();
  for (const auto& retiring : in.retiring) {
    if (now >= retiring.grace_ends) stats.held_bytes += retiring.segment->bytes();
  }
  return stats;
}

uint64_t Namespace::watch(std::string prefix, std::function<void(const WatchedEvent&)> callback) {
  std::lock_guard lock(impl_->mutex);
  const uint64_t id = impl_->next_watcher++;
  impl_->watchers.emplace(id, Impl::Watcher{std::move(prefix), std::move(callback)});
  return id;
}

void Namespace::unwatch(uint64_t id) {
  std::lock_guard lock(impl_->mutex);
  impl_->watchers.erase(id);
}

}  // namespace millrace
