// A real server, a real store and real clients in one process, over a temporary Unix socket and loopback TCP.
#include "transport/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "test/server_support.h"
#include "transport/client.h"
#include "transport/shm/shm_client.h"
#include "transport/wire.h"

namespace millrace {
namespace {

using wire::FrameHeader;
using wire::Opcode;

ConstSpan span_of(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

std::string text_of(const ClientObject& object) {
  std::string text;
  for (const ConstSpan& span : object.spans) text.append(reinterpret_cast<const char*>(span.data), span.bytes);
  return text;
}

std::string random_bytes(uint64_t seed, size_t bytes) {
  std::mt19937_64 random(seed);
  std::string text(bytes, 0);
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    const uint64_t word = random();
    std::memcpy(text.data() + i, &word, 8);
  }
  for (size_t i = bytes & ~size_t{7}; i < bytes; ++i) text[i] = static_cast<char>(random());
  return text;
}

constexpr Token kToken{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

class ServerTest : public ::testing::Test {
 protected:
  static Store::Options store_options(uint64_t dram_bytes) {
    Store::Options options;
    options.dram.limit_bytes = dram_bytes;
    options.dram.huge_pages = HugePages::kOff;
    return options;
  }

  void start(uint64_t dram_bytes = 512 * MiB, unsigned io_threads = 2) {
    char folder[] = "/tmp/millrace-test-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    store_ = std::make_unique<Store>(store_options(dram_bytes));
    auto ns = store_->create("job", {.token = kToken});
    ASSERT_TRUE(ns.ok()) << ns.status().message();
    ns_ = *ns;
    ServerOptions options;
    options.socket_path = folder_ + "/socket";
    options.data_host = "127.0.0.1";
    options.io_threads = io_threads;
    options.node_id = "node-1";
    server_ = std::make_unique<Server>(*store_, options);
    const Status started = server_->start();
    ASSERT_TRUE(started.ok()) << started.message();
    server_->set_grpc_address("127.0.0.1:7");
  }

  void TearDown() override {
    if (server_) server_->stop();
    server_.reset();
    ns_.reset();
    store_.reset();
    if (!folder_.empty()) rmdir(folder_.c_str());
  }

  ChannelOptions options_for(bool shm) const {
    ChannelOptions options = test::options_for(*server_, shm, "job", kToken);
    options.timeout_ms = 10000;
    return options;
  }

  std::unique_ptr<Client> connect(bool shm) {
    auto client = Client::connect(options_for(shm));
    EXPECT_TRUE(client.ok()) << client.status().message();
    return client.ok() ? std::move(*client) : nullptr;
  }
  std::unique_ptr<ShmClient> connect_shm() {
    return std::unique_ptr<ShmClient>(static_cast<ShmClient*>(connect(true).release()));
  }

  std::string folder_;
  std::unique_ptr<Store> store_;
  std::shared_ptr<Namespace> ns_;
  std::unique_ptr<Server> server_;
};

class BothTransports : public ServerTest, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(Transports, BothTransports, ::testing::Values(true, false),
                         [](const auto& which) { return which.param ? "shm" : "tcp"; });

TEST_P(BothTransports, GreetsAndRoundTripsEverySize) {
  start();
  auto client = connect(GetParam());
  EXPECT_EQ(client->greeting().node_id, "node-1");
  EXPECT_EQ(client->greeting().grpc_address, "127.0.0.1:7");
  auto other = connect(!GetParam());
  uint64_t last_sequence = 0;
  for (size_t bytes : {0ul, 1ul, 15ul, 100ul, 4095ul, 4096ul, 65535ul, 65536ul, 65537ul, 1000000ul, 9000000ul, 70000000ul}) {
    const std::string key = "object/" + std::to_string(bytes);
    const std::string data = random_bytes(bytes, bytes);
    auto info = client->put(key, span_of(data), {});
    ASSERT_TRUE(info.ok()) << bytes << ": " << info.status().message();
    EXPECT_EQ(info->size_bytes, bytes);
    EXPECT_EQ(info->crc32c, crc32c(0, data.data(), data.size()));
    EXPECT_GT(info->sequence, last_sequence);
    last_sequence = info->sequence;
    for (Client* reader : {client.get(), other.get()}) {
      auto got = reader->get(key, 0, 0);
      ASSERT_TRUE(got.ok()) << bytes << ": " << got.status().message();
      EXPECT_EQ(got->info.size_bytes, bytes);
      EXPECT_EQ(got->info.sequence, info->sequence);
      EXPECT_EQ(got->info.crc32c, info->crc32c);
      EXPECT_TRUE(text_of(*got) == data) << bytes;
      if (bytes > 10) {
        auto range = reader->get(key, bytes / 3, bytes / 2);
        ASSERT_TRUE(range.ok()) << range.status().message();
        EXPECT_TRUE(text_of(*range) == data.substr(bytes / 3, bytes / 2)) << bytes;
      }
      EXPECT_EQ(reader->get(key, 1, bytes).code(), Code::kOutOfRange);
    }
    auto head = client->head(key);
    ASSERT_TRUE(head.ok());
    EXPECT_EQ(head->sequence, info->sequence);
  }
  EXPECT_EQ(client->get("none", 0, 0).code(), Code::kNotFound);
  EXPECT_EQ(client->head("none").code(), Code::kNotFound);
}

TEST_P(BothTransports, ConditionsDeletesCopiesLists) {
  start();
  auto client = connect(GetParam());
  auto first = client->put("a", span_of("one"), {.if_absent = true});
  ASSERT_TRUE(first.ok()) << first.status().message();
  EXPECT_EQ(client->put("a", span_of("two"), {.if_absent = true}).code(), Code::kConditionFailed);
  EXPECT_EQ(client->put("a", span_of("two"), {.if_sequence = first->sequence + 1000}).code(), Code::kConditionFailed);
  auto second = client->put("a", span_of("two"), {.if_sequence = first->sequence});
  ASSERT_TRUE(second.ok()) << second.status().message();
  auto copied = client->copy("a", "b", {});
  ASSERT_TRUE(copied.ok()) << copied.status().message();
  EXPECT_EQ(text_of(*client->get("b", 0, 0)), "two");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(client->put("list/" + std::to_string(i), span_of("x"), {}).ok());
  auto page = client->list("list/", "", 4);
  ASSERT_TRUE(page.ok()) << page.status().message();
  ASSERT_EQ(page->objects.size(), 4u);
  EXPECT_TRUE(page->truncated);
  auto rest = client->list("list/", page->objects.back().key, 1000);
  ASSERT_TRUE(rest.ok());
  EXPECT_EQ(rest->objects.size(), 6u);
  EXPECT_FALSE(rest->truncated);
  EXPECT_EQ(rest->objects.front().key, "list/4");
  EXPECT_EQ(*client->remove("a", {}), true);
  EXPECT_EQ(*client->remove("a", {}), false);
  EXPECT_EQ(client->get("a", 0, 0).code(), Code::kNotFound);
  EXPECT_EQ(client->put("", span_of("x"), {}).code(), Code::kInvalidArgument);
  EXPECT_EQ(client->put(std::string(1025, 'k'), span_of("x"), {}).code(), Code::kKeyTooLong);
}

TEST_P(BothTransports, RefusesWrongTokensAndUnknownNamespaces) {
  start();
  ChannelOptions options = options_for(GetParam());
  options.token[3] ^= 1;
  EXPECT_EQ(Client::connect(options).code(), Code::kUnauthenticated);
  options = options_for(GetParam());
  options.namespace_name = "nope";
  EXPECT_EQ(Client::connect(options).code(), Code::kNotFound);
}

TEST_P(BothTransports, StreamedDrafts) {
  start();
  auto client = connect(GetParam());
  Channel& channel = *client->channel();
  struct Collect : Channel::Sink {
    std::map<uint64_t, Code> codes;
    std::mutex mutex;
    void on_reply(uint64_t tag, ChannelReply& reply) override {
      std::lock_guard lock(mutex);
      codes[tag] = reply.code;
    }
    size_t size() {
      std::lock_guard lock(mutex);
      return codes.size();
    }
  } collect;
  auto wait = [&](size_t replies) {
    channel.flush();
    while (collect.size() < replies && !channel.lost()) {
      if (channel.has_thread()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      else channel.pump(100);
    }
    EXPECT_EQ(collect.size(), replies);
  };
  const std::string data = random_bytes(7, 3000000);
  wire::ObjectRequest begin{};
  begin.key_bytes = 6;
  auto draft = channel.submit({Opcode::kBegin, &begin, sizeof(begin), "stream", {}, {}, false, 0, &collect, 1});
  ASSERT_TRUE(draft.ok());
  wire::DraftRequest append{*draft, 0, 0, 0, 0, 0};
  size_t sent = 0;
  uint64_t tag = 2;
  for (size_t piece : {1ul, 0ul, 70000ul, 1000000ul, 3000000ul - 1070001ul}) {
    ASSERT_TRUE(channel.submit({Opcode::kAppend, &append, sizeof(append), {}, {}, span_of(std::string_view(data).substr(sent, piece)),
                                true, 0, &collect, tag++}).ok());
    sent += piece;
  }
  wait(6);
  EXPECT_EQ(client->head("stream").code(), Code::kNotFound);  // not before it is sealed
  append.has_crc32c = 1;
  append.crc32c = crc32c(0, data.data(), data.size());
  ASSERT_TRUE(channel.submit({Opcode::kCommit, &append, sizeof(append), {}, {}, {}, false, 0, &collect, tag++}).ok());
  wait(7);
  for (auto& [which, code] : collect.codes) EXPECT_EQ(code, Code::kOk) << which;
  EXPECT_TRUE(text_of(*client->get("stream", 0, 0)) == data);
  // A commit of a draft that is gone, an append to one, a checksum that is wrong.
  ASSERT_TRUE(channel.submit({Opcode::kCommit, &append, sizeof(append), {}, {}, {}, false, 0, &collect, 100}).ok());
  append.has_crc32c = 0;
  append.crc32c = 0;
  ASSERT_TRUE(channel.submit({Opcode::kAppend, &append, sizeof(append), {}, {}, span_of("x"), true, 0, &collect, 101}).ok());
  draft = channel.submit({Opcode::kBegin, &begin, sizeof(begin), "strean", {}, {}, false, 0, &collect, 102});
  append.draft = *draft;
  ASSERT_TRUE(channel.submit({Opcode::kAppend, &append, sizeof(append), {}, {}, span_of("x"), true, 0, &collect, 103}).ok());
  append.has_crc32c = 1;
  append.crc32c = 12345;
  ASSERT_TRUE(channel.submit({Opcode::kCommit, &append, sizeof(append), {}, {}, {}, false, 0, &collect, 104}).ok());
  wait(12);
  EXPECT_EQ(collect.codes[100], Code::kNotFound);
  EXPECT_EQ(collect.codes[101], Code::kNotFound);
  EXPECT_EQ(collect.codes[104], Code::kChecksumMismatch);
  EXPECT_EQ(client->head("strean").code(), Code::kNotFound);
}

TEST_F(ServerTest, PipelinedPutsThroughTheRing) {
  start();
  auto client = connect_shm();
  auto reader = connect(false);
  const uint64_t seed = std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  std::map<std::string, std::string> expected;
  uint64_t position = 0;
  for (int i = 0; i < 100000; ++i) {
    const std::string key = "key/" + std::to_string(random() % 20000);
    const std::string value = random_bytes(i, random() % 600);
    for (;;) {
      const auto pushed = client->try_put(key, value.data(), value.size(), &position);
      if (pushed == ShmClient::Push::kPushed) break;
      ASSERT_TRUE(client->take_grant_failure().ok());
      if (pushed == ShmClient::Push::kRingFull) ASSERT_TRUE(client->wait_acked(position - 1000).ok());
      else client->wait_mail(100);
    }
    expected[key] = value;
  }
  ASSERT_TRUE(client->wait_acked(position).ok());
  for (const auto& [key, value] : expected) {
    auto got = client->get(key, 0, 0);
    ASSERT_TRUE(got.ok()) << key << got.status().message();
    ASSERT_TRUE(text_of(*got) == value) << key;
  }
  for (int i = 0; i < 1000; ++i) {
    auto it = std::next(expected.begin(), static_cast<long>(random() % expected.size()));
    auto got = reader->get(it->first, 0, 0);
    ASSERT_TRUE(got.ok());
    ASSERT_TRUE(text_of(*got) == it->second);
  }
}

TEST_F(ServerTest, LargeObjectsLieInParts) {
  start(1536 * MiB);
  auto client = connect_shm();
  const std::string data = random_bytes(3, 300 * MiB);
  auto info = client->put("large", span_of(data), {});
  ASSERT_TRUE(info.ok()) << info.status().message();
  EXPECT_EQ(info->size_bytes, data.size());
  EXPECT_EQ(info->crc32c, crc32c(0, data.data(), data.size()));
  for (bool shm : {true, false}) {
    auto reader = connect(shm);
    auto got = reader->get("large", 0, 0);
    ASSERT_TRUE(got.ok()) << got.status().message();
    EXPECT_TRUE(text_of(*got) == data);
    auto range = reader->get("large", 60 * MiB, 20 * MiB);
    ASSERT_TRUE(range.ok());
    EXPECT_TRUE(text_of(*range) == data.substr(60 * MiB, 20 * MiB));
  }
}

TEST_F(ServerTest, OverwritesRetireSegmentsAndViewsStay) {
  start(256 * MiB);
  auto writer = connect_shm();
  auto reader = connect_shm();
  std::vector<std::pair<std::string, ClientObject>> held;
  for (int round = 0; round < 60; ++round) {
    const std::string data = random_bytes(round, 5 * MiB);
    auto info = writer->put("key", span_of(data), {});
    ASSERT_TRUE(info.ok()) << round << ": " << info.status().message();
    auto got = reader->get("key", 0, 0);
    ASSERT_TRUE(got.ok()) << round << ": " << got.status().message();
    ASSERT_TRUE(text_of(*got) == data) << round;
    if (held.size() < 3) held.emplace_back(data, std::move(*got));
  }
  for (const auto& [data, object] : held) EXPECT_TRUE(text_of(object) == data);
}

TEST_F(ServerTest, ReserveWaitsForRoom) {
  start(128 * MiB);
  auto filler = connect_shm();
  int stored = 0;
  ChannelOptions impatient = options_for(true);
  impatient.timeout_ms = 200;
  auto second = Client::connect(impatient);
  ASSERT_TRUE(second.ok());
  const std::string data = random_bytes(1, 15 * MiB);
  for (; stored < 100; ++stored) {
    auto info = (*second)->put("fill/" + std::to_string(stored), span_of(data), {});
    if (info.ok()) continue;
    EXPECT_EQ(info.code(), Code::kResourceExhausted) << info.status().message();
    break;
  }
  ASSERT_GT(stored, 2);
  ASSERT_LT(stored, 100);
  std::thread freeing([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    auto third = connect(false);
    for (int i = 0; i < stored; ++i) EXPECT_TRUE(third->remove("fill/" + std::to_string(i), {}).ok());
    // The filler of these segments has them mapped and must let go first.
    (*second)->close();
  });
  auto info = filler->put("patient", span_of(data), {});
  freeing.join();
  EXPECT_TRUE(info.ok()) << info.status().message();
}

TEST_F(ServerTest, DroppedNamespaceAndStoppedServer) {
  start();
  auto client = connect_shm();
  auto remote = connect(false);
  ASSERT_TRUE(client->put("a", span_of("x"), {}).ok());
  auto held = client->get("a", 0, 0);
  ASSERT_TRUE(store_->drop("job").ok());
  EXPECT_EQ(client->get("a", 0, 0).code(), Code::kNamespaceGone);
  EXPECT_EQ(remote->get("a", 0, 0).code(), Code::kNamespaceGone);
  EXPECT_EQ(text_of(*held), "x");
  server_->stop();
  for (int i = 0; i < 100 && !client->channel()->lost(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(client->channel()->lost());
  EXPECT_EQ(client->channel()->lost_status().code(), Code::kUnavailable);
  EXPECT_EQ(remote->head("a").code(), Code::kUnavailable);
}

TEST_F(ServerTest, BadSealRecordsEndTheSession) {
  start();
  auto client = connect_shm();
  ASSERT_TRUE(client->put("a", span_of("x"), {}).ok());
  // An allocation whose header was never written.
  ShmClient::Allocation where;
  ASSERT_TRUE(client->allocate(client->current_grant(), 10, 100, &where));
  uint64_t position;
  ASSERT_TRUE(client->push(where, &position));
  const Status failed = client->wait_acked(position);
  EXPECT_FALSE(failed.ok());
  EXPECT_EQ(failed.code(), Code::kCorrupt) << failed.message();
  auto again = connect(true);
  EXPECT_EQ(text_of(*again->get("a", 0, 0)), "x");
}

TEST_F(ServerTest, StaleSocketFilesAreTakenOver) {
  start();
  ServerOptions options;
  options.socket_path = server_->socket_path();
  Server second(*store_, options);
  EXPECT_EQ(second.start().code(), Code::kAlreadyExists);
  struct stat info {};
  ASSERT_EQ(stat(server_->socket_path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  // A file that a dead daemon left.
  const std::string path = folder_ + "/stale";
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  close(fd);
  options.socket_path = path;
  Store other(store_options(64 * MiB));
  Server third(other, options);
  EXPECT_TRUE(third.start().ok());
  third.stop();
  EXPECT_NE(stat(path.c_str(), &info), 0);
  // Never something that is no socket.
  std::ofstream(path) << "precious";
  Server fourth(other, options);
  EXPECT_FALSE(fourth.start().ok());
  EXPECT_EQ(stat(path.c_str(), &info), 0);
  unlink(path.c_str());
}

// --- a raw socket

class RawSocket {
 public:
  explicit RawSocket(const std::string& path) {
    fd_ = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path.c_str());
    EXPECT_EQ(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~RawSocket() { close(fd_); }
  void send_bytes(const std::string& bytes) { EXPECT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size())); }
  // Everything until the server closes.
  std::string read_all() {
    std::string all;
    char buffer[4096];
    for (;;) {
      pollfd waiting{fd_, POLLIN, 0};
      if (poll(&waiting, 1, 5000) <= 0) {
        ADD_FAILURE() << "the server did not close the connection";
        return all;
      }
      const ssize_t got = ::recv(fd_, buffer, sizeof(buffer), 0);
      if (got <= 0) return all;
      all.append(buffer, static_cast<size_t>(got));
    }
  }

 private:
  int fd_;
};

std::string frame(FrameHeader header, std::string body, std::string payload = {}) {
  header.magic = header.magic ? header.magic : wire::kFrameMagic;
  header.version = header.version ? header.version : wire::kProtocolVersion;
  if (header.body_bytes == 0) header.body_bytes = static_cast<uint32_t>(body.size());
  if (header.payload_bytes == 0) header.payload_bytes = payload.size();
  if (header.frame_crc == 0) {
    header.frame_crc = crc32c(crc32c(0, &header, offsetof(FrameHeader, frame_crc)), body.data(), body.size());
  }
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + body + payload;
}

std::string hello() {
  wire::HelloRequest request{};
  std::memcpy(request.token, kToken.data(), 16);
  request.name_bytes = 3;
  return frame({.opcode = Opcode::kHello, .request_id = 1}, std::string(reinterpret_cast<const char*>(&request), sizeof(request)) + "job");
}

Code goodbye_code(const std::string& all) {
  // The last frame.
  size_t at = 0;
  Code code = Code::kOk;
  while (at + sizeof(FrameHeader) <= all.size()) {
    FrameHeader header;
    std::memcpy(&header, all.data() + at, sizeof(header));
    EXPECT_TRUE(wire::check_header(header, true).ok());
    if (header.opcode == Opcode::kGoodbye) code = static_cast<Code>(header.status);
    at += sizeof(header) + header.body_bytes + header.payload_bytes;
  }
  EXPECT_EQ(at, all.size());
  return code;
}

TEST_F(ServerTest, MalformedFramesGetATypedGoodbye) {
  start();
  const std::string key_request(sizeof(wire::ObjectRequest), '\0');
  struct Case {
    const char* what;
    std::string bytes;
    Code code;
  };
  std::string cut = key_request;
  cut[24] = 50;  // key_bytes, but no key
  std::string reserved = key_request + "k";
  reserved[24] = 1;
  reserved[28] = 1;
  const std::vector<Case> cases = {
      {"magic", frame({.magic = 77, .opcode = Opcode::kHead}, ""), Code::kProtocol},
      {"version", frame({.version = 9, .opcode = Opcode::kHead}, ""), Code::kUnsupported},
      {"opcode", frame({.opcode = static_cast<Opcode>(200)}, ""), Code::kUnsupported},
      {"opcode 0", frame({.opcode = static_cast<Opcode>(0)}, ""), Code::kUnsupported},
      {"flags", frame({.opcode = Opcode::kHead, .flags = 64}, ""), Code::kUnsupported},
      {"reply flag", frame({.opcode = Opcode::kHead, .flags = 1}, ""), Code::kProtocol},
      {"status", frame({.opcode = Opcode::kHead, .status = 3}, ""), Code::kProtocol},
      {"descriptors", frame({.opcode = Opcode::kHead, .descriptors = 1}, ""), Code::kProtocol},
      {"server's opcode", frame({.opcode = Opcode::kGoodbye}, ""), Code::kProtocol},
      {"body too large", frame({.opcode = Opcode::kHead, .body_bytes = 1 << 20}, ""), Code::kProtocol},
      {"payload too large", frame({.opcode = Opcode::kPut, .payload_bytes = ~0ull}, ""), Code::kObjectTooLarge},
      {"payload on head", frame({.opcode = Opcode::kHead}, key_request, "xx"), Code::kProtocol},
      {"frame crc", frame({.opcode = Opcode::kHead, .frame_crc = 7}, key_request), Code::kProtocol},
      {"short body", frame({.opcode = Opcode::kHead}, "abc"), Code::kProtocol},
      {"key length", frame({.opcode = Opcode::kHead}, cut), Code::kProtocol},
      {"reserved", frame({.opcode = Opcode::kHead}, reserved), Code::kProtocol},
      {"second hello", hello(), Code::kProtocol},
      {"stray crc", frame({.opcode = Opcode::kHead, .payload_crc = 5}, key_request), Code::kProtocol},
      {"short append", frame({.opcode = Opcode::kAppend}, "abc", "payload"), Code::kProtocol},
      {"short reserve", frame({.opcode = Opcode::kReserve}, "abc"), Code::kProtocol},
      {"short seal", frame({.opcode = Opcode::kSeal}, "abc"), Code::kProtocol},
      {"short list", frame({.opcode = Opcode::kList}, "abc"), Code::kProtocol},
      {"short copy", frame({.opcode = Opcode::kCopy}, "abc"), Code::kProtocol},
  };
  for (const Case& one : cases) {
    SCOPED_TRACE(one.what);
    RawSocket socket(server_->socket_path());
    socket.send_bytes(hello() + one.bytes);
    EXPECT_EQ(goodbye_code(socket.read_all()), one.code);
  }
  RawSocket unauthenticated(server_->socket_path());
  unauthenticated.send_bytes(frame({.opcode = Opcode::kHead}, key_request));
  EXPECT_EQ(goodbye_code(unauthenticated.read_all()), Code::kUnauthenticated);
  // Byte by byte, and a connection that ends in the middle.
  {
    RawSocket slow(server_->socket_path());
    for (char byte : hello()) slow.send_bytes(std::string(1, byte));
  }
  auto client = connect(true);
  EXPECT_TRUE(client->put("still", span_of("there"), {}).ok());
}

TEST_F(ServerTest, GoneClientsEndTheirSessions) {
  start();
  {
    auto client = connect_shm();
    ASSERT_TRUE(client->put("a", span_of(random_bytes(1, 1000)), {}).ok());
    EXPECT_GE(server_->sessions(), 1u);
  }
  for (int i = 0; i < 200 && server_->sessions() != 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(server_->sessions(), 0u);
  auto client = connect(false);
  EXPECT_TRUE(client->get("a", 0, 0).ok());
}

TEST_F(ServerTest, ManyWritersAndReaders) {
  start(1024 * MiB);
  const uint64_t seed = std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int who = 0; who < 4; ++who) {
    threads.emplace_back([&, who] {
      std::mt19937_64 random(seed + static_cast<uint64_t>(who));
      auto client = connect(who % 2 == 0);
      for (int i = 0; i < 400; ++i) {
        // The value says which key it is of, so that any version is checkable.
        const uint64_t number = random() % 50;
        const std::string key = "k" + std::to_string(number);
        if (random() % 2 == 0) {
          std::string value = random_bytes(number, 1 + random() % 200000);
          if (!client->put(key, span_of(value), {}).ok()) ++failures;
        } else {
          auto got = client->get(key, 0, 0);
          if (!got.ok()) {
            if (got.code() != Code::kNotFound) ++failures;
            continue;
          }
          const std::string text = text_of(*got);
          if (crc32c(0, text.data(), text.size()) != got->info.crc32c) ++failures;
          if (text.size() >= 8 && text.substr(0, 8) != random_bytes(number, 8)) ++failures;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures.load(), 0);
}

}  // namespace
}  // namespace millrace
