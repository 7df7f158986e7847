/**
 * Text in pieces of whole lines. A line belongs to the piece in which its first byte lies, so that every line is in
 * exactly one piece wherever the text is cut.
 */
import { MillraceError } from "../../../client/errors.js";
import { type ByteSource, type FileName, openBytes, openFile, readAt } from "./bytes.js";
import type { ByteRange } from "./plan.js";

/** No line of training data is so long; a file without ends of lines is no text. */
export const LINE_BYTES_MAX = 256 * 1024 * 1024;

/** What is read at a time to find the end of a line. */
const TAIL_BYTES = 64 * 1024;
const NEWLINE = 0x0a;

/** Where bytes come from: fewer at the end. */
export type ReadAt = (offsetBytes: number, bytes: number) => Promise<Buffer>;

/** The whole lines of a range. */
export async function linesOf(path: string, read: ReadAt, { begin, end }: ByteRange): Promise<Buffer> {
  // The byte before says whether a line begins with the range.
  const from = Math.max(0, begin - 1);
  const bytes = await read(from, end - from);
  const first = begin === 0 ? 0 : bytes.indexOf(NEWLINE) + 1;
  if (begin > 0 && (first === 0 || from + first >= end)) return Buffer.alloc(0);
  if (bytes.length < end - from || bytes.at(-1) === NEWLINE) return bytes.subarray(first);
  const parts = [bytes.subarray(first)];
  let length = bytes.length - first;
  for (let at = end; ; ) {
    const tail = await read(at, TAIL_BYTES);
    const stop = tail.indexOf(NEWLINE);
    parts.push(stop === -1 ? tail : tail.subarray(0, stop + 1));
    length += tail.length;
    if (stop !== -1 || tail.length < TAIL_BYTES) return Buffer.concat(parts);
    if (length > LINE_BYTES_MAX) throw tooLong(path);
    at += tail.length;
  }
}

/** The pieces of a file, one after another: of its ranges, or of about `pieceBytes` where it is compressed. */
export async function* readPieces(
  file: FileName,
  ranges: readonly ByteRange[],
  pieceBytes: number,
): AsyncGenerator<Buffer, void, undefined> {
  if (file.gzip) {
    const source = await openBytes(file);
    try {
      yield* cutSource(file.path, source, pieceBytes);
    } finally {
      await source.close();
    }
    return;
  }
  const handle = await openFile(file.path);
  try {
    for (const range of ranges) {
      yield await linesOf(file.path, (offset, bytes) => readAt(file.path, handle, offset, bytes), range);
    }
  } finally {
    await handle.close();
  }
}

async function* cutSource(
  path: string,
  source: ByteSource,
  pieceBytes: number,
): AsyncGenerator<Buffer, void, undefined> {
  let rest: Buffer = Buffer.alloc(0);
  for (;;) {
    const parts = [rest, await source.read(Math.max(1, pieceBytes - rest.length))];
    let length = rest.length + (parts[1] as Buffer).length;
    if (length === 0) return;
    rest = Buffer.alloc(0);
    while (length >= pieceBytes && parts.at(-1)?.at(-1) !== NEWLINE) {
      const tail = await source.read(TAIL_BYTES);
      if (tail.length === 0) break;
      const stop = tail.indexOf(NEWLINE);
      parts.push(stop === -1 ? tail : tail.subarray(0, stop + 1));
      length += tail.length;
      if (stop !== -1) {
        rest = tail.subarray(stop + 1);
        break;
      }
      if (length > LINE_BYTES_MAX + pieceBytes) throw tooLong(path);
    }
    yield Buffer.concat(parts);
  }
}

function tooLong(path: string): MillraceError {
  return new MillraceError("CORRUPT", `${path} has a line of more than ${LINE_BYTES_MAX} bytes`);
}
