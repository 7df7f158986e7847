// The rival of the TCP transport: a plain C copy through a loopback TCP socket. One thread writes, one reads.
//
//   socket_copy [--bytes N] [--size N]     prints {"bytes":N,"sizeBytes":N,"seconds":s,"bytesPerSecond":x}
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t total = 4ull << 30;
  uint64_t size = 1 << 20;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--bytes") == 0) total = std::strtoull(argv[i + 1], nullptr, 10);
    else if (std::strcmp(argv[i], "--size") == 0) size = std::strtoull(argv[i + 1], nullptr, 10);
    else {
      std::fprintf(stderr, "usage: socket_copy [--bytes N] [--size N]\n");
      return 2;
    }
  }
  if (size == 0 || total < size) return 2;
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t address_bytes = sizeof(address);
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, 1) != 0 || getsockname(listener, reinterpret_cast<sockaddr*>(&address), &address_bytes) != 0) {
    fail("listen");
  }
  const uint64_t rounds = total / size;
  const auto begin = std::chrono::steady_clock::now();
  std::thread writer([&] {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) fail("connect");
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    std::vector<char> data(size, 'x');
    for (uint64_t round = 0; round < rounds; ++round) {
      for (uint64_t at = 0; at < size;) {
        const ssize_t sent = send(fd, data.data() + at, size - at, MSG_NOSIGNAL);
        if (sent <= 0) fail("send");
        at += static_cast<uint64_t>(sent);
      }
    }
    close(fd);
  });
  const int fd = accept(listener, nullptr, nullptr);
  if (fd < 0) fail("accept");
  std::vector<char> data(size);
  uint64_t received = 0;
  for (;;) {
    const ssize_t got = recv(fd, data.data(), data.size(), 0);
    if (got < 0) fail("recv");
    if (got == 0) break;
    received += static_cast<uint64_t>(got);
  }
  writer.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::printf("{\"bytes\":%llu,\"sizeBytes\":%llu,\"seconds\":%.6f,\"bytesPerSecond\":%.0f}\n",
              static_cast<unsigned long long>(received), static_cast<unsigned long long>(size), seconds,
              static_cast<double>(received) / seconds);
  return received == rounds * size ? 0 : 1;
}
