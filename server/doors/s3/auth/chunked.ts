/**
 * Takes a body in aws-chunked apart.
 *
 *   chunk   = size in hexadecimal [";chunk-signature=" signature] CRLF, that many bytes, CRLF
 *   body    = chunk*, "0" [";chunk-signature=" signature] CRLF, trailer*, CRLF
 *   trailer = name ":" value CRLF; last of the signed ones is x-amz-trailer-signature
 *
 * Each signature continues from the one before it, so chunks cannot be left out, swapped or added. Some clients end a
 * trailer with LF alone and put an empty line after it; that is accepted.
 */
import { createHash, type Hash } from "node:crypto";
import { S3Error } from "../errors.js";
import type { ChunkSigning } from "./authorization.js";
import { isSignature } from "./signing.js";

export interface ChunkedForm {
  /** Null: chunks are bare. */
  readonly signing: ChunkSigning | null;
  /** Trailers that were announced, in lower case; null: this form has none. */
  readonly trailers: readonly string[] | null;
  /** Payload bytes that were announced; null: none were. */
  readonly sizeBytes: number | null;
}

/** 16 digits, ";chunk-signature=", 64 digits, CR. */
const CHUNK_LINE_BYTES_MAX = 98;
const TRAILER_LINE_BYTES_MAX = 1_024;
/** Empty ones included. */
const TRAILER_LINES_MAX = 8;
const TRAILER_SIGNATURE = "x-amz-trailer-signature";
const EMPTY_SHA256 = createHash("sha256").digest("hex");
const LF = 0x0a;
const CRLF = "\r\n";

/** Feed it with `push`, and `end` it. After it has thrown it is of no use. */
export class ChunkDecoder {
  private state: "head" | "data" | "dataEnd" | "trailers" | "end" | "done" = "head";
  /** The line at hand, as far as it came in earlier pushes. */
  private line = "";
  /** Of the chunk at hand, to come. */
  private leftBytes = 0;
  private payloadBytes = 0;
  private hash: Hash | null = null;
  /** That the chunk at hand must have. */
  private signature = "";
  private previous: string;
  private trailerLines = 0;
  private trailersSigned = false;
  private readonly found = new Map<string, string>();
  /** After the end, in forms with trailers: an empty line too many. */
  private surplus = "";

  constructor(private readonly form: ChunkedForm) {
    this.previous = form.signing?.seed ?? "";
  }

  /** Trailers by name in lower case; after `end`. */
  get trailers(): ReadonlyMap<string, string> {
    return this.found;
  }

  /**
   * Payload in `bytes`, as views of it. Parts of a signed chunk come out before its signature has been checked: only
   * when `end` has returned are they good.
   */
  push(bytes: Buffer): Buffer[] {
    const payload: Buffer[] = [];
    let at = 0;
    while (at < bytes.length) {
      if (this.state === "data") {
        const slice = bytes.subarray(at, at + Math.min(this.leftBytes, bytes.length - at));
        at += slice.length;
        this.leftBytes -= slice.length;
        this.hash?.update(slice);
        if (this.leftBytes === 0) this.endData();
        payload.push(slice);
      } else if (this.state === "done") {
        this.surplus += bytes.toString("latin1", at, at + CRLF.length);
        at += CRLF.length;
        if (this.form.trailers === null || !CRLF.startsWith(this.surplus)) {
          throw malformed("bytes follow its end");
        }
      } else {
        at = this.readLine(bytes, at);
      }
    }
    return payload;
  }

  /** No more bytes come. */
  end(): void {
    if (this.state !== "done" || (this.surplus !== "" && this.surplus !== CRLF)) {
      throw incomplete("the body ended before its last chunk did");
    }
  }

  private readLine(bytes: Buffer, start: number): number {
    const newline = bytes.indexOf(LF, start);
    const end = newline < 0 ? bytes.length : newline;
    const maxBytes = this.state === "trailers" ? TRAILER_LINE_BYTES_MAX : CHUNK_LINE_BYTES_MAX;
    if (this.line.length + end - start > maxBytes) {
      throw malformed(`a line of its framing has more than ${maxBytes} bytes`);
    }
    this.line += bytes.toString("latin1", start, end);
    if (newline < 0) return bytes.length;
    const line = this.line;
    this.line = "";
    this.onLine(line);
    return newline + 1;
  }

  /** `line` is without LF. */
  private onLine(line: string): void {
    switch (this.state) {
      case "head":
        this.beginChunk(line);
        break;
      case "trailers":
        this.onTrailer(line.endsWith("\r") ? line.slice(0, -1) : line);
        break;
      default:
        if (line !== "\r") throw malformed("a chunk does not end where its size says");
        this.state = this.state === "end" ? "done" : "head";
    }
  }

  private beginChunk(line: string): void {
    const head = /^([0-9A-Fa-f]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?\r$/.exec(line);
    if (head === null)
      throw malformed("a chunk must start with its size, and nothing but chunk-signature may follow");
    const sizeBytes = Number.parseInt(head[1] as string, 16);
    if (!Number.isSafeInteger(this.payloadBytes + sizeBytes)) throw malformed("a chunk is too large");
    this.payloadBytes += sizeBytes;
    const announced = this.form.sizeBytes;
    if (
      announced !== null &&
      (this.payloadBytes > announced || (sizeBytes === 0 && this.payloadBytes < announced))
    ) {
      throw incomplete(`x-amz-decoded-content-length says ${announced} bytes, but the chunks have other`);
    }
    if (this.form.signing !== null) {
      if (head[2] === undefined) throw malformed("a chunk has no signature");
      this.signature = head[2];
    }
    if (sizeBytes > 0) {
      this.leftBytes = sizeBytes;
      this.hash = this.form.signing === null ? null : createHash("sha256");
      this.state = "data";
    } else {
      this.checkChunk(EMPTY_SHA256);
      this.state = this.form.trailers === null ? "end" : "trailers";
    }
  }

  private endData(): void {
    if (this.hash !== null) this.checkChunk(this.hash.digest("hex"));
    this.hash = null;
    this.state = "dataEnd";
  }

  private checkChunk(sha256: string): void {
    this.checkSignature("AWS4-HMAC-SHA256-PAYLOAD", `${EMPTY_SHA256}\n${sha256}`, this.signature);
  }

  private checkSignature(algorithm: string, what: string, signature: string): void {
    const signing = this.form.signing;
    if (signing === null) return;
    const stringToSign = `${algorithm}\n${signing.date}\n${signing.scope}\n${this.previous}\n${what}`;
    if (!isSignature(signing.signingKey, stringToSign, signature)) {
      throw new S3Error(
        "SignatureDoesNotMatch",
        "The signature of a chunk or trailer does not match what came.",
        {
          StringToSign: stringToSign,
          SignatureProvided: signature,
        },
      );
    }
    this.previous = signature;
  }

  private onTrailer(line: string): void {
    const complete =
      this.found.size === this.form.trailers?.length && (this.form.signing === null || this.trailersSigned);
    if (line === "" && complete) {
      this.state = "done";
      return;
    }
    if (++this.trailerLines > TRAILER_LINES_MAX)
      throw malformed("it has too many trailers, or not those announced");
    if (line === "") return;
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(colon, 0)).toLowerCase();
    const value = line.slice(colon + 1).replace(/^[ \t]+/, "");
    if (this.trailersSigned) throw malformed(`a trailer follows ${TRAILER_SIGNATURE}`);
    if (name === TRAILER_SIGNATURE && this.form.signing !== null) {
      this.checkTrailers(value);
    } else {
      if (!this.form.trailers?.includes(name))
        throw malformed("a trailer is none that x-amz-trailer announced");
      if (this.found.has(name)) throw malformed(`the trailer ${name} is there twice`);
      this.found.set(name, value);
    }
  }

  private checkTrailers(signature: string): void {
    if (!/^[0-9a-f]{64}$/.test(signature))
      throw malformed(`${TRAILER_SIGNATURE} must be 64 hexadecimal digits`);
    const text = [...this.found].map(([name, value]) => `${name}:${value}\n`).join("");
    const sha256 = createHash("sha256").update(text, "latin1").digest("hex");
    this.checkSignature("AWS4-HMAC-SHA256-TRAILER", sha256, signature);
    this.trailersSigned = true;
  }
}

function malformed(what: string): S3Error {
  return new S3Error("InvalidRequest", `The body is no valid aws-chunked: ${what}.`);
}

function incomplete(what: string): S3Error {
  return new S3Error(
    "IncompleteBody",
    `You did not provide the number of bytes specified by the Content-Length HTTP header: ${what}.`,
  );
}
