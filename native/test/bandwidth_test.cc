// The bucket under a clock of the test's own: burst, debt, long-run rate, turns; and whose bucket is whose.
#include "transport/bandwidth.h"

#include <queue>

#include "test/store_support.h"

namespace millrace {
namespace {

using namespace test;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

class FakeClock {
 public:
  Bandwidth::TimePoint now() const { return now_; }
  void set(Bandwidth::TimePoint time) { now_ = time; }
  void advance(nanoseconds by) { now_ += by; }
  BandwidthClock face() {
    return [this] { return now_; };
  }

 private:
  Bandwidth::TimePoint now_{std::chrono::hours(1000)};
};

TEST(Bandwidth, AllowsABurstThenTheRate) {
  FakeClock clock;
  Bandwidth bucket(1'000'000, clock.face());
  EXPECT_EQ(bucket.burst_bytes(), 100'000u);
  EXPECT_LE(bucket.spend(60'000), clock.now());
  EXPECT_EQ(bucket.spend(40'000), clock.now());  // now it is empty
  EXPECT_EQ(bucket.spend(1), clock.now() + microseconds(1));
  EXPECT_EQ(bucket.spend(500'000), clock.now() + microseconds(500'001));
  clock.advance(microseconds(500'001));
  EXPECT_EQ(bucket.spend(0), clock.now());
  EXPECT_EQ(bucket.spend(1000), clock.now() + milliseconds(1));
}

TEST(Bandwidth, SavesNoMoreThanABurst) {
  FakeClock clock;
  Bandwidth bucket(1'000'000, clock.face());
  bucket.spend(300'000);
  clock.advance(std::chrono::hours(24));
  EXPECT_EQ(bucket.spend(100'000), clock.now());
  EXPECT_EQ(bucket.spend(1000), clock.now() + milliseconds(1));
}

TEST(Bandwidth, AFrameFitsInTheBurstOfTheSmallestLimit) {
  FakeClock clock;
  Bandwidth bucket(10, clock.face());
  EXPECT_EQ(bucket.burst_bytes(), Bandwidth::kBurstBytesMin);
  EXPECT_LE(bucket.move_bytes_max(), bucket.burst_bytes());
  EXPECT_GT(bucket.move_bytes_max(), 0u);
  EXPECT_LE(bucket.spend(Bandwidth::kBurstBytesMin), clock.now());
  EXPECT_EQ(bucket.spend(10), clock.now() + std::chrono::seconds(1));
}

TEST(Bandwidth, NumbersOfAnySizeAreHarmless) {
  FakeClock clock;
  for (uint64_t rate : {uint64_t{1}, uint64_t{999}, uint64_t{1} << 40, ~uint64_t{0}}) {
    Bandwidth bucket(rate, clock.face());
    auto last = bucket.spend(0);
    for (int i = 0; i < 100; ++i) {
      for (uint64_t bytes : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 30, ~uint64_t{0}}) {
        const auto at = bucket.spend(bytes);
        EXPECT_GE(at, last) << rate << " " << bytes;
        last = at;
      }
    }
    EXPECT_GT(last, clock.now()) << rate;  // 100 times all that can be counted is more than any burst
  }
}

TEST(Bandwidth, SmallMovesAreNotFree) {
  FakeClock clock;
  Bandwidth bucket(3'000'000'000, clock.face());  // a third of a nanosecond a byte
  const auto before = bucket.spend(0);
  for (int i = 0; i < 3000; ++i) bucket.spend(1);
  EXPECT_GE(bucket.spend(0) - before, microseconds(1));
}

// Connections that always have something to move, as the I/O threads drive them: each moves, pays, and rests
// until it is told. What gets through is the limit, and nobody gets more than its turn.
TEST(Bandwidth, ManyConnectionsShareTheRateByTurns) {
  Random random(new_seed("ManyConnectionsShareTheRateByTurns"));
  for (int round = 0; round < 20; ++round) {
    FakeClock clock;
    const uint64_t rate = random.between(1000, 500'000'000);
    const size_t connections = random.between(1, 40);
    Bandwidth bucket(rate, clock.face());
    const auto begin = clock.now();
    const uint64_t move = bucket.move_bytes_max();
    using Turn = std::pair<Bandwidth::TimePoint, size_t>;
    std::priority_queue<Turn, std::vector<Turn>, std::greater<>> turns;
    std::vector<uint64_t> moved(connections, 0);
    for (size_t i = 0; i < connections; ++i) turns.push({begin, i});
    uint64_t total = 0;
    for (int i = 0; i < 20'000; ++i) {
      const auto [at, who] = turns.top();
      turns.pop();
      // Woken late now and then, as by a timer of milliseconds.
      clock.set(std::max(clock.now(), at + microseconds(random.chance(4) ? random.below(1000) : 0)));
      const uint64_t bytes = random.chance(2) ? move : random.between(1, move);
      moved[who] += bytes;
      total += bytes;
      turns.push({bucket.spend(bytes), who});
      const double seconds = std::chrono::duration<double>(clock.now() - begin).count();
      const double allowed = static_cast<double>(rate) * seconds + static_cast<double>(bucket.burst_bytes());
      ASSERT_LE(static_cast<double>(total), allowed + static_cast<double>(connections * move) + 1);
    }
    const double seconds = std::chrono::duration<double>(clock.now() - begin).count();
    const double due = static_cast<double>(rate) * seconds;
    EXPECT_GE(static_cast<double>(total), due * 0.99) << rate << " " << connections;
    const auto [least, most] = std::minmax_element(moved.begin(), moved.end());
    EXPECT_GE(static_cast<double>(*least), static_cast<double>(*most) * 0.7) << rate << " " << connections;
  }
}

TEST(Bandwidth, ThreadsLoseNoPayment) {
  FakeClock clock;
  Bandwidth bucket(1'000'000'000, clock.face());  // a nanosecond a byte
  const auto before = bucket.spend(0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 20'000; ++k) bucket.spend(100);
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(bucket.spend(0) - before, nanoseconds(4 * 20'000 * 100));
}

TEST(BandwidthLimits, ANamespaceKeepsItsBucketForLife) {
  FakeClock clock;
  BandwidthLimits limits(clock.face());
  Store store(store_options(64 * MiB));
  auto free = make_namespace(store, "free");
  EXPECT_EQ(limits.of(free), nullptr);
  auto limited = make_namespace(store, "limited", {.bandwidth_bytes_per_second = 1'000'000});
  auto other = make_namespace(store, "other", {.bandwidth_bytes_per_second = 1'000'000});
  const auto owed = limits.of(limited)->spend(1'000'000);  // its connection goes away
  EXPECT_EQ(limits.of(limited)->spend(0), owed);
  EXPECT_LE(limits.of(other)->spend(0), clock.now());
  ASSERT_OK(store.drop("limited"));
  limited.reset();
  limited = make_namespace(store, "limited", {.bandwidth_bytes_per_second = 1'000'000});
  EXPECT_LE(limits.of(limited)->spend(0), clock.now());
}

}  // namespace
}  // namespace millrace
