// What linear solvers do with one row of training data. Missing values count as 0. All variants add in one order, so
// that results are the same on every machine.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/training_rows.h"

namespace millrace {

struct RowMath {
  double (*dot)(const TrainingRows& rows, uint64_t row, const double* w);
  double (*square)(const TrainingRows& rows, uint64_t row);
  // w += factor * row
  void (*add)(const TrainingRows& rows, uint64_t row, double factor, double* w);
  void (*prefetch)(const TrainingRows& rows, uint64_t row);
};

// The fastest for this machine.
const RowMath& row_math(bool sparse);

// Orders in which rows are visited: each shuffle() gives the next.
class RowOrder {
 public:
  RowOrder(uint64_t rows, uint64_t seed);
  void shuffle();
  uint64_t operator[](uint64_t i) const { return order_[i]; }

 private:
  uint64_t random();
  std::vector<uint64_t> order_;
  uint64_t state_;
};

// A well mixed number for each `value`, by a finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
inline uint64_t mix64(uint64_t value) {
  value += 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace millrace
