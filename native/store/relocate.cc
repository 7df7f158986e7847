#include "store/relocate.h"

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <optional>
#include <unordered_set>

#include "base/crc32c.h"
#include "base/hash.h"

namespace millrace {

// An object on its way. `extents` say where its bytes are, and after the copy where they will be.
struct Move {
  std::string key;
  SlotRef ref;
  uint64_t sequence;
  uint32_t sealed_unix_s;
  uint64_t size_bytes;
  uint32_t crc;
  bool manifest;                // lies in parts now
  bool joined;                  // and some of them may bear other keys
  std::string attributes;
  bool whole = false;           // becomes one entry in memory
  bool stays = false;           // is too small for a file: its parts stay in memory
  bool damaged = false;
  std::vector<ManifestExtent> extents;
  std::vector<bool> moves;      // by extent: it lies in a victim
};

namespace {

constexpr size_t kEntriesPerLock = 512;          // collected or published before others get the lock
constexpr uint64_t kCopiedBytesPerLock = 4 * MiB;
constexpr uint64_t kPromotedBytesMax = limits::kSegmentBytesDefault;

// A stretch of an object that is copied.
struct Piece {
  size_t move;
  size_t extent;
  bool crc_known;
  size_t group = 0;
  uint64_t partition = 0;
};

// A victim's bytes: its memory, or what was read of its file.
struct Source {
  std::shared_ptr<Segment> segment;
  FileBytes read;
  const uint8_t* data = nullptr;
  const uint8_t* at(const ManifestExtent& extent) const {
    const uint64_t bytes = segment->bytes();
    return extent.offset <= bytes && extent.bytes <= bytes - extent.offset ? data + extent.offset : nullptr;
  }
};

// --- with the lock held

Result<Move> describe(Namespace::Impl& in, const std::string& key, SlotRef ref) {
  auto object = in.describe(ref);
  if (!object.ok()) return object.status();
  const ObjectInfo& info = object->info;
  Move move{key, ref, info.sequence, info.sealed_unix_s, info.size_bytes, info.crc32c, object->manifest, object->joined};
  move.attributes = std::move(object->attributes);
  move.extents = std::move(object->extents);
  return move;
}

bool unchanged(Namespace::Impl& in, const Move& move) {
  if (in.dropped) return false;
  const auto ref = in.find(move.key);
  return ref && ref->segment == move.ref.segment && ref->entry_offset == move.ref.entry_offset;
}

// Room for an entry in memory.
struct Room {
  std::shared_ptr<Segment> segment;
  uint64_t entry_offset;
  EntryShape shape;
};

// What must stay in memory goes to one segment, what may go down again to another.
Result<Room> take_room(Namespace::Impl& in, size_t key_bytes, uint64_t payload_bytes, bool kept) {
  const uint64_t most = entry_bytes_max(key_bytes, payload_bytes);
  auto segment = in.relocation_segment(most, kept);
  if (!segment.ok()) return segment.status();
  const uint64_t entry_offset = (*segment)->write_end;
  const EntryShape shape = shape_entry(entry_offset, key_bytes, payload_bytes);
  (*segment)->write_end = shape.end;
  return Room{*segment, entry_offset, shape};
}

// Makes the entry in `room` the object's and lets go of the old one.
Status publish_entry(Namespace::Impl& in, const Move& move, const Room& room, bool lists_extents) {
  const SlotRef ref{room.segment->number, room.entry_offset};
  mark_sealed(room.segment->data(), room.entry_offset, move.sequence, move.sealed_unix_s);
  auto before = in.index->put(hash_key(move.key), ref, [&](SlotRef other) { return in.key_equals(other, move.key); });
  if (!before.ok()) return before.status();
  room.segment->live_bytes += room.shape.end - room.entry_offset;
  if (lists_extents) {
    for (const ManifestExtent& extent : move.extents) {
      if (auto part = in.segment_at(extent.segment)) part->live_bytes += extent.bytes;
    }
  }
  in.object_bytes += move.size_bytes;
  in.note_change(ref, true);
  in.release(move.ref, Namespace::Impl::Fate::kMoved);
  if (lists_extents && move.joined) in.note_joined(move.extents, move.key);
  return Status();
}

// Takes room for the object's manifest, writes it and makes it the object's.
Status publish_manifest(Namespace::Impl& in, const Move& move) {
  const uint64_t bytes = manifest_bytes(move.extents.size(), move.attributes.size());
  auto room = take_room(in, move.key.size(), bytes, true);
  if (!room.ok()) return room.status();
  const ManifestHeader header{move.size_bytes, move.crc, static_cast<uint32_t>(move.extents.size())};
  const uint32_t crc = write_manifest(room->segment->data() + room->shape.payload_offset, header, move.extents.data(),
                                      move.attributes);
  write_entry_header(room->segment->data(), room->entry_offset, EntryKind::kManifest, move.key, bytes, crc, 0,
                     move.joined ? kEntryJoined : 0);
  return publish_entry(in, move, *room, true);
}

// --- a relocation

class Relocation {
 public:
  Relocation(Namespace::Impl& in, RelocateTo to) : in_(in), to_(to) {}

  Relocated run(const std::vector<std::shared_ptr<Segment>>& victims);

 private:
  Status collect(const Source& source);
  void collect_entry(const Source& source, const Entry& entry, uint64_t entry_offset);
  bool collect_part(const Source& source, uint64_t payload_offset, const std::string& key);
  void add(const std::string& key, SlotRef ref);
  void plan();
  Status copy_to_file();
  Status write_piece(SegmentFileWriter& writer, const Piece& piece, uint8_t* scratch);
  Status publish_manifests();
  Status copy_to_memory();

  Namespace::Impl& in_;
  const RelocateTo to_;
  std::vector<Source> sources_;
  std::unordered_map<uint32_t, size_t> source_of_;  // by segment number
  std::vector<Move> moves_;
  std::unordered_set<std::string> collected_;  // keys of `moves_`
  std::vector<Piece> pieces_;
  std::vector<Piece> small_pieces_;  // go to memory
  std::shared_ptr<Segment> file_;
  uint32_t file_number_ = 0;
  Relocated result_;
};

// --- collect

void Relocation::add(const std::string& key, SlotRef ref) {
  auto described = describe(in_, key, ref);
  if (!described.ok()) return;  // spoilt: it stays where it is
  Move move = std::move(*described);
  for (const ManifestExtent& extent : move.extents) move.moves.push_back(source_of_.contains(extent.segment));
  collected_.insert(key);
  moves_.push_back(std::move(move));
}

void Relocation::collect_entry(const Source& source, const Entry& entry, uint64_t entry_offset) {
  if (!in_.joined.empty() && entry.kind != EntryKind::kManifest) {
    const auto owner = in_.joined.find({source.segment->number, entry.payload_offset});
    if (owner != in_.joined.end() && collect_part(source, entry.payload_offset, *owner->second)) return;
  }
  if (entry.key.empty()) return;  // a part of which nobody can tell whose it is
  const std::string key(entry.key);
  if (entry.kind == EntryKind::kPart) {
    collect_part(source, entry.payload_offset, key);
    return;
  }
  const auto ref = collected_.contains(key) ? std::nullopt : in_.find(key);
  if (ref && ref->segment == source.segment->number && ref->entry_offset == entry_offset) add(key, *ref);
}

// A part lives where a manifest lists it. Whether that of `key` does.
bool Relocation::collect_part(const Source& source, uint64_t payload_offset, const std::string& key) {
  if (collected_.contains(key)) return true;
  const auto ref = in_.find(key);
  if (!ref) return false;
  auto owner = describe(in_, key, *ref);
  if (!owner.ok() || !owner->manifest) return false;
  for (const ManifestExtent& extent : owner->extents) {
    if (extent.segment != source.segment->number || extent.offset != payload_offset) continue;
    add(key, *ref);
    return true;
  }
  return false;
}

Status Relocation::collect(const Source& source) {
  const Segment& segment = *source.segment;
  uint64_t offset = kSegmentHeaderBytes;
  for (;;) {
    std::lock_guard lock(in_.mutex);
    if (in_.dropped) return in_.gone();
    for (size_t n = 0; n < kEntriesPerLock; ++n) {
      if (offset >= segment.write_end) return Status();
      if (auto hole = segment.holes.find(offset); hole != segment.holes.end()) {
        offset = hole->second;
        continue;
      }
      auto entry = read_entry(source.data, segment.bytes(), offset, true);
      if (!entry.ok()) return Status();  // the end of a file, or spoilt by its own client: the rest stays
      if (segment.file || entry->state == EntryState::kSealed) {
        collect_entry(source, *entry, offset);
      }
      offset = entry->end;
    }
  }
}

// --- plan

void Relocation::plan() {
  std::unordered_map<std::string, size_t> group_of;
  std::lock_guard lock(in_.mutex);
  for (size_t m = 0; m < moves_.size(); ++m) {
    Move& move = moves_[m];
    const bool all_move = std::all_of(move.moves.begin(), move.moves.end(), [](bool moves) { return moves; });
    move.whole = to_ == RelocateTo::kMemory ? !move.manifest : !move.manifest && move.size_bytes < kDemotedBytesMin;
    if (move.whole) continue;
    move.stays = to_ == RelocateTo::kFile && move.size_bytes < kDemotedBytesMin;
    // What moves gets entries that bear its key.
    move.joined = move.joined && !all_move;
    auto parted = in_.partitions.find(move.key);
    if (to_ == RelocateTo::kMemory || move.stays || !all_move || parted == in_.partitions.end() ||
        parted->second.offsets.back() != move.size_bytes) {
      for (size_t e = 0; e < move.extents.size(); ++e) {
        if (move.moves[e]) (move.stays ? small_pieces_ : pieces_).push_back({m, e, true});
      }
      continue;
    }
    // One extent a partition (or more, where the object lay in several), so that each can lie beside its like.
    const size_t group = group_of.emplace(parted->second.group, group_of.size() + 1).first->second;
    std::vector<ManifestExtent> cut;
    const auto& offsets = parted->second.offsets;
    size_t from = 0;
    uint64_t skipped = 0;  // of extent `from`
    for (size_t r = 0; r + 1 < offsets.size(); ++r) {
      uint64_t left = offsets[r + 1] - offsets[r];
      while (left > 0) {
        const ManifestExtent& extent = move.extents[from];
        const uint64_t bytes = std::min(left, extent.bytes - skipped);
        if (bytes > 0) {
          const bool crc_known = bytes == extent.bytes;
          pieces_.push_back({m, cut.size(), crc_known, group, r});
          cut.push_back({extent.segment, crc_known ? extent.crc : 0, extent.offset + skipped, bytes});
        }
        left -= bytes;
        skipped += bytes;
        if (skipped == extent.bytes) {
          ++from;
          skipped = 0;
        }
      }
    }
    move.extents = std::move(cut);
    move.moves.assign(move.extents.size(), true);
  }
  std::stable_sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) {
    return std::pair(a.group, a.partition) < std::pair(b.group, b.partition);
  });
}

// --- to a file

Status Relocation::write_piece(SegmentFileWriter& writer, const Piece& piece, uint8_t* scratch) {
  Move& move = moves_[piece.move];
  ManifestExtent& extent = move.extents[piece.extent];
  const uint8_t* bytes = sources_[source_of_.at(extent.segment)].at(extent);
  if (bytes == nullptr || move.damaged) {
    move.damaged = true;
    return Status();
  }
  uint32_t crc = piece.crc_known ? extent.crc : crc32c(0, bytes, extent.bytes);
  const uint64_t entry_offset = writer.position();
  const EntryShape shape = shape_entry(entry_offset, move.key.size(), extent.bytes);
  // The header is written behind that of the segment, whose number goes into its checksum.
  uint8_t* entry = scratch + sizeof(SegmentHeader);
  write_entry_header(scratch, sizeof(SegmentHeader), EntryKind::kPart, move.key, extent.bytes, crc,
                     shape.payload_offset - entry_offset);
  mark_sealed(scratch, sizeof(SegmentHeader), move.sequence, move.sealed_unix_s);
  if (Status failed = writer.append(entry, sizeof(EntryHeader) + move.key.size()); !failed.ok()) return failed;
  if (Status failed = writer.pad(payload_alignment(extent.bytes)); !failed.ok()) return failed;
  MILLRACE_ASSERT(writer.position() == shape.payload_offset);
  uint32_t copied_crc = 0;
  if (Status failed = writer.append(bytes, extent.bytes, &copied_crc); !failed.ok()) return failed;
  if (Status failed = writer.pad(limits::kEntryAlignment); !failed.ok()) return failed;
  if (copied_crc != crc) {
    move.damaged = true;  // stays where it is: who reads it is told
    return Status();
  }
  extent = {file_number_, crc, shape.payload_offset, extent.bytes};
  return Status();
}

Status Relocation::copy_to_file() {
  if (pieces_.empty()) return Status();
  uint64_t bytes = kSegmentHeaderBytes;
  for (const Piece& piece : pieces_) {
    const Move& move = moves_[piece.move];
    bytes = shape_entry(bytes, move.key.size(), move.extents[piece.extent].bytes).end;
  }
  {
    std::lock_guard lock(in_.mutex);
    if (in_.segments.size() > limits::kSegmentsPerNamespace) {
      return Status(Code::kResourceExhausted, "namespace '" + in_.name + "' has used up its segment numbers");
    }
    file_number_ = static_cast<uint32_t>(in_.segments.size());
    in_.segments.push_back(nullptr);
  }
  auto writer = in_.node->nvme.create(token_hex(in_.options.token), segment_file_name(file_number_), bytes);
  if (!writer.ok()) return writer.status();
  std::vector<uint8_t> scratch(kSegmentHeaderBytes, 0);
  write_segment_header(scratch.data(), align_up(bytes, 4096), file_number_, in_.name, in_.options.token.data(), unix_ms());
  if (Status failed = (*writer)->append(scratch.data(), kSegmentHeaderBytes); !failed.ok()) return failed;
  for (const Piece& piece : pieces_) {
    if (Status failed = write_piece(**writer, piece, scratch.data()); !failed.ok()) return failed;
  }
  for (Move& move : moves_) {
    if (move.whole || move.stays || move.damaged || move.extents.empty()) continue;
    // What was cut was summed piece by piece: the whole must still be what was sealed.
    uint32_t crc = 0;
    for (const ManifestExtent& extent : move.extents) crc = crc32c_combine(crc, extent.crc, extent.bytes);
    if (crc != move.crc) move.damaged = true;
  }
  auto file = (*writer)->finish();
  if (!file.ok()) return file.status();
  file_ = std::make_shared<Segment>(file_number_, std::move(*file));
  return Status();
}

// --- publish

Status Relocation::publish_manifests() {
  size_t next = 0;
  Status status;
  while (next < moves_.size() && status.ok()) {
    std::lock_guard lock(in_.mutex);
    if (in_.dropped) return in_.gone();
    if (file_ && next == 0) {
      file_->drafts = 1;  // not to be retired before all of it is told
      in_.segments[file_number_] = file_;
      in_.account(*file_, 1);
    }
    for (size_t n = 0; n < kEntriesPerLock && next < moves_.size() && status.ok(); ++n, ++next) {
      Move& move = moves_[next];
      if (move.whole || move.damaged || !unchanged(in_, move)) continue;
      for (const ManifestExtent& extent : move.extents) {
        if (extent.segment == file_number_) result_.bytes += extent.bytes;
      }
      ++result_.objects;
      status = publish_manifest(in_, move);
    }
  }
  std::lock_guard lock(in_.mutex);
  if (file_ && !in_.dropped) {
    file_->drafts = 0;
    in_.retire_if_dead(file_);
  }
  return status;
}

// --- to memory

// Whole objects become entries of memory; so do the parts of others, whose manifests are then published.
Status Relocation::copy_to_memory() {
  struct Copy {
    size_t move;
    size_t extent;
    bool part;
    Room room;
  };
  std::vector<std::pair<size_t, size_t>> wanted;  // move, extent
  for (size_t m = 0; m < moves_.size(); ++m) {
    if (moves_[m].whole) wanted.emplace_back(m, 0);
  }
  if (to_ == RelocateTo::kMemory) {
    for (const Piece& piece : pieces_) wanted.emplace_back(piece.move, piece.extent);
  }
  for (const Piece& piece : small_pieces_) wanted.emplace_back(piece.move, piece.extent);
  std::vector<std::shared_ptr<Segment>> filled;  // with parts whose manifests are not published yet
  Status status;
  for (size_t next = 0; next < wanted.size() && status.ok();) {
    std::vector<Copy> copies;
    {
      std::lock_guard lock(in_.mutex);
      if (in_.dropped) return in_.gone();
      uint64_t bytes = 0;
      while (next < wanted.size() && copies.size() < kEntriesPerLock && bytes < kCopiedBytesPerLock) {
        const auto [m, e] = wanted[next];
        const Move& move = moves_[m];
        if (move.whole && !unchanged(in_, move)) {
          ++next;
          continue;
        }
        const bool small = in_.node->nvme.enabled() && move.size_bytes < kDemotedBytesMin;
        const bool kept = small && (move.whole || move.stays);
        auto room = take_room(in_, move.key.size(), move.extents[e].bytes, kept);
        if (!room.ok()) {
          status = room.status();
          break;
        }
        ++room->segment->drafts;
        bytes += move.extents[e].bytes;
        copies.push_back({m, e, !move.whole, *room});
        ++next;
      }
    }
    std::vector<bool> right(copies.size());
    for (size_t i = 0; i < copies.size(); ++i) {
      const Copy& copy = copies[i];
      Move& move = moves_[copy.move];
      const ManifestExtent& extent = move.extents[copy.extent];
      const uint8_t* from = sources_[source_of_.at(extent.segment)].at(extent);
      uint8_t* base = copy.room.segment->data();
      right[i] = from != nullptr &&
                 copy_crc32c(base + copy.room.shape.payload_offset, from, extent.bytes, 0) == extent.crc;
      if (!right[i]) {
        move.damaged = true;
        continue;
      }
      write_entry_header(base, copy.room.entry_offset, copy.part ? EntryKind::kPart : EntryKind::kObject, move.key,
                         extent.bytes, extent.crc);
    }
    std::lock_guard lock(in_.mutex);
    if (in_.dropped) return in_.gone();
    for (size_t i = copies.size(); i-- > 0;) {
      const Copy& copy = copies[i];
      Move& move = moves_[copy.move];
      ManifestExtent& extent = move.extents[copy.extent];
      Segment& segment = *copy.room.segment;
      bool used = right[i];
      if (used && copy.part) {
        mark_sealed(segment.data(), copy.room.entry_offset, move.sequence, move.sealed_unix_s);
        extent = {segment.number, extent.crc, copy.room.shape.payload_offset, extent.bytes};
        result_.bytes += extent.bytes;
        filled.push_back(copy.room.segment);
        continue;  // counted as a draft until its manifest is published
      }
      used = used && unchanged(in_, move);
      if (used) {
        result_.bytes += move.size_bytes;
        ++result_.objects;
        status = publish_entry(in_, move, copy.room, false);
      } else {
        segment.leave_out(copy.room.entry_offset, copy.room.shape.end);
      }
      --segment.drafts;
      in_.retire_if_dead(copy.room.segment);
    }
  }
  if (!status.ok()) {
    // Parts that were not copied keep their objects where they are.
    for (const auto& [m, e] : wanted) {
      if (source_of_.contains(moves_[m].extents[e].segment)) moves_[m].damaged = true;
    }
  }
  Status published = publish_manifests();
  if (status.ok()) status = published;
  std::lock_guard lock(in_.mutex);
  for (const auto& segment : filled) {
    --segment->drafts;
    if (!in_.dropped) in_.retire_if_dead(segment);
  }
  return status;
}

// --- all of it

Relocated Relocation::run(const std::vector<std::shared_ptr<Segment>>& victims) {
  for (const auto& victim : victims) {
    source_of_.emplace(victim->number, sources_.size());
    sources_.push_back({victim, {}, victim->memory ? victim->data() : nullptr});
  }
  {
    std::lock_guard lock(in_.mutex);
    for (const auto& victim : victims) {
      victim->moving = true;
      std::erase(in_.open, victim);
    }
  }
  Status status;
  for (Source& source : sources_) {
    if (source.segment->file) {
      auto read = in_.node->reader.read_now(source.segment->file, 0, source.segment->bytes());
      if (!read.ok()) continue;
      source.read = std::move(*read);
      source.data = source.read.data;
    }
    status = collect(source);
    if (!status.ok()) break;
  }
  if (status.ok()) {
    plan();
    if (to_ == RelocateTo::kFile) status = copy_to_file();
    if (status.ok()) status = copy_to_memory();
  }
  result_.status = status;
  std::lock_guard lock(in_.mutex);
  constexpr auto kStuckFor = std::chrono::seconds(5);
  for (Source& source : sources_) {
    Segment& segment = *source.segment;
    segment.moving = false;
    if (segment.retired || in_.dropped) continue;
    in_.retire_if_dead(source.segment);
    if (segment.retired) continue;
    segment.stuck_until = Clock::now() + kStuckFor;
  }
  return std::move(result_);
}

}  // namespace

// --- back to memory

// One extent on its way from its file.
struct Promotion::Read {
  std::mutex mutex;
  std::condition_variable arrived;
  std::optional<Result<FileBytes>> bytes;
};

Promotion::Promotion(std::shared_ptr<Namespace> ns, Namespace::Impl& in, std::string key)
    : ns_(std::move(ns)), in_(in), key_(std::move(key)) {
  {
    std::lock_guard lock(in_.mutex);
    const auto ref = in_.dropped ? std::nullopt : in_.find(key_);
    if (!ref) return;
    auto move = describe(in_, key_, *ref);
    if (!move.ok() || move->size_bytes > kPromotedBytesMax) return;
    bool in_files = false;
    for (const ManifestExtent& extent : move->extents) {
      auto segment = in_.segment_at(extent.segment);
      if (!segment || extent.offset > segment->bytes() || extent.bytes > segment->bytes() - extent.offset) return;
      in_files |= segment->file != nullptr;
      segments_.push_back(std::move(segment));
    }
    if (!in_files) return;
    move_ = std::make_unique<Move>(std::move(*move));
  }
  for (size_t e = 0; e < segments_.size(); ++e) {
    reads_.push_back(segments_[e]->file ? std::make_shared<Read>() : nullptr);
    if (!segments_[e]->file) continue;
    const ManifestExtent& extent = move_->extents[e];
    in_.node->reader.read(segments_[e]->file, extent.offset, extent.bytes, [read = reads_[e]](Result<FileBytes> bytes) {
      std::lock_guard lock(read->mutex);
      read->bytes = std::move(bytes);
      read->arrived.notify_one();
    });
  }
}

Promotion::~Promotion() = default;

Result<bool> Promotion::finish() {
  if (!move_) return false;
  std::optional<Result<Room>> room;
  {
    std::lock_guard lock(in_.mutex);
    if (!unchanged(in_, *move_)) return false;
    room = take_room(in_, key_.size(), move_->size_bytes, false);
    if (!room->ok()) return room->status();
    ++(*room)->segment->drafts;
  }
  const std::shared_ptr<Segment> segment = (*room)->segment;
  uint8_t* to = segment->data() + (*room)->shape.payload_offset;
  uint32_t crc = 0;
  Status status;
  for (size_t e = 0; e < move_->extents.size() && status.ok(); ++e) {
    const ManifestExtent& extent = move_->extents[e];
    if (reads_[e] == nullptr) {
      crc = copy_crc32c(to, segments_[e]->data() + extent.offset, extent.bytes, crc);
    } else {
      std::unique_lock lock(reads_[e]->mutex);
      reads_[e]->arrived.wait(lock, [&] { return reads_[e]->bytes.has_value(); });
      Result<FileBytes>& bytes = *reads_[e]->bytes;
      if (bytes.ok()) crc = copy_crc32c(to, bytes->data, extent.bytes, crc);
      else status = bytes.status();
    }
    to += extent.bytes;
  }
  if (status.ok() && crc != move_->crc) {
    status = Status(Code::kCorrupt, "the object under '" + key_ + "' is damaged in segment " +
                                        std::to_string(move_->extents.front().segment));
  }
  const bool part = !move_->attributes.empty();  // they need a manifest
  if (status.ok()) {
    write_entry_header(segment->data(), (*room)->entry_offset, part ? EntryKind::kPart : EntryKind::kObject, key_,
                       move_->size_bytes, move_->crc);
  }
  std::lock_guard lock(in_.mutex);
  bool moved = false;
  if (status.ok() && unchanged(in_, *move_)) {
    if (part) {
      mark_sealed(segment->data(), (*room)->entry_offset, move_->sequence, move_->sealed_unix_s);
      move_->extents = {{segment->number, move_->crc, (*room)->shape.payload_offset, move_->size_bytes}};
      move_->joined = false;
      status = publish_manifest(in_, *move_);
    } else {
      status = publish_entry(in_, *move_, **room, false);
    }
    moved = status.ok();
    if (moved) in_.promoted_bytes += move_->size_bytes;
  }
  if (!moved) segment->leave_out((*room)->entry_offset, (*room)->shape.end);
  --segment->drafts;
  in_.retire_if_dead(segment);
  if (!status.ok()) return status;
  return moved;
}

Result<std::shared_ptr<Segment>> Namespace::Impl::relocation_segment(uint64_t bytes, bool kept) {
  std::shared_ptr<Segment>& current = kept ? keep : moved;
  if (current && current->room() >= bytes) return current;
  // Small against what lives: its rest counts against nobody but the namespace.
  const uint64_t share = std::max(std::bit_floor(object_bytes / 8), limits::kSegmentBytesMin);
  auto segment = new_segment(bytes, std::min(relocation_wanted_bytes, share),
                             kept ? RoomFor::kDemotion : RoomFor::kCleaning);
  if (!segment.ok()) return segment;
  (*segment)->kept = kept;
  relocation_wanted_bytes = std::min(std::max(relocation_wanted_bytes, (*segment)->bytes()) * 2, limits::kSegmentBytesDefault);
  if (current) {
    auto before = std::move(current);
    before->end_grant();
    retire_if_dead(before);
  }
  current = *segment;
  current->writer = kDaemon;
  return current;
}

Relocated relocate(Namespace::Impl& ns, const std::vector<std::shared_ptr<Segment>>& victims, RelocateTo to) {
  return Relocation(ns, to).run(victims);
}

}  // namespace millrace
