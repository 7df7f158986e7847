/** The addon's DuckDB, over bytes as JavaScript has them: what goes out of one statement comes into the next. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  loadAddon,
  type NativeDuckDb,
  type NativeRows,
  type NativeRowsInput,
  requireAddon,
} from "../../native/binding/addon.js";
import { findLibrary } from "../../workloads/sql/duckdb.js";

const library = findLibrary();

interface Written {
  types: readonly string[];
  bytes: Uint8Array;
  offsets: Float64Array;
  checksums: Uint32Array;
}

async function written(rows: NativeRows): Promise<Written> {
  const bytes = new Uint8Array(rows.bytes);
  const { offsets, checksums } = await rows.write(bytes);
  const { types } = rows;
  rows.close();
  return { types, bytes, offsets, checksums };
}

function input(name: string, { types, bytes, offsets, checksums }: Written): NativeRowsInput {
  const extents = [...checksums].map((_, i) => bytes.subarray(offsets[i], offsets[i + 1]));
  return { name, types, extents, checksums };
}

describe.skipIf(loadAddon() === null || library === null)("the addon's DuckDB", () => {
  let db: NativeDuckDb;

  beforeAll(() => {
    db = new (requireAddon().DuckDb)({
      library: library ?? "",
      threads: 1,
      memoryBytes: 0,
      spillDirectory: null,
    });
  });
  afterAll(() => db.close());

  async function texts(sql: string, inputs: readonly NativeRowsInput[] = []): Promise<(string | null)[]> {
    const rows = await db.execute(sql, inputs, 1);
    const found = rows.texts(0, 0, rows.rows);
    rows.close();
    return found;
  }

  it("tells what a statement has found", async () => {
    const rows = await db.execute(
      "SELECT i AS number, if(i = 1, NULL, 'ä' || i) AS \"the text\" FROM range(4) t(i)",
      [],
      1,
    );
    expect(db.version).toMatch(/^v\d+\.\d+\.\d+/);
    expect(rows.names).toEqual(["number", "the text"]);
    expect(rows.types).toEqual(["BIGINT", "VARCHAR"]);
    expect(rows.rows).toBe(4);
    expect([...rows.partitionRows]).toEqual([4]);
    expect(rows.texts(1, 0, 100)).toEqual(["ä0", null, "ä2", "ä3"]);
    expect(rows.texts(1, 2, 1)).toEqual(["ä2"]);
    expect(rows.texts(1, 4, 1)).toEqual([]);
    expect(() => rows.texts(0, 0, 1)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    expect(() => rows.texts(2, 0, 1)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
    rows.close();
    expect(() => rows.rows).toThrow(expect.objectContaining({ code: "CLOSED" }));
  });

  it("cuts rows into partitions that other statements read", async () => {
    const rows = await db.execute(
      "SELECT i, 'row number ' || i AS name, (i % 5)::UINTEGER FROM range(100000) t(i)",
      [],
      5,
    );
    expect([...rows.partitionRows]).toEqual([20000, 20000, 20000, 20000, 20000]);
    const five = await written(rows);
    expect(five.types).toEqual(["BIGINT", "VARCHAR"]);
    expect(five.offsets[5]).toBe(five.bytes.length);
    expect(
      await texts("SELECT count(*) || ' ' || sum(c0) || ' ' || count(DISTINCT c1) FROM rows_in('all')", [
        input("all", five),
      ]),
    ).toEqual(["100000 4999950000 100000"]);
    const third = {
      ...input("third", five),
      extents: [five.bytes.subarray(five.offsets[3], five.offsets[4])],
      checksums: null,
    };
    expect(await texts("SELECT DISTINCT (c0 % 5)::VARCHAR FROM rows_in('third')", [third])).toEqual(["3"]);
  });

  it("keeps rows in place while they are being written, closed or not", async () => {
    const rows = await db.execute("SELECT i, repeat('x', 40) FROM range(200000) t(i)", [], 1);
    const bytes = new Uint8Array(rows.bytes);
    const writing = rows.write(bytes);
    rows.close();
    const { offsets, checksums } = await writing;
    const back = input("x", { types: ["BIGINT", "VARCHAR"], bytes, offsets, checksums });
    expect(await texts("SELECT sum(c0)::VARCHAR FROM rows_in('x')", [back])).toEqual(["19999900000"]);
  });

  it("names the extents that are not what was written", async () => {
    const out = await written(await db.execute("SELECT i, (i % 3)::UINTEGER FROM range(3000) t(i)", [], 3));
    const damagedAt = (out.offsets[1] ?? 0) + 70;
    out.bytes[damagedAt] = (out.bytes[damagedAt] ?? 0) ^ 4;
    const one = await written(await db.execute("SELECT 1", [], 1));
    await expect(
      db.execute("SELECT * FROM rows_in('b')", [input("a", one), input("b", out)], 1),
    ).rejects.toMatchObject({ code: "CHECKSUM_MISMATCH", extents: [[1, 1]], retryable: false });
    await expect(
      db.execute(
        "SELECT * FROM rows_in('b')",
        [{ ...input("b", out), types: ["VARCHAR"], checksums: null }],
        1,
      ),
    ).rejects.toMatchObject({ code: "CORRUPT" });
  });

  it("says what DuckDB says", async () => {
    await expect(db.execute("SELECT error('so it is')", [], 1)).rejects.toMatchObject({
      code: "SQL_FAILED",
      message: expect.stringContaining("so it is"),
    });
    await expect(db.execute("SELECT 7::UINTEGER", [], 7)).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
  });

  it("takes no wrong arguments", async () => {
    const rows = await db.execute("SELECT 1", [], 1);
    const bad = expect.objectContaining({ code: "INVALID_ARGUMENT" });
    expect(() => db.execute("SELECT 1", [], 0)).toThrow(bad);
    expect(() => db.execute("SELECT 1", [], 65537)).toThrow(bad);
    const extents = [new Uint8Array(0)];
    for (const wrong of [
      { name: 1, types: [], extents, checksums: null },
      { name: "x", types: [1], extents, checksums: null },
      { name: "x", types: ["INTEGER"], extents: ["bytes"], checksums: null },
      { name: "x", types: ["INTEGER"], extents, checksums: new Uint32Array(2) },
      { name: "x", types: ["INTEGER"], extents, checksums: [0] },
    ]) {
      expect(() => db.execute("SELECT 1", [wrong as unknown as NativeRowsInput], 1)).toThrow(bad);
    }
    await expect(rows.write(new Uint8Array(rows.bytes - 1))).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
    rows.close();
    const { DuckDb } = requireAddon();
    const options = { library: library ?? "", threads: 1, memoryBytes: 0, spillDirectory: null };
    expect(() => new DuckDb({ ...options, threads: 0 })).toThrow(bad);
    expect(() => new DuckDb({ ...options, library: "/nowhere/libduckdb.so" })).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED" }),
    );
  });

  it("is cancelled and closed", async () => {
    const other = new (requireAddon().DuckDb)({
      library: library ?? "",
      threads: 1,
      memoryBytes: 0,
      spillDirectory: null,
    });
    const endless = "SELECT count(*) FROM range(1000000000000) t(i) WHERE i % 7 = 1";
    const first = other.execute(endless, [], 1);
    const timer = setInterval(() => other.cancel(), 20);
    await expect(first).rejects.toMatchObject({ code: "CANCELLED" });
    clearInterval(timer);
    const rows = await other.execute("SELECT 'still here'", [], 1);
    expect(rows.texts(0, 0, 1)).toEqual(["still here"]);
    const second = other.execute(endless, [], 1);
    await Promise.all([
      expect(second).rejects.toMatchObject({ code: expect.stringMatching(/^(CANCELLED|CLOSED)$/) }),
      other.close(),
    ]);
    await expect(other.execute("SELECT 1", [], 1)).rejects.toMatchObject({ code: "CLOSED" });
    expect(rows.texts(0, 0, 1)).toEqual(["still here"]);
  });
});
