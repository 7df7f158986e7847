// How a namespace gets, offers, retires and recycles its segments.
#include <bit>
#include <filesystem>
#include <system_error>
#include <utility>

#include "store/namespace_impl.h"

namespace millrace {

namespace {

// A rest smaller than this is not worth a grant.
constexpr uint64_t kRoomWorthOffering = 16 * KiB;

// The daemon's own segment is written to from end to end unless at least this much of it has died.
constexpr uint64_t kHouseBytesWorthRetiring = 512 * KiB;

}  // namespace

uint64_t unix_ms() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

// The folders go when the last segment has: clients may hold some for as long as they like.
Namespace::Impl::~Impl() {
  const bool kept = files_kept;
  segments.clear();
  retiring.clear();
  open.clear();
  house.reset();
  keep.reset();
  moved.reset();
  index.reset();
  if (kept) return;
  const std::string folder = token_hex(options.token);
  for (const std::string& path : node->tier.folders(folder)) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  if (node->nvme.enabled()) node->nvme.remove_folder(folder);
}

void Namespace::Impl::keep_files() {
  files_kept = true;
  index->keep();
  for (const auto& segment : segments) {
    if (!segment) continue;
    if (segment->memory) segment->memory->keep();
    if (segment->file) segment->file->keep();
  }
}

std::string Namespace::Impl::what_holds() const {
  uint64_t granted = 0, live = 0, dead = 0;
  for (const auto& segment : segments) {
    if (!segment || !segment->memory) continue;
    live += segment->live_bytes;
    dead += segment->dead_bytes();
    if (segment->writer != kNobody) granted += segment->room();
  }
  return "of its memory " + std::to_string(live) + " bytes are live objects, " + std::to_string(dead) + " dead, " +
         std::to_string(granted) + " granted to writers, " + std::to_string(retiring_dram_bytes()) + " still mapped by clients, " +
         std::to_string(buffer_bytes.load()) + " in buffers of connections; " +
         std::to_string(nvme_bytes) + " bytes are on nvme";
}

Status Namespace::Impl::check_limits(uint64_t bytes) {
  const uint64_t in_memory = dram_bytes + buffer_bytes.load(std::memory_order_relaxed);
  for (const auto& [what, taken, limit] : {std::tuple("dram limit", in_memory, options.dram_limit_bytes),
                                           std::tuple("limit", in_memory + nvme_bytes, options.limit_bytes)}) {
    if (limit == 0 || taken + bytes <= limit) continue;
    if (limit == options.dram_limit_bytes && bytes <= limit) short_bytes = bytes;
    return Status(Code::kResourceExhausted, "namespace '" + name + "' is at its " + what + ": " + std::to_string(taken) +
                                                " of " + std::to_string(limit) + " bytes are taken, " +
                                                std::to_string(bytes) + " more were asked for");
  }
  return Status();
}

Result<std::shared_ptr<SharedMemory>> Namespace::Impl::new_memory(uint64_t bytes_min, uint64_t bytes_wanted,
                                                                  RoomFor purpose) {
  const bool writers = purpose == RoomFor::kWriters;
  // The last segment is the way down's, or nothing that is moved would make room for more.
  uint64_t most = ~uint64_t{0};
  if (writers) most = node->dram_for_writers();
  else if (purpose == RoomFor::kCleaning && node->nvme.enabled()) most = node->options.dram.limit_bytes - limits::kSegmentBytesMin;
  const uint64_t share = node->segment_share();
  // Down to the smallest that serves, where the node or the namespace is short of room.
  enum class Full { kNamespace, kReserve, kTier } full = Full::kTier;
  Status refused;
  for (uint64_t bytes = std::max(bytes_min, std::min(bytes_wanted, share)); bytes >= bytes_min; bytes /= 2) {
    if (Status over = check_limits(bytes); purpose != RoomFor::kDemotion && !over.ok()) {
      refused = over;
      full = Full::kNamespace;
      continue;
    }
    // What is kept does not count against the limit until it is a segment again, and then it does.
    if (const uint64_t in_use = node->dram_in_use(); in_use + bytes > most) {
      if (writers) node->short_bytes = bytes;
      refused = Status(Code::kResourceExhausted, "dram is full: " + std::to_string(in_use) + " of " +
                                                     std::to_string(node->options.dram.limit_bytes) +
                                                     " bytes are in use (--dram)");
      full = Full::kReserve;
      continue;
    }
    if (auto memory = node->recycler.take(id, bytes, bytes)) return memory;
    auto memory = node->tier.allocate(bytes);
    for (const auto& free_more : {std::function<void()>([this, bytes] { node->recycler.give_up(bytes); }), node->reclaim}) {
      if (memory.ok() || memory.code() != Code::kResourceExhausted) break;
      free_more();  // or the sweeper has done it meanwhile
      memory = node->tier.allocate(bytes);
    }
    if (memory.ok()) return memory;
    refused = memory.status();
    if (refused.code() != Code::kResourceExhausted) return refused;
    full = Full::kTier;
  }
  if (node->wake_mover) node->wake_mover();
  // What holds it is a look at every segment, so it is told for the last size alone.
  std::string why = refused.message() + (full == Full::kNamespace ? "; " : "; namespace '" + name + "': ") + what_holds();
  if (Status fault = node->nvme.fault(); full == Full::kReserve && node->nvme.enabled() && !fault.ok()) {
    why += "; nothing can be demoted: " + fault.message();
  }
  return Status(refused.code(), std::move(why));
}

Result<std::shared_ptr<Segment>> Namespace::Impl::new_segment(uint64_t bytes, uint64_t bytes_wanted,
                                                                 RoomFor purpose) {
  if (bytes > limits::kSegmentBytesMax - kSegmentHeaderBytes) {
    return Status(Code::kObjectTooLarge, "no segment has " + std::to_string(bytes) + " contiguous bytes; write it in parts");
  }
  if (segments.size() > limits::kSegmentsPerNamespace) {
    return Status(Code::kResourceExhausted, "namespace '" + name + "' has used up its segment numbers");
  }
  const uint64_t least = std::max(std::bit_ceil(bytes + kSegmentHeaderBytes), limits::kSegmentBytesMin);
  auto memory = new_memory(least, std::max(least, bytes_wanted), purpose);
  if (!memory.ok()) {
    // What is retired and confirmed may be enough.
    if (!sweep_retiring(Clock::now())) return memory.status();
    memory = new_memory(least, std::max(least, bytes_wanted), purpose);
    if (!memory.ok()) return memory.status();
  }
  const auto number = static_cast<uint32_t>(segments.size());
  // The number goes into the header before it does into the name: one that lacks its number is not found again.
  write_segment_header((*memory)->data(), (*memory)->bytes(), number, name, options.token.data(), unix_ms());
  // Found by its name from here on, in case this process dies.
  if (Status failed = node->tier.place(**memory, token_hex(options.token), segment_file_name(number)); !failed.ok()) {
    return failed;
  }
  auto segment = std::make_shared<Segment>(number, std::move(*memory));
  segments.push_back(segment);
  account(*segment, 1);
  return segment;
}

Result<std::shared_ptr<Segment>> Namespace::Impl::writable_segment(uint64_t bytes, uint64_t bytes_wanted) {
  // The fullest that fits, so that rests get used up.
  auto best = open.end();
  for (auto it = open.begin(); it != open.end(); ++it) {
    if ((*it)->room() >= bytes && (best == open.end() || (*it)->room() < (*best)->room())) best = it;
  }
  if (best == open.end()) {
    auto fresh = new_segment(bytes, bytes_wanted);
    // What relocation has taken for later is room as good, where nothing of it is being written.
    if (fresh.ok() || !moved || moved->drafts != 0 || moved->room() < bytes) return fresh;
    moved->end_grant();
    return std::exchange(moved, nullptr);
  }
  auto segment = std::move(*best);
  open.erase(best);
  return segment;
}

Result<std::shared_ptr<Segment>> Namespace::Impl::house_segment(uint64_t bytes) {
  if (house && house->room() >= bytes) return house;
  auto segment = writable_segment(bytes, house_wanted_bytes);
  if (!segment.ok()) return segment;
  if (house) {
    auto before = std::move(house);
    before->end_grant();
    offer(before);
  }
  house_wanted_bytes = std::min(house_wanted_bytes * 2, limits::kSegmentBytesDefault);
  house = *segment;
  house->writer = kDaemon;
  return house;
}

void Namespace::Impl::forsake(const std::shared_ptr<Segment>& segment) {
  segment->forsaken = true;
  std::erase(open, segment);
  for (auto* own : {&house, &keep, &moved}) {
    if (segment != *own) continue;
    segment->end_grant();
    own->reset();
  }
  if (!segment->retired) retire_if_dead(segment);
}

void Namespace::Impl::offer(const std::shared_ptr<Segment>& segment) {
  if (segment->retired || segment->moving || segment->writer != kNobody) return;
  if (segment->forsaken) return retire_if_dead(segment);
  if (segment->live_bytes == 0 && segment->drafts == 0 && segment->write_end > kSegmentHeaderBytes) {
    retire_if_dead(segment);
  } else if (segment->room() >= kRoomWorthOffering && segment->bytes() <= node->segment_share()) {
    // A large one would keep what it holds in memory for as long as somebody writes to its rest.
    open.push_back(segment);
  }
}

void Namespace::Impl::retire_if_dead(const std::shared_ptr<Segment>& owner) {
  if (dropped || owner->retired || owner->live_bytes != 0 || owner->drafts != 0) return;
  const std::shared_ptr<Segment> segment = owner;  // which may be one of those that are let go of here
  for (auto* own : {&house, &keep, &moved}) {
    if (segment != *own || segment->write_end < kHouseBytesWorthRetiring) continue;
    segment->end_grant();
    own->reset();
    break;
  }
  if (segment->writer != kNobody) return;
  settle_order();  // it may still name entries of this segment
  segment->retired = true;
  std::erase(open, segment);
  segments[segment->number] = nullptr;
  if (Store::Listener* listener = node->listener.load()) {
    for (SessionId session : segment->holders) listener->segment_retired(*face, session, segment->number);
  }
  if (segment->memory) node->retiring_bytes.fetch_add(segment->bytes());
  retiring.push_back({segment, Clock::now() + std::chrono::milliseconds(node->options.retire_grace_ms)});
}

bool Namespace::Impl::sweep_retiring(Clock::time_point now) {
  bool freed = false;
  for (auto it = retiring.begin(); it != retiring.end();) {
    // One owner: us. Views and drafts of the daemon are owners too.
    const bool unused = it->segment->holders.empty() && it->segment.use_count() == 1;
    const bool forsaken = dropped && now >= it->grace_ends;
    if (!unused && !forsaken) {
      ++it;
      continue;
    }
    account(*it->segment, -1);
    if (it->segment->memory) {
      node->retiring_bytes.fetch_sub(it->segment->bytes());
      if (!dropped && !it->segment->forsaken) node->recycler.put(id, it->segment->memory);
    }
    it = retiring.erase(it);
    freed = true;
  }
  return freed;
}

void Namespace::Impl::account_segments(int64_t dram_delta, int64_t nvme_delta) {
  const auto now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - accounted_at).count();
  byte_seconds += static_cast<double>(dram_bytes) * seconds;
  nvme_byte_seconds += static_cast<double>(nvme_bytes) * seconds;
  accounted_at = now;
  dram_bytes += static_cast<uint64_t>(dram_delta);
  nvme_bytes += static_cast<uint64_t>(nvme_delta);
  peak_bytes = std::max(peak_bytes, dram_bytes + nvme_bytes);
}

}  // namespace millrace
