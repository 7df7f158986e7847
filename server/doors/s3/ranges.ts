/** Ranges of bytes, as RFC 9110 has them and as S3 understands them. */
import { S3Error } from "./errors.js";

export interface ByteRange {
  readonly offset: number;
  /** Bytes; at least one. */
  readonly length: number;
}

const ONE_RANGE = /^bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*$/i;

/**
 * What a `Range` header asks for of an object of `sizeBytes`. Null: the whole object, also where the header makes no
 * sense or has several ranges, for which S3 answers as if it were not there. InvalidRange where no byte is in it.
 */
export function parseRange(value: string, sizeBytes: number): ByteRange | null {
  const match = ONE_RANGE.exec(value);
  if (match === null) return null;
  const [, first, last] = match as unknown as [string, string, string];
  if (first === "" && last === "") return null;
  if (first === "") {
    const length = Math.min(Number(last), sizeBytes);
    if (length === 0) throw unsatisfiable(value, sizeBytes);
    return { offset: sizeBytes - length, length };
  }
  const offset = Number(first);
  // More digits than a number holds are more than any object has, and stay in order.
  const end = last === "" ? sizeBytes : Math.min(Number(last) + 1, sizeBytes);
  if (last !== "" && Number(last) < offset) return null;
  if (offset >= sizeBytes) throw unsatisfiable(value, sizeBytes);
  return { offset, length: end - offset };
}

/** The value of `Content-Range`. */
export function contentRange({ offset, length }: ByteRange, sizeBytes: number): string {
  return `bytes ${offset}-${offset + length - 1}/${sizeBytes}`;
}

function unsatisfiable(value: string, sizeBytes: number): S3Error {
  return new S3Error(
    "InvalidRange",
    "the object has none of the bytes asked for",
    { RangeRequested: value, ActualObjectSize: String(sizeBytes) },
    { "Content-Range": `bytes */${sizeBytes}` },
  );
}
