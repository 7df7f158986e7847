/**
 * Wakes those who wait for objects: one watch for all waits of a namespace handle, opened for the first of them and
 * kept until a while after the last.
 */
import { retrying } from "../control.js";
import { MillraceError } from "../errors.js";
import type { Watch } from "../watch.js";
import { WATCH_IDLE_MS } from "./limits.js";
import type { Patience } from "./waiting.js";

/** What is told of an object that was sealed (or deleted, which nobody does). */
interface Sealed {
  key: string;
}

/** Waits for some keys; told of every one that was sealed, and by null to look at all of them again. */
interface Waiter {
  keys: ReadonlySet<string>;
  arrived(key: string | null): void;
  failed(error: MillraceError): void;
}

/** The watch of now. `stands`: what happens from now on is told. */
interface Run {
  watch: Watch<Sealed> | null;
  stands: boolean;
}

export class Arrivals {
  readonly #open: () => Watch<Sealed>;
  readonly #awayMs: number;
  readonly #waiters = new Set<Waiter>();
  #run: Run | null = null;
  #idleTimer: NodeJS.Timeout | null = null;
  #closed = false;

  /** `open` watches everything that collectives put. `awayMs`: how long a node may be away. */
  constructor(open: () => Watch<Sealed>, awayMs: number) {
    this.#open = open;
    this.#awayMs = awayMs;
  }

  /**
   * Looks at each of `keys` until `look` has found what it wants there (not null), and gives what it found, in order.
   * `look` is called at the beginning (`first`), and whenever something was sealed under the key. Rejects with the
   * first failure of `look`; when patience ends, with DEADLINE_EXCEEDED and what `late` says of the keys missing.
   */
  find<T>(
    keys: readonly string[],
    look: (index: number, first: boolean) => Promise<T | null>,
    patience: Patience,
    late: (missing: number[]) => string,
  ): Promise<T[]> {
    return new Promise((resolve, reject) => {
      const found: (T | null)[] = keys.map(() => null);
      const indices = new Map(keys.map((key, index) => [key, index]));
      /** Being looked at; true: and something has arrived meanwhile. */
      const looking = new Map<number, boolean>();
      let missing = keys.length;
      let ended = false;
      const end = (act: () => void) => {
        if (ended) return;
        ended = true;
        stopWatching();
        this.#leave(waiter);
        act();
      };
      const lookAt = async (index: number, first: boolean) => {
        if (ended || found[index] !== null) return;
        if (looking.has(index)) {
          looking.set(index, true);
          return;
        }
        looking.set(index, false);
        try {
          const seen = await look(index, first);
          if (seen !== null) {
            found[index] = seen;
            if (--missing === 0) end(() => resolve(found as T[]));
          }
        } catch (thrown) {
          end(() => reject(MillraceError.from(thrown)));
        }
        const again = looking.get(index) === true;
        looking.delete(index);
        if (again) void lookAt(index, false);
      };
      const waiter: Waiter = {
        keys: new Set(keys),
        arrived: (key) => {
          if (key !== null) void lookAt(indices.get(key) as number, false);
          else for (let index = 0; index < keys.length; index++) void lookAt(index, true);
        },
        failed: (error) => end(() => reject(error)),
      };
      const stopWatching = patience.watch((reason) =>
        end(() => {
          if (reason !== "late") return reject(reason);
          const indicesMissing = [...found.keys()].filter((index) => found[index] === null);
          reject(new MillraceError("DEADLINE_EXCEEDED", late(indicesMissing)));
        }),
      );
      if (missing === 0) end(() => resolve([]));
      else this.#join(waiter);
    });
  }

  close(): void {
    this.#closed = true;
    const error = new MillraceError("CLOSED", "the namespace handle was closed");
    for (const waiter of [...this.#waiters]) waiter.failed(error);
    this.#end();
  }

  #join(waiter: Waiter): void {
    if (this.#closed) {
      waiter.failed(new MillraceError("CLOSED", "the namespace handle is closed; open it again"));
      return;
    }
    if (this.#idleTimer !== null) clearTimeout(this.#idleTimer);
    this.#idleTimer = null;
    this.#waiters.add(waiter);
    if (this.#run === null) void this.#watchOn();
    else if (this.#run.stands) waiter.arrived(null);
  }

  #leave(waiter: Waiter): void {
    if (!this.#waiters.delete(waiter) || this.#waiters.size > 0 || this.#run === null) return;
    this.#idleTimer ??= setTimeout(() => {
      if (this.#waiters.size === 0) this.#end();
    }, WATCH_IDLE_MS);
  }

  #end(): void {
    if (this.#idleTimer !== null) clearTimeout(this.#idleTimer);
    this.#idleTimer = null;
    const run = this.#run;
    this.#run = null;
    run?.watch?.close();
  }

  /** One watch after the other, until `#end`. */
  async #watchOn(): Promise<void> {
    const run: Run = { watch: null, stands: false };
    this.#run = run;
    const open = async () => {
      if (this.#run !== run) throw new MillraceError("CLOSED", "nobody waits any more");
      run.watch = this.#open();
      await run.watch.ready;
      return run.watch;
    };
    while (this.#run === run) {
      try {
        const watch = await retrying(open, Number.POSITIVE_INFINITY, this.#awayMs);
        if (this.#run !== run) return watch.close();
        run.stands = true;
        for (const waiter of [...this.#waiters]) waiter.arrived(null);
        for await (const { key } of watch) this.#tell(key);
      } catch (thrown) {
        if (this.#run !== run) return;
        const error = MillraceError.from(thrown);
        // The node was away, or this process so slow that events were dropped: look at everything again. Any other
        // failure, and a node that stays away, is told to all.
        if (!run.stands || !error.retryable) {
          this.#end();
          for (const waiter of [...this.#waiters]) waiter.failed(error);
          return;
        }
      }
      run.stands = false;
    }
  }

  #tell(key: string): void {
    for (const waiter of [...this.#waiters]) if (waiter.keys.has(key)) waiter.arrived(key);
  }
}
