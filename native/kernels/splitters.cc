#include "kernels/splitters.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/crc32c.h"
#include "base/limits.h"
#include "kernels/sort.h"

namespace millrace {
namespace {

// The serialised form, little-endian: this header, the keys, the ties (four uint32_t each).
struct Header {
  uint32_t magic;
  uint32_t crc32c;  // of everything behind this field
  uint32_t key_bytes;
  uint32_t partitions;
  uint32_t ties;
};
static_assert(sizeof(Header) == 20 && sizeof(Splitters::Tie) == 16);
constexpr uint32_t kMagic = 0x3153524d;  // "MRS1"
constexpr size_t kChecksummedFrom = 8;

// A key that holds less than this part of a partition is left whole: dealing it out would gain nothing.
constexpr double kTieShareMin = 1.0 / 16;
// With this many samples a partition, sampled keys themselves are good splitters.
constexpr uint64_t kSamplesPerPartitionMin = 4;

void store_prefix(uint64_t prefix, uint8_t* key, uint32_t key_bytes) {
  std::memset(key, 0, key_bytes);
  for (uint32_t i = 0; i < 8 && i < key_bytes; ++i) key[i] = static_cast<uint8_t>(prefix >> (56 - 8 * i));
}

// Sorted sample keys, with the questions that choosing splitters asks of them.
class Samples {
 public:
  Samples(std::vector<uint8_t> keys, uint32_t key_bytes)
      : keys_(std::move(keys)), key_bytes_(key_bytes), count_(keys_.size() / key_bytes) {}

  uint64_t count() const { return count_; }
  const uint8_t* key(uint64_t i) const { return keys_.data() + i * key_bytes_; }
  uint64_t prefix(uint64_t i) const { return key_word(key(i), key_bytes_); }
  bool same(uint64_t i, uint64_t j) const { return std::memcmp(key(i), key(j), key_bytes_) == 0; }

  // The number of samples below `wanted`, or not above it.
  uint64_t below(const uint8_t* wanted) const { return bound(wanted, 0); }
  uint64_t not_above(const uint8_t* wanted) const { return bound(wanted, 1); }

  // The key below which `part` of `parts` of the input are expected.
  void quantile(uint64_t part, uint64_t parts, uint8_t* out) const {
    if (count_ >= parts * kSamplesPerPartitionMin) {
      std::memcpy(out, key(part * count_ / parts), key_bytes_);
      return;
    }
    // n samples cut the key space into n + 1 stretches of equal weight, each taken as evenly filled.
    const uint64_t scaled = part * (count_ + 1);
    const uint64_t stretch = scaled / parts;
    const double into = static_cast<double>(scaled % parts) / static_cast<double>(parts);
    const uint64_t low = stretch == 0 ? 0 : prefix(stretch - 1);
    const uint64_t high = stretch == count_ ? UINT64_MAX : prefix(stretch);
    const bool inside = stretch != 0 && stretch != count_;
    if (inside && low == high) {
      std::memcpy(out, key(stretch), key_bytes_);
      return;
    }
    if (into == 0 && stretch != 0) {
      std::memcpy(out, key(stretch - 1), key_bytes_);
      return;
    }
    const auto step = static_cast<uint64_t>(into * std::ldexp(static_cast<double>(high - low), -1)) * 2;
    store_prefix(low + std::min(step, high - low), out, key_bytes_);
    // A prefix cut to `low` may have fallen below the sample that has it.
    if (stretch != 0 && std::memcmp(out, key(stretch - 1), key_bytes_) < 0) {
      std::memcpy(out, key(stretch - 1), key_bytes_);
    }
  }

 private:
  uint64_t bound(const uint8_t* wanted, int most) const {
    uint64_t low = 0, high = count_;
    while (low < high) {
      const uint64_t middle = low + (high - low) / 2;
      if (std::memcmp(key(middle), wanted, key_bytes_) < most) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  std::vector<uint8_t> keys_;
  uint32_t key_bytes_;
  uint64_t count_;
};

// Without a sample: the whole key space where it is small (so that repeated splitters are seen as ties), else
// nothing, which divides the space evenly.
std::vector<uint8_t> default_samples(uint32_t key_bytes, uint32_t partitions) {
  if (key_bytes > 2 || partitions < 2) return {};
  const uint32_t keys = key_bytes == 1 ? 256 : 65536;
  std::vector<uint8_t> samples;
  for (uint32_t copy = 0; copy < kSamplesPerPartitionMin * partitions; copy += keys) {
    for (uint32_t i = 0; i < keys; ++i) {
      if (key_bytes == 2) samples.push_back(static_cast<uint8_t>(i >> 8));
      samples.push_back(static_cast<uint8_t>(i));
    }
  }
  return samples;
}

}  // namespace

Result<Splitters> Splitters::choose(RecordLayout layout, std::span<const uint8_t> sample_keys,
                                    uint32_t partitions) {
  if (Status status = check_layout(layout); !status.ok()) return status;
  if (partitions < 1 || partitions > limits::kPartitionsMax) {
    return Status(Code::kInvalidArgument, "a shuffle has 1 to " + std::to_string(limits::kPartitionsMax) +
                                              " partitions, not " + std::to_string(partitions));
  }
  if (sample_keys.size() % layout.key_bytes != 0) {
    return Status(Code::kInvalidArgument, "the samples of " + std::to_string(sample_keys.size()) +
                                              " bytes are not whole keys of " +
                                              std::to_string(layout.key_bytes) + " bytes");
  }
  const uint32_t key_bytes = layout.key_bytes;
  Splitters splitters;
  splitters.key_bytes_ = key_bytes;
  splitters.partitions_ = partitions;
  if (partitions == 1) return splitters;

  const std::vector<uint8_t> defaults =
      sample_keys.empty() ? default_samples(key_bytes, partitions) : std::vector<uint8_t>();
  const std::span<const uint8_t> chosen =
      sample_keys.empty() ? std::span<const uint8_t>(defaults) : sample_keys;
  std::vector<uint8_t> sorted(chosen.size());
  const RecordExtent extent{chosen, {}};
  Scratch scratch;
  if (Result<uint64_t> done = sort_records({key_bytes, key_bytes}, {&extent, 1}, sorted, scratch);
      !done.ok()) {
    return done.status();
  }
  const Samples samples(std::move(sorted), key_bytes);

  splitters.keys_.resize(size_t{partitions - 1} * key_bytes);
  for (uint32_t i = 0; i + 1 < partitions; ++i) {
    samples.quantile(i + 1, partitions, splitters.keys_.data() + size_t{i} * key_bytes);
  }

  const double per_sample =
      samples.count() == 0 ? 0 : static_cast<double>(partitions) / static_cast<double>(samples.count());
  for (uint32_t first = 0; first + 1 < partitions;) {
    uint32_t end = first + 1;
    while (end + 1 < partitions && std::memcmp(splitters.key(first), splitters.key(end), key_bytes) == 0)
      ++end;
    // Where the key begins and ends, counted in partitions of equal size. Splitter i is the border i + 1.
    const uint64_t below = samples.below(splitters.key(first)),
                   not_above = samples.not_above(splitters.key(first));
    const double begins = static_cast<double>(below) * per_sample,
                 ends = static_cast<double>(not_above) * per_sample;
    const bool repeated = not_above - below > 1 && ends - begins >= kTieShareMin;
    if (end - first > 1 || repeated) {
      const double before = std::clamp(first + 1 - std::max(begins, static_cast<double>(first)), 0.0, 1.0);
      const double after = std::clamp(std::min(ends, end + 1.0) - end, 0.0, 1.0);
      const Tie tie{first, end - first, static_cast<uint32_t>(before * kShareOne),
                    static_cast<uint32_t>(after * kShareOne)};
      if (tie.splitters > 1 || tie.share_before != 0) splitters.ties_.push_back(tie);
    }
    first = end;
  }
  return splitters;
}

std::vector<uint8_t> Splitters::serialise() const {
  std::vector<uint8_t> bytes(sizeof(Header) + keys_.size() + ties_.size() * sizeof(Tie));
  Header header{kMagic, 0, key_bytes_, partitions_, static_cast<uint32_t>(ties_.size())};
  std::memcpy(bytes.data(), &header, sizeof header);
  if (!keys_.empty()) std::memcpy(bytes.data() + sizeof header, keys_.data(), keys_.size());
  if (!ties_.empty()) {
    std::memcpy(bytes.data() + sizeof header + keys_.size(), ties_.data(), ties_.size() * sizeof(Tie));
  }
  header.crc32c = crc32c(0, bytes.data() + kChecksummedFrom, bytes.size() - kChecksummedFrom);
  std::memcpy(bytes.data(), &header, sizeof header);
  return bytes;
}

Result<Splitters> Splitters::parse(std::span<const uint8_t> bytes) {
  Header header;
  if (bytes.size() < sizeof header) return Status(Code::kCorrupt, "splitters: shorter than their header");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic) return Status(Code::kCorrupt, "splitters: not serialised splitters");
  if (header.crc32c != crc32c(0, bytes.data() + kChecksummedFrom, bytes.size() - kChecksummedFrom)) {
    return Status(Code::kChecksumMismatch, "splitters: the checksum does not match");
  }
  if (header.key_bytes < 1 || header.key_bytes > kRecordKeyBytesMax || header.partitions < 1 ||
      header.partitions > limits::kPartitionsMax || header.ties >= header.partitions) {
    return Status(Code::kCorrupt, "splitters: a number in the header is out of range");
  }
  const size_t keys_bytes = size_t{header.partitions - 1} * header.key_bytes;
  if (bytes.size() != sizeof header + keys_bytes + header.ties * sizeof(Tie)) {
    return Status(Code::kCorrupt, "splitters: the length does not match the header");
  }
  Splitters splitters;
  splitters.key_bytes_ = header.key_bytes;
  splitters.partitions_ = header.partitions;
  const auto* keys = bytes.data() + sizeof header;
  splitters.keys_.assign(keys, keys + keys_bytes);
  splitters.ties_.resize(header.ties);
  if (header.ties != 0) std::memcpy(splitters.ties_.data(), keys + keys_bytes, header.ties * sizeof(Tie));
  for (uint32_t i = 1; i + 1 < header.partitions; ++i) {
    if (std::memcmp(splitters.key(i - 1), splitters.key(i), header.key_bytes) > 0) {
      return Status(Code::kCorrupt, "splitters: the keys are not ascending");
    }
  }
  uint64_t free_from = 0;
  for (const Tie& tie : splitters.ties_) {
    const uint64_t end = uint64_t{tie.first_splitter} + tie.splitters;
    if (tie.splitters < 1 || tie.first_splitter < free_from || end > header.partitions - 1 ||
        tie.share_before > kShareOne || tie.share_after > kShareOne ||
        (tie.splitters == 1 && tie.share_before == 0 && tie.share_after == 0)) {
      return Status(Code::kCorrupt, "splitters: a tie is out of range");
    }
    const auto same = [&](uint32_t i) {
      return std::memcmp(splitters.key(i), splitters.key(tie.first_splitter), header.key_bytes) == 0;
    };
    // The splitters are ascending, so equal ends mean an equal run; it must also be the whole run.
    if (!same(static_cast<uint32_t>(end - 1)) ||
        (end < header.partitions - 1 && same(static_cast<uint32_t>(end))) ||
        (tie.first_splitter > 0 && same(tie.first_splitter - 1))) {
      return Status(Code::kCorrupt, "splitters: a tie does not cover equal keys");
    }
    free_from = end;
  }
  return splitters;
}

Result<std::vector<uint8_t>> sample_keys(RecordLayout layout, std::span<const uint8_t> input, uint64_t count,
                                         uint64_t seed) {
  if (Status status = check_layout(layout); !status.ok()) return status;
  Result<uint64_t> records = count_records(layout, input.size(), "the input");
  if (!records.ok()) return records.status();
  const bool all = count >= *records;
  if (all) count = *records;
  std::vector<uint8_t> keys(count * layout.key_bytes);
  uint64_t state = seed;
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t record = i;
    if (!all) {
      state += 0x9e3779b97f4a7c15;  // splitmix64
      uint64_t hash = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
      hash = (hash ^ (hash >> 27)) * 0x94d049bb133111eb;
      hash ^= hash >> 31;
      const double at = (static_cast<double>(i) + std::ldexp(static_cast<double>(hash >> 11), -53)) /
                        static_cast<double>(count) * static_cast<double>(*records);
      record = std::min(static_cast<uint64_t>(at), *records - 1);
    }
    std::memcpy(keys.data() + i * layout.key_bytes, input.data() + record * layout.record_bytes,
                layout.key_bytes);
  }
  return keys;
}

}  // namespace millrace
