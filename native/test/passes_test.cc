// Who may open a native session, what a pass allows, and what its end leaves behind.
#include "store/passes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "test/server_support.h"
#include "test/store_support.h"
#include "transport/connection.h"

namespace millrace {
namespace {

constexpr Token kToken{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr Token kOther{16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1};

Token numbered(uint32_t number) {
  Token token{};
  token[15] = 1;
  std::memcpy(token.data(), &number, sizeof(number));
  return token;
}

TEST(Passes, TheTokenItselfIsGoodForEver) {
  const Passes passes(kToken);
  const auto pass = passes.find(kToken.data(), ~uint64_t{0});
  ASSERT_TRUE(pass);
  EXPECT_FALSE(pass->expires());
  EXPECT_FALSE(pass->read_only);
}

TEST(Passes, EveryBitCounts) {
  Passes passes(kToken);
  ASSERT_OK(passes.add(kOther, {1000, false}, 0));
  for (const Token& right : {kToken, kOther}) {
    for (size_t bit = 0; bit < 128; ++bit) {
      Token wrong = right;
      wrong[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      EXPECT_FALSE(passes.find(wrong.data(), 0)) << bit;
    }
    EXPECT_TRUE(passes.find(right.data(), 0));
  }
}

TEST(Passes, ExpireAndAreReplaced) {
  Passes passes(kToken);
  ASSERT_OK(passes.add(kOther, {1000, true}, 0));
  EXPECT_TRUE(passes.find(kOther.data(), 999)->read_only);
  EXPECT_FALSE(passes.find(kOther.data(), 1000));
  ASSERT_OK(passes.add(kOther, {2000, false}, 1000));
  EXPECT_FALSE(passes.find(kOther.data(), 1999)->read_only);
  EXPECT_FALSE(passes.find(kOther.data(), 2000));
}

TEST(Passes, AreBoundedAndMakeRoomAsTheyExpire) {
  Passes passes(kToken);
  for (uint32_t i = 0; i < Passes::kPassesMax; ++i) ASSERT_OK(passes.add(numbered(i), {1000 + i, false}, 0));
  EXPECT_CODE(passes.add(kOther, {5000, false}, 0), Code::kResourceExhausted);
  ASSERT_OK(passes.add(numbered(7), {9000, false}, 0));  // known already
  ASSERT_OK(passes.add(kOther, {5000, false}, 1000));    // the first has expired
  EXPECT_TRUE(passes.find(kOther.data(), 1000));
}

class PassOverBoth : public ::testing::TestWithParam<bool> {
 protected:
  PassOverBoth() : store_(test::store_options(256 * MiB)) {
    char folder[] = "/tmp/millrace-test-XXXXXX";
    folder_ = mkdtemp(folder);
    ns_ = *store_.create("job", {.token = kToken});
    ServerOptions options;
    options.socket_path = folder_ + "/socket";
    options.data_host = "127.0.0.1";
    options.io_threads = 2;
    options.node_id = "node-1";
    server_ = std::make_unique<Server>(store_, options);
    EXPECT_OK(server_->start());
  }
  ~PassOverBoth() override {
    server_.reset();
    rmdir(folder_.c_str());
  }
  Result<std::unique_ptr<Client>> attach(const Token& token) {
    ChannelOptions options = test::options_for(*server_, GetParam(), "job", token);
    options.timeout_ms = 5000;
    return Client::connect(options);
  }

  std::string folder_;
  Store store_;
  std::shared_ptr<Namespace> ns_;
  std::unique_ptr<Server> server_;
};
INSTANTIATE_TEST_SUITE_P(Transports, PassOverBoth, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "Shm" : "Tcp"; });

const ConstSpan kBytes{reinterpret_cast<const uint8_t*>("0123456789"), 10};

TEST_P(PassOverBoth, OpensASessionUntilItExpires) {
  EXPECT_CODE(attach(kOther), Code::kUnauthenticated);
  ASSERT_OK(ns_->admit(kOther, {unix_ms() - 1, false}));
  EXPECT_CODE(attach(kOther), Code::kUnauthenticated);
  ASSERT_OK(ns_->admit(kOther, {unix_ms() + 3'600'000, false}));
  auto lasting = attach(kOther);
  ASSERT_OK(lasting);
  ASSERT_OK((*lasting)->put("key", kBytes, {}));
  auto with_token = attach(kToken);
  ASSERT_OK(with_token);

  const Token brief = numbered(1);
  ASSERT_OK(ns_->admit(brief, {unix_ms() + 1'500, false}));
  auto guest = attach(brief);
  ASSERT_OK(guest);
  ASSERT_OK((*guest)->put("guest", kBytes, {}));
  ASSERT_TRUE(test::eventually([&] {
    (void)(*guest)->head("key");
    return (*guest)->channel()->lost();
  }));
  EXPECT_CODE((*guest)->channel()->lost_status(), Code::kUnauthenticated);
  EXPECT_FALSE((*guest)->put("late", kBytes, {}).ok());
  EXPECT_CODE(attach(brief), Code::kUnauthenticated);
  // What it sealed in its time stays, and nobody else is disturbed.
  EXPECT_OK((*with_token)->head("guest"));
  EXPECT_OK((*lasting)->put("key", kBytes, {}));
  EXPECT_CODE((*with_token)->head("late"), Code::kNotFound);
}

TEST_P(PassOverBoth, ForReadingAloneWritesNothing) {
  ASSERT_OK(ns_->admit(kOther, {unix_ms() + 3'600'000, true}));
  auto owner = attach(kToken);
  ASSERT_OK(owner);
  ASSERT_OK((*owner)->put("key", kBytes, {}));
  auto reader = attach(kOther);
  ASSERT_OK(reader);
  auto got = (*reader)->get("key", 0, 0);
  ASSERT_OK(got);
  EXPECT_OK((*reader)->list("", "", 10));
  EXPECT_CODE((*reader)->put("other", kBytes, {}), Code::kPermissionDenied);
  const std::string large(1 * MiB, 'x');
  EXPECT_CODE((*reader)->put("large", {reinterpret_cast<const uint8_t*>(large.data()), large.size()}, {}),
              Code::kPermissionDenied);
  EXPECT_CODE((*reader)->remove("key", {}), Code::kPermissionDenied);
  EXPECT_CODE((*reader)->copy("key", "copy", {}), Code::kPermissionDenied);
  EXPECT_OK((*reader)->head("key"));
  EXPECT_EQ(ns_->stats().objects, 1u);
}

// What a session with a pass was handed is not written to again once it is gone, whatever it says of its mappings.
TEST(Forsaken, SegmentsAreNotUsedAgain) {
  for (const bool confirms : {false, true}) {
    for (const bool doubted : {false, true}) {
      Store store(test::store_options(256 * MiB));
      auto ns = *store.create("ns-a", {.token = kToken});
      const SessionId session = ns->begin_session(doubted);
      ASSERT_OK(test::put(*ns, "first", 1, 1000));  // in the daemon's own segment
      auto opened = ns->open_segment(session, 1);
      ASSERT_OK(opened);
      auto read_only = opened->memory->read_only_fd();
      ASSERT_OK(read_only);
      const auto bytes = static_cast<size_t>(opened->bytes);
      void* at = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, *read_only, 0);
      ASSERT_NE(at, MAP_FAILED);
      ::close(*read_only);
      opened->memory.reset();
      // Behind the one entry that is there: its own state does change, as it dies.
      constexpr size_t kBehind = 16 * KiB;
      const std::string before(static_cast<const char*>(at) + kBehind, bytes - kBehind);
      if (confirms) ns->confirm_unmapped(session, 1);
      ns->end_session(session);
      for (uint64_t i = 0; i < 40; ++i) ASSERT_OK(test::put(*ns, "key", i, 400'000));
      ASSERT_TRUE(*ns->remove("first", {}));
      for (uint64_t i = 0; i < 40; ++i) ASSERT_OK(test::put(*ns, "key", i, 400'000));
      const std::string after(static_cast<const char*>(at) + kBehind, bytes - kBehind);
      EXPECT_EQ(before == after, doubted) << "confirms: " << confirms;
      EXPECT_OK(ns->head("key"));
      munmap(at, bytes);
    }
  }
}

TEST(Forsaken, GrantsOfAPassAreNobodysAfterwards) {
  Store store(test::store_options(64 * MiB));
  auto ns = *store.create("ns-a", {.token = kToken});
  const SessionId guest = ns->begin_session(true);
  auto given_back = ns->reserve(guest, 1000);
  ASSERT_OK(given_back);
  auto kept = ns->reserve(guest, 1000);
  ASSERT_OK(kept);
  ns->give_back(guest, given_back->segment);
  const SessionId owner = ns->begin_session();
  std::vector<uint32_t> granted;
  const auto reserve = [&] {
    auto grant = ns->reserve(owner, 1000);
    ASSERT_OK(grant);
    granted.push_back(grant->segment);
  };
  reserve();
  ns->end_session(guest);
  reserve();
  for (uint32_t segment : granted) {
    EXPECT_NE(segment, given_back->segment);
    EXPECT_NE(segment, kept->segment);
  }
  ns->end_session(owner);
}

TEST(Buffers, CountAgainstTheLimits) {
  Store store(test::store_options(64 * MiB));
  auto ns = *store.create("ns-a", {.token = kToken, .limit_bytes = 4 * MiB});
  ns->account_buffers(3 * MiB + 1);
  EXPECT_EQ(ns->stats().buffer_bytes, 3 * MiB + 1);
  auto refused = test::put(*ns, "key", 1, 1000);
  EXPECT_CODE(refused, Code::kResourceExhausted);
  EXPECT_NE(refused.status().message().find("in buffers of connections"), std::string::npos) << refused.status().message();
  ns->account_buffers(-int64_t{3 * MiB + 1});
  EXPECT_EQ(ns->stats().buffer_bytes, 0u);
  EXPECT_OK(test::put(*ns, "key", 1, 1000));
}

// A peer that asks and does not read makes the daemon hold what it asked for.
TEST(Buffers, OfConnectionsAreAccounted) {
  Store store(test::store_options(64 * MiB));
  auto ns = *store.create("job", {.token = kToken});
  ASSERT_OK(test::put(*ns, "key", 1, 16'000));
  const ServerFace face{"node-1", [] { return std::string(); }};
  const auto frame = [](wire::Opcode opcode, const auto& body, std::string_view rest) {
    std::string text(reinterpret_cast<const char*>(&body), sizeof(body));
    text += rest;
    wire::FrameHeader header{};
    header.opcode = opcode;
    header.request_id = 1;
    header.body_bytes = static_cast<uint32_t>(text.size());
    wire::seal_frame(header, text.data());
    return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + text;
  };
  {
    Connection connection(Connection::Kind::kTcp, store, face);
    const auto send = [&](const std::string& bytes) {
      return connection.consume(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    };
    wire::HelloRequest hello{};
    std::memcpy(hello.token, kToken.data(), sizeof(hello.token));
    hello.name_bytes = 3;
    send(frame(wire::Opcode::kHello, hello, "job"));
    ASSERT_TRUE(connection.greeted());
    connection.report_buffers(0);
    EXPECT_EQ(ns->stats().buffer_bytes, 0u) << "what is small is not worth counting";
    wire::ObjectRequest get{};
    get.key_bytes = 3;
    std::string asked;
    for (int i = 0; i < 100; ++i) asked += frame(wire::Opcode::kGet, get, "key");
    EXPECT_EQ(send(asked), asked.size());
    connection.report_buffers(0);
    const uint64_t held = ns->stats().buffer_bytes;
    EXPECT_GE(held + Connection::kBufferStepBytes, 1'600'000u);
    EXPECT_LE(held, connection.output().queued_bytes());
    connection.report_buffers(10 * Connection::kBufferStepBytes);
    EXPECT_EQ(ns->stats().buffer_bytes, held + 10 * Connection::kBufferStepBytes);
    while (!connection.output().empty()) {
      iovec vector;
      const std::vector<PassedDescriptor>* descriptors;
      ASSERT_EQ(connection.output().front(&vector, 1, &descriptors), 1u);
      connection.output().sent(vector.iov_len);
    }
    connection.report_buffers(0);
    EXPECT_EQ(ns->stats().buffer_bytes, 0u);
    connection.report_buffers(1 * MiB);
  }
  EXPECT_EQ(ns->stats().buffer_bytes, 0u) << "gone with the connection";
}

}  // namespace
}  // namespace millrace
