// What a C++ client sees of a daemon, without Node.
//
//   client_bench (--socket PATH | --tcp HOST:PORT) --namespace N --token HEX [--daemon-pid PID] MODE [options]
//   client_bench --embedded shm|tcp MODE [options]      a daemon of its own in a child process
//
//   get    random gets of --keys objects of --size bytes; over TCP with --in-flight requests
//   put    puts of --size bytes over --keys keys, pipelined (shm: through the seal ring)
//   meta   rounds of put (empty), head, delete over TCP or the Unix socket, --in-flight requests
//
//   --seconds S (2), --size BYTES (1024), --keys N (10000), --in-flight N (64)
//
// Prints one JSON document. daemonCpuSeconds is what the daemon's process used meanwhile, where its pid is known.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "transport/client.h"
#include "transport/server.h"
#include "transport/shm/shm_client.h"

namespace millrace {
namespace {

using Clock = std::chrono::steady_clock;
using wire::Opcode;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

[[noreturn]] void die(const std::string& message, int code = 1) {
  std::fprintf(stderr, "client_bench: %s\n", message.c_str());
  std::exit(code);
}
void check(const Status& status) {
  if (!status.ok()) die(std::string(code_name(status.code())) + ": " + status.message());
}

// User and system time of a process so far; 0 where it is not known.
double cpu_seconds(pid_t pid) {
  if (pid <= 0) return 0;
  std::ifstream file("/proc/" + std::to_string(pid) + "/schedstat");
  std::string line;
  // Threads are summed: a process's own schedstat is that of its first thread.
  double total = 0;
  const std::string folder = "/proc/" + std::to_string(pid) + "/task";
  for (int missed = 0, tid = pid; missed < 64; ++tid) {
    std::ifstream task(folder + "/" + std::to_string(tid) + "/schedstat");
    unsigned long long nanoseconds;
    if (task >> nanoseconds) {
      total += static_cast<double>(nanoseconds) * 1e-9;
      missed = 0;
    } else {
      ++missed;
    }
  }
  return total;
}

struct Settings {
  std::string mode;
  double seconds = 2;
  uint64_t size = 1024;
  uint64_t keys = 10000;
  uint64_t in_flight = 64;
  pid_t daemon = 0;
};

struct Figures {
  std::map<std::string, double> numbers;
  std::string json(const Settings& settings, const char* transport) const {
    std::ostringstream text;
    text.precision(12);
    text << "{\"mode\":\"" << settings.mode << "\",\"transport\":\"" << transport << "\",\"sizeBytes\":" << settings.size;
    for (const auto& [name, value] : numbers) text << ",\"" << name << "\":" << value;
    text << "}";
    return text.str();
  }
};

std::vector<std::string> make_keys(const Settings& settings) {
  std::vector<std::string> keys;
  for (uint64_t i = 0; i < settings.keys; ++i) keys.push_back("bench/" + std::to_string(i));
  return keys;
}

// Requests kept in flight over a channel that this thread pumps (or its own thread does).
class Pipeline : public Channel::Sink {
 public:
  Pipeline(Channel& channel, uint64_t in_flight) : channel_(channel), in_flight_(in_flight) {}

  // `next` submits one request with this as its sink. Runs until `seconds` have passed; returns replies counted.
  template <class Next>
  uint64_t run(double seconds, Next&& next) {
    const auto begin = Clock::now();
    uint64_t submitted = 0;
    while (seconds_since(begin) < seconds) {
      while (submitted - received() < in_flight_) {
        next();
        ++submitted;
      }
      channel_.flush();
      if (channel_.has_thread()) std::this_thread::sleep_for(std::chrono::microseconds(20));
      else if (!channel_.pump(1000)) check(channel_.lost_status());
    }
    while (received() < submitted) {
      if (channel_.has_thread()) std::this_thread::sleep_for(std::chrono::microseconds(100));
      else if (!channel_.pump(1000)) check(channel_.lost_status());
    }
    if (failed_.load() != 0) die("a request failed with code " + std::to_string(failed_.load()));
    return submitted;
  }
  uint64_t received() const { return received_.load(std::memory_order_relaxed); }

 private:
  void on_reply(uint64_t, ChannelReply& reply) override {
    if (reply.code != Code::kOk) failed_.store(static_cast<int>(reply.code));
    received_.fetch_add(1, std::memory_order_relaxed);
  }
  Channel& channel_;
  const uint64_t in_flight_;
  std::atomic<uint64_t> received_{0};
  std::atomic<int> failed_{0};
};

struct KeyRequest {
  wire::ObjectRequest body{};
  Channel::Request request;
  KeyRequest(Opcode opcode, std::string_view key, Channel::Sink* sink) : request{opcode, &body, sizeof(body), key} {
    body.key_bytes = static_cast<uint16_t>(key.size());
    request.sink = sink;
  }
};

void push_put(ShmClient& client, std::string_view key, ConstSpan data, uint64_t* position) {
  for (;;) {
    const auto pushed = client.try_put(key, data.data, data.bytes, position);
    if (pushed == ShmClient::Push::kPushed) return;
    check(client.take_grant_failure());
    check(client.channel()->lost_status());
    if (pushed == ShmClient::Push::kRingFull) client.spin_acked(client.pushed() - limits::kSealRingSlots / 2, 1000);
    else client.wait_mail(100);
  }
}

void fill(Client& client, const Settings& settings, const std::vector<std::string>& keys) {
  const std::vector<uint8_t> data(settings.size, 'x');
  if (auto* shm = dynamic_cast<ShmClient*>(&client); shm != nullptr && settings.size <= ShmClient::kSharedEntryBytesMax) {
    uint64_t position = 0;
    for (const std::string& key : keys) push_put(*shm, key, {data.data(), data.size()}, &position);
    check(shm->wait_acked(position));
    return;
  }
  for (const std::string& key : keys) check(client.put(key, {data.data(), data.size()}, {}).status());
}

double percentile(std::vector<double>& values, double share) {
  const auto at = static_cast<size_t>(share * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), values.begin() + static_cast<long>(at), values.end());
  return values[at];
}

void get_local(ShmClient& client, const Settings& settings, const std::vector<std::string>& keys, Figures* figures) {
  std::mt19937_64 random(1);
  std::vector<uint32_t> order(1 << 16);
  for (uint32_t& one : order) one = static_cast<uint32_t>(random() % keys.size());
  ShmClient::Located found;
  uint64_t sum = 0;
  for (const std::string& key : keys) {  // maps the segments
    if (client.locate(key, &found) != Code::kOk) die("a key is missing");
    sum += found.segment->data[found.payload_offset];
  }
  const auto begin = Clock::now();
  uint64_t operations = 0;
  while (seconds_since(begin) < settings.seconds) {
    for (uint32_t which : order) {
      if (client.locate(keys[which], &found) != Code::kOk) die("a key is missing");
      sum += found.segment->data[found.payload_offset];
    }
    operations += order.size();
  }
  const double seconds = seconds_since(begin);
  // One by one: what one clock read costs is taken off.
  std::vector<double> latency, empty;
  for (uint32_t which : order) {
    const auto before = Clock::now();
    client.locate(keys[which], &found);
    const auto after = Clock::now();
    const auto again = Clock::now();
    latency.push_back(std::chrono::duration<double>(after - before).count());
    empty.push_back(std::chrono::duration<double>(again - after).count());
  }
  const double clock = percentile(empty, 0.5);
  figures->numbers["operations"] = static_cast<double>(operations);
  figures->numbers["opsPerSecond"] = static_cast<double>(operations) / seconds;
  figures->numbers["latency_us_p50"] = (percentile(latency, 0.5) - clock) * 1e6;
  figures->numbers["latency_us_p99"] = (percentile(latency, 0.99) - clock) * 1e6;
  figures->numbers["checksum"] = static_cast<double>(sum & 0xff);
}

void put_local(ShmClient& client, const Settings& settings, const std::vector<std::string>& keys, Figures* figures) {
  const std::vector<uint8_t> data(settings.size, 'x');
  const ConstSpan span{data.data(), data.size()};
  uint64_t operations = 0;
  uint64_t position = 0;
  const bool small = settings.size <= ShmClient::kSharedEntryBytesMax;
  auto put = [&](const std::string& key) {
    if (small) push_put(client, key, span, &position);
    else check(client.put(key, span, {}).status());
    ++operations;
  };
  for (size_t i = 0; i < std::min<size_t>(keys.size(), small ? keys.size() : 2); ++i) put(keys[i]);
  if (small) check(client.wait_acked(position));
  operations = 0;
  const auto begin = Clock::now();
  for (size_t i = 0; seconds_since(begin) < settings.seconds;) {
    for (int batch = 0; batch < (small ? 64 : 1); ++batch, i = (i + 1) % keys.size()) put(keys[i]);
  }
  if (small) check(client.wait_acked(position));
  const double seconds = seconds_since(begin);
  std::vector<double> latency;
  for (int i = 0; i < (small ? 2000 : 3); ++i) {
    const auto before = Clock::now();
    check(client.put(keys[static_cast<size_t>(i) % keys.size()], span, {}).status());
    latency.push_back(seconds_since(before));
  }
  // The rival of a large put: memcpy into memory that is there already.
  std::vector<uint8_t> to(std::max<uint64_t>(settings.size, 1), 0);
  const auto copy_begin = Clock::now();
  uint64_t copies = 0;
  while (seconds_since(copy_begin) < 0.3) {
    std::memcpy(to.data(), data.data(), data.size());
    asm volatile("" : : "r"(to.data()) : "memory");
    ++copies;
  }
  const double copy_seconds = seconds_since(copy_begin);
  figures->numbers["operations"] = static_cast<double>(operations);
  figures->numbers["opsPerSecond"] = static_cast<double>(operations) / seconds;
  figures->numbers["bytesPerSecond"] = static_cast<double>(operations * settings.size) / seconds;
  figures->numbers["memcpyBytesPerSecond"] = static_cast<double>(copies * settings.size) / copy_seconds;
  figures->numbers["latency_us_p50"] = percentile(latency, 0.5) * 1e6;
}

void over_channel(Client& client, const Settings& settings, const std::vector<std::string>& keys, Figures* figures) {
  Channel& channel = *client.channel();
  Pipeline pipeline(channel, settings.in_flight);
  const std::vector<uint8_t> data(settings.size, 'x');
  std::mt19937_64 random(1);
  uint64_t step = 0;
  auto submit = [&](KeyRequest& key) { check(channel.submit(key.request).status()); };
  const auto begin = Clock::now();
  const uint64_t operations = pipeline.run(settings.seconds, [&] {
    if (settings.mode == "get") {
      KeyRequest request(Opcode::kGet, keys[random() % keys.size()], &pipeline);
      submit(request);
    } else if (settings.mode == "put") {
      KeyRequest request(Opcode::kPut, keys[step++ % keys.size()], &pipeline);
      request.request.payload = {data.data(), data.size()};
      request.request.has_payload = true;
      submit(request);
    } else {
      // create and seal, look up, delete
      const std::string& key = keys[step / 3 % keys.size()];
      const Opcode opcodes[] = {Opcode::kPut, Opcode::kHead, Opcode::kDelete};
      KeyRequest request(opcodes[step++ % 3], key, &pipeline);
      request.request.has_payload = request.request.opcode == Opcode::kPut;
      submit(request);
    }
  });
  const double seconds = seconds_since(begin);
  figures->numbers["operations"] = static_cast<double>(operations);
  figures->numbers["opsPerSecond"] = static_cast<double>(operations) / seconds;
  figures->numbers["inFlight"] = static_cast<double>(settings.in_flight);
  if (settings.mode != "meta") {
    figures->numbers["bytesPerSecond"] = static_cast<double>(operations * settings.size) / seconds;
  }
}

constexpr Token kEmbeddedToken{1, 2, 3};

// A store and a server in a child process, which ends with this one.
pid_t start_embedded(bool shm, ChannelOptions* options) {
  int ready[2];
  if (pipe(ready) != 0) die("pipe");
  const std::string path = "/tmp/millrace-bench-" + std::to_string(getpid());
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    Store::Options store_options;
    store_options.dram.limit_bytes = 6 * GiB;
    store_options.dram.huge_pages = HugePages::kAuto;
    Store store(store_options);
    auto ns = store.create("bench", {.token = kEmbeddedToken});
    check(ns.status());
    ServerOptions server_options;
    if (shm) server_options.socket_path = path;
    else server_options.data_host = "127.0.0.1";
    Server server(store, server_options);
    check(server.start());
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    const std::string address = server.data_address() + "\n";
    if (write(ready[1], address.data(), address.size()) < 0) std::_Exit(1);
    int signal;
    sigwait(&signals, &signal);
    server.stop();
    std::_Exit(0);
  }
  close(ready[1]);
  char address[256] = {};
  if (read(ready[0], address, sizeof(address) - 1) <= 0) die("the embedded daemon did not start");
  close(ready[0]);
  options->namespace_name = "bench";
  options->token = kEmbeddedToken;
  if (shm) {
    options->socket_path = path;
  } else {
    options->host = "127.0.0.1";
    options->port = static_cast<uint16_t>(std::atoi(std::strrchr(address, ':') + 1));
  }
  return child;
}

int run(int argc, char** argv) {
  Settings settings;
  ChannelOptions options;
  std::string embedded;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--json") continue;  // always
    if (!name.starts_with("--")) {
      settings.mode = name;
      continue;
    }
    if (i + 1 >= argc) die(name + " wants a value", 2);
    const std::string value = argv[++i];
    if (name == "--socket") options.socket_path = value;
    else if (name == "--tcp") {
      const size_t colon = value.rfind(':');
      if (colon == std::string::npos) die("--tcp wants HOST:PORT", 2);
      options.host = value.substr(0, colon);
      options.port = static_cast<uint16_t>(std::atoi(value.c_str() + colon + 1));
    } else if (name == "--namespace") options.namespace_name = value;
    else if (name == "--token") {
      if (value.size() != 32) die("--token wants 32 hexadecimal digits", 2);
      for (size_t at = 0; at < 16; ++at) {
        options.token[at] = static_cast<uint8_t>(std::stoul(value.substr(2 * at, 2), nullptr, 16));
      }
    } else if (name == "--daemon-pid") settings.daemon = std::atoi(value.c_str());
    else if (name == "--embedded") embedded = value;
    else if (name == "--seconds") settings.seconds = std::atof(value.c_str());
    else if (name == "--size") settings.size = std::strtoull(value.c_str(), nullptr, 10);
    else if (name == "--keys") settings.keys = std::max(1ull, std::strtoull(value.c_str(), nullptr, 10));
    else if (name == "--in-flight") settings.in_flight = std::max(1ull, std::strtoull(value.c_str(), nullptr, 10));
    else die("unknown option " + name, 2);
  }
  if (settings.mode != "get" && settings.mode != "put" && settings.mode != "meta") die("MODE is get, put or meta", 2);
  pid_t child = 0;
  if (!embedded.empty()) settings.daemon = child = start_embedded(embedded == "shm", &options);
  const std::vector<std::string> keys = make_keys(settings);
  auto connected = Client::connect(options);
  check(connected.status());
  Client& client = **connected;
  auto* shm = dynamic_cast<ShmClient*>(&client);
  if (settings.mode == "get") fill(client, settings, keys);
  Figures figures;
  const double cpu = cpu_seconds(settings.daemon);
  if (settings.mode == "meta" || shm == nullptr) over_channel(client, settings, keys, &figures);
  else if (settings.mode == "get") get_local(*shm, settings, keys, &figures);
  else put_local(*shm, settings, keys, &figures);
  if (settings.daemon > 0) {
    const double used = cpu_seconds(settings.daemon) - cpu;
    figures.numbers["daemonCpuSeconds"] = used;
    if (used > 0) figures.numbers["opsPerDaemonCpuSecond"] = figures.numbers["operations"] / used;
  }
  std::printf("%s\n", figures.json(settings, client.kind()).c_str());
  client.close();
  if (child > 0) {
    kill(child, SIGTERM);
    waitpid(child, nullptr, 0);
  }
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::run(argc, argv); }
