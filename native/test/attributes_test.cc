// What is sealed with an object besides its bytes, objects made of others without moving a byte, and hidden keys: they
// stay what they are wherever the objects go.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <thread>

#include "test/file_objects.h"
#include "test/file_support.h"
#include "test/server_support.h"
#include "test/store_support.h"
#include "store/inspect.h"
#include "store/scrub.h"

namespace millrace::test {
namespace {

constexpr Token kToken{7, 7, 7};
constexpr const char* kFolder = "07070700000000000000000000000000";

std::string attributes_of(const std::string& key, uint64_t version, uint64_t bytes) {
  const auto content = Content(key + "?", version).bytes(bytes);
  return {content.begin(), content.end()};
}

Result<ObjectInfo> put_with(Namespace& ns, const std::string& key, const std::vector<uint8_t>& bytes,
                            std::string_view attributes, Condition condition = {}) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    auto draft = ns.begin(key);
    if (!draft.ok()) return draft.status();
    draft->expect(bytes.size());
    Status failed = draft->append(span_of(bytes));
    if (failed.ok()) {
      auto done = ns.commit(std::move(*draft), condition, nullptr, std::nullopt, attributes);
      if (done.ok()) return done;
      failed = done.status();
    }
    if (failed.code() != Code::kResourceExhausted || std::chrono::steady_clock::now() > until) return failed;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

class AttributesTest : public ::testing::Test {
 protected:
  Store::Options options(uint64_t dram_bytes = 64 * MiB) const {
    Store::Options options = store_options(dram_bytes, 50);
    options.keep = options.nvme.keep = true;
    options.dram.directory = memory_.path();
    options.nvme.directories = {{disk_.path(), 4 * GiB}};
    options.nvme.node_id = "node-1";
    options.clean_bytes_per_second = 8 * GiB;
    return options;
  }
  void open(Store::Options options) {
    store_ = std::make_unique<Store>(options);
    ASSERT_OK(store_->open());
    auto recovered = store_->recover("job", {.token = kToken});
    if (recovered.ok()) {
      EXPECT_EQ(recovered->torn, 0u);
    }
    ns_ = recovered.ok() ? recovered->ns : make_namespace(*store_, "job", {.token = kToken});
    ASSERT_NE(ns_, nullptr);
  }
  void open() { open(options()); }
  void close() {
    ns_.reset();
    store_.reset();
  }

  // An object as it has to be. Where no store is open, `put` and `join` say no more than that.
  struct Want {
    std::vector<uint8_t> bytes;
    std::string attributes;
  };
  void put(const std::string& key, uint64_t version, uint64_t bytes, uint64_t attributes_bytes) {
    Want want{Content(key, version).bytes(bytes), attributes_of(key, version, attributes_bytes)};
    if (ns_) {
      ASSERT_OK(put_with(*ns_, key, want.bytes, want.attributes));
    }
    want_[key] = std::move(want);
  }
  void join(const std::string& key, const std::vector<std::string>& parts, const std::string& attributes) {
    Want want{{}, attributes};
    for (const std::string& part : parts) {
      const auto& bytes = want_.at(part).bytes;
      want.bytes.insert(want.bytes.end(), bytes.begin(), bytes.end());
      want_.erase(part);
    }
    if (ns_) {
      auto joined = ns_->join(key, parts, {}, attributes);
      ASSERT_OK(joined);
      EXPECT_EQ(joined->size_bytes, want.bytes.size());
      EXPECT_EQ(joined->crc32c, crc32c(0, want.bytes.data(), want.bytes.size()));
    }
    want_[key] = std::move(want);
  }
  void remove(const std::string& key) {
    auto removed = ns_->remove(key, {});
    ASSERT_OK(removed);
    EXPECT_TRUE(*removed);
    want_.erase(key);
  }
  // All objects are there, as they were sealed, and nothing else.
  void expect_all() {
    EXPECT_EQ(ns_->stats().objects, want_.size());
    uint64_t bytes = 0;
    for (const auto& [key, want] : want_) {
      bytes += want.bytes.size();
      std::string attributes = "?";
      auto info = ns_->head(key, &attributes);
      ASSERT_OK(info) << key;
      EXPECT_EQ(info->size_bytes, want.bytes.size()) << key;
      EXPECT_EQ(info->crc32c, crc32c(0, want.bytes.data(), want.bytes.size())) << key;
      EXPECT_TRUE(attributes == want.attributes) << key;
      auto view = ns_->get(key);
      ASSERT_OK(view) << key;
      EXPECT_TRUE(view->attributes == want.attributes) << key;
      auto read = read_all_of(*store_, *ns_, key);
      ASSERT_OK(read) << key;
      EXPECT_TRUE(*read == want.bytes) << key;
    }
    EXPECT_EQ(ns_->stats().size_bytes, bytes);
    auto page = ns_->list("", "", 1000, {.attributes = true, .hidden = true});
    ASSERT_OK(page);
    ASSERT_EQ(page->objects.size(), want_.size());
    auto want = want_.begin();
    for (const ListedObject& object : page->objects) {
      EXPECT_EQ(object.key, want->first);
      EXPECT_EQ(object.info.size_bytes, want->second.bytes.size());
      EXPECT_TRUE(object.attributes == want->second.attributes);
      ++want;
    }
  }
  // What was put so far goes down, as far as it may: what is put behind it closes its segments.
  void demote() {
    uint64_t fill = 0;
    std::vector<std::string> last;
    for (const auto& [key, want] : want_) {
      if (want.bytes.size() >= 256) last.push_back(key);
    }
    Namespace::Impl& in = NamespaceInside::of(*ns_);
    // Without reading them, which would bring them up.
    const auto down = [&](const std::string& key) {
      std::lock_guard lock(in.mutex);
      auto described = in.describe(*in.find(key));
      return described.ok() && std::all_of(described->extents.begin(), described->extents.end(), [&](const auto& extent) {
        const auto& segment = in.segments[extent.segment];
        return segment->file != nullptr || segment == in.moved;  // what came up of late stays until more does
      });
    };
    for (;;) {
      std::erase_if(last, down);
      if (last.empty()) break;
      SCOPED_TRACE(last.front());
      ASSERT_OK(put_waiting(*ns_, "~fill" + std::to_string(fill), fill, 1 * MiB));
      ASSERT_LT(++fill, 2000u);
    }
    for (uint64_t i = 0; i < fill; ++i) ASSERT_OK(ns_->remove("~fill" + std::to_string(i), {}));
  }
  void promote(const std::string& key) {
    {
      Namespace::Impl& in = NamespaceInside::of(*ns_);
      std::lock_guard lock(in.mutex);
      in.reads.clear();  // what has come up of late would be left where it is
    }
    EXPECT_TRUE(comes_true([&] {
      ns_->note_read(key);
      return !ns_->get(key)->in_files();
    })) << key;
  }
  // Nothing that was taken is left over.
  void expect_all_free() {
    while (!want_.empty()) remove(want_.begin()->first);
    EXPECT_EQ(ns_->stats().size_bytes, 0u);
    EXPECT_TRUE(comes_true([&] { return ns_->stats().nvme_bytes == 0; })) << ns_->stats().nvme_bytes;
    // The daemon's own segments stay.
    EXPECT_TRUE(comes_true([&] { return ns_->stats().segments <= 3; })) << ns_->stats().segments;
    Namespace::Impl& in = NamespaceInside::of(*ns_);
    std::lock_guard lock(in.mutex);
    EXPECT_TRUE(in.joined.empty());
    for (const auto& segment : in.segments) {
      if (segment) {
        EXPECT_EQ(segment->live_bytes, 0u) << segment->number;
      }
    }
  }
  template <class Work>
  void die_after(Work work) {
    const pid_t child = fork();
    if (child == 0) {
      open();
      work();
      if (::testing::Test::HasFailure()) _exit(4);
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself with " << WEXITSTATUS(status);
  }

  NoFaultsAfter no_faults_;
  TemporaryDirectory memory_{"/dev/shm"};
  TemporaryDirectory disk_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Namespace> ns_;
  std::map<std::string, Want> want_;
};

// Objects of all shapes, with attributes and without.
constexpr uint64_t kShapes[] = {0, 1, 100, 300, 5000, 200'000, 7'000'000};

TEST_F(AttributesTest, AreReadListedCopiedAndReplaced) {
  open(options(512 * MiB));
  for (const uint64_t bytes : kShapes) {
    for (const uint64_t attributes_bytes : {uint64_t{0}, uint64_t{1}, uint64_t{333}, limits::kAttributesBytesMax}) {
      put("k" + std::to_string(bytes) + "-" + std::to_string(attributes_bytes), 1, bytes, attributes_bytes);
    }
  }
  expect_all();
  auto page = ns_->list("", "", 1000);
  ASSERT_OK(page);
  for (const ListedObject& object : page->objects) EXPECT_TRUE(object.attributes.empty()) << "nobody asked";
  // A copy has those of its source, or its own, which may be none.
  auto other = make_namespace(*store_, "other", {.token = {1}});
  for (const auto& [key, want] : want_) {
    ASSERT_OK(ns_->copy(key, *other, key, {}));
    auto copied = other->get(key);
    ASSERT_OK(copied);
    EXPECT_TRUE(copied->attributes == want.attributes);
    EXPECT_TRUE(test::join(*copied) == want.bytes);
    for (const std::string own : {"own", ""}) {
      ASSERT_OK(ns_->copy(key, *other, key, {}, own));
      copied = other->get(key);
      EXPECT_EQ(copied->attributes, own);
      EXPECT_TRUE(test::join(*copied) == want.bytes);
    }
  }
  // Another version has its own, even over itself.
  put("k300-333", 2, 5000, 10);
  put("k300-1", 2, 0, 0);
  put("k0-0", 2, 0, 20);
  ASSERT_OK(ns_->copy("k5000-333", *ns_, "k5000-333", {}, "new"));
  want_.at("k5000-333").attributes = "new";
  expect_all();
  // A range has them too.
  auto range = ns_->get("k7000000-333", 6'999'990, 10);
  ASSERT_OK(range);
  EXPECT_TRUE(range->attributes == want_.at("k7000000-333").attributes);
  EXPECT_CODE(ns_->get("k0-0", 0, 1), Code::kOutOfRange);
  ASSERT_OK(store_->drop("other"));
  other.reset();
  expect_all_free();
}

TEST_F(AttributesTest, AreLimited) {
  open();
  const std::string most(limits::kAttributesBytesMax, 'a');
  ASSERT_OK(put_with(*ns_, "key", {1, 2, 3}, most));
  EXPECT_CODE(put_with(*ns_, "key", {4}, most + "a"), Code::kInvalidArgument);
  EXPECT_CODE(ns_->copy("key", *ns_, "to", {}, most + "a"), Code::kInvalidArgument);
  EXPECT_CODE(ns_->join("to", {"key"}, {}, most + "a"), Code::kInvalidArgument);
  EXPECT_CODE(ns_->head("to"), Code::kNotFound);
  EXPECT_EQ(ns_->get("key")->attributes, most);
  ASSERT_OK(ns_->remove("key", {}));
  expect_all_free();
}

TEST_F(AttributesTest, GoDownAndComeBackUpWithTheirObjects) {
  open();
  for (int round = 0; round < 3; ++round) {
    for (const uint64_t bytes : kShapes) {
      for (uint64_t i = 0; i < 4; ++i) put("k" + std::to_string(bytes) + "-" + std::to_string(i), 1, bytes, i * 100);
    }
    demote();
    expect_all();
    for (const auto& [key, want] : want_) {
      if (want.bytes.size() >= 256) continue;
      EXPECT_FALSE(ns_->get(key)->in_files()) << key << " would gain nothing";
    }
    for (const std::string bytes : {"300", "5000", "200000", "7000000"}) promote("k" + bytes + "-" + std::to_string(round));
    expect_all();
    demote();
    expect_all();
  }
  expect_all_free();
}

TEST_F(AttributesTest, AreKeptByTheCleaner) {
  for (const bool tiered : {false, true}) {
    SCOPED_TRACE(tiered);
    Store::Options with = options(tiered ? 64 * MiB : 512 * MiB);
    if (!tiered) with.nvme.directories.clear();
    open(with);
    Random random(new_seed("AreKeptByTheCleaner"));
    for (uint64_t version = 1; version < 6000; ++version) {
      const std::string key = "k" + std::to_string(random.below(300));
      if (want_.size() > 20 && random.chance(30)) {
        // Parts that stay while what lay beside them is overwritten.
        std::vector<std::string> parts;
        for (auto& [part, want] : want_) {
          if (part != "joined" && random.chance(10)) parts.push_back(part);
        }
        if (!parts.empty()) join("joined", parts, attributes_of("joined", version, 100));
      }
      put(key, version, random.size(100'000), random.chance(3) ? 0 : random.size(2000));
      if (::testing::Test::HasFatalFailure()) return;
    }
    EXPECT_TRUE(comes_true([&] { return ns_->stats().cleaned_bytes > 0; }));
    expect_all();
    expect_all_free();
    ASSERT_OK(store_->drop("job"));
    close();
  }
}

TEST_F(AttributesTest, JoinTakesPartsOfAllKinds) {
  open();
  put("deep-a", 1, 400'000, 10);
  put("deep-b", 1, 3'000'000, 0);
  demote();
  put("memory", 1, 70'000, 0);
  put("empty", 1, 0, 0);
  put("empty-too", 1, 0, 50);
  put("described", 1, 1234, 77);
  put("parted", 1, 9'000'000, 0);
  put("one", 1, 1, 0);
  put("stays", 1, 500, 5);
  put("whole", 1, 10, 10);  // is replaced
  std::vector<WatchedEvent> events;
  const uint64_t watch = ns_->watch("", [&](const WatchedEvent& event) { events.push_back(event); });
  const uint64_t before = ns_->head("whole")->sequence;
  join("whole", {"memory", "deep-a", "empty", "described", "parted", "deep-b", "empty-too", "one"}, "the attributes");
  ns_->unwatch(watch);
  EXPECT_GT(ns_->head("whole")->sequence, before);
  ASSERT_EQ(events.size(), 9u);
  EXPECT_FALSE(events[0].deleted);
  EXPECT_EQ(events[0].key, "whole");
  for (size_t i = 1; i < events.size(); ++i) EXPECT_TRUE(events[i].deleted);
  expect_all();
  // Keys of parts are free again, and their bytes are another object's.
  put("memory", 2, 90'000, 3);
  put("deep-a", 2, 5, 0);
  expect_all();
  // Of joined ones again, and of nothing.
  join("again", {"deep-a", "whole", "memory"}, "");
  put("empty", 3, 0, 0);
  put("empty-too", 3, 0, 9);
  join("nothing", {"empty", "empty-too"}, "");
  put("empty", 4, 0, 0);
  join("nothing too", {"empty"}, "but attributes");
  expect_all();
  demote();
  expect_all();
  promote("stays");
  EXPECT_FALSE(ns_->get("stays")->in_files());
  promote("again");
  expect_all();
  demote();
  expect_all();
  expect_all_free();
}

TEST_F(AttributesTest, AJoinThatFailsChangesNothing) {
  open();
  put("a", 1, 1000, 10);
  put("b", 1, 2000, 0);
  put("whole", 1, 300, 20);
  const uint64_t sequence = ns_->head("whole")->sequence;
  EXPECT_CODE(ns_->join("whole", {}, {}), Code::kInvalidArgument);
  EXPECT_CODE(ns_->join("whole", {"a", "missing", "b"}, {}), Code::kNotFound);
  EXPECT_CODE(ns_->join("whole", {"a", "b", "a"}, {}), Code::kInvalidArgument);
  EXPECT_CODE(ns_->join("whole", {"a", "whole"}, {}), Code::kInvalidArgument);
  EXPECT_CODE(ns_->join("whole", {"a", ""}, {}), Code::kInvalidArgument);
  EXPECT_CODE(ns_->join("", {"a"}, {}), Code::kInvalidArgument);
  EXPECT_CODE(ns_->join(std::string(1025, 'k'), {"a"}, {}), Code::kKeyTooLong);
  EXPECT_CODE(ns_->join("whole", {"a"}, {.if_absent = true}), Code::kConditionFailed);
  EXPECT_CODE(ns_->join("whole", {"a"}, {.if_sequence = sequence + 1}), Code::kConditionFailed);
  EXPECT_CODE(ns_->join("new", {"a"}, {.if_sequence = sequence}), Code::kConditionFailed);
  expect_all();
  ASSERT_OK(ns_->join("whole", {"b", "a"}, {.if_sequence = sequence}, "x"));
  EXPECT_EQ(ns_->get("whole")->info.size_bytes, 3000u);
  ASSERT_OK(ns_->remove("whole", {}));
  want_.clear();
  expect_all_free();
}

TEST_F(AttributesTest, JoinsRaceWithAllElse) {
  open();
  const uint64_t seed = new_seed("JoinsRaceWithAllElse");
  constexpr uint64_t kParts = 5, kRounds = 300;
  std::atomic<bool> stop{false};
  // Pushes all else down and has it cleaned.
  std::thread filler([&] {
    Random random(seed);
    for (uint64_t i = 0; !stop; ++i) EXPECT_OK(put_waiting(*ns_, "~fill" + std::to_string(i % 60), i, 900'000));
  });
  Random random(seed + 1);
  uint64_t joined_count = 0;
  std::vector<std::string> wholes;
  for (uint64_t round = 0; round < kRounds; ++round) {
    std::vector<std::string> parts;
    std::vector<uint8_t> bytes;
    for (uint64_t i = 0; i < kParts; ++i) {
      parts.push_back("\xff" + std::to_string(i));
      const auto part = Content(parts.back(), round).bytes(random.size(300'000));
      ASSERT_OK(put_with(*ns_, parts.back(), part, random.chance(2) ? "part" : ""));
      bytes.insert(bytes.end(), part.begin(), part.end());
    }
    if (random.chance(4)) std::this_thread::sleep_for(std::chrono::milliseconds(random.below(20)));
    const std::string key = "whole" + std::to_string(round % 40);
    std::atomic<int> winners{0};
    std::atomic<bool> removed{false};
    std::vector<std::thread> racers;
    for (int i = 0; i < 2; ++i) {
      racers.emplace_back([&] {
        auto joined = ns_->join(key, parts, {}, std::to_string(round));
        winners += joined.ok();
        EXPECT_TRUE(joined.ok() || joined.code() == Code::kNotFound || joined.code() == Code::kResourceExhausted);
      });
    }
    if (random.chance(2)) {
      racers.emplace_back([&] {
        auto gone = ns_->remove(parts[3], {});
        EXPECT_OK(gone);
        removed = *gone;
      });
    }
    for (auto& racer : racers) racer.join();
    EXPECT_LE(winners, 1);
    if (winners == 1) {
      EXPECT_FALSE(removed);
      ++joined_count;
      auto view = ns_->get(key);
      ASSERT_OK(view);
      EXPECT_EQ(view->attributes, std::to_string(round));
      auto read = read_all_of(*store_, *ns_, key);
      ASSERT_OK(read);
      EXPECT_TRUE(*read == bytes) << "round " << round;
      want_[key] = {bytes, std::to_string(round)};
      for (const auto& part : parts) EXPECT_CODE(ns_->head(part), Code::kNotFound);
    } else {
      for (const auto& part : parts) ASSERT_OK(ns_->remove(part, {}));
    }
  }
  stop = true;
  filler.join();
  for (uint64_t i = 0; i < 60; ++i) ASSERT_OK(ns_->remove("~fill" + std::to_string(i), {}));
  EXPECT_GT(joined_count, 0u);
  expect_all();
  demote();
  expect_all();
  expect_all_free();
}

TEST_F(AttributesTest, AreThereAfterAKill) {
  const auto work = [&] {
    for (const uint64_t bytes : kShapes) {
      for (uint64_t i = 0; i < 4; ++i) put("deep" + std::to_string(bytes) + "-" + std::to_string(i), 1, bytes, i * 100);
    }
    if (ns_) demote();
    for (const uint64_t bytes : kShapes) {
      for (uint64_t i = 0; i < 4; ++i) put("k" + std::to_string(bytes) + "-" + std::to_string(i), 1, bytes, i * 100);
    }
    join("joined", {"deep5000-1", "k300-0", "k0-2", "deep0-0", "k7000000-1", "deep200000-0", "k200000-0"}, "joined");
    join("plain", {"k1-0", "k5000-0"}, "");
  };
  die_after(work);
  work();  // with no store at hand: what the child's has to hold
  auto inspection = inspect({"job", kToken, {memory_.path() + "/" + kFolder}, {disk_.path() + "/millrace-node-1/" + kFolder}, true});
  ASSERT_OK(inspection);
  EXPECT_EQ(inspection->objects, want_.size());
  EXPECT_EQ(inspection->torn, 0u);
  EXPECT_TRUE(inspection->damaged.empty());
  for (int round = 0; round < 3; ++round) {
    open();
    expect_all();
    close();  // as it should, this time
  }
  open();
  demote();
  expect_all();
  promote("joined");
  expect_all();
  const std::atomic<bool> stop{false};
  auto page = scrub(*ns_, store_->reader(), "", 1000, stop);
  ASSERT_OK(page);
  EXPECT_EQ(page->objects, want_.size());
  EXPECT_TRUE(page->damaged.empty());
  expect_all_free();
}

TEST_F(AttributesTest, AJoinThatWasCutShortIsDone) {
  // The index as it is after the joined object came into it and before its parts left it.
  for (const size_t left : {size_t{1}, size_t{4}}) {
    SCOPED_TRACE(left);
    const std::vector<std::string> parts = {"object", "described", "before", "parted"};
    const auto work = [&](bool cut) {
      put("x", 1, 5000, 0);
      put("y", 1, 6000, 4);
      put("object", 1, 70'000, 0);
      put("described", 1, 300, 30);
      put("parted", 1, 9'000'000, 0);
      join("before", {"x", "y"}, "before");
      Namespace::Impl& in = NamespaceInside::of(*ns_);
      std::vector<SlotRef> refs;
      for (const auto& part : parts) refs.push_back(*in.find(part));
      join("whole", parts, "whole");
      for (size_t i = parts.size() - left; cut && i < parts.size(); ++i) {
        mark_sealed(in.segments[refs[i].segment]->data(), refs[i].entry_offset, in.entry_at(refs[i])->sequence, 1);
        ASSERT_OK(in.index->put(hash_key(parts[i]), refs[i], [](SlotRef) { return false; }));
      }
    };
    die_after([&] { work(true); });
    Want whole{{}, "whole"};
    for (const auto& [key, bytes] : std::vector<std::pair<std::string, uint64_t>>{
             {"object", 70'000}, {"described", 300}, {"x", 5000}, {"y", 6000}, {"parted", 9'000'000}}) {
      const auto part = Content(key, 1).bytes(bytes);
      whole.bytes.insert(whole.bytes.end(), part.begin(), part.end());
    }
    want_ = {{"whole", whole}};
    open();
    expect_all();
    demote();
    expect_all();
    expect_all_free();
    ASSERT_OK(store_->drop("job"));
    close();
  }
}

TEST_F(AttributesTest, JoinsAreKilledAnywhere) {
  const uint64_t seed = new_seed("JoinsAreKilledAnywhere");
  Random random(seed);
  constexpr uint64_t kWholes = 50, kParts = 3, kPartBytes = 20'000;
  uint64_t version = 1;
  std::map<uint64_t, uint64_t> acknowledged;  // version by whole
  for (int round = 0; round < 8; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    if (child == 0) {
      ::close(pipe_fds[0]);
      open();
      for (;; ++version) {
        std::vector<std::string> parts;
        const std::string key = "whole" + std::to_string(version % kWholes);
        for (uint64_t i = 0; i < kParts; ++i) {
          parts.push_back("\xffpart" + std::to_string(version) + "-" + std::to_string(i));
          std::vector<uint8_t> bytes(kPartBytes);
          Content(key, version).fill(bytes.data(), kPartBytes, i * kPartBytes);
          if (!put_with(*ns_, parts.back(), bytes, version % 2 ? "part" : "").ok()) _exit(5);
        }
        if (!ns_->join(key, parts, {}, std::to_string(version)).ok()) _exit(6);
        if (write(pipe_fds[1], &version, sizeof(version)) != sizeof(version)) _exit(7);
      }
    }
    ::close(pipe_fds[1]);
    std::thread listener([&] {
      uint64_t told;
      while (read(pipe_fds[0], &told, sizeof(told)) == sizeof(told)) {
        acknowledged[told % kWholes] = told;
        version = told + 2;
      }
    });
    usleep(static_cast<useconds_t>(20'000 + random.below(300'000)));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
    listener.join();
    ::close(pipe_fds[0]);
    open();
    for (const auto& [whole, least] : acknowledged) {
      const std::string key = "whole" + std::to_string(whole);
      std::string attributes;
      auto info = ns_->head(key, &attributes);
      ASSERT_OK(info);
      EXPECT_EQ(info->size_bytes, kParts * kPartBytes);
      const uint64_t is = std::stoull(attributes);
      EXPECT_GE(is, least);
      auto bytes = read_all_of(*store_, *ns_, key);
      ASSERT_OK(bytes);
      EXPECT_TRUE(*bytes == Content(key, is).bytes(kParts * kPartBytes)) << key;
    }
    // A part is there only where the object that was to be made of it is not.
    auto hidden = ns_->list("\xff", "", 1000);
    ASSERT_OK(hidden);
    for (const ListedObject& part : hidden->objects) {
      const uint64_t of = std::stoull(part.key.substr(5));
      std::string attributes = "0";
      (void)ns_->head("whole" + std::to_string(of % kWholes), &attributes);
      EXPECT_NE(attributes, std::to_string(of)) << part.key.substr(1);
      ASSERT_OK(ns_->remove(part.key, {}));
    }
    close();
  }
}

TEST_F(AttributesTest, ClientsReadSuchObjectsLikeAnyOther) {
  open();
  for (const uint64_t bytes : {0u, 10u, 3000u, 5'000'000u}) put("deep" + std::to_string(bytes), 1, bytes, 100);
  put("deep part", 1, 100'000, 0);
  demote();
  for (const uint64_t bytes : {0u, 10u, 3000u, 5'000'000u}) put("k" + std::to_string(bytes), 1, bytes, 100);
  put("part", 1, 5000, 0);
  join("joined", {"part", "deep part"}, "a");
  ServerOptions server_options;
  server_options.socket_path = disk_.path() + "/socket";
  server_options.data_host = "127.0.0.1";
  Server server(*store_, server_options);
  ASSERT_OK(server.start());
  for (const bool shm : {true, false}) {
    SCOPED_TRACE(shm);
    auto client = connect(options_for(server, shm, "job", kToken));
    ASSERT_NE(client, nullptr);
    for (const auto& [key, want] : want_) {
      SCOPED_TRACE(key);
      auto info = client->head(key);
      ASSERT_OK(info);
      EXPECT_EQ(info->size_bytes, want.bytes.size());
      auto got = client->get(key, 0, 0);
      ASSERT_OK(got);
      std::vector<uint8_t> bytes;
      for (const auto& span : got->spans) bytes.insert(bytes.end(), span.data, span.data + span.bytes);
      EXPECT_TRUE(bytes == want.bytes);
      ASSERT_OK(client->copy(key, "copy", {}));
      auto copied = ns_->get("copy");
      ASSERT_OK(copied);
      EXPECT_TRUE(copied->attributes == want.attributes);
      EXPECT_TRUE(*read_all_of(*store_, *ns_, "copy") == want.bytes);
    }
    ASSERT_OK(client->remove("copy", {}));
    client->close();
  }
  server.stop();
}

TEST_F(AttributesTest, HiddenKeysAreToldToWhoAsksForThem) {
  open();
  std::vector<std::string> heard, heard_hidden;
  ns_->watch("", [&](const WatchedEvent& event) { heard.push_back(event.key); });
  ns_->watch("\xff", [&](const WatchedEvent& event) { heard_hidden.push_back(event.key); });
  for (const std::string key : {"a", "\xff", "\xff/b", "\xfe", "b"}) ASSERT_OK(test::put(*ns_, key, 1, 10));
  ASSERT_OK(ns_->remove("\xff/b", {}));
  EXPECT_EQ(heard, (std::vector<std::string>{"a", "\xfe", "b"}));
  EXPECT_EQ(heard_hidden, (std::vector<std::string>{"\xff", "\xff/b", "\xff/b"}));
  const auto keys = [&](std::string_view prefix, uint32_t limit, ListOptions options = {}) {
    std::vector<std::string> keys;
    auto page = ns_->list(prefix, "", limit, options);
    EXPECT_OK(page);
    for (const auto& object : page->objects) keys.push_back(object.key);
    keys.push_back(page->truncated ? "more" : "end");
    return keys;
  };
  EXPECT_EQ(keys("", 10), (std::vector<std::string>{"a", "b", "\xfe", "end"}));
  EXPECT_EQ(keys("", 3), (std::vector<std::string>{"a", "b", "\xfe", "end"}));
  EXPECT_EQ(keys("", 2), (std::vector<std::string>{"a", "b", "more"}));
  EXPECT_EQ(keys("\xff", 10), (std::vector<std::string>{"\xff", "end"}));
  EXPECT_EQ(keys("", 10, {.hidden = true}), (std::vector<std::string>{"a", "b", "\xfe", "\xff", "end"}));
  EXPECT_OK(ns_->get("\xff"));
}

TEST_F(AttributesTest, ClientsCannotSealWhatTheDaemonJoins) {
  open();
  LocalClient client(ns_);
  auto parts = client.put_parts("key", 1, {5000, 6000});
  ASSERT_OK(parts);
  auto payload = LocalClient::manifest_of(*parts);
  auto manifest = client.write(EntryKind::kManifest, "key", span_of(payload));
  ASSERT_OK(manifest);
  uint8_t* segment = client.writable(manifest->segment);
  const uint32_t crc = crc32c(0, payload.data(), payload.size());
  write_entry_header(segment, manifest->entry_offset, EntryKind::kManifest, "key", payload.size(), crc, 0, kEntryJoined);
  EXPECT_CODE(client.seal(*manifest), Code::kInvalidArgument);
  for (const EntryKind kind : {EntryKind::kObject, EntryKind::kPart}) {
    write_entry_header(segment, manifest->entry_offset, kind, "key", payload.size(), crc, 0, kEntryJoined);
    EXPECT_CODE(client.seal(*manifest), Code::kCorrupt);
  }
  // Attributes of its own are its to give.
  payload.resize(payload.size() + 100, 'a');
  manifest = client.write(EntryKind::kManifest, "key", span_of(payload));
  ASSERT_OK(manifest);
  ASSERT_OK(client.seal(*manifest));
  EXPECT_EQ(ns_->get("key")->attributes, std::string(100, 'a'));
  EXPECT_TRUE(shows(ns_->get("key"), "key", 1, 11'000));
  parts = client.put_parts("key", 2, {5000});
  ASSERT_OK(parts);
  payload = LocalClient::manifest_of(*parts);
  payload.resize(payload.size() + limits::kAttributesBytesMax + 1);
  manifest = client.write(EntryKind::kManifest, "key", span_of(payload));
  ASSERT_OK(manifest);
  EXPECT_CODE(client.seal(*manifest), Code::kCorrupt);
  EXPECT_TRUE(shows(ns_->get("key"), "key", 1, 11'000));
}

}  // namespace
}  // namespace millrace::test
