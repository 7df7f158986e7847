// What the tiers move a second: demotion and promotion of objects of 16 MiB through the store, to be held against
// disk_bench on the same directory.
//
//   tier_bench DIR BYTES auto|reserve|off     prints {"demoteBytesPerSecond":x,"promoteBytesPerSecond":x}
//
// The last says of what pages memory is made, as `millrace serve --huge-pages` does.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "store/store.h"

namespace {

using namespace millrace;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kObjectBytes = 16 * MiB;

[[noreturn]] void fail(const Status& status) {
  std::fprintf(stderr, "tier_bench: %s\n", status.message().c_str());
  std::exit(1);
}

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

}  // namespace

int main(int count, char** arguments) {
  const std::string pages = count == 4 ? arguments[3] : "";
  const uint64_t bytes = count == 4 ? std::strtoull(arguments[2], nullptr, 10) : 0;
  const uint64_t objects = bytes / kObjectBytes;
  Store::Options options;
  options.dram.huge_pages = pages == "reserve" ? HugePages::kReserve : pages == "off" ? HugePages::kOff : HugePages::kAuto;
  if (objects == 0 || (pages != "auto" && pages != "reserve" && pages != "off")) {
    std::fprintf(stderr, "usage: tier_bench DIR BYTES (at least %llu) auto|reserve|off\n",
                 static_cast<unsigned long long>(kObjectBytes));
    return 2;
  }
  // All of it fits at first. Demotion is then told to go down to nearly nothing.
  options.dram.limit_bytes = 2 * objects * kObjectBytes + 256 * MiB;
  options.nvme.directories = {{arguments[1], 4 * objects * kObjectBytes + 256 * MiB}};
  options.nvme.node_id = "bench";
  options.high_watermark = options.low_watermark = 1;
  Store store(options);
  if (Status failed = store.open(); !failed.ok()) fail(failed);
  auto ns = store.create("bench", {});
  if (!ns.ok()) fail(ns.status());
  std::vector<uint8_t> object(kObjectBytes);
  for (uint64_t i = 0; i < kObjectBytes; ++i) object[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  for (uint64_t i = 0; i < objects; ++i) {
    auto put = (*ns)->put("object" + std::to_string(i), {object.data(), object.size()}, {});
    if (!put.ok()) fail(put.status());
  }

  store.set_watermarks(0.01, 0.01);
  auto begin = Clock::now();
  const uint64_t wanted = (objects - 4) * kObjectBytes;  // those still open for writing stay
  while ((*ns)->stats().demoted_bytes < wanted) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double demote = static_cast<double>((*ns)->stats().demoted_bytes) / seconds_since(begin);

  store.set_watermarks(1, 1);
  begin = Clock::now();
  for (int reads = 0; reads < 2; ++reads) {
    for (uint64_t i = 0; i < objects; ++i) (*ns)->note_read("object" + std::to_string(i));
  }
  while ((*ns)->stats().promoted_bytes < wanted) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double promote = static_cast<double>((*ns)->stats().promoted_bytes) / seconds_since(begin);
  std::printf("{\"demoteBytesPerSecond\":%.0f,\"promoteBytesPerSecond\":%.0f}\n", demote, promote);
  return 0;
}
