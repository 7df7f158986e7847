// Clients of a server that a test runs.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "test/test_support.h"
#include "transport/client.h"
#include "transport/server.h"

namespace millrace::test {

inline uint16_t data_port(const Server& server) {
  const std::string& address = server.data_address();
  return static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

// Over the Unix socket or over TCP.
inline ChannelOptions options_for(const Server& server, bool shm, std::string_view ns, const Token& token) {
  ChannelOptions options;
  if (shm) {
    options.socket_path = server.socket_path();
  } else {
    options.host = "127.0.0.1";
    options.port = data_port(server);
  }
  options.namespace_name = ns;
  options.token = token;
  return options;
}

inline std::unique_ptr<Client> connect(const ChannelOptions& options) {
  auto client = Client::connect(options);
  EXPECT_OK(client);
  return client.ok() ? std::move(*client) : nullptr;
}

}  // namespace millrace::test
