/** The decoder of aws-chunked under mutated bodies, signed and bare. */
import { createHash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Random } from "../../../bench/random.js";
import type { ChunkSigning } from "../../../server/doors/s3/auth/authorization.js";
import { ChunkDecoder, type ChunkedForm } from "../../../server/doors/s3/auth/chunked.js";
import { hmac, signingKey } from "../../../server/doors/s3/auth/signing.js";
import { S3Error } from "../../../server/doors/s3/errors.js";
import { type FuzzTarget, outcomeOf } from "../../support/fuzz.js";
import { encodeChunks } from "../../unit/server/doors/s3/requests.js";

const SIGNING: ChunkSigning = {
  signingKey: signingKey("secret", "20260101", "us-east-1"),
  date: "20260101T000000Z",
  scope: "20260101/us-east-1/s3/aws4_request",
  seed: "0".repeat(64),
};
const TRAILER = "x-amz-checksum-crc32c";

/** The first byte of an input says which form the rest of it has. */
const SIGNED = 1;
const TRAILERS = 2;

/** `bodies`: as clients sent them. */
export function chunksTarget(bodies: readonly Buffer[]): FuzzTarget {
  const built = [SIGNED, SIGNED | TRAILERS, 0, TRAILERS].flatMap((flags) =>
    [[], ["a"], ["one", "two\r\n0\r\n\r\n", "x".repeat(300)]].map((pieces) => {
      const body = encodeChunks(
        pieces.map((piece) => Buffer.from(piece)),
        flags & SIGNED ? SIGNING : null,
        flags & TRAILERS ? { [TRAILER]: "sOO8/Q==" } : null,
      );
      return Buffer.concat([Buffer.of(flags), body]);
    }),
  );
  const sent = bodies.flatMap((body) =>
    [0, TRAILERS].map((flags) => Buffer.concat([Buffer.of(flags), body])),
  );
  return {
    corpus: [...built, ...sent],
    words: [
      ...[
        "\r\n",
        "\n",
        "0\r\n",
        "0\r\n\r\n",
        "1\r\na\r\n",
        ";",
        ";chunk-signature=",
        "0".repeat(64),
        ":",
        "A",
        "ff",
      ],
      ...[`${TRAILER}:sOO8/Q==\r\n`, "x-amz-trailer-signature:", "x-amz-checksum-crc32:", "x".repeat(1_100)],
      ...["ffffffffffffffff", "1fffffffffffff", "0000000000000001"],
    ],
    attempt,
  };
}

interface Decoded {
  payload: string;
  trailers: [string, string][];
}

function attempt(input: Buffer, random: Random): string {
  const flags = input[0] ?? 0;
  const signed = (flags & SIGNED) !== 0;
  let body: Buffer = Buffer.from(input.subarray(1));
  // As mutated, and as a client that holds the key would send the same.
  if (signed && random.below(4) > 0) body = resigned(body);
  const form: ChunkedForm = {
    signing: signed ? SIGNING : null,
    trailers: flags & TRAILERS ? [TRAILER] : null,
    sizeBytes: null,
  };
  const whole = decode(body, form, []);
  // However it is cut into reads.
  const cuts = Array.from({ length: random.below(8) }, () => random.below(body.length + 1));
  for (const at of [cuts.sort((a, b) => a - b), Array.from(body, (_, i) => i)]) {
    const cut = decode(body, form, at);
    check(
      isDeepStrictEqual(comparable(cut), comparable(whole)),
      `cut at ${at}: ${said(cut)}, not ${said(whole)}`,
    );
  }
  if (whole instanceof S3Error) {
    const announced = decode(body, { ...form, sizeBytes: random.below(400) }, cuts);
    check(announced instanceof S3Error, `refused (${said(whole)}), but not with a size announced`);
    if (!signed && form.trailers === null)
      check(reference(body, form) === null, "refused, but the reference decodes it");
    return outcomeOf(whole);
  }
  check(whole.payload === reference(body, form), "the reference decodes other bytes");
  const sizeBytes = whole.payload.length;
  check(
    isDeepStrictEqual(decode(body, { ...form, sizeBytes }, cuts), whole),
    "the right size announced changes it",
  );
  for (const wrong of [sizeBytes - 1, sizeBytes + 1]) {
    if (wrong < 0) continue;
    const refused = decode(body, { ...form, sizeBytes: wrong }, cuts);
    check(
      refused instanceof S3Error && refused.code === "IncompleteBody",
      `${wrong} bytes announced, not ${sizeBytes}`,
    );
  }
  return `decoded ${whole.trailers.length} trailers, ${Math.min(3, sizeBytes)} bytes`;
}

/** Fails with anything but an S3Error where the decoder does, and where more comes than was announced. */
function decode(body: Buffer, form: ChunkedForm, cuts: readonly number[]): Decoded | S3Error {
  const decoder = new ChunkDecoder(form);
  let payload = "";
  try {
    let start = 0;
    for (const end of [...cuts, body.length]) {
      const bytes = body.subarray(start, end);
      for (const slice of decoder.push(bytes)) {
        check(
          slice.buffer === bytes.buffer && slice.byteOffset >= bytes.byteOffset,
          "a payload that is no view",
        );
        payload += slice.toString("latin1");
        check(payload.length <= (form.sizeBytes ?? body.length), "more payload than was announced");
      }
      start = end;
    }
    decoder.end();
  } catch (thrown) {
    if (thrown instanceof S3Error) return thrown;
    throw thrown;
  }
  return { payload, trailers: [...decoder.trailers] };
}

/** The payload by the grammar, read from a whole body in the plainest way; null where it is none. */
function reference(body: Buffer, form: ChunkedForm): string | null {
  const text = body.toString("latin1");
  let payload = "";
  for (let at = 0; ; ) {
    const head = /^([0-9A-Fa-f]{1,16})(;chunk-signature=[0-9a-f]{64})?\r\n/.exec(text.slice(at, at + 120));
    if (head === null || (form.signing !== null && head[2] === undefined)) return null;
    at += head[0].length;
    const sizeBytes = Number.parseInt(head[1] as string, 16);
    if (sizeBytes === 0) {
      const rest = text.slice(at);
      return form.trailers !== null || rest === "\r\n" ? payload : null;
    }
    if (text.slice(at + sizeBytes, at + sizeBytes + 2) !== "\r\n") return null;
    payload += text.slice(at, at + sizeBytes);
    at += sizeBytes + 2;
  }
}

/** The same with the right signatures, as far as it can be read. */
function resigned(body: Buffer): Buffer {
  const text = body.toString("latin1");
  const parts: string[] = [];
  let previous = SIGNING.seed;
  const sign = (algorithm: string, what: string): string => {
    const { date, scope, signingKey: key } = SIGNING;
    previous = hmac(key, `${algorithm}\n${date}\n${scope}\n${previous}\n${what}`).toString("hex");
    return previous;
  };
  let at = 0;
  for (;;) {
    const head = /^([0-9A-Fa-f]{1,8});chunk-signature=[^\r\n]{0,80}\r\n/.exec(text.slice(at, at + 200));
    if (head === null) return Buffer.from(parts.join("") + text.slice(at), "latin1");
    at += head[0].length;
    const sizeBytes = Number.parseInt(head[1] as string, 16);
    const data = text.slice(at, at + sizeBytes);
    const signature = sign("AWS4-HMAC-SHA256-PAYLOAD", `${sha256("")}\n${sha256(data)}`);
    parts.push(`${head[1]};chunk-signature=${signature}\r\n`, data);
    at += data.length;
    if (sizeBytes === 0) break;
    if (text.startsWith("\r\n", at)) {
      parts.push("\r\n");
      at += 2;
    }
  }
  let trailers = "";
  for (const line of text.slice(at).split(/(?<=\n)/)) {
    const [, name, value] = /^([^:\r\n]+):[ \t]*([^\r\n]*)/.exec(line) ?? [];
    if (name === undefined) parts.push(line);
    else if (name.toLowerCase() === "x-amz-trailer-signature") {
      parts.push(`${name}:${sign("AWS4-HMAC-SHA256-TRAILER", sha256(trailers))}\r\n`);
    } else {
      trailers += `${name.toLowerCase()}:${value}\n`;
      parts.push(line);
    }
  }
  return Buffer.from(parts.join(""), "latin1");
}

function sha256(latin1: string): string {
  return createHash("sha256").update(latin1, "latin1").digest("hex");
}

function comparable(decoded: Decoded | S3Error): unknown {
  return decoded instanceof S3Error ? { code: decoded.code, message: decoded.message } : decoded;
}

function said(decoded: Decoded | S3Error): string {
  return JSON.stringify(comparable(decoded));
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(what);
}
