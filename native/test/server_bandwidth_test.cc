// A namespace's bandwidth limit at the TCP door: a real server and real clients, and a clock of the test's
// own. While that stands still, no more than the burst (and one move a connection) can get through, however
// long anything takes; so what is asserted here depends on no real time.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "test/server_support.h"
#include "test/store_support.h"
#include "transport/client.h"
#include "transport/server.h"
#include "transport/wire.h"

namespace millrace {
namespace {

using namespace test;

constexpr Token kToken{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
constexpr uint64_t kRate = 40 * MiB;  // bytes a second
constexpr uint64_t kBurst = 4 * MiB;
constexpr uint64_t kMove = 1 * MiB;

class ServerBandwidthTest : public ::testing::Test {
 protected:
  void start(unsigned io_threads) {
    char folder[] = "/tmp/millrace-test-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    store_ = std::make_unique<Store>(store_options(512 * MiB));
    limited_ = make_namespace(*store_, "limited", {.token = kToken, .bandwidth_bytes_per_second = kRate});
    free_ = make_namespace(*store_, "free", {.token = kToken});
    ServerOptions options;
    options.socket_path = folder_ + "/socket";
    options.data_host = "127.0.0.1";
    options.io_threads = io_threads;
    options.node_id = "node-1";
    options.bandwidth_clock = [this] {
      return Bandwidth::TimePoint(std::chrono::nanoseconds(now_ns_.load()));
    };
    server_ = std::make_unique<Server>(*store_, options);
    ASSERT_OK(server_->start());
  }

  void TearDown() override {
    if (server_) server_->stop();
    server_.reset();
    limited_.reset();
    free_.reset();
    store_.reset();
    if (!folder_.empty()) rmdir(folder_.c_str());
  }

  std::unique_ptr<Client> connect(const char* ns, bool shm = false) {
    ChannelOptions options = options_for(*server_, shm, ns, kToken);
    options.timeout_ms = 120'000;
    return test::connect(options);
  }

  // Lets the clock run until `done`; how long it ran, in seconds of its own.
  template <class Predicate>
  double run_clock_until(Predicate&& done) {
    const int64_t begin = now_ns_.load();
    EXPECT_TRUE(eventually([&] {
      if (done()) return true;
      now_ns_.fetch_add(2'000'000);
      return false;
    }));
    return static_cast<double>(now_ns_.load() - begin) / 1e9;
  }

  static uint64_t burst_and_moves(uint64_t connections) { return kBurst + connections * kMove; }

  std::string folder_;
  std::atomic<int64_t> now_ns_{int64_t{1000} * 1000 * 1000 * 1000};
  std::unique_ptr<Store> store_;
  std::shared_ptr<Namespace> limited_, free_;
  std::unique_ptr<Server> server_;
};

bool same(const ClientObject& object, const std::vector<uint8_t>& expected) {
  std::vector<uint8_t> bytes;
  for (const ConstSpan& span : object.spans) bytes.insert(bytes.end(), span.data, span.data + span.bytes);
  return bytes == expected;
}

TEST_F(ServerBandwidthTest, SpreadsAReadAndHoldsUpNobodyElse) {
  start(1);  // everyone shares the thread of the one that rests
  const auto data = Content("large", 1).bytes(20 * MiB);
  ASSERT_OK(limited_->put("large", span_of(data), {}));
  auto reader = connect("limited");
  auto free_reader = connect("free");
  auto shm_reader = connect("limited", true);
  std::atomic<bool> done{false};
  std::thread reading([&] {
    auto got = reader->get("large", 0, 0);
    EXPECT_OK(got);
    if (got.ok()) {
      EXPECT_TRUE(same(*got, data));
    }
    done = true;
  });
  EXPECT_TRUE(eventually([&] { return server_->bandwidth_rests() > 0; }));
  ASSERT_OK(free_reader->put("other", span_of(data), {}));
  auto other = free_reader->get("other", 0, 0);
  ASSERT_OK(other);
  EXPECT_TRUE(same(*other, data));
  auto mapped = shm_reader->get("large", 0, 0);
  ASSERT_OK(mapped);
  EXPECT_TRUE(same(*mapped, data));
  EXPECT_FALSE(done.load());
  EXPECT_EQ(server_->bandwidth_rests(), 1u);
  const double seconds = run_clock_until([&] { return done.load(); });
  reading.join();
  EXPECT_GE(seconds * kRate, static_cast<double>(data.size() - burst_and_moves(1)));
  EXPECT_GT(server_->bandwidth_rests(), 1u);
}

TEST_F(ServerBandwidthTest, SpreadsAWrite) {
  start(2);
  const auto data = Content("large", 1).bytes(20 * MiB + 12'345);
  auto writer = connect("limited");
  std::atomic<bool> done{false};
  std::thread writing([&] {
    EXPECT_OK(writer->put("large", span_of(data), {}));
    done = true;
  });
  EXPECT_TRUE(eventually([&] { return server_->bandwidth_rests() > 0; }));
  EXPECT_FALSE(done.load());
  EXPECT_CODE(limited_->head("large"), Code::kNotFound);
  const double seconds = run_clock_until([&] { return done.load(); });
  writing.join();
  EXPECT_GE(seconds * kRate, static_cast<double>(data.size() - burst_and_moves(1)));
  auto stored = limited_->get("large");
  ASSERT_OK(stored);
  EXPECT_TRUE(join(*stored) == data);
}

TEST_F(ServerBandwidthTest, ConnectionsOfANamespaceShareOneLimit) {
  start(2);
  const auto data = Content("object", 1).bytes(3 * MiB);
  ASSERT_OK(limited_->put("object", span_of(data), {}));
  constexpr int kReaders = 4;  // each for itself stays within the burst
  std::atomic<int> done{0};
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kReaders; ++i) clients.push_back(connect("limited"));
  std::vector<std::thread> threads;
  for (auto& client : clients) {
    threads.emplace_back([&] {
      auto got = client->get("object", 0, 0);
      EXPECT_OK(got);
      if (got.ok()) {
        EXPECT_TRUE(same(*got, data));
      }
      ++done;
    });
  }
  EXPECT_TRUE(eventually([&] { return server_->bandwidth_rests() >= 2; }));
  EXPECT_LT(done.load(), kReaders);
  const double seconds = run_clock_until([&] { return done.load() == kReaders; });
  for (auto& thread : threads) thread.join();
  EXPECT_GE(seconds * kRate, static_cast<double>(kReaders * data.size() - burst_and_moves(kReaders)));
}

// Puts and gets of all sizes, pipelined on one connection, which is so stopped anywhere: within headers,
// within payloads, with frames left over.
TEST_F(ServerBandwidthTest, KeepsTheOrderOfPipelinedRequests) {
  start(2);
  Random random(new_seed("KeepsTheOrderOfPipelinedRequests"));
  auto slow = make_namespace(*store_, "slow", {.token = kToken, .bandwidth_bytes_per_second = 4 * MiB});
  auto client = connect("slow");
  Channel& channel = *client->channel();
  struct Replies : Channel::Sink {
    std::mutex mutex;
    std::vector<std::pair<uint64_t, Code>> seen;
    void on_reply(uint64_t tag, ChannelReply& reply) override {
      std::lock_guard lock(mutex);
      seen.emplace_back(tag, reply.code);
    }
    size_t count() {
      std::lock_guard lock(mutex);
      return seen.size();
    }
  } replies;
  constexpr uint64_t kRequests = 600;
  std::vector<std::vector<uint8_t>> values;
  std::vector<std::pair<std::string, wire::ObjectRequest>> requests;
  for (uint64_t i = 0; i < kRequests; ++i) {
    std::string key = i % 3 == 0 ? "hot" : "key/" + std::to_string(i);
    // The first is more than the burst, so that the server comes to rest while the clock stands still.
    const uint64_t bytes = i == 0 ? 1 * MiB : random.size(random.chance(10) ? 400'000 : 40'000);
    values.push_back(Content(key, i).bytes(bytes));
    wire::ObjectRequest request{};
    request.key_bytes = static_cast<uint16_t>(key.size());
    requests.emplace_back(std::move(key), request);
  }
  for (uint64_t i = 0; i < kRequests; ++i) {
    const auto& [key, request] = requests[i];
    Channel::Request one{wire::Opcode::kPut, &request, sizeof(request), key};
    one.payload = span_of(values[i]);
    one.has_payload = true;
    one.sink = &replies;
    one.tag = 2 * i;
    ASSERT_OK(channel.submit(one));
    Channel::Request other{wire::Opcode::kGet, &request, sizeof(request), key};
    other.sink = &replies;
    other.tag = 2 * i + 1;
    ASSERT_OK(channel.submit(other));
  }
  channel.flush();
  const auto pump = [&] {
    if (!channel.has_thread()) channel.pump(1);
  };
  EXPECT_TRUE(eventually([&] {
    pump();
    return server_->bandwidth_rests() > 0;
  }));
  EXPECT_LT(replies.count(), 2 * kRequests);
  run_clock_until([&] {
    pump();
    return replies.count() == 2 * kRequests || channel.lost();
  });
  ASSERT_EQ(replies.count(), 2 * kRequests);
  for (uint64_t i = 0; i < 2 * kRequests; ++i) {
    EXPECT_EQ(replies.seen[i].first, i);
    EXPECT_EQ(replies.seen[i].second, Code::kOk) << i;
  }
  for (uint64_t i = 0; i < kRequests; ++i) {
    if (requests[i].first == "hot" && i + 3 < kRequests) continue;  // overwritten later
    auto stored = slow->get(requests[i].first);
    ASSERT_OK(stored);
    EXPECT_TRUE(join(*stored) == values[i]) << requests[i].first;
  }
}

TEST_F(ServerBandwidthTest, ARestingClientHearsThatItsNamespaceIsGone) {
  start(2);
  const auto data = Content("large", 1).bytes(20 * MiB);
  ASSERT_OK(limited_->put("large", span_of(data), {}));
  auto reader = connect("limited");
  std::atomic<bool> done{false};
  std::thread reading([&] {
    auto got = reader->get("large", 0, 0);
    if (got.ok()) {
      EXPECT_TRUE(same(*got, data));
    }
    else EXPECT_CODE(got, Code::kNamespaceGone);
    done = true;
  });
  EXPECT_TRUE(eventually([&] { return server_->bandwidth_rests() > 0; }));
  ASSERT_OK(store_->drop("limited"));
  EXPECT_TRUE(eventually([&] { return done.load(); }));  // though the clock stands still
  reading.join();
  EXPECT_CODE(reader->head("large"), Code::kNamespaceGone);
}

TEST_F(ServerBandwidthTest, ConnectionsThatGoWhileTheyRestAreForgotten) {
  start(2);
  // The smallest burst, which any socket takes though its client reads nothing.
  auto slow = make_namespace(*store_, "slow", {.token = kToken, .bandwidth_bytes_per_second = 640 * KiB});
  ASSERT_OK(put(*slow, "large", 1, 20 * MiB));
  struct Ignore : Channel::Sink {
    void on_reply(uint64_t, ChannelReply&) override {}
  } ignore;
  wire::ObjectRequest request{};
  request.key_bytes = 5;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(connect("slow"));
  for (auto& client : clients) {
    Channel& channel = *client->channel();
    Channel::Request get{wire::Opcode::kGet, &request, sizeof(request), "large"};
    get.sink = &ignore;
    ASSERT_OK(channel.submit(get));
    channel.flush();
  }
  EXPECT_TRUE(eventually([&] { return server_->bandwidth_rests() >= 1; }));
  EXPECT_EQ(server_->sessions(), 6u);
  clients.resize(3);
  run_clock_until([&] { return server_->sessions() == 3; });
  clients[0].reset();
  server_->stop();  // with the others at rest, or about to be
  EXPECT_EQ(server_->sessions(), 0u);
}

TEST_F(ServerBandwidthTest, WithoutALimitNobodyRests) {
  start(2);
  const auto data = Content("large", 1).bytes(30 * MiB);
  for (bool shm : {false, true}) {
    auto client = connect(shm ? "limited" : "free", shm);
    ASSERT_OK(client->put("large", span_of(data), {}));
    auto got = client->get("large", 0, 0);
    ASSERT_OK(got);
    EXPECT_TRUE(same(*got, data));
  }
  EXPECT_EQ(server_->bandwidth_rests(), 0u);
}

}  // namespace
}  // namespace millrace
