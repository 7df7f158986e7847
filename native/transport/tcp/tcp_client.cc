#include "transport/tcp/tcp_client.h"

namespace millrace {

using wire::Opcode;

Result<ObjectInfo> TcpClient::put(std::string_view key, ConstSpan bytes, Condition condition) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.size());
  body.if_sequence = condition.if_sequence;
  body.if_absent = condition.if_absent;
  Channel::Request request{Opcode::kPut, &body, sizeof(body), key};
  request.payload = bytes;
  request.has_payload = true;
  return call_for_info(request);
}

Result<ClientObject> TcpClient::get(std::string_view key, uint64_t offset, uint64_t length) {
  if (Status bad = check_key(key); !bad.ok()) return bad;
  wire::ObjectRequest body{};
  body.key_bytes = static_cast<uint16_t>(key.size());
  body.offset = offset;
  body.length = length;
  Channel::Request request{Opcode::kGet, &body, sizeof(body), key};
  ClientObject object;
  Status status = channel_->call(request, [&](ChannelReply& reply) {
    wire::ObjectReply answer{};
    reply.read(&answer);
    object.info = wire::from_wire(answer);
    if (reply.buffer) {
      auto buffer = std::make_shared<PayloadBuffer>(std::move(reply.buffer));
      object.spans.push_back({buffer->data(), reply.payload.bytes});
      object.keepers.push_back(std::move(buffer));
    } else if (reply.payload.bytes > 0) {
      auto copy = std::make_shared<std::vector<uint8_t>>(reply.payload.data, reply.payload.data + reply.payload.bytes);
      object.spans.push_back({copy->data(), copy->size()});
      object.keepers.push_back(std::move(copy));
    }
  });
  if (status.code() == Code::kChecksumMismatch) {
    return Status(status.code(), "object '" + std::string(key) + "': " + status.message());
  }
  if (!status.ok()) return status;
  return object;
}

}  // namespace millrace
