#include "base/cpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace millrace {

namespace cpu_internal {

std::atomic<uint8_t> active_level{0xff};

SimdLevel detect_and_activate() {
  SimdLevel level = simd_level_detected();
  if (const char* wanted = std::getenv("MILLRACE_SIMD")) {
    if (std::strcmp(wanted, "portable") == 0) level = SimdLevel::kPortable;
    if (std::strcmp(wanted, "sse42") == 0) level = std::min(level, SimdLevel::kSse42);
  }
  active_level.store(static_cast<uint8_t>(level), std::memory_order_relaxed);
  return level;
}

}  // namespace cpu_internal

SimdLevel simd_level_detected() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool sse42 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("vpclmulqdq");
  if (sse42 && avx512) return SimdLevel::kAvx512;
  if (sse42) return SimdLevel::kSse42;
#endif
  return SimdLevel::kPortable;
}

void set_simd_level(SimdLevel level) {
  level = std::min(level, simd_level_detected());
  cpu_internal::active_level.store(static_cast<uint8_t>(level), std::memory_order_relaxed);
}

const char* simd_level_name(SimdLevel level) {
  switch (level) {
    case SimdLevel::kPortable:
      return "portable";
    case SimdLevel::kSse42:
      return "sse42";
    case SimdLevel::kAvx512:
      return "avx512";
  }
  return "portable";
}

}  // namespace millrace
