#include "kernels/stream_copy.h"

#include <cstring>

#include "base/cpu.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace millrace {

#if defined(__x86_64__)

namespace {

__attribute__((target("avx512f"))) void stream_copy_avx512(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 64) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), _mm512_load_si512(from + at));
  }
}

// Every x86-64 processor has SSE2.
void stream_copy_sse2(uint8_t* to, const uint8_t* from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + at),
                     _mm_load_si128(reinterpret_cast<const __m128i*>(from + at)));
  }
}

}  // namespace

void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes) {
  if (simd_level() >= SimdLevel::kAvx512) {
    stream_copy_avx512(to, from, bytes);
  } else {
    stream_copy_sse2(to, from, bytes);
  }
}

#else

void stream_copy(uint8_t* to, const uint8_t* from, size_t bytes) { std::memcpy(to, from, bytes); }

#endif

}  // namespace millrace
