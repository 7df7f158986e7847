// One interface for the native transports, shm and tcp, bound to one namespace. Calls block; one thread uses a
// client at a time. Pipelined work goes through `channel()` (any transport) or ShmClient's pushes.
#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "transport/channel.h"

namespace millrace {

struct ClientObject {
  ObjectInfo info;
  std::vector<ConstSpan> spans;             // of the range asked for, in order
  std::vector<std::shared_ptr<void>> keepers;  // the bytes stay while these live
};

class Client {
 public:
  // The Unix socket where a path is given, else TCP.
  static Result<std::unique_ptr<Client>> connect(const ChannelOptions& options);
  virtual ~Client() = default;

  virtual const char* kind() const = 0;
  virtual Result<ObjectInfo> put(std::string_view key, ConstSpan bytes, Condition condition) = 0;
  // Length 0 means to the end. NOT_FOUND, OUT_OF_RANGE, CHECKSUM_MISMATCH (tcp).
  virtual Result<ClientObject> get(std::string_view key, uint64_t offset, uint64_t length) = 0;
  virtual void close() = 0;

  Result<ObjectInfo> head(std::string_view key);
  Result<bool> remove(std::string_view key, Condition condition);
  Result<ObjectInfo> copy(std::string_view from, std::string_view to, Condition condition);
  Result<ListPage> list(std::string_view prefix, std::string_view start_after, uint32_t limit);

  const std::shared_ptr<Channel>& channel() const { return channel_; }
  const ServerGreeting& greeting() const { return greeting_; }

 protected:
  Client(std::shared_ptr<Channel> channel, ServerGreeting greeting)
      : channel_(std::move(channel)), greeting_(std::move(greeting)) {}
  Result<ObjectInfo> call_for_info(const Channel::Request& request);

  std::shared_ptr<Channel> channel_;
  ServerGreeting greeting_;
};

// The entries of a listing's payload; kProtocol where it does not parse.
Result<ListPage> parse_list(const wire::ListReply& reply, ConstSpan payload);

}  // namespace millrace
