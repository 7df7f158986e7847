// The nvme tier: files that are whole or not there, budgets, directories that fail and recover, nodes that die.
#include "tier/nvme.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include <cerrno>

#include "base/units.h"
#include "test/file_support.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using test::Content;
using test::NoFaultsAfter;
using test::TemporaryDirectory;
using test::TemporaryMount;

class NvmeTest : public ::testing::TestWithParam<FileBackend> {
 protected:
  NvmeTier::Options options(std::vector<NvmeTier::Directory> directories = {}, std::string node = "a") const {
    if (directories.empty()) directories = {{directory_.path(), 256 * MiB}};
    return {.directories = std::move(directories), .node_id = std::move(node), .piece_bytes = 64 * KiB,
            .backend = GetParam(), .retry_after_ms = 60'000};
  }
  NoFaultsAfter no_faults_after_;
  TemporaryDirectory directory_;
};
INSTANTIATE_TEST_SUITE_P(Backends, NvmeTest, ::testing::ValuesIn(test::file_backends()), test::backend_name);

Result<std::shared_ptr<SegmentFile>> write_file(NvmeTier& tier, std::string_view folder, std::string_view name,
                                                uint64_t bytes, uint64_t version = 1) {
  auto writer = tier.create(folder, name, bytes);
  if (!writer.ok()) return writer.status();
  const auto data = Content(name, version).bytes(bytes);
  if (Status status = (*writer)->append(data.data(), bytes); !status.ok()) return status;
  return (*writer)->finish();
}

bool holds(const std::shared_ptr<SegmentFile>& file, std::string_view name, uint64_t bytes, uint64_t version = 1) {
  FileReader reader;
  auto got = reader.read_now(file, 0, bytes);
  return got.ok() && Content(name, version).matches(got->data, bytes);
}

uint64_t files_under(const std::string& path) {
  uint64_t count = 0;
  for (const auto& entry : fs::recursive_directory_iterator(path)) {
    const std::string name = entry.path().filename();
    count += entry.is_regular_file() && name != "lock" && name != "kept";
  }
  return count;
}

TEST_P(NvmeTest, WritesWhatItIsGivenAndTheChecksumOfIt) {
  test::Random random(test::new_seed("Nvme.WritesWhatItIsGivenAndTheChecksumOfIt"));
  for (const std::string& under : {fs::temp_directory_path().string(), std::string("/dev/shm")}) {
    if (!fs::is_directory(under)) continue;
    TemporaryDirectory directory(under);
    NvmeTier tier(options({{directory.path(), 256 * MiB}}));
    ASSERT_OK(tier.open());
    for (int round = 0; round < 12; ++round) {
      const uint64_t limit = 1 + random.below(4 * MiB);
      if (round % 3 == 1) file_faults().short_bytes = 1 + random.below(20'000);
      auto writer = tier.create("folder", "file" + std::to_string(round), limit);
      ASSERT_OK(writer);
      std::vector<uint8_t> expected;
      const Content content("x", static_cast<uint64_t>(round));
      while (expected.size() < limit && !random.chance(12)) {
        uint64_t bytes = std::min<uint64_t>(random.size(1 * MiB), limit - expected.size());
        if (random.chance(5)) {
          const uint64_t alignment = uint64_t{1} << random.below(13);
          if (align_up(expected.size(), alignment) > limit) continue;
          ASSERT_OK((*writer)->pad(alignment));
          expected.resize(align_up(expected.size(), alignment));
        } else {
          std::vector<uint8_t> part(bytes);
          content.fill(part.data(), bytes, expected.size());
          // The checksum goes on over several appends, as one over a whole object does.
          uint32_t crc = 7;
          const uint64_t first = bytes > 0 ? random.below(bytes) : 0;
          ASSERT_OK((*writer)->append(part.data(), first, &crc));
          ASSERT_OK((*writer)->append(part.data() + first, bytes - first, &crc));
          ASSERT_EQ(crc, crc32c(7, part.data(), bytes));
          expected.insert(expected.end(), part.begin(), part.end());
        }
        ASSERT_EQ((*writer)->position(), expected.size());
      }
      auto file = (*writer)->finish();
      ASSERT_OK(file);
      NoFaultsAfter::clear();
      EXPECT_EQ((*file)->bytes(), align_up(expected.size(), 4096));
      EXPECT_EQ(fs::file_size((*file)->path()), (*file)->bytes());
      EXPECT_EQ(tier.stats().used_bytes, (*file)->bytes());
      FileReader reader;
      auto got = reader.read_now(*file, 0, (*file)->bytes());
      ASSERT_OK(got);
      expected.resize((*file)->bytes());
      ASSERT_TRUE(expected.empty() || std::memcmp(got->data, expected.data(), expected.size()) == 0);
    }
    EXPECT_EQ(tier.stats().used_bytes, 0u);
    EXPECT_GT(tier.stats().written_bytes, 0u);
    EXPECT_EQ(files_under(directory.path()), 0u) << "what nobody keeps is removed";
  }
}

TEST_P(NvmeTest, AppendsNoMoreThanAskedFor) {
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  auto writer = tier.create("f", "n", 5000);
  ASSERT_OK(writer);
  std::vector<uint8_t> data(9000, 1);
  ASSERT_OK((*writer)->append(data.data(), 8000));
  EXPECT_CODE((*writer)->append(data.data(), 193), Code::kOutOfRange);
  EXPECT_CODE((*writer)->pad(16384), Code::kOutOfRange);
  EXPECT_EQ((*writer)->position(), 8000u);
  ASSERT_OK((*writer)->append(data.data(), 192));
  auto file = (*writer)->finish();
  ASSERT_OK(file);
  EXPECT_EQ((*file)->bytes(), 8192u);
  EXPECT_OK(tier.fault());
}

TEST_P(NvmeTest, NamesAreChecked) {
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  for (std::string bad : {"", ".", "..", "a/b", "x.tmp", "lock", "kept", "../../etc"}) {
    EXPECT_CODE(tier.create(bad, "n", 4096), Code::kInvalidArgument) << bad;
    EXPECT_CODE(tier.create("f", bad, 4096), Code::kInvalidArgument) << bad;
    EXPECT_CODE(tier.find("f", bad), Code::kInvalidArgument) << bad;
    EXPECT_TRUE(tier.list(bad).empty());
    tier.remove_folder(bad);
  }
  EXPECT_CODE(tier.create("f", "n", 0), Code::kInvalidArgument);
  EXPECT_CODE(tier.create("f", "n", UINT64_MAX), Code::kInvalidArgument);
  EXPECT_CODE(tier.find("f", "n"), Code::kNotFound);
  NvmeTier bad_node(options({}, "x/../y"));
  EXPECT_CODE(bad_node.open(), Code::kInvalidArgument);
  NvmeTier none({});
  EXPECT_FALSE(none.enabled());
  EXPECT_OK(none.open());
  EXPECT_CODE(none.create("f", "n", 4096), Code::kUnavailable);
  EXPECT_CODE(none.fault(), Code::kUnavailable);
}

TEST_P(NvmeTest, AnUnfinishedFileLeavesNothing) {
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  {
    auto writer = tier.create("f", "n", 8 * MiB);
    ASSERT_OK(writer);
    std::vector<uint8_t> data(3 * MiB + 5, 1);
    ASSERT_OK((*writer)->append(data.data(), data.size()));
    EXPECT_EQ(tier.stats().used_bytes, 8 * MiB);
    EXPECT_TRUE(tier.list("f").empty()) << "it is not there before it is whole";
    EXPECT_CODE(tier.create("f", "n", 4096), Code::kAlreadyExists);
    EXPECT_EQ(tier.stats().used_bytes, 8 * MiB);
  }
  EXPECT_EQ(tier.stats().used_bytes, 0u);
  EXPECT_EQ(files_under(directory_.path()), 0u);
  EXPECT_OK(write_file(tier, "f", "n", 3 * MiB));
}

TEST_P(NvmeTest, BudgetsHoldAndTheEmptierDirectoryIsTaken) {
  TemporaryDirectory second;
  NvmeTier tier(options({{directory_.path(), 8 * MiB}, {second.path(), 12 * MiB}}));
  ASSERT_OK(tier.open());
  EXPECT_EQ(tier.stats().limit_bytes, 20 * MiB);
  std::vector<std::shared_ptr<SegmentFile>> files;
  for (int i = 0; i < 5; ++i) {
    auto file = write_file(tier, "f", std::to_string(i), 4 * MiB);
    ASSERT_OK(file);
    files.push_back(*file);
  }
  const auto stats = tier.stats();
  EXPECT_EQ(stats.directories[0].used_bytes, 8 * MiB);
  EXPECT_EQ(stats.directories[1].used_bytes, 12 * MiB);
  EXPECT_EQ(stats.used_bytes, 20 * MiB);
  EXPECT_CODE(tier.create("f", "more", 1), Code::kResourceExhausted);
  EXPECT_EQ(tier.list("f"), (std::vector<std::string>{"0", "1", "2", "3", "4"}));
  EXPECT_EQ(tier.folders(), std::vector<std::string>{"f"});
  EXPECT_OK(tier.fault()) << "full is not faulty";
  files.erase(files.begin());
  EXPECT_OK(write_file(tier, "f", "more", 4 * MiB));
  files.clear();
  EXPECT_EQ(tier.stats().used_bytes, 0u);
}

TEST_P(NvmeTest, TheCallbackOfAFileIsItsKeepers) {
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  auto file = write_file(tier, "f", "n", 4096);
  ASSERT_OK(file);
  bool freed = false;
  (*file)->on_freed([&] { freed = true; });
  *file = nullptr;
  EXPECT_TRUE(freed);
  EXPECT_EQ(tier.stats().used_bytes, 0u);
}

TEST_P(NvmeTest, AFailedWriteMarksItsDirectoryUntilARetrySucceeds) {
  TemporaryDirectory second;
  auto given = options({{directory_.path(), 64 * MiB}, {second.path(), 32 * MiB}});
  given.retry_after_ms = 60'000;
  NvmeTier tier(given);
  ASSERT_OK(tier.open());
  file_faults().writes_before = 3;
  file_faults().write_error = EIO;
  // The first directory has more room.
  auto file = write_file(tier, "f", "n", 2 * MiB);
  ASSERT_CODE(file, Code::kUnavailable);
  EXPECT_NE(file.status().message().find(directory_.path()), std::string::npos) << file.status().message();
  EXPECT_NE(file.status().message().find(std::strerror(EIO)), std::string::npos) << file.status().message();
  EXPECT_EQ(files_under(directory_.path()), 0u);
  EXPECT_EQ(tier.stats().used_bytes, 0u);
  EXPECT_NE(tier.stats().directories[0].fault, "");
  EXPECT_EQ(tier.stats().directories[1].fault, "");
  EXPECT_OK(tier.fault()) << "the other one takes it";
  NoFaultsAfter::clear();
  auto other = write_file(tier, "f", "other", 2 * MiB);
  ASSERT_OK(other);
  EXPECT_EQ(tier.stats().directories[1].used_bytes, 2 * MiB);
  EXPECT_CODE(tier.create("f", "large", 40 * MiB), Code::kUnavailable) << "only the marked one has the room";
  EXPECT_CODE(tier.create("f", "larger", 65 * MiB), Code::kResourceExhausted);

  file_faults().write_error = ENOSPC;
  ASSERT_CODE(write_file(tier, "f", "n", 2 * MiB), Code::kUnavailable);
  EXPECT_CODE(tier.fault(), Code::kUnavailable);
  EXPECT_NE(tier.fault().message().find(std::strerror(ENOSPC)), std::string::npos) << tier.fault().message();
  NoFaultsAfter::clear();
  EXPECT_CODE(tier.create("f", "n", 4096), Code::kUnavailable) << "not yet";
  EXPECT_TRUE(holds(*other, "other", 2 * MiB)) << "what lies there is read";
}

TEST_P(NvmeTest, ARetryThatSucceedsClearsTheMark) {
  auto given = options();
  given.retry_after_ms = 20;
  NvmeTier tier(given);
  ASSERT_OK(tier.open());
  file_faults().write_error = EIO;
  ASSERT_CODE(write_file(tier, "f", "n", 1 * MiB), Code::kUnavailable);
  EXPECT_NE(tier.stats().directories[0].fault, "");
  // Each retry fails as long as the fault is there.
  int failed = 0;
  ASSERT_TRUE(test::eventually([&] {
    failed += !write_file(tier, "f", "n", 1 * MiB).ok();
    return failed >= 3;
  }));
  EXPECT_NE(tier.stats().directories[0].fault, "");
  NoFaultsAfter::clear();
  ASSERT_TRUE(test::eventually([&] { return write_file(tier, "f", "n", 1 * MiB).ok(); }));
  EXPECT_EQ(tier.stats().directories[0].fault, "");
  EXPECT_OK(tier.fault());
}

TEST_P(NvmeTest, AFullDeviceIsFoundBeforeAnythingIsWritten) {
  TemporaryMount small("size=4m");
  if (!small.mounted()) GTEST_SKIP() << "this process may not mount";
  auto given = options({{small.path(), 64 * MiB}, {directory_.path(), 16 * MiB}});
  given.retry_after_ms = 20;
  NvmeTier tier(given);
  ASSERT_OK(tier.open());
  auto file = write_file(tier, "f", "n", 8 * MiB);
  ASSERT_OK(file) << "the other directory takes it";
  EXPECT_EQ(tier.stats().directories[1].used_bytes, 8 * MiB);
  EXPECT_NE(tier.stats().directories[0].fault.find(std::strerror(ENOSPC)), std::string::npos);
  EXPECT_EQ(files_under(small.path()), 0u);
  // What fits, fits again.
  ASSERT_TRUE(test::eventually([&] {
    auto fits = write_file(tier, "f", "fits", 1 * MiB);
    return fits.ok() && (*fits)->path().starts_with(small.path());
  }));
  EXPECT_EQ(tier.stats().directories[0].fault, "");
}

TEST_P(NvmeTest, AReadOnlyDirectory) {
  TemporaryMount mount("size=16m");
  if (!mount.mounted()) GTEST_SKIP() << "this process may not mount";
  {
    auto given = options({{mount.path(), 16 * MiB}});
    given.retry_after_ms = 20;
    NvmeTier tier(given);
    ASSERT_OK(tier.open());
    auto file = write_file(tier, "f", "n", 1 * MiB);
    ASSERT_OK(file);
    ASSERT_TRUE(mount.read_only(true));
    auto refused = tier.create("f", "m", 1 * MiB);
    ASSERT_CODE(refused, Code::kUnavailable);
    EXPECT_NE(refused.status().message().find(std::strerror(EROFS)), std::string::npos) << refused.status().message();
    EXPECT_TRUE(holds(*file, "n", 1 * MiB));
    ASSERT_TRUE(mount.read_only(false));
    ASSERT_TRUE(test::eventually([&] { return write_file(tier, "f", "m", 1 * MiB).ok(); }));
  }
  ASSERT_TRUE(mount.read_only(true));
  NvmeTier tier(options({{mount.path(), 16 * MiB}}));
  const Status status = tier.open();
  EXPECT_CODE(status, Code::kSystem);
  EXPECT_NE(status.message().find(mount.path()), std::string::npos) << status.message();
}

TEST_P(NvmeTest, ADirectoryThatCannotBe) {
  const std::string file = directory_.path() + "/file";
  close(open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  for (const std::string& path : {file, file + "/below", std::string("/proc/nothing/here")}) {
    NvmeTier tier(options({{path, 16 * MiB}}));
    const Status status = tier.open();
    EXPECT_CODE(status, Code::kSystem) << path;
    EXPECT_NE(status.message().find(path), std::string::npos) << status.message();
  }
  NvmeTier deep(options({{directory_.path() + "/made/on/the/way", 16 * MiB}}));
  ASSERT_OK(deep.open());
  EXPECT_OK(write_file(deep, "f", "n", 4096));
}

TEST_P(NvmeTest, WhatIsKeptIsFoundAgain) {
  test::Random random(test::new_seed("Nvme.WhatIsKeptIsFoundAgain"));
  TemporaryDirectory second;
  auto given = options({{directory_.path(), 64 * MiB}, {second.path(), 64 * MiB}});
  given.keep = true;
  std::vector<uint64_t> sizes;
  uint64_t sum = 0;
  {
    NvmeTier tier(given);
    ASSERT_OK(tier.open());
    std::vector<std::shared_ptr<SegmentFile>> files;
    for (int i = 0; i < 6; ++i) {
      sizes.push_back(1 + random.below(3 * MiB));
      auto file = write_file(tier, i < 3 ? "f" : "g", std::to_string(i), sizes.back());
      ASSERT_OK(file);
      sum += (*file)->bytes();
      if (i != 5) (*file)->keep();
      else sum -= (*file)->bytes();
      files.push_back(*file);
    }
    // A process that is killed leaves such a file.
    close(open((fs::path(files[0]->path()).parent_path() / "9.tmp").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  }
  {
    NvmeTier tier(given);
    ASSERT_OK(tier.open());
    EXPECT_EQ(tier.folders(), (std::vector<std::string>{"f", "g"}));
    EXPECT_EQ(tier.list("f"), (std::vector<std::string>{"0", "1", "2"}));
    EXPECT_EQ(tier.list("g"), (std::vector<std::string>{"3", "4"}));
    EXPECT_EQ(files_under(directory_.path()) + files_under(second.path()), 5u) << "the unfinished one is gone";
    std::vector<std::shared_ptr<SegmentFile>> files;
    for (int i = 0; i < 5; ++i) {
      auto file = tier.find(i < 3 ? "f" : "g", std::to_string(i));
      ASSERT_OK(file);
      EXPECT_TRUE(holds(*file, std::to_string(i), sizes[static_cast<size_t>(i)]));
      files.push_back(*file);
    }
    EXPECT_EQ(tier.stats().used_bytes, sum);
    tier.remove_folder("g");
    EXPECT_EQ(tier.folders(), std::vector<std::string>{"f"});
    EXPECT_CODE(tier.find("g", "3"), Code::kNotFound);
    EXPECT_TRUE(holds(files[3], "3", sizes[3])) << "who has it open reads on";
    files[0]->keep();
  }
  given.keep = false;
  NvmeTier fresh(given);
  ASSERT_OK(fresh.open());
  EXPECT_TRUE(fresh.folders().empty());
}

TEST_P(NvmeTest, AFolderRemovedUnderAWriterFailsNobodyElse) {
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  auto writer = tier.create("f", "n", 1 * MiB);
  ASSERT_OK(writer);
  tier.remove_folder("f");
  std::vector<uint8_t> data(1 * MiB, 3);
  ASSERT_OK((*writer)->append(data.data(), data.size()));
  EXPECT_FALSE((*writer)->finish().ok());
  writer->reset();
  EXPECT_OK(tier.fault());
  EXPECT_EQ(tier.stats().used_bytes, 0u);
  EXPECT_OK(write_file(tier, "f", "n", 1 * MiB));
}

TEST_P(NvmeTest, FilesAndWritersMayOutliveTheTier) {
  auto tier = std::make_unique<NvmeTier>(options());
  ASSERT_OK(tier->open());
  auto file = write_file(*tier, "f", "n", 1 * MiB);
  ASSERT_OK(file);
  auto writer = tier->create("f", "m", 1 * MiB);
  ASSERT_OK(writer);
  tier.reset();
  EXPECT_TRUE(fs::is_empty(directory_.path()));
  EXPECT_TRUE(holds(*file, "n", 1 * MiB));
  std::vector<uint8_t> data(1 * MiB, 3);
  ASSERT_OK((*writer)->append(data.data(), data.size()));
  EXPECT_FALSE((*writer)->finish().ok());
}

TEST_P(NvmeTest, ANodeThatRunsKeepsItsFolder) {
  NvmeTier first(options());
  ASSERT_OK(first.open());
  auto file = write_file(first, "f", "n", 1 * MiB);
  ASSERT_OK(file);
  NvmeTier same(options());
  const Status status = same.open();
  EXPECT_CODE(status, Code::kAlreadyExists);
  EXPECT_NE(status.message().find("millrace-a"), std::string::npos) << status.message();
  NvmeTier other(options({}, "b"));
  ASSERT_OK(other.open());
  EXPECT_EQ(first.list("f"), std::vector<std::string>{"n"});
  EXPECT_TRUE(other.folders().empty());
}

TEST_P(NvmeTest, TheFolderOfADeadNodeGoesUnlessItIsKept) {
  // Nodes that end without a word: the lock goes with the process.
  for (bool keep : {true, false}) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto given = options({}, keep ? "kept" : "dead");
      given.keep = keep;
      given.backend = FileBackend::kThreads;
      NvmeTier tier(given);
      if (!tier.open().ok()) _exit(1);
      auto file = write_file(tier, "f", "n", 1 * MiB);
      if (!file.ok()) _exit(2);
      auto unfinished = tier.create("f", "m", 1 * MiB);
      _exit(unfinished.ok() ? 0 : 3);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }
  // Not ours to touch.
  fs::create_directories(directory_.path() + "/millrace-of-someone/data");
  EXPECT_TRUE(fs::exists(directory_.path() + "/millrace-dead/f/n"));
  EXPECT_TRUE(fs::exists(directory_.path() + "/millrace-dead/f/m.tmp"));
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  EXPECT_FALSE(fs::exists(directory_.path() + "/millrace-dead"));
  EXPECT_TRUE(fs::exists(directory_.path() + "/millrace-of-someone/data"));
  EXPECT_TRUE(fs::exists(directory_.path() + "/millrace-kept/f/n"));

  auto given = options({}, "kept");
  given.keep = true;
  NvmeTier again(given);
  ASSERT_OK(again.open());
  EXPECT_EQ(again.list("f"), std::vector<std::string>{"n"});
  EXPECT_FALSE(fs::exists(directory_.path() + "/millrace-kept/f/m.tmp"));
  auto file = again.find("f", "n");
  ASSERT_OK(file);
  EXPECT_TRUE(holds(*file, "n", 1 * MiB));
}

TEST_P(NvmeTest, NodesThatStartTogetherLeaveEachOtherAlone) {
  constexpr int kNodes = 6;
  for (int round = 0; round < 5; ++round) {
    std::vector<std::thread> threads;
    std::atomic<int> good{0};
    std::atomic<int> open{0};
    for (int i = 0; i < kNodes; ++i) {
      threads.emplace_back([&, i] {
        NvmeTier tier(options({}, std::to_string(i)));
        const bool opened = tier.open().ok();
        ++open;
        Result<std::shared_ptr<SegmentFile>> file(Code::kInternal, "");
        if (opened) file = write_file(tier, "f", "n", 100'000);
        // All clean up while the others write.
        while (open < kNodes) std::this_thread::yield();
        good += file.ok() && fs::exists((*file)->path());
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(good, kNodes);
  }
  EXPECT_TRUE(fs::is_empty(directory_.path()));
}

TEST_P(NvmeTest, WritersOfManyThreads) {
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  constexpr int kThreads = 4;
  constexpr int kFiles = 5;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kFiles; ++i) {
        const std::string name = std::to_string(t) + "-" + std::to_string(i);
        auto file = write_file(tier, "f", name, 1'500'000, static_cast<uint64_t>(t));
        good += file.ok() && holds(*file, name, 1'500'000, static_cast<uint64_t>(t));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, kThreads * kFiles);
  EXPECT_EQ(tier.stats().used_bytes, 0u);
}

TEST_P(NvmeTest, AClientReadsThroughADescriptorItWasHanded) {
  NvmeTier tier(options());
  ASSERT_OK(tier.open());
  auto file = write_file(tier, "f", "n", 300'000);
  ASSERT_OK(file);
  const uint64_t bytes = (*file)->bytes();
  auto handed = std::make_shared<SegmentFile>(dup((*file)->fd()), bytes);
  EXPECT_LT(write(handed->fd(), "x", 1), 0) << "it is read-only";
  *file = nullptr;
  EXPECT_EQ(files_under(directory_.path()), 0u);
  EXPECT_TRUE(holds(handed, "n", 300'000)) << "the kernel keeps what is open";
}

}  // namespace
}  // namespace millrace
