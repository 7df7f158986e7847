// The keys of a namespace in byte order, for listing. Private to the daemon.
//
// Blocks of up to 512 references to entries, in order; the keys themselves stay in the entries. Insert and
// remove cost a binary search over the blocks and one within a block. Memory: about 11 bytes a key.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "index/index_view.h"

namespace millrace {

class OrderedKeys {
 public:
  // The key of an entry; stays valid while the entry does.
  using KeyOf = std::function<std::string_view(SlotRef)>;
  explicit OrderedKeys(KeyOf key_of) : key_of_(std::move(key_of)) {}

  // Takes over references that are already in the order of their keys.
  void load_sorted(const std::vector<SlotRef>& refs);
  // Adds the entry's key, or makes the key refer to this entry.
  void put(SlotRef ref);
  // Takes the entry's key out.
  void remove(SlotRef ref);
  size_t size() const { return size_; }

  // Visits keys >= `from` in order until `visit` returns false.
  template <class Visit>
  void scan(std::string_view from, Visit&& visit) const;

 private:
  static constexpr size_t kBlockMax = 512;
  struct Position {
    size_t block, index;
    bool found;
  };
  Position lower_bound(std::string_view key) const;

  KeyOf key_of_;
  std::vector<std::vector<SlotRef>> blocks_;  // none of them empty
  size_t size_ = 0;
};

template <class Visit>
void OrderedKeys::scan(std::string_view from, Visit&& visit) const {
  const Position at = lower_bound(from);
  size_t index = at.index;
  for (size_t block = at.block; block < blocks_.size(); ++block, index = 0) {
    for (; index < blocks_[block].size(); ++index) {
      if (!visit(blocks_[block][index])) return;
    }
  }
}

}  // namespace millrace
