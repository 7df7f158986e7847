// The writing side of a namespace's index: one in the daemon, its caller holds the namespace's lock.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "index/index_view.h"
#include "segment/shared_memory.h"

namespace millrace {

class IndexWriter {
 public:
  // `hash_of` gives the hash of the key of a sealed entry: tables are split by it.
  using HashOf = std::function<uint64_t(SlotRef)>;
  // The file has a name where there is a `path`. With `objects_expected` it begins large enough for so many keys.
  static Result<std::unique_ptr<IndexWriter>> create(HashOf hash_of, const std::string& path = {},
                                                     uint64_t objects_expected = 0);

  const IndexView& view() const { return view_; }
  int fd() const { return memory_->fd(); }
  // What the file takes of memory.
  uint64_t bytes() const { return used_bytes_; }

  // Makes the key with this hash point to `ref`. `matches(SlotRef)` compares the key. What it pointed to before,
  // or nothing; RESOURCE_EXHAUSTED where the index can grow no further (then nothing has changed).
  template <class Matches>
  Result<std::optional<SlotRef>> put(uint64_t hash, SlotRef ref, Matches&& matches);

  // Takes the key out; what it pointed to.
  template <class Matches>
  std::optional<SlotRef> remove(uint64_t hash, Matches&& matches);

  // Every entry, in no order.
  void for_each(const std::function<void(SlotRef)>& visit) const;

  // Where the namespace stands, for who finds the file after this process has died.
  void note(uint64_t last_sequence, uint64_t sealed_total, uint32_t next_segment) {
    header().last_sequence.store(last_sequence, std::memory_order_relaxed);
    header().sealed_total.store(sealed_total, std::memory_order_relaxed);
    header().next_segment.store(next_segment, std::memory_order_relaxed);
  }

  // Of a file with a name.
  Status rename_to(const std::string& path) { return memory_->rename_to(path); }
  void keep() { memory_->keep(); }

  void close() { header().closed.store(1, std::memory_order_release); }

 private:
  struct Table {
    uint32_t page = 0;   // file offset / 4096
    uint32_t depth = 0;  // hash bits that all of its keys share
    uint32_t live = 0;
    uint32_t removed = 0;
  };
  // Above this share of slots in use a table is split (or swept, if most are removed ones).
  static constexpr uint32_t kSlotsInUseMax = kTableSlots * 85 / 100;

  struct Place {
    std::atomic<uint64_t>* slot;
    bool found;
  };

  IndexWriter() = default;
  IndexHeader& header() { return *reinterpret_cast<IndexHeader*>(memory_->data()); }
  std::atomic<uint64_t>* slots(const Table& table) const {
    return reinterpret_cast<std::atomic<uint64_t>*>(memory_->data() + uint64_t{table.page} * 4096);
  }
  Table& table_of(uint64_t hash) { return *tables_[directory_index(hash, depth_)]; }
  template <class Matches>
  Place locate(const Table& table, uint64_t hash, Matches&& matches) const;
  bool allocate(uint64_t bytes, uint32_t* page);
  bool allocate_table(uint32_t* page);
  // Makes room in the table of `hash`.
  Status grow(uint64_t hash);
  bool double_directory();
  void publish(uint64_t index, std::shared_ptr<Table> table);
  void insert_unique(Table& table, uint64_t hash, SlotRef ref);

  HashOf hash_of_;
  std::shared_ptr<SharedMemory> memory_;
  IndexView view_;
  uint64_t used_bytes_ = kIndexHeaderBytes;
  uint32_t depth_ = 0;
  uint32_t directory_page_ = 0;
  std::vector<std::shared_ptr<Table>> tables_;  // one a directory slot; neighbours may share one
  std::vector<uint32_t> free_tables_;           // pages
};

template <class Matches>
IndexWriter::Place IndexWriter::locate(const Table& table, uint64_t hash, Matches&& matches) const {
  std::atomic<uint64_t>* all = slots(table);
  std::atomic<uint64_t>* vacant = nullptr;
  const uint64_t home = bucket_of(hash);
  for (uint64_t step = 0; step < kTableBuckets; ++step) {
    std::atomic<uint64_t>* bucket = all + ((home + step) & (kTableBuckets - 1)) * kBucketSlots;
    for (uint64_t i = 0; i < kBucketSlots; ++i) {
      const uint64_t word = bucket[i].load(std::memory_order_relaxed);
      if (word == kSlotEmpty) return {vacant != nullptr ? vacant : &bucket[i], false};
      if (word == kSlotRemoved) {
        if (vacant == nullptr) vacant = &bucket[i];
      } else if ((word & 0xffff) == (hash & 0xffff) && matches(unpack_slot(word))) {
        return {&bucket[i], true};
      }
    }
  }
  return {vacant, false};
}

template <class Matches>
Result<std::optional<SlotRef>> IndexWriter::put(uint64_t hash, SlotRef ref, Matches&& matches) {
  for (;;) {
    Table& table = table_of(hash);
    const Place place = locate(table, hash, matches);
    if (place.found) {
      const SlotRef before = unpack_slot(place.slot->load(std::memory_order_relaxed));
      place.slot->store(pack_slot(ref, hash), std::memory_order_release);
      return std::optional<SlotRef>(before);
    }
    const bool reuses = place.slot != nullptr && place.slot->load(std::memory_order_relaxed) == kSlotRemoved;
    if (reuses || table.live + table.removed < kSlotsInUseMax) {
      if (reuses) --table.removed;
      ++table.live;
      place.slot->store(pack_slot(ref, hash), std::memory_order_release);
      header().objects.fetch_add(1, std::memory_order_relaxed);
      return std::optional<SlotRef>();
    }
    if (Status grown = grow(hash); !grown.ok()) return grown;
  }
}

template <class Matches>
std::optional<SlotRef> IndexWriter::remove(uint64_t hash, Matches&& matches) {
  Table& table = table_of(hash);
  const Place place = locate(table, hash, matches);
  if (!place.found) return std::nullopt;
  const SlotRef before = unpack_slot(place.slot->load(std::memory_order_relaxed));
  // The last used slot of a bucket that has room may become empty again: probes end at this bucket anyway.
  const auto index = static_cast<uint64_t>(place.slot - slots(table));
  const bool last_of_open_bucket =
      index % kBucketSlots + 1 < kBucketSlots && place.slot[1].load(std::memory_order_relaxed) == kSlotEmpty;
  place.slot->store(last_of_open_bucket ? kSlotEmpty : kSlotRemoved, std::memory_order_release);
  --table.live;
  if (!last_of_open_bucket) ++table.removed;
  header().objects.fetch_sub(1, std::memory_order_relaxed);
  return before;
}

}  // namespace millrace
