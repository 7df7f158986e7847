#include "index/ordered_keys.h"

namespace millrace {

void OrderedKeys::load_sorted(const std::vector<SlotRef>& refs) {
  blocks_.clear();
  size_ = refs.size();
  constexpr size_t kFill = kBlockMax * 3 / 4;
  for (size_t i = 0; i < refs.size(); i += kFill) {
    blocks_.emplace_back(refs.begin() + static_cast<ptrdiff_t>(i),
                         refs.begin() + static_cast<ptrdiff_t>(std::min(i + kFill, refs.size())));
  }
}

OrderedKeys::Position OrderedKeys::lower_bound(std::string_view key) const {
  // The first block whose last key is not below `key`.
  const auto block = std::partition_point(blocks_.begin(), blocks_.end(),
                                          [&](const auto& refs) { return key_of_(refs.back()) < key; });
  if (block == blocks_.end()) return {blocks_.size(), 0, false};
  const auto at = std::partition_point(block->begin(), block->end(), [&](SlotRef ref) { return key_of_(ref) < key; });
  // The end of a block is reached where its last key was changed between the two searches: keys lie in memory
  // that a client may write to.
  const bool found = at != block->end() && key_of_(*at) == key;
  return {static_cast<size_t>(block - blocks_.begin()), static_cast<size_t>(at - block->begin()), found};
}

void OrderedKeys::put(SlotRef ref) {
  Position at = lower_bound(key_of_(ref));
  if (at.found) {
    blocks_[at.block][at.index] = ref;
    return;
  }
  ++size_;
  if (blocks_.empty()) {
    blocks_.push_back({ref});
    return;
  }
  if (at.block == blocks_.size()) at = {blocks_.size() - 1, blocks_.back().size(), false};
  auto& refs = blocks_[at.block];
  refs.insert(refs.begin() + static_cast<ptrdiff_t>(at.index), ref);
  if (refs.size() > kBlockMax) {
    // At the very end keys tend to come in order: leave the left block full.
    const bool appending = at.block + 1 == blocks_.size() && at.index + 1 == refs.size();
    const auto middle = static_cast<ptrdiff_t>(appending ? kBlockMax : kBlockMax / 2);
    std::vector<SlotRef> right(refs.begin() + middle, refs.end());
    refs.resize(static_cast<size_t>(middle));
    blocks_.insert(blocks_.begin() + static_cast<ptrdiff_t>(at.block) + 1, std::move(right));
  }
}

void OrderedKeys::remove(SlotRef ref) {
  const Position at = lower_bound(key_of_(ref));
  if (!at.found) return;
  auto& refs = blocks_[at.block];
  refs.erase(refs.begin() + static_cast<ptrdiff_t>(at.index));
  --size_;
  if (refs.empty()) blocks_.erase(blocks_.begin() + static_cast<ptrdiff_t>(at.block));
}

}  // namespace millrace
