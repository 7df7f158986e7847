/** What no client sends: requests byte by byte, and what they must leave behind, which is mostly nothing. */
import { createHash, randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Patience } from "../../server/doors/s3/arrivals.js";
import { Pattern } from "../support/pattern.js";
import {
  hmac,
  RawConnection,
  type RawRequest,
  type RawResponse,
  rawRequest,
  sha256,
  signedHeaders,
  xmlText,
} from "../support/s3.js";
import { startS3Door } from "../support/s3_door.js";
import { type Door, startDoor } from "./door.js";

const MIB = 1 << 20;
const pattern = new Pattern("raw wire");
const EMPTY_HASH = sha256(Buffer.alloc(0));

let door: Door;
const bucket = `raw-${randomBytes(5).toString("hex")}`;
beforeAll(async () => {
  door = await startDoor();
  expect((await ask("PUT", "")).status).toBe(200);
});
afterAll(() => door?.stop());

/** A whole request about `/bucket` + `rest`. */
function ask(method: string, rest: string, request: Partial<RawRequest> = {}): Promise<RawResponse> {
  return rawRequest(door, { method, target: `/${bucket}${rest}`, ...request });
}

async function open(): Promise<RawConnection> {
  return RawConnection.open(door);
}

/** Works on a connection and closes it. */
async function on<T>(work: (connection: RawConnection) => Promise<T>): Promise<T> {
  const connection = await open();
  try {
    return await work(connection);
  } finally {
    connection.close();
  }
}

function expectError(answer: RawResponse, status: number, code: string): void {
  expect([answer.status, xmlText(answer, "Code")]).toEqual([status, code]);
}

async function expectAbsent(key: string): Promise<void> {
  expectError(await ask("GET", `/${key}`), 404, "NoSuchKey");
}

function slug(text: string): string {
  return text.replaceAll(/\W+/g, "-");
}

interface Framing {
  signed: boolean;
  /** What x-amz-decoded-content-length says; left out: the truth. */
  decodedLength?: number | null;
  headers?: Record<string, string>;
  trailer?: Record<string, string>;
}

/**
 * Sends a put of `chunks` in aws-chunked framing. `tamper` may change the framed bytes, which come in pieces: one a
 * chunk, the last one last.
 */
async function putChunks(
  key: string,
  chunks: readonly Buffer[],
  framing: Framing,
  tamper: (pieces: Buffer[]) => Buffer[] = (pieces) => pieces,
): Promise<RawResponse> {
  const { signed, trailer } = framing;
  const total = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const decoded = framing.decodedLength === undefined ? total : framing.decodedLength;
  const kind = signed ? "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" : "STREAMING-UNSIGNED-PAYLOAD";
  return on(async (connection) => {
    const head = connection.send(
      {
        method: "PUT",
        target: `/${bucket}/${key}`,
        payloadHash: trailer === undefined ? kind : `${kind}-TRAILER`,
        headers: {
          "content-encoding": "aws-chunked",
          "transfer-encoding": "chunked",
          ...(decoded === null ? {} : { "x-amz-decoded-content-length": String(decoded) }),
          ...(trailer === undefined ? {} : { "x-amz-trailer": Object.keys(trailer).join(",") }),
          ...framing.headers,
        },
      },
      { body: false },
    );
    let previous = head.signature;
    const pieces = [...chunks, Buffer.alloc(0)].map((chunk) => {
      let extension = "";
      if (signed) {
        const text = `AWS4-HMAC-SHA256-PAYLOAD\n${head.date}\n${head.scope}\n${previous}\n${EMPTY_HASH}\n`;
        previous = hmac(head.signingKey, text + sha256(chunk)).toString("hex");
        extension = `;chunk-signature=${previous}`;
      }
      const line = Buffer.from(`${chunk.length.toString(16)}${extension}\r\n`);
      const isLast = chunk.length === 0;
      return Buffer.concat([line, chunk, Buffer.from(isLast ? "" : "\r\n")]);
    });
    let end = "";
    if (trailer !== undefined) {
      const lines = Object.entries(trailer).map(([name, value]) => `${name}:${value}\n`);
      end = lines.map((line) => line.replace("\n", "\r\n")).join("");
      if (signed) {
        const hash = sha256(Buffer.from(lines.join("")));
        const text = `AWS4-HMAC-SHA256-TRAILER\n${head.date}\n${head.scope}\n${previous}\n${hash}`;
        end += `x-amz-trailer-signature:${hmac(head.signingKey, text).toString("hex")}\r\n`;
      }
    }
    pieces.push(Buffer.from(`${end}\r\n`));
    // HTTP's own chunks cut where they like.
    const bytes = Buffer.concat(tamper(pieces));
    for (let at = 0; at < bytes.length; at += 50_001) {
      const piece = bytes.subarray(at, at + 50_001);
      connection.write(`${piece.length.toString(16)}\r\n`);
      connection.write(piece);
      connection.write("\r\n");
    }
    connection.write("0\r\n\r\n");
    return connection.response();
  });
}

describe("aws-chunked bodies", () => {
  const chunks = [pattern.bytes(0, 70_000), pattern.bytes(70_000, 8_192), pattern.bytes(78_192, 1)];
  const whole = Buffer.concat(chunks);
  const crc32c = "x-amz-checksum-crc32c";

  it.each([true, false])("good ones, signed: %s", async (signed) => {
    const key = `chunked-${signed}`;
    const trailer = signed ? {} : { trailer: {} };
    expect((await putChunks(key, chunks, { signed, ...trailer })).status).toBe(200);
    expect((await ask("GET", `/${key}`)).body.equals(whole)).toBe(true);
  });

  it("a signed trailer holds the checksum", async () => {
    const put = await putChunks("signed-trailer", [Buffer.from("123456789")], {
      signed: true,
      trailer: { [crc32c]: "4waSgw==" },
    });
    expect(put.status).toBe(200);
    expect(put.headers[crc32c]).toBe("4waSgw==");
  });

  const flip = (at: number) => (pieces: Buffer[]) => {
    const piece = pieces[1] as Buffer;
    const index = at < 0 ? piece.length + at : at;
    piece[index] = (piece[index] as number) ^ 1;
    return pieces;
  };
  /** Still a hexadecimal digit, so that it is the signature that is wrong and not its form. */
  const otherDigit = (at: number) => (pieces: Buffer[]) => {
    const piece = pieces[1] as Buffer;
    piece.write(piece[at] === 0x30 ? "1" : "0", at);
    return pieces;
  };
  const replace = (index: number, text: string) => (pieces: Buffer[]) => {
    pieces[index] = Buffer.from(text);
    return pieces;
  };
  it.each<[string, number | string, (pieces: Buffer[]) => Buffer[]]>([
    ["a byte of a chunk changed", 403, flip(-100)],
    ["a chunk's signature changed", 403, otherDigit(60)],
    ["two chunks in the wrong order", 403, ([a, b, ...rest]) => [b as Buffer, a as Buffer, ...rest]],
    ["a chunk left out", 403, ([a, , ...rest]) => [a as Buffer, ...rest]],
    ["a chunk repeated", "4xx", ([a, ...rest]) => [a as Buffer, a as Buffer, ...rest]],
    ["the end left out", 400, (pieces) => pieces.slice(0, 3)],
    ["more after the end", 400, (pieces) => [...pieces, Buffer.from("5\r\nhello\r\n")]],
    ["a size that is no number", 400, replace(1, "zz;chunk-signature=00\r\n")],
    ["a negative size", 400, replace(1, "-5;chunk-signature=00\r\n")],
    ["a size beyond all sizes", 400, replace(1, `${"f".repeat(64)};chunk-signature=00\r\n`)],
    ["a size line without end", 400, replace(1, "1".repeat(100_000))],
    ["a chunk without its line end", 400, replace(0, "5;chunk-signature=00\r\nhelloXX")],
    ["a chunk without a signature", "4xx", replace(1, "5\r\nhello\r\n")],
  ])("%s", async (what, status, tamper) => {
    const key = `tampered-${slug(what)}`;
    const answer = await putChunks(key, chunks, { signed: true }, tamper);
    if (typeof status === "number") expect(answer.status).toBe(status);
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
    expect(xmlText(answer, "Code")).not.toBeNull();
    await expectAbsent(key);
  });

  it.each<[string, Framing, string]>([
    ["longer", { signed: true, decodedLength: whole.length + 1 }, "IncompleteBody"],
    ["shorter", { signed: true, decodedLength: whole.length - 1 }, "IncompleteBody"],
    ["no number", { signed: true, headers: { "x-amz-decoded-content-length": "12x" } }, ""],
  ])("a decoded length that is %s", async (what, framing, code) => {
    const key = `decoded-${slug(what)}`;
    const answer = await putChunks(key, chunks, framing);
    expect(answer.status).toBe(400);
    if (code !== "") expect(xmlText(answer, "Code")).toBe(code);
    await expectAbsent(key);
  });

  it("a trailer that does not match, and one that was not announced", async () => {
    const wrong = await putChunks("wrong-trailer", chunks, {
      signed: false,
      trailer: { [crc32c]: "AAAAAA==" },
    });
    expectError(wrong, 400, "BadDigest");
    await expectAbsent("wrong-trailer");
    const tampered = await putChunks(
      "tampered-trailer",
      [Buffer.from("123456789")],
      { signed: true, trailer: { [crc32c]: "4waSgw==" } },
      (pieces) => [...pieces.slice(0, -1), Buffer.from("x-amz-checksum-crc32c:AAAAAA==\r\n\r\n")],
    );
    expect(tampered.status).toBeGreaterThanOrEqual(400);
    expect(tampered.status).toBeLessThan(500);
    await expectAbsent("tampered-trailer");
  });
});

describe("whole bodies", () => {
  it("a hash, an MD5 and a checksum that are wrong", async () => {
    const body = Buffer.from("some bytes");
    expectError(
      await ask("PUT", "/bad-hash", { body, payloadHash: sha256(Buffer.from("other bytes")) }),
      400,
      "XAmzContentSHA256Mismatch",
    );
    const md5 = Buffer.alloc(16, 1).toString("base64");
    expectError(await ask("PUT", "/bad-hash", { body, headers: { "content-md5": md5 } }), 400, "BadDigest");
    expectError(
      await ask("PUT", "/bad-hash", { body, headers: { "content-md5": "not one" } }),
      400,
      "InvalidDigest",
    );
    for (const [name, bytes] of [
      ["crc32", 4],
      ["crc32c", 4],
      ["crc64nvme", 8],
      ["sha1", 20],
      ["sha256", 32],
    ] as const) {
      const headers = { [`x-amz-checksum-${name}`]: Buffer.alloc(bytes, 7).toString("base64") };
      expectError(await ask("PUT", "/bad-hash", { body, headers }), 400, "BadDigest");
    }
    await expectAbsent("bad-hash");
  });

  it("one that is cut off never appears, and takes nothing away", async () => {
    const old = pattern.bytes(1, 100_000);
    expect((await ask("PUT", "/cut-over", { body: old })).status).toBe(200);
    for (const key of ["cut", "cut-over"]) {
      for (const sent of [0, 1, 700_000]) {
        await on(async (connection) => {
          const body = pattern.bytes(0, MIB);
          connection.send({ method: "PUT", target: `/${bucket}/${key}`, body }, { body: false });
          connection.write(body.subarray(0, sent));
          // What follows on another connection is answered after the door has seen these bytes or their end.
          await ask("HEAD", "");
        });
      }
    }
    await expectAbsent("cut");
    expect((await ask("GET", "/cut-over")).body.equals(old)).toBe(true);
  });

  it("half-closed after half of the body: an error or a close, and no object", async () => {
    await on(async (connection) => {
      const body = pattern.bytes(0, MIB);
      connection.send({ method: "PUT", target: `/${bucket}/half`, body }, { body: false });
      connection.write(body.subarray(0, MIB / 2));
      connection.socket.end();
      const answer = await connection.response().catch(() => null);
      if (answer !== null) expect(answer.status).toBeGreaterThanOrEqual(400);
    });
    await expectAbsent("half");
  });

  it("many that stall halfway keep nobody else waiting", async () => {
    const stalled = await Promise.all(
      Array.from({ length: 32 }, async (_, i) => {
        const connection = await open();
        const body = pattern.bytes(0, MIB);
        connection.send({ method: "PUT", target: `/${bucket}/stalled-${i}`, body }, { body: false });
        connection.write(body.subarray(0, 300_000));
        return connection;
      }),
    );
    const body = pattern.bytes(5, 2 * MIB);
    expect((await ask("PUT", "/beside", { body })).status).toBe(200);
    expect((await ask("GET", "/beside")).body.equals(body)).toBe(true);
    for (const connection of stalled) connection.close();
    const listed = await ask("GET", "?list-type=2&prefix=stalled");
    expect(xmlText(listed, "KeyCount")).toBe("0");
  });

  describe("with little patience", () => {
    const body = pattern.bytes(0, MIB);
    const pieceBytes = 100;

    /** Sends a put of `body` in pieces, a few milliseconds apart, of which `count` come; and what is answered to it. */
    async function trickle(patience: Patience, count: number): Promise<[RawResponse, RawResponse]> {
      const impatient = await startS3Door({ patience });
      const connection = await RawConnection.open(impatient);
      try {
        expect((await rawRequest(impatient, { method: "PUT", target: "/trickles" })).status).toBe(200);
        const whole = body.subarray(0, Math.min(count * pieceBytes, body.length));
        connection.send({ method: "PUT", target: "/trickles/key", body: whole }, { body: false });
        let answer: RawResponse | null = null;
        const answered = connection.response().then((response) => {
          answer = response;
          return response;
        });
        for (let at = 0; at < whole.length && answer === null; at += pieceBytes) {
          connection.write(whole.subarray(at, at + pieceBytes));
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
        return [await answered, await rawRequest(impatient, { method: "GET", target: "/trickles/key" })];
      } finally {
        connection.close();
        await impatient.stop();
      }
    }

    it("a trickle is given up", async () => {
      const patience = { silenceMs: 60_000, windowMs: 100, windowBytes: MIB };
      const [put, get] = await trickle(patience, Number.POSITIVE_INFINITY);
      expectError(put, 400, "RequestTimeout");
      expectError(get, 404, "NoSuchKey");
    });

    it("who is slow, but not too slow, gets through", async () => {
      const [put, get] = await trickle({ silenceMs: 60_000, windowMs: 50, windowBytes: 2 }, 100);
      expect(put.status).toBe(200);
      expect(get.body.equals(body.subarray(0, 100 * pieceBytes))).toBe(true);
    });
  });

  it("a reader that stands still gets the bytes that it began with", async () => {
    const first = pattern.bytes(0, 16 * MIB);
    expect((await ask("PUT", "/slow", { body: first })).status).toBe(200);
    await on(async (connection) => {
      connection.send({ method: "GET", target: `/${bucket}/slow` });
      connection.socket.pause();
      const second = pattern.bytes(99, MIB);
      expect((await ask("PUT", "/slow", { body: second })).status).toBe(200);
      expect((await ask("GET", "/slow")).body.equals(second)).toBe(true);
      connection.socket.resume();
      const { body } = await connection.response();
      // The overwrite may have come first: one or the other, never a mixture.
      expect(body.equals(first) || body.equals(second)).toBe(true);
    });
  });
});

describe("heads", () => {
  it.each([["-1"], ["12x"], ["1e3"], ["99999999999999999999999"]])("the length %s", async (length) => {
    await on(async (connection) => {
      connection.send({ method: "PUT", target: `/${bucket}/length`, headers: { "content-length": length } });
      const answer = await connection.response();
      expect(answer.status).toBe(400);
    });
    await expectAbsent("length");
  });

  it("two lengths, and a length beside chunks", async () => {
    for (const more of [
      "content-length: 5\r\ncontent-length: 6\r\n",
      "content-length: 5\r\ntransfer-encoding: chunked\r\n",
    ]) {
      await on(async (connection) => {
        connection.write(`PUT /${bucket}/two HTTP/1.1\r\nhost: x\r\n${more}\r\nhello`);
        const answer = await connection.response();
        expect(answer.status).toBeGreaterThanOrEqual(400);
        expect(answer.status).toBeLessThan(500);
      });
    }
    await expectAbsent("two");
  });

  it("no length at all", async () => {
    await on(async (connection) => {
      const request: RawRequest = {
        method: "PUT",
        target: `/${bucket}/none`,
        payloadHash: "UNSIGNED-PAYLOAD",
      };
      connection.send({ ...request, headers: { "transfer-encoding": "chunked" } }, { body: false });
      connection.write("5\r\nhello\r\n0\r\n\r\n");
      expectError(await connection.response(), 411, "MissingContentLength");
    });
    await expectAbsent("none");
  });

  it("more bytes than any object may have", async () => {
    await on(async (connection) => {
      const headers = { "content-length": String(6 * 1024 ** 4) };
      connection.send({
        method: "PUT",
        target: `/${bucket}/huge`,
        payloadHash: "UNSIGNED-PAYLOAD",
        headers: { ...headers, expect: "100-continue" },
      });
      expectError(await connection.response(), 400, "EntityTooLarge");
    });
  });

  it("headers, metadata, keys and paths that are too long", async () => {
    await on(async (connection) => {
      connection.write(`GET /${bucket} HTTP/1.1\r\nhost: x\r\n`);
      connection.write(`x-long: ${"x".repeat(200_000)}\r\n\r\n`);
      const answer = await connection.response().catch(() => null);
      if (answer !== null) expect([400, 431]).toContain(answer.status);
    });
    const metadata = { "x-amz-meta-long": "x".repeat(2_049) };
    expectError(await ask("PUT", "/metadata", { headers: metadata }), 400, "MetadataTooLarge");
    expect((await ask("PUT", `/${"k".repeat(1_024)}`)).status).toBe(200);
    expectError(await ask("PUT", `/${"k".repeat(1_025)}`), 400, "KeyTooLongError");
    expect((await ask("HEAD", "")).status).toBe(200);
  });

  it.each(["%zz", "%", "%ff%fe", "%00"])("the path /%s", async (path) => {
    const answer = await ask("PUT", `/${path}`);
    expect(answer.status === 200 || (answer.status >= 400 && answer.status < 500)).toBe(true);
    if (answer.status !== 200) expect(xmlText(answer, "Code")).not.toBeNull();
  });

  it("dots in a path are part of the key", async () => {
    expect((await ask("PUT", "/a/../b/./c", { body: Buffer.from("dots") })).status).toBe(200);
    expect((await ask("GET", "/a/../b/./c")).body.toString()).toBe("dots");
    await expectAbsent("b/c");
  });

  it("rubbish instead of HTTP", async () => {
    await on(async (connection) => {
      connection.write(randomBytes(1_000));
      connection.write("\r\n\r\n");
      const answer = await connection.response().catch(() => null);
      if (answer !== null) expect(answer.status).toBe(400);
    });
    expect((await ask("HEAD", "")).status).toBe(200);
  });
});

describe("who asks", () => {
  it("an unknown key, a wrong secret, a wrong clock, nobody", async () => {
    const keys = (accessKey: string, secretKey: string) => ({ keys: { accessKey, secretKey } });
    expectError(await ask("GET", "", keys("nobody", "test-secret")), 403, "InvalidAccessKeyId");
    expectError(await ask("GET", "", keys("test-key", "other")), 403, "SignatureDoesNotMatch");
    const hour = 3_600_000;
    for (const nowUnixMs of [Date.now() - hour, Date.now() + hour]) {
      expectError(await ask("GET", "", { nowUnixMs }), 403, "RequestTimeTooSkewed");
    }
    expectError(await ask("GET", "", { keys: null }), 403, "AccessDenied");
    expectError(
      await ask("GET", "", { keys: null, headers: { authorization: "AWS4-HMAC-SHA256 x" } }),
      400,
      "AuthorizationHeaderMalformed",
    );
  });

  it("a signed header that changed on its way", async () => {
    await on(async (connection) => {
      const target = `/${bucket}/changed`;
      const { headers } = signedHeaders(`${door.host}:${door.port}`, {
        method: "PUT",
        target,
        headers: { "x-amz-meta-a": "1" },
      });
      headers["x-amz-meta-a"] = "2";
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      connection.write(`PUT ${target} HTTP/1.1\r\n${lines.join("")}content-length: 0\r\n\r\n`);
      expectError(await connection.response(), 403, "SignatureDoesNotMatch");
    });
    await expectAbsent("changed");
  });
});

describe("connections", () => {
  it("pipelined requests are answered in order", async () => {
    await on(async (connection) => {
      const body = pattern.bytes(3, 200_000);
      const about = (method: string, key: string, bytes?: Buffer) =>
        connection.send({
          method,
          target: `/${bucket}/${key}`,
          ...(bytes === undefined ? {} : { body: bytes }),
        });
      about("PUT", "pipelined", body);
      about("GET", "pipelined");
      about("GET", "missing");
      about("HEAD", "pipelined");
      about("DELETE", "pipelined");
      about("GET", "pipelined");
      expect((await connection.response()).status).toBe(200);
      expect((await connection.response()).body.equals(body)).toBe(true);
      expectError(await connection.response(), 404, "NoSuchKey");
      const head = await connection.response({ bodiless: true });
      expect([head.status, head.headers["content-length"]]).toEqual([200, String(body.length)]);
      expect((await connection.response()).status).toBe(204);
      expectError(await connection.response(), 404, "NoSuchKey");
    });
  });

  it("stay open after errors that read all of a request", async () => {
    await on(async (connection) => {
      for (let round = 0; round < 5; round++) {
        connection.send({ method: "GET", target: `/${bucket}/missing` });
        expectError(await connection.response(), 404, "NoSuchKey");
        connection.send({ method: "HEAD", target: `/${bucket}/missing` });
        expect((await connection.response({ bodiless: true })).status).toBe(404);
        connection.send({ method: "GET", target: `/${bucket}?policy` });
        expectError(await connection.response(), 501, "NotImplemented");
      }
      connection.send({ method: "PUT", target: `/${bucket}/after`, body: Buffer.from("fine") });
      expect((await connection.response()).status).toBe(200);
    });
  });

  it("a refused put drains or closes: the answer arrives whole", async () => {
    for (let round = 0; round < 5; round++) {
      const body = pattern.bytes(0, 8 * MIB);
      const answer = await rawRequest(door, { method: "PUT", target: "/no-such-bucket-here/key", body });
      expectError(answer, 404, "NoSuchBucket");
    }
  });

  it("so it does to a sender of more than is drained, which comes to reading late", async () => {
    await on(async (connection) => {
      connection.socket.pause();
      connection.send({
        method: "PUT",
        target: "/no-such-bucket-here/key",
        body: pattern.bytes(0, 48 * MIB),
      });
      await new Promise((resolve) => setTimeout(resolve, 500));
      connection.socket.resume();
      expectError(await connection.response(), 404, "NoSuchBucket");
    });
  });

  it("Expect: 100-continue is answered when all else is known to be good", async () => {
    const headers = { expect: "100-continue" };
    const body = Buffer.from("after the go-ahead");
    await on(async (connection) => {
      connection.send({ method: "PUT", target: `/${bucket}/expected`, headers, body }, { body: false });
      expect((await connection.response()).status).toBe(100);
      connection.write(body);
      expect((await connection.response()).status).toBe(200);
    });
    expect((await ask("GET", "/expected")).body.equals(body)).toBe(true);
    const refused: [Partial<RawRequest>, number, string][] = [
      [{ target: "/no-such-bucket-here/key" }, 404, "NoSuchBucket"],
      [{ keys: { accessKey: "test-key", secretKey: "wrong" } }, 403, "SignatureDoesNotMatch"],
      [{ keys: null }, 403, "AccessDenied"],
      [
        { headers: { ...headers, "if-none-match": "*" }, target: `/${bucket}/expected` },
        412,
        "PreconditionFailed",
      ],
    ];
    for (const [how, status, code] of refused) {
      await on(async (connection) => {
        const request = { method: "PUT", target: `/${bucket}/refused`, headers, body, ...how };
        connection.send(request, { body: false });
        expectError(await connection.response(), status, code);
      });
    }
    await expectAbsent("refused");
  });

  it("1,000 of them at once", async () => {
    const connections = await Promise.all(Array.from({ length: 1_000 }, open));
    for (const connection of connections) connection.send({ method: "HEAD", target: `/${bucket}` });
    const answers = await Promise.all(connections.map((each) => each.response({ bodiless: true })));
    for (const connection of connections) connection.close();
    expect(answers.filter(({ status }) => status !== 200)).toEqual([]);
  });
});

describe("races", () => {
  const RACERS = 24;

  it("If-None-Match: * has one winner", async () => {
    for (let round = 0; round < 10; round++) {
      const answers = await Promise.all(
        Array.from({ length: RACERS }, (_, i) =>
          ask("PUT", `/first-${round}`, {
            body: Buffer.from(`racer ${i}`),
            headers: { "if-none-match": "*" },
          }),
        ),
      );
      const winners = answers.flatMap(({ status }, i) => (status === 200 ? [i] : []));
      expect(winners).toHaveLength(1);
      for (const answer of answers) expect([200, 409, 412]).toContain(answer.status);
      expect((await ask("GET", `/first-${round}`)).body.toString()).toBe(`racer ${winners[0]}`);
    }
  });

  it("If-Match loses no update", async () => {
    await ask("PUT", "/counter", { body: Buffer.from("0") });
    const increment = async () => {
      for (;;) {
        const seen = await ask("GET", "/counter");
        const put = await ask("PUT", "/counter", {
          body: Buffer.from(String(Number(seen.body.toString()) + 1)),
          headers: { "if-match": seen.headers.etag as string },
        });
        if (put.status === 200) return;
        expect([409, 412]).toContain(put.status);
      }
    };
    await Promise.all(Array.from({ length: 8 }, increment));
    expect((await ask("GET", "/counter")).body.toString()).toBe("8");
  });

  it("overwrites are whole for readers", async () => {
    const versions = [0, 1].map((i) => Buffer.alloc(3 * MIB, i === 0 ? "a" : "b"));
    await ask("PUT", "/whole", { body: versions[0] as Buffer });
    let writing = true;
    const writer = (async () => {
      for (let i = 0; i < 20; i++) await ask("PUT", "/whole", { body: versions[i % 2] as Buffer });
      writing = false;
    })();
    while (writing) {
      const { status, headers, body } = await ask("GET", "/whole");
      expect(status).toBe(200);
      expect(versions.some((version) => version.equals(body))).toBe(true);
      expect(headers["content-length"]).toBe(String(3 * MIB));
    }
    await writer;
  });
});

describe("XML", () => {
  const multiDelete = (xml: string) => {
    const md5 = createHash("md5").update(xml).digest("base64");
    return ask("POST", "?delete", { body: Buffer.from(xml), headers: { "content-md5": md5 } });
  };

  it.each([
    ["no XML", "hello"],
    ["nothing", ""],
    ["cut off", "<Delete><Object><Key>a</Key>"],
    ["another document", "<Other/>"],
    [
      "entities of its own",
      '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>',
    ],
    [
      "an entity of a file",
      '<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&a;</Key></Object></Delete>',
    ],
    ["1,001 keys", `<Delete>${"<Object><Key>a</Key></Object>".repeat(1_001)}</Delete>`],
    ["depth", `${"<Delete>".repeat(5_000)}${"</Delete>".repeat(5_000)}`],
  ])("%s is malformed", async (_, xml) => {
    expectError(await multiDelete(xml), 400, "MalformedXML");
  });
});

describe("what is not supported", () => {
  it.each([
    ["GET", "?policy"],
    ["PUT", "?policy"],
    ["GET", "?encryption"],
    ["PUT", "?encryption"],
    ["PUT", "?versioning"],
    ["GET", "?website"],
    ["PUT", "?website"],
    ["GET", "?cors"],
    ["GET", "?notification"],
    ["GET", "?replication"],
    ["GET", "?object-lock"],
    ["GET", "?logging"],
    ["PUT", "/key?retention"],
    ["PUT", "/key?legal-hold"],
    ["POST", "/key?restore"],
    ["POST", "/key?select"],
  ])("%s %s answers NotImplemented", async (method, rest) => {
    expectError(await ask(method, rest), 501, "NotImplemented");
  });

  it("headers that ask for more than the door has", async () => {
    for (const headers of [
      { "x-amz-server-side-encryption": "aws:kms" },
      { "x-amz-server-side-encryption-customer-algorithm": "AES256" },
      { "x-amz-object-lock-mode": "GOVERNANCE" },
      { "x-amz-website-redirect-location": "/elsewhere" },
      { "x-amz-acl": "public-read" },
    ]) {
      expectError(await ask("PUT", "/asked", { headers }), 501, "NotImplemented");
    }
    await expectAbsent("asked");
  });
});
