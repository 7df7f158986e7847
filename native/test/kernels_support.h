// What the kernels' tests share: a seeded source of random numbers whose seed is printed, so that a failure
// can be repeated (MILLRACE_TEST_SEED=n), and records to try the kernels on.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "kernels/record.h"

namespace millrace::test {

using Bytes = std::vector<uint8_t>;

class SeededTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* given = std::getenv("MILLRACE_TEST_SEED");
    seed_ = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    random_.seed(seed_);
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed_));
    level_before_ = simd_level();
  }
  void TearDown() override { set_simd_level(level_before_); }

  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }

  Bytes random_bytes(size_t count) {
    Bytes bytes(count);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_());
    return bytes;
  }

  static std::vector<SimdLevel> levels() {
    std::vector<SimdLevel> levels;
    for (int level = 0; level <= static_cast<int>(simd_level_detected()); ++level) {
      levels.push_back(static_cast<SimdLevel>(level));
    }
    return levels;
  }

  enum class Keys { kRandom, kEqual, kFewDistinct, kLongPrefix, kPowers, kSorted, kHot };
  static constexpr Keys kAllKeys[] = {Keys::kRandom, Keys::kEqual,  Keys::kFewDistinct, Keys::kLongPrefix,
                                      Keys::kPowers, Keys::kSorted, Keys::kHot};

  // Random payload behind keys of the given kind.
  Bytes make_records(RecordLayout layout, uint64_t count, Keys keys) {
    Bytes records = random_bytes(count * layout.record_bytes);
    const Bytes few = random_bytes(4 * layout.key_bytes);
    for (uint64_t i = 0; i < count; ++i) {
      uint8_t* key = records.data() + i * layout.record_bytes;
      switch (keys) {
        case Keys::kRandom:
          break;
        case Keys::kEqual:
          std::memcpy(key, few.data(), layout.key_bytes);
          break;
        case Keys::kFewDistinct:
          std::memcpy(key, few.data() + below(4) * layout.key_bytes, layout.key_bytes);
          break;
        case Keys::kLongPrefix:
          std::memcpy(key, few.data(), layout.key_bytes - std::min(layout.key_bytes, 2u));
          break;
        case Keys::kPowers: {  // every digit splits off one key
          std::memset(key, 0, layout.key_bytes);
          const uint64_t bit = below(8 * layout.key_bytes);
          key[bit / 8] = static_cast<uint8_t>(1 << bit % 8);
          break;
        }
        case Keys::kSorted:
          std::memset(key, 0, layout.key_bytes);
          for (uint32_t b = 0; b < 8 && b < layout.key_bytes; ++b)
            key[layout.key_bytes - 1 - b] = static_cast<uint8_t>(i >> 8 * b);
          break;
        case Keys::kHot:
          if (below(100) < 22) std::memcpy(key, few.data(), std::min(layout.key_bytes, 2u));
          break;
      }
    }
    return records;
  }

  uint64_t seed_ = 0;
  std::mt19937_64 random_;

 private:
  SimdLevel level_before_ = SimdLevel::kPortable;
};

// The records as strings, for comparisons with the standard library's algorithms.
inline std::vector<std::string> split_records(RecordLayout layout, std::span<const uint8_t> bytes) {
  std::vector<std::string> records;
  for (size_t at = 0; at + layout.record_bytes <= bytes.size(); at += layout.record_bytes) {
    records.emplace_back(reinterpret_cast<const char*>(bytes.data() + at), layout.record_bytes);
  }
  return records;
}

inline bool key_less(RecordLayout layout, const std::string& a, const std::string& b) {
  return std::memcmp(a.data(), b.data(), layout.key_bytes) < 0;
}

inline void expect_sorted_by_key(RecordLayout layout, std::span<const uint8_t> bytes) {
  for (size_t at = layout.record_bytes; at < bytes.size(); at += layout.record_bytes) {
    ASSERT_LE(std::memcmp(bytes.data() + at - layout.record_bytes, bytes.data() + at, layout.key_bytes), 0)
        << "record " << at / layout.record_bytes;
  }
}

// The same records, whatever their order.
inline void expect_same_records(RecordLayout layout, std::span<const uint8_t> a, std::span<const uint8_t> b) {
  std::vector<std::string> left = split_records(layout, a), right = split_records(layout, b);
  std::sort(left.begin(), left.end());
  std::sort(right.begin(), right.end());
  ASSERT_EQ(left.size(), right.size());
  ASSERT_TRUE(left == right);
}

}  // namespace millrace::test
