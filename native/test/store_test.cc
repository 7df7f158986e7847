// The engine as its doors call it: objects, conditions, drafts, limits, listing, watching, accounts, copies.
#include "store/store.h"

#include <atomic>
#include <limits>
#include <thread>

#include "test/store_support.h"

namespace millrace {
namespace {

using test::Content;
using test::join;
using test::LocalClient;
using test::make_namespace;
using test::Random;
using test::shows;
using test::span_of;
using test::store_options;

class StoreTest : public ::testing::Test {
 protected:
  Store store{store_options()};
  std::shared_ptr<Namespace> ns = make_namespace(store, "ns-a");
};
using Objects = StoreTest;
using Conditions = StoreTest;
using Drafts = StoreTest;
using Listing = StoreTest;
using Watching = StoreTest;
using Copying = StoreTest;
using Grants = StoreTest;
using Dropping = StoreTest;

// --- namespaces

TEST(Namespaces, AreCreatedFoundListedAndDropped) {
  Store store(store_options());
  EXPECT_EQ(store.find("ns-a"), nullptr);
  auto a = make_namespace(store, "ns-a", {.token = {1, 2, 3}});
  EXPECT_EQ(a->name(), "ns-a");
  EXPECT_EQ(a->token()[2], 3);
  EXPECT_FALSE(a->dropped());
  EXPECT_EQ(store.find("ns-a"), a);
  EXPECT_CODE(store.create("ns-a", {}), Code::kAlreadyExists);
  auto b = make_namespace(store, "ns-b");
  EXPECT_EQ(store.namespaces().size(), 2u);
  EXPECT_OK(store.drop("ns-a"));
  EXPECT_TRUE(a->dropped());
  EXPECT_EQ(store.find("ns-a"), nullptr);
  EXPECT_FALSE(store.drop("ns-a").ok());
  EXPECT_FALSE(store.drop("never-was").ok());
  EXPECT_EQ(store.namespaces().size(), 1u);
  auto again = make_namespace(store, "ns-a");
  EXPECT_NE(again, a);
  EXPECT_CODE(store.create("", {}), Code::kInvalidArgument);
  EXPECT_CODE(store.create(std::string(64, 'a'), {}), Code::kInvalidArgument);
  EXPECT_OK(store.create(std::string(63, 'a'), {}));
}

// --- objects

TEST_F(Objects, ArePutAndReadByteForByte) {
  uint64_t last_sequence = 0;
  const std::vector<uint64_t> sizes = {0,    1,    15,      16,          17,      63,          64,     65,     1000,
                                       4095, 4096, 4097,    65536,       1 * MiB - 1, 1 * MiB, 1 * MiB + 1, 3 * MiB};
  for (uint64_t size : sizes) {
    const std::string key = "size-" + std::to_string(size);
    const auto bytes = Content(key, 1).bytes(size);
    auto info = ns->put(key, span_of(bytes), {});
    ASSERT_OK(info);
    EXPECT_EQ(info->size_bytes, size);
    EXPECT_EQ(info->crc32c, crc32c(0, bytes.data(), size));
    EXPECT_GT(info->sequence, last_sequence);
    last_sequence = info->sequence;
    EXPECT_GT(info->sealed_unix_s, 1600000000u);
    auto head = ns->head(key);
    ASSERT_OK(head);
    EXPECT_EQ(head->size_bytes, size);
    EXPECT_EQ(head->sequence, info->sequence);
    EXPECT_EQ(head->crc32c, info->crc32c);
    EXPECT_EQ(head->sealed_unix_s, info->sealed_unix_s);
  }
  for (uint64_t size : sizes) {
    const std::string key = "size-" + std::to_string(size);
    EXPECT_TRUE(shows(ns->get(key), key, 1, size)) << key;
  }
}

TEST_F(Objects, AbsentOnesAreNotFound) {
  EXPECT_CODE(ns->get("nothing"), Code::kNotFound);
  EXPECT_CODE(ns->head("nothing"), Code::kNotFound);
  auto removed = ns->remove("nothing", {});
  ASSERT_OK(removed);
  EXPECT_FALSE(*removed);
  ASSERT_OK(test::put(*ns, "key", 1, 100));
  removed = ns->remove("key", {});
  ASSERT_OK(removed);
  EXPECT_TRUE(*removed);
  EXPECT_CODE(ns->get("key"), Code::kNotFound);
  EXPECT_CODE(ns->head("key"), Code::kNotFound);
  EXPECT_FALSE(*ns->remove("key", {}));
  ASSERT_OK(test::put(*ns, "key", 2, 50));
  EXPECT_TRUE(shows(ns->get("key"), "key", 2, 50));
}

TEST_F(Objects, AreReplacedWhole) {
  uint64_t sequence = 0;
  for (uint64_t version = 0; version < 100; ++version) {
    auto info = test::put(*ns, "key", version, version * 37);
    ASSERT_OK(info);
    EXPECT_GT(info->sequence, sequence);
    sequence = info->sequence;
    EXPECT_TRUE(shows(ns->get("key"), "key", version, version * 37));
  }
  EXPECT_EQ(ns->stats().objects, 1u);
}

TEST_F(Objects, RangesAreCheckedAndExact) {
  const uint64_t size = 10000;
  ASSERT_OK(test::put(*ns, "key", 1, size));
  Random random(test::new_seed("Objects.RangesAreCheckedAndExact"));
  for (int i = 0; i < 1000; ++i) {
    const uint64_t offset = random.below(size);
    const uint64_t length = random.between(1, size - offset);
    ASSERT_TRUE(shows(ns->get("key", offset, length), "key", 1, size, offset, length));
  }
  EXPECT_TRUE(shows(ns->get("key", 0, size), "key", 1, size));
  EXPECT_TRUE(shows(ns->get("key", size - 1, 0), "key", 1, size, size - 1, 1));
  EXPECT_CODE(ns->get("key", 0, size + 1), Code::kOutOfRange);
  EXPECT_CODE(ns->get("key", 1, size), Code::kOutOfRange);
  EXPECT_CODE(ns->get("key", size + 1, 0), Code::kOutOfRange);
  EXPECT_CODE(ns->get("key", size, 1), Code::kOutOfRange);
  EXPECT_CODE(ns->get("key", ~uint64_t{0}, 0), Code::kOutOfRange);
  EXPECT_CODE(ns->get("key", 1, ~uint64_t{0}), Code::kOutOfRange) << "offset + length wraps around";
  EXPECT_CODE(ns->get("key", ~uint64_t{0}, 2), Code::kOutOfRange) << "offset + length wraps around";
  ASSERT_OK(test::put(*ns, "empty", 1, 0));
  EXPECT_TRUE(shows(ns->get("empty", 0, 0), "empty", 1, 0));
  EXPECT_CODE(ns->get("empty", 0, 1), Code::kOutOfRange);
}

TEST_F(Objects, KeysHaveLimits) {
  const std::string longest(limits::kKeyBytesMax, 'k');
  const std::string too_long(limits::kKeyBytesMax + 1, 'k');
  ASSERT_OK(test::put(*ns, longest, 1, 100));
  EXPECT_TRUE(shows(ns->get(longest), longest, 1, 100));
  const std::vector<uint8_t> bytes(10);
  EXPECT_CODE(ns->put(too_long, span_of(bytes), {}), Code::kKeyTooLong);
  EXPECT_CODE(ns->put("", span_of(bytes), {}), Code::kInvalidArgument);
  EXPECT_CODE(ns->begin(""), Code::kInvalidArgument);
  EXPECT_CODE(ns->begin(too_long), Code::kKeyTooLong);
  std::vector<Span> spans;
  EXPECT_CODE(ns->begin("", 10, &spans), Code::kInvalidArgument);
  EXPECT_CODE(ns->begin(too_long, 10, &spans), Code::kKeyTooLong);
  for (const std::string& key : {std::string(), too_long, std::string(100000, 'k')}) {
    EXPECT_FALSE(ns->get(key).ok());
    EXPECT_FALSE(ns->head(key).ok());
    auto removed = ns->remove(key, {});
    EXPECT_TRUE(!removed.ok() || !*removed);
    EXPECT_FALSE(ns->copy(longest, *ns, key, {}).ok());
  }
  const std::string odd("a\0b\x01\xc3\xa9", 6);
  ASSERT_OK(test::put(*ns, odd, 1, 100));
  EXPECT_TRUE(shows(ns->get(odd), odd, 1, 100));
  EXPECT_CODE(ns->get("a"), Code::kNotFound);
}

TEST_F(Objects, ManySmallOnes) {
  const uint64_t count = test::kSanitized ? 20000 : 200000;
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = "k" + std::to_string(i);
    ASSERT_OK(test::put(*ns, key, i, i % 200));
  }
  EXPECT_EQ(ns->stats().objects, count);
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = "k" + std::to_string(i);
    ASSERT_TRUE(shows(ns->get(key), key, i, i % 200)) << key;
  }
}

TEST_F(Objects, AViewStaysAsItIs) {
  ASSERT_OK(test::put(*ns, "key", 1, 500000));
  auto view = ns->get("key");
  ASSERT_OK(view);
  EXPECT_TRUE(*ns->remove("key", {}));
  for (uint64_t i = 0; i < 2000; ++i) ASSERT_OK(test::put(*ns, "other", i, 400000));
  EXPECT_TRUE(shows(view, "key", 1, 500000));
}

// --- conditions

TEST_F(Conditions, IfAbsent) {
  ASSERT_OK(test::put(*ns, "key", 1, 100, {.if_absent = true}));
  const auto before = ns->stats();
  EXPECT_CODE(test::put(*ns, "key", 2, 200, {.if_absent = true}), Code::kConditionFailed);
  EXPECT_TRUE(shows(ns->get("key"), "key", 1, 100));
  EXPECT_EQ(ns->stats().objects, before.objects);
  EXPECT_EQ(ns->stats().size_bytes, before.size_bytes);
  EXPECT_EQ(ns->stats().sealed_total, before.sealed_total);
  EXPECT_TRUE(*ns->remove("key", {}));
  EXPECT_OK(test::put(*ns, "key", 3, 100, {.if_absent = true}));
}

TEST_F(Conditions, IfSequence) {
  auto first = test::put(*ns, "key", 1, 100);
  ASSERT_OK(first);
  EXPECT_CODE(test::put(*ns, "key", 2, 100, {.if_sequence = first->sequence + 1}), Code::kConditionFailed);
  auto second = test::put(*ns, "key", 2, 100, {.if_sequence = first->sequence});
  ASSERT_OK(second);
  EXPECT_CODE(test::put(*ns, "key", 3, 100, {.if_sequence = first->sequence}), Code::kConditionFailed);
  EXPECT_TRUE(shows(ns->get("key"), "key", 2, 100));
  EXPECT_CODE(test::put(*ns, "absent", 1, 100, {.if_sequence = first->sequence}), Code::kConditionFailed);
  EXPECT_CODE(ns->remove("key", {.if_sequence = first->sequence}), Code::kConditionFailed);
  EXPECT_TRUE(shows(ns->get("key"), "key", 2, 100));
  auto removed = ns->remove("key", {.if_sequence = second->sequence});
  ASSERT_OK(removed);
  EXPECT_TRUE(*removed);
  // Put again, the key gets another sequence: an old one never fits by chance.
  auto third = test::put(*ns, "key", 4, 100);
  ASSERT_OK(third);
  EXPECT_GT(third->sequence, second->sequence);
}

TEST_F(Conditions, OfManyThreadsOneWins) {
  constexpr int kThreads = 4;
  const int keys = test::kSanitized ? 100 : 500;
  std::vector<std::atomic<int>> winners(static_cast<size_t>(keys));
  std::vector<std::atomic<uint64_t>> winner(static_cast<size_t>(keys));
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::optional<LocalClient> client;
      if (t % 2 == 1) client.emplace(ns);
      for (int i = 0; i < keys; ++i) {
        const std::string key = "once-" + std::to_string(i);
        const auto version = static_cast<uint64_t>(t);
        auto put = client ? client->put(key, version, 300, {.if_absent = true})
                          : test::put(*ns, key, version, 300, {.if_absent = true});
        if (put.ok()) {
          ++winners[static_cast<size_t>(i)];
          winner[static_cast<size_t>(i)] = version;
        } else {
          EXPECT_CODE(put, Code::kConditionFailed);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (int i = 0; i < keys; ++i) {
    const std::string key = "once-" + std::to_string(i);
    ASSERT_EQ(winners[static_cast<size_t>(i)].load(), 1) << key;
    ASSERT_TRUE(shows(ns->get(key), key, winner[static_cast<size_t>(i)], 300));
  }
}

TEST_F(Conditions, CompareAndSwapLosesNoUpdate) {
  const auto store_value = [&](uint64_t value, Condition condition) {
    return ns->put("counter", {reinterpret_cast<const uint8_t*>(&value), 8}, condition);
  };
  ASSERT_OK(store_value(0, {}));
  std::vector<std::thread> threads;
  const int rounds = test::kSanitized ? 200 : 1000;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int done = 0; done < rounds;) {
        auto view = ns->get("counter");
        ASSERT_OK(view);
        uint64_t value;
        std::memcpy(&value, view->spans[0].data, 8);
        auto put = store_value(value + 1, {.if_sequence = view->info.sequence});
        if (put.ok()) {
          ++done;
        } else {
          ASSERT_CODE(put, Code::kConditionFailed);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  uint64_t value;
  std::memcpy(&value, ns->get("counter")->spans[0].data, 8);
  EXPECT_EQ(value, 3u * static_cast<uint64_t>(rounds));
}

// --- drafts

// Fills the spans of a draft and gives their checksums.
std::vector<uint32_t> fill(const std::vector<Span>& spans, std::string_view key, uint64_t version) {
  std::vector<uint32_t> crcs;
  uint64_t offset = 0;
  for (const Span& span : spans) {
    Content(key, version).fill(span.data, span.bytes, offset);
    crcs.push_back(crc32c(0, span.data, span.bytes));
    offset += span.bytes;
  }
  return crcs;
}

TEST_F(Drafts, OfKnownSize) {
  for (uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{100}, uint64_t{4096}, 1 * MiB, 5 * MiB + 3}) {
    for (const bool with_crcs : {false, true}) {
      const std::string key = "draft-" + std::to_string(size);
      std::vector<Span> spans;
      auto draft = ns->begin(key, size, &spans);
      ASSERT_OK(draft);
      EXPECT_TRUE(draft->open());
      uint64_t sum = 0;
      for (const Span& span : spans) sum += span.bytes;
      ASSERT_EQ(sum, size);
      EXPECT_EQ(spans.empty(), size == 0);
      const auto crcs = fill(spans, key, with_crcs);
      EXPECT_EQ(ns->get(key).ok(), with_crcs) << "visible before it is sealed";
      const auto bytes = Content(key, with_crcs).bytes(size);
      auto info = ns->commit(std::move(*draft), {}, with_crcs ? &crcs : nullptr, crc32c(0, bytes.data(), size));
      ASSERT_OK(info);
      EXPECT_EQ(info->size_bytes, size);
      EXPECT_EQ(info->crc32c, crc32c(0, bytes.data(), size));
      EXPECT_TRUE(shows(ns->get(key), key, with_crcs, size));
    }
  }
}

TEST_F(Drafts, AWrongChecksumIsRefusedAndLeavesNothing) {
  ASSERT_OK(test::put(*ns, "key", 1, 100));
  for (const bool known_size : {false, true}) {
    std::vector<Span> spans;
    auto draft = known_size ? ns->begin("key", 5000, &spans) : ns->begin("key");
    ASSERT_OK(draft);
    const auto bytes = Content("key", 2).bytes(5000);
    if (known_size) {
      fill(spans, "key", 2);
    } else {
      ASSERT_OK(draft->append(span_of(bytes)));
    }
    const uint32_t right = crc32c(0, bytes.data(), bytes.size());
    EXPECT_CODE(ns->commit(std::move(*draft), {}, nullptr, right ^ 1), Code::kChecksumMismatch);
    EXPECT_TRUE(shows(ns->get("key"), "key", 1, 100));
  }
  EXPECT_EQ(ns->stats().objects, 1u);
  EXPECT_EQ(ns->stats().size_bytes, 100u);
}

TEST_F(Drafts, GrowByAppending) {
  Random random(test::new_seed("Drafts.GrowByAppending"));
  for (int i = 0; i < 60; ++i) {
    const std::string key = "grown-" + std::to_string(i);
    const uint64_t size = random.size(6 * MiB);
    const auto bytes = Content(key, 1).bytes(size);
    auto draft = ns->begin(key);
    ASSERT_OK(draft);
    uint64_t done = 0;
    while (done < size) {
      const uint64_t chunk = std::min(size - done, random.size(1 * MiB));
      ASSERT_OK(draft->append({bytes.data() + done, chunk}));
      done += chunk;
      ASSERT_EQ(draft->size_bytes(), done);
      // Others write in between.
      if (random.chance(3)) {
        ASSERT_OK(test::put(*ns, "between", static_cast<uint64_t>(i), random.size(10000)));
      }
    }
    auto info = ns->commit(std::move(*draft), {}, nullptr, crc32c(0, bytes.data(), size));
    ASSERT_OK(info);
    EXPECT_EQ(info->size_bytes, size);
    ASSERT_TRUE(shows(ns->get(key), key, 1, size));
    for (int k = 0; k < 5 && size > 0; ++k) {
      const uint64_t offset = random.below(size);
      const uint64_t length = random.between(1, size - offset);
      ASSERT_TRUE(shows(ns->get(key, offset, length), key, 1, size, offset, length));
    }
  }
}

TEST_F(Drafts, NothingOfAnAbortedOneIsSeen) {
  {
    auto draft = ns->begin("dropped");
    ASSERT_OK(draft);
    ASSERT_OK(draft->append(span_of(Content("dropped", 1).bytes(3 * MiB))));
    std::vector<Span> spans;
    auto second = ns->begin("dropped", 5000, &spans);
    ASSERT_OK(second);
    auto third = ns->begin("aborted");
    ASSERT_OK(third);
    ASSERT_OK(third->append(span_of(Content("aborted", 1).bytes(100))));
    third->abort();
    EXPECT_FALSE(third->open());
    third->abort();
  }
  EXPECT_CODE(ns->head("dropped"), Code::kNotFound);
  EXPECT_CODE(ns->head("aborted"), Code::kNotFound);
  EXPECT_EQ(ns->stats().objects, 0u);
  EXPECT_EQ(ns->list("", "", 10)->objects.size(), 0u);
}

TEST_F(Drafts, AreMovedWithTheirBytes) {
  auto begun = ns->begin("key");
  ASSERT_OK(begun);
  Draft draft = std::move(*begun);
  EXPECT_FALSE(begun->open());
  ASSERT_OK(draft.append(span_of(Content("key", 1).bytes(100))));
  Draft other;
  EXPECT_FALSE(other.open());
  other = std::move(draft);
  EXPECT_FALSE(draft.open());
  EXPECT_EQ(other.size_bytes(), 100u);
  // Assigning over an open draft frees what it had.
  auto lost = ns->begin("lost");
  ASSERT_OK(lost->append(span_of(Content("lost", 1).bytes(100))));
  *lost = std::move(other);
  ASSERT_OK(ns->commit(std::move(*lost), {}));
  EXPECT_TRUE(shows(ns->get("key"), "key", 1, 100));
  EXPECT_CODE(ns->get("lost"), Code::kNotFound);
}

TEST_F(Drafts, OfOneKeyTheLastSealedStays) {
  auto a = ns->begin("key");
  auto b = ns->begin("key");
  ASSERT_OK(a->append(span_of(Content("key", 1).bytes(1000))));
  ASSERT_OK(b->append(span_of(Content("key", 2).bytes(2000))));
  ASSERT_OK(ns->commit(std::move(*b), {}));
  EXPECT_TRUE(shows(ns->get("key"), "key", 2, 2000));
  ASSERT_OK(ns->commit(std::move(*a), {}));
  EXPECT_TRUE(shows(ns->get("key"), "key", 1, 1000));
  auto c = ns->begin("key");
  EXPECT_CODE(ns->commit(std::move(*c), {.if_absent = true}), Code::kConditionFailed);
  EXPECT_TRUE(shows(ns->get("key"), "key", 1, 1000));
}

TEST(LargeDrafts, LieInParts) {
  Store store(store_options(2 * GiB));
  auto ns = make_namespace(store, "large");
  const uint64_t size = 300 * MiB + 12345;
  {
    std::vector<Span> spans;
    auto draft = ns->begin("known", size, &spans);
    ASSERT_OK(draft);
    EXPECT_GT(spans.size(), 1u);
    const auto crcs = fill(spans, "known", 1);
    ASSERT_OK(ns->commit(std::move(*draft), {}, &crcs));
  }
  {
    auto draft = ns->begin("grown");
    ASSERT_OK(draft);
    std::vector<uint8_t> chunk(8 * MiB);
    for (uint64_t done = 0; done < size;) {
      const uint64_t bytes = std::min<uint64_t>(chunk.size(), size - done);
      Content("grown", 1).fill(chunk.data(), bytes, done);
      ASSERT_OK(draft->append({chunk.data(), bytes}));
      done += bytes;
    }
    ASSERT_OK(ns->commit(std::move(*draft), {}));
  }
  for (const std::string& key : {std::string("known"), std::string("grown")}) {
    auto view = ns->get(key);
    ASSERT_TRUE(shows(view, key, 1, size));
    uint32_t crc = 0;
    for (const ConstSpan& span : view->spans) crc = crc32c(crc, span.data, span.bytes);
    EXPECT_EQ(crc, view->info.crc32c);
    // Ranges across the seams.
    uint64_t seam = 0;
    for (size_t i = 0; i + 1 < view->spans.size(); ++i) {
      seam += view->spans[i].bytes;
      EXPECT_TRUE(shows(ns->get(key, seam - 10, 20), key, 1, size, seam - 10, 20));
      EXPECT_TRUE(shows(ns->get(key, seam, 1), key, 1, size, seam, 1));
      EXPECT_TRUE(shows(ns->get(key, seam - 1, 1), key, 1, size, seam - 1, 1));
    }
    EXPECT_CODE(ns->get(key, size - 1, 2), Code::kOutOfRange);
  }
  const auto full = ns->stats();
  EXPECT_EQ(full.size_bytes, 2 * size);
  EXPECT_TRUE(*ns->remove("known", {}));
  EXPECT_TRUE(*ns->remove("grown", {}));
  EXPECT_EQ(ns->stats().objects, 0u);
  EXPECT_EQ(ns->stats().size_bytes, 0u);
  EXPECT_TRUE(test::eventually([&] { return ns->stats().segment_bytes < full.segment_bytes / 2; }))
      << "parts are freed with their object";
}

TEST_F(Drafts, SizesHaveLimits) {
  std::vector<Span> spans;
  EXPECT_CODE(ns->begin("key", limits::kObjectBytesMax + 1, &spans), Code::kObjectTooLarge);
  EXPECT_CODE(ns->begin("key", ~uint64_t{0}, &spans), Code::kObjectTooLarge);
  EXPECT_CODE(ns->begin("key", limits::kObjectBytesMax, &spans), Code::kResourceExhausted);
  EXPECT_CODE(ns->begin("key", 100 * GiB, &spans), Code::kResourceExhausted);
  EXPECT_EQ(ns->stats().peak_bytes, 0u) << "what can never fit takes no room from others meanwhile";
  ASSERT_OK(test::put(*ns, "key", 1, 100));
}

// --- limits

// Puts objects of `size_bytes` until one is refused. How many there are.
uint64_t fill_up(Namespace& ns, uint64_t size_bytes, uint64_t version, Status* refused) {
  for (uint64_t i = 0;; ++i) {
    auto info = test::put(ns, "fill-" + std::to_string(i), version, size_bytes);
    if (!info.ok()) {
      *refused = info.status();
      return i;
    }
    EXPECT_LT(i, 1000000u);
  }
}

struct LimitCase {
  const char* what;
  uint64_t node_bytes;
  NamespaceOptions options;
  const char* names;  // the message says so
};
class Limits : public ::testing::TestWithParam<LimitCase> {};
INSTANTIATE_TEST_SUITE_P(Store, Limits,
                         ::testing::Values(LimitCase{"namespace", 512 * MiB, {.limit_bytes = 16 * MiB}, "namespace"},
                                           LimitCase{"namespace_dram", 512 * MiB, {.dram_limit_bytes = 16 * MiB}, "dram"},
                                           LimitCase{"node_dram", 16 * MiB, {}, "dram"}),
                         [](const auto& info) { return std::string(info.param.what); });

TEST_P(Limits, AreNamedKeepWhatIsThereAndGiveRoomAgain) {
  for (const uint64_t size : {uint64_t{1000}, uint64_t{100000}, uint64_t{900000}, 2 * MiB}) {
    Store store(store_options(GetParam().node_bytes));
    auto ns = make_namespace(store, "limited", GetParam().options);
    Status refused;
    const uint64_t count = fill_up(*ns, size, 1, &refused);
    EXPECT_CODE(refused, Code::kResourceExhausted);
    EXPECT_NE(refused.message().find(GetParam().names), std::string::npos) << refused.message();
    EXPECT_GE(count * size, 7 * MiB) << "size " << size;
    EXPECT_LE(count * size, 16 * MiB);
    EXPECT_LE(ns->stats().segment_bytes, 16 * MiB);
    EXPECT_EQ(ns->stats().objects, count);
    // A draft that runs out midway leaves nothing.
    {
      auto draft = ns->begin("half");
      Status appended = draft.ok() ? Status() : draft.status();
      while (appended.ok()) appended = draft->append(span_of(Content("half", 1).bytes(100000)));
      EXPECT_CODE(appended, Code::kResourceExhausted);
    }
    std::vector<Span> spans;
    EXPECT_CODE(ns->begin("half", 64 * MiB, &spans), Code::kResourceExhausted);
    EXPECT_CODE(ns->head("half"), Code::kNotFound);
    for (uint64_t i = 0; i < count; ++i) {
      const std::string key = "fill-" + std::to_string(i);
      ASSERT_TRUE(shows(ns->get(key), key, 1, size)) << key;
    }
    // What is deleted makes room, as often as one likes: all of it, but for what the cleaner had moved when it died. That
    // takes up to half of the cleaner's segment, which holds what lives on too.
    const uint64_t again = size < 512 * KiB ? count - 512 * KiB / size : count;
    for (uint64_t round = 2; round < 5; ++round) {
      for (uint64_t i = 0; i < (round == 2 ? count : again); ++i) {
        ASSERT_TRUE(*ns->remove("fill-" + std::to_string(i), {}));
      }
      for (uint64_t i = 0; i < again; ++i) {
        ASSERT_OK(test::put(*ns, "fill-" + std::to_string(i), round, size)) << "round " << round << " object " << i;
      }
    }
    for (uint64_t i = 0; i < again; ++i) {
      const std::string key = "fill-" + std::to_string(i);
      ASSERT_TRUE(shows(ns->get(key), key, 4, size)) << key;
    }
  }
}

// Segments of all sizes come and go, their memory is kept and taken up again: the limit holds throughout.
TEST(NamespaceLimit, HoldsWhateverIsRecycled) {
  Random random(test::new_seed("NamespaceLimit.HoldsWhateverIsRecycled"));
  Store store(store_options(256 * MiB));
  auto ns = make_namespace(store, "limited", {.limit_bytes = 12 * MiB});
  for (uint64_t i = 0; i < (test::kSanitized ? 500u : 3000u); ++i) {
    const std::string key = "key-" + std::to_string(random.below(12));
    if (random.chance(3)) {
      ASSERT_OK(ns->remove(key, {}));
    } else {
      auto info = test::put(*ns, key, i, random.size(5 * MiB));
      if (!info.ok()) {
        ASSERT_CODE(info, Code::kResourceExhausted);
      }
    }
    ASSERT_LE(ns->stats().segment_bytes, 12 * MiB);
    ASSERT_LE(ns->stats().peak_bytes, 12 * MiB);
  }
}

TEST(NodeLimit, OneNamespaceMakesRoomForAnother) {
  Store store(store_options(16 * MiB));
  auto a = make_namespace(store, "ns-a");
  auto b = make_namespace(store, "ns-b");
  Status refused;
  const uint64_t count = fill_up(*a, 500000, 1, &refused);
  EXPECT_CODE(test::put(*b, "key", 1, 2 * MiB), Code::kResourceExhausted);
  for (uint64_t i = 0; i < count; ++i) ASSERT_TRUE(*a->remove("fill-" + std::to_string(i), {}));
  // What namespace a keeps for itself must not stand in the way of b.
  EXPECT_TRUE(test::eventually([&] { return test::put(*b, "key", 1, 2 * MiB).ok(); }));
  EXPECT_TRUE(shows(b->get("key"), "key", 1, 2 * MiB));
  ASSERT_OK(store.drop("ns-a"));
  a.reset();
  EXPECT_GE(fill_up(*b, 500000, 1, &refused), 16u);
}

TEST(NodeLimit, DroppingGivesAllBack) {
  Store store(store_options(16 * MiB));
  for (int round = 0; round < 10; ++round) {
    auto ns = make_namespace(store, "round");
    Status refused;
    ASSERT_GE(fill_up(*ns, 500000, 1, &refused), 14u) << "round " << round;
    ASSERT_OK(store.drop("round"));
  }
  EXPECT_EQ(store.held_bytes(), 0u);
}

TEST(Room, IsNotEatenByWhatFails) {
  Store store(store_options(16 * MiB));
  auto ns = make_namespace(store, "ns-a");
  ASSERT_OK(test::put(*ns, "key", 1, 100));
  const auto bytes = Content("key", 2).bytes(700000);
  for (int i = 0; i < 200; ++i) {
    {
      auto draft = ns->begin("aborted");
      ASSERT_OK(draft) << i;
      ASSERT_OK(draft->append(span_of(bytes))) << i;
    }
    {
      std::vector<Span> spans;
      auto draft = ns->begin("aborted", 700000, &spans);
      ASSERT_OK(draft) << i;
    }
    ASSERT_CODE(ns->put("key", span_of(bytes), {.if_absent = true}), Code::kConditionFailed) << i;
    {
      auto draft = ns->begin("key");
      ASSERT_OK(draft->append(span_of(bytes))) << i;
      ASSERT_CODE(ns->commit(std::move(*draft), {}, nullptr, 12345), Code::kChecksumMismatch) << i;
    }
    {
      LocalClient client(ns);
      ASSERT_OK(client.write(EntryKind::kObject, "unsealed", span_of(bytes))) << i;
      ASSERT_OK(client.put_parts("loose", 1, {300000, 300000})) << i;
      auto written = client.write(EntryKind::kObject, "key", span_of(bytes));
      ASSERT_OK(written) << i;
      ASSERT_CODE(client.seal(*written, {.if_absent = true}), Code::kConditionFailed) << i;
    }
    {
      LocalClient client(ns);
      ASSERT_OK(client.reserve(1000));
      ASSERT_OK(client.reserve(700000));
    }
  }
  EXPECT_TRUE(shows(ns->get("key"), "key", 1, 100));
  EXPECT_EQ(ns->stats().objects, 1u);
}

TEST(Room, IsNotEatenByGrantsGivenBack) {
  auto options = store_options(16 * MiB);
  options.clean_bytes_per_second = 0;  // what it retires this client never confirms
  Store store(options);
  auto ns = make_namespace(store, "ns-a");
  LocalClient client(ns);
  for (uint64_t i = 0; i < 2000; ++i) {
    ASSERT_OK(client.put("key", i, 5000)) << i;
    client.give_back();
  }
  EXPECT_TRUE(shows(ns->get("key"), "key", 1999, 5000));
}

// --- listing

std::vector<std::string> list_all(Namespace& ns, std::string_view prefix, uint32_t page_limit, std::string start_after = "") {
  std::vector<std::string> keys;
  for (;;) {
    auto page = ns.list(prefix, start_after, page_limit);
    EXPECT_OK(page);
    if (!page.ok()) return keys;
    EXPECT_LE(page->objects.size(), page_limit);
    for (auto& object : page->objects) keys.push_back(object.key);
    if (!page->truncated) return keys;
    EXPECT_FALSE(page->objects.empty());
    if (page->objects.empty()) return keys;
    start_after = page->objects.back().key;
  }
}

TEST_F(Listing, GivesKeysInOrderWithTheirInfo) {
  ASSERT_EQ(ns->list("", "", 10)->objects.size(), 0u);
  for (const char* key : {"b/2", "a", "b/1", "c", "b", "b/10", "b0"}) ASSERT_OK(test::put(*ns, key, 1, std::strlen(key)));
  EXPECT_EQ(list_all(*ns, "", 1000), (std::vector<std::string>{"a", "b", "b/1", "b/10", "b/2", "b0", "c"}));
  EXPECT_EQ(list_all(*ns, "b", 1000), (std::vector<std::string>{"b", "b/1", "b/10", "b/2", "b0"}));
  EXPECT_EQ(list_all(*ns, "b/", 1), (std::vector<std::string>{"b/1", "b/10", "b/2"}));
  EXPECT_EQ(list_all(*ns, "b/", 1000, "b/1"), (std::vector<std::string>{"b/10", "b/2"}));
  EXPECT_EQ(list_all(*ns, "b/", 1000, "a"), (std::vector<std::string>{"b/1", "b/10", "b/2"}));
  EXPECT_EQ(list_all(*ns, "b/", 1000, "c"), (std::vector<std::string>{}));
  EXPECT_EQ(list_all(*ns, "b/", 1000, "b/11"), (std::vector<std::string>{"b/2"}));
  EXPECT_EQ(list_all(*ns, "x", 1000), (std::vector<std::string>{}));
  auto page = ns->list("b/10", "", 5);
  ASSERT_EQ(page->objects.size(), 1u);
  const auto head = ns->head("b/10");
  EXPECT_EQ(page->objects[0].info.size_bytes, 4u);
  EXPECT_EQ(page->objects[0].info.sequence, head.value().sequence);
  EXPECT_EQ(page->objects[0].info.crc32c, head.value().crc32c);
  // Truncated says whether there is more, exactly.
  EXPECT_FALSE(ns->list("b/", "", 3)->truncated);
  EXPECT_TRUE(ns->list("b/", "", 2)->truncated);
}

TEST_F(Listing, BytesAreOrderedUnsigned) {
  const std::vector<std::string> keys = {std::string("\0", 1), std::string("\0a", 2), "\x7f", "\x80", "\xc3\xa9", "\xff", "\xff\xff", "\xff\xff\xff"};
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) ASSERT_OK(test::put(*ns, *key, 1, 10));
  EXPECT_EQ(list_all(*ns, "", 2), std::vector<std::string>(keys.begin(), keys.end() - 3)) << "those with 0xff are hidden";
  EXPECT_EQ(list_all(*ns, "\xff", 1), (std::vector<std::string>{"\xff", "\xff\xff", "\xff\xff\xff"}));
}

// Random puts, overwrites and removes, also of objects so large that their segments are recycled before the
// listing hears of them, against a map.
TEST_F(Listing, FollowsEveryChange) {
  Random random(test::new_seed("Listing.FollowsEveryChange"));
  std::map<std::string, uint64_t> model;
  uint64_t version = 0;
  const auto random_key = [&] { return "dir" + std::to_string(random.below(5)) + "/" + std::to_string(random.below(2000)); };
  const int operations = test::kSanitized ? 8000 : 40000;
  std::optional<LocalClient> client;
  for (int i = 0; i < operations; ++i) {
    const std::string key = random_key();
    const uint64_t kind = random.below(100);
    if (kind < 55) {
      const uint64_t size = random.chance(20) ? random.below(600000) : random.below(300);
      ++version;
      if (!client || random.chance(200)) client.emplace(ns);
      ASSERT_OK(random.chance(2) ? test::put(*ns, key, version, size) : client->put(key, version, size));
      model[key] = size;
    } else if (kind < 95) {
      ASSERT_EQ(*ns->remove(key, {}), model.erase(key) > 0);
    } else if (random.chance(10)) {
      const std::string prefix = random.chance(2) ? "" : "dir" + std::to_string(random.below(6));
      const std::string after = random.chance(2) ? "" : random_key();
      std::vector<std::string> expected;
      for (const auto& [name, size] : model) {
        if (name.starts_with(prefix) && name > after) expected.push_back(name);
      }
      ASSERT_EQ(list_all(*ns, prefix, static_cast<uint32_t>(random.between(1, 1000)), after), expected);
    }
  }
  auto page = ns->list("", "", 1000);
  for (const auto& object : page->objects) ASSERT_EQ(object.info.size_bytes, model.at(object.key));
  EXPECT_EQ(list_all(*ns, "", 1000).size(), model.size());
}

TEST_F(Listing, WhatStaysIsListedOnceWhileOthersComeAndGo) {
  for (int i = 0; i < 3000; ++i) {
    char key[32];
    std::snprintf(key, sizeof key, "stay-%05d", i);
    ASSERT_OK(test::put(*ns, key, 1, 20));
  }
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    Random random(7);
    for (uint64_t i = 0; !stop.load(); ++i) {
      char key[32];
      std::snprintf(key, sizeof key, "stay-%05d-%d", static_cast<int>(random.below(3000)), static_cast<int>(random.below(3)));
      if (random.chance(2)) {
        EXPECT_OK(test::put(*ns, key, i, random.below(3000)));
      } else {
        EXPECT_OK(ns->remove(key, {}));
      }
      std::snprintf(key, sizeof key, "stay-%05d", static_cast<int>(random.below(3000)));
      EXPECT_OK(test::put(*ns, key, i, 30));
    }
  });
  for (int round = 0; round < (test::kSanitized ? 10 : 40); ++round) {
    const auto keys = list_all(*ns, "stay-", 100);
    EXPECT_TRUE(std::is_sorted(keys.begin(), keys.end()));
    EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
    EXPECT_EQ(std::count_if(keys.begin(), keys.end(), [](const auto& key) { return key.size() == 10; }), 3000);
  }
  stop.store(true);
  writer.join();
}

// --- watching

TEST_F(Watching, TellsEachSealAndDeleteUnderThePrefix) {
  std::vector<WatchedEvent> events, all;
  const uint64_t id = ns->watch("a/", [&](const WatchedEvent& event) { events.push_back(event); });
  ns->watch("", [&](const WatchedEvent& event) { all.push_back(event); });
  auto first = test::put(*ns, "a/1", 1, 100);
  ASSERT_OK(test::put(*ns, "b/1", 1, 100));
  ASSERT_OK(test::put(*ns, "a", 1, 100));
  LocalClient client(ns);
  auto second = client.put("a/1", 2, 200);
  ASSERT_OK(second);
  EXPECT_CODE(test::put(*ns, "a/1", 3, 1, {.if_absent = true}), Code::kConditionFailed);
  EXPECT_TRUE(*ns->remove("a/1", {}));
  EXPECT_FALSE(*ns->remove("a/1", {}));
  ASSERT_OK(client.put_in_parts("a/2", 1, {1000, 2000}));
  ASSERT_EQ(events.size(), 4u);
  EXPECT_FALSE(events[0].deleted);
  EXPECT_EQ(events[0].key, "a/1");
  EXPECT_EQ(events[0].info.sequence, first->sequence);
  EXPECT_EQ(events[0].info.size_bytes, 100u);
  EXPECT_FALSE(events[1].deleted);
  EXPECT_EQ(events[1].info.sequence, second->sequence);
  EXPECT_TRUE(events[2].deleted);
  EXPECT_EQ(events[2].key, "a/1");
  EXPECT_EQ(events[3].key, "a/2");
  EXPECT_EQ(events[3].info.size_bytes, 3000u);
  EXPECT_EQ(all.size(), 6u);
  ns->unwatch(id);
  ns->unwatch(id);
  ns->unwatch(99999);
  ASSERT_OK(test::put(*ns, "a/3", 1, 1));
  EXPECT_EQ(events.size(), 4u);
  EXPECT_EQ(all.size(), 7u);
}

TEST_F(Watching, EventsOfManyThreadsAreAllTold) {
  std::mutex mutex;
  std::map<std::string, uint64_t> last_sequence;
  uint64_t events = 0;
  ns->watch("", [&](const WatchedEvent& event) {
    std::lock_guard lock(mutex);
    ++events;
    EXPECT_GT(event.info.sequence, last_sequence[event.key]) << "out of order";
    last_sequence[event.key] = event.info.sequence;
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (uint64_t i = 0; i < 500; ++i) EXPECT_OK(test::put(*ns, "key-" + std::to_string(i % 10), i, 50));
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(events, 1500u);
}

// --- copies

TEST_F(Copying, WithinAndAcrossNamespaces) {
  auto other = make_namespace(store, "ns-b");
  LocalClient client(ns);
  ASSERT_OK(test::put(*ns, "small", 1, 1000));
  ASSERT_OK(test::put(*ns, "empty", 1, 0));
  ASSERT_OK(client.put_in_parts("parts", 1, {100000, 200000, 50}));
  const std::map<std::string, uint64_t> sizes = {{"small", 1000}, {"empty", 0}, {"parts", 300050}};
  for (const auto& [key, size] : sizes) {
    for (Namespace* to : {ns.get(), other.get()}) {
      auto info = ns->copy(key, *to, key + "-copy", {});
      ASSERT_OK(info) << key;
      EXPECT_EQ(info->size_bytes, size);
      EXPECT_EQ(info->crc32c, ns->head(key)->crc32c);
      EXPECT_TRUE(shows(to->get(key + "-copy"), key, 1, size));
    }
  }
  EXPECT_CODE(ns->copy("absent", *other, "to", {}), Code::kNotFound);
  EXPECT_CODE(ns->copy("small", *other, "small-copy", {.if_absent = true}), Code::kConditionFailed);
  // Copies stand on their own.
  for (const auto& [key, size] : sizes) EXPECT_TRUE(*ns->remove(key, {}));
  ASSERT_OK(test::put(*ns, "small", 2, 1000));
  for (const auto& [key, size] : sizes) {
    EXPECT_TRUE(shows(ns->get(key + "-copy"), key, 1, size));
    EXPECT_TRUE(shows(other->get(key + "-copy"), key, 1, size));
  }
  // Onto itself: a new version with the same bytes.
  auto info = ns->copy("small", *ns, "small", {});
  ASSERT_OK(info);
  EXPECT_TRUE(shows(ns->get("small"), "small", 2, 1000));
  ASSERT_OK(store.drop("ns-a"));
  EXPECT_TRUE(shows(other->get("parts-copy"), "parts", 1, 300050));
  EXPECT_CODE(other->copy("parts-copy", *ns, "to", {}), Code::kNamespaceGone);
  EXPECT_CODE(ns->copy("small", *other, "to", {}), Code::kNamespaceGone);
}

TEST_F(Copying, BothWaysAtOnceDoesNotLock) {
  auto other = make_namespace(store, "ns-b");
  ASSERT_OK(test::put(*ns, "key", 1, 5000));
  ASSERT_OK(test::put(*other, "key", 1, 5000));
  std::thread there([&] {
    for (int i = 0; i < 2000; ++i) EXPECT_OK(ns->copy("key", *other, "from-a", {}));
  });
  std::thread back([&] {
    for (int i = 0; i < 2000; ++i) EXPECT_OK(other->copy("key", *ns, "from-b", {}));
  });
  there.join();
  back.join();
  EXPECT_TRUE(shows(ns->get("from-b"), "key", 1, 5000));
  EXPECT_TRUE(shows(other->get("from-a"), "key", 1, 5000));
}

// --- grants

TEST_F(Grants, LieInASegmentOfTheirNamespace) {
  LocalClient client(ns);
  Random random(test::new_seed("Grants.LieInASegmentOfTheirNamespace"));
  std::map<uint32_t, std::vector<std::pair<uint64_t, uint64_t>>> taken;
  for (int i = 0; i < 9; ++i) {
    const uint64_t bytes = random.chance(4) ? random.below(8 * MiB) : random.below(100000);
    auto grant = client.reserve(bytes);
    ASSERT_OK(grant);
    EXPECT_GE(grant->end - grant->begin, bytes);
    EXPECT_GE(grant->begin, kSegmentHeaderBytes);
    EXPECT_LE(grant->end, grant->memory->bytes());
    EXPECT_EQ(grant->begin % limits::kEntryAlignment, 0u);
    EXPECT_OK(check_segment_header(client.writable(grant->segment), grant->memory->bytes()));
    const auto* header = reinterpret_cast<const SegmentHeader*>(client.writable(grant->segment));
    EXPECT_EQ(header->number, grant->segment);
    EXPECT_EQ(std::string_view(header->name, header->name_bytes), "ns-a");
    for (const auto& [begin, end] : taken[grant->segment]) {
      EXPECT_TRUE(grant->end <= begin || grant->begin >= end) << "two grants overlap";
    }
    taken[grant->segment].push_back({grant->begin, grant->end});
  }
}

TEST_F(Grants, HugeOnesAreRefusedWithoutHarm) {
  LocalClient client(ns);
  for (uint64_t bytes : {limits::kObjectBytesMax, limits::kObjectBytesMax + 1, ~uint64_t{0}, ~uint64_t{0} - 4096, uint64_t{1} << 63}) {
    EXPECT_FALSE(client.reserve(bytes).ok()) << bytes;
  }
  EXPECT_OK(client.reserve(0));
  EXPECT_OK(client.reserve(100));
}

TEST_F(Grants, SealMakesVisible) {
  LocalClient client(ns), reader(ns);
  Random random(test::new_seed("Grants.SealMakesVisible"));
  for (uint64_t i = 0; i < 2000; ++i) {
    const std::string key = "key-" + std::to_string(i);
    const uint64_t size = random.chance(50) ? random.below(2 * MiB) : random.below(2000);
    const auto bytes = Content(key, i).bytes(size);
    auto written = client.write(EntryKind::kObject, key, span_of(bytes));
    ASSERT_OK(written);
    ASSERT_CODE(ns->head(key), Code::kNotFound) << "visible before it is sealed";
    ASSERT_FALSE(reader.get(key).has_value());
    auto info = client.seal(*written);
    ASSERT_OK(info);
    ASSERT_EQ(info->size_bytes, size);
    ASSERT_EQ(info->crc32c, written->payload_crc);
    ASSERT_TRUE(shows(ns->get(key), key, i, size));
    ASSERT_EQ(reader.get(key), bytes);
  }
  client.disconnect();
  EXPECT_EQ(ns->stats().objects, 2000u) << "what is sealed outlives its writer";
  EXPECT_TRUE(reader.get("key-1999").has_value());
}

TEST_F(Grants, BatchesSealInOrderUpToTheFirstThatFails) {
  LocalClient client(ns);
  for (const size_t bad : {size_t{0}, size_t{5}, size_t{9}, size_t{10}}) {
    std::vector<LocalClient::Written> entries;
    for (size_t i = 0; i < 10; ++i) {
      const std::string key = "batch-" + std::to_string(bad) + "-" + std::to_string(i);
      auto written = client.write(EntryKind::kObject, key, span_of(Content(key, 1).bytes(100 + i)));
      ASSERT_OK(written);
      entries.push_back(*written);
    }
    if (bad < 10) client.writable(entries[bad].segment)[entries[bad].entry_offset + 8] ^= 1;
    size_t failed_at = 12345;
    const Status sealed = client.seal_batch(entries, &failed_at);
    EXPECT_EQ(sealed.ok(), bad == 10) << sealed.message();
    if (bad < 10) {
      EXPECT_CODE(sealed, Code::kCorrupt);
      EXPECT_EQ(failed_at, bad);
    }
    for (size_t i = 0; i < 10; ++i) {
      const std::string key = "batch-" + std::to_string(bad) + "-" + std::to_string(i);
      if (i < bad) {
        EXPECT_TRUE(shows(ns->get(key), key, 1, 100 + i));
      } else {
        EXPECT_CODE(ns->head(key), Code::kNotFound);
      }
    }
  }
  EXPECT_OK(client.seal_batch({}));
}

TEST_F(Grants, OutsideOfOnesOwnOrTwiceIsRefused) {
  LocalClient mine(ns), other(ns);
  const auto bytes = Content("key", 1).bytes(500);
  auto written = mine.write(EntryKind::kObject, "key", span_of(bytes));
  ASSERT_OK(written);
  EXPECT_FALSE(other.seal(*written).ok()) << "another session's grant";
  EXPECT_FALSE(ns->seal(0, written->segment, written->entry_offset, {}).ok()) << "the daemon's session is no client's";
  EXPECT_FALSE(ns->seal(99999, written->segment, written->entry_offset, {}).ok());
  EXPECT_FALSE(ns->seal(~uint64_t{0}, written->segment, written->entry_offset, {}).ok());
  for (uint32_t segment : {written->segment + 1, written->segment + 1000, 0xffffffu, 0x1000000u, ~uint32_t{0}}) {
    EXPECT_FALSE(ns->seal(mine.session(), segment, written->entry_offset, {}).ok()) << segment;
  }
  for (uint64_t offset : {uint64_t{0}, uint64_t{16}, kSegmentHeaderBytes - 16, written->entry_offset + 1, written->entry_offset + 8,
                          written->entry_offset + 16, 1 * MiB, 1 * GiB, ~uint64_t{0}, ~uint64_t{0} - 15}) {
    EXPECT_FALSE(ns->seal(mine.session(), written->segment, offset, {}).ok()) << offset;
  }
  size_t failed_at = 9;
  const Namespace::SealRecord wild{~uint32_t{0}, ~uint32_t{0}};
  EXPECT_FALSE(ns->seal_batch(mine.session(), &wild, 1, &failed_at).ok());
  EXPECT_EQ(failed_at, 0u);
  EXPECT_EQ(ns->stats().objects, 0u);
  ASSERT_OK(mine.seal(*written));
  EXPECT_FALSE(mine.seal(*written).ok()) << "twice";
  EXPECT_TRUE(*ns->remove("key", {}));
  EXPECT_FALSE(mine.seal(*written).ok()) << "dead ones do not rise";
  auto unsealed = mine.write(EntryKind::kObject, "late", span_of(bytes));
  ASSERT_OK(unsealed);
  mine.give_back();
  EXPECT_FALSE(mine.seal(*unsealed).ok()) << "given back";
  auto last = mine.write(EntryKind::kObject, "last", span_of(bytes));
  ASSERT_OK(last);
  mine.disconnect();
  EXPECT_FALSE(mine.seal(*last).ok()) << "the session has ended";
  EXPECT_FALSE(ns->reserve(mine.session(), 100).ok());
  EXPECT_EQ(ns->stats().objects, 0u);
}

TEST_F(Grants, OfEarlierObjectsBytesIsRefused) {
  LocalClient first(ns);
  ASSERT_OK(first.put("sealed", 1, 1000));
  first.give_back();
  // A later grant may lie behind the first in the same segment, but does not contain what is sealed there.
  LocalClient second(ns);
  auto grant = second.reserve(1000);
  ASSERT_OK(grant);
  if (const auto found = second.find("sealed"); found && found->ref.segment == grant->segment) {
    EXPECT_GE(grant->begin, found->entry.end);
    EXPECT_FALSE(ns->seal(second.session(), grant->segment, found->ref.entry_offset, {}).ok());
  }
  // An entry forged inside the payload of one that is sealed already.
  LocalClient third(ns);
  std::vector<uint8_t> payload(8192, 0);
  auto outer = third.write(EntryKind::kObject, "outer", span_of(payload));
  ASSERT_OK(outer);
  ASSERT_OK(third.seal(*outer));
  const uint64_t inside = align_up(outer->payload_offset + 64, 16);
  write_entry_header(third.writable(outer->segment), inside, EntryKind::kObject, "inner", 64, 0);
  EXPECT_FALSE(ns->seal(third.session(), outer->segment, inside, {}).ok()) << "bytes that belong to an object";
  EXPECT_CODE(ns->head("inner"), Code::kNotFound);
  // The state lies in the client's own memory: that it says "unsealed" again proves nothing.
  std::memset(third.writable(outer->segment) + outer->entry_offset + 24, 0, 16);
  EXPECT_FALSE(third.seal(*outer).ok());
  EXPECT_TRUE(ns->get("outer").ok());
  EXPECT_TRUE(ns->get("sealed").ok());
}

TEST_F(Grants, AreSealedInAnyOrder) {
  Random random(test::new_seed("Grants.AreSealedInAnyOrder"));
  LocalClient client(ns);
  std::vector<LocalClient::Written> entries;
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < 400; ++i) {
    keys.push_back("key-" + std::to_string(i));
    auto written = client.write(EntryKind::kObject, keys.back(), span_of(Content(keys.back(), i).bytes(i * 3)));
    ASSERT_OK(written);
    entries.push_back(*written);
  }
  std::vector<size_t> order(entries.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  for (size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  for (size_t i = 0; i < order.size(); i += 2) ASSERT_OK(client.seal(entries[order[i]])) << order[i];
  for (size_t i = 0; i < order.size(); i += 2) ASSERT_FALSE(client.seal(entries[order[i]]).ok()) << order[i];
  for (size_t i = 1; i < order.size(); i += 2) ASSERT_OK(client.seal(entries[order[i]])) << order[i];
  for (uint64_t i = 0; i < keys.size(); ++i) ASSERT_TRUE(shows(ns->get(keys[i]), keys[i], i, i * 3));
  const auto stats = ns->stats();
  EXPECT_EQ(stats.dead_bytes, 0u) << "all that was left out has been taken up";
  // What a refused seal left stays open for another try.
  auto again = client.write(EntryKind::kObject, "key-1", span_of(Content("key-1", 9).bytes(100)));
  ASSERT_CODE(client.seal(*again, {.if_absent = true}), Code::kConditionFailed);
  ASSERT_OK(client.put("after", 1, 100));
  ASSERT_OK(client.seal(*again));
  EXPECT_TRUE(shows(ns->get("key-1"), "key-1", 9, 100));
}

TEST_F(Grants, WrongEntriesAreRefused) {
  LocalClient client(ns);
  const auto bytes = Content("key", 1).bytes(500);
  auto grant = client.reserve(100000);
  ASSERT_OK(grant);
  uint8_t* segment = client.writable(grant->segment);
  const uint64_t at = grant->begin;
  const auto refused = [&](const std::function<void()>& change) {
    write_entry_header(segment, at, EntryKind::kObject, "key", 500, 1);
    change();
    return ns->seal(client.session(), grant->segment, at, {}).status();
  };
  for (uint64_t byte = 0; byte < 24; ++byte) {
    EXPECT_CODE(refused([&] { segment[at + byte] ^= 0x10; }), Code::kCorrupt) << byte;
  }
  EXPECT_CODE(refused([&] { segment[at + sizeof(EntryHeader)] ^= 1; }), Code::kCorrupt);
  EXPECT_FALSE(refused([&] { write_entry_header(segment, at, EntryKind::kObject, "key", grant->memory->bytes(), 1); }).ok());
  EXPECT_FALSE(refused([&] { write_entry_header(segment, at, EntryKind::kObject, "key", ~uint64_t{0} - 100, 1); }).ok());
  EXPECT_FALSE(refused([&] { write_entry_header(segment, at, EntryKind::kObject, "", 500, 1); }).ok());
  EXPECT_FALSE(refused([&] { std::memset(segment + at, 0, 64); }).ok());
  EXPECT_EQ(ns->stats().objects, 0u);
  write_entry_header(segment, at, EntryKind::kObject, "key", 500, 1);
  EXPECT_OK(ns->seal(client.session(), grant->segment, at, {}));
}

TEST_F(Grants, ObjectsInPartsAreReadAsOne) {
  LocalClient client(ns), reader(ns);
  const std::vector<std::vector<uint64_t>> shapes = {{1}, {100, 200}, {1, 1, 1, 1}, {900000, 900000, 900000, 123}, {2 * MiB, 1}};
  for (size_t i = 0; i < shapes.size(); ++i) {
    const std::string key = "parts-" + std::to_string(i);
    uint64_t size = 0;
    for (uint64_t part : shapes[i]) size += part;
    auto info = client.put_in_parts(key, i, shapes[i]);
    ASSERT_OK(info);
    EXPECT_EQ(info->size_bytes, size);
    const auto bytes = Content(key, i).bytes(size);
    EXPECT_EQ(info->crc32c, crc32c(0, bytes.data(), size));
    EXPECT_TRUE(shows(ns->get(key), key, i, size));
    EXPECT_EQ(reader.get(key), bytes);
    Random random(i);
    for (int k = 0; k < 50; ++k) {
      const uint64_t offset = random.below(size);
      const uint64_t length = random.between(1, size - offset);
      ASSERT_TRUE(shows(ns->get(key, offset, length), key, i, size, offset, length));
    }
  }
  client.disconnect();
  for (size_t i = 0; i < shapes.size(); ++i) EXPECT_TRUE(reader.get("parts-" + std::to_string(i)).has_value());
}

TEST_F(Grants, AManifestListsOnlyItsSessionsOwnLooseParts) {
  LocalClient client(ns), other(ns);
  auto parts = client.put_parts("key", 1, {1000, 2000});
  auto foreign = other.put_parts("key", 1, {1000});
  auto object = client.write(EntryKind::kObject, "object", span_of(Content("object", 1).bytes(1000)));
  ASSERT_OK(object);
  ASSERT_OK(client.seal(*object));
  auto unsealed = client.write(EntryKind::kPart, "", span_of(Content("key", 1).bytes(1000)));
  ASSERT_OK(unsealed);
  const auto seal_manifest = [&](std::vector<LocalClient::Written> listed, std::function<void(uint8_t*)> change = {}) {
    auto payload = LocalClient::manifest_of(listed);
    if (change) change(payload.data());
    auto manifest = client.write(EntryKind::kManifest, "key", span_of(payload));
    EXPECT_OK(manifest);
    return client.seal(*manifest).status();
  };
  using Written = LocalClient::Written;
  const auto moved = [](Written part, int64_t offset, int64_t bytes) {
    part.payload_offset += static_cast<uint64_t>(offset);
    part.payload_bytes += static_cast<uint64_t>(bytes);
    return part;
  };
  const Written a = (*parts)[0], b = (*parts)[1];
  EXPECT_FALSE(seal_manifest({a, (*foreign)[0]}).ok()) << "another session's part";
  EXPECT_FALSE(seal_manifest({a, *object}).ok()) << "an object's bytes";
  EXPECT_FALSE(seal_manifest({a, *unsealed}).ok()) << "an unsealed part";
  EXPECT_FALSE(seal_manifest({a, a}).ok()) << "one part twice";
  EXPECT_FALSE(seal_manifest({moved(a, 16, -16)}).ok());
  EXPECT_FALSE(seal_manifest({moved(a, 0, 16)}).ok()) << "more than the part";
  EXPECT_FALSE(seal_manifest({moved(a, -16, 0)}).ok());
  EXPECT_FALSE(seal_manifest({moved(a, 1 << 30, 0)}).ok()) << "outside of the segment";
  Written nowhere = a;
  nowhere.segment = 0xfffff0;
  EXPECT_FALSE(seal_manifest({nowhere}).ok());
  nowhere.segment = ~uint32_t{0};
  EXPECT_FALSE(seal_manifest({nowhere}).ok());
  EXPECT_FALSE(seal_manifest({a}, [](uint8_t* payload) { payload[0] ^= 1; }).ok()) << "lengths do not add up";
  EXPECT_FALSE(seal_manifest({a}, [](uint8_t* payload) { payload[12] = 2; }).ok());
  EXPECT_FALSE(seal_manifest({}).ok()) << "an object of nothing is an object entry";
  EXPECT_CODE(ns->head("key"), Code::kNotFound);
  EXPECT_EQ(ns->stats().objects, 1u);
  // Refused manifests have not used up the parts.
  EXPECT_OK(seal_manifest({a, b}));
  EXPECT_TRUE(shows(ns->get("key"), "key", 1, 3000));
  EXPECT_FALSE(seal_manifest({a, b}).ok()) << "its parts belong to an object by now";
  EXPECT_TRUE(*ns->remove("key", {}));
  EXPECT_FALSE(seal_manifest({a, b}).ok()) << "and are dead with it";
}

TEST(LooseParts, AreFreedWithTheirSession) {
  Store store(store_options(16 * MiB));
  auto ns = make_namespace(store, "ns-a");
  for (uint64_t i = 0; i < 100; ++i) {
    LocalClient client(ns);
    ASSERT_OK(client.put_parts("never", i, {900000, 900000, 900000})) << i;
    if (i % 3 == 0) {
      ASSERT_OK(client.put_in_parts("listed", i, {500000, 500000})) << i;
    }
  }
  EXPECT_TRUE(shows(ns->get("listed"), "listed", 99, 1000000));
  EXPECT_EQ(ns->stats().objects, 1u);
  EXPECT_LE(ns->stats().segment_bytes, 8 * MiB);
}

// --- the end of a namespace

TEST_F(Dropping, EndsEveryOperationWithOneError) {
  ASSERT_OK(test::put(*ns, "key", 1, 100));
  LocalClient client(ns);
  ASSERT_OK(client.put("client", 1, 100));
  auto unsealed = client.write(EntryKind::kObject, "late", span_of(Content("late", 1).bytes(100)));
  auto parts = client.put_parts("p", 1, {100});
  auto appending = ns->begin("draft");
  ASSERT_OK(appending->append(span_of(Content("draft", 1).bytes(100))));
  std::vector<Span> spans;
  auto known = ns->begin("draft-2", 100, &spans);
  const Span drafted = spans.at(0);
  auto half = ns->begin("draft-3");
  ASSERT_OK(half->append(span_of(Content("draft", 1).bytes(100))));
  auto view = ns->get("key");
  test::Ear ear;
  store.set_listener(&ear);
  ASSERT_OK(store.drop("ns-a"));
  store.set_listener(nullptr);
  EXPECT_EQ(ear.dropped(), std::vector<std::string>{"ns-a"});
  EXPECT_TRUE(client.index().closed()) << "clients see it in the index";
  EXPECT_CODE(ns->get("key"), Code::kNamespaceGone);
  EXPECT_CODE(ns->head("key"), Code::kNamespaceGone);
  EXPECT_CODE(ns->list("", "", 10), Code::kNamespaceGone);
  EXPECT_CODE(test::put(*ns, "key", 2, 100), Code::kNamespaceGone);
  EXPECT_CODE(ns->remove("key", {}), Code::kNamespaceGone);
  EXPECT_CODE(ns->begin("key", 10, &spans), Code::kNamespaceGone);
  EXPECT_CODE(ns->begin("key", 0, &spans), Code::kNamespaceGone);
  EXPECT_CODE(appending->append(span_of(Content("draft", 1).bytes(2 * MiB))), Code::kNamespaceGone);
  EXPECT_CODE(ns->commit(std::move(*appending), {}), Code::kNamespaceGone);
  std::memset(drafted.data, 1, drafted.bytes);  // whoever fills it need not know yet
  EXPECT_CODE(ns->commit(std::move(*known), {}), Code::kNamespaceGone);
  EXPECT_CODE(client.reserve(100), Code::kNamespaceGone);
  EXPECT_CODE(client.seal(*unsealed), Code::kNamespaceGone);
  EXPECT_CODE(client.seal_batch({*unsealed}), Code::kNamespaceGone);
  EXPECT_CODE(ns->open_segment(client.session(), 0), Code::kNamespaceGone);
  ns->confirm_unmapped(client.session(), 0);
  client.disconnect();
  EXPECT_TRUE(shows(view, "key", 1, 100)) << "views outlive the namespace";
}

TEST(Lifetime, ViewsAndDraftsOutliveTheStore) {
  std::optional<Result<ObjectView>> view, parts;
  Draft draft;
  std::vector<Span> spans;
  std::shared_ptr<Namespace> ns;
  {
    Store store(store_options());
    ns = make_namespace(store, "ns-a");
    ASSERT_OK(test::put(*ns, "key", 1, 200000));
    LocalClient client(ns);
    ASSERT_OK(client.put_in_parts("parts", 1, {1000000, 500000}));
    view.emplace(ns->get("key"));
    parts.emplace(ns->get("parts"));
    auto begun = ns->begin("late", 100000, &spans);
    ASSERT_OK(begun);
    draft = std::move(*begun);
  }
  EXPECT_TRUE(shows(*view, "key", 1, 200000));
  EXPECT_TRUE(shows(*parts, "parts", 1, 1500000));
  std::memset(spans[0].data, 1, spans[0].bytes);
  ns.reset();
  draft.abort();
  EXPECT_TRUE(shows(*view, "key", 1, 200000));
}

// --- accounts

TEST_F(Objects, DeadBytesAreThoseOfDeadEntries) {
  ASSERT_OK(test::put(*ns, "a", 1, 10000));
  ASSERT_OK(test::put(*ns, "b", 1, 10000));
  const auto before = ns->stats();
  EXPECT_EQ(before.objects, 2u);
  EXPECT_EQ(before.size_bytes, 20000u);
  EXPECT_TRUE(*ns->remove("a", {}));
  const auto after = ns->stats();
  EXPECT_EQ(after.objects, 1u);
  EXPECT_EQ(after.size_bytes, 10000u);
  EXPECT_GE(after.dead_bytes - before.dead_bytes, 10000u);
  EXPECT_LE(after.dead_bytes - before.dead_bytes, entry_bytes_max(1, 10000));
  EXPECT_EQ(after.segment_bytes, before.segment_bytes);
}

// Whatever happens, the sums hold.
TEST_F(Objects, AccountsAddUpUnderRandomOperations) {
  const uint64_t seed = test::new_seed("Objects.AccountsAddUpUnderRandomOperations");
  Random random(seed);
  std::map<std::string, uint64_t> model;
  std::vector<std::unique_ptr<LocalClient>> clients;
  uint64_t size_bytes = 0, version = 0, sealed = 0, peak = 0;
  double byte_seconds = 0;
  const auto set = [&](const std::string& key, uint64_t size) {
    auto [at, fresh] = model.try_emplace(key, 0);
    size_bytes += size - at->second;
    at->second = size;
    ++sealed;
  };
  for (int i = 0; i < (test::kSanitized ? 4000 : 20000); ++i) {
    const std::string key = "key-" + std::to_string(random.below(300));
    const uint64_t size = random.size(400000);
    ++version;
    switch (random.below(10)) {
      case 0:
      case 1: {
        ASSERT_OK(test::put(*ns, key, version, size));
        set(key, size);
        break;
      }
      case 2: {
        auto draft = ns->begin(key);
        ASSERT_OK(draft);
        ASSERT_OK(draft->append(span_of(Content(key, version).bytes(size / 2))));
        ASSERT_OK(draft->append(span_of(Content(key, version).bytes(size - size / 2))));
        if (random.chance(2)) {
          ASSERT_OK(ns->commit(std::move(*draft), {}));
          set(key, size);
        }
        break;
      }
      case 3:
        if (clients.size() < 4) clients.push_back(std::make_unique<LocalClient>(ns));
        else clients.erase(clients.begin() + static_cast<ptrdiff_t>(random.below(clients.size())));
        break;
      case 4:
      case 5:
        if (clients.empty()) break;
        ASSERT_OK(clients[random.below(clients.size())]->put(key, version, size));
        set(key, size);
        break;
      case 6:
        if (clients.empty()) break;
        ASSERT_OK(clients[random.below(clients.size())]->put_in_parts(key, version, {size + 1, size / 2 + 1}));
        set(key, size + 1 + size / 2 + 1);
        break;
      case 7:
        if (clients.empty()) break;
        ASSERT_OK(clients[random.below(clients.size())]->put_parts(key, version, {size + 1}));
        break;
      default: {
        const auto at = model.find(key);
        ASSERT_EQ(*ns->remove(key, {}), at != model.end());
        if (at != model.end()) {
          size_bytes -= at->second;
          model.erase(at);
        }
      }
    }
    if (i % 50 != 0) continue;
    const auto stats = ns->stats();
    ASSERT_EQ(stats.objects, model.size());
    ASSERT_EQ(stats.size_bytes, size_bytes);
    ASSERT_GE(stats.sealed_total, sealed);
    ASSERT_LE(stats.size_bytes + stats.dead_bytes, stats.segment_bytes);
    ASSERT_GE(stats.peak_bytes, stats.segment_bytes);
    ASSERT_GE(stats.peak_bytes, peak);
    ASSERT_GE(stats.dram_byte_seconds, byte_seconds);
    ASSERT_LE(stats.segment_bytes, store.dram_stats().used_bytes);
    ASSERT_LE(store.dram_stats().used_bytes, 512 * MiB);
    peak = stats.peak_bytes;
    byte_seconds = stats.dram_byte_seconds;
  }
  clients.clear();
  for (const auto& [key, size] : model) ASSERT_TRUE(*ns->remove(key, {}));
  const auto stats = ns->stats();
  EXPECT_EQ(stats.objects, 0u);
  EXPECT_EQ(stats.size_bytes, 0u);
  EXPECT_LE(stats.dead_bytes, stats.segment_bytes);
  EXPECT_EQ(stats.held_bytes, 0u);
  ASSERT_OK(store.drop("ns-a"));
  // Pages go back on a thread of the store's own.
  EXPECT_TRUE(test::eventually([&] { return ns->stats().segment_bytes == 0; }));
}

TEST_F(Objects, TrafficIsCountedByDoor) {
  ns->count(Door::kShm, 100, 200, 3);
  ns->count(Door::kTcp, 1, 2);
  ns->count(Door::kShm, 100, 200, 3);
  EXPECT_EQ(ns->traffic(Door::kShm).bytes_in, 200u);
  EXPECT_EQ(ns->traffic(Door::kShm).bytes_out, 400u);
  EXPECT_EQ(ns->traffic(Door::kShm).operations, 6u);
  EXPECT_EQ(ns->traffic(Door::kTcp).operations, 1u);
  EXPECT_EQ(ns->traffic(Door::kGrpc).operations, 0u);
}

}  // namespace
}  // namespace millrace
