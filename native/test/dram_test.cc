// The dram tier: zeroed memory within a limit, descriptors that give no more than they should.
#include "tier/dram.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/limits.h"
#include "base/units.h"
#include "test/test_support.h"

namespace millrace {
namespace {

bool all_zero(const uint8_t* data, uint64_t bytes) {
  return bytes == 0 || (data[0] == 0 && std::memcmp(data, data + 1, bytes - 1) == 0);
}

TEST(DramTier, GivesZeroedMemoryOfTheSizeAskedFor) {
  for (HugePages huge : {HugePages::kOff, HugePages::kAuto}) {
    DramTier tier({.limit_bytes = 256 * MiB, .huge_pages = huge});
    for (uint64_t bytes = limits::kSegmentBytesMin; bytes <= 64 * MiB; bytes *= 2) {
      auto memory = tier.allocate(bytes);
      ASSERT_OK(memory);
      EXPECT_EQ((*memory)->bytes(), bytes);
      EXPECT_TRUE(all_zero((*memory)->data(), bytes));
      (*memory)->data()[bytes - 1] = 1;
      EXPECT_GE(tier.stats().used_bytes, bytes);
    }
  }
}

TEST(DramTier, WhatWasUsedComesBackZeroed) {
  DramTier tier({.limit_bytes = 16 * MiB, .huge_pages = HugePages::kOff});
  for (int round = 0; round < 20; ++round) {
    std::vector<std::shared_ptr<SharedMemory>> all;
    for (;;) {
      auto memory = tier.allocate(2 * MiB);
      if (!memory.ok()) break;
      ASSERT_TRUE(all_zero((*memory)->data(), 2 * MiB)) << "round " << round;
      std::memset((*memory)->data(), 0xab, 2 * MiB);
      all.push_back(*memory);
    }
    ASSERT_EQ(all.size(), 8u) << "round " << round;
  }
}

TEST(DramTier, TheLimitHoldsAndRoomComesBack) {
  DramTier tier({.limit_bytes = 8 * MiB, .huge_pages = HugePages::kOff});
  std::vector<std::shared_ptr<SharedMemory>> all;
  for (int i = 0; i < 4; ++i) {
    auto memory = tier.allocate(2 * MiB);
    ASSERT_OK(memory);
    all.push_back(*memory);
  }
  EXPECT_CODE(tier.allocate(1 * MiB), Code::kResourceExhausted);
  EXPECT_CODE(tier.allocate(256 * MiB), Code::kResourceExhausted);
  EXPECT_LE(tier.stats().used_bytes, 8 * MiB);
  all.pop_back();
  EXPECT_CODE(tier.allocate(4 * MiB), Code::kResourceExhausted);
  auto again = tier.allocate(2 * MiB);
  ASSERT_OK(again);
  again = Status(Code::kClosed, "let go");
  all.clear();
  auto whole = tier.allocate(8 * MiB);
  EXPECT_OK(whole) << "spares must make way";
}

TEST(DramTier, SparesStayWithinTheLimitAndMakeWay) {
  constexpr uint64_t kLimit = 256 * MiB;
  DramTier tier({.limit_bytes = kLimit, .huge_pages = HugePages::kOff});
  tier.prepare(128 * MiB);
  ASSERT_TRUE(test::eventually([&] { return tier.stats().spare_bytes > 0; }));
  for (int i = 0; i < 50; ++i) {
    const auto stats = tier.stats();
    ASSERT_LE(stats.spare_bytes + stats.used_bytes, kLimit);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  auto whole = tier.allocate(kLimit);
  ASSERT_OK(whole);
  EXPECT_EQ(tier.stats().spare_bytes, 0u);
  tier.prepare(1 * GiB);
  for (int i = 0; i < 20; ++i) {
    const auto stats = tier.stats();
    EXPECT_LE(stats.spare_bytes + stats.used_bytes, kLimit);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(DramTier, MemoryOutlivesTheTier) {
  std::shared_ptr<SharedMemory> memory;
  {
    DramTier tier({.limit_bytes = 8 * MiB, .huge_pages = HugePages::kOff});
    memory = *tier.allocate(4 * MiB);
    std::memset(memory->data(), 0x11, 4 * MiB);
  }
  EXPECT_EQ(memory->data()[4 * MiB - 1], 0x11);
  struct stat file;
  EXPECT_EQ(fstat(memory->fd(), &file), 0);
}

TEST(DramTier, ThreadsShareTheLimit) {
  DramTier tier({.limit_bytes = 16 * MiB, .huge_pages = HugePages::kOff});
  std::atomic<uint64_t> out{0};
  std::atomic<int> over{0}, dirty{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      test::Random random(t);
      std::vector<std::shared_ptr<SharedMemory>> mine;
      for (int i = 0; i < (test::kSanitized ? 60 : 200); ++i) {
        if (mine.size() > 3 || random.chance(3)) {
          if (!mine.empty()) {
            out -= mine.back()->bytes();
            mine.pop_back();
          }
        }
        auto memory = tier.allocate(uint64_t{1} << random.between(20, 22));
        if (!memory.ok()) continue;
        if ((out += (*memory)->bytes()) > 16 * MiB) ++over;
        if ((*memory)->data()[4096] != 0) ++dirty;
        (*memory)->data()[4096] = 1;
        mine.push_back(*memory);
      }
      for (auto& memory : mine) out -= memory->bytes();
      mine.clear();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(over.load(), 0);
  EXPECT_EQ(dirty.load(), 0);
}

void expect_read_only(int fd, uint64_t bytes) {
  EXPECT_EQ(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_EQ(errno, EACCES);
  void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  EXPECT_NE(mprotect(mapped, bytes, PROT_READ | PROT_WRITE), 0) << "a reader may not make itself a writer";
  munmap(mapped, bytes);
  EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
  EXPECT_NE(ftruncate(fd, 0), 0);
}

TEST(SharedMemory, AReadOnlyDescriptorOnlyReads) {
  for (HugePages huge : {HugePages::kOff, HugePages::kAuto}) {
    DramTier tier({.limit_bytes = 8 * MiB, .huge_pages = huge});
    auto memory = *tier.allocate(2 * MiB);
    memory->data()[100] = 55;
    auto fd = memory->read_only_fd();
    ASSERT_OK(fd);
    expect_read_only(*fd, 2 * MiB);
    auto* mapped = static_cast<uint8_t*>(mmap(nullptr, 2 * MiB, PROT_READ, MAP_SHARED, *fd, 0));
    ASSERT_NE(static_cast<void*>(mapped), MAP_FAILED);
    EXPECT_EQ(mapped[100], 55);
    // Its mapping lives on without descriptor and owner: the kernel counts.
    close(*fd);
    memory.reset();
    EXPECT_EQ(mapped[100], 55);
    munmap(mapped, 2 * MiB);
  }
}

// A client that has a writable descriptor could otherwise cut the file under the daemon's mapping, and the
// daemon would die of SIGBUS at its next access.
TEST(SharedMemory, AWriterCannotChangeTheFilesSize) {
  DramTier tier({.limit_bytes = 8 * MiB, .huge_pages = HugePages::kOff});
  auto memory = *tier.allocate(2 * MiB);
  EXPECT_NE(ftruncate(memory->fd(), 0), 0);
  EXPECT_NE(ftruncate(memory->fd(), 4 * MiB), 0);
  EXPECT_NE(ftruncate(memory->fd(), 2 * MiB - 4096), 0);
  EXPECT_NE(fcntl(memory->fd(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0) << "nor keep others from writing later";
  memory->data()[2 * MiB - 1] = 1;
  auto sparse = SharedMemory::create_sparse("sparse-test", 1 * GiB);
  ASSERT_OK(sparse);
  EXPECT_NE(ftruncate((*sparse)->fd(), 0), 0);
  (*sparse)->data()[1 * GiB - 1] = 1;
}

TEST(SharedMemory, SparseFilesTakeWhatIsTouched) {
  auto memory = SharedMemory::create_sparse("sparse-test", limits::kIndexBytesMax);
  ASSERT_OK(memory);
  EXPECT_EQ((*memory)->bytes(), limits::kIndexBytesMax);
  (*memory)->data()[0] = 1;
  (*memory)->data()[limits::kIndexBytesMax - 1] = 2;
  struct stat file;
  ASSERT_EQ(fstat((*memory)->fd(), &file), 0);
  EXPECT_LE(static_cast<uint64_t>(file.st_blocks) * 512, 16 * MiB);
  auto fd = (*memory)->read_only_fd();
  ASSERT_OK(fd);
  expect_read_only(*fd, 1 * MiB);
  close(*fd);
}

}  // namespace
}  // namespace millrace
