import { existsSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FileExchange, setUpFileExchange } from "../../../../workloads/stores/file.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "millrace-file-exchange-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Writes map outputs, each given as the sizes of its partitions, filled with map * 16 + partition. */
async function write(
  exchange: FileExchange,
  outputs: readonly (readonly number[])[],
  attempt = 0,
): Promise<void> {
  for (const [map, sizes] of outputs.entries()) {
    const offsets = new Float64Array(sizes.length + 1);
    sizes.forEach((size, i) => {
      offsets[i + 1] = (offsets[i] as number) + size;
    });
    const output = await exchange.openOutput(map, attempt, offsets.at(-1) as number);
    sizes.forEach((_, partition) => {
      (output.buffer as Uint8Array).fill(map * 16 + partition, offsets[partition], offsets[partition + 1]);
    });
    await output.commit(
      offsets,
      Uint32Array.from(sizes, (_, partition) => map * 16 + partition),
    );
  }
}

it("gives every partition what the maps wrote for it, also when a map is committed twice", async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }).chain((partitions) =>
        fc.array(
          fc.array(fc.integer({ min: 0, max: 300 }), { minLength: partitions, maxLength: partitions }),
          {
            minLength: 1,
            maxLength: 5,
          },
        ),
      ),
      async (outputs) => {
        run += 1;
        const partitions = (outputs[0] as number[]).length;
        const plan = { run: `r${run}`, maps: outputs.length, partitions };
        const setup = await setUpFileExchange(folder, plan.run);
        const exchange = new FileExchange(folder, plan);
        await write(exchange, outputs);
        await write(exchange, outputs, 1);
        for (let partition = 0; partition < partitions; partition += 1) {
          const found = await exchange.readPartition(partition);
          const maps = outputs.flatMap((sizes, map) => (sizes[partition] === 0 ? [] : [map]));
          expect(found.maps).toEqual(maps);
          expect([...found.checksums]).toEqual(maps.map((map) => map * 16 + partition));
          expect(found.extents.map((extent) => extent.length)).toEqual(
            maps.map((map) => outputs[map]?.[partition]),
          );
          found.extents.forEach((extent, i) => {
            expect(
              (extent as Uint8Array).every((byte) => byte === (maps[i] as number) * 16 + partition),
            ).toBe(true);
          });
        }
        await setup.remove();
        expect(readdirSync(folder)).toEqual([]);
      },
    ),
    { numRuns: 30 },
  );
});

it("removes the folders that the run made and no other", async () => {
  const setup = await setUpFileExchange(join(folder, "a", "b"), "run");
  writeFileSync(join(folder, "a", "mine"), "");
  await setup.remove();
  expect(existsSync(join(folder, "a", "mine"))).toBe(true);
  expect(existsSync(join(folder, "a", "b"))).toBe(false);
});

it("notices what is missing or short", async () => {
  await setUpFileExchange(folder, "run");
  const plan = { run: "run", maps: 1, partitions: 2 };
  const exchange = new FileExchange(folder, plan);
  await expect(exchange.readPartition(0)).rejects.toMatchObject({ code: "SYSTEM" });
  await write(exchange, [[100, 100]]);
  truncateSync(join(folder, "millrace-run", "map-000000.data"), 150);
  await expect(exchange.readPartition(0)).resolves.toMatchObject({ sizeBytes: 100 });
  await expect(exchange.readPartition(1)).rejects.toMatchObject({ code: "CORRUPT" });
  expect(await exchange.reportLost([0])).toMatchObject({ code: "MAP_OUTPUT_LOST", maps: [0] });
});
