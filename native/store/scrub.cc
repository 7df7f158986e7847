#include "store/scrub.h"

#include "store/segment.h"
#include "store/view_reader.h"

namespace millrace {

namespace {

Status stopped() { return Status(Code::kAborted, "the check was stopped"); }

Status check(FileReader& reader, const ObjectView& view, std::string_view key, const std::atomic<bool>& stop) {
  return read_all(reader, view, key, [&](ConstSpan) { return stop.load() ? stopped() : Status(); });
}

// Extents in files have checksums of their own, so one of them can be told; else it may be any segment in memory.
uint32_t damaged_segment(FileReader& reader, const ObjectView& view, std::string_view key,
                         const std::atomic<bool>& stop) {
  for (size_t i = 0; i < view.places.size(); ++i) {
    const ObjectView::Place& place = view.places[i];
    if (place.file == nullptr || place.bytes != view.spans[i].bytes) continue;
    ObjectView extent;
    extent.info.size_bytes = place.bytes;
    extent.info.crc32c = place.crc;
    extent.spans = {view.spans[i]};
    extent.segments = {view.segments[i]};
    extent.places = {place};
    if (!check(reader, extent, key, stop).ok()) return place.segment;
  }
  for (const auto& segment : view.segments) {
    if (segment->memory) return segment->number;
  }
  return view.segments.empty() ? 0 : view.segments.front()->number;
}

}  // namespace

Result<ScrubPage> scrub(Namespace& ns, FileReader& reader, std::string_view start_after, uint32_t limit,
                        const std::atomic<bool>& stop) {
  auto listed = ns.list("", start_after, limit, {.hidden = true});
  if (!listed.ok()) return listed.status();
  ScrubPage page;
  page.more = listed->truncated;
  for (const ListedObject& object : listed->objects) {
    if (stop.load()) return stopped();
    page.last_key = object.key;
    auto view = ns.get(object.key);
    if (view.code() == Code::kNotFound) continue;
    if (view.code() == Code::kNamespaceGone) return view.status();
    ++page.objects;
    if (!view.ok()) {
      page.damaged.push_back({object.key, 0, view.status().message()});
      continue;
    }
    page.size_bytes += view->info.size_bytes;
    const Status status = check(reader, *view, object.key, stop);
    if (stop.load()) return stopped();
    if (status.ok()) continue;
    page.damaged.push_back({object.key, damaged_segment(reader, *view, object.key, stop), status.message()});
  }
  return page;
}

}  // namespace millrace
