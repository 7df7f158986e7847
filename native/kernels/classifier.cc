#include "kernels/classifier.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace millrace {
namespace {

__extension__ typedef unsigned __int128 Uint128;

// 2^64 divided by the golden ratio: multiples of it fill a range more evenly than random numbers do.
constexpr uint64_t kGoldenStep = 0x9e3779b97f4a7c15;

// A page ahead: the hardware's prefetchers stop at the end of every page.
constexpr size_t kPrefetchBytes = 4096;

void fill_tree(std::vector<uint64_t>& tree, const std::vector<uint64_t>& sorted, size_t node, size_t& next) {
  if (node >= tree.size()) return;
  fill_tree(tree, sorted, 2 * node, next);
  tree[node] = next < sorted.size() ? sorted[next] : UINT64_MAX;
  ++next;
  fill_tree(tree, sorted, 2 * node + 1, next);
}

}  // namespace

Classifier::Classifier(const Splitters& splitters, RecordLayout layout, uint64_t start)
    : splitters_(splitters), layout_(layout) {
  const uint32_t partitions = splitters.partitions();
  levels_ = static_cast<uint32_t>(std::bit_width(partitions - 1));
  std::vector<uint64_t> sorted(partitions - 1);
  for (uint32_t i = 0; i + 1 < partitions; ++i) sorted[i] = key_word(splitters.key(i), splitters.key_bytes());
  tree_.resize(size_t{1} << levels_);
  size_t next = 0;
  fill_tree(tree_, sorted, 1, next);
  last_.resize(partitions);
  before_.resize(partitions);
  for (uint32_t i = 1; i < partitions; ++i) {
    last_[i] = sorted[i - 1];
    before_[i] = i > 1 && sorted[i - 1] == sorted[i - 2] ? before_[i - 1] : i - 1;
  }
  tie_of_.assign(partitions, -1);
  const auto& ties = splitters.ties();
  dealt_.resize(ties.size());
  for (size_t tie = 0; tie < ties.size(); ++tie) {
    for (uint32_t i = 0; i < ties[tie].splitters; ++i)
      tie_of_[ties[tie].first_splitter + i] = static_cast<int32_t>(tie);
    dealt_[tie] = start + tie * kGoldenStep;
  }
}

uint32_t Classifier::deal(uint32_t tie_index) {
  const Splitters::Tie& tie = splitters_.ties()[tie_index];
  const uint64_t between = uint64_t{tie.splitters - 1} * Splitters::kShareOne;
  const uint64_t total = tie.share_before + between + tie.share_after;
  dealt_[tie_index] += kGoldenStep;
  const auto at = static_cast<uint64_t>((static_cast<Uint128>(dealt_[tie_index]) * total) >> 64);
  if (at < tie.share_before) return tie.first_splitter;
  return tie.first_splitter + 1 + static_cast<uint32_t>((at - tie.share_before) / Splitters::kShareOne);
}

// The key has the same first eight bytes as some splitters, those from before_[not_above] to not_above - 1.
uint32_t Classifier::resolve(const uint8_t* key, uint32_t not_above) {
  uint32_t low = before_[not_above], high = not_above;
  // The last one first: mostly all are equal.
  int order = std::memcmp(splitters_.key(high - 1), key, layout_.key_bytes);
  if (order > 0) {
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (std::memcmp(splitters_.key(middle), key, layout_.key_bytes) <= 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low == before_[not_above]) return low;
    order = std::memcmp(splitters_.key(low - 1), key, layout_.key_bytes);
    not_above = low;
  }
  if (order == 0 && tie_of_[not_above - 1] >= 0) return deal(static_cast<uint32_t>(tie_of_[not_above - 1]));
  return not_above;
}

template <uint32_t kBytes, bool kLongKey>
void Classifier::classify_as(const uint8_t* records, uint64_t count, uint16_t* partitions, uint64_t* counts) {
  // Independent searches side by side hide each other's latency.
  constexpr uint32_t kLanes = 16;
  const size_t record_bytes = kBytes != 0 ? kBytes : layout_.record_bytes;
  const uint64_t* tree = tree_.data();
  const uint64_t* last = last_.data();
  const uint32_t levels = levels_;
  const uint32_t greatest = splitters_.partitions() - 1;
  const auto word = [&](const uint8_t* key) { return key_word(key, kLongKey ? 8 : layout_.key_bytes); };
  const auto finish = [&](const uint8_t* key, uint64_t first, uint32_t node) {
    // The nodes that fill the tree up count too where the key is the greatest number.
    uint32_t partition = std::min(node - (1u << levels), greatest);
    if (last[partition] == first && partition != 0) partition = resolve(key, partition);
    ++counts[partition];
    return static_cast<uint16_t>(partition);
  };
  uint64_t i = 0;
  for (; i + kLanes <= count; i += kLanes, records += kLanes * record_bytes) {
    uint64_t first[kLanes];
    uint32_t node[kLanes];
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const uint8_t* key = records + lane * record_bytes;
      first[lane] = word(key);
      node[lane] = 1;
      __builtin_prefetch(key + kPrefetchBytes);
    }
    for (uint32_t level = 0; level < levels; ++level) {
      for (uint32_t lane = 0; lane < kLanes; ++lane)
        node[lane] = 2 * node[lane] + (first[lane] >= tree[node[lane]]);
    }
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      partitions[i + lane] = finish(records + lane * record_bytes, first[lane], node[lane]);
    }
  }
  for (; i < count; ++i, records += record_bytes) {
    const uint64_t first = word(records);
    uint32_t node = 1;
    for (uint32_t level = 0; level < levels; ++level) node = 2 * node + (first >= tree[node]);
    partitions[i] = finish(records, first, node);
  }
}

void Classifier::classify(const uint8_t* records, uint64_t count, uint16_t* partitions, uint64_t* counts) {
  if (layout_.key_bytes < 8) return classify_as<0, false>(records, count, partitions, counts);
  if (layout_.record_bytes == 100) return classify_as<100, true>(records, count, partitions, counts);
  return classify_as<0, true>(records, count, partitions, counts);
}

}  // namespace millrace
