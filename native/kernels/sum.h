// The sum of arrays of numbers, element by element: what an all-reduce does to the contributions of its members.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace millrace {

enum class SumType : uint8_t { kFloat32, kFloat64, kInt32, kInt64 };

// 4 or 8 bytes.
uint32_t sum_element_bytes(SumType type);

// Writes ((inputs[0] + inputs[1]) + inputs[2]) + ... to `out`, of each element in that very order, so that the result
// is the same bit for bit wherever it is computed. Integers wrap around; a sum that is not a number becomes the one
// canonical NaN. Of one input it is a copy. All have the bytes of `out`, which may be one of the inputs, whole, but
// must not overlap any otherwise. Nothing has to be aligned.
Status sum_arrays(SumType type, std::span<const std::span<const uint8_t>> inputs, std::span<uint8_t> out);

}  // namespace millrace
