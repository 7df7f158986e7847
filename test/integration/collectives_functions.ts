/** What the function workers of collectives.test.ts run. */
import {
  connect,
  type Group,
  type GroupOptions,
  type Namespace,
  type TransportKind,
} from "../../client/index.js";
import type { CallContext } from "../../functions/index.js";

export interface Training {
  kind: TransportKind;
  group: string;
  rank: number;
  size: number;
  rounds: number;
  /** Elements. */
  length: number;
  /** The first attempt of this rank kills its process in this round: before its entry is put, or after. */
  dies: { rank: number; round: number; when: "before" | "after" } | null;
  /** Saves its state every round and goes on from there; else an attempt begins at round 0. */
  saves: boolean;
  /** Each member sums a slice, however short the arrays are. */
  sharded: boolean;
  keepRounds: number;
}

export function contribution(rank: number, round: number, state: Float64Array): Float64Array {
  return state.map(
    (value, index) => Math.sin(value + index) / (rank + 1) + (round + 1) * 10 ** ((rank * 7) % 11),
  );
}

/** Rounds of an all-reduce whose sum is the state of the next. Gives the last state. */
export async function train(training: Training, context: CallContext): Promise<number[]> {
  const client = await connect(context.endpoint as string, { transport: training.kind });
  try {
    const namespace = await client.openNamespace(context.namespaceName as string);
    return await trainIn(namespace, training, context.attempt);
  } finally {
    await client.close();
  }
}

async function trainIn(namespace: Namespace, training: Training, attempt: number): Promise<number[]> {
  const { rank, size, rounds, length, dies, saves, keepRounds } = training;
  const threshold = training.sharded ? { directExtraBytesMax: -1 } : {};
  const group = namespace.group(training.group, { rank, size, keepRounds, ...threshold } as GroupOptions);
  const saved = `saved/${training.group}/${rank}`;
  const last = saves ? await namespace.tryGet(saved) : null;
  let { round, state }: { round: number; state: Float64Array } =
    last === null
      ? { round: 0, state: new Float64Array(length) }
      : {
          round: Number(new Float64Array(new Uint8Array(last).buffer)[length]) + 1,
          state: new Float64Array(new Uint8Array(last).buffer).slice(0, length),
        };
  for (; round < rounds; round++) {
    const mine = contribution(rank, round, state);
    const isLast = attempt === 0 && dies?.rank === rank && dies.round === round;
    if (isLast) await die(group, round, mine, dies.when);
    state = await group.allReduce(round, mine, { timeoutMs: 50_000 });
    if (!saves) continue;
    const next = new Float64Array(length + 1);
    next.set(state);
    next[length] = round;
    await namespace.put(saved, new Uint8Array(next.buffer));
  }
  return [...state];
}

async function die(group: Group, round: number, mine: Float64Array, when: "before" | "after"): Promise<void> {
  if (when === "after") {
    // The entry is there when the exchange stands still, which it does only where others are late: so end it soon.
    await group.allReduce(round, mine, { timeoutMs: 30 }).catch(() => {});
  }
  process.kill(process.pid, "SIGKILL");
}

/** What rank 0 broadcasts, as each member sees it; and how the bytes came. */
export async function receive(
  {
    kind,
    rank,
    size,
    name,
    sizeBytes,
  }: { kind: TransportKind; rank: number; size: number; name: string; sizeBytes: number },
  context: CallContext,
): Promise<{ sum: number; length: number; bytesIn: number; copiesAvoidedBytes: number }> {
  const client = await connect(context.endpoint as string, { transport: kind });
  try {
    const namespace = await client.openNamespace(context.namespaceName as string);
    const group = namespace.group(name, { rank, size });
    const data = rank === 0 ? new Uint8Array(sizeBytes).map((_, index) => index % 251) : null;
    const bytes = await group.broadcast(0, data, { timeoutMs: 50_000 });
    let sum = 0;
    for (const byte of bytes) sum += byte;
    await group.barrier(1, { timeoutMs: 50_000 });
    const { bytesIn, copiesAvoidedBytes } = namespace.usage();
    return { sum, length: bytes.length, bytesIn, copiesAvoidedBytes };
  } finally {
    await client.close();
  }
}
