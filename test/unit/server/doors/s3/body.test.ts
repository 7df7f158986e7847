import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { DigestName } from "../../../../../native/binding/addon.js";
import { PATIENCE } from "../../../../../server/doors/s3/arrivals.js";
import type { PayloadProtection } from "../../../../../server/doors/s3/auth/authorization.js";
import { signingKey } from "../../../../../server/doors/s3/auth/signing.js";
import { type Body, openBody } from "../../../../../server/doors/s3/body.js";
import type { S3Call, S3Context } from "../../../../../server/doors/s3/call.js";
import { S3Error } from "../../../../../server/doors/s3/errors.js";
import { printedSeed, randomOf } from "../../../../support/random.js";
import { encodeChunks } from "./requests.js";

const GRANTEE = { accessKey: "key", secretKey: "secret", scope: null };
const UNSIGNED: PayloadProtection = { kind: "unsigned" };
const BARE: PayloadProtection = { kind: "chunks", trailer: true, signing: null };
const SIGNING = {
  signingKey: signingKey("secret", "20260102", "r"),
  seed: "0".repeat(64),
  date: "20260102T030405Z",
  scope: "20260102/r/s3/aws4_request",
};

type Take = (body: Body, call: S3Call) => Promise<string>;

let server: Server;
let protection: PayloadProtection;
let digests: DigestName[];
let take: Take;
let lastCode: Promise<string>;
let onCode: (code: string) => void;

/** All bytes of a body, digested. */
const takeAll: Take = async (body) => {
  const hash = createHash("md5");
  let bytes = 0;
  for await (const piece of body) {
    hash.update(piece);
    bytes += piece.length;
  }
  return `${bytes} ${hash.digest("hex")} ${body.checksum?.value ?? "-"} ${body.sizeBytes ?? "?"}`;
};

beforeEach(async () => {
  protection = UNSIGNED;
  digests = [];
  take = takeAll;
  lastCode = new Promise((resolve) => {
    onCode = resolve;
  });
  server = createServer();
  const onRequest = async (message: IncomingMessage, response: ServerResponse) => {
    const url = new URL(message.url as string, "http://x");
    const call: S3Call = {
      context: {} as S3Context,
      request: {
        id: "0",
        method: message.method as string,
        rawPath: url.pathname,
        rawQuery: url.search.slice(1),
        query: new Map(url.searchParams),
        bucket: "bucket",
        key: "key",
        message,
      },
      response,
      authorization: { grantee: GRANTEE, payload: protection },
    };
    let answer: string;
    try {
      answer = `ok ${await take(openBody(call, digests), call)}`;
    } catch (thrown) {
      answer = thrown instanceof S3Error ? thrown.code : `BUG ${(thrown as Error).stack}`;
    }
    onCode(answer);
    response.setHeader("Connection", "close");
    response.end(answer);
  };
  server.on("request", onRequest);
  server.on("checkContinue", onRequest);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});

afterEach(async () => {
  vi.useRealTimers();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function dial(): Socket {
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  socket.on("error", () => {});
  return socket;
}

function head(headers: Record<string, string | number>, line = "PUT /bucket/key"): string {
  const lines = Object.entries({ Host: "x", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${line} HTTP/1.1\r\n${lines.join("")}\r\n`;
}

/** What the door makes of it: "ok BYTES MD5 CHECKSUM SIZE", or the code of the error. */
async function send(
  headers: Record<string, string | number>,
  body: Buffer | string,
  line?: string,
): Promise<string> {
  const socket = dial();
  socket.write(head(headers, line));
  socket.write(body);
  return (await text(socket)).split("\r\n\r\n").at(-1) as string;
}

const md5 = (data: Buffer | string) => createHash("md5").update(data).digest("hex");
const base64 = (name: string, data: Buffer | string) => createHash(name).update(data).digest("base64");
const ok = (data: Buffer | string, checksum = "-", size: number | string = data.length) =>
  `ok ${data.length} ${md5(data)} ${checksum} ${size}`;

it("takes a body as it is, and checks what was said about it", async () => {
  const data = "123456789";
  const length = { "Content-Length": data.length };
  expect(await send(length, data)).toBe(ok(data));
  expect(await send({ "Content-Length": 0 }, "")).toBe(ok(""));
  const cases: [Record<string, string>, string][] = [
    [{ "Content-MD5": base64("md5", data) }, ok(data)],
    [{ "Content-MD5": base64("md5", "other") }, "BadDigest"],
    [{ "Content-MD5": "nonsense" }, "InvalidDigest"],
    [{ "Content-MD5": "" }, "InvalidDigest"],
    [{ "x-amz-checksum-crc32": "y/Q5Jg==" }, ok(data, "y/Q5Jg==")],
    [{ "x-amz-checksum-crc32c": "4waSgw==" }, ok(data, "4waSgw==")],
    [{ "x-amz-checksum-crc64nvme": "rosUhgp5mIg=" }, ok(data, "rosUhgp5mIg=")],
    [{ "x-amz-checksum-sha1": base64("sha1", data) }, ok(data, base64("sha1", data))],
    [{ "x-amz-checksum-sha256": base64("sha256", data) }, ok(data, base64("sha256", data))],
    [{ "x-amz-checksum-crc32": "4waSgw==" }, "BadDigest"],
    [{ "x-amz-checksum-sha1": base64("sha1", "other") }, "BadDigest"],
    [{ "x-amz-checksum-crc32": "y/Q5Jg" }, "InvalidRequest"],
    [{ "x-amz-checksum-crc32": base64("sha1", data) }, "InvalidRequest"],
    [{ "x-amz-checksum-crc32": "y/Q5Jg==", "x-amz-checksum-crc32c": "4waSgw==" }, "InvalidRequest"],
    [{ "x-amz-trailer": "x-amz-checksum-crc32" }, "InvalidRequest"],
  ];
  for (const [headers, answer] of cases) {
    expect(await send({ ...length, ...headers }, data), JSON.stringify(headers)).toBe(answer);
  }
  // Of a completed upload it is the object's.
  const complete = { ...length, "x-amz-checksum-crc32": "4waSgw==" };
  expect(await send(complete, data, "POST /bucket/key?uploadId=x")).toBe(ok(data));
});

it("checks the hash that was signed", async () => {
  protection = { kind: "sha256", hash: createHash("sha256").update("data").digest("hex") };
  expect(await send({ "Content-Length": 4 }, "data")).toBe(ok("data"));
  expect(await send({ "Content-Length": 4 }, "date")).toBe("XAmzContentSHA256Mismatch");
  expect(await send({ "Content-Length": 0 }, "")).toBe("XAmzContentSHA256Mismatch");
});

it("wants to know lengths", async () => {
  expect(await send({}, "")).toBe("MissingContentLength");
  expect(await send({ "Transfer-Encoding": "chunked" }, "0\r\n\r\n")).toBe("MissingContentLength");
  protection = BARE;
  expect(await send({ "Content-Length": 5 }, "0\r\n\r\n")).toBe("MissingContentLength");
  const decoded = { "Content-Length": 5, "x-amz-decoded-content-length": "-1" };
  expect(await send(decoded, "0\r\n\r\n")).toBe("InvalidArgument");
});

it("takes chunks apart, with and without a length, signed and bare", async () => {
  const random = randomOf(printedSeed("chunked bodies"));
  digests = ["md5", "sha256"];
  take = async (body, call) => {
    const answer = await takeAll(body, call);
    expect(answer).toContain(body.digest("md5").toString("hex"));
    return answer;
  };
  for (let round = 0; round < 24; round++) {
    const pieces = Array.from({ length: random.below(4) }, () =>
      Buffer.alloc(1 + random.below(random.pick([10, 100_000, 1_000_000])), random.below(256)),
    );
    const data = Buffer.concat(pieces);
    const signing = round % 2 === 0 ? SIGNING : null;
    protection = { kind: "chunks", trailer: true, signing };
    const checksum = base64("sha256", data);
    const stream = encodeChunks(pieces, signing, { "x-amz-checksum-sha256": checksum });
    const announced = { "x-amz-trailer": "x-amz-checksum-sha256", "Content-Encoding": "aws-chunked" };
    const size = { "x-amz-decoded-content-length": data.length };
    expect(await send({ ...announced, ...size, "Content-Length": stream.length }, stream)).toBe(
      ok(data, checksum),
    );

    const cut = random.below(stream.length);
    const http = Buffer.concat(
      [stream.subarray(0, cut), stream.subarray(cut)]
        .filter((part) => part.length > 0)
        .flatMap((part) => [Buffer.from(`${part.length.toString(16)}\r\n`), part, Buffer.from("\r\n")]),
    );
    const chunked = { ...announced, "Transfer-Encoding": "chunked" };
    const whole = Buffer.concat([http, Buffer.from("0\r\n\r\n")]);
    expect(await send(chunked, whole)).toBe(ok(data, checksum, "?"));
    expect(await send({ ...chunked, ...size }, whole)).toBe(ok(data, checksum));

    const wrong = encodeChunks(pieces, signing, { "x-amz-checksum-sha256": base64("sha256", "other") });
    expect(await send({ ...announced, ...size, "Content-Length": wrong.length }, wrong)).toBe("BadDigest");
    const more = { "x-amz-decoded-content-length": data.length + 1 };
    expect(await send({ ...announced, ...more, "Content-Length": stream.length }, stream)).toBe(
      "IncompleteBody",
    );
  }
});

it("takes chunks from a client that does not sign", async () => {
  const stream = encodeChunks([Buffer.from("123456789")], null, { "x-amz-checksum-crc32": "y/Q5Jg==" });
  const headers = {
    "Content-Encoding": "gzip, aws-chunked",
    "Content-Length": stream.length,
    "x-amz-decoded-content-length": 9,
    "x-amz-trailer": "x-amz-checksum-crc32",
  };
  expect(await send(headers, stream)).toBe(ok("123456789", "y/Q5Jg=="));
  const two = { ...headers, "x-amz-trailer": "x-amz-checksum-crc32,x-amz-checksum-sha1" };
  expect(await send(two, stream)).toBe("InvalidRequest");
  expect(await send({ ...headers, "x-amz-trailer": "expires" }, stream)).toBe("InvalidRequest");
  expect(await send({ ...headers, "x-amz-checksum-sha1": base64("sha1", "123456789") }, stream)).toBe(
    "InvalidRequest",
  );
});

it("never takes a body that was cut off for a whole one", async () => {
  const socket = dial();
  socket.write(head({ "Content-Length": 10 }));
  socket.write("12345", () => socket.destroy());
  expect(await lastCode).toBe("IncompleteBody");
});

it("notices that the client left before the body was opened", async () => {
  take = async (body, call) => {
    await new Promise((resolve) => call.request.message.once("close", resolve));
    return takeAll(body, call);
  };
  const socket = dial();
  socket.write(head({ "Content-Length": 10 }));
  socket.write("12345", () => socket.destroy());
  expect(await lastCode).toBe("IncompleteBody");
});

it("gives up a client that falls silent", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const socket = dial();
  socket.write(head({ "Content-Length": 10 }));
  socket.write("12345");
  while (vi.getTimerCount() === 0) await new Promise((resolve) => setImmediate(resolve));
  vi.advanceTimersByTime(PATIENCE.silenceMs);
  expect(await lastCode).toBe("RequestTimeout");
  socket.destroy();
});

it("answers Expect when the body is opened, and not where it is refused before", async () => {
  const headers = { "Content-Length": 4, Expect: "100-continue" };
  const socket = dial();
  socket.write(head(headers));
  const first = await new Promise<Buffer>((resolve) => socket.once("data", resolve));
  expect(first.toString()).toBe("HTTP/1.1 100 Continue\r\n\r\n");
  socket.write("data");
  expect((await text(socket)).endsWith(ok("data"))).toBe(true);

  const refused = dial();
  refused.write(head({ ...headers, "Content-MD5": "nonsense" }));
  expect(await text(refused)).toMatch(/^HTTP\/1.1 200 OK.*InvalidDigest$/s);
});

it("keeps nothing when the taker stops early, and makes the sender wait meanwhile", async () => {
  const listeners = (call: S3Call) =>
    ["data", "end", "error"].map((event) => call.request.message.listenerCount(event)).join();
  let before = "";
  take = async (body, call) => {
    before = listeners(call);
    for await (const piece of body) {
      if (piece.length > 0) break;
    }
    expect(call.request.message.isPaused()).toBe(true);
    expect(call.request.message.destroyed).toBe(false);
    return listeners(call);
  };
  digests = ["md5", "crc64nvme"];
  const socket = dial();
  socket.write(head({ "Content-Length": 64 * 1_024 * 1_024 }));
  socket.write(Buffer.alloc(8 * 1_024 * 1_024));
  expect(await lastCode).toBe(`ok ${before}`);
  socket.destroy();
});

it("passes a large body on with many digests, byte for byte", async () => {
  const random = randomOf(printedSeed("large body"));
  const data = Buffer.alloc(48 * 1_024 * 1_024 + 1);
  for (let at = 0; at + 4 <= data.length; at += 4_096) data.writeUInt32LE(random.below(2 ** 32), at);
  digests = ["md5", "sha1", "sha256", "crc32", "crc32c", "crc64nvme"];
  take = async (body, call) => {
    const answer = await takeAll(body, call);
    expect(body.digest("sha256").toString("base64")).toBe(base64("sha256", data));
    expect(body.digest("md5").toString("hex")).toBe(md5(data));
    return answer;
  };
  expect(await send({ "Content-Length": data.length, "Content-MD5": base64("md5", data) }, data)).toBe(
    ok(data),
  );
});
