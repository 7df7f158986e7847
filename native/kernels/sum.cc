#include "kernels/sum.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "base/cpu.h"
#include "base/crc32c.h"
#include "kernels/stream_copy.h"

namespace millrace {
namespace {

// Stays in the first-level cache beside the inputs' lines.
constexpr size_t kBlockBytes = 8192;

// Numbers as they lie in other people's memory, at any address.
template <typename T>
struct Stored;
template <>
struct Stored<float> {
  typedef float Type __attribute__((aligned(1), may_alias));
};
template <>
struct Stored<double> {
  typedef double Type __attribute__((aligned(1), may_alias));
};
// Unsigned, because their overflow is defined.
template <>
struct Stored<uint32_t> {
  typedef uint32_t Type __attribute__((aligned(1), may_alias));
};
template <>
struct Stored<uint64_t> {
  typedef uint64_t Type __attribute__((aligned(1), may_alias));
};

// Plain loops: the compiler makes vectors of them, of the width of the function that they are inlined into.
template <typename T>
__attribute__((always_inline)) inline void sum_blocks(std::span<const std::span<const uint8_t>> inputs, uint8_t* out,
                                                      size_t bytes, bool streamed) {
  using Number = typename Stored<T>::Type;
  alignas(64) T sums[kBlockBytes / sizeof(T)];
  for (size_t at = 0; at < bytes; at += kBlockBytes) {
    const size_t block_bytes = std::min(kBlockBytes, bytes - at);
    const size_t count = block_bytes / sizeof(T);
    const auto* first = reinterpret_cast<const Number*>(inputs[0].data() + at);
    const auto* second = reinterpret_cast<const Number*>(inputs[1].data() + at);
    for (size_t i = 0; i < count; ++i) sums[i] = first[i] + second[i];
    size_t next = 2;
    for (; next + 2 <= inputs.size(); next += 2) {
      const auto* one = reinterpret_cast<const Number*>(inputs[next].data() + at);
      const auto* other = reinterpret_cast<const Number*>(inputs[next + 1].data() + at);
      for (size_t i = 0; i < count; ++i) sums[i] = (sums[i] + one[i]) + other[i];
    }
    if (next < inputs.size()) {
      const auto* last = reinterpret_cast<const Number*>(inputs[next].data() + at);
      for (size_t i = 0; i < count; ++i) sums[i] = sums[i] + last[i];
    }
    if constexpr (std::is_floating_point_v<T>) {
      // Which NaN a sum of NaNs gives depends on the order in which a compiler puts the operands.
      constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
      for (size_t i = 0; i < count; ++i) sums[i] = sums[i] == sums[i] ? sums[i] : kNan;
    }
    if (streamed && block_bytes % 64 == 0) {
      stream_copy(out + at, reinterpret_cast<const uint8_t*>(sums), block_bytes);
    } else {
      std::memcpy(out + at, sums, block_bytes);
    }
  }
}

using Sum = void (*)(std::span<const std::span<const uint8_t>>, uint8_t*, size_t, bool);

template <typename T>
void sum_portable(std::span<const std::span<const uint8_t>> inputs, uint8_t* out, size_t bytes, bool streamed) {
  sum_blocks<T>(inputs, out, bytes, streamed);
}

#if defined(__x86_64__)

// Without fused multiply-add and the like: every level computes the same.
template <typename T>
__attribute__((target("avx2"))) void sum_avx2(std::span<const std::span<const uint8_t>> inputs, uint8_t* out,
                                              size_t bytes, bool streamed) {
  sum_blocks<T>(inputs, out, bytes, streamed);
}

template <typename T>
Sum best_sum() {
  // Every machine with AVX-512 has AVX2, and wider registers gain nothing: memory is what bounds it.
  return simd_level() >= SimdLevel::kAvx512 ? sum_avx2<T> : sum_portable<T>;
}

#else

template <typename T>
Sum best_sum() {
  return sum_portable<T>;
}

#endif

Sum sum_of(SumType type) {
  switch (type) {
    case SumType::kFloat32:
      return best_sum<float>();
    case SumType::kFloat64:
      return best_sum<double>();
    case SumType::kInt32:
      return best_sum<uint32_t>();
    case SumType::kInt64:
      return best_sum<uint64_t>();
  }
  return nullptr;
}

}  // namespace

uint32_t sum_element_bytes(SumType type) {
  return type == SumType::kFloat32 || type == SumType::kInt32 ? 4 : 8;
}

Status sum_arrays(SumType type, std::span<const std::span<const uint8_t>> inputs, std::span<uint8_t> out) {
  if (inputs.empty()) return Status(Code::kInvalidArgument, "there is nothing to sum");
  if (out.size() % sum_element_bytes(type) != 0) {
    return Status(Code::kInvalidArgument, std::to_string(out.size()) + " bytes are no array of elements of " +
                                              std::to_string(sum_element_bytes(type)) + " bytes");
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].size() != out.size()) {
      return Status(Code::kInvalidArgument, "input " + std::to_string(i) + " has " + std::to_string(inputs[i].size()) +
                                                " bytes, not " + std::to_string(out.size()));
    }
  }
  if (out.empty()) return Status();
  if (inputs.size() == 1) {
    if (inputs[0].data() != out.data()) std::memcpy(out.data(), inputs[0].data(), out.size());
    return Status();
  }
  const bool streamed = out.size() >= kStreamOutputBytesMin && reinterpret_cast<uintptr_t>(out.data()) % 64 == 0;
  sum_of(type)(inputs, out.data(), out.size(), streamed);
  if (streamed) stream_fence();
  return Status();
}

}  // namespace millrace
