// Labels of training data: which values there are, and which class each of them is.
#pragma once
#include <cstdint>
#include <span>
#include <unordered_set>
#include <vector>

#include "base/status.h"

namespace millrace {

// Distinct labels that are told apart; with more of them they are numbers and no classes.
inline constexpr uint64_t kDistinctLabelsMax = 10'000;

// Gathers which labels there are.
class LabelSurvey {
 public:
  void add(double label);
  bool all_whole() const { return all_whole_; }
  bool too_many() const { return too_many_; }
  // Ascending; none where there are too many.
  std::vector<double> distinct() const;

 private:
  std::unordered_set<double> seen_;
  double last_ = 0;
  bool any_ = false;
  bool all_whole_ = true;
  bool too_many_ = false;
};

// What becomes of a label: itself, or the code of its value.
struct LabelCodes {
  bool as_is = true;
  std::span<const double> values;  // ascending
  std::span<const double> codes;   // as many

  // CORRUPT where the values do not ascend or have no codes each.
  Status check() const;
  // NOT_FOUND where it is none of the values.
  Result<double> code_of(double label) const;
};

}  // namespace millrace
