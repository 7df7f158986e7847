// The record kernels as JavaScript sees them: `addon.kernels`.
#pragma once
#include <napi.h>

namespace millrace {

// Byte arguments are Uint8Array or, but for splitters and samples, spans (binding/span.h). A wrong argument throws at once; what fails later rejects the promise.
// Both are an Error with `code`, the name of the status code.
//
//   generateRecords(firstRecord, count, skewed, out): Promise<void>
//   sampleKeys(recordBytes, keyBytes, input, count, seed): Uint8Array
//   chooseSplitters(recordBytes, keyBytes, samples, partitions): Uint8Array
//   partitionRecords(recordBytes, keyBytes, input, splitters, dest):
//       Promise<{offsets: Float64Array (R + 1, bytes), checksums: Uint32Array (R)}>
//   sortRecords(recordBytes, keyBytes, extents: Uint8Array[], checksums: Uint32Array | null, out):
//       Promise<{bytes}>
//   mergeRecords(recordBytes, keyBytes, runs: Uint8Array[], out): Promise<{bytes}>
//   checkRecords(recordBytes, keyBytes, input, {ordered}):
//       Promise<{count, checksum: Uint8Array (16, big-endian), unordered, duplicates, firstKey, lastKey}>
//   crc32c(seed, bytes): number
//   sortLocal({records, threads, partitions, skewed, splits?}):
//       Promise<{seconds: {setup, input, map, reduce, check, total}, splits, partitionMaxOverMean, count,
//       checksum,
//                inputChecksum, unordered, duplicates, validated}>     (checksums in hexadecimal)
Napi::Object kernels_binding(Napi::Env env);

}  // namespace millrace
