// Feeds bytes to the daemon's side of a connection, as an I/O thread would: in pieces, taking its output. The first
// byte chooses the kind of socket and whether a valid hello comes first. Frames get their magic, version and
// checksum repaired now and then, or nothing would ever be parsed beyond the header. Some short keys name objects in
// files; now and then the connection ends while they are read.
#include <stdlib.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <vector>

#include "base/assert.h"
#include "test/file_objects.h"
#include "transport/connection.h"

namespace {

using namespace millrace;

constexpr Token kToken{9, 8, 7};

// Where the files are; gone at the end.
struct Folder {
  Folder() { MILLRACE_ASSERT(mkdtemp(path) != nullptr); }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  char path[32] = "/tmp/millrace-fuzz-XXXXXX";
};

Store& store() {
  static const Folder folder;
  static Store* const instance = [] {
    Store::Options options;
    options.dram.limit_bytes = 64 * MiB;
    options.dram.huge_pages = HugePages::kOff;
    options.nvme.directories = {{folder.path, 256 * MiB}};
    options.nvme.node_id = "fuzz";
    options.low_watermark = 0;  // what lies in files stays there
    auto* made = new Store(options);
    MILLRACE_ASSERT(made->open().ok());
    MILLRACE_ASSERT(made->create("fuzz", {.token = kToken}).ok());
    return made;
  }();
  return *instance;
}

// The input may have deleted them, or written others under their keys.
void put_objects_in_files() {
  static const std::vector<uint8_t> data(3 * MiB, 7);
  const auto ns = store().find("fuzz");
  for (const auto& [key, bytes] : {std::pair("a", uint64_t{100}), std::pair("b", 70 * KiB), std::pair("c", data.size())}) {
    if (auto view = ns->get(key); view.ok() && view->in_files()) continue;
    (void)test::put_in_extents(*ns, key, {data.data(), bytes}, {{bytes / 2}, {bytes - bytes / 2}});  // where there is room
  }
}

// Rings when reads of files have arrived.
struct Arrivals {
  std::mutex mutex;
  std::condition_variable arrived;
  uint64_t count = 0;
  uint64_t seen = 0;
  void ring() {
    std::lock_guard lock(mutex);
    ++count;
    arrived.notify_one();
  }
  void wait() {
    std::unique_lock lock(mutex);
    arrived.wait(lock, [&] { return count != seen; });
    seen = count;
  }
};

void take_output(Connection& connection) {
  while (!connection.output().empty()) {
    iovec vectors[16];
    const std::vector<PassedDescriptor>* descriptors = nullptr;
    const size_t count = connection.output().front(vectors, 16, &descriptors);
    size_t bytes = 0;
    uint8_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      for (size_t at = 0; at < vectors[i].iov_len; at += 64) sum ^= static_cast<const uint8_t*>(vectors[i].iov_base)[at];
      bytes += vectors[i].iov_len;
    }
    volatile uint8_t sink = sum;
    (void)sink;
    connection.output().sent(bytes);
  }
}

// Hands bytes in as an I/O thread does: what belongs to a large put goes straight to where it belongs.
void feed(Connection& connection, const std::vector<uint8_t>& bytes, size_t piece) {
  std::vector<uint8_t> buffer;
  size_t at = 0;
  while (at < bytes.size() && !connection.closing()) {
    iovec vectors[4];
    const size_t count = buffer.empty() ? connection.direct_targets(vectors, 4) : 0;
    if (count > 0) {
      const size_t part = std::min({vectors[0].iov_len, bytes.size() - at, piece});
      std::memcpy(vectors[0].iov_base, bytes.data() + at, part);
      at += part;
      connection.direct_filled(part);
    } else {
      const size_t part = std::min(bytes.size() - at, piece);
      buffer.insert(buffer.end(), bytes.begin() + static_cast<long>(at), bytes.begin() + static_cast<long>(at + part));
      at += part;
      const size_t used = connection.consume(buffer.data(), buffer.size());
      MILLRACE_ASSERT(used <= buffer.size());
      buffer.erase(buffer.begin(), buffer.begin() + static_cast<long>(used));
      MILLRACE_ASSERT(connection.closing() || buffer.size() <= Connection::kLeftoverBytesMax || !connection.wants_input());
    }
    connection.drain_ring();
    take_output(connection);
  }
}

std::vector<uint8_t> hello() {
  wire::HelloRequest request{};
  std::memcpy(request.token, kToken.data(), sizeof(request.token));
  request.name_bytes = 4;
  std::vector<uint8_t> body(sizeof(request) + 4);
  std::memcpy(body.data(), &request, sizeof(request));
  std::memcpy(body.data() + sizeof(request), "fuzz", 4);
  wire::FrameHeader header{};
  header.opcode = wire::Opcode::kHello;
  header.body_bytes = static_cast<uint32_t>(body.size());
  header.request_id = 1;
  wire::seal_frame(header, body.data());
  std::vector<uint8_t> frame(sizeof(header) + body.size());
  std::memcpy(frame.data(), &header, sizeof(header));
  std::memcpy(frame.data() + sizeof(header), body.data(), body.size());
  return frame;
}

// Makes the input a run of frames that parse: each gets magic, version and checksum.
void repair(std::vector<uint8_t>& bytes) {
  for (size_t at = 0; at + sizeof(wire::FrameHeader) <= bytes.size();) {
    wire::FrameHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    header.body_bytes %= 256;
    header.payload_bytes %= 200000;
    header.flags &= wire::kFlagPayloadCrc;
    header.status = 0;
    header.descriptors = 0;
    if ((header.flags & wire::kFlagPayloadCrc) == 0) header.payload_crc = 0;
    const size_t left = bytes.size() - at - sizeof(header);
    if (header.body_bytes > left) return;
    wire::seal_frame(header, bytes.data() + at + sizeof(header));
    std::memcpy(bytes.data() + at, &header, sizeof(header));
    at += sizeof(header) + header.body_bytes + header.payload_bytes;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const uint8_t mode = data[0];
  const size_t piece = data[1] == 0 ? 1 << 20 : data[1];
  std::vector<uint8_t> bytes(data + 2, data + size);
  if ((mode & 4) != 0) repair(bytes);
  put_objects_in_files();
  const ServerFace face{"fuzz", [] { return std::string("127.0.0.1:1"); }};
  Arrivals arrivals;
  Connection connection((mode & 1) != 0 ? Connection::Kind::kUnix : Connection::Kind::kTcp, store(), face);
  connection.on_reads([&arrivals] { arrivals.ring(); });
  if ((mode & 2) != 0) feed(connection, hello(), 1 << 20);
  feed(connection, bytes, piece);
  while ((mode & 8) == 0 && connection.reading()) {
    arrivals.wait();
    connection.take_reads();
    take_output(connection);
    connection.take_reads();
  }
  return 0;
}
