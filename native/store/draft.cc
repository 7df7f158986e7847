// Objects that the daemon writes for remote clients, into segments of its own.
#include <unordered_set>

#include "base/crc32c.h"
#include "base/hash.h"
#include "store/namespace_impl.h"

namespace millrace {

namespace {

// A draft of unknown size takes room in steps that grow with it, so that it ends in few parts.
constexpr uint64_t kStepBytesMin = 64 * KiB;
constexpr uint64_t kStepBytesMax = limits::kSegmentBytesDefault / 2;

// The largest object that lies in one entry; above it objects lie in parts.
constexpr uint64_t kSingleEntryBytesMax = limits::kSegmentBytesMax - kSegmentHeaderBytes - 2 * KiB;

Status check_attributes(std::string_view attributes) {
  if (attributes.size() <= limits::kAttributesBytesMax) return Status();
  return Status(Code::kInvalidArgument, "the attributes of an object have at most " +
                                            std::to_string(limits::kAttributesBytesMax) + " bytes, these have " +
                                            std::to_string(attributes.size()));
}

uint64_t part_entry_bytes(uint64_t capacity_bytes) { return kPayloadOffsetMax + capacity_bytes + limits::kEntryAlignment; }

}  // namespace

Draft::Draft(Draft&& other) noexcept { *this = std::move(other); }

Draft& Draft::operator=(Draft&& other) noexcept {
  if (this == &other) return *this;
  abort();
  owner_ = std::move(other.owner_);
  key_ = std::move(other.key_);
  parts_ = std::move(other.parts_);
  size_bytes_ = std::exchange(other.size_bytes_, 0);
  expected_bytes_ = std::exchange(other.expected_bytes_, 0);
  other.owner_.reset();
  other.parts_.clear();
  return *this;
}

void Draft::abort() {
  if (!owner_) return;
  Namespace::Impl& in = *owner_->impl_;
  {
    std::lock_guard lock(in.mutex);
    in.drop_parts(*this);
  }
  owner_.reset();
}

// Lets go of what the draft has taken: none of it became an entry.
void Namespace::Impl::drop_parts(Draft& draft) {
  for (Draft::Part& part : draft.parts_) {
    part.segment->leave_out(part.entry_offset, align_up(part.payload_offset + part.capacity_bytes, limits::kEntryAlignment));
    --part.segment->drafts;
  }
  for (Draft::Part& part : draft.parts_) retire_if_dead(part.segment);
  draft.parts_.clear();
}

// Takes room for a part of `capacity` bytes in the daemon's segment. The payload starts where it would with
// the draft's key, so that a draft of one part becomes an ordinary entry.
Status Namespace::Impl::take_part(Draft& draft, uint64_t capacity_bytes) {
  if (dropped) return gone();
  auto segment = house_segment(part_entry_bytes(capacity_bytes));
  if (!segment.ok()) return segment.status();
  const uint64_t entry_offset = (*segment)->write_end;
  const uint64_t payload = shape_entry(entry_offset, draft.key_.size(), capacity_bytes).payload_offset;
  (*segment)->write_end = align_up(payload + capacity_bytes, limits::kEntryAlignment);
  ++(*segment)->drafts;
  draft.parts_.push_back({*segment, entry_offset, payload, capacity_bytes});
  return Status();
}

Result<Draft> Namespace::begin(std::string_view key) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  Draft draft;
  draft.key_ = key;
  draft.owner_ = shared_from_this();
  return draft;
}

Result<Draft> Namespace::begin(std::string_view key, uint64_t size_bytes, std::vector<Span>* spans) {
  spans->clear();
  if (size_bytes > limits::kObjectBytesMax) {
    return Status(Code::kObjectTooLarge, "an object has at most " + std::to_string(limits::kObjectBytesMax) + " bytes");
  }
  auto draft = begin(key);
  if (!draft.ok()) return draft;
  // What can never fit is refused before it takes everybody's room part by part.
  for (const auto& [what, most] : {std::pair("the namespace's limit", impl_->options.limit_bytes),
                                   std::pair("the namespace's dram limit", impl_->options.dram_limit_bytes),
                                   std::pair("the node's dram", impl_->node->options.dram.limit_bytes)}) {
    if (most != 0 && size_bytes > most) {
      return Status(Code::kResourceExhausted, std::to_string(size_bytes) + " bytes do not fit in " + what + " of " +
                                                  std::to_string(most) + " bytes");
    }
  }
  uint64_t left = size_bytes;
  Status failed;
  {
    std::lock_guard lock(impl_->mutex);
    while (left > 0 || draft->parts_.empty()) {
      const uint64_t bytes = size_bytes <= kSingleEntryBytesMax
                                 ? left
                                 : std::min(left, limits::kSegmentBytesDefault - kSegmentHeaderBytes - 2 * KiB);
      failed = impl_->take_part(*draft, bytes);
      if (!failed.ok()) break;
      Draft::Part& part = draft->parts_.back();
      part.bytes = bytes;
      part.crc_known = bytes == 0;
      if (bytes > 0) spans->push_back({part.segment->data() + part.payload_offset, bytes});
      left -= bytes;
    }
  }
  if (!failed.ok()) return failed;  // the draft's end takes the lock
  draft->size_bytes_ = size_bytes;
  return draft;
}

Status Draft::append(ConstSpan bytes) {
  if (!owner_) return Status(Code::kClosed, "the draft has ended");
  if (bytes.bytes > limits::kObjectBytesMax - size_bytes_) {
    return Status(Code::kObjectTooLarge, "an object has at most " + std::to_string(limits::kObjectBytesMax) + " bytes");
  }
  Namespace::Impl& in = *owner_->impl_;
  while (bytes.bytes > 0) {
    if (parts_.empty() || parts_.back().bytes == parts_.back().capacity_bytes) {
      std::lock_guard lock(in.mutex);
      const uint64_t wanted = expected_bytes_ > size_bytes_
                                  ? expected_bytes_ - size_bytes_
                                  : std::max(bytes.bytes, std::clamp(size_bytes_, kStepBytesMin, kStepBytesMax));
      uint64_t step = std::min(wanted, kStepBytesMax);
      // The rest of the segment in use first, where it is worth a part.
      const uint64_t room = in.house ? in.house->room() : 0;
      if (room >= part_entry_bytes(kStepBytesMin)) step = std::min(step, room - part_entry_bytes(0));
      if (Status failed = in.take_part(*this, step); !failed.ok()) return failed;
    }
    Part& part = parts_.back();
    const uint64_t now = std::min(bytes.bytes, part.capacity_bytes - part.bytes);
    part.crc = copy_crc32c(part.segment->data() + part.payload_offset + part.bytes, bytes.data, now, part.crc);
    part.bytes += now;
    size_bytes_ += now;
    bytes.data += now;
    bytes.bytes -= now;
  }
  return Status();
}

// Writes the draft's manifest, as its last part.
Status Namespace::Impl::take_manifest(Draft& draft, uint32_t object_crc, const std::vector<ManifestExtent>& extents,
                                      std::string_view attributes, uint8_t flags) {
  const uint64_t bytes = manifest_bytes(extents.size(), attributes.size());
  if (Status failed = take_part(draft, bytes); !failed.ok()) return failed;
  const Draft::Part& part = draft.parts_.back();
  const ManifestHeader header{draft.size_bytes_, object_crc, static_cast<uint32_t>(extents.size())};
  const uint32_t crc = write_manifest(part.segment->data() + part.payload_offset, header, extents.data(), attributes);
  write_entry_header(part.segment->data(), part.entry_offset, EntryKind::kManifest, draft.key_, bytes, crc,
                     part.payload_offset - part.entry_offset, flags);
  return Status();
}

// Publishes an entry that the daemon itself has written.
Result<ObjectInfo> Namespace::Impl::publish_own(Segment& segment, uint64_t entry_offset, std::string_view key) {
  auto entry = entry_at({segment.number, entry_offset});
  if (!entry.ok()) return entry.status();
  return publish(segment, entry_offset, *entry, key);
}

Result<ObjectInfo> Namespace::commit(Draft&& committed, Condition condition, const std::vector<uint32_t>* crcs,
                                     std::optional<uint32_t> expected, std::string_view attributes) {
  Draft draft = std::move(committed);
  if (draft.owner_.get() != this) return Status(Code::kClosed, "the draft has ended");
  if (Status bad = check_attributes(attributes); !bad.ok()) return bad;
  MILLRACE_ASSERT(crcs == nullptr || draft.size_bytes_ == 0 || crcs->size() == draft.parts_.size());
  Impl& in = *impl_;

  // Sums before the lock: they cost a pass over the bytes.
  uint32_t object_crc = 0;
  for (size_t i = 0; i < draft.parts_.size(); ++i) {
    Draft::Part& part = draft.parts_[i];
    if (!part.crc_known) {
      part.crc = crcs != nullptr ? (*crcs)[i] : crc32c(0, part.segment->data() + part.payload_offset, part.bytes);
      part.crc_known = true;
    }
    object_crc = i == 0 ? part.crc : crc32c_combine(object_crc, part.crc, part.bytes);
  }
  if (expected && *expected != object_crc) {
    return Status(Code::kChecksumMismatch, "the bytes received under '" + draft.key_ + "' do not have the checksum sent with them");
  }

  std::unique_lock lock(in.mutex);
  auto finish = [&](Result<ObjectInfo> result) {
    if (result.ok()) {
      for (Draft::Part& part : draft.parts_) --part.segment->drafts;
      draft.parts_.clear();
    } else {
      in.drop_parts(draft);
    }
    lock.unlock();
    draft.owner_.reset();
    return result;
  };
  if (in.dropped) return finish(in.gone());
  if (Status failed = in.check_condition(draft.key_, condition); !failed.ok()) return finish(failed);
  if (draft.size_bytes_ == 0 && !attributes.empty()) in.drop_parts(draft);
  if (draft.parts_.empty() && attributes.empty()) {
    if (Status failed = in.take_part(draft, 0); !failed.ok()) return finish(failed);
  }
  if (!draft.parts_.empty()) {
    // What the draft did not use goes back where nothing was written behind it.
    Draft::Part& part = draft.parts_.back();
    part.segment->give_back(align_up(part.payload_offset + part.bytes, limits::kEntryAlignment),
                            align_up(part.payload_offset + part.capacity_bytes, limits::kEntryAlignment));
    part.capacity_bytes = part.bytes;
  }
  if (draft.parts_.size() == 1 && attributes.empty()) {
    Draft::Part& part = draft.parts_[0];
    Segment& segment = *part.segment;
    write_entry_header(segment.data(), part.entry_offset, EntryKind::kObject, draft.key_, part.bytes, part.crc,
                       part.payload_offset - part.entry_offset);
    return finish(in.publish_own(segment, part.entry_offset, draft.key_));
  }

  // Parts, and a manifest that lists them.
  const size_t parts = draft.parts_.size();
  std::vector<ManifestExtent> extents;
  for (const Draft::Part& part : draft.parts_) {
    write_entry_header(part.segment->data(), part.entry_offset, EntryKind::kPart, draft.key_, part.bytes, part.crc,
                       part.payload_offset - part.entry_offset);
    extents.push_back({part.segment->number, part.crc, part.payload_offset, part.bytes});
  }
  if (Status failed = in.take_manifest(draft, object_crc, extents, attributes, 0); !failed.ok()) return finish(failed);
  const Draft::Part& last = draft.parts_.back();
  auto info = in.publish_own(*last.segment, last.entry_offset, draft.key_);
  if (info.ok()) {
    for (size_t i = 0; i < parts; ++i) {
      const Draft::Part& part = draft.parts_[i];
      auto entry = in.entry_at({part.segment->number, part.entry_offset});
      if (entry.ok()) in.seal_part(*part.segment, part.entry_offset, *entry);
    }
  }
  return finish(std::move(info));
}

Result<ObjectInfo> Namespace::join(std::string_view key, const std::vector<std::string>& parts, Condition condition,
                                   std::string_view attributes) {
  if (Status bad = check_attributes(attributes); !bad.ok()) return bad;
  if (parts.empty()) return Status(Code::kInvalidArgument, "a join takes at least one part");
  std::unordered_set<std::string_view> seen;
  for (const std::string& part : parts) {
    if (Status bad = check_key(part); !bad.ok()) return bad;
    if (part == key || !seen.insert(part).second) {
      return Status(Code::kInvalidArgument, "a join takes each part once, and none of the joined object's own key");
    }
  }
  auto draft = begin(key);
  if (!draft.ok()) return draft.status();
  Impl& in = *impl_;
  std::unique_lock lock(in.mutex);
  const auto join = [&]() -> Result<ObjectInfo> {
    if (in.dropped) return in.gone();
    if (Status failed = in.check_condition(key, condition); !failed.ok()) return failed;
    std::vector<SlotRef> refs;
    std::vector<ManifestExtent> extents;
    uint32_t crc = 0;
    for (const std::string& part : parts) {
      const auto ref = in.find(part);
      if (!ref) return Status(Code::kNotFound, "no object under the key '" + part + "', a part of '" + draft->key_ + "'");
      auto described = in.describe(*ref);
      if (!described.ok()) return described.status();
      crc = refs.empty() ? described->info.crc32c : crc32c_combine(crc, described->info.crc32c, described->info.size_bytes);
      refs.push_back(*ref);
      for (const ManifestExtent& extent : described->extents) {
        if (extent.bytes > 0) extents.push_back(extent);
      }
      draft->size_bytes_ += described->info.size_bytes;
      if (draft->size_bytes_ > limits::kObjectBytesMax || extents.size() > limits::kExtentsMax) {
        return Status(Code::kObjectTooLarge, "an object has at most " + std::to_string(limits::kObjectBytesMax) +
                                                 " bytes in " + std::to_string(limits::kExtentsMax) + " extents");
      }
    }
    if (extents.empty() && attributes.empty()) {  // an object of nothing is an object entry
      if (Status failed = in.take_part(*draft, 0); !failed.ok()) return failed;
      const Draft::Part& part = draft->parts_.back();
      write_entry_header(part.segment->data(), part.entry_offset, EntryKind::kObject, key, 0, 0,
                         part.payload_offset - part.entry_offset);
    } else if (Status failed = in.take_manifest(*draft, crc, extents, attributes, kEntryJoined); !failed.ok()) {
      return failed;
    }
    // Who dies after this leaves both, and recovery lets go of the parts.
    const Draft::Part& own = draft->parts_.back();
    auto info = in.publish_own(*own.segment, own.entry_offset, key);
    if (!info.ok()) return info;
    for (const ManifestExtent& extent : extents) {
      if (auto segment = in.segment_at(extent.segment)) segment->live_bytes += extent.bytes;
    }
    for (size_t i = 0; i < parts.size(); ++i) {
      in.index->remove(hash_key(parts[i]), [&](SlotRef ref) { return in.key_equals(ref, parts[i]); });
      in.note_change(refs[i], false);
      if (!in.watchers.empty()) {
        auto gone = in.info_of(refs[i]);
        if (gone.ok()) in.tell_watchers(true, parts[i], *gone);
      }
      in.release(refs[i], Impl::Fate::kJoined);
    }
    in.note_joined(extents, key);
    --own.segment->drafts;
    draft->parts_.clear();
    return info;
  };
  auto joined = join();
  if (!joined.ok()) in.drop_parts(*draft);
  lock.unlock();
  return joined;
}

}  // namespace millrace
