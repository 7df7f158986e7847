// The frame format of both sockets, Unix and TCP. One frame is:
//
//   0              40                          40 + body_bytes
//   +--------------+---------------------------+------------------------------+
//   | FrameHeader  | body: a fixed struct of   | payload: bytes of an object, |
//   |              | the opcode, then its keys | or the entries of a listing  |
//   +--------------+---------------------------+------------------------------+
//
// Integers are little-endian and structs are sent as they lie in memory. A client may send many requests
// without waiting; replies come in order of completion and carry the request's id. Frames that the server
// sends of its own accord have id 0. What a side does not know (version, opcode, flag, a reserved field that
// is not zero) it refuses. The whole header is checked before anything in it is used.
//
// Requests and the struct that their body starts with (-> the reply's, where it has one):
//
//   kHello          HelloRequest, name                   -> HelloReply, node id, gRPC address; on the Unix
//                                                           socket 4 descriptors: index, ring, wake server,
//                                                           wake client
//   kPut            ObjectRequest, key; payload          -> ObjectReply
//   kGet            ObjectRequest, key                   -> ObjectReply; payload. Or in pieces, see below
//   kHead           ObjectRequest, key                   -> ObjectReply
//   kDelete         ObjectRequest, key                   -> DeleteReply
//   kCopy           CopyRequest, from, to                -> ObjectReply
//   kList           ListRequest, prefix, start after     -> ListReply; payload: ListedEntry, key; ...
//   kBegin          ObjectRequest, key                   -> empty; the draft is named by this request's id
//   kAppend         DraftRequest; payload                -> empty
//   kCommit         DraftRequest                         -> ObjectReply
//   kAbort          DraftRequest                         -> empty
//
// On the Unix socket alone:
//
//   kReserve        ReserveRequest                       -> GrantReply; 1 descriptor (read-write), or none where
//                                                           the client was sent it before
//   kSeal           SealRequest                          -> ObjectReply
//   kOpenSegment    SegmentMessage                       -> OpenSegmentReply; 1 descriptor (read-only)
//   kGiveBack       SegmentMessage                       no reply
//   kConfirmUnmapped SegmentMessage                      no reply
//   kNoteRead       ObjectRequest, key                   no reply: the client read it from a file by itself
//
// Sent by the server of its own accord:
//
//   kSegmentRetired SegmentMessage: unmap it when nobody looks at it any more, then confirm
//   kNamespaceDropped empty
//   kGoodbye        status and message: why the connection is about to be closed
//
// A reply whose status is not kOk has the message as its body and no payload.
//
// Bytes that come from files are sent as they are read: the reply to a kGet may be several frames, each with the
// request's id, a PiecedReply and the next piece of the payload, in order, and with other replies between them. All
// but the last have kFlagMore. Where a piece cannot be read, or an extent turns out to be damaged, an error takes
// the place of the next piece: nobody gets all of the payload then.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/crc32c.h"
#include "base/limits.h"
#include "base/status.h"
#include "store/store.h"

namespace millrace::wire {

inline constexpr uint32_t kFrameMagic = 0x31464c4d;  // "MLF1" in memory
inline constexpr uint8_t kProtocolVersion = 1;

enum class Opcode : uint8_t {
  kHello = 1,
  kPut = 2,
  kGet = 3,
  kHead = 4,
  kDelete = 5,
  kCopy = 6,
  kList = 7,
  kBegin = 8,
  kAppend = 9,
  kCommit = 10,
  kAbort = 11,
  kReserve = 32,
  kGiveBack = 33,
  kSeal = 34,
  kOpenSegment = 35,
  kConfirmUnmapped = 36,
  kNoteRead = 37,
  kSegmentRetired = 64,
  kNamespaceDropped = 65,
  kGoodbye = 66,
};
// Whether this version knows the opcode at all.
bool opcode_known(uint8_t opcode);

enum Flag : uint16_t {
  kFlagReply = 1,       // sent by the server
  kFlagPayloadCrc = 2,  // payload_crc is that of the payload; must be checked
  kFlagMore = 4,        // kGet, sent by the server: more frames of this reply follow
};
inline constexpr uint16_t kFlagsKnown = kFlagReply | kFlagPayloadCrc | kFlagMore;

struct FrameHeader {
  uint32_t magic;          //  0
  uint8_t version;         //  4
  Opcode opcode;           //  5  a reply has its request's
  uint16_t flags;          //  6  Flag
  uint16_t status;         //  8  Code; 0 in requests
  uint16_t descriptors;    // 10  file descriptors passed with the frame's first byte
  uint32_t body_bytes;     // 12  <= kFrameBodyBytesMax
  uint64_t request_id;     // 16
  uint64_t payload_bytes;  // 24  <= kObjectBytesMax
  uint32_t payload_crc;    // 32  CRC32C; 0 without kFlagPayloadCrc
  uint32_t frame_crc;      // 36  CRC32C of bytes [0, 36) and of the body
};
static_assert(sizeof(FrameHeader) == 40);
static_assert(offsetof(FrameHeader, opcode) == 5);
static_assert(offsetof(FrameHeader, flags) == 6);
static_assert(offsetof(FrameHeader, status) == 8);
static_assert(offsetof(FrameHeader, body_bytes) == 12);
static_assert(offsetof(FrameHeader, request_id) == 16);
static_assert(offsetof(FrameHeader, payload_bytes) == 24);
static_assert(offsetof(FrameHeader, payload_crc) == 32);
static_assert(offsetof(FrameHeader, frame_crc) == 36);

struct HelloRequest {
  uint8_t token[16];    //  0  of the namespace
  uint32_t name_bytes;  // 16
  uint32_t reserved;    // 20
};
static_assert(sizeof(HelloRequest) == 24);

struct HelloReply {
  uint64_t index_map_bytes;    //  0  address range of the index file; 0 over TCP
  uint64_t ring_bytes;         //  8  size of the ring file; 0 over TCP
  uint32_t protocol_version;   // 16
  uint16_t node_id_bytes;      // 20
  uint16_t grpc_address_bytes; // 22
};
static_assert(sizeof(HelloReply) == 24);

// One struct for all requests about one key. Fields that an opcode has no use for are zero.
struct ObjectRequest {
  uint64_t offset;       //  0  kGet
  uint64_t length;       //  8  kGet: 0 is to the end
  uint64_t if_sequence;  // 16  kPut, kDelete: 0 is no condition
  uint16_t key_bytes;    // 24
  uint8_t if_absent;     // 26  kPut
  uint8_t reserved[5];   // 27
};
static_assert(sizeof(ObjectRequest) == 32);
static_assert(offsetof(ObjectRequest, key_bytes) == 24);

struct ObjectReply {
  uint64_t size_bytes;     //  0
  uint64_t sequence;       //  8
  uint32_t crc32c;         // 16
  uint32_t sealed_unix_s;  // 20
};
static_assert(sizeof(ObjectReply) == 24);

struct PiecedReply {
  ObjectReply info;        //  0
  uint64_t payload_bytes;  // 24  of all pieces
};
static_assert(sizeof(PiecedReply) == 32);

struct DeleteReply {
  uint64_t existed;
};

struct CopyRequest {
  uint64_t if_sequence;  //  0
  uint16_t from_bytes;   //  8
  uint16_t to_bytes;     // 10
  uint8_t if_absent;     // 12
  uint8_t reserved[3];   // 13
};
static_assert(sizeof(CopyRequest) == 16);

struct ListRequest {
  uint32_t limit;        // 0
  uint16_t prefix_bytes; // 4
  uint16_t start_bytes;  // 6
};
static_assert(sizeof(ListRequest) == 8);

struct ListReply {
  uint32_t objects;    // 0
  uint32_t truncated;  // 4
};

struct ListedEntry {
  ObjectReply info;    //  0
  uint32_t key_bytes;  // 24
  uint32_t reserved;   // 28
};
static_assert(sizeof(ListedEntry) == 32);

struct DraftRequest {
  uint64_t draft;        //  0  request id of its kBegin
  uint64_t if_sequence;  //  8  kCommit
  uint32_t crc32c;       // 16  kCommit: of the whole object, where has_crc32c
  uint8_t has_crc32c;    // 20
  uint8_t if_absent;     // 21  kCommit
  uint16_t reserved;     // 22
};
static_assert(sizeof(DraftRequest) == 24);

struct ReserveRequest {
  uint64_t bytes;       //  0  contiguous
  uint32_t timeout_ms;  //  8  how long to wait for room
  uint32_t reserved;    // 12
};
static_assert(sizeof(ReserveRequest) == 16);

struct GrantReply {
  uint64_t begin;          //  0
  uint64_t end;            //  8
  uint64_t segment_bytes;  // 16
  uint32_t segment;        // 24
  uint32_t reserved;       // 28
};
static_assert(sizeof(GrantReply) == 32);

struct SealRequest {
  uint64_t if_sequence;  //  0
  uint32_t segment;      //  8
  uint32_t entry_unit;   // 12  entry offset / kEntryAlignment
  uint8_t if_absent;     // 16
  uint8_t reserved[7];   // 17
};
static_assert(sizeof(SealRequest) == 24);

struct SegmentMessage {
  uint32_t segment;   // 0
  uint32_t reserved;  // 4
};
static_assert(sizeof(SegmentMessage) == 8);

struct OpenSegmentReply {
  uint64_t segment_bytes;  //  0
  uint32_t tier;           //  8  Tier
  uint32_t reserved;       // 12
};
static_assert(sizeof(OpenSegmentReply) == 16);
// Where a segment lies: shared memory to be mapped, or a file to be read, on blocks of 4096 bytes (O_DIRECT).
enum class Tier : uint32_t { kDram = 0, kNvme = 1 };

// No request has a larger body: what the server must buffer of one is therefore small.
inline constexpr uint32_t kRequestBodyBytesMax = 4096;
static_assert(sizeof(CopyRequest) + 2 * limits::kKeyBytesMax <= kRequestBodyBytesMax);
static_assert(sizeof(ListRequest) + 2 * limits::kKeyBytesMax <= kRequestBodyBytesMax);
static_assert(kRequestBodyBytesMax <= limits::kFrameBodyBytesMax);

// Fills in the checksum; `body` is what follows the header.
void seal_frame(FrameHeader& header, const void* body);

// Checks everything about a header that needs no knowledge of the connection: magic, version, opcode, flags
// and limits. kProtocol or kUnsupported; the peer cannot be followed any further after that.
Status check_header(const FrameHeader& header, bool from_server);

// Checks the checksum over header and body.
inline bool frame_crc_matches(const FrameHeader& header, const void* body) {
  return crc32c(crc32c(0, &header, offsetof(FrameHeader, frame_crc)), body, header.body_bytes) == header.frame_crc;
}

// A request's or reply's body as its struct and what follows it. Nullptr where it is too short.
template <class T>
const T* read_body(const uint8_t* body, uint32_t body_bytes, T* storage) {
  if (body_bytes < sizeof(T)) return nullptr;
  std::memcpy(storage, body, sizeof(T));
  return storage;
}

inline ObjectReply to_wire(const ObjectInfo& info) {
  return {info.size_bytes, info.sequence, info.crc32c, info.sealed_unix_s};
}
inline ObjectInfo from_wire(const ObjectReply& reply) {
  return {reply.size_bytes, reply.sequence, reply.crc32c, reply.sealed_unix_s};
}

}  // namespace millrace::wire
