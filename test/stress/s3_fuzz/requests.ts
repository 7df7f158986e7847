/**
 * Heads of requests, mutated, through node's own parser and all that the door does with one before it looks at a bucket:
 * request line, query, headers, signature, operation.
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Duplex } from "node:stream";
import type { Authorization } from "../../../server/doors/s3/auth/authorization.js";
import { KeyRing } from "../../../server/doors/s3/auth/credentials.js";
import { authorize } from "../../../server/doors/s3/auth/signature.js";
import { openBody } from "../../../server/doors/s3/body.js";
import type { S3Call, S3Request } from "../../../server/doors/s3/call.js";
import { judge, rangeHolds, readConditions } from "../../../server/doors/s3/conditions.js";
import { S3Error } from "../../../server/doors/s3/errors.js";
import { describedBy } from "../../../server/doors/s3/metadata.js";
import { parseRange } from "../../../server/doors/s3/ranges.js";
import { parseRequest } from "../../../server/doors/s3/request.js";
import { findOperation } from "../../../server/doors/s3/router.js";
import { type FuzzTarget, outcomeOf } from "../../support/fuzz.js";
import { plausible } from "./plausible.js";

const KEY_BYTES_MAX = 1_024;
const RULES = { domains: ["localhost", "s3.test"], keyBytesMax: KEY_BYTES_MAX };
const OBJECT_BYTES = 1_000;

export interface RecordedRequests {
  /** Whole, as they came from clients: head, and body where there is one. */
  raw: readonly Buffer[];
  /** With which they are signed, and when about. */
  accessKey: string;
  secretKey: string;
  nowUnixMs: number;
}

export function requestsTarget({ raw, accessKey, secretKey, nowUnixMs }: RecordedRequests): FuzzTarget {
  const keys = new KeyRing({ accessKey, secretKey, anonymous: false, nowUnixMs: () => nowUnixMs });
  /** What clients have signed. */
  const meant = new Set<string>();
  let originalsLeft = raw.length;
  let isOriginal = true;
  let outcome = "";
  const server = createServer({ requireHostHeader: false, maxHeaderSize: 64 * 1024 });
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    outcome ||= `not HTTP: ${error.code}`;
    socket.destroy();
  });
  const serve = (message: IncomingMessage, response: ServerResponse) => {
    outcome = look(message, response);
    message.socket.destroy();
  };
  server.on("request", serve).on("checkContinue", serve).on("checkExpectation", serve);

  const look = (message: IncomingMessage, response: ServerResponse): string => {
    const request = orRefusal(() => parseRequest(message, "0", RULES));
    if (request instanceof S3Error) return outcomeOf(request);
    checkRequest(request);
    const authorization = orRefusal(() => authorize(request, keys, nowUnixMs));
    if (isOriginal) meant.add(meaning(request));
    // A signature says what was asked for: it must not hold for anything that no client has signed.
    else if (!(authorization instanceof S3Error) && !meant.has(meaning(request))) {
      throw new Error(`a signature holds for what nobody signed: ${meaning(request)}`);
    }
    const refusals = [authorization, orRefusal(() => findOperation(request)), ...readAll(request)];
    refusals.push(orRefusal(() => open(request, response, authorization)));
    const refused = refusals.filter((found) => found instanceof S3Error);
    return refused.length === 0 ? "accepted" : refused.map(outcomeOf).slice(0, 2).join("; ");
  };

  return {
    corpus: raw.map((bytes) => {
      const end = bytes.indexOf("\r\n\r\n");
      return Buffer.from(bytes.subarray(0, end + 4));
    }),
    words: WORDS,
    attempt: async (input, random) => {
      isOriginal = originalsLeft > 0;
      originalsLeft -= 1;
      outcome = "";
      let failure: unknown = null;
      // What is thrown in an event is thrown at nobody.
      const onThrow = (error: unknown) => {
        failure = error;
      };
      process.once("uncaughtException", onThrow);
      const socket = new Given(isOriginal || random.below(4) === 0 ? input : plausible(input, random));
      const closed = new Promise<void>((resolve) => socket.once("close", resolve));
      server.emit("connection", socket);
      await closed;
      process.off("uncaughtException", onThrow);
      if (failure !== null) throw failure;
      return outcome || "no head";
    },
  };
}

/** A connection on which one input comes, and then nothing more. */
class Given extends Duplex {
  constructor(input: Buffer) {
    super();
    this.push(input);
    this.push(null);
  }
  setTimeout(): this {
    return this;
  }
  override _read(): void {}
  override _write(_bytes: Buffer, _encoding: string, done: () => void): void {
    done();
  }
}

function orRefusal<T>(work: () => T): T | S3Error {
  try {
    return work();
  } catch (thrown) {
    if (thrown instanceof S3Error) return thrown;
    throw thrown;
  }
}

function checkRequest({ bucket, key, query }: S3Request): void {
  if (bucket === "" || key === "") throw new Error("an empty name");
  if (bucket === null && key !== null) throw new Error("a key without a bucket");
  if (key !== null && Buffer.byteLength(key) > KEY_BYTES_MAX) throw new Error("a key that is too long");
  for (const text of [bucket ?? "", key ?? "", ...query.keys(), ...query.values()]) {
    if (/\p{Surrogate}/u.test(text)) throw new Error("text that is no Unicode");
  }
}

/** Everything else that is read from the head alone. */
function readAll(request: S3Request): unknown[] {
  const conditions = readConditions(request);
  const copied = readConditions(request, "x-amz-copy-source-");
  const range = request.message.headers.range;
  return [
    orRefusal(() => judge(conditions, "etag", 1_700_000_000_000)),
    orRefusal(() => judge(copied, "etag", 1_700_000_000_000)),
    orRefusal(() => rangeHolds(conditions.ifMatch, "etag", 1_700_000_000_000)),
    orRefusal(() => (range === undefined ? null : parseRange(range, OBJECT_BYTES))),
    orRefusal(() => describedBy(request)),
  ];
}

/** The body is not read: its form and its checksums follow from the head. */
function open(request: S3Request, response: ServerResponse, authorization: Authorization | S3Error): void {
  const grantee = { accessKey: "any", secretKey: "", scope: null };
  openBody(
    {
      context: {} as S3Call["context"],
      request,
      response,
      authorization:
        authorization instanceof S3Error ? { grantee, payload: { kind: "unsigned" } } : authorization,
    },
    [],
  );
}

/** All of a request that a signature has to cover, in a form of the test's own. */
function meaning({ method, bucket, key, query, message }: S3Request): string {
  // Of a request that is signed in its query, that header only tells how the body is sent.
  const open = query.has("X-Amz-Signature") ? "x-amz-content-sha256" : "";
  const headers = Object.entries(message.headersDistinct)
    .filter(([name]) => name === "host" || (name.startsWith("x-amz-") && name !== open))
    .map(([name, values = []]) => {
      const value = values.map((one) => one.replace(/[ \t]+/g, " ").trim()).join(",");
      return `${name}:${value}`;
    });
  const pairs = [...query].map(([name, value]) => JSON.stringify([name, value]));
  return JSON.stringify([method, bucket, key, pairs.sort(), headers.sort()]);
}

const WORDS = [
  ..."GET HEAD PUT POST DELETE PATCH OPTIONS CONNECT".split(" ").map((method) => `${method} `),
  ...[
    "/",
    "//",
    "/../",
    "/./",
    "%2F",
    "%2e%2e",
    "%00",
    "%FF",
    "%C3%BC",
    "%",
    "%zz",
    "+",
    "%20",
    "?",
    "&",
    "=",
    "#",
  ],
  ...[
    "http://other/",
    " HTTP/1.0\r\n",
    " HTTP/1.1\r\n",
    "\r\n",
    "\r\n\r\n",
    ": ",
    ",",
    ";",
    " ",
    "\t",
    "*",
    '"',
  ],
  ...[
    "acl",
    "tagging",
    "uploads",
    "uploadId=x",
    "partNumber=1",
    "list-type=2",
    "prefix=a",
    "delimiter=/",
    "delete",
  ],
  ...[
    "lifecycle",
    "location",
    "versioning",
    "versions",
    "attributes",
    "policy",
    "max-keys=1",
    "encoding-type=url",
  ],
  ...["X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Expires=60", "X-Amz-Signature=", "X-Amz-Security-Token=x"],
  ...[
    "AWS4-HMAC-SHA256 ",
    "AWS k:s",
    "Credential=",
    "SignedHeaders=",
    "Signature=",
    "/s3/aws4_request",
    "host;",
  ],
  ...[
    "host: b.localhost\r\n",
    "host: B.S3.test:80\r\n",
    "x-amz-date: 20260101T000000Z\r\n",
    "x-amz-meta-a: b\r\n",
  ],
  ...["date: Thu, 01 Jan 2026 00:00:00 GMT\r\n", "x-amz-security-token: x\r\n", "authorization: x\r\n"],
  ...[
    "x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n",
    "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n",
  ],
  ...[
    "x-amz-trailer: x-amz-checksum-crc32\r\n",
    "x-amz-decoded-content-length: 5\r\n",
    "content-length: 5\r\n",
  ],
  ...["transfer-encoding: chunked\r\n", "content-encoding: aws-chunked\r\n", "expect: 100-continue\r\n"],
  ...["x-amz-tagging: a=b&c=%zz\r\n", "x-amz-copy-source: /b/k?versionId=null\r\n", "x-amz-acl: private\r\n"],
  ...["range: bytes=0-9\r\n", "range: bytes=-5\r\n", 'if-match: "etag", W/"x"\r\n', "if-none-match: *\r\n"],
  ...[
    "if-modified-since: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
    "content-md5: AAAA\r\n",
    "x-amz-checksum-crc32: AAAAAA==\r\n",
  ],
];
