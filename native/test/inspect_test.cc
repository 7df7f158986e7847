// A look at what a node left, without a node.
#include "store/inspect.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "test/file_objects.h"
#include "test/file_support.h"
#include "test/store_support.h"

namespace millrace::test {
namespace {

constexpr Token kToken{0xab, 0xcd};
constexpr const char* kFolder = "abcd0000000000000000000000000000";

class InspectTest : public ::testing::Test {
 protected:
  Store::Options options() const {
    Store::Options options = store_options(64 * MiB, 50);
    options.keep = options.nvme.keep = true;
    options.dram.directory = memory_.path();
    options.nvme.directories = {{disk_.path(), 1 * GiB}};
    options.nvme.node_id = "node-1";
    return options;
  }
  InspectPlaces places(bool verify = false) const {
    return {"job", kToken, {memory_.path() + "/" + kFolder}, {disk_.path() + "/millrace-node-1/" + kFolder}, verify};
  }

  // 20 objects of 500,000 bytes, some of them in files.
  void live() {
    Store store(options());
    ASSERT_OK(store.open());
    auto ns = make_namespace(store, "job", {.token = kToken});
    for (uint64_t i = 0; i < 10; ++i) ASSERT_OK(put(*ns, "k" + std::to_string(i), 1, 500'000));
    store.set_watermarks(0, 0);
    for (int i = 0; i < 2000 && ns->stats().nvme_bytes < 2 * MiB; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    store.set_watermarks(1, 1);
    ASSERT_GE(ns->stats().nvme_bytes, 2 * MiB);
    for (uint64_t i = 10; i < 20; ++i) ASSERT_OK(put(*ns, "k" + std::to_string(i), 1, 500'000));
  }

  // All files below, with their bytes' checksum.
  std::map<std::string, uint32_t> files() const {
    std::map<std::string, uint32_t> all;
    for (const std::string& root : {memory_.path(), disk_.path()}) {
      for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
        if (!entry.is_regular_file() || entry.path().filename() == "index") continue;  // 8 GiB, most of it not there
        std::ifstream file(entry.path(), std::ios::binary);
        const std::string bytes{std::istreambuf_iterator<char>(file), {}};
        all[entry.path().string()] = crc32c(0, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      }
    }
    return all;
  }

  TemporaryDirectory memory_{"/dev/shm"};
  TemporaryDirectory disk_;
};

TEST_F(InspectTest, TellsWhatIsThereAndLeavesIt) {
  live();
  const auto before = files();
  for (const bool verify : {false, true}) {
    auto inspection = inspect(places(verify));
    ASSERT_OK(inspection);
    EXPECT_EQ(inspection->objects, 20u);
    EXPECT_EQ(inspection->size_bytes, 20u * 500'000);
    EXPECT_EQ(inspection->torn, 0u);
    EXPECT_TRUE(inspection->damaged.empty());
    uint64_t in_files = 0, in_memory = 0, objects = 0;
    uint32_t last = 0;
    for (const auto& segment : inspection->segments) {
      EXPECT_GT(segment.number, last);
      last = segment.number;
      EXPECT_LE(segment.live_bytes, segment.bytes);
      EXPECT_EQ(segment.bytes, std::filesystem::file_size(segment.path));
      EXPECT_TRUE(segment.path.starts_with(segment.in_file ? disk_.path() : memory_.path())) << segment.path;
      (segment.in_file ? in_files : in_memory) += segment.live_bytes;
      objects += segment.objects;
    }
    EXPECT_GE(in_files, 4u * 500'000);
    EXPECT_GE(in_memory, 10u * 500'000);
    EXPECT_EQ(objects, 20u);
    EXPECT_EQ(files(), before);
  }
  Store store(options());
  ASSERT_OK(store.open());
  auto recovered = store.recover("job", {.token = kToken});
  ASSERT_OK(recovered);
  EXPECT_EQ(recovered->objects, 20u);
}

TEST_F(InspectTest, SaysWhichObjectsAreDamaged) {
  live();
  auto whole = inspect(places());
  ASSERT_OK(whole);
  std::map<uint32_t, bool> spoilt;  // by segment: in a file
  for (const auto& segment : whole->segments) {
    // Past the headers, in the middle of the first payload.
    const uint64_t offset = kSegmentHeaderBytes + 100'000;
    const bool large = segment.live_bytes > 500'000;
    if (!large || (spoilt.size() == 1 && spoilt.begin()->second == segment.in_file) || spoilt.size() == 2) continue;
    damage(segment.path, offset);
    spoilt[segment.number] = segment.in_file;
  }
  ASSERT_EQ(spoilt.size(), 2u);
  auto unread = inspect(places());
  ASSERT_OK(unread);
  EXPECT_TRUE(unread->damaged.empty());
  auto inspection = inspect(places(true));
  ASSERT_OK(inspection);
  EXPECT_EQ(inspection->objects, 20u);
  ASSERT_EQ(inspection->damaged.size(), 2u);
  for (const auto& damaged : inspection->damaged) {
    EXPECT_EQ(spoilt.erase(damaged.segment), 1u) << damaged.segment;
    EXPECT_TRUE(damaged.key.starts_with("k")) << damaged.key;
    EXPECT_FALSE(damaged.message.empty());
  }
}

TEST_F(InspectTest, SaysWhereNothingIs) {
  EXPECT_CODE(inspect(places()).status(), Code::kNotFound);
  {
    Store store(options());
    ASSERT_OK(store.open());
    auto ns = make_namespace(store, "job", {.token = kToken});
    ASSERT_OK(put(*ns, "k", 1, 100));
  }
  ASSERT_OK(inspect(places()));
  {
    Store store(options());
    ASSERT_OK(store.open());
    ASSERT_OK(store.recover("job", {.token = kToken}));
    ASSERT_OK(store.drop("job"));
  }
  EXPECT_CODE(inspect(places()).status(), Code::kNotFound);
  std::filesystem::create_directories(memory_.path() + "/" + kFolder);
  std::ofstream(memory_.path() + "/" + kFolder + "/index") << "no index";
  EXPECT_CODE(inspect(places()).status(), Code::kCorrupt);
}

}  // namespace
}  // namespace millrace::test
