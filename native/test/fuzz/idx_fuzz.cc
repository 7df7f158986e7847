// Reads bytes as an IDX file of images and takes its first values for labels too.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/assert.h"
#include "kernels/parse_idx.h"

using namespace millrace;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size, so that reads beyond it are seen.
  const auto file = std::make_unique<uint8_t[]>(size);
  std::copy(data, data + size, file.get());
  auto header = parse_idx_header({file.get(), size});
  if (!header.ok()) return 0;
  MILLRACE_ASSERT(header->header_bytes <= size && header->header_bytes <= kIdxHeaderBytesMax);
  MILLRACE_ASSERT(header->values_per_item >= 1 && header->values_per_item <= kTrainingFeaturesMax);
  const std::span<const uint8_t> values(file.get() + header->header_bytes, size - header->header_bytes);
  LabelSurvey survey;
  const bool labels = survey_idx_labels(*header, values, survey).ok();
  const uint64_t item_bytes = header->values_per_item * header->value_bytes;
  const uint64_t rows = std::min<uint64_t>(header->items(), values.size() / item_bytes);
  const TrainingShape shape{0, rows, header->values_per_item, 0, false};
  auto bytes = training_block_bytes(shape);
  MILLRACE_ASSERT(bytes.ok());
  // Without rows a block has no values, however many a row would have.
  std::vector<uint64_t> memory(*bytes / 8);
  const std::span<uint8_t> block{reinterpret_cast<uint8_t*>(memory.data()), *bytes};
  const std::span<const uint8_t> some = values.first(rows * item_bytes);
  MILLRACE_ASSERT(write_idx_block(shape, *header, some, nullptr, {}, {}, block).ok());
  MILLRACE_ASSERT(open_training_block(block).ok());
  if (labels) MILLRACE_ASSERT(write_idx_block(shape, *header, some, &*header, some, {}, block).ok());
  return 0;
}
