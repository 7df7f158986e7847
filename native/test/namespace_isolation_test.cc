// What keeps clients apart: nothing of one namespace is ever seen in another, bytes that somebody has mapped do
// not change under him, and a client that writes rubbish over all it was granted harms nobody but itself.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <set>
#include <thread>

#include "store/segment.h"
#include "store/store.h"
#include "test/store_support.h"

namespace millrace {
namespace {

using test::Content;
using test::Ear;
using test::LocalClient;
using test::make_namespace;
using test::Random;
using test::shows;
using test::span_of;
using test::store_options;

// --- between namespaces

using Inode = std::pair<dev_t, ino_t>;
Inode inode_of(int fd) {
  struct stat file;
  EXPECT_EQ(fstat(fd, &file), 0);
  return {file.st_dev, file.st_ino};
}

constexpr uint8_t kSecret[16] = {0xde, 0xad, 0x5e, 0xc2, 0xe7, 0x11, 0x22, 0x33, 0xde, 0xad, 0x5e, 0xc2, 0xe7, 0x44, 0x55, 0x66};

// Writes the secret over all of the grant.
void fill_with_secret(LocalClient& client, const Grant& grant) {
  uint8_t* data = client.writable(grant.segment);
  for (uint64_t at = grant.begin; at + sizeof kSecret <= grant.end; at += sizeof kSecret) std::memcpy(data + at, kSecret, sizeof kSecret);
}

// Whether memory behind its header is as the kernel gives it.
bool all_zero_behind_header(const uint8_t* data, uint64_t bytes) {
  const uint8_t* from = data + kSegmentHeaderBytes;
  const uint64_t count = bytes - kSegmentHeaderBytes;
  return *from == 0 && std::memcmp(from, from + 1, count - 1) == 0;
}

void remove_all(Namespace& ns) {
  const auto page = ns.list("", "", 1000);
  ASSERT_OK(page);
  for (const auto& object : page.value().objects) ASSERT_TRUE(*ns.remove(object.key, {}));
}

// How namespace A ends, or rather how its memory comes free.
enum class Ending { kDropped, kDroppedWhileMapped, kDeleted, kAbandoned };
class MemoryOfA : public ::testing::TestWithParam<Ending> {};
INSTANTIATE_TEST_SUITE_P(Isolation, MemoryOfA,
                         ::testing::Values(Ending::kDropped, Ending::kDroppedWhileMapped, Ending::kDeleted, Ending::kAbandoned));

TEST_P(MemoryOfA, NeverReachesB) {
  Store store(store_options(32 * MiB, 5));
  for (int round = 0; round < 4; ++round) {
    auto a = make_namespace(store, "ns-a");
    std::set<Inode> inodes_of_a;
    std::unique_ptr<LocalClient> client = std::make_unique<LocalClient>(a);
    inodes_of_a.insert(inode_of(a->index_fd()));
    // Objects of clients, of the daemon, and bytes that nobody sealed.
    for (uint64_t bytes : {uint64_t{100}, 1 * MiB, 3 * MiB}) {
      auto grant = client->reserve(bytes);
      ASSERT_OK(grant);
      inodes_of_a.insert(inode_of(grant->memory->fd()));
      fill_with_secret(*client, *grant);
      write_entry_header(client->writable(grant->segment), grant->begin, EntryKind::kObject, "secret-" + std::to_string(bytes), 100, 0);
      ASSERT_OK(a->seal(client->session(), grant->segment, grant->begin, {}));
      a->give_back(client->session(), grant->segment);
    }
    std::vector<uint8_t> secret(2 * MiB);
    for (uint64_t at = 0; at < secret.size(); at += sizeof kSecret) std::memcpy(secret.data() + at, kSecret, sizeof kSecret);
    ASSERT_OK(a->put("daemon", span_of(secret), {}));
    for (uint32_t segment = 1; segment < 100; ++segment) {
      auto opened = a->open_segment(client->session(), segment);
      if (opened.ok()) inodes_of_a.insert(inode_of(opened->memory->fd()));
    }
    switch (GetParam()) {
      case Ending::kDropped:
        client.reset();
        ASSERT_OK(store.drop("ns-a"));
        a.reset();
        break;
      case Ending::kDroppedWhileMapped:
        ASSERT_OK(store.drop("ns-a"));
        std::this_thread::sleep_for(std::chrono::milliseconds(20));  // past the grace
        break;
      case Ending::kDeleted:
        remove_all(*a);
        client.reset();
        break;
      case Ending::kAbandoned:
        client->disconnect();
        remove_all(*a);
        break;
    }
    // B takes all that the node has.
    auto b = make_namespace(store, "ns-b");
    LocalClient other(b);
    EXPECT_FALSE(inodes_of_a.contains(inode_of(b->index_fd())));
    uint64_t taken = 0;
    for (;;) {
      auto grant = other.reserve(900000);
      if (!grant.ok()) break;
      taken += grant->memory->bytes();
      ASSERT_FALSE(inodes_of_a.contains(inode_of(grant->memory->fd()))) << "the very file that A's clients may hold";
      ASSERT_TRUE(all_zero_behind_header(other.writable(grant->segment), grant->memory->bytes()));
      ASSERT_EQ(reinterpret_cast<const SegmentHeader*>(other.writable(grant->segment))->number, grant->segment);
      std::memset(other.writable(grant->segment) + grant->begin, 0xbb, grant->end - grant->begin);
    }
    EXPECT_GT(taken, 8 * MiB);
    // Nor do mappings of A that are still there show what B writes.
    if (GetParam() == Ending::kDroppedWhileMapped) {
      for (uint32_t segment : client->granted()) {
        EXPECT_EQ(std::memchr(client->writable(segment) + kSegmentHeaderBytes + 4096, 0xbb, 4096), nullptr);
      }
    }
    client.reset();
    other.disconnect();
    ASSERT_OK(store.drop("ns-b"));
    (void)store.drop("ns-a");
  }
}

TEST(Isolation, SessionsOfOneNamespaceMeanNothingInAnother) {
  Store store(store_options());
  auto a = make_namespace(store, "ns-a");
  auto b = make_namespace(store, "ns-b");
  LocalClient in_a(a), in_b(b);
  EXPECT_NE(in_a.session(), in_b.session());
  auto written = in_a.write(EntryKind::kObject, "key", span_of(Content("key", 1).bytes(100)));
  ASSERT_OK(written);
  ASSERT_OK(in_b.write(EntryKind::kObject, "key", span_of(Content("key", 2).bytes(100))));
  EXPECT_FALSE(b->seal(in_a.session(), written->segment, written->entry_offset, {}).ok());
  EXPECT_FALSE(b->reserve(in_a.session(), 100).ok());
  EXPECT_FALSE(b->open_segment(in_a.session(), written->segment).ok());
  b->give_back(in_a.session(), written->segment);
  b->confirm_unmapped(in_a.session(), written->segment);
  b->end_session(in_a.session());
  EXPECT_OK(in_a.seal(*written));
  EXPECT_CODE(b->head("key"), Code::kNotFound);
}

// Nobody outside of the daemon can write into an index or, with what readers get, into a segment.
TEST(Isolation, WhatReadersGetCannotBeWritten) {
  Store store(store_options());
  auto ns = make_namespace(store, "ns-a");
  LocalClient client(ns);
  ASSERT_OK(client.put("key", 1, 1000));
  const auto expect_read_only = [](int fd) {
    EXPECT_EQ(mmap(nullptr, 1 * MiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    EXPECT_NE(pwrite(fd, "x", 1, 0), 1);
    EXPECT_NE(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
    EXPECT_NE(ftruncate(fd, 0), 0);
    void* mapped = mmap(nullptr, 1 * MiB, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_NE(mapped, MAP_FAILED);
    EXPECT_NE(mprotect(mapped, 1 * MiB, PROT_READ | PROT_WRITE), 0);
    munmap(mapped, 1 * MiB);
  };
  expect_read_only(ns->index_fd());
  // Also where the descriptor is opened anew for writing, as the same user or root can.
  const int reopened = open(("/proc/self/fd/" + std::to_string(ns->index_fd())).c_str(), O_RDWR | O_CLOEXEC);
  if (reopened >= 0) {
    expect_read_only(reopened);
    close(reopened);
  }
  auto opened = ns->open_segment(client.session(), client.find("key")->ref.segment);
  ASSERT_OK(opened);
  auto fd = opened->memory->read_only_fd();
  ASSERT_OK(fd);
  expect_read_only(*fd);
  close(*fd);
  EXPECT_TRUE(shows(ns->get("key"), "key", 1, 1000));
}

// --- under one's own mapping

struct HeldObject {
  uint32_t segment;
  const uint8_t* data;
  std::string key;
  uint64_t version, size;
  bool intact() const { return Content(key, version).matches(data, size); }
};

HeldObject hold(LocalClient& reader, const std::string& key, uint64_t version, uint64_t size) {
  const auto found = reader.find(key);
  EXPECT_TRUE(found.has_value());
  HeldObject held{found->ref.segment, found->segment + found->entry.payload_offset, key, version, size};
  EXPECT_TRUE(held.intact());
  return held;
}

TEST(Retiring, BytesStayUntilTheirHolderHasConfirmed) {
  const uint64_t seed = test::new_seed("Retiring.BytesStayUntilTheirHolderHasConfirmed");
  Random random(seed);
  Ear ear;
  Store store(store_options(64 * MiB, 1));
  store.set_listener(&ear);
  auto ns = make_namespace(store, "ns-a");
  std::optional<LocalClient> writer(ns);
  LocalClient reader(ns);
  std::vector<HeldObject> held;
  for (uint64_t i = 0; i < 24; ++i) {
    const std::string key = "held-" + std::to_string(i);
    const uint64_t size = random.between(1, 700000);
    ASSERT_OK(i % 2 == 0 ? test::put(*ns, key, i, size) : writer->put(key, i, size));
    held.push_back(hold(reader, key, i, size));
  }
  writer.reset();
  for (const auto& object : held) ASSERT_TRUE(*ns->remove(object.key, {}));
  // Lots of writing, past every grace.
  std::set<uint32_t> told;
  const auto churn = [&](uint64_t times) {
    for (uint64_t i = 0; i < times; ++i) {
      auto put = test::put(*ns, "churn-" + std::to_string(i % 5), i, random.size(900000));
      if (!put.ok()) {
        ASSERT_CODE(put, Code::kResourceExhausted);
      }
      if (i % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      for (uint32_t segment : ear.take_retired(reader.session())) EXPECT_TRUE(told.insert(segment).second) << "told twice";
    }
  };
  churn(1000);
  for (const auto& object : held) ASSERT_TRUE(object.intact()) << object.key;
  EXPECT_FALSE(told.empty());
  EXPECT_GT(ns->stats().held_bytes, 0u) << "and it is accounted";
  // One after the other is confirmed; what is not yet confirmed still stays.
  std::vector<uint32_t> order(told.begin(), told.end());
  for (uint32_t segment : order) {
    std::erase_if(held, [&](const auto& object) { return object.segment == segment; });
    reader.let_go(segment);
    churn(100);
    for (const auto& object : held) ASSERT_TRUE(object.intact()) << object.key;
  }
  EXPECT_TRUE(held.empty() || ns->stats().segments > 0);
  reader.disconnect();
  EXPECT_TRUE(test::eventually([&] { return ns->stats().held_bytes == 0; }));
  store.set_listener(nullptr);
}

TEST(Retiring, OfSeveralHoldersAllMustConfirm) {
  Ear ear;
  Store store(store_options(16 * MiB, 1));
  store.set_listener(&ear);
  auto ns = make_namespace(store, "ns-a");
  LocalClient one(ns), two(ns), three(ns);
  ASSERT_OK(test::put(*ns, "key", 1, 900000));
  const HeldObject first = hold(one, "key", 1, 900000), second = hold(two, "key", 1, 900000);
  hold(three, "key", 1, 900000);
  EXPECT_TRUE(*ns->remove("key", {}));
  const auto churn = [&] {
    for (uint64_t i = 0; i < 200; ++i) (void)test::put(*ns, "churn", i, 800000);
  };
  churn();
  EXPECT_EQ(ear.take_retired(one.session()), std::vector<uint32_t>{first.segment});
  EXPECT_EQ(ear.take_retired(two.session()), std::vector<uint32_t>{first.segment});
  one.let_go(first.segment);
  one.let_go(first.segment);  // as often as one likes
  churn();
  EXPECT_TRUE(second.intact()) << "one holder spoke for another";
  three.disconnect();
  churn();
  EXPECT_TRUE(second.intact());
  // Segments that were never held, or never were, may be confirmed by anybody without effect.
  for (uint32_t segment : {0u, 1u, 2u, 1000u, 0xffffffu, ~0u}) ns->confirm_unmapped(one.session(), segment);
  for (uint32_t segment : {0u, 1u, 2u, 1000u}) ns->confirm_unmapped(987654, segment);
  churn();
  EXPECT_TRUE(second.intact());
  two.let_go(second.segment);
  store.set_listener(nullptr);
}

TEST(Retiring, AGrantIsNotTakenFromUnderItsWriter) {
  Ear ear;
  Store store(store_options(32 * MiB, 1));
  store.set_listener(&ear);
  auto ns = make_namespace(store, "ns-a");
  LocalClient client(ns);
  ASSERT_OK(client.put("key", 1, 100));
  auto pending = client.write(EntryKind::kObject, "pending", span_of(Content("pending", 1).bytes(5000)));
  ASSERT_OK(pending);
  EXPECT_TRUE(*ns->remove("key", {}));
  ns->confirm_unmapped(client.session(), pending->segment);  // a lie, or an old message
  for (uint64_t i = 0; i < 500; ++i) ASSERT_OK(test::put(*ns, "churn", i, 700000));
  ASSERT_OK(client.seal(*pending));
  EXPECT_TRUE(shows(ns->get("pending"), "pending", 1, 5000));
  store.set_listener(nullptr);
}

TEST(Retiring, MemoryIsUsedAgainOnceConfirmed) {
  Ear ear;
  Store store(store_options(8 * MiB, 60000));
  store.set_listener(&ear);
  auto ns = make_namespace(store, "ns-a");
  LocalClient reader(ns);
  for (uint64_t i = 0; i < 300; ++i) {
    ASSERT_OK(test::put(*ns, "key", i, 700000)) << i;
    hold(reader, "key", i, 700000);
    for (uint32_t segment : ear.take_retired(reader.session())) reader.let_go(segment);
  }
  EXPECT_GT(ear.freed(), 0u);
  store.set_listener(nullptr);
}

// --- a hostile client

// Whatever a client has written into its segments, every operation ends in a value or a typed error, views lie in
// their segments, and objects that lie elsewhere are unharmed.
class HostileClient : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t i = 0; i < 50; ++i) ASSERT_OK(test::put(*ns, "safe-" + std::to_string(i), i, 1000 * i));
    ASSERT_OK(LocalClient(other).put_in_parts("safe", 1, {1000, 2000}));
  }
  // Everything that reads what clients have written.
  void use_everything(Random& random) {
    for (int i = 0; i < 40; ++i) {
      const std::string key = "bad-" + std::to_string(random.below(200));
      auto view = ns->get(key);
      if (view.ok()) touch(*view);
      (void)ns->get(key, random.below(2000), random.below(2000));
      (void)ns->head(key);
      if (random.chance(4)) (void)ns->remove(key, {.if_sequence = random.below(5)});
      if (random.chance(4)) (void)test::put(*ns, key, 1, random.below(500), {.if_absent = random.chance(2)});
      if (random.chance(8)) (void)ns->copy(key, *other, "copied", {});
    }
    (void)ns->list("", "", 1000);
    (void)ns->list("bad", "bad-1", 10);
    (void)ns->stats();
  }
  static void touch(const ObjectView& view) {
    uint8_t sum = 0;
    for (const ConstSpan& span : view.spans) {
      EXPECT_TRUE(std::any_of(view.segments.begin(), view.segments.end(), [&](const auto& segment) {
        return span.data >= segment->data() + kSegmentHeaderBytes && span.data + span.bytes <= segment->data() + segment->bytes();
      })) << "a view of bytes outside of its segments";
      for (uint64_t at = 0; at < span.bytes; at += 512) sum ^= span.data[at];
      if (span.bytes > 0) sum ^= span.data[span.bytes - 1];
    }
    volatile uint8_t kept = sum;
    (void)kept;
  }
  void expect_unharmed() {
    for (uint64_t i = 0; i < 50; ++i) {
      const std::string key = "safe-" + std::to_string(i);
      ASSERT_TRUE(shows(ns->get(key), key, i, 1000 * i));
    }
    ASSERT_TRUE(shows(other->get("safe"), "safe", 1, 3000));
  }
  // Seals a mixture of objects in a client's own grants.
  static void put_some(LocalClient& client, Random& random, int count) {
    for (int i = 0; i < count; ++i) {
      const std::string key = "bad-" + std::to_string(random.below(200));
      if (random.chance(4)) {
        (void)client.put_in_parts(key, 1, {random.between(1, 2000), random.between(1, 3000)});
      } else {
        (void)client.put(key, 1, random.size(20000));
      }
    }
  }

  Store store{store_options(256 * MiB, 1)};
  std::shared_ptr<Namespace> ns = make_namespace(store, "ns-a");
  std::shared_ptr<Namespace> other = make_namespace(store, "ns-b");
};

TEST_F(HostileClient, SpoilsAllThatItWasGranted) {
  const uint64_t seed = test::new_seed("HostileClient.SpoilsAllThatItWasGranted");
  Random random(seed);
  for (int round = 0; round < (test::kSanitized ? 30 : 120); ++round) {
    LocalClient client(ns);
    put_some(client, random, 100);
    if (random.chance(3)) (void)ns->list("", "", 5);
    for (uint32_t segment : client.granted()) {
      uint8_t* data = client.writable(segment);
      const uint64_t bytes = client.writable_bytes(segment);
      switch (random.below(5)) {
        case 0: std::memset(data, 0xff, bytes); break;
        case 1: std::memset(data, 0, bytes); break;
        case 2: for (uint64_t at = 0; at + 8 <= bytes; at += 8) { const uint64_t word = random.next(); std::memcpy(data + at, &word, 8); } break;
        case 3: for (int i = 0; i < 3000; ++i) data[random.below(std::min<uint64_t>(bytes, 300000))] ^= static_cast<uint8_t>(1 << random.below(8)); break;
        default:
          // Plausible rubbish: entry headers with wild fields wherever one could start.
          for (uint64_t at = kSegmentHeaderBytes; at + 64 <= bytes && at < 400000; at += 16) {
            if (!random.chance(3)) continue;
            const uint16_t magic = kEntryMagic, key_bytes = static_cast<uint16_t>(random.chance(2) ? random.below(30) : random.next());
            const uint64_t payload = random.chance(2) ? random.below(bytes) : random.next();
            const auto kind = static_cast<uint8_t>(random.between(1, 3));
            std::memcpy(data + at + 4, &magic, 2);
            std::memcpy(data + at + 6, &key_bytes, 2);
            std::memcpy(data + at + 8, &payload, 8);
            data[at + 22] = kind;
            data[at + 23] = 0;
          }
      }
    }
    use_everything(random);
    put_some(client, random, 20);
    if (random.chance(2)) client.give_back();
    if (random.chance(2)) client.disconnect();
    use_everything(random);
    expect_unharmed();
  }
  // Even now the namespace takes new objects, splits its index and is dropped in peace.
  for (uint64_t i = 0; i < 20000; ++i) ASSERT_OK(test::put(*ns, "new-" + std::to_string(i), i, 10));
  for (uint64_t i = 0; i < 20000; ++i) ASSERT_TRUE(shows(ns->get("new-" + std::to_string(i)), "new-" + std::to_string(i), i, 10));
  ASSERT_OK(store.drop("ns-a"));
}

TEST_F(HostileClient, SealsEntriesThatItForged) {
  const uint64_t seed = test::new_seed("HostileClient.SealsEntriesThatItForged");
  Random random(seed);
  LocalClient client(ns);
  auto grant = client.reserve(600000);
  ASSERT_OK(grant);
  uint8_t* data = client.writable(grant->segment);
  const uint64_t bytes = client.writable_bytes(grant->segment);
  uint64_t sealed = 0;
  for (int i = 0; i < (test::kSanitized ? 20000 : 100000); ++i) {
    const uint64_t at = kSegmentHeaderBytes + random.below((bytes - kSegmentHeaderBytes) / 16 + 4) * 16;
    if (at + 2048 < bytes && random.chance(2)) {
      const auto kind = static_cast<EntryKind>(random.between(1, 3));
      const std::string key = kind == EntryKind::kPart ? "" : "bad-" + std::to_string(random.below(200));
      write_entry_header(data, at, kind, key, random.chance(5) ? random.next() : random.size(2000), 0);
      if (kind == EntryKind::kManifest) {
        // Its payload: a manifest of wild extents, with a header that adds up.
        const uint64_t payload = shape_entry(at, key.size(), 64).payload_offset;
        ManifestHeader header{0, 0, 2};
        ManifestExtent extents[2];
        for (auto& extent : extents) {
          extent = {static_cast<uint32_t>(random.below(8)), 0, random.chance(2) ? random.below(bytes) : random.next(), random.below(100000)};
          header.object_bytes += extent.bytes;
        }
        std::memcpy(data + payload, &header, sizeof header);
        std::memcpy(data + payload + sizeof header, extents, sizeof extents);
        write_entry_header(data, at, kind, key, sizeof header + sizeof extents, 0);
      }
    }
    if (random.chance(2)) {
      size_t failed_at = 0;
      const Namespace::SealRecord record{grant->segment, static_cast<uint32_t>(at / 16)};
      sealed += ns->seal_batch(client.session(), &record, 1, &failed_at).ok();
    } else {
      sealed += ns->seal(client.session(), grant->segment, at, {.if_absent = random.chance(3)}).ok();
    }
    if (i % 500 == 0) use_everything(random);
  }
  EXPECT_GT(sealed, 0u);
  expect_unharmed();
  client.disconnect();
  use_everything(random);
  expect_unharmed();
}

// An entry that is now long with its payload near and now shorter with its payload further on, both within the
// segment: the length of one with the place of the other is not.
TEST_F(HostileClient, FlickersBetweenTwoShapes) {
  if (MILLRACE_TEST_TSAN) GTEST_SKIP() << "races on purpose";
  LocalClient client(ns);
  auto grant = client.reserve(100000);
  ASSERT_OK(grant);
  uint8_t* data = client.writable(grant->segment);
  const uint64_t at = grant->begin;
  const uint64_t near_offset = 48, far_offset = kPayloadOffsetMax / 16 * 16;
  const uint64_t near_bytes = grant->end - at - near_offset, far_bytes = grant->end - at - far_offset;
  write_entry_header(data, at, EntryKind::kObject, "bad-1", near_bytes, 0, near_offset);
  ASSERT_OK(ns->seal(client.session(), grant->segment, at, {}));
  std::atomic<bool> stop{false};
  uint64_t outside = 0;
  std::thread flicker([&] {
    const auto write = [&](uint64_t bytes, uint64_t offset) {
      const auto offset_16 = static_cast<uint16_t>(offset);
      std::memcpy(data + at + offsetof(EntryHeader, payload_bytes), &bytes, 8);
      std::memcpy(data + at + offsetof(EntryHeader, payload_offset), &offset_16, 2);
      std::atomic_signal_fence(std::memory_order_seq_cst);
    };
    while (!stop.load(std::memory_order_relaxed)) {
      write(near_bytes, near_offset);
      write(far_bytes, far_offset);
    }
  });
  for (int i = 0; i < (test::kSanitized ? 50000 : 300000); ++i) {
    auto view = ns->get("bad-1");
    if (!view.ok()) continue;
    outside += view->spans.size() != 1 ||
               view->spans[0].data + view->spans[0].bytes > view->segments[0]->data() + view->segments[0]->bytes();
  }
  stop.store(true);
  flicker.join();
  EXPECT_EQ(outside, 0u) << "views of bytes outside of their segment";
  expect_unharmed();
}

// A live object's entry is changed between two looks of the daemon at it: what is checked must be what is used.
// (Not under ThreadSanitizer: that there is a race is the point, and the client is another process in truth.)
TEST_F(HostileClient, WritesWhileTheDaemonReads) {
  if (MILLRACE_TEST_TSAN) GTEST_SKIP() << "races on purpose";
  const uint64_t seed = test::new_seed("HostileClient.WritesWhileTheDaemonReads");
  LocalClient client(ns);
  Random random(seed);
  put_some(client, random, 300);
  (void)ns->list("", "", 1000);
  std::atomic<bool> stop{false};
  std::thread scribbler([&] {
    Random mine(seed + 1);
    const auto segments = client.granted();
    uint64_t saved[64];
    while (!stop.load(std::memory_order_relaxed)) {
      const uint32_t segment = segments[mine.below(segments.size())];
      uint8_t* data = client.writable(segment);
      const uint64_t bytes = client.writable_bytes(segment);
      const uint64_t at = kSegmentHeaderBytes + mine.below((std::min<uint64_t>(bytes, 600000) - kSegmentHeaderBytes) / 16 - 40) * 16;
      std::memcpy(saved, data + at, sizeof saved);
      // Lengths, offsets, kinds and keys flicker.
      for (int i = 0; i < 4; ++i) {
        const uint64_t word = mine.next();
        std::memcpy(data + at + mine.below(60) * 8, &word, 8);
      }
      const uint16_t key_bytes = static_cast<uint16_t>(mine.below(1025));
      std::memcpy(data + at + 6, &key_bytes, 2);
      const uint64_t payload = mine.below(bytes);
      std::memcpy(data + at + 8, &payload, 8);
      std::memcpy(data + at, saved, sizeof saved);
    }
  });
  for (int round = 0; round < (test::kSanitized ? 150 : 1000); ++round) {
    use_everything(random);
    if (round % 10 == 0) {
      LocalClient second(ns);
      put_some(second, random, 10);
    }
  }
  for (uint64_t i = 0; i < 8000; ++i) (void)test::put(*ns, "split-" + std::to_string(i), i, 10);
  stop.store(true);
  scribbler.join();
  expect_unharmed();
}

}  // namespace
}  // namespace millrace
