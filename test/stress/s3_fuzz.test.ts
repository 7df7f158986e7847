/**
 * The S3 door under requests that no client sends: mutations of those that clients do send. MILLRACE_FUZZ_SECONDS for
 * each part, MILLRACE_SEED to have the same again.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CreateBucketCommand, GetObjectCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startClientProcess } from "../support/client_process.js";
import { type FuzzResult, fuzz, shownInput } from "../support/fuzz.js";
import { printedSeed } from "../support/random.js";
import { ACCESS_KEY, type S3Daemon, SECRET_KEY, startS3Daemon } from "../support/s3.js";
import { plausible } from "./s3_fuzz/plausible.js";
import type { FuzzFunctions, Recorded, TargetName } from "./s3_fuzz/process.js";
import { bodyOf, record, useAmazonsClient, useMinioClient } from "./s3_fuzz/record.js";

const SECONDS = Number(process.env.MILLRACE_FUZZ_SECONDS ?? 5);
/** Of an input that takes so long nothing will come any more; most take microseconds. */
const HANG_MS = 30_000;
const BUCKET = "fuzzed";

let door: S3Daemon;
let recorded: Recorded;
/** Of requests that nobody signed. */
let unsigned: Buffer[];

beforeAll(async () => {
  door = await startS3Daemon({ dram: "1GiB", args: ["--s3-anonymous"] });
  const raw = [
    ...(await record(door, (endpoint) => useAmazonsClient(endpoint, BUCKET, true))),
    ...(await record(door, (endpoint) => useMinioClient(endpoint, BUCKET))),
  ];
  unsigned = await record(door, (endpoint) => useAmazonsClient(endpoint, `${BUCKET}-too`, false));
  const bodies = raw.map((request) => ({ head: request.toString("latin1"), body: bodyOf(request) }));
  recorded = {
    raw,
    accessKey: ACCESS_KEY,
    secretKey: SECRET_KEY,
    nowUnixMs: Date.now(),
    chunked: bodies
      .filter(({ head }) => /^x-amz-content-sha256: STREAMING/im.test(head))
      .map(({ body }) => body),
    xml: bodies.filter(({ body }) => body[0] === "<".charCodeAt(0)).map(({ body }) => body),
  };
  expect(recorded.raw.length).toBeGreaterThan(30);
  expect(recorded.chunked.length).toBeGreaterThan(1);
  expect(recorded.xml.length).toBeGreaterThan(3);
});

afterAll(async () => {
  expect(await door?.daemon.stop()).toEqual({ code: 0, signal: null });
});

function tell(what: string, { rounds, outcomes }: FuzzResult): void {
  console.log(`${what}: ${rounds} inputs, ${Object.keys(outcomes).length} outcomes`);
}

describe("parsers", () => {
  it.each<TargetName>(["chunk decoding", "request parsing", "XML", "ranges, dates, conditions and tags"])(
    "%s",
    async (name) => {
      const folder = mkdtempSync(join(tmpdir(), "millrace-fuzz-"));
      const file = join(folder, "input");
      const seed = printedSeed(name);
      const child = await startClientProcess<FuzzFunctions>(new URL("./s3_fuzz/process.ts", import.meta.url));
      let timer: NodeJS.Timeout | undefined;
      try {
        const hung = new Promise<never>((_, reject) => {
          const fail = () =>
            reject(new Error(`${name} does not come to its end: ${shownInput(readFileSync(file))}`));
          timer = setTimeout(fail, SECONDS * 1_000 + HANG_MS);
        });
        const result = await Promise.race([child.call("run", name, recorded, seed, SECONDS, file), hung]);
        tell(name, result);
        // Else the inputs were all refused at the same place.
        expect(Object.keys(result.outcomes).length).toBeGreaterThan(5);
      } finally {
        clearTimeout(timer);
        await child.kill();
        rmSync(folder, { recursive: true, force: true });
      }
    },
    SECONDS * 1_000 + 2 * HANG_MS,
  );
});

describe("the door", () => {
  it(
    "answers whatever comes, or hangs up",
    async () => {
      const what = "whole requests";
      const refresh = async () => {
        const client = door.client();
        await client.send(new CreateBucketCommand({ Bucket: `${BUCKET}-too` })).catch(() => undefined);
        await client.send(new PutObjectCommand({ Bucket: `${BUCKET}-too`, Key: "k", Body: "hello" }));
        client.destroy();
      };
      let round = 0;
      const result = await fuzz(
        {
          corpus: unsigned,
          words: WORDS,
          attempt: async (input, random) => {
            // Some of them remove what the others need.
            if (round++ % 200 === 0) await refresh();
            const { answers, isClosed } = await exchange(
              random.below(4) === 0 ? input : plausible(input, random),
            );
            if (!isClosed) throw new Error("no answer, and the connection is still open");
            const statuses = [...answers.matchAll(/^HTTP\/1\.1 (\d{3}) /gm)].map((match) => match[1]);
            if (statuses.includes("500")) throw new Error(`the door failed: ${answers}`);
            return `${statuses.slice(0, 3)} ${/<Code>(\w+)/.exec(answers)?.[1] ?? ""}`;
          },
        },
        printedSeed(what),
        SECONDS,
      );
      tell(what, result);
      expect(Object.keys(result.outcomes).length).toBeGreaterThan(10);
      expect(door.daemon.log()).not.toContain("s3 request failed");
      const client = door.client();
      await client.send(new CreateBucketCommand({ Bucket: "after" }));
      await client.send(new PutObjectCommand({ Bucket: "after", Key: "k", Body: "hello" }));
      const { Body } = await client.send(new GetObjectCommand({ Bucket: "after", Key: "k" }));
      expect(await Body?.transformToString()).toBe("hello");
      client.destroy();
    },
    SECONDS * 1_000 + 2 * HANG_MS,
  );
});

/** Sends bytes and then nothing more, and waits until the door has hung up. */
function exchange(bytes: Buffer): Promise<{ answers: string; isClosed: boolean }> {
  return new Promise((resolve) => {
    const answers: Buffer[] = [];
    const socket = connect({ port: door.port, host: door.host });
    const end = (isClosed: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ answers: Buffer.concat(answers).toString("latin1"), isClosed });
    };
    const timer = setTimeout(() => end(false), HANG_MS);
    socket.on("data", (piece) => answers.push(piece));
    socket.on("error", () => undefined);
    socket.once("close", () => end(true));
    socket.end(bytes);
  });
}

const WORDS = [
  ...[
    "GET ",
    "PUT ",
    "POST ",
    "DELETE ",
    "HEAD ",
    "/",
    "//",
    "%2F",
    "%00",
    "%FF",
    "?",
    "&",
    "=",
    "+",
    "\r\n",
    "\r\n\r\n",
  ],
  ...[
    "?acl",
    "?tagging",
    "?uploads",
    "?delete",
    "?lifecycle",
    "?attributes",
    "?versions",
    "?list-type=2",
    "&max-keys=0",
  ],
  ...[
    "uploadId=",
    "partNumber=1",
    "continuation-token=x",
    "start-after=",
    "encoding-type=url",
    "versionId=null",
  ],
  ...[
    "content-length: 0\r\n",
    "content-length: 5\r\n",
    "transfer-encoding: chunked\r\n",
    "expect: 100-continue\r\n",
  ],
  ...["content-encoding: aws-chunked\r\n", "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"],
  ...[
    "x-amz-decoded-content-length: 5\r\n",
    "x-amz-trailer: x-amz-checksum-crc32\r\n",
    "content-md5: AAAA\r\n",
  ],
  ...["x-amz-copy-source: /fuzzed-too/k\r\n", "x-amz-metadata-directive: REPLACE\r\n", "range: bytes=1-\r\n"],
  ...["if-match: *\r\n", 'if-none-match: "x"\r\n', "x-amz-tagging: a=b\r\n", "x-amz-meta-\xff: \xff\r\n"],
  ...[
    "<Key>",
    "</Key>",
    "<Part>",
    "<ETag>",
    "<Object>",
    "<Quiet>true</Quiet>",
    "&#0;",
    "<![CDATA[",
    "5\r\nhello\r\n0\r\n",
  ],
];
