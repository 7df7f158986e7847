/** How a stage is cut into tasks: which task reads what of its tables and exchanges. Pure. */
import type { Share } from "./plan/stage.js";

/** A table or an exchange that a stage reads, as far as its cutting is concerned. */
export interface TableToCut {
  share: Share;
  /** Bytes of each part, in order. */
  partBytes: readonly number[];
}

export interface ExchangeToCut {
  name: string;
  share: Share;
  maps: number;
  /** Of each partition. */
  partitionBytes: readonly number[];
}

export interface StageToCut {
  tables: readonly TableToCut[];
  exchanges: readonly ExchangeToCut[];
  /** One task does it all: the order of its rows is that of the output. */
  single: boolean;
  /** Name of the exchange whose partitions may be divided by maps, or null. */
  divisible: string | null;
}

/** Neighbouring parts of a table. */
export interface PartRange {
  first: number;
  count: number;
}

/** Neighbouring partitions of an exchange, as all maps left them, or as some neighbouring maps did. */
export interface Slice {
  first: number;
  count: number;
  maps: { first: number; count: number } | null;
}

export interface Task {
  /** For each table of the stage, the parts that the task reads; a count of 0: none. */
  parts: PartRange[];
  /** For each exchange of the stage; no slices: nothing. */
  slices: Slice[][];
}

/** What cutting goes by. */
export interface TaskSizes {
  /** Function workers. */
  workers: number;
  /** Below this a task costs more to hand out than it brings. */
  taskBytesMin: number;
  /** Above this a task needs more memory, and leaves a larger output, than is good. */
  taskBytesMax: number;
  /** A partition below this is never divided. */
  skewBytesMin: number;
}

export const DEFAULT_TASK_SIZES = {
  taskBytesMin: 8 << 20,
  taskBytesMax: 192 << 20,
  skewBytesMin: 8 << 20,
} as const;

/** With more, each has little to do; with fewer, the last one to end keeps the others waiting. */
const TASKS_PER_FUNCTION_WORKER_MAX = 2;
/** So much larger may tasks be that all read a lot whole. */
const WHOLE_READS_FACTOR = 4;
/** What all tasks read whole is about this part of what they share out, or there is one task a function worker. */
const WHOLE_READS_SHARE = 1 / 8;
/** A partition is skewed when it is this many times what a task should have. */
const SKEW_FACTOR = 2;

/** A piece of work that is given to one task whole. */
interface Unit {
  bytes: number;
  /** Index of a table, or of a group of exchanges that are read together. */
  source: number;
  /** Of the part or the partition. */
  index: number;
  maps: { first: number; count: number } | null;
}

/** Exchanges with as many partitions as each other: tasks take the same partitions of each. */
interface Group {
  partitions: number;
  exchanges: number[];
}

/**
 * Cuts a stage. Every part of a split table and every partition of a split exchange goes to one task (a divided
 * partition: every map of it), in order, so that tasks have about the same number of bytes to read. There is always a
 * task.
 */
export function cutTasks(stage: StageToCut, sizes: TaskSizes): Task[] {
  const groups = groupsOf(stage);
  const units = [...tableUnits(stage), ...exchangeUnits(stage, groups)];
  const totalBytes = units.reduce((sum, unit) => sum + unit.bytes, 0);
  const count = stage.single ? 1 : taskCount(stage, totalBytes, sizes);
  const fair = totalBytes / count;
  const pieces = count === 1 ? units : units.flatMap((unit) => divided(unit, stage, groups, fair, sizes));
  const shared = runs(pieces, count);
  const tasks = (shared.length === 0 ? [[]] : shared).map((run) => taskOf(run, stage, groups));
  for (const [number, task] of tasks.entries()) addUnshared(task, number, stage);
  return tasks;
}

function taskCount(stage: StageToCut, totalBytes: number, sizes: TaskSizes): number {
  const { workers, taskBytesMin, taskBytesMax } = sizes;
  const wholeBytes =
    bytesWhole(stage.exchanges.map(({ share, partitionBytes }) => ({ share, bytes: partitionBytes }))) +
    bytesWhole(stage.tables.map(({ share, partBytes }) => ({ share, bytes: partBytes })));
  // What is read whole is read, and mostly built into a hash table, by every task again.
  const perWorker = Math.min(
    TASKS_PER_FUNCTION_WORKER_MAX,
    Math.max(
      1,
      wholeBytes === 0
        ? Number.POSITIVE_INFINITY
        : Math.floor((WHOLE_READS_SHARE * totalBytes) / wholeBytes / workers),
    ),
  );
  const wanted = Math.min(Math.ceil(totalBytes / taskBytesMin), workers * perWorker);
  // Where that is much, larger tasks are the lesser evil.
  const mostBytes = perWorker === 1 ? WHOLE_READS_FACTOR * taskBytesMax : taskBytesMax;
  const count = Math.max(1, wanted, Math.ceil(totalBytes / mostBytes));
  // Tasks are of one size, so function workers end together only where each has as many.
  return count > workers ? Math.ceil(count / workers) * workers : count;
}

function bytesWhole(inputs: readonly { share: Share; bytes: readonly number[] }[]): number {
  return inputs
    .filter(({ share }) => share === "whole")
    .reduce((sum, { bytes }) => sum + bytes.reduce((all, size) => all + size, 0), 0);
}

function groupsOf(stage: StageToCut): Group[] {
  const groups: Group[] = [];
  stage.exchanges.forEach(({ share, partitionBytes }, exchange) => {
    if (share !== "split") return;
    const partitions = partitionBytes.length;
    const group = groups.find((candidate) => candidate.partitions === partitions);
    if (group === undefined) groups.push({ partitions, exchanges: [exchange] });
    else group.exchanges.push(exchange);
  });
  return groups;
}

function tableUnits(stage: StageToCut): Unit[] {
  return stage.tables.flatMap(({ share, partBytes }, source) =>
    share === "split" ? partBytes.map((bytes, index) => ({ bytes, source, index, maps: null })) : [],
  );
}

/** Sources of groups are numbered behind those of tables. */
function exchangeUnits(stage: StageToCut, groups: readonly Group[]): Unit[] {
  return groups.flatMap(({ partitions, exchanges }, group) =>
    Array.from({ length: partitions }, (_, index) => ({
      bytes: exchanges.reduce(
        (sum, exchange) => sum + (stage.exchanges[exchange]?.partitionBytes[index] ?? 0),
        0,
      ),
      source: stage.tables.length + group,
      index,
      maps: null,
    })),
  );
}

/** A skewed partition as several units, each of some maps of the exchange that may be divided. */
function divided(
  unit: Unit,
  stage: StageToCut,
  groups: readonly Group[],
  fairBytes: number,
  sizes: TaskSizes,
): Unit[] {
  const group = groups[unit.source - stage.tables.length];
  const divisible = stage.exchanges.findIndex(({ name }) => name === stage.divisible);
  const exchange = stage.exchanges[divisible];
  if (group === undefined || exchange === undefined || !group.exchanges.includes(divisible)) return [unit];
  const bytes = exchange.partitionBytes[unit.index] ?? 0;
  if (bytes < Math.max(sizes.skewBytesMin, SKEW_FACTOR * fairBytes)) return [unit];
  // The others read the rest of the partition too, each of them all of it.
  const restBytes = unit.bytes - bytes;
  const count = Math.min(exchange.maps, Math.ceil(bytes / Math.max(fairBytes, sizes.taskBytesMin)));
  return Array.from({ length: count }, (_, piece) => {
    const first = Math.floor((piece * exchange.maps) / count);
    const end = Math.floor(((piece + 1) * exchange.maps) / count);
    const share = (bytes * (end - first)) / exchange.maps;
    return { ...unit, bytes: share + restBytes, maps: { first, count: end - first } };
  });
}

/**
 * Cuts units into at most `count` runs of about the same bytes: a unit belongs to the run in which its middle lies, so
 * that none has more than its share and one unit.
 */
function runs(units: readonly Unit[], count: number): Unit[][] {
  const totalBytes = units.reduce((sum, unit) => sum + unit.bytes, 0);
  const found: Unit[][] = [];
  let before = 0;
  let last = -1;
  for (const unit of units) {
    const middle = before + unit.bytes / 2;
    const run = totalBytes === 0 ? 0 : Math.min(count - 1, Math.floor((middle / totalBytes) * count));
    const current = found.at(-1);
    // What holds nothing is no reason for a task.
    const isNothing = unit.bytes === 0 || before === 0;
    if (current !== undefined && (run === last || isNothing)) current.push(unit);
    else found.push([unit]);
    if (unit.bytes > 0 || current === undefined) last = run;
    before += unit.bytes;
  }
  return found;
}

function taskOf(run: readonly Unit[], stage: StageToCut, groups: readonly Group[]): Task {
  const task: Task = {
    parts: stage.tables.map(() => ({ first: 0, count: 0 })),
    slices: stage.exchanges.map(() => []),
  };
  for (const { source, index, maps } of run) {
    const parts = task.parts[source];
    if (parts !== undefined) {
      if (parts.count === 0) parts.first = index;
      parts.count += 1;
      continue;
    }
    for (const exchange of groups[source - stage.tables.length]?.exchanges ?? []) {
      const isDivided = stage.exchanges[exchange]?.name === stage.divisible;
      addSlice(task.slices[exchange] as Slice[], index, isDivided ? maps : null);
    }
  }
  return task;
}

/** Units come in order, so what is new lies behind what is there, or is a further piece of its last partition. */
function addSlice(slices: Slice[], partition: number, maps: { first: number; count: number } | null): void {
  const last = slices.at(-1);
  const end = last === undefined ? -1 : last.first + last.count;
  if (last !== undefined && end === partition + 1) {
    // The same partition again: of a divided one more maps, of those read beside it nothing more.
    if (last.maps !== null && maps !== null) last.maps.count += maps.count;
    return;
  }
  if (last !== undefined && end === partition && last.maps === null && maps === null) last.count += 1;
  else slices.push({ first: partition, count: 1, maps: maps === null ? null : { ...maps } });
}

/** What every task reads, and what the first one does for all. */
function addUnshared(task: Task, number: number, stage: StageToCut): void {
  const reads = (share: Share): boolean => share === "whole" || (share === "once" && number === 0);
  stage.tables.forEach(({ share, partBytes }, table) => {
    if (reads(share)) task.parts[table] = { first: 0, count: partBytes.length };
  });
  stage.exchanges.forEach(({ share, partitionBytes }, exchange) => {
    if (reads(share)) task.slices[exchange] = [{ first: 0, count: partitionBytes.length, maps: null }];
  });
}
