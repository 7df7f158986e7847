/** The bytes that a request carries, checked while they pass. */
import { timingSafeEqual } from "node:crypto";
import { type DigestName, type NativeDigests, requireAddon } from "../../../native/binding/addon.js";
import { Arrivals } from "./arrivals.js";
import type { ChecksumName } from "./attributes.js";
import { ChunkDecoder, type ChunkedForm } from "./auth/chunked.js";
import { header, type S3Call, type S3Request } from "./call.js";
import { CHECKSUM_BYTES, CHECKSUM_NAMES } from "./checksums.js";
import { feed } from "./digested.js";
import { S3Error } from "./errors.js";

const MD5_BYTES = 16;

/**
 * Payload of a request, out of its framing (aws-chunked or none). Iterating it yields the bytes as they arrive, each
 * buffer for the taker to keep, and throws an `S3Error` where they are not what was signed or announced: only when the
 * iteration has ended without one are the bytes good.
 */
export interface Body extends AsyncIterable<Buffer> {
  /** Payload bytes as announced, or null where only the end will tell. */
  readonly sizeBytes: number | null;
  /** Of the whole payload, those asked for; after the iteration has ended. */
  digest(name: DigestName): Buffer;
  /** The checksum that the sender gave in a header or trailer, which has been verified; after the iteration has ended. */
  readonly checksum: { name: ChecksumName; value: string } | null;
}

/** Opens the payload of `call`; answers `Expect: 100-continue`. Call it when all else about the request is known to be good. */
export function openBody(call: S3Call, digests: readonly DigestName[]): Body {
  const body = new PayloadBody(call, digests);
  if (/^100-continue$/i.test(header(call.request, "expect") ?? "")) call.response.writeContinue();
  return body;
}

/** What the payload must come to, by the headers. */
interface Expected {
  /** Lower-case hexadecimal, as it was signed. */
  signedSha256: string | null;
  md5: Buffer | null;
  checksum: { name: ChecksumName; value: string } | null;
  /** A checksum that a trailer is to give. */
  trailer: ChecksumName | null;
}

class PayloadBody implements Body {
  readonly sizeBytes: number | null;
  checksum: { name: ChecksumName; value: string } | null = null;
  private readonly expected: Expected;
  private readonly decoder: ChunkDecoder | null;
  private readonly contentLength: number | null;
  private readonly digests: NativeDigests | null;
  private readonly names: readonly DigestName[];
  private readonly values = new Map<DigestName, Buffer>();
  private opened = false;

  constructor(
    private readonly call: S3Call,
    names: readonly DigestName[],
  ) {
    const { request, authorization } = call;
    const form = chunkedForm(call);
    this.contentLength = contentLength(request);
    if (this.contentLength === null && form === null) {
      throw new S3Error("MissingContentLength", "You must provide the Content-Length HTTP header.");
    }
    this.sizeBytes = form === null ? this.contentLength : form.sizeBytes;
    this.decoder = form === null ? null : new ChunkDecoder(form);
    this.expected = {
      signedSha256: authorization.payload.kind === "sha256" ? authorization.payload.hash : null,
      md5: contentMd5(request),
      checksum: headerChecksum(request),
      trailer: trailerChecksum(request),
    };
    if (this.expected.trailer !== null && (form?.trailers ?? null) === null) {
      throw new S3Error(
        "InvalidRequest",
        "x-amz-trailer announces a trailer, but the body has no form that has any.",
      );
    }
    if (this.expected.trailer !== null && this.expected.checksum !== null) throw severalChecksums();
    this.names = [...new Set([...names, ...needed(this.expected)])];
    this.digests = this.names.length === 0 ? null : new (requireAddon().Digests)(this.names);
  }

  digest(name: DigestName): Buffer {
    const value = this.values.get(name);
    if (value === undefined)
      throw new Error(`the digest ${name} was not asked for, or the body has not ended`);
    return value;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, void> {
    if (this.opened) throw new Error("a body can be iterated once");
    this.opened = true;
    const arrivals = new Arrivals(this.call.request.message, this.call.context.patience);
    try {
      let receivedBytes = 0;
      for (let bytes = await arrivals.next(); bytes !== null; bytes = await arrivals.next()) {
        receivedBytes += bytes.length;
        for (const payload of this.decoder === null ? [bytes] : this.decoder.push(bytes)) {
          if (this.digests !== null) await feed(this.digests, payload);
          yield payload;
        }
      }
      if (this.contentLength !== null && receivedBytes !== this.contentLength) {
        throw new S3Error(
          "IncompleteBody",
          "You did not provide the number of bytes specified by the Content-Length HTTP header",
        );
      }
      this.decoder?.end();
      await this.verify();
    } finally {
      arrivals.close();
    }
  }

  private async verify(): Promise<void> {
    const values = (await this.digests?.finish()) ?? [];
    for (const [at, name] of this.names.entries()) this.values.set(name, values[at] as Buffer);

    const { signedSha256, md5, trailer } = this.expected;
    if (signedSha256 !== null && this.digest("sha256").toString("hex") !== signedSha256) {
      throw new S3Error(
        "XAmzContentSHA256Mismatch",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
        {
          ClientComputedContentSHA256: signedSha256,
          S3ComputedContentSHA256: this.digest("sha256").toString("hex"),
        },
      );
    }
    if (md5 !== null && !timingSafeEqual(md5, this.digest("md5"))) {
      throw new S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.", {
        ExpectedDigest: md5.toString("base64"),
        CalculatedDigest: this.digest("md5").toString("base64"),
      });
    }
    const trailerValue = this.decoder?.trailers.get(`x-amz-checksum-${trailer}`);
    const given = trailer === null ? this.expected.checksum : checksum(trailer, trailerValue ?? "");
    if (given !== null && this.digest(given.name).toString("base64") !== given.value) {
      throw new S3Error(
        "BadDigest",
        `The ${given.name.toUpperCase()} you specified did not match the calculated checksum.`,
      );
    }
    this.checksum = given;
  }
}

function needed({ signedSha256, md5, checksum, trailer }: Expected): DigestName[] {
  const names: DigestName[] = [];
  if (signedSha256 !== null) names.push("sha256");
  if (md5 !== null) names.push("md5");
  if (checksum !== null) names.push(checksum.name);
  if (trailer !== null) names.push(trailer);
  return names;
}

/** Null: the body is the payload as it is. */
function chunkedForm({ request, authorization }: S3Call): ChunkedForm | null {
  const { payload } = authorization;
  const announced = trailerChecksum(request);
  const trailers = announced === null ? [] : [`x-amz-checksum-${announced}`];
  const decodedLength = header(request, "x-amz-decoded-content-length");
  // A client that does not sign says nothing about its payload but this.
  const bare =
    payload.kind === "unsigned" &&
    (header(request, "content-encoding") ?? "")
      .toLowerCase()
      .split(/[ \t]*,[ \t]*/)
      .includes("aws-chunked") &&
    (decodedLength !== null || announced !== null);
  if (payload.kind !== "chunks" && !bare) return null;
  if (decodedLength === null && !isChunkedTransfer(request)) {
    throw new S3Error(
      "MissingContentLength",
      "You must provide the x-amz-decoded-content-length HTTP header.",
    );
  }
  const sizeBytes = decodedLength === null ? null : bytesOf("x-amz-decoded-content-length", decodedLength);
  if (payload.kind !== "chunks") return { signing: null, trailers, sizeBytes };
  return { signing: payload.signing, trailers: payload.trailer ? trailers : null, sizeBytes };
}

function contentLength(request: S3Request): number | null {
  const value = header(request, "content-length");
  return value === null ? null : bytesOf("Content-Length", value);
}

function isChunkedTransfer(request: S3Request): boolean {
  return /(^|,)[ \t]*chunked$/i.test(header(request, "transfer-encoding") ?? "");
}

function bytesOf(name: string, value: string): number {
  const bytes = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(bytes))
    throw new S3Error("InvalidArgument", `${name} must be a number of bytes.`);
  return bytes;
}

function contentMd5(request: S3Request): Buffer | null {
  const value = header(request, "content-md5");
  if (value === null) return null;
  const md5 = base64(value, MD5_BYTES);
  if (md5 === null) throw new S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.");
  return md5;
}

function headerChecksum(request: S3Request): Expected["checksum"] {
  // There the checksum is that of the object to be, not of the list of its parts.
  if (request.method === "POST" && request.query.has("uploadId")) return null;
  const given: Expected["checksum"][] = [];
  for (const name of CHECKSUM_NAMES) {
    const value = header(request, `x-amz-checksum-${name}`);
    if (value !== null) given.push(checksum(name, value));
  }
  if (given.length > 1) throw severalChecksums();
  return given[0] ?? null;
}

function checksum(name: ChecksumName, value: string): { name: ChecksumName; value: string } {
  if (base64(value, CHECKSUM_BYTES[name]) === null) {
    throw new S3Error("InvalidRequest", `Value for x-amz-checksum-${name} header is invalid.`);
  }
  return { name, value };
}

/** What x-amz-trailer announces. */
function trailerChecksum(request: S3Request): ChecksumName | null {
  const names = (header(request, "x-amz-trailer") ?? "").toLowerCase().split(",");
  const checksums: ChecksumName[] = [];
  for (const name of names.map((text) => text.trim()).filter((text) => text !== "")) {
    const checksumName = name.replace(/^x-amz-checksum-/, "");
    if (checksumName === name || !Object.hasOwn(CHECKSUM_BYTES, checksumName)) {
      throw new S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported");
    }
    checksums.push(checksumName as ChecksumName);
  }
  if (checksums.length > 1) throw severalChecksums();
  return checksums[0] ?? null;
}

/** Exactly so many bytes, written in the one way; else null. */
function base64(text: string, bytes: number): Buffer | null {
  const decoded = Buffer.from(text, "base64");
  return decoded.length === bytes && decoded.toString("base64") === text ? decoded : null;
}

function severalChecksums(): S3Error {
  return new S3Error(
    "InvalidRequest",
    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
  );
}
