import { readFileSync } from "node:fs";
import { serialize } from "node:v8";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MillraceError } from "../../../client/errors.js";
import { limits } from "../../../functions/limits.js";
import {
  checkFromFunctionWorker,
  checkToFunctionWorker,
  encodeFrame,
  FrameReader,
  type FromFunctionWorker,
  type ToFunctionWorker,
} from "../../../functions/protocol.js";
import { fromWireError, toWireError } from "../../../functions/wire-error.js";

const times = { startedAtMs: 1, importMs: 0, inputMs: 0, runMs: 2, outputMs: 0 };
const toWorker: ToFunctionWorker[] = [
  { type: "setup", workerId: "w1", endpoint: null, namespaceName: null, heartbeatMs: 1000 },
  {
    type: "call",
    callId: "c1",
    attempt: 0,
    module: "file:///m.js",
    name: "f",
    argument: { inline: Uint8Array.of(1) },
    resultKey: null,
  },
  {
    type: "call",
    callId: "c1",
    attempt: 3,
    module: "file:///m.js",
    name: "f",
    argument: { key: "k", sizeBytes: 9 },
    resultKey: "r",
  },
  { type: "cancel", callId: "c1", attempt: 0 },
];
const fromWorker: FromFunctionWorker[] = [
  { type: "ready" },
  { type: "heartbeat" },
  { type: "progress", callId: "c1", attempt: 0, fraction: 0.5 },
  {
    type: "result",
    callId: "c1",
    attempt: 1,
    value: { inline: Uint8Array.of(1, 2) },
    retiring: false,
    times,
  },
  {
    type: "result",
    callId: "c1",
    attempt: 1,
    value: { key: "k", sizeBytes: 2 ** 40 },
    retiring: true,
    times,
  },
  {
    type: "failure",
    callId: "c1",
    attempt: 0,
    byUserCode: true,
    retiring: false,
    error: toWireError(new Error("e", { cause: new Error("c") })),
    times,
  },
];

const protocolError = expect.objectContaining({ code: "PROTOCOL" });

describe("frames", () => {
  it("survive any cutting of the stream", () => {
    const messages = [...fromWorker, ...fromWorker];
    const stream = Buffer.concat(messages.map(encodeFrame));
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: stream.length }), { maxLength: 40 }), (cuts) => {
        const reader = new FrameReader();
        const edges = [0, ...cuts.sort((a, b) => a - b), stream.length];
        const got: unknown[] = [];
        for (let index = 1; index < edges.length; index++) {
          got.push(...reader.read(stream.subarray(edges[index - 1], edges[index])));
        }
        expect(got.map(checkFromFunctionWorker)).toEqual(messages);
      }),
      { verbose: 1 },
    );
  });

  it("are refused when too long, empty or not serialized values", () => {
    const header = (length: number) => {
      const bytes = Buffer.alloc(4);
      bytes.writeUInt32LE(length);
      return bytes;
    };
    expect(() => [...new FrameReader().read(header(limits.frameBytesMax + 1))]).toThrow(protocolError);
    expect(() => [...new FrameReader().read(header(0))]).toThrow(protocolError);
    expect(() => [...new FrameReader().read(Buffer.concat([header(3), Buffer.from("abc")]))]).toThrow(
      protocolError,
    );
    expect([...new FrameReader().read(header(limits.frameBytesMax))]).toEqual([]);
    expect(() =>
      encodeFrame({ type: "cancel", callId: "x".repeat(limits.frameBytesMax), attempt: 0 }),
    ).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });

  it("of random bytes never do anything but fail as PROTOCOL", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (noise) => {
        const frame = Buffer.concat([Buffer.alloc(4), noise]);
        frame.writeUInt32LE(noise.length);
        try {
          for (const message of new FrameReader().read(frame)) checkFromFunctionWorker(message);
        } catch (error) {
          expect(error).toEqual(protocolError);
        }
      }),
      { verbose: 1 },
    );
  });
});

describe("messages", () => {
  it("pass their check unchanged", () => {
    for (const message of toWorker) expect(checkToFunctionWorker(message)).toEqual(message);
    for (const message of fromWorker) expect(checkFromFunctionWorker(message)).toEqual(message);
  });

  it("with any one field spoilt are refused", () => {
    const spoilers = [undefined, -1, Number.NaN, {}, "x".repeat(20_000)];
    const spoil = (message: object, check: (raw: unknown) => unknown) => {
      for (const [field, value] of Object.entries(message)) {
        for (const spoiler of spoilers) {
          // A workerId and the like may be any short string; all other kinds of value are wrong.
          expect(
            () => check({ ...message, [field]: spoiler }),
            `${field}=${String(spoiler).slice(0, 9)}`,
          ).toThrow(protocolError);
        }
        if (
          typeof value === "object" &&
          value !== null &&
          !(value instanceof Uint8Array) &&
          !Array.isArray(value)
        ) {
          spoil(value, (raw) => check({ ...message, [field]: raw }));
        }
      }
    };
    for (const message of toWorker) spoil(message, checkToFunctionWorker);
    for (const message of fromWorker) {
      if (message.type !== "failure") spoil(message, checkFromFunctionWorker);
    }
    expect(() => checkFromFunctionWorker({ ...fromWorker[5], error: { name: "x" } })).toThrow(protocolError);
    expect(() => checkFromFunctionWorker(null)).toThrow(protocolError);
  });

  it("carry at most an inline value's bytes", () => {
    const value = { inline: new Uint8Array(limits.inlineBytesMax + 1) };
    expect(() => checkFromFunctionWorker({ ...fromWorker[3], value })).toThrow(protocolError);
  });

  it("hold the largest call and the largest failure that the limits allow", () => {
    const text = "\u20ac".repeat(limits.errorTextMax * 2);
    const maps = Array.from({ length: limits.errorMapsMax * 2 }, () => 2 ** 40);
    let error: Error | undefined;
    for (let depth = 0; depth < 10; depth++)
      error = Object.assign(new Error(text, { cause: error }), { stack: text, name: text, maps });
    const failure = {
      ...(fromWorker[5] as FromFunctionWorker & { type: "failure" }),
      error: toWireError(error),
    };
    expect(() => checkFromFunctionWorker(failure)).not.toThrow();
    expect(encodeFrame(failure).length).toBeLessThanOrEqual(limits.frameBytesMax + 4);
    const call = {
      ...(toWorker[1] as ToFunctionWorker & { type: "call" }),
      module: "\u20ac".repeat(limits.moduleNameMax),
      name: "\u20ac".repeat(limits.exportNameMax),
      argument: { inline: new Uint8Array(limits.inlineBytesMax) },
    };
    expect(encodeFrame(call).length).toBeLessThanOrEqual(limits.frameBytesMax);
    expect(serialize(call).length).toBeGreaterThan(limits.inlineBytesMax);
  });
});

it("errors keep what a caller can act on", () => {
  const wire = toWireError(
    new MillraceError("MAP_OUTPUT_LOST", "gone", { maps: [1, 2], cause: new Error("why") }),
  );
  const error = fromWireError(wire) as MillraceError;
  expect(error).toBeInstanceOf(MillraceError);
  expect(error).toMatchObject({ code: "MAP_OUTPUT_LOST", maps: [1, 2], retryable: false });
  expect((error.cause as Error).message).toBe("why");
  expect(fromWireError(toWireError(7))).toMatchObject({ name: "Error", message: "7" });
  expect(fromWireError(toWireError(Object.create(null)))).toMatchObject({
    message: "a value that has no text form",
  });
});

it("the inline limit is that of native/base/limits.h", () => {
  const table = readFileSync(new URL("../../../native/base/limits.h", import.meta.url), "utf8");
  const [, kib] = /kInlineArgumentBytesMax\s*=\s*(\d+) \* KiB/.exec(table) ?? [];
  expect(limits.inlineBytesMax).toBe(Number(kib) * 1024);
});
