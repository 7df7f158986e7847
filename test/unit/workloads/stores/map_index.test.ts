import fc from "fast-check";
import { expect, it } from "vitest";
import { crc32c } from "../../../../client/checksum.js";
import {
  decodeMapIndex,
  encodeMapIndex,
  findStretches,
  MapIndexes,
} from "../../../../workloads/stores/map_index.js";

const index = fc
  .array(
    fc.record({
      size: fc.integer({ min: 0, max: 2 ** 40 }),
      checksum: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    }),
  )
  .map((partitions) => {
    const offsets = new Float64Array(partitions.length + 1);
    partitions.forEach(({ size }, i) => {
      offsets[i + 1] = (offsets[i] as number) + size;
    });
    return { offsets, checksums: Uint32Array.from(partitions, ({ checksum }) => checksum) };
  });

it("an index survives its encoding", () => {
  fc.assert(
    fc.property(index, (given) => {
      expect(decodeMapIndex(encodeMapIndex(given), given.checksums.length)).toEqual(given);
    }),
  );
});

it("anything else is refused", () => {
  const bytes = encodeMapIndex({ offsets: new Float64Array([0, 5, 9]), checksums: new Uint32Array([1, 2]) });
  expect(() => decodeMapIndex(bytes, 3)).toThrow(expect.objectContaining({ code: "CORRUPT" }));
  expect(() => decodeMapIndex(bytes.subarray(1), 2)).toThrow(expect.objectContaining({ code: "CORRUPT" }));
  const descending = encodeMapIndex({
    offsets: new Float64Array([0, 5, 4]),
    checksums: new Uint32Array([1, 2]),
  });
  expect(() => decodeMapIndex(descending, 2)).toThrow(expect.objectContaining({ code: "CORRUPT" }));
});

it("neighbouring partitions are one stretch a map, with the checksum of all of it", () => {
  const outputs = fc.array(fc.array(fc.uint8Array({ maxLength: 20 }), { minLength: 5, maxLength: 5 }), {
    minLength: 1,
    maxLength: 4,
  });
  const range = (end: number) =>
    fc
      .nat({ max: end - 1 })
      .chain((first) =>
        fc.record({ first: fc.constant(first), count: fc.integer({ min: 1, max: end - first }) }),
      );
  fc.assert(
    fc.property(
      outputs.chain((maps) => fc.tuple(fc.constant(maps), range(5), fc.option(range(maps.length)))),
      ([maps, { first, count }, some]) => {
        const indexes = maps.map((partitions) => {
          const offsets = new Float64Array(6);
          partitions.forEach((bytes, i) => {
            offsets[i + 1] = (offsets[i] as number) + bytes.length;
          });
          return { offsets, checksums: Uint32Array.from(partitions, (bytes) => crc32c(0, bytes)) };
        });
        const expected = maps.flatMap((partitions, map) => {
          if (some !== null && (map < some.first || map >= some.first + some.count)) return [];
          const before = Buffer.concat(partitions.slice(0, first));
          const bytes = Buffer.concat(partitions.slice(first, first + count));
          if (bytes.length === 0) return [];
          return [{ map, offset: before.length, sizeBytes: bytes.length, checksum: crc32c(0, bytes) }];
        });
        expect(findStretches(indexes, first, count, some)).toEqual(expected);
      },
    ),
  );
});

it("indexes are read once, and again after a failure", async () => {
  let reads = 0;
  const indexes = new MapIndexes(2, async () => {
    reads += 1;
    if (reads === 1) throw new Error("not yet");
    return { offsets: new Float64Array(1), checksums: new Uint32Array(0) };
  });
  await expect(indexes.all()).rejects.toThrow("not yet");
  await Promise.all([indexes.all(), indexes.all()]);
  expect(reads).toBe(4);
});
