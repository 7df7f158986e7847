// The text format of libsvm and svmlight, a row a line: `label index:value index:value ... # comment`, the indices
// ascending. `qid:number` behind the label is skipped, and so are lines that are empty or nothing but a comment.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/labels.h"
#include "kernels/training_rows.h"

namespace millrace {

// Features of a table of rows in text: there is a name for each.
inline constexpr uint64_t kLibsvmIndexMax = 1 << 24;
// Bad rows that are named; the others are counted.
inline constexpr uint64_t kBadRowsNamed = 100;

struct LibsvmOptions {
  // Indices that a row may have: from `index_begin` to below `index_end`.
  uint64_t index_begin = 0;
  uint64_t index_end = kLibsvmIndexMax + 1;
  bool skip_beyond = false;      // indices above are skipped, and no fault
  bool label_optional = false;  // a row without a label has NaN
};

// A place in text, from 1, and what is wrong there.
struct TextFault {
  uint64_t line = 0;
  uint64_t column = 0;
  std::string why;
};

struct LibsvmSurvey {
  uint64_t lines = 0;  // all of them
  uint64_t rows = 0;   // good ones
  uint64_t non_zeros = 0;
  // Of the values counted above, where there are any.
  uint64_t index_lowest = UINT64_MAX;
  uint64_t index_highest = 0;
  LabelSurvey labels;
  // Rows with a label that is missing or no number, or with a value that is not finite.
  uint64_t bad_count = 0;
  std::vector<TextFault> bad;
  // Where the text is no libsvm; nothing behind it was read.
  std::optional<TextFault> fault;
};

LibsvmSurvey survey_libsvm(std::span<const uint8_t> text, const LibsvmOptions& options);

// Makes the block of all good rows of the text, which must be as many as the survey of the same text found. Column 0 is
// the index `options.index_begin`. ABORTED where the text is another.
Status write_libsvm_block(std::span<const uint8_t> text, const LibsvmOptions& options, const TrainingShape& shape,
                          const LabelCodes& codes, std::span<uint8_t> block);

}  // namespace millrace
