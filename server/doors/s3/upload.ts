/** The one way in which bytes go from a request, or from another object, into the store. */
import { performance } from "node:perf_hooks";
import type { Draft, Key } from "../../engine/engine.js";
import { isFull, ROOM_POLL_FIRST_MS, ROOM_POLL_MAX_MS } from "../room.js";
import { header, type S3Call } from "./call.js";
import { S3Error } from "./errors.js";
import { liveBucket } from "./target.js";

/** Of one put and of one part, as S3 has it. */
export const PUT_BYTES_MAX = 5 * 2 ** 30;

/** How long a full store may hold up a request. */
const ROOM_WAIT_MS = 30_000;

/** EntityTooLarge where the request's headers say so already: before its body is asked for. */
export function checkAnnounced(call: S3Call, bucket: string, bytesMax = PUT_BYTES_MAX): void {
  const { request } = call;
  const announced = header(request, "x-amz-decoded-content-length") ?? header(request, "content-length");
  // What is no number is refused by who reads the body.
  checkSize(Number(announced ?? 0), mostBytes(call, bucket, bytesMax));
}

/** Bytes on their way in: a `Body`, or an object that is read. */
export interface Source extends AsyncIterable<Buffer> {
  /** Null: only the end will tell. */
  readonly sizeBytes: number | null;
}

/** All bytes of a source, in a draft that is still to be sealed or aborted. */
export interface Received {
  readonly draft: Draft;
  readonly sizeBytes: number;
}

/**
 * Takes all of `source` into a draft of `key`. While the store has no room, nothing is read, so the sender waits;
 * SlowDown where that takes too long. EntityTooLarge for more than `bytesMax` or than the bucket may ever hold. A
 * failure, that of the source included, has aborted the draft.
 */
export async function receive(
  call: S3Call,
  bucket: string,
  key: Key,
  source: Source,
  bytesMax = PUT_BYTES_MAX,
): Promise<Received> {
  const { engine } = call.context;
  const namespace = liveBucket(call.context, bucket);
  const most = mostBytes(call, bucket, bytesMax);
  checkSize(source.sizeBytes ?? 0, most);
  const draft = engine.begin(bucket, key, source.sizeBytes);
  let sizeBytes = 0;
  try {
    for await (const buffer of source) {
      checkSize(sizeBytes + buffer.length, most);
      for (let taken = 0; taken < buffer.length; ) {
        const left = taken === 0 ? buffer : buffer.subarray(taken);
        taken += await untilRoom(call, () => draft.write(left));
      }
      sizeBytes += buffer.length;
      const restMs = namespace.pace.spend(buffer.length);
      if (restMs > 0) await rest(call, restMs);
    }
    if (source.sizeBytes !== null && sizeBytes !== source.sizeBytes) {
      throw new S3Error("IncompleteBody", `${source.sizeBytes} bytes were announced, but ${sizeBytes} came`);
    }
    return { draft, sizeBytes };
  } catch (thrown) {
    draft.abort();
    throw thrown;
  }
}

/** Tries again while the store is full; its last answer (RESOURCE_EXHAUSTED) where it stays so. */
export async function untilRoom<T>(call: S3Call, attempt: () => T | Promise<T>): Promise<T> {
  let startedMs = 0;
  for (let pollMs = ROOM_POLL_FIRST_MS; ; pollMs = Math.min(pollMs * 2, ROOM_POLL_MAX_MS)) {
    try {
      return await attempt();
    } catch (thrown) {
      if (!isFull(thrown)) throw thrown;
      const nowMs = performance.now();
      if (startedMs === 0) startedMs = nowMs;
      const leftMs = ROOM_WAIT_MS - (nowMs - startedMs);
      // Nobody waits for the end of a call whose client has left.
      if (leftMs <= 0 || call.response.destroyed) throw thrown;
      await rest(call, Math.min(pollMs, leftMs));
    }
  }
}

/** Resolves after `ms`, or when the client has left. */
export function rest(call: S3Call, ms: number): Promise<void> {
  const { response } = call;
  return new Promise((resolve) => {
    if (response.destroyed) return resolve();
    const done = () => {
      clearTimeout(timer);
      response.off("close", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    response.once("close", done);
  });
}

function mostBytes(call: S3Call, bucket: string, bytesMax: number): number {
  const limitBytes = liveBucket(call.context, bucket).limits.sizeBytes;
  return limitBytes === 0 ? bytesMax : Math.min(bytesMax, limitBytes);
}

function checkSize(sizeBytes: number, most: number): void {
  if (sizeBytes > most) {
    throw new S3Error("EntityTooLarge", `at most ${most} bytes may be put here at once`, {
      ProposedSize: String(sizeBytes),
      MaxSizeAllowed: String(most),
    });
  }
}
