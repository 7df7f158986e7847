// The bytes of a segment: headers, entries and manifests are accepted as written and refused when any field
// or any covered byte is wrong.
#include "segment/layout.h"

#include <functional>

#include "test/test_support.h"

namespace millrace {
namespace {

using test::Content;
using test::Random;

constexpr uint64_t kBytes = 1 * MiB;
constexpr uint8_t kToken[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

// Exactly `bytes` of memory, so that AddressSanitizer sees a read one past the end.
class Memory {
 public:
  explicit Memory(uint64_t bytes = kBytes) : bytes_(bytes), data_(static_cast<uint8_t*>(std::aligned_alloc(4096, bytes))) {
    std::memset(data_, 0, bytes);
  }
  ~Memory() { std::free(data_); }
  Memory(const Memory&) = delete;
  uint8_t* data() { return data_; }
  uint64_t bytes() const { return bytes_; }
  template <class T>
  void set(uint64_t offset, T value) { std::memcpy(data_ + offset, &value, sizeof value); }
  template <class T>
  T get(uint64_t offset) const {
    T value;
    std::memcpy(&value, data_ + offset, sizeof value);
    return value;
  }

 private:
  uint64_t bytes_;
  uint8_t* data_;
};

void seal_segment_header(Memory& memory) { memory.set<uint32_t>(12, crc32c(0, memory.data() + 16, 112)); }

// Makes the header checksum of a (forged) entry right, as a hostile writer would.
void seal_entry_header(Memory& memory, uint64_t entry) {
  const uint32_t number = memory.get<uint32_t>(32);
  const uint64_t key_bytes = std::min<uint64_t>(memory.get<uint16_t>(entry + 6), memory.bytes() - entry - sizeof(EntryHeader));
  uint32_t crc = crc32c(number, memory.data() + entry + 4, 20);
  crc = crc32c(crc, memory.data() + entry + sizeof(EntryHeader), key_bytes);
  memory.set<uint32_t>(entry, crc);
}

TEST(SegmentHeader, IsAcceptedAsWritten) {
  for (uint64_t bytes = limits::kSegmentBytesMin; bytes <= 4 * MiB; bytes *= 2) {
    for (const std::string& name : {std::string("a"), std::string("job-1"), std::string(63, 'n')}) {
      Memory memory(bytes);
      write_segment_header(memory.data(), bytes, 77, name, kToken, 1234567890123);
      EXPECT_OK(check_segment_header(memory.data(), bytes));
      EXPECT_EQ(memory.get<uint64_t>(0), kSegmentMagic);
      EXPECT_EQ(std::memcmp(memory.data(), "MILLSEG1", 8), 0);
      EXPECT_EQ(memory.get<uint32_t>(8), kSegmentVersion);
      EXPECT_EQ(memory.get<uint64_t>(16), bytes);
      EXPECT_EQ(memory.get<uint64_t>(24), 1234567890123u);
      EXPECT_EQ(memory.get<uint32_t>(32), 77u);
      EXPECT_EQ(memory.get<uint32_t>(36), name.size());
      EXPECT_EQ(std::memcmp(memory.data() + 40, kToken, 16), 0);
      EXPECT_EQ(std::string(reinterpret_cast<char*>(memory.data()) + 56, name.size()), name);
    }
  }
}

TEST(SegmentHeader, EveryFlippedBitIsNoticed) {
  Memory memory;
  write_segment_header(memory.data(), kBytes, 3, "job", kToken, 99);
  for (uint64_t byte = 0; byte < sizeof(SegmentHeader); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      memory.data()[byte] ^= static_cast<uint8_t>(1 << bit);
      EXPECT_FALSE(check_segment_header(memory.data(), kBytes).ok()) << "byte " << byte << " bit " << bit;
      memory.data()[byte] ^= static_cast<uint8_t>(1 << bit);
    }
  }
  EXPECT_OK(check_segment_header(memory.data(), kBytes));
}

TEST(SegmentHeader, FieldsAreCheckedWhereTheChecksumIsRight) {
  Memory memory;
  const auto forged = [&](const std::function<void()>& change) {
    write_segment_header(memory.data(), kBytes, 3, "job", kToken, 99);
    change();
    seal_segment_header(memory);
    return check_segment_header(memory.data(), kBytes);
  };
  EXPECT_OK(forged([] {}));
  EXPECT_CODE(forged([&] { memory.set<uint64_t>(0, 0); }), Code::kCorrupt);
  EXPECT_FALSE(forged([&] { memory.set<uint32_t>(8, kSegmentVersion + 1); }).ok());
  EXPECT_FALSE(forged([&] { memory.set<uint32_t>(8, 0); }).ok());
  EXPECT_FALSE(forged([&] { memory.set<uint64_t>(16, kBytes * 2); }).ok()) << "larger than what is mapped";
  EXPECT_FALSE(forged([&] { memory.set<uint64_t>(16, ~uint64_t{0}); }).ok());
  EXPECT_FALSE(forged([&] { memory.set<uint64_t>(16, 0); }).ok());
  EXPECT_FALSE(forged([&] { memory.set<uint32_t>(36, 65); }).ok()) << "a name longer than its field";
  EXPECT_FALSE(forged([&] { memory.set<uint32_t>(36, ~uint32_t{0}); }).ok());
}

TEST(SegmentHeader, NothingIsReadPastWhatIsMapped) {
  for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{8}, uint64_t{64}, uint64_t{127}, uint64_t{128}, uint64_t{4095}}) {
    std::vector<uint8_t> memory(bytes);  // AddressSanitizer guards its end
    EXPECT_FALSE(check_segment_header(memory.data(), bytes).ok()) << bytes;
  }
}

TEST(Entry, IsReadAsWritten) {
  const uint64_t seed = test::new_seed("Entry.IsReadAsWritten");
  Random random(seed);
  Memory memory;
  write_segment_header(memory.data(), kBytes, 12, "job", kToken, 1);
  uint64_t at = kSegmentHeaderBytes;
  for (;;) {
    const uint64_t payload_bytes = random.size(64 * KiB);
    const auto kind = static_cast<EntryKind>(random.between(1, 3));
    // Parts have no key: their manifest has it.
    const std::string key(kind == EntryKind::kPart ? 0 : random.between(1, limits::kKeyBytesMax),
                          static_cast<char>('a' + random.below(26)));
    const EntryShape shape = shape_entry(at, key.size(), payload_bytes);
    ASSERT_EQ(shape.payload_offset % payload_alignment(payload_bytes), 0u);
    ASSERT_EQ(shape.end % limits::kEntryAlignment, 0u);
    ASSERT_LE(shape.end - at, entry_bytes_max(key.size(), payload_bytes));
    ASSERT_LE(shape.payload_offset - at, kPayloadOffsetMax);
    if (shape.end > kBytes) break;
    write_entry_header(memory.data(), at, kind, key, payload_bytes, 0x1234567, 0);
    const auto entry = read_entry(memory.data(), kBytes, at, true);
    ASSERT_OK(entry);
    EXPECT_EQ(entry.value().kind, kind);
    EXPECT_EQ(entry.value().state, EntryState::kWriting);
    EXPECT_EQ(entry.value().key, key);
    EXPECT_EQ(reinterpret_cast<const uint8_t*>(entry.value().key.data()), memory.data() + at + sizeof(EntryHeader));
    EXPECT_EQ(entry.value().payload_offset, shape.payload_offset);
    EXPECT_EQ(entry.value().payload_bytes, payload_bytes);
    EXPECT_EQ(entry.value().payload_crc, 0x1234567u);
    EXPECT_EQ(entry.value().end, shape.end);
    at = shape.end;
  }
}

TEST(Entry, MayEndWithTheSegmentButNotPastIt) {
  Memory memory;
  write_segment_header(memory.data(), kBytes, 12, "job", kToken, 1);
  const uint64_t payload = kBytes - 64;
  write_entry_header(memory.data(), payload - 64, EntryKind::kObject, "key", 64, 0, 64);
  EXPECT_OK(read_entry(memory.data(), kBytes, payload - 64, true));
  write_entry_header(memory.data(), payload - 64, EntryKind::kObject, "key", 65, 0, 64);
  EXPECT_CODE(read_entry(memory.data(), kBytes, payload - 64, true), Code::kCorrupt);
  write_entry_header(memory.data(), kBytes - 48, EntryKind::kObject, "12345678", 0, 0, 48);
  EXPECT_OK(read_entry(memory.data(), kBytes, kBytes - 48, true));
}

TEST(Entry, PayloadMayStartFurtherOn) {
  Memory memory;
  write_segment_header(memory.data(), kBytes, 12, "job", kToken, 1);
  write_entry_header(memory.data(), 8192, EntryKind::kObject, "key", 100, 5, 128);
  const auto entry = read_entry(memory.data(), kBytes, 8192, true);
  ASSERT_OK(entry);
  EXPECT_EQ(entry.value().payload_offset, 8192u + 128);
  EXPECT_EQ(entry.value().end, align_up(8192 + 128 + 100, 16));
}

TEST(Entry, EveryFlippedBitOfHeaderAndKeyIsNoticed) {
  Memory memory;
  write_segment_header(memory.data(), kBytes, 12, "job", kToken, 1);
  const std::string key = "some/key/with/27/characters";
  const uint64_t at = kSegmentHeaderBytes + 160;
  write_entry_header(memory.data(), at, EntryKind::kObject, key, 1000, 0xdeadbeef);
  const auto noticed = [&](uint64_t byte) {
    for (int bit = 0; bit < 8; ++bit) {
      memory.data()[at + byte] ^= static_cast<uint8_t>(1 << bit);
      EXPECT_CODE(read_entry(memory.data(), kBytes, at, true), Code::kCorrupt) << "byte " << byte << " bit " << bit;
      // Without the checksum an error may go unnoticed, but nothing is read outside (AddressSanitizer).
      const auto unchecked = read_entry(memory.data(), kBytes, at, false);
      EXPECT_TRUE(!unchecked.ok() || unchecked.value().end <= kBytes);
      memory.data()[at + byte] ^= static_cast<uint8_t>(1 << bit);
    }
  };
  for (uint64_t byte = 0; byte < 24; ++byte) noticed(byte);
  for (uint64_t byte = sizeof(EntryHeader); byte < sizeof(EntryHeader) + key.size(); ++byte) noticed(byte);
  EXPECT_OK(read_entry(memory.data(), kBytes, at, true));
}

TEST(Entry, FieldsAreCheckedWhereTheChecksumIsRight) {
  Memory memory;
  const uint64_t at = kBytes - 4096;
  const auto forged = [&](const std::function<void()>& change) {
    write_segment_header(memory.data(), kBytes, 12, "job", kToken, 1);
    write_entry_header(memory.data(), at, EntryKind::kObject, "0123456789abcdef", 1000, 7);
    change();
    seal_entry_header(memory, at);
    // The structural checks must not depend on the checksum being verified.
    const Status with = read_entry(memory.data(), kBytes, at, true).status();
    const Status without = read_entry(memory.data(), kBytes, at, false).status();
    EXPECT_EQ(with.code(), without.code()) << with.message() << " / " << without.message();
    return with;
  };
  EXPECT_OK(forged([] {}));
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 4, 0); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 6, 0); }), Code::kCorrupt) << "an object without a key";
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 6, limits::kKeyBytesMax + 1); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 6, 0xffff); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint64_t>(at + 8, kBytes); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint64_t>(at + 8, ~uint64_t{0}); }), Code::kCorrupt) << "wraps around";
  EXPECT_CODE(forged([&] { memory.set<uint64_t>(at + 8, ~uint64_t{0} - at - 64); }), Code::kCorrupt) << "wraps around";
  EXPECT_CODE(forged([&] { memory.set<uint64_t>(at + 8, uint64_t{1} << 63); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint64_t>(at + 8, 4096 - 64 + 1); }), Code::kCorrupt) << "one byte past the end";
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 20, 0); }), Code::kCorrupt) << "payload over its own header";
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 20, 48); }), Code::kCorrupt) << "payload over its own key";
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 20, 65); }), Code::kCorrupt) << "unaligned payload";
  EXPECT_CODE(forged([&] { memory.set<uint16_t>(at + 20, 0xfff0); }), Code::kCorrupt);
  EXPECT_OK(forged([&] { memory.set<uint8_t>(at + 22, 3); })) << "a part may have the key of its object";
  EXPECT_CODE(forged([&] { memory.set<uint8_t>(at + 22, 0); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint8_t>(at + 22, 4); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint8_t>(at + 22, 0xff); }), Code::kCorrupt);
  EXPECT_CODE(forged([&] { memory.set<uint8_t>(at + 23, 1); }), Code::kCorrupt) << "a flag that nobody knows";
  EXPECT_CODE(forged([&] { memory.set<uint32_t>(at + 32, 3); }), Code::kCorrupt) << "a state that nobody knows";
  EXPECT_CODE(forged([&] { memory.set<uint32_t>(at + 32, ~uint32_t{0}); }), Code::kCorrupt);
}

TEST(Entry, OffsetsOutsideOfTheSegmentAreRefused) {
  Memory memory;
  std::memset(memory.data(), 0x5a, kBytes);
  write_segment_header(memory.data(), kBytes, 12, "job", kToken, 1);
  for (uint64_t at : {uint64_t{0}, uint64_t{16}, uint64_t{4080}, kBytes - 16, kBytes - 32, kBytes, kBytes + 16, 2 * kBytes,
                      ~uint64_t{0}, ~uint64_t{0} - 15, ~uint64_t{0} - 39, uint64_t{1} << 63}) {
    EXPECT_FALSE(read_entry(memory.data(), kBytes, at, true).ok()) << at;
    EXPECT_FALSE(read_entry(memory.data(), kBytes, at, false).ok()) << at;
  }
  write_entry_header(memory.data(), 8192, EntryKind::kObject, "key", 10, 0);
  std::memmove(memory.data() + 12288 + 8, memory.data() + 8192, 64);
  EXPECT_FALSE(read_entry(memory.data(), kBytes, 12288 + 8, true).ok()) << "entries start on 16 bytes";
}

TEST(Entry, WhatAnEarlierLifeOfTheMemoryLeftIsRefused) {
  Memory memory;
  write_segment_header(memory.data(), kBytes, 12, "job", kToken, 1);
  std::vector<uint64_t> entries;
  uint64_t at = kSegmentHeaderBytes;
  for (int i = 0; i < 100; ++i) {
    const std::string key = "key-" + std::to_string(i);
    write_entry_header(memory.data(), at, EntryKind::kObject, key, 200, static_cast<uint32_t>(i));
    EXPECT_OK(read_entry(memory.data(), kBytes, at, true));
    entries.push_back(at);
    at = shape_entry(at, key.size(), 200).end;
  }
  for (uint32_t number : {0u, 13u, 11u, 0xffffffu}) {
    write_segment_header(memory.data(), kBytes, number, "job", kToken, 2);
    for (uint64_t entry : entries) EXPECT_CODE(read_entry(memory.data(), kBytes, entry, true), Code::kCorrupt);
  }
}

TEST(Entry, ZeroedMemoryHoldsNone) {
  for (uint32_t number : {0u, 1u, 500u}) {
    Memory memory;
    write_segment_header(memory.data(), kBytes, number, "job", kToken, 1);
    for (uint64_t at = kSegmentHeaderBytes; at < kBytes; at += 4096) {
      EXPECT_CODE(read_entry(memory.data(), kBytes, at, true), Code::kCorrupt);
      EXPECT_CODE(read_entry(memory.data(), kBytes, at, false), Code::kCorrupt);
    }
  }
}

TEST(Entry, RandomBytesAreNeverReadOutside) {
  const uint64_t seed = test::new_seed("Entry.RandomBytesAreNeverReadOutside");
  Random random(seed);
  Memory memory(8192);
  for (int round = 0; round < 20000; ++round) {
    const uint64_t at = 4096 + random.below(256) * 16;
    for (uint64_t i = 0; i < 64 && at + i < memory.bytes(); ++i) memory.data()[at + i] = static_cast<uint8_t>(random.next());
    if (at + 40 <= memory.bytes()) {
      memory.set<uint16_t>(at + 4, kEntryMagic);
      if (random.chance(2)) memory.set<uint16_t>(at + 6, static_cast<uint16_t>(random.below(1100)));
      if (random.chance(2)) memory.set<uint64_t>(at + 8, random.below(9000));
      if (random.chance(2)) memory.set<uint16_t>(at + 20, static_cast<uint16_t>(random.below(80) * 16));
      if (random.chance(2)) memory.set<uint16_t>(at + 22, static_cast<uint16_t>(random.below(4)));
      if (random.chance(2)) memory.set<uint32_t>(at + 32, static_cast<uint32_t>(random.below(4)));
    }
    const auto entry = read_entry(memory.data(), memory.bytes(), at, random.chance(2));
    if (!entry.ok()) continue;
    const uint64_t key_at = static_cast<uint64_t>(reinterpret_cast<const uint8_t*>(entry.value().key.data()) - memory.data());
    ASSERT_LE(key_at + entry.value().key.size(), entry.value().payload_offset);
    ASSERT_LE(entry.value().payload_offset + entry.value().payload_bytes, memory.bytes());
    ASSERT_LE(entry.value().end, memory.bytes());
    ASSERT_GT(entry.value().end, at);
  }
}

std::vector<uint8_t> make_manifest(const std::vector<ManifestExtent>& extents) {
  ManifestHeader header{0, 99, static_cast<uint32_t>(extents.size())};
  for (const ManifestExtent& extent : extents) header.object_bytes += extent.bytes;
  std::vector<uint8_t> payload(sizeof header + extents.size() * sizeof(ManifestExtent));
  std::memcpy(payload.data(), &header, sizeof header);
  if (!extents.empty()) std::memcpy(payload.data() + sizeof header, extents.data(), extents.size() * sizeof(ManifestExtent));
  return payload;
}

TEST(Manifest, IsReadAsWritten) {
  const std::vector<ManifestExtent> extents = {{1, 11, 4160, 100}, {2, 22, 8192, 1 * MiB}, {9, 33, 4160, 1}};
  const auto payload = make_manifest(extents);
  const auto manifest = read_manifest(payload.data(), payload.size());
  ASSERT_OK(manifest);
  EXPECT_EQ(manifest.value().header.object_bytes, 101 + 1 * MiB);
  EXPECT_EQ(manifest.value().header.object_crc, 99u);
  ASSERT_EQ(manifest.value().header.extents, 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(manifest.value().extents[i].segment, extents[i].segment);
    EXPECT_EQ(manifest.value().extents[i].crc, extents[i].crc);
    EXPECT_EQ(manifest.value().extents[i].offset, extents[i].offset);
    EXPECT_EQ(manifest.value().extents[i].bytes, extents[i].bytes);
  }
}

TEST(Manifest, WrongFieldsAreRefused) {
  const auto good = make_manifest({{1, 0, 4160, 100}, {2, 0, 4160, 200}});
  ASSERT_OK(read_manifest(good.data(), good.size()));
  for (size_t bytes = 0; bytes < good.size(); ++bytes) {
    const std::vector<uint8_t> cut(good.begin(), good.begin() + static_cast<ptrdiff_t>(bytes));
    EXPECT_CODE(read_manifest(cut.data(), cut.size()), Code::kCorrupt) << bytes;
  }
  const auto forged = [&](uint64_t offset, auto value) {
    auto payload = good;
    std::memcpy(payload.data() + offset, &value, sizeof value);
    return read_manifest(payload.data(), payload.size()).status();
  };
  EXPECT_CODE(forged(0, uint64_t{299}), Code::kCorrupt) << "lengths do not add up";
  EXPECT_CODE(forged(0, uint64_t{301}), Code::kCorrupt);
  EXPECT_CODE(forged(12, uint32_t{3}), Code::kCorrupt) << "more extents than there are bytes";
  EXPECT_CODE(forged(12, uint32_t{1}), Code::kCorrupt) << "fewer extents than the object's bytes";
  EXPECT_CODE(forged(12, ~uint32_t{0}), Code::kCorrupt);
  EXPECT_CODE(forged(12, uint32_t{0xb000000}), Code::kCorrupt) << "times 24 wraps around 32 bits";
  EXPECT_CODE(forged(16 + 16, ~uint64_t{0}), Code::kCorrupt) << "the sum wraps around";
  EXPECT_CODE(forged(16 + 16, uint64_t{100} + (uint64_t{1} << 63)), Code::kCorrupt);
  // A sum that wraps around to what the header says.
  auto wrapping = make_manifest({{1, 0, 4160, uint64_t{1} << 63}, {1, 0, 4160, uint64_t{1} << 63}, {1, 0, 4160, 77}});
  EXPECT_CODE(read_manifest(wrapping.data(), wrapping.size()), Code::kCorrupt);
  // Larger than any object.
  auto large = make_manifest({{1, 0, 4160, limits::kObjectBytesMax}, {1, 0, 4160, 1}});
  EXPECT_FALSE(read_manifest(large.data(), large.size()).ok());
}

TEST(Manifest, AttributesAreTheRest) {
  const std::vector<ManifestExtent> extents = {{1, 11, 4160, 100}, {2, 22, 8192, 1 * MiB}};
  for (const size_t listed : {0u, 2u}) {
    const ManifestHeader header{listed == 0 ? 0 : 100 + 1 * MiB, 5, static_cast<uint32_t>(listed)};
    for (const uint64_t bytes : {uint64_t{0}, uint64_t{1}, limits::kAttributesBytesMax}) {
      const std::string attributes(bytes, 'a');
      std::vector<uint8_t> payload(manifest_bytes(listed, bytes));
      const uint32_t crc = write_manifest(payload.data(), header, extents.data(), attributes);
      EXPECT_EQ(crc, crc32c(0, payload.data(), payload.size()));
      auto manifest = read_manifest(payload.data(), payload.size());
      if (payload.size() == sizeof header) {
        EXPECT_CODE(manifest, Code::kCorrupt) << "an object of nothing is an object entry";
        continue;
      }
      ASSERT_OK(manifest);
      EXPECT_EQ(manifest->header.object_bytes, header.object_bytes);
      EXPECT_EQ(manifest->header.extents, listed);
      EXPECT_EQ(manifest->attributes, attributes);
      payload.resize(manifest_bytes(listed, limits::kAttributesBytesMax + 1));
      EXPECT_CODE(read_manifest(payload.data(), payload.size()), Code::kCorrupt);
    }
  }
}

TEST(Manifest, TooManyExtentsAreRefused) {
  std::vector<ManifestExtent> extents(limits::kExtentsMax + 1, ManifestExtent{1, 0, 4160, 1});
  auto payload = make_manifest(extents);
  EXPECT_FALSE(read_manifest(payload.data(), payload.size()).ok());
  extents.pop_back();
  payload = make_manifest(extents);
  EXPECT_OK(read_manifest(payload.data(), payload.size()));
}

}  // namespace
}  // namespace millrace
