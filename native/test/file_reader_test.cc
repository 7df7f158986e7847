// Reads of segment files: any range, many at once, through io_uring and through threads; what a device may do wrong.
#include "tier/file_reader.h"

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>

#include "base/limits.h"
#include "base/units.h"
#include "test/file_support.h"
#include "tier/aligned_buffers.h"

namespace millrace {
namespace {

using test::Content;
using test::NoFaultsAfter;
using test::TemporaryDirectory;

const Content kContent("file", 1);

// A file with kContent, opened as the tier does.
std::shared_ptr<SegmentFile> make_file(const std::string& directory, uint64_t bytes, const char* name = "file") {
  const std::string path = directory + "/" + name;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  EXPECT_GE(fd, 0);
  const auto data = kContent.bytes(bytes);
  for (uint64_t at = 0; at < bytes;) {
    const ssize_t moved = write(fd, data.data() + at, bytes - at);
    if (moved <= 0) {
      ADD_FAILURE() << "write: " << std::strerror(errno);
      break;
    }
    at += static_cast<uint64_t>(moved);
  }
  close(fd);
  int read_fd = open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (read_fd < 0) read_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  EXPECT_GE(read_fd, 0);
  return std::make_shared<SegmentFile>(read_fd, bytes, path);
}

bool is_range(const FileBytes& got, uint64_t offset, uint64_t bytes) {
  return got.bytes == bytes && (bytes == 0 || kContent.matches(got.data, bytes, offset));
}

class FileReaderTest : public ::testing::TestWithParam<FileBackend> {
 protected:
  FileReader::Options options(uint32_t queue_depth = 16, uint64_t piece_bytes = 1 * MiB) const {
    return {.queue_depth = queue_depth, .piece_bytes = piece_bytes, .backend = GetParam()};
  }
  NoFaultsAfter no_faults_after_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Backends, FileReaderTest, ::testing::ValuesIn(test::file_backends()), test::backend_name);

TEST_P(FileReaderTest, TakesTheBackendItIsTold) { EXPECT_EQ(FileReader(options()).backend(), GetParam()); }

TEST_P(FileReaderTest, ReadsAnyRange) {
  test::Random random(test::new_seed("FileReader.ReadsAnyRange"));
  constexpr uint64_t kBytes = 5 * MiB + 8192;
  for (const std::string& under : {std::filesystem::temp_directory_path().string(), std::string("/dev/shm")}) {
    if (!std::filesystem::is_directory(under)) continue;
    TemporaryDirectory directory(under);
    auto file = make_file(directory.path(), kBytes);
    FileReader reader(options(4, 64 * KiB));
    for (auto [offset, bytes] : std::vector<std::pair<uint64_t, uint64_t>>{
             {0, kBytes}, {0, 1}, {kBytes - 1, 1}, {4095, 2}, {4096, 4096}, {1, kBytes - 1}, {0, 0}, {kBytes, 0},
             {77, 0}, {64 * KiB, 64 * KiB}, {64 * KiB - 1, 64 * KiB}, {3 * 64 * KiB + 5, 64 * KiB + 1}}) {
      auto got = reader.read_now(file, offset, bytes);
      ASSERT_OK(got) << offset << "+" << bytes;
      EXPECT_TRUE(is_range(*got, offset, bytes)) << offset << "+" << bytes;
    }
    for (int i = 0; i < 200; ++i) {
      const uint64_t offset = random.below(kBytes);
      const uint64_t bytes = random.size(kBytes - offset);
      auto got = reader.read_now(file, offset, bytes);
      ASSERT_OK(got) << offset << "+" << bytes;
      ASSERT_TRUE(is_range(*got, offset, bytes)) << offset << "+" << bytes;
    }
  }
}

TEST_P(FileReaderTest, ManyReadsAtOnceFromManyThreads) {
  test::Random random(test::new_seed("FileReader.ManyReadsAtOnceFromManyThreads"));
  constexpr uint64_t kBytes = 8 * MiB;
  auto file = make_file(directory_.path(), kBytes);
  FileReader reader(options(8, 128 * KiB));
  constexpr int kThreads = 4;
  constexpr int kReads = test::kSanitized ? 40 : 150;
  std::atomic<int> right{0}, ended{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, seed = random.next()] {
      test::Random own(seed);
      for (int i = 0; i < kReads; ++i) {
        const uint64_t offset = own.below(kBytes);
        const uint64_t bytes = std::min(own.size(kBytes), kBytes - offset);
        if (own.chance(4)) {
          auto got = reader.read_now(file, offset, bytes);
          right += got.ok() && is_range(*got, offset, bytes);
          ++ended;
        } else {
          reader.read(file, offset, bytes, [&, offset, bytes](Result<FileBytes> got) {
            right += got.ok() && is_range(*got, offset, bytes);
            ++ended;
          });
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(test::eventually([&] { return ended == kThreads * kReads; }));
  EXPECT_EQ(right, kThreads * kReads);
}

TEST_P(FileReaderTest, AShortReadIsNotStuckBehindLongOnes) {
  auto file = make_file(directory_.path(), 16 * MiB);
  FileReader reader(options(2, 64 * KiB));
  std::mutex mutex;
  std::vector<int> order;
  constexpr int kLong = 6;
  for (int i = 0; i < kLong; ++i) {
    reader.read(file, 0, 16 * MiB, [&, i](Result<FileBytes> got) {
      EXPECT_OK(got);
      std::lock_guard lock(mutex);
      order.push_back(i);
    });
  }
  reader.read(file, 5, 5, [&](Result<FileBytes> got) {
    EXPECT_OK(got);
    std::lock_guard lock(mutex);
    order.push_back(-1);
  });
  ASSERT_TRUE(test::eventually([&] {
    std::lock_guard lock(mutex);
    return order.size() == kLong + 1;
  }));
  EXPECT_NE(order.back(), -1);
}

TEST_P(FileReaderTest, ADoneMayReadOn) {
  auto file = make_file(directory_.path(), 1 * MiB);
  FileReader reader(options());
  std::atomic<int> left{100};
  std::function<void(Result<FileBytes>)> next = [&](Result<FileBytes> got) {
    EXPECT_OK(got);
    if (--left > 0) reader.read(file, static_cast<uint64_t>(left) * 1000, 1000, next);
  };
  reader.read(file, 0, 1000, next);
  EXPECT_TRUE(test::eventually([&] { return left == 0; }));
}

TEST_P(FileReaderTest, TheLastOwnerMayGoWithADone) {
  auto file = make_file(directory_.path(), 1 * MiB);
  std::atomic<bool> ended{false};
  {
    auto reader = std::make_shared<FileReader>(options());
    FileReader* const raw = reader.get();
    raw->read(file, 0, 1 * MiB, [&ended, owner = std::move(reader)](Result<FileBytes> got) mutable {
      EXPECT_OK(got);
      owner.reset();
      ended = true;
    });
  }
  EXPECT_TRUE(test::eventually([&] { return ended.load(); }));
}

TEST_P(FileReaderTest, BytesOutliveReaderAndFile) {
  FileBytes kept;
  {
    auto file = make_file(directory_.path(), 4 * MiB);
    FileReader reader(options());
    auto got = reader.read_now(file, 12345, 3 * MiB);
    ASSERT_OK(got);
    kept = std::move(*got);
  }
  EXPECT_TRUE(is_range(kept, 12345, 3 * MiB));
}

TEST_P(FileReaderTest, RefusesWhatIsPastTheEnd) {
  auto file = make_file(directory_.path(), 8192);
  FileReader reader(options());
  constexpr uint64_t kMost = UINT64_MAX;
  for (auto [offset, bytes] : std::vector<std::pair<uint64_t, uint64_t>>{
           {8192, 1}, {0, 8193}, {8193, 0}, {kMost, 2}, {2, kMost}, {kMost, kMost}, {1ull << 63, 1ull << 63}}) {
    EXPECT_CODE(reader.read_now(file, offset, bytes), Code::kOutOfRange) << offset << "+" << bytes;
    std::atomic<bool> ended{false};
    reader.read(file, offset, bytes, [&](Result<FileBytes> got) {
      EXPECT_CODE(got, Code::kOutOfRange);
      ended = true;
    });
    ASSERT_TRUE(test::eventually([&] { return ended.load(); }));
  }
}

TEST_P(FileReaderTest, CarriesShortReadsOn) {
  auto file = make_file(directory_.path(), 1 * MiB);
  FileReader reader(options(4, 256 * KiB));
  for (uint64_t most : {1ull, 4096ull, 5000ull, 100'000ull}) {
    file_faults().short_bytes = most;
    for (auto [offset, bytes] :
         std::vector<std::pair<uint64_t, uint64_t>>{{0, 1 * MiB}, {4097, 100'001}, {4095, 2}, {10, 20}}) {
      auto got = reader.read_now(file, offset, bytes);
      ASSERT_OK(got);
      EXPECT_TRUE(is_range(*got, offset, bytes)) << most << ": " << offset << "+" << bytes;
    }
  }
}

TEST_P(FileReaderTest, AnErrorNamesTheFileAndIsOver) {
  auto file = make_file(directory_.path(), 8 * MiB);
  FileReader reader(options(4, 64 * KiB));
  file_faults().read_error = EIO;
  for (uint64_t bytes : {10ull, 8ull * MiB}) {
    auto got = reader.read_now(file, 0, bytes);
    ASSERT_CODE(got, Code::kSystem);
    EXPECT_NE(got.status().message().find(file->path()), std::string::npos) << got.status().message();
    EXPECT_NE(got.status().message().find(std::strerror(EIO)), std::string::npos) << got.status().message();
  }
  // What the kernel would have us repeat for ever ends, too.
  file_faults().read_error = EAGAIN;
  EXPECT_CODE(reader.read_now(file, 0, 8 * MiB), Code::kSystem);
  file_faults().read_error = 0;
  auto got = reader.read_now(file, 0, 8 * MiB);
  ASSERT_OK(got);
  EXPECT_TRUE(is_range(*got, 0, 8 * MiB));
}

TEST_P(FileReaderTest, AFileThatLostItsEndIsCorrupt) {
  auto file = make_file(directory_.path(), 1 * MiB);
  ASSERT_EQ(truncate(file->path().c_str(), 500'000), 0);
  FileReader reader(options(4, 64 * KiB));
  EXPECT_CODE(reader.read_now(file, 0, 1 * MiB), Code::kCorrupt);
  EXPECT_CODE(reader.read_now(file, 499'999, 2), Code::kCorrupt);
  EXPECT_CODE(reader.read_now(file, 900'000, 10), Code::kCorrupt);
  auto got = reader.read_now(file, 1000, 499'000);
  ASSERT_OK(got);
  EXPECT_TRUE(is_range(*got, 1000, 499'000));
}

TEST_P(FileReaderTest, WhatHasNotBegunIsClosedAndTheRestIsRead) {
  auto file = make_file(directory_.path(), 16 * MiB);
  std::atomic<int> read{0}, closed{0};
  constexpr int kReads = 50;
  {
    FileReader reader(options(2, 64 * KiB));
    for (int i = 0; i < kReads; ++i) {
      reader.read(file, 0, 16 * MiB, [&](Result<FileBytes> got) {
        if (got.ok()) read += is_range(*got, 0, 16 * MiB);
        else closed += got.code() == Code::kClosed;
      });
    }
    // At least one has begun.
    std::atomic<bool> ended{false};
    reader.read(file, 0, 1, [&](Result<FileBytes>) { ended = true; });
    ASSERT_TRUE(test::eventually([&] { return ended.load(); }));
  }
  EXPECT_EQ(read + closed, kReads);
  EXPECT_GT(read, 0);
}

TEST(AlignedBuffers, AreAlignedAndComeBack) {
  test::Random random(test::new_seed("AlignedBuffers.AreAlignedAndComeBack"));
  for (int i = 0; i < 200; ++i) {
    const uint64_t bytes = 1 + random.size(80 * MiB - 1);
    auto buffer = take_aligned_buffer(bytes);
    ASSERT_OK(buffer);
    ASSERT_GE(buffer->capacity_bytes(), bytes);
    ASSERT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % (bytes >= 2 * MiB ? 2 * MiB : 4096), 0u);
    buffer->data()[0] = buffer->data()[bytes - 1] = 1;
    ASSERT_LE(pooled_buffer_bytes(), limits::kFileBufferBytesKept);
  }
  uint8_t* data = nullptr;
  {
    auto buffer = take_aligned_buffer(1 * MiB);
    ASSERT_OK(buffer);
    data = buffer->data();
  }
  auto again = take_aligned_buffer(600 * KiB);
  ASSERT_OK(again);
  EXPECT_EQ(again->data(), data);
}

TEST(AlignedBuffers, ThePoolIsBoundedWhateverComesBack) {
  {
    std::vector<AlignedBuffer> all;
    for (uint64_t bytes = 64 * KiB; bytes <= 64 * MiB; bytes *= 2) {
      for (uint64_t sum = 0; sum <= limits::kFileBufferBytesKept; sum += bytes) {
        auto buffer = take_aligned_buffer(bytes);
        ASSERT_OK(buffer);
        all.push_back(std::move(*buffer));
      }
    }
  }
  EXPECT_LE(pooled_buffer_bytes(), limits::kFileBufferBytesKept);
  EXPECT_GT(pooled_buffer_bytes(), limits::kFileBufferBytesKept / 2);
  EXPECT_CODE(take_aligned_buffer(UINT64_MAX), Code::kResourceExhausted);
  EXPECT_CODE(take_aligned_buffer(1ull << 60), Code::kResourceExhausted);
}

}  // namespace
}  // namespace millrace
