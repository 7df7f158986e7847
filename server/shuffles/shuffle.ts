/**
 * One shuffle: M map outputs times R partitions, and who waits for them. Pure policy.
 *
 *   map:  open -> committed (the first commit wins) -> lost -> committed again ...
 *
 * Memory is R+1 offsets and R checksums a committed map, in typed arrays; offsets take 4 bytes where the output
 * is smaller than 4 GiB.
 */
import { MillraceError } from "../../proto/errors.js";
import type { PartitionExtent, WatchShuffleEvent } from "../../proto/messages.js";

/** What a map attempt produced, checked. */
export interface MapOutput {
  readonly attempt: number;
  readonly key: Uint8Array;
  readonly sequence: number;
  /** R+1, ascending, first 0, last the object's size. */
  readonly offsets: Uint32Array | Float64Array;
  readonly checksums: Uint32Array | null;
}

export interface ShuffleWatcher {
  onEvent(event: WatchShuffleEvent): void;
  /** The shuffle is no more; nothing follows. */
  onEnd(error: MillraceError): void;
}

/** Told once when every map has committed (null), or why that will not happen. */
export type Waiter = (error: MillraceError | null) => void;

export class Shuffle {
  private readonly outputs = new Map<number, MapOutput>();
  private readonly lost = new Set<number>();
  private readonly bytesByPartition: Float64Array;
  private readonly watchers = new Set<ShuffleWatcher>();
  private readonly waiters = new Set<Waiter>();
  /** Bytes of offsets and checksums held. */
  indexBytes = 0;

  constructor(
    readonly name: string,
    readonly maps: number,
    readonly partitions: number,
    readonly partitioner: Uint8Array,
  ) {
    this.bytesByPartition = new Float64Array(partitions);
  }

  get committed(): number {
    return this.outputs.size;
  }

  get complete(): boolean {
    return this.outputs.size === this.maps;
  }

  /** Ascending. */
  get lostMaps(): number[] {
    return [...this.lost].sort((a, b) => a - b);
  }

  get partitionBytes(): Float64Array {
    return this.bytesByPartition;
  }

  output(map: number): MapOutput | null {
    return this.outputs.get(map) ?? null;
  }

  allOutputs(): Iterable<MapOutput> {
    return this.outputs.values();
  }

  /** Marks as lost a map whose output was lost in an earlier life of the node. Nobody watches yet. */
  restoreLost(map: number): void {
    this.lost.add(map);
  }

  /** Makes `output` the one of `map`, in place of a lost or overwritten one if there was. */
  accept(map: number, output: MapOutput): void {
    this.forget(map);
    this.lost.delete(map);
    this.outputs.set(map, output);
    this.indexBytes += indexBytesOf(output);
    this.addBytes(output, 1);
    this.tell({
      map,
      attempt: output.attempt,
      lost: false,
      committed: this.committed,
      complete: this.complete,
    });
    if (this.complete) this.release(null);
  }

  /** Takes the output of `map` away and returns it; null where there was none. */
  lose(map: number): MapOutput | null {
    const output = this.forget(map);
    if (output === null) return null;
    this.lost.add(map);
    this.tell({ map, attempt: output.attempt, lost: true, committed: this.committed, complete: false });
    return output;
  }

  /** Lets those who wait know of losses; called after the last `lose` of a report, so that one error names all. */
  announceLosses(): void {
    if (this.lost.size > 0) this.release(this.lostError());
  }

  lostError(): MillraceError {
    const maps = this.lostMaps;
    const shown =
      maps.length > 20 ? `${maps.slice(0, 20).join(", ")} and ${maps.length - 20} more` : maps.join(", ");
    return new MillraceError(
      "MAP_OUTPUT_LOST",
      `shuffle ${this.name}: the output of map ${shown} is lost; run these map tasks again`,
      { maps },
    );
  }

  /** This partition's extent in every map output committed so far, by map. O(M). */
  locate(partition: number): PartitionExtent[] {
    const extents: PartitionExtent[] = [];
    for (const [map, output] of this.outputs) {
      const offset = output.offsets[partition] as number;
      extents.push({
        partition,
        map,
        key: output.key,
        sequence: output.sequence,
        offset,
        length: (output.offsets[partition + 1] as number) - offset,
        crc32c: output.checksums?.[partition] ?? 0,
        hasCrc32c: output.checksums !== null,
      });
    }
    return extents.sort((a, b) => a.map - b.map);
  }

  /** Calls back once, perhaps at once. Returns what cancels it. */
  whenComplete(waiter: Waiter): () => void {
    if (this.lost.size > 0) {
      waiter(this.lostError());
      return () => {};
    }
    if (this.complete) {
      waiter(null);
      return () => {};
    }
    this.waiters.add(waiter);
    return () => this.waiters.delete(waiter);
  }

  /** What happened already comes first, then what happens. Returns what unsubscribes. */
  watch(watcher: ShuffleWatcher): () => void {
    let committed = 0;
    for (const map of [...this.outputs.keys()].sort((a, b) => a - b)) {
      const { attempt } = this.outputs.get(map) as MapOutput;
      committed += 1;
      watcher.onEvent({ map, attempt, lost: false, committed, complete: committed === this.maps });
    }
    for (const map of this.lostMaps) {
      watcher.onEvent({ map, attempt: 0, lost: true, committed, complete: false });
    }
    this.watchers.add(watcher);
    return () => this.watchers.delete(watcher);
  }

  /** Ends all who wait or watch. */
  end(error: MillraceError): void {
    this.release(error);
    for (const watcher of this.watchers) watcher.onEnd(error);
    this.watchers.clear();
  }

  /** The partition with the most bytes so far. */
  slowest(): { partition: number; bytes: number } {
    let partition = 0;
    for (let candidate = 1; candidate < this.partitions; candidate++) {
      if (this.bytesOf(candidate) > this.bytesOf(partition)) partition = candidate;
    }
    return { partition, bytes: this.bytesOf(partition) };
  }

  private bytesOf(partition: number): number {
    return this.bytesByPartition[partition] as number;
  }

  private forget(map: number): MapOutput | null {
    const output = this.outputs.get(map);
    if (output === undefined) return null;
    this.outputs.delete(map);
    this.indexBytes -= indexBytesOf(output);
    this.addBytes(output, -1);
    return output;
  }

  private addBytes(output: MapOutput, sign: 1 | -1): void {
    const { offsets } = output;
    for (let partition = 0; partition < this.partitions; partition++) {
      const length = (offsets[partition + 1] as number) - (offsets[partition] as number);
      this.bytesByPartition[partition] = this.bytesOf(partition) + sign * length;
    }
  }

  private tell(event: WatchShuffleEvent): void {
    for (const watcher of this.watchers) watcher.onEvent(event);
  }

  private release(error: MillraceError | null): void {
    const waiters = [...this.waiters];
    this.waiters.clear();
    for (const waiter of waiters) waiter(error);
  }
}

export function indexBytesOf(output: MapOutput): number {
  return output.offsets.byteLength + (output.checksums?.byteLength ?? 0);
}
