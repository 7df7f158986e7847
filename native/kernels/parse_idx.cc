#include "kernels/parse_idx.h"

#include <cstring>
#include <limits>
#include <string>

namespace millrace {
namespace {

uint32_t big_endian(const uint8_t* at) {
  return uint32_t{at[0]} << 24 | uint32_t{at[1]} << 16 | uint32_t{at[2]} << 8 | at[3];
}

Status corrupt(std::string what) { return Status(Code::kCorrupt, std::move(what)); }

template <class Take>
void read_values(const IdxHeader& header, std::span<const uint8_t> bytes, Take take) {
  const uint8_t* at = bytes.data();
  const uint64_t count = bytes.size() / header.value_bytes;
  switch (header.value_bytes) {
    case 1:
      if (header.is_signed) for (uint64_t i = 0; i < count; ++i) take(i, static_cast<int8_t>(at[i]));
      else for (uint64_t i = 0; i < count; ++i) take(i, at[i]);
      return;
    case 2:
      for (uint64_t i = 0; i < count; ++i) take(i, static_cast<int16_t>(at[2 * i] << 8 | at[2 * i + 1]));
      return;
    default:
      for (uint64_t i = 0; i < count; ++i) take(i, static_cast<int32_t>(big_endian(at + 4 * i)));
  }
}

}  // namespace

Result<IdxHeader> parse_idx_header(std::span<const uint8_t> bytes) {
  if (bytes.size() < 4) return corrupt("it is shorter than an IDX header");
  if (bytes[0] != 0 || bytes[1] != 0) return corrupt("it does not begin as IDX does");
  IdxHeader header;
  switch (bytes[2]) {
    case 0x08: header.value_bytes = 1; break;
    case 0x09: header.value_bytes = 1; header.is_signed = true; break;
    case 0x0b: header.value_bytes = 2; header.is_signed = true; break;
    case 0x0c: header.value_bytes = 4; header.is_signed = true; break;
    case 0x0d:
    case 0x0e: return Status(Code::kUnsupported, "its values are no whole numbers, which IDX files of images hold");
    default: return corrupt("its values are of a type that IDX does not have: " + std::to_string(bytes[2]));
  }
  const uint32_t dimensions = bytes[3];
  if (dimensions == 0 || dimensions > kIdxDimensionsMax) {
    return corrupt("it has " + std::to_string(dimensions) + " dimensions, and 1 to " + std::to_string(kIdxDimensionsMax) +
                   " are possible");
  }
  header.header_bytes = 4 + 4 * uint64_t{dimensions};
  if (bytes.size() < header.header_bytes) return corrupt("it is shorter than an IDX header");
  header.values_per_item = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint32_t size = big_endian(bytes.data() + 4 + 4 * i);
    header.dimensions.push_back(size);
    if (i == 0) continue;
    if (size == 0 || header.values_per_item > kTrainingFeaturesMax / size) {
      return corrupt("its items have no size that is possible");
    }
    header.values_per_item *= size;
  }
  return header;
}

Status survey_idx_labels(const IdxHeader& header, std::span<const uint8_t> values, LabelSurvey& survey) {
  if (header.values_per_item != 1) return corrupt("it has several values an item and so no labels");
  if (values.size() % header.value_bytes != 0) return corrupt("it ends within a value");
  read_values(header, values, [&](uint64_t, double value) { survey.add(value); });
  return Status();
}

Status write_idx_block(const TrainingShape& shape, const IdxHeader& header, std::span<const uint8_t> values,
                       const IdxHeader* label_header, std::span<const uint8_t> labels, const LabelCodes& codes,
                       std::span<uint8_t> block) {
  auto bytes = training_block_bytes(shape);
  if (!bytes.ok()) return bytes.status();
  if (shape.sparse || shape.features != header.values_per_item || block.size() != *bytes ||
      values.size() / header.value_bytes != shape.rows * shape.features || values.size() % header.value_bytes != 0) {
    return Status(Code::kInvalidArgument, "the values are not those of the block's rows");
  }
  if (label_header != nullptr &&
      (label_header->values_per_item != 1 || labels.size() != shape.rows * label_header->value_bytes)) {
    return Status(Code::kInvalidArgument, "the labels are not those of the block's rows");
  }
  if (Status failed = codes.check(); !failed.ok()) return failed;
  const TrainingRowsOut out = begin_training_block(shape, block);
  read_values(header, values, [&](uint64_t i, int32_t value) { out.values[i] = static_cast<float>(value); });
  if (label_header == nullptr) {
    for (uint64_t i = 0; i < shape.rows; ++i) out.labels[i] = std::numeric_limits<double>::quiet_NaN();
    return Status();
  }
  Status status;
  read_values(*label_header, labels, [&](uint64_t i, double value) {
    auto code = codes.code_of(value);
    if (code.ok()) out.labels[i] = *code;
    else status = code.status();
  });
  return status;
}

}  // namespace millrace
