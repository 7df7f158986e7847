/** The addon's digests of streams against those of node:crypto and node:zlib, and published values. */
import { createHash, randomBytes } from "node:crypto";
import { Worker } from "node:worker_threads";
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { crc32cByTable } from "../../client/checksum.js";
import { type DigestName, loadAddon, requireAddon } from "../../native/binding/addon.js";

const NAMES: readonly DigestName[] = ["md5", "sha1", "sha256", "crc32", "crc32c", "crc64nvme"];
const AT_ONCE_BYTES_MAX = 16 * 1024;

function fresh(names: readonly DigestName[] = NAMES) {
  return new (requireAddon().Digests)(names);
}

function uint32(value: number): string {
  return value.toString(16).padStart(8, "0");
}

/** Bit by bit. */
function crc64nvme(bytes: Uint8Array): string {
  const ones = (1n << 64n) - 1n;
  let state = ones;
  for (const byte of bytes) {
    state ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) {
      state = state & 1n ? (state >> 1n) ^ 0x9a6c9329ac4bc9b5n : state >> 1n;
    }
  }
  return (state ^ ones).toString(16).padStart(16, "0");
}

/** What the digests of `NAMES` but the last are. */
function expected(bytes: Uint8Array): string[] {
  return [
    ...["md5", "sha1", "sha256"].map((name) => createHash(name).update(bytes).digest("hex")),
    uint32(crc32(bytes)),
    uint32(crc32cByTable(0, bytes)),
  ];
}

function hex(digests: readonly Buffer[]): string[] {
  return digests.map((digest) => digest.toString("hex"));
}

/** The digests of `bytes` given in random pieces. */
async function inPieces(bytes: Buffer, random: () => number, pieceBytesMax: number): Promise<string[]> {
  const digests = fresh();
  for (let at = 0; at < bytes.length; ) {
    const size = Math.floor(random() * pieceBytesMax) + 1;
    digests.update(bytes.subarray(at, at + size));
    at += size;
    if (random() < 0.1) await digests.drained(Math.floor(random() * pieceBytesMax));
  }
  return hex(await digests.finish());
}

/** A source of numbers in [0, 1) that can be repeated with MILLRACE_TEST_SEED. */
function seeded(): () => number {
  let state = Number(process.env.MILLRACE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32)) >>> 0;
  console.log(`seed ${state}`);
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function randomData(random: () => number, bytes: number): Buffer {
  const data = Buffer.allocUnsafeSlow(bytes);
  for (let i = 0; i < bytes; i++) data[i] = random() * 256;
  return data;
}

describe.skipIf(loadAddon() === null)("the addon's digests", () => {
  it("are the published ones", async () => {
    const digests = fresh();
    digests.update(Buffer.from("123456789"));
    expect(hex(await digests.finish())).toEqual([
      "25f9e794323b453885f5181f1b624d0b",
      "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
      "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
      "cbf43926",
      "e3069283",
      "ae8b14860a799888",
    ]);
    expect(hex(await fresh().finish())).toEqual([...expected(Buffer.alloc(0)), "0000000000000000"]);
  });

  it("come in the order of the names, and none is none", async () => {
    const digests = fresh(["crc32", "md5"]);
    digests.update(Buffer.from("123456789"));
    expect(hex(await digests.finish())).toEqual(["cbf43926", "25f9e794323b453885f5181f1b624d0b"]);
    expect(await fresh([]).finish()).toEqual([]);
  });

  it("do not depend on how the bytes are cut", async () => {
    const random = seeded();
    for (let round = 0; round < 30; round++) {
      const bytes = randomData(random, Math.floor(random() * (round < 20 ? 60_000 : 3_000_000)));
      const found = await inPieces(bytes, random, round % 3 === 0 ? 1000 : 300_000);
      expect(found.slice(0, 5)).toEqual(expected(bytes));
      if (round < 5) expect(found[5]).toBe(crc64nvme(bytes));
      expect(found[5]).toBe((await inPieces(bytes, random, 20_000))[5]);
    }
  });

  it("of several streams at once are apart", async () => {
    const random = seeded();
    const streams = Array.from({ length: 12 }, (_, i) => randomData(random, 200_000 + 50_000 * i));
    const found = await Promise.all(streams.map((bytes) => inPieces(bytes, random, 70_000)));
    for (const [i, bytes] of streams.entries()) expect(found[i]?.slice(0, 5)).toEqual(expected(bytes));
  });

  it("are worked out at once for a few bytes, and elsewhere beyond", async () => {
    const digests = fresh();
    const first = randomBytes(AT_ONCE_BYTES_MAX);
    digests.update(first.subarray(0, 5));
    digests.update(first.subarray(5));
    expect(digests.backlogBytes).toBe(0);
    digests.update(Buffer.from([7]));
    expect(digests.backlogBytes).toBe(1);
    digests.update(new Uint8Array(0));
    expect(digests.backlogBytes).toBe(1);
    const found = await digests.finish();
    expect(digests.backlogBytes).toBe(0);
    expect(hex(found).slice(0, 5)).toEqual(expected(Buffer.concat([first, Buffer.from([7])])));
  });

  it("tell how much waits, and when it is less", async () => {
    const digests = fresh(["md5"]);
    await digests.drained(0);
    const piece = randomBytes(1 << 20);
    for (let i = 0; i < 8; i++) digests.update(piece);
    expect(digests.backlogBytes).toBe(8 * piece.length);
    const order: string[] = [];
    await Promise.all([
      digests.drained(0).then(() => order.push(`0 of ${digests.backlogBytes}`)),
      digests.drained(3 * piece.length).then(() => order.push(`3 of ${digests.backlogBytes / piece.length}`)),
      digests.drained(8 * piece.length).then(() => order.push("8")),
    ]);
    expect(order).toEqual(["8", "3 of 3", "0 of 0"]);
    const [found] = await digests.finish();
    expect(found).toEqual(
      createHash("md5")
        .update(Buffer.concat(Array(8).fill(piece)))
        .digest(),
    );
  });

  it("finish after all that was given, once", async () => {
    const digests = fresh(["sha256"]);
    const bytes = randomBytes(5 << 20);
    digests.update(bytes);
    const finished = digests.finish();
    expect(() => digests.update(bytes)).toThrow(expect.objectContaining({ code: "CLOSED" }));
    expect(() => digests.finish()).toThrow(expect.objectContaining({ code: "CLOSED" }));
    expect(hex(await finished)).toEqual([createHash("sha256").update(bytes).digest("hex")]);
    expect(() => digests.finish()).toThrow(expect.objectContaining({ code: "CLOSED" }));
    await digests.drained(0);
  });

  it("refuse what is none of theirs", () => {
    const invalid = expect.objectContaining({ code: "INVALID_ARGUMENT" });
    const { Digests } = requireAddon();
    // @ts-expect-error: there is no such digest
    expect(() => new Digests(["md4"])).toThrow(invalid);
    // @ts-expect-error
    expect(() => new Digests("md5")).toThrow(invalid);
    // @ts-expect-error
    expect(() => new Digests([1])).toThrow(invalid);
    expect(() => new Digests(["md5", "md5"])).toThrow(invalid);
    const digests = fresh();
    // @ts-expect-error
    expect(() => digests.update("text")).toThrow(invalid);
    expect(() => digests.drained(-1)).toThrow(invalid);
    expect(() => digests.drained(0.5)).toThrow(invalid);
    const detached = new Uint8Array(100_000);
    structuredClone(detached, { transfer: [detached.buffer] });
    expect(() => digests.update(detached)).toThrow(invalid);
    expect(digests.backlogBytes).toBe(0);
  });

  it("of streams that nobody finishes are collected, at work or not", async () => {
    for (let i = 0; i < 300; i++) {
      const digests = fresh(["crc64nvme"]);
      digests.update(Buffer.allocUnsafeSlow(100_000));
      if (i % 3 === 0) await new Promise(setImmediate);
      if (i % 50 === 0) globalThis.gc?.();
    }
    const last = fresh(["md5"]);
    last.update(Buffer.alloc(100_000));
    expect(hex(await last.finish())).toEqual([createHash("md5").update(Buffer.alloc(100_000)).digest("hex")]);
  });

  it("may be at work when a thread of JavaScript ends", async () => {
    const source = `
      const { parentPort, workerData } = require("node:worker_threads");
      const { Digests } = require(workerData);
      const piece = Buffer.alloc(1 << 20, 7);
      for (let i = 0; i < 3; i++) {
        const digests = new Digests(["md5", "crc64nvme"]);
        for (let j = 0; j < 4; j++) digests.update(piece);
        digests.drained(0).then(() => {});
        digests.finish().then(() => {});
      }
      parentPort.postMessage("at work");
    `;
    const addonPath =
      process.env.MILLRACE_ADDON ?? new URL("../../build/native/millrace.node", import.meta.url).pathname;
    for (let round = 0; round < 5; round++) {
      const worker = new Worker(source, { eval: true, workerData: addonPath });
      await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
      if (round % 2 === 0) await worker.terminate();
      else await new Promise((resolve) => worker.once("exit", resolve));
    }
    const digests = fresh(["crc32"]);
    digests.update(Buffer.from("123456789"));
    expect(hex(await digests.finish())).toEqual(["cbf43926"]);
  });

  it("are offered by this node", () => {
    expect(requireAddon().doctor().opensslDigests).toBe(true);
  });
});
