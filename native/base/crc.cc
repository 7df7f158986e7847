#include "base/crc.h"

#include "base/cpu.h"
#include "base/crc_polynomial.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace millrace {
namespace {

template <auto kPolynomial>
constexpr auto kTables = crc::make_tables(kPolynomial);

template <auto kPolynomial>
constexpr auto kSquares = crc::make_squares(kPolynomial);

#if defined(__x86_64__)

#define MILLRACE_SSE42 __attribute__((target("sse4.2,pclmul")))

// Below this the tables are as fast.
constexpr size_t kFoldBytesMin = 128;

template <auto kPolynomial, uint64_t kBits>
MILLRACE_SSE42 inline __m128i fold(__m128i value) {
  const __m128i constants = _mm_set_epi64x(static_cast<long long>(crc::fold_high(kPolynomial, kBits)),
                                           static_cast<long long>(crc::fold_low(kPolynomial, kBits)));
  return _mm_xor_si128(_mm_clmulepi64_si128(value, constants, 0x00), _mm_clmulepi64_si128(value, constants, 0x11));
}

// Folds 64 bytes a step in four independent registers.
template <auto kPolynomial, class Word>
MILLRACE_SSE42 Word update_folded(Word state, const uint8_t* data, size_t bytes) {
  const auto at = [](const uint8_t* place) { return reinterpret_cast<const __m128i*>(place); };
  __m128i lane0 = _mm_loadu_si128(at(data)), lane1 = _mm_loadu_si128(at(data + 16));
  __m128i lane2 = _mm_loadu_si128(at(data + 32)), lane3 = _mm_loadu_si128(at(data + 48));
  lane0 = _mm_xor_si128(lane0, _mm_cvtsi64_si128(static_cast<long long>(state)));
  data += 64, bytes -= 64;
  for (; bytes >= 64; data += 64, bytes -= 64) {
    lane0 = _mm_xor_si128(fold<kPolynomial, 512>(lane0), _mm_loadu_si128(at(data)));
    lane1 = _mm_xor_si128(fold<kPolynomial, 512>(lane1), _mm_loadu_si128(at(data + 16)));
    lane2 = _mm_xor_si128(fold<kPolynomial, 512>(lane2), _mm_loadu_si128(at(data + 32)));
    lane3 = _mm_xor_si128(fold<kPolynomial, 512>(lane3), _mm_loadu_si128(at(data + 48)));
  }
  lane1 = _mm_xor_si128(fold<kPolynomial, 128>(lane0), lane1);
  lane2 = _mm_xor_si128(fold<kPolynomial, 128>(lane1), lane2);
  lane3 = _mm_xor_si128(fold<kPolynomial, 128>(lane2), lane3);
  // 128 bits that are congruent to the message so far are themselves a message of 16 bytes.
  alignas(16) uint8_t rest[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(rest), lane3);
  state = crc::update_by_table(kTables<kPolynomial>, Word{0}, rest, sizeof rest);
  return crc::update_by_table(kTables<kPolynomial>, state, data, bytes);
}

#endif  // __x86_64__

template <auto kPolynomial, class Word>
Word update(Word state, const void* data, size_t bytes) {
  const auto* from = static_cast<const uint8_t*>(data);
#if defined(__x86_64__)
  if (bytes >= kFoldBytesMin && simd_level() >= SimdLevel::kSse42) {
    return update_folded<kPolynomial>(state, from, bytes);
  }
#endif
  return crc::update_by_table(kTables<kPolynomial>, state, from, bytes);
}

}  // namespace

uint32_t zlib_crc32(uint32_t seed, const void* data, size_t bytes) {
  return ~update<crc::kZlib>(~seed, data, bytes);
}

uint32_t zlib_crc32_combine(uint32_t a, uint32_t b, uint64_t b_bytes) {
  return crc::combine(crc::kZlib, kSquares<crc::kZlib>, a, b, b_bytes);
}

uint64_t crc64nvme(uint64_t seed, const void* data, size_t bytes) {
  return ~update<crc::kNvme>(~seed, data, bytes);
}

uint64_t crc64nvme_combine(uint64_t a, uint64_t b, uint64_t b_bytes) {
  return crc::combine(crc::kNvme, kSquares<crc::kNvme>, a, b, b_bytes);
}

}  // namespace millrace
