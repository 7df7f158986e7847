#include "kernels/partition.h"

#include "base/crc32c.h"
#include "kernels/gensort.h"
#include "test/kernels_support.h"
#include "test/test_support.h"

namespace millrace::test {
namespace {

class PartitionTest : public SeededTest {
 protected:
  Splitters choose(RecordLayout layout, const Bytes& samples, uint32_t partitions) {
    Result<Splitters> chosen = Splitters::choose(layout, samples, partitions);
    MILLRACE_ASSERT(chosen.ok());
    // Every test goes by way of the serialised form, as the function workers do.
    Result<Splitters> parsed = Splitters::parse(chosen->serialise());
    MILLRACE_ASSERT(parsed.ok());
    return *parsed;
  }

  // Partitions, verifies everything that must hold, and returns the greatest partition over the mean.
  double partition_and_verify(RecordLayout layout, const Bytes& records, const Splitters& splitters) {
    const uint32_t partitions = splitters.partitions();
    const size_t offset = below(64);
    Bytes dest(offset + records.size() + 64, 0xa5);
    Result<PartitionOutput> output =
        partition_records(layout, records, splitters, {dest.data() + offset, records.size()}, scratch_);
    EXPECT_TRUE(output.ok()) << output.status().message();
    if (!output.ok()) return 0;
    EXPECT_EQ(output->offsets.size(), partitions + 1u);
    EXPECT_EQ(output->checksums.size(), partitions);
    EXPECT_EQ(output->offsets.front(), 0u);
    EXPECT_EQ(output->offsets.back(), records.size());
    uint64_t largest = 0;
    Bytes greatest_before;
    for (uint32_t r = 0; r < partitions; ++r) {
      EXPECT_LE(output->offsets[r], output->offsets[r + 1]);
      const uint64_t bytes = output->offsets[r + 1] - output->offsets[r];
      const uint8_t* first = dest.data() + offset + output->offsets[r];
      EXPECT_EQ(bytes % layout.record_bytes, 0u);
      EXPECT_EQ(crc32c(0, first, bytes), output->checksums[r]);
      largest = std::max(largest, bytes);
      if (bytes == 0) continue;
      Bytes least, greatest;
      for (uint64_t at = 0; at < bytes; at += layout.record_bytes) {
        const Bytes key(first + at, first + at + layout.key_bytes);
        if (least.empty() || key < least) least = key;
        if (greatest.empty() || key > greatest) greatest = key;
      }
      // The concatenation of the sorted partitions must be sorted.
      EXPECT_TRUE(greatest_before.empty() || greatest_before <= least) << "partition " << r;
      greatest_before = greatest;
    }
    expect_same_records(layout, std::span(dest).subspan(offset, records.size()), records);
    for (size_t i = 0; i < 64; ++i) EXPECT_EQ(dest[offset + records.size() + i], 0xa5);
    for (size_t i = 0; i < offset; ++i) EXPECT_EQ(dest[i], 0xa5);
    return records.empty() ? 1
                           : static_cast<double>(largest) * partitions / static_cast<double>(records.size());
  }

  Bytes samples_of(RecordLayout layout, const Bytes& records, uint64_t count) {
    Result<Bytes> samples = sample_keys(layout, records, count, random_() >> 12);
    MILLRACE_ASSERT(samples.ok());
    return *samples;
  }

  Scratch scratch_;
};

TEST_F(PartitionTest, AnyLayoutAnyKeysAnySplitters) {
  for (int round = 0; round < 250; ++round) {
    const auto record_bytes = static_cast<uint32_t>(1 + below(round % 20 == 0 ? 2000 : 150));
    const RecordLayout layout{record_bytes, static_cast<uint32_t>(1 + below(std::min(record_bytes, 255u)))};
    const auto partitions = static_cast<uint32_t>(1 + below(round % 3 == 0 ? 1000 : 20));
    for (Keys keys : kAllKeys) {
      SCOPED_TRACE(testing::Message() << "record " << layout.record_bytes << " key " << layout.key_bytes
                                      << " keys " << static_cast<int>(keys) << " partitions " << partitions);
      const Bytes records = make_records(layout, below(400), keys);
      const Splitters splitters = choose(layout, samples_of(layout, records, below(300)), partitions);
      partition_and_verify(layout, records, splitters);
      if (HasFailure()) return;
    }
  }
}

TEST_F(PartitionTest, LargeOutputsThroughBuffers) {
  constexpr size_t kCount = kSanitized ? 10'000 : 30'000;
  for (uint32_t partitions : {2u, 16u, 200u, 1024u}) {
    for (Keys keys : {Keys::kRandom, Keys::kHot, Keys::kEqual}) {
      for (SimdLevel level : levels()) {
        set_simd_level(level);
        const Bytes records = make_records(kGensortLayout, kCount + below(1000), keys);
        partition_and_verify(kGensortLayout, records,
                             choose(kGensortLayout, samples_of(kGensortLayout, records, 5000), partitions));
        const RecordLayout odd{77, 9};
        const Bytes others = make_records(odd, kCount, keys);
        partition_and_verify(odd, others, choose(odd, samples_of(odd, others, 5000), partitions));
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(PartitionTest, ManyPartitions) {
  for (Keys keys : {Keys::kRandom, Keys::kEqual, Keys::kFewDistinct}) {
    const Bytes records = make_records(kGensortLayout, 20'000, keys);
    partition_and_verify(kGensortLayout, records,
                         choose(kGensortLayout, samples_of(kGensortLayout, records, 10'000), 65536));
    if (HasFailure()) return;
  }
}

TEST_F(PartitionTest, FrequentKeysAreDealtEvenly) {
  for (RecordLayout layout : {kGensortLayout, RecordLayout{40, 4}, RecordLayout{60, 30}}) {
    for (uint32_t partitions : {2u, 3u, 8u, 13u, 16u, 64u}) {
      SCOPED_TRACE(testing::Message() << "key " << layout.key_bytes << " partitions " << partitions);
      const Bytes equal = make_records(layout, 20'000, Keys::kEqual);
      EXPECT_LT(
          partition_and_verify(layout, equal, choose(layout, samples_of(layout, equal, 1000), partitions)),
          1.02);
      const Bytes four = make_records(layout, 40'000, Keys::kFewDistinct);
      EXPECT_LT(
          partition_and_verify(layout, four, choose(layout, samples_of(layout, four, 40'000), partitions)),
          1.05);
    }
  }
}

TEST_F(PartitionTest, ManySmallInputsOfOneKeyStayBalanced) {
  const Bytes one_key = make_records(kGensortLayout, 1000, Keys::kEqual);
  const Splitters splitters = choose(kGensortLayout, samples_of(kGensortLayout, one_key, 1000), 10);
  std::vector<uint64_t> sizes(10);
  for (size_t i = 0; i < 1000; ++i) {
    Bytes dest(100);
    Result<PartitionOutput> output = partition_records(
        kGensortLayout, std::span(one_key).subspan(i * 100, 100), splitters, dest, scratch_);
    ASSERT_TRUE(output.ok());
    for (size_t r = 0; r < 10; ++r) sizes[r] += output->offsets[r + 1] > output->offsets[r];
  }
  EXPECT_LT(*std::max_element(sizes.begin(), sizes.end()), 160u);
}

TEST_F(PartitionTest, SkewedGensortIsBalanced) {
  Bytes records(100'000 * 100);
  generate_records(0, 100'000, records.data(), Skew::kSkewed);
  for (uint32_t partitions : {4u, 16u, 64u}) {
    const Splitters splitters =
        choose(kGensortLayout, samples_of(kGensortLayout, records, 50'000), partitions);
    EXPECT_LT(partition_and_verify(kGensortLayout, records, splitters), 1.15);
  }
}

TEST_F(PartitionTest, NoOrFewSamplesDivideTheKeySpace) {
  const Bytes records = make_records(kGensortLayout, 50'000, Keys::kRandom);
  EXPECT_LT(partition_and_verify(kGensortLayout, records, choose(kGensortLayout, {}, 16)), 1.1);
  const Bytes few = {0x40, 0, 0, 0, 0, 0,    0, 0, 0, 0, 0x80, 0, 0, 0, 0,
                     0,    0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0,    0, 0, 0, 0};
  EXPECT_LT(partition_and_verify(kGensortLayout, records, choose(kGensortLayout, few, 16)), 1.1);
  // More partitions than there are keys of one byte: equal keys are dealt.
  const RecordLayout byte{20, 1};
  const Bytes bytes = make_records(byte, 200'000, Keys::kRandom);
  EXPECT_LT(partition_and_verify(byte, bytes, choose(byte, {}, 500)), 1.3);
}

TEST_F(PartitionTest, TheSameInputGivesTheSameOutput) {
  const Bytes records = make_records(kGensortLayout, 5000, Keys::kFewDistinct);
  const Splitters splitters = choose(kGensortLayout, samples_of(kGensortLayout, records, 500), 9);
  Bytes a(records.size()), b(records.size());
  ASSERT_TRUE(partition_records(kGensortLayout, records, splitters, a, scratch_).ok());
  ASSERT_TRUE(partition_records(kGensortLayout, records, splitters, b, scratch_).ok());
  EXPECT_EQ(a, b);
}

TEST_F(PartitionTest, ParseRefusesWhatIsNotSplitters) {
  const Bytes records = make_records(kGensortLayout, 5000, Keys::kFewDistinct);
  Result<Splitters> splitters =
      Splitters::choose(kGensortLayout, samples_of(kGensortLayout, records, 500), 9);
  ASSERT_TRUE(splitters.ok());
  const Bytes good = splitters->serialise();
  ASSERT_TRUE(Splitters::parse(good).ok());
  EXPECT_FALSE(Splitters::parse({}).ok());
  for (int round = 0; round < 5000; ++round) {
    Bytes bad = good;
    const bool keep_checksum = round % 2 == 0;
    switch (below(3)) {
      case 0:
        bad.resize(below(bad.size()));
        break;
      case 1:
        bad.insert(bad.end(), 1 + below(20), static_cast<uint8_t>(random_()));
        break;
      default:
        bad[below(bad.size())] ^= static_cast<uint8_t>(1 + below(255));
        break;
    }
    // Also with a checksum that matches: the checks behind it must hold on their own.
    if (!keep_checksum && bad.size() > 8) {
      const uint32_t crc = crc32c(0, bad.data() + 8, bad.size() - 8);
      std::memcpy(bad.data() + 4, &crc, 4);
    }
    Result<Splitters> parsed = Splitters::parse(bad);
    ASSERT_FALSE(keep_checksum && parsed.ok());
    if (parsed.ok()) {
      Bytes dest(records.size());
      Result<PartitionOutput> output = partition_records(kGensortLayout, records, *parsed, dest, scratch_);
      ASSERT_TRUE(output.ok() || output.code() == Code::kInvalidArgument);
    }
  }
}

TEST_F(PartitionTest, RefusesBadInput) {
  Bytes records(1000), dest(1000);
  const Splitters splitters = choose(kGensortLayout, {}, 4);
  EXPECT_EQ(partition_records({0, 0}, records, splitters, dest, scratch_).code(), Code::kInvalidArgument);
  EXPECT_EQ(partition_records({300, 10}, records, splitters, dest, scratch_).code(), Code::kInvalidArgument);
  EXPECT_EQ(partition_records({100, 9}, records, splitters, dest, scratch_).code(), Code::kInvalidArgument);
  EXPECT_EQ(
      partition_records(kGensortLayout, records, splitters, std::span(dest).first(999), scratch_).code(),
      Code::kOutOfRange);
  EXPECT_EQ(partition_records(kGensortLayout, records, splitters, records, scratch_).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(Splitters::choose(kGensortLayout, {}, 0).code(), Code::kInvalidArgument);
  EXPECT_EQ(Splitters::choose(kGensortLayout, {}, 65537).code(), Code::kInvalidArgument);
  EXPECT_EQ(Splitters::choose(kGensortLayout, std::span(records).first(11), 4).code(),
            Code::kInvalidArgument);
  EXPECT_EQ(sample_keys(kGensortLayout, std::span(records).first(11), 4, 0).code(), Code::kInvalidArgument);
  Result<PartitionOutput> none = partition_records(kGensortLayout, {}, splitters, {}, scratch_);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->offsets, std::vector<uint64_t>(5));
}

}  // namespace
}  // namespace millrace::test
