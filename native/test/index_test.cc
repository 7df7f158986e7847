// The index against a map, alone and while other threads and another process read it.
#include "index/index_writer.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "test/test_support.h"

namespace millrace {
namespace {

using test::Random;

// References of these tests need no memory behind them: the segment number is the key, the offset its version.
constexpr uint64_t kVersionMax = (1 << 24) - 1;
SlotRef ref_of(uint32_t key, uint64_t version) { return {key, version * limits::kEntryAlignment}; }
uint64_t version_of(SlotRef ref) { return ref.entry_offset / limits::kEntryAlignment; }
uint64_t plain_hash(uint32_t key) { return hash_key({reinterpret_cast<const char*>(&key), sizeof key}); }

class Index {
 public:
  explicit Index(std::function<uint64_t(uint32_t)> hash = plain_hash) : hash_(std::move(hash)) {
    auto created = IndexWriter::create([this](SlotRef ref) { return hash_(ref.segment); });
    EXPECT_OK(created);
    writer_ = std::move(*created);
  }
  Result<std::optional<SlotRef>> put(uint32_t key, uint64_t version) {
    return writer_->put(hash_(key), ref_of(key, version), [&](SlotRef ref) { return ref.segment == key; });
  }
  std::optional<SlotRef> remove(uint32_t key) {
    return writer_->remove(hash_(key), [&](SlotRef ref) { return ref.segment == key; });
  }
  std::optional<SlotRef> find(uint32_t key) const { return find_in(writer_->view(), key); }
  std::optional<SlotRef> find_in(const IndexView& view, uint32_t key) const {
    std::optional<SlotRef> found;
    view.find(hash_(key), [&](SlotRef ref) {
      if (ref.segment != key) return false;
      found = ref;
      return true;
    });
    return found;
  }
  IndexWriter& writer() { return *writer_; }

 private:
  std::function<uint64_t(uint32_t)> hash_;
  std::unique_ptr<IndexWriter> writer_;
};

void expect_same(Index& index, const std::unordered_map<uint32_t, uint64_t>& model) {
  ASSERT_EQ(index.writer().view().objects(), model.size());
  for (const auto& [key, version] : model) {
    const auto found = index.find(key);
    ASSERT_TRUE(found.has_value()) << "key " << key << " is lost";
    ASSERT_EQ(version_of(*found), version) << "key " << key;
  }
  std::unordered_set<uint32_t> seen;
  index.writer().for_each([&](SlotRef ref) {
    EXPECT_TRUE(seen.insert(ref.segment).second) << "key " << ref.segment << " is visited twice";
    const auto at = model.find(ref.segment);
    ASSERT_NE(at, model.end()) << "key " << ref.segment << " was removed";
    EXPECT_EQ(version_of(ref), at->second);
  });
  ASSERT_EQ(seen.size(), model.size());
}

TEST(SlotWord, PacksAndUnpacks) {
  Random random(test::new_seed("SlotWord.PacksAndUnpacks"));
  for (int i = 0; i < 100000; ++i) {
    const SlotRef ref{static_cast<uint32_t>(random.below(1 << 24)), random.below(1 << 24) * 16};
    const uint64_t word = pack_slot(ref, random.next());
    ASSERT_EQ(unpack_slot(word).segment, ref.segment);
    ASSERT_EQ(unpack_slot(word).entry_offset, ref.entry_offset);
    ASSERT_TRUE(ref.entry_offset < kSegmentHeaderBytes || word > kSlotRemoved);
  }
}

TEST(Index, StartsEmpty) {
  Index index;
  EXPECT_FALSE(index.find(1).has_value());
  EXPECT_FALSE(index.remove(1).has_value());
  EXPECT_EQ(index.writer().view().objects(), 0u);
  EXPECT_FALSE(index.writer().view().closed());
  index.writer().for_each([](SlotRef) { ADD_FAILURE(); });
  index.writer().close();
  EXPECT_TRUE(index.writer().view().closed());
}

TEST(Index, MatchesAMapUnderRandomOperations) {
  Random random(test::new_seed("Index.MatchesAMapUnderRandomOperations"));
  for (const uint32_t keys : {10u, 3000u, 8000u, test::kSanitized ? 60000u : 300000u}) {
    Index index;
    std::unordered_map<uint32_t, uint64_t> model;
    const int operations = static_cast<int>(keys) * 4;
    uint64_t version = 256;
    for (int i = 0; i < operations; ++i) {
      const auto key = static_cast<uint32_t>(random.below(keys));
      const auto known = model.find(key);
      const uint64_t kind = random.below(10);
      if (kind < 6) {
        version = version == kVersionMax ? 256 : version + 1;
        const auto before = index.put(key, version);
        ASSERT_OK(before);
        ASSERT_EQ(before.value().has_value(), known != model.end());
        ASSERT_TRUE(known == model.end() || version_of(*before.value()) == known->second);
        model[key] = version;
      } else if (kind < 8) {
        const auto before = index.remove(key);
        ASSERT_EQ(before.has_value(), known != model.end());
        if (before.has_value()) {
          ASSERT_EQ(version_of(*before), known->second);
          model.erase(key);
        }
      } else {
        const auto found = index.find(key);
        ASSERT_EQ(found.has_value(), known != model.end());
        ASSERT_TRUE(known == model.end() || version_of(*found) == known->second);
      }
    }
    expect_same(index, model);
    // Take all of it out again.
    for (const auto& [key, value] : model) ASSERT_TRUE(index.remove(key).has_value());
    expect_same(index, {});
  }
}

TEST(Index, GrowsByInsertionAlone) {
  Index index;
  std::unordered_map<uint32_t, uint64_t> model;
  const uint32_t keys = test::kSanitized ? 100000 : 300000;
  for (uint32_t key = 0; key < keys; ++key) {
    ASSERT_OK(index.put(key, 300));
    model[key] = 300;
  }
  expect_same(index, model);
  for (uint32_t key = keys; key < 2 * keys; ++key) ASSERT_FALSE(index.find(key).has_value());
  // Slots of 8 bytes, filled by half in the worst case, and the directories.
  EXPECT_LE(index.writer().bytes(), 64 * KiB + keys * 40);
}

TEST(Index, ReusesRemovedSlots) {
  // A thousand keys at a time out of ever new ones: the file must not grow with what has passed through it.
  Index index;
  std::unordered_map<uint32_t, uint64_t> model;
  constexpr uint32_t kLive = 1000;
  const uint32_t total = test::kSanitized ? 200000 : 1000000;
  for (uint32_t key = 0; key < total; ++key) {
    ASSERT_OK(index.put(key, 256 + key % 1000));
    model[key] = 256 + key % 1000;
    if (key >= kLive) {
      ASSERT_TRUE(index.remove(key - kLive).has_value());
      model.erase(key - kLive);
    }
  }
  expect_same(index, model);
  EXPECT_LE(index.writer().bytes(), 16 * kTableBytes);
}

TEST(Index, AlternatingPutAndRemoveOfOneKeyNeedsNoRoom) {
  Index index;
  for (int i = 0; i < 100000; ++i) {
    ASSERT_OK(index.put(7, 300));
    ASSERT_TRUE(index.remove(7).has_value());
  }
  EXPECT_LE(index.writer().bytes(), 8 * kTableBytes);
}

TEST(Index, KeysOfOneBucketSpillIntoTheNext) {
  // Home bucket and tag are the same for all, the last bucket wraps around to the first.
  for (const uint64_t home : {uint64_t{0}, kTableBuckets - 1}) {
    Random random(test::new_seed("Index.KeysOfOneBucketSpillIntoTheNext"));
    Index index([&](uint32_t key) { return static_cast<uint64_t>(key) << 40 | home << 16 | 0x1234; });
    std::unordered_map<uint32_t, uint64_t> model;
    for (int i = 0; i < 20000; ++i) {
      const auto key = static_cast<uint32_t>(random.below(2000));
      if (random.chance(3)) {
        ASSERT_EQ(index.remove(key).has_value(), model.erase(key) > 0);
      } else {
        ASSERT_OK(index.put(key, 256 + static_cast<uint64_t>(i)));
        model[key] = 256 + static_cast<uint64_t>(i);
      }
    }
    expect_same(index, model);
  }
}

// Keys with equal hashes cannot be told apart by a split. So many of them that a table overflows get a typed
// error, and nothing that was there is lost.
TEST(Index, EqualHashesAreBoundedAndHurtNobodyElse) {
  const auto hash = [](uint32_t key) { return key < 1000000 ? 0xabcdef0123456789ull : plain_hash(key); };
  Index index(hash);
  std::unordered_map<uint32_t, uint64_t> model;
  for (uint32_t key = 1000000; key < 1005000; ++key) {
    ASSERT_OK(index.put(key, 300));
    model[key] = 300;
  }
  uint32_t refused = 0;
  for (uint32_t key = 0; key < 5000; ++key) {
    const auto put = index.put(key, 400);
    if (put.ok()) {
      model[key] = 400;
    } else {
      ASSERT_CODE(put, Code::kResourceExhausted);
      if (++refused > 50) break;
    }
  }
  EXPECT_GT(refused, 0u) << "if collisions became unbounded, say here how";
  EXPECT_GT(model.size(), 5000u + 1000u);
  expect_same(index, model);
  // Overwriting needs no room, removing makes some, and all other keys go on as before.
  ASSERT_OK(index.put(3, 401));
  model[3] = 401;
  for (uint32_t key = 1005000; key < 1015000; ++key) {
    const auto put = index.put(key, 300);
    ASSERT_OK(put);
    model[key] = 300;
  }
  for (uint32_t key = 0; key < 500; ++key) {
    ASSERT_TRUE(index.remove(key).has_value());
    model.erase(key);
  }
  for (uint32_t key = 0; key < 100; ++key) {
    ASSERT_OK(index.put(key, 402));
    model[key] = 402;
  }
  expect_same(index, model);
  // The directory has reached its depth: 20 levels of directories and tables, no more.
  EXPECT_LE(index.writer().bytes(), 32 * MiB);
}

TEST(Index, EqualTopBitsSplitAsDeepAsNeeded) {
  Index index([](uint32_t key) { return 0x5a5a5ull << 44 | (plain_hash(key) & 0xfffffffffffull); });
  std::unordered_map<uint32_t, uint64_t> model;
  for (uint32_t key = 0; key < 3000; ++key) {
    ASSERT_OK(index.put(key, 300));
    model[key] = 300;
  }
  expect_same(index, model);
}

// --- readers beside the writer

// Stable keys are overwritten but never removed; a reader must find each of them at every moment, with a version
// that only ever grows. Churn keys come and go around them and make tables split and be swept.
constexpr uint32_t kStable = 2000;

// What a reader sees wrong; 0: nothing.
struct ReaderFindings {
  uint64_t lookups = 0, missing = 0, backwards = 0, never_put = 0;
};

template <class Stop>
ReaderFindings read_until(const Index& index, const IndexView& view, const std::atomic<uint64_t>& newest, uint64_t seed,
                          Stop&& stop) {
  ReaderFindings findings;
  Random random(seed);
  std::vector<uint64_t> last(kStable, 0);
  do {
    for (int i = 0; i < 1000; ++i) {
      const auto key = static_cast<uint32_t>(random.below(kStable));
      const auto found = index.find_in(view, key);
      ++findings.lookups;
      if (!found.has_value()) {
        ++findings.missing;
        continue;
      }
      const uint64_t version = version_of(*found);
      if (version < last[key]) ++findings.backwards;
      if (version > newest.load()) ++findings.never_put;
      last[key] = version;
      // One that never was: its miss has to be validated against splits, and found out all the same.
      if (index.find_in(view, 0xffff00 + key % 16).has_value()) ++findings.never_put;
    }
  } while (!stop());
  return findings;
}

void expect_nothing_wrong(const ReaderFindings& findings) {
  EXPECT_GT(findings.lookups, 0u);
  EXPECT_EQ(findings.missing, 0u) << "of " << findings.lookups;
  EXPECT_EQ(findings.backwards, 0u);
  EXPECT_EQ(findings.never_put, 0u);
}

// `rounds` of growing to `keys` churn keys and shrinking again.
void write_around_readers(Index& index, std::atomic<uint64_t>& newest, uint64_t seed, int rounds, uint32_t keys) {
  Random random(seed);
  for (int round = 0; round < rounds; ++round) {
    for (uint32_t i = 0; i < keys; ++i) {
      ASSERT_OK(index.put(kStable + static_cast<uint32_t>(round % 2) * keys + i, 300));
      if (i % 4 == 0) {
        const uint64_t version = newest.load() + 1;
        newest.store(version);
        ASSERT_TRUE(index.put(static_cast<uint32_t>(random.below(kStable)), version).value().has_value());
      }
    }
    for (uint32_t i = 0; i < keys; ++i) {
      ASSERT_TRUE(index.remove(kStable + static_cast<uint32_t>(round % 2) * keys + i).has_value());
    }
  }
}

// A reader that is held up while its table is split, freed and filled with other keys must look again. Here the
// writer works in the middle of the lookup, so that it happens each time and not once in a million.
TEST(IndexReaders, AMissInATableThatMovedIsLookedUpAgain) {
  constexpr uint32_t kFirst = 1, kSecond = 2;
  // One home bucket for both and one tag for all: the probe for the second comes past the first.
  const auto hash = [](uint32_t key) {
    const uint64_t plain = plain_hash(key) & ~uint64_t{0xffff};
    return 0x7777 | (key <= kSecond ? (plain & ~(uint64_t{0x1ff} << 16)) | uint64_t{5} << 16 : plain);
  };
  for (uint32_t keys_meanwhile : {4000u, 8000u, 30000u, 100000u}) {
    Index index(hash);
    ASSERT_OK(index.put(kFirst, 300));
    ASSERT_OK(index.put(kSecond, 300));
    bool interrupted = false;
    std::optional<SlotRef> found;
    EXPECT_TRUE(index.writer().view().find(hash(kSecond), [&](SlotRef ref) {
      if (!std::exchange(interrupted, true)) {
        for (uint32_t key = 0; key < keys_meanwhile; ++key) EXPECT_OK(index.put(1000 + key, 300));
        return false;
      }
      if (ref.segment != kSecond) return false;
      found = ref;
      return true;
    })) << keys_meanwhile;
    EXPECT_TRUE(interrupted);
    EXPECT_TRUE(found.has_value());
    // What is not there is a miss in the end, also of a reader that was held up.
    interrupted = false;
    EXPECT_FALSE(index.writer().view().find(hash(kFirst), [&](SlotRef) {
      if (!std::exchange(interrupted, true)) {
        EXPECT_TRUE(index.remove(kFirst).has_value());
        for (uint32_t key = 0; key < keys_meanwhile; ++key) EXPECT_OK(index.put(200000 + key, 300));
      }
      return false;
    }));
  }
}

TEST(IndexReaders, ThreadsFindWhatIsAlwaysThere) {
  const uint64_t seed = test::new_seed("IndexReaders.ThreadsFindWhatIsAlwaysThere");
  for (int repeat = 0; repeat < (test::kSanitized ? 2 : 6); ++repeat) {
    Index index;
    std::atomic<uint64_t> newest{256};
    for (uint32_t key = 0; key < kStable; ++key) ASSERT_OK(index.put(key, 256));
    std::atomic<bool> stop{false};
    std::atomic<int> started{0};
    std::vector<ReaderFindings> findings(2);
    std::vector<std::thread> readers;
    for (size_t i = 0; i < findings.size(); ++i) {
      readers.emplace_back([&, i] {
        ++started;
        findings[i] = read_until(index, index.writer().view(), newest, seed + i, [&] { return stop.load(); });
      });
    }
    while (started.load() < 2) std::this_thread::yield();
    write_around_readers(index, newest, seed + 100 + static_cast<uint64_t>(repeat), 2, test::kSanitized ? 20000 : 80000);
    stop.store(true);
    for (auto& reader : readers) reader.join();
    for (const auto& one : findings) expect_nothing_wrong(one);
  }
}

// The same from another process that maps the file by its descriptor, read-only.
TEST(IndexReaders, AnotherProcessFindsWhatIsAlwaysThere) {
  const uint64_t seed = test::new_seed("IndexReaders.AnotherProcessFindsWhatIsAlwaysThere");
  Index index;
  for (uint32_t key = 0; key < kStable; ++key) ASSERT_OK(index.put(key, 256));
  struct Shared {
    std::atomic<uint64_t> newest{256};
    std::atomic<bool> started{false}, stop{false};
    ReaderFindings findings;
    bool mapped = false, write_refused = false;
  };
  void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  auto* shared = new (memory) Shared;
  const int fd = index.writer().fd();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    void* writable = mmap(nullptr, 1 * MiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    shared->write_refused = writable == MAP_FAILED && pwrite(fd, "x", 1, 0) < 0;
    void* base = mmap(nullptr, limits::kIndexBytesMax, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    shared->mapped = base != MAP_FAILED;
    shared->started.store(true);
    if (!shared->mapped) _exit(1);
    const IndexView view(static_cast<const uint8_t*>(base));
    shared->findings = read_until(index, view, shared->newest, seed, [&] { return shared->stop.load(); });
    _exit(view.header().magic == kIndexMagic ? 0 : 2);
  }
  while (!shared->started.load()) std::this_thread::yield();
  std::atomic<uint64_t>& newest = shared->newest;
  write_around_readers(index, newest, seed + 1, 4, test::kSanitized ? 20000 : 80000);
  shared->stop.store(true);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(shared->mapped);
  EXPECT_TRUE(shared->write_refused) << "a client could write into the index";
  expect_nothing_wrong(shared->findings);
  munmap(memory, 4096);
}

TEST(IndexReaders, SeeTheEndOfTheNamespace) {
  Index index;
  auto* base = static_cast<const uint8_t*>(
      mmap(nullptr, limits::kIndexBytesMax, PROT_READ, MAP_SHARED | MAP_NORESERVE, index.writer().fd(), 0));
  ASSERT_NE(static_cast<const void*>(base), MAP_FAILED);
  const IndexView view(base);
  EXPECT_FALSE(view.closed());
  index.writer().close();
  EXPECT_TRUE(view.closed());
  munmap(const_cast<uint8_t*>(base), limits::kIndexBytesMax);
}

}  // namespace
}  // namespace millrace
