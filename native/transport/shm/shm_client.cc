#include "transport/shm/shm_client.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <future>

#include "base/assert.h"
#include "base/crc32c.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace millrace {

using wire::Opcode;

namespace {

constexpr uint64_t kPopulateBytes = 8 * MiB;  // at once, so that the channel's thread stays responsive
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kPrefetchTag = 0;
constexpr uint32_t kSpinMicroseconds = 50;

uint64_t page_floor(uint64_t offset) { return offset & ~(kPageBytes - 1); }

}  // namespace

ShmClient::ShmClient(std::shared_ptr<Channel> channel, ServerGreeting greeting, Waker* waker)
    : Client(std::move(channel), std::move(greeting)), waker_(waker) {
  leaves_.resize((limits::kSegmentsPerNamespace + 1) / kLeafSegments + 1);
}

Result<std::unique_ptr<ShmClient>> ShmClient::create(std::shared_ptr<Channel> channel, ServerGreeting greeting,
                                                     Waker* waker) {
  std::unique_ptr<ShmClient> client(new ShmClient(std::move(channel), std::move(greeting), waker));
  std::vector<int> descriptors = std::move(client->greeting_.descriptors);
  client->greeting_.descriptors.clear();
  if (Status failed = client->map_shared(descriptors); !failed.ok()) return failed;
  client->channel_->set_events(client.get());
  client->channel_->watch_bell(client->wake_client_fd_, [raw = client.get()] { raw->on_bell(); });
  return client;
}

// Takes over the descriptors of the hello's reply.
Status ShmClient::map_shared(const std::vector<int>& descriptors) {
  MILLRACE_ASSERT(descriptors.size() == 4);
  wake_server_fd_ = descriptors[2];
  wake_client_fd_ = descriptors[3];
  auto index = Mapping::map(descriptors[0], greeting_.index_map_bytes, Mapping::Access::kRead, false);
  auto ring = Mapping::map(descriptors[1], greeting_.ring_bytes, Mapping::Access::kWrite, true);
  ::close(descriptors[0]);
  ::close(descriptors[1]);
  if (!index.ok()) return index.status();
  if (!ring.ok()) return ring.status();
  if (greeting_.index_map_bytes != limits::kIndexBytesMax || greeting_.ring_bytes != kSealRingBytes) {
    return Status(Code::kProtocol, "the daemon's index or ring has another layout");
  }
  const auto* header = reinterpret_cast<const IndexHeader*>((*index)->data());
  if (header->magic != kIndexMagic || header->version != kIndexVersion) {
    return Status(Code::kUnsupported, "the daemon's index has another version");
  }
  index_mapping_ = *index;
  index_ = IndexView(index_mapping_->data());
  ring_mapping_ = *ring;
  ring_ = reinterpret_cast<SealRing*>(ring_mapping_->data());
  return {};
}

ShmClient::~ShmClient() {
  close();
  if (wake_server_fd_ >= 0) ::close(wake_server_fd_);
  if (wake_client_fd_ >= 0) ::close(wake_client_fd_);
}

void ShmClient::close() {
  if (closed_) return;
  closed_ = true;
  if (ring_ != nullptr) kick();
  // While the channel still runs, so that grants are given back and unmapped segments confirmed at once.
  current_.reset();
  ahead_.clear();
  granted_.clear();
  reads_.reset();
  for (auto& segment : by_slot_) {
    if (segment != nullptr) forget_segment(*segment);
  }
  channel_->stop();
  channel_->set_events(nullptr);
  mapping_cache_.drop_old(MappingCache::Clock::time_point::max());  // nothing would drop them later
  {
    std::lock_guard lock(mail_mutex_);
    mail_.clear();
  }
  // Nobody looks into them any more: the channel's thread, which the bell calls, has ended.
  index_ = IndexView();
  index_mapping_.reset();
  ring_ = nullptr;
  ring_mapping_.reset();
}

// --- segments

// Alive while any mapping of the segment is, and the connection with it; tells the daemon at its end.
std::shared_ptr<void> ShmClient::make_hold(uint32_t number) {
  return std::shared_ptr<void>(nullptr, [channel = channel_, number](void*) {
    const wire::SegmentMessage message{number, 0};
    Channel::Request request{Opcode::kConfirmUnmapped, &message, sizeof(message)};
    if (channel->submit(request).ok()) channel->flush();
  });
}

// In memory or in a file.
ShmClient::MappedSegment* ShmClient::insert_segment(uint32_t number, std::shared_ptr<Mapping> mapping,
                                                    std::shared_ptr<SegmentFile> file) {
  auto hold = make_hold(number);
  if (mapping != nullptr) mapping->on_unmapped([hold] {});
  else file->on_freed([hold] {});
  uint32_t slot;
  if (free_slots_.empty()) {
    slot = static_cast<uint32_t>(by_slot_.size());
    by_slot_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  auto segment = std::make_unique<MappedSegment>();
  segment->number = number;
  segment->slot = slot;
  segment->bytes = mapping != nullptr ? mapping->bytes() : file->bytes();
  segment->data = mapping != nullptr ? mapping->data() : nullptr;
  segment->mapping = std::move(mapping);
  segment->file = std::move(file);
  segment->hold = hold;
  by_slot_[slot] = std::move(segment);
  auto& leaf = leaves_[number / kLeafSegments];
  if (leaf == nullptr) leaf = std::make_unique<Leaf>();
  (*leaf)[number % kLeafSegments] = by_slot_[slot].get();
  return by_slot_[slot].get();
}

void ShmClient::forget_segment(MappedSegment& segment) {
  // Nobody looks at it or writes to it: the memory may come back with the next grant.
  if (segment.write_mapping != nullptr && segment.mapping == segment.write_mapping && !closed_ &&
      segment.mapping.use_count() == 2) {
    std::shared_ptr<Mapping> mapping = std::move(segment.write_mapping);
    segment.mapping.reset();
    mapping->on_unmapped({});  // lets go of the hold, which confirms
    mapping_cache_.put(segment.identity, std::move(mapping));
  }
  (*leaves_[segment.number / kLeafSegments])[segment.number % kLeafSegments] = nullptr;
  free_slots_.push_back(segment.slot);
  by_slot_[segment.slot].reset();
}

Result<ShmClient::MappedSegment*> ShmClient::open_segment(uint32_t number) {
  if (number > limits::kSegmentsPerNamespace) return Status(Code::kCorrupt, "a segment number out of range");
  const wire::SegmentMessage message{number, 0};
  Channel::Request request{Opcode::kOpenSegment, &message, sizeof(message)};
  Result<std::shared_ptr<Mapping>> mapping(Code::kProtocol, "the reply does not fit the request");
  std::shared_ptr<SegmentFile> file;
  Status status = channel_->call(request, [&](ChannelReply& reply) {
    wire::OpenSegmentReply answer;
    if (!reply.read(&answer) || reply.descriptors.size() != 1) return;
    if (answer.tier == static_cast<uint32_t>(wire::Tier::kNvme)) {
      file = std::make_shared<SegmentFile>(std::exchange(reply.descriptors, {})[0], answer.segment_bytes);
    } else if (answer.segment_bytes <= limits::kSegmentBytesMax) {
      mapping = Mapping::map(reply.descriptors[0], answer.segment_bytes, Mapping::Access::kRead, false);
    }
  });
  if (!status.ok()) return status;
  if (file != nullptr) return insert_segment(number, nullptr, std::move(file));
  if (!mapping.ok()) return mapping.status();
  if (Status bad = check_segment_header((*mapping)->data(), (*mapping)->bytes()); !bad.ok()) return bad;
  MappedSegment* segment = insert_segment(number, *mapping, nullptr);
  populate_in_background(std::move(*mapping), 0);
  return segment;
}

// A first touch of each page is dear; done here it hides behind the reader's work.
void ShmClient::populate_in_background(std::shared_ptr<Mapping> mapping, uint64_t from) {
  channel_->post([this, channel = channel_.get(), mapping = std::move(mapping), from]() mutable {
    const uint64_t bytes = std::min(kPopulateBytes, mapping->bytes() - from);
    madvise(mapping->data() + from, bytes, MADV_POPULATE_READ);
    // Also ends where the owner has let go meanwhile.
    if (from + bytes < mapping->bytes() && mapping.use_count() > 1 && !channel->lost()) {
      populate_in_background(std::move(mapping), from + bytes);
    }
  });
}

// --- reading

Code ShmClient::locate(std::string_view key, Located* found, Verify verify) {
  if (__builtin_expect(key.empty() || key.size() > limits::kKeyBytesMax, 0)) {
    failure_ = check_key(key);
    return failure_.code();
  }
  if (__builtin_expect(index_.closed(), 0)) {
    failure_ = Status(Code::kNamespaceGone, "the namespace is gone");
    return Code::kNamespaceGone;
  }
  const uint64_t hash = hash_key(key);
  for (int attempt = 0; attempt < 1000; ++attempt) {
    bool missing = false;
    uint32_t missing_number = 0;
    bool corrupt = false;
    uint32_t damaged_in = 0;
    const bool hit = index_.find(hash, [&](SlotRef ref) {
      MappedSegment* segment = ref.segment <= limits::kSegmentsPerNamespace ? segment_at(ref.segment) : nullptr;
      if (segment == nullptr) {
        missing = true;
        missing_number = ref.segment;
        return true;
      }
      // Another client of the namespace may have written the entry: nothing in it is taken on trust.
      if (ref.entry_offset + sizeof(EntryHeader) + key.size() > segment->bytes) return false;
      if (segment->data == nullptr) {  // entries lie in memory, whatever lies in files
        corrupt = true;
        damaged_in = ref.segment;
        return true;
      }
      const uint8_t* at = segment->data + ref.entry_offset;
      const auto* header = reinterpret_cast<const EntryHeader*>(at);
      if (header->key_bytes != key.size() || std::memcmp(at + sizeof(EntryHeader), key.data(), key.size()) != 0) {
        return false;
      }
      const uint64_t payload_bytes = header->payload_bytes;
      const uint64_t payload_offset = ref.entry_offset + header->payload_offset;
      if (header->magic != kEntryMagic || payload_offset > segment->bytes ||
          payload_bytes > segment->bytes - payload_offset) {
        corrupt = true;
        damaged_in = ref.segment;
        return true;
      }
      *found = {segment,          ref.entry_offset,      payload_offset,        payload_bytes,
                header->sequence, header->payload_crc,   header->sealed_unix_s,
                header->kind == EntryKind::kManifest};
      return true;
    });
    if (!hit) return Code::kNotFound;
    if (corrupt) {
      failure_ = damaged(key, damaged_in);
      return Code::kCorrupt;
    }
    if (!missing) {
      if (verify == Verify::kNever || found->manifest) return Code::kOk;
      Status bad = verify_entry(key, *found, verify);
      if (__builtin_expect(bad.ok(), 1)) return Code::kOk;
      failure_ = std::move(bad);
      return failure_.code();
    }
    auto opened = open_segment(missing_number);
    // Retired under us: the key lies elsewhere by now, or is gone.
    if (!opened.ok() && opened.code() != Code::kNotFound) {
      failure_ = opened.status();
      return failure_.code();
    }
  }
  failure_ = Status(Code::kAborted, "the key is overwritten faster than it can be read");
  return failure_.code();
}

bool ShmClient::payload_holds(MappedSegment& segment, uint64_t offset, uint64_t bytes, uint32_t crc, Verify verify) {
  if (verify == Verify::kNever) return true;
  const bool remembered = bytes >= kRememberedBytesMin;
  const uint64_t unit = offset / kRememberedBytesMin;
  const uint64_t bit = uint64_t{1} << (unit % 64);
  if (remembered && segment.verified.empty()) segment.verified.resize(segment.bytes / kRememberedBytesMin / 64 + 1);
  if (remembered && verify == Verify::kOnce && (segment.verified[unit / 64] & bit) != 0) return true;
  if (crc32c(0, segment.data + offset, bytes) != crc) return false;
  if (remembered) segment.verified[unit / 64] |= bit;
  return true;
}

// Header and payload of the entry.
Status ShmClient::verify_entry(std::string_view key, const Located& found, Verify verify) {
  MappedSegment& segment = *found.segment;
  if (verify == Verify::kOnce && found.payload_bytes >= kRememberedBytesMin && !segment.verified.empty()) {
    const uint64_t unit = found.payload_offset / kRememberedBytesMin;
    if ((segment.verified[unit / 64] >> (unit % 64) & 1) != 0) return {};
  }
  auto entry = read_entry(segment.data, segment.bytes, found.entry_offset, true);
  if (!entry.ok()) return damaged(key, segment.number, entry.status().message());
  if (entry->payload_offset != found.payload_offset || entry->payload_bytes != found.payload_bytes ||
      !payload_holds(segment, found.payload_offset, found.payload_bytes, entry->payload_crc, verify)) {
    return damaged(key, segment.number);
  }
  return {};
}

Status ShmClient::info_of(std::string_view key, const Located& found, ObjectInfo* info) {
  *info = {found.payload_bytes, found.sequence, found.crc32c, found.sealed_unix_s};
  if (!found.manifest) return {};
  if (Status bad = verify_entry(key, found, Verify::kOnce); !bad.ok()) return bad;
  auto manifest = read_manifest(found.segment->data + found.payload_offset, found.payload_bytes);
  if (!manifest.ok()) return damaged(key, found.segment->number, manifest.status().message());
  info->size_bytes = manifest->header.object_bytes;
  info->crc32c = manifest->header.object_crc;
  return {};
}

// ABORTED where a part was retired meanwhile: locate it again.
Status ShmClient::extents_of(std::string_view key, const Located& found, Verify verify, uint64_t offset, uint64_t length,
                             std::vector<Extent>* extents, ObjectInfo* info) {
  extents->clear();
  if (!found.manifest) {
    *info = {found.payload_bytes, found.sequence, found.crc32c, found.sealed_unix_s};
    extents->push_back({found.segment, found.payload_offset, found.payload_bytes, found.crc32c});
    return verify == Verify::kNever ? Status() : verify_entry(key, found, verify);
  }
  // The manifest's own mapping must outlive the calls below.
  const std::shared_ptr<Mapping> keeper = found.segment->mapping;
  const uint32_t manifest_segment = found.segment->number;
  if (Status bad = verify_entry(key, found, std::max(verify, Verify::kOnce)); !bad.ok()) return bad;
  auto manifest = read_manifest(keeper->data() + found.payload_offset, found.payload_bytes);
  if (!manifest.ok()) return damaged(key, manifest_segment, manifest.status().message());
  *info = {manifest->header.object_bytes, found.sequence, manifest->header.object_crc, found.sealed_unix_s};
  const uint64_t end = offset + std::min(length, ~offset);
  uint64_t begin = 0;
  for (uint32_t i = 0; i < manifest->header.extents; ++i) {
    const ManifestExtent extent = manifest->extents[i];
    if (extent.segment > limits::kSegmentsPerNamespace) return damaged(key, manifest_segment, "a segment out of range");
    MappedSegment* segment = segment_at(extent.segment);
    if (segment == nullptr) {
      auto opened = open_segment(extent.segment);
      if (!opened.ok()) {
        return opened.code() == Code::kNotFound ? Status(Code::kAborted, "overwritten while it was read") : opened.status();
      }
      segment = *opened;
    }
    if (extent.offset > segment->bytes || extent.bytes > segment->bytes - extent.offset) {
      return damaged(key, manifest_segment, "a manifest that points outside of its segments");
    }
    const bool touched = begin < end && begin + extent.bytes > offset;
    if (touched && segment->data != nullptr && !payload_holds(*segment, extent.offset, extent.bytes, extent.crc, verify)) {
      return damaged(key, segment->number);
    }
    extents->push_back({segment, extent.offset, extent.bytes, extent.crc});
    begin += extent.bytes;
  }
  return {};
}

Status ShmClient::locate_extents(std::string_view key, std::vector<Extent>* extents, ObjectInfo* info, Verify verify,
                                 uint64_t offset, uint64_t length) {
  for (int attempt = 0; attempt < 1000; ++attempt) {
    Located found;
    const Code code = locate(key, &found, Verify::kNever);
    if (code == Code::kNotFound) return Status(code, "no object under the key '" + std::string(key) + "'");
    if (code != Code::kOk) return failure_;
    Status status = extents_of(key, found, verify, offset, length, extents, info);
    if (status.code() != Code::kAborted) return status;
  }
  return Status(Code::kAborted, "the key is overwritten faster than it can be read");
}

Result<ClientObject> ShmClient::get(std::string_view key, uint64_t offset, uint64_t length) {
  if (has_mail()) take_mail();
  std::vector<Extent> extents;
  ClientObject object;
  const uint64_t wanted = length == 0 ? ~uint64_t{0} : length;
  if (Status failed = locate_extents(key, &extents, &object.info, Verify::kOnce, offset, wanted); !failed.ok()) return failed;
  const uint64_t size = object.info.size_bytes;
  if (offset > size || length > size - offset) {
    return Status(Code::kOutOfRange, "a range past the end of an object of " + std::to_string(size) + " bytes");
  }
  uint64_t left = length == 0 ? size - offset : length;
  const uint64_t from = offset;
  const uint64_t bytes = left;
  for (const Extent& extent : extents) {
    if (left == 0) break;
    if (offset >= extent.bytes) {
      offset -= extent.bytes;
      continue;
    }
    if (extent.segment->data == nullptr) {  // in a file: all of it is read into memory of its own
      std::promise<Result<FileBytes>> promise;
      read(hold(key, object.info, extents), from, bytes, Verify::kOnce,
           [&](Result<FileBytes> result) { promise.set_value(std::move(result)); });
      start_reads();
      Result<FileBytes> result = promise.get_future().get();
      if (!result.ok()) return result.status();
      object.spans.assign(1, {result->data, result->bytes});
      object.keepers.assign(1, std::move(result->keeper));
      return object;
    }
    const uint64_t part = std::min(left, extent.bytes - offset);
    object.spans.push_back({extent.segment->data + extent.offset + offset, part});
    object.keepers.push_back(extent.segment->mapping);
    left -= part;
    offset = 0;
  }
  return object;
}

std::shared_ptr<HeldObject> ShmClient::hold(std::string_view key, const ObjectInfo& info,
                                            const std::vector<Extent>& extents) {
  std::vector<HeldObject::Extent> held;
  held.reserve(extents.size());
  uint64_t begin = 0;
  for (const Extent& extent : extents) {
    held.push_back({extent.segment->number, extent.segment->file, extent.segment->mapping, extent.offset, extent.bytes,
                    extent.crc, begin});
    begin += extent.bytes;
  }
  return std::make_shared<HeldObject>(key, info, std::move(held));
}

Status ShmClient::verify_held(const HeldObject& object, size_t index) {
  const HeldObject::Extent& extent = object.extents[index];
  MappedSegment* segment = segment_at(extent.segment);
  const bool known = segment != nullptr && segment->mapping == extent.mapping;  // not forgotten meanwhile
  const bool holds = known ? payload_holds(*segment, extent.offset, extent.bytes, extent.crc, Verify::kOnce)
                           : crc32c(0, extent.mapping->data() + extent.offset, extent.bytes) == extent.crc;
  return holds ? Status() : damaged(object.key, extent.segment);
}

void ShmClient::read(std::shared_ptr<HeldObject> object, uint64_t offset, uint64_t bytes, Verify verify,
                     FileReads::Done done) {
  if (reads_ == nullptr) reads_ = std::make_unique<FileReads>();
  note_read(*object, bytes);
  const auto check = verify == Verify::kNever  ? FileReads::Check::kNo
                     : verify == Verify::kOnce ? FileReads::Check::kWholeExtents
                                               : FileReads::Check::kWiden;
  reads_->add(std::move(object), offset, bytes, check, std::move(done));
}

void ShmClient::start_reads() {
  if (reads_ == nullptr) return;
  reads_->start();
  channel_->flush();
}

// Once for each time that the object's size is read, in the mean: who reads it a partition at a time, each once, has
// read it once.
void ShmClient::note_read(const HeldObject& object, uint64_t bytes) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  if (bytes < object.info.size_bytes && (random_ >> 11) * 0x1p-53 * object.info.size_bytes >= bytes) return;
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(object.key.size());
  // `start_reads` sends it; on a connection that is lost it does not matter.
  (void)channel_->submit(Channel::Request{Opcode::kNoteRead, &body, sizeof(body), object.key});
}

// --- grants

ShmClient::Grant::~Grant() {
  const wire::SegmentMessage message{number, 0};
  Channel::Request request{Opcode::kGiveBack, &message, sizeof(message)};
  if (channel->submit(request).ok()) channel->flush();
}

Status ShmClient::request_grant(uint64_t bytes, uint64_t tag) {
  if (bytes > limits::kSegmentBytesMax - kSegmentHeaderBytes) {
    return Status(Code::kObjectTooLarge, "no segment has that much contiguous room; write it in parts");
  }
  const wire::ReserveRequest body{bytes, channel_->timeout_ms(), 0};
  Channel::Request request{Opcode::kReserve, &body, sizeof(body)};
  request.sink = this;
  request.tag = tag;
  request.timeout_ms = channel_->timeout_ms() + 2000;  // the daemon keeps the time
  auto submitted = channel_->submit(request);
  if (!submitted.ok()) return submitted.status();
  channel_->flush();
  return {};
}

void ShmClient::prefetch() {
  if (prefetching_ || !ahead_.empty()) return;
  Status failed = request_grant(kGrantBytesMin, kPrefetchTag);
  if (failed.ok()) prefetching_ = true;
  else prefetch_failed_ = failed;
}

bool ShmClient::next_grant() {
  if (ahead_.empty() && has_mail()) take_mail();
  if (ahead_.empty()) return false;
  current_ = std::move(ahead_.front());
  ahead_.pop_front();
  return true;
}

bool ShmClient::room_for(size_t key_bytes, uint64_t payload_bytes) {
  do {
    if (current_ != nullptr && shape_entry(current_->next, key_bytes, payload_bytes).end <= current_->end) return true;
  } while (next_grant());
  if (!prefetching_) {
    const uint64_t bytes = std::max(kGrantBytesMin, entry_bytes_max(key_bytes, payload_bytes));
    Status failed = request_grant(bytes, kPrefetchTag);
    if (failed.ok()) prefetching_ = true;
    else prefetch_failed_ = failed;
  }
  return false;
}

Status ShmClient::take_grant_failure() {
  if (has_mail()) take_mail();
  return std::exchange(prefetch_failed_, Status());
}

Status ShmClient::take_grant(uint64_t tag, std::shared_ptr<Grant>* grant) {
  if (has_mail()) take_mail();
  auto found = granted_.find(tag);
  if (found == granted_.end()) return channel_->lost_status();
  auto result = std::move(found->second);
  granted_.erase(found);
  if (!result.ok()) return result.status();
  *grant = std::move(*result);
  return {};
}

Status ShmClient::wait_room(size_t key_bytes, uint64_t payload_bytes) {
  while (!room_for(key_bytes, payload_bytes)) {
    if (Status failed = take_grant_failure(); !failed.ok()) return failed;
    if (channel_->lost()) return channel_->lost_status();
    wait_mail(100);
  }
  return {};
}

Result<std::shared_ptr<ShmClient::Grant>> ShmClient::wait_grant(uint64_t bytes) {
  const uint64_t tag = next_tag_++;
  if (Status failed = request_grant(bytes, tag); !failed.ok()) return failed;
  std::shared_ptr<Grant> grant;
  for (;;) {
    if (Status failed = take_grant(tag, &grant); !failed.ok()) return failed;
    if (grant != nullptr) return grant;
    wait_mail(100);
  }
}

// --- writing

bool ShmClient::allocate(const std::shared_ptr<Grant>& grant, size_t key_bytes, uint64_t payload_bytes, Allocation* out) {
  if (grant == nullptr) return false;
  const EntryShape shape = shape_entry(grant->next, key_bytes, payload_bytes);
  if (shape.end > grant->end) return false;
  *out = {grant, grant->next, shape.payload_offset, payload_bytes};
  grant->next = shape.end;
  return true;
}

void ShmClient::finish(Allocation& allocation, EntryKind kind, std::string_view key, uint64_t payload_bytes, uint32_t crc) {
  MILLRACE_ASSERT(payload_bytes <= allocation.capacity_bytes);
  Grant& grant = *allocation.grant;
  const auto end_with = [&](uint64_t bytes) { return align_up(allocation.payload_offset + bytes, limits::kEntryAlignment); };
  if (grant.next == end_with(allocation.capacity_bytes)) grant.next = end_with(payload_bytes);
  allocation.capacity_bytes = payload_bytes;
  write_entry_header(grant.data, allocation.entry_offset, kind, key, payload_bytes, crc,
                     allocation.payload_offset - allocation.entry_offset);
}

void ShmClient::cancel(Allocation& allocation) {
  Grant& grant = *allocation.grant;
  if (grant.next == align_up(allocation.payload_offset + allocation.capacity_bytes, limits::kEntryAlignment)) {
    grant.next = allocation.entry_offset;
  }
  allocation.grant.reset();
}

bool ShmClient::push(const Allocation& allocation, uint64_t* position) {
  if (pushed_ - acked_seen_ >= limits::kSealRingSlots) {
    acked_seen_ = acked();
    if (pushed_ - acked_seen_ >= limits::kSealRingSlots) {
      kick();
      return false;
    }
  }
  ring_->slots[pushed_ & kSealRingMask] = {allocation.grant->number,
                                           static_cast<uint32_t>(allocation.entry_offset / limits::kEntryAlignment), 0, 0};
  ring_->head.store(++pushed_, std::memory_order_release);
  *position = pushed_;
  if (ring_->server_sleeping.load(std::memory_order_relaxed) != 0) kick();
  return true;
}

ShmClient::Push ShmClient::try_put(std::string_view key, const void* data, uint64_t bytes, uint64_t* position,
                                   Allocation* where) {
  if (pushed_ - acked_seen_ >= limits::kSealRingSlots) {
    acked_seen_ = acked();
    if (pushed_ - acked_seen_ >= limits::kSealRingSlots) {
      kick();
      return Push::kRingFull;
    }
  }
  if (current_ == nullptr || shape_entry(current_->next, key.size(), bytes).end > current_->end) {
    if (!room_for(key.size(), bytes)) return Push::kNeedsGrant;
  }
  Grant& grant = *current_;
  const uint64_t entry_offset = grant.next;
  const EntryShape shape = shape_entry(entry_offset, key.size(), bytes);
  grant.next = shape.end;
  const uint32_t crc = copy_crc32c(grant.data + shape.payload_offset, data, bytes, 0);
  write_entry_header(grant.data, entry_offset, EntryKind::kObject, key, bytes, crc);
  ring_->slots[pushed_ & kSealRingMask] = {grant.number,
                                           static_cast<uint32_t>(entry_offset / limits::kEntryAlignment), 0, 0};
  ring_->head.store(++pushed_, std::memory_order_release);
  *position = pushed_;
  if (where != nullptr) *where = {current_, entry_offset, shape.payload_offset, bytes};
  if (ring_->server_sleeping.load(std::memory_order_relaxed) != 0) kick();
  if (shape.end - grant.begin > (grant.end - grant.begin) / 4 && !prefetching_ && ahead_.empty()) prefetch();
  return Push::kPushed;
}

void ShmClient::kick() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (pushed_ == acked() || ring_->server_sleeping.load(std::memory_order_relaxed) == 0) return;
  if (ring_->server_sleeping.exchange(0) == 0) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_server_fd_, &one, sizeof(one));
}

bool ShmClient::spin_acked(uint64_t position, uint32_t microseconds) {
  if (acked() >= position) return true;
  kick();
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  do {
    for (int i = 0; i < 16; ++i) {
      if (acked() >= position) return true;
      __builtin_ia32_pause();
    }
  } while (std::chrono::steady_clock::now() < until);
  return acked() >= position;
}

bool ShmClient::request_ack_wake(uint64_t position) {
  ring_->client_waiting.store(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (acked() >= position) return false;
  kick();
  return true;
}

Status ShmClient::wait_acked(uint64_t position) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(channel_->timeout_ms());
  if (spin_acked(position, kSpinMicroseconds)) return {};
  for (;;) {
    uint64_t bells;
    {
      std::lock_guard lock(mail_mutex_);
      bells = bells_;
    }
    if (!request_ack_wake(position)) return {};
    if (channel_->lost()) return channel_->lost_status();
    if (std::chrono::steady_clock::now() > until) return Status(Code::kDeadlineExceeded, "the daemon did not seal in time");
    std::unique_lock lock(mail_mutex_);
    mail_came_.wait_for(lock, std::chrono::milliseconds(100), [&] { return bells_ != bells; });
  }
}

ObjectInfo ShmClient::info_of(const Allocation& allocation) const {
  const auto* header = reinterpret_cast<const EntryHeader*>(allocation.grant->data + allocation.entry_offset);
  return {header->payload_bytes, header->sequence, header->payload_crc, header->sealed_unix_s};
}

Result<ObjectInfo> ShmClient::seal(const Allocation& allocation, Condition condition) {
  wire::SealRequest body{};
  body.if_sequence = condition.if_sequence;
  body.segment = allocation.grant->number;
  body.entry_unit = static_cast<uint32_t>(allocation.entry_offset / limits::kEntryAlignment);
  body.if_absent = condition.if_absent;
  return call_for_info(Channel::Request{Opcode::kSeal, &body, sizeof(body)});
}

Result<ObjectInfo> ShmClient::put(std::string_view key, ConstSpan bytes, Condition condition) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  const bool conditional = condition.if_absent || condition.if_sequence != 0;
  Allocation where;
  uint64_t position;
  if (bytes.bytes <= kSharedEntryBytesMax && !conditional) {
    for (;;) {
      const Push pushed = try_put(key, bytes.data, bytes.bytes, &position, &where);
      if (pushed == Push::kPushed) break;
      Status failed = pushed == Push::kRingFull ? wait_acked(pushed_ - limits::kSealRingSlots / 2)
                                                : wait_room(key.size(), bytes.bytes);
      if (!failed.ok()) return failed;
    }
    if (Status failed = wait_acked(position); !failed.ok()) return failed;
    return info_of(where);
  }
  if (bytes.bytes > kContiguousBytesMax) return put_parts(key, bytes, condition);
  if (bytes.bytes <= kSharedEntryBytesMax) {
    if (Status failed = wait_room(key.size(), bytes.bytes); !failed.ok()) return failed;
    allocate(current_, key.size(), bytes.bytes, &where);
  } else {
    auto grant = wait_grant(entry_bytes_max(key.size(), bytes.bytes));
    if (!grant.ok()) return grant.status();
    allocate(*grant, key.size(), bytes.bytes, &where);
  }
  const uint32_t crc = copy_crc32c(where.payload(), bytes.data, bytes.bytes, 0);
  finish(where, EntryKind::kObject, key, bytes.bytes, crc);
  if (conditional) return seal(where, condition);
  while (!push(where, &position)) {
    if (Status failed = wait_acked(pushed_ - limits::kSealRingSlots / 2); !failed.ok()) return failed;
  }
  if (Status failed = wait_acked(position); !failed.ok()) return failed;
  return info_of(where);
}

Result<ObjectInfo> ShmClient::put_parts(std::string_view key, ConstSpan bytes, Condition condition) {
  std::vector<ManifestExtent> extents;
  ManifestHeader header{bytes.bytes, 0, 0};
  while (bytes.bytes > 0) {
    const uint64_t part = std::min(bytes.bytes, kPartBytes);
    auto grant = wait_grant(entry_bytes_max(key.size(), part));
    if (!grant.ok()) return grant.status();
    Allocation where;
    allocate(*grant, key.size(), part, &where);
    const uint32_t crc = copy_crc32c(where.payload(), bytes.data, part, 0);
    finish(where, EntryKind::kPart, key, part, crc);
    uint64_t position;
    while (!push(where, &position)) {
      if (Status failed = wait_acked(pushed_ - limits::kSealRingSlots / 2); !failed.ok()) return failed;
    }
    extents.push_back({(*grant)->number, crc, where.payload_offset, part});
    header.object_crc = crc32c_combine(header.object_crc, crc, part);
    bytes.data += part;
    bytes.bytes -= part;
  }
  header.extents = static_cast<uint32_t>(extents.size());
  const uint64_t manifest_bytes = sizeof(header) + extents.size() * sizeof(ManifestExtent);
  if (Status failed = wait_room(key.size(), manifest_bytes); !failed.ok()) return failed;
  Allocation where;
  allocate(current_, key.size(), manifest_bytes, &where);
  std::memcpy(where.payload(), &header, sizeof(header));
  std::memcpy(where.payload() + sizeof(header), extents.data(), extents.size() * sizeof(ManifestExtent));
  finish(where, EntryKind::kManifest, key, manifest_bytes, crc32c(0, where.payload(), manifest_bytes));
  // Over the socket: the daemon drains the ring first, so the parts are sealed by then.
  return seal(where, condition);
}

// --- mail

void ShmClient::take_mail() {
  std::vector<Mail> mail;
  {
    std::lock_guard lock(mail_mutex_);
    mail.swap(mail_);
    has_mail_.store(false, std::memory_order_release);
  }
  for (Mail& item : mail) {
    if (item.kind == Mail::Kind::kRetired) {
      MappedSegment* segment = segment_at(item.segment);
      if (segment == nullptr) continue;
      if (on_forget_) on_forget_(segment->number);
      forget_segment(*segment);
      continue;
    }
    if (item.tag == kPrefetchTag) prefetching_ = false;
    Result<std::shared_ptr<Grant>> result(Code::kProtocol, "a grant without its descriptor");
    if (!item.status.ok()) {
      result = item.status;
    } else {
      const wire::GrantReply& reply = item.grant;
      MappedSegment* segment = segment_at(reply.segment);
      if (item.mapping != nullptr) {
        if (segment == nullptr) {
          segment = insert_segment(reply.segment, item.mapping, nullptr);
        } else if (auto hold = segment->hold.lock()) {
          item.mapping->on_unmapped([hold] {});
        }
        segment->write_mapping = item.mapping;
        segment->identity = item.file;
      }
      if (segment != nullptr && segment->write_mapping != nullptr) {
        auto mapping = segment->write_mapping;
        uint8_t* data = mapping->data();
        result = std::shared_ptr<Grant>(
            new Grant{channel_, segment, segment->number, std::move(mapping), data, reply.begin, reply.begin, reply.end});
      }
    }
    if (item.tag == kPrefetchTag) {
      if (result.ok()) ahead_.push_back(std::move(*result));
      else prefetch_failed_ = result.status();
    } else {
      granted_.insert_or_assign(item.tag, std::move(result));
    }
  }
}

void ShmClient::wait_mail(uint32_t timeout_ms) {
  std::unique_lock lock(mail_mutex_);
  mail_came_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return !mail_.empty(); });
}

// On the channel's thread: the only place where a client waits for pages.
void ShmClient::on_reply(uint64_t tag, ChannelReply& reply) {
  Mail mail{Mail::Kind::kGrant};
  mail.tag = tag;
  mail.status = reply.status();
  if (mail.status.ok()) {
    const bool fits = reply.read(&mail.grant) && mail.grant.segment_bytes <= limits::kSegmentBytesMax &&
                      mail.grant.begin <= mail.grant.end && mail.grant.end <= mail.grant.segment_bytes &&
                      mail.grant.segment <= limits::kSegmentsPerNamespace && reply.descriptors.size() <= 1;
    if (!fits) {
      mail.status = Status(Code::kProtocol, "the reply does not fit the request");
    } else if (!reply.descriptors.empty()) {
      mail.file = FileIdentity::of(reply.descriptors[0]);
      mail.mapping = mapping_cache_.take(mail.file, mail.grant.segment_bytes);
      // The daemon has written its new number into it.
      if (mail.mapping != nullptr &&
          (!check_segment_header(mail.mapping->data(), mail.mapping->bytes()).ok() ||
           reinterpret_cast<const SegmentHeader*>(mail.mapping->data())->number != mail.grant.segment)) {
        mail.mapping = nullptr;
      }
      if (mail.mapping == nullptr) {
        auto mapping = Mapping::map(reply.descriptors[0], mail.grant.segment_bytes, Mapping::Access::kWrite, false);
        if (mapping.ok()) {
          mail.mapping = *mapping;
          const uint64_t from = page_floor(mail.grant.begin);
          madvise(mail.mapping->data() + from, mail.grant.end - from, MADV_POPULATE_WRITE);
        } else {
          mail.status = mapping.status();
        }
      }
    }
  }
  {
    std::lock_guard lock(mail_mutex_);
    mail_.push_back(std::move(mail));
    has_mail_.store(true, std::memory_order_release);
  }
  mail_came_.notify_all();
  if (waker_ != nullptr) waker_->on_mail();
}

void ShmClient::on_segment_retired(uint32_t segment) {
  Mail mail{Mail::Kind::kRetired};
  mail.segment = segment;
  {
    std::lock_guard lock(mail_mutex_);
    mail_.push_back(std::move(mail));
    has_mail_.store(true, std::memory_order_release);
  }
  mail_came_.notify_all();
  if (waker_ != nullptr) waker_->on_mail();
}

// Seen by everybody in the index, which is closed.
void ShmClient::on_namespace_dropped() {}

void ShmClient::on_lost(const Status& why) {
  {
    std::lock_guard lock(mail_mutex_);
    ++bells_;
  }
  mail_came_.notify_all();
  if (waker_ != nullptr) waker_->on_lost(why);
}

void ShmClient::on_batch_end() {
  if (waker_ != nullptr) waker_->on_batch_end();
}

void ShmClient::on_tick() { mapping_cache_.drop_old(MappingCache::Clock::now()); }

void ShmClient::on_bell() {
  {
    std::lock_guard lock(mail_mutex_);
    ++bells_;
  }
  mail_came_.notify_all();
  if (waker_ != nullptr) waker_->on_acked();
}

}  // namespace millrace
