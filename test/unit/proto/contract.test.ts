import { Metadata, status } from "@grpc/grpc-js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Chunk, ChunkPool } from "../../../proto/chunks.js";
import { ERROR_TRAILER, fromServiceError, toStatus } from "../../../proto/error_codec.js";
import { MillraceError } from "../../../proto/errors.js";
import { CHUNK_BYTES_MAX, loadContract } from "../../../proto/load.js";
import type { GetResponse, PutRequest } from "../../../proto/messages.js";

const contract = loadContract();
const seed = Number(process.env.MILLRACE_SEED ?? Date.now() % 2 ** 31);
console.log(`contract.test seed ${seed}`);

const HEADER = {
  namespace: "job",
  key: Buffer.from("k"),
  sizeBytes: 0,
  sizeKnown: false,
  condition: null,
  crc32c: 0,
  hasCrc32c: false,
  endsWithTrailer: false,
  roomWaitMs: 0,
};

describe("messages", () => {
  it("are the same after a round trip, with everything that was left out filled in", () => {
    const { requestSerialize, requestDeserialize } = contract.namespaces.CreateNamespace;
    expect(requestDeserialize(requestSerialize({ name: "job" } as never))).toEqual({
      name: "job",
      leaseMs: 0,
      limits: null,
      hint: "HINT_UNSPECIFIED",
      expectedBytes: 0,
      atEnd: "",
      guarded: false,
    });
    const info = {
      key: Buffer.from("k"),
      sizeBytes: 5 * 2 ** 40,
      sequence: 2 ** 53 - 1,
      crc32c: 0xffff_ffff,
      sealedUnixMs: 1,
    };
    const { responseSerialize, responseDeserialize } = contract.objects.Head;
    expect(responseDeserialize(responseSerialize(info))).toEqual(info);
  });

  it.each([[-1], [1.5], [2 ** 53], [Number.NaN], [Number.POSITIVE_INFINITY], ["7"]])(
    "refuse to send %j where a size is wanted",
    (sizeBytes) => {
      const message = { header: { ...HEADER, sizeBytes }, data: Buffer.alloc(0), trailer: null };
      expect(() => contract.objects.Put.requestSerialize(message as unknown as PutRequest)).toThrowError(
        /PutHeader.sizeBytes/,
      );
    },
  );

  it("refuse numbers that protobuf would wrap or round", () => {
    const wide = {
      namespace: "job",
      shuffle: "s",
      maps: 2 ** 32 + 1,
      partitions: 1,
      partitioner: Buffer.alloc(0),
    };
    expect(() => contract.shuffles.CreateShuffle.requestSerialize(wide)).toThrowError(/from 0 to 4294967295/);
    const offsets = {
      namespace: "job",
      shuffle: "s",
      map: 0,
      attempt: 0,
      key: Buffer.from("k"),
      offsets: [0, -5],
      checksums: [],
    };
    expect(() => contract.shuffles.CommitMapOutput.requestSerialize(offsets)).toThrow(MillraceError);
    // ObjectInfo{sequence: 2^64 - 1}, as no Millrace node would send it.
    const received = Buffer.from("18ffffffffffffffffff01", "hex");
    expect(() => contract.objects.Head.responseDeserialize(received)).toThrowError(/ObjectInfo.sequence/);
    expect(() => contract.checkRequest(contract.objects.Get.path, { offset: 2 ** 60 })).toThrowError(
      /GetRequest.offset/,
    );
  });
});

describe("chunks", () => {
  it("are the messages that the ordinary encoder makes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70_000 }), fc.boolean(), (data, first) => {
        const chunk = new Chunk(data.length);
        chunk.data.set(data);
        const header = first ? HEADER : null;
        const fields = first
          ? contract.objects.Put.requestSerialize({ header, data: Buffer.alloc(0), trailer: null })
          : null;
        const encoded = chunk.encode(fields, data.length);
        const decoded = contract.objects.Put.requestDeserialize(encoded);
        expect(decoded).toEqual({ header, data: Buffer.from(data), trailer: null });
      }),
      { seed, numRuns: 50 },
    );
  });

  it("have room for the longest info and the most bytes", () => {
    const pool = new ChunkPool();
    const chunk = pool.take(CHUNK_BYTES_MAX * 3);
    expect(chunk.data.length).toBe(CHUNK_BYTES_MAX);
    const info = {
      key: Buffer.alloc(1024, "k"),
      sizeBytes: 2 ** 50,
      sequence: 2 ** 50,
      crc32c: 2 ** 31,
      sealedUnixMs: 2 ** 50,
    };
    const fields = contract.objects.Get.responseSerialize({ info, data: Buffer.alloc(0) });
    const encoded = chunk.encode(fields, CHUNK_BYTES_MAX);
    const decoded = contract.objects.Get.responseDeserialize(encoded) as GetResponse;
    expect(decoded.info).toEqual(info);
    expect(decoded.data.length).toBe(CHUNK_BYTES_MAX);
    pool.giveBack(chunk);
    expect(pool.take(CHUNK_BYTES_MAX)).toBe(chunk);
    expect(pool.take(CHUNK_BYTES_MAX)).not.toBe(chunk);
  });
});

describe("errors", () => {
  it("cross gRPC whole", () => {
    const before = new MillraceError("MAP_OUTPUT_LOST", "run 1 and 2 again", {
      maps: [1, 2],
      retryable: true,
    });
    const { code, details, metadata } = toStatus(before);
    expect(code).toBe(status.FAILED_PRECONDITION);
    const after = fromServiceError(Object.assign(new Error(details), { code, details, metadata }));
    expect(after).toMatchObject({
      code: before.code,
      message: before.message,
      retryable: true,
      maps: [1, 2],
    });
  });

  it("stay small enough for a trailer", () => {
    const { metadata } = toStatus(
      new MillraceError("MAP_OUTPUT_LOST", "m".repeat(100_000), {
        maps: Array.from({ length: 100_000 }, (_, map) => map + 1_000_000),
      }),
    );
    expect((metadata.get(ERROR_TRAILER)[0] as Buffer).length).toBeLessThan(12_000);
  });

  it("without a trailer, or with a broken one, are told by their status", () => {
    const metadata = new Metadata();
    metadata.set(ERROR_TRAILER, Buffer.from("not protobuf"));
    for (const given of [new Metadata(), metadata]) {
      const error = Object.assign(new Error("14"), {
        code: status.UNAVAILABLE,
        details: "no",
        metadata: given,
      });
      expect(fromServiceError(error)).toMatchObject({ code: "UNAVAILABLE", retryable: true });
    }
    expect(fromServiceError(new TypeError("bug"))).toMatchObject({ code: "INTERNAL" });
  });
});
