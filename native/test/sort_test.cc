#include "kernels/sort.h"

#include "base/crc32c.h"
#include "base/units.h"
#include "kernels/sort_local.h"
#include "test/kernels_support.h"
#include "test/test_support.h"

namespace millrace::test {
namespace {

class SortTest : public SeededTest {
 protected:
  // Cuts records into extents of whole records, some of them empty, each in its own memory.
  std::vector<Bytes> scatter(RecordLayout layout, const Bytes& records) {
    std::vector<Bytes> pieces;
    size_t left = records.size() / layout.record_bytes, at = 0;
    while (left > 0) {
      const size_t take = below(4) == 0 ? 0 : 1 + below(left);
      pieces.emplace_back(records.begin() + static_cast<long>(at * layout.record_bytes),
                          records.begin() + static_cast<long>((at + take) * layout.record_bytes));
      at += take;
      left -= take;
    }
    return pieces;
  }

  void sort_and_verify(RecordLayout layout, const Bytes& records, bool checksums) {
    const std::vector<Bytes> pieces = scatter(layout, records);
    std::vector<RecordExtent> extents;
    for (const Bytes& piece : pieces) {
      extents.push_back({piece, {}});
      if (checksums) extents.back().crc32c = crc32c(0, piece.data(), piece.size());
    }
    const size_t offset = below(64);
    Bytes out(offset + records.size() + 64, 0xa5);
    const std::span<uint8_t> room(out.data() + offset, records.size() + below(2) * 32);
    Result<uint64_t> sorted = sort_records(layout, extents, room, scratch_);
    ASSERT_TRUE(sorted.ok()) << sorted.status().message();
    ASSERT_EQ(*sorted, records.size());
    expect_sorted_by_key(layout, room.first(records.size()));
    expect_same_records(layout, room.first(records.size()), records);
    for (size_t i = 0; i < 64; ++i) ASSERT_EQ(out[offset + records.size() + i], 0xa5);
    for (size_t i = 0; i < offset; ++i) ASSERT_EQ(out[i], 0xa5);
  }

  Scratch scratch_;
};

TEST_F(SortTest, AnyLayoutAnyKeys) {
  for (int round = 0; round < 300; ++round) {
    const bool large = round % 25 == 0;
    const auto record_bytes = static_cast<uint32_t>(1 + below(large ? 3000 : 150));
    const RecordLayout layout{record_bytes, static_cast<uint32_t>(1 + below(std::min(record_bytes, 255u)))};
    for (Keys keys : kAllKeys) {
      SCOPED_TRACE(testing::Message() << "record " << layout.record_bytes << " key " << layout.key_bytes
                                      << " keys " << static_cast<int>(keys));
      sort_and_verify(layout, make_records(layout, below(large ? 60 : 500), keys), round % 2 == 0);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(SortTest, ManyGensortRecordsOfEveryKind) {
  for (Keys keys : kAllKeys) {
    for (SimdLevel level : levels()) {
      set_simd_level(level);
      sort_and_verify(kGensortLayout, make_records(kGensortLayout, (kSanitized ? 15'000 : 50'000) + below(20'000), keys), true);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(SortTest, LongKeysThatDifferLate) {
  for (uint32_t key_bytes : {11u, 20u, 31u, 100u, 255u}) {
    const RecordLayout layout{key_bytes + 5, key_bytes};
    for (Keys keys : kAllKeys) {
      sort_and_verify(layout, make_records(layout, 3000, keys), false);
      if (HasFatalFailure()) return;
    }
  }
}

// More entries than the cached scatter takes; small records keep the test quick.
TEST_F(SortTest, MoreEntriesThanTheCacheHolds) {
  for (Keys keys : {Keys::kRandom, Keys::kHot, Keys::kFewDistinct, Keys::kPowers}) {
    const RecordLayout layout{12, 10};
    const Bytes records = make_records(layout, (1 << 19) + 1000 + below(1000), keys);
    Bytes out(records.size());
    const RecordExtent extent{records, crc32c(0, records.data(), records.size())};
    Result<uint64_t> sorted = sort_records(layout, {&extent, 1}, out, scratch_);
    ASSERT_TRUE(sorted.ok());
    expect_sorted_by_key(layout, out);
    expect_same_records(layout, out, records);
    if (HasFatalFailure()) return;
  }
}

TEST_F(SortTest, NamesTheExtentWhoseChecksumIsWrong) {
  Bytes records = make_records(kGensortLayout, 3000, Keys::kRandom);
  Bytes out(records.size());
  const std::span<uint8_t> all(records);
  std::vector<RecordExtent> extents;
  for (int i = 0; i < 3; ++i) {
    const auto bytes = all.subspan(static_cast<size_t>(i) * 100'000, 100'000);
    extents.push_back({bytes, crc32c(0, bytes.data(), bytes.size())});
  }
  ASSERT_TRUE(sort_records(kGensortLayout, extents, out, scratch_).ok());
  records[150'000 + below(50'000)] ^= static_cast<uint8_t>(1 << below(8));
  Result<uint64_t> sorted = sort_records(kGensortLayout, extents, out, scratch_);
  EXPECT_EQ(sorted.code(), Code::kChecksumMismatch);
  EXPECT_NE(sorted.status().message().find("extent 1 "), std::string::npos) << sorted.status().message();
}

TEST_F(SortTest, RefusesBadInput) {
  Bytes records(1000), out(1000);
  RecordExtent extent{records, {}};
  EXPECT_EQ(sort_records({0, 0}, {&extent, 1}, out, scratch_).code(), Code::kInvalidArgument);
  EXPECT_EQ(sort_records({300, 10}, {&extent, 1}, out, scratch_).code(), Code::kInvalidArgument);
  EXPECT_EQ(sort_records(kGensortLayout, {&extent, 1}, std::span(out).first(900), scratch_).code(),
            Code::kOutOfRange);
  EXPECT_EQ(sort_records(kGensortLayout, {&extent, 1}, records, scratch_).code(), Code::kInvalidArgument);
  Result<uint64_t> none = sort_records(kGensortLayout, {}, out, scratch_);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(*none, 0u);
}

TEST_F(SortTest, SortLocalIsValid) {
  for (bool skewed : {false, true}) {
    for (uint32_t partitions : {1u, 7u, 64u}) {
      SortLocalOptions options;
      options.records = 30'000 + below(1000);
      options.threads = 2;
      options.partitions = partitions;
      options.splits = 5;
      options.skewed = skewed;
      Result<SortLocalReport> report = sort_local(options);
      ASSERT_TRUE(report.ok()) << report.status().message();
      EXPECT_TRUE(report->valid);
      EXPECT_LT(report->partition_max_over_mean, 1.6);
    }
  }
  EXPECT_EQ(sort_local({10, 0, 1}).code(), Code::kInvalidArgument);
  EXPECT_EQ(sort_local({10, 1, 0}).code(), Code::kInvalidArgument);
  EXPECT_TRUE(sort_local({0, 3, 5}).ok());
  EXPECT_TRUE(sort_local({1, 3, 5}).ok());
}

}  // namespace
}  // namespace millrace::test
