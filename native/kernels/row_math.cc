#include "kernels/row_math.h"

#include <numeric>
#include <utility>

#include "base/cpu.h"

namespace millrace {
namespace {

constexpr uint64_t kLanes = 8;

// The lanes are added in one order, whatever the registers hold.
inline double total(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// NaN, a missing value, counts as 0.
inline double present(float value) { return value == value ? static_cast<double>(value) : 0.0; }

__attribute__((always_inline)) inline double dot_dense(const TrainingRows& rows, uint64_t row, const double* w) {
  const uint64_t n = rows.shape.features;
  const float* x = rows.values + row * n;
  double lanes[kLanes] = {};
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (uint64_t l = 0; l < kLanes; ++l) lanes[l] += present(x[i + l]) * w[i + l];
  }
  for (uint64_t l = 0; i + l < n; ++l) lanes[l] += present(x[i + l]) * w[i + l];
  return total(lanes);
}

__attribute__((always_inline)) inline double square_dense(const TrainingRows& rows, uint64_t row) {
  const uint64_t n = rows.shape.features;
  const float* x = rows.values + row * n;
  double lanes[kLanes] = {};
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (uint64_t l = 0; l < kLanes; ++l) lanes[l] += present(x[i + l]) * present(x[i + l]);
  }
  for (uint64_t l = 0; i + l < n; ++l) lanes[l] += present(x[i + l]) * present(x[i + l]);
  return total(lanes);
}

__attribute__((always_inline)) inline void add_dense(const TrainingRows& rows, uint64_t row, double factor, double* w) {
  const uint64_t n = rows.shape.features;
  const float* x = rows.values + row * n;
  for (uint64_t i = 0; i < n; ++i) w[i] += factor * present(x[i]);
}

void prefetch_dense(const TrainingRows& rows, uint64_t row) {
  const float* x = rows.values + row * rows.shape.features;
  // The hardware goes on from here by itself.
  for (uint64_t i = 0; i < rows.shape.features && i < 64; i += 16) __builtin_prefetch(x + i);
}

double dot_sparse(const TrainingRows& rows, uint64_t row, const double* w) {
  double sum = 0;
  for (uint64_t i = rows.row_begin(row); i < rows.row_ends[row]; ++i) {
    sum += present(rows.values[i]) * w[rows.columns[i]];
  }
  return sum;
}

double square_sparse(const TrainingRows& rows, uint64_t row) {
  double sum = 0;
  for (uint64_t i = rows.row_begin(row); i < rows.row_ends[row]; ++i) {
    sum += present(rows.values[i]) * present(rows.values[i]);
  }
  return sum;
}

void add_sparse(const TrainingRows& rows, uint64_t row, double factor, double* w) {
  for (uint64_t i = rows.row_begin(row); i < rows.row_ends[row]; ++i) {
    w[rows.columns[i]] += factor * present(rows.values[i]);
  }
}

void prefetch_sparse(const TrainingRows& rows, uint64_t row) {
  const uint64_t begin = rows.row_begin(row);
  __builtin_prefetch(rows.columns + begin);
  __builtin_prefetch(rows.values + begin);
}

double dot_portable(const TrainingRows& rows, uint64_t row, const double* w) { return dot_dense(rows, row, w); }
double square_portable(const TrainingRows& rows, uint64_t row) { return square_dense(rows, row); }
void add_portable(const TrainingRows& rows, uint64_t row, double factor, double* w) { add_dense(rows, row, factor, w); }

constexpr RowMath kSparseMath{dot_sparse, square_sparse, add_sparse, prefetch_sparse};
constexpr RowMath kPortableMath{dot_portable, square_portable, add_portable, prefetch_dense};

#if defined(__x86_64__)

// Without fused multiply-add, which would round otherwise.
#define MILLRACE_AVX2 __attribute__((target("avx2")))
MILLRACE_AVX2 double dot_avx2(const TrainingRows& rows, uint64_t row, const double* w) {
  return dot_dense(rows, row, w);
}
MILLRACE_AVX2 double square_avx2(const TrainingRows& rows, uint64_t row) { return square_dense(rows, row); }
MILLRACE_AVX2 void add_avx2(const TrainingRows& rows, uint64_t row, double factor, double* w) {
  add_dense(rows, row, factor, w);
}
constexpr RowMath kAvx2Math{dot_avx2, square_avx2, add_avx2, prefetch_dense};

#endif

}  // namespace

const RowMath& row_math(bool sparse) {
  if (sparse) return kSparseMath;
#if defined(__x86_64__)
  if (simd_level() >= SimdLevel::kAvx512) return kAvx2Math;  // which every such machine has
#endif
  return kPortableMath;
}

RowOrder::RowOrder(uint64_t rows, uint64_t seed) : order_(rows), state_(mix64(seed)) {
  std::iota(order_.begin(), order_.end(), uint64_t{0});
}

uint64_t RowOrder::random() { return mix64(state_++); }

void RowOrder::shuffle() {
  for (uint64_t i = order_.size(); i > 1; --i) {
    const auto j = static_cast<uint64_t>((static_cast<unsigned __int128>(random()) * i) >> 64);
    std::swap(order_[i - 1], order_[j]);
  }
}

}  // namespace millrace
