#include "kernels/sum.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "test/kernels_support.h"

namespace millrace::test {
namespace {

class SumTest : public SeededTest {
 protected:
  template <typename T>
  std::vector<T> numbers(size_t count) {
    std::vector<T> numbers(count);
    for (T& number : numbers) {
      if constexpr (std::is_floating_point_v<T>) {
        // Of all magnitudes, so that another order gives another sum; some are not finite.
        const uint64_t kind = below(50);
        const T sign = below(2) == 0 ? T{1} : T{-1};
        number = kind == 0   ? sign * std::numeric_limits<T>::infinity()
                 : kind == 1 ? std::copysign(std::numeric_limits<T>::quiet_NaN(), sign)
                 : kind == 2 ? sign * T{0}
                             : sign * std::ldexp(static_cast<T>(1 + below(1 << 20)), static_cast<int>(below(60)) - 30);
      } else {
        number = static_cast<T>(random_());
      }
    }
    return numbers;
  }

  template <typename T>
  static std::vector<T> reference(const std::vector<std::vector<T>>& inputs) {
    std::vector<T> sums = inputs[0];
    for (size_t input = 1; input < inputs.size(); ++input) {
      for (size_t i = 0; i < sums.size(); ++i) {
        if constexpr (std::is_floating_point_v<T>) {
          volatile T sum = sums[i] + inputs[input][i];
          sums[i] = std::isnan(sum) ? std::numeric_limits<T>::quiet_NaN() : sum;
        } else {
          sums[i] = static_cast<T>(static_cast<std::make_unsigned_t<T>>(sums[i]) +
                                   static_cast<std::make_unsigned_t<T>>(inputs[input][i]));
        }
      }
    }
    return sums;
  }

  template <typename T>
  void agrees(SumType type, size_t count, size_t arrays) {
    std::vector<std::vector<T>> inputs;
    for (size_t i = 0; i < arrays; ++i) inputs.push_back(numbers<T>(count));
    const std::vector<T> expected = reference(inputs);
    const size_t bytes = count * sizeof(T);
    // At addresses of any kind, as objects in segments have them.
    std::vector<Bytes> stored;
    std::vector<std::span<const uint8_t>> spans;
    for (const std::vector<T>& input : inputs) {
      const size_t shift = below(64);
      Bytes& copy = stored.emplace_back(bytes + 64);
      if (bytes > 0) std::memcpy(copy.data() + shift, input.data(), bytes);
      spans.emplace_back(copy.data() + shift, bytes);
    }
    for (SimdLevel level : levels()) {
      set_simd_level(level);
      Bytes out(bytes + 128, 0xa5);
      const size_t shift = below(2) == 0 ? 64 - reinterpret_cast<uintptr_t>(out.data()) % 64 : below(64);
      ASSERT_TRUE(sum_arrays(type, spans, std::span(out).subspan(shift, bytes)).ok());
      if (bytes > 0) {
        ASSERT_EQ(std::memcmp(out.data() + shift, expected.data(), bytes), 0)
            << simd_level_name(level) << " count " << count << " arrays " << arrays;
      }
      for (size_t i = 0; i < out.size(); ++i) {
        if (i < shift || i >= shift + bytes) {
          ASSERT_EQ(out[i], 0xa5);
        }
      }
    }
  }

  void all_types_agree(size_t count, size_t arrays) {
    agrees<float>(SumType::kFloat32, count, arrays);
    agrees<double>(SumType::kFloat64, count, arrays);
    agrees<int32_t>(SumType::kInt32, count, arrays);
    agrees<int64_t>(SumType::kInt64, count, arrays);
  }
};

TEST_F(SumTest, AgreesWithAdditionInOrder) {
  for (size_t arrays = 1; arrays <= 9; ++arrays) {
    for (size_t count = 0; count < 20; ++count) all_types_agree(count, arrays);
    all_types_agree(1000 + below(5000), arrays);
  }
  for (int round = 0; round < 50; ++round) all_types_agree(below(10'000), 1 + below(40));
}

TEST_F(SumTest, LargeSumsGoPastTheCache) { all_types_agree((4 << 20) / 4 + 37, 3); }

TEST_F(SumTest, OrderMatters) {
  const std::vector<float> large{1e8f}, small{1.0f}, negative{-1e8f};
  const auto bytes = [](const std::vector<float>& numbers) {
    return std::span(reinterpret_cast<const uint8_t*>(numbers.data()), 4);
  };
  float out = 0;
  const std::span<uint8_t> to(reinterpret_cast<uint8_t*>(&out), 4);
  ASSERT_TRUE(sum_arrays(SumType::kFloat32, std::vector{bytes(large), bytes(small), bytes(negative)}, to).ok());
  EXPECT_EQ(out, 0.0f);
  ASSERT_TRUE(sum_arrays(SumType::kFloat32, std::vector{bytes(large), bytes(negative), bytes(small)}, to).ok());
  EXPECT_EQ(out, 1.0f);
}

TEST_F(SumTest, SumsIntoItsFirstInput) {
  std::vector<std::vector<int64_t>> inputs{numbers<int64_t>(5000), numbers<int64_t>(5000), numbers<int64_t>(5000)};
  const std::vector<int64_t> expected = reference(inputs);
  std::vector<std::span<const uint8_t>> spans;
  for (const auto& input : inputs) spans.emplace_back(reinterpret_cast<const uint8_t*>(input.data()), 40'000);
  const std::span<uint8_t> out(reinterpret_cast<uint8_t*>(inputs[0].data()), 40'000);
  ASSERT_TRUE(sum_arrays(SumType::kInt64, spans, out).ok());
  EXPECT_EQ(inputs[0], expected);
}

TEST_F(SumTest, RefusesWhatDoesNotFit) {
  const Bytes eight(8), nine(9), four(4);
  Bytes out(8), odd(9);
  const std::vector<std::span<const uint8_t>> none, unequal{eight, four}, longer{nine};
  EXPECT_EQ(sum_arrays(SumType::kInt32, none, out).code(), Code::kInvalidArgument);
  EXPECT_EQ(sum_arrays(SumType::kInt32, unequal, out).code(), Code::kInvalidArgument);
  EXPECT_EQ(sum_arrays(SumType::kFloat64, longer, odd).code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace millrace::test
