#include "tier/nvme.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "base/crc32c.h"
#include "tier/aligned_buffers.h"
#include "tier/file_queue.h"

namespace millrace {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kNodePrefix = "millrace-";
constexpr std::string_view kUnfinished = ".tmp";
constexpr const char* kLockName = "lock";  // held with flock by the node that lives
constexpr const char* kKeptName = "kept";  // its files outlive it
constexpr uint32_t kStagingBuffersMin = 8;
constexpr auto kLockPatience = std::chrono::seconds(1);

Status check_name(std::string_view what, std::string_view name) {
  if (name.empty() || name.size() > 200 || name == "." || name == ".." || name.find('/') != name.npos ||
      name.find('\0') != name.npos || name.ends_with(kUnfinished) || name == kLockName || name == kKeptName) {
    return Status(Code::kInvalidArgument, "\"" + std::string(name) + "\" cannot be the name of " + std::string(what));
  }
  return {};
}

// What is in a folder; empty where that cannot be read.
std::vector<fs::directory_entry> entries_of(const fs::path& folder) {
  std::vector<fs::directory_entry> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    entries.push_back(*at);
  }
  return entries;
}

std::string file_name(const fs::directory_entry& entry) { return entry.path().filename().string(); }

Status fault_of(const char* what, const std::string& path, int error) {
  return Status(Code::kUnavailable, std::string(what) + " " + path + ": " + std::strerror(error));
}

// A directory of the tier. Outlives the tier with the files in it.
struct Place {
  Place(NvmeTier::Directory directory, const std::string& node_id, uint64_t retry_after_ms)
      : path(std::move(directory.path)),
        node_path((fs::path(path) / (std::string(kNodePrefix) + node_id)).string()),
        limit_bytes(directory.limit_bytes),
        retry_after(retry_after_ms) {}

  // With the lock.
  uint64_t free_bytes() const { return limit_bytes - std::min(limit_bytes, used_bytes); }
  bool blocked() const { return !fault.empty() && std::chrono::steady_clock::now() < retry_at; }

  void give_back(uint64_t bytes) {
    std::lock_guard lock(mutex);
    used_bytes -= bytes;
  }
  void mark(const Status& why) {
    std::lock_guard lock(mutex);
    fault = why.message();
    retry_at = std::chrono::steady_clock::now() + retry_after;
  }

  const std::string path;       // as the user gave it
  const std::string node_path;  // the folder of this node in it
  const uint64_t limit_bytes;
  const std::chrono::milliseconds retry_after;
  int lock_fd = -1;

  mutable std::mutex mutex;  // of what follows
  uint64_t used_bytes = 0;  // of files, finished or not
  uint64_t written_bytes = 0;
  std::string fault;
  std::chrono::steady_clock::time_point retry_at{};
};

std::shared_ptr<SegmentFile> count_file(int fd, uint64_t bytes, std::string path, std::shared_ptr<Place> place) {
  // Not on_freed: that is for who gets the file.
  return std::shared_ptr<SegmentFile>(new SegmentFile(fd, bytes, std::move(path)),
                                      [place = std::move(place), bytes](SegmentFile* file) {
                                        delete file;
                                        place->give_back(bytes);
                                      });
}

// What a writer works with. Kept from one file to the next: a ring and touched buffers are dear.
struct Staging {
  struct Piece : FileOperation {
    uint8_t* memory = nullptr;
  };
  std::unique_ptr<FileQueue> queue;
  AlignedBuffer buffer;
  std::vector<Piece> pieces;
  std::vector<Piece*> idle;
};

// Shared by the tier and its writers.
struct Stagings {
  explicit Stagings(const NvmeTier::Options& options)
      : backend(options.backend.value_or(file_backend())),
        count(std::max(options.queue_depth, kStagingBuffersMin)),
        piece_bytes(align_up(std::clamp<uint64_t>(options.piece_bytes, 1, 64 * MiB), kFileBlockBytes)) {}

  Result<std::unique_ptr<Staging>> take() {
    {
      std::lock_guard lock(mutex);
      if (!idle.empty()) {
        auto staging = std::move(idle.back());
        idle.pop_back();
        return staging;
      }
    }
    auto staging = std::make_unique<Staging>();
    auto queue = FileQueue::make(backend, count, false);
    if (!queue.ok()) queue = FileQueue::make(FileBackend::kThreads, count, false);
    staging->queue = std::move(*queue);
    auto buffer = take_aligned_buffer(count * piece_bytes);
    if (!buffer.ok()) return buffer.status();
    staging->buffer = std::move(*buffer);
    staging->pieces.resize(count);
    for (uint32_t i = 0; i < count; ++i) {
      staging->pieces[i].memory = staging->buffer.data() + i * piece_bytes;
      staging->idle.push_back(&staging->pieces[i]);
    }
    return staging;
  }

  void give_back(std::unique_ptr<Staging> staging) {
    MILLRACE_ASSERT(staging->idle.size() == staging->pieces.size());
    std::lock_guard lock(mutex);
    if (idle.size() < kIdleMax) idle.push_back(std::move(staging));
  }

  static constexpr size_t kIdleMax = 2;
  const FileBackend backend;
  const uint32_t count;
  const uint64_t piece_bytes;
  std::mutex mutex;
  std::vector<std::unique_ptr<Staging>> idle;
};

class Writer final : public SegmentFileWriter {
 public:
  Writer(std::shared_ptr<Place> place, std::shared_ptr<Stagings> stagings, std::unique_ptr<Staging> staging, int fd,
         std::string path, uint64_t bytes)
      : place_(std::move(place)),
        stagings_(std::move(stagings)),
        staging_(std::move(staging)),
        fd_(fd),
        path_(std::move(path)),
        budget_bytes_(bytes) {}

  ~Writer() override {
    if (staging_) end();
    if (!finished_) {
      unlink(unfinished_path().c_str());
      if (fd_ >= 0) close(fd_);
      place_->give_back(budget_bytes_);
    }
  }

  uint64_t position() const override { return position_; }

  Status append(const void* data, uint64_t bytes, uint32_t* crc) override {
    const auto* from = static_cast<const uint8_t*>(data);
    return fill(bytes, [&](uint8_t* to, uint64_t part) {
      if (crc != nullptr) *crc = copy_crc32c(to, from, part, *crc);
      else std::memcpy(to, from, part);
      from += part;
    });
  }

  Status pad(uint64_t alignment) override {
    MILLRACE_ASSERT(alignment > 0 && (alignment & (alignment - 1)) == 0);
    const uint64_t zeros = align_up(position_, alignment) - position_;
    return fill(zeros, [](uint8_t* to, uint64_t part) { std::memset(to, 0, part); });
  }

  Result<std::shared_ptr<SegmentFile>> finish() override {
    MILLRACE_ASSERT(staging_);
    const uint64_t written = position_;
    if (Status status = pad(kFileBlockBytes); !status.ok()) return status;
    if (current_ != nullptr) submit();
    while (staging_->idle.size() < staging_->pieces.size()) collect();
    if (!status_.ok()) return status_;
    end();
    const uint64_t bytes = position_;
    position_ = written;
    if (bytes < budget_bytes_ && ftruncate(fd_, static_cast<off_t>(bytes)) != 0) {
      return fail(fault_of("truncate", path_, errno));
    }
    const int read_fd = open_direct(unfinished_path().c_str(), O_RDONLY);
    if (read_fd < 0 || rename(unfinished_path().c_str(), path_.c_str()) != 0) {
      const int error = errno;
      if (read_fd >= 0) close(read_fd);
      // By remove_folder: nothing is wrong with the device.
      if (error == ENOENT) return fail_unmarked(Status(Code::kAborted, path_ + " was removed while it was written"));
      return fail(fault_of(read_fd < 0 ? "open" : "rename", path_, error));
    }
    close(fd_);
    finished_ = true;
    {
      std::lock_guard lock(place_->mutex);
      place_->used_bytes -= budget_bytes_ - bytes;
      place_->fault.clear();
    }
    return count_file(read_fd, bytes, path_, place_);
  }

 private:
  std::string unfinished_path() const { return path_ + std::string(kUnfinished); }

  Status fail(Status status) {
    place_->mark(status);
    return fail_unmarked(std::move(status));
  }
  Status fail_unmarked(Status status) {
    status_ = std::move(status);
    return status_;
  }

  // Calls `write(to, part)` for the places in the staging buffers where the next `bytes` go.
  template <class Write>
  Status fill(uint64_t bytes, Write&& write) {
    MILLRACE_ASSERT(staging_);
    if (!status_.ok()) return status_;
    if (bytes > budget_bytes_ - position_) {
      return Status(Code::kOutOfRange, path_ + " was to have at most " + std::to_string(budget_bytes_) +
                                           " bytes; at " + std::to_string(position_) + " there is no room for " +
                                           std::to_string(bytes));
    }
    while (bytes > 0) {
      if (current_ == nullptr) {
        while (staging_->idle.empty()) collect();
        if (!status_.ok()) return status_;
        current_ = staging_->idle.back();
        staging_->idle.pop_back();
        filled_ = 0;
      }
      const uint64_t part = std::min(bytes, stagings_->piece_bytes - filled_);
      write(current_->memory + filled_, part);
      filled_ += part;
      position_ += part;
      bytes -= part;
      if (filled_ == stagings_->piece_bytes) submit();
    }
    return {};
  }

  void submit() {
    Staging::Piece* const piece = std::exchange(current_, nullptr);
    static_cast<FileOperation&>(*piece) = {.fd = fd_, .write = true, .data = piece->memory,
                                           .offset = position_ - filled_, .bytes = filled_};
    staging_->queue->submit(piece);
    staging_->queue->start();
  }

  // Waits for at least one write.
  void collect() {
    ended_.clear();
    staging_->queue->collect(&ended_, true);
    uint64_t written = 0;
    for (FileOperation* operation : ended_) {
      if (operation->error != 0 && status_.ok()) {
        status_ = fault_of("write", path_, operation->error);
        place_->mark(status_);
      }
      written += operation->done;
      staging_->idle.push_back(static_cast<Staging::Piece*>(operation));
    }
    std::lock_guard lock(place_->mutex);
    place_->written_bytes += written;
  }

  // Lets go of the buffers when the device has.
  void end() {
    if (current_ != nullptr) staging_->idle.push_back(std::exchange(current_, nullptr));
    while (staging_->idle.size() < staging_->pieces.size()) collect();
    stagings_->give_back(std::move(staging_));
  }

  const std::shared_ptr<Place> place_;
  const std::shared_ptr<Stagings> stagings_;
  std::unique_ptr<Staging> staging_;
  const int fd_;
  const std::string path_;
  const uint64_t budget_bytes_;
  uint64_t position_ = 0;
  Staging::Piece* current_ = nullptr;
  uint64_t filled_ = 0;  // of `current_`
  std::vector<FileOperation*> ended_;
  Status status_;  // the first failure
  bool finished_ = false;
};

enum class Locked { kYes, kHeld, kGone };

// Takes the lock of a node's folder. Gone: its file is not (or no longer) there.
Locked lock_folder(const fs::path& folder, int create, int* fd) {
  *fd = ::open((folder / kLockName).c_str(), O_RDONLY | O_CLOEXEC | create, 0600);
  if (*fd < 0) return Locked::kGone;
  struct stat now {};
  const bool held = flock(*fd, LOCK_EX | LOCK_NB) != 0;
  // Who cleans up removes the file while it holds the lock.
  if (!held && fstat(*fd, &now) == 0 && now.st_nlink > 0) return Locked::kYes;
  close(*fd);
  *fd = -1;
  return held ? Locked::kHeld : Locked::kGone;
}

// Everything in a node's folder, the lock last, and the folder.
void remove_locked(const fs::path& folder) {
  std::error_code ignored;
  for (const auto& entry : entries_of(folder)) {
    if (file_name(entry) != kLockName) fs::remove_all(entry.path(), ignored);
  }
  fs::remove(folder / kLockName, ignored);
  fs::remove(folder, ignored);
}

void remove_dead_nodes(const Place& place) {
  std::error_code ignored;
  for (const auto& entry : entries_of(place.path)) {
    const fs::path& folder = entry.path();
    if (!file_name(entry).starts_with(kNodePrefix) || folder == place.node_path) continue;
    // A folder without a lock is somebody else's, or a node is just making it.
    int fd = -1;
    if (fs::exists(folder / kKeptName, ignored) || lock_folder(folder, 0, &fd) != Locked::kYes) continue;
    if (!fs::exists(folder / kKeptName, ignored)) remove_locked(folder);
    close(fd);
  }
}

void remove_unfinished(const fs::path& node_path) {
  std::error_code ignored;
  for (const auto& folder : entries_of(node_path)) {
    if (!folder.is_directory(ignored)) continue;
    for (const auto& entry : entries_of(folder.path())) {
      if (file_name(entry).ends_with(kUnfinished)) fs::remove(entry.path(), ignored);
    }
  }
}

}  // namespace

struct NvmeTier::Impl {
  explicit Impl(Options given) : options(std::move(given)), stagings(std::make_shared<Stagings>(options)) {
    for (const Directory& directory : options.directories) {
      places.push_back(std::make_shared<Place>(directory, options.node_id, options.retry_after_ms));
    }
  }

  Status open(Place& place) {
    auto failed = [&](const char* what, int error) {
      return Status(Code::kSystem, "nvme directory " + place.path + ": " + what + ": " + std::strerror(error));
    };
    std::error_code error;
    fs::create_directories(place.path, error);
    if (error) return failed("mkdir", error.value());
    remove_dead_nodes(place);
    const auto patience_ends = std::chrono::steady_clock::now() + kLockPatience;
    for (;;) {
      if (mkdir(place.node_path.c_str(), 0700) != 0 && errno != EEXIST) return failed("mkdir", errno);
      const Locked locked = lock_folder(place.node_path, O_CREAT, &place.lock_fd);
      const int lock_error = errno;
      if (locked == Locked::kYes) break;
      // A node that was killed, or one that looks whether we are dead, lets go in a moment.
      if (std::chrono::steady_clock::now() < patience_ends) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        continue;
      }
      if (locked == Locked::kGone) return failed("lock", lock_error);
      return Status(Code::kAlreadyExists, place.node_path + " belongs to a node that is running");
    }
    const fs::path kept = fs::path(place.node_path) / kKeptName;
    if (options.keep) {
      const int fd = ::open(kept.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
      if (fd < 0) return failed("open", errno);
      close(fd);
      remove_unfinished(place.node_path);
    } else {
      for (const std::string& folder : folders_of(place)) fs::remove_all(fs::path(place.node_path) / folder, error);
      fs::remove(kept, error);
    }
    return {};
  }

  void close_all() {
    for (auto& place : places) {
      if (place->lock_fd < 0) continue;
      if (!options.keep) remove_locked(place->node_path);
      close(std::exchange(place->lock_fd, -1));
    }
  }

  static std::vector<std::string> folders_of(const Place& place) {
    std::vector<std::string> names;
    std::error_code ignored;
    for (const auto& entry : entries_of(place.node_path)) {
      if (entry.is_directory(ignored)) names.push_back(file_name(entry));
    }
    return names;
  }

  // Makes the unfinished file with its room on the device. The budget is taken.
  Result<int> make_file(const Place& place, const fs::path& folder, const std::string& path, uint64_t bytes) {
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) return fault_of("mkdir", folder.string(), errno);
    const std::string unfinished = path + std::string(kUnfinished);
    const int fd = open_direct(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0) {
      const int error = errno;
      if (error == EEXIST) return Status(Code::kAlreadyExists, path + " is being written");
      std::error_code ignored;
      if (error == ENOENT && fs::exists(place.node_path, ignored)) {
        return Status(Code::kAborted, folder.string() + " was removed");
      }
      return fault_of("create", path, error);
    }
    int error = 0;
    do {
      // The length is set, too: writes behind the end of a file would wait for each other.
      error = fallocate(fd, 0, 0, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == EOPNOTSUPP) error = ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    if (error == 0) return fd;
    close(fd);
    unlink(unfinished.c_str());
    return fault_of("write", path, error);
  }

  const Options options;
  const std::shared_ptr<Stagings> stagings;
  std::vector<std::shared_ptr<Place>> places;
  bool opened = false;
};

NvmeTier::NvmeTier(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}

NvmeTier::~NvmeTier() { impl_->close_all(); }

bool NvmeTier::enabled() const { return !impl_->places.empty(); }

Status NvmeTier::open() {
  MILLRACE_ASSERT(!impl_->opened);
  if (!enabled()) return {};
  const std::string node_folder = std::string(kNodePrefix) + impl_->options.node_id;
  if (Status status = check_name("a node", node_folder); !status.ok()) return status;
  for (auto& place : impl_->places) {
    if (Status status = impl_->open(*place); !status.ok()) {
      impl_->close_all();
      return status;
    }
  }
  impl_->opened = true;
  return {};
}

Result<std::unique_ptr<SegmentFileWriter>> NvmeTier::create(std::string_view folder, std::string_view name,
                                                            uint64_t bytes) {
  if (Status status = check_name("a folder", folder); !status.ok()) return status;
  if (Status status = check_name("a file", name); !status.ok()) return status;
  if (!enabled()) return Status(Code::kUnavailable, "there is no nvme directory (--nvme)");
  MILLRACE_ASSERT(impl_->opened);
  if (bytes == 0 || bytes > INT64_MAX - kFileBlockBytes) {
    return Status(Code::kInvalidArgument, "a file of " + std::to_string(bytes) + " bytes");
  }
  bytes = align_up(bytes, kFileBlockBytes);

  std::vector<std::shared_ptr<Place>> tried;
  std::string faults;
  for (;;) {
    // The one with most room that has not failed.
    std::shared_ptr<Place> best;
    uint64_t best_free = 0;
    for (const auto& place : impl_->places) {
      if (std::find(tried.begin(), tried.end(), place) != tried.end()) continue;
      std::lock_guard lock(place->mutex);
      if (place->free_bytes() < bytes || place->free_bytes() <= best_free) continue;
      if (place->blocked()) {
        tried.push_back(place);
        faults += (faults.empty() ? "" : "; ") + place->fault;
        continue;
      }
      best = place;
      best_free = place->free_bytes();
    }
    if (!best) break;
    {
      std::lock_guard lock(best->mutex);
      if (best->free_bytes() < bytes || best->blocked()) continue;
      best->used_bytes += bytes;
      // One at a time tries whether a fault is over.
      if (!best->fault.empty()) best->retry_at = std::chrono::steady_clock::now() + best->retry_after;
    }
    auto staging = impl_->stagings->take();
    if (!staging.ok()) {
      best->give_back(bytes);
      return staging.status();
    }
    const fs::path in = fs::path(best->node_path) / folder;
    const std::string path = (in / name).string();
    auto fd = impl_->make_file(*best, in, path, bytes);
    if (fd.ok()) {
      return std::unique_ptr<SegmentFileWriter>(
          std::make_unique<Writer>(std::move(best), impl_->stagings, std::move(*staging), *fd, path, bytes));
    }
    impl_->stagings->give_back(std::move(*staging));
    best->give_back(bytes);
    if (fd.code() != Code::kUnavailable) return fd.status();
    best->mark(fd.status());
    faults += (faults.empty() ? "" : "; ") + fd.status().message();
    tried.push_back(std::move(best));
  }
  if (!faults.empty()) return Status(Code::kUnavailable, faults);
  const Stats now = stats();
  return Status(Code::kResourceExhausted, "nvme is full: " + std::to_string(now.used_bytes) + " of " +
                                              std::to_string(now.limit_bytes) + " bytes are in use (--nvme)");
}

Result<std::shared_ptr<SegmentFile>> NvmeTier::find(std::string_view folder, std::string_view name) {
  if (Status status = check_name("a folder", folder); !status.ok()) return status;
  if (Status status = check_name("a file", name); !status.ok()) return status;
  for (const auto& place : impl_->places) {
    const std::string path = (fs::path(place->node_path) / folder / name).string();
    auto found = open_segment_file(path);
    if (found.code() == Code::kNotFound) continue;
    if (!found.ok()) return found.status();
    {
      std::lock_guard lock(place->mutex);
      place->used_bytes += found->bytes;
    }
    return count_file(found->fd, found->bytes, path, place);
  }
  return Status(Code::kNotFound, "no file " + std::string(folder) + "/" + std::string(name) + " in any nvme directory");
}

std::vector<std::string> NvmeTier::list(std::string_view folder) const {
  std::vector<std::string> names;
  if (!check_name("a folder", folder).ok()) return names;
  std::error_code ignored;
  for (const auto& place : impl_->places) {
    for (const auto& entry : entries_of(fs::path(place->node_path) / folder)) {
      const std::string name = file_name(entry);
      if (entry.is_regular_file(ignored) && !name.ends_with(kUnfinished)) names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> NvmeTier::folders() const {
  std::vector<std::string> names;
  for (const auto& place : impl_->places) {
    for (std::string& name : Impl::folders_of(*place)) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void NvmeTier::remove_folder(std::string_view folder) {
  if (!check_name("a folder", folder).ok()) return;
  std::error_code ignored;
  for (const auto& place : impl_->places) fs::remove_all(fs::path(place->node_path) / folder, ignored);
}

NvmeTier::Stats NvmeTier::stats() const {
  Stats stats;
  for (const auto& place : impl_->places) {
    std::lock_guard lock(place->mutex);
    stats.limit_bytes += place->limit_bytes;
    stats.used_bytes += place->used_bytes;
    stats.written_bytes += place->written_bytes;
    stats.directories.push_back({place->path, place->limit_bytes, place->used_bytes, place->fault});
  }
  return stats;
}

Status NvmeTier::fault() const {
  if (!enabled()) return Status(Code::kUnavailable, "there is no nvme directory (--nvme)");
  std::string faults;
  for (const auto& place : impl_->places) {
    std::lock_guard lock(place->mutex);
    // Where it is time to try again, nothing is known to be wrong.
    if (!place->blocked()) return {};
    faults += (faults.empty() ? "" : "; ") + place->fault;
  }
  return Status(Code::kUnavailable, faults);
}

}  // namespace millrace
