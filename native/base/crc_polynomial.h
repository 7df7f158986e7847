// Arithmetic on the polynomials behind CRCs of 32 and 64 bits, at compile time: lookup tables and folding
// constants are derived here from the polynomial alone, so none is pasted.
//
// Everything is in the reflected form that CRC32C, zlib's CRC-32 and CRC-64/NVME use: the highest bit of a word
// is the coefficient of x^0, bit 0 that of the highest power.
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace millrace::crc {

inline constexpr uint32_t kCastagnoli = 0x82f63b78;  // CRC32C
inline constexpr uint32_t kZlib = 0xedb88320;        // zlib, gzip, PNG, gensort
inline constexpr uint64_t kNvme = 0x9a6c9329ac4bc9b5;  // CRC-64/NVME: 0xad93d23594c93659 reflected

template <std::unsigned_integral Word>
constexpr Word multiply_by_x(Word polynomial, Word value) {
  return (value >> 1) ^ ((value & 1) ? polynomial : 0);
}

// a * b mod P.
template <std::unsigned_integral Word>
constexpr Word multiply(Word polynomial, Word a, Word b) {
  Word product = 0;
  for (int bit = 8 * sizeof(Word) - 1; bit >= 0; --bit) {
    if ((a >> bit) & 1) product ^= b;
    b = multiply_by_x(polynomial, b);
  }
  return product;
}

// x^exponent mod P.
template <std::unsigned_integral Word>
constexpr Word x_power(Word polynomial, uint64_t exponent) {
  Word result = Word{1} << (8 * sizeof(Word) - 1);
  Word square = result >> 1;
  for (; exponent != 0; exponent >>= 1) {
    if (exponent & 1) result = multiply(polynomial, result, square);
    square = multiply(polynomial, square, square);
  }
  return result;
}

// x^(8 * 2^i): what bit i of a length in bytes multiplies by.
template <std::unsigned_integral Word>
constexpr std::array<Word, 64> make_squares(Word polynomial) {
  std::array<Word, 64> squares{};
  squares[0] = x_power(polynomial, 8);
  for (size_t i = 1; i < 64; ++i) squares[i] = multiply(polynomial, squares[i - 1], squares[i - 1]);
  return squares;
}

// The CRC of a followed by b, from those of both and the length of b: a * x^(8 * b_bytes) + b.
template <std::unsigned_integral Word>
Word combine(Word polynomial, const std::array<Word, 64>& squares, Word a, Word b, uint64_t b_bytes) {
  for (size_t bit = 0; b_bytes != 0; ++bit, b_bytes >>= 1) {
    if (b_bytes & 1) a = multiply(polynomial, a, squares[bit]);
  }
  return a ^ b;
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

// The same for a CRC of 64 bits, whose constants have no room to be shifted: the product of two operands of 64
// bits ends one bit below the top of the register.
constexpr uint64_t fold_low(uint64_t polynomial, uint64_t bits) { return x_power(polynomial, bits + 63); }
constexpr uint64_t fold_high(uint64_t polynomial, uint64_t bits) { return x_power(polynomial, bits - 1); }

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
template <std::unsigned_integral Word>
using Tables = std::array<std::array<Word, 256>, 8>;
template <std::unsigned_integral Word>
constexpr Tables<Word> make_tables(Word polynomial) {
  Tables<Word> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    Word value = byte;
    for (int bit = 0; bit < 8; ++bit) value = multiply_by_x(polynomial, value);
    tables[0][byte] = value;
  }
  for (size_t table = 1; table < 8; ++table) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const Word before = tables[table - 1][byte];
      tables[table][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

// Advances a CRC register (already inverted by the caller) over `bytes` bytes.
template <std::unsigned_integral Word>
Word update_by_table(const Tables<Word>& tables, Word state, const uint8_t* data, size_t bytes) {
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t next;
    std::memcpy(&next, data, 8);
    next ^= state;
    state = tables[7][next & 0xff] ^ tables[6][(next >> 8) & 0xff] ^ tables[5][(next >> 16) & 0xff] ^
            tables[4][(next >> 24) & 0xff] ^ tables[3][(next >> 32) & 0xff] ^ tables[2][(next >> 40) & 0xff] ^
            tables[1][(next >> 48) & 0xff] ^ tables[0][next >> 56];
  }
  for (; bytes > 0; ++data, --bytes) state = (state >> 8) ^ tables[0][(state ^ *data) & 0xff];
  return state;
}

}  // namespace millrace::crc
