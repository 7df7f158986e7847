/** `millrace sort` as users run it: every shape of input, checked without any code of Millrace. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { connect } from "../../client/index.js";
import { startDaemon } from "../support/daemon.js";
import {
  childrenOf,
  examine,
  isAlive,
  leftovers,
  makeRecords,
  readParts,
  SMALL,
  sortDocument,
  startSort,
  Workplace,
} from "./sort_helpers.js";

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
console.log(`sort: SEED=${seed}`);

/** xorshift, so that a failing input can be made again. */
function random(): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

function ascendingKey(record: number): Buffer {
  const key = Buffer.alloc(10);
  key.writeUInt32BE(record, 2);
  return key;
}

const next = random();
const SHAPES: [name: string, records: Buffer][] = [
  [
    "random keys",
    makeRecords(60_000, () => {
      const key = Buffer.alloc(10);
      key.writeUInt32BE(next(), 0);
      key.writeUInt32BE(next(), 4);
      return key;
    }),
  ],
  ["all keys equal", makeRecords(60_000, () => Buffer.from("same key!!"))],
  ["four distinct keys", makeRecords(60_000, () => Buffer.from(`key ${"abcd"[next() % 4]}.....`))],
  [
    "heavily skewed keys",
    makeRecords(60_000, (i) => (next() % 10 < 8 ? Buffer.from("MRMRMRMRMR") : ascendingKey(i ^ 0x5555))),
  ],
  ["sorted input", makeRecords(60_000, ascendingKey)],
  ["reversed input", makeRecords(60_000, (i) => ascendingKey(60_000 - i))],
  ["one record", makeRecords(1, ascendingKey)],
  ["two records", makeRecords(2, (i) => ascendingKey(2 - i))],
  ["no records", Buffer.alloc(0)],
];

describe("sorts", () => {
  it.each(SHAPES)("%s", async (_, records) => {
    using place = new Workplace();
    const input = place.write("input", records);
    const document = await sortDocument(place, [
      "--input",
      input,
      "--output",
      place.at("out"),
      "--workers",
      "2",
      "--partitions",
      "7",
    ]);
    const parts = readParts(place.at("out"));
    const expected = examine([records]);
    expect(examine(parts)).toEqual({ ...expected, unordered: 0 });
    expect(document).toMatchObject({
      workload: "sort",
      records: expected.records,
      bytes: records.length,
      workers: 2,
      partitions: 7,
      retries: 0,
      validated: true,
      checksum: expected.checksum,
      store: "millrace",
    });
    expect(parts.length).toBe(7);
    // Equal keys are dealt out, so no shape of input makes one part much larger than the others.
    if (expected.records > 1000) expect(document.partitionSkew).toBeLessThan(1.5);
    const moved = Object.values(document.exchange.byTransport).reduce((sum, bytes) => sum + bytes, 0);
    expect(moved).toBe(records.length);
    expect(document.exchange.bytes).toBe(records.length);
    expect(document.exchange.byTier.dram + document.exchange.byTier.nvme).toBe(records.length);
  });

  it("the files of a directory, hidden ones left out, into as many parts as fit", async () => {
    using place = new Workplace();
    mkdirSync(place.at("in"));
    const pieces = [3000, 0, 1, 777].map((count) => makeRecords(count, () => ascendingKey(next())));
    pieces.forEach((bytes, i) => {
      place.write(`in/${String.fromCharCode(97 + i)}`, bytes);
    });
    place.write("in/.hidden", Buffer.from("not a record"));
    const document = await sortDocument(place, [
      "--input",
      place.at("in"),
      "--output",
      place.at("out"),
      "--workers",
      "3",
    ]);
    expect(examine(readParts(place.at("out")))).toEqual({ ...examine(pieces), unordered: 0 });
    expect(document.workers).toBe(3);
  });

  it("fewer records than partitions and function workers", async () => {
    using place = new Workplace();
    const input = place.write(
      "input",
      makeRecords(3, (i) => ascendingKey(9 - i)),
    );
    await sortDocument(place, [
      "--input",
      input,
      "--output",
      place.at("out"),
      "--workers",
      "4",
      "--partitions",
      "16",
    ]);
    const parts = readParts(place.at("out"));
    expect(parts.length).toBe(16);
    expect(examine(parts)).toMatchObject({ records: 3, unordered: 0 });
  });

  it("gensort's first million records to their known checksum, and skewed ones", async () => {
    using place = new Workplace();
    const document = await sortDocument(place, ["--input", "gen:1000000", "--workers", "2"]);
    expect(document).toMatchObject({
      records: 1_000_000,
      bytes: 100_000_000,
      validated: true,
      checksum: "7a0e0d4868cd4",
    });
    const skewed = await sortDocument(place, [
      "--input",
      "gen:200000,skew",
      "--output",
      place.at("out"),
      "--workers",
      "2",
    ]);
    expect(skewed.validated).toBe(true);
    expect(examine(readParts(place.at("out")))).toEqual({
      records: 200_000,
      unordered: 0,
      checksum: skewed.checksum,
    });
    expect(skewed.partitionSkew).toBeLessThan(1.5);
  });

  it("any small input", async () => {
    using place = new Workplace();
    let run = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 200 }),
        fc.integer({ min: 1, max: 9 }),
        async (keys, partitions) => {
          run += 1;
          const records = makeRecords(keys.length, (i) => ascendingKey(keys[i] as number));
          const input = place.write(`input-${run}`, records);
          const output = place.at(`out-${run}`);
          await sortDocument(place, [
            "--input",
            input,
            "--output",
            output,
            "--workers",
            "2",
            "--partitions",
            String(partitions),
          ]);
          expect(examine(readParts(output))).toEqual({ ...examine([records]), unordered: 0 });
        },
      ),
      { numRuns: 4, seed },
    );
  });

  it("twice what memory holds, and tells what came out of files", async () => {
    using place = new Workplace();
    mkdirSync(place.at("tier"));
    const document = await sortDocument(place, [
      ...["--input", "gen:3000000", "--workers", "2"],
      ...["--dram", "128MiB", "--nvme", `${place.at("tier")}:1GiB`],
    ]);
    expect(document).toMatchObject({ validated: true, bytes: 300_000_000 });
    const { dram, nvme } = document.exchange.byTier;
    expect(nvme).toBeGreaterThan(0);
    expect(dram + nvme).toBe(300_000_000);
  });

  it("on a node that is there already, and leaves no namespace on it", async () => {
    using place = new Workplace();
    const daemon = await startDaemon();
    try {
      const document = await sortDocument(place, [
        "--input",
        "gen:50000",
        "--workers",
        "2",
        "--endpoint",
        daemon.endpoint,
      ]);
      expect(document.validated).toBe(true);
      await using client = await connect(daemon.endpoint);
      expect(await client.listNamespaces()).toEqual([]);
    } finally {
      await daemon.stop();
    }
  });
});

describe("tells", () => {
  it("people what it did", async () => {
    using place = new Workplace();
    const { code, stdout, stderr } = await startSort(place, [
      ...SMALL,
      "--input",
      "gen:20000",
      "--workers",
      "2",
    ]).ended;
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/records\s+20,000 \(2\.00 MB\)/);
    expect(stdout).toMatch(/validated\s+yes, checksum [0-9a-f]+/);
    expect(stdout).not.toContain("\u001b");
  });

  it("a browser, in one page that loads nothing", async () => {
    using place = new Workplace();
    await sortDocument(place, [
      "--input",
      "gen:20000",
      "--workers",
      "2",
      "--report",
      place.at("report.html"),
    ]);
    const page = readFileSync(place.at("report.html"), "utf8");
    expect(page).toContain("20,000 records sorted");
    expect(page).toContain("function worker 2");
    expect(page).not.toMatch(/(?:src|href)\s*=|@import|url\(|https?:/);
  });
});

describe("refuses", () => {
  it.each<[what: string, code: number, sentence: RegExp, args: (place: Workplace) => string[]]>([
    ["no input", 2, /--input/, () => []],
    ["a number of records that is none", 2, /gen:N makes N records/, () => ["--input", "gen:many"]],
    ["input of no kind", 2, /no input of this kind/, () => ["--input", "ftp://host/in"]],
    [
      "output of no kind",
      2,
      /no output of this kind/,
      () => ["--input", "gen:1", "--output", "ftp://host/x"],
    ],
    ["no function workers", 2, /whole number from 1/, () => ["--input", "gen:1", "--workers", "0"]],
    ["half a partition", 2, /whole number from 1/, () => ["--input", "gen:1", "--partitions", "1.5"]],
    ["a store of no kind", 2, /is no store/, () => ["--input", "gen:1", "--store", "ftp://x"]],
    ["a tier without size", 2, /is not DIR:SIZE/, () => ["--input", "gen:1", "--nvme", "/tmp"]],
    ["a path that is missing", 1, /does not exist/, (place) => ["--input", place.at("missing")]],
    [
      "a file that is not whole records",
      1,
      /not a whole number of 100-byte records/,
      (place) => ["--input", place.write("torn", Buffer.alloc(1050)), "--output", place.at("out")],
    ],
    [
      "an output directory that is not empty",
      2,
      /--force/,
      (place) => {
        mkdirSync(place.at("full"));
        place.write("full/notes", Buffer.from("mine"));
        return ["--input", "gen:1", "--output", place.at("full")];
      },
    ],
    [
      "to write over its input",
      2,
      /holds the input/,
      (place) => {
        mkdirSync(place.at("in"));
        place.write("in/part-00000", Buffer.alloc(100));
        return ["--input", place.at("in"), "--output", place.at("in"), "--force"];
      },
    ],
    [
      "a report where none can be written",
      2,
      /report cannot be written/,
      (place) => ["--input", "gen:1", "--report", place.at("missing/report.html")],
    ],
    [
      "bad input, and writes no report then",
      1,
      /does not exist/,
      (place) => ["--input", place.at("missing"), "--report", place.at("report.html")],
    ],
    ["what has no room", 1, /no room.*--dram/s, () => ["--input", "gen:1000000", "--dram", "32MiB"]],
    [
      "a node that is not there",
      1,
      /cannot be reached/,
      () => ["--input", "gen:1", "--endpoint", "127.0.0.1:1"],
    ],
    [
      "a store that is not there",
      1,
      /exchange through redis/,
      () => ["--input", "gen:1", "--store", "redis://127.0.0.1:1"],
    ],
  ])("%s", async (_, expected, sentence, args) => {
    using place = new Workplace();
    const given = args(place);
    const before = readdirSync(place.path);
    const { code, stdout, stderr } = await startSort(place, ["--huge-pages", "off", ...given]).ended;
    expect({ code, stdout }).toEqual({ code: expected, stdout: "" });
    expect(stderr).toMatch(sentence);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(readdirSync(place.path)).toEqual(before);
    expect(leftovers(place)).toEqual([]);
  });

  it("nothing that --force replaces but parts", async () => {
    using place = new Workplace();
    mkdirSync(place.at("out"));
    for (const name of ["part-00000", "part-00009"]) writeFileSync(place.at(`out/${name}`), "old");
    await sortDocument(place, [
      "--input",
      "gen:1000",
      "--output",
      place.at("out"),
      "--force",
      "--partitions",
      "2",
    ]);
    expect(examine(readParts(place.at("out"))).records).toBe(1000);
  });
});

describe("interrupted", () => {
  it.each(["SIGINT", "SIGTERM"] as const)("by %s, leaves nothing behind", async (signal) => {
    using place = new Workplace();
    const output = place.at("out");
    const args = [
      "--dram",
      "4GiB",
      "--huge-pages",
      "auto",
      "--input",
      "gen:3000000",
      "--output",
      output,
      "--workers",
      "2",
    ];
    const run = startSort(place, args);
    const pid = run.process.pid as number;
    // In the middle of the reduce: some parts are there, and not all.
    while (!(existsSync(output) && readdirSync(output).some((name) => name.startsWith("part-")))) {
      if (run.process.exitCode !== null) throw new Error((await run.ended).stderr);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const children = childrenOf(pid);
    expect(children.length).toBeGreaterThan(0);
    process.kill(pid, signal);
    const { code, stdout, stderr } = await run.ended;
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toContain(`interrupted by ${signal}`);
    expect(existsSync(output)).toBe(false);
    expect(leftovers(place)).toEqual([]);
    expect(children.filter(isAlive)).toEqual([]);
  });
});
