/** Text is cut anywhere, and every line is read once. */
import { rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { linesOf, readPieces } from "../../../../../workloads/ml/input/pieces.js";

const path = join(tmpdir(), `millrace-pieces-${process.pid}`);
afterAll(() => rmSync(path, { force: true }));

function inMemory(text: Buffer): (offset: number, bytes: number) => Promise<Buffer> {
  return async (offset, bytes) => text.subarray(offset, offset + bytes);
}

const TEXTS = fc
  .tuple(fc.array(fc.stringMatching(/^[ab:1\r ]{0,7}$/), { maxLength: 9 }), fc.boolean())
  .map(([lines, ends]) => Buffer.from(lines.join("\n") + (ends ? "\n" : "")));

describe("pieces", () => {
  it("are whole lines, each in one piece, for every place to cut", async () => {
    await fc.assert(
      fc.asyncProperty(TEXTS, async (text) => {
        for (let cut = 0; cut <= text.length; cut += 1) {
          const ranges = [
            { begin: 0, end: cut },
            { begin: cut, end: text.length },
          ].filter(({ begin, end }) => end > begin);
          const pieces: Buffer[] = [];
          for (const range of ranges) pieces.push(await linesOf("text", inMemory(text), range));
          expect(Buffer.concat(pieces).equals(text)).toBe(true);
          for (const piece of pieces.slice(0, -1)) {
            // A piece ends where a line does, be it the last of the text.
            if (piece.length > 0 && piece.length < text.length) expect(piece.at(-1)).toBe(0x0a);
          }
        }
      }),
    );
  });

  it("may be of any size", async () => {
    await fc.assert(
      fc.asyncProperty(TEXTS, fc.integer({ min: 1, max: 12 }), async (text, size) => {
        const pieces: Buffer[] = [];
        for (let begin = 0; begin < text.length; begin += size) {
          pieces.push(
            await linesOf("text", inMemory(text), { begin, end: Math.min(text.length, begin + size) }),
          );
        }
        expect(Buffer.concat(pieces).equals(text)).toBe(true);
      }),
    );
  });

  it("of compressed text are the same each time, and all of it", async () => {
    await fc.assert(
      fc.asyncProperty(TEXTS, fc.integer({ min: 1, max: 12 }), async (text, size) => {
        writeFileSync(path, gzipSync(text));
        const read = async (): Promise<string[]> => {
          const pieces: string[] = [];
          for await (const piece of readPieces({ path, gzip: true }, [], size)) pieces.push(piece.toString());
          return pieces;
        };
        const pieces = await read();
        expect(pieces.join("")).toBe(text.toString());
        for (const piece of pieces.slice(0, -1)) expect(piece.endsWith("\n")).toBe(true);
        expect(await read()).toEqual(pieces);
      }),
      { numRuns: 40 },
    );
  });
});
