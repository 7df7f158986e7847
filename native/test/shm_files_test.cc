// Reads of demoted objects by a same-host client: from files made by hand, and after a real demotion.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <future>
#include <map>

#include "test/file_support.h"
#include "test/server_support.h"
#include "test/store_support.h"
#include "test/test_support.h"
#include "transport/server.h"
#include "transport/shm/file_reads.h"
#include "transport/shm/shm_client.h"

namespace millrace {
namespace {

using namespace test;

using Bytes = std::vector<uint8_t>;

// --- FileReads

class FileReadsTest : public ::testing::Test {
 protected:
  void TearDown() override { NoFaultsAfter::clear(); }

  std::shared_ptr<SegmentFile> make_file(const Bytes& bytes) {
    const std::string path = folder_.path() + "/" + std::to_string(files_++);
    const uint64_t padded = align_up(bytes.size(), 4096);
    Bytes all = bytes;
    all.resize(padded);
    const int fd = open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    EXPECT_GE(fd, 0);
    EXPECT_EQ(pwrite(fd, all.data(), all.size(), 0), static_cast<ssize_t>(all.size()));
    return std::make_shared<SegmentFile>(fd, padded, path);
  }

  // Objects cut into extents that lie in files, with gaps between, and some in memory.
  struct Made {
    std::vector<std::shared_ptr<HeldObject>> objects;
    std::vector<Bytes> contents;
  };
  Made make_objects(Random& random, size_t count, uint64_t bytes_max, bool some_in_memory) {
    struct Planned {
      uint64_t offset, bytes;
      size_t file;
    };
    std::vector<Bytes> files(3, Bytes(4096));
    std::vector<std::vector<Planned>> plans(count);
    Made made;
    for (size_t i = 0; i < count; ++i) made.contents.push_back(Content("object", i).bytes(1 + random.below(bytes_max)));
    // A piece of each in turn, so that neighbours in a file are of different objects.
    std::vector<uint64_t> placed(count, 0);
    for (bool any = true; any;) {
      any = false;
      for (size_t i = 0; i < count; ++i) {
        const Bytes& content = made.contents[i];
        if (placed[i] == content.size()) continue;
        any = true;
        const uint64_t bytes = 1 + random.below(std::min<uint64_t>(content.size() - placed[i], 300 * KiB));
        const size_t file = random.below(files.size());
        Bytes& to = files[file];
        to.resize(align_up(to.size() + (random.chance(5) ? 100 * KiB : random.below(200)), 16));
        plans[i].push_back({to.size(), bytes, file});
        to.insert(to.end(), content.begin() + placed[i], content.begin() + placed[i] + bytes);
        placed[i] += bytes;
      }
    }
    std::vector<std::shared_ptr<SegmentFile>> on_disk;
    std::vector<std::shared_ptr<Mapping>> in_memory;
    for (const Bytes& file : files) {
      on_disk.push_back(make_file(file));
      auto mapping = Mapping::map(on_disk.back()->fd(), on_disk.back()->bytes(), Mapping::Access::kRead, false);
      EXPECT_OK(mapping);
      in_memory.push_back(*mapping);
    }
    for (size_t i = 0; i < count; ++i) {
      std::vector<HeldObject::Extent> extents;
      uint64_t begin = 0;
      for (const Planned& plan : plans[i]) {
        const bool memory = some_in_memory && random.chance(4);
        extents.push_back({static_cast<uint32_t>(plan.file + 7), memory ? nullptr : on_disk[plan.file],
                           memory ? in_memory[plan.file] : nullptr, plan.offset, plan.bytes,
                           crc32c(0, made.contents[i].data() + begin, plan.bytes), begin});
        begin += plan.bytes;
      }
      const ObjectInfo info{begin, 1, crc32c(0, made.contents[i].data(), begin), 0};
      made.objects.push_back(std::make_shared<HeldObject>("object-" + std::to_string(i), info, std::move(extents)));
    }
    return made;
  }

  static Result<FileBytes> read(FileReads& reads, const std::shared_ptr<HeldObject>& object, uint64_t offset,
                                uint64_t bytes, FileReads::Check check = FileReads::Check::kWholeExtents) {
    std::promise<Result<FileBytes>> promise;
    reads.add(object, offset, bytes, check, [&](Result<FileBytes> result) { promise.set_value(std::move(result)); });
    reads.start();
    return promise.get_future().get();
  }

  // An object of one extent of these bytes, of which `damaged_at` is another byte than it was.
  std::shared_ptr<HeldObject> damaged_object(Bytes content, size_t damaged_at) {
    const uint32_t crc = crc32c(0, content.data(), content.size());
    const uint64_t size = content.size();
    content[damaged_at] ^= 0x10;
    content.insert(content.begin(), 4096 + 48, 0);
    HeldObject::Extent extent{9, make_file(content), nullptr, 4096 + 48, size, crc, 0};
    return std::make_shared<HeldObject>("wounded", ObjectInfo{size, 1, crc, 0}, std::vector{extent});
  }

  TemporaryDirectory folder_;
  int files_ = 0;
};

TEST_F(FileReadsTest, RangesOfManyObjectsAtOnce) {
  Random random(new_seed("ranges of objects in files"));
  const Made made = make_objects(random, 40, 3 * MiB, true);
  FileReads reads;
  for (int round = 0; round < (kSanitized ? 2 : 6); ++round) {
    struct Asked {
      size_t object;
      uint64_t offset, bytes;
      std::promise<Result<FileBytes>> promise;
    };
    std::vector<std::unique_ptr<Asked>> asked;
    for (int i = 0; i < 100; ++i) {
      auto one = std::make_unique<Asked>();
      one->object = random.below(made.objects.size());
      const uint64_t size = made.contents[one->object].size();
      one->offset = random.below(size + 1);
      one->bytes = random.chance(4) ? size - one->offset : random.below(size - one->offset + 1);
      const auto check = std::array{FileReads::Check::kNo, FileReads::Check::kWholeExtents, FileReads::Check::kWiden}[random.below(3)];
      reads.add(made.objects[one->object], one->offset, one->bytes, check,
                [raw = one.get()](Result<FileBytes> result) { raw->promise.set_value(std::move(result)); });
      if (random.chance(10)) reads.start();
      asked.push_back(std::move(one));
    }
    reads.start();
    for (auto& one : asked) {
      auto result = one->promise.get_future().get();
      ASSERT_OK(result);
      ASSERT_EQ(result->bytes, one->bytes);
      EXPECT_TRUE(one->bytes == 0 ||
                  std::memcmp(result->data, made.contents[one->object].data() + one->offset, one->bytes) == 0);
    }
  }
}

TEST_F(FileReadsTest, ShortReadsOfTheKernelChangeNothing) {
  NoFaultsAfter clear;
  file_faults().short_bytes = 8192;
  Random random(new_seed("short reads"));
  const Made made = make_objects(random, 5, 1 * MiB, false);
  FileReads reads;
  for (size_t i = 0; i < made.objects.size(); ++i) {
    auto result = read(reads, made.objects[i], 0, made.contents[i].size());
    ASSERT_OK(result);
    EXPECT_EQ(std::memcmp(result->data, made.contents[i].data(), made.contents[i].size()), 0);
  }
}

TEST_F(FileReadsTest, DamageIsFoundInWhatIsReadWhole) {
  const Bytes content = Content("wounded", 1).bytes(5 * MiB + 3);
  const auto object = damaged_object(content, 3 * MiB);
  FileReads reads;
  auto whole = read(reads, object, 0, content.size());
  EXPECT_EQ(whole.code(), Code::kCorrupt);
  EXPECT_EQ(whole.status().message(), "the object 'wounded' is damaged in segment 9");
  EXPECT_OK(read(reads, object, 0, content.size(), FileReads::Check::kNo));
  EXPECT_OK(read(reads, object, 100, 1000));
  EXPECT_EQ(read(reads, object, 100, 1000, FileReads::Check::kWiden).code(), Code::kCorrupt);
}

TEST_F(FileReadsTest, DamageIsFoundByWhoReadsPieceByPiece) {
  const Bytes content = Content("wounded", 1).bytes(3 * MiB);
  const auto object = damaged_object(content, 10);
  FileReads reads;
  EXPECT_OK(read(reads, object, 0, 1 * MiB));
  EXPECT_OK(read(reads, object, 2 * MiB, 1 * MiB));  // out of order
  EXPECT_EQ(read(reads, object, 1 * MiB, 1 * MiB).code(), Code::kCorrupt);
}

TEST_F(FileReadsTest, AnErrorOfTheDeviceNamesObjectAndSegment) {
  NoFaultsAfter clear;
  Random random(new_seed("read errors"));
  const Made made = make_objects(random, 3, 2 * MiB, false);
  FileReads reads;
  file_faults().read_error = EIO;
  for (size_t i = 0; i < made.objects.size(); ++i) {
    auto result = read(reads, made.objects[i], 0, made.contents[i].size());
    EXPECT_EQ(result.code(), Code::kSystem);
    EXPECT_NE(result.status().message().find("the object 'object-" + std::to_string(i) + "' cannot be read from segment "),
              std::string::npos)
        << result.status().message();
  }
  file_faults().read_error = 0;
  EXPECT_OK(read(reads, made.objects[0], 0, made.contents[0].size()));
}

TEST_F(FileReadsTest, AFileThatBecameShorterIsDamage) {
  const Bytes content = Content("short", 1).bytes(1 * MiB);
  const auto object = damaged_object(content, 0);
  ASSERT_EQ(ftruncate(object->extents[0].file->fd(), 64 * KiB), 0);
  FileReads reads;
  auto result = read(reads, object, 0, content.size());
  EXPECT_EQ(result.code(), Code::kCorrupt);
  EXPECT_NE(result.status().message().find("the object 'wounded' is damaged in segment 9"), std::string::npos);
}

TEST_F(FileReadsTest, EveryReadHearsOfTheEnd) {
  Random random(new_seed("reads that are cut off"));
  const Made made = make_objects(random, 60, 2 * MiB, true);
  std::atomic<int> read{0}, closed{0};
  {
    FileReads reads;
    for (size_t i = 0; i < made.objects.size(); ++i) {
      reads.add(made.objects[i], 0, made.contents[i].size(), FileReads::Check::kWholeExtents, [&](Result<FileBytes> result) {
        if (result.ok()) ++read;
        else if (result.code() == Code::kClosed) ++closed;
      });
      if (i == 50) reads.start();
    }
  }
  EXPECT_EQ(read + closed, 60);
  EXPECT_GE(closed, 9);
}

// --- ShmClient

constexpr Token kToken{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

class ShmTiersTest : public ::testing::Test {
 protected:
  void start(uint64_t dram_bytes, uint64_t nvme_bytes) {
    Store::Options options = store_options(dram_bytes);
    options.nvme.directories.push_back({folder_.path(), nvme_bytes});
    options.nvme.node_id = "node-1";
    store_ = std::make_unique<Store>(options);
    ASSERT_OK(store_->open());
    ns_ = make_namespace(*store_, "job", {.token = kToken});
    ServerOptions server_options;
    server_options.socket_path = folder_.path() + "/socket";
    server_options.io_threads = 2;
    server_options.node_id = "node-1";
    server_ = std::make_unique<Server>(*store_, server_options);
    ASSERT_OK(server_->start());
  }

  void TearDown() override {
    NoFaultsAfter::clear();
    if (server_) server_->stop();
    server_.reset();
    ns_.reset();
    store_.reset();
  }

  std::unique_ptr<ShmClient> connect() {
    return std::unique_ptr<ShmClient>(
        static_cast<ShmClient*>(test::connect(options_for(*server_, true, "job", kToken)).release()));
  }

  static Bytes join(const ClientObject& object) {
    Bytes bytes;
    for (const ConstSpan& span : object.spans) bytes.insert(bytes.end(), span.data, span.data + span.bytes);
    return bytes;
  }

  // Whether all of it lies in files.
  static bool demoted(ShmClient& client, const std::string& key) {
    std::vector<ShmClient::Extent> extents;
    ObjectInfo info;
    EXPECT_OK(client.locate_extents(key, &extents, &info));
    return std::all_of(extents.begin(), extents.end(), [](const auto& extent) { return extent.segment->file != nullptr; });
  }

  // Fills memory until the object under `key` was demoted.
  void push_out(ShmClient& client, const std::string& key) {
    for (int i = 0; i < 2000 && !demoted(client, key); ++i) {
      const auto filler = Content("filler", i).bytes(200 * KiB);
      ASSERT_OK(client.put("filler-" + std::to_string(i % kFillers), span_of(filler), {}));
    }
    ASSERT_TRUE(demoted(client, key)) << ns_->stats().nvme_bytes << " bytes are in files";
  }
  static constexpr int kFillers = 500;

  TemporaryDirectory folder_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Namespace> ns_;
  std::unique_ptr<Server> server_;
};

TEST_F(ShmTiersTest, ReadsWhatItPutFarBeyondMemory) {
  start(64 * MiB, 1 * GiB);
  Random random(new_seed("objects over two tiers"));
  auto client = connect();
  std::map<std::string, uint64_t> sizes;
  uint64_t total = 0;
  for (int i = 0; total < (kSanitized ? 120 : 300) * MiB; ++i) {
    const std::string key = "object-" + std::to_string(i);
    const uint64_t size = random.chance(20) ? random.below(5 * MiB) : random.size(512 * KiB);
    ASSERT_OK(client->put(key, span_of(Content(key, 1).bytes(size)), {}));
    sizes[key] = size;
    total += size;
  }
  EXPECT_GT(ns_->stats().nvme_bytes, 0u);
  auto other = connect();
  for (const auto& [key, size] : sizes) {
    for (ShmClient* reader : {client.get(), other.get()}) {
      auto got = reader->get(key, 0, 0);
      ASSERT_OK(got) << key;
      ASSERT_EQ(got->info.size_bytes, size);
      const Bytes bytes = join(*got);
      ASSERT_EQ(bytes.size(), size);
      ASSERT_TRUE(Content(key, 1).matches(bytes.data(), bytes.size(), 0)) << key;
      if (size < 2) continue;
      const uint64_t offset = random.below(size - 1);
      const uint64_t length = 1 + random.below(size - offset);
      auto part = reader->get(key, offset, length);
      ASSERT_OK(part) << key;
      const Bytes some = join(*part);
      ASSERT_TRUE(some.size() == length && Content(key, 1).matches(some.data(), length, offset)) << key;
    }
  }
}

TEST_F(ShmTiersTest, WhatIsHeldOutlivesItsObject) {
  start(32 * MiB, 512 * MiB);
  auto client = connect();
  const auto content = Content("old", 1).bytes(3 * MiB);
  ASSERT_OK(client->put("old", span_of(content), {}));
  push_out(*client, "old");
  std::vector<ShmClient::Extent> extents;
  ObjectInfo info;
  ASSERT_OK(client->locate_extents("old", &extents, &info));
  const uint32_t number = extents[0].segment->number;
  auto held = client->hold("old", info, extents);
  std::vector<std::string> keys{"old"};
  for (int i = 0; i < kFillers; ++i) keys.push_back("filler-" + std::to_string(i));
  for (const std::string& key : keys) ASSERT_OK(client->remove(key, {}));
  while (client->mapped(number) != nullptr) {
    client->wait_mail(10);
    client->take_mail();
  }
  std::promise<Result<FileBytes>> promise;
  client->read(held, 0, content.size(), ShmClient::Verify::kOnce,
               [&](Result<FileBytes> result) { promise.set_value(std::move(result)); });
  client->start_reads();
  auto result = promise.get_future().get();
  ASSERT_OK(result);
  EXPECT_EQ(std::memcmp(result->data, content.data(), content.size()), 0);
  // Let go of by all, its file goes.
  held.reset();
  while (store_->nvme_stats().used_bytes > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

TEST_F(ShmTiersTest, DamageInAFileIsFound) {
  start(32 * MiB, 512 * MiB);
  auto client = connect();
  const auto content = Content("wounded", 1).bytes(2 * MiB);
  ASSERT_OK(client->put("wounded", span_of(content), {}));
  push_out(*client, "wounded");
  std::vector<ShmClient::Extent> extents;
  ObjectInfo info;
  ASSERT_OK(client->locate_extents("wounded", &extents, &info));
  const auto& file = extents[0].segment->file;
  const std::string path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(file->fd()));
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  uint8_t byte;
  const auto at = static_cast<off_t>(extents[0].offset + 12345);
  ASSERT_EQ(pread(fd, &byte, 1, at), 1);
  byte ^= 1;
  ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
  ASSERT_EQ(fsync(fd), 0);
  close(fd);
  auto got = client->get("wounded", 0, 0);
  EXPECT_EQ(got.code(), Code::kCorrupt);
  EXPECT_EQ(got.status().message(),
            "the object 'wounded' is damaged in segment " + std::to_string(extents[0].segment->number));
}

TEST_F(ShmTiersTest, AnErrorOfTheDeviceIsNotTheEnd) {
  start(32 * MiB, 512 * MiB);
  auto client = connect();
  const auto content = Content("there", 1).bytes(2 * MiB);
  ASSERT_OK(client->put("there", span_of(content), {}));
  push_out(*client, "there");
  {
    NoFaultsAfter clear;
    file_faults().read_error = EIO;
    auto got = client->get("there", 0, 0);
    EXPECT_EQ(got.code(), Code::kSystem);
    EXPECT_NE(got.status().message().find("'there' cannot be read from segment "), std::string::npos);
  }
  EXPECT_OK(client->get("there", 0, 0));
}

TEST_F(ShmTiersTest, MemoryIsVerifiedOnTheFirstRead) {
  start(64 * MiB, 64 * MiB);
  auto writer = connect();
  auto reader = connect();
  const auto place = [&](const std::string& key, uint64_t bytes) {
    ShmClient::Allocation where;
    uint64_t position;
    const auto content = Content(key, 1).bytes(bytes);
    while (writer->try_put(key, content.data(), content.size(), &position, &where) != ShmClient::Push::kPushed) {
      writer->wait_mail(10);
    }
    EXPECT_OK(writer->wait_acked(position));
    return where;
  };
  const auto small = place("small", 200);
  const auto large = place("large", 100'000);
  const auto fresh = place("fresh", 100'000);
  for (const char* key : {"small", "large"}) EXPECT_OK(reader->get(key, 10, 20));
  for (const auto* where : {&small, &large, &fresh}) where->payload()[where->capacity_bytes / 2] ^= 0x80;

  ShmClient::Located found;
  const auto code = [&](const char* key, ShmClient::Verify verify) { return reader->locate(key, &found, verify); };
  EXPECT_EQ(code("small", ShmClient::Verify::kOnce), Code::kCorrupt);
  EXPECT_EQ(code("small", ShmClient::Verify::kNever), Code::kOk);
  EXPECT_EQ(code("large", ShmClient::Verify::kOnce), Code::kOk);  // was found whole before
  EXPECT_EQ(code("large", ShmClient::Verify::kAlways), Code::kCorrupt);
  EXPECT_EQ(code("fresh", ShmClient::Verify::kNever), Code::kOk);
  EXPECT_EQ(code("fresh", ShmClient::Verify::kOnce), Code::kCorrupt);
  const auto damage = "the object 'fresh' is damaged in segment " + std::to_string(fresh.grant->number);
  EXPECT_EQ(reader->failure().message(), damage);
  auto part = reader->get("fresh", 5, 10);
  EXPECT_EQ(part.code(), Code::kCorrupt);
  EXPECT_EQ(part.status().message(), damage);
}

TEST_F(ShmTiersTest, AnEntryHeaderIsVerifiedToo) {
  start(64 * MiB, 64 * MiB);
  auto writer = connect();
  auto reader = connect();
  ShmClient::Allocation where;
  uint64_t position;
  const auto content = Content("object", 1).bytes(10'000);
  while (writer->try_put("object", content.data(), content.size(), &position, &where) != ShmClient::Push::kPushed) {
    writer->wait_mail(10);
  }
  ASSERT_OK(writer->wait_acked(position));
  // Another checksum with the bytes to go with it: only the header's own tells.
  auto* header = reinterpret_cast<EntryHeader*>(where.grant->data + where.entry_offset);
  where.payload()[7] ^= 1;
  header->payload_crc = crc32c(0, where.payload(), content.size());
  auto got = reader->get("object", 0, 0);
  EXPECT_EQ(got.code(), Code::kCorrupt);
  EXPECT_NE(got.status().message().find("the object 'object' is damaged in segment "), std::string::npos);
}

}  // namespace
}  // namespace millrace
