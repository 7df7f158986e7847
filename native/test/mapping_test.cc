// Mappings and the registry of their addresses.
#include "segment/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <thread>

#include "base/units.h"
#include "test/test_support.h"

namespace millrace {
namespace {

class File {
 public:
  explicit File(uint64_t bytes) : fd_(memfd_create("mapping-test", MFD_CLOEXEC)) {
    EXPECT_GE(fd_, 0);
    EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(bytes)), 0);
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

bool is_mapped(const void* address) {
  unsigned char resident;
  return mincore(const_cast<void*>(address), 4096, &resident) == 0 || errno != ENOMEM;
}

TEST(Mapping, SharesTheFilesBytes) {
  File file(1 * MiB);
  for (bool populate : {false, true}) {
    auto writable = Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kWrite, populate);
    auto readable = Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kRead, populate);
    ASSERT_OK(writable);
    ASSERT_OK(readable);
    EXPECT_EQ((*writable)->bytes(), 1 * MiB);
    (*writable)->data()[12345] = 42;
    (*writable)->data()[1 * MiB - 1] = 43;
    EXPECT_EQ((*readable)->data()[12345], 42);
    EXPECT_EQ((*readable)->data()[1 * MiB - 1], 43);
  }
}

TEST(MappingDeathTest, AReadMappingCannotBeWritten) {
  File file(1 * MiB);
  auto readable = Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kRead, true);
  ASSERT_OK(readable);
  volatile uint8_t* data = (*readable)->data();
  EXPECT_DEATH(data[0] = 1, "");
}

TEST(Mapping, SystemErrorsAreReported) {
  EXPECT_CODE(Mapping::map(-1, 1 * MiB, Mapping::Access::kRead, false), Code::kSystem);
  EXPECT_FALSE(Mapping::map(1 << 20, 1 * MiB, Mapping::Access::kWrite, true).ok());
  File file(1 * MiB);
  EXPECT_FALSE(Mapping::map(file.fd(), 0, Mapping::Access::kRead, false).ok());
  EXPECT_FALSE(Mapping::map(file.fd(), uint64_t{1} << 62, Mapping::Access::kRead, false).ok());
}

TEST(Mapping, IsUnmappedWhenTheLastOwnerLetsGo) {
  File file(1 * MiB);
  auto mapped = Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kWrite, true);
  ASSERT_OK(mapped);
  std::shared_ptr<Mapping> mapping = *mapped;
  mapped = Status(Code::kClosed, "let go");
  const uint8_t* data = mapping->data();
  int calls = 0;
  bool mapped_at_callback = true;
  mapping->on_unmapped([&] {
    ++calls;
    mapped_at_callback = is_mapped(data);
  });
  auto second = mapping;
  mapping.reset();
  EXPECT_EQ(calls, 0);
  EXPECT_TRUE(is_mapped(data));
  second.reset();
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(mapped_at_callback);
}

TEST(PinAddress, FindsTheMappingOfEachOfItsBytes) {
  File file(1 * MiB);
  std::vector<std::shared_ptr<Mapping>> mappings;
  for (int i = 0; i < 20; ++i) mappings.push_back(*Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kRead, false));
  for (const auto& mapping : mappings) {
    for (uint64_t at : {uint64_t{0}, uint64_t{1}, uint64_t{500000}, 1 * MiB - 1}) {
      EXPECT_EQ(pin_address(mapping->data() + at).get(), mapping.get());
    }
  }
}

TEST(PinAddress, IsNullForOrdinaryMemory) {
  File file(1 * MiB);
  auto mapping = *Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kRead, false);
  int local = 0;
  auto heap = std::make_unique<int>(0);
  EXPECT_EQ(pin_address(nullptr), nullptr);
  EXPECT_EQ(pin_address(&local), nullptr);
  EXPECT_EQ(pin_address(heap.get()), nullptr);
  EXPECT_EQ(pin_address(reinterpret_cast<const void*>(~uintptr_t{0})), nullptr);
  EXPECT_NE(pin_address(mapping->data() + 1 * MiB).get(), mapping.get()) << "one past the end";
  EXPECT_NE(pin_address(mapping->data() - 1).get(), mapping.get());
}

TEST(PinAddress, KeepsTheBytesMapped) {
  File file(1 * MiB);
  auto mapping = *Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kWrite, true);
  int unmapped = 0;
  mapping->on_unmapped([&] { ++unmapped; });
  uint8_t* data = mapping->data();
  data[777] = 7;
  auto pin = pin_address(data + 777);
  ASSERT_NE(pin, nullptr);
  mapping.reset();
  EXPECT_EQ(unmapped, 0);
  EXPECT_EQ(data[777], 7);
  EXPECT_NE(pin_address(data), nullptr) << "still mapped, still found";
  pin.reset();
  EXPECT_EQ(unmapped, 1);
  EXPECT_EQ(pin_address(data), nullptr);
}

// An address that one thread pins while another lets the mapping go is either found and readable, or not found.
TEST(PinAddress, RacesWithUnmapping) {
  File file(1 * MiB);
  {
    auto mapping = *Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kWrite, false);
    std::memset(mapping->data(), 0xa5, 1 * MiB);
  }
  std::atomic<const uint8_t*> address{nullptr};
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> found{0}, wrong{0};
  std::vector<std::thread> pinners;
  for (int i = 0; i < 2; ++i) {
    pinners.emplace_back([&] {
      while (!stop.load()) {
        const uint8_t* at = address.load();
        if (at == nullptr) continue;
        auto pin = pin_address(at);
        if (pin == nullptr) continue;
        ++found;
        if (*at != 0xa5) ++wrong;
      }
    });
  }
  for (int round = 0; round < 3000; ++round) {
    auto mapping = *Mapping::map(file.fd(), 1 * MiB, Mapping::Access::kRead, false);
    address.store(mapping->data() + (round * 4097) % (1 * MiB));
    if (round % 8 == 0) std::this_thread::yield();
    mapping.reset();
  }
  stop.store(true);
  for (auto& pinner : pinners) pinner.join();
  EXPECT_EQ(wrong.load(), 0u);
}

}  // namespace
}  // namespace millrace
