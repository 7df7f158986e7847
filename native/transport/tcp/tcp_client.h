// Objects over TCP: one request and one reply each, checked by CRC32C.
#pragma once
#include "transport/client.h"

namespace millrace {

class TcpClient final : public Client {
 public:
  TcpClient(std::shared_ptr<Channel> channel, ServerGreeting greeting)
      : Client(std::move(channel), std::move(greeting)) {}

  const char* kind() const override { return "tcp"; }
  Result<ObjectInfo> put(std::string_view key, ConstSpan bytes, Condition condition) override;
  Result<ClientObject> get(std::string_view key, uint64_t offset, uint64_t length) override;
  void close() override { channel_->stop(); }
};

}  // namespace millrace
