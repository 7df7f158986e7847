#include "kernels/check.h"

#include "base/crc.h"
#include "base/crc_polynomial.h"
#include "test/kernels_support.h"

namespace millrace::test {
namespace {

class CheckTest : public SeededTest {};

uint32_t reference_crc(const uint8_t* data, size_t bytes) {
  uint32_t state = 0xffffffff;
  for (size_t i = 0; i < bytes; ++i) {
    state ^= data[i];
    for (int bit = 0; bit < 8; ++bit) state = crc::multiply_by_x(crc::kZlib, state);
  }
  return ~state;
}

TEST_F(CheckTest, KnownCrc) { EXPECT_EQ(zlib_crc32(0, "123456789", 9), 0xcbf43926u); }

TEST_F(CheckTest, SumOfCrcsForEveryRecordSize) {
  for (uint32_t bytes = 1; bytes <= 300; ++bytes) {
    const uint64_t count = below(40);
    const Bytes records = random_bytes(count * bytes);
    uint64_t expected = 0;
    for (uint64_t i = 0; i < count; ++i) expected += reference_crc(records.data() + i * bytes, bytes);
    for (SimdLevel level : levels()) {
      set_simd_level(level);
      ASSERT_EQ(sum_record_crcs(records.data(), count, bytes), expected)
          << simd_level_name(level) << " " << bytes;
    }
  }
}

TEST_F(CheckTest, SumsCarryInto128Bits) {
  RecordsChecksum sum{0, UINT64_MAX - 1};
  sum.add({0, 3});
  EXPECT_EQ(sum.high, 1u);
  EXPECT_EQ(sum.low, 1u);
  EXPECT_EQ(sum.hex(), "10000000000000001");
  EXPECT_EQ(RecordsChecksum{}.hex(), "0");
}

TEST_F(CheckTest, CountsAgreeWithAPairwiseReference) {
  for (int round = 0; round < 300; ++round) {
    const auto record_bytes = static_cast<uint32_t>(1 + below(round % 10 == 0 ? 20'000 : 200));
    const RecordLayout layout{record_bytes, static_cast<uint32_t>(1 + below(std::min(record_bytes, 255u)))};
    const Bytes records =
        make_records(layout, below(round % 10 == 0 ? 20 : 800), kAllKeys[below(std::size(kAllKeys))]);
    const std::vector<std::string> all = split_records(layout, records);
    uint64_t unordered = 0, duplicates = 0;
    for (size_t i = 1; i < all.size(); ++i) {
      unordered += key_less(layout, all[i], all[i - 1]);
      duplicates += !key_less(layout, all[i], all[i - 1]) && !key_less(layout, all[i - 1], all[i]);
    }
    Result<RecordsSummary> summary = check_records(layout, records, CheckOrder::kYes);
    ASSERT_TRUE(summary.ok());
    ASSERT_EQ(summary->count, all.size());
    ASSERT_EQ(summary->unordered, unordered);
    ASSERT_EQ(summary->duplicates, duplicates);
    Result<RecordsSummary> cheap = check_records(layout, records, CheckOrder::kNo);
    ASSERT_TRUE(cheap.ok());
    ASSERT_EQ(cheap->checksum, summary->checksum);
    ASSERT_EQ(cheap->first_key, summary->first_key);
    ASSERT_EQ(cheap->last_key, summary->last_key);

    // Cut anywhere and put together again, the summary is the same.
    RecordsSummary merged;
    for (size_t at = 0; at < all.size();) {
      const size_t part = 1 + below(all.size() - at);
      Result<RecordsSummary> piece = check_records(
          layout, std::span(records).subspan(at * record_bytes, part * record_bytes), CheckOrder::kYes);
      ASSERT_TRUE(piece.ok());
      merged.append(*piece);
      merged.append(RecordsSummary());
      at += part;
    }
    ASSERT_EQ(merged.count, summary->count);
    ASSERT_EQ(merged.checksum, summary->checksum);
    ASSERT_EQ(merged.unordered, unordered);
    ASSERT_EQ(merged.duplicates, duplicates);
    ASSERT_EQ(merged.last_key, summary->last_key);
    ASSERT_EQ(merged.first_key, summary->first_key);
  }
}

TEST_F(CheckTest, RefusesBadInput) {
  const Bytes bytes(100);
  EXPECT_EQ(check_records({0, 1}, bytes, CheckOrder::kYes).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_records({100, 0}, bytes, CheckOrder::kYes).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_records({100, 101}, bytes, CheckOrder::kYes).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_records({65537, 10}, bytes, CheckOrder::kYes).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_records({300, 256}, bytes, CheckOrder::kYes).code(), Code::kInvalidArgument);
  EXPECT_EQ(check_records({30, 10}, bytes, CheckOrder::kYes).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace millrace::test
