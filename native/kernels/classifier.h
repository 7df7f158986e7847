// Finding the partition of a key: what splitters become where records are partitioned.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/record.h"
#include "kernels/splitters.h"

namespace millrace {

// Made once for every pass over an input: it remembers how far the dealing of frequent keys has come.
class Classifier {
 public:
  // `start` makes the dealing of different inputs begin at different places, so that many small inputs do not
  // all give their few records to the same partition. The same start gives the same result.
  Classifier(const Splitters& splitters, RecordLayout layout, uint64_t start);

  // Writes the partition of each of `count` records to `partitions` and adds to `counts`.
  void classify(const uint8_t* records, uint64_t count, uint16_t* partitions, uint64_t* counts);

 private:
  template <uint32_t kBytes, bool kLongKey>
  void classify_as(const uint8_t* records, uint64_t count, uint16_t* partitions, uint64_t* counts);
  uint32_t resolve(const uint8_t* key, uint32_t not_above);
  uint32_t deal(uint32_t tie);

  const Splitters& splitters_;
  RecordLayout layout_;
  uint32_t levels_ = 0;
  // The first eight bytes of the splitters as a binary search tree in an array (children of i at 2i, 2i + 1),
  // filled up with the greatest number to 2^levels - 1 nodes; node 0 is unused.
  std::vector<uint64_t> tree_;
  // By the number of splitters whose first eight bytes are not above the key's: the first eight bytes of the
  // last of them, and how many splitters there are before those with the same eight bytes.
  std::vector<uint64_t> last_;
  std::vector<uint32_t> before_;
  std::vector<int32_t> tie_of_;  // by splitter: its index in ties(), or -1
  std::vector<uint64_t> dealt_;  // by tie: the state of the dealing
};

}  // namespace millrace
