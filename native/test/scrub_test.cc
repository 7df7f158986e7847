// Damage in either tier is found, and named.
#include "store/scrub.h"

#include "store/segment.h"
#include "test/file_objects.h"
#include "test/file_support.h"
#include "test/store_support.h"

namespace millrace::test {
namespace {

class ScrubTest : public ::testing::Test {
 protected:
  ScrubTest() : store_(options()) {
    EXPECT_OK(store_.open());
    ns_ = make_namespace(store_, "scrub");
  }

  Store::Options options() {
    Store::Options options = store_options(64 * MiB);
    options.nvme.directories = {{directory_.path(), 1 * GiB}};
    options.nvme.node_id = "test";
    return options;
  }

  // All pages of `limit` objects, as one.
  ScrubPage scrub_all(uint32_t limit) {
    ScrubPage all;
    std::string after;
    for (bool more = true; more;) {
      auto page = scrub(*ns_, store_.reader(), after, limit, stop_);
      EXPECT_OK(page);
      if (!page.ok()) break;
      all.objects += page->objects;
      all.size_bytes += page->size_bytes;
      for (auto& damaged : page->damaged) all.damaged.push_back(std::move(damaged));
      after = page->last_key;
      more = page->more;
    }
    return all;
  }

  TemporaryDirectory directory_;
  std::atomic<bool> stop_{false};
  Store store_;
  std::shared_ptr<Namespace> ns_;
};

TEST_F(ScrubTest, WholeObjectsAreCountedAndNothingElse) {
  uint64_t size_bytes = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_OK(put(*ns_, "memory" + std::to_string(i), 1, i * 1000));
    size_bytes += i * 1000;
  }
  const auto large = Content("file", 1).bytes(3 * MiB + 17);
  ASSERT_OK(put_in_extents(*ns_, "file", span_of(large), {{1 * MiB}, {2 * MiB + 16}, {1}}));
  size_bytes += large.size();
  for (uint32_t limit : {1u, 7u, 1000u}) {
    const ScrubPage all = scrub_all(limit);
    EXPECT_EQ(all.objects, 101u);
    EXPECT_EQ(all.size_bytes, size_bytes);
    EXPECT_TRUE(all.damaged.empty());
  }
}

TEST_F(ScrubTest, AnEmptyNamespaceHasNothingToCheck) {
  const ScrubPage all = scrub_all(10);
  EXPECT_EQ(all.objects, 0u);
  EXPECT_TRUE(all.damaged.empty());
}

TEST_F(ScrubTest, DamageIsNamedWithItsSegment) {
  for (const char* key : {"a", "b", "c"}) ASSERT_OK(put(*ns_, key, 1, 100000));
  auto in_memory = ns_->get("b");
  ASSERT_OK(in_memory);
  const_cast<uint8_t*>(in_memory->spans[0].data)[777] ^= 1;

  const auto bytes = Content("file", 1).bytes(2 * MiB);
  ASSERT_OK(put_in_extents(*ns_, "file", span_of(bytes), {{1 * MiB}, {512 * KiB}, {512 * KiB}}));
  auto in_file = ns_->get("file");
  ASSERT_OK(in_file);
  ASSERT_EQ(in_file->places.size(), 3u);
  damage(in_file->places[1].file->path(), in_file->places[1].offset + 4711);

  // Half of it in memory, where extents have no checksum of their own.
  ASSERT_OK(put_in_extents(*ns_, "mixed", span_of(bytes), {{1 * MiB}, {1 * MiB, false}}));
  auto mixed = ns_->get("mixed");
  ASSERT_OK(mixed);
  const_cast<uint8_t*>(mixed->spans[1].data)[5] ^= 0x80;

  const ScrubPage all = scrub_all(2);
  ASSERT_EQ(all.damaged.size(), 4u);
  EXPECT_EQ(all.damaged[0].key, "b");
  EXPECT_EQ(all.damaged[0].segment, in_memory->segments[0]->number);
  EXPECT_EQ(all.damaged[1].key, "file");
  EXPECT_EQ(all.damaged[1].segment, in_file->places[1].segment);
  EXPECT_EQ(all.damaged[2].key, "mixed");
  EXPECT_EQ(all.damaged[2].segment, mixed->segments[1]->number);
  // The part of it that is an object of its own.
  EXPECT_EQ(all.damaged[3].key, "mixed/part1");
  for (const auto& damaged : all.damaged) {
    EXPECT_NE(damaged.message.find("'" + damaged.key + "'"), std::string::npos) << damaged.message;
    EXPECT_NE(damaged.message.find(std::to_string(damaged.segment)), std::string::npos) << damaged.message;
  }
  EXPECT_EQ(all.objects, 6u);
}

TEST_F(ScrubTest, StopsWhenAskedAndWhenTheNamespaceEnds) {
  ASSERT_OK(put(*ns_, "a", 1, 10));
  stop_ = true;
  EXPECT_EQ(scrub(*ns_, store_.reader(), "", 10, stop_).code(), Code::kAborted);
  stop_ = false;
  ASSERT_OK(store_.drop("scrub"));
  EXPECT_EQ(scrub(*ns_, store_.reader(), "", 10, stop_).code(), Code::kNamespaceGone);
}

}  // namespace
}  // namespace millrace::test
