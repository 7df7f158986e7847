/** The output of one attempt of a map task: one object, the partitions one after the other. */
import { randomBytes } from "node:crypto";
import { loadContract } from "../proto/load.js";
import { crc32c, crc32cCombine } from "./checksum.js";
import { MillraceError } from "./errors.js";
import { checkCount, checkData, keyBytes } from "./names.js";
import type { NamespaceSession } from "./session.js";
import type { ByteSpan, ObjectInfo, ObjectWriter } from "./transport.js";

/** Where the partitions lie in an output. Typed arrays, as the partition kernel gives them, are welcome. */
export interface MapOutputIndex {
  /** R+1, ascending, the first 0, the last the output's bytes. */
  offsets: ArrayLike<number>;
  /** R, the CRC32C of each partition. Computed here where left out. */
  checksums?: ArrayLike<number> | null;
}

export interface CommitResult {
  /** False: another attempt of this map was first, and the output of this one is gone. */
  won: boolean;
  winningAttempt: number;
  sizeBytes: number;
}

interface ShuffleShape {
  readonly id: string;
  readonly partitions: number;
}

/**
 * Takes the output either in one piece (`reserve`, for kernels that fill it) or partition by partition
 * (`write`). `commit` seals and commits it; `abort`, or the end of the process, leaves nothing behind.
 */
export class ShuffleWriter implements AsyncDisposable {
  readonly map: number;
  readonly attempt: number;
  readonly #session: NamespaceSession;
  readonly #shuffle: ShuffleShape;
  readonly #key: string;
  readonly #writer: ObjectWriter;
  #reserved: ByteSpan | null = null;
  /** Offsets and checksums of what was written piece by piece. */
  readonly #offsets: Float64Array;
  readonly #checksums: Uint32Array;
  #partition = 0;
  #writtenBytes = 0;
  #ended = false;

  private constructor(
    session: NamespaceSession,
    shuffle: ShuffleShape,
    map: number,
    attempt: number,
    key: string,
    writer: ObjectWriter,
  ) {
    this.#session = session;
    this.#shuffle = shuffle;
    this.map = map;
    this.attempt = attempt;
    this.#key = key;
    this.#writer = writer;
    this.#offsets = new Float64Array(shuffle.partitions + 1);
    this.#checksums = new Uint32Array(shuffle.partitions);
  }

  /** @internal Use `Shuffle.writer`. */
  static async open(
    session: NamespaceSession,
    shuffle: ShuffleShape,
    map: number,
    attempt: number,
    options: { sizeBytes?: number },
  ): Promise<ShuffleWriter> {
    // An attempt may itself be run twice, by an executor that lost sight of it: hence the random part.
    const key = `shuffle/${shuffle.id}/m${map}.a${attempt}.${randomBytes(6).toString("hex")}`;
    const writer = await session.run((transport) => transport.openWriter(key, options));
    return new ShuffleWriter(session, shuffle, map, attempt, key, writer);
  }

  /**
   * Room for the whole output, contiguous, to be filled before `commit`. Over shm it lies in the store itself,
   * 64-byte aligned. Once only, and not together with `write`. Not to be touched after `commit` or `abort`.
   * OBJECT_TOO_LARGE above 256 MiB over shm, where no segment has as much contiguous room: use `write`.
   */
  async reserve(totalBytes: number): Promise<Uint8Array> {
    this.#checkReserve(totalBytes);
    const view = totalBytes === 0 ? new Uint8Array(0) : await this.#writer.reserve(totalBytes);
    this.#reserved = view;
    return view;
  }

  /**
   * As `reserve`, for kernels: over shm the room is an opaque span, which costs the engine's collector nothing
   * (a window on a segment of 64 MiB makes it run). `commit` then needs the checksums.
   */
  async reserveSpan(totalBytes: number): Promise<ByteSpan> {
    if (this.#writer.reserveSpan === undefined || totalBytes === 0) return this.reserve(totalBytes);
    this.#checkReserve(totalBytes);
    const span = await this.#writer.reserveSpan(totalBytes);
    this.#reserved = span;
    return span;
  }

  #checkReserve(totalBytes: number): void {
    this.#checkOpen();
    checkCount("totalBytes", totalBytes);
    if (this.#reserved !== null || this.#writtenBytes > 0) {
      throw invalid("a map output is reserved once, as a whole, and not written piece by piece as well");
    }
  }

  /** Appends to a partition. Partitions come in ascending order; the data may be reused when this resolves. */
  async write(partition: number, data: Uint8Array | string): Promise<void> {
    this.#checkOpen();
    checkCount("partition", partition, this.#partition, this.#shuffle.partitions - 1);
    if (this.#reserved !== null) throw invalid("this map output was reserved as a whole");
    const bytes = checkData(data);
    this.#offsets.fill(this.#writtenBytes, this.#partition + 1, partition + 1);
    this.#partition = partition;
    this.#checksums[partition] = crc32c(this.#checksums[partition] as number, bytes);
    this.#writtenBytes += bytes.length;
    await this.#writer.write(bytes);
  }

  /**
   * Makes the output visible to reducers, if no other attempt of this map was first. `index` belongs to outputs
   * that were reserved; what was written piece by piece has its own.
   */
  async commit(index?: MapOutputIndex): Promise<CommitResult> {
    this.#checkOpen();
    const { offsets, checksums } = this.#index(index);
    this.#ended = true;
    const info = await this.#writer.seal({ crc32c: wholeChecksum(offsets, checksums) });
    this.#release();
    try {
      const { won, winningAttempt } = await this.#session.channel.unary(
        loadContract().shuffles.CommitMapOutput,
        {
          namespace: this.#session.name,
          shuffle: this.#shuffle.id,
          map: this.map,
          attempt: this.attempt,
          key: keyBytes(this.#key),
          offsets: Array.from(offsets),
          checksums: Array.from(checksums),
        },
        { idempotent: true },
      );
      return { won, winningAttempt, sizeBytes: info.sizeBytes };
    } catch (thrown) {
      const error = MillraceError.from(thrown);
      // Refused for good: the object is nobody's. After any other failure it may have been committed.
      if (!error.retryable) await this.#discard(info);
      throw error;
    }
  }

  /** Gives the output up. Does nothing after `commit`. */
  async abort(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#release();
    await this.#writer.abort();
  }

  /** As `abort`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.abort();
  }

  /** A span would hold its segment until it is collected. */
  #release(): void {
    if (this.#reserved !== null && "release" in this.#reserved) this.#reserved.release();
    this.#reserved = null;
  }

  #index(index: MapOutputIndex | undefined): { offsets: ArrayLike<number>; checksums: ArrayLike<number> } {
    if (this.#reserved === null) {
      if (index !== undefined) throw invalid("an output written piece by piece has its index already");
      this.#offsets.fill(this.#writtenBytes, this.#partition + 1);
      return { offsets: this.#offsets, checksums: this.#checksums };
    }
    if (index === undefined) throw invalid("an output that was reserved needs its offsets");
    checkOffsets(index.offsets, this.#shuffle.partitions, this.#reserved.length);
    const checksums = index.checksums ?? partitionChecksums(this.#reserved, index.offsets);
    if (checksums.length !== this.#shuffle.partitions) {
      throw invalid(`${checksums.length} checksums for ${this.#shuffle.partitions} partitions`);
    }
    return { offsets: index.offsets, checksums };
  }

  async #discard(info: ObjectInfo): Promise<void> {
    const condition = { ifSequence: info.sequence };
    await this.#session.run((transport) => transport.delete(this.#key, condition)).catch(() => {});
  }

  #checkOpen(): void {
    if (this.#ended) throw new MillraceError("CLOSED", "this map output was committed or aborted");
  }
}

function checkOffsets(offsets: ArrayLike<number>, partitions: number, totalBytes: number): void {
  if (offsets.length !== partitions + 1) {
    throw invalid(`${offsets.length} offsets; ${partitions} partitions need ${partitions + 1}`);
  }
  let before = 0;
  for (let i = 0; i <= partitions; i++) {
    before = checkCount(`offsets[${i}]`, offsets[i] as number, before, i === 0 ? 0 : totalBytes);
  }
  if (before !== totalBytes)
    throw invalid(`the last offset is ${before}, not the output's ${totalBytes} bytes`);
}

function partitionChecksums(output: ByteSpan, offsets: ArrayLike<number>): Uint32Array {
  if (!(output instanceof Uint8Array)) throw invalid("an output reserved as a span needs its checksums");
  const checksums = new Uint32Array(offsets.length - 1);
  for (let i = 0; i < checksums.length; i++) {
    checksums[i] = crc32c(0, output.subarray(offsets[i] as number, offsets[i + 1] as number));
  }
  return checksums;
}

/** The CRC32C of the whole output, from those of its partitions. */
function wholeChecksum(offsets: ArrayLike<number>, checksums: ArrayLike<number>): number {
  let whole = 0;
  for (let i = 0; i < checksums.length; i++) {
    const bytes = (offsets[i + 1] as number) - (offsets[i] as number);
    if (bytes > 0) whole = crc32cCombine(whole, checksums[i] as number, bytes);
  }
  return whole;
}

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}
