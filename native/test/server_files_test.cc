// Reads through the daemon of objects that lie in files: over loopback TCP, over the Unix socket, and against the
// daemon's side of a connection by itself.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <map>
#include <thread>

#include "test/file_objects.h"
#include "test/file_support.h"
#include "test/server_support.h"
#include "test/store_support.h"
#include "transport/client.h"
#include "transport/connection.h"
#include "transport/server.h"

namespace millrace {
namespace {

using namespace test;
using wire::FrameHeader;
using wire::Opcode;

constexpr Token kToken{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

class ServerFilesTest : public ::testing::Test {
 protected:
  void start(uint64_t dram_bytes = 512 * MiB) {
    Store::Options options = store_options(dram_bytes);
    options.nvme.directories = {{directory_.path(), 4 * GiB}};
    options.nvme.node_id = "node-1";
    options.high_watermark = 1;  // nothing is to move but what the test moves: not down,
    options.low_watermark = 0;   // nor up
    store_ = std::make_unique<Store>(options);
    ASSERT_OK(store_->open());
    ns_ = make_namespace(*store_, "job", {.token = kToken});
    ServerOptions server;
    server.socket_path = directory_.path() + "/socket";
    server.data_host = "127.0.0.1";
    server.io_threads = 2;
    server.node_id = "node-1";
    server_ = std::make_unique<Server>(*store_, server);
    ASSERT_OK(server_->start());
  }

  void TearDown() override {
    if (server_) server_->stop();
    server_.reset();
    ns_.reset();
    store_.reset();
  }

  std::unique_ptr<Client> connect(bool shm = false) {
    ChannelOptions options = options_for(*server_, shm, "job", kToken);
    options.timeout_ms = 120'000;
    return test::connect(options);
  }

  // An object of a content of its own.
  std::vector<uint8_t> put(const std::string& key, const std::vector<ExtentShape>& shapes) {
    uint64_t bytes = 0;
    for (const ExtentShape& shape : shapes) bytes += shape.bytes;
    auto data = Content(key, 1).bytes(bytes);
    EXPECT_OK(put_in_extents(*ns_, key, span_of(data), shapes));
    return data;
  }
  std::string path_of(const std::string& key, size_t extent = 0) {
    auto view = ns_->get(key);
    EXPECT_OK(view);
    return view->places.at(extent).file->path();
  }
  uint64_t offset_of(const std::string& key, size_t extent = 0) { return ns_->get(key)->places.at(extent).offset; }
  std::string segment_of(const std::string& key, size_t extent = 0) {
    return "segment " + std::to_string(ns_->get(key)->places.at(extent).segment);
  }

  NoFaultsAfter no_faults_;
  TemporaryDirectory directory_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Namespace> ns_;
  std::unique_ptr<Server> server_;
};

bool same(const std::vector<ConstSpan>& spans, const uint8_t* expected, uint64_t bytes) {
  uint64_t at = 0;
  for (const ConstSpan& span : spans) {
    if (span.bytes > bytes - at || std::memcmp(span.data, expected + at, span.bytes) != 0) return false;
    at += span.bytes;
  }
  return at == bytes;
}

bool says(const Status& status, std::initializer_list<std::string> parts) {
  return std::all_of(parts.begin(), parts.end(), [&](const std::string& part) {
    return status.message().find(part) != std::string::npos;
  });
}

// A get as a request, whatever the transport would do by itself.
Status raw_get(Client& client, const std::string& key, uint64_t offset, uint64_t length, std::vector<uint8_t>* bytes) {
  wire::ObjectRequest body{offset, length};
  body.key_bytes = static_cast<uint16_t>(key.size());
  return client.channel()->call({Opcode::kGet, &body, sizeof(body), key}, [&](ChannelReply& reply) {
    bytes->assign(reply.payload.data, reply.payload.data + reply.payload.bytes);
  });
}

const std::vector<std::vector<ExtentShape>> kShapes = {
    {{1}},
    {{100}},
    {{4096}},
    {{64 * KiB + 1}},
    {{1 * MiB}},
    {{1 * MiB + 1}},
    {{5'000'001}},
    {{3 * MiB}, {1}, {2 * MiB + 77}},
    {{10, false}, {20}},
    {{70'000}, {3 * MiB + 5, false}, {1'000'000}, {100, false}},
};

TEST_F(ServerFilesTest, WholeObjectsAndRanges) {
  Random random(new_seed("ranges of objects in files"));
  start();
  std::map<std::string, std::vector<uint8_t>> objects;
  for (const auto& shapes : kShapes) {
    const std::string key = "object/" + std::to_string(objects.size());
    objects[key] = put(key, shapes);
  }
  for (bool shm : {false, true}) {
    auto client = connect(shm);
    std::vector<uint8_t> bytes;
    for (const auto& [key, data] : objects) {
      SCOPED_TRACE(key);
      ASSERT_OK(raw_get(*client, key, 0, 0, &bytes));
      EXPECT_TRUE(bytes == data);
      for (int i = 0; i < 8; ++i) {
        const uint64_t offset = random.below(data.size());
        const uint64_t length = random.between(1, data.size() - offset);
        ASSERT_OK(raw_get(*client, key, offset, length, &bytes));
        EXPECT_TRUE(same({span_of(bytes)}, data.data() + offset, length)) << offset << " " << length;
      }
      EXPECT_CODE(raw_get(*client, key, 1, data.size(), &bytes), Code::kOutOfRange);
      ASSERT_OK(raw_get(*client, key, data.size(), 0, &bytes));  // what is behind the last byte
      EXPECT_TRUE(bytes.empty());
      auto got = client->get(key, 0, 0);
      ASSERT_OK(got);
      EXPECT_EQ(got->info.crc32c, crc32c(0, data.data(), data.size()));
      EXPECT_TRUE(same(got->spans, data.data(), data.size()));
    }
  }
}

TEST_F(ServerFilesTest, ALargeObject) {
  start(kSanitized ? 768 * MiB : 1024 * MiB);
  const auto data = put("large", {{64 * MiB}, {100 * MiB}, {36 * MiB, false}, {100 * MiB + 3}});
  auto client = connect();
  auto got = client->get("large", 0, 0);
  ASSERT_OK(got);
  EXPECT_TRUE(same(got->spans, data.data(), data.size()));
  auto range = client->get("large", 60 * MiB + 1, 150 * MiB);
  ASSERT_OK(range);
  EXPECT_TRUE(same(range->spans, data.data() + 60 * MiB + 1, 150 * MiB));
}

TEST_F(ServerFilesTest, ManyGetsInFlight) {
  Random random(new_seed("pipelined gets"));
  start();
  std::vector<std::pair<std::string, std::vector<uint8_t>>> objects;
  for (const auto& shapes : kShapes) {
    const std::string key = "object/" + std::to_string(objects.size());
    objects.emplace_back(key, put(key, shapes));
  }
  for (uint64_t bytes : {1u, 3000u, 20'000u, 300'000u, 2'000'000u}) {
    const std::string key = "memory/" + std::to_string(bytes);
    auto data = Content(key, 1).bytes(bytes);
    ASSERT_OK(ns_->put(key, span_of(data), {}));
    objects.emplace_back(key, std::move(data));
  }
  auto client = connect();
  struct Check final : Channel::Sink {
    struct Asked {
      const std::vector<uint8_t>* data;
      uint64_t offset, length;
    };
    std::vector<Asked> asked;
    uint64_t replies = 0, wrong = 0;
    void on_reply(uint64_t tag, ChannelReply& reply) override {
      const Asked& of = asked[tag];
      ++replies;
      wrong += reply.code != Code::kOk || !same({reply.payload}, of.data->data() + of.offset, of.length);
    }
  } check;
  const size_t gets = kSanitized ? 300 : 1500;
  check.asked.reserve(gets);
  for (size_t i = 0; i < gets; ++i) {
    const auto& [key, data] = objects[random.below(objects.size())];
    const bool whole = random.chance(2);
    const uint64_t offset = whole ? 0 : random.below(data.size());
    const uint64_t length = whole ? data.size() : random.between(1, data.size() - offset);
    check.asked.push_back({&data, offset, length});
    wire::ObjectRequest body{offset, length};
    body.key_bytes = static_cast<uint16_t>(key.size());
    Channel::Request request{Opcode::kGet, &body, sizeof(body), key};
    request.sink = &check;
    request.tag = i;
    ASSERT_OK(client->channel()->submit(request));
  }
  client->channel()->flush();
  while (check.replies < gets && client->channel()->pump(100)) {
  }
  EXPECT_EQ(check.replies, gets);
  EXPECT_EQ(check.wrong, 0u);
}

TEST_F(ServerFilesTest, ConnectionsThatCloseWhileFilesAreRead) {
  Random random(new_seed("connections that close"));
  start();
  const auto data = put("large", {{20 * MiB}});
  const auto small = put("small", {{10'000}});
  for (int round = 0; round < 60; ++round) {
    auto client = connect(random.chance(2));
    struct Ignore final : Channel::Sink {
      void on_reply(uint64_t, ChannelReply&) override {}
    } ignore;
    for (const char* key : {"large", "small", "large"}) {
      wire::ObjectRequest body{};
      body.key_bytes = 5;
      Channel::Request request{Opcode::kGet, &body, sizeof(body), key};
      request.sink = &ignore;
      ASSERT_OK(client->channel()->submit(request));
    }
    client->channel()->flush();
    if (!client->channel()->has_thread() && random.chance(2)) client->channel()->pump(1);
    client->close();
  }
  // A server that stops, and a namespace that goes, under the same.
  auto client = connect();
  std::vector<uint8_t> bytes;
  ASSERT_OK(raw_get(*client, "small", 0, 0, &bytes));
  EXPECT_TRUE(bytes == small);
  std::vector<std::thread> readers;
  std::atomic<int> wrong{0}, read{0};
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(connect());
  for (auto& of : clients) {
    readers.emplace_back([&, reader = of.get()] {
      for (;;) {
        auto got = reader->get("large", 0, 0);
        if (!got.ok()) break;
        wrong += !same(got->spans, data.data(), data.size());
        ++read;
      }
    });
  }
  EXPECT_TRUE(eventually([&] { return read.load() > 3; }));
  ASSERT_OK(store_->drop("job"));
  server_->stop();
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST_F(ServerFilesTest, DamagedFilesAreNeverRead) {
  start();
  for (size_t i = 0; i < kShapes.size(); ++i) {
    for (int where = 0; where < 3; ++where) {
      const std::string key = "damaged/" + std::to_string(i) + "/" + std::to_string(where);
      put(key, kShapes[i]);
      const size_t extent = kShapes[i].front().in_file ? 0 : 1;
      const uint64_t bytes = kShapes[i][extent].bytes;
      damage(path_of(key, extent), offset_of(key, extent) + (where == 0 ? 0 : where == 1 ? bytes / 2 : bytes - 1));
      for (bool shm : {false, true}) {
        auto client = connect(shm);
        std::vector<uint8_t> got;
        const Status failed = raw_get(*client, key, 0, 0, &got);
        EXPECT_CODE(failed, Code::kCorrupt);
        EXPECT_TRUE(says(failed, {"'" + key + "'", segment_of(key, extent)})) << failed.message();
        EXPECT_TRUE(got.empty());
        // The connection is as good as before.
        const auto copied = client->copy(key, "copy", {});
        EXPECT_CODE(copied, Code::kCorrupt);
        EXPECT_TRUE(says(copied.status(), {"'" + key + "'", segment_of(key, extent)})) << copied.status().message();
        EXPECT_CODE(client->head("copy"), Code::kNotFound);
      }
      EXPECT_CODE(ns_->copy(key, *ns_, "copy", {}), Code::kCorrupt);
    }
  }
}

TEST_F(ServerFilesTest, FilesThatCannotBeRead) {
  start();
  const auto data = put("object", {{3 * MiB}, {2 * MiB}});
  const auto cut = put("cut", {{3 * MiB}});
  ASSERT_OK(ns_->put("memory", span_of(std::string_view("here")), {}));
  auto client = connect();
  std::vector<uint8_t> got;
  file_faults().read_error = EIO;
  const Status failed = raw_get(*client, "object", 0, 0, &got);
  EXPECT_CODE(failed, Code::kSystem);
  EXPECT_TRUE(says(failed, {"'object'", segment_of("object"), path_of("object")})) << failed.message();
  EXPECT_CODE(client->copy("object", "copy", {}), Code::kSystem);
  EXPECT_OK(raw_get(*client, "memory", 0, 0, &got));
  NoFaultsAfter::clear();
  ASSERT_OK(raw_get(*client, "object", 0, 0, &got));
  EXPECT_TRUE(got == data);
  file_faults().short_bytes = 64 * KiB;
  ASSERT_OK(raw_get(*client, "object", 0, 0, &got));
  EXPECT_TRUE(got == data);
  NoFaultsAfter::clear();
  ASSERT_EQ(truncate(path_of("cut").c_str(), static_cast<off_t>(1 * MiB)), 0);
  const Status shortened = raw_get(*client, "cut", 0, 0, &got);
  EXPECT_CODE(shortened, Code::kCorrupt);
  EXPECT_TRUE(says(shortened, {"'cut'", segment_of("cut")})) << shortened.message();
}

TEST_F(ServerFilesTest, DamageInMemoryIsNotSentEither) {
  start();
  for (uint64_t bytes : {100u, 16384u, 100'000u, 2'000'000u}) {
    const std::string key = "memory/" + std::to_string(bytes);
    const auto data = Content(key, 1).bytes(bytes);
    ASSERT_OK(ns_->put(key, span_of(data), {}));
    auto view = ns_->get(key);
    ASSERT_OK(view);
    const_cast<uint8_t*>(view->spans[0].data)[bytes / 2] ^= 1;
    auto client = connect();
    const auto got = client->get(key, 0, 0);
    const bool by_daemon = bytes <= Connection::kCopiedReplyBytesMax;
    EXPECT_CODE(got, by_daemon ? Code::kCorrupt : Code::kChecksumMismatch);
    EXPECT_TRUE(says(got.status(), {"'" + key + "'"})) << got.status().message();
    if (by_daemon) {
      EXPECT_TRUE(says(got.status(), {"segment "})) << got.status().message();
    }
    const auto copied = client->copy(key, "copy", {});
    EXPECT_CODE(copied, Code::kCorrupt);
    EXPECT_TRUE(says(copied.status(), {"'" + key + "'", "segment "})) << copied.status().message();
    EXPECT_CODE(ns_->copy(key, *ns_, "copy", {}), Code::kCorrupt);
  }
}

TEST_F(ServerFilesTest, Copies) {
  start();
  auto client = connect();
  std::vector<uint8_t> got;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    const std::string key = "object/" + std::to_string(i);
    const auto data = put(key, kShapes[i]);
    auto copied = client->copy(key, "copy", {});
    ASSERT_OK(copied);
    EXPECT_EQ(copied->size_bytes, data.size());
    EXPECT_EQ(copied->crc32c, crc32c(0, data.data(), data.size()));
    ASSERT_OK(raw_get(*client, "copy", 0, 0, &got));
    EXPECT_TRUE(got == data);
    EXPECT_CODE(client->copy(key, "copy", {.if_absent = true}), Code::kConditionFailed);
    ASSERT_OK(ns_->copy(key, *ns_, "second", {}));
    ASSERT_OK(raw_get(*client, "second", 0, 0, &got));
    EXPECT_TRUE(got == data);
  }
  EXPECT_CODE(client->copy("none", "copy", {}), Code::kNotFound);
}

TEST_F(ServerFilesTest, DescriptorsOfFilesAndNotedReads) {
  start();
  const auto data = put("object", {{100'000}});
  auto client = connect(true);
  const wire::SegmentMessage message{ns_->get("object")->places[0].segment, 0};
  std::vector<uint8_t> got(data.size());
  EXPECT_OK(client->channel()->call({Opcode::kOpenSegment, &message, sizeof(message)}, [&](ChannelReply& reply) {
    wire::OpenSegmentReply answer{};
    ASSERT_TRUE(reply.read(&answer));
    EXPECT_EQ(answer.tier, static_cast<uint32_t>(wire::Tier::kNvme));
    ASSERT_EQ(reply.descriptors.size(), 1u);
    auto file = std::make_shared<SegmentFile>(dup(reply.descriptors[0]), answer.segment_bytes);
    auto bytes = store_->reader().read_now(file, offset_of("object"), data.size());
    ASSERT_OK(bytes);
    got.assign(bytes->data, bytes->data + bytes->bytes);
    EXPECT_EQ(write(reply.descriptors[0], "x", 1), -1);
  }));
  EXPECT_TRUE(got == data);
  wire::ObjectRequest noted{};
  noted.key_bytes = 6;
  EXPECT_OK(client->channel()->submit({Opcode::kNoteRead, &noted, sizeof(noted), "object"}));
  EXPECT_OK(client->head("object"));
  noted.offset = 1;
  EXPECT_OK(client->channel()->submit({Opcode::kNoteRead, &noted, sizeof(noted), "object"}));
  EXPECT_CODE(client->head("object"), Code::kProtocol);
  auto remote = connect();
  noted.offset = 0;
  EXPECT_CODE(remote->channel()->call({Opcode::kNoteRead, &noted, sizeof(noted), "object"}), Code::kUnsupported);
}

// --- the daemon's side by itself: what it holds of a client that takes nothing

std::string request(Opcode opcode, uint64_t id, const void* body, size_t body_bytes, std::string_view key) {
  std::string all(static_cast<const char*>(body), body_bytes);
  all += key;
  FrameHeader header{};
  header.opcode = opcode;
  header.request_id = id;
  header.body_bytes = static_cast<uint32_t>(all.size());
  wire::seal_frame(header, all.data());
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + all;
}

TEST_F(ServerFilesTest, ReadsNoFurtherAheadThanTheClientTakes) {
  start();
  const auto data = put("large", {{40 * MiB}, {10 * MiB + 1}});
  const ServerFace face{"node-1", [] { return std::string(); }};
  Connection connection(Connection::Kind::kTcp, *store_, face);
  std::mutex mutex;
  std::condition_variable arrived;
  uint64_t arrivals = 0;
  connection.on_reads([&] {
    std::lock_guard lock(mutex);
    ++arrivals;
    arrived.notify_one();
  });
  wire::HelloRequest hello{};
  std::memcpy(hello.token, kToken.data(), sizeof(hello.token));
  hello.name_bytes = 3;
  std::string input = request(Opcode::kHello, 1, &hello, sizeof(hello), "job");
  wire::ObjectRequest get{};
  get.key_bytes = 5;
  constexpr uint64_t kGets = Connection::kTransfersMax + 20;
  for (uint64_t i = 0; i < kGets; ++i) input += request(Opcode::kGet, 10 + i, &get, sizeof(get), "large");
  auto feed = [&] {
    const size_t used = connection.consume(reinterpret_cast<const uint8_t*>(input.data()), input.size());
    input.erase(0, used);
  };
  feed();
  EXPECT_FALSE(connection.wants_input());
  EXPECT_FALSE(input.empty());
  // As much as may be read ahead comes, and no more.
  uint64_t seen = 0;
  while (connection.output().read_bytes() < limits::kReadAheadBytesMax) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(arrived.wait_for(lock, std::chrono::seconds(20), [&] { return arrivals != seen; }));
    seen = arrivals;
    lock.unlock();
    connection.take_reads();
  }
  EXPECT_LE(connection.output().read_bytes(), limits::kReadAheadBytesMax + limits::kFilePieceBytes);
  EXPECT_TRUE(connection.reading());
  // Taken piece by piece the rest follows, each reply in order.
  std::map<uint64_t, uint64_t> filled;
  uint64_t done = 0, wrong = 0;
  std::string stream;
  while (done < (kSanitized ? 5u : kGets)) {
    if (connection.output().empty()) {
      std::unique_lock lock(mutex);
      ASSERT_TRUE(arrived.wait_for(lock, std::chrono::seconds(20), [&] { return arrivals != seen; }));
      seen = arrivals;
      lock.unlock();
      connection.take_reads();
      continue;
    }
    iovec vectors[4];
    const std::vector<PassedDescriptor>* descriptors = nullptr;
    const size_t count = connection.output().front(vectors, 4, &descriptors);
    size_t sent = 0;
    for (size_t i = 0; i < count; ++i) {
      stream.append(static_cast<const char*>(vectors[i].iov_base), vectors[i].iov_len);
      sent += vectors[i].iov_len;
    }
    connection.output().sent(sent);
    connection.take_reads();
    EXPECT_LE(connection.output().read_bytes(), limits::kReadAheadBytesMax + limits::kFilePieceBytes);
    if (!input.empty() && connection.wants_input()) feed();
    size_t at = 0;
    for (FrameHeader header; stream.size() - at >= sizeof(header);) {
      std::memcpy(&header, stream.data() + at, sizeof(header));
      const size_t bytes = sizeof(header) + header.body_bytes + header.payload_bytes;
      if (stream.size() - at < bytes) break;
      ASSERT_OK(wire::check_header(header, true));
      ASSERT_EQ(header.status, 0);
      if (header.opcode == Opcode::kGet) {
        uint64_t& of = filled[header.request_id];
        const auto* payload = reinterpret_cast<const uint8_t*>(stream.data()) + at + sizeof(header) + header.body_bytes;
        wrong += !same({{payload, header.payload_bytes}}, data.data() + of, header.payload_bytes);
        of += header.payload_bytes;
        const bool more = (header.flags & wire::kFlagMore) != 0;
        wrong += more == (of == data.size());
        done += !more;
      }
      at += bytes;
    }
    stream.erase(0, at);
  }
  EXPECT_EQ(wrong, 0u);
}

// --- the client's side by itself: a server that sends pieces as it should not

class PiecesServer {
 public:
  PiecesServer() {
    listener_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    socklen_t bytes = sizeof(address);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &bytes);
    port_ = ntohs(address.sin_port);
    listen(listener_, 1);
  }
  ~PiecesServer() {
    if (thread_.joinable()) thread_.join();
    close(listener_);
  }
  struct Piece {
    std::vector<uint8_t> bytes;
    bool more;
    uint64_t total;
    bool damaged = false;
    Code code = Code::kOk;
  };
  // Answers the hello, then the first request with these pieces and every other one with a head's reply.
  void serve(std::vector<Piece> pieces, uint32_t object_crc) {
    thread_ = std::thread([this, pieces = std::move(pieces), object_crc] {
      const int fd = accept(listener_, nullptr, nullptr);
      FrameHeader header;
      bool first = true;
      while (read_all(fd, &header, sizeof(header))) {
        std::vector<uint8_t> body(header.body_bytes);
        if (!read_all(fd, body.data(), body.size())) break;
        if (header.opcode == Opcode::kHello) {
          const wire::HelloReply hello{0, 0, wire::kProtocolVersion, 0, 0};
          reply(fd, header, &hello, sizeof(hello), {}, 0);
        } else if (header.opcode == Opcode::kGet && std::exchange(first, false)) {
          for (const Piece& piece : pieces) {
            const wire::PiecedReply pieced{{piece.total, 1, object_crc, 1}, piece.total};
            if (piece.code != Code::kOk) reply(fd, header, "why", 3, {}, 0, piece.code);
            else reply(fd, header, &pieced, sizeof(pieced), piece.bytes, piece.more ? wire::kFlagMore : 0, Code::kOk, piece.damaged);
          }
        } else {
          const wire::ObjectReply answer{1, 1, 1, 1};
          reply(fd, header, &answer, sizeof(answer), {}, 0);
        }
      }
      close(fd);
    });
  }
  uint16_t port() const { return port_; }

 private:
  static bool read_all(int fd, void* to, size_t bytes) {
    return bytes == 0 || recv(fd, to, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes);
  }
  static void reply(int fd, const FrameHeader& to, const void* body, size_t body_bytes, const std::vector<uint8_t>& payload,
                    uint16_t flags, Code code = Code::kOk, bool damaged = false) {
    FrameHeader header{};
    header.opcode = to.opcode;
    header.request_id = to.request_id;
    header.flags = wire::kFlagReply | flags;
    header.status = static_cast<uint16_t>(code);
    if (!payload.empty()) {
      header.flags |= wire::kFlagPayloadCrc;
      header.payload_crc = crc32c(0, payload.data(), payload.size()) ^ (damaged ? 1 : 0);
    }
    header.payload_bytes = payload.size();
    header.body_bytes = static_cast<uint32_t>(body_bytes);
    wire::seal_frame(header, body);
    std::string all(reinterpret_cast<const char*>(&header), sizeof(header));
    all.append(static_cast<const char*>(body), body_bytes);
    all.append(payload.begin(), payload.end());
    for (size_t at = 0; at < all.size();) {
      const ssize_t sent = send(fd, all.data() + at, all.size() - at, MSG_NOSIGNAL);
      if (sent <= 0) return;
      at += static_cast<size_t>(sent);
    }
  }

  int listener_;
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST(PiecedReplies, AreTakenAsTheyShouldBeAndRefusedOtherwise) {
  const auto data = Content("pieces", 1).bytes(400'000);
  const auto part = [&](size_t from, size_t to) { return std::vector<uint8_t>(data.begin() + from, data.begin() + to); };
  const uint32_t crc = crc32c(0, data.data(), data.size());
  struct Case {
    const char* what;
    std::vector<PiecesServer::Piece> pieces;
    Code code;
    bool lives;
    uint32_t crc;
  };
  const std::vector<Case> cases = {
      {"right", {{part(0, 100), true, 400'000}, {part(100, 300'000), true, 400'000}, {part(300'000, 400'000), false, 400'000}}, Code::kOk, true, crc},
      {"object", {{part(0, 100), true, 400'000}, {part(100, 400'000), false, 400'000}}, Code::kChecksumMismatch, true, crc ^ 4},
      {"damaged", {{part(0, 100'000), true, 400'000, true}, {part(100'000, 400'000), false, 400'000}}, Code::kChecksumMismatch, true, crc},
      {"damaged last", {{part(0, 100'000), true, 400'000}, {part(100'000, 400'000), false, 400'000, true}}, Code::kChecksumMismatch, true, crc},
      {"failed", {{part(0, 100'000), true, 400'000}, {{}, false, 0, false, Code::kCorrupt}}, Code::kCorrupt, true, crc},
      {"too much", {{part(0, 100'000), true, 150'000}, {part(100'000, 200'000), false, 150'000}}, Code::kProtocol, false, crc},
      {"too much at once", {{part(0, 100'000), true, 50'000}}, Code::kProtocol, false, crc},
      {"too little", {{part(0, 100'000), true, 400'000}, {part(100'000, 200'000), false, 400'000}}, Code::kProtocol, false, crc},
      {"full and more", {{part(0, 100'000), true, 100'000}}, Code::kProtocol, false, crc},
      {"nothing", {{{}, true, 100'000}}, Code::kProtocol, false, crc},
      {"no memory has it", {{part(0, 100'000), true, ~uint64_t{0}}}, Code::kProtocol, false, crc},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    PiecesServer server;
    server.serve(one.pieces, one.crc);
    ChannelOptions options;
    options.host = "127.0.0.1";
    options.port = server.port();
    options.namespace_name = "job";
    auto client = Client::connect(options);
    ASSERT_OK(client);
    auto got = (*client)->get("key", 0, 0);
    EXPECT_CODE(got, one.code);
    if (got.ok()) {
      EXPECT_TRUE(same(got->spans, data.data(), data.size()));
    }
    EXPECT_EQ((*client)->head("key").ok(), one.lives);
    (*client)->close();
    client->reset();
  }
}

}  // namespace
}  // namespace millrace
