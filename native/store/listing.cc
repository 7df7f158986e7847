// Listing in key order. The order is kept only for namespaces that list.
#include <algorithm>

#include "store/namespace_impl.h"

namespace millrace {

void Namespace::Impl::settle_order() {
  for (const OrderChange& change : order_log) {
    if (change.put) {
      ordered.put(change.ref);
    } else {
      ordered.remove(change.ref);
    }
  }
  order_log.clear();
}

Result<ListPage> Namespace::list(std::string_view prefix, std::string_view start_after, uint32_t limit,
                                 ListOptions options) {
  Impl& in = *impl_;
  if (prefix.size() > limits::kKeyBytesMax || start_after.size() > limits::kKeyBytesMax) {
    return Status(Code::kKeyTooLong, "a prefix or start-after is at most as long as a key");
  }
  if (limit == 0 || limit > limits::kListPageMax) limit = limits::kListPageMax;
  std::unique_lock lock(in.mutex);
  if (in.dropped) return in.gone();
  if (!in.ordering) {
    // Sorted by copies of the keys: a client can still write to the originals in its grants, and a sort whose
    // order changes under it reaches outside of its array.
    std::vector<std::pair<std::string, SlotRef>> keys;
    in.index->for_each([&](SlotRef ref) { keys.emplace_back(in.key_of(ref), ref); });
    std::sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<SlotRef> refs;
    refs.reserve(keys.size());
    for (const auto& [key, ref] : keys) refs.push_back(ref);
    in.ordered.load_sorted(refs);
    in.ordering = true;
  }
  in.settle_order();

  ListPage page;
  // The least key after `start_after` is `start_after` with a zero byte.
  const bool hidden = options.hidden || is_hidden(prefix);
  const std::string after = start_after.empty() ? std::string() : std::string(start_after) + '\0';
  in.ordered.scan(std::max<std::string_view>(prefix, after), [&](SlotRef ref) {
    const std::string key(in.key_of(ref));
    ListedObject listed{key, {}, {}};
    auto entry = in.entry_at(ref);
    auto info = entry.ok() ? in.info_of(ref, *entry, options.attributes ? &listed.attributes : nullptr) : entry.status();
    // Spoilt by its own client after it was sealed: no reason to fail the listing of all others.
    if (key.empty() || !info.ok()) return true;
    if (!key.starts_with(prefix) || (is_hidden(key) && !hidden)) return false;
    if (page.objects.size() == limit) {
      page.truncated = true;
      return false;
    }
    listed.info = *info;
    page.objects.push_back(std::move(listed));
    return true;
  });
  return page;
}

}  // namespace millrace
