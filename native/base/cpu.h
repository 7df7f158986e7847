// Which instruction sets this machine has, found once at run time. Binaries are built for the baseline of
// their architecture and choose faster code by asking here, so one addon runs everywhere.
#pragma once
#include <atomic>
#include <cstdint>

namespace millrace {

// Each level contains those before it; a level is a set that appears together on real processors, so kernels
// need one variant a level and not one a CPUID bit.
enum class SimdLevel : uint8_t {
  kPortable = 0,  // plain C++
  kSse42 = 1,     // SSE4.2 (with its CRC32C instruction) and PCLMULQDQ
  kAvx512 = 2,    // AVX-512 F/BW/DQ/VL and VPCLMULQDQ
};

namespace cpu_internal {
extern std::atomic<uint8_t> active_level;  // 0xff: not detected yet
SimdLevel detect_and_activate();
}  // namespace cpu_internal

// The level that kernels use: the best this machine has, or less where MILLRACE_SIMD (portable, sse42,
// avx512) asks for less.
inline SimdLevel simd_level() {
  uint8_t level = cpu_internal::active_level.load(std::memory_order_relaxed);
  if (__builtin_expect(level == 0xff, 0)) return cpu_internal::detect_and_activate();
  return static_cast<SimdLevel>(level);
}

// The best level of this machine, whatever is in force.
SimdLevel simd_level_detected();

// Lets tests and benchmarks walk through every variant; a level that the machine lacks is lowered to what it
// has.
void set_simd_level(SimdLevel level);

const char* simd_level_name(SimdLevel level);

}  // namespace millrace
