#include "kernels/merge.h"

#include "test/kernels_support.h"

namespace millrace::test {
namespace {

class MergeTest : public SeededTest {
 protected:
  // Merging is stable: the reference is a stable sort of the runs one behind the other.
  void merge_and_verify(RecordLayout layout, size_t run_count, uint64_t records_max, Keys keys) {
    std::vector<Bytes> runs(run_count);
    std::vector<std::string> expected;
    const Bytes all = make_records(layout, run_count * records_max, keys);
    size_t at = 0;
    for (Bytes& run : runs) {
      const size_t records = below(records_max + 1);
      std::vector<std::string> sorted = split_records(
          layout, std::span(all).subspan(at * layout.record_bytes, records * layout.record_bytes));
      at += records;
      const auto less = [&](const std::string& a, const std::string& b) { return key_less(layout, a, b); };
      std::stable_sort(sorted.begin(), sorted.end(), less);
      for (const std::string& record : sorted) run.insert(run.end(), record.begin(), record.end());
      expected.insert(expected.end(), sorted.begin(), sorted.end());
    }
    std::stable_sort(expected.begin(), expected.end(),
                     [&](const std::string& a, const std::string& b) { return key_less(layout, a, b); });
    const std::vector<std::span<const uint8_t>> spans(runs.begin(), runs.end());
    const size_t offset = below(64), bytes = expected.size() * layout.record_bytes;
    Bytes out(offset + bytes + 64, 0xa5);
    Result<uint64_t> merged = merge_records(layout, spans, {out.data() + offset, bytes}, scratch_);
    ASSERT_TRUE(merged.ok()) << merged.status().message();
    ASSERT_EQ(*merged, bytes);
    ASSERT_TRUE(split_records(layout, {out.data() + offset, bytes}) == expected);
    for (size_t i = 0; i < 64; ++i) ASSERT_EQ(out[offset + bytes + i], 0xa5);
  }

  Scratch scratch_;
};

TEST_F(MergeTest, AnyLayoutAnyKeysIsStable) {
  for (int round = 0; round < 120; ++round) {
    const auto record_bytes = static_cast<uint32_t>(1 + below(round % 20 == 0 ? 2000 : 120));
    const RecordLayout layout{record_bytes, static_cast<uint32_t>(1 + below(std::min(record_bytes, 255u)))};
    for (Keys keys : kAllKeys) {
      SCOPED_TRACE(testing::Message() << "record " << layout.record_bytes << " key " << layout.key_bytes
                                      << " keys " << static_cast<int>(keys));
      merge_and_verify(layout, below(70), 20, keys);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(MergeTest, GensortRecordsWithEveryFanIn) {
  for (size_t runs : {0, 1, 2, 3, 8, 63, 64, 65, 100, 1000, 4096, 4097}) {
    SCOPED_TRACE(runs);
    merge_and_verify(kGensortLayout, runs, runs > 100 ? 8 : 300, Keys::kHot);
    if (HasFatalFailure()) return;
  }
}

TEST_F(MergeTest, LargeOutputPastTheCache) {
  merge_and_verify(kGensortLayout, 5, 20'000, Keys::kRandom);
  merge_and_verify(kGensortLayout, 70, 2000, Keys::kFewDistinct);
}

TEST_F(MergeTest, GreatestKeysAreNotTakenForTheEnd) {
  for (RecordLayout layout :
       {RecordLayout{10, 10}, RecordLayout{8, 8}, RecordLayout{30, 25}, RecordLayout{3, 2}}) {
    const Bytes run(layout.record_bytes * 5, 0xff);
    const std::vector<std::span<const uint8_t>> runs(3, run);
    Bytes out(run.size() * 3);
    Result<uint64_t> merged = merge_records(layout, runs, out, scratch_);
    ASSERT_TRUE(merged.ok());
    EXPECT_EQ(out, Bytes(run.size() * 3, 0xff));
  }
}

TEST_F(MergeTest, RefusesBadInput) {
  Bytes a(1000, 1), b(1000, 2), out(2000);
  const std::vector<std::span<const uint8_t>> runs = {a, b};
  EXPECT_EQ(merge_records({100, 0}, runs, out, scratch_).code(), Code::kInvalidArgument);
  EXPECT_EQ(merge_records({300, 10}, runs, out, scratch_).code(), Code::kInvalidArgument);
  EXPECT_EQ(merge_records(kGensortLayout, runs, std::span(out).first(1999), scratch_).code(),
            Code::kOutOfRange);
  EXPECT_EQ(merge_records(kGensortLayout, runs, a, scratch_).code(), Code::kInvalidArgument);
  b[950] = 0;  // key byte 0 is at 900
  ASSERT_TRUE(merge_records(kGensortLayout, runs, out, scratch_).ok());
  b[905] = 0;
  Result<uint64_t> merged = merge_records(kGensortLayout, runs, out, scratch_);
  EXPECT_EQ(merged.code(), Code::kInvalidArgument);
  EXPECT_NE(merged.status().message().find("run 1 "), std::string::npos);
  // The same where the difference lies beyond the first ten bytes.
  b[905] = 2, b[911] = 0;
  EXPECT_EQ(merge_records({100, 12}, runs, out, scratch_).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace millrace::test
