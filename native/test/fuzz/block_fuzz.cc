// Opens bytes as blocks of rows and reads every value that passes the checks, as the table function does. The input
// begins with the types; the header of the first block is repaired now and then, or little would be read beyond it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "duckdb/block.h"

namespace {

using namespace millrace::duckdb;

constexpr size_t kColumnsMax = 6;
constexpr uint32_t kDepthMax = 3;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : at_(data), left_(size) {}
  uint8_t next() {
    if (left_ == 0) return 0;
    --left_;
    return *at_++;
  }
  std::span<const uint8_t> rest() const { return {at_, left_}; }

 private:
  const uint8_t* at_;
  size_t left_;
};

ColumnType make_type(Input& input, uint32_t depth) {
  static constexpr uint32_t kWidths[] = {1, 2, 4, 8, 16};
  const uint8_t kind = input.next();
  const auto fixed = [](uint32_t width, Rule rule, uint32_t bound) {
    return ColumnType{Shape::kFixed, width, rule, bound, {}};
  };
  switch (kind % (depth < kDepthMax ? 9 : 6)) {
    case 0: return fixed(kWidths[input.next() % 5], Rule::kNone, 0);
    case 1: return fixed(1, Rule::kBoolean, 0);
    case 2: return fixed(kWidths[input.next() % 3], Rule::kBelow, 1 + input.next());
    case 3: return fixed(8, static_cast<Rule>(static_cast<int>(Rule::kTime) + input.next() % 3), 0);
    case 4: return {Shape::kString, 0, input.next() % 2 == 0 ? Rule::kUtf8 : Rule::kNone, 0, {}};
    case 5: return {Shape::kString, 0, input.next() % 2 == 0 ? Rule::kBit : Rule::kBignum, 0, {}};
    case 6: return {Shape::kList, 0, Rule::kNone, 0, {make_type(input, depth + 1)}};
    case 7: return {Shape::kArray, 1u + input.next() % 4, Rule::kNone, 0, {make_type(input, depth + 1)}};
    default: return {Shape::kStruct, 0, Rule::kNone, 0, {make_type(input, depth + 1), make_type(input, depth + 1)}};
  }
}

uint64_t sum_of(const uint8_t* bytes, uint64_t count) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; ++i) sum += bytes[i];
  return sum;
}

// Every byte that a reader of the rows would touch.
uint64_t read(const BlockColumn& column, uint64_t first, uint64_t end) {
  uint64_t sum = 0;
  for (uint64_t row = first; row < end; ++row) sum += column.valid(row);
  switch (column.type->shape) {
    case Shape::kFixed:
      return sum + sum_of(column.data + first * column.type->width, (end - first) * column.type->width);
    case Shape::kString:
      for (uint64_t row = first; row < end; ++row) {
        MILLRACE_ASSERT(column.begin(row) <= column.begin(row + 1) && column.begin(row + 1) <= column.extent);
        sum += sum_of(column.bytes + column.begin(row), column.begin(row + 1) - column.begin(row));
      }
      return sum;
    case Shape::kList:
      return sum + read(column.children[0], column.begin(first), column.begin(end));
    case Shape::kArray:
      return sum + read(column.children[0], first * column.type->width, end * column.type->width);
    case Shape::kStruct:
      for (const BlockColumn& child : column.children) sum += read(child, first, end);
      return sum;
  }
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const uint8_t mode = input.next();
  std::vector<ColumnType> types(1 + input.next() % kColumnsMax);
  for (ColumnType& type : types) type = make_type(input, 0);
  // A copy of exactly this size, so that reads beyond it are seen.
  const std::span<const uint8_t> rest = input.rest();
  const auto bytes = std::make_unique<uint8_t[]>(rest.size());
  std::copy(rest.begin(), rest.end(), bytes.get());
  if (mode % 4 != 0 && rest.size() >= sizeof(BlockHeader)) {
    BlockHeader header;
    std::memcpy(&header, bytes.get(), sizeof(header));
    header = {kBlockMagic, kBlockVersion, 0, static_cast<uint32_t>(types.size()), 0, header.rows % 300,
              rest.size() / kBlockAlignment * kBlockAlignment};
    std::memcpy(bytes.get(), &header, sizeof(header));
  }
  std::vector<Block> blocks;
  if (!open_blocks({bytes.get(), rest.size()}, types, blocks).ok()) return 0;
  uint64_t sum = 0;
  for (const Block& block : blocks) {
    for (const BlockColumn& column : block.columns) {
      const uint64_t end = std::min<uint64_t>(block.rows, 2048), first = end / 3;
      if (check_rows(column, first, end).ok()) sum += read(column, first, end);
    }
  }
  volatile uint64_t sink = sum;
  (void)sink;
  return 0;
}
