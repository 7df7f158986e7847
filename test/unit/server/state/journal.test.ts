import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { NamespaceState, Usage } from "../../../../server/namespaces/namespaces.js";
import type { MapOutput } from "../../../../server/shuffles/shuffle.js";
import { type BadJournal, Journals, readJournal } from "../../../../server/state/journal.js";
import { encode, encodeAll, type Journaled, type Line, replay } from "../../../../server/state/lines.js";

const NS = "job-1";
const seed = Number(process.env.MILLRACE_SEED ?? Date.now() % 2 ** 31);
console.log(`journal.test seed ${seed}`);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-journal-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function usage(factor: number): Usage {
  return {
    traffic: [{ by: "shm", bytesIn: factor, bytesOut: 2 * factor, operations: 3 }],
    dramByteSeconds: factor / 3,
    nvmeByteSeconds: factor / 7,
    copiesAvoidedBytes: factor,
    peakBytes: factor + 1,
  };
}

function namespace(name = NS): NamespaceState {
  return {
    name,
    token: Uint8Array.from({ length: 16 }, (_, index) => index * 15),
    leaseMs: 60_000,
    limits: { sizeBytes: 1 << 30, dramBytes: 0, bandwidthBytesPerSecond: 5 },
    hint: "HINT_CAPACITY",
    expectedBytes: 7,
    createdUnixMs: 1_700_000_000_000,
    guarded: true,
    lapsesAtMs: 61_234.5,
    usage: usage(1),
  };
}

function output(partitions: number, attempt: number, scale: number, summed: boolean): MapOutput {
  const offsets = Array.from({ length: partitions + 1 }, (_, index) => index * scale);
  return {
    attempt,
    key: Buffer.from(`s/ö/${attempt}`),
    sequence: attempt * 2 ** 40,
    offsets:
      (offsets.at(-1) as number) > 0xffff_ffff ? Float64Array.from(offsets) : Uint32Array.from(offsets),
    checksums: summed ? Uint32Array.from({ length: partitions }, (_, index) => 0xffff_ffff - index) : null,
  };
}

/** Comparable with toEqual, whatever kinds of byte arrays it holds. */
function plain(journaled: Journaled | null): unknown {
  if (journaled === null) return null;
  return {
    namespace: { ...journaled.namespace, token: [...journaled.namespace.token] },
    slowest: journaled.slowest,
    shuffles: [...journaled.shuffles.values()].map((shuffle) => ({
      ...shuffle,
      partitioner: [...shuffle.partitioner],
      outputs: [...shuffle.outputs]
        .sort(([a], [b]) => a - b)
        .map(([map, { key, offsets, checksums, ...rest }]) => [
          map,
          { ...rest, key: [...key], offsets: [...offsets], checksums: checksums && [...checksums] },
        ]),
      lost: [...shuffle.lost].sort((a, b) => a - b),
    })),
  };
}

/** What the events should add up to, told apart from the code under test. */
function model(events: readonly Line[]): Journaled | null {
  let state: Journaled | null = null;
  for (const event of events) {
    if (event.type === "created") {
      state = { namespace: event.namespace, shuffles: new Map(), slowest: { partition: "", bytes: 0 } };
      continue;
    }
    if (state === null) throw new Error("the first event must be the creation");
    if (event.type === "renewed") {
      state.namespace = { ...state.namespace, lapsesAtMs: event.lapsesAtMs, usage: event.usage };
    } else if (event.type === "used") {
      state.namespace = { ...state.namespace, usage: event.usage };
    } else if (event.type === "shuffleCreated") {
      const { shuffle: name, maps, partitions, partitioner } = event;
      state.shuffles.set(name, { name, maps, partitions, partitioner, outputs: new Map(), lost: new Set() });
    } else if (event.type === "shuffleDeleted") {
      state.shuffles.delete(event.shuffle);
      state.slowest = event.slowest;
    } else {
      const shuffle = state.shuffles.get(event.shuffle);
      if (shuffle === undefined) throw new Error("no such shuffle");
      if (event.type === "mapCommitted") {
        shuffle.outputs.set(event.map, event.output);
        shuffle.lost.delete(event.map);
      } else {
        for (const map of event.maps) {
          shuffle.outputs.delete(map);
          shuffle.lost.add(map);
        }
      }
    }
  }
  return state;
}

/** Sensible sequences of events: numbers pick among what is possible. */
function eventsFrom(picks: readonly [number, number, number][]): Line[] {
  const events: Line[] = [{ type: "created", namespace: namespace() }];
  const shuffles = new Map<string, { maps: number; partitions: number }>();
  for (const [kind, a, b] of picks) {
    const name = `s-${a % 3}`;
    const shuffle = shuffles.get(name);
    if (kind === 0) {
      events.push({ type: "renewed", name: NS, lapsesAtMs: a * 1.25, usage: usage(b) });
    } else if (kind === 1) {
      events.push({ type: "used", name: NS, usage: usage(b) });
    } else if (shuffle === undefined) {
      const [maps, partitions] = [1 + (b % 5), 1 + (a % 4)];
      shuffles.set(name, { maps, partitions });
      const partitioner = Uint8Array.from([a % 256, b % 256]);
      events.push({ type: "shuffleCreated", namespace: NS, shuffle: name, maps, partitions, partitioner });
    } else if (kind === 2) {
      shuffles.delete(name);
      const slowest = { partition: `${name}/0`, bytes: b };
      events.push({ type: "shuffleDeleted", namespace: NS, shuffle: name, slowest });
    } else if (kind === 3) {
      events.push({ type: "mapsLost", namespace: NS, shuffle: name, maps: [b % shuffle.maps] });
    } else {
      const scale = b % 2 === 0 ? b : 2 ** 33;
      const made = output(shuffle.partitions, a, scale, b % 3 !== 0);
      events.push({
        type: "mapCommitted",
        namespace: NS,
        shuffle: name,
        map: b % shuffle.maps,
        output: made,
      });
    }
  }
  return events;
}

const PICKS = fc.array(fc.tuple(fc.nat(7), fc.nat(1000), fc.nat(1000)), { maxLength: 30 });

describe("a journal", () => {
  it("cut anywhere gives what the lines before the cut say", () => {
    fc.assert(
      fc.property(PICKS, fc.double({ min: 0, max: 1, noNaN: true }), (picks, where) => {
        const events = eventsFrom(picks);
        const lines = events.map(encode);
        const bytes = Buffer.from(lines.join(""));
        const cut = Math.floor(where * bytes.length);
        const file = join(folder, "cut.jsonl");
        writeFileSync(file, bytes.subarray(0, cut));
        let whole = 0;
        for (let end = 0; whole < lines.length; whole++) {
          end += Buffer.byteLength(lines[whole] as string);
          if (end > cut) break;
        }
        expect(plain(readJournal(file, NS) as Journaled | null)).toEqual(
          plain(model(events.slice(0, whole))),
        );
      }),
      { seed },
    );
  });

  it("says the same when it is rewritten short", () => {
    fc.assert(
      fc.property(PICKS, (picks) => {
        const journaled = model(eventsFrom(picks)) as Journaled;
        let again: Journaled | null = null;
        for (const { text } of encodeAll(journaled)) again = replay(again, text);
        expect(plain(again)).toEqual(plain(journaled));
      }),
      { seed },
    );
  });

  it.each([
    ["no JSON", "{"],
    ["of no known kind", '{"t":"guess"}'],
    ["of a shuffle that is not there", '{"t":"lost","shuffle":"x","maps":[0]}'],
    ["with a map out of range", '{"t":"lost","shuffle":"s","maps":[2]}'],
    ["with a negative number", '{"t":"shuffle","shuffle":"t","maps":-1,"partitions":1,"partitioner":""}'],
    [
      "with too few offsets",
      '{"t":"commit","shuffle":"s","map":0,"attempt":0,"key":"aw==","sequence":1,"offsets":"AAAAAA=="}',
    ],
    [
      "with half an offset",
      '{"t":"commit","shuffle":"s","map":0,"attempt":0,"key":"aw==","sequence":1,"offsets":"AAA="}',
    ],
    [
      "that creates a shuffle again",
      '{"t":"shuffle","shuffle":"s","maps":1,"partitions":1,"partitioner":""}',
    ],
    ["that is a second first line", encode({ type: "created", namespace: namespace() }).trim()],
  ])("with a line %s names file and line", (_, line) => {
    const file = join(folder, `${NS}.jsonl`);
    const shuffle = { namespace: NS, shuffle: "s", maps: 2, partitions: 3, partitioner: new Uint8Array(0) };
    writeFileSync(
      file,
      encode({ type: "created", namespace: namespace() }) + encode({ type: "shuffleCreated", ...shuffle }),
    );
    appendFileSync(file, `${line}\n${encode({ type: "used", name: NS, usage: usage(2) })}`);
    expect(readJournal(file, NS)).toMatchObject({ file, line: 3, reason: expect.any(String) });
  });

  it("of another namespace, or of a later format, is refused", () => {
    const file = join(folder, `${NS}.jsonl`);
    const line = encode({ type: "created", namespace: namespace("other") });
    writeFileSync(file, line);
    expect(readJournal(file, NS)).toMatchObject({ line: 1, reason: /"other"/ });
    writeFileSync(file, line.replace('"format":1', '"format":2'));
    expect(readJournal(file, "other")).toMatchObject({ line: 1, reason: /format is 2/ });
  });
});

describe("the journals of a node", () => {
  const takeUp = (bad: BadJournal[] = []) => {
    const journals = new Journals(folder);
    return { journals, found: journals.takeUp((one) => bad.push(one)) };
  };

  it("bring back what was recorded, and go on from there", () => {
    const { journals } = takeUp();
    journals.record({ type: "created", namespace: namespace() });
    journals.record({ type: "created", namespace: namespace("job-2") });
    journals.record({ type: "renewed", name: NS, lapsesAtMs: 99, usage: usage(5) });
    journals.record({ type: "ended", name: "job-2" });
    // Late news of a namespace that has ended.
    journals.record({ type: "mapsLost", namespace: "job-2", shuffle: "s", maps: [1] });
    const again = takeUp();
    expect(again.found.map((one) => one.namespace.lapsesAtMs)).toEqual([99]);
    again.journals.record({ type: "renewed", name: NS, lapsesAtMs: 100, usage: usage(6) });
    expect(takeUp().found[0]?.namespace).toMatchObject({ name: NS, lapsesAtMs: 100, usage: usage(6) });
    expect(readdirSync(folder)).toEqual([`${NS}.jsonl`]);
    expect(statSync(join(folder, `${NS}.jsonl`)).mode & 0o777).toBe(0o600);
  });

  it("forget a namespace whose creation was never finished, and leftovers of rewriting", () => {
    const line = encode({ type: "created", namespace: namespace() });
    writeFileSync(join(folder, `${NS}.jsonl`), line.slice(0, -5));
    writeFileSync(join(folder, "job-2.jsonl"), "");
    writeFileSync(join(folder, "job-3.jsonl.new"), "half");
    expect(takeUp().found).toEqual([]);
    expect(readdirSync(folder)).toEqual([]);
  });

  it("set one aside that does not hold, untouched, and take up the others", () => {
    const first = encode({ type: "created", namespace: namespace() });
    const content = `${first}rubbish\n`;
    writeFileSync(join(folder, `${NS}.jsonl`), content);
    writeFileSync(join(folder, `${NS}.jsonl.bad`), "older");
    writeFileSync(join(folder, "job-2.jsonl"), encode({ type: "created", namespace: namespace("job-2") }));
    const bad: BadJournal[] = [];
    const { journals, found } = takeUp(bad);
    expect(found.map((one) => one.namespace.name)).toEqual(["job-2"]);
    expect(bad).toEqual([{ file: join(folder, `${NS}.jsonl.bad-2`), line: 2, reason: expect.any(String) }]);
    expect(readFileSync(join(folder, `${NS}.jsonl.bad-2`), "utf8")).toBe(content);
    expect(journals.bad()).toHaveLength(2);
    // Its name is free again.
    journals.record({ type: "created", namespace: namespace() });
    expect(existsSync(join(folder, `${NS}.jsonl`))).toBe(true);
  });

  it("stay short however often a lease is renewed", () => {
    const { journals } = takeUp();
    journals.record({ type: "created", namespace: namespace() });
    for (let round = 0; round < 10_000; round++) {
      journals.record({ type: "renewed", name: NS, lapsesAtMs: round, usage: usage(round) });
    }
    expect(statSync(join(folder, `${NS}.jsonl`)).size).toBeLessThan(600 * 1024);
    expect(takeUp().found[0]?.namespace).toMatchObject({ lapsesAtMs: 9_999 });
    expect(statSync(join(folder, `${NS}.jsonl`)).size).toBeLessThan(2048);
  });
});
