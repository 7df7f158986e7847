/** Requests and streams as a client would sign them, for tests of the S3 door. */
import { createHash, createHmac } from "node:crypto";
import { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import type { ChunkSigning } from "../../../../../server/doors/s3/auth/authorization.js";
import { hmac } from "../../../../../server/doors/s3/auth/signing.js";
import type { S3Request } from "../../../../../server/doors/s3/call.js";

/** `headers` as name and value, one after the other. */
export function requestOf(method: string, path: string, rawQuery: string, headers: string[]): S3Request {
  const message = new IncomingMessage(new Socket());
  message.method = method;
  message.url = rawQuery === "" ? path : `${path}?${rawQuery}`;
  const distinct: Record<string, string[]> = {};
  for (let at = 0; at < headers.length; at += 2) {
    const name = (headers[at] as string).toLowerCase();
    distinct[name] = [...(distinct[name] ?? []), headers[at + 1] as string];
  }
  message.headersDistinct = distinct;
  message.headers = Object.fromEntries(Object.entries(distinct).map(([name, all]) => [name, all.join(", ")]));
  const query = new Map(new URLSearchParams(rawQuery));
  return { id: "0", method, rawPath: path, rawQuery, query, bucket: "bucket", key: "key", message };
}

const sha256 = (data: string | Buffer) => createHash("sha256").update(data).digest("hex");

/** The chunks of `pieces` (and the zero chunk), signed unless `signing` is null, and then the trailers. */
export function encodeChunks(
  pieces: readonly Buffer[],
  signing: ChunkSigning | null,
  trailers: Record<string, string> | null,
): Buffer {
  const parts: Buffer[] = [];
  let previous = signing?.seed ?? "";
  const sign = (algorithm: string, what: string) => {
    const { date, scope, signingKey } = signing as ChunkSigning;
    previous = hmac(signingKey, `${algorithm}\n${date}\n${scope}\n${previous}\n${what}`).toString("hex");
    return previous;
  };
  for (const piece of [...pieces, Buffer.alloc(0)]) {
    const size = piece.length.toString(16);
    const signature =
      signing === null
        ? ""
        : `;chunk-signature=${sign("AWS4-HMAC-SHA256-PAYLOAD", `${sha256("")}\n${sha256(piece)}`)}`;
    parts.push(Buffer.from(`${size}${signature}\r\n`), piece);
    if (piece.length > 0) parts.push(Buffer.from("\r\n"));
  }
  const lines = Object.entries(trailers ?? {}).map(([name, value]) => `${name}:${value}`);
  parts.push(...lines.map((line) => Buffer.from(`${line}\r\n`)));
  if (trailers !== null && signing !== null) {
    const text = lines.map((line) => `${line}\n`).join("");
    parts.push(Buffer.from(`x-amz-trailer-signature:${sign("AWS4-HMAC-SHA256-TRAILER", sha256(text))}\r\n`));
  }
  parts.push(Buffer.from("\r\n"));
  return Buffer.concat(parts);
}

/** What @smithy/signature-v4 wants for its hashes. */
export class Sha256 {
  private readonly hash;
  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.hash =
      secret === undefined
        ? createHash("sha256")
        : createHmac("sha256", typeof secret === "string" ? secret : bytesOf(secret));
  }
  update(data: string | ArrayBuffer | ArrayBufferView): void {
    this.hash.update(typeof data === "string" ? data : bytesOf(data));
  }
  async digest(): Promise<Uint8Array> {
    return this.hash.digest();
  }
  reset(): void {}
}

function bytesOf(data: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(data)
    ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    : new Uint8Array(data);
}
