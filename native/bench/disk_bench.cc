// The rival of the nvme tier: one fresh file written and read with O_DIRECT through bare io_uring, 8 pieces of 1 MiB
// in flight. Nothing is copied or checked: it is what the device and the file system give.
//
//   disk_bench write|read|both DIR BYTES     prints {"writeBytesPerSecond":x,"readBytesPerSecond":x}
//
// `write` and `read` print their own figure alone; BYTES is rounded down to whole pieces.
#include <cstdio>

#ifndef MILLRACE_LIBURING

int main() {
  std::fprintf(stderr, "disk_bench: built without liburing\n");
  return 2;
}

#else

#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr unsigned kDepth = 8;
constexpr uint64_t kPieceBytes = 1 << 20;

[[noreturn]] void fail(const char* what, int error) {
  std::fprintf(stderr, "disk_bench: %s: %s\n", what, std::strerror(error));
  std::exit(1);
}

int open_direct(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_DIRECT | O_CLOEXEC, 0600);
  if (fd < 0) fail(path.c_str(), errno);
  return fd;
}

// Moves `bytes` of the file, every piece once and in order; gives bytes per second.
double move(io_uring& ring, int fd, uint8_t* buffers, uint64_t bytes, bool write) {
  const auto begin = std::chrono::steady_clock::now();
  uint64_t submitted = 0;
  uint64_t done = 0;
  auto submit = [&](uint64_t buffer) {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring);
    uint8_t* const data = buffers + buffer * kPieceBytes;
    if (write) io_uring_prep_write(entry, fd, data, kPieceBytes, submitted);
    else io_uring_prep_read(entry, fd, data, kPieceBytes, submitted);
    entry->user_data = buffer;
    submitted += kPieceBytes;
  };
  for (unsigned i = 0; i < kDepth && submitted < bytes; ++i) submit(i);
  while (done < bytes) {
    const int entered = io_uring_submit_and_wait(&ring, 1);
    if (entered < 0 && entered != -EINTR) fail("io_uring_enter", -entered);
    io_uring_cqe* result = nullptr;
    while (io_uring_peek_cqe(&ring, &result) == 0) {
      if (result->res < 0) fail(write ? "write" : "read", -result->res);
      if (static_cast<uint64_t>(result->res) != kPieceBytes) fail(write ? "short write" : "short read", EIO);
      const uint64_t buffer = result->user_data;
      io_uring_cqe_seen(&ring, result);
      done += kPieceBytes;
      if (submitted < bytes) submit(buffer);
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return static_cast<double>(bytes) / seconds;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const uint64_t bytes = argc == 4 ? std::strtoull(argv[3], nullptr, 10) / kPieceBytes * kPieceBytes : 0;
  if ((mode != "write" && mode != "read" && mode != "both") || bytes == 0) {
    std::fprintf(stderr, "usage: disk_bench write|read|both DIR BYTES (at least %llu)\n",
                 static_cast<unsigned long long>(kPieceBytes));
    return 2;
  }
  io_uring ring;
  if (const int error = io_uring_queue_init(kDepth, &ring, 0); error != 0) fail("io_uring_setup", -error);
  // In huge pages where there are any: the device's requests are then few and long.
  constexpr uint64_t kHugePageBytes = 2 << 20;
  void* const mapped = std::aligned_alloc(kHugePageBytes, kDepth * kPieceBytes);
  if (mapped == nullptr) fail("aligned_alloc", ENOMEM);
  madvise(mapped, kDepth * kPieceBytes, MADV_HUGEPAGE);
  auto* const buffers = static_cast<uint8_t*>(mapped);
  for (uint64_t i = 0; i < kDepth * kPieceBytes; ++i) buffers[i] = static_cast<uint8_t>(i * 2654435761u >> 13);

  const std::string path = std::string(argv[2]) + "/disk_bench." + std::to_string(getpid());
  const int write_fd = open_direct(path, O_WRONLY | O_CREAT | O_EXCL);
  const int read_fd = open_direct(path, O_RDONLY);
  unlink(path.c_str());
  // Without it every write would extend the file, and wait for the one before.
  if (const int error = posix_fallocate(write_fd, 0, static_cast<off_t>(bytes)); error != 0) fail("fallocate", error);
  const double written = move(ring, write_fd, buffers, bytes, true);
  const double read = mode == "write" ? 0 : move(ring, read_fd, buffers, bytes, false);
  if (mode == "write") std::printf("{\"writeBytesPerSecond\":%.0f}\n", written);
  else if (mode == "read") std::printf("{\"readBytesPerSecond\":%.0f}\n", read);
  else std::printf("{\"writeBytesPerSecond\":%.0f,\"readBytesPerSecond\":%.0f}\n", written, read);
  return 0;
}

#endif
