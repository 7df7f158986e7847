// Demotion, promotion and the cleaner, through the store as its callers see it.
#include <map>
#include <random>

#include "test/file_support.h"
#include "test/store_support.h"

namespace millrace::test {
namespace {

class RelocateTest : public ::testing::Test {
 protected:
  Store::Options tiered(uint64_t dram_bytes, uint64_t nvme_bytes = 4 * GiB) {
    Store::Options options = store_options(dram_bytes, 50);
    options.nvme.directories = {{directory_.path(), nvme_bytes}};
    options.nvme.node_id = "test";
    options.nvme.retry_after_ms = 100;
    options.clean_bytes_per_second = 4 * GiB;
    return options;
  }

  static std::vector<uint8_t> read(Store& store, Namespace& ns, const std::string& key) {
    auto bytes = read_all_of(store, ns, key);
    EXPECT_OK(bytes);
    return bytes.ok() ? std::move(*bytes) : std::vector<uint8_t>();
  }

  NoFaultsAfter no_faults_;
  TemporaryDirectory directory_;
};

TEST_F(RelocateTest, MoreThanMemoryGoesDownAndIsReadBack) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  Store store(tiered(64 * MiB));
  ASSERT_OK(store.open());
  auto ns = make_namespace(store, "tiers");
  std::map<std::string, std::pair<uint64_t, uint64_t>> want;  // version, bytes
  uint64_t put_bytes = 0;
  for (uint64_t version = 1; put_bytes < 256 * MiB; ++version) {
    const std::string key = "k" + std::to_string(random() % 3000);
    const uint64_t shapes[] = {0, random() % 200, random() % 5000, random() % (200 * KiB), random() % (6 * MiB)};
    const uint64_t bytes = shapes[random() % 5];
    ASSERT_OK(put_waiting(*ns, key, version, bytes));
    put_bytes += bytes;
    want[key] = {version, bytes};
    if (random() % 7 == 0 && !want.empty()) {
      auto gone = want.begin();
      std::advance(gone, random() % want.size());
      auto removed = ns->remove(gone->first, {});
      ASSERT_OK(removed);
      EXPECT_TRUE(*removed);
      want.erase(gone);
    }
  }
  EXPECT_GT(ns->stats().nvme_bytes, 0u);
  EXPECT_LE(store.dram_stats().used_bytes, 64 * MiB);
  EXPECT_EQ(ns->stats().objects, want.size());
  for (const auto& [key, is] : want) {
    EXPECT_TRUE(read(store, *ns, key) == Content(key, is.first).bytes(is.second)) << key;
    auto info = ns->head(key);
    ASSERT_OK(info);
    EXPECT_EQ(info->size_bytes, is.second);
  }
  // The listing has all of them, in order, whatever has moved meanwhile.
  std::string after;
  auto expected = want.begin();
  for (;;) {
    auto page = ns->list("", after, 1000);
    ASSERT_OK(page);
    for (const auto& listed : page->objects) {
      ASSERT_NE(expected, want.end());
      EXPECT_EQ(listed.key, (expected++)->first);
    }
    if (!page->truncated) break;
    after = page->objects.back().key;
  }
  EXPECT_EQ(expected, want.end());
  for (const auto& [key, is] : want) ASSERT_OK(ns->remove(key, {}));
  EXPECT_TRUE(comes_true([&] { return ns->stats().nvme_bytes == 0; }));
}

TEST_F(RelocateTest, EndlessOverwriteStaysWithinItsBound) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  Store::Options options = store_options(1 * GiB, 50);
  options.clean_bytes_per_second = 8 * GiB;
  Store store(options);
  ASSERT_OK(store.open());
  auto ns = make_namespace(store, "overwrite");
  constexpr uint64_t kKeys = 2000, kBytes = 20 * KiB;  // 40 MiB live
  std::vector<uint64_t> version(kKeys, 0);
  for (uint64_t n = 1; n <= 20 * kKeys; ++n) {
    const uint64_t k = n <= kKeys ? n - 1 : random() % kKeys;
    ASSERT_OK(put_waiting(*ns, "k" + std::to_string(k), n, kBytes));
    version[k] = n;
  }
  const uint64_t live = ns->stats().size_bytes;
  EXPECT_TRUE(comes_true([&] { return ns->stats().dram_bytes <= live * 13 / 10 + 64 * MiB; })) << ns->stats().dram_bytes;
  EXPECT_GT(ns->stats().cleaned_bytes, 0u);
  for (uint64_t k = 0; k < kKeys; ++k) {
    const std::string key = "k" + std::to_string(k);
    EXPECT_TRUE(shows(ns->get(key), key, version[k], kBytes));
  }
}

TEST_F(RelocateTest, MapOutputsComeToLieByPartition) {
  Store store(tiered(64 * MiB));
  ASSERT_OK(store.open());
  auto ns = make_namespace(store, "shuffle");
  constexpr uint64_t kMaps = 6, kPartitions = 16, kPiece = 32 * KiB;
  std::vector<uint64_t> offsets;
  for (uint64_t r = 0; r <= kPartitions; ++r) offsets.push_back(r * kPiece);
  for (uint64_t m = 0; m < kMaps; ++m) {
    const std::string key = "map" + std::to_string(m);
    ASSERT_OK(put(*ns, key, m, kPartitions * kPiece));
    ASSERT_OK(ns->set_partitions(key, "s", offsets));
    EXPECT_EQ(ns->set_partitions(key, "s", {0, 5}).code(), Code::kInvalidArgument);
  }
  // Room runs out: what is coldest goes first, which are these.
  for (uint64_t i = 0; ns->stats().demoted_bytes < kMaps * kPartitions * kPiece; ++i) {
    ASSERT_OK(put_waiting(*ns, "fill" + std::to_string(i), i, 1 * MiB));
    ASSERT_LT(i, 1000u);
  }
  size_t neighbours = 0;
  for (uint64_t r = 0; r < kPartitions; ++r) {
    uint64_t before = 0;
    for (uint64_t m = 0; m < kMaps; ++m) {
      auto view = ns->get("map" + std::to_string(m), r * kPiece, kPiece);
      ASSERT_OK(view);
      ASSERT_TRUE(view->in_files());
      ASSERT_EQ(view->spans.size(), 1u);
      if (before != 0 && view->places[0].offset > before && view->places[0].offset - before < 1 * KiB) ++neighbours;
      before = view->places[0].offset + kPiece;
    }
  }
  // All but those at the border of two files, of which there are few.
  EXPECT_GT(neighbours, kPartitions * (kMaps - 1) / 2);
  for (uint64_t m = 0; m < kMaps; ++m) {
    const std::string key = "map" + std::to_string(m);
    EXPECT_TRUE(read(store, *ns, key) == Content(key, m).bytes(kPartitions * kPiece));
  }
}

TEST_F(RelocateTest, AFullDiskStopsDemotionAndLosesNothing) {
  Store store(tiered(32 * MiB));
  ASSERT_OK(store.open());
  auto ns = make_namespace(store, "full");
  file_faults().write_error = ENOSPC;
  uint64_t count = 0;
  Status refused;
  while (refused.ok() && count < 1000) {
    auto done = put(*ns, "k" + std::to_string(count), count, 512 * KiB);
    if (done.ok()) ++count;
    else refused = done.status();
  }
  EXPECT_EQ(refused.code(), Code::kResourceExhausted);
  ASSERT_TRUE(comes_true([&] {
    refused = put(*ns, "more", 1, 512 * KiB).status();
    return refused.message().find("No space left on device") != std::string::npos;
  })) << refused.message();
  EXPECT_NE(refused.message().find("--dram"), std::string::npos);
  for (uint64_t k = 0; k < count; ++k) {
    const std::string key = "k" + std::to_string(k);
    EXPECT_TRUE(shows(ns->get(key), key, k, 512 * KiB));
  }
  file_faults().write_error = 0;
  EXPECT_OK(put_waiting(*ns, "more", 1, 512 * KiB));
  for (uint64_t k = 0; k < count; ++k) {
    const std::string key = "k" + std::to_string(k);
    EXPECT_TRUE(read(store, *ns, key) == Content(key, k).bytes(512 * KiB));
  }
}

TEST_F(RelocateTest, WhatIsReadAgainComesBackUp) {
  Store store(tiered(64 * MiB));
  ASSERT_OK(store.open());
  auto ns = make_namespace(store, "warm");
  ASSERT_OK(put(*ns, "wanted", 7, 100 * KiB));
  for (uint64_t i = 0; !ns->get("wanted")->in_files(); ++i) {
    ASSERT_OK(put_waiting(*ns, "fill" + std::to_string(i), i, 1 * MiB));
    ASSERT_LT(i, 1000u);
  }
  for (uint64_t i = 0; i < 1000; ++i) (void)ns->remove("fill" + std::to_string(i), {});
  ns->note_read("wanted");
  EXPECT_TRUE(comes_true([&] {
    ns->note_read("wanted");
    return ns->stats().promoted_bytes > 0;
  }));
  EXPECT_TRUE(shows(ns->get("wanted"), "wanted", 7, 100 * KiB));
}

TEST_F(RelocateTest, ADamagedObjectIsLeftWhereItIs) {
  Store store(tiered(64 * MiB));
  ASSERT_OK(store.open());
  auto ns = make_namespace(store, "damaged");
  ASSERT_OK(put(*ns, "bad", 1, 100 * KiB));
  ASSERT_OK(put(*ns, "good", 1, 100 * KiB));
  auto view = ns->get("bad");
  ASSERT_OK(view);
  const_cast<uint8_t*>(view->spans[0].data)[5000] ^= 1;
  view = Status(Code::kInternal, "let go");
  for (uint64_t i = 0; !ns->get("good")->in_files(); ++i) {
    ASSERT_OK(put_waiting(*ns, "fill" + std::to_string(i), i, 1 * MiB));
    ASSERT_LT(i, 1000u);
  }
  EXPECT_FALSE(ns->get("bad")->in_files());  // so that who reads it is told
  EXPECT_TRUE(read(store, *ns, "good") == Content("good", 1).bytes(100 * KiB));
}

TEST_F(RelocateTest, ADropWhileSegmentsMoveLeavesNoFile) {
  Store store(tiered(64 * MiB));
  ASSERT_OK(store.open());
  for (int round = 0; round < 5; ++round) {
    auto ns = make_namespace(store, "dropped");
    for (uint64_t i = 0; i < 70 + 10 * static_cast<uint64_t>(round); ++i) {
      ASSERT_OK(put_waiting(*ns, "k" + std::to_string(i), i, 1 * MiB));
    }
    ASSERT_OK(store.drop("dropped"));
    ns.reset();
    EXPECT_TRUE(comes_true([&] { return store.nvme_stats().used_bytes == 0; }));
  }
}

}  // namespace
}  // namespace millrace::test
