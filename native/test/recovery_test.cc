// A node that was killed, and what the next one finds: in child processes that die by SIGKILL while they work.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <random>
#include <thread>

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
          Result<ObjectInfo> done = put(*ns, key, version, told.bytes);
          while (done.code() == Code::kResourceExhausted) {
            usleep(500);
            done = put(*ns, key, version, told.bytes);
          }
          if (!done.ok()) _exit(6);
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

  TemporaryDirectory memory_{"/dev/shm"};
  TemporaryDirectory disk_;
};

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
      auto view = recovered->ns->get(name);
      if (!view.ok()) {
        ASSERT_EQ(view.code(), Code::kNotFound);
        ASSERT_TRUE(std::any_of(states.begin(), states.end(), [](const State& state) { return state.version == 0; }))
            << name << " is lost in round " << round;
        states = {{0, 0}};
        continue;
      }
      std::vector<uint8_t> bytes;
      for (size_t i = 0; i < view->spans.size(); ++i) {
        if (view->spans[i].data != nullptr) {
          bytes.insert(bytes.end(), view->spans[i].data, view->spans[i].data + view->spans[i].bytes);
          continue;
        }
        auto got = store.reader().read_now(view->places[i].file, view->places[i].offset, view->spans[i].bytes);
        ASSERT_OK(got);
        bytes.insert(bytes.end(), got->data, got->data + got->bytes);
      }
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
      for (uint64_t i = 0; i < 100; ++i) {
        auto done = put(*ns, "k" + std::to_string(i), i, 1 * MiB);
        while (done.code() == Code::kResourceExhausted) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          done = put(*ns, "k" + std::to_string(i), i, 1 * MiB);
        }
        ASSERT_OK(done);
      }
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

}  // namespace
}  // namespace millrace::test
