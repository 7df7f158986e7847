#include "kernels/record_crc.h"

#include <cstdio>
#include <cstring>

#include "base/cpu.h"
#include "base/crc.h"
#include "base/crc_polynomial.h"

#if defined(__x86_64__)
#include <immintrin.h>
// GCC 12 warns about its own AVX-512 headers (see base/crc32c.cc).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#endif

// A CRC is an affine map of the message: for messages of one length it is a linear map, XORed with the CRC of
// as many zero bytes. The kernels compute the linear part, where leading zeros do not count, so that records
// of any length can be padded in front to whole registers, and XOR the constant at the end.

namespace millrace {
namespace {

using crc::fold_constant;
using crc::fold_high;
using crc::fold_low;
using crc::kZlib;

uint32_t crc_of_zeros(uint32_t bytes) {
  return ~crc::multiply(kZlib, 0xffffffff, crc::x_power(kZlib, uint64_t{8} * bytes));
}

uint64_t sum_portable(const uint8_t* records, uint64_t count, uint32_t record_bytes) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; ++i) sum += zlib_crc32(0, records + i * record_bytes, record_bytes);
  return sum;
}

#if defined(__x86_64__)

#define MILLRACE_SSE42 __attribute__((target("sse4.2,pclmul")))
#define MILLRACE_AVX512 \
  __attribute__((target("sse4.2,pclmul,avx2,avx512f,avx512bw,avx512dq,avx512vl,vpclmulqdq")))

constexpr long long constant(uint64_t value) { return static_cast<long long>(value); }

// 128 bits of message to the 32 bits of its remainder, which end in bits 32 to 63.
MILLRACE_SSE42 inline __m128i reduce(__m128i value) {
  const __m128i low_words = _mm_set_epi32(0, -1, 0, -1);
  const __m128i to_64 = _mm_set_epi64x(0, constant(fold_high(kZlib, 128)));
  const __m128i to_32 = _mm_set_epi64x(0, constant(fold_constant(kZlib, 64)));
  const __m128i barrett =
      _mm_set_epi64x(constant(crc::barrett_quotient(kZlib)), constant(crc::barrett_polynomial(kZlib)));
  value = _mm_xor_si128(_mm_srli_si128(value, 8), _mm_clmulepi64_si128(value, to_64, 0x00));
  value = _mm_xor_si128(_mm_srli_si128(value, 4),
                        _mm_clmulepi64_si128(_mm_and_si128(value, low_words), to_32, 0x00));
  __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(value, low_words), barrett, 0x10);
  quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, low_words), barrett, 0x00);
  return _mm_xor_si128(value, quotient);
}

// Records of at least 16 bytes. Consecutive records do not depend on each other, so the processor overlaps
// them.
template <uint32_t kBytes>
MILLRACE_SSE42 uint64_t sum_sse42(const uint8_t* records, uint64_t count, uint32_t record_bytes) {
  const uint32_t bytes = kBytes != 0 ? kBytes : record_bytes;
  const uint32_t head = bytes % 16;
  const uint32_t of_zeros = crc_of_zeros(bytes);
  const __m128i step = _mm_set_epi64x(constant(fold_high(kZlib, 128)), constant(fold_low(kZlib, 128)));
  // Moves the first `head` bytes of a register to its end and clears the rest.
  alignas(16) uint8_t moves[16];
  for (uint32_t byte = 0; byte < 16; ++byte) {
    moves[byte] = byte < 16 - head ? 0x80 : static_cast<uint8_t>(byte - (16 - head));
  }
  const __m128i pad = _mm_load_si128(reinterpret_cast<const __m128i*>(moves));
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; ++i, records += bytes) {
    __m128i value = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(records)), pad);
    for (uint32_t at = head; at < bytes; at += 16) {
      const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(records + at));
      value = _mm_xor_si128(
          _mm_xor_si128(_mm_clmulepi64_si128(value, step, 0x00), _mm_clmulepi64_si128(value, step, 0x11)),
          next);
    }
    sum += static_cast<uint32_t>(_mm_extract_epi32(reduce(value), 1)) ^ of_zeros;
  }
  return sum;
}

// The same reduction for four records, one in each lane.
MILLRACE_AVX512 inline __m512i reduce4(__m512i value) {
  const __m512i low_words = _mm512_set1_epi64(0xffffffff);
  const __m512i to_64 = _mm512_set1_epi64(constant(fold_high(kZlib, 128)));
  const __m512i to_32 = _mm512_set1_epi64(constant(fold_constant(kZlib, 64)));
  const __m512i divisor = _mm512_set1_epi64(constant(crc::barrett_polynomial(kZlib)));
  const __m512i inverse = _mm512_set1_epi64(constant(crc::barrett_quotient(kZlib)));
  value = _mm512_xor_si512(_mm512_bsrli_epi128(value, 8), _mm512_clmulepi64_epi128(value, to_64, 0x00));
  value = _mm512_xor_si512(_mm512_bsrli_epi128(value, 4),
                           _mm512_clmulepi64_epi128(_mm512_and_si512(value, low_words), to_32, 0x00));
  __m512i quotient = _mm512_clmulepi64_epi128(_mm512_and_si512(value, low_words), inverse, 0x00);
  quotient = _mm512_clmulepi64_epi128(_mm512_and_si512(quotient, low_words), divisor, 0x00);
  return _mm512_xor_si512(value, quotient);
}

// A record of 65 to 128 bytes as two registers, padded with zeros in front: eight lanes, each multiplied by
// its distance from the end, and their sum still spread over four lanes.
MILLRACE_AVX512 inline __m512i fold_record(const uint8_t* record, uint32_t bytes, __mmask64 head,
                                           __m512i first_by, __m512i second_by) {
  const uint32_t head_bytes = bytes - 64;
  const __m512i first = _mm512_maskz_loadu_epi8(head, record + static_cast<int64_t>(head_bytes) - 64);
  const __m512i second = _mm512_loadu_si512(record + head_bytes);
  const __m512i last_lane = _mm512_maskz_mov_epi64(0xc0, second);
  const __m512i folded =
      _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(first, first_by, 0x00),
                                _mm512_clmulepi64_epi128(first, first_by, 0x11), last_lane, 0x96);
  return _mm512_ternarylogic_epi64(folded, _mm512_clmulepi64_epi128(second, second_by, 0x00),
                                   _mm512_clmulepi64_epi128(second, second_by, 0x11), 0x96);
}

template <uint32_t kBytes>
MILLRACE_AVX512 uint64_t sum_avx512(const uint8_t* records, uint64_t count, uint32_t record_bytes) {
  const uint32_t bytes = kBytes != 0 ? kBytes : record_bytes;
  const __mmask64 head = ~__mmask64{0} << (128 - bytes);
  const __m512i first_by = _mm512_set_epi64(constant(fold_high(kZlib, 512)), constant(fold_low(kZlib, 512)),
                                            constant(fold_high(kZlib, 640)), constant(fold_low(kZlib, 640)),
                                            constant(fold_high(kZlib, 768)), constant(fold_low(kZlib, 768)),
                                            constant(fold_high(kZlib, 896)), constant(fold_low(kZlib, 896)));
  const __m512i second_by = _mm512_set_epi64(
      0, 0, constant(fold_high(kZlib, 128)), constant(fold_low(kZlib, 128)), constant(fold_high(kZlib, 256)),
      constant(fold_low(kZlib, 256)), constant(fold_high(kZlib, 384)), constant(fold_low(kZlib, 384)));
  const __m512i of_zeros = _mm512_set1_epi64(static_cast<long long>(crc_of_zeros(bytes)));
  __m512i sums = _mm512_setzero_si512();
  uint64_t i = 0;
  for (; i + 4 <= count; i += 4, records += 4 * static_cast<size_t>(bytes)) {
    const __m512i a = fold_record(records, bytes, head, first_by, second_by);
    const __m512i b = fold_record(records + bytes, bytes, head, first_by, second_by);
    const __m512i c = fold_record(records + 2 * static_cast<size_t>(bytes), bytes, head, first_by, second_by);
    const __m512i d = fold_record(records + 3 * static_cast<size_t>(bytes), bytes, head, first_by, second_by);
    // Sums up the four lanes of each record into one lane of `all`.
    const __m512i ab = _mm512_xor_si512(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
    const __m512i cd = _mm512_xor_si512(_mm512_shuffle_i64x2(c, d, 0x44), _mm512_shuffle_i64x2(c, d, 0xee));
    const __m512i all =
        _mm512_xor_si512(_mm512_shuffle_i64x2(ab, cd, 0x88), _mm512_shuffle_i64x2(ab, cd, 0xdd));
    const __m512i crcs = _mm512_xor_si512(_mm512_srli_epi64(reduce4(all), 32), of_zeros);
    sums = _mm512_mask_add_epi64(sums, 0x55, sums, crcs);
  }
  const uint64_t sum = static_cast<uint64_t>(_mm512_reduce_add_epi64(sums));
  return sum + sum_sse42<kBytes>(records, count - i, record_bytes);
}

#endif  // __x86_64__

}  // namespace

std::string RecordsChecksum::hex() const {
  char text[40];
  if (high != 0) {
    std::snprintf(text, sizeof text, "%llx%016llx", static_cast<unsigned long long>(high),
                  static_cast<unsigned long long>(low));
  } else {
    std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(low));
  }
  return text;
}

uint64_t sum_record_crcs(const uint8_t* records, uint64_t count, uint32_t record_bytes) {
#if defined(__x86_64__)
  const SimdLevel level = simd_level();
  if (level >= SimdLevel::kAvx512) {
    if (record_bytes == 100) return sum_avx512<100>(records, count, 100);
    if (record_bytes > 64 && record_bytes <= 128) return sum_avx512<0>(records, count, record_bytes);
  }
  if (level >= SimdLevel::kSse42) {
    if (record_bytes == 100) return sum_sse42<100>(records, count, 100);
    if (record_bytes >= 16) return sum_sse42<0>(records, count, record_bytes);
  }
#endif
  return sum_portable(records, count, record_bytes);
}

}  // namespace millrace
