#include "transport/client.h"

#include "transport/shm/shm_client.h"
#include "transport/tcp/tcp_client.h"

namespace millrace {

using wire::Opcode;

Result<std::unique_ptr<Client>> Client::connect(const ChannelOptions& options) {
  ServerGreeting greeting;
  auto channel = Channel::connect(options, &greeting);
  if (!channel.ok()) return channel.status();
  if (options.socket_path.empty()) {
    return std::unique_ptr<Client>(new TcpClient(std::move(*channel), std::move(greeting)));
  }
  auto client = ShmClient::create(std::move(*channel), std::move(greeting), nullptr);
  if (!client.ok()) return client.status();
  (*client)->channel()->start_thread("millrace-shm");
  return std::unique_ptr<Client>(std::move(*client));
}

Result<ObjectInfo> Client::call_for_info(const Channel::Request& request) {
  Result<ObjectInfo> result(Code::kProtocol, "the reply does not fit the request");
  Status status = channel_->call(request, [&](ChannelReply& reply) {
    wire::ObjectReply answer;
    if (reply.read(&answer)) result = wire::from_wire(answer);
  });
  if (!status.ok()) return status;
  return result;
}

Result<ObjectInfo> Client::head(std::string_view key) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.size());
  Channel::Request request{Opcode::kHead, &body, sizeof(body), key};
  return call_for_info(request);
}

Result<bool> Client::remove(std::string_view key, Condition condition) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.size());
  body.if_sequence = condition.if_sequence;
  body.if_absent = condition.if_absent;
  Channel::Request request{Opcode::kDelete, &body, sizeof(body), key};
  bool existed = false;
  Status status = channel_->call(request, [&](ChannelReply& reply) {
    wire::DeleteReply answer{};
    reply.read(&answer);
    existed = answer.existed != 0;
  });
  if (!status.ok()) return status;
  return existed;
}

Result<ObjectInfo> Client::copy(std::string_view from, std::string_view to, Condition condition) {
  if (Status bad = check_key(from); !bad.ok()) return bad;
  if (Status bad = check_key(to); !bad.ok()) return bad;
  wire::CopyRequest body{};
  body.from_bytes = static_cast<uint16_t>(from.size());
  body.to_bytes = static_cast<uint16_t>(to.size());
  body.if_sequence = condition.if_sequence;
  body.if_absent = condition.if_absent;
  Channel::Request request{Opcode::kCopy, &body, sizeof(body), from, to};
  return call_for_info(request);
}

Result<ListPage> parse_list(const wire::ListReply& reply, ConstSpan payload) {
  ListPage page;
  page.truncated = reply.truncated != 0;
  for (uint32_t i = 0; i < reply.objects; ++i) {
    wire::ListedEntry entry;
    if (payload.bytes < sizeof(entry)) return Status(Code::kProtocol, "a listing that ends early");
    std::memcpy(&entry, payload.data, sizeof(entry));
    if (payload.bytes - sizeof(entry) < entry.key_bytes) return Status(Code::kProtocol, "a listing that ends early");
    page.objects.push_back({std::string(reinterpret_cast<const char*>(payload.data) + sizeof(entry), entry.key_bytes),
                            wire::from_wire(entry.info)});
    payload.data += sizeof(entry) + entry.key_bytes;
    payload.bytes -= sizeof(entry) + entry.key_bytes;
  }
  return page;
}

Result<ListPage> Client::list(std::string_view prefix, std::string_view start_after, uint32_t limit) {
  if (prefix.size() > limits::kKeyBytesMax || start_after.size() > limits::kKeyBytesMax) {
    return Status(Code::kKeyTooLong, "a prefix is at most as long as a key");
  }
  wire::ListRequest body{limit, static_cast<uint16_t>(prefix.size()), static_cast<uint16_t>(start_after.size())};
  Channel::Request request{Opcode::kList, &body, sizeof(body), prefix, start_after};
  Result<ListPage> page(Code::kProtocol, "the reply does not fit the request");
  Status status = channel_->call(request, [&](ChannelReply& reply) {
    wire::ListReply answer;
    if (reply.read(&answer)) page = parse_list(answer, reply.payload);
  });
  if (!status.ok()) return status;
  return page;
}

}  // namespace millrace
