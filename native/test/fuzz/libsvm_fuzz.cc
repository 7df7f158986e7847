// Reads bytes as libsvm, twice: what the survey counts must be what fits into the block, and the block must be one.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/assert.h"
#include "kernels/parse_libsvm.h"

using namespace millrace;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint8_t mode = data[0];
  LibsvmOptions options;
  options.index_begin = mode & 1;
  options.skip_beyond = (mode & 2) != 0;
  options.label_optional = (mode & 4) != 0;
  if ((mode & 8) != 0) options.index_end = options.index_begin + data[1];
  // A copy of exactly this size, so that reads beyond it are seen.
  const size_t length = size - 2;
  const auto text = std::make_unique<uint8_t[]>(length);
  std::copy(data + 2, data + size, text.get());
  const LibsvmSurvey survey = survey_libsvm({text.get(), length}, options);
  const auto is_place = [&](const TextFault& fault) { return fault.line >= 1 && fault.line <= survey.lines && fault.column >= 1; };
  MILLRACE_ASSERT(survey.bad.size() <= survey.bad_count);
  MILLRACE_ASSERT(std::all_of(survey.bad.begin(), survey.bad.end(), is_place));
  if (survey.fault.has_value()) {
    MILLRACE_ASSERT(is_place(*survey.fault));
    return 0;
  }
  const uint64_t features = survey.non_zeros == 0 ? 0 : survey.index_highest - options.index_begin + 1;
  const TrainingShape shape{0, survey.rows, features, survey.non_zeros, true};
  auto bytes = training_block_bytes(shape);
  MILLRACE_ASSERT(bytes.ok());
  std::vector<uint64_t> memory(*bytes / 8);
  const std::span<uint8_t> block{reinterpret_cast<uint8_t*>(memory.data()), *bytes};
  MILLRACE_ASSERT(write_libsvm_block({text.get(), length}, options, shape, {}, block).ok());
  MILLRACE_ASSERT(open_training_block(block).ok());
  // A shape that is not the text's is refused and written to nowhere else.
  if (survey.rows > 0) {
    const TrainingShape fewer{0, survey.rows - 1, features, survey.non_zeros / 2, true};
    std::vector<uint64_t> less(*training_block_bytes(fewer) / 8);
    MILLRACE_ASSERT(write_libsvm_block({text.get(), length}, options, fewer, {},
                                       {reinterpret_cast<uint8_t*>(less.data()), less.size() * 8})
                        .code() == Code::kAborted);
  }
  return 0;
}
