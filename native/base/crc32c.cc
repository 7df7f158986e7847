#include "base/crc32c.h"

#include <array>
#include <cstring>

#include "base/cpu.h"
#include "base/crc_polynomial.h"
#include "base/units.h"

#if defined(__x86_64__)
#include <immintrin.h>
// GCC 12 warns about its own AVX-512 headers, which leave the pass-through operand of unmasked instructions
// undefined on purpose.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#endif

namespace millrace {
namespace {

using crc::fold_high;
using crc::fold_low;
using crc::kCastagnoli;

// Below this a copy probably serves a reader who finds it in the cache, and a plain store is as fast.
constexpr size_t kStreamBytesMin = 4 * MiB;

constexpr auto kTables = crc::make_tables(kCastagnoli);

enum class Copy { kNone, kCached, kStream };

template <Copy kCopy>
uint32_t update_portable(uint32_t state, uint8_t* to, const uint8_t* from, size_t bytes) {
  if constexpr (kCopy == Copy::kNone) {
    return crc::update_by_table(kTables, state, from, bytes);
  } else {
    // In blocks, so that the second look at the data is served by the nearest cache.
    constexpr size_t kBlockBytes = 8 * KiB;
    while (bytes > 0) {
      const size_t block = bytes < kBlockBytes ? bytes : kBlockBytes;
      std::memcpy(to, from, block);
      state = crc::update_by_table(kTables, state, from, block);
      to += block;
      from += block;
      bytes -= block;
    }
    return state;
  }
}

#if defined(__x86_64__)

#define MILLRACE_SSE42 __attribute__((target("sse4.2,pclmul")))
#define MILLRACE_AVX512 \
  __attribute__((target("sse4.2,pclmul,avx2,avx512f,avx512bw,avx512dq,avx512vl,vpclmulqdq")))

// Few bytes: the CRC instruction has a latency of three cycles for eight bytes and no set-up cost.
template <Copy kCopy>
MILLRACE_SSE42 inline uint32_t update_short(uint32_t state, uint8_t* to, const uint8_t* from, size_t bytes) {
  uint64_t wide = state;
  for (; bytes >= 8; bytes -= 8, from += 8) {
    uint64_t word;
    std::memcpy(&word, from, 8);
    wide = _mm_crc32_u64(wide, word);
    if constexpr (kCopy != Copy::kNone) std::memcpy(to, &word, 8), to += 8;
  }
  state = static_cast<uint32_t>(wide);
  if (bytes & 4) {
    uint32_t word;
    std::memcpy(&word, from, 4);
    state = _mm_crc32_u32(state, word);
    if constexpr (kCopy != Copy::kNone) std::memcpy(to, &word, 4), to += 4;
    from += 4;
  }
  if (bytes & 2) {
    uint16_t word;
    std::memcpy(&word, from, 2);
    state = _mm_crc32_u16(state, word);
    if constexpr (kCopy != Copy::kNone) std::memcpy(to, &word, 2), to += 2;
    from += 2;
  }
  if (bytes & 1) {
    state = _mm_crc32_u8(state, *from);
    if constexpr (kCopy != Copy::kNone) *to = *from;
  }
  return state;
}

MILLRACE_SSE42 inline __m128i fold(__m128i value, __m128i constants) {
  return _mm_xor_si128(_mm_clmulepi64_si128(value, constants, 0x00),
                       _mm_clmulepi64_si128(value, constants, 0x11));
}

template <uint64_t kBits>
MILLRACE_SSE42 inline __m128i fold_constants() {
  return _mm_set_epi64x(static_cast<long long>(fold_high(kCastagnoli, kBits)),
                        static_cast<long long>(fold_low(kCastagnoli, kBits)));
}

// 128 bits that are congruent to the message so far are themselves a message of 16 bytes.
MILLRACE_SSE42 inline uint32_t reduce(__m128i value) {
  uint64_t state = _mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(value)));
  state = _mm_crc32_u64(state, static_cast<uint64_t>(_mm_extract_epi64(value, 1)));
  return static_cast<uint32_t>(state);
}

template <Copy kCopy>
MILLRACE_SSE42 inline void store16(uint8_t* to, __m128i value) {
  if constexpr (kCopy == Copy::kCached) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value);
  if constexpr (kCopy == Copy::kStream) _mm_stream_si128(reinterpret_cast<__m128i*>(to), value);
}

// Folds 64 bytes a step in four independent registers.
template <Copy kCopy>
MILLRACE_SSE42 uint32_t update_sse42(uint32_t state, uint8_t* to, const uint8_t* from, size_t bytes) {
  if (bytes < 192) return update_short<kCopy>(state, to, from, bytes);
  if constexpr (kCopy == Copy::kStream) {
    const size_t head = (0 - reinterpret_cast<uintptr_t>(to)) & 63;
    state = update_short<kCopy>(state, to, from, head);
    to += head, from += head, bytes -= head;
  }
  const auto load = [](const uint8_t* at) { return reinterpret_cast<const __m128i*>(at); };
  __m128i lane0 = _mm_loadu_si128(load(from)), lane1 = _mm_loadu_si128(load(from + 16));
  __m128i lane2 = _mm_loadu_si128(load(from + 32)), lane3 = _mm_loadu_si128(load(from + 48));
  store16<kCopy>(to, lane0), store16<kCopy>(to + 16, lane1);
  store16<kCopy>(to + 32, lane2), store16<kCopy>(to + 48, lane3);
  lane0 = _mm_xor_si128(lane0, _mm_cvtsi32_si128(static_cast<int>(state)));
  from += 64, bytes -= 64;
  if constexpr (kCopy != Copy::kNone) to += 64;
  const __m128i step = fold_constants<512>();
  for (; bytes >= 64; bytes -= 64, from += 64) {
    const __m128i next0 = _mm_loadu_si128(load(from)), next1 = _mm_loadu_si128(load(from + 16));
    const __m128i next2 = _mm_loadu_si128(load(from + 32)), next3 = _mm_loadu_si128(load(from + 48));
    store16<kCopy>(to, next0), store16<kCopy>(to + 16, next1);
    store16<kCopy>(to + 32, next2), store16<kCopy>(to + 48, next3);
    lane0 = _mm_xor_si128(fold(lane0, step), next0);
    lane1 = _mm_xor_si128(fold(lane1, step), next1);
    lane2 = _mm_xor_si128(fold(lane2, step), next2);
    lane3 = _mm_xor_si128(fold(lane3, step), next3);
    if constexpr (kCopy != Copy::kNone) to += 64;
  }
  __m128i all = _mm_xor_si128(fold(lane0, fold_constants<384>()), fold(lane1, fold_constants<256>()));
  all = _mm_xor_si128(all, _mm_xor_si128(fold(lane2, fold_constants<128>()), lane3));
  return update_short<kCopy>(reduce(all), to, from, bytes);
}

MILLRACE_AVX512 inline __m512i fold_onto(__m512i value, __m512i constants, __m512i next) {
  return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(value, constants, 0x00),
                                   _mm512_clmulepi64_epi128(value, constants, 0x11), next, 0x96);
}

template <Copy kCopy>
MILLRACE_AVX512 inline void store64(uint8_t* to, __m512i value) {
  if constexpr (kCopy == Copy::kCached) _mm512_storeu_si512(to, value);
  if constexpr (kCopy == Copy::kStream) _mm512_stream_si512(reinterpret_cast<__m512i*>(to), value);
}

// Folds 256 bytes a step in four registers of four lanes.
template <Copy kCopy>
MILLRACE_AVX512 uint32_t update_avx512(uint32_t state, uint8_t* to, const uint8_t* from, size_t bytes) {
  if (bytes < 192) return update_short<kCopy>(state, to, from, bytes);
  if constexpr (kCopy == Copy::kStream) {
    const size_t head = (0 - reinterpret_cast<uintptr_t>(to)) & 63;
    state = update_short<kCopy>(state, to, from, head);
    to += head, from += head, bytes -= head;
  }
  const __m512i by512 = _mm512_broadcast_i32x4(fold_constants<512>());
  __m512i sum = _mm512_loadu_si512(from);
  store64<kCopy>(to, sum);
  sum = _mm512_xor_si512(sum, _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(state))));
  from += 64, bytes -= 64;
  if constexpr (kCopy != Copy::kNone) to += 64;
  if (bytes >= 448) {
    const __m512i by2048 = _mm512_broadcast_i32x4(fold_constants<2048>());
    __m512i part1 = _mm512_loadu_si512(from), part2 = _mm512_loadu_si512(from + 64);
    __m512i part3 = _mm512_loadu_si512(from + 128);
    store64<kCopy>(to, part1), store64<kCopy>(to + 64, part2), store64<kCopy>(to + 128, part3);
    from += 192, bytes -= 192;
    if constexpr (kCopy != Copy::kNone) to += 192;
    for (; bytes >= 256; bytes -= 256, from += 256) {
      const __m512i next0 = _mm512_loadu_si512(from), next1 = _mm512_loadu_si512(from + 64);
      const __m512i next2 = _mm512_loadu_si512(from + 128), next3 = _mm512_loadu_si512(from + 192);
      store64<kCopy>(to, next0), store64<kCopy>(to + 64, next1);
      store64<kCopy>(to + 128, next2), store64<kCopy>(to + 192, next3);
      sum = fold_onto(sum, by2048, next0);
      part1 = fold_onto(part1, by2048, next1);
      part2 = fold_onto(part2, by2048, next2);
      part3 = fold_onto(part3, by2048, next3);
      if constexpr (kCopy != Copy::kNone) to += 256;
    }
    sum = fold_onto(sum, by512, part1);
    sum = fold_onto(sum, by512, part2);
    sum = fold_onto(sum, by512, part3);
  }
  for (; bytes >= 64; bytes -= 64, from += 64) {
    const __m512i next = _mm512_loadu_si512(from);
    store64<kCopy>(to, next);
    sum = fold_onto(sum, by512, next);
    if constexpr (kCopy != Copy::kNone) to += 64;
  }
  // The four lanes onto the last one, which stays as it is.
  const __m512i lanes = _mm512_set_epi64(
      0, 0, static_cast<long long>(fold_high(kCastagnoli, 128)),
      static_cast<long long>(fold_low(kCastagnoli, 128)), static_cast<long long>(fold_high(kCastagnoli, 256)),
      static_cast<long long>(fold_low(kCastagnoli, 256)), static_cast<long long>(fold_high(kCastagnoli, 384)),
      static_cast<long long>(fold_low(kCastagnoli, 384)));
  const __m512i folded = fold_onto(sum, lanes, _mm512_maskz_mov_epi64(0xc0, sum));
  const __m256i half = _mm256_xor_si256(_mm512_castsi512_si256(folded), _mm512_extracti64x4_epi64(folded, 1));
  const __m128i all = _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return update_short<kCopy>(reduce(all), to, from, bytes);
}

#endif  // __x86_64__

template <Copy kCopy>
inline uint32_t update(uint32_t state, uint8_t* to, const uint8_t* from, size_t bytes) {
#if defined(__x86_64__)
  switch (simd_level()) {
    case SimdLevel::kAvx512:
      return update_avx512<kCopy>(state, to, from, bytes);
    case SimdLevel::kSse42:
      return update_sse42<kCopy>(state, to, from, bytes);
    case SimdLevel::kPortable:
      break;
  }
#endif
  return update_portable<kCopy>(state, to, from, bytes);
}

constexpr auto kSquares = crc::make_squares(kCastagnoli);

}  // namespace

uint32_t crc32c(uint32_t seed, const void* data, size_t bytes) {
  return ~update<Copy::kNone>(~seed, nullptr, static_cast<const uint8_t*>(data), bytes);
}

uint32_t copy_crc32c(void* to, const void* from, size_t bytes, uint32_t seed) {
  auto* target = static_cast<uint8_t*>(to);
  const auto* source = static_cast<const uint8_t*>(from);
  if (bytes < kStreamBytesMin) return ~update<Copy::kCached>(~seed, target, source, bytes);
  const uint32_t state = update<Copy::kStream>(~seed, target, source, bytes);
  stream_fence();
  return ~state;
}

uint32_t stream_copy_crc32c(void* to, const void* from, size_t bytes, uint32_t seed) {
  return ~update<Copy::kStream>(~seed, static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from), bytes);
}

void stream_fence() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

uint32_t crc32c_combine(uint32_t a, uint32_t b, uint64_t b_bytes) {
  return crc::combine(kCastagnoli, kSquares, a, b, b_bytes);
}

}  // namespace millrace
