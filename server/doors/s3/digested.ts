/** Bytes that are digested while they pass. */
import { type DigestName, type NativeDigests, requireAddon } from "../../../native/binding/addon.js";
import type { Source } from "./upload.js";

/** Bytes that wait to be digested: above this the next have to wait, until half of them are done. */
const BACKLOG_BYTES_MAX = 8 * 1_024 * 1_024;

/** Has `bytes` digested, which must stay as they are. Resolves when there is room for more. */
export async function feed(digests: NativeDigests, bytes: Buffer): Promise<void> {
  digests.update(bytes);
  if (digests.backlogBytes > BACKLOG_BYTES_MAX) await digests.drained(BACKLOG_BYTES_MAX / 2);
}

/** A source whose bytes are digested on their way. */
export class DigestedSource implements Source {
  /** In the order of the names; after the iteration has ended. */
  digests: readonly Buffer[] = [];

  constructor(
    private readonly bytes: AsyncIterable<Buffer>,
    readonly sizeBytes: number,
    private readonly names: readonly DigestName[],
  ) {}

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, void> {
    if (this.names.length === 0) return yield* this.bytes;
    const digests = new (requireAddon().Digests)(this.names);
    for await (const piece of this.bytes) {
      await feed(digests, piece);
      yield piece;
    }
    this.digests = await digests.finish();
  }
}
