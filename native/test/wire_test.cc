#include "transport/wire.h"

#include <gtest/gtest.h>

#include <random>

#include "transport/connection.h"
#include "transport/output_queue.h"
#include "transport/payload_buffer.h"

namespace millrace {
namespace {

using wire::FrameHeader;
using wire::Opcode;

FrameHeader request(Opcode opcode) {
  FrameHeader header{};
  header.opcode = opcode;
  wire::seal_frame(header, nullptr);
  return header;
}

TEST(Wire, SealedFramesPassTheChecks) {
  FrameHeader header{};
  header.opcode = Opcode::kGet;
  header.body_bytes = 3;
  wire::seal_frame(header, "abc");
  EXPECT_TRUE(wire::check_header(header, false).ok());
  EXPECT_TRUE(wire::frame_crc_matches(header, "abc"));
  EXPECT_FALSE(wire::frame_crc_matches(header, "abd"));
  header.request_id ^= 1;
  EXPECT_FALSE(wire::frame_crc_matches(header, "abc"));
}

TEST(Wire, RefusesWhatItDoesNotKnow) {
  auto code = [](auto change, bool from_server = false) {
    FrameHeader header = request(Opcode::kGet);
    if (from_server) header.flags = wire::kFlagReply;
    change(header);
    return wire::check_header(header, from_server).code();
  };
  EXPECT_EQ(code([](FrameHeader&) {}), Code::kOk);
  EXPECT_EQ(code([](FrameHeader&) {}, true), Code::kOk);
  EXPECT_EQ(code([](FrameHeader& h) { h.magic++; }), Code::kProtocol);
  EXPECT_EQ(code([](FrameHeader& h) { h.version++; }), Code::kUnsupported);
  EXPECT_EQ(code([](FrameHeader& h) { h.flags |= 8; }), Code::kUnsupported);
  EXPECT_EQ(code([](FrameHeader& h) { h.flags |= wire::kFlagMore; }), Code::kProtocol);
  EXPECT_EQ(code([](FrameHeader& h) { h.flags |= wire::kFlagMore; }, true), Code::kOk);
  EXPECT_EQ(code([](FrameHeader& h) { h.flags |= wire::kFlagMore, h.opcode = Opcode::kList; }, true), Code::kProtocol);
  EXPECT_EQ(code([](FrameHeader& h) { h.flags |= wire::kFlagReply; }), Code::kProtocol);
  EXPECT_EQ(code([](FrameHeader& h) { h.status = 1; }), Code::kProtocol);
  EXPECT_EQ(code([](FrameHeader& h) { h.payload_bytes = limits::kObjectBytesMax + 1; }), Code::kObjectTooLarge);
  EXPECT_EQ(code([](FrameHeader& h) { h.body_bytes = wire::kRequestBodyBytesMax + 1; }), Code::kProtocol);
  EXPECT_EQ(code([](FrameHeader& h) { h.body_bytes = wire::kRequestBodyBytesMax + 1; }, true), Code::kOk);
  EXPECT_EQ(code([](FrameHeader& h) { h.body_bytes = limits::kFrameBodyBytesMax + 1; }, true), Code::kProtocol);
  EXPECT_EQ(code([](FrameHeader& h) { h.opcode = Opcode::kSegmentRetired; }), Code::kProtocol);
  for (int opcode = 0; opcode < 256; ++opcode) {
    const Code got = code([&](FrameHeader& h) { h.opcode = static_cast<Opcode>(opcode); });
    EXPECT_EQ(got != Code::kUnsupported, wire::opcode_known(static_cast<uint8_t>(opcode))) << opcode;
  }
}

TEST(OutputQueue, GivesBackEveryByteInOrderWhateverIsSent) {
  const uint64_t seed = std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  OutputQueue queue;
  std::string expected, taken;
  std::vector<std::unique_ptr<std::string>> pinned;
  auto take = [&](size_t most) {
    iovec vectors[8];
    const std::vector<PassedDescriptor>* descriptors;
    const size_t count = queue.front(vectors, 8, &descriptors);
    size_t sent = 0;
    for (size_t i = 0; i < count && sent < most; ++i) {
      const size_t part = std::min(vectors[i].iov_len, most - sent);
      taken.append(static_cast<const char*>(vectors[i].iov_base), part);
      sent += part;
    }
    queue.sent(sent);
  };
  for (int step = 0; step < 5000; ++step) {
    std::string bytes(random() % 3000, static_cast<char>('a' + step % 26));
    switch (random() % 4) {
      case 0:
        queue.append(bytes.data(), bytes.size());
        expected += bytes;
        break;
      case 1: {
        pinned.push_back(std::make_unique<std::string>(bytes + bytes));
        const auto* data = reinterpret_cast<const uint8_t*>(pinned.back()->data());
        queue.append_pinned({{data, bytes.size()}, {data, 0}, {data + bytes.size(), bytes.size()}}, nullptr);
        expected += *pinned.back();
        break;
      }
      default:
        take(random() % 6000);
    }
    ASSERT_EQ(queue.queued_bytes(), expected.size() - taken.size());
  }
  while (!queue.empty()) take(1 << 20);
  EXPECT_TRUE(taken == expected);
  EXPECT_EQ(queue.copied_bytes(), 0u);
  EXPECT_EQ(queue.pinned_chunks(), 0u);
}

TEST(OutputQueue, DescriptorsGoWithTheirFirstByteOnce) {
  OutputQueue queue;
  queue.append("one", 3);
  queue.attach({{7, nullptr}});
  queue.append("two", 3);
  queue.append("three", 5);
  iovec vectors[8];
  const std::vector<PassedDescriptor>* descriptors;
  EXPECT_EQ(queue.front(vectors, 8, &descriptors), 1u);  // never across the descriptors' chunk
  EXPECT_EQ(descriptors, nullptr);
  queue.sent(3);
  EXPECT_EQ(queue.front(vectors, 8, &descriptors), 1u);
  ASSERT_NE(descriptors, nullptr);
  EXPECT_EQ(descriptors->front().fd, 7);
  queue.sent(1);
  EXPECT_EQ(queue.front(vectors, 8, &descriptors), 1u);
  EXPECT_EQ(descriptors, nullptr);
  queue.sent(7);
  EXPECT_TRUE(queue.empty());
}

TEST(PayloadPool, UsesBuffersAgain) {
  auto pool = std::make_shared<PayloadPool>();
  uint8_t* first;
  {
    PayloadBuffer buffer = pool->take(3 * MiB);
    ASSERT_TRUE(buffer);
    first = buffer.data();
    first[3 * MiB - 1] = 1;
  }
  PayloadBuffer again = pool->take(3 * MiB);
  EXPECT_EQ(again.data(), first);
  PayloadBuffer other = pool->take(3 * MiB);
  EXPECT_NE(other.data(), first);
  std::weak_ptr<PayloadPool> weak = pool;
  pool.reset();
  EXPECT_FALSE(weak.expired());  // a buffer keeps its pool
}

}  // namespace
}  // namespace millrace
