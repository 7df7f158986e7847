#include "kernels/merge.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/record_writer.h"

namespace millrace {
namespace {

__extension__ typedef unsigned __int128 Uint128;

using Run = std::span<const uint8_t>;

// How far ahead of a run's next record memory is fetched: further than the hardware's prefetcher keeps up
// with when dozens of streams take turns.
constexpr uint32_t kPrefetchBytes = 512;

// A loser tree: every inner node keeps the loser of the match between its subtrees, so replacing the winner
// costs one comparison a level. A contender is one number that orders as (first ten key bytes, run): the run
// makes the merge stable, and an exhausted run is above every key.
template <uint32_t kBytes, bool kLongKey, bool kLonger>
class LoserTree {
 public:
  LoserTree(RecordLayout layout, std::span<const Run> runs)
      : layout_(layout), leaves_(std::bit_ceil(std::max<uint32_t>(2, static_cast<uint32_t>(runs.size())))) {
    for (uint32_t i = 0; i < leaves_; ++i) {
      const bool real = i < runs.size();
      next_[i] = real ? runs[i].data() : nullptr;
      end_[i] = real ? runs[i].data() + runs[i].size() : nullptr;
    }
    winner_ = play(1);
  }

  // Moves everything to `writer`. False where a run was out of order; `unordered` says which.
  bool merge(RecordWriter<kBytes>& writer, uint32_t& unordered) {
    const uint32_t bytes = kBytes != 0 ? kBytes : layout_.record_bytes;
    Uint128 winner = winner_;
    while (!exhausted(winner)) {
      const auto run = static_cast<uint32_t>(winner) & kRunMask;
      const uint8_t* record = next_[run];
      next_[run] = record + bytes;
      __builtin_prefetch(record + kPrefetchBytes);
      if constexpr (kBytes != 0) __builtin_prefetch(record + kPrefetchBytes + 64);
      writer.append(record);
      Uint128 contender = contender_of(run);
      if (less(contender, winner, record)) {
        unordered = run;
        return false;
      }
      for (uint32_t node = (leaves_ + run) >> 1; node >= 1; node >>= 1) {
        const Uint128 loser = losers_[node];
        const bool loses = less(loser, contender);
        losers_[node] = loses ? contender : loser;
        contender = loses ? loser : contender;
      }
      winner = contender;
    }
    return true;
  }

 private:
  static constexpr uint32_t kRunMask = kMergeFanInMax - 1;
  static constexpr uint32_t kSecondShift = 8;
  static constexpr Uint128 kExhausted = ~Uint128{0} << kSecondShift;
  static_assert(kMergeFanInMax <= 1u << kSecondShift);

  static bool exhausted(Uint128 contender) { return (contender >> 63 & 1) != 0; }

  Uint128 contender_of(uint32_t run) const {
    const uint8_t* key = next_[run];
    if (__builtin_expect(key == end_[run], 0)) return kExhausted | run;
    const uint64_t first = key_word(key, kLongKey ? 8 : layout_.key_bytes);
    const uint32_t second =
        kLongKey && layout_.key_bytes >= kPrefixBytes ? key_half(key + 8, 2) : key_second(key, layout_);
    return static_cast<Uint128>(first) << 64 | static_cast<uint64_t>(second) << kSecondShift | run;
  }

  bool less(Uint128 a, Uint128 b) const {
    if constexpr (kLonger) {
      if (__builtin_expect(a >> kSecondShift == b >> kSecondShift, 0) && !exhausted(a)) {
        const int order = compare_rest(next_[static_cast<uint32_t>(a) & kRunMask],
                                       next_[static_cast<uint32_t>(b) & kRunMask]);
        if (order != 0) return order < 0;
      }
    }
    return a < b;
  }
  // The same for two neighbours of one run, of which the second has been taken already.
  bool less(Uint128 next, Uint128 taken, const uint8_t* taken_record) const {
    if constexpr (kLonger) {
      if (next == taken) return compare_rest(taken_record + layout_.record_bytes, taken_record) < 0;
    }
    return next < taken;
  }
  int compare_rest(const uint8_t* a, const uint8_t* b) const {
    return std::memcmp(a + kPrefixBytes, b + kPrefixBytes, layout_.key_bytes - kPrefixBytes);
  }

  Uint128 play(uint32_t node) {
    if (node >= leaves_) return contender_of(node - leaves_);
    const Uint128 left = play(2 * node), right = play(2 * node + 1);
    const bool left_wins = less(left, right);
    losers_[node] = left_wins ? right : left;
    return left_wins ? left : right;
  }

  const RecordLayout layout_;
  const uint32_t leaves_;
  Uint128 winner_;
  Uint128 losers_[kMergeFanInMax];
  const uint8_t* next_[kMergeFanInMax];
  const uint8_t* end_[kMergeFanInMax];
};

template <uint32_t kBytes, bool kLongKey, bool kLonger>
Status merge_as(RecordLayout layout, std::span<const Run> runs, std::span<uint8_t> out, uint64_t first_run) {
  RecordWriter<kBytes> writer(out.data(), out.size(), layout.record_bytes);
  LoserTree<kBytes, kLongKey, kLonger> tree(layout, runs);
  uint32_t unordered = 0;
  if (!tree.merge(writer, unordered)) {
    return Status(Code::kInvalidArgument, "run " + std::to_string(first_run + unordered) + " is not sorted");
  }
  return Status();
}

// Merges at most kMergeFanInMax runs; `out` has their size. `first_run` is what the first is called in
// errors.
Status merge_pass(RecordLayout layout, std::span<const Run> runs, std::span<uint8_t> out,
                  uint64_t first_run) {
  if (runs.size() == 1 && !runs[0].empty()) std::memcpy(out.data(), runs[0].data(), runs[0].size());
  if (runs.size() <= 1) return Status();
  const bool hundred = layout.record_bytes == 100;
  if (layout.key_bytes > kPrefixBytes) {
    if (hundred) return merge_as<100, true, true>(layout, runs, out, first_run);
    return merge_as<0, true, true>(layout, runs, out, first_run);
  }
  if (layout.key_bytes >= 8) {
    if (hundred) return merge_as<100, true, false>(layout, runs, out, first_run);
    return merge_as<0, true, false>(layout, runs, out, first_run);
  }
  return merge_as<0, false, false>(layout, runs, out, first_run);
}

uint64_t total_bytes(std::span<const Run> runs) {
  uint64_t bytes = 0;
  for (const Run& run : runs) bytes += run.size();
  return bytes;
}

// The smallest fan-in with which `passes` passes suffice.
uint32_t fan_in_for(uint64_t runs, uint32_t& passes) {
  for (passes = 1;; ++passes) {
    for (uint64_t fan_in = 2; fan_in <= kMergeFanInMax; ++fan_in) {
      uint64_t reach = 1;
      for (uint32_t pass = 0; pass < passes && reach < runs; ++pass) reach *= fan_in;
      if (reach >= runs) return static_cast<uint32_t>(fan_in);
    }
  }
}

}  // namespace

Result<uint64_t> merge_records(RecordLayout layout, std::span<const std::span<const uint8_t>> runs,
                               std::span<uint8_t> out, Scratch& scratch) {
  if (Status status = check_layout(layout); !status.ok()) return status;
  uint64_t bytes = 0;
  for (size_t i = 0; i < runs.size(); ++i) {
    const std::string name = "run " + std::to_string(i);
    if (Result<uint64_t> count = count_records(layout, runs[i].size(), name.c_str()); !count.ok())
      return count.status();
    if (ranges_overlap(runs[i], out)) return Status(Code::kInvalidArgument, name + " overlaps the output");
    bytes += runs[i].size();
  }
  if (bytes > out.size()) {
    return Status(Code::kOutOfRange, "the output has room for " + std::to_string(out.size()) + " of " +
                                         std::to_string(bytes) + " bytes");
  }
  std::vector<Run> current(runs.begin(), runs.end());
  uint32_t passes;
  const uint32_t fan_in = fan_in_for(std::max<uint64_t>(1, runs.size()), passes);
  uint8_t* spare = nullptr;
  if (passes > 1) {
    if (Status status = scratch.reserve(bytes); !status.ok()) return status;
    spare = scratch.take<uint8_t>(bytes);
  }
  // Passes alternate between the two buffers so that the last one writes to `out`.
  for (uint32_t pass = 0; pass < passes; ++pass) {
    uint8_t* to = (passes - pass) % 2 == 1 ? out.data() : spare;
    std::vector<Run> merged;
    for (size_t at = 0; at < current.size(); at += fan_in) {
      const std::span<const Run> group =
          std::span<const Run>(current).subspan(at, std::min<size_t>(fan_in, current.size() - at));
      const uint64_t group_bytes = total_bytes(group);
      if (Status status = merge_pass(layout, group, {to, group_bytes}, at); !status.ok()) return status;
      merged.emplace_back(to, group_bytes);
      to += group_bytes;
    }
    current = std::move(merged);
  }
  return bytes;
}

}  // namespace millrace
