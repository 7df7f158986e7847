#include "base/crc.h"
#include "base/crc_polynomial.h"
#include "test/kernels_support.h"

namespace millrace::test {
namespace {

class CrcTest : public SeededTest {};

// The definition, bit by bit.
template <class Word>
Word reference(Word polynomial, Word seed, const uint8_t* data, size_t bytes) {
  Word state = ~seed;
  for (size_t i = 0; i < bytes; ++i) {
    state ^= data[i];
    for (int bit = 0; bit < 8; ++bit) state = crc::multiply_by_x(polynomial, state);
  }
  return ~state;
}

TEST_F(CrcTest, KnownAnswers) {
  Bytes rising(4096);
  for (size_t i = 0; i < rising.size(); ++i) rising[i] = static_cast<uint8_t>(i);
  const Bytes falling(rising.rbegin(), rising.rend());
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    EXPECT_EQ(zlib_crc32(0, "123456789", 9), 0xcbf43926u);
    EXPECT_EQ(crc64nvme(0, "123456789", 9), 0xae8b14860a799888u);
    // The test vectors of the NVM Command Set Specification, for its guard of 64 bits.
    EXPECT_EQ(crc64nvme(0, Bytes(4096, 0).data(), 4096), 0x6482d367eb22b64eu);
    EXPECT_EQ(crc64nvme(0, Bytes(4096, 0xff).data(), 4096), 0xc0ddba7302eca3acu);
    EXPECT_EQ(crc64nvme(0, rising.data(), 4096), 0x3e729f5f6750449cu);
    EXPECT_EQ(crc64nvme(0, falling.data(), 4096), 0x9a2df64b8e9e517eu);
    EXPECT_EQ(zlib_crc32(7, nullptr, 0), 7u);
    EXPECT_EQ(crc64nvme(7, nullptr, 0), 7u);
  }
}

TEST_F(CrcTest, EveryLengthAndAlignmentAgreesWithTheDefinition) {
  const Bytes data = random_bytes(1200);
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    for (size_t bytes = 0; bytes < 1100; ++bytes) {
      const uint8_t* from = data.data() + below(64);
      const uint64_t seed = random_();
      const auto seed32 = static_cast<uint32_t>(seed);
      ASSERT_EQ(zlib_crc32(seed32, from, bytes), reference(crc::kZlib, seed32, from, bytes))
          << simd_level_name(level) << " " << bytes << " bytes";
      ASSERT_EQ(crc64nvme(seed, from, bytes), reference(crc::kNvme, seed, from, bytes))
          << simd_level_name(level) << " " << bytes << " bytes";
    }
  }
}

TEST_F(CrcTest, LevelsAgreeHoweverTheDataIsCut) {
  for (int round = 0; round < 50; ++round) {
    const Bytes data = random_bytes(below(200'000));
    set_simd_level(SimdLevel::kPortable);
    const uint32_t whole32 = zlib_crc32(0, data.data(), data.size());
    const uint64_t whole64 = crc64nvme(0, data.data(), data.size());
    for (SimdLevel level : levels()) {
      set_simd_level(level);
      uint32_t crc32 = 0;
      uint64_t crc64 = 0;
      for (size_t at = 0; at < data.size();) {
        const size_t bytes = std::min(data.size() - at, 1 + below(below(2) == 0 ? 300 : 70'000));
        crc32 = zlib_crc32(crc32, data.data() + at, bytes);
        crc64 = crc64nvme(crc64, data.data() + at, bytes);
        at += bytes;
      }
      ASSERT_EQ(crc32, whole32) << simd_level_name(level);
      ASSERT_EQ(crc64, whole64) << simd_level_name(level);
    }
  }
}

}  // namespace
}  // namespace millrace::test
