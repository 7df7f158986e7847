/** `millrace sort` from S3 and to S3, which is a Millrace node's own door. */
import { once } from "node:events";
import { connect, createServer, type Server } from "node:net";
import {
  CreateBucketCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Executor } from "../../functions/index.js";
import { runSort } from "../../server/cli/sort.js";
import { cutSplits, fillSplit, openInput } from "../../workloads/sort/input.js";
import { ACCESS_KEY, type S3Daemon, SECRET_KEY, startS3Daemon } from "../support/s3.js";
import {
  examine,
  leftovers,
  makeRecords,
  readParts,
  SMALL,
  sortDocument,
  startSort,
  Workplace,
} from "./sort_helpers.js";

const BUCKET = "sorted";

/** A way to the door on which connections can be made to break. */
class Way {
  /** Of these connections to come, each breaks when so much has come back over it. */
  breaks: number[] = [];
  broken = 0;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(port: number): Promise<Way> {
    const way: Way = new Way(
      createServer((near) => {
        const far = connect(port, "127.0.0.1");
        let leftBytes = way.breaks.shift() ?? Number.POSITIVE_INFINITY;
        const end = () => {
          near.destroy();
          far.destroy();
        };
        near
          .on("data", (bytes) => far.write(bytes))
          .on("close", end)
          .on("error", end);
        far.on("close", end).on("error", end);
        far.on("data", (bytes) => {
          near.write(bytes.subarray(0, Math.min(bytes.length, leftBytes)));
          leftBytes -= bytes.length;
          if (leftBytes > 0) return;
          way.broken += 1;
          near.destroySoon();
          far.destroy();
        });
      }).listen(0, "127.0.0.1"),
    );
    await once(way.#server, "listening");
    return way;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  close(): void {
    this.#server.close();
  }
}

let door: S3Daemon;
let s3: S3Client;
let way: Way;
/** Of commands. */
let env: Record<string, string>;

beforeAll(async () => {
  door = await startS3Daemon({ dram: "2GiB" });
  way = await Way.open(door.port);
  s3 = door.client();
  await s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
  env = {
    AWS_ENDPOINT_URL: door.url,
    AWS_ACCESS_KEY_ID: ACCESS_KEY,
    AWS_SECRET_ACCESS_KEY: SECRET_KEY,
    AWS_CONFIG_FILE: "/dev/null",
    AWS_SHARED_CREDENTIALS_FILE: "/dev/null",
    AWS_EC2_METADATA_DISABLED: "true",
  };
  // What runs in this process goes the other way.
  Object.assign(process.env, env, { AWS_ENDPOINT_URL: way.url });
});

afterAll(async () => {
  way?.close();
  s3?.destroy();
  expect(await door?.daemon.stop()).toEqual({ code: 0, signal: null });
});

async function put(key: string, bytes: Uint8Array): Promise<void> {
  await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key: key, Body: bytes }));
}

async function keysUnder(prefix: string): Promise<string[]> {
  const page = await s3.send(new ListObjectsV2Command({ Bucket: BUCKET, Prefix: prefix }));
  return (page.Contents ?? []).map((object) => object.Key as string);
}

async function uploadsUnder(prefix: string): Promise<number> {
  const page = await s3.send(new ListMultipartUploadsCommand({ Bucket: BUCKET, Prefix: prefix }));
  return (page.Uploads ?? []).length;
}

/** The parts under a prefix, in order. There must be nothing else. */
async function readObjects(prefix: string): Promise<Uint8Array[]> {
  const keys = await keysUnder(prefix);
  expect(keys).toEqual(keys.map((_, i) => `${prefix}part-${String(i).padStart(5, "0")}`));
  return Promise.all(
    keys.map(async (key) => {
      const { Body } = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: key }));
      return (Body as NonNullable<typeof Body>).transformToByteArray();
    }),
  );
}

/** Records with keys in no order; `first` tells those of several objects apart. */
function scattered(count: number, first = 0): Buffer {
  return makeRecords(count, (i) => {
    const key = Buffer.alloc(10);
    key.writeUInt32BE(Math.imul(first + i, 2_654_435_761) >>> 0, 0);
    return key;
  });
}

describe("sorts", () => {
  it("to objects and from them, with the records of the run that went nowhere", async () => {
    using place = new Workplace();
    const plain = await sortDocument(place, ["--input", "gen:300000", "--workers", "2"]);
    const output = `s3://${BUCKET}/generated/first`;
    const written = await sortDocument(
      place,
      ["--input", "gen:300000", "--output", output, "--workers", "2", "--partitions", "5"],
      env,
    );
    expect(written).toMatchObject({ validated: true, checksum: plain.checksum, partitions: 5 });
    expect(written.time.output).toBeGreaterThan(0);
    const found = { records: 300_000, unordered: 0, checksum: plain.checksum };
    expect(examine(await readObjects("generated/first/"))).toEqual(found);

    const again = await sortDocument(
      place,
      ["--input", output, "--output", place.at("out"), "--workers", "2", "--partitions", "3"],
      env,
    );
    expect(again).toMatchObject({ validated: true, records: 300_000, checksum: plain.checksum });
    expect(again.time.input).toBeGreaterThan(0);
    expect(examine(readParts(place.at("out")))).toEqual(found);
  });

  it("a folder's objects, hidden ones left out, one by its key, and a file beside them", async () => {
    using place = new Workplace();
    const pieces = [scattered(3000), scattered(1, 3000), scattered(70_000, 3001), scattered(500, 90_000)];
    const [a, b, c, file] = pieces as [Buffer, Buffer, Buffer, Buffer];
    await put("mixed/in/", new Uint8Array(0));
    await put("mixed/in/a", a);
    await put("mixed/in/b ünï %20+", b);
    await put("mixed/in/.hidden", Buffer.from("no record"));
    await put("mixed/in/_SUCCESS", new Uint8Array(0));
    await put("mixed/in/below/x", Buffer.from("no record"));
    // Beside the folder, with a name that begins as its does.
    await put("mixed/in2", Buffer.from("no record"));
    await put("mixed/one", c);
    const document = await sortDocument(
      place,
      [
        ...["--input", `s3://${BUCKET}/mixed/in`, `s3://${BUCKET}/mixed/one`, place.write("file", file)],
        ...["--output", `s3://${BUCKET}/mixed/out/`, "--workers", "2"],
      ],
      env,
    );
    const expected = examine(pieces);
    expect(document).toMatchObject({ validated: true, records: 73_501, checksum: expected.checksum });
    expect(examine(await readObjects("mixed/out/"))).toEqual({ ...expected, unordered: 0 });
    const single = await sortDocument(place, ["--input", `s3://${BUCKET}/mixed/in/b ünï %20+`], env);
    expect(single).toMatchObject({ records: 1, validated: true });
  });

  it("into a part that is uploaded in pieces, and out of it by ranges", async () => {
    using place = new Workplace();
    const output = `s3://${BUCKET}/large`;
    const written = await sortDocument(
      place,
      ["--input", "gen:1500000", "--output", output, "--workers", "2", "--partitions", "1"],
      env,
    );
    const head = await s3.send(new HeadObjectCommand({ Bucket: BUCKET, Key: "large/part-00000" }));
    expect(head).toMatchObject({ ContentLength: 150_000_000, ETag: expect.stringMatching(/-3"$/) });
    expect(await uploadsUnder("large/")).toBe(0);
    const again = await sortDocument(place, ["--input", output, "--workers", "2"], env);
    expect(again).toMatchObject({ validated: true, checksum: written.checksum });
  });

  it("with the exchange through S3 as well, of which nothing is left", async () => {
    using place = new Workplace();
    await put("all/in", scattered(50_000));
    const document = await sortDocument(
      place,
      [
        ...["--input", `s3://${BUCKET}/all/in`, "--output", `s3://${BUCKET}/all/out`, "--workers", "2"],
        ...["--partitions", "3", "--store", `s3://${BUCKET}/all/exchange`],
      ],
      env,
    );
    expect(document).toMatchObject({ validated: true, store: "s3" });
    expect(document.exchange.byTransport.s3).toBe(5_000_000);
    expect(examine(await readObjects("all/out/"))).toMatchObject({ records: 50_000, unordered: 0 });
    expect(await keysUnder("all/exchange")).toEqual([]);
  });

  it("no records", async () => {
    using place = new Workplace();
    await put("none/in/empty", new Uint8Array(0));
    const document = await sortDocument(
      place,
      ["--input", `s3://${BUCKET}/none/in`, "--output", `s3://${BUCKET}/none/out`, "--partitions", "3"],
      env,
    );
    expect(document).toMatchObject({ validated: true, records: 0 });
    expect((await readObjects("none/out/")).map((part) => part.length)).toEqual([0, 0, 0]);
  });

  it("over earlier parts with --force, and over nothing else", async () => {
    using place = new Workplace();
    for (const name of ["part-00000", "part-00009", "notes", "part-00000/below"]) {
      await put(`forced/${name}`, Buffer.from("old"));
    }
    const output = `s3://${BUCKET}/forced`;
    const args = ["--input", "gen:1000", "--output", output, "--partitions", "2"];
    const refused = await startSort(place, [...SMALL, ...args], env).ended;
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringMatching(/--force/) });
    expect((await keysUnder("forced/")).length).toBe(4);
    await sortDocument(place, [...args, "--force"], env);
    expect(await keysUnder("forced/")).toEqual([
      "forced/notes",
      "forced/part-00000",
      "forced/part-00000/below",
      "forced/part-00001",
    ]);
  });
});

describe("refuses", () => {
  it.each<[what: string, code: number, sentence: RegExp, args: string[], env?: Record<string, string>]>([
    ["input of no bucket", 2, /write s3:\/\/BUCKET/, ["--input", "s3://"]],
    ["output to no bucket", 2, /write s3:\/\/BUCKET/, ["--input", "gen:1", "--output", "s3:///x"]],
    ["a bucket that is missing", 1, /bucket of .* does not exist/, ["--input", "s3://missing/x"]],
    [
      "a bucket that is missing, for the output",
      1,
      /bucket of .* does not exist/,
      ["--input", "gen:1", "--output", "s3://missing/x"],
    ],
    ["a key that is missing", 1, /there is no object/, ["--input", `s3://${BUCKET}/missing`]],
    [
      "an object that is not whole records",
      1,
      /150 bytes, .* whole number/,
      ["--input", `s3://${BUCKET}/torn`],
    ],
    [
      "to write over its input",
      2,
      /holds the input/,
      ["--input", `s3://${BUCKET}/over/`, "--output", `s3://${BUCKET}/over`, "--force"],
    ],
    [
      "no credentials",
      1,
      /no credentials .* AWS_ACCESS_KEY_ID/,
      ["--input", "gen:1", "--output", `s3://${BUCKET}/x`],
      { AWS_ACCESS_KEY_ID: "", AWS_SECRET_ACCESS_KEY: "" },
    ],
    [
      "credentials that are wrong",
      1,
      /may not do that/,
      ["--input", `s3://${BUCKET}/torn`],
      { AWS_SECRET_ACCESS_KEY: "wrong" },
    ],
    [
      "a server that is not there",
      1,
      /cannot write to .*ECONNREFUSED/,
      ["--input", "gen:1", "--output", `s3://${BUCKET}/x`],
      { AWS_ENDPOINT_URL: "http://127.0.0.1:1" },
    ],
  ])("%s", async (_, code, sentence, args, changes = {}) => {
    using place = new Workplace();
    await put("torn", Buffer.alloc(150));
    await put("over/part-00000", scattered(1));
    const ended = await startSort(place, [...SMALL, ...args], { ...env, ...changes }).ended;
    expect(ended).toMatchObject({ code, stdout: "", stderr: expect.stringMatching(sentence) });
    expect(ended.stderr).not.toMatch(/^\s+at /m);
    expect(await keysUnder("over/")).toEqual(["over/part-00000"]);
    expect(leftovers(place)).toEqual([]);
  });
});

describe("in the middle", () => {
  it("reads on where a connection broke", async () => {
    const records = scattered(300_000);
    await put("broken", records);
    const input = await openInput([`s3://${BUCKET}/broken`]);
    const [split] = cutSplits(input, [input.records]);
    const into = Buffer.alloc(records.length);
    way.broken = 0;
    way.breaks = [100, 200_000, 1_000_000];
    await fillSplit(split as NonNullable<typeof split>, into, () => Promise.reject(new Error("not made")));
    expect(way.breaks).toEqual([]);
    expect(way.broken).toBe(3);
    expect(into.equals(records)).toBe(true);
  });

  it("notices an object that was replaced or removed", async () => {
    await put("changed", scattered(10));
    const input = await openInput([`s3://${BUCKET}/changed`]);
    const [split] = cutSplits(input, [10]);
    await put("changed", scattered(10, 10));
    await expect(
      fillSplit(split as NonNullable<typeof split>, Buffer.alloc(1000), () => Promise.resolve()),
    ).rejects.toMatchObject({ code: "CORRUPT", message: expect.stringMatching(/was replaced or removed/) });
  });

  it("function workers that are killed leave no half of a part", async () => {
    let victims: readonly number[] = [];
    let killing: Promise<void> | null = null;
    let isOver = false;
    const killInUpload = async (executor: Executor): Promise<void> => {
      while ((await uploadsUnder("killed/")) === 0) {
        if (isOver) return;
      }
      victims = [...executor.stats().pids];
      for (const pid of victims) process.kill(pid, "SIGKILL");
    };
    const { run } = await runSort({
      input: { kind: "generated", records: 2_000_000, skewed: false },
      output: `s3://${BUCKET}/killed`,
      force: false,
      workers: 2,
      // Large ones, so that uploads in pieces are cut off.
      partitions: 2,
      store: { kind: "millrace" },
      endpoint: null,
      dramBytes: 1024 ** 3,
      hugePages: "off",
      onStart: (executor) => {
        killing = killInUpload(executor);
      },
    });
    isOver = true;
    await killing;
    expect(victims.length).toBe(2);
    expect(run.document.validated).toBe(true);
    expect(run.document.retries).toBeGreaterThanOrEqual(1);
    expect(examine(await readObjects("killed/"))).toEqual({
      records: 2_000_000,
      unordered: 0,
      checksum: run.document.checksum,
    });
    expect(await uploadsUnder("killed/")).toBe(0);
  });

  it("an interrupted sort leaves nothing", async () => {
    using place = new Workplace();
    await put("interrupted/mine", Buffer.from("mine"));
    const run = startSort(
      place,
      [
        ...["--dram", "1GiB", "--huge-pages", "off", "--input", "gen:3000000", "--workers", "2", "--force"],
        ...["--output", `s3://${BUCKET}/interrupted`],
      ],
      env,
    );
    while ((await keysUnder("interrupted/part-")).length === 0) {
      if (run.process.exitCode !== null) throw new Error((await run.ended).stderr);
    }
    process.kill(run.process.pid as number, "SIGTERM");
    const { code, stderr } = await run.ended;
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining("interrupted by SIGTERM") });
    expect(await keysUnder("interrupted/")).toEqual(["interrupted/mine"]);
    expect(await uploadsUnder("interrupted/")).toBe(0);
  });
});
