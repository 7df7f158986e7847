#include "duckdb/staged_rows.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "duckdb/library.h"

namespace millrace::duckdb {

bool StagedRows::can_hold(const std::vector<ColumnType>& types) {
  return std::all_of(types.begin(), types.end(), [](const ColumnType& type) {
    return type.shape == Shape::kFixed || type.shape == Shape::kString;
  });
}

StagedRows::StagedRows(const std::vector<ColumnType>& types, uint64_t capacity) : partitions_(capacity) {
  MILLRACE_ASSERT(can_hold(types));
  columns_.reserve(types.size());
  for (const ColumnType& type : types) {
    const uint32_t width = type.shape == Shape::kString ? uint32_t{sizeof(StringValue)} : type.width;
    columns_.push_back({&type, width, std::vector<uint8_t>(capacity * width), std::vector<uint64_t>(capacity / 64 + 1)});
  }
}

void StagedRows::append(const std::vector<VectorView>& columns, const uint32_t* partitions, uint64_t rows) {
  MILLRACE_ASSERT(rows <= partitions_.size() - rows_ && columns.size() == columns_.size());
  std::memcpy(partitions_.data() + rows_, partitions, rows * sizeof(uint32_t));
  for (size_t c = 0; c < columns.size(); ++c) {
    Column& column = columns_[c];
    append_validity(column, columns[c], rows);
    if (column.type->shape == Shape::kString) append_strings(column, columns[c], rows);
    else std::memcpy(column.data.data() + rows_ * column.width, columns[c].data, rows * column.width);
  }
  rows_ += rows;
}

void StagedRows::append_validity(Column& column, const VectorView& vector, uint64_t rows) {
  if (!column.has_nulls) {
    if (vector.validity == nullptr) return;
    column.has_nulls = true;
    std::fill(column.validity.begin(), column.validity.end(), ~uint64_t{0});
  }
  if (vector.validity == nullptr) return;
  for (uint64_t row = 0; row < rows; ++row) {
    if (!vector.valid(row)) column.validity[(rows_ + row) / 64] &= ~(uint64_t{1} << (rows_ + row) % 64);
  }
}

void StagedRows::append_strings(Column& column, const VectorView& vector, uint64_t rows) {
  const auto* from = reinterpret_cast<const StringValue*>(vector.data);
  auto* into = reinterpret_cast<StringValue*>(column.data.data()) + rows_;
  uint64_t total = 0;
  for (uint64_t row = 0; row < rows; ++row) {
    // Anything may stand behind a null.
    into[row] = vector.valid(row) ? from[row] : StringValue{};
    if (into[row].length > kInlinedBytesMax) total += into[row].length;
  }
  if (total == 0) return;
  if (!strings_) strings_.emplace();
  uint8_t* to = strings_->take(total);
  for (uint64_t row = 0; row < rows; ++row) {
    StringValue& value = into[row];
    if (value.length <= kInlinedBytesMax) continue;
    std::memcpy(to, value.pointer, value.length);
    value.pointer = to;
    to += value.length;
  }
  string_bytes_ += total;
}

std::vector<VectorView> StagedRows::columns() const {
  std::vector<VectorView> views;
  views.reserve(columns_.size());
  for (const Column& column : columns_) {
    views.push_back({column.type, column.data.data(), column.has_nulls ? column.validity.data() : nullptr, {}});
  }
  return views;
}

void StagedRows::clear() {
  rows_ = 0;
  string_bytes_ = 0;
  strings_.reset();
  for (Column& column : columns_) column.has_nulls = false;
}

}  // namespace millrace::duckdb
