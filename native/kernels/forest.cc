#include "kernels/forest.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <string>

namespace millrace {
namespace {

constexpr uint64_t kBinnedMagic = 0x31636f6c62736e62;  // "bnsbloc1"
constexpr uint64_t kHeaderBytes = 64;
constexpr uint64_t kAlignment = 64;

// 2^64 times the chance that Poisson's distribution of mean 1 gives at most 0, 1, ….
constexpr uint64_t kPoisson[kForestWeightMax] = {
    0x5e2d58d8b3bcdf1a, 0xbc5ab1b16779be35, 0xeb715e1dc1582dc2, 0xfb23979734a252f1,
    0xff1025f59174dc3d, 0xffd90f3ba4055e19, 0xfffa8b71fc72c913, 0xffff540c0914b3c9,
    0xffffed1f4aa8f120, 0xfffffe216e641462, 0xffffffd4d85d3183, 0xfffffffc6da262b4};

uint64_t aligned(uint64_t offset) { return (offset + kAlignment - 1) / kAlignment * kAlignment; }

struct Header {
  uint64_t magic;
  uint64_t first_row;
  uint64_t rows;
  uint64_t features;
  uint64_t classes;
};
static_assert(sizeof(Header) <= kHeaderBytes);

uint64_t label_bytes(uint64_t rows, uint32_t classes) {
  return rows * (classes == 0 ? sizeof(int64_t) : sizeof(uint16_t));
}

}  // namespace

Status check_forest_options(const ForestOptions& options) {
  const auto wrong = [](const char* what) { return Status(Code::kInvalidArgument, std::string("forest: ") + what); };
  if (options.features == 0 || options.features > kForestFeaturesMax) return wrong("features out of range");
  if (options.bins < 2 || options.bins > kForestBinsMax) return wrong("bins out of range");
  if (options.classes > kForestClassesMax) return wrong("too many classes");
  if (options.features_per_node == 0 || options.features_per_node > options.features) {
    return wrong("features of a node out of range");
  }
  if (options.depth_max > kForestDepthMax) return wrong("depth out of range");
  if (options.leaf_min == 0) return wrong("a leaf needs at least one row");
  if (options.categorical.size() != options.features) return wrong("kinds must be as many as features");
  if (!options.class_weights.empty() && options.class_weights.size() != options.classes) {
    return wrong("class weights must be as many as classes");
  }
  for (const double weight : options.class_weights) {
    if (!std::isfinite(weight) || weight <= 0) return wrong("class weights must be above 0");
  }
  return Status();
}

uint32_t Bag::weight(uint64_t row) const {
  if (!bagging_) return 1;
  const uint64_t hash = mix64(key_ + row);
  if (hash < kPoisson[0]) return 0;
  uint32_t weight = 1;
  while (weight < kForestWeightMax && hash >= kPoisson[weight]) ++weight;
  return weight;
}

FeatureDraw::FeatureDraw(const ForestOptions& options)
    : per_round_(options.features_per_node), order_(options.features) {
  std::iota(order_.begin(), order_.end(), 0u);
}

std::span<const uint32_t> FeatureDraw::draw(uint64_t node, uint32_t round) {
  const uint64_t features = order_.size();
  // What was drawn before goes back, last first.
  for (uint64_t i = swaps_.size(); i-- > 0;) std::swap(order_[i], order_[swaps_[i]]);
  swaps_.clear();
  const uint64_t begin = std::min<uint64_t>(features, uint64_t{round} * per_round_);
  const uint64_t end = std::min<uint64_t>(features, begin + per_round_);
  for (uint64_t i = 0; i < end; ++i) {
    const unsigned __int128 product = static_cast<unsigned __int128>(mix64(node + i)) * (features - i);
    const uint64_t other = i + static_cast<uint64_t>(product >> 64);
    std::swap(order_[i], order_[other]);
    swaps_.push_back(static_cast<uint32_t>(other));
  }
  return {order_.data() + begin, end - begin};
}

uint64_t binned_block_bytes(uint64_t rows, uint32_t features, uint32_t classes) {
  return aligned(kHeaderBytes + label_bytes(rows, classes)) + features * aligned(rows);
}

BinnedRowsOut begin_binned_block(uint64_t first_row, uint64_t rows, uint32_t features, uint32_t classes,
                                 std::span<uint8_t> block) {
  MILLRACE_ASSERT(block.size() == binned_block_bytes(rows, features, classes));
  const Header header{kBinnedMagic, first_row, rows, features, classes};
  std::memset(block.data(), 0, kHeaderBytes);
  std::memcpy(block.data(), &header, sizeof(header));
  uint8_t* labels = block.data() + kHeaderBytes;
  return {reinterpret_cast<uint16_t*>(labels), reinterpret_cast<int64_t*>(labels),
          block.data() + aligned(kHeaderBytes + label_bytes(rows, classes)), aligned(rows)};
}

Result<BinnedRows> open_binned_block(const ForestOptions& options, std::span<const uint8_t> block) {
  const auto corrupt = [](const char* what) {
    return Status(Code::kCorrupt, std::string("a block of binned rows ") + what);
  };
  if (block.size() < kHeaderBytes) return corrupt("is shorter than its header");
  if (reinterpret_cast<uintptr_t>(block.data()) % alignof(uint64_t) != 0) {
    return Status(Code::kInvalidArgument, "a block of binned rows must be aligned to 8 bytes");
  }
  Header header;
  std::memcpy(&header, block.data(), sizeof(header));
  if (header.magic != kBinnedMagic) return corrupt("does not begin as one");
  if (header.features != options.features || header.classes != options.classes) {
    return corrupt("has other features or classes");
  }
  if (header.rows > kForestRowsMax || header.first_row > kForestRowsMax) return corrupt("has too many rows");
  if (block.size() != binned_block_bytes(header.rows, options.features, options.classes)) {
    return corrupt("does not have the bytes of its shape");
  }
  BinnedRows rows;
  rows.first_row = header.first_row;
  rows.rows = header.rows;
  rows.features = options.features;
  rows.classes = options.classes;
  const uint8_t* labels = block.data() + kHeaderBytes;
  if (options.regression()) {
    rows.value_labels = reinterpret_cast<const int64_t*>(labels);
  } else {
    rows.class_labels = reinterpret_cast<const uint16_t*>(labels);
    uint16_t most = 0;
    for (uint64_t row = 0; row < rows.rows; ++row) most = std::max(most, rows.class_labels[row]);
    if (most >= options.classes) return corrupt("has a label of no class");
  }
  rows.columns = block.data() + aligned(kHeaderBytes + label_bytes(header.rows, options.classes));
  rows.stride = aligned(header.rows);
  return rows;
}

}  // namespace millrace
