// What the native tests share: seeds that are printed, contents that are derived from a key and a version, and
// Status in assertions.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/crc32c.h"
#include "base/hash.h"
#include "base/status.h"

#if defined(__SANITIZE_THREAD__)
#define MILLRACE_TEST_TSAN 1
#else
#define MILLRACE_TEST_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__)
#define MILLRACE_TEST_ASAN 1
#else
#define MILLRACE_TEST_ASAN 0
#endif

namespace millrace::test {

// Sanitizers cost a factor; randomised tests do less under them so that a run stays short.
inline constexpr bool kSanitized = MILLRACE_TEST_TSAN || MILLRACE_TEST_ASAN;

// A fresh seed, or the one in MILLRACE_TEST_SEED; printed so that a failure can be replayed.
inline uint64_t new_seed(const char* what) {
  const char* fixed = std::getenv("MILLRACE_TEST_SEED");
  const uint64_t seed =
      fixed != nullptr ? std::strtoull(fixed, nullptr, 10) : (uint64_t{std::random_device{}()} << 16 | 1);
  std::printf("[   SEED   ] %s: MILLRACE_TEST_SEED=%llu\n", what, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  return seed;
}

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  uint64_t next() { return engine_(); }
  uint64_t below(uint64_t end) { return engine_() % end; }  // end > 0
  uint64_t between(uint64_t first, uint64_t last) { return first + below(last - first + 1); }
  bool chance(uint64_t one_in) { return below(one_in) == 0; }
  // Mostly small, sometimes up to `max`: sizes of objects are distributed so.
  uint64_t size(uint64_t max) { return below(uint64_t{1} << below(64 - static_cast<uint64_t>(__builtin_clzll(max | 1)) + 1)) % (max + 1); }

 private:
  std::mt19937_64 engine_;
};

// The content of version `version` of `key`: every 8 bytes depend on both and on their place, so bytes of
// another object, of an older version, or at another offset are told apart.
class Content {
 public:
  Content(std::string_view key, uint64_t version) : seed_(hash_key(key) ^ (version * 0x9e3779b97f4a7c15ull)) {}

  void fill(uint8_t* to, uint64_t bytes, uint64_t offset = 0) const {
    uint64_t done = 0;
    while (done < bytes) {
      const uint64_t at = offset + done;
      const uint64_t word = word_at(at / 8);
      const uint64_t count = std::min<uint64_t>(8 - at % 8, bytes - done);
      std::memcpy(to + done, reinterpret_cast<const uint8_t*>(&word) + at % 8, count);
      done += count;
    }
  }
  bool matches(const uint8_t* data, uint64_t bytes, uint64_t offset = 0) const {
    uint64_t done = 0;
    while (done < bytes) {
      const uint64_t at = offset + done;
      const uint64_t word = word_at(at / 8);
      const uint64_t count = std::min<uint64_t>(8 - at % 8, bytes - done);
      if (std::memcmp(data + done, reinterpret_cast<const uint8_t*>(&word) + at % 8, count) != 0) return false;
      done += count;
    }
    return true;
  }
  std::vector<uint8_t> bytes(uint64_t count) const {
    std::vector<uint8_t> result(count);
    fill(result.data(), count);
    return result;
  }

 private:
  uint64_t word_at(uint64_t index) const {
    uint64_t x = seed_ + (index + 1) * 0xbf58476d1ce4e5b9ull;
    x ^= x >> 31;
    x *= 0x94d049bb133111ebull;
    return x ^ (x >> 29);
  }
  uint64_t seed_;
};

// For what a background thread does in its own time. Gives up after long enough that only a fault explains it.
template <class Predicate>
bool eventually(Predicate&& predicate) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!predicate()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

inline ::testing::AssertionResult is_ok(const Status& status) {
  if (status.ok()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << code_name(status.code()) << ": " << status.message();
}
template <class T>
::testing::AssertionResult is_ok(const Result<T>& result) {
  return is_ok(result.status());
}
inline ::testing::AssertionResult has_code(const Status& status, Code code) {
  if (status.code() == code) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "expected " << code_name(code) << ", got " << code_name(status.code())
                                       << ": " << status.message();
}
template <class T>
::testing::AssertionResult has_code(const Result<T>& result, Code code) {
  return has_code(result.status(), code);
}

}  // namespace millrace::test

#define EXPECT_OK(expression) EXPECT_TRUE(::millrace::test::is_ok(expression))
#define ASSERT_OK(expression) ASSERT_TRUE(::millrace::test::is_ok(expression))
#define EXPECT_CODE(expression, code) EXPECT_TRUE(::millrace::test::has_code(expression, code))
#define ASSERT_CODE(expression, code) ASSERT_TRUE(::millrace::test::has_code(expression, code))
