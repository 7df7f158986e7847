#include "kernels/training_rows.h"

#include <cstring>
#include <string>


namespace millrace {
namespace {

constexpr uint64_t kHeaderBytes = 64;
constexpr uint64_t kAlignment = 64;
constexpr uint64_t kSparse = 1;

struct Header {
  uint64_t magic;
  uint64_t first_row;
  uint64_t rows;
  uint64_t features;
  uint64_t non_zeros;
  uint64_t flags;
};
static_assert(sizeof(Header) <= kHeaderBytes);

// Where the parts lie, in bytes from the start.
struct Layout {
  uint64_t row_ends;
  uint64_t columns;
  uint64_t values;
  uint64_t end;
};

uint64_t aligned(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

// Within the limits no sum here overflows.
bool within_limits(const TrainingShape& shape) {
  if (shape.rows > kTrainingRowsMax || shape.features > kTrainingFeaturesMax) return false;
  if (shape.first_row > kTrainingRowsMax) return false;
  if (shape.sparse) return shape.non_zeros <= uint64_t{1} << 48;
  return shape.non_zeros == 0 && (shape.features == 0 || shape.rows <= (uint64_t{1} << 48) / shape.features);
}

Layout layout_of(const TrainingShape& shape) {
  Layout layout{};
  uint64_t at = aligned(kHeaderBytes + shape.rows * sizeof(double));
  if (shape.sparse) {
    layout.row_ends = at;
    at = aligned(at + shape.rows * sizeof(uint64_t));
    layout.columns = at;
    at = aligned(at + shape.non_zeros * sizeof(uint32_t));
  }
  layout.values = at;
  layout.end = aligned(at + (shape.sparse ? shape.non_zeros : shape.rows * shape.features) * sizeof(float));
  return layout;
}

}  // namespace

Result<uint64_t> training_block_bytes(const TrainingShape& shape) {
  if (!within_limits(shape)) {
    return Status(Code::kOutOfRange, std::to_string(shape.rows) + " rows of " + std::to_string(shape.features) +
                                         " features are more than a block can hold");
  }
  return layout_of(shape).end;
}

TrainingRowsOut begin_training_block(const TrainingShape& shape, std::span<uint8_t> block) {
  const Layout layout = layout_of(shape);
  MILLRACE_ASSERT(block.size() == layout.end);
  const Header header{kTrainingBlockMagic, shape.first_row, shape.rows,
                      shape.features,      shape.non_zeros, shape.sparse ? kSparse : 0};
  std::memset(block.data(), 0, kHeaderBytes);
  std::memcpy(block.data(), &header, sizeof(header));
  uint8_t* base = block.data();
  return {reinterpret_cast<double*>(base + kHeaderBytes), reinterpret_cast<float*>(base + layout.values),
          shape.sparse ? reinterpret_cast<uint64_t*>(base + layout.row_ends) : nullptr,
          shape.sparse ? reinterpret_cast<uint32_t*>(base + layout.columns) : nullptr};
}

Result<TrainingRows> open_training_block(std::span<const uint8_t> block) {
  const auto corrupt = [](const char* what) { return Status(Code::kCorrupt, std::string("a block of rows ") + what); };
  if (block.size() < kHeaderBytes) return corrupt("is shorter than its header");
  if (reinterpret_cast<uintptr_t>(block.data()) % alignof(uint64_t) != 0) {
    return Status(Code::kInvalidArgument, "a block of rows must be aligned to 8 bytes");
  }
  Header header;
  std::memcpy(&header, block.data(), sizeof(header));
  if (header.magic != kTrainingBlockMagic) return corrupt("does not begin as one");
  if (header.flags > kSparse) return corrupt("has unknown flags");
  const TrainingShape shape{header.first_row, header.rows, header.features, header.non_zeros,
                            (header.flags & kSparse) != 0};
  if (!within_limits(shape)) return corrupt("has a shape beyond all limits");
  const Layout layout = layout_of(shape);
  if (block.size() != layout.end) return corrupt("does not have the bytes of its shape");
  const uint8_t* base = block.data();
  TrainingRows rows;
  rows.shape = shape;
  rows.labels = reinterpret_cast<const double*>(base + kHeaderBytes);
  rows.values = reinterpret_cast<const float*>(base + layout.values);
  if (!shape.sparse) return rows;
  rows.row_ends = reinterpret_cast<const uint64_t*>(base + layout.row_ends);
  rows.columns = reinterpret_cast<const uint32_t*>(base + layout.columns);
  uint64_t begin = 0;
  for (uint64_t row = 0; row < shape.rows; ++row) {
    const uint64_t end = rows.row_ends[row];
    if (end < begin || end > shape.non_zeros) return corrupt("has rows that end before they begin");
    for (uint64_t i = begin; i < end; ++i) {
      if (rows.columns[i] >= shape.features) return corrupt("names a column that it does not have");
      if (i > begin && rows.columns[i] <= rows.columns[i - 1]) return corrupt("has columns out of order");
    }
    begin = end;
  }
  if (begin != shape.non_zeros) return corrupt("has values of no row");
  return rows;
}

}  // namespace millrace
