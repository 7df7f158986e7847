// Many writers, readers and sessions that end midway, for a bounded number of operations, every byte checked.
//
// Each writer owns its keys, so it knows what is the newest version of each; readers know that what they see of
// a key was written whole, is no older than the newest that was sealed before they looked, and no newer than the
// newest begun. Contents are derived from key and version, the version is told by the size.
#include <atomic>
#include <thread>

#include "store/store.h"
#include "test/store_support.h"

namespace millrace {
namespace {

using test::Content;
using test::Ear;
using test::LocalClient;
using test::make_namespace;
using test::Random;
using test::span_of;
using test::store_options;

constexpr uint64_t kKeysPerWriter = 40;

// Sizes vary by orders of magnitude and say which version it is.
uint64_t size_of_version(uint64_t version) {
  const uint64_t scale = version * 0x9e3779b97f4a7c15ull >> 61;
  return (scale < 5 ? 0 : scale == 5 ? 40000 : scale == 6 ? 200000 : 500000) + version;
}
// The version that has this size, or 0. Versions stay far below the smallest step.
uint64_t version_of_size(uint64_t size) {
  for (const uint64_t base : {500000, 200000, 40000, 0}) {
    if (size > base) return size_of_version(size - base) == size ? size - base : 0;
  }
  return 0;
}

struct KeyState {
  std::atomic<uint64_t> begun{0};   // newest version that a writer has started to write
  std::atomic<uint64_t> sealed{0};  // newest version known to be sealed
  std::atomic<bool> maybe_absent{true};
};

struct World {
  explicit World(size_t writers, uint64_t dram_bytes) : store(store_options(dram_bytes, 20)), keys(writers * kKeysPerWriter) {
    store.set_listener(&ear);
    ns = make_namespace(store, "stress");
  }
  ~World() { store.set_listener(nullptr); }
  static std::string key(size_t index) { return "stress/" + std::to_string(index % 7) + "/" + std::to_string(index); }

  Ear ear;
  Store store;
  std::shared_ptr<Namespace> ns;
  std::vector<KeyState> keys;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> puts{0}, full{0}, reads{0}, removes{0}, wrong{0};
};

// Unmaps and confirms what was retired, sometimes late.
void be_a_good_client(World& world, LocalClient& client, Random& random, std::vector<uint32_t>& owed) {
  for (uint32_t segment : world.ear.take_retired(client.session())) owed.push_back(segment);
  if (random.chance(3)) {
    for (uint32_t segment : owed) client.let_go(segment);
    owed.clear();
  }
}

void write_keys(World& world, size_t writer, uint64_t seed, uint64_t operations) {
  Random random(seed);
  std::optional<LocalClient> client;
  std::vector<uint32_t> owed;
  std::vector<uint64_t> version(kKeysPerWriter, 0);
  const bool daemon_only = writer % 3 == 0;
  for (uint64_t operation = 0; operation < operations; ++operation) {
    const size_t mine = random.below(kKeysPerWriter);
    const size_t index = writer * kKeysPerWriter + mine;
    const std::string key = World::key(index);
    KeyState& state = world.keys[index];
    if (random.chance(12)) {
      state.maybe_absent.store(true);
      const bool was_there = state.sealed.load() != 0;
      auto removed = world.ns->remove(key, {});
      if (!removed.ok() || (*removed != was_there && was_there)) {
        ++world.wrong;
        ADD_FAILURE() << "remove of " << key << ": " << removed.status().message();
      }
      state.sealed.store(0);
      ++world.removes;
      continue;
    }
    const uint64_t next = ++version[mine];
    const uint64_t size = size_of_version(next);
    state.begun.store(next);
    Result<ObjectInfo> put = Status(Code::kAborted, "not tried");
    if (!daemon_only && (!client || random.chance(60))) {
      client.reset();  // what it had left unsealed is reclaimed
      owed.clear();
      client.emplace(world.ns);
    }
    const uint64_t way = random.below(6);
    if (daemon_only || way == 0) {
      if (random.chance(2)) {
        put = test::put(*world.ns, key, next, size);
      } else {
        auto draft = world.ns->begin(key);
        Status appended = draft.status();
        const auto bytes = Content(key, next).bytes(size);
        for (uint64_t done = 0; appended.ok() && done < size;) {
          const uint64_t chunk = std::min(size - done, random.between(1, 100000));
          appended = draft->append({bytes.data() + done, chunk});
          done += chunk;
        }
        if (!appended.ok()) {
          put = appended;
        } else if (random.chance(10)) {
          draft->abort();
        } else {
          put = world.ns->commit(std::move(*draft), {}, nullptr, crc32c(0, bytes.data(), size));
        }
      }
    } else if (way == 1 && size > 1000) {
      put = client->put_in_parts(key, next, {size / 3, size / 3, size - size / 3 * 2});
    } else if (way == 2) {
      // Started, and never sealed.
      (void)client->write(EntryKind::kObject, key, span_of(Content(key, next).bytes(size)));
      (void)client->put_parts(key, next, {random.between(1, 5000)});
    } else {
      put = client->put(key, next, size);
    }
    if (put.ok()) {
      state.sealed.store(next);
      state.maybe_absent.store(false);
      ++world.puts;
    } else if (put.code() == Code::kResourceExhausted) {
      ++world.full;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      // Room comes back: give back what one holds.
      if (client) {
        client.reset();
        owed.clear();
      }
    } else if (put.code() != Code::kAborted) {
      ++world.wrong;
      ADD_FAILURE() << key << ": " << code_name(put.code()) << " " << put.status().message();
    }
    if (client) be_a_good_client(world, *client, random, owed);
  }
}

void check_seen(World& world, const std::string& key, uint64_t oldest, uint64_t newest, const std::vector<ConstSpan>& spans, const char* how) {
  uint64_t size = 0;
  for (const ConstSpan& span : spans) size += span.bytes;
  const uint64_t version = version_of_size(size);
  const Content content(key, version);
  bool good = version >= oldest && version <= newest && version > 0;
  uint64_t at = 0;
  for (const ConstSpan& span : spans) {
    good = good && content.matches(span.data, span.bytes, at);
    at += span.bytes;
  }
  if (!good) {
    ++world.wrong;
    ADD_FAILURE() << how << " of " << key << " saw version " << version << " (" << size << " bytes), between " << oldest << " and " << newest;
  }
}

void read_keys(World& world, uint64_t seed) {
  Random random(seed);
  std::optional<LocalClient> client;
  std::vector<uint32_t> owed;
  std::vector<Result<ObjectView>> kept;
  std::vector<std::pair<std::string, uint64_t>> kept_versions;
  while (!world.stop.load()) {
    if (!client || random.chance(500)) {
      client.reset();
      owed.clear();
      client.emplace(world.ns);
    }
    const size_t index = random.below(world.keys.size());
    const std::string key = World::key(index);
    KeyState& state = world.keys[index];
    const bool was_there = !state.maybe_absent.load();
    const uint64_t oldest = state.sealed.load();
    const uint64_t begun = state.begun.load();
    if (random.chance(3)) {
      auto view = world.ns->get(key);
      const uint64_t newest = state.begun.load();
      if (view.ok()) {
        check_seen(world, key, oldest, newest, view->spans, "get");
        // Views are kept for a while: bytes must not change under them.
        if (random.chance(20)) {
          kept_versions.emplace_back(key, version_of_size(view->info.size_bytes));
          kept.push_back(std::move(view));
        }
      } else if (was_there && !state.maybe_absent.load() && state.begun.load() == begun) {
        // Nor was it removed and put again meanwhile.
        ++world.wrong;
        ADD_FAILURE() << "get of " << key << ": " << view.status().message();
      }
    } else {
      const auto bytes = client->get(key);
      const uint64_t newest = state.begun.load();
      if (bytes) {
        check_seen(world, key, oldest, newest, {ConstSpan{bytes->data(), bytes->size()}}, "same-host get");
      } else if (was_there && !state.maybe_absent.load() && state.begun.load() == newest) {
        // A part may be gone when the object was overwritten meanwhile; then try once more below.
        if (state.sealed.load() == oldest && !client->get(key) && !state.maybe_absent.load() && state.sealed.load() == oldest &&
            state.begun.load() == newest) {
          ++world.wrong;
          ADD_FAILURE() << "same-host get of " << key << " found nothing";
        }
      }
    }
    ++world.reads;
    be_a_good_client(world, *client, random, owed);
    if (kept.size() > 20) {
      for (size_t i = 0; i < kept.size(); ++i) {
        const auto& [kept_key, version] = kept_versions[i];
        if (!test::shows(kept[i], kept_key, version, size_of_version(version))) {
          ++world.wrong;
          ADD_FAILURE() << "a view of " << kept_key << " has changed";
        }
      }
      kept.clear();
      kept_versions.clear();
    }
    if (random.chance(300)) {
      std::string after;
      for (;;) {
        auto page = world.ns->list("stress/", after, 50);
        if (!page.ok()) {
          ++world.wrong;
          ADD_FAILURE() << page.status().message();
          break;
        }
        for (const auto& object : page->objects) {
          if (object.key <= after || version_of_size(object.info.size_bytes) == 0) {
            ++world.wrong;
            ADD_FAILURE() << "listed " << object.key << " after " << after << " with " << object.info.size_bytes << " bytes";
          }
          after = object.key;
        }
        if (!page->truncated) break;
      }
    }
  }
}

struct StressCase {
  const char* what;
  uint64_t dram_bytes;
};
class StoreStress : public ::testing::TestWithParam<StressCase> {};
INSTANTIATE_TEST_SUITE_P(Store, StoreStress,
                         ::testing::Values(StressCase{"roomy", 512 * MiB}, StressCase{"tight", 48 * MiB}),
                         [](const auto& info) { return std::string(info.param.what); });

TEST_P(StoreStress, EveryByteIsRight) {
  const uint64_t seed = test::new_seed("StoreStress.EveryByteIsRight");
  constexpr size_t kWriters = 4, kReaders = 2;
  const uint64_t operations = test::kSanitized ? 800 : 5000;
  World world(kWriters, GetParam().dram_bytes);
  std::vector<std::thread> readers, writers;
  for (size_t i = 0; i < kReaders; ++i) readers.emplace_back([&, i] { read_keys(world, seed + 100 + i); });
  for (size_t i = 0; i < kWriters; ++i) writers.emplace_back([&, i] { write_keys(world, i, seed + i, operations); });
  for (auto& writer : writers) writer.join();
  world.stop.store(true);
  for (auto& reader : readers) reader.join();
  std::printf("[  STRESS  ] %llu puts, %llu refused for room, %llu removes, %llu reads\n",
              static_cast<unsigned long long>(world.puts), static_cast<unsigned long long>(world.full),
              static_cast<unsigned long long>(world.removes), static_cast<unsigned long long>(world.reads));
  EXPECT_EQ(world.wrong.load(), 0u);
  EXPECT_GT(world.puts.load(), operations);

  // At rest: exactly the newest of each, by every way of reading, and the accounts agree.
  LocalClient client(world.ns);
  uint64_t objects = 0, bytes = 0;
  for (size_t i = 0; i < world.keys.size(); ++i) {
    const std::string key = World::key(i);
    const uint64_t version = world.keys[i].sealed.load();
    if (version == 0) {
      EXPECT_CODE(world.ns->head(key), Code::kNotFound);
      continue;
    }
    ++objects;
    bytes += size_of_version(version);
    ASSERT_TRUE(test::shows(world.ns->get(key), key, version, size_of_version(version)));
    ASSERT_EQ(client.get(key), Content(key, version).bytes(size_of_version(version)));
  }
  const auto stats = world.ns->stats();
  EXPECT_EQ(stats.objects, objects);
  EXPECT_EQ(stats.size_bytes, bytes);
  EXPECT_EQ(world.ns->list("stress/", "", 1000)->objects.size(), objects);
  for (size_t i = 0; i < world.keys.size(); ++i) ASSERT_OK(world.ns->remove(World::key(i), {}));
  client.disconnect();
  EXPECT_EQ(world.ns->stats().size_bytes, 0u);
  // All but the daemon's own segment and rests that were never written to comes free.
  EXPECT_TRUE(test::eventually([&] { return world.ns->stats().held_bytes == 0; }));
  ASSERT_OK(world.store.drop("stress"));
  EXPECT_TRUE(test::eventually([&] { return world.ns->stats().segment_bytes == 0; }));
}

// Namespaces come, are filled and go while others do the same: their memory is given back to the last byte.
TEST(NamespaceStress, ComeAndGo) {
  const uint64_t seed = test::new_seed("NamespaceStress.ComeAndGo");
  Store store(store_options(128 * MiB, 5));
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      Random random(seed + t);
      for (int round = 0; round < (test::kSanitized ? 10 : 40); ++round) {
        const std::string name = "come-" + std::to_string(t) + "-" + std::to_string(round);
        auto ns = make_namespace(store, name);
        std::optional<LocalClient> client(ns);
        std::vector<Result<ObjectView>> views;
        for (uint64_t i = 0; i < 60; ++i) {
          const std::string key = "key-" + std::to_string(random.below(20));
          const uint64_t size = random.size(300000);
          auto put = random.chance(2) ? test::put(*ns, key, i, size) : client->put(key, i, size);
          if (!put.ok()) {
            EXPECT_CODE(put, Code::kResourceExhausted);
            continue;
          }
          auto view = ns->get(key);
          EXPECT_TRUE(test::shows(view, key, i, size));
          if (random.chance(10)) views.push_back(std::move(view));
        }
        if (random.chance(2)) client.reset();
        EXPECT_OK(store.drop(name));
        EXPECT_CODE(ns->head("key-1"), Code::kNamespaceGone);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_TRUE(store.namespaces().empty());
  EXPECT_TRUE(test::eventually([&] { return store.dram_stats().used_bytes == 0; })) << store.dram_stats().used_bytes;
}

}  // namespace
}  // namespace millrace
