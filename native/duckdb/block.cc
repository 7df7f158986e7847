#include "duckdb/block.h"

#include <algorithm>
#include <bit>
#include <string>

#include "duckdb/utf8.h"

namespace millrace::duckdb {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int64_t kDayMicros = 86'400'000'000, kDayNanos = 86'400'000'000'000;
constexpr uint64_t kTimeTzOffsets = 2 * (16 * 3600 - 1);  // seconds, from the largest offset down

Status corrupt(const char* what) { return Status(Code::kCorrupt, std::string("a block of rows is damaged: ") + what); }

// What is left of a block.
class Parts {
 public:
  explicit Parts(std::span<const uint8_t> bytes) : at_(bytes.data()), left_(bytes.size()) {}
  uint64_t left() const { return left_; }
  // The next `count` items of `width` bytes, padded; null where there are not as many.
  const uint8_t* take(uint64_t count, uint64_t width) {
    if (width != 0 && count > left_ / width) return nullptr;
    const uint64_t bytes = align_up(count * width, kPartAlignment);
    if (bytes > left_) return nullptr;
    const uint8_t* part = at_;
    at_ += bytes;
    left_ -= bytes;
    return part;
  }

 private:
  const uint8_t* at_;
  uint64_t left_;
};

Status open_column(Parts& parts, const ColumnType& type, uint64_t rows, BlockColumn& column) {
  const uint8_t* start = parts.take(1, sizeof(NodeHeader));
  if (start == nullptr) return corrupt("it ends within a column");
  NodeHeader header;
  std::memcpy(&header, start, sizeof(header));
  if (header.shape != type.shape || header.width != type.width || header.has_nulls > 1 || header.zero != 0) {
    return corrupt("a column is of another type");
  }
  column.type = &type;
  column.rows = rows;
  column.extent = header.extent;
  if (header.has_nulls != 0) {
    column.validity = parts.take(validity_bytes(rows), 1);
    if (column.validity == nullptr) return corrupt("it ends within the nulls of a column");
  }
  const bool extends = type.shape == Shape::kString || type.shape == Shape::kList;
  if (extends ? header.extent > kBlockExtentMax : header.extent != 0) return corrupt("a column is of impossible size");
  if (type.shape == Shape::kFixed || extends) {
    column.data = parts.take(rows, extends ? sizeof(uint32_t) : type.width);
    if (column.data == nullptr) return corrupt("it ends within the values of a column");
  }
  if (type.shape == Shape::kString) {
    column.bytes = parts.take(header.extent, 1);
    if (column.bytes == nullptr) return corrupt("it ends within strings");
  }
  uint64_t child_rows = rows;
  if (type.shape == Shape::kList) child_rows = header.extent;
  if (type.shape == Shape::kArray && __builtin_mul_overflow(rows, uint64_t{type.width}, &child_rows)) {
    return corrupt("a column is of impossible size");
  }
  // What takes no bytes itself, as a list of nulls, could claim any number of rows.
  if (child_rows > kBlockExtentMax) return corrupt("a column is of impossible size");
  column.children.resize(type.children.size());
  for (size_t i = 0; i < type.children.size(); ++i) {
    if (Status status = open_column(parts, type.children[i], child_rows, column.children[i]); !status.ok()) {
      return status;
    }
  }
  return Status();
}

Status open_block(std::span<const uint8_t> bytes, const std::vector<ColumnType>& types, uint64_t rows, Block& block) {
  Parts parts(bytes.subspan(sizeof(BlockHeader)));
  block.rows = rows;
  block.columns.resize(types.size());
  for (size_t i = 0; i < types.size(); ++i) {
    if (Status status = open_column(parts, types[i], rows, block.columns[i]); !status.ok()) return status;
  }
  return parts.left() < kBlockAlignment ? Status() : corrupt("it is longer than its columns");
}

template <class T>
T load(const uint8_t* data, uint64_t row) {
  T value;
  std::memcpy(&value, data + row * sizeof(T), sizeof(T));
  return value;
}

// The largest of the values, none of which is negative or it is larger than any.
template <class T>
T largest(const uint8_t* data, uint64_t first, uint64_t end) {
  T most = 0;
  for (uint64_t row = first; row < end; ++row) most = std::max(most, load<T>(data, row));
  return most;
}

bool fixed_holds(const BlockColumn& column, uint64_t first, uint64_t end) {
  const uint8_t* data = column.data;
  switch (column.type->rule) {
    case Rule::kBoolean:
      return largest<uint8_t>(data, first, end) <= 1;
    case Rule::kBelow:
      switch (column.type->width) {
        case 1: return largest<uint8_t>(data, first, end) < column.type->bound;
        case 2: return largest<uint16_t>(data, first, end) < column.type->bound;
        default: return largest<uint32_t>(data, first, end) < column.type->bound;
      }
    case Rule::kTime:
      return largest<uint64_t>(data, first, end) <= kDayMicros;
    case Rule::kTimeNs:
      return largest<uint64_t>(data, first, end) <= kDayNanos;
    case Rule::kTimeTz: {
      bool holds = true;
      for (uint64_t row = first; row < end; ++row) {
        const auto bits = load<uint64_t>(data, row);
        holds &= (bits >> 24) <= kDayMicros && (bits & 0xffffff) <= kTimeTzOffsets;
      }
      return holds;
    }
    default:
      return true;
  }
}

// Whether the ends of the rows ascend and none lies beyond the extent.
bool ends_hold(const BlockColumn& column, uint64_t first, uint64_t end) {
  uint64_t before = column.begin(first);
  bool holds = true;
  for (uint64_t row = first; row < end; ++row) {
    const auto here = load<uint32_t>(column.data, row);
    holds &= before <= here;
    before = here;
  }
  return holds && before <= column.extent;
}

// The first byte says how many bits of the second are padding.
bool bit_holds(const uint8_t* bytes, uint64_t count) {
  if (count < 2 || bytes[0] > 7) return false;
  const unsigned padding = 0xff00u >> bytes[0] & 0xff;
  return (bytes[1] & padding) == padding;
}

// Three bytes of header, then the magnitude; all are inverted where the number is negative.
bool bignum_holds(const uint8_t* bytes, uint64_t count) {
  if (count < 4) return false;
  uint32_t header = uint32_t{bytes[0]} << 16 | uint32_t{bytes[1]} << 8 | bytes[2];
  if ((header & 0x800000) == 0) header = ~header;
  return (header & 0x7fffff) == count - 3;
}

Status strings_hold(const BlockColumn& column, uint64_t first, uint64_t end) {
  switch (column.type->rule) {
    case Rule::kUtf8: {
      const uint64_t from = column.begin(first), to = column.begin(end);
      if (is_ascii(column.bytes + from, to - from)) return Status();
      for (uint64_t row = first; row < end; ++row) {
        const uint64_t at = column.begin(row);
        if (!is_utf8(column.bytes + at, column.begin(row + 1) - at)) return corrupt("text is not UTF-8");
      }
      return Status();
    }
    case Rule::kBit:
    case Rule::kBignum:
      for (uint64_t row = first; row < end; ++row) {
        if (!column.valid(row)) continue;
        const uint64_t at = column.begin(row), count = column.begin(row + 1) - at;
        const uint8_t* bytes = column.bytes + at;
        const bool holds = column.type->rule == Rule::kBit ? bit_holds(bytes, count) : bignum_holds(bytes, count);
        if (!holds) return corrupt("a number of many bits is none");
      }
      return Status();
    default:
      return Status();
  }
}

}  // namespace

Status open_blocks(std::span<const uint8_t> bytes, const std::vector<ColumnType>& types, std::vector<Block>& blocks) {
  while (!bytes.empty()) {
    BlockHeader header;
    if (bytes.size() < sizeof(header)) return corrupt("it ends within its header");
    std::memcpy(&header, bytes.data(), sizeof(header));
    if (header.magic != kBlockMagic || header.version != kBlockVersion || header.zero != 0 || header.zero2 != 0) {
      return corrupt("it does not begin as one");
    }
    if (header.columns != types.size()) return corrupt("it has another number of columns");
    if (header.bytes < sizeof(header) || header.bytes > bytes.size() || header.bytes % kBlockAlignment != 0) {
      return corrupt("it is longer than what is there");
    }
    if (header.rows > kBlockExtentMax) return corrupt("it is of impossible size");
    Block& block = blocks.emplace_back();
    if (Status status = open_block(bytes.first(header.bytes), types, header.rows, block); !status.ok()) return status;
    bytes = bytes.subspan(header.bytes);
  }
  return Status();
}

Status check_rows(const BlockColumn& column, uint64_t first, uint64_t end) {
  MILLRACE_ASSERT(first <= end && end <= column.rows);
  switch (column.type->shape) {
    case Shape::kFixed:
      return fixed_holds(column, first, end) ? Status() : corrupt("a value is out of range");
    case Shape::kString:
      return ends_hold(column, first, end) ? strings_hold(column, first, end) : corrupt("strings lie out of range");
    case Shape::kList:
      if (!ends_hold(column, first, end)) return corrupt("lists lie out of range");
      return check_rows(column.children[0], column.begin(first), column.begin(end));
    case Shape::kArray:
      return check_rows(column.children[0], first * column.type->width, end * column.type->width);
    case Shape::kStruct:
      for (const BlockColumn& child : column.children) {
        if (Status status = check_rows(child, first, end); !status.ok()) return status;
      }
      return Status();
  }
  return Status();
}

}  // namespace millrace::duckdb
