#include "base/crc32c.h"

#include "base/crc_polynomial.h"
#include "base/units.h"
#include "test/kernels_support.h"

namespace millrace::test {
namespace {

class Crc32cTest : public SeededTest {};

uint32_t reference(uint32_t seed, const uint8_t* data, size_t bytes) {
  uint32_t state = ~seed;
  for (size_t i = 0; i < bytes; ++i) {
    state ^= data[i];
    for (int bit = 0; bit < 8; ++bit) state = crc::multiply_by_x(crc::kCastagnoli, state);
  }
  return ~state;
}

TEST_F(Crc32cTest, KnownAnswers) {
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    EXPECT_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
    EXPECT_EQ(crc32c(0, Bytes(32, 0).data(), 32), 0x8a9136aau);  // RFC 3720, B.4
    EXPECT_EQ(crc32c(0, Bytes(32, 0xff).data(), 32), 0x62a8ab43u);
    EXPECT_EQ(crc32c(0, nullptr, 0), 0u);
    EXPECT_EQ(crc32c(77, nullptr, 0), 77u);
  }
}

TEST_F(Crc32cTest, EveryLengthAndAlignmentAgreesWithTheDefinition) {
  const Bytes data = random_bytes(3000);
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    for (size_t bytes = 0; bytes < 1100; ++bytes) {
      const size_t offset = below(64);
      const auto seed = static_cast<uint32_t>(random_());
      ASSERT_EQ(crc32c(seed, data.data() + offset, bytes), reference(seed, data.data() + offset, bytes))
          << simd_level_name(level) << " " << bytes << " bytes at " << offset;
    }
  }
}

TEST_F(Crc32cTest, ChainsAndCombines) {
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    for (int round = 0; round < 200; ++round) {
      const Bytes data = random_bytes(below(5000));
      const size_t cut = below(data.size() + 1);
      const uint32_t whole = crc32c(0, data.data(), data.size());
      const uint32_t a = crc32c(0, data.data(), cut);
      const uint32_t b = crc32c(0, data.data() + cut, data.size() - cut);
      ASSERT_EQ(crc32c(a, data.data() + cut, data.size() - cut), whole);
      ASSERT_EQ(crc32c_combine(a, b, data.size() - cut), whole);
    }
  }
  // Lengths beyond what can be tried byte by byte: combining is associative.
  const uint32_t a = 0x12345678, b = 0x9abcdef0, c = 0x0fedcba9;
  const uint64_t b_bytes = (uint64_t{1} << 41) + 12345, c_bytes = (uint64_t{1} << 35) + 7;
  EXPECT_EQ(crc32c_combine(crc32c_combine(a, b, b_bytes), c, c_bytes),
            crc32c_combine(a, crc32c_combine(b, c, c_bytes), b_bytes + c_bytes));
}

TEST_F(Crc32cTest, CopiesExactlyWhatItIsGiven) {
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    for (int round = 0; round < 300; ++round) {
      const size_t bytes = round < 200 ? below(1500) : below(100'000);
      const size_t from = below(64), to = 64 + below(64);
      const Bytes source = random_bytes(from + bytes);
      Bytes target(to + bytes + 64, 0xa5);
      const auto seed = static_cast<uint32_t>(random_());
      ASSERT_EQ(copy_crc32c(target.data() + to, source.data() + from, bytes, seed),
                crc32c(seed, source.data() + from, bytes));
      ASSERT_TRUE(bytes == 0 || std::memcmp(target.data() + to, source.data() + from, bytes) == 0);
      ASSERT_TRUE(std::all_of(target.begin(), target.begin() + static_cast<long>(to),
                              [](uint8_t b) { return b == 0xa5; }));
      ASSERT_TRUE(std::all_of(target.end() - 64, target.end(), [](uint8_t b) { return b == 0xa5; }));
    }
  }
}

TEST_F(Crc32cTest, LargeCopiesBypassTheCacheAndStayExact) {
  const size_t bytes = 4 * MiB + below(10'000);
  const Bytes source = random_bytes(bytes + 64);
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    const size_t from = below(64), to = below(64);
    Bytes target(bytes + 128, 0xa5);
    ASSERT_EQ(copy_crc32c(target.data() + to, source.data() + from, bytes, 5),
              crc32c(5, source.data() + from, bytes));
    ASSERT_EQ(std::memcmp(target.data() + to, source.data() + from, bytes), 0);
    ASSERT_EQ(target[to + bytes], 0xa5);
  }
}

TEST_F(Crc32cTest, StreamCopy) {
  for (SimdLevel level : levels()) {
    set_simd_level(level);
    for (size_t lines = 0; lines < 70; ++lines) {
      alignas(64) uint8_t source[70 * 64], target[71 * 64] = {};
      for (uint8_t& byte : source) byte = static_cast<uint8_t>(random_());
      ASSERT_EQ(stream_copy_crc32c(target, source, lines * 64, 9), crc32c(9, source, lines * 64));
      stream_fence();
      ASSERT_EQ(std::memcmp(target, source, lines * 64), 0);
      ASSERT_EQ(target[lines * 64], 0);
    }
  }
}

}  // namespace
}  // namespace millrace::test
