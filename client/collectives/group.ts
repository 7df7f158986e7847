/**
 * A group: members of fixed ranks that exchange in rounds. Every member puts one entry a round; the first one sealed of
 * a rank counts, so an attempt that was killed and tried again, or runs twice, is counted once.
 *
 *     _millrace/group/<name>/<slot>/<rank>         what the rank contributes to the round
 *     _millrace/group/<name>/<slot>/<rank>/slice   its slice of the sum, in sharded rounds
 *
 * **Slots.** Round r lies in slot r mod (keepRounds + 1), over what the rank put there so many rounds before. A member
 * writes over its entry of round q only when every reader of that entry has entered round q + 1, for a member enters a
 * round only when it is done with all before. Whoever has read the entries of all members of a later round knows that;
 * others (of a `reduce` or a broadcast, where not everybody waits for everybody) look for the readers' entries of round
 * q + 1 first. So nothing has to be deleted, nothing remains of attempts that died, and an attempt that comes too late
 * finds a newer round in its slot and is told.
 */
import { MillraceError } from "../errors.js";
import { checkCount, checkKey } from "../names.js";
import type { ByteSpan, Condition, ObjectInfo } from "../transport.js";
import type { Arrivals } from "./arrivals.js";
import type { Header, Operation } from "./entry.js";
import {
  ARRAY_BYTES_MAX,
  DIRECT_EXTRA_BYTES_MAX,
  GROUP_SIZE_MAX,
  KEEP_ROUNDS_MAX,
  KEY_PREFIX,
  NAME_CHARACTERS_MAX,
  SLICE_ELEMENTS,
  SLICE_IN_PLACE_BYTES_MAX,
  WRITE_ATTEMPTS_MAX,
} from "./limits.js";
import {
  bytesOf,
  type NumberArray,
  type NumberType,
  newArray,
  numberType,
  release,
  sumInto,
} from "./numbers.js";
import type { Entry, EntryStore } from "./store.js";
import { Patience, type WaitOptions } from "./waiting.js";

export interface GroupOptions {
  /** Of this member, from 0. */
  rank: number;
  /** Members in all. */
  size: number;
  /**
   * For how many rounds before the current one their entries stay, for attempts that begin again there. 1, the default,
   * is enough for members that save their state between one round and the next. All members must give the same.
   */
  keepRounds?: number;
}

export interface SumOptions<T extends NumberArray> extends WaitOptions {
  /** Takes the sum, instead of a new array; may be the very array that is summed. */
  into?: T;
}

export interface ReduceOptions<T extends NumberArray> extends SumOptions<T> {
  /** The rank that gets the sum; 0 where left out. */
  root?: number;
}

export interface BroadcastOptions extends WaitOptions {
  /** The rank whose data all get; 0 where left out. */
  root?: number;
}

/** What the members of a round must agree on. */
interface Round {
  round: number;
  operation: Operation;
  type: NumberType | null;
  sharded: boolean;
  root: number;
  /** Of an entry; null where it is for the root to say. */
  payloadBytes: number | null;
}

const NO_BYTES = new Uint8Array(0);

/**
 * One member. Operations are numbered by `round`: one operation a round, the same one by all members, rounds without
 * gaps, one after the other. An operation that failed (timeout, cancel, a node that is away) may be called again with
 * the same round. Several sequences at the same time are several groups.
 *
 * Errors, beside those of `Namespace`: INVALID_ARGUMENT where members do not agree (operation, type, length, size);
 * DEADLINE_EXCEEDED, which names the ranks that are missing; CANCELLED by `signal`; NOT_FOUND where the round is over
 * and its entries have been written over.
 */
export class Group {
  readonly name: string;
  readonly rank: number;
  readonly size: number;
  readonly keepRounds: number;
  readonly #store: EntryStore;
  readonly #arrivals: Arrivals;
  readonly #directExtraBytesMax: number;
  /** What this attempt has put last, by key: spares a look before it is written over. */
  readonly #own = new Map<string, Entry>();
  /** All members have entered it, as far as this one knows. */
  #entered = -1;
  #lastRound = -1;
  #busy = false;

  /** @internal Use `Namespace.group`. */
  constructor(
    store: EntryStore,
    arrivals: Arrivals,
    name: string,
    options: GroupOptions & { directExtraBytesMax?: number },
  ) {
    if (typeof name !== "string" || name.length === 0 || name.length > NAME_CHARACTERS_MAX) {
      throw invalid(`the name of a group has 1 to ${NAME_CHARACTERS_MAX} characters`);
    }
    this.name = name;
    this.size = checkCount("size", options.size, 1, GROUP_SIZE_MAX);
    this.rank = checkCount("rank", options.rank, 0, this.size - 1);
    this.keepRounds = checkCount("keepRounds", options.keepRounds ?? 1, 1, KEEP_ROUNDS_MAX);
    this.#store = store;
    this.#arrivals = arrivals;
    this.#directExtraBytesMax = options.directExtraBytesMax ?? DIRECT_EXTRA_BYTES_MAX;
    checkKey(this.#sliceKey(KEEP_ROUNDS_MAX, this.rank));
  }

  /**
   * The sum of all members' arrays, element by element, added in the order of the ranks: the same bit for bit for all
   * members, at any timing. The array must stay as it is until the promise settles.
   */
  async allReduce<T extends NumberArray>(round: number, array: T, options: SumOptions<T> = {}): Promise<T> {
    return (await this.#sum("allReduce", round, array, null, options)) as T;
  }

  /** As `allReduce`, for the root alone: the others get null, as soon as their part is done. */
  async reduce<T extends NumberArray>(
    round: number,
    array: T,
    options: ReduceOptions<T> = {},
  ): Promise<T | null> {
    return this.#sum("reduce", round, array, this.#root(options.root), options);
  }

  /** Resolves when every member has called it. */
  async barrier(round: number, options: WaitOptions = {}): Promise<void> {
    const spec: Round = {
      round,
      operation: "barrier",
      type: null,
      sharded: false,
      root: 0,
      payloadBytes: 0,
    };
    return this.#once(spec, options, async (patience) => {
      await this.#enter(spec, NO_BYTES, patience);
      await this.#headers(spec, patience);
    });
  }

  /**
   * The root's data, for all: `data` is null for the others. Over shm it is a view of the one copy that the host has,
   * see `Namespace` for how long it lives; else it is fetched once a process. Whoever gets it must not change it.
   */
  async broadcast(
    round: number,
    data: Uint8Array | null,
    options: BroadcastOptions = {},
  ): Promise<Uint8Array> {
    const root = this.#root(options.root);
    const isRoot = root === this.rank;
    if (isRoot !== data instanceof Uint8Array) {
      throw invalid(
        isRoot ? "the root of a broadcast gives a Uint8Array" : "data is for the root alone to give",
      );
    }
    const payload = data ?? NO_BYTES;
    const spec: Round = {
      round,
      operation: "broadcast",
      type: null,
      sharded: false,
      root,
      payloadBytes: null,
    };
    return this.#once(spec, options, async (patience) => {
      // The others' entries say that they came so far, which the root has to know before it writes over its own.
      const entering = this.#enter(spec, payload, patience);
      const found = this.#found([root], spec, patience, (key) => this.#store.head(key));
      const [[first], won] = await Promise.all([found, entering]);
      if (data !== null && won && !this.#store.inPlace) return data;
      const bytes = await this.#store.value(this.#key(round, root), (first as { value: Entry }).value);
      if (bytes === null) throw this.#over(round);
      return bytes;
    });
  }

  async #sum<T extends NumberArray>(
    operation: "allReduce" | "reduce",
    round: number,
    array: T,
    root: number | null,
    options: SumOptions<T>,
  ): Promise<T | null> {
    const type = numberType(array);
    const own = bytesOf(array);
    checkCount("the array's bytes", own.length, 0, ARRAY_BYTES_MAX);
    const into = (options.into ?? null) as T | null;
    if (into !== null && (numberType(into) !== type || into.length !== array.length)) {
      throw invalid("into must be an array of the same type and length");
    }
    const spec: Round = {
      round,
      operation,
      type,
      sharded: (this.size - 2) * own.length > this.#directExtraBytesMax,
      root: root ?? 0,
      payloadBytes: own.length,
    };
    return this.#once(spec, options, async (patience) => {
      const won = await this.#enter(spec, own, patience);
      const gets = root === null || root === this.rank;
      if (!spec.sharded && !gets) return null;
      const result = gets ? (into ?? (newArray(type, array.length) as T)) : null;
      // What this attempt has sealed it need not read again.
      const known = won ? own : null;
      if (spec.sharded) await this.#sumSharded(spec, known, result, patience);
      else await this.#sumDirect(spec, known, result as T, patience);
      return result;
    });
  }

  /** One exchange: reads all contributions and adds them up. */
  async #sumDirect(
    spec: Round,
    own: Uint8Array | null,
    result: NumberArray,
    patience: Patience,
  ): Promise<void> {
    const { round, type, payloadBytes } = spec;
    const ranks = this.#ranks().filter((rank) => own === null || rank !== this.rank);
    const read = async (key: string, first: boolean) => {
      // Over a network the first look is at the header alone: mostly an older round is still there.
      if (!this.#store.inPlace && first) {
        const entry = await this.#store.head(key);
        if (entry === null || entry.header.round !== round) return entry && { ...entry, payload: null };
      }
      return this.#store.read(key, round, payloadBytes as number);
    };
    const found = await this.#found(ranks, spec, patience, read);
    const inputs: ByteSpan[] = [];
    if (own !== null) inputs[this.rank] = own;
    for (const { rank, value } of found) {
      if (value.payload === null) throw this.#over(round);
      inputs[rank] = value.payload;
    }
    this.#entered = Math.max(this.#entered, round);
    await sumInto(type as NumberType, inputs, bytesOf(result));
    for (const { value } of found) if (value.payload !== null) release(value.payload);
  }

  /** Two exchanges: each rank adds up its slice of all contributions; who gets the sum reads all slices. */
  async #sumSharded(
    spec: Round,
    own: Uint8Array | null,
    result: NumberArray | null,
    patience: Patience,
  ): Promise<void> {
    const type = spec.type as NumberType;
    const entries = await this.#headers(spec, patience);
    const mine = this.#slice(spec, this.rank);
    const out = result === null ? null : bytesOf(result);
    const slice: Round = { ...spec, operation: "slice", payloadBytes: mine.end - mine.begin };
    await this.#seal(slice, patience, async (header, condition) => {
      const inputs = await Promise.all(
        entries.map(async ({ rank, value }) => {
          if (rank === this.rank && own !== null) return own.subarray(mine.begin, mine.end);
          const key = this.#key(spec.round, rank);
          const input = await this.#store.payload(key, value, mine.begin, mine.end - mine.begin);
          if (input === null) throw this.#over(spec.round);
          return input;
        }),
      );
      const key = this.#sliceKey(spec.round, this.rank);
      const bytes = mine.end - mine.begin;
      try {
        if (bytes > 0 && bytes <= SLICE_IN_PLACE_BYTES_MAX) {
          return await this.#store.putFilled(key, header, (room) => sumInto(type, inputs, room), condition);
        }
        const sums = new Uint8Array(bytes);
        if (bytes > 0) await sumInto(type, inputs, sums);
        return await this.#store.put(key, header, sums, condition);
      } finally {
        for (const input of inputs) release(input);
      }
    });
    if (out === null) return;
    const keys = this.#ranks().map((rank) => this.#sliceKey(spec.round, rank));
    await this.#arrivals.find(
      keys,
      async (rank) => {
        const key = keys[rank] as string;
        const { begin, end } = this.#slice(spec, rank);
        const entry = await this.#store.head(key);
        const wanted: Round = { ...slice, payloadBytes: end - begin };
        if (entry === null || !this.#isOf(wanted, rank, entry.header)) return null;
        const sums = await this.#store.payload(key, entry, 0, end - begin);
        if (sums === null) throw this.#over(spec.round);
        // A sum of one is a copy.
        if (end > begin) await sumInto(type, [sums], out.subarray(begin, end));
        release(sums);
        return true;
      },
      patience,
      (missing) => this.#late("the slices", missing, spec.round, patience),
    );
  }

  /** The bytes of the array that `rank` adds up. */
  #slice({ type, payloadBytes }: Round, rank: number): { begin: number; end: number } {
    const bytes = payloadBytes as number;
    const unit = SLICE_ELEMENTS * (type === "float32" || type === "int32" ? 4 : 8);
    const sliceBytes = Math.ceil(bytes / unit / this.size) * unit;
    return { begin: Math.min(bytes, rank * sliceBytes), end: Math.min(bytes, (rank + 1) * sliceBytes) };
  }

  /** Waits until all members have entered the round. */
  async #headers(spec: Round, patience: Patience): Promise<{ rank: number; value: Entry }[]> {
    const found = await this.#found(this.#ranks(), spec, patience, (key) => this.#store.head(key));
    this.#entered = Math.max(this.#entered, spec.round);
    return found;
  }

  /** What `read` finds of the round, of each of the ranks. */
  async #found<T extends Entry>(
    ranks: readonly number[],
    spec: Round,
    patience: Patience,
    read: (key: string, first: boolean) => Promise<T | null>,
  ): Promise<{ rank: number; value: T }[]> {
    const keys = ranks.map((rank) => this.#key(spec.round, rank));
    return this.#arrivals.find(
      keys,
      async (index, first) => {
        const rank = ranks[index] as number;
        const value = await read(keys[index] as string, first);
        return value !== null && this.#isOf(spec, rank, value.header) ? { rank, value } : null;
      },
      patience,
      (missing) =>
        this.#late(
          "entries",
          missing.map((index) => ranks[index] as number),
          spec.round,
          patience,
        ),
    );
  }

  /** Puts this member's entry, unless one is there. Whether it is this attempt's. */
  #enter(spec: Round, payload: Uint8Array, patience: Patience): Promise<boolean> {
    const whole: Round = { ...spec, payloadBytes: payload.length };
    const key = this.#key(spec.round, this.rank);
    return this.#seal(whole, patience, (header, condition) =>
      this.#store.put(key, header, payload, condition),
    );
  }

  /**
   * Has `put` write what this rank puts in the round, over what it put there rounds before, unless it is there already.
   * Whether `put` did.
   */
  async #seal(
    spec: Round,
    patience: Patience,
    put: (header: Header, condition: Condition) => Promise<ObjectInfo>,
  ): Promise<boolean> {
    const { operation, type, sharded, root, round } = spec;
    const isSlice = operation === "slice";
    const key = isSlice ? this.#sliceKey(round, this.rank) : this.#key(round, this.rank);
    const header: Header = {
      operation,
      type,
      sharded,
      rank: this.rank,
      size: this.size,
      root,
      slots: this.keepRounds + 1,
      round,
      payloadBytes: spec.payloadBytes as number,
    };
    for (let unknown = 0; ; ) {
      patience.check();
      const before = this.#own.get(key) ?? (await this.#store.head(key));
      this.#own.delete(key);
      // Of a broadcast the root's data may differ between attempts: the first counts.
      const wanted = operation === "broadcast" ? { ...spec, payloadBytes: null } : spec;
      if (before !== null && this.#isOf(wanted, this.rank, before.header)) return false;
      // Slices go with the entries of their round.
      if (before !== null && !isSlice) await this.#untilRead(before.header, patience);
      try {
        const { sequence } = await put(
          header,
          before === null ? { ifAbsent: true } : { ifSequence: before.sequence },
        );
        if (this.keepRounds <= REMEMBERED_ROUNDS_MAX) this.#own.set(key, { header, sequence });
        return true;
      } catch (thrown) {
        const error = MillraceError.from(thrown);
        // Another attempt of this rank was faster, or nobody knows: look.
        if (error.code === "UNAVAILABLE" && ++unknown < WRITE_ATTEMPTS_MAX) continue;
        if (error.code !== "CONDITION_FAILED") throw error;
      }
    }
  }

  /** Waits until nobody will read this member's entry of an older round any more. */
  async #untilRead(old: Header, patience: Patience): Promise<void> {
    const next = old.round + 1;
    if (this.#entered >= next) return;
    const toRoot = old.operation === "reduce" && !old.sharded;
    const fromOthers = old.operation === "broadcast" && old.root !== this.rank;
    const readers = toRoot ? [old.root] : fromOthers ? [] : this.#ranks();
    const ranks = readers.filter((rank) => rank !== this.rank);
    const keys = ranks.map((rank) => this.#key(next, rank));
    await this.#arrivals.find(
      keys,
      async (index) => {
        const entry = await this.#store.head(keys[index] as string);
        return entry !== null && entry.header.round >= next ? true : null;
      },
      patience,
      (missing) =>
        this.#late(
          "entries",
          missing.map((index) => ranks[index] as number),
          next,
          patience,
        ),
    );
    if (ranks.length === this.size - 1) this.#entered = Math.max(this.#entered, next);
  }

  /** Whether an entry is of the round, not of an older one. Throws where members do not agree, or the round is over. */
  #isOf(spec: Round, rank: number, header: Header): boolean {
    if (header.rank !== rank)
      throw new MillraceError("CORRUPT", `an entry of rank ${rank} names ${header.rank}`);
    this.#agree("size", this.size, header.size, rank);
    this.#agree("keepRounds", this.keepRounds, header.slots - 1, rank);
    if (header.round < spec.round) return false;
    if (header.round > spec.round) throw this.#over(spec.round);
    this.#agree("the operation", spec.operation, header.operation, rank);
    this.#agree("the type", spec.type, header.type, rank);
    this.#agree("the root", spec.root, header.root, rank);
    if (spec.payloadBytes !== null)
      this.#agree("the length in bytes", spec.payloadBytes, header.payloadBytes, rank);
    this.#agree("the exchange", spec.sharded, header.sharded, rank);
    return true;
  }

  #agree(what: string, own: unknown, other: unknown, rank: number): void {
    if (own === other) return;
    const whose = rank === this.rank ? "an earlier attempt of it" : `rank ${rank}`;
    throw invalid(
      `members of group ${this.name} do not agree on ${what}: rank ${this.rank} has ${own}, ${whose} ${other}`,
    );
  }

  /** Runs one operation at a time, in the order of rounds. */
  async #once<T>(
    { round }: Round,
    options: WaitOptions,
    operation: (patience: Patience) => Promise<T>,
  ): Promise<T> {
    checkCount("round", round);
    if (this.#busy)
      throw invalid(`group ${this.name}: one operation at a time; await the one before, or use two groups`);
    if (this.#lastRound >= 0 && round !== this.#lastRound && round !== this.#lastRound + 1) {
      throw invalid(
        `group ${this.name}: after round ${this.#lastRound} comes ${this.#lastRound + 1}, not ${round}`,
      );
    }
    const patience = new Patience(options);
    this.#busy = true;
    this.#lastRound = round;
    try {
      return await operation(patience);
    } finally {
      this.#busy = false;
    }
  }

  #root(root = 0): number {
    return checkCount("root", root, 0, this.size - 1);
  }

  #ranks(): number[] {
    return Array.from({ length: this.size }, (_, rank) => rank);
  }

  #key(round: number, rank: number): string {
    return `${KEY_PREFIX}group/${this.name}/${round % (this.keepRounds + 1)}/${rank}`;
  }

  #sliceKey(round: number, rank: number): string {
    return `${this.#key(round, rank)}/slice`;
  }

  #over(round: number): MillraceError {
    return new MillraceError(
      "NOT_FOUND",
      `round ${round} of group ${this.name} is over and its entries were written over: begin again at a later round, ` +
        `or have more kept (keepRounds is ${this.keepRounds})`,
    );
  }

  #late(what: string, ranks: readonly number[], round: number, { timeoutMs }: Patience): string {
    const shown = ranks.slice(0, RANKS_SHOWN_MAX).join(", ");
    const more = ranks.length > RANKS_SHOWN_MAX ? ` and ${ranks.length - RANKS_SHOWN_MAX} more` : "";
    const whose = `${ranks.length === 1 ? "rank" : "ranks"} ${shown}${more}`;
    return `group ${this.name}, round ${round}: after ${timeoutMs} ms ${what} of ${whose} are missing`;
  }
}

const RANKS_SHOWN_MAX = 20;
const REMEMBERED_ROUNDS_MAX = 16;

function invalid(message: string): MillraceError {
  return new MillraceError("INVALID_ARGUMENT", message);
}
