#include "kernels/sort_entry.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/record.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

// Most-significant-digit radix sort. Digits are taken from the range that the keys of a bucket really span,
// so a partition of a sorted order, or keys under one long common prefix, cost no empty passes; a range
// shrinks at least 32-fold a pass, so a bucket is passed over a bounded number of times whatever the keys.

namespace millrace {
namespace {

// Ten bytes of the key from `depth` on, and what is behind them.
struct Keys {
  const uint8_t* base;
  uint32_t key_bytes;
  uint32_t depth;

  bool longer() const { return key_bytes > depth + kPrefixBytes; }
  const uint8_t* beyond(const SortEntry& entry) const {
    return base + entry.distance() + depth + kPrefixBytes;
  }
};

constexpr uint32_t kInsertionMax = 24;
// A scatter whose output exceeds the cache gathers lines before it writes them.
constexpr uint32_t kStreamCountMin = 1 << 19;
constexpr uint32_t kDigitBitsMax = 12;

template <bool kLonger>
inline bool less(const SortEntry& a, const SortEntry& b, const Keys& keys) {
  if (a.first != b.first) return a.first < b.first;
  if constexpr (kLonger) {
    if (a.second() != b.second()) return a.second() < b.second();
    return std::memcmp(keys.beyond(a), keys.beyond(b), keys.key_bytes - keys.depth - kPrefixBytes) < 0;
  } else {
    return a.rest < b.rest;
  }
}

template <bool kLonger>
void insertion_sort(SortEntry* entries, uint32_t count, const Keys& keys) {
  for (uint32_t i = 1; i < count; ++i) {
    const SortEntry entry = entries[i];
    uint32_t at = i;
    for (; at > 0 && less<kLonger>(entry, entries[at - 1], keys); --at) entries[at] = entries[at - 1];
    entries[at] = entry;
  }
}

struct Range {
  uint64_t low;
  uint64_t high;
};

template <bool kSecond>
inline uint64_t number(const SortEntry& entry) {
  return kSecond ? entry.second() : entry.first;
}

template <bool kSecond>
Range range_of(const SortEntry* entries, uint32_t count) {
  uint64_t low = UINT64_MAX, high = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t value = number<kSecond>(entries[i]);
    low = std::min(low, value);
    high = std::max(high, value);
  }
  return {low, high};
}

// A digit of at most `bits` bits that splits a range.
struct Digit {
  Digit(Range range, uint32_t bits)
      : low(range.low),
        shift(shift_for(range, bits)),
        buckets(static_cast<uint32_t>((range.high - range.low) >> shift) + 1) {}
  template <bool kSecond>
  uint32_t of(const SortEntry& entry) const {
    return static_cast<uint32_t>((number<kSecond>(entry) - low) >> shift);
  }
  static uint32_t shift_for(Range range, uint32_t bits) {
    const auto width = static_cast<uint32_t>(std::bit_width(range.high - range.low));
    return width > bits ? width - bits : 0;
  }
  const uint64_t low;
  const uint32_t shift;
  const uint32_t buckets;
};

// Scatters to positions[bucket]++, collecting a cache line (four entries) a bucket before it is written past
// the cache.
template <bool kSecond>
void scatter_streaming(const SortEntry* from, SortEntry* to, uint32_t count, const Digit& digit,
                       uint32_t* positions) {
  // Its own function, so that its 256 KiB are on the stack only here, where no recursion goes on.
  alignas(64) SortEntry lines[4u << kDigitBitsMax];
  uint32_t starts[1u << kDigitBitsMax];
  std::copy_n(positions, digit.buckets, starts);
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t bucket = digit.of<kSecond>(from[i]);
    const uint32_t position = positions[bucket]++;
    SortEntry* line = lines + size_t{4} * bucket;
    line[position & 3] = from[i];
    if ((position & 3) != 3) continue;
    const uint32_t first = position - 3;
    if (first < starts[bucket]) {  // a line that begins in the bucket before
      for (uint32_t at = starts[bucket]; at <= position; ++at) to[at] = line[at & 3];
      continue;
    }
#if defined(__x86_64__)
    auto* out = reinterpret_cast<__m128i*>(to + first);
    const auto* in = reinterpret_cast<const __m128i*>(line);
    _mm_stream_si128(out, _mm_load_si128(in)), _mm_stream_si128(out + 1, _mm_load_si128(in + 1));
    _mm_stream_si128(out + 2, _mm_load_si128(in + 2)), _mm_stream_si128(out + 3, _mm_load_si128(in + 3));
#else
    std::memcpy(to + first, line, 64);
#endif
  }
  for (uint32_t bucket = 0; bucket < digit.buckets; ++bucket) {
    const uint32_t end = positions[bucket];
    for (uint32_t at = std::max(starts[bucket], end & ~uint32_t{3}); at < end; ++at) {
      to[at] = lines[size_t{4} * bucket + (at & 3)];
    }
  }
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

void sort_range(SortEntry* entries, SortEntry* spare, uint32_t count, bool into_spare, Keys keys);

// All entries agree in ten bytes: go on with the next ten.
void sort_deeper(SortEntry* entries, SortEntry* spare, uint32_t count, bool into_spare, Keys keys) {
  keys.depth += kPrefixBytes;
  const uint32_t left = keys.key_bytes - keys.depth;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t distance = entries[i].distance();
    const uint8_t* key = keys.base + distance + keys.depth;
    entries[i].first = key_word(key, left);
    entries[i].rest = static_cast<uint64_t>(left > 8 ? key_half(key + 8, left - 8) : 0) << 48 | distance;
  }
  sort_range(entries, spare, count, into_spare, keys);
}

struct Bucket {
  uint32_t first;
  uint32_t count;
};

// Scatters entries to `to` by one digit and sorts every bucket but the largest, into `to` where in_to holds,
// else back into `from`. The largest is left in `to` for the caller, whose recursion so never nests deeper
// than the logarithm of the count.
template <bool kSecond>
Bucket split(SortEntry* from, SortEntry* to, uint32_t count, bool in_to, const Keys& keys, Range range) {
  // At most about one entry a bucket: clearing the counts costs less than the insertion sort saves.
  const uint32_t bits = std::min(static_cast<uint32_t>(std::bit_width(count)), kDigitBitsMax);
  const Digit digit(range, bits);
  uint32_t ends[(1u << kDigitBitsMax) + 1];
  std::fill_n(ends, digit.buckets + 1, 0u);
  for (uint32_t i = 0; i < count; ++i) ++ends[digit.of<kSecond>(from[i]) + 1];
  Bucket largest{0, 0};
  for (uint32_t bucket = 0; bucket < digit.buckets; ++bucket) {
    if (ends[bucket + 1] > largest.count) largest = {ends[bucket], ends[bucket + 1]};
    ends[bucket + 1] += ends[bucket];
  }
  // ends[b] is now the first position of bucket b and becomes its end in the scatter.
  if (count >= kStreamCountMin) {
    scatter_streaming<kSecond>(from, to, count, digit, ends);
  } else {
    for (uint32_t i = 0; i < count; ++i) to[ends[digit.of<kSecond>(from[i])]++] = from[i];
  }
  if (largest.count <= kInsertionMax / 2) {
    // Neighbouring buckets are in order already, so one insertion sort over all of them never moves an entry
    // past a bucket's edge.
    if (keys.longer()) {
      insertion_sort<true>(to, count, keys);
    } else {
      insertion_sort<false>(to, count, keys);
    }
    if (!in_to) std::memcpy(from, to, count * sizeof(SortEntry));
    return {0, 0};
  }
  uint32_t first = 0;
  for (uint32_t bucket = 0; bucket < digit.buckets; ++bucket) {
    const uint32_t end = ends[bucket];
    if (end != first && first != largest.first)
      sort_range(to + first, from + first, end - first, !in_to, keys);
    first = end;
  }
  return largest;
}

// Sorts entries[0, count) into spare[0, count) where into_spare holds, else in place.
void sort_range(SortEntry* entries, SortEntry* spare, uint32_t count, bool into_spare, Keys keys) {
  for (;;) {
    if (count <= kInsertionMax) {
      if (keys.longer()) {
        insertion_sort<true>(entries, count, keys);
      } else {
        insertion_sort<false>(entries, count, keys);
      }
      if (into_spare) std::memcpy(spare, entries, count * sizeof(SortEntry));
      return;
    }
    Bucket rest;
    if (const Range range = range_of<false>(entries, count); range.low != range.high) {
      rest = split<false>(entries, spare, count, into_spare, keys, range);
    } else if (const Range second = range_of<true>(entries, count); second.low != second.high) {
      rest = split<true>(entries, spare, count, into_spare, keys, second);
    } else if (keys.longer()) {
      return sort_deeper(entries, spare, count, into_spare, keys);
    } else {
      if (into_spare) std::memcpy(spare, entries, count * sizeof(SortEntry));
      return;
    }
    if (rest.count == 0) return;
    // The largest bucket lies in `spare` now: the two change roles.
    entries += rest.first, spare += rest.first;
    std::swap(entries, spare);
    into_spare = !into_spare;
    count = rest.count;
  }
}

}  // namespace

void sort_entries(SortEntry* entries, SortEntry* spare, uint32_t count, const uint8_t* base,
                  uint32_t key_bytes) {
  sort_range(entries, spare, count, false, Keys{base, key_bytes, 0});
}

}  // namespace millrace
