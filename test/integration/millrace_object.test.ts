/** Small exchanges through plain objects, over every transport. */
import { randomBytes } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { crc32c } from "../../client/checksum.js";
import { type Client, connect, type Namespace, type TransportKind } from "../../client/index.js";
import type { Exchange } from "../../workloads/stores/exchange.js";
import { openExchange, setUpExchange } from "../../workloads/stores/open.js";
import { type Daemon, startDaemon } from "../support/daemon.js";

const PLAN = { run: "small", maps: 3, partitions: 4, isSmall: true };
const STORE = { kind: "millrace" } as const;

let daemon: Daemon;
beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  await daemon.stop();
});

/** Map 1 has nothing at all, and nobody has anything of partition 2. */
function share(map: number, partition: number, attempt = 0): string {
  if (map === 1 || partition === 2) return "";
  return `map ${map} partition ${partition} attempt ${attempt};`.repeat(partition + 1);
}

describe.each<TransportKind>(["shm", "tcp", "grpc"])("over %s", (transport) => {
  let client: Client;
  let namespace: Namespace;
  let exchange: Exchange;

  beforeEach(async () => {
    client = await connect(daemon.endpoint, { transport });
    namespace = await client.createNamespace(`small-${randomBytes(4).toString("hex")}`);
    await setUpExchange(STORE, PLAN, namespace);
    exchange = await openExchange(STORE, PLAN, namespace);
  });

  afterEach(async () => {
    await client.deleteNamespace(namespace.name);
    await client.close();
  });

  async function write(map: number, attempt = 0): Promise<void> {
    const shares = Array.from({ length: PLAN.partitions }, (_, i) => Buffer.from(share(map, i, attempt)));
    const bytes = Buffer.concat(shares);
    const output = await exchange.openOutput(map, attempt, bytes.length);
    const offsets = new Float64Array(PLAN.partitions + 1);
    shares.forEach((each, i) => {
      offsets[i + 1] = (offsets[i] as number) + each.length;
    });
    // Over shm a span, which only kernels can fill: what lies there then is not the text, but as long.
    if (output.buffer instanceof Uint8Array) output.buffer.set(bytes);
    await output.commit(
      offsets,
      Uint32Array.from(shares, (each) => crc32c(0, each)),
    );
  }

  it("gives each run of partitions, of all maps or of some", async () => {
    for (const map of [2, 0, 1]) await write(map);
    for (let first = 0; first < PLAN.partitions; first += 1) {
      for (let count = 1; count <= PLAN.partitions - first; count += 1) {
        for (const maps of [null, { first: 1, count: 2 }]) {
          const expected = [0, 1, 2]
            .filter((map) => map >= (maps?.first ?? 0))
            .map((map) => ({
              map,
              text: Array.from({ length: count }, (_, i) => share(map, first + i)).join(""),
            }))
            .filter(({ text }) => text !== "");
          const found = await exchange.readRun(first, count, maps);
          expect(found.maps).toEqual(expected.map(({ map }) => map));
          expect(found.extents.map(({ length }) => length)).toEqual(expected.map(({ text }) => text.length));
          if (transport !== "shm") {
            expect(found.extents.map((bytes) => Buffer.from(bytes as Uint8Array).toString())).toEqual(
              expected.map(({ text }) => text),
            );
          }
          expect([...found.checksums]).toEqual(expected.map(({ text }) => crc32c(0, Buffer.from(text))));
          expect(found.sizeBytes).toBe(expected.reduce((sum, { text }) => sum + text.length, 0));
        }
      }
    }
  });

  it("takes the first attempt of a map", async () => {
    for (const map of [0, 1, 2]) await write(map);
    const before = await namespace.head("exchange/small/m0");
    await write(0, 1);
    expect(await namespace.head("exchange/small/m0")).toEqual(before);
  });

  it("names the maps that are gone or are not what was left, and takes them again", async () => {
    for (const map of [0, 1, 2]) await write(map);
    await namespace.delete("exchange/small/m0");
    await namespace.put(
      "exchange/small/m2",
      "not what a map has left, and long enough to hold an index".repeat(3),
    );
    const lost = { code: "MAP_OUTPUT_LOST", maps: [0, 2], retryable: false };
    await expect(exchange.readRun(0, 4, null)).rejects.toMatchObject(lost);
    // What was no output is out of the way.
    for (const map of [0, 2]) await write(map, 1);
    const again = await openExchange(STORE, PLAN, namespace);
    const { maps, sizeBytes } = await again.readRun(0, 4, null);
    expect(maps).toEqual([0, 2]);
    expect(sizeBytes).toBe([0, 2].reduce((sum, map) => sum + textOf(map, 1).length, 0));
    // One that goes between its index and its bytes.
    await namespace.delete("exchange/small/m2");
    await expect(again.readRun(0, 4, null)).rejects.toMatchObject({ code: "MAP_OUTPUT_LOST", maps: [2] });
  });

  function textOf(map: number, attempt: number): string {
    return Array.from({ length: PLAN.partitions }, (_, i) => share(map, i, attempt)).join("");
  }

  it("leaves nothing of what is given up, and nothing in the end", async () => {
    const output = await exchange.openOutput(0, 0, 100);
    await output.abort();
    // A span would hold its segment.
    expect(output.buffer).toHaveLength(transport === "shm" ? 0 : 100);
    expect((await namespace.listPage()).objects).toEqual([]);
    const setup = await setUpExchange(STORE, PLAN, namespace);
    for (const map of [0, 1]) await write(map);
    await setup.remove();
    expect((await namespace.listPage()).objects).toEqual([]);
  });
});
