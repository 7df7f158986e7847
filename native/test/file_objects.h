// Objects whose bytes lie in files just where a test wants them, made through the inside of a namespace.
#pragma once
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "store/namespace_impl.h"

namespace millrace {

struct NamespaceInside {
  static Namespace::Impl& of(Namespace& ns) { return *ns.impl_; }
};

namespace test {

// Changes one byte of a file.
inline void damage(const std::string& path, uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const auto byte = static_cast<char>(file.get());
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ 0x40));
}

struct ExtentShape {
  uint64_t bytes;
  bool in_file = true;
};

// Seals `data` under `key` in such extents, which together are all of it: those in files lie in one new file.
inline Result<ObjectInfo> put_in_extents(Namespace& ns, std::string_view key, ConstSpan data,
                                         const std::vector<ExtentShape>& shapes) {
  Namespace::Impl& in = NamespaceInside::of(ns);
  std::vector<ManifestExtent> extents;
  std::shared_ptr<Segment> of_file;
  {
    std::lock_guard lock(in.mutex);
    const auto number = static_cast<uint32_t>(in.segments.size());
    in.segments.push_back(nullptr);
    auto writer = in.node->nvme.create("test", std::to_string(number) + ".seg", data.bytes + shapes.size() * 8192 + 8192);
    if (!writer.ok()) return writer.status();
    SegmentFileWriter& to = **writer;
    const std::vector<uint8_t> header(kSegmentHeaderBytes);
    if (Status failed = to.append(header.data(), header.size()); !failed.ok()) return failed;
    uint64_t at = 0, live_bytes = 0;
    for (const ExtentShape& shape : shapes) {
      ManifestExtent extent{number, crc32c(0, data.data + at, shape.bytes), 0, shape.bytes};
      if (shape.in_file) {
        // Somewhere in the middle of blocks, as after an entry's header.
        if (Status failed = to.append(header.data(), 40 + key.size() % 100); !failed.ok()) return failed;
        if (Status failed = to.pad(16); !failed.ok()) return failed;
        extent.offset = to.position();
        if (Status failed = to.append(data.data + at, shape.bytes); !failed.ok()) return failed;
        live_bytes += shape.bytes;
      }
      extents.push_back(extent);
      at += shape.bytes;
    }
    MILLRACE_ASSERT(at == data.bytes);
    auto file = to.finish();
    if (!file.ok()) return file.status();
    of_file = std::make_shared<Segment>(number, *file);
    of_file->live_bytes = live_bytes;
    in.account(*of_file, 1);
    in.segments[number] = of_file;
  }
  // Those in memory are parts of other objects, which stay.
  uint64_t at = 0;
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (!shapes[i].in_file) {
      const std::string part = std::string(key) + "/part" + std::to_string(i);
      if (auto put = ns.put(part, {data.data + at, shapes[i].bytes}, {}); !put.ok()) return put.status();
      auto view = ns.get(part);
      if (!view.ok()) return view.status();
      MILLRACE_ASSERT(view->spans.size() == 1);
      std::lock_guard lock(in.mutex);
      extents[i].segment = view->segments[0]->number;
      extents[i].offset = static_cast<uint64_t>(view->spans[0].data - view->segments[0]->data());
      view->segments[0]->live_bytes += shapes[i].bytes;
    }
    at += shapes[i].bytes;
  }
  const ManifestHeader header{data.bytes, crc32c(0, data.data, data.bytes), static_cast<uint32_t>(extents.size())};
  std::vector<uint8_t> payload(sizeof(header) + extents.size() * sizeof(ManifestExtent));
  std::memcpy(payload.data(), &header, sizeof(header));
  if (!extents.empty()) std::memcpy(payload.data() + sizeof(header), extents.data(), payload.size() - sizeof(header));
  std::lock_guard lock(in.mutex);
  auto segment = in.house_segment(entry_bytes_max(key.size(), payload.size()));
  if (!segment.ok()) return segment.status();
  const uint64_t entry = (*segment)->write_end;
  std::memcpy((*segment)->data() + shape_entry(entry, key.size(), payload.size()).payload_offset, payload.data(), payload.size());
  write_entry_header((*segment)->data(), entry, EntryKind::kManifest, key, payload.size(),
                     crc32c(0, payload.data(), payload.size()));
  return in.publish_own(**segment, entry, key);
}

}  // namespace test
}  // namespace millrace
