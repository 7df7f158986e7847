// The one table of limits. Every size that comes from outside is checked against this table before it is
// used; TypeScript reads the same numbers from the addon (`addon.limits`), so none is typed twice.
#pragma once
#include <cstdint>

#include "base/units.h"

namespace millrace::limits {

// name                                            value          unit      checked where
inline constexpr uint64_t kKeyBytesMax           = 1024;       // bytes     every door (UTF-8, at least one byte)
inline constexpr uint64_t kNamespaceNameBytesMax = 63;         // bytes     CreateNamespace (S3 bucket rules)
inline constexpr uint64_t kObjectBytesMax        = 5 * TiB;    // bytes     reserve, seal
inline constexpr uint64_t kSegmentBytesMin       = 1 * MiB;    // bytes     tier
inline constexpr uint64_t kSegmentBytesDefault   = 64 * MiB;   // bytes     store: segments grow up to this by themselves
inline constexpr uint64_t kSegmentBytesMax       = 256 * MiB;  // bytes     tier: larger only for contiguous requests
inline constexpr uint64_t kEntryAlignment        = 16;         // bytes     segment
inline constexpr uint64_t kExtentsMax            = 1 << 20;    // extents   manifest parser (5 TiB / 64 MiB = 81,920)
inline constexpr uint64_t kAttributesBytesMax    = 8 * KiB;    // bytes     seal, copy, join, manifest parser
inline constexpr uint64_t kIndexBytesMax         = 8 * GiB;    // bytes     index: address space reserved per namespace
inline constexpr uint64_t kSegmentsPerNamespace  = (1 << 24) - 1;  // ever allocated, never reused
inline constexpr uint64_t kFrameBodyBytesMax     = 1 * MiB;    // bytes     wire: everything in a frame but its payload
inline constexpr uint64_t kListPageMax           = 1000;       // entries   list
inline constexpr uint64_t kSealRingSlots         = 16384;      // records   shm: one ring a session
inline constexpr uint64_t kSessionsMax           = 4096;       // sessions  transport server
inline constexpr uint64_t kInlineArgumentBytesMax = 8 * KiB;   // bytes     function call arguments
inline constexpr uint64_t kPartitionsMax         = 65536;      // partitions of a shuffle
inline constexpr uint64_t kMapsMax               = 1 << 20;    // map outputs of a shuffle
inline constexpr uint64_t kFileBufferBytesKept   = 256 * MiB;  // bytes     tier: buffers of file reads, kept for later ones
inline constexpr uint64_t kFilePieceBytes        = 1 * MiB;    // bytes     store: what a read of an object in a file asks for at a time
inline constexpr uint64_t kReadAheadBytesMax     = 8 * MiB;    // bytes     read from files ahead of one reader: a connection, a call

static_assert(kSegmentBytesMin * 256 == kSegmentBytesMax);
static_assert(kObjectBytesMax / kSegmentBytesDefault < kExtentsMax);

}  // namespace millrace::limits
