// What a namespace of a node that does not run has left, as `millrace inspect` shows it. Writes nothing.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "store/scrub.h"
#include "store/store.h"

namespace millrace {

struct Inspection {
  struct SegmentRemains {
    uint32_t number;
    bool in_file;  // of the `nvme` tier
    std::string path;
    uint64_t bytes;
    uint64_t live_bytes;
    uint64_t objects;  // entries that the index names
  };
  uint64_t objects = 0;
  uint64_t size_bytes = 0;  // of them
  uint64_t torn = 0;        // entries that the index names and that do not hold
  std::vector<SegmentRemains> segments;  // by number; those that nothing lives of have live_bytes 0
  std::vector<ScrubPage::Damage> damaged;
};

struct InspectPlaces {
  std::string name;
  Token token{};
  std::vector<std::string> memory_folders;  // of the namespace; all after the first on a hugetlbfs
  std::vector<std::string> nvme_folders;    // of the namespace
  bool verify = false;                      // reads all objects and compares them with their checksums
};

// NOT_FOUND where there is no index, or it is that of a namespace that was dropped; CORRUPT where it is none.
Result<Inspection> inspect(const InspectPlaces& places);

}  // namespace millrace
