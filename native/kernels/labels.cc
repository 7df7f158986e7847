#include "kernels/labels.h"

#include <algorithm>
#include <cmath>
#include <string>

namespace millrace {

void LabelSurvey::add(double label) {
  // Labels often come in runs.
  if (any_ && label == last_) return;
  any_ = true;
  last_ = label;
  if (label != std::floor(label)) all_whole_ = false;
  if (too_many_) return;
  seen_.insert(label == 0 ? 0.0 : label);
  if (seen_.size() > kDistinctLabelsMax) {
    too_many_ = true;
    seen_.clear();
  }
}

std::vector<double> LabelSurvey::distinct() const {
  std::vector<double> values(seen_.begin(), seen_.end());
  std::sort(values.begin(), values.end());
  return values;
}

Status LabelCodes::check() const {
  if (as_is) return Status();
  if (values.size() != codes.size()) return Status(Code::kInvalidArgument, "every label needs a code");
  for (size_t i = 1; i < values.size(); ++i) {
    if (!(values[i - 1] < values[i])) return Status(Code::kInvalidArgument, "labels must ascend");
  }
  return Status();
}

Result<double> LabelCodes::code_of(double label) const {
  if (as_is) return label;
  const auto at = std::lower_bound(values.begin(), values.end(), label);
  if (at == values.end() || *at != label) {
    return Status(Code::kNotFound, "there is a label " + std::to_string(label) + " that was not there before");
  }
  return codes[static_cast<size_t>(at - values.begin())];
}

}  // namespace millrace
