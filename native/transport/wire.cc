#include "transport/wire.h"

namespace millrace::wire {

bool opcode_known(uint8_t opcode) {
  switch (static_cast<Opcode>(opcode)) {
    case Opcode::kHello:
    case Opcode::kPut:
    case Opcode::kGet:
    case Opcode::kHead:
    case Opcode::kDelete:
    case Opcode::kCopy:
    case Opcode::kList:
    case Opcode::kBegin:
    case Opcode::kAppend:
    case Opcode::kCommit:
    case Opcode::kAbort:
    case Opcode::kReserve:
    case Opcode::kGiveBack:
    case Opcode::kSeal:
    case Opcode::kOpenSegment:
    case Opcode::kConfirmUnmapped:
    case Opcode::kNoteRead:
    case Opcode::kSegmentRetired:
    case Opcode::kNamespaceDropped:
    case Opcode::kGoodbye:
      return true;
  }
  return false;
}

void seal_frame(FrameHeader& header, const void* body) {
  header.magic = kFrameMagic;
  header.version = kProtocolVersion;
  header.frame_crc = crc32c(crc32c(0, &header, offsetof(FrameHeader, frame_crc)), body, header.body_bytes);
}

Status check_header(const FrameHeader& header, bool from_server) {
  if (header.magic != kFrameMagic) return {Code::kProtocol, "not a Millrace frame: wrong magic"};
  if (header.version != kProtocolVersion) {
    return {Code::kUnsupported, "protocol version " + std::to_string(header.version) + "; this side speaks version " +
                                    std::to_string(kProtocolVersion)};
  }
  if (!opcode_known(static_cast<uint8_t>(header.opcode))) {
    return {Code::kUnsupported, "unknown opcode " + std::to_string(static_cast<int>(header.opcode))};
  }
  if ((header.flags & ~kFlagsKnown) != 0) return {Code::kUnsupported, "unknown flags in a frame"};
  if (((header.flags & kFlagReply) != 0) != from_server) return {Code::kProtocol, "frame sent by the wrong side"};
  if ((header.flags & kFlagMore) != 0 && (!from_server || header.opcode != Opcode::kGet)) {
    return {Code::kProtocol, "only the reply to a get comes in pieces"};
  }
  const bool pushed = header.opcode >= Opcode::kSegmentRetired;
  if (pushed && !from_server) return {Code::kProtocol, "only the server sends such a frame"};
  if (!from_server && (header.status != 0 || header.descriptors != 0)) {
    return {Code::kProtocol, "a request with a status or descriptors"};
  }
  if (header.descriptors > 4) return {Code::kProtocol, "too many descriptors in a frame"};
  const uint64_t body_bytes_max = from_server ? limits::kFrameBodyBytesMax : kRequestBodyBytesMax;
  if (header.body_bytes > body_bytes_max) return {Code::kProtocol, "frame body too large"};
  if (header.payload_bytes > limits::kObjectBytesMax) return {Code::kObjectTooLarge, "frame payload too large"};
  if ((header.flags & kFlagPayloadCrc) == 0 && header.payload_crc != 0) {
    return {Code::kProtocol, "a checksum without its flag"};
  }
  return {};
}

}  // namespace millrace::wire
