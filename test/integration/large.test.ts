/**
 * An object of 5 GiB through every door, which no process ever holds in memory as a whole: made and checked piece
 * by piece. It crosses 4 GiB, where 32 bits end.
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  type Client,
  connect,
  kernels,
  type Namespace,
  type ObjectInfo,
  type TransportKind,
} from "../../client/index.js";
import { type Daemon, startDaemon } from "../support/daemon.js";
import { Pattern } from "../support/pattern.js";

const MIB = 1 << 20;
const SIZE_BYTES = 5 * 1024 * MIB;
const PIECE_BYTES = 4 * MIB;
const TIMEOUT_MS = 240_000;
const KEY = "large";

let daemon: Daemon;
let client: Client;
let owner: Namespace;
const pattern = new Pattern("large");
beforeAll(async () => {
  daemon = await startDaemon({ dram: "6GiB" });
  client = await connect(daemon.endpoint);
});
afterAll(async () => {
  await client.close();
  expect(await daemon.stop()).toEqual({ code: 0, signal: null });
});
beforeEach(async () => {
  owner = await client.createNamespace("large");
});
afterEach(async () => {
  await client.deleteNamespace("large");
  await owner.close();
});

/** The object's pieces and, in the end, their checksum. */
function makePieces(): { pieces: Generator<Buffer>; crc32c(): number } {
  let crc = 0;
  function* pieces(): Generator<Buffer> {
    for (let at = 0; at < SIZE_BYTES; at += PIECE_BYTES) {
      const piece = pattern.bytes(at, PIECE_BYTES);
      crc = kernels().crc32c(crc, piece);
      yield piece;
    }
  }
  return { pieces: pieces(), crc32c: () => crc };
}

async function over<T>(kind: TransportKind, use: (namespace: Namespace) => Promise<T>): Promise<T> {
  await using other = await connect(daemon.endpoint, { transport: kind });
  await using namespace = await other.openNamespace("large");
  expect(namespace.transport).toBe(kind);
  return await use(namespace);
}

async function checkStream(namespace: Namespace): Promise<void> {
  let at = 0;
  let wrong: string | null = null;
  for await (const chunk of namespace.createReadStream(KEY) as AsyncIterable<Uint8Array>) {
    wrong ??= pattern.differs(chunk, at);
    at += chunk.length;
  }
  expect({ bytes: at, wrong }).toEqual({ bytes: SIZE_BYTES, wrong: null });
}

function checkExtents(namespace: Namespace): void {
  const extents = namespace.viewExtents(KEY) as Uint8Array[];
  let at = 0;
  let wrong: string | null = null;
  for (const extent of extents) {
    wrong ??= pattern.differs(extent, at);
    at += extent.length;
  }
  expect({ bytes: at, wrong }).toEqual({ bytes: SIZE_BYTES, wrong: null });
}

/** Info, and ranges on either side of 2 and 4 GiB. */
async function checkEdges(namespace: Namespace, info: ObjectInfo): Promise<void> {
  expect(await namespace.head(KEY)).toEqual(info);
  const length = 2 * MIB + 1;
  for (const offset of [0, 2 ** 31 - MIB, 2 ** 32 - MIB, 2 ** 32, SIZE_BYTES - length]) {
    const got = await namespace.getWithInfo(KEY, { offset, length });
    expect(got.bytes.length).toBe(length);
    expect(pattern.differs(got.bytes, offset), `${offset}`).toBeNull();
    expect(got.info).toEqual(info);
  }
  const beyond = namespace.get(KEY, { offset: SIZE_BYTES - 1, length: 2 });
  await expect(beyond).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
}

describe("5 GiB", () => {
  it(
    "put over gRPC are read over shm and TCP",
    async () => {
      const { pieces, crc32c } = makePieces();
      const info = await over("grpc", async (namespace) => {
        const stream = namespace.createWriteStream(KEY);
        await pipeline(Readable.from(pieces), stream);
        return stream.info as ObjectInfo;
      });
      expect(info).toMatchObject({ sizeBytes: SIZE_BYTES, crc32c: crc32c() });
      await over("shm", async (namespace) => {
        checkExtents(namespace);
        await checkEdges(namespace, info);
      });
      await over("tcp", async (namespace) => {
        await checkStream(namespace);
        await checkEdges(namespace, info);
      });
    },
    TIMEOUT_MS,
  );

  it(
    "written in place over shm are read over gRPC",
    async () => {
      const info = await over("shm", async (namespace) => {
        const writer = await namespace.openWriter(KEY, { sizeBytes: SIZE_BYTES });
        for (let at = 0; at < SIZE_BYTES; at += PIECE_BYTES) {
          // By turns in place and by copy.
          if ((at / PIECE_BYTES) % 2 === 0) pattern.fill(await writer.reserve(PIECE_BYTES), at);
          else await writer.write(pattern.bytes(at, PIECE_BYTES));
        }
        return writer.seal();
      });
      expect(info.sizeBytes).toBe(SIZE_BYTES);
      await over("grpc", async (namespace) => {
        await checkStream(namespace);
        await checkEdges(namespace, info);
      });
      const receipt = await owner.receipt();
      expect(receipt).toMatchObject({ objects: 1, sizeBytes: SIZE_BYTES });
    },
    TIMEOUT_MS,
  );

  it(
    "put over TCP are read over shm",
    async () => {
      const { pieces, crc32c } = makePieces();
      const info = await over("tcp", async (namespace) => {
        const stream = namespace.createWriteStream(KEY, { sizeBytes: SIZE_BYTES });
        await pipeline(Readable.from(pieces), stream);
        return stream.info as ObjectInfo;
      });
      expect(info).toMatchObject({ sizeBytes: SIZE_BYTES, crc32c: crc32c() });
      await over("shm", async (namespace) => {
        checkExtents(namespace);
        await checkEdges(namespace, info);
      });
    },
    TIMEOUT_MS,
  );
});
