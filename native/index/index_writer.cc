#include "index/index_writer.h"

#include <fcntl.h>

#include <cstring>

namespace millrace {

Result<std::unique_ptr<IndexWriter>> IndexWriter::create(HashOf hash_of, const std::string& path, uint64_t objects_expected) {
  auto memory = path.empty() ? SharedMemory::create_sparse("millrace-index", limits::kIndexBytesMax)
                             : SharedMemory::create_sparse_file(path, limits::kIndexBytesMax);
  if (!memory.ok()) return memory.status();
  std::unique_ptr<IndexWriter> index(new IndexWriter);
  index->hash_of_ = std::move(hash_of);
  index->memory_ = *memory;
  index->view_ = IndexView(index->memory_->data());
#ifdef F_SEAL_FUTURE_WRITE
  // Our mapping stays writable; no other can be made from any descriptor of the file. One with a name takes no
  // seals: there clients are kept from writing by being handed a read-only descriptor, and other users by its mode.
  if (path.empty()) fcntl(index->memory_->fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
#endif
  if (!path.empty()) {
    if (Status full = index->memory_->take(0, kIndexHeaderBytes); !full.ok()) return full;
  }
  IndexHeader& header = index->header();
  header.magic = kIndexMagic;
  header.version = kIndexVersion;
  // So deep that tables are two thirds full: keys spread so evenly that none will have to be split.
  while (index->depth_ < kDepthMax && (kTableSlots * 2 / 3 << index->depth_) < objects_expected) ++index->depth_;
  const uint64_t slots = uint64_t{1} << index->depth_;
  const Status full(Code::kResourceExhausted, "no room for the index of the namespace");
  if (!index->allocate(slots * 4, &index->directory_page_)) return full;
  index->tables_.resize(slots);
  for (uint64_t i = 0; i < slots; ++i) {
    auto table = std::make_shared<Table>(Table{.depth = index->depth_});
    if (!index->allocate_table(&table->page)) return full;
    index->publish(i, std::move(table));
  }
  header.directory.store(uint64_t{index->directory_page_} * 4096 << 8 | index->depth_, std::memory_order_release);
  return index;
}

bool IndexWriter::allocate(uint64_t bytes, uint32_t* page) {
  bytes = align_up(bytes, 4096);
  if (used_bytes_ + bytes > limits::kIndexBytesMax) return false;
  if (!memory_->path().empty() && !memory_->take(used_bytes_, bytes).ok()) return false;
  *page = static_cast<uint32_t>(used_bytes_ / 4096);
  used_bytes_ += bytes;
  return true;
}

// Zeroed. A table that was freed may still be read by someone who came before its split: such a reader can
// only miss (its key is elsewhere by now), and misses are validated against the generation.
bool IndexWriter::allocate_table(uint32_t* page) {
  if (free_tables_.empty()) return allocate(kTableBytes, page);
  *page = free_tables_.back();
  free_tables_.pop_back();
  Table table{.page = *page};
  std::atomic<uint64_t>* all = slots(table);
  for (uint64_t i = 0; i < kTableSlots; ++i) all[i].store(kSlotEmpty, std::memory_order_release);
  return true;
}

void IndexWriter::publish(uint64_t index, std::shared_ptr<Table> table) {
  auto* directory = reinterpret_cast<std::atomic<uint32_t>*>(memory_->data() + uint64_t{directory_page_} * 4096);
  directory[index].store(table->page, std::memory_order_release);
  tables_[index] = std::move(table);
}

bool IndexWriter::double_directory() {
  if (depth_ == kDepthMax) return false;
  const uint64_t slots_before = uint64_t{1} << depth_;
  uint32_t page;
  if (!allocate(slots_before * 2 * 4, &page)) return false;
  // The old directory is left as it is: all of them together are no larger than the newest.
  auto* directory = reinterpret_cast<std::atomic<uint32_t>*>(memory_->data() + uint64_t{page} * 4096);
  std::vector<std::shared_ptr<Table>> tables(slots_before * 2);
  for (uint64_t i = 0; i < slots_before * 2; ++i) {
    tables[i] = tables_[i / 2];
    directory[i].store(tables[i]->page, std::memory_order_relaxed);
  }
  tables_ = std::move(tables);
  ++depth_;
  directory_page_ = page;
  header().directory.store(uint64_t{page} * 4096 << 8 | depth_, std::memory_order_release);
  return true;
}

void IndexWriter::insert_unique(Table& table, uint64_t hash, SlotRef ref) {
  const Place place = locate(table, hash, [](SlotRef) { return false; });
  MILLRACE_ASSERT(place.slot != nullptr);
  place.slot->store(pack_slot(ref, hash), std::memory_order_release);
  ++table.live;
}

Status IndexWriter::grow(uint64_t hash) {
  const Status full(Code::kResourceExhausted, "the index of the namespace is full");
  std::shared_ptr<Table> old = tables_[directory_index(hash, depth_)];
  // Mostly removed slots: the same table again without them. Else two tables that tell one more bit apart.
  const bool sweep = old->live < kSlotsInUseMax / 2;
  const uint32_t depth = old->depth + (sweep ? 0 : 1);

  std::atomic<uint64_t>& generation = header().generation;
  generation.fetch_add(1, std::memory_order_acq_rel);
  Status status;
  uint32_t pages[2] = {0, 0};
  if (depth > depth_ && !double_directory()) status = full;
  if (status.ok() && !allocate_table(&pages[0])) status = full;
  if (status.ok() && !sweep && !allocate_table(&pages[1])) {
    free_tables_.push_back(pages[0]);
    status = full;
  }
  if (status.ok()) {
    std::shared_ptr<Table> fresh[2];
    for (int i = 0; i < (sweep ? 1 : 2); ++i) {
      fresh[i] = std::make_shared<Table>(Table{.page = pages[i], .depth = depth});
    }
    const std::atomic<uint64_t>* all = slots(*old);
    for (uint64_t i = 0; i < kTableSlots; ++i) {
      const uint64_t word = all[i].load(std::memory_order_relaxed);
      if (word == kSlotEmpty || word == kSlotRemoved) continue;
      const SlotRef ref = unpack_slot(word);
      const uint64_t key_hash = hash_of_(ref);
      insert_unique(*fresh[sweep ? 0 : directory_index(key_hash, depth) & 1], key_hash, ref);
    }
    // The directory slots that show the old table: all that share its first `old->depth` bits.
    const uint64_t span = uint64_t{1} << (depth_ - old->depth);
    const uint64_t first = directory_index(hash, depth_) & ~(span - 1);
    for (uint64_t i = 0; i < span; ++i) publish(first + i, fresh[sweep || i < span / 2 ? 0 : 1]);
    free_tables_.push_back(old->page);
  }
  generation.fetch_add(1, std::memory_order_release);
  return status;
}

void IndexWriter::for_each(const std::function<void(SlotRef)>& visit) const {
  const Table* last = nullptr;
  for (const auto& table : tables_) {
    if (table.get() == last) continue;  // directory slots of one table are neighbours
    last = table.get();
    const std::atomic<uint64_t>* all = slots(*table);
    for (uint64_t i = 0; i < kTableSlots; ++i) {
      const uint64_t word = all[i].load(std::memory_order_relaxed);
      if (word != kSlotEmpty && word != kSlotRemoved) visit(unpack_slot(word));
    }
  }
}

}  // namespace millrace
