#include "duckdb/collector.h"

#include <algorithm>
#include <cstring>

#include "base/crc32c.h"

namespace millrace::duckdb {
namespace {

// A block ends behind the chunk that takes it over this, so the next one, of whatever size, can begin anew.
constexpr uint64_t kBlockExtentFull = 1 * GiB;
constexpr uint64_t kZerosBytes = 64;
constexpr uint8_t kZeros[kZerosBytes] = {};

// A run of so many rows makes up for what it costs to turn to another partition.
constexpr uint64_t kRunRows = 32;
// Staged rows stay within a processor's own cache.
constexpr uint64_t kStagedRowsMax = 8192;
constexpr uint64_t kStagedStringBytes = 1 * MiB;

// Fewer are staged.
uint64_t worthwhile_rows(uint64_t partitions) { return std::min(kStagedRowsMax, kRunRows * partitions); }

Status too_large(const char* what) {
  return Status(Code::kResourceExhausted, std::string(what) + " of one chunk of rows exceed 3 GiB");
}
constexpr uint64_t kChunkExtentMax = kBlockExtentMax - kBlockExtentFull;

template <uint32_t Width>
struct Bytes {
  uint8_t bytes[Width];
};

template <class T>
void gather(uint8_t* to, const uint8_t* from, const uint32_t* rows, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) std::memcpy(to + i * sizeof(T), from + rows[i] * sizeof(T), sizeof(T));
}

void copy_rows(uint8_t* to, const uint8_t* from, uint32_t width, const Selection& selection) {
  if (selection.rows == nullptr) {
    std::memcpy(to, from + selection.first * width, selection.count * width);
    return;
  }
  switch (width) {
    case 1: return gather<uint8_t>(to, from, selection.rows, selection.count);
    case 2: return gather<uint16_t>(to, from, selection.rows, selection.count);
    case 4: return gather<uint32_t>(to, from, selection.rows, selection.count);
    case 8: return gather<uint64_t>(to, from, selection.rows, selection.count);
    default:
      MILLRACE_ASSERT(width == 16);
      return gather<Bytes<16>>(to, from, selection.rows, selection.count);
  }
}

bool all_valid(const uint64_t* validity, uint64_t rows) {
  uint64_t missing = 0;
  for (uint64_t word = 0; word < rows / 64; ++word) missing |= ~validity[word];
  if (rows % 64 != 0) missing |= ~validity[rows / 64] << (64 - rows % 64);
  return missing == 0;
}

bool has_null(const VectorView& vector, const Selection& selection) {
  if (vector.validity == nullptr) return false;
  for (uint64_t i = 0; i < selection.count; ++i) {
    if (!vector.valid(selection.row(i))) return true;
  }
  return false;
}

// Copies to where the partitions go, with their checksum.
class CrcSink {
 public:
  explicit CrcSink(uint8_t* at) : start_(at), at_(at) {}
  void put(const void* from, uint64_t bytes) {
    if (bytes == 0) return;
    crc_ = copy_crc32c(at_, from, bytes, crc_);
    at_ += bytes;
  }
  void put(const Stream& stream) {
    for (const Stream::Piece& piece : stream.pieces()) put(piece.memory, piece.bytes);
    pad(kPartAlignment);
  }
  // From the start on.
  void pad(uint64_t alignment) { put(kZeros, align_up(bytes(), alignment) - bytes()); }
  uint64_t bytes() const { return static_cast<uint64_t>(at_ - start_); }
  uint32_t crc() const { return crc_; }

 private:
  uint8_t* start_;
  uint8_t* at_;
  uint32_t crc_ = 0;
};

}  // namespace

ColumnRows::ColumnRows(const ColumnType& type) : type_(&type) {
  children_.reserve(type.children.size());
  for (const ColumnType& child : type.children) children_.emplace_back(child);
}

Status ColumnRows::append(Room& room, const VectorView& vector, const Selection& selection) {
  if (selection.count == 0) return Status();
  append_validity(room, vector, selection);
  Status status;
  switch (type_->shape) {
    case Shape::kFixed:
      append_fixed(room, vector, selection);
      break;
    case Shape::kString:
      status = append_strings(room, vector, selection);
      break;
    case Shape::kList:
      status = append_lists(room, vector, selection);
      break;
    case Shape::kArray:
      status = append_arrays(room, vector, selection);
      break;
    case Shape::kStruct:
      for (size_t i = 0; status.ok() && i < children_.size(); ++i) {
        status = children_[i].append(room, vector.children[i], selection);
      }
      break;
  }
  rows_ += selection.count;
  return status;
}

void ColumnRows::flush_word(Room& room) {
  std::memcpy(validity_.reserve(room.arena, sizeof(word_)), &word_, sizeof(word_));
  validity_.commit(sizeof(word_));
  word_ = 0;
}

void ColumnRows::append_validity(Room& room, const VectorView& vector, const Selection& selection) {
  if (!has_nulls_) {
    if (!has_null(vector, selection)) return;
    has_nulls_ = true;
    word_ = ~uint64_t{0};
    for (uint64_t row = 0; row + 64 <= rows_; row += 64) {
      flush_word(room);
      word_ = ~uint64_t{0};
    }
    word_ = rows_ % 64 == 0 ? 0 : word_ >> (64 - rows_ % 64);
  }
  for (uint64_t i = 0; i < selection.count; ++i) {
    const uint64_t bit = (rows_ + i) % 64;
    word_ |= uint64_t{vector.valid(selection.row(i))} << bit;
    if (bit == 63) flush_word(room);
  }
}

void ColumnRows::append_fixed(Room& room, const VectorView& vector, const Selection& selection) {
  const uint32_t width = type_->width;
  const uint64_t bytes = selection.count * width;
  uint8_t* to = data_.reserve(room.arena, bytes);
  copy_rows(to, vector.data, width, selection);
  if (vector.validity != nullptr) {
    // DuckDB leaves anything behind nulls, and the same rows are to be the same bytes.
    for (uint64_t i = 0; i < selection.count; ++i) {
      if (!vector.valid(selection.row(i))) std::memset(to + i * width, 0, width);
    }
  }
  data_.commit(bytes);
}

Status ColumnRows::append_strings(Room& room, const VectorView& vector, const Selection& selection) {
  const auto* values = reinterpret_cast<const StringValue*>(vector.data);
  uint64_t total = 0;
  for (uint64_t i = 0; i < selection.count; ++i) {
    const uint64_t row = selection.row(i);
    if (vector.valid(row)) total += values[row].length;
  }
  if (total > kChunkExtentMax) return too_large("strings");
  auto* ends = reinterpret_cast<uint32_t*>(data_.reserve(room.arena, selection.count * sizeof(uint32_t)));
  // Short strings are copied with what lies behind them in the value.
  uint8_t* to = bytes_.reserve(room.arena, total + kInlinedBytesMax);
  uint64_t end = extent_;
  for (uint64_t i = 0; i < selection.count; ++i) {
    const uint64_t row = selection.row(i);
    if (vector.valid(row)) {
      const StringValue& value = values[row];
      if (value.length <= kInlinedBytesMax) std::memcpy(to, value.prefix, kInlinedBytesMax);
      else std::memcpy(to, value.pointer, value.length);
      to += value.length;
      end += value.length;
    }
    ends[i] = static_cast<uint32_t>(end);
  }
  data_.commit(selection.count * sizeof(uint32_t));
  bytes_.commit(total);
  extend(room, total);
  return Status();
}

Status ColumnRows::append_lists(Room& room, const VectorView& vector, const Selection& selection) {
  const auto* entries = reinterpret_cast<const ListEntry*>(vector.data);
  uint64_t total = 0, next = 0;
  bool adjacent = true;
  for (uint64_t i = 0; i < selection.count; ++i) {
    const uint64_t row = selection.row(i);
    if (!vector.valid(row) || entries[row].length == 0) continue;
    if (total != 0 && entries[row].offset != next) adjacent = false;
    next = entries[row].offset + entries[row].length;
    total += entries[row].length;
  }
  if (total > kChunkExtentMax) return too_large("lists");
  auto* ends = reinterpret_cast<uint32_t*>(data_.reserve(room.arena, selection.count * sizeof(uint32_t)));
  std::vector<uint32_t> rows;
  if (!adjacent) rows.reserve(total);
  uint64_t end = extent_;
  for (uint64_t i = 0; i < selection.count; ++i) {
    const uint64_t row = selection.row(i);
    if (vector.valid(row)) {
      const ListEntry& entry = entries[row];
      end += entry.length;
      if (!adjacent) {
        for (uint64_t j = 0; j < entry.length; ++j) rows.push_back(static_cast<uint32_t>(entry.offset + j));
      }
    }
    ends[i] = static_cast<uint32_t>(end);
  }
  data_.commit(selection.count * sizeof(uint32_t));
  extend(room, total);
  const Selection children =
      adjacent ? Selection{nullptr, next - total, total} : Selection{rows.data(), 0, total};
  return children_[0].append(room, vector.children[0], children);
}

Status ColumnRows::append_arrays(Room& room, const VectorView& vector, const Selection& selection) {
  const uint64_t width = type_->width, total = selection.count * width;
  if (total > kChunkExtentMax) return too_large("arrays");
  extend(room, total);
  if (selection.rows == nullptr) {
    return children_[0].append(room, vector.children[0], {nullptr, selection.first * width, total});
  }
  std::vector<uint32_t> rows(total);
  for (uint64_t i = 0; i < selection.count; ++i) {
    for (uint64_t j = 0; j < width; ++j) rows[i * width + j] = static_cast<uint32_t>(selection.rows[i] * width + j);
  }
  return children_[0].append(room, vector.children[0], {rows.data(), 0, total});
}

void ColumnRows::extend(Room& room, uint64_t by) {
  extent_ += by;
  if (extent_ > kBlockExtentFull) room.full = true;
}

uint64_t ColumnRows::bytes() const {
  uint64_t bytes = sizeof(NodeHeader);
  for (const Stream* stream : {&data_, &bytes_}) bytes += align_up(stream->bytes(), kPartAlignment);
  if (has_nulls_) bytes += validity_bytes(rows_);
  for (const ColumnRows& child : children_) bytes += child.bytes();
  return bytes;
}

template <class Sink>
void ColumnRows::write(Sink& sink) const {
  const bool extends = type_->shape == Shape::kString || type_->shape == Shape::kList;
  const NodeHeader header{type_->shape, has_nulls_, 0, type_->width, extends ? extent_ : 0};
  sink.put(&header, sizeof(header));
  if (has_nulls_) {
    for (const Stream::Piece& piece : validity_.pieces()) sink.put(piece.memory, piece.bytes);
    if (rows_ % 64 != 0) sink.put(&word_, sizeof(word_));
  }
  sink.put(data_);
  sink.put(bytes_);
  for (const ColumnRows& child : children_) child.write(sink);
}

std::optional<std::string_view> ColumnRows::text(uint64_t row) const {
  MILLRACE_ASSERT(type_->shape == Shape::kString && row < rows_);
  if (has_nulls_) {
    uint64_t word = word_;
    if (row / 64 < rows_ / 64) std::memcpy(&word, validity_.at(row / 64 * sizeof(word)), sizeof(word));
    if ((word >> (row % 64) & 1) == 0) return std::nullopt;
  }
  uint32_t begin = 0, end = 0;
  if (row > 0) std::memcpy(&begin, data_.at((row - 1) * sizeof(begin)), sizeof(begin));
  std::memcpy(&end, data_.at(row * sizeof(end)), sizeof(end));
  if (begin == end) return std::string_view();
  return std::string_view(reinterpret_cast<const char*>(bytes_.at(begin)), end - begin);
}

Collector::Collector(const Library& library, std::vector<ColumnType> types, uint32_t partitions)
    : library_(library), types_(std::move(types)), partitions_(partitions) {
  MILLRACE_ASSERT(partitions > 0);
  if (partitions == 1) return;
  share_of_.resize(partitions);
  selected_.resize(kStagedRowsMax + kChunkRows);
  if (StagedRows::can_hold(types_)) staged_.emplace(types_, worthwhile_rows(partitions) + kChunkRows);
}

VectorView Collector::view(Vector vector, const ColumnType& type, uint64_t rows) const {
  VectorView view{&type, static_cast<const uint8_t*>(library_.vector_get_data(vector)),
                  library_.vector_get_validity(vector), {}};
  if (view.validity != nullptr && all_valid(view.validity, rows)) view.validity = nullptr;
  switch (type.shape) {
    case Shape::kList:
      view.children.push_back(this->view(library_.list_vector_get_child(vector), type.children[0],
                                         library_.list_vector_get_size(vector)));
      break;
    case Shape::kArray:
      view.children.push_back(this->view(library_.array_vector_get_child(vector), type.children[0], rows * type.width));
      break;
    case Shape::kStruct:
      for (size_t i = 0; i < type.children.size(); ++i) {
        view.children.push_back(this->view(library_.struct_vector_get_child(vector, i), type.children[i], rows));
      }
      break;
    default:
      break;
  }
  return view;
}

// Counts the rows of each partition and lists them, partition by partition.
Status Collector::select(const uint32_t* numbers, uint64_t rows) {
  for (const Share& share : shares_) share_of_[share.partition] = 0;
  shares_.clear();
  for (uint64_t row = 0; row < rows; ++row) {
    const uint32_t partition = numbers[row];
    if (partition >= partitions_.size()) {
      return Status(Code::kOutOfRange, "a row is for partition " + std::to_string(partition) + " of " +
                                           std::to_string(partitions_.size()));
    }
    if (share_of_[partition] == 0) {
      shares_.push_back({partition, 0, 0});
      share_of_[partition] = static_cast<uint32_t>(shares_.size());
    }
    ++shares_[share_of_[partition] - 1].count;
  }
  uint32_t first = 0;
  for (Share& share : shares_) {
    share.first = first;
    first += share.count;
    share.count = 0;
  }
  for (uint64_t row = 0; row < rows; ++row) {
    Share& share = shares_[share_of_[numbers[row]] - 1];
    selected_[share.first + share.count++] = static_cast<uint32_t>(row);
  }
  return Status();
}

Collector::BlockRows& Collector::filling(PartitionRows& partition) {
  if (partition.blocks.empty() || partition.blocks.back().full) {
    BlockRows& block = partition.blocks.emplace_back();
    block.columns.reserve(types_.size());
    for (const ColumnType& type : types_) block.columns.emplace_back(type);
  }
  return partition.blocks.back();
}

Status Collector::append(Chunk chunk) {
  const uint64_t rows = library_.data_chunk_get_size(chunk);
  if (rows == 0) return Status();
  MILLRACE_ASSERT(rows <= kChunkRows);
  std::vector<VectorView> columns;
  columns.reserve(types_.size());
  for (size_t c = 0; c < types_.size(); ++c) {
    columns.push_back(view(library_.data_chunk_get_vector(chunk, c), types_[c], rows));
  }
  if (partitions_.size() == 1) return scatter(columns, nullptr, rows);
  const Vector vector = library_.data_chunk_get_vector(chunk, types_.size());
  const auto* numbers = static_cast<const uint32_t*>(library_.vector_get_data(vector));
  const uint64_t* validity = library_.vector_get_validity(vector);
  if (validity != nullptr && !all_valid(validity, rows)) {
    return Status(Code::kOutOfRange, "the partition of a row, its last column, is null");
  }
  const uint64_t wanted = worthwhile_rows(partitions_.size());
  if (!staged_ || (staged_->rows() == 0 && rows >= wanted)) return scatter(columns, numbers, rows);
  staged_->append(columns, numbers, rows);
  return staged_->rows() >= wanted || staged_->string_bytes() >= kStagedStringBytes ? finish() : Status();
}

Status Collector::finish() {
  if (!staged_ || staged_->rows() == 0) return Status();
  Status status = scatter(staged_->columns(), staged_->partitions(), staged_->rows());
  staged_->clear();
  return status;
}

Status Collector::scatter(const std::vector<VectorView>& columns, const uint32_t* numbers, uint64_t rows) {
  if (numbers != nullptr) {
    if (Status status = select(numbers, rows); !status.ok()) return status;
  } else {
    shares_.assign(1, {0, 0, static_cast<uint32_t>(rows)});
  }
  blocks_.resize(shares_.size());
  for (size_t i = 0; i < shares_.size(); ++i) {
    blocks_[i] = &filling(partitions_[shares_[i].partition]);
    blocks_[i]->rows += shares_[i].count;
    blocks_[i]->full = blocks_[i]->rows > kBlockExtentFull;
  }
  for (size_t c = 0; c < types_.size(); ++c) {
    for (size_t i = 0; i < shares_.size(); ++i) {
      const uint32_t* selected = numbers != nullptr ? selected_.data() + shares_[i].first : nullptr;
      room_.full = false;
      Status status = blocks_[i]->columns[c].append(room_, columns[c], {selected, 0, shares_[i].count});
      if (!status.ok()) return status;
      blocks_[i]->full |= room_.full;
    }
  }
  rows_ += rows;
  return Status();
}

uint64_t Collector::partition_rows(uint32_t partition) const {
  uint64_t rows = 0;
  for (const BlockRows& block : partitions_[partition].blocks) rows += block.rows;
  return rows;
}

uint64_t Collector::BlockRows::bytes() const {
  uint64_t bytes = sizeof(BlockHeader);
  for (const ColumnRows& column : columns) bytes += column.bytes();
  return align_up(bytes, kBlockAlignment);
}

uint64_t Collector::bytes() const {
  uint64_t bytes = 0;
  for (const PartitionRows& partition : partitions_) {
    for (const BlockRows& block : partition.blocks) bytes += block.bytes();
  }
  return bytes;
}

Result<Written> Collector::write(std::span<uint8_t> into) const {
  const uint64_t needed = bytes();
  if (into.size() < needed) {
    return Status(Code::kOutOfRange, "the rows take " + std::to_string(needed) + " bytes, there is room for " +
                                         std::to_string(into.size()));
  }
  Written written;
  written.offsets.reserve(partitions_.size() + 1);
  written.checksums.reserve(partitions_.size());
  uint64_t at = 0;
  for (const PartitionRows& partition : partitions_) {
    written.offsets.push_back(at);
    CrcSink sink(into.data() + at);
    for (const BlockRows& block : partition.blocks) {
      const BlockHeader header{kBlockMagic, kBlockVersion, 0, static_cast<uint32_t>(types_.size()), 0, block.rows,
                               block.bytes()};
      sink.put(&header, sizeof(header));
      for (const ColumnRows& column : block.columns) column.write(sink);
      sink.pad(kBlockAlignment);
    }
    at += sink.bytes();
    written.checksums.push_back(sink.crc());
  }
  written.offsets.push_back(at);
  MILLRACE_ASSERT(at == needed);
  return written;
}

std::optional<std::string_view> Collector::text(size_t column, uint64_t row) const {
  MILLRACE_ASSERT(column < types_.size());
  for (const BlockRows& block : partitions_[0].blocks) {
    if (row < block.rows) return block.columns[column].text(row);
    row -= block.rows;
  }
  MILLRACE_ASSERT(false);
  return std::nullopt;
}

}  // namespace millrace::duckdb
