// The keys that divide records into partitions, chosen from a sample and small enough to travel to every
// function worker.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "kernels/record.h"

namespace millrace {

// R - 1 ascending splitters make R partitions: a key belongs to the partition whose number is the count of
// splitters that are not above it. So the concatenation of the sorted partitions is sorted.
//
// A key may be so frequent that it spans a whole partition or more; its splitters then repeat. Records with
// that key may go to the partition that ends with it, to those that hold nothing else, and to the one that
// begins with it, without disturbing the order. A `Tie` says in which shares, so that every partition gets
// its R-th.
class Splitters {
 public:
  struct Tie {
    uint32_t first_splitter;  // the splitters that equal the key: at least one
    uint32_t splitters;
    // What goes to the partitions before and after those splitters, in 65536ths of what a partition between
    // two of them gets.
    uint32_t share_before;
    uint32_t share_after;
  };
  static constexpr uint32_t kShareOne = 65536;

  Splitters() = default;

  // Chooses splitters from keys that lie one behind the other (layout.key_bytes each, in any order, modelled
  // as drawn evenly from the input). With few samples the space between them is divided evenly; with none,
  // all of the key space is.
  static Result<Splitters> choose(RecordLayout layout, std::span<const uint8_t> sample_keys,
                                  uint32_t partitions);

  std::vector<uint8_t> serialise() const;
  static Result<Splitters> parse(std::span<const uint8_t> bytes);

  uint32_t partitions() const { return partitions_; }
  uint32_t key_bytes() const { return key_bytes_; }
  const uint8_t* key(uint32_t splitter) const { return keys_.data() + size_t{splitter} * key_bytes_; }
  const std::vector<Tie>& ties() const { return ties_; }  // ascending by first_splitter

 private:
  uint32_t key_bytes_ = 1;
  uint32_t partitions_ = 1;
  std::vector<uint8_t> keys_;  // partitions_ - 1 of them
  std::vector<Tie> ties_;
};

// Picks `count` keys of `input`, one at random from every count-th part of it, and returns them one behind
// the other; all keys where there are no more than that.
Result<std::vector<uint8_t>> sample_keys(RecordLayout layout, std::span<const uint8_t> input, uint64_t count,
                                         uint64_t seed);

}  // namespace millrace
