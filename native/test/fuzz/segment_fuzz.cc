// Bytes as a hostile client may leave them in shared memory, against everything that reads them.
//
// The first byte says how the rest is used:
//   even: as a whole segment, for its header, for an entry at every place and for every manifest
//   odd:  as what a client writes into its grant, between operations of a store that are also read from the input
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "base/crc32c.h"
#include "store/segment.h"
#include "store/store.h"

namespace millrace {
namespace {

// Bugs of the store show as failed checks here, as assertions, or as sanitizer reports.
void check(bool condition) {
  if (!condition) std::abort();
}

class Input {
 public:
  Input(const uint8_t* data, size_t bytes) : data_(data), left_(bytes) {}
  size_t left() const { return left_; }
  uint8_t byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  uint32_t word() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) value = value << 8 | byte();
    return value;
  }
  // A pointer to the next bytes, at most as many as asked for.
  const uint8_t* take(size_t wanted, size_t* bytes) {
    *bytes = std::min(wanted, left_);
    const uint8_t* at = data_;
    data_ += *bytes;
    left_ -= *bytes;
    return at;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

uint8_t touch(const uint8_t* data, uint64_t bytes) {
  uint8_t sum = 0;
  for (uint64_t at = 0; at < bytes; ++at) sum = static_cast<uint8_t>(sum + data[at]);
  return sum;
}

// --- the parsers alone, over memory whose end AddressSanitizer guards

void parse(Input input) {
  const uint8_t flags = input.byte();
  const uint64_t bytes = kSegmentHeaderBytes + input.left() / 16 * 16;
  std::unique_ptr<uint8_t, decltype(&std::free)> memory(static_cast<uint8_t*>(std::aligned_alloc(16, bytes)), &std::free);
  std::memset(memory.get(), 0, bytes);
  const uint8_t token[16] = {};
  write_segment_header(memory.get(), bytes, 1, "fuzz", token, 0);
  size_t count;
  const uint8_t* from = input.take(bytes - ((flags & 1) ? 0 : kSegmentHeaderBytes), &count);
  std::memcpy(memory.get() + ((flags & 1) ? 0 : kSegmentHeaderBytes), from, std::min<uint64_t>(count, bytes - ((flags & 1) ? 0 : kSegmentHeaderBytes)));

  const Status header = check_segment_header(memory.get(), bytes);
  check((flags & 1) || header.ok());
  volatile uint8_t sink = 0;
  for (uint64_t at = 0; at <= bytes + 16; at += 8) {
    for (const bool verify : {false, true}) {
      const auto entry = read_entry(memory.get(), bytes, at, verify);
      if (!entry.ok()) continue;
      const Entry& found = entry.value();
      check(at >= kSegmentHeaderBytes && at % limits::kEntryAlignment == 0);
      check(found.key.size() <= limits::kKeyBytesMax);
      check(found.payload_offset >= at + sizeof(EntryHeader) + found.key.size());
      check(found.payload_offset + found.payload_bytes <= found.end && found.end <= bytes);
      sink = touch(reinterpret_cast<const uint8_t*>(found.key.data()), found.key.size());
      sink = touch(memory.get() + found.payload_offset, found.payload_bytes);
      const auto manifest = read_manifest(memory.get() + found.payload_offset, found.payload_bytes);
      if (!manifest.ok()) continue;
      uint64_t sum = 0;
      for (uint32_t i = 0; i < manifest.value().header.extents; ++i) sum += manifest.value().extents[i].bytes;
      check(sum == manifest.value().header.object_bytes);
      const std::string_view attributes = manifest.value().attributes;
      check(attributes.size() <= limits::kAttributesBytesMax);
      sink = touch(reinterpret_cast<const uint8_t*>(attributes.data()), attributes.size());
    }
  }
  (void)sink;
}

// --- a client at work

std::string key_of(uint8_t choice) { return "key-" + std::to_string(choice % 8); }

// One store for the whole run, a namespace for each input: a store costs a thread and its first pages.
Store& store() {
  static Store* const kept = [] {
    Store::Options options;
    options.dram.limit_bytes = 64 * MiB;
    options.dram.huge_pages = HugePages::kOff;
    options.retire_grace_ms = 1;
    return new Store(options);
  }();
  return *kept;
}

struct World {
  World() {
    ns = store().create("fuzz", {}).value();
    const std::string safe = "these bytes lie in a segment that the client cannot write to";
    check(ns->put("safe", {reinterpret_cast<const uint8_t*>(safe.data()), safe.size()}, {}).ok());
    safe_crc = crc32c(0, safe.data(), safe.size());
  }
  void expect_safe() {
    const auto view = ns->get("safe");
    check(view.ok());
    check(view.value().spans.size() == 1 && crc32c(0, view.value().spans[0].data, view.value().spans[0].bytes) == safe_crc);
  }
  std::shared_ptr<Namespace> ns;
  uint32_t safe_crc = 0;
};

void act(Input input) {
  World world;
  Namespace& ns = *world.ns;
  const SessionId session = ns.begin_session();
  auto grant = ns.reserve(session, 100000);
  check(grant.ok());
  uint8_t* data = grant->memory->data();
  const uint64_t bytes = grant->memory->bytes();
  // Where the next entry is written; inputs reach the first 64 KiB of the segment, and its very end.
  const auto place = [&](uint16_t choice) -> uint64_t {
    return choice >= 0xff00 ? bytes - (0x10000u - choice) * 16 : kSegmentHeaderBytes + choice % 4096 * 16;
  };
  volatile uint8_t sink = 0;
  for (int step = 0; step < 200 && input.left() > 0; ++step) {
    const uint8_t action = input.byte();
    const uint64_t at = place(static_cast<uint16_t>(input.byte() << 8 | input.byte()));
    switch (action % 14) {
      case 0: {  // raw bytes anywhere, the segment's header included
        size_t count;
        const uint8_t* from = input.take(input.byte(), &count);
        const uint64_t to = action & 0x80 ? at % kSegmentHeaderBytes : at;
        std::memcpy(data + to, from, std::min<uint64_t>(count, bytes - to));
        break;
      }
      case 1:
      case 2: {  // a well-made entry with fields of the input
        const auto kind = static_cast<EntryKind>(input.byte() % 3 + 1);
        const std::string key = kind == EntryKind::kPart ? "" : key_of(input.byte());
        if (at + 2048 > bytes) break;
        const uint64_t payload = action & 0x80 ? input.word() : input.byte();
        write_entry_header(data, at, kind, key, payload, input.word());
        break;
      }
      case 3: {  // a manifest
        const std::string key = key_of(input.byte());
        const uint32_t extents = input.byte() % 4 + 1;
        const uint64_t payload_bytes = manifest_bytes(extents, input.byte());
        if (at + 2048 > bytes) break;
        ManifestHeader header{0, 0, extents};
        uint8_t* payload = data + shape_entry(at, key.size(), payload_bytes).payload_offset;
        for (uint32_t i = 0; i < extents; ++i) {
          const ManifestExtent extent{input.byte() % 4u, 0, action & 0x80 ? input.word() : place(static_cast<uint16_t>(input.word())) + 48, input.byte()};
          header.object_bytes += extent.bytes;
          std::memcpy(payload + 16 + i * 24, &extent, 24);
        }
        std::memcpy(payload, &header, 16);
        write_entry_header(data, at, EntryKind::kManifest, key, payload_bytes, 0, 0, action & 0x20 ? kEntryJoined : 0);
        break;
      }
      case 4:
      case 5:
        (void)ns.seal(session, action & 0x80 ? input.byte() : grant->segment, at, {.if_absent = (action & 0x40) != 0});
        break;
      case 6: {
        Namespace::SealRecord records[4];
        for (auto& record : records) record = {grant->segment, static_cast<uint32_t>(place(static_cast<uint16_t>(input.word())) / 16)};
        if (action & 0x80) records[1].entry_unit = input.word();
        size_t failed_at = 99;
        const Status status = ns.seal_batch(session, records, 4, &failed_at);
        check(status.ok() ? failed_at == 4 : failed_at < 4);
        break;
      }
      case 7:
      case 8: {
        auto view = ns.get(key_of(input.byte()), action & 0x80 ? input.byte() : 0, action & 0x40 ? input.byte() : 0);
        if (!view.ok()) break;
        check(view->spans.size() <= view->segments.size());
        for (size_t i = 0; i < view->spans.size(); ++i) {
          const ConstSpan& span = view->spans[i];
          const Segment& segment = *view->segments[i];
          check(span.data >= segment.data() + kSegmentHeaderBytes && span.data + span.bytes <= segment.data() + segment.bytes());
          sink = touch(span.data, span.bytes);
        }
        break;
      }
      case 9:
        (void)ns.head(key_of(input.byte()));
        break;
      case 10: {
        const auto page = ns.list(action & 0x80 ? "key-" : "", action & 0x40 ? key_of(input.byte()) : "", input.byte());
        check(page.ok());
        break;
      }
      case 11:
        (void)ns.remove(key_of(input.byte()), {.if_sequence = action & 0x80 ? input.byte() : uint64_t{0}});
        break;
      case 12: {
        size_t count;
        const std::string key = key_of(input.byte());
        const uint8_t* from = input.take(input.byte(), &count);
        (void)ns.put(key, {from, count}, {.if_absent = (action & 0x80) != 0});
        break;
      }
      default:
        if (action & 0x80) ns.confirm_unmapped(session, input.byte());
        else (void)ns.open_segment(session, input.byte());
    }
    (void)sink;
  }
  world.expect_safe();
  (void)ns.stats();
  ns.end_session(session);
  check(ns.list("", "", 1000).ok());
  (void)ns.remove("key-1", {});
  world.expect_safe();
  check(store().drop("fuzz").ok());
}

}  // namespace
}  // namespace millrace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  if (data[0] & 1) {
    millrace::act({data + 1, size - 1});
  } else {
    millrace::parse({data + 1, size - 1});
  }
  return 0;
}
