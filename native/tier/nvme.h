// The `nvme` tier: segments as files on local devices, written with O_DIRECT, 8 and more pieces in flight.
//
// A directory that fails a write (full, read-only, an I/O error) is marked with what it said and takes nothing
// new until a retry some seconds later succeeds; what lies in it is still read.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tier/file_faults.h"
#include "tier/file_reader.h"
#include "tier/segment_file.h"

namespace millrace {

// Writes one file from end to end through buffers that the device reads from while the next are filled.
class SegmentFileWriter {
 public:
  virtual ~SegmentFileWriter() = default;  // an unfinished file is removed
  // Bytes appended so far.
  virtual uint64_t position() const = 0;
  // Copies `bytes`. Where `crc` is given it is continued over them, in the same pass.
  virtual Status append(const void* data, uint64_t bytes, uint32_t* crc = nullptr) = 0;
  // Zeros up to the next multiple of `alignment`.
  virtual Status pad(uint64_t alignment) = 0;
  // Waits until all is written. The file is then complete under its name, as long as what was appended, rounded up
  // to 4096; the rest of what was asked for goes back to the directory's budget.
  virtual Result<std::shared_ptr<SegmentFile>> finish() = 0;
};

class NvmeTier {
 public:
  struct Directory {
    std::string path;
    uint64_t limit_bytes = 0;
  };
  struct Options {
    std::vector<Directory> directories;
    std::string node_id;    // files lie under <path>/millrace-<node id>/<folder>/<name>
    bool keep = false;      // files outlive the process: a later start with the same node id finds them
    uint32_t queue_depth = 16;
    uint64_t piece_bytes = 1 * MiB;
    std::optional<FileBackend> backend;
    uint64_t retry_after_ms = 5000;  // of a directory that failed
  };
  explicit NvmeTier(Options options);
  ~NvmeTier();

  bool enabled() const;
  // Makes the node's folders; removes those of nodes that are gone and were not to be kept. SYSTEM, with the path,
  // where a directory cannot be written to.
  Status open();

  // A file of at most `bytes` (rounded up to 4096). RESOURCE_EXHAUSTED where every directory is at its limit;
  // UNAVAILABLE where those with room are marked, with what they said.
  Result<std::unique_ptr<SegmentFileWriter>> create(std::string_view folder, std::string_view name, uint64_t bytes);
  // A finished file of an earlier life, counted against its directory. NOT_FOUND.
  Result<std::shared_ptr<SegmentFile>> find(std::string_view folder, std::string_view name);
  // The names in a folder, from all directories.
  std::vector<std::string> list(std::string_view folder) const;
  std::vector<std::string> folders() const;
  // Removes a folder with what is in it.
  void remove_folder(std::string_view folder);

  struct DirectoryStats {
    std::string path;
    uint64_t limit_bytes, used_bytes;
    std::string fault;  // why it takes nothing new; empty where it does
  };
  struct Stats {
    uint64_t limit_bytes = 0, used_bytes = 0;
    uint64_t written_bytes = 0;  // since the start
    std::vector<DirectoryStats> directories;
  };
  Stats stats() const;
  // Why nothing can be demoted now; OK where it can.
  Status fault() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace millrace
