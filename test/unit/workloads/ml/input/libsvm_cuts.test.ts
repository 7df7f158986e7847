/** A small libsvm file, cut at every byte: the blocks of both parts are the rows of the whole. */
import { describe, expect, it } from "vitest";
import { loadAddon, type TrainingInput } from "../../../../../native/binding/addon.js";
import { linesOf } from "../../../../../workloads/ml/input/pieces.js";

const TEXT = Buffer.from(
  "# rows\n1 1:0.5 3:2\n\n-1 2:1e-3 # x 9:9\r\nbad 1:1\n+1 qid:4\n2 1:1 2:nan\n-1 3:-7",
);
const OPTIONS = { indexBegin: 1, indexEnd: 4, skipBeyond: false, labelOptional: false };
const input = loadAddon()?.trainingInput as TrainingInput;

describe.skipIf(loadAddon() === null)("libsvm", () => {
  it("gives the same rows, bad rows and lines wherever it is cut", async () => {
    const whole = await read([{ begin: 0, end: TEXT.length }]);
    expect(whole.rows).toHaveLength(4);
    expect(whole.bad.map(([line]) => line)).toEqual([5, 7]);
    for (let cut = 1; cut < TEXT.length; cut += 1) {
      const ranges = [
        { begin: 0, end: cut },
        { begin: cut, end: TEXT.length },
      ];
      expect(await read(ranges), `cut at ${cut}`).toEqual(whole);
    }
  });

  it("writes nothing where there is no room, and says so where the text is another", async () => {
    const shape = { firstRow: 0, rows: 4, features: 3, nonZeros: 4, sparse: true };
    const out = new Uint8Array(input.blockBytes(shape));
    const other = Buffer.from(TEXT.toString().replace("+1 qid:4", "+1 1:4"));
    await expect(input.writeLibsvmBlock(other, OPTIONS, shape, null, out)).rejects.toMatchObject({
      code: "ABORTED",
    });
    await expect(input.writeLibsvmBlock(TEXT, OPTIONS, shape, null, out.subarray(64))).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
    });
    expect(() => input.blockBytes({ ...shape, rows: 2 ** 50 })).toThrow(/./);
  });
});

async function read(
  ranges: readonly { begin: number; end: number }[],
): Promise<{ rows: unknown[]; bad: [number, number, string][] }> {
  const rows: unknown[] = [];
  const bad: [number, number, string][] = [];
  let linesBefore = 0;
  for (const range of ranges) {
    const text = await linesOf("text", async (offset, bytes) => TEXT.subarray(offset, offset + bytes), range);
    const survey = await input.surveyLibsvm(text, OPTIONS);
    expect(survey.fault).toBeNull();
    for (const { line, column, why } of survey.bad) bad.push([linesBefore + line, column, why]);
    linesBefore += survey.lines;
    const { rows: count, nonZeros } = survey;
    const shape = { firstRow: rows.length, rows: count, features: 3, nonZeros, sparse: true };
    // Not aligned: what is written has to be the same there.
    const out = new Uint8Array(input.blockBytes(shape) + 1).subarray(1);
    await input.writeLibsvmBlock(text, OPTIONS, shape, null, out);
    const view = new DataView(out.buffer, 1);
    const align = (at: number): number => Math.ceil(at / 64) * 64;
    const ends = align(64 + 8 * count);
    const columns = align(ends + 8 * count);
    const values = align(columns + 4 * nonZeros);
    let begin = 0;
    for (let row = 0; row < count; row += 1) {
      const end = Number(view.getBigUint64(ends + 8 * row, true));
      const pairs = [];
      for (let i = begin; i < end; i += 1)
        pairs.push([view.getUint32(columns + 4 * i, true), view.getFloat32(values + 4 * i, true)]);
      rows.push([view.getFloat64(64 + 8 * row, true), ...pairs]);
      begin = end;
    }
  }
  return { rows, bad };
}
