// What the tests of the nvme tier share: directories that go away, file systems of their own, faults that end.
#pragma once
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "test/test_support.h"
#include "tier/file_faults.h"
#include "tier/file_reader.h"
#include "tier/segment_file.h"

namespace millrace::test {

class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::filesystem::path& under = std::filesystem::temp_directory_path()) {
    std::string name = (under / "millrace-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A small file system in memory; not `mounted` where this process may not mount.
class TemporaryMount {
 public:
  explicit TemporaryMount(const std::string& options) {
    mounted_ = mount("millrace-test", directory_.path().c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  ~TemporaryMount() {
    if (mounted_) umount2(directory_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  const std::string& path() const { return directory_.path(); }
  bool read_only(bool yes) {
    return mount("millrace-test", directory_.path().c_str(), "tmpfs", MS_REMOUNT | (yes ? MS_RDONLY : 0), nullptr) == 0;
  }

 private:
  TemporaryDirectory directory_;
  bool mounted_ = false;
};

// Ends what a test set, however it ends.
struct NoFaultsAfter {
  ~NoFaultsAfter() { clear(); }
  static void clear() {
    file_faults().write_error = 0;
    file_faults().read_error = 0;
    file_faults().writes_before = 0;
    file_faults().short_bytes = 0;
  }
};

inline std::vector<FileBackend> file_backends() {
  if (file_backend() == FileBackend::kThreads) return {FileBackend::kThreads};
  return {FileBackend::kUring, FileBackend::kThreads};
}

inline std::string backend_name(const ::testing::TestParamInfo<FileBackend>& info) {
  return info.param == FileBackend::kUring ? "Uring" : "Threads";
}

}  // namespace millrace::test
