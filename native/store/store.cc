#include "store/store.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "store/remains.h"
#include "store/store_impl.h"

namespace millrace {

Store::Store(Options options) : impl_(std::make_unique<Impl>(options)) {
  impl_->node->reclaim = [in = impl_.get()] { in->reclaim_dropped(); };
  impl_->mover = std::make_unique<Mover>(impl_->node, [this] { return namespaces(); });
  impl_->node->wake_mover = [mover = impl_->mover.get()] { mover->wake(); };
  impl_->sweeper = std::thread([in = impl_.get()] { in->run(); });
}

Store::~Store() {
  impl_->mover->stop();
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  impl_->sweeper.join();
  impl_->node->listener.store(nullptr);
  if (impl_->node->options.keep) {
    for (const auto& ns : namespaces()) {
      std::lock_guard lock(ns->impl_->mutex);
      ns->impl_->keep_files();
    }
  }
  for (const auto& ns : namespaces()) (void)end(ns->name(), impl_->node->options.keep);
  impl_->dropped.clear();
  impl_->node->tier.stop();
}

// For who is short of room now. Called under the lock of a live namespace; that of a dropped one always comes
// after it, since a dropped one asks for no room.
void Store::Impl::reclaim_dropped() {
  std::vector<std::shared_ptr<Namespace>> all;
  {
    std::lock_guard lock(mutex);
    all = dropped;
  }
  for (const auto& ns : all) {
    std::lock_guard lock(ns->impl_->mutex);
    ns->impl_->sweep_retiring(Clock::now());
  }
}

// Frees retired segments whose views or grace have ended without anybody saying so.
void Store::Impl::run() {
  constexpr auto kPeriod = std::chrono::milliseconds(50);
  std::unique_lock lock(mutex);
  while (!stopping) {
    wake.wait_for(lock, kPeriod);
    std::vector<std::shared_ptr<Namespace>> all;
    for (const auto& [name, ns] : by_name) all.push_back(ns);
    all.insert(all.end(), dropped.begin(), dropped.end());
    lock.unlock();
    bool freed = false;
    const auto now = Clock::now();
    std::vector<Namespace*> ended;
    for (const auto& ns : all) {
      std::lock_guard namespace_lock(ns->impl_->mutex);
      freed |= ns->impl_->sweep_retiring(now);
      if (ns->impl_->dropped && ns->impl_->retiring.empty()) ended.push_back(ns.get());
    }
    if (Store::Listener* to = node->listener.load(); freed && to) to->room_freed();
    lock.lock();
    std::erase_if(dropped, [&](const auto& ns) { return std::find(ended.begin(), ended.end(), ns.get()) != ended.end(); });
    lock.unlock();
    all.clear();  // here namespaces end, and their pages go back to the kernel
    lock.lock();
  }
}

Result<std::shared_ptr<Namespace>> Store::create(std::string_view name, NamespaceOptions options) {
  if (name.empty() || name.size() > limits::kNamespaceNameBytesMax) {
    return Status(Code::kInvalidArgument, "a namespace's name has 1 to " + std::to_string(limits::kNamespaceNameBytesMax) + " bytes");
  }
  std::lock_guard lock(impl_->mutex);
  if (impl_->by_name.contains(std::string(name))) {
    return Status(Code::kAlreadyExists, "namespace '" + std::string(name) + "' is there already");
  }
  auto inside = std::make_unique<Namespace::Impl>(impl_->node, impl_->next_namespace++, std::string(name), options);
  auto* in = inside.get();
  std::string index_path;
  const std::string folder = token_hex(options.token);
  if (const auto folders = impl_->node->tier.folders(folder); !folders.empty()) {
    if (Status failed = impl_->node->tier.make_folders(folder); !failed.ok()) return failed;
    index_path = folders.front() + "/" + kIndexFileName;
  }
  auto index = IndexWriter::create([in](SlotRef ref) { return hash_key(in->key_of(ref)); }, index_path);
  if (!index.ok()) return index.status();
  in->index = std::move(*index);
  auto ns = std::make_shared<Namespace>(std::move(inside));
  impl_->by_name.emplace(name, ns);
  if (options.expected_bytes > 0) impl_->node->tier.prepare(options.expected_bytes);
  return ns;
}

std::shared_ptr<Namespace> Store::find(std::string_view name) {
  std::lock_guard lock(impl_->mutex);
  auto found = impl_->by_name.find(std::string(name));
  return found == impl_->by_name.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<Namespace>> Store::namespaces() {
  std::lock_guard lock(impl_->mutex);
  std::vector<std::shared_ptr<Namespace>> all;
  for (const auto& [name, ns] : impl_->by_name) all.push_back(ns);
  return all;
}

Status Store::drop(std::string_view name) { return end(name, false); }

Status Store::end(std::string_view name, bool stays) {
  std::shared_ptr<Namespace> ns;
  {
    std::lock_guard lock(impl_->mutex);
    auto found = impl_->by_name.find(std::string(name));
    if (found == impl_->by_name.end()) {
      return Status(Code::kNotFound, "no namespace '" + std::string(name) + "' on this node");
    }
    ns = std::move(found->second);
    impl_->by_name.erase(found);
    impl_->dropped.push_back(ns);
  }
  Namespace::Impl& in = *ns->impl_;
  Listener* listener = impl_->node->listener.load();
  OrderedKeys order([](SlotRef) { return std::string_view(); });
  {
    std::lock_guard lock(in.mutex);
    in.dropped = true;
    if (!stays) in.index->close();
    const auto grace_ends = Clock::now() + std::chrono::milliseconds(impl_->node->options.retire_grace_ms);
    for (auto& segment : in.segments) {
      if (!segment) continue;
      segment->retired = true;
      if (segment->memory) impl_->node->retiring_bytes.fetch_add(segment->bytes());
      in.retiring.push_back({std::move(segment), grace_ends});
    }
    in.segments.clear();
    in.open.clear();
    in.house.reset();
    in.keep.reset();
    in.moved.reset();
    std::swap(in.ordered, order);  // freed after the lock
    in.order_log = {};
    in.ordering = false;
    in.object_bytes = 0;
  }
  impl_->node->recycler.forget(in.id);
  if (listener) listener->namespace_dropped(*ns);
  // Pages go back to the kernel on the sweeper's thread: that takes time, and nobody waits for it here.
  impl_->wake.notify_all();
  return Status();
}

void Store::set_listener(Listener* listener) { impl_->node->listener.store(listener); }

FileReader& Store::reader() { return impl_->node->reader; }

void Store::set_watermarks(double high, double low) {
  impl_->node->high_watermark = high;
  impl_->node->low_watermark = low;
  impl_->mover->wake();
}

DramTier::Stats Store::dram_stats() const { return impl_->node->tier.stats(); }
NvmeTier::Stats Store::nvme_stats() const { return impl_->node->nvme.stats(); }

uint64_t Store::held_bytes() const {
  std::vector<std::shared_ptr<Namespace>> all;
  {
    std::lock_guard lock(impl_->mutex);
    for (const auto& [name, ns] : impl_->by_name) all.push_back(ns);
  }
  uint64_t bytes = 0;
  for (const auto& ns : all) bytes += ns->stats().held_bytes;
  return bytes;
}

}  // namespace millrace
