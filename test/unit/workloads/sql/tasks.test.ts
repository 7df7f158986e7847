import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  cutTasks,
  DEFAULT_TASK_SIZES,
  type ExchangeToCut,
  type StageToCut,
  type TableToCut,
  type Task,
  type TaskSizes,
} from "../../../../workloads/sql/tasks.js";

const MIB = 1 << 20;
const SIZES: TaskSizes = { ...DEFAULT_TASK_SIZES, workers: 4 };

function stage(changes: Partial<StageToCut>): StageToCut {
  return { tables: [], exchanges: [], single: false, divisible: null, ...changes };
}

function exchange(changes: Partial<ExchangeToCut>): ExchangeToCut {
  return { name: "exchange_0", share: "split", maps: 4, partitionBytes: [], ...changes };
}

/** The parts of a table that tasks read, task by task. */
function partsOf(tasks: readonly Task[], table: number): number[][] {
  return tasks.map(({ parts }) => {
    const { first, count } = parts[table] as { first: number; count: number };
    return Array.from({ length: count }, (_, i) => first + i);
  });
}

/** The (partition, map) pairs of an exchange that tasks read, task by task. */
function pairsOf(tasks: readonly Task[], index: number, maps: number): [partition: number, map: number][][] {
  return tasks.map(({ slices }) =>
    (slices[index] ?? []).flatMap((slice) =>
      Array.from({ length: slice.count }, (_, i) => slice.first + i).flatMap((partition) =>
        Array.from({ length: slice.maps?.count ?? maps }, (_, i): [number, number] => [
          partition,
          (slice.maps?.first ?? 0) + i,
        ]),
      ),
    ),
  );
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

describe("a stage without anything split", () => {
  it("is one task, which reads what is whole and what is read once", () => {
    const tasks = cutTasks(
      stage({
        tables: [{ share: "whole", partBytes: [900 * MIB, 5] }],
        exchanges: [exchange({ share: "once", partitionBytes: [1, 2, 3] })],
      }),
      SIZES,
    );
    expect(tasks).toEqual([
      { parts: [{ first: 0, count: 2 }], slices: [[{ first: 0, count: 3, maps: null }]] },
    ]);
  });

  it("is one task where it reads nothing at all", () => {
    expect(cutTasks(stage({}), SIZES)).toEqual([{ parts: [], slices: [] }]);
  });
});

describe("split tables", () => {
  it("of few bytes are read by one task", () => {
    const tasks = cutTasks(stage({ tables: [{ share: "split", partBytes: [1, 2, 3] }] }), SIZES);
    expect(partsOf(tasks, 0)).toEqual([[0, 1, 2]]);
  });

  it("of many bytes keep every function worker busy", () => {
    const tasks = cutTasks(
      stage({ tables: [{ share: "split", partBytes: new Array<number>(64).fill(20 * MIB) }] }),
      SIZES,
    );
    expect(tasks.length).toBe(8);
    for (const parts of partsOf(tasks, 0)) expect(parts.length).toBe(8);
  });

  it("without any part are a task that reads nothing", () => {
    const tasks = cutTasks(stage({ tables: [{ share: "split", partBytes: [] }] }), SIZES);
    expect(partsOf(tasks, 0)).toEqual([[]]);
  });

  it("are cut into fewer tasks where each must read much beside them", () => {
    const split: TableToCut = { share: "split", partBytes: new Array<number>(64).fill(2 * MIB) };
    const count = (wholeBytes: number): number =>
      cutTasks(stage({ tables: [split, { share: "whole", partBytes: [wholeBytes] }] }), SIZES).length;
    expect(count(1)).toBe(8);
    expect(count(2 * MIB)).toBe(8);
    expect(count(3 * MIB)).toBe(4);
    expect(count(20 * MIB)).toBe(4);
  });

  it("are cut into as many tasks for each function worker, however many there must be", () => {
    const tasks = cutTasks(
      stage({ tables: [{ share: "split", partBytes: new Array<number>(90).fill(20 * MIB) }] }),
      { ...SIZES, taskBytesMax: 100 * MIB },
    );
    // 18 would do.
    expect(tasks.length).toBe(20);
  });

  it("are one task where the order of rows matters", () => {
    const tasks = cutTasks(
      stage({ tables: [{ share: "split", partBytes: [900 * MIB, 900 * MIB] }], single: true }),
      SIZES,
    );
    expect(partsOf(tasks, 0)).toEqual([[0, 1]]);
  });
});

describe("several split inputs", () => {
  it("that are no exchanges of one kind lie one behind the other", () => {
    const tasks = cutTasks(
      stage({
        tables: [
          { share: "split", partBytes: [64 * MIB, 64 * MIB] },
          { share: "split", partBytes: [64 * MIB] },
        ],
        exchanges: [exchange({ partitionBytes: [64 * MIB] })],
      }),
      { ...SIZES, taskBytesMin: 64 * MIB },
    );
    expect(partsOf(tasks, 0)).toEqual([[0], [1], [], []]);
    expect(partsOf(tasks, 1)).toEqual([[], [], [0], []]);
    expect(tasks.map(({ slices }) => slices[0])).toEqual([[], [], [], [{ first: 0, count: 1, maps: null }]]);
  });

  it("exchanges with as many partitions are read together", () => {
    const tasks = cutTasks(
      stage({
        exchanges: [
          exchange({ partitionBytes: [50 * MIB, 1, 1, 50 * MIB] }),
          exchange({ name: "exchange_1", partitionBytes: [1, 50 * MIB, 50 * MIB, 1], maps: 7 }),
        ],
      }),
      { ...SIZES, taskBytesMin: 40 * MIB },
    );
    expect(tasks.length).toBe(4);
    for (const { slices } of tasks) expect(slices[0]).toEqual(slices[1]);
  });
});

describe("what is read once", () => {
  it("is read by the first of many tasks", () => {
    const tasks = cutTasks(
      stage({
        tables: [{ share: "once", partBytes: [5, 5] }],
        exchanges: [exchange({ partitionBytes: range(16).map(() => 20 * MIB) })],
      }),
      SIZES,
    );
    expect(tasks.length).toBeGreaterThan(1);
    expect(partsOf(tasks, 0)).toEqual([[0, 1], ...tasks.slice(1).map(() => [])]);
  });
});

describe("a skewed partition", () => {
  const partitionBytes = [MIB, 400 * MIB, MIB, MIB];

  it("is divided by maps, and what is joined with it is read whole by each", () => {
    const tasks = cutTasks(
      stage({
        exchanges: [
          exchange({ partitionBytes, maps: 8 }),
          exchange({ name: "exchange_1", partitionBytes: [MIB, MIB, MIB, MIB], maps: 3 }),
        ],
        divisible: "exchange_0",
      }),
      SIZES,
    );
    const hot = tasks.filter(({ slices }) =>
      (slices[0] ?? []).some(({ first, count }) => first <= 1 && first + count > 1),
    );
    expect(hot.length).toBe(8);
    for (const { slices } of hot) {
      const other = (slices[1] ?? []).filter(({ first, count }) => first <= 1 && first + count > 1);
      expect(other.map(({ maps }) => maps)).toEqual([null]);
    }
  });

  it("stays whole where every partition must be read by one task, or there is one map", () => {
    for (const changes of [{ divisible: null }, { divisible: "exchange_0", maps: 1 }]) {
      const { divisible, maps = 8 } = changes;
      const tasks = cutTasks(stage({ exchanges: [exchange({ partitionBytes, maps })], divisible }), SIZES);
      const readers = pairsOf(tasks, 0, maps).filter((pairs) => pairs.some(([partition]) => partition === 1));
      expect(readers.length).toBe(1);
    }
  });

  it("is left alone where it is small", () => {
    const tasks = cutTasks(
      stage({
        exchanges: [exchange({ partitionBytes: [0, 7 * MIB, 0, 0] })],
        divisible: "exchange_0",
      }),
      SIZES,
    );
    expect(tasks.length).toBe(1);
  });
});

const bytes = fc.oneof(fc.nat({ max: 100 }), fc.nat({ max: 64 * MIB }), fc.constant(500 * MIB));
const shares = fc.constantFrom("split" as const, "whole" as const, "once" as const);
const tables = fc.array(fc.record({ share: shares, partBytes: fc.array(bytes, { maxLength: 40 }) }), {
  maxLength: 3,
});
const exchanges = fc
  .array(
    fc.record({
      share: shares,
      maps: fc.integer({ min: 1, max: 9 }),
      partitionBytes: fc.oneof(
        fc.array(bytes, { minLength: 16, maxLength: 16 }),
        fc.array(bytes, { minLength: 1, maxLength: 1 }),
      ),
    }),
    { maxLength: 4 },
  )
  .map((list) => list.map((each, i): ExchangeToCut => ({ ...each, name: `exchange_${i}` })));
const anyStage = fc.record({ tables, exchanges, single: fc.boolean(), divided: fc.nat({ max: 4 }) }).map(
  ({ divided, ...rest }): StageToCut => ({
    ...rest,
    divisible: rest.exchanges[divided]?.share === "split" ? `exchange_${divided}` : null,
  }),
);
const anySizes = fc.record({
  workers: fc.integer({ min: 1, max: 9 }),
  taskBytesMin: fc.constantFrom(1, MIB, 4 * MIB),
  taskBytesMax: fc.constantFrom(64 * MIB, 192 * MIB),
  skewBytesMin: fc.constantFrom(1, 8 * MIB),
});

describe("any stage", () => {
  it("gives every part to one task, in order", () => {
    fc.assert(
      fc.property(anyStage, anySizes, (given, sizes) => {
        const tasks = cutTasks(given, sizes);
        given.tables.forEach(({ share, partBytes }, table) => {
          const all = range(partBytes.length);
          const read = partsOf(tasks, table);
          if (share === "split") expect(read.flat()).toEqual(all);
          else if (share === "whole") for (const parts of read) expect(parts).toEqual(all);
          else expect(read).toEqual([all, ...read.slice(1).map(() => [])]);
        });
      }),
    );
  });

  it("gives every map of every partition to one task, and to no other twice what is joined with it", () => {
    fc.assert(
      fc.property(anyStage, anySizes, (given, sizes) => {
        const tasks = cutTasks(given, sizes);
        given.exchanges.forEach(({ name, share, maps, partitionBytes }, index) => {
          const all = range(partitionBytes.length).flatMap((partition) =>
            range(maps).map((map): [number, number] => [partition, map]),
          );
          const read = pairsOf(tasks, index, maps);
          for (const pairs of read) expect(new Set(pairs.map(String)).size).toBe(pairs.length);
          if (share === "whole") for (const pairs of read) expect(pairs).toEqual(all);
          else if (share === "once") expect(read).toEqual([all, ...read.slice(1).map(() => [])]);
          else if (given.divisible === null || name === given.divisible) expect(read.flat()).toEqual(all);
        });
      }),
    );
  });

  it("has tasks read the same partitions of exchanges that are read together", () => {
    fc.assert(
      fc.property(anyStage, anySizes, (given, sizes) => {
        const tasks = cutTasks(given, sizes);
        const together = given.exchanges.flatMap(({ share, partitionBytes }, index) =>
          share === "split" && partitionBytes.length === 16 ? [index] : [],
        );
        for (const { slices } of tasks) {
          const partitions = together.map((index) =>
            (slices[index] ?? []).flatMap(({ first, count }) => range(count).map((i) => first + i)),
          );
          for (const each of partitions) expect(each).toEqual(partitions[0]);
        }
      }),
    );
  });

  it("has no task with more than its share and one piece of work", () => {
    fc.assert(
      fc.property(fc.array(bytes, { minLength: 1, maxLength: 60 }), anySizes, (partBytes, sizes) => {
        const tasks = cutTasks(stage({ tables: [{ share: "split", partBytes }] }), sizes);
        const total = partBytes.reduce((sum, size) => sum + size, 0);
        const wanted = Math.max(
          1,
          Math.ceil(total / sizes.taskBytesMax),
          Math.min(Math.ceil(total / sizes.taskBytesMin), sizes.workers * 4),
        );
        expect(tasks.length).toBeLessThanOrEqual(wanted);
        const largest = Math.max(...partBytes);
        for (const parts of partsOf(tasks, 0)) {
          const mine = parts.reduce((sum, part) => sum + (partBytes[part] as number), 0);
          expect(mine).toBeLessThanOrEqual(total / wanted + largest + 1e-6 * total);
        }
      }),
    );
  });
});
