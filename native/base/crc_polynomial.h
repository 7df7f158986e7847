// Arithmetic on the polynomials behind CRC-32, at compile time: lookup tables and folding constants are
// derived here from the polynomial alone, so none is pasted.
//
// Everything is in the reflected form that both CRC32C and zlib's CRC-32 use: bit 31 of a uint32_t is the
// coefficient of x^0, bit 0 that of x^31.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace millrace::crc {

inline constexpr uint32_t kCastagnoli = 0x82f63b78;  // CRC32C
inline constexpr uint32_t kZlib = 0xedb88320;        // zlib, gzip, PNG, gensort

constexpr uint32_t multiply_by_x(uint32_t polynomial, uint32_t value) {
  return (value >> 1) ^ ((value & 1) ? polynomial : 0);
}

// a * b mod P.
constexpr uint32_t multiply(uint32_t polynomial, uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (int bit = 31; bit >= 0; --bit) {
    if ((a >> bit) & 1) product ^= b;
    b = multiply_by_x(polynomial, b);
  }
  return product;
}

// x^exponent mod P.
constexpr uint32_t x_power(uint32_t polynomial, uint64_t exponent) {
  uint32_t result = 0x80000000;
  uint32_t square = 0x40000000;
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) result = multiply(polynomial, result, square);
    square = multiply(polynomial, square, square);
  }
  return result;
}

// A multiplicand for carry-less multiplication. The product of two reflected operands comes out one bit low,
// hence the shift.
constexpr uint64_t fold_constant(uint32_t polynomial, uint64_t exponent) {
  return static_cast<uint64_t>(x_power(polynomial, exponent)) << 1;
}

// The two constants that move 128 bits of message forward by `bits`: for the low half, which is 64 bits
// further from the end, and for the high half. Both are 32 lower than plain counting suggests because the
// product of 64 and 33 bits ends 32 bits below the top of the register.
constexpr uint64_t fold_low(uint32_t polynomial, uint64_t bits) {
  return fold_constant(polynomial, bits + 32);
}
constexpr uint64_t fold_high(uint32_t polynomial, uint64_t bits) {
  return fold_constant(polynomial, bits - 32);
}

// The 33-bit polynomial, and floor(x^64 / P), for Barrett reduction.
constexpr uint64_t barrett_polynomial(uint32_t polynomial) {
  return (static_cast<uint64_t>(polynomial) << 1) | 1;
}
constexpr uint64_t barrett_quotient(uint32_t polynomial) {
  // Long division of x^64 by P, most significant coefficient first; the quotient is collected in reflected
  // order, which puts its first coefficient (x^32) in bit 0.
  uint64_t quotient = 0;
  uint32_t remainder = 0;
  for (int step = 0; step <= 64; ++step) {
    const bool carry = remainder & 1;
    remainder >>= 1;
    if (step == 0) remainder |= 0x80000000;
    if (carry) remainder ^= polynomial;
    if (step >= 32 && carry) quotient |= uint64_t{1} << (step - 32);
  }
  return quotient;
}

static_assert(fold_low(kZlib, 512) == 0x0154442bd4, "published constant of zlib's folding");
static_assert(fold_high(kZlib, 512) == 0x01c6e41596, "published constant of zlib's folding");
static_assert(barrett_quotient(kZlib) == 0x01f7011641, "published constant of zlib's folding");

// Tables for eight bytes a step ("slicing by 8").
using Tables = std::array<std::array<uint32_t, 256>, 8>;
constexpr Tables make_tables(uint32_t polynomial) {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = multiply_by_x(polynomial, value);
    tables[0][byte] = value;
  }
  for (size_t table = 1; table < 8; ++table) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[table - 1][byte];
      tables[table][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

// Advances a CRC register (already inverted by the caller) over `bytes` bytes.
inline uint32_t update_by_table(const Tables& tables, uint32_t state, const uint8_t* data, size_t bytes) {
  for (; bytes >= 8; data += 8, bytes -= 8) {
    const uint32_t low =
        state ^ (static_cast<uint32_t>(data[0]) | static_cast<uint32_t>(data[1]) << 8 |
                 static_cast<uint32_t>(data[2]) << 16 | static_cast<uint32_t>(data[3]) << 24);
    state = tables[7][low & 0xff] ^ tables[6][(low >> 8) & 0xff] ^ tables[5][(low >> 16) & 0xff] ^
            tables[4][low >> 24] ^ tables[3][data[4]] ^ tables[2][data[5]] ^ tables[1][data[6]] ^
            tables[0][data[7]];
  }
  for (; bytes > 0; ++data, --bytes) state = (state >> 8) ^ tables[0][(state ^ *data) & 0xff];
  return state;
}

}  // namespace millrace::crc
