// How a namespace gets, offers, retires and recycles its segments.
#include <bit>

#include "store/namespace_impl.h"

namespace millrace {

namespace {

// A rest smaller than this is not worth a grant.
constexpr uint64_t kRoomWorthOffering = 16 * KiB;

// The daemon's own segment is written to from end to end unless at least this much of it has died.
constexpr uint64_t kHouseBytesWorthRetiring = 512 * KiB;

uint64_t unix_ms() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

}  // namespace

Result<std::shared_ptr<SharedMemory>> Namespace::Impl::new_memory(uint64_t bytes_min, uint64_t bytes_wanted) {
  const bool dram_first = options.dram_limit_bytes != 0 &&
                          (options.limit_bytes == 0 || options.dram_limit_bytes < options.limit_bytes);
  const uint64_t limit = dram_first ? options.dram_limit_bytes : options.limit_bytes;
  const uint64_t room = limit == 0 ? ~uint64_t{0} : limit - std::min(limit, segment_bytes);
  // What is kept does not count against the limit until it is a segment again.
  if (auto memory = node->recycler.take(id, bytes_min, std::min(std::max(bytes_wanted, bytes_min), room))) return memory;
  // Down to the smallest that serves, where the node or the namespace is short of room.
  Status refused;
  for (uint64_t bytes = bytes_wanted; bytes >= bytes_min; bytes /= 2) {
    if (bytes > room) {
      refused = Status(Code::kResourceExhausted, "namespace '" + name + "' is at its " + (dram_first ? "dram limit: " : "limit: ") +
                                                     std::to_string(segment_bytes) +
                                                     " of " + std::to_string(limit) + " bytes are taken, " +
                                                     std::to_string(bytes) + " more were asked for");
      continue;
    }
    auto memory = node->tier.allocate(bytes);
    for (const auto& free_more : {std::function<void()>([this] { node->recycler.clear(); }), node->reclaim}) {
      if (memory.ok() || memory.code() != Code::kResourceExhausted) break;
      free_more();  // or the sweeper has done it meanwhile
      memory = node->tier.allocate(bytes);
    }
    if (memory.ok()) return memory;
    refused = memory.status();
    if (refused.code() != Code::kResourceExhausted) return refused;
  }
  return refused;
}

Result<std::shared_ptr<Segment>> Namespace::Impl::new_segment(uint64_t bytes, uint64_t bytes_wanted) {
  if (bytes > limits::kSegmentBytesMax - kSegmentHeaderBytes) {
    return Status(Code::kObjectTooLarge, "no segment has " + std::to_string(bytes) + " contiguous bytes; write it in parts");
  }
  if (segments.size() > limits::kSegmentsPerNamespace) {
    return Status(Code::kResourceExhausted, "namespace '" + name + "' has used up its segment numbers");
  }
  const uint64_t least = std::max(std::bit_ceil(bytes + kSegmentHeaderBytes), limits::kSegmentBytesMin);
  auto memory = new_memory(least, std::max(least, bytes_wanted));
  if (!memory.ok()) {
    // What is retired and confirmed may be enough.
    if (!sweep_retiring(Clock::now())) return memory.status();
    memory = new_memory(least, std::max(least, bytes_wanted));
    if (!memory.ok()) return memory.status();
  }
  const auto number = static_cast<uint32_t>(segments.size());
  write_segment_header((*memory)->data(), (*memory)->bytes(), number, name, options.token.data(), unix_ms());
  auto segment = std::make_shared<Segment>(number, std::move(*memory));
  segments.push_back(segment);
  account_segments(static_cast<int64_t>(segment->bytes()));
  return segment;
}

Result<std::shared_ptr<Segment>> Namespace::Impl::writable_segment(uint64_t bytes, uint64_t bytes_wanted) {
  // The fullest that fits, so that rests get used up.
  auto best = open.end();
  for (auto it = open.begin(); it != open.end(); ++it) {
    if ((*it)->room() >= bytes && (best == open.end() || (*it)->room() < (*best)->room())) best = it;
  }
  if (best == open.end()) return new_segment(bytes, bytes_wanted);
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
    before->writer = kNobody;
    offer(before);
  }
  house_wanted_bytes = std::min(house_wanted_bytes * 2, limits::kSegmentBytesDefault);
  house = *segment;
  house->writer = kDaemon;
  return house;
}

void Namespace::Impl::offer(const std::shared_ptr<Segment>& segment) {
  if (segment->retired || segment->writer != kNobody) return;
  if (segment->live_bytes == 0 && segment->drafts == 0 && segment->write_end > kSegmentHeaderBytes) {
    retire_if_dead(segment);
  } else if (segment->room() >= kRoomWorthOffering) {
    open.push_back(segment);
  }
}

void Namespace::Impl::retire_if_dead(const std::shared_ptr<Segment>& segment) {
  if (segment->retired || segment->live_bytes != 0 || segment->drafts != 0) return;
  if (segment == house && segment->write_end >= kHouseBytesWorthRetiring) {
    segment->writer = kNobody;
    house.reset();
  }
  if (segment->writer != kNobody) return;
  settle_order();  // it may still name entries of this segment
  segment->retired = true;
  std::erase(open, segment);
  segments[segment->number] = nullptr;
  if (Store::Listener* listener = node->listener.load()) {
    for (SessionId session : segment->holders) listener->segment_retired(*face, session, segment->number);
  }
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
    account_segments(-static_cast<int64_t>(it->segment->bytes()));
    if (!dropped) node->recycler.put(id, it->segment->memory);
    it = retiring.erase(it);
    freed = true;
  }
  return freed;
}

void Namespace::Impl::account_segments(int64_t bytes) {
  const auto now = Clock::now();
  byte_seconds += static_cast<double>(segment_bytes) * std::chrono::duration<double>(now - accounted_at).count();
  accounted_at = now;
  segment_bytes += static_cast<uint64_t>(bytes);
  peak_bytes = std::max(peak_bytes, segment_bytes);
}

}  // namespace millrace
