// A node that was killed, and what the next one finds: in child processes that die by SIGKILL while they work.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

#include "test/file_objects.h"
#include "test/file_support.h"
#include "test/store_support.h"

namespace millrace::test {
namespace {

constexpr Token kToken{9, 8, 7, 6, 5, 4, 3, 2, 1};

class RecoveryTest : public ::testing::Test {
 protected:
  Store::Options options(uint64_t dram_bytes = 64 * MiB) const {
    Store::Options options = store_options(dram_bytes, 50);
    options.keep = options.nvme.keep = true;
    options.dram.directory = memory_.path() + "/node";
    options.nvme.directories = {{disk_.path(), 2 * GiB}};
    options.nvme.node_id = "node-1";
    return options;
  }

  // Operations as they are told by the child, after each is acknowledged.
  struct Told {
    uint32_t key;
    uint64_t version;  // 0: removed
    uint64_t bytes;
    bool begun;        // not acknowledged yet
  };

  // Works in a child that is killed after about `live_us`, on what an earlier one left where there is any.
  std::vector<Told> work_and_die(uint64_t seed, uint64_t live_us, uint64_t first_version) {
    int pipe_fds[2];
    if (pipe(pipe_fds) != 0) std::abort();
    const pid_t child = fork();
    if (child == 0) {
      close(pipe_fds[0]);
      std::mt19937_64 random(seed);
      Store store(options());
      if (!store.open().ok()) _exit(3);
      auto recovered = store.recover("job", {.token = kToken});
      auto ns = recovered.ok() ? recovered->ns : make_namespace(store, "job", {.token = kToken});
      const auto tell = [&](const Told& told) {
        if (write(pipe_fds[1], &told, sizeof(told)) != sizeof(told)) _exit(4);
      };
      for (uint64_t version = first_version;; ++version) {
        Told told{static_cast<uint32_t>(random() % 20000), version, 0, true};
        const std::string key = "k" + std::to_string(told.key);
        if (random() % 6 == 0) {
          told.version = 0;
          tell(told);
          if (!ns->remove(key, {}).ok()) _exit(5);
        } else {
          const uint64_t shapes[] = {random() % 300, random() % 300, random() % 300, random() % (40 * KiB), random() % (1 * MiB)};
          told.bytes = shapes[random() % 5];
          tell(told);
          if (!put_waiting(*ns, key, version, told.bytes).ok()) _exit(6);
        }
        told.begun = false;
        tell(told);
      }
    }
    close(pipe_fds[1]);
    std::vector<Told> told;
    std::thread listener([&] {
      Told one;
      while (read(pipe_fds[0], &one, sizeof(one)) == sizeof(one)) told.push_back(one);
    });
    usleep(static_cast<useconds_t>(live_us));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);
    listener.join();
    close(pipe_fds[0]);
    return told;
  }

  // Runs `work` in a child that then dies by SIGKILL, whatever it has under way.
  template <class Work>
  void die_after(Work work) {
    const pid_t child = fork();
    if (child == 0) {
      Store store(options());
      if (!store.open().ok()) _exit(3);
      work(store);
      // Not one of the child's checks is seen here: it says by its end that they held.
      if (::testing::Test::HasFailure()) _exit(4);
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);
  }

  std::string folder() const { return memory_.path() + "/node/" + "09080706050403020100000000000000"; }
  std::vector<std::string> files_of(const std::string& path) const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  TemporaryDirectory memory_{"/dev/shm"};
  TemporaryDirectory disk_;
};

std::vector<uint8_t> text_of(const std::string& text) { return {text.begin(), text.end()}; }

TEST_F(RecoveryTest, WhatWasAcknowledgedIsThereAfterEveryKill) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  struct State {
    uint64_t version, bytes;
  };
  std::map<uint32_t, std::vector<State>> may_be;  // any of these; version 0: absent
  uint64_t version = 1;
  for (int round = 0; round < 12; ++round) {
    const auto told = work_and_die(seed + static_cast<uint64_t>(round), 1000 + random() % 400'000, version);
    for (const Told& one : told) {
      auto& states = may_be[one.key];
      if (states.empty()) states.push_back({0, 0});
      if (one.begun) states.push_back({one.version, one.bytes});
      else states = {{one.version, one.bytes}};
      version = std::max(version, one.version + 1);
    }
    ++version;  // the child may have begun one that it could not tell
    Store store(options());
    ASSERT_OK(store.open());
    auto recovered = store.recover("job", {.token = kToken});
    if (may_be.empty() && recovered.code() == Code::kNotFound) continue;
    ASSERT_OK(recovered);
    EXPECT_EQ(recovered->torn, 0u);
    store.remove_orphans();
    for (auto& [key, states] : may_be) {
      const std::string name = "k" + std::to_string(key);
      auto read = read_all_of(store, *recovered->ns, name);
      if (!read.ok()) {
        ASSERT_CODE(read.status(), Code::kNotFound);
        ASSERT_TRUE(std::any_of(states.begin(), states.end(), [](const State& state) { return state.version == 0; }))
            << name << " is lost in round " << round;
        states = {{0, 0}};
        continue;
      }
      const std::vector<uint8_t>& bytes = *read;
      auto is = std::find_if(states.begin(), states.end(), [&](const State& state) {
        return state.version != 0 && state.bytes == bytes.size() && Content(name, state.version).bytes(state.bytes) == bytes;
      });
      ASSERT_NE(is, states.end()) << name << " has bytes that nobody put, round " << round;
      states = {*is};
    }
  }
}

TEST_F(RecoveryTest, AnOrderlyEndKeepsEverythingToo) {
  for (int life = 0; life < 3; ++life) {
    Store store(options());
    ASSERT_OK(store.open());
    std::shared_ptr<Namespace> ns;
    if (life == 0) {
      EXPECT_CODE(store.recover("job", {.token = kToken}).status(), Code::kNotFound);
      ns = make_namespace(store, "job", {.token = kToken});
      for (uint64_t i = 0; i < 100; ++i) ASSERT_OK(put_waiting(*ns, "k" + std::to_string(i), i, 1 * MiB));
    } else {
      auto recovered = store.recover("job", {.token = kToken});
      ASSERT_OK(recovered);
      EXPECT_EQ(recovered->objects, 100u);
      ns = recovered->ns;
    }
    EXPECT_EQ(ns->stats().objects, 100u);
    EXPECT_EQ(ns->stats().size_bytes, 100 * MiB);
    ASSERT_OK(put(*ns, "again", static_cast<uint64_t>(life), 10));
    ASSERT_OK(ns->remove("again", {}));
  }
}

TEST_F(RecoveryTest, ADroppedNamespaceLeavesNothing) {
  {
    Store store(options());
    ASSERT_OK(store.open());
    auto ns = make_namespace(store, "job", {.token = kToken});
    ASSERT_OK(put(*ns, "k", 1, 100 * KiB));
    ASSERT_OK(store.drop("job"));
  }
  Store store(options());
  ASSERT_OK(store.open());
  EXPECT_CODE(store.recover("job", {.token = kToken}).status(), Code::kNotFound);
  store.remove_orphans();
  for (const auto& entry : std::filesystem::recursive_directory_iterator(memory_.path())) {
    EXPECT_FALSE(entry.is_regular_file()) << entry.path();
  }
}

TEST_F(RecoveryTest, AHeaderThatWasSpoiltIsLeftOut) {
  std::string path;
  {
    Store store(options());
    ASSERT_OK(store.open());
    auto ns = make_namespace(store, "job", {.token = kToken});
    ASSERT_OK(put(*ns, "good", 1, 1000));
    ASSERT_OK(put(*ns, "bad", 1, 1000));
    auto view = ns->get("bad");
    ASSERT_OK(view);
    const_cast<uint8_t*>(view->spans[0].data)[-1] ^= 1;  // padding: of no consequence
    uint8_t* entry = const_cast<uint8_t*>(view->spans[0].data) - 48;
    while (std::memcmp(entry + 40, "bad", 3) != 0) --entry;
    entry[17] ^= 1;  // of the payload's checksum
  }
  Store store(options());
  ASSERT_OK(store.open());
  auto recovered = store.recover("job", {.token = kToken});
  ASSERT_OK(recovered);
  EXPECT_EQ(recovered->torn, 1u);
  EXPECT_EQ(recovered->objects, 1u);
  EXPECT_TRUE(shows(recovered->ns->get("good"), "good", 1, 1000));
  EXPECT_CODE(recovered->ns->get("bad").status(), Code::kNotFound);
}

// Everything that a client may leave behind, sealed and not.
TEST_F(RecoveryTest, EveryShapeOfObjectComesBackAndNothingElse) {
  const std::map<std::string, std::pair<uint64_t, uint64_t>> expected{
      {"empty", {1, 0}},        {"small", {1, 100}},           {"overwritten", {2, 5000}},  {"large", {1, 20 * MiB}},
      {"draft", {1, 3 * MiB}},  {"by client", {1, 70 * KiB}},  {"in parts", {1, 260 * KiB}}};
  die_after([&](Store& store) {
    auto ns = make_namespace(store, "job", {.token = kToken});
    for (const auto& [key, is] : expected) {
      if (key.starts_with("by") || key.starts_with("in") || key == "draft") continue;
      for (uint64_t version = 1; version <= is.first; ++version) ASSERT_OK(put(*ns, key, version, is.second));
    }
    ASSERT_OK(put(*ns, "removed", 1, 900));
    ASSERT_OK(ns->remove("removed", {}));
    // A draft of unknown size, which lies in several parts.
    auto draft = ns->begin("draft");
    ASSERT_OK(draft);
    const auto bytes = Content("draft", 1).bytes(3 * MiB);
    for (uint64_t at = 0; at < bytes.size(); at += 64 * KiB) ASSERT_OK(draft->append({bytes.data() + at, 64 * KiB}));
    ASSERT_OK(ns->commit(std::move(*draft), {}));
    // One that is never committed.
    auto* lost = new Draft(std::move(*ns->begin("lost")));
    ASSERT_OK(lost->append({bytes.data(), bytes.size()}));

    auto* client = new LocalClient(ns);
    ASSERT_OK(client->put("by client", 1, 70 * KiB));
    ASSERT_OK(client->write(EntryKind::kObject, "never sealed", span_of("bytes")));
    ASSERT_OK(client->put_in_parts("in parts", 1, {100 * KiB, 60 * KiB, 100 * KiB}));
    ASSERT_OK(client->put_parts("loose", 1, {10 * KiB, 10 * KiB}));
    ASSERT_OK(client->put("overwritten", 2, 5000));
  });
  for (int life = 0; life < 3; ++life) {
    Store store(options());
    ASSERT_OK(store.open());
    auto recovered = store.recover("job", {.token = kToken});
    ASSERT_OK(recovered);
    EXPECT_EQ(recovered->objects, expected.size());
    EXPECT_EQ(recovered->torn, 0u);
    Namespace& ns = *recovered->ns;
    uint64_t size_bytes = 0;
    for (const auto& [key, is] : expected) {
      size_bytes += is.second;
      EXPECT_TRUE(shows(ns.get(key), key, is.first, is.second));
    }
    EXPECT_EQ(ns.stats().size_bytes, size_bytes);
    EXPECT_EQ(ns.list("", "", 100)->objects.size(), expected.size());
    if (life < 2) continue;
    // What lives was counted right if nothing is left when the last object has gone.
    for (const auto& [key, is] : expected) ASSERT_OK(ns.remove(key, {}));
    Namespace::Impl& in = NamespaceInside::of(ns);
    EXPECT_TRUE(comes_true([&] {
      std::lock_guard lock(in.mutex);
      return std::all_of(in.segments.begin(), in.segments.end(), [](const auto& segment) {
        // The cleaner has segments of its own by now, which stay for what comes.
        return !segment || (segment->live_bytes == 0 && !segment->forsaken);
      });
    }));
  }
}

TEST_F(RecoveryTest, KilledWhileTablesAreSplit) {
  const uint64_t seed = new_seed("RecoveryTest.KilledWhileTablesAreSplit");
  Random random(seed);
  struct Progress {
    std::atomic<uint64_t> sealed, sequence;
  };
  auto* progress = static_cast<Progress*>(
      mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(progress, MAP_FAILED);
  const auto key_of = [](uint64_t i) { return "key-" + std::to_string(i); };
  for (int round = 0; round < (kSanitized ? 5 : 15); ++round) {
    const pid_t child = fork();
    if (child == 0) {
      Store store(options());
      if (!store.open().ok()) _exit(3);
      auto recovered = store.recover("job", {.token = kToken});
      auto ns = recovered.ok() ? recovered->ns : make_namespace(store, "job", {.token = kToken});
      for (uint64_t i = progress->sealed.load();; ++i) {
        const std::string key = key_of(i);
        auto sealed = ns->put(key, span_of(key), {});
        if (!sealed.ok()) _exit(4);
        progress->sequence = sealed->sequence;
        progress->sealed = i + 1;
      }
    }
    usleep(static_cast<useconds_t>(random.between(2'000, 60'000)));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);

    Store store(options());
    ASSERT_OK(store.open());
    auto recovered = store.recover("job", {.token = kToken});
    const uint64_t sealed = progress->sealed.load();
    if (sealed == 0 && recovered.code() == Code::kNotFound) continue;
    ASSERT_OK(recovered);
    ASSERT_EQ(recovered->torn, 0u);
    // One may be sealed that the child had no time to tell.
    ASSERT_GE(recovered->objects, sealed);
    ASSERT_LE(recovered->objects, sealed + 1);
    for (uint64_t i = 0; i < sealed; ++i) {
      auto view = recovered->ns->get(key_of(i));
      ASSERT_OK(view);
      ASSERT_EQ(join(*view), text_of(key_of(i)));
    }
    auto next = recovered->ns->put("next", span_of("x"), {});
    ASSERT_OK(next);
    ASSERT_GT(next->sequence, progress->sequence.load());
    ASSERT_OK(recovered->ns->remove("next", {}));
  }
  munmap(progress, sizeof(Progress));
}

TEST_F(RecoveryTest, SequencesGoOnAlsoAfterTheYoungestIsRemoved) {
  for (uint64_t life = 1, highest = 0; life <= 3; ++life) {
    Store store(options());
    ASSERT_OK(store.open());
    auto recovered = store.recover("job", {.token = kToken});
    auto ns = recovered.ok() ? recovered->ns : make_namespace(store, "job", {.token = kToken});
    EXPECT_EQ(ns->stats().sealed_total, (life - 1) * 10);
    for (int i = 0; i < 10; ++i) {
      auto sealed = put(*ns, "k", life, 10);
      ASSERT_OK(sealed);
      EXPECT_GT(sealed->sequence, highest);
      highest = sealed->sequence;
    }
    ASSERT_OK(ns->remove("k", {}));
  }
}

TEST_F(RecoveryTest, WhatNobodyTakesUpIsRemoved) {
  die_after([&](Store& store) {
    auto ns = make_namespace(store, "job", {.token = kToken});
    ASSERT_OK(put(*ns, "k", 1, 3 * MiB));
    auto gone = make_namespace(store, "gone", {.token = {1}});
    ASSERT_OK(put(*gone, "k", 1, 3 * MiB));
  });
  const auto write_file = [](const std::string& path) {
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, 1 * MiB), 0);
    close(fd);
  };
  write_file(folder() + "/999.seg");
  write_file(folder() + "/index.new");
  write_file(folder() + "/what is this");
  write_file(memory_.path() + "/node/spare/1-1");
  Store store(options());
  ASSERT_OK(store.open());
  auto recovered = store.recover("job", {.token = kToken});
  ASSERT_OK(recovered);
  EXPECT_EQ(recovered->objects, 1u);
  EXPECT_TRUE(std::filesystem::exists(memory_.path() + "/node/01000000000000000000000000000000"));
  store.remove_orphans();
  EXPECT_FALSE(std::filesystem::exists(memory_.path() + "/node/01000000000000000000000000000000"));
  EXPECT_FALSE(std::filesystem::exists(memory_.path() + "/node/spare/1-1"));
  const auto left = files_of(folder());
  EXPECT_EQ(left.size(), 2u) << "the index and one segment";
  EXPECT_CODE(store.recover("job", {.token = kToken}).status(), Code::kAlreadyExists);
  EXPECT_TRUE(shows(recovered->ns->get("k"), "k", 1, 3 * MiB));
  // Numbers are not used again, even those of files that meant nothing.
  ASSERT_OK(put(*recovered->ns, "new", 1, 100));
  EXPECT_TRUE(std::filesystem::exists(folder() + "/1000.seg"));
}

// It may still have the segment mapped that it was granted.
TEST_F(RecoveryTest, AClientOfTheEarlierLifeSpoilsNothing) {
  die_after([&](Store& store) {
    auto ns = make_namespace(store, "job", {.token = kToken});
    auto* client = new LocalClient(ns);
    for (int i = 0; i < 10; ++i) ASSERT_OK(client->put("k" + std::to_string(i), 1, 20 * KiB));
  });
  std::string path;
  for (const std::string& name : files_of(folder())) {
    if (name.ends_with(".seg")) path = folder() + "/" + name;
  }
  const int fd = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  const uint64_t bytes = std::filesystem::file_size(path);
  auto* mapped = static_cast<uint8_t*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  ASSERT_NE(mapped, MAP_FAILED);
  Store store(options());
  ASSERT_OK(store.open());
  auto recovered = store.recover("job", {.token = kToken});
  ASSERT_OK(recovered);
  Namespace& ns = *recovered->ns;
  for (int i = 0; i < 50; ++i) ASSERT_OK(put(ns, "new" + std::to_string(i), 2, 20 * KiB));
  std::memset(mapped + 10 * 20 * KiB + 2 * kSegmentHeaderBytes, 0xff, bytes - 10 * 20 * KiB - 2 * kSegmentHeaderBytes);
  for (int i = 0; i < 10; ++i) {
    const std::string key = "k" + std::to_string(i);
    EXPECT_TRUE(shows(ns.get(key), key, 1, 20 * KiB));
    ASSERT_OK(ns.remove(key, {}));
  }
  // Nor does its memory serve again.
  for (int i = 50; i < 100; ++i) ASSERT_OK(put(ns, "new" + std::to_string(i), 2, 20 * KiB));
  std::memset(mapped, 0xff, bytes);
  for (int i = 0; i < 100; ++i) {
    const std::string key = "new" + std::to_string(i);
    EXPECT_TRUE(shows(ns.get(key), key, 2, 20 * KiB));
  }
  munmap(mapped, bytes);
  close(fd);
}

// Recovered segments are walked like any other, and what was demoted before the kill is found in its files.
TEST_F(RecoveryTest, WhatWasRecoveredCanBeDemotedAndRecoveredAgain) {
  std::map<std::string, std::pair<uint64_t, uint64_t>> expected;
  for (uint64_t i = 0; i < 40; ++i) expected["k" + std::to_string(i)] = {1, i * i * 1000};
  die_after([&](Store& store) {
    auto ns = make_namespace(store, "job", {.token = kToken});
    for (const auto& [key, is] : expected) {
      auto draft = ns->begin(key);
      const auto bytes = Content(key, is.first).bytes(is.second);
      // In pieces, of which some are removed again: parts, and holes between them.
      for (uint64_t at = 0; at < bytes.size(); at += 100'000) {
        ASSERT_OK(draft->append({bytes.data() + at, std::min<uint64_t>(100'000, bytes.size() - at)}));
        ASSERT_OK(put(*ns, "between", 1, 700));
      }
      ASSERT_OK(ns->commit(std::move(*draft), {}));
    }
    ASSERT_OK(ns->remove("between", {}));
  });
  for (int life = 0; life < 3; ++life) {
    Store store(options());
    ASSERT_OK(store.open());
    auto recovered = store.recover("job", {.token = kToken});
    ASSERT_OK(recovered);
    ASSERT_EQ(recovered->objects, expected.size());
    ASSERT_EQ(recovered->torn, 0u);
    Namespace& ns = *recovered->ns;
    for (const auto& [key, is] : expected) {
      auto bytes = read_all_of(store, ns, key);
      ASSERT_OK(bytes);
      ASSERT_EQ(*bytes, Content(key, is.first).bytes(is.second)) << key << " in life " << life;
    }
    store.set_watermarks(0, 0);
    EXPECT_TRUE(comes_true([&] { return ns.stats().demoted_bytes > 0 && ns.stats().nvme_bytes > 15 * MiB; }));
    store.set_watermarks(0.85, 0.7);
    for (uint64_t i = 0; i < 40; i += 7) {
      auto& is = expected["k" + std::to_string(i)];
      ASSERT_OK(put(ns, "k" + std::to_string(i), ++is.first, is.second += 1));
    }
  }
}

TEST_F(RecoveryTest, SegmentsInHugePagesComeBackToo) {
  TemporaryDirectory mounted;
  if (mount("millrace-test", mounted.path().c_str(), "hugetlbfs", 0, nullptr) != 0) {
    GTEST_SKIP() << "no hugetlbfs can be mounted here";
  }
  const std::shared_ptr<void> unmount(nullptr, [&](void*) { umount2(mounted.path().c_str(), MNT_DETACH); });
  Store::Options with_huge = options();
  with_huge.dram.huge_directory = mounted.path() + "/node";
  with_huge.dram.huge_pages = HugePages::kReserve;
  with_huge.clean_bytes_per_second = 0;  // or what came back may be moved to small pages before it is looked at
  bool huge = false;
  for (int life = 0; life < 2; ++life) {
    Store store(with_huge);
    ASSERT_OK(store.open());
    auto recovered = store.recover("job", {.token = kToken});
    auto ns = recovered.ok() ? recovered->ns : make_namespace(store, "job", {.token = kToken});
    for (uint64_t i = 0; i < 12 && life == 0; ++i) ASSERT_OK(put(*ns, "k" + std::to_string(i), 1, 700'000 + i));
    for (uint64_t i = 0; i < 12; ++i) {
      const std::string key = "k" + std::to_string(i);
      EXPECT_TRUE(shows(ns->get(key), key, 1, 700'000 + i));
    }
    if (life == 0) {
      huge = store.dram_stats().huge_bytes > 0;
      continue;
    }
    EXPECT_EQ(store.dram_stats().huge_bytes > 0, huge);
    ASSERT_OK(store.drop("job"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(mounted.path() + "/node/spare"));
  EXPECT_FALSE(std::filesystem::exists(mounted.path() + "/node/09080706050403020100000000000000"));
  if (!huge) std::printf("[   NOTE   ] no huge page was free: segments lay in small ones\n");
}

TEST_F(RecoveryTest, AnIndexThatIsNoneIsSaidToBe) {
  die_after([&](Store& store) { ASSERT_OK(put(*make_namespace(store, "job", {.token = kToken}), "k", 1, 100)); });
  const int fd = ::open((folder() + "/index").c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(pwrite(fd, "x", 1, 0), 1);
  {
    Store store(options());
    ASSERT_OK(store.open());
    EXPECT_CODE(store.recover("job", {.token = kToken}).status(), Code::kCorrupt);
    EXPECT_EQ(store.find("job"), nullptr);
  }
  // Nothing was touched: repaired, it is all there.
  ASSERT_EQ(pwrite(fd, "M", 1, 0), 1);
  close(fd);
  Store store(options());
  ASSERT_OK(store.open());
  auto recovered = store.recover("job", {.token = kToken});
  ASSERT_OK(recovered);
  EXPECT_TRUE(shows(recovered->ns->get("k"), "k", 1, 100));
}

TEST_F(RecoveryTest, SegmentsThatAreMissingTakeOnlyTheirObjectsWithThem) {
  die_after([&](Store& store) {
    auto ns = make_namespace(store, "job", {.token = kToken});
    for (uint64_t i = 0; i < 30; ++i) ASSERT_OK(put(*ns, "k" + std::to_string(i), 1, 500'000));
  });
  uint64_t there = 0;
  for (const std::string& name : files_of(folder())) {
    if (name != "index" && there++ % 3 == 1) std::filesystem::remove(folder() + "/" + name);
  }
  ASSERT_GT(there, 2u);
  Store store(options());
  ASSERT_OK(store.open());
  auto recovered = store.recover("job", {.token = kToken});
  ASSERT_OK(recovered);
  EXPECT_GT(recovered->torn, 0u);
  EXPECT_EQ(recovered->objects + recovered->torn, 30u);
  uint64_t found = 0;
  for (uint64_t i = 0; i < 30; ++i) {
    const std::string key = "k" + std::to_string(i);
    auto view = recovered->ns->get(key);
    if (view.code() == Code::kNotFound) continue;
    ++found;
    EXPECT_TRUE(shows(view, key, 1, 500'000));
  }
  EXPECT_EQ(found, recovered->objects);
  EXPECT_EQ(recovered->ns->stats().size_bytes, found * 500'000);
}

}  // namespace
}  // namespace millrace::test
