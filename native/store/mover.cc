#include "store/mover.h"

#include <algorithm>
#include <deque>

namespace millrace {

namespace {

constexpr auto kPeriod = std::chrono::milliseconds(20);
constexpr auto kRetryAfter = std::chrono::milliseconds(500);
// One relocation moves at most so much: memory comes free at its end.
constexpr uint64_t kBatchBytesMax = 128 * MiB;
constexpr size_t kPromotionsAhead = 4;
// A namespace's closed segments may take so much more than what lives in them.
constexpr double kSpaceMax = 1.2;
// Less than this is not worth a segment's cleaning.
constexpr uint64_t kDeadBytesMin = 256 * KiB;

// Nobody writes to it and all of it may be moved.
bool closed(const Segment& segment, Clock::time_point now) {
  return segment.writer == kNobody && segment.drafts == 0 && !segment.retired && !segment.moving && segment.live_bytes > 0 &&
         segment.stuck_until <= now;
}

}  // namespace

Mover::Mover(std::shared_ptr<NodeShared> node, std::function<Namespaces()> namespaces)
    : node_(std::move(node)), namespaces_(std::move(namespaces)), thread_([this] { run(); }) {}

void Mover::stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  woken_.notify_all();
  thread_.join();
}

void Mover::wake() {
  std::lock_guard lock(mutex_);
  wake_ = true;
  woken_.notify_one();
}

Relocated Mover::move(Victims victims, RelocateTo to, uint64_t Namespace::Impl::*moved) {
  Namespace::Impl& in = *victims.ns->impl_;
  Relocated done = relocate(in, victims.segments, to);
  {
    std::lock_guard lock(in.mutex);
    in.*moved += done.bytes;
    victims.segments.clear();  // so that what died of it is swept now
    in.sweep_retiring(Clock::now());
  }
  if (Store::Listener* listener = node_->listener.load()) listener->room_freed();
  return done;
}

void Mover::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      woken_.wait_for(lock, kPeriod, [&] { return wake_ || stopping_; });
      if (stopping_) return;
      wake_ = false;
    }
    const Namespaces all = namespaces_();
    // As long as there is something to do, and everybody gets a turn.
    bool busy = true;
    while (busy) {
      busy = demote(all);
      busy |= promote_read(all);
      busy |= clean(all);
      std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
  }
}

// --- demotion

bool Mover::demote(const Namespaces& all) {
  if (!node_->nvme.enabled() || Clock::now() < demote_after_) return false;
  const double limit = static_cast<double>(node_->options.dram.limit_bytes);
  const uint64_t wanted = node_->short_bytes.exchange(0);
  const auto no_room = [&] { return wanted > 0 && node_->dram_in_use() + wanted > node_->dram_for_writers(); };
  bool moved = false;
  for (bool full = no_room() || static_cast<double>(node_->dram_in_use()) > limit * node_->high_watermark;;) {
    Victims victims = coldest(all, full);
    if (victims.segments.empty()) break;
    const Relocated done = move(std::move(victims), RelocateTo::kFile, &Namespace::Impl::demoted_bytes);
    if (!done.status.ok()) {
      // Full, read-only, broken: what is in memory stays there, and writers are told why they wait.
      demote_after_ = Clock::now() + kRetryAfter;
      break;
    }
    moved |= done.objects > 0;
    if (full) full = no_room() || static_cast<double>(node_->dram_in_use()) > limit * node_->low_watermark;
    std::lock_guard lock(mutex_);
    if (stopping_) break;
  }
  return moved;
}

// The next segments to be demoted, all of one namespace: those longest unused, by the namespaces' hints first.
Mover::Victims Mover::coldest(const Namespaces& all, bool node_is_full) {
  struct Candidate {
    Hint hint;
    Clock::time_point used_at;
    size_t ns;
    std::shared_ptr<Segment> segment;
  };
  const auto now = Clock::now();
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < all.size(); ++i) {
    Namespace::Impl& in = *all[i]->impl_;
    std::lock_guard lock(in.mutex);
    if (in.dropped) continue;
    const uint64_t own = in.dram_bytes - std::min(in.dram_bytes, in.retiring_dram_bytes());
    const uint64_t own_limit = in.options.dram_limit_bytes;
    const bool own_is_full = own_limit > 0 && (own + in.short_bytes > own_limit ||
                                               static_cast<double>(own) > static_cast<double>(own_limit) * node_->high_watermark);
    in.short_bytes = 0;
    if (!node_is_full && !own_is_full) continue;
    for (const auto& segment : in.segments) {
      if (!segment || !segment->memory || segment->kept || !closed(*segment, now)) continue;
      candidates.push_back({in.options.hint, segment->used_at, i, segment});
    }
  }
  if (candidates.empty()) return {};
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.hint, a.used_at) < std::tie(b.hint, b.used_at);
  });
  Victims victims{all[candidates.front().ns], {}};
  const uint64_t most = std::min(kBatchBytesMax, node_->options.dram.limit_bytes / 8);
  uint64_t bytes = 0;
  for (const Candidate& candidate : candidates) {
    if (candidate.ns != candidates.front().ns) continue;
    if (bytes > 0 && bytes + candidate.segment->live_bytes > most) break;
    bytes += candidate.segment->live_bytes;
    victims.segments.push_back(candidate.segment);
  }
  return victims;
}

// --- promotion

bool Mover::promote_read(const Namespaces& all) {
  const double limit = static_cast<double>(node_->options.dram.limit_bytes) * node_->low_watermark;
  bool moved = false;
  for (const auto& ns : all) {
    Namespace::Impl& in = *ns->impl_;
    std::vector<std::string> keys;
    {
      std::lock_guard lock(in.mutex);
      keys.swap(in.to_promote);
    }
    std::deque<std::unique_ptr<Promotion>> under_way;
    const auto finish_first = [&] {
      auto done = under_way.front()->finish();
      moved |= done.ok() && *done;
      under_way.pop_front();
    };
    for (const std::string& key : keys) {
      if (static_cast<double>(node_->dram_in_use()) > limit) break;  // it would push out what is as warm
      under_way.push_back(std::make_unique<Promotion>(ns, in, key));
      if (under_way.size() == kPromotionsAhead) finish_first();
    }
    while (!under_way.empty()) finish_first();
  }
  return moved;
}

// --- cleaning

bool Mover::clean(const Namespaces& all) {
  const auto now = Clock::now();
  const auto rate = static_cast<double>(node_->options.clean_bytes_per_second);
  clean_allowance_bytes_ += rate * std::chrono::duration<double>(now - allowance_at_).count();
  clean_allowance_bytes_ = std::min(clean_allowance_bytes_, rate / 4);
  allowance_at_ = now;
  if (clean_allowance_bytes_ <= 0) return false;
  Victims victims = dirtiest(all);
  if (victims.segments.empty()) return false;
  const bool in_file = victims.segments.front()->file != nullptr;
  const Relocated done = move(std::move(victims), in_file ? RelocateTo::kFile : RelocateTo::kMemory,
                              &Namespace::Impl::cleaned_bytes);
  clean_allowance_bytes_ -= static_cast<double>(done.bytes);
  return done.status.ok();
}

// The segment with the least alive of a namespace whose segments take too much more than what lives in them.
Mover::Victims Mover::dirtiest(const Namespaces& all) {
  const auto now = Clock::now();
  for (const auto& ns : all) {
    Namespace::Impl& in = *ns->impl_;
    std::lock_guard lock(in.mutex);
    if (in.dropped) continue;
    for (const bool in_file : {false, true}) {
      uint64_t taken = 0, live = 0;
      std::shared_ptr<Segment> worst;
      double worst_share = 1;
      for (const auto& segment : in.segments) {
        if (!segment || (segment->file != nullptr) != in_file || segment->writer != kNobody) continue;
        // The room of one that is offered will be written to.
        const bool offered = std::find(in.open.begin(), in.open.end(), segment) != in.open.end();
        taken += offered ? segment->write_end : segment->bytes();
        live += segment->live_bytes;
        const double share = static_cast<double>(segment->live_bytes) / static_cast<double>(segment->write_end);
        if (!closed(*segment, now) || segment->dead_bytes() < kDeadBytesMin || share >= worst_share) continue;
        worst = segment;
        worst_share = share;
      }
      if (worst && static_cast<double>(taken) > kSpaceMax * static_cast<double>(live)) return {ns, {worst}};
    }
  }
  return {};
}

}  // namespace millrace
