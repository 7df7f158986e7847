// How a store takes up what an earlier life of its node left, and removes what nobody takes up.
#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "base/hash.h"
#include "store/remains.h"
#include "store/store_impl.h"

namespace millrace {

namespace {

// Until the index of this life is in place all files stay, whatever fails.
class Found {
 public:
  explicit Found(Remains remains) : remains_(std::move(remains)) {}
  ~Found() {
    if (!taken_) remains_.keep();
  }
  Remains& operator*() { return remains_; }
  Remains* operator->() { return &remains_; }
  void taken() { taken_ = true; }

 private:
  Remains remains_;
  bool taken_ = false;
};

std::shared_ptr<Segment> take_up(const Remains::Segment& found) {
  auto segment = found.memory ? std::make_shared<Segment>(found.number, found.memory)
                              : std::make_shared<Segment>(found.number, found.file);
  segment->forsaken = true;
  segment->write_end = found.bytes();
  segment->live_bytes = found.live_bytes;
  if (!found.memory) return segment;
  uint64_t at = kSegmentHeaderBytes;
  for (const auto& [begin, end] : found.live) {
    if (begin > at) segment->holes.emplace(at, begin);
    at = std::max(at, end);
  }
  if (at < segment->bytes()) segment->holes.emplace(at, segment->bytes());
  // Their manifest may have become visible just before they were marked.
  for (uint64_t entry_offset : found.parts) {
    reinterpret_cast<EntryHeader*>(segment->data() + entry_offset)
        ->state.store(static_cast<uint32_t>(EntryState::kSealed), std::memory_order_release);
  }
  return segment;
}

// Names everything in the new index. Which segment's turn it is, is the order of memory.
Status fill_index(Namespace::Impl& in, const Remains& remains) {
  constexpr size_t kAhead = 8;
  for (const Remains::Segment& segment : remains.segments) {
    for (size_t i = 0; i < segment.objects.size(); ++i) {
      if (i + kAhead < segment.objects.size()) in.index->view().prefetch(segment.objects[i + kAhead].hash);
      const Remains::Object& object = segment.objects[i];
      const SlotRef ref{segment.number, object.entry_offset};
      auto before = in.index->put(object.hash, ref, [&](SlotRef other) { return in.key_equals(other, in.key_of(ref)); });
      if (!before.ok()) return before.status();
      if (!object.joined) continue;
      if (auto described = in.describe(ref); described.ok()) in.note_joined(described->extents, in.key_of(ref));
    }
  }
  return Status();
}

// What is in the folders of a namespace and of no use to it.
void remove_leftovers(NodeShared& node, const std::string& folder, const Remains& remains) {
  std::set<std::string> used;
  for (const Remains::Segment& segment : remains.segments) used.insert(segment.path());
  std::error_code ignored;
  std::vector<std::filesystem::path> unused;
  for (const std::string& path : node.tier.folders(folder)) {
    used.insert(path + "/" + kIndexFileName);
    for (const auto& entry : std::filesystem::directory_iterator(path, ignored)) {
      if (!used.contains(entry.path().string())) unused.push_back(entry.path());
    }
  }
  for (const auto& path : unused) std::filesystem::remove_all(path, ignored);
  std::set<std::string> used_names;
  for (const Remains::Segment& segment : remains.segments) {
    if (segment.file) used_names.insert(segment_file_name(segment.number));
  }
  for (const std::string& name : node.nvme.list(folder)) {
    if (!used_names.contains(name)) (void)node.nvme.find(folder, name);  // whose end removes it
  }
}

}  // namespace

Status Store::open() {
  if (Status failed = impl_->node->tier.open(); !failed.ok()) return failed;
  return impl_->node->nvme.open();
}

Result<Store::Recovered> Store::recover(std::string_view name, NamespaceOptions options) {
  const auto node = impl_->node;
  const Status there(Code::kAlreadyExists, "namespace '" + std::string(name) + "' is there already");
  uint64_t id;
  {
    std::lock_guard lock(impl_->mutex);
    if (impl_->by_name.contains(std::string(name))) return there;
    id = impl_->next_namespace++;
  }
  const std::string folder = token_hex(options.token);
  RemainsPlaces places;
  for (const std::string& path : node->tier.folders(folder)) places.folders.emplace_back(path, !places.folders.empty());
  places.file_names = node->nvme.list(folder);
  places.open_memory = [&](const std::string& path, bool huge) { return node->tier.adopt(path, huge); };
  places.open_file = [&](const std::string& file_name) { return node->nvme.find(folder, file_name); };
  places.reader = &node->reader;
  auto read = read_remains(places, options.token, name);
  if (!read.ok()) return read.status();
  Found remains(std::move(*read));

  auto ns = std::make_shared<Namespace>(std::make_unique<Namespace::Impl>(node, id, std::string(name), options));
  Namespace::Impl& in = *ns->impl_;
  in.files_kept = true;  // until all is well
  in.segments.resize(remains->next_segment);
  for (const Remains::Segment& found : remains->segments) {
    in.segments[found.number] = take_up(found);
    in.account(*in.segments[found.number], 1);
  }
  in.object_bytes = remains->size_bytes;
  in.last_sequence = remains->last_sequence;
  in.sealed_total = remains->sealed_total;

  if (Status failed = node->tier.make_folders(folder); !failed.ok()) return failed;
  const std::string path = node->tier.folders(folder).front() + "/" + kIndexFileName;
  const std::string path_until_complete = path + ".new";
  std::error_code ignored;
  std::filesystem::remove(path_until_complete, ignored);  // of a recovery that was killed
  auto index = IndexWriter::create([&in](SlotRef ref) { return hash_key(in.key_of(ref)); }, path_until_complete,
                                   remains->objects);
  if (!index.ok()) return index.status();
  in.index = std::move(*index);
  in.index->note(in.last_sequence, in.sealed_total, remains->next_segment);
  if (Status failed = fill_index(in, *remains); !failed.ok()) return failed;
  if (Status failed = in.index->rename_to(path); !failed.ok()) return failed;

  std::lock_guard lock(impl_->mutex);
  if (!impl_->by_name.emplace(name, ns).second) {
    in.index->keep();
    return there;
  }
  in.files_kept = false;
  remains.taken();
  remove_leftovers(*node, folder, *remains);
  return Recovered{std::move(ns), remains->objects, remains->torn};
}

void Store::remove_orphans() {
  std::set<std::string> ours;
  {
    std::lock_guard lock(impl_->mutex);
    for (const auto& [name, ns] : impl_->by_name) ours.insert(token_hex(ns->token()));
    for (const auto& ns : impl_->dropped) ours.insert(token_hex(ns->token()));
  }
  constexpr size_t kTokenDigits = 2 * std::tuple_size_v<Token>;
  const auto orphan = [&](const std::string& folder) {
    return folder.size() == kTokenDigits && folder.find_first_not_of("0123456789abcdef") == folder.npos && !ours.contains(folder);
  };
  std::error_code ignored;
  std::vector<std::filesystem::path> orphans;
  for (const std::string& directory : impl_->node->tier.folders("")) {
    for (const auto& entry : std::filesystem::directory_iterator(directory, ignored)) {
      if (orphan(entry.path().filename().string())) orphans.push_back(entry.path());
    }
  }
  for (const auto& path : orphans) std::filesystem::remove_all(path, ignored);
  for (const std::string& folder : impl_->node->nvme.folders()) {
    if (orphan(folder)) impl_->node->nvme.remove_folder(folder);
  }
}

}  // namespace millrace
