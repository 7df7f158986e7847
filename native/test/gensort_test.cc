#include "kernels/gensort.h"

#include "kernels/check.h"
#include "test/kernels_support.h"

namespace millrace::test {
namespace {

class GensortTest : public SeededTest {};

TEST_F(GensortTest, KnownFirstKey) {
  Bytes record(100);
  generate_records(0, 1, record.data(), Skew::kUniform);
  EXPECT_EQ(std::string(record.begin(), record.begin() + 10), "JimGrayRIP");
}

TEST_F(GensortTest, KnownChecksumOfTheFirstMillion) {
  Bytes records(100'000'000);
  generate_records(0, 1'000'000, records.data(), Skew::kUniform);
  Result<RecordsSummary> summary = check_records(kGensortLayout, records, CheckOrder::kNo);
  ASSERT_TRUE(summary.ok());
  EXPECT_EQ(summary->count, 1'000'000u);
  EXPECT_EQ(summary->checksum.hex(), "7a0e0d4868cd4");
}

TEST_F(GensortTest, AnyStretchEqualsTheSameStretchOfAll) {
  for (Skew skew : {Skew::kUniform, Skew::kSkewed}) {
    Bytes all(5000 * 100);
    generate_records(0, 5000, all.data(), skew);
    for (int round = 0; round < 50; ++round) {
      const uint64_t first = below(5000), count = below(5000 - first + 1);
      Bytes some(count * 100 + 1, 0xa5);
      generate_records(first, count, some.data(), skew);
      ASSERT_TRUE(std::equal(some.begin(), some.end() - 1, all.begin() + static_cast<long>(first * 100)));
      ASSERT_EQ(some.back(), 0xa5);
    }
  }
}

TEST_F(GensortTest, FarRecordsFollowTheirPredecessors) {
  const uint64_t far = (uint64_t{1} << 50) + below(1'000'000);
  Bytes two(200), one(100);
  generate_records(far, 2, two.data(), Skew::kUniform);
  generate_records(far + 1, 1, one.data(), Skew::kUniform);
  EXPECT_TRUE(std::equal(one.begin(), one.end(), two.begin() + 100));
}

TEST_F(GensortTest, SkewIsAsDocumented) {
  constexpr uint64_t kCount = 200'000;
  Bytes skewed(kCount * 100), uniform(kCount * 100);
  generate_records(0, kCount, skewed.data(), Skew::kSkewed);
  generate_records(0, kCount, uniform.data(), Skew::kUniform);
  uint64_t hot = 0, low_quarter = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    const uint8_t* record = skewed.data() + i * 100;
    ASSERT_EQ(std::memcmp(record + 2, uniform.data() + i * 100 + 2, 98), 0);
    if (record[0] == 'M' && record[1] == 'R') {
      ++hot;
    } else if (record[0] < 64) {
      ++low_quarter;
    }
  }
  EXPECT_NEAR(static_cast<double>(hot) / kCount, 0.22, 0.01);
  EXPECT_NEAR(static_cast<double>(low_quarter) / static_cast<double>(kCount - hot), 0.5, 0.01);
}

}  // namespace
}  // namespace millrace::test
